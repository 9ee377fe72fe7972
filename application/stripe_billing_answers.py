"""What we read of Stripe's answers about billing, and nothing else of them (https://docs.stripe.com/api).

Where Stripe has moved a member, both places are read: since 2025-03-31 a subscription's period is told by its items,
an invoice's payment by its list of them, and what a line is for by its parent (https://docs.stripe.com/changelog/basil).
"""

from datetime import UTC, datetime

from msgspec import Struct

from application.stripe_answers import Page, PaymentError
from domain.calendar import Interval

ENDED = frozenset({"canceled", "incomplete_expired"})

# --- Customers ---------------------------------------------------------------------------------------------------


class MethodCard(Struct, frozen=True):
    brand: str
    last4: str
    exp_month: int
    exp_year: int
    fingerprint: str | None = None


class PaymentMethod(Struct, frozen=True):
    """`card` is there when it is one; `customer` when it is somebody's."""

    id: str
    customer: str | None = None
    card: MethodCard | None = None


class InvoiceSettings(Struct, frozen=True):
    """The default is the payment method itself when that was asked for."""

    default_payment_method: str | PaymentMethod | None = None


class Customer(Struct, frozen=True):
    """One that was deleted says so, and nothing else."""

    id: str
    deleted: bool = False
    created: int = 0
    metadata: dict[str, str] = {}
    invoice_settings: InvoiceSettings = InvoiceSettings()


# --- What is sold ------------------------------------------------------------------------------------------------


class Recurring(Struct, frozen=True):
    interval: Interval
    interval_count: int = 1


class PriceTold(Struct, frozen=True):
    """`unit_amount`: none for a price in tiers, or one with fractions of the smallest unit."""

    id: str
    product: str
    currency: str
    unit_amount: int | None = None
    recurring: Recurring | None = None
    active: bool = True


class ProductTold(Struct, frozen=True):
    id: str
    name: str
    active: bool
    default_price: str | None = None


# --- Subscriptions -----------------------------------------------------------------------------------------------


class Item(Struct, frozen=True):
    id: str
    price: PriceTold
    quantity: int | None = None
    current_period_start: int | None = None
    current_period_end: int | None = None


class CancellationDetails(Struct, frozen=True):
    reason: str | None = None


class Subscription(Struct, frozen=True):
    id: str
    customer: str
    status: str
    created: int
    billing_cycle_anchor: int
    items: Page[Item]
    metadata: dict[str, str] = {}
    trial_end: int | None = None
    cancel_at: int | None = None
    cancel_at_period_end: bool = False
    canceled_at: int | None = None
    ended_at: int | None = None
    cancellation_details: CancellationDetails | None = None
    default_payment_method: str | None = None
    default_source: str | None = None
    current_period_start: int | None = None
    current_period_end: int | None = None

    @property
    def over(self) -> bool:
        return self.status in ENDED

    @property
    def ending(self) -> bool:
        """Whether it is planned to end."""
        return self.cancel_at is not None or self.cancel_at_period_end

    @property
    def item(self) -> Item:
        """The first; what we begin has no other."""
        return self.items.data[0]


# --- Invoices ----------------------------------------------------------------------------------------------------


class LinePeriod(Struct, frozen=True):
    start: int
    end: int


class ItemDetails(Struct, frozen=True):
    proration: bool = False


class LineParent(Struct, frozen=True):
    """A proration that waited for the invoice may be told as either."""

    subscription_item_details: ItemDetails | None = None
    invoice_item_details: ItemDetails | None = None


class Line(Struct, frozen=True):
    id: str
    amount: int
    period: LinePeriod
    parent: LineParent | None = None
    type: str | None = None
    proration: bool = False

    @property
    def of_subscription(self) -> bool:
        """Whether it is for the time that something is subscribed to; else something was sold beside it."""
        if self.parent is None:
            return self.type == "subscription" or self.proration
        return self.parent.subscription_item_details is not None or self.prorated

    @property
    def prorated(self) -> bool:
        if self.parent is None:
            return self.proration
        details = self.parent.subscription_item_details or self.parent.invoice_item_details
        return details is not None and details.proration


class PaidBy(Struct, frozen=True):
    """By a PaymentIntent, or by a charge without one."""

    payment_intent: str | None = None
    charge: str | None = None


class InvoicePayment(Struct, frozen=True):
    payment: PaidBy
    status: str = "paid"


class Invoice(Struct, frozen=True):
    """`payments`, the newest first, are there when they were asked for."""

    id: str
    status: str
    currency: str
    lines: Page[Line]
    amount_paid: int = 0
    amount_remaining: int = 0
    attempt_count: int = 0
    next_payment_attempt: int | None = None
    payments: Page[InvoicePayment] | None = None
    payment_intent: str | None = None
    charge: str | None = None

    @property
    def paid_by(self) -> frozenset[str]:
        """The PaymentIntents, or charges without one, that paid it: none where nothing was to be paid, or elsewhere."""
        if self.payments is None:
            return frozenset(filter(None, [self.payment_intent or self.charge]))
        paid = (one.payment for one in self.payments.data if one.status == "paid")
        return frozenset(name for one in paid if (name := one.payment_intent or one.charge))

    @property
    def intent(self) -> str | None:
        """The PaymentIntent that was, or is, to pay it."""
        found = (one.payment.payment_intent for one in (self.payments.data if self.payments else ()))
        return next((name for name in found if name), self.payment_intent)


class Owned(Struct, frozen=True):
    """A payment of which it only matters whose it is."""

    customer: str | None = None


class InvoiceIntent(Struct, frozen=True):
    """How the payment of an invoice stands."""

    id: str
    status: str
    last_payment_error: PaymentError | None = None


def moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
