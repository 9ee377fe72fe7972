"""The airline's contract, over HTTP as its front end and its booking workflow use it."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import httpx
import pytest

from domain.payment import Status
from interface.web.contracts.airline_words import word_for
from tests.given import AUTHORIZED, CAPTURED, failed, fold, refunded, started, voided
from tests.system import System

STRIPE_KEY = {"Authorization": "Bearer sk_test_airline"}


class Airline:
    def __init__(self, system: System) -> None:
        self.system, self.http = system, system.http
        self.trip = f"trip {uuid4()}"

    def pay(self, token: str = "tok_visa", **changed: Any) -> httpx.Response:
        body = {
            "amount": 100.99,
            "currency": "USD",
            "stripeToken": token,
            "description": self.trip,
            "email": "ada@example.com",
        }
        return self.http.put("/payment", json=body | changed)

    def charge(self, token: str = "tok_visa", **changed: Any) -> httpx.Response:
        body = {
            "stripeToken": token,
            "amount": 100_99,
            "currency": "usd",
            "email": "ada@example.com",
            "description": self.trip,
        }
        return self.http.post("/charge", json=body | changed)

    def charged(self) -> dict[str, Any]:
        answer = self.charge()
        assert answer.status_code == 200, answer.text
        created: dict[str, Any] = answer.json()["createdCharge"]
        return created

    def capture(self, charge: Any, **more: Any) -> httpx.Response:
        return self.http.post("/capture", json={"chargeId": charge} | more)

    def refund(self, charge: Any) -> httpx.Response:
        return self.http.post("/refund", json={"chargeId": charge})

    def at_stripe(self, **changed: str) -> dict[str, Any]:
        """A PaymentIntent that the front end has pre-authorised by itself."""
        form = {
            "amount": "10099",
            "currency": "usd",
            "payment_method": "pm_card_visa",
            "capture_method": "manual",
            "confirm": "true",
            "automatic_payment_methods[enabled]": "true",
            "automatic_payment_methods[allow_redirects]": "never",
        }
        answer = httpx.post(f"{self.system.stripe}/v1/payment_intents", headers=STRIPE_KEY, data=form | changed)
        made: dict[str, Any] = answer.json()
        return made

    def intents(self) -> list[dict[str, Any]]:
        """Those that were made for this trip."""
        return [one for one in self.system.state()["payment_intents"] if one["description"] == self.trip]


@pytest.fixture
def airline(system: System) -> Airline:
    return Airline(system)


# --- Pay ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", ["tok_visa", "pm_card_visa"])
def test_a_payment_is_pre_authorised_and_nothing_is_taken(airline: Airline, token: str) -> None:
    answer = airline.pay(token)
    assert (answer.status_code, answer.json()) == (200, {"status": "authorized"})
    [intent] = airline.intents()
    assert (intent["amount_capturable"], intent["amount_received"]) == (100_99, 0)


def test_a_card_that_is_declined_is_a_failed_payment(airline: Airline) -> None:
    assert airline.pay("tok_chargeDeclined").json() == {"status": "failed"}


def test_the_same_payment_put_a_hundred_times_is_one(airline: Airline) -> None:
    with ThreadPoolExecutor(20) as clicks:
        answers = list(clicks.map(lambda _: airline.pay(), range(100)))
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["status"] for answer in answers} <= {"authorized", "pending"}
    assert airline.pay().json() == {"status": "authorized"}
    assert len(airline.intents()) == 1


def test_two_equal_payments_are_two_under_keys_of_their_own(airline: Airline) -> None:
    body = {"amount": 1, "currency": "usd", "stripeToken": "tok_visa", "description": airline.trip, "email": "a@b.c"}
    for key in ("first", "second", "second"):
        headers = {"Idempotency-Key": f"{key} {airline.trip}"}
        assert airline.http.put("/payment", json=body, headers=headers).status_code == 200
    assert len(airline.intents()) == 2


# --- Adopt -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["id", "latest_charge"])
def test_what_the_front_end_pre_authorised_is_adopted(airline: Airline, by: str) -> None:
    intent = airline.at_stripe()
    assert airline.pay(intent[by]).json() == {"status": "authorized"}
    assert airline.pay(intent[by]).json() == {"status": "authorized"}, "once, however often it is asked"
    captured = airline.capture(intent["latest_charge"])
    assert captured.json()["capturedCharge"]["amount_captured"] == 100_99


@pytest.mark.parametrize("changed", [{"amount": 100.98}, {"currency": "EUR"}])
def test_what_is_not_as_it_was_told_is_not_adopted(airline: Airline, changed: dict[str, Any]) -> None:
    intent = airline.at_stripe()
    answer = airline.pay(intent["id"], **changed)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["pointer"] == "#/stripeToken"
    assert airline.capture(intent["latest_charge"]).status_code == 404, "nothing was recorded as authorized"


def test_what_is_not_there_or_not_authorised_is_not_adopted(airline: Airline) -> None:
    unconfirmed = airline.at_stripe(confirm="false")
    for token in ("pi_nothing", "ch_nothing", unconfirmed["id"]):
        assert airline.pay(token).status_code == 400


def test_a_payment_of_ours_is_not_adopted_as_another(airline: Airline) -> None:
    charge = airline.charged()
    assert airline.pay(charge["payment_intent"]).status_code == 400


# --- Charge, capture, refund -------------------------------------------------------------------------------------


def test_a_trip_is_charged_collected_and_refunded(airline: Airline) -> None:
    charge = airline.charged()
    assert (charge["amount"], charge["amount_captured"], charge["captured"]) == (100_99, 0, False)
    captured = airline.capture(charge["id"], email="ada@example.com").json()["capturedCharge"]
    assert (captured["id"], captured["captured"], captured["amount_captured"]) == (charge["id"], True, 100_99)
    assert captured["currency"] == "usd"
    assert captured["receipt_url"].startswith("https://")
    assert airline.capture(charge["id"]).json()["capturedCharge"] == captured, "asked again it is answered again"
    refund = airline.refund(charge["id"]).json()["createdRefund"]
    assert refund["id"].startswith("re_")
    assert (refund["amount"], refund["charge"]) == (100_99, charge["id"])
    assert airline.refund(charge["id"]).json()["createdRefund"] == refund
    [intent] = airline.intents()
    [returned] = [one for one in airline.system.state()["refunds"] if one["payment_intent"] == intent["id"]]
    assert returned["amount"] == 100_99


def test_what_was_never_taken_is_released(airline: Airline) -> None:
    charge = airline.charged()
    refund = airline.refund(charge["id"]).json()["createdRefund"]
    assert (refund["amount"], refund["charge"]) == (100_99, charge["id"])
    assert airline.refund(charge["id"]).json()["createdRefund"] == refund
    assert [intent["status"] for intent in airline.intents()] == ["canceled"]


def test_a_hundred_captures_and_refunds_at_once_move_once_each(airline: Airline) -> None:
    charge = airline.charged()["id"]
    with ThreadPoolExecutor(20) as clicks:
        captures = list(clicks.map(lambda _: airline.capture(charge).status_code, range(100)))
        assert set(captures) <= {200, 503}
        assert airline.capture(charge).status_code == 200
        refunds = list(clicks.map(lambda _: airline.refund(charge).status_code, range(100)))
        assert set(refunds) <= {200, 503}
    [intent] = airline.intents()
    assert intent["amount_received"] == 100_99
    assert len([one for one in airline.system.state()["refunds"] if one["payment_intent"] == intent["id"]]) == 1


def test_a_decline_is_no_charge(airline: Airline) -> None:
    assert airline.charge("tok_chargeDeclined").status_code == 402


def test_a_charge_that_nobody_knows_is_not_found(airline: Airline) -> None:
    strange = airline.at_stripe()["latest_charge"]
    for charge in ("ch_nothing", strange):
        assert airline.capture(charge).status_code == 404
        assert airline.refund(charge).status_code == 404


# --- Bad input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["stripeToken", "amount", "currency", "email", "description"])
@pytest.mark.parametrize("wrong", [None, "", [], "4242 4242 4242 4242"])
def test_a_field_that_is_wrong_is_named(airline: Airline, field: str, wrong: Any) -> None:
    if (field, wrong) == ("description", ""):
        assert airline.charge(description="").status_code == 200
        return
    for answer in (airline.charge(**{field: wrong}), airline.pay(**{field: wrong})):
        assert answer.status_code == 400
        assert f"#/{field}" in {error["pointer"] for error in answer.json()["errors"]}
        assert "4242" not in answer.text


@pytest.mark.parametrize("amount", [0, -1, 1.005, 1e-3])
def test_an_amount_that_cannot_be_moved_is_refused(airline: Airline, amount: float) -> None:
    assert airline.pay(amount=amount).status_code == 400


def test_a_charge_must_be_named(airline: Airline) -> None:
    for path in ("/capture", "/refund"):
        assert airline.http.post(path, json={}).status_code == 400
        assert airline.http.post(path, json={"chargeId": ""}).status_code == 400
        assert airline.http.post(path, content=b"").status_code == 400
    assert airline.http.put("/payment", content=b"").status_code == 400


def test_nobody_pays_without_the_scope(system: System) -> None:
    assert httpx.put(f"{system.url}/payment", json={}).status_code == 401
    for path in ("/charge", "/capture", "/refund"):
        assert httpx.post(f"{system.url}{path}", json={}).status_code == 401


def test_a_page_is_told_what_it_may_send(system: System) -> None:
    for path in ("/charge", "/capture", "/refund"):
        answer = httpx.options(f"{system.url}{path}", headers={"Origin": "https://airline.example"})
        assert answer.status_code == 204
        assert answer.headers["Access-Control-Allow-Headers"] == "Content-Type, Authorization, X-Api-Key"
        assert answer.headers["Access-Control-Allow-Methods"] == "OPTIONS, POST"
        assert answer.headers["Access-Control-Max-Age"] == "86400"
        assert "Access-Control-Allow-Origin" not in answer.headers, "no page is allowed unless the settings say so"


def test_payments_are_counted_by_the_names_that_dashboards_know(airline: Airline) -> None:
    airline.charged()
    counted = airline.http.get("/metrics").text
    for name in (
        "InvalidPaymentRequest",
        "SuccessfulPayment",
        "FailedPayment",
        "InvalidRefundRequest",
        "SuccessfulRefund",
        "FailedRefund",
    ):
        assert f"\n{name}_total{{" in counted


@pytest.mark.parametrize(
    ("history", "word"),
    [
        ((started(),), "pending"),
        (AUTHORIZED, "authorized"),
        (CAPTURED, "captured"),
        ((*AUTHORIZED, *voided()), "failed"),
        ((started(), failed()), "failed"),
        ((*CAPTURED, *refunded("re_1", 100_00)), "refunded"),
    ],
)
def test_the_airline_has_a_word_for_every_state(history: Any, word: Status) -> None:
    payment = fold(history)
    assert payment is not None
    assert word_for(payment) == word
