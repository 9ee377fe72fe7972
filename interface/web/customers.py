"""`/v1/customers`: register, find, pay with another card; what one is subscribed to.

Wherever a customer is named it may be by its id, by its user's id or by its e-mail.
"""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any
from uuid import UUID

from litestar import Request, Response, Router, get, post, put
from litestar.datastructures import State
from litestar.params import Body, HeaderParameter, PathParameter
from msgspec import Meta, Struct

from application.customers import CustomerNotFound
from application.payment_stream import Context
from application.payments import operation_id
from application.streams import Done, Story
from domain.customer import MAX_NAME_LENGTH, Customer
from domain.customer_facts import NameAdded
from domain.errors import InvalidName
from interface.services import Services
from interface.tokens import Caller
from interface.web import documented_billing as documented
from interface.web.access import caller_of, needs
from interface.web.billing_problems import NOBODY, declined, failure_of, unknown_customer
from interface.web.customer_views import (
    CustomerStatusView,
    CustomerView,
    SubscriptionPage,
    SubscriptionView,
    at_end_of,
)
from interface.web.problems import MEDIA_TYPE, FieldError, Problem, bad_request
from interface.web.reading import check_request
from interface.web.requests import (
    DEFAULT_PAGE,
    END,
    MAX_KEY_LENGTH,
    NO_CONTROLS,
    After,
    Cursor,
    Limit,
    read_uuid_cursor,
    written_cursor,
)
from interface.web.waiting import correlation_of, wait_for
from projections import customers
from projections.customer_rows import At, opened
from projections.customer_standing import CustomerStatus

Http = Request[Caller, Any, State]
READ = "read:payment"
MAX_LENGTH = MAX_NAME_LENGTH

CustomerName = Annotated[
    str,
    PathParameter(
        min_length=1, max_length=MAX_LENGTH, pattern=NO_CONTROLS, description="Its id, its user's id or its e-mail."
    ),
]
OptionalKey = Annotated[
    str | None,
    HeaderParameter(
        name="Idempotency-Key",
        min_length=1,
        max_length=MAX_KEY_LENGTH,
        pattern=r"^[\x21-\x7e]+" + END,
        description="May be left out: a payment method that is sent again names the same wish.",
    ),
]
Token = Annotated[str, Meta(pattern="^(pm|tok)_[A-Za-z0-9_]+" + END, max_length=200)]
UserId = Annotated[str, Meta(min_length=1, max_length=MAX_LENGTH, pattern=r"^[^@\s\x00-\x1f\x7f]+" + END)]
Email = Annotated[str, Meta(max_length=MAX_LENGTH, pattern=r"^[^@\s\x00]+@[^@\s\x00]+" + END)]


class CustomerBody(Struct, frozen=True, forbid_unknown_fields=True):
    """Who it is: a user's id, an e-mail or both. A name that is new becomes another one of whom the other names."""

    user: UserId | None = None
    email: Email | None = None


class CardBody(Struct, frozen=True, forbid_unknown_fields=True):
    """A Stripe payment method (`pm_…`) or token (`tok_…`), never a card number."""

    payment_method: Token


# --- Commands ----------------------------------------------------------------------------------------------------


@post("/", responses=documented.REGISTER, guards=[needs("write:payment")], status_code=201)
async def register(
    request: Http, services: Services, data: Annotated[CustomerBody, Body(examples=documented.CUSTOMER_EXAMPLES)]
) -> Response[CustomerView | Problem]:
    """Register a customer, or find the one that is known by these names.

    It takes no Idempotency-Key: the names say which customer is meant, so that asked twice it is one. 201 with a new
    customer, 200 with one that is known, 409 when the two names are those of two.
    """
    done = await services.customers.register(data.user, data.email, context_of(request))
    named = any(isinstance(envelope.fact, NameAdded) for envelope in done.story.envelopes)
    return _answered(request, done, "#/email", created=not named)


@put("/{customer:str}/card", responses=documented.SET_CARD, guards=[needs("write:payment")])
async def set_card(
    request: Http,
    services: Services,
    customer: CustomerName,
    data: Annotated[CardBody, Body(examples=documented.CARD_EXAMPLES)],
    idempotency_key: OptionalKey = None,
) -> Response[CustomerView | Problem]:
    """Have the customer and its subscriptions pay with this from now on.

    402 when the card is declined: what was paid with before stays.
    """
    story = await known(services, customer, partial(FieldError, parameter="customer"))
    subject = caller_of(request).subject
    key = operation_id(story.stream, subject, idempotency_key) if idempotency_key else None
    done = await services.customers.update_card(story.stream, data.payment_method, key, context_of(request))
    return _answered(request, done, "#/payment_method")


def context_of(request: Http) -> Context:
    return Context(actor=caller_of(request).subject, correlation=correlation_of(request))


async def known(services: Services, name: str, where: Callable[[str], FieldError]) -> Story[Customer]:
    """The customer that is named, from the log. Raises ProblemError (400, 404), which says where the name stood."""
    try:
        if (customer := _id(name)) is not None:
            return await services.customers.load(customer)
    except CustomerNotFound:
        pass  # a user's id may be a UUID, too
    try:
        return await services.customers.find(name)
    except InvalidName as refusal:
        raise bad_request(where(refusal.reason)) from None
    except CustomerNotFound:
        raise unknown_customer(where(NOBODY)) from None


def _answered(
    request: Http, done: Done[Customer], pointer: str, *, created: bool = False
) -> Response[CustomerView | Problem]:
    at = at_end_of(done.story)
    view = CustomerView.of(at, personal=may_read(request))
    headers = headers_of(at, replayed=done.replayed)
    if done.outcome == "failed":
        told = declined(failure_of(done), partial(FieldError, pointer=pointer), customer=view)
        return Response(told, status_code=told.status, media_type=MEDIA_TYPE, headers=headers)
    if done.outcome == "open":
        return Response(view, status_code=202, headers=headers)
    fresh = created and not done.replayed
    if fresh:
        headers["Location"] = f"/v1/customers/{view.id}"
    return Response(view, status_code=201 if fresh else 200, headers=headers)


def may_read(request: Http) -> bool:
    """Whether the caller may be shown what is personal."""
    return READ in caller_of(request).scopes


def headers_of(at: At[Any], *, replayed: bool = False) -> dict[str, str]:
    told = {"ETag": f'"{at.version}"', "Ledger-Position": str(at.position)}
    return told | {"Idempotent-Replayed": "true"} if replayed else told


# --- Queries -----------------------------------------------------------------------------------------------------


@get("/{customer:str}", responses=documented.GET_CUSTOMER, guards=[needs(READ)])
async def find(services: Services, customer: CustomerName, after: After = None) -> Response[CustomerStatusView]:
    """A customer as the read model has it: its card, its subscriptions, until when they are paid, and what is amiss."""
    await wait_for(services, customers.NAME, after)
    found = await standing(services, customer, partial(FieldError, parameter="customer"))
    shown = await services.run(lambda: opened(found.customer, services.ledger.personal))
    last = max(found.customer.position, *(at.position for at in found.subscriptions), 0)
    view = CustomerStatusView.of(found, CustomerView.of(shown, personal=True))
    return Response(view, headers={"Ledger-Position": str(last)})


@get("/{customer:str}/subscriptions", responses=documented.LIST_SUBSCRIPTIONS, guards=[needs(READ)])
async def subscriptions(
    services: Services,
    customer: CustomerName,
    cursor: Cursor = None,
    limit: Limit = DEFAULT_PAGE,
    after: After = None,
) -> SubscriptionPage:
    """A customer's subscriptions, newest first, those that have ended among them."""
    before = read_uuid_cursor(cursor)
    await wait_for(services, customers.NAME, after)
    holder = (await standing(services, customer, partial(FieldError, parameter="customer"))).customer.id
    async with services.queries.connection() as conn:
        found = await customers.subscriptions_of(conn, holder, before, limit + 1)
    page = found[:limit]
    more = len(found) > limit
    return SubscriptionPage(
        subscriptions=[SubscriptionView.of(at) for at in page],
        next_cursor=written_cursor(page[-1].created_at, page[-1].id) if more else None,
    )


async def standing(services: Services, name: str, where: Callable[[str], FieldError]) -> CustomerStatus:
    """How the customer that is named stands, as the read model has it. Raises ProblemError (400, 404)."""
    now, customer = services.clock(), _id(name)
    try:
        streams = services.customers.name_streams(name)
    except InvalidName as refusal:
        raise bad_request(where(refusal.reason)) from None
    async with services.queries.connection() as conn:
        found = await customers.status_of(conn, customer, now) if customer else None
        if found is None and (customer := await customers.find_named(conn, streams)) is not None:
            found = await customers.status_of(conn, customer, now)
    if found is None:
        raise unknown_customer(where(NOBODY))
    return found


def _id(name: str) -> UUID | None:
    try:
        return UUID(name) if len(name) == 36 else None
    except ValueError:
        return None


router = Router(
    "/v1/customers",
    route_handlers=[register, set_card, find, subscriptions],
    before_request=check_request,
    tags=["customers"],
)
