"""V3IO's wire format: names of headers and functions, error codes, typed attribute values.

Shared by the client and the embedded server. A table item's attribute travels as an object of one key that
names its type: ``{"N": "42"}``. Arrays are blobs with a header of their own.

Not here: sockets (``client.py``), storage and expressions (``server``), errors (``errors.py``).

Source of the format: requests and replies of the official ``v3io`` 0.7.2 client, and V3IO's public reference
of its data-plane web API for what only a server decides.
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
from array import array
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from urllib.parse import quote

DEFAULT_PORT = 8081

FUNCTION_HEADER = "X-v3io-function"
SESSION_HEADER = "X-v3io-session-key"
#: Its value is a condition expression that holds until the item is written again.
VERIFIER_HEADER = "X-v3io-transaction-verifier"

#: ``UpdateMode`` of a PutItem that keeps the attributes which it does not name.
MERGE = "CreateOrReplaceAttributes"

#: ``ErrorCode`` of replies; the small ones are negated errno numbers.
NOT_PERMITTED = -1
NO_SUCH_FILE = -2
PERMISSION_DENIED = -13
NOT_A_DIRECTORY = -20
IS_A_DIRECTORY = -21
FILE_TOO_LARGE = -27
DIRECTORY_NOT_EMPTY = -39
CONDITION_FALSE = -16777244
UNAVAILABLE = -117440512
INVALID_ARGUMENT = -201326592
SHARD_OUT_OF_RANGE = -201326594

#: Most records in a PutRecords, and most bytes of its body.
MAX_RECORDS = 1000
MAX_RECORDS_BYTES = 10 * 1024 * 1024
#: Most bytes of a record's data, and of its partition key.
MAX_RECORD_BYTES = 1024 * 1024
MAX_PARTITION_KEY_BYTES = 256
#: Most bytes of a string attribute, of any other, and of an item.
MAX_STRING_BYTES = 61_200
MAX_ATTRIBUTE_BYTES = 1024 * 1024
MAX_ITEM_BYTES = 1536 * 1024

#: Integers of attributes fit 64 bits, with or without a sign.
MIN_INTEGER = -(2**63)
MAX_INTEGER = 2**64 - 1

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_INTEGER = re.compile(r"[+-]?[0-9]{1,20}")
_FLOAT = re.compile(r"[+-]?(([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|nan|inf(inity)?)", re.IGNORECASE)
_TIMESTAMP = re.compile(r"(-?[0-9]{1,18}):([0-9]{1,9})")

#: An array's header: magic number, version, bytes of the values, type of the values.
_ARRAY_HEADER = struct.Struct("<4I")
_ARRAY_MAGIC = 11223344
_ARRAY_VERSION = 1
_ARRAY_INTEGERS = 259
_ARRAY_DOUBLES = 261

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Timestamp(NamedTuple):
    """A moment: seconds since 1970, rounded down, and nanoseconds after that."""

    seconds: int
    nanoseconds: int

    @classmethod
    def of(cls, moment: datetime) -> Timestamp:
        """From a datetime, exactly; one without a zone is local time."""
        since = moment.astimezone(UTC) - _EPOCH
        return cls(since.days * 86_400 + since.seconds, since.microseconds * 1000)

    def datetime(self) -> datetime:
        """In UTC, rounded down to microseconds. Raises ``OverflowError`` outside the years 1 to 9999."""
        return _EPOCH + timedelta(seconds=self.seconds, microseconds=self.nanoseconds // 1000)


#: What an attribute can hold. An array holds integers or doubles, never both.
Value = bool | int | float | str | bytes | list[int] | list[float] | Timestamp


def is_attribute_name(name: object) -> bool:
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def encode_value(value: object) -> dict[str, Any]:
    """The typed form of an attribute's value; accepts datetimes and arrays of the standard library as well.

    Raises ``TypeError`` for a type that V3IO does not have, ``ValueError`` for an integer beyond 64 bits.
    """
    if isinstance(value, bool):
        return {"BOOL": value}
    if isinstance(value, str):
        return {"S": value}
    if isinstance(value, int):
        if not MIN_INTEGER <= value <= MAX_INTEGER:
            raise ValueError(f"an integer of {value.bit_length()} bits does not fit 64")
        return {"N": str(value)}
    if isinstance(value, float):
        return {"N": repr(value)}
    if isinstance(value, bytes | bytearray):
        return {"B": encode_base64(value)}
    if isinstance(value, list):
        return {"B": encode_base64(_encode_array(value, bool(value) and isinstance(value[0], float)))}
    if isinstance(value, array) and value.typecode not in "uw":
        return {"B": encode_base64(_encode_array(value.tolist(), value.typecode in "fd"))}
    if isinstance(value, datetime):
        value = Timestamp.of(value)
    if isinstance(value, Timestamp):
        return {"TS": f"{value.seconds}:{value.nanoseconds}"}
    raise TypeError(f"V3IO has no attributes of type {type(value).__name__}")


def decode_value(typed: object) -> Value:
    """The value of a typed attribute. Raises ``ValueError`` with one line if it is malformed."""
    if not isinstance(typed, dict) or len(typed) != 1:
        raise ValueError(f'an attribute must look like {{"N": "42"}}, not {typed!r:.80}')
    [(kind, value)] = typed.items()
    if kind == "BOOL" and isinstance(value, bool):
        return value
    if kind == "S" and isinstance(value, str | int | float) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, str):
        if kind == "N":
            return decode_number(value)
        if kind == "TS" and (match := _TIMESTAMP.fullmatch(value)):
            return Timestamp(int(match[1]), int(match[2]))
        if kind == "B":
            return _decode_blob(value)
    raise ValueError(f"not a typed attribute value: {typed!r:.80}")


def decode_number(text: str) -> int | float:
    """The number of an ``N`` value: an integer of 64 bits if it looks like one, else a double."""
    if _INTEGER.fullmatch(text) and MIN_INTEGER <= (number := int(text)) <= MAX_INTEGER:
        return number
    if not _INTEGER.fullmatch(text) and len(text) <= 1000 and _FLOAT.fullmatch(text):
        return float(text)
    raise ValueError(f"{text!r:.80} is not an integer of 64 bits or a double")


def encode_attributes(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The typed form of attributes by name; errors name the attribute."""
    typed = {}
    for name, value in values.items():
        if not is_attribute_name(name):
            raise ValueError(f"{name!r:.80} cannot name an attribute: use A-Z a-z 0-9 _, no digit first")
        try:
            typed[name] = encode_value(value)
        except (TypeError, ValueError) as error:
            raise type(error)(f"attribute {name}: {error}") from None
    return typed


def decode_attributes(typed: Mapping[str, Any]) -> dict[str, Value]:
    return {name: decode_value(value) for name, value in typed.items()}


def quote_path(container: str, path: str) -> str:
    """The percent-encoded path of a URL.

    Raises ``ValueError`` for the names ``.`` and ``..``, which HTTP software takes for other directories.
    """
    if not {".", ".."}.isdisjoint(path.split("/")):
        raise ValueError(f"{path!r:.80}: V3IO cannot have things named . or ..")
    return f"/{quote(container, safe='')}/{quote(path)}"


def encode_base64(data: bytes | bytearray) -> str:
    return base64.b64encode(data).decode("ascii")


def decode_base64(text: object) -> bytes:
    """Raises ``ValueError`` with one line."""
    try:
        if isinstance(text, str):
            return base64.b64decode(text, validate=True)
    except binascii.Error:
        pass
    raise ValueError(f"not base64: {text!r:.80}")


def _encode_array(values: list[Any], doubles: bool) -> bytes:
    allowed = (int, float) if doubles else int
    if any(isinstance(value, bool) or not isinstance(value, allowed) for value in values):
        raise TypeError("an array holds either integers or doubles")
    kind, code = (_ARRAY_DOUBLES, "d") if doubles else (_ARRAY_INTEGERS, "q")
    try:
        data = struct.pack(f"<{len(values)}{code}", *values)
    except (struct.error, OverflowError):
        raise ValueError("an integer of an array does not fit 64 bits with a sign") from None
    return _ARRAY_HEADER.pack(_ARRAY_MAGIC, _ARRAY_VERSION, len(data), kind) + data


def _decode_blob(text: str) -> bytes | list[int] | list[float]:
    """Bytes, or the values of an array if they are one."""
    blob = decode_base64(text)
    if len(blob) < _ARRAY_HEADER.size:
        return blob
    magic, version, size, kind = _ARRAY_HEADER.unpack_from(blob)
    code = {_ARRAY_INTEGERS: "q", _ARRAY_DOUBLES: "d"}.get(kind)
    whole = size == len(blob) - _ARRAY_HEADER.size and size % 8 == 0
    if (magic, version) != (_ARRAY_MAGIC, _ARRAY_VERSION) or code is None or not whole:
        return blob
    return list(struct.unpack_from(f"<{size // 8}{code}", blob, _ARRAY_HEADER.size))
