"""What may be decided about an order that was announced, and about the payment that is its own."""

from uuid import uuid4

import pytest
from msgspec.structs import replace

from domain.errors import (
    AlreadyStarted,
    OrderChangesMissing,
    OrderContradicted,
    OrderNotCollectable,
    OrderNotPayable,
    OrderOfAnother,
    OrderPriceDiffers,
    OutcomeMismatch,
    TooManyOperations,
)
from domain.money import Money
from domain.order import (
    Cancel,
    Order,
    OrderCommand,
    Place,
    RecordPaid,
    decide,
    demand_collectable,
    demand_owner,
    demand_payable,
    evolve,
)
from domain.order_facts import OrderCancelled, OrderFact, OrderPaid, OrderPlaced, OrderStatus
from domain.payment_commands import Authorize, Capture, Refund, Void
from domain.payment_decisions import MAX_ENDINGS, MAX_OPERATIONS
from domain.payment_facts import PaymentFact
from tests.given import (
    AUTHORIZED,
    action_required,
    authorize,
    authorized,
    captured,
    expired,
    failed,
    given,
    refund_started,
    started,
    usd,
    void_started,
    voided,
)

PAYMENT = uuid4()
PRICE = usd(100_00)
PLACED = OrderPlaced("order-1", 0, "ann", PRICE, "created")
CANCELLED = OrderCancelled("order-1", 1)
PAID = OrderPaid("order-1", PAYMENT, PRICE, "ch_1")
OPEN: tuple[OrderStatus, ...] = ("created", "awaiting:payment")
CLOSED: tuple[OrderStatus, ...] = ("cancelled", "complete")


def order(*facts: OrderFact) -> Order | None:
    state: Order | None = None
    for fact in facts:
        state = evolve(state, fact)
    return state


def standing(status: OrderStatus) -> Order:
    return Order("order-1", 0, "ann", PRICE, status)


def test_an_order_is_announced_once() -> None:
    announced = Place("order-1", 0, "ann", PRICE, "created")
    assert decide(None, announced) == (PLACED,)
    assert decide(order(PLACED), announced) == ()
    assert decide(order(PLACED, CANCELLED), announced) == ()


def test_an_order_that_is_announced_anew_as_a_later_change_contradicts_itself() -> None:
    with pytest.raises(OrderContradicted):
        decide(order(PLACED), Place("order-1", 1, "ann", PRICE, "created"))


@pytest.mark.parametrize(("history", "expected"), [((), 0), ((PLACED,), 1)])
def test_a_cancellation_that_overtook_a_change_waits_for_it(history: tuple[OrderFact, ...], expected: int) -> None:
    with pytest.raises(OrderChangesMissing) as missing:
        decide(order(*history), Cancel("order-1", expected + 1))
    assert missing.value.expected == expected


def test_an_order_is_cancelled_once_and_also_when_it_is_paid() -> None:
    assert decide(order(PLACED), Cancel("order-1", 1)) == (CANCELLED,)
    assert decide(order(PLACED, CANCELLED), Cancel("order-1", 1)) == ()
    assert decide(order(PLACED, PAID), Cancel("order-1", 1)) == (CANCELLED,)


@pytest.mark.parametrize("status", OPEN)
def test_an_order_is_paid_by_one_payment_and_once(status: OrderStatus) -> None:
    told = RecordPaid(PAYMENT, PRICE, "ch_1")
    assert decide(standing(status), told) == (PAID,)
    assert decide(evolve(standing(status), PAID), told) == ()


@pytest.mark.parametrize("state", [None, *map(standing, CLOSED), order(PLACED, PAID), order(PLACED, PAID, CANCELLED)])
def test_what_is_over_is_not_paid_by_another_payment(state: Order | None) -> None:
    with pytest.raises(OrderNotPayable):
        decide(state, RecordPaid(uuid4(), PRICE, "ch_2"))


def test_a_paid_order_that_was_cancelled_remembers_by_what_it_was_paid() -> None:
    state = order(PLACED, PAID, CANCELLED)
    assert state is not None
    assert (state.status, state.payment) == ("cancelled", PAYMENT)
    assert decide(state, RecordPaid(PAYMENT, PRICE, "ch_1")) == ()


@pytest.mark.parametrize("taken", [usd(99_99), usd(100_01), Money(100_00, "eur")], ids=str)
def test_what_was_taken_is_the_price_or_the_order_is_not_paid(taken: Money) -> None:
    with pytest.raises(OutcomeMismatch):
        decide(order(PLACED), RecordPaid(PAYMENT, taken, "ch_1"))


@pytest.mark.parametrize("command", [Cancel("order-1", 1), RecordPaid(PAYMENT, PRICE, None)])
def test_deciding_twice_decides_nothing_new(command: OrderCommand) -> None:
    facts = decide(order(PLACED), command)
    assert decide(order(PLACED, *facts), command) == ()


# --- What may be paid --------------------------------------------------------------------------------------------


def test_an_order_is_paid_by_who_ordered_it_or_by_somebody_who_names_nobody() -> None:
    demand_owner(standing("created"), "ann")
    demand_owner(standing("created"), None)
    with pytest.raises(OrderOfAnother):
        demand_owner(standing("created"), "bob")


@pytest.mark.parametrize("status", OPEN)
def test_an_order_is_paid_whole(status: OrderStatus) -> None:
    demand_payable(standing(status), PRICE)
    for asked, field in ((usd(99_99), "amount"), (usd(100_01), "amount"), (Money(100_00, "eur"), "currency")):
        with pytest.raises(OrderPriceDiffers) as differs:
            demand_payable(standing(status), asked)
        assert (differs.value.field, differs.value.price, differs.value.currency) == (field, 100_00, "usd")


@pytest.mark.parametrize("status", CLOSED)
def test_nothing_is_paid_for_an_order_that_is_over(status: OrderStatus) -> None:
    with pytest.raises(OrderNotPayable) as refused:
        demand_payable(standing(status), PRICE)
    assert refused.value.status == status


@pytest.mark.parametrize("status", [*OPEN, "complete"])
def test_what_was_reserved_is_collected_whole(status: OrderStatus) -> None:
    demand_collectable(standing(status), None)
    demand_collectable(standing(status), 100_00)
    with pytest.raises(OrderPriceDiffers):
        demand_collectable(standing(status), 60_00)


def test_nothing_is_collected_for_a_cancelled_order() -> None:
    with pytest.raises(OrderNotCollectable):
        demand_collectable(standing("cancelled"), None)


# --- Its payment -------------------------------------------------------------------------------------------------

AGAIN = replace(authorize("auth_2"), order="order-1")
FIRST: tuple[PaymentFact, ...] = (replace(started(), order="order-1"),)
VOIDED = (*FIRST, authorized(), *voided())
GONE: dict[str, tuple[PaymentFact, ...]] = {
    "voided": VOIDED,
    "expired": (*FIRST, authorized(), expired()),
    "given up by the cardholder": (*FIRST, action_required(), *voided(minor=0)),
}


@pytest.mark.parametrize("history", GONE.values(), ids=GONE)
def test_an_order_whose_reserve_is_gone_may_be_paid_by_another_attempt(history: tuple[PaymentFact, ...]) -> None:
    anew = replace(started("auth_2", attempt=2), order="order-1")
    given(*history).when(AGAIN).then(anew).stands("pending", authorized=0, captured=0)


@pytest.mark.parametrize("again", [authorize("auth_2"), replace(authorize("auth_2"), order="order-2")])
def test_a_reserve_that_is_gone_is_not_made_again_for_anything_else(again: Authorize) -> None:
    given(*VOIDED).when(again).refused(AlreadyStarted, status="voided")


def test_an_order_of_whose_reserve_something_was_taken_is_not_paid_by_another_attempt() -> None:
    taken = (*FIRST, authorized(multicapture=True), *captured("cap_1", 40_00, final=False), *voided())
    given(*taken).when(AGAIN).refused(AlreadyStarted)


def test_a_payment_that_is_full_can_still_be_ended() -> None:
    full, most = tried(MAX_OPERATIONS), MAX_OPERATIONS + MAX_ENDINGS
    given(*full).when(Capture("more")).refused(TooManyOperations, limit=MAX_OPERATIONS)
    given(*full).when(Refund("more", 1_00)).refused(TooManyOperations, limit=MAX_OPERATIONS)
    given(*full).when(Void("more")).then(void_started("more"))
    given(*tried(most - 2), *captured()).when(Refund("more")).then(refund_started("more"))
    given(*tried(most)).when(Void("more")).refused(TooManyOperations, limit=most)


def tried(count: int) -> tuple[PaymentFact, ...]:
    """A reserve of `count` operations, most of them releases that failed."""
    tries = (fact for place in range(count - 1) for fact in (void_started(f"v_{place}"), failed(f"v_{place}", "void")))
    return (*AUTHORIZED, *tries)
