"""The stored name of every fact: a chosen word that outlives classes, modules and this code."""

from typing import TypeGuard, get_args

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
from domain.order_facts import KeyClaimed, OrderCancelled, OrderFact, OrderPaid, OrderPlaced
from domain.payment_facts import (
    ActionRequired,
    AuthorizationStarted,
    Authorized,
    Captured,
    CaptureStarted,
    DisputeLost,
    DisputeOpened,
    DisputeWon,
    Expired,
    Failed,
    PaymentFact,
    Refunded,
    RefundStarted,
    Voided,
    VoidStarted,
)
from domain.subscription_facts import (
    CancellationRefused,
    CancellationRequested,
    CancellationScheduled,
    ChangeRefused,
    ChangeRequested,
    InvoiceRefunded,
    InvoiceVoided,
    RenewalFailed,
    ResumeRefused,
    ResumeRequested,
    StatusMoved,
    SubscriptionCancelled,
    SubscriptionChanged,
    SubscriptionFact,
    SubscriptionRefused,
    SubscriptionRenewed,
    SubscriptionRequested,
    SubscriptionResumed,
    SubscriptionStarted,
)

Fact = PaymentFact | CustomerFact | NameFact | SubscriptionFact | OrderFact | KeyClaimed

FACTS: dict[str, type[Fact]] = {
    "AuthorizationStarted": AuthorizationStarted,
    "ActionRequired": ActionRequired,
    "Authorized": Authorized,
    "CaptureStarted": CaptureStarted,
    "Captured": Captured,
    "VoidStarted": VoidStarted,
    "Voided": Voided,
    "RefundStarted": RefundStarted,
    "Refunded": Refunded,
    "Failed": Failed,
    "Expired": Expired,
    "DisputeOpened": DisputeOpened,
    "DisputeWon": DisputeWon,
    "DisputeLost": DisputeLost,
    "NameClaimed": NameClaimed,
    "CustomerRegistered": CustomerRegistered,
    "CustomerCreated": CustomerCreated,
    "CustomerRefused": CustomerRefused,
    "NameAdded": NameAdded,
    "CardUpdateStarted": CardUpdateStarted,
    "CardUpdated": CardUpdated,
    "CardRefused": CardRefused,
    "CardRemoved": CardRemoved,
    "SubscriptionRequested": SubscriptionRequested,
    "SubscriptionStarted": SubscriptionStarted,
    "SubscriptionRefused": SubscriptionRefused,
    "ChangeRequested": ChangeRequested,
    "SubscriptionChanged": SubscriptionChanged,
    "ChangeRefused": ChangeRefused,
    "CancellationRequested": CancellationRequested,
    "CancellationScheduled": CancellationScheduled,
    "SubscriptionCancelled": SubscriptionCancelled,
    "CancellationRefused": CancellationRefused,
    "ResumeRequested": ResumeRequested,
    "SubscriptionResumed": SubscriptionResumed,
    "ResumeRefused": ResumeRefused,
    "SubscriptionRenewed": SubscriptionRenewed,
    "RenewalFailed": RenewalFailed,
    "InvoiceVoided": InvoiceVoided,
    "InvoiceRefunded": InvoiceRefunded,
    "StatusMoved": StatusMoved,
    "OrderPlaced": OrderPlaced,
    "OrderCancelled": OrderCancelled,
    "OrderPaid": OrderPaid,
    "KeyClaimed": KeyClaimed,
}

NAMES: dict[type[Fact], str] = {fact: name for name, fact in FACTS.items()}

_OF_PAYMENTS = frozenset(get_args(PaymentFact))


def is_of_payment(fact: Fact) -> TypeGuard[PaymentFact]:
    """Whether it is a payment's: the log holds the facts of customers, their names and subscriptions, too."""
    return type(fact) in _OF_PAYMENTS


def of_payment(fact: Fact) -> PaymentFact:
    """A fact of a payment's stream, known to be one."""
    assert is_of_payment(fact), f"a payment's history has no {type(fact).__name__}"  # noqa: S101  corruption
    return fact
