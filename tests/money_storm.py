"""A mixed load of real callers on a real system, and the comparison of everything that was asked with what there is.

Callers authorize, capture, release and refund, are declined and challenged, lose their answers, and ask again with the
same key. What they were told is kept.
"""

import asyncio
import threading
import uuid
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any, Self
from uuid import UUID

import httpx
import psycopg

from application.event_store import Ledger
from application.history import History
from application.payment_stream import PaymentStreams
from application.payments import operation_id, payment_id
from application.recovery import Recovery
from application.settlement import Settlement
from application.stripe_gateway import StripeGateway
from domain.money import Money
from domain.payment_commands import Authorize, Capture, Refund, Void, Wish
from domain.payment_facts import CaptureMethod
from interface.bootstrap import clock
from interface.dev import DEVELOPER
from tests.fault_differences import AtStripe, compared
from tests.fault_runs import CARDS, VISA, Told
from tests.faults import KEY
from tests.processes import eventually
from tests.system import System

CALLERS = 4
MAX_TRIES, TRIES_WHILE_OPEN = 300, 2
PAUSE_S = 0.1
AFTERWARDS: dict[CaptureMethod, tuple[tuple[str, ...], ...]] = {
    "automatic": ((), ("refunds",), ("refunds", "refunds"), ("captures",)),
    "manual": ((), ("captures",), ("void",), ("captures", "void"), ("captures", "refunds", "captures", "refunds")),
}
MANNERS = ("shuffle", "duplicate", "drop", "normal")


@dataclass
class Customer:
    """One payment, its wishes, and what was told about each."""

    stream: UUID
    wishes: dict[str, Wish] = field(default_factory=dict)
    answers: list[tuple[str, Told]] = field(default_factory=list)


class Load:
    """Callers that make one payment after the other until told to stop; they live through any outage."""

    def __init__(self, system: System, seed: int) -> None:
        self.system = system
        self.customers: list[Customer] = []
        self.strange: list[str] = []
        self._seed = seed
        self._stop = threading.Event()
        self._callers = [threading.Thread(target=self._call, args=(number,)) for number in range(CALLERS)]

    def __enter__(self) -> Self:
        for caller in self._callers:
            caller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for caller in self._callers:
            caller.join()
        assert not self.strange, self.strange

    def go_on(self, more: int, patience_s: float) -> None:
        """Wait until callers were told of so many more successes."""
        enough = self.told("done") + more
        eventually(lambda: self.told("done") >= enough, patience_s)

    def told(self, what: Told) -> int:
        return sum(told == what for one in list(self.customers) for _, told in list(one.answers))

    @property
    def wishes(self) -> int:
        return sum(len(one.wishes) for one in self.customers)

    def _call(self, number: int) -> None:
        chance = Random(f"{self._seed} {number}")
        while not self._stop.is_set():
            try:
                self._one_payment(chance)
            except Exception as error:  # noqa: BLE001  in a thread nobody else hears of it
                self.strange.append(repr(error))

    def _one_payment(self, chance: Random) -> None:
        key, card, minor = uuid.uuid4().hex, chance.choice((*CARDS, VISA)), chance.randrange(10_00, 900_00)
        how: CaptureMethod = "manual" if chance.random() < 0.5 else "automatic"
        customer = Customer(payment_id(DEVELOPER, key))
        wish = Authorize(self._name(customer, key), Money(minor, "usd"), how, card)
        body = {"amount": minor, "currency": "usd", "capture": how, "payment_method": card}
        self.customers.append(customer)
        told = self._ask(customer, wish, "/v1/payments", body, key)
        if told == "waiting":
            told = self._authenticate(customer, wish.operation, chance)
        if told == "done":
            for what in chance.choice(AFTERWARDS[how]):
                self._move(customer, what, chance.choice((None, minor // 3)))

    def _move(self, customer: Customer, what: str, minor: int | None) -> Told:
        key = uuid.uuid4().hex
        name = self._name(customer, key)
        wishes: dict[str, Wish] = {"captures": Capture(name, minor), "refunds": Refund(name, minor), "void": Void(name)}
        body = {} if minor is None or what == "void" else {"amount": minor}
        return self._ask(customer, wishes[what], f"/v1/payments/{customer.stream}/{what}", body, key)

    def _name(self, customer: Customer, key: str) -> str:
        return operation_id(customer.stream, DEVELOPER, key)

    def _ask(self, customer: Customer, wish: Wish, path: str, body: dict[str, Any], key: str) -> Told:
        """Once, and again with the same key while no answer comes."""
        customer.wishes[wish.operation] = wish
        told: Told = "nothing"
        for tried in range(MAX_TRIES):
            with suppress(httpx.TransportError):
                told = _told(self.system.post(path, body, key=key))
                customer.answers.append((wish.operation, told))
            given_up = told == "open" and tried >= TRIES_WHILE_OPEN
            if told in {"done", "failed", "waiting", "refused"} or given_up or self._stop.wait(PAUSE_S):
                break
        return told

    def _authenticate(self, customer: Customer, name: str, chance: Random) -> Told:
        """The cardholder does it or not, and comes back or not; or the payment is released meanwhile."""
        if chance.random() < 0.2:
            return self._move(customer, "void", None)
        with suppress(httpx.TransportError, KeyError):
            found = self.system.post(f"/v1/payments/{customer.stream}/return").json()
            outcome = {"outcome": chance.choice(("complete", "complete", "fail"))}
            intent = found["stripe"]["payment_intent"]
            self.system._control.post(f"{self.system.stripe}/_sandbox/3ds/{intent}", json=outcome)
            if chance.random() < 0.5:
                told = _told(self.system.post(f"/v1/payments/{customer.stream}/return"))
                customer.answers.append((name, told))
                return told
        return "nothing"


def _told(answer: httpx.Response) -> Told:
    match answer.status_code:
        case 200 | 201:
            return "waiting" if answer.json()["status"] == "requires_action" else "done"
        case 202:
            return "open"
        case 402:
            return "failed"
        case 503 | 429:
            return "not now"
        case 409 | 404 | 422:
            return "refused"
        case status:
            raise AssertionError(f"{status}: {answer.text}")


# --- Afterwards --------------------------------------------------------------------------------------------------


def heal(system: System, patience_s: float, *, hasten: bool) -> None:
    """Wait until nothing is open but what waits for a cardholder, and no event waits.

    `hasten`: nobody waits the 45 seconds after which an operation counts as abandoned.
    """
    with psycopg.connect(system.database_url, autocommit=True) as conn:

        def healed() -> bool:
            if hasten:
                asyncio.run(recover(system, conn))
            waiting = conn.execute("SELECT count(*) FROM inbox WHERE state = 'waiting'").fetchone()
            return waiting == (0,) and system.settled()

        eventually(healed, patience_s)


async def recover(system: System, conn: psycopg.Connection[Any]) -> None:
    """Take up whatever is open, as `payledger recover` would somewhat later."""
    found = conn.execute("SELECT payment, operation FROM open_operations WHERE NOT waiting").fetchall()
    gateway = StripeGateway(KEY, system.stripe)
    with Ledger(system.database_url, pool_size=2) as ledger:
        streams = PaymentStreams(ledger, clock, asyncio.to_thread)
        recovery = Recovery(streams, Settlement(streams, gateway, clock), clock)
        for payment, operation in found:
            await recovery.settle(payment, operation)
    await gateway.close()


def differences(system: System, customers: list[Customer]) -> tuple[list[str], int]:
    """Between what was asked, what is recorded and what moved; and how much moved."""
    state, found, movements = system.state(), list[str](), 0
    known = {str(one.stream) for one in customers}
    strange = [i["id"] for i in state["payment_intents"] if i["metadata"].get("payledger_payment") not in known]
    found += [f"nobody asked for {intent}" for intent in strange]
    with Ledger(system.database_url) as ledger:
        for one in customers:
            stripe = AtStripe(state, str(one.stream))
            movements += stripe.movements
            said = compared(one, History.of(one.stream, ledger.load(one.stream)), stripe)
            found += [f"{one.stream}: {difference}" for difference in said]
    with psycopg.connect(system.database_url) as conn:
        rows = conn.execute("SELECT state, type, note FROM inbox WHERE state IN ('stuck', 'unmatched')").fetchall()
    return found + [f"event: {row}" for row in rows], movements


def tried(customers: list[Customer]) -> Counter[str]:
    """How callers fared, so that a test can see that they were really disturbed."""
    return Counter(told for one in customers for _, told in one.answers)
