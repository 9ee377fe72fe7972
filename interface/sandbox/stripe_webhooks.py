"""Webhooks: every event is posted to one address, signed, until it is acknowledged, as Stripe does; or as told.

normal     each once, several at a time, in no promised order      duplicate  some of them two or three times
shuffle    gathered for a moment and sent in random order          drop       some of them never
hold       kept until the mode is another one

What was acknowledged is journaled now and then, so that after a kill what may not have arrived is sent again.
"""

import asyncio
import hashlib
import hmac
import random
import time
from collections.abc import Collection, Coroutine
from dataclasses import dataclass
from typing import Literal, get_args

import aiohttp
from msgspec import Struct
from msgspec.json import Decoder

from interface.sandbox.stripe_api import Api
from interface.sandbox.stripe_errors import Json
from interface.sandbox.stripe_faults import BadControlError, whole

Mode = Literal["normal", "duplicate", "shuffle", "drop", "hold"]

MAX_AT_ONCE = 8
TIMEOUT_S = 10.0
FIRST_WAIT_S = 0.2
LONGEST_WAIT_S = 5.0
# Some five minutes; Stripe tries for three days.
MAX_TRIES = 65
GATHER_S = 0.2
ACKNOWLEDGE_EVERY_S = 0.5
_FIELDS = ("mode", "percent", "seed")


class _Typed(Struct):
    type: str


_TYPED = Decoder(_Typed)


@dataclass(slots=True)
class Manner:
    """`percent` of the events are duplicated or dropped."""

    mode: Mode = "normal"
    percent: int = 100


class Courier:
    """Delivers what the API has pending. Lives in one event loop."""

    def __init__(self, api: Api, url: str, secret: str, enabled: Collection[str] = ()) -> None:
        """`enabled`: the types of events that the endpoint asked for; all of them when it names none."""
        self._api = api
        self._enabled = frozenset(enabled)
        self._url = url
        self._secret = secret.encode()
        self._manner = Manner()
        self._random = random.Random()  # noqa: S311 - which event is dropped is no secret
        self._changed = asyncio.Event()
        self._under_way: set[str] = set()
        self._acknowledged: list[str] = []
        self._counts = {"delivered": 0, "dropped": 0, "given_up": 0, "not_asked_for": 0}
        self._tasks: set[asyncio.Task[None]] = set()
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S))
        self._api.event_added = self._changed.set
        self._spawn(self._deliver())
        self._spawn(self._acknowledge())

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._journal_acknowledged()
        if self._session is not None:
            await self._session.close()

    # Control

    def behave(self, given: object) -> Json:
        """Raises BadControlError."""
        if not isinstance(given, dict):
            raise BadControlError("body", "a JSON object is needed")
        if unknown := set(given) - set(_FIELDS):
            raise BadControlError(str(min(unknown)), "unknown field")
        mode: Mode | None = next((word for word in get_args(Mode) if word == given.get("mode")), None)
        if mode is None:
            raise BadControlError("mode", f"one of {', '.join(get_args(Mode))} is needed")
        self._manner = Manner(mode, whole(given, "percent", 1, 100, 100))
        if "seed" in given:
            self._random.seed(whole(given, "seed", 0, 2**53, None))
        self._changed.set()
        return self.shown()

    def shown(self) -> Json:
        return {
            "mode": self._manner.mode,
            "percent": self._manner.percent,
            "pending": len(self._api.pending),
        } | self._counts

    # Delivery

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _deliver(self) -> None:
        at_once = asyncio.Semaphore(MAX_AT_ONCE)
        while True:
            self._changed.clear()
            held = self._manner.mode == "hold"
            waiting = [] if held else [wanted for wanted in self._api.pending if wanted not in self._under_way]
            if not waiting:
                await self._changed.wait()
                continue
            if self._manner.mode == "shuffle":
                await asyncio.sleep(GATHER_S)
                waiting = [wanted for wanted in self._api.pending if wanted not in self._under_way]
                self._random.shuffle(waiting)
            for wanted in waiting:
                await at_once.acquire()
                self._under_way.add(wanted)
                self._spawn(self._send(wanted, at_once))

    async def _send(self, wanted: str, at_once: asyncio.Semaphore) -> None:
        """Until it is acknowledged; while it waits for the next try, others are sent."""
        if self._enabled and _TYPED.decode(self._api.store.raw_one("event", wanted)).type not in self._enabled:
            at_once.release()
            self._end(wanted, "not_asked_for")
            return
        chosen = self._random.randrange(100) < self._manner.percent
        if self._manner.mode == "drop" and chosen:
            at_once.release()
            self._end(wanted, "dropped")
            return
        times = self._random.choice((2, 3)) if self._manner.mode == "duplicate" and chosen else 1
        try:
            for tried in range(MAX_TRIES):
                if tried:
                    at_once.release()
                    await asyncio.sleep(min(FIRST_WAIT_S * 2 ** min(tried, 10), LONGEST_WAIT_S))
                    await at_once.acquire()
                if all([await self._post(wanted) for _ in range(times)]):
                    self._end(wanted, "delivered")
                    return
            self._end(wanted, "given_up")
        finally:
            at_once.release()

    async def _post(self, wanted: str) -> bool:
        assert self._session is not None, "posted before start"  # noqa: S101
        body = self._api.store.raw_one("event", wanted)
        headers = {"Content-Type": "application/json; charset=utf-8", "Stripe-Signature": signature(body, self._secret)}
        try:
            async with self._session.post(self._url, data=body, headers=headers) as answer:
                return 200 <= answer.status < 300
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    def _end(self, wanted: str, how: str) -> None:
        self._counts[how] += 1
        self._under_way.discard(wanted)
        self._api.pending.pop(wanted, None)
        self._acknowledged.append(wanted)

    async def _acknowledge(self) -> None:
        while True:
            await asyncio.sleep(ACKNOWLEDGE_EVERY_S)
            self._journal_acknowledged()

    def _journal_acknowledged(self) -> None:
        if self._acknowledged:
            ended, self._acknowledged = self._acknowledged, []
            self._api.acknowledge(ended)


def signature(body: bytes, secret: bytes) -> str:
    """Stripe's scheme `v1`, over real time whatever the stand-in's clock says: the receiver has no other."""
    at = int(time.time())
    signed = hmac.digest(secret, b"%d.%b" % (at, body), hashlib.sha256).hex()
    return f"t={at},v1={signed}"
