"""Five simulated years of customers: each period is renewed or failed once, and each date is the calendar's.

What is guaranteed of attempts: of an invoice that fails its last one is known, and none is told twice. Of two between
which nobody looked the earlier is not heard of: Stripe shows only how often it has tried.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import patch

import pytest

from application import stripe_billing_outcomes
from domain.calendar import Period
from interface.migrations import migrate
from tests.billing_years import World, world
from tests.billing_years_oracle import differences
from tests.billing_years_people import People, persons
from tests.other_calendar import boundary
from tests.test_stripe_billing_standin import Shop
from tests.torture import SIZE, SIZES, tell

YEARS = 5
# A stand-in each: it lists all it has.
BATCHES, CUSTOMERS = (25, 40) if SIZE is SIZES["minutes"] else (1, 6)
# No part of a month, so that what happens within one is looked at from elsewhere each time.
STEP = timedelta(days=9)
# The provider's list reaches 30 days back.
SWEEP_EVERY = 3
# Longer in all than the hour in which a key is too old to be sent and what it was for is not yet over.
LAST_LOOKS = 4
DUNNING = (
    {"retry_days": [3, 5, 7], "then": "canceled", "invoice": "open"},
    {"retry_days": [1, 3, 5, 7], "then": "unpaid", "invoice": "uncollectible"},
    {"retry_days": [5, 9], "then": "past_due", "invoice": "open"},
    {"retry_days": [3, 5, 7], "then": "unpaid", "invoice": "open"},
)


async def live(made: World, customers: int, years: int, *, sweeps: bool = True) -> list[str]:
    """Play the years, the first of them a leap year. At the end of each, ours and the stand-in's are compared."""
    year = made.clock().year + 1
    year += -year % 4
    made.go_to(datetime(year, 1, 1, tzinfo=UTC))
    people = People(made, persons(made, customers, year))
    for number in range(years):
        made.shop.dunning(**DUNNING[number % len(DUNNING)])
        steps = 0
        while made.clock() < datetime(year + number + 1, 1, 1, tzinfo=UTC):
            await step(made, people)
            steps += 1
            if sweeps and steps % SWEEP_EVERY == 0:
                await made.sweep()
        if found := await compared(made, people, sweeps=sweeps):
            return [f"after year {number + 1}, {one}" for one in found]
    return []


async def step(made: World, people: People) -> None:
    """Some days pass; what they brought is heard of before or after what was cut short is settled."""
    until = made.clock() + STEP + timedelta(hours=made.rng.randrange(-12, 12))
    for person in people.persons:
        if person.stream is None and person.begins <= until:
            made.go_to(person.begins)
            await people.begin(person)
    made.go_to(until)
    if made.rng.random() < 0.5:
        await made.settle()
        await made.hear()
    else:
        await made.hear()
        await made.settle()
    await people.live_on()


async def compared(made: World, people: People, *, sweeps: bool) -> list[str]:
    """After what is open was settled, and what was never delivered was found."""
    left: list[str] = []
    for _ in range(LAST_LOOKS):
        made.go_to(made.clock() + timedelta(hours=1))
        left = await made.settle()
        if sweeps:
            await made.sweep()
    made.follow()
    found = [f"never settled: {reason}" for reason in left]
    found += [f"never handled: {entry}" for entry in await made.unhandled()]
    return found + await differences(made, people)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(tmp_path / "stripe")
    yield shop
    shop.kill()


@pytest.fixture(scope="module")
def tally() -> Iterator[Counter[str]]:
    tally = Counter[str]()
    yield tally
    tell(**tally)


@pytest.mark.parametrize("batch", range(BATCHES))
def test_five_years_are_told_here_as_they_were_there_and_as_the_calendar_has_them(
    database_url: str, shop: Shop, tally: Counter[str], batch: int
) -> None:
    migrate(database_url)

    async def run() -> tuple[list[str], Counter[str]]:
        async with world(database_url, shop, seed=batch) as made:
            return await live(made, CUSTOMERS, YEARS), made.counted

    found, counted = asyncio.run(run())
    tally.update(counted, customers=CUSTOMERS, years=CUSTOMERS * YEARS, differences=len(found))
    assert not found, "\n".join(found)
    happened = ("periods renewed", "attempts failed", "plans changed", "subscriptions ended", "operations settled")
    assert counted["refunds learned"] > 0
    assert min(counted[what] for what in happened) >= CUSTOMERS
    assert min(counted[what] for what in ("killed", "delivered twice", "never delivered", "done elsewhere")) > 0


def test_without_the_sweep_what_was_never_delivered_is_missed(database_url: str, shop: Shop) -> None:
    migrate(database_url)

    async def run() -> list[str]:
        async with world(database_url, shop, seed=1) as made:
            with patch("tests.billing_years.OUTAGE", 1):
                return await live(made, 3, 1, sweeps=False)

    assert any("renewed" in one for one in asyncio.run(run()))


def test_periods_that_forget_their_day_in_february_are_found(database_url: str, shop: Shop) -> None:
    migrate(database_url)
    paid_for = stripe_billing_outcomes.paid_for

    def forgetful(lines: list[object]) -> Period | None:
        told = paid_for(lines)  # type: ignore[arg-type]  # as it is called there
        if told is None or told.end.day <= 28:
            return told
        return Period(told.start, told.end.replace(day=28))

    async def run() -> list[str]:
        async with world(database_url, shop, seed=1) as made:
            with patch.object(stripe_billing_outcomes, "paid_for", forgetful):
                return await live(made, 4, 1)

    assert any("by the calendar" in one for one in asyncio.run(run()))


@pytest.mark.parametrize(
    ("anchor", "months", "expected"),
    [
        ("2027-01-31", 1, "2027-02-28"),
        ("2027-01-31", 2, "2027-03-31"),
        ("2028-01-31", 1, "2028-02-29"),
        ("2027-12-30", 2, "2028-02-29"),
        ("2028-02-29", 12, "2029-02-28"),
        ("2028-02-29", 48, "2032-02-29"),
        ("2028-10-31", 1, "2028-11-30"),
        ("2028-11-15", 3, "2029-02-15"),
    ],
)
def test_the_other_calendar_is_right(anchor: str, months: int, expected: str) -> None:
    at = {told: datetime.fromisoformat(f"{told}T23:59:59+00:00") for told in (anchor, expected)}
    assert boundary(at[anchor], months) == at[expected]
