"""What `/v1` says: payments, orders and facts as JSON. Amounts are whole minor units of the currency beside them."""

from datetime import datetime
from typing import Any, Literal, Self
from uuid import UUID

from msgspec import Struct

from application.stripe_bare_charges import is_bare
from domain.order_facts import OrderStatus
from domain.payment import Payment, PaymentAt, Status
from domain.payment_facts import CaptureMethod, Card, Failure, NextAction
from projections.orders import Order, OrderState


class StripeIds(Struct, frozen=True):
    """Stripe's names. A payment that was made as a charge without a PaymentIntent has only that of the charge."""

    payment_intent: str | None
    charge: str | None

    @classmethod
    def of(cls, payment: Payment) -> Self:
        name = payment.payment_intent
        return cls(None, name) if name is not None and is_bare(name) else cls(name, payment.charge)


class PaymentView(Struct, frozen=True):
    """A payment. `pending` means that the outcome of the authorization is not known yet."""

    id: UUID
    status: Status
    currency: str
    amount: int
    amount_authorized: int
    amount_capturable: int
    amount_captured: int
    amount_refunded: int
    amount_refundable: int
    capture: CaptureMethod
    customer: str | None
    order: str | None
    description: str | None
    metadata: dict[str, str]
    card: Card | None
    failure: Failure | None
    next_action: NextAction | None
    stripe: StripeIds
    created_at: datetime
    updated_at: datetime
    version: int

    @classmethod
    def of(cls, at: PaymentAt) -> Self:
        payment = at.payment
        return cls(
            id=at.id,
            status=payment.status,
            currency=payment.amount.currency,
            amount=payment.amount.minor,
            amount_authorized=payment.authorized.minor,
            amount_capturable=payment.capturable.minor,
            amount_captured=payment.captured.minor,
            amount_refunded=payment.refunded.minor,
            amount_refundable=0 if payment.disputed else payment.refundable.minor,
            capture=payment.capture,
            customer=payment.customer,
            order=payment.order,
            description=payment.description,
            metadata=payment.metadata,
            card=payment.card,
            failure=payment.failure,
            next_action=payment.next_action,
            stripe=StripeIds.of(payment),
            created_at=at.created_at,
            updated_at=at.updated_at,
            version=at.version,
        )


class PaymentPage(Struct, frozen=True):
    payments: list[PaymentView]
    next_cursor: str | None


class OrderTotals(Struct, frozen=True):
    """The money of an order's payments in one currency."""

    currency: str
    amount_authorized: int
    amount_captured: int
    amount_refunded: int


class OrderPayment(Struct, frozen=True):
    id: UUID
    status: Status
    currency: str
    amount: int
    amount_authorized: int
    amount_captured: int
    amount_refunded: int
    created_at: datetime


class OrderView(Struct, frozen=True):
    """An order and its payments, oldest payment first.

    Of one that was announced: `user` may pay `price`, `version` counts the announcer's changes, and `status` is how it
    stands. Of one that payments merely name these are null, and its `status` is its `payment_status`: what the money of
    its payments says.
    """

    id: str
    status: OrderStatus | OrderState
    payment_status: OrderState
    user: str | None
    price: int | None
    currency: str | None
    version: int | None
    totals: list[OrderTotals]
    payments: list[OrderPayment]
    created_at: datetime

    @classmethod
    def of(cls, order: Order) -> Self:
        told = order.announced.state if order.announced else None
        return cls(
            id=order.id,
            status=order.status or order.state,
            payment_status=order.state,
            user=told.user if told else None,
            price=told.price.minor if told else None,
            currency=told.price.currency if told else None,
            version=told.version if told else None,
            totals=[
                OrderTotals(t.captured.currency, t.authorized.minor, t.captured.minor, t.refunded.minor)
                for t in order.totals
            ],
            payments=[_order_payment(at) for at in order.payments],
            created_at=order.created_at,
        )


class OrderPage(Struct, frozen=True):
    orders: list[OrderView]
    next_cursor: str | None


class FactView(Struct, frozen=True):
    """A fact of the log. `id` is the same however often it is sent; `data` depends on `type`."""

    position: int
    id: str
    type: str
    stream: UUID
    version: int
    at: datetime
    actor: str
    correlation_id: str
    causation_id: str | None
    data: dict[str, Any]


class FactList(Struct, frozen=True):
    events: list[FactView]


class Health(Struct, frozen=True):
    status: Literal["healthy"]
    service: Literal["payment-service"]
    timestamp: datetime


class Ready(Struct, frozen=True):
    """`checks` names each thing the service needs, and `ok` or what is wrong with it."""

    status: Literal["ready", "degraded", "not_ready"]
    checks: dict[str, str]


def _order_payment(at: PaymentAt) -> OrderPayment:
    payment = at.payment
    return OrderPayment(
        id=at.id,
        status=payment.status,
        currency=payment.amount.currency,
        amount=payment.amount.minor,
        amount_authorized=payment.authorized.minor,
        amount_captured=payment.captured.minor,
        amount_refunded=payment.refunded.minor,
        created_at=at.created_at,
    )
