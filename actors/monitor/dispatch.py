"""Moves blocks from the spool to the writers: every lane of one monitor, driven by events from one queue.

Runs on a thread of its own and waits only for its queue. What reaches actors goes through a :class:`Transport`, so
that this module needs no Ray and its tests no cluster. Cursor moves are saved in groups: losing the last of them in
a crash means sending some blocks again, never skipping any.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import queue
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from actors.batch import Rejected
from actors.block import Block, BlockId
from actors.errors import DeliveryRefused, NotAttached, StaleOwner
from actors.monitor.lane import DEFAULT_WINDOW_BYTES, Lane
from actors.monitor.spool import Position, Spool

log = logging.getLogger(__name__)

#: Seconds between saves of cursors while acknowledgements flow.
SAVE_INTERVAL = 0.2


class DecoderFailed(Exception):
    """What a transport reports when a block was not decoded, so that the writer never saw it.

    `blame` says whether the block may be the cause: a decoder died over it or refused it, other than there being
    no decoder at all.
    """

    def __init__(self, reason: str, blame: bool) -> None:
        super().__init__(reason)
        self.blame = blame


class Transport(Protocol):
    """How a dispatcher reaches writers and decoders. Calls return at once; `done` is called later, on any thread,
    with the result or the exception."""

    def attach(self, sink: str, feed: str, session: int, done: Callable[[Any], None]) -> None:
        """Attach `feed` to the writer of `sink`; the result is how far the feed is durable there, or None."""

    def write(
        self, sink: str, block: Block, session: int, previous: BlockId | None, done: Callable[[Any], None]
    ) -> None:
        """Decode `block` and write it; the result is a :class:`~actors.batch.Receipt`."""


@dataclass(slots=True)
class LaneReport:
    """What ``status`` shows of a lane."""

    feed: str
    sink: str
    state: str
    problem: str | None
    delivered: int
    pending_records: int
    pending_bytes: int
    in_flight: int


@dataclass(slots=True)
class _Timer:
    due: float
    order: int
    action: Callable[[], None] = field(compare=False)

    def __lt__(self, other: _Timer) -> bool:
        return (self.due, self.order) < (other.due, other.order)


class Dispatcher:
    """The lanes of one monitor.

    Args:
        spool: where blocks are read and cursors kept.
        sinks: names of the sinks that every feed goes to.
        transport: how to reach actors.
        window_bytes: unacknowledged payload bytes per lane.
    """

    def __init__(
        self,
        spool: Spool,
        sinks: Iterable[str],
        transport: Transport,
        window_bytes: int = DEFAULT_WINDOW_BYTES,
    ) -> None:
        self._spool = spool
        self._sinks = tuple(sinks)
        self._transport = transport
        self._window_bytes = window_bytes
        self._lanes: dict[tuple[str, str], Lane] = {}
        self._events: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._timers: list[_Timer] = []
        self._order = itertools.count()
        self._moved: dict[tuple[str, str], Position] = {}
        self._rejects: list[tuple[BlockId, int, Rejected]] = []
        self._save_due: float | None = None
        self._stopping = False
        self._delivered: dict[tuple[str, str], int] = {}
        self.stale = False
        for feed in spool.feeds():
            self._open_lanes(feed)

    # -- called from any thread ---------------------------------------------------------------------------------

    def notify(self, feeds: Iterable[str]) -> None:
        """Blocks of `feeds` were committed to the spool."""
        feeds = tuple(feeds)
        self._events.put(lambda: self._committed(feeds))

    def stop(self) -> None:
        """End :meth:`run` after saving cursors."""
        self._events.put(self._stop)

    def report(self) -> list[LaneReport]:
        """The state of every lane, as of now."""
        reports = []
        for (sink, feed), lane in sorted(self._lanes.items()):
            records, size = self._spool.pending(feed, lane.cursor)
            state = lane.state.value
            delivered = self._delivered[sink, feed]
            reports.append(
                LaneReport(feed, sink, state, lane.problem, delivered, records, size, lane.in_flight)
            )
        return reports

    @property
    def pending(self) -> int:
        """Records that some sink is not known on disk to have, also of feeds that :meth:`run` has not heard of yet."""
        keys = ((sink, feed) for feed in self._spool.feeds() for sink in self._sinks)
        return sum(self._spool.pending(feed, self._spool.cursor(sink, feed))[0] for sink, feed in keys)

    # -- the loop -----------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Work until :meth:`stop`, or until a newer owner of the feeds shows itself (then :attr:`stale` is set)."""
        # A sink that held blocks back may be gone since the last run, and nothing else would delete them.
        self._moved = {key: lane.cursor for key, lane in self._lanes.items()}
        self._save()
        for lane in list(self._lanes.values()):
            self._pump(lane)
        while not self._stopping:
            timeout = max(0.0, self._timers[0].due - time.monotonic()) if self._timers else None
            with contextlib.suppress(queue.Empty):
                self._events.get(timeout=timeout)()
            while self._timers and self._timers[0].due <= time.monotonic():
                heapq.heappop(self._timers).action()
        self._save()

    def _at(self, due: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._timers, _Timer(due, next(self._order), action))

    def _stop(self) -> None:
        self._stopping = True

    def _open_lanes(self, feed: str) -> None:
        for sink in self._sinks:
            if (sink, feed) not in self._lanes:
                self._delivered[sink, feed] = 0
                self._lanes[sink, feed] = Lane(feed, sink, self._spool.cursor(sink, feed), self._window_bytes)

    def _committed(self, feeds: Iterable[str]) -> None:
        for feed in feeds:
            self._open_lanes(feed)
            for sink in self._sinks:
                self._pump(self._lanes[sink, feed])

    def _pump(self, lane: Lane) -> None:
        """Do whatever the lane can do now."""
        if lane.wants_attach(time.monotonic()):
            session = lane.attaching()
            self._transport.attach(
                lane.sink,
                lane.feed,
                session,
                self._later(lambda result: self._attached(lane, session, result)),
            )
        while lane.wants_block():
            block = self._spool.next_block(lane.feed, lane.read_position)
            if block is None:
                break
            self._write(lane, block, lane.sent(block))

    def _write(self, lane: Lane, block: Block, previous: BlockId | None) -> None:
        session = lane.session
        self._transport.write(
            lane.sink,
            block,
            session,
            previous,
            self._later(lambda result: self._written(lane, session, block, result)),
        )

    def _later(self, handle: Callable[[Any], None]) -> Callable[[Any], None]:
        return lambda result: self._events.put(lambda: handle(result))

    # -- answers ------------------------------------------------------------------------------------------------

    def _attached(self, lane: Lane, session: int, result: Any) -> None:
        if isinstance(result, BaseException):
            self._writer_failed(lane, session, result)
            return
        if lane.attached(session, Position(*result) if result else None):
            self._cursor_moved(lane)
        self._pump(lane)

    def _written(self, lane: Lane, session: int, block: Block, result: Any) -> None:
        if isinstance(result, DecoderFailed):
            again = lane.decode_failed(session, block.id, str(result), result.blame)
            if again is not None:
                due = time.monotonic() + again.delay
                self._at(due, lambda: self._write_again(lane, session, block, again.previous))
        elif isinstance(result, DeliveryRefused):
            log.error("%s to %s parked: %s", lane.feed, lane.sink, result)
            lane.park(str(result))
        elif isinstance(result, BaseException):
            self._writer_failed(lane, session, result)
        else:
            self._rejects += [(block.id, result.time, reject) for reject in result.rejects]
            if lane.acked(session, block.id):
                self._cursor_moved(lane)
            self._delivered[lane.sink, lane.feed] += block.count
            self._pump(lane)

    def _write_again(self, lane: Lane, session: int, block: Block, previous: BlockId | None) -> None:
        if lane.session == session:
            self._write(lane, block, previous)

    def _writer_failed(self, lane: Lane, session: int, error: BaseException) -> None:
        if isinstance(error, StaleOwner):
            log.error("%s: %s", lane.feed, error)
            self.stale = self._stopping = True
            return
        if not isinstance(error, NotAttached):
            log.warning("%s to %s: %s; sending again", lane.feed, lane.sink, error)
        if lane.writer_failed(session, str(error), time.monotonic()):
            self._at(lane.not_before, lambda: self._pump(lane))

    # -- cursors ------------------------------------------------------------------------------------------------

    def _cursor_moved(self, lane: Lane) -> None:
        self._moved[lane.sink, lane.feed] = lane.cursor
        if self._save_due is None:
            self._save_due = time.monotonic() + SAVE_INTERVAL
            self._at(self._save_due, self._save)

    def _save(self) -> None:
        self._save_due = None
        if not self._moved and not self._rejects:
            return
        feeds = {feed for _, feed in self._moved}
        behind = {feed: min(self._lanes[sink, feed].cursor for sink in self._sinks) for feed in feeds}
        self._spool.advance(self._moved, behind, self._rejects)
        self._moved, self._rejects = {}, []
