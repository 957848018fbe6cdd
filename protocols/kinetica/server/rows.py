"""Rows of a table type between Avro bytes and values, with every record checked.

A large batch is read column by column at once; a record that does not read soundly is read again with fastavro, to say
what is wrong with it.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, cast

import fastavro
import numpy as np

from protocols.kinetica.columns import read_columns
from protocols.kinetica.server import values
from protocols.kinetica.server.errors import RecordError, RequestError
from protocols.kinetica.types import TableType

Row = dict[str, Any]

#: Up to so many records are read one by one: reading by column costs as much as some 30 records, however few there are.
FEW = 16


class RowCodec:
    """Reads and writes the rows of one table type. Use :func:`codec_of`, which keeps them."""

    def __init__(self, table_type: TableType) -> None:
        self.type = table_type
        self._schema = fastavro.parse_schema(table_type.avro)

    def inspect(self, frames: Sequence[bytes]) -> tuple[list[list[Any]], dict[int, str]]:
        """Decode and check records: a list of values per column, and what is wrong with which record.

        A record must be consumed exactly. The values of a record with a problem mean nothing.
        """
        columns, unsound = self._read(frames)
        problems = {index: self._explain(frames[index]) for index in unsound}
        for column, column_values in zip(self.type.columns, columns, strict=True):
            for index in values.find_invalid(column, column_values):
                problems.setdefault(index, values.describe_invalid(column, column_values[index]))
        return columns, problems

    def _read(self, frames: Sequence[bytes]) -> tuple[list[list[Any]], list[int]]:
        """A list of values per column, and which records are not of this type."""
        if len(frames) <= FEW:
            rows = [self._read_plain(frame) for frame in frames]
            if all(rows):
                return [[row[name] for row in rows if row] for name in self.type.names], []
        arrays, sound = read_columns(self.type.columns, frames)
        return [array.to_pylist() for array in arrays], np.nonzero(~sound)[0].tolist()

    def _read_plain(self, frame: bytes) -> Row | None:
        """One record, if it is what encoding its values gives; None leaves the verdict to the other reader."""
        try:
            row = cast(Row, fastavro.schemaless_reader(io.BytesIO(frame), self._schema, None))
            return row if self.encode(row) == frame else None
        except Exception:  # fastavro raises EOFError, IndexError, UnicodeDecodeError, OverflowError, ...
            return None

    def columns(self, frames: Sequence[bytes]) -> list[list[Any]]:
        """Decode and check records; a list of values per column.

        Raises :class:`RecordError` for the first record that does not decode or holds a value its column does not
        allow.
        """
        columns, problems = self.inspect(frames)
        if problems:
            index = min(problems)
            raise RecordError(index, problems[index])
        return columns

    def rows(self, frames: Sequence[bytes]) -> list[Row]:
        """Like :meth:`columns`, but row by row."""
        names = self.type.names
        return [dict(zip(names, row, strict=True)) for row in zip(*self.columns(frames), strict=True)]

    def _explain(self, frame: bytes) -> str:
        stream = io.BytesIO(frame)
        try:
            fastavro.schemaless_reader(stream, self._schema, None)
        except (
            Exception
        ) as error:  # fastavro raises EOFError, IndexError, UnicodeDecodeError, OverflowError, ...
            return f"not an Avro record of this type ({type(error).__name__})"
        left = len(frame) - stream.tell()
        return f"{left} bytes left over after the last column" if left else "a number is out of range"

    def encode(self, row: Row) -> bytes:
        """Encode one row. Raises :class:`RequestError` if a value does not fit."""
        out = io.BytesIO()
        try:
            fastavro.schemaless_writer(out, self._schema, row)
        except (ValueError, TypeError, KeyError, OverflowError, AttributeError) as error:
            raise RequestError(f"a value does not fit its column: {error}") from error
        return out.getvalue()


@lru_cache(maxsize=512)
def codec_of(table_type: TableType) -> RowCodec:
    """The codec of a type; at most 512 are kept."""
    return RowCodec(table_type)


def row_to_json(row: Row) -> str:
    """One row as JSON: bytes as one character each, NaN and infinities as the official client reads them."""
    return json.dumps(row, default=_bytes_as_text)


def _bytes_as_text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    raise TypeError(f"{type(value).__name__} has no JSON form")
