"""What may be decided about a subscription, row by row of the decision table, and what is learned of it."""

from datetime import datetime, timedelta
from uuid import UUID

import pytest
from msgspec import structs

from domain.calendar import Period
from domain.errors import (
    AlreadySubscribed,
    InvalidTerms,
    OutcomeMismatch,
    SubscriptionBusy,
    SubscriptionNotReady,
    SubscriptionOver,
    TooManyChanges,
)
from domain.personal import split
from domain.subscription import Cancelled, Subscription
from domain.subscription_commands import (
    AdoptSubscription,
    Cancel,
    Change,
    Resume,
    Subscribe,
    SubscriptionCommand,
    SubscriptionOutcome,
    SubscriptionWish,
)
from domain.subscription_decisions import MAX_OPERATIONS, MAX_QUANTITY, MAX_TRIAL_DAYS, decide
from domain.subscription_facts import BillingStatus, SubscriptionFact
from domain.subscription_outside import Standing, movements, refunds
from domain.subscription_paid import next_period, paid_until
from domain.subscription_standing import Dated, Invoice
from tests.given import NO_FUNDS, usd
from tests.given_subscription import (
    ACTIVE,
    ANNUAL,
    APR_30,
    CANCELLED,
    CHANGING,
    CUSTOMER,
    ENDING,
    FEB_28,
    FIRST,
    INCOMPLETE,
    JAN_31,
    MAR_31,
    MONTHLY,
    PAST_DUE,
    PENDING,
    PRICIER,
    REFUSED,
    RESUMING,
    SECOND,
    SOON,
    THEN,
    THIRD,
    TOLD,
    TRIALING,
    UNPAID,
    at,
    began,
    cancel_refused,
    cancel_requested,
    change_refused,
    change_requested,
    changed,
    confirm_refused,
    confirm_started,
    ended,
    fold,
    given,
    later,
    monthly,
    moved,
    not_begun,
    not_renewed,
    refunded,
    renewed,
    requested,
    resume_refused,
    resume_requested,
    resumed,
    scheduled,
    told_changed,
    told_ended,
    told_paid,
    told_refunded,
    told_resumed,
    told_scheduled,
    told_status,
    told_unpaid,
    told_voided,
    voided,
)

# Every state a subscription can be in, by name.
STATES: dict[str, tuple[SubscriptionFact, ...]] = {
    "pending": PENDING,
    "refused": REFUSED,
    "pending again": (*REFUSED, requested("start_2")),
    "incomplete": INCOMPLETE,
    "trialing": TRIALING,
    "active": ACTIVE,
    "changing": CHANGING,
    "cancelling": (*ACTIVE, cancel_requested()),
    "ending": ENDING,
    "resuming": RESUMING,
    "past due": PAST_DUE,
    "unpaid": UNPAID,
    "cancelled": CANCELLED,
    "never paid": (*INCOMPLETE, ended(None, cause="never_paid")),
}
# Those that last and have nothing in flight.
AT_REST = ("trialing", "active", "ending", "past due", "unpaid")
IN_FLIGHT = {"changing": "change", "cancelling": "cancel", "resuming": "resume"}


def subscription(*facts: SubscriptionFact) -> Subscription:
    folded = fold(facts)
    assert folded is not None
    return folded


def subscribe(operation: str = "start_1", quantity: int = 1, trial_days: int = 0) -> Subscribe:
    return Subscribe(operation, CUSTOMER, "prod_1", "price_1", quantity, trial_days)


def change(operation: str = "change_1", quantity: int | None = None, price: str = "price_2") -> Change:
    return Change(operation, "prod_1", price, quantity)


# --- Subscribe ---------------------------------------------------------------------------------------------------


def test_somebody_subscribes() -> None:
    given().when(subscribe()).then(requested()).stands(
        "pending",
        customer=CUSTOMER,
        product="prod_1",
        price="price_1",
        quantity=1,
        terms=None,
        payment_status="pending",
    )


def test_a_subscription_may_begin_with_a_trial() -> None:
    trial = structs.replace(requested(), trial_days=14)
    given().when(subscribe(trial_days=14)).then(trial).stands("pending")


@pytest.mark.parametrize("quantity", [0, -1, MAX_QUANTITY + 1])
def test_a_quantity_that_nobody_can_have_is_refused(quantity: int) -> None:
    facts = {"field": "quantity", "given": quantity, "least": 1, "most": MAX_QUANTITY}
    given().when(subscribe(quantity=quantity)).refused(InvalidTerms, **facts)
    given(*REFUSED).when(subscribe("start_2", quantity)).refused(InvalidTerms, **facts)
    given(*ACTIVE).when(change(quantity=quantity)).refused(InvalidTerms, **facts)


@pytest.mark.parametrize("days", [-1, MAX_TRIAL_DAYS + 1])
def test_a_trial_that_nobody_can_have_is_refused(days: int) -> None:
    given().when(subscribe(trial_days=days)).refused(
        InvalidTerms, field="trial_days", given=days, least=0, most=MAX_TRIAL_DAYS
    )


def test_the_most_that_somebody_can_have_is_granted() -> None:
    most = structs.replace(requested(quantity=MAX_QUANTITY), trial_days=MAX_TRIAL_DAYS)
    given().when(subscribe(quantity=MAX_QUANTITY, trial_days=MAX_TRIAL_DAYS)).then(most)


@pytest.mark.parametrize("status", ["incomplete", "trialing", "active"])
def test_the_provider_begins_to_bill(status: str) -> None:
    begun = structs.replace(began(), status=status)
    outcome = structs.replace(confirm_started(), status=status)
    found = given(*PENDING).when(outcome).then(begun).subscription
    assert found is not None
    assert (found.status, found.provider_subscription, found.period) == (status, "sub_1", FIRST)
    assert found.terms == Dated(MONTHLY, FIRST.start)
    assert found.in_flight() == ()


def test_the_provider_may_not_want_it_and_another_attempt_may_be_made() -> None:
    given(*PENDING).when(confirm_refused("start_1")).then(not_begun()).stands("refused", failure=NO_FUNDS)
    again = requested("start_2", "price_2", 3)
    wish = Subscribe("start_2", CUSTOMER, "prod_1", "price_2", 3)
    given(*REFUSED).when(wish).then(again).stands("pending", price="price_2", quantity=3, failure=None)
    given(*REFUSED, again).when(confirm_started("start_2")).then(began("start_2")).stands("active")


@pytest.mark.parametrize("name", sorted(set(STATES) - {"refused"}))
def test_a_subscription_begins_once(name: str) -> None:
    status = subscription(*STATES[name]).status
    given(*STATES[name]).when(subscribe("start_9")).refused(AlreadySubscribed, product="prod_1", status=status)


def test_another_attempt_is_for_the_same_customer() -> None:
    somebody_else = Subscribe("start_2", UUID(int=8), "prod_1", "price_1")
    given(*REFUSED).when(somebody_else).refused(AlreadySubscribed, product="prod_1", status="refused")


NOTHING_TO_BEGIN_WITH: tuple[SubscriptionCommand, ...] = (
    change(),
    Cancel("cancel_1"),
    Resume("resume_1", later(0)),
    confirm_started(),
    confirm_refused("start_1"),
    told_changed(),
    told_scheduled(),
    told_resumed(),
    told_ended(),
    told_status("active"),
    told_paid(),
    told_unpaid(),
    told_voided(),
)


@pytest.mark.parametrize("command", NOTHING_TO_BEGIN_WITH, ids=lambda command: type(command).__name__)
def test_nothing_but_subscribing_can_begin_a_subscription(command: SubscriptionCommand) -> None:
    given().when(command).refused(SubscriptionNotReady, command=type(command).__name__, status="none")


# --- Change ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", AT_REST)
def test_another_price_is_asked_for_and_holds_once_the_provider_says_so(name: str) -> None:
    status = subscription(*STATES[name]).status
    asked = (*STATES[name], change_requested())
    given(*STATES[name]).when(change()).then(change_requested())
    assert subscription(*asked).terms == subscription(*STATES[name]).terms
    told, news = told_changed("change_1", as_of=MAR_31), changed(as_of=MAR_31)
    given(*asked).when(told).then(news).stands(status, terms=Dated(PRICIER, MAR_31))


def test_another_quantity_and_another_product_are_changes() -> None:
    given(*ACTIVE).when(change(price="price_1", quantity=3)).then(change_requested(terms=monthly(quantity=3)))
    other = monthly("price_9", product="prod_9")
    given(*ACTIVE).when(Change("change_1", "prod_9", "price_9")).then(change_requested(terms=other))


def test_the_quantity_stays_where_none_is_named() -> None:
    three = (*PENDING, began(terms=monthly(quantity=3)))
    given(*three).when(change()).then(change_requested(terms=monthly("price_2", 3)))


@pytest.mark.parametrize("quantity", [None, 1])
def test_a_change_to_what_is_so_already_is_none(quantity: int | None) -> None:
    given(*ACTIVE).when(change(price="price_1", quantity=quantity)).decides_nothing()
    given(*ACTIVE, change_requested(), changed()).when(change("change_2", quantity)).decides_nothing()


def test_a_change_that_the_issuer_declines_leaves_the_terms_before() -> None:
    given(*CHANGING).when(confirm_refused("change_1")).then(change_refused()).stands(
        "active", terms=Dated(MONTHLY, FIRST.start), failure=NO_FUNDS
    )


@pytest.mark.parametrize("name", ["pending", "refused", "incomplete"])
def test_what_was_never_paid_for_is_not_changed(name: str) -> None:
    status = subscription(*STATES[name]).status
    given(*STATES[name]).when(change()).refused(SubscriptionNotReady, command="Change", status=status)
    if name != "incomplete":  # whoever told of its terms does not make it ours to change
        given(*STATES[name], changed(None)).when(change("change_1", price="price_3")).refused(SubscriptionNotReady)


@pytest.mark.parametrize("name", ["cancelled", "never paid"])
def test_what_is_over_is_not_changed(name: str) -> None:
    given(*STATES[name]).when(change()).refused(SubscriptionOver, command="Change", ended_at=THEN)


def test_other_terms_than_were_asked_for_are_not_recorded() -> None:
    given(*CHANGING).when(told_changed("change_1", monthly("price_3"))).refused(
        OutcomeMismatch, operation="change_1", expected="1 of price_2", confirmed="1 of price_3"
    )
    given(*CHANGING).when(told_changed("change_1", monthly("price_2", 2))).refused(
        OutcomeMismatch, operation="change_1", expected="1 of price_2", confirmed="2 of price_2"
    )


# --- Cancel ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*AT_REST, "incomplete"])
def test_what_lasts_can_be_ended_at_once(name: str) -> None:
    status = subscription(*STATES[name]).status
    asked = cancel_requested("cancel_2")
    given(*STATES[name]).when(Cancel("cancel_2")).then(asked).stands(status)
    given(*STATES[name], asked).when(told_ended("cancel_2")).then(ended("cancel_2")).stands("cancelled", ends_at=THEN)


@pytest.mark.parametrize("name", sorted(set(AT_REST) - {"ending"}))
def test_what_lasts_can_be_kept_to_the_end_of_its_period(name: str) -> None:
    status = subscription(*STATES[name]).status
    asked = cancel_requested(at_period_end=True)
    given(*STATES[name]).when(Cancel("cancel_1", at_period_end=True)).then(asked).stands(status, ends_at=None)
    told, news = told_scheduled("cancel_1", APR_30, MAR_31), scheduled("cancel_1", APR_30, MAR_31)
    given(*STATES[name], asked).when(told).then(news).stands(status, ends_at=APR_30)


def test_at_the_end_of_its_period_it_is_over() -> None:
    over = ended(None, FEB_28)
    given(*ENDING).when(told_ended(None, FEB_28)).then(over).stands("cancelled", ends_at=FEB_28)


def test_the_end_that_was_asked_for_may_have_come_already() -> None:
    asked = (*ACTIVE, cancel_requested(at_period_end=True))
    given(*asked).when(told_ended("cancel_1", FEB_28)).then(ended("cancel_1", FEB_28)).stands("cancelled")


def test_an_end_at_once_is_not_answered_with_a_later_one() -> None:
    given(*STATES["cancelling"]).when(told_scheduled("cancel_1")).refused(
        OutcomeMismatch, operation="cancel_1", expected="cancelled", confirmed="scheduled"
    )


def test_what_ends_with_its_period_need_not_be_told_to() -> None:
    given(*ENDING).when(Cancel("cancel_2", at_period_end=True)).decides_nothing()
    sooner = (*ACTIVE, scheduled(None, later(3600)))
    given(*sooner).when(Cancel("cancel_1", at_period_end=True)).decides_nothing()


def test_what_ends_later_than_its_period_can_be_told_to_end_with_it() -> None:
    far = (*ACTIVE, scheduled(None, MAR_31))
    given(*far).when(Cancel("cancel_1", at_period_end=True)).then(cancel_requested(at_period_end=True))


@pytest.mark.parametrize("name", ["cancelled", "never paid"])
@pytest.mark.parametrize("at_period_end", [False, True])
def test_what_is_over_is_over(name: str, *, at_period_end: bool) -> None:
    given(*STATES[name]).when(Cancel("cancel_9", at_period_end)).decides_nothing()


@pytest.mark.parametrize("name", ["pending", "refused"])
def test_what_has_not_begun_cannot_end(name: str) -> None:
    given(*STATES[name]).when(Cancel("cancel_1")).refused(SubscriptionNotReady, command="Cancel", status=name)


def test_what_was_never_paid_for_has_no_period_to_be_kept_for() -> None:
    given(*INCOMPLETE).when(Cancel("cancel_1", at_period_end=True)).refused(
        SubscriptionNotReady, command="Cancel", status="incomplete"
    )


def test_a_cancellation_may_be_refused_and_tried_again() -> None:
    asked = (*ACTIVE, cancel_requested())
    given(*asked).when(confirm_refused("cancel_1")).then(cancel_refused()).stands("active", failure=NO_FUNDS)
    given(*asked, cancel_refused()).when(Cancel("cancel_2")).then(cancel_requested("cancel_2"))


def test_whoever_wished_for_the_end_has_got_it_by_whatever_ended_it() -> None:
    asked = (*ACTIVE, cancel_requested())
    over = given(*asked).when(told_ended(cause="payment_failed")).then(ended(None, cause="payment_failed")).subscription
    assert over is not None
    assert over.operations["cancel_1"].outcome == "done"
    given(*asked, ended(None)).when(told_ended("cancel_1")).decides_nothing()
    given(*asked, ended(None)).when(confirm_refused("cancel_1")).decides_nothing()


def test_another_wish_in_flight_at_the_end_stays_open_until_it_is_answered() -> None:
    over = (*CHANGING, ended(None))
    assert [name for name, _ in subscription(*over).in_flight()] == ["change_1"]
    given(*over).when(confirm_refused("change_1")).then(change_refused()).stands("cancelled")


# --- Resume ------------------------------------------------------------------------------------------------------


def test_what_was_to_end_is_renewed_after_all() -> None:
    given(*ENDING).when(Resume("resume_1", later(90))).then(resume_requested()).stands("active", ends_at=FEB_28)
    given(*RESUMING).when(told_resumed("resume_1")).then(resumed()).stands("active", ends_at=None)


def test_who_resumed_may_cancel_again_and_resume_again() -> None:
    again = (*RESUMING, resumed(), cancel_requested("cancel_2", at_period_end=True))
    given(*RESUMING, resumed()).when(Cancel("cancel_2", at_period_end=True)).then(again[-1])
    ending = (*again, scheduled("cancel_2", as_of=later(180)))
    given(*ending).stands("active", ends_at=FEB_28)
    given(*ending).when(Resume("resume_2", later(200))).then(resume_requested("resume_2"))


def test_what_is_not_to_end_need_not_be_resumed() -> None:
    given(*ACTIVE).when(Resume("resume_1", later(90))).decides_nothing()
    given(*INCOMPLETE).when(Resume("resume_1", later(90))).decides_nothing()


def test_an_end_that_has_come_is_not_taken_back() -> None:
    given(*ENDING).when(Resume("resume_1", FEB_28)).refused(SubscriptionOver, command="Resume", ended_at=FEB_28)
    given(*CANCELLED).when(Resume("resume_1", later(0))).refused(SubscriptionOver, command="Resume", ended_at=THEN)


@pytest.mark.parametrize("name", ["pending", "refused"])
def test_what_has_not_begun_is_not_resumed(name: str) -> None:
    given(*STATES[name]).when(Resume("resume_1", later(0))).refused(SubscriptionNotReady, command="Resume", status=name)


def test_a_resumption_that_is_refused_leaves_the_end_planned() -> None:
    given(*RESUMING).when(confirm_refused("resume_1")).then(resume_refused()).stands(
        "active", ends_at=FEB_28, failure=NO_FUNDS
    )


# Stripe tells time in seconds, and callers may be quicker


def test_of_wishes_that_are_granted_in_one_second_the_last_holds() -> None:
    moment, next_moment = SOON + timedelta(microseconds=1), SOON + timedelta(microseconds=2)
    given(*RESUMING).when(told_resumed("resume_1", SOON)).then(resumed(as_of=moment)).stands("active", ends_at=None)
    again = (*RESUMING, resumed(as_of=moment), cancel_requested("cancel_2", at_period_end=True))
    given(*again).when(told_scheduled("cancel_2", as_of=SOON)).then(scheduled("cancel_2", as_of=next_moment)).stands(
        "active", ends_at=FEB_28
    )


@pytest.mark.parametrize("price", ["price_0", "price_2"])
def test_what_is_changed_in_the_second_that_it_began_in_is_changed(price: str) -> None:
    terms = monthly(price)
    asked = (*PENDING, began(), change_requested(terms=terms))
    told = told_changed("change_1", terms, FIRST.start)
    moment = FIRST.start + timedelta(microseconds=1)
    given(*asked).when(told).then(changed(terms=terms, as_of=moment)).stands("active", terms=Dated(terms, moment))


def test_what_was_changed_back_while_our_answer_was_on_its_way_stays_so() -> None:
    """It is later than what was known when we asked, not than what was heard of since."""
    back = (*CHANGING, changed(None, MONTHLY, THEN))
    given(*back).when(told_changed("change_1", as_of=SOON)).then(changed(as_of=SOON)).stands(
        "active", terms=Dated(MONTHLY, THEN)
    )


# --- One wish after the other, and each of them once -------------------------------------------------------------

WISHES: tuple[SubscriptionWish, ...] = (
    change("other", 2, "price_3"),
    Cancel("other"),
    Cancel("other", at_period_end=True),
    Resume("other", later(90)),
)


@pytest.mark.parametrize("wish", WISHES, ids=lambda wish: type(wish).__name__)
@pytest.mark.parametrize("name", IN_FLIGHT)
def test_a_wish_waits_for_the_one_in_flight(name: str, wish: SubscriptionWish) -> None:
    kind = IN_FLIGHT[name]
    given(*STATES[name]).when(wish).refused(SubscriptionBusy, operation=f"{kind}_1", kind=kind)


@pytest.mark.parametrize(
    ("history", "wish"),
    [
        (PENDING, subscribe()),
        (REFUSED, subscribe()),
        (CANCELLED, subscribe()),
        (CHANGING, change()),
        ((*CHANGING, changed()), change()),
        ((*CHANGING, change_refused()), change()),
        (ENDING, Cancel("cancel_1", at_period_end=True)),
        (CANCELLED, Cancel("cancel_1")),
        (RESUMING, Resume("resume_1", later(90))),
        ((*RESUMING, resumed(), ended(None)), Resume("resume_1", MAR_31)),
        ((*CHANGING, changed(), ended(None)), change()),
    ],
)
def test_a_wish_that_is_asked_twice_decides_nothing_new(
    history: tuple[SubscriptionFact, ...], wish: SubscriptionWish
) -> None:
    given(*history).when(wish).decides_nothing()


@pytest.mark.parametrize(
    ("history", "outcome"),
    [
        (ACTIVE, confirm_started()),
        (REFUSED, confirm_refused("start_1")),
        ((*CHANGING, changed()), told_changed("change_1")),
        ((*CHANGING, change_refused()), confirm_refused("change_1")),
        (ENDING, told_scheduled("cancel_1")),
        (CANCELLED, told_ended("cancel_1")),
        ((*RESUMING, resumed()), told_resumed("resume_1")),
    ],
)
def test_an_outcome_that_is_heard_twice_decides_nothing_new(
    history: tuple[SubscriptionFact, ...], outcome: SubscriptionOutcome
) -> None:
    given(*history).when(outcome).decides_nothing()


# --- Outcomes that do not fit ------------------------------------------------------------------------------------


@pytest.mark.parametrize("history", STATES.values(), ids=STATES)
@pytest.mark.parametrize(
    "outcome",
    [
        confirm_started("none"),
        told_changed("none"),
        told_scheduled("none"),
        told_resumed("none"),
        told_ended("none"),
        confirm_refused("none"),
    ],
    ids=lambda outcome: type(outcome).__name__,
)
def test_an_outcome_of_nothing_that_was_asked_is_not_recorded(
    history: tuple[SubscriptionFact, ...], outcome: SubscriptionOutcome
) -> None:
    given(*history).when(outcome).refused(OutcomeMismatch, operation="none", confirmed="none")


@pytest.mark.parametrize(
    ("history", "outcome", "expected", "confirmed"),
    [
        (PENDING, told_changed("start_1"), "subscribe", "change"),
        (PENDING, told_ended("start_1"), "subscribe", "cancel"),
        (CHANGING, told_resumed("change_1"), "change", "resume"),
        (CHANGING, told_ended("change_1"), "change", "cancel"),
        (STATES["cancelling"], told_resumed("cancel_1"), "cancel", "resume"),
        (RESUMING, told_scheduled("resume_1"), "resume", "cancel"),
    ],
)
def test_an_outcome_of_another_kind_than_was_asked_is_not_recorded(
    history: tuple[SubscriptionFact, ...], outcome: SubscriptionOutcome, expected: str, confirmed: str
) -> None:
    given(*history).when(outcome).refused(OutcomeMismatch, expected=expected, confirmed=confirmed)


def test_a_wish_that_made_two_subscriptions_is_for_a_person_to_look_at() -> None:
    given(*ACTIVE).when(confirm_started(subscription="sub_2")).refused(
        OutcomeMismatch, operation="start_1", expected="sub_1", confirmed="sub_2"
    )


def test_a_wish_that_was_refused_and_is_billed_all_the_same_is_for_a_person_to_look_at() -> None:
    given(*REFUSED).when(confirm_started()).refused(
        OutcomeMismatch, operation="start_1", expected="no subscription", confirmed="sub_1"
    )
    again = (*REFUSED, requested("start_2"), began("start_2"))
    given(*again).when(confirm_started()).refused(OutcomeMismatch, operation="start_1", expected="sub_1")


# --- Adoption, and looking ---------------------------------------------------------------------------------------

ADOPTED = AdoptSubscription(CUSTOMER, confirm_started("found_1"))


def test_a_subscription_that_somebody_made_at_the_provider_is_taken_in() -> None:
    given().when(ADOPTED).then(requested("found_1"), began("found_1")).stands(
        "active", provider_subscription="sub_1", customer=CUSTOMER, price="price_1"
    )
    given(requested("found_1"), began("found_1")).when(ADOPTED).decides_nothing()


@pytest.mark.parametrize("name", sorted(set(STATES) - {"pending", "refused", "pending again"}))
def test_a_subscription_that_is_known_is_not_taken_in_again(name: str) -> None:
    given(*STATES[name]).when(ADOPTED).decides_nothing()
    other = AdoptSubscription(CUSTOMER, confirm_started("found_1", subscription="sub_2"))
    given(*STATES[name]).when(other).refused(OutcomeMismatch, expected="sub_1", confirmed="sub_2")


@pytest.mark.parametrize("name", ["pending", "refused"])
def test_a_subscription_is_not_taken_in_for_one_that_has_not_begun(name: str) -> None:
    given(*STATES[name]).when(ADOPTED).refused(OutcomeMismatch, expected="no subscription", confirmed="sub_1")


AS_IT_IS = Standing(MONTHLY, FIRST, "active")


def looked(standing: Standing, *history: SubscriptionFact) -> tuple[SubscriptionCommand, ...]:
    return movements(subscription(*history), standing, later(600), TOLD)


@pytest.mark.parametrize(
    ("history", "standing"),
    [
        (ACTIVE, AS_IT_IS),
        (ENDING, structs.replace(AS_IT_IS, ends_at=FEB_28)),
        (PAST_DUE, structs.replace(AS_IT_IS, status="past_due")),
        (CANCELLED, structs.replace(AS_IT_IS, cancelled=Cancelled(THEN, "requested"))),
    ],
)
def test_a_look_at_what_is_known_tells_nothing(history: tuple[SubscriptionFact, ...], standing: Standing) -> None:
    assert looked(standing, *history) == ()


@pytest.mark.parametrize(
    ("history", "standing", "told"),
    [
        (ACTIVE, structs.replace(AS_IT_IS, terms=PRICIER), told_changed(as_of=later(600))),
        (ACTIVE, structs.replace(AS_IT_IS, status="unpaid"), told_status("unpaid", later(600))),
        (ACTIVE, structs.replace(AS_IT_IS, ends_at=FEB_28), told_scheduled(as_of=later(600))),
        (ENDING, structs.replace(AS_IT_IS, ends_at=MAR_31), told_scheduled(ends_at=MAR_31, as_of=later(600))),
        (ENDING, AS_IT_IS, told_resumed(as_of=later(600))),
        (
            ACTIVE,
            structs.replace(AS_IT_IS, cancelled=Cancelled(FEB_28, "disputed")),
            told_ended(None, FEB_28, "disputed"),
        ),
    ],
)
def test_a_look_tells_what_is_not_known(
    history: tuple[SubscriptionFact, ...], standing: Standing, told: SubscriptionCommand
) -> None:
    assert looked(standing, *history) == (told,)
    (fact,) = decide(subscription(*history), told)
    assert looked(standing, *history, fact) == (), "looked again, it told something new"


def test_a_look_at_what_has_not_been_heard_of_yet_tells_all_of_it() -> None:
    standing = structs.replace(AS_IT_IS, ends_at=FEB_28)
    told = (told_changed(terms=MONTHLY, as_of=later(600)), told_status("active", later(600)))
    assert looked(standing, *PENDING) == (*told, told_scheduled(as_of=later(600)))


# --- What happens without us: of its terms, status and planned end the latest holds ------------------------------


@pytest.mark.parametrize("status", ["incomplete", "trialing", "active", "past_due", "unpaid"])
def test_dunning_is_mirrored(status: BillingStatus) -> None:
    news = moved(status, later(900))
    found = given(*ACTIVE).when(told_status(status, later(900))).then(news).subscription
    assert found is not None
    assert found.status == status
    given(*ACTIVE, news).when(told_status(status, later(900))).decides_nothing()


def test_dunning_may_end_it() -> None:
    over = ended(None, at(3, 21), "payment_failed")
    given(*UNPAID).when(told_ended(None, at(3, 21), "payment_failed")).then(over).stands(
        "cancelled", ends_at=at(3, 21), payment_status="failed", cancelled=Cancelled(at(3, 21), "payment_failed")
    )


def test_what_was_never_paid_for_expires() -> None:
    failing = (*INCOMPLETE, not_renewed("in_1", FIRST))
    over = ended(None, later(82_800), "never_paid")
    given(*failing).when(told_ended(None, later(82_800), "never_paid")).then(over).stands(
        "cancelled", payment_status="failed"
    )
    given(*failing, over, voided("in_1")).stands("cancelled", payment_status="failed")


@pytest.mark.parametrize(
    "stale",
    [told_changed(as_of=later(-1)), told_status("past_due", later(-1))],
    ids=lambda command: type(command).__name__,
)
def test_what_is_older_than_what_is_known_is_no_news(stale: SubscriptionCommand) -> None:
    given(*ACTIVE).when(stale).decides_nothing()


def test_an_end_that_was_planned_before_it_was_taken_back_is_no_news() -> None:
    given(*RESUMING, resumed()).when(told_scheduled(as_of=later(119))).decides_nothing()
    given(*RESUMING, resumed()).when(told_scheduled(as_of=later(121))).then(scheduled(None, as_of=later(121)))


@pytest.mark.parametrize("heavier", ["past_due", "unpaid"])
def test_of_two_statuses_in_one_second_the_one_that_owes_more_holds(heavier: BillingStatus) -> None:
    given(*ACTIVE, moved(heavier)).when(told_status("active")).decides_nothing()
    given(*ACTIVE, moved("active")).when(told_status(heavier)).then(moved(heavier)).stands(heavier)


def test_a_change_made_in_the_portal_is_learned() -> None:
    given(*ACTIVE).when(told_changed()).then(changed(None)).stands("active", terms=Dated(PRICIER, SOON))


def test_what_happens_without_us_leaves_our_wish_open() -> None:
    asked = (*ACTIVE, cancel_requested(at_period_end=True))
    seen = given(*asked).when(told_scheduled()).then(scheduled(None)).subscription
    assert seen is not None
    assert [name for name, _ in seen.in_flight()] == ["cancel_1"]
    given(*asked, scheduled(None)).when(told_scheduled("cancel_1")).then(scheduled())


def test_it_ends_once() -> None:
    given(*CANCELLED).when(told_ended(None, MAR_31, "disputed")).decides_nothing()
    given(*CANCELLED, ended(None, MAR_31, "disputed")).stands("cancelled", ends_at=THEN)


def test_the_end_is_the_end_whatever_is_heard_later() -> None:
    news = (moved("active", MAR_31), changed(None, as_of=MAR_31), resumed(None, MAR_31))
    given(*CANCELLED, *news).stands("cancelled", ends_at=THEN)


def test_what_is_heard_before_the_start_holds_if_it_is_later() -> None:
    early = (moved("past_due", FEB_28), changed(None, PRICIER, FEB_28, SECOND), renewed("in_2", SECOND))
    given(*PENDING, *early, began()).stands(
        "past_due", terms=Dated(PRICIER, FEB_28), period=SECOND, provider_subscription="sub_1", as_of=FEB_28
    )


def test_of_facts_about_the_same_thing_the_later_one_holds_wherever_it_stands() -> None:
    """The answer to our own wish is recorded after what we heard of meanwhile."""
    late = (moved("past_due", MAR_31), scheduled(None, APR_30, MAR_31), changed(None, PRICIER, MAR_31))
    early = (moved("active", FEB_28), resumed(None, FEB_28), changed(None, MONTHLY, FEB_28))
    assert subscription(*ACTIVE, *late, *early) == subscription(*ACTIVE, *early, *late)
    given(*ACTIVE, *late, *early).stands("past_due", ends_at=APR_30, terms=Dated(PRICIER, MAR_31))


def test_the_latest_moment_that_is_known_of() -> None:
    given(*PENDING).stands("pending", as_of=None)
    given(*ACTIVE).stands("active", as_of=JAN_31)
    given(*ACTIVE, moved("past_due", MAR_31), scheduled(None, as_of=APR_30), changed(None)).stands(
        "past_due", as_of=APR_30
    )


# --- Invoices: one outcome for each of them, one failure for each attempt ----------------------------------------


def test_a_period_is_renewed_once() -> None:
    given(*ACTIVE).when(told_paid()).then(renewed("in_2", SECOND)).stands(
        "active", payment_status="paid", period=SECOND
    )
    given(*ACTIVE, renewed("in_2", SECOND)).when(told_paid()).decides_nothing()


def test_an_attempt_fails_once_and_tells_when_the_next_one_is() -> None:
    first = not_renewed(next_attempt_at=at(3, 3))
    failing = given(*ACTIVE).when(told_unpaid(next_attempt_at=at(3, 3))).then(first).subscription
    assert failing is not None
    assert failing.payment_status == "failed"
    assert failing.invoices["in_2"] == Invoice(
        SECOND, usd(20_00), attempts=(1,), next_attempt_at=at(3, 3), failure=NO_FUNDS
    )
    given(*ACTIVE, first).when(told_unpaid(next_attempt_at=at(3, 3))).decides_nothing()
    given(*ACTIVE, first).when(told_unpaid(attempt=2)).then(not_renewed(attempt=2))


def test_after_the_last_attempt_none_follows() -> None:
    last = subscription(*UNPAID).invoices["in_2"]
    assert (last.attempts, last.next_attempt_at) == ((1, 2), None)


def test_of_attempts_heard_in_any_order_the_last_tells_what_comes_next() -> None:
    second, first = not_renewed(attempt=2, next_attempt_at=at(3, 9)), not_renewed(next_attempt_at=at(3, 3))
    assert subscription(*ACTIVE, second, first).invoices == subscription(*ACTIVE, first, second).invoices
    assert subscription(*ACTIVE, second, first).invoices["in_2"].next_attempt_at == at(3, 9)


def test_a_renewal_that_failed_may_succeed_later() -> None:
    given(*PAST_DUE).when(told_paid()).then(renewed("in_2", SECOND)).stands("past_due", payment_status="paid")
    recovered = subscription(*PAST_DUE, renewed("in_2", SECOND))
    assert recovered.invoices["in_2"].next_attempt_at is None
    assert paid_until(recovered) == MAR_31


def test_a_paid_invoice_stays_paid() -> None:
    late = not_renewed(next_attempt_at=at(3, 3))
    recovered = subscription(*ACTIVE, renewed("in_2", SECOND), late)
    assert recovered.invoices == subscription(*ACTIVE, late, renewed("in_2", SECOND)).invoices
    assert (recovered.payment_status, recovered.invoices["in_2"].attempts) == ("paid", (1,))


def test_what_was_paid_is_not_paid_again_for_another_amount() -> None:
    given(*ACTIVE).when(told_paid("in_1", FIRST, 19_99)).refused(
        OutcomeMismatch, operation="in_1", expected=str(usd(20_00)), confirmed=str(usd(19_99))
    )


def test_the_latest_period_is_the_one_that_counts() -> None:
    """Later invoices are paid while an earlier one is still owed, and the other way round."""
    owed = (*ACTIVE, not_renewed())
    given(*owed, renewed("in_3", THIRD)).stands("active", payment_status="paid")
    given(*owed, not_renewed("in_3", THIRD), renewed("in_2", SECOND)).stands("active", payment_status="failed")


@pytest.mark.parametrize("names", [("in_2", "in_9"), ("in_9", "in_2")])
def test_of_two_invoices_for_one_period_the_paid_one_counts(names: tuple[str, str]) -> None:
    """A charge that comes without an invoice is one of its own at each attempt."""
    unpaid, paid = names
    given(*ACTIVE, not_renewed(unpaid), renewed(paid, SECOND)).stands(
        "active", payment_status="paid", latest_invoice=(paid, Invoice(SECOND, usd(20_00), paid=True))
    )


# One that is taken back


def test_an_invoice_that_was_taken_back_is_not_owed() -> None:
    given(*PAST_DUE).when(told_voided()).then(voided()).stands("past_due", payment_status="paid", voided=("in_2",))
    given(*PAST_DUE, voided()).when(told_voided()).decides_nothing()


def test_an_invoice_may_be_taken_back_before_its_failure_is_heard_of() -> None:
    assert subscription(*ACTIVE, voided(), not_renewed()) == subscription(*ACTIVE, not_renewed(), voided())


def test_where_all_was_taken_back_nothing_was_paid() -> None:
    given(*PENDING, began(), not_renewed("in_1", FIRST), voided("in_1")).stands("active", payment_status="failed")


def test_what_was_paid_cannot_be_taken_back() -> None:
    given(*ACTIVE, voided("in_1")).stands("active", payment_status="paid")
    assert paid_until(subscription(*ACTIVE, voided("in_1"))) == FEB_28


# Without a period: the next of its cycle


def test_a_success_without_a_period_pays_for_the_next_one() -> None:
    given(*ACTIVE).when(told_paid(period=None)).then(renewed("in_2", SECOND))
    given(*ACTIVE, renewed("in_2", SECOND)).when(told_paid("in_3", None)).then(renewed("in_3", THIRD))


def test_a_failure_without_a_period_leaves_that_period_to_be_paid_for() -> None:
    given(*ACTIVE).when(told_unpaid(period=None)).then(not_renewed()).stands("active", payment_status="failed")
    given(*ACTIVE, not_renewed()).when(told_paid("in_3", None)).then(renewed("in_3", SECOND))


def test_an_invoice_keeps_the_period_that_it_was_first_heard_of_with() -> None:
    later_paid = (*ACTIVE, not_renewed(), renewed("in_3", THIRD))
    given(*later_paid).when(told_paid(period=None)).then(renewed("in_2", SECOND))


def test_the_first_success_pays_for_the_period_that_it_began_with() -> None:
    given(*PENDING, began()).when(told_paid("in_1", None)).then(renewed())


@pytest.mark.parametrize("heard", [TRIALING, TRIALING[:-1]], ids=["its invoice heard of", "not heard of"])
def test_after_a_trial_the_first_success_pays_for_what_follows_it(heard: tuple[SubscriptionFact, ...]) -> None:
    given(*heard).when(told_paid("in_1", None)).then(renewed())


@pytest.mark.parametrize("told", [told_paid(period=None), told_unpaid(period=None)])
def test_before_it_has_started_nobody_knows_its_next_period(told: SubscriptionCommand) -> None:
    given(*PENDING).when(told).refused(SubscriptionNotReady, command=type(told).__name__, status="pending")


# --- Paid until --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("history", "until"),
    [
        (PENDING, None),
        (INCOMPLETE, None),
        (TRIALING, JAN_31),
        (ACTIVE, FEB_28),
        (PAST_DUE, FEB_28),
        (CANCELLED, FEB_28),
        ((*ACTIVE, renewed("in_2", SECOND)), MAR_31),
        ((*TRIALING, not_renewed("in_1", FIRST)), JAN_31),
        ((*ACTIVE, renewed("in_3", THIRD), not_renewed()), APR_30),
        ((*ACTIVE, renewed("in_3", THIRD), renewed("in_2", SECOND)), APR_30),
    ],
)
def test_what_was_paid_for_ends_when_the_latest_paid_period_does(
    history: tuple[SubscriptionFact, ...], until: datetime | None
) -> None:
    assert paid_until(subscription(*history)) == until


def test_the_rest_of_a_changed_period_is_paid_for_to_the_same_end() -> None:
    rest = (change_requested(), changed(), renewed("in_2", Period(at(2, 10), FEB_28), 4_20))
    after = subscription(*ACTIVE, *rest)
    assert (paid_until(after), after.payment_status) == (FEB_28, "paid")
    assert next_period(after) == SECOND


def test_the_rest_of_a_changed_period_that_is_not_paid_does_not_shorten_it() -> None:
    rest = not_renewed("in_2", Period(at(2, 10), FEB_28))
    assert paid_until(subscription(*ACTIVE, rest)) == FEB_28
    given(*ACTIVE, rest).stands("active", payment_status="failed", period=Period(at(2, 10), FEB_28))


def test_who_changes_from_a_month_to_a_year_has_paid_for_a_year_from_then_on() -> None:
    year = Period(at(2, 10), at(2, 10, 2028))
    annual = structs.replace(ANNUAL, anchor=year.start)
    after = subscription(*ACTIVE, changed(None, annual, year.start, year), renewed("in_2", year, 190_00))
    assert paid_until(after) == year.end
    assert next_period(after) == Period(year.end, at(2, 10, 2029))


def test_who_changes_from_a_year_to_a_month_has_paid_for_a_month_from_then_on() -> None:
    """The rest of the year is given back, and pays for the months to come."""
    year, month = Period(JAN_31, at(1, 31, 2028)), Period(at(2, 10), at(3, 10))
    annual = (*PENDING, began(terms=ANNUAL, period=year), renewed(period=year, minor=200_00))
    monthly_then = structs.replace(MONTHLY, anchor=month.start)
    after = (*annual, changed(None, monthly_then, month.start, month), renewed("in_2", month, 0))
    assert paid_until(subscription(*annual)) == year.end
    assert paid_until(subscription(*after)) == month.end
    given(*after).when(told_paid("in_3", None)).then(renewed("in_3", Period(month.end, at(4, 10))))


# --- What went back ----------------------------------------------------------------------------------------------


def test_of_an_invoice_all_that_went_back_so_far_is_known() -> None:
    part = given(*ACTIVE).when(told_refunded(minor=5_00)).then(refunded(minor=5_00))
    part.stands("active", payment_status="paid", refunds={"in_1": Dated(usd(5_00), SOON)})
    more = given(*ACTIVE, refunded(minor=5_00)).when(told_refunded(as_of=THEN)).then(refunded(as_of=THEN))
    more.stands("active", payment_status="refunded", refunds={"in_1": Dated(usd(20_00), THEN)})


def test_a_refund_that_fails_later_is_paid_again() -> None:
    back = given(*ACTIVE, refunded()).when(told_refunded(minor=0, as_of=THEN)).then(refunded(minor=0, as_of=THEN))
    back.stands("active", payment_status="paid")
    assert paid_until(subscription(*ACTIVE, refunded(), refunded(minor=0, as_of=THEN))) == FEB_28


def test_a_refund_that_is_heard_of_twice_or_late_is_no_news() -> None:
    given(*ACTIVE, refunded()).when(told_refunded()).decides_nothing()
    given(*ACTIVE, refunded(as_of=THEN)).when(told_refunded(minor=5_00)).decides_nothing()
    given(*ACTIVE, refunded()).when(told_refunded(minor=9_00)).decides_nothing()  # of one second the most


def test_a_refund_may_be_heard_of_before_what_was_paid() -> None:
    early = (*PENDING, began(), refunded())
    given(*early).stands("active", payment_status="pending")
    assert subscription(*early, renewed()) == subscription(*ACTIVE, refunded())


def test_what_went_back_in_full_is_paid_until_what_was_paid_before() -> None:
    """Money for nothing cannot go back; and a part of the money is for no part of the time."""
    two = (*ACTIVE, renewed("in_2", SECOND))
    for back, status, until in (
        (refunded("in_2"), "refunded", FEB_28),
        (refunded("in_2", 19_99), "paid", MAR_31),
        (refunded("in_1"), "paid", MAR_31),
        (refunded("in_0"), "paid", MAR_31),
    ):
        given(*two, back).stands("active", payment_status=status)
        assert paid_until(subscription(*two, back)) == until
    assert paid_until(subscription(*ACTIVE, refunded())) is None
    assert subscription(*TRIALING, refunded("in_0", 0)).payment_status == "paid"


def test_of_two_that_were_paid_for_one_period_the_one_that_was_kept_counts() -> None:
    twice = (*ACTIVE, renewed("in_1b"))
    for name in ("in_1", "in_1b"):
        given(*twice, refunded(name)).stands("active", payment_status="paid")
        assert paid_until(subscription(*twice, refunded(name))) == FEB_28
    given(*twice, refunded("in_1"), refunded("in_1b")).stands("active", payment_status="refunded")


def test_it_is_billed_on_though_money_went_back() -> None:
    given(*ACTIVE, refunded()).when(told_paid(period=None)).then(renewed("in_2", SECOND)).stands(
        "active", payment_status="paid"
    )
    given(*PAST_DUE, refunded()).stands("past_due", payment_status="failed")


def test_a_look_tells_of_refunds_what_is_not_known_and_dates_it_later_than_what_is() -> None:
    known = subscription(*ACTIVE, refunded("in_1", 5_00), refunded("in_2", 0))
    same = [told_refunded("in_1", 5_00), told_refunded("in_2", 0), told_refunded("in_3", 0)]
    assert list(refunds(known, same)) == []
    (more,) = refunds(known, [*same, told_refunded("in_1", 3_00)])
    assert (more.amount, more.as_of) == (usd(3_00), SOON + timedelta(microseconds=1))
    (later_on,) = refunds(known, [told_refunded("in_1", 3_00, THEN)])
    assert later_on.as_of == THEN


# --- What is personal, limits, and the fold ----------------------------------------------------------------------


@pytest.mark.parametrize("history", STATES.values(), ids=STATES)
def test_nothing_of_a_subscription_is_personal(history: tuple[SubscriptionFact, ...]) -> None:
    assert [split(fact) for fact in history] == [(fact, {}) for fact in history]


def busy(count: int) -> tuple[SubscriptionFact, ...]:
    """A subscription of `count` operations, one of them a change in flight."""
    tries: list[SubscriptionFact] = []
    for place in range(count - 2):
        tries += (change_requested(f"change_{place}"), change_refused(f"change_{place}"))
    return (*ACTIVE, *tries, change_requested("last"))


@pytest.mark.parametrize("wish", [*WISHES, subscribe("other")], ids=lambda wish: type(wish).__name__)
def test_a_subscription_takes_so_many_operations_and_no_more(wish: SubscriptionWish) -> None:
    given(*busy(MAX_OPERATIONS)).when(wish).refused(TooManyChanges, limit=MAX_OPERATIONS)


def test_a_subscription_at_its_limit_still_learns_the_outcome_and_knows_its_wishes() -> None:
    full = busy(MAX_OPERATIONS)
    given(*full).when(told_changed("last")).then(changed("last")).stands("active", terms=Dated(PRICIER, SOON))
    given(*full).when(change("last")).decides_nothing()
    given(*busy(MAX_OPERATIONS - 1), change_refused("last")).when(Cancel("more")).then(cancel_requested("more"))


def test_the_past_is_never_refused() -> None:
    """Facts that no decision would allow today still fold, or yesterday's streams would no longer load."""
    late = (
        change_requested("late"),
        changed("late"),
        cancel_requested("never", at_period_end=True),
        scheduled("never"),
        requested("later"),
        began("later"),
        not_begun("later"),
        ended(None, MAR_31),
        moved("active", APR_30),
    )
    for history in STATES.values():
        given(*history, *late).stands("cancelled", provider_subscription="sub_1", request="later")


def test_a_history_that_does_not_begin_is_corrupt() -> None:
    with pytest.raises(AssertionError, match="begins with SubscriptionRequested"):
        fold([began()])
