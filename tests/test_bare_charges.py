"""Charges that a front end made by the older Charges API, without a PaymentIntent: taken over, then like any other."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
import stripe
from msgspec import convert
from psycopg import AsyncConnection

from application.event_store import Ledger, StoreUnavailable
from application.gateway import Instruction
from application.payment_stream import Context
from application.privacy import Keys
from application.stripe_errors import despite_kept_error
from application.stripe_events import StripeEvent, event
from domain.errors import Refusal
from domain.money import Money
from domain.payment import Payment
from domain.payment_commands import Authorize, Capture, Refund, Void, Wish
from interface.sandbox.postgres import Postgres
from tests.fault_services import Services, World
from tests.faults import AT_CALL, AT_LOOK, AT_STORE, Gateway, Killed, Parts, Provider, Strike, stand_in
from tests.recovery_side import migrated
from tests.system import System
from tests.test_contract_airline import STRIPE_KEY, Airline
from tests.test_stripe_standing import Stripe, page

ME = Context("airline", "bare")
ABANDONED, RAN_OUT = timedelta(minutes=2), timedelta(days=8)
HELD = {"amount": "10099", "currency": "usd", "source": "tok_visa", "capture": "false"}
PART = 60_00


# --- Over HTTP ---------------------------------------------------------------------------------------------------


class FrontEnd(Airline):
    def bare(self, **changed: str) -> str:
        """A charge that the front end has pre-authorised by itself."""
        answer = httpx.post(f"{self.system.stripe}/v1/charges", headers=STRIPE_KEY, data=HELD | changed)
        return str(answer.json().get("id") or answer.json()["error"]["charge"])

    def move(self, path: str, **fields: Any) -> None:
        httpx.post(f"{self.system.stripe}/v1/{path}", headers=STRIPE_KEY, data=fields).raise_for_status()

    def one(self, charge: str) -> dict[str, Any]:
        return next(one for one in self.system.state()["charges"] if one["id"] == charge)

    def payment(self, charge: str) -> dict[str, Any]:
        stream = self.one(charge)["metadata"]["payledger_payment"]
        return self.system.payment(stream, after=self.system.facts(stream)[-1]["position"])


@pytest.fixture
def airline(system: System) -> FrontEnd:
    return FrontEnd(system)


def test_a_bare_charge_is_adopted_collected_and_refunded(airline: FrontEnd) -> None:
    charge = airline.bare()
    for _ in range(2):
        assert airline.pay(charge).json() == {"status": "authorized"}
    payment = airline.payment(charge)
    assert payment["stripe"] == {"payment_intent": None, "charge": charge}
    assert (payment["amount_capturable"], payment["card"]["last4"]) == (100_99, "4242")
    captured = airline.capture(charge).json()["capturedCharge"]
    assert (captured["id"], captured["payment_intent"], captured["amount_captured"]) == (charge, None, 100_99)
    assert captured["receipt_url"].startswith("https://")
    assert airline.capture(charge).json()["capturedCharge"] == captured
    refund = airline.refund(charge).json()["createdRefund"]
    assert airline.refund(charge).json()["createdRefund"] == refund
    assert (refund["id"][:3], refund["amount"], refund["charge"]) == ("re_", 100_99, charge)
    assert airline.one(charge)["amount_refunded"] == 100_99
    assert airline.payment(charge)["status"] == "refunded"


def test_a_bare_charge_that_was_never_taken_is_released_and_nothing_moves(airline: FrontEnd) -> None:
    charge = airline.bare()
    airline.pay(charge)
    for _ in range(2):
        assert airline.refund(charge).json()["createdRefund"]["amount"] == 100_99
    assert airline.payment(charge)["status"] == "voided"
    assert (airline.one(charge)["captured"], airline.one(charge)["refunded"]) == (False, True)
    assert charge not in {moved["source"] for moved in airline.system.state()["balance_transactions"]}


def test_a_bare_charge_is_captured_once_and_the_rest_is_released(airline: FrontEnd) -> None:
    charge = airline.bare()
    airline.pay(charge)
    payment = airline.system.moved(airline.payment(charge), "captures", amount=PART)
    assert (payment["status"], payment["amount_capturable"]) == ("partially_captured", 0)
    assert airline.system.move(payment, "captures").status_code == 409
    assert airline.system.move(payment, "void").status_code == 409
    assert airline.system.move(payment, "refunds", amount=PART + 1).status_code == 422
    for amount in (10_00, 50_00):
        airline.system.moved(payment, "refunds", amount=amount)
    assert airline.payment(charge)["status"] == "refunded"


def test_a_bare_charge_is_one_payment_however_many_ask_at_once(airline: FrontEnd) -> None:
    charge = airline.bare()
    with ThreadPoolExecutor(20) as clicks:
        answers = list(clicks.map(lambda _: airline.pay(charge), range(40)))
    assert {answer.status_code for answer in answers} == {200}
    assert airline.system.history(airline.one(charge)["metadata"]["payledger_payment"]) == [
        "AuthorizationStarted",
        "Authorized",
    ]


def test_a_bare_charge_that_was_captured_already_is_adopted_as_captured(airline: FrontEnd) -> None:
    charge = airline.bare(capture="true")
    assert airline.pay(charge).json() == {"status": "captured"}
    assert airline.refund(charge).json()["createdRefund"]["amount"] == 100_99


@pytest.mark.parametrize("changed", [{"amount": 100.98}, {"currency": "EUR"}])
def test_a_bare_charge_of_other_money_is_not_adopted(airline: FrontEnd, changed: dict[str, Any]) -> None:
    charge = airline.bare()
    answer = airline.pay(charge, **changed)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (400, "#/stripeToken")
    assert airline.capture(charge).status_code == 404
    assert airline.one(charge)["metadata"] == {}, "nothing is changed of it"


def test_a_bare_charge_that_holds_not_all_of_its_money_is_not_adopted(airline: FrontEnd) -> None:
    declined, released, in_part, refunded, strange = (
        airline.bare(source="tok_chargeDeclined"),
        airline.bare(),
        airline.bare(),
        airline.bare(capture="true"),
        airline.bare(**{"metadata[payledger_payment]": str(uuid4())}),
    )
    airline.move("refunds", charge=released)
    airline.move(f"charges/{in_part}/capture", amount=PART)
    airline.move("refunds", charge=refunded, amount=PART)
    for charge in (declined, released, in_part, refunded, strange):
        before = airline.one(charge)
        assert airline.pay(charge).status_code == 400, charge
        assert airline.one(charge) == before


# --- Both sides in one process ------------------------------------------------------------------------------------


class Desk:
    """A charge, its payment, and whoever works on it."""

    def __init__(self, world: World, parts: Parts, **changed: str) -> None:
        self.http = world.provider.http
        self.clock = world.provider
        self.charge = str(self.http.post("/v1/charges", data=HELD | changed).json()["id"])
        self.services = Services(world, uuid4(), parts, world.provider.clock())
        self.amount = Money(100_99, "usd")
        self.wishes: dict[str, Wish] = {
            "adopt": Authorize("adopt", self.amount, "manual", self.charge),
            "capture": Capture("capture", PART),
            "void": Void("void"),
            "refund": Refund("refund", 10_00),
        }

    async def ask(self, name: str, strike: Strike | None = None) -> str:
        async with self.services.process(strike) as process:
            try:
                return (await process.payments.carry_out(self.services.stream, self.wishes[name], ME)).outcome
            except (Killed, StoreUnavailable, Refusal) as error:
                return type(error).__name__
            finally:
                assert process.points.struck == (strike is not None)

    async def hear(self) -> None:
        """What Stripe's list of events leads to."""
        await self.clock.advance(ABANDONED)
        await self.services.sweep()

    @property
    def payment(self) -> Payment:
        payment = self.services.history.payment
        assert payment is not None
        return payment

    def status(self) -> str:
        return self.payment.status

    def at_stripe(self) -> dict[str, Any]:
        found: dict[str, Any] = self.http.get(f"/v1/charges/{self.charge}").json()
        return found

    def agreed(self) -> None:
        """The ledger and Stripe say the same, and nothing moved twice."""
        charge, state = self.at_stripe(), self.clock.state()
        back = [one for one in state["refunds"] if one["charge"] == self.charge and one["balance_transaction"]]
        taken = [one for one in state["balance_transactions"] if one["source"] == self.charge]
        assert self.payment.captured.minor == charge["amount_captured"]
        assert self.payment.refunded.minor == sum(one["amount"] for one in back)
        assert bool(self.payment.capturable) == (not charge["captured"] and not charge["refunded"])
        assert len([one for one in taken if one["type"] == "charge"]) == charge["captured"]
        assert not self.services.open_operations()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with stand_in() as url:
        yield url


@pytest.fixture(scope="module")
def log_url(postgres: Postgres) -> Iterator[str]:
    with migrated(postgres) as url:
        yield url


Work = Callable[[Desk], Awaitable[None]]
Play = Callable[..., None]


@pytest.fixture
def play(url: str, log_url: str, caplog: pytest.LogCaptureFixture) -> Play:
    caplog.set_level("CRITICAL", "application")
    return partial(played, url, log_url)


def played(url: str, log_url: str, work: Work, parts: Parts | None = None, **changed: str) -> None:
    """Do the work at a desk with a charge of its own; afterwards both sides must agree."""

    async def run() -> None:
        with Ledger(log_url, Keys((bytes(32),), os.urandom)) as ledger:
            async with await AsyncConnection.connect(log_url, autocommit=True) as conn:
                desk = Desk(World(Provider(url), ledger, conn), parts or Parts(), **changed)
                await desk.services.begin()
                await work(desk)
                desk.agreed()
                await desk.clock.quiet()

    asyncio.run(run())


# --- Interrupted -------------------------------------------------------------------------------------------------

BEFORE = {"adopt": (), "capture": ("adopt",), "void": ("adopt",), "refund": ("adopt", "capture")}
MATRIX = [
    (wish, point, fault)
    for wish, looks in {"adopt": AT_LOOK, "capture": (), "void": AT_LOOK, "refund": ()}.items()
    for point, faults in {"intent": AT_STORE, "look": looks, "call": AT_CALL, "outcome": AT_STORE}.items()
    for fault in faults
]


@pytest.mark.parametrize("first", ["the caller", "recovery"])
@pytest.mark.parametrize("wish", BEFORE)
def test_whatever_is_interrupted_is_finished_once(play: Play, wish: str, first: str) -> None:
    def struck(point: str, fault: str) -> Work:
        async def work(desk: Desk) -> None:
            for earlier in BEFORE[wish]:
                assert await desk.ask(earlier) == "done"
            await desk.ask(wish, Strike(point, fault))
            await desk.clock.advance(ABANDONED)
            if first == "recovery":
                await desk.services.recover()
            if await desk.ask(wish) == "open":  # Stripe keeps an error of its own, too
                await desk.services.recover()
            assert await desk.ask(wish) == "done", (point, fault)

        return work

    for one, point, fault in MATRIX:
        if one == wish:
            play(struck(point, fault))


def test_what_was_taken_over_is_ours_whatever_becomes_of_it_before_we_know(play: Play) -> None:
    async def work(desk: Desk) -> None:
        assert await desk.ask("adopt", Strike("call", "reply lost")) == "open"
        await by_hand("charges/CHARGE/capture", amount=PART)(desk)
        await desk.services.recover()
        await desk.hear()
        assert (desk.payment.operations["adopt"].outcome, desk.status()) == ("done", "partially_captured")

    play(work)


@pytest.mark.parametrize(("replayed", "asked"), [("true", ["", ":2"]), ("false", [""])])
def test_only_an_error_that_stripe_repeats_is_got_round(replayed: str, asked: list[str]) -> None:
    steps: list[str] = []

    async def post(step: str) -> stripe.StripeResponse:
        steps.append(step)
        if not step:
            raise stripe.APIError("broken", http_status=500, headers={"idempotent-replayed": replayed})
        return stripe.StripeResponse("{}", 200, {})

    with suppress(stripe.APIError):
        asyncio.run(despite_kept_error(post))
    assert steps == asked


@pytest.mark.parametrize("wish", ["capture", "void", "refund"])
def test_what_stripe_tells_settles_a_movement_whose_reply_was_lost(play: Play, wish: str) -> None:
    async def work(desk: Desk) -> None:
        for earlier in BEFORE[wish]:
            await desk.ask(earlier)
        assert await desk.ask(wish, Strike("call", "reply lost")) == "open"
        await desk.hear()
        assert desk.payment.operations[wish].outcome == "done"

    play(work)


# --- Made at Stripe by hand, or by time --------------------------------------------------------------------------


def by_hand(path: str, **fields: Any) -> Callable[[Desk], Awaitable[None]]:
    async def work(desk: Desk) -> None:
        filled = {name: str(value).replace("CHARGE", desk.charge) for name, value in fields.items()}
        desk.http.post("/v1/" + path.replace("CHARGE", desk.charge), data=filled).raise_for_status()

    return work


async def run_out(desk: Desk) -> None:
    await desk.clock.advance(RAN_OUT)


@pytest.mark.parametrize(
    ("before", "happens", "status"),
    [
        ("", by_hand("charges/CHARGE/capture", amount=PART), "partially_captured"),
        ("", by_hand("charges/CHARGE/capture"), "captured"),
        ("", by_hand("refunds", charge="CHARGE"), "voided"),
        ("", run_out, "expired"),
        ("capture", by_hand("refunds", charge="CHARGE", amount=10_00), "partially_refunded"),
        ("capture", by_hand("refunds", charge="CHARGE"), "refunded"),
    ],
    ids=["part is captured", "all is captured", "it is released", "it expires", "part is refunded", "all is refunded"],
)
def test_what_happens_to_a_bare_charge_without_us_is_heard(play: Play, before: str, happens: Work, status: str) -> None:
    async def work(desk: Desk) -> None:
        for wish in filter(None, ("adopt", before)):
            await desk.ask(wish)
        await happens(desk)
        await desk.hear()
        assert desk.status() == status

    play(work)


def test_a_dispute_of_a_bare_charge_is_opened_and_won(play: Play) -> None:
    async def work(desk: Desk) -> None:
        await desk.ask("adopt")
        await desk.ask("capture")
        await desk.hear()
        assert desk.status() == "disputed"
        (dispute,) = desk.payment.disputes
        answer = {"evidence[uncategorized_text]": "winning_evidence", "submit": "true"}
        desk.http.post(f"/v1/disputes/{dispute}", data=answer).raise_for_status()
        await desk.hear()
        assert desk.status() == "partially_captured"

    play(work, source="tok_createDispute")


@pytest.mark.parametrize("wish", ["capture", "void"])
def test_what_comes_too_late_for_a_bare_charge_fails_and_it_is_expired(play: Play, wish: str) -> None:
    async def work(desk: Desk) -> None:
        await desk.ask("adopt")
        await run_out(desk)
        assert await desk.ask(wish) == "failed"
        assert desk.status() == "expired"

    play(work)


def test_a_release_never_gives_captured_money_back(play: Play) -> None:
    async def work(desk: Desk) -> None:
        await desk.ask("adopt")
        await by_hand("charges/CHARGE/capture")(desk)
        assert await desk.ask("void") == "failed"
        await desk.hear()
        assert desk.status() == "captured"

    play(work)


def test_what_stripe_shows_of_the_rest_after_a_capture_is_no_refund(log_url: str) -> None:
    async def work(desk: Desk) -> None:
        for wish in ("adopt", "capture"):
            await desk.ask(wish)
        await desk.hear()
        assert (desk.status(), desk.at_stripe()["amount_refunded"]) == ("partially_captured", 100_99 - PART)
        await by_hand("refunds", charge="CHARGE", amount=10_00)(desk)
        await desk.hear()
        assert desk.payment.refunded.minor == 10_00

    with stand_in("--release-as-refund") as url:
        played(url, log_url, work)


class CapturedMeanwhile(Gateway):
    """Somebody captures it in the moment between our look and our refund."""

    async def _post(self, path: str, params: Any, instruction: Instruction, step: str = "") -> stripe.StripeResponse:
        if path == "refunds":
            self.points.provider.http.post(f"/v1/charges/{params['charge']}/capture")
        return await super()._post(path, params, instruction, step)


def test_a_release_that_met_captured_money_after_all_is_recorded_as_what_it_was(play: Play) -> None:
    async def work(desk: Desk) -> None:
        await desk.ask("adopt")
        assert await desk.ask("void") == "open"
        await desk.hear()
        await desk.services.recover()
        await desk.hear()
        assert (desk.payment.operations["void"].outcome, desk.status()) == ("failed", "refunded")

    play(work, Parts(gateway=CapturedMeanwhile))


# --- What a charge says ------------------------------------------------------------------------------------------

CHARGE = {"id": "ch_1", "status": "succeeded", "amount": 100_00, "currency": "usd", "amount_captured": 0}
TAKEN = {"captured": True, "amount_captured": 100_00}
RELEASED = {"refunded": True, "amount_refunded": 100_00}
REVERSAL = {"id": "re_1", "amount": 100_00, "currency": "usd", "status": "succeeded", "balance_transaction": None}


@pytest.mark.parametrize(
    ("told", "refunds", "authorization", "released"),
    [
        ({}, (), "RecordAuthorized", "no"),
        (TAKEN, (), "RecordAuthorized", "taken"),
        (RELEASED, (REVERSAL,), "RecordFailed", "cancelled"),
        (RELEASED, (REVERSAL | {"reason": "expired_uncaptured_charge"},), "RecordFailed", "expired"),
        (RELEASED, (REVERSAL | {"balance_transaction": "txn_1"},), "RecordFailed", "cancelled"),
        ({"status": "failed", "failure_code": "card_declined"}, (), "RecordFailed", "no"),
        ({"status": "pending"}, (), "Unknown", "no"),
    ],
)
def test_a_charge_says_by_itself_how_the_payment_stands(
    told: dict[str, Any], refunds: tuple[Any, ...], authorization: str, released: str
) -> None:
    standing = Stripe(charges__ch_1=CHARGE | told, refunds=page(*refunds)).standing("ch_1")
    assert (type(standing.authorization).__name__, standing.released) == (authorization, released)
    assert standing.refunds == (), "what was only reserved cannot be refunded"


def test_refunds_and_disputes_are_asked_for_by_the_charge() -> None:
    asked = Stripe(charges__ch_1=CHARGE | TAKEN | {"disputed": True}, refunds=page(), disputes=page())
    asked.standing("ch_1")
    assert asked.paths() == ["charges/ch_1", "refunds", "disputes"]
    assert [params["charge"] for _, params in asked.asked[1:]] == ["ch_1", "ch_1"]


# --- Whose event it is -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("thing", "name"),
    [
        ({"object": "charge", "id": "ch_1", "payment_intent": None}, "ch_1"),
        ({"object": "charge", "id": "ch_1", "payment_intent": "pi_1"}, "pi_1"),
        ({"object": "refund", "id": "re_1", "payment_intent": None, "charge": "ch_1"}, "ch_1"),
        ({"object": "refund", "id": "re_1", "payment_intent": "pi_1", "charge": "ch_1"}, "pi_1"),
        ({"object": "dispute", "id": "dp_1", "payment_intent": None, "charge": {"id": "ch_1"}}, "ch_1"),
        ({"object": "refund", "id": "re_1", "payment_intent": None, "charge": 7}, None),
        ({"object": "customer", "id": "cus_1"}, None),
    ],
)
def test_an_event_is_about_the_intent_or_else_about_the_charge(thing: dict[str, Any], name: str | None) -> None:
    told = {"id": "evt_1", "type": "charge.captured", "created": 1, "data": {"object": thing}}
    assert event(convert(told, StripeEvent)).payment_intent == name


def test_a_bare_charge_is_known_by_its_own_marks(url: str) -> None:
    payment = uuid4()

    async def ask() -> tuple[Any, Any]:
        provider = Provider(url)
        ours = provider.http.post("/v1/charges", data=HELD | {"metadata[payledger_payment]": str(payment)}).json()["id"]
        strange = provider.http.post("/v1/charges", data=HELD).json()["id"]
        async with Services(World(provider, None, None), UUID(int=0), Parts(), provider.clock()).process() as process:  # type: ignore[arg-type]
            found = await process.gateway.payment_of(ours), await process.gateway.payment_of(strange)
        await provider.quiet()
        return found

    ours, strange = asyncio.run(ask())
    assert (ours, type(strange).__name__) == (payment, "Absent")
