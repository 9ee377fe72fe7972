"""The Stripe stand-in: Stripe's HTTP API for the unmodified SDK, kept in a directory.

Run it with `python -m interface.sandbox.stripe --port 0 --data DIR`; it prints `ready PORT`. Always run it as a
module: started by its path, this file's folder would come first on the path and hide the `stripe` package.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import struct
import sys
from collections.abc import Collection
from email.utils import formatdate
from pathlib import Path

import uvloop
from aiohttp import web
from msgspec.json import encode

from interface.sandbox.alive import watch_parent
from interface.sandbox.stripe_api import Api, Incoming
from interface.sandbox.stripe_control import control
from interface.sandbox.stripe_errors import refused
from interface.sandbox.stripe_faults import Fault, fault_error
from interface.sandbox.stripe_ids import new_id
from interface.sandbox.stripe_webhooks import Courier

MAX_BODY_BYTES = 256 * 1024
API_VERSION = "2026-10-28.endive"

# What stands between a caller and Stripe answers so when it is out of order, and says 200 all the same.
_GARBAGE = "<html><body>Something went wrong.</body></html>"
_SHUTDOWN_S = 1.0
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER with no time: close sends RST


class StripeStandIn:
    """The stand-in as a part of another process: start it, stop it, start it again on the same directory."""

    def __init__(
        self,
        *,
        latency_ms: int = 0,
        release_as_refund: bool = False,
        webhooks: tuple[str, str, Collection[str]] | None = None,
    ) -> None:
        """`webhooks`: the address to post events to, the secret to sign them with, and which types (none: all)."""
        self._webhooks = webhooks
        self._courier: Courier | None = None
        self._latency_s = latency_ms / 1000
        self._release_as_refund = release_as_refund
        self._api: Api | None = None
        self._runner: web.ServerRunner | None = None

    async def start(self, host: str, port: int, data_dir: Path | str) -> int:
        """Listen; returns the port (a free one for 0)."""
        api = self._api = Api(Path(data_dir), release_as_refund=self._release_as_refund)
        self._runner = web.ServerRunner(web.Server(self._handle, access_log=None))
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port, shutdown_timeout=_SHUTDOWN_S)
        await site.start()
        bound: int = self._runner.addresses[0][1]
        api.own_url = f"http://{host}:{bound}"
        if self._webhooks is not None:
            self._courier = Courier(api, *self._webhooks)
            await self._courier.start()
        return bound

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
        if self._courier is not None:
            await self._courier.stop()
            self._courier = None
        if self._api is not None:
            self._api.close()
        self._api = self._runner = None

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        api = self._api
        assert api is not None, "a request before start"  # noqa: S101
        body = await request.read() if (request.content_length or 0) <= MAX_BODY_BYTES else None
        if body is None or len(body) > MAX_BODY_BYTES:
            too_large = refused(f"The request body is limited to {MAX_BODY_BYTES} bytes.")
            return _answer(api.now, 413, encode(too_large.body), new_id("req_"))
        path = request.path
        if path.startswith("/_sandbox/"):
            found = control(api, self._courier, request.method, path, body)
            headers = {} if found.location is None else {"Location": found.location}
            return web.Response(status=found.status, body=found.body, content_type=found.content_type, headers=headers)
        incoming = Incoming(request.method, path, request.rel_url.raw_query_string.encode(), body, request.headers)
        return await self._answer(api, request, incoming, api.faults.strike(request.method, path))

    async def _answer(
        self, api: Api, request: web.BaseRequest, incoming: Incoming, fault: Fault | None
    ) -> web.StreamResponse:
        slow = fault.delay_ms / 1000 if fault is not None and fault.mode == "slow" else 0.0
        if fault is not None and fault.mode in ("refused", "reset"):
            return _drop(request, reset=fault.mode == "reset")
        if fault is not None and fault.mode == "error" and fault.when == "before":
            return _answer(api.now, fault.status, encode(fault_error(fault).body), new_id("req_"))
        late = slow if fault is not None and fault.when == "after" else 0.0
        reply = await api.answer(incoming, self._latency_s + slow - late, fault)
        if fault is not None and fault.mode == "reply_lost":
            return _drop(request, reset=False)
        if fault is not None and fault.mode == "garbage":
            return web.Response(text=_GARBAGE, content_type="text/html")
        if late:
            await asyncio.sleep(late)
        return _answer(api.now, reply.status, reply.body, reply.request_id, incoming, replayed=reply.replayed)


def _answer(
    now: int, status: int, body: bytes, request_id: str, incoming: Incoming | None = None, *, replayed: bool = False
) -> web.Response:
    """`now` is by the stand-in's clock: an answer's `Date` and the times in it are told by one."""
    given = incoming.headers if incoming is not None else {}
    headers = {
        "Date": formatdate(now, usegmt=True),
        "Request-Id": request_id,
        "Stripe-Version": given.get("Stripe-Version", API_VERSION),
    }
    if key := given.get("Idempotency-Key"):
        headers["Idempotency-Key"] = key
    if replayed:
        headers["Idempotent-Replayed"] = "true"
    return web.Response(status=status, body=body, content_type="application/json", headers=headers)


def _drop(request: web.BaseRequest, *, reset: bool) -> web.Response:
    """Close the connection without an answer; the response returned here finds nobody to go to."""
    if (transport := request.transport) is not None:
        peer = transport.get_extra_info("socket")
        if reset and peer is not None:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        transport.abort()
    return web.Response(status=500)


# As a process


def main() -> None:
    """Serve until SIGTERM or SIGINT, or until `--alive-fd` reaches its end because the parent is gone."""
    args = _arguments()
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(_serve(args))


async def _serve(args: argparse.Namespace) -> None:
    done = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, done.set)
    watch_parent(args.alive_fd)
    events = [event for event in os.environ.get("STRIPE_WEBHOOK_EVENTS", "").split(",") if event]
    webhooks = (args.webhook_url, os.environ["STRIPE_WEBHOOK_SECRET"], events) if args.webhook_url else None
    stand_in = StripeStandIn(latency_ms=args.latency_ms, release_as_refund=args.release_as_refund, webhooks=webhooks)
    port = await stand_in.start("127.0.0.1", args.port, args.data)
    sys.stdout.write(f"ready {port}\n")
    sys.stdout.flush()
    await done.wait()
    await stand_in.stop()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m interface.sandbox.stripe", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one")
    parser.add_argument("--data", type=Path, required=True, help="directory of the journal")
    parser.add_argument("--alive-fd", type=int, help="stop when this file descriptor reaches its end")
    parser.add_argument("--latency-ms", type=int, default=0, help="added to every answer of the API")
    parser.add_argument(
        "--webhook-url",
        default=os.environ.get("STRIPE_WEBHOOK_URL"),
        help="post events there, signed with STRIPE_WEBHOOK_SECRET; STRIPE_WEBHOOK_EVENTS: only those",
    )
    parser.add_argument(
        "--release-as-refund",
        action="store_true",
        help="show a released reserve as Stripe does: a refund without balance transaction, and charge.refunded",
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
