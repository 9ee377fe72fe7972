"""Facts of many streams together with rows of somebody else's, all or none: one transaction on the log.

What it must not do is wait for anybody outside while it is open: readers of the log stand behind it (horizon.py).
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import groupby
from typing import Any
from uuid import UUID

from eventsourcing.persistence import IntegrityError, PersistenceError
from psycopg import Connection
from psycopg.rows import TupleRow, tuple_row

from application.event_store import AWAY, Ledger, Loaded, StoreUnavailable, StreamMoved
from application.stored_form import UnreadableFact, row_hash
from domain.envelope import Envelope


class LogTransaction:
    """While it is open. `conn` is for the rows that belong to the facts."""

    def __init__(self, ledger: Ledger, conn: Connection[Any]) -> None:
        self._ledger = ledger
        self.conn: Connection[TupleRow] = conn

    def load(self, streams: Sequence[UUID]) -> dict[UUID, Loaded | UnreadableFact]:
        """Those of the streams that there are, by one query; of one that this version cannot read, why."""
        rows = self._ledger.recorder.select_streams(self.conn, streams)
        found: dict[UUID, Loaded | UnreadableFact] = {}
        for stream, of_stream in groupby(rows, lambda row: row.originator_id):
            assert isinstance(stream, UUID)  # noqa: S101  our table's column type
            history = list(of_stream)
            try:
                found[stream] = Loaded(tuple(map(self._ledger.envelope, history)), row_hash(history[-1]))
            except UnreadableFact as error:
                found[stream] = error
        return found

    def append(self, appends: Iterable[tuple[Sequence[Envelope], bytes]]) -> None:
        """The next facts of several streams, at least one of each, with the hash of the row before them.

        A version that is taken makes the whole transaction fail.
        """
        # Two processes that insert the same streams in different orders would wait for each other for ever.
        in_order = sorted(appends, key=lambda append: append[0][0].stream.int)
        rows = [row for envelopes, tail in in_order for row in self._ledger.rows(envelopes, tail)]
        if rows:
            self._ledger.recorder.insert_within(self.conn, rows)


@contextmanager
def log_transaction(ledger: Ledger) -> Iterator[LogTransaction]:
    """Commits at the end and wakes the log's readers; rolls back when anything is raised inside.

    Raises StreamMoved when a version was taken, and StoreUnavailable when the database did not answer: whether it was
    committed is not known then.
    """
    datastore = ledger.recorder.datastore
    try:
        with datastore.get_connection() as conn, _tuples(conn), conn.transaction():
            yield LogTransaction(ledger, conn)
    except IntegrityError as error:
        raise StreamMoved from error
    except AWAY as error:
        with suppress(PersistenceError, *AWAY):
            datastore.pool.check()  # whatever cut this connection has probably cut the idle ones too
        raise StoreUnavailable from error
    ledger.appended()


@contextmanager
def _tuples(conn: Connection[Any]) -> Iterator[None]:
    """The library's pool has its connections make dictionaries, and takes them back so."""
    made, conn.row_factory = conn.row_factory, tuple_row
    try:
        yield
    finally:
        conn.row_factory = made
