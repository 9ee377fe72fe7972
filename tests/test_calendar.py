"""Months as a billing calendar counts them, against a calendar that is walked day by day."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from itertools import islice

import pytest
from hypothesis import given, settings, strategies

from domain.calendar import Interval, Period, boundary, month_end, months_after, next_boundary

LEAP, COMMON = 2028, 2027


def at(year: int, month: int, day: int) -> datetime:
    return datetime(year, month, day, 9, 30, 15, 250_000, tzinfo=UTC)


def walked(start: date) -> Iterator[date]:
    """The anchor's day in each month after it, or that month's last: found by walking every day there is."""
    day, last = start, start
    while True:
        day += timedelta(days=1)
        if day.month != last.month and last.day < start.day:
            yield last  # the month is over, and had no such day
        if day.day == start.day:
            yield day
        last = day


# --- Months ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("day", range(1, 32))
@pytest.mark.parametrize("year", [LEAP, COMMON])
def test_sixty_months_after_any_day_are_those_of_a_calendar_that_is_walked(year: int, day: int) -> None:
    found = [months_after(at(year, 1, day), months).date() for months in range(1, 61)]
    assert found == list(islice(walked(date(year, 1, day)), 60))


@pytest.mark.parametrize(
    ("anchor", "months", "then"),
    [
        (at(LEAP, 1, 31), 1, at(LEAP, 2, 29)),
        (at(COMMON, 1, 31), 1, at(COMMON, 2, 28)),
        (at(COMMON, 1, 31), 2, at(COMMON, 3, 31)),
        (at(COMMON, 1, 31), 3, at(COMMON, 4, 30)),
        (at(COMMON, 12, 31), 2, at(LEAP, 2, 29)),
        (at(LEAP, 2, 29), 12, at(LEAP + 1, 2, 28)),
        (at(LEAP, 2, 29), 48, at(LEAP + 4, 2, 29)),
        (at(2096, 2, 29), 48, at(2100, 2, 28)),
        (at(COMMON, 3, 31), -1, at(COMMON, 2, 28)),
        (at(COMMON, 1, 15), -13, at(COMMON - 2, 12, 15)),
        (at(COMMON, 1, 15), 0, at(COMMON, 1, 15)),
    ],
)
def test_the_anchors_day_is_kept_over_short_months_and_leap_years(
    anchor: datetime, months: int, then: datetime
) -> None:
    assert months_after(anchor, months) == then


def test_a_moment_is_counted_in_utc() -> None:
    """In Tokyo it is the first of February already: counted there, the next would be the first of March."""
    tokyo = timezone(timedelta(hours=9))
    assert months_after(datetime(COMMON, 2, 1, 8, tzinfo=tokyo), 1) == datetime(COMMON, 2, 28, 23, tzinfo=UTC)


def test_a_moment_without_a_zone_is_no_moment() -> None:
    with pytest.raises(ValueError, match="time zone"):
        months_after(datetime(COMMON, 1, 31), 1)  # noqa: DTZ001  that is the point
    with pytest.raises(ValueError, match="time zone"):
        boundary(datetime(COMMON, 1, 31), "day", 1, 1)  # noqa: DTZ001


@pytest.mark.parametrize(("months", "year"), [(12 * 7973, 10_000), (-12 * COMMON, 0)])
def test_a_year_that_no_calendar_has_is_refused(months: int, year: int) -> None:
    with pytest.raises(ValueError, match=f"no year {year}"):
        months_after(at(COMMON, 1, 31), months)


def test_a_month_ends_where_the_next_begins() -> None:
    assert month_end(COMMON, 2) == datetime(COMMON, 3, 1, tzinfo=UTC)
    assert month_end(COMMON, 12) == datetime(LEAP, 1, 1, tzinfo=UTC)


# --- Periods -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("interval", "count", "boundaries"),
    [
        ("day", 10, [at(COMMON, 1, 31), at(COMMON, 2, 10), at(COMMON, 2, 20)]),
        ("week", 2, [at(COMMON, 1, 31), at(COMMON, 2, 14), at(COMMON, 2, 28)]),
        ("month", 1, [at(COMMON, 1, 31), at(COMMON, 2, 28), at(COMMON, 3, 31)]),
        ("month", 3, [at(COMMON, 1, 31), at(COMMON, 4, 30), at(COMMON, 7, 31)]),
        ("year", 1, [at(COMMON, 1, 31), at(COMMON + 1, 1, 31), at(COMMON + 2, 1, 31)]),
    ],
)
def test_periods_are_counted_from_the_anchor(interval: Interval, count: int, boundaries: list[datetime]) -> None:
    assert [boundary(at(COMMON, 1, 31), interval, count, number) for number in range(3)] == boundaries


def test_an_annual_period_is_twelve_months() -> None:
    for years in range(1, 9):
        annual = boundary(at(LEAP, 2, 29), "year", 1, years)
        assert annual == months_after(at(LEAP, 2, 29), 12 * years) == boundary(at(LEAP, 2, 29), "month", 12, years)


moments = strategies.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=strategies.just(UTC))  # noqa: DTZ001


@settings(deadline=None)
@given(
    anchor=moments,
    interval=strategies.sampled_from(["day", "week", "month", "year"]),
    count=strategies.integers(1, 12),
    moment=moments,
)
def test_the_next_boundary_is_the_first_one_after_the_moment(
    anchor: datetime, interval: Interval, count: int, moment: datetime
) -> None:
    found = next_boundary(anchor, interval, count, moment)
    assert found > moment
    known = [boundary(anchor, interval, count, number) for number in near(anchor, interval, count, found)]
    assert found in known
    assert max(earlier for earlier in known if earlier < found) <= moment


def near(anchor: datetime, interval: Interval, count: int, moment: datetime) -> range:
    """The numbers of some periods around the moment, by the mean length of an interval."""
    days = {"day": 1, "week": 7, "month": 30.436875, "year": 365.2425}[interval] * count
    number = round((moment - anchor).total_seconds() / 86_400 / days)
    return range(number - 3, number + 4)


@pytest.mark.parametrize("interval", ["day", "week", "month", "year"])
def test_on_a_boundary_the_next_one_is_a_whole_period_away(interval: Interval) -> None:
    for number in range(-30, 30):
        here = boundary(at(LEAP, 1, 31), interval, 1, number)
        assert next_boundary(at(LEAP, 1, 31), interval, 1, here) == boundary(at(LEAP, 1, 31), interval, 1, number + 1)
        just_before = here - timedelta(microseconds=1)
        assert next_boundary(at(LEAP, 1, 31), interval, 1, just_before) == here


def test_of_two_periods_the_one_that_starts_later_is_the_later_one() -> None:
    long, short = Period(at(COMMON, 1, 1), at(LEAP, 1, 1)), Period(at(COMMON, 2, 1), at(COMMON, 3, 1))
    assert max(long, short) == short
    assert max(long, Period(long.start, at(COMMON, 2, 1))) == long
