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
└── OutcomeMismatch          the provider confirmed something else than was asked
"""

from dataclasses import dataclass


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
