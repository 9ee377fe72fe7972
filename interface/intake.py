"""Webhooks into the inbox: those that come at once are stored together, and each is answered when it is there."""

import asyncio
import contextlib
from collections.abc import Callable
from datetime import datetime
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from application.event_store import StoreUnavailable
from application.inbox import Event, store

MAX_BATCH = 200
# More than this at once is for the provider to send again later.
MAX_WAITING = 2_000


class Intake:
    """Lives in one event loop. `stored` is called when something new may be in the inbox."""

    def __init__(
        self,
        pool: AsyncConnectionPool[AsyncConnection[Any]],
        clock: Callable[[], datetime],
        stored: Callable[[], None],
    ) -> None:
        self._pool = pool
        self._clock = clock
        self._stored = stored
        self._waiting: list[tuple[Event, asyncio.Future[None]]] = []
        self._task: asyncio.Task[None] | None = None

    async def keep(self, event: Event) -> None:
        """Return once the event is durably in the inbox. Raises StoreUnavailable."""
        if len(self._waiting) >= MAX_WAITING:
            raise StoreUnavailable("too many webhooks at once")
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((event, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._drain(), name="intake")
        await future

    async def close(self) -> None:
        if self._task is not None:
            with contextlib.suppress(Exception):
                await self._task

    async def _drain(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
            error = await self._store([event for event, _ in batch])
            for _, future in batch:
                if future.done():  # its sender has gone away
                    continue
                if error is None:
                    future.set_result(None)
                else:
                    future.set_exception(StoreUnavailable(error))
        self._stored()

    async def _store(self, events: list[Event]) -> str | None:
        """Nothing, or why they may not be there."""
        try:
            async with self._pool.connection() as conn:
                await store(conn, events, self._clock())
        except (psycopg.Error, PoolTimeout) as error:
            return type(error).__name__
        return None
