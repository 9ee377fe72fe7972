"""The grammar of the customer's tests, and words to say a history with.

    given(*ACTIVE).when(UpdateCard("card_1", "pm_1")).then(card_started()).stands("active")

It is the payment's (tests/given.py), about a customer.
"""

from collections.abc import Iterable
from functools import reduce
from typing import NamedTuple

import pytest

from domain.customer import Customer, Status, evolve
from domain.customer_commands import (
    CustomerCommand,
    RecordCard,
    RecordCardRemoved,
    RecordCreated,
    RecordRefused,
)
from domain.customer_decisions import decide
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
)
from domain.errors import Refusal
from domain.payment_facts import Card, Failure
from tests.given import NO_FUNDS, VISA

MASTERCARD = Card(brand="mastercard", last4="4444", exp_month=2, exp_year=2028)
NO_SUCH_EMAIL = Failure("email_invalid", None, "Invalid email address.", retryable=False)
ADA = "ada@example.org"


# --- Facts -------------------------------------------------------------------------------------------------------


def registered(operation: str = "reg_1", user: str | None = "user-7", email: str | None = ADA) -> CustomerRegistered:
    return CustomerRegistered(operation, user, email)


def created(operation: str = "reg_1", provider_customer: str = "cus_1") -> CustomerCreated:
    return CustomerCreated(operation, provider_customer, "req_created")


def refused(operation: str = "reg_1") -> CustomerRefused:
    return CustomerRefused(operation, NO_SUCH_EMAIL, "req_refused")


def user_added(user: str, operation: str = "name_1") -> NameAdded:
    return NameAdded(operation, user=user)


def email_added(email: str, operation: str = "name_1") -> NameAdded:
    return NameAdded(operation, email=email)


def card_started(operation: str = "card_1", payment_method: str = "pm_1") -> CardUpdateStarted:
    return CardUpdateStarted(operation, payment_method)


def card_updated(operation: str | None = "card_1", payment_method: str = "pm_1", card: Card = VISA) -> CardUpdated:
    return CardUpdated(operation, payment_method, card, f"fp_{card.last4}", "req_card")


def card_refused(operation: str = "card_1") -> CardRefused:
    return CardRefused(operation, NO_FUNDS, "req_refused")


def card_removed() -> CardRemoved:
    return CardRemoved("evt_removed")


# Histories that many tests begin with.
REGISTERING: tuple[CustomerFact, ...] = (registered(),)
REFUSED: tuple[CustomerFact, ...] = (*REGISTERING, refused())
ACTIVE: tuple[CustomerFact, ...] = (*REGISTERING, created())
UPDATING: tuple[CustomerFact, ...] = (*ACTIVE, card_started())
WITH_CARD: tuple[CustomerFact, ...] = (*UPDATING, card_updated())


# --- Commands ----------------------------------------------------------------------------------------------------


def confirm_created(operation: str = "reg_1", provider_customer: str = "cus_1") -> RecordCreated:
    return RecordCreated(operation, provider_customer, "req_created")


def confirm_card(operation: str | None = "card_1", payment_method: str = "pm_1", card: Card = VISA) -> RecordCard:
    return RecordCard(operation, payment_method, card, f"fp_{card.last4}", "req_card")


def confirm_refused(operation: str, failure: Failure) -> RecordRefused:
    return RecordRefused(operation, failure, "req_refused")


def told_card_is_gone() -> RecordCardRemoved:
    return RecordCardRemoved("evt_removed")


# --- Grammar -----------------------------------------------------------------------------------------------------


def given(*facts: CustomerFact) -> "Given":
    """A customer with this history; nothing given is a customer that does not exist yet."""
    return Given(fold(facts))


def fold(facts: Iterable[CustomerFact], customer: Customer | None = None) -> Customer | None:
    return reduce(evolve, facts, customer)


class Given(NamedTuple):
    customer: Customer | None

    def when(self, command: CustomerCommand) -> "When":
        return When(self.customer, command)

    def stands(self, status: Status, **fields: object) -> None:
        """The customer has this status, and these fields."""
        assert self.customer is not None, "nothing was given"
        found = {name: getattr(self.customer, name) for name in fields}
        assert (self.customer.status, found) == (status, fields)


class When(NamedTuple):
    customer: Customer | None
    command: CustomerCommand

    def then(self, *facts: CustomerFact) -> Given:
        """The command is answered with exactly these facts; the customer as they leave it can be asked further."""
        assert decide(self.customer, self.command) == facts
        return Given(fold(facts, self.customer))

    def decides_nothing(self) -> None:
        assert decide(self.customer, self.command) == ()

    def refused(self, refusal: type[Refusal], **facts: object) -> None:
        """The command is refused for this reason; `facts` are what the refusal must tell."""
        with pytest.raises(Refusal) as caught:
            decide(self.customer, self.command)
        told = {name: getattr(caught.value, name) for name in facts}
        assert (type(caught.value), told) == (refusal, facts)
