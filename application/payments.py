"""The use cases of a payment: authorize, capture, void, refund, and the cardholder's return.

Intent, act, outcome: a wish is first recorded as started, then the provider is asked with a key of its own, then its
answer is recorded with its evidence (application/settlement.py).
"""

import hmac
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime
from functools import reduce
from typing import Literal
from uuid import UUID, uuid5

from msgspec import Struct, json

from application.event_store import StreamMoved
from application.gateway import PaymentGateway
from application.history import History
from application.payment_stream import Context, PaymentStreams
from application.settlement import ABANDONED_AFTER, MAX_CONFLICTS, Contended, NotLearned, Settlement
from domain.envelope import Envelope
from domain.payment import PaymentAt, Phase, evolve
from domain.payment_commands import Authorize, RecordFailed, Wish
from domain.payment_decisions import decide
from domain.payment_facts import Failure

# The root of every derived id. It never changes: the same caller and key must always name the same payment.
NAMESPACE = UUID("9d5c7a52-93c1-5d0f-9f3e-6f3b6c0e6f11")

# The evidence of a refusal of our own: nothing was sent to the provider.
NOT_SENT = "not sent"

# Why what was begun is not to be carried out after all, if something is against it by now.
Hindered = Callable[[], Awaitable[Failure | None]]


class PaymentNotFound(Exception):  # noqa: N818  it says what is so
    """There is no such payment."""


class KeyReused(Exception):  # noqa: N818  it says what was found
    """The idempotency key names another wish already."""


class VersionMoved(Exception):  # noqa: N818  it says what was found
    """The payment is not at a version the caller named."""

    def __init__(self, version: int) -> None:
        super().__init__(version)
        self.version = version


class ProviderUnavailable(Exception):  # noqa: N818  it says what is so
    """The provider has not answered for a while. Nothing was recorded, so nothing is left open."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(retry_after_s)
        self.retry_after_s = retry_after_s


class Answer(Struct, frozen=True):
    """The payment as the operation left it.

    `outcome` is `open` while the provider's answer is not known and `waiting` while the cardholder must act;
    `replayed` when the wish had been asked before.
    """

    at: PaymentAt
    outcome: Literal["done", "failed", "open", "waiting"]
    replayed: bool = False


def payment_id(actor: str, key: str) -> UUID:
    """The stream of the payment that this caller names with this idempotency key."""
    return uuid5(NAMESPACE, f"{len(actor)}:{actor}{key}")


def operation_id(payment: UUID, actor: str, key: str) -> str:
    """The operation on a payment that this caller names with this idempotency key."""
    return str(uuid5(payment, f"{len(actor)}:{actor}{key}"))


def fingerprint(wish: Wish, key: bytes) -> str:
    """Tells whether a wish was asked in the same words, so that one key cannot mean two things.

    HMAC-SHA-256: without `key` nobody can try out what somebody may have written in it.
    """
    return hmac.digest(key, type(wish).__name__.encode() + json.encode(wish, order="deterministic"), "sha256").hex()


class Payments:
    """One instance a process. `clock` gives the time with its zone.

    `fingerprint_keys`: the one in force, then those it replaced.
    """

    def __init__(
        self,
        streams: PaymentStreams,
        settlement: Settlement,
        gateway: PaymentGateway,
        clock: Callable[[], datetime],
        fingerprint_keys: tuple[bytes, ...],
    ) -> None:
        self._streams = streams
        self._settlement = settlement
        self._gateway = gateway
        self._clock = clock
        self._fingerprint_keys = fingerprint_keys

    async def carry_out(
        self,
        stream: UUID,
        wish: Wish,
        context: Context,
        versions: frozenset[int] | None = None,
        hindered: Hindered | None = None,
    ) -> Answer:
        """Carry out a wish once, however often it is asked under the same operation.

        `versions`: the caller insists that the payment is at one of them. `hindered` is asked once the intent is on
        record, for all to see, and before the provider is. Raises a Refusal, PaymentNotFound, KeyReused, VersionMoved,
        Contended, ProviderUnavailable or StoreUnavailable; nobody was asked then, and unless `hindered` has raised
        it nothing was recorded.
        """
        async with self._streams.turn(stream) as waited:
            history, before = await self._begun(stream, wish, context, versions, waited=waited)
        if before is not None:
            return await self._asked_before(history, before, wish, context)
        failure = await hindered() if hindered is not None else None
        if failure is not None:
            return await self._withdrawn(history, wish.operation, failure, context)
        return await self._performed(history, wish.operation, context)

    async def _withdrawn(self, history: History, operation: str, failure: Failure, context: Context) -> Answer:
        try:
            ended = decide(history.payment, RecordFailed(operation, failure, NOT_SENT))
            return _answer(await self._streams.append(history, ended, context), operation)
        except StreamMoved:
            raise Contended from None

    async def _begun(
        self, stream: UUID, wish: Wish, context: Context, versions: frozenset[int] | None, *, waited: bool
    ) -> tuple[History, Envelope | None]:
        """The history with the intent in it; and the intent that stood there before, if it was asked before."""
        # A new payment has no history: its first append finds out whether that is so. When nothing can be begun,
        # only the history tells what had been asked before.
        new = isinstance(wish, Authorize) and not waited and versions is None and self._gateway.unavailable_s() is None
        history = History(stream) if new else await self._streams.load(stream)
        for _ in range(MAX_CONFLICTS):
            started = history.started(wish.operation)
            if started is not None:
                return history, started
            if history.payment is None and not isinstance(wish, Authorize):
                raise PaymentNotFound
            if versions is not None and history.version not in versions:
                raise VersionMoved(history.version)
            facts = decide(history.payment, wish)
            self._provider_answers()
            try:
                asked = self._fingerprints(wish)[0]
                return await self._streams.append(history, facts, context, wish.operation, asked), None
            except StreamMoved:
                history = await self._streams.load(stream)
        raise Contended

    async def decline(self, stream: UUID, wish: Authorize, failure: Failure, context: Context) -> Answer:
        """Record a wish to pay that is refused here, before the provider is asked: others want to know of it, too.

        Raises what `carry_out` does.
        """
        async with self._streams.turn(stream):
            history = await self._streams.load(stream)
            for _ in range(MAX_CONFLICTS):
                started = history.started(wish.operation)
                if started is not None:
                    return await self._asked_before(history, started, wish, context)
                begun = decide(history.payment, wish)
                ended = decide(reduce(evolve, begun, history.payment), RecordFailed(wish.operation, failure, NOT_SENT))
                asked = self._fingerprints(wish)[0]
                try:
                    history = await self._streams.append(history, begun + ended, context, wish.operation, asked)
                    return _answer(history, wish.operation)
                except StreamMoved:
                    history = await self._streams.load(stream)
        raise Contended

    async def returned(self, stream: UUID, context: Context) -> Answer:
        """The cardholder came back from authentication: learn from the provider what became of it.

        Raises PaymentNotFound or StoreUnavailable.
        """
        history = await self.history(stream)
        payment = history.payment
        if payment is not None and payment.phase is Phase.ACTION_REQUIRED:
            # If nothing can be learned now, whoever follows the provider's events will.
            with suppress(NotLearned, Contended):
                history = await self._settlement.learn(stream, context)
        assert payment is not None  # noqa: S101  it was found
        return _answer(history, payment.authorization)

    async def find(self, stream: UUID) -> History:
        """Every fact of a payment; none if there is no such payment. Raises StoreUnavailable."""
        return await self._streams.load(stream)

    async def history(self, stream: UUID) -> History:
        """Every fact of a payment. Raises PaymentNotFound or StoreUnavailable."""
        history = await self._streams.load(stream)
        if history.payment is None:
            raise PaymentNotFound
        return history

    async def _asked_before(self, history: History, started: Envelope, wish: Wish, context: Context) -> Answer:
        if started.fingerprint not in self._fingerprints(wish):
            raise KeyReused
        operation = wish.operation
        answer = _answer(history.after(operation), operation, replayed=True)
        abandoned = self._clock() - started.at > ABANDONED_AFTER
        if answer.outcome == "open" and abandoned and self._settlement.key_lives(history, operation):
            self._provider_answers()
            return await self._performed(history, operation, context)
        return answer

    async def _performed(self, history: History, operation: str, context: Context) -> Answer:
        settled = await self._settlement.perform(history, operation, context)
        return _answer(settled.after(operation), operation)

    def _provider_answers(self) -> None:
        """Asked before an intent is recorded: what cannot be tried now is better not begun."""
        wait_s = self._gateway.unavailable_s()
        if wait_s is not None:
            raise ProviderUnavailable(wait_s)

    def _fingerprints(self, wish: Wish) -> tuple[str, ...]:
        """Under the key in force, and under those it replaced."""
        return tuple(fingerprint(wish, key) for key in self._fingerprint_keys)


def _answer(history: History, operation: str, *, replayed: bool = False) -> Answer:
    snapshot = history.snapshot()
    payment = snapshot.payment
    waiting = payment.phase is Phase.ACTION_REQUIRED and operation == payment.authorization
    return Answer(snapshot, "waiting" if waiting else payment.operations[operation].outcome, replayed)
