"""`kill -9` of whoever pays, recovers or projects, while orders are paid, paid again and cancelled."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from random import Random
from threading import Event

import httpx
import pytest

from application.event_store import Ledger
from tests.processes import eventually
from tests.system import HEAL_S, SETTLE_S, System, running
from tests.test_contract_ticketing import PRICE, Tickets
from tests.test_survival import settle

CALLERS = 6
ORDERS_BETWEEN_KILLS = 12
VICTIMS = ("api", "recover", "project", "api")
TOKENS = ("tok_visa", "tok_mastercard", "tok_chargeDeclined")
SLOW_MS = 150
PAUSE_S = 0.2
# What callers may be told: paid, cancelled, declined, being paid, and that nothing was done or nothing is known.
TOLD = {201, 400, 402, 409, 503, 504}


@pytest.fixture(scope="module")
def victim() -> Iterator[System]:
    with running() as system:
        yield system


class Storm:
    """Callers with an order after the other, of which every other one is cancelled at some moment or later."""

    def __init__(self, system: System, ledger: Ledger) -> None:
        self.system, self.ledger = system, ledger
        self.orders: list[Tickets] = []
        self.cancelled: set[str] = set()
        self.strange: list[str] = []
        self.over = Event()

    def call(self, seed: int) -> None:
        chance = Random(seed)
        while not self.over.is_set():
            tickets = Tickets(self.system, self.ledger)
            tickets.announce()
            self.orders.append(tickets)
            steps = [lambda: self._pay(tickets, chance.choice(TOKENS))] * chance.randint(1, 3)  # noqa: B023
            if chance.random() < 0.5:
                steps.insert(chance.randint(0, len(steps)), lambda: self._cancel(tickets))  # noqa: B023
            with ThreadPoolExecutor(len(steps)) as pool:  # some at once, and some after that
                for step in [pool.submit(step) for step in steps if not self.over.wait(chance.choice((0, 0, PAUSE_S)))]:
                    step.result()

    def _cancel(self, tickets: Tickets) -> None:
        tickets.cancel()
        self.cancelled.add(tickets.order)

    def _pay(self, tickets: Tickets, token: str) -> None:
        with suppress(httpx.TransportError):
            answer = tickets.pay(token)
            if answer.status_code not in TOLD:
                self.strange.append(f"{answer.status_code}: {answer.text}")

    def go_on(self) -> None:
        enough = len(self.orders) + ORDERS_BETWEEN_KILLS
        eventually(lambda: len(self.orders) >= enough, HEAL_S)


def test_no_order_is_paid_twice_and_none_that_is_cancelled_keeps_its_money(victim: System) -> None:
    with Ledger(victim.database_url) as ledger, ThreadPoolExecutor(CALLERS) as pool:
        storm = Storm(victim, ledger)
        with victim.fault("POST /v1/payment_intents", "slow", delay_ms=SLOW_MS, times=0):
            callers = [pool.submit(storm.call, seed) for seed in range(CALLERS)]
            try:
                for process in VICTIMS:
                    storm.go_on()
                    victim.kill(process)
            finally:
                storm.over.set()
            for caller in callers:
                caller.result()
        assert not storm.strange, storm.strange
        settle(victim)
        eventually(lambda: not kept(storm), SETTLE_S)
        settle(victim)
        assert not differing(storm)


def money_of(storm: Storm) -> dict[str, list[int]]:
    """What Stripe holds for each order: of each PaymentIntent what it has reserved, or taken and not given back."""
    state = storm.system.state()
    refunded: dict[str, int] = {}
    for charge in state["charges"]:
        refunded[charge["payment_intent"]] = refunded.get(charge["payment_intent"], 0) + charge["amount_refunded"]
    names = {tickets.payment: tickets.order for tickets in storm.orders}
    held: dict[str, list[int]] = {tickets.order: [] for tickets in storm.orders}
    for intent in state["payment_intents"]:
        order = names[intent["metadata"]["payledger_payment"]]
        held[order].append(intent["amount_received"] - refunded.get(intent["id"], 0) + intent["amount_capturable"])
    return {order: [minor for minor in its if minor] for order, its in held.items()}


def kept(storm: Storm) -> list[str]:
    """Cancelled orders whose money has not gone back."""
    return [order for order, held in money_of(storm).items() if order in storm.cancelled and held]


def differing(storm: Storm) -> list[str]:
    """Orders that are not as they should be."""
    found, paid, held = [], 0, money_of(storm)
    for tickets in storm.orders:
        facts, its = tickets.facts(), held[tickets.order]
        paid += "OrderPaid" in facts
        if facts.count("OrderPaid") > 1 or ("OrderCancelled" in facts and facts[-1] != "OrderCancelled"):
            found.append(f"{tickets.order}: {facts}")
        if tickets.order not in storm.cancelled and its != ([PRICE] if "OrderPaid" in facts else []):
            found.append(f"{tickets.order}: {facts} and {its}")
    assert paid, "no order was ever paid"
    assert storm.cancelled, "none was ever cancelled"
    return found
