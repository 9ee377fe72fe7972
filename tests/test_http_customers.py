"""Customers and subscriptions through `/v1`, from the contract alone: what is sent, answered, and found at Stripe."""

import json
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import httpx
import psycopg
import pytest
import stripe
from psycopg.sql import SQL, Identifier

from domain import errors
from domain.payment_facts import Failure
from interface.web.billing_problems import declined, from_customer, from_subscription
from interface.web.customer_views import OpenProblem
from interface.web.problems import FieldError
from projections.customer_standing import CardDeclined, CardExpires, NoCard, RenewalFailed, SubscriptionUnpaid
from tests.given import NOON
from tests.processes import eventually
from tests.system import CHECKOUT, System, named, position, problem

CLICKS = 12
VISA, MASTERCARD = "pm_card_visa", "pm_card_mastercard"
# Declined when it is attached; attached, and declined whenever it is charged.
REFUSED, POOR = "pm_card_chargeDeclined", "pm_card_chargeCustomerFail"
# Enough for the first attempt and every retry of it, so that the outcome stays unknown.
FOR_GOOD = 20
# Longer than Stripe's word takes to come and to be handled.
TOLD_S = 30
CUSTOMER_MEMBERS = {
    "id", "status", "user", "email", "card", "failure", "stripe", "created_at", "updated_at", "version",
}  # fmt: skip
SUBSCRIPTION_MEMBERS = {
    "id", "customer", "status", "payment_status", "product", "price", "quantity", "amount", "currency", "interval",
    "interval_count", "trial_end", "period_start", "period_end", "paid_until", "ends_at", "latest_invoice", "failure",
    "stripe", "created_at", "updated_at", "version",
}  # fmt: skip


def unique(word: str) -> str:
    return f"{word}-{uuid.uuid4().hex[:12]}"


def email() -> str:
    return f"{unique('ada')}@example.com"


def ok(answer: httpx.Response, status: int = 200) -> dict[str, Any]:
    assert answer.status_code == status, f"{answer.status_code}: {answer.text}"
    read: dict[str, Any] = answer.json()
    return read


class Shop:
    """What is sold at the stand-in, and callers who buy it."""

    def __init__(self, system: System) -> None:
        self.system, self.http = system, system.http
        self.sdk = stripe.StripeClient("sk_test_standin", base_addresses={"api": system.stripe}).v1

    def price(self, amount: int = 12_00, product: str | None = None, interval: str = "month") -> Any:
        sold = {"product": product} if product else {"product_data": {"name": unique("Plan")}}
        wanted: Any = {"unit_amount": amount, "currency": "usd", "recurring": {"interval": interval}, **sold}
        return self.sdk.prices.create(wanted)

    def token(self) -> str:
        """A card token that can be used once."""
        return self.sdk.tokens.create(
            {"card": {"number": "5555555555554444", "exp_month": "12", "exp_year": "2040", "cvc": "123"}}
        ).id

    def register(self, **names: Any) -> httpx.Response:
        return self.http.post("/v1/customers", json=names)

    def registered(self, card: str | None = VISA, **names: Any) -> dict[str, Any]:
        customer = ok(self.register(**(names or {"user": unique("user")})), 201)
        return ok(self.card(customer["id"], card)) if card else customer

    def card(self, customer: str, method: str, **headers: str) -> httpx.Response:
        return self.http.put(f"/v1/customers/{customer}/card", json={"payment_method": method}, headers=headers)

    def subscribe(self, customer: str, product: str, *, key: str | None = None, **wanted: Any) -> httpx.Response:
        return self.system.post("/v1/subscriptions", {"customer": customer, "product": product} | wanted, key=key)

    def subscribed(self, customer: str, product: str | None = None, **wanted: Any) -> dict[str, Any]:
        return ok(self.subscribe(customer, product or self.price().product, **wanted), 201)

    def change(self, subscription: dict[str, Any], key: str | None = None, **wanted: Any) -> httpx.Response:
        headers = {"Idempotency-Key": key or unique("key")}
        return self.http.patch(f"/v1/subscriptions/{subscription['id']}", json=wanted, headers=headers)

    def cancel(self, subscription: dict[str, Any], key: str | None = None, **wanted: Any) -> httpx.Response:
        return self.system.post(f"/v1/subscriptions/{subscription['id']}/cancellation", wanted, key=key)

    def resume(self, subscription: dict[str, Any]) -> httpx.Response:
        headers = {"Idempotency-Key": unique("key")}
        return self.http.post(f"/v1/subscriptions/{subscription['id']}/resumption", headers=headers)

    def standing(self, customer: str) -> dict[str, Any]:
        """As the read model has it once it holds all that is in the log now."""
        found: dict[str, Any] = self.system.found(f"/v1/customers/{customer}", after=self.system.end_of_log())
        return found

    def at_stripe(self, kind: str, name: str) -> dict[str, Any]:
        [found] = [one for one in self.system.state()[kind] if one["id"] == name]
        return dict(found)


@pytest.fixture
def shop(system: System) -> Shop:
    return Shop(system)


# --- Customers ---------------------------------------------------------------------------------------------------


def test_a_customer_is_registered_once_however_often_it_is_asked(shop: Shop) -> None:
    names = {"user": unique("user"), "email": email()}
    first = shop.register(**names)
    customer = ok(first, 201)
    assert set(customer) == CUSTOMER_MEMBERS
    assert (customer["status"], customer["user"], customer["email"]) == ("active", names["user"], names["email"])
    assert (customer["card"], customer["failure"]) == (None, None)
    assert first.headers["Location"] == f"/v1/customers/{customer['id']}"
    again = shop.register(**names)
    assert ok(again) == customer
    assert again.headers["Idempotent-Replayed"] == "true"
    assert shop.at_stripe("customers", customer["stripe"]["customer"])["email"] == names["email"]


def test_clicks_at_once_are_one_customer(shop: Shop) -> None:
    names = {"user": unique("user"), "email": email()}
    with ThreadPoolExecutor(CLICKS) as threads:
        answers = list(threads.map(lambda _: shop.register(**names), range(CLICKS)))
    assert {answer.status_code for answer in answers} <= {200, 201, 202}
    customer = ok(shop.register(**names))
    assert {answer.json()["id"] for answer in answers} == {customer["id"]}
    assert sum(one["email"] == names["email"] for one in shop.system.state()["customers"]) == 1
    assert shop.standing(names["user"])["customer"]["id"] == customer["id"]


def test_a_customer_is_found_by_each_of_its_names(shop: Shop) -> None:
    user, address = unique("user"), email()
    customer = ok(shop.register(user=user, email=address), 201)
    for name in (customer["id"], user, address, address.upper()):
        assert shop.standing(name)["customer"]["id"] == customer["id"], name
    assert problem(shop.system.get(f"/v1/customers/{user.upper()}"), 404)["type"].endswith("customer-not-found")


def test_a_users_id_that_is_a_uuid_is_a_name_like_any_other(shop: Shop) -> None:
    user = "0b2f6a34-6a4b-4d8e-9a55-3a2f5e8a1c11"
    customer = shop.registered(user=user)
    assert shop.standing(user)["customer"]["id"] == customer["id"] != user
    assert ok(shop.card(user, MASTERCARD))["id"] == customer["id"]


def test_a_name_that_is_new_is_added_to_the_customer_that_the_other_names(shop: Shop) -> None:
    user, address = unique("user"), email()
    customer = ok(shop.register(user=user), 201)
    assert customer["email"] is None
    both = ok(shop.register(user=user, email=address))
    assert (both["id"], both["user"], both["email"]) == (customer["id"], user, address)
    assert ok(shop.register(email=address))["id"] == customer["id"]


def test_two_claims_on_one_email_are_refused(shop: Shop) -> None:
    address = email()
    ok(shop.register(user=unique("user"), email=address), 201)
    other = unique("user")
    refused = problem(shop.register(user=other, email=address), 409)
    assert (refused["type"], named(refused)) == ("urn:payledger:problem:name-taken", {"#/email"})
    assert "e-mail" in refused["detail"]
    known = ok(shop.register(user=other), 201)
    assert named(problem(shop.register(user=other, email=address), 409)) == {"#/email"}
    assert ok(shop.register(user=other))["id"] == known["id"]


@pytest.mark.parametrize(
    ("names", "field"),
    [
        ({}, "#/user"),
        ({"user": None, "email": None}, "#/user"),
        ({"user": ""}, "#/user"),
        ({"user": "ada@example.com"}, "#/user"),
        ({"user": "two words"}, "#/user"),
        ({"user": 42}, "#/user"),
        ({"user": "4242424242424242"}, "#/user"),
        ({"user": "u" * 255}, "#/user"),
        ({"email": "ada"}, "#/email"),
        ({"email": "a@b@c"}, "#/email"),
        ({"email": "@example.com"}, "#/email"),
        ({"user": "ada", "phone": "1"}, "#/phone"),
    ],
)
def test_a_name_that_nobody_can_have_is_named(shop: Shop, names: dict[str, Any], field: str) -> None:
    assert named(problem(shop.register(**names), 400)) == {field}


def test_an_email_is_shown_to_those_alone_who_may_read_and_kept_in_the_clear_nowhere(shop: Shop) -> None:
    address = email()
    writer = {"Authorization": f"Bearer {shop.system.new_token('writer', 'write:payment')}"}
    body = {"user": unique("user"), "email": address}
    customer = ok(shop.http.post("/v1/customers", json=body, headers=writer), 201)
    assert (customer["user"], customer["email"]) == (body["user"], None)
    problem(shop.http.get(f"/v1/customers/{customer['id']}", headers=writer), 403)
    assert shop.standing(address)["customer"]["email"] == address
    assert rows_with(shop, body["user"]) == {"ledger_events", "customers"}, "so is a name found that is in the clear"
    assert rows_with(shop, address) == set()
    logs = list((shop.system.data / "logs").iterdir())
    assert {"api.log", "project.log"} <= {log.name for log in logs}
    assert not [log.name for log in logs if address in log.read_text()]


def rows_with(shop: Shop, text: str) -> set[str]:
    """The tables in which a text stands, in letters or in bytes."""
    spelled = (f"%{text}%", f"%{text.encode().hex()}%")
    query = SQL("SELECT count(*) FROM {} AS row WHERE row::text LIKE %s OR row::text LIKE %s")
    with psycopg.connect(shop.system.database_url) as conn:
        tables = conn.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        counts = {name: conn.execute(query.format(Identifier(name)), spelled).fetchone() for (name,) in tables}
    return {name for name, count in counts.items() if count != (0,)}


def test_who_is_not_known_is_named_where_they_were_named(shop: Shop) -> None:
    nobody = unique("nobody")
    assert named(problem(shop.system.get(f"/v1/customers/{nobody}"), 404)) == {"customer"}
    assert named(problem(shop.system.get(f"/v1/customers/{uuid.uuid4()}/subscriptions"), 404)) == {"customer"}
    assert named(problem(shop.card(nobody, VISA), 404)) == {"customer"}
    assert named(problem(shop.subscribe(nobody, shop.price().product), 404)) == {"#/customer"}
    assert named(problem(shop.system.get("/v1/customers/a@b@c"), 400)) == {"customer"}
    assert named(problem(shop.subscribe("two words", "prod_1"), 400)) == {"#/customer"}
    for name in (uuid.uuid4(), "not-a-uuid"):
        problem(shop.system.get(f"/v1/subscriptions/{name}"), 404)
    problem(shop.cancel({"id": str(uuid.uuid4())}), 404)
    problem(shop.change({"id": str(uuid.uuid4())}, quantity=2), 404)
    problem(shop.resume({"id": str(uuid.uuid4())}), 404)


def test_what_is_something_else_is_no_customer_and_no_subscription(shop: Shop) -> None:
    payment, customer = shop.system.paid()["id"], shop.registered()["id"]
    problem(shop.card(payment, VISA), 404)
    problem(shop.subscribe(payment, "prod_1"), 404)
    for other in (payment, customer):
        problem(shop.system.get(f"/v1/subscriptions/{other}"), 404)
        problem(shop.cancel({"id": other}), 404)
        problem(shop.change({"id": other}, quantity=2), 404)
    problem(shop.system.move({"id": customer}, "captures"), 404)
    problem(shop.system.get(f"/v1/payments/{customer}/events"), 404)


def test_an_email_that_the_provider_does_not_take_is_named() -> None:
    """The stand-in takes any."""
    failure = Failure("email_invalid", None, "the provider would not make the customer", retryable=False)
    told = declined(failure, partial(FieldError, pointer="#/email"))
    assert (told.status, told.type, told.errors[0].pointer) == (422, "urn:payledger:problem:invalid-email", "#/email")
    assert declined(failure).status == 402


# --- Cards -------------------------------------------------------------------------------------------------------


def test_a_card_becomes_what_the_customer_and_its_subscriptions_pay_with(shop: Shop) -> None:
    customer = shop.registered(VISA)
    assert (customer["card"]["brand"], customer["card"]["last4"]) == ("visa", "4242")
    subscription = shop.subscribed(customer["id"])
    answer = shop.card(customer["user"], MASTERCARD)
    replaced = ok(answer)
    assert (replaced["card"]["brand"], replaced["id"]) == ("mastercard", customer["id"])
    there = shop.at_stripe("customers", customer["stripe"]["customer"])
    assert there["invoice_settings"]["default_payment_method"] == replaced["stripe"]["payment_method"]
    billed = shop.at_stripe("subscriptions", subscription["stripe"]["subscription"])
    assert billed["default_payment_method"] in {None, replaced["stripe"]["payment_method"]}
    assert shop.system.found(f"/v1/customers/{customer['id']}", after=position(answer))["customer"] == replaced


def test_a_card_that_is_declined_leaves_the_one_before(shop: Shop) -> None:
    customer = shop.registered(VISA)
    declined = problem(shop.card(customer["id"], REFUSED), 402)
    assert declined["type"] == "urn:payledger:problem:declined"
    assert (declined["customer"]["card"], declined["customer"]["id"]) == (customer["card"], customer["id"])
    assert declined["customer"]["failure"]["code"] == "card_declined"
    [amiss] = shop.standing(customer["id"])["open_problems"]
    assert (amiss["type"], amiss["failure"]["code"]) == ("card_declined", "card_declined")
    ok(shop.card(customer["id"], MASTERCARD))
    assert shop.standing(customer["id"])["open_problems"] == []


def test_a_token_that_is_sent_again_is_the_same_wish(shop: Shop) -> None:
    customer, token = shop.registered(None), shop.token()
    ok(shop.card(customer["id"], token))
    again = shop.card(customer["id"], token)
    assert ok(again)["card"]["last4"] == "4444"
    assert again.headers["Idempotent-Replayed"] == "true"


def test_a_token_that_was_used_for_somebody_else_or_before_is_refused_as_that(shop: Shop) -> None:
    first, second, token = shop.registered(VISA), shop.registered(VISA), shop.token()
    ok(shop.card(first["id"], token))
    used = problem(shop.card(second["id"], token), 422)
    assert (used["type"], named(used)) == ("urn:payledger:problem:token-already-used", {"#/payment_method"})
    assert used["customer"]["card"] == second["card"]
    ok(shop.card(first["id"], VISA))
    assert problem(shop.card(first["id"], token), 422)["type"].endswith("token-already-used")
    unknown = problem(shop.card(first["id"], "tok_nobody_has_made_this"), 422)
    assert (unknown["type"], named(unknown)) == ("urn:payledger:problem:unknown-token", {"#/payment_method"})


def test_a_key_names_one_card(shop: Shop) -> None:
    customer, key = shop.registered(None), unique("key")
    header = {"Idempotency-Key": key}
    ok(shop.card(customer["id"], VISA, **header))
    ok(shop.card(customer["id"], MASTERCARD))
    assert shop.card(customer["id"], VISA, **header).headers["Idempotent-Replayed"] == "true"
    assert shop.standing(customer["id"])["customer"]["card"]["brand"] == "mastercard", "it was not done again"
    assert named(problem(shop.card(customer["id"], MASTERCARD, **header), 422)) == {"Idempotency-Key"}
    assert named(problem(shop.card(customer["id"], VISA, **{"Idempotency-Key": "k" * 256}), 400)) == {"Idempotency-Key"}


@pytest.mark.parametrize("method", ["4242424242424242", "", "pm_", "visa", "pm_card visa", 42, None])
def test_what_is_no_token_is_named_and_a_card_number_is_not_repeated(shop: Shop, method: Any) -> None:
    refused = problem(shop.card(unique("user"), method), 400)
    assert named(refused) == {"#/payment_method"}
    assert "4242" not in json.dumps(refused)


def test_a_card_whose_outcome_is_not_known_is_answered_so_and_settled_later(shop: Shop) -> None:
    customer = shop.registered(None)
    with shop.system.fault("POST /v1/payment_methods/*/attach", "reply_lost", times=FOR_GOOD):
        assert ok(shop.card(customer["id"], VISA), 202)["card"] is None
        assert problem(shop.card(customer["id"], MASTERCARD), 409)["type"].endswith("operation-in-flight")
    assert ok(shop.card(customer["id"], VISA))["card"]["brand"] == "visa"


# --- Begin -------------------------------------------------------------------------------------------------------


def test_a_subscription_begins_and_is_paid_for_a_period(shop: Shop) -> None:
    customer, price = shop.registered(), shop.price(12_00)
    answer = shop.subscribe(customer["user"], price.product)
    subscription = ok(answer, 201)
    assert set(subscription) == SUBSCRIPTION_MEMBERS
    assert (subscription["status"], subscription["customer"]) == ("active", customer["id"])
    assert (subscription["product"], subscription["price"]) == (price.product, price.id)
    assert (subscription["amount"], subscription["currency"], subscription["interval"]) == (12_00, "usd", "month")
    assert answer.headers["Location"] == f"/v1/subscriptions/{subscription['id']}"
    assert answer.headers["ETag"] == f'"{subscription["version"]}"'
    there = shop.at_stripe("subscriptions", subscription["stripe"]["subscription"])
    assert (there["status"], there["items"]["data"][0]["price"]["id"]) == ("active", price.id)

    eventually(lambda: shop.standing(customer["id"])["payment_status"] == "paid", TOLD_S)
    path = f"/v1/subscriptions/{subscription['id']}"
    found = shop.system.found(path, after=shop.system.end_of_log())
    assert (found["payment_status"], found["paid_until"]) == ("paid", found["period_end"])
    assert (found["latest_invoice"]["paid"], found["latest_invoice"]["amount"]) == (True, 12_00)
    standing = shop.standing(customer["id"])
    assert (standing["subscriptions"], standing["paid_until"]) == ([found], found["paid_until"])
    assert standing["open_problems"] == []


def test_a_product_is_named_by_its_id_or_its_name_and_a_price_beside_it(shop: Shop) -> None:
    monthly = shop.price(10_00)
    yearly = shop.price(100_00, monthly.product, interval="year")
    name = shop.sdk.products.retrieve(monthly.product).name
    shop.sdk.products.update(monthly.product, {"default_price": monthly.id})
    assert shop.subscribed(shop.registered()["id"], name)["price"] == monthly.id
    annual = shop.subscribed(shop.registered()["id"], name, price=yearly.id)
    assert (annual["price"], annual["interval"], annual["amount"]) == (yearly.id, "year", 100_00)


def test_a_trial_costs_nothing_yet_and_needs_no_card_to_begin(shop: Shop) -> None:
    subscription = shop.subscribed(shop.registered()["id"], trial_days=7, quantity=3)
    assert (subscription["status"], subscription["quantity"], subscription["amount"]) == ("trialing", 3, 36_00)
    span = datetime.fromisoformat(subscription["trial_end"]) - datetime.fromisoformat(subscription["period_start"])
    assert span == timedelta(days=7)


def test_the_same_request_is_answered_again_and_not_billed_again(shop: Shop) -> None:
    customer, product, key = shop.registered(), shop.price().product, unique("key")
    first = ok(shop.subscribe(customer["id"], product, key=key), 201)
    again = shop.subscribe(customer["id"], product, key=key)
    assert ok(again)["id"] == first["id"]
    assert again.headers["Idempotent-Replayed"] == "true"
    assert len(shop.standing(customer["id"])["subscriptions"]) == 1
    reused = problem(shop.subscribe(customer["id"], product, key=key, quantity=2), 422)
    assert named(reused) == {"Idempotency-Key"}


def test_a_key_names_one_subscription_whatever_the_product(shop: Shop) -> None:
    customer, key = shop.registered(), unique("key")
    ok(shop.subscribe(customer["id"], shop.price().product, key=key), 201)
    assert len(shop.standing(customer["id"])["subscriptions"]) == 1
    assert named(problem(shop.subscribe(customer["id"], shop.price().product, key=key), 422)) == {"Idempotency-Key"}


def test_clicks_at_once_are_one_subscription(shop: Shop) -> None:
    customer, product = shop.registered(), shop.price().product
    with ThreadPoolExecutor(CLICKS) as threads:
        answers = list(threads.map(lambda _: shop.subscribe(customer["id"], product), range(CLICKS)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * (CLICKS - 1)
    there = [one for one in shop.system.state()["subscriptions"] if one["customer"] == customer["stripe"]["customer"]]
    assert len(there) == 1


def test_a_second_one_to_the_same_product_is_refused_unless_it_is_asked_for(shop: Shop) -> None:
    customer, product = shop.registered(), shop.price().product
    first = shop.subscribed(customer["id"], product)
    refused = problem(shop.subscribe(customer["id"], product), 409)
    assert (refused["type"], named(refused)) == ("urn:payledger:problem:already-subscribed", {"#/product"})
    second = shop.subscribed(customer["id"], product, another=True)
    assert second["id"] != first["id"]
    shop.subscribed(customer["id"], shop.price().product)
    listed = shop.system.found(f"/v1/customers/{customer['id']}/subscriptions", after=shop.system.end_of_log())
    assert len(listed["subscriptions"]) == 3


def test_what_is_not_sold_is_named(shop: Shop) -> None:
    customer, price, other = shop.registered()["id"], shop.price(), shop.price()
    shop.price(20_00, price.product)
    for wanted, status, kind, field in (
        ({"product": "prod_nobody_sells"}, 404, "unknown-product", "#/product"),
        ({"product": other.product, "price": "price_nobody_sells"}, 404, "unknown-price", "#/price"),
        ({"product": other.product, "price": price.id}, 422, "price-of-another-product", "#/price"),
        ({"product": price.product}, 422, "price-needed", "#/price"),
    ):
        refused = problem(shop.subscribe(customer, **wanted), status)
        assert (refused["type"], named(refused)) == (f"urn:payledger:problem:{kind}", {field})
    assert price.id in refused["detail"], "it says which there are"


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({"quantity": 0}, "#/quantity"),
        ({"quantity": 1.5}, "#/quantity"),
        ({"quantity": 1_000_001}, "#/quantity"),
        ({"trial_days": 731}, "#/trial_days"),
        ({"trial_days": -1}, "#/trial_days"),
        ({"another": "yes"}, "#/another"),
        ({"price": ""}, "#/price"),
        ({"coupon": "HALF"}, "#/coupon"),
    ],
)
def test_a_wrong_field_of_a_subscription_is_named(shop: Shop, wanted: dict[str, Any], field: str) -> None:
    assert named(problem(shop.subscribe("ada", "prod_1", **wanted), 400)) == {field}


def test_a_first_payment_that_is_declined_begins_nothing_and_may_be_tried_again(shop: Shop) -> None:
    customer, product = shop.registered(POOR), shop.price().product
    key = unique("key")
    declined = problem(shop.subscribe(customer["id"], product, key=key), 402)
    assert declined["type"] == "urn:payledger:problem:declined"
    assert (declined["subscription"]["status"], declined["subscription"]["product"]) == ("refused", product)
    assert problem(shop.subscribe(customer["id"], product, key=key), 402)["subscription"] == declined["subscription"]
    ok(shop.card(customer["id"], VISA))
    assert shop.subscribed(customer["id"], product)["status"] == "active"


def test_a_beginning_whose_outcome_is_not_known_is_settled_when_it_is_asked_again(shop: Shop) -> None:
    customer, product, key = shop.registered(), shop.price().product, unique("key")
    with shop.system.fault("POST /v1/subscriptions", "reply_lost", times=FOR_GOOD):
        pending = ok(shop.subscribe(customer["id"], product, key=key), 202)
    assert (pending["status"], pending["amount"], pending["stripe"]) == ("pending", None, {"subscription": None})
    assert ok(shop.subscribe(customer["id"], product, key=key))["status"] == "active"
    there = [one for one in shop.system.state()["subscriptions"] if one["customer"] == customer["stripe"]["customer"]]
    assert len(there) == 1


# --- Change, cancel, resume --------------------------------------------------------------------------------------


def test_price_product_and_quantity_are_changed_as_asked_and_the_rest_stays(shop: Shop) -> None:
    price = shop.price(10_00)
    dearer, other = shop.price(20_00, price.product), shop.price(5_00)
    subscription = shop.subscribed(shop.registered()["id"], price.product, price=price.id, quantity=2)
    assert subscription["amount"] == 20_00
    changed = ok(shop.change(subscription, price=dearer.id))
    assert (changed["price"], changed["quantity"], changed["amount"]) == (dearer.id, 2, 40_00)
    changed = ok(shop.change(subscription, quantity=1))
    assert (changed["price"], changed["amount"]) == (dearer.id, 20_00)
    changed = ok(shop.change(subscription, product=other.product))
    assert (changed["product"], changed["price"], changed["amount"]) == (other.product, other.id, 5_00)
    there = shop.at_stripe("subscriptions", subscription["stripe"]["subscription"])
    assert there["items"]["data"][0]["price"]["id"] == other.id


def test_a_change_is_asked_twice_and_made_once(shop: Shop) -> None:
    subscription, key = shop.subscribed(shop.registered()["id"]), unique("key")
    changed = ok(shop.change(subscription, key, quantity=4))
    again = shop.change(subscription, key, quantity=4)
    assert (ok(again)["version"], again.headers["Idempotent-Replayed"]) == (changed["version"], "true")
    assert named(problem(shop.change(subscription, key, quantity=5), 422)) == {"Idempotency-Key"}
    assert ok(shop.change(subscription, quantity=4))["version"] == changed["version"], "it is so already"


def test_a_change_that_cannot_be_is_named(shop: Shop) -> None:
    customer, price = shop.registered()["id"], shop.price()
    subscription = shop.subscribed(customer, price.product)
    taken = shop.subscribed(customer)["product"]
    assert named(problem(shop.change(subscription), 400)) == {"#"}
    assert named(problem(shop.change(subscription, quantity=0), 400)) == {"#/quantity"}
    assert named(problem(shop.change(subscription, product="prod_nobody_sells"), 404)) == {"#/product"}
    assert named(problem(shop.change(subscription, price=shop.price().id), 422)) == {"#/price"}
    shop.standing(customer)
    assert named(problem(shop.change(subscription, product=taken), 409)) == {"#/product"}


def test_an_end_is_planned_and_taken_back(shop: Shop) -> None:
    subscription = shop.subscribed(shop.registered()["id"])
    planned = ok(shop.cancel(subscription, at_period_end=True))
    assert (planned["status"], planned["ends_at"]) == ("active", subscription["period_end"])
    assert shop.at_stripe("subscriptions", subscription["stripe"]["subscription"])["cancel_at_period_end"] is True
    kept = ok(shop.resume(subscription))
    assert (kept["status"], kept["ends_at"]) == ("active", None)
    assert shop.at_stripe("subscriptions", subscription["stripe"]["subscription"])["cancel_at_period_end"] is False


def test_what_has_ended_is_neither_changed_nor_resumed_and_stays_ended(shop: Shop) -> None:
    customer, price = shop.registered()["id"], shop.price()
    subscription = shop.subscribed(customer, price.product)
    ended = ok(shop.cancel(subscription))
    assert ended["status"] == "cancelled"
    assert ended["ends_at"] is not None
    assert shop.at_stripe("subscriptions", subscription["stripe"]["subscription"])["status"] == "canceled"
    assert ok(shop.cancel(subscription))["version"] == ended["version"]
    for refused in (shop.change(subscription, quantity=2), shop.resume(subscription)):
        assert problem(refused, 409)["type"] == "urn:payledger:problem:subscription-over"
    assert shop.subscribed(customer, price.product)["id"] != subscription["id"], "and may be begun anew"


# --- Who may -----------------------------------------------------------------------------------------------------


def test_every_command_needs_its_key_and_every_call_its_scope(shop: Shop) -> None:
    subscription = f"/v1/subscriptions/{uuid.uuid4()}"
    wishes = [
        ("POST", "/v1/subscriptions", {"customer": "ada", "product": "prod_1"}),
        ("PATCH", subscription, {"quantity": 2}),
        ("POST", f"{subscription}/cancellation", {}),
        ("POST", f"{subscription}/resumption", None),
    ]
    for method, path, body in wishes:
        assert named(problem(shop.http.request(method, path, json=body), 400)) == {"Idempotency-Key"}, path
    reader = {"Authorization": f"Bearer {shop.system.new_token('reader', 'read:payment')}", "Idempotency-Key": "k"}
    wishes += [("POST", "/v1/customers", {"user": "ada"}), ("PUT", "/v1/customers/ada/card", {"payment_method": VISA})]
    for method, path, body in wishes:
        problem(shop.http.request(method, path, json=body, headers=reader), 403)
        problem(httpx.request(method, f"{shop.system.url}{path}", json=body), 401)
    problem(httpx.get(f"{shop.system.url}/v1/customers/ada"), 401)


def test_a_list_of_subscriptions_goes_on_where_the_page_ended(shop: Shop) -> None:
    customer, product = shop.registered()["id"], shop.price().product
    made = [shop.subscribed(customer, product, another=True)["id"] for _ in range(3)]
    path = f"/v1/customers/{customer}/subscriptions"
    first = shop.system.found(path, limit=2, after=shop.system.end_of_log())
    rest = shop.system.found(path, limit=2, cursor=first["next_cursor"])
    assert [one["id"] for one in first["subscriptions"] + rest["subscriptions"]] == made[::-1]
    assert rest["next_cursor"] is None
    assert named(problem(shop.system.get(path, cursor="x"), 400)) == {"cursor"}


def test_a_list_of_customers_goes_on_where_the_page_ended_and_shows_who_they_are(shop: Shop) -> None:
    emails = [email() for _ in range(3)]
    made = [shop.registered(None, email=one)["id"] for one in emails]
    first = shop.system.found("/v1/customers", limit=2, after=shop.system.end_of_log())
    rest = shop.system.found("/v1/customers", limit=1, cursor=first["next_cursor"])
    listed = first["customers"] + rest["customers"]
    assert [(one["id"], one["email"]) for one in listed] == [*zip(made, emails, strict=True)][::-1]
    assert set(listed[0]) == CUSTOMER_MEMBERS
    assert named(problem(shop.system.get("/v1/customers", cursor="x"), 400)) == {"cursor"}
    writer = {"Authorization": f"Bearer {shop.system.new_token('writer', 'write:payment')}"}
    problem(shop.http.get("/v1/customers", headers=writer), 403)


# --- Histories ---------------------------------------------------------------------------------------------------


def test_the_history_of_a_customer_is_told_fact_by_fact(shop: Shop) -> None:
    names = {"user": unique("user"), "email": email()}
    customer = ok(shop.card(ok(shop.register(**names), 201)["id"], VISA))
    told = shop.system.get(f"/v1/customers/{names['email']}/events")
    facts = ok(told)["events"]
    expected = ["CustomerRegistered", "CustomerCreated", "CardUpdateStarted", "CardUpdated"]
    assert [fact["type"] for fact in facts] == expected
    assert [fact["version"] for fact in facts] == [*range(1, customer["version"] + 1)]
    assert {fact["stream"] for fact in facts} == {customer["id"]}
    assert (facts[0]["data"]["email"], facts[0]["data"]["user"]) == (names["email"], names["user"])
    assert facts[-1]["data"]["card"] == customer["card"]
    assert told.headers["ETag"] == f'"{customer["version"]}"'
    assert facts == shop.system.found(f"/v1/customers/{customer['id']}/events")["events"]


def test_the_history_of_a_subscription_is_told_fact_by_fact(shop: Shop) -> None:
    subscription = shop.subscribed(shop.registered()["id"])
    told = shop.system.get(f"/v1/subscriptions/{subscription['id']}/events")
    facts = ok(told)["events"]
    assert [fact["type"] for fact in facts] == ["SubscriptionRequested", "SubscriptionStarted", "SubscriptionRenewed"]
    assert (facts[2]["data"]["amount"], facts[2]["data"]["currency"]) == (12_00, "usd")
    assert told.headers["ETag"] == f'"{subscription["version"]}"'


def test_who_or_what_is_not_there_has_no_history(shop: Shop) -> None:
    payment, subscription = shop.system.paid()["id"], shop.subscribed(shop.registered()["id"])["id"]
    for path in ("/v1/customers/nobody/events", f"/v1/customers/{subscription}/events"):
        assert problem(shop.system.get(path), 404)["type"] == "urn:payledger:problem:customer-not-found"
    for stream in (uuid.uuid4(), payment):
        problem(shop.system.get(f"/v1/subscriptions/{stream}/events"), 404)
    writer = {"Authorization": f"Bearer {shop.system.new_token('writer', 'write:payment')}"}
    for path in ("/v1/customers/nobody/events", f"/v1/subscriptions/{subscription}/events"):
        problem(shop.http.get(path, headers=writer), 403)


def test_what_went_back_of_the_latest_invoice_is_told(shop: Shop) -> None:
    customer = shop.registered()
    subscription = shop.subscribed(customer["id"])
    [charge] = shop.sdk.charges.list({"customer": customer["stripe"]["customer"]}).data
    path = f"/v1/subscriptions/{subscription['id']}"

    def gone_back(minor: int) -> bool:
        return bool(shop.system.found(path)["latest_invoice"]["amount_refunded"] == minor)

    for minor, in_all, status in ((2_00, 2_00, "paid"), (10_00, 12_00, "refunded")):
        shop.sdk.refunds.create({"charge": charge.id, "amount": minor})
        eventually(partial(gone_back, in_all), TOLD_S)
        told = shop.system.found(path)
        assert (told["payment_status"], told["latest_invoice"]["amount"]) == (status, 12_00)
    assert (told["latest_invoice"]["amount_refunded"], told["paid_until"]) == (12_00, None)
    standing = shop.standing(customer["id"])
    assert (standing["payment_status"], standing["paid_until"], standing["open_problems"]) == ("refunded", None, [])


# --- What is said ------------------------------------------------------------------------------------------------

CUSTOMER_REFUSALS: list[tuple[errors.CustomerRefusal, int, str]] = [
    (errors.InvalidName(kind="email", reason="an e-mail is somebody @ somewhere"), 400, "invalid-request"),
    (errors.NameTaken(), 409, "name-taken"),
    (errors.AlreadyNamed(kind="user"), 409, "name-taken"),
    (errors.TooManyNames(limit=20), 409, "too-many-names"),
    (errors.CustomerNotReady(command="UpdateCard", status="registering"), 409, "customer-not-ready"),
    (errors.CustomerBusy(operation="op_1", kind="card"), 409, "operation-in-flight"),
    (errors.TooManyUpdates(limit=1_000), 409, "too-many-operations"),
]
SUBSCRIPTION_REFUSALS: list[tuple[errors.SubscriptionRefusal, int, str]] = [
    (errors.InvalidTerms(field="quantity", given=0, least=1, most=9), 400, "invalid-request"),
    (errors.UnknownProduct("prod_1"), 404, "unknown-product"),
    (errors.UnknownProduct("prod_1", "price_1"), 404, "unknown-price"),
    (errors.PriceOfAnotherProduct(price="price_1", product="prod_1"), 422, "price-of-another-product"),
    (errors.PriceNeeded(product="prod_1", prices=()), 422, "price-needed"),
    (errors.AlreadySubscribed(product="prod_1", status="past_due"), 409, "already-subscribed"),
    (errors.SubscriptionNotReady(command="Change", status="incomplete"), 409, "illegal-transition"),
    (errors.SubscriptionOver(command="Resume", ended_at=NOON), 409, "subscription-over"),
    (errors.SubscriptionBusy(operation="op_1", kind="change"), 409, "operation-in-flight"),
    (errors.TooManyChanges(limit=1_000), 409, "too-many-operations"),
]
FAILURE = Failure("card_declined", "insufficient_funds", "Your card has insufficient funds.", retryable=True)
SOME = uuid.uuid4()


@pytest.mark.parametrize(("refusal", "status", "kind"), CUSTOMER_REFUSALS)
def test_a_refusal_of_a_customer_has_its_own_document(refusal: errors.CustomerRefusal, status: int, kind: str) -> None:
    told = from_customer(refusal)
    assert (told.status, told.type) == (status, f"urn:payledger:problem:{kind}")


@pytest.mark.parametrize(("refusal", "status", "kind"), SUBSCRIPTION_REFUSALS)
def test_a_refusal_of_a_subscription_has_its_own_document(
    refusal: errors.SubscriptionRefusal, status: int, kind: str
) -> None:
    told = from_subscription(refusal)
    assert (told.status, told.type) == (status, f"urn:payledger:problem:{kind}")


def test_every_refusal_that_a_caller_can_meet_is_one_of_these() -> None:
    told = {type(refusal) for refusal, _, _ in [*CUSTOMER_REFUSALS, *SUBSCRIPTION_REFUSALS]}
    known = {*errors.CustomerRefusal.__subclasses__(), *errors.SubscriptionRefusal.__subclasses__()}
    assert known - told == {errors.AlreadyRegistered}, "who is known is not registered again"


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (CardDeclined(FAILURE), ("card_declined", None, None, FAILURE)),
        (NoCard(), ("no_card", None, None, None)),
        (CardExpires(SOME, NOON, NOON + timedelta(days=3)), ("card_expires", SOME, NOON, None)),
        (RenewalFailed(SOME, "in_1", 2, NOON, FAILURE), ("renewal_failed", SOME, NOON, FAILURE)),
        (SubscriptionUnpaid(SOME, "unpaid"), ("subscription_unpaid", SOME, None, None)),
    ],
)
def test_what_is_amiss_is_told_apart(found: Any, expected: tuple[Any, ...]) -> None:
    told = OpenProblem.of(found)
    assert (told.type, told.subscription, told.at, told.failure) == expected
    assert told.detail


# --- What is sold ------------------------------------------------------------------------------------------------


def test_the_catalog_is_listed_for_people_and_for_programs(shop: Shop) -> None:
    price = shop.price(10_00)
    shop.price(100_00, price.product, interval="year")
    shop.sdk.products.update(price.product, {"default_price": price.id})
    gone = shop.price()
    shop.sdk.products.update(gone.product, {"active": False})

    def listed(*more: str) -> str:
        command = [sys.executable, "-m", "interface.cli", "catalog", "--data", str(shop.system.data), *more]
        return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout

    shown = listed()
    assert price.id in shown
    assert gone.id not in shown
    assert gone.id in listed("--all")
    products = {product["id"]: product for product in map(json.loads, listed("--json").splitlines())}
    sold = products[price.product]
    assert (sold["default_price"], gone.product in products) == (price.id, False)
    assert {(one["amount"]["minor"], one["interval"]) for one in sold["prices"]} == {(10_00, "month"), (100_00, "year")}
