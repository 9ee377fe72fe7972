"""The airline's contract (CONTRACTS.md, section 1) as its callers see it: over HTTP, from the outside."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator

import httpx
import pytest

from tests import black_box
from tests.black_box import HEAL_S, HUNDRED, TRAVELLER, Airline, Fields, agreed, refused, said, together
from tests.processes import eventually
from tests.system import CHECKOUT

Command = Callable[[Airline, str], httpx.Response]
Payment = Callable[[Airline, str, int], httpx.Response]

FRONT_END = "https://fly.example"
BOOKED = ("--customer=customer-1", "--booking=booking-1")
COMMANDS = ("/charge", "/capture", "/refund")
PLAIN = {**TRAVELLER, "stripeToken": "tok_visa", "amount": "@", "currency": "USD"}
# Not dollars above zero in plain digits.
WRONG_AMOUNTS = ["1e3", "1E2", "1.5e1", "NaN", "Infinity", "0", "0.00", "-0.01", "-5", "100.999", "true", "null", "[1]"]
WRONG_CHARGES = [
    *({"amount": amount} for amount in ("a lot", 0, -1, 100.5, None, True)),
    *({"currency": currency} for currency in ("dollars", "xyz", "", 840)),
    *({"stripeToken": token} for token in ("", "nonsense", 7)),
    {"email": 7},
    {"description": 7},
]


@pytest.fixture(scope="module")
def airline() -> Iterator[Airline]:
    with black_box.serving(Airline, CORS_ORIGINS=FRONT_END) as service:
        yield service


@pytest.fixture
def minor() -> int:
    """Cents that no other test pays."""
    return black_box.unique_minor()


def with_amount(amount: str, **fields: str) -> str:
    """A body with an amount as it stands there."""
    return json.dumps(PLAIN | fields).replace('"@"', amount)


# PUT /payment


@pytest.mark.parametrize("token", ["tok_visa", "pm_card_visa"])
def test_a_traveller_is_charged_a_preauthorisation_not_the_full_amount(
    airline: Airline, minor: int, token: str
) -> None:
    assert said(airline.put(token, minor)) == {"status": "authorized"}
    [intent] = airline.intents(minor)
    assert (intent["status"], intent["currency"], intent["amount_received"]) == ("requires_capture", "usd", 0)
    assert airline.the_payment(intent["id"], "authorized")["amount_authorized"] == minor


def test_two_travellers_with_the_same_test_token_make_two_payments(airline: Airline, minor: int) -> None:
    for name in ("ada", "grace"):
        traveller = {"email": f"{name}@fly.example", "description": f"the seat of {name}"}
        assert said(airline.put("tok_visa", minor, **traveller)) == {"status": "authorized"}
    assert len(airline.intents(minor)) == 2


@pytest.mark.parametrize("token", ["tok_chargeDeclined", "pm_card_chargeDeclined"])
def test_a_declined_card_is_a_failed_payment(airline: Airline, minor: int, token: str) -> None:
    assert said(airline.put(token, minor)) == {"status": "failed"}
    assert airline.intents(minor) == []


@pytest.mark.parametrize("named", ["id", "latest_charge"])
def test_a_payment_preauthorised_at_stripe_is_adopted(airline: Airline, minor: int, named: str) -> None:
    intent = airline.preauthorised(minor)
    charge_id = intent["latest_charge"]
    assert said(airline.put(intent[named], minor)) == {"status": "authorized"}
    payment = airline.the_payment(intent["id"], "authorized")
    assert (payment["amount_authorized"], payment["currency"]) == (minor, "usd")
    assert payment["stripe"] == {"payment_intent": intent["id"], "charge": charge_id}
    assert said(airline.capture(charge_id))["capturedCharge"]["amount_captured"] == minor
    assert said(airline.refund(charge_id))["createdRefund"]["amount"] == minor
    assert [found["id"] for found in airline.intents(minor)] == [intent["id"]]


@pytest.mark.parametrize("named", ["id", "latest_charge"])
@pytest.mark.parametrize("claim", [{"amount": 0.01}, {"amount": 999999.99}, {"currency": "EUR"}], ids=str)
def test_a_preauthorisation_of_other_money_is_refused_and_not_recorded(
    airline: Airline, minor: int, named: str, claim: Fields
) -> None:
    intent = airline.preauthorised(minor)
    refused(airline.put(intent[named], minor, **claim))
    assert [found for found in airline.by_now_in_ledger(intent["id"]) if found["amount_authorized"]] == []
    refused(airline.capture(intent["latest_charge"]))
    assert [found["status"] for found in airline.intents(minor)] == ["requires_capture"]


def test_a_mistaken_amount_does_not_bar_the_right_one(airline: Airline, minor: int) -> None:
    intent = airline.preauthorised(minor)
    refused(airline.put(intent["id"], minor + 1_000_000))
    assert said(airline.put(intent["id"], minor)) == {"status": "authorized"}
    refused(airline.put(intent["id"], minor + 1_000_000))
    assert airline.the_payment(intent["id"], "authorized")["amount_authorized"] == minor


@pytest.mark.parametrize("token", ["pi_unknown", "ch_unknown", "", "nonsense"])
def test_a_token_that_names_nothing_is_refused(airline: Airline, token: str) -> None:
    refused(airline.put(token, black_box.unique_minor()))


def test_what_was_not_authorised_or_was_released_at_stripe_is_not_adopted(airline: Airline, minor: int) -> None:
    released = airline.preauthorised(minor)
    airline.at_stripe(f"/v1/payment_intents/{released['id']}/cancel")
    for intent in (released, airline.preauthorised(minor, confirm="false")):
        refused(airline.put(intent["id"], minor))
        assert [found for found in airline.by_now_in_ledger(intent["id"]) if found["amount_authorized"]] == []


def test_two_callers_who_name_the_same_preauthorisation_share_one_payment(airline: Airline, minor: int) -> None:
    intent = airline.preauthorised(minor)
    said(airline.put(intent["id"], minor))
    with airline.caller("another-front-end", "write:payment") as other:
        other.put("/payment", content=black_box.wanted(intent["id"], minor))
    assert len(airline.by_now_in_ledger(intent["id"])) == 1


@pytest.mark.parametrize("headers", [{}, black_box.bearer("not.a.token"), {"Authorization": "Basic dXNlcjpwYXNz"}])
def test_without_a_token_nothing_is_paid(airline: Airline, minor: int, headers: dict[str, str]) -> None:
    answer = httpx.put(f"{airline.url}/payment", content=black_box.wanted("tok_visa", minor), headers=headers)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert airline.intents(minor) == []


@pytest.mark.parametrize(("scope", "status"), [("read:payment", 403), ("write:payment", 200)])
def test_only_the_scope_write_payment_may_pay(airline: Airline, minor: int, scope: str, status: int) -> None:
    with airline.caller("front-end", scope) as caller:
        assert caller.put("/payment", content=black_box.wanted("tok_visa", minor)).status_code == status
    assert len(airline.intents(minor)) == (status == 200)


@pytest.mark.parametrize("body", ["", "null", "[]", "{}", '"payment"', '{"amount": 1.00'])
def test_a_body_is_required(airline: Airline, body: str) -> None:
    refused(airline.http.put("/payment", content=body))


@pytest.mark.parametrize("field", ["amount", "currency", "stripeToken"])
def test_a_payment_names_its_amount_currency_and_token(airline: Airline, field: str) -> None:
    body = PLAIN | {"amount": 100.99}
    refused(airline.http.put("/payment", json={name: body[name] for name in body if name != field}))


@pytest.mark.parametrize(
    ("amount", "currency"),
    [*((amount, "USD") for amount in WRONG_AMOUNTS), ("500.5", "JPY"), ("1.2345", "KWD"), ("10", "XYZ"), ("10", "")],
)
def test_only_plain_amounts_above_zero_with_the_digits_of_their_currency_are_paid(
    airline: Airline, amount: str, currency: str
) -> None:
    before = len(airline.state()["payment_intents"])
    refused(airline.http.put("/payment", content=with_amount(amount, currency=currency)))
    assert len(airline.state()["payment_intents"]) == before


@pytest.mark.parametrize(
    ("amount", "currency", "minor"),
    [("1.09", "USD", 109), ("0.57", "eur", 57), ("5400", "JPY", 5400), ("1.230", "KWD", 1230), ("1.1", "USD", 110)],
)
def test_an_amount_becomes_the_minor_units_of_its_currency(
    airline: Airline, amount: str, currency: str, minor: int
) -> None:
    before = {intent["id"] for intent in airline.state()["payment_intents"]}
    said(airline.http.put("/payment", content=with_amount(amount, currency=currency)))
    [intent] = [new for new in airline.state()["payment_intents"] if new["id"] not in before]
    assert (intent["amount"], intent["currency"]) == (minor, currency.lower())


# POST /charge, /capture, /refund


def test_a_charge_only_preauthorises_its_minor_units(airline: Airline, minor: int) -> None:
    assert said(airline.charge("tok_visa", minor))["createdCharge"]["id"]
    [intent] = airline.intents(minor)
    assert (intent["status"], intent["capture_method"]) == ("requires_capture", "manual")
    assert (intent["amount"], intent["amount_received"], intent["currency"]) == (minor, 0, "usd")


@pytest.mark.parametrize("field", ["stripeToken", "amount", "currency", "email", "description"])
def test_a_charge_with_a_missing_field_is_refused(airline: Airline, minor: int, field: str) -> None:
    body = PLAIN | {"amount": minor}
    answer = airline.http.post("/charge", json={name: body[name] for name in body if name != field})
    assert answer.status_code == 400
    assert airline.intents(minor) == []


@pytest.mark.parametrize("wrong", WRONG_CHARGES, ids=str)
def test_a_charge_with_a_wrong_field_is_refused(airline: Airline, wrong: Fields) -> None:
    before = len(airline.state()["payment_intents"])
    assert airline.http.post("/charge", json=PLAIN | {"amount": black_box.unique_minor()} | wrong).status_code == 400
    assert len(airline.state()["payment_intents"]) == before


@pytest.mark.parametrize("body", ["", "[]", with_amount("1e3"), with_amount("NaN")])
def test_a_charge_that_cannot_be_read_is_refused(airline: Airline, body: str) -> None:
    assert airline.http.post("/charge", content=body).status_code == 400


def test_a_declined_card_is_not_a_created_charge(airline: Airline, minor: int) -> None:
    assert airline.charge("tok_chargeDeclined", minor).status_code in (400, 402)
    assert airline.intents(minor) == []


def test_the_full_amount_is_taken_once_the_booking_is_confirmed(airline: Airline, minor: int) -> None:
    charge_id = airline.charged(minor)
    answer = airline.http.post("/capture", json={"chargeId": charge_id, "email": "traveller@fly.example"})
    taken = said(answer)["capturedCharge"]
    assert (taken["id"], taken["captured"]) == (charge_id, True)
    assert (taken["amount"], taken["amount_captured"], taken["currency"].lower()) == (minor, minor, "usd")
    assert httpx.URL(taken["receipt_url"]).scheme == "https"
    [intent] = airline.intents(minor)
    assert (intent["status"], intent["amount_received"]) == ("succeeded", minor)


@pytest.mark.parametrize("path", ["/capture", "/refund"])
@pytest.mark.parametrize("body", ["", "{}", '{"chargeId": ""}', '{"chargeId": null}', '{"chargeId": 5}'])
def test_a_command_without_a_charge_is_refused(airline: Airline, path: str, body: str) -> None:
    assert airline.http.post(path, content=body).status_code == 400


@pytest.mark.parametrize("path", ["/capture", "/refund"])
def test_an_unknown_charge_is_not_found(airline: Airline, path: str) -> None:
    assert airline.http.post(path, json={"chargeId": "ch_unknown"}).status_code == 404


def test_a_refund_gives_back_all_that_is_left(airline: Airline, minor: int) -> None:
    charge_id = airline.captured(minor)
    airline.moved(airline.the_payment(charge_id, "captured"), "refunds", amount=4000)
    answer = airline.http.post("/refund", json={"chargeId": charge_id, "email": "traveller@fly.example"})
    created = said(answer)["createdRefund"]
    assert (created["amount"], created["charge"]) == (minor - 4000, charge_id)
    assert created["id"] in {refund["id"] for refund in airline.state()["refunds"]}
    assert airline.returned(minor) in ([4000, minor - 4000], [minor - 4000, 4000])


def test_a_failed_booking_releases_what_was_not_taken(airline: Airline, minor: int) -> None:
    charge_id = airline.charged(minor)
    created = said(airline.refund(charge_id))["createdRefund"]
    assert (created["amount"], created["charge"], bool(created["id"])) == (minor, charge_id, True)
    assert airline.intents(minor) == []
    assert airline.the_payment(charge_id, "voided")["amount_captured"] == 0
    refused(airline.capture(charge_id))


# OPTIONS


@pytest.mark.parametrize("path", COMMANDS)
def test_a_front_end_may_ask_before_it_calls(airline: Airline, path: str) -> None:
    answer = httpx.options(f"{airline.url}{path}", headers={"Origin": FRONT_END})
    assert (answer.status_code, answer.text) == (204, "")
    allowed = {
        name: answer.headers[f"Access-Control-Allow-{name}"].lower().split(", ") for name in ("Headers", "Methods")
    }
    assert sorted(allowed["Headers"]) == ["authorization", "content-type", "x-api-key"]
    assert sorted(allowed["Methods"]) == ["options", "post"]
    assert answer.headers["Access-Control-Max-Age"] == "86400"


@pytest.mark.parametrize("path", COMMANDS)
@pytest.mark.parametrize(("origin", "allowed"), [(FRONT_END, FRONT_END), ("https://evil.example", None)])
def test_only_the_origins_of_the_settings_may_read_an_answer(
    airline: Airline, path: str, origin: str, allowed: str | None
) -> None:
    for method in ("OPTIONS", "POST"):
        answer = airline.http.request(method, path, headers={"Origin": origin})
        assert answer.headers.get("Access-Control-Allow-Origin") == allowed


# Whatever is clicked twice or lost


@pytest.mark.parametrize("pay", [Airline.put, Airline.charge])
def test_a_hundred_clicks_hold_the_money_once(airline: Airline, minor: int, pay: Payment) -> None:
    card = airline.new_card()
    bodies = agreed(together([lambda: pay(airline, card, minor)] * HUNDRED))
    assert {body.get("status") for body in bodies} <= {"authorized", "pending", None}
    assert len(airline.intents(minor)) == 1


def test_a_hundred_clicks_adopt_a_payment_once(airline: Airline, minor: int) -> None:
    intent = airline.preauthorised(minor)
    bodies = agreed(together([lambda: airline.put(intent["id"], minor)] * HUNDRED))
    assert {body["status"] for body in bodies} <= {"authorized", "pending"}
    assert len(airline.by_now_in_ledger(intent["id"])) == len(airline.intents(minor)) == 1


@pytest.mark.parametrize("command", [Airline.capture, Airline.refund])
def test_a_hundred_clicks_move_the_money_once(airline: Airline, minor: int, command: Command) -> None:
    charge_id = airline.charged(minor) if command is Airline.capture else airline.captured(minor)
    bodies = agreed(together([lambda: command(airline, charge_id)] * HUNDRED), 503)  # not known yet: ask again
    assert [body for body in bodies if body != said(command(airline, charge_id))] == []
    assert [found["amount_received"] for found in airline.intents(minor)] == [minor]
    assert airline.returned(minor) == ([minor] if command is Airline.refund else [])


def test_an_answer_that_stripe_lost_is_pending_and_not_failed(airline: Airline, minor: int) -> None:
    with airline.fault("POST /v1/payment_intents", "reply_lost", times=10):
        answer = airline.put("tok_visa", minor)
    assert (answer.status_code in (200, 202), answer.json()) == (True, {"status": "pending"})
    airline.the_payment(airline.intents(minor)[0]["id"], "authorized")
    assert said(airline.put("tok_visa", minor)) == {"status": "authorized"}
    assert len(airline.intents(minor)) == 1


@pytest.mark.parametrize("command", [Airline.capture, Airline.refund])
def test_a_command_whose_answer_was_lost_may_be_sent_again(airline: Airline, minor: int, command: Command) -> None:
    charge_id = airline.charged(minor) if command is Airline.capture else airline.captured(minor)
    [intent] = airline.intents(minor)
    path = f"payment_intents/{intent['id']}/capture" if command is Airline.capture else "refunds"
    with airline.fault(f"POST /v1/{path}", "reply_lost", times=10):
        assert command(airline, charge_id).status_code not in (400, 402, 404)
    eventually(lambda: command(airline, charge_id).status_code == 200, HEAL_S)
    assert [found["amount_received"] for found in airline.intents(minor)] == [minor]
    assert airline.returned(minor) == ([minor] if command is Airline.refund else [])


# One vocabulary and one ledger


def test_money_already_taken_at_stripe_is_captured_or_refused(airline: Airline, minor: int) -> None:
    intent = airline.preauthorised(minor, capture_method="automatic")
    answer = airline.put(intent["id"], minor)
    assert answer.status_code in (400, 409, 422) or said(answer) == {"status": "captured"}


def test_the_ledger_tells_the_same_money_and_history_of_a_journey(airline: Airline, minor: int) -> None:
    charge_id = airline.captured(minor)
    said(airline.refund(charge_id))
    payment = airline.the_payment(charge_id, "refunded")
    assert [payment[f"amount_{word}"] for word in ("authorized", "captured", "refunded")] == [minor] * 3
    story = ["AuthorizationStarted", "Authorized", "CaptureStarted", "Captured", "RefundStarted", "Refunded"]
    assert airline.history(payment["id"]) == story


def test_a_payment_of_the_ledger_is_captured_and_refunded_by_the_airline(airline: Airline) -> None:
    payment = airline.paid(amount=black_box.unique_minor())
    charge_id = payment["stripe"]["charge"]
    assert said(airline.capture(charge_id))["capturedCharge"]["amount_captured"] == payment["amount"]
    assert said(airline.refund(charge_id))["createdRefund"]["amount"] == payment["amount"]
    assert airline.the_payment(charge_id, "refunded")["id"] == payment["id"]


# Metrics, and the booking workflow on the command line


def test_every_outcome_is_measured_under_its_name(airline: Airline) -> None:
    kinds = ("InvalidPaymentRequest", "SuccessfulPayment", "FailedPayment")
    names = (*kinds, "InvalidRefundRequest", "SuccessfulRefund", "FailedRefund")
    before = {name: airline.measured(name) for name in names}
    refunded, kept = airline.captured(black_box.unique_minor()), airline.captured(black_box.unique_minor())
    airline.http.post("/charge", json={})
    airline.put("pm_card_chargeDeclined", black_box.unique_minor())
    airline.refund(refunded)
    airline.http.post("/refund", json={})
    with airline.fault("POST /v1/refunds", "error", status=400, times=10):
        airline.refund(kept)
    airline.refund("ch_unknown")
    eventually(lambda: all(airline.measured(name) > before[name] for name in names))


def workflow(airline: Airline, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "interface.cli", *words, "--data", str(airline.data)]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)


def test_the_booking_workflow_collects_and_refunds_on_the_command_line(airline: Airline, minor: int) -> None:
    charge_id = airline.charged(minor)
    collected = workflow(airline, "collect", f"--charge={charge_id}", *BOOKED)
    assert collected.returncode == 0, collected.stderr
    assert json.loads(collected.stdout)["price"] == minor
    assert httpx.URL(json.loads(collected.stdout)["receiptUrl"]).scheme == "https"
    refunded = workflow(airline, "refund", f"--charge={charge_id}")
    assert refunded.returncode == 0, refunded.stderr
    assert json.loads(refunded.stdout)["refundId"]
    assert airline.returned(minor) == [minor]


@pytest.mark.parametrize("words", [("collect", "--charge=", *BOOKED), ("refund", "--charge=")])
def test_an_empty_charge_id_is_invalid_on_the_command_line(airline: Airline, words: tuple[str, ...]) -> None:
    ended = workflow(airline, *words)
    assert ended.returncode != 0
    assert "InvalidChargeID" in ended.stdout + ended.stderr
