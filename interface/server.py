"""The API process: one event loop, served by uvicorn."""

import asyncio
import logging
import resource
import socket
import sys
from http import HTTPStatus

import uvicorn
import uvloop
from msgspec import json
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from application.gateway import GatewayMisconfigured
from interface.bootstrap import SERVING, collect_seldom
from interface.key_set import KeySetUnusable
from interface.services import Services
from interface.settings import Settings
from interface.tracing import TracesUnavailable, export_to
from interface.web.app import create_app
from interface.web.limits import MAX_HEADER_BYTES, MAX_URL_BYTES
from interface.web.problems import MEDIA_TYPE, problem

log = logging.getLogger(__name__)

BACKLOG = 2_048
KEEP_ALIVE_S = 30
SHUTDOWN_S = 20
# Past this many requests at once the answer is 503: memory stays bounded.
MAX_CONCURRENT = 4_000
# Of a request, beside its body, that is held before anybody has looked at it: its head, chunks' sizes, trailers.
MAX_FRAME_BYTES = 2 * (MAX_URL_BYTES + MAX_HEADER_BYTES)


class _Connection(HttpToolsProtocol):
    """Lets go of who sends a head, or anything else around a body, that does not end. The parser would keep it all."""

    _begun = False
    _body_bytes = 0
    _frame_bytes = 0

    def on_message_begin(self) -> None:
        self._begun, self._frame_bytes = True, 0
        super().on_message_begin()

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        super().on_body(body)

    def data_received(self, data: bytes) -> None:
        self._begun, self._body_bytes = False, 0
        super().data_received(data)
        if self._begun:  # whatever else it holds may belong to the request before
            return
        self._frame_bytes += len(data) - self._body_bytes
        if self._frame_bytes > MAX_FRAME_BYTES and not self.transport.is_closing():
            self.transport.write(_TOO_LARGE)
            self.transport.close()


def _too_large() -> bytes:
    body = json.encode(problem(431, "headers-too-large", f"what is no body must have at most {MAX_FRAME_BYTES} bytes"))
    head = [
        f"HTTP/1.1 431 {HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE.phrase}",
        f"content-type: {MEDIA_TYPE}",
        f"content-length: {len(body)}",
        "connection: close",
    ]
    return "\r\n".join([*head, "", ""]).encode() + body


_TOO_LARGE = _too_large()


class _Server(uvicorn.Server):
    """Says when it listens: the supervisor waits for that line."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            collect_seldom(SERVING)
            print(f"ready {self.config.port}", flush=True)  # noqa: T201


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; then answer what is in flight and stop. Exits 1 if it could not start."""
    _leave_no_dump()
    try:
        if settings.traces_endpoint:
            export_to(settings.traces_endpoint)
        started = uvloop.run(_serve(settings))
    except (GatewayMisconfigured, asyncio.CancelledError):
        started = False
    except KeySetUnusable as error:
        log.critical("JWT_JWKS names no key set to check tokens with: %s", error)
        started = False
    except TracesUnavailable as error:
        log.critical("%s", error)
        started = False
    if not started:
        sys.exit(1)


def _leave_no_dump() -> None:
    """In this process's memory stands what callers send, a card's number too; a dump would keep it."""
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    # Not zero: where dumps go to a program, Linux heeds this limit only when it is one byte (core(5), fs/coredump.c).
    resource.setrlimit(resource.RLIMIT_CORE, (1 if most else 0, most))


async def _serve(settings: Settings) -> bool:
    services = Services(settings)
    if services.keys is not None:  # before anything is opened: without keys nobody can be believed
        await services.keys.refresh()
    config = uvicorn.Config(
        create_app(services),
        host=settings.host,
        port=settings.port,
        http=_Connection,
        ws="none",
        proxy_headers=False,  # uvicorn would believe whoever is on this host; ours are the TRUSTED_PROXIES
        access_log=False,
        log_config=None,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=SHUTDOWN_S,
        limit_concurrency=MAX_CONCURRENT,
        server_header=False,
        date_header=False,
    )
    server = _Server(config)
    await server.serve()
    return server.started
