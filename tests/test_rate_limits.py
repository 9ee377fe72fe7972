"""How often a caller may ask: two windows that slide, shared by all processes, told in three headers."""

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
from litestar import Litestar, get
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from interface.migrations import migrate
from interface.rate_limits import Limit, RateLimits, Standing
from interface.tokens import SCOPES, Tokens, Trust, mint
from interface.web.limits import address, limited

SECRET = "a secret that is long enough to sign with"
MINUTE, TEN_SECONDS = Limit(5, 60), Limit(3, 10)
PROXIES = (ipaddress.ip_network("10.0.0.0/8"),)


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 11, 20, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


Use = Callable[[Any, Clock], Awaitable[None]]


@asynccontextmanager
async def pool_of(url: str) -> AsyncIterator[AsyncConnectionPool[AsyncConnection[Any]]]:
    pool: AsyncConnectionPool[AsyncConnection[Any]] = AsyncConnectionPool(
        url, min_size=1, max_size=8, timeout=5, kwargs={"autocommit": True}, open=False
    )
    async with pool:
        yield pool


def with_limits(url: str, use: Use, *limits: Limit) -> None:
    """Run with limits on a database, and a clock that only the test moves."""
    migrate(url)

    async def run() -> None:
        clock = Clock()
        async with pool_of(url) as pool:
            await use(RateLimits(limits or (MINUTE, TEN_SECONDS), pool, clock), clock)

    asyncio.run(run())


# --- Windows -----------------------------------------------------------------------------------------------------


def test_both_windows_hold_and_slide(database_url: str) -> None:
    async def use(limits: RateLimits, clock: Clock) -> None:
        granted = []
        for _ in range(9):
            granted.append((await limits.count("ada")).retry_after_s)
            clock.forward(2)
        # Three within ten seconds, then two more when the first have left that window, then the minute is full.
        assert granted == [None, None, None, 4, 2, None, None, 46, 44]
        clock.forward(42)
        assert (await limits.count("ada")).retry_after_s is None

    with_limits(database_url, use)


def test_a_request_that_is_refused_is_not_counted(database_url: str) -> None:
    async def use(limits: RateLimits, clock: Clock) -> None:
        for _ in range(3):
            await limits.count("ada")
        for _ in range(50):
            assert (await limits.count("ada")).retry_after_s == 10
        clock.forward(10)
        assert (await limits.count("ada")).retry_after_s is None

    with_limits(database_url, use)


def test_what_is_left_is_told_of_the_tightest_window(database_url: str) -> None:
    async def use(limits: RateLimits, clock: Clock) -> None:
        at = int(clock.now.timestamp())
        assert await limits.count("ada") == Standing(limit=3, remaining=2, reset=at + 10)
        assert await limits.count("ada") == Standing(limit=3, remaining=1, reset=at + 10)
        clock.forward(12)
        await limits.count("ada")
        clock.forward(12)
        await limits.count("ada")
        assert await limits.count("ada") == Standing(limit=5, remaining=0, reset=at + 60)

    with_limits(database_url, use)


def test_callers_do_not_share_and_processes_do(database_url: str) -> None:
    async def use(limits: RateLimits, clock: Clock) -> None:
        async with pool_of(database_url) as pool:
            other = RateLimits(limits.limits, pool, clock)
            for counting in (limits, other, limits):
                assert (await counting.count("ada")).retry_after_s is None
            assert (await other.count("ada")).retry_after_s == 10
            assert (await other.count("bob")).retry_after_s is None

    with_limits(database_url, use)


def test_of_many_requests_at_once_exactly_the_limit_is_granted(database_url: str) -> None:
    async def use(limits: RateLimits, _: Clock) -> None:
        answers = await asyncio.gather(*(limits.count("ada") for _ in range(50)))
        assert sum(answer.retry_after_s is None for answer in answers) == 20

    with_limits(database_url, use, Limit(100, 60), Limit(20, 10))


def test_quiet_callers_are_forgotten_and_nobody_is_named(database_url: str) -> None:
    async def use(limits: RateLimits, clock: Clock) -> None:
        await limits.count("subject ada")
        clock.forward(3_601)
        await limits.count("subject bob")
        await limits.forget()

    with_limits(database_url, use)
    with psycopg.connect(database_url) as conn:
        rows = conn.execute("SELECT caller FROM recent_requests").fetchall()
    assert len(rows) == 1
    assert "bob" not in str(rows)


# --- Around the application --------------------------------------------------------------------------------------


@get("/v1/thing")
async def thing() -> str:
    return "here"


@get("/health")
async def health() -> str:
    return "fine"


def around(limits: Any, clock: Clock) -> Litestar:
    app = Litestar([thing, health], logging_config=None)
    app.asgi_handler = limited(app.asgi_handler, limits, Tokens(Trust((SECRET,)), clock), PROXIES)
    return app


def asking(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://ledger")


def bearer(subject: str, clock: Clock) -> dict[str, str]:
    token = mint(SECRET, subject, SCOPES, clock(), timedelta(hours=1))
    return {"Authorization": f"Bearer {token}"}


def test_every_answer_tells_and_the_one_too_many_is_429(database_url: str) -> None:
    async def use(limits: RateLimits, clock: Clock) -> None:
        async with asking(around(limits, clock)) as client:
            ada = bearer(f"ada-{uuid4()}", clock)
            left = [(await client.get("/v1/thing", headers=ada)).headers["X-RateLimit-Remaining"] for _ in range(3)]
            assert left == ["2", "1", "0"]
            refused = await client.get("/v1/thing", headers=bearer("ada", clock) | ada)
            assert refused.status_code == 429
            assert refused.json()["type"].endswith("too-many-requests")
            assert refused.headers["Retry-After"] == "10"
            assert refused.headers["X-RateLimit-Limit"] == "3"
            assert int(refused.headers["X-RateLimit-Reset"]) == int(clock.now.timestamp()) + 10
            assert (await client.get("/v1/nothing", headers=bearer("bob", clock))).headers["X-RateLimit-Limit"] == "3"
            for _ in range(9):
                assert (await client.get("/health")).status_code == 200

    with_limits(database_url, use)


def test_who_has_no_token_or_guesses_one_is_counted_by_address(database_url: str) -> None:
    async def use(limits: RateLimits, clock: Clock) -> None:
        async with asking(around(limits, clock)) as client:
            for guess in ("Bearer x", "Bearer y", "Basic z"):
                assert (await client.get("/v1/thing", headers={"Authorization": guess})).status_code == 200
            assert (await client.get("/v1/thing")).status_code == 429

    with_limits(database_url, use)


def test_while_nobody_can_count_everybody_is_let_through() -> None:
    class Away:
        limits = (MINUTE,)

        async def count(self, caller: str) -> Standing:
            raise psycopg.OperationalError(caller)

    async def run() -> None:
        clock = Clock()
        async with asking(around(Away(), clock)) as client:
            assert (await client.get("/v1/thing", headers=bearer("ada", clock))).status_code == 200

    asyncio.run(run())


@pytest.mark.parametrize(
    ("peer", "forwarded", "whose"),
    [
        ("203.0.113.9", [], "203.0.113.9"),
        ("203.0.113.9", ["198.51.100.1"], "203.0.113.9"),
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["1.2.3.4, 198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["1.2.3.4", "198.51.100.1, 10.0.0.2"], "198.51.100.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("nonsense", ["1.2.3.4"], "nonsense"),
    ],
)
def test_an_address_is_believed_only_from_our_own_proxies(peer: str, forwarded: list[str], whose: str) -> None:
    assert address(peer, forwarded, PROXIES) == whose
