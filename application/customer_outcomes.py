"""What is to be asked of the provider for an operation of a customer, and what a look at it there tells."""

from uuid import uuid5

from application.billing import CreateCustomer, CustomerInstruction, CustomerSeen, SetCard
from application.gateway import Absent, Unknown
from application.standing import NOT_CARRIED_OUT
from application.streams import Story
from domain.customer import Customer
from domain.customer_commands import (
    CustomerLearned,
    CustomerOutcome,
    RecordCard,
    RecordCardRemoved,
    RecordCreated,
    RecordRefused,
)
from domain.customer_facts import CardRefused, CardUpdated, CardUpdateStarted, CustomerRegistered


def card_operation(story: Story[Customer], token: str) -> str:
    """The name of a wish that nobody named: the token that was tried last is the same wish again."""
    tried = [envelope.fact for envelope in story.envelopes if isinstance(envelope.fact, CardUpdateStarted)]
    if tried and tried[-1].payment_method == token and _comes_to_the_same(story, tried[-1].operation):
        return tried[-1].operation
    return str(uuid5(story.stream, f"card:{len(tried) + 1}"))


def _comes_to_the_same(story: Story[Customer], operation: str) -> bool:
    """Whether nothing is to be tried anew: it is under way, was refused for good, or is what is paid with still."""
    facts = (envelope.fact for envelope in story.envelopes if envelope.operation == operation)
    for fact in facts:
        if isinstance(fact, CardRefused):
            return not fact.failure.retryable
        if isinstance(fact, CardUpdated):
            return fact.payment_method == story.known.payment_method
    return True


def instruction(story: Story[Customer], operation: str) -> CustomerInstruction:
    """What carries out an open operation."""
    customer, started = story.known, story.started(operation)
    assert started is not None  # noqa: S101  open operations have begun
    if isinstance(started.fact, CustomerRegistered):  # in the same words each time, whatever it is called since
        begun = started.fact
        return CreateCustomer(stream=story.stream, operation=operation, user=begun.user, email=begun.email)
    assert isinstance(started.fact, CardUpdateStarted)  # noqa: S101  names are added without asking anybody
    assert customer.provider_customer is not None  # noqa: S101  the domain lets no other start one
    return SetCard(
        stream=story.stream,
        operation=operation,
        provider_customer=customer.provider_customer,
        payment_method=started.fact.payment_method,
    )


def outcomes(
    customer: Customer, operation: str, seen: CustomerSeen | Absent | Unknown, *, over: bool
) -> list[CustomerOutcome]:
    """What became of an operation whose key is too old to be sent again."""
    if isinstance(seen, Unknown):
        return []
    if isinstance(seen, CustomerSeen):
        if customer.operations[operation].kind == "register":
            return [RecordCreated(operation, seen.provider_customer, seen.evidence)]
        if seen.changed_by == operation and seen.card is not None:
            card = seen.card
            return [RecordCard(operation, card.payment_method, card.card, card.fingerprint, seen.evidence)]
    return [RecordRefused(operation, NOT_CARRIED_OUT, seen.evidence)] if over else []


def news(seen: CustomerSeen | Absent) -> list[CustomerLearned]:
    """A customer that was deleted at the provider has nothing to pay with any more."""
    if isinstance(seen, Absent) or seen.card is None:
        return [RecordCardRemoved(seen.evidence)]
    return [RecordCard(None, seen.card.payment_method, seen.card.card, seen.card.fingerprint, seen.evidence)]
