"""What is missing of a table: paging by value, the multiset difference, halving, the ranges after a gap, the audit."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.block import Block
from actors.monitor import catchup
from actors.monitor.audit import shortfall
from actors.monitor.catchup import Range, Table, after_gap, locate, missing_rows
from actors.monitor.gaplog import SourceAccount
from actors.monitor.keys import Held, NotIncreasing, check_column, difference
from actors.monitor.kinetica import block_schema
from actors.monitor.source import Described, Page
from actors.monitor.spool import Position
from protocols.kinetica.types import Column, TableType
from tests.e2e import traffic

SCHEMA = block_schema(traffic.ROW.definition, traffic.ROW.properties, "a")

numbers = st.lists(st.integers(-20, 20), max_size=40)


class FakeTable:
    """A reader of rows kept in a list; it understands what ``keys.between`` writes."""

    def __init__(self, values: list[int]) -> None:
        self.values = sorted(values)

    def described(self) -> Described:
        return Described("a", SCHEMA)

    def size(self) -> int:
        return len(self.values)

    def page(self, expression: str, column: str, limit: int, descending: bool = False) -> Page:
        text = expression.replace("AND", "and").replace(" = ", " == ").replace("id IS NOT NULL", "True")
        found = [value for value in self.values if eval(text, {"id": value})]
        shown = (found[::-1] if descending else found)[:limit]
        return Page([traffic.frame(value) for value in shown], self.described(), len(found))

    def close(self) -> None:
        pass


def held(*blocks: list[int]) -> Held:
    """What a spool with these blocks holds."""
    stored, offset = [], 0
    for values in blocks:
        if values:
            payload = msgpack.packb([traffic.frame(value) for value in values])
            stored.append(Block("t", 1, offset, len(values), offset * 10, "avro", SCHEMA, payload))
            offset += len(values)

    def read(position: Position) -> Iterator[Block]:
        return (block for block in stored if (block.epoch, block.offset) >= position)

    result = Held(read, Position(), "id")
    result.update()
    return result


@settings(deadline=None)
@given(numbers, numbers, st.integers(1, 5), st.data())
def test_pages_bring_every_row_of_a_range_once(
    values: list[int], received: list[int], size: int, data: st.DataObject
) -> None:
    upto = data.draw(st.integers(-21, 21))
    above = data.draw(st.none() | st.integers(-22, upto))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catchup, "PAGE_ROWS", size)
        pages = list(Table(FakeTable(values), "id").pages(Range(above, upto), upto))
    rows: list[Any] = [value for page in pages for value in page.values]
    assert rows == sorted(v for v in values if (above is None or v > above) and v <= upto)
    assert [page.above for page in pages[1:]] == [page.upto for page in pages[:-1]]
    # What is missing, page by page, is what is missing of the whole.
    ours = Counter(received)
    found = Counter(row for page in pages for row in missing_rows(page, held(received)))
    assert found == Counter({traffic.frame(v): n - ours[v] for v, n in Counter(rows).items() if n > ours[v]})


@settings(deadline=None)
@given(numbers, st.data())
def test_halving_finds_what_is_missing_unless_deletes_hide_it(values: list[int], data: st.DataObject) -> None:
    lost = data.draw(st.sets(st.integers(0, max(0, len(values) - 1)))) if values else set()
    ours = held([value for i, value in enumerate(values) if i not in lost])
    table = Table(FakeTable(values), "id")
    ranges = locate(table.count, ours, None, 20, most=data.draw(st.integers(1, 4)))
    covered = [v for i, v in enumerate(values) if i in lost]
    for value in covered:
        assert any(inside(value, each) for each in ranges)
    assert bool(ranges) == bool(covered)


def test_a_row_updated_after_it_was_received_is_not_taken_for_the_missing_one() -> None:
    rows = [b"updated", b"same", b"lost"]
    kept = Counter([b"before", b"same"])
    assert difference(rows, [1, 1, 1], np.array([1, 1]), lambda value: kept) in ([b"updated"], [b"lost"])
    assert difference(rows, [1, 1, 1], np.array([1, 1]), lambda value: Counter([b"updated", b"same"])) == [
        b"lost"
    ]
    # As many as we have, with other bytes: updated, nothing is missing.
    assert difference([b"x"], [7], np.array([7]), lambda value: Counter([b"y"])) == []


def test_texts_and_nulls() -> None:
    kind = TableType((Column("s", "string", True),))
    schema = block_schema(kind.definition, kind.properties, "s")
    payload = msgpack.packb([b"\0\2b", b"\2", b"\0\2a"])
    block = Block("t", 1, 0, 3, 0, "avro", schema, payload)
    texts = Held(lambda position: iter([block] if position <= (1, 0) else []), Position(), "s")
    texts.update()
    assert (texts.values(None, None).tolist(), texts.count("a", None), texts.greatest) == (["a", "b"], 1, "b")


def inside(value: int, wanted: Range) -> bool:
    above: Any = wanted.above
    upto: Any = wanted.upto
    return (above is None or value > above) and (upto is None or value <= upto)


values = st.integers(0, 9)


@settings(deadline=None)
@given(st.none() | values, st.none() | values, st.none() | values, st.none() | values)
def test_ranges_after_a_gap_cover_all_from_its_overlap_on(
    tail: int | None, overlap: int | None, last: int | None, before: int | None
) -> None:
    if overlap is not None and (last is None or last < overlap):
        last = overlap
    ranges = after_gap([Range(tail, None)], overlap, last, before)
    low = None if tail is None or overlap is None else min(tail, overlap)
    for value in range(-1, 12):
        found = [each for each in ranges if inside(value, each)]
        assert len(found) == (low is None or value > low)
        assert not any(each.fresh for each in found if last is not None and value <= last)
    assert [r.upto for r in ranges][-1] is None


@settings(deadline=None)
@given(st.integers(0, 1000), st.integers(0, 50), st.data())
def test_an_audit_never_sees_more_missing_than_is(start: int, lost: int, data: st.DataObject) -> None:
    """Rows come and go all the time, and arrive late; the bound holds, and is exact when nothing moves."""
    rng = random.Random(data.draw(st.integers()))
    flow = data.draw(st.integers(0, 3))
    published = deleted = 0
    arrived = gone = 0

    def move() -> None:
        nonlocal published, deleted, arrived, gone
        published += rng.randint(0, flow)
        deleted += rng.randint(0, flow)
        arrived, gone = rng.randint(arrived, published), rng.randint(gone, deleted)

    move()
    account = SourceAccount(baseline=start, inserted=arrived, deleted=gone, deletes_known=True)
    before = account
    move()
    size = start + published + lost - deleted
    then = published, deleted
    move()
    # Settled: all that was published before the count has come.
    arrived, gone = max(arrived, then[0]), max(gone, then[1])
    after = replace(account, inserted=arrived, deleted=gone)
    quiet = (before.inserted, before.deleted) == (after.inserted, after.deleted)
    bounds = shortfall(size, before, after, quiet=quiet)
    newer = arrived - then[0]
    with_column = shortfall(size, before, after, newer)
    assert with_column.low >= bounds.low
    # Deletes after the first account may hide rows that are missing, and never feign any.
    assert with_column.low <= lost
    if quiet:
        assert bounds.low == lost


@pytest.mark.parametrize(
    ("column", "fits"),
    [
        (Column("c", "long", properties=("timestamp",)), True),
        (Column("c", "double"), True),
        (Column("c", "string", properties=("date",)), True),
        (Column("c", "string", properties=("decimal(10,3)",)), False),
        (Column("c", "bytes"), False),
    ],
)
def test_which_columns_can_be_increasing(column: Column, fits: bool) -> None:
    kind = TableType((column,))
    if fits:
        check_column("t", kind, "c")
    else:
        with pytest.raises(NotIncreasing, match="has no order to page by"):
            check_column("t", kind, "c")
    with pytest.raises(NotIncreasing, match="d does not exist; its columns are c"):
        check_column("t", kind, "d")
