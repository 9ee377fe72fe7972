"""The composition root of the API process: the one place where its parts are put together."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from msgspec.structs import replace
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from application.payments import Payments
from application.privacy import Keys
from application.stripe_gateway import StripeGateway
from domain.payment import PaymentAt
from interface.bootstrap import clock
from interface.log_watch import LogWatch
from interface.metrics import MeteredGateway, MeteredLedger, Metrics
from interface.progress import Progress
from interface.settings import Settings
from interface.signals import Bell
from interface.tokens import Tokens

T = TypeVar("T")

# A query waits this long for a connection before the caller is told to come back.
POOL_TIMEOUT_S = 5.0
QUERY_POOL_SIZE = 8
MAX_QUERIES_WAITING = 2_000


class Services:
    """What one API process needs. Made before the event loop, opened inside it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.clock = clock
        self._threads = ThreadPoolExecutor(settings.max_threads, thread_name_prefix="store")
        self._bell = Bell(settings.database_url)
        keys = Keys(settings.encryption_keys, secrets.token_bytes)
        self.metrics = Metrics()
        self.ledger = MeteredLedger(
            self.metrics, settings.database_url, keys, pool_size=settings.max_threads, appended=self._bell.ring
        )
        self.log = LogWatch(settings.database_url)
        self.gateway = StripeGateway(settings.stripe_api_key, settings.stripe_api_base, settings.public_url)
        metered = MeteredGateway(self.gateway, self.metrics)
        self.payments = Payments(self.ledger, metered, clock, self.run, keys.fingerprints)
        self.tokens = Tokens(settings.jwt_secret_keys, clock)
        self.progress = Progress(settings.database_url)
        self.queries: AsyncConnectionPool[AsyncConnection[Any]] = AsyncConnectionPool(
            settings.database_url,
            min_size=1,
            max_size=QUERY_POOL_SIZE,
            max_waiting=MAX_QUERIES_WAITING,
            timeout=POOL_TIMEOUT_S,
            kwargs={"autocommit": True, "options": "-c statement_timeout=5000", "application_name": "payledger query"},
            open=False,
        )

    def run(self, call: Callable[[], T]) -> Awaitable[T]:
        """A blocking call, in one of a bounded number of threads."""
        return asyncio.get_running_loop().run_in_executor(self._threads, call)

    async def open(self) -> None:
        """Raises GatewayMisconfigured when the provider refuses our credentials."""
        await self.gateway.verify()
        await self.queries.open()
        self._bell.start()
        self.progress.start()
        self.log.open()

    async def close(self) -> None:
        await self.log.close()
        await self.progress.stop()
        await self.queries.close()
        await self.gateway.close()
        self._bell.stop()
        self._threads.shutdown()
        self.ledger.close()

    async def opened(self, found: Sequence[PaymentAt]) -> list[PaymentAt]:
        """Payments as a read model has them, with what is personal in them opened (or blank, once erased)."""
        if all(at.sealed is None for at in found):
            return list(found)
        return await self.run(lambda: [self._opened(at) for at in found])

    def _opened(self, at: PaymentAt) -> PaymentAt:
        if at.sealed is None:
            return at
        personal = self.ledger.personal(at.id, at.sealed)
        description, metadata = personal.get("description"), personal.get("metadata", {})
        return replace(at, payment=replace(at.payment, description=description, metadata=metadata), sealed=None)
