"""Any aggregate's stream in the store: its facts in memory, what is decided about it, and appending that.

What application/history.py and payment_stream.py are for payments, for aggregates that need no more than this.
"""

import asyncio
import hmac
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from functools import reduce
from typing import Any, Generic, Literal, TypeVar
from uuid import UUID
from weakref import WeakValueDictionary

from msgspec import Struct, json

from application.event_store import Ledger, Loaded, StreamMoved
from application.payment_stream import Context, RunBlocking
from application.payments import KeyReused
from application.settlement import MAX_CONFLICTS, Contended
from domain.envelope import NO_PREVIOUS, Envelope
from domain.facts import Fact

State = TypeVar("State")


class Story(Struct, Generic[State], frozen=True):
    """A stream as loaded: its facts, what they fold to, and the hash of its last row."""

    stream: UUID
    envelopes: tuple[Envelope, ...] = ()
    state: State | None = None
    tail: bytes = NO_PREVIOUS

    @property
    def version(self) -> int:
        return len(self.envelopes)

    @property
    def position(self) -> int:
        """Of its last fact in the log."""
        return (self.envelopes[-1].position or 0) if self.envelopes else 0

    @property
    def known(self) -> State:
        """The state of a stream that is known to have one."""
        assert self.state is not None, "the stream is empty"  # noqa: S101  whoever asks has seen a fact of it
        return self.state

    def started(self, operation: str) -> Envelope | None:
        """The fact that began an operation."""
        return next((envelope for envelope in self.envelopes if envelope.operation == operation), None)


class Append(Struct, Generic[State], frozen=True):
    """Facts to be appended to a story. `asked` is the fingerprint of the wish that they come from."""

    story: Story[State]
    facts: Sequence[Fact]
    asked: str | None = None


class Done(Struct, Generic[State], frozen=True):
    """What a wish led to: `open` while the provider's answer is not known; `replayed` when it had been asked before."""

    story: Story[State]
    operation: str
    outcome: Literal["open", "done", "failed"]
    replayed: bool


class Asked(Struct, frozen=True):
    """A wish, the operation that it is, and its fingerprints: under the key in force, then under those it replaced.

    `wish` is a command, or tells it from the state that it is decided on.
    """

    wish: Any
    operation: str
    fingerprints: tuple[str, ...]


def fingerprints(told: Sequence[object], keys: Sequence[bytes]) -> tuple[str, ...]:
    """Tell whether a wish was asked in the same words (see application/payments.py), one under each key."""
    words = json.encode(told, order="deterministic")
    return tuple(hmac.digest(key, words, "sha256").hex() for key in keys)


class Streams(Generic[State]):
    """One instance a process and kind of aggregate. `evolve` folds its facts, `decide` answers commands with them.

    `facts` are its kinds: a stream of others is not one of these, whoever names it.
    """

    def __init__(
        self,
        ledger: Ledger,
        evolve: Callable[[State | None, Any], State],
        decide: Callable[[State | None, Any], Sequence[Fact]],
        clock: Callable[[], datetime],
        run: RunBlocking,
        facts: Collection[type[Fact]],
    ) -> None:
        self._ledger = ledger
        self._evolve = evolve
        self._decide = decide
        self.now = clock
        self._run = run
        self._facts = frozenset(facts)
        self._turns = WeakValueDictionary[UUID, asyncio.Lock]()
        self._settling: dict[tuple[UUID, str], asyncio.Event] = {}

    def _turn(self, stream: UUID) -> AbstractAsyncContextManager[None]:
        """Who decides and appends in its turn does not collide with others of this process; processes still may."""
        return self._turns.setdefault(stream, asyncio.Lock())

    def age(self, story: Story[State], operation: str) -> timedelta:
        """How long ago an operation was begun."""
        started = story.started(operation)
        assert started is not None, "it was begun"  # noqa: S101  whoever asks has seen it
        return self.now() - started.at

    async def load(self, stream: UUID) -> Story[State]:
        """Raises StoreUnavailable. What does not exist, or is something else, has an empty story."""
        loaded = await self._run(lambda: self._ledger.load(stream))
        if any(type(envelope.fact) not in self._facts for envelope in loaded.envelopes[:1]):
            return Story[State](stream)
        return self._followed(Story[State](stream), loaded)

    async def wish(
        self, stream: UUID, asked: Asked, context: Context, ready: Callable[[], None]
    ) -> tuple[Story[State], bool]:
        """The story with a wish in it, and whether it had been asked before under the same operation.

        `ready` raises when nothing should be begun now. Raises a Refusal, KeyReused, Contended or StoreUnavailable.
        """
        async with self._turn(stream):
            for _ in range(MAX_CONFLICTS):
                story = await self.load(stream)
                started = story.started(asked.operation)
                if started is not None:
                    if started.fingerprint not in asked.fingerprints:
                        raise KeyReused
                    return story, True
                wish = asked.wish(story.state) if callable(asked.wish) else asked.wish
                facts = self._decide(story.state, wish)
                ready()
                try:
                    return await self.append(Append(story, facts, asked.fingerprints[0]), context), False
                except StreamMoved:
                    continue
        raise Contended

    async def record(self, story: Story[State], told: Sequence[Any], context: Context) -> Story[State]:
        """The story with all that was learned in it. Raises a Refusal, Contended or StoreUnavailable."""
        async with self._turn(story.stream):
            for _ in range(MAX_CONFLICTS):
                facts = self.decided(story.state, told)
                if not facts:
                    return story
                try:
                    return await self.append(Append(story, facts), context)
                except StreamMoved:
                    story = await self.load(story.stream)
        raise Contended

    async def once(
        self, story: Story[State], operation: str, settle: Callable[[], Awaitable[Story[State]]]
    ) -> Story[State]:
        """What `settle` answers; who finds that somebody here settles the operation already waits for what it comes to.

        Two calls under one key would be in each other's way at the provider. Raises what `settle` does.
        """
        name = (story.stream, operation)
        if (under_way := self._settling.get(name)) is not None:
            await under_way.wait()
            return await self.load(story.stream)
        self._settling[name] = ended = asyncio.Event()
        try:
            return await settle()
        finally:
            del self._settling[name]
            ended.set()

    def decided(self, state: State | None, told: Sequence[Any]) -> list[Fact]:
        """The facts with which these commands are answered, one after the other. Raises a Refusal."""
        facts: list[Fact] = []
        for command in told:
            decided = self._decide(state, command)
            state = reduce(self._evolve, decided, state)
            facts += decided
        return facts

    async def append(self, append: Append[State], context: Context, *others: list[Envelope]) -> Story[State]:
        """The story with these facts, which are stored now: all or none, together with facts of other new streams.

        Raises StreamMoved or StoreUnavailable.
        """
        if not append.facts and not others:
            return append.story
        appends = [(self.envelopes(append, context), append.story.tail)] if append.facts else []
        appends += [(envelopes, NO_PREVIOUS) for envelopes in others]
        stored = await self._run(lambda: self._ledger.append_all(appends))
        return self._followed(append.story, stored[0]) if append.facts else append.story

    def envelopes(self, append: Append[State], context: Context) -> list[Envelope]:
        """A fact belongs to the operation that it names."""
        now, story = self.now(), append.story
        made = []
        for version, fact in enumerate(append.facts, story.version + 1):
            operation: str | None = getattr(fact, "operation", None)
            started = story.started(operation) if operation else None
            made.append(
                Envelope(
                    stream=story.stream,
                    version=version,
                    fact=fact,
                    at=now,
                    actor=context.actor,
                    operation=operation,
                    correlation=context.correlation,
                    causation=started.id if started else context.causation,
                    fingerprint=append.asked,
                    person=str(story.stream),
                )
            )
        return made

    def _followed(self, story: Story[State], loaded: Loaded) -> Story[State]:
        state = reduce(self._evolve, (envelope.fact for envelope in loaded.envelopes), story.state)
        return Story(story.stream, story.envelopes + loaded.envelopes, state, loaded.tail)
