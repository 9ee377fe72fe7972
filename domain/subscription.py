"""A subscription: its state, and how facts change it (what may be decided about it: subscription_decisions.py).

    (nothing) ──Subscribe──▶ pending ──▶ incomplete | trialing | active ◀──▶ past_due ──▶ unpaid
                              │    ▲              └─Change─▶ other terms       └─Cancel, or dunning─▶ cancelled
                              └▶ refused ──Subscribe──▶ (another attempt)

What happens at the provider is heard of in any order, so nothing here depends on it: of its terms, status and planned
end the latest holds (`Dated`), an invoice is its own entry, a paid one stays paid, and an end is an end.
"""

from datetime import datetime
from typing import Literal, assert_never
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from domain.calendar import Period
from domain.money import Money
from domain.payment_facts import Failure
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
from domain.subscription_standing import Dated, Invoice, failed, furthest, latest, paid

Status = Literal["pending", "refused", "incomplete", "trialing", "active", "past_due", "unpaid", "cancelled"]
Kind = Literal["subscribe", "change", "cancel", "resume"]
# What became of what was to be paid last: refunded, if all of it went back.
PaymentStatus = Literal["pending", "paid", "failed", "refunded"]


class Operation(Struct, frozen=True):
    """One wish that was started: `open` until its outcome is known. What it asked for is in the fields after that.

    `known_at`: the latest moment of the provider's that was known of by then. What comes of the wish is later.
    """

    kind: Kind
    known_at: datetime | None = None
    outcome: Literal["open", "done", "failed"] = "open"
    price: str | None = None
    quantity: int | None = None
    at_period_end: bool = False


class Cancelled(Struct, frozen=True):
    at: datetime
    cause: Cause | None


class Subscription(Struct, frozen=True):
    """The state of a subscription, folded from its facts.

    `product`, `price` and `quantity` are as asked for at first; what is billed is in `terms`, once it has started.
    `period`: the latest that was heard of. `refunds`: what went back in all, by invoice. `failure`: why the last wish
    that was refused was refused.
    """

    customer: UUID
    request: str
    product: str
    price: str
    quantity: int
    operations: dict[str, Operation]
    provider_subscription: str | None = None
    terms: Dated[Terms] | None = None
    standing: Dated[BillingStatus] | None = None
    ending: Dated[datetime | None] | None = None
    cancelled: Cancelled | None = None
    period: Period | None = None
    invoices: dict[str, Invoice] = {}
    voided: tuple[str, ...] = ()
    refunds: dict[str, Dated[Money]] = {}
    failure: Failure | None = None

    @property
    def status(self) -> Status:
        if self.cancelled:
            return "cancelled"
        if self.standing:
            return self.standing.value
        return "refused" if self.operations[self.request].outcome == "failed" else "pending"

    @property
    def latest_invoice(self) -> tuple[str, Invoice] | None:
        """The one that counts, by its name: of the latest period, if it was not taken back; of two the paid one, of two
        paid ones that which did not go back
        (https://support.stripe.com/questions/retry-schedules-longer-than-a-subscription-s-billing-period).
        """

        def counts(name: str) -> tuple[Period, bool, bool, str]:
            invoice = self.invoices[name]
            return invoice.period, invoice.paid, not self.went_back(name), name

        owed = [name for name, invoice in self.invoices.items() if invoice.paid or name not in self.voided]
        last = max(owed or self.invoices, key=counts, default=None)
        return None if last is None else (last, self.invoices[last])

    @property
    def payment_status(self) -> PaymentStatus:
        """What became of the invoice that counts. One of which a part went back is paid."""
        if self.latest_invoice is None:
            return "failed" if self.status == "refused" else "pending"
        name, last = self.latest_invoice
        if not last.paid:
            return "failed"
        return "refunded" if self.went_back(name) else "paid"

    def went_back(self, invoice: str) -> bool:
        """Whether all that was paid by an invoice was given back; never, where nothing was to be paid."""
        paid, back = self.invoices[invoice], self.refunds.get(invoice)
        return paid.paid and back is not None and 0 < paid.amount.minor <= back.value.minor

    @property
    def ends_at(self) -> datetime | None:
        """When it ended, or will, as far as is known."""
        if self.cancelled:
            return self.cancelled.at
        return self.ending.value if self.ending else None

    @property
    def as_of(self) -> datetime | None:
        """The latest moment of the provider's that is known of."""
        known = [dated.as_of for dated in (self.terms, self.standing, self.ending, *self.refunds.values()) if dated]
        return max(known, default=None)

    def in_flight(self) -> tuple[tuple[str, Operation], ...]:
        """The open operations, by id."""
        return tuple((name, op) for name, op in self.operations.items() if op.outcome == "open")


# --- Fold --------------------------------------------------------------------------------------------------------


def evolve(subscription: Subscription | None, fact: SubscriptionFact) -> Subscription:
    """Fold one fact in. It never refuses: the past has already happened."""
    if isinstance(fact, SubscriptionRequested):
        return _begun(subscription, fact)
    assert subscription is not None, "a subscription's history begins with SubscriptionRequested"  # noqa: S101  corruption
    match fact:
        case SubscriptionStarted():
            return _closed(_started(subscription, fact), fact.operation, "done")
        case ChangeRequested():
            wanted = Operation("change", subscription.as_of, price=fact.price, quantity=fact.quantity)
            return _with(subscription, fact.operation, wanted)
        case SubscriptionChanged():
            return _closed(_on_terms(subscription, fact), fact.operation, "done")
        case CancellationRequested():
            wanted = Operation("cancel", subscription.as_of, at_period_end=fact.at_period_end)
            return _with(subscription, fact.operation, wanted)
        case CancellationScheduled():
            return _closed(_ending(subscription, fact.ends_at, fact.as_of), fact.operation, "done")
        case SubscriptionCancelled():
            return _over(subscription, fact)
        case ResumeRequested():
            return _with(subscription, fact.operation, Operation("resume", subscription.as_of))
        case SubscriptionResumed():
            return _closed(_ending(subscription, None, fact.as_of), fact.operation, "done")
        case SubscriptionRefused() | ChangeRefused() | CancellationRefused() | ResumeRefused():
            return _closed(replace(subscription, failure=fact.failure), fact.operation, "failed")
        case SubscriptionRenewed() | RenewalFailed():
            return _billed(subscription, fact)
        case InvoiceVoided():
            return replace(subscription, voided=tuple(sorted({*subscription.voided, fact.invoice})))
        case InvoiceRefunded():
            back = latest(subscription.refunds.get(fact.invoice), fact.amount, fact.as_of)
            return replace(subscription, refunds=subscription.refunds | {fact.invoice: back})
        case StatusMoved():
            return replace(subscription, standing=latest(subscription.standing, fact.status, fact.as_of))
        case _:
            assert_never(fact)


def _begun(subscription: Subscription | None, fact: SubscriptionRequested) -> Subscription:
    begun = subscription or Subscription(fact.customer, fact.operation, fact.product, fact.price, fact.quantity, {})
    asked = replace(
        begun, request=fact.operation, product=fact.product, price=fact.price, quantity=fact.quantity, failure=None
    )
    return _with(asked, fact.operation, Operation("subscribe", price=fact.price, quantity=fact.quantity))


def _started(subscription: Subscription, fact: SubscriptionStarted) -> Subscription:
    return replace(
        _on_terms(subscription, fact),
        provider_subscription=fact.subscription,
        standing=latest(subscription.standing, fact.status, fact.as_of),
    )


def _on_terms(subscription: Subscription, fact: SubscriptionStarted | SubscriptionChanged) -> Subscription:
    terms = Terms(**{name: getattr(fact, name) for name in Terms.__struct_fields__})
    period = furthest(subscription.period, Period(fact.period_start, fact.period_end))
    return replace(subscription, terms=latest(subscription.terms, terms, fact.as_of), period=period)


def _ending(subscription: Subscription, ends_at: datetime | None, as_of: datetime) -> Subscription:
    return replace(subscription, ending=latest(subscription.ending, ends_at, as_of))


def _over(subscription: Subscription, fact: SubscriptionCancelled) -> Subscription:
    """Whoever wished for the end has got it, by this or by what they asked for."""
    over = replace(subscription, cancelled=subscription.cancelled or Cancelled(fact.at, fact.cause))
    for name, operation in subscription.in_flight():
        if operation.kind == "cancel":
            over = _closed(over, name, "done")
    return over


def _billed(subscription: Subscription, fact: SubscriptionRenewed | RenewalFailed) -> Subscription:
    known = subscription.invoices.get(fact.invoice)
    invoice = paid(known, fact) if isinstance(fact, SubscriptionRenewed) else failed(known, fact)
    period = furthest(subscription.period, Period(fact.period_start, fact.period_end))
    return replace(subscription, invoices=subscription.invoices | {fact.invoice: invoice}, period=period)


def _with(subscription: Subscription, name: str, operation: Operation) -> Subscription:
    return replace(subscription, operations=subscription.operations | {name: operation})


def _closed(subscription: Subscription, name: str | None, outcome: Literal["done", "failed"]) -> Subscription:
    """An operation has its outcome; what nobody asked us for has none to close."""
    if name is None:
        return subscription
    return _with(subscription, name, replace(subscription.operations[name], outcome=outcome))
