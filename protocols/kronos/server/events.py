"""From the body of a request to events as they are stored: keys and ready-to-send lines.

A line is the event as ASCII JSON with ``@id`` as its first member, so that the key of a stored line can be
read, and the id of a new one changed, at a fixed place. No storage here.
"""

from __future__ import annotations

import json
import threading
import time
import zlib
from dataclasses import dataclass, field
from typing import Any

import orjson

from protocols.kronos import wire
from protocols.kronos.server.origins import Origin, parse_origin

_HEAD = b'{"@id":"'
_ID_END = len(_HEAD) + 36

#: An origin's offset stands in the tail above this many bits, which are for telling equal offsets apart.
_SALT_BITS = 16
_MAX_OFFSET = wire.TAIL_LIMIT >> _SALT_BITS

#: No integer with fewer digits is out of the range of 64 bits.
_LONG_NUMBER = b"0" * 19
_DIGITS = bytes(ord("0") if chr(i).isdigit() and i < 128 else ord(" ") for i in range(256))


def parse_json(body: bytes) -> Any:
    """Decode one JSON value. Raises ``ValueError``, also for integers outside -2^63..2^63-1 and NaN."""
    value = orjson.loads(body)
    # orjson turns integers beyond 64 bits into floats without a word.
    if _LONG_NUMBER in body.translate(_DIGITS):
        try:
            json.loads(body, parse_int=_checked_int)
        except RecursionError:
            raise ValueError("nested too deep") from None
    return value


def _checked_int(text: str) -> None:
    if len(text) > 20 or not -(2**63) <= int(text) < 2**63:
        raise ValueError("integer outside -2^63..2^63-1")


def key_of_line(line: bytes) -> str:
    return wire.key_of_id(line[len(_HEAD) : _ID_END].decode("ascii"))


def next_free(key: str, line: bytes) -> tuple[str, bytes]:
    """The same event under the next tail."""
    tail = (int(key[15:], 16) + 1) % wire.TAIL_LIMIT
    key = f"{key[:15]}{tail:015x}"
    return key, _HEAD + wire.id_of_key(key).encode() + line[_ID_END:]


def origins_in(lines: list[bytes]) -> list[Origin]:
    """The origins that stored lines carry."""
    origins = (orjson.loads(line).get("@origin") for line in lines if b'"@origin"' in line)
    return [parse_origin(origin) for origin in origins if isinstance(origin, str)]


@dataclass
class Batch:
    """Events of one stream, as parallel lists."""

    keys: list[str] = field(default_factory=list)
    lines: list[bytes] = field(default_factory=list)
    origins: list[Origin | None] = field(default_factory=list)


class Tails:
    """Strictly increasing tails for events without an offset: those of one time keep their order of arrival.

    They follow the clock, hence also increase over restarts unless the clock was set back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next = 0

    def take(self, count: int) -> int:
        """The first of `count` consecutive tails."""
        with self._lock:
            first = max(self._next, time.time_ns() // 1000 << 8)
            self._next = first + count
            return first


class Encoder:
    """Turns decoded events into a :class:`Batch`; may be used by several threads."""

    def __init__(self) -> None:
        self._tails = Tails()

    def encode(self, events: list[Any], errors: list[str]) -> Batch:
        """Check, stamp and encode `events` (changed in place); what is wrong with some goes to `errors`."""
        batch = Batch()
        tails = self._tails.take(len(events))
        prefix, salt = None, 0
        for tail, event in enumerate(events, tails):
            if type(event) is not dict:
                errors.append(f"InvalidEvent({event!r:.80}): an event must be an object")
                continue
            event_time = event.get("@time")
            if event_time is None:
                event_time = event["@time"] = wire.now()
            elif type(event_time) is not int or not wire.MIN_TIME <= event_time <= wire.MAX_TIME:
                errors.append(f"InvalidEventTime({event_time!r:.80}): @time must be an integer of 100 ns")
                continue
            text = event.get("@origin")
            origin = parse_origin(text) if type(text) is str else None
            if origin is not None and 0 <= origin.offset < _MAX_OFFSET:
                if origin.prefix != prefix:
                    prefix = origin.prefix
                    # Never 0: a start_id of the lowest tail must stand before all events of its time.
                    salt = zlib.crc32(prefix.encode()) % (1 << _SALT_BITS) or 1
                tail = origin.offset << _SALT_BITS | salt
            event.pop("@id", None)
            key = f"{event_time + wire.UUID_EPOCH_OFFSET:015x}{tail:015x}"
            try:
                line = _encode_line(key, event)
            except RecursionError:
                errors.append("InvalidEvent: nested too deep")
                continue
            batch.keys.append(key)
            batch.lines.append(line)
            batch.origins.append(origin)
        return batch


def _encode_line(key: str, event: dict[str, Any]) -> bytes:
    try:
        text = orjson.dumps(event)
    except TypeError:  # nested deeper than orjson writes
        text = b"\xff"
    if not text.isascii():
        text = json.dumps(event, separators=(",", ":")).encode("ascii")
    return b'{"@id":"%b",%b\r\n' % (wire.id_of_key(key).encode(), text[1:])
