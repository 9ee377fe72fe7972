"""The payments gateway's contract, over HTTP as its callers use it: every row, every refusal, and the real payloads."""

import hmac
import json
import subprocess
import sys
import time
import uuid
from calendar import monthrange
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from interface.web.contracts.gateway_words import day
from tests.processes import eventually
from tests.system import CHECKOUT, System, named, problem, running
from tests.test_http_customers import FOR_GOOD, MASTERCARD, POOR, REFUSED, TOLD_S, VISA, Shop, email, ok, unique

BASE = "/payments-gateway/api"
SAMPLES = Path(__file__).parent / "samples"
SUCCEEDED, FAILED = "charge/succeeded", "charge/failed"
HOUR_S = 3_600
DAY_S = 24 * HOUR_S
# A receiver of Stripe's takes signatures that are at most so old.
TOLERANCE_S = 300
STATUS_MEMBERS = {"user_id", "payment_status", "payment_expire_date", "card", "subscriptions"}
SUBSCRIPTION_MEMBERS = {
    "id", "user_id", "product", "price", "quantity", "status", "payment_status", "payment_expire_date", "ends_at",
}  # fmt: skip


class Gateway(Shop):
    """A caller with users of its own."""

    def status(self, user: str) -> httpx.Response:
        return self.http.get(f"{BASE}/users/{user}/payment-status")

    def put_card(self, user: str, token: Any, **headers: str) -> httpx.Response:
        return self.http.put(f"{BASE}/users/{user}/card", json={"token": token}, headers=headers)

    def user(self, token: str = VISA) -> str:
        """Somebody new with a card."""
        user = unique("user")
        ok(self.put_card(user, token))
        return user

    def begin(self, user: str, product: str, *, key: str | None = None, **wanted: Any) -> httpx.Response:
        headers = {"Idempotency-Key": key} if key else {}
        body = {"user": user, "product": product} | wanted
        return self.http.post(f"{BASE}/subscriptions", json=body, headers=headers)

    def begun(self, user: str, product: str | None = None, **wanted: Any) -> dict[str, Any]:
        return ok(self.begin(user, product or self.price().product, **wanted), 201)

    def put(self, subscription: dict[str, Any], **wanted: Any) -> httpx.Response:
        return self.http.put(f"{BASE}/subscriptions/{subscription['id']}", json=wanted)

    def delete(self, subscription: dict[str, Any], **parameters: str) -> httpx.Response:
        return self.http.delete(f"{BASE}/subscriptions/{subscription['id']}", params=parameters)

    # Webhooks

    def hear(self, path: str, body: bytes, header: str | None = None) -> httpx.Response:
        """An event at a webhook; without a header it is signed as it should be."""
        said = {"Stripe-Signature": self.signature(body) if header is None else header}
        return httpx.post(
            f"{self.system.url}{BASE}/webhooks/{path}", content=body, headers=said if header != "" else {}
        )

    def signature(self, body: bytes, secret: str | None = None, age_s: int = 0) -> str:
        stamp = str(int(time.time()) - age_s)
        secret = secret or f"whsec_{(self.system.data / 'webhook.key').read_text().strip()}"
        return f"t={stamp},v1={hmac.digest(secret.encode(), stamp.encode() + b'.' + body, 'sha256').hex()}"

    def kept(self, event: str) -> dict[str, tuple[str, str]]:
        """Type, state and note of what is in the inbox under an event's id."""
        with psycopg.connect(self.system.database_url) as conn:
            found = conn.execute("SELECT type, state, note FROM inbox WHERE event_id = %s", (event,)).fetchall()
        return {kind: (state, note) for kind, state, note in found}

    # The stand-in's clock

    def now(self) -> datetime:
        answer = self.system._control.get(f"{self.system.stripe}/_sandbox/clock")
        return datetime.fromtimestamp(answer.json()["now"], UTC)

    def go_to(self, moment: datetime) -> None:
        """Until Stripe's clock shows this, with everything played on the way."""
        step = {"advance_s": max(0, int((moment - self.now()).total_seconds()))}
        answer = self.system._control.post(f"{self.system.stripe}/_sandbox/clock", json=step)
        assert answer.status_code == 200, answer.text


@pytest.fixture
def gateway(system: System) -> Gateway:
    return Gateway(system)


@pytest.fixture(scope="module")
def own() -> Iterator[Gateway]:
    """A system of its own, for what moves Stripe's clock."""
    with running() as system:
        yield Gateway(system)


def sample(kind: str) -> bytes:
    return (SAMPLES / f"charge.{kind}.json").read_bytes()


def event(kind: str = "charge.succeeded", **members: Any) -> bytes:
    charge: dict[str, Any] = {
        "object": "charge",
        "id": "ch_elsewhere",
        "payment_intent": None,
        "customer": None,
        "metadata": {},
    }
    told = {"id": f"evt_{uuid.uuid4().hex}", "type": kind, "created": 1_762_171_200, "data": {"object": charge}}
    return json.dumps(told | members).encode()


def month_on(start: date, anchor: int) -> date:
    """The anchor's day in the next month, or the last one that it has."""
    year, month = (start.year + 1, 1) if start.month == 12 else (start.year, start.month + 1)
    return date(year, month, min(anchor, monthrange(year, month)[1]))


# --- Users -------------------------------------------------------------------------------------------------------


def test_the_first_card_of_a_user_makes_them_known(gateway: Gateway) -> None:
    user = unique("user")
    assert named(problem(gateway.status(user), 404)) == {"user"}
    status = ok(gateway.put_card(user, "tok_visa"))
    assert set(status) == STATUS_MEMBERS
    assert (status["user_id"], status["payment_status"], status["payment_expire_date"]) == (user, "pending", None)
    assert set(status["card"]) == {"brand", "last4", "exp_month", "exp_year"}
    assert (status["card"]["brand"], status["card"]["last4"], status["subscriptions"]) == ("visa", "4242", [])
    assert ok(gateway.status(user)) == status


def test_a_user_is_known_by_an_email_as_well(gateway: Gateway) -> None:
    address, user = email(), unique("user")
    assert ok(gateway.put_card(address, VISA))["user_id"] is None
    ok(gateway.register(user=user, email=address))
    subscription = gateway.begun(address)
    assert subscription["user_id"] == user
    status = ok(gateway.status(user))
    assert status == ok(gateway.status(address)) == ok(gateway.status(address.upper()))
    assert (status["user_id"], [one["id"] for one in status["subscriptions"]]) == (user, [subscription["id"]])


def test_a_card_becomes_the_default_of_the_customer_and_of_its_subscriptions(gateway: Gateway) -> None:
    user = gateway.user(VISA)
    gateway.begun(user)
    assert ok(gateway.put_card(user, MASTERCARD))["card"]["brand"] == "mastercard"
    assert ok(gateway.status(user))["card"]["brand"] == "mastercard"
    stripe = gateway.standing(user)["customer"]["stripe"]
    there = gateway.at_stripe("customers", stripe["customer"])
    assert there["invoice_settings"]["default_payment_method"] == stripe["payment_method"]


def test_a_card_that_is_declined_is_told_and_leaves_the_one_before(gateway: Gateway) -> None:
    user = gateway.user(VISA)
    assert problem(gateway.put_card(user, REFUSED), 402)["type"] == "urn:payledger:problem:declined"
    assert ok(gateway.status(user))["card"]["brand"] == "visa"


def test_a_token_is_used_once_and_may_be_sent_twice(gateway: Gateway) -> None:
    user, token = unique("user"), gateway.token()
    assert ok(gateway.put_card(user, token)) == ok(gateway.put_card(user, token))
    used = problem(gateway.put_card(gateway.user(), token), 422)
    assert (used["type"], named(used)) == ("urn:payledger:problem:token-already-used", {"#/token"})
    assert named(problem(gateway.put_card(user, "tok_nobody_has_made_this"), 422)) == {"#/token"}


@pytest.mark.parametrize("body", [{}, {"token": ""}, {"token": "4242424242424242"}, {"token": 1}, {"token": "ch_1"}])
def test_what_is_no_token_is_named_and_registers_nobody(gateway: Gateway, body: dict[str, Any]) -> None:
    user = unique("user")
    refused = problem(gateway.http.put(f"{BASE}/users/{user}/card", json=body), 400)
    assert named(refused) == {"#/token"}
    assert "4242" not in json.dumps(refused)
    problem(gateway.status(user), 404)


@pytest.mark.parametrize("user", ["4242424242424242", "a@b@c", "two%20words", "u" * 255])
def test_what_is_no_user_is_named(gateway: Gateway, user: str) -> None:
    assert named(problem(gateway.put_card(user, VISA), 400)) == {"user"}


def test_a_card_whose_outcome_is_not_known_is_settled_when_it_is_sent_again(gateway: Gateway) -> None:
    user = unique("user")
    with gateway.system.fault("POST /v1/payment_methods/*/attach", "reply_lost", times=FOR_GOOD):
        assert ok(gateway.put_card(user, VISA), 202)["card"] is None
    assert ok(gateway.put_card(user, VISA))["card"]["brand"] == "visa"


def test_a_user_whose_registration_is_not_known_yet_is_told_to_come_again(gateway: Gateway) -> None:
    user = unique("user")
    with gateway.system.fault("POST /v1/customers", "reply_lost", times=FOR_GOOD):
        away = gateway.put_card(user, VISA)
        assert problem(away, 503)["type"] == "urn:payledger:problem:outcome-unknown"
        assert away.headers["Retry-After"]
    assert ok(gateway.put_card(user, VISA))["user_id"] == user
    assert sum(one["metadata"].get("payledger_user") == user for one in gateway.system.state()["customers"]) == 1


# --- Subscriptions -----------------------------------------------------------------------------------------------


def test_a_subscription_is_begun_and_paid_for_a_month(gateway: Gateway) -> None:
    user, price = gateway.user(), gateway.price()
    began = gateway.now().date()
    subscription = gateway.begun(user, price.product)
    assert set(subscription) == SUBSCRIPTION_MEMBERS
    assert (subscription["user_id"], subscription["status"]) == (user, "active")
    assert (subscription["product"], subscription["price"], subscription["quantity"]) == (price.product, price.id, 1)
    eventually(lambda: ok(gateway.status(user))["payment_status"] == "paid", TOLD_S)
    status = ok(gateway.status(user))
    assert date.fromisoformat(status["payment_expire_date"]) == month_on(began, began.day)
    [listed] = status["subscriptions"]
    assert listed == subscription | {
        "payment_status": "paid",
        "payment_expire_date": status["payment_expire_date"],
    }


def test_a_price_may_be_named_and_a_product_by_its_name(gateway: Gateway) -> None:
    monthly = gateway.price(10_00)
    yearly = gateway.price(100_00, monthly.product, "year")
    name = gateway.sdk.products.retrieve(monthly.product).name
    assert gateway.begun(gateway.user(), name, price=yearly.id)["price"] == yearly.id


def test_a_second_subscription_to_the_same_product_is_refused(gateway: Gateway) -> None:
    user, product = gateway.user(), gateway.price().product
    gateway.begun(user, product)
    refused = problem(gateway.begin(user, product), 409)
    assert (refused["type"], named(refused)) == ("urn:payledger:problem:already-subscribed", {"#/product"})
    gateway.begun(user)
    assert len(ok(gateway.status(user))["subscriptions"]) == 2


def test_with_a_key_a_subscription_is_answered_again(gateway: Gateway) -> None:
    user, product, key = gateway.user(), gateway.price().product, unique("key")
    first = ok(gateway.begin(user, product, key=key), 201)
    assert ok(gateway.begin(user, product, key=key))["id"] == first["id"]
    assert named(problem(gateway.begin(user, product, key="k" * 256), 400)) == {"Idempotency-Key"}


def test_a_first_payment_that_is_declined_may_be_tried_again(gateway: Gateway) -> None:
    user, product = gateway.user(POOR), gateway.price().product
    assert problem(gateway.begin(user, product), 402)["type"] == "urn:payledger:problem:declined"
    ok(gateway.put_card(user, VISA))
    assert gateway.begun(user, product)["status"] == "active"


def test_what_is_not_known_or_not_sold_is_named(gateway: Gateway) -> None:
    user, price, other = gateway.user(), gateway.price(), gateway.price()
    gateway.price(20_00, price.product)
    for wanted, status, kind, field in (
        ({"user": unique("nobody")}, 404, "customer-not-found", "#/user"),
        ({"user": email()}, 404, "customer-not-found", "#/user"),
        ({"product": "prod_nobody_sells"}, 404, "unknown-product", "#/product"),
        ({"price": "price_nobody_sells"}, 404, "unknown-price", "#/price"),
        ({"price": price.id}, 422, "price-of-another-product", "#/price"),
        ({"product": price.product}, 422, "price-needed", "#/price"),
    ):
        refused = problem(gateway.begin(**({"user": user, "product": other.product} | wanted)), status)
        assert (refused["type"], named(refused)) == (f"urn:payledger:problem:{kind}", {field})


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, {"#/user", "#/product"}),
        ({"user": "ada"}, {"#/product"}),
        ({"user": "ada", "product": ""}, {"#/product"}),
        ({"user": "ada", "product": "prod_1", "price": 12}, {"#/price"}),
        ({"user": "two words", "product": "prod_1"}, {"#/user"}),
        ([], {"#"}),
    ],
)
def test_a_wrong_field_of_a_subscription_is_named(gateway: Gateway, body: Any, fields: set[str]) -> None:
    assert named(problem(gateway.http.post(f"{BASE}/subscriptions", json=body), 400)) == fields


def test_a_field_that_nobody_asked_for_is_passed_over(gateway: Gateway) -> None:
    gateway.begun(gateway.user(), colour="green")


def test_product_and_price_are_changed_and_prorated_as_stripe_does_it(gateway: Gateway) -> None:
    price = gateway.price(10_00)
    dearer, other = gateway.price(20_00, price.product), gateway.price(5_00)
    subscription = gateway.begun(gateway.user(), price.product, price=price.id)
    changed = ok(gateway.put(subscription, price=dearer.id))
    assert (changed["id"], changed["price"]) == (subscription["id"], dearer.id)
    changed = ok(gateway.put(subscription, product=other.product))
    assert (changed["product"], changed["price"]) == (other.product, other.id)
    assert ok(gateway.put(subscription, product=other.product)) == changed, "it is so already"
    customer = gateway.standing(subscription["user_id"])["customer"]["stripe"]["customer"]
    prorated = [one for one in gateway.system.state()["invoiceitems"] if one["customer"] == customer]
    assert prorated, "what was paid for and not used is given back on the next invoice"


def test_a_change_that_cannot_be_is_named(gateway: Gateway) -> None:
    user = gateway.user()
    subscription = gateway.begun(user)
    assert named(problem(gateway.put(subscription), 400)) == {"#"}
    assert named(problem(gateway.put(subscription, product="prod_nobody_sells"), 404)) == {"#/product"}
    assert named(problem(gateway.put(subscription, price=gateway.price().id), 422)) == {"#/price"}
    taken = gateway.begun(user)["product"]
    assert named(problem(gateway.put(subscription, product=taken), 409)) == {"#/product"}
    for unknown in (str(uuid.uuid4()), "42"):
        problem(gateway.put({"id": unknown}, product="prod_1"), 404)
        problem(gateway.delete({"id": unknown}), 404)


def test_a_subscription_is_kept_to_the_end_of_the_paid_period_or_ended_at_once(gateway: Gateway) -> None:
    user = gateway.user()
    subscription = gateway.begun(user)
    eventually(lambda: ok(gateway.status(user))["payment_status"] == "paid", TOLD_S)
    kept = ok(gateway.delete(subscription, at_period_end="true"))
    assert (kept["status"], day(datetime.fromisoformat(kept["ends_at"]))) == (
        "active",
        date.fromisoformat(ok(gateway.status(user))["payment_expire_date"]),
    )
    ended = ok(gateway.delete(subscription, at_period_end="false"))
    assert ended["status"] == "cancelled"
    assert ok(gateway.delete(subscription)) == ended, "it has ended already"
    assert problem(gateway.put(subscription, price=gateway.price().id), 422)
    refused = problem(gateway.put(subscription, product=gateway.price().product), 409)
    assert refused["type"] == "urn:payledger:problem:subscription-over"
    assert ok(gateway.status(user))["subscriptions"][0]["status"] == "cancelled"
    assert named(problem(gateway.delete(subscription, at_period_end="yes"), 400)) == {"at_period_end"}


def test_every_call_needs_a_token_with_its_scope(gateway: Gateway) -> None:
    subscription = f"{BASE}/subscriptions/{uuid.uuid4()}"
    calls = [
        ("GET", f"{BASE}/users/ada/payment-status", "write:payment"),
        ("PUT", f"{BASE}/users/ada/card", "read:payment"),
        ("POST", f"{BASE}/subscriptions", "read:payment"),
        ("PUT", subscription, "read:payment"),
        ("DELETE", subscription, "read:payment"),
    ]
    others = {scope: gateway.system.new_token("somebody", scope) for scope in ("write:payment", "read:payment")}
    for method, path, other in calls:
        problem(httpx.request(method, f"{gateway.system.url}{path}"), 401)
        header = {"Authorization": f"Bearer {others[other]}"}
        problem(httpx.request(method, f"{gateway.system.url}{path}", headers=header), 403)


# --- Years -------------------------------------------------------------------------------------------------------


def test_the_expire_date_goes_from_month_to_month_and_keeps_its_day_and_a_failure_is_told(own: Gateway) -> None:
    year = own.now().year + 1
    user = own.user(VISA)
    own.go_to(datetime(year, 1, 31, 12, tzinfo=UTC))
    own.begun(user)

    def stands(status: str, expires: date) -> bool:
        told = ok(own.status(user))
        return (told["payment_status"], told["payment_expire_date"]) == (status, expires.isoformat())

    february = date(year, 2, monthrange(year, 2)[1])
    eventually(lambda: stands("paid", february), TOLD_S)
    own.go_to(datetime(year, 3, 1, 13, tzinfo=UTC))
    eventually(lambda: stands("paid", date(year, 3, 31)), TOLD_S)
    ok(own.put_card(user, POOR))
    own.go_to(datetime(year, 4, 1, tzinfo=UTC))
    eventually(lambda: stands("failed", date(year, 3, 31)), TOLD_S)
    [subscription] = ok(own.status(user))["subscriptions"]
    assert (subscription["status"], subscription["payment_status"]) == ("past_due", "failed")
    ok(own.put_card(user, MASTERCARD))
    own.go_to(datetime(year, 4, 12, tzinfo=UTC))
    eventually(lambda: stands("paid", date(year, 4, 30)), TOLD_S)


# --- Webhooks ----------------------------------------------------------------------------------------------------


def test_the_real_payloads_are_kept_by_id_and_type_and_shown_as_unmatched(own: Gateway) -> None:
    """The samples have the same id, another type, and nobody they belong to."""
    for path, kind in ((SUCCEEDED, "succeeded"), (FAILED, "failed")):
        for _ in range(2):
            assert ok(own.hear(path, sample(kind))) == {"received": True}
    identity = json.loads(sample("failed"))["id"]
    assert identity == json.loads(sample("succeeded"))["id"]

    def unmatched() -> bool:
        states = {kind: state for kind, (state, _) in own.kept(identity).items()}
        return states == {"charge.succeeded": "unmatched", "charge.failed": "unmatched"}

    eventually(unmatched, TOLD_S)
    command = [sys.executable, "-m", "interface.cli", "inbox", "--json", "--database-url", own.system.database_url]
    shown = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout
    told = [json.loads(line) for line in shown.splitlines()]
    assert {one["type"] for one in told if one["event"] == identity} == {"charge.succeeded", "charge.failed"}


@pytest.mark.parametrize(("path", "kind"), [(SUCCEEDED, "succeeded"), (FAILED, "failed")])
def test_only_what_stripe_signed_just_now_is_taken(gateway: Gateway, path: str, kind: str) -> None:
    body = sample(kind)
    late = gateway.signature(body, age_s=TOLERANCE_S + 5)
    early = gateway.signature(body, age_s=-TOLERANCE_S - 60)
    for header in ("", "t=1,v1=00", gateway.signature(body, "whsec_of_somebody_else"), late, early):
        refused = problem(gateway.hear(path, body, header), 400)
        assert (refused["type"], named(refused)) == ("urn:payledger:problem:bad-signature", {"Stripe-Signature"})
    spaced = body.replace(b":", b" :", 1)
    assert named(problem(gateway.hear(path, spaced, gateway.signature(body)), 400)) == {"Stripe-Signature"}


def test_each_webhook_takes_its_own_type_and_no_other(gateway: Gateway) -> None:
    for path, kind in ((SUCCEEDED, "charge.failed"), (FAILED, "charge.succeeded"), (SUCCEEDED, "invoice.paid")):
        wrong = event(kind)
        assert named(problem(gateway.hear(path, wrong), 400)) == {"#/type"}
        assert gateway.kept(json.loads(wrong)["id"]) == {}
    for nothing in (b"{}", b"[]", b"not json"):
        assert named(problem(gateway.hear(SUCCEEDED, nothing), 400)) == {"#"}


def test_an_event_is_one_whichever_of_the_webhooks_it_comes_by(gateway: Gateway) -> None:
    told = event()
    ok(gateway.hear(SUCCEEDED, told))
    header = {"Stripe-Signature": gateway.signature(told)}
    ok(httpx.post(f"{gateway.system.url}/webhooks/stripe", content=told, headers=header))
    assert set(gateway.kept(json.loads(told)["id"])) == {"charge.succeeded"}


def test_an_event_of_another_account_is_kept_and_belongs_to_nobody_here(gateway: Gateway) -> None:
    told = event(account="acct_of_somebody_else")
    ok(gateway.hear(SUCCEEDED, told))
    identity = json.loads(told)["id"]
    eventually(lambda: gateway.kept(identity)["charge.succeeded"][0] == "unmatched", TOLD_S)
    assert "acct_of_somebody_else" in gateway.kept(identity)["charge.succeeded"][1]


# --- Words -------------------------------------------------------------------------------------------------------


def test_a_day_is_that_of_utc() -> None:
    assert day(None) is None
    assert day(datetime.fromisoformat("2026-03-01T00:30:00+01:00")) == date(2026, 2, 28)
