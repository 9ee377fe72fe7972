"""What the read model knows of customers, for use cases that may ask something that lags a little."""

from typing import Any
from uuid import UUID

import psycopg
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from application.event_store import StoreUnavailable
from domain.subscription import Subscription
from projections import customers


class Known:
    """See KnownCustomers. Raises StoreUnavailable."""

    def __init__(self, pool: AsyncConnectionPool[AsyncConnection[Any]]) -> None:
        self._pool = pool

    async def customer_at(self, provider_customer: str) -> UUID | None:
        """Our customer by the provider's name for it."""
        try:
            async with self._pool.connection() as conn:
                found = await customers.by_provider_customer(conn, provider_customer)
        except (psycopg.OperationalError, PoolTimeout) as error:
            raise StoreUnavailable from error
        return found.id if found else None

    async def subscriptions_of(self, customer: UUID) -> list[Subscription]:
        """The newest of a customer's."""
        try:
            async with self._pool.connection() as conn:
                found = await customers.subscriptions_of(conn, customer, None, customers.MAX_PAGE)
        except (psycopg.OperationalError, PoolTimeout) as error:
            raise StoreUnavailable from error
        return [at.state for at in found]
