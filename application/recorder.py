"""The library's recorder for our log: insert rows without a lock, read the log without a gap."""

from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from eventsourcing.persistence import IntegrityError, InterfaceError, Notification, OperationalError, StoredEvent
from eventsourcing.postgres import PostgresApplicationRecorder, PostgresDatastore
from psycopg import Connection
from psycopg.errors import LockNotAvailable
from psycopg.rows import tuple_row
from psycopg.sql import SQL, Identifier

from application.arrays import Prepared, as_arrays
from application.horizon import Horizon

# An insert whose connection broke is tried this often; after that the caller is told that we do not know.
MAX_INSERT_TRIES = 3

Query = tuple[bytes, list[Any]]

# The positions are drawn in the order of the rows, and returned in it.
_INSERT = SQL(
    "INSERT INTO {} (originator_id, originator_version, topic, state)"
    " SELECT id, version, topic, state FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::bytea[])"
    " WITH ORDINALITY AS row (id, version, topic, state, place) ORDER BY place RETURNING notification_id"
)
_SELECT = SQL("SELECT originator_id, originator_version, topic, state, notification_id FROM {}")


class LedgerRecorder(PostgresApplicationRecorder):
    """Writers only insert: the primary key (stream, version) is the whole of concurrency control.

    No table lock (readers wait behind the horizon instead) and no NOTIFY (it would serialise the commits).
    """

    def __init__(self, datastore: PostgresDatastore, *, events_table_name: str = "stored_events") -> None:
        super().__init__(datastore, events_table_name=events_table_name)
        self.horizon = Horizon(datastore.schema, events_table_name)
        table = Identifier(datastore.schema, events_table_name)
        # Rendered once: composing a statement takes longer than sending it.
        self._insert = Prepared(f"append_to_{events_table_name}".encode(), _INSERT.format(table).as_bytes())
        select = _SELECT.format(table).as_bytes()
        self._select_stream = select + b" WHERE originator_id = %s"
        self._select_streams = select + b" WHERE originator_id = ANY(%s) ORDER BY originator_id, originator_version"
        self._select_log = select + b" WHERE notification_id > %s AND notification_id <= %s"

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        """Insert all rows or none, of as many streams as may be, and return their positions in order.

        Raises IntegrityError when a version is taken. When a connection broke and a later try finds exactly these
        rows in place, the earlier try had succeeded and only its reply was lost: their positions are returned.
        """
        del kwargs
        for tried in range(1, MAX_INSERT_TRIES + 1):
            try:
                return self._insert_once(stored_events) if stored_events else []
            except IntegrityError:
                positions = self._own_positions(stored_events) if tried > 1 else None
                if positions is None:
                    raise
                return positions
            except (InterfaceError, OperationalError) as error:
                if tried == MAX_INSERT_TRIES or isinstance(error.__cause__, LockNotAvailable):
                    raise
                self.datastore.pool.check()  # whatever cut this connection has probably cut the idle ones too
        return None

    def _insert_once(self, rows: Sequence[StoredEvent]) -> list[int]:
        with self.datastore.get_connection() as conn:
            return [int.from_bytes(position) for position in self._insert(conn, as_arrays(rows))]

    def insert_within(self, conn: Connection[Any], rows: Sequence[StoredEvent]) -> None:
        """Insert the rows in the caller's transaction. Raises the driver's errors."""
        self._insert.within(conn, as_arrays(rows))

    def _own_positions(self, rows: Sequence[StoredEvent]) -> list[int] | None:
        """The positions of exactly these rows. They were sent as one: all are there, or none is ours."""
        versions = dict[UUID | str, list[int]]()
        for row in rows:
            versions.setdefault(row.originator_id, []).append(row.originator_version)
        found = {
            (row.originator_id, row.originator_version, row.topic, row.state): row.id
            for stream, wanted in versions.items()
            for row in self.select_events(stream, gt=min(wanted) - 1, lte=max(wanted))
        }
        positions = [found.get((row.originator_id, row.originator_version, row.topic, row.state)) for row in rows]
        return None if None in positions else [position for position in positions if position is not None]

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[Notification]:
        """The rows of a stream, with their positions."""
        statement = self._select_stream
        params: list[Any] = [originator_id]
        for condition, value in ((b" AND originator_version > %s", gt), (b" AND originator_version <= %s", lte)):
            if value is not None:
                statement += condition
                params.append(value)
        statement += b" ORDER BY originator_version DESC" if desc else b" ORDER BY originator_version"
        if limit is not None:
            statement += b" LIMIT %s"
            params.append(limit)
        return self._read(lambda _conn: (statement, params))

    def select_streams(self, conn: Connection[Any], streams: Sequence[UUID]) -> list[Notification]:
        """The rows of several streams, a stream after the other, as the caller's transaction sees them.

        Raises the driver's errors.
        """
        return _rows(conn, self._select_streams, [streams])

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        """Rows of the log in order, never past a position that a writer in flight could still fill."""
        after = (start or 0) - (1 if inclusive_of_start and start is not None else 0)

        def ask(conn: Connection[Any]) -> Query:
            safe = self.horizon.advance(conn)
            statement = self._select_log
            params: list[Any] = [after, safe if stop is None else min(stop, safe)]
            if topics:
                statement += b" AND topic = ANY(%s)"
                params.append(list(topics))
            return statement + b" ORDER BY notification_id LIMIT %s", [*params, limit]

        return self._read(ask)

    def _read(self, ask: Callable[[Connection[Any]], Query]) -> Sequence[Notification]:
        """The rows that `ask` describes. Reading is safe to repeat: after a broken connection it is tried once more."""
        try:
            return self._read_once(ask)
        except (InterfaceError, OperationalError):
            self.datastore.pool.check()  # whatever cut this connection has probably cut the idle ones too
            return self._read_once(ask)

    def _read_once(self, ask: Callable[[Connection[Any]], Query]) -> Sequence[Notification]:
        with self.datastore.get_connection() as conn:
            return _rows(conn, *ask(conn))


def _rows(conn: Connection[Any], statement: bytes, params: list[Any]) -> list[Notification]:
    with conn.cursor(row_factory=tuple_row, binary=True) as cursor:
        return [_row(*row) for row in cursor.execute(statement, params, prepare=True).fetchall()]


def _row(stream: UUID, version: int, name: str, state: bytes, position: int) -> Notification:
    return Notification(originator_id=stream, originator_version=version, topic=name, state=bytes(state), id=position)
