"""Which operations have started and not ended, and when is each to be tried next?"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from msgspec import Struct
from psycopg import AsyncConnection, Connection
from psycopg.rows import class_row
from psycopg.sql import SQL, Identifier

from domain.customer_facts import (
    CardRefused,
    CardUpdated,
    CardUpdateStarted,
    CustomerCreated,
    CustomerRefused,
    CustomerRegistered,
)
from domain.envelope import Envelope
from domain.facts import Fact
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
from domain.subscription_facts import (
    CancellationRefused,
    CancellationRequested,
    CancellationScheduled,
    ChangeRefused,
    ChangeRequested,
    ResumeRefused,
    ResumeRequested,
    SubscriptionCancelled,
    SubscriptionChanged,
    SubscriptionRefused,
    SubscriptionRequested,
    SubscriptionResumed,
    SubscriptionStarted,
)
from projections.engine import ReadModel
from projections.parking import Failure

NAME = "open_operations"
MAX_SHOWN = 1_000

Aggregate = Literal["payment", "customer", "subscription"]

# --- Fold --------------------------------------------------------------------------------------------------------

Start = (
    AuthorizationStarted
    | CaptureStarted
    | VoidStarted
    | RefundStarted
    | CustomerRegistered
    | CardUpdateStarted
    | SubscriptionRequested
    | ChangeRequested
    | CancellationRequested
    | ResumeRequested
)
# An outcome without an operation ends none: nobody asked for it here.
End = (
    Authorized
    | Captured
    | Voided
    | Refunded
    | Failed
    | CustomerCreated
    | CustomerRefused
    | CardUpdated
    | CardRefused
    | SubscriptionStarted
    | SubscriptionRefused
    | SubscriptionChanged
    | ChangeRefused
    | CancellationScheduled
    | SubscriptionCancelled
    | CancellationRefused
    | SubscriptionResumed
    | ResumeRefused
)
_STARTED: dict[type[Start], tuple[Aggregate, str]] = {
    AuthorizationStarted: ("payment", "authorize"),
    CaptureStarted: ("payment", "capture"),
    VoidStarted: ("payment", "void"),
    RefundStarted: ("payment", "refund"),
    CustomerRegistered: ("customer", "register"),
    CardUpdateStarted: ("customer", "card"),
    SubscriptionRequested: ("subscription", "subscribe"),
    ChangeRequested: ("subscription", "change"),
    CancellationRequested: ("subscription", "cancel"),
    ResumeRequested: ("subscription", "resume"),
}
# Whoever was to authenticate will not be waited for any more; whoever wished for the end has got it.
_GIVEN_UP: dict[type[Fact], str] = {Voided: "authorize", Expired: "authorize", SubscriptionCancelled: "cancel"}

Key = tuple[UUID, str]
Row = tuple[UUID, str, str, str, int | None, str | None, bool, str, str, datetime, int]

_INSERT = """
INSERT INTO {table}
    (payment, operation, aggregate, kind, amount, currency, waiting, actor, correlation, started_at, position)
SELECT * FROM unnest(%b::uuid[], %b::text[], %b::text[], %b::text[], %b::bigint[], %b::text[], %b::bool[], %b::text[],
                     %b::text[], %b::timestamptz[], %b::bigint[])
ON CONFLICT DO NOTHING
"""
_DELETE = "DELETE FROM {table} WHERE (payment, operation) IN (SELECT * FROM unnest(%b::uuid[], %b::text[]))"
_WAIT = "UPDATE {table} SET waiting = true WHERE (payment, operation) IN (SELECT * FROM unnest(%b::uuid[], %b::text[]))"
_GIVE_UP = "DELETE FROM {table} WHERE (payment, kind) IN (SELECT * FROM unnest(%b::uuid[], %b::text[]))"


class Changes(Struct):
    """What a batch of facts does to the rows: an operation that starts and ends within it leaves none.

    `given_up`: all operations of a kind that a stream had open.
    """

    started: dict[Key, Row] = {}
    ended: dict[Key, None] = {}
    waiting: dict[Key, None] = {}
    given_up: dict[tuple[UUID, str], None] = {}

    def take(self, envelope: Envelope) -> None:
        fact = envelope.fact
        if isinstance(fact, Start):
            self.started[envelope.stream, fact.operation] = _row(envelope, fact)
        elif isinstance(fact, ActionRequired):
            self._wait(envelope.stream, fact.operation)
        elif isinstance(fact, End) and fact.operation is not None:
            self._end(envelope.stream, fact.operation)
        if (kind := _GIVEN_UP.get(type(fact))) is not None:
            self._give_up(envelope.stream, kind)

    def _wait(self, stream: UUID, operation: str) -> None:
        key = stream, operation
        if (row := self.started.get(key)) is not None:
            self.started[key] = (*row[:6], True, *row[7:])
        else:
            self.waiting[key] = None

    def _end(self, stream: UUID, operation: str) -> None:
        if self.started.pop((stream, operation), None) is None:
            self.ended[stream, operation] = None

    def _give_up(self, stream: UUID, kind: str) -> None:
        for key in [key for key, row in self.started.items() if (key[0], row[3]) == (stream, kind)]:
            del self.started[key]
        self.given_up[stream, kind] = None


def _row(envelope: Envelope, fact: Start) -> Row:
    amount = fact.amount if isinstance(fact, AuthorizationStarted | CaptureStarted | RefundStarted) else None
    return (
        envelope.stream,
        fact.operation,
        *_STARTED[type(fact)],
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
    for statement, keys in ((_WAIT, changes.waiting), (_DELETE, changes.ended), (_GIVE_UP, changes.given_up)):
        if keys:
            columns = [list(column) for column in zip(*keys, strict=True)]
            conn.execute(SQL(statement).format(table=table), columns, prepare=True)
    if changes.started:
        columns = [list(column) for column in zip(*changes.started.values(), strict=True)]
        conn.execute(SQL(_INSERT).format(table=table), columns, prepare=True)
    return []


MODEL = ReadModel(NAME, (NAME,), apply)


# --- Query -------------------------------------------------------------------------------------------------------

_OPEN = """
SELECT payment, operation, aggregate, kind, amount, currency, waiting, actor, correlation, started_at,
    coalesce(attempts, 0) AS attempts, coalesce(reason, '') AS reason, next_try
FROM open_operations LEFT JOIN operation_tries USING (payment, operation)
"""


class OpenOperation(Struct, frozen=True):
    """`payment` is the stream that it is of, whatever `aggregate` that is the stream of.

    `amount` in minor units, where it moves money; `waiting` for the cardholder; `attempts` by recovery, the last of
    which ended so.
    """

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
    aggregate: Aggregate = "payment"


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
