"""Events that somebody puts: checked and encoded at the call, so that nothing fails later, in a thread.

Not here: where they go, and how. That is for whoever calls :func:`encode`.
"""

from __future__ import annotations

import json
import math
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from protocols.accumulator import BatchingError
from protocols.kronos.wire import MAX_TIME, MIN_TIME, now

#: What may be an integer that stores refuse, as text of JSON.
_LONG_INTEGER = re.compile(rb"[0-9]{19}")


class InvalidEvent(BatchingError, ValueError):
    """An event cannot be put; the message names it. Nothing of the call was put."""


class Put(NamedTuple):
    """An event on its way: its stream, its text, and its ``@time`` in ticks of 100 ns since 1970."""

    stream: str
    body: bytes
    time: int

    @property
    def event(self) -> dict[str, Any]:
        """The event as it will be stored, but for what is added on the way, such as its ``@origin``."""
        event: dict[str, Any] = orjson.loads(self.body)
        return event


def ticks(time: Any) -> int:
    """`time` itself, if it is an integer that an event's id can hold; else raises ``ValueError``."""
    if type(time) is not int or not MIN_TIME <= time <= MAX_TIME:
        raise ValueError("@time must be an integer of 100 ns since 1970, between the years 1582 and 5236")
    return time


@dataclass(frozen=True)
class Rules:
    """What :func:`encode` takes.

    Attributes:
        stream: what a stream's name must match.
        named: the same in words.
        reserved: keys that are not the caller's to set.
        extra: keys that every event gets, in place of its own.
        time: makes ticks of an event's ``@time``, or raises ``ValueError`` or ``TypeError``.
    """

    stream: re.Pattern[str]
    named: str
    reserved: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    time: Callable[[Any], int] = ticks


class Stamps:
    """Times for events that have none: the clock's, yet each later than the one before."""

    def __init__(self, clock: Callable[[], int] = now) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._last = 0

    def __call__(self) -> int:
        with self._lock:
            self._last = max(self._last + 1, self._clock())
            return self._last


def encode(
    events: Mapping[str, Iterable[Mapping[str, Any]]], stamp: Callable[[], int], rules: Rules
) -> list[Put]:
    """Check and encode events by stream. Raises :class:`InvalidEvent`, which names the first that cannot be put."""
    if not isinstance(events, Mapping):
        raise InvalidEvent(f"put takes {{stream: [event, ...]}}, not a {type(events).__name__}")
    puts = []
    for stream, several in events.items():
        if not isinstance(stream, str) or not rules.stream.fullmatch(stream):
            raise InvalidEvent(f"stream {stream!r:.80}: {rules.named}")
        if isinstance(several, (Mapping, str, bytes)) or not isinstance(several, Iterable):
            raise InvalidEvent(f"stream {stream}: a list of events, not a {type(several).__name__}")
        for place, event in enumerate(several):
            try:
                puts.append(_encode(stream, event, stamp, rules))
            except (TypeError, ValueError) as error:
                raise InvalidEvent(f"{stream}[{place}]: {error}") from None
    return puts


def _encode(stream: str, event: Mapping[str, Any], stamp: Callable[[], int], rules: Rules) -> Put:
    if not isinstance(event, Mapping):
        raise TypeError(f"an event is a dict, not a {type(event).__name__}")
    for key in rules.reserved:
        if key in event:
            raise ValueError(f"{key} is set by the writer; leave it out, or give it another name")
    time = event.get("@time")
    time = stamp() if time is None else rules.time(time)
    whole = {**event, "@time": time, **rules.extra}
    body = orjson.dumps(whole, option=orjson.OPT_PASSTHROUGH_DATACLASS)
    # What orjson writes and a store refuses, or turns into something else, is rare: look closer only at suspects.
    if b"null" in body:
        _refuse_nan(whole)
    if _LONG_INTEGER.search(body):
        json.loads(body, parse_int=_stored_int)
    return Put(stream, body, time)


def _refuse_nan(value: Any) -> None:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value}, which JSON has no form for; put it as text or leave it out")
    elif isinstance(value, Mapping):
        for each in value.values():
            _refuse_nan(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            _refuse_nan(each)


def _stored_int(text: str) -> int:
    if not -(2**63) <= int(text) < 2**63:
        raise ValueError("an integer beyond 64 bits, which stores refuse; put it as text")
    return 0
