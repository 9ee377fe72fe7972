"""Stripe Billing in the stand-in: spoken to by the unmodified SDK, its years played by the clock."""

import calendar
import json
import random
import uuid
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import stripe
from hypothesis import given, settings
from hypothesis import strategies as st

from interface.sandbox.stripe_calendar import Cycle
from tests.test_stripe_standin import StandIn, key
from tests.test_stripe_webhooks_standin import Sandbox, run

HOUR_S = 3_600
DAY_S = 24 * HOUR_S
MONTH = {"interval": "month"}
YEAR = {"interval": "year"}
# Attaches like any card, and is declined whenever it is charged.
POOR = "pm_card_chargeCustomerFail"


class Shop(StandIn):
    """A stand-in with shorthands for selling."""

    def price(self, amount: int = 10_00, recurring: Any = None, currency: str = "usd", **more: Any) -> Any:
        product = {} if "product" in more else {"product_data": {"name": f"Plan {uuid.uuid4()}"}}
        recurs = {"recurring": recurring or MONTH, "currency": currency}
        return self.sdk.prices.create({"unit_amount": amount, **recurs, **product, **more})

    def customer(self, card: str | None = "pm_card_visa", **more: Any) -> Any:
        if card is None:
            return self.sdk.customers.create(more)
        default = {"payment_method": card, "invoice_settings": {"default_payment_method": card}}
        return self.sdk.customers.create({**default, **more})

    def subscribe(self, customer: Any, *prices: Any, **more: Any) -> Any:
        items = [{"price": price.id} for price in prices or (self.price(),)]
        return self.sdk.subscriptions.create({"customer": customer.id, "items": items, **more})

    def subscription(self, wanted: Any) -> Any:
        return self.sdk.subscriptions.retrieve(wanted.id)

    def invoices(self, subscription: Any) -> list[Any]:
        """All invoices of a subscription, oldest first."""
        return list(self.sdk.invoices.list({"subscription": subscription.id, "limit": 100}).auto_paging_iter())[::-1]

    def now(self) -> int:
        return int(self.control.get("/clock").json()["now"])

    def go_to(self, moment: int) -> None:
        """Until the clock shows at least this, with everything played."""
        while (left := moment - self.now()) > 0:
            self.advance(min(left, 9 * 365 * DAY_S))

    def dunning(self, **settings: Any) -> None:
        answer = self.control.post("/billing", json={"retry_days": [3, 5, 7], "then": "canceled", **settings})
        assert answer.status_code == 200, answer.text

    def told(self, wanted: Any, *kinds: str) -> list[tuple[str, int]]:
        """Events of a subscription, its invoices or a customer: their types and times, oldest first."""

        def about(event: Any) -> bool:
            found = event["data"]["object"]
            parent = (found.get("parent") or {}).get("subscription_details") or {}
            return wanted.id in (found["id"], parent.get("subscription"), found.get("customer"))

        events = [event for event in self.state()["events"] if about(event)]
        return [(e["type"], e["created"]) for e in events if not kinds or e["type"] in kinds]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    shop = Shop(tmp_path_factory.mktemp("billing"))
    yield shop
    assert shop.stop() == 0


@pytest.fixture
def shop(shared: Shop) -> Iterator[Shop]:
    """One process for all tests that stay with their own customers; its clock goes on from test to test."""
    shared.dunning(invoice="open")
    yield shared
    shared.control.delete("/faults")


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Shop]:
    """A process for one test."""
    shop = Shop(tmp_path)
    yield shop
    shop.kill()


def at(year: int, month: int, day: int, hour: int = 0) -> int:
    return int(datetime(year, month, day, hour, tzinfo=UTC).timestamp())


def period(subscription: Any) -> tuple[int, int]:
    item = subscription["items"].data[0]
    return item.current_period_start, item.current_period_end


def item(subscription: Any) -> Any:
    return subscription["items"].data[0]


# Shapes

NAMED_WHEN_ASKED = {"payments", "confirmation_secret", "deleted", "subscription_proration_date"}


@pytest.mark.parametrize(
    ("table", "described"),
    [
        ("products", stripe.Product),
        ("prices", stripe.Price),
        ("subscriptions", stripe.Subscription),
        ("invoices", stripe.Invoice),
        ("invoice_payments", stripe.InvoicePayment),
    ],
)
def test_an_object_has_the_members_that_the_sdk_describes_and_no_others(shop: Shop, table: str, described: Any) -> None:
    shop.subscribe(shop.customer())
    found = shop.state()[table][-1]
    expected = set(described.__annotations__) - {"OBJECT_NAME"} - NAMED_WHEN_ASKED
    optional = {"currency_options", "tiers", "tax_details", "presentment_details"}
    assert set(found) - expected == set()
    assert expected - set(found) <= optional


def test_items_and_lines_have_the_members_that_the_sdk_describes(shop: Shop) -> None:
    subscription = shop.subscribe(shop.customer())
    dearer = shop.price(20_00)
    shop.sdk.subscriptions.update(
        subscription.id,
        {"items": [{"id": item(subscription).id, "price": dearer.id}], "proration_behavior": "always_invoice"},
    )
    state = shop.state()
    kept = next(s for s in state["subscriptions"] if s["id"] == subscription.id)
    lines = [line for i in state["invoices"] for line in i["lines"]["data"] if line["subscription"] == subscription.id]
    for found, described in (
        (kept["items"]["data"][0], stripe.SubscriptionItem),
        (kept["items"]["data"][0]["plan"], stripe.Plan),
        (lines[0], stripe.InvoiceLineItem),
        (lines[-1], stripe.InvoiceLineItem),
        (lines[-1]["parent"]["subscription_item_details"], stripe.InvoiceLineItem.Parent.SubscriptionItemDetails),
        (state["invoiceitems"][-1], stripe.InvoiceItem),
    ):
        names = set(described.__annotations__) - {"OBJECT_NAME", "deleted", "tiers", "frozen_fields", "invoicing_rules"}
        assert set(found) == names


# The calendar


def months_on(start: datetime, months: int) -> datetime:
    """The same day some months later, or the last one that the month has: found by trying, from the 31st down."""
    year, month = start.year, start.month
    for _ in range(months):
        year, month = (year + 1, 1) if month == 12 else (year, month + 1)
    for day in range(start.day, 0, -1):
        try:
            return start.replace(year=year, month=month, day=day)
        except ValueError:
            continue
    raise AssertionError("a month without days")


@settings(deadline=None)
@given(
    st.datetimes(datetime(1999, 1, 1), datetime(2090, 1, 1)),  # noqa: DTZ001 - it becomes UTC below
    st.sampled_from([("month", 1), ("month", 3), ("month", 6), ("year", 1), ("year", 2), ("week", 2), ("day", 10)]),
    st.integers(0, 60),
)
def test_every_boundary_is_counted_from_the_anchor(start: datetime, every: tuple[str, int], number: int) -> None:
    anchor = start.replace(tzinfo=UTC, microsecond=0)
    interval, count = every
    cycle = Cycle(int(anchor.timestamp()), interval, count)

    def expected(times: int) -> int:
        if interval in ("day", "week"):
            return int((anchor + timedelta(days=(7 if interval == "week" else 1) * count * times)).timestamp())
        return int(months_on(anchor, (12 if interval == "year" else 1) * count * times).timestamp())

    this, following = expected(number), expected(number + 1)
    assert cycle.boundary(number) == this
    assert cycle.next_after(this) == cycle.next_after(following - 1) == following
    assert cycle.last_before(following) == cycle.last_before(this + 1) == this


def test_the_31st_comes_back_after_every_short_month_and_leap_years_are_known(own: Shop) -> None:
    year = datetime.fromtimestamp(own.now(), UTC).year + 1
    while not calendar.isleap(year + 1):
        year += 1
    own.go_to(at(year, 1, 31, 9))
    monthly, quarterly = own.price(), own.price(recurring={"interval": "month", "interval_count": 3})
    subscriptions = [own.subscribe(own.customer(), price) for price in (monthly, quarterly)]
    own.go_to(at(year + 1, 2, 29, 9))
    yearly = own.subscribe(own.customer(), own.price(recurring=YEAR))
    own.go_to(at(year + 5, 3, 1))

    for subscription, months in ((subscriptions[0], 1), (subscriptions[1], 3), (yearly, 12)):
        start = datetime.fromtimestamp(subscription.billing_cycle_anchor, UTC)
        invoices = own.invoices(subscription)
        for number, invoice in enumerate(invoices):
            line = invoice.lines.data[0]
            begins, ends = (int(months_on(start, months * n).timestamp()) for n in (number, number + 1))
            assert (line.period.start, line.period.end) == (begins, ends)
            assert invoice.created == begins
            assert invoice.status_transitions.paid_at == begins + (HOUR_S if number else 0)
        last = own.subscription(subscription)
        assert period(last) == (invoices[-1].lines.data[0].period.start, invoices[-1].lines.data[0].period.end)
        assert period(last)[0] <= own.now() < period(last)[1]
        assert last.billing_cycle_anchor == subscription.billing_cycle_anchor
    days = [datetime.fromtimestamp(i.created, UTC).day for i in own.invoices(subscriptions[0])][:15]
    assert days == [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31, 31, 29, 31]
    leap = [datetime.fromtimestamp(i.created, UTC) for i in own.invoices(yearly)]
    assert [(d.month, d.day) for d in leap] == [(2, 29), (2, 28), (2, 28), (2, 28), (2, 29)]


# The first payment


def test_a_subscription_that_is_paid_at_once_is_active(shop: Shop) -> None:
    price, customer = shop.price(12_34), shop.customer()
    subscription = shop.subscribe(customer, price, expand=["latest_invoice.payments.data.payment.payment_intent"])
    invoice = subscription.latest_invoice
    intent = invoice.payments.data[0].payment.payment_intent
    assert (subscription.status, subscription.currency) == ("active", "usd")
    assert subscription.billing_cycle_anchor == subscription.created == period(subscription)[0]
    assert (invoice.status, invoice.billing_reason, invoice.attempt_count) == ("paid", "subscription_create", 1)
    assert (invoice.amount_due, invoice.amount_paid, invoice.amount_remaining) == (12_34, 12_34, 0)
    assert invoice.parent.subscription_details.subscription == subscription.id
    assert (intent.status, intent.amount_received, intent.customer) == ("succeeded", 12_34, customer.id)
    paid = shop.sdk.invoice_payments.list({"payment": {"type": "payment_intent", "payment_intent": intent.id}}).data
    assert [(p.invoice, p.status, p.amount_paid) for p in paid] == [(invoice.id, "paid", 12_34)]
    assert shop.sdk.customers.retrieve(customer.id).currency == "usd"


def test_the_subscriptions_own_card_comes_before_the_customers(shop: Shop) -> None:
    customer = shop.customer("pm_card_visa")
    card = shop.sdk.payment_methods.attach("pm_card_mastercard", {"customer": customer.id})
    subscription = shop.subscribe(customer, default_payment_method=card.id)
    charge = shop.sdk.charges.list({"customer": customer.id}).data[0]
    assert (charge.payment_method, charge.payment_method_details.card.brand) == (card.id, "mastercard")
    shop.sdk.payment_methods.detach(card.id)
    assert shop.subscription(subscription).default_payment_method is None
    shop.go_to(period(subscription)[1] + HOUR_S)
    assert shop.sdk.charges.list({"customer": customer.id}).data[0].payment_method_details.card.brand == "visa"


def test_a_declined_first_payment_leaves_it_incomplete_for_23_hours(shop: Shop) -> None:
    subscription = shop.subscribe(shop.customer(POOR))
    invoice = shop.invoices(subscription)[0]
    assert (subscription.status, invoice.status, invoice.next_payment_attempt) == ("incomplete", "open", None)
    with pytest.raises(stripe.InvalidRequestError) as no:
        shop.sdk.subscriptions.update(subscription.id, {"cancel_at_period_end": True})
    assert no.value.param == "cancel_at_period_end"
    shop.go_to(subscription.created + 23 * HOUR_S - 60)
    assert shop.subscription(subscription).status == "incomplete"
    shop.go_to(subscription.created + 23 * HOUR_S)
    expired = shop.subscription(subscription)
    assert (expired.status, expired.ended_at) == ("incomplete_expired", subscription.created + 23 * HOUR_S)
    invoice = shop.invoices(subscription)[0]
    assert (invoice.status, invoice.status_transitions.voided_at) == ("void", expired.ended_at)
    assert shop.told(subscription, "invoice.payment_failed", "invoice.voided") == [
        ("invoice.payment_failed", subscription.created),
        ("invoice.voided", expired.ended_at),
    ]
    shop.go_to(subscription.created + 70 * DAY_S)
    assert len(shop.invoices(subscription)) == 1


def test_an_incomplete_subscription_is_activated_by_paying_its_invoice(shop: Shop) -> None:
    customer = shop.customer(POOR)
    subscription = shop.subscribe(customer)
    invoice = shop.invoices(subscription)[0]
    with pytest.raises(stripe.CardError) as declined:
        shop.sdk.invoices.pay(invoice.id)
    assert declined.value.code == "card_declined"
    card = shop.sdk.payment_methods.attach("pm_card_visa", {"customer": customer.id})
    paid = shop.sdk.invoices.pay(invoice.id, {"payment_method": card.id})
    assert (paid.status, paid.attempt_count) == ("paid", 1)
    assert shop.subscription(subscription).status == "active"
    with pytest.raises(stripe.InvalidRequestError, match="already paid"):
        shop.sdk.invoices.pay(invoice.id)


def test_with_default_incomplete_the_customer_confirms_the_payment(shop: Shop) -> None:
    customer = shop.customer(None)
    subscription = shop.subscribe(
        customer,
        payment_behavior="default_incomplete",
        payment_settings={"save_default_payment_method": "on_subscription"},
        expand=["latest_invoice.confirmation_secret", "latest_invoice.payments"],
    )
    invoice = subscription.latest_invoice
    intent = invoice.payments.data[0].payment.payment_intent
    assert (subscription.status, invoice.status) == ("incomplete", "open")
    assert invoice.confirmation_secret.client_secret.startswith(intent)
    shop.sdk.payment_intents.confirm(intent, {"payment_method": "pm_card_visa"})
    after = shop.subscription(subscription)
    assert after.status == "active"
    method = shop.sdk.payment_methods.retrieve(after.default_payment_method)
    assert (method.customer, shop.invoices(subscription)[0].status) == (customer.id, "paid")


def test_a_card_that_wants_its_holder_waits_for_the_challenge(shop: Shop) -> None:
    for outcome, status in (("complete", "active"), ("fail", "incomplete")):
        subscription = shop.subscribe(
            shop.customer("pm_card_authenticationRequired"), expand=["latest_invoice.payments"]
        )
        intent = subscription.latest_invoice.payments.data[0].payment.payment_intent
        assert subscription.status == "incomplete"
        assert shop.sdk.payment_intents.retrieve(intent).status == "requires_action"
        assert [k for k, _ in shop.told(subscription, "invoice.payment_action_required")] != []
        shop.control.post(f"/3ds/{intent}", json={"outcome": outcome})
        assert shop.subscription(subscription).status == status


def test_error_if_incomplete_leaves_nothing_behind(shop: Shop) -> None:
    customer = shop.customer(POOR)
    before = shop.settled()
    with pytest.raises(stripe.CardError) as declined:
        shop.subscribe(customer, payment_behavior="error_if_incomplete")
    assert (declined.value.http_status, declined.value.code) == (402, "card_declined")
    after = shop.settled()
    for table in ("subscriptions", "invoices", "payment_intents", "charges"):
        assert after[table] == before[table]


# Renewal


def test_a_renewal_is_a_draft_for_an_hour_and_then_charged(shop: Shop) -> None:
    customer = shop.customer()
    subscription = shop.subscribe(customer)
    start, end = period(subscription)
    shop.go_to(end)
    renewed, invoice = shop.subscription(subscription), shop.invoices(subscription)[-1]
    assert (renewed.status, renewed.latest_invoice, period(renewed)[0]) == ("active", invoice.id, end)
    assert (invoice.status, invoice.created, invoice.billing_reason) == ("draft", end, "subscription_cycle")
    assert (invoice.automatically_finalizes_at, invoice.next_payment_attempt) == (end + HOUR_S, end + HOUR_S)
    assert (invoice.period_start, invoice.period_end) == (start, end)
    assert len(shop.sdk.charges.list({"customer": customer.id}).data) == 1

    shop.go_to(end + HOUR_S)
    invoice = shop.sdk.invoices.retrieve(invoice.id)
    assert (invoice.status, invoice.automatically_finalizes_at) == ("paid", None)
    assert (invoice.status_transitions.finalized_at, invoice.status_transitions.paid_at) == (end + HOUR_S,) * 2
    charge = shop.sdk.charges.list({"customer": customer.id}).data[0]
    assert (charge.created, charge.amount, charge.status) == (end + HOUR_S, 10_00, "succeeded")
    numbers = [i.number for i in shop.invoices(subscription)]
    assert numbers == [f"{customer.invoice_prefix}-0001", f"{customer.invoice_prefix}-0002"]


def test_the_events_of_a_renewal_come_in_order_and_at_their_moments(shop: Shop) -> None:
    subscription = shop.subscribe(shop.customer())
    _, end = period(subscription)
    shop.go_to(end + 2 * DAY_S)
    customer = shop.sdk.customers.retrieve(subscription.customer)
    told = [(kind, when - end) for kind, when in shop.told(customer) if when >= end]
    assert [kind for kind, when in told if when == 0] == ["invoice.created", "customer.subscription.updated"]
    later = [kind for kind, when in told if when == HOUR_S]
    assert len(later) + 2 == len(told)
    expected = [
        "invoice.finalized",
        "payment_intent.created",
        "charge.succeeded",
        "payment_intent.succeeded",
        "invoice.paid",
        "invoice.payment_succeeded",
    ]
    assert [kind for kind in later if kind in expected] == expected
    changed = next(
        e
        for e in reversed(shop.state()["events"])
        if e["type"] == "customer.subscription.updated" and e["data"]["object"]["id"] == subscription.id
    )
    previous = changed["data"]["previous_attributes"]
    assert previous["items"]["data"][0]["current_period_end"] == end
    assert previous["latest_invoice"] == subscription.latest_invoice


def test_a_jump_and_many_small_steps_make_the_same_history(tmp_path: Path) -> None:
    histories = []
    for name, step in (("jump", {}), ("steps", {"at_most": 1})):
        shop = Shop(tmp_path / name)
        begun = shop.now()
        shop.go_to(at(datetime.fromtimestamp(begun, UTC).year + 1, 1, 31, 12))
        start = shop.now()
        names = {}
        for number, card in enumerate(("pm_card_visa", POOR, "pm_card_mastercard")):
            customer = shop.customer(card)
            trial = {"trial_period_days": 3 + number}
            names[shop.subscribe(customer, shop.price(10_00 + number), **trial).id] = number
        left = 200 * DAY_S
        while left:
            left = shop.control.post("/clock", json={"advance_s": left, **step}).json()["left_s"]
        state = shop.state()
        shop.kill()
        history = [
            (
                names[i["parent"]["subscription_details"]["subscription"]],
                *(i[member] for member in ("status", "total", "attempt_count")),
                *(round((at - start) / 10) for at in (i["created"], i["status_transitions"]["finalized_at"])),
            )
            for i in state["invoices"]
        ]
        histories.append(sorted(history))
        assert len(history) > 15
    assert histories[0] == histories[1]


def test_the_clock_stops_after_so_many_moments_and_tells_what_is_left(own: Shop) -> None:
    subscription = own.subscribe(own.customer())
    _, end = period(subscription)
    target = own.now() + 90 * DAY_S
    first = own.control.post("/clock", json={"advance_s": 90 * DAY_S, "at_most": 1}).json()
    assert (first["played"], first["more"]) == (1, True)
    assert end <= first["now"] <= end + 60
    assert first["left_s"] + first["now"] == pytest.approx(target, abs=60)
    assert [i.status for i in own.invoices(subscription)] == ["paid", "draft"]
    rest = own.control.post("/clock", json={"advance_s": first["left_s"]}).json()
    assert (rest["left_s"], rest["more"]) == (0, False)
    assert rest["played"] == 2 * len(own.invoices(subscription)) - 3


@pytest.mark.parametrize("given", [{"advance_s": 1, "at_most": 0}, {"advance_s": 1, "at_most": "1"}])
def test_an_unusable_step_is_refused(shop: Shop, given: Any) -> None:
    answer = shop.control.post("/clock", json=given)
    assert (answer.status_code, answer.json()["error"]["field"]) == (400, "at_most")


def test_years_of_many_customers_bill_every_period_once(own: Shop) -> None:
    price = own.price(7_00)
    subscriptions = [own.subscribe(own.customer(), price, trial_period_days=1 + n % 30) for n in range(30)]
    own.go_to(own.now() + 2 * 365 * DAY_S)
    state = own.state()
    charged = Counter(c["customer"] for c in state["charges"] if c["status"] == "succeeded" and c["amount"] == 7_00)
    for subscription in subscriptions:
        invoices = own.invoices(subscription)
        periods = [(line.period.start, line.period.end) for i in invoices for line in i.lines.data]
        assert [end for _, end in periods[:-1]] == [start for start, _ in periods[1:]]
        assert all(i.status == "paid" for i in invoices if i.created + HOUR_S <= state["now"])
        assert charged[subscription.customer] == sum(i.amount_paid for i in invoices) / 7_00 >= 23


# Failed payments


def failing(shop: Shop, **more: Any) -> Any:
    """A subscription whose first payment went well, and whose customer has a card that is declined since then."""
    customer = shop.customer("pm_card_visa")
    subscription = shop.subscribe(customer, **more)
    poor = shop.sdk.payment_methods.attach(POOR, {"customer": customer.id})
    shop.sdk.customers.update(customer.id, {"invoice_settings": {"default_payment_method": poor.id}})
    return subscription


@pytest.mark.parametrize("then", ["canceled", "unpaid", "past_due"])
def test_a_failed_renewal_is_retried_after_3_5_and_7_days_and_then_ends_as_chosen(shop: Shop, then: str) -> None:
    shop.dunning(then=then)
    subscription = failing(shop)
    customer = shop.sdk.customers.retrieve(subscription.customer)
    due = period(subscription)[1] + HOUR_S
    planned = [due, due + 3 * DAY_S, due + 8 * DAY_S, due + 15 * DAY_S]
    for number, moment in enumerate(planned):
        shop.go_to(moment - 60)
        assert shop.subscription(subscription).status == ("past_due" if number else "active")
        shop.go_to(moment)
        invoice = shop.invoices(subscription)[-1]
        following = planned[number + 1] if number + 1 < len(planned) else None
        assert (invoice.status, invoice.attempt_count, invoice.next_payment_attempt) == ("open", number + 1, following)
        assert shop.sdk.customers.retrieve(customer.id).delinquent
    after = shop.subscription(subscription)
    assert after.status == then
    failed = [c for c in shop.sdk.charges.list({"customer": customer.id}).data if c.status == "failed"]
    assert [c.created for c in failed] == planned[::-1]
    assert len({c.payment_intent for c in failed}) == 1
    assert shop.told(subscription, "invoice.payment_failed") == [("invoice.payment_failed", at_) for at_ in planned]
    if then == "canceled":
        assert (after.ended_at, after.cancellation_details.reason) == (planned[-1], "payment_failed")
        assert shop.told(subscription, "customer.subscription.deleted")[0][1] == planned[-1]


def test_the_retries_and_what_becomes_of_the_invoice_can_be_chosen(shop: Shop) -> None:
    shop.dunning(retry_days=[1], then="unpaid", invoice="uncollectible")
    subscription = failing(shop)
    due = period(subscription)[1] + HOUR_S
    shop.go_to(due + DAY_S)
    invoice = shop.invoices(subscription)[-1]
    assert (invoice.status, invoice.attempt_count) == ("uncollectible", 2)
    assert shop.subscription(subscription).status == "unpaid"
    assert shop.control.get("/billing").json() == {"retry_days": [1], "then": "unpaid", "invoice": "uncollectible"}


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"then": "paused"}, "then"),
        ({"retry_days": [0]}, "retry_days"),
        ({"retry_days": "3"}, "retry_days"),
        ({"retry_days": [1] * 9}, "retry_days"),
        ({"days": 1}, "days"),
        ([], "body"),
    ],
)
def test_unusable_settings_are_refused_and_change_nothing(shop: Shop, given: Any, field: str) -> None:
    before = shop.control.get("/billing").json()
    answer = shop.control.post("/billing", json=given)
    assert (answer.status_code, answer.json()["error"]["field"]) == (400, field)
    assert shop.control.get("/billing").json() == before


def test_a_new_card_heals_at_the_next_retry_and_paying_heals_at_once(shop: Shop) -> None:
    waiting, paying = failing(shop), failing(shop)
    due = max(period(s)[1] for s in (waiting, paying)) + HOUR_S
    shop.go_to(due)
    for subscription in (waiting, paying):
        assert shop.subscription(subscription).status == "past_due"
        good = shop.sdk.payment_methods.attach("pm_card_visa", {"customer": subscription.customer})
        shop.sdk.subscriptions.update(subscription.id, {"default_payment_method": good.id})
    shop.sdk.invoices.pay(shop.invoices(paying)[-1].id)
    assert shop.subscription(paying).status == "active"
    assert not shop.sdk.customers.retrieve(paying.customer).delinquent
    assert shop.subscription(waiting).status == "past_due"
    shop.go_to(due + 3 * DAY_S)
    assert shop.subscription(waiting).status == "active"
    assert [(i.status, i.attempt_count) for i in shop.invoices(waiting)] == [("paid", 1), ("paid", 2)]
    assert [(i.status, i.attempt_count) for i in shop.invoices(paying)] == [("paid", 1), ("paid", 1)]


def test_only_the_latest_invoice_brings_a_subscription_back(shop: Shop) -> None:
    shop.dunning(retry_days=[60])
    subscription = failing(shop)
    shop.go_to(period(subscription)[1] + 33 * DAY_S)
    _, older, latest = shop.invoices(subscription)
    assert (older.status, latest.status) == ("open", "open")
    good = shop.sdk.payment_methods.attach("pm_card_visa", {"customer": subscription.customer})
    shop.sdk.invoices.pay(older.id, {"payment_method": good.id})
    assert shop.subscription(subscription).status == "past_due"
    shop.sdk.invoices.pay(latest.id, {"payment_method": good.id})
    assert shop.subscription(subscription).status == "active"


def test_an_unpaid_subscription_collects_drafts_until_its_latest_invoice_is_paid(shop: Shop) -> None:
    shop.dunning(retry_days=[1], then="unpaid")
    subscription = failing(shop)
    shop.go_to(period(subscription)[1] + 70 * DAY_S)
    first, failed, *drafts = shop.invoices(subscription)
    assert (first.status, failed.status, {d.status for d in drafts}) == ("paid", "open", {"draft"})
    assert len(drafts) == 2
    assert all(d.automatically_finalizes_at is None and d.auto_advance is False for d in drafts)
    good = shop.sdk.payment_methods.attach("pm_card_visa", {"customer": subscription.customer})
    shop.sdk.invoices.pay(drafts[-1].id, {"payment_method": good.id})
    assert shop.subscription(subscription).status == "active"
    shop.sdk.subscriptions.update(subscription.id, {"default_payment_method": good.id})
    shop.go_to(period(shop.subscription(subscription))[1] + HOUR_S)
    assert shop.invoices(subscription)[-1].status == "paid"


def test_an_expired_card_is_declined_until_the_network_tells_of_a_new_one(own: Shop) -> None:
    year = datetime.fromtimestamp(own.now(), UTC).year + 1
    card: Any = {"number": "4242424242424242", "exp_month": 3, "exp_year": year, "cvc": "123"}
    method = own.sdk.payment_methods.create({"type": "card", "card": card})
    customer = own.customer(None)
    own.sdk.payment_methods.attach(method.id, {"customer": customer.id})
    own.sdk.customers.update(customer.id, {"invoice_settings": {"default_payment_method": method.id}})
    own.go_to(at(year, 1, 31, 12))
    subscription = own.subscribe(customer)
    own.go_to(at(year, 3, 2))
    assert own.told(customer, "customer.source.expiring") == [("customer.source.expiring", at(year, 3, 1))]
    own.go_to(at(year, 5, 1, 1))
    last = own.invoices(subscription)[-1]
    assert last.created - at(year, 4, 30, 12) == subscription.created - at(year, 1, 31, 12)
    assert [i.status for i in own.invoices(subscription)] == ["paid"] * 3 + ["open"]
    charge = own.sdk.charges.list({"customer": customer.id}).data[0]
    assert (charge.status, charge.failure_code) == ("failed", "expired_card")

    reissued = own.control.post(f"/cards/{method.id}", json={"exp_month": 3, "exp_year": year + 4})
    assert reissued.status_code == 200
    assert own.told(customer, "payment_method.automatically_updated") != []
    own.go_to(at(year, 5, 4, 2))
    assert own.subscription(subscription).status == "active"


def test_a_detached_default_card_leaves_nothing_to_charge(shop: Shop) -> None:
    customer = shop.customer()
    subscription = shop.subscribe(customer)
    default = shop.sdk.customers.retrieve(customer.id).invoice_settings.default_payment_method
    shop.sdk.payment_methods.detach(default)
    assert shop.sdk.customers.retrieve(customer.id).invoice_settings.default_payment_method is None
    shop.go_to(period(subscription)[1] + HOUR_S)
    invoice = shop.invoices(subscription)[-1]
    assert (shop.subscription(subscription).status, invoice.attempt_count) == ("past_due", 1)
    assert len(shop.sdk.charges.list({"customer": customer.id}).data) == 1


# Trials


def test_a_trial_costs_nothing_is_told_of_three_days_before_and_then_billed(shop: Shop) -> None:
    subscription = shop.subscribe(shop.customer(), trial_period_days=10)
    end = subscription.created + 10 * DAY_S
    assert (subscription.status, subscription.trial_start, subscription.trial_end) == (
        "trialing", subscription.created, end,
    )  # fmt: skip
    assert (period(subscription), subscription.billing_cycle_anchor) == ((subscription.created, end), end)
    assert [(i.total, i.status, i.attempt_count) for i in shop.invoices(subscription)] == [(0, "paid", 0)]
    shop.sdk.subscriptions.update(subscription.id, {"metadata": {"note": "plans the notice twice"}})
    shop.go_to(end + 2 * HOUR_S)
    notice = "customer.subscription.trial_will_end"
    assert shop.told(subscription, notice) == [(notice, end - 3 * DAY_S)]
    invoice = shop.invoices(subscription)[-1]
    assert (invoice.total, invoice.billing_reason, invoice.created) == (10_00, "subscription_cycle", end)
    assert (shop.subscription(subscription).status, invoice.status) == ("active", "paid")


def test_a_trial_can_be_moved_and_ended_now(shop: Shop) -> None:
    customer = shop.customer()
    subscription = shop.subscribe(customer, trial_end=shop.now() + 10 * DAY_S)
    later = shop.now() + 20 * DAY_S
    moved = shop.sdk.subscriptions.update(subscription.id, {"trial_end": later})
    assert (moved.trial_end, period(moved)[1], moved.billing_cycle_anchor) == (later, later, later)
    shop.go_to(subscription.trial_end + DAY_S)
    over = shop.sdk.subscriptions.update(subscription.id, {"trial_end": "now"})
    assert (over.status, over.billing_cycle_anchor) == ("active", period(over)[0])
    assert over.trial_end == over.billing_cycle_anchor < later
    assert [(i.total, i.billing_reason, i.status) for i in shop.invoices(subscription)][1:] == [
        (10_00, "subscription_update", "paid")
    ]


def test_a_trial_without_a_card_ends_as_it_was_agreed(shop: Shop) -> None:
    agreed: Any = {"end_behavior": {"missing_payment_method": "cancel"}}
    gone = shop.subscribe(shop.customer(None), trial_period_days=1, trial_settings=agreed)
    billed = shop.subscribe(shop.customer(None), trial_period_days=1)
    shop.go_to(max(gone.trial_end, billed.trial_end) + HOUR_S)
    after = shop.subscription(gone)
    assert (after.status, after.ended_at, len(shop.invoices(gone))) == ("canceled", gone.trial_end, 1)
    assert (shop.subscription(billed).status, shop.invoices(billed)[-1].status) == ("past_due", "open")


# The end


def test_a_subscription_canceled_at_the_end_of_its_period_is_not_billed_again(shop: Shop) -> None:
    subscription = shop.subscribe(shop.customer())
    _, end = period(subscription)
    asked = shop.sdk.subscriptions.update(subscription.id, {"cancel_at_period_end": True})
    assert (asked.status, asked.cancel_at_period_end, asked.cancel_at) == ("active", True, end)
    assert asked.canceled_at is not None
    shop.go_to(end + 2 * HOUR_S)
    after = shop.subscription(subscription)
    assert (after.status, after.ended_at, after.canceled_at) == ("canceled", end, asked.canceled_at)
    assert after.cancellation_details.reason == "cancellation_requested"
    assert len(shop.invoices(subscription)) == 1
    assert shop.told(subscription, "customer.subscription.deleted") == [("customer.subscription.deleted", end)]


def test_it_can_be_resumed_before_the_end(shop: Shop) -> None:
    subscription = shop.subscribe(shop.customer())
    shop.sdk.subscriptions.update(subscription.id, {"cancel_at_period_end": True})
    resumed = shop.sdk.subscriptions.update(subscription.id, {"cancel_at_period_end": False})
    assert (resumed.cancel_at, resumed.canceled_at, resumed.cancellation_details.reason) == (None, None, None)
    shop.go_to(period(subscription)[1] + HOUR_S)
    assert (shop.subscription(subscription).status, len(shop.invoices(subscription))) == ("active", 2)


def test_it_ends_at_a_chosen_moment(shop: Shop) -> None:
    subscription = shop.subscribe(shop.customer())
    when = subscription.created + 7 * DAY_S
    shop.sdk.subscriptions.update(subscription.id, {"cancel_at": when})
    shop.go_to(when)
    assert (shop.subscription(subscription).status, shop.subscription(subscription).ended_at) == ("canceled", when)


def test_a_canceled_subscription_is_not_changed_canceled_or_charged_any_more(shop: Shop) -> None:
    subscription = failing(shop)
    shop.go_to(period(subscription)[1] + HOUR_S)
    gone = shop.sdk.subscriptions.cancel(subscription.id, {"cancellation_details": {"comment": "moving away"}})
    assert (gone.status, gone.ended_at, gone.cancellation_details.comment) == (
        "canceled", gone.canceled_at, "moving away",
    )  # fmt: skip
    owed = shop.invoices(subscription)[-1]
    assert (owed.status, owed.auto_advance, owed.next_payment_attempt) == ("open", False, None)
    with pytest.raises(stripe.InvalidRequestError) as no:
        shop.sdk.subscriptions.update(subscription.id, {"cancel_at_period_end": False})
    assert (no.value.http_status, no.value.param) == (400, "cancel_at_period_end")
    assert shop.sdk.subscriptions.update(subscription.id, {"metadata": {"a": "b"}}).metadata.to_dict() == {"a": "b"}
    with pytest.raises(stripe.InvalidRequestError) as twice:
        shop.sdk.subscriptions.cancel(subscription.id)
    assert (twice.value.http_status, twice.value.code) == (404, "resource_missing")
    shop.go_to(shop.now() + 40 * DAY_S)
    assert len(shop.invoices(subscription)) == 2
    assert shop.invoices(subscription)[-1].attempt_count == 1


def test_canceled_with_proration_the_unused_time_becomes_a_credit(shop: Shop) -> None:
    customer = shop.customer()
    subscription = shop.subscribe(customer, shop.price(30_00))
    start, end = period(subscription)
    shop.go_to(start + (end - start) // 2)
    gone = shop.sdk.subscriptions.cancel(subscription.id, {"prorate": True, "invoice_now": True})
    last = shop.invoices(subscription)[-1]
    unused = round(30_00 * (end - gone.canceled_at) / (end - start))
    assert (last.total, last.amount_due, last.status, last.ending_balance) == (-unused, 0, "paid", -unused)
    assert shop.sdk.customers.retrieve(customer.id).balance == -unused

    again = shop.subscribe(customer, shop.price(30_00))
    first = shop.invoices(again)[0]
    assert (first.starting_balance, first.amount_due, first.ending_balance) == (-unused, 30_00 - unused, 0)
    assert shop.sdk.charges.list({"customer": customer.id}).data[0].amount == 30_00 - unused


def test_a_deleted_customer_has_no_subscription_any_more(shop: Shop) -> None:
    customer = shop.customer()
    subscription = shop.subscribe(customer)
    shop.sdk.customers.delete(customer.id)
    assert shop.subscription(subscription).status == "canceled"
    shop.go_to(period(subscription)[1] + HOUR_S)
    assert len(shop.invoices(subscription)) == 1


# Changes


def switch(shop: Shop, subscription: Any, price: Any, **more: Any) -> Any:
    return shop.sdk.subscriptions.update(
        subscription.id, {"items": [{"id": item(subscription).id, "price": price.id}], **more}
    )


def test_a_dearer_price_is_prorated_to_the_second_on_the_next_invoice(shop: Shop) -> None:
    subscription = shop.subscribe(shop.customer(), shop.price(10_00))
    start, end = period(subscription)
    shop.go_to(start + 10 * DAY_S)
    changed = switch(shop, subscription, shop.price(25_00))
    assert (changed.status, period(changed), changed.billing_cycle_anchor) == ("active", (start, end), start)
    assert changed.latest_invoice == subscription.latest_invoice
    shop.go_to(end + HOUR_S)
    invoice = shop.invoices(subscription)[-1]
    credit, debit, regular = invoice.lines.data
    changed_at = credit.period.start
    assert (credit.amount, debit.amount) == tuple(
        sign * round(amount * (end - changed_at) / (end - start)) for sign, amount in ((-1, 10_00), (1, 25_00))
    )
    assert (regular.amount, regular.period.start) == (25_00, end)
    details = credit.parent.subscription_item_details
    assert (details.proration, details.subscription_item) == (True, item(subscription).id)
    assert details.proration_details.credited_items.invoice == subscription.latest_invoice
    assert [line.parent.subscription_item_details.proration for line in (debit, regular)] == [True, False]
    assert invoice.amount_paid == invoice.total == credit.amount + debit.amount + 25_00


def test_always_invoice_charges_the_difference_now_and_none_charges_nothing(shop: Shop) -> None:
    now, never = (shop.subscribe(shop.customer(), shop.price(10_00)) for _ in range(2))
    start, end = period(now)
    shop.go_to(start + 5 * DAY_S)
    dear = shop.price(40_00)
    changed = switch(shop, now, dear, proration_behavior="always_invoice")
    switch(shop, never, dear, proration_behavior="none")
    invoice = shop.invoices(now)[-1]
    rest = end - invoice.created
    assert changed.latest_invoice == invoice.id
    assert (invoice.billing_reason, invoice.status) == ("subscription_update", "paid")
    assert invoice.total == round(40_00 * rest / (end - start)) - round(10_00 * rest / (end - start))
    assert len(shop.invoices(never)) == 1
    shop.go_to(end + DAY_S)
    assert [shop.invoices(s)[-1].total for s in (now, never)] == [40_00, 40_00]


def test_no_more_is_credited_than_was_billed(shop: Shop) -> None:
    flexible, classic = (
        shop.subscribe(shop.customer(), shop.price(10_00), billing_mode={"type": mode})
        for mode in ("flexible", "classic")
    )
    start, end = period(flexible)
    shop.go_to(start + DAY_S)
    dear, free = shop.price(90_00), shop.price(0)
    credits_ = {}
    for subscription in (flexible, classic):
        switch(shop, subscription, dear, proration_behavior="none")
        switch(shop, subscription, free, proration_behavior="always_invoice")
        last = shop.invoices(subscription)[-1]
        credits_[subscription.id] = (last.total, period(subscription)[1] - last.created)
    for subscription, amount in ((flexible, 10_00), (classic, 90_00)):
        total, rest = credits_[subscription.id]
        assert total == -round(amount * rest / (end - start))


def test_a_quantity_is_prorated_and_a_second_item_joins_the_period(shop: Shop) -> None:
    subscription = shop.subscribe(shop.customer(), shop.price(10_00))
    start, end = period(subscription)
    shop.go_to(start + 3 * DAY_S)
    extra = shop.price(6_00)
    items: Any = [{"id": item(subscription).id, "quantity": 3}, {"price": extra.id, "quantity": 2}]
    changed = shop.sdk.subscriptions.update(subscription.id, {"items": items, "proration_behavior": "always_invoice"})
    assert [(i.quantity, i.current_period_end) for i in changed["items"].data] == [(3, end), (2, end)]
    invoice = shop.invoices(subscription)[-1]
    part = (end - invoice.created) / (end - start)
    assert [line.amount for line in invoice.lines.data] == [
        -round(10_00 * part), round(30_00 * part), round(12_00 * part),
    ]  # fmt: skip
    shop.sdk.subscriptions.update(subscription.id, {"items": [{"id": item(subscription).id, "deleted": True}]})
    shop.go_to(end + HOUR_S)
    lines = shop.invoices(subscription)[-1].lines.data
    assert [line.amount > 0 for line in lines] == [False, True]
    assert lines[-1].amount == 12_00


def test_another_interval_begins_a_new_period_that_is_billed_at_once(shop: Shop) -> None:
    subscription = shop.subscribe(shop.customer(), shop.price(10_00))
    start, end = period(subscription)
    shop.go_to(start + 6 * DAY_S)
    changed = switch(shop, subscription, shop.price(100_00, YEAR))
    invoice = shop.invoices(subscription)[-1]
    begins, ends = period(changed)
    assert changed.billing_cycle_anchor == begins == invoice.created
    assert ends == int(months_on(datetime.fromtimestamp(begins, UTC), 12).timestamp())
    assert invoice.total == 100_00 - round(10_00 * (end - begins) / (end - start))
    assert (invoice.status, invoice.billing_reason) == ("paid", "subscription_update")
    shop.go_to(end + DAY_S)
    assert len(shop.invoices(subscription)) == 2


def test_what_begins_to_cost_is_billed_from_then_on(shop: Shop) -> None:
    subscription = shop.subscribe(shop.customer(), shop.price(0))
    shop.go_to(subscription.created + 4 * DAY_S)
    changed = switch(shop, subscription, shop.price(15_00))
    invoice = shop.invoices(subscription)[-1]
    assert changed.billing_cycle_anchor == period(changed)[0] == invoice.created > subscription.created
    assert (invoice.total, invoice.status) == (15_00, "paid")


def test_a_change_that_cannot_be_paid_is_past_due_or_refused_as_asked(shop: Shop) -> None:
    refusing, going_on = failing(shop), failing(shop)
    dear = shop.price(50_00)
    before = shop.settled()
    with pytest.raises(stripe.CardError):
        switch(shop, refusing, dear, proration_behavior="always_invoice", payment_behavior="error_if_incomplete")
    after = shop.settled()
    assert (after["subscriptions"], after["invoices"]) == (before["subscriptions"], before["invoices"])
    changed = switch(shop, going_on, dear, proration_behavior="always_invoice")
    assert (changed.status, item(changed).price.id) == ("past_due", dear.id)
    owed = shop.invoices(going_on)[-1]
    assert (owed.status, owed.next_payment_attempt) == ("open", owed.created + 3 * DAY_S)


def test_the_first_cycle_can_begin_later_with_a_part_of_the_price(shop: Shop) -> None:
    anchor = shop.now() + 10 * DAY_S
    price = shop.price(31_00)
    part = shop.subscribe(shop.customer(), price, billing_cycle_anchor=anchor)
    free = shop.subscribe(shop.customer(), price, billing_cycle_anchor=anchor, proration_behavior="none")
    day = datetime.fromtimestamp(anchor, UTC)
    end_before = day.replace(day=1) - timedelta(days=1)
    a_month_before = end_before.replace(day=min(day.day, end_before.day))
    month_s = (day - a_month_before).total_seconds()
    expected = round(31_00 * (anchor - part.created) / month_s)
    assert [shop.invoices(s)[0].total for s in (part, free)] == [expected, 0]
    assert period(part) == (part.created, anchor)
    shop.go_to(anchor + HOUR_S)
    assert [shop.invoices(s)[-1].total for s in (part, free)] == [31_00, 31_00]


def costs(changes: list[tuple[int, int, int]], until: int) -> float:
    """What use costs from one change to the next: (moment, amount of a period, months of a period), one after another.

    Worked out by the share of each period that each amount was in force, with no regard to invoices.
    """
    total, anchor = 0.0, changes[0][0]
    for number, (begun, amount, months) in enumerate(changes):
        if number and months != changes[number - 1][2]:
            anchor = begun
        stop = changes[number + 1][0] if number + 1 < len(changes) else until
        start = datetime.fromtimestamp(anchor, UTC)
        bounds = [int(months_on(start, months * n).timestamp()) for n in range(40)]
        for opens, closes in pairwise(bounds):
            used = min(stop, closes) - max(begun, opens)
            total += amount * max(0, used) / (closes - opens)
    return total


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_changed_and_when_what_is_billed_is_what_was_used(shop: Shop, seed: int) -> None:
    chance = random.Random(seed)
    customer = shop.customer()
    prices = [(shop.price(amount, every), amount, 12 if every is YEAR else 1)
              for amount, every in ((7_77, MONTH), (10_00, MONTH), (31_31, MONTH), (99_99, YEAR))]  # fmt: skip
    price, amount, months = prices[1]
    subscription = shop.subscribe(customer, price)
    changes = [(subscription.created, amount, months)]
    for _ in range(12):
        shop.go_to(shop.now() + chance.randrange(60, 40 * DAY_S))
        price, amount, months = chance.choice([other for other in prices if other[0] is not price])
        quantity = chance.randrange(1, 4)
        wanted: Any = [{"id": item(subscription).id, "price": price.id, "quantity": quantity}]
        behavior = chance.choice(["create_prorations", "always_invoice"])
        params: Any = {"items": wanted, "proration_behavior": behavior}
        shop.sdk.subscriptions.update(subscription.id, params)
        events = [e for e in shop.state()["events"] if e["data"]["object"]["id"] == subscription.id]
        changes.append((events[-1]["created"], amount * quantity, months))
    last = shop.sdk.subscriptions.update(subscription.id, {"cancel_at_period_end": True})
    shop.go_to(last.cancel_at + HOUR_S)

    invoices = shop.invoices(subscription)
    lines = [line for invoice in invoices for line in invoice.lines.data]
    assert sum(line.amount for line in lines) == pytest.approx(costs(changes, last.cancel_at), abs=len(lines) / 2)
    balance = 0
    for invoice in invoices:
        assert (invoice.status, invoice.starting_balance) == ("paid", balance)
        assert invoice.total == sum(line.amount for line in invoice.lines.data)
        assert invoice.total + balance == invoice.amount_due + invoice.ending_balance
        assert (invoice.amount_paid, invoice.amount_remaining) == (invoice.amount_due, 0)
        balance = invoice.ending_balance
    assert shop.sdk.customers.retrieve(customer.id).balance == balance
    charges = shop.sdk.charges.list({"customer": customer.id, "limit": 100}).data
    assert (
        sum(c.amount for c in charges)
        == sum(i.amount_paid for i in invoices)
        == sum(line.amount for line in lines) - balance
    )


# Invoices


def test_an_owed_invoice_can_be_voided_given_up_or_paid_elsewhere(shop: Shop) -> None:
    voided, given_up, elsewhere = (failing(shop) for _ in range(3))
    shop.go_to(max(period(s)[1] for s in (voided, given_up, elsewhere)) + HOUR_S)
    for subscription, act, status in (
        (voided, shop.sdk.invoices.void_invoice, "void"),
        (given_up, shop.sdk.invoices.mark_uncollectible, "uncollectible"),
        (elsewhere, lambda i: shop.sdk.invoices.pay(i, {"paid_out_of_band": True}), "paid"),
    ):
        owed = shop.invoices(subscription)[-1]
        done = act(owed.id)
        assert (done.status, done.next_payment_attempt, done.amount_paid) == (status, None, 0)
        assert shop.subscription(subscription).status == "active"
        with pytest.raises(stripe.InvalidRequestError):
            shop.sdk.invoices.mark_uncollectible(owed.id)
    assert shop.told(voided, "invoice.voided") != []
    before = [len(shop.sdk.charges.list({"customer": s.customer}).data) for s in (voided, given_up, elsewhere)]
    shop.go_to(shop.now() + 16 * DAY_S)
    assert before == [len(shop.sdk.charges.list({"customer": s.customer}).data) for s in (voided, given_up, elsewhere)]


def test_too_little_to_charge_is_carried_over(shop: Shop) -> None:
    customer = shop.customer()
    subscription = shop.subscribe(customer, shop.price(30))
    first = shop.invoices(subscription)[0]
    assert (first.total, first.amount_due, first.status, first.ending_balance) == (30, 0, "paid", 30)
    shop.go_to(period(subscription)[1] + HOUR_S)
    second = shop.invoices(subscription)[-1]
    assert (second.starting_balance, second.amount_due, second.amount_paid, second.ending_balance) == (30, 60, 60, 0)


# Refusals


def test_what_stripe_refuses_is_refused_with_its_code_and_parameter(shop: Shop) -> None:
    customer, good = shop.customer(), shop.price()
    inactive = shop.sdk.prices.update(shop.price().id, {"active": False})
    once = shop.sdk.prices.create({"currency": "usd", "unit_amount": 100, "product_data": {"name": "One"}})
    euros, yearly = shop.price(currency="eur"), shop.price(recurring=YEAR)
    foreign = shop.sdk.payment_methods.attach("pm_card_visa", {"customer": shop.customer().id})
    item_of = [{"price": good.id}]
    for params, param, code in (
        ({"items": [{"price": "price_none"}]}, "items[0][price]", "resource_missing"),
        ({"items": [{"price": inactive.id}]}, "items[0][price]", None),
        ({"items": [{"price": once.id}]}, "items[0][price]", None),
        ({"items": [*item_of, {"price": euros.id}]}, "items[1][price]", None),
        ({"items": [*item_of, {"price": yearly.id}]}, "items[1][price]", None),
        ({"items": [*item_of, *item_of]}, "items", None),
        ({"items": item_of, "currency": "eur"}, "items[0][price]", None),
        ({"items": [{"price": good.id, "quantity": -1}]}, "items[0][quantity]", None),
        ({"items": item_of, "default_payment_method": foreign.id}, "default_payment_method", "resource_missing"),
        ({"items": item_of, "trial_end": 1}, "trial_end", None),
        ({"items": item_of, "trial_end": "soon"}, "trial_end", "parameter_invalid_integer"),
        ({"items": item_of, "trial_period_days": 731}, "trial_period_days", None),
        ({"items": [{"price": good.id, "quantity": 100_000}]}, "items", "amount_too_large"),
        ({"items": item_of, "billing_cycle_anchor": 1}, "billing_cycle_anchor", None),
        ({"items": item_of, "billing_cycle_anchor": 10**17}, "billing_cycle_anchor", "parameter_invalid_integer"),
        ({"items": item_of, "discounts": [{"coupon": "half"}]}, "discounts", None),
        ({"items": item_of, "color": "red"}, "color", "parameter_unknown"),
        ({"items": [{"price": good.id, "size": "1"}]}, "items[0][size]", "parameter_unknown"),
        ({"items": item_of, "payment_behavior": "hope"}, "payment_behavior", None),
        ({"items": item_of, "customer": "cus_none"}, "customer", "resource_missing"),
        ({}, "items", "parameter_missing"),
    ):
        given: Any = {"customer": customer.id, **params}
        with pytest.raises(stripe.InvalidRequestError) as no:
            shop.sdk.subscriptions.create(given)
        assert (no.value.http_status, no.value.param, no.value.code) == (400, param, code)
    assert list(shop.sdk.subscriptions.list({"customer": customer.id}).data) == []


def test_without_a_card_a_subscription_that_costs_is_refused(shop: Shop) -> None:
    with pytest.raises(stripe.InvalidRequestError) as no:
        shop.subscribe(shop.customer(None))
    assert (no.value.http_status, no.value.code) == (400, "resource_missing")
    assert shop.subscribe(shop.customer(None), shop.price(0)).status == "active"


def test_a_customer_is_billed_in_one_currency_at_a_time(shop: Shop) -> None:
    customer, euros = shop.customer(), shop.price(currency="eur")
    subscription = shop.subscribe(customer)
    with pytest.raises(stripe.InvalidRequestError):
        shop.subscribe(customer, euros)
    with pytest.raises(stripe.InvalidRequestError) as no:
        switch(shop, subscription, euros)
    assert no.value.param == "items[0][price]"
    shop.sdk.subscriptions.cancel(subscription.id)
    assert shop.subscribe(customer, euros).currency == "eur"


def test_products_and_prices_that_do_not_fit_are_refused(shop: Shop) -> None:
    product = shop.sdk.products.create({"name": "Plan", "default_price_data": {"currency": "usd", "unit_amount": 5_00}})
    assert shop.sdk.prices.retrieve(product.default_price).unit_amount == 5_00
    for params, param in (
        ({"product": "prod_none", "unit_amount": 1_00}, "product"),
        ({"unit_amount": 1_00}, "product"),
        ({"product": product.id}, "unit_amount"),
        ({"product": product.id, "unit_amount": -1}, "unit_amount"),
        ({"product": product.id, "unit_amount": 1_00, "recurring": {"interval": "fortnight"}}, "recurring[interval]"),
        (
            {"product": product.id, "unit_amount": 1_00, "recurring": {"interval": "year", "interval_count": 4}},
            "recurring[interval_count]",
        ),
        ({"product": product.id, "unit_amount": 1_00, "currency": "zzz"}, "currency"),
    ):
        given: Any = {"currency": "usd", **params}
        with pytest.raises(stripe.InvalidRequestError) as no:
            shop.sdk.prices.create(given)
        assert (no.value.http_status, no.value.param) == (400, param)
    with pytest.raises(stripe.InvalidRequestError, match="has prices"):
        shop.sdk.products.delete(product.id)
    shop.sdk.products.update(product.id, {"active": False})
    with pytest.raises(stripe.InvalidRequestError, match="not active"):
        shop.sdk.prices.create({"currency": "usd", "unit_amount": 1_00, "product": product.id})


# Lists


def test_products_prices_and_subscriptions_are_listed_by_what_they_are(own: Shop) -> None:
    monthly = own.price(lookup_key="basic")
    other = own.price(product=monthly.product, recurring=YEAR)
    own.sdk.prices.update(other.id, {"active": False})
    listed = own.sdk.prices.list
    assert {p.id for p in listed({"product": monthly.product}).data} == {monthly.id, other.id}
    assert [p.id for p in listed({"product": monthly.product, "active": False}).data] == [other.id]
    assert [p.id for p in listed({"lookup_keys": ["basic", "pro"]}).data] == [monthly.id]
    with pytest.raises(stripe.InvalidRequestError) as taken:
        own.price(lookup_key="basic")
    assert taken.value.param == "lookup_key"
    heir = own.price(lookup_key="basic", transfer_lookup_key=True)
    assert [p.id for p in listed({"lookup_keys": ["basic"]}).data] == [heir.id]

    customer = own.customer()
    alive, gone, trial = (own.subscribe(customer, p, **m) for p, m in ((monthly, {}), (heir, {}), (heir, _TRIAL)))
    own.sdk.subscriptions.cancel(gone.id)
    for params, expected in (
        ({}, [trial, alive]),
        ({"status": "all"}, [trial, gone, alive]),
        ({"status": "ended"}, [gone]),
        ({"status": "trialing"}, [trial]),
        ({"price": heir.id, "status": "all"}, [trial, gone]),
    ):
        given: Any = {"customer": customer.id, **params}
        assert [s.id for s in own.sdk.subscriptions.list(given).data] == [s.id for s in expected]
    pages = own.sdk.subscriptions.list({"customer": customer.id, "status": "all", "limit": 1})
    assert pages.has_more
    assert [s.id for s in pages.auto_paging_iter()] == [trial.id, gone.id, alive.id]


_TRIAL: Any = {"trial_period_days": 5}


def test_invoices_are_listed_by_customer_subscription_and_status(shop: Shop) -> None:
    customer = shop.customer()
    first, second = shop.subscribe(customer), shop.subscribe(customer)
    shop.go_to(period(first)[1] + 10)
    listed = shop.sdk.invoices.list
    assert len(listed({"customer": customer.id}).data) == 4
    assert [i.billing_reason for i in listed({"subscription": second.id}).data] == [
        "subscription_cycle", "subscription_create",
    ]  # fmt: skip
    drafts = listed({"customer": customer.id, "status": "draft", "expand": ["data.customer"]}).data
    assert {i.parent.subscription_details.subscription for i in drafts} == {first.id, second.id}
    assert {i.customer.id for i in drafts} == {customer.id}
    assert {line.invoice for line in shop.sdk.invoices.line_items.list(drafts[0].id).data} == {drafts[0].id}


# Keys, kills, webhooks


def test_one_key_makes_one_subscription_and_charges_once(shop: Shop) -> None:
    customer, price, once = shop.customer(), shop.price(), key()
    params: Any = {"customer": customer.id, "items": [{"price": price.id}]}
    made = [shop.sdk.subscriptions.create(params, once).id for _ in range(3)]
    assert len(set(made)) == 1
    shop.fault("POST /v1/subscriptions", "reply_lost")
    lost = key()
    with pytest.raises(stripe.APIConnectionError):
        shop.sdk.subscriptions.create(params, {**lost, "max_network_retries": 0})
    shop.sdk.subscriptions.create(params, lost)
    assert len(shop.sdk.subscriptions.list({"customer": customer.id}).data) == 2
    assert len(shop.sdk.charges.list({"customer": customer.id}).data) == 2


def test_a_kill_in_the_middle_of_the_years_loses_and_repeats_nothing(own: Shop) -> None:
    own.dunning(retry_days=[2], then="unpaid")
    subscriptions = [own.subscribe(own.customer()), failing(own), own.subscribe(own.customer(), trial_period_days=9)]
    switch(own, subscriptions[0], own.price(20_00))
    for _ in range(7):
        own.control.post("/clock", json={"advance_s": 40 * DAY_S, "at_most": 3})
        before = own.settled()
        own.kill()
        own.launch()
        assert own.settled() == before
    assert own.control.get("/billing").json()["then"] == "unpaid"
    own.go_to(own.now() + 60 * DAY_S)
    state = own.state()
    for subscription in subscriptions:
        periods = [
            (line["period"]["start"], line["period"]["end"])
            for invoice in state["invoices"]
            for line in invoice["lines"]["data"]
            if line["subscription"] == subscription.id and not line["parent"]["subscription_item_details"]["proration"]
        ]
        assert [end for _, end in periods[:-1]] == [start for start, _ in periods[1:]]
        assert len(periods) > 3
    notices = [e for e in state["events"] if e["type"] == "customer.subscription.trial_will_end"]
    assert len(notices) <= 1


def test_a_notice_is_given_once_even_across_a_kill(own: Shop) -> None:
    subscription = own.subscribe(own.customer(), trial_period_days=9)
    own.go_to(subscription.trial_end - 2 * DAY_S)
    own.kill()
    own.launch()
    own.sdk.subscriptions.update(subscription.id, {"metadata": {"a": "b"}})
    own.go_to(subscription.trial_end - DAY_S)
    assert len(own.told(subscription, "customer.subscription.trial_will_end")) == 1


def test_events_are_kept_for_thirty_days(own: Shop) -> None:
    subscription = own.subscribe(own.customer())
    own.go_to(period(subscription)[1] + 40 * DAY_S)
    state = own.state()
    assert min(e["created"] for e in state["events"]) >= max(e["created"] for e in state["events"]) - 30 * DAY_S
    assert {e["type"] for e in state["events"]} >= {"invoice.paid", "charge.succeeded"}
    own.kill()
    own.launch()
    assert own.state()["events"] == state["events"]


def test_the_events_of_renewals_are_delivered_signed_however_far_the_clock_jumps(tmp_path: Path) -> None:
    async def use(sandbox: Sandbox) -> None:
        price = await sandbox.ask(
            "POST", "/v1/prices", currency="usd", unit_amount="900",
            **{"recurring[interval]": "month", "product_data[name]": "Plan"},
        )  # fmt: skip
        customer = await sandbox.ask(
            "POST", "/v1/customers", payment_method="pm_card_visa",
            **{"invoice_settings[default_payment_method]": "pm_card_visa"},
        )  # fmt: skip
        form = {"customer": customer["id"], "items[0][price]": price["id"]}
        subscription = await sandbox.ask("POST", "/v1/subscriptions", **form)
        clock = f"{sandbox.url}/_sandbox/clock"
        async with sandbox.http.post(clock, json={"advance_s": 200 * DAY_S}) as answer:
            assert answer.status == 200
        invoices = await sandbox.ask("GET", f"/v1/invoices?subscription={subscription['id']}&limit=100")
        paid = {invoice["id"] for invoice in invoices["data"] if invoice["status"] == "paid"}
        assert len(paid) >= 6
        receiver = sandbox.receiver

        def told() -> set[str]:
            events = [json.loads(body) for body, _ in receiver.got]
            return {event["data"]["object"]["id"] for event in events if event["type"] == "invoice.paid"}

        await receiver.wait_for(lambda: told() == paid)

    run(tmp_path, use)


# Refunds of what was paid for a subscription


def test_a_refund_shows_on_the_charge_that_paid_an_invoice_and_the_invoice_stays_paid(shop: Shop) -> None:
    customer = shop.customer()
    subscription = shop.subscribe(customer, shop.price(10_00))
    [invoice] = shop.invoices(subscription)
    paid = shop.sdk.invoices.retrieve(invoice.id, {"expand": ["payments"]})
    shop.sdk.refunds.create({"payment_intent": paid.payments.data[0].payment.payment_intent, "amount": 4_00})
    [charge] = shop.sdk.charges.list({"customer": customer.id, "expand": ["data.refunds"]}).data
    assert (charge.amount_refunded, charge.refunded, charge.refunds.has_more) == (4_00, False, False)
    assert [one.amount for one in charge.refunds.data] == [4_00]
    assert shop.told(customer, "charge.refunded") == [("charge.refunded", charge.refunds.data[0].created)]
    after = shop.sdk.invoices.retrieve(invoice.id)
    assert (after.status, after.amount_paid, shop.subscription(subscription).status) == ("paid", 10_00, "active")


def test_a_charge_brings_its_latest_refunds_along(shop: Shop) -> None:
    customer = shop.customer()
    shop.subscribe(customer, shop.price(10_00))
    [charge] = shop.sdk.charges.list({"customer": customer.id}).data
    made = [shop.sdk.refunds.create({"charge": charge.id, "amount": 1}).id for _ in range(11)]
    refunds = shop.sdk.charges.retrieve(charge.id, {"expand": ["refunds"]}).refunds
    assert ([one.id for one in refunds.data], refunds.has_more) == (made[:0:-1], True)


def test_some_cards_send_a_refund_back_after_a_day(shop: Shop) -> None:
    customer = shop.customer("pm_card_refundFail")
    shop.subscribe(customer, shop.price(10_00))
    [charge] = shop.sdk.charges.list({"customer": customer.id}).data
    refund = shop.sdk.refunds.create({"charge": charge.id})
    assert refund.status == "succeeded"
    shop.advance(DAY_S)
    failed = shop.sdk.refunds.retrieve(refund.id)
    assert (failed.status, failed.failure_reason) == ("failed", "expired_or_canceled_card")
    moved = shop.sdk.balance_transactions.retrieve(failed.failure_balance_transaction)
    assert (moved.amount, moved.type, moved.source) == (10_00, "refund_failure", refund.id)
    again = shop.sdk.charges.retrieve(charge.id)
    assert (again.amount_refunded, again.refunded) == (0, False)
    told = [one for one in shop.state()["events"] if one["data"]["object"]["id"] == refund.id]
    assert [one["type"] for one in told] == ["refund.created", "refund.updated", "refund.failed"]
    assert shop.sdk.refunds.create({"charge": charge.id}).amount == 10_00
