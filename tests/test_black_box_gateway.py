"""The payments gateway's contract (CONTRACTS.md, section 2) as its callers see it: over HTTP, from the outside."""

import hmac
import json
import subprocess
import sys
import time
from calendar import monthrange
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from functools import cached_property, partial
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import jwt
import psycopg
import pytest

from tests import black_box
from tests.black_box import HEAL_S, SECRETS, Fields, Service, bearer, said, together
from tests.processes import eventually
from tests.system import ANSWER_S, CHECKOUT, named, position, problem

BASE = "/payments-gateway/api"
SAMPLES = Path(__file__).parent / "samples"
KINDS = ("succeeded", "failed")
STATUS = {"user_id", "payment_status", "payment_expire_date", "card", "subscriptions"}
VISA = {"brand": "visa", "last4": "4242"}
MASTERCARD = {"brand": "mastercard", "last4": "4444"}
DECLINED_LATER = "pm_card_chargeCustomerFail"  # it can be attached, and no charge of it succeeds
TOLERANCE_S = 300
CLICKS = 20
RETRIED = timedelta(days=4)  # later than the first retry of a failed renewal, earlier than the second
OTHERS = ("provider", "recovery")  # actors of facts that no caller asked for just now
SAMPLED = "evt_00000000000000"  # the id of both samples
SECRET = SECRETS["STRIPE_WEBHOOK_SECRET"]
LIVE = ("active", "trialing", "past_due", "unpaid", "incomplete")

_users = count(1)


class Gateway(Service):
    """The app's users, and Stripe's calendar, on which they are billed."""

    def __init__(self, data: Path) -> None:
        super().__init__(data, STRIPE_WEBHOOK_SECRET=SECRET)
        self._seen = 0

    def register(self, status: int = 201, **names: str) -> None:
        """Make a customer known by these names, or by one more, and wait until the read model knows."""
        answer = self.post("/v1/customers", names)
        said(answer, status)
        self.found(f"/v1/customers/{answer.json()['id']}", after=position(answer))

    # The contract

    def standing(self, user: str) -> Fields:
        return said(self.get(f"{BASE}/users/{user}/payment-status"))

    def put_card(self, user: str, token: object) -> httpx.Response:
        return self.http.put(f"{BASE}/users/{user}/card", json={"token": token})

    def subscribe(self, user: str, product: str, **fields: object) -> httpx.Response:
        return self.http.post(f"{BASE}/subscriptions", json={"user": user, "product": product} | fields)

    def begun(self, user: str, product: str, **fields: object) -> str:
        """The id of a new subscription."""
        return str(said(self.subscribe(user, product, **fields), 201)["id"])

    def subscribed(self, user: str, product: str) -> str:
        """The same, once its first period is known to be paid."""
        begun = self.begun(user, product)
        eventually(lambda: self.standing(user)["payment_status"] == "paid")
        return begun

    def change(self, subscription: str, **fields: object) -> httpx.Response:
        return self.http.put(f"{BASE}/subscriptions/{subscription}", json=fields)

    def cancel(self, subscription: str, **parameters: str) -> httpx.Response:
        return self.http.delete(f"{BASE}/subscriptions/{subscription}", params=parameters)

    def one(self, user: str) -> Fields:
        """The only subscription of a user."""
        [subscription] = self.standing(user)["subscriptions"]
        return dict(subscription)

    def facts_of(self, subscription: str) -> list[Fields]:
        """Its facts, as the public log tells them."""
        return [fact for fact in self._facts(0) if fact["stream"] == subscription]

    def facts_about(self, needle: str) -> list[Fields]:
        return [fact for fact in self._facts(0) if needle in json.dumps(fact)]

    @contextmanager
    def nothing_recorded(self) -> Iterator[None]:
        """What callers ask for meanwhile leaves no fact; of what was before there may be news."""
        before = max((fact["position"] for fact in self._facts(self._seen)), default=self._seen)
        yield
        news = self._facts(before)
        assert [fact["type"] for fact in news if fact["actor"] not in OTHERS] == []
        self._seen = before

    @cached_property
    def stranger(self) -> httpx.Client:
        """A client without a token."""
        return httpx.Client(base_url=self.url, timeout=ANSWER_S)

    def _facts(self, after: int) -> list[Fields]:
        told: list[Fields] = []
        while lines := self.get("/v1/events", after=after, limit=1000).text.splitlines():
            told += map(json.loads, lines)
            after = told[-1]["position"]
        return told

    def hear(self, kind: str, body: bytes, header: str | None) -> httpx.Response:
        """A webhook as it comes: without any token."""
        headers = {"Content-Type": "application/json"} | ({} if header is None else {"Stripe-Signature": header})
        return self.stranger.post(f"{BASE}/webhooks/charge/{kind}", content=body, headers=headers)

    def inbox(self, *events: str) -> list[Fields]:
        """What `payledger inbox` shows of these events."""
        command = [sys.executable, "-m", "interface.cli", "inbox", "--all", "--json"]
        command += ["--database-url", self.database_url]
        shown = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout
        return [line for line in map(json.loads, shown.splitlines()) if line["event"] in events]

    # Stripe's side

    def ask_stripe(self, method: str, path: str, **fields: str | int) -> Fields:
        """One of Stripe's own calls, with the fields of a form or, of a GET, of the query."""
        place = {"params" if method == "GET" else "data": fields}
        url = f"{self.stripe}/v1/{path}"
        return said(self._control.request(method, url, headers=bearer("sk_test_shop"), **place))  # type: ignore[arg-type]

    def new_product(self, **fields: str | int) -> str:
        return str(self.ask_stripe("POST", "products", name=f"plan {uuid4()}", **fields)["id"])

    def priced(self, product: str, dollars: int, **recurring: str) -> str:
        """One more price of a product, by the month if nothing else is said."""
        each = {f"recurring[{name}]": value for name, value in ({"interval": "month"} | recurring).items()}
        money: dict[str, str | int] = {"currency": "usd", "unit_amount": dollars * 100}
        return str(self.ask_stripe("POST", "prices", product=product, **money, **each)["id"])

    def sold(self, dollars: int, **recurring: str) -> tuple[str, str]:
        """A new product and its default price."""
        product = self.new_product()
        price = self.priced(product, dollars, **recurring)
        self.ask_stripe("POST", f"products/{product}", default_price=price)
        return product, price

    def customer(self, user: str) -> str:
        """The id of a user's customer at Stripe."""
        return str(self.found(f"/v1/customers/{user}")["customer"]["stripe"]["customer"])

    def charges(self, user: str) -> list[Fields]:
        """Oldest first."""
        found: list[Fields] = self.ask_stripe("GET", "charges", customer=self.customer(user), limit=100)["data"]
        return found[::-1]

    def charged(self, user: str, status: str = "succeeded") -> list[tuple[int, str]]:
        """What a user was charged at Stripe: cents and the card's last four digits."""
        charges = [charge for charge in self.charges(user) if charge["status"] == status]
        return [(charge["amount"], charge["payment_method_details"]["card"]["last4"]) for charge in charges]

    def held(self, user: str) -> list[Fields]:
        """A user's subscriptions at Stripe, those that have ended among them."""
        found: list[Fields] = self.ask_stripe(
            "GET", "subscriptions", customer=self.customer(user), status="all", limit=100
        )["data"]
        return found

    def last_event(self, kind: str, user: str) -> Fields:
        """The last event that Stripe had to tell about a charge of a user."""
        events: list[Fields] = self.ask_stripe("GET", "events", type=f"charge.{kind}", limit=100)["data"]
        customer = self.customer(user)
        return next(event for event in events if event["data"]["object"]["customer"] == customer)

    def today(self) -> datetime:
        """Stripe's time."""
        return datetime.fromtimestamp(said(self._control.get(f"{self.stripe}/_sandbox/clock"))["now"], UTC)

    def play(self, until: datetime) -> None:
        """Move Stripe's clock; what comes due on the way happens."""
        body = {"advance_s": int((until - self.today()).total_seconds())}
        assert not said(self._control.post(f"{self.stripe}/_sandbox/clock", json=body))["more"]

    @contextmanager
    def deaf(self) -> Iterator[None]:
        """Stripe's own webhooks are lost meanwhile."""
        self._deliver("drop")
        try:
            yield
        finally:
            self._deliver("normal")

    def _deliver(self, mode: str) -> None:
        eventually(lambda: self._control.get(f"{self.stripe}/_sandbox/webhooks").json()["pending"] == 0)
        said(self._control.post(f"{self.stripe}/_sandbox/webhooks", json={"mode": mode}))

    def end_all(self) -> None:
        """Nobody's subscription is billed any more, so that the tests' calendars do not meet."""
        for subscription in self.ask_stripe("GET", "subscriptions", limit=100)["data"]:
            if subscription["status"] in LIVE:
                self.ask_stripe("DELETE", f"subscriptions/{subscription['id']}")


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with black_box.serving(Gateway, STRIPE_SWEEP_S="3600") as service:
        yield service


@pytest.fixture
def new_user(gateway: Gateway) -> Iterator[Callable[..., str]]:
    """Makes users with a card each, who stop paying with the end of the test."""

    def make(token: str = "pm_card_visa") -> str:
        user = f"user-{next(_users)}"
        gateway.register(user=user, email=email(user))
        said(gateway.put_card(user, token))
        return user

    yield make
    gateway.end_all()


@pytest.fixture
def user(new_user: Callable[..., str]) -> str:
    return new_user()


def email(user: str) -> str:
    return f"{user}@app.example"


def months_on(anchor: date, months: int) -> str:
    """So many calendar months after a day, whose number is kept where the month has it."""
    years, month = divmod(anchor.month - 1 + months, 12)
    last = monthrange(anchor.year + years, month + 1)[1]
    return date(anchor.year + years, month + 1, min(anchor.day, last)).isoformat()


def due(start: datetime, months: int) -> datetime:
    """When the renewal after so many months has been tried: Stripe charges an hour after it has made the invoice."""
    moment = datetime.fromisoformat(months_on(start, months))
    return moment.replace(hour=start.hour, minute=start.minute, tzinfo=UTC) + timedelta(hours=2)


def signed(body: bytes, secret: str = SECRET, at: float | None = None) -> str:
    """As https://docs.stripe.com/webhooks#verify-manually has it."""
    stamp = str(int(time.time() if at is None else at))
    return f"t={stamp},v1={hmac.digest(secret.encode(), f'{stamp}.'.encode() + body, 'sha256').hex()}"


def sample(kind: str, **members: object) -> bytes:
    """A payload as it is, or with these members instead."""
    raw = (SAMPLES / f"charge.{kind}.json").read_bytes()
    return json.dumps(json.loads(raw) | members).encode() if members else raw


def shown(card: Fields | None) -> Fields:
    assert card is not None
    return {name: card[name] for name in ("brand", "last4")}


# Users and how they stand


def test_a_user_has_no_status_but_pending_before_anything_is_paid(gateway: Gateway) -> None:
    name = f"user-{next(_users)}"
    gateway.register(user=name)
    nothing: Fields = {"payment_expire_date": None, "card": None, "subscriptions": []}
    assert gateway.standing(name) == {"user_id": name, "payment_status": "pending"} | nothing


def test_the_status_of_a_user_who_pays_has_exactly_these_fields(gateway: Gateway, user: str) -> None:
    product, price = gateway.sold(12)
    subscription = gateway.subscribed(user, product)
    status = gateway.standing(user)
    assert (set(status), status["user_id"], status["payment_status"]) == (STATUS, user, "paid")
    assert status["payment_expire_date"] == months_on(gateway.today(), 1)
    assert status["card"] == VISA | {"exp_month": status["card"]["exp_month"], "exp_year": status["card"]["exp_year"]}
    assert (type(status["card"]["exp_month"]), type(status["card"]["exp_year"])) == (int, int)
    [listed] = status["subscriptions"]
    told = {"id": subscription, "product": product, "price": price, "status": "active", "payment_status": "paid"}
    assert listed == listed | told | {"user_id": user, "payment_expire_date": status["payment_expire_date"]}


def test_a_user_is_the_same_by_id_and_by_email(gateway: Gateway, user: str) -> None:
    both = (user, email(user), email(user).replace("@", "%40"))
    product, _ = gateway.sold(5)
    assert said(gateway.put_card(email(user), "tok_mastercard"))["user_id"] == user
    gateway.subscribed(email(user), product)
    first, *others = [gateway.standing(name) for name in both]
    assert others == [first, first]
    assert (shown(first["card"]), len(first["subscriptions"])) == (MASTERCARD, 1)
    assert "product" in str(named(problem(gateway.subscribe(user, product), 409)))
    assert len({gateway.customer(name) for name in both}) == 1


def test_an_email_that_is_another_users_cannot_be_claimed(gateway: Gateway, user: str) -> None:
    answer = gateway.post("/v1/customers", {"user": f"{user}-thief", "email": email(user)})
    assert "#/email" in named(problem(answer, 409))
    assert gateway.get(f"{BASE}/users/{user}-thief/payment-status").status_code == 404


def test_a_user_may_be_known_by_an_email_alone(gateway: Gateway) -> None:
    lone = email(f"lone-{next(_users)}")
    status = said(gateway.put_card(lone, "tok_visa"))
    assert (status["user_id"], shown(status["card"])) == (None, VISA)
    gateway.subscribed(lone, gateway.sold(5)[0])
    user = f"user-{next(_users)}"
    gateway.register(200, user=user, email=lone)
    assert (gateway.standing(user), gateway.standing(user)["user_id"]) == (gateway.standing(lone), user)
    assert gateway.one(user)["user_id"] == user


def test_whoever_got_a_card_is_known_at_once(gateway: Gateway) -> None:
    for _ in range(5):
        name = f"user-{next(_users)}"
        card = said(gateway.put_card(name, "tok_visa"))["card"]
        assert (gateway.standing(name)["card"], gateway.standing(name)["user_id"]) == (card, name)


@pytest.mark.parametrize("name", ["nobody", "nobody@app.example", "7"])
def test_a_user_nobody_knows_is_not_found(gateway: Gateway, name: str) -> None:
    product, _ = gateway.sold(5)
    with gateway.nothing_recorded():
        assert named(problem(gateway.get(f"{BASE}/users/{name}/payment-status"), 404)) == {"user"}
        assert named(problem(gateway.subscribe(name, product), 404)) == {"#/user"}


# Cards


def test_a_card_pays_the_next_invoices_however_it_was_named(gateway: Gateway, new_user: Callable[..., str]) -> None:
    fresh = gateway.ask_stripe("POST", "payment_methods", type="card", **{"card[token]": "tok_mastercard"})["id"]
    product, _ = gateway.sold(9)
    users = {name: new_user() for name in ("tok_mastercard", "pm_card_mastercard", fresh)}
    for token, user in users.items():
        gateway.begun(user, product)
        assert shown(said(gateway.put_card(user, token))["card"]) == MASTERCARD
        assert shown(gateway.standing(email(user))["card"]) == MASTERCARD
    gateway.play(gateway.today() + timedelta(days=32))
    for user in users.values():
        eventually(lambda user=user: gateway.charged(user) == [(900, "4242"), (900, "4444")])  # type: ignore[misc]


def test_a_card_that_is_declined_leaves_the_one_before(gateway: Gateway, user: str) -> None:
    before = gateway.standing(user)
    for token in ("tok_chargeDeclined", "pm_card_chargeDeclined"):
        assert problem(gateway.put_card(user, token), 402)["type"].endswith(":declined")
    assert gateway.standing(user) == before
    gateway.begun(user, gateway.sold(9)[0])
    assert gateway.charged(user) == [(900, "4242")]


def test_a_token_pays_for_one_user_only(gateway: Gateway, new_user: Callable[..., str]) -> None:
    first, second = new_user(), new_user()
    card: dict[str, str | int] = {
        "card[number]": "5555555555554444",
        "card[exp_month]": 12,
        "card[exp_year]": 2040,
        "card[cvc]": "123",
    }
    token = gateway.ask_stripe("POST", "tokens", **card)["id"]
    assert shown(said(gateway.put_card(first, token))["card"]) == MASTERCARD
    assert shown(said(gateway.put_card(first, token))["card"]) == MASTERCARD  # the same wish
    assert "#/token" in named(problem(gateway.put_card(second, token), 422))
    assert shown(gateway.standing(second)["card"]) == VISA


@pytest.mark.parametrize(
    "token", ["", "nonsense", "4111111111111111", "pi_1", "tok_ visa", None, 7, ["tok_visa"], "x" * 300]
)
def test_what_is_no_token_is_refused_and_nothing_is_recorded(gateway: Gateway, token: object) -> None:
    stranger = f"stranger-{next(_users)}"
    with gateway.nothing_recorded():
        assert named(problem(gateway.put_card(stranger, token), 400)) == {"#/token"}
        assert named(problem(gateway.http.put(f"{BASE}/users/{stranger}/card", json={}), 400)) == {"#/token"}
        assert gateway.get(f"{BASE}/users/{stranger}/payment-status").status_code == 404


@pytest.mark.parametrize("token", ["tok_unknown", "pm_unknown"])
def test_a_token_that_stripe_does_not_know_is_refused(gateway: Gateway, user: str, token: str) -> None:
    before = gateway.standing(user)
    assert "#/token" in named(problem(gateway.put_card(user, token), 422))
    assert gateway.standing(user) == before


# Subscriptions


@pytest.mark.parametrize("by", ["id", "name", "price"])
def test_a_user_subscribes_to_a_product_or_to_one_of_its_prices(gateway: Gateway, user: str, by: str) -> None:
    product, price = gateway.sold(12)
    other = gateway.priced(product, 7)
    title = gateway.ask_stripe("GET", f"products/{product}")["name"]
    name = title if by == "name" else product
    chosen = {"price": other} if by == "price" else {}
    begun = said(gateway.subscribe(user, name, **chosen), 201)
    assert str(UUID(begun["id"])) == begun["id"]
    assert begun == begun | {"user_id": user, "product": product, "price": chosen.get("price", price)}
    [held] = gateway.held(user)
    assert [item["price"]["id"] for item in held["items"]["data"]] == [begun["price"]]
    assert gateway.charged(user) == [(700 if by == "price" else 1200, "4242")]
    assert gateway.one(user)["id"] == begun["id"]


WRONG_SUBSCRIPTIONS: list[tuple[Fields, int, str]] = [
    ({"product": "prod_unknown"}, 404, "#/product"),
    ({"price": "price_unknown"}, 404, "#/price"),
    ({"product": None}, 400, "#/product"),
    ({"product": ""}, 400, "#/product"),
    ({"product": 7}, 400, "#/product"),
    ({"price": 7}, 400, "#/price"),
    ({"user": None}, 400, "#/user"),
    ({"user": ["ada"]}, 400, "#/user"),
]


@pytest.mark.parametrize(("wrong", "status", "field"), WRONG_SUBSCRIPTIONS, ids=str)
def test_a_wrong_subscription_is_refused_by_its_field(
    gateway: Gateway, user: str, wrong: Fields, status: int, field: str
) -> None:
    product, _ = gateway.sold(12)
    with gateway.nothing_recorded():
        assert named(problem(gateway.subscribe(**{"user": user, "product": product} | wrong), status)) == {field}
    assert gateway.held(user) == []


def test_what_cannot_be_subscribed_to_is_refused_by_its_field(gateway: Gateway, user: str) -> None:
    product, _ = gateway.sold(12)
    _, other = gateway.sold(13)
    bare = gateway.new_product()
    once = gateway.ask_stripe("POST", "prices", product=product, currency="usd", unit_amount=100)["id"]
    choice = gateway.new_product()
    for dollars in (1, 2):
        gateway.priced(choice, dollars)
    cases = [(product, other, 422), (product, once, 404), (bare, None, 422), (choice, None, 422)]
    with gateway.nothing_recorded():
        for wanted, price, status in cases:
            assert named(problem(gateway.subscribe(user, wanted, price=price), status)) == {"#/price"}
        assert named(problem(gateway.http.post(f"{BASE}/subscriptions", json={}), 400)) == {"#/user", "#/product"}
        for body in ("", "[]", "null", '{"user": '):
            problem(gateway.http.post(f"{BASE}/subscriptions", content=body), 400)
    assert gateway.held(user) == []


def test_many_clicks_subscribe_a_user_once(gateway: Gateway, user: str) -> None:
    product, _ = gateway.sold(12)
    answers = together([partial(gateway.subscribe, user, product)] * CLICKS)
    assert {answer.status_code for answer in answers} <= {200, 201, 202, 409}
    assert [answer.status_code for answer in answers].count(201) == 1
    assert named(problem(gateway.subscribe(user, product), 409)) == {"#/product"}
    assert (len(gateway.held(user)), gateway.charged(user)) == (1, [(1200, "4242")])


def test_a_first_payment_that_is_declined_begins_nothing(gateway: Gateway, new_user: Callable[..., str]) -> None:
    user, (product, _) = new_user(DECLINED_LATER), gateway.sold(12)
    problem(gateway.subscribe(user, product), 402)
    eventually(lambda: gateway.standing(user)["payment_status"] == "failed")
    assert gateway.standing(user)["payment_expire_date"] is None
    said(gateway.put_card(user, "tok_visa"))
    answer = gateway.subscribe(user, product)
    assert answer.status_code == 201, answer.text
    eventually(lambda: gateway.standing(user)["payment_status"] == "paid")
    assert gateway.charged(user) == [(1200, "4242")]


def test_a_subscription_is_the_same_through_the_ledgers_own_interface(gateway: Gateway, user: str) -> None:
    ours, theirs = gateway.sold(10)[0], gateway.sold(20)[0]
    begun = gateway.subscribed(user, ours)
    seen = gateway.found(f"/v1/subscriptions/{begun}")
    assert (seen["status"], seen["payment_status"], seen["amount"], seen["product"]) == ("active", "paid", 1000, ours)
    other = said(gateway.post("/v1/subscriptions", {"customer": user, "product": theirs}), 201)["id"]
    eventually(lambda: len(gateway.standing(user)["subscriptions"]) == 2)
    assert named(problem(gateway.change(begun, product=theirs), 409)) == {"#/product"}
    assert said(gateway.cancel(other))["status"] == "cancelled"
    eventually(lambda: gateway.found(f"/v1/subscriptions/{other}")["status"] == "cancelled")


# Changes


@pytest.mark.parametrize("what", ["product", "price"])
def test_a_change_is_prorated_as_stripe_does_it(gateway: Gateway, user: str, what: str) -> None:
    product, price = gateway.sold(10)
    dearer = gateway.priced(product, 30)
    wanted, its_price = gateway.sold(30) if what == "product" else (product, dearer)
    subscription = gateway.begun(user, product)
    [held] = gateway.held(user)
    start, end = (held["items"]["data"][0][f"current_period_{edge}"] for edge in ("start", "end"))
    gateway.play(datetime.fromtimestamp((start + end) // 2, UTC))
    changed = said(gateway.change(subscription, **{what: wanted if what == "product" else its_price}))
    assert (changed["id"], changed["product"], changed["price"]) == (subscription, wanted, its_price)
    assert gateway.one(user)["price"] == its_price
    gateway.play(datetime.fromtimestamp(end + 2 * 3600, UTC))
    # Half a month of the old one comes back, half a month of the new one is paid, and the month that follows.
    eventually(lambda: gateway.charged(user) == [(1000, "4242"), (3000 + 1000, "4242")])
    assert price != its_price


def test_a_wrong_change_is_refused_by_its_field(gateway: Gateway, user: str) -> None:
    product, _ = gateway.sold(10)
    _, foreign = gateway.sold(20)
    subscription = gateway.begun(user, product)
    before = gateway.one(user)
    wrong: list[tuple[Fields, int, str]] = [
        ({"product": "prod_unknown"}, 404, "#/product"),
        ({"price": "price_unknown"}, 404, "#/price"),
        ({"price": foreign}, 422, "#/price"),
        ({"product": product, "price": foreign}, 422, "#/price"),
        ({"product": 7}, 400, "#/product"),
        ({"price": ["x"]}, 400, "#/price"),
        ({"price": ""}, 400, "#/price"),
    ]
    with gateway.nothing_recorded():
        for fields, status, field in wrong:
            assert named(problem(gateway.change(subscription, **fields), status)) == {field}
        assert named(problem(gateway.change(subscription), 400))
    assert gateway.one(user) == before


# Cancelling


def test_a_subscription_is_cancelled_at_once_and_costs_no_more(gateway: Gateway, user: str) -> None:
    product, _ = gateway.sold(10)
    subscription = gateway.subscribed(user, product)
    paid_until = gateway.standing(user)["payment_expire_date"]
    assert said(gateway.cancel(subscription))["status"] == "cancelled"
    assert said(gateway.cancel(subscription))["status"] == "cancelled"  # the same wish
    assert [held["status"] for held in gateway.held(user)] == ["canceled"]
    gateway.play(gateway.today() + timedelta(days=32))
    assert gateway.charged(user) == [(1000, "4242")]
    assert gateway.one(user)["payment_expire_date"] == paid_until
    changes: list[Fields] = [{"product": gateway.sold(5)[0]}, {"price": gateway.priced(product, 5)}]
    with gateway.nothing_recorded():
        for fields in changes:
            assert named(problem(gateway.change(subscription, **fields), 409)) == {"subscription"}
    said(gateway.subscribe(user, product), 201)  # it is not an active one that stands in the way


def test_a_subscription_is_kept_to_the_end_of_the_paid_period(gateway: Gateway, user: str) -> None:
    subscription = gateway.subscribed(user, gateway.sold(10)[0])
    paid_until = gateway.standing(user)["payment_expire_date"]
    answer = said(gateway.cancel(subscription, at_period_end="true"))
    assert (answer["status"], answer["ends_at"][:10]) == ("active", paid_until)
    assert [held["cancel_at_period_end"] for held in gateway.held(user)] == [True]
    gateway.play(gateway.today() + timedelta(days=32))
    eventually(lambda: gateway.one(user)["status"] == "cancelled")
    assert gateway.charged(user) == [(1000, "4242")]
    assert gateway.standing(user)["payment_expire_date"] == paid_until


def test_a_wrong_cancellation_cancels_nothing(gateway: Gateway, user: str) -> None:
    subscription = gateway.begun(user, gateway.sold(10)[0])
    with gateway.nothing_recorded():
        for word in ("maybe", "", "2"):
            assert named(problem(gateway.cancel(subscription, at_period_end=word), 400)) == {"at_period_end"}
        for call in (gateway.cancel, partial(gateway.change, product="Pro")):
            assert named(problem(call(str(uuid4())), 404)) == {"subscription"}
            problem(call("nonsense"), 404)
    assert gateway.one(user)["status"] == "active"


# Expiry


def test_the_expire_date_keeps_the_last_day_of_january_over_short_months(
    gateway: Gateway, new_user: Callable[..., str]
) -> None:
    year = next(year for year in range(gateway.today().year + 1, 2999) if year % 4 == 3)
    start = datetime(year, 1, 31, 12, tzinfo=UTC)
    gateway.play(start)
    monthly, yearly = new_user(), new_user()
    subscription = gateway.subscribed(monthly, gateway.sold(10)[0])
    gateway.subscribed(yearly, gateway.sold(100, interval="year")[0])
    dates = {0: gateway.standing(monthly)["payment_expire_date"]}
    for month in (1, 2, 11, 12, 13):  # of 31 January: 28 February, 31 March, …, 31 December, 31 January, 29 February
        assert gateway.standing(yearly)["payment_expire_date"] == months_on(start, 12 if month <= 12 else 24)
        gateway.play(due(start, month))
        eventually(lambda month=month: gateway.standing(monthly)["payment_expire_date"] == months_on(start, month + 1))  # type: ignore[misc]
        dates[month] = gateway.standing(monthly)["payment_expire_date"]
        if month == 12:
            eventually(lambda: gateway.standing(yearly)["payment_expire_date"] == f"{year + 2}-01-31")
    assert (dates[0], dates[1]) == (f"{year}-02-28", f"{year}-03-31")
    assert (dates[12], dates[13]) == (f"{year + 1}-02-29", f"{year + 1}-03-31")
    assert gateway.charged(yearly) == [(10000, "4242")] * 2
    told = [fact["data"] for fact in gateway.facts_of(subscription) if fact["type"] == "SubscriptionRenewed"]
    assert sorted(fact["period_end"][:10] for fact in told) == [months_on(start, month + 1) for month in range(14)]
    assert len({fact["invoice"] for fact in told}) == 14


def test_a_renewal_that_fails_is_failed_and_paid_again_with_another_card(gateway: Gateway, user: str) -> None:
    start = gateway.today()
    subscription = gateway.subscribed(user, gateway.sold(10)[0])
    paid_until = gateway.standing(user)["payment_expire_date"]
    said(gateway.put_card(user, DECLINED_LATER))
    gateway.play(due(start, 1))
    eventually(lambda: gateway.standing(user)["payment_status"] == "failed")
    eventually(lambda: gateway.one(user)["status"] == "past_due")
    assert gateway.standing(user)["payment_expire_date"] == paid_until
    assert gateway.charged(user, "failed") == [(1000, "0341")]
    assert "RenewalFailed" in [fact["type"] for fact in gateway.facts_of(subscription)]
    said(gateway.put_card(user, "tok_mastercard"))
    gateway.play(due(start, 1) + RETRIED)
    eventually(lambda: gateway.standing(user)["payment_status"] == "paid")
    assert gateway.charged(user) == [(1000, "4242"), (1000, "4444")]
    assert gateway.standing(user)["payment_expire_date"] == months_on(start, 2)


# One vocabulary


def test_a_subscription_without_an_answer_is_pending_at_first(gateway: Gateway, user: str) -> None:
    product, _ = gateway.sold(10)
    with gateway.fault("POST /v1/subscriptions", "reply_lost", times=10):
        answer = said(gateway.subscribe(user, product), 202)
    assert (answer["status"], answer["payment_status"]) == ("pending", "pending")
    assert gateway.standing(user)["payment_status"] in ("pending", "paid")
    eventually(lambda: gateway.standing(user)["payment_status"] == "paid", HEAL_S)
    assert (gateway.one(user)["id"], gateway.charged(user)) == (answer["id"], [(1000, "4242")])


def refund(gateway: Gateway, charge: Fields, **fields: int) -> str:
    """In Stripe's dashboard; nobody asked us for it."""
    return str(gateway.ask_stripe("POST", "refunds", charge=charge["id"], **fields)["id"])


def test_a_payment_that_went_back_in_full_is_refunded_and_one_that_went_back_in_part_is_not(
    gateway: Gateway, user: str
) -> None:
    start = gateway.today()
    subscription = gateway.subscribed(user, gateway.sold(10)[0])
    [first] = gateway.charges(user)
    refund(gateway, first, amount=999)

    def given_back() -> list[int]:
        told = [fact["data"] for fact in gateway.facts_of(subscription) if fact["type"] == "InvoiceRefunded"]
        return [fact["amount"] for fact in told if fact["currency"] == "usd"]

    eventually(lambda: given_back() == [999])
    standing = gateway.standing(user)
    assert (standing["payment_status"], gateway.one(user)["payment_status"]) == ("paid", "paid")
    assert standing["payment_expire_date"] == months_on(start, 1)
    refund(gateway, first)
    eventually(lambda: gateway.standing(user)["payment_status"] == "refunded")
    assert given_back() == [999, 1000]
    one = gateway.one(user)
    assert (one["status"], one["payment_status"], one["payment_expire_date"]) == ("active", "refunded", None)
    assert gateway.standing(user)["payment_expire_date"] is None
    gateway.play(due(start, 1))
    eventually(lambda: gateway.standing(user)["payment_status"] == "paid")
    assert gateway.standing(user)["payment_expire_date"] == months_on(start, 2)
    refund(gateway, gateway.charges(user)[-1])
    eventually(lambda: gateway.standing(user)["payment_status"] == "refunded")
    assert gateway.standing(user)["payment_expire_date"] is None


def test_a_refund_that_comes_back_leaves_the_payment_paid(gateway: Gateway, new_user: Callable[..., str]) -> None:
    user = new_user("pm_card_refundFail")
    gateway.subscribed(user, gateway.sold(10)[0])
    refund(gateway, gateway.charges(user)[0])
    eventually(lambda: gateway.standing(user)["payment_status"] == "refunded")
    gateway.play(gateway.today() + timedelta(days=2))
    eventually(lambda: gateway.standing(user)["payment_status"] == "paid")


# Webhooks


def test_both_samples_are_kept_as_they_are_and_shown_as_unmatched(gateway: Gateway) -> None:
    for kind in (*KINDS, *KINDS):
        body = sample(kind)
        said(gateway.hear(kind, body, signed(body)))
    expected = [("charge.failed", "unmatched"), ("charge.succeeded", "unmatched")]
    eventually(lambda: sorted((line["type"], line["state"]) for line in gateway.inbox(SAMPLED)) == expected)
    assert gateway.facts_about("ch_00000000000000") == []


def test_only_what_stripe_signed_just_now_is_kept(gateway: Gateway) -> None:
    kept, now = [f"evt_{uuid4().hex}" for _ in KINDS], time.time()
    lost = [f"evt_{uuid4().hex}" for _ in KINDS]
    for kind, good, bad in zip(KINDS, kept, lost, strict=True):
        body = sample(kind, id=bad)
        wrong = [
            *(None, "", "nonsense", signed(body, "whsec_of_another"), signed(body, ""), signed(body + b" ")),
            *(signed(body, at=now + late_s) for late_s in (-TOLERANCE_S - 5, TOLERANCE_S + 5)),
            *(signed(body).partition(",")[2], signed(body).replace("v1=", "v0=")),
        ]
        for header in wrong:
            assert named(problem(gateway.hear(kind, body, header), 400)) == {"Stripe-Signature"}
        said(gateway.hear(kind, sample(kind, id=good), signed(sample(kind, id=good))))
    assert [line["event"] for line in gateway.inbox(*kept, *lost)] == kept


def test_a_webhook_of_another_type_is_refused_and_not_kept(gateway: Gateway) -> None:
    event = f"evt_{uuid4().hex}"
    for kind, other in (KINDS, KINDS[::-1]):
        for word in (f"charge.{other}", "charge.captured", "invoice.paid", ""):
            body = sample(kind, id=event, type=word)
            assert named(problem(gateway.hear(kind, body, signed(body)), 400)) == {"#/type"}
        for body in (sample(kind, id=event, type=7), b"[]", b"null", b'{"id": '):
            assert named(problem(gateway.hear(kind, body, signed(body)), 400)) == {"#"}
        for body in (b"", b"\xff"):
            problem(gateway.hear(kind, body, signed(body)), 400)
    assert gateway.inbox(event) == []


def test_the_two_webhooks_alone_tell_how_a_user_stands(gateway: Gateway, user: str) -> None:
    start = gateway.today()
    gateway.begun(user, gateway.sold(10)[0])
    said(gateway.put_card(user, DECLINED_LATER))
    with gateway.deaf():
        gateway.play(due(start, 1))
        failed = json.dumps(gateway.last_event("failed", user)).encode()
        said(gateway.hear("failed", failed, signed(failed)))
        eventually(lambda: gateway.standing(user)["payment_status"] == "failed")
        said(gateway.put_card(user, "tok_visa"))
        gateway.play(due(start, 1) + RETRIED)
        told = json.dumps(gateway.last_event("succeeded", user)).encode()
        for _ in range(3):
            said(gateway.hear("succeeded", told, signed(told)))
        eventually(lambda: gateway.standing(user)["payment_status"] == "paid")
        said(gateway.hear("failed", failed, signed(failed)))  # late, and told before
    assert gateway.standing(user)["payment_status"] == "paid"
    assert gateway.standing(user)["payment_expire_date"] == months_on(start, 2)


def test_a_webhook_of_another_account_changes_nobody(gateway: Gateway, user: str) -> None:
    subscription = gateway.subscribed(user, gateway.sold(10)[0])
    before = gateway.standing(user), gateway.facts_of(subscription)
    foreign = gateway.last_event("succeeded", user) | {"id": f"evt_{uuid4().hex}", "account": "acct_of_another"}
    for kind in KINDS:
        body = json.dumps(foreign | {"type": f"charge.{kind}"}).encode()
        said(gateway.hear(kind, body, signed(body)))
    kept = gateway.inbox(foreign["id"])
    assert [(line["state"], "acct_of_another" in line["note"]) for line in kept] == [("unmatched", True)] * 2
    assert (gateway.standing(user), gateway.facts_of(subscription)) == before


# Tokens


CALLS: list[tuple[str, str, Any]] = [
    ("GET", "/users/ada/payment-status", None),
    ("PUT", "/users/ada/card", {"token": "tok_visa"}),
    ("POST", "/subscriptions", {"user": "ada", "product": "Pro"}),
    ("PUT", f"/subscriptions/{UUID(int=1)}", {"product": "Pro"}),
    ("DELETE", f"/subscriptions/{UUID(int=1)}", None),
]


def ask(gateway: Gateway, call: tuple[str, str, Any], headers: dict[str, str]) -> httpx.Response:
    method, path, body = call
    return gateway.stranger.request(method, f"{BASE}{path}", json=body, headers=headers)


def minted(*scopes: str, **claims: object) -> str:
    """A token as an issuer who knows the secret makes it."""
    fields = {"sub": "app", "exp": int(time.time()) + 600, "scope": " ".join(scopes), "jti": uuid4().hex} | claims
    return jwt.encode(fields, SECRETS["JWT_SECRET_KEY"], "HS256")


def test_a_token_that_was_taken_back_is_refused_at_once(gateway: Gateway) -> None:
    claims: Fields = {"jti": uuid4().hex, "exp": int(time.time()) + 3600}
    token = minted("write:payment", "read:payment", **claims)
    assert ask(gateway, CALLS[0], bearer(token)).status_code == 404
    said(gateway.post(f"/v1/tokens/{claims['jti']}/invalidation", token=token))
    with gateway.nothing_recorded():
        assert [ask(gateway, call, bearer(token)).status_code for call in CALLS] == [401] * len(CALLS)
    with psycopg.connect(gateway.database_url) as database:
        query = "SELECT extract(epoch FROM expires_at)::bigint FROM invalidated_tokens WHERE jti = %s"
        assert database.execute(query, (claims["jti"],)).fetchall() == [(claims["exp"],)]
    assert gateway.kept(token) == []


def test_an_email_is_kept_nowhere_in_the_clear(gateway: Gateway, user: str) -> None:
    gateway.standing(email(user))
    assert gateway.kept(email(user)) == []


def test_without_a_token_or_its_scope_nothing_is_done(gateway: Gateway) -> None:
    auditor, expired = bearer(minted("audit")), bearer(minted("write:payment", "read:payment", exp=1))
    with gateway.nothing_recorded():
        for call in CALLS:
            for headers in (
                {},
                bearer("not.a.token"),
                bearer(gateway.token + "x"),
                {"Authorization": "Basic YTpi"},
                expired,
            ):
                problem(ask(gateway, call, headers), 401)
            problem(ask(gateway, call, auditor), 403)
