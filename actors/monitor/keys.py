"""The increasing column of a table: its values in rows, in expressions, and those that the spool holds.

Values are wire values (:mod:`protocols.kinetica.types`): integers, floats and texts that sort as the server sorts them.
A null is no value: rows without one cannot be told apart by the column.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np
import numpy.typing as npt

from actors.block import Block
from actors.codec.exact import FrameError, ReferenceDecoder
from actors.monitor.kinetica import schema_type
from actors.monitor.spool import Position
from protocols.kinetica.columns import read_columns
from protocols.kinetica.types import TableType

Value = int | float | str
Values = npt.NDArray[Any]

#: Properties of texts that the server compares as what they mean, not as text.
_NOT_AS_TEXT = ("decimal", "ulong", "ipv4", "json", "array", "wkt", "uuid", "boolean")


class NotIncreasing(ValueError):
    """A column cannot serve as increasing column; the message says why, in one line."""


def check_column(table: str, table_type: TableType, name: str) -> None:
    """Raises :class:`NotIncreasing` if `table` has no such column, or its values have no order."""
    column = next((column for column in table_type.columns if column.name == name), None)
    if column is None:
        raise NotIncreasing(
            f"table {table}: increasing_column {name} does not exist; its columns are {', '.join(table_type.names)}"
        )
    unfit = [p for p in column.properties if p.startswith(_NOT_AS_TEXT)]
    if column.base == "bytes" or unfit:
        raise NotIncreasing(
            f"table {table}: increasing_column {name} is {unfit[0] if unfit else column.base}, which has no order to"
            " page by; name an integer, timestamp, float, date or text"
        )


def literal(value: Value) -> str:
    """`value` in an expression."""
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value)


def between(column: str, above: Value | None, upto: Value | None) -> str:
    """The expression of rows with `above` < value <= `upto`; None: without that bound."""
    parts = [f"{column} > {literal(above)}"] if above is not None else []
    parts += [f"{column} <= {literal(upto)}"] if upto is not None else []
    return " AND ".join(parts) or f"{column} IS NOT NULL"


def read_values(
    table_type: TableType, name: str, rows: Sequence[bytes]
) -> tuple[Values, npt.NDArray[np.int64]]:
    """The values of column `name` in `rows`, and the places of the rows that have one and are sound."""
    if not rows or name not in table_type.names:
        return np.empty(0), np.empty(0, np.int64)
    index = table_type.names.index(name)
    arrays, sound = read_columns(table_type.columns, rows)
    if not sound.all():
        return _read_slowly(table_type, index, rows)
    places = np.flatnonzero(np.asarray(arrays[index].is_valid()))
    values = arrays[index].drop_null().to_numpy(zero_copy_only=False)
    return _without_nan(values, places)


def _read_slowly(
    table_type: TableType, index: int, rows: Sequence[bytes]
) -> tuple[Values, npt.NDArray[np.int64]]:
    reader, values, places = ReferenceDecoder(table_type.columns), [], []
    for place, row in enumerate(rows):
        try:
            value = reader.read(row)[index]
        except FrameError:
            continue  # a dead letter; should the table have the row after all, it is fetched
        if value is not None:
            values.append(value)
            places.append(place)
    dtype = object if table_type.columns[index].base == "string" else None
    return _without_nan(np.array(values, dtype), np.array(places, np.int64))


def _without_nan(values: Values, places: npt.NDArray[np.int64]) -> tuple[Values, npt.NDArray[np.int64]]:
    if values.dtype.kind != "f":
        return values, places
    ordered = ~np.isnan(values)
    return values[ordered], places[ordered]


def plain(value: Any) -> Value:
    """A value out of an array, as Python has it."""
    return value.item() if isinstance(value, np.generic) else value  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class _Part:
    """The values of one block in order, and the place of each in it."""

    at: Position
    time: int
    values: Values
    places: npt.NDArray[np.int64]


class Held:
    """The values of the rows that a spool holds, live rows and recovered ones.

    Args:
        blocks: the blocks of the insert feed at or after a position, in order.
        start: what is before is not of this table (any more).
        column: the increasing column.
    """

    def __init__(self, blocks: Callable[[Position], Iterator[Block]], start: Position, column: str) -> None:
        self._blocks = blocks
        self._column = column
        self._end = start
        self._parts: list[_Part] = []

    def restart(self, start: Position) -> None:
        """Forget all; what is before `start` is not of this table."""
        self._parts, self._end = [], start

    def update(self, until: Position | None = None) -> None:
        """Read the blocks that have come since, those before `until`."""
        for block in self._blocks(self._end):
            at = Position(block.epoch, block.offset)
            if until is not None and at >= until:
                return
            self._end = Position(block.epoch, block.end)
            values, places = read_values(
                schema_type(block.schema), self._column, msgpack.unpackb(block.payload)
            )
            if len(values):
                order = np.argsort(values, kind="stable")
                self._parts.append(_Part(at, block.time, values[order], places[order]))

    def forget(self, upto: Value) -> None:
        """Forget blocks whose values are all at or below `upto`."""
        self._parts = [part for part in self._parts if part.values[-1] > upto]

    @property
    def greatest(self) -> Value | None:
        return plain(max(part.values[-1] for part in self._parts)) if self._parts else None

    def least_since(self, time: int) -> Value | None:
        """The least value of the blocks received at `time` (ticks) or later."""
        found = [part.values[0] for part in self._parts if part.time >= time]
        return plain(min(found)) if found else None

    def count(self, above: Value | None, upto: Value | None) -> int:
        """How many values there are with `above` < value <= `upto`."""
        return sum(end - start for start, end in self._slices(above, upto))

    def values(self, above: Value | None, upto: Value | None) -> Values:
        """Those values, in order."""
        parts = zip(self._parts, self._slices(above, upto), strict=True)
        found = [part.values[start:end] for part, (start, end) in parts if end > start]
        if not found:
            return np.empty(0)
        return np.sort(np.concatenate(found))

    def rows(self, value: Value) -> Counter[bytes]:
        """The rows held that have `value`, as far as the spool still has them."""
        rows: Counter[bytes] = Counter()
        for part, (start, end) in zip(self._parts, self._slices_at(value), strict=True):
            block = next(self._blocks(part.at), None) if end > start else None
            if block is not None and (block.epoch, block.offset) == part.at:
                frames = msgpack.unpackb(block.payload)
                rows.update(frames[place] for place in part.places[start:end])
        return rows

    def _slices(self, above: Value | None, upto: Value | None) -> Iterator[tuple[int, int]]:
        for part in self._parts:
            start = 0 if above is None else int(np.searchsorted(part.values, above, "right"))
            end = len(part.values) if upto is None else int(np.searchsorted(part.values, upto, "right"))
            yield start, max(start, end)

    def _slices_at(self, value: Value) -> Iterator[tuple[int, int]]:
        for part in self._parts:
            yield (
                int(np.searchsorted(part.values, value, "left")),
                int(np.searchsorted(part.values, value, "right")),
            )


def difference(
    rows: Sequence[bytes], values: Sequence[Value], held: Values, held_rows: Callable[[Value], Counter[bytes]]
) -> list[bytes]:
    """The rows of a table that are missing: of each value so many as there are more than held.

    Which of the rows of a value: those that equal none of ours, so that a row that was updated after it was received
    is not taken for another.

    Args:
        rows, values: of the table, in order of value.
        held: the values held, in order, within the range of `values`.
        held_rows: the rows held that have a value.
    """
    if not len(held):
        return list(rows)
    if len(held) == len(values) and bool((held == np.asarray(values, held.dtype)).all()):
        return []
    ours = Counter(held.tolist())
    missing = Counter(values)
    missing.subtract({value: count for value, count in ours.items() if value in missing})
    out: list[bytes] = []
    groups: dict[Value, list[bytes]] = {}
    for row, value in zip(rows, values, strict=True):
        if missing[value] > 0:
            groups.setdefault(value, []).append(row)
    for value, group in groups.items():
        out += _unmatched(group, held_rows(value) if ours[value] else Counter(), missing[value])
    return out


def _unmatched(rows: Iterable[bytes], ours: Counter[bytes], count: int) -> list[bytes]:
    """`count` of `rows`, those that equal none of ours first."""
    matched: list[bytes] = []
    others: list[bytes] = []
    for row in rows:
        if ours[row] > 0:
            ours[row] -= 1
            matched.append(row)
        else:
            others.append(row)
    return [*others, *matched][:count]
