"""Everything that can go wrong, said once: RFC 9457 problem documents, each naming the field it is about.

400  the request cannot be understood          401  no token, or not a valid one      403  a scope is missing
402  the card was declined (payment inside)    404  no such thing                     409  not now, or not in this state
412  If-Match does not hold                    413  too large    415  not JSON        422  cannot be granted as asked
503  try again later                           500  our fault
"""

import logging
from http import HTTPStatus
from math import ceil
from typing import Any

import psycopg
from litestar import Request, Response
from litestar.exceptions import HTTPException, NotAuthorizedException, ValidationException
from msgspec import Struct

from application.event_store import StoreUnavailable
from application.payments import KeyReused, PaymentNotFound, ProviderUnavailable, VersionMoved
from application.settlement import Contended
from domain import errors
from interface.web.customer_views import CustomerView, SubscriptionView
from interface.web.views import PaymentView

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 1


class FieldError(Struct, frozen=True, omit_defaults=True):
    """What is wrong with one part of a request: `pointer` into the body, or the name of a parameter or header."""

    detail: str
    pointer: str | None = None
    parameter: str | None = None
    header: str | None = None


class Problem(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """An RFC 9457 problem document. A declined or refused command names what it was about, as it stands."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[FieldError] = []
    payment: PaymentView | None = None
    customer: CustomerView | None = None
    subscription: SubscriptionView | None = None


class ProblemError(Exception):
    """Ends a request with a problem document."""

    def __init__(self, problem: Problem, headers: dict[str, str] | None = None) -> None:
        super().__init__(problem.detail)
        self.problem = problem
        self.headers = headers or {}


def problem(status: int, name: str, detail: str, *errors: FieldError, payment: PaymentView | None = None) -> Problem:
    title = name.replace("-", " ").capitalize()
    kind = f"urn:payledger:problem:{name}"
    return Problem(type=kind, title=title, status=status, detail=detail, errors=list(errors), payment=payment)


def bad_request(*errors: FieldError) -> ProblemError:
    """400, naming every part of the request that is wrong."""
    said = "; ".join(f"{error.pointer or error.parameter or error.header}: {error.detail}" for error in errors)
    return ProblemError(problem(400, "invalid-request", said, *errors))


def unavailable(name: str, detail: str) -> ProblemError:
    return ProblemError(problem(503, name, detail), {"Retry-After": str(RETRY_AFTER_S)})


def document(given: Problem, headers: dict[str, str] | None = None) -> Response[Problem]:
    return Response(given, status_code=given.status, media_type=MEDIA_TYPE, headers=headers)


# --- What each refusal says --------------------------------------------------------------------------------------


def from_money(refusal: errors.InvalidMoney) -> Problem:
    match refusal:
        case errors.UnknownCurrency():
            where, said = "#/currency", f"{refusal.currency!r} is not an ISO 4217 currency in lower case"
        case errors.AmountTooLarge():
            where, said = "#/amount", f"the largest amount is {refusal.limit} minor units"
        case errors.CurrencyMismatch():
            where, said = "#/currency", f"this payment is in {refusal.expected}"
        case errors.InvalidAmount():
            where, said = "#/amount", refusal.reason
        case _:
            where, said = "#/amount", "the amount cannot be"
    return bad_request(FieldError(said, pointer=where)).problem


def from_payment(refusal: errors.PaymentRefusal) -> Problem:
    match refusal:
        case errors.ExceedsAuthorized():
            said = f"{refusal.asked} is more than the {refusal.capturable} {refusal.currency} left to capture"
            return problem(422, "exceeds-authorized", said, FieldError(said, pointer="#/amount"))
        case errors.ExceedsCaptured():
            said = f"{refusal.asked} is more than the {refusal.refundable} {refusal.currency} left to refund"
            return problem(422, "exceeds-captured", said, FieldError(said, pointer="#/amount"))
        case errors.IllegalTransition():
            said = f"{refusal.command.lower()} is not possible while the payment is {refusal.status}"
            return problem(409, "illegal-transition", said)
        case errors.OperationInFlight():
            said = f"a {refusal.kind} of this payment is still under way; ask again when it has ended"
            return problem(409, "operation-in-flight", said)
        case errors.AlreadyStarted():
            return problem(409, "already-started", f"the payment is already {refusal.status}")
        case errors.TooManyOperations():
            return problem(409, "too-many-operations", f"a payment takes at most {refusal.limit} operations")
        case _:
            return problem(409, "refused", "the payment does not allow this")


def from_order(refusal: errors.OrderRefusal) -> Problem:
    match refusal:
        case errors.OrderNotPayable():
            said = f"the order is {refusal.status}: nothing may be paid for it any more"
            return problem(409, "order-not-payable", said, FieldError(said, pointer="#/order"))
        case errors.OrderNotCollectable():
            return problem(409, "order-not-payable", f"the order is {refusal.status}: what was reserved is released")
        case errors.OrderOfAnother():
            said = "the order is another customer's"
            return problem(422, "order-of-another", said, FieldError(said, pointer="#/customer"))
        case errors.OrderPriceDiffers():
            said = f"the order costs {refusal.price} {refusal.currency}, no more and no less"
            return problem(422, "order-price-differs", said, FieldError(said, pointer=f"#/{refusal.field}"))
        case _:
            return problem(409, "refused", "the order does not allow this")


# --- Handlers ----------------------------------------------------------------------------------------------------


def _refusal(_: Request[Any, Any, Any], refusal: errors.Refusal) -> Response[Problem]:
    if isinstance(refusal, errors.InvalidMoney):
        return document(from_money(refusal))
    if isinstance(refusal, errors.OrderRefusal):
        return document(from_order(refusal))
    assert isinstance(refusal, errors.PaymentRefusal)  # noqa: S101  OutcomeMismatch never leaves the use case
    return document(from_payment(refusal))


def _ended(_: Request[Any, Any, Any], ended: ProblemError) -> Response[Problem]:
    return document(ended.problem, ended.headers)


def _not_found(_: Request[Any, Any, Any], __: PaymentNotFound) -> Response[Problem]:
    return document(problem(404, "payment-not-found", "there is no payment with this id"))


def _key_reused(_: Request[Any, Any, Any], __: KeyReused) -> Response[Problem]:
    said = "this key was used for another request; a new wish needs a new key"
    return document(problem(422, "idempotency-key-reused", said, FieldError(said, header="Idempotency-Key")))


def _version_moved(_: Request[Any, Any, Any], moved: VersionMoved) -> Response[Problem]:
    said = f"the payment is at version {moved.version}"
    headers = {"ETag": f'"{moved.version}"'}
    return document(problem(412, "version-moved", said, FieldError(said, header="If-Match")), headers)


def _contended(_: Request[Any, Any, Any], __: Contended) -> Response[Problem]:
    ended = unavailable("contended", "other requests for the same were faster; nothing was done")
    return document(ended.problem, ended.headers)


def _provider_unavailable(_: Request[Any, Any, Any], away: ProviderUnavailable) -> Response[Problem]:
    said = "the payment provider does not answer; nothing was begun, and the same request may be sent again"
    headers = {"Retry-After": str(max(RETRY_AFTER_S, ceil(away.retry_after_s)))}
    return document(problem(503, "provider-unavailable", said), headers)


def _store_unavailable(_: Request[Any, Any, Any], __: Exception) -> Response[Problem]:
    ended = unavailable("store-unavailable", "the ledger's store does not answer; the same request may be sent again")
    return document(ended.problem, ended.headers)


def _framework(_: Request[Any, Any, Any], error: HTTPException) -> Response[Problem]:
    """What Litestar itself refuses, in our words where it would quote the request."""
    headers = dict(error.headers or {})
    if isinstance(error, NotAuthorizedException):
        return document(problem(401, "not-authenticated", error.detail), headers)
    if isinstance(error, ValidationException):
        extra = error.extra if isinstance(error.extra, list) else []
        fields = [_field(item) for item in extra if isinstance(item, dict)]
        return document(bad_request(*(fields or [FieldError(error.detail, parameter="request")])).problem)
    phrase = HTTPStatus(error.status_code).phrase
    return document(problem(error.status_code, phrase.lower().replace(" ", "-"), phrase), headers)


def _field(item: dict[str, Any]) -> FieldError:
    name, said = str(item.get("key", "")), str(item.get("message", "is not valid"))
    return FieldError(said, header=name) if item.get("source") == "header" else FieldError(said, parameter=name)


def _unexpected(request: Request[Any, Any, Any], error: Exception) -> Response[Problem]:
    # The path's template, not the path: an id or an address may stand in it.
    log.error("unexpected error in %s", request.scope.get("path_template"), exc_info=error)
    return document(problem(500, "internal-error", "the ledger made a mistake; it has been logged"))


HANDLERS: dict[type[Exception] | int, Any] = {
    ProblemError: _ended,
    errors.Refusal: _refusal,
    PaymentNotFound: _not_found,
    KeyReused: _key_reused,
    VersionMoved: _version_moved,
    Contended: _contended,
    ProviderUnavailable: _provider_unavailable,
    StoreUnavailable: _store_unavailable,
    psycopg.OperationalError: _store_unavailable,  # a query's connection, or the wait for one
    HTTPException: _framework,
    Exception: _unexpected,
}
