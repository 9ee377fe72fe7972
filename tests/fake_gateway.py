"""A payment provider that behaves: it keeps money and idempotency keys, and fails in the ways it is told to."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from application.gateway import (
    Absent,
    AnyInstruction,
    AuthorizeInstruction,
    CaptureInstruction,
    RefundInstruction,
    RefundSeen,
    Standing,
    Unknown,
    VoidInstruction,
)
from domain.money import Money
from domain.payment_commands import (
    Outcome,
    RecordActionRequired,
    RecordAuthorized,
    RecordCaptured,
    RecordDispute,
    RecordFailed,
    RecordRefunded,
    RecordVoided,
)
from domain.payment_facts import Card, Failure, NextAction

CARD = Card(brand="visa", last4="4242", exp_month=12, exp_year=2030)
DECLINE = Failure("card_declined", "insufficient_funds", "Your card has insufficient funds.", retryable=True)
WRONG_STATE = Failure("payment_intent_unexpected_state", None, "Its status does not allow that.", retryable=False)
LOST_ON_THE_WAY = Failure("expired_or_canceled_card", None, "the refund did not go through", retryable=False)
TOO_MUCH = Failure("amount_too_large", None, "That is more than there is.", retryable=False)
EXPIRES_AT = datetime(2026, 11, 10, 12, tzinfo=UTC)
PATIENCE_S = 30.0


@dataclass
class Intent:
    """What Stripe would call a PaymentIntent; amounts in minor units."""

    id: str
    payment: UUID
    operation: str
    amount: Money
    automatic: bool
    status: Literal["requires_action", "requires_capture", "succeeded", "canceled", "declined"]
    received: int = 0
    refunded: int = 0
    ran_out: bool = False
    refunds: list[RefundSeen] = field(default_factory=list)
    disputes: dict[str, RecordDispute] = field(default_factory=dict)

    @property
    def released(self) -> Literal["no", "taken", "cancelled", "expired"]:
        match self.status:
            case "succeeded":
                return "taken"
            case "canceled":
                return "expired" if self.ran_out else "cancelled"
            case _:
                return "no"


class Behaviour(Struct):
    """How the provider treats one instruction.

    `arrives`: it hears of it. `answers`: its answer is heard. `declines`, `challenges`: the issuer says no, or wants
    the cardholder to authenticate. `confirms`: an amount it confirms instead of the true one. `until`: it waits for it.
    """

    arrives: bool = True
    answers: bool = True
    declines: bool = False
    challenges: bool = False
    confirms: Money | None = None
    until: asyncio.Event | None = None


class FakeGateway:
    """`asked` holds every instruction that was sent, `moved` how often each idempotency key did something.

    `looked` counts the questions that move nothing; `meanwhile` is what happens after each look at a payment and before
    we hear what was seen.
    """

    def __init__(self, *, multicapture: bool = False) -> None:
        self.intents: dict[str, Intent] = {}
        self.asked: list[AnyInstruction] = []
        self.moved: Counter[str] = Counter()
        self.looked = 0
        self.busy = asyncio.Event()
        self.away_s: float | None = None
        self.meanwhile: list[Callable[[], Awaitable[object]]] = []
        self._multicapture = multicapture
        self._kept: dict[str, tuple[AnyInstruction, Outcome]] = {}
        self._next: list[Behaviour] = []

    def will(self, *behaviours: Behaviour) -> None:
        """Treat the next instructions so; after these it works as it should."""
        self._next += behaviours

    def cardholder_authenticates(self, *, successfully: bool = True) -> None:
        (intent,) = (intent for intent in self.intents.values() if intent.status == "requires_action")
        self._reserve(intent) if successfully else setattr(intent, "status", "declined")

    @property
    def intent(self) -> Intent:
        """The only one there is."""
        (intent,) = self.intents.values()
        return intent

    @property
    def latest(self) -> Intent:
        return next(reversed(self.intents.values()))

    # What happens to the latest intent without us: each answers whether it can happen now

    def capture_by_hand(self, minor: int, *, final: bool = True) -> bool:
        intent = self.latest
        if intent.status != "requires_capture" or not 0 < minor <= intent.amount.minor - intent.received:
            return False
        intent.received += minor
        if final or not self._multicapture or intent.received == intent.amount.minor:
            intent.status = "succeeded"
        return True

    def release_by_hand(self, *, ran_out: bool = False) -> bool:
        intent = self.latest
        if intent.status not in {"requires_capture", "requires_action"}:
            return False
        intent.status, intent.ran_out = "succeeded" if intent.received else "canceled", ran_out
        return True

    def refund_by_hand(self, minor: int) -> bool:
        intent = self.latest
        if not 0 < minor <= intent.received - intent.refunded:
            return False
        intent.refunded += minor
        intent.refunds.append(
            RefundSeen(f"re_by_hand_{len(intent.refunds)}", replace(intent.amount, minor=minor), None, None)
        )
        return True

    def undo_refund(self, place: int = 0) -> bool:
        """A refund that was made does not reach the cardholder."""
        intent = self.latest
        if place >= len(intent.refunds) or intent.refunds[place].failure:
            return False
        intent.refunded -= intent.refunds[place].amount.minor
        intent.refunds[place] = replace(intent.refunds[place], failure=LOST_ON_THE_WAY)
        return True

    def dispute(self, outcome: Literal["open", "won", "lost"] = "open", name: str = "dp_1") -> bool:
        intent = self.latest
        ended = name in intent.disputes and intent.disputes[name].outcome != "open"
        if not intent.received or (ended and outcome == "open"):
            return False
        contested = replace(intent.amount, minor=intent.received)
        intent.disputes[name] = RecordDispute(name, contested, "fraudulent", outcome, "req_standing")
        return True

    # The port

    async def perform(self, instruction: AnyInstruction) -> Outcome | Unknown:
        self.asked.append(instruction)
        behaviour = self._next.pop(0) if self._next else Behaviour()
        if behaviour.until:
            self.busy.set()
            await asyncio.wait_for(behaviour.until.wait(), PATIENCE_S)
        if not behaviour.arrives:
            return Unknown("timeout")
        outcome = self._answer(instruction, behaviour)
        return outcome if behaviour.answers else Unknown("reply lost")

    async def standing(
        self, payment: UUID, authorization: str, payment_intent: str | None
    ) -> Standing | Absent | Unknown:
        self.looked += 1
        if self._next and not self._next.pop(0).answers:
            return Unknown("timeout")
        mine = (intent for intent in self.intents.values() if intent.operation == authorization)
        intent = self.intents.get(payment_intent) if payment_intent else next(mine, None)
        told = self._stands(authorization, intent) if intent else Absent(f"req_search_{payment}")
        if self.meanwhile:
            await self.meanwhile.pop(0)()
        return told

    def _stands(self, authorization: str, intent: Intent) -> Standing:
        zero = Money.zero(intent.amount.currency)
        return Standing(
            payment_intent=intent.id,
            operation=intent.operation,
            authorization=self._told(authorization, intent),
            captured=replace(zero, minor=intent.received),
            released=intent.released,
            charge=f"ch_{intent.id}",
            refunds=tuple(intent.refunds),
            disputes=tuple(intent.disputes.values()),
            evidence="req_standing",
        )

    def _told(self, operation: str, intent: Intent) -> Outcome:
        if intent.status == "requires_action":
            return _challenge(operation, intent)
        if intent.status in {"requires_capture", "succeeded"}:
            return self._authorized(operation, intent, intent.amount)
        return RecordFailed(operation, DECLINE, "req_standing", intent.id)

    async def payment_of(self, payment_intent: str) -> UUID | Absent | Unknown:
        self.looked += 1
        if self._next and not self._next.pop(0).answers:
            return Unknown("timeout")
        intent = self.intents.get(payment_intent)
        return intent.payment if intent else Absent("req_payment_of")

    def unavailable_s(self) -> float | None:
        return self.away_s

    async def verify(self) -> None:
        pass

    # What it does

    def _answer(self, instruction: AnyInstruction, behaviour: Behaviour) -> Outcome:
        key = instruction.idempotency_key
        if key not in self._kept:
            self.moved[key] += 1
            self._kept[key] = (instruction, self._carry_out(instruction, behaviour))
        first, outcome = self._kept[key]
        assert first == instruction, "an idempotency key was used for two things"
        return outcome

    def _carry_out(self, instruction: AnyInstruction, behaviour: Behaviour) -> Outcome:
        match instruction:
            case AuthorizeInstruction():
                return self._authorize(instruction, behaviour)
            case CaptureInstruction():
                return self._capture(instruction, behaviour)
            case VoidInstruction():
                return self._void(instruction)
            case RefundInstruction():
                return self._refund(instruction, behaviour)

    def _authorize(self, asked: AuthorizeInstruction, behaviour: Behaviour) -> Outcome:
        name = f"pi_{len(self.intents) + 1}"
        intent = Intent(name, asked.payment, asked.operation, asked.amount, asked.capture == "automatic", "declined")
        self.intents[intent.id] = intent
        if behaviour.declines:
            return RecordFailed(asked.operation, DECLINE, "req_declined", intent.id)
        if behaviour.challenges:
            intent.status = "requires_action"
            return _challenge(asked.operation, intent)
        self._reserve(intent)
        return self._authorized(asked.operation, intent, behaviour.confirms or asked.amount)

    def _reserve(self, intent: Intent) -> None:
        intent.status = "succeeded" if intent.automatic else "requires_capture"
        intent.received = intent.amount.minor if intent.automatic else 0

    def _authorized(self, operation: str, intent: Intent, amount: Money) -> RecordAuthorized:
        return RecordAuthorized(
            operation,
            amount,
            intent.automatic,
            intent.id,
            f"ch_{intent.id}",
            CARD,
            None if intent.automatic else EXPIRES_AT,
            self._multicapture,
            "req_authorized",
        )

    def _capture(self, asked: CaptureInstruction, behaviour: Behaviour) -> Outcome:
        intent = self.intents[asked.payment_intent]
        if intent.status != "requires_capture":
            return RecordFailed(asked.operation, WRONG_STATE, "req_capture")
        if intent.received + asked.amount.minor > intent.amount.minor:
            return RecordFailed(asked.operation, TOO_MUCH, "req_capture")
        final = asked.final or not asked.multicapture
        intent.received += asked.amount.minor
        intent.operation = asked.operation  # as Stripe's metadata is replaced
        intent.status = "succeeded" if final else "requires_capture"
        amount = behaviour.confirms or asked.amount
        return RecordCaptured(asked.operation, amount, final, f"ch_{intent.id}", "req_capture")

    def _void(self, asked: VoidInstruction) -> Outcome:
        intent = self.intents[asked.payment_intent]
        if intent.status not in {"requires_capture", "requires_action"}:
            return RecordFailed(asked.operation, WRONG_STATE, "req_void")
        intent.status = "succeeded" if asked.partly_captured else "canceled"
        return RecordVoided(asked.operation, "req_void")

    def _refund(self, asked: RefundInstruction, behaviour: Behaviour) -> Outcome:
        intent = self.intents[asked.payment_intent]
        if intent.refunded + asked.amount.minor > intent.received:
            return RecordFailed(asked.operation, TOO_MUCH, "req_refund")
        intent.refunded += asked.amount.minor
        intent.refunds.append(RefundSeen(f"re_{asked.operation}", asked.amount, asked.operation, None))
        amount = behaviour.confirms or asked.amount
        return RecordRefunded(asked.operation, amount, f"re_{asked.operation}", "req_refund")


def _challenge(operation: str, intent: Intent) -> RecordActionRequired:
    return RecordActionRequired(
        operation, intent.id, NextAction("redirect_to_url", f"https://hooks.stripe.com/{intent.id}"), "req_action"
    )
