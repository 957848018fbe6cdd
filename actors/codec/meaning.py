"""What a column's values mean: wire types to Arrow types by Kinetica's properties, whole columns at once.

=============================  ===============================================================================
property                       Arrow type
=============================  ===============================================================================
``boolean``                    bool; 0 and 1 only
``int8``, ``int16``            int8, int16
``timestamp``                  timestamp[ms, UTC]
``date``                       date32
``time``, ``datetime``         time64[us], timestamp[us]: the wire allows up to six fraction digits, so every
                               block of a column has the same type and loses nothing. ``T`` may stand between
                               date and time
``decimal``, ``decimal(p,s)``  decimal128(p, s). The default, (18,4), is a 64-bit fixed-point number of up to
                               19 digits at the source, hence decimal128(19, 4)
``ulong``                      uint64
``vector(n)``                  fixed-size list of n float32
``array(T[,n])``               list of T (``n`` is not enforced)
``json``                       text, checked to be JSON
``char1`` ... ``char256``      text of at most that many UTF-8 bytes
``uuid``, ``ipv4``, ``wkt``    the value as it is (text; for ``wkt`` perhaps WKB bytes)
none of these                  int32, int64, float32, float64, large_string, large_binary
=============================  ===============================================================================

Every field is nullable, so that its type outlives ``ALTER TABLE``. A field with one of these properties has
it as metadata under :data:`TYPE_KEY`. A value that its type cannot hold makes its row a reject, not a null.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from protocols.kinetica.columns import WIRE_TYPES
from protocols.kinetica.types import Column

#: Field metadata: Kinetica's property that says what the column means, for example ``decimal(10,3)``.
TYPE_KEY = b"tablecast.type"

Convert = Callable[[Any], Any]

#: What converters raise for values that do not fit; Arrow's own errors derive from the first two.
_MISFIT = (ValueError, TypeError, OverflowError, RecursionError)

#: Days from 1970-01-01 to 0001-01-01, the first day that Python and most sinks know.
_FIRST_DAY = -719_162

_PROPERTY = re.compile(r"(\w+)(?:\(([^)]*)\))?")


@dataclass(frozen=True)
class Meaning:
    """A column's Arrow field, and the conversion of its wire values (None: they are what they are)."""

    field: Any
    convert: Convert | None

    def apply(self, values: Any) -> tuple[Any, list[int]]:
        """Convert an array; rows whose value does not fit become null, and are returned."""
        if self.convert is None:
            return values, []
        bad: list[int] = []
        pieces = self._pieces(self.convert, values, 0, bad)
        return pieces[0] if len(pieces) == 1 else pa.concat_arrays(pieces), bad

    def _pieces(self, convert: Convert, values: Any, start: int, bad: list[int]) -> list[Any]:
        """Convert in one piece if possible, else in halves of halves, down to the values that do not fit."""
        try:
            return [convert(values)]
        except _MISFIT:
            half = len(values) // 2
            if not half:
                bad.append(start)
                return [pa.nulls(1, self.field.type)]
            first = self._pieces(convert, values[:half], start, bad)
            return first + self._pieces(convert, values[half:], start + half, bad)

    def complaint(self, value: Any) -> str:
        """Why `value` made its row a reject."""
        kind = self.field.metadata[TYPE_KEY].decode()
        return f"column {self.field.name}: {shorten(value)} is not a valid {kind}"


def meaning_of(column: Column, *, raw: bool = False) -> Meaning:
    """The meaning of `column` by the first of its properties that gives one; with `raw`, its wire type."""
    wire = WIRE_TYPES[column.base]
    for text in () if raw else column.properties:
        match = _PROPERTY.fullmatch(text.strip())
        rule = _RULES.get((match[1], column.base)) if match else None
        if match and rule:
            try:
                arrow, convert = rule(match[2].split(",") if match[2] else [])
            except (ValueError, KeyError, IndexError):
                continue  # parameters that are not understood, such as a later server's: keep the wire value
            return Meaning(pa.field(column.name, arrow or wire, metadata={TYPE_KEY: text.strip()}), convert)
    return Meaning(pa.field(column.name, wire), None)


def shorten(value: Any, limit: int = 60) -> str:
    """A value as it appears in reasons: its repr, cut to `limit` characters."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def _check_lengths(values: Any, allowed: Callable[[Any], Any]) -> None:
    lengths = pc.binary_length(values).drop_null().to_numpy(zero_copy_only=False)
    if not allowed(lengths).all():
        raise ValueError("length")


def _char(limit: int) -> Convert:
    def convert(values: Any) -> Any:
        if (pc.max(pc.binary_length(values)).as_py() or 0) > limit:
            raise ValueError("too long")
        return values

    return convert


def _boolean(values: Any) -> Any:
    bounds = pc.min_max(values).as_py()
    if bounds["max"] is not None and (bounds["min"] < 0 or bounds["max"] > 1):
        raise ValueError("neither 0 nor 1")
    return values.cast(pa.bool_())


def _date(values: Any) -> Any:
    dates = values.cast(pa.date32())
    first = pc.min(dates.cast(pa.int32())).as_py()
    if first is not None and first < _FIRST_DAY:
        raise ValueError("year 0")
    return dates


def _time(values: Any) -> Any:
    # HH:MM:SS and up to six fraction digits; the cast, which would also take HH:MM, checks the rest.
    _check_lengths(values, lambda n: (n == 8) | (n >= 10) & (n <= 15))
    dated = pc.binary_join_element_wise(
        pa.scalar("1970-01-01", values.type), values, pa.scalar(" ", values.type)
    )
    return dated.cast(pa.timestamp("us")).cast(pa.time64("us"))


def _datetime(values: Any) -> Any:
    _check_lengths(values, lambda n: (n == 19) | (n >= 21) & (n <= 26))
    instants = values.cast(pa.timestamp("us"))
    first = pc.min(instants.cast(pa.int64())).as_py()
    if first is not None and first < _FIRST_DAY * 86_400_000_000:
        raise ValueError("year 0")
    return instants


def _ulong(values: Any) -> Any:
    if pc.all(pc.ascii_is_decimal(values)).as_py() is False:
        raise ValueError("not decimal digits")
    return values.cast(pa.uint64())


def _decimal(parameters: Sequence[str]) -> tuple[Any, Convert]:
    precision, scale = map(int, parameters) if parameters else (18, 4)
    kind = pa.decimal128(19 if (precision, scale) == (18, 4) else precision, scale)
    return kind, lambda values: values.cast(kind)


def _vector(parameters: Sequence[str]) -> tuple[Any, Convert]:
    size = int(parameters[0])
    if size < 1:
        raise ValueError("a vector has at least one element")
    kind = pa.list_(pa.float32(), size)

    def convert(values: Any) -> Any:
        _check_lengths(values, lambda lengths: lengths == 4 * size)
        present = values.drop_null()  # a null may have bytes
        bounds = np.frombuffer(present.buffers()[1], np.int64)[present.offset :][: len(present) + 1]
        floats = np.frombuffer(present.buffers()[2] or b"", np.uint8)[bounds[0] : bounds[-1]].view("<f4")
        if not values.null_count:
            return pa.FixedSizeListArray.from_arrays(pa.array(floats), type=kind)
        valid = values.is_valid().to_numpy(zero_copy_only=False)
        spread = np.zeros((len(values), size), "<f4")
        spread[valid] = floats.reshape(-1, size)
        return pa.FixedSizeListArray.from_arrays(
            pa.array(spread.reshape(-1)), type=kind, mask=pa.array(~valid)
        )

    return kind, convert


def _parse_json(texts: list[str]) -> list[Any]:
    """Parse each text as JSON in one call. Raises ``ValueError`` if any of them is not exactly one value."""
    # A random mark between the texts: none of them can contain it, so none can reach beyond its place.
    mark = f'"{secrets.token_hex(16)}"'
    values = orjson.loads(f"[{f',{mark},'.join([*texts, 'null'])}]")
    marks = values[1::2]
    if len(values) != 2 * len(texts) + 1 or marks.count(mark[1:-1]) != len(texts):
        raise ValueError("not JSON")
    return list(values[:-1:2])


def _json(values: Any) -> Any:
    _parse_json(values.drop_null().to_pylist())
    return values


#: Element types of arrays: their Arrow type and the JSON types they may come as.
_ELEMENTS: dict[str, tuple[Any, set[type]]] = {
    "boolean": (pa.bool_(), {bool}),
    "int": (pa.int32(), {int}),
    "long": (pa.int64(), {int}),
    "ulong": (pa.uint64(), {int}),
    "float": (pa.float32(), {int, float}),
    "double": (pa.float64(), {int, float}),
    "string": (pa.large_string(), {str}),
}


def _array(parameters: Sequence[str]) -> tuple[Any, Convert]:
    element, allowed = _ELEMENTS[parameters[0].strip()]
    kind = pa.list_(element)

    def convert(values: Any) -> Any:
        present = values.drop_null().to_pylist()
        try:
            lists = _parse_json(present)
        except ValueError:
            if len(present) > 1:
                raise
            lists = [json.loads(present[0])]  # as single values, NaN and the infinities pass too
        if not all(type(items) is list for items in lists):
            raise ValueError("not a list")
        if not set(map(type, chain.from_iterable(lists))) <= allowed | {type(None)}:
            raise ValueError("not a list of its type")
        if not values.null_count:
            return pa.array(lists, kind)
        following = iter(lists)
        valid = values.is_valid().to_pylist()
        return pa.array([next(following) if there else None for there in valid], kind)

    return kind, convert


_TIMESTAMP = pa.timestamp("ms", "UTC")

Rule = Callable[[Sequence[str]], tuple[Any, Convert | None]]


def _rule(arrow: Any, convert: Convert | None) -> Rule:
    return lambda parameters: (arrow, convert)


def _cast(arrow: Any) -> Rule:
    return lambda parameters: (arrow, lambda values: values.cast(arrow))


#: By property and wire type: makes an Arrow type (None: the wire type) and a conversion from the parameters.
_RULES: dict[tuple[str, str], Rule] = {
    ("boolean", "int"): _rule(pa.bool_(), _boolean),
    ("int8", "int"): _cast(pa.int8()),
    ("int16", "int"): _cast(pa.int16()),
    ("timestamp", "long"): _rule(_TIMESTAMP, lambda values: values.view(_TIMESTAMP)),
    ("date", "string"): _rule(pa.date32(), _date),
    ("time", "string"): _rule(pa.time64("us"), _time),
    ("datetime", "string"): _rule(pa.timestamp("us"), _datetime),
    ("decimal", "string"): _decimal,
    ("ulong", "string"): _rule(pa.uint64(), _ulong),
    ("json", "string"): _rule(None, _json),
    ("array", "string"): _array,
    ("vector", "bytes"): _vector,
    ("uuid", "string"): _rule(None, None),
    ("ipv4", "string"): _rule(None, None),
    ("wkt", "string"): _rule(None, None),
    ("wkt", "bytes"): _rule(None, None),
    **{(f"char{n}", "string"): _rule(None, _char(n)) for n in (1, 2, 4, 8, 16, 32, 64, 128, 256)},
}
