"""Setting a stream aside after a failure: its facts wait in the log itself, in order, and nobody else waits.

What is kept of a failure tells where and why, never what was in the fact.
"""

from collections.abc import Callable, Iterable, Sequence
from traceback import extract_tb
from typing import Any, Self
from uuid import UUID

import psycopg
from msgspec import Struct
from psycopg import Connection
from psycopg.rows import tuple_row

from domain.envelope import Envelope

# A projection that would have more streams aside than this is itself at fault: it stops instead.
MAX_PARKED = 100
# "NAME" when a projection's troubles began, changed or ended.
TROUBLE = "projection_trouble"
MAX_REASON = 500
MAX_TRACE = 4_000


class TooManyParked(Exception):  # noqa: N818  it says what is so
    """More streams fail than a few bad facts explain. The batch was rolled back; nothing was set aside."""


class Unreadable(Struct, frozen=True):
    """A row of the log that this version cannot read."""

    stream: UUID
    version: int
    position: int
    reason: str


class Failure(Struct, frozen=True):
    """A stream that cannot be applied from this position on, and why; `trace` is where in the code."""

    stream: UUID
    position: int
    reason: str
    trace: str = ""

    @classmethod
    def at(cls, envelope: Envelope, error: Exception) -> Self:
        assert envelope.position is not None  # noqa: S101  it was read from the log
        return cls(envelope.stream, envelope.position, _reason(error), "\n".join(_frames(error))[-MAX_TRACE:])


def where(error: Exception) -> str:
    """The place in the code where it was raised, without what it says."""
    return (_frames(error) or ["?"])[-1]


def _frames(error: Exception) -> list[str]:
    return [f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in extract_tb(error.__traceback__)]


def _reason(error: Exception) -> str:
    # A database quotes the values it could not store; only its code is told.
    if isinstance(error, psycopg.Error):
        return f"{type(error).__name__} {error.sqlstate or ''}".strip()
    return repr(error)[:MAX_REASON]


# --- Around what fails -------------------------------------------------------------------------------------------

Apply = Callable[[Connection[Any], Sequence[Envelope]], Sequence[Failure] | None]


def sorted_out(rows: Iterable[Envelope | Unreadable], aside: frozenset[UUID]) -> tuple[list[Envelope], list[Failure]]:
    """The facts to apply, and the streams that cannot be read on. Streams that are aside stay there."""
    blocked = set(aside)
    facts, failures = [], []
    for row in rows:
        if blocked and row.stream in blocked:
            continue
        if isinstance(row, Envelope):
            facts.append(row)
        else:
            blocked.add(row.stream)
            failures.append(Failure(row.stream, row.position, row.reason[:MAX_REASON]))
    return facts, failures


def apply_around(
    conn: Connection[Any], apply: Apply, facts: Sequence[Envelope], passing: tuple[type[Exception], ...]
) -> list[Failure]:
    """Apply what can be applied, and answer what cannot, at most a few more than MAX_PARKED.

    A batch that fails as a whole is halved, between streams and at last within one, until what fails is one fact.
    Errors that are `passing` are no fault of the facts and raised.
    """
    if not facts:
        return []
    try:
        with conn.transaction():
            return list(apply(conn, facts) or ())
    except passing:
        raise
    except Exception as error:  # noqa: BLE001  whatever it is, it must not hold up the other streams
        if len(facts) == 1:
            return [Failure.at(facts[0], error)]
    first, second, one_stream = _halves(facts)
    failed = apply_around(conn, apply, first, passing)
    if len(failed) > MAX_PARKED or (failed and one_stream):
        return failed
    return failed + apply_around(conn, apply, second, passing)


def _halves(facts: Sequence[Envelope]) -> tuple[Sequence[Envelope], Sequence[Envelope], bool]:
    streams = list(dict.fromkeys(fact.stream for fact in facts))
    if len(streams) == 1:
        middle = len(facts) // 2
        return facts[:middle], facts[middle:], True
    chosen = set(streams[: len(streams) // 2])
    return [f for f in facts if f.stream in chosen], [f for f in facts if f.stream not in chosen], False


# --- The table ---------------------------------------------------------------------------------------------------


class Parked(Struct, frozen=True):
    """A stream that is aside: it has been tried so often, the first fact not applied stands at `position`."""

    projection: str
    stream: UUID
    position: int
    reason: str
    trace: str
    attempts: int


def aside(conn: Connection[Any], projection: str) -> frozenset[UUID]:
    """The streams of a projection that are parked."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        query = "SELECT stream FROM parked WHERE projection = %s"
        return frozenset(stream for (stream,) in cursor.execute(query, (projection,), prepare=True))


def parked(conn: Connection[Any]) -> list[Parked]:
    """All that is parked, in the order it fell out."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        query = "SELECT projection, stream, position, reason, trace, attempts FROM parked ORDER BY projection, position"
        return [Parked(*row) for row in cursor.execute(query)]


def park(conn: Connection[Any], projection: str, failures: Sequence[Failure], already: int = 0) -> None:
    """Set streams aside, in the caller's transaction. Raises TooManyParked."""
    if len(failures) + already > MAX_PARKED:
        raise TooManyParked(f"more than {MAX_PARKED} streams fail; the first: {failures[0].reason}")
    for failure in sorted(failures, key=lambda failure: failure.position):
        conn.execute(
            "INSERT INTO parked (projection, stream, position, reason, trace) VALUES (%s, %s, %s, %s, %s)"
            " ON CONFLICT (projection, stream) DO UPDATE SET position = excluded.position, reason = excluded.reason,"
            " trace = excluded.trace, attempts = parked.attempts + 1",
            (projection, failure.stream, failure.position, failure.reason, failure.trace),
        )
    tell_trouble(conn, projection)


def unpark(conn: Connection[Any], projection: str, stream: UUID) -> None:
    conn.execute("DELETE FROM parked WHERE projection = %s AND stream = %s", (projection, stream))
    tell_trouble(conn, projection)


def tell_trouble(conn: Connection[Any], projection: str) -> None:
    """Have whoever follows the projections look at how they stand, when the caller's transaction ends."""
    conn.execute("SELECT pg_notify(%s, %s)", (TROUBLE, projection))
