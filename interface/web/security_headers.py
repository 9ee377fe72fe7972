"""What a browser is told about every answer: do not guess its kind, do not keep it, and do only what the page needs."""

from collections.abc import Iterable

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

Headers = tuple[tuple[bytes, bytes], ...]

# The page that shows the OpenAPI document: one version of Scalar, loaded from where the framework has its readers. It
# styles its elements inline and talks to us alone.
READER_VERSION = "1.66.1"
READER_PATHS = frozenset({"/schema", "/schema/"})
_CDN = "https://cdn.jsdelivr.net"
_THEME = f"{_CDN}/gh/litestar-org/branding@main/"

_NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_PAGE = f"{_NOTHING}; style-src 'unsafe-inline'"
_READER = (
    f"{_NOTHING}; script-src {_CDN}/npm/@scalar/api-reference@{READER_VERSION}; style-src {_THEME} 'unsafe-inline'; "
    f"img-src 'self' data: {_THEME}; font-src https://fonts.scalar.com; connect-src 'self'"
)

ANSWER: Headers = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))


def guarded(app: ASGIApp) -> ASGIApp:
    """The application, its answers carrying these headers. What a route says of the same stands, except of a page."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await app(scope, receive, send)
            return
        path = scope["path"]

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = _with_ours(message["headers"], path)
            await send(message)

        await app(scope, receive, told)

    return serve


def _with_ours(given: Iterable[tuple[bytes, bytes]], path: str) -> list[tuple[bytes, bytes]]:
    own = dict(given)
    if own.get(b"content-type", b"").startswith(b"text/html"):
        ours = READER if path in READER_PATHS else PAGE
        return [*(header for header in given if header[0] not in _NAMES), *ours]
    return [*given, *(header for header in ANSWER if header[0] not in own)]


def _of_a_page(policy: str) -> Headers:
    framed = ((b"referrer-policy", b"no-referrer"), (b"x-frame-options", b"DENY"))
    return (*ANSWER, (b"content-security-policy", policy.encode()), *framed)


PAGE, READER = _of_a_page(_PAGE), _of_a_page(_READER)
_NAMES = frozenset(name for name, _ in PAGE)
