"""Frames into blocks: every limit, no hole, no clock that could turn times back."""

from __future__ import annotations

import msgpack
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.block import TICKS_PER_SECOND, Block
from actors.monitor.grouping import BlockBuilder, BlockLimits

MANY = 1 << 30


def builder(records: int = MANY, size: int = MANY, linger: float = 1.0, next_time: int = 0) -> BlockBuilder:
    return BlockBuilder("t", 7, "schema", BlockLimits(records, size, linger), next_time)


def frames_of(blocks: list[Block]) -> list[bytes]:
    return [frame for block in blocks for frame in msgpack.unpackb(block.payload)]


def test_count_closes_a_block() -> None:
    group = builder(records=3)
    blocks = group.add([b"a"] * 8, 5.0)
    assert [(b.offset, b.count) for b in blocks] == [(0, 3), (3, 3)]
    rest = group.flush()
    assert rest is not None
    assert (rest.offset, rest.count, rest.end) == (6, 2, 8)
    assert group.flush() is None
    assert blocks[0] == Block("t", 7, 0, 3, 5 * TICKS_PER_SECOND, "avro", "schema", msgpack.packb([b"a"] * 3))


def test_bytes_close_a_block() -> None:
    group = builder(size=10)
    assert group.add([b"1234"], 0.0) == []
    (block,) = group.add([b"123456"], 0.0)
    assert block.count == 2
    assert group.add([b"1"], 0.0) == []


def test_linger_closes_a_block_from_its_first_record_on() -> None:
    group = builder(linger=1.0)
    assert group.deadline is None
    group.add([b"a"], 10.0)
    group.add([b"b"], 10.9)
    assert group.deadline == 11.0
    assert group.due(10.99) is None
    block = group.due(11.0)
    assert block is not None
    assert block.count == 2
    assert group.due(99.0) is None
    assert group.deadline is None


def test_a_clock_that_steps_back_keeps_no_block_open_for_that_long() -> None:
    group = builder(linger=1.0)
    group.add([b"a"], 5000.0)
    block = group.due(1400.0)
    assert block is not None
    assert block.count == 1


def test_times_increase_also_when_the_clock_does_not() -> None:
    group = builder(records=2, next_time=100 * TICKS_PER_SECOND)
    blocks = [b for now in (50.0, 120.0, 119.0, 119.0) for b in group.add([b"a", b"b"], now)]
    starts = [b.time for b in blocks]
    assert starts[:2] == [100 * TICKS_PER_SECOND, 120 * TICKS_PER_SECOND]
    assert starts[2:] == [120 * TICKS_PER_SECOND + 2, 120 * TICKS_PER_SECOND + 4]


@settings(deadline=None)
@given(
    calls=st.lists(st.tuples(st.lists(st.binary(max_size=6), max_size=12), st.floats(0, 5)), max_size=12),
    records=st.integers(1, 5),
    size=st.integers(1, 20),
    next_time=st.integers(0, 4 * TICKS_PER_SECOND),
)
def test_blocks_are_the_frames_in_order(
    calls: list[tuple[list[bytes], float]], records: int, size: int, next_time: int
) -> None:
    group = builder(records, size, 0.5, next_time)
    blocks: list[Block] = []
    for frames, now in calls:
        blocks += group.add(frames, now)
        blocks += [block for block in [group.due(now)] if block]
    blocks += [block for block in [group.flush()] if block]
    assert frames_of(blocks) == [frame for frames, _ in calls for frame in frames]
    offset, time = 0, next_time
    for block in blocks:
        assert block.offset == offset
        assert block.time >= time
        assert 1 <= block.count <= records
        assert block.count == len(msgpack.unpackb(block.payload))
        offset, time = block.end, block.time + block.count
    assert (group.next_offset, group.next_time) == (offset, time)
