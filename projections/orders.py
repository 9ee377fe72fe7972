"""What was paid for this order? The payments that name it, and their money together."""

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any, Literal, LiteralString
from uuid import UUID

from msgspec import Struct
from psycopg import AsyncConnection, Connection
from psycopg.rows import tuple_row
from psycopg.sql import SQL, Identifier

from domain.envelope import Envelope
from domain.money import Money
from domain.payment import Payment, PaymentAt
from domain.payment_facts import AuthorizationStarted
from projections.arrays import bigints, blobs, moments, texts, uuids
from projections.engine import ReadModel
from projections.parking import Failure
from projections.payment_rows import fold, read_row, state_of

NAME = "orders"
PAYMENTS = "order_payments"
MAX_PAGE = 100
# An order answers for this many of its payments, the oldest: more attempts than that are a loop in somebody's code.
MAX_PAYMENTS = 1_000

OrderState = Literal[
    "unpaid", "pending", "authorized", "partially_captured", "captured", "partially_refunded", "refunded"
]


class Totals(Struct, frozen=True):
    """The money of an order's payments in one currency."""

    authorized: Money
    captured: Money
    refunded: Money


class Order(Struct, frozen=True):
    """An order's payments, oldest first, and their money by currency."""

    id: str
    created_at: datetime
    payments: tuple[PaymentAt, ...]

    @property
    def totals(self) -> tuple[Totals, ...]:
        currencies = dict.fromkeys(at.payment.amount.currency for at in self.payments)
        return tuple(_totals(currency, [at.payment for at in self.payments]) for currency in currencies)

    @property
    def state(self) -> OrderState:
        """What the order's money says, whatever attempts it took."""
        totals = self.totals
        if any(total.refunded for total in totals):
            whole = all(total.refunded == total.captured for total in totals)
            return "refunded" if whole else "partially_refunded"
        if any(total.captured for total in totals):
            whole = all(not at.payment.capturable for at in self.payments)
            return "captured" if whole else "partially_captured"
        if any(at.payment.capturable for at in self.payments):
            return "authorized"
        return (
            "pending" if any(at.payment.status in {"pending", "requires_action"} for at in self.payments) else "unpaid"
        )


def _totals(currency: str, payments: list[Payment]) -> Totals:
    authorized = captured = refunded = Money.zero(currency)
    for payment in payments:
        if payment.amount.currency == currency:
            authorized += payment.authorized
            captured += payment.captured
            refunded += payment.refunded
    return Totals(authorized, captured, refunded)


# --- Fold --------------------------------------------------------------------------------------------------------

_UPSERT_PAYMENTS = """
INSERT INTO {table} AS row (id, version, position, created_at, updated_at, order_id, state)
SELECT * FROM unnest(%b::uuid[], %b::bigint[], %b::bigint[], %b::timestamptz[], %b::timestamptz[],
                     %b::text[], %b::bytea[])
ON CONFLICT (id) DO UPDATE SET version = excluded.version, position = excluded.position,
    updated_at = excluded.updated_at, order_id = excluded.order_id, state = excluded.state
WHERE row.version < excluded.version
"""
# The least, not the first: the same rows come out however the facts are cut into batches.
_UPSERT_ORDERS = """
INSERT INTO {table} AS row (id, created_at) SELECT id, min(created_at) FROM unnest(%b::text[], %b::timestamptz[])
AS begun (id, created_at) GROUP BY id ON CONFLICT (id) DO UPDATE SET created_at = excluded.created_at
WHERE row.created_at > excluded.created_at
"""


def apply(conn: Connection[Any], envelopes: Sequence[Envelope], suffix: str = "") -> list[Failure]:
    """Bring the rows up to these facts, in the caller's transaction; answer the streams that could not be.

    Payments without an order have no row here.
    """
    payments, orders = PAYMENTS + suffix, NAME + suffix
    changed, failures = fold(conn, payments, envelopes, every_payment=False)
    named = [at for at in changed if at.payment.order is not None]
    if named:
        columns = (
            uuids([at.id for at in named]),
            bigints([at.version for at in named]),
            bigints([at.position for at in named]),
            moments([at.created_at for at in named]),
            moments([at.updated_at for at in named]),
            texts([at.payment.order for at in named]),
            blobs([state_of(at) for at in named]),
        )
        conn.execute(_rendered(_UPSERT_PAYMENTS, payments), columns, prepare=True)
    begun = _begun(envelopes, {at.id: at.version for at in changed})
    if begun:
        orders_begun = (texts([order for order, _ in begun]), moments([at for _, at in begun]))
        conn.execute(_rendered(_UPSERT_ORDERS, orders), orders_begun, prepare=True)
    new = {envelope.stream for envelope in envelopes if envelope.version == 1}
    left = [at.id for at in changed if at.payment.order is None and at.id not in new]
    if left:  # another attempt named no order any more
        conn.execute(SQL("DELETE FROM {} WHERE id = ANY(%b::uuid[])").format(Identifier(payments)), (uuids(left),))
    return failures


@cache
def _rendered(statement: LiteralString, table: str) -> bytes:
    return SQL(statement).format(table=Identifier(table)).as_bytes()


def _begun(envelopes: Sequence[Envelope], folded: dict[UUID, int]) -> list[tuple[str, datetime]]:
    """The orders that attempts named, and when."""
    return [
        (envelope.fact.order, envelope.at)
        for envelope in envelopes
        if isinstance(envelope.fact, AuthorizationStarted)
        and envelope.fact.order is not None
        and envelope.version <= folded.get(envelope.stream, 0)
    ]


MODEL = ReadModel(NAME, (PAYMENTS, NAME), apply)


# --- Query -------------------------------------------------------------------------------------------------------

_PAYMENTS = """
SELECT id, state, version, position, created_at, updated_at FROM order_payments
WHERE order_id = %s ORDER BY created_at, id LIMIT %s
"""
_NEWEST = "SELECT id, created_at FROM orders ORDER BY created_at DESC, id DESC LIMIT %s"
_NEWEST_BEFORE = """
SELECT id, created_at FROM orders WHERE (created_at, id) < (%s, %s) ORDER BY created_at DESC, id DESC LIMIT %s
"""


async def find(conn: AsyncConnection[Any], order: str) -> Order | None:
    async with conn.cursor(row_factory=tuple_row, binary=True) as cursor:
        await cursor.execute(_PAYMENTS, [order, MAX_PAYMENTS], prepare=True)
        payments = tuple(read_row(row) for row in await cursor.fetchall())
    return Order(order, payments[0].created_at, payments) if payments else None


async def newest(conn: AsyncConnection[Any], before: tuple[datetime, str] | None, limit: int) -> list[Order]:
    """Up to `limit` orders, newest first, after `before` in that order."""
    async with conn.cursor(row_factory=tuple_row, binary=True) as cursor:
        size = min(limit, MAX_PAGE + 1)
        await cursor.execute(*((_NEWEST_BEFORE, [*before, size]) if before else (_NEWEST, [size])), prepare=True)
        found = await cursor.fetchall()
    orders = [await find(conn, order) for order, _ in found]
    return [order for order in orders if order is not None]
