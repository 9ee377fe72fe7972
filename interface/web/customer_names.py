"""What the routes of customers and subscriptions share: who is named, who asks, and the headers of an answer."""

from collections.abc import Callable
from typing import Annotated, Any
from uuid import UUID

from litestar import Request
from litestar.datastructures import State
from litestar.params import PathParameter

from application.customers import CustomerNotFound
from application.payment_stream import Context
from application.streams import Story
from domain.customer import MAX_NAME_LENGTH, Customer
from domain.errors import InvalidName
from interface.services import Services
from interface.tokens import Caller
from interface.web.access import caller_of
from interface.web.billing_problems import NOBODY, unknown_customer
from interface.web.problems import FieldError, bad_request
from interface.web.requests import NO_CONTROLS
from interface.web.waiting import correlation_of
from projections import customers
from projections.customer_rows import At
from projections.customer_standing import CustomerStatus

Http = Request[Caller, Any, State]
READ = "read:payment"

CustomerName = Annotated[
    str,
    PathParameter(
        min_length=1,
        max_length=MAX_NAME_LENGTH,
        pattern=NO_CONTROLS,
        description="Its id, user's id or e-mail.",
    ),
]


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


def may_read(request: Http) -> bool:
    """Whether the caller may be shown what is personal."""
    return READ in caller_of(request).scopes


def headers_of(at: At[Any], *, replayed: bool = False) -> dict[str, str]:
    told = {"ETag": f'"{at.version}"', "Ledger-Position": str(at.position)}
    return told | {"Idempotent-Replayed": "true"} if replayed else told
