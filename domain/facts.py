"""The stored name of every fact: a chosen word that outlives classes, modules and this code."""

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

Fact = PaymentFact

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
}

NAMES: dict[type[Fact], str] = {fact: name for name, fact in FACTS.items()}
