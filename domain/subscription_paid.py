"""Until when a subscription is paid, and what the next success pays for."""

from collections.abc import Iterator
from datetime import datetime

from domain.calendar import Period, next_boundary
from domain.subscription import Subscription


def paid_until(subscription: Subscription) -> datetime | None:
    """The end of the latest period that was paid for and not given back; None where nothing was.

    The latest is the one that starts last: who goes from a year to a month is given back the rest of the year, and has
    paid for the month. What went back in full pays for nothing: it is paid until the end of what was paid for before.
    Of what went back in part all is kept, because a part of the money names no part of the time.
    """
    last = max(_paid(subscription, kept=True), default=None)
    return last.end if last else None


def next_period(subscription: Subscription) -> Period | None:
    """What the next success pays for: one interval on from what was paid for or on trial, the anchor's day kept.

    That is one calendar month on for a monthly price and a year for an annual one; the period that it began with if
    nothing was paid yet; None before it has started. It is billed on though money went back.
    """
    if subscription.terms is None:
        return None
    terms = subscription.terms.value
    last = max(_paid(subscription, kept=False), default=None)
    start = max((end for end in (last and last.end, terms.trial_end) if end), default=None)
    if start is None:
        return subscription.period
    return Period(start, next_boundary(terms.anchor, terms.interval, terms.interval_count, start))


def _paid(subscription: Subscription, *, kept: bool) -> Iterator[Period]:
    """The periods that were paid for; of those that are `kept`, none that went back."""
    for name, invoice in subscription.invoices.items():
        if invoice.paid and not (kept and subscription.went_back(name)):
            yield invoice.period
