"""Which origins a stream holds, so that no event is stored twice.

An origin that ends in ``/<decimal offset>`` is kept as one member of a disjoint set of ranges of offsets per
prefix: a writer that sends consecutive offsets costs one row, however many events it sends. Any other origin
is a row.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

SCHEMA = """
CREATE TABLE IF NOT EXISTS origin_ranges (
  stream INTEGER NOT NULL, prefix TEXT NOT NULL, start INTEGER NOT NULL, stop INTEGER NOT NULL,
  PRIMARY KEY (stream, prefix, start)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS other_origins (
  stream INTEGER NOT NULL, origin TEXT NOT NULL, PRIMARY KEY (stream, origin)) WITHOUT ROWID;
"""

#: More digits may not fit SQLite's 64-bit integers.
_MAX_DIGITS = 18


class Origin(NamedTuple):
    """An origin split into the text before its offset, and the offset; without one, the text and -1."""

    prefix: str
    offset: int


def parse_origin(text: str) -> Origin:
    prefix, slash, digits = text.rpartition("/")
    # A leading zero would make two texts of one offset.
    if (
        slash
        and digits.isdecimal()
        and digits.isascii()
        and len(digits) <= _MAX_DIGITS
        and (digits[0] != "0" or digits == "0")
    ):
        return Origin(prefix, int(digits))
    return Origin(text, -1)


def runs(offsets: Iterable[int]) -> Iterator[tuple[int, int]]:
    """The maximal runs (start, stop) of consecutive offsets, from strictly increasing `offsets`."""
    start = stop = None
    for offset in offsets:
        if offset != stop:
            if start is not None and stop is not None:
                yield start, stop
            start = offset
        stop = offset + 1
    if start is not None and stop is not None:
        yield start, stop


class OriginIndex:
    """The origins of all streams; its changes belong to the transaction that is open on `connection`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute

    def claim(self, stream: int, origins: Sequence[Origin | None]) -> list[bool]:
        """Take note of `origins` and say for each whether it is new; None always is.

        Of equal origins in the sequence the first is new.
        """
        fresh = [True] * len(origins)
        places: dict[str, dict[int, int]] = defaultdict(dict)
        for place, origin in enumerate(origins):
            if origin is None:
                continue
            if origin.offset < 0:
                row = (stream, origin.prefix)
                added = self._execute("INSERT OR IGNORE INTO other_origins VALUES (?, ?)", row)
                fresh[place] = added.rowcount == 1
            elif places[origin.prefix].setdefault(origin.offset, place) != place:
                fresh[place] = False
        for prefix, by_offset in places.items():
            for start, stop in runs(sorted(by_offset)):
                touching = self._touching(stream, prefix, start, stop)
                for held_start, held_stop in touching:
                    for offset in range(max(start, held_start), min(stop, held_stop)):
                        fresh[by_offset[offset]] = False
                self._replace(stream, prefix, touching, [(start, stop), *touching])
        return fresh

    def release(self, stream: int, origins: Iterable[Origin]) -> None:
        """Forget `origins`, whose events were deleted."""
        offsets: dict[str, set[int]] = defaultdict(set)
        for origin in origins:
            if origin.offset < 0:
                self._execute(
                    "DELETE FROM other_origins WHERE stream = ? AND origin = ?", (stream, origin.prefix)
                )
            else:
                offsets[origin.prefix].add(origin.offset)
        for prefix, members in offsets.items():
            for start, stop in runs(sorted(members)):
                for held in self._touching(stream, prefix, start, stop):
                    self._delete(stream, prefix, held[0])
                    for rest in ((held[0], min(held[1], start)), (max(held[0], stop), held[1])):
                        if rest[0] < rest[1]:
                            self._insert(stream, prefix, *rest)

    def _touching(self, stream: int, prefix: str, start: int, stop: int) -> list[tuple[int, int]]:
        """The held ranges that overlap or adjoin [start, stop)."""
        rows = self._execute(
            "SELECT start, stop FROM origin_ranges WHERE stream = ? AND prefix = ? AND start <= ?"
            " ORDER BY start DESC",
            (stream, prefix, stop),
        )
        touching = []
        for row in rows:
            if row[1] < start:
                break
            touching.append(row)
        rows.close()
        return touching

    def _replace(
        self, stream: int, prefix: str, held: list[tuple[int, int]], parts: list[tuple[int, int]]
    ) -> None:
        """Put the union of `parts`, which has no hole, in place of the `held` ranges."""
        union = min(part[0] for part in parts), max(part[1] for part in parts)
        if held == [union]:
            return
        for start, _ in held:
            self._delete(stream, prefix, start)
        self._insert(stream, prefix, *union)

    def _insert(self, stream: int, prefix: str, start: int, stop: int) -> None:
        self._execute("INSERT INTO origin_ranges VALUES (?, ?, ?, ?)", (stream, prefix, start, stop))

    def _delete(self, stream: int, prefix: str, start: int) -> None:
        self._execute(
            "DELETE FROM origin_ranges WHERE stream = ? AND prefix = ? AND start = ?", (stream, prefix, start)
        )
