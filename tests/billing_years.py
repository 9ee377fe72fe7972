"""Years of customers in seconds: the stand-in's clock is ours, and webhooks come twice, in any order, late or never.

Between them works what works in a process of ours: the billing desk, the inbox, the sweep, recovery and the read
models. Calls to the provider are cut short at times; what becomes of them is settled later.
"""

import asyncio
import os
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, TypeVar
from unittest.mock import patch

import psycopg
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool
from stripe._http_client import HTTPClient

from application import inbox
from application.billing_desk import Billing
from application.event_store import Ledger
from application.gateway import Unknown
from application.inbox import Entry, Event, Verdict
from application.inbox_handling import Inbox
from application.payment_stream import PaymentStreams
from application.privacy import Keys
from application.settlement import Settlement
from application.stripe_gateway import StripeGateway
from application.sweep import sweep
from interface.bootstrap import log_reader
from interface.known_customers import Known
from projections import customers, open_operations
from projections.engine import Engine, take_over
from tests.severed_billing import Severed
from tests.test_stripe_billing_standin import Shop

T = TypeVar("T")

KEY = bytes(32)
MODELS = (customers.MODEL, open_operations.MODEL)
MAX_ENTRIES = 200
# Of what happens between two looks: deliveries that come again, that come a step or more later, and never.
TWICE, LATE, SILENT, OUTAGE, IN_TWO = 0.4, 0.2, 0.25, 0.2, 0.4


class World:
    """Use `world()`. `rng` draws everything that is not decided."""

    def __init__(self, shop: Shop, ledger: Ledger, conn: AsyncConnection[Any], known: Known, rng: Random) -> None:
        self.shop = shop
        self.ledger = ledger
        self.conn = conn
        self.rng = rng
        self.counted = Counter[str]()
        self.gateway = StripeGateway("sk_test_years", shop.url)
        self.severed = Severed(self.gateway, lambda: self.clock().timestamp(), shop)
        self.billing = Billing(ledger, self.severed, known, self.clock, at_once, (KEY,))
        streams = PaymentStreams(ledger, self.clock, at_once)
        settlement = Settlement(streams, self.gateway, self.clock)
        self._inbox = Inbox(streams, settlement, self.gateway, self.clock, self.billing.events.handle)
        self._engines: list[tuple[Engine, psycopg.Connection[Any]]] = []
        self._late: list[Event] = []
        self._heard: set[str] = set()
        self._ahead_s = 0.0
        self._see_clock()
        self._listed_until = self.clock()

    # --- Time ----------------------------------------------------------------------------------------------------

    def clock(self) -> datetime:
        return datetime.fromtimestamp(time.time() + self._ahead_s, UTC)

    def go_to(self, moment: datetime) -> None:
        """The stand-in plays all that comes due on the way."""
        self.shop.go_to(int(moment.timestamp()))
        self._see_clock()

    def _see_clock(self) -> None:
        self._ahead_s = self.shop.now() - time.time()

    # --- What the provider tells ---------------------------------------------------------------------------------

    async def hear(self) -> None:
        """What arrives of all that was sent since last time: some of it twice, in any order, and some of it late."""
        arriving = self._arriving([event async for event in self._sent()])
        half = self.rng.randrange(len(arriving) + 1) if self.rng.random() < IN_TWO else 0
        for batch in (arriving[:half], arriving[half:]):
            if batch:
                await inbox.store(self.conn, batch, self.clock())
                await self.handle()

    def _arriving(self, sent: Sequence[Event]) -> list[Event]:
        silent = self.rng.random() < OUTAGE
        deaf = {name for name in dict.fromkeys(event.customer for event in sent) if self.rng.random() < SILENT}
        heard = [event for event in sent if not silent and event.customer not in deaf]
        late = {event.event_id for event in heard if self.rng.random() < LATE}
        arriving = [event for event in heard if event.event_id not in late] + self._late
        self._late = [event for event in heard if event.event_id in late]
        again = [event for event in arriving if self.rng.random() < TWICE]
        self.counted.update(
            {"events": len(sent), "never delivered": len(sent) - len(heard), "delivered twice": len(again)}
        )
        arriving += again
        self.rng.shuffle(arriving)
        return arriving

    async def _sent(self) -> AsyncIterator[Event]:
        since, self._listed_until = self._listed_until - timedelta(minutes=1), self.clock()
        after: str | None = None
        while True:
            page = await self.gateway.events(since, after)
            assert not isinstance(page, Unknown), page
            for event in page.events:
                if event.event_id not in self._heard:
                    self._heard.add(event.event_id)
                    yield event
            if (after := page.next) is None:
                return

    async def sweep(self) -> None:
        """Read the provider's own list for what was never delivered, and handle it."""
        assert await sweep(self.conn, self.gateway.events, self.clock()) is not None
        await self.handle()

    async def handle(self) -> None:
        """As interface/recovering.py does."""
        while entries := await inbox.take(self.conn, self.clock() + inbox.GATHER, MAX_ENTRIES):
            self.rng.shuffle(entries)
            verdicts = await asyncio.gather(*(self._verdicts(group) for group in _about(entries)))
            await inbox.give_back(self.conn, [one for group in verdicts for one in group], self.clock())

    async def _verdicts(self, group: Sequence[Entry]) -> list[tuple[Entry, Verdict]]:
        verdict = await self._inbox.handle(group)
        self.counted[f"groups of events {verdict.state}"] += 1
        return [(entry, verdict) for entry in group]

    async def unhandled(self) -> list[tuple[str, str, str]]:
        """What is still to be handled, or never could be."""
        cursor = await self.conn.execute("SELECT type, state, note FROM inbox WHERE state IN ('waiting', 'stuck')")
        return await cursor.fetchall()

    # --- What is ours --------------------------------------------------------------------------------------------

    def follow(self) -> None:
        """Bring the read models to the end of the log."""
        for engine, conn in self._engines:
            while engine.step(conn):
                pass

    def followed_by(self, engine: Engine, conn: psycopg.Connection[Any]) -> None:
        self._engines.append((engine, conn))

    async def settle(self) -> list[str]:
        """Bring to their ends the operations that are open; answer why some are not."""
        self.follow()
        cursor = await self.conn.execute("SELECT aggregate, payment, operation FROM open_operations ORDER BY position")
        left = [await self.billing.settle(*row) for row in await cursor.fetchall()]
        self.counted["operations settled"] += left.count(None)
        return [reason for reason in left if reason is not None]


def _about(entries: Iterable[Entry]) -> list[list[Entry]]:
    about: defaultdict[object, list[Entry]] = defaultdict(list)
    for entry in entries:
        about[entry.about].append(entry)
    return list(about.values())


async def at_once(call: Callable[[], T]) -> T:
    return call()


@asynccontextmanager
async def world(url: str, shop: Shop, seed: int) -> AsyncIterator[World]:
    """Over an empty, migrated database and a stand-in without anything in it."""
    async with AsyncExitStack() as stack:
        stack.enter_context(patch.multiple(HTTPClient, INITIAL_DELAY=0, MAX_DELAY=0))
        ledger = stack.enter_context(Ledger(url, Keys((KEY,), os.urandom)))
        conn = await stack.enter_async_context(await AsyncConnection.connect(url, autocommit=True))
        pool: AsyncConnectionPool[AsyncConnection[Any]] = AsyncConnectionPool(
            url, min_size=1, max_size=2, open=False, kwargs={"autocommit": True}
        )
        await stack.enter_async_context(pool)
        made = World(shop, ledger, conn, Known(pool), Random(seed))
        stack.push_async_callback(made.gateway.close)
        read = log_reader(ledger)
        for model in MODELS:
            following = stack.enter_context(psycopg.connect(url, autocommit=True))
            assert take_over(following, model.name)
            made.followed_by(Engine(model.projection(), read, url), following)
        yield made
