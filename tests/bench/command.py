"""One command: load a payment, decide, append. No HTTP, and a provider that says nothing."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import TypeVar
from uuid import UUID

from application.gateway import AnyInstruction, Unknown
from application.payment_stream import Context, PaymentStreams, RunBlocking
from application.payments import Payments
from application.settlement import Settlement
from domain.envelope import NO_PREVIOUS
from domain.payment_commands import Capture
from interface.bootstrap import clock
from tests.bench.bars import Bar, Limit, Series, interleaved
from tests.bench.lab import KEYS, TABLE, Lab, connect, open_ledger
from tests.bench.payments import Shop, written

T = TypeVar("T")

# --- Sizes -------------------------------------------------------------------------------------------------------

COMMANDS, QUICK_COMMANDS = 2_000, 150
ROUNDS, QUICK_ROUNDS = 7, 3

# --- Measure -----------------------------------------------------------------------------------------------------


def measure(lab: Lab) -> Iterator[Bar]:
    with lab.database() as url:
        rounds, commands = lab.size(ROUNDS, QUICK_ROUNDS), lab.size(COMMANDS, QUICK_COMMANDS)
        times = lab.elsewhere(_times, url, rounds, commands).result()
    told = ", ".join(f"{name} {series.median:.2f} ms" for name, series in times.items())
    yield Bar(
        what="load, decide, append one command: median",
        series=times["command"],
        unit="ms",
        limit=Limit("≤", 1, "ms"),
        told=told,
    )
    yield Bar(what="the same / a bare SELECT and one-row INSERT", series=times["command"].over(times["bare"]))
    yield Bar(what="the same, without the hand-over to a thread", series=times["inline"], unit="ms")


def _times(url: str, rounds: int, commands: int) -> dict[str, Series]:
    """Medians in ms. `command` runs its blocking calls in a thread as the service does, `inline` in place."""
    with ThreadPoolExecutor(1) as threads:

        def in_a_thread(call: Callable[[], T]) -> Awaitable[T]:
            return asyncio.get_running_loop().run_in_executor(threads, call)

        return interleaved(
            {
                "command": lambda: _commands(url, commands, in_a_thread),
                "inline": lambda: _commands(url, commands, _in_place),
                "bare": lambda: _bare(url, commands),
            },
            rounds,
        )


# --- A command ---------------------------------------------------------------------------------------------------


class Silence:
    """A provider whose answer is never heard, so that a command ends with the fact of what was wished."""

    async def perform(self, instruction: AnyInstruction) -> Unknown:
        del instruction
        return Unknown("silence")

    async def standing(self, payment: UUID, authorization: str, payment_intent: str | None) -> Unknown:
        del payment, authorization, payment_intent
        return Unknown("silence")

    async def payment_of(self, payment_intent: str) -> Unknown:
        del payment_intent
        return Unknown("silence")

    def unavailable_s(self) -> None:
        return None

    async def verify(self) -> None:
        pass


async def _in_place(call: Callable[[], T]) -> T:
    return call()


def _commands(url: str, commands: int, run: RunBlocking) -> float:
    """Capture payments that were authorized before, one after the other."""
    shop = Shop(time.time_ns())
    with open_ledger(url) as ledger:
        authorized = [shop.authorized() for _ in range(commands)]
        for payment in authorized:
            ledger.append(payment, NO_PREVIOUS)
        streams, silence = PaymentStreams(ledger, clock, run), Silence()
        payments = Payments(streams, Settlement(streams, silence, clock), silence, clock, KEYS.fingerprints)
        return asyncio.run(_captured(payments, [payment[0].stream for payment in authorized]))


async def _captured(payments: Payments, streams: Sequence[UUID]) -> float:
    context, times = Context("bench", "bench"), []
    for stream in streams:
        start = time.perf_counter()
        await payments.carry_out(stream, Capture(str(stream)), context)
        times.append(time.perf_counter() - start)
    return median(times) * 1000


# --- The least that a command must ask of the database -------------------------------------------------------------


def _bare(url: str, commands: int) -> float:
    shop, times = Shop(time.time_ns()), []
    with open_ledger(url) as ledger, connect(url) as conn:
        row, _ = written(ledger, shop.authorized())
        insert = f"INSERT INTO {TABLE} (originator_id, originator_version, topic, state) VALUES (%s, 1, %s, %s)"
        for _ in range(commands):
            values = (shop.uuid(), row.topic, row.state)
            start = time.perf_counter()
            conn.execute("SELECT 1", prepare=True).fetchone()
            conn.execute(insert.encode(), values, prepare=True)
            times.append(time.perf_counter() - start)
    return median(times) * 1000
