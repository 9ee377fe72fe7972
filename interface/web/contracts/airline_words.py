"""The words of the airline's contract: its bodies, its states, and what the OpenAPI document says of its routes."""

from typing import Annotated, Any, Literal

from msgspec import Meta, Raw, Struct

from domain.payment import Payment
from interface.web.contracts.documented import Body, problems, told
from interface.web.requests import END, Amount, Text
from interface.web.views import StripeIds

Word = Literal["authorized", "captured", "failed", "refunded", "pending"]

Token = Annotated[str, Meta(pattern="^(tok|pm|pi|ch)_[A-Za-z0-9_]+" + END, max_length=200)]
Currency = Annotated[str, Meta(pattern="^[A-Za-z]{3}" + END, description="ISO 4217.")]
Email = Annotated[str, Meta(pattern=r"^[^@\s\x00]+@[^@\s\x00]+" + END, max_length=320)]
ChargeId = Annotated[str, Meta(pattern="^(ch|pi)_[A-Za-z0-9_]+" + END, max_length=200)]


class PaymentBody(Struct, frozen=True):
    """`amount` in major units; the token may be one to authorize, or a PaymentIntent or charge to adopt."""

    amount: Raw
    currency: Currency
    stripeToken: Token  # noqa: N815  the contract's name
    description: Text
    email: Email


class ChargeBody(Struct, frozen=True):
    """`amount` in minor units."""

    stripeToken: Annotated[str, Meta(pattern="^(tok|pm)_[A-Za-z0-9_]+" + END, max_length=200)]  # noqa: N815
    amount: Amount
    currency: Currency
    email: Email
    description: Text


class ChargeIdBody(Struct, frozen=True):
    """The charge, or the PaymentIntent that it was made for."""

    chargeId: ChargeId  # noqa: N815
    email: Email | None = None


# --- Answers -----------------------------------------------------------------------------------------------------


class State(Struct, frozen=True):
    status: Word


class Charge(Struct, frozen=True):
    """Amounts in minor units. `captured` with its `receipt_url` once the money was taken."""

    id: str
    object: Literal["charge"]
    amount: int
    amount_captured: int
    amount_refunded: int
    captured: bool
    currency: str
    payment_intent: str | None
    status: Literal["succeeded"]
    receipt_url: str | None = None


class CreatedCharge(Struct, frozen=True):
    createdCharge: Charge  # noqa: N815  the contract's name


class CapturedCharge(Struct, frozen=True):
    capturedCharge: Charge  # noqa: N815


class Refunded(Struct, frozen=True):
    id: str
    object: Literal["refund"]
    amount: int
    charge: str
    currency: str
    status: Literal["succeeded"]


class CreatedRefund(Struct, frozen=True):
    createdRefund: Refunded  # noqa: N815


def word_for(payment: Payment) -> Word:
    """The one vocabulary behind the five contracts, in the airline's words."""
    match payment.status:
        case "authorized" | "partially_captured" | "captured" | "partially_refunded" | "disputed":
            return "captured" if payment.captured else "authorized"
        case "refunded":
            return "refunded"
        case "pending" | "requires_action":
            return "pending"
        case _:
            return "failed"


def charge_view(payment: Payment) -> dict[str, Any]:
    return {
        "id": payment.charge,
        "object": "charge",
        "amount": payment.amount.minor,
        "amount_captured": payment.captured.minor,
        "amount_refunded": payment.refunded.minor,
        "captured": bool(payment.captured),
        "currency": payment.amount.currency,
        "payment_intent": StripeIds.of(payment).payment_intent,
        "status": "succeeded",
    }


# --- The document ------------------------------------------------------------------------------------------------

_REFUSED = problems(400, 401, 402, 403, 409, 413, 422, 429, 503)
_MISSING = problems(404)
_CHARGE = {
    "id": "ch_3Qabc",
    "object": "charge",
    "amount": 10099,
    "amount_captured": 0,
    "amount_refunded": 0,
    "captured": False,
    "currency": "usd",
    "payment_intent": "pi_3Qabc",
    "status": "succeeded",
}
_TAKEN = _CHARGE | {"amount_captured": 10099, "captured": True, "receipt_url": "https://pay.stripe.com/receipts/…"}
_RETURNED = {"id": "re_3Qabc", "object": "refund", "amount": 10099, "charge": "ch_3Qabc", "currency": "usd"}
_TRIP = {"currency": "usd", "stripeToken": "tok_visa", "description": "LIS to OSL", "email": "ada@example.com"}
_NAMED = Body(ChargeIdBody, {"chargeId": "ch_3Qabc"})
_PENDING = Body(State, {"status": "pending"}, "the outcome is not known yet")

PAY = told(_REFUSED | {200: Body(State, {"status": "authorized"})}, Body(PaymentBody, _TRIP | {"amount": 100.99}))
CHARGE = told(
    _REFUSED | {200: Body(CreatedCharge, {"createdCharge": _CHARGE}), 202: _PENDING},
    Body(ChargeBody, _TRIP | {"amount": 10099}),
)
CAPTURE = told(_REFUSED | _MISSING | {200: Body(CapturedCharge, {"capturedCharge": _TAKEN})}, _NAMED)
REFUND = told(
    _REFUSED | _MISSING | {200: Body(CreatedRefund, {"createdRefund": _RETURNED | {"status": "succeeded"}})}, _NAMED
)
