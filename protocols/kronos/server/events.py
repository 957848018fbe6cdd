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

import numpy as np
import orjson

from protocols.kronos import wire
from protocols.kronos.server.origins import Origin, parse_origin

_HEAD = b'{"@id":"%b",'
_ID = slice(8, 44)
_HEAD_BYTES = 46

#: An origin's offset stands in the tail above this many bits, which are for telling equal offsets apart.
_SALT_BITS = 16
_MAX_OFFSET = 1 << wire.TAIL_BITS - _SALT_BITS

#: Batches from this size on are worth numpy's overhead.
_VECTORISED = 32

#: No integer with fewer digits is out of the range of 64 bits. Digits become 0, all else a space, but for the point:
#: the digits behind it, of which a small fraction has many, are no integer.
_LONG_INTEGER = b" " + b"0" * 19
_SHAPES = bytes(ord("0") if 48 <= i < 58 else i if i == ord(".") else ord(" ") for i in range(256))


def parse_json(body: bytes) -> Any:
    """Decode one JSON value. Raises ``ValueError``, also for integers outside -2^63..2^63-1 and NaN."""
    value = orjson.loads(body)
    # orjson turns integers beyond 64 bits into floats without a word.
    if _LONG_INTEGER in b" " + body.translate(_SHAPES):
        try:
            json.loads(body, parse_int=_checked_int)
        except RecursionError:
            raise ValueError("nested too deep") from None
    return value


def _checked_int(text: str) -> None:
    if len(text) > 20 or not -(2**63) <= int(text) < 2**63:
        raise ValueError("integer outside -2^63..2^63-1")


def key_of_line(line: bytes) -> int:
    return wire.key_of_id(line[_ID].decode("ascii"))


def next_free(key: int, line: bytes) -> tuple[int, bytes]:
    """The same event under the next tail."""
    tails = 1 << wire.TAIL_BITS
    key = key // tails * tails + (key + 1) % tails
    return key, _heads([key])[0] + line[_HEAD_BYTES:]


def origins_in(lines: list[bytes]) -> list[Origin]:
    """The origins that stored lines carry."""
    origins = (orjson.loads(line).get("@origin") for line in lines if b'"@origin"' in line)
    return [parse_origin(origin) for origin in origins if isinstance(origin, str)]


@dataclass
class Batch:
    """Events of one stream, as parallel lists."""

    keys: list[int] = field(default_factory=list)
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
        texts: list[bytes] = []
        now = wire.now()
        prefix, salt = None, 0
        for tail, event in enumerate(events, self._tails.take(len(events))):
            if type(event) is not dict:
                errors.append(f"InvalidEvent({event!r:.80}): an event must be an object")
                continue
            time = event.get("@time")
            if time is None:
                event["@time"] = time = now
            elif type(time) is not int or not wire.MIN_TIME <= time <= wire.MAX_TIME:
                errors.append(f"InvalidEventTime({time!r:.80}): @time must be an integer of 100 ns")
                continue
            event.pop("@id", None)
            try:
                texts.append(_encode(event))
            except RecursionError:
                errors.append("InvalidEvent: nested too deep")
                continue
            text = event.get("@origin")
            origin = parse_origin(text) if type(text) is str else None
            if origin is not None and 0 <= origin[1] < _MAX_OFFSET:
                if origin[0] != prefix:
                    prefix = origin[0]
                    # Never 0: a start_id of the lowest tail must stand before all events of its time.
                    salt = zlib.crc32(prefix.encode()) % (1 << _SALT_BITS) or 1
                tail = origin[1] << _SALT_BITS | salt
            batch.keys.append((time + wire.UUID_EPOCH_OFFSET) << wire.TAIL_BITS | tail)
            batch.origins.append(origin)
        batch.lines = [head + text for head, text in zip(_heads(batch.keys), texts, strict=True)]
        return batch


def _encode(event: dict[str, Any]) -> bytes:
    """What follows the head of an event's line."""
    try:
        text = orjson.dumps(event)
    except TypeError:  # nested deeper than orjson writes
        text = b"\xff"
    if not text.isascii():
        text = json.dumps(event, separators=(",", ":")).encode("ascii")
    return text[1:] + wire.LINE_END


def _heads(keys: list[int]) -> list[bytes]:
    """The first _HEAD_BYTES of lines, up to and with the comma after the id."""
    if len(keys) < _VECTORISED:
        return [_HEAD % wire.id_of_key(key).encode() for key in keys]
    raw = b"".join([key.to_bytes(16, "big") for key in keys])
    digits = np.frombuffer(raw.hex().encode(), np.uint8).reshape(len(keys), 32)
    heads = np.empty((len(keys), _HEAD_BYTES), np.uint8)
    heads[:] = np.frombuffer(_HEAD % wire.id_of_key(0).encode(), np.uint8)
    # The key's digits: two zeros, time (high 3, middle 4, low 8), tail (3, 12).
    for place, digit, count in ((8, 9, 8), (17, 5, 4), (23, 2, 3), (28, 17, 3), (32, 20, 12)):
        heads[:, place : place + count] = digits[:, digit : digit + count]
    text = heads.tobytes()
    return [text[i : i + _HEAD_BYTES] for i in range(0, len(text), _HEAD_BYTES)]
