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

import msgpack

from actors.batch import Receipt, Rejected
from actors.block import TICKS_PER_SECOND, Block, BlockId
from actors.errors import DecodeAborted, DeliveryRefused, NotAttached, SpoolFull, StaleOwner
from actors.monitor.accounts import Outcome
from actors.monitor.lane import DEFAULT_WINDOW_BYTES, Abort, Lane, LaneState
from actors.monitor.retention import Rewound, Span
from actors.monitor.spool import Position, Spool
from actors.monitor.transport import DecoderFailed, Task, Transport

log = logging.getLogger(__name__)

#: Seconds between saves of cursors while acknowledgements flow.
SAVE_INTERVAL = 0.2

#: Seconds between attempts to save them on a full disk, and between two looks at what need not be kept any more.
FULL_INTERVAL = 1.0
TIDY_INTERVAL = 5.0

#: Decoders that may die with a block, by its fault or another's, before it is decoded in a process of its own.
POISON_DEATHS = 2

#: Seconds allowed to the dispatcher's thread to answer a question.
ANSWER_TIMEOUT = 10.0

#: What follows a feed's name in the name of the order in which its dead letters are replayed.
REPLAY = "!replay"

Answer = TypeVar("Answer")


@dataclass(slots=True)
class LaneReport:
    """What ``status`` shows of a lane.

    `lag_seconds` is the age of the oldest record that the sink is not known to have, 0 for none; `account` is
    :meth:`~actors.monitor.accounts.Account.shown`.
    """

    feed: str
    sink: str
    state: str
    problem: str | None
    pending_records: int
    pending_bytes: int
    in_flight: int
    lag_seconds: float = 0.0
    aborted: Abort | None = None
    account: dict[str, Any] | None = None


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
        absent: sinks that are not delivered to now, and for which blocks are kept.
    """

    def __init__(
        self,
        spool: Spool,
        sinks: Iterable[str],
        transport: Transport,
        window_bytes: int = DEFAULT_WINDOW_BYTES,
        abort: bool = False,
        absent: Iterable[str] = (),
    ) -> None:
        self._spool = spool
        self._abort = abort
        self._sinks = tuple(sinks)
        self._absent = tuple(absent)
        self._transport = transport
        self._window_bytes = window_bytes
        self._lanes: dict[tuple[str, str], Lane] = {}
        self._events: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._timers: list[_Timer] = []
        self._order = itertools.count()
        self._moved: dict[tuple[str, str], Position] = {}
        #: (Sink, feed) -> what became of blocks, not delivered whole, that its cursor has not passed yet.
        self._outcomes: dict[tuple[str, str], dict[BlockId, Outcome]] = {}
        #: Blocks of an aborting table that may lose records to the dead letters.
        self._permits = spool.permits()
        #: Block, by its order -> the deaths of decoders that it was with.
        self._deaths: dict[BlockId, set[object]] = {}
        #: Order -> the run of dead letters that is being replayed.
        self._runs: dict[str, int] = {}
        self._replayed: dict[str, list[tuple[int, Rejected]]] = {}
        self._save_due: float | None = None
        self._stopping = False
        self.stale = False
        spool.open_accounts((*self._sinks, *self._absent))
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

    def supersede(self, why: str) -> None:
        """A newer owner of the feeds has shown itself: end :meth:`run`."""
        self._events.put(lambda: self._superseded(why))

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

    def rewind(self, sink: str, time: int) -> dict[str, Rewound]:
        """Deliver again to `sink` what was received at `time` (ticks) or later; see :meth:`Retention.rewind`."""
        return self._ask(lambda: self._rewind(sink, time))

    def drop(self, size: int) -> int:
        """Delete `size` bytes of the oldest blocks that are not in flight; see :meth:`Retention.drop`."""
        return self._ask(lambda: self._drop(size))

    def _ask(self, action: Callable[[], Answer]) -> Answer:
        """Do `action` on the thread of :meth:`run`. Raises TimeoutError."""
        answer: Future[Answer] = Future()

        def act() -> None:
            if not answer.set_running_or_notify_cancel():
                return
            try:
                answer.set_result(action())
            except Exception as error:
                answer.set_exception(error)

        self._events.put(act)
        try:
            return answer.result(ANSWER_TIMEOUT)
        except TimeoutError:
            if answer.cancel():
                raise
        # It is being done, and cannot be called off any more.
        return answer.result(ANSWER_TIMEOUT)

    def report(self) -> list[LaneReport]:
        """The state of every lane, as of now; counts as of the cursors on disk."""
        accounts = {(account.sink, account.feed): account for account in self._spool.accounts()}
        reports = []
        for (sink, feed), lane in sorted(self._lanes.items()):
            state, problem, aborted = lane.state.value, lane.problem, lane.aborted
            if aborted is not None and problem is None:
                state, problem = "aborted", f"record {aborted.offset} did not decode: {aborted.reason}"
            report = LaneReport(feed, sink, state, problem, 0, 0, lane.in_flight, aborted=aborted)
            if feed.endswith(REPLAY):
                run = self._runs.get(feed)
                if run is None:
                    continue
                letters = self._spool.letters.pending(feed.removesuffix(REPLAY), run, lane.cursor)
                report.pending_records, report.pending_bytes = letters
            elif (account := accounts.get((sink, feed))) is not None:
                report.pending_records, report.pending_bytes = account.waiting, account.bytes
                report.account = account.shown()
                if account.waiting and (oldest := self._spool.oldest(feed, lane.cursor)) is not None:
                    report.lag_seconds = round(max(0.0, time.time() - oldest / TICKS_PER_SECOND), 3)
            reports.append(report)
        return reports

    @property
    def pending(self) -> int:
        """Records that some sink is not known on disk to have, also of feeds that :meth:`run` has not heard of yet."""
        return sum(account.waiting for account in self._spool.accounts() if account.sink in self._sinks)

    @property
    def stuck(self) -> bool:
        """Whether all that is pending waits for a person: its lanes are parked."""
        accounts = [each for each in self._spool.accounts() if each.waiting and each.sink in self._sinks]
        lanes = [self._lanes.get((account.sink, account.feed)) for account in accounts]
        return bool(lanes) and all(lane is not None and lane.state is LaneState.PARKED for lane in lanes)

    @property
    def done(self) -> bool:
        """Whether every sink has, as the disk knows, what may be delivered; what is frozen may not."""
        keys = ((sink, feed) for feed in self._spool.feeds() for sink in self._sinks)
        rest = (self._spool.next_block(feed, self._spool.cursor(sink, feed)) for sink, feed in keys)
        return not self._runs and not any(rest)

    # -- the loop -----------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Work until :meth:`stop`, or until a newer owner of the feeds shows itself (then :attr:`stale` is set)."""
        # A sink that held blocks back may be gone since the last run, and nothing else would delete them.
        self._moved = {key: lane.cursor for key, lane in self._lanes.items()}
        self._save()
        self._tidy()
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
                cursor, rewound = self._spool.cursor(sink, feed), self._spool.rewound(sink, feed)
                self._lanes[sink, feed] = Lane(feed, sink, cursor, self._window_bytes, rewound=rewound)

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
                self._note(lane, block, result)
            else:
                self._replayed.setdefault(lane.feed, []).extend((block.epoch, r) for r in result.rejects)
            if lane.acked(session, block.id):
                self._cursor_moved(lane)
            self._pump(lane)

    def _note(self, lane: Lane, block: Block, receipt: Receipt) -> None:
        """Remember what became of `block`, if it was not delivered whole, until the cursor passes it."""
        if receipt.rejects or receipt.filtered:
            rejects = tuple(_with_frame(reject, block) for reject in receipt.rejects)
            outcome = Outcome(lane.sink, block.id, receipt.time, rejects, receipt.filtered)
            self._outcomes.setdefault((lane.sink, lane.feed), {})[block.id] = outcome

    def _write_again(self, lane: Lane, session: int, block: Block, previous: BlockId | None) -> None:
        if lane.session == session:
            self._write(lane, block, previous)

    def _writer_failed(self, lane: Lane, session: int, error: BaseException) -> None:
        if isinstance(error, StaleOwner):
            self._superseded(f"{lane.feed}: {error}")
            return
        if not isinstance(error, NotAttached):
            log.warning("%s to %s: %s; sending again", lane.feed, lane.sink, error)
        if lane.writer_failed(session, str(error), time.monotonic()):
            self._at(lane.not_before, lambda: self._pump(lane))

    def _superseded(self, why: str) -> None:
        log.error("%s", why)
        self.stale = self._stopping = True

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

    def _rewind(self, sink: str, time: int) -> dict[str, Rewound]:
        self._save()
        rewound = self._spool.retention.rewind(sink, time)
        for feed, (position, _) in rewound.items():
            lane = self._lanes[sink, feed]
            # On a full disk it may still wait to be saved.
            self._moved.pop((sink, feed), None)
            lane.rewind(position, again=True)
            self._pump(lane)
        return rewound

    def _drop(self, size: int) -> int:
        self._save()
        lanes: dict[str, dict[str, Span]] = {}
        for (sink, feed), lane in self._lanes.items():
            if not feed.endswith(REPLAY):
                lanes.setdefault(feed, {})[sink] = (lane.cursor, lane.read_position)
        return self._spool.retention.drop(size, lanes)

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
            self._save_later(SAVE_INTERVAL)

    def _save_later(self, seconds: float) -> None:
        self._save_due = time.monotonic() + seconds
        self._at(self._save_due, self._save)

    def _tidy(self) -> None:
        """Delete what has been kept long enough; while nothing moves, nothing else would."""
        with contextlib.suppress(SpoolFull):
            self._spool.retention.tidy()
        self._at(time.monotonic() + TIDY_INTERVAL, self._tidy)

    def _save(self) -> None:
        self._save_due = None
        if not self._moved:
            return
        orders = {order for _, order in self._moved}
        behind = {order: self._behind(order) for order in orders}
        for block in [block for block in self._deaths if block[1:] < behind.get(block.feed, ())]:
            del self._deaths[block]
        replays = {order: position for order, position in behind.items() if order.endswith(REPLAY)}
        feeds = {feed: position for feed, position in behind.items() if feed not in replays}
        cursors = {key: position for key, position in self._moved.items() if key[1] in feeds}
        passed = [
            outcome
            for key, at in cursors.items()
            for outcome in self._outcomes.get(key, {}).values()
            if outcome.block[1:] < at
        ]
        try:
            self._spool.advance(cursors, feeds, passed)
        except SpoolFull as error:
            log.error("cursors are not saved: %s", error)
            self._save_later(FULL_INTERVAL)
            return
        self._moved = {}
        for outcome in passed:
            del self._outcomes[outcome.sink, outcome.block.feed][outcome.block]
        for order, position in replays.items():
            self._settle(order, position)

    def _behind(self, order: str) -> Position:
        """Where all sinks have everything before."""
        cursors = [self._lanes[sink, order].cursor for sink in self._sinks]
        if not order.endswith(REPLAY):
            cursors += [self._spool.cursor(sink, order) for sink in self._absent]
        return min(cursors)

    def _settle(self, order: str, behind: Position) -> None:
        """Note how far the run of a replay is; after its end, begin the next."""
        run = self._runs.get(order)
        rejects = self._replayed.pop(order, [])
        if run is None or not self._spool.letters.settle(order.removesuffix(REPLAY), run, behind, rejects):
            return
        del self._runs[order]
        for lane in self._open_replays():
            self._events.put(functools.partial(self._pump, lane))


def _with_frame(reject: Rejected, block: Block) -> Rejected:
    """`reject` with its frame, which a sink that rejected it never saw."""
    frame = reject.frame or msgpack.unpackb(block.payload)[reject.offset - block.offset]
    return replace(reject, frame=frame)
