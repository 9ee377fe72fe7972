"""Looking how a payment stands, and finishing what was interrupted: nothing is sent too late or recorded unproved."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from application.breaker import MAX_UNANSWERED, PAUSE_S, Breaker
from application.event_store import Ledger, StoreUnavailable
from application.payment_stream import PaymentStreams
from application.payments import Payments, ProviderUnavailable
from application.recovery import WAITING, Recovery
from application.settlement import (
    ABANDONED_AFTER,
    KEY_LIFETIME,
    MAX_CONFLICTS,
    OVER_AFTER,
    Contended,
    Contradiction,
    NotLearned,
    Settlement,
)
from application.stripe_client import OPERATION_DEADLINE_S
from domain.payment_commands import Authorize, Capture, Refund, Void, Wish
from domain.payment_facts import Failed
from interface.sandbox.postgres import Postgres
from tests.fake_gateway import Behaviour
from tests.given import NOON, authorize, disputed, usd
from tests.recovery_side import NEVER_ARRIVES, REPLY_LOST, UNHEARD, RecoveryDesk, log_in
from tests.test_payments import KEY, ME

A_MOMENT = timedelta(microseconds=1)
OPERATIONS: list[Wish] = [authorize(), Capture("op_1"), Void("op_1"), Refund("op_1", 30_00)]


@pytest.fixture(scope="module")
def ledger(postgres: Postgres) -> Iterator[Ledger]:
    with log_in(postgres) as ledger:
        yield ledger


@pytest.fixture
def desk(ledger: Ledger) -> RecoveryDesk:
    return RecoveryDesk(ledger)


@pytest.fixture
def authorized(desk: RecoveryDesk) -> RecoveryDesk:
    desk.ask(authorize())
    return desk


def interrupted(desk: RecoveryDesk, wish: Wish, how: Behaviour) -> RecoveryDesk:
    """The wish was asked for, and whoever asked the provider has not heard its answer."""
    if not isinstance(wish, Authorize):
        desk.ask(authorize(capture="automatic" if isinstance(wish, Refund) else "manual"))
    desk.gateway.will(how)
    assert desk.ask(wish).outcome == "open"
    return desk


def outcomes(desk: RecoveryDesk) -> dict[str, str]:
    return {name: operation.outcome for name, operation in desk.payment.operations.items()}


def name_of(wish: Wish) -> str:
    return type(wish).__name__


# --- Looking -----------------------------------------------------------------------------------------------------


def test_a_reply_that_is_recorded_while_the_provider_is_asked_is_no_contradiction(authorized: RecoveryDesk) -> None:
    """What it says is older than our history by then: compared with that, a capture of ours would be missing there."""
    authorized.gateway.meanwhile.append(lambda: authorized.asking(Capture("cap_1")))
    authorized.learn()
    assert authorized.facts() == ["AuthorizationStarted", "Authorized", "CaptureStarted", "Captured"]
    authorized.agree()


def test_what_was_recorded_meanwhile_is_not_recorded_again(desk: RecoveryDesk) -> None:
    interrupted(desk, Capture("cap_1"), REPLY_LOST)
    desk.gateway.meanwhile.append(lambda: desk.recovery.settle(desk.stream, "cap_1"))
    settled = desk.learn()
    assert desk.facts() == ["AuthorizationStarted", "Authorized", "CaptureStarted", "Captured"]
    assert desk.gateway.looked == 2, "it is looked at anew before anything is decided anew"
    assert settled.version == 4
    desk.agree()


def test_whoever_finds_others_always_faster_gives_up_and_has_recorded_nothing(desk: RecoveryDesk) -> None:
    interrupted(desk, Capture("cap_1"), REPLY_LOST)

    def others(number: int) -> Any:
        return lambda: desk.record(disputed(f"dp_{number}"))

    desk.gateway.meanwhile += map(others, range(MAX_CONFLICTS + 1))
    with pytest.raises(Contended):
        desk.learn()
    assert "Captured" not in desk.facts()
    assert len(desk.gateway.meanwhile) == 1, "it has tried as often as it may"


def test_a_look_that_is_not_answered_is_no_fact(desk: RecoveryDesk) -> None:
    interrupted(desk, Capture("cap_1"), REPLY_LOST)
    desk.now += OVER_AFTER
    before = desk.facts()
    desk.gateway.will(UNHEARD)
    with pytest.raises(NotLearned) as not_learned:
        desk.learn()
    assert not isinstance(not_learned.value, Contradiction)
    assert desk.facts() == before


def test_looking_at_a_payment_that_does_not_exist_asks_nobody(desk: RecoveryDesk) -> None:
    assert desk.learn().payment is None
    assert desk.gateway.looked == 0


def test_looking_moves_nothing(authorized: RecoveryDesk) -> None:
    authorized.gateway.capture_by_hand(40_00)
    authorized.learn()
    assert len(authorized.gateway.asked) == 1
    assert authorized.payment.captured == usd(40_00)
    facts = authorized.facts()
    authorized.learn()
    assert authorized.facts() == facts
    authorized.agree()


def test_what_is_learned_bears_the_name_of_who_looked_and_of_the_operation(desk: RecoveryDesk) -> None:
    interrupted(desk, Capture("cap_1"), REPLY_LOST)
    desk.learn()
    *_, wished, learned = desk.envelopes()
    assert (learned.actor, learned.operation, learned.causation) == ("recovery", "cap_1", wished.id)


def test_a_payment_that_the_provider_knows_less_of_than_we_do_is_for_a_person(authorized: RecoveryDesk) -> None:
    authorized.ask(Capture("cap_1"))
    facts = authorized.facts()
    authorized.gateway.intent.received -= 1
    with pytest.raises(Contradiction):
        authorized.learn()
    authorized.gateway.intents.clear()
    with pytest.raises(Contradiction):
        authorized.learn()
    assert authorized.facts() == facts


def test_a_part_taken_by_hand_just_before_our_release_is_for_a_person(ledger: Ledger) -> None:
    """The release was recorded as the whole reserve's: what was taken meanwhile cannot have been part of it."""
    desk = RecoveryDesk(ledger, multicapture=True)
    desk.ask(authorize())
    assert desk.gateway.capture_by_hand(1, final=False)
    assert desk.ask(Void("void_1")).outcome == "done"
    facts = desk.facts()
    with pytest.raises(Contradiction):
        desk.learn()
    assert desk.facts() == facts


# --- Nothing is declared failed without evidence -----------------------------------------------------------------


def test_an_authorization_that_the_provider_does_not_know_has_failed_when_none_can_begin_it_any_more(
    desk: RecoveryDesk,
) -> None:
    interrupted(desk, authorize(), NEVER_ARRIVES)
    for age in (timedelta(), KEY_LIFETIME, OVER_AFTER - A_MOMENT):
        desk.now = NOON + age
        with pytest.raises(NotLearned):
            desk.learn()
        assert desk.facts() == ["AuthorizationStarted"]
    desk.now = NOON + OVER_AFTER
    desk.learn()
    failed = desk.envelopes()[-1].fact
    assert isinstance(failed, Failed)
    assert (failed.failure.code, failed.evidence) == ("not_carried_out", f"req_search_{desk.stream}")
    assert desk.ask(authorize("auth_2")).outcome == "done"
    desk.agree()


@pytest.mark.parametrize("wish", OPERATIONS[1:], ids=name_of)
def test_what_the_provider_does_not_show_has_failed_when_none_can_carry_it_out_any_more(
    desk: RecoveryDesk, wish: Wish
) -> None:
    interrupted(desk, wish, NEVER_ARRIVES)
    desk.now = NOON + OVER_AFTER - A_MOMENT
    desk.learn()
    assert desk.payment.operations["op_1"].outcome == "open"
    desk.now = NOON + OVER_AFTER
    desk.learn()
    failed = desk.envelopes()[-1].fact
    assert isinstance(failed, Failed)
    assert (failed.operation, failed.failure.code, failed.evidence) == ("op_1", "not_carried_out", "req_standing")
    desk.agree()


def test_what_was_not_over_when_the_provider_was_asked_may_have_happened_since(desk: RecoveryDesk) -> None:
    interrupted(desk, Capture("cap_1"), NEVER_ARRIVES)
    desk.now = NOON + OVER_AFTER - timedelta(seconds=1)

    async def a_slow_answer() -> None:
        desk.now += timedelta(minutes=1)

    desk.gateway.meanwhile.append(a_slow_answer)
    desk.learn()
    assert outcomes(desk)["cap_1"] == "open"
    desk.learn()
    assert outcomes(desk)["cap_1"] == "failed"


def test_the_limits_leave_room_for_a_request_that_is_under_way() -> None:
    """A key may be used until just before it is too old, and the request takes as long as it may."""
    longest = timedelta(seconds=OPERATION_DEADLINE_S)
    assert longest < ABANDONED_AFTER < KEY_LIFETIME < timedelta(hours=24)
    assert KEY_LIFETIME + longest < OVER_AFTER


# --- Finishing ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [NEVER_ARRIVES, REPLY_LOST], ids=["never arrives", "reply lost"])
@pytest.mark.parametrize("wish", OPERATIONS, ids=name_of)
def test_while_its_key_lives_an_operation_is_sent_again_under_it(
    desk: RecoveryDesk, wish: Wish, how: Behaviour
) -> None:
    interrupted(desk, wish, how)
    desk.now += KEY_LIFETIME - A_MOMENT
    assert desk.settle(wish.operation) is None
    *_, first, second = desk.gateway.asked
    assert first == second
    assert desk.gateway.looked == 0
    desk.agree()


@pytest.mark.parametrize("wish", OPERATIONS, ids=name_of)
def test_an_operation_whose_key_is_too_old_is_only_looked_at(desk: RecoveryDesk, wish: Wish) -> None:
    interrupted(desk, wish, REPLY_LOST)
    desk.now += KEY_LIFETIME
    sent = len(desk.gateway.asked)
    assert desk.settle(wish.operation) is None
    assert (len(desk.gateway.asked), desk.gateway.looked) == (sent, 1)
    assert desk.payment.operations[wish.operation].outcome == "done"
    desk.agree()


@pytest.mark.parametrize("wish", OPERATIONS, ids=name_of)
def test_an_operation_that_never_arrived_is_never_sent_when_its_key_is_too_old(desk: RecoveryDesk, wish: Wish) -> None:
    interrupted(desk, wish, NEVER_ARRIVES)
    sent = len(desk.gateway.asked)
    desk.now += KEY_LIFETIME
    assert desk.settle(wish.operation) is not None
    assert desk.payment.operations[wish.operation].outcome == "open"
    desk.now = NOON + OVER_AFTER
    assert desk.settle(wish.operation) is None
    assert desk.payment.operations[wish.operation].outcome == "failed"
    assert len(desk.gateway.asked) == sent


def test_what_is_sent_again_and_not_answered_stays_open_and_says_so(desk: RecoveryDesk) -> None:
    interrupted(desk, Capture("cap_1"), NEVER_ARRIVES)
    desk.gateway.will(NEVER_ARRIVES)
    assert desk.settle("cap_1") == "the provider has not told"
    assert desk.facts()[-1] == "CaptureStarted"


def test_a_cardholder_is_waited_for_and_nothing_is_sent_meanwhile(desk: RecoveryDesk) -> None:
    desk.gateway.will(Behaviour(challenges=True))
    desk.ask(authorize())
    assert desk.settle("auth_1") == WAITING
    assert (len(desk.gateway.asked), desk.gateway.looked) == (1, 1)
    desk.gateway.cardholder_authenticates()
    assert desk.settle("auth_1") is None
    assert len(desk.gateway.asked) == 1
    desk.agree()


def test_a_release_is_sent_again_while_the_cardholder_is_waited_for(desk: RecoveryDesk) -> None:
    desk.gateway.will(Behaviour(challenges=True), NEVER_ARRIVES)
    desk.ask(authorize())
    desk.ask(Void("void_1"))
    assert desk.settle("void_1") is None
    assert desk.payment.status == "voided"
    desk.agree()


def test_what_has_ended_or_never_was_needs_nobody(authorized: RecoveryDesk) -> None:
    assert authorized.settle("auth_1") is None
    assert authorized.settle("cap_1") == "there is no such operation"
    assert RecoveryDesk(authorized.ledger).settle("auth_1") == "there is no such operation"
    assert (len(authorized.gateway.asked), authorized.gateway.looked) == (1, 0)


def test_what_is_finished_bears_the_correlation_of_the_wish(desk: RecoveryDesk) -> None:
    interrupted(desk, Capture("cap_1"), REPLY_LOST)
    desk.settle("cap_1")
    *_, wished, outcome = desk.envelopes()
    assert (outcome.actor, outcome.correlation, outcome.causation) == ("recovery", ME.correlation, wished.id)


def test_a_payment_that_cannot_be_read_does_not_hold_up_the_others(desk: RecoveryDesk) -> None:
    errors: list[Exception] = [StoreUnavailable("down"), RuntimeError("unreadable")]

    async def down(_: object) -> Any:
        raise errors.pop(0)

    streams = PaymentStreams(desk.ledger, desk.clock, down)
    recovery = Recovery(streams, Settlement(streams, desk.gateway, desk.clock), desk.clock)
    assert asyncio.run(recovery.settle(desk.stream, "auth_1")) == "StoreUnavailable: down"
    assert asyncio.run(recovery.settle(desk.stream, "auth_1")) == "RuntimeError"


# --- Our own calls -----------------------------------------------------------------------------------------------


def test_an_operation_that_our_own_call_did_not_settle_is_let_go_of(desk: RecoveryDesk) -> None:
    desk.gateway.will(REPLY_LOST)
    desk.ask(authorize())
    assert desk.left_open == [("auth_1", "reply lost")]
    desk.settle("auth_1")
    desk.gateway.will(Behaviour(confirms=usd(1)))
    desk.ask(Capture("cap_1"))
    assert desk.left_open[1:] == [("cap_1", "contradiction")]


def test_an_operation_that_our_own_call_settled_is_not_spoken_of(authorized: RecoveryDesk) -> None:
    authorized.gateway.will(Behaviour(declines=True))
    authorized.ask(Capture("cap_1"))
    assert authorized.left_open == []


@pytest.mark.parametrize("wish", [authorize("auth_2"), Capture("cap_1"), Void("void_1")], ids=name_of)
def test_nothing_is_begun_while_the_provider_does_not_answer(authorized: RecoveryDesk, wish: Wish) -> None:
    if isinstance(wish, Authorize):
        authorized = RecoveryDesk(authorized.ledger)
    facts, sent = authorized.facts(), len(authorized.gateway.asked)
    authorized.gateway.away_s = 3.5
    with pytest.raises(ProviderUnavailable) as unavailable:
        authorized.ask(wish)
    assert unavailable.value.retry_after_s == 3.5
    assert (authorized.facts(), len(authorized.gateway.asked)) == (facts, sent)
    authorized.gateway.away_s = None
    assert authorized.ask(wish).outcome == "done"


def test_what_was_answered_before_is_answered_while_the_provider_does_not_answer(authorized: RecoveryDesk) -> None:
    authorized.gateway.will(REPLY_LOST)
    authorized.ask(Capture("cap_1"))
    authorized.gateway.away_s = 3.5
    assert authorized.ask(authorize()).outcome == "done"
    assert authorized.ask(Capture("cap_1")).outcome == "open"
    authorized.now += ABANDONED_AFTER + A_MOMENT
    with pytest.raises(ProviderUnavailable):  # it would have to be sent again
        authorized.ask(Capture("cap_1"))


def test_an_open_breaker_refuses_a_wish_before_anything_is_recorded(ledger: Ledger) -> None:
    desk = RecoveryDesk(ledger)
    now_s = 0.0
    breaker = Breaker(desk.gateway, lambda: now_s)
    settlement = Settlement(desk.streams, breaker, desk.clock)
    desk.payments = Payments(desk.streams, settlement, breaker, desk.clock, (KEY,))
    desk.ask(authorize())
    desk.ask(Capture("cap_1"))
    desk.gateway.will(*[NEVER_ARRIVES] * MAX_UNANSWERED)
    for number in range(MAX_UNANSWERED):
        assert desk.ask(Refund(f"re_{number}", 1_00)).outcome == "open"
    facts = desk.facts()
    with pytest.raises(ProviderUnavailable) as unavailable:
        desk.ask(Refund("re_last", 1_00))
    assert 0 < unavailable.value.retry_after_s <= PAUSE_S
    assert desk.facts() == facts
    now_s += PAUSE_S
    assert desk.ask(Refund("re_last", 1_00)).outcome == "done"
