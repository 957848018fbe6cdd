"""Rows of Python values to JSON texts and the kinds of their columns, on the way into the spool.

What JSON has no form for is spelt as everywhere: bytes as base64, decimals and times as text, NaN and the infinities as
the texts ``NaN``, ``Infinity``, ``-Infinity``. A row that still has none becomes a frame that says why, and so a dead
letter.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

import orjson

from actors.row_types import Kinds, join, kind_of, schema_text, widen

#: Columns that a table may come to have; a source whose keys are values would otherwise have them without end.
MAX_COLUMNS = 2000

#: Bytes kept of a row that is none, and levels of nesting of one that is.
BAD_BYTES = 64 << 10
MAX_DEPTH = 100

_OPTIONS = orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY
_KNOWN = frozenset((type(None), bool, int, float, str, list, dict))


class BadRow(NamedTuple):
    """Something that a source gave in place of a row: why it is none, and what it was."""

    reason: str
    was: object


class RowEncoder:
    """Encodes the rows of one table; :attr:`schema` covers all that it ever encoded.

    Args:
        kinds: of the columns known so far, in their order.
    """

    def __init__(self, kinds: Mapping[str, str] | None = None) -> None:
        self.kinds: Kinds = dict(kinds or {})

    @property
    def schema(self) -> str:
        """The schema of a block of rows encoded so far."""
        return schema_text(self.kinds)

    def encode(self, rows: Iterable[object]) -> list[bytes]:
        """A frame for each row. Never raises for what is in them."""
        return [self._encode(row) for row in rows]

    def _encode(self, row: object) -> bytes:
        if isinstance(row, BadRow):
            return _bad(*row)
        if not isinstance(row, Mapping):
            return _bad(f"a row is a dict, not a {type(row).__name__}", row)
        try:
            text, plain = _dump(dict(row))
        except (TypeError, ValueError, RecursionError) as error:
            return _bad(f"no JSON: {error}", row)
        kinds = self.kinds
        for name, value in plain.items():
            kind = kind_of(value)
            known = kinds.get(name)
            if known is None or join(known, kind) != known:
                if len(kinds.keys() | plain.keys()) > MAX_COLUMNS:
                    return _bad(f"more than {MAX_COLUMNS:,} columns", row)
                kinds = widen(kinds, [(name, kind)])
        self.kinds = kinds
        return text


def _dump(row: dict[Any, Any]) -> tuple[bytes, dict[str, Any]]:
    """A row's text, and its values as they will be read; a float stays one where its text is a name."""
    text = orjson.dumps(row, _default, _OPTIONS)
    # Only such a text can hold what was not finite: JSON's null stands for it.
    if b"null" in text and (spelt := _spell(row)) is not row:
        text = orjson.dumps(spelt, _default, _OPTIONS)
        plain = orjson.loads(text)
        return text, plain | {str(key): float(each) for key, each in row.items() if isinstance(each, float)}
    if all(type(key) is str for key in row) and all(type(value) in _KNOWN for value in row.values()):
        return text, row
    return text, orjson.loads(text)


def _default(value: object) -> Any:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode()
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"there is none for a {type(value).__name__}")


def _spell(value: Any, depth: int = 0) -> Any:
    """`value` itself, or a copy with names in place of numbers that are not finite."""
    if depth > MAX_DEPTH:
        raise ValueError(f"more than {MAX_DEPTH} levels")
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        spelt = {key: _spell(each, depth + 1) for key, each in value.items()}
        return spelt if any(spelt[key] is not each for key, each in value.items()) else value
    if isinstance(value, (list, tuple)):
        items = [_spell(each, depth + 1) for each in value]
        return items if any(a is not b for a, b in zip(items, value, strict=True)) else value
    return value


def _bad(reason: str, was: object) -> bytes:
    try:
        shown = was if isinstance(was, bytes) else repr(was).encode(errors="replace")
    except Exception as error:  # a row's own
        shown = f"its repr raises {type(error).__name__}".encode()
    return b"!%b\n%b" % (" ".join(reason.split()).encode(errors="replace")[:1000], shown[:BAD_BYTES])
