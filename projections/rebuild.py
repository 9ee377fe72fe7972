"""A read model anew beside the one that serves, compared with it at one position, and put in its place at once.

NAME__next is being built, with a checkpoint of its own: whenever this ends, the next run goes on from there. NAME
serves meanwhile and its engine works. NAME__old is what served before the last switch, kept until told.
Nobody is called and nothing is published: only these tables are written.
"""

import time
from collections.abc import Callable
from typing import Any

import psycopg
from msgspec import Struct
from psycopg import Connection
from psycopg.rows import tuple_row
from psycopg.sql import SQL, Identifier

from projections.engine import (
    CHANNEL,
    LOCK_SPACE,
    Engine,
    Log,
    ReadModel,
    checkpoint,
    connect,
    hold,
    take_over,
)
from projections.parking import tell_trouble

NEXT, OLD = "__next", "__old"
# So near the end of the log what is left is built while the serving one waits.
NEAR = 1_000
# Readers of the old tables are waited for so long, so often; those that come meanwhile wait with us.
SWITCH_LOCK_MS = 200
MAX_SWITCH_TRIES = 15
# An automatic clean-up of the tables gives way after a second.
CLEANER_LOCK_MS = 10_000
SWITCH_PAUSE_S = 0.1
# The serving one is waited for so long when it is behind although somebody works it.
MAX_BEHIND_S = 30.0
BEHIND_LOOK_S = 0.05
MAX_EXAMPLES = 5


class Refused(Exception):  # noqa: N818  it says what happened
    """The rebuild does not go on, and why. What serves is as it was."""


class Outcome(Struct, frozen=True):
    """At `position` so many rows differed between what served and what was built; `examples` are ids of some."""

    position: int
    rows: int
    differing: int
    examples: tuple[str, ...]
    parked: int
    switched: bool


class Rebuild:
    """One rebuild of one read model, over one connection that holds the right to it."""

    def __init__(self, model: ReadModel, read: Log, database_url: str, worker: str) -> None:
        self._model = model
        self._next = model.name + NEXT
        self._read = read
        self._url = database_url
        self._worker = worker

    def run(self, told: Callable[[int, int], None], *, accept_differences: bool = False, anew: bool = False) -> Outcome:
        """Build, compare, switch. `told(position, end)` is called as it goes on.

        Raises Refused, and psycopg.OperationalError when the database does not answer: run it again to go on.
        """
        with connect(self._url, f"{self._worker} rebuild") as conn:
            self._claim(conn)
            # A lost commit takes its checkpoint with it, so nothing need wait for the disk until the switch.
            conn.execute("SET synchronous_commit = off")
            self._prepare(conn, anew=anew)
            engine = Engine(self._model.projection(NEXT), self._read, self._url)
            self._catch_up(conn, engine, told)
            for table in self._model.tables:
                conn.execute(SQL("ANALYZE {}").format(Identifier(table + NEXT)))
            return self._compared(conn, engine, accept_differences=accept_differences)

    # --- Build ---------------------------------------------------------------------------------------------------

    def _claim(self, conn: Connection[Any]) -> None:
        if not take_over(conn, self._next, wait_ms=1):
            query = (
                "SELECT application_name FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE locktype = 'advisory'"
                " AND granted AND classid = %s AND objid::bigint = hashtext(%s)::bigint & 4294967295"
            )
            row = conn.execute(query, (LOCK_SPACE, self._next)).fetchone()
            raise Refused(f"{self._model.name} is being rebuilt already, by {row[0] if row else 'somebody'}")

    def _prepare(self, conn: Connection[Any], *, anew: bool) -> None:
        """Make the tables of the next one, unless an earlier run has."""
        with conn.transaction():
            for table in self._model.tables:
                names = {"next": Identifier(table + NEXT), "table": Identifier(table)}
                if anew:
                    conn.execute(SQL("DROP TABLE IF EXISTS {next}").format(**names))
                conn.execute(SQL("CREATE TABLE IF NOT EXISTS {next} (LIKE {table} INCLUDING ALL)").format(**names))
            query = "INSERT INTO checkpoints (projection, position) VALUES (%s, 0) ON CONFLICT DO NOTHING"
            conn.execute(query, (self._model.name,))
            if anew:
                conn.execute("UPDATE checkpoints SET position = 0 WHERE projection = %s", (self._next,))
                conn.execute("DELETE FROM parked WHERE projection = %s", (self._next,))

    def _catch_up(self, conn: Connection[Any], engine: Engine, told: Callable[[int, int], None]) -> None:
        worked, near = 1, False
        while worked and not near:
            worked = engine.step(conn)
            position, end = checkpoint(conn, self._next), self._end(conn)
            near = end - position < NEAR
            told(position, end)

    def _end(self, conn: Connection[Any]) -> int:
        row = conn.execute("SELECT last_value FROM ledger_events_notification_id_seq").fetchone()
        return int(row[0]) if row else 0

    # --- Compare and switch --------------------------------------------------------------------------------------

    def _compared(self, conn: Connection[Any], engine: Engine, *, accept_differences: bool) -> Outcome:
        if not accept_differences:
            self._wait_for_serving(conn)
        with conn.transaction():
            self._lock_out_cleaners(conn)
            position = hold(conn, self._model.name)  # from here on the serving one does not move
            while engine.step(conn, upto=position):
                pass
            found = [self._differences(conn, table) for table in self._model.tables]
            rows, differing = sum(one[0] for one in found), sum(one[1] for one in found)
            parked = conn.execute("SELECT count(*) FROM parked WHERE projection = %s", (self._next,)).fetchone()
            switched = accept_differences or not differing
            if switched:
                self._switch(conn)
        examples = tuple(example for one in found for example in one[2])[:MAX_EXAMPLES]
        return Outcome(position, rows, differing, examples, parked[0] if parked else 0, switched)

    def _wait_for_serving(self, conn: Connection[Any]) -> None:
        """What serves must not be behind what was built. If nobody works it, it is brought up from here."""
        name, wanted = self._model.name, checkpoint(conn, self._next)
        deadline = time.monotonic() + MAX_BEHIND_S
        while checkpoint(conn, name) < wanted:
            if take_over(conn, name, wait_ms=1):
                serving = Engine(self._model.projection(), self._read, self._url)
                while checkpoint(conn, name) < wanted and serving.step(conn, upto=wanted):
                    pass
                conn.execute("SELECT pg_advisory_unlock(%s, hashtext(%s))", (LOCK_SPACE, name))
            elif time.monotonic() > deadline:
                raise Refused(f"{name} is behind and does not come near {wanted}: payledger projections tells why")
            time.sleep(BEHIND_LOOK_S)

    def _differences(self, conn: Connection[Any], table: str) -> tuple[int, int, list[str]]:
        """How many rows were built, how many are not the same in both, and the ids of some of those."""
        with conn.cursor(row_factory=tuple_row) as cursor:
            query = "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped"
            columns = [name for (name,) in cursor.execute(query, (table,))]
            compared = SQL(
                "SELECT coalesce(a.id, b.id)::text FROM {} AS a FULL JOIN {} AS b ON a.id = b.id"
                " WHERE ROW({}) IS DISTINCT FROM ROW({})"
            ).format(
                Identifier(table),
                Identifier(table + NEXT),
                SQL(", ").join(Identifier("a", name) for name in columns),
                SQL(", ").join(Identifier("b", name) for name in columns),
            )
            counted = SQL("SELECT count(*), (array_agg(id ORDER BY id))[:{}] FROM ({}) AS differing (id)")
            differing = cursor.execute(counted.format(MAX_EXAMPLES, compared)).fetchone()
            built = cursor.execute(SQL("SELECT count(*) FROM {}").format(Identifier(table + NEXT))).fetchone()
        assert differing is not None  # noqa: S101  an aggregate without GROUP BY always has one row
        assert built is not None  # noqa: S101  likewise
        return built[0], differing[0], differing[1] or []

    def _switch(self, conn: Connection[Any]) -> None:
        """Put the next tables in the place of those that serve, in the caller's transaction."""
        name = self._model.name
        self._lock_out_readers(conn)
        for table in self._model.tables:
            conn.execute(SQL("DROP TABLE IF EXISTS {}").format(Identifier(table + OLD)))
            indexes = _indexes(conn, table), _indexes(conn, table + NEXT)
            _rename(conn, "TABLE", table, table + OLD)
            _rename(conn, "TABLE", table + NEXT, table)
            for definition, index in indexes[0].items():
                _rename(conn, "INDEX", index, index + OLD)
                if definition in indexes[1]:
                    _rename(conn, "INDEX", indexes[1][definition], index)
        conn.execute("DELETE FROM parked WHERE projection = %s", (name,))
        conn.execute("UPDATE parked SET projection = %s WHERE projection = %s", (name, self._next))
        position = checkpoint(conn, self._next)
        query = "UPDATE checkpoints SET position = %s, stopped = NULL WHERE projection = %s"
        conn.execute(query, (position, name))
        conn.execute("DELETE FROM checkpoints WHERE projection = %s", (self._next,))
        conn.execute("SET LOCAL synchronous_commit = on")
        conn.execute("SELECT pg_notify(%s, %s)", (CHANNEL, f"{name} {position}"))
        tell_trouble(conn, name)

    def _lock_out_cleaners(self, conn: Connection[Any]) -> None:
        """The database's own: they step aside for a patient waiter, and only for one. Reading and writing go on."""
        there = [t + suffix for t in self._model.tables for suffix in ("", NEXT, OLD) if _exists(conn, t + suffix)]
        tables = SQL(", ").join(map(Identifier, there))
        conn.execute("SELECT set_config('lock_timeout', %s, true)", (f"{CLEANER_LOCK_MS}ms",))
        try:
            conn.execute(SQL("LOCK TABLE {} IN SHARE UPDATE EXCLUSIVE MODE").format(tables))
        except psycopg.errors.LockNotAvailable:
            raise Refused(f"somebody works on the tables of {self._model.name}; run this again") from None

    def _lock_out_readers(self, conn: Connection[Any]) -> None:
        """For the moment of the renaming. Whoever waits longer than a moment for us is let through first."""
        tables = SQL(", ").join(Identifier(table) for table in self._model.tables)
        for _ in range(MAX_SWITCH_TRIES):
            try:
                with conn.transaction():
                    conn.execute(f"SET LOCAL lock_timeout = {SWITCH_LOCK_MS}")
                    conn.execute(SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(tables))
            except psycopg.errors.LockNotAvailable:
                time.sleep(SWITCH_PAUSE_S)
            else:
                return
        raise Refused(f"somebody reads {self._model.name} for so long that it cannot be switched now; run this again")


def drop_old(conn: Connection[Any], model: ReadModel) -> list[str]:
    """Drop what served before the last switch; answer the names of the tables that were there."""
    with conn.transaction():
        there = [table + OLD for table in model.tables if _exists(conn, table + OLD)]
        for table in there:
            conn.execute(SQL("DROP TABLE {}").format(Identifier(table)))
    return there


def _exists(conn: Connection[Any], table: str) -> bool:
    return conn.execute("SELECT to_regclass(%s)", (table,)).fetchone() != (None,)


def _indexes(conn: Connection[Any], table: str) -> dict[str, str]:
    """The names of a table's indexes, by what they index."""
    query = (
        "SELECT substring(pg_get_indexdef(indexrelid) FROM ' USING .*') || indisprimary, relname"
        " FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid WHERE indrelid = %s::regclass"
    )
    with conn.cursor(row_factory=tuple_row) as cursor:
        return dict(cursor.execute(query, (table,)).fetchall())


def _rename(conn: Connection[Any], kind: str, before: str, after: str) -> None:
    conn.execute(SQL("ALTER {} {} RENAME TO {}").format(SQL(kind), Identifier(before), Identifier(after)))
