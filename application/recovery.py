"""Finishing what was interrupted: every operation that has started and not ended is taken up, by one worker at a time.

A worker holds a lease, with a fence: whoever takes over counts it up, and what the former holder says of the operation
afterwards is not heard. Should both act all the same, they act under one key at the provider and on one version of the
stream here, so the money moves once and is recorded once.
"""

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from msgspec import Struct
from psycopg import AsyncConnection

from application.event_store import StoreUnavailable
from application.history import History
from application.payment_stream import Context, PaymentStreams
from application.settlement import Contended, NotLearned, Settlement
from domain.payment import Phase

log = logging.getLogger(__name__)

ACTOR = "recovery"
# Longer than a call to the provider and a look after it may take; afterwards another worker may take over.
LEASE = timedelta(seconds=90)
FIRST_WAIT = timedelta(seconds=1)
LONGEST_WAIT = timedelta(seconds=20)
# The cardholder has hours to authenticate, and the provider says when they did: we look for what it did not say.
PATIENCE = timedelta(minutes=10)
LONGEST_PATIENCE = timedelta(hours=1)
# Tries outlive the operation that they were for so long at least.
KEEP = timedelta(days=1)
MAX_REASON = 200
WAITING = "waits for the cardholder"


class Lease(Struct, frozen=True):
    payment: UUID
    operation: str
    fence: int
    attempts: int


# --- Leases ------------------------------------------------------------------------------------------------------


async def let_go(conn: AsyncConnection[Any], payment: UUID, operation: str, reason: str, now: datetime) -> None:
    """Say that an operation's own worker gave up, so that it need not be waited for."""
    await conn.execute(
        "INSERT INTO operation_tries VALUES (%s, %s, 0, 0, %s, %s, %s) ON CONFLICT DO NOTHING",
        (payment, operation, now, now + FIRST_WAIT, reason[:MAX_REASON]),
    )


async def take(conn: AsyncConnection[Any], payment: UUID, operation: str, now: datetime) -> Lease | None:
    """The lease of an operation, unless somebody else holds it or it is not its time."""
    cursor = await conn.execute(
        "INSERT INTO operation_tries AS held VALUES (%s, %s, 1, 1, %s, %s, 'tried for the first time')"
        " ON CONFLICT (payment, operation) DO UPDATE SET fence = held.fence + 1, attempts = held.attempts + 1,"
        " held_until = excluded.held_until WHERE held.held_until <= %s AND held.next_try <= %s"
        " RETURNING fence, attempts",
        (payment, operation, now + LEASE, now, now, now),
    )
    row = await cursor.fetchone()
    return Lease(payment, operation, *row) if row else None


async def give_back(
    conn: AsyncConnection[Any], lease: Lease, reason: str | None, now: datetime, wait: timedelta
) -> None:
    """End a lease: for good, or until the next try. Without effect when somebody else has taken over."""
    key = (lease.payment, lease.operation, lease.fence)
    if reason is None:
        await conn.execute("DELETE FROM operation_tries WHERE payment = %s AND operation = %s AND fence = %s", key)
        return
    await conn.execute(
        "UPDATE operation_tries SET held_until = %s, next_try = %s, reason = %s"
        " WHERE payment = %s AND operation = %s AND fence = %s",
        (now, now + wait, reason[:MAX_REASON], *key),
    )


async def forget(conn: AsyncConnection[Any], now: datetime) -> None:
    """Drop what is left of operations that ended by themselves."""
    await conn.execute(
        "DELETE FROM operation_tries AS tries WHERE next_try < %s AND NOT EXISTS (SELECT FROM open_operations AS o"
        " WHERE o.payment = tries.payment AND o.operation = tries.operation)",
        (now - KEEP,),
    )


def pause(attempts: int, first: timedelta = FIRST_WAIT, longest: timedelta = LONGEST_WAIT) -> timedelta:
    """Until the next try: doubling, up to a limit."""
    return min(first * (1 << min(attempts, 20)), longest)


# --- One operation -----------------------------------------------------------------------------------------------


class Recovery:
    """Brings one operation to its end. Blocks nobody and raises nothing: what is left open has a reason."""

    def __init__(self, streams: PaymentStreams, settlement: Settlement, clock: Callable[[], datetime]) -> None:
        self._streams = streams
        self._settlement = settlement
        self._clock = clock

    async def settle(self, payment: UUID, operation: str) -> str | None:
        """None when the operation has ended; otherwise why it has not.

        While its key lives it is sent again under that key: either it is carried out now, or the provider repeats
        what it answered then. A key that is too old would be a new charge, so from then on we only look.
        """
        try:
            history = await self._streams.load(payment)
            if history.payment is None or operation not in history.payment.operations:
                return "there is no such operation"
            if history.payment.operations[operation].outcome != "open":
                return None
            started = history.started(operation)
            context = Context(ACTOR, started.correlation if started else operation, started.id if started else None)
            waiting = history.payment.phase is Phase.ACTION_REQUIRED and operation == history.payment.authorization
            if waiting or not self._settlement.key_lives(history, operation):
                settled = await self._settlement.learn(payment, context)
            else:
                settled = await self._settlement.perform(history, operation, context)
                if _is_open(settled, operation):  # an answer that was kept may repeat for ever what tells nothing
                    settled = await self._settlement.learn(payment, context)
        except (NotLearned, Contended, StoreUnavailable) as error:
            return f"{type(error).__name__}: {error}"
        except Exception as error:  # a payment that cannot even be read must not hold up the others
            log.exception("an operation could not be settled", extra={"payment": str(payment)})
            return type(error).__name__
        if not _is_open(settled, operation):
            return None
        return WAITING if waiting else "the provider has not told"


def _is_open(history: History, operation: str) -> bool:
    assert history.payment is not None  # noqa: S101  it was there before
    return history.payment.operations[operation].outcome == "open"
