"""`OPTIONS` on the airline's three routes, as its front end expects it. The rest of CORS is the framework's."""

from litestar.datastructures import Headers
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

PATHS = ("/charge", "/capture", "/refund")
ANSWER = {
    "access-control-allow-headers": "Content-Type, Authorization, X-Api-Key",
    "access-control-allow-methods": "OPTIONS, POST",
    "access-control-max-age": "86400",
    "vary": "Origin",
}


def preflights(app: ASGIApp, origins: tuple[str, ...]) -> ASGIApp:
    """The application, and these answers before it: which pages may ask is told by the settings."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP or scope["method"] != "OPTIONS" or scope["path"] not in PATHS:
            await app(scope, receive, send)
            return
        origin = Headers.from_scope(scope).get("origin", "")
        allowed = "*" if "*" in origins else origin if origin in origins else None
        headers = ANSWER | ({"access-control-allow-origin": allowed} if allowed else {})
        encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": 204, "headers": encoded})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return serve
