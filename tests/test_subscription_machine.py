"""Any command at any time, in any order and however often: a second, simpler bookkeeping agrees, and a calendar, too.

`Book` predicts what each command may do, with periods as plain numbers and times as plain seconds; it shares no code
with the domain and is written from the promises of a subscription rather than from the decision table.
"""

import calendar
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from typing import Literal

import pytest
from hypothesis import Phase, settings, strategies
from hypothesis import given as for_all
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from msgspec import structs

from domain.calendar import Interval, Period
from domain.errors import Refusal
from domain.subscription import Status, Subscription
from domain.subscription_commands import Cancel, Change, Resume, Subscribe, SubscriptionCommand
from domain.subscription_decisions import decide
from domain.subscription_facts import BillingStatus, SubscriptionFact, SubscriptionStarted
from domain.subscription_paid import paid_until
from tests.given_subscription import (
    CUSTOMER,
    JAN_31,
    MONTHLY,
    PENDING,
    confirm_refused,
    confirm_started,
    fold,
    later,
    monthly,
    told_changed,
    told_ended,
    told_paid,
    told_refunded,
    told_resumed,
    told_scheduled,
    told_status,
    told_unpaid,
    told_voided,
)

# --- A calendar of our own ---------------------------------------------------------------------------------------


def months_on(anchor: datetime, step: int) -> Iterator[datetime]:
    """The anchor, and then its day, or else the month's last, every so many months: counted one by one."""
    year, month = anchor.year, anchor.month
    while True:
        _, last = calendar.monthrange(year, month)
        yield anchor.replace(year=year, month=month, day=min(anchor.day, last))
        for _ in range(step):
            month += 1
            if month > 12:
                year, month = year + 1, 1


def days_on(anchor: datetime, step: int) -> Iterator[datetime]:
    day = anchor
    while True:
        yield day
        for _ in range(step):
            day += timedelta(days=1)


CYCLES: dict[str, tuple[Interval, int, Callable[[datetime], Iterator[datetime]]]] = {
    "monthly": ("month", 1, lambda anchor: months_on(anchor, 1)),
    "quarterly": ("month", 3, lambda anchor: months_on(anchor, 3)),
    "annual": ("year", 1, lambda anchor: months_on(anchor, 12)),
    "every other year": ("year", 2, lambda anchor: months_on(anchor, 24)),
    "weekly": ("week", 1, lambda anchor: days_on(anchor, 7)),
    "fortnightly": ("week", 2, lambda anchor: days_on(anchor, 14)),
    "daily": ("day", 1, lambda anchor: days_on(anchor, 1)),
}
# The last days of every month, of a common year and a leap year.
ANCHORS = [
    datetime(year, month, day, 23, 59, 59, tzinfo=UTC)
    for year in (2027, 2028)
    for month in range(1, 13)
    for day in range(28, calendar.monthrange(year, month)[1] + 1)
]


def told(subscription: Subscription | None, commands: Sequence[SubscriptionCommand]) -> Subscription:
    for command in commands:
        subscription = fold(decide(subscription, command), subscription)
    assert subscription is not None
    return subscription


def billed(anchor: datetime, interval: Interval, count: int, first: Period, trial_end: datetime | None) -> Subscription:
    terms = structs.replace(MONTHLY, anchor=anchor, interval=interval, interval_count=count, trial_end=trial_end)
    status: BillingStatus = "active" if trial_end is None else "trialing"
    return told(fold(PENDING), [confirm_started(terms=terms, period=first, status=status)])


@pytest.mark.parametrize("cycle", CYCLES)
def test_every_success_pays_for_one_more_period_of_the_calendar(cycle: str) -> None:
    """Also after failures, and where none but the first period was ever told."""
    interval, count, boundaries = CYCLES[cycle]
    for anchor in ANCHORS:
        ends = list(islice(boundaries(anchor), 50))
        subscription = billed(anchor, interval, count, Period(ends[0], ends[1]), None)
        for number, end in enumerate(ends[1:]):
            for attempt in range(number % 3):
                subscription = told(subscription, [told_unpaid(f"in_{number}", None, attempt + 1)])
            subscription = told(subscription, [told_paid(f"in_{number}", None)])
            assert paid_until(subscription) == end, (anchor, number)


@pytest.mark.parametrize("cycle", CYCLES)
def test_after_a_trial_the_periods_are_counted_from_its_end(cycle: str) -> None:
    interval, count, boundaries = CYCLES[cycle]
    for anchor in ANCHORS:
        trial = Period(anchor - timedelta(days=14), anchor)
        subscription = billed(anchor, interval, count, trial, trial_end=anchor)
        subscription = told(subscription, [told_paid("in_0", trial, 0)])
        for number, end in enumerate(islice(boundaries(anchor), 20)):
            assert paid_until(subscription) == end, (anchor, number)
            subscription = told(subscription, [told_paid(f"in_{number + 1}", None)])


@settings(deadline=None)
@for_all(
    anchor=strategies.sampled_from(ANCHORS),
    cycle=strategies.sampled_from(sorted(CYCLES)),
    paid=strategies.lists(strategies.integers(0, 30), unique=True),
    data=strategies.data(),
)
def test_whatever_is_paid_late_or_never_the_latest_paid_period_counts(
    anchor: datetime, cycle: str, paid: list[int], data: strategies.DataObject
) -> None:
    interval, count, boundaries = CYCLES[cycle]
    ends = list(islice(boundaries(anchor), 32))
    periods = [Period(*span) for span in pairwise(ends)]
    outcomes: list[SubscriptionCommand] = [told_paid(f"in_{number}", periods[number]) for number in paid]
    outcomes += [told_unpaid(f"in_{number}", period) for number, period in enumerate(periods)]
    heard = data.draw(strategies.permutations(outcomes))
    subscription = told(billed(anchor, interval, count, periods[0], None), heard)
    assert paid_until(subscription) == (ends[max(paid) + 1] if paid else None)
    assert subscription.payment_status == ("paid" if 30 in paid else "failed")


# --- Any order, any number of times ------------------------------------------------------------------------------

ENDS = list(islice(months_on(JAN_31, 1), 8))
PERIODS = [Period(*span) for span in pairwise(ENDS)]
STATUSES: list[BillingStatus] = ["incomplete", "trialing", "active", "past_due", "unpaid"]

# So few seconds that some movements come in the same one.
seconds = strategies.integers(-2, 9).map(later)
prices = strategies.sampled_from(["price_1", "price_2", "price_3"])
movements: strategies.SearchStrategy[SubscriptionCommand] = strategies.one_of(
    strategies.builds(told_status, strategies.sampled_from(STATUSES), seconds),
    strategies.builds(told_changed, strategies.none(), prices.map(monthly), seconds),
    strategies.builds(told_scheduled, strategies.none(), strategies.sampled_from(ENDS[1:4]), seconds),
    strategies.builds(told_resumed, strategies.none(), seconds),
    strategies.builds(
        told_refunded, strategies.sampled_from(["in_0", "in_1"]), strategies.sampled_from([0, 9_00, 20_00]), seconds
    ),
)
Close = Literal["open", "paid", "voided"]
CLOSES: tuple[Close, ...] = ("open", "paid", "voided")


def outcomes_of(number: int, attempts: int, end: Close) -> list[SubscriptionCommand]:
    name, period = f"in_{number}", PERIODS[number]
    outcomes: list[SubscriptionCommand] = []
    outcomes += [told_unpaid(name, period, attempt, ENDS[attempt]) for attempt in range(1, attempts + 1)]
    if end != "open":
        outcomes.append(told_paid(name, period) if end == "paid" else told_voided(name))
    return outcomes


@strategies.composite
def lives(draw: strategies.DrawFn) -> list[SubscriptionCommand]:
    """All that may happen to one subscription at the provider without us, and its beginning."""
    life: list[SubscriptionCommand] = [confirm_started()]
    life += draw(strategies.lists(movements, max_size=10))
    for number in range(draw(strategies.integers(0, 4))):
        life += outcomes_of(number, draw(strategies.integers(0, 3)), draw(strategies.sampled_from(CLOSES)))
    if draw(strategies.booleans()):
        life.append(told_ended())
    return life


@settings(deadline=None, max_examples=200)
@for_all(life=lives(), data=strategies.data())
def test_in_any_order_and_however_often_it_is_heard_the_same_is_known(
    life: list[SubscriptionCommand], data: strategies.DataObject
) -> None:
    again = data.draw(strategies.lists(strategies.sampled_from(life), max_size=8))
    heard = data.draw(strategies.permutations(life + again))
    known = told(fold(PENDING), life)
    assert told(fold(PENDING), heard) == known
    assert told(known, heard) == known, "heard again, it came to something new"


# --- Any command at any time -------------------------------------------------------------------------------------


class Refused(Exception):  # noqa: N818  as in the domain, an answer
    """The book would not grant this."""


@dataclass
class Entry:
    kind: str
    terms: tuple[str, int] = ("", 0)
    at_period_end: bool = False
    known_at: float | None = None
    outcome: str = "open"

    def then(self, second: float) -> float:
        """When what it asked for became so: after all that was known when it was asked."""
        return second if self.known_at is None else max(second, self.known_at + 1e-6)


@dataclass
class Bill:
    period: int
    minor: int = 0
    paid: bool = False
    attempts: set[int] = field(default_factory=set)


@dataclass
class Book:
    """What a subscription should come to. What changes is kept with the second that it is known of."""

    begun: bool = False
    started: bool = False
    over: bool = False
    terms: tuple[float, tuple[str, int]] | None = None
    standing: tuple[float, Status] | None = None
    ending: tuple[float, int | None] | None = None
    period: int | None = None
    entries: dict[str, Entry] = field(default_factory=dict)
    bills: dict[str, Bill] = field(default_factory=dict)
    voided: set[str] = field(default_factory=set)
    back: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def status(self) -> Status:
        if self.over:
            return "cancelled"
        if self.standing:
            return self.standing[1]
        attempts = [entry for entry in self.entries.values() if entry.kind == "subscribe"]
        return "refused" if attempts[-1].outcome == "failed" else "pending"

    @property
    def paid_for(self) -> int | None:
        return max((bill.period for bill in self.bills.values() if bill.paid), default=None)

    @property
    def kept(self) -> set[int]:
        """The periods that were paid for, and of whose money something stayed."""
        returned = {name for name, bill in self.bills.items() if self.back.get(name, (0, 0))[1] >= bill.minor > 0}
        return {bill.period for name, bill in self.bills.items() if bill.paid and name not in returned}

    @property
    def payment_status(self) -> str:
        counted = [bill for name, bill in self.bills.items() if bill.paid or name not in self.voided]
        counted = counted or list(self.bills.values())
        if not counted:
            return "failed" if self.begun and self.status == "refused" else "pending"
        last = max(bill.period for bill in counted)
        if not any(bill.paid for bill in counted if bill.period == last):
            return "failed"
        return "paid" if last in self.kept else "refunded"

    @property
    def known_at(self) -> float | None:
        changes = (self.terms, self.standing, self.ending, *self.back.values())
        return max((known[0] for known in changes if known), default=None)

    def still_open(self) -> set[str]:
        return {name for name, entry in self.entries.items() if entry.outcome == "open"}

    # Wishes

    def subscribe(self, name: str) -> None:
        if name in self.entries:
            return
        if self.begun and self.status != "refused":
            raise Refused
        self.begun = True
        self.entries[name] = Entry("subscribe")

    def change(self, name: str, price: str, quantity: int | None) -> None:
        if not self._asked_before(name):
            if self.over or not self.started or self.status == "incomplete" or self.still_open():
                raise Refused
            assert self.terms is not None
            wanted = (price, self.terms[1][1] if quantity is None else quantity)
            if wanted[1] < 1:
                raise Refused
            if wanted != self.terms[1]:
                self.entries[name] = Entry("change", wanted, known_at=self.known_at)

    def cancel(self, name: str, *, at_period_end: bool) -> None:
        if not self._asked_before(name) and not self.over:
            nothing_to_keep = at_period_end and self.status == "incomplete"
            if not self.started or nothing_to_keep or self.still_open():
                raise Refused
            assert self.period is not None
            ends = self.ending[1] if self.ending else None
            if not (at_period_end and ends is not None and ends <= self.period + 1):
                self.entries[name] = Entry("cancel", at_period_end=at_period_end, known_at=self.known_at)

    def resume(self, name: str, boundary: int) -> None:
        if not self._asked_before(name):
            if self.over or not self.started or self.still_open():
                raise Refused
            ends = self.ending[1] if self.ending else None
            if ends is None:
                return
            if ends <= boundary:
                raise Refused
            self.entries[name] = Entry("resume", known_at=self.known_at)

    def _asked_before(self, name: str) -> bool:
        if not self.begun:
            raise Refused
        return name in self.entries

    # Outcomes

    def _answered(self, name: str, kind: str) -> bool:
        """Whether there was still something to answer."""
        entry = self.entries.get(name)
        if entry is None:
            raise Refused
        if entry.outcome != "open":
            return False
        if entry.kind != kind:
            raise Refused
        return True

    def start(self, name: str, second: int, *, second_one: bool) -> None:
        entry = self.entries.get(name)
        if entry and (entry.outcome == "failed" or (self.started and second_one)):
            raise Refused
        if self._answered(name, "subscribe"):
            self.entries[name].outcome, self.started = "done", True
            self.terms_are(second, ("price_1", 1), 0)
            self.stands(second, "active")

    def refuse(self, name: str) -> None:
        entry = self.entries.get(name)
        if self._answered(name, entry.kind if entry else ""):
            self.entries[name].outcome = "failed"

    def changed(self, name: str, second: int, terms: tuple[str, int]) -> None:
        if self._answered(name, "change"):
            if self.entries[name].terms != terms:
                raise Refused
            self.entries[name].outcome = "done"
            self.terms_are(self.entries[name].then(second), terms, 0)

    def scheduled(self, name: str, second: int, boundary: int) -> None:
        if self._answered(name, "cancel"):
            if not self.entries[name].at_period_end:
                raise Refused
            self.entries[name].outcome = "done"
            self.ends(self.entries[name].then(second), boundary)

    def cancelled(self, name: str) -> None:
        if self._answered(name, "cancel"):
            self.ended()

    def resumed(self, name: str, second: int) -> None:
        if self._answered(name, "resume"):
            self.entries[name].outcome = "done"
            self.ends(self.entries[name].then(second), None)

    # Without us

    def terms_are(self, second: float, terms: tuple[str, int], period: int) -> None:
        self._began()
        if self.terms is None or second > self.terms[0]:
            self.terms = (second, terms)
            self.period = max(period, self.period or 0)

    def stands(self, second: float, status: Status) -> None:
        self._began()
        if self.standing is None or second > self.standing[0]:
            self.standing = (second, status)

    def ends(self, second: float, boundary: int | None) -> None:
        self._began()
        if self.ending is None or second > self.ending[0]:
            self.ending = (second, boundary)

    def ended(self) -> None:
        self._began()
        self.over = True
        for entry in self.entries.values():
            if entry.kind == "cancel" and entry.outcome == "open":
                entry.outcome = "done"

    def paid(self, name: str, period: int | None, minor: int) -> None:
        self._began()
        bill = self.bills.get(name)
        if bill and bill.paid:
            if bill.minor != minor:
                raise Refused
            return
        number = self._number(name, period)
        bill = self.bills.setdefault(name, Bill(number))
        bill.period, bill.paid, bill.minor = number, True, minor
        self.period = max(number, self.period or 0)

    def unpaid(self, name: str, period: int | None, attempt: int) -> None:
        self._began()
        bill = self.bills.get(name)
        if not bill or attempt not in bill.attempts:
            number = self._number(name, period)
            self.bills.setdefault(name, Bill(number)).attempts.add(attempt)
            self.period = max(number, self.period or 0)

    def taken_back(self, name: str) -> None:
        self._began()
        self.voided.add(name)

    def gone_back(self, name: str, second: int, minor: int) -> None:
        self._began()
        self.back[name] = max(self.back.get(name, (second, minor)), (second, minor))

    def _number(self, name: str, period: int | None) -> int:
        if period is not None:
            return period
        if name in self.bills:
            return self.bills[name].period
        if self.terms is None or self.period is None:
            raise Refused
        return self.period if self.paid_for is None else self.paid_for + 1

    def _began(self) -> None:
        if not self.begun:
            raise Refused


Predict = Callable[[Book], None]

# Which operation a command names: mostly a new one (of a wish) or an open one (of an outcome), sometimes any, or none.
picks = strategies.integers(0, 31)
flags = strategies.booleans()
boundaries = strategies.integers(1, 3)
quantities = strategies.sampled_from([None, None, 1, 2, 0])
# How late a movement is heard of, in turns of the clock.
ages = strategies.integers(0, 3)
# An invoice has its period in its name; a charge that comes without one does not.
names = strategies.sampled_from(["0a", "1a", "1b", "2a", "3a", "3b", "none 1", "none 2"])


class AnyCommandAtAnyTime(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.book = Book()
        self.facts: tuple[SubscriptionFact, ...] = ()
        self.subscription: Subscription | None = None
        self.turn = 0

    # Wishes

    @rule(pick=picks)
    def subscribe(self, pick: int) -> None:
        name = self._wished(pick)
        self._ask(Subscribe(name, CUSTOMER, "prod_1", "price_1"), lambda book: book.subscribe(name))

    @rule(pick=picks, price=prices, quantity=quantities)
    def change(self, pick: int, price: str, quantity: int | None) -> None:
        name = self._wished(pick)
        self._ask(Change(name, "prod_1", price, quantity), lambda book: book.change(name, price, quantity))

    @rule(pick=picks, at_period_end=flags)
    def cancel(self, pick: int, *, at_period_end: bool) -> None:
        name = self._wished(pick)
        self._ask(Cancel(name, at_period_end), lambda book: book.cancel(name, at_period_end=at_period_end))

    @rule(pick=picks, boundary=strategies.integers(0, 3))
    def resume(self, pick: int, boundary: int) -> None:
        name = self._wished(pick)
        self._ask(Resume(name, ENDS[boundary]), lambda book: book.resume(name, boundary))

    # Outcomes, of whatever was asked

    @rule(pick=picks, age=ages, second_one=strategies.sampled_from([False, False, False, True]))
    def confirm_started(self, pick: int, age: int, *, second_one: bool) -> None:
        name, second = self._answered(pick, "subscribe"), self._second(age)
        told = confirm_started(name, subscription="sub_2" if second_one and self.book.started else "sub_1")
        self._ask(
            structs.replace(told, as_of=later(second)), lambda book: book.start(name, second, second_one=second_one)
        )

    @rule(pick=picks, age=ages, other=strategies.sampled_from([None, None, None, ("price_3", 2)]))
    def confirm_changed(self, pick: int, age: int, other: tuple[str, int] | None) -> None:
        name, second = self._answered(pick, "change"), self._second(age)
        asked = self.book.entries.get(name)
        terms = other or (asked.terms if asked and asked.kind == "change" else ("price_2", 1))
        told = told_changed(name, monthly(*terms), later(second))
        self._ask(told, lambda book: book.changed(name, second, terms))

    @rule(pick=picks, age=ages, boundary=boundaries)
    def confirm_scheduled(self, pick: int, age: int, boundary: int) -> None:
        name, second = self._answered(pick, "cancel"), self._second(age)
        told = told_scheduled(name, ENDS[boundary], later(second))
        self._ask(told, lambda book: book.scheduled(name, second, boundary))

    @rule(pick=picks)
    def confirm_cancelled(self, pick: int) -> None:
        name = self._answered(pick, "cancel")
        self._ask(told_ended(name), lambda book: book.cancelled(name))

    @rule(pick=picks, age=ages)
    def confirm_resumed(self, pick: int, age: int) -> None:
        name, second = self._answered(pick, "resume"), self._second(age)
        self._ask(told_resumed(name, later(second)), lambda book: book.resumed(name, second))

    @rule(pick=picks)
    def confirm_refused(self, pick: int) -> None:
        name = self._answered(pick, "")
        self._ask(confirm_refused(name), lambda book: book.refuse(name))

    # What happens without us

    @rule(age=ages, price=prices, quantity=strategies.integers(1, 2))
    def changes(self, age: int, price: str, quantity: int) -> None:
        second = self._second(age)
        told = told_changed(None, monthly(price, quantity), later(second))
        self._ask(told, lambda book: book.terms_are(second, (price, quantity), 0))

    @rule(age=ages, status=strategies.sampled_from(STATUSES))
    def moves(self, age: int, status: BillingStatus) -> None:
        second = self._second(age)
        self._ask(told_status(status, later(second)), lambda book: book.stands(second, status))

    @rule(age=ages, boundary=boundaries)
    def is_to_end(self, age: int, boundary: int) -> None:
        second = self._second(age)
        told = told_scheduled(None, ENDS[boundary], later(second))
        self._ask(told, lambda book: book.ends(second, boundary))

    @rule(age=ages)
    def is_not_to_end(self, age: int) -> None:
        second = self._second(age)
        self._ask(told_resumed(None, later(second)), lambda book: book.ends(second, None))

    @rule(certain=strategies.integers(0, 5))
    def is_over(self, certain: int) -> None:
        """Now and then: little happens afterwards."""
        if certain == 0:
            self._ask(told_ended(), lambda book: book.ended())

    @rule(name=names, minor=strategies.sampled_from([20_00, 20_00, 20_00, 19_99]))
    def is_paid(self, name: str, minor: int) -> None:
        number = self._period_in(name)
        period = None if number is None else PERIODS[number]
        self._ask(told_paid(name, period, minor), lambda book: book.paid(name, number, minor))

    @rule(name=names, attempt=strategies.integers(1, 3))
    def is_not_paid(self, name: str, attempt: int) -> None:
        number = self._period_in(name)
        period = None if number is None else PERIODS[number]
        self._ask(told_unpaid(name, period, attempt), lambda book: book.unpaid(name, number, attempt))

    @rule(name=names)
    def is_taken_back(self, name: str) -> None:
        self._ask(told_voided(name), lambda book: book.taken_back(name))

    @rule(name=names, age=ages, minor=strategies.sampled_from([0, 5_00, 19_99, 20_00, 20_00]))
    def goes_back(self, name: str, age: int, minor: int) -> None:
        second = self._second(age)
        self._ask(told_refunded(name, minor, later(second)), lambda book: book.gone_back(name, second, minor))

    # What always holds

    @invariant()
    def the_book_agrees(self) -> None:
        if self.subscription is None:
            assert self.book == Book()
            return
        known, book = self.subscription, self.book
        assert (known.status, known.payment_status) == (book.status, book.payment_status)
        assert paid_until(known) == (ENDS[max(book.kept) + 1] if book.kept else None)
        assert known.period == (None if book.period is None else PERIODS[book.period])
        terms = known.terms and (known.terms.value.price, known.terms.value.quantity)
        assert terms == (book.terms and book.terms[1])
        if not book.over:
            boundary = book.ending[1] if book.ending else None
            assert known.ends_at == (None if boundary is None else ENDS[boundary])
        assert {name for name, _ in known.in_flight()} == book.still_open()
        assert {name: one.outcome for name, one in known.operations.items()} == {
            name: entry.outcome for name, entry in book.entries.items()
        }

    @invariant()
    def there_is_one_subscription_and_one_wish_at_a_time(self) -> None:
        begun = {fact.subscription for fact in self.facts if isinstance(fact, SubscriptionStarted)}
        assert len(begun) <= 1
        assert self.subscription is None or len(self.subscription.in_flight()) <= 1

    @invariant()
    def the_whole_history_gives_the_present(self) -> None:
        assert fold(self.facts) == self.subscription

    # How a command is asked

    def _ask(self, command: SubscriptionCommand, predict: Predict) -> None:
        before = deepcopy(self.subscription)
        expected, granted = deepcopy(self.book), True
        try:
            predict(expected)
        except Refused:
            expected, granted = self.book, False
        facts: tuple[SubscriptionFact, ...] = ()
        refusal: Refusal | None = None
        try:
            facts = decide(self.subscription, command)
        except Refusal as answer:
            refusal = answer
        assert granted == (refusal is None), f"{command} was answered with {refusal or facts!r}"
        assert self.subscription == before, "a decision changed the state it was about"
        self.book = expected
        self.facts += facts
        self.subscription = fold(facts, self.subscription)
        if granted:
            assert decide(self.subscription, command) == (), "asked again, it decided something new"

    def _wished(self, pick: int) -> str:
        known = list(self.book.entries)
        return known[pick % len(known)] if known and pick > 27 else f"op_{len(known)}"

    def _answered(self, pick: int, kind: str) -> str:
        """Mostly one that waits for an answer of this kind."""
        known = self.book.entries
        waiting = [name for name, entry in known.items() if entry.outcome == "open" and entry.kind.startswith(kind)]
        if waiting and pick < 28:
            return waiting[0]
        return list(known)[pick % len(known)] if known and pick < 31 else "unknown"

    def _second(self, age: int) -> int:
        """No second comes twice; the older the age, the earlier it is than what was heard of before."""
        self.turn += 1
        return self.turn - 100 * age

    def _period_in(self, name: str) -> int | None:
        return None if name.startswith("none") else int(name[0])


def test_no_order_of_commands_breaks_what_is_promised_of_a_subscription() -> None:
    phases = (Phase.reuse, Phase.generate, Phase.shrink)  # an explanation would take longer than the test may
    run_state_machine_as_test(
        AnyCommandAtAnyTime,
        settings=settings(
            max_examples=300, stateful_step_count=40, deadline=None, phases=phases, report_multiple_bugs=False
        ),
    )
