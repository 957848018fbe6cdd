"""Kronos' times, integers of 100 ns (ticks) since 1970-01-01T00:00Z, to and from everything else.

The names are those of ``pykronos.utils.time``; the arithmetic is exact, where that loses ticks in floats and whole
seconds on the way back. A time without a zone is UTC, and what comes back has a zone. Not a number, not a date: every
function raises ``TypeError`` for what is of another type, ``ValueError`` for what no time can hold.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, date, datetime, timedelta, tzinfo
from decimal import Decimal
from fractions import Fraction

from dateutil import parser

from protocols.kronos import wire

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TICKS_PER_SECOND = 10_000_000

_MICROSECOND = timedelta(microseconds=1)
#: The digits of a fraction of a second beyond microseconds, which Python's own times cannot hold.
_FINE = re.compile(r":\d{2}[.,]\d{6}(\d+)")


def kronos_time_now() -> int:
    """The clock, in ticks."""
    return wire.now()


def datetime_to_kronos_time(dt: date) -> int:
    """The ticks of a time, exactly; of a date, its midnight in UTC; of a pandas timestamp, rounded down."""
    whole = _microseconds(dt)
    return whole * 10 + getattr(dt, "nanosecond", 0) // 100


def kronos_time_to_datetime(time: int, tz: tzinfo = UTC) -> datetime:
    """The time of `time` ticks, in the zone `tz`: exactly but for the last digit, as Python's times end at 1 us."""
    _number("time", time, int)
    try:
        return (EPOCH + timedelta(microseconds=time // 10)).astimezone(tz)
    except OverflowError:
        raise ValueError(
            f"{time} ticks are outside of the years 1 to 9999, which a datetime can hold"
        ) from None


def timedelta_to_kronos_time(td: timedelta) -> int:
    """The ticks of a duration, exactly."""
    if not isinstance(td, timedelta):
        raise TypeError(f"a timedelta, not a {type(td).__name__}")
    return int(td // _MICROSECOND) * 10 + getattr(td, "nanoseconds", 0) // 100


def epoch_time_to_kronos_time(time: int | float | Decimal | Fraction) -> int:
    """The ticks of `time` seconds since 1970: exactly, or the nearest; a float's own digits end at about 0.2 us."""
    _number("time", time, int, float, Decimal, Fraction)
    if not math.isfinite(time):
        raise ValueError(f"{time} is no time")
    return round(Fraction(time) * TICKS_PER_SECOND)


def kronos_time_to_epoch_time(time: int) -> float:
    """The seconds since 1970 of `time` ticks, as the nearest float."""
    _number("time", time, int)
    return time / TICKS_PER_SECOND


def datetime_to_epoch_time(dt: date) -> float:
    """The seconds since 1970 of a time, as the nearest float."""
    return datetime_to_kronos_time(dt) / TICKS_PER_SECOND


def to_kronos_time(time: int | date | str) -> int:
    """The ticks of what stands for a time: themselves, a datetime or date, or text as ``2014-01-01T00:00:00.5+01:00``.

    Text is ISO 8601, exact to the tick, or anything else that dateutil understands; its zone is an offset, or UTC.
    """
    if isinstance(time, str):
        return _parse(time)
    if isinstance(time, date):
        return datetime_to_kronos_time(time)
    _number("a time", time, int)
    return time


def _microseconds(dt: date) -> int:
    if not isinstance(dt, date):
        raise TypeError(f"a datetime or date, not a {type(dt).__name__}")
    if not isinstance(dt, datetime):
        dt = datetime(dt.year, dt.month, dt.day)
    if dt.tzinfo is None:
        dt = dt.replace(tzinfo=UTC)
    return int((dt - EPOCH) // _MICROSECOND)


def _parse(text: str) -> int:
    try:
        try:
            time = datetime.fromisoformat(text)
        except ValueError:
            time = parser.parse(text, tzinfos=_zone)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{text!r:.80} is no time: {error}; write 2014-01-01T00:00:00+00:00") from None
    fine = _FINE.search(text)
    return datetime_to_kronos_time(time) + (int(fine[1][0]) if fine else 0)


def _zone(name: str | None, offset: int | None) -> int | None:
    if name is not None and offset is None:  # dateutil would warn, and take it for UTC
        raise ValueError(f"the zone {name} is not known; give an offset")
    return offset


def _number(what: str, value: object, *types: type) -> None:
    if not isinstance(value, types) or isinstance(value, bool):
        names = " or ".join(kind.__name__ for kind in types)
        raise TypeError(f"{what} must be {names}, not {type(value).__name__}")
