"""`/v1/events`: the whole log, in order and without a gap, a page at a time or as it grows."""

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import ExitStack
from datetime import datetime
from typing import Annotated, Any

from litestar import Request, Response, Router, get
from litestar.datastructures import State
from litestar.openapi import ResponseSpec
from litestar.openapi.spec import Example
from litestar.params import HeaderParameter, QueryParameter
from litestar.response.base import ASGIResponse
from litestar.response.streaming import ASGIStreamingResponse
from litestar.types import Message, Receive, Scope, Send
from msgspec import json

from application.event_store import StoreUnavailable
from interface.services import Services
from interface.tokens import Caller
from interface.web import documented
from interface.web.access import caller_of, needs
from interface.web.facts import Line, line
from interface.web.problems import FieldError, bad_request, unavailable
from interface.web.reading import check_request

log = logging.getLogger(__name__)

NDJSON = "application/x-ndjson"
EVENT_STREAM = "text/event-stream"
MAX_PAGE = 1_000
DEFAULT_PAGE = 100
MAX_WAIT_S = 30
# Of one process. Past the first, a long poll is answered at once; past the second, a stream is refused.
MAX_FOLLOWERS = 1_000
MAX_STREAMS = 200
# Read and sent at once, so that what a stream holds in memory is bounded, however slow its reader.
STREAM_BATCH = 100
HEARTBEAT_S = 15.0
# A reader that takes nothing for so long is cut off.
MAX_SEND_S = 60.0
RECONNECT_MS = 1_000
LARGEST_POSITION = 2**63 - 1

# --- A page of the log -------------------------------------------------------------------------------------------

_FACT: dict[str, Any] = {
    "position": 17,
    "id": "0b2f6a34-6a4b-5d8e-9a55-3a2f5e8a1c11.2",
    "type": "Voided",
    "stream": "0b2f6a34-6a4b-5d8e-9a55-3a2f5e8a1c11",
    "version": 4,
    "at": "2026-11-20T12:00:01Z",
    "actor": "cinema",
    "correlation_id": "checkout-7",
    "causation_id": "0b2f6a34-6a4b-5d8e-9a55-3a2f5e8a1c11.3",
    "data": {"operation": "5f0c", "amount": 10099, "currency": "usd", "evidence": "req_abc"},
}
_LINE = json.encode(_FACT).decode()


def _text(description: str, media_type: str, value: str) -> ResponseSpec:
    example = Example(summary=description, value=value)
    return ResponseSpec(
        str, generate_examples=False, description=description, media_type=media_type, examples=[example]
    )


_PAGE = documented.LIST | {200: _text("a fact a line", NDJSON, _LINE + "\n")}
_STREAM = documented.LIST | {
    200: _text("a fact an event", EVENT_STREAM, f"id: 17\nevent: Voided\ndata: {_LINE}\n\n"),
}

Http = Request[Caller, None, State]
Position = Annotated[
    int, QueryParameter(name="after", ge=0, le=LARGEST_POSITION, description="The last position you have.")
]
Page = Annotated[int, QueryParameter(name="limit", ge=1, le=MAX_PAGE, description="Facts at most.")]
Wait = Annotated[
    int, QueryParameter(name="wait", ge=0, le=MAX_WAIT_S, description="Wait up to so many seconds for a first fact.")
]
LastEventId = Annotated[
    str | None,
    HeaderParameter(name="Last-Event-ID", description="The `id` of the last event you have. Stands above `after`."),
]


@get("/", responses=_PAGE, guards=[needs("read:payment")], media_type=NDJSON)
async def page(services: Services, after: Position = 0, limit: Page = DEFAULT_PAGE, wait: Wait = 0) -> Response[bytes]:
    """Facts after a position, oldest first, one JSON object a line. `Ledger-Position` is what to ask after next.

    Positions may be missing (a writer drew one and did not commit), but none is ever filled in later. What somebody
    typed about somebody is left out. `data.unreadable` says that this version cannot read the fact, and why.
    """
    lines = await _lines(services, after, limit, wait)
    position = lines[-1].position if lines else after
    body = b"".join(given.json + b"\n" for given in lines)
    return Response(body, media_type=NDJSON, headers={"Ledger-Position": str(position), "Cache-Control": "no-store"})


async def _lines(services: Services, after: int, limit: int, wait_s: int) -> Sequence[Line]:
    watch = services.log
    with ExitStack() as stack:
        if wait_s and watch.followers < MAX_FOLLOWERS:
            stack.enter_context(watch.following())
        else:
            wait_s = 0
        deadline = asyncio.get_running_loop().time() + wait_s
        while True:
            change = watch.next_change()
            lines = await _read(services, after, limit)
            left_s = deadline - asyncio.get_running_loop().time()
            if lines or left_s <= 0 or watch.leaving or not await _happens(change, left_s):
                return lines


async def _read(services: Services, after: int, limit: int) -> list[Line]:
    return await services.log.read(after, limit, lambda row: line(row, services.ledger.envelope))


async def _happens(change: asyncio.Event, within_s: float) -> bool:
    try:
        async with asyncio.timeout(within_s):
            return await change.wait()
    except TimeoutError:
        return False


# --- The log as it grows -----------------------------------------------------------------------------------------

_NAME = re.compile(r"\w{1,100}", re.ASCII)


class EventStream(ASGIStreamingResponse):
    """A stream of events that ends when its reader does not take them. `ended` is called in any case."""

    def __init__(self, events: AsyncGenerator[bytes, None], ended: Callable[[], None]) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(iterator=events, media_type=EVENT_STREAM, headers=headers)
        self._events, self._ended = events, ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_soon(message: Message) -> None:
            async with asyncio.timeout(MAX_SEND_S):
                await send(message)

        try:
            await super().__call__(scope, receive, send_soon)
        except* TimeoutError:
            log.warning("the reader of a stream took nothing for %.0f seconds, and was cut off", MAX_SEND_S)
        finally:
            self._ended()


@get("/stream", responses=_STREAM, guards=[needs("read:payment")], media_type=EVENT_STREAM)
async def stream(
    request: Http, services: Services, after: Position = 0, last_event_id: LastEventId = None
) -> ASGIResponse:
    """Facts after a position and then each new one, as server-sent events: `id` is its position, `event` its type.

    A reader that comes back with `Last-Event-ID` misses nothing. A comment is sent when nothing else was for a while.
    """
    watch = services.log
    if watch.streams >= MAX_STREAMS:
        raise unavailable("too-many-streams", f"this process serves at most {MAX_STREAMS} streams at once")
    begin = after if last_event_id is None else _position(last_event_id)
    stack = ExitStack()
    stack.enter_context(watch.streaming())
    return EventStream(events(services, begin, caller_of(request).expires_at), stack.close)


def _position(event_id: str) -> int:
    if not re.fullmatch(r"[0-9]{1,19}", event_id) or int(event_id) > LARGEST_POSITION:
        raise bad_request(FieldError("must be the id of an event of this stream", header="Last-Event-ID"))
    return int(event_id)


async def events(services: Services, after: int, until: datetime) -> AsyncGenerator[bytes, None]:
    """Everything after a position, as it comes, until the caller's token expires, the store is away or we stop."""
    watch = services.log
    yield f"retry: {RECONNECT_MS}\n\n".encode()
    while not watch.leaving and services.clock() < until:
        change = watch.next_change()
        try:
            lines = await _read(services, after, STREAM_BATCH)
        except StoreUnavailable:
            return
        if lines:
            yield b"".join(map(_event, lines))
            after = lines[-1].position
        elif not await _happens(change, HEARTBEAT_S):
            yield b": still here\n\n"


def _event(given: Line) -> bytes:
    # A stored name that is none of ours could hold a line break: the line of JSON has it in full.
    name = given.type if _NAME.fullmatch(given.type) else "unreadable"
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (given.position, name.encode(), given.json)


router = Router("/v1/events", route_handlers=[page, stream], before_request=check_request, tags=["events"])
