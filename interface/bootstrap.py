"""The parts that every process shares: the clock, the list of read models, and the log as its readers see it."""

import gc
import os
import socket
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, ParamSpec
from uuid import UUID

import psycopg
from eventsourcing.persistence import InterfaceError, Notification, OperationalError
from psycopg.rows import tuple_row

from application.event_store import Ledger, StoreUnavailable
from application.stored_form import UnreadableFact
from domain.envelope import Envelope
from projections import orders, payment_status
from projections.engine import Log
from projections.parking import Unreadable

P = ParamSpec("P")

READ_MODELS = (payment_status.MODEL, orders.MODEL)
PROJECTIONS = tuple(model.projection() for model in READ_MODELS)

# A batch is cut when its rows hold this much, and they are read so many at a time to notice.
MAX_BATCH_BYTES = 8 * 1024 * 1024
MAX_PAGE = 1_000
# The collector of a process that folds facts looks once for so many new objects.
COLLECT_EVERY = 50_000
# What the database keeps of a session's name.
MAX_NAME_BYTES = 63


def clock() -> datetime:
    return datetime.now(UTC)


def fold_fast() -> None:
    """Have this process look for cycles seldom: facts have none, and the search took a fifth of a catch-up."""
    gc.freeze()
    gc.set_threshold(COLLECT_EVERY)


def worker_name() -> str:
    """Who and where, for those who look at the database: `payledger HOST:PID`."""
    pid = f":{os.getpid()}"
    return f"payledger {socket.gethostname()}"[: MAX_NAME_BYTES - len(pid)] + pid


def log_reader(ledger: Ledger) -> Log:
    """The log as projections and publishers read it: facts, or what cannot be read, never skipped."""

    def read(after: int, limit: int) -> Sequence[Envelope | Unreadable]:
        facts: list[Envelope | Unreadable] = []
        room = MAX_BATCH_BYTES
        while len(facts) < limit and room > 0:
            wanted = min(MAX_PAGE, limit - len(facts))
            rows = _answered(ledger.read, after, wanted)
            for row in rows:
                room -= len(row.state)
                if room < 0 and facts:
                    return facts
                facts.append(_fact(ledger, row))
            if len(rows) < wanted:
                break
            after = rows[-1].id
        return facts

    return read


def recall(ledger: Ledger, conn: psycopg.Connection[Any]) -> None:
    """Tell a new process's horizon how far readers got before it: what they passed need not be waited for again."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        if cursor.execute("SELECT to_regclass('checkpoints')").fetchone() == (None,):
            return  # a log that no read model follows yet
        row = cursor.execute("SELECT coalesce(max(position), 0) FROM checkpoints").fetchone()
    ledger.recorder.horizon.passed(row[0] if row else 0)


def stream_reader(ledger: Ledger) -> Callable[[UUID], Sequence[Envelope | Unreadable]]:
    """One stream as projections read it, with the positions of its facts."""
    return lambda stream: [_fact(ledger, row) for row in _answered(ledger.recorder.select_events, stream)]


def _answered(ask: Callable[P, Sequence[Notification]], *args: P.args, **kwargs: P.kwargs) -> Sequence[Notification]:
    try:
        return ask(*args, **kwargs)
    except (StoreUnavailable, OperationalError, InterfaceError) as error:
        raise psycopg.OperationalError(str(error)) from error


def _fact(ledger: Ledger, row: Notification) -> Envelope | Unreadable:
    try:
        return ledger.envelope(row)
    except UnreadableFact as error:
        assert isinstance(row.originator_id, UUID)  # noqa: S101  our table's column type
        return Unreadable(row.originator_id, row.originator_version, row.id, str(error))
