"""How an announced order stands with the payments that name it, and what is to be done about one of them."""

from collections.abc import Iterable
from typing import Literal
from uuid import UUID, uuid5

from domain.order import Order
from domain.order_facts import OrderStatus
from domain.payment import Payment, Phase, Status

# `return`: what it holds or took is not to be kept, and something of that can be released or given back now.
# `record`: it took the order's price, and the order does not say so yet.
Due = Literal["return", "record"]

# A payment that took its money stays under way until the order says that it is paid.
_UNDER_WAY: frozenset[Status] = frozenset(
    {"pending", "requires_action", "authorized", "partially_captured", "captured"}
)


def status(order: Order, payments: Iterable[Payment]) -> OrderStatus:
    """What the order's own facts end with, or what its payments say until then."""
    if order.status == "created" and any(payment.status in _UNDER_WAY for payment in payments):
        return "awaiting:payment"
    return order.status


def due(order: Order, payment: Payment, *, is_its_own: bool) -> Due | None:
    """What is to be done about a payment that names the order, if anything. Of those only its own can pay for it."""
    if order.status == "cancelled":
        return "return" if returnable(payment) else None
    if order.status == "complete" or not is_its_own or not _ended(payment):
        return None
    if payment.captured == order.price:
        return "record"
    return "return" if returnable(payment) else None


def own_payment(stream: UUID) -> UUID:
    """The payment of the order with this stream: the use cases that pay for it derive it likewise."""
    return uuid5(stream, "payment")


def _ended(payment: Payment) -> bool:
    """Whether it took money, and all that it will take."""
    return bool(payment.captured) and not payment.capturable and not payment.in_flight("capture")


def returnable(payment: Payment) -> bool:
    """Whether a void or a refund of it would be begun now: nothing that is under way already would end the same.

    The rules are those by which wishes are granted (domain/payment_decisions.py).
    """
    if payment.phase is Phase.ACTION_REQUIRED or (payment.phase is Phase.AUTHORIZED and payment.capturable):
        voidable = not payment.in_flight("capture") and not payment.in_flight("void")
    else:
        voidable = False
    going_back = sum(operation.amount.minor for _, operation in payment.in_flight("refund"))
    return voidable or (not payment.disputed and payment.refundable.minor > going_back)
