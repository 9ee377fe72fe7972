"""Paying for an order that was announced: by its owner, whole, once at most; and giving the money back."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from uuid import UUID

import pytest
from msgspec.structs import replace

from application.event_store import Ledger
from application.order_returns import FIRST_WAIT, MAX_TRIES
from application.orders import OrderNotFound, order_payment
from application.payment_stream import Context
from application.payments import KeyReused, ProviderUnavailable, operation_id, payment_id
from application.settlement import ABANDONED_AFTER
from domain.errors import (
    AlreadyStarted,
    OrderNotCollectable,
    OrderNotPayable,
    OrderOfAnother,
    OrderPriceDiffers,
)
from domain.order_facts import OrderStatus
from domain.payment import Phase
from domain.payment_commands import Authorize, Capture, Refund, Void
from interface.sandbox.postgres import Postgres
from tests.fake_gateway import Behaviour
from tests.given import eur, usd
from tests.order_side import ANN, PRICE, Process, Shop, log_of_orders

BOB = Context("bob", "request-2")
TAKEN = ["AuthorizationStarted", "Authorized", "Captured"]


@pytest.fixture(scope="module")
def orders_log(postgres: Postgres) -> Iterator[Ledger]:
    """One log for all of these tests: each has an order of its own."""
    with log_of_orders(postgres, "orders") as ledger:
        yield ledger


@pytest.fixture
def shop(orders_log: Ledger) -> Shop:
    """An order was announced."""
    shop = Shop(orders_log)
    asyncio.run(shop.announce())
    return shop


# --- Paying ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["created", "awaiting:payment"])
def test_an_order_is_paid_at_once_and_knows_it(orders_log: Ledger, status: OrderStatus) -> None:
    shop = Shop(orders_log)
    asyncio.run(shop.announce(status))
    answer = asyncio.run(shop.pay())
    assert (answer.outcome, answer.at.id, answer.at.payment.captured) == ("done", shop.payment, PRICE)
    assert (shop.facts(), shop.payment_facts()) == (["OrderPlaced", "OrderPaid"], TAKEN)
    assert (shop.state().status, shop.state().payment) == ("complete", shop.payment)
    shop.check()


def test_an_order_that_nobody_announced_is_not_found(orders_log: Ledger) -> None:
    with pytest.raises(OrderNotFound):
        asyncio.run(Shop(orders_log).pay())


def test_the_same_wish_is_answered_again_and_another_one_refused(shop: Shop) -> None:
    first = asyncio.run(shop.pay())
    again = asyncio.run(shop.pay())
    assert (again.replayed, again.at) == (True, first.at)
    with pytest.raises(OrderNotPayable):
        asyncio.run(shop.pay("k2"))
    shop.check()


def test_what_is_refused_leaves_no_trace(shop: Shop) -> None:
    story = asyncio.run(shop.desk.orders.find(shop.order))
    refused = [
        (replace(shop.wish(), customer="bob"), OrderOfAnother),
        (shop.wish(amount=usd(99_99)), OrderPriceDiffers),
        (shop.wish(amount=eur(100_00)), OrderPriceDiffers),
    ]
    for wish, refusal in refused:
        with pytest.raises(refusal):
            asyncio.run(shop.desk.orders.pay(story, wish, ANN))
    asyncio.run(shop.cancel())
    with pytest.raises(OrderNotPayable):
        asyncio.run(shop.pay())
    assert (shop.provider.asked, shop.payment_facts()) == ([], [])


def test_a_declined_card_is_followed_by_another_attempt_on_the_same_payment(shop: Shop) -> None:
    shop.provider.will(Behaviour(declines=True))
    assert asyncio.run(shop.pay()).outcome == "failed"
    assert asyncio.run(shop.pay("k2")).at.payment.attempt == 2
    assert asyncio.run(shop.pay()).outcome == "failed", "the first wish's answer stays what it was"
    shop.check()


def test_as_long_as_an_outcome_is_not_known_nothing_else_is_tried(shop: Shop) -> None:
    shop.provider.will(Behaviour(answers=False))
    assert asyncio.run(shop.pay()).outcome == "open"
    with pytest.raises(AlreadyStarted):
        asyncio.run(shop.pay("k2"))
    asyncio.run(shop.finish())
    assert shop.facts() == ["OrderPlaced", "OrderPaid"]
    shop.check()


def test_an_answer_that_confirms_another_amount_is_not_believed(shop: Shop) -> None:
    shop.provider.will(Behaviour(confirms=usd(99_99)))
    assert asyncio.run(shop.pay()).outcome == "open"
    assert asyncio.run(shop.desk.returns.settle(shop.payment)) is None
    assert shop.facts() == ["OrderPlaced"]
    asyncio.run(shop.finish())
    assert shop.facts() == ["OrderPlaced", "OrderPaid"], "a look at the provider has told that it was the price"
    shop.check()


def test_an_order_whose_reserve_was_released_is_paid_by_another_attempt(shop: Shop) -> None:
    asyncio.run(shop.pay(capture="manual"))
    asyncio.run(shop.desk.payments.carry_out(shop.payment, Void("v"), ANN))
    assert asyncio.run(shop.pay("k2")).at.payment.status == "captured"
    shop.check()


def test_what_is_heard_late_of_an_attempt_that_ended_changes_nothing_of_the_next(shop: Shop) -> None:
    """Whoever hears of anything looks at the attempt that there is now."""
    shop.provider.will(Behaviour(), Behaviour(), Behaviour(answers=False))
    asyncio.run(shop.pay(capture="manual"))
    asyncio.run(shop.desk.payments.carry_out(shop.payment, Void("v"), ANN))
    first = shop.provider.latest
    assert asyncio.run(shop.pay("k2")).outcome == "open"
    first.ran_out = True
    asyncio.run(shop.finish())
    assert shop.payment_facts()[-3:] == TAKEN
    shop.check()


def test_while_the_provider_is_away_nothing_is_begun(shop: Shop) -> None:
    shop.provider.away_s = 3.0
    with pytest.raises(ProviderUnavailable):
        asyncio.run(shop.pay())
    assert shop.payment_facts() == []


def test_an_attempt_that_nobody_can_authenticate_makes_room(shop: Shop) -> None:
    shop.provider.will(Behaviour(challenges=True))
    assert asyncio.run(shop.pay()).outcome == "waiting"
    with pytest.raises(AlreadyStarted):
        asyncio.run(shop.pay("k2"))
    asyncio.run(shop.desk.orders.give_up_waiting(shop.payment, shop.wish().operation, ANN))
    assert shop.payment_facts()[-1] == "ActionRequired", "it is not given up for itself"
    asyncio.run(shop.desk.orders.give_up_waiting(shop.payment, shop.wish("k2").operation, ANN))
    assert asyncio.run(shop.pay("k2")).outcome == "done"
    shop.check()


def test_a_cardholder_who_authenticates_pays_the_order(shop: Shop) -> None:
    shop.provider.will(Behaviour(challenges=True))
    asyncio.run(shop.pay())
    shop.provider.cardholder_authenticates()
    assert asyncio.run(shop.desk.orders.returned(shop.payment, ANN)).outcome == "done"
    assert shop.facts() == ["OrderPlaced", "OrderPaid"]
    shop.check()


# --- Reserved, and collected later -------------------------------------------------------------------------------


def test_an_order_is_paid_when_its_reserve_is_collected(shop: Shop) -> None:
    asyncio.run(shop.pay(capture="manual"))
    assert shop.facts() == ["OrderPlaced"]
    with pytest.raises(OrderPriceDiffers):
        asyncio.run(shop.desk.orders.capture(shop.payment, Capture("c1", 60_00), ANN))
    answer = asyncio.run(shop.desk.orders.capture(shop.payment, Capture("c2", 100_00), ANN))
    assert (answer.at.payment.status, shop.facts()) == ("captured", ["OrderPlaced", "OrderPaid"])
    shop.check()


def test_nothing_is_collected_for_an_order_that_is_off(shop: Shop) -> None:
    asyncio.run(shop.pay(capture="manual"))
    asyncio.run(shop.cancel())
    with pytest.raises(OrderNotCollectable):
        asyncio.run(shop.desk.orders.capture(shop.payment, Capture("c1"), ANN))
    asyncio.run(shop.finish())
    assert shop.payment_facts()[-2:] == ["VoidStarted", "Voided"]
    shop.check()


def test_a_capture_that_was_carried_out_is_answered_again_when_the_order_is_off(shop: Shop) -> None:
    asyncio.run(shop.pay(capture="manual"))
    first = asyncio.run(shop.desk.orders.capture(shop.payment, Capture("c1"), ANN))
    asyncio.run(shop.cancel())
    again = asyncio.run(shop.desk.orders.capture(shop.payment, Capture("c1"), ANN))
    assert (again.replayed, again.at) == (True, first.at)


def test_a_payment_that_only_names_an_order_is_collected_in_any_part(orders_log: Ledger) -> None:
    shop = Shop(orders_log)
    wish = Authorize("", PRICE, "manual", "tok_visa", order=shop.order)
    named = asyncio.run(shop.desk.orders.authorize(wish, f"k1-{shop.order}", ANN)).at.id
    asyncio.run(shop.announce())
    answer = asyncio.run(shop.desk.orders.capture(named, Capture("c1", 60_00), ANN))
    assert (answer.at.payment.captured, shop.facts()) == (usd(60_00), ["OrderPlaced"])


def test_a_payment_that_only_names_an_order_does_not_make_it_paid(orders_log: Ledger) -> None:
    shop = Shop(orders_log)
    wish = Authorize("", PRICE, "manual", "tok_visa", order=shop.order)
    named = asyncio.run(shop.desk.orders.authorize(wish, f"k1-{shop.order}", ANN)).at.id
    asyncio.run(shop.announce())
    answer = asyncio.run(shop.desk.orders.capture(named, Capture("c1"), ANN))
    assert asyncio.run(shop.desk.returns.settle(named)) is None
    assert (answer.at.payment.captured, shop.facts()) == (PRICE, ["OrderPlaced"])


# --- Keys --------------------------------------------------------------------------------------------------------


def ask(shop: Shop, key: str, order: str | None, context: Context = ANN) -> UUID:
    """The payment that this key names; no test knows another one's keys."""
    wish = Authorize("", PRICE, "automatic", "tok_visa", order=order)
    return asyncio.run(shop.desk.orders.authorize(wish, f"{key}-{shop.order}", context)).at.id


def alone(shop: Shop, key: str) -> UUID:
    """The payment of its own that a key would name."""
    return payment_id("ann", f"{key}-{shop.order}")


def test_a_key_names_the_orders_payment_and_no_other(shop: Shop) -> None:
    assert ask(shop, "k1", shop.order) == shop.payment
    assert ask(shop, "k1", shop.order) == shop.payment
    other = Shop(shop.ledger)
    asyncio.run(other.announce())
    for order in (None, "order-nobody-knows", other.order):
        with pytest.raises(KeyReused):
            ask(shop, "k1", order)
    assert len(shop.intents) == 1
    assert (other.payment_facts(), other.intents) == ([], [])
    shop.check()


def test_a_key_that_names_a_payment_names_no_orders_payment(shop: Shop) -> None:
    assert ask(shop, "k1", None) == alone(shop, "k1")
    with pytest.raises(KeyReused):
        ask(shop, "k1", shop.order)
    assert shop.payment_facts() == []


def test_keys_of_two_callers_are_two(shop: Shop) -> None:
    other = Shop(shop.ledger)
    asyncio.run(other.announce())
    assert ask(shop, "k7", shop.order) == shop.payment
    assert ask(shop, "k7", other.order, BOB) == other.payment


def test_what_was_asked_before_the_order_was_announced_is_answered_again_afterwards(orders_log: Ledger) -> None:
    shop = Shop(orders_log)
    before = ask(shop, "k3", shop.order)
    shop.alone.append(before)
    asyncio.run(shop.announce())
    assert ask(shop, "k3", shop.order) == before
    assert len(shop.intents) == 1


def test_a_refusal_claims_no_key(shop: Shop) -> None:
    asyncio.run(shop.pay(capture="manual"))
    with pytest.raises(AlreadyStarted):
        ask(shop, "k8", shop.order)
    asyncio.run(shop.desk.orders.capture(shop.payment, Capture("c"), ANN))
    with pytest.raises(OrderNotPayable):
        ask(shop, "k9", shop.order)
    assert (ask(shop, "k8", None), ask(shop, "k9", None)) == (alone(shop, "k8"), alone(shop, "k9"))


def test_a_wish_that_died_after_its_key_was_claimed_is_carried_out_when_it_is_asked_again(shop: Shop) -> None:
    shop.provider.away_s = 3.0
    with pytest.raises(ProviderUnavailable):
        ask(shop, "k1", shop.order)
    shop.provider.away_s = None
    assert ask(shop, "k1", shop.order) == shop.payment
    shop.check()


# --- Payments that named it before -------------------------------------------------------------------------------


@pytest.mark.parametrize("capture", ["automatic", "manual"])
@pytest.mark.parametrize("outcome", ["done", "open", "waiting"])
def test_an_order_that_another_payment_named_first_is_not_paid_beside_it(
    orders_log: Ledger, capture: str, outcome: str
) -> None:
    shop = Shop(orders_log)
    shop.provider.will(Behaviour(answers=outcome != "open", challenges=outcome == "waiting"))
    wish = Authorize("", PRICE, "automatic" if capture == "automatic" else "manual", "tok_visa", order=shop.order)
    named = asyncio.run(shop.desk.orders.authorize(wish, f"k-{shop.order}", ANN))
    assert named.outcome == outcome
    shop.alone.append(named.at.id)
    asyncio.run(shop.announce())
    with pytest.raises(AlreadyStarted):
        asyncio.run(shop.pay())
    assert shop.payment_facts() == []
    asyncio.run(shop.cancel())
    asyncio.run(shop.finish())
    shop.check()


def test_an_order_whose_earlier_payment_came_to_nothing_is_paid(orders_log: Ledger) -> None:
    shop = Shop(orders_log)
    shop.alone.append(ask(shop, "k1", shop.order))
    asyncio.run(shop.announce())
    asyncio.run(shop.desk.payments.carry_out(shop.alone[0], Refund("r"), ANN))
    assert asyncio.run(shop.pay()).outcome == "done"
    shop.check()


# --- Money that goes back ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("capture", ["automatic", "manual"])
def test_the_money_of_a_cancelled_order_goes_back(shop: Shop, capture: str) -> None:
    asyncio.run(shop.pay(capture="automatic" if capture == "automatic" else "manual"))
    asyncio.run(shop.cancel())
    assert asyncio.run(shop.desk.returns.settle(shop.payment)) is None
    assert shop.holds_minor == 0
    returned = shop.ledger.load(shop.payment).envelopes[-2]
    cancelled = shop.ledger.load(shop.state_stream).envelopes[-1]
    assert (returned.causation, returned.actor) == (cancelled.id, "order returns")
    shop.check()


def test_what_was_taken_in_part_is_given_back_and_the_rest_released(orders_log: Ledger) -> None:
    shop = Shop(orders_log, multicapture=True)
    asyncio.run(shop.announce())
    asyncio.run(shop.pay(capture="manual"))
    asyncio.run(shop.desk.payments.carry_out(shop.payment, Capture("c", 40_00), ANN))
    asyncio.run(shop.cancel())
    assert asyncio.run(shop.desk.returns.settle(shop.payment)) is None
    assert shop.payment_facts()[-4:] == ["VoidStarted", "Voided", "RefundStarted", "Refunded"]
    shop.check()


def test_an_attempt_that_waits_for_the_cardholder_is_given_up_with_the_order(shop: Shop) -> None:
    shop.provider.will(Behaviour(challenges=True))
    asyncio.run(shop.pay())
    asyncio.run(shop.cancel())
    assert asyncio.run(shop.desk.returns.settle(shop.payment)) is None
    assert shop.payment_facts()[-1] == "Voided"
    shop.check()


def test_a_cardholder_who_authenticates_as_the_order_is_given_up_gets_the_money_back(shop: Shop) -> None:
    shop.provider.will(Behaviour(challenges=True))
    asyncio.run(shop.pay())
    asyncio.run(shop.cancel())
    shop.provider.cardholder_authenticates()
    assert asyncio.run(shop.desk.returns.settle(shop.payment)) is None
    assert shop.payment_facts()[-2:] == ["RefundStarted", "Refunded"]
    shop.check()


def test_what_is_owed_is_given_back_once_however_often_it_is_looked_at(shop: Shop) -> None:
    asyncio.run(shop.pay())
    asyncio.run(shop.cancel())

    async def many() -> None:
        await asyncio.gather(*(Process(shop).returns.settle(shop.payment) for _ in range(8)))

    asyncio.run(many())
    asyncio.run(shop.finish())
    assert shop.payment_facts() == [*TAKEN, "RefundStarted", "Refunded"]
    shop.check()


def test_nothing_is_owed_where_nothing_was_cancelled_or_announced(shop: Shop) -> None:
    assert asyncio.run(shop.desk.returns.settle(shop.payment)) is None
    asyncio.run(shop.pay())
    assert asyncio.run(shop.desk.returns.settle(shop.payment)) is None
    named = ask(shop, "k1", "order-nobody-knows")
    assert asyncio.run(shop.desk.returns.settle(named)) is None
    assert shop.payment_facts() == TAKEN


def test_while_a_payment_is_under_way_its_outcome_is_waited_for(shop: Shop) -> None:
    shop.provider.will(Behaviour(arrives=False))
    asyncio.run(shop.pay())
    asyncio.run(shop.cancel())
    pending = asyncio.run(shop.desk.returns.settle(shop.payment))
    assert pending is not None
    assert pending.reason == "an operation is under way"
    shop.now += ABANDONED_AFTER
    asyncio.run(shop.finish())
    assert shop.payment_facts()[-1] == "Refunded", "what recovery has charged all the same is given back"
    shop.check()


def test_a_refund_that_does_not_reach_the_cardholder_is_made_again_later(shop: Shop) -> None:
    asyncio.run(shop.pay())
    asyncio.run(shop.cancel())
    asyncio.run(shop.desk.returns.settle(shop.payment))
    assert shop.provider.undo_refund()
    asyncio.run(shop.desk.settlement.learn(shop.payment, ANN))
    pending = asyncio.run(shop.desk.returns.settle(shop.payment))
    assert pending is not None
    assert pending.wait == FIRST_WAIT
    shop.now += FIRST_WAIT
    assert asyncio.run(shop.desk.returns.settle(shop.payment)) is None
    shop.check()


def test_after_so_many_refunds_that_failed_somebody_has_to_look(shop: Shop) -> None:
    asyncio.run(shop.pay())
    asyncio.run(shop.cancel())
    waits, pending = [], None
    for _ in range(MAX_TRIES):
        assert asyncio.run(shop.desk.returns.settle(shop.payment)) is None
        assert shop.provider.undo_refund(len(shop.intents[0].refunds) - 1)
        asyncio.run(shop.desk.settlement.learn(shop.payment, ANN))
        pending = asyncio.run(shop.desk.returns.settle(shop.payment))
        assert pending is not None
        waits.append(pending.wait)
        shop.now += pending.wait
    assert pending is not None
    assert waits[:3] == [FIRST_WAIT, 2 * FIRST_WAIT, 4 * FIRST_WAIT]
    assert waits == sorted(waits)
    assert "somebody has to look" in pending.reason
    assert asyncio.run(shop.desk.returns.settle(shop.payment)) == pending
    assert len(shop.intents[0].refunds) == MAX_TRIES


def test_contested_money_is_not_given_back_as_long_as_it_is_not_ours(shop: Shop) -> None:
    asyncio.run(shop.pay())
    asyncio.run(shop.cancel())
    shop.provider.dispute()
    asyncio.run(shop.desk.settlement.learn(shop.payment, ANN))
    assert asyncio.run(shop.desk.returns.settle(shop.payment)) is None
    assert shop.payment_facts()[-1] == "DisputeOpened"
    shop.provider.dispute("won")
    asyncio.run(shop.desk.settlement.learn(shop.payment, ANN))
    assert asyncio.run(shop.desk.returns.settle(shop.payment)) is None
    shop.check()


def test_while_the_provider_is_away_nothing_goes_back_and_nothing_is_left_open(shop: Shop) -> None:
    asyncio.run(shop.pay())
    asyncio.run(shop.cancel())
    shop.provider.away_s = 7.0
    pending = asyncio.run(shop.desk.returns.settle(shop.payment))
    assert pending is not None
    assert pending.wait == timedelta(seconds=7)
    assert shop.payment_facts() == TAKEN


def test_an_order_whose_payment_took_something_else_than_its_price_gets_it_back(shop: Shop) -> None:
    """By hand, at the provider: nothing of ours would take a part of it."""
    asyncio.run(shop.pay(capture="manual"))
    assert shop.provider.capture_by_hand(60_00)
    asyncio.run(shop.desk.settlement.learn(shop.payment, ANN))
    assert asyncio.run(shop.desk.returns.settle(shop.payment)) is None
    assert (shop.facts(), shop.holds_minor) == (["OrderPlaced"], 0)
    assert shop.payment_facts()[-2:] == ["RefundStarted", "Refunded"]


def test_as_long_as_more_can_be_taken_what_was_taken_is_not_judged(orders_log: Ledger) -> None:
    shop = Shop(orders_log, multicapture=True)
    asyncio.run(shop.announce())
    asyncio.run(shop.pay(capture="manual"))
    asyncio.run(shop.desk.payments.carry_out(shop.payment, Capture("c1", 40_00), ANN))
    assert asyncio.run(shop.desk.returns.settle(shop.payment)) is None
    assert (shop.payment_facts()[-1], shop.facts()) == ("Captured", ["OrderPlaced"])
    asyncio.run(shop.desk.orders.capture(shop.payment, Capture("c2"), ANN))
    assert shop.facts() == ["OrderPlaced", "OrderPaid"]


def test_money_for_an_order_that_was_announced_as_over_goes_back(orders_log: Ledger) -> None:
    shop = Shop(orders_log)
    asyncio.run(shop.announce("complete"))
    payment = Process(shop).payments
    asyncio.run(payment.carry_out(order_payment(shop.order), shop.wish(), ANN))
    assert asyncio.run(shop.desk.returns.settle(shop.payment)) is None
    assert shop.holds_minor == 0


def test_the_return_of_a_cancelled_orders_waiting_payment_leaves_it_voided(shop: Shop) -> None:
    shop.provider.will(Behaviour(challenges=True))
    asyncio.run(shop.pay())
    asyncio.run(shop.cancel())
    asyncio.run(shop.finish())
    payment = asyncio.run(shop.desk.payments.find(shop.payment)).payment
    assert payment is not None
    assert payment.phase is Phase.VOIDED
    assert operation_id(shop.payment, "ann", "k1") in payment.operations
