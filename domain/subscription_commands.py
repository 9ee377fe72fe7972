"""What may be asked of a subscription: the wishes of callers, and the recording of what was learned of the provider.

What was learned is a movement, not a look: `as_of` is when it moved at the provider, or at the latest when that was
seen, and all of one subscription are to be told by one clock. Learned in any order, they come to the same.
"""

from datetime import datetime
from uuid import UUID

from msgspec import Struct

from domain.calendar import Period
from domain.money import Money
from domain.payment_facts import Failure
from domain.subscription_facts import BillingStatus, Cause, Terms

# --- Wishes: may be refused -------------------------------------------------------------------------------------


class Subscribe(Struct, frozen=True):
    """Begin to bill `customer` (its stream's id) for `quantity` of the product, after so many days for nothing."""

    operation: str
    customer: UUID
    product: str
    price: str
    quantity: int = 1
    trial_days: int = 0


class Change(Struct, frozen=True):
    """Have another product, price or quantity from now on; the quantity stays where none is named."""

    operation: str
    product: str
    price: str
    quantity: int | None = None


class Cancel(Struct, frozen=True):
    """End it: at once, or when what was paid for has been used."""

    operation: str
    at_period_end: bool = False


class Resume(Struct, frozen=True):
    """Keep it after all. `now`: an end that has come is not taken back, even where nobody has told us of it yet."""

    operation: str
    now: datetime


# --- Outcomes: what the provider answered to an operation; without one, what happened there without us ------------


class RecordStarted(Struct, frozen=True):
    operation: str
    subscription: str
    terms: Terms
    status: BillingStatus
    period: Period
    as_of: datetime
    evidence: str


class RecordChanged(Struct, frozen=True):
    operation: str | None
    terms: Terms
    period: Period
    as_of: datetime
    evidence: str


class RecordScheduled(Struct, frozen=True):
    """It lasts until `ends_at`."""

    operation: str | None
    ends_at: datetime
    as_of: datetime
    evidence: str


class RecordResumed(Struct, frozen=True):
    """Nothing is planned to end it."""

    operation: str | None
    as_of: datetime
    evidence: str


class RecordCancelled(Struct, frozen=True):
    operation: str | None
    at: datetime
    cause: Cause | None
    evidence: str


class RecordRefused(Struct, frozen=True):
    """The provider or the issuer said no to the operation, whichever kind it is of."""

    operation: str
    failure: Failure
    evidence: str


class RecordRenewal(Struct, frozen=True):
    """`invoice` was paid. Without a period: for the next one of its cycle, one interval on from what was paid for.

    The period is what the invoice's line says; on a renewal the invoice's own is the one before
    (https://docs.stripe.com/api/invoices/object#invoice_object-period_end).
    """

    invoice: str
    amount: Money
    period: Period | None
    evidence: str


class RecordRenewalFailed(Struct, frozen=True):
    """Attempt number `attempt` (from 1) to have `invoice` paid failed. The period is as in RecordRenewal.

    Stripe counts the attempts of its plan: what is tried by hand later has the number of the last one
    (https://docs.stripe.com/api/invoices/object#invoice_object-attempt_count), and is no news when it fails, too.
    """

    invoice: str
    amount: Money
    attempt: int
    next_attempt_at: datetime | None
    failure: Failure
    period: Period | None
    evidence: str


class RecordInvoiceVoided(Struct, frozen=True):
    """`invoice` was taken back, as that of what never began is; one that is given up as lost is still owed."""

    invoice: str
    evidence: str


class RecordInvoiceRefunded(Struct, frozen=True):
    """Of what was paid by `invoice`, `amount` has gone back in all; nothing, if what was to go back did not."""

    invoice: str
    amount: Money
    as_of: datetime
    evidence: str


class RecordStatus(Struct, frozen=True):
    """How it stands at the provider became `status`."""

    status: BillingStatus
    as_of: datetime
    evidence: str


class AdoptSubscription(Struct, frozen=True):
    """A subscription that the provider reports and no wish of ours explains: somebody made it there."""

    customer: UUID
    started: RecordStarted


SubscriptionWish = Subscribe | Change | Cancel | Resume
SubscriptionOutcome = RecordStarted | RecordChanged | RecordScheduled | RecordResumed | RecordCancelled | RecordRefused
InvoiceOutcome = RecordRenewal | RecordRenewalFailed | RecordInvoiceVoided
# What may happen at the provider without us, all of it in any order.
Movement = (
    RecordChanged
    | RecordScheduled
    | RecordResumed
    | RecordCancelled
    | RecordStatus
    | RecordInvoiceRefunded
    | InvoiceOutcome
)
SubscriptionLearned = SubscriptionOutcome | InvoiceOutcome | RecordInvoiceRefunded | RecordStatus | AdoptSubscription
SubscriptionCommand = SubscriptionWish | SubscriptionLearned
