"""Any command at any time: money is never made, never lost, and a second, simpler bookkeeping agrees.

`Book` predicts in plain integers what each command may do; it shares no code with the domain and is written from the
promises of a payment rather than from the decision table.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Literal

from hypothesis import Phase, settings, strategies
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from domain.errors import Refusal
from domain.money import Money
from domain.payment import Payment
from domain.payment_commands import Capture, PaymentCommand, Refund, Void
from domain.payment_decisions import decide
from domain.payment_facts import Authorized, Captured, Expired, Failed, PaymentFact, Refunded, Voided
from tests.given import (
    authorize,
    captured_by_hand,
    confirm_action_required,
    confirm_authorized,
    confirm_captured,
    confirm_expired,
    confirm_failed,
    confirm_refunded,
    confirm_voided,
    fold,
    refunded_by_hand,
    told_of_dispute,
    told_of_reversal,
    usd,
    voided_by_hand,
)

Predict = Callable[["Book"], None]


class Refused(Exception):  # noqa: N818  as in the domain, an answer
    """The book would not grant this."""


@dataclass
class Entry:
    kind: str
    minor: int
    final: bool = False
    open: bool = True
    done: bool = False


@dataclass
class Book:
    """What a payment should come to, in integers."""

    place: str = "nowhere"  # waiting | challenged | declined | reserved | released | ran out
    authorized: int = 0
    capturable: int = 0
    captured: int = 0
    refunded: int = 0
    in_parts: bool = False
    current: str = ""
    entries: dict[str, Entry] = field(default_factory=dict)
    disputes: dict[str, str] = field(default_factory=dict)

    def busy(self, kind: str) -> int:
        return sum(entry.minor for entry in self.entries.values() if entry.open and entry.kind == kind)

    def is_busy(self, *kinds: str) -> bool:
        return any(entry.open and entry.kind in kinds for entry in self.entries.values())

    @property
    def is_contested(self) -> bool:
        return not set(self.disputes.values()) <= {"won"}

    # Wishes

    def authorize(self, name: str, minor: int) -> None:
        if name in self.entries:
            return
        if self.place not in {"nowhere", "declined"} or self.is_busy("void") or minor < 1:
            raise Refused
        self.place, self.current = "waiting", name
        self.entries[name] = Entry("authorize", minor)

    def capture(self, name: str, minor: int | None) -> None:
        if name in self.entries:
            return
        asked = self.capturable if minor is None else minor
        if self.is_busy("capture", "void") or not 1 <= asked <= self.capturable:
            raise Refused
        self.entries[name] = Entry("capture", asked, final=asked == self.capturable or not self.in_parts)

    def void(self, name: str) -> None:
        if name in self.entries:
            return
        if self.is_busy("capture", "void") or not (self.capturable or self.place == "challenged"):
            raise Refused
        self.entries[name] = Entry("void", self.capturable)

    def refund(self, name: str, minor: int | None) -> None:
        if name in self.entries:
            return
        left = self.captured - self.refunded - self.busy("refund")
        if self.is_contested:
            raise Refused
        asked = left if minor is None else minor
        if not 1 <= asked <= left:
            raise Refused
        self.entries[name] = Entry("refund", asked)

    # Outcomes

    def _settled(self, name: str, kind: str, minor: int | None = None) -> bool:
        """Close the entry this outcome belongs to; whether there was anything to close."""
        entry = self.entries.get(name)
        if entry is None:
            raise Refused
        if not entry.open:
            return False
        if entry.kind != kind or minor not in {None, entry.minor}:
            raise Refused
        entry.open, entry.done = False, True
        return True

    def challenged(self, name: str) -> None:
        if self._settled(name, "authorize"):
            self.entries[name].open, self.entries[name].done = True, False
            self.place = "challenged"

    def authorized_as(self, name: str, minor: int, *, at_once: bool, in_parts: bool) -> None:
        if self._settled(name, "authorize", minor):
            self.place, self.authorized, self.in_parts = "reserved", minor, in_parts
            self.captured, self.capturable = (minor, 0) if at_once else (0, minor)

    def captured_as(self, name: str, minor: int, *, final: bool) -> None:
        if self._settled(name, "capture", minor):
            if self.captured + minor > self.authorized:
                raise Refused
            self.captured += minor
            self.capturable = 0 if final else max(0, self.capturable - minor)

    def voided(self, name: str) -> None:
        if self._settled(name, "void"):
            self._over("released")

    def refunded_as(self, name: str, minor: int) -> None:
        if self._settled(name, "refund", minor):
            if self.refunded + minor > self.captured:
                raise Refused
            self.refunded += minor

    def failed(self, name: str, *, too_late: bool) -> None:
        kind = self.entries[name].kind if name in self.entries else ""
        ran_out = too_late and kind != "refund" and bool(self.capturable or self.place == "challenged")
        if self._settled(name, kind):
            self.entries[name].done = False
            if kind == "authorize":
                self.place = "declined"
            if ran_out:
                self._over("ran out")

    def expired(self) -> None:
        if self.place == "nowhere":
            raise Refused
        if self.capturable or self.place == "challenged":
            if self.is_busy("capture"):  # whether that money is taken or runs out is not known yet
                raise Refused
            self._over("ran out")

    def _over(self, place: str) -> None:
        self.place, self.capturable = place, 0
        self.entries[self.current].open = False

    # Without us

    def _by_hand(self, name: str, kind: str, minor: int, left: int) -> bool:
        """Whether a movement of this size is news, if it can be at all."""
        if self.place == "nowhere":
            raise Refused
        if name in self.entries:
            return False
        if minor > left:
            raise Refused
        self.entries[name] = Entry(kind, minor, open=False, done=True)
        return True

    def captured_by_hand(self, name: str, minor: int, *, final: bool) -> None:
        if self._by_hand(name, "capture", minor, self.capturable):
            self.captured += minor
            self.capturable = 0 if final else self.capturable - minor

    def voided_by_hand(self, name: str) -> None:
        if self.capturable and name not in self.entries and self.is_busy("capture"):
            raise Refused  # whether that money is taken or released is not known yet
        nothing_to_release = self.place != "nowhere" and not self.capturable
        if not nothing_to_release and self._by_hand(name, "void", 0, 0):
            self._over("released")

    def refunded_by_hand(self, name: str, minor: int) -> None:
        if self._by_hand(name, "refund", minor, self.captured - self.refunded):
            self.refunded += minor

    def undone(self, name: str) -> None:
        entry = self.entries.get(name)
        if entry is None or entry.kind != "refund":
            raise Refused
        if entry.done:
            entry.done = False
            self.refunded -= entry.minor

    def disputed(self, name: str, outcome: str) -> None:
        if self.place == "nowhere":
            raise Refused
        if outcome != "open" or name not in self.disputes:
            self.disputes[name] = outcome


# Which operation a command names: mostly a new one (of a wish) or an open one (of an outcome), sometimes any, or none.
picks = strategies.integers(0, 31)
parts = strategies.sampled_from([None, 1, 10, 30, 40, 60, 99, 100, 101, 0])
# What the provider confirms: mostly the amount that was asked.
confirmed = strategies.sampled_from([None, None, None, None, 1, 30, 60, 100])
flags = strategies.booleans()
# What somebody moved at the provider: of a reserve of a hundred, mostly a part.
movements = strategies.sampled_from([1, 10, 30, 40, 60, 100, 101])


class AnyCommandAtAnyTime(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.book = Book()
        self.facts: list[PaymentFact] = []
        self.payment: Payment | None = None

    @initialize(reached=strategies.sampled_from(["nothing", "reserved", "taken"]), in_parts=flags)
    def begin(self, reached: str, *, in_parts: bool) -> None:
        """Most of the histories are driven to where money is, so that what follows is not all refusals."""
        if reached != "nothing":
            self.authorize(0, 100)
            self.confirm_authorized(0, None, at_once=reached == "taken", in_parts=in_parts)

    # Wishes

    @rule(pick=picks, minor=strategies.sampled_from([100, 100, 100, 60, 0]))
    def authorize(self, pick: int, minor: int) -> None:
        name = self._wished(pick)
        self._ask(authorize(name, minor), lambda book: book.authorize(name, minor))

    @rule(pick=picks, minor=parts)
    def capture(self, pick: int, minor: int | None) -> None:
        name = self._wished(pick)
        self._ask(Capture(name, minor), lambda book: book.capture(name, minor))

    @rule(pick=picks)
    def void(self, pick: int) -> None:
        name = self._wished(pick)
        self._ask(Void(name), lambda book: book.void(name))

    @rule(pick=picks, minor=parts)
    def refund(self, pick: int, minor: int | None) -> None:
        name = self._wished(pick)
        self._ask(Refund(name, minor), lambda book: book.refund(name, minor))

    # Outcomes, of whatever was asked

    @rule(pick=picks)
    def confirm_action_required(self, pick: int) -> None:
        name = self._answered(pick)
        self._ask(confirm_action_required(name), lambda book: book.challenged(name))

    @rule(pick=picks, minor=confirmed, at_once=flags, in_parts=flags)
    def confirm_authorized(self, pick: int, minor: int | None, *, at_once: bool, in_parts: bool) -> None:
        name = self._answered(pick)
        amount = self._confirmed(name, minor)
        outcome = confirm_authorized(name, usd(amount), taken_at_once=at_once, multicapture=in_parts)
        self._ask(outcome, lambda book: book.authorized_as(name, amount, at_once=at_once, in_parts=in_parts))

    @rule(pick=picks, minor=confirmed, final=flags)
    def confirm_captured(self, pick: int, minor: int | None, *, final: bool) -> None:
        name = self._answered(pick)
        amount = self._confirmed(name, minor)
        outcome = confirm_captured(name, usd(amount), final=final)
        self._ask(outcome, lambda book: book.captured_as(name, amount, final=final))

    @rule(pick=picks)
    def confirm_voided(self, pick: int) -> None:
        name = self._answered(pick)
        self._ask(confirm_voided(name), lambda book: book.voided(name))

    @rule(pick=picks, minor=confirmed)
    def confirm_refunded(self, pick: int, minor: int | None) -> None:
        name = self._answered(pick)
        amount = self._confirmed(name, minor)
        self._ask(confirm_refunded(name, usd(amount)), lambda book: book.refunded_as(name, amount))

    @rule(pick=picks, too_late=flags)
    def confirm_failed(self, pick: int, *, too_late: bool) -> None:
        name = self._answered(pick)
        self._ask(confirm_failed(name, too_late=too_late), lambda book: book.failed(name, too_late=too_late))

    @rule()
    def confirm_expired(self) -> None:
        self._ask(confirm_expired(), lambda book: book.expired())

    # What happens without us

    @rule(pick=picks, minor=movements, final=flags)
    def capture_by_hand(self, pick: int, minor: int, *, final: bool) -> None:
        name = self._wished(pick)
        told = captured_by_hand(name, minor, final=final)
        self._ask(told, lambda book: book.captured_by_hand(name, minor, final=final))

    @rule(pick=picks)
    def void_by_hand(self, pick: int) -> None:
        name = self._wished(pick)
        self._ask(voided_by_hand(name), lambda book: book.voided_by_hand(name))

    @rule(pick=picks, minor=movements)
    def refund_by_hand(self, pick: int, minor: int) -> None:
        name = self._wished(pick)
        self._ask(refunded_by_hand(name, minor), lambda book: book.refunded_by_hand(name, minor))

    @rule(pick=picks)
    def undo_a_refund(self, pick: int) -> None:
        refunds = [name for name, entry in self.book.entries.items() if entry.kind == "refund"]
        name = refunds[pick % len(refunds)] if refunds and pick < 28 else self._wished(31)
        self._ask(told_of_reversal(name), lambda book: book.undone(name))

    @rule(dispute=strategies.sampled_from(["dp_1", "dp_2"]), outcome=strategies.sampled_from(["open", "won", "lost"]))
    def dispute(self, dispute: str, outcome: Literal["open", "won", "lost"]) -> None:
        self._ask(told_of_dispute(outcome, dispute), lambda book: book.disputed(dispute, outcome))

    # What always holds

    @invariant()
    def the_book_agrees(self) -> None:
        amounts = ("authorized", "capturable", "captured", "refunded")
        if self.payment is None:
            assert self.book == Book()
            return
        assert {name: getattr(self.payment, name) for name in amounts} == {
            name: usd(getattr(self.book, name)) for name in amounts
        }
        assert self.payment.disputed == self.book.is_contested
        still_open = {name for name, operation in self.payment.operations.items() if operation.outcome == "open"}
        assert still_open == {name for name, entry in self.book.entries.items() if entry.open}

    @invariant()
    def no_money_is_made(self) -> None:
        if self.payment is not None:
            nothing = Money.zero("usd")
            assert nothing <= self.payment.refunded <= self.payment.captured <= self.payment.authorized
            assert self.payment.capturable + self.payment.captured <= self.payment.authorized

    @invariant()
    def amounts_are_the_sums_of_the_facts(self) -> None:
        if self.payment is not None:
            assert self.payment.authorized == self._sum(Authorized)
            assert self.payment.captured == self._sum(Captured)
            assert self.payment.refunded == self._sum(Refunded) - self._undone()
            let_go = self._sum(Voided) + self._sum(Expired)
            assert self.payment.captured + self.payment.capturable + let_go <= self.payment.authorized

    @invariant()
    def the_whole_history_gives_the_present(self) -> None:
        assert fold(self.facts) == self.payment

    # How a command is asked

    def _ask(self, command: PaymentCommand, predict: Predict) -> None:
        before = deepcopy(self.payment)
        expected, granted = deepcopy(self.book), True
        try:
            predict(expected)
        except Refused:
            expected, granted = self.book, False
        facts: tuple[PaymentFact, ...] = ()
        refusal: Refusal | None = None
        try:
            facts = decide(self.payment, command)
        except Refusal as answer:
            refusal = answer
        assert granted == (refusal is None), f"{command} was answered with {refusal or facts!r}"
        assert self.payment == before, "a decision changed the state it was about"
        self.book = expected
        self.facts += facts
        self.payment = fold(facts, self.payment)
        if granted:
            assert decide(self.payment, command) == (), "asked again, it decided something new"

    def _wished(self, pick: int) -> str:
        known = list(self.book.entries)
        return known[pick % len(known)] if known and pick > 27 else f"op_{len(known)}"

    def _answered(self, pick: int) -> str:
        known = list(self.book.entries)
        waiting = [name for name, entry in self.book.entries.items() if entry.open]
        if waiting and pick < 24:
            return waiting[pick % len(waiting)]
        return known[pick % len(known)] if known and pick < 31 else "unknown"

    def _confirmed(self, name: str, minor: int | None) -> int:
        entry = self.book.entries.get(name)
        return minor if minor is not None else entry.minor if entry else 100

    def _sum(self, kind: type[Authorized | Captured | Refunded | Voided | Expired]) -> Money:
        return sum((fact.amount for fact in self.facts if isinstance(fact, kind)), Money.zero("usd"))

    def _undone(self) -> Money:
        """What was refunded first and failed later."""
        made = {fact.operation: fact.amount for fact in self.facts if isinstance(fact, Refunded)}
        undone = (made[fact.operation] for fact in self.facts if isinstance(fact, Failed) and fact.operation in made)
        return sum(undone, Money.zero("usd"))


def test_no_order_of_commands_makes_or_loses_money() -> None:
    phases = (Phase.reuse, Phase.generate, Phase.shrink)  # an explanation would take longer than the test may
    run_state_machine_as_test(
        AnyCommandAtAnyTime,
        settings=settings(
            max_examples=300, stateful_step_count=40, deadline=None, phases=phases, report_multiple_bugs=False
        ),
    )
