"""The use cases of a payment: authorize, capture, void, refund, and the cardholder's return.

Intent, act, outcome: a wish is first recorded as started, then the provider is asked with a key of its own, then its
answer is recorded with its evidence. Nothing is held open meanwhile: no transaction, no lock, no thread.
"""

import hmac
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Literal, Protocol, TypeVar
from uuid import UUID, uuid5

from msgspec import Struct, json

from application.event_store import Ledger, Loaded, StoreUnavailable, StreamMoved
from application.gateway import PaymentGateway, Unknown, instruction_for
from application.history import History
from domain.envelope import Envelope
from domain.errors import OutcomeMismatch
from domain.payment import PaymentAt, Phase
from domain.payment_commands import Authorize, Outcome, Wish
from domain.payment_decisions import decide
from domain.payment_facts import AuthorizationStarted, PaymentFact

log = logging.getLogger(__name__)

# The root of every derived id. It never changes: the same caller and key must always name the same payment.
NAMESPACE = UUID("9d5c7a52-93c1-5d0f-9f3e-6f3b6c0e6f11")

# How often a wish is decided anew because other writers were faster, before the caller is asked to try again.
MAX_CONFLICTS = 8
# An operation that is older than this and still open has lost its worker: the gateway's own deadline is shorter.
ABANDONED_AFTER = timedelta(seconds=90)
# Stripe keeps an idempotency key for at least 24 hours; after that the same key would be a new charge.
KEY_LIFETIME = timedelta(hours=23)


class PaymentNotFound(Exception):  # noqa: N818  it says what is so
    """There is no such payment."""


class KeyReused(Exception):  # noqa: N818  it says what was found
    """The idempotency key names another wish already."""


class VersionMoved(Exception):  # noqa: N818  it says what was found
    """The payment is not at a version the caller named."""

    def __init__(self, version: int) -> None:
        super().__init__(version)
        self.version = version


class Contended(Exception):  # noqa: N818  it says what is so
    """Other writers were faster, several times. Nothing was recorded; asking again is safe."""


class Context(Struct, frozen=True):
    """Who asks, in which conversation. `correlation` follows the request, `causation` names what led to it."""

    actor: str
    correlation: str
    causation: str | None = None


class Answer(Struct, frozen=True):
    """The payment as the operation left it.

    `outcome` is `open` while the provider's answer is not known and `waiting` while the cardholder must act;
    `replayed` when the wish had been asked before.
    """

    at: PaymentAt
    outcome: Literal["done", "failed", "open", "waiting"]
    replayed: bool = False


T = TypeVar("T")


class RunBlocking(Protocol):
    """Runs a blocking call elsewhere (a bounded pool of threads) and waits for it."""

    def __call__(self, call: Callable[[], T], /) -> Awaitable[T]: ...


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
    """One instance a process. `clock` gives the time with its zone; `run` takes blocking calls off the event loop.

    `fingerprint_keys`: the one in force, then those it replaced.
    """

    def __init__(
        self,
        ledger: Ledger,
        gateway: PaymentGateway,
        clock: Callable[[], datetime],
        run: RunBlocking,
        fingerprint_keys: tuple[bytes, ...],
    ) -> None:
        self._ledger = ledger
        self._gateway = gateway
        self._clock = clock
        self._run = run
        self._fingerprint_keys = fingerprint_keys

    async def carry_out(
        self, stream: UUID, wish: Wish, context: Context, versions: frozenset[int] | None = None
    ) -> Answer:
        """Carry out a wish once, however often it is asked under the same operation.

        `versions`: the caller insists that the payment is at one of them. Raises a Refusal, PaymentNotFound,
        KeyReused, VersionMoved, Contended or StoreUnavailable; nothing was recorded then and nobody was asked.
        """
        # A new payment has no history: its first append finds out whether that is so.
        history = History(stream) if isinstance(wish, Authorize) and versions is None else await self._load(stream)
        for _ in range(MAX_CONFLICTS):
            started = history.started(wish.operation)
            if started is not None:
                return await self._asked_before(history, started, wish, context)
            if history.payment is None and not isinstance(wish, Authorize):
                raise PaymentNotFound
            if versions is not None and history.version not in versions:
                raise VersionMoved(history.version)
            facts = decide(history.payment, wish)
            try:
                begun = await self._append(history, facts, wish.operation, context, self._fingerprints(wish)[0])
            except StreamMoved:
                history = await self._load(stream)
            else:
                return await self._act(begun, wish.operation, context)
        raise Contended

    async def returned(self, stream: UUID, context: Context) -> Answer:
        """The cardholder came back from authentication: learn from the provider what became of it.

        Raises PaymentNotFound or StoreUnavailable.
        """
        history = await self._load(stream)
        payment = history.payment
        if payment is None:
            raise PaymentNotFound
        if payment.phase is not Phase.ACTION_REQUIRED or payment.payment_intent is None:
            return _answer(history, payment.authorization)
        outcome = await self._gateway.look_up(stream, payment.authorization, payment.payment_intent)
        return await self._conclude(history, payment.authorization, outcome, context)

    async def history(self, stream: UUID) -> History:
        """Every fact of a payment. Raises PaymentNotFound or StoreUnavailable."""
        history = await self._load(stream)
        if history.payment is None:
            raise PaymentNotFound
        return history

    # --- Intent, act, outcome ------------------------------------------------------------------------------------

    async def _asked_before(self, history: History, started: Envelope, wish: Wish, context: Context) -> Answer:
        if started.fingerprint not in self._fingerprints(wish):
            raise KeyReused
        answer = _answer(history.after(wish.operation), wish.operation, replayed=True)
        age = self._clock() - started.at
        if answer.outcome == "open" and ABANDONED_AFTER < age < KEY_LIFETIME:
            return await self._act(history, wish.operation, context)
        return answer

    async def _act(self, history: History, operation: str, context: Context) -> Answer:
        assert history.payment is not None  # noqa: S101  the operation was just recorded
        outcome = await self._gateway.perform(instruction_for(history.stream, operation, history.payment))
        return await self._conclude(history, operation, outcome, context)

    async def _conclude(self, history: History, operation: str, outcome: Outcome | Unknown, context: Context) -> Answer:
        """Record what the provider answered. Whatever cannot be recorded leaves the operation open, and says so."""
        if isinstance(outcome, Unknown):
            log.warning(
                "outcome unknown",
                extra={"payment": str(history.stream), "operation": operation, "reason": outcome.reason},
            )
            return _answer(history, operation)
        try:
            return await self._record(history, operation, outcome, context)
        except OutcomeMismatch as mismatch:
            log.error("the provider's answer contradicts the intent: %r", mismatch)  # noqa: TRY400  no trace needed
        except (StoreUnavailable, Contended):
            log.warning("outcome not recorded", extra={"payment": str(history.stream), "operation": operation})
        return _answer(history, operation)

    async def _record(self, history: History, operation: str, outcome: Outcome, context: Context) -> Answer:
        for _ in range(MAX_CONFLICTS):
            facts = decide(history.payment, outcome)
            try:
                concluded = await self._append(history, facts, operation, context) if facts else history
            except StreamMoved:
                history = await self._load(history.stream)
            else:
                return _answer(concluded.after(operation), operation)
        raise Contended

    def _fingerprints(self, wish: Wish) -> tuple[str, ...]:
        """Under the key in force, and under those it replaced."""
        return tuple(fingerprint(wish, key) for key in self._fingerprint_keys)

    # --- Store ---------------------------------------------------------------------------------------------------

    async def _load(self, stream: UUID) -> History:
        return History.of(stream, await self._run(lambda: self._ledger.load(stream)))

    async def _append(
        self,
        history: History,
        facts: tuple[PaymentFact, ...],
        operation: str,
        context: Context,
        asked: str | None = None,
    ) -> History:
        now = self._clock()
        started = history.started(operation)
        person = _person(history, facts)
        causation = started.id if started else context.causation
        envelopes = [
            Envelope(
                stream=history.stream,
                version=history.version + place,
                fact=fact,
                at=now,
                actor=context.actor,
                operation=operation,
                correlation=context.correlation,
                causation=causation,
                fingerprint=asked,
                person=person,
            )
            for place, fact in enumerate(facts, 1)
        ]
        stored: Loaded = await self._run(lambda: self._ledger.append(envelopes, history.tail))
        return history.followed_by(stored)


def _person(history: History, facts: tuple[PaymentFact, ...]) -> str:
    """Whom the free text of a payment is about: its customer, or nobody but the payment itself."""
    begun = facts[0] if isinstance(facts[0], AuthorizationStarted) else history.payment
    return (begun and begun.customer) or f"payment:{history.stream}"


def _answer(history: History, operation: str, *, replayed: bool = False) -> Answer:
    snapshot = history.snapshot()
    payment = snapshot.payment
    waiting = payment.phase is Phase.ACTION_REQUIRED and operation == payment.authorization
    return Answer(snapshot, "waiting" if waiting else payment.operations[operation].outcome, replayed)
