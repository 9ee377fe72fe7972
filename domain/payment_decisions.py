"""What may be decided about a payment: the table of legal (state, wish) pairs, and the recording of outcomes."""

from typing import assert_never

from domain.errors import (
    AlreadyStarted,
    CurrencyMismatch,
    ExceedsAuthorized,
    ExceedsCaptured,
    IllegalTransition,
    OperationInFlight,
    OutcomeMismatch,
    TooManyOperations,
)
from domain.money import Money, chargeable
from domain.payment import Operation, Payment, Phase
from domain.payment_commands import (
    Adopt,
    Authorize,
    Capture,
    Outcome,
    PaymentCommand,
    RecordActionRequired,
    RecordAuthorized,
    RecordCaptured,
    RecordDispute,
    RecordExpired,
    RecordFailed,
    RecordRefunded,
    RecordReversed,
    RecordVoided,
    Refund,
    Void,
    Wish,
)
from domain.payment_facts import (
    ActionRequired,
    AuthorizationStarted,
    Authorized,
    Captured,
    CaptureStarted,
    Expired,
    Failed,
    PaymentFact,
    Refunded,
    RefundStarted,
    Stage,
    Voided,
    VoidStarted,
)
from domain.payment_outside import no_more_than, without_us

# A payment with more operations than this is a loop in somebody's code; its stream would only get slower to load.
MAX_OPERATIONS = 200
# A payment that is full can still be ended: all of its money can go back, and be tried again when that fails.
MAX_ENDINGS = 50


def decide(payment: Payment | None, command: PaymentCommand) -> tuple[PaymentFact, ...]:
    """Answer a command with facts, or refuse it. Asking twice decides nothing new.

    Raises a Refusal: of a wish, PaymentRefusal or InvalidMoney; of an outcome that contradicts its intent,
    OutcomeMismatch.
    """
    match payment, command:
        case None, Authorize():
            chargeable(command.amount.minor, command.amount.currency)
            return (_started(command, attempt=1),)
        case None, _:
            raise IllegalTransition(command=type(command).__name__, status="none")
        case Payment(), Authorize() | Capture() | Void() | Refund() if command.operation in payment.operations:
            return ()
        case Payment(), Authorize() | Capture() | Void() | Refund() if len(payment.operations) >= _limit(command):
            raise TooManyOperations(limit=_limit(command))
        case Payment(), Authorize():
            return _authorize_again(payment, command)
        case Payment(), Capture():
            return _capture(payment, command)
        case Payment(), Void():
            return _void(payment, command)
        case Payment(), Refund():
            return _refund(payment, command)
        case Payment(), Adopt() | RecordDispute() | RecordReversed():
            return without_us(payment, command)
        case _:
            return _record(payment, command)


def _limit(wish: Wish) -> int:
    ends = isinstance(wish, Void | Refund) and getattr(wish, "amount_minor", None) is None
    return MAX_OPERATIONS + MAX_ENDINGS * ends


def _started(command: Authorize, attempt: int) -> AuthorizationStarted:
    return AuthorizationStarted(
        operation=command.operation,
        attempt=attempt,
        amount=command.amount,
        capture=command.capture,
        payment_method=command.payment_method,
        customer=command.customer,
        order=command.order,
        description=command.description,
        metadata=command.metadata,
        channel=command.channel,
    )


def _authorize_again(payment: Payment, command: Authorize) -> tuple[PaymentFact, ...]:
    if payment.phase is not Phase.DECLINED and not _came_to_nothing(payment, command):
        raise AlreadyStarted(status=payment.status)
    if command.amount.currency != payment.amount.currency:
        raise CurrencyMismatch(expected=payment.amount.currency, given=command.amount.currency)
    _nothing_in_flight(payment, "void")  # its confirmation would be taken for the release of the new reserve
    chargeable(command.amount.minor, command.amount.currency)
    return (_started(command, attempt=payment.attempt + 1),)


def _came_to_nothing(payment: Payment, command: Authorize) -> bool:
    """Whether the order may be paid by another attempt. Of this one nothing but its end can be heard any more."""
    ended = payment.phase in {Phase.VOIDED, Phase.EXPIRED} and not payment.captured
    return ended and command.order is not None and command.order == payment.order


def _capture(payment: Payment, command: Capture) -> tuple[PaymentFact, ...]:
    if payment.phase is not Phase.AUTHORIZED or not payment.capturable:
        raise IllegalTransition(command="Capture", status=payment.status)
    _nothing_in_flight(payment, "capture", "void")
    amount = _asked(command.amount_minor, payment.capturable)
    if amount > payment.capturable:
        raise ExceedsAuthorized(asked=amount.minor, capturable=payment.capturable.minor, currency=amount.currency)
    final = amount == payment.capturable or not payment.multicapture
    return (CaptureStarted(operation=command.operation, amount=amount, final=final, reason=command.reason),)


def _void(payment: Payment, command: Void) -> tuple[PaymentFact, ...]:
    reserved = payment.phase is Phase.AUTHORIZED and payment.capturable
    if not reserved and payment.phase is not Phase.ACTION_REQUIRED:
        raise IllegalTransition(command="Void", status=payment.status)
    _nothing_in_flight(payment, "capture", "void")
    return (VoidStarted(operation=command.operation, reason=command.reason),)


def _refund(payment: Payment, command: Refund) -> tuple[PaymentFact, ...]:
    if not payment.captured or payment.disputed:  # contested money is no longer ours to give back
        raise IllegalTransition(command="Refund", status=payment.status)
    left = payment.refundable
    for _, operation in payment.in_flight("refund"):
        left -= operation.amount  # money already on its way back is not there to be asked for again
    if not payment.refundable:
        raise IllegalTransition(command="Refund", status=payment.status)
    if not left:
        name, _ = payment.in_flight("refund")[0]
        raise OperationInFlight(operation=name, kind="refund")
    amount = _asked(command.amount_minor, left)
    if amount > left:
        raise ExceedsCaptured(asked=amount.minor, refundable=left.minor, currency=amount.currency)
    return (RefundStarted(operation=command.operation, amount=amount, reason=command.reason),)


def _asked(amount_minor: int | None, left: Money) -> Money:
    return left if amount_minor is None else chargeable(amount_minor, left.currency)


def _nothing_in_flight(payment: Payment, *kinds: Stage) -> None:
    for kind in kinds:
        for name, _ in payment.in_flight(kind):
            raise OperationInFlight(operation=name, kind=kind)


def _record(payment: Payment, outcome: Outcome) -> tuple[PaymentFact, ...]:
    if isinstance(outcome, RecordExpired):
        if not _expirable(payment):
            return ()
        _nothing_in_flight(payment, "capture")  # whether that money was taken or ran out is not known yet
        return (Expired(amount=payment.capturable, evidence=outcome.evidence),)
    operation = payment.operations.get(outcome.operation)
    if operation is None:
        raise OutcomeMismatch(operation=outcome.operation, expected="an operation of this payment", confirmed="none")
    if operation.outcome != "open":
        return ()
    kind = _OUTCOME_OF.get(type(outcome), operation.kind)
    if kind != operation.kind:
        raise OutcomeMismatch(operation=outcome.operation, expected=operation.kind, confirmed=kind)
    match outcome:
        case RecordAuthorized():
            _confirmed(outcome.operation, operation.amount, outcome.amount)
            return _authorized(outcome)
        case RecordActionRequired():
            return () if payment.phase is Phase.ACTION_REQUIRED else (_action_required(outcome),)
        case RecordCaptured():
            _confirmed(outcome.operation, operation.amount, outcome.amount)
            no_more_than(payment.authorized - payment.captured, outcome)
            return (Captured(outcome.operation, outcome.amount, outcome.final, outcome.charge, outcome.evidence),)
        case RecordVoided():
            return (Voided(outcome.operation, payment.capturable, outcome.evidence),)
        case RecordRefunded():
            _confirmed(outcome.operation, operation.amount, outcome.amount)
            no_more_than(payment.refundable, outcome)
            return (Refunded(outcome.operation, outcome.amount, outcome.refund, outcome.evidence),)
        case RecordFailed():
            return _failed(payment, operation, outcome)
        case _:
            assert_never(outcome)


# Which kind of operation an outcome answers; a failure answers any.
_OUTCOME_OF: dict[type[Outcome], Stage] = {
    RecordAuthorized: "authorize",
    RecordActionRequired: "authorize",
    RecordCaptured: "capture",
    RecordVoided: "void",
    RecordRefunded: "refund",
}


def _expirable(payment: Payment) -> bool:
    return payment.phase is Phase.ACTION_REQUIRED or (payment.phase is Phase.AUTHORIZED and bool(payment.capturable))


def _confirmed(operation: str, expected: Money, confirmed: Money) -> None:
    if expected != confirmed:
        raise OutcomeMismatch(operation=operation, expected=str(expected), confirmed=str(confirmed))


def _authorized(outcome: RecordAuthorized) -> tuple[PaymentFact, ...]:
    authorized = Authorized(
        operation=outcome.operation,
        amount=outcome.amount,
        payment_intent=outcome.payment_intent,
        charge=outcome.charge,
        card=outcome.card,
        expires_at=outcome.expires_at,
        multicapture=outcome.multicapture,
        evidence=outcome.evidence,
    )
    if not outcome.captured:
        return (authorized,)
    return (
        authorized,
        Captured(outcome.operation, outcome.amount, final=True, charge=outcome.charge, evidence=outcome.evidence),
    )


def _action_required(outcome: RecordActionRequired) -> ActionRequired:
    return ActionRequired(outcome.operation, outcome.payment_intent, outcome.next_action, outcome.evidence)


def _failed(payment: Payment, operation: Operation, outcome: RecordFailed) -> tuple[PaymentFact, ...]:
    failed = Failed(outcome.operation, operation.kind, outcome.failure, outcome.evidence, outcome.payment_intent)
    if outcome.expired and operation.kind != "refund" and _expirable(payment):
        return failed, Expired(amount=payment.capturable, evidence=outcome.evidence)
    return (failed,)
