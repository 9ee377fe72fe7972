"""Finds that wait while one is under way are asked for in one query; nobody gets an answer from before they asked."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from uuid import uuid4

import psycopg
import pytest
from psycopg_pool import TooManyRequests

from application.event_store import Ledger
from interface.migrations import migrate
from projections import payment_status, together
from projections.together import Together
from tests.read_side import ReadSide


class Query:
    """A table of one row a key, asked by hand: each query waits until it is let go, and sees the table as of then."""

    def __init__(self) -> None:
        self.rows: dict[str, int] = {}
        self.asked: list[list[str]] = []
        self.fails: Exception | None = None
        self._go_on = asyncio.Semaphore(0)

    async def __call__(self, keys: Sequence[str]) -> dict[str, int]:
        self.asked.append(list(keys))
        seen = dict(self.rows)
        await self._go_on.acquire()
        if self.fails:
            raise self.fails
        return {key: seen[key] for key in keys if key in seen}

    def answer(self) -> None:
        self._go_on.release()


async def turn() -> None:
    """Let everybody who can go on do so."""
    for _ in range(20):
        await asyncio.sleep(0)


def asking(scene: Callable[[Query, Together[str, int]], Awaitable[None]]) -> None:
    async def play() -> None:
        query = Query()
        async with asyncio.timeout(20):
            await scene(query, Together(query))

    asyncio.run(play())


def test_who_comes_while_one_is_under_way_waits_and_all_of_them_are_asked_for_as_one() -> None:
    async def scene(query: Query, rows: Together[str, int]) -> None:
        query.rows = {"a": 1, "b": 2}
        first = asyncio.create_task(rows.find("a"))
        await turn()
        assert query.asked == [["a"]], "asked at once when nothing is under way"
        others = [asyncio.create_task(rows.find(key)) for key in ("b", "nobody", "b")]
        await turn()
        assert query.asked == [["a"]]
        query.answer()
        assert await first == 1
        await turn()
        assert query.asked == [["a"], ["b", "nobody"]]
        query.answer()
        assert await asyncio.gather(*others) == [2, None, 2]
        last = asyncio.create_task(rows.find("a"))
        await turn()
        assert query.asked[2:] == [["a"]]
        query.answer()
        assert await last == 1

    asking(scene)


def test_nobody_is_given_what_was_asked_before_they_came() -> None:
    async def scene(query: Query, rows: Together[str, int]) -> None:
        query.rows = {"a": 1}
        early = asyncio.create_task(rows.find("a"))
        await turn()
        query.rows = {"a": 2}  # and somebody has waited until it was there
        late = asyncio.create_task(rows.find("a"))
        await turn()
        query.answer()
        assert await early == 1
        query.answer()
        assert await late == 2

    asking(scene)


def test_an_error_is_told_to_each_and_the_next_query_is_a_new_one() -> None:
    async def scene(query: Query, rows: Together[str, int]) -> None:
        query.rows, query.fails = {"a": 1}, psycopg.OperationalError("away")
        early = asyncio.create_task(rows.find("a"))
        await turn()
        late = [asyncio.create_task(rows.find("a")) for _ in range(2)]
        query.answer()
        query.answer()
        for error in await asyncio.gather(early, *late, return_exceptions=True):
            assert isinstance(error, psycopg.OperationalError)
        query.fails = None
        query.answer()
        assert await rows.find("a") == 1

    asking(scene)


def test_who_has_gone_is_not_asked_for_and_holds_nobody_up() -> None:
    async def scene(query: Query, rows: Together[str, int]) -> None:
        query.rows = {"a": 1, "b": 2}
        first = asyncio.create_task(rows.find("a"))
        await turn()
        gone, stays = asyncio.create_task(rows.find("c")), asyncio.create_task(rows.find("b"))
        await turn()
        gone.cancel()
        first.cancel()
        await turn()
        query.answer()
        query.answer()
        assert await stays == 2
        assert query.asked == [["a"], ["b"]]

    asking(scene)


def test_a_query_asks_for_so_many_and_so_many_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "MAX_TOGETHER", 2)
    monkeypatch.setattr(together, "MAX_WAITING", 5)

    async def scene(query: Query, rows: Together[str, int]) -> None:
        query.rows = dict.fromkeys("abcdef", 1)
        first = asyncio.create_task(rows.find("a"))
        await turn()
        others = [asyncio.create_task(rows.find(key)) for key in "bcdef"]
        await turn()
        with pytest.raises(TooManyRequests):
            await rows.find("g")
        for _ in range(4):
            query.answer()
        assert await asyncio.gather(first, *others) == [1] * 6
        assert query.asked == [["a"], ["b", "c"], ["d", "e"], ["f"]]

    asking(scene)


def test_the_payments_that_are_there_are_found_as_each_alone_is(database_url: str) -> None:
    migrate(database_url)
    with Ledger(database_url) as ledger, psycopg.connect(database_url, autocommit=True) as conn:
        side = ReadSide(database_url, ledger, conn)
        payments = [side.captured() for _ in range(3)]
        side.catch_up()

    async def ask() -> None:
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as conn:
            alone = [await payment_status.find(conn, payment) for payment in payments]
            found = await payment_status.find_all(conn, [uuid4(), *payments])
            assert [found[payment] for payment in payments] == alone
            assert found.keys() == set(payments)

    asyncio.run(ask())
