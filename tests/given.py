"""The grammar of the payment's tests, and words to say a history with.

    given(*CAPTURED, *refunded("re_1", 7_00)).when(Refund("re_2", 4_00)).refused(ExceedsCaptured)

A word like `captured` names what happened from wish to outcome, as the two facts it left; `*_started` leaves it open.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import reduce
from typing import Literal, NamedTuple

import pytest

from domain.errors import Refusal
from domain.money import Money
from domain.payment import Operation, Payment, Status, evolve
from domain.payment_commands import (
    Adopt,
    Authorize,
    PaymentCommand,
    RecordActionRequired,
    RecordAuthorized,
    RecordCaptured,
    RecordDispute,
    RecordExpired,
    RecordFailed,
    RecordRefunded,
    RecordReversed,
    RecordVoided,
)
from domain.payment_decisions import decide
from domain.payment_facts import (
    ActionRequired,
    AuthorizationStarted,
    Authorized,
    Captured,
    CaptureMethod,
    CaptureStarted,
    Card,
    DisputeLost,
    DisputeOpened,
    DisputeWon,
    Expired,
    Failed,
    Failure,
    NextAction,
    PaymentFact,
    Refunded,
    RefundStarted,
    Stage,
    Voided,
    VoidStarted,
)

VISA = Card(brand="visa", last4="4242", exp_month=12, exp_year=2030)
NO_FUNDS = Failure("card_declined", "insufficient_funds", "Your card has insufficient funds.", retryable=True)
TOO_LATE = Failure("charge_expired_for_capture", None, "The authorization has expired.", retryable=False)
ACCOUNT_CLOSED = Failure("expired_or_canceled_card", None, "the refund did not go through", retryable=False)
PAGE = NextAction("redirect_to_url", "https://hooks.stripe.com/3d_secure")
NOON = datetime(2026, 11, 3, 12, tzinfo=UTC)
IN_A_WEEK = NOON + timedelta(days=7)


def usd(minor: int) -> Money:
    return Money(minor, "usd")


def eur(minor: int) -> Money:
    return Money(minor, "eur")


# --- Facts -------------------------------------------------------------------------------------------------------


def started(
    operation: str = "auth_1",
    minor: int = 100_00,
    *,
    capture: CaptureMethod = "manual",
    attempt: int = 1,
    currency: str = "usd",
) -> AuthorizationStarted:
    return AuthorizationStarted(operation, attempt, Money(minor, currency), capture, "pm_card_visa")


def action_required(operation: str = "auth_1") -> ActionRequired:
    return ActionRequired(operation, "pi_1", PAGE, "req_action")


def authorized(operation: str = "auth_1", minor: int = 100_00, *, multicapture: bool = False) -> Authorized:
    return Authorized(operation, usd(minor), "pi_1", "ch_1", VISA, IN_A_WEEK, multicapture, "req_authorized")


def capture_started(operation: str = "cap_1", minor: int = 100_00, *, final: bool = True) -> CaptureStarted:
    return CaptureStarted(operation, usd(minor), final)


def taken(operation: str = "cap_1", minor: int = 100_00, *, final: bool = True) -> Captured:
    return Captured(operation, usd(minor), final, "ch_1", "req_captured")


def captured(operation: str = "cap_1", minor: int = 100_00, *, final: bool = True) -> tuple[CaptureStarted, Captured]:
    return capture_started(operation, minor, final=final), taken(operation, minor, final=final)


def void_started(operation: str = "void_1") -> VoidStarted:
    return VoidStarted(operation)


def released(operation: str = "void_1", minor: int = 100_00) -> Voided:
    return Voided(operation, usd(minor), "req_voided")


def voided(operation: str = "void_1", minor: int = 100_00) -> tuple[VoidStarted, Voided]:
    return void_started(operation), released(operation, minor)


def refund_started(operation: str = "re_1", minor: int = 100_00) -> RefundStarted:
    return RefundStarted(operation, usd(minor))


def given_back(operation: str = "re_1", minor: int = 100_00) -> Refunded:
    return Refunded(operation, usd(minor), "re_stripe", "req_refunded")


def refunded(operation: str = "re_1", minor: int = 100_00) -> tuple[RefundStarted, Refunded]:
    return refund_started(operation, minor), given_back(operation, minor)


def failed(operation: str = "auth_1", stage: Stage = "authorize", failure: Failure = NO_FUNDS) -> Failed:
    return Failed(operation, stage, failure, "req_failed")


def expired(minor: int = 100_00) -> Expired:
    return Expired(usd(minor), "evt_expired")


def reversed_later(operation: str = "re_1") -> Failed:
    """A refund that was made, and did not reach the cardholder."""
    return Failed(operation, "refund", ACCOUNT_CLOSED, "evt_refund_failed")


def disputed(dispute: str = "dp_1", minor: int = 100_00) -> DisputeOpened:
    return DisputeOpened(dispute, usd(minor), "fraudulent", "req_dispute")


def dispute_won(dispute: str = "dp_1") -> DisputeWon:
    return DisputeWon(dispute, "req_dispute")


def dispute_lost(dispute: str = "dp_1") -> DisputeLost:
    return DisputeLost(dispute, "req_dispute")


# Histories that many tests begin with.
STARTED: tuple[PaymentFact, ...] = (started(),)
ACTION_REQUIRED: tuple[PaymentFact, ...] = (*STARTED, action_required())
DECLINED: tuple[PaymentFact, ...] = (*STARTED, failed())
AUTHORIZED: tuple[PaymentFact, ...] = (*STARTED, authorized())
MULTICAPTURE: tuple[PaymentFact, ...] = (*STARTED, authorized(multicapture=True))
CAPTURED: tuple[PaymentFact, ...] = (*AUTHORIZED, *captured())
VOIDED: tuple[PaymentFact, ...] = (*AUTHORIZED, *voided())
EXPIRED: tuple[PaymentFact, ...] = (*AUTHORIZED, expired())
REFUNDED: tuple[PaymentFact, ...] = (*CAPTURED, *refunded())
DISPUTED: tuple[PaymentFact, ...] = (*CAPTURED, disputed())


# --- Commands ----------------------------------------------------------------------------------------------------


def authorize(
    operation: str = "auth_1", minor: int = 100_00, *, capture: CaptureMethod = "manual", currency: str = "usd"
) -> Authorize:
    return Authorize(operation, Money(minor, currency), capture, "pm_card_visa")


def confirm_action_required(operation: str = "auth_1") -> RecordActionRequired:
    return RecordActionRequired(operation, "pi_1", PAGE, "req_action")


def confirm_authorized(
    operation: str = "auth_1",
    amount: Money | None = None,
    *,
    taken_at_once: bool = False,
    multicapture: bool = False,
) -> RecordAuthorized:
    amount = usd(100_00) if amount is None else amount
    return RecordAuthorized(
        operation, amount, taken_at_once, "pi_1", "ch_1", VISA, IN_A_WEEK, multicapture, "req_authorized"
    )


def confirm_captured(operation: str = "cap_1", amount: Money | None = None, *, final: bool = True) -> RecordCaptured:
    return RecordCaptured(operation, usd(100_00) if amount is None else amount, final, "ch_1", "req_captured")


def confirm_voided(operation: str = "void_1") -> RecordVoided:
    return RecordVoided(operation, "req_voided")


def confirm_refunded(operation: str = "re_1", amount: Money | None = None) -> RecordRefunded:
    return RecordRefunded(operation, usd(100_00) if amount is None else amount, "re_stripe", "req_refunded")


def confirm_failed(operation: str = "auth_1", failure: Failure = NO_FUNDS, *, too_late: bool = False) -> RecordFailed:
    return RecordFailed(operation, failure, "req_failed", expired=too_late)


def confirm_expired() -> RecordExpired:
    return RecordExpired("evt_expired")


def told_of_dispute(
    outcome: Literal["open", "won", "lost"] = "open", dispute: str = "dp_1", minor: int = 100_00
) -> RecordDispute:
    return RecordDispute(dispute, usd(minor), "fraudulent", outcome, "req_dispute")


def told_of_reversal(operation: str = "re_1") -> RecordReversed:
    return RecordReversed(operation, ACCOUNT_CLOSED, "evt_refund_failed")


def captured_by_hand(operation: str = "by_hand", minor: int = 100_00, *, final: bool = True) -> Adopt:
    return Adopt(confirm_captured(operation, usd(minor), final=final))


def voided_by_hand(operation: str = "by_hand") -> Adopt:
    return Adopt(confirm_voided(operation))


def refunded_by_hand(operation: str = "by_hand", minor: int = 100_00) -> Adopt:
    return Adopt(confirm_refunded(operation, usd(minor)))


# --- Grammar -----------------------------------------------------------------------------------------------------


def given(*facts: PaymentFact) -> "Given":
    """A payment with this history; nothing given is a payment that does not exist yet."""
    return Given(fold(facts))


def fold(facts: Iterable[PaymentFact], payment: Payment | None = None) -> Payment | None:
    return reduce(evolve, facts, payment)


class Given(NamedTuple):
    payment: Payment | None

    def when(self, command: PaymentCommand) -> "When":
        return When(self.payment, command)

    def stands(self, status: Status, **amounts_minor: int) -> None:
        """The payment has this status, and these amounts (authorized=…, capturable=…, captured=…, refunded=…)."""
        assert self.payment is not None, "nothing was given"
        found = {name: getattr(self.payment, name).minor for name in amounts_minor}
        assert (self.payment.status, found) == (status, amounts_minor)

    def operation(self, name: str) -> Operation:
        assert self.payment is not None, "nothing was given"
        return self.payment.operations[name]


class When(NamedTuple):
    payment: Payment | None
    command: PaymentCommand

    def then(self, *facts: PaymentFact) -> Given:
        """The command is answered with exactly these facts; the payment as they leave it can be asked further."""
        assert decide(self.payment, self.command) == facts
        return Given(fold(facts, self.payment))

    def decides_nothing(self) -> None:
        assert decide(self.payment, self.command) == ()

    def refused(self, refusal: type[Refusal], **facts: object) -> None:
        """The command is refused for this reason; `facts` are what the refusal must tell."""
        with pytest.raises(Refusal) as caught:
            decide(self.payment, self.command)
        told = {name: getattr(caught.value, name) for name in facts}
        assert (type(caught.value), told) == (refusal, facts)
