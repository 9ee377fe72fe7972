"""The client, both faces of it: against the real system, and against networks and servers that fail."""

import asyncio
import json
import pickle
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from click.testing import CliRunner, Result
from msgspec import Struct, structs

from interface import client_calls as calls
from interface.cli import main
from interface.client import (
    AsyncBookings,
    AsyncPayledgerClient,
    Bookings,
    Conflict,
    Declined,
    Fact,
    Forbidden,
    InvalidChargeID,
    NotFound,
    Patience,
    PayledgerClient,
    PayledgerError,
    Payment,
    Refused,
    Unauthorized,
    Unavailable,
    Unreadable,
)
from interface.client_attempts import Attempt, Lost, attempts
from interface.web.views import FactView, PaymentView
from tests.system import System

TOKEN = "a-token-nobody-may-read"
VISA = "pm_card_visa"


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now, self.slept = 1_000.0, list[float]()

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    async def sleep_async(self, seconds: float) -> None:
        self.sleep(seconds)


class Face:
    """One of the two faces: each asks the ledger at a url, and its answer or error is the same."""

    def __init__(self, *, awaited: bool) -> None:
        self.awaited, self.time = awaited, Time()

    def ask(
        self,
        url: str,
        wish: Callable[[Any], Any],
        *,
        token: str = TOKEN,
        patience: Patience = Patience(),  # noqa: B008
        chance: float = 0.0,
    ) -> Any:
        if not self.awaited:
            made: Any = {"clock": self.time.clock, "sleep": self.time.sleep, "random": lambda: chance}
            with PayledgerClient(url, token, patience, **made) as ledger:
                return wish(ledger)

        async def asked() -> Any:
            made: Any = {"clock": self.time.clock, "sleep": self.time.sleep_async, "random": lambda: chance}
            async with AsyncPayledgerClient(url, token, patience, **made) as ledger:
                return await wish(ledger)

        return asyncio.run(asked())

    def book(self, url: str, wish: Callable[[Any], Any], token: str = TOKEN) -> Any:
        over: Any = AsyncBookings if self.awaited else Bookings
        return self.ask(url, lambda ledger: wish(over(ledger)), token=token)


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def face(request: pytest.FixtureRequest) -> Face:
    return Face(awaited=request.param)


# --- A server that does as it is told ----------------------------------------------------------------------------


class Reply(Struct, frozen=True):
    status: int
    body: Any = None
    headers: dict[str, str] = {}


class Asked(Struct, frozen=True):
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def key(self) -> str:
        return self.headers["idempotency-key"]


# Hang up before anything is passed on, or when the ledger has answered.
REFUSED, REPLY_LOST = "refused", "reply lost"


class Server:
    """Answers by its script, and then passes on to the ledger, if there is one behind it."""

    def __init__(self, script: list[Reply | str], upstream: str | None) -> None:
        self.script, self.asked = list(script), list[Asked]()
        served = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                served.answer(self, upstream)

            do_GET = do_POST = answer  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def answer(self, request: BaseHTTPRequestHandler, upstream: str | None) -> None:
        headers = {name.lower(): value for name, value in request.headers.items()}
        body = request.rfile.read(int(headers.get("content-length", 0)))
        asked = Asked(request.command, request.path, headers, body)
        self.asked.append(asked)
        told = self.script.pop(0) if self.script else None
        reply = told if isinstance(told, Reply) else None
        if upstream is not None and reply is None and told != REFUSED:
            reply = passed_on(asked, upstream)
        if reply is None or told == REPLY_LOST:
            request.close_connection = True
            return
        written = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        request.send_response(reply.status)
        for name, value in (reply.headers | {"Content-Length": str(len(written))}).items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(written)


def passed_on(asked: Asked, upstream: str) -> Reply:
    kept = {name: value for name, value in asked.headers.items() if name not in {"host", "accept-encoding"}}
    answer = httpx.request(asked.method, upstream + asked.path, headers=kept, content=asked.body, timeout=60)
    headers = {name: answer.headers[name] for name in ("Ledger-Position", "Content-Type") if name in answer.headers}
    return Reply(answer.status_code, answer.content, headers)


@contextmanager
def serving(*script: Reply | str, upstream: str | None = None) -> Iterator[Server]:
    server = Server(list(script), upstream)
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.http.shutdown()
        server.http.server_close()
        thread.join()


def problem(status: int, name: str, **more: Any) -> Reply:
    said = {"type": f"urn:payledger:problem:{name}", "title": name, "status": status, "detail": "as it is"}
    return Reply(status, said | more)


PAYMENT: dict[str, Any] = {
    "id": "0b2f6a34-6a4b-5d8e-9a55-3a2f5e8a1c11",
    "status": "authorized",
    "currency": "usd",
    "amount": 100_99,
    "amount_authorized": 100_99,
    "amount_capturable": 100_99,
    "amount_captured": 0,
    "amount_refunded": 0,
    "amount_refundable": 0,
    "capture": "manual",
    "customer": None,
    "order": None,
    "description": None,
    "metadata": {},
    "card": None,
    "failure": None,
    "next_action": None,
    "stripe": {"payment_intent": "pi_1", "charge": "ch_1"},
    "created_at": "2026-11-20T12:00:01Z",
    "updated_at": "2026-11-20T12:00:01Z",
    "version": 2,
}
DONE = Reply(201, PAYMENT, {"Ledger-Position": "7"})
UNKNOWN = Reply(202, PAYMENT | {"status": "pending"})
IN_FLIGHT = problem(409, "operation-in-flight")
BUSY = Reply(503, b"<html>busy</html>")


def authorized(ledger: Any, **details: Any) -> Any:
    return ledger.authorize(100_99, "usd", VISA, **details)


# --- Against the ledger ------------------------------------------------------------------------------------------


@pytest.fixture
def ask(face: Face, system: System) -> Callable[..., Any]:
    """Ask the running system."""
    return lambda wish, token=system.token: face.ask(system.url, wish, token=token)


def test_a_payment_is_authorized_captured_refunded_and_found(ask: Callable[..., Any]) -> None:
    order = f"order {uuid4()}"
    payment = ask(partial(authorized, order=order, metadata={"seat": "7A"}))
    assert (payment.status, payment.amount_capturable, payment.metadata) == ("authorized", 100_99, {"seat": "7A"})
    assert (payment.card.brand, payment.card.last4, payment.outcome_known) == ("visa", "4242", True)
    captured = ask(lambda ledger: ledger.capture(payment.id, 60_00, version=payment.version))
    assert (captured.status, captured.amount_captured) == ("partially_captured", 60_00)
    refunded = ask(lambda ledger: ledger.refund(str(payment.id), 10_50, reason="a seat was cancelled"))
    assert (refunded.amount_refunded, refunded.amount_refundable) == (10_50, 49_50)
    assert ask(lambda ledger: ledger.payment(payment.id, after=refunded.position)) == refunded
    facts = ask(lambda ledger: ledger.events(payment.id))
    moves = ["CaptureStarted", "Captured", "RefundStarted", "Refunded"]
    assert [fact.type for fact in facts] == ["AuthorizationStarted", "Authorized", *moves]
    assert (facts[-1].position, facts[-1].data["amount"]) == (refunded.position, 10_50)


def test_what_is_held_is_released(ask: Callable[..., Any]) -> None:
    payment = ask(authorized)
    voided = ask(lambda ledger: ledger.void(payment.id, reason="no seats left"))
    assert (voided.status, voided.amount_capturable) == ("voided", 0)


def test_payments_are_read_page_by_page(ask: Callable[..., Any]) -> None:
    customer = f"customer {uuid4()}"
    first, second = (ask(partial(authorized, customer=customer)) for _ in range(2))
    wanted = {"customer": customer, "status": "authorized", "since": first.created_at, "limit": 1}
    newest = ask(lambda ledger: ledger.payments(**wanted, after=second.position))
    oldest = ask(lambda ledger: ledger.payments(**wanted, cursor=newest.next_cursor))
    assert [payment.id for payment in newest.payments + oldest.payments] == [second.id, first.id]
    assert oldest.next_cursor is None


def test_the_same_key_is_the_same_payment(ask: Callable[..., Any]) -> None:
    key = f"key-{uuid4()}"
    once, again, another = (ask(partial(authorized, key=key)) for key in (key, key, None))
    assert once == again
    assert another.id != once.id


def test_a_declined_card_is_an_error_that_carries_the_payment(ask: Callable[..., Any]) -> None:
    with pytest.raises(Declined) as declined:
        ask(lambda ledger: ledger.authorize(100_99, "usd", "pm_card_chargeDeclined", "automatic"))
    payment = declined.value.payment
    assert payment is not None
    assert (payment.status, payment.amount_captured, declined.value.status) == ("failed", 0, 402)
    assert payment.failure is not None
    assert payment.failure.decline_code == "generic_decline"
    assert ask(lambda ledger: ledger.payment(payment.id, after=payment.position)) == payment


def test_what_the_ledger_refuses_is_told_with_every_wrong_field(ask: Callable[..., Any]) -> None:
    with pytest.raises(Refused) as refused:
        ask(lambda ledger: ledger.authorize(0, "dollar", VISA))
    assert (refused.value.status, refused.value.type) == (400, "urn:payledger:problem:invalid-request")
    assert {error.pointer for error in refused.value.errors} == {"#/amount", "#/currency"}
    payment = ask(authorized)
    with pytest.raises(Refused, match=r"^10100 is more than the 10099 usd left to capture \(422 Exceeds authorized\)$"):
        ask(lambda ledger: ledger.capture(payment.id, 101_00))


def test_every_refusal_has_its_own_error(ask: Callable[..., Any], system: System) -> None:
    payment = ask(authorized)
    reader = system.new_token("reader", "read:payment")
    with pytest.raises(Unauthorized):
        ask(lambda ledger: ledger.payment(payment.id), token="nobody's")
    with pytest.raises(Forbidden):
        ask(lambda ledger: ledger.void(payment.id), token=reader)
    with pytest.raises(NotFound):
        ask(lambda ledger: ledger.payment(uuid4()))
    with pytest.raises(Conflict, match="at version 2"):
        ask(lambda ledger: ledger.void(payment.id, version=payment.version + 1))
    ask(lambda ledger: ledger.void(payment.id))
    with pytest.raises(Conflict, match="not possible while the payment is voided"):
        ask(lambda ledger: ledger.capture(payment.id))


def test_a_payment_and_a_fact_are_all_that_the_ledger_says_of_them() -> None:
    def told(struct: type[Struct]) -> dict[str, bool]:
        return {field.name: field.required for field in structs.fields(struct) if field.required}

    assert told(Payment) == told(PaymentView)
    assert told(Fact) == told(FactView)


# --- Networks that fail ------------------------------------------------------------------------------------------


def test_a_lost_reply_is_asked_for_by_the_same_key_and_money_moves_once(face: Face, system: System) -> None:
    lost = [REPLY_LOST, REFUSED, REPLY_LOST]
    with serving(*lost, upstream=system.url) as line:
        payment = face.ask(
            line.url, lambda ledger: ledger.authorize(5_00, "usd", VISA, "automatic"), token=system.token
        )
        assert len({asked.key for asked in line.asked}) == 1
        line.script += lost
        refunded = face.ask(line.url, lambda ledger: ledger.refund(payment.id, 1_00), token=system.token)
    assert len(line.asked) == 8, "twice, three attempts failed and one did not"
    assert len({asked.key for asked in line.asked}) == 2, "a key for each command"
    assert (refunded.amount_captured, refunded.amount_refunded) == (5_00, 1_00)
    state = system.state()
    [intent] = [one for one in state["payment_intents"] if str(payment.id) in one["metadata"].values()]
    assert intent["amount_received"] == 5_00
    assert [one["amount"] for one in state["refunds"] if one["payment_intent"] == intent["id"]] == [1_00]


def test_a_ledger_that_keeps_silent_is_given_up(face: Face) -> None:
    impatient = Patience(attempts=2, timeout_s=0.05)
    # It listens, and answers nobody.
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(Unavailable, match="Timeout") as unavailable:
        face.ask(f"http://127.0.0.1:{silent.getsockname()[1]}", authorized, patience=impatient)
    assert unavailable.value.key
    assert unavailable.value.status is None
    assert len(face.time.slept) == 1


# --- Servers that fail -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_server_is_asked_again_with_the_same_request(face: Face, status: int) -> None:
    with serving(Reply(status), problem(status, "busy"), DONE) as server:
        payment = face.ask(server.url, authorized)
    assert (payment.status, payment.position) == ("authorized", 7)
    first, *more = server.asked
    assert more == [first, first]
    assert first.headers["authorization"] == f"Bearer {TOKEN}"


def test_a_payment_that_another_operation_holds_is_asked_for_again(face: Face) -> None:
    with serving(IN_FLIGHT, DONE) as server:
        assert face.ask(server.url, lambda ledger: ledger.capture(PAYMENT["id"])).version == 2
    assert server.asked[0] == server.asked[1]


def test_the_error_of_a_payment_that_stays_held_is_a_conflict(face: Face) -> None:
    with serving(IN_FLIGHT, IN_FLIGHT) as server, pytest.raises(Conflict, match="as it is"):
        face.ask(server.url, lambda ledger: ledger.capture(PAYMENT["id"]), patience=Patience(attempts=2))


@pytest.mark.parametrize("status", [301, 400, 401, 402, 403, 404, 409, 412, 413, 422, 500])
def test_what_is_refused_is_not_asked_again(face: Face, status: int) -> None:
    with serving(problem(status, "refused")) as server, pytest.raises(PayledgerError, match=f"as it is \\({status} "):
        face.ask(server.url, authorized)
    assert len(server.asked) == 1
    assert face.time.slept == []


def test_retry_after_is_waited_for(face: Face) -> None:
    slower, sooner = (problem(429, "slow-down") for _ in range(2))
    slower.headers["Retry-After"], sooner.headers["Retry-After"] = "7", "1"
    with serving(slower, sooner, DONE) as server:
        face.ask(server.url, authorized, patience=Patience(first_delay_s=2.0))
    assert face.time.slept == [7.0, 4.0], "never sooner than it would be by itself"


@pytest.mark.parametrize(("chance", "slept"), [(0.0, [0.25, 0.5, 1.0, 2.0, 3.0]), (1.0, [0.125, 0.25, 0.5, 1.0, 1.5])])
def test_each_wait_is_twice_as_long_up_to_a_limit_less_a_chance(face: Face, chance: float, slept: list[float]) -> None:
    with serving(*[BUSY] * 6) as server, pytest.raises(Unavailable):
        face.ask(server.url, authorized, patience=Patience(longest_delay_s=3.0), chance=chance)
    assert face.time.slept == slept
    assert len(server.asked) == 6


def test_what_was_given_up_is_asked_for_again_with_the_key_of_its_error(face: Face) -> None:
    with serving(BUSY, DONE) as server:
        with pytest.raises(Unavailable) as unavailable:
            face.ask(server.url, authorized, patience=Patience(attempts=1))
        face.ask(server.url, partial(authorized, key=unavailable.value.key))
    assert server.asked[0] == server.asked[1]


def test_whatever_ends_a_command_that_may_have_been_done_its_key_is_told(face: Face) -> None:
    with serving(REFUSED, problem(401, "not-authenticated")) as server, pytest.raises(Unauthorized) as unauthorized:
        face.ask(server.url, authorized)
    assert unauthorized.value.key == server.asked[0].key


def test_nothing_is_sent_after_the_deadline(face: Face) -> None:
    later = Reply(503, b"", {"Retry-After": "4"})
    with serving(*[later] * 4) as server, pytest.raises(Unavailable):
        face.ask(server.url, authorized, patience=Patience(deadline_s=10.0))
    assert face.time.slept == [4.0, 4.0], "a third wait would end after 12 seconds"
    assert len(server.asked) == 3


def test_an_attempt_may_be_silent_no_longer_than_what_is_left() -> None:
    time, call = Time(), calls.payment(PAYMENT["id"], None)
    plan = attempts(call, Patience(deadline_s=10.0, timeout_s=6.0), time.clock, lambda: 0.0)
    assert next(plan) == Attempt(delay_s=0.0, timeout_s=6.0)
    time.now += 6.0
    assert plan.send(Lost("ReadTimeout")) == Attempt(delay_s=0.25, timeout_s=3.75)


def test_an_outcome_that_is_not_known_is_no_error(face: Face) -> None:
    with serving(UNKNOWN) as server:
        payment = face.ask(server.url, authorized)
    assert (payment.status, payment.outcome_known) == ("pending", False)
    assert len(server.asked) == 1


def test_an_outcome_that_is_waited_for_is_asked_for_by_the_same_key(face: Face) -> None:
    with serving(UNKNOWN, BUSY, UNKNOWN, DONE) as server:
        payment = face.ask(server.url, partial(authorized, wait=True))
    assert (payment.status, payment.outcome_known) == ("authorized", True)
    assert len({asked.key for asked in server.asked}) == 1


def test_an_outcome_that_is_not_known_in_time_is_answered_as_such(face: Face) -> None:
    with serving(UNKNOWN, *[BUSY] * 9) as server:
        payment = face.ask(server.url, partial(authorized, wait=True), patience=Patience(deadline_s=5.0))
    assert (payment.status, payment.outcome_known) == ("pending", False)
    assert sum(face.time.slept) < 5


@pytest.mark.parametrize("answer", [Reply(200, b"<html>Welcome</html>"), Reply(201, {"id": "1"}), Reply(204, b"")])
def test_an_answer_that_is_not_the_ledgers_is_not_taken_for_one(face: Face, answer: Reply) -> None:
    with serving(answer) as server, pytest.raises(Unreadable) as unreadable:
        face.ask(server.url, authorized)
    assert unreadable.value.key == server.asked[0].key


def test_no_error_repeats_the_token_or_who_the_customer_is(face: Face) -> None:
    secrets = f"Bearer {TOKEN} ada@example.com"
    echo = {"type": "about:blank", "title": secrets, "detail": secrets}
    declined = problem(402, "declined", payment=PAYMENT | {"customer": "ada@example.com"})
    for reply in (Reply(400, echo), Reply(503, echo), Reply(200, echo), Reply(401, secrets), declined):
        with serving(reply) as server, pytest.raises(PayledgerError) as error:
            face.ask(server.url, partial(authorized, customer="ada@example.com"), patience=Patience(attempts=1))
        shown = "".join(traceback.TracebackException.from_exception(error.value).format_exception_only())
        assert error.value.__cause__ is error.value.__context__ is None
        assert not any(secret in shown + repr(error.value) for secret in (TOKEN, "ada@"))


def test_an_error_may_be_handed_to_another_process(face: Face) -> None:
    with serving(problem(402, "declined", payment=PAYMENT)) as server, pytest.raises(Declined) as declined:
        face.ask(server.url, authorized)
    handed = pickle.loads(pickle.dumps(declined.value))
    assert (type(handed), str(handed), handed.key) == (Declined, "as it is (402 declined)", server.asked[0].key)
    assert handed.payment == declined.value.payment is not None


@pytest.mark.parametrize("wrong", [{"attempts": 0}, {"deadline_s": 0}, {"timeout_s": -1.0}])
def test_no_patience_at_all_is_none(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="patience"):
        Patience(**wrong)


def test_however_often_it_was_tried_the_longest_wait_is_the_longest() -> None:
    assert Patience(longest_delay_s=8.0).delay_s(1_000_000, 0.0) == 8.0


@pytest.mark.parametrize("url", ["", "ledger.example", "ftp://ledger.example", "http://", "http://ledger:eighty"])
def test_an_address_must_be_one(face: Face, url: str) -> None:
    with pytest.raises(ValueError, match="address"):
        face.ask(url, authorized)


@pytest.mark.parametrize("token", ["", "two words", "a line\nX-Other: header", "tökén"])
def test_a_token_must_be_one_and_is_not_quoted(face: Face, token: str) -> None:
    with pytest.raises(ValueError, match="token") as refused:
        face.ask("http://127.0.0.1:1", authorized, token=token)
    assert not token or token not in str(refused.value)


def test_nothing_is_sent_for_what_a_caller_got_wrong(face: Face) -> None:
    with serving() as server:
        for key in ("", "two words", "x" * 256):
            with pytest.raises(ValueError, match="idempotency key"):
                face.ask(server.url, partial(authorized, key=key))
        with pytest.raises(TypeError, match="idempotency_key"):
            face.ask(server.url, partial(authorized, idempotency_key="misspelt"))
        with pytest.raises(ValueError, match="UUID"):
            face.ask(server.url, lambda ledger: ledger.payment("../orders"))
    assert server.asked == []


# --- Bookings ----------------------------------------------------------------------------------------------------


def charged(system: System) -> str:
    body = {"stripeToken": "tok_visa", "amount": 100_99, "currency": "usd", "email": "ada@example.com"}
    answer = system.http.post("/charge", json=body | {"description": f"trip {uuid4()}"})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["createdCharge"]["id"])


def test_a_booking_is_collected_and_refunded_once_however_often_it_is_asked(face: Face, system: System) -> None:
    charge = charged(system)
    with serving(REPLY_LOST, upstream=system.url) as line:
        collected = face.book(line.url, lambda bookings: bookings.collect(charge, "c-1", "b-1"), system.token)
        line.script += [REPLY_LOST]
        refunded = face.book(line.url, lambda bookings: bookings.refund(charge), system.token)
    assert collected.price == 100_99
    assert collected.receipt_url.startswith("https://")
    [refund] = [one for one in system.state()["refunds"] if one["charge"] == charge]
    assert (refund["id"], refund["amount"]) == (refunded.refund_id, 100_99)
    assert len(line.asked) == 4


def test_a_charge_that_nobody_knows_is_not_found(face: Face, system: System) -> None:
    for wish in (lambda bookings: bookings.collect("ch_nothing", "c", "b"), lambda bookings: bookings.refund("ch_no")):
        with pytest.raises(NotFound):
            face.book(system.url, wish, system.token)


def test_the_booking_and_the_customer_travel_beside_the_charge(face: Face) -> None:
    with serving(Reply(200, {"capturedCharge": {"amount_captured": 5, "receipt_url": None}})) as server:
        collected = face.book(server.url, lambda bookings: bookings.collect("ch_1", "c-1\r\nX: y", "Flug/ä 7"))
    assert (collected.price, collected.receipt_url) == (5, None)
    [asked] = server.asked
    assert (asked.method, asked.path, json.loads(asked.body)) == ("POST", "/capture", {"chargeId": "ch_1"})
    assert (asked.headers["x-customer-id"], asked.headers["x-booking-id"]) == ("c-1%0D%0AX:%20y", "Flug/%C3%A4%207")


@pytest.mark.parametrize("charge", ["", "  ", None])
def test_a_charge_must_be_named(face: Face, charge: Any) -> None:
    with serving() as server:
        for wish in (lambda bookings: bookings.collect(charge, "c", "b"), lambda bookings: bookings.refund(charge)):
            with pytest.raises(InvalidChargeID):
                face.book(server.url, wish)
    assert server.asked == []


# --- The command line --------------------------------------------------------------------------------------------


def run(*arguments: str, **environment: str) -> Result:
    unset = {"PAYLEDGER_URL": None, "PAYLEDGER_TOKEN": None}
    return CliRunner().invoke(main, arguments, env={**unset, **environment})


def test_a_booking_is_collected_and_refunded_on_the_command_line(system: System) -> None:
    charge = charged(system)
    folder = ("--data", str(system.data))
    collected = run("collect", "--charge", charge, "--customer", "c-1", "--booking", "b-1", *folder)
    assert collected.exit_code == 0, collected.output
    told = json.loads(collected.stdout)
    assert (set(told), told["price"]) == ({"receiptUrl", "price"}, 100_99)
    assert told["receiptUrl"].startswith("https://")
    refunded = run("refund", "--charge", charge, PAYLEDGER_URL=system.url, PAYLEDGER_TOKEN=system.token)
    assert refunded.exit_code == 0, refunded.output
    [refund] = [one for one in system.state()["refunds"] if one["charge"] == charge]
    assert json.loads(refunded.stdout) == {"refundId": refund["id"]}
    assert (collected.stderr, refunded.stderr) == ("", "")


def test_what_the_ledger_refuses_is_an_error_on_the_command_line(system: System) -> None:
    folder = ("--data", str(system.data))
    unknown = run("refund", "--charge", "ch_nothing", "--url", system.url, "--token", system.token)
    stranger = run("refund", "--charge", "ch_nothing", *folder, PAYLEDGER_TOKEN="nobody's")
    assert (unknown.exit_code, stranger.exit_code) == (1, 1)
    assert unknown.stderr == "Error: there is no payment with this id (404 Payment not found)\n"
    assert "401" in stranger.stderr
    assert "nobody's" not in stranger.output
    assert unknown.stdout + stranger.stdout == ""


@pytest.mark.parametrize("command", [("collect", "--customer", "c", "--booking", "b"), ("refund",)])
def test_a_charge_must_be_named_on_the_command_line(command: tuple[str, ...]) -> None:
    named = run(*command, "--charge", "", PAYLEDGER_URL="http://127.0.0.1:1", PAYLEDGER_TOKEN=TOKEN)
    assert (named.exit_code, named.stdout, named.stderr) == (1, "", "Error: InvalidChargeID: the charge id is empty\n")
    unaddressed = run(*command, "--charge", " ")
    assert (unaddressed.exit_code, unaddressed.stderr) == (1, named.stderr)
    assert run(*command).exit_code == 2


@pytest.mark.parametrize("address", [{}, {"PAYLEDGER_URL": "http://127.0.0.1:1"}, {"PAYLEDGER_TOKEN": TOKEN}])
def test_a_ledger_must_be_named_on_the_command_line(tmp_path: Path, address: dict[str, str]) -> None:
    result = run("refund", "--charge", "ch_1", "--data", str(tmp_path / "nothing"), **address)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Missing option '--" in result.stderr
