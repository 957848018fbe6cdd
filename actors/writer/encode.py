"""Record batches to JSON events, whole columns at a time.

Values read as the official client shows them, made unambiguous:

* integers as numbers; ``ulong`` and ``decimal`` as strings, decimals with all digits of their scale;
* floats by their shortest text that reads back as the same double (a ``float`` is widened first: 0.1 shows
  as 0.10000000149011612); NaN and the infinities as the strings ``NaN``, ``Infinity``, ``-Infinity``;
* ``boolean`` as true or false; ``timestamp`` as integer milliseconds; ``date`` as its text;
* ``time`` and ``datetime`` as text with no fraction when it is zero, three digits for whole milliseconds,
  else six. So the text is the instant stored, but not always its spelling: ``12:00:00.500`` comes back as it
  was, ``12:00:00.000`` as ``12:00:00``;
* text, ``uuid``, ``ipv4`` and WKT as they are; bytes as base64; ``vector`` and ``array`` as lists;
* ``json`` as the stored text, nested (as a string if an integer in it exceeds 64 bits); null as null, the key being
  present.

Events that somebody put (:data:`~actors.batch.EVENT_FIELD`) are JSON already, and get their ``@origin``.

An event's own keys begin with ``@``, so a column whose name does gets ``_`` before it, as often as it takes
to be unlike every other column's name.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from actors.batch import Batch
from actors.codec.meaning import TYPE_KEY
from actors.names import is_put_feed

#: Types whose text has 0, 3 and 6 fraction digits.
_TIMES = (pa.time32("s"), pa.time32("ms"), pa.time64("us"))
_TIMESTAMPS = (pa.timestamp("s"), pa.timestamp("ms"), pa.timestamp("us"))


@dataclass(frozen=True, slots=True)
class EncodedEvents:
    """Events as JSON objects, a comma after each; event ``i`` and its comma end before byte ``ends[i]``."""

    data: bytes
    ends: npt.NDArray[np.int64]

    def body(self, start: int, stop: int) -> bytes:
        """The JSON list of events `start` to `stop` (exclusive)."""
        if start >= stop:
            return b"[]"
        begin = int(self.ends[start - 1]) if start else 0
        return b"".join((b"[", memoryview(self.data)[begin : int(self.ends[stop - 1]) - 1], b"]"))

    def lines(self, start: int, stop: int) -> bytes:
        """Events `start` to `stop` (exclusive), a newline after each."""
        if start >= stop:
            return b""
        begin = int(self.ends[start - 1]) if start else 0
        lines = bytearray(memoryview(self.data)[begin : int(self.ends[stop - 1])])
        np.frombuffer(lines, np.uint8)[self.ends[start:stop] - 1 - begin] = ord("\n")
        return bytes(lines)


def encode_batch(
    pipeline: str, batch: Batch, times: npt.NDArray[np.int64] | None = None, *, name_stream: bool = False
) -> EncodedEvents:
    """Encode the rows of `batch` as events with ``@time``, by default of their receipt, and ``@origin``.

    With `name_stream`, events that somebody put have ``@stream`` too: their origin does not tell it.
    """
    prefix = f"{pipeline}/{batch.id.feed}/{batch.id.epoch}/"
    if is_put_feed(batch.id.feed):
        head = f'{{"@stream":"{batch.stream}",' if name_stream else "{"
        return _with_origins(batch.rows["event"], f'{head}"@origin":"{prefix}', batch.offsets)
    times = batch.times if times is None else times
    return encode_events(batch.rows, time=times, origin_prefix=prefix, offsets=batch.offsets)


def encode_events(rows: Any, *, time: Any, origin_prefix: str, offsets: Any) -> EncodedEvents:
    """Encode the record batch `rows` as events.

    Args:
        rows: as the codec made them: field metadata says which texts are JSON.
        time: per row, the event's ``@time``: integers.
        origin_prefix: what stands before the offset in ``@origin``: ``pipeline/feed/epoch/``.
        offsets: per row, its offset in the epoch: integers.
    """
    if not rows.num_rows:
        return EncodedEvents(b"", np.empty(0, np.int64))
    origin = pc.binary_join_element_wise(
        _text(origin_prefix), pa.array(offsets).cast(pa.large_string()), _text("")
    )
    columns = [pl.Series("@time", time), pl.Series("@origin", origin)]
    spliced: list[tuple[str, Any]] = []
    for name, field, values in zip(event_keys(rows.schema.names), rows.schema, rows.columns, strict=True):
        text = json_text(field, values)
        if text is None:
            columns.append(plain(values).alias(name))
        else:
            spliced.append((name, text))
    sink = io.BytesIO()
    pl.DataFrame(columns).write_ndjson(sink)
    lines = np.frombuffer(sink.getbuffer(), np.uint8)
    # Texts are escaped, so a newline ends an event and is nothing else.
    ends = np.flatnonzero(lines == ord("\n")) + 1
    lines[ends - 1] = ord(",")
    del lines  # only then does getvalue() share its memory
    data = sink.getvalue()
    return _splice(data, ends, spliced) if spliced else EncodedEvents(data, ends)


def _with_origins(events: Any, head: str, offsets: npt.NDArray[np.int64]) -> EncodedEvents:
    """JSON objects, none of them empty, that begin with `head` up to the offset in ``@origin``."""
    if not len(events):
        return EncodedEvents(b"", np.empty(0, np.int64))
    numbers = pa.array(offsets).cast(pa.large_string())
    rest = pc.utf8_slice_codeunits(events, 1)
    joined = pc.binary_join_element_wise(_text(head), numbers, _text('",'), rest, _text(","), _text(""))
    return _encoded(joined)


def event_keys(names: Iterable[str]) -> list[str]:
    """The keys of columns in an event: their names, out of the way of the event's own."""
    keys = list(names)
    for index, key in enumerate(keys):
        if key.startswith("@"):
            while key in keys or key.startswith("@"):
                key = f"_{key}"
            keys[index] = key
    return keys


def plain(values: Any) -> pl.Series:
    """Values in a form that polars writes to JSON as they should read."""
    kind = values.type
    if pa.types.is_timestamp(kind) and kind.tz:
        values = values.cast(pa.int64())
    elif pa.types.is_timestamp(kind) or pa.types.is_time(kind):
        values = as_text(values)
    elif pa.types.is_float32(kind):
        values = values.cast(pa.float64())
    elif pa.types.is_date(kind):
        values = values.cast(pa.large_string())
    series = pl.from_arrow(values)
    assert isinstance(series, pl.Series)
    if series.dtype == pl.Binary:
        return series.bin.encode("base64")
    if series.dtype == pl.UInt64:
        return series.cast(pl.String)
    if series.dtype == pl.List(pl.UInt64):
        return series.cast(pl.List(pl.String))
    if is_list(kind) and pa.types.is_float32(kind.value_type):
        return series.cast(pl.List(pl.Float64))
    return series


def as_text(instants: Any) -> Any:
    """Text of times or datetimes in microseconds, with as many fraction digits as they need."""
    units = _TIMES if pa.types.is_time(instants.type) else _TIMESTAMPS
    micros = instants.cast(pa.int64()).fill_null(0).to_numpy()
    second, milli = micros % 1_000_000 == 0, micros % 1000 == 0
    texts = [instants.cast(unit, safe=False).cast(pa.large_string()) for unit in units]
    return pc.if_else(pa.array(second), texts[0], pc.if_else(pa.array(milli), texts[1], texts[2]))


def json_text(field: Any, values: Any) -> Any:
    """JSON texts to be spliced in as they are, for a column that polars would not write as it should read."""
    kind = field.type
    if (field.metadata or {}).get(TYPE_KEY) == b"json":
        return _storable_json(values)
    if pa.types.is_floating(kind):
        if pc.all(pc.is_finite(values)).as_py() is not False:
            return None
        floats = pl.Series(values.cast(pa.float64()))
        infinity = pl.when(floats > 0).then(pl.lit('"Infinity"')).otherwise(pl.lit('"-Infinity"'))
        name = pl.when(floats.is_nan()).then(pl.lit('"NaN"')).otherwise(infinity)
        text = pl.when(floats.is_infinite() | floats.is_nan()).then(name).otherwise(floats.cast(pl.String))
        return pl.select(text).to_series().to_arrow(compat_level=pl.CompatLevel.oldest())
    if is_list(kind) and pa.types.is_floating(kind.value_type):
        if pc.all(pc.is_finite(values.flatten())).as_py() is not False:
            return None
        rows = values.cast(pa.list_(pa.float64())).to_pylist()
        texts = [None if row is None else orjson.dumps([_named(x) for x in row]).decode() for row in rows]
        return pa.array(texts, pa.large_string())
    return None


def _storable_json(values: Any) -> Any:
    """JSON texts; one with an integer beyond 64 bits, which stores refuse, becomes a JSON string of itself."""
    suspects = pc.match_substring_regex(values, "[0-9]{19}")
    if not pc.any(suspects).as_py():
        return values
    texts = [
        json.dumps(text) if suspect and not _fits(text) else text
        for text, suspect in zip(values.to_pylist(), suspects.to_pylist(), strict=True)
    ]
    return pa.array(texts, values.type)


def _fits(text: str) -> bool:
    """Whether all integers in a JSON text are within 64 bits."""
    fits = True

    def check(digits: str) -> int:
        nonlocal fits
        fits &= len(digits) <= 20 and -(2**63) <= int(digits) < 2**63
        return 0

    json.loads(text, parse_int=check)
    return fits


def is_list(kind: Any) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind))


def _named(value: float | None) -> float | str | None:
    if value is None or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _splice(data: bytes, ends: npt.NDArray[np.int64], columns: list[tuple[str, Any]]) -> EncodedEvents:
    """Put JSON texts into events before their closing brace."""
    offsets = pa.py_buffer(np.concatenate([np.zeros(1, np.int64), ends]))
    events = pa.Array.from_buffers(pa.large_string(), len(ends), [None, offsets, pa.py_buffer(data)])
    parts = [pc.utf8_slice_codeunits(events, 0, -2)]
    for name, texts in columns:
        parts += [_text(f",{json.dumps(name)}:"), texts.fill_null("null")]
    return _encoded(pc.binary_join_element_wise(*parts, _text("},"), _text("")))


def _encoded(joined: Any) -> EncodedEvents:
    """Events, each with its comma, as they lie in memory one after the other."""
    ends = np.frombuffer(joined.buffers()[1], np.int64)[1 : len(joined) + 1]
    return EncodedEvents(joined.buffers()[2].to_pybytes()[: int(ends[-1])], ends)


def _text(value: str) -> Any:
    return pa.scalar(value, pa.large_string())
