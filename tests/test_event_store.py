"""The log of facts on a real PostgreSQL: nothing is lost, nothing is stored twice, no reader skips."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Self, cast
from uuid import UUID, uuid4

import psycopg
import pytest
from eventsourcing.persistence import Notification
from psycopg.conninfo import make_conninfo

from application import horizon as horizon_module
from application.event_store import Ledger, StoreUnavailable, StreamMoved
from application.horizon import Horizon
from application.stored_form import UnreadableFact, row_hash
from domain.envelope import NO_PREVIOUS, Envelope
from domain.payment_facts import PaymentFact
from interface.sandbox.postgres import Postgres
from tests.given import AUTHORIZED, CAPTURED, NOON, captured, started
from tests.unreliable_network import UnreliableNetwork

PATIENCE_S = 30.0
ALL = 1_000_000


def envelopes(stream: UUID, *facts: PaymentFact, after: int = 0, actor: str = "cinema") -> list[Envelope]:
    return [
        Envelope(
            stream=stream,
            version=version,
            fact=fact,
            at=NOON,
            actor=actor,
            operation="op_1",
            correlation="request-1",
            causation=None,
            fingerprint=None,
        )
        for version, fact in enumerate(facts, after + 1)
    ]


def append(ledger: Ledger, *facts: PaymentFact) -> list[int]:
    """Append a stream of its own; its positions."""
    stored = ledger.append(envelopes(uuid4(), *(facts or (started(),))), NO_PREVIOUS)
    return [envelope.position for envelope in stored.envelopes if envelope.position is not None]


def positions(rows: Sequence[Notification]) -> list[int]:
    return [row.id for row in rows]


def read_all(ledger: Ledger) -> list[int]:
    return positions(ledger.read(0, ALL))


# --- A stream ----------------------------------------------------------------------------------------------------


def test_what_was_appended_is_loaded_again(ledger: Ledger) -> None:
    stream = uuid4()
    stored = ledger.append(envelopes(stream, *CAPTURED), NO_PREVIOUS)
    assert [envelope.fact for envelope in stored.envelopes] == list(CAPTURED)
    assert [envelope.position for envelope in stored.envelopes] == [1, 2, 3, 4]
    assert ledger.load(stream) == stored


def test_the_log_holds_the_same_facts_as_the_stream(ledger: Ledger) -> None:
    stored = ledger.append(envelopes(uuid4(), *CAPTURED), NO_PREVIOUS)
    assert tuple(map(ledger.envelope, ledger.read(0, ALL))) == stored.envelopes


def test_a_stream_that_does_not_exist_is_empty(ledger: Ledger) -> None:
    loaded = ledger.load(uuid4())
    assert (loaded.envelopes, loaded.tail) == ((), NO_PREVIOUS)


def test_each_row_holds_the_hash_of_the_row_before_it(ledger: Ledger) -> None:
    stream = uuid4()
    first = ledger.append(envelopes(stream, *AUTHORIZED), NO_PREVIOUS)
    last = ledger.append(envelopes(stream, *captured(), after=2), first.tail)

    rows = ledger.read(0, ALL)
    hashes = [NO_PREVIOUS, *map(row_hash, rows)]
    assert [ledger.envelope(row).previous for row in rows] == hashes[:-1]
    assert (first.tail, last.tail) == (hashes[2], hashes[4])
    assert ledger.load(stream).tail == hashes[4]


def test_a_second_writer_of_the_same_version_is_told_and_stores_nothing(ledger: Ledger) -> None:
    stream = uuid4()
    stored = ledger.append(envelopes(stream, *AUTHORIZED), NO_PREVIOUS)
    with pytest.raises(StreamMoved):
        ledger.append(envelopes(stream, *captured(), after=1), stored.tail)
    assert ledger.load(stream) == stored
    assert read_all(ledger) == [1, 2]


def test_several_facts_are_stored_all_or_none(ledger: Ledger) -> None:
    stream = uuid4()
    ledger.append(envelopes(stream, started(), after=2), NO_PREVIOUS)
    with pytest.raises(StreamMoved):  # the third of these is taken
        ledger.append(envelopes(stream, *CAPTURED), NO_PREVIOUS)
    assert [envelope.version for envelope in ledger.load(stream).envelopes] == [3]


def test_facts_of_several_streams_are_stored_all_or_none(ledger: Ledger) -> None:
    mine, theirs, free = uuid4(), uuid4(), uuid4()
    stored = ledger.append_all(
        [(envelopes(mine, *AUTHORIZED), NO_PREVIOUS), (envelopes(theirs, started()), NO_PREVIOUS)]
    )
    assert [ledger.load(mine), ledger.load(theirs)] == stored
    with pytest.raises(StreamMoved):
        ledger.append_all([(envelopes(free, started()), NO_PREVIOUS), (envelopes(theirs, started()), NO_PREVIOUS)])
    assert ledger.load(free).envelopes == ()
    assert len(read_all(ledger)) == len(AUTHORIZED) + 1


def test_nothing_to_append_is_no_conflict(ledger: Ledger) -> None:
    assert ledger.append([], NO_PREVIOUS).envelopes == ()
    assert read_all(ledger) == []


def test_of_writers_that_race_for_a_version_one_wins(ledger: Ledger) -> None:
    writers, rounds = 4, 25
    streams = [uuid4() for _ in range(rounds)]
    ready = threading.Barrier(writers)

    def race(writer: int) -> list[UUID]:
        won = []
        for stream in streams:
            ready.wait(PATIENCE_S)
            try:
                ledger.append(envelopes(stream, *AUTHORIZED, actor=f"writer {writer}"), NO_PREVIOUS)
            except StreamMoved:
                continue
            won.append(stream)
        return won

    with ThreadPoolExecutor(writers) as pool:
        wins = [stream for won in pool.map(race, range(writers)) for stream in won]
    assert sorted(wins) == sorted(streams)
    for stream in streams:
        loaded = ledger.load(stream).envelopes
        assert [envelope.version for envelope in loaded] == [1, 2]
        assert len({envelope.actor for envelope in loaded}) == 1


def test_a_row_that_cannot_be_read_is_told_with_its_position(ledger: Ledger, database_url: str) -> None:
    append(ledger)
    with psycopg.connect(database_url) as vandal:
        vandal.execute("UPDATE ledger_events SET state = 'garbage'")
    (row,) = ledger.read(0, ALL)
    with pytest.raises(UnreadableFact, match="'AuthorizationStarted' at position 1 "):
        ledger.envelope(row)


def test_the_environment_of_the_process_does_not_choose_another_store(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTGRES_ENABLE_DB_FUNCTIONS", "y")
    monkeypatch.setenv("PERSISTENCE_MODULE", "eventsourcing.popo")
    monkeypatch.setenv("POSTGRES_DBNAME", "elsewhere")
    with Ledger(database_url, create_table=True) as ledger:
        assert not ledger.recorder.datastore.enable_db_functions
        assert append(ledger) == [1]


@pytest.mark.parametrize("options", ["", "-c work_mem=8MB"])
def test_no_statement_and_no_lock_is_waited_for_without_end(ledger: Ledger, database_url: str, options: str) -> None:
    del ledger  # it made the table
    with (
        Ledger(make_conninfo(database_url, options=options)) as own,
        own.recorder.datastore.get_connection() as conn,
        psycopg.ClientCursor(conn) as cursor,
    ):
        limits = "SELECT name FROM pg_settings WHERE name IN ('statement_timeout', 'lock_timeout') AND setting = '0'"
        assert cursor.execute(limits).fetchall() == []


# --- A connection that breaks ------------------------------------------------------------------------------------


@pytest.fixture
def network(postgres: Postgres) -> Iterator[UnreliableNetwork]:
    with UnreliableNetwork(postgres.port) as network:
        yield network


@pytest.fixture
def remote(ledger: Ledger, database_url: str, network: UnreliableNetwork) -> Iterator[Ledger]:
    """The same log, reached over a network that loses what it is told to."""
    del ledger  # it made the table
    with Ledger(make_conninfo(database_url, port=network.port)) as remote:
        yield remote


MARK = b"AuthorizationStarted"


def test_an_append_whose_reply_was_lost_ends_with_its_positions_and_not_in_a_conflict_with_itself(
    remote: Ledger, network: UnreliableNetwork, ledger: Ledger
) -> None:
    stream = uuid4()
    network.lose("reply", MARK)
    stored = remote.append(envelopes(stream, *CAPTURED), NO_PREVIOUS)
    assert network.lost == 1, "the reply was to be lost"
    assert [envelope.position for envelope in stored.envelopes] == [1, 2, 3, 4]
    assert ledger.load(stream) == stored


def test_an_append_that_never_arrived_is_sent_again(remote: Ledger, network: UnreliableNetwork, ledger: Ledger) -> None:
    stream = uuid4()
    network.lose("request", MARK, times=2)
    stored = remote.append(envelopes(stream, *CAPTURED), NO_PREVIOUS)
    assert network.lost == 2
    assert ledger.load(stream) == stored


@pytest.mark.parametrize("others", [CAPTURED, CAPTURED[:1], (*CAPTURED[:3], *captured("cap_2")[1:])])
def test_a_conflict_found_on_the_second_try_is_still_a_conflict(
    remote: Ledger, network: UnreliableNetwork, ledger: Ledger, others: tuple[PaymentFact, ...]
) -> None:
    """However much like ours the rows are that another writer stored in the meantime."""
    stream = uuid4()
    theirs = envelopes(stream, *others, actor="somebody else" if others == CAPTURED else "cinema")

    def meanwhile() -> None:
        ledger.append(theirs, NO_PREVIOUS)

    network.lose("request", MARK, meanwhile=meanwhile)
    with pytest.raises(StreamMoved):
        remote.append(envelopes(stream, *CAPTURED), NO_PREVIOUS)
    assert network.lost == 1
    assert [envelope.fact for envelope in ledger.load(stream).envelopes] == list(others)


def test_when_no_reply_ever_comes_it_is_said_that_nobody_knows(
    remote: Ledger, network: UnreliableNetwork, ledger: Ledger
) -> None:
    stream = uuid4()
    network.lose("reply", MARK, times=100)
    with pytest.raises(StoreUnavailable):
        remote.append(envelopes(stream, *AUTHORIZED), NO_PREVIOUS)
    assert len(ledger.load(stream).envelopes) == 2, "it was stored, once"
    assert network.lost < 10, "there is an end to trying"


def test_a_store_that_does_not_answer_is_said_to_be_unavailable(remote: Ledger, network: UnreliableNetwork) -> None:
    remote.load(uuid4())
    network.close()
    remote.recorder.datastore.pool.timeout = 0.1  # seconds, of waiting for a connection
    for ask in (lambda: remote.load(uuid4()), lambda: remote.read(0, 1), lambda: append(remote)):
        with pytest.raises(StoreUnavailable):
            ask()


def test_a_store_that_only_reads_is_said_to_be_unavailable_and_what_it_has_is_read(
    ledger: Ledger, database_url: str
) -> None:
    """A standby that nobody has promoted, or a server whose disk is full."""
    stored = ledger.append(envelopes(uuid4(), *AUTHORIZED), NO_PREVIOUS)
    with Ledger(make_conninfo(database_url, options="-c default_transaction_read_only=on")) as standby:
        with pytest.raises(StoreUnavailable):
            append(standby)
        assert standby.load(stored.envelopes[0].stream) == stored
    assert len(read_all(ledger)) == len(AUTHORIZED)


@pytest.mark.parametrize("ask", ["load", "read", "append"])
def test_connections_that_died_idle_do_not_fail_the_next_caller(ledger: Ledger, database_url: str, ask: str) -> None:
    """The server was restarted, or a firewall forgot about us: it answers again, and so do we."""
    busy = threading.Barrier(6)
    with ThreadPoolExecutor(6) as pool:

        def hold() -> None:
            with ledger.recorder.datastore.get_connection():
                busy.wait(PATIENCE_S)

        for future in [pool.submit(hold) for _ in range(6)]:
            future.result(PATIENCE_S)
    with psycopg.connect(database_url, autocommit=True) as admin:
        ended = admin.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'payledger'"
        ).fetchall()
    assert len(ended) >= 6
    asks: dict[str, Callable[[], object]] = {
        "load": lambda: ledger.load(uuid4()),
        "read": lambda: ledger.read(0, 1),
        "append": lambda: append(ledger),
    }
    asks[ask]()


# --- The log: never past a position that could still be filled ---------------------------------------------------

INSERT = "INSERT INTO ledger_events (originator_id, originator_version, topic, state) VALUES (%s, 1, 'T', '{}')"


@contextmanager
def writer_in_flight(database_url: str, statement: str = INSERT) -> Iterator[psycopg.Connection[Any]]:
    """A transaction that has drawn a position and has not ended; rolled back at the end if still open."""
    with psycopg.connect(database_url, application_name="in flight") as writer:
        writer.execute(statement, (uuid4(),) if "%s" in statement else None)
        yield writer
        writer.rollback()


def test_a_reader_waits_before_a_gap_and_goes_on_when_it_is_filled(ledger: Ledger, database_url: str) -> None:
    append(ledger)
    assert read_all(ledger) == [1]
    with writer_in_flight(database_url) as writer:
        assert append(ledger) == [3]
        assert read_all(ledger) == [1]
        assert positions(ledger.read(1, ALL)) == []
        assert append(ledger) == [4]
        assert read_all(ledger) == [1], "a writer in flight stops the reader, and only the reader"
        writer.commit()
        assert read_all(ledger) == [1, 2, 3, 4]


def test_a_reader_goes_on_past_a_gap_that_never_will_be_filled(ledger: Ledger, database_url: str) -> None:
    append(ledger)
    assert read_all(ledger) == [1]
    with writer_in_flight(database_url) as writer:
        assert append(ledger) == [3]
        assert read_all(ledger) == [1]
        writer.rollback()
        assert read_all(ledger) == [1, 3]


def test_a_refused_append_leaves_a_gap_that_stops_nobody(ledger: Ledger) -> None:
    stream = uuid4()
    ledger.append(envelopes(stream, started()), NO_PREVIOUS)
    with pytest.raises(StreamMoved):
        ledger.append(envelopes(stream, started()), NO_PREVIOUS)
    assert append(ledger) == [3]
    assert read_all(ledger) == [1, 3]


def test_a_reader_that_starts_while_a_writer_is_in_flight_skips_nothing(ledger: Ledger, database_url: str) -> None:
    append(ledger)
    with writer_in_flight(database_url) as writer, Ledger(database_url) as latecomer:
        append(ledger)
        assert 3 not in read_all(latecomer)
        writer.commit()
        assert read_all(latecomer) == [1, 2, 3]


def test_every_writer_that_could_fill_a_gap_is_waited_for(ledger: Ledger, database_url: str) -> None:
    with writer_in_flight(database_url) as first, writer_in_flight(database_url) as second:
        append(ledger)
        assert read_all(ledger) == []
        with writer_in_flight(database_url) as third:  # came later: it fills 4, and nobody waits for it to reach 3
            append(ledger)
            second.commit()
            assert read_all(ledger) == []
            first.rollback()
            assert read_all(ledger) == [2, 3]
            third.commit()
            assert read_all(ledger) == [2, 3, 4, 5]


def test_a_writer_killed_in_the_middle_of_an_append_stops_nobody(ledger: Ledger, database_url: str) -> None:
    append(ledger)
    with psycopg.connect(database_url, autocommit=True) as admin:
        writer = psycopg.connect(database_url)
        writer.execute(INSERT, (uuid4(),))
        append(ledger)
        read_all(ledger)
        assert read_all(ledger) == [], "nothing was known to be safe yet"
        assert admin.execute("SELECT pg_terminate_backend(%s, 5000)", (writer.info.backend_pid,)).fetchone() == (True,)
        writer.close()
        assert read_all(ledger) == [1, 3]


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO elsewhere VALUES (1)",
        "SELECT count(*) FROM ledger_events",
        "SELECT * FROM ledger_events FOR SHARE",
        "SELECT pg_current_xact_id()",
    ],
)
def test_a_long_transaction_that_does_not_write_to_the_log_stops_nobody(
    ledger: Ledger, database_url: str, statement: str
) -> None:
    with psycopg.connect(database_url) as owner:
        owner.execute("CREATE TABLE elsewhere (number int)")
    append(ledger)
    with writer_in_flight(database_url, statement):
        append(ledger)
        assert read_all(ledger) == [1, 2]


def test_a_writer_to_the_log_of_another_database_stops_nobody(
    ledger: Ledger, database_url: str, postgres: Postgres
) -> None:
    """Even when its table happens to have the same number."""
    name = database_url.rpartition("/")[2]
    ledger.close()
    with psycopg.connect(postgres.url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}_twin TEMPLATE {name}")
    twin_url = f"{database_url}_twin"
    with Ledger(database_url) as here:
        with writer_in_flight(twin_url):
            append(here)
            assert read_all(here) == [1]
        with psycopg.connect(postgres.url, autocommit=True) as admin:
            admin.execute(f"DROP DATABASE {name}_twin WITH (FORCE)")


def test_a_writer_that_draws_a_position_between_the_two_readings_is_not_overlooked(
    ledger: Ledger, database_url: str
) -> None:
    """The sequence is read before the writers: the other way round, this writer would be in neither reading."""
    append(ledger)
    horizon = Horizon("public", "ledger_events")
    with psycopg.connect(database_url, autocommit=True) as conn, psycopg.connect(database_url) as writer:

        def meanwhile() -> None:
            writer.execute(INSERT, (uuid4(),))  # draws 2
            append(ledger)  # 3, and visible

        assert horizon.advance(interrupted_after_one_statement(conn, meanwhile)) < 2
        assert horizon.advance(conn) < 2
        writer.commit()
        assert horizon.advance(conn) == 3


def interrupted_after_one_statement(
    conn: psycopg.Connection[Any], meanwhile: Callable[[], None]
) -> psycopg.Connection[Any]:
    class Interrupted:
        def __init__(self, cursor: psycopg.Cursor[Any]) -> None:
            self.cursor = cursor
            self.calls = 0

        def execute(self, *args: Any, **kwargs: Any) -> psycopg.Cursor[Any]:
            self.calls += 1
            if self.calls == 2:
                meanwhile()
            return self.cursor.execute(*args, **kwargs)

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            self.cursor.close()

    class Connection:
        def cursor(self, **kwargs: Any) -> Interrupted:
            return Interrupted(conn.cursor(**kwargs))

    return cast("psycopg.Connection[Any]", Connection())


def test_a_horizon_that_forgets_old_readings_stays_safe_and_catches_up(
    ledger: Ledger, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(horizon_module, "MAX_PENDING", 3)
    with Ledger(database_url) as reader:
        append(ledger)
        assert read_all(reader) == [1]
        with writer_in_flight(database_url) as writer:
            for _ in range(10):
                append(ledger)
                assert read_all(reader) == [1]
            writer.commit()
            assert read_all(reader) == list(range(1, 13))


def test_a_log_is_read_in_pages_without_a_seam(ledger: Ledger) -> None:
    for _ in range(5):
        append(ledger, *AUTHORIZED)
    first = ledger.read(0, 3)
    second = ledger.read(first[-1].id, 3)
    third = ledger.read(second[-1].id, 100)
    assert positions(first) + positions(second) + positions(third) == list(range(1, 11))
    assert ledger.read(third[-1].id, 100) == []


def test_readers_of_a_busy_log_miss_nothing_and_see_nothing_twice(ledger: Ledger, database_url: str) -> None:
    writers, appends_each = 8, 250
    facts = (*AUTHORIZED, captured()[0])
    whole = writers * appends_each * len(facts)
    written: list[int] = []
    done = threading.Event()

    def write(_: int) -> list[int]:
        stream = uuid4()
        mine: list[int] = []
        tail = NO_PREVIOUS
        for turn in range(appends_each):
            stored = ledger.append(envelopes(stream, *facts, after=turn * len(facts)), tail)
            tail = stored.tail
            mine += [envelope.position or 0 for envelope in stored.envelopes]
            if turn % 10 == 0:  # conflicts leave gaps that stay
                with pytest.raises(StreamMoved):
                    ledger.append(envelopes(stream, started()), NO_PREVIOUS)
        return mine

    def follow(reader: Ledger) -> list[int]:
        seen: list[int] = []
        while len(seen) < whole:
            last_look = done.is_set()
            rows = reader.read(seen[-1] if seen else 0, 500)
            seen += positions(rows)
            if last_look and not rows:
                break
        return seen

    with Ledger(database_url) as other, ThreadPoolExecutor(writers) as pool, ThreadPoolExecutor(3) as followers:
        following = [followers.submit(follow, reader) for reader in (other, other, ledger)]
        for mine in pool.map(write, range(writers)):
            assert mine == sorted(mine)
            written += mine
        done.set()
        for follower in following:
            assert follower.result(PATIENCE_S) == sorted(written)
    assert len(set(written)) == whole
