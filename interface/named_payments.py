"""Orders and the payments that name them, for whoever is about to take money: as they stand by now, or not at all."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import tuple_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from application.event_store import StoreUnavailable
from domain.facts import NAMES
from domain.order_facts import OrderPlaced
from domain.payment import PaymentAt
from interface.progress import Progress
from projections import orders
from projections.together import Together

# The read model trails the log by a fraction of a second; who pays waits so long for it, and is told to come back then.
MAX_WAIT_S = 5.0
_ANNOUNCED = (
    "SELECT originator_id FROM ledger_events WHERE originator_id = ANY(%s) AND originator_version = 1 AND topic = %s"
)
_LAST = "SELECT coalesce(max(notification_id), 0) FROM ledger_events"


class NamedPayments:
    """See Announced and Named in application/orders.py."""

    def __init__(self, pool: AsyncConnectionPool[AsyncConnection[Any]], progress: Progress) -> None:
        self._pool = pool
        self._progress = progress
        self._together = Together(self._which)

    async def announced(self, stream: UUID) -> bool:
        """Whether that order's stream is in the log. Those that are asked for meanwhile are looked for together.

        Raises StoreUnavailable.
        """
        try:
            return await self._together.find(stream) is not None
        except (psycopg.OperationalError, PoolTimeout) as error:
            raise StoreUnavailable from error

    async def _which(self, streams: Sequence[UUID]) -> dict[UUID, UUID]:
        async with self._pool.connection() as conn, conn.cursor(row_factory=tuple_row, binary=True) as cursor:
            await cursor.execute(_ANNOUNCED, (list(streams), NAMES[OrderPlaced]), prepare=True)
            return {stream: stream for (stream,) in await cursor.fetchall()}

    async def of(self, order: str) -> Sequence[PaymentAt]:
        """Raises StoreUnavailable, also when the read model does not know yet what is in the log now."""
        try:
            async with self._pool.connection() as conn, conn.cursor(row_factory=tuple_row) as cursor:
                row = await (await cursor.execute(_LAST)).fetchone()
            if not await self._progress.reached(orders.NAME, row[0] if row else 0, MAX_WAIT_S):
                raise StoreUnavailable("the orders' read model is behind")
            async with self._pool.connection() as conn:
                found = await orders.find(conn, order)
        except (psycopg.OperationalError, PoolTimeout) as error:
            raise StoreUnavailable from error
        return found.payments if found else ()
