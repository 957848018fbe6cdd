"""Rows that come as JSON to Arrow columns, of the kinds that their block's schema names (``row_types.py``).

=====================  ==========================================================================
kind                   Arrow type
=====================  ==========================================================================
``boolean``            bool
``int``, ``long``      int64
``double``             float64; the texts ``NaN``, ``Infinity`` and ``-Infinity`` stand for those
``string``, ``null``   large_string
``json``               large_string that holds JSON, as a Kinetica column of that type
=====================  ==========================================================================

A frame is the text of a JSON object. One that begins with ``!`` is a row that has none: the reason, a newline, and what
was there. Every frame that is not a row, or whose value is not of its column's kind, is a reject.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from actors.codec.codec import Decoded, Reject
from actors.codec.meaning import TYPE_KEY
from actors.row_types import join, kind_of

#: What a frame begins with that is no row.
BAD = b"!"

_SPECIAL = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}


def _double(value: Any) -> Any:
    return _SPECIAL.get(value, value) if type(value) is str else value


def _json(value: Any) -> Any:
    return None if value is None else orjson.dumps(value).decode()


_TEXT = pa.large_string()
_ARROW: dict[str, tuple[Any, Callable[[Any], Any] | None]] = {
    "boolean": (pa.bool_(), None),
    "int": (pa.int64(), None),
    "long": (pa.int64(), None),
    "double": (pa.float64(), _double),
    "string": (_TEXT, None),
    "null": (_TEXT, None),
    "json": (_TEXT, _json),
}


def decode_rows(frames: Sequence[bytes], kinds: Mapping[str, str]) -> Decoded:
    """Decode `frames`, whose columns are of these kinds. Never raises for what is in them."""
    reasons: dict[int, str] = {}
    rows: list[dict[str, Any]] = []
    for position, frame in enumerate(frames):
        row = _row(frame)
        if isinstance(row, str):
            reasons[position], row = row, {}
        rows.append(row)
    misfits = _check(rows, kinds)
    if misfits:
        reasons |= misfits
    kept = [position for position in range(len(frames)) if position not in reasons]
    good = rows if not reasons else [rows[position] for position in kept]
    arrays, fields = [], []
    for name, kind in kinds.items():
        arrow, convert = _ARROW[kind]
        values = [row.get(name) for row in good]
        arrays.append(pa.array(values if convert is None else [convert(v) for v in values], arrow))
        fields.append(pa.field(name, arrow, metadata={TYPE_KEY: b"json"} if kind == "json" else None))
    batch = _batch(arrays, fields, len(good))
    rejects = tuple(Reject(position, reasons[position], frames[position]) for position in sorted(reasons))
    return Decoded(batch, np.array(kept, np.int64) if reasons else None, rejects)


def _row(frame: bytes) -> dict[str, Any] | str:
    """The row, or why there is none."""
    if frame.startswith(BAD):
        return frame[1:].partition(b"\n")[0].decode(errors="replace")
    try:
        row = orjson.loads(frame)
    except ValueError as error:
        return f"not JSON: {error}"
    return row if isinstance(row, dict) else "JSON, but no object"


def _check(rows: Sequence[Mapping[str, Any]], kinds: Mapping[str, str]) -> dict[int, str]:
    """Position -> what does not fit. The one who wrote the schema saw every row, so it should be nothing."""
    found: dict[int, str] = {}
    for position, row in enumerate(rows):
        for name, value in row.items():
            kind = kinds.get(name)
            if kind is None:
                found.setdefault(position, f"column {name} is not in the schema")
            elif not _fits(value, kind):
                found.setdefault(position, f"column {name}: {kind_of(value)}, not {kind}")
    return found


def _fits(value: Any, kind: str) -> bool:
    if kind == "json" or value is None:
        return True
    if kind == "double" and type(value) is str:
        return value in _SPECIAL
    return join(kind_of(value), kind) == kind


def _batch(arrays: list[Any], fields: list[Any], count: int) -> Any:
    if arrays:
        return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))
    # Rows without a column still are rows.
    empty = pa.array([{}] * count, pa.struct([]))
    return pa.RecordBatch.from_struct_array(empty)
