"""The whole system as a user starts it, `payledger dev`, on the laboratory's PostgreSQL."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

from msgspec import Struct

from interface.migrations import migrate
from interface.sandbox.folder import free_port
from interface.sandbox.postgres import Postgres

START_S, STOP_S, LOOK_S = 60, 30, 0.05
STAND_INS = ("KAFKA_BOOTSTRAP_SERVERS", "STRIPE_API_KEY", "STRIPE_API_BASE", "STRIPE_WEBHOOK_SECRET")


class System(Struct, frozen=True):
    """Its addresses, a token for everything, and its processes by name, the database's among them."""

    url: str
    stripe: str
    token: str
    pids: dict[str, int]

    @contextmanager
    def slow_stripe(self, match: str, delay_ms: int) -> Iterator[None]:
        """Let the stand-in's answers to matching requests take that much longer."""
        faults = f"{self.stripe}/_sandbox/faults"
        _ask("POST", faults, {"match": match, "mode": "slow", "delay_ms": delay_ms, "times": 0})
        try:
            yield
        finally:
            _ask("DELETE", faults)


@contextmanager
def running(postgres: Postgres) -> Iterator[System]:
    migrate(postgres.url)
    with tempfile.TemporaryDirectory(prefix="payledger-bench-", ignore_cleanup_errors=True) as folder:
        data = Path(folder) / "data"
        command = [sys.executable, "-m", "interface.cli", "dev", "--port", str(free_port()), "--data", str(data)]
        env = {name: value for name, value in os.environ.items() if name not in STAND_INS}
        env |= {"DATABASE_URL": postgres.url, "RATE_LIMIT": "off"}
        with (Path(folder) / "output").open("w+") as output:
            process = subprocess.Popen(command, env=env, stdout=output, stderr=output)
            try:
                _wait(process, data / "dev.json")
                handle = json.loads((data / "dev.json").read_text())
                pids = handle["pids"] | {"postgres": postgres.pid}
                yield System(handle["url"], handle["stripe"], handle["token"], pids)
            finally:
                process.terminate()
                process.wait(STOP_S)


def _wait(process: subprocess.Popen[bytes], handle: Path) -> None:
    deadline = time.monotonic() + START_S
    while not (handle.exists() and _ready(json.loads(handle.read_text())["url"])):
        assert process.poll() is None, f"payledger dev ended with status {process.returncode}"
        assert time.monotonic() < deadline, "payledger dev is not ready in time"
        time.sleep(LOOK_S)


def _ready(url: str) -> bool:
    with suppress(URLError, OSError), urlopen(f"{url}/ready") as answer:
        return bool(answer.status == 200)
    return False


def _ask(method: str, url: str, body: Any = None) -> None:
    content = None if body is None else json.dumps(body).encode()
    with urlopen(Request(url, content, {"Content-Type": "application/json"}, method=method)) as answer:
        answer.read()
