"""Billing periods: every boundary is counted from the anchor, so a day that a short month lacks comes back afterwards.

31 January -> 28 February -> 31 March; 29 February -> 28 February of the next year -> 29 February of a leap year.
All of it in UTC and in Unix seconds; the time of day is the anchor's.
"""

from calendar import monthrange
from datetime import UTC, datetime
from typing import NamedTuple

DAY_S = 24 * 3600

_SECONDS = {"day": DAY_S, "week": 7 * DAY_S}
_MONTHS = {"month": 1, "year": 12}


class Cycle(NamedTuple):
    """`interval_count` of `interval` (day, week, month, year) from one boundary to the next; `anchor` is one."""

    anchor: int
    interval: str
    interval_count: int

    def boundary(self, number: int) -> int:
        """The boundary so many periods after the anchor, or before it for a negative number."""
        steps = number * self.interval_count
        if (seconds := _SECONDS.get(self.interval)) is not None:
            return self.anchor + steps * seconds
        return _months_later(self.anchor, steps * _MONTHS[self.interval])

    def next_after(self, moment: int) -> int:
        """The first boundary later than the moment."""
        number = self._number_near(moment)
        while self.boundary(number) > moment:
            number -= 1
        while self.boundary(number) <= moment:
            number += 1
        return self.boundary(number)

    def last_before(self, moment: int) -> int:
        """The latest boundary earlier than the moment."""
        number = self._number_near(moment)
        while self.boundary(number) < moment:
            number += 1
        while self.boundary(number) >= moment:
            number -= 1
        return self.boundary(number)

    def _number_near(self, moment: int) -> int:
        """Off by one or two at most."""
        if (seconds := _SECONDS.get(self.interval)) is not None:
            return (moment - self.anchor) // (seconds * self.interval_count)
        start, there = _date(self.anchor), _date(moment)
        months = (there.year - start.year) * 12 + there.month - start.month
        return months // (_MONTHS[self.interval] * self.interval_count)


def month_after(year: int, month: int) -> int:
    """The first moment of the month that follows: a card is good until then."""
    years, month = divmod(year * 12 + month, 12)
    return int(datetime(years, month + 1, 1, tzinfo=UTC).timestamp())


def month_of(year: int, month: int) -> int:
    """The first moment of the month."""
    return int(datetime(year, month, 1, tzinfo=UTC).timestamp())


def _months_later(moment: int, months: int) -> int:
    start = _date(moment)
    years, month = divmod(start.year * 12 + start.month - 1 + months, 12)
    day = min(start.day, monthrange(years, month + 1)[1])
    return int(start.replace(year=years, month=month + 1, day=day).timestamp())


def _date(moment: int) -> datetime:
    return datetime.fromtimestamp(moment, UTC)
