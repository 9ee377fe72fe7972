"""What black-box tests of the callers' contracts share: a running system, its callers, and Stripe's side of it all."""

import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from itertools import count
from pathlib import Path
from threading import Barrier
from typing import Any, TypeVar

import httpx
import psycopg
import pytest
from kafka import KafkaConsumer

from tests.processes import eventually
from tests.system import ANSWER_S, CHECKOUT, CONNECTIONS, START_S, STOP_S, System, position

Fields = dict[str, Any]
S = TypeVar("S", bound="Service")

HEAL_S = 150  # the longest that recovery may leave an operation open
TELL_S = 15  # far more than an event takes to Kafka
POLL_MS = 500
HUNDRED = 100
TRAVELLER = {"description": "two seats to Lisbon", "email": "traveller@fly.example"}
VISA = "4111111111111111"
CARD = {
    "card_number": VISA,
    "expiry_month": 12,
    "expiry_year": 2040,
    "cvv": "123",
    "cardholder_name": "Ada Lovelace",
}
LIVE = ("requires_capture", "succeeded")  # an intent that holds or has moved money
# Given to `payledger dev`, so that other processes of the same deployment can be started beside it.
SECRETS = {
    "JWT_SECRET_KEY": secrets.token_hex(32),
    "ENCRYPTION_KEY": secrets.token_hex(32),
    "STRIPE_WEBHOOK_SECRET": f"whsec_{secrets.token_hex(16)}",
}
TABLES = """
SELECT format('%I.%I', table_schema, table_name) FROM information_schema.tables
WHERE table_type = 'BASE TABLE' AND table_schema NOT IN ('pg_catalog', 'information_schema')
"""

_amounts = count(20_000 + secrets.randbelow(10_000_000))
_bookings = count(1)


class Service(System):
    """The running system, with what a test needs to see both sides of a payment."""

    def caller(self, subject: str, *scopes: str) -> httpx.Client:
        """A client whose token is somebody else's, with these scopes only."""
        return httpx.Client(base_url=self.url, timeout=ANSWER_S, headers=bearer(self.new_token(subject, *scopes)))

    @contextmanager
    def fault(self, match: str, mode: str, **more: Any) -> Iterator[None]:
        """The same, and wait until the service has found out that Stripe answers again."""
        with super().fault(match, mode, **more):
            yield
        eventually(lambda: self.pay().status_code == 201, HEAL_S)

    # Stripe's side

    def at_stripe(self, path: str, **fields: str | int) -> Fields:
        """Ask Stripe directly, as a front end would with Stripe's own library."""
        headers = bearer("sk_test_front_end")
        return said(httpx.post(f"{self.stripe}{path}", data=fields, headers=headers, timeout=ANSWER_S))

    def new_card(self) -> str:
        """A payment method that nobody else knows."""
        return str(self.at_stripe("/v1/payment_methods", type="card", **{"card[token]": "tok_visa"})["id"])

    def preauthorised(self, minor: int, **fields: str) -> Fields:
        """A PaymentIntent in dollars that the front end has confirmed at Stripe; its money is not taken yet."""
        wanted = {"currency": "usd", "capture_method": "manual", "confirm": "true", "payment_method": self.new_card()}
        return self.at_stripe("/v1/payment_intents", amount=minor, **wanted | fields)

    def intents(self, minor: int, statuses: tuple[str, ...] = LIVE) -> list[Fields]:
        """The intents over this amount at Stripe that hold or have moved money."""
        every = self.state()["payment_intents"]
        return [intent for intent in every if intent["amount"] == minor and intent["status"] in statuses]

    def returned(self, minor: int) -> list[int]:
        """What went back of the payments over this amount, refund by refund."""
        state = self.state()
        charges = {charge["id"] for charge in state["charges"] if charge["amount"] == minor}
        return [refund["amount"] for refund in state["refunds"] if refund["charge"] in charges]

    # The ledger's side

    def in_ledger(self, needle: str, **parameters: int) -> list[Fields]:
        """Every payment on `/v1` that mentions this booking or Stripe object."""
        found: list[Fields] = []
        cursor: Fields | None = {}
        while cursor is not None:
            page = self.found("/v1/payments", limit=100, **parameters, **cursor)
            found += [payment for payment in page["payments"] if needle in json.dumps(payment)]
            cursor = {"cursor": page["next_cursor"]} if page["next_cursor"] else None
        return found

    def by_now_in_ledger(self, needle: str) -> list[Fields]:
        """The same, with everything that was done until now."""
        return self.in_ledger(needle, after=position(self.pay()))

    def the_payment(self, needle: str, status: str) -> Fields:
        """The one payment that mentions it, once it has this status."""
        eventually(lambda: [payment["status"] for payment in self.in_ledger(needle)] == [status], HEAL_S)
        [payment] = self.in_ledger(needle)
        return payment

    def settle(self) -> None:
        """Wait until every operation has ended and the read models know it."""
        eventually(self.settled, HEAL_S)
        self.by_now_in_ledger("")

    def measured(self, name: str) -> float:
        """The sum of a counter's samples on `/metrics`."""
        lines = self.get("/metrics").text.splitlines()
        mine = [line for line in lines if line.split("{")[0].split(" ")[0] in (name, f"{name}_total")]
        return sum(float(line.rpartition(" ")[2]) for line in mine)

    def kept(self, secret: str) -> list[str]:
        """The tables and outputs of the service in which a secret can be read."""
        found = []
        with psycopg.connect(self.database_url) as database:
            for (table,) in database.execute(TABLES).fetchall():
                rows = database.execute(f"SELECT r::text FROM {table} r").fetchall()
                found += [table] if any(_reads(secret, row) for (row,) in rows) else []
        outputs = {"log": self.output.read_text(), "metrics": self.get("/metrics").text}
        return found + [name for name, text in outputs.items() if secret in text]

    def told(self, booking: str, last: str, times: int = 1) -> list[tuple[Any, Fields]]:
        """The cinema's events of a booking, each as record and body, up to those of the type `last`."""
        told: list[tuple[Any, Fields]] = []
        consumer = KafkaConsumer(
            "movie_app_events", bootstrap_servers=self.kafka, auto_offset_reset="earliest", enable_auto_commit=False
        )

        def has_come() -> bool:
            for records in consumer.poll(timeout_ms=POLL_MS).values():
                told.extend((record, json.loads(record.value, parse_float=Decimal)) for record in records)
            return [(body["booking_id"], body["event_type"]) for _, body in told].count((booking, last)) >= times

        try:
            eventually(has_come, TELL_S)
        finally:
            consumer.close()
        return [(record, body) for record, body in told if body["booking_id"] == booking]


class Airline(Service):
    """The airline's front end and booking workflow."""

    def put(self, token: str, minor: int, **fields: object) -> httpx.Response:
        """`PUT /payment` of so many cents, in dollars as the front end writes them."""
        return self.http.put("/payment", content=wanted(token, minor, **fields))

    def charge(self, token: str, minor: int, **fields: object) -> httpx.Response:
        body = TRAVELLER | {"stripeToken": token, "amount": minor, "currency": "usd"} | fields
        return self.http.post("/charge", json=body)

    def capture(self, charge_id: str) -> httpx.Response:
        return self.http.post("/capture", json={"chargeId": charge_id})

    def refund(self, charge_id: str) -> httpx.Response:
        return self.http.post("/refund", json={"chargeId": charge_id})

    def charged(self, minor: int) -> str:
        """The id of a new charge that holds this amount."""
        return str(said(self.charge("tok_visa", minor))["createdCharge"]["id"])

    def captured(self, minor: int) -> str:
        """The id of a new charge whose money was taken."""
        charge_id = self.charged(minor)
        said(self.capture(charge_id))
        return charge_id


def wanted(token: str, minor: int, **fields: object) -> str:
    """The body of a `PUT /payment`."""
    return written(TRAVELLER | {"stripeToken": token, "amount": major(minor), "currency": "USD"} | fields)


class Cinema(Service):
    """The cinema's booking service."""

    def book(self, booking: str, minor: int, card_number: str | None = VISA, **fields: object) -> httpx.Response:
        """`POST /payment/process` of so many cents with this card, or none, and the fields that differ."""
        return self.http.post("/payment/process", content=booking_of(booking, minor, card_number, **fields))

    def sold(self, minor: int) -> Fields:
        """The answer that says that a new booking is paid."""
        return said(self.book(new_booking(), minor))

    def wish(self, paid: Fields, minor: int) -> Fields:
        """The body of a `POST /payment/refund` of so many cents of what was paid."""
        names = {"booking_id": paid["booking_id"], "original_transaction_id": paid["transaction_id"]}
        return names | {"refund_amount": major(minor), "reason": "the show was cancelled", "user_id": "ada"}

    def refund(self, paid: Fields, minor: int, **fields: object) -> httpx.Response:
        return self.http.post("/payment/refund", content=written(self.wish(paid, minor) | fields))

    def status(self, transaction_id: str) -> Fields:
        return said(self.get(f"/payment/status/{transaction_id}"))

    def answer_hasty(self, limit: int) -> list[httpx.Response]:
        """The answers to one request more than a minute allows, when it allows so many."""
        with another_api(self, RATE_LIMIT_PER_MINUTE=str(limit)) as server:
            server.headers.update(bearer(self.new_token(f"hasty-{limit}")))
            return [server.get("/payment/methods") for _ in range(limit + 1)]


def booking_of(booking: str, minor: int, card_number: str | None = VISA, **fields: object) -> str:
    """The body of a `POST /payment/process`."""
    card = {} if card_number is None else {"card_details": CARD | {"card_number": card_number}}
    names = {"user_id": "ada", "booking_id": booking, "payment_method": "credit_card"}
    return written(names | {"amount": major(minor)} | card | fields)


def new_booking() -> str:
    return f"booking-{os.getpid()}-{next(_bookings)}"


# Requests and answers, without a float between the test and the money


def major(minor: int) -> Decimal:
    """Cents as dollars: `100.99`."""
    return Decimal(minor).scaleb(-2)


def unique_minor() -> int:
    """An amount that no other test uses, so that its movements are found at Stripe whoever made them."""
    return next(_amounts)


def written(fields: Fields) -> str:
    """JSON, in which a Decimal is a number with the same digits."""
    numbers: list[Decimal] = []

    def place(number: Decimal) -> str:
        numbers.append(number)
        return f"number {len(numbers) - 1} of this body"

    text = json.dumps(fields, default=place)
    for index, number in enumerate(numbers):
        text = text.replace(f'"number {index} of this body"', str(number))
    return text


def said(answer: httpx.Response, status: int = 200) -> Fields:
    """The body of an answer with this status; its fractions are Decimals."""
    assert answer.status_code == status, f"{answer.status_code}: {answer.text}"
    body: Fields = json.loads(answer.text, parse_float=Decimal)
    return body


def agreed(answers: list[httpx.Response], *others: int) -> list[Fields]:
    """What the successful answers say; each other one has one of these statuses. 202 and 409: ask again later."""
    for answer in answers:
        assert answer.status_code in (200, 202, 409, *others), f"{answer.status_code}: {answer.text}"
    return [said(answer) for answer in answers if answer.status_code == 200]


def refused(answer: httpx.Response) -> None:
    """The request was at fault, and its caller is told so."""
    assert 400 <= answer.status_code < 500, f"{answer.status_code}: {answer.text}"


def failure(answer: httpx.Response) -> str:
    """The code of a payment at the cinema that failed."""
    body = said(answer, 400)
    fields = {"status", "booking_id", "amount", "payment_method", "error_code", "error_message", "processed_at"}
    assert (set(body), body["status"], bool(body["error_message"])) == (fields, "failed", True)
    moment(body["processed_at"])
    return str(body["error_code"])


def error(answer: httpx.Response, status: int) -> Fields:
    """What the cinema's error envelope holds."""
    body = said(answer, status)
    assert set(body) == {"error", "timestamp"}, body
    moment(body["timestamp"])
    inside: Fields = body["error"]
    assert set(inside) == {"code", "message", "details"}
    assert set(inside["details"]) == {"reason", "transaction_id", "retry_possible"}
    assert isinstance(inside["details"]["retry_possible"], bool)
    assert inside["message"]
    return inside


def moment(text: str) -> datetime:
    """The time in a field, which must say its offset."""
    read = datetime.fromisoformat(text)
    assert read.tzinfo is not None, text
    return read


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def together(calls: Sequence[Callable[[], httpx.Response]]) -> list[httpx.Response]:
    """The answers to calls that are made at the same moment."""
    assert len(calls) <= CONNECTIONS
    start = Barrier(len(calls))

    def one(call: Callable[[], httpx.Response]) -> httpx.Response:
        start.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as callers:
        return list(callers.map(one, calls))


def _reads(secret: str, row: str) -> bool:
    return secret in row or secret.encode().hex() in row


# Processes


@contextmanager
def serving(kind: type[S], **settings: str) -> Iterator[S]:
    """A whole system with these settings, on a folder that everybody may enter as PostgreSQL is another user."""
    with pytest.MonkeyPatch.context() as environment:
        for name, value in (SECRETS | settings).items():
            environment.setenv(name, value)
        with tempfile.TemporaryDirectory(prefix="payledger-black-box-", ignore_cleanup_errors=True) as folder:
            Path(folder).chmod(0o755)
            service = kind(Path(folder) / "data")
            try:
                yield service.start()
            finally:
                if service.process.poll() is None:
                    service.stop()


@contextmanager
def another_api(service: Service, **settings: str) -> Iterator[httpx.Client]:
    """One more server process of the same deployment, with settings of its own; a client of it."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    addresses = {
        "PAYMENT_SERVICE_PORT": str(port),
        "DATABASE_URL": service.database_url,
        "KAFKA_BOOTSTRAP_SERVERS": service.kafka,
        "STRIPE_API_KEY": "sk_test_black_box",
        "STRIPE_API_BASE": service.stripe,
        "RATE_LIMIT": "on",
    }
    environment = dict(os.environ) | SECRETS | addresses | settings
    command = [sys.executable, "-m", "interface.cli", "api"]
    with service.output.open("ab") as output:
        process = subprocess.Popen(command, cwd=CHECKOUT, env=environment, stdout=output, stderr=subprocess.STDOUT)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=ANSWER_S) as client:
        try:
            eventually(lambda: _is_ready(process, client), START_S)
            yield client
        finally:
            process.terminate()
            process.wait(STOP_S)


def _is_ready(process: subprocess.Popen[bytes], client: httpx.Client) -> bool:
    assert process.poll() is None, f"the server ended with {process.returncode}"
    try:
        return client.get("/ready").status_code == 200
    except httpx.TransportError:
        return False
