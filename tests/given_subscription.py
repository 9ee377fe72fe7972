"""The grammar of the subscription's tests, and words to say a history with.

    given(*ACTIVE).when(Cancel("cancel_1")).then(cancel_requested()).stands("active")

It is the payment's (tests/given.py), about a subscription. All of it is billed from 31 January 2027 on: an anchor that
most months do not have. An operation is called by its kind and a number; all evidence is the same.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import reduce
from typing import NamedTuple
from uuid import UUID

import pytest
from msgspec.structs import asdict

from domain.calendar import Period
from domain.errors import Refusal
from domain.subscription import Status, Subscription, evolve
from domain.subscription_commands import (
    RecordCancelled,
    RecordChanged,
    RecordInvoiceRefunded,
    RecordInvoiceVoided,
    RecordRefused,
    RecordRenewal,
    RecordRenewalFailed,
    RecordResumed,
    RecordScheduled,
    RecordStarted,
    RecordStatus,
    SubscriptionCommand,
)
from domain.subscription_decisions import decide
from domain.subscription_facts import (
    BillingStatus,
    CancellationRefused,
    CancellationRequested,
    CancellationScheduled,
    Cause,
    ChangeRefused,
    ChangeRequested,
    InvoiceRefunded,
    InvoiceVoided,
    RenewalFailed,
    ResumeRefused,
    ResumeRequested,
    StatusMoved,
    SubscriptionCancelled,
    SubscriptionChanged,
    SubscriptionFact,
    SubscriptionRefused,
    SubscriptionRenewed,
    SubscriptionRequested,
    SubscriptionResumed,
    SubscriptionStarted,
    Terms,
)
from tests.given import NO_FUNDS, usd

CUSTOMER = UUID(int=7)
TOLD = "evt_told"


def at(month: int, day: int, year: int = 2027) -> datetime:
    return datetime(year, month, day, 9, tzinfo=UTC)


JAN_17, JAN_31, FEB_28, MAR_31, APR_30 = at(1, 17), at(1, 31), at(2, 28), at(3, 31), at(4, 30)
FIRST, SECOND, THIRD = Period(JAN_31, FEB_28), Period(FEB_28, MAR_31), Period(MAR_31, APR_30)
TRIAL = Period(JAN_17, JAN_31)

MONTHLY = Terms(
    product="prod_1",
    price="price_1",
    quantity=1,
    amount=usd(20_00),
    interval="month",
    interval_count=1,
    anchor=JAN_31,
    trial_end=None,
)


def monthly(price: str = "price_1", quantity: int = 1, minor: int = 20_00, product: str = "prod_1") -> Terms:
    return Terms(**asdict(MONTHLY) | {"price": price, "quantity": quantity, "amount": usd(minor), "product": product})


PRICIER = monthly("price_2", minor=30_00)
AFTER_TRIAL = Terms(**asdict(MONTHLY) | {"trial_end": JAN_31})
ANNUAL = Terms(**asdict(MONTHLY) | {"price": "price_year", "amount": usd(200_00), "interval": "year"})


def later(seconds: int) -> datetime:
    """So long after it began."""
    return JAN_31 + timedelta(seconds=seconds)


SOON, THEN = later(60), later(120)


# --- Facts -------------------------------------------------------------------------------------------------------


def requested(operation: str = "start_1", price: str = "price_1", quantity: int = 1) -> SubscriptionRequested:
    return SubscriptionRequested(operation, CUSTOMER, "prod_1", price, quantity, trial_days=0)


def began(
    operation: str = "start_1", status: BillingStatus = "active", terms: Terms = MONTHLY, period: Period = FIRST
) -> SubscriptionStarted:
    return SubscriptionStarted(
        operation=operation,
        subscription="sub_1",
        **asdict(terms),
        status=status,
        period_start=period.start,
        period_end=period.end,
        as_of=period.start,
        evidence=TOLD,
    )


def not_begun(operation: str = "start_1") -> SubscriptionRefused:
    return SubscriptionRefused(operation, NO_FUNDS, TOLD)


def change_requested(operation: str = "change_1", terms: Terms = PRICIER) -> ChangeRequested:
    return ChangeRequested(operation, terms.product, terms.price, terms.quantity)


def changed(
    operation: str | None = "change_1", terms: Terms = PRICIER, as_of: datetime = SOON, period: Period = FIRST
) -> SubscriptionChanged:
    return SubscriptionChanged(
        operation=operation,
        **asdict(terms),
        period_start=period.start,
        period_end=period.end,
        as_of=as_of,
        evidence=TOLD,
    )


def change_refused(operation: str = "change_1") -> ChangeRefused:
    return ChangeRefused(operation, NO_FUNDS, TOLD)


def cancel_requested(operation: str = "cancel_1", *, at_period_end: bool = False) -> CancellationRequested:
    return CancellationRequested(operation, at_period_end)


def scheduled(
    operation: str | None = "cancel_1", ends_at: datetime = FEB_28, as_of: datetime = SOON
) -> CancellationScheduled:
    return CancellationScheduled(operation, ends_at, as_of, TOLD)


def ended(
    operation: str | None = "cancel_1", moment: datetime = THEN, cause: Cause | None = "requested"
) -> SubscriptionCancelled:
    return SubscriptionCancelled(operation, moment, cause, TOLD)


def cancel_refused(operation: str = "cancel_1") -> CancellationRefused:
    return CancellationRefused(operation, NO_FUNDS, TOLD)


def resume_requested(operation: str = "resume_1") -> ResumeRequested:
    return ResumeRequested(operation)


def resumed(operation: str | None = "resume_1", as_of: datetime = THEN) -> SubscriptionResumed:
    return SubscriptionResumed(operation, as_of, TOLD)


def resume_refused(operation: str = "resume_1") -> ResumeRefused:
    return ResumeRefused(operation, NO_FUNDS, TOLD)


def renewed(invoice: str = "in_1", period: Period = FIRST, minor: int = 20_00) -> SubscriptionRenewed:
    return SubscriptionRenewed(invoice, usd(minor), period.start, period.end, TOLD)


def not_renewed(
    invoice: str = "in_2", period: Period = SECOND, attempt: int = 1, next_attempt_at: datetime | None = None
) -> RenewalFailed:
    return RenewalFailed(invoice, usd(20_00), attempt, next_attempt_at, NO_FUNDS, period.start, period.end, TOLD)


def voided(invoice: str = "in_2") -> InvoiceVoided:
    return InvoiceVoided(invoice, TOLD)


def refunded(invoice: str = "in_1", minor: int = 20_00, as_of: datetime = SOON) -> InvoiceRefunded:
    return InvoiceRefunded(invoice, usd(minor), as_of, TOLD)


def moved(status: BillingStatus, as_of: datetime = FEB_28) -> StatusMoved:
    return StatusMoved(status, as_of, TOLD)


# Histories that many tests begin with.
PENDING: tuple[SubscriptionFact, ...] = (requested(),)
REFUSED: tuple[SubscriptionFact, ...] = (*PENDING, not_begun())
INCOMPLETE: tuple[SubscriptionFact, ...] = (*PENDING, began(status="incomplete"))
TRIALING: tuple[SubscriptionFact, ...] = (
    *PENDING,
    began(status="trialing", terms=AFTER_TRIAL, period=TRIAL),
    renewed("in_0", TRIAL, 0),
)
ACTIVE: tuple[SubscriptionFact, ...] = (*PENDING, began(), renewed())
CHANGING: tuple[SubscriptionFact, ...] = (*ACTIVE, change_requested())
ENDING: tuple[SubscriptionFact, ...] = (*ACTIVE, cancel_requested(at_period_end=True), scheduled())
RESUMING: tuple[SubscriptionFact, ...] = (*ENDING, resume_requested())
PAST_DUE: tuple[SubscriptionFact, ...] = (*ACTIVE, not_renewed(next_attempt_at=at(3, 3)), moved("past_due"))
UNPAID: tuple[SubscriptionFact, ...] = (*PAST_DUE, not_renewed(attempt=2), moved("unpaid", at(3, 3)))
CANCELLED: tuple[SubscriptionFact, ...] = (*ACTIVE, cancel_requested(), ended())


# --- Commands ----------------------------------------------------------------------------------------------------


def confirm_started(
    operation: str = "start_1",
    status: BillingStatus = "active",
    terms: Terms = MONTHLY,
    period: Period = FIRST,
    subscription: str = "sub_1",
) -> RecordStarted:
    return RecordStarted(operation, subscription, terms, status, period, period.start, TOLD)


def told_changed(
    operation: str | None = None, terms: Terms = PRICIER, as_of: datetime = SOON, period: Period = FIRST
) -> RecordChanged:
    return RecordChanged(operation, terms, period, as_of, TOLD)


def told_scheduled(operation: str | None = None, ends_at: datetime = FEB_28, as_of: datetime = SOON) -> RecordScheduled:
    return RecordScheduled(operation, ends_at, as_of, TOLD)


def told_resumed(operation: str | None = None, as_of: datetime = THEN) -> RecordResumed:
    return RecordResumed(operation, as_of, TOLD)


def told_ended(
    operation: str | None = None, moment: datetime = THEN, cause: Cause | None = "requested"
) -> RecordCancelled:
    return RecordCancelled(operation, moment, cause, TOLD)


def confirm_refused(operation: str) -> RecordRefused:
    return RecordRefused(operation, NO_FUNDS, TOLD)


def told_paid(invoice: str = "in_2", period: Period | None = SECOND, minor: int = 20_00) -> RecordRenewal:
    return RecordRenewal(invoice, usd(minor), period, TOLD)


def told_unpaid(
    invoice: str = "in_2",
    period: Period | None = SECOND,
    attempt: int = 1,
    next_attempt_at: datetime | None = None,
) -> RecordRenewalFailed:
    return RecordRenewalFailed(invoice, usd(20_00), attempt, next_attempt_at, NO_FUNDS, period, TOLD)


def told_voided(invoice: str = "in_2") -> RecordInvoiceVoided:
    return RecordInvoiceVoided(invoice, TOLD)


def told_refunded(invoice: str = "in_1", minor: int = 20_00, as_of: datetime = SOON) -> RecordInvoiceRefunded:
    return RecordInvoiceRefunded(invoice, usd(minor), as_of, TOLD)


def told_status(status: BillingStatus, as_of: datetime = FEB_28) -> RecordStatus:
    return RecordStatus(status, as_of, TOLD)


# --- Grammar -----------------------------------------------------------------------------------------------------


def given(*facts: SubscriptionFact) -> "Given":
    """A subscription with this history; nothing given is one that does not exist yet."""
    return Given(fold(facts))


def fold(facts: Iterable[SubscriptionFact], subscription: Subscription | None = None) -> Subscription | None:
    return reduce(evolve, facts, subscription)


class Given(NamedTuple):
    subscription: Subscription | None

    def when(self, command: SubscriptionCommand) -> "When":
        return When(self.subscription, command)

    def stands(self, status: Status, **fields: object) -> None:
        """The subscription has this status, and these fields."""
        assert self.subscription is not None, "nothing was given"
        found = {name: getattr(self.subscription, name) for name in fields}
        assert (self.subscription.status, found) == (status, fields)


class When(NamedTuple):
    subscription: Subscription | None
    command: SubscriptionCommand

    def then(self, *facts: SubscriptionFact) -> Given:
        """The command is answered with exactly these facts; the subscription as they leave it can be asked further."""
        assert decide(self.subscription, self.command) == facts
        return Given(fold(facts, self.subscription))

    def decides_nothing(self) -> None:
        assert decide(self.subscription, self.command) == ()

    def refused(self, refusal: type[Refusal], **facts: object) -> None:
        """The command is refused for this reason; `facts` are what the refusal must tell."""
        with pytest.raises(Refusal) as caught:
            decide(self.subscription, self.command)
        told = {name: getattr(caught.value, name) for name in facts}
        assert (type(caught.value), told) == (refusal, facts)
