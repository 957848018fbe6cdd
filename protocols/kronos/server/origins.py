"""Which origins a stream holds, so that no event is stored twice.

An origin that ends in ``/<decimal offset>`` is kept as one member of a disjoint set of ranges of offsets per
prefix: a writer that sends consecutive offsets costs one row, however many events it sends. Any other origin
is a row.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import cast

SCHEMA = """
CREATE TABLE IF NOT EXISTS origin_ranges (
  stream INTEGER NOT NULL, prefix TEXT NOT NULL, start INTEGER NOT NULL, stop INTEGER NOT NULL,
  PRIMARY KEY (stream, prefix, start)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS other_origins (
  stream INTEGER NOT NULL, origin TEXT NOT NULL, PRIMARY KEY (stream, origin)) WITHOUT ROWID;
"""

#: More digits may not fit SQLite's 64-bit integers.
_MAX_DIGITS = 18


#: An origin as the text before its offset, and the offset; without one, the text and -1.
Origin = tuple[str, int]


def parse_origin(text: str) -> Origin:
    prefix, slash, digits = text.rpartition("/")
    if not (slash and digits.isdecimal() and digits.isascii() and len(digits) <= _MAX_DIGITS):
        return text, -1
    # A leading zero would make two texts of one offset.
    return (text, -1) if digits[0] == "0" and digits != "0" else (prefix, int(digits))


def runs(offsets: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The maximal runs (start, stop) of consecutive offsets, from strictly increasing `offsets`."""
    start = 0
    if offsets[-1] - offsets[0] + 1 != len(offsets):
        for place in range(1, len(offsets)):
            if offsets[place] != offsets[place - 1] + 1:
                yield offsets[start], offsets[place - 1] + 1
                start = place
    yield offsets[start], offsets[-1] + 1


class OriginIndex:
    """The origins of all streams; its changes belong to the transaction that is open on `connection`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute

    def claim(self, stream: int, origins: Sequence[Origin | None]) -> list[bool]:
        """Take note of `origins` and say for each whether it is new; None always is.

        Of equal origins in the sequence the first is new.
        """
        fresh = [True] * len(origins)
        places = _places_of_one_feed(origins)
        if places is None:
            places = defaultdict(dict)
            for place, origin in enumerate(origins):
                if origin is None:
                    continue
                prefix, offset = origin
                if offset < 0:
                    added = self._execute(
                        "INSERT OR IGNORE INTO other_origins VALUES (?, ?)", (stream, prefix)
                    )
                    fresh[place] = added.rowcount == 1
                elif places[prefix].setdefault(offset, place) != place:
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
            if origin[1] < 0:
                self._execute(
                    "DELETE FROM other_origins WHERE stream = ? AND origin = ?", (stream, origin[0])
                )
            else:
                offsets[origin[0]].add(origin[1])
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


def _places_of_one_feed(origins: Sequence[Origin | None]) -> dict[str, dict[int, int]] | None:
    """prefix -> offset -> place in `origins`, in the usual case: one prefix and no offset twice. Else None."""
    if not any(origins):
        return {}
    if None in origins:
        return None
    prefixes, offsets = zip(*cast(Sequence[Origin], origins), strict=True)
    if len(set(prefixes)) > 1 or min(offsets) < 0:
        return None
    places = dict(zip(offsets, range(len(offsets)), strict=True))
    return {prefixes[0]: places} if len(places) == len(offsets) else None
