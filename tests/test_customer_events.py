"""What the stand-in tells of customers, subscriptions and invoices, and what the ledger makes of it."""

from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any
from uuid import UUID, uuid4

import pytest
from msgspec import convert
from msgspec.structs import replace

from application.inbox import Entry, first_verdict
from application.inbox_handling import MAX_CONTRADICTIONS, UNMATCHED
from application.stripe_events import StripeEvent, event
from application.subscriptions import Wanted
from domain.errors import AlreadySubscribed
from domain.money import Money
from domain.payment_commands import Authorize
from domain.payment_facts import Captured
from domain.subscription import Subscription
from domain.subscription_facts import InvoiceRefunded, SubscriptionRenewed
from domain.subscription_paid import paid_until
from interface.sandbox.postgres import Postgres
from tests.billing_desk_side import EVERY_TRY, MASTERCARD, VISA, BillingDesk, Gone, Life, desk_on, everything, unique
from tests.billing_told_side import handle, pay, told
from tests.test_stripe_billing_standin import DAY_S, POOR

MONTH_S = 32 * DAY_S
REFUNDS = ("charge.refunded", "refund.")
# Handling takes fewer steps than this.
MANY = 40


@pytest.fixture(scope="module")
def shared(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BillingDesk]:
    with desk_on(postgres, tmp_path_factory.mktemp("stripe")) as desk:
        yield desk


@pytest.fixture
def desk(shared: BillingDesk) -> Iterator[BillingDesk]:
    with shared.for_a_test() as desk:
        yield desk


@pytest.fixture
def customer(desk: BillingDesk) -> UUID:
    return desk.customer()


@pytest.fixture
def theirs(desk: BillingDesk, customer: UUID) -> str:
    """The provider's name for the customer."""
    return name_of(desk, customer)


def name_of(desk: BillingDesk, customer: UUID) -> str:
    return str(desk.who(customer).provider_customer)


def entry(kind: str, customer: str | None = None, **more: Any) -> Entry:
    """An event about nothing but what is said here."""
    about = {"payment_intent": None, "payment": None, "operation": None, "subscription": None, **more}
    return Entry(event_id=unique("evt"), type=kind, customer=customer, fence=1, attempts=1, **about)


def renewals(desk: BillingDesk, subscription: UUID) -> Counter[str]:
    """How often each invoice was recorded as paid."""
    facts = (envelope.fact for envelope in desk.ledger.load(subscription).envelopes)
    return Counter(fact.invoice for fact in facts if isinstance(fact, SubscriptionRenewed))


def paid_at_stripe(desk: BillingDesk, subscription: UUID) -> Counter[str]:
    name = desk.subscription(subscription).provider_subscription
    invoices = desk.shop.sdk.invoices.list({"subscription": name, "status": "paid", "limit": 100}).data
    return Counter(invoice.id for invoice in invoices)


def only(desk: BillingDesk, customer: UUID) -> tuple[UUID, Subscription]:
    """The customer's one subscription."""
    [stream] = {one.stream for one in everything(desk.ledger, desk.after) if getattr(one.fact, "trial_days", None) == 0}
    known = desk.subscription(stream)
    assert known.customer == customer
    return stream, known


# --- Renewals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_each_period_is_renewed_once_however_its_events_come(
    desk: BillingDesk, customer: UUID, theirs: str, seed: int
) -> None:
    random, begun = Random(seed), desk.subscribed(customer).story.stream
    desk.shop.advance(3 * MONTH_S)
    entries = told(desk, theirs) * 2
    random.shuffle(entries)
    while entries:
        together = [entries.pop() for _ in range(min(len(entries), random.randrange(1, 12)))]
        assert handle(desk, *together).state == "done"
    assert renewals(desk, begun) == paid_at_stripe(desk, begun)
    assert len(renewals(desk, begun)) >= 4
    assert set(renewals(desk, begun).values()) == {1}


def test_a_charge_that_names_no_invoice_leads_to_all_that_its_customer_is_subscribed_to(
    desk: BillingDesk, customer: UUID, theirs: str
) -> None:
    begun = [desk.subscribed(customer).story.stream for _ in range(2)]
    desk.shop.advance(MONTH_S)
    assert handle(desk, told(desk, theirs, "charge.succeeded")[-1]).state == "done"
    for stream in begun:
        assert renewals(desk, stream) == paid_at_stripe(desk, stream)
        assert len(renewals(desk, stream)) == 2


def test_a_renewal_that_fails_is_told_and_heals(desk: BillingDesk, customer: UUID, theirs: str) -> None:
    begun = desk.subscribed(customer).story.stream
    poor = desk.shop.sdk.payment_methods.attach(POOR, {"customer": theirs})
    assert desk.card(customer, poor.id).outcome == "done"
    desk.shop.advance(MONTH_S)
    assert handle(desk, told(desk, theirs, "charge.failed")[-1]).state == "done"
    known = desk.subscription(begun)
    assert (known.status, known.payment_status) == ("past_due", "failed")
    assert known.latest_invoice is not None
    assert known.latest_invoice[1].failure is not None
    assert known.latest_invoice[1].failure.code == "card_declined"
    assert desk.card(customer, VISA).outcome == "done"
    desk.shop.advance(1)  # Stripe tells time in seconds: of two in the same one what is owed holds
    desk.shop.sdk.invoices.pay(known.latest_invoice[0])
    assert handle(desk, *told(desk, theirs, "invoice.paid")).state == "done"
    known = desk.subscription(begun)
    assert (known.status, known.payment_status) == ("active", "paid")


def test_what_is_handled_by_a_process_that_ends_is_handled_again(
    desk: BillingDesk, customer: UUID, theirs: str
) -> None:
    begun = desk.subscribed(customer).story.stream
    for ends_before in range(1, MANY):
        desk.shop.advance(MONTH_S)
        entries = told(desk, theirs, "invoice.paid", "customer.")[-4:]
        try:
            handle(desk, *entries, life=Life(ends_before))
        except Gone:
            assert handle(desk, *entries).state == "done"
        else:
            break
    assert 2 < ends_before < MANY - 1
    assert renewals(desk, begun) == paid_at_stripe(desk, begun)


# --- Whose it is -------------------------------------------------------------------------------------------------


def test_what_is_nobodys_of_ours_is_unmatched(desk: BillingDesk) -> None:
    stranger = desk.shop.customer()
    desk.shop.subscribe(stranger)
    entries = told(desk, stranger.id)
    assert len(entries) > 2
    before = len(everything(desk.ledger))
    assert handle(desk, *entries) == UNMATCHED
    assert handle(desk, entry("customer.updated", "cus_nobody")) == UNMATCHED
    assert handle(desk, entry("invoice.paid")) == UNMATCHED
    assert len(everything(desk.ledger)) == before


def test_a_customer_with_the_mark_of_another_ledger_is_unmatched_and_nothing_of_it_is_adopted(
    desk: BillingDesk,
) -> None:
    stranger = desk.shop.customer(metadata={"payledger_stream": str(uuid4())})
    subscription = desk.shop.subscribe(stranger)
    before = len(everything(desk.ledger))
    for kind, about in (("customer.updated", None), ("invoice.paid", subscription.id)):
        assert handle(desk, entry(kind, stranger.id, subscription=about)).state == "unmatched"
    assert len(everything(desk.ledger)) == before


def test_a_customer_is_known_by_its_mark_before_a_read_model_knows_it(
    desk: BillingDesk, customer: UUID, theirs: str
) -> None:
    begun = desk.subscribed(customer).story.stream
    assert handle(desk.beside(blind=True), *told(desk, theirs, "invoice.paid")).state == "done"
    assert renewals(desk, begun) == paid_at_stripe(desk, begun)


def test_what_is_for_somebody_elses_account_is_unmatched_when_it_comes(
    desk: BillingDesk, customer: UUID, theirs: str
) -> None:
    desk.subscribed(customer)
    raw = [one for one in desk.shop.state()["events"] if one["data"]["object"].get("customer") == theirs]
    assert {first_verdict(event(convert(one, StripeEvent))).state for one in raw} == {"waiting"}
    other = [event(convert({**one, "account": "acct_other"}, StripeEvent)) for one in raw]
    assert {first_verdict(one).state for one in other} == {"unmatched"}


# --- Refunds -----------------------------------------------------------------------------------------------------


def paid_with(desk: BillingDesk, subscription: UUID) -> str:
    """The PaymentIntent of its latest invoice."""
    name = desk.subscription(subscription).provider_subscription
    [last] = desk.shop.sdk.invoices.list({"subscription": name, "limit": 1, "expand": ["data.payments"]}).data
    return str(last.payments.data[0].payment.payment_intent)


def give_back(desk: BillingDesk, subscription: UUID, minor: int) -> list[Entry]:
    """Made in the provider's dashboard; all that was ever told of what paid the latest invoice."""
    intent = paid_with(desk, subscription)
    desk.shop.sdk.refunds.create({"payment_intent": intent, "amount": minor})
    return of_payment(desk, intent)


def of_payment(desk: BillingDesk, intent: str) -> list[Entry]:
    return [one for one in told(desk, None) if one.payment_intent == intent and one.type.startswith(REFUNDS)]


def refunded(desk: BillingDesk, subscription: UUID) -> list[int]:
    """How much of an invoice had gone back in all, fact by fact."""
    facts = (envelope.fact for envelope in desk.ledger.load(subscription).envelopes)
    return [fact.amount.minor for fact in facts if isinstance(fact, InvoiceRefunded)]


@pytest.mark.parametrize("kind", ["charge.refunded", "refund.created"])
def test_a_refund_that_somebody_made_at_the_provider_is_known_here(
    desk: BillingDesk, customer: UUID, kind: str
) -> None:
    """A refund does not say whose it is."""
    begun = desk.subscribed(customer).story.stream
    for minor, status in ((3_00, "paid"), (7_00, "refunded")):
        hint = [one for one in give_back(desk, begun, minor) if one.type == kind][-1]
        assert (hint.customer is None, hint.payment) == (kind == "refund.created", None)
        for _ in range(2):
            assert handle(desk, hint).state == "done"
        assert desk.subscription(begun).payment_status == status
    assert refunded(desk, begun) == [3_00, 10_00]


def test_refunds_are_known_in_whatever_order_they_are_told(desk: BillingDesk, customer: UUID) -> None:
    begun = desk.subscribed(customer).story.stream
    give_back(desk, begun, 1_00)
    entries = give_back(desk, begun, 2_00)
    assert len(entries) == 4
    for late in reversed(entries):
        assert handle(desk, late).state == "done"
    assert refunded(desk, begun) == [3_00]


def test_any_look_finds_a_refund_that_nobody_told_of(desk: BillingDesk, customer: UUID, theirs: str) -> None:
    begun = desk.subscribed(customer).story.stream
    give_back(desk, begun, 10_00)
    assert handle(desk, told(desk, theirs, "customer.subscription.")[-1]).state == "done"
    known = desk.subscription(begun)
    assert (known.payment_status, paid_until(known)) == ("refunded", None)
    desk.shop.advance(MONTH_S)
    assert handle(desk, told(desk, theirs, "invoice.paid")[-1]).state == "done"
    assert desk.subscription(begun).payment_status == "paid"
    assert refunded(desk, begun) == [10_00]


def test_what_was_given_back_and_came_back_is_paid_again(desk: BillingDesk) -> None:
    customer = desk.customer("pm_card_refundFail")
    begun = desk.subscribed(customer).story.stream
    assert handle(desk, *give_back(desk, begun, 10_00)).state == "done"
    assert desk.subscription(begun).payment_status == "refunded"
    desk.shop.advance(DAY_S)
    [failed] = [one for one in of_payment(desk, paid_with(desk, begun)) if one.type == "refund.failed"]
    assert handle(desk, failed).state == "done"
    assert refunded(desk, begun) == [10_00, 0]
    assert desk.subscription(begun).payment_status == "paid"


def test_a_refund_of_nobodys_payment_is_no_news(desk: BillingDesk) -> None:
    nobodys = desk.shop.sdk.charges.create({"amount": 1_00, "currency": "usd", "source": "tok_visa"})
    strangers = desk.shop.subscribe(desk.shop.customer())
    paid = desk.shop.sdk.charges.list({"customer": strangers.customer}).data[0].payment_intent
    for about in (nobodys.id, paid, "pi_none"):
        assert handle(desk, entry("refund.created", payment_intent=about)) == UNMATCHED


def test_whose_a_refund_is_may_be_learned_later(desk: BillingDesk, customer: UUID) -> None:
    begun = desk.subscribed(customer).story.stream
    hint = [one for one in give_back(desk, begun, 10_00) if one.type == "refund.created"][-1]
    for request in ("GET /v1/payment_intents/*", "GET /v1/charges"):
        desk.shop.fault(request, "refused", times=EVERY_TRY)
        assert handle(desk, hint).state == "waiting"
        desk.shop.control.delete("/faults")
    assert handle(desk, hint).state == "done"
    assert refunded(desk, begun) == [10_00]


# --- Made elsewhere ----------------------------------------------------------------------------------------------


def test_a_subscription_that_somebody_made_at_the_provider_becomes_the_customers(
    desk: BillingDesk, customer: UUID, theirs: str
) -> None:
    price = desk.shop.price()
    made = desk.shop.sdk.subscriptions.create({"customer": theirs, "items": [{"price": price.id, "quantity": 2}]})
    for _ in range(2):
        assert handle(desk, *told(desk, theirs)).state == "done"
    stream, known = only(desk, customer)
    assert (known.provider_subscription, known.status, known.quantity) == (made.id, "active", 2)
    assert renewals(desk, stream) == paid_at_stripe(desk, stream)
    assert desk.facts(stream).count("SubscriptionStarted") == 1
    with pytest.raises(AlreadySubscribed):
        desk.begin(customer, Wanted(price.product))
    assert desk.cancel(stream).outcome == "done"
    assert desk.begin(customer, Wanted(price.product)).outcome == "done"


@pytest.mark.parametrize("how", ["over", "ending"])
def test_a_subscription_that_is_over_or_will_be_when_it_is_first_heard_of_is_so_here(
    desk: BillingDesk, customer: UUID, theirs: str, how: str
) -> None:
    made = desk.shop.sdk.subscriptions.create({"customer": theirs, "items": [{"price": desk.shop.price().id}]})
    if how == "over":
        desk.shop.sdk.subscriptions.cancel(made.id)
    else:
        desk.shop.sdk.subscriptions.update(made.id, {"cancel_at_period_end": True})
    assert handle(desk, told(desk, theirs, "customer.subscription.")[-1]).state == "done"
    _, known = only(desk, customer)
    assert known.status == ("cancelled" if how == "over" else "active")
    assert known.ends_at is not None


def test_what_is_changed_at_the_provider_is_changed_here(desk: BillingDesk, customer: UUID, theirs: str) -> None:
    begun, dearer, sdk = desk.subscribed(customer).story, desk.shop.price(20_00), desk.shop.sdk
    name = begun.known.provider_subscription
    [item] = sdk.subscriptions.retrieve(name)["items"].data
    sdk.subscriptions.update(name, {"items": [{"id": item.id, "price": dearer.id}]})
    assert handle(desk, told(desk, theirs, "customer.subscription.updated")[-1]).state == "done"
    known = desk.subscription(begun.stream)
    assert known.terms is not None
    assert known.terms.value.price == dearer.id
    sdk.subscriptions.cancel(name)
    assert handle(desk, told(desk, theirs, "customer.subscription.deleted")[-1]).state == "done"
    assert desk.subscription(begun.stream).status == "cancelled"


# --- Cards -------------------------------------------------------------------------------------------------------


def test_a_card_that_is_changed_in_the_providers_portal_is_known_here(
    desk: BillingDesk, customer: UUID, theirs: str
) -> None:
    sdk = desk.shop.sdk
    portal = sdk.payment_methods.attach(MASTERCARD, {"customer": theirs})
    sdk.customers.update(theirs, {"invoice_settings": {"default_payment_method": portal.id}})
    assert handle(desk, told(desk, theirs, "customer.updated")[-1]).state == "done"
    known = desk.who(customer)
    assert (known.payment_method, known.card and known.card.brand) == (portal.id, "mastercard")
    before = desk.facts(customer)
    assert handle(desk, *told(desk, theirs)).state == "done"
    assert desk.facts(customer) == before

    answer = desk.shop.control.post(f"/cards/{portal.id}", json={"exp_month": 3, "exp_year": 2077})
    assert answer.status_code == 200, answer.text
    assert handle(desk, told(desk, theirs, "payment_method.automatically_updated")[-1]).state == "done"
    card = desk.who(customer).card
    assert card is not None
    assert (card.exp_month, card.exp_year) == (3, 2077)

    sdk.payment_methods.detach(portal.id)
    assert handle(desk, told(desk, theirs, "payment_method.detached")[-1]).state == "done"
    assert (desk.who(customer).card, desk.who(customer).payment_method) == (None, None)


def test_a_customer_that_is_deleted_at_the_provider_has_nothing_to_pay_with_and_nothing_to_pay_for(
    desk: BillingDesk, customer: UUID, theirs: str
) -> None:
    begun = desk.subscribed(customer).story.stream
    desk.shop.sdk.customers.delete(theirs)
    entries = told(desk, theirs, "customer.deleted", "customer.subscription.deleted")
    assert {one.type for one in entries} == {"customer.deleted", "customer.subscription.deleted"}
    for _ in range(2):
        assert handle(desk, *entries).state == "done"
    assert desk.who(customer).card is None
    assert desk.subscription(begun).status == "cancelled"
    assert desk.facts(customer).count("CardRemoved") == 1
    assert desk.card(customer, MASTERCARD).outcome == "failed"
    assert desk.begin(customer, Wanted(desk.shop.price().product)).outcome == "failed"


def test_a_renewal_does_not_wait_for_a_card_that_is_being_changed(
    desk: BillingDesk, customer: UUID, theirs: str
) -> None:
    begun = desk.subscribed(customer).story.stream
    desk.shop.advance(MONTH_S)
    desk.shop.fault("POST /v1/customers/*", "refused", times=EVERY_TRY)
    assert desk.card(customer, MASTERCARD).outcome == "open"
    verdict = handle(desk, *told(desk, theirs, "invoice.paid", "customer.updated", "payment_method."))
    assert (verdict.state, verdict.note) == ("waiting", "NotLearned: an operation is under way")
    assert renewals(desk, begun) == paid_at_stripe(desk, begun)
    assert len(renewals(desk, begun)) == 2


# --- Payments of ours --------------------------------------------------------------------------------------------


def captured_by_hand(desk: BillingDesk) -> tuple[UUID, str]:
    """A payment of ours that somebody captured at the provider; and its PaymentIntent."""
    stream = uuid4()
    answer = pay(desk, stream, Authorize("pay-1", Money(10_00, "usd"), "manual", VISA))
    intent = answer.at.payment.payment_intent
    assert intent is not None
    desk.shop.sdk.payment_intents.capture(intent)
    return stream, intent


def test_a_charge_is_a_payments_or_an_invoices(desk: BillingDesk, customer: UUID, theirs: str) -> None:
    """Also when both are handled together, and neither bears our mark."""
    begun = desk.subscribed(customer).story.stream
    for together in (False, True):
        payment, intent = captured_by_hand(desk)
        desk.shop.advance(MONTH_S)
        for_payment = entry("charge.succeeded", theirs, payment_intent=intent)
        for_invoice = told(desk, theirs, "charge.succeeded")[-1]
        hint = told(desk, theirs, "invoice.paid")[-1]
        assert for_invoice.payment is None
        groups = [[for_invoice, hint, for_payment]] if together else [[for_payment], [for_invoice]]
        assert [handle(desk, *group).state for group in groups] == ["done"] * len(groups)
        assert Captured.__name__ in desk.facts(payment)
        assert renewals(desk, begun) == paid_at_stripe(desk, begun)


# --- Whatever goes wrong -----------------------------------------------------------------------------------------


def test_what_cannot_be_asked_is_asked_later(desk: BillingDesk, customer: UUID, theirs: str) -> None:
    begun = desk.subscribed(customer).story.stream
    entries = told(desk, theirs, "invoice.paid", "customer.updated")
    for request in ("GET /v1/subscriptions/*", "GET /v1/invoices", "GET /v1/customers/*"):
        desk.shop.fault(request, "refused", times=EVERY_TRY)
        assert handle(desk, *entries).state == "waiting"
        desk.shop.control.delete("/faults")
    desk.shop.fault("GET /v1/subscriptions", "error", status=500, times=EVERY_TRY)
    assert handle(desk, entry("charge.succeeded", theirs, payment_intent="pi_nothing")).state == "waiting"
    desk.shop.control.delete("/faults")
    assert handle(desk, *entries).state == "done"
    assert renewals(desk, begun) == paid_at_stripe(desk, begun)


def test_a_customer_that_was_refused_here_and_is_there_all_the_same_is_for_a_person(desk: BillingDesk) -> None:
    desk.shop.fault("POST /v1/customers", "error", status=400)
    refused = desk.register(unique("user")).story
    assert refused.known.status == "refused"
    there = desk.shop.customer(metadata={"payledger_stream": str(refused.stream)})
    hint = entry("customer.updated", there.id)
    assert handle(desk, hint).state == "waiting"
    assert handle(desk, replace(hint, attempts=MAX_CONTRADICTIONS)).state == "stuck"
    assert desk.who(refused.stream).card is None
