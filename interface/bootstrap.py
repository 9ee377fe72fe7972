"""The parts that every process shares: the clock, the list of read models, and the log as its readers see it."""

import gc
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from threading import Lock
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

import psycopg
from eventsourcing.persistence import InterfaceError, OperationalError
from psycopg.rows import tuple_row
from psycopg.sql import SQL, Identifier

from application.event_store import Ledger, StoreUnavailable
from application.stored_form import FactMapper, UnreadableFact
from domain.envelope import Envelope
from projections import customers, open_operations, orders, payment_status
from projections.engine import Log
from projections.parking import Unreadable

P = ParamSpec("P")
T = TypeVar("T")
# A row of the log: stream, version, name, state, position.
Row = tuple[UUID, int, str, bytes, int]

READ_MODELS = (payment_status.MODEL, orders.MODEL, open_operations.MODEL, customers.MODEL)
PROJECTIONS = tuple(model.projection() for model in READ_MODELS)

# A batch is cut when its rows hold this much, and they are read so many at a time to notice.
MAX_BATCH_BYTES = 8 * 1024 * 1024
MAX_PAGE = 1_000
# Engines beside each other get the same batch, one of the last two, if they ask for it so soon.
SHARED_BATCHES = 2
SHARED_S = 1.0
# The collector of a process that folds facts looks once for so many new objects: more than two batches hold; that of
# one that serves requests, which leave some cycles behind, once for as many as some dozen of them make.
FOLDING = 250_000
SERVING = 20_000
_LOG = """
SELECT originator_id, originator_version, topic, state, notification_id FROM {}
WHERE notification_id > %s AND notification_id <= %s ORDER BY notification_id LIMIT %s
"""
# What the database keeps of a session's name.
MAX_NAME_BYTES = 63


def clock() -> datetime:
    return datetime.now(UTC)


def collect_seldom(every: int) -> None:
    """Have this process look for cycles seldom, and not in what it has loaded by now.

    Facts have none: the search took a fifth of a catch-up, and a tenth of a request.
    """
    gc.freeze()
    gc.set_threshold(every)


def worker_name() -> str:
    """Who and where, for those who look at the database: `payledger HOST:PID`."""
    pid = f":{os.getpid()}"
    return f"payledger {socket.gethostname()}"[: MAX_NAME_BYTES - len(pid)] + pid


def log_reader(ledger: Ledger) -> Log:
    """The log as projections and publishers read it: facts, or what cannot be read, never skipped."""
    rows, mapper = _row_reader(ledger), _mapper(ledger)

    def read(after: int, limit: int) -> Sequence[Envelope | Unreadable]:
        facts: list[Envelope | Unreadable] = []
        room = MAX_BATCH_BYTES
        while len(facts) < limit and room > 0:
            wanted = min(MAX_PAGE, limit - len(facts))
            page = _answered(rows, after, wanted)
            for row in page:
                room -= len(row[3])
                if room < 0 and facts:
                    return facts
                facts.append(_fact(mapper, row))
            if len(page) < wanted:
                break
            after = page[-1][4]
        return facts

    return read


def _row_reader(ledger: Ledger) -> Callable[[int, int], Sequence[Row]]:
    """The log's rows as the driver gives them: the library's object for each would take as long as its bytes do."""
    recorder = ledger.recorder
    statement = SQL(_LOG).format(Identifier(recorder.datastore.schema, recorder.events_table_name)).as_bytes()

    def once(after: int, limit: int) -> Sequence[Row]:
        with (
            recorder.datastore.get_connection() as conn,
            conn.cursor(row_factory=tuple_row, binary=True) as cursor,
        ):
            safe = recorder.horizon.advance(conn)
            return cursor.execute(statement, (after, safe, limit), prepare=True).fetchall()

    def rows(after: int, limit: int) -> Sequence[Row]:
        try:
            return once(after, limit)
        except (InterfaceError, OperationalError):
            recorder.datastore.pool.check()  # whatever cut this connection has probably cut the idle ones too
            return once(after, limit)

    return rows


def shared(read: Log) -> Log:
    """One reading for engines that ask for the same facts at about the same time, as those that keep pace do.

    What was read behind the horizon stays so: nothing comes before it any more. Only what was found is kept, and not
    for long: what is read again after a failure may be found otherwise by then.
    """
    kept: deque[tuple[tuple[int, int], float, Sequence[Envelope | Unreadable]]] = deque(maxlen=SHARED_BATCHES)
    lock = Lock()

    def read_once(after: int, limit: int) -> Sequence[Envelope | Unreadable]:
        with lock:
            now_s = time.monotonic()
            for asked, read_s, batch in kept:
                if asked == (after, limit) and now_s - read_s < SHARED_S:
                    return batch
            batch = read(after, limit)
            if batch:
                kept.append(((after, limit), now_s, batch))
            return batch

    return read_once


def recall(ledger: Ledger, conn: psycopg.Connection[Any]) -> None:
    """Tell a new process's horizon how far readers got before it: what they passed need not be waited for again."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        if cursor.execute("SELECT to_regclass('checkpoints')").fetchone() == (None,):
            return  # a log that no read model follows yet
        row = cursor.execute("SELECT coalesce(max(position), 0) FROM checkpoints").fetchone()
    ledger.recorder.horizon.passed(row[0] if row else 0)


def stream_reader(ledger: Ledger) -> Callable[[UUID], Sequence[Envelope | Unreadable]]:
    """One stream as projections read it, with the positions of its facts."""
    mapper = _mapper(ledger)

    def read(stream: UUID) -> Sequence[Envelope | Unreadable]:
        rows = _answered(ledger.recorder.select_events, stream)
        return [_fact(mapper, (stream, row.originator_version, row.topic, row.state, row.id)) for row in rows]

    return read


def _answered(ask: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    try:
        return ask(*args, **kwargs)
    except (StoreUnavailable, OperationalError, InterfaceError) as error:
        raise psycopg.OperationalError(str(error)) from error


def _mapper(ledger: Ledger) -> FactMapper:
    assert isinstance(ledger.mapper, FactMapper)  # noqa: S101  the library's type is wider than ours
    return ledger.mapper


def _fact(mapper: FactMapper, row: Row) -> Envelope | Unreadable:
    try:
        return mapper.envelope(*row)
    except UnreadableFact as error:
        stream, version, _, _, position = row
        return Unreadable(stream, version, position, str(error))
