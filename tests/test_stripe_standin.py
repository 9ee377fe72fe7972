"""The Stripe stand-in, spoken to by the unmodified SDK over HTTP, and broken on purpose."""

import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import stripe

from interface.sandbox.stripe_journal import Journal, Record

ANSWER_S = 10.0
DAY_S = 24 * 3600
NUMBER = "4242424242424242"

APPROVED: Any = {
    "amount": 10_00,
    "currency": "usd",
    "payment_method": "pm_card_visa",
    "allowed_payment_method_types": ["card"],
    "confirm": True,
}
HELD: Any = {**APPROVED, "capture_method": "manual"}
IN_PARTS: Any = {**HELD, "payment_method_options": {"card": {"request_multicapture": "if_available"}}}


class StandIn:
    """A stand-in in a process of its own, with a client of the SDK and one for its control surface."""

    def __init__(self, data: Path, *flags: str) -> None:
        self.data = data
        self._flags = flags
        self.launch()

    def launch(self) -> None:
        command = [sys.executable, "-m", "interface.sandbox.stripe", "--data", str(self.data), *self._flags]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        word, _, port = self.process.stdout.readline().partition(" ")
        assert word == "ready"
        self.url = f"http://127.0.0.1:{int(port)}"
        self.control = httpx.Client(base_url=self.url + "/_sandbox", timeout=ANSWER_S)
        self.raw = httpx.Client(base_url=self.url, timeout=ANSWER_S, headers={"Authorization": "Bearer sk_test_raw"})
        self.sdk: Any = stripe.StripeClient(
            "sk_test_sandbox",
            base_addresses={"api": self.url},
            http_client=stripe.HTTPXClient(timeout=ANSWER_S, allow_sync_methods=True),
        ).v1

    def kill(self) -> None:
        self.process.kill()
        self._reap()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self._reap()

    def _reap(self) -> int:
        code = self.process.wait(ANSWER_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.control.close()
        self.raw.close()
        return code

    def state(self) -> Any:
        return self.control.get("/state").json()

    def settled(self) -> Any:
        """The state without the clock, which runs on."""
        state = self.state()
        del state["now"]
        return state

    def fault(self, match: str, mode: str, **more: Any) -> None:
        armed = self.control.post("/faults", json={"match": match, "mode": mode, **more})
        assert armed.status_code == 200, armed.text

    def advance(self, seconds: int) -> int:
        return int(self.control.post("/clock", json={"advance_s": seconds}).json()["now"])

    def events_of(self, wanted: str) -> list[str]:
        """The types of all events about an object, oldest first."""
        return [e["type"] for e in self.state()["events"] if e["data"]["object"]["id"] == wanted]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandIn]:
    stand_in = StandIn(tmp_path_factory.mktemp("stripe"))
    yield stand_in
    assert stand_in.stop() == 0


@pytest.fixture
def here(shared: StandIn) -> Iterator[StandIn]:
    """One process for the tests that only add objects."""
    yield shared
    shared.control.delete("/faults")


@pytest.fixture
def own(tmp_path: Path) -> Iterator[StandIn]:
    """A process for one test, which may turn its clock or kill it."""
    stand_in = StandIn(tmp_path)
    yield stand_in
    stand_in.kill()


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[StandIn]:
    """One that shows a released reserve as Stripe does."""
    stand_in = StandIn(tmp_path, "--release-as-refund")
    yield stand_in
    stand_in.kill()


def key() -> Any:
    return {"idempotency_key": f"key-{uuid.uuid4()}"}


def moved(stand_in: StandIn, charge: str) -> int:
    """The sum of all balance transactions of a charge and its refunds, in minor units."""
    state = stand_in.state()
    sources = {charge} | {refund["id"] for refund in state["refunds"] if refund["charge"] == charge}
    return sum(txn["amount"] for txn in state["balance_transactions"] if txn["source"] in sources)


# Money


def test_authorized_captured_and_refunded_money_adds_up(here: StandIn) -> None:
    held = here.sdk.payment_intents.create({**HELD, "metadata": {"order": "42"}})
    assert (held.status, held.amount_capturable, held.amount_received) == ("requires_capture", 10_00, 0)

    taken = here.sdk.payment_intents.capture(held.id, {"expand": ["latest_charge"]})
    charge = taken.latest_charge
    assert (taken.status, taken.amount_capturable, taken.amount_received) == ("succeeded", 0, 10_00)
    assert (charge.captured, charge.amount_captured, charge.metadata.to_dict()) == (True, 10_00, {"order": "42"})

    for amount in (1_00, 2_50):
        refund = here.sdk.refunds.create({"payment_intent": held.id, "amount": amount})
        assert (refund.status, refund.amount, refund.charge) == ("succeeded", amount, charge.id)
    after = here.sdk.charges.retrieve(charge.id)
    assert (after.amount_refunded, after.refunded) == (3_50, False)
    assert moved(here, charge.id) == 10_00 - 3_50

    rest = here.sdk.refunds.create({"charge": charge.id})
    assert rest.amount == 6_50
    assert here.sdk.charges.retrieve(charge.id).refunded is True
    assert moved(here, charge.id) == 0


def test_every_balance_transaction_nets_amount_minus_fee_and_the_balance_is_their_sum(own: StandIn) -> None:
    paid = own.sdk.payment_intents.create(APPROVED)
    own.sdk.refunds.create({"payment_intent": paid.id, "amount": 4_00})
    movements = own.sdk.balance_transactions.list().data
    assert all(m.net == m.amount - m.fee for m in movements)
    assert sum(m.amount for m in movements) == 6_00
    net = sum(m.net for m in movements)
    assert [(p.currency, p.amount) for p in own.sdk.balance.retrieve().pending] == [("usd", net)]
    own.advance(3 * DAY_S)
    assert [(p.currency, p.amount) for p in own.sdk.balance.retrieve().available] == [("usd", net)]


def test_more_than_what_is_left_is_not_refunded(here: StandIn) -> None:
    paid = here.sdk.payment_intents.create(APPROVED)
    here.sdk.refunds.create({"payment_intent": paid.id, "amount": 7_00})
    with pytest.raises(
        stripe.InvalidRequestError, match=r"\(\$3\.01\) is greater than unrefunded amount on charge"
    ) as no:
        here.sdk.refunds.create({"payment_intent": paid.id, "amount": 3_01})
    assert (no.value.http_status, no.value.param) == (400, "amount")
    here.sdk.refunds.create({"payment_intent": paid.id, "amount": 3_00})
    with pytest.raises(stripe.InvalidRequestError) as none_left:
        here.sdk.refunds.create({"payment_intent": paid.id, "amount": 1})
    assert none_left.value.code == "charge_already_refunded"


def test_a_partial_capture_releases_the_rest(here: StandIn) -> None:
    held = here.sdk.payment_intents.create(HELD)
    taken = here.sdk.payment_intents.capture(held.id, {"amount_to_capture": 6_00})
    assert (taken.status, taken.amount_capturable, taken.amount_received) == ("succeeded", 0, 6_00)
    with pytest.raises(stripe.InvalidRequestError, match="already been captured") as again:
        here.sdk.payment_intents.capture(held.id)
    assert again.value.code == "payment_intent_unexpected_state"
    with pytest.raises(stripe.InvalidRequestError, match="greater than unrefunded"):
        here.sdk.refunds.create({"payment_intent": held.id, "amount": 6_01})
    assert moved(here, str(taken.latest_charge)) == 6_00


def test_without_multicapture_a_capture_is_final(here: StandIn) -> None:
    held = here.sdk.payment_intents.create({**HELD, "expand": ["latest_charge"]})
    assert held.latest_charge.payment_method_details.card.multicapture.status == "unavailable"
    with pytest.raises(stripe.InvalidRequestError) as no:
        here.sdk.payment_intents.capture(held.id, {"amount_to_capture": 1_00, "final_capture": False})
    assert no.value.param == "final_capture"


def test_multicapture_takes_parts_and_refunds_them_while_the_rest_is_held(here: StandIn) -> None:
    held = here.sdk.payment_intents.create({**IN_PARTS, "expand": ["latest_charge"]})
    charge = held.latest_charge
    assert charge.payment_method_details.card.multicapture.status == "available"
    first = here.sdk.payment_intents.capture(held.id, {"amount_to_capture": 3_00, "final_capture": False})
    assert (first.status, first.amount_capturable, first.amount_received) == ("requires_capture", 7_00, 3_00)

    here.sdk.refunds.create({"charge": charge.id, "amount": 3_00})
    while_held = here.sdk.charges.retrieve(charge.id)
    assert (while_held.captured, while_held.amount_refunded, while_held.refunded) == (False, 3_00, False)

    with pytest.raises(stripe.InvalidRequestError) as too_much:
        here.sdk.payment_intents.capture(held.id, {"amount_to_capture": 7_01, "final_capture": False})
    assert too_much.value.code == "amount_too_large"
    here.sdk.payment_intents.capture(held.id, {"amount_to_capture": 2_00, "final_capture": False})
    closed = here.sdk.payment_intents.capture(held.id, {"amount_to_capture": 0, "final_capture": True})
    assert (closed.status, closed.amount_capturable, closed.amount_received) == ("succeeded", 0, 5_00)
    after = here.sdk.charges.retrieve(charge.id)
    assert (after.captured, after.amount_captured, after.amount_refunded) == (True, 5_00, 3_00)
    assert moved(here, charge.id) == 5_00 - 3_00


def test_a_canceled_hold_moves_nothing_and_a_canceled_rest_keeps_what_was_captured(here: StandIn) -> None:
    held = here.sdk.payment_intents.create(HELD)
    gone = here.sdk.payment_intents.cancel(held.id, {"cancellation_reason": "abandoned"})
    assert (gone.status, gone.cancellation_reason, gone.amount_capturable) == ("canceled", "abandoned", 0)
    assert moved(here, str(gone.latest_charge)) == 0
    with pytest.raises(stripe.InvalidRequestError, match="status of canceled"):
        here.sdk.payment_intents.capture(held.id)
    with pytest.raises(stripe.InvalidRequestError, match="does not have a successful charge to refund"):
        here.sdk.refunds.create({"payment_intent": held.id})

    parts = here.sdk.payment_intents.create(IN_PARTS)
    here.sdk.payment_intents.capture(parts.id, {"amount_to_capture": 4_00, "final_capture": False})
    rest = here.sdk.payment_intents.cancel(parts.id)
    assert (rest.status, rest.amount_received, rest.amount_capturable) == ("canceled", 4_00, 0)
    assert here.sdk.refunds.create({"payment_intent": parts.id}).amount == 4_00


def test_an_uncaptured_hold_is_canceled_not_refunded(here: StandIn) -> None:
    held = here.sdk.payment_intents.create(HELD)
    with pytest.raises(stripe.InvalidRequestError, match="You must cancel the PaymentIntent"):
        here.sdk.refunds.create({"charge": str(held.latest_charge)})


def test_a_release_is_shown_as_a_refund_when_asked_for(mirror: StandIn) -> None:
    held = mirror.sdk.payment_intents.create(HELD)
    mirror.sdk.payment_intents.cancel(held.id)
    charge = mirror.sdk.charges.retrieve(str(held.latest_charge))
    assert (charge.captured, charge.refunded, charge.amount_refunded) == (False, True, 10_00)
    assert [r.balance_transaction for r in mirror.sdk.refunds.list({"charge": charge.id}).data] == [None]

    part = mirror.sdk.payment_intents.create(HELD)
    mirror.sdk.payment_intents.capture(part.id, {"amount_to_capture": 6_00})
    assert mirror.sdk.refunds.create({"payment_intent": part.id}).amount == 6_00


@pytest.mark.parametrize(
    ("amount", "currency", "code"),
    [
        (49, "usd", "amount_too_small"),
        (29, "gbp", "amount_too_small"),
        (49, "jpy", "amount_too_small"),
        (100_000_000, "usd", "amount_too_large"),
        (1_005, "kwd", "invalid_charge_amount"),
        (150, "isk", "invalid_charge_amount"),
        (0, "usd", "parameter_invalid_integer"),
        (-5, "usd", "parameter_invalid_integer"),
    ],
)
def test_an_amount_that_stripe_refuses_is_refused(here: StandIn, amount: int, currency: str, code: str) -> None:
    with pytest.raises(stripe.InvalidRequestError) as no:
        here.sdk.payment_intents.create({"amount": amount, "currency": currency})
    assert (no.value.http_status, no.value.code, no.value.param) == (400, code, "amount")


def test_amounts_at_the_limits_and_unusual_currencies_are_taken(here: StandIn) -> None:
    for amount, currency in ((50, "usd"), (99_999_999, "EUR"), (50, "jpy"), (1_000, "kwd"), (200, "isk")):
        paid = here.sdk.payment_intents.create({**APPROVED, "amount": amount, "currency": currency})
        assert (paid.status, paid.amount_received, paid.currency) == ("succeeded", amount, currency.lower())
    with pytest.raises(stripe.InvalidRequestError, match="Invalid currency: zzz"):
        here.sdk.payment_intents.create({"amount": 100, "currency": "zzz"})


# Cards

DECLINES = [
    ("visa_chargeDeclined", "card_declined", "generic_decline"),
    ("chargeDeclined", "card_declined", "generic_decline"),
    ("visa_chargeDeclinedInsufficientFunds", "card_declined", "insufficient_funds"),
    ("chargeDeclinedInsufficientFunds", "card_declined", "insufficient_funds"),
    ("visa_chargeDeclinedLostCard", "card_declined", "lost_card"),
    ("visa_chargeDeclinedStolenCard", "card_declined", "stolen_card"),
    ("chargeDeclinedExpiredCard", "expired_card", None),
    ("chargeDeclinedIncorrectCvc", "incorrect_cvc", None),
    ("chargeDeclinedProcessingError", "processing_error", None),
    ("visa_chargeDeclinedVelocityLimitExceeded", "card_declined", "card_velocity_exceeded"),
]


@pytest.mark.parametrize(("card", "code", "reason"), DECLINES)
def test_a_declined_card_says_why_and_leaves_a_failed_charge(
    here: StandIn, card: str, code: str, reason: str | None
) -> None:
    with pytest.raises(stripe.CardError) as declined:
        here.sdk.payment_intents.create({**HELD, "payment_method": f"pm_card_{card}"})
    error = declined.value.error
    assert error is not None
    assert error.payment_intent is not None
    assert (declined.value.http_status, declined.value.code, error.decline_code) == (402, code, reason)
    intent = here.sdk.payment_intents.retrieve(error.payment_intent.id, {"expand": ["latest_charge"]})
    charge = intent.latest_charge
    assert intent.last_payment_error is not None
    assert (intent.status, intent.last_payment_error.code) == ("requires_payment_method", code)
    assert (charge.id, charge.status, charge.paid, charge.failure_code) == (error.charge, "failed", False, code)
    assert here.events_of(intent.id) == ["payment_intent.created", "payment_intent.payment_failed"]
    assert here.sdk.payment_intents.confirm(intent.id, {"payment_method": "pm_card_visa"}).status == "requires_capture"


def test_a_declined_token_is_declined_for_a_charge_too(here: StandIn) -> None:
    with pytest.raises(stripe.CardError) as declined:
        here.sdk.charges.create({"amount": 5_00, "currency": "usd", "source": "tok_visa_chargeDeclinedLostCard"})
    assert declined.value.error is not None
    assert declined.value.error.decline_code == "lost_card"
    assert here.sdk.charges.retrieve(str(declined.value.error.charge)).status == "failed"


def test_a_charge_from_a_token_is_held_captured_in_part_and_refunded(here: StandIn) -> None:
    held = here.sdk.charges.create({"amount": 5_00, "currency": "usd", "source": "tok_visa", "capture": False})
    assert (held.captured, held.paid, held.payment_intent) == (False, True, None)
    taken = here.sdk.charges.capture(held.id, {"amount": 4_00})
    assert (taken.captured, taken.amount_captured) == (True, 4_00)
    with pytest.raises(stripe.InvalidRequestError) as again:
        here.sdk.charges.capture(held.id)
    assert again.value.code == "charge_already_captured"
    assert here.sdk.refunds.create({"charge": held.id}).amount == 4_00
    assert moved(here, held.id) == 0


def test_a_token_in_payment_method_data_pays(here: StandIn) -> None:
    data: Any = {"type": "card", "card": {"token": "tok_mastercard"}}
    given: Any = {k: v for k, v in APPROVED.items() if k != "payment_method"}
    paid = here.sdk.payment_intents.create({**given, "payment_method_data": data, "expand": ["payment_method"]})
    assert paid.payment_method.card is not None
    assert (paid.status, paid.payment_method.card.brand) == ("succeeded", "mastercard")


def test_a_created_token_can_be_used_once(here: StandIn) -> None:
    card: Any = {"number": "5555555555554444", "exp_month": "12", "exp_year": "2040", "cvc": "123"}
    token = here.sdk.tokens.create({"card": card})
    assert token.card is not None
    assert (token.card.last4, here.sdk.tokens.retrieve(token.id).used) == ("4444", False)
    method = here.sdk.payment_methods.create({"type": "card", "card": {"token": token.id}})
    assert here.sdk.tokens.retrieve(token.id).used is True
    assert here.sdk.payment_intents.create({**APPROVED, "payment_method": method.id}).status == "succeeded"
    with pytest.raises(stripe.InvalidRequestError) as again:
        here.sdk.payment_methods.create({"type": "card", "card": {"token": token.id}})
    assert again.value.code == "token_already_used"


def test_only_test_card_numbers_are_known(here: StandIn) -> None:
    for number, code in (("4242424242424241", "incorrect_number"), ("4532015112830366", "card_declined")):
        card: Any = {"number": number, "exp_month": 1, "exp_year": 2040}
        with pytest.raises(stripe.CardError) as no:
            here.sdk.payment_methods.create({"type": "card", "card": card})
        assert no.value.code == code
        assert number not in str(no.value.json_body)


def test_a_card_number_is_nowhere_in_the_data_directory_or_the_state(own: StandIn) -> None:
    card: Any = {"number": NUMBER, "exp_month": 1, "exp_year": 2040, "cvc": "987"}
    method = own.sdk.payment_methods.create({"type": "card", "card": card}, key())
    own.sdk.payment_intents.create({**APPROVED, "payment_method": method.id}, key())
    own.sdk.tokens.create({"card": {"number": NUMBER, "exp_month": "1", "exp_year": "2040", "cvc": "987"}}, key())
    stored = b"".join(file.read_bytes() for file in own.data.iterdir())
    assert NUMBER.encode() not in stored
    assert b'"cvc":' not in stored
    assert NUMBER not in own.control.get("/state").text
    assert method.card is not None
    assert method.card.last4 == "4242"


# 3-D Secure


def challenged(here: StandIn, **more: Any) -> Any:
    given: Any = {**HELD, "payment_method": "pm_card_threeDSecure2Required", **more}
    intent = here.sdk.payment_intents.create(given)
    assert intent.status == "requires_action"
    assert intent.latest_charge is None
    return intent


def page_of(intent: Any) -> str:
    assert intent.next_action.type == "redirect_to_url"
    return str(intent.next_action.redirect_to_url.url)


def test_a_completed_challenge_holds_the_money_and_returns_to_the_shop(here: StandIn) -> None:
    intent = challenged(here, return_url="https://shop.example/back?cart=7")
    assert "<form" in httpx.get(page_of(intent)).text
    done = httpx.post(page_of(intent), data={"outcome": "complete"})
    assert done.status_code == 303
    back = httpx.URL(done.headers["Location"])
    assert dict(back.params) == {"cart": "7", "payment_intent": intent.id, "redirect_status": "succeeded"}
    held = here.sdk.payment_intents.retrieve(intent.id)
    assert (held.status, held.next_action, held.amount_capturable) == ("requires_capture", None, 10_00)
    assert httpx.post(page_of(intent), data={"outcome": "complete"}).status_code == 400


def test_a_failed_challenge_asks_for_another_card(here: StandIn) -> None:
    intent = challenged(here)
    httpx.post(page_of(intent), data={"outcome": "fail"}).raise_for_status()
    failed = here.sdk.payment_intents.retrieve(intent.id)
    assert failed.last_payment_error is not None
    assert failed.last_payment_error.code == "payment_intent_authentication_failure"
    assert (failed.status, failed.latest_charge) == ("requires_payment_method", None)
    assert here.events_of(intent.id)[-1] == "payment_intent.payment_failed"


def test_off_session_a_card_that_needs_its_holder_is_declined(here: StandIn) -> None:
    with pytest.raises(stripe.CardError) as no:
        here.sdk.payment_intents.create(
            {**APPROVED, "payment_method": "pm_card_authenticationRequired", "off_session": True}
        )
    assert no.value.code == "authentication_required"
    optional: Any = {**APPROVED, "payment_method": "pm_card_threeDSecureOptional"}
    assert here.sdk.payment_intents.create(optional).status == "succeeded"


# Idempotency


def test_the_same_key_and_request_get_the_first_answer_again(here: StandIn) -> None:
    options = key()
    first = here.sdk.payment_intents.create(HELD, options)
    count = len(here.state()["payment_intents"])
    again = here.sdk.payment_intents.create(HELD, options)
    assert again.id == first.id
    assert again.last_response is not None
    assert again.last_response.headers["Idempotent-Replayed"] == "true"
    assert len(here.state()["payment_intents"]) == count


def test_a_decline_is_kept_under_its_key(here: StandIn) -> None:
    options, ids = key(), set()
    for _ in range(2):
        with pytest.raises(stripe.CardError) as declined:
            here.sdk.payment_intents.create({**HELD, "payment_method": "pm_card_chargeDeclined"}, options)
        assert declined.value.error is not None
        ids.add(declined.value.error.charge)
    assert len(ids) == 1


def test_a_key_with_other_parameters_or_another_path_is_refused(here: StandIn) -> None:
    options = key()
    here.sdk.payment_intents.create(HELD, options)
    with pytest.raises(stripe.IdempotencyError, match="same parameters"):
        here.sdk.payment_intents.create({**HELD, "amount": 10_01}, options)
    with pytest.raises(stripe.IdempotencyError, match="same endpoint"):
        here.sdk.customers.create({"email": "a@example.com"}, options)


def test_what_fails_validation_does_not_use_its_key_up(here: StandIn) -> None:
    options = key()
    with pytest.raises(stripe.InvalidRequestError):
        here.sdk.payment_intents.create({**HELD, "amount": 1}, options)
    assert here.sdk.payment_intents.create(HELD, options).status == "requires_capture"


def test_a_key_in_flight_is_a_conflict(here: StandIn) -> None:
    here.fault("POST /v1/customers", "slow", delay_ms=1_500)
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    arrived = threading.Event()

    def slow() -> httpx.Response:
        arrived.set()
        return here.raw.post("/v1/customers", data={"name": "once"}, headers=headers)

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(slow)
        assert arrived.wait(ANSWER_S)
        while here.control.get("/faults").json()["faults"][-1]["hits"] == 0:
            assert not first.done()
        second = here.raw.post("/v1/customers", data={"name": "once"}, headers=headers)
        assert (second.status_code, second.json()["error"]["code"]) == (409, "idempotency_key_in_use")
        assert first.result(ANSWER_S).status_code == 200
    third = here.raw.post("/v1/customers", data={"name": "once"}, headers=headers)
    assert third.json() == first.result().json()


def test_after_a_day_the_same_key_is_a_new_charge(own: StandIn) -> None:
    options = key()
    first = own.sdk.payment_intents.create(HELD, options)
    own.advance(DAY_S - 60)
    assert own.sdk.payment_intents.create(HELD, options).id == first.id
    own.advance(60)
    assert own.state()["idempotency_keys"] == 0
    assert own.sdk.payment_intents.create(HELD, options).id != first.id


def test_a_key_that_is_too_long_is_refused(here: StandIn) -> None:
    with pytest.raises(stripe.InvalidRequestError, match="255"):
        here.sdk.customers.create({}, {"idempotency_key": "k" * 256})


# Validation


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ("amount=100&currency=usd&bogus=1", "parameter_unknown", "bogus"),
        ("amount=100&currency=usd&shipping[bogus]=1", "parameter_unknown", "shipping[bogus]"),
        ("currency=usd", "parameter_missing", "amount"),
        ("amount=1e3&currency=usd", "parameter_invalid_integer", "amount"),
        ("amount=10.5&currency=usd", "parameter_invalid_integer", "amount"),
        ("amount=100&currency=", "parameter_invalid_empty", "currency"),
        ("amount=100&currency=usd&capture_method=later", None, "capture_method"),
        ("amount=100&currency=usd&confirm=yes", None, "confirm"),
        ("amount=100&currency=usd&metadata=x", None, "metadata"),
        ("amount=100&currency=usd&metadata[k]=" + "x" * 501, None, "metadata[k]"),
        ("amount=100&currency=usd&metadata[" + "k" * 41 + "]=x", None, "metadata[" + "k" * 41 + "]"),
        ("amount=100&currency=usd&" + "&".join(f"metadata[k{n}]=x" for n in range(51)), None, "metadata"),
        ("amount[x]=100&currency=usd", "parameter_invalid_integer", "amount"),
        ("amount=100&currency=usd&customer=cus_nobody", "resource_missing", "customer"),
        ("amount=100&currency=usd&payment_method=pm_nothing", "resource_missing", "payment_method"),
    ],
)
def test_a_bad_parameter_is_named(here: StandIn, body: str, code: str | None, param: str) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = here.raw.post("/v1/payment_intents", content=body, headers=form)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"]) == (400, "invalid_request_error")
    assert (error.get("code"), error["param"]) == (code, param)


@pytest.mark.parametrize(
    "body",
    [b"\xff\xfe=1", b"%ff=1", b"a[b=1", b"a]=1", b"[=1", b"=&=&", b"a=1&a[b]=2", b"a[][b]=1", b"{}", b"&" * 2000],
)
def test_a_bad_body_is_a_400_in_stripes_shape(here: StandIn, body: bytes) -> None:
    answer = here.raw.post("/v1/payment_intents", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert answer.headers["Request-Id"].startswith("req_")


def test_a_body_beyond_the_limit_is_refused(here: StandIn) -> None:
    assert here.raw.post("/v1/customers", content=b"description=" + b"x" * 300_000).status_code == 413


def test_a_call_needs_a_test_key(here: StandIn) -> None:
    for header, said in (("", "did not provide an API key"), ("Bearer sk_live_1", "Invalid API Key")):
        answer = httpx.get(here.url + "/v1/balance", headers={"Authorization": header} if header else {})
        assert answer.status_code == 401
        assert said in answer.json()["error"]["message"]
    assert httpx.get(here.url + "/v1/balance", auth=("sk_test_basic", "")).status_code == 200


def test_what_does_not_exist_is_a_404(here: StandIn) -> None:
    with pytest.raises(stripe.InvalidRequestError, match="No such payment_intent: 'pi_none'") as no:
        here.sdk.payment_intents.retrieve("pi_none")
    assert (no.value.http_status, no.value.code) == (404, "resource_missing")
    assert here.raw.get("/v1/nothing").status_code == 404


def test_metadata_is_merged_and_unset_by_empty_values(here: StandIn) -> None:
    made = here.sdk.payment_intents.create({"amount": 100, "currency": "usd", "metadata": {"a": "1", "b": "2"}})
    assert here.sdk.payment_intents.update(made.id, {"metadata": {"b": "", "c": "3"}}).metadata.to_dict() == {
        "a": "1",
        "c": "3",
    }
    assert here.sdk.payment_intents.update(made.id, {"metadata": ""}).metadata.to_dict() == {}


# Customers, lists, search, events


def test_a_customer_is_found_by_email_and_keeps_cards(here: StandIn) -> None:
    email = f"{uuid.uuid4()}@example.com"
    customer = here.sdk.customers.create({"email": email, "name": "Ada", "payment_method": "pm_card_amex"})
    assert [c.id for c in here.sdk.customers.list({"email": email}).data] == [customer.id]
    debit = here.sdk.payment_methods.attach("pm_card_visa_debit", {"customer": customer.id})
    listed = here.sdk.customers.payment_methods.list(customer.id).data
    assert [m.card.brand if m.card else None for m in listed] == ["visa", "amex"]
    given: Any = {**APPROVED, "payment_method": debit.id}
    with pytest.raises(stripe.InvalidRequestError, match="belongs to a Customer"):
        here.sdk.payment_intents.create(given)
    assert here.sdk.payment_intents.create({**given, "customer": customer.id}).status == "succeeded"
    assert here.sdk.payment_methods.detach(debit.id).customer is None
    with pytest.raises(stripe.CardError):
        here.sdk.payment_methods.attach("pm_card_chargeDeclined", {"customer": customer.id})
    assert here.sdk.customers.delete(customer.id).deleted is True
    assert here.sdk.customers.list({"email": email}).data == []
    assert customer.id not in [c.id for c in here.sdk.customers.list({"created": {"gte": customer.created}}).data]


def test_intents_are_searched_by_metadata(here: StandIn) -> None:
    mark = str(uuid.uuid4())
    made = [
        here.sdk.payment_intents.create({"amount": 100, "currency": "usd", "metadata": {"op": mark, "n": f"it's {n}"}})
        for n in range(3)
    ]
    found = here.sdk.payment_intents.search({"query": f"metadata['op']:'{mark}'", "limit": 2})
    assert [i.id for i in found.data] == [made[2].id, made[1].id]
    assert found.next_page is not None
    following = here.sdk.payment_intents.search(
        {"query": f"metadata['op']:'{mark}'", "limit": 2, "page": found.next_page}
    )
    assert ([i.id for i in following.data], following.has_more) == ([made[0].id], False)
    both = f"metadata['op']:'{mark}' AND metadata[\"n\"]:'it\\'s 1' AND status:'requires_payment_method'"
    assert [i.id for i in here.sdk.payment_intents.search({"query": both}).data] == [made[1].id]
    with pytest.raises(stripe.InvalidRequestError, match="Invalid page"):
        here.sdk.payment_intents.search({"query": both, "page": "é"})
    with pytest.raises(stripe.InvalidRequestError, match="parse"):
        here.sdk.payment_intents.search({"query": "metadata['op'] = 1"})


def test_events_are_paged_newest_first(own: StandIn) -> None:
    paid = own.sdk.payment_intents.create(HELD)
    own.sdk.payment_intents.capture(paid.id)
    own.sdk.refunds.create({"payment_intent": paid.id, "amount": 100})
    page = own.sdk.events.list({"limit": 3})
    assert [e.type for e in page.data] == ["charge.refunded", "refund.created", "payment_intent.succeeded"]
    assert [e.type for e in page.auto_paging_iter()] == [e["type"] for e in reversed(own.state()["events"])]
    older = own.sdk.events.list({"limit": 2, "starting_after": page.data[-1].id})
    newer = own.sdk.events.list({"limit": 2, "ending_before": older.data[-1].id})
    assert [e.id for e in newer.data] == [page.data[-1].id, older.data[0].id]
    charges = own.sdk.events.list({"types": ["charge.captured", "charge.succeeded"]})
    assert [e.type for e in charges.data] == ["charge.captured", "charge.succeeded"]
    assert own.sdk.events.retrieve(page.data[0].id).data.object["id"] == paid.latest_charge
    assert own.sdk.events.list({"created": {"gt": own.state()["now"]}}).data == []
    with pytest.raises(stripe.InvalidRequestError):
        own.sdk.events.list({"limit": 101})


def test_what_an_event_shows_stays_as_it_was(here: StandIn) -> None:
    held = here.sdk.payment_intents.create(HELD)
    here.sdk.payment_intents.capture(held.id)
    snapshots = [e["data"]["object"] for e in here.state()["events"] if e["data"]["object"]["id"] == held.id]
    assert [s["status"] for s in snapshots] == ["requires_confirmation", "requires_capture", "succeeded"]


def test_ids_are_expanded_into_objects(here: StandIn) -> None:
    customer = here.sdk.customers.create({"email": "e@example.com"})
    paths = ["latest_charge.balance_transaction", "customer", "payment_method"]
    paid: Any = here.sdk.payment_intents.create({**APPROVED, "customer": customer.id, "expand": paths})
    assert paid.latest_charge.balance_transaction.amount == 10_00
    assert (paid.customer.email, paid.payment_method.card.last4) == ("e@example.com", "4242")
    listed: Any = here.sdk.charges.list({"payment_intent": paid.id, "expand": ["data.payment_intent"]})
    assert listed.data[0].payment_intent.id == paid.id
    assert here.state()["payment_intents"][-1]["latest_charge"] == paid.latest_charge.id
    refund = here.sdk.refunds.create({"payment_intent": paid.id, "expand": ["charge", "payment_intent"]})
    assert (refund.charge.refunded, refund.payment_intent.id) == (True, paid.id)
    assert [r.id for r in here.sdk.refunds.list({"payment_intent": paid.id}).data] == [refund.id]
    with pytest.raises(stripe.InvalidRequestError, match="cannot be expanded"):
        here.sdk.payment_intents.retrieve(paid.id, {"expand": ["amount_details.tip.x"]})


# Faults


def test_a_lost_reply_was_applied_and_the_same_key_gets_it(here: StandIn) -> None:
    paid = here.sdk.payment_intents.create(APPROVED)
    here.fault("POST /v1/refunds", "reply_lost")
    wish: Any = {"payment_intent": paid.id, "amount": 2_00}
    options = key()
    with pytest.raises(stripe.APIConnectionError):
        here.sdk.refunds.create(wish, options)
    assert here.sdk.charges.retrieve(str(paid.latest_charge)).amount_refunded == 2_00
    again = here.sdk.refunds.create(wish, options)
    assert (again.amount, again.last_response and again.last_response.headers["Idempotent-Replayed"]) == (2_00, "true")
    assert here.sdk.charges.retrieve(str(paid.latest_charge)).amount_refunded == 2_00


def test_an_answer_of_garbage_hides_what_was_applied(here: StandIn) -> None:
    held = here.sdk.payment_intents.create(HELD)
    here.fault("POST /v1/payment_intents/*/capture", "garbage")
    with pytest.raises(stripe.APIError, match="Invalid response body"):
        here.sdk.payment_intents.capture(held.id, {}, key())
    assert here.sdk.payment_intents.retrieve(held.id).status == "succeeded"


@pytest.mark.parametrize("mode", ["refused", "reset"])
def test_a_refused_or_reset_connection_applies_nothing(here: StandIn, mode: str) -> None:
    held = here.sdk.payment_intents.create(HELD)
    here.fault("POST /v1/payment_intents/*/capture", mode)
    options = key()
    with pytest.raises(stripe.APIConnectionError):
        here.sdk.payment_intents.capture(held.id, {}, options)
    assert here.sdk.payment_intents.retrieve(held.id).status == "requires_capture"
    taken = here.sdk.payment_intents.capture(held.id, {}, options)
    assert taken.last_response is not None
    assert (taken.status, "Idempotent-Replayed" in taken.last_response.headers) == ("succeeded", False)


def test_an_error_before_applies_nothing_and_keeps_no_key(here: StandIn) -> None:
    here.fault("POST /v1/customers", "error", status=503, times=2)
    options = key()
    for _ in range(2):
        with pytest.raises(stripe.APIError) as broken:
            here.sdk.customers.create({"name": "x"}, options)
        assert broken.value.http_status == 503
    assert here.sdk.customers.create({"name": "x"}, options).name == "x"


def test_an_error_after_applies_and_is_kept_under_its_key(here: StandIn) -> None:
    held = here.sdk.payment_intents.create(HELD)
    here.fault(f"POST /v1/payment_intents/{held.id}/capture", "error", when="after")
    options = key()
    for _ in range(2):
        with pytest.raises(stripe.APIError) as broken:
            here.sdk.payment_intents.capture(held.id, {}, options)
        assert broken.value.http_status == 500
    assert here.sdk.payment_intents.retrieve(held.id).status == "succeeded"


def test_a_rate_limit_is_one_for_the_sdk(here: StandIn) -> None:
    here.fault("GET /v1/balance", "error", status=429)
    with pytest.raises(stripe.RateLimitError):
        here.sdk.balance.retrieve()


def test_a_slow_request_is_applied_though_nobody_waits_for_it(here: StandIn) -> None:
    here.fault("POST /v1/customers", "slow", delay_ms=200)
    email, headers = f"{uuid.uuid4()}@example.com", {"Idempotency-Key": str(uuid.uuid4())}
    with pytest.raises(httpx.ReadTimeout):
        here.raw.post("/v1/customers", data={"email": email}, headers=headers, timeout=0.05)
    while (late := here.raw.post("/v1/customers", data={"email": email}, headers=headers)).status_code == 409:
        pass
    assert late.headers["Idempotent-Replayed"] == "true"
    assert len(here.sdk.customers.list({"email": email}).data) == 1


def test_faults_count_down_are_listed_and_cleared(here: StandIn) -> None:
    here.fault("GET /v1/account", "error", times=0)
    here.fault("GET /v1/account", "refused")
    for _ in range(3):
        assert here.raw.get("/v1/account").status_code == 500
    listed = here.control.get("/faults").json()["faults"]
    assert [(f["mode"], f["hits"]) for f in listed[-2:]] == [("error", 3), ("refused", 0)]
    here.control.delete("/faults")
    assert here.raw.get("/v1/account").status_code == 200
    assert here.control.get("/faults").json() == {"faults": []}


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/faults", {"mode": "slow"}, "match"),
        ("/faults", {"match": "POST /v1/refunds", "mode": "explode"}, "mode"),
        ("/faults", {"match": "POST /v1/refunds", "mode": "error", "status": 200}, "status"),
        ("/faults", {"match": "POST /v1/refunds", "mode": "error", "when": "never"}, "when"),
        ("/faults", {"match": "POST /v1/refunds", "mode": "slow", "delay_ms": -1}, "delay_ms"),
        ("/faults", {"match": "POST /v1/refunds", "mode": "slow", "times": True}, "times"),
        ("/faults", {"match": "POST /v1/refunds", "mode": "slow", "delay": 1}, "delay"),
        ("/faults", [], "body"),
        ("/clock", {"advance_s": "1"}, "advance_s"),
        ("/clock", {"advance_s": -1}, "advance_s"),
        ("/clock", {}, "advance_s"),
    ],
)
def test_bad_control_input_names_the_field(here: StandIn, path: str, body: object, field: str) -> None:
    answer = here.control.post(path, json=body)
    assert (answer.status_code, answer.json()["error"]["field"]) == (400, field)


# Time


def test_an_authorization_runs_out_after_seven_days(own: StandIn) -> None:
    held = own.sdk.payment_intents.create(HELD)
    parts = own.sdk.payment_intents.create(IN_PARTS)
    old = own.sdk.charges.create({"amount": 5_00, "currency": "usd", "source": "tok_visa", "capture": False})
    own.sdk.payment_intents.capture(parts.id, {"amount_to_capture": 3_00, "final_capture": False})
    own.advance(7 * DAY_S - 60)
    assert own.sdk.payment_intents.retrieve(held.id).status == "requires_capture"
    own.advance(60)
    late = own.sdk.payment_intents.retrieve(held.id)
    assert (late.status, late.cancellation_reason, late.amount_capturable) == ("canceled", "automatic", 0)
    assert own.events_of(held.id)[-1] == "payment_intent.canceled"
    assert own.events_of(str(held.latest_charge))[-1] == "charge.expired"
    with pytest.raises(stripe.InvalidRequestError) as no:
        own.sdk.payment_intents.capture(held.id)
    assert no.value.code == "payment_intent_unexpected_state"
    with pytest.raises(stripe.InvalidRequestError) as expired:
        own.sdk.charges.capture(old.id)
    assert expired.value.code == "charge_expired_for_capture"
    rest = own.sdk.payment_intents.retrieve(parts.id)
    assert (rest.status, rest.amount_received, rest.amount_capturable) == ("succeeded", 3_00, 0)


# Durability


def test_what_was_answered_survives_a_kill(own: StandIn) -> None:
    options = key()
    held = own.sdk.payment_intents.create(HELD, options)
    own.sdk.payment_intents.capture(held.id, {"amount_to_capture": 4_00})
    own.sdk.refunds.create({"payment_intent": held.id, "amount": 1_00})
    own.fault("POST /v1/customers", "reply_lost")
    lost = key()
    with pytest.raises(stripe.APIConnectionError):
        own.sdk.customers.create({"name": "lost"}, lost)
    own.advance(3_600)
    before, clock = own.settled(), own.state()["now"]
    own.kill()
    own.launch()
    assert own.settled() == before
    assert own.state()["now"] >= clock
    again = own.sdk.payment_intents.create(HELD, options)
    assert (again.id, again.status) == (held.id, "requires_capture")
    assert own.sdk.customers.create({"name": "lost"}, lost).name == "lost"
    assert own.settled() == before
    own.advance(7 * DAY_S)


def test_a_kill_amid_writing_never_half_applies(own: StandIn) -> None:
    made: list[str] = []

    def work() -> None:
        while True:
            try:
                answer = own.raw.post("/v1/payment_intents", data={**_FLAT, "metadata[n]": str(len(made))})
            except (httpx.TransportError, RuntimeError):
                return
            made.append(answer.json()["id"])

    with ThreadPoolExecutor(4) as pool:
        for _ in range(4):
            pool.submit(work)
        while len(made) < 40:
            assert own.process.poll() is None
        own.process.kill()
    own.kill()
    own.launch()
    state = own.state()
    held = {intent["id"]: intent for intent in state["payment_intents"]}
    assert set(made) <= set(held)
    assert {intent["latest_charge"] for intent in held.values()} == {charge["id"] for charge in state["charges"]}
    assert len(state["events"]) == 3 * len(held)


_FLAT = {
    "amount": "1000",
    "currency": "usd",
    "payment_method": "pm_card_visa",
    "confirm": "true",
    "capture_method": "manual",
}


@pytest.mark.parametrize("torn", [b"0", b'12345678 {"put":', b'00000000 {"put":[]}\n', b"\x00" * 64])
def test_a_torn_last_record_is_cut_off(tmp_path: Path, torn: bytes) -> None:
    journal = Journal(tmp_path)
    for advance_s in (1, 2):
        journal.append(Record(advance_s=advance_s))
    journal.close()
    file = tmp_path / "journal.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole + torn)
    for expected in ([1, 2], [1, 2, 3]):
        journal = Journal(tmp_path)
        assert [record.advance_s for record in journal.replay()] == expected
        if expected == [1, 2]:
            assert file.read_bytes() == whole
            journal.append(Record(advance_s=3))
        journal.close()


def test_a_stand_in_starts_again_on_a_torn_journal(own: StandIn) -> None:
    own.sdk.payment_intents.create(HELD)
    before = own.settled()
    own.kill()
    with (own.data / "journal.jsonl").open("ab") as journal:
        journal.write(b'0badc0de {"put":[{"id":"pi_')
    own.launch()
    assert own.settled() == before


def test_a_directory_serves_one_process(own: StandIn) -> None:
    with pytest.raises(BlockingIOError):
        Journal(own.data)


def test_damage_before_the_end_is_not_passed_over(own: StandIn) -> None:
    for _ in range(2):
        own.sdk.payment_intents.create(HELD)
    own.kill()
    journal = own.data / "journal.jsonl"
    journal.write_bytes(journal.read_bytes().replace(b'"amount":1000', b'"amount":9000', 1))
    command = [sys.executable, "-m", "interface.sandbox.stripe", "--data", str(own.data)]
    broken = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_S, check=False)
    assert broken.returncode != 0
    assert "unreadable record at byte 0" in broken.stderr


def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    command = [sys.executable, "-m", "interface.sandbox.stripe", "--data", str(tmp_path), "--alive-fd", str(read_end)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, pass_fds=[read_end])
    assert process.stdout is not None
    assert process.stdout.readline().startswith(b"ready ")
    os.close(read_end)
    os.close(write_end)
    assert process.wait(ANSWER_S) == 0
    process.stdout.close()
