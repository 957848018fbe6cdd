"""What a value of each column type may be, and how it is read from text and from JSON.

Not here: the wire form of rows (``rows.py``) or how they are stored (``table.py``). Source of the types:
Kinetica's column properties; values are kept as sent, never rewritten to a canonical form.
"""

from __future__ import annotations

import ipaddress
import json
import math
import re
import struct
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time
from functools import lru_cache
from typing import Any

from protocols.kinetica.server.errors import RequestError
from protocols.kinetica.server.sql import evaluate
from protocols.kinetica.types import Column, TableType

#: Longest text of a value that an error message repeats, in characters.
SHOWN = 60

#: SQLite's limit of 2,000 columns, less the two of the server's own.
MAX_COLUMNS = 1_998

_DECIMAL = re.compile(r"[+-]?(?:([0-9]+)(?:\.[0-9]*)?|\.[0-9]+)")
_TIME = r"[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?"
_TIME_ONLY = re.compile(_TIME)
_DATE_ONLY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_DATE_AND_TIME = re.compile(rf"([0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}})[ T]({_TIME})")
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_PROPERTY = re.compile(r"([a-z_0-9]+?)(?:\((.*)\))?", re.DOTALL)

_INTEGER_RANGES = {"int8": (-(2**7), 2**7 - 1), "int16": (-(2**15), 2**15 - 1), "boolean": (0, 1)}
_INT_RANGE = (-(2**31), 2**31 - 1)
_LONG_RANGE = (-(2**63), 2**63 - 1)
_CHAR_SIZES = {f"char{size}": size for size in (1, 2, 4, 8, 16, 32, 64, 128, 256)}

#: Specific types and the base types that they may stand on.
_BASES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(_INTEGER_RANGES, ("int",)),
    **dict.fromkeys(_CHAR_SIZES, ("string",)),
    **dict.fromkeys(
        ("date", "time", "datetime", "decimal", "ulong", "uuid", "ipv4", "json", "array"), ("string",)
    ),
    "timestamp": ("long",),
    "wkt": ("string", "bytes"),
    "vector": ("bytes",),
}

_ARRAY_ITEMS: dict[str, Callable[[Any], bool]] = {
    "int": lambda item: isinstance(item, int) and _INT_RANGE[0] <= item <= _INT_RANGE[1],
    "long": lambda item: isinstance(item, int) and _LONG_RANGE[0] <= item <= _LONG_RANGE[1],
    "ulong": lambda item: isinstance(item, int) and 0 <= item < 2**64,
    "float": lambda item: isinstance(item, int | float),
    "double": lambda item: isinstance(item, int | float),
    "boolean": lambda item: item in (0, 1),
}


def split_property(text: str) -> tuple[str, str | None]:
    """``"decimal(10,3)"`` -> ``("decimal", "10,3")``; the arguments are None if there are no parentheses."""
    match = _PROPERTY.fullmatch(text.strip())
    return (match[1], match[2]) if match else (text, None)


@lru_cache(maxsize=4096)
def specific_type(column: Column) -> str:
    """The property that says what the values mean (``char16``, ``decimal(10,3)``), else the base type."""
    return next((text for text in column.properties if split_property(text)[0] in _BASES), column.base)


def check_columns(table_type: TableType) -> None:
    """Refuse columns that this server cannot hold."""
    if len(table_type.columns) > MAX_COLUMNS:
        raise RequestError(f"a table has at most {MAX_COLUMNS} columns")
    if len({name.casefold() for name in table_type.names}) != len(table_type.names):
        raise RequestError("column names must differ by more than upper and lower case")
    for column in table_type.columns:
        if column.name.startswith("@") or "\0" in column.name:
            raise RequestError(f"column {column.name!r}: a name must not begin with @ nor hold a NUL")
        _check_column_type(column)


def _check_column_type(column: Column) -> None:
    """Refuse a property that does not go with the column's base type, or whose arguments make no sense."""
    name, arguments = split_property(specific_type(column))
    if column.base not in _BASES.get(name, (column.base,)):
        raise RequestError(f"column {column.name}: {name} needs the base type {' or '.join(_BASES[name])}")
    sizes = (arguments or "").split(",")
    if name == "array":
        if sizes[0].strip() not in (*_ARRAY_ITEMS, "string"):
            raise RequestError(f"column {column.name}: array of {sizes[0]!r}; give int, long, float, ...")
        sizes = sizes[1:]
    if arguments is not None and not all(size.strip().isdecimal() for size in sizes):
        raise RequestError(f"column {column.name}: {name}({arguments}) needs whole numbers")


def char_size(column: Column) -> int | None:
    """The most UTF-8 bytes that a charN column takes, None for other columns."""
    return _CHAR_SIZES.get(specific_type(column))


def compares_as_number(column: Column) -> bool:
    """Whether the column is a number that is stored as text."""
    return split_property(specific_type(column))[0] in ("decimal", "ulong")


def find_invalid(column: Column, values: Sequence[Any]) -> list[int]:
    """The indices of the values that the column's type does not allow. Nulls are not looked at."""
    valid = _validator(column)
    if valid is None:
        return []
    return [index for index, value in enumerate(values) if value is not None and not valid(value)]


def describe_invalid(column: Column, value: Any) -> str:
    """One line about a value that :func:`find_invalid` found."""
    shown = repr(value)
    shown = shown if len(shown) <= SHOWN else shown[:SHOWN] + "..."
    return f"column {column.name}: {shown} is not a valid {specific_type(column)}"


@lru_cache(maxsize=4096)
def _validator(column: Column) -> Callable[[Any], bool] | None:
    name, arguments = split_property(specific_type(column))
    if column.base == "int":
        low, high = _INTEGER_RANGES.get(name, _INT_RANGE)
        return lambda value: bool(low <= value <= high)
    if name in _CHAR_SIZES:
        size = _CHAR_SIZES[name]
        return lambda value: len(value.encode()) <= size
    if name == "decimal":
        return _decimal_validator(arguments)
    if name == "array":
        return _array_validator(arguments or "string")
    if name == "vector":
        length = 4 * int(arguments) if arguments else None
        return lambda value: len(value) == length if length is not None else len(value) % 4 == 0
    simple: dict[str, Callable[[str], bool]] = {
        "date": _is_date,
        "time": _is_time,
        "datetime": _is_datetime,
        "ulong": lambda value: (
            value.isascii() and value.isdigit() and len(value) <= 20 and int(value) < 2**64
        ),
        "uuid": lambda value: _UUID.fullmatch(value) is not None,
        "ipv4": _is_ipv4,
        "json": lambda value: _parses(value, lambda parsed: True),
    }
    return simple.get(name)


def _decimal_validator(arguments: str | None) -> Callable[[str], bool]:
    precision, _, scale = (arguments or "").partition(",")
    whole_digits = int(precision) - int(scale or 0) if precision else None

    def valid(value: str) -> bool:
        match = _DECIMAL.fullmatch(value)
        if match is None:
            return False
        return whole_digits is None or len((match[1] or "").lstrip("0")) <= whole_digits

    return valid


def _array_validator(arguments: str) -> Callable[[str], bool]:
    item_type, _, count = arguments.partition(",")
    most = int(count) if count else None
    if item_type.strip() == "string":
        # The official client writes lists of strings without quotes, so no more than the brackets can be
        # checked.
        return lambda value: value.startswith("[") and value.endswith("]")
    item_valid = _ARRAY_ITEMS[item_type.strip()]
    return lambda value: _parses(
        value,
        lambda parsed: (
            isinstance(parsed, list)
            and (most is None or len(parsed) <= most)
            and all(item is None or item_valid(item) for item in parsed)
        ),
    )


def _parses(value: str, accept: Callable[[Any], bool]) -> bool:
    try:
        return accept(json.loads(value))
    except (ValueError, RecursionError):
        return False


def _is_date(value: str) -> bool:
    if not value:  # kept as an unset date, as Kinetica does
        return True
    try:
        return _DATE_ONLY.fullmatch(value) is not None and date.fromisoformat(value) is not None
    except ValueError:
        return False


def _is_time(value: str) -> bool:
    if not value:
        return True
    try:
        # fromisoformat takes three or six fraction digits before Python 3.11; the whole seconds decide here.
        return _TIME_ONLY.fullmatch(value) is not None and time.fromisoformat(value[:8]) is not None
    except ValueError:
        return False


def _is_datetime(value: str) -> bool:
    match = _DATE_AND_TIME.fullmatch(value)
    return not value or (match is not None and _is_date(match[1]) and _is_time(match[2]))


def _is_ipv4(value: str) -> bool:
    try:
        return ipaddress.IPv4Address(value) is not None
    except ValueError:
        return False


def from_text(column: Column, text: str) -> Any:
    """Read a value given as text, as updates and default values have it; bytes are one character each."""
    try:
        if column.base in ("int", "long"):
            return _in_range(column, int(text))
        if column.base in ("float", "double"):
            return _as_float(column, float(text))
        return text.encode("latin-1") if column.base == "bytes" else text
    except ValueError as error:
        raise RequestError(f"column {column.name}: {text[:SHOWN]!r} is not a {column.base}") from error


def to_text(value: Any) -> str:
    """The inverse of :func:`from_text`."""
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def from_json(column: Column, value: Any) -> Any:
    """Read a value of a parsed JSON record; bytes are one character U+0000..U+00FF each."""
    if value is None and column.nullable:
        return None
    if column.base in ("int", "long") and isinstance(value, int):
        return from_text(column, str(int(value)))
    if column.base in ("float", "double") and isinstance(value, int | float) and not isinstance(value, bool):
        return _as_float(column, float(value))
    if isinstance(value, str) and column.base not in ("int", "long"):
        return from_text(column, value)
    if isinstance(value, list | dict) and column.base == "string":
        return json.dumps(value, ensure_ascii=False)
    raise RequestError(f"column {column.name}: {str(value)[:SHOWN]!r} is not a {column.base}")


def _in_range(column: Column, value: int) -> int:
    low, high = _INT_RANGE if column.base == "int" else _LONG_RANGE
    if not low <= value <= high:
        raise ValueError(f"out of range for {column.base}")
    return value


def _as_float(column: Column, value: float) -> float:
    if column.base == "float":
        try:
            struct.pack("<f", value)
        except OverflowError:
            return math.copysign(math.inf, value)
    return value


def fill_value(column: Column) -> Any:
    """The value of a column that a record leaves out: its default, else now or a new UUID, else null.

    Raises :class:`RequestError` if the column has none of them.
    """
    for text in column.properties:
        name, arguments = split_property(text)
        if name == "default" and arguments is not None:
            value = evaluate(arguments)
            return None if value is None else from_text(column, to_text(value))
        if name == "init_with_now":
            return _now(column)
        if name == "init_with_uuid":
            return str(uuid.uuid4())
    if column.nullable:
        return None
    raise RequestError(f"column {column.name} is missing, is not nullable and has no default")


def _now(column: Column) -> Any:
    now = datetime.now(UTC)
    if column.base == "long":
        return int(now.timestamp() * 1000)
    text = now.strftime("%Y-%m-%d %H:%M:%S.") + f"{now.microsecond // 1000:03}"
    return {"date": text[:10], "time": text[11:]}.get(specific_type(column), text)
