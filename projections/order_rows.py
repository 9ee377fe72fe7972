"""Rows of orders and of the payments that name them: what a batch of facts writes.

How an order stands depends on two kinds of streams, whose facts may come in any order. So that is not folded but told
anew from the rows that a batch leaves, for each order that it touched.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import cache
from typing import Any, LiteralString, get_args
from uuid import UUID

from msgspec import Struct, json
from psycopg import Connection
from psycopg.rows import tuple_row
from psycopg.sql import SQL, Identifier

from domain import order
from domain.envelope import Envelope
from domain.order import Order
from domain.order_facts import OrderFact
from domain.payment import PaymentAt
from domain.payment_facts import AuthorizationStarted
from projections.arrays import bigints, blobs, moments, texts, uuids
from projections.customer_rows import At, Kept, Kind, read_row, state_of
from projections.order_standing import due, own_payment, status
from projections.payment_rows import read_row as read_payment
from projections.payment_rows import state_of as payment_state

AnnouncedAt = At[Order]
ANNOUNCED = Kind(frozenset(get_args(OrderFact)), order.evolve, json.Decoder(Kept[Order]))

# --- Payments ----------------------------------------------------------------------------------------------------


class Attempts(Struct, frozen=True):
    """What the attempts of a batch say: which orders they named, and when; which payments tried once more; and which
    are no order's any more.

    A payment is an order's as long as each of its attempts names one. Once it has no row, what it does is not followed.
    """

    begun: list[tuple[str, datetime]]
    again: set[UUID]
    left: set[UUID]


def attempts_of(envelopes: Iterable[Envelope], changed: Iterable[PaymentAt]) -> Attempts:
    """Of those attempts among the facts that were folded."""
    folded = {at.id: at.version for at in changed}
    attempts = Attempts([], set(), set())
    for envelope in envelopes:
        fact = envelope.fact
        if isinstance(fact, AuthorizationStarted) and envelope.version <= folded.get(envelope.stream, 0):
            if envelope.version > 1:
                attempts.again.add(envelope.stream)
            if fact.order is None:
                attempts.left.add(envelope.stream)
            elif envelope.stream not in attempts.left:
                attempts.begun.append((fact.order, envelope.at))
    return attempts


# What is due is told anew, unless nobody announced the order that it names now.
_UPSERT_PAYMENTS = """
INSERT INTO {table} AS row (id, version, position, created_at, updated_at, order_id, state)
SELECT * FROM unnest(%b::uuid[], %b::bigint[], %b::bigint[], %b::timestamptz[], %b::timestamptz[],
                     %b::text[], %b::bytea[])
ON CONFLICT (id) DO UPDATE SET version = excluded.version, position = excluded.position,
    updated_at = excluded.updated_at, order_id = excluded.order_id, state = excluded.state, due = NULL
WHERE row.version < excluded.version
"""
_NAMED_BEFORE = "SELECT order_id FROM {table} WHERE id = ANY(%b::uuid[])"
_FORGET = "DELETE FROM {table} WHERE id = ANY(%b::uuid[])"


def write_payments(conn: Connection[Any], table: str, changed: Sequence[PaymentAt], attempts: Attempts) -> set[str]:
    """Rows of payments each of whose attempts named an order; answers the orders that they name or named before."""
    before = _column(conn, _rendered(_NAMED_BEFORE, table), attempts.again) if attempts.again else []
    if forgotten := attempts.again & attempts.left:
        conn.execute(_rendered(_FORGET, table), (uuids(list(forgotten)),))
    named = [at for at in changed if at.payment.order is not None and at.id not in attempts.left]
    if named:
        columns = (
            uuids([at.id for at in named]),
            bigints([at.version for at in named]),
            bigints([at.position for at in named]),
            moments([at.created_at for at in named]),
            moments([at.updated_at for at in named]),
            texts([at.payment.order for at in named]),
            blobs([payment_state(at) for at in named]),
        )
        conn.execute(_rendered(_UPSERT_PAYMENTS, table), columns, prepare=True)
    return {at.payment.order for at in named if at.payment.order is not None}.union(before)


def _column(conn: Connection[Any], query: bytes, streams: set[UUID]) -> list[str]:
    with conn.cursor(row_factory=tuple_row) as cursor:
        return [value for (value,) in cursor.execute(query, (uuids(list(streams)),))]


# --- Orders ------------------------------------------------------------------------------------------------------

_UPSERT_ANNOUNCED = """
INSERT INTO {table} AS row (id, version, position, created_at, updated_at, order_id, state)
SELECT * FROM unnest(%b::uuid[], %b::bigint[], %b::bigint[], %b::timestamptz[], %b::timestamptz[],
                     %b::text[], %b::bytea[])
ON CONFLICT (id) DO UPDATE SET version = excluded.version, position = excluded.position,
    updated_at = excluded.updated_at, state = excluded.state
WHERE row.version < excluded.version
"""
# The least, not the first: the same rows come out however the facts are cut into batches.
_UPSERT_ORDERS = """
INSERT INTO {table} AS row (id, created_at) SELECT id, min(created_at) FROM unnest(%b::text[], %b::timestamptz[])
AS begun (id, created_at) GROUP BY id ON CONFLICT (id) DO UPDATE SET created_at = excluded.created_at
WHERE row.created_at > excluded.created_at
"""


def write_announced(conn: Connection[Any], table: str, changed: Sequence[AnnouncedAt]) -> set[str]:
    """Rows of orders that were announced; answers their ids."""
    if changed:
        columns = (
            uuids([at.id for at in changed]),
            bigints([at.version for at in changed]),
            bigints([at.position for at in changed]),
            moments([at.created_at for at in changed]),
            moments([at.updated_at for at in changed]),
            texts([at.state.id for at in changed]),
            blobs([state_of(at) for at in changed]),
        )
        conn.execute(_rendered(_UPSERT_ANNOUNCED, table), columns, prepare=True)
    return {at.state.id for at in changed}


def write_begun(conn: Connection[Any], table: str, begun: Sequence[tuple[str, datetime]]) -> None:
    """A row for each order that was announced or that an attempt named, and since when."""
    if begun:
        columns = texts([name for name, _ in begun]), moments([at for _, at in begun])
        conn.execute(_rendered(_UPSERT_ORDERS, table), columns, prepare=True)


# --- How they stand ----------------------------------------------------------------------------------------------

_TOUCHED = """
SELECT announced.id, announced.state, announced.version, announced.position, announced.created_at,
    announced.updated_at, payment.id, payment.state, payment.version, payment.position, payment.created_at,
    payment.updated_at, payment.due
FROM {announced} AS announced LEFT JOIN {payments} AS payment USING (order_id)
WHERE announced.order_id = ANY(%b::text[])
"""
_STAND = """
UPDATE {table} AS row SET user_id = stands.user_id, status = stands.status
FROM unnest(%b::text[], %b::text[], %b::text[]) AS stands (id, user_id, status)
WHERE row.id = stands.id AND (row.user_id, row.status) IS DISTINCT FROM (stands.user_id, stands.status)
"""
_DUE = """
UPDATE {table} AS row SET due = told.due FROM unnest(%b::uuid[], %b::text[]) AS told (id, due)
WHERE row.id = told.id
"""


def write_standing(conn: Connection[Any], orders: str, announced: str, payments: str, touched: set[str]) -> None:
    """How those of the touched orders stand that were announced, and what is due of their payments."""
    found: dict[UUID, AnnouncedAt] = {}
    named: dict[UUID, list[PaymentAt]] = {}
    was_due: dict[UUID, str | None] = {}
    with conn.cursor(row_factory=tuple_row, binary=True) as cursor:
        for row in cursor.execute(_touched(announced, payments), (texts(touched),), prepare=True):
            if row[0] not in found:
                found[row[0]] = read_row(ANNOUNCED, row)
            if row[6] is not None:
                named.setdefault(row[0], []).append(read_payment(row[6:]))
                was_due[row[6]] = row[12]
    if not found:
        return
    states = [(at.state, [one.payment for one in named.get(stream, ())]) for stream, at in found.items()]
    columns = (
        texts([state.id for state, _ in states]),
        texts([state.user for state, _ in states]),
        texts([status(state, its_payments) for state, its_payments in states]),
    )
    conn.execute(_rendered(_STAND, orders), columns, prepare=True)
    told = {
        one.id: due(found[stream].state, one.payment, is_its_own=one.id == own_payment(stream))
        for stream, ones in named.items()
        for one in ones
    }
    moved = [payment for payment, is_due in told.items() if is_due != was_due[payment]]
    if moved:
        columns_due = uuids(moved), texts([told[payment] for payment in moved])
        conn.execute(_rendered(_DUE, payments), columns_due, prepare=True)


@cache
def _touched(announced: str, payments: str) -> bytes:
    return SQL(_TOUCHED).format(announced=Identifier(announced), payments=Identifier(payments)).as_bytes()


@cache
def _rendered(statement: LiteralString, table: str) -> bytes:
    return SQL(statement).format(table=Identifier(table)).as_bytes()
