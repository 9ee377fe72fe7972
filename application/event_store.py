"""The event store: append facts without a lock, load a stream, read the log without a gap.

Around the `eventsourcing` library's Application, Mapper and recorder seams, on its own table shape.
"""

from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from eventsourcing.application import Application
from eventsourcing.persistence import (
    InfrastructureFactory,
    IntegrityError,
    InterfaceError,
    Notification,
    OperationalError,
    StoredEvent,
)
from eventsourcing.postgres import PostgresApplicationRecorder, PostgresDatastore, PostgresFactory
from eventsourcing.utils import Environment, EnvType
from msgspec import Struct
from msgspec.structs import replace
from psycopg import Connection
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import tuple_row
from psycopg.sql import SQL, Composed, Identifier

from application.horizon import Horizon
from application.privacy import Keys, Vault
from application.stored_form import FactMapper, row_hash
from domain.envelope import NO_PREVIOUS, Envelope
from domain.personal import Sealed

# An insert whose connection broke is tried this often; after that the caller is told that we do not know.
MAX_INSERT_TRIES = 3
# A command appends one fact or two; more than this is a load of many.
MAX_FEW = 8
MAX_STATEMENT_MS = 10_000
MAX_LOCK_WAIT_MS = 5_000
CONNECT_TIMEOUT_S = 5


class StreamMoved(Exception):  # noqa: N818  it says what happened
    """Another writer appended to the stream first. Load it again and decide again."""


class StoreUnavailable(Exception):  # noqa: N818  it says what is so
    """The database did not answer. Whether an append was stored is not known; asking again will tell."""


class Loaded(Struct, frozen=True):
    """A stream as it stands: its facts in order, and the hash of its last row."""

    envelopes: tuple[Envelope, ...]
    tail: bytes = NO_PREVIOUS


class LedgerRecorder(PostgresApplicationRecorder):
    """Writers only insert: the primary key (stream, version) is the whole of concurrency control.

    No table lock (readers wait behind the horizon instead) and no NOTIFY (it would serialise the commits).
    """

    def __init__(self, datastore: PostgresDatastore, *, events_table_name: str = "stored_events") -> None:
        super().__init__(datastore, events_table_name=events_table_name)
        self.horizon = Horizon(datastore.schema, events_table_name)
        table = Identifier(datastore.schema, events_table_name)
        # Rendered once for each small number of rows; arrays, for which psycopg has only Python code, for many.
        self._insert_few = [_insert_values(table, count).as_bytes() for count in range(MAX_FEW + 1)]
        self._insert_many = _insert_arrays(table).as_bytes()
        columns = "SELECT originator_id, originator_version, topic, state, notification_id FROM {} "
        self._select_stream = SQL(columns + "WHERE originator_id = %s").format(table)
        self._select_log = SQL(columns + "WHERE notification_id > %s AND notification_id <= %s").format(table)

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        """Insert all rows or none, and return their positions in order.

        Raises IntegrityError when a version is taken. When a connection broke and a later try finds exactly these
        rows in place, the earlier try had succeeded and only its reply was lost: their positions are returned.
        """
        del kwargs
        if not stored_events:
            return []
        for tried in range(1, MAX_INSERT_TRIES + 1):
            try:
                return self._insert_once(stored_events)
            except IntegrityError:
                positions = self._own_positions(stored_events) if tried > 1 else None
                if positions is None:
                    raise
                return positions
            except (InterfaceError, OperationalError):
                if tried == MAX_INSERT_TRIES:
                    raise
                self.datastore.pool.check()  # whatever cut this connection has probably cut the idle ones too
        return None

    def _insert_once(self, rows: Sequence[StoredEvent]) -> list[int]:
        values: tuple[object, ...]
        fields = [(row.originator_id, row.originator_version, row.topic, row.state) for row in rows]
        if len(rows) <= MAX_FEW:
            statement, values = self._insert_few[len(rows)], tuple(value for row in fields for value in row)
        else:
            statement, values = self._insert_many, tuple(list(column) for column in zip(*fields, strict=True))
        with self.datastore.get_connection() as conn, conn.cursor(row_factory=tuple_row) as cursor:
            return [position for (position,) in cursor.execute(statement, values, prepare=True).fetchall()]

    def _own_positions(self, rows: Sequence[StoredEvent]) -> list[int] | None:
        stream, first, last = rows[0].originator_id, rows[0].originator_version, rows[-1].originator_version
        found = self.select_events(stream, gt=first - 1, lte=last)
        same = [(row.topic, row.state) for row in found] == [(row.topic, row.state) for row in rows]
        return [row.id for row in found] if same else None

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
        for condition, value in ((" AND originator_version > %s", gt), (" AND originator_version <= %s", lte)):
            if value is not None:
                statement += SQL(condition)
                params.append(value)
        statement += SQL(" ORDER BY originator_version DESC" if desc else " ORDER BY originator_version")
        if limit is not None:
            statement += SQL(" LIMIT %s")
            params.append(limit)
        return self._read(lambda _conn: (statement, params))

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

        def ask(conn: Connection[Any]) -> tuple[Composed, list[Any]]:
            safe = self.horizon.advance(conn)
            statement = self._select_log
            params: list[Any] = [after, safe if stop is None else min(stop, safe)]
            if topics:
                statement += SQL(" AND topic = ANY(%s)")
                params.append(list(topics))
            return statement + SQL(" ORDER BY notification_id LIMIT %s"), [*params, limit]

        return self._read(ask)

    def _read(self, ask: Callable[[Connection[Any]], tuple[Composed, list[Any]]]) -> Sequence[Notification]:
        """The rows that `ask` describes. Reading is safe to repeat: after a broken connection it is tried once more."""
        try:
            return self._read_once(ask)
        except (InterfaceError, OperationalError):
            self.datastore.pool.check()  # whatever cut this connection has probably cut the idle ones too
            return self._read_once(ask)

    def _read_once(self, ask: Callable[[Connection[Any]], tuple[Composed, list[Any]]]) -> Sequence[Notification]:
        with self.datastore.get_connection() as conn, conn.cursor(row_factory=tuple_row, binary=True) as cursor:
            statement, params = ask(conn)
            return [_row(*row) for row in cursor.execute(statement, params, prepare=True).fetchall()]


def _insert_values(table: Identifier, count: int) -> Composed:
    rows = SQL(", ").join([SQL("(%b, %b, %s, %b)")] * count)
    insert = SQL("INSERT INTO {} (originator_id, originator_version, topic, state) VALUES {} RETURNING notification_id")
    return insert.format(table, rows)


def _insert_arrays(table: Identifier) -> Composed:
    return SQL(
        "INSERT INTO {} (originator_id, originator_version, topic, state)"
        " SELECT id, version, topic, state FROM unnest(%b::uuid[], %b::bigint[], %s::text[], %b::bytea[])"
        " WITH ORDINALITY AS row (id, version, topic, state, place) ORDER BY place RETURNING notification_id"
    ).format(table)


def _row(stream: UUID, version: int, name: str, state: bytes, position: int) -> Notification:
    return Notification(originator_id=stream, originator_version=version, topic=name, state=bytes(state), id=position)


class Ledger(Application[UUID]):
    """The log of facts. One instance a process; its methods block, and may be called from several threads."""

    def __init__(
        self,
        database_url: str,
        keys: Keys | None = None,
        *,
        pool_size: int = 8,
        create_table: bool = False,
        appended: Callable[[], None] = lambda: None,
    ) -> None:
        """Without `keys` personal fields can be neither written nor read: all that a reader of the log needs.

        `appended` is called after each append, so that readers can be woken; it must not block.
        """
        self._appended = appended
        self._keys = keys
        self._conninfo = {key: value for key, value in conninfo_to_dict(database_url).items() if value is not None}
        env = {
            "PERSISTENCE_MODULE": "eventsourcing.postgres",
            "APPLICATION_RECORDER_TOPIC": "application.event_store:LedgerRecorder",
            "CREATE_TABLE": "y" if create_table else "n",
            "POSTGRES_DBNAME": str(self._conninfo["dbname"]),
            "POSTGRES_HOST": str(self._conninfo.get("host") or "localhost"),
            "POSTGRES_PORT": str(self._conninfo.get("port", 5432)),
            "POSTGRES_USER": str(self._conninfo["user"]),
            "POSTGRES_PASSWORD": str(self._conninfo.get("password", "")),
            "POSTGRES_POOL_SIZE": "1",
            "POSTGRES_MAX_OVERFLOW": str(pool_size - 1),
            "POSTGRES_CONNECT_TIMEOUT": str(CONNECT_TIMEOUT_S),
        }
        super().__init__(env)
        assert isinstance(self.recorder, LedgerRecorder)  # noqa: S101  chosen four lines above
        self.recorder: LedgerRecorder

    def construct_env(self, name: str, env: EnvType | None = None) -> Environment:
        """Only what was asked for: the library would merge in the whole environment of the process."""
        return Environment(name, dict(env or {}))

    def construct_factory(self, env: Environment) -> InfrastructureFactory[Any]:
        factory = PostgresFactory(env)
        limits = f"-c statement_timeout={MAX_STATEMENT_MS} -c lock_timeout={MAX_LOCK_WAIT_MS}"
        assert isinstance(factory.datastore.pool.kwargs, dict)  # noqa: S101  the library passes a dict
        # The library hands on five of the connection's parameters; the rest (sslmode, …) are ours to add.
        factory.datastore.pool.kwargs.update({"options": limits, "application_name": "payledger"} | self._conninfo)
        return factory

    def construct_mapper(self) -> FactMapper:
        assert isinstance(self.factory, PostgresFactory)  # noqa: S101  made above
        self.vault = Vault(self._keys, self.factory.datastore.get_connection) if self._keys else None
        return FactMapper(self.vault)

    def append(self, envelopes: Sequence[Envelope], tail: bytes) -> Loaded:
        """Store the next facts of a stream, all or none, chained to `tail`, the hash of the row before them.

        Returns them with their positions. Raises StreamMoved when a version is taken and StoreUnavailable when the
        database does not answer.
        """
        chained, rows = [], []
        for envelope in envelopes:
            linked = replace(envelope, previous=tail)
            row = self.mapper.to_stored_event(linked)
            tail = row_hash(row)
            chained.append(linked)
            rows.append(row)
        try:
            positions = self.recorder.insert_events(rows)
        except IntegrityError as error:
            raise StreamMoved from error
        except (InterfaceError, OperationalError) as error:
            raise StoreUnavailable from error
        if rows:
            self._appended()
        placed = zip(chained, positions or (), strict=True)
        return Loaded(tuple(replace(envelope, position=position) for envelope, position in placed), tail)

    def load(self, stream: UUID) -> Loaded:
        """All facts of a stream, opened; none if there is no such stream."""
        try:
            rows = self.recorder.select_events(stream)
        except (InterfaceError, OperationalError) as error:
            raise StoreUnavailable from error
        return Loaded(
            tuple(self.opened(self.envelope(row)) for row in rows), row_hash(rows[-1]) if rows else NO_PREVIOUS
        )

    def read(self, after: int, limit: int) -> Sequence[Notification]:
        """Up to `limit` rows of the log after a position, in order and without a gap."""
        try:
            return self.recorder.select_notifications(after, limit, inclusive_of_start=False)
        except (InterfaceError, OperationalError) as error:
            raise StoreUnavailable from error

    def envelope(self, row: StoredEvent) -> Envelope:
        """A row of the log as the fact it holds, what is personal in it still sealed. Raises UnreadableFact."""
        return self._mapper.to_domain_event(row)

    def opened(self, envelope: Envelope) -> Envelope:
        """The fact with its personal fields, or without if the person has been erased."""
        return self._mapper.opened(envelope)

    def personal(self, stream: UUID, sealed: Sealed) -> dict[str, Any]:
        """What was sealed, by field; nothing if the person has been erased."""
        return self._mapper.personal(stream, sealed)

    @property
    def _mapper(self) -> FactMapper:
        assert isinstance(self.mapper, FactMapper)  # noqa: S101  constructed above
        return self.mapper
