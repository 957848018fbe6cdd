"""Which rows of a table are missing: ranges of the increasing column, paged by value, compared with what the spool has.

No threads, clocks or retries here; ``healer.py`` runs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from actors.monitor.keys import Held, NotIncreasing, Value, between, difference, literal, plain, read_values
from actors.monitor.kinetica import schema_type
from actors.monitor.source import Described, TableReader

#: Rows and about the most bytes of one page.
PAGE_ROWS = 10_000
PAGE_BYTES = 8 << 20

#: Most rows of one value.
TIES = 1_000_000


@dataclass(frozen=True, slots=True)
class Range:
    """Rows to be looked at: `above` < value <= `upto`, None: without that bound.

    With `upto` None it is the *tail*: what is published under the present subscription, and about to be. In a `fresh`
    range are only rows that the stream never brought.
    """

    above: Value | None
    upto: Value | None
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class Rows:
    """All rows of a table in one range, in order of value."""

    above: Value | None
    upto: Value | None
    rows: list[bytes]
    values: list[Value]
    described: Described

    @property
    def below_last(self) -> Value | None:
        """The greatest value but that of the page's end; the page's beginning if there is none."""
        return next((value for value in reversed(self.values) if value != self.upto), self.above)


class Table:
    """The table, by its increasing column."""

    def __init__(self, reader: TableReader, column: str) -> None:
        self._reader = reader
        self._column = column
        self._limit = PAGE_ROWS

    def greatest(self) -> Value | None:
        """The greatest value; None: there is none."""
        page = self._reader.page(between(self._column, None, None), self._column, 1, descending=True)
        values, _ = read_values(schema_type(page.described.schema), self._column, page.rows)
        return plain(values[0]) if len(values) else None

    def count(self, above: Value | None, upto: Value | None) -> int:
        """How many rows there are with `above` < value <= `upto`."""
        return self._reader.page(between(self._column, above, upto), self._column, 0).total

    def count_upto(self, upto: Value | None) -> int:
        """How many rows there are with a value of at most `upto`, or without a value."""
        if upto is None:
            return self._reader.page(f"{self._column} IS NULL", self._column, 0).total
        expression = f"{between(self._column, None, upto)} OR {self._column} IS NULL"
        return self._reader.page(expression, self._column, 0).total

    def fetch(self, above: Value | None, upto: Value) -> Rows:
        """The first rows with `above` < value <= `upto`; those of one value are never parted."""
        page = self._reader.page(between(self._column, above, upto), self._column, self._limit)
        rows, values = list(page.rows), self._values(page.rows, page.described)
        if rows:
            average = sum(map(len, rows)) / len(rows) + 1
            self._limit = max(1, min(PAGE_ROWS, int(PAGE_BYTES / average)))
        if not rows or len(rows) == page.total:
            return Rows(above, upto, rows, values, page.described)
        last = values[-1]
        if last != values[0]:
            # More rows of the last value may follow.
            cut = values.index(last)
            return Rows(above, values[cut - 1], rows[:cut], values[:cut], page.described)
        expression = f"{self._column} = {literal(last)}"
        page = self._reader.page(expression, self._column, TIES)
        if len(page.rows) < page.total:
            raise NotIncreasing(f"column {self._column} has too many rows of one value, {last!r}")
        return Rows(above, last, list(page.rows), self._values(page.rows, page.described), page.described)

    def _values(self, rows: Sequence[bytes], described: Described) -> list[Value]:
        values, places = read_values(schema_type(described.schema), self._column, rows)
        if len(places) != len(rows):
            raise NotIncreasing(f"rows with a value of {self._column} came back without one")
        return [plain(value) for value in values]

    def pages(self, wanted: Range, upto: Value) -> Iterator[Rows]:
        """All rows of a range up to `upto`, page by page."""
        above = wanted.above
        while True:
            page = self.fetch(above, upto)
            yield page
            if page.upto == upto:
                return
            above = page.upto


def missing_rows(page: Rows, held: Held) -> list[bytes]:
    """The rows of `page` that the spool does not have."""
    return difference(page.rows, page.values, held.values(page.above, page.upto), held.rows)


def locate(
    count: Callable[[Value | None, Value | None], int],
    held: Held,
    above: Value | None,
    upto: Value,
    most: int = PAGE_ROWS,
) -> list[Range]:
    """The ranges, of at most `most` rows if they can be parted, where the table has more rows than `held`.

    Found by halving the values held; `count` asks the table. Rows that were deleted hide as many that are missing.
    """
    found: list[Range] = []
    waiting = [(above, upto, held.values(above, upto))]
    while waiting:
        low, high, values = waiting.pop()
        there = count(low, high)
        if there <= len(values):
            continue
        middle = plain(values[(len(values) - 1) // 2]) if len(values) else high
        if there <= most or middle == high:
            found.append(Range(low, high))
            continue
        left = values.searchsorted(middle, "right")
        waiting += [(middle, high, values[left:]), (low, middle, values[:left])]
    return found


def after_gap(
    ranges: list[Range], overlap: Value | None, last: Value | None, before_open: Value | None
) -> list[Range]:
    """The ranges to look at once a new subscription is open, given those of before.

    Args:
        overlap: from here on rows may be missing; where the tail of before begins, if there is one, counts as well.
        last: the greatest value received.
        before_open: the greatest value in the table just before the subscription was made.
    """
    tails = [each.above for each in ranges if each.upto is None]
    kept = [each for each in ranges if each.upto is not None]
    start = least([overlap, *tails])
    if last is not None and _follows(last, start):
        kept.append(Range(start, last))
        start = last
    if before_open is not None and _follows(before_open, start):
        kept.append(Range(start, before_open, fresh=True))
        start = before_open
    return [*kept, Range(start, None)]


def _follows(value: Value, start: Value | None) -> bool:
    return start is None or value > start  # type: ignore[operator]


def least(values: list[Value | None]) -> Value | None:
    """The least value; None, which is no bound, is less than all."""
    return None if None in values else min(values)  # type: ignore[type-var]
