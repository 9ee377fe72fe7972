"""The process `payledger recover`: finishes what was interrupted, gives the money of cancelled orders back, and handles
what the provider tells or is asked for.

Any number may run: leases keep them from doing the same thing at once.
"""

import asyncio
import contextlib
import logging
import secrets
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import psycopg
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from application import inbox, recovery
from application.billing_breaker import GuardedBilling
from application.billing_desk import Billing
from application.breaker import Breaker
from application.event_store import Ledger
from application.inbox import Entry
from application.inbox_handling import Inbox
from application.order_returns import OrderReturns
from application.orders import order_streams
from application.payment_stream import PaymentStreams
from application.payments import Payments
from application.privacy import Keys
from application.recovery import LONGEST_PATIENCE, LONGEST_WAIT, PATIENCE, WAITING, Recovery, pause
from application.settlement import ABANDONED_AFTER, Settlement
from application.stripe_billing import StripeBilling
from application.stripe_gateway import StripeGateway
from application.sweep import alone, sweep
from interface.bootstrap import clock
from interface.known_customers import Known
from interface.owed_orders import OwedOrders
from interface.settings import Settings
from interface.signals import INBOX_GREW, Bell, listen
from projections import open_operations
from projections.open_operations import OpenOperation

log = logging.getLogger(__name__)

T = TypeVar("T")

# Of each kind of work at once.
MAX_AT_ONCE = 16
MAX_ENTRIES = 200
THREADS = 4
POOL_SIZE = 6
POOL_TIMEOUT_S = 5.0
# Between two looks for work when nobody rings.
LOOK_S = 1.0
RECONNECT_S = 0.5
HOUSEKEEPING_S = 3_600.0


class Recovering:
    """One a process. Made anywhere, run in one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="store")
        self._bell = Bell(settings.database_url)
        keys = Keys(settings.encryption_keys, secrets.token_bytes)
        self._ledger = Ledger(settings.database_url, keys, pool_size=THREADS, appended=self._bell.ring)
        self._stripe = StripeGateway(settings.stripe_api_key, settings.stripe_api_base, settings.public_url)
        gateway = Breaker(self._stripe, time.monotonic)
        streams = PaymentStreams(self._ledger, clock, self._run)
        settlement = Settlement(streams, gateway, clock)
        self._recovery = Recovery(streams, settlement, clock)
        payments = Payments(streams, settlement, gateway, clock, keys.fingerprints)
        self._returns = OrderReturns(order_streams(self._ledger, clock, self._run), payments, clock)
        self._pool: AsyncConnectionPool[AsyncConnection[Any]] = AsyncConnectionPool(
            settings.database_url,
            min_size=1,
            max_size=POOL_SIZE,
            timeout=POOL_TIMEOUT_S,
            kwargs={
                "autocommit": True,
                "options": "-c statement_timeout=5000",
                "application_name": "payledger recover",
            },
            open=False,
        )
        provider = GuardedBilling(StripeBilling(self._stripe.api), gateway)
        self._billing = Billing(self._ledger, provider, Known(self._pool), clock, self._run, keys.fingerprints)
        self._inbox = Inbox(streams, settlement, gateway, clock, self._billing.events.handle)
        self._owed = OwedOrders(self._pool, self._returns, clock)
        self._stopping = asyncio.Event()
        self._inbox_grew = asyncio.Event()

    def _run(self, call: Callable[[], T]) -> Awaitable[T]:
        # At most MAX_AT_ONCE of each kind of work ask for a thread at once.
        return asyncio.get_running_loop().run_in_executor(self._threads, call)

    async def run(self) -> None:
        """Work until told to stop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        await self._pool.open()
        self._bell.start()
        hanging_up = threading.Event()
        ear = threading.Thread(
            target=listen, args=(self._settings.database_url, INBOX_GREW, self._heard(loop), hanging_up)
        )
        ear.start()
        works = (self._operations, self._owed.owed_to_orders, self._events, self._sweeps, self._housekeeping)
        tasks = [asyncio.create_task(self._for_ever(work), name=work.__name__) for work in works]
        print("ready", flush=True)  # noqa: T201  the supervisor waits for this line
        await self._stopping.wait()
        hanging_up.set()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._pool.close()
        await self._stripe.close()
        self._bell.stop()
        await asyncio.to_thread(ear.join)
        self._threads.shutdown()
        self._ledger.close()

    def _heard(self, loop: asyncio.AbstractEventLoop) -> Callable[[str], None]:
        def ring(_: str) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._inbox_grew.set)

        return ring

    async def _for_ever(self, work: Callable[[], Awaitable[None]]) -> None:
        """Through lost connections and errors of our own."""
        while not self._stopping.is_set():
            try:
                await work()
            except (psycopg.Error, PoolTimeout) as error:
                log.warning("%s wait for the database: %s", work.__name__, type(error).__name__)
            except Exception:
                log.exception("%s failed", work.__name__)
            await asyncio.sleep(RECONNECT_S)

    # --- Open operations -----------------------------------------------------------------------------------------

    async def _operations(self) -> None:
        while True:
            now = clock()
            async with self._pool.connection() as conn:
                found = await open_operations.due(conn, now, now - ABANDONED_AFTER, now - PATIENCE, MAX_AT_ONCE)
            await asyncio.gather(*(self._settle(operation) for operation in found))
            if len(found) < MAX_AT_ONCE:
                await asyncio.sleep(LOOK_S)

    async def _settle(self, found: OpenOperation) -> None:
        async with self._pool.connection() as conn:
            lease = await recovery.take(conn, found.payment, found.operation, clock())
        if lease is None:
            return
        if found.aggregate == "payment":
            reason = await self._recovery.settle(found.payment, found.operation)
        else:
            reason = await self._billing.settle(found.aggregate, found.payment, found.operation)
        patient = reason == WAITING
        wait = pause(
            lease.attempts, PATIENCE if patient else recovery.FIRST_WAIT, LONGEST_PATIENCE if patient else LONGEST_WAIT
        )
        async with self._pool.connection() as conn:
            await recovery.give_back(conn, lease, reason, clock(), wait)
        log.info(
            "operation settled" if reason is None else "operation still open",
            extra={"payment": str(found.payment), "operation": found.operation},
        )

    # --- Inbox ---------------------------------------------------------------------------------------------------

    async def _events(self) -> None:
        while True:
            self._inbox_grew.clear()
            async with self._pool.connection() as conn:
                entries = await inbox.take(conn, clock(), MAX_ENTRIES)
            if entries:
                await self._handle(entries)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._inbox_grew.wait()
                    await asyncio.sleep(inbox.GATHER.total_seconds())

    async def _handle(self, entries: Sequence[Entry]) -> None:
        about: defaultdict[object, list[Entry]] = defaultdict(list)
        for entry in entries:
            about[entry.about].append(entry)
        at_once = asyncio.Semaphore(MAX_AT_ONCE)

        async def handle(group: list[Entry]) -> list[tuple[Entry, inbox.Verdict]]:
            async with at_once:
                verdict = await self._inbox.handle(group)
            return [(entry, verdict) for entry in group]

        handled = await asyncio.gather(*(handle(group) for group in about.values()))
        async with self._pool.connection() as conn:
            await inbox.give_back(conn, [one for group in handled for one in group], clock())

    # --- Sweep ---------------------------------------------------------------------------------------------------

    async def _sweeps(self) -> None:
        async with await AsyncConnection.connect(
            self._settings.database_url, autocommit=True, connect_timeout=5, application_name="payledger sweep"
        ) as conn:
            while True:
                if await alone(conn):
                    if await sweep(conn, self._stripe.events, clock()) is None:
                        log.warning("the provider's list of events could not be read; it is tried again")
                    self._inbox_grew.set()
                await asyncio.sleep(self._settings.sweep_s)

    async def _housekeeping(self) -> None:
        while True:
            async with self._pool.connection() as conn:
                await inbox.forget(conn, clock())
                await recovery.forget(conn, clock())
            await asyncio.sleep(HOUSEKEEPING_S)


def recover(settings: Settings) -> None:
    """Recover, handle and sweep until told to stop."""

    async def main() -> None:
        await Recovering(settings).run()

    asyncio.run(main())
