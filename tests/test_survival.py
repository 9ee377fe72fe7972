"""`kill -9` of any process, and of all, while payments are made: nothing that was answered is lost or done twice."""

import os
import signal
import threading
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Self

import httpx
import psycopg
import pytest

from tests.processes import eventually
from tests.system import HEAL_S, SETTLE_S, VISA, System, running

CALLERS = 3
ENOUGH = 15
PACE_S = 0.2
TAKEN, GIVEN_BACK = 60_00, 10_00
MONEY = ("amount_authorized", "amount_captured", "amount_refunded")
FACTS_OF = {
    "automatic": ["AuthorizationStarted", "Authorized", "Captured"],
    "manual": ["AuthorizationStarted", "Authorized"],
    "captures": ["CaptureStarted", "Captured"],
    "refunds": ["RefundStarted", "Refunded"],
}


@dataclass
class Wish:
    """A command, and what was answered to it: nothing when the connection broke."""

    path: str
    body: dict[str, Any]
    key: str = field(default_factory=lambda: uuid.uuid4().hex)
    status: int | None = None
    answer: Any = None

    def send(self, system: System) -> httpx.Response | None:
        try:
            answer = system.post(self.path, self.body, key=self.key)
        except httpx.TransportError:
            return None
        self.status, self.answer = answer.status_code, answer.json()
        return answer

    @property
    def facts(self) -> list[str]:
        """The facts that an answer of success promises."""
        return FACTS_OF[self.body.get("capture") or self.path.rpartition("/")[2]]


class Load:
    """Callers that make payments of one order, one after the other, until told to stop."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.order = f"order-{uuid.uuid4()}"
        self.wishes: list[Wish] = []
        self._stop = threading.Event()
        self._callers = [threading.Thread(target=self._run, args=(index,)) for index in range(CALLERS)]

    def __enter__(self) -> Self:
        for caller in self._callers:
            caller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for caller in self._callers:
            caller.join()
        strange = [wish for wish in self.wishes if wish.status not in {None, 201, 202, 503}]
        assert not strange, "only success, not knowing, not now, and no answer at all"

    def go_on(self) -> None:
        """Wait for a number of payments more."""
        wanted = self._done() + ENOUGH
        eventually(lambda: self._done() >= wanted, HEAL_S)

    def _done(self) -> int:
        return sum(wish.status == 201 for wish in list(self.wishes))

    def _run(self, index: int) -> None:
        count = index
        while not self._stop.is_set():
            count += 1
            self._one_payment("automatic" if count % 2 else "manual")

    def _one_payment(self, capture: str) -> None:
        payment = self._wish("/v1/payments", VISA | {"capture": capture, "order": self.order})
        steps = (("refunds", GIVEN_BACK),) if capture == "automatic" else (("captures", TAKEN), ("refunds", GIVEN_BACK))
        for operation, amount in steps:
            if payment is None:
                return
            payment = self._wish(f"/v1/payments/{payment['id']}/{operation}", {"amount": amount})

    def _wish(self, path: str, body: dict[str, Any]) -> Any:
        """The payment, when the wish was granted."""
        wish = Wish(path, body)
        self.wishes.append(wish)
        wish.send(self.system)
        if wish.status == 201:
            return wish.answer
        self._stop.wait(PACE_S)
        return None


# What must hold afterwards


LET_GO = """
INSERT INTO operation_tries SELECT payment, operation, 0, 0, now(), now(), 'its worker was killed' FROM open_operations
WHERE NOT waiting ON CONFLICT DO NOTHING
"""


def settle(system: System) -> None:
    """Wait until recovery has ended what is open: it is told that nobody works on that, and need not wait for them."""
    with psycopg.connect(system.database_url, autocommit=True) as conn:

        def settled() -> bool:
            conn.execute(LET_GO)
            return system.settled()

        eventually(settled, SETTLE_S)


def nothing_is_lost(load: Load) -> None:
    """Every answer stands: in the log, in the read models, at Stripe and on Kafka."""
    system = load.system
    promised, settled = promises(load)
    settle(system)
    state = system.state()
    every_intent_is_explained(system, state)
    positions = []
    totals = dict.fromkeys(MONEY, 0)
    for payment_id, words in promised.items():
        facts = system.facts(payment_id)
        history = [fact["type"] for fact in facts]
        assert [fact["version"] for fact in facts] == list(range(1, len(facts) + 1))
        assert history[: len(words)] == words, "what was answered has happened"
        assert payment_id not in settled or history == words, "and nothing else"
        payment = system.payment(payment_id, after=facts[-1]["position"])
        assert payment["version"] == len(facts)
        stripe_agrees(state, payment)
        positions.append(facts[-1]["position"])
        totals = {name: total + payment[name] for name, total in totals.items()}
    order = system.found(f"/v1/orders/{load.order}", after=max(positions))
    assert {payment["id"] for payment in order["payments"]} >= set(promised)
    if {payment["id"] for payment in order["payments"]} == set(promised):
        assert order["totals"] == [{"currency": "usd", **totals}]
    published_in_order(system, promised)


def promises(load: Load) -> tuple[dict[str, list[str]], set[str]]:
    """For each payment the facts that answers promised; and the payments of which no operation is open.

    A wish that was not answered is sent again with its key, as its caller would.
    """
    promised: dict[str, list[str]] = {}
    opened: set[str] = set()
    for wish in load.wishes:
        if wish.status in {None, 503}:
            again = wish.send(load.system)
            assert again is not None
            assert again.status_code in {200, 201, 202, 409}, again.text
        if wish.status in {200, 201}:
            promised[wish.answer["id"]] = promised.get(wish.answer["id"], []) + wish.facts
        elif wish.status == 202:
            promised.setdefault(wish.answer["id"], [])
            opened.add(wish.answer["id"])
        else:
            opened.add(wish.path.split("/")[3] if wish.path.count("/") > 2 else "")
    return promised, set(promised) - opened


def stripe_agrees(state: dict[str, Any], payment: dict[str, Any]) -> None:
    """The money of a payment is the money of its PaymentIntent, once no operation is open."""
    [intent] = [i for i in state["payment_intents"] if payment["id"] in i["metadata"].values()]
    charges = [charge for charge in state["charges"] if charge["payment_intent"] == intent["id"]]
    theirs = (intent["amount_received"], sum(charge["amount_refunded"] for charge in charges))
    ours = (payment["amount_captured"], payment["amount_refunded"])
    assert theirs == ours, payment
    assert intent["amount_capturable"] == payment["amount_capturable"]


def every_intent_is_explained(system: System, state: dict[str, Any]) -> None:
    for intent in state["payment_intents"]:
        [first, *_] = system.facts(intent["metadata"]["payledger_payment"])
        assert first["type"] == "AuthorizationStarted"
        assert (first["data"]["amount"], first["data"]["currency"]) == (intent["amount"], intent["currency"])


def published_in_order(system: System, payment_ids: Iterable[str]) -> None:
    """Who reads what is committed sees every fact of each payment once, and in order."""
    missing = {fact["id"]: fact for payment_id in payment_ids for fact in system.facts(payment_id)}
    wanted = dict(missing)
    seen: dict[str, list[str]] = defaultdict(list)
    consumer = system.consumer()

    def all_arrived() -> bool:
        for messages in consumer.poll(timeout_ms=200).values():
            for message in messages:
                fact_id = dict(message.headers)["ce_id"].decode()
                seen[message.key.decode()].append(fact_id)
                missing.pop(fact_id, None)
        return not missing

    try:
        eventually(all_arrived, HEAL_S)
    finally:
        consumer.close()
    for payment_id in payment_ids:
        in_order = [fact_id for fact_id, fact in wanted.items() if fact["stream"] == payment_id]
        assert [fact_id for fact_id in seen[payment_id] if fact_id in wanted] == in_order


# One process


@pytest.fixture(scope="module")
def victim() -> Iterator[System]:
    """A system of which processes are killed, and which heals before the next test."""
    with running() as system:
        yield system


@pytest.mark.parametrize("process", ["api", "postgres", "broker", "stripe", "project", "publish", "consume", "recover"])
def test_nothing_is_lost_when_one_process_is_killed(victim: System, process: str) -> None:
    with Load(victim) as load:
        load.go_on()
        victim.kill(process)
        load.go_on()
    nothing_is_lost(load)


def test_whoever_asks_while_the_store_is_away_is_told_to_come_back(victim: System) -> None:
    payment = victim.paid()
    # Its row must be there first: until then, 404 would be the read model's honest answer.
    victim.payment(payment["id"], after=victim.facts(payment["id"])[-1]["position"])
    paths = [f"/v1/payments/{payment['id']}", "/v1/payments", "/v1/orders", "/v1/events", "/ready", "/metrics"]
    os.kill(victim.pids["postgres"], signal.SIGKILL)
    answers = [victim.get(path) for path in paths for _ in range(3)]
    assert {answer.status_code for answer in answers} <= {200, 503}
    refused = [answer for answer in answers if answer.status_code == 503 and "/v1/" in answer.url.path]
    assert all("Retry-After" in answer.headers for answer in refused)
    eventually(lambda: victim.get("/ready").status_code == 200, HEAL_S)
    assert victim.get(paths[0]).json()["id"] == payment["id"]


def test_killing_the_api_again_and_again_charges_nobody_twice(victim: System) -> None:
    with Load(victim) as load:
        for _ in range(3):
            load.go_on()
            victim.kill("api")
    nothing_is_lost(load)


def test_what_was_left_open_can_be_asked_for_and_is_never_done_twice(victim: System) -> None:
    """The caller whose connection broke sends the same wish again: one payment, one PaymentIntent."""
    wish = Wish("/v1/payments", VISA | {"capture": "automatic"})
    with victim.fault("POST /v1/payment_intents", "slow", delay_ms=3_000, times=1):
        caller = threading.Thread(target=wish.send, args=(victim,))
        before = victim.facts_in_log()
        caller.start()
        eventually(lambda: victim.facts_in_log() > before)
        victim.kill("api")
        caller.join()
    assert wish.status is None
    answers = [wish.send(victim) for _ in range(3)]
    assert {answer.status_code for answer in answers if answer is not None} <= {200, 201, 202, 409}
    assert wish.answer["status"] in {"pending", "captured"}
    settle(victim)
    history = victim.facts(wish.answer["id"])
    assert [fact["type"] for fact in history] == ["AuthorizationStarted", "Authorized", "Captured"]
    stripe_agrees(victim.state(), victim.payment(wish.answer["id"], after=history[-1]["position"]))


# All of them


def test_yesterday_s_payments_are_there_when_everything_was_killed_or_stopped() -> None:
    with running() as system:
        with Load(system) as load:
            load.go_on()
            system.kill_everything()
        system.start()
        nothing_is_lost(load)
        answered = [(wish, wish.answer) for wish in load.wishes if wish.status == 201]
        for wish, first in answered:
            again = wish.send(system)
            assert again is not None
            assert (again.status_code, again.headers["Idempotent-Replayed"]) == (200, "true")
            assert again.json() == first
        assert system.stop() == 0
        system.start()
        nothing_is_lost(load)
        with Load(system) as today:
            today.go_on()
        nothing_is_lost(today)
