"""The words of the cinema's contract: its statuses, error codes and envelopes. No rule of money is here."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, get_args
from uuid import NAMESPACE_OID, UUID, uuid5

from litestar import Response
from msgspec import Raw, Struct

from domain.payment import Payment, Phase
from domain.payment_facts import AuthorizationStarted, Failure

Method = Literal["credit_card", "debit_card", "paypal", "stripe"]
CHANNEL = "cinema"
Code = Literal[
    "INVALID_CARD",
    "INSUFFICIENT_FUNDS",
    "CARD_EXPIRED",
    "CARD_DECLINED",
    "INVALID_AMOUNT",
    "REFUND_NOT_ALLOWED",
    "DUPLICATE_TRANSACTION",
    "PAYMENT_GATEWAY_ERROR",
    "TRANSACTION_NOT_FOUND",
]

STATUS_OF: Mapping[Code, int] = {
    "INVALID_CARD": 400,
    "INSUFFICIENT_FUNDS": 400,
    "CARD_EXPIRED": 400,
    "CARD_DECLINED": 400,
    "INVALID_AMOUNT": 400,
    "REFUND_NOT_ALLOWED": 400,
    "DUPLICATE_TRANSACTION": 409,
    "PAYMENT_GATEWAY_ERROR": 502,
    "TRANSACTION_NOT_FOUND": 404,
}

# Stripe's codes and decline codes (https://docs.stripe.com/declines/codes); whatever else is a plain decline.
_CODE_OF: Mapping[str, Code] = {
    "insufficient_funds": "INSUFFICIENT_FUNDS",
    "withdrawal_count_limit_exceeded": "INSUFFICIENT_FUNDS",
    "card_velocity_exceeded": "CARD_DECLINED",
    "expired_card": "CARD_EXPIRED",
    "incorrect_number": "INVALID_CARD",
    "invalid_number": "INVALID_CARD",
    "incorrect_cvc": "INVALID_CARD",
    "invalid_cvc": "INVALID_CARD",
    "invalid_expiry_month": "INVALID_CARD",
    "invalid_expiry_year": "INVALID_CARD",
    "resource_missing": "INVALID_CARD",
    "amount_too_large": "INVALID_AMOUNT",
    "amount_too_small": "INVALID_AMOUNT",
    "missing_card": "INVALID_CARD",
    "method_not_offered": "PAYMENT_GATEWAY_ERROR",
    "numbers_not_taken": "PAYMENT_GATEWAY_ERROR",
    "processing_error": "PAYMENT_GATEWAY_ERROR",
    "not_carried_out": "PAYMENT_GATEWAY_ERROR",
}


def code_of(failure: Failure | None) -> Code:
    if failure is None:
        return "CARD_DECLINED"
    return _CODE_OF.get(failure.decline_code or "") or _CODE_OF.get(failure.code, "CARD_DECLINED")


class Details(Struct, frozen=True):
    reason: str
    transaction_id: str | None
    retry_possible: bool


class Error(Struct, frozen=True):
    """`code`: one of the contract's, or the name of a refusal that all contracts share."""

    code: str
    message: str
    details: Details


class ErrorEnvelope(Struct, frozen=True):
    error: Error
    timestamp: datetime


class Paid(Struct, frozen=True, kw_only=True):
    status: Literal["success"] = "success"
    transaction_id: str
    booking_id: str
    amount: Raw
    payment_method: Method
    processed_at: datetime
    message: str


class NotPaid(Struct, frozen=True, kw_only=True):
    status: Literal["failed"] = "failed"
    booking_id: str
    amount: Raw
    payment_method: Method
    error_code: Code
    error_message: str
    processed_at: datetime


class Returned(Struct, frozen=True, kw_only=True):
    status: Literal["success"] = "success"
    refund_transaction_id: str
    original_transaction_id: str
    booking_id: str
    refund_amount: Raw
    processed_at: datetime
    message: str


class Transaction(Struct, frozen=True, kw_only=True):
    transaction_id: str
    status: Literal["pending", "completed", "failed", "refunded"]
    booking_id: str
    amount: Raw
    payment_method: Method
    created_at: datetime
    processed_at: datetime | None


def outcome_of(answer: object) -> tuple[str, str]:
    """An answer's outcome and error code, for the metrics."""
    match answer:
        case Paid() | Returned():
            return "success", ""
        case NotPaid(error_code=code):
            return "failed", code
        case ErrorEnvelope(error=Error(code=code)):
            return "refused", code
        case _:
            return "invalid", ""


def channel(method: Method) -> str:
    """How a payment is marked that was wished by this contract."""
    return f"{CHANNEL}/{method}"


def method_of(start: AuthorizationStarted) -> Method | None:
    """How it was wished to be paid; None when it was not wished by this contract."""
    return next((method for method in get_args(Method) if channel(method) == start.channel), None)


def transaction_of(payment: UUID) -> str:
    return f"TXN-{payment.hex.upper()}"


def refund_of(operation: str) -> str:
    """A refund made at the provider by hand has an operation that is no UUID."""
    try:
        name = UUID(operation)
    except ValueError:
        name = uuid5(NAMESPACE_OID, operation)
    return f"REF-{name.hex.upper()}"


def word_for(payment: Payment) -> Literal["pending", "completed", "failed", "refunded"]:
    """The one vocabulary behind the five contracts, in the cinema's words."""
    if payment.captured:
        return "refunded" if payment.refunded == payment.captured else "completed"
    ended = payment.phase in {Phase.DECLINED, Phase.VOIDED, Phase.EXPIRED}
    return "failed" if ended else "pending"


def refused(
    code: Code, reason: str, now: datetime, *, transaction_id: str | None = None, retry: bool = False, status: int = 0
) -> Response[Any]:
    """The contract's envelope for everything that is no answer to a payment."""
    error = Error(code, reason, Details(reason, transaction_id, retry))
    return Response(ErrorEnvelope(error, now), status_code=status or STATUS_OF[code])
