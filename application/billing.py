"""The port to the provider's billing: its customers, what they pay with, and their subscriptions.

As with payments (application/gateway.py), an instruction is one started operation under its own key, and the answer
is an outcome that may be recorded, with its evidence, or `Unknown`: not a failure, but something still to be learned.
"""

from datetime import datetime
from typing import Protocol
from uuid import UUID

from msgspec import Struct

from application.gateway import Absent, Unknown
from domain import customer_commands as customers
from domain import subscription_commands as subscriptions
from domain.calendar import Interval
from domain.money import Money
from domain.payment_facts import Card
from domain.subscription_outside import Standing


class BillingInstruction(Struct, frozen=True, kw_only=True):
    """`stream` is the customer's or the subscription's here."""

    stream: UUID
    operation: str

    @property
    def idempotency_key(self) -> str:
        """The same for every try of this operation, and for nothing else."""
        return f"{self.stream}:{self.operation}"


class CreateCustomer(BillingInstruction, frozen=True, kw_only=True):
    """`email` is where the provider sends receipts and notices; it is not kept in the clear here."""

    user: str | None
    email: str | None


class SetCard(BillingInstruction, frozen=True, kw_only=True):
    """Make a payment method or token what the customer and its subscriptions pay with."""

    provider_customer: str
    payment_method: str


class StartSubscription(BillingInstruction, frozen=True, kw_only=True):
    provider_customer: str
    price: str
    quantity: int
    trial_days: int


class ChangeSubscription(BillingInstruction, frozen=True, kw_only=True):
    """What it costs at once is prorated as the provider does it."""

    subscription: str
    price: str
    quantity: int


class CancelSubscription(BillingInstruction, frozen=True, kw_only=True):
    subscription: str
    at_period_end: bool


class ResumeSubscription(BillingInstruction, frozen=True, kw_only=True):
    subscription: str


CustomerInstruction = CreateCustomer | SetCard
SubscriptionInstruction = StartSubscription | ChangeSubscription | CancelSubscription | ResumeSubscription


class CardSeen(Struct, frozen=True):
    payment_method: str
    card: Card
    fingerprint: str | None


class CustomerSeen(Struct, frozen=True):
    """A customer as the provider has it, made for `stream` of ours. `card`: what it pays with by default.

    `operation` is the one of ours that it was made for, `changed_by` the last one whose card was set, if any was: an
    operation that is too old to be sent again, and that is neither, was never carried out.
    """

    provider_customer: str
    operation: str | None
    card: CardSeen | None
    evidence: str
    changed_by: str | None = None
    stream: UUID | None = None


class SubscriptionSeen(Struct, frozen=True):
    """A subscription as the provider has it, looked at `as_of` by its clock; its invoices, the oldest first, and of
    those that were paid what has gone back.

    `operation` is the one of ours that it was made for, `stream` ours; `changed_by` the last one that changed it, if
    any did: a change, a planned end or its taking back. An end at once leaves no such mark; that it is over is one.
    """

    subscription: str
    stream: UUID | None
    operation: str | None
    provider_customer: str
    standing: Standing
    invoices: tuple[subscriptions.InvoiceOutcome, ...]
    as_of: datetime
    evidence: str
    changed_by: str | None = None
    refunds: tuple[subscriptions.RecordInvoiceRefunded, ...] = ()


class Price(Struct, frozen=True):
    """`amount` for each period of `interval_count` intervals. Only active ones can be begun or changed to."""

    id: str
    product: str
    amount: Money
    interval: Interval
    interval_count: int
    active: bool


class Product(Struct, frozen=True):
    """`default_price`: the one that is meant when only the product is named."""

    id: str
    name: str
    active: bool
    default_price: str | None
    prices: tuple[Price, ...]


class BillingGateway(Protocol):
    """What a provider must be able to do. None of these raise on a provider's failure: they answer Unknown."""

    def unavailable_s(self) -> float | None:
        """Seconds until it is worth asking again, when it has not answered for a while; None when it answers."""
        ...

    async def perform_customer(self, instruction: CustomerInstruction) -> customers.CustomerOutcome | Unknown:
        """Carry the instruction out. Safe to repeat within the provider's idempotency window."""
        ...

    async def perform_subscription(
        self, instruction: SubscriptionInstruction
    ) -> subscriptions.SubscriptionOutcome | Unknown:
        """Carry the instruction out. Safe to repeat within the provider's idempotency window."""
        ...

    async def customer(self, stream: UUID | None, provider_customer: str | None) -> CustomerSeen | Absent | Unknown:
        """How a customer stands there now. Moves nothing. Without its name there it is searched for by ours."""
        ...

    async def subscription(
        self, stream: UUID | None, subscription: str | None, provider_customer: str | None
    ) -> SubscriptionSeen | Absent | Unknown:
        """How a subscription stands there now, with its latest invoices. Moves nothing.

        Without its name there it is searched for among those of the customer, by ours.
        """
        ...

    async def subscriptions_of(self, provider_customer: str) -> tuple[str, ...] | Absent | Unknown:
        """The provider's names for all subscriptions of a customer, also those that have ended."""
        ...

    async def customer_of(self, payment: str) -> str | Absent | Unknown:
        """The provider's name for the customer whose payment that is, by its name for that; Absent for nobody's."""
        ...

    async def catalog(self) -> tuple[Product, ...] | Unknown:
        """All products with their prices."""
        ...
