"""A customer: its state, and how facts change it (what may be decided about it: customer_decisions.py).

    (nothing) ──Register──▶ registering ──▶ active ──UpdateCard──▶ another card | the card before
                             │     ▲
                             └▶ refused ──Register──▶ (another attempt)

Invariant, in every reachable state: a customer that is active is one at the provider, and only such a one has a card.
"""

from datetime import datetime
from typing import Literal, assert_never
from unicodedata import normalize
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from domain.calendar import month_end
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
    NameFact,
)
from domain.errors import InvalidName
from domain.payment_facts import Card, Failure

Status = Literal["registering", "refused", "active"]
Kind = Literal["register", "name", "card"]


class Operation(Struct, frozen=True):
    """One wish that was started: `open` until its outcome is known."""

    kind: Kind
    outcome: Literal["open", "done", "failed"] = "open"


class Customer(Struct, frozen=True):
    """The state of a customer, folded from its facts.

    `emails`: every one it is known by, the latest last; none in facts that were read without opening what is personal.
    `failure`: why its latest card, or the customer itself, was refused; none once one was taken.
    """

    status: Status
    operations: dict[str, Operation]
    user: str | None = None
    emails: tuple[str, ...] = ()
    provider_customer: str | None = None
    payment_method: str | None = None
    card: Card | None = None
    fingerprint: str | None = None
    failure: Failure | None = None

    @property
    def email(self) -> str | None:
        """Where to write to: the e-mail that was learned last."""
        return self.emails[-1] if self.emails else None

    def in_flight(self) -> tuple[tuple[str, Operation], ...]:
        """The open operations, by id."""
        return tuple((name, op) for name, op in self.operations.items() if op.outcome == "open")


def card_expires_before(customer: Customer, moment: datetime) -> bool:
    """Whether the customer's card will have run out by then: a card is good to the end (UTC) of the month it names."""
    return customer.card is not None and month_end(customer.card.exp_year, customer.card.exp_month) <= moment


# --- Fold --------------------------------------------------------------------------------------------------------


def evolve(customer: Customer | None, fact: CustomerFact) -> Customer:
    """Fold one fact in. It never refuses: the past has already happened."""
    if isinstance(fact, CustomerRegistered):
        return _begun(customer, fact)
    assert customer is not None, "a customer's history begins with CustomerRegistered"  # noqa: S101  corruption
    match fact:
        case CustomerCreated():
            created = replace(customer, status="active", provider_customer=fact.provider_customer, failure=None)
            return _closed(created, fact.operation, "done")
        case CustomerRefused():
            return _closed(replace(customer, status="refused", failure=fact.failure), fact.operation, "failed")
        case NameAdded():
            return _opened(_named(customer, fact), fact.operation, Operation("name", "done"))
        case CardUpdateStarted():
            return _opened(customer, fact.operation, Operation("card"))
        case CardUpdated():
            return _closed(_paying_with(customer, fact), fact.operation, "done")
        case CardRefused():
            return _closed(replace(customer, failure=fact.failure), fact.operation, "failed")
        case CardRemoved():
            return replace(customer, payment_method=None, card=None, fingerprint=None)
        case _:
            assert_never(fact)


def _begun(customer: Customer | None, fact: CustomerRegistered) -> Customer:
    begun = replace(customer, status="registering", failure=None) if customer else Customer("registering", {})
    return _opened(_named(begun, fact), fact.operation, Operation("register"))


def _named(customer: Customer, fact: CustomerRegistered | NameAdded) -> Customer:
    earlier = tuple(email for email in customer.emails if email != fact.email)
    emails = (*earlier, fact.email) if fact.email else customer.emails
    return replace(customer, user=fact.user or customer.user, emails=emails)


def _paying_with(customer: Customer, fact: CardUpdated) -> Customer:
    return replace(
        customer, payment_method=fact.payment_method, card=fact.card, fingerprint=fact.fingerprint, failure=None
    )


def _opened(customer: Customer, name: str, operation: Operation) -> Customer:
    return replace(customer, operations=customer.operations | {name: operation})


def _closed(customer: Customer, name: str | None, outcome: Literal["done", "failed"]) -> Customer:
    """An operation has its outcome; what nobody asked us for has none to close."""
    if name is None:
        return customer
    operation = replace(customer.operations[name], outcome=outcome)
    return replace(customer, operations=customer.operations | {name: operation})


def evolve_name(_: UUID | None, fact: NameFact) -> UUID:
    """The customer that a name names, folded from the name's own stream."""
    return fact.customer


# --- Names -------------------------------------------------------------------------------------------------------

# What an e-mail's path may have in SMTP (RFC 5321, 4.5.3.1.3), without its brackets; and as much as that for an id.
MAX_NAME_LENGTH = 254


class Name(Struct, frozen=True):
    """What a customer can be known by, in the one form in which it is compared. The stream of its claim is named so."""

    kind: Literal["user", "email"]
    value: str


def name_of(text: str) -> Name:
    """A caller's name for a customer: with an @ it is an e-mail, else a user's id. Raises InvalidName."""
    return email_name(text) if "@" in text else user_name(text)


def user_name(text: str) -> Name:
    """A user's id, letter by letter as it was given. Raises InvalidName."""
    if "@" in text:
        raise InvalidName(kind="user", reason="with an @ it would be taken for an e-mail")
    return Name("user", _visible("user", text))


def email_name(text: str) -> Name:
    """An e-mail in lower case: there may be mail servers that tell Ada@ from ada@, but nobody is two customers by it.

    Raises InvalidName.
    """
    mailbox, _, host = text.rpartition("@")
    if not mailbox or not host or "@" in mailbox:
        raise InvalidName(kind="email", reason="an e-mail is somebody @ somewhere")
    return Name("email", normalize("NFC", _visible("email", text).lower()))


def names_in(fact: CustomerRegistered | NameAdded) -> tuple[Name, ...]:
    """The names that are claimed together with this fact."""
    user = (Name("user", fact.user),) if fact.user else ()
    return (*user, Name("email", fact.email)) if fact.email else user


def _visible(kind: str, text: str) -> str:
    if not 1 <= len(text) <= MAX_NAME_LENGTH:
        raise InvalidName(kind=kind, reason=f"it has from 1 to {MAX_NAME_LENGTH} characters")
    if not text.isprintable() or any(letter.isspace() for letter in text):
        raise InvalidName(kind=kind, reason="it has no spaces, and nothing that cannot be seen")
    return text
