"""Orders and their payments on a real log, with a provider that keeps money, and processes that can be interrupted.

Every wait of a process passes one gate: its calls of the store, and those of the provider. What a gate does is the
test's to say; by itself it lets everything through.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID, uuid4

import psycopg

import projections
from application.event_store import Ledger
from application.gateway import Absent, AnyInstruction, Standing, Unknown
from application.history import History
from application.order_returns import OrderReturns, Pending
from application.orders import Orders, order_payment, order_stream, order_streams
from application.payment_stream import Context, PaymentStreams
from application.payments import Answer, Payments, operation_id
from application.privacy import Keys
from application.recovery import Recovery
from application.settlement import Settlement
from domain.facts import NAMES
from domain.money import Money
from domain.order import Cancel, Order, Place
from domain.order_facts import OrderStatus
from domain.payment import PaymentAt
from domain.payment_commands import Authorize, Outcome
from domain.payment_facts import CaptureMethod
from interface.sandbox.postgres import Postgres
from tests.fake_gateway import FakeGateway, Intent
from tests.given import NOON, usd

T = TypeVar("T")
Gate = Callable[[Callable[[], Awaitable[T]]], Awaitable[T]]

KEY = b"fingerprints".ljust(32)
KEYS = Keys(masters=(bytes(32),), chance=os.urandom)
MIGRATIONS = Path(projections.__file__).parent / "migrations"
PRICE = usd(100_00)
ANN = Context("ann", "request-1")
# More rounds of those who finish things than any order needs.
MAX_ROUNDS = 20


def log_of_orders(postgres: Postgres, name: str) -> Ledger:
    """An empty log of this name."""
    with psycopg.connect(postgres.url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}".encode())
    url = postgres.url.rpartition("/")[0] + f"/{name}"
    with psycopg.connect(url) as owner:
        owner.execute((MIGRATIONS / "0003_person_keys.sql").read_bytes())
    return Ledger(url, KEYS, create_table=True)


async def open_gate(call: Callable[[], Awaitable[T]]) -> T:
    return await call()


class Gateway:
    """The provider as one process sees it."""

    def __init__(self, provider: FakeGateway, gate: Gate[Any]) -> None:
        self._provider = provider
        self._gate = gate

    async def perform(self, instruction: AnyInstruction) -> Outcome | Unknown:
        told: Outcome | Unknown = await self._gate(lambda: self._provider.perform(instruction))
        return told

    async def standing(
        self, payment: UUID, authorization: str, payment_intent: str | None
    ) -> Standing | Absent | Unknown:
        told: Standing | Absent | Unknown = await self._gate(
            lambda: self._provider.standing(payment, authorization, payment_intent)
        )
        return told

    async def payment_of(self, payment_intent: str) -> UUID | Absent | Unknown:
        return await self._provider.payment_of(payment_intent)

    def unavailable_s(self) -> float | None:
        return self._provider.unavailable_s()

    async def verify(self) -> None:
        pass


class Named:
    """As the read model would answer, from the log: of the payments that a test said are there."""

    def __init__(self, shop: "Shop", gate: Gate[Any]) -> None:
        self._shop = shop
        self._gate = gate

    async def announced(self, stream: UUID) -> bool:
        async def look() -> bool:
            return bool(self._shop.ledger.load(stream).envelopes)

        found: bool = await self._gate(look)
        return found

    async def of(self, order: str) -> Sequence[PaymentAt]:
        async def look() -> list[PaymentAt]:
            streams = (*self._shop.alone, order_payment(order))
            found = [History.of(stream, self._shop.ledger.load(stream)) for stream in streams]
            return [one.snapshot() for one in found if one.payment is not None and one.payment.order == order]

        payments: list[PaymentAt] = await self._gate(look)
        return payments


class Process:
    """What one process holds: the use cases, and those who finish what others began."""

    def __init__(self, shop: "Shop", gate: Gate[Any] = open_gate) -> None:
        async def run(call: Callable[[], T]) -> T:
            async def called() -> T:
                return call()

            done: T = await gate(called)
            return done

        gateway = Gateway(shop.provider, gate)
        streams = PaymentStreams(shop.ledger, shop.clock, run)
        self.settlement = settlement = Settlement(streams, gateway, shop.clock)
        self.payments = Payments(streams, settlement, gateway, shop.clock, (KEY,))
        self.orders = Orders(shop.ledger, self.payments, Named(shop, gate), shop.clock, run)
        self.recovery = Recovery(streams, settlement, shop.clock)
        self.stories = order_streams(shop.ledger, shop.clock, run)
        self.returns = OrderReturns(self.stories, self.payments, shop.clock)


class Shop:
    """One order, and all that outlives a process: the log, the provider, the clock."""

    def __init__(self, ledger: Ledger, *, multicapture: bool = False) -> None:
        self.ledger = ledger
        self.provider = FakeGateway(multicapture=multicapture)
        self.order = f"order-{uuid4()}"
        self.payment = order_payment(self.order)
        self.now = NOON
        self.alone: list[UUID] = []
        self.desk = Process(self)

    def clock(self) -> datetime:
        return self.now

    # What is announced

    async def announce(self, status: OrderStatus = "created", price: Money = PRICE) -> None:
        await self._tell(Place(self.order, 0, "ann", price, status))

    async def cancel(self) -> None:
        await self._tell(Cancel(self.order, 1))

    async def _tell(self, command: Place | Cancel) -> None:
        story = await self.desk.stories.load(order_stream(self.order))
        await self.desk.stories.record(story, [command], Context("orders", "orders-0-7"))

    # What is asked

    def wish(self, key: str = "k1", *, capture: CaptureMethod = "automatic", amount: Money = PRICE) -> Authorize:
        operation = operation_id(self.payment, "ann", key)
        return Authorize(operation, amount, capture, "tok_visa", customer="ann", order=self.order)

    async def pay(
        self, key: str = "k1", process: Process | None = None, capture: CaptureMethod = "automatic"
    ) -> Answer:
        orders = (process or self.desk).orders
        return await orders.pay(await orders.find(self.order), self.wish(key, capture=capture), ANN)

    # What finishes things

    async def finish(self) -> Pending | None:
        """Recovery, what is owed to orders and the passing of time, until nothing moves any more."""
        pending: Pending | None = None
        for _ in range(MAX_ROUNDS):
            before = len(self.ledger.load(self.payment).envelopes) + len(self.facts())
            for stream in (self.payment, *self.alone):
                payment = (await self.desk.payments.find(stream)).payment
                for name, operation in payment.operations.items() if payment else ():
                    if operation.outcome == "open":
                        await self.desk.recovery.settle(stream, name)
                pending = await self.desk.returns.settle(stream) or pending
            if len(self.ledger.load(self.payment).envelopes) + len(self.facts()) == before:
                return pending
            self.now += timedelta(days=1)
        raise AssertionError("it never ends")

    # What there is

    def facts(self) -> list[str]:
        """Of the order."""
        return self._facts(order_stream(self.order))

    def payment_facts(self) -> list[str]:
        return self._facts(self.payment)

    def _facts(self, stream: UUID) -> list[str]:
        return [NAMES[type(envelope.fact)] for envelope in self.ledger.load(stream).envelopes]

    @property
    def state_stream(self) -> UUID:
        return order_stream(self.order)

    def state(self) -> Order:
        return asyncio.run(self.desk.orders.find(self.order)).known

    @property
    def intents(self) -> list[Intent]:
        return list(self.provider.intents.values())

    @property
    def holds_minor(self) -> int:
        """The customer's money at the provider, taken or reserved."""
        reserved = sum(one.amount.minor - one.received for one in self.intents if one.status == "requires_capture")
        return reserved + sum(one.received - one.refunded for one in self.intents)

    def check(self) -> None:
        """Paid once at most and as a whole, nothing kept of what is off, and the ledger says what the provider does."""
        facts, payment = self.facts(), asyncio.run(self.desk.payments.find(self.payment)).payment
        assert facts.count("OrderPaid") <= 1
        assert set(self.provider.moved.values()) <= {1}
        if "OrderCancelled" in facts:
            assert self.holds_minor == 0, self.intents
            assert "OrderPaid" not in facts[facts.index("OrderCancelled") :]
            assert not [one for one in self.intents if one.status == "requires_action"]
        elif payment is not None and not self.alone:
            assert self.holds_minor == (payment.captured - payment.refunded + payment.capturable).minor
            assert ("OrderPaid" in facts) == (payment.captured == PRICE)
        holding = [one for one in self.intents if one.status == "requires_capture" or one.refunded < one.received]
        assert len(holding) <= 1, holding
        if payment is not None and payment.payment_intent is not None:
            intent = self.provider.intents[payment.payment_intent]
            assert (payment.captured.minor, payment.refunded.minor) == (intent.received, intent.refunded)
            assert bool(payment.capturable) == (intent.status == "requires_capture")
