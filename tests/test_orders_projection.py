"""The read model of orders: however orders' and payments' facts lie and are cut, it says what their histories say."""

from collections.abc import Iterator
from datetime import timedelta
from random import Random
from typing import Any, get_args
from uuid import uuid4

import psycopg
import pytest
from hypothesis import example, given, settings, strategies
from msgspec.structs import replace
from psycopg import Connection
from psycopg.sql import SQL, Identifier

from application.orders import order_payment, order_stream
from domain.facts import Fact
from domain.order_facts import OrderCancelled, OrderFact, OrderPaid, OrderStatus
from domain.payment_facts import AuthorizationStarted, PaymentFact
from interface.sandbox.postgres import Postgres
from projections import orders
from projections.orders import Order, Wanted
from tests.billing_logs import decided
from tests.given import (
    ACTION_REQUIRED,
    AUTHORIZED,
    CAPTURED,
    DECLINED,
    DISPUTED,
    EXPIRED,
    MULTICAPTURE,
    NOON,
    REFUNDED,
    STARTED,
    VOIDED,
    capture_started,
    captured,
    dispute_won,
    failed,
    refund_started,
    refunded,
    reversed_later,
    started,
    usd,
    void_started,
)
from tests.order_logs import EMPTY, NAMES, PRICE, USERS, Expected, any_log, batches, expected, placed, positioned, told
from tests.recovery_side import migrated, on

TABLES = orders.MODEL.tables
STATUSES: tuple[OrderStatus, ...] = get_args(OrderStatus)
A = NAMES[0]


@pytest.fixture(scope="module")
def server(postgres: Postgres) -> Iterator[str]:
    with migrated(postgres) as url:
        yield url


@pytest.fixture(scope="module")
def tables(server: str) -> Iterator[Connection[Any]]:
    with psycopg.connect(server, autocommit=True) as conn:
        yield conn


@pytest.fixture
def rows(tables: Connection[Any]) -> Connection[Any]:
    """The tables, empty."""
    tables.execute(EMPTY)
    return tables


def everything(conn: Connection[Any]) -> list[list[tuple[Any, ...]]]:
    return [conn.execute(SQL("SELECT * FROM {} ORDER BY id").format(Identifier(table))).fetchall() for table in TABLES]


# --- Any log -----------------------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(random=strategies.randoms(use_true_random=True))
@example(random=Random(7))
def test_any_log_in_any_batches_leaves_what_the_histories_say(tables: Connection[Any], random: Random) -> None:
    log = any_log(random)
    tables.execute(EMPTY)
    for batch in batches(random, log):
        assert orders.apply(tables, batch) == []
        assert told(tables) == expected(log[: batch[-1].position])
    cut = everything(tables)
    tables.execute(EMPTY)
    orders.apply(tables, log)
    assert everything(tables) == cut, "to the byte, as a rebuild compares them"
    begin = random.randrange(len(log))
    assert orders.apply(tables, log[begin:]) == []
    assert told(tables) == expected(log), "what was applied before changes nothing"


@settings(max_examples=25, deadline=None)
@given(random=strategies.randoms(use_true_random=True))
def test_every_question_is_answered_as_the_histories_say(tables: Connection[Any], server: str, random: Random) -> None:
    log = any_log(random)
    tables.execute(EMPTY)
    orders.apply(tables, log)
    wanted = expected(log)
    newest = sorted(wanted, key=lambda name: (wanted[name].created_at, name), reverse=True)

    async def ask(conn: psycopg.AsyncConnection[Any]) -> None:
        for name in NAMES:
            assert same(await orders.find(conn, name), wanted.get(name))
        for user in (None, *USERS):
            for status in (None, *STATUSES):
                listed = await orders.newest(conn, Wanted(user, status), 100)
                assert [order.id for order in listed] == [
                    name
                    for name in newest
                    if user in {None, wanted[name].user} and status in {None, wanted[name].status}
                ]
                assert all(same(order, wanted[order.id]) for order in listed)
        for query, due in ((orders.owed, "return"), (orders.unrecorded, "record")):
            found = [(at.id, at.payment.order) for at in await query(conn, 100)]
            assert sorted(found) == sorted(
                (payment, name)
                for name, one in wanted.items()
                for payment, is_due in one.payments.items()
                if is_due == due
            )

    on(server, ask)


def same(order: Order | None, wanted: Expected | None) -> bool:
    if order is None or wanted is None:
        return order is None and wanted is None
    user = order.announced.state.user if order.announced else None
    payments = [at.id for at in order.payments]
    return (user, order.status, order.created_at, set(payments)) == (*wanted[:3], set(wanted.payments))


# --- How an order stands -----------------------------------------------------------------------------------------


def both(conn: Connection[Any], *facts: Fact, order: tuple[OrderFact, ...] = (placed(),)) -> Expected:
    """What is told of an order and of one payment that names it; the same, whichever is heard of first."""
    payment = decided(
        order_payment(A), *(replace(f, order=A) if isinstance(f, AuthorizationStarted) else f for f in facts)
    )
    announced = decided(order_stream(A), *order)
    found = []
    for log in ([*announced, *payment], [*payment, *announced]):
        conn.execute(EMPTY)
        assert orders.apply(conn, positioned(log)) == []
        found.append(told(conn)[A])
    assert found[0] == found[1]
    return found[0]


@pytest.mark.parametrize(
    ("payment", "status"),
    [
        (STARTED, "awaiting:payment"),
        (ACTION_REQUIRED, "awaiting:payment"),
        (AUTHORIZED, "awaiting:payment"),
        ((*AUTHORIZED, *captured(minor=40_00)), "awaiting:payment"),
        (CAPTURED, "awaiting:payment"),
        (DECLINED, "created"),
        (VOIDED, "created"),
        (EXPIRED, "created"),
        (REFUNDED, "created"),
        ((*DECLINED, started("auth_2", attempt=2)), "awaiting:payment"),
    ],
)
def test_an_order_waits_for_a_payment_that_is_under_way(
    rows: Connection[Any], payment: tuple[PaymentFact, ...], status: str
) -> None:
    assert both(rows, *payment).status == status
    cancelled, complete = OrderCancelled(A, 1), OrderPaid(A, uuid4(), usd(PRICE), "ch_1")
    assert both(rows, *payment, order=(placed(), cancelled)).status == "cancelled"
    assert both(rows, *payment, order=(placed(), complete)).status == "complete"
    assert both(rows, *payment, order=(placed(), complete, cancelled)).status == "cancelled"


def test_an_order_is_told_of_as_long_as_it_is_announced_or_a_payment_names_it(rows: Connection[Any]) -> None:
    payment = uuid4()
    log = decided(payment, replace(started(), order=A), failed(), started("auth_2", attempt=2), failed("auth_2"))
    log += decided(payment, replace(started("auth_3", attempt=3), order=A), first=5)
    for cuts in ([5], [1, 1, 1, 1, 1], [2, 3]):
        rows.execute(EMPTY)
        left = positioned(log)
        for size in cuts:
            orders.apply(rows, left[:size])
            left = left[size:]
        assert told(rows) == {}, "an attempt named none: what it does later is not followed"
    orders.apply(rows, positioned(decided(uuid4(), placed())))
    assert told(rows)[A] == Expected(USERS[0], "created", NOON + timedelta(seconds=1), {})


# --- What is due -------------------------------------------------------------------------------------------------

OFF = (placed(), OrderCancelled(A, 1))


@pytest.mark.parametrize(
    ("payment", "due"),
    [
        (STARTED, None),
        (ACTION_REQUIRED, "return"),
        ((*ACTION_REQUIRED, void_started()), None),
        (AUTHORIZED, "return"),
        ((*AUTHORIZED, void_started()), None),
        ((*AUTHORIZED, capture_started()), None),
        ((*AUTHORIZED, void_started(), failed("void_1", "void")), "return"),
        (CAPTURED, "return"),
        ((*CAPTURED, refund_started()), None),
        ((*CAPTURED, refund_started(minor=40_00)), "return"),
        ((*CAPTURED, refund_started(), failed("re_1", "refund")), "return"),
        ((*CAPTURED, *refunded(minor=40_00)), "return"),
        (REFUNDED, None),
        ((*REFUNDED, reversed_later()), "return"),
        (DISPUTED, None),
        ((*DISPUTED, dispute_won()), "return"),
        ((*MULTICAPTURE, *captured(minor=40_00, final=False), void_started()), "return"),
        (VOIDED, None),
        (EXPIRED, None),
        (DECLINED, None),
    ],
)
def test_a_cancelled_order_owes_what_is_held_or_taken_and_not_on_its_way_back(
    rows: Connection[Any], payment: tuple[PaymentFact, ...], due: str | None
) -> None:
    assert [*both(rows, *payment, order=OFF).payments.values()] == [due]
    paid = (placed(), OrderPaid(A, uuid4(), usd(PRICE), "ch_1"))
    assert [*both(rows, *payment, order=paid).payments.values()] == [None]


@pytest.mark.parametrize(
    ("payment", "price", "due"),
    [
        (AUTHORIZED, PRICE, None),
        (CAPTURED, PRICE, "record"),
        (REFUNDED, PRICE, "record"),
        (DISPUTED, PRICE, "record"),
        ((*AUTHORIZED, *captured(minor=40_00)), 40_00, "record"),
        ((*MULTICAPTURE, *captured(minor=40_00, final=False)), 40_00, None),
        (CAPTURED, PRICE - 1, "return"),
        (CAPTURED, PRICE + 1, "return"),
        ((*CAPTURED, refund_started()), PRICE + 1, None),
        (REFUNDED, PRICE + 1, None),
    ],
)
def test_an_order_is_to_be_told_that_its_price_was_taken_and_anything_else_goes_back(
    rows: Connection[Any], payment: tuple[PaymentFact, ...], price: int, due: str | None
) -> None:
    assert [*both(rows, *payment, order=(placed(minor=price),)).payments.values()] == [due]


def test_only_an_orders_own_payment_pays_for_it(rows: Connection[Any]) -> None:
    payment, other = order_payment(A), uuid4()
    facts = (replace(started(), order=A), *CAPTURED[1:])
    orders.apply(rows, positioned([*decided(payment, *facts), *decided(other, *facts)]))
    orders.apply(rows, positioned(decided(order_stream(A), placed())))
    assert told(rows)[A].payments == {payment: "record", other: None}
    orders.apply(rows, positioned(decided(order_stream(A), OrderCancelled(A, 1), first=2)))
    assert told(rows)[A].payments == {payment: "return", other: "return"}
