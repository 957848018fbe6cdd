"""The writer with a sink in memory: order, independence of feeds, retries, refusals, sessions."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pytest

from actors.backoff import Backoff
from actors.batch import Batch, Receipt, Rejected
from actors.block import BlockId
from actors.errors import DeliveryRefused, NotAttached, StaleOwner
from actors.writer import writer as module
from actors.writer.sinks.base import Payload
from actors.writer.writer import Writer

Result = TypeVar("Result")
OWNER = (1, 1)
DEADLINE = 60.0


class Busy(Exception):
    """A transient error."""

    retryable = True

    def __init__(self, retry_after: float | None = None) -> None:
        super().__init__("busy")
        self.retry_after = retry_after


class Denied(Exception):
    """A refusal of everything."""

    refuses_all = True


class MemorySink:
    """The full contract of a sink, in memory: payloads of two records as ``feed/offset`` lines."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.attempts: list[str] = []
        self.closed = False
        #: What to raise at the next attempts to send a payload that begins so.
        self.failures: dict[str, list[BaseException]] = {}
        self._gates: dict[str, threading.Event] = {}
        self._lock = threading.Lock()

    def hold(self, payload: str) -> threading.Event:
        """Let sends of `payload` wait for the event returned."""
        return self._gates.setdefault(payload, threading.Event())

    def payloads(self, batch: Batch) -> Iterator[Payload]:
        offsets = batch.offsets.tolist()
        for start in range(0, len(offsets), 2):
            part = offsets[start : start + 2]
            yield Payload("\n".join(f"{batch.id.feed}/{offset}" for offset in part).encode(), len(part))

    def send(self, payload: Payload) -> None:
        text = payload.body.decode()
        name = text.split("\n")[0]
        gate = self._gates.get(name)
        if gate is not None:
            assert gate.wait(DEADLINE)
        with self._lock:
            self.attempts.append(name)
            if self.failures.get(name):
                raise self.failures[name].pop(0)
            self.sent += text.split("\n")

    def close(self) -> None:
        self.closed = True


def batch(offset: int, count: int = 4, feed: str = "t", epoch: int = 1, rejects: int = 0) -> Batch:
    """A batch whose last `rejects` records did not decode."""
    good = count - rejects
    rows = pa.RecordBatch.from_pydict({"a": list(range(good))})
    bad = tuple(Rejected(offset + good + n, "bad", b"") for n in range(rejects))
    positions = np.arange(good) if rejects else None
    return Batch(BlockId(feed, epoch, offset), count, 1000 + offset, rows, positions, bad)


def run(work: Callable[[Writer, MemorySink], Awaitable[Result]]) -> Result:
    """Run `work` with a writer that waits milliseconds between attempts."""

    async def main() -> Result:
        sink = MemorySink()
        writer = Writer(sink, Backoff(0.001, 0.002), clock=lambda: 7.0)
        try:
            return await asyncio.wait_for(work(writer, sink), DEADLINE)
        finally:
            await writer.close()
            assert sink.closed

    return asyncio.run(main())


def write(
    writer: Writer,
    number: int,
    feed: str = "t",
    owner: tuple[int, int] = OWNER,
    first: int = 0,
    rejects: int = 0,
) -> asyncio.Task[Receipt]:
    """Send the `number`th block of four records; `first` is the number with which the session began."""
    sent = batch(4 * number, feed=feed, rejects=rejects)
    previous = BlockId(feed, 1, 4 * number - 4) if number > first else None
    return asyncio.create_task(writer.write(owner, sent.id, previous, sent))


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def lines(count: int, feed: str = "t") -> list[str]:
    return [f"{feed}/{offset}" for offset in range(count)]


def test_blocks_are_sent_in_order_whatever_order_they_come_in() -> None:
    async def work(writer: Writer, sink: MemorySink) -> None:
        assert await writer.attach("t", OWNER) is None
        tasks = [write(writer, number) for number in (3, 1, 2)]
        await until(lambda: writer.waiting == 3)
        assert sink.attempts == []
        receipts = await asyncio.gather(write(writer, 0), *tasks)
        assert receipts == [Receipt(1000), Receipt(1012), Receipt(1004), Receipt(1008)]
        assert sink.sent == lines(16)
        assert writer.waiting == 0
        assert (writer.stats.records, writer.stats.requests, writer.stats.retries) == (16, 8, 0)

    run(work)


def test_a_feed_that_is_held_up_holds_up_no_other() -> None:
    async def work(writer: Writer, sink: MemorySink) -> None:
        gate = sink.hold("t/0")
        for feed in ("t", "u"):
            await writer.attach(feed, OWNER)
        held = [write(writer, number) for number in range(2)]
        await asyncio.gather(*(write(writer, number, "u") for number in range(20)))
        assert sink.sent == lines(80, "u")
        assert not any(task.done() for task in held)
        gate.set()
        await asyncio.gather(*held)
        assert sink.sent[80:] == lines(8)

    run(work)


def test_a_transient_error_repeats_only_the_payload_that_failed() -> None:
    async def work(writer: Writer, sink: MemorySink) -> None:
        await writer.attach("t", OWNER)
        sink.failures["t/2"] = [Busy() for _ in range(5)]
        gate = sink.hold("t/4")
        tasks = [write(writer, number) for number in range(2)]
        await tasks[0]
        assert sink.attempts == ["t/0", *["t/2"] * 6]
        assert (writer.stats.retries, writer.stats.problem) == (5, None)
        gate.set()
        await tasks[1]
        assert sink.sent == lines(8)

    run(work)


def test_the_problem_is_shown_while_it_lasts() -> None:
    async def work(writer: Writer, sink: MemorySink) -> None:
        await writer.attach("t", OWNER)
        sink.failures["t/0"] = [Busy() for _ in range(1000)]
        task = write(writer, 0)
        await until(lambda: writer.stats.retries > 2)
        assert (writer.stats.problem, writer.stats.problem_since) == ("busy", 7.0)
        sink.failures.clear()
        await task
        assert (writer.stats.problem, writer.stats.problem_since) == (None, None)

    run(work)


def test_a_refusal_ends_the_session_so_that_nothing_overtakes_the_refused_block() -> None:
    async def work(writer: Writer, sink: MemorySink) -> None:
        await writer.attach("t", OWNER)
        await writer.attach("u", OWNER)
        sink.failures["t/4"] = [Denied("no permission")]
        tasks = [write(writer, number) for number in (0, 1, 2, 4)]
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert outcomes[0] == Receipt(1000)
        assert isinstance(outcomes[1], DeliveryRefused)
        assert str(outcomes[1]) == "t: no permission"
        assert [type(outcome) for outcome in outcomes[2:]] == [NotAttached, NotAttached]
        # One that comes after the refusal does not slip through either, nor count as durable.
        with pytest.raises(NotAttached):
            await write(writer, 3)
        assert sink.sent == lines(4)
        await write(writer, 0, "u")
        assert await writer.attach("t", (1, 2)) == (1, 4)
        await write(writer, 1, owner=(1, 2), first=1)
        assert sink.sent == [*lines(4), *lines(4, "u"), *lines(8)[4:]]

    run(work)


def test_a_sink_that_would_end_the_process_ends_only_the_session() -> None:
    async def work(writer: Writer, sink: MemorySink) -> None:
        await writer.attach("t", OWNER)
        sink.failures["t/0"] = [SystemExit()]
        with pytest.raises(DeliveryRefused, match="t: SystemExit"):
            await write(writer, 0)
        await writer.attach("t", (1, 2))
        await write(writer, 0, owner=(1, 2))
        assert sink.sent == lines(4)

    run(work)


def test_attach_waits_for_the_block_that_is_being_sent_and_reports_it() -> None:
    async def work(writer: Writer, sink: MemorySink) -> None:
        await writer.attach("t", OWNER)
        gate = sink.hold("t/2")
        tasks = [write(writer, number) for number in (0, 1, 3)]
        await until(lambda: sink.attempts == ["t/0"])
        attach = asyncio.create_task(writer.attach("t", (2, 1)))
        outcomes = await asyncio.gather(*tasks[1:], return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [NotAttached, NotAttached]
        with pytest.raises(StaleOwner):
            await write(writer, 2)
        assert not attach.done()
        gate.set()
        assert await attach == (1, 4)
        assert await tasks[0] == Receipt(1000)
        await write(writer, 1, owner=(2, 1), first=1)
        assert sink.sent == lines(8)

    run(work)


def test_a_refusal_of_the_session_before_does_not_end_the_new_one() -> None:
    async def work(writer: Writer, sink: MemorySink) -> None:
        await writer.attach("t", OWNER)
        gate = sink.hold("t/0")
        sink.failures["t/0"] = [Denied("no")]
        task = write(writer, 0)
        await until(lambda: writer.waiting == 1)
        attach = asyncio.create_task(writer.attach("t", (1, 2)))
        await asyncio.sleep(0)
        gate.set()
        assert await attach is None
        with pytest.raises(DeliveryRefused):
            await task
        await write(writer, 0, owner=(1, 2))
        assert sink.sent == lines(4)

    run(work)


def test_after_rejects_blocks_are_asked_for_again_lest_their_dead_letters_be_lost() -> None:
    async def work(writer: Writer, sink: MemorySink) -> None:
        await writer.attach("t", OWNER)
        receipt = await write(writer, 0, rejects=1)
        assert receipt.rejects == (Rejected(3, "bad", b""),)
        await write(writer, 1)
        # The receipt may never have reached the monitor that died.
        assert await writer.attach("t", (2, 1)) is None
        await write(writer, 1, owner=(2, 1), first=1)
        assert await writer.attach("t", (3, 1)) == (1, 8)

    run(work)


def test_who_is_not_attached_is_told() -> None:
    async def work(writer: Writer, sink: MemorySink) -> None:
        with pytest.raises(NotAttached):
            await write(writer, 0)
        await writer.attach("t", (5, 1))
        with pytest.raises(StaleOwner):
            await writer.attach("t", (4, 1))
        with pytest.raises(StaleOwner):
            await write(writer, 0, owner=(4, 1))
        with pytest.raises(NotAttached):
            await write(writer, 0, owner=(5, 2))

    run(work)


def test_a_caller_that_gives_up_leaves_no_hole() -> None:
    async def work(writer: Writer, sink: MemorySink) -> None:
        await writer.attach("t", OWNER)
        gate = sink.hold("t/0")
        tasks = [write(writer, number) for number in range(3)]
        await until(lambda: writer.waiting == 3)
        for task in tasks[:2]:
            task.cancel()
        gate.set()
        await tasks[2]
        assert sink.sent == lines(12)

    run(work)


def test_a_batch_of_nothing_but_rejects_is_durable_without_a_request() -> None:
    async def work(writer: Writer, sink: MemorySink) -> None:
        await writer.attach("t", OWNER)
        receipt = await write(writer, 0, rejects=4)
        assert len(receipt.rejects) == 4
        assert sink.attempts == []

    run(work)


def test_deliveries_are_logged_and_the_log_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DELIVERY_LOG", 3)

    async def work(writer: Writer, sink: MemorySink) -> None:
        await writer.attach("t", OWNER)
        assert writer.deliveries(0) == []
        for number in range(5):
            await write(writer, number)
        assert [d.number for d in writer.deliveries(0)] == [3, 4, 5]
        assert [d.block.offset for d in writer.deliveries(3)] == [12, 16]
        assert writer.deliveries(4)[0].time == 7.0
        assert writer.deliveries(5) == []

    run(work)
