"""A caller who sends card numbers by the one door that is meant for them, and by every wrong one."""

import hmac
import json
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import count, cycle
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx

from tests.canary import CARDS, CODE, DECLINED, HANDED_ON, HOLDER, NUMBERS, PLANTED, TAKEN, grouped
from tests.system import VISA, System

NOBODY = "00000000-0000-4000-8000-000000000000"
# What is answered to a payment by each number, made with the provider's help or without it.
STATUS = dict.fromkeys(NUMBERS, 400) | dict.fromkeys((*TAKEN, HANDED_ON), 200) | dict.fromkeys(DECLINED, 400)
POSTS = ("/payment/process", "/payment/refund", "/v1/payments", "/charge", "/webhooks/stripe")
PATHS = (
    "/{}",
    "/payment/{}",
    "/payment/status/{}",
    "/v1/payments/{}",
    "/v1/payments/{}/captures",
    "/v1/orders/{}",
    "/v1/{}/x",
    "/return/{}",
    "/schema/{}",
    f"/v1/payments/{NOBODY}/{{}}",
)
HEADERS = (
    "Authorization",
    "Content-Type",
    "Cookie",
    "Idempotency-Key",
    "If-Match",
    "Last-Event-ID",
    "Origin",
    "Referer",
    "Traceparent",
    "Tracestate",
    "User-Agent",
    "X-Api-Key",
    "X-Booking-Id",
    "X-Correlation-Id",
    "X-Customer-Id",
    "X-Forwarded-For",
    "X-Request-Id",
)
NAMES = ("status", "customer", "order", "from", "limit", "cursor", "after", "x")
RAW = (
    b"NUMBER / HTTP/1.1\r\nHost: ledger\r\n\r\n",
    b"GET NUMBER HTTP/1.1\r\nHost: ledger\r\n\r\n",
    b"GET / HTTP/NUMBER\r\nHost: ledger\r\n\r\n",
    b"GET / HTTP/1.1\r\nNUMBER: NUMBER\r\nHost: ledger\r\n\r\n",
    b"GET / HTTP/1.1\r\nNUMBER\r\n\r\n",
    b"POST /payment/process HTTP/1.1\r\nHost: ledger\r\nContent-Length: NUMBER\r\n\r\nNUMBER",
    b"POST /payment/process HTTP/1.1\r\nHost: ledger\r\nTransfer-Encoding: chunked\r\n\r\nNUMBER\r\nNUMBER",
    b"NUMBER\r\n\r\n",
)
# What may stand in a field that is none for cards.
VALUES: tuple[Callable[[str], Any], ...] = (
    str,
    int,
    float,
    lambda number: f"paid with {number}.",
    lambda number: grouped(number, " "),
    lambda number: grouped(number, "-"),
    lambda number: [number],
    lambda number: {number: number},
    lambda number: {"email": number},
    lambda number: f"pm_{number}",
    lambda number: f"{number}@canary.example",
)


class Caller:
    """Sends numbers in every way, each way with the next of them, and keeps all that is answered.

    `looked_up`: those that the ledger itself turns into payment methods, so that nothing of them goes to Stripe.
    """

    def __init__(self, name: str, system: System, http: httpx.Client, looked_up: Sequence[str]) -> None:
        self.system, self.http, self.looked_up = system, http, looked_up
        self.answers: list[tuple[str, bytes]] = []
        self.statuses: dict[tuple[str, str], int] = {}
        self._cards = cycle(CARDS)
        self.number = partial(next, self._cards)
        self._bookings = (f"{name}{place}" for place in count())

    def keep(self, answer: httpx.Response) -> httpx.Response:
        request = answer.request
        head = b"".join(name + b": " + value + b"\r\n" for name, value in answer.headers.raw)
        self.answers.append((f"{request.method} {request.url.path[:20]} {answer.status_code}", head + answer.content))
        return answer

    def send(
        self, method: str, path: str, content: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        own = {"Content-Type": "application/json", "Idempotency-Key": f"key-{uuid4()}"} | dict(headers or {})
        raw = [(name.encode(), value.encode()) for name, value in own.items()]
        return self.keep(self.http.request(method, path, content=content, headers=raw))

    def post(self, path: str, body: Any, method: str = "POST") -> httpx.Response:
        return self.send(method, path, json.dumps(body).encode())

    def over_a_socket(self, request: bytes) -> None:
        address = urlsplit(self.system.url)
        with socket.create_connection((str(address.hostname), int(address.port or 80)), timeout=30) as connection:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            with suppress(ConnectionError):
                while answer := connection.recv(65_536):
                    self.answers.append(("a socket", answer))

    # The one door

    def pay(self, number: str, booking: str, by: str = "") -> httpx.Response:
        code = CODE if number in self.looked_up else ""  # to Stripe it must look like one
        return self.post("/payment/process", paid_with(grouped(number, by), booking, code))

    def pay_as_meant(self, *separators: str) -> None:
        """Each number, written as people write them; the statuses say that these were payments."""
        for number in NUMBERS:
            for by in separators:
                booking = f"{PLANTED}-booking-{next(self._bookings)}"
                first = self.pay(number, booking, by)
                self.statuses[number, by] = first.status_code
                if first.status_code == 200:
                    transaction = first.json()["transaction_id"]
                    self.pay(number, booking, by)
                    self.keep(self.http.get(f"/payment/status/{transaction}"))
                    self.post("/payment/refund", given_back(transaction, booking))

    # Every other one

    def pay_with_what_cannot_be_read(self) -> None:
        for path in POSTS:
            number = next(self._cards)
            good = json.dumps(paid_with(number, "broken")).encode()
            for end in range(good.index(number.encode()) + 4, len(good), 23):
                self.send("POST", path, good[:end])
            for content, kind in broken(good, next(self._cards)):
                self.send("POST", path, content, {"Content-Type": kind})

    def put_it_in_every_field(self, payment: str) -> None:
        for value in VALUES:
            for path, body in bodies(payment).items():
                method, _, route = path.partition(" ")
                for name in body:
                    self.post(route, body | {name: value(next(self._cards))}, method)
                number = next(self._cards)
                self.post(route, body | {"note": value(number), number: "x"}, method)
            for name in ("card_number", "cvv", "cardholder_name", "expiry_month", "expiry_year", next(self._cards)):
                card = paid_with("", "field")["card_details"] | {name: value(next(self._cards))}
                self.post("/payment/process", paid_with("", f"field-{uuid4()}") | {"card_details": card})

    def put_it_around_the_body(self) -> None:
        for by in ("", "-", "%20"):
            for path in PATHS:
                text = grouped(next(self._cards), by)
                self.send("GET", path.format(text))
                self.send("POST", path.format(f"TXN-{text}"), b"{}")
            for name in (*NAMES, grouped(next(self._cards), by)):
                self.send("GET", f"/v1/payments?{name}={grouped(next(self._cards), by)}")
                if name != "after":  # where any number may be a position, and is answered with itself
                    self.send("GET", f"/v1/events?{name}={grouped(next(self._cards), by)}")
        for name in HEADERS:
            for by in ("", "-", " "):
                value = grouped(next(self._cards), by)
                told = {name: f"Bearer {value}" if name == "Authorization" else value}
                self.send("POST", "/v1/payments", json.dumps(VISA).encode(), told)
                self.send("POST", "/charge", json.dumps(airlines(1_050)).encode(), told)
                self.send("GET", "/v1/payments", headers=told)
        for request in RAW:
            self.over_a_socket(request.replace(b"NUMBER", next(self._cards).encode()))

    def tell_it_as_stripe_would(self, path: str, kind: str) -> None:
        key = (self.system.data / "webhook.key").read_text().strip()
        for number in CARDS:
            thing = {"object": "charge", "id": "ch_canary", "description": number, "billing_details": {"name": HOLDER}}
            event = {"id": f"evt_{uuid4().hex}", "type": kind, "created": 1, "note": number}
            for body in (json.dumps(event | {"data": {"object": thing}}).encode(), f'{{"id": "{number}'.encode()):
                stamp = str(int(time.time()))
                mac = hmac.digest(f"whsec_{key}".encode(), f"{stamp}.".encode() + body, "sha256").hex()
                self.send("POST", path, body, {"Stripe-Signature": f"t={stamp},v1={mac}"})
                self.send("POST", path, body, {"Stripe-Signature": f"t={number},v1={number}"})


# --- Bodies ------------------------------------------------------------------------------------------------------


def paid_with(number: str, booking: str, code: str = CODE) -> dict[str, Any]:
    card = {"card_number": number, "expiry_month": 12, "expiry_year": 2040, "cvv": code, "cardholder_name": HOLDER}
    told = {"booking_id": booking, "amount": 25.5, "payment_method": "credit_card", "card_details": card}
    return {"user_id": f"user-{PLANTED}"} | told


def given_back(transaction: str, booking: str) -> dict[str, Any]:
    told = {"refund_amount": 1.5, "reason": "the show was cancelled", "user_id": f"user-{PLANTED}"}
    return {"booking_id": booking, "original_transaction_id": transaction} | told


def airlines(amount: float) -> dict[str, Any]:
    told = {"description": "a flight", "email": "ada@canary.example"}
    return {"stripeToken": "tok_none", "amount": amount, "currency": "usd"} | told


def broken(good: bytes, number: str) -> list[tuple[bytes, str]]:
    """What looks like a payment and cannot be read as one, and what it says that it is."""
    part = f'--b\r\nContent-Disposition: form-data; name="n"\r\n\r\n{number}\r\n--b--'.encode()
    return [
        (good + good, "application/json"),
        (good[:-1] + b",}", "application/json"),
        (good.decode().encode("utf-16"), "application/json"),
        (b"\xff" + good, "application/json"),
        (good, "text/plain"),
        (f"card_number={number}&cvv={CODE}".encode(), "application/x-www-form-urlencoded"),
        (part, "multipart/form-data; boundary=b"),
        (number.encode(), "application/json"),
        (f'"{number}"'.encode(), "application/json"),
        (f"[{number}]".encode(), "application/json"),
    ]


def bodies(payment: str) -> dict[str, dict[str, Any]]:
    """By route, what each takes; only that a field is wrong keeps it from being done."""
    return {
        "POST /payment/process": paid_with("", "field") | {"paypal_details": {"email": "a@b.example"}},
        "POST /payment/refund": given_back(f"TXN-{payment.replace('-', '')}", PLANTED),
        "POST /v1/payments": VISA | {"order": "o", "customer": "c", "description": "d", "metadata": {"k": "v"}},
        f"POST /v1/payments/{payment}/captures": {"amount": 10**12, "reason": ""},
        f"POST /v1/payments/{payment}/refunds": {"amount": 10**12, "reason": ""},
        f"POST /v1/payments/{NOBODY}/void": {"reason": ""},
        "POST /v1/tokens/t-1/invalidation": {"expires_at": None},
        "PUT /payment": airlines(amount=10.5),
        "POST /charge": airlines(amount=1_050),
        "POST /capture": {"chargeId": "ch_none", "email": "a@b.example"},
        "POST /refund": {"chargeId": "ch_none", "email": "a@b.example"},
    }
