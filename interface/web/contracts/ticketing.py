"""The ticketing contract: somebody who is logged in pays for their own order, with a card's token.

`POST /api/payments` `{token, orderId}` captures at once. One order is paid once at most; the same token asked again is
the same wish, and is answered again. Everything but success is `{"errors": [{"message", "field"?}]}`:

| status | when |
|---|---|
| 400 | a field is missing or wrong (each is named); the order is cancelled, also when that happened meanwhile |
| 401 | no session, or the order is another user's |
| 402 | the card was declined, or asks for its holder, whom this call cannot send anywhere; another token may be tried |
| 404 | no such order was announced |
| 409 | the order is paid already, or being paid |
| 413 | the body is too large |
| 422 | the Idempotency-Key, where one is sent, names another wish |
| 429 | too many requests; see Retry-After |
| 503 | nothing was begun: the ledger or the provider does not answer; the same request may be sent again |
| 504 | the outcome is not known yet; the same request may be sent again, and is answered with what became of it |
"""

from typing import Any
from uuid import UUID

from litestar import Request, Response, Router, post
from litestar.connection import ASGIConnection
from litestar.datastructures import State
from litestar.handlers.base import BaseRouteHandler

from application.orders import OrderNotFound, order_payment
from application.payment_stream import Context
from application.payments import Answer, operation_id
from domain.errors import OrderNotPayable, OrderOfAnother
from domain.order import demand_owner
from domain.payment_commands import Authorize
from interface.services import Services
from interface.sessions import COOKIE, MAX_COOKIE_LENGTH, token_in
from interface.tokens import Caller, TokenRefused
from interface.web.access import caller_of
from interface.web.contracts import ticketing_words as words
from interface.web.contracts.ticketing_words import TicketPayment, TicketPaymentBody
from interface.web.problems import FieldError, ProblemError, bad_request, problem
from interface.web.reading import read
from interface.web.requests import MAX_KEY_LENGTH
from interface.web.waiting import correlation_of

# Derives the operations of callers without a key: it never changes.
CONTRACT = "contract:ticketing"
RETRY_AFTER_S = 2
Http = Request[Caller, None, State]


async def in_session(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """A guard: somebody is logged in, by a bearer token or the session cookie. Raises ProblemError."""
    scheme, _space, token = connection.headers.get("authorization", "").partition(" ")
    cookie = connection.cookies.get(COOKIE, "")[:MAX_COOKIE_LENGTH]
    services: Services = connection.app.state.services
    try:
        shown = token.strip() if scheme.lower() == "bearer" else token_in(cookie)
        connection.state.caller = await services.sessions.check_fresh(shown)
    except TokenRefused:
        raise _not_authorized() from None


@post("/", guards=[in_session], status_code=201, security=words.SESSION, operation_class=words.PAY)
async def pay(request: Http, services: Services) -> Response[TicketPayment]:
    """Pay for an order of one's own, at once and whole."""
    sent_json = request.headers.get("content-type", "").split(";")[0].strip().lower() == "application/json"
    body: Any = read(await request.body() if sent_json else b"{}", TicketPaymentBody)
    caller = caller_of(request)
    try:
        answer = await _carried_out(request, services, body, Context(caller.subject, correlation_of(request)))
    except OrderNotFound:
        raise ProblemError(problem(404, "not-found", "Not Found")) from None
    except OrderOfAnother:
        raise _not_authorized() from None
    except OrderNotPayable as refusal:
        raise _not_payable(refusal) from None
    return Response(_paid(answer), status_code=201)


async def _carried_out(request: Http, services: Services, body: TicketPaymentBody, context: Context) -> Answer:
    """Raises what Orders.find and Orders.pay do, and OrderNotPayable also when it was paid and cancelled since."""
    orders, story = services.orders, await services.orders.find(body.order_id)
    order, payment = story.known, order_payment(body.order_id)
    demand_owner(order, context.actor)
    if order.status == "cancelled":
        raise OrderNotPayable(status=order.status)
    wish = Authorize(
        operation=_operation(request, payment, body.token),
        amount=order.price,
        capture="automatic",
        payment_method=body.token,
        customer=order.user,
        order=order.id,
        metadata={"contract": "ticketing"},
    )
    # Nobody can be sent to authenticate by this contract, so that an attempt that waits for that stands in the way.
    await orders.give_up_waiting(payment, wish.operation, context)
    answer = await orders.pay(story, wish, context)
    if answer.outcome == "waiting":
        await orders.give_up_waiting(payment, None, context)
    return answer


def _operation(request: Http, payment: UUID, token: str) -> str:
    key = request.headers.get("idempotency-key")
    if key is None:
        return operation_id(payment, CONTRACT, token)
    if not (key.isascii() and key.isprintable() and 1 <= len(key) <= MAX_KEY_LENGTH):
        raise bad_request(FieldError(f"must have 1 to {MAX_KEY_LENGTH} characters", header="Idempotency-Key"))
    return operation_id(payment, f"{CONTRACT}:{caller_of(request).subject}", key)


def _paid(answer: Answer) -> TicketPayment:
    """Raises ProblemError for whatever is no payment yet, or never will be."""
    match answer.outcome:
        case "done":
            return TicketPayment(answer.at.id)
        case "failed":
            failure = answer.at.payment.failure
            said = failure.message if failure else "the card was declined"
        case "waiting":
            said = "the card asks for its holder's confirmation, which cannot be given here; another card may be used"
        case "open":
            unknown = "the outcome is not known yet; the same request may be sent again"
            raise ProblemError(problem(504, "outcome-unknown", unknown), {"Retry-After": str(RETRY_AFTER_S)})
    raise ProblemError(problem(402, "declined", said, FieldError(said, pointer="#/token")))


def _not_authorized() -> ProblemError:
    return ProblemError(problem(401, "not-authorized", "Not authorized"), {"WWW-Authenticate": "Bearer"})


def _not_payable(refusal: OrderNotPayable) -> ProblemError:
    if refusal.status == "cancelled":
        return ProblemError(problem(400, "order-cancelled", "Cannot pay for a cancelled order"))
    return ProblemError(problem(409, "order-paid", "Cannot pay for an order that is paid already"))


router = Router(words.PATH, route_handlers=[pay], tags=["ticketing"])
