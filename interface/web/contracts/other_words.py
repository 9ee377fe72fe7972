"""Problems (RFC 9457) told in the words of a contract: refusals are made for all contracts alike, before its routes."""

from collections.abc import Callable

from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPResponseStartEvent, Message, Receive, Scope, Send

from interface.web.problems import MEDIA_TYPE

_REPLACED = frozenset({b"content-type", b"content-length"})


def in_other_words(app: ASGIApp, concerned: Callable[[str], bool], worded: Callable[[bytes], bytes]) -> ASGIApp:
    """The application, whose problems about the paths concerned are worded as JSON; all else passes through."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP or not concerned(scope["path"]):
            await app(scope, receive, send)
            return
        start: HTTPResponseStartEvent | None = None
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
                    await _send(start, worded(bytes(body)), send)

        await app(scope, receive, heard)

    return serve


async def _send(start: HTTPResponseStartEvent, told: bytes, send: Send) -> None:
    kept = [(name, value) for name, value in start["headers"] if name.lower() not in _REPLACED]
    sized = [(b"content-type", b"application/json"), (b"content-length", str(len(told)).encode())]
    await send({"type": "http.response.start", "status": start["status"], "headers": [*kept, *sized]})
    await send({"type": "http.response.body", "body": told, "more_body": False})


def _is_problem(message: HTTPResponseStartEvent) -> bool:
    headers = message["headers"]
    return any(name.lower() == b"content-type" and value.startswith(MEDIA_TYPE.encode()) for name, value in headers)
