"""Rows as dicts: what callbacks for single rows are called with.

In *official* form values are what the official client shows: numbers, text and bytes as they travel, whatever the
column's properties say (a ``date`` is text, a ``timestamp`` milliseconds, a ``boolean`` 0 or 1). In *python* form they
are what the properties mean: ``datetime.date``, ``datetime.datetime`` (of a ``timestamp`` in UTC), ``decimal.Decimal``,
bool, lists, parsed JSON; a ``timestamp`` beyond the years 1 to 9999 stays a number.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from actors.codec.meaning import TYPE_KEY
from actors.writer.encode import as_text, is_list

#: The forms of values.
FORMS = ("official", "python")

Row = dict[str, Any]


def rows_of(batch: Any) -> Iterator[Row]:
    """The rows of a record batch as dicts, null as None.

    They are made one by one, as they are asked for: that takes two thirds of the time that a list of thousands does.
    """
    if not batch.num_columns:
        return ({} for _ in range(batch.num_rows))
    return _maker(tuple(batch.schema.names))([_values(column) for column in batch.columns])


def _values(column: Any) -> list[Any]:
    try:
        values: list[Any] = column.to_pylist()
    except (ValueError, OverflowError):  # an instant that Python has no datetime for
        values = column.cast(pa.int64()).to_pylist()
    return values


@lru_cache(maxsize=256)
def _maker(names: tuple[str, ...]) -> Callable[[list[list[Any]]], Iterator[Row]]:
    """Makes dicts with these keys from columns. A dict display takes half the time of ``dict(zip(names, row))``."""
    variables = [f"v{i}" for i in range(len(names))]
    items = ", ".join(f"{name!r}: {variable}" for name, variable in zip(names, variables, strict=True))
    code = f"lambda columns: ({{{items}}} for {', '.join(variables)}, in zip(*columns))"
    made: Callable[[list[list[Any]]], Iterator[Row]] = eval(code)  # of nothing but quoted names
    return made


def python_rows(batch: Any) -> Iterator[Row]:
    """The rows of a batch of the codec in python form."""
    columns = [
        _parsed(values) if (field.metadata or {}).get(TYPE_KEY) == b"json" else _values(values)
        for field, values in zip(batch.schema, batch.columns, strict=True)
    ]
    return _maker(tuple(batch.schema.names))(columns)


def _parsed(texts: Any) -> list[Any]:
    return [None if text is None else json.loads(text) for text in texts.to_pylist()]


def official_rows(batch: Any) -> Iterator[Row]:
    """The rows of a batch of the codec in official form.

    What was text when it travelled (dates, times, decimals, arrays) is written anew from its value, so its spelling may
    differ: ``12:00:00.000`` reads ``12:00:00``.
    """
    arrays = [_official(column) for column in batch.columns]
    return rows_of(pa.RecordBatch.from_arrays(arrays, names=batch.schema.names))


def _official(values: Any) -> Any:
    kind = values.type
    if pa.types.is_boolean(kind):
        return values.cast(pa.int8())
    if pa.types.is_timestamp(kind) and kind.tz:
        return values.cast(pa.int64())
    if pa.types.is_timestamp(kind) or pa.types.is_time(kind):
        return as_text(values)
    if pa.types.is_date(kind) or pa.types.is_decimal(kind) or pa.types.is_uint64(kind):
        return values.cast(pa.large_string())
    if pa.types.is_fixed_size_list(kind):
        return pa.array(
            [None if row is None else np.asarray(row, "<f4").tobytes() for row in values.to_pylist()]
        )
    if is_list(kind):
        texts = [
            None if row is None else json.dumps(row, separators=(",", ":")) for row in values.to_pylist()
        ]
        return pa.array(texts, pa.large_string())
    return values
