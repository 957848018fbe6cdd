"""Times: the specification's vectors, and exactness for any time."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.kronos import times, wire

ZONES = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
DATES = st.datetimes(timezones=st.none() | ZONES, min_value=datetime(2, 1, 1), max_value=datetime(9998, 1, 1))
TICKS = st.integers(
    times.datetime_to_kronos_time(datetime(2, 1, 1)), times.datetime_to_kronos_time(datetime(9998, 1, 1))
)


@pytest.mark.parametrize(
    ("time", "ticks"),
    [
        (datetime(1970, 1, 1), 0),
        (datetime(2014, 1, 1, 0, 0, 0, 1), 13885344000000010),
        (datetime(2014, 1, 1, tzinfo=timezone(timedelta(hours=1))), 13885308000000000),
        (datetime(1969, 12, 31, 23, 59, 59, 999999), -10),
        (date(2014, 1, 1), 13885344000000000),
    ],
)
def test_vectors(time: date, ticks: int) -> None:
    assert times.datetime_to_kronos_time(time) == ticks
    assert times.to_kronos_time(time) == ticks


@pytest.mark.parametrize(
    ("text", "ticks"),
    [
        ("2014-01-01", 13885344000000000),
        ("2014-01-01T00:00:00.1234567Z", 13885344001234567),
        ("2014-01-01 00:00:00,123456789+01:00", 13885308001234567),
        ("Jan 1 2014 10:00 UTC", 13885704000000000),
        ("Wed, 01 Jan 2014 10:00:00 +0100", 13885668000000000),
    ],
)
def test_text(text: str, ticks: int) -> None:
    assert times.to_kronos_time(text) == ticks


def test_durations_and_seconds() -> None:
    assert times.timedelta_to_kronos_time(timedelta(minutes=5)) == 3000000000
    assert times.timedelta_to_kronos_time(timedelta(microseconds=-1)) == -10
    assert times.epoch_time_to_kronos_time(1700000000.1234567) == 17000000001234567
    assert times.epoch_time_to_kronos_time(Decimal("1.0000001")) == 10000001
    assert times.kronos_time_to_epoch_time(15_000_000) == 1.5


class Fine(datetime):
    """A time as pandas has them, with nanoseconds."""

    nanosecond = 789


def test_nanoseconds_of_other_libraries_times_are_not_lost() -> None:
    assert times.datetime_to_kronos_time(Fine(2014, 1, 1, 0, 0, 0, 123456)) == 13885344001234567


def test_the_clock() -> None:
    assert abs(times.kronos_time_now() - times.datetime_to_kronos_time(datetime.now(UTC))) < 10**9


@given(DATES)
def test_any_datetime_comes_back(time: datetime) -> None:
    back = times.kronos_time_to_datetime(times.datetime_to_kronos_time(time))
    assert back.tzinfo is UTC
    assert back == (time if time.tzinfo else time.replace(tzinfo=UTC))


@given(TICKS, ZONES)
def test_any_ticks_come_back_but_for_the_last_digit(ticks: int, zone: timezone) -> None:
    time = times.kronos_time_to_datetime(ticks, zone)
    assert time.tzinfo is zone
    assert times.datetime_to_kronos_time(time) == ticks - ticks % 10
    assert times.to_kronos_time(time.isoformat()) == ticks - ticks % 10


@given(TICKS.filter(lambda ticks: ticks >= 0))
def test_text_is_exact_to_the_tick(ticks: int) -> None:
    text = times.kronos_time_to_datetime(ticks).strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0")
    assert times.to_kronos_time(f"{text}.{ticks % 10**7:07}Z") == ticks


@given(TICKS)
def test_exact_seconds_come_back(ticks: int) -> None:
    assert times.epoch_time_to_kronos_time(Fraction(ticks, 10**7)) == ticks
    assert times.epoch_time_to_kronos_time(Decimal(ticks).scaleb(-7)) == ticks
    # A float holds 53 bits, so that it is as near as such a number can be.
    seconds = times.kronos_time_to_epoch_time(ticks)
    assert abs(times.epoch_time_to_kronos_time(seconds) - ticks) <= math.ulp(seconds) * 10**7 / 2 + 1


@pytest.mark.parametrize(
    ("call", "argument", "kind"),
    [
        (times.datetime_to_kronos_time, 5, TypeError),
        (times.datetime_to_epoch_time, "2014-01-01", TypeError),
        (times.kronos_time_to_datetime, 1.5, TypeError),
        (times.kronos_time_to_datetime, wire.MAX_TIME * 10, ValueError),
        (times.kronos_time_to_epoch_time, None, TypeError),
        (times.timedelta_to_kronos_time, 5, TypeError),
        (times.epoch_time_to_kronos_time, "5", TypeError),
        (times.epoch_time_to_kronos_time, True, TypeError),
        (times.epoch_time_to_kronos_time, math.nan, ValueError),
        (times.to_kronos_time, 1.5, TypeError),
        (times.to_kronos_time, None, TypeError),
        (times.to_kronos_time, True, TypeError),
        (times.to_kronos_time, "soon", ValueError),
        (times.to_kronos_time, "", ValueError),
        (times.to_kronos_time, "Jan 1 2014 10:00 EST", ValueError),
    ],
)
def test_what_is_no_time(call: Any, argument: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        call(argument)
