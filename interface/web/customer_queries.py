"""The questions of `/v1/customers`: how one stands, its history, its subscriptions; all of them."""

from functools import partial

from litestar import Response, get

from interface.services import Services
from interface.web import documented_billing as documented
from interface.web.access import needs
from interface.web.customer_names import READ, CustomerName, headers_of, known, standing
from interface.web.customer_views import (
    CustomerPage,
    CustomerStatusView,
    CustomerView,
    SubscriptionPage,
    SubscriptionView,
    at_end_of,
)
from interface.web.facts import fact_view
from interface.web.problems import FieldError
from interface.web.requests import DEFAULT_PAGE, After, Cursor, Limit, read_uuid_cursor, written_cursor
from interface.web.views import FactList
from interface.web.waiting import wait_for
from projections import customers
from projections.customer_rows import opened


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


@get("/{customer:str}/events", responses=documented.CUSTOMER_EVENTS, guards=[needs(READ)])
async def events(services: Services, customer: CustomerName) -> Response[FactList]:
    """The customer's whole history, fact by fact, from the log itself. Subscriptions have histories of their own."""
    story = await known(services, customer, partial(FieldError, parameter="customer"))
    facts = [fact_view(envelope, personal=True) for envelope in story.envelopes]
    return Response(FactList(facts), headers=headers_of(at_end_of(story)))


@get("/", responses=documented.LIST_CUSTOMERS, guards=[needs(READ)])
async def newest(
    services: Services, cursor: Cursor = None, limit: Limit = DEFAULT_PAGE, after: After = None
) -> CustomerPage:
    """Customers, newest first."""
    before = read_uuid_cursor(cursor)
    await wait_for(services, customers.NAME, after)
    async with services.queries.connection() as conn:
        found = await customers.newest(conn, before, limit + 1)
    page = await services.run(lambda: [opened(at, services.ledger.personal) for at in found[:limit]])
    more = len(found) > limit
    return CustomerPage(
        customers=[CustomerView.of(at, personal=True) for at in page],
        next_cursor=written_cursor(page[-1].created_at, page[-1].id) if more else None,
    )
