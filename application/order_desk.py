"""A batch of announcements decided on in memory: what is to be appended, what waits, and what is to be parked."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import reduce
from typing import Literal
from uuid import UUID

from msgspec import Struct

from application.event_store import Loaded
from application.order_messages import Announced, Message, NotOurs, Reading, Unreadable
from application.order_parking import BEHIND, Aside
from application.order_waiting import MAX_WAITING_EACH, Waiting
from application.stored_form import UnreadableFact
from domain.envelope import NO_PREVIOUS, Envelope
from domain.errors import OrderChangesMissing, OrderContradicted, Refusal
from domain.facts import Fact
from domain.order import Cancel, Order, Place, decide, evolve
from domain.order_facts import OrderFact

# Whose facts they are.
ACTOR = "orders"

Became = Literal["applied", "unchanged", "passed over", "waiting", "parked"]


class Story(Struct):
    """An order as it is in the log, and what is to be appended. `broken`: why that cannot be told."""

    order: Order | None = None
    version: int = 0
    tail: bytes = NO_PREVIOUS
    new: list[Envelope] = []
    broken: str | None = None

    @classmethod
    def of(cls, loaded: Loaded | UnreadableFact) -> "Story":
        if isinstance(loaded, UnreadableFact):
            return cls(broken="this version cannot read the order's history")
        try:
            order = reduce(evolve, (_of_order(envelope.fact) for envelope in loaded.envelopes), None)
        except AssertionError:
            return cls(broken="the order's history is not one of an order")
        return cls(order, len(loaded.envelopes), loaded.tail)


class Desk:
    """Of one batch. `aside` are the lanes that wait already; those that the batch adds join them."""

    def __init__(
        self, stories: dict[UUID, Story], waiting: Mapping[UUID, dict[int, Waiting]], aside: set[UUID], now: datetime
    ) -> None:
        self._stories = stories
        self._waiting = dict(waiting)
        self._lanes = aside
        self._now = now
        self._changed: dict[UUID, Story] = {}
        self._waits: dict[tuple[UUID, int], Waiting] = {}
        self.waited: list[tuple[UUID, int]] = []
        self.aside: list[Aside] = []

    @property
    def appends(self) -> Iterable[tuple[Sequence[Envelope], bytes]]:
        return [(story.new, story.tail) for story in self._changed.values()]

    @property
    def waits(self) -> list[Waiting]:
        """Those that began to wait, and still do."""
        return list(self._waits.values())

    def take(self, message: Message, reading: Reading, lane: UUID) -> Became:
        """What becomes of a message; those of a lane are told in their order."""
        match reading:
            case NotOurs():
                return "passed over"
            case Unreadable():
                return self._park(message, lane, reading.order, reading.reason)
            case Announced():
                return self._apply(message, reading, lane)

    def _apply(self, message: Message, announced: Announced, lane: UUID) -> Became:
        order = announced.command.order
        if lane in self._lanes or announced.lane in self._lanes:
            return self._park(message, lane, order, BEHIND)
        story = self._stories.setdefault(announced.lane, Story())
        if story.broken:
            return self._park(message, lane, order, story.broken)
        correlation = announced.correlation or message.place
        try:
            told = self._decide(announced.lane, story, announced.command, correlation, message.place)
        except OrderChangesMissing:
            return self._wait(message, announced, correlation, lane)
        except Refusal as refusal:
            return self._park(message, lane, order, _reason(refusal))
        if told:
            self._go_on(announced.lane, story)
        return "applied" if told else "unchanged"

    def _decide(self, stream: UUID, story: Story, command: Place | Cancel, correlation: str, causation: str) -> bool:
        """Whether it changed the order. Raises a Refusal."""
        facts = decide(story.order, command)
        for fact in facts:
            story.version += 1
            story.order = evolve(story.order, fact)
            story.new.append(
                Envelope(
                    stream=stream,
                    version=story.version,
                    fact=fact,
                    at=self._now,
                    actor=ACTOR,
                    operation=None,
                    correlation=correlation,
                    causation=causation,
                    fingerprint=None,
                )
            )
            self._changed[stream] = story
        return bool(facts)

    def _wait(self, message: Message, announced: Announced, correlation: str, lane: UUID) -> Became:
        command = announced.command
        assert isinstance(command, Cancel), "nothing comes before an order's creation"  # noqa: S101  domain/order.py
        waiting = self._waiting.setdefault(announced.lane, {})
        if command.version in waiting:
            return "unchanged"
        if len(waiting) >= MAX_WAITING_EACH:
            return self._park(message, lane, command.order, "version: too many of the order's changes wait already")
        one = Waiting(announced.lane, command, correlation, message.place)
        waiting[command.version] = self._waits[announced.lane, command.version] = one
        return "waiting"

    def _go_on(self, stream: UUID, story: Story) -> None:
        """Apply what waited for the order to come so far."""
        waiting = self._waiting.get(stream, {})
        for version in sorted(waiting):
            one = waiting[version]
            try:
                self._decide(stream, story, one.command, one.correlation, one.causation)
            except OrderChangesMissing:
                return
            del waiting[version]
            if self._waits.pop((stream, version), None) is None:
                self.waited.append((stream, version))

    def _park(self, message: Message, lane: UUID, order: str | None, reason: str) -> Became:
        behind = lane in self._lanes
        self._lanes.add(lane)
        self.aside.append(Aside(message, lane, order, BEHIND if behind else reason))
        return "parked"


def _of_order(fact: Fact) -> OrderFact:
    assert isinstance(fact, OrderFact)  # noqa: S101  its caller looks
    return fact


def _reason(refusal: Refusal) -> str:
    """Without what the message said."""
    return f"version: {refusal.reason}" if isinstance(refusal, OrderContradicted) else type(refusal).__name__
