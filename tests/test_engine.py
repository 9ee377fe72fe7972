"""The engine: one loop that follows the log, whoever dies; two never work one projection; batches have bounds."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta, timezone
from itertools import count
from threading import Event
from uuid import uuid4

import psycopg
import pytest

from application.event_store import Ledger
from domain.envelope import Envelope
from interface import bootstrap
from interface.migrations import migrate
from projections import arrays, orders, payment_status
from projections import engine as engine_module
from projections.engine import Away, Deposed, Engine, Projection, take_over
from projections.parking import Unreadable
from tests.given import AUTHORIZED, DECLINED, NOON, captured, refunded, started
from tests.processes import eventually
from tests.read_side import ReadSide, running

NAME = payment_status.NAME
WAITING = (
    "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'payledger %%' AND wait_event_type = 'Lock'"
)
SETTINGS = {
    "STRIPE_API_KEY": "sk_test_none",
    "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
    "JWT_SECRET_KEY": "0" * 64,
    "STRIPE_WEBHOOK_SECRET": "whsec_tests",
    "ENCRYPTION_KEY": "0" * 64,
}


@pytest.fixture
def side(database_url: str) -> Iterator[ReadSide]:
    migrate(database_url)
    with Ledger(database_url) as ledger, psycopg.connect(database_url, autocommit=True) as conn:
        yield ReadSide(database_url, ledger, conn)


# --- Folding -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 1_000])
def test_however_the_log_is_cut_into_batches_the_rows_are_the_same(side: ReadSide, limit: int) -> None:
    busy = side.append(*AUTHORIZED, order="order_1")
    for number in range(4):
        side.captured(order=f"order_{number % 2}" if number else None)
        side.append(*DECLINED)
    side.append(*captured(), stream=busy)
    side.append(*refunded(), stream=busy)
    again = side.append(*DECLINED, order="order_9")
    side.append(started("auth_2", attempt=2), stream=again)
    side.seconds = count(-60)  # another process, whose clock is slow
    side.captured(order="order_1")
    side.catch_up(payment_status.MODEL, orders.MODEL, limit=limit)
    assert side.rows() == side.folded()
    whole = side.all_rows(NAME, orders.PAYMENTS, orders.NAME)
    side.conn.execute("TRUNCATE payment_status, order_payments, orders, checkpoints")
    side.catch_up(payment_status.MODEL, orders.MODEL)
    assert side.all_rows(NAME, orders.PAYMENTS, orders.NAME) == whole


def test_reading_ahead_while_writing_skips_nothing(side: ReadSide, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "FULL_ENOUGH", 3)
    for _ in range(20):
        side.captured()
    side.catch_up(limit=3)
    assert side.rows() == side.folded()


def test_a_batch_that_was_cut_short_is_read_again_from_there(side: ReadSide, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "FULL_ENOUGH", 1)
    for _ in range(3):
        side.captured()
    engine = side.engine(read=lambda after, _: side.read(after, 8))
    assert take_over(side.conn, NAME)
    engine.step(side.conn, upto=3)
    assert side.checkpoint() == 3
    while engine.step(side.conn):
        pass
    assert side.rows() == side.folded()


def test_facts_that_were_applied_before_change_nothing(side: ReadSide) -> None:
    for _ in range(3):
        side.captured(order="order_1")
    side.catch_up(payment_status.MODEL, orders.MODEL)
    side.conn.execute("UPDATE checkpoints SET position = 0")
    for model in (payment_status.MODEL, orders.MODEL):
        side.engine(model, lambda after, _: side.read(after, 3)).step(side.conn)
    assert side.rows() == side.rows(orders.PAYMENTS) == side.folded()


def test_a_batch_ends_where_its_rows_hold_too_much(side: ReadSide, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(10):
        side.captured()
    size = side.one("SELECT max(length(state)) FROM ledger_events")
    monkeypatch.setattr(bootstrap, "MAX_BATCH_BYTES", 5 * size)
    found: list[Envelope | Unreadable] = []
    while batch := side.read(found[-1].position or 0 if found else 0, 1_000):
        assert len(batch) < 15
        found.extend(batch)
    assert [row.position for row in found] == list(range(1, side.end + 1))


def test_a_row_larger_than_a_batch_is_read_alone(side: ReadSide, monkeypatch: pytest.MonkeyPatch) -> None:
    side.captured()
    monkeypatch.setattr(bootstrap, "MAX_BATCH_BYTES", 1)
    assert len(side.read(0, 1_000)) == 1
    side.catch_up()
    assert side.rows() == side.folded()


def test_what_is_read_never_passes_a_writer_in_flight(side: ReadSide) -> None:
    with psycopg.connect(side.url) as writer:
        writer.execute(
            "INSERT INTO ledger_events (originator_id, originator_version, topic, state) VALUES (%s, 1, 'T', '{}')",
            (uuid4(),),
        )
        side.captured()
        assert side.read(0, 1_000) == []
        writer.commit()
    assert [row.position for row in side.read(0, 1_000)] == list(range(1, side.end + 1))


def test_reading_goes_on_after_its_connections_were_cut(side: ReadSide) -> None:
    side.captured()
    for _ in range(3):
        assert len(side.read(0, 1_000)) == side.end
        side.conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def test_engines_beside_each_other_share_what_one_of_them_read(side: ReadSide, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def read(after: int, limit: int) -> Sequence[Envelope | Unreadable]:
        asked.append(after)
        return side.read(after, limit)

    share = bootstrap.shared(read)
    assert [list(share(0, 10)) for _ in range(2)] == [[], []], "that there is nothing is not kept"
    side.captured()
    whole, again = share(0, 10), share(0, 10)
    assert again is whole
    assert len(share(0, 2)) == 2, "who asks for less gets less"
    assert [row.position for row in share(2, 10)] == [3, 4]
    assert asked == [0, 0, 0, 0, 2]
    monkeypatch.setattr(bootstrap, "SHARED_S", 0.0)
    assert share(2, 10) == share(2, 10)
    assert asked[5:] == [2, 2], "what was read a while ago is read anew"


def test_small_batches_keep_their_distance_and_the_first_does_not_wait(side: ReadSide) -> None:
    applied: list[int] = []

    def apply(_: object, facts: Sequence[Envelope]) -> None:
        applied.append(len(facts))

    engine = side.engine(Projection(NAME, apply, pace_s=60))
    with running(engine):
        side.captured()
        engine.wake.set()
        eventually(lambda: applied == [4])
        for _ in range(2):
            side.captured()
            engine.wake.set()
        time.sleep(0.2)
        assert applied == [4]
    patient = side.engine(Projection(NAME, apply, pace_s=60))
    with running(patient):
        eventually(lambda: applied == [4, 8])


def test_a_column_arrives_as_it_was_packed(side: ReadSide) -> None:
    moments = [NOON, NOON.replace(microsecond=1), datetime(1969, 7, 20, 20, 17, 40, 999_999, tzinfo=UTC)]
    elsewhere = NOON.astimezone(timezone(timedelta(hours=-5)))
    for packed, kind, values in (
        (arrays.uuids(ids := [uuid4(), uuid4()]), "uuid[]", ids),
        (arrays.bigints([0, -1, 2**62]), "bigint[]", [0, -1, 2**62]),
        (arrays.moments([*moments, elsewhere]), "timestamptz[]", [*moments, NOON]),
        (arrays.texts(["", "naïve 🎭", None]), "text[]", ["", "naïve 🎭", None]),
        (arrays.blobs([b"", b"\x00\xff"]), "bytea[]", [b"", b"\x00\xff"]),
        (arrays.texts([]), "text[]", []),
    ):
        assert side.one(f"SELECT %b::{kind}", packed) == values


# --- One worker --------------------------------------------------------------------------------------------------


def test_a_worker_killed_in_the_middle_of_a_batch_is_followed_by_another(side: ReadSide) -> None:
    for _ in range(50):
        side.captured()
    command = [sys.executable, "-m", "interface.cli", "project"]
    environment = os.environ | SETTINGS | {"DATABASE_URL": side.url}
    with (
        psycopg.connect(side.url) as holder,
        subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as worker,
    ):
        try:
            holder.execute("LOCK TABLE payment_status IN SHARE MODE")
            eventually(lambda: side.one(WAITING) == 1, 20)
        finally:
            worker.kill()
        with running(side.engine()):
            assert side.rows() == {}
            holder.rollback()
            eventually(lambda: side.checkpoint() == side.end)
    assert side.rows() == side.folded()


def test_the_next_worker_takes_over_as_soon_as_the_session_of_the_first_ends(side: ReadSide) -> None:
    first, second = side.engine(), Engine(payment_status.MODEL.projection(), side.read, side.url, "second")
    holds = "SELECT application_name FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE classid = %s AND granted"
    with psycopg.connect(side.url, autocommit=True, application_name="first") as conn:
        assert take_over(conn, NAME)
        with running(second):
            eventually(
                lambda: side.one("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted") == 1
            )
            assert side.one(holds, engine_module.LOCK_SPACE) == "first"
            side.captured()
            first.step(conn)
            side.one("SELECT pg_terminate_backend(%s)", conn.info.backend_pid)
            side.captured()
            eventually(lambda: side.checkpoint() == side.end)
            assert side.one(holds, engine_module.LOCK_SPACE) == "second"
    assert side.rows() == side.folded()


def test_a_deposed_worker_writes_nothing(side: ReadSide) -> None:
    side.captured()
    applied: list[Sequence[Envelope]] = []

    def overtaken(after: int, limit: int) -> Sequence[Envelope | Unreadable]:
        batch = side.read(after, limit)
        side.catch_up()  # the lock was lost, somebody else works
        return batch

    deposed = side.engine(Projection(NAME, lambda _, facts: applied.append(facts)), overtaken)
    with pytest.raises(Deposed):
        deposed.step(side.conn)
    assert applied == []
    assert (side.checkpoint(), side.rows()) == (side.end, side.folded())


def test_a_worker_that_finds_itself_deposed_begins_where_the_other_is(side: ReadSide) -> None:
    side.captured()
    applied: list[int] = []

    def apply(_: object, facts: Sequence[Envelope]) -> None:
        applied.extend(fact.position or 0 for fact in facts)

    engine = side.engine(Projection(NAME, apply))
    assert take_over(side.conn, NAME)
    engine.step(side.conn)
    side.captured()
    side.conn.execute("UPDATE checkpoints SET position = 8")
    side.captured()
    with pytest.raises(Deposed):
        engine.step(side.conn)
    engine.step(side.conn)
    assert applied == [1, 2, 3, 4, 9, 10, 11, 12]


def test_what_is_no_fault_of_the_facts_is_tried_again_later_and_not_at_once(side: ReadSide) -> None:
    side.captured()
    tried: list[int] = []

    def away(_: object, facts: Sequence[Envelope]) -> None:
        tried.append(len(facts))
        raise Away

    assert take_over(side.conn, NAME)
    engine = side.engine(Projection(NAME, away))
    with pytest.raises(Away):
        engine.step(side.conn)
    assert (tried, side.checkpoint(), side.parked()) == ([4], 0, [])


def test_an_engine_goes_on_after_its_connection_was_cut(side: ReadSide) -> None:
    engine = side.engine()
    with running(engine):
        for _ in range(5):
            side.captured()
            engine.wake.set()
            eventually(lambda: side.checkpoint() == side.end)
            side.conn.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'payledger'"
                " AND pid IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory')"
            )
    assert side.rows() == side.folded()


def test_an_engine_that_finds_no_tables_works_once_they_are_there(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "ALARM_S", 0.05)
    reads = Event()

    def nothing(_: int, __: int) -> Sequence[Envelope | Unreadable]:
        reads.set()
        return []

    with running(Engine(payment_status.MODEL.projection(), nothing, database_url)):
        assert not reads.wait(0.2)
        migrate(database_url)
        assert reads.wait(20)
