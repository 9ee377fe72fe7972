"""What may be asked of a customer: the wishes of callers, and the recording of what the provider answered."""

from msgspec import Struct

from domain.payment_facts import Card, Failure

# --- Wishes: may be refused -------------------------------------------------------------------------------------


class Register(Struct, frozen=True):
    """Become a customer, known by a user's id, an e-mail or both."""

    operation: str
    user: str | None = None
    email: str | None = None


class AddName(Struct, frozen=True):
    """Be known by this name, too: a user's id or an e-mail, whichever it is."""

    operation: str
    name: str


class UpdateCard(Struct, frozen=True):
    """Pay with `payment_method` (a payment method's id or a token) from now on."""

    operation: str
    payment_method: str


# --- Outcomes: what the provider answered to an operation --------------------------------------------------------


class RecordCreated(Struct, frozen=True):
    operation: str
    provider_customer: str
    evidence: str


class RecordCard(Struct, frozen=True):
    """What the customer pays with at the provider now. Without `operation`: seen there, and nobody asked us for it."""

    operation: str | None
    payment_method: str
    card: Card
    fingerprint: str | None
    evidence: str


class RecordRefused(Struct, frozen=True):
    """The provider or the issuer said no to the operation, whichever kind it is of."""

    operation: str
    failure: Failure
    evidence: str


class RecordCardRemoved(Struct, frozen=True):
    """The customer has no card at the provider any more."""

    evidence: str


CustomerWish = Register | AddName | UpdateCard
CustomerOutcome = RecordCreated | RecordCard | RecordRefused
# What is learned by looking at how a customer stands at the provider, beside the outcomes of our own operations.
CustomerLearned = CustomerOutcome | RecordCardRemoved
CustomerCommand = CustomerWish | CustomerLearned
