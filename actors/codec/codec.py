"""Frames in, an Arrow record batch and the rejects out: the codec of one table type.

All frames are read column by column at once (``columns.py``). Those that did not read soundly are read
again one by one with fastavro (``exact.py``), which has the last word: so every frame either yields what
fastavro says that frame encodes, or is a reject. Then the columns take on their meaning (``meaning.py``).

What no decoder can see is frames of *another* type that happen to be valid rows of this one; the table's
type id tells those apart, not the codec.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from actors.codec.exact import FrameError, ReferenceDecoder
from actors.codec.meaning import meaning_of
from protocols.kinetica.columns import WIRE_TYPES, Ints, read_columns
from protocols.kinetica.types import Column, TableType


@dataclass(frozen=True)
class Reject:
    """A frame that is not a row: its place within the frames given, and why, in one line."""

    position: int
    reason: str
    frame: bytes


@dataclass(frozen=True)
class Decoded:
    """The rows of a block in order; `positions` says which frames they were (None: all of them)."""

    rows: Any
    positions: Ints | None
    rejects: tuple[Reject, ...]


class Codec:
    """Decodes frames of `table_type`; with `raw`, to wire values, as the official client gives them."""

    def __init__(self, table_type: TableType, *, raw: bool = False) -> None:
        self._columns = table_type.columns
        self._meanings = [meaning_of(column, raw=raw) for column in self._columns]
        self._reference = ReferenceDecoder(self._columns)
        self._wire = pa.schema([(column.name, WIRE_TYPES[column.base]) for column in self._columns])
        self.schema = pa.schema([meaning.field for meaning in self._meanings])

    def decode(self, frames: Sequence[bytes]) -> Decoded:
        """Decode `frames`, one bare Avro record each. Never raises for what is in them."""
        if not frames:
            return Decoded(pa.RecordBatch.from_pylist([], schema=self.schema), None, ())
        reasons: dict[int, str] = {}
        arrays, sound = read_columns(self._columns, frames)
        positions: Ints | None = None
        if not sound.all():
            arrays, positions = self._settle(arrays, sound, frames, reasons)
        converted = []
        for meaning, values in zip(self._meanings, arrays, strict=True):
            result, misfits = meaning.apply(values)
            converted.append(result)
            for row in misfits:
                position = row if positions is None else int(positions[row])
                reasons.setdefault(position, meaning.complaint(values[row].as_py()))
        rows = pa.RecordBatch.from_arrays(converted, schema=self.schema)
        if reasons:
            good = np.ones(len(frames), np.bool_)
            good[list(reasons)] = False
            if positions is None:
                positions = np.arange(len(frames))
            keep = good[positions]
            rows, positions = rows.filter(pa.array(keep)), positions[keep]
        rejects = tuple(Reject(position, reasons[position], frames[position]) for position in sorted(reasons))
        return Decoded(rows, positions, rejects)

    def _settle(
        self, arrays: list[Any], sound: Any, frames: Sequence[bytes], reasons: dict[int, str]
    ) -> tuple[list[Any], Ints]:
        """Ask the reference decoder about the frames that are not sound, and merge its rows in order."""
        source = np.where(sound, np.arange(len(frames)), -1)
        read: list[list[Any]] = []
        for position in np.flatnonzero(~sound).tolist():
            try:
                read.append(self._reference.read(frames[position]))
                source[position] = len(frames) + len(read) - 1
            except FrameError as error:
                reasons[position] = str(error)
        positions = np.flatnonzero(source >= 0)
        batch = pa.RecordBatch.from_arrays(arrays, schema=self._wire)
        if read:
            columns = zip(*read, strict=True)
            more = [pa.array(values, kind) for values, kind in zip(columns, self._wire.types, strict=True)]
            batch = pa.concat_batches([batch, pa.RecordBatch.from_arrays(more, schema=self._wire)])
        return batch.take(pa.array(source[positions])).columns, positions


def warm_up() -> None:
    """Load and compile what a first decoding does, so that it is as quick as the next."""
    Codec(TableType((Column("n", "long"), Column("s", "string", True)))).decode([b"\x02\x00\x02x"])
