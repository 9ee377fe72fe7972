"""The gateway against the Stripe stand-in: every kind of answer, and what each means for the operation."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

import httpx
import pytest
import stripe

from application.gateway import (
    AnyInstruction,
    AuthorizeInstruction,
    CaptureInstruction,
    GatewayMisconfigured,
    RefundInstruction,
    Standing,
    Unknown,
    VoidInstruction,
)
from application.stripe_errors import Refused, judge
from application.stripe_gateway import StripeGateway
from domain.money import Money
from domain.payment_commands import (
    Outcome,
    RecordActionRequired,
    RecordAuthorized,
    RecordCaptured,
    RecordFailed,
    RecordRefunded,
    RecordVoided,
)

KEY = "sk_test_standin"
PATIENCE_S = 30
T = TypeVar("T")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    command = [sys.executable, "-m", "interface.sandbox.stripe", "--data", str(tmp_path_factory.mktemp("stripe"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().split()[1]}"
        process.terminate()


def use(url: str, ask: Callable[[StripeGateway], Awaitable[T]], key: str = KEY) -> T:
    async def run() -> T:
        gateway = StripeGateway(key, url)
        try:
            return await asyncio.wait_for(ask(gateway), PATIENCE_S)
        finally:
            await gateway.close()

    return asyncio.run(run())


def perform(url: str, *instructions: AnyInstruction) -> list[Outcome | Unknown]:
    async def ask(gateway: StripeGateway) -> list[Outcome | Unknown]:
        return [await gateway.perform(instruction) for instruction in instructions]

    return use(url, ask)


def authorize(method: str = "pm_card_visa", minor: int = 100_99) -> AuthorizeInstruction:
    return AuthorizeInstruction(
        payment=uuid4(),
        operation="op_1",
        amount=Money(minor, "usd"),
        capture="manual",
        payment_method=method,
        description=None,
        metadata={"seat": "12A"},
    )


def authorized(url: str) -> RecordAuthorized:
    (outcome,) = perform(url, authorize())
    assert isinstance(outcome, RecordAuthorized)
    return outcome


def capture(of: RecordAuthorized, minor: int, *, final: bool = False) -> CaptureInstruction:
    return CaptureInstruction(
        payment=uuid4(),
        operation="op_2",
        payment_intent=of.payment_intent,
        amount=Money(minor, "usd"),
        final=final,
        multicapture=of.multicapture,
    )


def fault(url: str, match: str, mode: str, **more: object) -> None:
    armed = httpx.post(f"{url}/_sandbox/faults", json={"match": match, "mode": mode, **more})
    assert armed.is_success, armed.text


@pytest.fixture(autouse=True)
def no_faults(url: str) -> Iterator[None]:
    yield
    httpx.delete(f"{url}/_sandbox/faults")


# --- What is answered --------------------------------------------------------------------------------------------


def test_an_authorization_is_recorded_with_its_evidence_and_says_who_asked(url: str) -> None:
    asked = authorize()
    (outcome,) = perform(url, asked)
    assert isinstance(outcome, RecordAuthorized)
    assert (outcome.amount, outcome.captured, outcome.multicapture) == (Money(100_99, "usd"), False, True)
    assert outcome.card is not None
    assert outcome.card.last4 == "4242"
    assert outcome.expires_at is not None
    assert outcome.evidence.startswith("req_")
    [intent] = [
        i for i in httpx.get(f"{url}/_sandbox/state").json()["payment_intents"] if i["id"] == outcome.payment_intent
    ]
    assert intent["metadata"] == {
        "seat": "12A",
        "payledger_payment": str(asked.payment),
        "payledger_operation": "op_1",
    }


def test_the_same_instruction_again_moves_nothing_again(url: str) -> None:
    asked = authorize()
    first, again = perform(url, asked, asked)
    assert isinstance(first, RecordAuthorized)
    assert isinstance(again, RecordAuthorized)
    assert first.payment_intent == again.payment_intent


def test_captures_a_refund_and_the_release_of_the_rest(url: str) -> None:
    held = authorized(url)
    refund = RefundInstruction(
        payment=uuid4(), operation="op_3", payment_intent=held.payment_intent, amount=Money(10_50, "usd")
    )
    void = VoidInstruction(payment=uuid4(), operation="op_4", payment_intent=held.payment_intent, partly_captured=True)
    taken, back, released = perform(url, capture(held, 60_00), refund, void)
    assert isinstance(taken, RecordCaptured)
    assert (taken.amount, taken.final, taken.charge) == (Money(60_00, "usd"), False, held.charge)
    assert isinstance(back, RecordRefunded)
    assert back.amount == Money(10_50, "usd")
    assert isinstance(released, RecordVoided)
    [intent] = [
        i for i in httpx.get(f"{url}/_sandbox/state").json()["payment_intents"] if i["id"] == held.payment_intent
    ]
    assert (intent["amount_capturable"], intent["amount_received"]) == (0, 60_00)


def test_an_older_card_token_pays_too(url: str) -> None:
    (outcome,) = perform(url, authorize("tok_visa"))
    assert isinstance(outcome, RecordAuthorized)


def test_authentication_is_asked_for_and_its_end_is_looked_up(url: str) -> None:
    (waiting,) = perform(url, authorize("pm_card_threeDSecure2Required"))
    assert isinstance(waiting, RecordActionRequired)
    still = use(url, lambda gateway: gateway.standing(uuid4(), "op_1", waiting.payment_intent))
    assert isinstance(still, Standing)
    assert isinstance(still.authorization, RecordActionRequired)


@pytest.mark.parametrize(
    ("method", "decline_code", "retryable"),
    [
        ("pm_card_chargeDeclinedInsufficientFunds", "insufficient_funds", True),
        ("pm_card_chargeDeclinedLostCard", "lost_card", False),
        ("pm_card_visa_chargeDeclined", "generic_decline", False),
    ],
)
def test_a_decline_is_a_no_with_its_code(url: str, method: str, decline_code: str, *, retryable: bool) -> None:
    (outcome,) = perform(url, authorize(method))
    assert isinstance(outcome, RecordFailed)
    assert (outcome.failure.decline_code, outcome.failure.retryable) == (decline_code, retryable)
    assert outcome.payment_intent is not None
    assert outcome.evidence.startswith("req_")


def test_an_authorization_that_ran_out_is_told_from_other_refusals(url: str) -> None:
    held = authorized(url)
    (too_much,) = perform(url, capture(held, 200_00, final=True))
    assert isinstance(too_much, RecordFailed)
    assert not too_much.expired
    httpx.post(f"{url}/_sandbox/clock", json={"advance_s": 8 * 24 * 3600})
    (late,) = perform(url, capture(held, 100_99, final=True))
    assert isinstance(late, RecordFailed)
    assert late.expired


# --- What is not known -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "more"),
    [
        ("error", {"status": 500, "when": "after"}),
        ("error", {"status": 500}),
        ("error", {"status": 429}),
        ("error", {"status": 409}),
        ("refused", {}),
        ("reset", {}),
        ("reply_lost", {}),
        ("garbage", {}),
    ],
)
def test_whatever_is_no_clear_no_is_not_known(url: str, mode: str, more: dict[str, object]) -> None:
    fault(url, "POST /v1/payment_intents", mode, times=0, **more)
    asked = authorize()
    (outcome,) = perform(url, asked)
    assert isinstance(outcome, Unknown)


def test_a_lost_reply_is_heard_by_asking_again(url: str) -> None:
    fault(url, "POST /v1/payment_intents", "reply_lost", times=1)
    asked = authorize()
    (outcome,) = perform(url, asked)
    assert isinstance(outcome, RecordAuthorized), "the SDK asked again under the same key"
    made = httpx.get(f"{url}/_sandbox/state").json()["payment_intents"]
    assert [i["metadata"]["payledger_payment"] for i in made].count(str(asked.payment)) == 1


def test_nobody_listening_is_not_known() -> None:
    (outcome,) = perform("http://127.0.0.1:9", authorize())
    assert isinstance(outcome, Unknown)


# --- What each of the SDK's errors means -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        stripe.APIConnectionError("away"),  # type: ignore[no-untyped-call]
        stripe.APIError("broken", http_status=500),
        stripe.RateLimitError("too fast", http_status=429),
        stripe.IdempotencyError("other parameters", http_status=400),
        stripe.InvalidRequestError("busy", None, code="lock_timeout", http_status=400),  # type: ignore[no-untyped-call]
        stripe.APIError("in flight", http_status=409),
    ],
    ids=lambda error: type(error).__name__,
)
def test_these_errors_leave_the_outcome_open(error: stripe.StripeError) -> None:
    assert isinstance(judge(error), Unknown)


@pytest.mark.parametrize(
    "error",
    [
        stripe.CardError("no", None, "card_declined", http_status=402),  # type: ignore[no-untyped-call]
        stripe.InvalidRequestError("no such method", "payment_method", code="resource_missing", http_status=404),  # type: ignore[no-untyped-call]
    ],
    ids=lambda error: type(error).__name__,
)
def test_these_errors_are_a_no(error: stripe.StripeError) -> None:
    verdict = judge(error)
    assert isinstance(verdict, Refused)
    assert verdict.failure.code == error.code


@pytest.mark.parametrize("error", [stripe.AuthenticationError("who?"), stripe.PermissionError("you may not")])
def test_these_errors_are_ours_to_mend(error: stripe.StripeError) -> None:
    with pytest.raises(GatewayMisconfigured):
        judge(error)


def test_a_key_that_is_refused_stops_the_start(url: str, database_url: str, tmp_path: Path) -> None:
    with pytest.raises(GatewayMisconfigured):
        use(url, lambda gateway: gateway.verify(), key="not-a-key")
    env = os.environ | {
        "DATABASE_URL": database_url,
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9",
        "STRIPE_API_KEY": "not-a-key",
        "STRIPE_API_BASE": url,
        "JWT_SECRET_KEY": "x" * 32,
        "STRIPE_WEBHOOK_SECRET": "whsec_tests",
        "ENCRYPTION_KEY": "00" * 32,
    }
    command = [sys.executable, "-m", "interface.cli", "api"]
    result = subprocess.run(
        command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S * 2, check=False
    )
    assert result.returncode != 0
    assert "GatewayMisconfigured" in result.stderr
    assert "not-a-key" not in result.stdout + result.stderr


def test_a_database_that_is_not_there_stops_the_start_with_a_sentence(url: str, tmp_path: Path) -> None:
    env = os.environ | {
        "DATABASE_URL": "postgresql://nobody:secret-word@127.0.0.1:9/none",
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9",
        "STRIPE_API_KEY": KEY,
        "STRIPE_API_BASE": url,
        "JWT_SECRET_KEY": "x" * 32,
        "STRIPE_WEBHOOK_SECRET": "whsec_tests",
        "ENCRYPTION_KEY": "00" * 32,
    }
    command = [sys.executable, "-m", "interface.cli", "api"]
    result = subprocess.run(
        command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S * 2, check=False
    )
    assert result.returncode == 1
    assert "the database does not answer" in result.stderr
    assert "Traceback" not in result.stderr
    assert "secret-word" not in result.stderr


def test_settings_that_are_missing_are_named_at_once_and_never_shown(tmp_path: Path) -> None:
    env = {"PATH": os.environ["PATH"], "JWT_SECRET_KEY": "short-secret", "ENCRYPTION_KEY": "zz"}
    command = [sys.executable, "-m", "interface.cli", "api"]
    result = subprocess.run(
        command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert result.returncode == 1
    for name in (
        "DATABASE_URL",
        "KAFKA_BOOTSTRAP_SERVERS",
        "STRIPE_API_KEY",
        "STRIPE_WEBHOOK_SECRET",
        "JWT_SECRET_KEY",
        "ENCRYPTION_KEY",
    ):
        assert name in result.stderr, name
    assert "short-secret" not in result.stderr
