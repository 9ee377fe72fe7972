"""The bodies of the cinema's contract, and what the OpenAPI document says of its routes."""

from typing import Any, Literal

from msgspec import Raw, Struct

from interface.web.contracts.cinema_cards import CardDetails
from interface.web.contracts.cinema_words import ErrorEnvelope, Method, NotPaid, Paid, Returned, Transaction
from interface.web.contracts.documented import Body, told
from interface.web.requests import Reference, Text


class ProcessBody(Struct, frozen=True):
    user_id: Reference
    booking_id: Reference
    amount: Raw
    payment_method: Method
    card_details: CardDetails | None = None
    paypal_details: dict[str, str] | None = None


class RefundBody(Struct, frozen=True):
    booking_id: Reference
    original_transaction_id: Reference
    refund_amount: Raw
    reason: Text
    user_id: Reference


class MethodView(Struct, frozen=True):
    id: Method
    name: str
    description: str
    enabled: bool


class Methods(Struct, frozen=True):
    payment_methods: list[MethodView]


class InvalidPart(Struct, frozen=True):
    loc: list[str]
    msg: str
    type: Literal["value_error"]


class Invalid(Struct, frozen=True):
    """Which part of a body is wrong: its name, never its value."""

    detail: list[InvalidPart]


# --- The document ------------------------------------------------------------------------------------------------

_AT = "2026-11-20T12:00:00Z"
_TXN, _REF = "TXN-0B2F6A346A4B5D8E9A553A2F5E8A1C11", "REF-1C11A5E82F3A559A8E5D4B6A346A2F0B"
_CARD = {"card_number": "4111111111111111", "expiry_month": 12, "expiry_year": 2034, "cvv": "123"}
_BOOKING = {"booking_id": "booking-7", "amount": 25.5, "payment_method": "credit_card"}
_PAY = _BOOKING | {"user_id": "user-42", "card_details": _CARD | {"cardholder_name": "Ada Lovelace"}}
_PAID = _BOOKING | {"status": "success", "transaction_id": _TXN, "processed_at": _AT, "message": "done"}
_NOT_PAID = _BOOKING | {"status": "failed", "error_code": "CARD_DECLINED", "error_message": "no", "processed_at": _AT}
_RETURN = {"booking_id": "booking-7", "original_transaction_id": _TXN, "refund_amount": 10.25}
_RETURNED = _RETURN | {"status": "success", "refund_transaction_id": _REF, "processed_at": _AT, "message": "done"}
_STANDING = _BOOKING | {"transaction_id": _TXN, "status": "completed", "created_at": _AT, "processed_at": _AT}
_METHOD = {"id": "credit_card", "name": "Credit card", "description": "Visa, Mastercard", "enabled": True}


def _refused(code: str, said: str) -> Body:
    error = {
        "code": code,
        "message": said,
        "details": {"reason": said, "transaction_id": None, "retry_possible": False},
    }
    return Body(ErrorEnvelope, {"error": error, "timestamp": _AT}, said)


_ANY: dict[int, Any] = {
    401: _refused("NOT_AUTHENTICATED", "no bearer token, or not a valid one"),
    403: _refused("MISSING_SCOPE", "the token lacks the scope this needs"),
    429: _refused("TOO_MANY_REQUESTS", "more than the limit; see Retry-After and X-RateLimit-*"),
    503: _refused("PAYMENT_GATEWAY_ERROR", "the ledger cannot answer now; see Retry-After"),
}
_INVALID = {"detail": [{"loc": ["body", "amount"], "msg": "must be a number", "type": "value_error"}]}
_COMMAND: dict[int, Any] = {
    409: _refused("DUPLICATE_TRANSACTION", "the booking is paid already, or being paid"),
    413: _refused("REQUEST_ENTITY_TOO_LARGE", "the body is too large"),
    422: Body(Invalid, _INVALID, "a part of the body is wrong; it is named"),
    502: _refused("PAYMENT_GATEWAY_ERROR", "the outcome is not known; ask for the status, or again"),
}
_UNKNOWN = {404: _refused("TRANSACTION_NOT_FOUND", "there is no such transaction")}

PROCESS = told(
    _ANY
    | _COMMAND
    | {
        200: Body(Paid, _PAID),
        400: (Body(NotPaid, _NOT_PAID, "not paid"), _refused("INVALID_AMOUNT", "not an amount")),
    },
    Body(ProcessBody, _PAY),
)
REFUND = told(
    _ANY
    | _COMMAND
    | _UNKNOWN
    | {
        200: Body(Returned, _RETURNED),
        400: _refused("REFUND_NOT_ALLOWED", "more than what is left, or another booking's"),
    },
    Body(RefundBody, _RETURN | {"user_id": "user-42", "reason": "the show was cancelled"}),
)
STATUS = told(_ANY | _UNKNOWN | {200: Body(Transaction, _STANDING)})
METHODS = told(_ANY | {200: Body(Methods, {"payment_methods": [_METHOD]})})
