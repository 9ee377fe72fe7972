"""What a look at Stripe Billing tells, against the stand-in: years of renewals and failures, and what is sold."""

import random
from collections.abc import Iterator
from datetime import timedelta
from functools import reduce
from typing import Any
from uuid import UUID, uuid4

import pytest
from msgspec import json

from application.billing import (
    CancelSubscription,
    ChangeSubscription,
    Product,
    ResumeSubscription,
    SubscriptionInstruction,
    SubscriptionSeen,
)
from application.gateway import Absent, Unknown
from application.stripe_answers import PaymentError
from application.stripe_billing_answers import Invoice, InvoiceIntent, Subscription, moment
from application.stripe_billing_outcomes import CHALLENGED, NO_METHOD, billed, failure_of, paid_for, period, standing
from domain import subscription as state
from domain.calendar import Period, months_after
from domain.errors import Refusal
from domain.money import Money
from domain.subscription import Cancelled
from domain.subscription_commands import (
    AdoptSubscription,
    Cancel,
    Change,
    RecordCancelled,
    RecordChanged,
    RecordInvoiceVoided,
    RecordRenewal,
    RecordRenewalFailed,
    RecordResumed,
    RecordScheduled,
    RecordStarted,
    RecordStatus,
    Resume,
    Subscribe,
    SubscriptionCommand,
)
from domain.subscription_decisions import decide
from domain.subscription_outside import movements
from domain.subscription_paid import paid_until
from tests.test_stripe_billing import (
    cancel,
    change,
    of_customer,
    of_subscription,
    resume,
    start,
    started,
    told_now,
    use,
)
from tests.test_stripe_billing import card as set_card
from tests.test_stripe_billing_standin import DAY_S, HOUR_S, POOR, YEAR, Shop, failing, item, switch

HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    shop = Shop(tmp_path_factory.mktemp("stripe"))
    yield shop
    assert shop.stop() == 0


@pytest.fixture
def shop(shared: Shop) -> Iterator[Shop]:
    """One process for all tests that stay with their own customers; its clock goes on from test to test."""
    shared.dunning(invoice="open")
    yield shared
    shared.control.delete("/faults")


def look(shop: Shop, name: str) -> SubscriptionSeen:
    seen = use(shop, lambda billing: billing.subscription(uuid4(), name, None))
    assert isinstance(seen, SubscriptionSeen)
    return seen


def after(known: state.Subscription | None, *told: SubscriptionCommand) -> state.Subscription:
    """The state that is told of these, one after the other."""
    for one in told:
        known = reduce(state.evolve, decide(known, one), known)
    assert known is not None
    return known


def begun(of: RecordStarted) -> state.Subscription:
    return after(None, AdoptSubscription(UUID(int=7), of))


def told(known: state.Subscription, seen: SubscriptionSeen) -> tuple[SubscriptionCommand, ...]:
    return (*seen.invoices, *movements(known, seen.standing, seen.as_of, seen.evidence))


# --- Which one ---------------------------------------------------------------------------------------------------


def test_a_subscription_is_found_by_its_name_and_by_our_mark(shop: Shop) -> None:
    customer = shop.customer()
    asked = start(customer, shop.price())
    (outcome, _) = of_subscription(shop, asked, start(customer, shop.price()))
    assert isinstance(outcome, RecordStarted)
    by_mark = use(shop, lambda billing: billing.subscription(asked.stream, None, customer.id))
    by_name = look(shop, outcome.subscription)
    assert isinstance(by_mark, SubscriptionSeen)
    for seen in (by_mark, by_name):
        assert (seen.subscription, seen.stream, seen.operation) == (outcome.subscription, asked.stream, "op_start")
        assert (seen.provider_customer, seen.changed_by) == (customer.id, None)
        assert told_now(shop, seen.as_of)
        assert movements(begun(outcome), seen.standing, seen.as_of, seen.evidence) == ()


def test_one_that_is_over_is_found_by_our_mark_too(shop: Shop) -> None:
    customer = shop.customer()
    asked = start(customer, shop.price())
    (outcome,) = of_subscription(shop, asked)
    assert isinstance(outcome, RecordStarted)
    shop.sdk.subscriptions.cancel(outcome.subscription)
    seen = use(shop, lambda billing: billing.subscription(asked.stream, None, customer.id))
    assert isinstance(seen, SubscriptionSeen)
    assert seen.standing.cancelled is not None


def test_what_nobody_made_is_absent_and_without_any_name_nothing_is_known(shop: Shop) -> None:
    customer = shop.customer()
    foreign = shop.subscribe(customer)
    assert look(shop, foreign.id).stream is None
    assert isinstance(use(shop, lambda billing: billing.subscription(uuid4(), None, customer.id)), Absent)
    assert isinstance(use(shop, lambda billing: billing.subscription(uuid4(), "sub_none", None)), Absent)
    assert isinstance(use(shop, lambda billing: billing.subscription(uuid4(), None, None)), Unknown)


def test_without_any_name_nobody_elses_is_told_for_ours(shop: Shop) -> None:
    customer = shop.customer()
    shop.subscribe(customer)
    assert isinstance(use(shop, lambda billing: billing.subscription(None, None, customer.id)), Unknown)
    assert isinstance(use(shop, lambda billing: billing.customer(None, None)), Unknown)


def test_the_subscriptions_of_a_customer_are_all_named(shop: Shop) -> None:
    customer = shop.customer()
    over, running = shop.subscribe(customer), shop.subscribe(customer)
    shop.sdk.subscriptions.cancel(over.id)
    owned = use(shop, lambda billing: billing.subscriptions_of(customer.id))
    assert isinstance(owned, tuple)
    assert set(owned) == {over.id, running.id}
    assert use(shop, lambda billing: billing.subscriptions_of(shop.customer().id)) == ()


def test_a_look_that_fails_is_not_known(shop: Shop) -> None:
    subscription = started(shop).subscription
    shop.fault("GET /v1/invoices", "error", status=500, times=0)
    assert isinstance(use(shop, lambda billing: billing.subscription(uuid4(), subscription, None)), Unknown)


# --- What happened to it -----------------------------------------------------------------------------------------


def test_each_wish_that_was_carried_out_is_seen_with_its_mark(shop: Shop) -> None:
    outcome = started(shop)
    known = begun(outcome)
    dearer = shop.price(20_00)
    shop.advance(5)  # Stripe tells time in seconds: of two things in one nobody knows which came first
    of_subscription(shop, change(outcome, dearer, quantity=2))
    seen = look(shop, outcome.subscription)
    (changed,) = movements(known, seen.standing, seen.as_of, seen.evidence)
    assert isinstance(changed, RecordChanged)
    assert (changed.terms.price, changed.terms.amount, seen.changed_by) == (dearer.id, Money(40_00, "usd"), "op_change")
    known = after(known, changed)

    shop.advance(5)
    of_subscription(shop, cancel(outcome, at_period_end=True))
    seen = look(shop, outcome.subscription)
    (planned,) = movements(known, seen.standing, seen.as_of, seen.evidence)
    assert isinstance(planned, RecordScheduled)
    assert (planned.ends_at, seen.changed_by) == (outcome.period.end, "op_cancel")
    known = after(known, planned)

    shop.advance(5)
    of_subscription(shop, resume(outcome))
    seen = look(shop, outcome.subscription)
    (kept,) = movements(known, seen.standing, seen.as_of, seen.evidence)
    assert isinstance(kept, RecordResumed)
    assert seen.changed_by == "op_resume"
    known = after(known, kept)
    assert movements(known, seen.standing, seen.as_of, seen.evidence) == ()


def test_a_planned_end_comes_at_the_end_of_the_period(shop: Shop) -> None:
    outcome = started(shop)
    (planned,) = of_subscription(shop, cancel(outcome, at_period_end=True))
    assert isinstance(planned, RecordScheduled)
    shop.go_to(int(planned.ends_at.timestamp()) + HOUR_S)
    seen = look(shop, outcome.subscription)
    (over,) = movements(begun(outcome), seen.standing, seen.as_of, seen.evidence)
    assert over == RecordCancelled(None, planned.ends_at, "requested", seen.evidence)


def test_a_trial_is_billed_nothing_and_then_its_price(shop: Shop) -> None:
    outcome = started(shop, price=shop.price(7_00), trial_days=10)
    known = begun(outcome)
    shop.go_to(int(outcome.period.end.timestamp()) + 2 * HOUR_S)
    seen = look(shop, outcome.subscription)
    free, paid = seen.invoices
    assert isinstance(free, RecordRenewal)
    assert isinstance(paid, RecordRenewal)
    assert (free.amount, free.period) == (Money(0, "usd"), outcome.period)
    assert (paid.amount, paid.period) == (Money(7_00, "usd"), seen.standing.period)
    assert after(known, *told(known, seen)).status == "active"


# --- Years -------------------------------------------------------------------------------------------------------


def test_years_of_renewals_follow_each_other_without_a_gap(shop: Shop) -> None:
    outcome = started(shop, price=shop.price(9_99))
    known = begun(outcome)
    shop.go_to(int(months_after(outcome.period.start, 30).timestamp()) + 2 * HOUR_S)
    seen = look(shop, outcome.subscription)
    assert len(seen.invoices) == 31
    periods: list[Period] = []
    for paid in seen.invoices:
        assert isinstance(paid, RecordRenewal)
        assert paid.period is not None
        assert paid.amount == Money(9_99, "usd")
        periods.append(paid.period)
    anchor = outcome.terms.anchor
    assert periods == [Period(months_after(anchor, n), months_after(anchor, n + 1)) for n in range(31)]
    assert periods[-1] == seen.standing.period
    known = after(known, *told(known, seen))
    assert paid_until(known) == seen.standing.period.end
    assert told(known, seen)[len(seen.invoices) :] == (), "nothing is left to be told"
    assert [decide(known, one) for one in seen.invoices] == [()] * 31


def test_an_annual_price_is_renewed_by_the_year(shop: Shop) -> None:
    outcome = started(shop, price=shop.price(100_00, YEAR))
    shop.go_to(int(months_after(outcome.period.start, 36).timestamp()) + 2 * HOUR_S)
    periods = [paid.period for paid in look(shop, outcome.subscription).invoices if isinstance(paid, RecordRenewal)]
    assert periods == [
        Period(months_after(outcome.terms.anchor, 12 * n), months_after(outcome.terms.anchor, 12 * n + 12))
        for n in range(4)
    ]


def test_a_renewal_that_fails_is_told_at_each_attempt_until_it_is_given_up(shop: Shop) -> None:
    customer = shop.customer()
    outcome = started(shop, customer=customer)
    known = begun(outcome)
    poor(shop, customer)
    due = outcome.period.end + HOUR
    attempts: list[RecordRenewalFailed] = []
    for wait_days in (3, 5, 7, None):
        shop.go_to(int(due.timestamp()))
        seen = look(shop, outcome.subscription)
        first, failed = seen.invoices
        assert isinstance(first, RecordRenewal)
        assert isinstance(failed, RecordRenewalFailed)
        due += timedelta(days=wait_days or 0)
        assert failed.next_attempt_at == (due if wait_days else None)
        assert (failed.failure.code, failed.failure.decline_code) == ("card_declined", "generic_decline")
        assert failed.period == Period(outcome.period.end, months_after(outcome.terms.anchor, 2))
        assert failed.amount == outcome.terms.amount
        attempts.append(failed)
        known = after(known, *told(known, seen))
        assert known.payment_status == "failed"
        assert known.status == ("past_due" if wait_days else "cancelled")
    assert [failed.attempt for failed in attempts] == [1, 2, 3, 4]
    assert known.cancelled == Cancelled(due, "payment_failed")


def test_a_failed_renewal_is_paid_with_a_new_card_and_all_is_well(shop: Shop) -> None:
    customer = shop.customer()
    outcome = started(shop, customer=customer)
    poor(shop, customer)
    shop.go_to(int(outcome.period.end.timestamp()) + 2 * HOUR_S)
    owing = look(shop, outcome.subscription)
    known = after(begun(outcome), *told(begun(outcome), owing))
    assert known.status == "past_due"
    of_customer(shop, set_card(customer.id, "pm_card_visa"))
    shop.go_to(shop.now() + 3 * DAY_S)
    seen = look(shop, outcome.subscription)
    assert [type(one) for one in seen.invoices] == [RecordRenewal, RecordRenewal]
    assert [type(one) for one in told(known, seen)[2:]] == [RecordStatus]
    known = after(known, *told(known, seen))
    assert (known.status, known.payment_status) == ("active", "paid")
    assert paid_until(known) == seen.standing.period.end


def poor(shop: Shop, customer: Any) -> None:
    """From now on its card is declined whenever it is charged."""
    (outcome,) = of_customer(shop, set_card(customer.id, POOR, "op_poor"))
    assert not isinstance(outcome, Unknown)


def test_a_customer_whose_card_is_gone_has_nothing_to_pay_with(shop: Shop) -> None:
    customer = shop.customer()
    outcome = started(shop, customer=customer)
    shop.sdk.payment_methods.detach(shop.sdk.customers.retrieve(customer.id).invoice_settings.default_payment_method)
    shop.go_to(int(outcome.period.end.timestamp()) + 2 * HOUR_S)
    failed = look(shop, outcome.subscription).invoices[-1]
    assert isinstance(failed, RecordRenewalFailed)
    assert failed.failure == NO_METHOD


def test_a_renewal_that_wants_the_cardholder_says_so(shop: Shop) -> None:
    customer = shop.customer()
    outcome = started(shop, customer=customer)
    of_customer(shop, set_card(customer.id, "pm_card_authenticationRequired"))
    shop.go_to(int(outcome.period.end.timestamp()) + 2 * HOUR_S)
    failed = look(shop, outcome.subscription).invoices[-1]
    assert isinstance(failed, RecordRenewalFailed)
    assert failed.failure == CHALLENGED


def test_of_years_that_nobody_paid_the_latest_are_told(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("application.stripe_billing_lookups.MAX_OWED", 3)
    shop.dunning(then="past_due")
    subscription = failing(shop)
    shop.go_to(subscription.created + 250 * DAY_S)
    first, *owed = look(shop, subscription.id).invoices
    assert isinstance(first, RecordRenewal)
    assert len(owed) == 3
    wanted = [invoice.id for invoice in shop.invoices(subscription) if invoice.attempted][-3:]
    assert [one.invoice for one in owed] == wanted


def test_the_pages_of_a_list_are_one_list(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("application.stripe_billing_lists.PAGE", 2)
    outcome = started(shop)
    shop.go_to(int(months_after(outcome.period.start, 4).timestamp()) + 2 * HOUR_S)
    invoices = look(shop, outcome.subscription).invoices
    listed = shop.sdk.invoices.list({"subscription": outcome.subscription, "limit": 100}).data
    assert [one.invoice for one in invoices] == [one.id for one in listed][::-1]
    assert len(invoices) == 5


def test_one_that_never_began_is_told_with_its_invoice_taken_back(shop: Shop) -> None:
    made = shop.subscribe(shop.customer(POOR))
    waiting = look(shop, made.id)
    assert waiting.standing.status == "incomplete"
    (failed,) = waiting.invoices
    assert isinstance(failed, RecordRenewalFailed)
    shop.go_to(made.created + 24 * HOUR_S)
    seen = look(shop, made.id)
    assert seen.standing.cancelled == Cancelled(moment(made.created + 23 * HOUR_S), "never_paid")
    assert seen.invoices == (RecordInvoiceVoided(failed.invoice, seen.invoices[0].evidence),)


# --- What went back ----------------------------------------------------------------------------------------------


def went_back(shop: Shop, name: str) -> list[int]:
    """Of the subscription's invoices, the oldest first, that were paid: how much of each."""
    refunds = {one.invoice: one.amount.minor for one in look(shop, name).refunds}
    return [refunds[one.invoice] for one in look(shop, name).invoices]


def intent_of(shop: Shop, number: int, subscription: Any) -> str:
    """The PaymentIntent that paid its invoice of this number."""
    paid = shop.sdk.invoices.retrieve(shop.invoices(subscription)[number].id, {"expand": ["payments"]})
    return str(paid.payments.data[0].payment.payment_intent)


def test_of_an_invoice_is_told_how_much_of_it_went_back_in_all(shop: Shop) -> None:
    bought = shop.subscribe(shop.customer(), shop.price(10_00))
    shop.go_to(item(bought).current_period_end + 2 * HOUR_S)
    assert went_back(shop, bought.id) == [0, 0]
    second = {"payment_intent": intent_of(shop, 1, bought)}
    for amount, all_together in ((3_00, 3_00), (1, 3_01)):
        shop.sdk.refunds.create({**second, "amount": amount})
        assert went_back(shop, bought.id) == [0, all_together]
    shop.sdk.refunds.create(second)
    seen = look(shop, bought.id)
    assert [(one.amount, told_now(shop, one.as_of)) for one in seen.refunds] == [
        (Money(10_00, "usd"), True),
        (Money(0, "usd"), True),
    ]
    assert seen.standing.status == "active"


def test_a_refund_that_fails_later_went_nowhere(shop: Shop) -> None:
    bought = shop.subscribe(shop.customer("pm_card_refundFail"), shop.price(10_00))
    intent = intent_of(shop, 0, bought)
    for amount in (4_00, 6_00):
        shop.sdk.refunds.create({"payment_intent": intent, "amount": amount})
    assert went_back(shop, bought.id) == [10_00]
    shop.advance(DAY_S)
    assert went_back(shop, bought.id) == [0]


def test_what_went_back_of_an_invoice_that_was_paid_at_a_later_attempt_is_told(shop: Shop) -> None:
    customer = shop.customer()
    bought = shop.subscribe(customer, shop.price(10_00))
    poor(shop, customer)
    shop.go_to(item(bought).current_period_end + 2 * HOUR_S)
    of_customer(shop, set_card(customer.id, "pm_card_visa", "op_good"))
    shop.sdk.invoices.pay(shop.invoices(bought)[1].id)
    intent = intent_of(shop, 1, bought)
    charges = [one["status"] for one in shop.state()["charges"] if one["payment_intent"] == intent]
    assert charges == ["failed", "succeeded"]
    shop.sdk.refunds.create({"payment_intent": intent, "amount": 4_00})
    assert went_back(shop, bought.id) == [0, 4_00]


def test_of_many_refunds_and_charges_all_are_told(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A charge brings its ten latest refunds along."""
    monkeypatch.setattr("application.stripe_billing_lists.PAGE", 2)
    bought = shop.subscribe(shop.customer(), shop.price(10_00))
    shop.go_to(int(months_after(moment(bought.created), 4).timestamp()) + 2 * HOUR_S)
    for _ in range(11):
        shop.sdk.refunds.create({"payment_intent": intent_of(shop, 0, bought), "amount": 1})
    assert went_back(shop, bought.id) == [11, 0, 0, 0, 0]
    monkeypatch.setattr("application.stripe_billing_refunds.MAX_PAGES", 1)
    known = [one.invoice for one in look(shop, bought.id).refunds]
    assert known == [one.id for one in shop.invoices(bought)][:-3:-1], "of what is not looked at nothing is told"


def test_what_was_to_be_paid_by_nobody_cannot_go_back(shop: Shop) -> None:
    trial = shop.subscribe(shop.customer(), trial_period_days=7)
    assert look(shop, trial.id).refunds == ()


@pytest.mark.parametrize("payment", ["payment_intents", "charges"])
def test_a_payment_is_known_to_be_a_customers(shop: Shop, payment: str) -> None:
    customer = shop.customer()
    shop.subscribe(customer)
    made = shop.state()[payment][-1]["id"]
    assert use(shop, lambda billing: billing.customer_of(made)) == customer.id
    nobodys = shop.sdk.charges.create({"amount": 1_00, "currency": "usd", "source": "tok_visa"}).id
    assert isinstance(use(shop, lambda billing: billing.customer_of(nobodys)), Absent)
    assert isinstance(use(shop, lambda billing: billing.customer_of("pi_none")), Absent)


# --- Everything at once ------------------------------------------------------------------------------------------


class Story:
    """A subscription of ours through random years: what is wished for is carried out, and what is seen is recorded."""

    def __init__(self, shop: Shop, chance: random.Random) -> None:
        self.shop, self.chance = shop, chance
        self.customer = shop.customer()
        self.prices = [shop.price(10_00), shop.price(25_00), shop.price(3_00), shop.price(200_00, YEAR)]
        asked = start(self.customer, self.prices[0], trial_days=chance.choice([0, 0, 20]))
        (begun,) = of_subscription(shop, asked)
        wish = Subscribe("op_start", UUID(int=7), self.prices[0].product, self.prices[0].id, 1, asked.trial_days)
        self.known = after(None, wish)
        assert isinstance(begun, RecordStarted)
        self.name = begun.subscription
        self.known = after(self.known, begun)

    def live(self, number: int) -> None:
        """Some days, and whatever somebody may wish for after them."""
        self.shop.advance(self.chance.randint(1, 25) * DAY_S + self.chance.randint(0, 5_000))
        operation, price = f"op_{number}", self.chance.choice(self.prices)
        match self.chance.randint(0, 9):
            case 0 | 1:
                of_customer(self.shop, set_card(self.customer.id, POOR, operation))
            case 2 | 3 | 4:
                of_customer(self.shop, set_card(self.customer.id, "pm_card_visa", operation))
            case 5 | 6:
                self._wish(Change(operation, price.product, price.id, self.chance.randint(1, 3)))
            case 7:
                self._wish(Cancel(operation, at_period_end=self.chance.random() < 0.9))
            case 8:
                self._wish(Resume(operation, moment(self.shop.now())))
            case _:
                pass  # some days just go by
        seen = look(self.shop, self.name)
        heard = told(self.known, seen)
        self.known = after(self.known, *self.chance.sample(heard, len(heard)))
        assert [fact for one in told(self.known, seen) for fact in decide(self.known, one)] == [], (
            "told twice, known once"
        )

    def _wish(self, wish: Change | Cancel | Resume) -> None:
        try:
            if not decide(self.known, wish):
                return
        except Refusal:
            return
        self.known = after(self.known, wish)
        (outcome,) = of_subscription(self.shop, self._instruction(wish))
        assert not isinstance(outcome, Unknown)
        self.known = after(self.known, outcome)

    def _instruction(self, wish: Change | Cancel | Resume) -> SubscriptionInstruction:
        ours: Any = {"stream": uuid4(), "operation": wish.operation, "subscription": self.name}
        match wish:
            case Change():
                return ChangeSubscription(**ours, price=wish.price, quantity=wish.quantity or 1)
            case Cancel():
                return CancelSubscription(**ours, at_period_end=wish.at_period_end)
            case Resume():
                return ResumeSubscription(**ours)

    def agrees(self) -> None:
        theirs = self.shop.sdk.subscriptions.retrieve(self.name)
        assert self.known.status == ("cancelled" if theirs.status == "canceled" else theirs.status)
        assert self.known.terms is not None
        assert self.known.terms.value.price == item(theirs).price.id
        assert self.known.ends_at == (moment(end) if (end := theirs.ended_at or theirs.cancel_at) else None)
        invoices = {one.id: one for one in self.shop.invoices(theirs)}
        for name, invoice in self.known.invoices.items():
            assert invoice.paid == (invoices[name].status == "paid")
            assert invoice.amount.minor == (invoices[name].amount_paid if invoice.paid else invoices[name].amount_due)
        untold = [one for name, one in invoices.items() if name not in self.known.invoices]
        for one in untold:
            charged = any(line.amount > 0 for line in one.lines.data)
            assert one.status == "draft" or not one.attempted or not charged


@pytest.mark.parametrize("seed", range(6))
def test_whatever_happens_for_years_what_is_known_is_what_is_so(shop: Shop, seed: int) -> None:
    shop.dunning(then=("canceled", "unpaid", "past_due")[seed % 3])
    story = Story(shop, random.Random(seed))
    for number in range(40):
        story.live(number)
        story.agrees()


# --- What an invoice pays for ------------------------------------------------------------------------------------


def test_what_was_prorated_is_paid_for_with_the_next_period_or_for_the_rest_of_this_one(shop: Shop) -> None:
    made = shop.subscribe(shop.customer(), shop.price(10_00))
    now = Period(*map(moment, (item(made).current_period_start, item(made).current_period_end)))
    shop.advance(10 * DAY_S)
    switch(shop, made, shop.price(25_00), proration_behavior="always_invoice")
    at_once = look(shop, made.id)
    _, rest = at_once.invoices
    assert isinstance(rest, RecordRenewal)
    assert rest.period is not None
    assert rest.amount.minor > 0
    assert rest.period.end == now.end
    assert now.start < rest.period.start <= at_once.as_of
    switch(shop, shop.subscription(made), shop.price(40_00))
    shop.go_to(int(now.end.timestamp()) + 2 * HOUR_S)
    renewed = look(shop, made.id)
    renewal = renewed.invoices[-1]
    assert isinstance(renewal, RecordRenewal)
    assert renewal.amount > Money(40_00, "usd"), "with what was prorated before"
    assert renewal.period == renewed.standing.period


def test_what_only_gives_back_pays_for_nothing(shop: Shop) -> None:
    made = shop.subscribe(shop.customer(), shop.price(30_00))
    shop.advance(3 * DAY_S)
    shop.sdk.subscriptions.cancel(made.id, {"prorate": True, "invoice_now": True})
    assert len(shop.invoices(made)) == 2
    (first,) = look(shop, made.id).invoices
    assert isinstance(first, RecordRenewal)


def test_a_longer_interval_is_paid_for_from_now_on(shop: Shop) -> None:
    outcome = started(shop, price=shop.price(10_00))
    shop.advance(10 * DAY_S)
    (changed,) = of_subscription(shop, change(outcome, shop.price(100_00, YEAR)))
    assert isinstance(changed, RecordChanged)
    seen = look(shop, outcome.subscription)
    _, year = seen.invoices
    assert isinstance(year, RecordRenewal)
    assert year.period == changed.period == seen.standing.period
    assert year.amount < Money(100_00, "usd"), "less what was left of the month"


LINE = {"id": "il_1", "amount": 5_00, "period": {"start": 1_800_000_000, "end": 1_802_000_000}}
INVOICE = {"id": "in_1", "status": "open", "currency": "usd", "amount_remaining": 5_00, "attempt_count": 2}


def invoice(*lines: dict[str, Any], **more: Any) -> Invoice:
    return json.decode(json.encode({**INVOICE, "lines": {"data": lines}, **more}), type=Invoice)


def test_an_invoice_is_read_in_the_older_shape_too() -> None:
    older = invoice(
        {**LINE, "type": "invoiceitem", "proration": True, "period": {"start": 1_799_000_000, "end": 1_800_000_000}},
        {**LINE, "type": "subscription", "proration": False},
        payment_intent="pi_1",
    )
    assert older.intent == "pi_1"
    assert paid_for(older.lines.data) == Period(moment(1_800_000_000), moment(1_802_000_000))


def test_a_proration_is_one_whichever_way_it_came_onto_the_invoice() -> None:
    waited = {**LINE, "parent": {"invoice_item_details": {"proration": True}}}
    at_once = {**LINE, "parent": {"subscription_item_details": {"proration": True}}}
    renewal = {
        **LINE,
        "parent": {"subscription_item_details": {"proration": False}},
        "period": {"start": 1_802_000_000, "end": 1_804_000_000},
    }
    rest, following = (Period(moment(at), moment(at + 2_000_000)) for at in (1_800_000_000, 1_802_000_000))
    for proration in (waited, at_once):
        assert paid_for(invoice(proration).lines.data) == rest
        assert paid_for(invoice(proration, renewal).lines.data) == following
        assert paid_for(invoice({**proration, "amount": -5_00}).lines.data) is None


def test_what_was_sold_beside_a_subscription_pays_for_no_time_of_it() -> None:
    beside = invoice({**LINE, "parent": {"type": "invoice_item_details", "subscription_item_details": None}})
    assert billed(beside, beside.lines.data, None, "req_1") is None
    older = invoice({**LINE, "type": "invoiceitem"})
    assert billed(older, older.lines.data, None, "req_1") is None


def test_a_payment_on_its_way_has_not_failed() -> None:
    tried = invoice({**LINE, "type": "subscription"})
    assert billed(tried, tried.lines.data, InvoiceIntent("pi_1", "processing"), "req_1") is None
    failed = billed(tried, tried.lines.data, InvoiceIntent("pi_1", "requires_payment_method"), "req_1")
    assert isinstance(failed, RecordRenewalFailed)
    assert (failed.attempt, failed.failure) == (2, NO_METHOD)


def test_a_draft_and_an_invoice_that_nobody_tried_to_have_paid_tell_nothing() -> None:
    for untold in (invoice({**LINE, "type": "subscription"}, attempt_count=0), invoice(LINE, status="draft")):
        assert billed(untold, untold.lines.data, None, "req_1") is None


def test_why_a_payment_failed_is_told_in_one_word_for_each_reason() -> None:
    assert failure_of(PaymentError("authentication_required", "authentication_required")) == CHALLENGED
    expired, poor_ = (
        failure_of(PaymentError("expired_card")),
        failure_of(PaymentError("card_declined", "insufficient_funds")),
    )
    assert (expired.code, expired.retryable) == ("expired_card", False)
    assert (poor_.decline_code, poor_.retryable) == ("insufficient_funds", True)


# --- Shapes ------------------------------------------------------------------------------------------------------

PRICE = {
    "id": "price_1",
    "product": "prod_1",
    "currency": "usd",
    "unit_amount": 5_00,
    "recurring": {"interval": "month"},
}
SUBSCRIPTION = {
    "id": "sub_1",
    "customer": "cus_1",
    "status": "active",
    "created": 1_800_000_000,
    "billing_cycle_anchor": 1_800_000_000,
    "items": {"data": [{"id": "si_1", "price": PRICE, "quantity": 2}]},
}


def subscription(**more: Any) -> Subscription:
    return json.decode(json.encode({**SUBSCRIPTION, **more}), type=Subscription)


def test_a_period_is_read_in_the_older_shape_too() -> None:
    older = subscription(current_period_start=1_800_000_000, current_period_end=1_802_000_000)
    assert period(older) == Period(moment(1_800_000_000), moment(1_802_000_000))
    with pytest.raises(ValueError, match="without a period"):
        period(subscription())


@pytest.mark.parametrize(
    ("status", "reason", "cause"),
    [
        ("canceled", "cancellation_requested", "requested"),
        ("canceled", "payment_failed", "payment_failed"),
        ("canceled", "payment_disputed", "disputed"),
        ("canceled", None, None),
        ("incomplete_expired", None, "never_paid"),
    ],
)
def test_an_end_has_its_cause(status: str, reason: str | None, cause: str | None) -> None:
    span = {"current_period_start": 1_800_000_000, "current_period_end": 1_802_000_000}
    over = subscription(status=status, ended_at=1_801_000_000, cancellation_details={"reason": reason}, **span)
    found = standing(over).cancelled
    assert found is not None
    assert (found.at, found.cause) == (moment(1_801_000_000), cause)


def test_a_price_in_tiers_is_not_told_as_nothing() -> None:
    tiers = {**PRICE, "unit_amount": None}
    with pytest.raises(ValueError, match="so much a piece"):
        standing(subscription(items={"data": [{"id": "si_1", "price": tiers}]}))


# --- What is sold ------------------------------------------------------------------------------------------------


def test_the_catalog_is_all_products_with_their_recurring_prices(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("application.stripe_billing_lists.PAGE", 2)
    monthly = {"currency": "eur", "unit_amount": 9_99, "recurring": {"interval": "month", "interval_count": 3}}
    pro = shop.sdk.products.create({"name": "Pro", "default_price_data": monthly})
    old = shop.sdk.products.create({"name": "Old"})
    yearly = shop.price(99_00, YEAR, product=pro.id)
    shop.sdk.prices.update(yearly.id, {"active": False})
    shop.sdk.prices.create({"currency": "usd", "unit_amount": 1_00, "product": pro.id})
    shop.sdk.products.update(old.id, {"active": False})
    catalog = use(shop, lambda billing: billing.catalog())
    assert not isinstance(catalog, Unknown)
    known = {product.id: product for product in catalog}
    assert set(known) == {product["id"] for product in shop.state()["products"]}
    assert (known[pro.id].name, known[pro.id].active, known[pro.id].default_price) == ("Pro", True, pro.default_price)
    assert known[old.id] == Product(old.id, "Old", active=False, default_price=None, prices=())
    prices = {price.id: price for price in known[pro.id].prices}
    assert set(prices) == {pro.default_price, yearly.id}, "not what is sold once"
    assert not prices[yearly.id].active
    basic = prices[pro.default_price]
    assert (basic.amount, basic.interval, basic.interval_count) == (Money(9_99, "eur"), "month", 3)


def test_a_catalog_that_is_too_long_is_not_told_in_part(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("application.stripe_billing_lists.PAGE", 1)
    monkeypatch.setattr("application.stripe_billing_lookups.MAX_CATALOG_PAGES", 1)
    shop.price()
    shop.price()
    assert isinstance(use(shop, lambda billing: billing.catalog()), Unknown)
