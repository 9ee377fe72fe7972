"""How far each read model is, as its engine says it, for callers who wait to read their own writes."""

import asyncio
import contextlib
import logging
from collections import defaultdict
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import tuple_row

from projections.engine import CHANNEL
from projections.parking import TROUBLE

log = logging.getLogger(__name__)

RECONNECT_S = 0.5
CONNECT_TIMEOUT_S = 5
# Waiters beyond this are told at once that the read model is behind.
MAX_WAITING = 5_000
_STANDING = """
SELECT projection, position, stopped IS NOT NULL,
    EXISTS (SELECT FROM parked WHERE parked.projection = checkpoints.projection) FROM checkpoints
"""


class Progress:
    """Follows the engines' signals. Lives in one event loop."""

    def __init__(self, database_url: str) -> None:
        self._database_url = database_url
        self._positions: dict[str, int] = {}
        self._stopped: set[str] = set()
        self._parked: set[str] = set()
        self._waiting: defaultdict[str, set[tuple[int, asyncio.Future[None]]]] = defaultdict(set)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._follow(), name="progress")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def stopped(self, projection: str) -> bool:
        """Whether it has stopped by itself and waits for somebody to look."""
        return projection in self._stopped

    def has_parked(self, projection: str) -> bool:
        """Whether any of its streams is set aside."""
        return projection in self._parked

    async def reached(self, projection: str, position: int, timeout_s: float) -> bool:
        """Wait until the read model has this position, at most so long. False: it is still behind."""
        if self._positions.get(projection, 0) >= position:
            return True
        waiting = self._waiting[projection]
        if timeout_s <= 0 or len(waiting) >= MAX_WAITING:
            return False
        entry = (position, asyncio.get_running_loop().create_future())
        waiting.add(entry)
        try:
            async with asyncio.timeout(timeout_s):
                await entry[1]
        except TimeoutError:
            return False
        else:
            return True
        finally:
            waiting.discard(entry)

    def _moved(self, projection: str, position: int) -> None:
        self._positions[projection] = position
        self._stopped.discard(projection)
        for wanted, future in self._waiting[projection]:
            if wanted <= position and not future.done():
                future.set_result(None)

    async def _follow(self) -> None:
        while True:
            try:
                async with await AsyncConnection.connect(
                    self._database_url, connect_timeout=CONNECT_TIMEOUT_S, autocommit=True
                ) as conn:
                    await self._listen(conn)
            except psycopg.Error as error:
                log.warning("progress lost its database: %s", type(error).__name__)
                await asyncio.sleep(RECONNECT_S)

    async def _listen(self, conn: AsyncConnection[Any]) -> None:
        await conn.execute(f"LISTEN {CHANNEL}".encode())
        await conn.execute(f"LISTEN {TROUBLE}".encode())
        await self._look(conn)
        while True:
            trouble = False
            async for notice in conn.notifies(stop_after=1):
                projection, _, position = notice.payload.partition(" ")
                if notice.channel == CHANNEL:
                    self._moved(projection, int(position))
                else:
                    trouble = True
            if trouble:
                await self._look(conn)

    async def _look(self, conn: AsyncConnection[Any]) -> None:
        """Learn from the tables how everything stands."""
        async with conn.cursor(row_factory=tuple_row) as cursor:
            rows = await (await cursor.execute(_STANDING)).fetchall()
        for projection, position, _, _ in rows:
            self._moved(projection, position)
        self._stopped = {row[0] for row in rows if row[2]}
        self._parked = {row[0] for row in rows if row[3]}
