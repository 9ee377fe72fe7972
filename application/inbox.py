"""The inbox: what the provider says happened, kept once, and handled once whoever delivers it how often in which order.

What handling it means: application/inbox_handling.py.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from msgspec import Struct
from psycopg import AsyncConnection
from psycopg.rows import class_row

OF_PAYMENTS = ("payment_intent.", "charge.", "refund.")
OF_CUSTOMERS = ("customer.updated", "customer.deleted", "customer.subscription.", "invoice.", "payment_method.")
HANDLED = OF_PAYMENTS + OF_CUSTOMERS
LEASE = timedelta(seconds=60)
# Events of one payment come in bursts: the first is left alone so long, and what came with it is handled with it.
GATHER = timedelta(milliseconds=300)
MAX_NOTE = 300
# The provider lists its events 30 days back, so what is forgotten later can never come again.
KEEP = timedelta(days=35)

State = Literal["waiting", "done", "ignored", "unmatched", "stuck"]


class Event(Struct, frozen=True):
    """Of an event only what is not personal. `payment` is ours, when the object is marked with it; `operation`, when
    a request under its key caused the event. `payment_intent` is the provider's name for the payment it is about;
    `customer` and `subscription`, for those that the object names.
    """

    event_id: str
    type: str
    object_id: str
    payment_intent: str | None
    payment: UUID | None
    operation: str | None
    created_at: datetime
    account: str | None = None
    customer: str | None = None
    subscription: str | None = None

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
    customer: str | None
    subscription: str | None
    fence: int
    attempts: int

    @property
    def about(self) -> object:
        """Entries about the same are handled together."""
        return self.payment or self.customer or self.payment_intent


class Verdict(Struct, frozen=True):
    """What became of an entry. While it is `waiting`, it is handled again after `wait`."""

    state: State
    note: str = ""
    wait: timedelta = timedelta()


# --- The table ---------------------------------------------------------------------------------------------------

_STORE = """
INSERT INTO inbox (event_id, type, object_id, payment_intent, payment, operation, customer, subscription, created_at,
    received_at, state, note, held_until, next_try)
SELECT event_id, type, object_id, payment_intent, payment, operation, customer, subscription, created_at,
    %b, state, note, %b, %b
FROM unnest(%b::text[], %b::text[], %b::text[], %b::text[], %b::uuid[], %b::text[], %b::text[], %b::text[],
    %b::timestamptz[], %b::text[], %b::text[]) AS event (event_id, type, object_id, payment_intent, payment, operation,
    customer, subscription, created_at, state, note)
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
RETURNING inbox.event_id, inbox.type, payment_intent, payment, operation, customer, subscription, fence, attempts
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
    if event.payment is None and event.payment_intent is None and event.customer is None:
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
        [event.customer for event in events],
        [event.subscription for event in events],
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
