"""How does a customer stand: who it is, which names name it, what it is subscribed to, and until when that is paid?

One read model over three tables, so that what is told of a customer and its subscriptions is of one position.
"""

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any, LiteralString
from uuid import UUID

from psycopg import AsyncConnection, Connection
from psycopg.rows import tuple_row
from psycopg.sql import SQL, Identifier

from domain.customer_facts import NameClaimed
from domain.envelope import Envelope
from projections.arrays import Packed, bigints, blobs, moments, texts, uuids
from projections.customer_rows import (
    CUSTOMER,
    SUBSCRIPTION,
    CustomerAt,
    SubscriptionAt,
    fold,
    read_row,
    state_of,
)
from projections.customer_standing import CustomerStatus, status
from projections.engine import ReadModel
from projections.parking import Failure

NAME = "customers"
NAMES = "customer_names"
SUBSCRIPTIONS = "subscriptions"
MAX_PAGE = 100
# A customer's status is told from so many of its subscriptions, the newest: more are a loop in somebody's code.
MAX_SUBSCRIPTIONS = 1_000

# --- Fold --------------------------------------------------------------------------------------------------------

_UPSERT_CUSTOMERS = """
INSERT INTO {table} AS row (id, version, position, created_at, updated_at, provider_customer, user_id, state)
SELECT * FROM unnest(%b::uuid[], %b::bigint[], %b::bigint[], %b::timestamptz[], %b::timestamptz[],
                     %b::text[], %b::text[], %b::bytea[])
ON CONFLICT (id) DO UPDATE SET version = excluded.version, position = excluded.position,
    updated_at = excluded.updated_at, provider_customer = excluded.provider_customer, user_id = excluded.user_id,
    state = excluded.state
WHERE row.version < excluded.version
"""
_UPSERT_SUBSCRIPTIONS = """
INSERT INTO {table} AS row
    (id, version, position, created_at, updated_at, customer, provider_subscription, status, state)
SELECT * FROM unnest(%b::uuid[], %b::bigint[], %b::bigint[], %b::timestamptz[], %b::timestamptz[],
                     %b::uuid[], %b::text[], %b::text[], %b::bytea[])
ON CONFLICT (id) DO UPDATE SET version = excluded.version, position = excluded.position,
    updated_at = excluded.updated_at, customer = excluded.customer,
    provider_subscription = excluded.provider_subscription, status = excluded.status, state = excluded.state
WHERE row.version < excluded.version
"""
_UPSERT_NAMES = """
INSERT INTO {table} AS row (id, version, customer) SELECT * FROM unnest(%b::uuid[], %b::bigint[], %b::uuid[])
ON CONFLICT (id) DO UPDATE SET version = excluded.version, customer = excluded.customer
WHERE row.version < excluded.version
"""


def apply(conn: Connection[Any], envelopes: Sequence[Envelope], suffix: str = "") -> list[Failure]:
    """Bring the rows up to these facts, in the caller's transaction; answer the streams that could not be."""
    customers, failures = fold(conn, NAME + suffix, CUSTOMER, envelopes)
    if customers:
        columns = [
            *_common(customers),
            texts([at.state.provider_customer for at in customers]),
            texts([at.state.user for at in customers]),
            blobs([state_of(at) for at in customers]),
        ]
        conn.execute(_rendered(_UPSERT_CUSTOMERS, NAME + suffix), columns, prepare=True)
    subscriptions, failed = fold(conn, SUBSCRIPTIONS + suffix, SUBSCRIPTION, envelopes)
    if subscriptions:
        columns = [
            *_common(subscriptions),
            uuids([at.state.customer for at in subscriptions]),
            texts([at.state.provider_subscription for at in subscriptions]),
            texts([at.state.status for at in subscriptions]),
            blobs([state_of(at) for at in subscriptions]),
        ]
        conn.execute(_rendered(_UPSERT_SUBSCRIPTIONS, SUBSCRIPTIONS + suffix), columns, prepare=True)
    _name(conn, NAMES + suffix, envelopes)
    return failures + failed


def _name(conn: Connection[Any], table: str, envelopes: Sequence[Envelope]) -> None:
    """Of two claims on one name the later holds, as `evolve_name` has it."""
    claimed = {
        envelope.stream: (envelope.version, envelope.fact.customer)
        for envelope in envelopes
        if isinstance(envelope.fact, NameClaimed)
    }
    if claimed:
        versions, holders = zip(*claimed.values(), strict=True)
        conn.execute(_rendered(_UPSERT_NAMES, table), (uuids([*claimed]), bigints(versions), uuids(holders)))


def _common(rows: Sequence[CustomerAt] | Sequence[SubscriptionAt]) -> list[Packed]:
    """The columns (id, version, position, created_at, updated_at)."""
    return [
        uuids([at.id for at in rows]),
        bigints([at.version for at in rows]),
        bigints([at.position for at in rows]),
        moments([at.created_at for at in rows]),
        moments([at.updated_at for at in rows]),
    ]


@cache
def _rendered(statement: LiteralString, table: str) -> bytes:
    return SQL(statement).format(table=Identifier(table)).as_bytes()


MODEL = ReadModel(NAME, (NAME, NAMES, SUBSCRIPTIONS), apply)


# --- Query -------------------------------------------------------------------------------------------------------

_COLUMNS: LiteralString = "SELECT id, state, version, position, created_at, updated_at FROM "
_NEWEST: LiteralString = " ORDER BY created_at DESC, id DESC LIMIT %s"
# One statement sees one position: what it says of a customer and of its subscriptions goes together.
_STATUS = """
SELECT id, state, version, position, created_at, updated_at, true AS is_customer FROM customers WHERE id = %s
UNION ALL (
    SELECT id, state, version, position, created_at, updated_at, false FROM subscriptions
    WHERE customer = %s ORDER BY created_at DESC, id DESC LIMIT %s
) ORDER BY is_customer DESC, created_at DESC, id DESC
"""
_NAMED = "SELECT customer FROM customer_names WHERE id = ANY(%s) ORDER BY array_position(%s::uuid[], id) LIMIT 1"

# In a list that is continued: after this (time, id) of it.
Before = tuple[datetime, UUID] | None


async def find(conn: AsyncConnection[Any], customer: UUID) -> CustomerAt | None:
    found = await _rows(conn, _COLUMNS + "customers WHERE id = %s", customer)
    return read_row(CUSTOMER, found[0]) if found else None


async def find_named(conn: AsyncConnection[Any], name_streams: Sequence[UUID]) -> UUID | None:
    """The customer that the first of these names that names one names."""
    found = await _rows(conn, _NAMED, list(name_streams), list(name_streams))
    return found[0][0] if found else None


async def by_provider_customer(conn: AsyncConnection[Any], provider_customer: str) -> CustomerAt | None:
    found = await _rows(conn, _COLUMNS + "customers WHERE provider_customer = %s" + _NEWEST, provider_customer, 1)
    return read_row(CUSTOMER, found[0]) if found else None


async def newest(conn: AsyncConnection[Any], before: Before, limit: int) -> list[CustomerAt]:
    """Up to `limit` customers, newest first, after `before` in that order."""
    where: LiteralString = "WHERE (created_at, id) < (%s, %s)" if before else ""
    found = await _rows(conn, _COLUMNS + "customers " + where + _NEWEST, *(before or ()), _page(limit))
    return [read_row(CUSTOMER, row) for row in found]


async def subscription(conn: AsyncConnection[Any], subscription: UUID) -> SubscriptionAt | None:
    found = await _rows(conn, _COLUMNS + "subscriptions WHERE id = %s", subscription)
    return read_row(SUBSCRIPTION, found[0]) if found else None


async def by_provider_subscription(conn: AsyncConnection[Any], provider_subscription: str) -> SubscriptionAt | None:
    where: LiteralString = "subscriptions WHERE provider_subscription = %s"
    found = await _rows(conn, _COLUMNS + where + _NEWEST, provider_subscription, 1)
    return read_row(SUBSCRIPTION, found[0]) if found else None


async def subscriptions_of(
    conn: AsyncConnection[Any], customer: UUID, before: Before, limit: int
) -> list[SubscriptionAt]:
    """Up to `limit` subscriptions of a customer, newest first, after `before` in that order."""
    where: LiteralString = "subscriptions WHERE customer = %s"
    more: LiteralString = " AND (created_at, id) < (%s, %s)" if before else ""
    found = await _rows(conn, _COLUMNS + where + more + _NEWEST, customer, *(before or ()), _page(limit))
    return [read_row(SUBSCRIPTION, row) for row in found]


async def status_of(conn: AsyncConnection[Any], customer: UUID, moment: datetime) -> CustomerStatus | None:
    """How a customer stands at that moment."""
    found = await _rows(conn, _STATUS, customer, customer, MAX_SUBSCRIPTIONS)
    if not found or not found[0][6]:
        return None
    return status(read_row(CUSTOMER, found[0]), [read_row(SUBSCRIPTION, row) for row in found[1:]], moment)


def _page(limit: int) -> int:
    """One more than a page holds may be asked for, to see whether another follows."""
    return min(limit, MAX_PAGE + 1)


async def _rows(conn: AsyncConnection[Any], query: LiteralString, *values: object) -> list[tuple[Any, ...]]:
    async with conn.cursor(row_factory=tuple_row, binary=True) as cursor:
        await cursor.execute(query, values, prepare=True)
        return await cursor.fetchall()
