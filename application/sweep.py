"""The sweep: reading the provider's own list of events, for those that were never delivered.

It goes back a little beyond where the last one ended, because an event may be listed later than it is dated.
"""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

import psycopg
from psycopg import AsyncConnection

from application.gateway import Unknown
from application.inbox import EventPage, store

NAME = "stripe"
OVERLAP = timedelta(minutes=5)
# As far as the provider's list reaches.
FURTHEST = timedelta(days=30)
# Of a hundred events each. What is left then is read by the next sweep, which begins at the same place.
MAX_PAGES = 2_000

ListEvents = Callable[[datetime, str | None], Awaitable[EventPage | Unknown]]


async def sweep(conn: AsyncConnection[Any], events: ListEvents, now: datetime) -> int | None:
    """Put every listed event since the last sweep in the inbox, which knows most of them; answer how many were listed.

    None when the list could not be read to its end: the next sweep begins where this one did.
    """
    cursor = await conn.execute("SELECT until FROM sweeps WHERE name = %s", (NAME,))
    row: tuple[datetime] | None = await cursor.fetchone()
    since = max(row[0] - OVERLAP, now - FURTHEST) if row else now - FURTHEST
    after: str | None = None
    listed = 0
    for _ in range(MAX_PAGES):
        page = await events(since, after)
        if isinstance(page, Unknown):
            return None
        if page.events:
            await store(conn, page.events, now)
        listed += len(page.events)
        after = page.next
        if after is None:
            await conn.execute(
                "INSERT INTO sweeps VALUES (%s, %s) ON CONFLICT (name) DO UPDATE SET until = excluded.until",
                (NAME, now),
            )
            return listed
    return None


async def alone(conn: AsyncConnection[Any]) -> bool:
    """Whether this session is the one that sweeps; another takes over when it ends."""
    try:
        cursor = await conn.execute(
            "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", (f"payledger sweep {NAME}",)
        )
        row = await cursor.fetchone()
    except psycopg.errors.LockNotAvailable:
        return False
    return bool(row and row[0])
