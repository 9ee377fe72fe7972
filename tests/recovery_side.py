"""A database of its own for a module of tests about recovery, and a payment's desk with its recovery and inbox."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from uuid import UUID, uuid4

import psycopg
from psycopg import AsyncConnection

from application.event_store import Ledger
from application.history import History
from application.inbox_handling import Inbox
from application.payment_stream import Context, PaymentStreams
from application.payments import Payments
from application.privacy import Keys
from application.recovery import Recovery
from application.settlement import Settlement
from domain.payment import Payment
from domain.payment_facts import PaymentFact
from interface.migrations import migrate
from interface.sandbox.postgres import Postgres
from tests.fake_gateway import Behaviour
from tests.test_payments import KEY, Desk

T = TypeVar("T")

WORKER = Context("recovery", "look-1")
NEVER_ARRIVES = Behaviour(arrives=False)
REPLY_LOST = Behaviour(answers=False)
UNHEARD = Behaviour(answers=False)


@contextmanager
def migrated(postgres: Postgres) -> Iterator[str]:
    name = f"recovery_{uuid4().hex}"
    with psycopg.connect(postgres.url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        url = postgres.url.rpartition("/")[0] + f"/{name}"
        migrate(url)
        yield url
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def log_in(postgres: Postgres) -> Iterator[Ledger]:
    """An empty log with the tables beside it."""
    with migrated(postgres) as url, Ledger(url, Keys((bytes(32),), os.urandom)) as ledger:
        yield ledger


def on(url: str, work: Callable[[AsyncConnection[Any]], Awaitable[T]]) -> T:
    """What `work` answers, on a connection of its own."""

    async def run() -> T:
        async with await AsyncConnection.connect(url, autocommit=True) as conn:
            return await work(conn)

    return asyncio.run(run())


class RecoveryDesk(Desk):
    """A desk whose payment is looked after: `left_open` are the operations that our own calls did not settle."""

    def __init__(self, ledger: Ledger, *, multicapture: bool = False) -> None:
        super().__init__(ledger, multicapture=multicapture)
        self.left_open: list[tuple[str, str]] = []
        self.streams = PaymentStreams(ledger, self.clock, asyncio.to_thread)
        self.settlement = Settlement(self.streams, self.gateway, self.clock, self._hear)
        self.payments = Payments(self.streams, self.settlement, self.gateway, self.clock, (KEY,))
        self.recovery = Recovery(self.streams, self.settlement, self.clock)
        self.inbox = Inbox(self.streams, self.settlement, self.gateway, self.clock)

    async def _hear(self, payment: UUID, operation: str, reason: str) -> None:
        assert payment == self.stream
        self.left_open.append((operation, reason))

    def learn(self) -> History:
        return asyncio.run(self.settlement.learn(self.stream, WORKER))

    def settle(self, operation: str) -> str | None:
        return asyncio.run(self.recovery.settle(self.stream, operation))

    async def record(self, *facts: PaymentFact) -> None:
        """What another process appends."""
        await self.streams.append(await self.streams.load(self.stream), facts, WORKER)

    @property
    def payment(self) -> Payment:
        payment = asyncio.run(self.payments.history(self.stream)).payment
        assert payment is not None
        return payment
