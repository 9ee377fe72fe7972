"""What happens to a payment at the provider without us: chargebacks, movements made by hand, refunds undone."""

import pytest

from domain.errors import IllegalTransition, OperationInFlight, OutcomeMismatch
from domain.payment import Operation
from domain.payment_commands import Capture, PaymentCommand, Refund
from domain.payment_decisions import decide
from domain.payment_facts import Captured, CaptureStarted, PaymentFact, Refunded, RefundStarted, VoidStarted
from tests.given import (
    ACCOUNT_CLOSED,
    ACTION_REQUIRED,
    AUTHORIZED,
    CAPTURED,
    DECLINED,
    DISPUTED,
    EXPIRED,
    MULTICAPTURE,
    NO_FUNDS,
    REFUNDED,
    STARTED,
    VOIDED,
    capture_started,
    captured,
    captured_by_hand,
    confirm_captured,
    confirm_failed,
    confirm_refunded,
    confirm_voided,
    dispute_lost,
    dispute_won,
    disputed,
    failed,
    fold,
    given,
    given_back,
    refund_started,
    refunded,
    refunded_by_hand,
    released,
    reversed_later,
    started,
    told_of_dispute,
    told_of_reversal,
    usd,
    void_started,
    voided_by_hand,
)

PARTLY_REFUNDED = (*CAPTURED, *refunded("re_1", 30_00))
WON = (*DISPUTED, dispute_won())
LOST = (*DISPUTED, dispute_lost())


@pytest.mark.parametrize(
    "told",
    [told_of_dispute(), told_of_reversal(), captured_by_hand(), voided_by_hand(), refunded_by_hand()],
    ids=lambda told: type(told).__name__,
)
def test_nothing_can_happen_to_a_payment_that_does_not_exist(told: PaymentCommand) -> None:
    given().when(told).refused(IllegalTransition, status="none")


# --- Disputes ----------------------------------------------------------------------------------------------------


def test_a_dispute_is_open_until_it_is_won_or_lost() -> None:
    given(*CAPTURED).when(told_of_dispute()).then(disputed()).stands("disputed", captured=100_00, refunded=0)
    given(*DISPUTED).when(told_of_dispute("won")).then(dispute_won()).stands("captured", captured=100_00)
    given(*DISPUTED).when(told_of_dispute("lost")).then(dispute_lost()).stands("disputed", captured=100_00)


@pytest.mark.parametrize(("outcome", "end"), [("won", dispute_won()), ("lost", dispute_lost())])
def test_a_dispute_that_we_hear_of_when_it_is_over_was_opened_first(outcome: str, end: PaymentFact) -> None:
    told = told_of_dispute("won" if outcome == "won" else "lost")
    given(*CAPTURED).when(told).then(disputed(), end)


@pytest.mark.parametrize(
    ("history", "told"),
    [
        (DISPUTED, told_of_dispute()),
        (WON, told_of_dispute("won")),
        (LOST, told_of_dispute("lost")),
        (WON, told_of_dispute()),
        (LOST, told_of_dispute()),
    ],
    ids=["opened twice", "won twice", "lost twice", "opened after it was won", "opened after it was lost"],
)
def test_a_dispute_that_is_known_is_no_news(history: tuple[PaymentFact, ...], told: PaymentCommand) -> None:
    given(*history).when(told).decides_nothing()


def test_a_dispute_that_was_lost_may_still_be_won() -> None:
    given(*LOST).when(told_of_dispute("won")).then(dispute_won()).stands("captured")
    given(*WON).when(told_of_dispute("lost")).then(dispute_lost()).stands("disputed")


def test_one_dispute_that_is_not_won_is_enough() -> None:
    both = (*CAPTURED, disputed("dp_1", 60_00), disputed("dp_2", 40_00))
    given(*both, dispute_won("dp_1")).stands("disputed")
    given(*both, dispute_won("dp_1"), dispute_lost("dp_2")).stands("disputed")
    given(*both, dispute_won("dp_1"), dispute_won("dp_2")).stands("captured")


@pytest.mark.parametrize("history", [DISPUTED, LOST], ids=["open", "lost"])
def test_contested_money_is_not_ours_to_give_back(history: tuple[PaymentFact, ...]) -> None:
    given(*history).when(Refund("re_1", 10_00)).refused(IllegalTransition, command="Refund", status="disputed")


def test_money_that_was_contested_in_vain_can_be_given_back() -> None:
    given(*WON).when(Refund("re_1")).then(refund_started("re_1", 100_00))


def test_what_was_given_back_of_contested_money_is_recorded_all_the_same() -> None:
    """Somebody did it at the provider, or it was on its way when the cardholder contested the payment."""
    by_hand = refunded_by_hand("by_hand", 40_00)
    given(*DISPUTED).when(by_hand).then(*refunded("by_hand", 40_00)).stands("disputed", refunded=40_00)
    under_way = (*CAPTURED, refund_started("re_1", 40_00), disputed())
    given(*under_way).when(confirm_refunded("re_1", usd(40_00))).then(given_back("re_1", 40_00)).stands("disputed")
    given(*under_way, given_back("re_1", 40_00), dispute_won()).stands("partially_refunded", refunded=40_00)


def test_another_attempt_does_not_forget_a_dispute() -> None:
    again = given(*DECLINED, disputed(), started("auth_2", attempt=2))
    again.when(told_of_dispute()).decides_nothing()
    again.when(told_of_dispute("won")).then(dispute_won())


def test_a_dispute_moves_no_money_of_the_ledger() -> None:
    for history in (DISPUTED, WON, LOST):
        given(*history).stands(
            "captured" if history is WON else "disputed", authorized=100_00, capturable=0, captured=100_00, refunded=0
        )


# --- Movements made by hand --------------------------------------------------------------------------------------


def test_a_capture_made_by_hand_is_adopted_with_its_intent() -> None:
    given(*AUTHORIZED).when(captured_by_hand()).then(*captured("by_hand")).stands("captured", captured=100_00)
    part = captured_by_hand("by_hand", 40_00)
    given(*AUTHORIZED).when(part).then(*captured("by_hand", 40_00)).stands("partially_captured", capturable=0)
    open_end = captured_by_hand("by_hand", 40_00, final=False)
    given(*MULTICAPTURE).when(open_end).then(*captured("by_hand", 40_00, final=False)).stands(
        "partially_captured", captured=40_00, capturable=60_00
    )


def test_a_release_made_by_hand_is_adopted_with_its_intent() -> None:
    given(*AUTHORIZED).when(voided_by_hand()).then(void_started("by_hand"), released("by_hand")).stands("voided")
    partly = (*MULTICAPTURE, *captured("cap_1", 30_00, final=False))
    given(*partly).when(voided_by_hand()).then(void_started("by_hand"), released("by_hand", 70_00)).stands(
        "partially_captured", captured=30_00, capturable=0
    )


def test_a_refund_made_by_hand_is_adopted_with_its_intent() -> None:
    by_hand = refunded_by_hand("by_hand", 40_00)
    given(*CAPTURED).when(by_hand).then(*refunded("by_hand", 40_00)).stands("partially_refunded", refunded=40_00)
    given(*PARTLY_REFUNDED).when(refunded_by_hand("by_hand", 70_00)).then(*refunded("by_hand", 70_00)).stands(
        "refunded", refunded=100_00
    )


@pytest.mark.parametrize(
    ("history", "told"),
    [
        (AUTHORIZED, captured_by_hand()),
        (AUTHORIZED, voided_by_hand()),
        (CAPTURED, refunded_by_hand()),
        (CAPTURED, refunded_by_hand("by_hand", 10_00)),
    ],
    ids=["capture", "release", "refund", "partial refund"],
)
def test_a_movement_made_by_hand_is_adopted_once(history: tuple[PaymentFact, ...], told: PaymentCommand) -> None:
    facts = answer_to(history, told)
    given(*history, *facts).when(told).decides_nothing()
    assert given(*history, *facts).operation("by_hand").outcome == "done"


def answer_to(history: tuple[PaymentFact, ...], told: PaymentCommand) -> tuple[PaymentFact, ...]:
    return decide(fold(history), told)


@pytest.mark.parametrize(
    ("history", "told", "there_was"),
    [
        (AUTHORIZED, captured_by_hand(minor=100_01), "100.00 USD"),
        ((*MULTICAPTURE, *captured("cap_1", 30_00, final=False)), captured_by_hand(minor=70_01), "70.00 USD"),
        (CAPTURED, captured_by_hand(minor=1), "0.00 USD"),
        (VOIDED, captured_by_hand(minor=1), "0.00 USD"),
        (EXPIRED, captured_by_hand(minor=1), "0.00 USD"),
        (DECLINED, captured_by_hand(minor=1), "0.00 USD"),
        (STARTED, captured_by_hand(minor=1), "0.00 USD"),
        (CAPTURED, refunded_by_hand(minor=100_01), "100.00 USD"),
        (PARTLY_REFUNDED, refunded_by_hand(minor=70_01), "70.00 USD"),
        (REFUNDED, refunded_by_hand(minor=1), "0.00 USD"),
        (AUTHORIZED, refunded_by_hand(minor=1), "0.00 USD"),
    ],
)
def test_more_than_there_is_cannot_have_been_moved_by_hand(
    history: tuple[PaymentFact, ...], told: PaymentCommand, there_was: str
) -> None:
    given(*history).when(told).refused(OutcomeMismatch, operation="by_hand", expected=f"at most {there_was}")


@pytest.mark.parametrize("history", [STARTED, ACTION_REQUIRED, DECLINED, CAPTURED, VOIDED, EXPIRED])
def test_where_nothing_is_reserved_nothing_was_released_by_hand(history: tuple[PaymentFact, ...]) -> None:
    given(*history).when(voided_by_hand()).decides_nothing()


def test_a_capture_of_ours_that_somebody_made_by_hand_did_not_happen_again() -> None:
    """Both cannot be true: whoever confirms the second capture confirms more than was ever reserved."""
    history = (*AUTHORIZED, capture_started("cap_1", 60_00), *captured("by_hand", 60_00))
    given(*history).when(confirm_captured("cap_1", usd(60_00))).refused(
        OutcomeMismatch, operation="cap_1", expected="at most 40.00 USD", confirmed="60.00 USD"
    )
    given(*history).when(confirm_failed("cap_1")).then(failed("cap_1", "capture")).stands(
        "partially_captured", captured=60_00
    )


def test_a_refund_of_ours_that_somebody_made_by_hand_did_not_happen_again() -> None:
    history = (*CAPTURED, refund_started("re_1", 70_00), *refunded("by_hand", 40_00))
    given(*history).when(confirm_refunded("re_1", usd(70_00))).refused(
        OutcomeMismatch, operation="re_1", expected="at most 60.00 USD", confirmed="70.00 USD"
    )
    given(*history).when(confirm_failed("re_1")).then(failed("re_1", "refund")).stands("partially_refunded")


def test_a_release_is_not_adopted_before_the_capture_in_flight_has_ended() -> None:
    """Else the same money could be released and taken."""
    history = (*AUTHORIZED, capture_started("cap_1", 60_00))
    given(*history).when(voided_by_hand()).refused(OperationInFlight, operation="cap_1", kind="capture")
    given(*history, failed("cap_1", "capture")).when(voided_by_hand()).then(
        void_started("by_hand"), released("by_hand")
    )


def test_after_a_capture_by_hand_the_rest_can_be_captured_as_ever() -> None:
    history = (*MULTICAPTURE, *captured("by_hand", 40_00, final=False))
    given(*history).when(Capture("cap_1")).then(capture_started("cap_1", 60_00))


def test_what_is_adopted_keeps_what_the_provider_calls_it() -> None:
    assert answer_to(AUTHORIZED, captured_by_hand()) == (
        CaptureStarted("by_hand", usd(100_00), final=True),
        Captured("by_hand", usd(100_00), True, "ch_1", "req_captured"),  # noqa: FBT003  as the fact has it
    )
    assert answer_to(CAPTURED, refunded_by_hand()) == (
        RefundStarted("by_hand", usd(100_00)),
        Refunded("by_hand", usd(100_00), "re_stripe", "req_refunded"),
    )
    assert answer_to(AUTHORIZED, voided_by_hand())[0] == VoidStarted("by_hand")


# --- A refund that failed after it was made ----------------------------------------------------------------------


def test_a_refund_that_did_not_reach_the_cardholder_is_money_of_ours_again() -> None:
    given(*REFUNDED).when(told_of_reversal()).then(reversed_later()).stands("captured", captured=100_00, refunded=0)
    both = (*PARTLY_REFUNDED, *refunded("re_2", 20_00))
    given(*both).when(told_of_reversal("re_2")).then(reversed_later("re_2")).stands(
        "partially_refunded", refunded=30_00
    )


def test_a_refund_that_was_undone_has_failed_and_says_why() -> None:
    undone = given(*REFUNDED, reversed_later())
    assert undone.operation("re_1") == Operation("refund", usd(100_00), "failed")
    assert undone.payment is not None
    assert undone.payment.failure == ACCOUNT_CLOSED


def test_a_refund_is_undone_once() -> None:
    given(*REFUNDED, reversed_later()).when(told_of_reversal()).decides_nothing()


def test_money_that_came_back_can_be_given_back_again() -> None:
    undone = (*REFUNDED, reversed_later())
    given(*undone).when(Refund("re_2")).then(refund_started("re_2", 100_00))
    given(*undone, *refunded("re_2")).stands("refunded", refunded=100_00)
    given(*undone, *refunded("re_2")).when(told_of_reversal("re_1")).decides_nothing()


def test_a_refund_made_by_hand_may_be_undone_too() -> None:
    history = (*CAPTURED, *refunded("by_hand", 40_00))
    given(*history).when(told_of_reversal("by_hand")).then(reversed_later("by_hand")).stands("captured", refunded=0)


def test_a_refund_that_was_never_made_is_not_undone() -> None:
    given(*CAPTURED, refund_started()).when(told_of_reversal()).decides_nothing()
    given(*CAPTURED, refund_started(), failed("re_1", "refund", NO_FUNDS)).when(told_of_reversal()).decides_nothing()


@pytest.mark.parametrize("operation", ["auth_1", "cap_1", "none"])
def test_only_a_refund_is_undone(operation: str) -> None:
    given(*REFUNDED).when(told_of_reversal(operation)).refused(OutcomeMismatch, operation=operation)


def test_a_failure_of_anything_but_a_refund_gives_no_money_back() -> None:
    """A capture's failure that is heard after its success is old news: it is `decide` that knows, not the fold."""
    given(*CAPTURED).when(confirm_failed("cap_1")).decides_nothing()
    given(*REFUNDED).when(confirm_failed("re_1")).decides_nothing()
    given(*VOIDED).when(confirm_voided()).decides_nothing()
