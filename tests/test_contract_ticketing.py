"""The ticketing contract over HTTP as its callers use it: every row, every status, and its orders on `/v1`."""

import asyncio
import base64
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import uuid4

import httpx
import jwt
import psycopg
import pytest
from click.testing import CliRunner
from litestar.types import Message, Receive, Scope, Send

from application.event_store import Ledger, StreamMoved
from application.order_returns import FIRST_WAIT
from application.orders import order_payment, order_stream
from domain.envelope import Envelope
from domain.facts import NAMES
from domain.money import Money
from domain.order_facts import OrderCancelled, OrderFact, OrderPlaced, OrderStatus
from interface.cli import main
from interface.sessions import COOKIE, token_in
from interface.tokens import TokenRefused
from interface.web.contracts import ticketing_words
from interface.web.problems import MEDIA_TYPE
from tests.processes import eventually
from tests.system import System, made, named, problem

CLICKS = 12
SLOW_MS = 800
PRICE = 25_50
PATH = "/api/payments"
NOT_AUTHORIZED = {"errors": [{"message": "Not authorized"}]}
NOT_FOUND = {"errors": [{"message": "Not Found"}]}
CANCELLED = {"errors": [{"message": "Cannot pay for a cancelled order"}]}
PAID = {"errors": [{"message": "Cannot pay for an order that is paid already"}]}
CARD_NUMBER = "4242424242424242"


class Tickets:
    """A user with a session, and an order of theirs."""

    def __init__(self, system: System, ledger: Ledger) -> None:
        self.system, self.ledger = system, ledger
        self.user, self.order = f"user-{uuid4().hex}", f"order-{uuid4().hex}"
        self.email = f"{self.user}@example.org"
        self.payment = str(order_payment(self.order))
        self.http = httpx.Client(base_url=system.url, timeout=60)

    # What is announced

    def announce(self, status: OrderStatus = "created") -> None:
        self._append(OrderPlaced(self.order, 0, self.user, Money(PRICE, "usd"), status))

    def cancel(self) -> None:
        self._append(OrderCancelled(self.order, 1))

    def _append(self, fact: OrderFact) -> None:
        """As its announcer's consumer would, whatever is appended to it meanwhile."""
        with suppress(StreamMoved):
            return self._append_once(fact)
        return self._append(fact)

    def _append_once(self, fact: OrderFact) -> None:
        stream = order_stream(self.order)
        before = self.ledger.load(stream)
        envelope = Envelope(
            stream=stream,
            version=len(before.envelopes) + 1,
            fact=fact,
            at=datetime.now(UTC),
            actor="orders",
            operation=None,
            correlation="orders-0-1",
            causation=None,
            fingerprint=None,
        )
        self.ledger.append([envelope], before.tail)

    # What is asked

    def session(self, **claims: Any) -> str:
        secret = (self.system.data / "jwt.key").read_text().strip()
        return jwt.encode({"id": self.user, "email": self.email} | claims, secret, algorithm="HS256")

    def ask(self, body: Any, headers: dict[str, str] | None = None) -> httpx.Response:
        """With the session as a bearer token, unless there are other headers."""
        bearer = {"Authorization": f"Bearer {self.session()}"}
        return self.http.post(PATH, json=body, headers=bearer if headers is None else headers)

    def pay(self, token: str = "tok_visa", headers: dict[str, str] | None = None) -> httpx.Response:
        return self.ask({"token": token, "orderId": self.order}, headers)

    # What there is

    def facts(self) -> list[str]:
        return [NAMES[type(one.fact)] for one in self.ledger.load(order_stream(self.order)).envelopes]

    def intents(self) -> list[dict[str, Any]]:
        return [one for one in self.system.state()["payment_intents"] if self.payment in one["metadata"].values()]


@pytest.fixture(scope="module")
def orders_log(system: System) -> Iterator[Ledger]:
    with Ledger(system.database_url) as ledger:
        yield ledger


@pytest.fixture
def tickets(system: System, orders_log: Ledger) -> Tickets:
    tickets = Tickets(system, orders_log)
    tickets.announce()
    return tickets


# --- Paying ------------------------------------------------------------------------------------------------------


def test_an_order_is_paid_whole_and_at_once(tickets: Tickets) -> None:
    answer = tickets.pay()
    assert (answer.status_code, answer.json()) == (201, {"id": tickets.payment})
    assert answer.headers["content-type"] == "application/json"
    [intent] = tickets.intents()
    assert (intent["amount_received"], intent["currency"]) == (PRICE, "usd")
    assert tickets.facts() == ["OrderPlaced", "OrderPaid"]
    found = tickets.system.payment(tickets.payment)
    assert (found["status"], found["amount_captured"], found["customer"]) == ("captured", PRICE, tickets.user)
    assert found["order"] == tickets.order


def test_a_session_is_a_cookie_or_a_bearer_token(tickets: Tickets) -> None:
    kept = base64.b64encode(json.dumps({"jwt": tickets.session()}).encode()).decode()
    shown = [
        {"Cookie": f"{COOKIE}={tickets.session()}"},
        {"Cookie": f"{COOKIE}={kept}"},
        {"Cookie": f"{COOKIE}={kept.rstrip('=')}; theme=dark"},
        {"Authorization": f"Bearer {tickets.session(exp=datetime.now(UTC) + timedelta(hours=1))}"},
    ]
    for headers in shown:
        answer = tickets.pay(headers=headers)
        assert (answer.status_code, answer.json()) == (201, {"id": tickets.payment}), headers
    assert len(tickets.intents()) == 1


def test_without_a_session_nothing_is_said(tickets: Tickets) -> None:
    other = jwt.encode({"id": tickets.user, "email": "x"}, "a secret of somebody else's, long enough", "HS256")
    past = tickets.session(exp=datetime.now(UTC) - timedelta(minutes=1))
    nobody = tickets.session(id="")
    unsigned = jwt.encode({"id": tickets.user}, "", "none")
    refusals = [
        {},
        *({"Authorization": f"Bearer {token}"} for token in (other, past, nobody, unsigned, "junk")),
        *({"Cookie": f"{COOKIE}={token}"} for token in (other, "junk", "e30=", "eyJqd3QiOjF9")),
        {"Authorization": "Basic YTpi"},
    ]
    for headers in refusals:
        for body in ({"token": "tok_visa", "orderId": tickets.order}, {}):
            answer = tickets.ask(body, headers)
            assert (answer.status_code, answer.json()) == (401, NOT_AUTHORIZED), headers
    assert tickets.intents() == []


def test_another_users_order_is_not_paid(tickets: Tickets, orders_log: Ledger) -> None:
    stranger = Tickets(tickets.system, orders_log)
    answer = stranger.ask({"token": "tok_visa", "orderId": tickets.order})
    assert (answer.status_code, answer.json()) == (401, NOT_AUTHORIZED)
    assert tickets.intents() == []


def test_an_order_that_nobody_announced_is_not_found(system: System, orders_log: Ledger) -> None:
    answer = Tickets(system, orders_log).pay()
    assert (answer.status_code, answer.json()) == (404, NOT_FOUND)


@pytest.mark.parametrize("status", ["cancelled", "created"])
def test_a_cancelled_order_is_not_paid(system: System, orders_log: Ledger, status: OrderStatus) -> None:
    tickets = Tickets(system, orders_log)
    tickets.announce(status)
    if status == "created":
        tickets.cancel()
    answer = tickets.pay()
    assert (answer.status_code, answer.json()) == (400, CANCELLED)
    assert tickets.intents() == []


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({"orderId": "o"}, ["token"]),
        ({"token": "tok_visa"}, ["orderId"]),
        ({}, ["token", "orderId"]),
        ({"token": "", "orderId": ""}, ["token", "orderId"]),
        ({"token": 7, "orderId": ["o"]}, ["token", "orderId"]),
        ({"token": CARD_NUMBER, "orderId": "o"}, ["token"]),
        ({"token": "tok_visa", "orderId": CARD_NUMBER}, ["orderId"]),
        ({"token": None, "orderId": "o"}, ["token"]),
    ],
)
def test_each_field_that_is_missing_or_wrong_is_named(tickets: Tickets, body: Any, fields: list[str]) -> None:
    answer = tickets.ask(body)
    assert answer.status_code == 400
    assert [error["field"] for error in answer.json()["errors"]] == fields
    assert all(set(error) == {"message", "field"} and error["message"] for error in answer.json()["errors"])
    assert CARD_NUMBER not in answer.text


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff"])
def test_what_is_no_json_object_is_refused_in_the_envelope(tickets: Tickets, content: bytes) -> None:
    headers = {"Authorization": f"Bearer {tickets.session()}", "Content-Type": "application/json"}
    answer = tickets.http.post(PATH, content=content, headers=headers)
    assert answer.status_code == 400
    assert [set(error) for error in answer.json()["errors"]] == [{"message"}]


def test_a_form_of_another_page_pays_nothing(tickets: Tickets) -> None:
    """A browser sends the cookie with it; what it cannot send from there is JSON."""
    headers = {"Cookie": f"{COOKIE}={tickets.session()}", "Content-Type": "text/plain"}
    body = json.dumps({"token": "tok_visa", "orderId": tickets.order})
    answer = tickets.http.post(PATH, content=body, headers=headers)
    assert answer.status_code == 400
    assert tickets.intents() == []


def test_fields_that_nobody_knows_are_passed_over(tickets: Tickets) -> None:
    body = {"token": "tok_visa", "orderId": tickets.order, "amount": 1}
    assert tickets.ask(body).status_code == 201


# --- What the contract leaves open -------------------------------------------------------------------------------


def test_a_declined_card_is_told_and_another_one_pays(tickets: Tickets) -> None:
    declined = tickets.pay("tok_chargeDeclined")
    assert declined.status_code == 402
    [error] = declined.json()["errors"]
    assert error["field"] == "token"
    assert "declined" in error["message"]
    assert tickets.pay("tok_chargeDeclined").json() == declined.json()
    assert tickets.pay("tok_mastercard").status_code == 201
    assert len(tickets.intents()) == 2


def test_a_card_that_asks_for_its_holder_is_given_up_and_another_one_pays(tickets: Tickets) -> None:
    asks = tickets.pay("pm_card_authenticationRequired")
    assert asks.status_code == 402
    [intent] = tickets.intents()
    assert intent["status"] == "canceled"
    assert tickets.pay("pm_card_authenticationRequired").status_code == 402
    assert tickets.pay().status_code == 201


def test_many_clicks_with_one_token_pay_once_and_hear_the_same(tickets: Tickets) -> None:
    with ThreadPoolExecutor(CLICKS) as pool:
        answers = list(pool.map(lambda _: tickets.pay(), range(CLICKS)))
    assert {answer.status_code for answer in answers} <= {201, 504}
    assert {answer.json().get("id") for answer in answers} <= {tickets.payment, None}
    assert tickets.pay().json() == {"id": tickets.payment}
    assert len(tickets.intents()) == 1


def test_many_clicks_with_many_tokens_pay_once(tickets: Tickets) -> None:
    tokens = ["tok_visa", "tok_mastercard", "tok_amex", "tok_discover", "pm_card_visa", "pm_card_mastercard"]
    with ThreadPoolExecutor(len(tokens)) as pool:
        answers = list(pool.map(tickets.pay, tokens))
    assert sorted(answer.status_code for answer in answers) == [201, *[409] * (len(tokens) - 1)]
    assert [one["status"] for one in tickets.intents()] == ["succeeded"]
    again = tickets.pay("tok_diners")
    assert (again.status_code, again.json()) == (409, PAID)


def test_an_outcome_that_is_not_known_is_told_so_and_learned_by_asking_again(tickets: Tickets) -> None:
    with tickets.system.fault("POST /v1/payment_intents", "reply_lost", times=3):
        unknown = tickets.pay()
    assert unknown.status_code == 504
    assert [set(error) for error in unknown.json()["errors"]] == [{"message"}]
    assert int(unknown.headers["Retry-After"]) >= 1
    assert tickets.pay("tok_mastercard").status_code == 409
    eventually(lambda: tickets.pay().status_code == 201)
    assert len(tickets.intents()) == 1
    eventually(lambda: tickets.facts() == ["OrderPlaced", "OrderPaid"])


def test_a_key_names_one_wish(tickets: Tickets) -> None:
    headers = {"Authorization": f"Bearer {tickets.session()}", "Idempotency-Key": "k1"}
    assert tickets.pay("tok_chargeDeclined", headers).status_code == 402
    answer = tickets.pay("tok_visa", headers)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "Idempotency-Key"
    assert tickets.pay("tok_visa", headers | {"Idempotency-Key": "k2"}).status_code == 201
    assert tickets.pay("tok_visa", headers | {"Idempotency-Key": "x" * 256}).status_code == 400


def test_other_methods_and_larger_bodies_are_refused_in_the_envelope(tickets: Tickets) -> None:
    assert [set(error) for error in tickets.http.get(PATH).json()["errors"]] == [{"message"}]
    large = tickets.ask({"token": "tok_visa", "orderId": "x" * 70_000})
    assert (large.status_code, [set(error) for error in large.json()["errors"]]) == (413, [{"message"}])


def test_what_is_refused_before_any_route_is_told_in_the_envelope() -> None:
    sent: list[Message] = []
    told = json.dumps({"type": "t", "title": "Too many", "status": 429, "detail": "come back in 3 seconds"}).encode()

    async def refuses(_scope: Scope, _receive: Receive, send: Send) -> None:
        headers = [(b"content-type", MEDIA_TYPE.encode()), (b"retry-after", b"3"), (b"content-length", b"1")]
        await send({"type": "http.response.start", "status": 429, "headers": headers})
        await send({"type": "http.response.body", "body": told[:9], "more_body": True})
        await send({"type": "http.response.body", "body": told[9:], "more_body": False})

    async def keep(message: Message) -> None:
        sent.append(message)

    scope, receive = cast(Scope, {"type": "http", "path": PATH}), cast(Receive, None)
    asyncio.run(cast(Any, ticketing_words.in_its_words(refuses)(scope, receive, keep)))
    start, body = cast(list[dict[str, Any]], sent)
    assert (start["status"], json.loads(body["body"])) == (429, {"errors": [{"message": "come back in 3 seconds"}]})
    sized = str(len(body["body"])).encode()
    assert dict(start["headers"]) == {
        b"retry-after": b"3",
        b"content-type": b"application/json",
        b"content-length": sized,
    }


def test_a_cookie_that_is_no_session_names_nobody() -> None:
    for cookie in ("", "junk", "e30=", base64.b64encode(b"[" * 50_000).decode()):
        with pytest.raises(TokenRefused):
            token_in(cookie)


# --- Money that goes back ----------------------------------------------------------------------------------------


def test_a_paid_order_that_is_cancelled_gets_its_money_back_by_itself(tickets: Tickets) -> None:
    tickets.pay()
    tickets.cancel()
    eventually(lambda: tickets.system.payment(tickets.payment)["status"] == "refunded")
    found = tickets.system.payment(tickets.payment)
    assert tickets.system.amount_at_stripe(found)["amount_refunded"] == PRICE
    assert (tickets.pay().status_code, tickets.pay().json()) == (400, CANCELLED)


def test_an_order_that_is_cancelled_while_it_is_charged_is_refused_and_gets_its_money_back(tickets: Tickets) -> None:
    with (
        ThreadPoolExecutor(1) as caller,
        tickets.system.fault("POST /v1/payment_intents", "slow", delay_ms=SLOW_MS, times=1),
    ):
        asked = caller.submit(tickets.pay)
        eventually(lambda: bool(tickets.ledger.load(order_payment(tickets.order)).envelopes))
        tickets.cancel()
        answer = asked.result()
    assert (answer.status_code, answer.json()) == (400, CANCELLED)
    eventually(lambda: tickets.system.payment(tickets.payment)["status"] == "refunded")
    assert [one["status"] for one in tickets.intents()] == ["succeeded"], "it was charged"
    assert tickets.facts() == ["OrderPlaced", "OrderCancelled"]
    assert (tickets.pay().status_code, tickets.pay().json()) == (400, CANCELLED)


def test_a_refund_that_is_refused_is_shown_to_operators_and_made_later(tickets: Tickets) -> None:
    tickets.pay()
    with tickets.system.fault("POST /v1/refunds", "error", status=400, times=0):
        tickets.cancel()
        eventually(lambda: tickets.payment in owed(tickets.system))
        eventually(lambda: owed(tickets.system)[tickets.payment]["attempts"] == 1)
        told = owed(tickets.system)[tickets.payment]
    assert (told["kind"], told["amount"], told["currency"]) == ("refund", PRICE, "usd")
    assert told["reason"] == f"owed to who paid for the order {tickets.order}; 1 tries failed"
    eventually(lambda: tickets.system.payment(tickets.payment)["status"] == "refunded", 3 * FIRST_WAIT.total_seconds())
    assert tickets.payment not in owed(tickets.system)


def owed(system: System) -> dict[str, dict[str, Any]]:
    """What `payledger operations` shows of each payment."""
    shown: Any = CliRunner().invoke(main, ["operations", "--database-url", system.database_url, "--json"])
    assert shown.exit_code == 0, shown.output
    return {one["payment"]: one for one in map(json.loads, shown.output.splitlines())}


def test_nobodys_e_mail_is_kept_or_logged(tickets: Tickets) -> None:
    tickets.pay("tok_chargeDeclined")
    tickets.pay()
    tickets.cancel()
    eventually(lambda: tickets.system.payment(tickets.payment)["status"] == "refunded")
    with psycopg.connect(tickets.system.database_url) as conn:
        kept = conn.execute("SELECT count(*) FROM ledger_events WHERE position(%s in state) > 0", (b"@example.org",))
        assert kept.fetchone() == (0,)
    assert "@example.org" not in tickets.system.output.read_text()


# --- On /v1 ------------------------------------------------------------------------------------------------------


def v1(tickets: Tickets, key: str = "v1", **fields: Any) -> httpx.Response:
    body: dict[str, Any] = {"amount": PRICE, "order": tickets.order, "capture": "automatic"} | fields
    return tickets.system.pay(key=f"{key}-{tickets.order}", **body)


def test_on_v1_an_announced_order_is_paid_by_its_own_payment(tickets: Tickets) -> None:
    payment = made(v1(tickets))
    assert (payment["id"], payment["status"]) == (tickets.payment, "captured")
    again = v1(tickets)
    assert (again.status_code, again.headers["Idempotent-Replayed"]) == (200, "true")
    assert named(problem(v1(tickets, "v2"), 409)) == {"#/order"}
    assert tickets.facts() == ["OrderPlaced", "OrderPaid"]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"amount": PRICE - 1}, "#/amount"),
        ({"amount": PRICE + 1}, "#/amount"),
        ({"currency": "eur"}, "#/currency"),
        ({"customer": "somebody else"}, "#/customer"),
    ],
)
def test_on_v1_what_does_not_fit_the_order_is_named(tickets: Tickets, fields: dict[str, Any], field: str) -> None:
    assert named(problem(v1(tickets, **fields), 422)) == {field}
    assert tickets.intents() == []


def test_on_v1_one_key_never_makes_two_payments(tickets: Tickets, orders_log: Ledger) -> None:
    other = Tickets(tickets.system, orders_log)
    other.announce()
    made(v1(tickets))
    for order in (None, "nobody announced this", other.order):
        assert named(problem(v1(tickets, order=order), 422)) == {"Idempotency-Key"}
    made(v1(tickets, "alone", order=None))
    assert named(problem(v1(tickets, "alone"), 422)) == {"Idempotency-Key"}


def test_on_v1_a_reserve_is_collected_whole_and_not_when_the_order_is_off(tickets: Tickets) -> None:
    payment = made(v1(tickets, capture="manual", customer=tickets.user))
    assert named(problem(tickets.system.move(payment, "captures", amount=1_00), 422)) == {"#/amount"}
    tickets.cancel()
    problem(tickets.system.move(payment, "captures"), 409)
    eventually(lambda: tickets.system.payment(tickets.payment)["status"] == "voided")


def test_on_v1_a_released_reserve_makes_room_for_another_attempt(tickets: Tickets) -> None:
    payment = made(v1(tickets, capture="manual"))
    tickets.system.moved(payment, "void")
    again = made(v1(tickets, "v2", capture="manual"))
    assert made(tickets.system.move(again, "captures"))["status"] == "captured"
    assert tickets.facts() == ["OrderPlaced", "OrderPaid"]


def test_on_v1_money_of_an_order_named_before_it_was_announced_goes_back_too(
    system: System, orders_log: Ledger
) -> None:
    tickets = Tickets(system, orders_log)
    payment = made(v1(tickets))
    assert payment["id"] != tickets.payment
    tickets.announce()
    assert tickets.pay().status_code == 409
    tickets.cancel()
    eventually(lambda: system.payment(payment["id"])["status"] == "refunded")
