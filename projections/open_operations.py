"""Which operations have started and not ended, and when is each to be tried next?"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from msgspec import Struct
from psycopg import AsyncConnection, Connection
from psycopg.rows import class_row
from psycopg.sql import SQL, Identifier

from domain.envelope import Envelope
from domain.payment_facts import (
    ActionRequired,
    AuthorizationStarted,
    Authorized,
    Captured,
    CaptureStarted,
    Expired,
    Failed,
    Refunded,
    RefundStarted,
    Voided,
    VoidStarted,
)
from projections.engine import ReadModel
from projections.parking import Failure

NAME = "open_operations"
MAX_SHOWN = 1_000

# --- Fold --------------------------------------------------------------------------------------------------------

Key = tuple[UUID, str]
Row = tuple[UUID, str, str, int | None, str | None, bool, str, str, datetime, int]

_INSERT = """
INSERT INTO {table} (payment, operation, kind, amount, currency, waiting, actor, correlation, started_at, position)
SELECT * FROM unnest(%b::uuid[], %b::text[], %b::text[], %b::bigint[], %b::text[], %b::bool[], %b::text[], %b::text[],
                     %b::timestamptz[], %b::bigint[])
ON CONFLICT DO NOTHING
"""
_DELETE = "DELETE FROM {table} WHERE (payment, operation) IN (SELECT * FROM unnest(%b::uuid[], %b::text[]))"
_WAIT = "UPDATE {table} SET waiting = true WHERE (payment, operation) IN (SELECT * FROM unnest(%b::uuid[], %b::text[]))"
_GIVE_UP = "DELETE FROM {table} WHERE kind = 'authorize' AND payment = ANY(%b)"


class Changes(Struct):
    """What a batch of facts does to the rows: an operation that starts and ends within it leaves none."""

    started: dict[Key, Row] = {}
    ended: dict[Key, None] = {}
    waiting: dict[Key, None] = {}
    given_up: dict[UUID, None] = {}

    def take(self, envelope: Envelope) -> None:
        fact = envelope.fact
        match fact:
            case AuthorizationStarted() | CaptureStarted() | VoidStarted() | RefundStarted():
                self.started[envelope.stream, fact.operation] = _row(envelope, fact)
            case ActionRequired():
                key = envelope.stream, fact.operation
                if (row := self.started.get(key)) is not None:
                    self.started[key] = (*row[:5], True, *row[6:])
                else:
                    self.waiting[key] = None
            case Authorized() | Captured() | Voided() | Refunded() | Failed():
                self._end(envelope.stream, fact.operation)
            case _:
                pass
        if isinstance(fact, Voided | Expired):
            # Whoever was to authenticate will not be waited for any more.
            for key in [
                key for key, row in self.started.items() if key[0] == envelope.stream and row[2] == "authorize"
            ]:
                del self.started[key]
            self.given_up[envelope.stream] = None

    def _end(self, payment: UUID, operation: str) -> None:
        if self.started.pop((payment, operation), None) is None:
            self.ended[payment, operation] = None


def _row(envelope: Envelope, fact: AuthorizationStarted | CaptureStarted | VoidStarted | RefundStarted) -> Row:
    kinds = {AuthorizationStarted: "authorize", CaptureStarted: "capture", VoidStarted: "void", RefundStarted: "refund"}
    amount = None if isinstance(fact, VoidStarted) else fact.amount
    return (
        envelope.stream,
        fact.operation,
        kinds[type(fact)],
        amount.minor if amount else None,
        amount.currency if amount else None,
        False,
        envelope.actor,
        envelope.correlation,
        envelope.at,
        envelope.position or 0,
    )


def apply(conn: Connection[Any], envelopes: Sequence[Envelope], suffix: str = "") -> list[Failure]:
    """Bring the rows up to these facts, in the caller's transaction. None of them can fail."""
    changes = Changes()
    for envelope in envelopes:
        changes.take(envelope)
    table = Identifier(NAME + suffix)
    for statement, keys in ((_WAIT, changes.waiting), (_DELETE, changes.ended)):
        if keys:
            columns = [list(column) for column in zip(*keys, strict=True)]
            conn.execute(SQL(statement).format(table=table), columns, prepare=True)
    if changes.given_up:
        conn.execute(SQL(_GIVE_UP).format(table=table), [list(changes.given_up)], prepare=True)
    if changes.started:
        columns = [list(column) for column in zip(*changes.started.values(), strict=True)]
        conn.execute(SQL(_INSERT).format(table=table), columns, prepare=True)
    return []


MODEL = ReadModel(NAME, (NAME,), apply)


# --- Query -------------------------------------------------------------------------------------------------------

_OPEN = """
SELECT payment, operation, kind, amount, currency, waiting, actor, correlation, started_at,
    coalesce(attempts, 0) AS attempts, coalesce(reason, '') AS reason, next_try
FROM open_operations LEFT JOIN operation_tries USING (payment, operation)
"""


class OpenOperation(Struct, frozen=True):
    """`amount` in minor units; `waiting` for the cardholder; `attempts` by recovery, the last of which ended so."""

    payment: UUID
    operation: str
    kind: str
    amount: int | None
    currency: str | None
    waiting: bool
    actor: str
    correlation: str
    started_at: datetime
    attempts: int
    reason: str
    next_try: datetime | None


async def due(
    conn: AsyncConnection[Any], now: datetime, abandoned: datetime, patient: datetime, limit: int
) -> list[OpenOperation]:
    """Operations to be tried now, the longest waiting first: those whose time has come, and of those that nobody has
    tried yet, what began before `abandoned` (before `patient`, where the cardholder is waited for).
    """
    where = (
        "WHERE CASE WHEN next_try IS NOT NULL THEN next_try <= %s AND held_until <= %s"
        " ELSE started_at < CASE WHEN waiting THEN %s ELSE %s END END"
        " ORDER BY coalesce(next_try, started_at) LIMIT %s"
    )
    async with conn.cursor(row_factory=class_row(OpenOperation)) as cursor:
        await cursor.execute(_OPEN + where, (now, now, patient, abandoned, limit), prepare=True)
        return await cursor.fetchall()


async def oldest(conn: AsyncConnection[Any], limit: int = MAX_SHOWN) -> list[OpenOperation]:
    """All that is open, the oldest first."""
    async with conn.cursor(row_factory=class_row(OpenOperation)) as cursor:
        await cursor.execute(_OPEN + "ORDER BY started_at, operation LIMIT %s", (min(limit, MAX_SHOWN),))
        return await cursor.fetchall()
