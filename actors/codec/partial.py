"""Reads as much of a broken frame as can be read, for people. Slow, and never on the way of data."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import Any

import fastavro

from protocols.kinetica.types import TableType


@dataclass(frozen=True, slots=True)
class Partial:
    """The leading columns as (name, type, wire value), and how the frame ends after them, in one line."""

    columns: tuple[tuple[str, str, Any], ...]
    ends: str


def read_partly(format: str, schema: str, frame: bytes) -> Partial:
    """Read the leading columns of an Avro frame, or the text of another. Never raises for what is in it."""
    if format == "json":
        return Partial(
            (("as received", "text", frame.decode(errors="replace")),), "it is no row of the table"
        )
    if format != "avro":
        return Partial((), f"not taken apart: its format is {format}")
    parts = json.loads(schema)
    source = io.BytesIO(frame)
    read: list[tuple[str, str, Any]] = []
    for column in TableType.parse(parts["definition"], parts["properties"]).columns:
        start = source.tell()
        try:
            value: Any = fastavro.schemaless_reader(source, fastavro.parse_schema(column.avro), None)
        except Exception as error:  # EOFError, IndexError, UnicodeDecodeError, ...
            what = f"{type(error).__name__} {error}".strip()
            return Partial(
                tuple(read), f"column {column.name} ({column.base}) cannot be read at byte {start}: {what}"
            )
        read.append((column.name, column.base, value))
    left = len(frame) - source.tell()
    return Partial(tuple(read), f"{left} bytes are left over" if left else "every column can be read")
