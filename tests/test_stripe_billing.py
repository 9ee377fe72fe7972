"""Stripe Billing behind the port, against the stand-in: every instruction, and what each answer means."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime, timedelta
from typing import Any, TypeVar
from unittest.mock import patch
from uuid import uuid4

import pytest

from application import stripe_client
from application.billing import (
    CancelSubscription,
    ChangeSubscription,
    CreateCustomer,
    CustomerInstruction,
    CustomerSeen,
    ResumeSubscription,
    SetCard,
    StartSubscription,
    SubscriptionInstruction,
)
from application.gateway import Absent, Unknown
from application.stripe_billing import StripeBilling
from application.stripe_billing_answers import moment
from application.stripe_client import StripeApi
from domain.calendar import Period
from domain.customer_commands import CustomerOutcome, RecordCard, RecordCreated
from domain.customer_commands import RecordRefused as CardRefused
from domain.money import Money
from domain.subscription_commands import (
    RecordCancelled,
    RecordChanged,
    RecordRefused,
    RecordResumed,
    RecordScheduled,
    RecordStarted,
    SubscriptionOutcome,
)
from tests.test_stripe_billing_standin import DAY_S, HOUR_S, POOR, YEAR, Shop, period

KEY = "sk_test_standin"
PATIENCE_S = 30
ADA = "ada@example.org"
RETRIES = stripe_client.MAX_NETWORK_RETRIES
T = TypeVar("T")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    shop = Shop(tmp_path_factory.mktemp("stripe"))
    yield shop
    assert shop.stop() == 0


@pytest.fixture
def shop(shared: Shop) -> Iterator[Shop]:
    """One process for all tests that stay with their own customers; its clock goes on from test to test.

    The SDK does not try again: its pauses would be most of the time.
    """
    shared.dunning(invoice="open")
    with patch.object(stripe_client, "MAX_NETWORK_RETRIES", 0):
        yield shared
    shared.control.delete("/faults")


@pytest.fixture
def persistent(shop: Shop) -> Iterator[Shop]:
    """The same, asked by an SDK that tries again."""
    with patch.object(stripe_client, "MAX_NETWORK_RETRIES", RETRIES):
        yield shop


def use(shop: Shop, ask: Callable[[StripeBilling], Awaitable[T]]) -> T:
    async def run() -> T:
        api = StripeApi(KEY, shop.url)
        try:
            return await asyncio.wait_for(ask(StripeBilling(api)), PATIENCE_S)
        finally:
            await api.close()

    return asyncio.run(run())


def of_customer(shop: Shop, *instructions: CustomerInstruction) -> list[CustomerOutcome | Unknown]:
    async def ask(billing: StripeBilling) -> list[CustomerOutcome | Unknown]:
        return [await billing.perform_customer(instruction) for instruction in instructions]

    return use(shop, ask)


def of_subscription(shop: Shop, *instructions: SubscriptionInstruction) -> list[SubscriptionOutcome | Unknown]:
    async def ask(billing: StripeBilling) -> list[SubscriptionOutcome | Unknown]:
        return [await billing.perform_subscription(instruction) for instruction in instructions]

    return use(shop, ask)


def create(user: str | None = "user-7", email: str | None = ADA) -> CreateCustomer:
    return CreateCustomer(stream=uuid4(), operation="op_made", user=user, email=email)


def card(customer: str, method: str, operation: str = "op_card") -> SetCard:
    return SetCard(stream=uuid4(), operation=operation, provider_customer=customer, payment_method=method)


def start(customer: Any, price: Any, **more: Any) -> StartSubscription:
    wanted = {"quantity": 1, "trial_days": 0, "stream": uuid4(), **more}
    return StartSubscription(operation="op_start", provider_customer=customer.id, price=price.id, **wanted)


def started(shop: Shop, *, customer: Any = None, price: Any = None, **more: Any) -> RecordStarted:
    (outcome,) = of_subscription(shop, start(customer or shop.customer(), price or shop.price(), **more))
    assert isinstance(outcome, RecordStarted)
    return outcome


def change(of: RecordStarted, price: Any, quantity: int = 1, operation: str = "op_change") -> ChangeSubscription:
    return ChangeSubscription(
        stream=uuid4(), operation=operation, subscription=of.subscription, price=price.id, quantity=quantity
    )


def cancel(of: RecordStarted, *, at_period_end: bool = False) -> CancelSubscription:
    return CancelSubscription(
        stream=uuid4(), operation="op_cancel", subscription=of.subscription, at_period_end=at_period_end
    )


def resume(of: RecordStarted) -> ResumeSubscription:
    return ResumeSubscription(stream=uuid4(), operation="op_resume", subscription=of.subscription)


def subscriptions_of(shop: Shop, customer: Any) -> list[Any]:
    return list(shop.sdk.subscriptions.list({"customer": customer.id, "status": "all"}).data)


def default_of(shop: Shop, customer: Any) -> Any:
    return shop.sdk.customers.retrieve(customer.id).invoice_settings.default_payment_method


def methods_of(shop: Shop, customer: Any) -> list[str]:
    return [method.id for method in shop.sdk.payment_methods.list({"customer": customer.id}).data]


# --- Customers ---------------------------------------------------------------------------------------------------


def test_a_customer_is_made_once_however_often_it_is_asked_for(shop: Shop) -> None:
    asked = create()
    first, again = of_customer(shop, asked, asked)
    assert isinstance(first, RecordCreated)
    assert isinstance(again, RecordCreated)
    assert first.provider_customer == again.provider_customer
    assert first.evidence.startswith("req_")
    made = [
        one for one in shop.state()["customers"] if one.get("metadata", {}).get("payledger_stream") == str(asked.stream)
    ]
    assert [(one["id"], one["email"]) for one in made] == [(first.provider_customer, ADA)]
    assert made[0]["metadata"] == {
        "payledger_stream": str(asked.stream),
        "payledger_operation": "op_made",
        "payledger_user": "user-7",
    }


def test_a_customer_needs_no_email_and_no_user(shop: Shop) -> None:
    outcomes = of_customer(shop, create(user=None), create(email=None))
    assert [type(outcome) for outcome in outcomes] == [RecordCreated, RecordCreated]


def test_a_customer_whose_answer_was_lost_is_found_by_our_mark_and_by_its_key(shop: Shop) -> None:
    asked = create()
    shop.fault("POST /v1/customers", "reply_lost", times=0)
    (lost,) = of_customer(shop, asked)
    assert isinstance(lost, Unknown)
    shop.control.delete("/faults")
    seen = use(shop, lambda billing: billing.customer(asked.stream, None))
    assert isinstance(seen, CustomerSeen)
    assert (seen.stream, seen.operation, seen.card, seen.changed_by) == (asked.stream, "op_made", None, None)
    (heard,) = of_customer(shop, asked)
    assert isinstance(heard, RecordCreated)
    assert heard.provider_customer == seen.provider_customer


def test_an_email_that_stripe_refuses_is_not_in_the_failure(shop: Shop) -> None:
    shop.fault("POST /v1/customers", "error", status=400, times=1)
    (no,) = of_customer(shop, create())
    assert isinstance(no, CardRefused)
    assert no.failure.message == "the provider would not make the customer"


def test_a_customer_that_is_gone_or_never_was_is_absent(shop: Shop) -> None:
    customer = shop.customer()
    shop.sdk.customers.delete(customer.id)

    async def ask(billing: StripeBilling) -> list[CustomerSeen | Absent | Unknown]:
        names = (customer.id, "cus_none", None)
        return [await billing.customer(uuid4(), name) for name in names]

    assert [type(seen) for seen in use(shop, ask)] == [Absent, Absent, Absent]


# --- Cards -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "brand", "last4"),
    [("pm_card_mastercard", "mastercard", "4444"), ("tok_visa", "visa", "4242"), ("tok_amex", "amex", "0005")],
)
def test_a_payment_method_or_a_token_becomes_what_is_paid_with(shop: Shop, method: str, brand: str, last4: str) -> None:
    customer = shop.customer(None)
    asked = card(customer.id, method)
    first, again = of_customer(shop, asked, asked)
    assert isinstance(first, RecordCard)
    assert isinstance(again, RecordCard)
    assert (first.operation, first.card.brand, first.card.last4) == ("op_card", brand, last4)
    assert first.fingerprint
    assert first.payment_method == again.payment_method == default_of(shop, customer)
    assert methods_of(shop, customer) == [first.payment_method], "attached once"
    seen = use(shop, lambda billing: billing.customer(uuid4(), customer.id))
    assert isinstance(seen, CustomerSeen)
    assert seen.card is not None
    assert (seen.card.payment_method, seen.card.card, seen.card.fingerprint) == (
        first.payment_method,
        first.card,
        first.fingerprint,
    )
    assert seen.changed_by == "op_card"


@pytest.mark.parametrize(
    ("method", "code", "decline_code", "retryable"),
    [
        ("pm_card_chargeDeclined", "card_declined", "generic_decline", False),
        ("pm_card_chargeDeclinedInsufficientFunds", "card_declined", "insufficient_funds", True),
        ("pm_card_chargeDeclinedExpiredCard", "expired_card", None, False),
        ("tok_chargeDeclinedExpiredCard", "expired_card", None, False),
        ("pm_nobodys", "resource_missing", None, False),
        ("../customers", "invalid_request", None, False),
    ],
)
def test_a_card_that_is_refused_leaves_the_one_before(
    shop: Shop, method: str, code: str, decline_code: str | None, *, retryable: bool
) -> None:
    customer = shop.customer()
    before = default_of(shop, customer)
    asked = card(customer.id, method)
    for outcome in of_customer(shop, asked, asked):
        assert isinstance(outcome, CardRefused)
        failure = outcome.failure
        assert (failure.code, failure.decline_code, failure.retryable) == (code, decline_code, retryable)
        assert outcome.evidence.startswith("req_")
    assert (default_of(shop, customer), methods_of(shop, customer)) == (before, [before])


def test_a_token_is_taken_once(shop: Shop) -> None:
    given = {"number": "4242424242424242", "exp_month": "8", "exp_year": "2090"}
    token = shop.sdk.tokens.create({"card": given})
    mine, other = shop.customer(None), shop.customer(None)
    asked = card(mine.id, token.id)
    taken, repeated, used = of_customer(shop, asked, asked, card(other.id, token.id))
    assert isinstance(taken, RecordCard)
    assert isinstance(repeated, RecordCard)
    assert taken.payment_method == repeated.payment_method
    assert isinstance(used, CardRefused)
    assert used.failure.code == "token_already_used"
    assert default_of(shop, other) is None


def test_a_new_card_is_that_of_the_subscriptions_too(shop: Shop) -> None:
    customer = shop.customer()
    own = shop.sdk.payment_methods.attach("pm_card_amex", {"customer": customer.id})
    with_its_own = shop.subscribe(customer, default_payment_method=own.id)
    over = shop.subscribe(customer, default_payment_method=own.id)
    follower = shop.subscribe(customer)
    shop.sdk.subscriptions.cancel(over.id)
    (outcome,) = of_customer(shop, card(customer.id, "pm_card_mastercard"))
    assert isinstance(outcome, RecordCard)
    assert [shop.subscription(one).default_payment_method for one in (with_its_own, over, follower)] == [
        outcome.payment_method,
        own.id,
        None,
    ]
    shop.go_to(period(follower)[1] + HOUR_S)
    charges = shop.sdk.charges.list({"customer": customer.id, "limit": 2}).data
    assert {charge.payment_method for charge in charges} == {outcome.payment_method}


STEPS = ["payment_methods", "payment_methods/*/attach", "subscriptions/*", "customers/*"]


@pytest.mark.parametrize("path", STEPS)
def test_a_card_is_set_to_the_end_by_asking_again_wherever_the_reply_was_lost(shop: Shop, path: str) -> None:
    customer = shop.customer()
    own = shop.sdk.payment_methods.attach("pm_card_amex", {"customer": customer.id})
    subscription = shop.subscribe(customer, default_payment_method=own.id)
    before = methods_of(shop, customer)
    asked = card(customer.id, "tok_mastercard")
    shop.fault(f"POST /v1/{path}", "reply_lost", times=0)
    (lost,) = of_customer(shop, asked)
    assert isinstance(lost, Unknown)
    seen = use(shop, lambda billing: billing.customer(uuid4(), customer.id))
    assert isinstance(seen, CustomerSeen)
    done = path == STEPS[-1]
    assert (seen.changed_by == "op_card") == done, "marked when all else was done, and not before"
    shop.control.delete("/faults")
    (outcome,) = of_customer(shop, asked)
    assert isinstance(outcome, RecordCard)
    assert set(methods_of(shop, customer)) - set(before) == {outcome.payment_method}
    assert default_of(shop, customer) == outcome.payment_method
    assert shop.subscription(subscription).default_payment_method == outcome.payment_method


@pytest.mark.parametrize("path", STEPS)
def test_an_error_that_stripe_keeps_does_not_stand_in_a_cards_way(persistent: Shop, path: str) -> None:
    customer = persistent.customer()
    own = persistent.sdk.payment_methods.attach("pm_card_amex", {"customer": customer.id})
    persistent.subscribe(customer, default_payment_method=own.id)
    persistent.fault(f"POST /v1/{path}", "error", status=500, when="after", times=1)
    (outcome,) = of_customer(persistent, card(customer.id, "tok_mastercard"))
    assert isinstance(outcome, RecordCard)
    assert default_of(persistent, customer) == outcome.payment_method


def test_a_card_that_is_the_customers_already_is_as_good_as_attached(shop: Shop) -> None:
    mine, others = shop.customer(), shop.customer()
    second = shop.sdk.payment_methods.attach("pm_card_amex", {"customer": mine.id})
    shop.fault("POST /v1/payment_methods/*/attach", "error", status=400, times=2)
    kept, foreign = of_customer(shop, card(mine.id, second.id), card(others.id, second.id))
    assert isinstance(kept, RecordCard)
    assert default_of(shop, mine) == second.id
    assert isinstance(foreign, CardRefused)


def test_a_subscription_that_ends_while_the_card_is_set_is_left_as_it_is(shop: Shop) -> None:
    customer = shop.customer()
    own = shop.sdk.payment_methods.attach("pm_card_amex", {"customer": customer.id})
    subscription = shop.subscribe(customer, default_payment_method=own.id)

    async def ask(billing: StripeBilling) -> CustomerOutcome | Unknown:
        post = billing._api.post

        async def ending(path: str, params: Any, key: str) -> Any:
            if path == f"subscriptions/{subscription.id}":
                await billing._api.delete(path)
            return await post(path, params, key)

        billing._api.post = ending  # type: ignore[method-assign]
        return await billing.perform_customer(card(customer.id, "pm_card_visa"))

    outcome = use(shop, ask)
    assert isinstance(outcome, RecordCard)
    assert default_of(shop, customer) == outcome.payment_method


# --- Subscriptions: the beginning --------------------------------------------------------------------------------


def test_a_subscription_begins_once_however_often_it_is_asked_for(shop: Shop) -> None:
    customer, price = shop.customer(), shop.price(12_34)
    asked = start(customer, price, quantity=3)
    first, again = of_subscription(shop, asked, asked)
    assert isinstance(first, RecordStarted)
    assert isinstance(again, RecordStarted)
    (made,) = subscriptions_of(shop, customer)
    assert first.subscription == again.subscription == made.id
    assert (first.terms, first.as_of, first.period) == (again.terms, again.as_of, again.period)
    assert made.metadata.to_dict() == {"payledger_stream": str(asked.stream), "payledger_operation": "op_start"}
    assert (first.status, first.as_of) == ("active", moment(made.created))
    assert first.period == Period(*map(moment, period(made)))
    terms = first.terms
    assert (terms.product, terms.price, terms.quantity, terms.amount) == (
        price.product,
        price.id,
        3,
        Money(37_02, "usd"),
    )
    assert (terms.interval, terms.interval_count, terms.trial_end) == ("month", 1, None)
    assert terms.anchor == moment(made.billing_cycle_anchor)
    assert len(shop.sdk.charges.list({"customer": customer.id}).data) == 1


def test_a_trial_is_free_until_its_end_and_needs_no_card(shop: Shop) -> None:
    begun = started(shop, customer=shop.customer(None), trial_days=14)
    end = begun.period.end
    assert begun.status == "trialing"
    assert (begun.terms.trial_end, begun.terms.anchor) == (end, end)
    assert (end - begun.period.start).days == 14


@pytest.mark.parametrize(
    ("method", "code", "retryable"),
    [
        (POOR, "card_declined", False),
        ("pm_card_authenticationRequired", "authentication_required", True),
        (None, "no_payment_method", False),
    ],
)
def test_what_is_not_paid_for_does_not_begin(shop: Shop, method: str | None, code: str, *, retryable: bool) -> None:
    customer = shop.customer(method)
    asked = start(customer, shop.price())
    for outcome in of_subscription(shop, asked, asked):
        assert isinstance(outcome, RecordRefused)
        assert (outcome.failure.code, outcome.failure.retryable) == (code, retryable)
    assert subscriptions_of(shop, customer) == []


def test_a_card_that_was_set_up_for_it_is_charged_without_its_holder(shop: Shop) -> None:
    assert started(shop, customer=shop.customer("pm_card_authenticationRequiredOnSetup")).status == "active"


def test_a_price_that_is_not_there_begins_nothing(shop: Shop) -> None:
    customer = shop.customer()
    inactive = shop.sdk.prices.update(shop.price().id, {"active": False})
    asked = StartSubscription(
        stream=uuid4(), operation="op_1", provider_customer=customer.id, price="price_none", quantity=1, trial_days=0
    )
    missing, closed = of_subscription(shop, asked, start(customer, inactive))
    assert isinstance(missing, RecordRefused)
    assert missing.failure.code == "resource_missing"
    assert isinstance(closed, RecordRefused)


@pytest.mark.parametrize(
    ("mode", "more"),
    [
        ("error", {"status": 500, "when": "after"}),
        ("error", {"status": 500}),
        ("error", {"status": 429}),
        ("error", {"status": 409}),
        ("refused", {}),
        ("reset", {}),
        ("reply_lost", {}),
        ("garbage", {}),
    ],
)
def test_whatever_is_no_clear_no_is_not_known(shop: Shop, mode: str, more: dict[str, object]) -> None:
    shop.fault("POST /v1/subscriptions", mode, times=0, **more)
    (outcome,) = of_subscription(shop, start(shop.customer(), shop.price()))
    assert isinstance(outcome, Unknown)


def test_a_beginning_whose_answer_was_lost_is_told_as_it_was_then(shop: Shop) -> None:
    customer = shop.customer()
    asked = start(customer, shop.price())
    shop.fault("POST /v1/subscriptions", "reply_lost", times=0)
    (lost,) = of_subscription(shop, asked)
    assert isinstance(lost, Unknown)
    shop.control.delete("/faults")
    shop.advance(5 * HOUR_S)
    (made,) = subscriptions_of(shop, customer)
    (heard,) = of_subscription(shop, asked)
    assert isinstance(heard, RecordStarted)
    assert (heard.subscription, heard.as_of) == (made.id, moment(made.created))


# --- Subscriptions: what becomes of them -------------------------------------------------------------------------


def told_now(shop: Shop, as_of: datetime) -> bool:
    """Whether it was told by the stand-in's clock, just now."""
    return as_of <= moment(shop.now()) <= as_of + timedelta(seconds=PATIENCE_S)


def test_a_change_is_prorated_once_and_told_by_the_clock_of_stripe(shop: Shop) -> None:
    begun = started(shop, price=shop.price(10_00))
    shop.advance(9 * DAY_S)
    dearer = shop.price(25_00)
    asked = change(begun, dearer, quantity=2)
    first, again = of_subscription(shop, asked, asked)
    for outcome in (first, again):
        assert isinstance(outcome, RecordChanged)
        assert (outcome.terms.price, outcome.terms.quantity, outcome.terms.amount) == (
            dearer.id,
            2,
            Money(50_00, "usd"),
        )
        assert outcome.period == begun.period
        assert told_now(shop, outcome.as_of)
    pending = [one for one in shop.state()["invoiceitems"] if _owner(one) == begun.subscription]
    assert sorted(one["amount"] > 0 for one in pending) == [False, True], "one credit, one debit"
    assert shop.sdk.subscriptions.retrieve(begun.subscription).metadata["payledger_changed_by"] == "op_change"


def _owner(pending: Any) -> str:
    return str(pending["parent"]["subscription_details"]["subscription"])


def test_a_change_whose_answer_was_lost_does_not_hide_a_later_one(shop: Shop) -> None:
    begun = started(shop)
    first, second = shop.price(20_00), shop.price(30_00)
    asked = change(begun, first)
    shop.fault("POST /v1/subscriptions/*", "reply_lost", times=0)
    (lost,) = of_subscription(shop, asked)
    assert isinstance(lost, Unknown)
    shop.control.delete("/faults")
    shop.advance(HOUR_S)
    (later,) = of_subscription(shop, change(begun, second, operation="op_later"))
    assert isinstance(later, RecordChanged)
    (heard,) = of_subscription(shop, asked)
    assert isinstance(heard, RecordChanged)
    assert (heard.terms.price, later.terms.price) == (first.id, second.id)
    assert heard.as_of < later.as_of


def test_a_change_that_cannot_be_paid_changes_nothing(shop: Shop) -> None:
    customer = shop.customer()
    begun = started(shop, customer=customer)
    poor = shop.sdk.payment_methods.attach(POOR, {"customer": customer.id})
    shop.sdk.customers.update(customer.id, {"invoice_settings": {"default_payment_method": poor.id}})
    (outcome,) = of_subscription(shop, change(begun, shop.price(100_00, YEAR)))
    assert isinstance(outcome, RecordRefused)
    assert outcome.failure.code == "card_declined"
    left = shop.sdk.subscriptions.retrieve(begun.subscription)
    assert (left["items"].data[0].price.id, left.status) == (begun.terms.price, "active")


def test_another_interval_begins_a_period_at_once(shop: Shop) -> None:
    begun = started(shop)
    shop.advance(DAY_S)
    (outcome,) = of_subscription(shop, change(begun, shop.price(100_00, YEAR)))
    assert isinstance(outcome, RecordChanged)
    assert outcome.terms.interval == "year"
    assert outcome.terms.anchor == outcome.period.start > begun.period.start
    assert (outcome.period.end - outcome.period.start).days in {365, 366}


def test_one_that_was_made_of_several_things_is_not_changed(shop: Shop) -> None:
    made = shop.subscribe(shop.customer(), shop.price(1_00), shop.price(2_00))
    asked = ChangeSubscription(
        stream=uuid4(), operation="op_1", subscription=made.id, price=shop.price().id, quantity=1
    )
    (outcome,) = of_subscription(shop, asked)
    assert isinstance(outcome, RecordRefused)
    assert outcome.failure.code == "several_items"


def test_an_end_at_once_is_one_end_however_often_it_is_asked_for(shop: Shop) -> None:
    begun = started(shop)
    first, again = of_subscription(shop, cancel(begun), cancel(begun))
    assert isinstance(first, RecordCancelled)
    assert isinstance(again, RecordCancelled)
    assert (first.at, first.cause) == (again.at, again.cause)
    assert first.cause == "requested"
    assert shop.sdk.subscriptions.retrieve(begun.subscription).ended_at == first.at.timestamp()


def test_an_end_whose_answer_was_lost_is_an_end(shop: Shop) -> None:
    begun = started(shop)
    shop.fault("DELETE /v1/subscriptions/*", "reply_lost", times=1)
    (outcome,) = of_subscription(shop, cancel(begun))
    assert isinstance(outcome, RecordCancelled)


def test_an_end_of_what_never_was_is_refused(shop: Shop) -> None:
    asked = CancelSubscription(stream=uuid4(), operation="op_1", subscription="sub_none", at_period_end=False)
    (outcome,) = of_subscription(shop, asked)
    assert isinstance(outcome, RecordRefused)
    assert outcome.failure.code == "resource_missing"


def test_an_end_is_planned_taken_back_and_planned_again(shop: Shop) -> None:
    begun = started(shop)
    shop.advance(HOUR_S)
    planned, repeated = of_subscription(shop, *[cancel(begun, at_period_end=True)] * 2)
    assert isinstance(planned, RecordScheduled)
    assert isinstance(repeated, RecordScheduled)
    assert (planned.ends_at, planned.as_of) == (repeated.ends_at, repeated.as_of)
    assert planned.ends_at == begun.period.end
    assert told_now(shop, planned.as_of)
    kept, still = of_subscription(shop, *[resume(begun)] * 2)
    assert isinstance(kept, RecordResumed)
    assert isinstance(still, RecordResumed)
    assert told_now(shop, kept.as_of)
    assert shop.sdk.subscriptions.retrieve(begun.subscription).cancel_at is None


def test_a_resumption_whose_answer_was_lost_does_not_hide_a_later_plan(shop: Shop) -> None:
    begun = started(shop)
    of_subscription(shop, cancel(begun, at_period_end=True))
    asked = resume(begun)
    shop.fault("POST /v1/subscriptions/*", "reply_lost", times=0)
    (lost,) = of_subscription(shop, asked)
    assert isinstance(lost, Unknown)
    shop.control.delete("/faults")
    shop.advance(HOUR_S)
    (later,) = of_subscription(shop, cancel(begun, at_period_end=True))
    assert isinstance(later, RecordScheduled)
    (heard,) = of_subscription(shop, asked)
    assert isinstance(heard, RecordResumed)
    assert heard.as_of < later.as_of


def test_an_end_that_was_planned_by_date_is_taken_back_too(shop: Shop) -> None:
    begun = started(shop)
    shop.sdk.subscriptions.update(begun.subscription, {"cancel_at": shop.now() + 3 * DAY_S})
    (outcome,) = of_subscription(shop, resume(begun))
    assert isinstance(outcome, RecordResumed)
    assert shop.sdk.subscriptions.retrieve(begun.subscription).cancel_at is None


def test_what_has_ended_ends_no_more_and_is_not_taken_back(shop: Shop) -> None:
    begun = started(shop)
    shop.sdk.subscriptions.cancel(begun.subscription)
    end, back, changed = of_subscription(
        shop, cancel(begun, at_period_end=True), resume(begun), change(begun, shop.price())
    )
    assert isinstance(end, RecordCancelled)
    assert isinstance(back, RecordRefused)
    assert isinstance(changed, RecordRefused)


@patch.object(stripe_client, "MAX_NETWORK_RETRIES", 0)
def test_nobody_listening_is_not_known() -> None:
    async def ask() -> tuple[object, ...]:
        api = StripeApi(KEY, "http://127.0.0.1:9")
        billing = StripeBilling(api)
        try:
            return (
                await billing.perform_customer(create()),
                await billing.perform_subscription(
                    ResumeSubscription(stream=uuid4(), operation="op_1", subscription="sub_1")
                ),
                await billing.customer(uuid4(), "cus_1"),
                await billing.subscription(uuid4(), "sub_1", None),
                await billing.catalog(),
            )
        finally:
            await api.close()

    assert {type(outcome) for outcome in asyncio.run(ask())} == {Unknown}


def test_a_key_that_is_refused_is_not_an_answer(shop: Shop) -> None:
    async def ask() -> object:
        api = StripeApi("not-a-key", shop.url)
        try:
            return await StripeBilling(api).perform_customer(create())
        finally:
            await api.close()

    assert asyncio.run(ask()) == Unknown("misconfigured")
