"""What was paid for this order? The payments that name it, and their money together."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from msgspec import Struct
from psycopg import AsyncConnection, Connection
from psycopg.rows import tuple_row

from domain.envelope import Envelope
from domain.money import Money
from domain.payment import Payment, PaymentAt
from projections.payment_rows import ENCODER, fold, read_row

NAME = "orders"
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
INSERT INTO order_payments (id, version, position, created_at, updated_at, order_id, state)
SELECT * FROM unnest(%b::uuid[], %b::bigint[], %b::bigint[], %b::timestamptz[], %b::timestamptz[],
                     %s::text[], %b::bytea[])
ON CONFLICT (id) DO UPDATE SET version = excluded.version, position = excluded.position,
    updated_at = excluded.updated_at, state = excluded.state
"""
_UPSERT_ORDERS = """
INSERT INTO orders (id, created_at) SELECT id, min(created_at) FROM unnest(%s::text[], %b::timestamptz[])
AS row (id, created_at) GROUP BY id ON CONFLICT (id) DO NOTHING
"""


def apply(conn: Connection[Any], envelopes: Sequence[Envelope]) -> None:
    """Bring the rows up to these facts, in the caller's transaction. Payments without an order have no row here."""
    changed = [
        at for at in fold(conn, "order_payments", envelopes, every_payment=False) if at.payment.order is not None
    ]
    if not changed:
        return
    orders = [at.payment.order for at in changed]
    created = [at.created_at for at in changed]
    columns = (
        [at.id for at in changed],
        [at.version for at in changed],
        [at.position for at in changed],
        created,
        [at.updated_at for at in changed],
        orders,
        [ENCODER.encode(at.payment) for at in changed],
    )
    conn.execute(_UPSERT_PAYMENTS, columns, prepare=True)
    conn.execute(_UPSERT_ORDERS, (orders, created), prepare=True)


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
