"""Limits around every route: how large a request may be, and how often a caller may ask.

Callers are counted by their token's subject, else by their address. How long a body may be, the routes say themselves.
"""

import ipaddress
import logging
import re
from collections.abc import Sequence
from itertools import accumulate

import psycopg
from litestar.datastructures import Headers, MutableScopeHeaders
from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Message, Receive, ReceiveMessage, Scope, Send
from msgspec import json
from psycopg_pool import PoolTimeout, TooManyRequests

from interface.rate_limits import RateLimits, Standing
from interface.tokens import TokenRefused, Tokens
from interface.web.problems import MEDIA_TYPE, FieldError, Problem, ProblemError, problem

log = logging.getLogger(__name__)

# What stands before the body; the longest token has 4 KiB of it (interface/tokens.py).
MAX_URL_BYTES = 8 * 1024
MAX_HEADER_BYTES = 16 * 1024
MAX_HEADERS = 100
# Objects and lists in each other. Ours nest three deep, Stripe's events some ten.
MAX_NESTING = 64

# Who looks after the service, and the provider, are not callers; the schema is a document.
FREE = ("/health", "/ready", "/metrics", "/webhooks/", "/schema", "/return/", "/payments-gateway/api/webhooks/")
MAX_FORWARDED = 50

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# A string of JSON, closed or not: each byte is looked at once, whatever stands there.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_NO_STEPS = bytes(set(range(256)) - set(b"[{]}"))

# --- How large ---------------------------------------------------------------------------------------------------


class TooDeep(ProblemError, RecursionError):  # noqa: N818  it says what was found
    """The body nests deeper than any that is meant. To those who decode it themselves: what their decoder would say."""

    def __init__(self) -> None:
        said = f"the body must not nest deeper than {MAX_NESTING} levels"
        super().__init__(problem(400, "nested-too-deep", said, FieldError(said, pointer="#")))


def bounded(app: ASGIApp) -> ASGIApp:
    """The application behind limits on what stands before a body, and on how deep a body nests."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await app(scope, receive, send)
        elif (refused := _too_large(scope)) is not None:
            await refuse(refused, send)
        else:
            await app(scope, receive if scope["method"] == "GET" else _shallow(receive), send)

    return serve


def _too_large(scope: HTTPScope) -> Problem | None:
    if len(scope["raw_path"]) + len(scope["query_string"]) > MAX_URL_BYTES:
        return problem(414, "url-too-long", f"path and query must have at most {MAX_URL_BYTES} bytes")
    sizes = [len(name) + len(value) for name, value in scope["headers"]]
    if len(sizes) > MAX_HEADERS:
        return problem(431, "headers-too-large", f"there must be at most {MAX_HEADERS} headers")
    if sum(sizes) > MAX_HEADER_BYTES:
        return problem(431, "headers-too-large", f"all headers together must have at most {MAX_HEADER_BYTES} bytes")
    return None


def _shallow(receive: Receive) -> Receive:
    """What is received, the whole body looked at before its end is passed on. Raises TooDeep to whoever reads it."""
    parts: list[bytes] = []

    async def checked() -> ReceiveMessage:
        message = await receive()
        if message["type"] == "http.request":
            parts.append(message["body"])
            if not message["more_body"] and nests_too_deep(b"".join(parts)):
                raise TooDeep
        return message

    return checked


def nests_too_deep(body: bytes) -> bool:
    """Whether objects and lists stand in each other deeper than the limit. Most bodies hold too few of them anyway."""
    if body.count(b"{") + body.count(b"[") <= MAX_NESTING:
        return False
    steps = _STRING.sub(b"", body).translate(_STEPS, _NO_STEPS)
    return max(accumulate(memoryview(steps).cast("b")), default=0) > MAX_NESTING


# --- How often ---------------------------------------------------------------------------------------------------


def limited(app: ASGIApp, limits: RateLimits, tokens: Tokens, proxies: Sequence[Network]) -> ASGIApp:
    """The application behind its limits. Without limits it is the application itself."""
    if not limits.limits:
        return app

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP or scope["path"].startswith(FREE):
            await app(scope, receive, send)
            return
        try:
            standing = await limits.count(_caller(scope, tokens, proxies))
        except (psycopg.Error, PoolTimeout, TooManyRequests) as error:
            # Whatever the caller wants needs the same database, and will say so.
            log.warning("requests are not counted: %s", type(error).__name__)
            await app(scope, receive, send)
            return
        headers = _headers(standing)

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                shown = MutableScopeHeaders.from_message(message)
                for name, value in headers.items():
                    shown[name] = value
            await send(message)

        await (refuse(_used_up(standing), told) if standing.retry_after_s is not None else app(scope, receive, told))

    return serve


def _caller(scope: Scope, tokens: Tokens, proxies: Sequence[Network]) -> str:
    headers = Headers.from_scope(scope)
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        try:
            return f"subject {tokens.check(token.strip()).subject}"
        except TokenRefused:
            pass  # somebody who guesses tokens is counted by address
    client = scope.get("client")
    return f"address {address(client[0] if client else '', headers.getall('x-forwarded-for', []), proxies)}"


def address(peer: str, forwarded: Sequence[str], proxies: Sequence[Network]) -> str:
    """Whose request it is: the nearest address that is no proxy of ours. What stands before it anybody can write."""
    hops = [hop.strip() for line in forwarded for hop in line.split(",")][-MAX_FORWARDED:]
    while hops and _trusted(peer, proxies):
        peer = hops.pop()
    return peer


def _trusted(peer: str, proxies: Sequence[Network]) -> bool:
    try:
        found = ipaddress.ip_address(peer)
    except ValueError:
        return False
    return any(found in network for network in proxies)


def _headers(standing: Standing) -> dict[str, str]:
    headers = {
        "X-RateLimit-Limit": str(standing.limit),
        "X-RateLimit-Remaining": str(standing.remaining),
        "X-RateLimit-Reset": str(standing.reset),
    }
    return headers | ({"Retry-After": str(standing.retry_after_s)} if standing.retry_after_s is not None else {})


def _used_up(standing: Standing) -> Problem:
    said = f"more than {standing.limit} requests; the next is answered in {standing.retry_after_s} seconds"
    return problem(429, "too-many-requests", said)


async def refuse(refused: Problem, send: Send) -> None:
    """Answer with a problem document, before any route."""
    body = json.encode(refused)
    headers = [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
