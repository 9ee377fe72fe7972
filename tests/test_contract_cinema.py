"""The cinema's contract, over HTTP as its callers use it: every row, every status, and the card's number nowhere."""

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from msgspec import Raw

from domain.errors import InvalidAmount, UnknownCurrency
from domain.money import Money
from domain.payment_facts import Failure
from interface.web.contracts.amounts import from_major, to_major
from interface.web.contracts.cinema_words import code_of
from tests.system import System

VISA, DECLINED = "4111111111111111", "4000000000000002"
MISSING_TRANSACTION = "TXN-" + "0" * 32


def card(number: str = VISA, **changed: Any) -> dict[str, Any]:
    return {
        "card_number": number,
        "expiry_month": 12,
        "expiry_year": 2034,
        "cvv": "123",
        "cardholder_name": "Ada",
    } | changed


class Cinema:
    """A caller with a booking of its own."""

    def __init__(self, system: System) -> None:
        self.http = system.http
        self.booking, self.user = f"booking-{uuid4()}", f"user-{uuid4()}"

    def process(self, **changed: Any) -> httpx.Response:
        body = {
            "user_id": self.user,
            "booking_id": self.booking,
            "amount": 25.50,
            "payment_method": "credit_card",
            "card_details": card(),
        }
        return self.http.post("/payment/process", json=body | changed)

    def paid(self, **changed: Any) -> dict[str, Any]:
        answer = self.process(**changed)
        assert answer.status_code == 200, answer.text
        read: dict[str, Any] = answer.json()
        return read

    def refund(self, transaction: str, amount: float, **changed: Any) -> httpx.Response:
        body = {
            "booking_id": self.booking,
            "original_transaction_id": transaction,
            "refund_amount": amount,
            "reason": "the show was cancelled",
            "user_id": self.user,
        }
        return self.http.post("/payment/refund", json=body | changed)

    def status(self, transaction: str) -> httpx.Response:
        return self.http.get(f"/payment/status/{transaction}")


@pytest.fixture
def cinema(system: System) -> Cinema:
    return Cinema(system)


# --- Paying ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [VISA, "5555555555554444", "378282246310005", "4111 1111 1111 1111"])
@pytest.mark.parametrize("method", ["credit_card", "debit_card", "stripe"])
def test_a_booking_is_paid_by_card(cinema: Cinema, number: str, method: str) -> None:
    paid = cinema.paid(card_details=card(number), payment_method=method)
    assert paid["status"] == "success"
    assert paid["transaction_id"].startswith("TXN-")
    assert (paid["booking_id"], paid["amount"], paid["payment_method"]) == (cinema.booking, 25.5, method)
    assert paid["processed_at"]
    assert paid["message"]
    assert cinema.status(paid["transaction_id"]).json()["payment_method"] == method


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (DECLINED, "CARD_DECLINED"),
        ("4000000000009995", "INSUFFICIENT_FUNDS"),
        ("4000000000000069", "CARD_EXPIRED"),
        ("4000000000000127", "INVALID_CARD"),
        ("4000000000000119", "PAYMENT_GATEWAY_ERROR"),
        ("1234567812345678", "INVALID_CARD"),
        ("", "INVALID_CARD"),
    ],
)
def test_a_card_that_is_refused_says_why_and_another_may_be_tried(cinema: Cinema, number: str, code: str) -> None:
    answer = cinema.process(card_details=card(number))
    failed = answer.json()
    assert (answer.status_code, failed["status"], failed["error_code"]) == (400, "failed", code)
    assert (failed["booking_id"], failed["amount"]) == (cinema.booking, 25.5)
    assert failed["error_message"]
    assert "transaction_id" not in failed
    assert cinema.paid()["status"] == "success"


def test_without_card_details_the_payment_fails_with_a_clear_code(cinema: Cinema) -> None:
    answer = cinema.process(card_details=None)
    assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_CARD")


def test_a_card_that_expired_is_not_even_tried(cinema: Cinema) -> None:
    answer = cinema.process(card_details=card(expiry_year=2020))
    assert (answer.status_code, answer.json()["error_code"]) == (400, "CARD_EXPIRED")


def test_a_method_that_is_not_enabled_is_refused(cinema: Cinema) -> None:
    methods = {method["id"]: method for method in cinema.http.get("/payment/methods").json()["payment_methods"]}
    assert {name: method["enabled"] for name, method in methods.items()} == {
        "credit_card": True,
        "debit_card": True,
        "paypal": False,
        "stripe": True,
    }
    assert all(method["name"] and method["description"] for method in methods.values())
    assert cinema.process(payment_method="paypal").json()["status"] == "failed"


def test_a_booking_is_paid_once(cinema: Cinema) -> None:
    first = cinema.paid()
    answer = cinema.process(amount=30)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (409, "DUPLICATE_TRANSACTION")
    assert error["details"] == {
        "reason": error["message"],
        "transaction_id": first["transaction_id"],
        "retry_possible": False,
    }
    assert answer.json()["timestamp"]


def test_a_hundred_clicks_at_once_are_one_movement(system: System, cinema: Cinema) -> None:
    with ThreadPoolExecutor(20) as clicks:
        answers = Counter(clicks.map(lambda _: cinema.process().status_code, range(100)))
    assert answers == {200: 1, 409: 99}
    order = system.found(f"/v1/orders/{cinema.booking}", after=int(last_position(system, cinema.booking)))
    assert [payment["amount_captured"] for payment in order["payments"]] == [25_50]


def last_position(system: System, booking: str) -> int:
    payments = system.found("/v1/payments", order=booking)["payments"]
    return max((system.facts(payment["id"])[-1]["position"] for payment in payments), default=0)


def test_a_booking_paid_here_is_a_payment_like_any_other(system: System, cinema: Cinema) -> None:
    stream = cinema.paid()["transaction_id"].removeprefix("TXN-")
    facts = system.facts(stream)
    payment = system.payment(stream, after=facts[-1]["position"])
    assert (payment["status"], payment["amount_captured"], payment["order"]) == ("captured", 25_50, cinema.booking)
    assert system.moved(payment, "refunds", amount=25_50)["status"] == "refunded"
    assert cinema.status(f"TXN-{stream}").json()["status"] == "refunded"


# --- Refunding ---------------------------------------------------------------------------------------------------


def test_a_booking_is_refunded_in_parts_up_to_what_was_paid(cinema: Cinema) -> None:
    transaction = cinema.paid(amount=10)["transaction_id"]
    first = cinema.refund(transaction, 4)
    assert first.status_code == 200
    returned = first.json()
    assert returned["refund_transaction_id"].startswith("REF-")
    assert (returned["status"], returned["refund_amount"], returned["booking_id"]) == ("success", 4.0, cinema.booking)
    assert returned["original_transaction_id"] == transaction
    assert cinema.status(transaction).json()["status"] == "completed"
    assert cinema.refund(transaction, 6.01).json()["error"]["code"] == "REFUND_NOT_ALLOWED"
    assert cinema.refund(transaction, 6).status_code == 200
    assert cinema.status(transaction).json()["status"] == "refunded"
    assert cinema.refund(transaction, 1, reason="once more").status_code == 400


def test_the_same_refund_asked_at_once_a_hundred_times_moves_once(cinema: Cinema) -> None:
    transaction = cinema.paid(amount=10)["transaction_id"]
    with ThreadPoolExecutor(20) as clicks:
        answers = list(clicks.map(lambda _: cinema.refund(transaction, 4), range(100)))
    told = {answer.json()["refund_transaction_id"] for answer in answers if answer.status_code == 200}
    assert len(told) == 1
    assert {answer.status_code for answer in answers} <= {200, 502}, "502: it is under way, and may be asked again"
    assert cinema.refund(transaction, 6).status_code == 200


def test_nobody_refunds_what_is_not_theirs_or_not_there(cinema: Cinema) -> None:
    transaction = cinema.paid()["transaction_id"]
    assert cinema.refund(transaction, 1, user_id="somebody").json()["error"]["code"] == "REFUND_NOT_ALLOWED"
    assert cinema.refund(transaction, 1, booking_id="another").json()["error"]["code"] == "REFUND_NOT_ALLOWED"
    for missing in (MISSING_TRANSACTION, "TXN-", "4111", "nonsense"):
        assert cinema.refund(missing, 1).status_code == 404
        assert cinema.status(missing).status_code == 404


# --- Bad input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["user_id", "booking_id", "amount", "payment_method"])
def test_a_field_that_is_missing_is_named(cinema: Cinema, field: str) -> None:
    body = {"user_id": "u", "booking_id": "b", "amount": 1, "payment_method": "stripe"}
    answer = cinema.http.post("/payment/process", json={name: body[name] for name in body if name != field})
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", field]


@pytest.mark.parametrize("amount", ["x", None, [], True])
def test_an_amount_that_is_no_number_is_refused(cinema: Cinema, amount: Any) -> None:
    assert cinema.process(amount=amount).status_code == 422
    assert cinema.refund(MISSING_TRANSACTION, amount).status_code == 422


@pytest.mark.parametrize("amount", ["0", "-1", "1.234", "1e3", "1E-2", "0.001", "1000000000000000"])
def test_an_amount_that_cannot_be_moved_is_refused(cinema: Cinema, amount: str) -> None:
    body = json.dumps({"user_id": "u", "booking_id": "b", "payment_method": "stripe", "card_details": card()})
    answer = cinema.http.post("/payment/process", content=body[:-1] + f', "amount": {amount}}}')
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "INVALID_AMOUNT")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"\xff", b"[" * 5000])
def test_a_body_that_cannot_be_read_is_refused(cinema: Cinema, body: bytes) -> None:
    for path in ("/payment/process", "/payment/refund"):
        assert cinema.http.post(path, content=body).status_code == 422


def test_nobody_pays_without_a_token(system: System) -> None:
    assert httpx.post(f"{system.url}/payment/process", json={}).status_code == 401
    assert httpx.get(f"{system.url}/payment/methods").status_code == 401


# --- Words and amounts -------------------------------------------------------------------------------------------


def test_every_cent_from_nothing_to_ten_thousand_comes_back() -> None:
    for minor in range(1, 1_000_001):
        text = f"{minor // 100}.{minor % 100:02}"
        money = from_major(text, "usd")
        assert money.minor == minor
        assert bytes(to_major(money)).decode() == text


def test_amounts_have_the_digits_of_their_currency() -> None:
    assert from_major(Raw(b"7"), "jpy") == Money(7, "jpy")
    assert from_major("1.5", "kwd") == Money(1500, "kwd")
    assert bytes(to_major(Money(1500, "kwd"))) == b"1.500"
    for text, currency in (
        ("0", "usd"),
        ("0.00", "usd"),
        ("1.5", "jpy"),
        ("NaN", "usd"),
        ("1e3", "usd"),
        ("01", "usd"),
    ):
        with pytest.raises(InvalidAmount):
            from_major(text, currency)
    with pytest.raises(UnknownCurrency):
        from_major("1", "xxx")


def test_a_decline_that_nobody_has_heard_of_is_a_decline() -> None:
    assert code_of(Failure("card_declined", "something_new", "no", retryable=False)) == "CARD_DECLINED"
    assert code_of(None) == "CARD_DECLINED"


# --- The number is nowhere ---------------------------------------------------------------------------------------


def test_a_card_s_number_is_kept_nowhere(system: System, cinema: Cinema) -> None:
    number = "6011111111111117"  # one that no other test sends
    assert cinema.process(card_details=card(number)).status_code == 200
    cinema.process(card_details=card(f"{number[:4]} {number[4:8]} {number[8:12]} {number[12:]}"))
    cinema.process(card_details=card(), user_id=number)
    cinema.http.post("/payment/process", content=f'{{"card_details": {{"card_number": {number}}}}}')
    cinema.http.get(f"/payment/status/{number}")
    assert number not in system.http.get("/metrics").text
    holding = [path for path in files_of(system.data) if number.encode() in path.read_bytes()]
    assert holding == []


def files_of(folder: Path) -> list[Path]:
    """Logs, the database (which may live elsewhere), the broker's and the stand-in's journals."""
    roots = (folder, (folder / "postgres").resolve())
    found = [path for root in roots for path in root.rglob("*") if path.is_file()]
    assert any("journal" in path.name for path in found)
    assert any("pg_wal" in path.parts for path in found)
    return found
