"""How does this order stand, and what was paid for it? What was announced of it, and the payments that name it.

An order that nobody announced is a plain reference: its payments and their money are all there is of it.
"""

from collections.abc import Sequence
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from typing import Any, Literal, LiteralString

from msgspec import Struct
from psycopg import AsyncConnection, Connection
from psycopg.rows import tuple_row

from domain.envelope import Envelope
from domain.money import Money
from domain.order_facts import OrderStatus
from domain.payment import Payment, PaymentAt
from projections.customer_rows import fold as fold_announced
from projections.customer_rows import read_row
from projections.engine import ReadModel
from projections.order_rows import (
    ANNOUNCED,
    AnnouncedAt,
    attempts_of,
    write_announced,
    write_begun,
    write_payments,
    write_standing,
)
from projections.order_standing import Due
from projections.parking import Failure
from projections.payment_rows import fold
from projections.payment_rows import read_row as read_payment

NAME = "orders"
ANNOUNCED_ORDERS = "announced_orders"
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
    """An order's payments, oldest first, and their money by currency.

    `status` and `announced`: how it stands, and what its announcer said; None of a plain reference.
    """

    id: str
    created_at: datetime
    payments: tuple[PaymentAt, ...]
    status: OrderStatus | None
    announced: AnnouncedAt | None

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


def apply(conn: Connection[Any], envelopes: Sequence[Envelope], suffix: str = "") -> list[Failure]:
    """Bring the rows up to these facts, in the caller's transaction; answer the streams that could not be.

    Payments without an order have no row here.
    """
    orders, announced, payments = NAME + suffix, ANNOUNCED_ORDERS + suffix, PAYMENTS + suffix
    changed, failures = fold(conn, payments, envelopes, every_payment=False)
    attempts = attempts_of(envelopes, changed)
    touched = write_payments(conn, payments, changed, attempts)
    told, failed = fold_announced(conn, announced, ANNOUNCED, envelopes)
    touched |= write_announced(conn, announced, told)
    write_begun(conn, orders, [*attempts.begun, *((at.state.id, at.created_at) for at in told)])
    if touched:
        write_standing(conn, orders, announced, payments, touched)
    return failures + failed


MODEL = ReadModel(NAME, (PAYMENTS, ANNOUNCED_ORDERS, NAME), apply)


# --- Query -------------------------------------------------------------------------------------------------------

# One statement sees one position: what it says of an order and of its payments goes together. Of an order that nobody
# announced, and that its payments have left, nothing is told.
_ORDERS: LiteralString = """
SELECT orders.id, orders.created_at, orders.status, announced.id, announced.state, announced.version,
    announced.position, announced.created_at, announced.updated_at, payment.id, payment.state, payment.version,
    payment.position, payment.created_at, payment.updated_at
FROM (SELECT id, created_at, status FROM orders WHERE (status IS NOT NULL OR EXISTS
    (SELECT FROM order_payments WHERE order_id = orders.id)) """
_WITH_PAYMENTS: LiteralString = """) AS orders
LEFT JOIN announced_orders AS announced ON announced.order_id = orders.id
LEFT JOIN LATERAL (SELECT * FROM order_payments WHERE order_id = orders.id ORDER BY created_at, id LIMIT %s) AS payment
    ON true
ORDER BY orders.created_at DESC, orders.id DESC, payment.created_at, payment.id
"""
_NEWEST: LiteralString = " ORDER BY created_at DESC, id DESC LIMIT %s"
# What was tried last comes last, so that a payment that cannot be helped keeps no other waiting.
_DUE = """
SELECT id, state, version, position, created_at, updated_at FROM order_payments
WHERE due = %s ORDER BY position LIMIT %s
"""


class Wanted(Struct, frozen=True):
    """Which orders: every condition that is given must hold. A user and a status have only those that were announced.

    `before` continues a list: only orders that come after this (time, id) in it.
    """

    user: str | None = None
    status: OrderStatus | None = None
    before: tuple[datetime, str] | None = None


async def find(conn: AsyncConnection[Any], order: str) -> Order | None:
    found = await _orders(conn, "AND id = %s", order)
    return found[0] if found else None


async def newest(conn: AsyncConnection[Any], wanted: Wanted, limit: int) -> list[Order]:
    """Up to `limit` orders, newest first."""
    conditions: LiteralString = ""
    values: list[object] = []
    if wanted.user is not None:
        conditions += " AND user_id = %s"
        values.append(wanted.user)
    if wanted.status is not None:
        conditions += " AND status = %s"
        values.append(wanted.status)
    if wanted.before is not None:
        conditions += " AND (created_at, id) < (%s, %s)"
        values += wanted.before
    return await _orders(conn, conditions + _NEWEST, *values, min(limit, MAX_PAGE + 1))


async def _orders(conn: AsyncConnection[Any], which: LiteralString, *values: object) -> list[Order]:
    async with conn.cursor(row_factory=tuple_row, binary=True) as cursor:
        await cursor.execute(_ORDERS + which + _WITH_PAYMENTS, [*values, MAX_PAYMENTS], prepare=True)
        rows = await cursor.fetchall()
    return [_order(list(its)) for _, its in groupby(rows, key=itemgetter(0))]


def _order(rows: list[tuple[Any, ...]]) -> Order:
    """From its rows, one for each payment, or one without."""
    name, created_at, status, *announced = rows[0][:9]
    payments = tuple(read_payment(row[9:]) for row in rows if row[9] is not None)
    told = read_row(ANNOUNCED, announced) if announced[0] is not None else None
    return Order(name, created_at, payments, status, told)


async def owed(conn: AsyncConnection[Any], limit: int) -> list[PaymentAt]:
    """Payments of which something is to be released or given back, and nothing does so yet: of cancelled orders those
    that hold money, have taken some that is not contested, or wait for the cardholder; and those that took for their
    order what is not its price.
    """
    return await _due(conn, "return", limit)


async def unrecorded(conn: AsyncConnection[Any], limit: int) -> list[PaymentAt]:
    """Payments that took the price of their order, which says neither that it is paid nor that it is cancelled."""
    return await _due(conn, "record", limit)


async def _due(conn: AsyncConnection[Any], what: Due, limit: int) -> list[PaymentAt]:
    async with conn.cursor(row_factory=tuple_row, binary=True) as cursor:
        await cursor.execute(_DUE, [what, limit], prepare=True)
        return [read_payment(row) for row in await cursor.fetchall()]
