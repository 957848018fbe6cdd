"""Rows of a table type between Avro, JSON and columns, with every record checked.

A batch is read column by column at once; a record that does not read soundly is read again with fastavro, to say
what is wrong with it.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import fastavro
import numpy as np

from protocols.kinetica.columns import read_columns
from protocols.kinetica.server import values
from protocols.kinetica.server.errors import RecordError, RequestError
from protocols.kinetica.types import BASE_TYPES, Column, TableType

Row = dict[str, Any]


class RowCodec:
    """Reads and writes the rows of one table type. Use :func:`codec_of`, which keeps them."""

    def __init__(self, table_type: TableType) -> None:
        self.type = table_type
        self._schema = fastavro.parse_schema(table_type.avro)

    def inspect(self, frames: Sequence[bytes]) -> tuple[list[list[Any]], dict[int, str]]:
        """Decode and check records: a list of values per column, and what is wrong with which record.

        A record must be consumed exactly. The values of a record with a problem mean nothing.
        """
        if not frames:
            return [[] for _ in self.type.columns], {}
        arrays, sound = read_columns(self.type.columns, frames)
        problems = {index: self._explain(frames[index]) for index in np.nonzero(~sound)[0].tolist()}
        columns = [array.to_pylist() for array in arrays]
        for column, column_values in zip(self.type.columns, columns, strict=True):
            for index in values.find_invalid(column, column_values):
                problems.setdefault(index, values.describe_invalid(column, column_values[index]))
        return columns, problems

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

    def repaired(self, frame: bytes) -> bytes:
        """Fill the columns whose values are not allowed with their default or null, if they have either."""
        row = self._read(frame)
        for column in self.type.columns:
            if values.find_invalid(column, [row[column.name]]):
                row[column.name] = values.fill_value(column)
        return self.encode(row)

    def _read(self, frame: bytes) -> Row:
        """One row whose values may yet be refused."""
        arrays, sound = read_columns(self.type.columns, [frame])
        if not sound.all():
            raise RequestError(self._explain(frame))
        return {name: array[0].as_py() for name, array in zip(self.type.names, arrays, strict=True)}

    def from_json(self, text: str) -> bytes:
        """Encode one JSON object; columns that it leaves out are filled."""
        try:
            record = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise RequestError(f"not JSON: {error}") from error
        if not isinstance(record, dict):
            raise RequestError("a JSON record is an object of column names and values")
        unknown = next((name for name in record if name not in self.type.names), None)
        if unknown is not None:
            raise RequestError(f"no column is named {unknown!r}")
        row = {
            column.name: values.from_json(column, record[column.name])
            if column.name in record
            else values.fill_value(column)
            for column in self.type.columns
        }
        return self.encode(row)

    def truncated(self, frame: bytes) -> bytes:
        """Cut the text of charN columns to what fits, at a character's end."""
        row = self._read(frame)
        for column in self.type.columns:
            size, value = values.char_size(column), row[column.name]
            if size is not None and value is not None:
                row[column.name] = value.encode()[:size].decode(errors="ignore")
        return self.encode(row)

    def widened(self, frame: bytes, narrow: RowCodec) -> bytes:
        """Turn a record of some of the columns into one of all of them; the others are filled."""
        row = narrow._read(frame)
        return self.encode(
            {
                column.name: row[column.name] if column.name in row else values.fill_value(column)
                for column in self.type.columns
            }
        )


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


def partial_type(table_type: TableType, request_schema: str) -> TableType:
    """The columns that a ``request_schema_str`` such as ``[["a","int"],["b","string","nullable"]]`` names."""
    known = {column.name: column for column in table_type.columns}
    columns: list[Column] = []
    try:
        for name, base, *flags in json.loads(request_schema):
            if name not in known or base not in BASE_TYPES or known[name].base != base:
                raise RequestError(f"request_schema_str: the table has no column {name!r} of type {base!r}")
            columns.append(replace(known[name], nullable="nullable" in flags))
    except (ValueError, TypeError) as error:
        if isinstance(error, RequestError):
            raise
        raise RequestError('request_schema_str is not of the form [["name","type"], ...]') from error
    if not columns or len({column.name for column in columns}) != len(columns):
        raise RequestError("request_schema_str must name at least one column, and none twice")
    return TableType(tuple(columns))


@dataclass(frozen=True)
class Batch:
    """Records ready to store: `frames[i]` was at `positions[i]` of the request; `errors` has the rest."""

    frames: Sequence[bytes]
    columns: list[list[Any]]
    positions: Sequence[int]
    errors: dict[int, str]


def read_batch(
    codec: RowCodec,
    items: Sequence[Any],
    convert: Callable[[Any], bytes] | None = None,
    *,
    lenient: bool = False,
    repair: bool = False,
) -> Batch:
    """Check the records of a request, which `convert` (if given) turns into complete Avro records first.

    Raises :class:`RecordError` for the first bad record, or collects them all if `lenient`; with `repair` it also
    tries to fill bad values.
    """
    errors: dict[int, str] = {}
    frames = items if convert is None else _converted(convert, items, errors)
    columns, problems = codec.inspect(frames)
    if repair and problems:
        fixed = {index: frames[index] for index in problems if index not in errors}
        repairs = dict(zip(fixed, _converted(codec.repaired, list(fixed.values()), {}), strict=True))
        frames = [repairs.get(index) or frame for index, frame in enumerate(frames)]
        columns, problems = codec.inspect(frames)
    errors = {**problems, **errors}
    if not errors:
        return Batch(frames, columns, range(len(frames)), {})
    if not lenient:
        raise RecordError(min(errors), errors[min(errors)])
    kept = [index for index in range(len(frames)) if index not in errors]
    return Batch([frames[i] for i in kept], [[column[i] for i in kept] for column in columns], kept, errors)


def _converted(convert: Callable[[Any], bytes], items: Sequence[Any], errors: dict[int, str]) -> list[bytes]:
    """The items converted; what does not convert becomes an empty record, which no type takes, and an error."""
    frames = []
    for index, item in enumerate(items):
        try:
            frames.append(convert(item))
        except RequestError as error:
            errors[index] = str(error)
            frames.append(b"")
    return frames
