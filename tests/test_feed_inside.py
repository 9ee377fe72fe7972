"""The feed seen from inside its process: rows that cannot be read, silence, slow readers, limits and the end."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, cast
from uuid import uuid4

import httpx
import psycopg
import pytest
from litestar import Litestar
from litestar.di import Provide

from application.event_store import Ledger
from interface.bootstrap import clock
from interface.log_watch import LogWatch, before_stopping
from interface.services import Services
from interface.tokens import SCOPES, Tokens, Trust, mint
from interface.web import events as feed
from interface.web.facts import line
from interface.web.problems import HANDLERS
from tests.feed_readers import lines, positions
from tests.given import started
from tests.system import problem
from tests.test_event_store import append, envelopes

PATIENCE_S = 30.0
SECRET = "s" * 32
RAW = "INSERT INTO ledger_events (originator_id, originator_version, topic, state) VALUES (%s, %s, %s, %s)"


class Inside(Services):
    """As much of an API process as the feed needs."""

    def __init__(self, database_url: str, ledger: Ledger) -> None:
        self.log = LogWatch(database_url)
        self.ledger = ledger  # type: ignore[assignment]  # nothing is appended through it
        self.clock = clock
        self.app = Litestar(
            [feed.router],
            dependencies={"services": Provide(lambda: self, sync_to_thread=False)},
            exception_handlers=HANDLERS,
        )
        self.app.state.tokens = Tokens(Trust((SECRET,)), self.clock)

    async def get(self, path: str) -> httpx.Response:
        token = mint(SECRET, "cinema", SCOPES, self.clock(), timedelta(hours=1))
        transport = httpx.ASGITransport(self.app)  # type: ignore[arg-type]  # Litestar's types are narrower
        async with httpx.AsyncClient(transport=transport, base_url="http://feed") as http:
            return await http.get(path, headers={"Authorization": f"Bearer {token}"})

    def events(self, after: int = 0, until: timedelta = timedelta(hours=1)) -> AsyncIterator[bytes]:
        return feed.events(self, after, self.clock() + until)


@asynccontextmanager
async def inside(database_url: str, ledger: Ledger) -> AsyncIterator[Inside]:
    process = Inside(database_url, ledger)
    process.log.open()
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield process
    finally:
        await process.log.close()


def test_a_row_that_cannot_be_read_has_its_place_in_the_feed_and_holds_nobody_up(
    ledger: Ledger, database_url: str
) -> None:
    stream = uuid4()
    append(ledger)
    good = ledger.mapper.to_stored_event(envelopes(stream, started())[0]).state
    with psycopg.connect(database_url) as conn:
        for version, (name, state) in enumerate(
            (
                ("Teleported\n", good),
                ("Captured", b'{"fact": "4242"}'),
                ("Voided", b"\x00"),
                ("AuthorizationStarted", good),
            ),
            1,
        ):
            conn.execute(RAW, (stream, version, name, state))
    broken_chain = good.replace(b'"previous":"00', b'"previous":"zz')
    if broken_chain != good:
        with psycopg.connect(database_url) as conn:
            conn.execute(RAW, (stream, 5, "AuthorizationStarted", broken_chain))

    async def read() -> tuple[list[dict[str, Any]], bytes]:
        async with inside(database_url, ledger) as process:
            facts = lines(await process.get("/v1/events"))
            stream = process.events()
            await anext(stream)
            return facts, await anext(stream)

    facts, sent = asyncio.run(read())
    assert positions(facts) == list(range(1, len(facts) + 1))
    assert len(facts) >= 5
    unreadable = facts[1:4]
    assert [fact["type"] for fact in unreadable] == ["Teleported\n", "Captured", "Voided"]
    assert [(fact["stream"], fact["version"]) for fact in unreadable] == [(str(stream), n) for n in (1, 2, 3)]
    assert all(fact["data"].keys() == {"unreadable"} for fact in unreadable)
    assert "4242" not in json.dumps(unreadable)
    assert facts[4]["data"]["operation"] == "auth_1"
    assert sent.count(b"\n\n") == len(facts), "a name with a line break in it makes no event of its own"


def test_a_silent_stream_says_now_and_then_that_it_is_there(
    ledger: Ledger, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "HEARTBEAT_S", 0.01)

    async def read() -> list[bytes]:
        async with inside(database_url, ledger) as process:
            stream = process.events()
            return [await anext(stream) for _ in range(3)]

    first, *beats = asyncio.run(read())
    assert first == b"retry: 1000\n\n"
    assert all(beat.startswith(b":") and beat.endswith(b"\n\n") for beat in beats)


def test_a_stream_ends_when_the_token_of_its_reader_does(
    ledger: Ledger, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "HEARTBEAT_S", 0.01)

    async def read() -> list[bytes]:
        async with inside(database_url, ledger) as process:
            return [part async for part in process.events(until=timedelta(seconds=0.2))]

    assert asyncio.run(read())[0].startswith(b"retry")


def test_a_stream_wakes_when_a_writer_ahead_of_it_rolls_back_and_nobody_rings(
    ledger: Ledger, database_url: str
) -> None:
    async def read() -> bytes:
        async with inside(database_url, ledger) as process:
            stream = process.events()
            await anext(stream)
            with process.log.following(), psycopg.connect(database_url) as writer:
                writer.execute(RAW, (uuid4(), 1, "T", b"{}"))
                append(ledger)
                waiting = asyncio.ensure_future(anext(stream))
                while process.log.sight.drawn < 2:  # noqa: ASYNC110  the watch tells nobody that it has looked
                    await asyncio.sleep(0.01)
                assert not waiting.done()
                writer.rollback()
                return await waiting

    assert asyncio.run(read()).startswith(b"id: 2\n")


def test_streams_past_the_limit_are_told_to_come_back(
    ledger: Ledger, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "MAX_STREAMS", 1)

    async def refused() -> httpx.Response:
        async with inside(database_url, ledger) as process:
            with process.log.streaming():
                return await process.get("/v1/events/stream")

    answer = asyncio.run(refused())
    assert problem(answer, 503)["type"].endswith("too-many-streams")
    assert int(answer.headers["Retry-After"]) >= 1


def test_a_reader_that_takes_nothing_costs_one_batch_of_memory_and_is_cut_off(
    ledger: Ledger, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "MAX_SEND_S", 0.2)
    for _ in range(5):
        append(ledger, *([started()] * feed.STREAM_BATCH))
    rendered = 0
    render = line

    def counted(*args: Any) -> Any:
        nonlocal rendered
        rendered += 1
        return render(*args)

    monkeypatch.setattr(feed, "line", counted)
    ended: list[bool] = []

    async def stuck(message: Any) -> None:
        if b"id: " in message.get("body", b""):
            await asyncio.Event().wait()

    async def never() -> Any:
        await asyncio.Event().wait()

    async def serve() -> None:
        async with inside(database_url, ledger) as process:
            answer = feed.EventStream(
                feed.events(process, 0, process.clock() + timedelta(hours=1)), lambda: ended.append(True)
            )
            await answer(cast("Any", {"type": "http"}), never, stuck)

    asyncio.run(serve())
    assert (rendered, ended) == (feed.STREAM_BATCH, [True])


def test_who_follows_is_told_to_end_before_the_process_waits_for_them(ledger: Ledger, database_url: str) -> None:
    told: list[str] = []

    async def stopped() -> list[bytes]:
        async with inside(database_url, ledger) as process:
            before = signal.signal(signal.SIGTERM, lambda *_: told.append("the server"))
            try:
                with before_stopping(process.log.leave):
                    reading = asyncio.ensure_future(_all(process.events()))
                    os.kill(os.getpid(), signal.SIGTERM)
                    return await reading
            finally:
                told.append("restored" if signal.signal(signal.SIGTERM, before) is not before else "not restored")

    async def _all(stream: AsyncIterator[bytes]) -> list[bytes]:
        return [part async for part in stream]

    assert asyncio.run(stopped()) == [b"retry: 1000\n\n"]
    assert told == ["the server", "restored"]
