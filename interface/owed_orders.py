"""What is owed to orders after the fact, worked off the read model that lists it: see application/order_returns.py.

The list trails the log a little, and several processes may work on it at once: each look is at the facts themselves.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from application.order_returns import OrderReturns
from projections import orders

log = logging.getLogger(__name__)

MAX_LISTED = 1_000
MAX_AT_ONCE = 16
# Between two looks at the list.
LOOK_S = 0.5
# What is listed although nothing is owed: the list has not caught up yet, or contested money is waited for.
NOTHING_OWED = timedelta(seconds=5)


class OwedOrders:
    """One a process."""

    def __init__(
        self,
        pool: AsyncConnectionPool[AsyncConnection[Any]],
        returns: OrderReturns,
        clock: Callable[[], datetime],
    ) -> None:
        self._pool = pool
        self._returns = returns
        self._clock = clock
        # When each is worth another try, and what was said of it; of those that are listed no more, nothing is kept.
        self._next: dict[UUID, tuple[datetime, str]] = {}
        self._at_once = asyncio.Semaphore(MAX_AT_ONCE)

    async def owed_to_orders(self) -> None:
        """For ever. Raises psycopg.Error or PoolTimeout when the list cannot be read."""
        while True:
            async with self._pool.connection() as conn:
                listed = [at.id for at in await orders.owed(conn, MAX_LISTED)]
                listed += [at.id for at in await orders.unrecorded(conn, MAX_LISTED)]
            now = self._clock()
            self._next = {payment: self._next.get(payment, (now, "")) for payment in listed}
            due = [payment for payment, (at, _) in self._next.items() if at <= now]
            await asyncio.gather(*map(self._settle, due))
            await asyncio.sleep(LOOK_S)

    async def _settle(self, payment: UUID) -> None:
        async with self._at_once:
            pending = await self._returns.settle(payment)
        wait, said = (pending.wait, pending.reason) if pending else (NOTHING_OWED, "nothing more")
        if said != self._next[payment][1]:
            log.info("owed to an order: %s", said, extra={"payment": str(payment)})
        self._next[payment] = self._clock() + wait, said
