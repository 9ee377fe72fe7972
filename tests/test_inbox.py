"""What the provider tells us is kept once and handled once, and leads to where the provider is in any order."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from itertools import count
from random import Random
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import AsyncConnection

from application import recovery
from application import sweep as sweeping
from application.event_store import Ledger, StoreUnavailable
from application.gateway import Unknown
from application.inbox import (
    GATHER,
    KEEP,
    LEASE,
    MAX_NOTE,
    Entry,
    Event,
    EventPage,
    Verdict,
    first_verdict,
    forget,
    give_back,
    store,
    take,
)
from application.inbox_handling import LONGEST_WAIT, MAX_CONTRADICTIONS, Inbox
from application.payment_stream import PaymentStreams
from application.recovery import pause
from application.settlement import ABANDONED_AFTER, Contended, NotLearned, Settlement
from application.stripe_client import OPERATION_DEADLINE_S
from application.sweep import FURTHEST, OVERLAP, alone, sweep
from domain.errors import Refusal
from domain.payment_commands import Capture, Refund, Void, Wish
from interface.sandbox.postgres import Postgres
from tests.fake_gateway import Behaviour
from tests.given import NOON, authorize, usd
from tests.recovery_side import REPLY_LOST, UNHEARD, RecoveryDesk, log_in, migrated, on

A_MOMENT = timedelta(microseconds=1)
READY = NOON + GATHER
PAYMENT = UUID(int=7)
numbers = count(1)


@pytest.fixture(scope="module")
def server(postgres: Postgres) -> Iterator[str]:
    with migrated(postgres) as url:
        yield url


@pytest.fixture
def url(server: str) -> str:
    """Nothing was heard yet."""
    with psycopg.connect(server, autocommit=True) as conn:
        conn.execute("TRUNCATE inbox, sweeps")
    return server


@pytest.fixture(scope="module")
def ledger(postgres: Postgres) -> Iterator[Ledger]:
    with log_in(postgres) as ledger:
        yield ledger


@pytest.fixture
def desk(ledger: Ledger) -> RecoveryDesk:
    return RecoveryDesk(ledger)


@pytest.fixture
def captured(desk: RecoveryDesk) -> RecoveryDesk:
    desk.ask(authorize())
    desk.ask(Capture("cap_1"))
    return desk


def event(
    kind: str = "payment_intent.succeeded",
    name: str | None = None,
    *,
    payment: UUID | None = PAYMENT,
    intent: str | None = "pi_1",
    operation: str | None = None,
    account: str | None = None,
) -> Event:
    return Event(name or f"evt_{next(numbers)}", kind, "obj_1", intent, payment, operation, NOON, account)


def keep(url: str, *events: Event, now: datetime = NOON) -> None:
    on(url, lambda conn: store(conn, events, now))


def taken(url: str, now: datetime = READY, limit: int = 100) -> list[Entry]:
    return on(url, lambda conn: take(conn, now, limit))


def say(url: str, entries: Sequence[Entry], verdict: Verdict, now: datetime = READY) -> None:
    on(url, lambda conn: give_back(conn, [(entry, verdict) for entry in entries], now))


def states(url: str) -> dict[tuple[str, str], str]:
    with psycopg.connect(url) as conn:
        rows = conn.execute("SELECT event_id, type, state FROM inbox").fetchall()
    return {(name, kind): state for name, kind, state in rows}


# --- Kept once ---------------------------------------------------------------------------------------------------


def test_an_event_that_comes_twice_is_one_entry(url: str) -> None:
    keep(url, event(name="evt_a"))
    keep(url, event(name="evt_a"), event(name="evt_a"))
    assert [entry.event_id for entry in taken(url)] == ["evt_a"]


def test_one_id_with_two_types_is_two_entries(url: str) -> None:
    keep(url, event("charge.failed", "evt_0"), event("charge.succeeded", "evt_0"))
    first, second = taken(url, limit=1), taken(url)
    assert sorted(entry.type for entry in (*first, *second)) == ["charge.failed", "charge.succeeded"]
    assert len(first) == 1, "nor is the other taken with it"


def test_what_was_dealt_with_is_not_dealt_with_again_when_it_comes_again(url: str) -> None:
    one = event()
    keep(url, one)
    say(url, taken(url), Verdict("done"))
    keep(url, one, now=NOON + timedelta(hours=1))
    assert taken(url, NOON + timedelta(hours=2)) == []
    assert states(url) == {(one.event_id, one.type): "done"}


@pytest.mark.parametrize(
    ("told", "state"),
    [
        (event(), "waiting"),
        (event("charge.dispute.created"), "waiting"),
        (event("refund.failed"), "waiting"),
        (event(payment=None), "waiting"),
        (event(intent=None), "waiting"),
        (event("charge.succeeded", payment=None, intent=None), "unmatched"),
        (event(account="acct_other"), "unmatched"),
        (event("customer.created", account="acct_other"), "unmatched"),
        (event("customer.created"), "ignored"),
        (event("payout.paid", payment=None, intent=None), "ignored"),
        (event("payment_intentional.joke"), "ignored"),
    ],
)
def test_what_concerns_no_payment_of_ours_is_kept_and_not_handled(url: str, told: Event, state: str) -> None:
    assert first_verdict(told).state == state
    keep(url, told)
    assert states(url) == {(told.event_id, told.type): state}
    assert len(taken(url)) == (state == "waiting")


# --- Handled by one ----------------------------------------------------------------------------------------------


def test_an_event_waits_a_moment_for_those_that_come_with_it(url: str) -> None:
    keep(url, event())
    assert taken(url, READY - A_MOMENT) == []
    assert len(taken(url, READY)) == 1


def test_an_entry_is_held_by_one_worker_at_a_time(url: str) -> None:
    keep(url, event())
    (first,) = taken(url)
    assert (first.fence, first.attempts) == (1, 1)
    assert taken(url, READY + LEASE - A_MOMENT) == []
    (second,) = taken(url, READY + LEASE)
    assert (second.fence, second.attempts) == (2, 2)


def test_two_workers_at_the_same_time_share_nothing(url: str) -> None:
    keep(url, *(event() for _ in range(6)))

    async def both(first: AsyncConnection[Any]) -> tuple[list[Entry], list[Entry]]:
        async with await AsyncConnection.connect(url, autocommit=True) as second, first.transaction():
            return await take(first, READY, 4), await take(second, READY, 100)

    ours, theirs = on(url, both)
    assert (len(ours), len(theirs)) == (4, 2)
    assert not {one.event_id for one in ours} & {one.event_id for one in theirs}


def test_a_lease_outlasts_looking_at_a_payment() -> None:
    assert timedelta(seconds=OPERATION_DEADLINE_S) < LEASE


def test_what_a_deposed_worker_says_is_not_heard(url: str) -> None:
    keep(url, event())
    deposed = taken(url)
    holder = taken(url, READY + LEASE)
    late = READY + LEASE + timedelta(seconds=1)
    say(url, deposed, Verdict("stuck", "from yesterday"), late)
    assert set(states(url).values()) == {"waiting"}
    assert taken(url, late) == [], "nor is the holder's lease ended"
    say(url, holder, Verdict("done"), late)
    assert set(states(url).values()) == {"done"}


def test_what_waits_is_handled_again_when_its_time_has_come(url: str) -> None:
    keep(url, event())
    say(url, taken(url), Verdict("waiting", "x" * (MAX_NOTE + 1), timedelta(seconds=4)))
    assert taken(url, READY + timedelta(seconds=4) - A_MOMENT) == []
    (again,) = taken(url, READY + timedelta(seconds=4))
    assert again.attempts == 2
    with psycopg.connect(url) as conn:
        assert conn.execute("SELECT note FROM inbox").fetchone() == ("x" * MAX_NOTE,)


def test_each_of_those_given_back_together_gets_its_own_verdict(url: str) -> None:
    keep(url, event("charge.failed", "evt_0"), event("charge.succeeded", "evt_0"), event("refund.failed", "evt_1"))
    verdicts = {"charge.failed": "done", "charge.succeeded": "stuck", "refund.failed": "unmatched"}
    given = [(entry, Verdict(verdicts[entry.type])) for entry in taken(url)]  # type: ignore[arg-type]
    on(url, lambda conn: give_back(conn, given, READY))
    assert {kind: state for (_, kind), state in states(url).items()} == verdicts


def test_what_was_dealt_with_is_forgotten_when_it_cannot_come_again_and_what_was_not_is_kept(url: str) -> None:
    assert KEEP > FURTHEST + OVERLAP
    for state in ("done", "stuck", "unmatched", "ignored", "waiting"):
        keep(url, event(name=f"evt_{state}"))
        say(url, taken(url, READY, 1), Verdict(state, wait=timedelta(days=90)))
    on(url, lambda conn: forget(conn, NOON + KEEP))
    assert len(states(url)) == 5
    on(url, lambda conn: forget(conn, NOON + KEEP + A_MOMENT))
    assert sorted(states(url).values()) == ["stuck", "waiting"]


# --- What becomes of an event ------------------------------------------------------------------------------------


def handle(
    desk: RecoveryDesk,
    *operations: str | None,
    attempts: int = 1,
    payment: UUID | None = None,
    intent: str | None = None,
) -> Verdict:
    """Events of one object, each caused by a request for an operation, or not; of this payment unless told."""
    named = None if intent else payment or desk.stream
    entries = [
        Entry("evt_1", "charge.updated", intent, named, name, None, None, fence=1, attempts=attempts)
        for name in operations
    ]
    return asyncio.run(desk.inbox.handle(entries))


def test_a_movement_made_by_hand_is_heard_of(captured: RecoveryDesk) -> None:
    captured.gateway.refund_by_hand(30_00)
    assert handle(captured, None) == Verdict("done")
    assert captured.payment.refunded == usd(30_00)
    last = captured.envelopes()[-1]
    assert (last.actor, last.correlation) == ("provider", "evt_1")
    captured.agree()


def test_what_our_own_call_has_told_is_not_asked_for_again(captured: RecoveryDesk) -> None:
    assert handle(captured, "cap_1", "auth_1", "cap_1") == Verdict("done", "our own call")
    assert captured.gateway.looked == 0


def test_what_comes_with_the_echo_of_our_own_call_is_not_taken_for_one(captured: RecoveryDesk) -> None:
    captured.gateway.refund_by_hand(30_00)
    assert handle(captured, "cap_1", None) == Verdict("done")
    assert captured.payment.refunded == usd(30_00)


@pytest.mark.parametrize("named", ["cap_1", "of_another_payment"])
def test_what_our_own_call_has_not_told_is_learned(desk: RecoveryDesk, named: str) -> None:
    desk.ask(authorize())
    desk.gateway.will(REPLY_LOST)
    desk.ask(Capture("cap_1"))
    desk.now += ABANDONED_AFTER
    assert handle(desk, named) == Verdict("done")
    assert desk.payment.captured == usd(100_00)


def test_a_call_of_ours_that_is_under_way_is_waited_for_once(desk: RecoveryDesk) -> None:
    desk.ask(authorize())
    desk.gateway.will(REPLY_LOST)
    desk.ask(Capture("cap_1"))
    desk.now += ABANDONED_AFTER - A_MOMENT
    assert handle(desk, "cap_1") == Verdict("waiting", "an operation is under way", pause(0))
    assert desk.gateway.looked == 0
    assert handle(desk, "cap_1", attempts=2) == Verdict("done")
    assert desk.payment.captured == usd(100_00)


def test_nobody_acts_while_the_cardholder_is_waited_for(desk: RecoveryDesk) -> None:
    desk.gateway.will(Behaviour(challenges=True))
    desk.ask(authorize())
    desk.gateway.cardholder_authenticates()
    assert handle(desk, None) == Verdict("done")
    assert desk.payment.status == "authorized"


def test_an_object_without_a_mark_belongs_to_the_payment_of_its_payment_intent(captured: RecoveryDesk) -> None:
    captured.gateway.dispute()
    assert handle(captured, None, intent=captured.gateway.intent.id) == Verdict("done")
    assert captured.payment.status == "disputed"


def test_what_belongs_to_no_payment_of_ours_is_unmatched(desk: RecoveryDesk) -> None:
    assert handle(desk, None, payment=uuid4()).state == "unmatched"
    assert handle(desk, None, intent="pi_of_another_system").state == "unmatched"
    assert desk.facts() == []


def test_a_contradiction_is_looked_at_again_and_then_left_to_a_person(captured: RecoveryDesk) -> None:
    captured.gateway.intent.received -= 1
    facts = captured.facts()
    for attempts in range(1, MAX_CONTRADICTIONS):
        verdict = handle(captured, None, attempts=attempts)
        assert (verdict.state, verdict.wait) == ("waiting", pause(attempts))
    assert handle(captured, None, attempts=MAX_CONTRADICTIONS).state == "stuck"
    assert captured.facts() == facts


def test_nobody_is_called_before_recovery_had_its_time() -> None:
    """An operation of ours may look like a contradiction until its lease has ended and another has finished it."""
    patience = sum((pause(attempts) for attempts in range(1, MAX_CONTRADICTIONS)), timedelta())
    assert patience > ABANDONED_AFTER + recovery.LEASE + LONGEST_WAIT + timedelta(seconds=OPERATION_DEADLINE_S)


@pytest.mark.parametrize("attempts", [1, MAX_CONTRADICTIONS, 100_000])
def test_a_provider_that_does_not_answer_is_asked_again_as_long_as_it_takes(
    captured: RecoveryDesk, attempts: int
) -> None:
    captured.gateway.dispute()
    captured.gateway.will(UNHEARD)
    verdict = handle(captured, None, attempts=attempts)
    assert (verdict.state, verdict.note) == ("waiting", "NotLearned: timeout")
    assert timedelta() < verdict.wait <= LONGEST_WAIT
    captured.gateway.will(UNHEARD)
    assert handle(captured, None, attempts=attempts, intent="pi_1").state == "waiting"
    assert handle(captured, None, attempts=attempts) == Verdict("done")


def test_a_payment_that_cannot_be_read_does_not_hold_up_the_others(desk: RecoveryDesk) -> None:
    errors: list[Exception] = [StoreUnavailable("down"), RuntimeError("unreadable")]

    async def down(_: object) -> Any:
        raise errors.pop(0)

    streams = PaymentStreams(desk.ledger, desk.clock, down)
    desk.inbox = Inbox(streams, Settlement(streams, desk.gateway, desk.clock), desk.gateway, desk.clock)
    for note in ("StoreUnavailable: down", "RuntimeError"):
        verdict = handle(desk, None, attempts=1_000)
        assert (verdict.state, verdict.note, verdict.wait) == ("waiting", note, LONGEST_WAIT)


# --- In any order, twice, or not at all --------------------------------------------------------------------------


class Deliveries:
    """A payment whose provider tells what happens in any order, some of it twice and some of it not at all.

    Others act at the provider meanwhile, and replies to our own calls get lost.
    """

    def __init__(self, desk: RecoveryDesk, conn: AsyncConnection[Any], random: Random, *, lossy: bool) -> None:
        self.desk = desk
        self.conn = conn
        self.random = random
        self.lossy = lossy
        self.on_their_way: list[Event] = []
        self.names = count(2)

    async def run(self) -> None:
        await self._ask(authorize(capture=self.random.choice(["manual", "manual", "automatic"])))
        for _ in range(25):
            await self.random.choice([self._we_act, self._others_act, self._others_act, self._deliver, self._work])()
            self.desk.now += timedelta(seconds=self.random.choice([0, 1, 10, 60]))
        while self.on_their_way:
            await self._deliver()
        await self._recover()
        for _ in range(10):  # recovery has settled what looked like a contradiction
            self.desk.now += LEASE
            await self._work()

    async def _we_act(self) -> None:
        minor = self.random.choice([None, 10_00, 40_00, 100_00])
        name = str(next(self.names))
        wishes: list[Wish] = [Capture(f"cap_{name}", minor), Void(f"void_{name}"), Refund(f"re_{name}", minor)]
        await self._ask(self.random.choice([*wishes, Refund(f"re_{name}", 10_00), authorize(f"auth_{name}")]))

    async def _ask(self, wish: Wish) -> None:
        arrives = self.random.choice([True, True, True, False])
        declines, challenges = self.random.choice([(False, False), (False, False), (True, False), (False, True)])
        behaviour = Behaviour(arrives, arrives and self.random.random() < 0.7, declines, challenges)
        self.desk.gateway.will(behaviour)
        with suppress(Refusal):
            await self.desk.asking(wish)
        self.desk.gateway._next.clear()  # it was refused before it was sent
        self._told(wish.operation if self.random.random() < 0.5 else None)

    async def _others_act(self) -> None:
        gateway, random = self.desk.gateway, self.random
        if not gateway.intents:
            return
        minor = random.choice([1, 10_00, 40_00])
        waiting = [intent for intent in gateway.intents.values() if intent.status == "requires_action"]
        if len(waiting) == 1 and random.random() < 0.7:
            gateway.cardholder_authenticates(successfully=random.random() < 0.7)
        else:
            # A part that is taken just before we release the rest is for a person: see test_settlement.py.
            acts: list[Callable[[], object]] = [
                lambda: gateway.capture_by_hand(minor),
                lambda: random.random() < 0.3 and gateway.release_by_hand(ran_out=random.random() < 0.5),
                lambda: gateway.refund_by_hand(minor),
                lambda: gateway.undo_refund(random.randrange(3)),
                lambda: gateway.dispute(random.choice(["open", "won", "lost"])),
            ]
            random.choice(acts)()
        self._told(None)

    def _told(self, operation: str | None) -> None:
        """One thing that happens is told in several events; some are marked, some only name the PaymentIntent."""
        if not self.desk.gateway.intents:
            return
        for kind in ("payment_intent.updated", "charge.updated"):
            marked = self.random.random() < 0.5
            told = event(
                kind,
                payment=self.desk.stream if marked else None,
                intent=self.desk.gateway.latest.id,
                operation=operation if marked else None,
            )
            if not self.lossy or self.random.random() < 0.5:
                self.on_their_way += [told] * self.random.choice([1, 1, 2])

    async def _deliver(self) -> None:
        self.random.shuffle(self.on_their_way)
        some = self.random.randrange(1, 6)
        delivered, self.on_their_way = self.on_their_way[:some], self.on_their_way[some:]
        if delivered:
            await store(self.conn, delivered, self.desk.now)

    async def _work(self) -> None:
        await self._recover(ABANDONED_AFTER)  # one process does both
        entries = await take(self.conn, self.desk.now, 100)
        entries.sort(key=lambda entry: int(entry.event_id.removeprefix("evt_")))
        for about in dict.fromkeys(entry.payment or entry.payment_intent for entry in entries):
            group = [entry for entry in entries if (entry.payment or entry.payment_intent) == about]
            if self.random.random() < 0.2:
                self.desk.gateway.will(UNHEARD)
            verdict = await self.desk.inbox.handle(group)
            self.desk.gateway._next.clear()
            await give_back(self.conn, [(entry, verdict) for entry in group], self.desk.now)

    async def _recover(self, age: timedelta = timedelta()) -> None:
        history = await self.desk.payments.history(self.desk.stream)
        assert history.payment is not None
        for name, operation in history.payment.operations.items():
            started = history.started(name)
            if operation.outcome == "open" and started is not None and self.desk.now - started.at >= age:
                await self.desk.recovery.settle(self.desk.stream, name)


def agree(desk: RecoveryDesk) -> None:
    if desk.payment.payment_intent is None:
        assert not any(intent.received for intent in desk.gateway.intents.values())
        return
    desk.agree()
    intent = desk.gateway.intents[desk.payment.payment_intent]
    assert desk.payment.disputed == any(one.outcome != "won" for one in intent.disputes.values())
    waiting = intent.status == "requires_action"
    still_open = [name for name, one in desk.payment.operations.items() if one.outcome == "open"]
    assert still_open == ([desk.payment.authorization] if waiting else [])


def play(url: str, desk: RecoveryDesk, seed: int, *, lossy: bool) -> None:
    random = Random(f"{seed} {lossy}")
    on(url, lambda conn: Deliveries(desk, conn, random, lossy=lossy).run())


@pytest.mark.parametrize("seed", range(25))
def test_events_in_any_order_and_twice_lead_to_where_the_provider_is(url: str, ledger: Ledger, seed: int) -> None:
    desk = RecoveryDesk(ledger, multicapture=bool(seed % 2))
    play(url, desk, seed, lossy=False)
    assert set(states(url).values()) <= {"done"}
    agree(desk)


@pytest.mark.parametrize("seed", range(25))
def test_where_events_were_lost_one_look_leads_to_where_the_provider_is(url: str, ledger: Ledger, seed: int) -> None:
    desk = RecoveryDesk(ledger, multicapture=bool(seed % 2))
    play(url, desk, seed, lossy=True)
    with suppress(NotLearned, Contended):
        desk.learn()
    agree(desk)
    facts = desk.facts()
    desk.learn()
    assert desk.facts() == facts


# --- The sweep ---------------------------------------------------------------------------------------------------


class Listed:
    """The provider's list of events, newest first, two on a page; `asked` holds each question."""

    def __init__(self, *events: Event) -> None:
        self.events = list(events)
        self.asked: list[tuple[datetime, str | None]] = []
        self.fails_at: int | None = None

    async def __call__(self, since: datetime, after: str | None) -> EventPage | Unknown:
        self.asked.append((since, after))
        if self.fails_at == len(self.asked):
            return Unknown("timeout")
        names = [one.event_id for one in self.events]
        begin = names.index(after) + 1 if after else 0
        page = tuple(self.events[begin : begin + 2])
        return EventPage(page, page[-1].event_id if begin + 2 < len(names) else None)


def swept(url: str, listed: Listed, now: datetime = NOON) -> int | None:
    return on(url, lambda conn: sweep(conn, listed, now))


def until(url: str) -> datetime | None:
    with psycopg.connect(url) as conn:
        row: tuple[datetime] | None = conn.execute("SELECT until FROM sweeps").fetchone()
    return row[0] if row else None


def test_a_sweep_reads_the_whole_list(url: str) -> None:
    listed = Listed(*(event(name=f"evt_{number}") for number in range(5)))
    keep(url, listed.events[1])
    assert swept(url, listed) == 5
    assert [after for _, after in listed.asked] == [None, "evt_1", "evt_3"]
    assert {name for name, _ in states(url)} == {f"evt_{number}" for number in range(5)}
    assert until(url) == NOON


def test_an_empty_list_is_a_sweep_too(url: str) -> None:
    assert swept(url, Listed()) == 0
    assert until(url) == NOON


def test_a_sweep_that_was_cut_off_keeps_what_it_read_and_is_made_again_from_its_beginning(url: str) -> None:
    swept(url, Listed())
    later = NOON + timedelta(hours=1)
    listed = Listed(*(event(name=f"evt_{number}") for number in range(5)))
    listed.fails_at = 2
    assert swept(url, listed, later) is None
    assert (len(states(url)), until(url)) == (2, NOON)
    assert swept(url, listed, later + timedelta(hours=1)) == 5
    assert {since for since, _ in listed.asked} == {NOON - OVERLAP}
    assert (len(states(url)), until(url)) == (5, later + timedelta(hours=1))


def test_a_sweep_goes_back_a_little_beyond_the_last_one_and_never_beyond_the_list(url: str) -> None:
    listed = Listed()
    for now in (NOON, NOON + timedelta(minutes=1), NOON + timedelta(days=90)):
        swept(url, listed, now)
    assert [since for since, _ in listed.asked] == [
        NOON - FURTHEST,
        NOON - OVERLAP,
        NOON + timedelta(days=90) - FURTHEST,
    ]


def test_a_list_without_an_end_ends(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "MAX_PAGES", 3)
    listed = Listed(*(event() for _ in range(7)))
    assert swept(url, listed) is None
    assert (len(listed.asked), until(url)) == (3, None)


def test_one_process_sweeps_until_it_ends(url: str) -> None:
    async def three(first: AsyncConnection[Any]) -> list[bool]:
        async with await AsyncConnection.connect(url, autocommit=True) as second:
            found = [await alone(first), await alone(second), await alone(first)]
            await first.close()
            for _ in range(1_000):  # the server notices in its own time
                if await alone(second):
                    return [*found, True]
        return found

    assert on(url, three) == [True, False, True, True]
