"""The last position of the log that a reader may pass to.

Positions are drawn from a sequence before they become visible, so a reader that simply takes all it sees skips a
position whose writer commits a moment later. Two readings, in this order, tell what is safe:

1. the sequence's last value: every position drawn so far is at or below it;
2. the transactions that hold the table's ROW EXCLUSIVE lock: an insert takes it before it draws a position and keeps
   it to the end, so whoever could still fill one of those positions is among them.

Once all of (2) have ended, every position up to (1) is visible or never will be. Nothing is stored, writers do not
know of it, and a transaction that is long but writes elsewhere is not waited for.
"""

from collections import deque
from threading import Lock
from typing import Any

from msgspec import Struct
from psycopg import Connection
from psycopg.rows import tuple_row
from psycopg.sql import SQL, Composed, Identifier, Literal

# Readings kept while writers are in flight. Forgetting the oldest is safe: whoever it waits for and lives is also
# among those that the next reading waits for.
MAX_PENDING = 1_000


class Reading(Struct, frozen=True):
    """`drawn`: the sequence's last value; `writing`: the transactions that were writing after it was read."""

    drawn: int
    writing: frozenset[str]


class Horizon:
    """Advances as transactions end. One may be shared by the threads of a process."""

    def __init__(self, schema: str, table: str) -> None:
        self._pending: deque[Reading] = deque(maxlen=MAX_PENDING)
        self._safe = 0
        self._lock = Lock()
        self._drawn_statement = _drawn_statement(schema, table)
        self._writing_statement = _writing_statement(schema, table)

    def advance(self, conn: Connection[Any]) -> int:
        """The last safe position as of now. `conn` must not be inside a transaction that has written to the log."""
        with self._lock, conn.cursor(row_factory=tuple_row) as cursor:
            drawn = _one(cursor.execute(self._drawn_statement, prepare=True).fetchone())
            latest = self._pending[-1].drawn if self._pending else self._safe
            if drawn <= latest and not self._pending:
                return self._safe
            rows = cursor.execute(self._writing_statement, prepare=True).fetchall()
            writing = frozenset(str(row[0]) for row in rows)
            if drawn > latest:
                self._pending.append(Reading(drawn, writing))
            while self._pending and self._pending[0].writing.isdisjoint(writing):
                self._safe = self._pending.popleft().drawn
            return self._safe


def _one(row: tuple[Any, ...] | None) -> int:
    assert row is not None  # noqa: S101  a sequence always has one row
    return int(row[0])


def _drawn_statement(schema: str, table: str) -> Composed:
    sequence = Identifier(schema, f"{table}_notification_id_seq")
    return SQL("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {}").format(sequence)


def _writing_statement(schema: str, table: str) -> Composed:
    return SQL(
        "SELECT virtualtransaction FROM pg_locks WHERE locktype = 'relation' AND mode = 'RowExclusiveLock' AND granted"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        " AND relation = {}::regclass"
    ).format(Literal(f'"{schema}"."{table}"'))
