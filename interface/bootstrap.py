"""The parts that every process shares: the clock, the list of read models, and the log as its readers see it."""

from collections.abc import Sequence
from datetime import UTC, datetime

import psycopg

from application.event_store import Ledger, StoreUnavailable
from application.stored_form import UnreadableFact
from domain.envelope import Envelope
from projections import orders, payment_status
from projections.engine import Log, Projection, Unreadable

PROJECTIONS = (
    Projection(payment_status.NAME, payment_status.apply),
    Projection(orders.NAME, orders.apply),
)


def clock() -> datetime:
    return datetime.now(UTC)


def log_reader(ledger: Ledger) -> Log:
    """The log as projections and publishers read it: facts, or what cannot be read, never skipped."""

    def read(after: int, limit: int) -> Sequence[Envelope | Unreadable]:
        try:
            rows = ledger.read(after, limit)
        except StoreUnavailable as error:
            raise psycopg.OperationalError(str(error)) from error
        facts: list[Envelope | Unreadable] = []
        for row in rows:
            try:
                facts.append(ledger.envelope(row))
            except UnreadableFact as error:
                stream = row.originator_id
                facts.append(Unreadable(stream, row.originator_version, row.id, str(error)))  # type: ignore[arg-type]
        return facts

    return read
