"""Every answer of the stand-in that is not a success, in Stripe's shape.

    StripeError            the endpoint ran and said no; kept under the idempotency key, nothing changed
    ├── RefusedError       the request never reached the endpoint: not kept, nothing changed
    └── DeclinedError      the card said no: kept, and what happened (a failed charge) is recorded

Source of types, codes and sentences: Stripe's error reference and answers published in issue trackers.
"""

from typing import Any

Json = dict[str, Any]

DOCS = "https://stripe.com/docs/error-codes/"


class StripeError(Exception):
    """An error body with its HTTP status. `facts` are the optional members: code, param, charge."""

    kept = True
    applied = False

    def __init__(self, status: int, kind: str, message: str, **facts: Any) -> None:
        super().__init__(message)
        self.status = status
        self.facts: Json = {name: value for name, value in facts.items() if value is not None}
        self.kind = kind

    @property
    def body(self) -> Json:
        """`{"error": {…}}` as Stripe sends it; members without a value are left out."""
        error: Json = {"type": self.kind, "message": str(self), **self.facts}
        if "code" in self.facts:
            error["doc_url"] = DOCS + str(self.facts["code"]).replace("_", "-")
        return {"error": error}


class RefusedError(StripeError):
    """Refused before the endpoint began, so the idempotency key stays free."""

    kept = False


class DeclinedError(StripeError):
    """HTTP 402 `card_error`; the failed attempt itself is part of the state."""

    applied = True

    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(402, "card_error", message, **facts)


def invalid(message: str, **facts: Any) -> StripeError:
    """A 400 from inside the endpoint."""
    return StripeError(400, "invalid_request_error", message, **facts)


def refused(message: str, **facts: Any) -> RefusedError:
    """A 400 from the validation in front of the endpoint."""
    return RefusedError(400, "invalid_request_error", message, **facts)


def unauthorized(message: str) -> RefusedError:
    return RefusedError(401, "invalid_request_error", message)


def missing(noun: str, wanted: str, param: str, *, status: int = 404) -> StripeError:
    """No such object. Stripe answers 404 for one named in the path and 400 for one named in the body."""
    return StripeError(
        status, "invalid_request_error", f"No such {noun}: '{wanted}'", code="resource_missing", param=param
    )


def unknown_route(method: str, path: str) -> RefusedError:
    return RefusedError(
        404,
        "invalid_request_error",
        f"Unrecognized request URL ({method}: {path}). Please see https://stripe.com/docs"
        " or we can help at https://support.stripe.com/.",
    )


def unexpected_state(message: str, intent: Json) -> StripeError:
    """The PaymentIntent is not in a status in which this can be done; the intent travels along."""
    return invalid(message, code="payment_intent_unexpected_state", payment_intent=intent)


def key_mismatch(key: str, *, other_path: str | None, path: str) -> RefusedError:
    """The same idempotency key with something else than it was first used with."""
    if other_path is not None:
        what = f"for the same endpoint they were first used for ('{path}' vs '{other_path}')"
    else:
        what = "with the same parameters they were first used with"
    return RefusedError(
        400,
        "idempotency_error",
        f"Keys for idempotent requests can only be used {what}."
        f" Try using a key other than '{key}' if you meant to execute a different request.",
    )


def key_in_use(key: str) -> RefusedError:
    return RefusedError(
        409,
        "invalid_request_error",
        "There is currently another in-progress request using this Idempotent Key (that probably means you"
        f" submitted twice, and the other request is still going through): {key}. Please try again later.",
        code="idempotency_key_in_use",
    )
