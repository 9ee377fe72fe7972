"""How a payment stands at the provider, and what must be recorded so that the ledger says the same.

The order in which we hear of things does not matter: what is compared is how both stand now.
"""

from collections.abc import Callable, Iterator
from functools import reduce

from application.gateway import RefundSeen, Standing, Unknown
from domain.errors import OutcomeMismatch
from domain.payment import Operation, Payment, Phase, evolve
from domain.payment_commands import (
    Adopt,
    Learned,
    RecordActionRequired,
    RecordCaptured,
    RecordExpired,
    RecordFailed,
    RecordRefunded,
    RecordReversed,
    RecordVoided,
)
from domain.payment_decisions import decide
from domain.payment_facts import Failure, PaymentFact, Stage

# Steps from one history to how the provider has it; more would mean that we go in circles.
MAX_STEPS = 500
NOT_CARRIED_OUT = Failure("not_carried_out", None, "the provider never carried it out", retryable=True)
EXPIRED = Failure("charge_expired_for_capture", None, "the authorization had run out", retryable=False)
RELEASED = Failure("canceled", None, "the authorization was released at the provider", retryable=False)


def missing_facts(
    payment: Payment, standing: Standing, over: Callable[[str], bool] = lambda _: False
) -> tuple[PaymentFact, ...]:
    """The facts that bring the payment to where it stands at the provider.

    `over` tells of an operation that no request of ours can carry out any more: what the provider does not show of it
    has not happened. Raises OutcomeMismatch (or another Refusal) when the two histories cannot be brought together.
    """
    found: tuple[PaymentFact, ...] = ()
    for _ in range(MAX_STEPS):
        new = next(filter(None, (decide(payment, learned) for learned in _learned(payment, standing, over))), None)
        if new is None:
            return found
        payment = reduce(evolve, new, payment)
        found += new
    raise OutcomeMismatch(operation=payment.authorization, expected="an end", confirmed="none")


def never_begun(operation: str, evidence: str) -> RecordFailed:
    """An authorization of which the provider knows nothing, and that no request of ours can begin any more."""
    return RecordFailed(operation, NOT_CARRIED_OUT, evidence)


def _learned(payment: Payment, standing: Standing, over: Callable[[str], bool]) -> Iterator[Learned]:
    if not _the_same(payment, standing):
        return
    yield from _authorization(payment, standing)
    if payment.phase in {Phase.AUTHORIZED, Phase.VOIDED, Phase.EXPIRED}:
        yield from _captures(payment, standing)
        yield from _release(payment, standing)
        yield from _not_done(payment, standing, over)
        for refund in standing.refunds:
            yield from _refund(payment, refund, standing.evidence)
    if payment.phase is Phase.DECLINED:
        yield from _given_up(payment, standing, over)
    yield from standing.disputes


def _the_same(payment: Payment, standing: Standing) -> bool:
    """Whether it is about the present attempt. One that was given up must not have come to anything."""
    if payment.payment_intent == standing.payment_intent:
        if payment.phase is Phase.DECLINED and standing.captured:
            raise OutcomeMismatch(
                operation=payment.authorization, expected="declined", confirmed=str(standing.captured)
            )
        return True
    if standing.operation == payment.authorization and payment.phase is Phase.AUTHORIZING:
        return True
    if standing.captured:
        raise OutcomeMismatch(
            operation=standing.operation or "none",
            expected=str(payment.payment_intent),
            confirmed=standing.payment_intent,
        )
    return False


def _authorization(payment: Payment, standing: Standing) -> Iterator[Learned]:
    if payment.operations[payment.authorization].outcome != "open":
        return
    told = standing.authorization
    if isinstance(told, Unknown) or (isinstance(told, RecordActionRequired) and payment.phase is Phase.ACTION_REQUIRED):
        return
    if standing.released in {"cancelled", "expired"}:
        for name, _ in payment.in_flight("void"):
            yield RecordVoided(name, standing.evidence)
        if standing.released == "expired":
            yield RecordExpired(standing.evidence)
    yield told


def _captures(payment: Payment, standing: Standing) -> Iterator[Learned]:
    if standing.captured < payment.captured:
        raise OutcomeMismatch(
            operation=payment.authorization, expected=str(payment.captured), confirmed=str(standing.captured)
        )
    more = standing.captured - payment.captured
    if not more:
        return
    final = standing.released != "no"
    for name, _ in payment.in_flight("capture"):
        yield RecordCaptured(name, more, final, standing.charge, standing.evidence)
    outside = f"{standing.charge}:captured:{standing.captured.minor}"
    yield Adopt(RecordCaptured(outside, more, final, standing.charge, standing.evidence))


def _release(payment: Payment, standing: Standing) -> Iterator[Learned]:
    """What was reserved and not taken is gone. A capture that was asked for meanwhile came too late."""
    if standing.released == "no" or not payment.capturable or standing.captured != payment.captured:
        return
    for name, _ in payment.in_flight("void"):
        yield RecordVoided(name, standing.evidence)
    expired = standing.released == "expired"
    for name, _ in payment.in_flight("capture"):
        yield RecordFailed(name, EXPIRED if expired else RELEASED, standing.evidence, expired=expired)
    if expired:
        yield RecordExpired(standing.evidence)
    yield Adopt(RecordVoided(f"{standing.payment_intent}:released", standing.evidence))


def _not_done(payment: Payment, standing: Standing, over: Callable[[str], bool]) -> Iterator[Learned]:
    kinds: tuple[Stage, ...] = ("capture", "void", "refund")
    shown = {refund.operation for refund in standing.refunds}
    for kind in kinds:
        for name, _ in payment.in_flight(kind):
            if name not in shown and (over(name) or _impossible(payment, standing, kind)):
                yield RecordFailed(name, NOT_CARRIED_OUT, standing.evidence)


def _given_up(payment: Payment, standing: Standing, over: Callable[[str], bool]) -> Iterator[Learned]:
    """A release that was asked for while the cardholder was waited for, who has failed to authenticate meanwhile."""
    for name, _ in payment.in_flight("void"):
        if standing.released == "cancelled":
            yield RecordVoided(name, standing.evidence)
        elif over(name):
            yield RecordFailed(name, NOT_CARRIED_OUT, standing.evidence)


def _impossible(payment: Payment, standing: Standing, kind: Stage) -> bool:
    """A capture or void of what is gone already, in a way that the ledger knows of."""
    return kind != "refund" and standing.released != "no" and not payment.capturable


def _refund(payment: Payment, refund: RefundSeen, evidence: str) -> Iterator[Learned]:
    name, outside = refund.operation or "", f"refund:{refund.id}"
    ours = payment.operations.get(name)
    given_up = ours is not None and ours.outcome == "failed" and refund.failure is None
    if ours is None or ours.kind != "refund" or given_up or outside in payment.operations:
        name, ours = outside, payment.operations.get(outside)
    if refund.failure is None:
        made = RecordRefunded(name, refund.amount, refund.id, evidence)
        yield made if ours else Adopt(made)
    elif ours is not None:
        yield from _undone(name, ours, refund.failure, evidence)


def _undone(name: str, operation: Operation, failure: Failure, evidence: str) -> Iterator[Learned]:
    if operation.outcome == "open":
        yield RecordFailed(name, failure, evidence)
    elif operation.outcome == "done":
        yield RecordReversed(name, failure, evidence)
