"""The words of the ticketing contract: its body, its answers, and the envelope around everything that is refused."""

from typing import Annotated
from uuid import UUID

from litestar.types import ASGIApp
from msgspec import Meta, Struct, json

from interface.web.contracts.documented import Body, told
from interface.web.contracts.other_words import in_other_words
from interface.web.customers import Token
from interface.web.problems import FieldError
from interface.web.requests import NO_CONTROLS

PATH = "/api/payments"
OrderId = Annotated[str, Meta(min_length=1, max_length=200, pattern=NO_CONTROLS)]


class TicketPaymentBody(Struct, frozen=True, rename="camel"):
    """A card's token (or a payment method), and the order to pay for."""

    token: Token
    order_id: OrderId


class TicketPayment(Struct, frozen=True):
    """The order's payment."""

    id: UUID


class TicketError(Struct, frozen=True, omit_defaults=True):
    message: str
    field: str | None = None


class TicketErrors(Struct, frozen=True):
    errors: list[TicketError]


# --- The envelope ------------------------------------------------------------------------------------------------


class Told(Struct, frozen=True):
    """What is used of a problem."""

    title: str
    detail: str = ""
    errors: list[FieldError] = []


def in_its_words(app: ASGIApp) -> ASGIApp:
    """The application, whose problems about this route are told in its envelope; all else passes through."""
    return in_other_words(
        app, lambda path: path.rstrip("/") == PATH, lambda problem: envelope(json.decode(problem, type=Told))
    )


def envelope(problem: Told) -> bytes:
    fields = [TicketError(error.detail, _field(error)) for error in problem.errors]
    return json.encode(TicketErrors(fields or [TicketError(problem.detail or problem.title)]))


def _field(error: FieldError) -> str | None:
    return error.pointer.removeprefix("#").removeprefix("/") or None if error.pointer else error.header


# --- The document ------------------------------------------------------------------------------------------------

SESSION = [{"bearer": list[str]()}, {"session": list[str]()}]


def _refused(said: str, field: str | None = None) -> Body:
    return Body(TicketErrors, {"errors": [{"message": said} | ({"field": field} if field else {})]}, said)


PAY = told(
    {
        201: Body(TicketPayment, {"id": "5d0e6f0a-1f0c-5b57-8f5f-6a1f7a1f2b10"}, "the order is paid"),
        400: (_refused("is required", "token"), _refused("Cannot pay for a cancelled order")),
        401: _refused("Not authorized"),
        402: _refused("Your card was declined.", "token"),
        404: _refused("Not Found"),
        409: _refused("Cannot pay for an order that is paid already"),
        413: _refused("Request Entity Too Large"),
        422: _refused("this key was used for another request; a new wish needs a new key", "Idempotency-Key"),
        429: _refused("more than the limit; see Retry-After and X-RateLimit-*"),
        503: _refused("nothing was begun; the same request may be sent again"),
        504: _refused("the outcome is not known yet; the same request may be sent again"),
    },
    Body(TicketPaymentBody, {"token": "tok_visa", "orderId": "order_7"}),
)
