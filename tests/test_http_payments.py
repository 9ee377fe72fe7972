"""A payment through `/v1`, from the contract alone: what a caller sends, gets, and finds at Stripe afterwards."""

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.processes import eventually
from tests.system import VISA, System, made, named, position, problem

CLICKS = 50
MEMBERS = {
    "id", "status", "currency", "amount", "amount_authorized", "amount_capturable", "amount_captured",
    "amount_refunded", "amount_refundable", "capture", "customer", "order", "description", "metadata", "card",
    "failure", "next_action", "stripe", "created_at", "updated_at", "version",
}  # fmt: skip
FACT_MEMBERS = {
    "position", "id", "type", "stream", "version", "at", "actor", "correlation_id", "causation_id", "data",
}  # fmt: skip
AUTHENTICATED = "pm_card_threeDSecure2Required"
# Enough for the first attempt and every retry of it, so that the outcome stays unknown.
FOR_GOOD = 20
FOR_EVER = 0


def unique(word: str) -> str:
    return f"{word}-{uuid.uuid4()}"


def money(payment: dict[str, Any]) -> dict[str, int]:
    return {name: payment[name] for name in ("amount", "amount_capturable", "amount_captured", "amount_refunded")}


def everything_of(system: System, customer: str) -> dict[str, list[str]]:
    """The facts of every payment of a customer; beside them the log may grow, as what others left open is ended."""
    found = system.found("/v1/payments", customer=customer, after=system.end_of_log())["payments"]
    return {payment["id"]: system.history(payment["id"]) for payment in found}


def intents_of(system: System, payment: dict[str, Any]) -> list[dict[str, Any]]:
    """What Stripe has of a payment."""
    return [one for one in system.state()["payment_intents"] if payment["id"] in one["metadata"].values()]


def authenticate(payment: dict[str, Any], outcome: str) -> None:
    """The cardholder on the bank's page."""
    page = httpx.post(payment["next_action"]["url"], data={"outcome": outcome})
    assert page.status_code in {200, 302, 303}, page.text


# Authorize, capture, refund, void


def test_an_authorized_payment_holds_the_money_and_moves_none(system: System) -> None:
    payment = system.paid(order=unique("order"), customer="c-1", description="Two seats", metadata={"seat": "7A"})
    assert set(payment) == MEMBERS
    assert payment["status"] == "authorized"
    assert (payment["amount"], payment["currency"], payment["capture"]) == (100_99, "usd", "manual")
    assert (payment["amount_authorized"], payment["amount_capturable"]) == (100_99, 100_99)
    assert (payment["amount_captured"], payment["amount_refunded"], payment["amount_refundable"]) == (0, 0, 0)
    assert (payment["customer"], payment["description"], payment["metadata"]) == ("c-1", "Two seats", {"seat": "7A"})
    assert (payment["card"]["brand"], payment["card"]["last4"]) == ("visa", "4242")
    assert (payment["failure"], payment["next_action"]) == (None, None)
    assert system.amount_at_stripe(payment) == money(payment)


def test_an_automatic_payment_is_captured_at_once(system: System) -> None:
    payment = system.paid(capture="automatic")
    assert (payment["status"], payment["amount_captured"], payment["amount_refundable"]) == ("captured", 100_99, 100_99)
    assert system.history(payment["id"]) == ["AuthorizationStarted", "Authorized", "Captured"]
    assert system.amount_at_stripe(payment) == money(payment)


def test_what_may_be_left_out_is_null_or_empty(system: System) -> None:
    payment = system.paid()
    assert (payment["customer"], payment["order"], payment["description"]) == (None, None, None)
    assert payment["metadata"] == {}
    explicit = system.paid(customer=None, order=None, description=None)
    assert (explicit["customer"], explicit["order"], explicit["description"]) == (None, None, None)


def test_a_payment_is_captured_and_refunded_in_parts_and_the_money_adds_up(system: System) -> None:
    payment = system.paid()
    steps = [
        ("captures", 60_00, "partially_captured", 60_00, 0),
        ("captures", 40_99, "captured", 100_99, 0),
        ("refunds", 10_50, "partially_refunded", 100_99, 10_50),
        ("refunds", 1, "partially_refunded", 100_99, 10_51),
    ]
    for operation, amount, status, captured, refunded in steps:
        after = system.moved(payment, operation, amount=amount, reason="as agreed")
        assert (after["status"], after["amount_captured"], after["amount_refunded"]) == (status, captured, refunded)
        assert after["amount_capturable"] == 100_99 - captured
        assert after["amount_refundable"] == captured - refunded
        assert system.amount_at_stripe(payment) == money(after)
    after = system.moved(payment, "refunds")
    assert (after["status"], after["amount_refunded"], after["amount_refundable"]) == ("refunded", 100_99, 0)
    assert system.amount_at_stripe(payment) == money(after)
    moves = ["CaptureStarted", "Captured"] * 2 + ["RefundStarted", "Refunded"] * 3
    assert system.history(payment["id"]) == ["AuthorizationStarted", "Authorized", *moves]


def test_a_capture_without_an_amount_takes_all_that_is_held(system: System) -> None:
    payment = system.paid()
    after = system.moved(payment, "captures")
    assert (after["status"], after["amount_captured"], after["amount_capturable"]) == ("captured", 100_99, 0)
    null = system.paid()
    assert system.moved(null, "captures", amount=None, reason=None)["amount_captured"] == 100_99


def test_a_refund_between_two_captures_keeps_the_rest_capturable(system: System) -> None:
    payment = system.paid()
    system.moved(payment, "captures", amount=50_00)
    refunded = system.moved(payment, "refunds", amount=20_00)
    assert (refunded["amount_refunded"], refunded["amount_refundable"]) == (20_00, 30_00)
    assert system.amount_at_stripe(payment) == money(refunded)


def test_a_voided_payment_holds_nothing(system: System) -> None:
    payment = system.paid()
    after = system.moved(payment, "void", reason="no seats left")
    assert (after["status"], after["amount_capturable"], after["amount_captured"]) == ("voided", 0, 0)
    assert system.history(payment["id"]) == ["AuthorizationStarted", "Authorized", "VoidStarted", "Voided"]
    assert system.amount_at_stripe(payment)["amount_capturable"] == 0
    problem(system.move(payment, "captures"), 409)


@pytest.mark.parametrize(
    ("currency", "amount"), [("jpy", 500), ("kwd", 10_900), ("eur", 99_999_999), ("isk", 1_000), ("huf", 200_00)]
)
def test_each_currency_counts_its_own_minor_units(system: System, currency: str, amount: int) -> None:
    payment = system.paid(currency=currency, amount=amount)
    assert (payment["amount"], payment["amount_authorized"], payment["currency"]) == (amount, amount, currency)
    rest = system.moved(payment, "captures", amount=amount // 10)
    assert (rest["amount_captured"], rest["amount_capturable"]) == (amount // 10, amount - amount // 10)


def test_an_authorization_that_ran_out_cannot_be_captured(system: System) -> None:
    payment = system.paid()
    httpx.post(f"{system.stripe}/_sandbox/clock", json={"advance_s": 8 * 24 * 3600})
    refused = system.move(payment, "captures")
    assert refused.status_code in {402, 409}, refused.text
    after = system.payment(payment["id"], after=position(refused))
    assert (after["status"], after["amount_captured"], after["amount_capturable"]) == ("expired", 0, 0)
    assert system.history(payment["id"])[-1] == "Expired"


# Declines and 3-D Secure


@pytest.mark.parametrize(
    ("payment_method", "code", "decline_code", "retryable"),
    [
        ("pm_card_visa_chargeDeclined", "card_declined", "generic_decline", None),
        ("pm_card_visa_chargeDeclinedInsufficientFunds", "card_declined", "insufficient_funds", True),
        ("pm_card_visa_chargeDeclinedLostCard", "card_declined", "lost_card", False),
        ("pm_card_visa_chargeDeclinedStolenCard", "card_declined", "stolen_card", False),
        ("pm_card_chargeDeclinedExpiredCard", "expired_card", None, False),
        ("pm_card_chargeDeclinedIncorrectCvc", "incorrect_cvc", None, None),
        ("pm_card_chargeDeclinedProcessingError", "processing_error", None, True),
    ],
)
def test_a_decline_is_a_problem_with_the_payment_inside(
    system: System, payment_method: str, code: str, decline_code: str | None, *, retryable: bool | None
) -> None:
    answer = system.pay(payment_method=payment_method, capture="automatic")
    payment = problem(answer, 402)["payment"]
    assert set(payment) == MEMBERS
    assert (payment["status"], payment["amount_authorized"], payment["amount_captured"]) == ("failed", 0, 0)
    assert payment["failure"]["code"] == code
    assert decline_code is None or payment["failure"]["decline_code"] == decline_code
    assert payment["failure"]["message"]
    assert retryable is None or payment["failure"]["retryable"] is retryable
    assert system.history(payment["id"]) == ["AuthorizationStarted", "Failed"]
    assert system.payment(payment["id"], after=position(answer)) == payment


def test_after_a_decline_the_order_is_paid_with_another_card(system: System) -> None:
    order = unique("order")
    problem(system.pay(order=order, payment_method="pm_card_visa_chargeDeclined"), 402)
    answer = system.pay(order=order, capture="automatic")
    found = system.found(f"/v1/orders/{order}", after=position(answer))
    assert found["status"] == "captured"
    assert sorted(payment["status"] for payment in found["payments"]) == ["captured", "failed"]


@pytest.mark.parametrize(("capture", "status"), [("manual", "authorized"), ("automatic", "captured")])
def test_a_payment_that_needs_the_cardholder_goes_on_when_they_return(
    system: System, capture: str, status: str
) -> None:
    payment = system.paid(payment_method=AUTHENTICATED, capture=capture)
    assert (payment["status"], payment["amount_authorized"]) == ("requires_action", 0)
    early = system.http.post(f"/v1/payments/{payment['id']}/return")
    assert early.status_code in {200, 202}, early.text
    assert early.json()["status"] == "requires_action"
    authenticate(payment, "complete")
    returned = system.http.post(f"/v1/payments/{payment['id']}/return")
    assert returned.status_code == 200, returned.text
    after = returned.json()
    assert (after["status"], after["amount_authorized"], after["next_action"]) == (status, 100_99, None)
    assert system.amount_at_stripe(after) == money(after)
    again = system.http.post(f"/v1/payments/{payment['id']}/return")
    assert (again.status_code, again.json()) == (200, after), "asking twice decides nothing new"
    assert system.history(payment["id"])[:3] == ["AuthorizationStarted", "ActionRequired", "Authorized"]


def test_a_cardholder_who_fails_the_bank_s_question_pays_nothing(system: System) -> None:
    payment = system.paid(payment_method=AUTHENTICATED)
    authenticate(payment, "fail")
    document = problem(system.http.post(f"/v1/payments/{payment['id']}/return"), 402)
    assert (document["payment"]["status"], document["payment"]["amount_authorized"]) == ("failed", 0)
    assert document["payment"]["failure"]["code"] == "payment_intent_authentication_failure"
    assert system.history(payment["id"]) == ["AuthorizationStarted", "ActionRequired", "Failed"]


def test_money_that_waits_for_the_cardholder_cannot_be_captured(system: System) -> None:
    payment = system.paid(payment_method=AUTHENTICATED)
    problem(system.move(payment, "captures"), 409)


# Idempotency


def test_a_wish_sent_again_is_answered_again_and_done_once(system: System) -> None:
    key, customer = unique("key"), unique("customer")
    first = system.pay(key=key, customer=customer)
    payment = made(first)
    assert "Idempotent-Replayed" not in first.headers
    system.moved(payment, "captures", amount=1_00)
    before = everything_of(system, customer)
    again = system.pay(key=key, customer=customer)
    assert (again.status_code, again.headers["Idempotent-Replayed"]) == (200, "true")
    assert again.json() == payment, "the first answer, though the payment has moved on"
    assert (again.headers["ETag"], position(again)) == (first.headers["ETag"], position(first))
    assert everything_of(system, customer) == before
    assert system.payment(payment["id"], after=position(again))["amount_captured"] in {0, 1_00}


@pytest.mark.parametrize("operation", ["captures", "refunds", "void"])
def test_a_movement_sent_again_is_answered_again_and_done_once(system: System, operation: str) -> None:
    payment = system.paid(capture="automatic" if operation == "refunds" else "manual")
    key, path = unique("key"), f"/v1/payments/{payment['id']}/{operation}"
    body = {"reason": "once"} if operation == "void" else {"amount": 30_00, "reason": "once"}
    first = made(system.post(path, body, key=key))
    if operation != "void":
        system.moved(payment, operation, amount=1_00)
    again = system.post(path, body, key=key)
    assert (again.status_code, again.headers["Idempotent-Replayed"], again.json()) == (200, "true", first)
    assert system.amount_at_stripe(payment) == money(system.payment(payment["id"], after=system.end_of_log()))
    other = system.post(path, body | {"reason": "twice"}, key=key)
    problem(other, 422)


def test_a_decline_sent_again_is_declined_again_without_asking_stripe(system: System) -> None:
    key = unique("key")
    first = system.pay(key=key, payment_method="pm_card_visa_chargeDeclined")
    payment = problem(first, 402)["payment"]
    before = intents_of(system, payment)
    again = system.pay(key=key, payment_method="pm_card_visa_chargeDeclined")
    assert problem(again, 402) == problem(first, 402)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert len(before) == 1
    assert intents_of(system, payment) == before


def test_the_order_of_members_and_white_space_make_no_other_body(system: System) -> None:
    key = unique("key")
    payment = system.paid(key=key)
    headers = {"Idempotency-Key": key, "Content-Type": "application/json; charset=utf-8"}
    shuffled = b'{"capture":"manual",\n "payment_method": "pm_card_visa", "currency":"usd",   "amount":10099}'
    again = system.http.post("/v1/payments", content=shuffled, headers=headers)
    assert (again.status_code, again.json()) == (200, payment)


def test_a_key_with_another_body_is_refused(system: System) -> None:
    key, customer = unique("key"), unique("customer")
    payment = system.paid(key=key, customer=customer)
    before = everything_of(system, customer)
    for other in ({"amount": 100_98}, {"currency": "eur"}, {"metadata": {"a": "b"}}, {"description": ""}):
        problem(system.pay(key=key, **{"customer": customer} | other), 422)
    assert everything_of(system, customer) == before
    assert system.payment(payment["id"])["version"] == payment["version"]


def test_the_same_key_of_another_caller_is_another_payment(system: System) -> None:
    key = unique("key")
    payment = system.paid(key=key)
    other = made(system.pay(key=key, token=system.new_token("somebody-else")))
    assert other["id"] != payment["id"]
    assert system.facts(other["id"])[0]["actor"] == "somebody-else"


def test_the_same_key_on_another_payment_is_another_movement(system: System) -> None:
    key = unique("key")
    for payment in (system.paid(), system.paid()):
        after = made(system.post(f"/v1/payments/{payment['id']}/captures", {"amount": 5_00}, key=key))
        assert (after["id"], after["amount_captured"]) == (payment["id"], 5_00)


def test_fifty_clicks_at_once_make_one_payment(system: System) -> None:
    key, customer = unique("key"), unique("customer")
    together = threading.Barrier(CLICKS)

    def click(_: int) -> httpx.Response:
        together.wait()
        return system.pay(key=key, customer=customer, capture="automatic")

    with ThreadPoolExecutor(CLICKS) as clicks:
        answers = list(clicks.map(click, range(CLICKS)))
    assert {answer.status_code for answer in answers} <= {200, 201, 202, 409}
    assert len([answer for answer in answers if answer.status_code == 201]) == 1
    [payment] = (answer.json() for answer in answers if answer.status_code == 201)
    assert {answer.json()["id"] for answer in answers if answer.is_success} == {payment["id"]}
    assert len(intents_of(system, payment)) == 1
    assert everything_of(system, customer) == {payment["id"]: ["AuthorizationStarted", "Authorized", "Captured"]}
    assert system.pay(key=key, customer=customer, capture="automatic").json() == payment


def test_many_captures_at_once_never_take_more_than_was_held(system: System) -> None:
    payment = system.paid()
    with ThreadPoolExecutor(8) as clicks:
        answers = list(clicks.map(lambda _: system.move(payment, "captures", amount=40_00), range(8)))
    taken = [answer for answer in answers if answer.status_code == 201]
    assert {answer.status_code for answer in answers} <= {201, 409, 422}
    assert 1 <= len(taken) <= 2
    after = system.payment(payment["id"], after=max(map(position, taken)))
    assert after["amount_captured"] == len(taken) * 40_00
    assert system.amount_at_stripe(payment) == money(after)


# Not knowing


@pytest.mark.parametrize("mode", [{"mode": "error", "status": 500}, {"mode": "reply_lost"}, {"mode": "reset"}])
def test_an_unknown_outcome_is_pending_never_failed(system: System, mode: dict[str, Any]) -> None:
    key = unique("key")
    with system.fault("POST /v1/payment_intents", **mode, times=FOR_GOOD):
        answer = system.pay(key=key)
    assert answer.status_code == 202, answer.text
    payment = answer.json()
    assert (payment["status"], payment["amount_authorized"], payment["failure"]) == ("pending", 0, None)
    # Stripe may have told by now that the money is held; that it is not, nobody may have guessed.
    found = system.payment(payment["id"], after=position(answer))
    assert found == payment or found["status"] == "authorized"
    assert system.history(payment["id"]) in (["AuthorizationStarted"], ["AuthorizationStarted", "Authorized"])
    again = system.pay(key=key)
    assert again.status_code in {200, 202, 409}, again.text
    assert len(intents_of(system, payment)) <= 1


@pytest.mark.parametrize("operation", ["captures", "refunds", "void"])
def test_while_the_outcome_of_a_movement_is_unknown_no_other_starts(system: System, operation: str) -> None:
    payment = system.paid(capture="automatic" if operation == "refunds" else "manual")
    call = {"captures": "/capture", "refunds": "/v1/refunds", "void": "/cancel"}[operation]
    match = f"POST {call}" if operation == "refunds" else f"POST /v1/payment_intents/{_intent(payment)}{call}"
    with system.fault(match, "error", status=500, times=FOR_EVER):  # recovery finds out no more than we do
        answer = system.move(payment, operation)
        assert answer.status_code == 202, answer.text
        before = system.history(payment["id"])
        assert before[-1].endswith("Started")
        for other in ("captures", "refunds", "void"):
            problem(system.move(payment, other), 409)
        assert system.history(payment["id"]) == before


def _intent(payment: dict[str, Any]) -> str:
    return str(payment["stripe"]["payment_intent"])


def test_a_lost_reply_is_asked_for_again_and_moves_the_money_once(system: System) -> None:
    with system.fault("POST /v1/payment_intents", "reply_lost", times=1):
        answer = system.pay(capture="automatic")
    payment = answer.json()
    assert answer.status_code in {201, 202}, answer.text
    assert payment["status"] in {"captured", "pending"}
    assert [intent["amount_received"] for intent in intents_of(system, payment)] == [100_99]


def test_a_command_in_flight_is_visible_and_not_started_twice(system: System) -> None:
    key, customer = unique("key"), unique("customer")
    with (
        system.fault("POST /v1/payment_intents", "slow", delay_ms=1_500, times=1),
        ThreadPoolExecutor(1) as caller,
    ):
        first = caller.submit(system.pay, key=key, customer=customer)
        eventually(lambda: bool(system.found("/v1/payments", customer=customer)["payments"]))
        [payment] = system.found("/v1/payments", customer=customer)["payments"]
        assert payment["status"] == "pending"
        meanwhile = system.pay(key=key, customer=customer)
        assert meanwhile.status_code in {202, 409}, meanwhile.text
        problem(system.move(payment, "void"), 409)
        assert made(first.result())["id"] == payment["id"]
    assert system.history(payment["id"]) == ["AuthorizationStarted", "Authorized"]


# Versions and positions


def test_the_etag_is_the_version_and_a_command_may_insist_on_it(system: System) -> None:
    answer = system.pay()
    payment = made(answer)
    assert answer.headers["ETag"] == f'"{payment["version"]}"'
    found = system.get(f"/v1/payments/{payment['id']}", after=position(answer))
    assert found.headers["ETag"] == answer.headers["ETag"]
    path = f"/v1/payments/{payment['id']}"
    after = system.post(f"{path}/captures", {"amount": 1_00}, If_Match=answer.headers["ETag"])
    assert made(after)["version"] == len(system.facts(payment["id"]))
    before = system.history(payment["id"])
    for operation in ("captures", "refunds", "void"):
        problem(system.post(f"{path}/{operation}", If_Match=answer.headers["ETag"]), 412)
    assert system.history(payment["id"]) == before
    made(system.post(f"{path}/captures", {"amount": 1_00}, If_Match=after.headers["ETag"]))


def test_a_replay_needs_no_matching_version(system: System) -> None:
    payment, key = system.paid(), unique("key")
    path, etag = f"/v1/payments/{payment['id']}/captures", f'"{payment["version"]}"'
    first = made(system.post(path, {"amount": 1_00}, key=key, If_Match=etag))
    again = system.post(path, {"amount": 1_00}, key=key, If_Match=etag)
    assert (again.status_code, again.json()) == (200, first)


def test_what_was_written_is_read_after_its_position(system: System) -> None:
    customer, order = unique("customer"), unique("order")
    for count in range(1, 11):
        answer = system.pay(customer=customer, order=order, amount=10_00, capture="automatic")
        payment = made(answer)
        assert system.payment(payment["id"], after=position(answer)) == payment
        listed = system.found("/v1/payments", customer=customer, after=position(answer))["payments"]
        assert (len(listed), listed[0]) == (count, payment)
        refund = system.move(payment, "refunds", amount=4_00)
        assert system.payment(payment["id"], after=position(refund)) == refund.json()
        found = system.found(f"/v1/orders/{order}", after=position(refund))
        assert found["totals"] == [
            {
                "currency": "usd",
                "amount_authorized": count * 10_00,
                "amount_captured": count * 10_00,
                "amount_refunded": count * 4_00,
            }
        ]
        assert system.found("/v1/orders", limit=1, after=position(refund))["orders"]


def test_positions_only_grow(system: System) -> None:
    answers = [system.pay() for _ in range(3)]
    positions = [position(answer) for answer in answers]
    assert positions == sorted(set(positions))
    [*_, last] = system.facts(made(answers[-1])["id"])
    assert last["position"] == positions[-1]


# Lists


@pytest.fixture
def customer(system: System) -> str:
    """A customer of seven payments in five states."""
    customer = unique("customer")
    for capture in ("manual", "automatic", "automatic"):
        system.paid(customer=customer, capture=capture)
    problem(system.pay(customer=customer, payment_method="pm_card_visa_chargeDeclined"), 402)
    system.paid(customer=customer, payment_method=AUTHENTICATED)
    system.moved(system.paid(customer=customer), "void")
    answer = system.move(system.paid(customer=customer, capture="automatic"), "refunds", amount=1)
    system.found("/v1/payments", after=position(answer))
    return customer


def test_a_list_names_the_newest_first_and_filters_by_state(system: System, customer: str) -> None:
    payments = system.found("/v1/payments", customer=customer)["payments"]
    statuses = ["partially_refunded", "voided", "requires_action", "failed", "captured", "captured", "authorized"]
    assert [payment["status"] for payment in payments] == statuses
    assert payments == [system.payment(payment["id"]) for payment in payments]
    created = [payment["created_at"] for payment in payments]
    assert created == sorted(created, reverse=True)
    for status in set(statuses):
        listed = system.found("/v1/payments", customer=customer, status=status)["payments"]
        assert listed == [payment for payment in payments if payment["status"] == status]
    assert system.found("/v1/payments", customer=unique("nobody")) == {"payments": [], "next_cursor": None}


def test_pages_are_complete_and_repeat_nothing_while_payments_come_in(system: System, customer: str) -> None:
    wanted = [payment["id"] for payment in system.found("/v1/payments", customer=customer)["payments"]]
    for limit in (1, 2, 3, 7, 100):
        seen: list[str] = []
        cursor: dict[str, str] = {}
        while True:
            page = system.found("/v1/payments", customer=customer, limit=limit, **cursor)
            assert len(page["payments"]) <= limit
            seen += [payment["id"] for payment in page["payments"]]
            if page["next_cursor"] is None:
                break
            assert len(page["payments"]) == limit
            cursor = {"cursor": page["next_cursor"]}
            if limit == 2 and len(seen) == 2:
                answer = system.pay(customer=customer)
                system.found("/v1/payments", customer=customer, after=position(answer))
        assert seen[-len(wanted) :] == wanted
        assert len(set(seen)) == len(seen) <= len(wanted) + 1


def test_the_time_of_creation_bounds_a_list(system: System, customer: str) -> None:
    payments = system.found("/v1/payments", customer=customer)["payments"]
    middle = payments[3]["created_at"]
    since = system.found("/v1/payments", customer=customer, from_=middle)["payments"]
    before = system.found("/v1/payments", customer=customer, to=middle)["payments"]
    assert (since, before) == (payments[:4], payments[4:]), "at or after; before"
    later = (datetime.fromisoformat(middle) + timedelta(hours=2)).isoformat().replace("+00:00", "+02:00")
    assert system.found("/v1/payments", customer=customer, to=later)["payments"] == payments[4:]
    between = {"from_": payments[5]["created_at"], "to": payments[2]["created_at"], "status": "captured"}
    assert system.found("/v1/payments", customer=customer, **between)["payments"] == [payments[4], payments[5]]


@pytest.mark.parametrize("name", ["null", "None", "0", "a&b=c", "100%", "' OR 1=1 --", "naïve ☕"])
def test_any_name_can_be_asked_for(system: System, name: str) -> None:
    answer = system.pay(customer=name, order=name)
    for member in ("customer", "order"):
        payments = system.found("/v1/payments", **{member: name}, after=position(answer))["payments"]
        assert payments[0] == made(answer)
        assert {payment[member] for payment in payments} == {name}
    assert system.found(f"/v1/orders/{quote(name, safe='')}", after=position(answer))["id"] == name


def test_orders_are_listed_in_pages_too(system: System) -> None:
    orders = [unique("order") for _ in range(5)]
    for order in orders:
        answer = system.pay(order=order)
        assert answer.status_code == 201, answer.text
    seen: list[str] = []
    page = system.found("/v1/orders", limit=2, after=position(answer))
    while len(seen) < len(orders):
        seen += [order["id"] for order in page["orders"]]
        if page["next_cursor"] is None:
            break
        page = system.found("/v1/orders", limit=2, cursor=page["next_cursor"])
    assert seen[: len(orders)] == orders[::-1]
    assert len(set(seen)) == len(seen)


def test_an_order_adds_up_its_payments_by_currency(system: System) -> None:
    order = unique("order / with späces")
    dollars = system.paid(order=order, amount=70_00)
    system.moved(dollars, "captures", amount=50_00)
    system.paid(order=order, amount=30_00, currency="eur")
    problem(system.pay(order=order, payment_method="pm_card_visa_chargeDeclined"), 402)
    answer = system.move(dollars, "refunds", amount=20_00)
    [listed] = [o for o in system.found("/v1/orders", after=position(answer))["orders"] if o["id"] == order]
    payments = system.found("/v1/payments", order=order)["payments"]
    assert {payment["order"] for payment in payments} == {order}
    assert {payment["id"] for payment in listed["payments"]} == {payment["id"] for payment in payments}
    assert sorted(listed["totals"], key=lambda total: total["currency"]) == [
        {"currency": "eur", "amount_authorized": 30_00, "amount_captured": 0, "amount_refunded": 0},
        {"currency": "usd", "amount_authorized": 70_00, "amount_captured": 50_00, "amount_refunded": 20_00},
    ]


# History


def test_every_fact_says_what_when_who_and_why(system: System) -> None:
    correlation = unique("checkout")
    answer = system.post("/v1/payments", VISA | {"order": "o-1"}, X_Correlation_Id=correlation)
    payment = made(answer)
    system.post(f"/v1/payments/{payment['id']}/captures", {"amount": 60_00}, X_Correlation_Id="the-booking")
    facts = system.facts(payment["id"])
    assert [fact["type"] for fact in facts] == ["AuthorizationStarted", "Authorized", "CaptureStarted", "Captured"]
    for version, fact in enumerate(facts, start=1):
        assert set(fact) == FACT_MEMBERS
        assert (fact["stream"], fact["version"], fact["actor"]) == (payment["id"], version, "developer")
        assert datetime.fromisoformat(fact["at"]).utcoffset() == timedelta(0)
    assert [fact["correlation_id"] for fact in facts] == [correlation] * 2 + ["the-booking"] * 2
    assert [fact["causation_id"] for fact in facts] == [None, facts[0]["id"], None, facts[2]["id"]]
    positions = [fact["position"] for fact in facts]
    assert positions == sorted(set(positions))
    assert len({fact["id"] for fact in facts}) == len(facts)
    assert (facts[0]["data"]["amount"], facts[3]["data"]["amount"]) == (100_99, 60_00)
    assert datetime.fromisoformat(facts[0]["at"]) == datetime.fromisoformat(payment["created_at"])


def test_without_a_correlation_the_facts_of_one_command_share_a_new_one(system: System) -> None:
    first, second = (system.facts(system.paid()["id"]) for _ in range(2))
    assert len({fact["correlation_id"] for fact in first}) == 1
    assert first[0]["correlation_id"] != second[0]["correlation_id"]


def test_every_stripe_object_of_a_payment_is_named_by_a_fact(system: System) -> None:
    payment = system.moved(system.paid(capture="automatic"), "refunds", amount=5_00)
    told = str([fact["data"] for fact in system.facts(payment["id"])])
    [refund] = (r for r in system.state()["refunds"] if r["payment_intent"] == _intent(payment))
    for object_id in (_intent(payment), payment["stripe"]["charge"], refund["id"]):
        assert object_id in told


def test_a_new_payment_says_where_it_is(system: System) -> None:
    answer = system.pay()
    payment = made(answer)
    located = system.http.get(answer.headers["Location"], params={"after": position(answer)})
    assert (located.status_code, located.json()) == (200, payment)


def test_the_cardholder_is_sent_back_to_an_address_that_exists(system: System) -> None:
    payment = system.paid(payment_method=AUTHENTICATED)
    [intent] = (i for i in system.state()["payment_intents"] if i["id"] == _intent(payment))
    back = httpx.get(intent["next_action"]["redirect_to_url"]["return_url"])
    assert back.status_code != 404, back.text


# Who may


def test_a_token_needs_the_scope_of_what_it_asks(system: System) -> None:
    reader, writer, auditor = (
        system.new_token("scoped", *scopes) for scopes in (["read:payment"], ["write:payment"], ["audit"])
    )
    customer = unique("customer")
    payment = system.paid(customer=customer)
    before = everything_of(system, customer)
    problem(system.pay(token=reader, customer=customer), 403)
    problem(system.post(f"/v1/payments/{payment['id']}/captures", token=reader), 403)
    assert everything_of(system, customer) == before
    for path in ("/v1/payments", f"/v1/payments/{payment['id']}", f"/v1/payments/{payment['id']}/events", "/v1/orders"):
        for token in (writer, auditor):
            problem(system.http.get(path, headers={"Authorization": f"Bearer {token}"}), 403)
        assert system.http.get(path, headers={"Authorization": f"Bearer {reader}"}).status_code == 200
    made(system.pay(token=writer))


def test_without_a_token_nothing_is_told_but_the_health(system: System) -> None:
    with httpx.Client(base_url=system.url) as stranger:
        answer = stranger.get("/v1/payments")
        problem(answer, 401)
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        problem(stranger.post("/v1/payments", json=VISA, headers={"Idempotency-Key": "k"}), 401)
        health, ready = stranger.get("/health"), stranger.get("/ready")
    assert (health.status_code, health.json()["status"]) == (200, "healthy")
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")


def test_a_wrong_state_is_a_conflict_and_too_much_cannot_be_granted(system: System) -> None:
    payment = system.paid()
    problem(system.move(payment, "refunds"), 409)
    assert "#/amount" in named(problem(system.move(payment, "captures", amount=101_00), 422))
    captured = system.moved(payment, "captures")
    problem(system.move(payment, "void"), 409)
    problem(system.move(payment, "captures", amount=1), 409)
    assert "#/amount" in named(problem(system.move(payment, "refunds", amount=101_00), 422))
    assert system.payment(payment["id"])["version"] == captured["version"]


def test_what_was_said_of_a_payment_is_read_back_wherever_it_is_asked_for(system: System) -> None:
    said: dict[str, Any] = {"description": "two seats, row F", "metadata": {"seat": "12A"}, "order": unique("order")}
    answer = system.pay(**said)
    payment = made(answer)
    listed = system.found("/v1/payments", order=said["order"], after=position(answer))["payments"]
    found = system.found(f"/v1/payments/{payment['id']}", after=position(answer))
    begun = system.found(f"/v1/payments/{payment['id']}/events")["events"][0]["data"]
    for told in (payment, found, *listed, begun):
        assert (told["description"], told["metadata"]) == (said["description"], said["metadata"])
