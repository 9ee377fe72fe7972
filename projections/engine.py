"""The engine that keeps read models up to date: live, catching up or from nothing, by one and the same loop.

Read a batch behind the horizon, fold it in memory, write the rows and the checkpoint in one transaction. A checkpoint
is the position of a fact that was read, never the horizon itself: a position that was drawn and lost in a crash of the
database may be drawn again. Several instances may run; an advisory lock lets one work at a time.
"""

import logging
from collections.abc import Callable, Sequence
from threading import Event
from typing import Any, Protocol
from uuid import UUID

import psycopg
from msgspec import Struct
from psycopg import Connection

from domain.envelope import Envelope
from projections.payment_rows import StreamFailed

log = logging.getLogger(__name__)

MAX_BATCH = 1_000
# An idle engine looks at the log this often even if nobody wakes it.
IDLE_S = 1.0
# A standby engine asks this often whether the working one has died.
STANDBY_S = 1.0
# After a lost connection the next try waits this long.
RECONNECT_S = 0.5
CONNECT_TIMEOUT_S = 5
# "pay" as a number: the first key of the advisory locks, so that they cannot meet somebody else's.
LOCK_SPACE = 0x706179
CHANNEL = "projected"


class Away(Exception):  # noqa: N818  it says what is so
    """What the facts are brought to does not answer now. Nothing was lost; the batch is tried again later."""


class Unreadable(Struct, frozen=True):
    """A row of the log that this version cannot read."""

    stream: UUID
    version: int
    position: int
    reason: str


class Log(Protocol):
    def __call__(self, after: int, limit: int) -> Sequence[Envelope | Unreadable]:
        """Up to `limit` facts after a position, in order and without a gap."""
        ...


class Projection(Struct, frozen=True):
    """A read model: its name, and what brings it up to a batch of facts (raises StreamFailed or Away)."""

    name: str
    apply: Callable[[Connection[Any], Sequence[Envelope]], None]


class Engine:
    """Works one projection until it is stopped. `wake` is set whenever the log may have grown."""

    def __init__(self, projection: Projection, read: Log, database_url: str) -> None:
        self._projection = projection
        self._read = read
        self._database_url = database_url
        self.wake = Event()
        self._stopping = Event()

    def stop(self) -> None:
        self._stopping.set()
        self.wake.set()

    def run(self) -> None:
        """Work until stopped, through lost connections and restarts of the database."""
        while not self._stopping.is_set():
            try:
                with psycopg.connect(self._database_url, connect_timeout=CONNECT_TIMEOUT_S, autocommit=True) as conn:
                    self._work(conn)
            except (psycopg.OperationalError, Away) as error:
                log.warning("%s waits: %s does not answer", self._projection.name, type(error).__name__)
                self._stopping.wait(RECONNECT_S)

    def _work(self, conn: Connection[Any]) -> None:
        while not self._stopping.is_set() and not self._mine(conn):
            self._stopping.wait(STANDBY_S)
        while not self._stopping.is_set():
            self.wake.clear()
            if not self.step(conn):
                self.wake.wait(IDLE_S)

    def _mine(self, conn: Connection[Any]) -> bool:
        query = "SELECT pg_try_advisory_lock(%s, hashtext(%s))"
        row = conn.execute(query, (LOCK_SPACE, self._projection.name)).fetchone()
        return bool(row and row[0])

    def step(self, conn: Connection[Any]) -> int:
        """Apply the next batch; answer how many facts it had. Raises psycopg.OperationalError."""
        position = checkpoint(conn, self._projection.name)
        batch = self._read(position, MAX_BATCH)
        if batch:
            self._apply(conn, batch)
        return len(batch)

    def _apply(self, conn: Connection[Any], batch: Sequence[Envelope | Unreadable]) -> None:
        """Apply a batch, setting aside each stream that fails, until the rest goes through."""
        parked = _parked(conn, self._projection.name)
        for row in batch:
            if isinstance(row, Unreadable) and row.stream not in parked:
                parked.add(row.stream)
                self._park(conn, row.stream, row.position, row.reason)
        while True:
            facts = [fact for fact in batch if isinstance(fact, Envelope) and fact.stream not in parked]
            try:
                with conn.transaction():
                    self._projection.apply(conn, facts)
                    _advance(conn, self._projection.name, batch[-1].position or 0)
            except StreamFailed as failure:
                parked.add(failure.stream)
                self._park(conn, failure.stream, failure.position, failure.reason)
            else:
                return

    def _park(self, conn: Connection[Any], stream: UUID, position: int, reason: str) -> None:
        log.error("projection %s parks stream %s at %s: %s", self._projection.name, stream, position, reason)
        conn.execute(
            "INSERT INTO parked (projection, stream, position, reason) VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING",
            (self._projection.name, stream, position, reason[:1000]),
        )


def checkpoint(conn: Connection[Any], projection: str) -> int:
    """The last position that is in the projection's rows."""
    row = conn.execute("SELECT position FROM checkpoints WHERE projection = %s", (projection,), prepare=True).fetchone()
    return int(row[0]) if row else 0


def _advance(conn: Connection[Any], projection: str, position: int) -> None:
    conn.execute(
        "INSERT INTO checkpoints (projection, position) VALUES (%s, %s)"
        " ON CONFLICT (projection) DO UPDATE SET position = excluded.position",
        (projection, position),
        prepare=True,
    )
    # Whoever waits to read their own writes hears of it when the rows are there, not before.
    conn.execute("SELECT pg_notify(%s, %s)", (CHANNEL, f"{projection} {position}"), prepare=True)


def _parked(conn: Connection[Any], projection: str) -> set[UUID]:
    rows = conn.execute("SELECT stream FROM parked WHERE projection = %s", (projection,), prepare=True).fetchall()
    return {row[0] for row in rows}
