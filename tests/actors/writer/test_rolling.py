"""The writer with a sink that rolls: what it holds back, for how long, and how rejects of a sink come home."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

import pytest

from actors.backoff import Backoff
from actors.batch import Batch, Receipt, Rejected
from actors.block import BlockId
from actors.errors import DeliveryRefused, NotAttached
from actors.writer.sinks.base import Payload
from actors.writer.writer import HELD_BLOCKS, Writer
from tests.actors.writer.test_writer import DEADLINE, OWNER, Denied, MemorySink, batch, lines, until

Result = TypeVar("Result")
#: A linger that no test waits for.
LONG = 10 * DEADLINE


class RollingMemorySink(MemorySink):
    """Takes all blocks of a roll in one payload, and rejects the offsets in `bad`."""

    def __init__(self, linger: float) -> None:
        super().__init__()
        self.linger = linger
        self.hold_bytes = 1000
        self.rolls: list[int] = []
        self.bad: set[int] = set()

    def payloads(self, batch: Batch) -> Iterator[Payload]:
        raise AssertionError("a rolling sink gets rolls")

    def rolled(self, batches: Sequence[Batch]) -> Iterator[Payload]:
        self.rolls.append(len(batches))
        assert len({batch.id.epoch for batch in batches}) == 1
        feed = batches[0].id.feed
        offsets = [offset for batch in batches for offset in batch.offsets.tolist()]
        good = [offset for offset in offsets if offset not in self.bad]
        rejects = tuple(Rejected(offset, "too large", b"") for offset in offsets if offset in self.bad)
        yield Payload("\n".join(f"{feed}/{offset}" for offset in good).encode(), len(good), rejects)


def run(work: Callable[[Writer, RollingMemorySink], Awaitable[Result]], linger: float = LONG) -> Result:
    async def main() -> Result:
        sink = RollingMemorySink(linger)
        writer = Writer(sink, Backoff(0.001, 0.002))
        await writer.attach("t", OWNER)
        try:
            return await asyncio.wait_for(work(writer, sink), DEADLINE)
        finally:
            await writer.close()

    return asyncio.run(main())


def write(writer: Writer, number: int, size: int = 1, epoch: int = 1) -> asyncio.Task[Receipt]:
    sent = replace(batch(4 * number, epoch=epoch), size=size)
    previous = BlockId("t", epoch, 4 * number - 4) if number else None
    return asyncio.create_task(writer.write(OWNER, sent.id, previous, sent))


def test_half_a_window_of_blocks_is_one_roll() -> None:
    async def work(writer: Writer, sink: RollingMemorySink) -> None:
        receipts = await asyncio.gather(*(write(writer, number) for number in range(HELD_BLOCKS)))
        assert receipts == [Receipt(1000 + 4 * number) for number in range(HELD_BLOCKS)]
        assert sink.rolls == [HELD_BLOCKS]
        assert sink.sent == lines(4 * HELD_BLOCKS)
        assert [d.block.offset for d in writer.deliveries(0)] == list(range(0, 4 * HELD_BLOCKS, 4))

    run(work)


def test_half_a_window_of_bytes_is_one_roll() -> None:
    async def work(writer: Writer, sink: RollingMemorySink) -> None:
        await asyncio.gather(write(writer, 0, 600), write(writer, 1, 400))
        assert sink.rolls == [2]

    run(work)


def test_a_block_waits_no_longer_than_the_linger() -> None:
    async def work(writer: Writer, sink: RollingMemorySink) -> None:
        started = time.monotonic()
        await asyncio.gather(write(writer, 0), write(writer, 1))
        assert time.monotonic() - started >= 0.05
        assert sink.rolls == [2]

    run(work, linger=0.05)


def test_nothing_is_acknowledged_before_its_roll() -> None:
    async def work(writer: Writer, sink: RollingMemorySink) -> None:
        gate = sink.hold("t/0")
        tasks = [write(writer, number, 500) for number in range(2)]
        await until(lambda: sink.rolls == [2])
        assert writer.waiting == 2
        assert not any(task.done() for task in tasks)
        gate.set()
        await asyncio.gather(*tasks)

    run(work)


def test_epochs_do_not_share_a_roll() -> None:
    async def work(writer: Writer, sink: RollingMemorySink) -> None:
        first, second = batch(0), replace(batch(0, epoch=2), size=1000)
        await asyncio.gather(
            writer.write(OWNER, first.id, None, first), writer.write(OWNER, second.id, first.id, second)
        )
        assert sink.rolls == [1, 1]
        assert sink.sent == lines(4) * 2

    run(work)


def test_a_new_session_abandons_what_is_held_back_and_rolls_its_own() -> None:
    async def work(writer: Writer, sink: RollingMemorySink) -> None:
        held = write(writer, 0)
        await until(lambda: writer.waiting == 1)
        await writer.attach("t", (1, 2))
        with pytest.raises(NotAttached):
            await held
        sent = replace(batch(0), size=1000)
        await writer.write((1, 2), sent.id, None, sent)
        assert sink.sent == lines(4)
        assert sink.rolls == [1]

    run(work)


def test_a_refusal_is_every_blocks_of_the_roll() -> None:
    async def work(writer: Writer, sink: RollingMemorySink) -> None:
        sink.failures["t/0"] = [Denied("no")]
        results = await asyncio.gather(write(writer, 0, 500), write(writer, 1, 500), return_exceptions=True)
        assert [type(result) for result in results] == [DeliveryRefused, DeliveryRefused]

    run(work)


def test_rejects_of_the_sink_come_home_with_their_own_blocks_and_are_asked_for_again() -> None:
    async def work(writer: Writer, sink: RollingMemorySink) -> None:
        sink.bad = {1, 6, 7}
        first, second = await asyncio.gather(write(writer, 0, 500), write(writer, 1, 500))
        assert first.rejects == (Rejected(1, "too large", b""),)
        assert [reject.offset for reject in second.rejects] == [6, 7]
        assert sink.sent == [line for line in lines(8) if line not in ("t/1", "t/6", "t/7")]
        # Their receipts may have been lost with the session.
        assert await writer.attach("t", (1, 2)) is None

    run(work)
