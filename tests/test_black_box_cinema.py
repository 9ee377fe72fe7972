"""The cinema's contract (CONTRACTS.md, section 4) as its callers see it: over HTTP and Kafka, from the outside."""

import json
from collections.abc import Iterator
from functools import partial

import httpx
import pytest

from tests import black_box
from tests.black_box import CARD, HEAL_S, HUNDRED, VISA, Cinema, Fields, agreed, error, failure, new_booking, said
from tests.processes import eventually

BY_CARD = ("credit_card", "debit_card", "stripe")
CARDS = (VISA, "5555555555554444", "378282246310005")
DECLINED = "4000000000000002"
REFUSED_CARDS: list[tuple[Fields, str]] = [
    ({"card_number": DECLINED}, "CARD_DECLINED"),
    ({"card_number": "4000000000009995"}, "INSUFFICIENT_FUNDS"),
    ({"card_number": "4000000000000069"}, "CARD_EXPIRED"),
    ({"expiry_year": 2020}, "CARD_EXPIRED"),
    ({"card_number": "4242424242424241"}, "INVALID_CARD"),
]
CODES = {"INVALID_AMOUNT", "REFUND_NOT_ALLOWED", *(code for _, code in REFUSED_CARDS)}  # those of an answer 400
WRONG_AMOUNTS = ("1e3", "1E2", "NaN", "Infinity", "0", "0.00", "-0.01", "-5", "10.999", "true", "null", '"much"')
ABSENT = "<left out>"
WRONG_PAYMENTS: list[Fields] = [
    *({name: ABSENT} for name in ("user_id", "booking_id", "amount", "payment_method")),
    *({"card_details": {name: CARD[name] for name in CARD if name != missing}} for missing in CARD),
    *({"card_details": CARD | wrong} for wrong in ({"expiry_month": 13}, {"expiry_year": "soon"}, {"card_number": 7})),
    *({"payment_method": method} for method in ("cash", None, "")),
    *({"user_id": 7}, {"booking_id": ["b"]}, {"card_details": "visa"}),
]
MISPLACED: list[Fields] = [
    *({name: VISA} for name in ("payment_method", "user_id", "booking_id", "amount", "card_details", VISA)),
    *({"card_details": CARD | {name: VISA}} for name in ("expiry_month", "cvv", "cardholder_name", "colour", VISA)),
    *({"card_details": CARD | {"card_number": number}} for number in (int(VISA), [VISA], f"{VISA}1", f"{VISA}x")),
    {"payment_method": "paypal", "paypal_details": {"email": VISA, "payment_id": VISA}},
]
EVENT = {"event_id", "event_type", "user_id", "user_email", "booking_id", "timestamp"}
PAYMENT = EVENT | {"amount", "payment_method"}
EVENTS = {
    "payment.failed": PAYMENT | {"failure_reason", "error_code"},
    "payment.success": PAYMENT | {"transaction_id"},
    "payment.refund": EVENT | {"original_transaction_id", "refund_transaction_id", "refund_amount", "reason"},
}


@pytest.fixture(scope="module")
def cinema() -> Iterator[Cinema]:
    with black_box.serving(Cinema) as service:
        yield service


@pytest.fixture
def minor() -> int:
    return black_box.unique_minor()


# Health and methods


def test_the_service_says_that_it_is_healthy(cinema: Cinema) -> None:
    health = said(httpx.get(f"{cinema.url}/health"))
    black_box.moment(health.pop("timestamp"))
    assert health == {"status": "healthy", "service": "payment-service"}


def test_four_methods_are_offered_as_this_deployment_can_take_them(cinema: Cinema) -> None:
    methods = said(cinema.get("/payment/methods"))["payment_methods"]
    assert sorted(method["id"] for method in methods) == sorted([*BY_CARD, "paypal"])
    for method in methods:
        assert set(method) == {"id", "name", "description", "enabled"}
        minor = black_box.unique_minor()
        paypal = {"email": "ada@movies.example", "payment_id": "PAYID-1"}
        answer = cinema.book(new_booking(), minor, payment_method=method["id"], paypal_details=paypal)
        assert (answer.status_code == 200) is method["enabled"] is bool(cinema.intents(minor))


# Paying


@pytest.mark.parametrize("card", CARDS)
@pytest.mark.parametrize("method", BY_CARD)
def test_a_booking_is_paid_by_card(cinema: Cinema, minor: int, card: str, method: str) -> None:
    booking = new_booking()
    paid = said(cinema.book(booking, minor, card, payment_method=method))
    assert paid.pop("status") == "success"
    assert paid.pop("message")
    assert paid["transaction_id"].startswith("TXN-")
    names = {"transaction_id": paid["transaction_id"], "processed_at": paid["processed_at"]}
    assert paid == names | {"booking_id": booking, "amount": black_box.major(minor), "payment_method": method}
    [intent] = cinema.intents(minor)
    assert (intent["status"], intent["amount_received"], intent["currency"]) == ("succeeded", minor, "usd")
    status = cinema.status(paid["transaction_id"])
    assert black_box.moment(status.pop("created_at")) <= black_box.moment(status["processed_at"])
    assert status == paid | {"status": "completed"}


@pytest.mark.parametrize(("card", "code"), REFUSED_CARDS)
def test_a_card_that_is_refused_fails_with_its_code(cinema: Cinema, minor: int, card: Fields, code: str) -> None:
    booking = new_booking()
    answer = cinema.book(booking, minor, card_details=CARD | card)
    assert failure(answer) == code
    told, body = {"booking_id": booking, "amount": black_box.major(minor)}, said(answer, 400)
    assert body == body | told | {"payment_method": "credit_card"}
    assert cinema.intents(minor) == []


@pytest.mark.parametrize("method", BY_CARD)
@pytest.mark.parametrize("details", [{}, {"card_details": None}], ids=str)
def test_a_payment_without_a_card_fails_with_a_code(cinema: Cinema, minor: int, method: str, details: Fields) -> None:
    assert failure(cinema.book(new_booking(), minor, None, payment_method=method, **details)) in CODES
    assert cinema.intents(minor) == []


def test_a_declined_booking_may_be_paid_with_another_card(cinema: Cinema, minor: int) -> None:
    booking = new_booking()
    assert failure(cinema.book(booking, minor, DECLINED)) == "CARD_DECLINED"
    assert said(cinema.book(booking, minor))["status"] == "success"
    assert len(cinema.intents(minor)) == 1


@pytest.mark.parametrize("wrong", WRONG_PAYMENTS, ids=str)
def test_a_payment_with_a_missing_or_wrong_field_is_not_valid(cinema: Cinema, minor: int, wrong: Fields) -> None:
    body = json.loads(black_box.booking_of(new_booking(), minor)) | wrong
    fields = {name: body[name] for name in body if body[name] != ABSENT}
    assert cinema.http.post("/payment/process", json=fields).status_code == 422
    assert cinema.intents(minor) == []


@pytest.mark.parametrize("body", ["", "[]", "null", '{"user_id": '])
@pytest.mark.parametrize("path", ["/payment/process", "/payment/refund"])
def test_what_is_not_a_request_is_not_valid(cinema: Cinema, path: str, body: str) -> None:
    assert cinema.http.post(path, content=body).status_code == 422


@pytest.mark.parametrize("amount", WRONG_AMOUNTS)
def test_only_plain_amounts_above_zero_are_paid_or_refunded(cinema: Cinema, minor: int, amount: str) -> None:
    paid, before = cinema.sold(minor), len(cinema.state()["payment_intents"])
    refund = cinema.wish(paid, minor) | {"refund_amount": "@"}
    payment = black_box.booking_of(new_booking(), minor, amount="@")
    for path, body in {"/payment/process": payment, "/payment/refund": json.dumps(refund)}.items():
        answer = cinema.http.post(path, content=body.replace('"@"', amount))
        assert answer.status_code == 422 or "INVALID_AMOUNT" in json.dumps(answer.json()), answer.text
        black_box.refused(answer)
    assert len(cinema.state()["payment_intents"]) == before
    assert cinema.returned(minor) == []


def test_an_amount_of_nothing_has_a_code_of_its_own(cinema: Cinema) -> None:
    assert "INVALID_AMOUNT" in json.dumps(cinema.book(new_booking(), 0).json())


# Paid once


@pytest.mark.parametrize("difference", [{}, {"amount": 0.99}, {"user_id": "eve"}], ids=str)
def test_a_booking_that_is_paid_cannot_be_paid_again(cinema: Cinema, minor: int, difference: Fields) -> None:
    paid = cinema.sold(minor)
    inside = error(cinema.book(paid["booking_id"], minor, **difference), 409)
    assert (inside["code"], inside["details"]["transaction_id"]) == ("DUPLICATE_TRANSACTION", paid["transaction_id"])
    assert len(cinema.intents(minor)) == 1


def test_another_caller_cannot_pay_a_paid_booking_again(cinema: Cinema, minor: int) -> None:
    body = black_box.booking_of(cinema.sold(minor)["booking_id"], minor)
    with cinema.caller("another-box-office", "write:payment", "read:payment") as other:
        assert error(other.post("/payment/process", content=body), 409)["code"] == "DUPLICATE_TRANSACTION"
    assert len(cinema.intents(minor)) == 1


@pytest.mark.parametrize("cards", [(VISA,), CARDS, (DECLINED, VISA)])
def test_a_hundred_clicks_pay_a_booking_once(cinema: Cinema, minor: int, cards: tuple[str, ...]) -> None:
    booking = new_booking()
    answers = black_box.together([partial(cinema.book, booking, minor, cards[n % len(cards)]) for n in range(HUNDRED)])
    bodies = agreed([*answers, cinema.book(booking, minor)], *([400] if DECLINED in cards else []))
    assert len({body["transaction_id"] for body in bodies}) == 1
    assert len(cinema.intents(minor)) == 1


# Refunds


def test_partial_and_repeated_refunds_go_up_to_what_was_paid(cinema: Cinema, minor: int) -> None:
    paid = cinema.sold(minor)
    parts = [1000, 1000, minor - 2000]
    for number, part in enumerate(parts):
        assert cinema.status(paid["transaction_id"])["status"] == "completed"
        refund = said(cinema.refund(paid, part, reason=f"reason {number}"))
        assert refund.pop("refund_transaction_id").startswith("REF-")
        assert black_box.moment(refund.pop("processed_at")) > black_box.moment(paid["processed_at"])
        assert refund.pop("message")
        names = {"original_transaction_id": paid["transaction_id"], "booking_id": paid["booking_id"]}
        assert refund == names | {"status": "success", "refund_amount": black_box.major(part)}
    assert sorted(cinema.returned(minor)) == sorted(parts)
    assert cinema.status(paid["transaction_id"])["status"] == "refunded"
    assert error(cinema.refund(paid, 1, reason="one cent more"), 400)["code"] == "REFUND_NOT_ALLOWED"


def test_a_refund_of_more_than_is_left_or_of_another_booking_is_refused(cinema: Cinema, minor: int) -> None:
    paid = cinema.sold(minor)
    said(cinema.refund(paid, 1000))
    for part in (minor - 999, minor, minor + 1):
        assert error(cinema.refund(paid, part), 400)["code"] in ("REFUND_NOT_ALLOWED", "INVALID_AMOUNT")
    black_box.refused(cinema.refund(paid | {"booking_id": new_booking()}, 100))
    assert cinema.returned(minor) == [1000]


def test_a_transaction_that_nobody_knows_is_not_found(cinema: Cinema) -> None:
    error(cinema.refund({"booking_id": "booking-0", "transaction_id": "TXN-0000"}, 100), 404)
    assert error(cinema.get("/payment/status/TXN-0000"), 404)["code"] != "PAYMENT_GATEWAY_ERROR"  # that is a 502


def test_a_refund_with_a_missing_or_wrong_field_is_not_valid(cinema: Cinema, minor: int) -> None:
    paid = cinema.sold(minor)
    body = cinema.wish(paid, 100) | {"refund_amount": 1}
    wrong = [{other: body[other] for other in body if other != name} for name in body]
    wrong += [body | {name: ["?"]} for name in body]
    assert [fields for fields in wrong if cinema.http.post("/payment/refund", json=fields).status_code != 422] == []
    assert cinema.returned(minor) == []


def test_a_hundred_clicks_refund_once_and_a_hundred_wishes_what_was_paid(cinema: Cinema, minor: int) -> None:
    paid, part = cinema.sold(minor), minor // 50
    bodies = agreed(black_box.together([partial(cinema.refund, paid, part)] * HUNDRED), 502)  # 502: ask again
    assert len({body["refund_transaction_id"] for body in bodies}) == 1
    assert cinema.returned(minor) == [part]
    wishes = [partial(cinema.refund, paid, part, reason=f"seat {number}") for number in range(HUNDRED)]
    bodies = agreed(black_box.together(wishes), 400, 502)
    eventually(lambda: {wish().status_code for wish in wishes} == {200, 400}, HEAL_S)
    assert cinema.returned(minor) == [part] * 50


# What is not known is not failed


@pytest.mark.parametrize(("card", "word"), [(VISA, "completed"), (DECLINED, "failed")])
def test_a_payment_without_an_answer_is_pending_at_first(cinema: Cinema, minor: int, card: str, word: str) -> None:
    booking = new_booking()
    with cinema.fault("POST /v1/payment_intents", "reply_lost", times=10):
        inside = error(cinema.book(booking, minor, card), 502)
    transaction = inside["details"]["transaction_id"]
    assert inside["code"] == "PAYMENT_GATEWAY_ERROR"
    assert cinema.status(transaction)["status"] in ("pending", word)
    eventually(lambda: cinema.status(transaction)["status"] == word, HEAL_S)
    assert cinema.book(booking, minor).status_code == (409 if word == "completed" else 200)
    assert len(cinema.intents(minor)) == 1


def test_a_refund_without_an_answer_may_be_sent_again(cinema: Cinema, minor: int) -> None:
    paid = cinema.sold(minor)
    with cinema.fault("POST /v1/refunds", "reply_lost", times=10):
        assert error(cinema.refund(paid, 1000), 502)["code"] == "PAYMENT_GATEWAY_ERROR"
    eventually(lambda: cinema.refund(paid, 1000).status_code == 200, HEAL_S)
    assert cinema.returned(minor) == [1000]


def test_while_stripe_is_away_payments_are_gateway_errors_and_none_is_lost(cinema: Cinema, minor: int) -> None:
    bookings = [new_booking() for _ in range(30)]
    with cinema.fault("POST /v1/payment_intents", "refused", times=1000):
        answers = black_box.together([partial(cinema.book, booking, minor) for booking in bookings])
    assert {error(answer, 502)["code"] for answer in answers} == {"PAYMENT_GATEWAY_ERROR"}
    eventually(lambda: {cinema.book(booking, minor).status_code for booking in bookings} == {409}, HEAL_S)
    eventually(lambda: len(cinema.intents(minor)) == len(bookings), HEAL_S)


# Access, limits, card numbers


@pytest.mark.parametrize("headers", [{}, black_box.bearer("not.a.token")], ids=str)
def test_without_a_token_nothing_is_done_and_the_envelope_says_so(cinema: Cinema, headers: dict[str, str]) -> None:
    with httpx.Client(base_url=cinema.url, headers=headers) as stranger:
        answers = [stranger.post(f"/payment/{verb}", json={}) for verb in ("process", "refund")]
        for answer in (*answers, stranger.get("/payment/status/TXN-0000")):
            assert error(answer, 401)["code"]


def test_a_client_is_told_its_limit_and_held_to_it(cinema: Cinema) -> None:
    """By however many processes: test_rate_limits_shared.py."""
    eager, calm = (black_box.bearer(cinema.new_token(name)) for name in ("eager", "calm"))
    with black_box.another_api(cinema) as server:
        answers = black_box.together([partial(server.get, "/payment/methods", headers=eager)] * 30)
        answers.append(server.get("/payment/methods", headers=calm))
    assert [answer.status_code for answer in answers].count(200) == 21
    assert answers[-1].status_code == 200
    for answer in answers:
        assert int(answer.headers["X-RateLimit-Limit"]) in (20, 100)
        assert int(answer.headers["X-RateLimit-Remaining"]) in range(100)
        assert int(answer.headers["X-RateLimit-Reset"]) >= 0


def test_the_limit_of_a_minute_is_a_setting_and_past_it_the_envelope_says_so(cinema: Cinema) -> None:
    answers = cinema.answer_hasty(3)
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert [answer.headers["X-RateLimit-Remaining"] for answer in answers] == ["2", "1", "0", "0"]
    assert error(answers[-1], 429)["code"]


@pytest.mark.parametrize("misplaced", MISPLACED, ids=str)
def test_a_card_number_never_comes_back(cinema: Cinema, minor: int, misplaced: Fields) -> None:
    answer = cinema.book(new_booking(), minor, **misplaced)
    assert VISA not in answer.text + str(answer.headers)


def test_a_card_number_is_kept_nowhere(cinema: Cinema, minor: int) -> None:
    for misplaced in MISPLACED:
        cinema.book(new_booking(), minor, **misplaced)
    booking = cinema.sold(minor)["booking_id"]
    cinema.settle()
    assert (bool(cinema.kept(booking)), cinema.kept(VISA)) == (True, [])


# One ledger behind the contracts


def test_a_paid_booking_is_the_same_money_and_history_in_the_ledger(cinema: Cinema, minor: int) -> None:
    paid = cinema.sold(minor)
    payment = cinema.the_payment(paid["booking_id"], "captured")
    assert [payment[f"amount_{word}"] for word in ("authorized", "captured", "refunded")] == [minor, minor, 0]
    said(cinema.refund(paid, 1000))
    assert cinema.the_payment(paid["booking_id"], "partially_refunded")["amount_refunded"] == 1000
    assert cinema.history(payment["id"])[-4:] == ["Authorized", "Captured", "RefundStarted", "Refunded"]
    for query in ({"order": paid["booking_id"]}, {"customer": "ada"}):
        assert payment["id"] in [found["id"] for found in cinema.found("/v1/payments", **query)["payments"]]


def test_money_refunded_in_the_ledger_is_refunded_at_the_cinema(cinema: Cinema, minor: int) -> None:
    paid = cinema.sold(minor)
    payment = cinema.the_payment(paid["booking_id"], "captured")
    cinema.moved(payment, "refunds", amount=1000)
    assert error(cinema.refund(paid, minor - 999), 400)["code"] in CODES
    cinema.moved(payment, "refunds")
    eventually(lambda: cinema.status(paid["transaction_id"])["status"] == "refunded")


def test_the_airline_can_refund_a_booking_of_the_cinema(cinema: Cinema, minor: int) -> None:
    paid = cinema.sold(minor)
    charge_id = cinema.the_payment(paid["booking_id"], "captured")["stripe"]["charge"]
    assert said(cinema.post("/refund", {"chargeId": charge_id}))["createdRefund"]["amount"] == minor
    eventually(lambda: cinema.status(paid["transaction_id"])["status"] == "refunded")


def test_a_payment_of_the_ledger_is_visible_at_the_cinema(cinema: Cinema) -> None:
    held = cinema.paid(order=new_booking())["id"]
    names = (held, f"TXN-{held}", f"TXN-{held.replace('-', '').upper()}")
    assert "pending" in [cinema.get(f"/payment/status/{name}").json().get("status") for name in names]


# Events on Kafka, and metrics


def test_others_are_told_of_a_failure_a_payment_and_a_refund(cinema: Cinema, minor: int) -> None:
    booking, amount = new_booking(), black_box.major(minor)
    code = failure(cinema.book(booking, minor, DECLINED))
    paid = said(cinema.book(booking, minor))
    refund = said(cinema.refund(paid, 1000))
    told = cinema.told(booking, "payment.refund")
    assert [body["event_type"] for _, body in told] == list(EVENTS)
    for record, body in told:
        assert record.key == booking.encode()
        headers = {name.replace("_", "-"): value.decode() for name, value in record.headers}
        assert headers["event-type"] == body["event_type"]
        assert EVENTS[body["event_type"]] <= set(body) <= EVENTS[body["event_type"]] | PAYMENT
        assert (body["user_id"], VISA in str(record), DECLINED in str(record)) == ("ada", False, False)
        black_box.moment(body["timestamp"])
    failed, success, refunded = (body for _, body in told)
    assert (failed["error_code"], failed["amount"], bool(failed["failure_reason"])) == (code, amount, True)
    for body, answer in ((success, paid), (refunded, refund)):
        assert {name: body[name] for name in body if name in answer} == {n: answer[n] for n in answer if n in body}
    assert len({body["event_id"] for _, body in told}) == len(told)
    assert refunded["reason"] is None, "what somebody wrote stays in the ledger unless the deployment lets it out"


@pytest.mark.parametrize("card", [None, "4242424242424241"])
def test_others_are_told_of_a_failure_without_a_good_card(cinema: Cinema, minor: int, card: str | None) -> None:
    booking = new_booking()
    code = failure(cinema.book(booking, minor, card))
    assert [body["error_code"] for _, body in cinema.told(booking, "payment.failed")] == [code]


def test_others_are_told_once_of_a_hundred_clicks(cinema: Cinema, minor: int) -> None:
    booking = new_booking()
    black_box.together([partial(cinema.book, booking, minor)] * HUNDRED)
    transaction = cinema.book(booking, minor).json()["error"]["details"]["transaction_id"]
    paid = {"booking_id": booking, "transaction_id": transaction}
    black_box.together([partial(cinema.refund, paid, 1000)] * HUNDRED)
    said(cinema.refund(paid, minor - 1000))
    told = [body["event_type"] for _, body in cinema.told(booking, "payment.refund", times=2)]
    assert told == ["payment.success", "payment.refund", "payment.refund"]


def test_errors_are_counted_by_their_type(cinema: Cinema, minor: int) -> None:
    failure(cinema.book(new_booking(), minor, DECLINED))
    eventually(lambda: "card_declined" in cinema.get("/metrics").text.lower())
