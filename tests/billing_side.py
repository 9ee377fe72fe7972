"""A log of customers, their names and subscriptions, with the read model of customers beside it."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID, uuid4

from psycopg import AsyncConnection

from domain.customer_facts import CustomerFact
from domain.facts import Fact
from domain.subscription_facts import SubscriptionFact
from projections import customers
from tests.billing_logs import decided, of
from tests.given import NOON
from tests.read_side import ReadSide

T = TypeVar("T")


class BillingSide(ReadSide):
    def log(self, stream: UUID, *facts: Fact, at: datetime = NOON) -> UUID:
        """Facts at the end of a stream."""
        loaded = self.ledger.load(stream)
        self.ledger.append(decided(stream, *facts, first=len(loaded.envelopes) + 1, at=at), loaded.tail)
        return stream

    def customer(self, *facts: CustomerFact, at: datetime = NOON) -> UUID:
        return self.log(uuid4(), *facts, at=at)

    def subscription(self, customer: UUID, *facts: SubscriptionFact, at: datetime = NOON) -> UUID:
        return self.log(uuid4(), *of(customer, *facts), at=at)

    def follow(self, limit: int = 1_000) -> None:
        """Bring the read model of customers to the end of the log."""
        self.catch_up(customers.MODEL, limit=limit)

    def ask(self, query: Callable[[AsyncConnection[Any]], Awaitable[T]]) -> T:
        async def run() -> T:
            async with await AsyncConnection.connect(self.url, autocommit=True) as conn:
                return await query(conn)

        return asyncio.run(run())
