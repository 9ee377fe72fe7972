"""What may be decided about a customer and its names: the table of legal (state, wish) pairs, and the outcomes."""

from typing import assert_never
from uuid import UUID

from domain.customer import Customer, Kind, Operation, email_name, name_of, user_name
from domain.customer_commands import (
    AddName,
    CustomerCommand,
    CustomerOutcome,
    RecordCard,
    RecordCardRemoved,
    RecordCreated,
    RecordRefused,
    Register,
    UpdateCard,
)
from domain.customer_facts import (
    CardRefused,
    CardRemoved,
    CardUpdated,
    CardUpdateStarted,
    CustomerCreated,
    CustomerFact,
    CustomerRefused,
    CustomerRegistered,
    NameAdded,
    NameClaimed,
    NameFact,
)
from domain.errors import (
    AlreadyNamed,
    AlreadyRegistered,
    CustomerBusy,
    CustomerNotReady,
    InvalidName,
    NameTaken,
    OutcomeMismatch,
    TooManyNames,
    TooManyUpdates,
)

# A customer with more operations than this is a loop in somebody's code; its stream would only get slower to load.
MAX_OPERATIONS = 1_000
# Somebody who moves to a new e-mail every other year stays one customer for a lifetime.
MAX_EMAILS = 20


def decide(customer: Customer | None, command: CustomerCommand) -> tuple[CustomerFact, ...]:
    """Answer a command with facts, or refuse it. Asking twice decides nothing new.

    Raises a Refusal: of a wish, CustomerRefusal; of an outcome that contradicts its intent or what is recorded,
    OutcomeMismatch.
    """
    match customer, command:
        case None, Register():
            return (_registered(command),)
        case None, _:
            raise CustomerNotReady(command=type(command).__name__, status="none")
        case Customer(), Register() | AddName() | UpdateCard() if command.operation in customer.operations:
            return ()
        case Customer(), Register() | AddName() | UpdateCard() if len(customer.operations) >= MAX_OPERATIONS:
            raise TooManyUpdates(limit=MAX_OPERATIONS)
        case Customer(), Register():
            return _register_again(customer, command)
        case Customer(), AddName():
            return _add_name(customer, command)
        case Customer(), UpdateCard():
            return _update_card(customer, command)
        case Customer(), RecordCardRemoved() | RecordCard(operation=None) if customer.provider_customer is None:
            raise CustomerNotReady(command=type(command).__name__, status=customer.status)
        case Customer(), RecordCardRemoved():
            return (CardRemoved(command.evidence),) if customer.card else ()
        case Customer(), RecordCard(operation=None):
            return () if _pays_with(customer, command) else (_card(command),)
        case _:
            return _record(customer, command)


def claim(holder: UUID | None, customer: UUID) -> tuple[NameFact, ...]:
    """What is appended to a name's stream so that it names the customer; nothing if it does. Raises NameTaken."""
    if holder is None:
        return (NameClaimed(customer),)
    if holder != customer:
        raise NameTaken
    return ()


def _registered(command: Register) -> CustomerRegistered:
    user = user_name(command.user).value if command.user is not None else None
    email = email_name(command.email).value if command.email is not None else None
    if user is None and email is None:
        raise InvalidName(kind="user", reason="a customer is known by a user's id or an e-mail")
    return CustomerRegistered(command.operation, user, email)


def _register_again(customer: Customer, command: Register) -> tuple[CustomerFact, ...]:
    if customer.status != "refused":
        raise AlreadyRegistered(status=customer.status)
    registered = _registered(command)
    _room_for(customer, registered.user, registered.email)
    return (registered,)


def _add_name(customer: Customer, command: AddName) -> tuple[CustomerFact, ...]:
    name = name_of(command.name)
    if name.value == customer.user or name.value in customer.emails:
        return ()
    user, email = (name.value, None) if name.kind == "user" else (None, name.value)
    _room_for(customer, user, email)
    return (NameAdded(command.operation, user, email),)


def _room_for(customer: Customer, user: str | None, email: str | None) -> None:
    """A customer's id with its owner never changes; its e-mail may, and the ones before go on naming it."""
    if user is not None and customer.user not in {None, user}:
        raise AlreadyNamed(kind="user")
    if email is not None and email not in customer.emails and len(customer.emails) >= MAX_EMAILS:
        raise TooManyNames(limit=MAX_EMAILS)


def _update_card(customer: Customer, command: UpdateCard) -> tuple[CustomerFact, ...]:
    if customer.provider_customer is None:
        raise CustomerNotReady(command="UpdateCard", status=customer.status)
    for name, operation in customer.in_flight():  # which of two cards is the last would be known to nobody
        raise CustomerBusy(operation=name, kind=operation.kind)
    return (CardUpdateStarted(command.operation, command.payment_method),)


def _record(customer: Customer, outcome: CustomerOutcome) -> tuple[CustomerFact, ...]:
    assert outcome.operation is not None  # noqa: S101  a look has a row of its own
    operation = customer.operations.get(outcome.operation)
    if operation is None:
        raise OutcomeMismatch(operation=outcome.operation, expected="an operation of this customer", confirmed="none")
    _no_second_customer(customer, outcome)
    if operation.outcome != "open":
        return ()
    kind = _OUTCOME_OF.get(type(outcome), operation.kind)
    if kind != operation.kind:
        raise OutcomeMismatch(operation=outcome.operation, expected=operation.kind, confirmed=kind)
    match outcome:
        case RecordCreated():
            return (CustomerCreated(outcome.operation, outcome.provider_customer, outcome.evidence),)
        case RecordCard():
            return (_card(outcome),)
        case RecordRefused():
            return (_refused(operation, outcome),)
        case _:
            assert_never(outcome)


# Which kind of operation an outcome answers; a refusal answers any.
_OUTCOME_OF: dict[type[CustomerOutcome], Kind] = {RecordCreated: "register", RecordCard: "card"}


def _no_second_customer(customer: Customer, outcome: CustomerOutcome) -> None:
    """A wish that made two customers at the provider would leave one of them to be charged and seen by nobody."""
    if not isinstance(outcome, RecordCreated) or customer.provider_customer is None:
        return
    if outcome.provider_customer != customer.provider_customer:
        raise OutcomeMismatch(
            operation=outcome.operation, expected=customer.provider_customer, confirmed=outcome.provider_customer
        )


def _refused(operation: Operation, outcome: RecordRefused) -> CustomerFact:
    refused = CustomerRefused if operation.kind == "register" else CardRefused
    return refused(outcome.operation, outcome.failure, outcome.evidence)


def _card(told: RecordCard) -> CardUpdated:
    return CardUpdated(told.operation, told.payment_method, told.card, told.fingerprint, told.evidence)


def _pays_with(customer: Customer, told: RecordCard) -> bool:
    known = (customer.payment_method, customer.card, customer.fingerprint)
    return known == (told.payment_method, told.card, told.fingerprint)
