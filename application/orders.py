"""The use cases of an order that was announced: paying for it, once at most, and collecting what was reserved for it.

Its stream and its payment's stream are derived from its id, so that every attempt to pay for it, whoever makes it and
under whatever key, is made on one stream. That an order was cancelled meanwhile is found out after the money has moved
at the latest; then it goes back (application/order_returns.py).
"""

import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol, get_args
from uuid import UUID, uuid5

from msgspec.structs import replace

from application.event_store import Ledger, StoreUnavailable, StreamMoved
from application.payment_stream import Context, RunBlocking
from application.payments import NAMESPACE, Answer, KeyReused, Payments, operation_id, payment_id
from application.settlement import Contended
from application.streams import Append, Story, Streams
from domain import order
from domain.errors import AlreadyStarted, OutcomeMismatch
from domain.order import Order, RecordPaid, demand_collectable, demand_owner, demand_payable
from domain.order_facts import KeyClaimed, OrderFact
from domain.payment import Payment, PaymentAt, Phase
from domain.payment_commands import Authorize, Capture, Void
from domain.payment_decisions import decide
from domain.payment_facts import Failure

log = logging.getLogger(__name__)

ANNOUNCED_MEANWHILE = Failure(
    "order_announced", None, "the order was announced meanwhile; pay it with another key", retryable=True
)


class Named(Protocol):
    """What is in the log by now. Raises StoreUnavailable when that cannot be told."""

    async def announced(self, stream: UUID) -> bool:
        """Whether there is an order with this stream."""
        ...

    async def of(self, order: str) -> Sequence[PaymentAt]:
        """All payments that name an order."""
        ...


class OrderNotFound(Exception):  # noqa: N818  it says what is so
    """No order was announced under this id."""


def order_stream(order: str) -> UUID:
    """The stream of an order that was announced."""
    return uuid5(NAMESPACE, f"order:{order}")


def order_payment(order: str) -> UUID:
    """The stream of its payment, with every attempt in it."""
    return uuid5(order_stream(order), "payment")


def order_streams(ledger: Ledger, clock: Callable[[], datetime], run: RunBlocking) -> Streams[Order]:
    """One a process."""
    return Streams(ledger, order.evolve, order.decide, clock, run, get_args(OrderFact))


def paid(payment: Payment) -> bool:
    """Whether it has taken all that it will take."""
    return bool(payment.captured) and not payment.capturable and not payment.in_flight("capture")


class Orders:
    """One instance a process. `named` tells also of payments that named an order before it was announced."""

    def __init__(
        self, ledger: Ledger, payments: Payments, named: Named, clock: Callable[[], datetime], run: RunBlocking
    ) -> None:
        self._orders = order_streams(ledger, clock, run)
        self._keys = Streams(ledger, _claimed, _nothing_to_decide, clock, run, (KeyClaimed,))
        self._payments = payments
        self._named = named

    async def find(self, name: str) -> Story[Order]:
        """Raises OrderNotFound or StoreUnavailable."""
        story = await self._orders.load(order_stream(name))
        if story.state is None:
            raise OrderNotFound
        return story

    async def authorize(self, wish: Authorize, key: str, context: Context) -> Answer:
        """Carry out a wish that this caller names with this key: as the order's payment, if its order was announced.

        A key under which an order is paid is claimed for that, so that it cannot begin a payment of its own beside it.
        The wish's operation is derived here. Raises what `pay` does, without OrderNotFound.
        """
        alone = payment_id(context.actor, key)
        announced = wish.order is not None and await self._named.announced(order_stream(wish.order))
        # What was asked before the order was announced is answered as it was then.
        if wish.order is None or not announced or (await self._payments.find(alone)).payment is not None:
            return await self._alone(alone, replace(wish, operation=operation_id(alone, context.actor, key)), context)
        stream = order_payment(wish.order)
        named = replace(wish, operation=operation_id(stream, context.actor, key))
        return await self.pay(await self.find(wish.order), named, context, claim=alone)

    async def _alone(self, stream: UUID, wish: Authorize, context: Context) -> Answer:
        """Carry out a wish that is not to pay an announced order, and withdraw it if that is announced meanwhile.

        Whoever pays the order then has either seen this wish in the log or is seen by it.
        """

        async def hindered() -> Failure | None:
            announced = await self._named.announced(order_stream(wish.order or ""))
            return ANNOUNCED_MEANWHILE if announced else None

        try:
            return await self._payments.carry_out(
                stream, wish, context, hindered=hindered if wish.order is not None else None
            )
        except Contended:
            if (await self._keys.load(stream)).state is not None:
                raise KeyReused from None
            raise

    async def pay(self, story: Story[Order], wish: Authorize, context: Context, *, claim: UUID | None = None) -> Answer:
        """Make an attempt to pay an order, or answer one again. `claim`: the stream that the caller's key would have.

        Raises a Refusal (OrderNotPayable also when the order was cancelled while it was being paid: the money goes
        back), KeyReused, Contended, ProviderUnavailable or StoreUnavailable.
        """
        state, stream = story.known, order_payment(story.known.id)
        demand_owner(state, wish.customer)
        history = await self._payments.find(stream)
        if history.started(wish.operation) is None:
            demand_payable(state, wish.amount)
            decide(history.payment, wish)  # what is refused claims no key
            if history.payment is None:
                await self._nobody_else_pays(state.id)
            if claim is not None:
                await self._claim(claim, state.id, context)
        answer = await self._payments.carry_out(stream, wish, context)
        await self.record_paid(answer.at, context)
        return answer

    async def give_up_waiting(self, payment: UUID, operation: str | None, context: Context) -> None:
        """Release an attempt that waits for a cardholder whom nobody sends there, unless `operation` is it.

        When that fails it has come to something meanwhile, which is found out. Raises what `carry_out` does.
        """
        state = (await self._payments.find(payment)).payment
        waits = state is not None and state.phase is Phase.ACTION_REQUIRED and not state.in_flight("void")
        if state is not None and waits and operation not in state.operations:
            given_up = Void(str(uuid5(payment, f"given up: {state.authorization}")), "nobody can be asked")
            await self._payments.carry_out(payment, given_up, context)

    async def capture(
        self, payment: UUID, wish: Capture, context: Context, versions: frozenset[int] | None = None
    ) -> Answer:
        """Take what a payment reserved, unless it is for an order that is cancelled. Raises what carry_out does."""
        history = await self._payments.find(payment)
        name = history.payment.order if history.payment is not None else None
        if name is not None and history.started(wish.operation) is None:
            found = (await self._orders.load(order_stream(name))).state
            if found is not None:
                demand_collectable(found, wish.amount_minor if payment == order_payment(name) else None)
        answer = await self._payments.carry_out(payment, wish, context, versions)
        await self.record_paid(answer.at, context)
        return answer

    async def returned(self, payment: UUID, context: Context) -> Answer:
        """The cardholder came back from authentication: see Payments.returned."""
        answer = await self._payments.returned(payment, context)
        await self.record_paid(answer.at, context)
        return answer

    async def record_paid(self, at: PaymentAt, context: Context) -> None:
        """The order has its money, if this is its payment and took all of it. Raises OrderNotPayable.

        What cannot be recorded now is recorded by whoever follows the log.
        """
        name = at.payment.order
        if name is None or at.id != order_payment(name) or not paid(at.payment):
            return
        told = RecordPaid(at.id, at.payment.captured, at.payment.charge)
        try:
            await self._orders.record(await self.find(name), [told], context)
        except OutcomeMismatch as mismatch:
            log.error("what was taken is not the order's price: %r", mismatch)  # noqa: TRY400  no trace needed
        except (StoreUnavailable, Contended) as error:
            log.warning("the order is paid, and does not know it yet: %s", type(error).__name__)

    async def _nobody_else_pays(self, name: str) -> None:
        """Payments may have named the order before it was announced. Raises AlreadyStarted."""
        for at in await self._named.of(name):
            payment = at.payment
            waits = payment.status in {"pending", "requires_action"}
            if at.id != order_payment(name) and (waits or payment.capturable or payment.refundable):
                raise AlreadyStarted(status=payment.status)

    async def _claim(self, stream: UUID, name: str, context: Context) -> None:
        try:
            await self._keys.append(Append(Story[str](stream), (KeyClaimed(name),)), context)
        except StreamMoved:
            holder = (await self._keys.load(stream)).state
            if holder is None:  # a payment of its own was faster
                raise Contended from None
            if holder != name:
                raise KeyReused from None


def _claimed(_: str | None, fact: KeyClaimed) -> str:
    """The order that a key is claimed for."""
    return fact.order


def _nothing_to_decide(_state: str | None, _command: object) -> tuple[()]:
    """Whether a key may be claimed is told by the store alone."""
    return ()
