"""How a payment stands, read from what Stripe answers to questions: in our words, and nothing guessed."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import aiohttp
import pytest
import stripe

from application.gateway import Absent, RefundSeen, Standing, Unknown
from application.inbox import EventPage
from application.stripe_lookups import MAX_PAGES, StripeLookups
from domain.money import Money
from domain.payment_commands import RecordAuthorized, RecordDispute, RecordFailed
from tests.given import usd

PAYMENT = UUID("0b5a3c1e-7d7f-5f0a-9a64-2f6f0a9d1c55")
MARK = {"payledger_payment": str(PAYMENT), "payledger_operation": "cap_1"}
INTENT = {
    "id": "pi_1",
    "status": "requires_capture",
    "amount": 100_00,
    "currency": "usd",
    "amount_received": 0,
    "capture_method": "manual",
    "metadata": MARK,
    "latest_charge": {"id": "ch_1", "disputed": False},
}
TAKEN = INTENT | {"status": "succeeded", "amount_received": 100_00}
DISPUTED = TAKEN | {"latest_charge": {"id": "ch_1", "disputed": True}}
REFUND = {"id": "re_1", "amount": 40_00, "currency": "usd", "status": "succeeded", "balance_transaction": "txn_1"}
Answer = dict[str, Any] | Exception
errors: Any = stripe  # its errors have no types


class Stripe:
    """Answers by path, a page at a time where there are several; `asked` are the questions."""

    def __init__(self, **answers: Answer | list[Answer]) -> None:
        self.answers = {name.replace("__", "/"): answer for name, answer in answers.items()}
        self.asked: list[tuple[str, dict[str, object]]] = []

    async def get(self, path: str, /, **params: object) -> stripe.StripeResponse:
        self.asked.append((path, params))
        answer = self.answers[path]
        if isinstance(answer, list):
            answer = answer.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return stripe.StripeResponse(json.dumps(answer), 200, {"request-id": f"req_{len(self.asked)}"})

    def standing(self, payment_intent: str | None = "pi_1") -> Any:
        return asyncio.run(StripeLookups(self.get).standing(PAYMENT, "auth_1", payment_intent))

    def paths(self) -> list[str]:
        return [path for path, _ in self.asked]


def page(*data: dict[str, Any], more: bool = False) -> Answer:
    return {"object": "list", "data": list(data), "has_more": more}


def missing() -> Any:
    error = errors.InvalidRequestError("No such payment_intent", "id", code="resource_missing")
    error.request_id = "req_missing"
    return error


def stands(intent: dict[str, Any], refunds: Answer | None = None, disputes: Answer | None = None) -> Standing:
    asked = Stripe(payment_intents__pi_1=intent, refunds=refunds or page(), disputes=disputes or page())
    standing = asked.standing()
    assert isinstance(standing, Standing)
    return standing


# --- An intent ---------------------------------------------------------------------------------------------------


def test_a_reserve_is_told_with_who_marked_it_last_and_its_evidence() -> None:
    standing = stands(INTENT)
    assert (standing.payment_intent, standing.operation, standing.charge) == ("pi_1", "cap_1", "ch_1")
    assert (standing.captured, standing.released, standing.evidence) == (usd(0), "no", "req_1")
    assert isinstance(standing.authorization, RecordAuthorized)
    assert (standing.authorization.operation, standing.authorization.captured) == ("auth_1", False)


@pytest.mark.parametrize(
    ("told", "released", "captured"),
    [
        ({"status": "succeeded", "amount_received": 40_00}, "taken", 40_00),
        ({"amount_received": 40_00}, "no", 40_00),
        ({"status": "canceled", "cancellation_reason": "requested_by_customer"}, "cancelled", 0),
        ({"status": "canceled", "cancellation_reason": None}, "cancelled", 0),
        ({"status": "canceled", "cancellation_reason": "automatic"}, "expired", 0),
        ({"status": "canceled", "cancellation_reason": "expired"}, "expired", 0),
        ({"status": "requires_payment_method", "latest_charge": None}, "no", 0),
    ],
)
def test_what_is_still_reserved_and_what_was_taken_is_told_apart(
    told: dict[str, Any], released: str, captured: int
) -> None:
    standing = stands(INTENT | told)
    assert (standing.released, standing.captured) == (released, usd(captured))


def test_a_charge_that_was_declined_is_a_failure_and_one_that_is_worked_on_is_unknown() -> None:
    assert isinstance(stands(INTENT | {"status": "requires_payment_method"}).authorization, RecordFailed)
    assert stands(INTENT | {"status": "processing"}).authorization == Unknown("processing")


def test_amounts_are_in_the_units_of_their_currency() -> None:
    yen = TAKEN | {"currency": "jpy", "amount": 500, "amount_received": 500}
    assert stands(yen).captured == Money(500, "jpy")


# --- Refunds and disputes ----------------------------------------------------------------------------------------


def test_refunds_are_told_in_the_order_they_were_made() -> None:
    newest_first = page(REFUND | {"id": "re_2", "metadata": MARK | {"payledger_operation": "op_2"}}, REFUND)
    assert stands(TAKEN, newest_first).refunds == (
        RefundSeen("re_1", usd(40_00), None, None),
        RefundSeen("re_2", usd(40_00), "op_2", None),
    )


@pytest.mark.parametrize("status", ["failed", "canceled"])
def test_a_refund_that_came_to_nothing_says_why(status: str) -> None:
    (refund,) = stands(TAKEN, page(REFUND | {"status": status, "failure_reason": "lost_or_stolen_card"})).refunds
    assert refund.failure is not None
    assert (refund.failure.code, refund.failure.retryable) == ("lost_or_stolen_card", False)
    (refund,) = stands(TAKEN, page(REFUND | {"status": status})).refunds
    assert refund.failure is not None
    assert refund.failure.code == f"refund_{status}"


def test_a_reserve_that_was_released_is_no_refund() -> None:
    """Stripe shows it as one, without a balance transaction: nothing moved."""
    assert stands(TAKEN, page(REFUND | {"balance_transaction": None})).refunds == ()
    pending = REFUND | {"balance_transaction": None, "status": "pending"}
    assert len(stands(TAKEN, page(pending)).refunds) == 1


def test_all_refunds_are_read_however_many_pages_they_fill() -> None:
    pages = [page(REFUND | {"id": "re_3"}, REFUND | {"id": "re_2"}, more=True), page(REFUND)]
    asked = Stripe(payment_intents__pi_1=TAKEN, refunds=pages)
    assert [refund.id for refund in asked.standing().refunds] == ["re_1", "re_2", "re_3"]
    assert asked.asked[-1][1]["starting_after"] == "re_2"
    assert asked.asked[-1][1]["payment_intent"] == "pi_1"
    endless = Stripe(payment_intents__pi_1=TAKEN, refunds=page(REFUND, more=True))
    endless.standing()
    assert endless.paths().count("refunds") == MAX_PAGES


@pytest.mark.parametrize(
    ("status", "outcome"),
    [("needs_response", "open"), ("under_review", "open"), ("won", "won"), ("lost", "lost")],
)
def test_a_dispute_is_open_won_or_lost(status: str, outcome: Any) -> None:
    told = {"id": "dp_1", "amount": 100_00, "currency": "usd", "status": status, "reason": "fraudulent"}
    assert stands(DISPUTED, None, page(told)).disputes == (
        RecordDispute("dp_1", usd(100_00), "fraudulent", outcome, "req_1"),
    )


@pytest.mark.parametrize("status", ["warning_needs_response", "warning_under_review", "warning_closed", "prevented"])
def test_an_inquiry_is_no_dispute(status: str) -> None:
    told = {"id": "dp_1", "amount": 100_00, "currency": "usd", "status": status}
    assert stands(DISPUTED, None, page(told)).disputes == ()


def test_nothing_is_asked_for_that_cannot_be() -> None:
    asked = Stripe(payment_intents__pi_1=INTENT)
    asked.standing()
    assert asked.asked == [("payment_intents/pi_1", {"expand": ["latest_charge"]})]
    asked = Stripe(payment_intents__pi_1=TAKEN, refunds=page())
    asked.standing()
    assert asked.paths() == ["payment_intents/pi_1", "refunds"]


# --- Searching ---------------------------------------------------------------------------------------------------


def test_an_intent_whose_name_we_never_heard_is_searched_for_by_its_marks() -> None:
    asked = Stripe(payment_intents__search=page({"id": "pi_1"}), payment_intents__pi_1=INTENT)
    assert asked.standing(None).payment_intent == "pi_1"
    query = f"metadata['payledger_payment']:'{PAYMENT}' AND metadata['payledger_operation']:'auth_1'"
    assert asked.asked[0] == ("payment_intents/search", {"query": query})


def test_an_intent_that_is_not_found_is_absent_and_that_has_its_evidence() -> None:
    assert Stripe(payment_intents__search=page()).standing(None) == Absent("req_1")
    assert Stripe(payment_intents__pi_1=missing()).standing() == Absent("req_missing")


@pytest.mark.parametrize(
    "failure",
    [
        errors.APIConnectionError("gone"),
        errors.APIError("oops"),
        errors.RateLimitError("slow down"),
        errors.AuthenticationError("no"),
        errors.PermissionError("no"),
        errors.InvalidRequestError("what", "query", code="parameter_invalid"),
        errors.InvalidRequestError("what", "query"),
        aiohttp.ClientError("cut"),
        TimeoutError(),
        {"object": "something else"},
        {**INTENT, "currency": "btc"},
        {**INTENT, "latest_charge": "ch_1"},
        {**INTENT, "amount": "much"},
    ],
    ids=repr,
)
def test_what_could_not_be_learned_is_unknown_and_never_absent(failure: Answer) -> None:
    assert isinstance(Stripe(payment_intents__pi_1=failure).standing(), Unknown)
    taken = Stripe(payment_intents__pi_1=TAKEN, refunds=failure)
    assert isinstance(taken.standing(), Unknown), "half of an answer is none"


def test_a_search_that_is_not_answered_has_found_nothing_and_proved_nothing() -> None:
    for failure in (errors.APIConnectionError("gone"), TimeoutError(), {"object": "something else"}):
        assert isinstance(Stripe(payment_intents__search=failure).standing(None), Unknown)


# --- Whose it is, and what happened ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "whose"),
    [
        (INTENT, PAYMENT),
        (INTENT | {"metadata": {}}, Absent("req_1")),
        (INTENT | {"metadata": {"payledger_payment": "no uuid"}}, Absent("req_1")),
        (missing(), Absent("req_missing")),
        (errors.APIConnectionError("gone"), Unknown("APIConnectionError")),
    ],
)
def test_a_payment_is_known_by_the_mark_of_its_intent(told: Answer, whose: UUID | Absent | Unknown) -> None:
    lookups = StripeLookups(Stripe(payment_intents__pi_1=told).get)
    assert asyncio.run(lookups.payment_of("pi_1")) == whose


def happened(number: int) -> dict[str, Any]:
    intent = {"object": "payment_intent", "id": "pi_1", "metadata": MARK}
    return {"id": f"evt_{number}", "type": "payment_intent.created", "created": 1, "data": {"object": intent}}


def test_events_are_read_a_page_at_a_time() -> None:
    asked = Stripe(events=[page(happened(2), happened(1), more=True), page(happened(0))])
    lookups = StripeLookups(asked.get)
    since = datetime(2026, 11, 3, 12, tzinfo=UTC)
    first = asyncio.run(lookups.events(since, None))
    assert isinstance(first, EventPage)
    assert ([event.event_id for event in first.events], first.next) == (["evt_2", "evt_1"], "evt_1")
    last = asyncio.run(lookups.events(since, first.next))
    assert isinstance(last, EventPage)
    assert ([event.payment for event in last.events], last.next) == ([PAYMENT], None)
    created = {"gte": int(since.timestamp())}
    assert [params for _, params in asked.asked] == [
        {"created": created, "limit": 100},
        {"created": created, "limit": 100, "starting_after": "evt_1"},
    ]


@pytest.mark.parametrize("failure", [missing(), errors.APIConnectionError("gone"), {"data": [{"id": 7}]}], ids=repr)
def test_a_list_of_events_that_could_not_be_read_is_unknown(failure: Answer) -> None:
    lookups = StripeLookups(Stripe(events=failure).get)
    assert isinstance(asyncio.run(lookups.events(datetime(2026, 11, 3, tzinfo=UTC), "evt_1")), Unknown)
