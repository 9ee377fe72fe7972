"""The cinema's envelope around whatever is refused before or beside its routes: no token, too many requests, an outage.

Those refusals are made for all contracts alike, as problems (RFC 9457); here they are put in this contract's words.
"""

from collections.abc import Callable
from datetime import datetime

from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPResponseStartEvent, Message, Receive, Scope, Send
from msgspec import Struct, json

from interface.web.contracts.cinema_words import Details, Error, ErrorEnvelope
from interface.web.problems import MEDIA_TYPE

# Where its routes are. `PUT /payment`, without the slash, is the airline's.
PREFIX = "/payment/"
_RETRY = frozenset({429, 502, 503, 504})
_REPLACED = frozenset({b"content-type", b"content-length"})


class Told(Struct, frozen=True):
    """What is used of a problem."""

    type: str
    title: str
    status: int
    detail: str = ""


def in_its_words(app: ASGIApp, clock: Callable[[], datetime]) -> ASGIApp:
    """The application, whose problems under `/payment/` are told in the cinema's envelope; all else passes through."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP or not scope["path"].startswith(PREFIX):
            await app(scope, receive, send)
            return
        start: Message | None = None
        body = bytearray()

        async def heard(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start" and _is_problem(message):
                start = message
            elif start is None:
                await send(message)
            elif message["type"] == "http.response.body":
                body.extend(message["body"])
                if not message.get("more_body"):
                    await _send(start, bytes(body), send)

        await app(scope, receive, heard)

    async def _send(start: Message, body: bytes, send: Send) -> None:
        told = envelope(json.decode(body, type=Told), clock())
        assert start["type"] == "http.response.start"  # noqa: S101  kept because it is
        kept = [(name, value) for name, value in start["headers"] if name.lower() not in _REPLACED]
        sized = [(b"content-type", b"application/json"), (b"content-length", str(len(told)).encode())]
        await send({"type": "http.response.start", "status": start["status"], "headers": [*kept, *sized]})
        await send({"type": "http.response.body", "body": told, "more_body": False})

    return serve


def envelope(problem: Told, now: datetime) -> bytes:
    code = problem.type.rpartition(":")[2].upper().replace("-", "_")
    said = problem.detail or problem.title
    return json.encode(ErrorEnvelope(Error(code, said, Details(said, None, problem.status in _RETRY)), now))


def _is_problem(message: HTTPResponseStartEvent) -> bool:
    headers = message["headers"]
    return any(name.lower() == b"content-type" and value.startswith(MEDIA_TYPE.encode()) for name, value in headers)
