"""What must hold after a fault run: ours and Stripe's say the same, and nothing that was answered was untrue."""

import asyncio
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from psycopg import AsyncConnection

from application.event_store import Ledger
from application.history import History
from application.privacy import Keys
from domain.money import to_stripe
from domain.payment import Payment
from domain.payment_commands import Authorize, Capture, Refund, Wish
from domain.payment_facts import Authorized, Captured, Failed, Refunded
from tests.fault_runs import MATRIX, Run, Told
from tests.fault_services import World
from tests.faults import Parts, Provider

RESERVED = {"requires_capture", "succeeded"}


class Asked(Protocol):
    """The wishes of one payment by their operations, and what was told about each."""

    @property
    def wishes(self) -> Mapping[str, Wish]: ...

    @property
    def answers(self) -> Sequence[tuple[str, Told]]: ...


class AtStripe:
    """Every object of one payment."""

    def __init__(self, state: dict[str, Any], payment: str) -> None:
        self.intents = [i for i in state["payment_intents"] if i["metadata"].get("payledger_payment") == payment]
        ids = {intent["id"] for intent in self.intents}
        self.charges = [charge for charge in state["charges"] if charge["payment_intent"] in ids]
        # Without a balance transaction it is a release, which Stripe shows so.
        refunds = [refund for refund in state["refunds"] if refund["balance_transaction"]]
        self.refunds = [refund for refund in refunds if refund["payment_intent"] in ids]
        taken_from = {charge["id"] for charge in self.charges}
        self.taken = [moved for moved in state["balance_transactions"] if moved["source"] in taken_from]
        self._state, self._ids = state, ids

    @property
    def events(self) -> list[dict[str, Any]]:
        return [event for event in self._state["events"] if _about(event["data"]["object"]) & self._ids]

    @property
    def movements(self) -> int:
        return len(self.taken) + len(self.refunds)


def _about(thing: dict[str, Any]) -> set[str]:
    return {str(thing.get("id")), str(thing.get("payment_intent"))}


async def differences(run: Run, stripe: AtStripe) -> list[str]:
    """Empty, when all is well."""
    kept = await run.services.kept()
    found = compared(run, run.services.history, stripe)
    if not await run.services.idle():
        found.append(f"never healed: {run.services.open_operations()}, {kept}")
    found += [f"an event is {event.state}: {event}" for event in kept if event.state in {"stuck", "unmatched"}]
    happened = Counter((event["type"], event["data"]["object"]["id"]) for event in stripe.events)
    twice = Counter((event.type, event.object_id) for event in kept) - happened
    return found + [f"kept twice: {event}" for event in twice]


def compared(asked: Asked, history: History, stripe: AtStripe) -> list[str]:
    """One payment, here and there."""
    found = [*_told(asked, history, stripe), *_log(asked, history)]
    if history.payment is not None:
        return [*found, *_explained(history, stripe), *_moved_once(asked, stripe), *_totals(history.payment, stripe)]
    return [*found, "Stripe has a payment that we do not know"] if stripe.intents else found


def _log(asked: Asked, history: History) -> Iterator[str]:
    """Each operation has one outcome, with its evidence, and ends nowhere but there."""
    outcomes = Counter(
        (type(envelope.fact).__name__, envelope.operation)
        for envelope in history.envelopes
        if isinstance(envelope.fact, Authorized | Captured | Refunded | Failed)
    )
    yield from (f"recorded {count} times: {what}" for what, count in outcomes.items() if count > 1)
    for envelope in history.envelopes:
        evidence = getattr(envelope.fact, "evidence", "req_")
        if not evidence.startswith(("req_", "evt_")):
            yield f"{type(envelope.fact).__name__} without evidence: {evidence!r}"
        by_hand = (envelope.operation or "").startswith(("refund:", "ch_", "pi_"))
        if envelope.operation not in asked.wishes and not by_hand and envelope.operation is not None:
            yield f"nobody wished {envelope.operation}"


def _told(asked: Asked, history: History, stripe: AtStripe) -> Iterator[str]:
    """What a caller was told stays so."""
    operations = history.payment.operations if history.payment else {}
    for name, told in asked.answers:
        stands = operations[name].outcome if name in operations else None
        if told in {"done", "failed"} and stands != told:
            yield f"told {told}, and it is {stands}: {asked.wishes[name]}"
        if told in {"open", "waiting"} and stands is None:
            yield f"told {told}, and nobody knows of it"
    for name, operation in operations.items():
        if operation.outcome == "failed" and _moved(name, asked, stripe):
            yield f"failed, and it moved: {asked.wishes.get(name)}"


def _moved(name: str, asked: Asked, stripe: AtStripe) -> bool:
    if isinstance(asked.wishes.get(name), Authorize):
        intents = [intent for intent in stripe.intents if intent["metadata"]["payledger_operation"] == name]
        return any(intent["status"] in RESERVED for intent in intents)
    return any(refund["metadata"].get("payledger_operation") == name for refund in stripe.refunds)


def _moved_once(asked: Asked, stripe: AtStripe) -> Iterator[str]:
    attempts = sum(isinstance(wish, Authorize) for wish in asked.wishes.values())
    if len(stripe.intents) > attempts:
        yield f"{len(stripe.intents)} PaymentIntents for {attempts} wishes"
    refunded = Counter(refund["metadata"].get("payledger_operation") for refund in stripe.refunds)
    yield from (f"refunded {count} times: {name}" for name, count in refunded.items() if name and count > 1)
    captures = sum(isinstance(wish, Capture) for wish in asked.wishes.values()) + attempts
    if len(stripe.taken) > captures:
        yield f"taken {len(stripe.taken)} times"
    refunds = sum(isinstance(wish, Refund) for wish in asked.wishes.values())
    by_hand = sum(not refund["metadata"] for refund in stripe.refunds)
    if len(stripe.refunds) > refunds + by_hand:
        yield f"{len(stripe.refunds)} refunds for {refunds} wishes"


def _explained(history: History, stripe: AtStripe) -> Iterator[str]:
    """Every object at Stripe has its fact, and the other way round."""
    facts = [envelope.fact for envelope in history.envelopes]
    intents = {fact.payment_intent for fact in facts if isinstance(fact, Authorized | Failed)}
    intents |= {getattr(fact, "payment_intent", None) for fact in facts}
    yield from (f"unexplained: {one['id']}, {one['status']}" for one in stripe.intents if one["id"] not in intents)
    ours = Counter((fact.refund, to_stripe(fact.amount)) for fact in facts if isinstance(fact, Refunded))
    theirs = Counter((refund["id"], refund["amount"]) for refund in stripe.refunds)
    yield from (f"refunds: ours {ours}, Stripe's {theirs}" for _ in range(ours != theirs))
    taken = sorted(to_stripe(fact.amount) for fact in facts if isinstance(fact, Captured))
    moved = sorted(one["amount"] for one in stripe.taken)
    yield from (f"captures: ours {taken}, Stripe's {moved}" for _ in range(taken != moved))


def _totals(payment: Payment, stripe: AtStripe) -> Iterator[str]:
    ours = totals(payment)
    theirs = (
        sum(charge["amount"] for charge in stripe.charges if charge["status"] == "succeeded"),
        sum(intent["amount_received"] for intent in stripe.intents),
        sum(refund["amount"] for refund in stripe.refunds),
        sum(intent["amount_capturable"] for intent in stripe.intents),
    )
    if ours != theirs:
        yield f"authorized, captured, refunded, capturable: ours {ours}, Stripe's {theirs}"


def totals(payment: Payment) -> tuple[int, int, int, int]:
    """In Stripe's units."""
    money = (payment.authorized, payment.captured, payment.refunded, payment.capturable)
    authorized, captured, refunded, capturable = map(to_stripe, money)
    return authorized, captured, refunded, capturable


# --- Many runs ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Played:
    """What came of one seed. `struck`: the class of fault, when it fell; `slow`: it took more than a minute to heal."""

    seed: int
    struck: tuple[str, str, str] | None
    slow: bool
    differences: list[str]
    wishes: int
    movements: int

    def __str__(self) -> str:
        found = "\n  ".join(self.differences)
        return f"FAULT_SEED={self.seed} pytest tests/test_faults.py {MATRIX[self.seed % len(MATRIX)]}:\n  {found}"


def played(
    url: str, database_url: str, seeds: Iterable[int], parts: Parts | None = None, *, until_found: bool = False
) -> list[Played]:
    """Play these seeds one after the other, and compare. `url`: a stand-in that nobody else uses."""
    return asyncio.run(_played(url, database_url, seeds, parts or Parts(), until_found=until_found))


async def _played(
    url: str, database_url: str, seeds: Iterable[int], parts: Parts, *, until_found: bool
) -> list[Played]:
    provider, runs, found = Provider(url), list[Run](), list[Played]()
    before = grand_totals_at_stripe(provider.state())
    with Ledger(database_url, Keys((bytes(32),), os.urandom), pool_size=2) as ledger:
        async with await AsyncConnection.connect(database_url, autocommit=True) as conn:
            for seed in seeds:
                runs.append(Run(World(provider, ledger, conn), seed, parts))
                await runs[-1].play()
                found.append(await _compared(runs[-1]))
                if until_found and found[-1].differences:
                    break
            ours = before + grand_totals(run.payment for run in runs)
    theirs = grand_totals_at_stripe(provider.state())
    if ours != theirs:
        found[-1].differences.append(f"with all before it: ours {ours}, Stripe's {theirs}")
    provider.http.close()
    return found


async def _compared(run: Run) -> Played:
    stripe = AtStripe(run.world.provider.state(), str(run.stream))
    struck = MATRIX[run.seed % len(MATRIX)] if run.struck else None
    slow = run.rounds > 1 and not run.undecided
    return Played(run.seed, struck, slow, await differences(run, stripe), len(run.wishes), stripe.movements)


def grand_totals(payments: Iterable[Payment | None]) -> Counter[tuple[str, str]]:
    """Captured and refunded of each currency, in Stripe's units."""
    whole: Counter[tuple[str, str]] = Counter()
    for payment in payments:
        if payment is not None:
            whole[payment.amount.currency, "charge"] += to_stripe(payment.captured)
            whole[payment.amount.currency, "refund"] += to_stripe(payment.refunded)
    return whole


def grand_totals_at_stripe(state: dict[str, Any]) -> Counter[tuple[str, str]]:
    whole: Counter[tuple[str, str]] = Counter()
    for moved in state["balance_transactions"]:
        whole[moved["currency"], moved["type"]] += abs(moved["amount"])
    return whole
