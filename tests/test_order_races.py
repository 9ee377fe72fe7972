"""An order is cancelled, paid twice and interrupted at every step: at the end its money is where it belongs.

In one process at a time every step is struck; several processes at once take their steps in many orders.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Literal, TypeVar

import pytest

from application.event_store import Ledger
from application.payments import KeyReused, payment_id
from application.settlement import Contended
from domain.errors import Refusal
from domain.payment_commands import Authorize, Capture
from interface.sandbox.postgres import Postgres
from tests.fake_gateway import Behaviour
from tests.order_side import ANN, PRICE, Process, Shop, log_of_orders

T = TypeVar("T")
When = Literal["before", "after"]
WHEN: tuple[When, ...] = ("before", "after")
SEEDS = 120
# Steps of one process, at most.
MOST_STEPS = 40


@pytest.fixture(scope="module")
def orders_log(postgres: Postgres) -> Iterator[Ledger]:
    with log_of_orders(postgres, "order_races") as ledger:
        yield ledger


class Killed(BaseException):
    """The process is no more."""


@dataclass
class Steps:
    """The gate of one process: at one step something happens elsewhere, at one it is killed."""

    at: int | None = None
    meanwhile: Callable[[], Awaitable[None]] | None = None
    kill_at: int | None = None
    when: When = "before"
    passed: int = 0

    async def gate(self, call: Callable[[], Awaitable[T]]) -> T:
        step, self.passed = self.passed, self.passed + 1
        if step == self.at and self.meanwhile is not None:
            await self.meanwhile()
        if step == self.kill_at and self.when == "before":
            raise Killed
        done = await call()
        if step == self.kill_at:
            raise Killed
        return done


async def announced(ledger: Ledger) -> Shop:
    shop = Shop(ledger)
    await shop.announce()
    return shop


async def paying(shop: Shop, process: Process, key: str) -> None:
    """On `/v1`, with a key that is claimed for it; whatever is refused is refused."""
    wish = Authorize("", PRICE, "automatic", "tok_visa", order=shop.order)
    with suppress(Refusal, KeyReused, Contended):
        await process.orders.authorize(wish, f"{key}-{shop.order}", ANN)


async def collecting(shop: Shop, process: Process, key: str) -> None:
    """Reserved by one call, collected by the next."""
    wish = Authorize("", PRICE, "manual", "tok_visa", order=shop.order)
    with suppress(Refusal, KeyReused, Contended):
        await process.orders.authorize(wish, f"{key}-{shop.order}", ANN)
        await process.orders.capture(shop.payment, Capture(f"capture-{key}"), ANN)


Wanted = Callable[[Shop, Process, str], Awaitable[None]]


def ended(shop: Shop, *words: str) -> None:
    asyncio.run(shop.finish())
    shop.check()
    assert set(words) <= set(shop.facts())


# --- One process at a time ---------------------------------------------------------------------------------------


def steps_of(ledger: Ledger, wanted: Wanted) -> int:
    async def count() -> int:
        shop, steps = await announced(ledger), Steps()
        await wanted(shop, Process(shop, steps.gate), "k1")
        return steps.passed

    return asyncio.run(count())


@pytest.mark.parametrize("wanted", [paying, collecting])
@pytest.mark.parametrize("away", ["answers", "reply lost", "never arrives"])
def test_a_cancellation_at_any_step_of_a_payment_ends_with_the_money_back(
    orders_log: Ledger, wanted: Wanted, away: str
) -> None:
    async def run(at: int) -> Shop:
        shop = await announced(orders_log)
        taking = Behaviour(answers=away != "reply lost", arrives=away != "never arrives")
        shop.provider.will(*([taking] if wanted is paying else [Behaviour(), taking]))
        await wanted(shop, Process(shop, Steps(at, shop.cancel).gate), "k1")
        if "OrderCancelled" not in shop.facts():
            await shop.cancel()
        return shop

    charged = 0
    for at in range(steps_of(orders_log, wanted) + 1):
        shop = asyncio.run(run(at))
        ended(shop, "OrderCancelled")
        charged += any(intent.received for intent in shop.intents)
    assert charged, "none of these races was one"


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("wanted", [paying, collecting])
def test_a_process_killed_at_any_step_beside_a_cancellation_leaves_no_money_behind(
    orders_log: Ledger, wanted: Wanted, when: When
) -> None:
    async def run(at: int, kill_at: int) -> Shop:
        shop = await announced(orders_log)
        with suppress(Killed):
            await wanted(shop, Process(shop, Steps(at, shop.cancel, kill_at, when).gate), "k1")
        if "OrderCancelled" not in shop.facts():
            await shop.cancel()
        return shop

    most = steps_of(orders_log, wanted)
    for at in range(most + 1):
        for kill_at in range(max(0, at - 1), most):
            ended(asyncio.run(run(at, kill_at)), "OrderCancelled")


@pytest.mark.parametrize("when", WHEN)
def test_a_payment_that_was_killed_at_any_step_is_finished_and_the_order_knows(orders_log: Ledger, when: When) -> None:
    async def run(kill_at: int) -> Shop:
        shop = await announced(orders_log)
        with suppress(Killed):
            await paying(shop, Process(shop, Steps(kill_at=kill_at, when=when).gate), "k1")
        return shop

    for kill_at in range(steps_of(orders_log, paying)):
        shop = asyncio.run(run(kill_at))
        asyncio.run(shop.finish())
        shop.check()
        begun = bool(shop.payment_facts())
        asyncio.run(paying(shop, shop.desk, "k1"))
        ended(shop, "OrderPaid")
        assert len(shop.intents) == 1, f"begun: {begun}"


@pytest.mark.parametrize("when", WHEN)
def test_whoever_gives_money_back_may_be_killed_at_any_step(orders_log: Ledger, when: When) -> None:
    async def run(kill_at: int) -> tuple[Shop, int]:
        shop, steps = await announced(orders_log), Steps(kill_at=kill_at, when=when)
        await paying(shop, shop.desk, "k1")
        await shop.cancel()
        with suppress(Killed):
            await Process(shop, steps.gate).returns.settle(shop.payment)
        return shop, steps.passed

    for kill_at in range(MOST_STEPS):
        shop, passed = asyncio.run(run(kill_at))
        ended(shop, "OrderCancelled")
        assert shop.payment_facts().count("Refunded") == 1
        if passed <= kill_at:
            return
    pytest.fail("it takes more steps than expected")


def test_an_order_that_is_announced_as_a_payment_names_it_is_not_paid_by_both(orders_log: Ledger) -> None:
    async def run(at: int) -> Shop:
        shop = Shop(orders_log)
        shop.alone.append(payment_id("ann", f"k1-{shop.order}"))

        async def announced_and_paid() -> None:
            await shop.announce()
            with suppress(Refusal):
                await shop.pay("k2")

        steps = Steps(at, announced_and_paid)
        await paying(shop, Process(shop, steps.gate), "k1")
        return shop

    paid_by = set()
    for at in range(MOST_STEPS):
        shop = asyncio.run(run(at))
        if not shop.facts():
            break
        asyncio.run(shop.finish())
        shop.check()
        paid_by.add("OrderPaid" in shop.facts())
    assert paid_by == {True, False}, "one came first and the other"


# --- Several at once ---------------------------------------------------------------------------------------------


@dataclass
class Turns:
    """Lets one process at a time take one step, in an order that chance tells."""

    chance: Random
    waiting: list[asyncio.Future[None]] = field(default_factory=list)

    async def gate(self, call: Callable[[], Awaitable[T]]) -> T:
        turn = asyncio.get_running_loop().create_future()
        self.waiting.append(turn)
        await turn
        return await call()

    async def run(self, *works: Awaitable[None]) -> None:
        tasks = [asyncio.ensure_future(work) for work in works]
        while left := [task for task in tasks if not task.done()]:
            if len(self.waiting) < len(left):
                await asyncio.sleep(0)
                continue
            self.waiting.pop(self.chance.randrange(len(self.waiting))).set_result(None)
        for task in tasks:
            task.result()


@pytest.mark.parametrize("cancelled", [True, False], ids=["cancelled meanwhile", "not cancelled"])
def test_however_clicks_cancellation_and_returns_interleave_an_order_is_paid_once_at_most(
    orders_log: Ledger, *, cancelled: bool
) -> None:
    async def run(seed: int) -> Shop:
        turns, shop = Turns(Random(seed)), await announced(orders_log)

        async def cancel() -> None:
            await turns.gate(shop.cancel)

        async def settle() -> None:
            process = Process(shop, turns.gate)
            for _ in range(3):
                await process.returns.settle(shop.payment)

        shop.provider.will(
            *turns.chance.choices((Behaviour(), Behaviour(declines=True), Behaviour(answers=False)), k=2)
        )
        clicks = [
            turns.chance.choice((paying, collecting))(shop, Process(shop, turns.gate), key)
            for key in turns.chance.choices(("k1", "k2", "k3"), k=3)
        ]
        await turns.run(*clicks, settle(), settle(), *([cancel()] if cancelled else []))
        return shop

    told: set[tuple[str, ...]] = set()
    for seed in range(SEEDS):
        shop = asyncio.run(run(seed))
        asyncio.run(shop.finish())
        shop.check()
        told.add(tuple(shop.payment_facts()))
    assert len(told) >= 5, "chance has made no races"
