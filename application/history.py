"""A payment's stream in memory: its facts, the state they fold to, and what each operation left behind."""

from functools import reduce
from typing import Self
from uuid import UUID

from msgspec import Struct

from application.event_store import Loaded
from domain.envelope import NO_PREVIOUS, Envelope
from domain.facts import of_payment
from domain.payment import Payment, PaymentAt, evolve


class History(Struct, frozen=True):
    """A stream as loaded. Appending answers a new one; nothing is folded twice."""

    stream: UUID
    envelopes: tuple[Envelope, ...] = ()
    payment: Payment | None = None
    tail: bytes = NO_PREVIOUS

    @classmethod
    def of(cls, stream: UUID, loaded: Loaded) -> Self:
        return cls(stream).followed_by(loaded)

    def followed_by(self, loaded: Loaded) -> Self:
        """With the next facts of the stream, as the store answered them."""
        payment = reduce(evolve, (of_payment(envelope.fact) for envelope in loaded.envelopes), self.payment)
        return type(self)(self.stream, self.envelopes + loaded.envelopes, payment, loaded.tail)

    @property
    def version(self) -> int:
        return len(self.envelopes)

    def started(self, operation: str) -> Envelope | None:
        """The fact that began an operation."""
        return next((envelope for envelope in self.envelopes if envelope.operation == operation), None)

    def after(self, operation: str) -> Self:
        """The history as it stood when the operation's last fact so far had been recorded."""
        last = max(envelope.version for envelope in self.envelopes if envelope.operation == operation)
        earlier = self.envelopes[:last]
        payment = reduce(evolve, (of_payment(envelope.fact) for envelope in earlier), None)
        return type(self)(self.stream, earlier, payment)

    def snapshot(self) -> PaymentAt:
        """What is known now. The history must not be empty."""
        assert self.payment is not None  # noqa: S101  asked of an existing payment only
        first, last = self.envelopes[0], self.envelopes[-1]
        assert last.position is not None  # noqa: S101  it came from the store
        return PaymentAt(self.stream, self.payment, self.version, last.position, first.at, last.at)
