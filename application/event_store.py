"""The event store: append facts and load a stream, on the `eventsourcing` library's Application and its seams."""

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any
from uuid import UUID

from eventsourcing.application import Application
from eventsourcing.persistence import (
    InfrastructureFactory,
    IntegrityError,
    InterfaceError,
    InternalError,
    Notification,
    OperationalError,
    StoredEvent,
)
from eventsourcing.postgres import PostgresFactory
from eventsourcing.utils import Environment, EnvType
from msgspec import Struct
from msgspec.structs import replace
from psycopg.conninfo import conninfo_to_dict

from application.group_commit import GroupCommit
from application.privacy import Keys, Vault
from application.recorder import LedgerRecorder
from application.stored_form import FactMapper, row_hash
from domain.envelope import NO_PREVIOUS, Envelope
from domain.personal import Sealed

# A command appends one fact or two. More than this is a load of many, and makes a group of its own.
MAX_FACTS_TOGETHER = 8
MAX_STATEMENT_MS = 10_000
MAX_LOCK_WAIT_MS = 5_000
CONNECT_TIMEOUT_S = 5
# The last is what a server says that has become read-only: a standby, or one whose disk is full.
AWAY = (InterfaceError, OperationalError, InternalError)


class StreamMoved(Exception):  # noqa: N818  it says what happened
    """Another writer appended to the stream first. Load it again and decide again."""


class StoreUnavailable(Exception):  # noqa: N818  it says what is so
    """The database did not answer. Whether an append was stored is not known; asking again will tell."""


class Loaded(Struct, frozen=True):
    """A stream as it stands: its facts in order, and the hash of its last row."""

    envelopes: tuple[Envelope, ...]
    tail: bytes = NO_PREVIOUS


class Chain(Struct):
    """The next facts of a stream on their way into the log: as decided, and with their personal fields sealed."""

    envelopes: Sequence[Envelope]
    sealed: Sequence[Envelope]
    tail: bytes
    rows: list[StoredEvent] = []
    hashes: list[bytes] = []
    positions: list[int] = []

    @property
    def stream(self) -> UUID:
        return self.envelopes[0].stream

    def link(self, mapper: FactMapper) -> None:
        """Write each row with the hash of the row before it."""
        self.rows, self.hashes = [], [self.tail]
        for envelope in self.sealed:
            row = mapper.row(envelope, self.hashes[-1])
            self.rows.append(row)
            self.hashes.append(row_hash(row))

    def loaded(self) -> Loaded:
        """The facts as they are in the log now."""
        placed = zip(self.envelopes, self.hashes, self.positions, strict=False)
        return Loaded(
            tuple(replace(envelope, previous=previous, position=position) for envelope, previous, position in placed),
            self.hashes[-1],
        )


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
        self.appended = appended
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
        self._together = GroupCommit(self._store, unknown=StoreUnavailable)
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
        given = {"application_name": "payledger"} | self._conninfo
        options = f"{limits} {self._conninfo.get('options', '')}"
        factory.datastore.pool.kwargs.update(given | {"options": options})
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
        if not envelopes:
            return Loaded((), tail)
        chain = self._chain(envelopes, tail)
        loaded = self._together.do(chain) if len(envelopes) <= MAX_FACTS_TOGETHER else self._store([chain])[0]
        self.appended()
        return loaded

    def append_all(self, appends: Sequence[tuple[Sequence[Envelope], bytes]]) -> list[Loaded]:
        """Store the next facts of several streams, all or none: what each must not be without the others.

        Of each stream its facts, at least one, and its tail. Raises what `append` does.
        """
        loaded = self._store([self._chain(envelopes, tail) for envelopes, tail in appends])
        self.appended()
        return loaded

    def rows(self, envelopes: Sequence[Envelope], tail: bytes) -> list[StoredEvent]:
        """The next facts of a stream as `append` would store them: for application/log_transaction.py, which does."""
        chain = self._chain(envelopes, tail)
        chain.link(self._mapper)
        return chain.rows

    def _chain(self, envelopes: Sequence[Envelope], tail: bytes) -> Chain:
        return Chain(envelopes, [self._mapper.sealed(envelope) for envelope in envelopes], tail)

    def _store(self, chains: Sequence[Chain]) -> list[Loaded]:
        """All of them or none. Raises StreamMoved when a version of any is taken, and StoreUnavailable."""
        for chain in chains:
            chain.link(self._mapper)
        # Two processes that insert the same streams in different orders would wait for each other for ever.
        in_order = sorted(chains, key=lambda chain: chain.stream)
        try:
            positions = self.recorder.insert_events([row for chain in in_order for row in chain.rows])
        except IntegrityError as error:
            raise StreamMoved from error
        except AWAY as error:
            raise StoreUnavailable from error
        places = iter(positions or ())
        for chain in in_order:
            chain.positions = list(islice(places, len(chain.rows)))
        return [chain.loaded() for chain in chains]

    def load(self, stream: UUID) -> Loaded:
        """All facts of a stream, opened; none if there is no such stream."""
        try:
            rows = self.recorder.select_events(stream)
        except AWAY as error:
            raise StoreUnavailable from error
        return Loaded(
            tuple(self.opened(self.envelope(row)) for row in rows), row_hash(rows[-1]) if rows else NO_PREVIOUS
        )

    def read(self, after: int, limit: int) -> Sequence[Notification]:
        """Up to `limit` rows of the log after a position, in order and without a gap."""
        try:
            return self.recorder.select_notifications(after, limit, inclusive_of_start=False)
        except AWAY as error:
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
