"""The API process: one event loop, served by uvicorn."""

import asyncio
import logging
import socket
import sys

import uvicorn
import uvloop

from application.gateway import GatewayMisconfigured
from interface.key_set import KeySetUnusable
from interface.services import Services
from interface.settings import Settings
from interface.web.app import create_app

log = logging.getLogger(__name__)

BACKLOG = 2_048
KEEP_ALIVE_S = 30
SHUTDOWN_S = 20
# Past this many requests at once the answer is 503: memory stays bounded.
MAX_CONCURRENT = 4_000


class _Server(uvicorn.Server):
    """Says when it listens: the supervisor waits for that line."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            print(f"ready {self.config.port}", flush=True)  # noqa: T201


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; then answer what is in flight and stop. Exits 1 if it could not start."""
    try:
        started = uvloop.run(_serve(settings))
    except (GatewayMisconfigured, KeySetUnusable, asyncio.CancelledError):
        started = False
    if not started:
        sys.exit(1)


async def _serve(settings: Settings) -> bool:
    config = uvicorn.Config(
        create_app(Services(settings)),
        host=settings.host,
        port=settings.port,
        http="httptools",
        ws="none",
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
