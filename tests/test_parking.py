"""A fact that cannot be applied sets its stream aside, in order, and nobody else; what is set right catches up."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import psycopg
import pytest
from click.testing import CliRunner, Result
from psycopg import Connection
from psycopg_pool import AsyncConnectionPool

from application.event_store import Ledger
from domain.envelope import Envelope
from domain.payment import Payment, evolve
from domain.payment_facts import Authorized, PaymentFact
from interface.bootstrap import PROJECTIONS
from interface.cli import main
from interface.migrations import migrate
from interface.progress import Progress
from interface.web import health, waiting
from interface.web.problems import ProblemError
from projections import engine as engine_module
from projections import parking, payment_rows, payment_status
from projections.engine import Projection, take_over
from projections.parking import Failure, Unreadable
from projections.rebuild import NEXT
from tests.given import AUTHORIZED, captured, refunded, started
from tests.processes import eventually
from tests.read_side import ReadSide, running

NAME = payment_status.NAME
RENAME = "UPDATE ledger_events SET topic = %s WHERE originator_id = %s AND originator_version = %s"
SECRET = "something that nobody may read in a log"


@pytest.fixture
def side(database_url: str) -> Iterator[ReadSide]:
    migrate(database_url)
    with Ledger(database_url) as ledger, psycopg.connect(database_url, autocommit=True) as conn:
        yield ReadSide(database_url, ledger, conn)


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """No payment can be captured, until this is called."""

    def evolve_most(payment: Payment | None, fact: PaymentFact) -> Payment:
        if type(fact).__name__ == "CaptureStarted":
            raise ValueError(SECRET)
        return evolve(payment, fact)

    monkeypatch.setattr(payment_rows, "evolve", evolve_most)
    return lambda: monkeypatch.setattr(payment_rows, "evolve", evolve)


def versions(side: ReadSide) -> dict[UUID, int]:
    return {stream: version for stream, (version, _) in side.rows().items()}


# --- Parking -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 2, 1_000])
def test_a_fact_that_cannot_be_applied_parks_its_stream_and_no_other(
    side: ReadSide, refusing: Callable[[], None], limit: int
) -> None:
    poisoned = side.append(*AUTHORIZED, *captured(), *refunded())
    other = side.append(*AUTHORIZED)
    side.catch_up(limit=limit)
    assert versions(side) == {poisoned: 2, other: 2}
    (parked,) = side.parked()
    assert (parked.stream, parked.position, parked.attempts) == (poisoned, 3, 1)
    assert "evolve_most" in parked.trace
    assert side.checkpoint() == side.end
    refusing()


def test_followers_of_a_parked_stream_wait_and_catch_up_in_order(side: ReadSide, refusing: Callable[[], None]) -> None:
    poisoned = side.append(*AUTHORIZED, *captured())
    side.catch_up()
    side.append(*refunded("re_1", 1_00), stream=poisoned)
    side.captured()
    side.append(*refunded("re_2", 2_00), stream=poisoned)
    side.catch_up()
    assert versions(side)[poisoned] == 2
    assert not side.retry(poisoned)
    assert {parked.stream: parked.attempts for parked in side.parked()}[poisoned] == 2
    refusing()
    assert [side.retry(parked.stream) for parked in side.parked()] == [True, True]
    assert side.rows() == side.folded()
    assert side.parked() == []
    side.append(*refunded("re_3", 3_00), stream=poisoned)
    side.catch_up()
    assert side.rows() == side.folded()


def test_a_retry_keeps_what_it_got_through(side: ReadSide, refusing: Callable[[], None]) -> None:
    stream = side.append(*AUTHORIZED, *captured())
    side.conn.execute(RENAME, ("Tomorrow", stream, 2))
    side.catch_up()
    side.conn.execute(RENAME, ("Authorized", stream, 2))
    assert not side.retry(stream)
    (parked,) = side.parked()
    assert (parked.position, versions(side)[stream]) == (3, 2)
    refusing()
    assert side.retry(stream)
    assert side.rows() == side.folded()


def test_a_fact_of_an_unknown_name_parks_its_stream_until_a_version_knows_it(side: ReadSide) -> None:
    stream, other = side.captured(), side.captured()
    side.conn.execute(RENAME, ("Tomorrow", stream, 2))
    with running(side.engine()):
        eventually(lambda: side.checkpoint() == side.end)
        later = side.captured()
        eventually(lambda: side.checkpoint() == side.end)
    assert versions(side) == {stream: 1, other: 4, later: 4}
    assert "Tomorrow" in side.parked()[0].reason
    side.conn.execute(RENAME, ("Authorized", stream, 2))
    assert side.retry(stream)
    assert side.rows() == side.folded()


def test_a_batch_that_fails_as_a_whole_is_divided_until_the_fact_is_found(side: ReadSide) -> None:
    streams = [side.captured() for _ in range(9)]
    seen: list[tuple[UUID, int]] = []

    def apply(conn: Connection[Any], facts: Sequence[Envelope]) -> None:
        for fact in facts:
            conn.execute("INSERT INTO seen VALUES (%s, %s)", (fact.stream, fact.version))
            if fact.stream == streams[4] and isinstance(fact.fact, Authorized):
                conn.execute("SELECT 1 / 0")

    side.conn.execute("CREATE TABLE seen (stream uuid, version bigint, PRIMARY KEY (stream, version))")
    assert take_over(side.conn, "seen")
    side.engine(Projection("seen", apply)).step(side.conn)
    seen = [(stream, version) for stream, version in side.conn.execute("SELECT stream, version FROM seen")]
    wanted = [(stream, version) for stream in streams for version in (1, 2, 3, 4)]
    assert sorted(seen) == sorted(pair for pair in wanted if pair[0] != streams[4] or pair[1] == 1)
    (parked,) = side.parked()
    assert (parked.stream, parked.position, parked.reason) == (streams[4], 18, "DivisionByZero 22012")


def test_what_is_logged_and_kept_of_a_failure_never_holds_what_the_database_quotes(
    side: ReadSide, caplog: pytest.LogCaptureFixture
) -> None:
    side.captured()

    def apply(conn: Connection[Any], _: Sequence[Envelope]) -> None:
        conn.execute("SELECT %s::int", (SECRET,))

    assert take_over(side.conn, "quoting")
    with caplog.at_level(logging.DEBUG):
        side.engine(Projection("quoting", apply)).step(side.conn)
    (parked,) = side.parked()
    assert SECRET not in caplog.text + parked.reason + parked.trace
    assert "parks stream" in caplog.text


def test_a_projection_in_which_everything_fails_stops_and_parks_nothing(
    side: ReadSide, refusing: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parking, "MAX_PARKED", 3)
    monkeypatch.setattr(engine_module, "ALARM_S", 0.05)
    for _ in range(5):
        side.captured()
    with running(side.engine()):
        eventually(lambda: bool(side.one("SELECT stopped FROM checkpoints")))
        assert (side.checkpoint(), side.rows(), side.parked()) == (0, {}, [])
        refusing()
        eventually(lambda: side.checkpoint() == side.end)
    assert side.rows() == side.folded()
    assert side.one("SELECT stopped FROM checkpoints") is None


def test_an_error_that_divides_every_batch_is_given_up_early(side: ReadSide, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parking, "MAX_PARKED", 5)
    for _ in range(100):
        side.append(started())
    calls = 0

    def apply(_: Connection[Any], __: Sequence[Envelope]) -> Sequence[Failure]:
        nonlocal calls
        calls += 1
        raise LookupError

    assert take_over(side.conn, "broken")
    with pytest.raises(parking.TooManyParked):
        side.engine(Projection("broken", apply)).step(side.conn)
    assert calls < 5 * parking.MAX_PARKED
    assert side.parked() == []


def test_whoever_asks_whether_we_are_ready_hears_what_is_parked_and_what_has_stopped(
    side: ReadSide, refusing: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def checks() -> dict[str, str]:
        async def ask() -> dict[str, str]:
            async with AsyncConnectionPool(side.url, min_size=1, max_size=1, open=False) as queries:
                return await health.checked(cast("Any", SimpleNamespace(queries=queries)))

        return asyncio.run(ask())

    assert checks() == {"store": "ok"} | dict.fromkeys((projection.name for projection in PROJECTIONS), "ok")
    side.captured()
    side.catch_up()
    assert checks()[NAME] == "1 streams are parked"
    monkeypatch.setattr(parking, "MAX_PARKED", 1)
    side.captured()
    with running(side.engine()):
        eventually(lambda: bool(side.one("SELECT stopped FROM checkpoints")))
        assert checks()[NAME] == "has stopped: more than 1 streams fail"
    refusing()
    side.retry(side.parked()[0].stream)
    side.catch_up()
    assert checks()[NAME] == "ok"


# --- Retry beside a worker ---------------------------------------------------------------------------------------


def test_a_stream_that_comes_back_while_a_batch_is_read_is_in_that_batch(
    side: ReadSide, refusing: Callable[[], None]
) -> None:
    stream = side.append(*AUTHORIZED, *captured())
    side.catch_up()
    refusing()
    side.append(*refunded(), stream=stream)

    def retried_meanwhile(after: int, limit: int) -> Sequence[Envelope | Unreadable]:
        batch = side.read(after, limit)
        assert side.retry(stream)
        return batch

    side.engine(read=retried_meanwhile).step(side.conn)
    assert side.rows() == side.folded()
    assert side.parked() == []


def test_a_retry_waits_for_the_batch_that_is_being_written(side: ReadSide, refusing: Callable[[], None]) -> None:
    stream = side.append(*AUTHORIZED, *captured())
    side.catch_up()
    refusing()
    side.append(*refunded(), stream=stream)
    side.captured()
    writing, go_on = Event(), Event()

    def slowly(conn: Connection[Any], facts: Sequence[Envelope]) -> Sequence[Failure]:
        failures = payment_status.apply(conn, facts)
        writing.set()
        assert go_on.wait(20)
        return failures

    worker = Thread(target=side.engine(Projection(NAME, slowly)).step, args=(side.conn,))
    worker.start()
    assert writing.wait(20)
    retrying = Thread(target=side.retry, args=(stream,))
    retrying.start()
    with psycopg.connect(side.url, autocommit=True) as looking:
        blocked = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        eventually(lambda: looking.execute(blocked).fetchone() == (1,))
    go_on.set()
    worker.join(20)
    retrying.join(20)
    assert side.rows() == side.folded()
    assert side.parked() == []


# --- On the command line -----------------------------------------------------------------------------------------


def payledger(side: ReadSide, *args: str) -> Result:
    return CliRunner(env={"DATABASE_URL": side.url, "COLUMNS": "200"}).invoke(main, args)


def test_the_command_line_shows_what_is_parked_and_brings_it_back(side: ReadSide) -> None:
    stream = side.captured()
    side.conn.execute(RENAME, ("Tomorrow", stream, 2))
    side.catch_up()
    side.captured()
    shown = payledger(side, "projections")
    assert shown.exit_code == 1
    assert all(word in shown.output for word in (str(stream), "Tomorrow", "nobody", NAME))
    again = payledger(side, "projections", "retry", NAME, "--stream", str(stream))
    assert (again.exit_code, "fails again" in again.output) == (1, True)
    side.conn.execute(RENAME, ("Authorized", stream, 2))
    back = payledger(side, "projections", "retry")
    assert (back.exit_code, "is back" in back.output) == (0, True)
    with running(side.engine()):
        eventually(lambda: side.checkpoint() == side.end)
        fine = payledger(side, "projections")
    assert (fine.exit_code, "nobody" in fine.output) == (0, False)
    assert side.rows() == side.folded()


# --- Reading one's own writes ------------------------------------------------------------------------------------


def waits(side: ReadSide, after: int, meanwhile: Callable[[], Awaitable[None]] | None = None) -> str:
    """What `?after=` answers: nothing when it is there, else the type of the problem."""

    async def ask() -> str:
        progress = Progress(side.url)
        progress.start()
        async with AsyncConnectionPool(side.url, min_size=1, max_size=2, open=False) as queries:
            services: Any = SimpleNamespace(progress=progress, queries=queries)
            try:
                waited = asyncio.create_task(waiting.wait_for(services, NAME, after))
                if meanwhile:
                    await meanwhile()
                await waited
            except ProblemError as ended:
                if ended.problem.status != 400 and "Retry-After" not in ended.headers:
                    return "a refusal that does not say when to come back"
                return ended.problem.type.rpartition(":")[2]
            finally:
                await progress.stop()
        return ""

    return asyncio.run(ask())


def test_waiting_ends_when_the_engine_has_written_the_rows(side: ReadSide) -> None:
    side.captured()

    async def work() -> None:
        await asyncio.to_thread(side.catch_up)

    assert waits(side, side.end, work) == ""


def test_waiting_for_a_read_model_that_is_behind_is_bounded(side: ReadSide, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "MAX_WAIT_S", 0.05)
    side.captured()
    assert waits(side, side.end) == "read-model-behind"
    assert waits(side, side.end + 1) == "invalid-request"


def test_waiting_tells_a_rebuild_from_being_behind(side: ReadSide, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "MAX_WAIT_S", 0.05)
    side.captured()
    assert take_over(side.conn, NAME + NEXT)
    assert waits(side, side.end) == "read-model-rebuilding"
    assert take_over(side.conn, NAME)
    assert waits(side, side.end) == "read-model-behind"


def test_waiting_for_what_stands_in_a_parked_stream_is_a_problem_of_its_own(
    side: ReadSide, refusing: Callable[[], None]
) -> None:
    poisoned = side.append(*AUTHORIZED, *captured())
    side.append(*AUTHORIZED)
    side.catch_up()
    assert [waits(side, position) for position in (2, 3, 4, 5, 6)] == ["", *["read-model-parked"] * 2, "", ""]
    refusing()
    assert side.retry(poisoned)
    assert waits(side, 4) == ""


def test_waiting_hears_that_a_projection_has_stopped(
    side: ReadSide, refusing: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parking, "MAX_PARKED", 0)
    monkeypatch.setattr(waiting, "MAX_WAIT_S", 0.05)
    side.captured()
    with running(side.engine()):
        eventually(lambda: bool(side.one("SELECT stopped FROM checkpoints")))
        assert waits(side, side.end) == "read-model-stopped"
    refusing()
