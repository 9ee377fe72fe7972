"""What each error of Stripe's means for an operation: no, not known, or wrongly set up.

Sources: https://docs.stripe.com/error-codes, https://docs.stripe.com/declines/codes, and the idempotency rules in
https://docs.stripe.com/api/idempotent_requests.
"""

from collections.abc import Awaitable, Callable

import stripe
from msgspec import Struct

from application.gateway import GatewayMisconfigured, Unknown
from domain.payment_facts import Failure

# Declines after which Stripe's table advises trying the same card again, now or later.
RETRYABLE_DECLINES = frozenset(
    {
        "approve_with_id",
        "authentication_required",
        "card_velocity_exceeded",
        "insufficient_funds",
        "issuer_not_available",
        "processing_error",
        "reenter_transaction",
        "try_again_later",
        "withdrawal_count_limit_exceeded",
    }
)
# Errors that say nothing was done because something else was under way; the same key may be sent again.
_NOT_NOW = frozenset({"lock_timeout", "idempotency_key_in_use", "rate_limit"})
# Why Stripe cancels a PaymentIntent by itself, when its authorization ran out.
RAN_OUT = frozenset({"automatic", "expired"})
MAX_MESSAGE = 200


class Refused(Struct, frozen=True):
    """Stripe said no. `expired`: because the authorization had run out."""

    failure: Failure
    evidence: str
    payment_intent: str | None
    expired: bool


def judge(error: stripe.StripeError) -> Refused | Unknown:
    """What the error means for the operation that met it. Raises GatewayMisconfigured."""
    code = error.code or ""
    match error:
        case stripe.AuthenticationError() | stripe.PermissionError():
            raise GatewayMisconfigured(type(error).__name__) from error
        case stripe.RateLimitError() | stripe.APIConnectionError() | stripe.IdempotencyError():
            return Unknown(type(error).__name__)
        case stripe.CardError() | stripe.InvalidRequestError() if code not in _NOT_NOW:
            return _refused(error, code)
        case _:
            return Unknown(code or type(error).__name__)


async def despite_kept_error(post: Callable[[str], Awaitable[stripe.StripeResponse]]) -> stripe.StripeResponse:
    """A POST that moves nothing, told what to append to its key. Stripe keeps an error of its own under a key, too, and
    repeats it for a day: what moves nothing may be tried under another.
    """
    try:
        return await post("")
    except stripe.APIError as error:
        if (error.headers or {}).get("idempotent-replayed") != "true":
            raise
        return await post(":2")


def _refused(error: stripe.StripeError, code: str) -> Refused:
    details = error.error
    decline_code = getattr(details, "decline_code", None)
    intent = getattr(details, "payment_intent", None)
    failure = Failure(
        code=code or "invalid_request",
        decline_code=decline_code,
        message=(error.user_message or "the provider refused the request")[:MAX_MESSAGE],
        retryable=decline_code in RETRYABLE_DECLINES or code == "processing_error",
    )
    return Refused(
        failure=failure,
        evidence=error.request_id or "no request id",
        payment_intent=getattr(intent, "id", None),
        expired=code == "charge_expired_for_capture" or _ran_out(intent),
    )


def _ran_out(intent: object) -> bool:
    """Stripe cancels an authorization that ran out by itself; somebody's cancellation has another reason."""
    cancelled = getattr(intent, "status", None) == "canceled"
    return cancelled and getattr(intent, "cancellation_reason", None) in RAN_OUT
