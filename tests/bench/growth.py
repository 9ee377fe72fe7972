"""What an append, a query and a page of a list cost in a large ledger, over what they cost in a small one."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from statistics import median
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection

from domain.envelope import NO_PREVIOUS
from projections import payment_status
from projections.payment_status import Wanted
from tests.bench.bars import Bar, Limit, interleaved
from tests.bench.lab import TABLE, Lab, connect, one, open_ledger
from tests.bench.payments import CUSTOMERS, Shop, fill

# --- Sizes -------------------------------------------------------------------------------------------------------

SMALL, QUICK_SMALL = 50_000, 20_000
LARGE, QUICK_LARGE = 5_000_000, 200_000
ROUNDS, QUICK_ROUNDS = 15, 5
ASKED, QUICK_ASKED = 500, 150
PAGE = 21
SAMPLED = 4_000

# --- Measure -----------------------------------------------------------------------------------------------------


def measure(lab: Lab) -> Iterator[Bar]:
    with lab.database() as small, lab.database() as large:
        few = fill(lab, small, lab.size(SMALL, QUICK_SMALL), read_model=True)
        many = fill(lab, large, lab.size(LARGE, QUICK_LARGE), read_model=True)
        rounds, asked = lab.size(ROUNDS, QUICK_ROUNDS), lab.size(ASKED, QUICK_ASKED)
        for what, ask in QUESTIONS.items():
            for url in (small, large):
                ask(url, asked)
            times = interleaved({"few": partial(ask, small, asked), "many": partial(ask, large, asked)}, rounds)
            yield Bar(
                what=f"{what} with {many:,} facts / with {few:,}",
                series=times["many"].over(times["few"]),
                limit=Limit("≤", 1.25),
                told=f"{times['many'].median:.3f} ms, {times['few'].median:.3f} ms",
            )


# --- Questions: each answers the median in ms ------------------------------------------------------------------------


def _append(url: str, asked: int) -> float:
    shop, times = Shop(time.time_ns()), []
    with open_ledger(url) as ledger:
        for _ in range(asked):
            payment = shop.authorized()
            start = time.perf_counter()
            ledger.append(payment, NO_PREVIOUS)
            times.append(time.perf_counter() - start)
    return median(times) * 1000


def _query(url: str, asked: int) -> float:
    return asyncio.run(_timed(url, [partial(payment_status.find, payment=payment) for payment in _some(url, asked)]))


def _list(wanted: Callable[[], Wanted], url: str, asked: int) -> float:
    return asyncio.run(
        _timed(url, [partial(payment_status.newest, wanted=wanted(), limit=PAGE) for _ in range(asked // 5)])
    )


QUESTIONS: dict[str, Callable[[str, int], float]] = {
    "append": _append,
    "query of one payment": _query,
    "page of the list": partial(_list, Wanted),
    "page of a status": partial(_list, lambda: Wanted(status="refunded")),
    "page of a customer": partial(_list, lambda: Wanted(customer=f"customer-{random.randrange(CUSTOMERS)}")),
}


def _some(url: str, asked: int) -> list[UUID]:
    """Payments from anywhere in the log, found without warming the pages of the read model."""
    with connect(url) as conn:
        share = min(100.0, 100 * SAMPLED / one(conn, f"SELECT reltuples FROM pg_class WHERE oid = '{TABLE}'::regclass"))
        query = f"SELECT DISTINCT originator_id FROM {TABLE} TABLESAMPLE SYSTEM ({share})"
        found = [row[0] for row in conn.execute(query.encode()).fetchall()]
    return random.choices(found, k=asked)


async def _timed(url: str, questions: Sequence[Callable[[AsyncConnection[Any]], Awaitable[object]]]) -> float:
    times = []
    async with await AsyncConnection.connect(url, autocommit=True) as conn:
        for ask in questions:
            start = time.perf_counter()
            await ask(conn)
            times.append(time.perf_counter() - start)
    return median(times) * 1000
