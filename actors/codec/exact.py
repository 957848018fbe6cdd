"""The reference reading of one frame: fastavro, every byte accounted for. Slow; for frames in doubt."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import fastavro

from protocols.kinetica.types import Column

_RANGES = {"int": 1 << 31, "long": 1 << 63}

_WHAT: dict[type[Exception], str] = {
    EOFError: "it ends too early",
    IndexError: "it ends too early, or has an unknown union branch",
    UnicodeDecodeError: "a text is not UTF-8",
}


class FrameError(ValueError):
    """A frame that is not a row of the table's type; the message says why, in one line."""


class ReferenceDecoder:
    """Reads single frames as rows of `columns`."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self._columns = columns
        # Kinetica's column names need not be Avro names, so they are numbered.
        fields = [{"name": f"c{i}", "type": column.avro} for i, column in enumerate(columns)]
        self._schema = fastavro.parse_schema({"type": "record", "name": "row", "fields": fields})

    def read(self, frame: bytes) -> list[Any]:
        """The wire values of `frame` in column order. Raises :class:`FrameError`."""
        source = io.BytesIO(frame)
        try:
            record: Any = fastavro.schemaless_reader(source, self._schema, None)
        except Exception as error:  # EOFError, IndexError, UnicodeDecodeError, OverflowError, ...
            what = _WHAT.get(type(error), type(error).__name__)
            raise FrameError(f"not a row of this table type: {what}") from error
        left = len(frame) - source.tell()
        if left:
            raise FrameError(f"not a row of this table type: bytes left over: {left}")
        values = list(record.values())
        for column, value in zip(self._columns, values, strict=True):
            limit = _RANGES.get(column.base)
            if limit and value is not None and not -limit <= value < limit:
                raise FrameError(f"column {column.name}: {value} is out of the range of {column.base}")
        return values
