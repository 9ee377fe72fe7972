"""How often a caller may ask: two windows that slide, counted in the database, so that they hold across processes.

The times of a caller's latest requests stand in one row, at most as many as the larger window allows. A request that is
refused is not counted. Callers are kept by a digest of their name.
"""

import asyncio
import hashlib
import logging
import math
from collections.abc import Callable
from datetime import datetime
from typing import Any

import psycopg
from msgspec import Struct
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool, PoolTimeout

log = logging.getLogger(__name__)

# A caller that has not asked for so long is forgotten.
FORGET_AFTER_MS = 3_600_000
FORGET_EVERY_S = 600.0

# One statement, under the row's lock: whoever comes at the same time waits and then sees what we counted.
_COUNT = """
INSERT INTO recent_requests AS known (caller, at_ms, last_ms, granted)
VALUES (%(caller)s, ARRAY[%(now)s], %(now)s, true)
ON CONFLICT (caller) DO UPDATE SET last_ms = %(now)s, (at_ms, granted) = (
    SELECT CASE WHEN used_up THEN kept ELSE kept || %(now)s::bigint END, NOT used_up FROM (
        SELECT ARRAY(SELECT at FROM unnest(known.at_ms) AS at WHERE at > %(now)s - %(longest)s ORDER BY at) AS kept,
            EXISTS (
                SELECT FROM unnest(%(windows)s::bigint[], %(allowed)s::bigint[]) AS limits (window_ms, allowed)
                WHERE allowed <= (SELECT count(*) FROM unnest(known.at_ms) AS at WHERE at > %(now)s - window_ms)
            ) AS used_up
    ) AS recent
)
RETURNING at_ms, granted
"""


class Limit(Struct, frozen=True):
    """At most `requests` in any `seconds`."""

    requests: int
    seconds: int


class Standing(Struct, frozen=True):
    """Where a caller stands at the tightest limit. `reset` is when the next request is allowed or one more is regained,
    in Unix seconds; `retry_after_s` is set when this request is refused.
    """

    limit: int
    remaining: int
    reset: int
    retry_after_s: int | None = None


class RateLimits:
    """One a process. Without limits everybody may ask as often as they like."""

    def __init__(
        self,
        limits: tuple[Limit, ...],
        pool: AsyncConnectionPool[AsyncConnection[Any]],
        clock: Callable[[], datetime],
    ) -> None:
        self.limits = limits
        self._pool = pool
        self._clock = clock

    async def count(self, caller: str) -> Standing:
        """Count a request of this caller's, if it is allowed. Raises psycopg.Error."""
        now_ms = int(self._clock().timestamp() * 1000)
        values = {
            "caller": hashlib.sha256(caller.encode()).hexdigest(),
            "now": now_ms,
            "longest": max(limit.seconds for limit in self.limits) * 1000,
            "windows": [limit.seconds * 1000 for limit in self.limits],
            "allowed": [limit.requests for limit in self.limits],
        }
        async with self._pool.connection() as conn:
            cursor = await conn.execute(_COUNT, values, prepare=True)
            row = await cursor.fetchone()
        assert row is not None  # noqa: S101  an upsert returns its row
        return standing(self.limits, row[0], now_ms, granted=row[1])

    async def follow(self) -> None:
        """Forget quiet callers now and then, until cancelled."""
        while True:
            await asyncio.sleep(FORGET_EVERY_S)
            try:
                await self.forget()
            except (psycopg.Error, PoolTimeout) as error:
                log.warning("quiet callers were not forgotten: %s", type(error).__name__)

    async def forget(self) -> None:
        """Drop callers that have been quiet for long."""
        now_ms = int(self._clock().timestamp() * 1000)
        async with self._pool.connection() as conn:
            await conn.execute("DELETE FROM recent_requests WHERE last_ms < %s", (now_ms - FORGET_AFTER_MS,))


def standing(limits: tuple[Limit, ...], at_ms: list[int], now_ms: int, *, granted: bool) -> Standing:
    """How a caller stands whose counted requests were at these times, oldest first, the present one among them if it
    was granted.
    """
    found = []
    for limit in limits:
        window_ms = limit.seconds * 1000
        within = [at for at in at_ms if at > now_ms - window_ms]
        remaining = max(0, limit.requests - len(within))
        # The oldest that must leave the window before one more may come.
        leaves = within[-limit.requests] if not remaining else within[0] if within else now_ms
        wait_ms = leaves + window_ms - now_ms
        retry_after_s = max(1, math.ceil(wait_ms / 1000)) if not (granted or remaining) else None
        found.append(Standing(limit.requests, remaining, math.ceil((now_ms + wait_ms) / 1000), retry_after_s))
    return min(found, key=lambda one: (-(one.retry_after_s or 0), one.remaining))
