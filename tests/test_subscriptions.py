"""The use cases of a subscription, on a real log and with the stand-in behind the SDK, which loses what it is told."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import Any
from uuid import UUID

import pytest
from msgspec.structs import replace

from application.billing import SubscriptionSeen
from application.billing_desk import Billing
from application.customers import CustomerNotFound
from application.payments import KeyReused, ProviderUnavailable
from application.settlement import KEY_LIFETIME, OVER_AFTER
from application.streams import Done
from application.stripe_billing import StripeBilling
from application.stripe_client import StripeApi
from application.subscription_outcomes import learned
from application.subscriptions import SubscriptionNotFound, Wanted
from domain.errors import (
    AlreadySubscribed,
    CustomerNotReady,
    InvalidTerms,
    PriceNeeded,
    PriceOfAnotherProduct,
    SubscriptionBusy,
    SubscriptionNotReady,
    SubscriptionOver,
    UnknownProduct,
)
from domain.subscription import Subscription
from domain.subscription_facts import BillingStatus
from domain.subscription_paid import paid_until
from interface.sandbox.postgres import Postgres
from tests.billing_desk_side import (
    CALLER,
    EVERY_TRY,
    STRIPE_KEY,
    VISA,
    BillingDesk,
    Gone,
    Life,
    desk_on,
    everything,
    second_ledger,
    unique,
)
from tests.test_stripe_billing_standin import DAY_S, POOR, YEAR

AT_ONCE = 20
BEGIN = "POST /v1/subscriptions"
UPDATE = "POST /v1/subscriptions/*"
END = "DELETE /v1/subscriptions/*"
# A wish takes fewer steps than this.
MANY = 40
OPEN = "the provider has not told"
Learn = Callable[[], Coroutine[Any, Any, None]]


@pytest.fixture(scope="module")
def shared(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BillingDesk]:
    with desk_on(postgres, tmp_path_factory.mktemp("stripe")) as desk:
        yield desk


@pytest.fixture
def desk(shared: BillingDesk) -> Iterator[BillingDesk]:
    with shared.for_a_test() as desk:
        yield desk


@pytest.fixture(scope="module")
def price(shared: BillingDesk) -> Any:
    return shared.shop.price()


@pytest.fixture(scope="module")
def dearer(shared: BillingDesk) -> Any:
    """Another product's."""
    return shared.shop.price(20_00)


@pytest.fixture
def customer(desk: BillingDesk) -> UUID:
    return desk.customer()


@pytest.fixture
def begun(desk: BillingDesk, customer: UUID, price: Any) -> UUID:
    """An active subscription."""
    return desk.subscribed(customer, price).story.stream


def lasting(desk: BillingDesk, customer: UUID) -> list[Any]:
    """The provider's subscriptions of a customer that are billed."""
    return [one for one in desk.billed(customer) if one["status"] not in {"canceled", "incomplete_expired"}]


def agrees(desk: BillingDesk, subscription: UUID) -> Subscription:
    """The subscription, which is at the provider as it is here."""
    known = desk.subscription(subscription)
    at_stripe = desk.shop.sdk.subscriptions.retrieve(known.provider_subscription)
    [item] = at_stripe["items"].data
    assert known.terms is not None
    assert (known.terms.value.price, known.terms.value.quantity) == (item["price"]["id"], item["quantity"])
    assert (known.status == "cancelled") == (at_stripe["status"] == "canceled")
    if known.status != "cancelled":
        assert (known.ends_at is not None) == (at_stripe["cancel_at_period_end"] or at_stripe["cancel_at"] is not None)
    return known


# --- Begin -------------------------------------------------------------------------------------------------------


def test_a_subscription_begins_once_and_is_answered_again(desk: BillingDesk, customer: UUID, price: Any) -> None:
    done = desk.begin(customer, Wanted(price.product), "op-1")
    assert (done.outcome, done.replayed, done.story.known.status) == ("done", False, "active")
    again = desk.begin(customer, Wanted(price.product), "op-1")
    assert (again.outcome, again.replayed, again.story.stream) == ("done", True, done.story.stream)
    [at_stripe] = desk.billed(customer)
    assert at_stripe["id"] == done.story.known.provider_subscription


def test_what_has_begun_says_at_once_that_it_was_paid(desk: BillingDesk, customer: UUID, price: Any) -> None:
    begun = desk.begin(customer, Wanted(price.product), "op-1").story.known
    assert (begun.payment_status, paid_until(begun)) == ("paid", begun.period and begun.period.end)


def test_a_trial_costs_nothing_and_its_days_and_pieces_are_as_asked_for(
    desk: BillingDesk, customer: UUID, price: Any
) -> None:
    done = desk.begin(customer, Wanted(price.product, price.id, quantity=3, trial_days=14))
    known = done.story.known
    assert (known.status, known.quantity) == ("trialing", 3)
    assert known.terms is not None
    assert known.terms.value.trial_end is not None
    assert known.terms.value.trial_end - known.terms.value.anchor <= timedelta(days=14)
    [at_stripe] = desk.billed(customer)
    assert at_stripe["trial_end"] - at_stripe["trial_start"] == 14 * DAY_S
    for wanted in (Wanted(price.product, quantity=0, another=True), Wanted(price.product, trial_days=-1, another=True)):
        with pytest.raises(InvalidTerms):
            desk.begin(customer, wanted)


def test_a_second_subscription_to_a_product_is_refused_unless_another_is_asked_for(
    desk: BillingDesk, customer: UUID, price: Any
) -> None:
    first = desk.subscribed(customer, price)
    with pytest.raises(AlreadySubscribed):
        desk.begin(customer, Wanted(price.product))
    second = desk.begin(customer, Wanted(price.product, another=True), "op-2")
    assert second.story.stream != first.story.stream
    assert desk.begin(customer, Wanted(price.product, another=True), "op-2").replayed
    assert len(lasting(desk, customer)) == 2
    for one in (first, second):
        desk.cancel(one.story.stream)
    assert desk.begin(customer, Wanted(price.product)).outcome == "done"
    # What was begun and has ended is answered as it was, whatever has been begun since.
    assert desk.begin(customer, Wanted(price.product, another=True), "op-2").story.stream == second.story.stream
    assert len(lasting(desk, customer)) == 1


def test_a_product_that_a_subscription_was_changed_to_is_taken(
    desk: BillingDesk, customer: UUID, begun: UUID, price: Any, dearer: Any
) -> None:
    assert desk.change(begun, dearer.product).outcome == "done"
    with pytest.raises(AlreadySubscribed):
        desk.begin(customer, Wanted(dearer.product))
    # The product that it was changed from is free again, until it is changed back.
    back = desk.subscribed(customer, price)
    with pytest.raises(AlreadySubscribed):
        desk.change(begun, price.product)
    with pytest.raises(AlreadySubscribed):
        desk.beside(blind=True).change(begun, price.product)
    desk.cancel(back.story.stream)
    assert desk.change(begun, price.product).outcome == "done"
    assert len(lasting(desk, customer)) == 1


Wishes = list[Done[Subscription] | BaseException]


def many(billing: Billing, customer: UUID, wanted: Wanted, *operations: str) -> Awaitable[Wishes]:
    wishes = (billing.subscriptions.begin(customer, wanted, name, CALLER) for name in operations)
    return asyncio.gather(*wishes, return_exceptions=True)


def done_of(answers: Wishes) -> list[Done[Subscription]]:
    rest = [answer for answer in answers if not isinstance(answer, Done)]
    assert all(isinstance(answer, AlreadySubscribed) for answer in rest), rest
    return [answer for answer in answers if isinstance(answer, Done)]


@pytest.mark.parametrize("blind", [False, True])
def test_of_many_who_subscribe_at_once_one_does(desk: BillingDesk, customer: UUID, price: Any, *, blind: bool) -> None:
    operations = [unique("op") for _ in range(AT_ONCE)]
    beside = desk.beside(blind=blind)
    done = done_of(beside.run(lambda billing: many(billing, customer, Wanted(price.product), *operations)))
    assert [one.outcome for one in done] == ["done"]
    assert len(desk.billed(customer)) == 1
    charges = [one for one in desk.shop.state()["charges"] if one["customer"] == desk.at_stripe(customer)["id"]]
    assert len(charges) == 1


def test_of_two_processes_that_subscribe_one_customer_one_does(desk: BillingDesk, price: Any) -> None:
    together = Barrier(2)

    def process(ledger: Any, customer: UUID) -> Wishes:
        own = BillingDesk(ledger, desk.url, desk.shop, blind=True)
        together.wait()
        operations = [unique("op") for _ in range(3)]
        return own.run(lambda billing: many(billing, customer, Wanted(price.product), *operations))

    with second_ledger(desk.url) as other, ThreadPoolExecutor(2) as pool:
        for _ in range(4):
            customer = desk.customer()
            work = [pool.submit(process, ledger, customer) for ledger in (desk.ledger, other)]
            assert len(done_of([answer for done in work for answer in done.result()])) == 1
            assert len(desk.billed(customer)) == 1


def test_one_wish_that_is_asked_many_times_at_once_is_one_subscription(
    desk: BillingDesk, customer: UUID, price: Any
) -> None:
    life = Life()
    answers = desk.run(lambda billing: many(billing, customer, Wanted(price.product), *["op-1"] * AT_ONCE), life)
    done = done_of(answers)
    assert len(done) == AT_ONCE
    assert {(one.story.stream, one.outcome) for one in done} == {(done[0].story.stream, "done")}
    assert sum(not one.replayed for one in done) == 1
    assert len(life.sent) < AT_ONCE // 2
    assert len(desk.billed(customer)) == 1


def test_several_others_at_once_are_several(desk: BillingDesk, customer: UUID, price: Any) -> None:
    wanted, operations = Wanted(price.product, another=True), [unique("op") for _ in range(4)]
    done = done_of(desk.run(lambda billing: many(billing, customer, wanted, *operations)))
    assert len({one.story.stream for one in done}) == len(desk.billed(customer)) == 4


def test_who_was_declined_may_try_again_with_another_card(desk: BillingDesk, price: Any) -> None:
    customer = desk.customer(POOR)
    refused = desk.begin(customer, Wanted(price.product), "op-1")
    assert (refused.outcome, refused.story.known.status) == ("failed", "refused")
    assert refused.story.known.failure is not None
    assert refused.story.known.failure.code == "card_declined"
    assert desk.begin(customer, Wanted(price.product), "op-1").replayed
    assert desk.card(customer, VISA).outcome == "done"
    done = desk.begin(customer, Wanted(price.product), "op-2")
    assert (done.outcome, done.story.stream) == ("done", refused.story.stream)
    assert desk.begin(customer, Wanted(price.product), "op-1").outcome == "failed"
    assert len(desk.billed(customer)) == 1


def test_only_what_is_sold_can_be_subscribed_to(desk: BillingDesk, customer: UUID, price: Any, dearer: Any) -> None:
    year = desk.shop.price(product=dearer.product, recurring=YEAR)
    before = len(everything(desk.ledger))
    for wanted, refusal in (
        (Wanted("prod_nothing"), UnknownProduct),
        (Wanted(price.product, "price_nothing"), UnknownProduct),
        (Wanted(price.product, year.id), PriceOfAnotherProduct),
        (Wanted(dearer.product), PriceNeeded),
    ):
        with pytest.raises(refusal):
            desk.begin(customer, wanted)
    assert len(everything(desk.ledger)) == before
    assert desk.begin(customer, Wanted(dearer.product, year.id)).story.known.price == year.id
    desk.shop.sdk.prices.update(year.id, {"active": False})


def test_only_a_customer_can_subscribe(desk: BillingDesk, price: Any) -> None:
    with pytest.raises(CustomerNotFound):
        desk.begin(UUID(int=7), Wanted(price.product))
    desk.shop.fault("POST /v1/customers", "error", status=400)
    refused = desk.register(unique("user"))
    with pytest.raises(CustomerNotReady):
        desk.begin(refused.story.stream, Wanted(price.product))


# --- Change, cancel, resume --------------------------------------------------------------------------------------


def test_what_is_changed_is_billed_from_now_on(desk: BillingDesk, begun: UUID, price: Any, dearer: Any) -> None:
    for wanted, expected in (
        ({"quantity": 3}, (price.id, 3)),
        ({"product": dearer.product}, (dearer.id, 3)),
        ({"product": price.product, "price": price.id, "quantity": 1}, (price.id, 1)),
    ):
        done = desk.change(begun, **wanted)
        assert done.outcome == "done"
        terms = agrees(desk, begun).terms
        assert terms is not None
        assert (terms.value.price, terms.value.quantity) == expected
    so_already = desk.change(begun, quantity=1)
    assert (so_already.outcome, so_already.story.version) == ("done", done.story.version)


def test_an_end_is_planned_taken_back_and_comes(desk: BillingDesk, begun: UUID) -> None:
    planned = desk.cancel(begun, at_period_end=True)
    assert planned.story.known.period is not None
    assert agrees(desk, begun).ends_at == planned.story.known.period.end
    assert desk.cancel(begun, at_period_end=True).story.version == planned.story.version
    assert desk.resume(begun).outcome == "done"
    assert agrees(desk, begun).ends_at is None
    assert desk.cancel(begun).outcome == "done"
    assert agrees(desk, begun).status == "cancelled"
    assert desk.cancel(begun).outcome == desk.cancel(begun, at_period_end=True).outcome == "done"


def test_what_has_ended_is_neither_changed_nor_resumed(desk: BillingDesk, begun: UUID, dearer: Any) -> None:
    desk.cancel(begun)
    with pytest.raises(SubscriptionOver):
        desk.change(begun, dearer.product)
    with pytest.raises(SubscriptionOver):
        desk.resume(begun)


def test_an_end_that_has_come_is_not_taken_back_though_nobody_has_told_us_of_it(desk: BillingDesk, begun: UUID) -> None:
    desk.cancel(begun, at_period_end=True)
    desk.ahead = timedelta(days=32)
    with pytest.raises(SubscriptionOver):
        desk.resume(begun)


def test_what_never_began_is_neither_changed_nor_cancelled(desk: BillingDesk, dearer: Any, price: Any) -> None:
    stream = desk.begin(desk.customer(POOR), Wanted(price.product)).story.stream
    for of, refusal in ((stream, SubscriptionNotReady), (UUID(int=7), SubscriptionNotFound)):
        with pytest.raises(refusal):
            desk.change(of, dearer.product)
        with pytest.raises(refusal):
            desk.cancel(of)
        with pytest.raises(refusal):
            desk.resume(of)


def test_a_subscription_is_changed_only_to_what_is_sold(desk: BillingDesk, begun: UUID, dearer: Any) -> None:
    for product, price, refusal in (
        ("prod_nothing", None, UnknownProduct),
        (None, dearer.id, PriceOfAnotherProduct),
        (None, "price_nothing", UnknownProduct),
    ):
        with pytest.raises(refusal):
            desk.change(begun, product, price)
    with pytest.raises(InvalidTerms):
        desk.change(begun, quantity=0)


def test_a_change_that_is_declined_changes_nothing(desk: BillingDesk, customer: UUID, begun: UUID) -> None:
    year = desk.shop.price(200_00, recurring=YEAR)  # another interval is billed at once
    poor = desk.shop.sdk.payment_methods.attach(POOR, {"customer": desk.at_stripe(customer)["id"]})
    assert desk.card(customer, poor.id).outcome == "done"
    refused = desk.change(begun, year.product, key="op-1")
    assert refused.outcome == "failed"
    agrees(desk, begun)
    assert desk.change(begun, year.product, key="op-1").replayed
    assert desk.card(customer, VISA).outcome == "done"
    assert desk.change(begun, year.product, key="op-2").outcome == "done"
    agrees(desk, begun)


@pytest.mark.parametrize("kind", ["begin", "change", "cancel", "resume"])
def test_a_key_with_other_words_is_refused(
    desk: BillingDesk, customer: UUID, begun: UUID, price: Any, dearer: Any, kind: str
) -> None:
    wishes: dict[str, list[Callable[[], Any]]] = {
        "begin": [
            lambda: desk.begin(customer, Wanted(dearer.product), "op-1"),
            lambda: desk.begin(customer, Wanted(desk.shop.price().product), "op-1"),
        ],
        "change": [
            lambda: desk.change(begun, dearer.product, key="op-1"),
            lambda: desk.change(begun, price.product, key="op-1"),
        ],
        "cancel": [
            lambda: desk.cancel(begun, at_period_end=True, key="op-1"),
            lambda: desk.cancel(begun, key="op-1"),
        ],
        "resume": [lambda: desk.resume(begun, key="op-1"), lambda: desk.change(begun, quantity=2, key="op-1")],
    }
    if kind == "resume":
        desk.cancel(begun, at_period_end=True)
    same, other = wishes[kind]
    assert (same().replayed, same().replayed) == (False, True)
    with pytest.raises(KeyReused):
        other()


def test_an_answer_is_given_again_whatever_has_been_asked_since(
    desk: BillingDesk, customer: UUID, begun: UUID, price: Any, dearer: Any
) -> None:
    assert desk.change(begun, dearer.product, key="op-1").outcome == "done"
    assert desk.change(begun, price.product, key="op-2").outcome == "done"
    desk.subscribed(customer, dearer)
    desk.shop.sdk.prices.update(
        (archived := desk.shop.price(product=price.product, recurring=YEAR)).id, {"active": False}
    )
    again = desk.change(begun, dearer.product, key="op-1")
    assert (again.outcome, again.replayed) == ("done", True)
    assert archived.product == price.product
    terms = agrees(desk, begun).terms
    assert terms is not None
    assert terms.value.price == price.id


def test_one_wish_follows_another(desk: BillingDesk, begun: UUID, dearer: Any) -> None:
    desk.shop.fault(UPDATE, "reply_lost", times=EVERY_TRY)
    open_one = desk.change(begun, dearer.product)
    assert open_one.outcome == "open"
    desk.shop.control.delete("/faults")
    with pytest.raises(SubscriptionBusy):
        desk.cancel(begun)
    with pytest.raises(SubscriptionBusy):
        desk.change(begun, quantity=2)
    with pytest.raises(SubscriptionBusy):
        desk.resume(begun)
    assert desk.settle("subscription", begun, open_one.operation) is None
    agrees(desk, begun)


def test_a_new_quantity_does_not_bring_back_the_price_before(
    desk: BillingDesk, begun: UUID, dearer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which another changed between our look at the subscription and our wish."""

    async def both(billing: Billing) -> Any:
        load = billing.subscriptions.load

        async def slowly(subscription: UUID) -> Any:
            story = await load(subscription)
            monkeypatch.undo()
            await asyncio.to_thread(desk.change, begun, dearer.product)
            return story

        monkeypatch.setattr(billing.subscriptions, "load", slowly)
        return await billing.subscriptions.change(begun, None, None, 2, unique("op"), CALLER)

    assert desk.run(both).outcome == "done"
    terms = agrees(desk, begun).terms
    assert terms is not None
    assert (terms.value.price, terms.value.quantity) == (dearer.id, 2)


# --- Whatever is lost --------------------------------------------------------------------------------------------

Wish = Callable[[Billing, UUID, str], Awaitable[Done[Subscription]]]


def wishes_of(dearer: Any) -> dict[str, tuple[str, Wish]]:
    """Of each kind: the request that carries it out, and the wish."""
    return {
        "change": (
            UPDATE,
            lambda billing, of, key: billing.subscriptions.change(of, dearer.product, None, 2, key, CALLER),
        ),
        "cancel": (END, lambda billing, of, key: billing.subscriptions.cancel(of, key, CALLER, at_period_end=False)),
        "plan": (UPDATE, lambda billing, of, key: billing.subscriptions.cancel(of, key, CALLER, at_period_end=True)),
        "resume": (UPDATE, lambda billing, of, key: billing.subscriptions.resume(of, key, CALLER)),
    }


KINDS = ("change", "cancel", "plan", "resume")


def ready(desk: BillingDesk, kind: str, price: Any) -> UUID:
    """A subscription that can be treated so."""
    begun = desk.subscribed(None, price).story.stream
    if kind == "resume":
        desk.cancel(begun, at_period_end=True)
    return begun


def has_come(known: Subscription, kind: str, dearer: Any) -> bool:
    """Whether what was wished for holds."""
    match kind:
        case "change":
            return known.terms is not None and (known.terms.value.price, known.terms.value.quantity) == (dearer.id, 2)
        case "cancel":
            return known.status == "cancelled"
        case "plan":
            return known.ends_at is not None
        case _:
            return known.ends_at is None


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_done_is_known_although_every_reply_is_lost(
    desk: BillingDesk, price: Any, dearer: Any, kind: str
) -> None:
    begun, (request, wish) = ready(desk, kind, price), wishes_of(dearer)[kind]
    desk.shop.fault(request, "reply_lost", times=EVERY_TRY)
    told = [desk.run(lambda billing: wish(billing, begun, "op-1")).outcome for _ in range(2)]
    assert told[0] == "open"
    desk.shop.control.delete("/faults")
    assert desk.settle("subscription", begun, "op-1") is None
    assert has_come(agrees(desk, begun), kind, dearer)
    again = desk.run(lambda billing: wish(billing, begun, "op-1"))
    assert (again.outcome, again.replayed) == ("done", True)


def test_a_subscription_begins_once_although_every_reply_is_lost(desk: BillingDesk, customer: UUID, price: Any) -> None:
    desk.shop.fault(BEGIN, "reply_lost", times=EVERY_TRY)
    for _ in range(2):
        begun = desk.begin(customer, Wanted(price.product), "op-1")
        assert (begun.outcome, begun.story.known.status) == ("open", "pending")
    with pytest.raises(AlreadySubscribed):
        desk.begin(customer, Wanted(price.product))
    desk.shop.control.delete("/faults")
    assert desk.settle("subscription", begun.story.stream, "op-1") is None
    assert agrees(desk, begun.story.stream).status == "active"
    assert len(desk.billed(customer)) == 1


@pytest.mark.parametrize("arrived", [True, False])
@pytest.mark.parametrize("kind", ["begin", *KINDS])
def test_an_old_key_is_never_sent_again_and_a_look_tells_what_became_of_it(
    desk: BillingDesk, customer: UUID, price: Any, dearer: Any, kind: str, *, arrived: bool
) -> None:
    request, wish = wishes_of(dearer).get(kind, (BEGIN, None))
    stream = ready(desk, kind, price) if wish else UUID(int=0)
    desk.shop.fault(request, "reply_lost" if arrived else "refused", times=EVERY_TRY)
    if wish is None:
        stream = desk.begin(customer, Wanted(price.product), "op-1").story.stream
    else:
        desk.run(lambda billing: wish(billing, stream, "op-1"))
    desk.shop.control.delete("/faults")
    for age in (KEY_LIFETIME, OVER_AFTER + timedelta(minutes=1)):
        desk.ahead, life = age, Life()
        reason = desk.run(lambda billing: billing.settle("subscription", stream, "op-1"), life)
        assert life.sent == []
        known = desk.subscription(stream)
        if arrived:
            assert (reason, known.operations["op-1"].outcome) == (None, "done")
        else:
            assert (reason, known.operations["op-1"].outcome) == (
                (OPEN, "open") if age == KEY_LIFETIME else (None, "failed")
            )
    if not arrived:
        assert known.failure is not None
        assert known.failure.code == "not_carried_out"
    if wish is None:
        assert known.status == ("active" if arrived else "refused")
        assert len(desk.billed(customer)) == (1 if arrived else 0)
        assert desk.begin(customer, Wanted(price.product, another=arrived), "op-2").outcome == "done"
    else:
        assert has_come(agrees(desk, stream), kind, dearer) == arrived


@pytest.mark.parametrize("kind", ["begin", *KINDS])
def test_a_wish_outlives_its_process_wherever_that_ends(
    desk: BillingDesk, customer: UUID, price: Any, dearer: Any, kind: str
) -> None:
    _, wish = wishes_of(dearer).get(kind, (BEGIN, None))
    begun = UUID(int=0)
    for ends_before in range(1, MANY):
        owner = customer if wish else desk.customer()
        begun = prepared(desk, owner, begun, kind, price)
        key, life = unique("op"), Life(ends_before)

        async def ask(billing: Billing, owner: UUID = owner, of: UUID = begun, key: str = key) -> Done[Subscription]:
            if wish is None:
                return await billing.subscriptions.begin(owner, Wanted(price.product), key, CALLER)
            return await wish(billing, of, key)

        try:
            desk.run(ask, life)
        except Gone:
            for stream in {one.stream for one in everything(desk.ledger, desk.after) if one.operation == key}:
                assert desk.settle("subscription", stream, key) is None
        else:
            break
        done = desk.run(ask)
        assert done.outcome == "done"
        known = agrees(desk, done.story.stream)
        assert known.status == "active" if wish is None else has_come(known, kind, dearer)
        assert len(lasting(desk, owner)) == (0 if kind == "cancel" else 1)
    assert 4 < ends_before < MANY - 1


def prepared(desk: BillingDesk, customer: UUID, begun: UUID, kind: str, price: Any) -> UUID:
    """The customer's one subscription, as it was before the wish; for a beginning, none."""
    if kind == "begin":
        return begun
    if kind == "cancel" or begun == UUID(int=0):
        begun = desk.subscribed(customer, price).story.stream
    if kind == "change":
        assert desk.change(begun, price.product, quantity=1).outcome == "done"
    if kind == "plan":
        assert desk.resume(begun).outcome == "done"
    if kind == "resume":
        assert desk.cancel(begun, at_period_end=True).outcome == "done"
    return begun


def test_nothing_is_begun_while_the_provider_does_not_answer(desk: BillingDesk, begun: UUID) -> None:
    before = len(everything(desk.ledger))

    async def in_turn(billing: Billing) -> None:
        use = billing.subscriptions
        for wish in (
            use.cancel(begun, "op-1", CALLER, at_period_end=False),
            use.change(begun, None, None, 2, "op-2", CALLER),
        ):
            with pytest.raises(ProviderUnavailable):
                await wish

    desk.run(in_turn, broken=True)
    assert len(everything(desk.ledger)) == before
    assert agrees(desk, begun).status == "active"


# --- Looks -------------------------------------------------------------------------------------------------------


def looked(desk: BillingDesk, name: str | None) -> SubscriptionSeen:
    """How it stands at the provider."""

    async def look() -> Any:
        api = StripeApi(STRIPE_KEY, desk.shop.url)
        try:
            return await StripeBilling(api).subscription(None, name, None)
        finally:
            await api.close()

    seen = asyncio.run(look())
    assert isinstance(seen, SubscriptionSeen)
    return seen


def answers(known: Subscription, operation: str, seen: SubscriptionSeen) -> bool:
    """Whether a look tells what became of an operation."""
    return any(getattr(one, "operation", None) == operation for one in learned(known, known.customer, seen))


def test_a_look_at_before_is_no_outcome_of_what_was_asked_since(
    desk: BillingDesk, begun: UUID, dearer: Any, price: Any
) -> None:
    """It stood so once, which does not mean that our latest wish was granted."""
    desk.change(begun, dearer.product)
    early = looked(desk, desk.subscription(begun).provider_subscription)
    desk.change(begun, price.product)
    desk.shop.fault(UPDATE, "refused", times=EVERY_TRY)
    assert desk.change(begun, dearer.product, key="op-3").outcome == "open"
    assert not answers(desk.subscription(begun), "op-3", early)
    desk.shop.control.delete("/faults")
    assert desk.settle("subscription", begun, "op-3") is None
    agrees(desk, begun)


def test_what_somebody_resumed_elsewhere_answers_our_wish_to_resume(desk: BillingDesk, begun: UUID) -> None:
    desk.cancel(begun, at_period_end=True)
    name = desk.subscription(begun).provider_subscription
    desk.shop.fault(UPDATE, "refused", times=EVERY_TRY)
    assert desk.resume(begun, key="op-2").outcome == "open"
    desk.shop.control.delete("/faults")
    desk.shop.sdk.subscriptions.update(name, {"cancel_at_period_end": False})
    seen = looked(desk, name)
    known = desk.subscription(begun).operations["op-2"].known_at
    assert known is not None
    for as_of, answered in ((known, False), (known + timedelta(seconds=1), True)):
        assert answers(desk.subscription(begun), "op-2", replace(seen, as_of=as_of)) == answered


# --- Looks of one second -----------------------------------------------------------------------------------------


class Provider(StripeBilling):
    """Tells how a subscription stood when it was asked, once it `may_answer`; `meanwhile` happens before it does."""

    def __init__(self, seen: SubscriptionSeen, api: StripeApi) -> None:
        super().__init__(api)
        self.seen, self.asked = seen, 0
        self.was_asked, self.may_answer = asyncio.Event(), asyncio.Event()
        self.meanwhile: Callable[[int], None] = lambda _: None

    def says(self, status: BillingStatus) -> None:
        self.seen = replace(self.seen, standing=replace(self.seen.standing, status=status))

    async def subscription(self, *_: object) -> SubscriptionSeen:
        self.asked += 1
        self.was_asked.set()
        seen = self.seen
        await asyncio.to_thread(self.meanwhile, self.asked)
        await self.may_answer.wait()
        return seen


def asking(desk: BillingDesk, begun: UUID, late_s: int, test: Callable[[Provider, Learn], Awaitable[None]]) -> None:
    """A process to which the provider dates all that it tells so long after what is known."""
    known = desk.subscription(begun)
    seen = looked(desk, known.provider_subscription)
    assert known.as_of is not None
    as_of = known.as_of + timedelta(seconds=late_s)

    async def main() -> None:
        api = StripeApi(STRIPE_KEY, desk.shop.url)
        provider = Provider(replace(seen, as_of=as_of), api)
        billing = Billing(desk.ledger, provider, desk.known, desk.now, asyncio.to_thread, desk.keys)
        looks = billing.subscriptions.looks
        await test(provider, lambda: looks.learn(known.customer, seen.subscription, seen.provider_customer, CALLER))
        await api.close()

    asyncio.run(main())


def test_of_two_looks_in_one_second_the_later_holds(desk: BillingDesk, begun: UUID) -> None:
    statuses: list[BillingStatus] = ["past_due", "active", "unpaid", "active"]

    async def test(provider: Provider, learn: Learn) -> None:
        provider.may_answer.set()
        for status in statuses:
            provider.says(status)
            for _ in range(2):
                await learn()

    asking(desk, begun, 0, test)
    assert desk.facts(begun).count("StatusMoved") == len(statuses)
    assert desk.subscription(begun).status == "active"


def test_a_look_waits_until_the_one_before_it_is_recorded(desk: BillingDesk, begun: UUID) -> None:
    """The later one found what was known already: nothing in the store would tell the earlier one that it is stale."""

    async def test(provider: Provider, learn: Learn) -> None:
        provider.says("past_due")
        earlier = asyncio.create_task(learn())
        await provider.was_asked.wait()
        provider.says("active")
        later = asyncio.create_task(learn())
        provider.may_answer.set()
        await asyncio.gather(earlier, later)

    asking(desk, begun, 5, test)
    assert desk.subscription(begun).status == "active"


def test_who_was_overtaken_by_another_process_looks_again(desk: BillingDesk, begun: UUID) -> None:
    async def test(provider: Provider, learn: Learn) -> None:
        def another_process(asked: int) -> None:
            if asked == 2:  # the first look told the stream, which was loaded since
                desk.cancel(begun, at_period_end=True)
                provider.says("unpaid")

        provider.says("past_due")
        provider.meanwhile = another_process
        provider.may_answer.set()
        await learn()
        assert provider.asked == 3

    asking(desk, begun, 0, test)
    assert desk.facts(begun).count("StatusMoved") == 1
    assert desk.subscription(begun).status == "unpaid"
