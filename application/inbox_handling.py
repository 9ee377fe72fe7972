"""Handling what stands in the inbox: looking how the payment or customer that an event is about stands by now.

An event is taken as a hint that something may have moved, never as the movement itself: what is recorded is how it
stands at the provider now. So no order, repetition or loss of events can lead anywhere else.
"""

import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from application.event_store import StoreUnavailable
from application.gateway import Absent, PaymentGateway, Unknown
from application.history import History
from application.inbox import OF_CUSTOMERS, Entry, State, Verdict
from application.payment_stream import Context, PaymentStreams
from application.recovery import pause
from application.settlement import ABANDONED_AFTER, Contended, Contradiction, NotLearned, Settlement
from domain.payment import Payment

log = logging.getLogger(__name__)

ACTOR = "provider"
LONGEST_WAIT = timedelta(seconds=20)
# A contradiction may be the trace of a movement under way; one that outlasts what recovery may need is for a person.
MAX_CONTRADICTIONS = 16
UNMATCHED = Verdict("unmatched", "names no payment of ours")
# Of entries that are handled together the one with most left to do tells what becomes of all.
_PRESSING: tuple[State, ...] = ("ignored", "unmatched", "done", "waiting", "stuck")

# What became of entries about one customer; nothing when it is none of ours. Raises NotLearned, Contended or
# StoreUnavailable.
OfCustomers = Callable[[Sequence[Entry]], Awaitable[Verdict | None]]


async def no_customers(_: Sequence[Entry]) -> Verdict | None:
    """Nobody is a customer."""
    return None


class Inbox:
    """Raises nothing: what could not be handled waits, and says why."""

    def __init__(
        self,
        streams: PaymentStreams,
        settlement: Settlement,
        gateway: PaymentGateway,
        clock: Callable[[], datetime],
        of_customers: OfCustomers = no_customers,
    ) -> None:
        self._streams = streams
        self._settlement = settlement
        self._gateway = gateway
        self._clock = clock
        self._of_customers = of_customers

    async def handle(self, entries: Sequence[Entry]) -> Verdict:
        """Bring up to date what these entries are about, which all name the same object."""
        attempts = max(entry.attempts for entry in entries)
        theirs = [entry for entry in entries if entry.type.startswith(OF_CUSTOMERS)]
        payments = defaultdict[object, list[Entry]](list)
        for entry in entries:
            if entry not in theirs:
                payments[entry.payment or entry.payment_intent].append(entry)
        verdicts = []
        for group in payments.values():
            told = await self._told(self._of_payment(group, attempts), attempts)
            if told == UNMATCHED:  # then it may be for an invoice of a customer's
                theirs += group
            else:
                verdicts.append(told)
        if theirs:
            verdicts.append(await self._told(self._of_customers(theirs), attempts))
        return max(verdicts, key=lambda verdict: _PRESSING.index(verdict.state))

    async def _told(self, handled: Awaitable[Verdict | None], attempts: int) -> Verdict:
        try:
            return await handled or UNMATCHED
        except Contradiction as error:
            return Verdict("stuck" if attempts >= MAX_CONTRADICTIONS else "waiting", str(error), pause(attempts))
        except (NotLearned, Contended, StoreUnavailable) as error:
            return Verdict("waiting", f"{type(error).__name__}: {error}", pause(attempts, longest=LONGEST_WAIT))
        except Exception as error:  # what cannot even be read must not hold up the others
            log.exception("events could not be handled")
            return Verdict("waiting", type(error).__name__, pause(attempts, longest=LONGEST_WAIT))

    async def _of_payment(self, entries: Sequence[Entry], attempts: int) -> Verdict:
        first = entries[0]
        payment = await self._payment(first)
        if isinstance(payment, Verdict):
            return payment
        history = await self._streams.load(payment)
        if history.payment is None:
            return Verdict("unmatched", "is marked with a payment that is not in this ledger")
        if all(_known(history.payment, entry.operation) for entry in entries):
            return Verdict("done", "our own call")
        if attempts == 1 and self._somebody_acts(history):
            return Verdict("waiting", "an operation is under way", pause(0))
        await self._settlement.learn(payment, Context(ACTOR, first.event_id, first.event_id))
        return Verdict("done")

    async def _payment(self, entry: Entry) -> UUID | Verdict:
        """An object that was made at the provider by hand bears no mark of ours, but what it was made for does."""
        if entry.payment is not None:
            return entry.payment
        found = await self._gateway.payment_of(entry.payment_intent or "")
        if isinstance(found, Unknown):
            return Verdict("waiting", found.reason, pause(entry.attempts, longest=LONGEST_WAIT))
        return UNMATCHED if isinstance(found, Absent) else found

    def _somebody_acts(self, history: History) -> bool:
        """Whether a worker is probably about to record what this event is about."""
        assert history.payment is not None  # noqa: S101  asked before
        now = self._clock()
        started = (
            history.started(name)
            for name, operation in history.payment.operations.items()
            if operation.outcome == "open"
        )
        acting = (one for one in started if one is not None and now - one.at < ABANDONED_AFTER)
        waits_for_us = history.payment.next_action is None
        return waits_for_us and any(acting)


def _known(payment: Payment, operation: str | None) -> bool:
    """Whether it only repeats what the reply to our own call has told already."""
    named = payment.operations.get(operation) if operation else None
    return named is not None and named.outcome == "done"
