"""Moves blocks from the spool to the writers: every lane of one monitor, driven by events from one queue.

Runs on a thread of its own and waits only for its queue. What reaches actors goes through a :class:`Transport`, so
that this module needs no Ray and its tests no cluster. Cursor moves are saved in groups: losing the last of them in
a crash means sending some blocks again, never skipping any.
"""

from __future__ import annotations

import contextlib
import functools
import heapq
import itertools
import logging
import queue
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from actors.batch import Rejected
from actors.block import Block, BlockId
from actors.errors import DecodeAborted, DeliveryRefused, NotAttached, StaleOwner
from actors.monitor.lane import DEFAULT_WINDOW_BYTES, Abort, Lane, LaneState
from actors.monitor.spool import Position, Spool
from actors.monitor.transport import DecoderFailed, Task, Transport

log = logging.getLogger(__name__)

#: Seconds between saves of cursors while acknowledgements flow.
SAVE_INTERVAL = 0.2

#: Decoders that may die with a block, by its fault or another's, before it is decoded in a process of its own.
POISON_DEATHS = 2

#: Seconds allowed to the dispatcher's thread to answer a question.
ANSWER_TIMEOUT = 10.0

#: What follows a feed's name in the name of the order in which its dead letters are replayed.
REPLAY = "!replay"

Answer = TypeVar("Answer")


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
    aborted: Abort | None = None


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
        abort: whether a record that does not decode stops its feed, instead of becoming a dead letter.
    """

    def __init__(
        self,
        spool: Spool,
        sinks: Iterable[str],
        transport: Transport,
        window_bytes: int = DEFAULT_WINDOW_BYTES,
        abort: bool = False,
    ) -> None:
        self._spool = spool
        self._abort = abort
        self._sinks = tuple(sinks)
        self._transport = transport
        self._window_bytes = window_bytes
        self._lanes: dict[tuple[str, str], Lane] = {}
        self._events: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._timers: list[_Timer] = []
        self._order = itertools.count()
        self._moved: dict[tuple[str, str], Position] = {}
        self._rejects: list[tuple[BlockId, int, Rejected]] = []
        #: Blocks of an aborting table that may lose records to the dead letters.
        self._permits = spool.permits()
        #: Block, by its order -> the deaths of decoders that it was with.
        self._deaths: dict[BlockId, set[object]] = {}
        #: Order -> the run of dead letters that is being replayed.
        self._runs: dict[str, int] = {}
        self._replayed: dict[str, list[tuple[int, Rejected]]] = {}
        self._save_due: float | None = None
        self._stopping = False
        self._delivered: dict[tuple[str, str], int] = {}
        self.stale = False
        for feed in spool.feeds():
            self._open_lanes(feed)
        self._open_replays()

    # -- called from any thread ---------------------------------------------------------------------------------

    def notify(self, feeds: Iterable[str]) -> None:
        """Blocks of `feeds` were committed to the spool."""
        feeds = tuple(feeds)
        self._events.put(lambda: self._committed(feeds))

    def stop(self) -> None:
        """End :meth:`run` after saving cursors."""
        self._events.put(self._stop)

    def resume(self, sinks: Iterable[str], skip: bool) -> list[tuple[str, str]]:
        """Let parked and aborted lanes to `sinks` try again; returns (feed, sink) of each.

        With `skip`, what did not decode in the blocks that aborted them becomes dead letters.
        """
        wanted = set(sinks)
        return self._ask(lambda: self._resume(wanted, skip))

    def replay(self, records: Iterable[BlockId] | None = None) -> dict[str, tuple[int, int]]:
        """Begin to deliver dead letters, all that wait or those of `records`; see :meth:`DeadLetters.begin`."""
        wanted = None if records is None else tuple(records)
        return self._ask(lambda: self._replay(wanted))

    def _ask(self, action: Callable[[], Answer]) -> Answer:
        """Do `action` on the thread of :meth:`run`. Raises TimeoutError."""
        answer: Future[Answer] = Future()

        def act() -> None:
            try:
                answer.set_result(action())
            except Exception as error:
                answer.set_exception(error)

        self._events.put(act)
        return answer.result(ANSWER_TIMEOUT)

    def report(self) -> list[LaneReport]:
        """The state of every lane, as of now."""
        reports = []
        for (sink, feed), lane in sorted(self._lanes.items()):
            if feed.endswith(REPLAY):
                run = self._runs.get(feed)
                if run is None:
                    continue
                records, size = self._spool.letters.pending(feed.removesuffix(REPLAY), run, lane.cursor)
            else:
                records, size = self._spool.pending(feed, lane.cursor)
            state, problem, aborted = lane.state.value, lane.problem, lane.aborted
            if aborted is not None and problem is None:
                state, problem = "aborted", f"record {aborted.offset} did not decode: {aborted.reason}"
            delivered = self._delivered[sink, feed]
            reports.append(
                LaneReport(feed, sink, state, problem, delivered, records, size, lane.in_flight, aborted)
            )
        return reports

    @property
    def pending(self) -> int:
        """Records that some sink is not known on disk to have, also of feeds that :meth:`run` has not heard of yet."""
        keys = ((sink, feed) for feed in self._spool.feeds() for sink in self._sinks)
        return sum(self._spool.pending(feed, self._spool.cursor(sink, feed))[0] for sink, feed in keys)

    @property
    def stuck(self) -> bool:
        """Whether all that is pending waits for a person: its lanes are parked."""
        lanes = list(self._lanes.values())
        waiting = {lane.state for lane in lanes if self._spool.pending(lane.feed, lane.cursor)[0]}
        return waiting == {LaneState.PARKED}

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
            block = self._next_block(lane)
            if block is None or not lane.may_send(block):
                break
            self._write(lane, block, lane.sent(block))

    def _next_block(self, lane: Lane) -> Block | None:
        if not lane.feed.endswith(REPLAY):
            return self._spool.next_block(lane.feed, lane.read_position)
        run = self._runs.get(lane.feed)
        if run is None:
            return None
        return self._spool.letters.next_block(lane.feed.removesuffix(REPLAY), run, lane.read_position)

    def _write(self, lane: Lane, block: Block, previous: BlockId | None) -> None:
        session = lane.session
        task = Task(lane.feed, block)
        isolated = len(self._deaths.get(task.id, ())) >= POISON_DEATHS
        strict = self._abort and block.feed == lane.feed and block.id not in self._permits
        self._transport.write(
            lane.sink,
            replace(task, strict=strict, isolated=isolated),
            session,
            previous and previous._replace(feed=lane.feed),
            self._later(lambda result: self._written(lane, session, block, result)),
        )

    def _later(self, handle: Callable[[Any], None]) -> Callable[[Any], None]:
        return lambda result: self._events.put(lambda: handle(result))

    # -- answers ------------------------------------------------------------------------------------------------

    def _attached(self, lane: Lane, session: int, result: Any) -> None:
        if isinstance(result, BaseException):
            self._writer_failed(lane, session, result)
            return
        # Of a replay the writer may remember an earlier run, which was further on.
        durable = Position(*result) if result and not lane.feed.endswith(REPLAY) else None
        if lane.attached(session, durable):
            self._cursor_moved(lane)
        self._pump(lane)

    def _written(self, lane: Lane, session: int, block: Block, result: Any) -> None:
        if isinstance(result, DecoderFailed):
            if result.blame:
                self._deaths.setdefault(block.id._replace(feed=lane.feed), set()).add(result.death)
            again = lane.decode_failed(session, block.id, str(result), result.blame)
            if again is not None:
                due = time.monotonic() + again.delay
                self._at(due, lambda: self._write_again(lane, session, block, again.previous))
        elif isinstance(result, DecodeAborted):
            if lane.abort(session, Abort(block.id, result.offset, str(result), result.count)):
                if block.id in self._permits:  # given for another sink while this one decoded
                    lane.resume()
                else:
                    log.error("%s to %s aborted at %s: %s", lane.feed, lane.sink, block.id, result)
                self._pump(lane)
        elif isinstance(result, DeliveryRefused):
            log.error("%s to %s parked: %s", lane.feed, lane.sink, result)
            lane.park(str(result))
        elif isinstance(result, BaseException):
            self._writer_failed(lane, session, result)
        else:
            if lane.feed == block.feed:
                self._rejects += [(block.id, result.time, reject) for reject in result.rejects]
            else:
                self._replayed.setdefault(lane.feed, []).extend((block.epoch, r) for r in result.rejects)
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

    # -- ways back ----------------------------------------------------------------------------------------------

    def _resume(self, sinks: set[str], skip: bool) -> list[tuple[str, str]]:
        resumed = []
        for lane in self._lanes.values():
            if lane.sink not in sinks:
                continue
            if skip and lane.aborted is not None:
                self._spool.permit(lane.aborted.block)
                self._permits.add(lane.aborted.block)
            if lane.resume():
                resumed.append((lane.feed, lane.sink))
                self._pump(lane)
        return resumed

    def _replay(self, records: Iterable[BlockId] | None) -> dict[str, tuple[int, int]]:
        begun = self._spool.letters.begin(records)
        for lane in self._open_replays():
            self._pump(lane)
        return begun

    def _open_replays(self) -> list[Lane]:
        """Begin the next run of each feed that has one and is not at one; returns its lanes, at their start."""
        opened = []
        for feed, run in self._spool.letters.runs().items():
            order = feed + REPLAY
            if order in self._runs:
                continue
            self._runs[order] = run
            for sink in self._sinks:
                self._delivered.setdefault((sink, order), 0)
                # One lane for all runs: the writer knows it by the number of its session.
                lane = self._lanes.setdefault(
                    (sink, order), Lane(order, sink, Position(), self._window_bytes)
                )
                lane.rewind(Position())
                opened.append(lane)
        return opened

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
        orders = {order for _, order in self._moved}
        behind = {order: min(self._lanes[sink, order].cursor for sink in self._sinks) for order in orders}
        for block in [block for block in self._deaths if block[1:] < behind.get(block.feed, ())]:
            del self._deaths[block]
        replays = {order: position for order, position in behind.items() if order.endswith(REPLAY)}
        feeds = {feed: position for feed, position in behind.items() if feed not in replays}
        cursors = {key: position for key, position in self._moved.items() if key[1] in feeds}
        self._spool.advance(cursors, feeds, self._rejects)
        self._moved, self._rejects = {}, []
        for order, position in replays.items():
            self._settle(order, position)

    def _settle(self, order: str, behind: Position) -> None:
        """Note how far the run of a replay is; after its end, begin the next."""
        run = self._runs.get(order)
        rejects = self._replayed.pop(order, [])
        if run is None or not self._spool.letters.settle(order.removesuffix(REPLAY), run, behind, rejects):
            return
        del self._runs[order]
        for lane in self._open_replays():
            self._events.put(functools.partial(self._pump, lane))
