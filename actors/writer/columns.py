"""Columns as JSON texts, a text per row: for sinks whose records are not the events of ``encode.py``.

The texts are those that the same values have in events.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from actors.writer.encode import json_text, plain

#: What stands around a value in a line of the one column ``_``: ``{"_":`` and ``}``.
_BEFORE, _AFTER = 5, -1

#: What JSON has as it is: of ASCII all but controls, the quote and the backslash.
_UNESCAPED = bytes(set(range(0x20, 0x7F)) - set(b'"\\'))


def json_values(field: Any, values: Any) -> Any:
    """The JSON text of each value; null stays null."""
    texts = json_text(field, values)
    if texts is not None:
        return texts
    kind = field.type
    if pa.types.is_integer(kind) and not pa.types.is_uint64(kind):
        return values.cast(pa.large_string())
    if pa.types.is_floating(kind):
        return text_array(pl.Series(values.cast(pa.float64())).cast(pl.String))
    return quoted(plain(values))


def quoted(series: pl.Series) -> Any:
    """The JSON text of each value of a series, as polars writes it; null stays null."""
    if series.dtype == pl.String and is_made_of(texts := text_array(series), _UNESCAPED):
        return joined('"', texts, '"')
    sink = io.BytesIO()
    pl.DataFrame([series.alias("_")]).write_ndjson(sink)
    lines = split_lines(sink.getvalue())
    texts = pc.binary_slice(lines, _BEFORE, _AFTER).cast(pa.large_string())
    if series.null_count():
        known = pa.array(series.is_not_null().to_numpy())
        texts = pc.if_else(known, texts, pa.scalar(None, pa.large_string()))
    return texts


def is_made_of(texts: Any, characters: bytes) -> bool:
    """Whether an array of large strings has no byte but these."""
    view, _ = view_of(texts)
    return not bytes(view).translate(None, characters)


def text_array(series: pl.Series) -> Any:
    """A series of texts as an array."""
    return series.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(pa.large_string())


def split_lines(data: bytes) -> Any:
    """The lines of `data`, each of which ends in a newline, as a binary array without them."""
    ends = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n")) + 1
    offsets = pa.py_buffer(np.concatenate([np.zeros(1, np.int64), ends]))
    whole = pa.Array.from_buffers(pa.large_binary(), len(ends), [None, offsets, pa.py_buffer(data)])
    return pc.binary_slice(whole, 0, -1)


def joined(*parts: Any) -> Any:
    """Texts of rows, put together; parts are columns or text for all rows. Null where a column is."""
    return pc.binary_join_element_wise(*map(_texts, parts), _texts(""))


def listed(parts: Sequence[Any], between: str) -> Any:
    """The texts of each row that are not null, with `between` between them."""
    return pc.binary_join_element_wise(*parts, _texts(between), null_handling="skip")


def _texts(part: Any) -> Any:
    return pa.scalar(part, pa.large_string()) if isinstance(part, str) else part


def buffer_of(texts: Any) -> tuple[bytes, npt.NDArray[np.int64]]:
    """The bytes of an array of texts without nulls, one after the other, and where each ends."""
    view, ends = view_of(texts)
    return bytes(view), ends


def view_of(texts: Any) -> tuple[memoryview, npt.NDArray[np.int64]]:
    """As :func:`buffer_of`, without a copy."""
    bounds = np.frombuffer(texts.buffers()[1], np.int64)[texts.offset : texts.offset + len(texts) + 1]
    if not len(texts):
        return memoryview(b""), np.empty(0, np.int64)
    return memoryview(texts.buffers()[2])[int(bounds[0]) : int(bounds[-1])], bounds[1:] - bounds[0]


def packed(
    ends: npt.NDArray[np.int64], most_bytes: int, most_rows: int, start: int = 0, stop: int | None = None
) -> list[tuple[int, int]]:
    """Split rows, in order, into runs of at most so many bytes and rows; a larger row is a run of its own."""
    stop = len(ends) if stop is None else stop
    runs = []
    while start < stop:
        base = int(ends[start - 1]) if start else 0
        fitting = int(np.searchsorted(ends, base + most_bytes, side="right"))
        end = min(max(fitting, start + 1), start + most_rows, stop)
        runs.append((start, end))
        start = end
    return runs
