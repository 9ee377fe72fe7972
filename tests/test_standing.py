"""How a payment stands at the provider against how it stands here: what the ledger lacks, and no more than that."""

from collections.abc import Callable, Coroutine
from typing import Any, Literal
from uuid import UUID

import pytest
from hypothesis import Phase, settings, strategies
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from msgspec.structs import replace

from application.gateway import RefundSeen, Standing, Unknown, instruction_for
from application.standing import EXPIRED, NOT_CARRIED_OUT, RELEASED, missing_facts, never_begun
from domain.errors import OutcomeMismatch, Refusal
from domain.payment import Payment
from domain.payment_commands import Capture, RecordDispute, RecordFailed, Refund, Void, Wish
from domain.payment_decisions import decide
from domain.payment_facts import Captured, Expired, Failed, PaymentFact, Refunded, RefundStarted, Voided, VoidStarted
from tests import given as words
from tests.fake_gateway import Behaviour, FakeGateway
from tests.given import (
    ACCOUNT_CLOSED,
    ACTION_REQUIRED,
    AUTHORIZED,
    CAPTURED,
    DECLINED,
    DISPUTED,
    MULTICAPTURE,
    NO_FUNDS,
    REFUNDED,
    STARTED,
    VOIDED,
    action_required,
    authorize,
    authorized,
    capture_started,
    captured,
    confirm_action_required,
    confirm_authorized,
    dispute_lost,
    dispute_won,
    disputed,
    expired,
    failed,
    fold,
    refund_started,
    refunded,
    started,
    told_of_dispute,
    usd,
    void_started,
)

Facts = tuple[PaymentFact, ...]
LOOK = "req_look"
DECLINE_SEEN = RecordFailed("auth_1", NO_FUNDS, LOOK, "pi_1")
CANCELLED = RecordFailed("auth_1", RELEASED, LOOK, "pi_1")


def standing(
    released: Literal["no", "taken", "cancelled", "expired"] = "no",
    minor: int = 0,
    *refunds: RefundSeen,
    authorization: Any = None,
    payment_intent: str = "pi_1",
    operation: str | None = "auth_1",
    disputes: tuple[RecordDispute, ...] = (),
) -> Standing:
    """What the provider says now; unless told otherwise it is that a hundred dollars are reserved."""
    told = confirm_authorized() if authorization is None else authorization
    return Standing(payment_intent, operation, told, usd(minor), released, "ch_1", refunds, disputes, LOOK)


def seen(operation: str | None = "re_1", minor: int = 100_00, name: str = "re_stripe") -> RefundSeen:
    return RefundSeen(name, usd(minor), operation, None)


def undone(operation: str | None = "re_1", minor: int = 100_00, name: str = "re_stripe") -> RefundSeen:
    return RefundSeen(name, usd(minor), operation, ACCOUNT_CLOSED)


def known(facts: Facts) -> Payment:
    payment = fold(facts)
    assert payment is not None
    return payment


def lacking(history: Facts, seen: Standing, *, over: bool = False) -> Facts:
    """What is missing; recorded, nothing is."""
    facts = missing_facts(known(history), seen, lambda _: over)
    assert missing_facts(known((*history, *facts)), seen, lambda _: over) == ()
    return facts


def took(operation: str = "cap_1", minor: int = 100_00, *, final: bool = True) -> Captured:
    return Captured(operation, usd(minor), final, "ch_1", LOOK)


def not_done(operation: str, stage: Literal["capture", "void", "refund"]) -> Failed:
    return Failed(operation, stage, NOT_CARRIED_OUT, LOOK)


# --- What is as it is here ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("over", [False, True], ids=["in time", "over"])
@pytest.mark.parametrize(
    ("history", "as_it_is"),
    [
        (AUTHORIZED, standing()),
        (CAPTURED, standing("taken", 100_00)),
        ((*AUTHORIZED, *captured(minor=40_00)), standing("taken", 40_00)),
        ((*MULTICAPTURE, *captured(minor=40_00, final=False)), standing("no", 40_00)),
        (VOIDED, standing("cancelled", authorization=CANCELLED)),
        ((*AUTHORIZED, expired()), standing("expired", authorization=CANCELLED)),
        (REFUNDED, standing("taken", 100_00, seen())),
        ((*REFUNDED, failed("re_1", "refund")), standing("taken", 100_00, undone())),
        (DECLINED, standing(authorization=DECLINE_SEEN)),
        (ACTION_REQUIRED, standing(authorization=confirm_action_required())),
        (DISPUTED, standing("taken", 100_00, disputes=(told_of_dispute(),))),
    ],
)
def test_a_payment_that_stands_as_we_have_it_lacks_nothing(history: Facts, as_it_is: Standing, *, over: bool) -> None:
    assert lacking(history, as_it_is, over=over) == ()


# --- An open authorization ---------------------------------------------------------------------------------------


def test_an_open_authorization_is_found_reserved() -> None:
    assert lacking(STARTED, standing()) == (authorized(),)
    assert lacking(ACTION_REQUIRED, standing()) == (authorized(),)


def test_an_open_authorization_is_found_taken() -> None:
    automatic = (started(capture="automatic"),)
    told = standing("taken", 100_00, authorization=confirm_authorized(taken_at_once=True))
    at_once = Captured("auth_1", usd(100_00), True, "ch_1", "req_authorized")  # noqa: FBT003  as the fact has it
    assert lacking(automatic, told) == (authorized(), at_once)


def test_an_open_authorization_is_found_taken_by_hand() -> None:
    adopted = captured("ch_1:captured:6000", 60_00)
    assert lacking(STARTED, standing("taken", 60_00)) == (
        authorized(),
        adopted[0],
        took("ch_1:captured:6000", 60_00),
    )


def test_an_open_authorization_is_found_challenged() -> None:
    assert lacking(STARTED, standing(authorization=confirm_action_required())) == (action_required(),)


def test_an_open_authorization_is_found_declined() -> None:
    found = Failed("auth_1", "authorize", NO_FUNDS, LOOK, "pi_1")
    for history in (STARTED, ACTION_REQUIRED):
        assert lacking(history, standing(authorization=DECLINE_SEEN)) == (found,)


@pytest.mark.parametrize("released", ["cancelled", "expired"])
def test_an_open_authorization_is_found_cancelled_or_run_out(released: Literal["cancelled", "expired"]) -> None:
    found = Failed("auth_1", "authorize", RELEASED, LOOK, "pi_1")
    assert lacking(STARTED, standing(released, authorization=CANCELLED)) == (found,)


def test_an_authentication_is_found_cancelled_or_run_out() -> None:
    gone = standing("cancelled", authorization=CANCELLED)
    assert lacking(ACTION_REQUIRED, gone) == (Failed("auth_1", "authorize", RELEASED, LOOK, "pi_1"),)
    ran_out = standing("expired", authorization=CANCELLED)
    assert lacking(ACTION_REQUIRED, ran_out) == (Expired(usd(0), LOOK),)


def test_a_release_asked_for_while_the_cardholder_was_waited_for_is_found_done() -> None:
    history = (*ACTION_REQUIRED, void_started())
    for released in ("cancelled", "expired"):
        gone = standing("cancelled" if released == "cancelled" else "expired", authorization=CANCELLED)
        assert lacking(history, gone) == (Voided("void_1", usd(0), LOOK),)
        assert known((*history, *lacking(history, gone))).status == "voided"


def test_a_release_asked_for_before_the_cardholder_failed_ends_too() -> None:
    history = (*ACTION_REQUIRED, void_started(), failed())
    assert lacking(history, standing("cancelled", authorization=CANCELLED)) == (Voided("void_1", usd(0), LOOK),)
    still_there = standing(authorization=DECLINE_SEEN)
    assert lacking(history, still_there) == ()
    assert lacking(history, still_there, over=True) == (not_done("void_1", "void"),)


def test_what_the_provider_still_works_on_is_not_decided() -> None:
    assert lacking(STARTED, standing(authorization=Unknown("processing")), over=True) == ()


def test_an_authorization_of_which_nothing_is_known_was_never_begun() -> None:
    assert decide(fold(STARTED), never_begun("auth_1", LOOK)) == (Failed("auth_1", "authorize", NOT_CARRIED_OUT, LOOK),)


# --- An open capture ---------------------------------------------------------------------------------------------

CAPTURING = (*AUTHORIZED, capture_started())


def test_an_open_capture_is_found_done() -> None:
    assert lacking(CAPTURING, standing("taken", 100_00)) == (took(),)
    part = (*AUTHORIZED, capture_started(minor=40_00))
    assert lacking(part, standing("taken", 40_00)) == (took(minor=40_00),)
    in_parts = (*MULTICAPTURE, capture_started(minor=40_00, final=False))
    assert lacking(in_parts, standing("no", 40_00)) == (took(minor=40_00, final=False),)


def test_an_open_capture_that_is_not_seen_is_not_failed_while_it_may_still_come() -> None:
    assert lacking(CAPTURING, standing()) == ()
    assert lacking(CAPTURING, standing(), over=True) == (not_done("cap_1", "capture"),)


def test_an_open_capture_of_what_was_released_came_too_late() -> None:
    adopted = (VoidStarted("pi_1:released"), Voided("pi_1:released", usd(100_00), LOOK))
    too_late = Failed("cap_1", "capture", RELEASED, LOOK)
    assert lacking(CAPTURING, standing("cancelled", authorization=CANCELLED)) == (too_late, *adopted)


def test_an_open_capture_of_what_ran_out_came_too_late() -> None:
    assert lacking(CAPTURING, standing("expired", authorization=CANCELLED)) == (
        Failed("cap_1", "capture", EXPIRED, LOOK),
        Expired(usd(100_00), LOOK),
    )


def test_an_open_capture_of_what_is_gone_in_a_way_we_know_of_is_impossible() -> None:
    """Facts of yesterday: a capture that was still open when the release was recorded."""
    history = (*CAPTURING, void_started(), words.released())
    assert lacking(history, standing("cancelled", authorization=CANCELLED)) == (not_done("cap_1", "capture"),)


def test_a_capture_of_another_amount_than_ours_is_for_a_person_to_look_at() -> None:
    history = (*AUTHORIZED, capture_started(minor=40_00))
    with pytest.raises(OutcomeMismatch):
        missing_facts(known(history), standing("taken", 60_00), lambda _: True)


def test_less_captured_than_we_have_is_for_a_person_to_look_at() -> None:
    with pytest.raises(OutcomeMismatch) as mismatch:
        missing_facts(known(CAPTURED), standing("taken", 99_99))
    assert (mismatch.value.expected, mismatch.value.confirmed) == ("100.00 USD", "99.99 USD")


# --- An open release ---------------------------------------------------------------------------------------------

VOIDING = (*AUTHORIZED, void_started())


def test_an_open_release_is_found_done() -> None:
    assert lacking(VOIDING, standing("cancelled", authorization=CANCELLED)) == (Voided("void_1", usd(100_00), LOOK),)


def test_an_open_release_after_a_partial_capture_is_found_done() -> None:
    history = (*MULTICAPTURE, *captured(minor=30_00, final=False), void_started())
    facts = lacking(history, standing("taken", 30_00))
    assert facts == (Voided("void_1", usd(70_00), LOOK),)
    assert known((*history, *facts)).status == "partially_captured"
    assert lacking(history, standing("no", 30_00)) == ()
    assert lacking(history, standing("no", 30_00), over=True) == (not_done("void_1", "void"),)


def test_an_open_release_that_is_not_seen_is_not_failed_while_it_may_still_come() -> None:
    assert lacking(VOIDING, standing()) == ()
    assert lacking(VOIDING, standing(), over=True) == (not_done("void_1", "void"),)


def test_an_open_release_of_what_was_taken_by_hand_is_impossible() -> None:
    facts = lacking(VOIDING, standing("taken", 100_00))
    assert facts == (
        capture_started("ch_1:captured:10000"),
        took("ch_1:captured:10000"),
        not_done("void_1", "void"),
    )


# --- What was done by hand ---------------------------------------------------------------------------------------


def test_a_capture_made_by_hand_is_adopted() -> None:
    name = "ch_1:captured:4000"
    assert lacking(AUTHORIZED, standing("taken", 40_00)) == (capture_started(name, 40_00), took(name, 40_00))
    more = (*MULTICAPTURE, *captured(minor=30_00, final=False))
    name = "ch_1:captured:5000"
    assert lacking(more, standing("no", 50_00)) == (
        capture_started(name, 20_00, final=False),
        took(name, 20_00, final=False),
    )


def test_a_release_made_by_hand_is_adopted() -> None:
    adopted = (VoidStarted("pi_1:released"), Voided("pi_1:released", usd(100_00), LOOK))
    assert lacking(AUTHORIZED, standing("cancelled", authorization=CANCELLED)) == adopted
    partly = (*MULTICAPTURE, *captured(minor=30_00, final=False))
    rest = (VoidStarted("pi_1:released"), Voided("pi_1:released", usd(70_00), LOOK))
    assert lacking(partly, standing("taken", 30_00)) == rest


def test_a_reserve_that_ran_out_has_expired() -> None:
    assert lacking(AUTHORIZED, standing("expired", authorization=CANCELLED)) == (Expired(usd(100_00), LOOK),)


def test_what_was_released_here_and_taken_there_is_for_a_person_to_look_at() -> None:
    for history in (VOIDED, (*AUTHORIZED, expired())):
        with pytest.raises(OutcomeMismatch):
            missing_facts(known(history), standing("taken", 100_00))


# --- Refunds -----------------------------------------------------------------------------------------------------

REFUNDING = (*CAPTURED, refund_started(minor=40_00))
TAKEN = ("taken", 100_00)


def went_back(operation: str, minor: int, refund: str = "re_stripe") -> Refunded:
    return Refunded(operation, usd(minor), refund, LOOK)


def test_an_open_refund_is_found_done() -> None:
    assert lacking(REFUNDING, standing("taken", 100_00, seen(minor=40_00))) == (went_back("re_1", 40_00),)


def test_an_open_refund_is_found_failed() -> None:
    found = Failed("re_1", "refund", ACCOUNT_CLOSED, LOOK)
    assert lacking(REFUNDING, standing("taken", 100_00, undone(minor=40_00))) == (found,)


def test_an_open_refund_that_is_not_seen_is_not_failed_while_it_may_still_come() -> None:
    assert lacking(REFUNDING, standing("taken", 100_00)) == ()
    assert lacking(REFUNDING, standing("taken", 100_00), over=True) == (not_done("re_1", "refund"),)
    others = standing("taken", 100_00, seen("re_0", 10_00, "re_other"))
    assert not_done("re_1", "refund") in lacking(REFUNDING, others, over=True)


def test_an_open_refund_that_is_seen_is_never_failed_for_its_age() -> None:
    assert lacking(REFUNDING, standing("taken", 100_00, seen(minor=40_00)), over=True) == (went_back("re_1", 40_00),)


@pytest.mark.parametrize("mark", [None, "of_another_system", "cap_1"], ids=["no mark", "unknown", "a capture's"])
def test_a_refund_that_no_refund_of_ours_explains_is_adopted(mark: str | None) -> None:
    name = "refund:re_stripe"
    assert lacking(CAPTURED, standing("taken", 100_00, seen(mark, 40_00))) == (
        RefundStarted(name, usd(40_00)),
        went_back(name, 40_00),
    )


def test_a_failed_refund_that_was_never_known_here_is_no_news() -> None:
    assert lacking(CAPTURED, standing("taken", 100_00, undone(None))) == ()


def test_a_refund_that_failed_after_it_was_made_is_undone() -> None:
    assert lacking(REFUNDED, standing("taken", 100_00, undone())) == (Failed("re_1", "refund", ACCOUNT_CLOSED, LOOK),)
    by_hand = (*CAPTURED, *refunded("refund:re_stripe"))
    assert lacking(by_hand, standing("taken", 100_00, undone(None))) == (
        Failed("refund:re_stripe", "refund", ACCOUNT_CLOSED, LOOK),
    )


def test_a_refund_given_up_too_early_is_adopted_when_it_is_seen_and_undone_when_it_fails() -> None:
    given_up = (*REFUNDING, not_done("re_1", "refund"))
    name = "refund:re_stripe"
    adopted = (RefundStarted(name, usd(40_00)), went_back(name, 40_00))
    assert lacking(given_up, standing("taken", 100_00, seen(minor=40_00))) == adopted
    failure = lacking((*given_up, *adopted), standing("taken", 100_00, undone(minor=40_00)))
    assert failure == (Failed(name, "refund", ACCOUNT_CLOSED, LOOK),)
    assert known((*given_up, *adopted, *failure)).refunded == usd(0)


def test_money_that_came_back_and_went_again_is_told_in_that_order() -> None:
    again = standing("taken", 100_00, undone(), seen(None, 100_00, "re_again"))
    assert lacking(REFUNDED, again) == (
        Failed("re_1", "refund", ACCOUNT_CLOSED, LOOK),
        RefundStarted("refund:re_again", usd(100_00)),
        went_back("refund:re_again", 100_00, "re_again"),
    )


def test_more_given_back_than_was_taken_is_for_a_person_to_look_at() -> None:
    with pytest.raises(OutcomeMismatch):
        missing_facts(known(REFUNDED), standing("taken", 100_00, seen(), seen(None, 1, "re_more")))


# --- Disputes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("history", "told", "facts"),
    [
        (CAPTURED, "open", (disputed(),)),
        (CAPTURED, "won", (disputed(), dispute_won())),
        (CAPTURED, "lost", (disputed(), dispute_lost())),
        (DISPUTED, "won", (dispute_won(),)),
        (DISPUTED, "lost", (dispute_lost(),)),
        ((*DISPUTED, dispute_won()), "won", ()),
    ],
)
def test_a_dispute_is_recorded_as_it_stands(history: Facts, told: Literal["open", "won", "lost"], facts: Facts) -> None:
    assert lacking(history, standing("taken", 100_00, disputes=(told_of_dispute(told),))) == facts


def test_all_that_is_missing_is_found_at_once() -> None:
    whole = standing("taken", 100_00, seen(None, 40_00), disputes=(told_of_dispute("open", minor=60_00),))
    name = "refund:re_stripe"
    assert lacking(CAPTURING, whole) == (
        took(),
        RefundStarted(name, usd(40_00)),
        went_back(name, 40_00),
        disputed(minor=60_00),
    )


# --- Another attempt ---------------------------------------------------------------------------------------------

SECOND = (*DECLINED, started("auth_2", attempt=2))


def test_an_attempt_that_was_given_up_and_came_to_nothing_is_no_news() -> None:
    earlier = standing(payment_intent="pi_0", authorization=DECLINE_SEEN)
    assert lacking((*SECOND, authorized("auth_2")), earlier) == ()
    assert lacking(SECOND, earlier) == ()


def test_an_attempt_that_was_given_up_and_came_to_money_is_for_a_person_to_look_at() -> None:
    late = standing("taken", 100_00, payment_intent="pi_0")
    for history in (SECOND, (*SECOND, authorized("auth_2")), DECLINED):
        with pytest.raises(OutcomeMismatch):
            missing_facts(known(history), late)
    with pytest.raises(OutcomeMismatch):  # also while there is no other attempt yet
        missing_facts(known((*ACTION_REQUIRED, failed())), standing("taken", 100_00))


def test_the_present_attempt_is_known_by_its_mark_before_we_know_its_name() -> None:
    told = replace(confirm_authorized("auth_2"), payment_intent="pi_2")
    facts = lacking(SECOND, standing(payment_intent="pi_2", operation="auth_2", authorization=told))
    assert facts == (replace(authorized("auth_2"), payment_intent="pi_2"),)


# --- Any history -------------------------------------------------------------------------------------------------

PAYMENT = UUID(int=7)
parts = strategies.sampled_from([None, 1, 10_00, 30_00, 40_00, 60_00, 99_99, 100_00])
movements = strategies.sampled_from([1, 10_00, 30_00, 40_00, 60_00, 100_00])
flags = strategies.booleans()
# How a call of ours goes: heard, arrived with its reply lost, never arrived.
calls = strategies.sampled_from(["heard", "heard", "reply lost", "never arrives"])


def answered(asking: Coroutine[Any, Any, Any]) -> Any:
    """What a provider that never waits answers."""
    try:
        asking.send(None)
    except StopIteration as answer:
        return answer.value
    pytest.fail("it waited")


class Wandering(RuleBasedStateMachine):
    """We ask, others act at the provider, replies get lost; now and then somebody looks."""

    def __init__(self) -> None:
        super().__init__()
        self.payment: Payment | None = None
        self.facts: Facts = ()
        self.names = iter(range(1_000))
        self.provider = FakeGateway()

    # What we do

    @initialize(automatic=flags, multicapture=flags, challenged=flags, call=calls)
    def begin(self, *, automatic: bool, multicapture: bool, challenged: bool, call: str) -> None:
        self.provider = FakeGateway(multicapture=multicapture and not automatic)
        self.authorize(automatic=automatic, challenged=challenged, declined=False, call=call)

    @rule(automatic=flags, challenged=flags, declined=flags, call=calls)
    def authorize(self, *, automatic: bool, challenged: bool, declined: bool, call: str) -> None:
        wish = authorize(self._name("auth"), capture="automatic" if automatic else "manual")
        self._ask(wish, Behaviour(challenges=challenged, declines=declined and not challenged), call)

    @rule(minor=parts, call=calls)
    def capture(self, minor: int | None, call: str) -> None:
        self._ask(Capture(self._name("cap"), minor), Behaviour(), call)

    @rule(call=calls)
    def void(self, call: str) -> None:
        self._ask(Void(self._name("void")), Behaviour(), call)

    @rule(minor=parts, call=calls)
    def refund(self, minor: int | None, call: str) -> None:
        self._ask(Refund(self._name("re"), minor), Behaviour(), call)

    @rule()
    def look(self) -> None:
        if self.payment is not None:
            self._look()

    # What others do

    @rule(successfully=flags)
    def authenticate(self, *, successfully: bool) -> None:
        waiting = [intent for intent in self.provider.intents.values() if intent.status == "requires_action"]
        if len(waiting) == 1:
            self.provider.cardholder_authenticates(successfully=successfully)

    @rule(minor=movements, final=flags)
    def capture_by_hand(self, minor: int, *, final: bool) -> None:
        self._by_hand(lambda: self.provider.capture_by_hand(minor, final=final))
        if not final:  # were the rest released before we hear of it, a person would have to look: test_settlement.py
            self.look()

    @rule(ran_out=flags)
    def release(self, *, ran_out: bool) -> None:
        self._by_hand(lambda: self.provider.release_by_hand(ran_out=ran_out))

    @rule(minor=movements)
    def refund_by_hand(self, minor: int) -> None:
        self._by_hand(lambda: self.provider.refund_by_hand(minor))

    @rule(place=strategies.integers(0, 3))
    def undo_a_refund(self, place: int) -> None:
        self._by_hand(lambda: self.provider.undo_refund(place))

    @rule(outcome=strategies.sampled_from(["open", "won", "lost"]))
    def dispute(self, outcome: Literal["open", "won", "lost"]) -> None:
        self._by_hand(lambda: self.provider.dispute(outcome))

    # What always holds

    @invariant()
    def no_money_is_made(self) -> None:
        if self.payment is not None:
            assert usd(0) <= self.payment.refunded <= self.payment.captured <= self.payment.authorized

    def teardown(self) -> None:
        """Recovery sends what is open again, then looks: both books say the same, and nothing is open any more."""
        if self.payment is None:
            return
        for name, operation in self.payment.operations.items():
            waiting = operation.kind == "authorize" and self.payment.status == "requires_action"
            if operation.outcome == "open" and not waiting:
                self._send(name, Behaviour(), "heard")
        self._look()
        self._agree()
        again = self.provider.latest.status == "requires_action" if self.provider.intents else False
        still_open = [name for name, one in self.payment.operations.items() if one.outcome == "open"]
        assert still_open == ([self.payment.authorization] if again else [])

    # How

    def _name(self, word: str) -> str:
        return f"{word}_{next(self.names)}"

    def _by_hand(self, act: Callable[[], bool]) -> None:
        """If it can happen now."""
        if self.provider.intents:
            act()

    def _ask(self, wish: Wish, behaviour: Behaviour, call: str) -> None:
        try:
            facts = decide(self.payment, wish)
        except Refusal:
            return
        self._record(facts)
        self._send(wish.operation, behaviour, call)

    def _send(self, name: str, behaviour: Behaviour, call: str) -> None:
        assert self.payment is not None
        self.provider.will(replace(behaviour, arrives=call != "never arrives", answers=call == "heard"))
        outcome = answered(self.provider.perform(instruction_for(PAYMENT, name, self.payment)))
        if not isinstance(outcome, Unknown):
            self._record(decide(self.payment, outcome))

    def _look(self) -> None:
        assert self.payment is not None
        told = answered(self.provider.standing(PAYMENT, self.payment.authorization, self.payment.payment_intent))
        if not isinstance(told, Standing):
            return
        try:
            facts = missing_facts(self.payment, told)
        except OutcomeMismatch:
            # An open capture of ours and one made by hand: which is which, only our own call can tell.
            open_captures = [operation.amount for _, operation in self.payment.in_flight("capture")]
            assert open_captures, "no history of the provider's can contradict us"
            assert told.captured - self.payment.captured != open_captures[0]
            return
        self._record(facts)
        assert missing_facts(self.payment, told) == (), "it is not brought to its end"
        if not self.payment.in_flight("authorize"):
            self._agree()

    def _agree(self) -> None:
        assert self.payment is not None
        intents = self.provider.intents
        theirs = intents.get(self.payment.payment_intent or "")
        there = (theirs.received, theirs.refunded) if theirs else (0, 0)
        assert (self.payment.captured.minor, self.payment.refunded.minor) == there
        assert bool(self.payment.capturable) == (theirs is not None and theirs.status == "requires_capture")
        contested = theirs is not None and any(one.outcome != "won" for one in theirs.disputes.values())
        assert self.payment.disputed == contested

    def _record(self, facts: Facts) -> None:
        self.facts += facts
        self.payment = fold(facts, self.payment)


def test_whatever_happened_and_got_lost_a_look_brings_the_ledger_to_where_the_provider_is() -> None:
    phases = (Phase.reuse, Phase.generate, Phase.shrink)  # an explanation would take longer than the test may
    run_state_machine_as_test(
        Wandering,
        settings=settings(
            max_examples=200, stateful_step_count=20, deadline=None, phases=phases, report_multiple_bugs=False
        ),
    )
