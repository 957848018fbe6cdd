"""A sink's writer: takes decoded blocks in any order, sends them in the order of each feed, answers when durable.

Feeds are independent of each other: each has one task that sends, so that one feed's order costs no other feed its
speed. How it is sent stands in ``sender.py``: transient errors are tried again for as long as it takes (the spool grows
meanwhile, memory does not: a monitor sends no more than its window), a record that the sink refuses is a reject in the
receipt, and a sink that refuses everything raises :class:`~actors.errors.DeliveryRefused`.

Whoever puts events (``client.py``) is a feed like a monitor's, with blocks of events that may go to several streams.

An asyncio class without Ray.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from actors.backoff import Backoff
from actors.batch import Batch, Receipt, Rejected
from actors.block import BlockId
from actors.errors import DeliveryRefused, NotAttached
from actors.names import is_put_feed
from actors.writer.reorder import Owner, ReorderBuffer
from actors.writer.sender import Encoding, Sender, SenderStats
from actors.writer.sinks.base import RollingSink, Sink

#: Most blocks that a rolling sink's writer holds back, half of those in a lane's window: while they are made
#: durable, the other half is on its way.
HELD_BLOCKS = 8

#: Deliveries remembered for whoever measures latency or follows along; about 100 bytes each.
DELIVERY_LOG = 20_000

#: Most seconds between two attempts to reach a sink, unless it asks for more.
LONGEST_PAUSE = 5.0

#: Seconds after which a caller's feed of puts is forgotten if nothing came; if the caller lives, it attaches anew.
PUT_IDLE = 3600.0


@dataclass(frozen=True, slots=True)
class Delivery:
    """A block that became durable at the sink, `time` in seconds since 1970."""

    number: int
    block: BlockId
    count: int
    time: float


@dataclass(slots=True)
class _Block:
    """A block to be delivered: a table's has one batch, one of puts a batch per stream."""

    id: BlockId
    batches: Sequence[Batch]
    done: asyncio.Future[Receipt]
    #: When it came here, in seconds since 1970.
    handed: float = 0.0

    @property
    def count(self) -> int:
        return sum(batch.count for batch in self.batches)

    @property
    def rows(self) -> int:
        return sum(batch.rows.num_rows for batch in self.batches)

    @property
    def size(self) -> int:
        return sum(batch.size for batch in self.batches)


@dataclass(slots=True)
class _Work:
    """Blocks that are sent together."""

    owner: Owner
    blocks: list[_Block]
    encoding: Encoding | None = None

    @property
    def batches(self) -> list[Batch]:
        return [batch for block in self.blocks for batch in block.batches]


@dataclass(slots=True)
class _Feed:
    buffer: ReorderBuffer[_Work]
    ready: deque[_Work] = field(default_factory=deque)
    #: What is being sent, as far as it is not durable.
    under_way: deque[_Block] = field(default_factory=deque)
    #: Set while `ready` has something.
    filled: asyncio.Event = field(default_factory=asyncio.Event)
    #: Held while a block is being sent, so that a new owner starts only after it.
    sending: asyncio.Lock = field(default_factory=asyncio.Lock)
    #: (epoch, offset) before which everything is durable.
    durable: tuple[int, int] | None = None
    #: Whether this session's receipts named rejects or what was filtered.
    rejects: bool = False
    task: asyncio.Task[None] | None = None
    used_at: float = 0.0


class Writer:
    """Delivers to `sink`. Make and use it on one event loop."""

    def __init__(
        self, sink: Sink, backoff: Backoff | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._sink = sink
        self._rolling = sink if isinstance(sink, RollingSink) else None
        self._sender = Sender(sink, backoff or Backoff(cap=LONGEST_PAUSE, floor=0.0), clock)
        self._clock = clock
        self._feeds: dict[str, _Feed] = {}
        self._deliveries: deque[Delivery] = deque(maxlen=DELIVERY_LOG)
        self._delivered = 0

    async def attach(self, feed: str, owner: Owner) -> tuple[int, int] | None:
        """Begin a session of `owner` for `feed`.

        Waits until a block of an earlier session that is being sent has ended. Returns the (epoch, offset) before
        which everything is known to be durable; None after a restart, and after rejects and filtered records: the
        receipts that counted them may have been lost, and only sending the blocks again brings them back. Raises
        :class:`StaleOwner`.
        """
        if is_put_feed(feed) and not getattr(self._sink, "takes_puts", False):
            raise DeliveryRefused("this sink takes tables only; put to another sink of the pipeline")
        state = self._feeds.get(feed)
        if state is None:
            state = self._feeds[feed] = _Feed(ReorderBuffer(feed), used_at=self._clock())
            state.task = asyncio.create_task(self._send_feed(state))
        self._abandon(state.buffer.attach(owner), state)
        self._forget_idle()
        async with state.sending:
            if state.rejects:
                state.durable, state.rejects = None, False
            return state.durable

    def _abandon(self, waiting: list[_Work], state: _Feed) -> None:
        waiting += state.ready
        state.ready.clear()
        for block in (block for work in waiting for block in work.blocks):
            if not block.done.done():
                block.done.set_exception(
                    NotAttached(f"{state.buffer.feed}: the session has ended; attach anew")
                )

    def leave(self, feed: str) -> None:
        """Forget a feed of puts whose caller has ended."""
        state = self._feeds.get(feed)
        if state is not None and is_put_feed(feed) and not self._busy(state):
            del self._feeds[feed]
            if state.task is not None:
                state.task.cancel()

    def _forget_idle(self) -> None:
        """Forget feeds of puts that have long been idle: not every caller says that it ends."""
        now = self._clock()
        for feed, state in list(self._feeds.items()):
            if is_put_feed(feed) and now > state.used_at + PUT_IDLE:
                self.leave(feed)

    @staticmethod
    def _busy(state: _Feed) -> bool:
        return bool(state.ready or len(state.buffer) or state.sending.locked())

    async def write(
        self, owner: Owner, block: BlockId, previous: BlockId | None, batch: Batch | Sequence[Batch]
    ) -> Receipt:
        """Deliver `batch`, or the batches of a block of puts, after the predecessor; returns when it is durable.

        Raises:
            NotAttached, StaleOwner: see :class:`ReorderBuffer`.
            DeliveryRefused: the sink refuses everything.
        """
        state = self._feeds.get(block.feed)
        if state is None:
            raise NotAttached(f"{block.feed} is not attached")
        state.used_at = self._clock()
        done: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        batches = (batch,) if isinstance(batch, Batch) else tuple(batch)
        work = _Work(owner, [_Block(block, batches, done, self._clock())])
        state.ready.extend(state.buffer.offer(owner, block, previous, work))
        if state.ready:
            state.filled.set()
        # Shielded: a caller that gives up must not leave a hole in the order.
        return await asyncio.shield(done)

    async def _send_feed(self, state: _Feed) -> None:
        while True:
            while not state.ready:
                state.filled.clear()
                await state.filled.wait()
            if self._rolling and not is_put_feed(state.buffer.feed):
                await self._hold(state, self._rolling)
                if not state.ready:
                    continue
            work = state.ready.popleft()
            async with state.sending:
                try:
                    await self._deliver(state, work)
                except (asyncio.CancelledError, GeneratorExit):
                    raise
                except (
                    BaseException
                ) as error:  # a sink's SystemExit, or a panic of its library, is no end of ours
                    reason = str(error) or type(error).__name__
                    for block in state.under_way:
                        block.done.set_exception(DeliveryRefused(f"{state.buffer.feed}: {reason}"))
                    state.under_way.clear()
                    # What follows must not overtake it, nor what is still to come.
                    self._abandon(state.buffer.detach(work.owner), state)

    async def _deliver(self, state: _Feed, work: _Work) -> None:
        """Send `work`, answering for each of its blocks as soon as all of it is durable."""
        waiting = state.under_way
        waiting.extend(work.blocks)
        rejects: list[Rejected] = []
        settled = 0  # rows of the blocks that were answered for
        encoding = self._encoding(work)
        progress = self._sender.deliver(work.batches, encoding, lambda: self._encode_next(state.ready))
        async for row, found in progress:
            rejects += found
            # The last block waits for the end: rows of none may be behind it.
            while len(waiting) > 1 and settled + waiting[0].rows <= row:
                settled += waiting[0].rows
                self._durable(state, waiting.popleft(), rejects)
        while waiting:
            self._durable(state, waiting.popleft(), rejects)

    def _durable(self, state: _Feed, block: _Block, rejects: list[Rejected]) -> None:
        end = block.id.offset + block.count
        here = [reject for batch in block.batches for reject in batch.rejects]
        here += [reject for reject in rejects if block.id.offset <= reject.offset < end]
        filtered = sum(batch.filtered for batch in block.batches)
        state.durable = (block.id.epoch, end)
        state.rejects |= bool(here or filtered)
        self._delivered += 1
        self._deliveries.append(Delivery(self._delivered, block.id, block.count, self._clock()))
        first = block.batches[0]
        block.done.set_result(Receipt(first.time, tuple(here), filtered, first.decoded, block.handed))

    def _encoding(self, work: _Work) -> Encoding:
        if work.encoding is None:
            work.encoding = self._sender.encode(work.batches)
        return work.encoding

    def _encode_next(self, ready: deque[_Work]) -> None:
        """Begin to encode what comes after what is being sent, unless it is a roll that waits for more."""
        if ready and not (self._rolling and self._rolling.linger):
            if self._rolling and ready[0].encoding is None:
                _roll(ready)
            self._encoding(ready[0]).begin()

    async def _hold(self, state: _Feed, sink: RollingSink) -> None:
        """Wait until the blocks that are ready are worth a roll, then make one piece of work of them."""
        ready = state.ready
        if ready[0].encoding is not None:
            return  # it is a roll already
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(sink.linger):
                while 0 < len(ready) < HELD_BLOCKS and _size(ready) < sink.hold_bytes:
                    state.filled.clear()
                    await state.filled.wait()
        if ready:  # else the session ended meanwhile
            _roll(ready)

    def deliveries(self, after: int) -> list[Delivery]:
        """Deliveries with a number above `after`, oldest first, as far as remembered."""
        missing = self._delivered - after
        return list(self._deliveries)[-missing:] if missing > 0 else []

    def deliveries_of(self, record: BlockId) -> list[Delivery]:
        """Those of the blocks that have `record`, oldest first, as far as remembered."""
        return [
            each
            for each in self._deliveries
            if each.block[:2] == record[:2] and 0 <= record.offset - each.block.offset < each.count
        ]

    @property
    def stats(self) -> SenderStats:
        return self._sender.stats

    @property
    def waiting(self) -> int:
        """Blocks held: out of order, or in order and not yet durable."""
        return sum(len(state.buffer) + _blocks(state)[0] for state in self._feeds.values())

    def status(self) -> dict[str, Any]:
        """Counts, the present problem, and the state of the circuit, as JSON-able values."""
        counts = {
            "waiting": self.waiting,
            "buffered_bytes": sum(_blocks(state)[1] for state in self._feeds.values()),
            "callers": sum(map(is_put_feed, self._feeds)),
        }
        return {**counts, **asdict(self.stats), **self._sender.status()}

    async def close(self) -> None:
        """Stop sending and release the sink; what is not durable stays with its monitor."""
        tasks = [state.task for state in self._feeds.values() if state.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._sender.close()


def _roll(ready: deque[_Work]) -> None:
    """Make one piece of work of all that is ready of one epoch."""
    first = ready.popleft()
    while ready and ready[0].blocks[0].id.epoch == first.blocks[0].id.epoch:
        first.blocks += ready.popleft().blocks
    ready.appendleft(first)


def _size(ready: deque[_Work]) -> int:
    return sum(block.size for work in ready for block in work.blocks)


def _blocks(state: _Feed) -> tuple[int, int]:
    """Blocks in order and not yet durable, and their bytes as received."""
    blocks = [*state.under_way, *(block for work in state.ready for block in work.blocks)]
    return len(blocks), sum(block.size for block in blocks)
