"""`/v1/payments`: authorize, capture, refund, void; get, history, list."""

from typing import Annotated
from uuid import UUID

from litestar import Request, Response, Router, get, post
from litestar.datastructures import State
from litestar.params import Body, QueryParameter

from application.payment_stream import Context
from application.payments import Answer, operation_id
from domain.money import Money
from domain.payment import PaymentAt, Status
from domain.payment_commands import Authorize, Capture, Refund, Void, Wish
from interface.services import Services
from interface.tokens import Caller
from interface.web import documented
from interface.web.access import caller_of, needs
from interface.web.facts import fact_view
from interface.web.problems import MEDIA_TYPE, Problem, ProblemError, problem
from interface.web.reading import check_request
from interface.web.requests import (
    AUTHORIZE_EXAMPLES,
    DEFAULT_PAGE,
    MOVEMENT_EXAMPLES,
    NO_CONTROLS,
    VOID_EXAMPLES,
    After,
    AuthorizeBody,
    Cursor,
    IdempotencyKey,
    IfMatch,
    Limit,
    MovementBody,
    VoidBody,
    moment,
    read_uuid_cursor,
    versions,
    written_cursor,
)
from interface.web.views import FactList, PaymentPage, PaymentView
from interface.web.waiting import correlation_of, wait_for
from projections import payment_status
from projections.payment_status import Wanted

Http = Request[Caller, None, State]

# --- Commands ----------------------------------------------------------------------------------------------------


@post("/", responses=documented.AUTHORIZE, guards=[needs("write:payment")], status_code=201)
async def authorize(
    request: Http,
    services: Services,
    data: Annotated[AuthorizeBody, Body(examples=AUTHORIZE_EXAMPLES)],
    idempotency_key: IdempotencyKey,
) -> Response[PaymentView | Problem]:
    """Authorize a payment, and capture it at once with `"capture": "automatic"`.

    An `order` that was announced to us is paid once, whole, and by nobody in another customer's name.

    201 with the payment, 200 when the same request was answered before, 202 while the outcome is not known, 402 with
    the payment inside the problem when the card is declined.
    """
    caller = caller_of(request)
    wish = Authorize(
        operation=idempotency_key,
        amount=Money(data.amount, data.currency),
        capture=data.capture,
        payment_method=data.payment_method,
        customer=data.customer,
        order=data.order,
        description=data.description,
        metadata=data.metadata,
    )
    answer = await services.orders.authorize(wish, idempotency_key, _context(request, caller))
    return _answered(answer, created=True)


@post("/{payment:uuid}/captures", responses=documented.MOVEMENT, guards=[needs("write:payment")], status_code=201)
async def capture(
    request: Http,
    services: Services,
    payment: UUID,
    data: Annotated[MovementBody, Body(examples=MOVEMENT_EXAMPLES)],
    idempotency_key: IdempotencyKey,
    if_match: IfMatch = None,
) -> Response[PaymentView | Problem]:
    """Take part or all of what was authorized."""
    caller = caller_of(request)
    wish = Capture(operation_id(payment, caller.subject, idempotency_key), data.amount, data.reason)
    answer = await services.orders.capture(payment, wish, _context(request, caller), versions(if_match))
    return _answered(answer, created=True)


@post("/{payment:uuid}/refunds", responses=documented.MOVEMENT, guards=[needs("write:payment")], status_code=201)
async def refund(
    request: Http,
    services: Services,
    payment: UUID,
    data: Annotated[MovementBody, Body(examples=MOVEMENT_EXAMPLES)],
    idempotency_key: IdempotencyKey,
    if_match: IfMatch = None,
) -> Response[PaymentView | Problem]:
    """Give part or all of the captured money back."""
    operation = operation_id(payment, caller_of(request).subject, idempotency_key)
    return await _carry_out(request, services, payment, Refund(operation, data.amount, data.reason), if_match)


@post("/{payment:uuid}/void", responses=documented.MOVEMENT, guards=[needs("write:payment")], status_code=201)
async def void(
    request: Http,
    services: Services,
    payment: UUID,
    data: Annotated[VoidBody, Body(examples=VOID_EXAMPLES)],
    idempotency_key: IdempotencyKey,
    if_match: IfMatch = None,
) -> Response[PaymentView | Problem]:
    """Release what is left of the reserve; nothing of it moves any more."""
    operation = operation_id(payment, caller_of(request).subject, idempotency_key)
    return await _carry_out(request, services, payment, Void(operation, data.reason), if_match)


@post("/{payment:uuid}/return", responses=documented.RETURN, guards=[needs("write:payment")], status_code=200)
async def returned(request: Http, services: Services, payment: UUID) -> Response[PaymentView | Problem]:
    """The cardholder came back from authentication: learn from the provider what became of it. Moves nothing."""
    answer = await services.orders.returned(payment, _context(request, caller_of(request)))
    return _answered(answer, created=False)


async def _carry_out(
    request: Http, services: Services, payment: UUID, wish: Wish, if_match: str | None
) -> Response[PaymentView | Problem]:
    context = _context(request, caller_of(request))
    answer = await services.payments.carry_out(payment, wish, context, versions(if_match))
    return _answered(answer, created=True)


def _context(request: Http, caller: Caller) -> Context:
    return Context(actor=caller.subject, correlation=correlation_of(request))


def _answered(answer: Answer, *, created: bool) -> Response[PaymentView | Problem]:
    view = PaymentView.of(answer.at)
    headers = _headers(answer.at)
    if answer.replayed:
        headers["Idempotent-Replayed"] = "true"
    if answer.outcome == "failed":
        return Response(_declined(view), status_code=402, media_type=MEDIA_TYPE, headers=headers)
    if answer.outcome == "open":
        return Response(view, status_code=202, headers=headers)
    fresh = created and not answer.replayed
    if fresh:
        headers["Location"] = f"/v1/payments/{view.id}"
    return Response(view, status_code=201 if fresh else 200, headers=headers)


def _declined(view: PaymentView) -> Problem:
    failure = view.failure
    said = f"{failure.message} ({failure.decline_code or failure.code})" if failure else "the provider said no"
    return problem(402, "declined", said, payment=view)


def _headers(at: PaymentAt) -> dict[str, str]:
    return {"ETag": f'"{at.version}"', "Ledger-Position": str(at.position)}


# --- Queries -----------------------------------------------------------------------------------------------------


@get("/{payment:uuid}", responses=documented.GET_PAYMENT, guards=[needs("read:payment")])
async def find(services: Services, payment: UUID, after: After = None) -> Response[PaymentView]:
    """A payment as the read model has it. `after` waits, bounded, until it includes that position."""
    await wait_for(services, payment_status.NAME, after)
    at = await services.find(payment)
    if at is None:
        raise ProblemError(problem(404, "payment-not-found", "there is no payment with this id"))
    (opened,) = await services.opened([at])
    return Response(PaymentView.of(opened), headers=_headers(at))


@get("/{payment:uuid}/events", responses=documented.GET_EVENTS, guards=[needs("read:payment")])
async def events(services: Services, payment: UUID) -> Response[FactList]:
    """The payment's whole history, fact by fact, from the log itself."""
    history = await services.payments.history(payment)
    facts = [fact_view(envelope, personal=True) for envelope in history.envelopes]
    return Response(FactList(facts), headers=_headers(history.snapshot()))


@get("/", responses=documented.LIST_PAYMENTS, guards=[needs("read:payment")])
async def newest(
    services: Services,
    status: Annotated[Status | None, QueryParameter(name="status")] = None,
    customer: Annotated[str | None, QueryParameter(name="customer", max_length=200, pattern=NO_CONTROLS)] = None,
    order: Annotated[str | None, QueryParameter(name="order", max_length=200, pattern=NO_CONTROLS)] = None,
    since: Annotated[str | None, QueryParameter(name="from", description="Created at or after, RFC 3339.")] = None,
    until: Annotated[str | None, QueryParameter(name="to", description="Created before, RFC 3339.")] = None,
    cursor: Cursor = None,
    limit: Limit = DEFAULT_PAGE,
    after: After = None,
) -> PaymentPage:
    """Payments, newest first."""
    wanted = Wanted(status, customer, order, moment(since), moment(until), read_uuid_cursor(cursor))
    await wait_for(services, payment_status.NAME, after)
    async with services.queries.connection() as conn:
        found = await payment_status.newest(conn, wanted, limit + 1)
    page = await services.opened(found[:limit])
    more = len(found) > limit
    return PaymentPage(
        payments=[PaymentView.of(at) for at in page],
        next_cursor=written_cursor(page[-1].created_at, page[-1].id) if more else None,
    )


router = Router(
    "/v1/payments",
    route_handlers=[authorize, capture, refund, void, returned, find, events, newest],
    before_request=check_request,
    tags=["payments"],
)
