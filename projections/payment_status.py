"""What is the state of this payment, and which payments are there?"""

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any, LiteralString
from uuid import UUID

from msgspec import Struct
from psycopg import AsyncConnection, Connection
from psycopg.rows import tuple_row
from psycopg.sql import SQL, Identifier

from domain.envelope import Envelope
from domain.payment import PaymentAt, Status
from projections.arrays import bigints, blobs, moments, texts, uuids
from projections.engine import ReadModel
from projections.parking import Failure
from projections.payment_rows import fold, read_row, state_of

NAME = "payment_status"
MAX_PAGE = 100

# --- Fold --------------------------------------------------------------------------------------------------------

_UPSERT = """
INSERT INTO {table} AS row (id, version, position, created_at, updated_at, status, customer, order_id, state)
SELECT * FROM unnest(%b::uuid[], %b::bigint[], %b::bigint[], %b::timestamptz[], %b::timestamptz[],
                     %b::text[], %b::text[], %b::text[], %b::bytea[])
ON CONFLICT (id) DO UPDATE SET version = excluded.version, position = excluded.position,
    updated_at = excluded.updated_at, status = excluded.status, customer = excluded.customer,
    order_id = excluded.order_id, state = excluded.state
WHERE row.version < excluded.version
"""


def apply(conn: Connection[Any], envelopes: Sequence[Envelope], suffix: str = "") -> list[Failure]:
    """Bring the rows up to these facts, in the caller's transaction; answer the streams that could not be."""
    table = NAME + suffix
    changed, failures = fold(conn, table, envelopes)
    if changed:
        payments = [at.payment for at in changed]
        columns = (
            uuids([at.id for at in changed]),
            bigints([at.version for at in changed]),
            bigints([at.position for at in changed]),
            moments([at.created_at for at in changed]),
            moments([at.updated_at for at in changed]),
            texts([payment.status for payment in payments]),
            texts([payment.customer for payment in payments]),
            texts([payment.order for payment in payments]),
            blobs([state_of(at) for at in changed]),
        )
        conn.execute(_upsert(table), columns, prepare=True)
    return failures


@cache
def _upsert(table: str) -> bytes:
    return SQL(_UPSERT).format(table=Identifier(table)).as_bytes()


MODEL = ReadModel(NAME, (NAME,), apply)


# --- Query -------------------------------------------------------------------------------------------------------

_COLUMNS: LiteralString = "SELECT id, state, version, position, created_at, updated_at FROM payment_status "


class Wanted(Struct, frozen=True):
    """Which payments: every condition that is given must hold. `since` is inclusive, `until` is not.

    `before` continues a list: only payments that come after this (time, id) in it.
    """

    status: Status | None = None
    customer: str | None = None
    order: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    before: tuple[datetime, UUID] | None = None


async def find(conn: AsyncConnection[Any], payment: UUID) -> PaymentAt | None:
    async with conn.cursor(row_factory=tuple_row, binary=True) as cursor:
        await cursor.execute(_COLUMNS + "WHERE id = %s", [payment], prepare=True)
        row = await cursor.fetchone()
    return read_row(row) if row else None


async def find_all(conn: AsyncConnection[Any], payments: Sequence[UUID]) -> dict[UUID, PaymentAt]:
    """Those of the payments that are there."""
    async with conn.cursor(row_factory=tuple_row, binary=True) as cursor:
        await cursor.execute(_COLUMNS + "WHERE id = ANY(%b::uuid[])", [uuids(payments)], prepare=True)
        return {row[0]: read_row(row) for row in await cursor.fetchall()}


async def newest(conn: AsyncConnection[Any], wanted: Wanted, limit: int) -> list[PaymentAt]:
    """Up to `limit` payments, newest first."""
    conditions: list[LiteralString] = []
    values: list[object] = []

    def narrow(condition: LiteralString, *given: object) -> None:
        if None not in given:
            conditions.append(condition)
            values.extend(given)

    narrow("status = %s", wanted.status)
    narrow("customer = %s", wanted.customer)
    narrow("order_id = %s", wanted.order)
    narrow("created_at >= %s", wanted.since)
    narrow("created_at < %s", wanted.until)
    narrow("(created_at, id) < (%s, %s)", *(wanted.before or (None, None)))
    where: LiteralString = "WHERE " + " AND ".join(conditions) if conditions else ""
    async with conn.cursor(row_factory=tuple_row, binary=True) as cursor:
        statement = _COLUMNS + where + " ORDER BY created_at DESC, id DESC LIMIT %s"
        await cursor.execute(statement, [*values, min(limit, MAX_PAGE + 1)], prepare=True)
        return [read_row(row) for row in await cursor.fetchall()]
