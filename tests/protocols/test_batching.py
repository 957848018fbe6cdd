"""The batching core: exact limits, linger, order and bounds by its rules; no loss on errors or close by its thread."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from protocols.accumulator import Accumulator, BufferFull, Chunk, Limits, RecordTooLarge
from protocols.batching import (
    Batcher,
    Closed,
    DeliveryEvent,
    EventKind,
    NotDelivered,
    RecordsRejected,
    Rejection,
)

DEADLINE = 60.0
KINDS: tuple[EventKind, ...] = ("send", "flush", "error")
ENVELOPE, SEPARATOR = 3, 1
LIMITS = Limits(records=4, bytes=20, linger=5.0, buffer_bytes=60)


def body(chunk: Chunk[bytes]) -> bytes:
    """A batch as a destination would get it."""
    return b"<" + b",".join(chunk.records) + b"/>"


class Rules(RuleBasedStateMachine):
    """What is taken is what was added, in order, as full as the limits allow and no fuller, when it is due."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = Accumulator[bytes](LIMITS, len, ENVELOPE, SEPARATOR)
        self.now = 0.0
        #: (record, when it was added) not yet taken.
        self.waiting: list[tuple[bytes, float]] = []
        self.taken: list[Chunk[bytes]] = []
        self.added = 0

    @rule(sizes=st.lists(st.integers(0, 22), max_size=9))
    def add(self, sizes: list[int]) -> None:
        records = [bytes([65 + (self.added + place) % 26]) * size for place, size in enumerate(sizes)]
        held = sum(len(record) for record, _ in self.waiting) + sum(chunk.held for chunk in self.taken)
        try:
            first = self.queue.add(records, self.now)
        except RecordTooLarge:
            assert max(sizes) + ENVELOPE > LIMITS.bytes or sum(sizes) > LIMITS.buffer_bytes
        except BufferFull:
            assert held + sum(sizes) > LIMITS.buffer_bytes
        else:
            assert held + sum(sizes) <= LIMITS.buffer_bytes
            assert first == self.added
            self.added += len(records)
            self.waiting += [(record, self.now) for record in records]

    @rule(seconds=st.floats(0, 6))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(hurry=st.booleans())
    def take(self, hurry: bool) -> None:
        chunk = self.queue.take(self.now, hurry=hurry)
        if chunk is None:
            assert not self.waiting or not hurry
            if self.waiting:
                assert self.now < self.waiting[0][1] + LIMITS.linger
                everything = b",".join(record for record, _ in self.waiting)
                assert len(self.waiting) < LIMITS.records
                assert ENVELOPE + len(everything) < LIMITS.bytes
            return
        count = len(chunk.records)
        assert 0 < count <= LIMITS.records
        assert chunk.size == len(body(chunk)) <= LIMITS.bytes
        assert chunk.records == [record for record, _ in self.waiting[:count]]
        oldest = self.waiting[0][1]
        del self.waiting[:count]
        if self.waiting:  # it was closed because the next did not fit
            wider = len(body(chunk)) + SEPARATOR + len(self.waiting[0][0])
            assert count == LIMITS.records or wider > LIMITS.bytes
        elif not hurry:
            no_more = count == LIMITS.records or chunk.size + SEPARATOR > LIMITS.bytes
            assert no_more or self.now >= oldest + LIMITS.linger
        self.taken.append(chunk)

    @precondition(lambda self: self.taken)
    @rule()
    def settle(self) -> None:
        self.queue.settle(self.taken.pop(0))

    @invariant()
    def accounts_for_all(self) -> None:
        taken = sum(len(chunk.records) for chunk in self.taken)
        assert self.queue.added == self.added == self.queue.settled + taken + len(self.waiting)
        assert 0 <= self.queue.held <= LIMITS.buffer_bytes


TestRules = Rules.TestCase
TestRules.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


class Busy(Exception):
    retryable = True


class Destination:
    """Takes chunks; each attempt consumes an outcome: None, an exception, or places to refuse."""

    def __init__(self, outcomes: Sequence[Exception | set[int] | None] = ()) -> None:
        self.outcomes = list(outcomes)
        self.received: list[int] = []
        self.chunks: list[int] = []
        self.open = threading.Event()
        self.open.set()

    def send(self, chunk: Chunk[int]) -> list[Rejection[int]]:
        assert self.open.wait(DEADLINE)
        outcome = self.outcomes.pop(0) if self.outcomes else None
        if isinstance(outcome, Exception):
            raise outcome
        bad = outcome or set()
        self.chunks.append(len(chunk.records))
        self.received += [r for place, r in enumerate(chunk.records) if place not in bad]
        return [
            Rejection(chunk.first + place, r, "bad") for place, r in enumerate(chunk.records) if place in bad
        ]


def batcher(send: Callable[[Chunk[int]], Sequence[Rejection[int]]], **limits: float) -> Batcher[int]:
    """Records are numbers that count as ten bytes."""
    bounds = Limits(**{"records": 3, "linger": 0.0, "buffer_bytes": 1000, **limits})  # type: ignore[arg-type]
    return Batcher(send, Accumulator(bounds, lambda _: 10), lambda failures: 0.001 * failures, "test")


@given(
    puts=st.lists(st.lists(st.integers(), max_size=7), max_size=8),
    outcomes=st.lists(
        st.one_of(st.none(), st.builds(Busy), st.builds(ValueError), st.sets(st.integers(0, 2), max_size=2)),
        max_size=12,
    ),
)
@settings(deadline=None, max_examples=60)
def test_everything_is_delivered_in_order_or_handed_back(
    puts: list[list[int]], outcomes: list[Exception | set[int] | None]
) -> None:
    there = Destination(outcomes)
    events: list[DeliveryEvent[int]] = []
    to = batcher(there.send)
    for kind in KINDS:
        to.on(kind, events.append)
    everything = [record for put in puts for record in put]
    for put in puts:
        to.put(put)
    back: tuple[Rejection[int], ...] = ()
    count = 0
    try:
        to.close(DEADLINE)
    except RecordsRejected as error:
        back, count = error.rejections, error.count
    assert count == len(back)
    lost = {rejection.number for rejection in back}
    assert there.received == [record for n, record in enumerate(everything) if n not in lost]
    assert [everything[rejection.number] for rejection in back] == [r.record for r in back]
    assert [r for event in events for r in event.rejections] == list(back)
    flushed = sum(len(event.records) for event in events if event.kind == "flush")
    refused_whole = sum(len(e.records) for e in events if e.rejections and e.error is not None)
    assert flushed + refused_whole == len(everything)
    sends = [(event.first, event.attempt) for event in events if event.kind == "send"]
    assert sends == sorted(sends)
    assert to.pending == 0


def test_a_full_buffer_says_so_at_once_and_waits_on_request() -> None:
    there = Destination()
    there.open.clear()
    to = batcher(there.send, buffer_bytes=30)
    to.put([1, 2])
    with pytest.raises(BufferFull, match="20 of 30 bytes"):
        to.put([3, 4])
    with pytest.raises(BufferFull):
        to.put([3, 4], timeout=0.02)
    threading.Timer(0.02, there.open.set).start()
    assert to.put([3, 4], timeout=DEADLINE) == 2
    with pytest.raises(RecordTooLarge, match="add fewer"):
        to.put([1, 2, 3, 4])
    to.close(DEADLINE)
    assert there.received == [1, 2, 3, 4]


def test_a_task_awaits_room_and_may_give_up() -> None:
    there = Destination()
    there.open.clear()
    to = batcher(there.send, buffer_bytes=20)

    async def main() -> None:
        await to.put_async([1, 2])
        impatient = asyncio.create_task(to.put_async([8]))
        patient = asyncio.create_task(to.put_async([3]))
        await asyncio.sleep(0)
        assert not patient.done()
        impatient.cancel()
        there.open.set()
        assert await asyncio.wait_for(patient, DEADLINE) == 2

    asyncio.run(main())
    to.close(DEADLINE)
    assert there.received == [1, 2, 3]


def test_flush_does_not_wait_for_the_linger_but_for_the_answer() -> None:
    there = Destination()
    there.open.clear()
    to = batcher(there.send, linger=1000.0)
    to.put([1])
    with pytest.raises(NotDelivered, match="1 records") as caught:
        to.flush(0.02)
    assert caught.value.pending == 1
    there.open.set()
    to.flush(DEADLINE)
    assert there.received == [1]
    to.close(DEADLINE)


def test_the_linger_is_counted_from_the_first_record() -> None:
    there = Destination()
    to = batcher(there.send, linger=0.1, records=1000, buffer_bytes=10**6)
    started = time.monotonic()
    count = 0
    while not there.chunks:
        assert time.monotonic() < started + DEADLINE
        to.put([count])
        count += 1
        time.sleep(0.001)
    assert time.monotonic() - started >= 0.1
    assert there.chunks[0] > 1
    to.close(DEADLINE)
    assert there.received == list(range(count))


def test_all_who_flush_at_the_same_time_are_told_what_was_refused() -> None:
    there = Destination([{1}])
    there.open.clear()
    to = batcher(there.send)
    to.put([1, 2, 3])
    with ThreadPoolExecutor(3) as threads:
        flushes = [threads.submit(to.flush, DEADLINE) for _ in range(3)]
        deadline = time.monotonic() + DEADLINE
        while len(to._flushers) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        there.open.set()
        for flush in flushes:
            error = flush.exception(DEADLINE)
            assert isinstance(error, RecordsRejected)
            assert [rejection.record for rejection in error.rejections] == [2]
    to.flush(DEADLINE)
    to.close(DEADLINE)


@pytest.mark.parametrize("error", [RuntimeError, SystemExit])
def test_a_handler_that_raises_harms_nobody(error: type[BaseException]) -> None:
    there = Destination([Busy("later")])
    to = batcher(there.send)
    told: list[str] = []

    def bad(event: DeliveryEvent[int]) -> None:
        told.append(event.kind)
        raise error("mine")

    for kind in KINDS:
        to.on(kind, bad)
    to.put([1])
    to.close(DEADLINE)
    assert told == ["send", "error", "send", "flush"]
    assert there.received == [1]
    with pytest.raises(ValueError, match="no event 'done'"):
        to.on("done", bad)  # type: ignore[arg-type]


def test_close_gives_up_in_time_and_says_what_is_left() -> None:
    to = batcher(Destination([Busy("down")] * 10_000).send)
    to.put([1, 2, 3, 4])
    started = time.monotonic()
    with pytest.raises(NotDelivered, match=r"4 records not delivered within 0\.05 s: down"):
        to.close(0.05)
    assert time.monotonic() - started < DEADLINE
    assert to.pending == 4
    with pytest.raises(Closed):
        to.put([5])


@pytest.mark.parametrize("method", ["flush", "close"])
def test_flush_or_close_from_a_handler_is_an_error_not_a_deadlock(method: str) -> None:
    there = Destination()
    to = batcher(there.send)
    caught: list[Exception] = []

    def wait(_: object) -> None:
        try:
            getattr(to, method)()
        except RuntimeError as error:
            caught.append(error)

    to.on("send", wait)
    to.put([1])
    to.flush(DEADLINE)
    to.put([2])  # it is not closed
    to.close(DEADLINE)
    assert len(caught) == 2
    assert there.received == [1, 2]


def test_many_threads_keep_their_own_order() -> None:
    there = Destination()
    to = batcher(there.send, records=50, buffer_bytes=2000)

    def work(thread: int) -> None:
        for n in range(200):
            to.put([thread * 1000 + n], timeout=DEADLINE)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    to.close(DEADLINE)
    assert len(there.received) == 1000
    for n in range(5):
        assert [r for r in there.received if r // 1000 == n] == list(range(n * 1000, n * 1000 + 200))
