"""Acting on what was intended, and recording what came of it: by our own call's answer, or by looking.

Nothing is held open meanwhile: no transaction, no lock, no thread.
"""

import logging
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from uuid import UUID

from application.event_store import StoreUnavailable, StreamMoved
from application.gateway import Absent, PaymentGateway, Standing, Unknown, instruction_for
from application.history import History
from application.payment_stream import Context, PaymentStreams
from application.standing import missing_facts, never_begun
from domain.errors import OutcomeMismatch, Refusal
from domain.payment_commands import Outcome
from domain.payment_decisions import decide
from domain.payment_facts import PaymentFact

log = logging.getLogger(__name__)

# How often something is decided anew because other writers were faster, before the caller is asked to try again.
MAX_CONFLICTS = 8
# An operation that is older than this and still open has lost its worker: the gateway's own deadline is shorter.
ABANDONED_AFTER = timedelta(seconds=45)
# Stripe keeps an idempotency key for at least 24 hours; after that the same key would be a new charge.
KEY_LIFETIME = timedelta(hours=23)
# From this age on, what the provider does not show of an operation never happened. In the hour between, a request that
# was sent while the key lived has arrived or ended, and the provider's search shows what it made.
OVER_AFTER = timedelta(hours=24)

LeftOpen = Callable[[UUID, str, str], Awaitable[None]]


class Contended(Exception):  # noqa: N818  it says what is so
    """Other writers were faster, several times. Nothing was recorded; asking again is safe."""


class NotLearned(Exception):  # noqa: N818  it says what is so
    """How the payment stands at the provider could not be learned now."""


class Contradiction(NotLearned):
    """How it stands there cannot be brought together with our history. If it stays so, a person must look."""


async def _nobody_told(_payment: UUID, _operation: str, _reason: str) -> None:
    """Whoever looks for what is open finds it later by itself."""


class Settlement:
    """One instance a process. `left_open` hears of each operation that our call did not settle, and must not raise."""

    def __init__(
        self,
        streams: PaymentStreams,
        gateway: PaymentGateway,
        clock: Callable[[], datetime],
        left_open: LeftOpen = _nobody_told,
    ) -> None:
        self._streams = streams
        self._gateway = gateway
        self._clock = clock
        self._left_open = left_open

    def key_lives(self, history: History, operation: str) -> bool:
        """Whether the provider still knows the operation's key: only then may it be sent again."""
        started = history.started(operation)
        return started is not None and self._clock() - started.at < KEY_LIFETIME

    async def perform(self, history: History, operation: str, context: Context) -> History:
        """Carry an open operation out, under its own key, and record what came of it.

        Whatever cannot be learned or recorded leaves it open. Only for an operation whose key lives.
        """
        assert history.payment is not None  # noqa: S101  the operation is recorded in it
        outcome = await self._gateway.perform(instruction_for(history.stream, operation, history.payment))
        reason = "not recorded"
        try:
            if not isinstance(outcome, Unknown):
                return await self._record(history, operation, outcome, context)
            reason = outcome.reason
        except OutcomeMismatch as mismatch:
            log.error("the provider's answer contradicts the intent: %r", mismatch)  # noqa: TRY400  no trace needed
            reason = "contradiction"
        except (StoreUnavailable, Contended) as error:
            reason = type(error).__name__
        log.warning("operation left open", extra={"payment": str(history.stream), "operation": operation})
        await self._left_open(history.stream, operation, reason)
        return history

    async def learn(self, stream: UUID, context: Context) -> History:
        """Look how the payment stands at the provider and record what the ledger lacks. Moves nothing.

        Raises NotLearned, Contended or StoreUnavailable.
        """
        for _ in range(MAX_CONFLICTS):
            # In this order: what the provider answers is then at least as new as the history it is compared with.
            history = await self._streams.load(stream)
            if history.payment is None:
                return history
            payment, asked_at = history.payment, self._clock()
            standing = await self._gateway.standing(stream, payment.authorization, payment.payment_intent)
            facts = _lacking(history, standing, asked_at)
            if not facts:
                return history
            try:
                return await self._streams.append(history, facts, context)
            except StreamMoved:
                continue
        raise Contended

    async def _record(self, history: History, operation: str, outcome: Outcome, context: Context) -> History:
        async with self._streams.turn(history.stream) as waited:
            if waited:
                history = await self._streams.load(history.stream)
            for _ in range(MAX_CONFLICTS):
                facts = decide(history.payment, outcome)
                try:
                    return await self._streams.append(history, facts, context, operation) if facts else history
                except StreamMoved:
                    history = await self._streams.load(history.stream)
        raise Contended


def _lacking(history: History, standing: Standing | Absent | Unknown, asked_at: datetime) -> tuple[PaymentFact, ...]:
    """`asked_at` is before the provider was asked: what was not over then may have happened since."""
    payment = history.payment
    assert payment is not None  # noqa: S101  asked before

    def over(operation: str) -> bool:
        started = history.started(operation)
        return started is None or asked_at - started.at >= OVER_AFTER

    if isinstance(standing, Unknown):
        raise NotLearned(standing.reason)
    try:
        if isinstance(standing, Standing):
            return missing_facts(payment, standing, over)
        if payment.payment_intent is None and over(payment.authorization):
            return decide(payment, never_begun(payment.authorization, standing.evidence))
    except Refusal as refusal:
        raise Contradiction(repr(refusal)) from refusal
    if payment.payment_intent is None:
        raise NotLearned("the provider knows nothing of it yet")
    raise Contradiction("the provider knows nothing of it any more")
