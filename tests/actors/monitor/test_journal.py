"""The journal remembers what happened to recent blocks, and says from when on."""

from __future__ import annotations

from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from actors.batch import Receipt, Rejected
from actors.block import TICKS_PER_SECOND, Block, BlockId
from actors.errors import DecodeAborted, DeliveryRefused, NotAttached
from actors.monitor.journal import STEPS, Journal
from actors.monitor.replays import REPLAY
from actors.monitor.transport import DecoderFailed


def block(number: int, feed: str = "t", epoch: int = 1) -> Block:
    """Of ten records."""
    return Block(feed, epoch, 10 * number, 10, 5 * TICKS_PER_SECOND, "avro", "{}", b"")


def journal(blocks: int = 100) -> Journal:
    clock = count(100)
    return Journal(blocks, lambda: float(next(clock)))


def test_a_record_has_the_steps_of_its_block_in_order_of_time() -> None:
    made = journal()
    made.committed([block(0), block(1)])
    made.note("t", block(1), "dispatched", "a", actor="decoder/3")
    made.answered("t", block(1), "a", Receipt(0, (Rejected(12, "bad", b""),), 2, decoded=102.5, handed=102.7))
    steps = made.steps(BlockId("t", 1, 19))
    assert [(step.time, step.what, step.sink, step.actor, step.note) for step in steps] == [
        (5.0, "received", "", "", ""),
        (101.0, "committed", "", "", "with the block of offsets 10 to 19"),
        (102.0, "dispatched", "a", "decoder/3", ""),
        (102.5, "decoded", "a", "", ""),
        (102.7, "handed over", "a", "", ""),
        (103.0, "acknowledged", "a", "", "1 dead letters, 2 filtered"),
    ]
    assert [step.what for step in made.steps(BlockId("t", 1, 9))] == ["received", "committed"]
    assert (
        made.steps(BlockId("t", 1, 20))
        == made.steps(BlockId("t", 2, 0))
        == made.steps(BlockId("u", 1, 0))
        == []
    )


def test_failures_say_what_they_were() -> None:
    made = journal()
    failures = {
        "not decoded": DecoderFailed("decoder died", blame=True),
        "aborted": DecodeAborted("bad column", 4, 1),
        "refused": DeliveryRefused("no such stream"),
        "not acknowledged": NotAttached("the writer died"),
    }
    for failure in failures.values():
        made.answered("t", block(0), "a", failure)
    steps = made.steps(BlockId("t", 1, 0))
    assert [step.what for step in steps] == list(failures)
    assert all(str(failure) in step.note for step, failure in zip(steps, failures.values(), strict=True))


def test_replays_and_rewinds_belong_to_the_record() -> None:
    made = journal()
    made.note("t" + REPLAY, block(0), "dispatched", "a", note="in a process of its own")
    made.rewound("t", "b", 1, 5)
    assert [step.note for step in made.steps(BlockId("t", 1, 4))] == ["replay, in a process of its own"]
    assert [step.what for step in made.steps(BlockId("t", 1, 5))] == ["dispatched", "rewound"]


@given(st.lists(st.integers(0, 30), max_size=200), st.integers(1, 8))
def test_it_is_bounded_and_tells_from_when_on_it_knows_all(numbers: list[int], bound: int) -> None:
    made, noted = journal(bound), dict[int, list[float]]()
    began = made.since
    for time, number in enumerate(numbers):
        made.note("t", block(number), "dispatched", "a", at=1000.0 + time)
        noted.setdefault(number, []).append(1000.0 + time)
    remembered = {number: [s.time for s in made.steps(BlockId("t", 1, 10 * number))] for number in noted}
    assert sum(map(bool, remembered.values())) <= bound
    for number, times in noted.items():
        known = [time for time in times if time > made.since][:STEPS]
        assert remembered[number][-len(known) :] == known if known else True
    assert made.since >= began
