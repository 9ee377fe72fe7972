"""What `/v1` says of customers and subscriptions. Amounts are whole minor units of the currency beside them."""

from datetime import datetime
from typing import Literal, Self, TypeVar
from uuid import UUID

from msgspec import Struct

from application.streams import Story
from domain import customer as customers
from domain import subscription as subscriptions
from domain.calendar import Interval
from domain.payment_facts import Card, Failure
from domain.subscription import PaymentStatus
from domain.subscription_paid import paid_until
from domain.subscription_standing import Invoice
from projections.customer_rows import At, CustomerAt, SubscriptionAt
from projections.customer_standing import (
    CardDeclined,
    CardExpires,
    CustomerStatus,
    NoCard,
    Problem,
    RenewalFailed,
    SubscriptionUnpaid,
)

State = TypeVar("State")


def at_end_of(story: Story[State]) -> At[State]:
    """An aggregate as it stands after its whole story, in which what is personal is open."""
    first, last = story.envelopes[0], story.envelopes[-1]
    return At(story.stream, story.known, story.version, story.position, first.at, last.at)


# --- Subscriptions -----------------------------------------------------------------------------------------------


class InvoiceView(Struct, frozen=True):
    """What is owed, or was paid, for a period. `attempts` failed, the last of them with `failure`.

    `amount_refunded`: what has gone back of it, in all.
    """

    id: str
    paid: bool
    amount: int
    amount_refunded: int
    currency: str
    period_start: datetime
    period_end: datetime
    attempts: int
    next_attempt_at: datetime | None
    failure: Failure | None

    @classmethod
    def of(cls, state: subscriptions.Subscription, name: str, invoice: Invoice) -> Self:
        back = state.refunds.get(name)
        return cls(
            id=name,
            paid=invoice.paid,
            amount=invoice.amount.minor,
            amount_refunded=back.value.minor if back else 0,
            currency=invoice.amount.currency,
            period_start=invoice.period.start,
            period_end=invoice.period.end,
            attempts=len(invoice.attempts),
            next_attempt_at=invoice.next_attempt_at,
            failure=invoice.failure,
        )


class SubscriptionStripeIds(Struct, frozen=True):
    subscription: str | None


class SubscriptionView(Struct, frozen=True, kw_only=True):
    """A subscription. `pending` means that the outcome of beginning it is not known yet.

    `amount` is that of a whole period, all pieces together; it and what goes with it are null before it has begun.
    `ends_at`: when it ended, or will. `failure`: why the last wish that was refused was refused.
    """

    id: UUID
    customer: UUID
    status: subscriptions.Status
    payment_status: PaymentStatus
    product: str
    price: str
    quantity: int
    amount: int | None
    currency: str | None
    interval: Interval | None
    interval_count: int | None
    trial_end: datetime | None
    period_start: datetime | None
    period_end: datetime | None
    paid_until: datetime | None
    ends_at: datetime | None
    latest_invoice: InvoiceView | None
    failure: Failure | None
    stripe: SubscriptionStripeIds
    created_at: datetime
    updated_at: datetime
    version: int

    @classmethod
    def of(cls, at: SubscriptionAt) -> Self:
        state = at.state
        terms = state.terms.value if state.terms else None
        latest = state.latest_invoice
        return cls(
            id=at.id,
            customer=state.customer,
            status=state.status,
            payment_status=state.payment_status,
            product=terms.product if terms else state.product,
            price=terms.price if terms else state.price,
            quantity=terms.quantity if terms else state.quantity,
            amount=terms.amount.minor if terms else None,
            currency=terms.amount.currency if terms else None,
            interval=terms.interval if terms else None,
            interval_count=terms.interval_count if terms else None,
            trial_end=terms.trial_end if terms else None,
            period_start=state.period.start if state.period else None,
            period_end=state.period.end if state.period else None,
            paid_until=paid_until(state),
            ends_at=state.ends_at,
            latest_invoice=InvoiceView.of(state, *latest) if latest else None,
            failure=state.failure,
            stripe=SubscriptionStripeIds(state.provider_subscription),
            created_at=at.created_at,
            updated_at=at.updated_at,
            version=at.version,
        )


class SubscriptionPage(Struct, frozen=True):
    subscriptions: list[SubscriptionView]
    next_cursor: str | None


# --- Customers ---------------------------------------------------------------------------------------------------


class CustomerStripeIds(Struct, frozen=True):
    customer: str | None
    payment_method: str | None


class CustomerView(Struct, frozen=True, kw_only=True):
    """A customer. `registering` means that the provider's answer is not known yet.

    `email` is the one that was learned last, null for callers who may not read, and once it was erased. `failure`: why
    the latest card, or the customer itself, was refused; null once a card was taken.
    """

    id: UUID
    status: customers.Status
    user: str | None
    email: str | None
    card: Card | None
    failure: Failure | None
    stripe: CustomerStripeIds
    created_at: datetime
    updated_at: datetime
    version: int

    @classmethod
    def of(cls, at: CustomerAt, *, personal: bool) -> Self:
        state = at.state
        return cls(
            id=at.id,
            status=state.status,
            user=state.user,
            email=state.email if personal else None,
            card=state.card,
            failure=state.failure,
            stripe=CustomerStripeIds(state.provider_customer, state.payment_method),
            created_at=at.created_at,
            updated_at=at.updated_at,
            version=at.version,
        )


class CustomerPage(Struct, frozen=True):
    customers: list[CustomerView]
    next_cursor: str | None


class OpenProblem(Struct, frozen=True, kw_only=True):
    """What stands in the way of the next payment. `at`: when a card runs out, or when a payment is tried again."""

    type: Literal["card_declined", "no_card", "card_expires", "renewal_failed", "subscription_unpaid"]
    detail: str
    subscription: UUID | None = None
    at: datetime | None = None
    failure: Failure | None = None

    @classmethod
    def of(cls, found: Problem) -> Self:
        match found:
            case CardDeclined():
                return cls(type="card_declined", detail="the latest card was not taken", failure=found.failure)
            case NoCard():
                return cls(type="no_card", detail="there is no card to pay with")
            case CardExpires():
                said = "the card will have run out when the next period is to be paid"
                return cls(type="card_expires", detail=said, subscription=found.subscription, at=found.expires_at)
            case RenewalFailed():
                return cls(
                    type="renewal_failed",
                    detail=f"the latest invoice was not paid, attempts: {found.attempts}",
                    subscription=found.subscription,
                    at=found.next_attempt_at,
                    failure=found.failure,
                )
            case SubscriptionUnpaid():
                first = found.status == "incomplete"
                said = "its first invoice was not paid yet" if first else "its renewal has been given up"
                return cls(type="subscription_unpaid", detail=said, subscription=found.subscription)


class CustomerStatusView(Struct, frozen=True, kw_only=True):
    """A customer and how it stands. `payment_status` is `failed` while something is owed, `paid` once something was
    paid, `refunded` when what was paid last went back in full; `paid_until` is the end of the furthest period that was
    paid for and not given back.
    """

    customer: CustomerView
    payment_status: PaymentStatus
    paid_until: datetime | None
    subscriptions: list[SubscriptionView]
    open_problems: list[OpenProblem]

    @classmethod
    def of(cls, found: CustomerStatus, customer: CustomerView) -> Self:
        return cls(
            customer=customer,
            payment_status=found.payment_status,
            paid_until=found.payment_expire_date,
            subscriptions=[SubscriptionView.of(at) for at in found.subscriptions],
            open_problems=[OpenProblem.of(problem) for problem in found.open_problems],
        )
