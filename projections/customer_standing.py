"""What a customer has paid for, until when, and what stands in the way of the next payment."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Literal
from uuid import UUID

from msgspec import Struct

from domain.calendar import month_end
from domain.customer import Customer, card_expires_before
from domain.payment_facts import Card, Failure
from domain.subscription import PaymentStatus, Subscription
from domain.subscription_paid import paid_until
from domain.subscription_standing import Invoice
from projections.customer_rows import CustomerAt, SubscriptionAt

# --- Problems ----------------------------------------------------------------------------------------------------


class CardDeclined(Struct, frozen=True, tag="card_declined"):
    """The latest card was not taken; the one before, if there was one, stays."""

    failure: Failure


class NoCard(Struct, frozen=True, tag="no_card"):
    """Something is to be paid, and there is no card to pay it with."""


class CardExpires(Struct, frozen=True, tag="card_expires"):
    """The card will have run out, or has, when the next period of a subscription is to be paid."""

    subscription: UUID
    expires_at: datetime
    renewal_at: datetime


class RenewalFailed(Struct, frozen=True, tag="renewal_failed"):
    """The latest invoice was not paid in so many attempts; no other follows by itself without a time for it."""

    subscription: UUID
    invoice: str
    attempts: int
    next_attempt_at: datetime | None
    failure: Failure | None


class SubscriptionUnpaid(Struct, frozen=True, tag="subscription_unpaid"):
    """`incomplete`: its first invoice was not paid yet; `unpaid`: that of a renewal has been given up."""

    subscription: UUID
    status: Literal["incomplete", "unpaid"]


Problem = CardDeclined | NoCard | CardExpires | RenewalFailed | SubscriptionUnpaid

# --- Status ------------------------------------------------------------------------------------------------------


class CustomerStatus(Struct, frozen=True):
    """A customer and its subscriptions, the newest first, as they stood at one position of the log.

    `payment_expire_date`: the end of the furthest period that was paid for and not given back; None where nothing was.
    """

    customer: CustomerAt
    subscriptions: tuple[SubscriptionAt, ...]
    payment_status: PaymentStatus
    payment_expire_date: datetime | None
    card: Card | None
    open_problems: tuple[Problem, ...]


def status(customer: CustomerAt, subscriptions: Sequence[SubscriptionAt], moment: datetime) -> CustomerStatus:
    """How it stands at that moment, which a card's end and the renewals to come are compared with."""
    states = [at.state for at in subscriptions]
    return CustomerStatus(
        customer=customer,
        subscriptions=tuple(subscriptions),
        payment_status=_payment_status(states),
        payment_expire_date=max((until for state in states if (until := paid_until(state))), default=None),
        card=customer.state.card,
        open_problems=(*_of_card(customer.state, subscriptions, moment), *_of_subscriptions(subscriptions)),
    )


def _payment_status(subscriptions: Sequence[Subscription]) -> PaymentStatus:
    """What somebody still has to pay for goes before what was paid, and what lasts and is paid before what was given
    back; otherwise what was paid for last tells.
    """
    if any(_overdue(subscription) for subscription in subscriptions):
        return "failed"
    if any(one.payment_status == "paid" and one.status != "cancelled" for one in subscriptions):
        return "paid"
    paid = [(told.period, one.went_back(name)) for one in subscriptions for name, told in _paid(one)]
    if paid:
        last, _ = max(paid)
        return "paid" if (last, False) in paid else "refunded"
    return "failed" if subscriptions and subscriptions[0].status == "refused" else "pending"


def _of_card(customer: Customer, subscriptions: Sequence[SubscriptionAt], moment: datetime) -> Iterator[Problem]:
    if customer.failure and customer.status == "active":
        yield CardDeclined(customer.failure)
    if customer.card is None:
        if any(_to_be_paid(at.state) for at in subscriptions):
            yield NoCard()
        return
    # A renewal that should have been already is tried at once.
    renewals = [(max(end, moment), at.id) for at in subscriptions if (end := _lasts_until(at.state))]
    too_late = [renewal for renewal in renewals if card_expires_before(customer, renewal[0])]
    if too_late:
        renewal_at, subscription = min(too_late)
        expires_at = month_end(customer.card.exp_year, customer.card.exp_month)
        yield CardExpires(subscription, expires_at, renewal_at)


def _of_subscriptions(subscriptions: Sequence[SubscriptionAt]) -> Iterator[Problem]:
    for at in subscriptions:
        if overdue := _overdue(at.state):
            name, invoice = overdue
            attempts = max(invoice.attempts, default=0)  # their numbers: of some we may not have heard
            yield RenewalFailed(at.id, name, attempts, invoice.next_attempt_at, invoice.failure)
        match at.state.status:
            case "incomplete" | "unpaid" as standing:
                yield SubscriptionUnpaid(at.id, standing)
            case _:
                pass


# --- One subscription --------------------------------------------------------------------------------------------


def _overdue(subscription: Subscription) -> tuple[str, Invoice] | None:
    """Its latest invoice, by name, if that failed and it has not ended since."""
    latest = subscription.latest_invoice
    return latest if latest and not latest[1].paid and subscription.status != "cancelled" else None


def _paid(subscription: Subscription) -> Iterator[tuple[str, Invoice]]:
    return ((name, invoice) for name, invoice in subscription.invoices.items() if invoice.paid)


def _lasts_until(subscription: Subscription) -> datetime | None:
    """The end of the period that it is in, after which it is renewed; None if it will not be."""
    period, ends_at = subscription.period, subscription.ends_at
    if period is None or subscription.status in {"incomplete", "cancelled"}:
        return None
    return None if ends_at is not None and ends_at <= period.end else period.end


def _to_be_paid(subscription: Subscription) -> bool:
    """Whether it wants money, now or later."""
    owed = subscription.status in {"incomplete", "past_due", "unpaid"} or _overdue(subscription) is not None
    return owed or _lasts_until(subscription) is not None
