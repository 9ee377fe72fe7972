"""What we read of Stripe's answers, and nothing else of them (https://docs.stripe.com/api).

The SDK's own objects carry every field there is, at a cost of more than a millisecond each; these carry ours.
"""

from typing import Generic, TypeVar

import stripe
from msgspec import Struct, json

T = TypeVar("T", bound=Struct)


class Page(Struct, Generic[T], frozen=True):
    """A list, newest first."""

    data: list[T]
    has_more: bool = False


class Refund(Struct, frozen=True):
    id: str
    amount: int
    currency: str
    status: str | None = None
    reason: str | None = None
    failure_reason: str | None = None
    balance_transaction: str | None = None
    metadata: dict[str, str] | None = None


class Redirect(Struct, frozen=True):
    url: str | None = None


class Action(Struct, frozen=True):
    type: str
    redirect_to_url: Redirect | None = None


class Multicapture(Struct, frozen=True):
    status: str


class CardDetails(Struct, frozen=True):
    brand: str | None = None
    last4: str | None = None
    exp_month: int | None = None
    exp_year: int | None = None
    capture_before: int | None = None
    multicapture: Multicapture | None = None


class MethodDetails(Struct, frozen=True):
    card: CardDetails | None = None


class Charge(Struct, frozen=True):
    """As part of its PaymentIntent, or by itself. Its `refunds`, the ten newest, are there when they were asked for."""

    id: str
    status: str = ""
    amount: int = 0
    amount_captured: int = 0
    amount_refunded: int = 0
    captured: bool = False
    refunded: bool = False
    currency: str = "usd"
    failure_code: str | None = None
    failure_message: str | None = None
    refunds: Page[Refund] | None = None
    payment_intent: str | None = None
    receipt_url: str | None = None
    metadata: dict[str, str] | None = None
    payment_method_details: MethodDetails | None = None
    disputed: bool = False

    @property
    def card(self) -> CardDetails | None:
        return self.payment_method_details.card if self.payment_method_details else None


class PaymentError(Struct, frozen=True):
    code: str | None = None
    decline_code: str | None = None
    message: str | None = None


class Intent(Struct, frozen=True):
    """A PaymentIntent; its `latest_charge` is the charge itself when that was asked for."""

    id: str
    status: str
    amount: int
    currency: str
    amount_received: int = 0
    capture_method: str = "automatic"
    cancellation_reason: str | None = None
    metadata: dict[str, str] = {}
    latest_charge: str | Charge | None = None
    next_action: Action | None = None
    last_payment_error: PaymentError | None = None


class Dispute(Struct, frozen=True):
    id: str
    amount: int
    currency: str
    status: str
    reason: str = "unknown"


class Found(Struct, frozen=True):
    """An object of which only the name matters."""

    id: str


class Marked(Struct, frozen=True):
    """An object of which only the marks matter."""

    metadata: dict[str, str] | None = None


class Method(Struct, frozen=True):
    id: str


def read(response: stripe.StripeResponse, into: type[T]) -> T:
    """Raises msgspec.DecodeError when the answer is not what Stripe's documentation says."""
    return json.decode(response.body, type=into)


def evidence(response: stripe.StripeResponse, name: str) -> str:
    """The id of the request at Stripe; without one, of the object it answered with."""
    return response.request_id or name
