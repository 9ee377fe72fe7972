"""The last position of the log that a reader may pass to.

Positions are drawn from a sequence before they become visible, so a reader that simply takes all it sees skips a
position whose writer commits a moment later. Two readings, in this order, tell what is safe:

1. the sequence's last value: every position drawn so far is at or below it;
2. the transactions that hold the table's ROW EXCLUSIVE lock: an insert takes it before it draws a position and keeps
   it to the end, so whoever could still fill one of those positions is among them.

Once all of (2) have ended, every position up to (1) is visible or never will be. Nothing is stored, writers do not
know of it, and a transaction that is long but writes elsewhere is not waited for.

What was learned holds until the database crashes: then it may draw again what had been drawn and not written down.
Its statistics begin anew with each recovery (also after the loss of one backend, when its start time stays), so the
moment since which they count tells one life of the database from the next.

A transaction that writes to the log and does not end holds every reader back, and no writer: a stall, which names it.
"""

from collections import deque
from datetime import datetime
from threading import Lock
from typing import Any

from msgspec import Struct
from psycopg import Connection
from psycopg.rows import tuple_row
from psycopg.sql import SQL, Composed, Identifier, Literal

# Readings kept while writers are in flight. Forgetting the oldest is safe: whoever it waits for and lives is also
# among those that the next reading waits for.
MAX_PENDING = 1_000
# Writers take milliseconds. Readers that have been held back for longer than this are worth a word.
STALLED_AFTER_S = 2.0
# A stall names at most this many of the transactions behind it, the oldest first.
MAX_BLOCKERS = 10


class Reading(Struct, frozen=True):
    """`drawn`: the sequence's last value; `writing`: the transactions that were writing after it was read."""

    drawn: int
    writing: frozenset[str]


class Blocker(Struct, frozen=True):
    """A transaction that holds readers back: its backend's `pid` (None once it is prepared and has none), the name
    its client gave itself, and when it began, both as far as we may see them.
    """

    pid: int | None
    application: str | None
    began: datetime | None


class Stall(Struct, frozen=True):
    """Readers have been held back for so long, by these."""

    seconds: float
    blockers: tuple[Blocker, ...]

    def __str__(self) -> str:
        return f"stalled for {self.seconds:.0f} seconds by " + (" and ".join(map(_said, self.blockers)) or "nobody now")


class Sight(Struct, frozen=True):
    """The end of the log at one moment: the last position `drawn`, and the last that readers may pass to."""

    drawn: int = 0
    safe: int = 0
    stall: Stall | None = None


class Horizon:
    """Advances as transactions end. One may be shared by the threads of a process."""

    def __init__(self, schema: str, table: str) -> None:
        self._pending: deque[Reading] = deque(maxlen=MAX_PENDING)
        self._safe = 0
        self._known = 0
        self._life: datetime | None = None
        self._lock = Lock()
        self._drawn_statement = _drawn_statement(schema, table)
        self._writing_statement = _writing_statement(schema, table)
        self.blockers_statement = _blockers_statement(schema, table)

    def advance(self, conn: Connection[Any]) -> int:
        """The last safe position as of now. `conn` must not be inside a transaction that has written to the log."""
        with self._lock, conn.cursor(row_factory=tuple_row) as cursor:
            drawn, life = _one(cursor.execute(self._drawn_statement, prepare=True).fetchone())
            if life != self._life:
                self._life, self._safe = life, 0
                self._pending.clear()
            latest = self._pending[-1].drawn if self._pending else self._safe
            if drawn <= latest and not self._pending:
                return max(self._safe, self._known)
            rows = cursor.execute(self._writing_statement, prepare=True).fetchall()
            writing = frozenset(str(row[0]) for row in rows)
            if drawn > latest:
                self._pending.append(Reading(drawn, writing))
            while self._pending and self._pending[0].writing.isdisjoint(writing):
                self._safe = self._pending.popleft().drawn
            return max(self._safe, self._known)

    def passed(self, position: int) -> None:
        """Somebody read a fact at this position behind a horizon before: nothing up to it is waited for again."""
        with self._lock:
            self._known = max(self._known, position)

    def held_back(self) -> Reading | None:
        """The reading whose transactions are waited for now, with the last position drawn; None when nobody is."""
        with self._lock:
            return Reading(self._pending[-1].drawn, self._pending[0].writing) if self._pending else None


class Lookout:
    """Sees how far the horizon is and whether it stands still. Lives in one thread."""

    def __init__(self, horizon: Horizon) -> None:
        self._horizon = horizon
        self._safe = 0
        self._moved_s: float | None = None

    def look(self, conn: Connection[Any], now_s: float) -> Sight:
        """The log's end as of now; `now_s` by a clock that only goes forward. Raises psycopg.Error."""
        safe = self._horizon.advance(conn)
        waiting = self._horizon.held_back()
        if waiting is None or safe != self._safe or self._moved_s is None:
            self._safe, self._moved_s = safe, now_s
        if waiting is None:
            return Sight(safe, safe)
        still_s = now_s - self._moved_s
        stall = Stall(still_s, self._blockers(conn, waiting)) if still_s >= STALLED_AFTER_S else None
        return Sight(waiting.drawn, safe, stall)

    def _blockers(self, conn: Connection[Any], waiting: Reading) -> tuple[Blocker, ...]:
        with conn.cursor(row_factory=tuple_row) as cursor:
            rows = cursor.execute(self._horizon.blockers_statement, (sorted(waiting.writing), MAX_BLOCKERS)).fetchall()
        return tuple(Blocker(*row) for row in rows)


def _said(blocker: Blocker) -> str:
    if blocker.pid is None:
        return "a prepared transaction (see pg_prepared_xacts)"
    began = f"{blocker.began:%Y-%m-%dT%H:%M:%SZ}" if blocker.began else "an unknown time"
    return f"backend pid {blocker.pid} ({blocker.application or 'unnamed'}, in a transaction since {began})"


def _one(row: tuple[Any, ...] | None) -> tuple[int, datetime | None]:
    assert row is not None  # noqa: S101  a sequence always has one row
    drawn, life = row
    return drawn, life


def _drawn_statement(schema: str, table: str) -> Composed:
    sequence = Identifier(schema, f"{table}_notification_id_seq")
    return SQL(
        "SELECT CASE WHEN is_called THEN last_value ELSE 0 END, (SELECT stats_reset FROM pg_stat_bgwriter) FROM {}"
    ).format(sequence)


def _writing_statement(schema: str, table: str) -> Composed:
    return SQL("SELECT virtualtransaction FROM pg_locks WHERE ") + _holds_the_lock(schema, table)


def _blockers_statement(schema: str, table: str) -> Composed:
    # One row a transaction: a prepared one has no backend, and one may hold the lock twice (by the fast path, too).
    return SQL(
        "SELECT DISTINCT ON (activity.xact_start, locks.virtualtransaction)"
        " locks.pid, activity.application_name, activity.xact_start AT TIME ZONE 'UTC'"
        " FROM pg_locks AS locks LEFT JOIN pg_stat_activity AS activity USING (pid)"
        " WHERE locks.virtualtransaction = ANY(%s) AND {}"
        " ORDER BY activity.xact_start, locks.virtualtransaction LIMIT %s"
    ).format(_holds_the_lock(schema, table))


def _holds_the_lock(schema: str, table: str) -> Composed:
    return SQL(
        "locktype = 'relation' AND mode = 'RowExclusiveLock' AND granted"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        " AND relation = {}::regclass"
    ).format(Literal(f'"{schema}"."{table}"'))
