"""One seeded run: an operation, a fault at one of its await points, and what happens afterwards, in any order.

The seed decides everything. After the fault the caller may ask again, time passes, recovery works, webhooks arrive
shuffled, twice or not at all, the list of events is swept, the cardholder comes back, somebody acts at Stripe by hand.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import Any, Literal
from uuid import uuid4

from application.event_store import StoreUnavailable
from application.payment_stream import Context
from application.payments import PaymentNotFound, operation_id
from application.settlement import Contended
from domain.errors import Refusal
from domain.money import Money
from domain.payment import Payment, Phase
from domain.payment_commands import Authorize, Capture, Refund, Void, Wish
from domain.payment_facts import CaptureMethod
from tests.fault_services import Services, World, another
from tests.faults import AT_CALL, AT_LOAD, AT_LOOK, AT_STORE, Killed, Parts, Process, Strike

ME = Context(actor="cinema", correlation="faults")
# Recovery takes up what is older than a minute. Keys are not sent any more, and then not known any more.
A_MINUTE, NEARLY_A_DAY, A_DAY = timedelta(seconds=61), timedelta(hours=23, minutes=30), timedelta(hours=25)
# More rounds would mean that it never heals. In this one keys have become too old to be sent, and all is looked up.
MAX_ROUNDS, LAST_RESORT = 6, 4

VISA, DECLINED = "pm_card_visa", "pm_card_chargeDeclined"
CHALLENGED = "pm_card_threeDSecure2Required"
CHALLENGED_THEN_DECLINED = "pm_card_authenticationRequiredChargeDeclinedInsufficientFunds"
TOKENS = ("tok_visa", "tok_chargeDeclinedInsufficientFunds", "tok_threeDSecure2Required")
CARDS = (VISA, VISA, DECLINED, CHALLENGED, *TOKENS)

# For each operation the points that it passes, and what may happen there.
MATRIX = [
    (operation, point, fault)
    for operation, points in {
        "authorize": {"intent": AT_STORE, "method": AT_CALL, "call": AT_CALL, "outcome": AT_STORE},
        "capture": {"load": AT_LOAD, "intent": AT_STORE, "call": AT_CALL, "outcome": AT_STORE},
        "void": {"load": AT_LOAD, "intent": AT_STORE, "call": AT_CALL, "outcome": AT_STORE},
        "refund": {"load": AT_LOAD, "intent": AT_STORE, "call": AT_CALL, "outcome": AT_STORE},
        "return": {"load": AT_LOAD, "look": AT_LOOK, "list": AT_LOOK, "outcome": AT_STORE},
    }.items()
    for point, faults in points.items()
    for fault in faults
]

Told = Literal["done", "failed", "open", "waiting", "refused", "not now", "nothing"]
Step = Callable[[Random], Coroutine[Any, Any, Any]]


@dataclass
class Run:
    """One payment, its wishes, and what was answered to them.

    `rounds`: of the services, until it had healed. `undecided`: it was looked at in the hour in which a key is not sent
    any more and what is not there may still come.
    """

    world: World
    seed: int
    parts: Parts = field(default_factory=Parts)
    wishes: dict[str, Wish] = field(default_factory=dict)
    answers: list[tuple[str, Told]] = field(default_factory=list)
    struck: bool = False
    rounds: int = 0
    undecided: bool = False

    def __post_init__(self) -> None:
        self.chance = Random(self.seed)
        self.operation, point, fault = MATRIX[self.seed % len(MATRIX)]
        self.strike = Strike(point, fault, self.chance.choice((1, 3, 3)))
        self.amount = Money(self.chance.randrange(100_00, 900_00, 100), self.chance.choice(("usd", "eur", "jpy")))
        self.stream = uuid4()

    async def play(self) -> None:
        """From the first wish until everything that can be known is known."""
        await self.world.provider.advance(timedelta(seconds=2))
        self.services = Services(self.world, self.stream, self.parts, self.world.provider.clock())
        await self.services.begin()
        wish = await self._prepared()
        self.struck = await self._ask(wish, self.strike)
        await self._meanwhile(wish)
        await self._heal()
        await self.world.provider.quiet()

    @property
    def payment(self) -> Payment | None:
        return self.services.history.payment

    # --- Before --------------------------------------------------------------------------------------------------

    async def _prepared(self) -> Wish | None:
        """The wish that is struck, after what must come before it; none, when it is the cardholder who returns."""
        part = self.amount.minor // 300 * 100
        match self.operation, self.chance.randrange(3):
            case "authorize", kind:
                if self.strike.point == "method":
                    return self._authorize(self.chance.choice(TOKENS))
                if kind == 0:
                    await self._ask(self._authorize(DECLINED))
                return self._authorize(VISA if kind == 0 else self.chance.choice(CARDS))
            case "return", _:
                at_once = self.strike.point == "list"
                card = CHALLENGED if at_once else self.chance.choice((CHALLENGED, CHALLENGED_THEN_DECLINED))
                await self._ask(self._authorize(card, "automatic" if at_once else None))
                self._authenticate(passed=at_once or self.chance.random() < 0.7)
                return None
            case "void", 0:
                await self._ask(self._authorize(CHALLENGED))
            case operation, kind:
                await self._ask(self._authorize(VISA, "automatic" if operation == "refund" else "manual"))
                if kind == 1:
                    await self._ask(self._move("refund" if operation == "refund" else "capture", part))
        return self._move(self.operation, self.chance.choice((None, part)))

    def _authorize(self, card: str, capture: CaptureMethod | None = None) -> Wish:
        how = capture or self._any_capture()
        return self._wished(Authorize(self._name(), self.amount, how, card, description="two seats"))

    def _any_capture(self) -> CaptureMethod:
        return "manual" if self.chance.random() < 0.5 else "automatic"

    def _move(self, operation: str, minor: int | None) -> Wish:
        kinds: dict[str, Callable[[], Wish]] = {
            "capture": lambda: Capture(self._name(), minor),
            "refund": lambda: Refund(self._name(), minor),
            "void": lambda: Void(self._name()),
        }
        return self._wished(kinds[operation]())

    def _wished(self, wish: Wish) -> Wish:
        self.wishes[wish.operation] = wish
        return wish

    def _name(self) -> str:
        return operation_id(self.stream, ME.actor, f"key-{len(self.wishes)}")

    # --- A wish --------------------------------------------------------------------------------------------------

    async def _ask(self, wish: Wish | None, strike: Strike | None = None) -> bool:
        """Whether the strike fell. What the caller was told is kept."""
        payment = self.payment
        name = wish.operation if wish else payment.authorization if payment else ""
        async with self.services.process(strike) as process:
            self.answers.append((name, await self._told(process, wish)))
            return process.points.struck

    async def _told(self, process: Process, wish: Wish | None) -> Told:
        try:
            if wish is None:
                return (await process.payments.returned(self.stream, ME)).outcome
            return (await process.payments.carry_out(self.stream, wish, ME)).outcome
        except Killed:
            return "nothing"
        except (StoreUnavailable, Contended):
            return "not now"
        except (Refusal, PaymentNotFound):
            return "refused"

    # --- Afterwards ----------------------------------------------------------------------------------------------

    async def _meanwhile(self, wish: Wish | None) -> None:
        """In any order, and now and then two things at once."""
        chance, services = self.chance, self.services
        steps: list[Step] = [
            *[lambda _: self._ask(wish)] * chance.randrange(3),
            *[lambda own: services.recover(another(own))] * chance.randrange(3),
            *[services.webhooks] * chance.randrange(3),
            *[lambda _: services.sweep()] * chance.randrange(2),
            *[self._by_hand] * (chance.random() < 0.15),
            *[self._comes_back] * (chance.random() < 0.5),
        ]
        days = [chance.choice((NEARLY_A_DAY, A_DAY, A_DAY))] * (chance.random() < 0.3)
        times = [A_MINUTE] * chance.randrange(3) + days
        self.undecided = NEARLY_A_DAY in days
        chance.shuffle(steps)
        while steps or times:
            if times and chance.randrange(len(steps) + len(times)) < len(times):
                # Nothing is under way meanwhile: a call ends within its deadline.
                await self.world.provider.advance(times.pop(chance.randrange(len(times))))
                continue
            at_once = [steps.pop() for _ in range(min(len(steps), chance.choice((1, 1, 1, 2))))]
            await asyncio.gather(*(step(Random(chance.random())) for step in at_once))

    async def _comes_back(self, chance: Random) -> None:
        if self.payment is not None:
            self._authenticate(passed=chance.random() < 0.7)
            await self._ask(None)

    def _authenticate(self, *, passed: bool) -> None:
        payment = self.payment
        if payment and payment.phase is Phase.ACTION_REQUIRED:
            answer = {"outcome": "complete" if passed else "fail"}
            self.world.provider.http.post(f"/_sandbox/3ds/{payment.payment_intent}", json=answer)

    async def _by_hand(self, _: Random) -> None:
        """Somebody gives some of the money back, or releases it, on Stripe's own pages."""
        payment, stripe = self.payment, self.world.provider.http
        if payment is None or payment.payment_intent is None:
            return
        if payment.captured:
            stripe.post("/v1/refunds", data={"payment_intent": payment.payment_intent, "amount": "100"})
        elif self.operation == "capture":
            stripe.post(f"/v1/payment_intents/{payment.payment_intent}/cancel")

    async def _heal(self) -> None:
        """Nothing fails any more: the services do what they always do, until nothing is open."""
        self._authenticate(passed=True)
        while self.rounds < MAX_ROUNDS:
            self.rounds += 1
            await self.world.provider.advance(A_DAY if self.rounds == LAST_RESORT else A_MINUTE)
            await self.services.recover()
            await self.services.sweep()
            if await self.services.idle():
                return
