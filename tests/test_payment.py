"""What may be decided about a payment, row by row of the decision table."""

from typing import Any

import pytest

from domain.errors import (
    AlreadyStarted,
    AmountTooLarge,
    CurrencyMismatch,
    ExceedsAuthorized,
    ExceedsCaptured,
    IllegalTransition,
    InvalidAmount,
    OperationInFlight,
    OutcomeMismatch,
    TooManyOperations,
    UnknownCurrency,
)
from domain.money import Money
from domain.payment import Operation
from domain.payment_commands import Authorize, Capture, PaymentCommand, Refund, Void
from domain.payment_decisions import MAX_OPERATIONS
from domain.payment_facts import AuthorizationStarted, Expired, Failed, PaymentFact
from tests.given import (
    ACTION_REQUIRED,
    AUTHORIZED,
    CAPTURED,
    DECLINED,
    EXPIRED,
    MULTICAPTURE,
    NO_FUNDS,
    PAGE,
    REFUNDED,
    STARTED,
    TOO_LATE,
    VOIDED,
    action_required,
    authorize,
    authorized,
    capture_started,
    captured,
    confirm_action_required,
    confirm_authorized,
    confirm_captured,
    confirm_expired,
    confirm_failed,
    confirm_refunded,
    confirm_voided,
    eur,
    expired,
    failed,
    fold,
    given,
    given_back,
    refund_started,
    refunded,
    released,
    started,
    taken,
    usd,
    void_started,
    voided,
)

TWO_OF_THREE_PARTS = (*MULTICAPTURE, *captured("cap_1", 30_00, final=False), *captured("cap_2", 20_00, final=False))
PARTLY_CAPTURED = (*AUTHORIZED, *captured("cap_1", 40_00))
PARTLY_REFUNDED = (*CAPTURED, *refunded("re_1", 30_00))
DECLINED_EARLIER = (*DECLINED, started("auth_2", 100_00, attempt=2))

# Every state a payment can be in, by name.
STATES: dict[str, tuple[PaymentFact, ...]] = {
    "pending": STARTED,
    "requires action": ACTION_REQUIRED,
    "declined": DECLINED,
    "authorized": AUTHORIZED,
    "partly captured": PARTLY_CAPTURED,
    "captured in parts": TWO_OF_THREE_PARTS,
    "captured": CAPTURED,
    "partly refunded": PARTLY_REFUNDED,
    "refunded": REFUNDED,
    "voided": VOIDED,
    "expired": EXPIRED,
}


def states_but(*names: str) -> pytest.MarkDecorator:
    assert set(names) <= set(STATES), "a state was misspelt"
    chosen = {name: facts for name, facts in STATES.items() if name not in names}
    return pytest.mark.parametrize("history", chosen.values(), ids=chosen)


# --- Authorize ---------------------------------------------------------------------------------------------------


def test_a_payment_begins_with_an_authorization() -> None:
    given().when(authorize()).then(started()).stands("pending", authorized=0, capturable=0, captured=0, refunded=0)


def test_an_authorization_remembers_all_that_was_asked() -> None:
    wish = Authorize(
        operation="auth_1",
        amount=eur(12_34),
        capture="automatic",
        payment_method="pm_card_visa",
        customer="c-7",
        order="o-9",
        description="two tickets",
        metadata={"seat": "12A"},
    )
    fact = AuthorizationStarted(
        operation="auth_1",
        attempt=1,
        amount=eur(12_34),
        capture="automatic",
        payment_method="pm_card_visa",
        customer="c-7",
        order="o-9",
        description="two tickets",
        metadata={"seat": "12A"},
    )
    given().when(wish).then(fact)
    payment = fold([fact])
    assert payment is not None
    assert (payment.customer, payment.order, payment.description) == ("c-7", "o-9", "two tickets")
    assert (payment.metadata, payment.capture, payment.amount) == ({"seat": "12A"}, "automatic", eur(12_34))


@pytest.mark.parametrize("command", [Capture("cap_1"), Void("void_1"), Refund("re_1")], ids=repr)
def test_nothing_but_an_authorization_can_begin_a_payment(command: PaymentCommand) -> None:
    given().when(command).refused(IllegalTransition, status="none", command=type(command).__name__)


@pytest.mark.parametrize(
    "outcome",
    [
        confirm_action_required(),
        confirm_authorized(),
        confirm_captured(),
        confirm_voided(),
        confirm_refunded(),
        confirm_failed(),
        confirm_expired(),
    ],
    ids=lambda outcome: type(outcome).__name__,
)
def test_a_payment_that_does_not_exist_has_no_outcomes(outcome: PaymentCommand) -> None:
    given().when(outcome).refused(IllegalTransition, status="none")


@states_but("declined")
def test_a_payment_that_was_started_is_not_started_again(history: tuple[PaymentFact, ...]) -> None:
    given(*history).when(authorize("auth_2")).refused(AlreadyStarted)


def test_a_payment_whose_authorization_is_in_flight_is_not_started_again() -> None:
    given(*STARTED).when(authorize("auth_2")).refused(AlreadyStarted, status="pending")


def test_a_declined_payment_can_be_tried_again() -> None:
    given(*DECLINED).when(authorize("auth_2")).then(started("auth_2", attempt=2)).stands("pending")


def test_each_attempt_has_its_number() -> None:
    given(*DECLINED_EARLIER, failed("auth_2")).when(authorize("auth_3")).then(started("auth_3", attempt=3))


def test_another_attempt_may_ask_for_another_amount() -> None:
    given(*DECLINED).when(authorize("auth_2", 80_00)).then(started("auth_2", 80_00, attempt=2))


def test_another_attempt_keeps_the_currency() -> None:
    again = authorize("auth_2", currency="eur")
    given(*DECLINED).when(again).refused(CurrencyMismatch, expected="usd", given="eur")


def test_another_attempt_forgets_why_the_last_one_failed() -> None:
    payment = fold(DECLINED_EARLIER)
    assert payment is not None
    assert (payment.failure, payment.next_action, payment.attempt) == (None, None, 2)


def test_another_attempt_waits_for_a_void_in_flight() -> None:
    """Else the old void's confirmation would be taken for the release of the new attempt's reserve."""
    history = (*ACTION_REQUIRED, void_started(), failed())
    given(*history).when(authorize("auth_2")).refused(OperationInFlight, operation="void_1", kind="void")


@pytest.mark.parametrize(
    ("amount", "refusal"),
    [
        (usd(0), InvalidAmount),
        (usd(100_000_000), AmountTooLarge),
        (Money(5_125, "kwd"), InvalidAmount),
        (Money(5_01, "mga"), InvalidAmount),
    ],
    ids=str,
)
@pytest.mark.parametrize("history", [(), DECLINED], ids=["first", "again"])
def test_only_money_that_can_be_moved_is_authorized(
    history: tuple[PaymentFact, ...], amount: Money, refusal: type[InvalidAmount | AmountTooLarge]
) -> None:
    before = tuple(
        AuthorizationStarted("auth_1", 1, Money(100_00, amount.currency), "manual", "pm_card_visa")
        if isinstance(fact, AuthorizationStarted)
        else fact
        for fact in history
    )
    given(*before).when(Authorize("auth_2", amount, "manual", "pm_card_visa")).refused(refusal)


def test_an_unknown_currency_cannot_even_be_said() -> None:
    with pytest.raises(UnknownCurrency):
        authorize(currency="btc")


# --- Outcomes of an authorization --------------------------------------------------------------------------------


def test_a_confirmed_authorization_reserves_the_money() -> None:
    given(*STARTED).when(confirm_authorized()).then(authorized()).stands(
        "authorized", authorized=100_00, capturable=100_00, captured=0, refunded=0
    )


def test_automatic_capture_takes_the_money_in_the_same_movement() -> None:
    automatic = started(capture="automatic")
    given(automatic).when(confirm_authorized(taken_at_once=True)).then(authorized(), at_once()).stands(
        "captured", authorized=100_00, capturable=0, captured=100_00, refunded=0
    )


def at_once() -> PaymentFact:
    """The capture that came with an authorization carries its operation and its evidence."""
    fact = taken("auth_1")
    return type(fact)(fact.operation, fact.amount, fact.final, fact.charge, "req_authorized")


def test_an_authorization_keeps_the_card_and_where_it_is_at_stripe() -> None:
    payment = fold(AUTHORIZED)
    assert payment is not None
    assert payment.card is not None
    assert (payment.card.last4, payment.payment_intent, payment.charge) == ("4242", "pi_1", "ch_1")


def test_a_decline_is_a_fact_with_its_reason() -> None:
    given(*STARTED).when(confirm_failed()).then(failed()).stands("failed", authorized=0, capturable=0)
    payment = fold(DECLINED)
    assert payment is not None
    assert payment.failure == NO_FUNDS


@pytest.mark.parametrize("confirmed", [usd(99_99), usd(100_01), usd(0), eur(100_00)], ids=str)
def test_an_authorization_of_another_amount_is_not_recorded(confirmed: Money) -> None:
    outcome = confirm_authorized(amount=confirmed)
    given(*STARTED).when(outcome).refused(
        OutcomeMismatch, operation="auth_1", expected="100.00 USD", confirmed=str(confirmed)
    )


# 3-D Secure


def test_the_issuer_may_want_the_cardholder_to_authenticate() -> None:
    given(*STARTED).when(confirm_action_required()).then(action_required()).stands("requires_action", authorized=0)
    payment = fold(ACTION_REQUIRED)
    assert payment is not None
    assert (payment.next_action, payment.payment_intent) == (PAGE, "pi_1")


def test_authentication_asked_for_twice_is_one_fact() -> None:
    given(*ACTION_REQUIRED).when(confirm_action_required()).decides_nothing()


def test_an_authenticated_payment_is_authorized() -> None:
    given(*ACTION_REQUIRED).when(confirm_authorized()).then(authorized()).stands("authorized", capturable=100_00)
    payment = fold([*ACTION_REQUIRED, authorized()])
    assert payment is not None
    assert payment.next_action is None


def test_an_authenticated_payment_with_automatic_capture_is_captured() -> None:
    history = (started(capture="automatic"), action_required())
    given(*history).when(confirm_authorized(taken_at_once=True)).then(authorized(), at_once()).stands("captured")


def test_failed_authentication_is_a_decline_and_can_be_tried_again() -> None:
    given(*ACTION_REQUIRED).when(confirm_failed()).then(failed()).stands("failed")
    given(*ACTION_REQUIRED, failed()).when(authorize("auth_2")).then(started("auth_2", attempt=2))
    payment = fold([*ACTION_REQUIRED, failed()])
    assert payment is not None
    assert payment.next_action is None


def test_authentication_asked_for_after_the_answer_is_old_news() -> None:
    given(*ACTION_REQUIRED, authorized()).when(confirm_action_required()).decides_nothing()
    given(*ACTION_REQUIRED, failed()).when(confirm_action_required()).decides_nothing()


def test_a_second_attempt_may_need_authentication_too() -> None:
    given(*ACTION_REQUIRED, failed(), started("auth_2", attempt=2)).when(confirm_action_required("auth_2")).then(
        action_required("auth_2")
    ).stands("requires_action")


# --- Capture -----------------------------------------------------------------------------------------------------


def test_a_capture_without_an_amount_takes_all_of_the_reserve() -> None:
    given(*AUTHORIZED).when(Capture("cap_1")).then(capture_started("cap_1", 100_00))


def test_a_capture_is_not_a_capture_before_the_provider_says_so() -> None:
    given(*AUTHORIZED, capture_started()).stands("authorized", captured=0, capturable=100_00)


def test_a_confirmed_capture_moves_the_money() -> None:
    given(*AUTHORIZED, capture_started()).when(confirm_captured()).then(taken()).stands(
        "captured", captured=100_00, capturable=0
    )


def test_a_part_can_be_captured_and_the_rest_is_released() -> None:
    given(*AUTHORIZED).when(Capture("cap_1", 40_00)).then(capture_started("cap_1", 40_00, final=True))
    given(*PARTLY_CAPTURED).stands("partially_captured", authorized=100_00, captured=40_00, capturable=0)


def test_the_reserve_is_captured_once_unless_the_card_allows_more() -> None:
    given(*PARTLY_CAPTURED).when(Capture("cap_2", 10_00)).refused(IllegalTransition, status="partially_captured")


def test_with_multicapture_the_rest_of_the_reserve_stays() -> None:
    given(*MULTICAPTURE).when(Capture("cap_1", 30_00)).then(capture_started("cap_1", 30_00, final=False))
    given(*TWO_OF_THREE_PARTS).stands("partially_captured", captured=50_00, capturable=50_00)


def test_with_multicapture_the_part_that_takes_the_rest_is_the_last() -> None:
    rest = capture_started("cap_3", 50_00, final=True)
    given(*TWO_OF_THREE_PARTS).when(Capture("cap_3")).then(rest)
    given(*TWO_OF_THREE_PARTS).when(Capture("cap_3", 50_00)).then(rest)
    given(*TWO_OF_THREE_PARTS, rest, taken("cap_3", 50_00)).stands("captured", captured=100_00, capturable=0)


def test_captures_never_exceed_the_authorization() -> None:
    given(*AUTHORIZED).when(Capture("cap_1", 100_01)).refused(
        ExceedsAuthorized, asked=100_01, capturable=100_00, currency="usd"
    )
    given(*TWO_OF_THREE_PARTS).when(Capture("cap_3", 50_01)).refused(ExceedsAuthorized, asked=50_01, capturable=50_00)


@pytest.mark.parametrize("minor", [0, -1, 1.5, True], ids=repr)
def test_only_money_that_can_be_moved_is_captured(minor: Any) -> None:
    given(*AUTHORIZED).when(Capture("cap_1", minor)).refused(InvalidAmount)


@states_but("authorized", "captured in parts")
def test_only_a_reserve_can_be_captured(history: tuple[PaymentFact, ...]) -> None:
    given(*history).when(Capture("cap_9")).refused(IllegalTransition, command="Capture")


def test_a_capture_waits_for_the_capture_in_flight() -> None:
    given(*MULTICAPTURE, capture_started("cap_1", 30_00, final=False)).when(Capture("cap_2", 30_00)).refused(
        OperationInFlight, operation="cap_1", kind="capture"
    )


def test_a_capture_waits_for_the_void_in_flight() -> None:
    given(*AUTHORIZED, void_started()).when(Capture("cap_1")).refused(
        OperationInFlight, operation="void_1", kind="void"
    )


def test_a_failed_capture_leaves_the_reserve_and_can_be_tried_again() -> None:
    history = (*AUTHORIZED, capture_started())
    given(*history).when(confirm_failed("cap_1")).then(failed("cap_1", "capture")).stands(
        "authorized", captured=0, capturable=100_00
    )
    given(*history, failed("cap_1", "capture")).when(Capture("cap_2")).then(capture_started("cap_2"))


def test_a_capture_after_a_failed_one_forgets_the_failure() -> None:
    payment = fold([*AUTHORIZED, capture_started(), failed("cap_1", "capture"), *captured("cap_2")])
    assert payment is not None
    assert payment.failure is None


@pytest.mark.parametrize("confirmed", [usd(39_99), usd(100_00), eur(40_00)], ids=str)
def test_a_capture_of_another_amount_is_not_recorded(confirmed: Money) -> None:
    given(*AUTHORIZED, capture_started("cap_1", 40_00)).when(confirm_captured("cap_1", confirmed)).refused(
        OutcomeMismatch, operation="cap_1", expected="40.00 USD", confirmed=str(confirmed)
    )


# --- Void --------------------------------------------------------------------------------------------------------


def test_a_reserve_can_be_released() -> None:
    given(*AUTHORIZED).when(Void("void_1")).then(void_started())
    given(*AUTHORIZED, void_started()).when(confirm_voided()).then(released()).stands("voided", capturable=0)


def test_a_payment_that_waits_for_the_cardholder_can_be_voided() -> None:
    given(*ACTION_REQUIRED).when(Void("void_1")).then(void_started())
    given(*ACTION_REQUIRED, void_started()).when(confirm_voided()).then(released(minor=0)).stands("voided")


def test_a_voided_payment_asks_nothing_of_the_cardholder() -> None:
    payment = fold([*ACTION_REQUIRED, void_started(), released(minor=0)])
    assert payment is not None
    assert payment.next_action is None


def test_what_was_not_captured_can_be_released() -> None:
    given(*TWO_OF_THREE_PARTS).when(Void("void_1")).then(void_started())
    given(*TWO_OF_THREE_PARTS, void_started()).when(confirm_voided()).then(released(minor=50_00)).stands(
        "partially_captured", captured=50_00, capturable=0
    )


@states_but("requires action", "authorized", "captured in parts")
def test_only_a_reserve_can_be_voided(history: tuple[PaymentFact, ...]) -> None:
    given(*history).when(Void("void_9")).refused(IllegalTransition, command="Void")


def test_captured_money_cannot_be_voided() -> None:
    given(*CAPTURED).when(Void("void_1")).refused(IllegalTransition, status="captured")


def test_a_void_waits_for_the_capture_in_flight() -> None:
    given(*AUTHORIZED, capture_started()).when(Void("void_1")).refused(
        OperationInFlight, operation="cap_1", kind="capture"
    )


def test_a_void_waits_for_the_void_in_flight() -> None:
    for history in (AUTHORIZED, ACTION_REQUIRED):
        given(*history, void_started()).when(Void("void_2")).refused(OperationInFlight, operation="void_1", kind="void")


def test_a_void_that_failed_leaves_the_reserve() -> None:
    given(*AUTHORIZED, void_started()).when(confirm_failed("void_1")).then(failed("void_1", "void")).stands(
        "authorized", capturable=100_00
    )


def test_a_void_in_flight_does_not_stop_the_cardholder_from_authenticating() -> None:
    given(*ACTION_REQUIRED, void_started()).when(confirm_authorized()).then(authorized()).stands("authorized")
    given(*ACTION_REQUIRED, void_started(), authorized()).when(confirm_voided()).then(released()).stands("voided")


@pytest.mark.parametrize(
    "late",
    [confirm_authorized(), confirm_action_required(), confirm_failed()],
    ids=["authorized", "action required", "declined"],
)
@pytest.mark.parametrize("end", [(void_started(), released(minor=0)), (expired(0),)], ids=["voided", "expired"])
def test_news_that_comes_late_does_not_reopen_a_payment_that_ended(
    end: tuple[PaymentFact, ...], late: PaymentCommand
) -> None:
    """Webhooks come in any order: the authorization was released (or ran out) before we heard how it had gone."""
    given(*ACTION_REQUIRED, *end).when(late).decides_nothing()


@pytest.mark.parametrize("end", [(void_started(), released(minor=0)), (expired(0),)], ids=["voided", "expired"])
def test_a_payment_that_ended_before_the_cardholder_acted_leaves_nothing_open(end: tuple[PaymentFact, ...]) -> None:
    assert given(*ACTION_REQUIRED, *end).operation("auth_1") == Operation("authorize", usd(100_00), "failed")


# --- Refund ------------------------------------------------------------------------------------------------------


def test_a_refund_without_an_amount_gives_all_of_the_captured_money_back() -> None:
    given(*CAPTURED).when(Refund("re_1")).then(refund_started("re_1", 100_00))
    given(*CAPTURED, refund_started()).when(confirm_refunded()).then(given_back()).stands(
        "refunded", captured=100_00, refunded=100_00
    )


def test_a_refund_is_not_a_refund_before_the_provider_says_so() -> None:
    given(*CAPTURED, refund_started()).stands("captured", refunded=0)


def test_a_part_can_be_refunded_and_the_rest_later() -> None:
    given(*PARTLY_REFUNDED).stands("partially_refunded", captured=100_00, refunded=30_00)
    given(*PARTLY_REFUNDED).when(Refund("re_2", 20_00)).then(refund_started("re_2", 20_00))
    given(*PARTLY_REFUNDED).when(Refund("re_2")).then(refund_started("re_2", 70_00))
    given(*PARTLY_REFUNDED, *refunded("re_2", 70_00)).stands("refunded", refunded=100_00)


def test_refunds_never_exceed_the_capture() -> None:
    given(*CAPTURED, *refunded("re_1", 70_00)).when(Refund("re_2", 40_00)).refused(
        ExceedsCaptured, asked=40_00, refundable=30_00, currency="usd"
    )
    given(*PARTLY_CAPTURED).when(Refund("re_1", 40_01)).refused(ExceedsCaptured, asked=40_01, refundable=40_00)


def test_money_on_its_way_back_cannot_be_asked_for_again() -> None:
    history = (*CAPTURED, refund_started("re_1", 70_00))
    given(*history).when(Refund("re_2", 40_00)).refused(ExceedsCaptured, asked=40_00, refundable=30_00)
    given(*history).when(Refund("re_2", 30_00)).then(refund_started("re_2", 30_00))
    given(*history).when(Refund("re_2")).then(refund_started("re_2", 30_00))


def test_a_refund_waits_when_all_of_the_money_is_on_its_way_back() -> None:
    given(*CAPTURED, refund_started("re_1", 100_00)).when(Refund("re_2", 1)).refused(
        OperationInFlight, operation="re_1", kind="refund"
    )


def test_refunds_in_flight_end_in_any_order() -> None:
    history = (*CAPTURED, refund_started("re_1", 70_00), refund_started("re_2", 30_00))
    given(*history).when(confirm_refunded("re_2", usd(30_00))).then(given_back("re_2", 30_00))
    given(*history, given_back("re_2", 30_00)).when(confirm_refunded("re_1", usd(70_00))).then(
        given_back("re_1", 70_00)
    ).stands("refunded", refunded=100_00)


def test_a_failed_refund_gives_its_reservation_up() -> None:
    history = (*CAPTURED, refund_started("re_1", 70_00))
    given(*history).when(confirm_failed("re_1")).then(failed("re_1", "refund")).stands("captured", refunded=0)
    given(*history, failed("re_1", "refund")).when(Refund("re_2")).then(refund_started("re_2", 100_00))


def test_what_was_captured_can_be_refunded_while_the_rest_of_the_reserve_waits() -> None:
    given(*TWO_OF_THREE_PARTS).when(Refund("re_1")).then(refund_started("re_1", 50_00))
    given(*TWO_OF_THREE_PARTS, *refunded("re_1", 50_00)).stands("partially_refunded", capturable=50_00, refunded=50_00)
    given(*TWO_OF_THREE_PARTS, refund_started("re_1", 50_00)).when(Capture("cap_3")).then(
        capture_started("cap_3", 50_00)
    )


def test_what_was_captured_before_a_void_or_the_expiry_can_be_refunded() -> None:
    for end in (voided("void_1", 50_00), (expired(50_00),)):
        given(*TWO_OF_THREE_PARTS, *end).when(Refund("re_1")).then(refund_started("re_1", 50_00))
        given(*TWO_OF_THREE_PARTS, *end, *refunded("re_1", 50_00)).stands("refunded", refunded=50_00)


@states_but("partly captured", "captured in parts", "captured", "partly refunded")
def test_only_captured_money_can_be_refunded(history: tuple[PaymentFact, ...]) -> None:
    given(*history).when(Refund("re_9")).refused(IllegalTransition, command="Refund")


@pytest.mark.parametrize("minor", [0, -1, 1.5, True], ids=repr)
def test_only_money_that_can_be_moved_is_refunded(minor: Any) -> None:
    given(*CAPTURED).when(Refund("re_1", minor)).refused(InvalidAmount)


@pytest.mark.parametrize("confirmed", [usd(29_99), usd(100_00), eur(30_00)], ids=str)
def test_a_refund_of_another_amount_is_not_recorded(confirmed: Money) -> None:
    given(*CAPTURED, refund_started("re_1", 30_00)).when(confirm_refunded("re_1", confirmed)).refused(
        OutcomeMismatch, operation="re_1", expected="30.00 USD", confirmed=str(confirmed)
    )


# --- Expiry ------------------------------------------------------------------------------------------------------


def test_a_reserve_runs_out() -> None:
    given(*AUTHORIZED).when(confirm_expired()).then(expired()).stands("expired", authorized=100_00, capturable=0)


def test_only_what_was_not_captured_runs_out() -> None:
    given(*TWO_OF_THREE_PARTS).when(confirm_expired()).then(expired(50_00)).stands(
        "partially_captured", captured=50_00, capturable=0
    )


def test_the_time_to_authenticate_runs_out() -> None:
    given(*ACTION_REQUIRED).when(confirm_expired()).then(expired(0)).stands("expired")


@states_but("authorized", "captured in parts", "requires action")
def test_where_nothing_is_reserved_nothing_runs_out(history: tuple[PaymentFact, ...]) -> None:
    given(*history).when(confirm_expired()).decides_nothing()


def test_a_capture_that_fails_because_the_reserve_ran_out_says_both() -> None:
    given(*AUTHORIZED, capture_started()).when(confirm_failed("cap_1", TOO_LATE, too_late=True)).then(
        failed("cap_1", "capture", TOO_LATE), Expired(usd(100_00), "req_failed")
    ).stands("expired", captured=0, capturable=0)


def test_a_void_that_fails_because_the_reserve_ran_out_says_both() -> None:
    given(*AUTHORIZED, void_started()).when(confirm_failed("void_1", TOO_LATE, too_late=True)).then(
        failed("void_1", "void", TOO_LATE), Expired(usd(100_00), "req_failed")
    ).stands("expired")


def test_authentication_that_fails_because_the_time_ran_out_says_both() -> None:
    given(*ACTION_REQUIRED).when(confirm_failed("auth_1", TOO_LATE, too_late=True)).then(
        failed("auth_1", "authorize", TOO_LATE), Expired(usd(0), "req_failed")
    ).stands("expired")


def test_a_reserve_does_not_run_out_under_a_capture_in_flight() -> None:
    """Whether that money was taken or ran out is not known yet; saying both would count it twice."""
    given(*AUTHORIZED, capture_started()).when(confirm_expired()).refused(
        OperationInFlight, operation="cap_1", kind="capture"
    )


def test_a_refund_that_fails_lets_no_reserve_run_out() -> None:
    history = (*TWO_OF_THREE_PARTS, refund_started("re_1", 10_00))
    given(*history).when(confirm_failed("re_1", TOO_LATE, too_late=True)).then(failed("re_1", "refund", TOO_LATE))


def test_a_reserve_runs_out_once() -> None:
    given(*EXPIRED).when(confirm_expired()).decides_nothing()
    given(*AUTHORIZED, capture_started(), expired()).when(confirm_failed("cap_1", TOO_LATE, too_late=True)).then(
        failed("cap_1", "capture", TOO_LATE)
    ).stands("expired")


@pytest.mark.parametrize("final", [True, False])
def test_a_capture_that_succeeded_before_the_expiry_is_recorded_even_when_heard_of_after(*, final: bool) -> None:
    history = (*MULTICAPTURE, capture_started("cap_1", 30_00, final=final), expired())
    given(*history).when(confirm_captured("cap_1", usd(30_00), final=final)).then(
        taken("cap_1", 30_00, final=final)
    ).stands("partially_captured", captured=30_00, capturable=0)


def test_a_void_confirmed_after_the_expiry_releases_nothing_more() -> None:
    given(*AUTHORIZED, void_started(), expired()).when(confirm_voided()).then(released(minor=0)).stands(
        "voided", capturable=0
    )


# --- Asking twice, and outcomes that do not fit ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("history", "wish"),
    [
        (STARTED, authorize()),
        (AUTHORIZED, authorize()),
        (DECLINED, authorize()),
        (DECLINED_EARLIER, authorize()),
        ((*AUTHORIZED, capture_started()), Capture("cap_1")),
        (CAPTURED, Capture("cap_1")),
        ((*AUTHORIZED, capture_started(), failed("cap_1", "capture")), Capture("cap_1")),
        ((*AUTHORIZED, void_started()), Void("void_1")),
        (VOIDED, Void("void_1")),
        ((*CAPTURED, refund_started()), Refund("re_1")),
        (REFUNDED, Refund("re_1")),
    ],
)
def test_a_wish_asked_twice_decides_nothing_new(history: tuple[PaymentFact, ...], wish: PaymentCommand) -> None:
    given(*history).when(wish).decides_nothing()


@pytest.mark.parametrize(
    ("history", "outcome"),
    [
        (AUTHORIZED, confirm_authorized()),
        ((started(capture="automatic"), authorized(), at_once()), confirm_authorized(taken_at_once=True)),
        (DECLINED, confirm_failed()),
        (CAPTURED, confirm_captured()),
        ((*AUTHORIZED, capture_started(), failed("cap_1", "capture")), confirm_failed("cap_1")),
        (VOIDED, confirm_voided()),
        (REFUNDED, confirm_refunded()),
        (EXPIRED, confirm_expired()),
    ],
)
def test_an_outcome_heard_twice_decides_nothing_new(history: tuple[PaymentFact, ...], outcome: PaymentCommand) -> None:
    given(*history).when(outcome).decides_nothing()


def test_the_outcome_of_an_earlier_attempt_leaves_the_later_one_alone() -> None:
    given(*DECLINED_EARLIER).when(confirm_failed("auth_1")).decides_nothing()


@pytest.mark.parametrize(
    "outcome",
    [
        confirm_action_required("none"),
        confirm_authorized("none"),
        confirm_captured("none"),
        confirm_voided("none"),
        confirm_refunded("none"),
        confirm_failed("none"),
    ],
    ids=lambda outcome: type(outcome).__name__,
)
@states_but()
def test_an_outcome_of_nothing_that_was_asked_is_not_recorded(
    history: tuple[PaymentFact, ...], outcome: PaymentCommand
) -> None:
    given(*history).when(outcome).refused(OutcomeMismatch, operation="none")


IN_FLIGHT: dict[str, tuple[PaymentFact, ...]] = {
    "auth_1": STARTED,
    "cap_1": (*AUTHORIZED, capture_started()),
    "void_1": (*AUTHORIZED, void_started()),
    "re_1": (*CAPTURED, refund_started()),
}


@pytest.mark.parametrize("operation", IN_FLIGHT)
def test_an_outcome_of_another_kind_than_was_asked_is_not_recorded(operation: str) -> None:
    """A confirmed refund of an operation that was a capture, and the like: money would appear from nothing."""
    outcomes: dict[str, tuple[PaymentCommand, ...]] = {
        "auth_1": (confirm_authorized(operation), confirm_action_required(operation)),
        "cap_1": (confirm_captured(operation),),
        "void_1": (confirm_voided(operation),),
        "re_1": (confirm_refunded(operation),),
    }
    del outcomes[operation]
    for confirmations in outcomes.values():
        for outcome in confirmations:
            given(*IN_FLIGHT[operation]).when(outcome).refused(OutcomeMismatch, operation=operation)


# --- Limits ------------------------------------------------------------------------------------------------------


def busy(count: int) -> tuple[PaymentFact, ...]:
    """A payment of `count` operations, one of them a capture in flight."""
    tries = (
        fact
        for place in range(count - 2)
        for fact in (capture_started(f"cap_{place}"), failed(f"cap_{place}", "capture"))
    )
    return (*AUTHORIZED, *tries, capture_started("last"))


@pytest.mark.parametrize("wish", [authorize("more"), Capture("more"), Refund("more", 1_00)])
def test_a_payment_takes_so_many_operations_and_no_more(wish: PaymentCommand) -> None:
    given(*busy(MAX_OPERATIONS)).when(wish).refused(TooManyOperations, limit=MAX_OPERATIONS)


def test_the_last_operation_a_payment_takes_can_be_asked_for() -> None:
    history = (*busy(MAX_OPERATIONS - 1), failed("last", "capture"))
    given(*history).when(Capture("more")).then(capture_started("more"))


def test_a_payment_at_its_limit_still_learns_the_outcome_and_knows_its_wishes() -> None:
    given(*busy(MAX_OPERATIONS)).when(confirm_captured("last")).then(taken("last")).stands("captured")
    given(*busy(MAX_OPERATIONS)).when(Capture("last")).decides_nothing()


# --- The fold ----------------------------------------------------------------------------------------------------


def test_an_operation_tells_what_became_of_it() -> None:
    asked = given(*AUTHORIZED, capture_started("cap_1", 40_00))
    assert asked.operation("cap_1") == Operation("capture", usd(40_00), "open", final=True)
    assert given(*PARTLY_CAPTURED).operation("cap_1").outcome == "done"
    refused = given(*AUTHORIZED, capture_started(), failed("cap_1", "capture"))
    assert refused.operation("cap_1").outcome == "failed"


def test_the_past_is_never_refused() -> None:
    """Facts that no decision would allow today still fold, or yesterday's streams would no longer load."""
    for history in STATES.values():
        more_than_there_was = captured("late", 900_00, final=False)
        given(*history, *more_than_there_was, *refunded("later", 950_00), Failed("late", "capture", TOO_LATE, "e"))


def test_a_history_that_does_not_begin_is_corrupt() -> None:
    with pytest.raises(AssertionError, match="begins with AuthorizationStarted"):
        fold([authorized()])
