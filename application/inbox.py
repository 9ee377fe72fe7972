"""The inbox: what the provider says happened, kept once, and handled once whoever delivers it how often in which order.

An event is taken as a hint that a payment may have moved, never as the movement itself: what is recorded is how the
payment stands at the provider now. So no order, repetition or loss of events can lead anywhere else.
"""

import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from msgspec import Struct
from psycopg import AsyncConnection
from psycopg.rows import class_row

from application.event_store import StoreUnavailable
from application.gateway import Absent, PaymentGateway, Unknown
from application.history import History
from application.payment_stream import Context, PaymentStreams
from application.recovery import pause
from application.settlement import ABANDONED_AFTER, Contended, Contradiction, NotLearned, Settlement
from domain.payment import Payment

log = logging.getLogger(__name__)

ACTOR = "provider"
HANDLED = ("payment_intent.", "charge.", "refund.")
LEASE = timedelta(seconds=60)
# Events of one payment come in bursts: the first is left alone so long, and what came with it is handled with it.
GATHER = timedelta(milliseconds=300)
LONGEST_WAIT = timedelta(seconds=20)
# A contradiction may be the trace of a movement under way; one that outlasts what recovery may need is for a person.
MAX_CONTRADICTIONS = 16
MAX_NOTE = 300
# The provider lists its events 30 days back, so what is forgotten later can never come again.
KEEP = timedelta(days=35)

State = Literal["waiting", "done", "ignored", "unmatched", "stuck"]


class Event(Struct, frozen=True):
    """Of an event only what is not personal. `payment` is ours, when the object is marked with it; `operation`, when
    a request under its key caused the event. `payment_intent` is the provider's name for the payment it is about.
    """

    event_id: str
    type: str
    object_id: str
    payment_intent: str | None
    payment: UUID | None
    operation: str | None
    created_at: datetime
    account: str | None = None

    @property
    def handled(self) -> bool:
        return self.type.startswith(HANDLED)


class EventPage(Struct, frozen=True):
    """Of the provider's own list; `next` continues it, when there is more."""

    events: tuple[Event, ...]
    next: str | None


class Entry(Struct, frozen=True):
    event_id: str
    type: str
    payment_intent: str | None
    payment: UUID | None
    operation: str | None
    fence: int
    attempts: int


class Verdict(Struct, frozen=True):
    """What became of an entry. While it is `waiting`, it is handled again after `wait`."""

    state: State
    note: str = ""
    wait: timedelta = timedelta()


# --- The table ---------------------------------------------------------------------------------------------------

_STORE = """
INSERT INTO inbox (event_id, type, object_id, payment_intent, payment, operation, created_at, received_at, state, note,
    held_until, next_try)
SELECT event_id, type, object_id, payment_intent, payment, operation, created_at, %b, state, note, %b, %b
FROM unnest(%b::text[], %b::text[], %b::text[], %b::text[], %b::uuid[], %b::text[], %b::timestamptz[], %b::text[],
    %b::text[]) AS event (event_id, type, object_id, payment_intent, payment, operation, created_at, state, note)
ON CONFLICT DO NOTHING
"""
# One payment's events together: what the first of them leads to settles the others.
_TAKE = """
WITH chosen AS (
    SELECT event_id, type FROM inbox WHERE state = 'waiting' AND next_try <= %s AND held_until <= %s
    ORDER BY next_try LIMIT %s FOR UPDATE SKIP LOCKED
)
UPDATE inbox SET fence = fence + 1, attempts = attempts + 1, held_until = %s FROM chosen
WHERE inbox.event_id = chosen.event_id AND inbox.type = chosen.type
RETURNING inbox.event_id, inbox.type, payment_intent, payment, operation, fence, attempts
"""
_GIVE_BACK = """
UPDATE inbox SET state = given.state, note = given.note, held_until = %b, next_try = given.next_try
FROM unnest(%b::text[], %b::text[], %b::bigint[], %b::text[], %b::text[], %b::timestamptz[])
    AS given (event_id, type, fence, state, note, next_try)
WHERE inbox.event_id = given.event_id AND inbox.type = given.type AND inbox.fence = given.fence
"""


def first_verdict(event: Event) -> Verdict:
    """What can be said of an event when it comes."""
    if event.account is not None:
        return Verdict("unmatched", f"for the account {event.account}"[:MAX_NOTE])
    if not event.handled:
        return Verdict("ignored")
    if event.payment is None and event.payment_intent is None:
        return Verdict("unmatched", "names no payment of ours")
    return Verdict("waiting")


async def store(conn: AsyncConnection[Any], events: Sequence[Event], now: datetime) -> None:
    """Keep events that are new; those that are known stay as they are."""
    verdicts = [first_verdict(event) for event in events]
    columns = (
        [event.event_id for event in events],
        [event.type for event in events],
        [event.object_id for event in events],
        [event.payment_intent for event in events],
        [event.payment for event in events],
        [event.operation for event in events],
        [event.created_at for event in events],
        [verdict.state for verdict in verdicts],
        [verdict.note for verdict in verdicts],
    )
    await conn.execute(_STORE, (now, now, now + GATHER, *columns), prepare=True)


async def take(conn: AsyncConnection[Any], now: datetime, limit: int) -> list[Entry]:
    """Entries whose time has come, under a lease of ours."""
    async with conn.cursor(row_factory=class_row(Entry)) as cursor:
        await cursor.execute(_TAKE, (now, now, limit, now + LEASE), prepare=True)
        return await cursor.fetchall()


async def give_back(conn: AsyncConnection[Any], verdicts: Sequence[tuple[Entry, Verdict]], now: datetime) -> None:
    """Say what became of entries. What another worker has taken over meanwhile is left to it."""
    columns = (
        [entry.event_id for entry, _ in verdicts],
        [entry.type for entry, _ in verdicts],
        [entry.fence for entry, _ in verdicts],
        [verdict.state for _, verdict in verdicts],
        [verdict.note[:MAX_NOTE] for _, verdict in verdicts],
        [now + verdict.wait for _, verdict in verdicts],
    )
    await conn.execute(_GIVE_BACK, (now, *columns), prepare=True)


async def forget(conn: AsyncConnection[Any], now: datetime) -> None:
    """Drop what was dealt with so long ago that it cannot come again."""
    await conn.execute(
        "DELETE FROM inbox WHERE state IN ('done', 'ignored', 'unmatched') AND received_at < %s", (now - KEEP,)
    )


# --- Handling ----------------------------------------------------------------------------------------------------


class Inbox:
    """Raises nothing: what could not be handled waits, and says why."""

    def __init__(
        self,
        streams: PaymentStreams,
        settlement: Settlement,
        gateway: PaymentGateway,
        clock: Callable[[], datetime],
    ) -> None:
        self._streams = streams
        self._settlement = settlement
        self._gateway = gateway
        self._clock = clock

    async def handle(self, entries: Sequence[Entry]) -> Verdict:
        """Bring up to date the payment that these entries are about, which all name the same object."""
        first, attempts = entries[0], max(entry.attempts for entry in entries)
        try:
            payment = await self._payment(first)
            if isinstance(payment, Verdict):
                return payment
            history = await self._streams.load(payment)
            if history.payment is None:
                return Verdict("unmatched", "is marked with a payment that is not in this ledger")
            if all(_known(history.payment, entry.operation) for entry in entries):
                return Verdict("done", "our own call")
            if attempts == 1 and self._somebody_acts(history):
                return Verdict("waiting", "an operation is under way", pause(0))
            await self._settlement.learn(payment, Context(ACTOR, first.event_id, first.event_id))
        except Contradiction as error:
            return Verdict("stuck" if attempts >= MAX_CONTRADICTIONS else "waiting", str(error), pause(attempts))
        except (NotLearned, Contended, StoreUnavailable) as error:
            return Verdict("waiting", f"{type(error).__name__}: {error}", pause(attempts, longest=LONGEST_WAIT))
        except Exception as error:  # a payment that cannot even be read must not hold up the others
            log.exception("events could not be handled")
            return Verdict("waiting", type(error).__name__, pause(attempts, longest=LONGEST_WAIT))
        return Verdict("done")

    async def _payment(self, entry: Entry) -> UUID | Verdict:
        """An object that was made at the provider by hand bears no mark of ours, but what it was made for does."""
        if entry.payment is not None:
            return entry.payment
        found = await self._gateway.payment_of(entry.payment_intent or "")
        if isinstance(found, Unknown):
            return Verdict("waiting", found.reason, pause(entry.attempts, longest=LONGEST_WAIT))
        return Verdict("unmatched", "names no payment of ours") if isinstance(found, Absent) else found

    def _somebody_acts(self, history: History) -> bool:
        """Whether a worker is probably about to record what this event is about."""
        assert history.payment is not None  # noqa: S101  asked before
        now = self._clock()
        started = (
            history.started(name)
            for name, operation in history.payment.operations.items()
            if operation.outcome == "open"
        )
        acting = (one for one in started if one is not None and now - one.at < ABANDONED_AFTER)
        waits_for_us = history.payment.next_action is None
        return waits_for_us and any(acting)


def _known(payment: Payment, operation: str | None) -> bool:
    """Whether it only repeats what the reply to our own call has told already."""
    named = payment.operations.get(operation) if operation else None
    return named is not None and named.outcome == "done"
