"""A read model built anew beside the one that serves: compared with it, switched at once, resumed after any end."""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from random import Random
from threading import Event, Thread
from typing import Any, Self
from uuid import UUID

import psycopg
import pytest
from click.testing import CliRunner, Result

from application.event_store import Ledger
from domain.envelope import Envelope
from domain.payment import Payment, evolve
from domain.payment_facts import Captured, PaymentFact
from interface.cli import main
from interface.migrations import migrate
from projections import orders, payment_rows, payment_status, rebuild
from projections.engine import Engine, ReadModel, checkpoint, take_over
from projections.parking import Unreadable
from projections.payment_status import Wanted
from projections.rebuild import NEXT, OLD, Outcome, Rebuild, Refused, drop_old
from tests.given import AUTHORIZED, CAPTURED, captured, started
from tests.processes import eventually
from tests.read_side import ReadSide, running

NAME = payment_status.NAME
INDEXES = "SELECT indexname, replace(indexdef, %s, '') FROM pg_indexes WHERE tablename = %s ORDER BY indexname"
# A rebuild in a process of its own, few facts at a time, that waits to be killed before it reads past a position.
SLOW_REBUILD = """
import sys, time
from application.event_store import Ledger
from interface.bootstrap import log_reader
from projections import payment_status, rebuild
rebuild.NEAR = 0
url, stop = sys.argv[1], int(sys.argv[2])
with Ledger(url) as ledger:
    read = log_reader(ledger)
    def slowly(after, limit):
        time.sleep(60 if after >= stop else 0)
        return read(after, min(10, stop - after))
    rebuild.Rebuild(payment_status.MODEL, slowly, url, "killed").run(lambda *_: None)
"""
GONE = "SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name LIKE 'killed%%'"


@pytest.fixture
def side(database_url: str) -> Iterator[ReadSide]:
    migrate(database_url)
    with Ledger(database_url) as ledger, psycopg.connect(database_url, autocommit=True) as conn:
        yield ReadSide(database_url, ledger, conn)


def rebuilt(
    side: ReadSide, model: ReadModel = payment_status.MODEL, *, accept: bool = False, anew: bool = False
) -> Outcome:
    building = Rebuild(model, side.read, side.url, "test")
    return building.run(lambda *_: None, accept_differences=accept, anew=anew)


# --- Under load --------------------------------------------------------------------------------------------------


class Load:
    """Payments that begin and go on all the while, and queries as the API asks them."""

    def __init__(self, side: ReadSide) -> None:
        self._side = side
        self._stopping = Event()
        self.engines: Sequence[Engine] = ()
        self.answers = 0
        self.errors: list[BaseException] = []
        self._threads = [Thread(target=self._append), Thread(target=lambda: asyncio.run(self._query()))]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(30)

    def go_on(self) -> None:
        """Return when some more queries have been answered."""
        wanted = self.answers + 5
        eventually(lambda: bool(self.errors) or self.answers >= wanted)

    def _append(self) -> None:
        random, open_payments = Random(1), list[UUID]()
        while not self._stopping.is_set():
            if open_payments and random.random() < 0.5:
                self._side.append(*captured(), stream=open_payments.pop(random.randrange(len(open_payments))))
            else:
                open_payments.append(self._side.append(*AUTHORIZED, order=random.choice([None, "order_1", "order_2"])))
            for engine in self.engines:
                engine.wake.set()

    async def _query(self) -> None:
        async with await psycopg.AsyncConnection.connect(self._side.url, autocommit=True) as conn:
            try:
                while not self._stopping.is_set():
                    (newest,) = await payment_status.newest(conn, Wanted(), 1)
                    assert await payment_status.find(conn, newest.id) is not None
                    self.answers += 1
            except BaseException as error:  # noqa: BLE001  the test tells it
                self.errors.append(error)


@pytest.mark.parametrize("model", [payment_status.MODEL, orders.MODEL], ids=lambda model: model.name)
def test_a_rebuild_under_load_equals_what_serves_and_nobody_notices_the_switch(
    side: ReadSide, model: ReadModel
) -> None:
    for _ in range(50):
        side.captured(order="order_0")
    side.catch_up(payment_status.MODEL, orders.MODEL)
    engines = [side.engine(payment_status.MODEL), side.engine(orders.MODEL)]
    with running(*engines), Load(side) as load:
        load.engines = engines
        for _ in range(2):
            outcome = rebuilt(side, model)
            load.go_on()
            assert (outcome.switched, outcome.differing, outcome.parked) == (True, 0, 0)
            assert outcome.position > 200
    side.catch_up(payment_status.MODEL, orders.MODEL)
    assert load.errors == []
    assert side.rows() == side.folded()
    with_order = {stream: row for stream, row in side.folded().items() if row[1].order}
    assert side.rows(orders.PAYMENTS) == with_order


def test_the_switch_keeps_indexes_checkpoint_and_what_served_before(side: ReadSide) -> None:
    side.captured()
    side.catch_up()
    before, rows = side.conn.execute(INDEXES, (NAME, NAME)).fetchall(), side.all_rows(NAME)
    for _ in range(2):
        assert rebuilt(side).switched
        assert side.conn.execute(INDEXES, (NAME, NAME)).fetchall() == before
        assert side.all_rows(NAME, NAME + OLD) == rows * 2
        assert side.conn.execute("SELECT projection, position FROM checkpoints").fetchall() == [(NAME, side.end)]
    assert drop_old(side.conn, payment_status.MODEL) == [NAME + OLD]
    assert drop_old(side.conn, payment_status.MODEL) == []


def test_what_serves_is_brought_up_when_nobody_works_it(side: ReadSide) -> None:
    side.captured()
    assert rebuilt(side).switched
    assert side.rows() == side.folded()


def test_what_serves_does_not_move_while_it_is_compared(side: ReadSide, monkeypatch: pytest.MonkeyPatch) -> None:
    side.captured()
    side.catch_up()
    engine, compared = side.engine(), Rebuild._differences

    def with_more(building: Rebuild, conn: psycopg.Connection[Any], table: str) -> tuple[int, int, list[str]]:
        side.captured()
        engine.wake.set()
        blocked = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        eventually(lambda: side.one(blocked) == 1)
        return compared(building, conn, table)

    with running(engine):
        monkeypatch.setattr(Rebuild, "_differences", with_more)
        assert rebuilt(side).differing == 0
        eventually(lambda: side.checkpoint() == side.end)
    assert side.rows() == side.folded()


# --- Resuming ----------------------------------------------------------------------------------------------------


def killed(side: ReadSide, stop: int, when: Callable[[], bool]) -> None:
    """Rebuild up to a position in a process of its own, and `kill -9` it at some moment."""
    with subprocess.Popen([sys.executable, "-c", SLOW_REBUILD, side.url, str(stop)]) as process:
        try:
            eventually(when, 30)
        finally:
            process.kill()
    eventually(lambda: bool(side.one(GONE)))


def test_a_rebuild_killed_at_any_moment_goes_on_from_there(side: ReadSide) -> None:
    for _ in range(60):
        side.captured()
    side.catch_up()
    first, second = sorted(Random().sample(range(11, side.end - 11), 2))
    killed(side, first, lambda: side.checkpoint(NAME + NEXT) == first)
    with psycopg.connect(side.url) as holder:  # the next is killed in the middle of a batch
        holder.execute("LOCK TABLE payment_status__next IN SHARE MODE")
        blocked = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'payment_status__next'::regclass"
        with subprocess.Popen([sys.executable, "-c", SLOW_REBUILD, side.url, str(second)]) as process:
            eventually(lambda: side.one(blocked) == 1, 30)
            process.kill()
    eventually(lambda: bool(side.one(GONE)))
    assert side.checkpoint(NAME + NEXT) == first
    killed(side, second, lambda: side.checkpoint(NAME + NEXT) == second)
    begun: list[int] = []

    def read(after: int, limit: int) -> Sequence[Envelope | Unreadable]:
        begun.append(after)
        return side.read(after, limit)

    outcome = Rebuild(payment_status.MODEL, read, side.url, "test").run(lambda *_: None)
    assert (outcome.switched, outcome.differing, begun[0]) == (True, 0, second)
    assert side.rows() == side.folded()


def test_a_rebuild_can_begin_anew(side: ReadSide) -> None:
    stream = side.captured()
    side.catch_up()
    side.conn.execute("CREATE TABLE payment_status__next (LIKE payment_status INCLUDING ALL)")
    side.conn.execute("INSERT INTO checkpoints (projection, position) VALUES (%s, %s)", (NAME + NEXT, side.end))
    assert rebuilt(side).examples == (str(stream),)
    assert rebuilt(side, anew=True).switched
    assert side.rows() == side.folded()


# --- Refusing ----------------------------------------------------------------------------------------------------


def test_a_difference_is_told_and_nothing_is_switched(side: ReadSide) -> None:
    wrong, missing, _ = side.captured(), side.captured(), side.captured()
    side.catch_up()
    side.conn.execute("UPDATE payment_status SET customer = 'somebody else' WHERE id = %s", (wrong,))
    side.conn.execute("DELETE FROM payment_status WHERE id = %s", (missing,))
    outcome = rebuilt(side)
    assert (outcome.switched, outcome.rows, outcome.differing) == (False, 3, 2)
    assert sorted(outcome.examples) == sorted([str(wrong), str(missing)])
    assert missing not in side.rows()
    assert rebuilt(side, accept=True).switched
    assert side.rows() == side.folded()
    assert missing not in side.rows(NAME + OLD)


def test_a_rebuild_by_corrected_code_replaces_what_was_parked(side: ReadSide, monkeypatch: pytest.MonkeyPatch) -> None:
    def evolve_most(payment: Payment | None, fact: PaymentFact) -> Payment:
        assert not isinstance(fact, Captured)
        return evolve(payment, fact)

    with monkeypatch.context() as patched:
        patched.setattr(payment_rows, "evolve", evolve_most)
        side.captured()
        side.catch_up()
        assert len(side.parked()) == 1
    assert rebuilt(side).differing == 1
    assert rebuilt(side, accept=True).switched
    assert (side.parked(), side.rows()) == ([], side.folded())


def test_two_rebuilds_of_one_read_model_are_refused(side: ReadSide) -> None:
    with psycopg.connect(side.url, autocommit=True, application_name="payledger elsewhere:7") as conn:
        assert take_over(conn, NAME + NEXT)
        with pytest.raises(Refused, match="payledger elsewhere:7"):
            rebuilt(side)
        assert rebuilt(side, orders.MODEL).switched


def test_a_reader_who_holds_the_table_too_long_is_waited_for_and_blocks_no_other(side: ReadSide) -> None:
    side.captured()
    side.catch_up()
    refusals: list[str] = []

    def rebuild_refused() -> None:
        with pytest.raises(Refused, match="run this again") as refused:
            rebuilt(side)
        refusals.append(str(refused.value))

    with psycopg.connect(side.url) as reader:
        reader.execute("SELECT count(*) FROM payment_status")
        rebuilding = Thread(target=rebuild_refused)
        rebuilding.start()
        side.conn.execute("SET statement_timeout = '3s'")
        while rebuilding.is_alive():
            assert side.one("SELECT count(*) FROM payment_status") == 1
        reader.execute("SELECT count(*) FROM payment_status")
    assert len(refusals) == 1
    assert rebuilt(side).switched


@pytest.mark.parametrize("suffix", ["", NEXT, OLD])
def test_the_databases_own_cleaning_is_waited_for(side: ReadSide, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    monkeypatch.setattr(rebuild, "SWITCH_LOCK_MS", 1)
    side.captured()
    assert rebuilt(side).switched
    side.conn.execute("CREATE TABLE payment_status__next (LIKE payment_status INCLUDING ALL)")
    outcomes: list[Outcome] = []
    rebuilding = Thread(target=lambda: outcomes.append(rebuilt(side)))
    with psycopg.connect(side.url) as cleaner:
        cleaner.execute(f"LOCK TABLE payment_status{suffix} IN SHARE UPDATE EXCLUSIVE MODE".encode())
        rebuilding.start()
        eventually(lambda: bool(side.one("SELECT count(*) FROM pg_locks WHERE NOT granted")))
    rebuilding.join(20)
    assert [outcome.switched for outcome in outcomes] == [True]


def test_the_rebuild_writes_nothing_but_its_own_tables(side: ReadSide) -> None:
    side.append(*CAPTURED)
    side.append(started())
    side.catch_up(payment_status.MODEL, orders.MODEL)
    others = ("ledger_events", "order_payments", "orders")
    query = (
        "SELECT relname, n_tup_ins, n_tup_upd, n_tup_del FROM pg_stat_user_tables WHERE relname = ANY(%s) ORDER BY 1"
    )

    def written() -> list[Any]:
        side.conn.execute("SELECT pg_stat_force_next_flush()")
        side.conn.execute("SELECT pg_stat_clear_snapshot()")
        return side.conn.execute(query, (list(others),)).fetchall()

    before = written()
    assert rebuilt(side).switched
    assert written() == before


# --- On the command line -----------------------------------------------------------------------------------------


def payledger(side: ReadSide, *args: str) -> Result:
    return CliRunner(env={"DATABASE_URL": side.url, "COLUMNS": "200"}).invoke(main, args)


def test_the_command_line_rebuilds_tells_differences_and_drops_what_is_old(side: ReadSide) -> None:
    stream = side.captured()
    side.catch_up()
    side.conn.execute("UPDATE payment_status SET status = 'failed'")
    refused = payledger(side, "rebuild", NAME)
    assert refused.exit_code == 1
    assert "1 differ" in refused.output
    assert str(stream) in refused.output
    assert payledger(side, "rebuild", NAME, "--accept-differences").exit_code == 0
    assert payledger(side, "rebuild", NAME).exit_code == 0
    assert f"dropped {NAME}{OLD}" in payledger(side, "rebuild", NAME, "--drop-old").output
    assert side.rows() == side.folded()
    assert checkpoint(side.conn, NAME) == side.end
