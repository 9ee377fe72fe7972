"""How a customer stands: paid or not, until when, and what is in the way; and the questions that lead there."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from threading import Event, Thread
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from hypothesis import given as for_all
from hypothesis import strategies
from psycopg import AsyncConnection

from application.event_store import Ledger
from domain.customer_facts import CustomerFact, NameClaimed
from domain.payment_facts import Card
from domain.subscription_facts import SubscriptionFact
from interface.migrations import migrate
from projections import customers
from projections.customer_rows import At, CustomerAt, SubscriptionAt
from projections.customer_standing import (
    CardDeclined,
    CardExpires,
    CustomerStatus,
    NoCard,
    Problem,
    RenewalFailed,
    SubscriptionUnpaid,
    status,
)
from tests.billing_logs import of
from tests.billing_side import BillingSide
from tests.given import NO_FUNDS, NOON, VISA
from tests.given_customer import (
    MASTERCARD,
    REFUSED,
    card_refused,
    card_removed,
    card_started,
    card_updated,
    created,
)
from tests.given_customer import fold as fold_customer
from tests.given_customer import registered as registered_as
from tests.given_subscription import (
    ACTIVE,
    APR_30,
    CANCELLED,
    ENDING,
    FEB_28,
    FIRST,
    INCOMPLETE,
    JAN_31,
    MAR_31,
    PAST_DUE,
    PENDING,
    SECOND,
    THIRD,
    TRIALING,
    UNPAID,
    at,
    ended,
    moved,
    not_renewed,
    refunded,
    renewed,
    scheduled,
    voided,
)
from tests.given_subscription import REFUSED as NOT_BEGUN
from tests.given_subscription import fold as fold_subscription

FIRST_ID, SECOND_ID = UUID(int=1), UUID(int=2)
REGISTERED = registered_as(email=None)
WITH_CARD: tuple[CustomerFact, ...] = (REGISTERED, created(), card_started(), card_updated())
NO_CARD: tuple[CustomerFact, ...] = (REGISTERED, created())
ONE_DAY = timedelta(days=1)
RETURNED: tuple[SubscriptionFact, ...] = (*ACTIVE, refunded())


def customer(*facts: CustomerFact) -> CustomerAt:
    state = fold_customer(facts)
    assert state is not None
    return At(UUID(int=7), state, len(facts), 1, NOON, NOON)


def subscription(number: int, *facts: SubscriptionFact) -> SubscriptionAt:
    state = fold_subscription(facts)
    assert state is not None
    return At(UUID(int=number), state, len(facts), 1, NOON, NOON)


def told(
    *histories: Sequence[SubscriptionFact], who: Sequence[CustomerFact] = WITH_CARD, moment: datetime = JAN_31
) -> CustomerStatus:
    """The status of a customer with these subscriptions, whose ids are 1, 2, ..."""
    return status(customer(*who), [subscription(number, *facts) for number, facts in enumerate(histories, 1)], moment)


# --- Paid --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("histories", "expected"),
    [
        ([], "pending"),
        ([PENDING], "pending"),
        ([NOT_BEGUN], "failed"),
        ([NOT_BEGUN, ACTIVE], "paid"),
        ([ACTIVE, NOT_BEGUN], "paid"),
        ([INCOMPLETE], "pending"),
        ([(*INCOMPLETE, not_renewed("in_1", FIRST))], "failed"),
        ([ACTIVE], "paid"),
        ([ACTIVE, PENDING], "paid"),
        ([PAST_DUE], "failed"),
        ([ACTIVE, PAST_DUE], "failed"),
        ([UNPAID], "failed"),
        ([(*PAST_DUE, renewed("in_2", SECOND))], "paid"),
        ([(*PAST_DUE, ended(None, at(3, 9), "payment_failed"))], "paid"),
        ([(*PENDING, not_renewed("in_1", FIRST), ended(None, at(3, 9), "never_paid"))], "pending"),
        ([CANCELLED], "paid"),
        ([(*PAST_DUE, renewed("in_3", THIRD))], "paid"),
        ([RETURNED], "refunded"),
        ([(*ACTIVE, refunded(minor=19_99))], "paid"),
        ([(*RETURNED, ended())], "refunded"),
        ([RETURNED, NOT_BEGUN, PENDING], "refunded"),
        ([RETURNED, ACTIVE], "paid"),
        ([RETURNED, TRIALING], "paid"),
        ([RETURNED, PAST_DUE], "failed"),
        ([(*RETURNED, renewed("in_2", SECOND))], "paid"),
        ([(*CANCELLED, renewed("in_2", SECOND), refunded("in_2")), CANCELLED], "refunded"),
        ([(*RETURNED, ended()), (*CANCELLED, renewed("in_2", SECOND))], "paid"),
        ([(*RETURNED, ended()), CANCELLED], "paid"),
    ],
)
def test_failed_goes_before_paid_and_paid_before_pending(
    histories: Sequence[Sequence[SubscriptionFact]], expected: str
) -> None:
    assert told(*histories).payment_status == expected
    assert told(*reversed(histories)).payment_status == expected


@pytest.mark.parametrize(
    ("histories", "expected"),
    [
        ([], None),
        ([PENDING], None),
        ([PAST_DUE], FEB_28),
        ([ACTIVE, (*ACTIVE, renewed("in_2", SECOND))], MAR_31),
        ([(*ACTIVE, renewed("in_3", THIRD)), PENDING], APR_30),
        ([CANCELLED], FEB_28),
        ([RETURNED], None),
        ([(*RETURNED, renewed("in_2", SECOND), refunded("in_2"))], None),
        ([(*ACTIVE, renewed("in_2", SECOND), refunded("in_2")), RETURNED], FEB_28),
    ],
)
def test_what_was_paid_reaches_as_far_as_the_furthest_subscription(
    histories: Sequence[Sequence[SubscriptionFact]], expected: datetime | None
) -> None:
    assert told(*histories).payment_expire_date == expected
    assert told(*reversed(histories)).payment_expire_date == expected


def test_the_card_is_the_one_that_is_paid_with() -> None:
    assert told(who=WITH_CARD).card == VISA
    assert told(who=(*WITH_CARD, card_updated(None, card=MASTERCARD))).card == MASTERCARD
    assert told(who=NO_CARD).card is None


# --- Problems ----------------------------------------------------------------------------------------------------


def problems(*histories: Sequence[SubscriptionFact], who: Sequence[CustomerFact] = WITH_CARD) -> list[Problem]:
    return list(told(*histories, who=who).open_problems)


def test_a_customer_who_has_paid_and_can_pay_on_has_none() -> None:
    assert problems() == problems(ACTIVE) == problems(TRIALING, ENDING, CANCELLED, NOT_BEGUN, PENDING) == []


def test_a_card_that_was_declined_is_told_until_another_is_taken() -> None:
    declined = (*WITH_CARD, card_started("card_2"), card_refused("card_2"))
    assert problems(ACTIVE, who=declined) == [CardDeclined(NO_FUNDS)]
    assert problems(ACTIVE, who=(*declined, card_updated(None))) == []


def test_a_customer_that_the_provider_would_not_have_has_no_declined_card() -> None:
    assert problems(who=REFUSED) == []


@pytest.mark.parametrize("history", [ACTIVE, TRIALING, INCOMPLETE, PAST_DUE, UNPAID, (*ENDING, moved("past_due"))])
def test_that_there_is_no_card_matters_while_something_is_to_be_paid(history: Sequence[SubscriptionFact]) -> None:
    assert NoCard() in problems(CANCELLED, history, who=NO_CARD)
    assert NoCard() in problems(history, who=(*WITH_CARD, card_removed()))
    assert NoCard() not in problems(history, who=WITH_CARD)


@pytest.mark.parametrize("history", [ENDING, CANCELLED, NOT_BEGUN, PENDING])
def test_that_there_is_no_card_does_not_matter_once_nothing_is(history: Sequence[SubscriptionFact]) -> None:
    assert problems(history, who=NO_CARD) == []


def ending_in(year: int, month: int) -> tuple[CustomerFact, ...]:
    """A customer whose card is good to the end of that month."""
    return (*NO_CARD, card_updated(None, card=Card("visa", "4242", month, year)))


def test_a_card_that_has_run_out_when_a_period_ends_is_told_with_the_first_that_it_concerns() -> None:
    second = (*ACTIVE, renewed("in_2", SECOND))
    february, march = datetime(2027, 2, 1, tzinfo=UTC), datetime(2027, 3, 1, tzinfo=UTC)
    assert problems(second, ACTIVE, who=ending_in(2027, 1)) == [CardExpires(SECOND_ID, february, FEB_28)]
    assert problems(second, ACTIVE, who=ending_in(2027, 2)) == [CardExpires(FIRST_ID, march, MAR_31)]
    assert problems(second, ACTIVE, who=ending_in(2027, 3)) == []


def test_a_subscription_that_is_not_renewed_needs_no_card_that_lasts() -> None:
    assert problems(ENDING, CANCELLED, NOT_BEGUN, PENDING, who=ending_in(2027, 1)) == []
    assert problems(INCOMPLETE, who=ending_in(2027, 1)) == [SubscriptionUnpaid(FIRST_ID, "incomplete")]


def test_a_planned_end_that_is_further_away_does_not_keep_it_from_being_renewed() -> None:
    (found,) = problems((*ACTIVE, scheduled(None, MAR_31)), who=ending_in(2027, 1))
    assert isinstance(found, CardExpires)


@for_all(strategies.integers(-40, 400))
def test_a_renewal_that_nobody_has_told_us_of_is_compared_with_now(days: int) -> None:
    """The card is good to the end of March, the period that we know of ends on 28 February."""
    moment = FEB_28 + timedelta(days=days)
    found = told(ACTIVE, who=ending_in(2027, 3), moment=moment).open_problems
    end_of_march = datetime(2027, 4, 1, tzinfo=UTC)
    assert list(found) == ([CardExpires(FIRST_ID, end_of_march, moment)] if moment >= end_of_march else [])


def test_a_renewal_that_failed_tells_when_it_is_tried_again() -> None:
    assert problems(PAST_DUE) == [RenewalFailed(FIRST_ID, "in_2", 1, at(3, 3), NO_FUNDS)]
    again = (*PAST_DUE, not_renewed(attempt=3, next_attempt_at=at(3, 8)))  # nobody told us of the second
    assert problems(ACTIVE, again) == [RenewalFailed(SECOND_ID, "in_2", 3, at(3, 8), NO_FUNDS)]
    assert problems((*again, renewed("in_2", SECOND))) == []
    assert problems((*again, ended(None, at(3, 9), "payment_failed"))) == []


def test_the_invoice_that_failed_last_is_the_one_that_is_told() -> None:
    both = (*PAST_DUE, not_renewed("in_1b", THIRD))
    assert problems(both) == [RenewalFailed(FIRST_ID, "in_1b", 1, None, NO_FUNDS)]
    assert problems((*both, voided("in_1b"))) == [RenewalFailed(FIRST_ID, "in_2", 1, at(3, 3), NO_FUNDS)]


def test_what_was_never_paid_or_given_up_is_told_apart() -> None:
    assert problems(INCOMPLETE) == [SubscriptionUnpaid(FIRST_ID, "incomplete")]
    assert problems(UNPAID) == [
        RenewalFailed(FIRST_ID, "in_2", 2, None, NO_FUNDS),
        SubscriptionUnpaid(FIRST_ID, "unpaid"),
    ]


# --- Asking ------------------------------------------------------------------------------------------------------


@pytest.fixture
def side(database_url: str) -> Iterator[BillingSide]:
    migrate(database_url)
    with Ledger(database_url) as ledger, psycopg.connect(database_url, autocommit=True) as conn:
        yield BillingSide(database_url, ledger, conn)


def test_a_customer_is_told_with_its_subscriptions_the_newest_first(side: BillingSide) -> None:
    who, other = side.customer(*WITH_CARD), side.customer(*NO_CARD)
    older = side.subscription(who, *ACTIVE, at=NOON)
    newer = side.subscription(who, *PAST_DUE, at=NOON + ONE_DAY)
    side.subscription(other, *ACTIVE)
    side.follow()
    found = side.ask(lambda conn: customers.status_of(conn, who, FEB_28))
    assert found is not None
    assert [one.id for one in found.subscriptions] == [newer, older]
    assert (found.customer.id, found.customer.version, found.card) == (who, len(WITH_CARD), VISA)
    assert (found.payment_status, found.payment_expire_date) == ("failed", FEB_28)
    assert found.subscriptions[1].updated_at == NOON + timedelta(seconds=len(ACTIVE))
    unheard_of = side.customer(REGISTERED)
    assert side.ask(lambda conn: customers.status_of(conn, unheard_of, NOON)) is None


def test_a_subscription_whose_customer_has_no_row_makes_none(side: BillingSide) -> None:
    nobody = uuid4()
    side.subscription(nobody, *ACTIVE)
    side.follow()
    assert side.ask(lambda conn: customers.status_of(conn, nobody, NOON)) is None
    assert side.ask(lambda conn: customers.find(conn, nobody)) is None


def test_what_is_told_of_a_customer_and_its_subscriptions_is_of_one_moment(side: BillingSide) -> None:
    who = side.customer(*WITH_CARD)
    for _ in range(3):
        side.subscription(who, *ACTIVE)
    side.follow()
    stopping = Event()

    def move() -> None:
        with psycopg.connect(side.url) as conn:
            while not stopping.is_set():
                conn.execute("UPDATE customers SET position = position + 1")
                conn.execute("UPDATE subscriptions SET position = (SELECT position FROM customers)")
                conn.commit()

    async def look(conn: AsyncConnection[Any]) -> None:
        seen: set[int] = set()
        while len(seen) < 50:
            found = await customers.status_of(conn, who, NOON)
            assert found is not None
            assert {one.position for one in found.subscriptions} == {found.customer.position}
            seen.add(found.customer.position)

    side.conn.execute("UPDATE subscriptions SET position = (SELECT position FROM customers)")
    mover = Thread(target=move)
    mover.start()
    try:
        side.ask(look)
    finally:
        stopping.set()
        mover.join(20)


def test_a_customer_is_found_by_the_first_name_that_names_one(side: BillingSide) -> None:
    one, other = side.customer(*NO_CARD), side.customer(*NO_CARD)
    older, newer = side.log(uuid4(), NameClaimed(one)), side.log(uuid4(), NameClaimed(other))
    side.follow()

    def named(*streams: UUID) -> UUID | None:
        return side.ask(lambda conn: customers.find_named(conn, streams))

    assert named(older) == named(uuid4(), older) == named(older, newer) == one
    assert named(newer, older) == other
    assert named() is None
    assert named(uuid4()) is None


def test_customers_and_subscriptions_are_found_by_the_providers_names(side: BillingSide) -> None:
    side.customer(REGISTERED, created(provider_customer="cus_2"))
    who = side.customer(*NO_CARD)
    its = side.subscription(who, *ACTIVE)
    side.subscription(who, *PENDING)
    side.follow()
    found = side.ask(lambda conn: customers.by_provider_customer(conn, "cus_1"))
    assert found is not None
    assert found == side.ask(lambda conn: customers.find(conn, who))
    assert (found.id, found.state, found.created_at) == (who, fold_customer(NO_CARD), NOON + timedelta(seconds=1))
    billed = side.ask(lambda conn: customers.by_provider_subscription(conn, "sub_1"))
    assert billed is not None
    assert billed == side.ask(lambda conn: customers.subscription(conn, its))
    assert (billed.id, billed.state) == (its, fold_subscription(of(who, *ACTIVE)))
    assert side.ask(lambda conn: customers.by_provider_customer(conn, "cus_3")) is None
    assert side.ask(lambda conn: customers.by_provider_subscription(conn, "sub_2")) is None
    assert side.ask(lambda conn: customers.subscription(conn, who)) is None


def test_lists_go_on_where_the_page_before_ended(side: BillingSide, monkeypatch: pytest.MonkeyPatch) -> None:
    everybody = [side.customer(*NO_CARD, at=NOON + number * ONE_DAY) for number in range(5)]
    who = everybody[0]
    its = [side.subscription(who, *PENDING, at=NOON + (number // 2) * ONE_DAY) for number in range(5)]
    side.subscription(everybody[1], *PENDING)
    side.follow()

    async def pages(conn: AsyncConnection[Any]) -> tuple[list[UUID], list[UUID]]:
        found: tuple[list[UUID], list[UUID]] = [], []
        before: tuple[datetime, UUID] | None = None
        while page := await customers.newest(conn, before, 2):
            found[0].extend(one.id for one in page)
            before = page[-1].created_at, page[-1].id
        before = None
        while its_page := await customers.subscriptions_of(conn, who, before, 2):
            found[1].extend(one.id for one in its_page)
            before = its_page[-1].created_at, its_page[-1].id
        return found

    found = side.ask(pages)
    assert found[0] == everybody[::-1]
    assert sorted(found[1]) == sorted(its)
    assert found[1][0] == its[4]
    monkeypatch.setattr(customers, "MAX_PAGE", 2)
    assert len(side.ask(lambda conn: customers.newest(conn, None, 1_000))) == 3
    assert len(side.ask(lambda conn: customers.subscriptions_of(conn, who, None, 1_000))) == 3
