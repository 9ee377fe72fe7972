"""Stripe's own stripe-mock on this machine, built from the Go module that Stripe publishes."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from interface.sandbox.folder import free_port
from tests.peers.real_kafka import CACHE

VERSION = "v0.203.0"  # holds Stripe's OpenAPI of 2026-08-26
PROGRAM = CACHE / f"stripe-mock-{VERSION}"
INSTALL_LIMIT_S = 300
START_LIMIT_S = 60.0
LOOK_S = 0.05


def missing_tools() -> list[str]:
    """What this machine lacks to build it."""
    return [] if PROGRAM.exists() or shutil.which("go") else ["Go"]


def install() -> None:
    """Build it, unless that was done. Raises OSError or SubprocessError."""
    if PROGRAM.exists():
        return
    folder = CACHE / "go"
    build = ["go", "install", f"github.com/stripe/stripe-mock@{VERSION}"]
    subprocess.run(build, env=os.environ | {"GOBIN": str(folder)}, check=True, timeout=INSTALL_LIMIT_S)
    (folder / "stripe-mock").rename(PROGRAM)


@contextmanager
def running() -> Iterator[str]:
    """Its address. Raises TimeoutError when it does not answer."""
    address = f"127.0.0.1:{free_port()}"
    with subprocess.Popen([PROGRAM, "-http-addr", address], stdout=subprocess.DEVNULL) as process:
        try:
            _await(f"http://{address}/v1/balance")
            yield f"http://{address}"
        finally:
            process.terminate()


def _await(url: str) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline:
        try:
            httpx.get(url)
        except httpx.TransportError:
            time.sleep(LOOK_S)
        else:
            return
    raise TimeoutError("stripe-mock does not answer")
