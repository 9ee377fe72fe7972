"""What goes on beside the caller in a seeded fault run: recovery, the inbox and the sweep, one pass at a time.

Each pass is a process of its own that may be struck. They do what `interface/recovering.py` does, for one payment.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from random import Random
from typing import Any, NamedTuple
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import class_row

from application import inbox
from application.event_store import Ledger
from application.gateway import Unknown
from application.history import History
from application.inbox import Entry, Event, Verdict
from application.sweep import NAME, OVERLAP, sweep
from domain.payment import Phase
from tests.faults import AT_CALL, AT_LOAD, AT_LOOK, AT_STORE, Killed, Parts, Process, Provider, Strike

MAX_ENTRIES = 1_000
LOST, TWICE = 0.3, 3


@dataclass
class World:
    """What outlives every process: Stripe, the log, the inbox."""

    provider: Provider
    ledger: Ledger
    conn: AsyncConnection[Any]


class Kept(NamedTuple):
    type: str
    object_id: str
    state: str
    note: str


@dataclass
class Services:
    world: World
    stream: UUID
    parts: Parts
    since: datetime

    async def begin(self) -> None:
        """Nothing of an earlier run waits, and what happened before is not swept again."""
        await self.world.conn.execute("TRUNCATE inbox, sweeps")
        await self.world.conn.execute("INSERT INTO sweeps VALUES (%s, %s)", (NAME, self.since + OVERLAP))

    @property
    def history(self) -> History:
        return History.of(self.stream, self.world.ledger.load(self.stream))

    def process(self, strike: Strike | None = None) -> Process:
        return Process(self.world.provider, self.world.ledger, self.parts, strike)

    # --- One pass of each ----------------------------------------------------------------------------------------

    async def recover(self, strike: Strike | None = None) -> None:
        """Take up what was begun and has not ended."""
        for name in self.open_operations():
            async with self.process(strike) as process:
                try:
                    await process.recovery.settle(self.stream, name)
                except Killed:
                    return

    async def webhooks(self, chance: Random) -> None:
        """Some are lost, some come twice, and none in order."""
        async with self.process() as process:
            page = await process.gateway.events(self.since, None)
        assert not isinstance(page, Unknown)
        arrive = [event for event in page.events if event.payment in {None, self.stream} and chance.random() > LOST]
        arrive += chance.choices(arrive, k=TWICE) if arrive else []
        chance.shuffle(arrive)
        for event in arrive:
            await self._keep([event])
        await self.handle(another(chance))

    async def sweep(self) -> None:
        """Read Stripe's own list, and handle what is new in it."""
        async with self.process() as process:
            await sweep(self.world.conn, process.gateway.events, self.world.provider.clock())
        await self.handle()

    async def handle(self, strike: Strike | None = None) -> None:
        """Events of other runs' payments are none of ours."""
        now = self.world.provider.clock() + inbox.GATHER
        about: defaultdict[object, list[Entry]] = defaultdict(list)
        for entry in await inbox.take(self.world.conn, now, MAX_ENTRIES):
            about[entry.payment or entry.payment_intent].append(entry)
        for key, entries in about.items():
            verdict = Verdict("ignored")
            if not isinstance(key, UUID) or key == self.stream:
                async with self.process(strike) as process:
                    try:
                        verdict = await process.inbox.handle(entries)
                    except Killed:
                        return
            await inbox.give_back(self.world.conn, [(entry, verdict) for entry in entries], now)

    async def _keep(self, events: Sequence[Event]) -> None:
        named = [self.parts.event_as(event) for event in events]
        await inbox.store(self.world.conn, named, self.world.provider.clock())

    # --- What is left to do --------------------------------------------------------------------------------------

    def open_operations(self) -> list[str]:
        payment = self.history.payment
        return [name for name, one in payment.operations.items() if one.outcome == "open"] if payment else []

    async def idle(self) -> bool:
        """Nothing is open but what the cardholder has to do, and no event waits."""
        payment = self.history.payment
        waits_for_cardholder = payment is not None and payment.phase is Phase.ACTION_REQUIRED
        left = set(self.open_operations()) - ({payment.authorization} if payment and waits_for_cardholder else set())
        return not left and not [event for event in await self.kept() if event.state == "waiting"]

    async def kept(self) -> list[Kept]:
        """Every event about this payment, and what became of it."""
        async with self.world.conn.cursor(row_factory=class_row(Kept)) as cursor:
            await cursor.execute("SELECT type, object_id, state, note FROM inbox WHERE payment = %s", (self.stream,))
            return await cursor.fetchall()


def another(chance: Random) -> Strike | None:
    """Now and then recovery and the inbox are struck themselves."""
    if chance.random() > LOST:
        return None
    point = chance.choice(("load", "call", "look", "list", "search", "outcome"))
    faults = {"load": AT_LOAD, "call": AT_CALL, "outcome": AT_STORE}.get(point, AT_LOOK)
    return Strike(point, chance.choice(faults), chance.choice((1, 3)))
