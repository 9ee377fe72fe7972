"""A payment's use cases on a real log, with a provider that keeps money and can be told to fail.

Whatever happens between us and the provider, at the end of a test both must say the same of the money.
"""

import asyncio
import logging
import os
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import projections
from application.event_store import Ledger
from application.payment_stream import Context, PaymentStreams
from application.payments import (
    Answer,
    KeyReused,
    PaymentNotFound,
    Payments,
    VersionMoved,
    fingerprint,
    operation_id,
    payment_id,
)
from application.privacy import Keys
from application.settlement import ABANDONED_AFTER, KEY_LIFETIME, Contended, Settlement
from domain.envelope import Envelope
from domain.errors import (
    AlreadyStarted,
    ExceedsAuthorized,
    ExceedsCaptured,
    IllegalTransition,
    InvalidAmount,
    OperationInFlight,
    Refusal,
)
from domain.facts import NAMES
from domain.payment_commands import Authorize, Capture, Refund, Void, Wish
from interface.sandbox.postgres import Postgres
from tests.fake_gateway import PATIENCE_S, Behaviour, FakeGateway
from tests.given import NOON, authorize, eur, usd
from tests.unreliable_network import UnreliableNetwork

ME = Context(actor="cinema", correlation="request-1", causation="order.3")
KEY = b"fingerprints".ljust(32)
KEYS = Keys(masters=(bytes(32),), chance=os.urandom)
MIGRATIONS = Path(projections.__file__).parent / "migrations"
NEVER_ARRIVES = Behaviour(arrives=False)
REPLY_LOST = Behaviour(answers=False)


class Desk:
    """A payment at the desk of one process: the ledger, the provider, and a clock that can be moved."""

    def __init__(
        self, ledger: Ledger, *, multicapture: bool = False, fingerprint_keys: tuple[bytes, ...] = (KEY,)
    ) -> None:
        self.stream = uuid4()
        self.now = NOON
        self.ledger = ledger
        self.gateway = FakeGateway(multicapture=multicapture)
        streams = PaymentStreams(ledger, self.clock, asyncio.to_thread)
        self.settlement = Settlement(streams, self.gateway, self.clock)
        self.payments = Payments(streams, self.settlement, self.gateway, self.clock, fingerprint_keys)

    def clock(self) -> datetime:
        return self.now

    def ask(self, wish: Wish, **also: Any) -> Answer:
        return asyncio.run(self.asking(wish, **also))

    async def asking(self, wish: Wish, **also: Any) -> Answer:
        return await self.payments.carry_out(self.stream, wish, ME, **also)

    async def asking_until_served(self, wish: Wish) -> Answer | Refusal:
        for _ in range(100):
            try:
                return await self.asking(wish)
            except Contended:
                continue
            except Refusal as refusal:
                return refusal
        pytest.fail("others were always faster")

    def returned(self) -> Answer:
        return asyncio.run(self.payments.returned(self.stream, ME))

    def facts(self) -> list[str]:
        return [NAMES[type(envelope.fact)] for envelope in self.envelopes()]

    def envelopes(self) -> tuple[Envelope, ...]:
        return self.ledger.load(self.stream).envelopes

    def agree(self) -> None:
        """The ledger and the provider say the same of the money, and no key moved any twice."""
        payment = asyncio.run(self.payments.history(self.stream)).payment
        assert payment is not None
        assert payment.payment_intent is not None
        intent = self.gateway.intents[payment.payment_intent]
        assert (payment.captured.minor, payment.refunded.minor) == (intent.received, intent.refunded)
        assert bool(payment.capturable) == (intent.status == "requires_capture")
        assert set(self.gateway.moved.values()) <= {1}


@pytest.fixture(scope="module")
def module_database_url(postgres: Postgres) -> str:
    """One log for all of these tests: each has a payment of its own, and none counts what else is there."""
    with psycopg.connect(postgres.url, autocommit=True) as admin:
        admin.execute("CREATE DATABASE payments")
    url = postgres.url.rpartition("/")[0] + "/payments"
    with psycopg.connect(url) as owner:
        owner.execute((MIGRATIONS / "0003_person_keys.sql").read_bytes())
    return url


@pytest.fixture(scope="module")
def ledger(module_database_url: str) -> Iterator[Ledger]:
    with Ledger(module_database_url, KEYS, create_table=True) as ledger:
        yield ledger


@pytest.fixture
def desk(ledger: Ledger) -> Desk:
    return Desk(ledger)


@pytest.fixture
def authorized(desk: Desk) -> Desk:
    desk.ask(authorize())
    return desk


@pytest.fixture
def captured(authorized: Desk) -> Desk:
    authorized.ask(Capture("cap_1"))
    return authorized


# --- Intent, act, outcome ----------------------------------------------------------------------------------------


def test_a_payment_goes_from_authorization_to_refund(desk: Desk) -> None:
    asked = desk.ask(authorize())
    assert (asked.outcome, asked.at.payment.status, asked.at.version, asked.replayed) == (
        "done",
        "authorized",
        2,
        False,
    )
    taken = desk.ask(Capture("cap_1", 40_00, reason="first parcel"))
    assert (taken.outcome, taken.at.payment.status, taken.at.payment.captured) == (
        "done",
        "partially_captured",
        usd(40_00),
    )
    back = desk.ask(Refund("re_1", 15_00))
    assert (back.outcome, back.at.payment.status, back.at.payment.refundable) == (
        "done",
        "partially_refunded",
        usd(25_00),
    )
    assert desk.facts() == [
        "AuthorizationStarted",
        "Authorized",
        "CaptureStarted",
        "Captured",
        "RefundStarted",
        "Refunded",
    ]
    assert (back.at.id, back.at.version, back.at.position) == (desk.stream, 6, desk.envelopes()[-1].position)
    desk.agree()


def test_with_automatic_capture_the_money_is_taken_at_once(desk: Desk) -> None:
    answer = desk.ask(authorize(capture="automatic"))
    assert (answer.outcome, answer.at.payment.status) == ("done", "captured")
    assert desk.facts() == ["AuthorizationStarted", "Authorized", "Captured"]
    desk.agree()


def test_a_reserve_is_captured_in_parts_where_the_card_allows_it(ledger: Ledger) -> None:
    desk = Desk(ledger, multicapture=True)
    desk.ask(authorize())
    desk.ask(Capture("cap_1", 30_00))
    desk.agree()
    assert desk.ask(Capture("cap_2")).at.payment.status == "captured"
    desk.agree()


def test_a_reserve_is_released(authorized: Desk) -> None:
    answer = authorized.ask(Void("void_1"))
    assert (answer.outcome, answer.at.payment.status) == ("done", "voided")
    assert authorized.gateway.intent.status == "canceled"
    authorized.agree()


def test_a_decline_is_an_answer_and_another_attempt_may_succeed(desk: Desk) -> None:
    desk.gateway.will(Behaviour(declines=True))
    declined = desk.ask(authorize())
    assert (declined.outcome, declined.at.payment.status) == ("failed", "failed")
    again = desk.ask(authorize("auth_2"))
    assert (again.outcome, again.at.payment.status, again.at.payment.attempt) == ("done", "authorized", 2)
    assert desk.ask(authorize()).at == declined.at, "the first attempt's answer stays what it was"
    desk.agree()


def test_each_fact_tells_who_asked_when_and_after_what(authorized: Desk) -> None:
    authorized.now += timedelta(minutes=1)
    authorized.ask(Capture("cap_1", 40_00))
    started, outcome, capture, _ = authorized.envelopes()
    assert {envelope.actor for envelope in authorized.envelopes()} == {"cinema"}
    assert {envelope.correlation for envelope in authorized.envelopes()} == {"request-1"}
    assert [envelope.operation for envelope in authorized.envelopes()] == ["auth_1", "auth_1", "cap_1", "cap_1"]
    assert (started.causation, outcome.causation) == ("order.3", started.id)
    assert (started.fingerprint, outcome.fingerprint) == (fingerprint(authorize(), KEY), None)
    assert capture.fingerprint == fingerprint(Capture("cap_1", 40_00), KEY)
    assert (started.at, capture.at) == (NOON, NOON + timedelta(minutes=1))


def test_the_intent_is_on_record_before_the_provider_hears_of_it(desk: Desk) -> None:
    async def scenario() -> None:
        go = asyncio.Event()
        desk.gateway.will(Behaviour(until=go))
        asking = asyncio.create_task(desk.asking(authorize()))
        await asyncio.wait_for(desk.gateway.busy.wait(), PATIENCE_S)
        assert desk.gateway.intents == {}
        assert desk.facts() == ["AuthorizationStarted"]
        go.set()
        await asking

    asyncio.run(scenario())
    desk.agree()


# --- Refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wish", [Capture("x"), Void("x"), Refund("x")], ids=lambda wish: type(wish).__name__)
def test_what_was_never_authorized_is_not_found(desk: Desk, wish: Wish) -> None:
    with pytest.raises(PaymentNotFound):
        desk.ask(wish)
    with pytest.raises(PaymentNotFound):
        desk.returned()
    with pytest.raises(PaymentNotFound):
        asyncio.run(desk.payments.history(desk.stream))
    assert desk.facts() == []


@pytest.mark.parametrize(
    ("wish", "refusal"),
    [
        (authorize("auth_2"), AlreadyStarted),
        (Capture("cap_1", 100_01), ExceedsAuthorized),
        (Capture("cap_1", 0), InvalidAmount),
        (Refund("re_1"), IllegalTransition),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_wish_that_is_refused_is_not_recorded_and_nobody_is_asked(
    authorized: Desk, wish: Wish, refusal: type[Refusal]
) -> None:
    with pytest.raises(refusal):
        authorized.ask(wish)
    assert authorized.facts() == ["AuthorizationStarted", "Authorized"]
    assert len(authorized.gateway.asked) == 1


def test_a_caller_may_insist_on_a_version(authorized: Desk) -> None:
    with pytest.raises(VersionMoved) as moved:
        authorized.ask(Capture("cap_1"), versions=frozenset({1, 3}))
    assert moved.value.version == 2
    assert authorized.ask(Capture("cap_1"), versions=frozenset({2})).at.version == 4
    assert authorized.ask(Capture("cap_1"), versions=frozenset({2})).replayed, "a retry is a retry, also with If-Match"


# --- Asking twice ------------------------------------------------------------------------------------------------


def test_a_wish_asked_again_gets_its_first_answer_even_after_later_operations(desk: Desk) -> None:
    wishes: list[Wish] = [authorize(), Capture("cap_1", 60_00), Refund("re_1", 10_00), Refund("re_2")]
    first = [desk.ask(wish) for wish in wishes]
    facts, asked = desk.facts(), len(desk.gateway.asked)
    desk.now += timedelta(days=2)
    for wish, answer in zip(wishes, first, strict=True):
        again = desk.ask(wish)
        assert again.replayed
        assert (again.at, again.outcome) == (answer.at, answer.outcome)
    assert (desk.facts(), len(desk.gateway.asked)) == (facts, asked)
    desk.agree()


@pytest.mark.parametrize(
    ("wish", "other"),
    [
        (authorize(), authorize(minor=100_01)),
        (authorize(), authorize(currency="eur")),
        (authorize(), authorize(capture="automatic")),
        (authorize(), Authorize("auth_1", usd(100_00), "manual", "pm_card_visa", metadata={"seat": "1"})),
        (Capture("cap_1", 40_00), Capture("cap_1", 40_01)),
        (Capture("cap_1", 40_00), Capture("cap_1")),
        (Capture("cap_1", 40_00), Refund("cap_1", 40_00)),
        (Capture("cap_1", 40_00), Capture("cap_1", 40_00, reason="other")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_key_means_one_thing_only(desk: Desk, wish: Wish, other: Wish) -> None:
    desk.ask(authorize())
    desk.ask(wish)
    facts = desk.facts()
    with pytest.raises(KeyReused):
        desk.ask(other)
    assert desk.facts() == facts


def test_a_wish_is_recognised_when_the_key_of_its_fingerprint_was_replaced(ledger: Ledger) -> None:
    before = Desk(ledger)
    before.ask(authorize())
    after = Desk(ledger, fingerprint_keys=(b"new".ljust(32), KEY))
    after.stream, after.gateway = before.stream, before.gateway
    assert after.ask(authorize()).replayed
    with pytest.raises(KeyReused):
        after.ask(authorize(minor=1))


def test_fifty_clicks_are_one_authorization(desk: Desk) -> None:
    async def scenario() -> list[Answer]:
        return await asyncio.gather(*(desk.asking(authorize()) for _ in range(50)))

    answers = asyncio.run(scenario())
    assert len(desk.gateway.asked) == 1
    assert desk.facts() == ["AuthorizationStarted", "Authorized"]
    assert [answer.replayed for answer in answers].count(False) == 1
    assert {answer.outcome for answer in answers} <= {"done", "open"}
    desk.agree()


def test_of_two_wishes_under_one_key_at_once_one_is_carried_out(desk: Desk) -> None:
    async def scenario() -> list[Answer | BaseException]:
        wishes = [authorize(), authorize(minor=50_00)] * 5
        return await asyncio.gather(*map(desk.asking, wishes), return_exceptions=True)

    answers = asyncio.run(scenario())
    assert sum(isinstance(answer, KeyReused) for answer in answers) == 5
    assert len({answer.at.payment.amount for answer in answers if isinstance(answer, Answer)}) == 1
    assert len(desk.gateway.asked) == 1
    desk.agree()


# --- An outcome that nobody knows --------------------------------------------------------------------------------


@pytest.mark.parametrize("failure", [NEVER_ARRIVES, REPLY_LOST], ids=["never arrives", "reply lost"])
def test_an_unknown_outcome_is_no_fact_and_leaves_the_operation_open(desk: Desk, failure: Behaviour) -> None:
    desk.gateway.will(failure)
    answer = desk.ask(authorize())
    assert (answer.outcome, answer.at.payment.status, answer.replayed) == ("open", "pending", False)
    assert desk.facts() == ["AuthorizationStarted"]


def test_an_outcome_can_be_learned_later(desk: Desk) -> None:
    desk.gateway.will(REPLY_LOST)
    desk.ask(authorize())
    asyncio.run(desk.settlement.learn(desk.stream, ME))
    asyncio.run(desk.settlement.learn(desk.stream, ME))  # heard twice it is one fact
    assert desk.facts() == ["AuthorizationStarted", "Authorized"]
    assert desk.ask(authorize()).outcome == "done"
    desk.agree()


def test_an_open_operation_is_not_asked_for_again_while_its_worker_may_live(desk: Desk) -> None:
    desk.gateway.will(REPLY_LOST)
    desk.ask(authorize())
    desk.now += ABANDONED_AFTER
    answer = desk.ask(authorize())
    assert (answer.outcome, answer.replayed) == ("open", True)
    assert len(desk.gateway.asked) == 1


@pytest.mark.parametrize("failure", [NEVER_ARRIVES, REPLY_LOST], ids=["never arrives", "reply lost"])
@pytest.mark.parametrize(
    "wish", [authorize(), Capture("x"), Void("x"), Refund("x", 30_00)], ids=lambda wish: type(wish).__name__
)
def test_an_abandoned_operation_is_finished_with_the_same_key(ledger: Ledger, wish: Wish, failure: Behaviour) -> None:
    desk = Desk(ledger)
    if not isinstance(wish, Authorize):
        desk.ask(authorize(capture="automatic" if isinstance(wish, Refund) else "manual"))
    desk.gateway.will(failure)
    assert desk.ask(wish).outcome == "open"
    desk.now += ABANDONED_AFTER + timedelta(seconds=1)
    assert desk.ask(wish).outcome == "done"
    *_, first, second = desk.gateway.asked
    assert first.idempotency_key == second.idempotency_key == f"{desk.stream}:{wish.operation}"
    assert desk.gateway.moved[first.idempotency_key] == 1
    desk.agree()


def test_what_is_older_than_the_providers_memory_is_not_asked_for_again(authorized: Desk) -> None:
    """The same key would be a new charge by then."""
    authorized.gateway.will(REPLY_LOST)
    authorized.ask(Capture("cap_1"))
    authorized.now += KEY_LIFETIME
    answer = authorized.ask(Capture("cap_1"))
    assert (answer.outcome, answer.replayed) == ("open", True)
    assert len(authorized.gateway.asked) == 2
    assert authorized.facts()[-1] == "CaptureStarted"


def test_a_caller_that_goes_away_leaves_an_operation_that_can_be_finished(desk: Desk) -> None:
    async def scenario() -> None:
        desk.gateway.will(Behaviour(until=asyncio.Event()))
        asking = asyncio.create_task(desk.asking(authorize()))
        await asyncio.wait_for(desk.gateway.busy.wait(), PATIENCE_S)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    asyncio.run(scenario())
    assert desk.facts() == ["AuthorizationStarted"]
    desk.now += ABANDONED_AFTER + timedelta(seconds=1)
    assert desk.ask(authorize()).outcome == "done"
    desk.agree()


def test_an_outcome_that_contradicts_the_intent_is_not_recorded(
    authorized: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    authorized.gateway.will(Behaviour(confirms=usd(39_00)))
    with caplog.at_level(logging.ERROR):
        answer = authorized.ask(Capture("cap_1", 40_00))
    assert (answer.outcome, answer.at.payment.captured) == ("open", usd(0))
    assert authorized.facts()[-1] == "CaptureStarted"
    assert [record.levelname for record in caplog.records] == ["ERROR"], "somebody has to look at it"
    with pytest.raises(OperationInFlight):
        authorized.ask(Void("void_1"))


def test_an_outcome_that_could_not_be_stored_is_learned_again(
    ledger: Ledger, module_database_url: str, postgres: Postgres
) -> None:
    with (
        UnreliableNetwork(postgres.port) as network,
        Ledger(make_conninfo(module_database_url, port=network.port)) as remote,
    ):
        desk = Desk(remote)
        network.lose("request", b"Authorized", times=100)
        assert desk.ask(authorize()).outcome == "open"
        assert network.lost > 0
        network.lose("request", b"Authorized", times=0)
        desk.now += ABANDONED_AFTER + timedelta(seconds=1)
        assert desk.ask(authorize()).outcome == "done"
        assert len(desk.gateway.intents) == 1
        desk.agree()
    assert len(ledger.load(desk.stream).envelopes) == 2


# --- Two at once -------------------------------------------------------------------------------------------------


def held(desk: Desk, first: Wish, second: Wish) -> tuple[Answer, Answer | BaseException]:
    """The second wish is asked while the first is with the provider."""

    async def scenario() -> tuple[Answer, Answer | BaseException]:
        go = asyncio.Event()
        desk.gateway.will(Behaviour(until=go))
        asking = asyncio.create_task(desk.asking(first))
        await asyncio.wait_for(desk.gateway.busy.wait(), PATIENCE_S)
        (answer,) = await asyncio.gather(desk.asking(second), return_exceptions=True)
        go.set()
        return await asking, answer

    return asyncio.run(scenario())


@pytest.mark.parametrize("second", [Capture("cap_2", 40_00), Void("void_1")], ids=lambda wish: type(wish).__name__)
def test_a_capture_with_the_provider_holds_the_reserve(authorized: Desk, second: Wish) -> None:
    taken, refused = held(authorized, Capture("cap_1", 40_00), second)
    assert taken.outcome == "done"
    assert isinstance(refused, OperationInFlight)
    assert len(authorized.gateway.asked) == 2
    authorized.agree()


def test_a_void_with_the_provider_holds_the_reserve(authorized: Desk) -> None:
    voided, refused = held(authorized, Void("void_1"), Capture("cap_1"))
    assert voided.outcome == "done"
    assert isinstance(refused, OperationInFlight)
    authorized.agree()


def test_a_refund_with_the_provider_holds_its_part(captured: Desk) -> None:
    first, second = held(captured, Refund("re_1", 70_00), Refund("re_2"))
    assert first.outcome == "done"
    assert isinstance(second, Answer)
    assert (second.outcome, second.at.payment.refunded) == ("done", usd(30_00))
    captured.agree()
    assert captured.gateway.intent.refunded == 100_00
    captured.ask(Refund("re_1", 70_00))
    with pytest.raises(IllegalTransition):
        captured.ask(Refund("re_3", 1))


def test_a_refund_with_the_provider_cannot_be_asked_for_twice(captured: Desk) -> None:
    first, second = held(captured, Refund("re_1", 70_00), Refund("re_2", 40_00))
    assert first.outcome == "done"
    assert isinstance(second, ExceedsCaptured)
    captured.agree()


def race(desk: Desk, *wishes: Wish) -> list[Answer | Refusal]:
    async def scenario() -> list[Answer | Refusal]:
        return await asyncio.gather(*map(desk.asking_until_served, wishes))

    return asyncio.run(scenario())


def test_of_two_captures_at_once_one_takes_the_money(authorized: Desk) -> None:
    answers = race(authorized, Capture("cap_1", 60_00), Capture("cap_2", 60_00))
    assert sorted(isinstance(answer, Answer) for answer in answers) == [False, True]
    assert authorized.gateway.intent.received == 60_00
    authorized.agree()


def test_of_a_capture_and_a_void_at_once_one_happens(authorized: Desk) -> None:
    answers = race(authorized, Capture("cap_1"), Void("void_1"))
    assert sorted(isinstance(answer, Answer) for answer in answers) == [False, True]
    assert authorized.gateway.intent.status in {"succeeded", "canceled"}
    authorized.agree()


def test_many_refunds_at_once_never_exceed_the_capture(captured: Desk) -> None:
    answers = race(captured, *(Refund(f"re_{number}", 15_00) for number in range(12)))
    done = [answer for answer in answers if isinstance(answer, Answer)]
    assert len(done) == 6
    assert {answer.outcome for answer in done} == {"done"}
    assert captured.gateway.intent.refunded == 90_00
    captured.agree()


# --- 3-D Secure --------------------------------------------------------------------------------------------------


@pytest.fixture
def challenged(desk: Desk) -> Desk:
    desk.gateway.will(Behaviour(challenges=True))
    answer = desk.ask(authorize())
    assert (answer.outcome, answer.at.payment.status) == ("waiting", "requires_action")
    assert answer.at.payment.next_action is not None
    return desk


def test_a_cardholder_who_authenticated_has_authorized(challenged: Desk) -> None:
    challenged.gateway.cardholder_authenticates()
    answer = challenged.returned()
    assert (answer.outcome, answer.at.payment.status) == ("done", "authorized")
    assert challenged.returned().at == answer.at, "coming back twice changes nothing"
    assert challenged.facts() == ["AuthorizationStarted", "ActionRequired", "Authorized"]
    assert challenged.ask(authorize()).outcome == "done"
    challenged.agree()


def test_a_cardholder_who_failed_to_authenticate_may_try_again(challenged: Desk) -> None:
    challenged.gateway.cardholder_authenticates(successfully=False)
    assert challenged.returned().outcome == "failed"
    assert challenged.ask(authorize("auth_2")).outcome == "done"
    challenged.agree()


def test_a_cardholder_who_came_back_too_early_is_still_waited_for(challenged: Desk) -> None:
    assert challenged.returned().outcome == "waiting"
    challenged.gateway.will(REPLY_LOST)
    assert challenged.returned().outcome == "waiting"
    assert challenged.facts() == ["AuthorizationStarted", "ActionRequired"]


def test_what_waits_for_the_cardholder_is_not_taken_for_abandoned(challenged: Desk) -> None:
    challenged.now += ABANDONED_AFTER + timedelta(minutes=10)
    assert challenged.ask(authorize()).outcome == "waiting"
    assert len(challenged.gateway.asked) == 1


def test_a_payment_that_waits_for_the_cardholder_can_be_voided(challenged: Desk) -> None:
    answer = challenged.ask(Void("void_1"))
    assert (answer.outcome, answer.at.payment.status) == ("done", "voided")
    assert challenged.returned().at.payment.status == "voided"
    challenged.agree()


def test_two_who_learn_of_the_same_authentication_record_it_once(challenged: Desk) -> None:
    challenged.gateway.cardholder_authenticates()

    async def scenario() -> list[Answer]:
        return await asyncio.gather(*(challenged.payments.returned(challenged.stream, ME) for _ in range(8)))

    assert {answer.outcome for answer in asyncio.run(scenario())} == {"done"}
    assert challenged.facts() == ["AuthorizationStarted", "ActionRequired", "Authorized"]
    challenged.agree()


# --- Names that are derived --------------------------------------------------------------------------------------


def test_the_same_caller_and_key_always_name_the_same_payment() -> None:
    """These are stored: another derivation would be another payment, and a retry of yesterday a second charge."""
    payment = payment_id("cinema", "booking-7")
    assert payment == UUID("eee9ccc9-8c7e-5931-9de9-5420b278a3a7")
    assert operation_id(payment, "cinema", "capture-1") == "70920549-a386-5e00-a3a2-6b748050e34d"
    assert (
        fingerprint(Capture("cap_1", 40_00), KEY) == "aedc6ced1246073d0f7d84d5a0254d848cd7646b96dba87908b552855528fd4c"
    )


def test_names_do_not_run_into_each_other() -> None:
    pairs = [("ab", "c"), ("a", "bc"), ("abc", ""), ("", "abc"), ("1:ab", "c"), ("AB", "c")]
    assert len({payment_id(*pair) for pair in pairs}) == len(pairs)
    payment = payment_id("a", "b")
    assert len({operation_id(payment, *pair) for pair in pairs}) == len(pairs)
    assert operation_id(payment_id("a", "c"), "ab", "c") != operation_id(payment, "ab", "c")


def test_a_fingerprint_does_not_depend_on_the_order_in_which_metadata_was_written() -> None:
    wish = Authorize("a", eur(1_00), "manual", "pm", metadata={"seat": "1", "row": "2"})
    same = Authorize("a", eur(1_00), "manual", "pm", metadata={"row": "2", "seat": "1"})
    other = Authorize("a", eur(1_00), "manual", "pm", metadata={"row": "1", "seat": "2"})
    assert fingerprint(wish, KEY) == fingerprint(same, KEY) != fingerprint(other, KEY)
