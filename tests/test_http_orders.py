"""`/v1/orders`: orders that were announced and orders that payments merely name, as callers see them."""

from collections.abc import Iterator
from uuid import UUID

import pytest

from application.event_store import Ledger
from application.orders import order_stream
from domain.order_facts import OrderCancelled, OrderFact, OrderPaid
from interface.web import documented
from tests.billing_logs import decided
from tests.given import usd
from tests.order_logs import PRICE, placed
from tests.system import System, made, named, position, problem
from tests.test_http_payments import unique

NOBODY = {"user": None, "price": None, "currency": None, "version": None}


@pytest.fixture(scope="module")
def ledger(system: System) -> Iterator[Ledger]:
    """The log of the running system."""
    with Ledger(system.database_url) as ledger:
        yield ledger


def announce(ledger: Ledger, *facts: OrderFact) -> int:
    """The facts at the end of the order's stream; the position of the last."""
    stream = order_stream(facts[0].order)
    loaded = ledger.load(stream)
    stored = ledger.append(decided(stream, *facts, first=len(loaded.envelopes) + 1), loaded.tail)
    return stored.envelopes[-1].position or 0


def test_an_announced_order_tells_whose_it_is_what_it_costs_and_how_it_stands(system: System, ledger: Ledger) -> None:
    order, user = unique("order"), unique("user")
    after = announce(ledger, placed(order, user, version=3))
    found = system.found(f"/v1/orders/{order}", after=after)
    assert found == {
        "id": order,
        "status": "created",
        "payment_status": "unpaid",
        "user": user,
        "price": PRICE,
        "currency": "usd",
        "version": 3,
        "totals": [],
        "payments": [],
        "created_at": found["created_at"],
    }
    after = announce(ledger, OrderCancelled(order, 4))
    cancelled = system.found(f"/v1/orders/{order}", after=after)
    assert cancelled == found | {"status": "cancelled", "version": 4}
    assert found.keys() == documented.ORDER.keys()


def test_an_order_that_is_announced_after_its_payment_waits_for_it_until_it_is_paid(
    system: System, ledger: Ledger
) -> None:
    order = unique("order")
    answer = system.pay(order=order, amount=PRICE // 2)
    payment = made(answer)
    plain = system.found(f"/v1/orders/{order}", after=position(answer))
    assert plain == plain | NOBODY | {"status": "authorized", "payment_status": "authorized"}
    found = system.found(f"/v1/orders/{order}", after=announce(ledger, placed(order)))
    assert (found["status"], found["payment_status"]) == ("awaiting:payment", "authorized")
    assert (found["payments"], found["totals"]) == (plain["payments"], plain["totals"])
    after = announce(ledger, OrderPaid(order, UUID(payment["id"]), usd(PRICE), "ch_1"))
    assert system.found(f"/v1/orders/{order}", after=after)["status"] == "complete"


def test_orders_are_listed_by_user_and_by_status_in_pages(system: System, ledger: Ledger) -> None:
    user, other = unique("user / with späces"), unique("user")
    orders = [unique("order") for _ in range(5)]
    for order in orders:
        announce(ledger, placed(order, user))
    announce(ledger, placed(unique("order"), other))
    announce(ledger, OrderCancelled(orders[1], 1))
    after = announce(ledger, OrderCancelled(orders[3], 1))
    system.pay(order=unique("plain"))

    def listed(limit: int = 100, **wanted: str) -> list[str]:
        seen: list[str] = []
        page = system.found("/v1/orders", limit=limit, after=after, **wanted)
        while page["next_cursor"] is not None:
            assert len(page["orders"]) == limit
            seen += [order["id"] for order in page["orders"]]
            page = system.found("/v1/orders", limit=limit, cursor=page["next_cursor"], **wanted)
        return seen + [order["id"] for order in page["orders"]]

    for limit in (1, 2, 5, 100):
        assert sorted(listed(limit, user=user)) == sorted(orders)
        assert sorted(listed(limit, user=user, status="cancelled")) == sorted([orders[1], orders[3]])
    assert len(listed(user=other)) == 1
    assert listed(user=other, status="complete") == listed(user=unique("nobody")) == []
    cancelled, everything = listed(2, status="cancelled"), listed()
    assert {orders[1], orders[3]} <= set(cancelled)
    assert [order for order in everything if order in set(cancelled)] == cancelled, "in the order of the whole list"
    assert set(everything) > set(cancelled)


def test_a_list_by_what_is_no_orders_status_is_refused(system: System) -> None:
    for wrong in ("captured", "unpaid", "paid", "", "CREATED"):
        refusal = problem(system.get("/v1/orders", status=wrong), 400)
        assert named(refusal) == {"status"}
        assert "awaiting:payment" in str(refusal["errors"])
    assert named(problem(system.get("/v1/orders", user="a\nb"), 400)) == {"user"}


def test_an_order_nobody_knows_is_not_found(system: System) -> None:
    assert problem(system.get(f"/v1/orders/{unique('order')}"), 404)["type"].endswith("order-not-found")


def test_an_orders_stream_is_no_payment(system: System, ledger: Ledger) -> None:
    order = unique("order")
    after = announce(ledger, placed(order))
    stream = order_stream(order)
    problem(system.get(f"/v1/payments/{stream}", after=after), 404)
    problem(system.get(f"/v1/payments/{stream}/events"), 404)
    problem(system.move({"id": str(stream)}, "refunds"), 404)
    lines = system.get("/v1/events", after=after - 1, limit=1).text.splitlines()
    assert [line.count('"OrderPlaced"') for line in lines] == [1]
