"""A payment's stream in the store: loading its history, and appending what was decided about it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Protocol, TypeVar
from uuid import UUID
from weakref import WeakValueDictionary

from msgspec import Struct

from application.event_store import Ledger, Loaded
from application.history import History
from domain.envelope import Envelope
from domain.facts import is_of_payment
from domain.payment_facts import AuthorizationStarted, PaymentFact

T = TypeVar("T")


class Context(Struct, frozen=True):
    """Who asks, in which conversation. `correlation` follows the request, `causation` names what led to it."""

    actor: str
    correlation: str
    causation: str | None = None


class RunBlocking(Protocol):
    """Runs a blocking call elsewhere (a bounded pool of threads) and waits for it."""

    def __call__(self, call: Callable[[], T], /) -> Awaitable[T]: ...


class PaymentStreams:
    """One instance a process. `clock` gives the time with its zone; `run` takes blocking calls off the event loop."""

    def __init__(self, ledger: Ledger, clock: Callable[[], datetime], run: RunBlocking) -> None:
        self._ledger = ledger
        self._clock = clock
        self._run = run
        self._turns = WeakValueDictionary[UUID, asyncio.Lock]()

    @asynccontextmanager
    async def turn(self, stream: UUID) -> AsyncIterator[bool]:
        """Who decides and appends in its turn does not collide with others of this process; processes still may.

        Tells whether somebody else was before us. Not to be held while the provider is asked.
        """
        lock = self._turns.setdefault(stream, asyncio.Lock())
        waited = lock.locked()
        async with lock:
            yield waited

    async def load(self, stream: UUID) -> History:
        """Raises StoreUnavailable. What does not exist, or is no payment, has an empty history."""
        loaded = await self._run(lambda: self._ledger.load(stream))
        return (
            History.of(stream, loaded)
            if all(is_of_payment(envelope.fact) for envelope in loaded.envelopes[:1])
            else History(stream)
        )

    async def append(
        self,
        history: History,
        facts: tuple[PaymentFact, ...],
        context: Context,
        operation: str | None = None,
        asked: str | None = None,
    ) -> History:
        """The history with these facts, which are stored now. Raises StreamMoved or StoreUnavailable.

        A fact belongs to the operation that it names; `operation` is for those that name none. `asked` is the
        fingerprint of the wish.
        """
        now = self._clock()
        person = _person(history, facts)
        envelopes = []
        for place, fact in enumerate(facts, 1):
            belongs_to = getattr(fact, "operation", operation)
            started = history.started(belongs_to) if belongs_to else None
            envelopes.append(
                Envelope(
                    stream=history.stream,
                    version=history.version + place,
                    fact=fact,
                    at=now,
                    actor=context.actor,
                    operation=belongs_to,
                    correlation=context.correlation,
                    causation=started.id if started else context.causation,
                    fingerprint=asked,
                    person=person,
                )
            )
        stored: Loaded = await self._run(lambda: self._ledger.append(envelopes, history.tail))
        return history.followed_by(stored)


def _person(history: History, facts: tuple[PaymentFact, ...]) -> str:
    """Whom the free text of a payment is about: its customer, or nobody but the payment itself."""
    begun = facts[0] if isinstance(facts[0], AuthorizationStarted) else history.payment
    return (begun and begun.customer) or f"payment:{history.stream}"
