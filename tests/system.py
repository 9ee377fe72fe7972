"""The whole system as a user starts it, `payledger dev`, in a process of its own; and what tests ask of it."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import httpx
import psycopg
import pytest
from kafka import KafkaConsumer

from interface.bootstrap import clock
from interface.dev import TOKEN_LIFETIME, jwt_secret
from interface.tokens import SCOPES, mint
from tests.processes import eventually, runs

START_S = 90
HEAL_S = 60
# Longer than an operation is left to its own worker, and what one try of recovery may take.
SETTLE_S = 120
# Operations that are open, and facts that the read model of these has not seen yet.
UNSETTLED = """
SELECT (SELECT count(*) FROM open_operations WHERE NOT waiting), (SELECT count(*) FROM ledger_events WHERE
    notification_id > coalesce((SELECT position FROM checkpoints WHERE projection = 'open_operations'), 0))
"""
STOP_S = 30
ANSWER_S = 60.0
CONNECTIONS = 100
REAL_SERVICES = ("DATABASE_URL", "KAFKA_BOOTSTRAP_SERVERS", "STRIPE_API_KEY", "STRIPE_WEBHOOK_SECRET")
CHECKOUT = Path(__file__).parent.parent

VISA = {"amount": 100_99, "currency": "usd", "payment_method": "pm_card_visa", "capture": "manual"}


class System:
    """`payledger dev` on a free port and a data folder, which may be one of yesterday."""

    process: subprocess.Popen[bytes]
    http: httpx.Client
    _database: psycopg.Connection[tuple[Any, ...]] | None = None

    def __init__(self, data: Path, **settings: str) -> None:
        self.data = data
        self._settings = {"RATE_LIMIT": "off"} | settings
        self.output = data.parent / f"{data.name}.output"
        self._control = httpx.Client(timeout=ANSWER_S)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = int(probe.getsockname()[1])

    # Life

    def start(self) -> Self:
        """Run it until it says that it is ready; quote what it printed when it ends before."""
        self._handle.unlink(missing_ok=True)
        command = [sys.executable, "-m", "interface.cli", "dev", "--port", str(self.port), "--data", str(self.data)]
        environment = {name: value for name, value in os.environ.items() if name not in REAL_SERVICES}
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                cwd=CHECKOUT,
                env=environment | self._settings,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        eventually(self._has_started, START_S)
        self._connect()
        eventually(self.ready, START_S)
        return self

    def stop(self) -> int:
        """Ctrl-C. The exit code; afterwards none of the processes runs."""
        self.http.close()
        self._disconnect()
        children = self.pids
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(STOP_S)
        eventually(lambda: not any(map(runs, children.values())), STOP_S)
        return code

    def kill(self, name: str) -> None:
        """`kill -9` of one process, and wait until the supervisor has put another in its place."""
        before = self.pids[name]
        os.kill(before, signal.SIGKILL)
        eventually(lambda: self.pids.get(name, before) != before and self.ready(), HEAL_S)
        self._connect()

    def kill_everything(self) -> None:
        """`kill -9` of the supervisor and of every process it started."""
        children = self.pids
        self.process.kill()
        self.process.wait(STOP_S)
        for pid in children.values():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        eventually(lambda: not any(map(runs, children.values())), STOP_S)

    def ready(self) -> bool:
        try:
            return self.http.get("/ready").status_code == 200
        except httpx.TransportError:
            return False

    # Commands and queries

    def post(
        self, path: str, body: Any = None, *, key: str | None = None, token: str | None = None, **headers: str
    ) -> httpx.Response:
        """A command with an idempotency key of its own. `If_Match="…"` is the header If-Match."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        named["Idempotency-Key"] = key or f"key-{uuid.uuid4()}"
        if token is not None:
            named["Authorization"] = f"Bearer {token}"
        return self.http.post(path, json={} if body is None else body, headers=named)

    def pay(self, *, key: str | None = None, token: str | None = None, **fields: Any) -> httpx.Response:
        """`POST /v1/payments` of a hundred dollars held on a Visa card, with the fields that differ."""
        return self.post("/v1/payments", VISA | fields, key=key, token=token)

    def paid(self, **fields: Any) -> dict[str, Any]:
        """The payment that `pay` made, which is a new one."""
        return made(self.pay(**fields))

    def move(self, payment: dict[str, Any], operation: str, **body: Any) -> httpx.Response:
        """`captures`, `refunds` or `void` of a payment."""
        return self.post(f"/v1/payments/{payment['id']}/{operation}", body)

    def moved(self, payment: dict[str, Any], operation: str, **body: Any) -> dict[str, Any]:
        return made(self.move(payment, operation, **body))

    def get(self, path: str, **parameters: Any) -> httpx.Response:
        renamed = {name.rstrip("_"): value for name, value in parameters.items()}
        return self.http.get(path, params=renamed)

    def found(self, path: str, **parameters: Any) -> Any:
        answer = self.get(path, **parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def payment(self, payment_id: str, **parameters: Any) -> dict[str, Any]:
        """As the read model has it once it holds all that is in the log now, if nothing else is asked for."""
        found: dict[str, Any] = self.found(f"/v1/payments/{payment_id}", **{"after": self.end_of_log()} | parameters)
        return found

    def facts(self, payment_id: str) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = self.found(f"/v1/payments/{payment_id}/events")["events"]
        return events

    def history(self, payment_id: str) -> list[str]:
        """The words of a payment's facts, oldest first."""
        return [fact["type"] for fact in self.facts(payment_id)]

    def new_token(self, subject: str, *scopes: str) -> str:
        """What `payledger token` prints, without a process for it."""
        return mint(jwt_secret(self.data), subject, scopes or SCOPES, clock(), TOKEN_LIFETIME)

    # The other ends

    def state(self) -> dict[str, Any]:
        """Every object of the Stripe stand-in."""
        state: dict[str, Any] = self._control.get(f"{self.stripe}/_sandbox/state").json()
        return state

    def settled(self) -> bool:
        """Whether every operation that has started has ended, those aside that wait for a cardholder."""
        return self._row(UNSETTLED) == (0, 0)

    def amount_at_stripe(self, payment: dict[str, Any]) -> dict[str, int]:
        """What Stripe says about a payment's money, in the ledger's words and minor units."""
        state = self.state()
        [intent] = (i for i in state["payment_intents"] if i["id"] == payment["stripe"]["payment_intent"])
        charges = [charge for charge in state["charges"] if charge["payment_intent"] == intent["id"]]
        return {
            "amount": intent["amount"],
            "amount_capturable": intent["amount_capturable"],
            "amount_captured": intent["amount_received"],
            "amount_refunded": sum(charge["amount_refunded"] for charge in charges),
        }

    @contextmanager
    def fault(self, match: str, mode: str, **more: Any) -> Iterator[None]:
        """Let matching calls of Stripe's API go wrong for a while."""
        armed = self._control.post(f"{self.stripe}/_sandbox/faults", json={"match": match, "mode": mode, **more})
        assert armed.status_code == 200, armed.text
        try:
            yield
        finally:
            self._control.delete(f"{self.stripe}/_sandbox/faults")

    def facts_in_log(self) -> int:
        return int(self._row("SELECT count(*) FROM ledger_events")[0])

    def end_of_log(self) -> int:
        """The position of the last fact; there may be fewer, as what was not committed leaves a gap."""
        return int(self._row("SELECT coalesce(max(notification_id), 0) FROM ledger_events")[0])

    def consumer(self) -> Any:
        """A consumer of the public facts, from the first one on, as far as they are committed."""
        return KafkaConsumer(
            "payments",
            bootstrap_servers=self.kafka,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            isolation_level="read_committed",
        )

    def _row(self, query: str) -> tuple[Any, ...]:
        """What the database answers. A new connection costs as much as a payment, so one is kept while it works."""
        try:
            row = self._connected().execute(query).fetchone()
        except psycopg.OperationalError:
            self._disconnect()
            row = self._connected().execute(query).fetchone()
        assert row is not None
        return row

    def _connected(self) -> psycopg.Connection[tuple[Any, ...]]:
        if self._database is None:
            self._database = psycopg.connect(self.database_url, connect_timeout=5, autocommit=True)
        return self._database

    def _disconnect(self) -> None:
        if self._database is not None:
            self._database.close()
        self._database = None

    # The handle for tools

    @property
    def _handle(self) -> Path:
        return self.data / "dev.json"

    def _read(self) -> dict[str, Any]:
        read: dict[str, Any] = json.loads(self._handle.read_text())
        return read

    @property
    def pids(self) -> dict[str, int]:
        return dict(self._read()["pids"])

    def _has_started(self) -> bool:
        code = self.process.poll()
        assert code is None, f"it ended with {code}:\n{self.output.read_text()}"
        return self._handle.exists()

    def _connect(self) -> None:
        """Take the addresses from the handle: a process that was replaced may live elsewhere."""
        handle = self._read()
        self.url: str = handle["url"]
        self.token: str = handle["token"]
        self.stripe: str = handle["stripe"]
        self.kafka: str = handle["kafka"]
        self.database_url: str = handle["database_url"]
        if not hasattr(self, "http") or self.http.is_closed:
            self.http = httpx.Client(
                base_url=self.url, timeout=ANSWER_S, limits=httpx.Limits(max_connections=CONNECTIONS)
            )
        self.http.headers["Authorization"] = f"Bearer {self.token}"


def made(answer: httpx.Response) -> dict[str, Any]:
    """The payment in an answer that says a new thing was done."""
    assert answer.status_code == 201, f"{answer.status_code}: {answer.text}"
    payment: dict[str, Any] = answer.json()
    return payment


def position(answer: httpx.Response) -> int:
    return int(answer.headers["Ledger-Position"])


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The problem document of a refusal with this status."""
    assert answer.status_code == status, f"{answer.status_code}: {answer.text}"
    assert answer.headers["Content-Type"].split(";")[0] == "application/problem+json", answer.headers
    document: dict[str, Any] = answer.json()
    assert document["status"] == status
    assert document["title"]
    assert document["type"]
    return document


def named(document: dict[str, Any]) -> set[str]:
    """The pointers, parameters and headers that a problem document names."""
    entries = document.get("errors", [])
    assert all(entry["detail"] for entry in entries), document
    return {str(entry[kind]) for entry in entries for kind in ("pointer", "parameter", "header") if kind in entry}


@contextmanager
def running(**settings: str) -> Iterator[System]:
    """A system on a folder of its own that everybody may enter: PostgreSQL runs as another user when we are root."""
    with tempfile.TemporaryDirectory(prefix="payledger-system-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        system = System(Path(name) / "data", **settings)
        try:
            yield system.start()
        finally:
            if system.process.poll() is None:
                system.stop()


@pytest.fixture(scope="session")
def system() -> Iterator[System]:
    """One for all tests that break no process: each makes its own payments."""
    with running() as system:
        yield system
