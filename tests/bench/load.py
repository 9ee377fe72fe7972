"""HTTP load that costs little: keep-alive connections, each asking again as soon as it was answered."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from itertools import count
from typing import cast
from urllib.parse import urlsplit
from uuid import uuid4

import uvloop
from msgspec import Struct, field

PROBES_A_SECOND = 20
CONNECT_AT_ONCE = 50
ANSWER_S = 60
_END_OF_HEAD, _LENGTH = b"\r\n\r\n", b"content-length:"


class Question(Struct, frozen=True):
    """A request to be sent many times. With a body it is a POST, each time under a new Idempotency-Key."""

    url: str
    token: str
    body: bytes = b""
    content_type: str = "application/json"

    @property
    def head(self) -> bytes:
        """All of it but the key and the body."""
        place = urlsplit(self.url)
        lines = [
            f"{'POST' if self.body else 'GET'} {place.path} HTTP/1.1",
            f"Host: {place.netloc}",
            f"Authorization: Bearer {self.token}",
        ]
        if self.body:
            lines += [f"Content-Type: {self.content_type}", f"Content-Length: {len(self.body)}", "Idempotency-Key: "]
        return "\r\n".join(lines).encode()


class Load(Struct):
    """What was answered within the measured time. Times in ms; `cpu_s` is what asking cost by itself."""

    seconds: float
    cpu_s: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)
    times: list[float] = field(default_factory=list)
    probed: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return len(self.times) / self.seconds


def drive(
    questions: Sequence[Question], callers: int, seconds: float, ramp_s: float = 0.2, probe: Question | None = None
) -> Load:
    """Ask from so many callers at once, for so long after a ramp; every status counts, also those outside that time.

    `probe` is asked beside them now and then, and its times are kept apart.
    """
    return uvloop.run(_drive(questions, callers, seconds, ramp_s, probe))


def answers(questions: Sequence[Question]) -> list[bytes]:
    """Ask each once; the bodies. Raises AssertionError for what is not a success."""

    async def ask_all() -> list[bytes]:
        connection, bodies = await _connected(questions[0]), []
        for question in questions:
            status, body = await connection.ask(_request(question))
            assert 200 <= status < 300, f"{status}: {body.decode()}"
            bodies.append(body)
        connection.close()
        return bodies

    return uvloop.run(ask_all())


async def _drive(
    questions: Sequence[Question], callers: int, seconds: float, ramp_s: float, probe: Question | None
) -> Load:
    load, connections = Load(seconds), list[Connection]()
    while len(connections) < callers:
        some = min(CONNECT_AT_ONCE, callers - len(connections))
        connections += await asyncio.gather(*(_connected(questions[0]) for _ in range(some)))
    cpu, begin = time.process_time(), time.perf_counter() + ramp_s
    async with asyncio.timeout(ramp_s + seconds + ANSWER_S), asyncio.TaskGroup() as tasks:
        for connection in connections:
            tasks.create_task(_ask_until(connection, questions, load, begin))
        if probe:
            tasks.create_task(_probe_until(await _connected(probe), probe, load, begin))
    load.cpu_s = time.process_time() - cpu
    return load


async def _ask_until(connection: "Connection", questions: Sequence[Question], load: Load, begin: float) -> None:
    end = begin + load.seconds
    while (start := time.perf_counter()) < end:
        status, _ = await connection.ask(_request(random.choice(questions)))
        answered = time.perf_counter()
        load.statuses[status] += 1
        if not status:
            return  # the connection ended, and with it this caller
        if begin <= answered <= end:
            load.times.append((answered - start) * 1000)
    connection.close()


async def _probe_until(connection: "Connection", probe: Question, load: Load, begin: float) -> None:
    end = begin + load.seconds
    while (start := time.perf_counter()) < end:
        status, body = await connection.ask(_request(probe))
        assert status == 200, f"{status}: {body.decode()}"
        load.probed.append((time.perf_counter() - start) * 1000)
        await asyncio.sleep(1 / PROBES_A_SECOND)
    connection.close()


# --- One connection ----------------------------------------------------------------------------------------------

_run, _keys = uuid4().hex, count(1)


def _request(question: Question) -> bytes:
    if not question.body:
        return question.head + _END_OF_HEAD
    return b"%b%b-%d%b%b" % (question.head, _run.encode(), next(_keys), _END_OF_HEAD, question.body)


async def _connected(question: Question) -> "Connection":
    place = urlsplit(question.url)
    _, connection = await asyncio.get_running_loop().create_connection(
        Connection, place.hostname or "", place.port or 80
    )
    return connection


class Connection(asyncio.Protocol):
    """One question at a time; knows as much of HTTP/1.1 as our servers use."""

    def __init__(self) -> None:
        self._heard = bytearray()
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._transport: asyncio.Transport | None = None

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Status and body; status 0 when the connection ended instead."""
        self._answer = asyncio.get_running_loop().create_future()
        if self._transport is None or self._transport.is_closing():
            return 0, b""
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        if self._transport:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own is no subclass of it

    def connection_lost(self, _: Exception | None) -> None:
        self._settle(0, b"")

    def data_received(self, data: bytes) -> None:
        heard = self._heard
        heard += data
        head = heard.find(_END_OF_HEAD)
        if head < 0:
            return
        names = bytes(heard[:head]).lower()
        place = names.find(_LENGTH) + len(_LENGTH)
        whole = head + len(_END_OF_HEAD) + int(names[place:].split(b"\r\n", 1)[0])
        if len(heard) >= whole:
            body = bytes(heard[head + len(_END_OF_HEAD) : whole])
            del heard[:whole]
            self._settle(int(names[9:12]), body)

    def _settle(self, status: int, body: bytes) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((status, body))
