"""An order that was announced to us: what it costs, who may pay for it, whether it was paid or cancelled.

    (nothing) ──Place──▶ created | awaiting:payment ──RecordPaid──▶ complete
                              │                                       │
                              └────────────Cancel──▶ cancelled ◀──────┘

The announcer counts the order's changes; each is applied on top of the one before it. Its payment is a stream of its
own (domain/payment.py), with every attempt in it, so that it cannot be paid twice. An order is paid once at most, and
never when it is cancelled: money that comes too late goes back.
"""

from typing import Literal, assert_never
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from domain.errors import (
    OrderChangesMissing,
    OrderContradicted,
    OrderNotCollectable,
    OrderNotPayable,
    OrderOfAnother,
    OrderPriceDiffers,
    OutcomeMismatch,
)
from domain.money import Money
from domain.order_facts import OrderCancelled, OrderFact, OrderPaid, OrderPlaced, OrderStatus


class Order(Struct, frozen=True):
    """The state of an order, folded from its facts. `payment`: the one that paid for it."""

    id: str
    version: int
    user: str
    price: Money
    status: OrderStatus
    payment: UUID | None = None

    @property
    def payable(self) -> bool:
        return self.status in {"created", "awaiting:payment"}


# --- Commands ----------------------------------------------------------------------------------------------------


class Place(Struct, frozen=True):
    """The order was announced."""

    order: str
    version: int
    user: str
    price: Money
    status: OrderStatus


class Cancel(Struct, frozen=True):
    """The announcer cancelled it, as its change number `version`."""

    order: str
    version: int


class RecordPaid(Struct, frozen=True):
    """A payment took `amount` for it, all that it will take."""

    payment: UUID
    amount: Money
    charge: str | None


OrderCommand = Place | Cancel | RecordPaid


# --- Fold --------------------------------------------------------------------------------------------------------


def evolve(order: Order | None, fact: OrderFact) -> Order:
    """Fold one fact in. It never refuses: the past has already happened."""
    if isinstance(fact, OrderPlaced):
        return Order(fact.order, fact.version, fact.user, fact.price, fact.status)
    assert order is not None, "an order's history begins with OrderPlaced"  # noqa: S101  corruption
    match fact:
        case OrderCancelled():
            return replace(order, version=fact.version, status="cancelled")
        case OrderPaid():
            return replace(order, status="complete", payment=fact.payment)
        case _:
            assert_never(fact)


# --- Decide ------------------------------------------------------------------------------------------------------


def decide(order: Order | None, command: OrderCommand) -> tuple[OrderFact, ...]:
    """Answer a command with facts, or refuse it. Asking twice decides nothing new, nor does what is older.

    Raises OrderChangesMissing for what must wait for a change before it, OrderContradicted for what can never be
    applied, OrderNotPayable or OutcomeMismatch for a payment.
    """
    match command:
        case Place():
            return _place(order, command)
        case Cancel():
            return _cancel(order, command)
        case RecordPaid():
            return _paid(order, command)
        case _:
            assert_never(command)


def _place(order: Order | None, command: Place) -> tuple[OrderFact, ...]:
    if order is None:
        return (OrderPlaced(command.order, command.version, command.user, command.price, command.status),)
    if command.version > order.version:
        raise OrderContradicted(order=order.id, version=command.version, reason="it was created before")
    return ()


def _cancel(order: Order | None, command: Cancel) -> tuple[OrderFact, ...]:
    expected = order.version + 1 if order is not None else 0
    if order is None or command.version > expected:
        raise OrderChangesMissing(order=command.order, version=command.version, expected=expected)
    if command.version < expected:
        return ()
    return (OrderCancelled(order.id, command.version),)


def _paid(order: Order | None, command: RecordPaid) -> tuple[OrderFact, ...]:
    if order is not None and order.payment == command.payment:
        return ()
    if order is None or not order.payable:
        raise OrderNotPayable(status=order.status if order is not None else "none")
    if command.amount != order.price:
        raise OutcomeMismatch(operation=str(command.payment), expected=str(order.price), confirmed=str(command.amount))
    return (OrderPaid(order.id, command.payment, command.amount, command.charge),)


# --- What may be paid --------------------------------------------------------------------------------------------


def demand_owner(order: Order, user: str | None) -> None:
    """Whoever pays in somebody's name pays what that one ordered. Raises OrderOfAnother."""
    if user is not None and user != order.user:
        raise OrderOfAnother(order=order.id)


def demand_payable(order: Order, amount: Money) -> None:
    """It is paid whole, and only as long as it may be. Raises OrderNotPayable or OrderPriceDiffers."""
    if not order.payable:
        raise OrderNotPayable(status=order.status)
    if amount != order.price:
        raise _differs(order.price, "amount" if amount.currency == order.price.currency else "currency")


def demand_collectable(order: Order, amount_minor: int | None) -> None:
    """What was reserved for it is taken whole, and not when it is off.

    Raises OrderNotCollectable or OrderPriceDiffers.
    """
    if order.status == "cancelled":
        raise OrderNotCollectable(status=order.status)
    if amount_minor not in {None, order.price.minor}:
        raise _differs(order.price, "amount")


def _differs(price: Money, field: Literal["amount", "currency"]) -> OrderPriceDiffers:
    return OrderPriceDiffers(field=field, price=price.minor, currency=price.currency)
