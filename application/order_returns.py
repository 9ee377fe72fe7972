"""What is owed to an order after the fact: that it was paid, or, when it is off, all of its money back.

Nothing is remembered between two tries but the facts themselves. A try is an operation whose name is derived from the
payment and its number, so that whoever repeats it, also after a crash, repeats the same one.
"""

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import count
from typing import Literal, get_args
from uuid import UUID, uuid5

from msgspec import Struct

from application.event_store import StoreUnavailable
from application.history import History
from application.orders import order_payment, order_stream, paid
from application.payment_stream import Context
from application.payments import Payments, ProviderUnavailable
from application.recovery import pause
from application.settlement import Contended
from application.streams import Story, Streams
from domain.errors import OrderNotPayable, OutcomeMismatch, Refusal
from domain.order import Order, RecordPaid
from domain.order_facts import OrderCancelled
from domain.payment import Payment, Phase
from domain.payment_commands import Refund, Void
from domain.payment_facts import Stage

log = logging.getLogger(__name__)

ACTOR = "order returns"
# Releasing and giving back the rest are two steps; what comes to light between them may be a third.
MAX_STEPS = 4
LOOK_AGAIN = timedelta(seconds=1)
# After a refusal of the provider's: it is tried for some ten days, and then a person has to look.
FIRST_WAIT = timedelta(seconds=10)
LONGEST_WAIT = timedelta(days=1)
MAX_TRIES = 24

Why = Literal["order cancelled", "not what the order asks for"]
WHYS: tuple[Why, ...] = get_args(Why)


class Pending(Struct, frozen=True):
    """Something is still owed. `wait`: until it is worth another try."""

    reason: str
    wait: timedelta


LATE = Pending("it is decided anew", LOOK_AGAIN)
UNDER_WAY = Pending("an operation is under way", LOOK_AGAIN)


class OrderReturns:
    """One instance a process. Raises nothing: what is still owed has a reason."""

    def __init__(self, orders: Streams[Order], payments: Payments, clock: Callable[[], datetime]) -> None:
        self._orders = orders
        self._payments = payments
        self._clock = clock

    async def settle(self, payment: UUID) -> Pending | None:
        """Have a payment's order know that it is paid, or the money go back if it must not be. None: nothing is owed.

        Asked of any payment, as often as one likes.
        """
        try:
            return await self._settled(payment)
        except ProviderUnavailable as away:
            return Pending("the provider does not answer", timedelta(seconds=away.retry_after_s))
        except (Contended, StoreUnavailable, Refusal) as error:
            return Pending(type(error).__name__, FIRST_WAIT)
        except Exception as error:  # a payment that cannot even be read must not hold up the others
            log.exception("a cancelled order's money could not be returned", extra={"payment": str(payment)})
            return Pending(type(error).__name__, FIRST_WAIT)

    async def _settled(self, payment: UUID) -> Pending | None:
        history = await self._payments.find(payment)
        name = history.payment.order if history.payment is not None else None
        if history.payment is None or name is None:
            return None
        story = await self._orders.load(order_stream(name))
        if story.state is None:
            return None
        if story.state.status == "cancelled":
            return await self._returned(history, "order cancelled", _cancellation(story))
        if payment != order_payment(name) or not paid(history.payment):
            return None
        told = RecordPaid(payment, history.payment.captured, history.payment.charge)
        context = Context(ACTOR, history.envelopes[-1].correlation, history.envelopes[-1].id)
        try:
            await self._orders.record(story, [told], context)
        except (OrderNotPayable, OutcomeMismatch) as refusal:
            if isinstance(refusal, OrderNotPayable) and refusal.status == "cancelled":
                return LATE  # this very moment
            log.error("what was taken is not what the order asks for: %r", refusal)  # noqa: TRY400  no trace needed
            return await self._returned(history, "not what the order asks for", context)
        return None

    async def _returned(self, history: History, why: Why, context: Context) -> Pending | None:
        for _ in range(MAX_STEPS):
            payment = history.payment
            assert payment is not None  # noqa: S101  asked before
            wish = _wish(payment)
            if wish is None:
                return UNDER_WAY if any(one.outcome == "open" for one in payment.operations.values()) else None
            tries = tried(history.stream, payment, "void" if wish is Void else "refund", why)
            if len(tries.failed) >= MAX_TRIES:
                return Pending(f"{len(tries.failed)} tries failed: somebody has to look", LONGEST_WAIT)
            if (wait := _until(history, tries.failed) - self._clock()) > timedelta():
                return Pending(f"{len(tries.failed)} tries failed", wait)
            answer = await self._payments.carry_out(history.stream, wish(operation=tries.next, reason=why), context)
            if answer.outcome == "open":
                return UNDER_WAY
            if answer.outcome == "failed" and payment.phase is Phase.ACTION_REQUIRED:
                await self._payments.returned(history.stream, context)  # it has come to something meanwhile
            history = await self._payments.find(history.stream)
        return LATE


class Tried(Struct, frozen=True):
    """The operation that the next try is, and those of its kind that have failed, in their order."""

    next: str
    failed: tuple[str, ...]


def tried(stream: UUID, payment: Payment, kind: Stage, why: Why) -> Tried:
    """What has been tried to give a payment's money back for this reason."""
    failed: list[str] = []
    for number in count(1):
        name = str(uuid5(stream, f"{why}:{number}"))
        one = payment.operations.get(name)
        if one is None:
            break
        if one.kind == kind and one.outcome == "failed":
            failed.append(name)
    return Tried(name, tuple(failed))


def _until(history: History, failed: tuple[str, ...]) -> datetime:
    """When it is worth another try."""
    last = [envelope.at for envelope in history.envelopes if failed and envelope.operation == failed[-1]]
    return last[-1] + pause(len(failed) - 1, FIRST_WAIT, LONGEST_WAIT) if last else history.envelopes[0].at


def _wish(payment: Payment) -> type[Void | Refund] | None:
    """What leaves less of the order's money here, if it can be begun now."""
    if payment.phase is Phase.ACTION_REQUIRED or (payment.phase is Phase.AUTHORIZED and payment.capturable):
        return None if payment.in_flight("capture") or payment.in_flight("void") else Void
    going_back = sum(operation.amount.minor for _, operation in payment.in_flight("refund"))
    return Refund if payment.refundable.minor > going_back and not payment.disputed else None


def _cancellation(story: Story[Order]) -> Context:
    cancelled = (one for one in reversed(story.envelopes) if isinstance(one.fact, OrderCancelled))
    fact = next(cancelled, story.envelopes[0])
    return Context(ACTOR, fact.correlation, fact.id)
