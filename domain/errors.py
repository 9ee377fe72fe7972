"""Every refusal the domain knows, as a class with its facts in fields. The sentences are written at the edge.

Refusal
├── InvalidMoney
│   ├── InvalidAmount        not a whole number of units that can be moved
│   ├── AmountTooLarge       more than Stripe carries in one movement
│   ├── UnknownCurrency      not in ISO 4217
│   └── CurrencyMismatch     two currencies in one sum
├── PaymentRefusal
│   ├── AlreadyStarted       the payment has an authorization, or one in flight
│   ├── IllegalTransition    the payment's state does not allow the wish
│   ├── ExceedsAuthorized    a capture of more than is left to capture
│   ├── ExceedsCaptured      a refund of more than is left to refund
│   ├── OperationInFlight    another operation must end first
│   └── TooManyOperations    the payment's history has reached its limit
├── CustomerRefusal
│   ├── InvalidName          not a user's id or an e-mail that somebody can be known by
│   ├── NameTaken            another customer is known by it
│   ├── AlreadyNamed         the customer has another user's id already
│   ├── TooManyNames         the customer is known by as many names as it can be
│   ├── AlreadyRegistered    the customer has been registered, or is being
│   ├── CustomerNotReady     the customer's state does not allow the wish
│   ├── CustomerBusy         another operation must end first
│   └── TooManyUpdates       the customer's history has reached its limit
├── SubscriptionRefusal
│   ├── InvalidTerms         a quantity or a trial that nobody can subscribe to
│   ├── UnknownProduct       nothing is sold by that name, or not by that price
│   ├── PriceOfAnotherProduct
│   ├── PriceNeeded          the product has several prices and no default
│   ├── AlreadySubscribed    the customer has a subscription to the product, or one in flight
│   ├── SubscriptionNotReady the subscription's state does not allow the wish
│   ├── SubscriptionOver     it has ended, or its time has come
│   ├── SubscriptionBusy     another operation must end first
│   └── TooManyChanges       the subscription's history has reached its limit
├── OrderRefusal
│   ├── OrderChangesMissing  the order's changes before this one are not known yet
│   ├── OrderContradicted    what is said of the order cannot be true
│   ├── OrderNotPayable      it is cancelled, or paid already
│   ├── OrderNotCollectable  it is cancelled: what was reserved for it is not taken any more
│   ├── OrderOfAnother       somebody else ordered it
│   └── OrderPriceDiffers    another amount than its price was to be paid
└── OutcomeMismatch          the provider confirmed something else than was asked
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal


class Refusal(Exception):  # noqa: N818  a refusal is an answer, not an accident
    """A wish that the rules do not grant. Nothing was recorded and nobody was asked."""


class InvalidMoney(Refusal):
    """An amount or currency that cannot be."""


@dataclass(eq=False)
class InvalidAmount(InvalidMoney):
    amount: str
    reason: str


@dataclass(eq=False)
class AmountTooLarge(InvalidMoney):
    amount: int
    limit: int


@dataclass(eq=False)
class UnknownCurrency(InvalidMoney):
    currency: str


@dataclass(eq=False)
class CurrencyMismatch(InvalidMoney):
    expected: str
    given: str


class PaymentRefusal(Refusal):
    """A wish that this payment, as it stands, cannot be granted."""


@dataclass(eq=False)
class AlreadyStarted(PaymentRefusal):
    status: str


@dataclass(eq=False)
class IllegalTransition(PaymentRefusal):
    command: str
    status: str


@dataclass(eq=False)
class ExceedsAuthorized(PaymentRefusal):
    """Amounts in minor units of `currency`."""

    asked: int
    capturable: int
    currency: str


@dataclass(eq=False)
class ExceedsCaptured(PaymentRefusal):
    """Amounts in minor units of `currency`."""

    asked: int
    refundable: int
    currency: str


@dataclass(eq=False)
class OperationInFlight(PaymentRefusal):
    operation: str
    kind: str


@dataclass(eq=False)
class TooManyOperations(PaymentRefusal):
    limit: int


@dataclass(eq=False)
class OutcomeMismatch(Refusal):
    """The provider's answer contradicts the intent; it is for a person to look at, never recorded as if it fitted."""

    operation: str
    expected: str
    confirmed: str


class CustomerRefusal(Refusal):
    """A wish that this customer, as it stands, cannot be granted."""


@dataclass(eq=False)
class InvalidName(CustomerRefusal):
    """`kind`: "user" or "email". The name itself is not told: it may be somebody's."""

    kind: str
    reason: str


class NameTaken(CustomerRefusal):
    """By whom is not told: whoever asks may not be meant to know."""


@dataclass(eq=False)
class AlreadyNamed(CustomerRefusal):
    kind: str


@dataclass(eq=False)
class TooManyNames(CustomerRefusal):
    limit: int


@dataclass(eq=False)
class AlreadyRegistered(CustomerRefusal):
    status: str


@dataclass(eq=False)
class CustomerNotReady(CustomerRefusal):
    command: str
    status: str


@dataclass(eq=False)
class CustomerBusy(CustomerRefusal):
    operation: str
    kind: str


@dataclass(eq=False)
class TooManyUpdates(CustomerRefusal):
    limit: int


class SubscriptionRefusal(Refusal):
    """A wish that this subscription, as it stands, cannot be granted."""


@dataclass(eq=False)
class InvalidTerms(SubscriptionRefusal):
    """`field`: "quantity" or "trial_days", which goes from `least` to `most`."""

    field: str
    given: int
    least: int
    most: int


@dataclass(eq=False)
class UnknownProduct(SubscriptionRefusal):
    """`price`: the one that was asked for, if one was."""

    product: str
    price: str | None = None


@dataclass(eq=False)
class PriceOfAnotherProduct(SubscriptionRefusal):
    price: str
    product: str


@dataclass(eq=False)
class PriceNeeded(SubscriptionRefusal):
    """The product has several `prices`, or none, and no default among them."""

    product: str
    prices: tuple[str, ...]


@dataclass(eq=False)
class AlreadySubscribed(SubscriptionRefusal):
    """`status`: how the subscription that there is stands."""

    product: str
    status: str


@dataclass(eq=False)
class SubscriptionNotReady(SubscriptionRefusal):
    command: str
    status: str


@dataclass(eq=False)
class SubscriptionOver(SubscriptionRefusal):
    command: str
    ended_at: datetime


@dataclass(eq=False)
class SubscriptionBusy(SubscriptionRefusal):
    operation: str
    kind: str


@dataclass(eq=False)
class TooManyChanges(SubscriptionRefusal):
    limit: int


class OrderRefusal(Refusal):
    """What is not done for an order that was announced, or not with one."""


@dataclass(eq=False)
class OrderChangesMissing(OrderRefusal):
    """`version` is the change that was told, `expected` the one that would be next; 0: the order's creation."""

    order: str
    version: int
    expected: int


@dataclass(eq=False)
class OrderContradicted(OrderRefusal):
    order: str
    version: int
    reason: str


@dataclass(eq=False)
class OrderNotPayable(OrderRefusal):
    status: str


@dataclass(eq=False)
class OrderNotCollectable(OrderRefusal):
    status: str


@dataclass(eq=False)
class OrderOfAnother(OrderRefusal):
    order: str


@dataclass(eq=False)
class OrderPriceDiffers(OrderRefusal):
    """It costs `price` minor units of `currency`. `field`: "amount", or "currency" when that differs."""

    field: Literal["amount", "currency"]
    price: int
    currency: str
