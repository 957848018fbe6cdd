"""Reading the records of an insert: Avro or JSON, some of the columns or all, with what the options allow to be mended.

Records that are complete Avro are passed on as they came; all others are encoded again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from protocols.kinetica.server import values
from protocols.kinetica.server.errors import RecordError, RequestError
from protocols.kinetica.server.rows import Row, RowCodec, codec_of
from protocols.kinetica.types import BASE_TYPES, Column, TableType


@dataclass(frozen=True)
class Batch:
    """Records ready to store: `frames[i]` was at `positions[i]` of the request; `errors` has the rest."""

    frames: Sequence[bytes]
    columns: list[list[Any]]
    positions: Sequence[int]
    errors: dict[int, str]


class Intake:
    """Reads records for the type of `codec`.

    Args:
        encoding: ``binary`` or ``json``.
        request_schema: the columns that binary records have, see :func:`partial_type`; blank means all.
        truncate: cuts text that is too long for its charN column, at the end of a character.
        repair: fills columns whose values are not allowed with their default or null, if they have either.
    """

    def __init__(
        self,
        codec: RowCodec,
        *,
        encoding: str = "binary",
        request_schema: str = "",
        truncate: bool = False,
        repair: bool = False,
    ) -> None:
        self._codec = codec
        self._as_json = encoding == "json"
        self._truncate = truncate
        self._repair = repair
        # Without properties, so that values can be read before they are mended.
        self._bare = codec_of(_without_properties(codec.type))
        self._source = codec_of(partial_type(codec.type, request_schema)) if request_schema else self._bare
        self._verbatim = not (self._as_json or truncate or self._source.type != self._bare.type)

    def read(self, items: Sequence[Any], *, lenient: bool = False) -> Batch:
        """Check `items`, the records of a request.

        Raises :class:`RecordError` for the first bad record, or with `lenient` collects what is wrong with which.
        """
        errors: dict[int, str] = {}
        frames = items if self._verbatim else self._encoded(items, errors)
        columns, problems = self._codec.inspect(frames)
        if self._repair and problems:
            frames = list(frames)
            for index in problems.keys() - errors.keys():
                frames[index] = self._repaired(frames[index])
            columns, problems = self._codec.inspect(frames)
        errors = problems | errors
        if not errors:
            return Batch(frames, columns, range(len(frames)), {})
        if not lenient:
            raise RecordError(min(errors), errors[min(errors)])
        kept = [index for index in range(len(frames)) if index not in errors]
        return Batch(
            [frames[index] for index in kept],
            [[column[index] for index in kept] for column in columns],
            kept,
            errors,
        )

    def _encoded(self, items: Sequence[Any], errors: dict[int, str]) -> list[bytes]:
        """The items as complete records; what cannot be one becomes an empty record, which no type takes."""
        rows: list[Any] = list(items)
        if not self._as_json:
            columns, problems = self._source.inspect(items)
            errors.update(problems)
            names = self._source.type.names
            rows = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
        frames = [b""] * len(rows)
        for index, row in enumerate(rows):
            if index not in errors:
                try:
                    frames[index] = self._complete(self._from_json(row) if self._as_json else row)
                except RequestError as error:
                    errors[index] = str(error)
        return frames

    def _complete(self, row: Row) -> bytes:
        complete = {}
        for column in self._codec.type.columns:
            value = row[column.name] if column.name in row else values.fill_value(column)
            size = values.char_size(column) if self._truncate else None
            if size is not None and value is not None:
                value = value.encode()[:size].decode(errors="ignore")
            complete[column.name] = value
        return self._codec.encode(complete)

    def _from_json(self, text: str) -> Row:
        try:
            record = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise RequestError(f"not JSON: {error}") from error
        if not isinstance(record, dict):
            raise RequestError("a JSON record is an object of column names and values")
        known = {column.name: column for column in self._codec.type.columns}
        unknown = next((name for name in record if name not in known), None)
        if unknown is not None:
            raise RequestError(f"no column is named {unknown!r}")
        return {name: values.from_json(known[name], value) for name, value in record.items()}

    def _repaired(self, frame: bytes) -> bytes:
        """The record mended, or as it was if it cannot be."""
        try:
            (row,) = self._bare.rows([frame])
            for column in self._codec.type.columns:
                if values.find_invalid(column, [row[column.name]]):
                    row[column.name] = values.fill_value(column)
            return self._codec.encode(row)
        except RequestError:
            return frame


def partial_type(table_type: TableType, request_schema: str) -> TableType:
    """The columns that a ``request_schema_str`` such as ``[["a","int"],["b","string","nullable"]]`` names."""
    known = {column.name: column for column in table_type.columns}
    columns: list[Column] = []
    try:
        for name, base, *flags in json.loads(request_schema):
            if name not in known or base not in BASE_TYPES or known[name].base != base:
                raise RequestError(f"request_schema_str: the table has no column {name!r} of type {base!r}")
            columns.append(Column(name, base, "nullable" in flags))
    except RequestError:
        raise
    except (ValueError, TypeError, RecursionError) as error:
        raise RequestError('request_schema_str is not of the form [["name","type"], ...]') from error
    if not columns or len({column.name for column in columns}) != len(columns):
        raise RequestError("request_schema_str must name at least one column, and none twice")
    return TableType(tuple(columns))


def _without_properties(table_type: TableType) -> TableType:
    return TableType(tuple(replace(column, properties=()) for column in table_type.columns))
