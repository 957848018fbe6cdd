"""Kronos' wire format: times, event ids and their order, names, and the shapes of requests.

Shared by the client and the embedded server. Events are JSON objects in named streams; the server gives each
an ``@id``, a version-1 UUID made of its ``@time`` and a 60-bit *tail*. Inside, an id is handled as its *key*:
30 hex digits, time then tail, whose order as text is the order of events.

Not here: sockets (``client.py``), storage (``server``), errors (``errors.py``).

Source of the format: the behaviour of the Kronos 0.6.2 server and its clients on the wire.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Any

DEFAULT_PORT = 8150

INDEX = "/1.0/index"
PUT = "/1.0/events/put"
GET = "/1.0/events/get"
DELETE = "/1.0/events/delete"
STREAMS = "/1.0/streams"
INFER_SCHEMA = "/1.0/streams/infer_schema"

#: Each item of a streamed reply (events, stream names) ends with it.
LINE_END = b"\r\n"

#: Ticks of 100 ns between 1582-10-15, where the times of version-1 UUIDs begin, and 1970-01-01.
UUID_EPOCH_OFFSET = 0x01B21DD213814000
#: The times that an id can hold, in ticks of 100 ns since 1970; MAX_TIME as end_time means "for ever".
MIN_TIME = -UUID_EPOCH_OFFSET
MAX_TIME = 2**60 - 1 - UUID_EPOCH_OFFSET
#: Tails are below it.
TAIL_LIMIT = 2**60

#: `limit` of a get that names none.
NO_LIMIT = 2**31 - 1

_STREAM_NAME = re.compile(r"[A-Za-z0-9_.-]{1,2048}")
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def now() -> int:
    """The clock in ticks of 100 ns since 1970."""
    return time.time_ns() // 100


def is_stream_name(name: object) -> bool:
    return isinstance(name, str) and _STREAM_NAME.fullmatch(name) is not None


def make_key(time: int, tail: int) -> str:
    """The key of an event at `time` (MIN_TIME..MAX_TIME) with `tail` (0..TAIL_LIMIT - 1)."""
    return f"{time + UUID_EPOCH_OFFSET:015x}{tail:015x}"


def id_of_key(key: str) -> str:
    """The ``@id`` that belongs to a key."""
    return f"{key[7:15]}-{key[3:7]}-1{key[:3]}-8{key[15:18]}-{key[18:]}"


def key_of_id(event_id: str) -> str:
    """The key of an ``@id`` given by :func:`id_of_key`."""
    return event_id[15:18] + event_id[9:13] + event_id[:8] + event_id[20:23] + event_id[24:]


def key_before(time: int) -> str:
    """A text below the keys of all events at or after `time`, and above those of all earlier ones."""
    return f"{time + UUID_EPOCH_OFFSET:015x}" if time <= MAX_TIME else "~"


def key_after(time: int) -> str:
    """A text above the keys of all events at or before `time`, and below those of all later ones."""
    return f"{time + UUID_EPOCH_OFFSET:015x}~" if time >= MIN_TIME else ""


def key_of_start_id(start_id: object) -> str:
    """The place of a ``start_id`` in the order of keys; it need not be the id of an event.

    Raises ``ValueError`` unless it is the canonical text of a UUID, in either case.
    """
    text = start_id.lower() if isinstance(start_id, str) and start_id.isascii() else ""
    if not _ID.fullmatch(text):
        raise ValueError(f"start_id {start_id!r:.80} is not the canonical text of a UUID")
    kind = text[14] + text[19]
    if kind == "18":
        return key_of_id(text)
    # No event has such an id: among those of its time it stands before or after all.
    return key_of_id(text)[:15] + ("" if kind < "18" else "~")


@dataclass(frozen=True)
class Range:
    """What a get or delete asks for: the events of `stream` with `low` < key < `high`."""

    stream: str
    low: str
    high: str


def parse_range(request: dict[str, Any]) -> Range:
    """Read stream, end_time, and start_id or start_time (default 0) from a get or delete request.

    Both times are inclusive, start_id is exclusive and wins over start_time. Raises ``ValueError`` with one
    line.
    """
    stream = parse_stream(request)
    start = _integer(request, "start_time", 0)
    end = _integer(request, "end_time", None)
    start_id = request.get("start_id")
    low = key_before(max(start, MIN_TIME)) if start_id in (None, "") else key_of_start_id(start_id)
    return Range(stream, low, key_after(min(end, MAX_TIME)))


def parse_stream(request: dict[str, Any]) -> str:
    """The stream that a request names. Raises ``InvalidStreamName``."""
    stream = request.get("stream")
    if not is_stream_name(stream):
        raise InvalidStreamName(stream)
    return str(stream)


def parse_limit(request: dict[str, Any]) -> int:
    """The limit of a get request; 0 or less means no events. Raises ``ValueError`` with one line."""
    return _integer(request, "limit", NO_LIMIT)


class InvalidStreamName(ValueError):
    """A stream's name is missing or breaks the rule."""

    def __init__(self, name: object) -> None:
        super().__init__(f"invalid stream name {name!r:.80}: use 1 to 2048 of A-Z a-z 0-9 _ - .")


def _integer(request: dict[str, Any], name: str, default: int | None) -> int:
    value = request.get(name, default)
    try:
        if isinstance(value, int | float | str):
            return int(value)
    except (ValueError, OverflowError):
        pass
    raise ValueError(f"{name} must be an integer, not {value!r:.80}")
