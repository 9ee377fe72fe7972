"""The facts of a customer and of its names. Their names and fields are the storage format, as the payment's are.

A customer has a stream. Each name that it is known by (a user's id, an e-mail) has a stream of its own, which holds
who claimed it and is appended to together with the customer's: two claims on one name cannot both be stored.
Every outcome carries its evidence: the id of the provider's request or event that told us.
"""

from uuid import UUID

from msgspec import Struct

from domain.payment_facts import Card, Failure


class NameClaimed(Struct, frozen=True):
    """The name whose stream this is names this customer from now on. The name itself is not in it."""

    customer: UUID


class CustomerRegistered(Struct, frozen=True):
    """Somebody became a customer, and the provider is asked to make one. Known by `user`, `email` or both."""

    operation: str
    user: str | None = None
    email: str | None = None


class CustomerCreated(Struct, frozen=True):
    """The provider has made its customer."""

    operation: str
    provider_customer: str
    evidence: str


class CustomerRefused(Struct, frozen=True):
    """The provider would not make a customer of that; another attempt may be made."""

    operation: str
    failure: Failure
    evidence: str


class NameAdded(Struct, frozen=True):
    """The customer is known by one more name: `user` or `email`."""

    operation: str
    user: str | None = None
    email: str | None = None


class CardUpdateStarted(Struct, frozen=True):
    """An attempt to make `payment_method` (a payment method's id or a token) what the customer pays with."""

    operation: str
    payment_method: str


class CardUpdated(Struct, frozen=True):
    """The customer pays with this card from now on. Without `operation`: it was changed at the provider, not by us.

    `fingerprint` is the provider's name for the card's number, the same for the same card.
    """

    operation: str | None
    payment_method: str
    card: Card
    fingerprint: str | None
    evidence: str


class CardRefused(Struct, frozen=True):
    """The provider or the issuer would not take the new card; the one before stays."""

    operation: str
    failure: Failure
    evidence: str


class CardRemoved(Struct, frozen=True):
    """The customer's card was taken away at the provider: there is nothing to pay with."""

    evidence: str


NameFact = NameClaimed
CustomerFact = (
    CustomerRegistered
    | CustomerCreated
    | CustomerRefused
    | NameAdded
    | CardUpdateStarted
    | CardUpdated
    | CardRefused
    | CardRemoved
)
