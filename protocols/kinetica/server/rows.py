"""Rows of a table type between Avro, JSON and columns, with every record checked.

Decoding a batch joins its records with a random marker after each and reads the lot as one Avro array, which
is faster than one by one. The markers prove the boundaries: they are drawn after the records arrived, so that
no record can hold one; each record must be followed by one, and there are as many as records, so none was
read over.
"""

from __future__ import annotations

import io
import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, cast

import fastavro

from protocols.kinetica.server import values
from protocols.kinetica.server.errors import RecordError, RequestError
from protocols.kinetica.types import BASE_TYPES, Column, TableType

Row = dict[str, Any]

_MARKER = "@end"
_MARKER_SIZE = 16


class RowCodec:
    """Reads and writes the rows of one table type. Use :func:`codec_of`, which keeps them."""

    def __init__(self, table_type: TableType) -> None:
        self.type = table_type
        self._row_schema = fastavro.parse_schema(table_type.avro)
        marker = {"name": _MARKER, "type": {"type": "fixed", "name": "marker", "size": _MARKER_SIZE}}
        fields = [*table_type.avro["fields"], marker]
        self._batch_schema = fastavro.parse_schema(
            {"type": "array", "items": {"type": "record", "name": "marked", "fields": fields}}
        )

    def decode(self, frames: Sequence[bytes]) -> list[Row]:
        """Decode records, each of which must be consumed exactly. Rows may hold one more key, the marker.

        Raises :class:`RecordError` for the first that is not a record of the type. Values are not checked.
        """
        marker = secrets.token_bytes(_MARKER_SIZE)
        data = b"".join((_long(len(frames)), marker.join(frames), marker, b"\0")) if frames else b"\0"
        try:
            rows = cast(list[Row], fastavro.schemaless_reader(io.BytesIO(data), self._batch_schema, None))
        except Exception:  # whatever fastavro raises, reading one by one tells which record and why
            return [self._decode_one(index, frame) for index, frame in enumerate(frames)]
        if any(row[_MARKER] != marker for row in rows):
            return [self._decode_one(index, frame) for index, frame in enumerate(frames)]
        return rows

    def _decode_one(self, index: int, frame: bytes) -> Row:
        stream = io.BytesIO(frame)
        try:
            row = cast(Row, fastavro.schemaless_reader(stream, self._row_schema, None))
        except (
            Exception
        ) as error:  # fastavro raises EOFError, IndexError, UnicodeDecodeError, OverflowError, ...
            raise RecordError(index, f"not an Avro record of this type ({type(error).__name__})") from error
        if stream.tell() != len(frame):
            raise RecordError(index, f"{len(frame) - stream.tell()} bytes left over after the last column")
        return row

    def columns(self, frames: Sequence[bytes]) -> list[list[Any]]:
        """Decode and check records; one list of values per column.

        Raises :class:`RecordError` for a record that does not decode or holds a value its column does not
        allow.
        """
        rows = self.decode(frames)
        columns = [[row[name] for row in rows] for name in self.type.names]
        for column, column_values in zip(self.type.columns, columns, strict=True):
            index = values.find_invalid(column, column_values)
            if index is not None:
                raise RecordError(index, values.describe_invalid(column, column_values[index]))
        return columns

    def encode(self, row: Row) -> bytes:
        """Encode one row. Raises :class:`RequestError` if a value does not fit."""
        out = io.BytesIO()
        try:
            fastavro.schemaless_writer(out, self._row_schema, row)
        except (ValueError, TypeError, KeyError, OverflowError, AttributeError) as error:
            raise RequestError(f"a value does not fit its column: {error}") from error
        return out.getvalue()

    def repair(self, frame: bytes) -> bytes:
        """Fill the columns whose values are not allowed with their default or null, if they have either."""
        row = self._decode_one(0, frame)
        for column in self.type.columns:
            if values.find_invalid(column, [row[column.name]]) is not None:
                row[column.name] = values.fill_value(column)
        return self.encode(row)

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
        row = self._decode_one(0, frame)
        for column in self.type.columns:
            size, value = values.char_size(column), row[column.name]
            if size is not None and value is not None:
                row[column.name] = value.encode()[:size].decode(errors="ignore")
        return self.encode(row)

    def widened(self, frame: bytes, narrow: RowCodec) -> bytes:
        """Turn a record of some of the columns into one of all of them; the others are filled."""
        row = narrow._decode_one(0, frame)
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

    Raises :class:`RecordError` for the first bad record, or collects them all if `lenient`; with `repair` it
    also tries to fill bad values.
    """
    try:
        frames = items if convert is None else [_converted(convert, i, item) for i, item in enumerate(items)]
        return Batch(frames, codec.columns(frames), range(len(frames)), {})
    except RecordError:
        if not lenient:
            raise
    good: list[bytes] = []
    positions: list[int] = []
    errors: dict[int, str] = {}
    for index, item in enumerate(items):
        try:
            frame = item if convert is None else _converted(convert, index, item)
            frame = codec.repair(frame) if repair else frame
            codec.columns([frame])
        except RequestError as error:
            errors[index] = error.reason if isinstance(error, RecordError) else str(error)
        else:
            good.append(frame)
            positions.append(index)
    return Batch(good, codec.columns(good), positions, errors)


def _converted(convert: Callable[[Any], bytes], index: int, item: Any) -> bytes:
    try:
        return convert(item)
    except RecordError as error:
        raise RecordError(index, error.reason) from error
    except RequestError as error:
        raise RecordError(index, str(error)) from error


def _long(value: int) -> bytes:
    """A non-negative Avro long."""
    out = bytearray()
    value *= 2
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
