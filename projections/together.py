"""Many callers who each want one row, asked for in one query: a query costs the process more than a row does."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Generic, TypeVar

from psycopg_pool import TooManyRequests

K = TypeVar("K")
V = TypeVar("V")

MAX_TOGETHER = 500
# Whoever comes when so many wait is told at once to come back.
MAX_WAITING = 2_000


class Together(Generic[K, V]):
    """Finds rows by key. One query is under way at a time; who comes meanwhile waits for the next, as one.

    Nobody is given an answer to a query that was sent before they asked, so whoever has waited for a position sees
    what stands there. Lives in one event loop.
    """

    def __init__(self, ask: Callable[[Sequence[K]], Awaitable[Mapping[K, V]]]) -> None:
        self._ask = ask
        self._waiting: list[tuple[K, asyncio.Future[V | None]]] = []
        self._asking: asyncio.Task[None] | None = None

    async def find(self, key: K) -> V | None:
        """The row, or None. Raises what the query raised, and TooManyRequests when too many wait."""
        if len(self._waiting) >= MAX_WAITING:
            raise TooManyRequests(f"{MAX_WAITING} wait already")
        future: asyncio.Future[V | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((key, future))
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask_until_nobody_waits(), name="find together")
        return await future

    async def _ask_until_nobody_waits(self) -> None:
        try:
            while self._waiting:
                # From here on nobody joins those who are asked for.
                asked, self._waiting = self._waiting[:MAX_TOGETHER], self._waiting[MAX_TOGETHER:]
                await self._answer(asked)
        finally:
            self._asking = None

    async def _answer(self, asked: Sequence[tuple[K, asyncio.Future[V | None]]]) -> None:
        # Whoever has gone meanwhile is not asked for, and given nothing.
        wanted = dict.fromkeys(key for key, future in asked if not future.done())
        try:
            found = await self._ask(list(wanted)) if wanted else {}
        except Exception as error:  # noqa: BLE001  each hears of it, whatever it is
            for _, future in asked:
                if not future.done():
                    future.set_exception(error)
        except asyncio.CancelledError:
            for _, future in asked:
                future.cancel()
            raise
        else:
            for key, future in asked:
                if not future.done():
                    future.set_result(found.get(key))
