"""A transaction that writes to the log and does not end: readers wait, writers go on, and somebody says whose it is."""

import asyncio
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from application.event_store import Ledger
from application.horizon import STALLED_AFTER_S, Blocker, Lookout, Sight, Stall
from interface.bootstrap import recall
from interface.log_watch import SAY_EVERY_S, LogWatch
from interface.migrations import migrate
from interface.sandbox.postgres import Postgres
from tests.given import AUTHORIZED
from tests.test_event_store import INSERT, append, read_all, writer_in_flight

PATIENCE_S = 10.0
LOCK_ONLY = "LOCK TABLE ledger_events IN ROW EXCLUSIVE MODE"


@pytest.fixture
def conn(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True) as conn:
        yield conn


@pytest.fixture
def lookout(ledger: Ledger) -> Lookout:
    return Lookout(ledger.recorder.horizon)


def pids(sight: Sight) -> list[int | None]:
    return [blocker.pid for blocker in sight.stall.blockers] if sight.stall else []


# --- What is seen ------------------------------------------------------------------------------------------------


def test_a_stall_names_the_backend_that_holds_readers_back_and_for_how_long(
    ledger: Ledger, lookout: Lookout, conn: psycopg.Connection[Any], database_url: str
) -> None:
    append(ledger)
    assert lookout.look(conn, 100.0) == Sight(1, 1)
    with writer_in_flight(database_url) as writer:
        append(ledger)
        assert lookout.look(conn, 101.0) == Sight(3, 1), "a writer that has only begun is no stall"
        sight = lookout.look(conn, 107.0)
        assert sight.stall is not None
        (blocker,) = sight.stall.blockers
        assert (sight.drawn, sight.safe, sight.stall.seconds) == (3, 1, 7.0)
        assert (blocker.pid, blocker.application) == (writer.info.backend_pid, "in flight")
        assert blocker.began is not None
        assert abs(datetime.now(UTC) - blocker.began.replace(tzinfo=UTC)) < timedelta(minutes=1)
        assert f"stalled for 7 seconds by backend pid {writer.info.backend_pid} (in flight, " in str(sight.stall)


def test_writers_go_on_during_a_stall_and_readers_when_it_has_ended(
    ledger: Ledger, lookout: Lookout, conn: psycopg.Connection[Any], database_url: str
) -> None:
    append(ledger)
    assert read_all(ledger) == [1]
    with writer_in_flight(database_url) as writer:
        lookout.look(conn, 0.0)
        for _ in range(20):
            append(ledger, *AUTHORIZED)
        assert lookout.look(conn, 60.0).stall is not None
        assert read_all(ledger) == [1]
        writer.commit()
        assert lookout.look(conn, 61.0) == Sight(42, 42)
        assert read_all(ledger) == list(range(1, 43))


def test_a_stall_ends_when_its_backend_is_ended(
    ledger: Ledger, lookout: Lookout, conn: psycopg.Connection[Any], database_url: str
) -> None:
    append(ledger)
    writer = psycopg.connect(database_url)
    writer.execute(INSERT, (uuid4(),))
    lookout.look(conn, 0.0)
    (pid,) = pids(lookout.look(conn, 60.0))
    assert pid == writer.info.backend_pid
    assert conn.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,)).fetchone() == (True,)
    assert lookout.look(conn, 61.0).stall is None
    writer.close()


def test_all_that_hold_readers_back_are_named_and_the_oldest_first(
    ledger: Ledger, lookout: Lookout, conn: psycopg.Connection[Any], database_url: str
) -> None:
    append(ledger)
    with writer_in_flight(database_url) as first, writer_in_flight(database_url) as second:
        lookout.look(conn, 0.0)
        named = pids(lookout.look(conn, 60.0))
        with writer_in_flight(database_url):  # it came later: nobody waits for it yet
            assert named == pids(lookout.look(conn, 61.0)) == [first.info.backend_pid, second.info.backend_pid]


def test_one_writer_after_another_is_no_stall_however_long_it_goes_on(
    ledger: Ledger, lookout: Lookout, conn: psycopg.Connection[Any], database_url: str
) -> None:
    append(ledger)
    with writer_in_flight(database_url) as even, writer_in_flight(database_url) as odd:
        for turn in range(20):
            sight = lookout.look(conn, turn * STALLED_AFTER_S / 4)
            assert sight.drawn > sight.safe
            assert sight.stall is None
            writer = (even, odd)[turn % 2]
            writer.commit()
            writer.execute(INSERT, (uuid4(),))


def test_a_lock_that_keeps_nobody_from_reading_anything_is_no_stall(
    ledger: Ledger, lookout: Lookout, conn: psycopg.Connection[Any], database_url: str
) -> None:
    append(ledger)
    assert lookout.look(conn, 0.0) == Sight(1, 1)
    with writer_in_flight(database_url, LOCK_ONLY):
        assert lookout.look(conn, 60.0) == Sight(1, 1)
        append(ledger)
        assert lookout.look(conn, 61.0) == Sight(2, 1), "since now it does"
        assert lookout.look(conn, 61.0 + STALLED_AFTER_S).stall is not None


def test_a_prepared_transaction_has_no_backend_and_is_named_all_the_same() -> None:
    assert "pg_prepared_xacts" in str(Stall(3.0, (Blocker(None, None, None),)))


# --- What is said ------------------------------------------------------------------------------------------------


class Clock:
    now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


@contextmanager
def stall_lines(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    lines: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    logger, handler = logging.getLogger("interface.log_watch"), Collect()
    logger.addHandler(handler)
    with caplog.at_level(logging.INFO, logger.name):
        yield lines
    logger.removeHandler(handler)


async def soon(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110  the watch tells nobody that it has looked
            await asyncio.sleep(0.01)


def stalled_s(watch: LogWatch) -> float | None:
    return watch.sight.stall.seconds if watch.sight.stall else None


def test_a_stall_is_said_once_and_every_minute_while_it_lasts_and_so_is_its_end(
    ledger: Ledger, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    append(ledger)
    clock = Clock()

    async def watched(lines: list[str]) -> None:
        watch = LogWatch(database_url, clock)
        watch.open()
        try:
            with watch.following(), writer_in_flight(database_url) as writer:
                await soon(lambda: watch.sight.drawn == 2)
                for after_s, said in ((5.0, 1), (SAY_EVERY_S, 1), (SAY_EVERY_S + 5, 2)):
                    clock.now_s = Clock.now_s + after_s
                    await soon(lambda after_s=after_s: stalled_s(watch) == after_s)  # type: ignore[misc]
                    assert len(lines) == said
                assert re.search(rf"stalled for 5 seconds by backend pid {writer.info.backend_pid} ", lines[0])
                writer.commit()
                await soon(lambda: stalled_s(watch) is None)
                assert "moves again" in lines[-1]
        finally:
            await watch.close()

    with stall_lines(caplog) as lines:
        asyncio.run(watched(lines))
    assert len(lines) == 3


def test_the_watch_survives_the_loss_of_its_connection(
    ledger: Ledger, database_url: str, postgres: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    async def watched() -> None:
        watch = LogWatch(database_url)
        watch.open()
        try:
            with watch.following():
                for drawn in (1, 2):
                    append(ledger)
                    await soon(lambda drawn=drawn: watch.sight.safe == drawn)  # type: ignore[misc]
                    with psycopg.connect(postgres.url, autocommit=True) as admin:
                        admin.execute(
                            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                            " WHERE application_name = 'payledger log watch'"
                        )
        finally:
            await watch.close()

    with stall_lines(caplog) as lines:
        asyncio.run(watched())
    assert any("lost its database" in line for line in lines)


def test_a_process_started_during_a_stall_reads_what_others_passed_before_it(database_url: str) -> None:
    migrate(database_url)
    with Ledger(database_url) as ledger, Ledger(database_url) as latecomer:
        (first,) = append(ledger)
        with writer_in_flight(database_url), psycopg.connect(database_url, autocommit=True) as conn:
            append(ledger)
            recall(latecomer, conn)
            assert read_all(latecomer) == [], "nobody is known to have read it"
            conn.execute("INSERT INTO checkpoints (projection, position) VALUES ('one', %s)", (first,))
            recall(latecomer, conn)
            assert read_all(latecomer) == [first], "and nothing behind the writer in flight"
