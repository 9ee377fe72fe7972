"""Month arithmetic. Billing periods are counted from an anchor, so a day that a short month lacks comes back later.

31 January → 28 February → 31 March; 29 February → 28 February of the next year → 29 February of a leap year. Stripe
counts the same way (https://docs.stripe.com/billing/subscriptions/billing-cycle). All in UTC, the time of day kept.
"""

from calendar import monthrange
from datetime import UTC, datetime, timedelta
from typing import Literal

from msgspec import Struct

Interval = Literal["day", "week", "month", "year"]

MONTHS_IN_A_YEAR = 12


class Period(Struct, frozen=True, order=True):
    """From `start` up to `end`, which is the start of what follows. The order is that of the starts."""

    start: datetime
    end: datetime


def months_after(anchor: datetime, months: int) -> datetime:
    """The anchor so many calendar months later (earlier, if negative), on its own day or else the month's last.

    Raises ValueError for an anchor without a zone, and for a year that no calendar has (before 1, after 9999).
    """
    start = _utc(anchor)
    years, month = divmod(start.month - 1 + months, MONTHS_IN_A_YEAR)
    year = start.year + years
    if not 1 <= year <= 9999:
        raise ValueError(f"there is no year {year}")
    return start.replace(year=year, month=month + 1, day=min(start.day, monthrange(year, month + 1)[1]))


def boundary(anchor: datetime, interval: Interval, interval_count: int, number: int) -> datetime:
    """Where the billing period `number` (from 0, the one that begins at the anchor) begins.

    A period is `interval_count` intervals long. Raises ValueError as `months_after` does, or OverflowError for days.
    """
    steps = number * interval_count
    match interval:
        case "month":
            return months_after(anchor, steps)
        case "year":
            return months_after(anchor, steps * MONTHS_IN_A_YEAR)
        case "week":
            return _utc(anchor) + timedelta(weeks=steps)
        case "day":
            return _utc(anchor) + timedelta(days=steps)


def next_boundary(anchor: datetime, interval: Interval, interval_count: int, moment: datetime) -> datetime:
    """The first beginning of a billing period after the moment. Raises as `boundary` does."""
    number = _number_near(_utc(anchor), interval, interval_count, _utc(moment))
    while (found := boundary(anchor, interval, interval_count, number)) <= moment:
        number += 1
    return found


def month_end(year: int, month: int) -> datetime:
    """The first moment after the month: a card that names it is good until then."""
    return months_after(datetime(year, month, 1, tzinfo=UTC), 1)


def _number_near(anchor: datetime, interval: Interval, interval_count: int, moment: datetime) -> int:
    """The number of the period that holds the moment, or of the one after it."""
    if interval in {"day", "week"}:
        return (moment - anchor) // (boundary(anchor, interval, interval_count, 1) - anchor)
    months = (moment.year - anchor.year) * MONTHS_IN_A_YEAR + moment.month - anchor.month
    return months // (interval_count * (MONTHS_IN_A_YEAR if interval == "year" else 1))


def _utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("a moment has a time zone")
    return moment.astimezone(UTC)
