"""Wishes, replies, webhooks and recovery at the same time over real HTTP, and Stripe away for a while."""

import asyncio
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from math import ceil
from typing import Any

import httpx
import psycopg
import pytest

from application.breaker import MAX_UNANSWERED
from application.payments import payment_id
from interface.dev import DEVELOPER
from tests.money_storm import recover
from tests.processes import eventually
from tests.system import SETTLE_S, VISA, System, made, problem

CLICKS = 50
SLOW_MS = 1_500
AUTOMATIC = ["AuthorizationStarted", "Authorized", "Captured"]
# Whatever our service asks of Stripe.
REQUESTS = (
    "POST /v1/payment_intents",
    "POST /v1/payment_intents/*/capture",
    "POST /v1/payment_intents/*/cancel",
    "POST /v1/refunds",
    "GET /v1/payment_intents/*",
    "GET /v1/refunds",
    "GET /v1/events",
)
MAX_P99_S = 60


def at_once(*calls: Callable[[], httpx.Response]) -> list[httpx.Response]:
    with ThreadPoolExecutor(len(calls)) as pool:
        return [asked.result() for asked in [pool.submit(call) for call in calls]]


def statuses(answers: Sequence[httpx.Response]) -> list[int]:
    return sorted(answer.status_code for answer in answers)


def agree(system: System, payment: dict[str, Any]) -> dict[str, Any]:
    """The payment, when ours and Stripe's say the same of it and it was charged once."""
    position = system.facts(payment["id"])[-1]["position"]
    found = system.payment(payment["id"], after=position)
    theirs = system.amount_at_stripe(found)
    assert {name: found[name] for name in theirs} == theirs
    intents = system.state()["payment_intents"]
    assert sum(found["id"] in intent["metadata"].values() for intent in intents) == 1
    return found


# --- Callers -----------------------------------------------------------------------------------------------------


def test_the_same_key_from_fifty_callers_at_once_is_one_payment(system: System) -> None:
    key = f"clicks-{uuid.uuid4()}"
    answers = at_once(*[lambda: system.pay(key=key, capture="automatic")] * CLICKS)
    assert statuses(answers).count(201) == 1
    assert set(statuses(answers)) <= {200, 201, 202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert system.history(answers[0].json()["id"]) == AUTOMATIC
    agree(system, answers[0].json())


def test_of_two_captures_at_once_one_is_done(system: System) -> None:
    payment = system.paid()
    answers = at_once(*[lambda: system.move(payment, "captures")] * 2)
    assert statuses(answers) == [201, 409]
    assert agree(system, payment)["amount_captured"] == VISA["amount"]


def test_of_a_capture_and_a_release_at_once_one_is_done(system: System) -> None:
    for _ in range(3):
        payment = system.paid()
        answers = at_once(lambda: system.move(payment, "captures"), lambda: system.move(payment, "void"))  # noqa: B023
        assert statuses(answers) == [201, 409]
        assert agree(system, payment)["status"] in {"captured", "voided"}


def test_refunds_from_several_callers_at_once_never_exceed_the_capture(system: System) -> None:
    payment = system.paid(capture="automatic")
    answers = at_once(*[lambda: system.move(payment, "refunds", amount=40_00)] * 5)
    assert statuses(answers)[:2] == [201, 201]
    assert set(statuses(answers)[2:]) <= {409, 422}
    assert agree(system, payment)["amount_refunded"] == 80_00


# --- A slow reply ------------------------------------------------------------------------------------------------


def test_a_webhook_that_is_faster_than_the_reply_is_recorded_once(system: System) -> None:
    with system.fault("POST /v1/payment_intents", "slow", delay_ms=SLOW_MS, when="after", times=1):
        payment = made(system.pay(capture="automatic"))
    assert payment["status"] == "captured"
    eventually(lambda: events_of(system, payment["id"]) >= {"payment_intent.succeeded"})
    assert system.history(payment["id"]) == AUTOMATIC
    agree(system, payment)


@pytest.mark.parametrize("when", ["before", "after"])
def test_recovery_that_comes_before_the_reply_carries_nothing_out_twice(system: System, when: str) -> None:
    key = f"slow-{uuid.uuid4()}"
    stream = payment_id(DEVELOPER, key)
    with (
        ThreadPoolExecutor(1) as caller,
        psycopg.connect(system.database_url, autocommit=True) as conn,
        system.fault("POST /v1/payment_intents", "slow", delay_ms=SLOW_MS, when=when, times=1),
    ):
        asked = caller.submit(system.pay, key=key, capture="automatic")
        begun = "SELECT count(*) FROM open_operations WHERE payment = %s"
        eventually(lambda: conn.execute(begun, (stream,)).fetchone() == (1,))
        while not asked.done():
            asyncio.run(recover(system, conn))
        payment = made(asked.result())
    assert system.history(payment["id"]) == AUTOMATIC
    agree(system, payment)


def events_of(system: System, payment: str) -> set[str]:
    """The types of the events about a payment that were handled."""
    with psycopg.connect(system.database_url) as conn:
        found = conn.execute("SELECT type FROM inbox WHERE payment = %s AND state = 'done'", (payment,))
        return {kind for (kind,) in found}


# --- Stripe is away ----------------------------------------------------------------------------------------------


@contextmanager
def away(system: System) -> Iterator[None]:
    with ExitStack() as faults:
        for request in REQUESTS:
            faults.enter_context(system.fault(request, "refused", times=0))
        yield


def test_while_stripe_is_away_callers_hear_so_before_anything_is_recorded_and_it_heals_alone(system: System) -> None:
    held = system.paid()
    key = f"refused-{uuid.uuid4()}"
    with away(system):
        unknown = at_once(*[lambda: system.pay(capture="automatic")] * MAX_UNANSWERED)
        assert set(statuses(unknown)) <= {202, 503}
        facts = system.facts_in_log()
        refused = [system.pay(key=key), system.move(held, "captures"), system.move(held, "void")]
        for answer in refused:
            problem(answer, 503)
            assert int(answer.headers["Retry-After"]) >= 1
        assert system.facts_in_log() == facts, "an operation that is not begun need not be finished"
        ready = system.get("/ready")
        assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
        assert system.payment(held["id"])["status"] == "authorized", "queries are answered all the same"
        back = datetime.now(UTC)
    eventually(system.settled, SETTLE_S)
    begun = [answer.json()["id"] for answer in unknown if answer.status_code == 202]
    took_s = sorted(settled_after_s(system, payment, back) for payment in begun)
    assert took_s[ceil(0.99 * len(took_s)) - 1] <= MAX_P99_S
    eventually(lambda: system.pay(key=key).status_code in {200, 201}, SETTLE_S)
    eventually(lambda: system.get("/ready").json()["status"] == "ready", SETTLE_S)
    for payment in (system.payment(payment) for payment in begun):
        assert agree(system, payment)["status"] == "captured"
    agree(system, system.moved(held, "captures"))


def settled_after_s(system: System, payment: str, back: datetime) -> float:
    """From when Stripe could be asked again to the outcome's own time."""
    return (datetime.fromisoformat(system.facts(payment)[-1]["at"]) - back).total_seconds()
