"""What happened to a payment at the provider without us: a chargeback, a movement made by hand, a refund undone."""

from typing import assert_never

from domain.errors import OperationInFlight, OutcomeMismatch
from domain.money import Money
from domain.payment import Payment
from domain.payment_commands import Adopt, RecordCaptured, RecordDispute, RecordRefunded, RecordReversed, RecordVoided
from domain.payment_facts import (
    Captured,
    CaptureStarted,
    DisputeLost,
    DisputeOpened,
    DisputeWon,
    Failed,
    PaymentFact,
    Refunded,
    RefundStarted,
    Voided,
    VoidStarted,
)


def without_us(payment: Payment, learned: Adopt | RecordDispute | RecordReversed) -> tuple[PaymentFact, ...]:
    """The facts that tell it, or none if it is known. Raises a Refusal when it does not fit the history."""
    match learned:
        case Adopt():
            return _adopted(payment, learned.movement)
        case RecordDispute():
            return _disputed(payment, learned)
        case RecordReversed():
            return _reversed(payment, learned)
        case _:
            assert_never(learned)


def _adopted(payment: Payment, movement: RecordCaptured | RecordVoided | RecordRefunded) -> tuple[PaymentFact, ...]:
    """Intent and outcome at once: whoever wished for it did not ask us."""
    name = movement.operation
    if name in payment.operations:
        return ()
    match movement:
        case RecordCaptured():
            no_more_than(payment.capturable, movement)
            started: PaymentFact = CaptureStarted(name, movement.amount, movement.final)
            return started, Captured(name, movement.amount, movement.final, movement.charge, movement.evidence)
        case RecordVoided():
            if not payment.capturable:
                return ()  # there is nothing that could have been released
            for capture, _ in payment.in_flight("capture"):  # whether that money was taken or released is not known yet
                raise OperationInFlight(operation=capture, kind="capture")
            return VoidStarted(name), Voided(name, payment.capturable, movement.evidence)
        case RecordRefunded():
            no_more_than(payment.refundable, movement)
            started = RefundStarted(name, movement.amount)
            return started, Refunded(name, movement.amount, movement.refund, movement.evidence)
        case _:
            assert_never(movement)


def no_more_than(available: Money, movement: RecordCaptured | RecordRefunded) -> None:
    if movement.amount > available:
        raise OutcomeMismatch(
            operation=movement.operation, expected=f"at most {available}", confirmed=str(movement.amount)
        )


def _disputed(payment: Payment, told: RecordDispute) -> tuple[PaymentFact, ...]:
    """However late we hear of a dispute, its history begins with its opening."""
    known = payment.disputes.get(told.dispute)
    opened = () if known else (DisputeOpened(told.dispute, told.amount, told.code, told.evidence),)
    if told.outcome == "open" or (known and known.outcome == told.outcome):
        return opened
    ended = DisputeWon if told.outcome == "won" else DisputeLost
    return (*opened, ended(told.dispute, told.evidence))


def _reversed(payment: Payment, undone: RecordReversed) -> tuple[PaymentFact, ...]:
    operation = payment.operations.get(undone.operation)
    if operation is None or operation.kind != "refund":
        raise OutcomeMismatch(operation=undone.operation, expected="a refund of this payment", confirmed="none")
    if operation.outcome != "done":
        return ()
    return (Failed(undone.operation, "refund", undone.failure, undone.evidence),)
