"""A process of ours that something happens to, at a chosen await point: it is killed, or the store or Stripe fails.

The store is a real one, and Stripe is the stand-in over HTTP. What a killed process held in memory is thrown away;
what it had sent goes on by itself, as it would.
"""

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Self, TypeVar
from unittest.mock import patch
from uuid import UUID

import httpx
import stripe
from stripe._http_client import HTTPClient

from application.event_store import Ledger, StoreUnavailable
from application.gateway import Instruction
from application.history import History
from application.inbox import Event
from application.inbox_handling import Inbox
from application.payment_stream import Context, PaymentStreams
from application.payments import Payments
from application.recovery import Recovery
from application.settlement import Settlement
from application.stripe_gateway import StripeGateway
from domain.payment_facts import PaymentFact

T = TypeVar("T")

KEY = "sk_test_faults"
FINGERPRINTS = b"fingerprints".ljust(32)
# A call that is cut short is cut before Stripe carries it out; it does so a little later all the same.
SLOW_MS = 60
CUT_S = 0.03
# The SDK sends a request three times: a fault that strikes once is healed within the call.
ALL_TRIES = 3

AT_STORE = ("killed before", "killed after", "store away before", "store away after")
AT_STRIPE: dict[str, dict[str, Any]] = {
    "refused": {"mode": "refused"},
    "reset": {"mode": "reset"},
    "reply lost": {"mode": "reply_lost"},
    "500 before": {"mode": "error", "status": 500},
    "500 after": {"mode": "error", "status": 500, "when": "after"},
    "429": {"mode": "error", "status": 429},
    "timeout": {"mode": "slow", "delay_ms": SLOW_MS},
}
AT_CALL = ("killed before", "killed meanwhile", "killed after", *AT_STRIPE)
AT_LOAD = AT_STORE[:3]
# A question changes nothing, and its answer is not kept.
AT_LOOK = tuple(fault for fault in AT_CALL if fault not in {"killed meanwhile", "500 after"})


@contextmanager
def stand_in(*more: str) -> Iterator[str]:
    """A Stripe of its own, and where it is. The SDK's pauses between its tries are left out."""
    with (
        tempfile.TemporaryDirectory(prefix="payledger-stripe-") as folder,
        patch.multiple(HTTPClient, INITIAL_DELAY=0, MAX_DELAY=0),
        subprocess.Popen(
            [sys.executable, "-m", "interface.sandbox.stripe", "--data", folder, *more],
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().split()[1]}"
        finally:
            process.terminate()


class Killed(BaseException):
    """The process is no more."""


@dataclass(frozen=True)
class Strike:
    """`fault` at the first passing of `point`. `times`: how many of a call's tries it meets, when Stripe fails."""

    point: str
    fault: str
    times: int = ALL_TRIES


class Provider:
    """The stand-in, and the clock that we share with it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.http = httpx.Client(base_url=url, auth=(KEY, ""), timeout=30)
        at_stripe = datetime.fromtimestamp(self.http.get("/_sandbox/clock").json()["now"], UTC)
        self.ahead = max(timedelta(), at_stripe - datetime.now(UTC).replace(microsecond=0))
        self._sent: list[asyncio.Future[Any]] = []
        self._left: list[StripeGateway] = []
        self._slow_until_s = 0.0

    def clock(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    async def advance(self, by: timedelta) -> None:
        """Let time pass, after what is under way has arrived: nothing is on its way for a minute."""
        await self.quiet()
        self.http.post("/_sandbox/clock", json={"advance_s": int(by.total_seconds())}).raise_for_status()
        self.ahead += timedelta(seconds=int(by.total_seconds()))

    async def quiet(self) -> None:
        """Wait until Stripe has done whatever was sent to it, also by processes that are no more."""
        await asyncio.gather(*self._sent, return_exceptions=True)
        await asyncio.sleep(max(0.0, self._slow_until_s - asyncio.get_running_loop().time()))
        for gateway in self._left:
            await gateway.close()
        self._sent.clear()
        self._left.clear()

    def is_left(self, gateway: StripeGateway) -> None:
        """A process is gone; what it had sent goes on."""
        self._left.append(gateway)

    def goes_on(self, sent: asyncio.Future[Any]) -> None:
        self._sent.append(sent)

    def arm(self, match: str, fault: dict[str, Any], times: int) -> None:
        self.http.post("/_sandbox/faults", json={"match": match, "times": times, **fault}).raise_for_status()
        if fault["mode"] == "slow":
            self._slow_until_s = asyncio.get_running_loop().time() + 3 * SLOW_MS / 1000

    def clear(self) -> None:
        self.http.delete("/_sandbox/faults").raise_for_status()

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = self.http.get("/_sandbox/state").json()
        return found


@dataclass
class Points:
    """The await points of one process, in the order they were passed."""

    provider: Provider
    strike: Strike | None = None
    struck: bool = False
    passed: list[str] = field(default_factory=list)

    async def at(self, point: str, call: Callable[[], Awaitable[T]], match: str = "") -> T:
        self.passed.append(point)
        if self.strike is None or self.struck or point != self.strike.point:
            return await call()
        self.struck = True
        match self.strike.fault.split(" "):
            case ["killed", when]:
                return await self._killed(when, match, call)
            case ["store", "away", when]:
                if when == "after":
                    await call()
                raise StoreUnavailable
            case _:
                return await self._failing(match, self.strike, call)

    async def _killed(self, when: str, match: str, call: Callable[[], Awaitable[T]]) -> T:
        if when == "meanwhile":
            self.provider.arm(match, AT_STRIPE["timeout"], 1)
            sent = asyncio.ensure_future(call())
            self.provider.goes_on(sent)
            await asyncio.wait({sent}, timeout=CUT_S)
            self.provider.clear()
        elif when == "after":
            with suppress(Exception):
                await call()
        raise Killed

    async def _failing(self, match: str, strike: Strike, call: Callable[[], Awaitable[T]]) -> T:
        self.provider.arm(match, AT_STRIPE[strike.fault], strike.times)
        try:
            async with asyncio.timeout(CUT_S if strike.fault == "timeout" else None):
                return await call()
        finally:
            self.provider.clear()


class Streams(PaymentStreams):
    """A load, an intent and an outcome are points of their own."""

    def __init__(self, ledger: Ledger, points: Points) -> None:
        async def run(call: Callable[[], T]) -> T:
            return call()

        super().__init__(ledger, points.provider.clock, run)
        self.points = points

    async def load(self, stream: UUID) -> History:
        return await self.points.at("load", lambda: super(Streams, self).load(stream))

    async def append(
        self,
        history: History,
        facts: tuple[PaymentFact, ...],
        context: Context,
        operation: str | None = None,
        asked: str | None = None,
    ) -> History:
        point = "intent" if asked else "outcome"
        return await self.points.at(
            point, lambda: super(Streams, self).append(history, facts, context, operation, asked)
        )


class Gateway(StripeGateway):
    """Each request is a point of its own; a step before the one that moves money is called `method`."""

    def __init__(self, points: Points) -> None:
        super().__init__(KEY, points.provider.url)
        self.points = points

    async def _get(self, path: str, /, **params: object) -> stripe.StripeResponse:
        kind = "search" if path.endswith("search") else "list" if "/" not in path else "look"
        return await self.points.at(kind, lambda: super(Gateway, self)._get(path, **params), f"GET /v1/{path}")

    async def _post(self, path: str, params: Any, instruction: Instruction, step: str = "") -> stripe.StripeResponse:
        point = "method" if step else "call"
        return await self.points.at(
            point, lambda: super(Gateway, self)._post(path, params, instruction, step), f"POST /v1/{path}"
        )


@dataclass(frozen=True)
class Parts:
    """What a process is made of; a planted bug is another part. `event_as`: the name an event is kept under."""

    streams: type[Streams] = Streams
    gateway: type[Gateway] = Gateway
    settlement: type[Settlement] = Settlement
    event_as: Callable[[Event], Event] = lambda event: event


class Process:
    """Everything that a process holds in memory. Use it as a context: at its end it is gone."""

    def __init__(self, provider: Provider, ledger: Ledger, parts: Parts, strike: Strike | None = None) -> None:
        self.points = Points(provider, strike)
        self.gateway = parts.gateway(self.points)
        streams = parts.streams(ledger, self.points)
        settlement = parts.settlement(streams, self.gateway, provider.clock)
        self.payments = Payments(streams, settlement, self.gateway, provider.clock, (FINGERPRINTS,))
        self.recovery = Recovery(streams, settlement, provider.clock)
        self.inbox = Inbox(streams, settlement, self.gateway, provider.clock)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.points.provider.is_left(self.gateway)
