"""Tokens that were taken back before they expired: refused at once here, and within a second by every other process."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool, PoolTimeout

log = logging.getLogger(__name__)

# How often a process looks for what others took back.
LOOK_S = 0.5
# A look goes back so far, because clocks differ and what is committed late is dated early.
OVERLAP = timedelta(seconds=30)
PURGE_S = 600.0
# Without a date of expiry a token is refused for so long; none of ours lives longer.
LONGEST_LIFETIME = timedelta(days=400)
MAX_TOKEN_ID = 200


class Invalidated:
    """Lives in one event loop. Called with a token's id, it tells whether that token was taken back."""

    def __init__(self, pool: AsyncConnectionPool[AsyncConnection[Any]], clock: Callable[[], datetime]) -> None:
        self._pool = pool
        self._clock = clock
        self._until: dict[str, datetime] = {}
        self._looked: datetime | None = None
        self._task: asyncio.Task[None] | None = None

    def __call__(self, token_id: str) -> bool:
        return token_id in self._until

    async def open(self) -> None:
        """Learn what was taken back before this process began, as far as the database answers, and follow."""
        with contextlib.suppress(psycopg.Error, PoolTimeout):
            await self._look()
        self._task = asyncio.create_task(self._follow(), name="invalidated tokens")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def invalidate(self, token_id: str, expires_at: datetime | None = None) -> None:
        """Take a token back. Asked twice it is the same. Raises psycopg.Error when it could not be written down."""
        now = self._clock()
        until = expires_at or now + LONGEST_LIFETIME
        async with self._pool.connection() as conn:
            await write_down(conn, token_id, until, now)
        self._until[token_id] = until

    async def _follow(self) -> None:
        loop = asyncio.get_running_loop()
        purge_s = loop.time() + PURGE_S
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self._look()
                if loop.time() >= purge_s:
                    purge_s = loop.time() + PURGE_S
                    await self._purge()
            except (psycopg.Error, PoolTimeout) as error:
                log.warning("invalidated tokens could not be read: %s", type(error).__name__)

    async def _look(self) -> None:
        now = self._clock()
        since = self._looked - OVERLAP if self._looked else datetime.min.replace(tzinfo=now.tzinfo)
        query = "SELECT jti, expires_at FROM invalidated_tokens WHERE invalidated_at >= %s AND expires_at > %s"
        async with self._pool.connection() as conn:
            rows = await (await conn.execute(query, (since, now), prepare=True)).fetchall()
        self._looked = now
        self._until.update(rows)

    async def _purge(self) -> None:
        """Forget tokens that have expired: they are refused for that."""
        now = self._clock()
        self._until = {token_id: until for token_id, until in self._until.items() if until > now}
        async with self._pool.connection() as conn:
            await conn.execute("DELETE FROM invalidated_tokens WHERE expires_at <= %s", (now,))


async def write_down(conn: AsyncConnection[Any], token_id: str, until: datetime, now: datetime) -> None:
    """Have every process refuse the token until it has expired."""
    await conn.execute(
        "INSERT INTO invalidated_tokens (jti, expires_at, invalidated_at) VALUES (%s, %s, %s) ON CONFLICT (jti)"
        " DO UPDATE SET expires_at = greatest(invalidated_tokens.expires_at, excluded.expires_at)",
        (token_id, until, now),
    )
