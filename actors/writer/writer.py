"""A sink's writer: takes decoded blocks in any order, sends them in the order of each feed, answers when durable.

Feeds are independent of each other: each has one task that sends, so that one feed's order costs no other feed its
speed. Transient errors are tried again for as long as it takes (the spool grows meanwhile, memory does not: a
monitor sends no more than its window); a refusal for good raises :class:`~actors.errors.DeliveryRefused`.

An asyncio class without Ray. The sink's calls run on threads of their own.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from actors.backoff import Backoff
from actors.batch import Batch, Receipt
from actors.block import BlockId
from actors.errors import DeliveryRefused, NotAttached
from actors.writer.reorder import Owner, ReorderBuffer
from actors.writer.sinks.base import Payload, Sink

log = logging.getLogger(__name__)

#: Requests under way at one sink at once.
CONCURRENCY = 4

#: Deliveries remembered for whoever measures latency or follows along; about 100 bytes each.
DELIVERY_LOG = 20_000


@dataclass(frozen=True, slots=True)
class Delivery:
    """A block that became durable at the sink, `time` in seconds since 1970."""

    number: int
    block: BlockId
    count: int
    time: float


@dataclass(slots=True)
class _Work:
    owner: Owner
    batch: Batch
    done: asyncio.Future[Receipt]
    payloads: Iterator[Payload] | None = None
    ahead: asyncio.Future[Payload | None] | None = None


@dataclass(slots=True)
class _Feed:
    buffer: ReorderBuffer[_Work]
    ready: deque[_Work] = field(default_factory=deque)
    #: Set while `ready` has something.
    filled: asyncio.Event = field(default_factory=asyncio.Event)
    #: Held while a block is being sent, so that a new owner starts only after it.
    sending: asyncio.Lock = field(default_factory=asyncio.Lock)
    #: (epoch, offset) before which everything is durable.
    durable: tuple[int, int] | None = None
    #: Whether this session's receipts named records that did not decode.
    rejects: bool = False
    task: asyncio.Task[None] | None = None


@dataclass(slots=True)
class WriterStats:
    """Counts since the writer started. `problem` is the sink's present trouble in one line, or None."""

    records: int = 0
    requests: int = 0
    retries: int = 0
    problem: str | None = None
    problem_since: float | None = None


class Writer:
    """Delivers to `sink`. Make and use it on one event loop."""

    def __init__(
        self, sink: Sink, backoff: Backoff | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self.stats = WriterStats()
        self._sink = sink
        self._backoff = backoff or Backoff()
        self._clock = clock
        self._feeds: dict[str, _Feed] = {}
        self._threads = ThreadPoolExecutor(CONCURRENCY, thread_name_prefix="sink")
        self._deliveries: deque[Delivery] = deque(maxlen=DELIVERY_LOG)
        self._delivered = 0

    async def attach(self, feed: str, owner: Owner) -> tuple[int, int] | None:
        """Begin a session of `owner` for `feed`.

        Waits until a block of an earlier session that is being sent has ended. Returns the (epoch, offset) before
        which everything is known to be durable; None after a restart, and after rejects: their receipts may have
        been lost, and only sending the blocks again brings them back. Raises :class:`StaleOwner`.
        """
        state = self._feeds.get(feed)
        if state is None:
            state = self._feeds[feed] = _Feed(ReorderBuffer(feed))
            state.task = asyncio.create_task(self._send_feed(state))
        self._abandon(state.buffer.attach(owner), state)
        async with state.sending:
            if state.rejects:
                state.durable, state.rejects = None, False
            return state.durable

    def _abandon(self, waiting: list[_Work], state: _Feed) -> None:
        waiting += state.ready
        state.ready.clear()
        for work in waiting:
            if not work.done.done():
                work.done.set_exception(
                    NotAttached(f"{state.buffer.feed}: the session has ended; attach anew")
                )

    async def write(self, owner: Owner, block: BlockId, previous: BlockId | None, batch: Batch) -> Receipt:
        """Deliver `batch` after its predecessor; returns when it is durable.

        Raises:
            NotAttached, StaleOwner: see :class:`ReorderBuffer`.
            DeliveryRefused: the sink refuses it for good.
        """
        state = self._feeds.get(block.feed)
        if state is None:
            raise NotAttached(f"{block.feed} is not attached")
        done: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        for work in state.buffer.offer(owner, block, previous, _Work(owner, batch, done)):
            state.ready.append(work)
        if state.ready:
            state.filled.set()
        # Shielded: a caller that gives up must not leave a hole in the order.
        return await asyncio.shield(done)

    async def _send_feed(self, state: _Feed) -> None:
        while True:
            while not state.ready:
                state.filled.clear()
                await state.filled.wait()
            work = state.ready.popleft()
            async with state.sending:
                try:
                    await self._deliver(work, state.ready)
                except Exception as error:
                    message = f"{state.buffer.feed}: {error}"
                    work.done.set_exception(DeliveryRefused(message))
                    # What follows must not overtake it, nor what is still to come.
                    self._abandon(state.buffer.detach(work.owner), state)
                    continue
                batch = work.batch
                state.durable = (batch.id.epoch, batch.id.offset + batch.count)
                state.rejects |= bool(batch.rejects)
                self._delivered += 1
                self._deliveries.append(Delivery(self._delivered, batch.id, batch.count, self._clock()))
                work.done.set_result(Receipt(batch.time, batch.rejects))

    async def _deliver(self, work: _Work, following: deque[_Work]) -> None:
        """Send `work` payload by payload; while one is under way, the next is encoded, also that of the next block."""
        while payload := await self._encode_ahead(work):
            work.ahead = None
            self._encode_ahead(work)
            if following:
                self._encode_ahead(following[0])
            await self._send(payload)
            self.stats.requests += 1
            self.stats.records += payload.records

    def _encode_ahead(self, work: _Work) -> asyncio.Future[Payload | None]:
        """The next payload of `work`, begun to be encoded if it was not; None after the last."""
        if work.payloads is None:
            work.payloads = self._sink.payloads(work.batch)
        if work.ahead is None:
            run = asyncio.get_running_loop().run_in_executor
            work.ahead = run(self._threads, next, work.payloads, None)
        return work.ahead

    async def _send(self, payload: Payload) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            try:
                await loop.run_in_executor(self._threads, self._sink.send, payload)
            except Exception as error:
                if not getattr(error, "retryable", False):
                    raise
                failures += 1
                self.stats.retries += 1
                if self.stats.problem is None:
                    self.stats.problem_since = self._clock()
                    log.warning("the sink fails: %s; trying again", error)
                self.stats.problem = str(error)
                delay = self._backoff.delay(failures)
                await asyncio.sleep(max(delay, min(getattr(error, "retry_after", None) or 0.0, 300.0)))
            else:
                self.stats.problem = self.stats.problem_since = None
                return

    def deliveries(self, after: int) -> list[Delivery]:
        """Deliveries with a number above `after`, oldest first, as far as remembered."""
        missing = self._delivered - after
        return list(self._deliveries)[-missing:] if missing > 0 else []

    @property
    def waiting(self) -> int:
        """Blocks held: out of order, or in order and not yet durable."""
        return sum(
            len(state.buffer) + len(state.ready) + state.sending.locked() for state in self._feeds.values()
        )

    async def close(self) -> None:
        """Stop sending and release the sink; what is not durable stays with its monitor."""
        tasks = [state.task for state in self._feeds.values() if state.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.get_running_loop().run_in_executor(self._threads, self._sink.close)
        self._threads.shutdown(wait=False)
