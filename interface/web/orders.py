"""`/v1/orders`: how an order stands, and what was paid for it."""

from typing import Annotated

from litestar import Router, get
from litestar.params import PathParameter, QueryParameter

from domain.order_facts import OrderStatus
from interface.services import Services
from interface.web import documented
from interface.web.access import needs
from interface.web.problems import ProblemError, problem
from interface.web.reading import check_request
from interface.web.requests import DEFAULT_PAGE, NO_CONTROLS, After, Cursor, Limit, read_cursor, written_cursor
from interface.web.views import OrderPage, OrderView
from interface.web.waiting import wait_for
from projections import orders
from projections.orders import Wanted

OrderId = Annotated[str, PathParameter(max_length=200, pattern=NO_CONTROLS)]


@get("/{order:str}", responses=documented.GET_ORDER, guards=[needs("read:payment")])
async def find(services: Services, order: OrderId, after: After = None) -> OrderView:
    """How an order stands, its payments and their money together."""
    await wait_for(services, orders.NAME, after)
    async with services.queries.connection() as conn:
        found = await orders.find(conn, order)
    if found is None:
        raise ProblemError(problem(404, "order-not-found", "nobody announced this order, and no payment names it"))
    return OrderView.of(found)


@get("/", responses=documented.LIST_ORDERS, guards=[needs("read:payment")])
async def newest(
    services: Services,
    user: Annotated[
        str | None,
        QueryParameter(
            name="user", max_length=200, pattern=NO_CONTROLS, description="Only orders announced as theirs."
        ),
    ] = None,
    status: Annotated[
        OrderStatus | None, QueryParameter(name="status", description="Only announced orders that stand so.")
    ] = None,
    cursor: Cursor = None,
    limit: Limit = DEFAULT_PAGE,
    after: After = None,
) -> OrderPage:
    """Orders that were announced or that payments name, newest first."""
    wanted = Wanted(user, status, read_cursor(cursor))
    await wait_for(services, orders.NAME, after)
    async with services.queries.connection() as conn:
        found = await orders.newest(conn, wanted, limit + 1)
    page = found[:limit]
    more = len(found) > limit
    return OrderPage(
        orders=[OrderView.of(order) for order in page],
        next_cursor=written_cursor(page[-1].created_at, page[-1].id) if more else None,
    )


router = Router("/v1/orders", route_handlers=[find, newest], before_request=check_request, tags=["orders"])
