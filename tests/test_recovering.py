"""The process that finishes what was interrupted: what it takes up and when, and that nothing holds up the rest."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from itertools import pairwise
from typing import Any, TypeVar
from uuid import UUID

import psycopg
import pytest
from click.testing import CliRunner
from psycopg_pool import AsyncConnectionPool

from application import inbox
from application.event_store import Ledger, StoreUnavailable
from application.inbox import GATHER, Event
from application.recovery import FIRST_WAIT, LONGEST_WAIT, PATIENCE, WAITING, let_go
from application.settlement import ABANDONED_AFTER, KEY_LIFETIME
from domain.payment_commands import Authorize, Capture, Refund, Wish
from interface import cli_operations, intake, recovering
from interface.cli import main
from interface.intake import Intake
from interface.recovering import MAX_AT_ONCE, MAX_ENTRIES, Recovering
from interface.sandbox.postgres import Postgres
from interface.settings import read
from projections import open_operations
from projections.open_operations import OpenOperation
from tests.fake_gateway import PATIENCE_S, Behaviour
from tests.given import NOON, authorize, usd
from tests.read_side import ReadSide
from tests.recovery_side import NEVER_ARRIVES, REPLY_LOST, UNHEARD, RecoveryDesk, migrated, on

T = TypeVar("T")

A_SECOND = timedelta(seconds=1)
TABLES = "ledger_events, checkpoints, open_operations, operation_tries, inbox, sweeps"
SETTINGS = {
    "STRIPE_API_KEY": "sk_test_none",
    "STRIPE_WEBHOOK_SECRET": "whsec_tests",
    "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
    "JWT_SECRET_KEY": "0" * 64,
    "ENCRYPTION_KEY": "0" * 64,
}


class Watched(RecoveryDesk):
    """A desk, and the process that comes after it, which lives by the desk's clock and asks the desk's provider."""

    def __init__(self, side: ReadSide) -> None:
        super().__init__(side.ledger)
        self.side = side

    def work(self, what: Callable[[Recovering], Awaitable[T]]) -> T:
        async def at_work() -> T:
            worker = Recovering(read(SETTINGS | {"DATABASE_URL": self.side.url}))
            worker._recovery, worker._inbox = self.recovery, self.inbox
            await worker._pool.open()
            try:
                return await what(worker)
            finally:
                await worker._pool.close()
                worker._threads.shutdown()
                worker._ledger.close()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(recovering, "clock", self.clock)
            return asyncio.run(at_work())

    def due(self) -> list[OpenOperation]:
        """What a worker would take up now, when the read model has kept up."""
        self.side.catch_up(open_operations.MODEL)
        now = self.now
        return on(
            self.side.url,
            lambda conn: open_operations.due(conn, now, now - ABANDONED_AFTER, now - PATIENCE, MAX_AT_ONCE),
        )

    def recover(self) -> int:
        """Take up all that is due, once; answer how much that was."""
        found = self.due()

        async def settle(worker: Recovering) -> None:
            await asyncio.gather(*(worker._settle(operation) for operation in found))

        if found:
            self.work(settle)
        return len(found)

    def let_go(self, operation: str) -> None:
        on(self.side.url, lambda conn: let_go(conn, self.stream, operation, "timeout", self.now))

    def tries(self) -> list[tuple[str, int]]:
        """Why operations are still open, and after how many tries."""
        return self.side.conn.execute("SELECT reason, attempts FROM operation_tries").fetchall()

    def hear(self, *events: Event) -> None:
        """Webhooks, after which their time has come."""
        on(self.side.url, lambda conn: inbox.store(conn, events, self.now))
        self.now += GATHER

    def handle(self) -> int:
        entries = on(self.side.url, lambda conn: inbox.take(conn, self.now, MAX_ENTRIES))

        async def handled(worker: Recovering) -> None:
            await worker._handle(entries)

        if entries:
            self.work(handled)
        return len(entries)

    def states(self) -> dict[str, tuple[str, str]]:
        found = self.side.conn.execute("SELECT event_id, state, note FROM inbox").fetchall()
        return {event_id: (state, note) for event_id, state, note in found}

    def event(self, event_id: str, *, marked: bool = True, kind: str = "charge.updated") -> Event:
        """About this payment; of an object that was made by hand (not `marked`) only the intent is known."""
        intent = self.gateway.intent
        return Event(event_id, kind, "obj_1", intent.id, intent.payment if marked else None, None, NOON)


@pytest.fixture(scope="module")
def url(postgres: Postgres) -> Iterator[str]:
    with migrated(postgres) as url:
        yield url


@pytest.fixture
def side(url: str) -> Iterator[ReadSide]:
    with Ledger(url) as ledger, psycopg.connect(url, autocommit=True) as conn:
        conn.execute(f"TRUNCATE {TABLES}".encode())
        yield ReadSide(url, ledger, conn)


@pytest.fixture
def desk(side: ReadSide) -> Watched:
    return Watched(side)


def interrupted(desk: Watched, wish: Wish, lost: Behaviour) -> Watched:
    if not isinstance(wish, Authorize):
        desk.ask(authorize(capture="automatic" if isinstance(wish, Refund) else "manual"))
    desk.gateway.will(lost)
    assert desk.ask(wish).outcome == "open"
    return desk


@pytest.fixture
def capturing(desk: Watched) -> Watched:
    """A capture whose reply was lost."""
    return interrupted(desk, Capture("x"), REPLY_LOST)


def unreadable(side: ReadSide, stream: UUID) -> None:
    side.conn.execute("UPDATE ledger_events SET topic = 'Rewarded' WHERE originator_id = %s", (stream,))


# --- Open operations ---------------------------------------------------------------------------------------------


def test_what_its_own_worker_let_go_of_is_finished_after_a_second(capturing: Watched) -> None:
    capturing.let_go("x")
    assert capturing.recover() == 0
    capturing.now += FIRST_WAIT
    assert capturing.recover() == 1
    assert capturing.payment.captured == usd(100_00)
    assert (capturing.tries(), capturing.recover()) == ([], 0)
    capturing.agree()


def test_what_its_own_worker_did_not_end_is_finished_after_45_seconds(capturing: Watched) -> None:
    assert timedelta(seconds=45) == ABANDONED_AFTER
    capturing.now += ABANDONED_AFTER
    assert capturing.recover() == 0
    capturing.now += A_SECOND
    assert capturing.recover() == 1
    assert capturing.payment.captured == usd(100_00)
    capturing.agree()


def test_while_the_provider_does_not_answer_it_is_asked_ever_less_often(capturing: Watched) -> None:
    capturing.let_go("x")
    begun, tried = capturing.now, []
    for _ in range(100):
        capturing.gateway._next = [NEVER_ARRIVES, UNHEARD]
        if capturing.recover():
            tried.append((capturing.now - begun).total_seconds())
        capturing.now += A_SECOND
    assert [later - earlier for earlier, later in pairwise(tried)] == [2, 4, 8, 16, 20, 20, 20]
    assert capturing.tries() == [("NotLearned: timeout", len(tried))]
    capturing.gateway._next = []
    capturing.now += LONGEST_WAIT
    assert capturing.recover() == 1
    capturing.agree()


def test_a_cardholder_is_looked_for_rarely(desk: Watched) -> None:
    desk.gateway.will(Behaviour(challenges=True))
    desk.ask(authorize())
    looks = []
    for minute in range(0, 6 * 60, 5):
        if desk.recover():
            looks.append(minute)
        desk.now += timedelta(minutes=5)
    assert looks == [15, 35, 75, 135, 195, 255, 315]
    assert (desk.gateway.looked, len(desk.gateway.asked)) == (len(looks), 1)
    assert desk.tries() == [(WAITING, len(looks))]
    desk.gateway.cardholder_authenticates()
    desk.now += timedelta(hours=1)
    assert desk.recover() == 1
    assert (desk.payment.status, desk.tries()) == ("authorized", [])


def test_a_worker_leaves_alone_what_another_has_taken_up(capturing: Watched) -> None:
    capturing.now += ABANDONED_AFTER + A_SECOND
    (found,) = capturing.due()
    sent = len(capturing.gateway.asked)

    async def both(worker: Recovering) -> None:
        go = asyncio.Event()
        capturing.gateway.will(Behaviour(until=go))
        capturing.gateway.busy.clear()
        first = asyncio.create_task(worker._settle(found))
        await asyncio.wait_for(capturing.gateway.busy.wait(), PATIENCE_S)
        await worker._settle(found)
        go.set()
        await first

    capturing.work(both)
    assert len(capturing.gateway.asked) == sent + 1
    capturing.agree()


def test_one_payment_that_cannot_be_read_does_not_hold_up_the_others(
    side: ReadSide, caplog: pytest.LogCaptureFixture
) -> None:
    lost, other = (interrupted(Watched(side), authorize(), REPLY_LOST) for _ in range(2))
    other.due()
    unreadable(side, lost.stream)
    other.now += ABANDONED_AFTER + A_SECOND
    assert other.recover() == 2
    assert other.payment.status == "authorized"
    assert other.tries() == [("UnreadableFact", 1)]
    assert "could not be settled" in caplog.text


# --- The inbox ---------------------------------------------------------------------------------------------------


def test_events_of_one_payment_are_handled_together(desk: Watched) -> None:
    desk.ask(authorize())
    desk.gateway.capture_by_hand(40_00)
    desk.hear(*(desk.event(f"evt_{number}") for number in range(5)))
    assert desk.handle() == 5
    assert desk.gateway.looked == 1
    assert {state for state, _ in desk.states().values()} == {"done"}
    desk.agree()


def test_each_object_gets_its_own_verdict(desk: Watched) -> None:
    desk.ask(authorize())
    desk.gateway.capture_by_hand(40_00)
    desk.hear(
        desk.event("evt_marked"),
        desk.event("evt_by_hand", marked=False),
        Event("evt_none", "charge.updated", "ch_1", "pi_none", None, None, NOON),
    )
    assert desk.handle() == 3
    assert desk.states() == {
        "evt_marked": ("done", ""),
        "evt_by_hand": ("done", ""),
        "evt_none": ("unmatched", "names no payment of ours"),
    }
    desk.agree()


def test_one_payment_that_cannot_be_read_does_not_hold_up_the_events_of_others(
    side: ReadSide, caplog: pytest.LogCaptureFixture
) -> None:
    lost, other = Watched(side), Watched(side)
    for desk in (lost, other):
        desk.ask(authorize())
        desk.gateway.capture_by_hand(40_00)
    unreadable(side, lost.stream)
    other.hear(lost.event("evt_lost"), other.event("evt_other"))
    assert other.handle() == 2
    assert other.states() == {"evt_lost": ("waiting", "UnreadableFact"), "evt_other": ("done", "")}
    assert other.handle() == 0, "it has to wait for its turn"
    assert "could not be handled" in caplog.text
    other.agree()


# --- Webhooks into the inbox -------------------------------------------------------------------------------------


def taken_in(url: str, scenario: Callable[[Intake], Awaitable[T]]) -> tuple[T, int]:
    """What a scenario answers, and how often somebody was rung for."""
    rung: list[None] = []

    async def run() -> T:
        async with AsyncConnectionPool(url, min_size=1, max_size=2, open=False, kwargs={"autocommit": True}) as pool:
            kept = Intake(pool, lambda: NOON, lambda: rung.append(None))
            answer = await scenario(kept)
            await kept.close()
            return answer

    return asyncio.run(run()), len(rung)


def told(number: int) -> Event:
    return Event(f"evt_{number}", "charge.updated", "ch_1", "pi_1", None, None, NOON)


def test_webhooks_that_come_at_once_are_all_there_when_they_are_answered(
    side: ReadSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "MAX_BATCH", 7)

    async def many(kept: Intake) -> int:
        await asyncio.gather(*(kept.keep(told(number % 40)) for number in range(50)))
        return int(side.one("SELECT count(*) FROM inbox"))

    there, rung = taken_in(side.url, many)
    assert (there, rung) == (40, 1)


def test_a_webhook_that_could_not_be_kept_is_not_acknowledged(side: ReadSide) -> None:
    async def while_the_table_is_gone(kept: Intake) -> list[object]:
        side.conn.execute("ALTER TABLE inbox RENAME TO hidden")
        try:
            return list(await asyncio.gather(kept.keep(told(1)), kept.keep(told(2)), return_exceptions=True))
        finally:
            side.conn.execute("ALTER TABLE hidden RENAME TO inbox")
            await kept.keep(told(3))  # it goes on afterwards

    answers, _ = taken_in(side.url, while_the_table_is_gone)
    assert [type(answer) for answer in answers] == [StoreUnavailable] * 2
    assert side.conn.execute("SELECT event_id FROM inbox").fetchall() == [("evt_3",)]


def test_more_webhooks_than_can_wait_are_for_stripe_to_send_again(
    side: ReadSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "MAX_WAITING", 3)

    async def many(kept: Intake) -> list[object]:
        return await asyncio.gather(*(kept.keep(told(number)) for number in range(5)), return_exceptions=True)

    answers, _ = taken_in(side.url, many)
    assert [type(answer).__name__ for answer in answers] == ["NoneType"] * 3 + ["StoreUnavailable"] * 2


def test_a_sender_that_goes_away_does_not_hold_up_the_others(side: ReadSide) -> None:
    async def one_leaves(kept: Intake) -> None:
        leaving = asyncio.create_task(kept.keep(told(1)))
        staying = asyncio.create_task(kept.keep(told(2)))
        await asyncio.sleep(0)  # both wait
        leaving.cancel()
        await staying

    taken_in(side.url, one_leaves)
    assert side.conn.execute("SELECT event_id FROM inbox ORDER BY event_id").fetchall() == [("evt_1",), ("evt_2",)]


# --- Commands ----------------------------------------------------------------------------------------------------


def shown(url: str, *command: str) -> str:
    result = CliRunner().invoke(main, [*command, "--database-url", url])
    assert result.exit_code == 0, result.output
    return result.output


def test_what_is_open_is_shown_with_what_is_known_of_it(
    capturing: Watched, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli_operations, "clock", capturing.clock)
    capturing.due()
    table = shown(url, "operations")
    assert all(said in table for said in (str(capturing.stream), "capture", "10000 usd", "under way", "1 operations"))
    capturing.let_go("x")
    capturing.now += KEY_LIFETIME
    assert "timeout; too old to be sent again, only looked up" in shown(url, "operations")
    (line,) = shown(url, "operations", "--json").splitlines()
    assert f'"payment":"{capturing.stream}"' in line
    assert '"reason":"timeout"' in line


def test_what_fits_nothing_is_shown_and_what_merely_waits_when_asked_for(desk: Watched, url: str) -> None:
    desk.ask(authorize())
    desk.hear(desk.event("evt_waits"), Event("evt_none", "charge.updated", "ch_1", None, None, None, NOON))
    assert ("evt_none" in shown(url, "inbox"), "evt_waits" in shown(url, "inbox")) == (True, False)
    assert "evt_waits" in shown(url, "inbox", "--all")
    (line,) = shown(url, "inbox", "--json").splitlines()
    assert '"state":"unmatched"' in line


def test_a_database_that_does_not_answer_is_said_in_a_sentence() -> None:
    result: Any = CliRunner().invoke(main, ["operations", "--database-url", "postgresql://x@127.0.0.1:1/x"])
    assert result.exit_code == 1
    assert "the database does not answer" in result.output
