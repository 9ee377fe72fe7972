"""The read model of orders over a log: rebuilt, set aside, migrated, asked by its indexes; others pass orders over."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from random import Random
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from click.testing import CliRunner
from msgspec.structs import replace
from psycopg import AsyncConnection
from psycopg.sql import SQL, Identifier

from application.event_store import Ledger
from application.orders import order_payment, order_stream
from domain import order as domain_order
from domain.envelope import Envelope
from domain.order_facts import KeyClaimed, OrderCancelled, OrderFact, OrderPaid
from interface.bootstrap import READ_MODELS
from interface.cli import main
from interface.kafka.cinema_events import cinema_messages
from interface.kafka.messages import message
from interface.migrations import migrate
from interface.sandbox.postgres import Postgres
from interface.web.facts import fact_view
from projections import orders
from projections.customer_rows import Kind
from projections.order_rows import ANNOUNCED
from projections.orders import Wanted
from projections.rebuild import Outcome, Rebuild
from tests.billing_logs import decided
from tests.billing_side import BillingSide
from tests.given import (
    AUTHORIZED,
    CAPTURED,
    NOON,
    failed,
    refund_started,
    started,
    usd,
)
from tests.order_logs import NAMES, PRICE, USERS, Expected, any_log, history, placed, positioned, told
from tests.recovery_side import migrated, on

TABLES = orders.MODEL.tables
INDEXES = "SELECT tablename, indexname FROM pg_indexes WHERE tablename = ANY(%s) ORDER BY indexname"
A = NAMES[0]


@pytest.fixture
def side(database_url: str) -> Iterator[BillingSide]:
    migrate(database_url)
    with Ledger(database_url) as ledger, psycopg.connect(database_url, autocommit=True) as conn:
        yield BillingSide(database_url, ledger, conn)


# --- In the log --------------------------------------------------------------------------------------------------


def logged(side: BillingSide, log: Sequence[Envelope]) -> None:
    for envelope in log:
        side.log(envelope.stream, envelope.fact)


def rebuilt(side: BillingSide) -> Outcome:
    return Rebuild(orders.MODEL, side.read, side.url, "test").run(lambda *_: None)


@pytest.mark.parametrize("limit", [1, 3, 1_000])
def test_a_rebuild_equals_what_served_and_serves_on(side: BillingSide, limit: int) -> None:
    random = Random(limit)
    logged(side, any_log(random))
    logged(side, history(random, uuid4(), placed("order-4"), OrderCancelled("order-4", 1)))
    side.captured(order="order-4")
    side.catch_up(orders.MODEL, limit=limit)
    before, indexes = side.all_rows(*TABLES), side.conn.execute(INDEXES, (list(TABLES),)).fetchall()
    assert all(before), "each of the tables has something to compare"
    for _ in range(2):
        outcome = rebuilt(side)
        assert (outcome.switched, outcome.differing, outcome.rows) == (True, 0, sum(map(len, before)))
        assert side.all_rows(*TABLES) == before
        assert side.conn.execute(INDEXES, (list(TABLES),)).fetchall() == indexes
    side.conn.execute("UPDATE order_payments SET due = NULL WHERE order_id = 'order-4'")
    assert rebuilt(side).differing == 1, "a wrong row is told"


def test_a_log_with_orders_parks_nothing_anywhere_and_reads_as_any_other(side: BillingSide) -> None:
    payment = side.captured(order=A)
    stream = side.log(uuid4(), placed(), OrderPaid(A, payment, usd(PRICE), "ch_1"), OrderCancelled(A, 1))
    side.log(uuid4(), KeyClaimed(A))
    side.catch_up(*READ_MODELS, limit=2)
    assert side.parked() == []
    assert {side.checkpoint(model.name) for model in READ_MODELS} == {side.end}
    assert side.rows().keys() == {payment}
    assert told(side.conn)[A] == Expected(USERS[0], "cancelled", NOON, {payment: "return"})
    for table in ("open_operations", "customers", "customer_names", "subscriptions"):
        assert side.one(f"SELECT count(*) FROM {table}") == 0
    envelopes = [row for row in side.read(0, 100) if isinstance(row, Envelope)]
    assert len(envelopes) == side.end
    told_of = [fact_view(envelope, personal=False) for envelope in envelopes if envelope.stream == stream]
    assert [view.type for view in told_of] == ["OrderPlaced", "OrderPaid", "OrderCancelled"]
    assert told_of[1].data == {
        "order": A,
        "payment": str(payment),
        "amount": PRICE,
        "currency": "usd",
        "charge": "ch_1",
    }
    keys = [message(envelope).key for envelope in envelopes]
    assert keys.count(str(stream).encode()) == 3
    assert cinema_messages(envelopes, lambda _: []) == []
    verified = CliRunner().invoke(main, ["audit", "verify", "--database-url", side.url])
    assert (verified.exit_code, "0 broken" in verified.stdout) == (0, True), verified.output


def test_an_order_that_cannot_be_folded_is_set_aside_alone_and_comes_back(
    side: BillingSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    def evolve_most(order: domain_order.Order | None, fact: OrderFact) -> domain_order.Order:
        assert not isinstance(fact, OrderCancelled)
        return domain_order.evolve(order, fact)

    aside = side.log(order_stream(A), placed(), OrderCancelled(A, 1))
    payment = side.append(*CAPTURED, stream=order_payment(A), order=A)
    side.log(uuid4(), placed(NAMES[1]))
    with monkeypatch.context() as patched:
        patched.setattr(orders, "ANNOUNCED", Kind(ANNOUNCED.facts, evolve_most, ANNOUNCED.kept))
        side.catch_up(orders.MODEL)
    assert [(parked.projection, parked.stream) for parked in side.parked()] == [(orders.NAME, aside)]
    assert told(side.conn)[A].payments == {payment: "record"}, "as it stood before what does not fit"
    assert told(side.conn)[NAMES[1]].status == "created"
    assert side.retry(aside, orders.MODEL)
    assert (told(side.conn)[A].status, told(side.conn)[A].payments) == ("cancelled", {payment: "return"})


def test_an_existing_read_model_becomes_what_would_be_built_anew(
    database_url: str,
) -> None:
    """The tables as they were before orders were announced, with rows and an unfinished rebuild."""
    migrate(database_url)
    with Ledger(database_url) as ledger, psycopg.connect(database_url, autocommit=True) as conn:
        side = BillingSide(database_url, ledger, conn)
        for name in NAMES:
            side.append(*CAPTURED, stream=order_payment(name), order=name)
        side.append(*AUTHORIZED)
        side.catch_up(orders.MODEL)
        conn.execute(
            "DROP TABLE announced_orders; ALTER TABLE orders DROP user_id, DROP status; "
            "ALTER TABLE order_payments DROP due; DELETE FROM schema_migrations WHERE name = '0010_orders.sql';"
            "CREATE TABLE orders__next (LIKE orders); INSERT INTO checkpoints VALUES ('orders__next', 3)"
        )
        assert migrate(database_url) == ["0010_orders.sql"]
        side.log(order_stream(A), placed())
        side.catch_up(orders.MODEL)
        assert told(conn)[A].payments == {order_payment(A): "record"}
        outcome = rebuilt(side)
        assert (outcome.switched, outcome.differing) == (True, 0)


def test_what_was_tried_last_comes_last(side: BillingSide) -> None:
    payments = [side.captured(order=name) for name in NAMES]
    for name in NAMES:
        side.log(uuid4(), placed(name), OrderCancelled(name, 1))
    side.catch_up(orders.MODEL)
    assert [at.id for at in side.ask(lambda conn: orders.owed(conn, 10))] == payments
    side.append(refund_started(), failed("re_1", "refund"), stream=payments[0])
    side.catch_up(orders.MODEL)
    assert [at.id for at in side.ask(lambda conn: orders.owed(conn, 2))] == payments[1:]
    assert [at.id for at in side.ask(lambda conn: orders.owed(conn, 10))] == [*payments[1:], payments[0]]
    assert side.ask(lambda conn: orders.unrecorded(conn, 10)) == []


# --- Indexes -----------------------------------------------------------------------------------------------------

QUESTIONS: dict[str, tuple[Callable[[AsyncConnection[Any]], Awaitable[Sequence[object]]], int]] = {
    "orders_by_user": (lambda conn: orders.newest(conn, Wanted(user="user-7"), 100), 8),
    "orders_by_status": (lambda conn: orders.newest(conn, Wanted(status="cancelled"), 100), 4),
    "orders_newest": (lambda conn: orders.newest(conn, Wanted(), 10), 10),
    "order_payments_by_order": (lambda conn: orders.newest(conn, Wanted(user="user-7"), 10), 8),
    "announced_orders_by_order": (lambda conn: orders.newest(conn, Wanted(user="user-7"), 10), 8),
    "order_payments_due": (lambda conn: orders.owed(conn, 10), 4),
}


@pytest.fixture(scope="module")
def server(postgres: Postgres) -> Iterator[str]:
    with migrated(postgres) as url:
        yield url


@pytest.fixture(scope="module")
def many(server: str) -> None:
    """Two thousand orders of 250 users, paid; of four that were cancelled something is due."""
    log: list[Envelope] = []
    for number in range(2_000):
        name, payment = f"many-{number:04}", uuid4()
        paid = OrderPaid(name, payment, usd(PRICE), "ch_1")
        over = () if number % 500 else (OrderCancelled(name, 1),)
        log += decided(uuid4(), placed(name, f"user-{number % 250}"), paid, *over)
        log += decided(payment, replace(started(), order=name), *CAPTURED[1:])
    with psycopg.connect(server, autocommit=True) as conn:
        orders.apply(conn, positioned(log))
        for table in TABLES:
            conn.execute(SQL("ANALYZE {}").format(Identifier(table)))


@pytest.mark.parametrize("index", QUESTIONS)
@pytest.mark.usefixtures("many")
def test_each_question_is_answered_by_an_index(server: str, index: str) -> None:
    ask, count = QUESTIONS[index]

    async def used(conn: AsyncConnection[Any]) -> int:
        await conn.execute("SELECT pg_stat_force_next_flush()")
        await conn.execute("SELECT pg_stat_clear_snapshot()")
        found = await conn.execute("SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = %s", (index,))
        row = await found.fetchone()
        return int(row[0]) if row else -1

    async def run(conn: AsyncConnection[Any]) -> None:
        before = await used(conn)
        assert len(await ask(conn)) == count
        assert await used(conn) > before >= 0

    on(server, run)
