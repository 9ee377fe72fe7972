"""The composition root of the API process: the one place where its parts are put together."""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from uuid import UUID

import psycopg
from msgspec.structs import replace
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from application.billing_breaker import GuardedBilling
from application.billing_desk import Billing
from application.breaker import Breaker
from application.event_store import StoreUnavailable
from application.orders import Orders
from application.payment_stream import PaymentStreams
from application.payments import Payments
from application.privacy import Keys
from application.recovery import let_go
from application.settlement import Settlement
from application.stripe_billing import StripeBilling
from application.stripe_gateway import StripeGateway
from domain.payment import PaymentAt
from interface.bootstrap import clock
from interface.intake import Intake
from interface.invalidation import Invalidated
from interface.key_set import KeySet
from interface.known_customers import Known
from interface.log_watch import LogWatch
from interface.metrics import MeteredGateway, MeteredLedger, Metrics
from interface.named_payments import NamedPayments
from interface.progress import Progress
from interface.rate_limits import RateLimits
from interface.sessions import Sessions
from interface.settings import Settings
from interface.signals import INBOX_GREW, Bell
from interface.tokens import Tokens, Trust
from projections import payment_status
from projections.together import Together

log = logging.getLogger(__name__)

T = TypeVar("T")

# A query waits this long for a connection before the caller is told to come back.
POOL_TIMEOUT_S = 5.0
QUERY_POOL_SIZE = 8
MAX_QUERIES_WAITING = 2_000
# Loads and appends that are under way or wait for a thread; past this, callers are told to come back.
MAX_BLOCKING_CALLS = 1_000


class Services:
    """What one API process needs. Made before the event loop, opened inside it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.clock = clock
        self._threads = ThreadPoolExecutor(settings.max_threads, thread_name_prefix="store")
        self._blocking = 0
        self._bell = Bell(settings.database_url)
        keys = Keys(settings.encryption_keys, secrets.token_bytes)
        self.metrics = Metrics()
        self.ledger = MeteredLedger(
            self.metrics, settings.database_url, keys, pool_size=settings.max_threads, appended=self._bell.ring
        )
        self.log = LogWatch(settings.database_url)
        self.gateway = StripeGateway(settings.stripe_api_key, settings.stripe_api_base, settings.public_url)
        metered = MeteredGateway(self.gateway, self.metrics)
        self.breaker = Breaker(metered, time.monotonic)
        streams = PaymentStreams(self.ledger, clock, self.run)
        settlement = Settlement(streams, self.breaker, clock, self._let_go)
        self.payments = Payments(streams, settlement, self.breaker, clock, keys.fingerprints)
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
        named = NamedPayments(self.queries, self.progress)
        self.orders = Orders(self.ledger, self.payments, named, clock, self.run)
        provider = GuardedBilling(StripeBilling(self.gateway.api), self.breaker, metered.timed)
        billing = Billing(self.ledger, provider, Known(self.queries), clock, self.run, keys.fingerprints)
        self.customers, self.subscriptions, self.catalog = billing.customers, billing.subscriptions, billing.catalog
        self._finding = Together(self._find_all)
        self.keys = KeySet(settings.jwt_key_set) if settings.jwt_key_set else None
        self.invalidated = Invalidated(self.queries, clock)
        trust = Trust(settings.jwt_secret_keys, self.keys, settings.jwt_issuer, settings.jwt_audience)
        self.tokens = Tokens(trust, clock, self.invalidated)
        self.sessions = Sessions(trust, clock, self.invalidated)
        self.limits = RateLimits(settings.rate_limits, self.queries, clock)
        self._tasks: list[asyncio.Task[None]] = []
        self._inbox_bell = Bell(settings.database_url, INBOX_GREW)
        self.intake = Intake(self.queries, clock, self._inbox_bell.ring)

    async def run(self, call: Callable[[], T]) -> T:
        """A blocking call, in one of a few threads. Raises StoreUnavailable when too many wait for one."""
        if self._blocking >= MAX_BLOCKING_CALLS:
            raise StoreUnavailable("too many calls wait for the store")
        self._blocking += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, call)
        finally:
            self._blocking -= 1

    async def open(self) -> None:
        """Raises GatewayMisconfigured when the provider refuses our credentials, KeySetUnusable without keys."""
        await self.gateway.verify()
        if self.keys is not None:
            await self.keys.refresh()
            self._tasks.append(asyncio.create_task(self.keys.follow(), name="key set"))
        await self.queries.open()
        await self.invalidated.open()
        self._tasks.append(asyncio.create_task(self.limits.follow(), name="rate limits"))
        self._bell.start()
        self._inbox_bell.start()
        self.progress.start()
        self.log.open()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.intake.close()
        await self.invalidated.close()
        await self.log.close()
        await self.progress.stop()
        await self.queries.close()
        await self.gateway.close()
        self._bell.stop()
        self._inbox_bell.stop()
        self._threads.shutdown()
        self.ledger.close()

    async def _let_go(self, payment: UUID, operation: str, reason: str) -> None:
        """Tell recovery that it need not wait for us. If it cannot be told, it finds the operation later by itself."""
        try:
            async with self.queries.connection() as conn:
                await let_go(conn, payment, operation, reason, self.clock())
        except (psycopg.Error, PoolTimeout) as error:
            log.warning("recovery could not be told: %s", type(error).__name__)

    async def find(self, payment: UUID) -> PaymentAt | None:
        """A payment as the read model has it now. Those that are asked for meanwhile are found together."""
        return await self._finding.find(payment)

    async def _find_all(self, payments: Sequence[UUID]) -> dict[UUID, PaymentAt]:
        async with self.queries.connection() as conn:
            return await payment_status.find_all(conn, payments)

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
