"""The engine that keeps read models up to date: live, catching up or from nothing, by one and the same loop.

Read a batch behind the horizon, fold it in memory, write the rows and the checkpoint in one transaction. A checkpoint
is the position of a fact that was read, never the horizon itself: a position that was drawn and lost in a crash of the
database may be drawn again.

Several instances may run; an advisory lock lets one work at a time, and the next takes over when its session ends. The
checkpoint is the fence: it moves only from where the worker read it, and its row is locked while rows are written. So
whoever was deposed without noticing writes nothing, and whoever holds that row (a retry, a rebuild) works undisturbed.
"""

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event
from typing import Any, Protocol
from uuid import UUID

import psycopg
from msgspec import Struct
from psycopg import Connection

from domain.envelope import Envelope
from projections import parking
from projections.parking import Apply, Failure, TooManyParked, Unreadable

log = logging.getLogger(__name__)

MAX_BATCH = 10_000
# From this size on a batch means that more is waiting: the next is read while this one is written.
FULL_ENOUGH = 1_000
# Small batches begin so far apart: a batch costs as much as twenty facts in it, and more will have come meanwhile.
# The first after a silence does not wait.
PACE_S = 0.025
# An idle engine looks at the log this often even if nobody wakes it.
IDLE_S = 1.0
# A standby queues for the lock so long at a time: waiting in the database holds back its clean-up.
STANDBY_MS = 1_000
# After a lost connection the next try waits this long; after an alarm, so long.
RECONNECT_S = 0.5
ALARM_S = 5.0
CONNECT_TIMEOUT_S = 5
# A worker that froze or whose machine is gone loses its session, and with it the lock, about so soon.
SESSION = "-c idle_in_transaction_session_timeout=60s -c tcp_keepalives_idle=5 -c tcp_keepalives_interval=2"
# "pay" as a number: the first key of the advisory locks, so that they cannot meet somebody else's.
LOCK_SPACE = 0x706179
# "NAME POSITION" when a read model has moved on.
CHANNEL = "projected"


class Away(Exception):  # noqa: N818  it says what is so
    """What the facts are brought to does not answer now. Nothing was lost; the batch is tried again later."""


class Deposed(Exception):  # noqa: N818  it says what is so
    """Another worker has moved the checkpoint. Nothing was written."""


# What is no fault of the facts: the same batch may succeed later.
PASSING = (psycopg.OperationalError, psycopg.InterfaceError, Away)


class Log(Protocol):
    def __call__(self, after: int, limit: int, /) -> Sequence[Envelope | Unreadable]:
        """Up to `limit` facts after a position, or fewer when they are large; in order and without a gap."""
        ...


class Projection(Struct, frozen=True):
    """A name, and what brings its rows up to a batch of facts: it answers the streams that it could not apply."""

    name: str
    apply: Apply
    max_batch: int = MAX_BATCH
    pace_s: float = PACE_S


class ReadModel(Struct, frozen=True):
    """A projection whose rows are tables here: `apply` writes to those of that name plus a suffix."""

    name: str
    tables: tuple[str, ...]
    apply: Callable[[Connection[Any], Sequence[Envelope], str], Sequence[Failure]]

    def projection(self, suffix: str = "") -> Projection:
        """The one that serves, or one beside it."""
        return Projection(self.name + suffix, lambda conn, facts: self.apply(conn, facts, suffix))


class Engine:
    """Works one projection until it is stopped. `wake` is set whenever the log may have grown."""

    def __init__(self, projection: Projection, read: Log, database_url: str, worker: str = "payledger") -> None:
        """`worker` is what the database calls the session: who works the projection, and where."""
        self._projection = projection
        self._name = projection.name
        self._read = read
        self._database_url = database_url
        self._worker = worker
        self.wake = Event()
        self._stopping = Event()
        # Where our last batch left the checkpoint. If that is not so any more, we are deposed and write nothing.
        self._position: int | None = None
        self._reader: ThreadPoolExecutor | None = None
        self._ahead: tuple[int, Future[Sequence[Envelope | Unreadable]]] | None = None

    def stop(self) -> None:
        self._stopping.set()
        self.wake.set()

    def run(self) -> None:
        """Work until stopped, through lost connections, restarts of the database and errors of our own."""
        while not self._stopping.is_set():
            try:
                with connect(self._database_url, self._worker) as conn:
                    self._work(conn)
            except (*PASSING, Deposed) as error:
                log.warning("%s waits: %s", self._name, type(error).__name__)
                self._stopping.wait(RECONNECT_S)
            except Exception as error:  # noqa: BLE001  a thread that ends here would be missed by nobody
                log.critical("projection %s STOPPED: %s at %s", self._name, type(error).__name__, parking.where(error))
                self._stopping.wait(ALARM_S)
        if self._reader:
            self._reader.shutdown(cancel_futures=True)

    def _work(self, conn: Connection[Any]) -> None:
        while not self._stopping.is_set() and not take_over(conn, self._name):
            pass
        self._position = None
        while not self._stopping.is_set():
            self.wake.clear()
            began_s = time.monotonic()
            try:
                worked = self.step(conn)
            except (*PASSING, Deposed):
                raise
            except Exception as error:
                _tell_stopped(conn, self._name, error)
                raise
            if not worked:
                self.wake.wait(IDLE_S)
            elif worked < FULL_ENOUGH:
                self._stopping.wait(max(0.0, began_s + self._projection.pace_s - time.monotonic()))

    def step(self, conn: Connection[Any], upto: int | None = None) -> int:
        """Apply the next batch, at most up to a position; answer how many facts it had.

        Raises Deposed and TooManyParked, and whatever is PASSING.
        """
        position = checkpoint(conn, self._name) if self._position is None else self._position
        batch = self._batch(position)
        if upto is not None:
            batch = [row for row in batch if (row.position or 0) <= upto]
        if batch:
            self._position = None
            try:
                self._write(conn, position, batch, at_once=True)
            except (*PASSING, Deposed, TooManyParked):
                raise
            except Exception:  # noqa: BLE001  whatever it is, it is looked for: all is as before, so it comes again
                self._write(conn, position, batch, at_once=False)
            self._position = batch[-1].position
        return len(batch)

    def _write(
        self, conn: Connection[Any], position: int, batch: Sequence[Envelope | Unreadable], *, at_once: bool
    ) -> None:
        with conn.transaction():
            _advance(conn, self._name, position, batch[-1].position or 0)
            # Read under the checkpoint's lock, by a statement of its own: a retry may just have brought a stream back.
            self._settle(conn, batch, parking.aside(conn, self._name), at_once=at_once)

    def retry(
        self, conn: Connection[Any], stream: UUID, read: Callable[[UUID], Sequence[Envelope | Unreadable]]
    ) -> bool:
        """Apply what a parked stream missed, in order; answer whether it is back. It may run beside a worker."""
        with conn.transaction():
            upto = hold(conn, self._name)
            query = "SELECT position FROM parked WHERE projection = %s AND stream = %s"
            row = conn.execute(query, (self._name, stream)).fetchone()
            if row is None:
                return True
            missed = [fact for fact in read(stream) if row[0] <= (fact.position or 0) <= upto]
            failed = self._settle(conn, missed, frozenset(), at_once=False)
            if not failed:
                parking.unpark(conn, self._name, stream)
            return not failed

    def _settle(
        self, conn: Connection[Any], rows: Sequence[Envelope | Unreadable], parked: frozenset[UUID], *, at_once: bool
    ) -> int:
        """Apply what can be applied and park the rest, in the caller's transaction; answer how many streams failed.

        `at_once`: without the savepoints that tell what fails from the rest; then an error is the whole batch's.
        """
        facts, unreadable = parking.sorted_out(rows, parked)
        apply = self._projection.apply
        if at_once:
            failures = [*((apply(conn, facts) if facts else None) or ()), *unreadable]
        else:
            failures = parking.apply_around(conn, apply, facts, PASSING) + unreadable
        if failures:
            parking.park(conn, self._name, failures, len(parked))
        for failure in failures:
            log.error("%s parks stream %s at position %s", self._name, failure.stream, failure.position)
        return len(failures)

    def _batch(self, position: int) -> Sequence[Envelope | Unreadable]:
        ahead, self._ahead = self._ahead, None
        limit = self._projection.max_batch
        batch = ahead[1].result() if ahead and ahead[0] == position else self._read(position, limit)
        if len(batch) >= FULL_ENOUGH and batch[-1].position:
            self._reader = self._reader or ThreadPoolExecutor(1, thread_name_prefix=f"{self._name} reads")
            self._ahead = batch[-1].position, self._reader.submit(self._read, batch[-1].position, limit)
        return batch


# --- One worker --------------------------------------------------------------------------------------------------


def connect(database_url: str, worker: str) -> Connection[Any]:
    options = psycopg.conninfo.conninfo_to_dict(database_url).get("options") or ""
    return psycopg.connect(
        database_url,
        connect_timeout=CONNECT_TIMEOUT_S,
        autocommit=True,
        application_name=worker,
        options=f"{options} {SESSION}".strip(),
    )


def take_over(conn: Connection[Any], projection: str, wait_ms: int = STANDBY_MS) -> bool:
    """Queue for a projection, at most so long; the lock is the session's and ends with it."""
    try:
        with conn.transaction():
            conn.execute("SELECT set_config('lock_timeout', %s, true)", (f"{wait_ms}ms",))
            conn.execute("SELECT pg_advisory_lock(%s, hashtext(%s))", (LOCK_SPACE, projection))
    except psycopg.errors.LockNotAvailable:
        return False
    conn.execute("INSERT INTO checkpoints (projection, position) VALUES (%s, 0) ON CONFLICT DO NOTHING", (projection,))
    return True


# --- Checkpoint --------------------------------------------------------------------------------------------------


def checkpoint(conn: Connection[Any], projection: str) -> int:
    """The last position that is in the projection's rows."""
    row = conn.execute("SELECT position FROM checkpoints WHERE projection = %s", (projection,), prepare=True).fetchone()
    return int(row[0]) if row else 0


def hold(conn: Connection[Any], projection: str) -> int:
    """The checkpoint, which does not move until the caller's transaction ends."""
    query = "SELECT position FROM checkpoints WHERE projection = %s FOR UPDATE"
    row = conn.execute(query, (projection,)).fetchone()
    return int(row[0]) if row else 0


# NULL for NULL costs nothing; a worker that goes on again has stopped no more. Whoever waits to read their own writes
# hears of it when the transaction ends and the rows are there, not before.
_ADVANCE = """
WITH moved AS (UPDATE checkpoints SET position = %s, stopped = NULL WHERE projection = %s AND position = %s RETURNING 1)
SELECT pg_notify(%s, %s) FROM moved
"""


def _advance(conn: Connection[Any], projection: str, before: int, position: int) -> None:
    values = (position, projection, before, CHANNEL, f"{projection} {position}")
    if not conn.execute(_ADVANCE, values, prepare=True).rowcount:
        raise Deposed(projection)


def _tell_stopped(conn: Connection[Any], projection: str, error: Exception) -> None:
    """Leave word where everybody looks; it is gone when the checkpoint moves again."""
    reason = str(error) if isinstance(error, TooManyParked) else type(error).__name__
    conn.execute("UPDATE checkpoints SET stopped = %s WHERE projection = %s", (reason, projection))
    parking.tell_trouble(conn, projection)
