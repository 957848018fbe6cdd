"""Kronos' wire format: times, event ids and their order, names, and the shapes of requests.

Shared by the client and the embedded server. Events are JSON objects in named streams; the server gives each
an ``@id``, a version-1 UUID made of its ``@time`` and a 60-bit *tail*. Inside, an id is handled as its *key*,
the integer of 120 bits that has the time's 60 bits above the tail: the order of keys is the order of events.

Not here: sockets (``client.py``), storage (``server``), errors (``errors.py``).

Source of the format: the behaviour of the Kronos 0.6.2 server and its clients on the wire.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson

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
TAIL_BITS = 60

#: Fields of events and of replies that are Kronos' own.
ID_FIELD = "@id"
TIMESTAMP_FIELD = "@time"
LIBRARY_FIELD = "@library"
SUCCESS_FIELD = "@success"
ERRORS_FIELD = "@errors"

#: `limit` of a get that names none.
NO_LIMIT = 2**31 - 1

STREAM_NAME = re.compile(r"[A-Za-z0-9_.-]{1,2048}")
STREAM_RULE = "use 1 to 2048 of A-Z a-z 0-9 _ - ."
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class ResultOrder(StrEnum):
    """The order of a get's events; the values are what travels."""

    ASCENDING = "ascending"
    DESCENDING = "descending"


def now() -> int:
    """The clock in ticks of 100 ns since 1970."""
    return time.time_ns() // 100


def is_stream_name(name: object) -> bool:
    return isinstance(name, str) and STREAM_NAME.fullmatch(name) is not None


def first_key(time: int) -> int:
    """The lowest key of an event at `time`, which may be MAX_TIME + 1 as the end of a range."""
    return (time + UUID_EPOCH_OFFSET) << TAIL_BITS


def id_of_key(key: int) -> str:
    """The ``@id`` that belongs to a key."""
    text = f"{key:030x}"
    return f"{text[7:15]}-{text[3:7]}-1{text[:3]}-8{text[15:18]}-{text[18:]}"


def key_of_id(event_id: str) -> int:
    """The key of an ``@id`` given by :func:`id_of_key`."""
    return int(event_id[15:18] + event_id[9:13] + event_id[:8] + event_id[20:23] + event_id[24:], 16)


def first_key_after(start_id: object) -> int:
    """The lowest key that stands after a ``start_id``, which need not be the id of an event.

    Raises ``ValueError`` unless it is the canonical text of a UUID, in either case.
    """
    text = start_id.lower() if isinstance(start_id, str) and start_id.isascii() else ""
    if not _ID.fullmatch(text):
        raise ValueError(f"start_id {start_id!r:.80} is not the canonical text of a UUID")
    key = key_of_id(text)
    kind = text[14] + text[19]
    if kind == "18":
        return key + 1
    # No event has such an id: among those of its time it stands before or after all.
    return (key >> TAIL_BITS) + (kind > "18") << TAIL_BITS


@dataclass(frozen=True)
class Range:
    """What a get or delete asks for: the events of `stream` with `start` <= key < `stop`."""

    stream: str
    start: int
    stop: int


def parse_range(request: dict[str, Any]) -> Range:
    """Read stream, end_time, and start_id or start_time (default 0) from a get or delete request.

    Both times are inclusive, start_id is exclusive and wins over start_time. Raises ``ValueError`` with one
    line.
    """
    stream = parse_stream(request)
    start_time = _integer(request, "start_time", 0)
    end_time = _integer(request, "end_time", None)
    start_id = request.get("start_id")
    if start_id in (None, ""):
        start = first_key(min(max(start_time, MIN_TIME), MAX_TIME + 1))
    else:
        start = first_key_after(start_id)
    return Range(stream, start, first_key(min(max(end_time + 1, MIN_TIME), MAX_TIME + 1)))


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
        super().__init__(f"invalid stream name {name!r:.80}: {STREAM_RULE}")


def put_request(namespace: str | None, events: Iterable[tuple[str, bytes]]) -> bytes:
    """The body of a put: events as (stream, JSON text), which keep their order within each stream."""
    streams: dict[str, list[bytes]] = {}
    for stream, event in events:
        streams.setdefault(stream, []).append(event)
    lists = b",".join(b"%b:[%b]" % (orjson.dumps(name), b",".join(each)) for name, each in streams.items())
    head = b"" if namespace is None else b'"namespace":%b,' % orjson.dumps(namespace)
    return b'{%b"events":{%b}}' % (head, lists)


def _integer(request: dict[str, Any], name: str, default: int | None) -> int:
    value = request.get(name, default)
    try:
        if isinstance(value, int | float | str):
            return int(value)
    except (ValueError, OverflowError):
        pass
    raise ValueError(f"{name} must be an integer, not {value!r:.80}")
