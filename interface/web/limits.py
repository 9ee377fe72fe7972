"""Rate limits around every route that a caller may use: counted by the token's subject, else by the address."""

import ipaddress
import logging
from collections.abc import Sequence

import psycopg
from litestar.datastructures import Headers, MutableScopeHeaders
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from msgspec import json
from psycopg_pool import PoolTimeout, TooManyRequests

from interface.rate_limits import RateLimits, Standing
from interface.tokens import TokenRefused, Tokens
from interface.web.problems import MEDIA_TYPE, problem

log = logging.getLogger(__name__)

# Who looks after the service, and the provider, are not callers; the schema is a document.
FREE = ("/health", "/ready", "/metrics", "/webhooks/", "/schema", "/return/", "/payments-gateway/api/webhooks/")
MAX_FORWARDED = 50

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


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

        await (_refuse(standing, told) if standing.retry_after_s is not None else app(scope, receive, told))

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


async def _refuse(standing: Standing, send: Send) -> None:
    said = f"more than {standing.limit} requests; the next is answered in {standing.retry_after_s} seconds"
    body = json.encode(problem(429, "too-many-requests", said))
    headers = [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 429, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
