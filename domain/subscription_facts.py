"""The facts of a subscription. Their names and fields are the storage format, as the payment's are.

Every outcome carries its evidence: the id of the provider's request or event that told us. An outcome without an
`operation` is a movement that nobody asked us for: made in the provider's portal or dashboard, or by its dunning.
`as_of` is when it stood so at the provider: of two facts about the same thing the later one holds, whichever we heard
of first.
"""

from datetime import datetime
from typing import Literal
from uuid import UUID

from msgspec import Struct

from domain.calendar import Interval
from domain.money import Money
from domain.payment_facts import Failure

# How it stands while it lasts (https://docs.stripe.com/billing/subscriptions/overview#subscription-statuses), from what
# is least owed to what is most: incomplete until its first invoice is paid, past due while that of a renewal is tried
# again, unpaid when that has been given up.
BillingStatus = Literal["incomplete", "trialing", "active", "past_due", "unpaid"]
# Why it ended: somebody wanted it to, dunning gave it up, a charge was contested, or its first invoice was never paid.
Cause = Literal["requested", "payment_failed", "disputed", "never_paid"]


class Terms(Struct, frozen=True, kw_only=True):
    """What is sold and how it is billed: `amount` for each period of `interval_count` intervals, counted from `anchor`.

    In the facts that tell of them, each is a field.
    """

    product: str
    price: str
    quantity: int
    amount: Money
    interval: Interval
    interval_count: int
    anchor: datetime
    trial_end: datetime | None


class SubscriptionRequested(Struct, frozen=True):
    """An attempt to have the provider begin a subscription of `customer` (its stream's id)."""

    operation: str
    customer: UUID
    product: str
    price: str
    quantity: int
    trial_days: int


class SubscriptionStarted(Struct, frozen=True, kw_only=True):
    """The provider bills it from now on. `subscription` is its name there, the period the one that it is in."""

    operation: str
    subscription: str
    product: str
    price: str
    quantity: int
    amount: Money
    interval: Interval
    interval_count: int
    anchor: datetime
    trial_end: datetime | None
    status: BillingStatus
    period_start: datetime
    period_end: datetime
    as_of: datetime
    evidence: str


class SubscriptionRefused(Struct, frozen=True):
    """The provider or the issuer would not have it; another attempt may be made."""

    operation: str
    failure: Failure
    evidence: str


class ChangeRequested(Struct, frozen=True):
    operation: str
    product: str
    price: str
    quantity: int


class SubscriptionChanged(Struct, frozen=True, kw_only=True):
    """It is billed by these terms from now on; what that costs at once is prorated by the provider."""

    operation: str | None
    product: str
    price: str
    quantity: int
    amount: Money
    interval: Interval
    interval_count: int
    anchor: datetime
    trial_end: datetime | None
    period_start: datetime
    period_end: datetime
    as_of: datetime
    evidence: str


class ChangeRefused(Struct, frozen=True):
    operation: str
    failure: Failure
    evidence: str


class CancellationRequested(Struct, frozen=True):
    """`at_period_end`: it is kept until what was paid for has been used."""

    operation: str
    at_period_end: bool


class CancellationScheduled(Struct, frozen=True):
    """It lasts until `ends_at` and is not renewed then."""

    operation: str | None
    ends_at: datetime
    as_of: datetime
    evidence: str


class SubscriptionCancelled(Struct, frozen=True):
    """It ended `at` that moment and will not come back. `cause`: none where the provider names none."""

    operation: str | None
    at: datetime
    cause: Cause | None
    evidence: str


class CancellationRefused(Struct, frozen=True):
    operation: str
    failure: Failure
    evidence: str


class ResumeRequested(Struct, frozen=True):
    operation: str


class SubscriptionResumed(Struct, frozen=True):
    """It is renewed after all."""

    operation: str | None
    as_of: datetime
    evidence: str


class ResumeRefused(Struct, frozen=True):
    operation: str
    failure: Failure
    evidence: str


class SubscriptionRenewed(Struct, frozen=True):
    """`amount` was paid by `invoice` for the period: the first one, each one after it, or the rest of a changed one.

    Nothing, for a trial or where a discount covers it all.
    """

    invoice: str
    amount: Money
    period_start: datetime
    period_end: datetime
    evidence: str


class RenewalFailed(Struct, frozen=True):
    """Attempt number `attempt` (from 1) to have `invoice` paid failed; none follows by itself without a time for it."""

    invoice: str
    amount: Money
    attempt: int
    next_attempt_at: datetime | None
    failure: Failure
    period_start: datetime
    period_end: datetime
    evidence: str


class InvoiceVoided(Struct, frozen=True):
    """`invoice` was taken back: nobody owes it any more, and nobody will pay it."""

    invoice: str
    evidence: str


class InvoiceRefunded(Struct, frozen=True):
    """Of what was paid by `invoice`, `amount` has gone back in all by then: less than before, if a refund failed."""

    invoice: str
    amount: Money
    as_of: datetime
    evidence: str


class StatusMoved(Struct, frozen=True):
    """How it stands at the provider changed."""

    status: BillingStatus
    as_of: datetime
    evidence: str


SubscriptionFact = (
    SubscriptionRequested
    | SubscriptionStarted
    | SubscriptionRefused
    | ChangeRequested
    | SubscriptionChanged
    | ChangeRefused
    | CancellationRequested
    | CancellationScheduled
    | SubscriptionCancelled
    | CancellationRefused
    | ResumeRequested
    | SubscriptionResumed
    | ResumeRefused
    | SubscriptionRenewed
    | RenewalFailed
    | InvoiceVoided
    | InvoiceRefunded
    | StatusMoved
)
