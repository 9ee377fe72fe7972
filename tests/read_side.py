"""A log with read models beside it, and what tests do to them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import reduce
from itertools import count
from threading import Thread
from typing import Any
from uuid import UUID, uuid4

import psycopg
from msgspec.structs import replace
from psycopg.sql import SQL, Identifier

from application.event_store import Ledger
from domain.envelope import Envelope
from domain.facts import of_payment
from domain.payment import Payment, evolve
from domain.payment_facts import AuthorizationStarted, PaymentFact
from interface.bootstrap import log_reader, stream_reader
from projections import payment_status
from projections.engine import Engine, Log, Projection, ReadModel, checkpoint, take_over
from projections.parking import Parked, parked
from projections.payment_rows import read_row
from tests.given import CAPTURED, NOON

Row = tuple[int, Payment]


class ReadSide:
    """One database: appends to its log, engines on its read models, and what the rows should be."""

    def __init__(self, url: str, ledger: Ledger, conn: psycopg.Connection[Any]) -> None:
        self.url = url
        self.ledger = ledger
        self.conn = conn
        self.read = log_reader(ledger)
        self.seconds = count()  # since noon, of the facts that are appended

    # The log

    def append(self, *facts: PaymentFact, stream: UUID | None = None, order: str | None = None) -> UUID:
        """Facts at the end of a stream, a new one unless named; the payment names an order if told."""
        stream = stream or uuid4()
        loaded = self.ledger.load(stream)
        self.ledger.append(
            [self._envelope(stream, version, fact, order) for version, fact in self._numbered(loaded.envelopes, facts)],
            loaded.tail,
        )
        return stream

    def captured(self, order: str | None = None) -> UUID:
        """A payment's whole history."""
        return self.append(*CAPTURED, order=order)

    @property
    def end(self) -> int:
        return int(self.one("SELECT coalesce(max(notification_id), 0) FROM ledger_events"))

    def folded(self) -> dict[UUID, Row]:
        """Each payment as its stream says, by the domain alone."""
        streams = [row[0] for row in self.conn.execute("SELECT DISTINCT originator_id FROM ledger_events")]
        histories = {stream: self.ledger.load(stream).envelopes for stream in streams}
        return {stream: (len(history), _fold(history)) for stream, history in histories.items()}

    # The read models

    def engine(self, projection: Projection | ReadModel = payment_status.MODEL, read: Log | None = None) -> Engine:
        found = projection.projection() if isinstance(projection, ReadModel) else projection
        return Engine(found, read or self.read, self.url)

    def catch_up(self, *models: ReadModel, limit: int = 1_000) -> None:
        """Apply all there is, so many facts at a time."""
        for model in models or (payment_status.MODEL,):
            engine = self.engine(model, lambda after, _: self.read(after, limit))
            with psycopg.connect(self.url, autocommit=True) as conn:
                assert take_over(conn, model.name)
                while engine.step(conn):
                    pass

    def retry(self, stream: UUID, model: ReadModel = payment_status.MODEL) -> bool:
        with psycopg.connect(self.url, autocommit=True) as conn:
            return self.engine(model).retry(conn, stream, stream_reader(self.ledger))

    def rows(self, table: str = payment_status.NAME) -> dict[UUID, Row]:
        query = "SELECT id, state, version, position, created_at, updated_at FROM {}"
        rows = self.conn.execute(SQL(query).format(Identifier(table))).fetchall()
        return {at.id: (at.version, at.payment) for at in map(read_row, rows)}

    def all_rows(self, *tables: str) -> list[list[tuple[Any, ...]]]:
        query = "SELECT * FROM {} ORDER BY id"
        return [self.conn.execute(SQL(query).format(Identifier(table))).fetchall() for table in tables]

    def parked(self) -> list[Parked]:
        return parked(self.conn)

    def checkpoint(self, name: str = payment_status.NAME) -> int:
        return checkpoint(self.conn, name)

    def one(self, query: str, *values: object) -> Any:
        row = self.conn.execute(query.encode(), values).fetchone()
        return row[0] if row else None

    @staticmethod
    def _numbered(history: Sequence[Envelope], facts: Sequence[PaymentFact]) -> list[tuple[int, PaymentFact]]:
        return list(enumerate(facts, len(history) + 1))

    def _envelope(self, stream: UUID, version: int, fact: PaymentFact, order: str | None) -> Envelope:
        if isinstance(fact, AuthorizationStarted) and order:
            fact = replace(fact, order=order)
        return Envelope(
            stream=stream,
            version=version,
            fact=fact,
            at=NOON + timedelta(seconds=next(self.seconds)),
            actor="cinema",
            operation="op_1",
            correlation="request-1",
            causation=None,
            fingerprint=None,
        )


def _fold(history: Sequence[Envelope]) -> Payment:
    payment = reduce(evolve, (of_payment(envelope.fact) for envelope in history), None)
    assert payment is not None
    return payment


@contextmanager
def running(*engines: Engine) -> Iterator[None]:
    """The engines at work, each in a thread, until the block ends."""
    threads = [Thread(target=engine.run) for engine in engines]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for engine in engines:
            engine.stop()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive(), "the engine did not stop"
