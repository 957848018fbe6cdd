"""A tap shows blocks to whoever looks, keeps little, and counts what it did not keep."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actors.block import Block
from actors.monitor import tap as module
from actors.monitor.tap import LEASE, Tap


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def block(number: int, size: int = 10, feed: str = "t") -> Block:
    """Of ten records."""
    return Block(feed, 1, 10 * number, 10, 0, "avro", "{}", bytes(size))


def test_nothing_is_kept_while_nobody_looks() -> None:
    clock = Clock()
    tap = Tap(clock)
    tap.passes(block(0))
    first = tap.read()
    assert (first.blocks, first.missed) == ((), 0)
    tap.passes(block(1))
    second = tap.read(first.seen)
    assert (second.blocks, second.missed) == ((block(1),), 0)
    assert tap.read(second.seen).blocks == ()
    clock.now += LEASE
    tap.passes(block(2))
    tap.passes(block(3))
    assert tap.read(second.seen).blocks == ()


def test_what_is_sent_again_or_to_another_sink_is_shown_once() -> None:
    tap = Tap(Clock())
    seen = tap.read().seen
    for number in (0, 0, 1, 0, 1, 2):
        tap.passes(block(number))
    tap.passes(block(0, feed="t.deletes"))
    assert [(each.feed, each.offset) for each in tap.read(seen).blocks] == [
        ("t", 0),
        ("t", 10),
        ("t", 20),
        ("t.deletes", 0),
    ]


def test_whoever_looks_at_a_new_process_begins_anew() -> None:
    old = Tap(Clock())
    old.read()
    for number in range(5):
        old.passes(block(number))
    seen = old.read(0).seen
    assert seen == 50
    assert Tap(Clock()).read(seen).missed == 0


@given(st.lists(st.one_of(st.just("read"), st.integers(1, module.BYTES * 2)), max_size=60))
def test_every_record_is_shown_or_counted_and_memory_is_bounded(doings: list[str | int]) -> None:
    tap = Tap(Clock())
    seen, shown, missed, passed = tap.read().seen, 0, 0, 0
    for doing in [*doings, "read"]:
        if isinstance(doing, int):
            tap.passes(block(passed, doing))
            passed += 1
            sizes = [len(each.payload) for _, each in tap._kept]
            assert len(sizes) == 1 or (sum(sizes) <= module.BYTES and len(sizes) <= module.BLOCKS)
        else:
            found = tap.read(seen)
            seen, missed = found.seen, missed + found.missed
            shown += sum(each.count for each in found.blocks)
    assert shown + missed == 10 * passed
