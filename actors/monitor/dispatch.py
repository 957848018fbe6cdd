"""Moves blocks from the spool to the writers: every lane of one monitor, driven by events from one queue.

Runs on a thread of its own and waits only for its queue. What reaches actors goes through a :class:`Transport`, so
that this module needs no Ray and its tests no cluster. Cursor moves are saved in groups: losing the last of them in
a crash means sending some blocks again, never skipping any.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from actors.block import Block, BlockId
from actors.errors import DecodeAborted, DeliveryRefused, NotAttached, SpoolFull, StaleOwner
from actors.logs import place
from actors.monitor.cursors import Cursors
from actors.monitor.journal import Journal
from actors.monitor.lane import DEFAULT_WINDOW_BYTES, Abort, Lane
from actors.monitor.lane_report import LaneReport, report
from actors.monitor.loop import Loop
from actors.monitor.replays import Replays, is_replay
from actors.monitor.retention import Rewound, Span
from actors.monitor.spool import Position, Spool
from actors.monitor.tap import Tap
from actors.monitor.transport import DecoderFailed, Task, Transport

log = logging.getLogger(__name__)

#: Seconds between saves of cursors while acknowledgements flow.
SAVE_INTERVAL = 0.2

#: Seconds between attempts to save them on a full disk, and between two looks at what need not be kept any more.
FULL_INTERVAL = 1.0
TIDY_INTERVAL = 5.0

#: Decoders that may die with a block, by its fault or another's, before it is decoded in a process of its own.
POISON_DEATHS = 2


class Dispatcher:
    """The lanes of one monitor.

    Args:
        spool: where blocks are read and cursors kept.
        sinks: names of the sinks that every feed goes to.
        transport: how to reach actors.
        window_bytes: unacknowledged payload bytes per lane.
        abort: whether a record that does not decode stops its feed, instead of becoming a dead letter.
        absent: sinks that are not delivered to now, and for which blocks are kept.
        paused: sinks for which blocks wait until :meth:`pause` names them no more.
        journal: is told what happens to blocks.

    Attributes:
        tap: lets people see the blocks that are sent.
    """

    def __init__(
        self,
        spool: Spool,
        sinks: Iterable[str],
        transport: Transport,
        window_bytes: int = DEFAULT_WINDOW_BYTES,
        abort: bool = False,
        absent: Iterable[str] = (),
        paused: Iterable[str] = (),
        journal: Journal | None = None,
    ) -> None:
        self.tap = Tap()
        self._spool = spool
        self._abort = abort
        self._sinks = tuple(sinks)
        self._absent = tuple(absent)
        self._paused = frozenset(paused)
        self._journal = journal or Journal()
        self._transport = transport
        self._window_bytes = window_bytes
        self._lanes: dict[tuple[str, str], Lane] = {}
        self._loop = Loop()
        self._cursors = Cursors(spool, self._sinks, self._absent)
        #: Blocks of an aborting table that may lose records to the dead letters.
        self._permits = spool.permits()
        #: Block, by its order -> the deaths of decoders that it was with.
        self._deaths: dict[BlockId, set[object]] = {}
        self._replays = Replays(spool.letters)
        self._save_due: float | None = None
        self.stale = False
        spool.open_accounts((*self._sinks, *self._absent))
        for feed in spool.feeds():
            self._open_lanes(feed)
        self._open_replays()

    # -- called from any thread ---------------------------------------------------------------------------------

    def notify(self, feeds: Iterable[str]) -> None:
        """Blocks of `feeds` were committed to the spool."""
        feeds = tuple(feeds)
        self._loop.put(lambda: self._committed(feeds))

    def stop(self) -> None:
        """End :meth:`run` after saving cursors."""
        self._loop.put(self._loop.stop)

    def supersede(self, why: str) -> None:
        """A newer owner of the feeds has shown itself: end :meth:`run`."""
        self._loop.put(lambda: self._superseded(why))

    def resume(self, sinks: Iterable[str], skip: bool) -> list[tuple[str, str]]:
        """Let parked and aborted lanes to `sinks` try again; returns (feed, sink) of each.

        With `skip`, what did not decode in the blocks that aborted them becomes dead letters.
        """
        wanted = set(sinks)
        return self._loop.ask(lambda: self._resume(wanted, skip))

    def pause(self, sinks: Iterable[str]) -> int:
        """Send nothing more to `sinks`, and go on with all others. Returns how many blocks are on their way to them."""
        wanted = frozenset(sinks)
        return self._loop.ask(lambda: self._pause(wanted))

    @property
    def paused(self) -> frozenset[str]:
        """Sinks to which nothing more is sent."""
        return self._paused

    def replay(self, records: Iterable[BlockId] | None = None) -> dict[str, tuple[int, int]]:
        """Begin to deliver dead letters, all that wait or those of `records`; see :meth:`DeadLetters.begin`."""
        wanted = None if records is None else tuple(records)
        return self._loop.ask(lambda: self._replay(wanted))

    def rewind(self, sink: str, time: int) -> dict[str, Rewound]:
        """Deliver again to `sink` what was received at `time` (ticks) or later; see :meth:`Retention.rewind`."""
        return self._loop.ask(lambda: self._rewind(sink, time))

    def drop(self, size: int) -> int:
        """Delete `size` bytes of the oldest blocks that are not in flight; see :meth:`Retention.drop`."""
        return self._loop.ask(lambda: self._drop(size))

    def report(self) -> list[LaneReport]:
        """The state of every lane, as of now; counts as of the cursors on disk."""
        return report(self._lanes, self._spool, self._replays)

    @property
    def pending(self) -> int:
        """Records that some sink is not known on disk to have, also of feeds that :meth:`run` has not heard of yet."""
        return sum(account.waiting for account in self._spool.accounts() if account.sink in self._sinks)

    @property
    def stuck(self) -> bool:
        """Whether all that is pending waits for a person: its lanes are parked, aborted or paused."""
        accounts = [each for each in self._spool.accounts() if each.waiting and each.sink in self._sinks]
        lanes = [self._lanes.get((account.sink, account.feed)) for account in accounts]
        return bool(lanes) and all(lane is not None and self._waits_for_person(lane) for lane in lanes)

    def _waits_for_person(self, lane: Lane) -> bool:
        if lane.waits_for_person or lane.aborted is None or lane.in_flight:
            return lane.waits_for_person
        block = self._next_block(lane)
        return block is not None and not lane.may_send(block)

    @property
    def done(self) -> bool:
        """Whether every sink has, as the disk knows, what may be delivered; what is frozen may not."""
        keys = ((sink, feed) for feed in self._spool.feeds() for sink in self._sinks)
        rest = (self._spool.next_block(feed, self._spool.cursor(sink, feed)) for sink, feed in keys)
        return not self._replays and not any(rest)

    # -- the loop -----------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Work until :meth:`stop`, or until a newer owner of the feeds shows itself (then :attr:`stale` is set)."""
        # A sink that held blocks back may be gone since the last run, and nothing else would delete them.
        for lane in self._lanes.values():
            self._cursors.moved(lane)
        self._save()
        self._tidy()
        for lane in list(self._lanes.values()):
            self._pump(lane)
        self._loop.run()
        self._save()

    def _open_lanes(self, feed: str) -> None:
        for sink in self._sinks:
            if (sink, feed) not in self._lanes:
                cursor, rewound = self._spool.cursor(sink, feed), self._spool.rewound(sink, feed)
                lane = Lane(feed, sink, cursor, self._window_bytes, rewound=rewound)
                lane.paused = sink in self._paused
                self._lanes[sink, feed] = lane

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
        source = self._replays if is_replay(lane.feed) else self._spool
        return source.next_block(lane.feed, lane.read_position)

    def _write(self, lane: Lane, block: Block, previous: BlockId | None) -> None:
        session = lane.session
        task = Task(lane.feed, block)
        isolated = len(self._deaths.get(task.id, ())) >= POISON_DEATHS
        strict = self._abort and block.feed == lane.feed and block.id not in self._permits
        began = time.time()  # a decoder may be done before this returns
        decoder = self._transport.write(
            lane.sink,
            replace(task, strict=strict, isolated=isolated),
            session,
            previous and previous._replace(feed=lane.feed),
            self._later(lambda result: self._written(lane, session, block, result)),
        )
        note = "in a process of its own" if isolated else ""
        self._journal.note(lane.feed, block, "dispatched", lane.sink, actor=decoder, note=note, at=began)
        if block.feed == lane.feed:
            self.tap.passes(block)

    def _later(self, handle: Callable[[Any], None]) -> Callable[[Any], None]:
        return lambda result: self._loop.put(lambda: handle(result))

    # -- answers ------------------------------------------------------------------------------------------------

    def _attached(self, lane: Lane, session: int, result: Any) -> None:
        if isinstance(result, BaseException):
            self._writer_failed(lane, session, result)
            return
        # Of a replay the writer may remember an earlier run, which was further on.
        durable = Position(*result) if result and not is_replay(lane.feed) else None
        log.info("%s goes to %s from here on", lane.feed, lane.sink, extra=_place(lane))
        if lane.attached(session, durable):
            self._cursor_moved(lane)
        self._pump(lane)

    def _written(self, lane: Lane, session: int, block: Block, result: Any) -> None:
        self._journal.answered(lane.feed, block, lane.sink, result)
        if isinstance(result, DecoderFailed):
            if result.blame:
                log.warning("not decoded: %s; sending it again", result, extra=place(block, lane.sink))
                self._deaths.setdefault(block.id._replace(feed=lane.feed), set()).add(result.death)
            again = lane.decode_failed(session, block.id, str(result), result.blame)
            if again is not None:
                due = time.monotonic() + again.delay
                self._loop.at(due, lambda: self._write_again(lane, session, block, again.previous))
        elif isinstance(result, DecodeAborted):
            if lane.abort(session, Abort(block.id, result.offset, str(result), result.count)):
                if block.id in self._permits:  # given for another sink while this one decoded
                    lane.resume()
                else:
                    fields = place(block, lane.sink, offset=result.offset)
                    log.error("%s to %s aborted: %s", lane.feed, lane.sink, result, extra=fields)
                self._pump(lane)
        elif isinstance(result, DeliveryRefused):
            log.error("%s to %s parked: %s", lane.feed, lane.sink, result, extra=place(block, lane.sink))
            lane.park(str(result))
        elif isinstance(result, BaseException):
            self._writer_failed(lane, session, result)
        else:
            if lane.feed == block.feed:
                self._cursors.receipt(lane, block, result)
            else:
                self._replays.rejected(lane.feed, block.epoch, result.rejects)
            if lane.acked(session, block.id):
                self._cursor_moved(lane)
            self._pump(lane)

    def _write_again(self, lane: Lane, session: int, block: Block, previous: BlockId | None) -> None:
        if lane.session == session:
            self._write(lane, block, previous)

    def _writer_failed(self, lane: Lane, session: int, error: BaseException) -> None:
        if isinstance(error, StaleOwner):
            self._superseded(f"{lane.feed}: {error}")
            return
        if not isinstance(error, NotAttached):
            log.warning("%s to %s: %s; sending again", lane.feed, lane.sink, error, extra=_place(lane))
        if lane.writer_failed(session, str(error), time.monotonic()):
            self._loop.at(lane.not_before, lambda: self._pump(lane))

    def _superseded(self, why: str) -> None:
        log.error("%s", why)
        self.stale = True
        self._loop.stop()

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

    def _pause(self, sinks: frozenset[str]) -> int:
        if sinks != self._paused:
            what = f"is paused to {', '.join(sorted(sinks))}" if sinks else "goes on to every sink"
            log.info("delivery %s", what)
        self._paused = sinks
        for lane in list(self._lanes.values()):
            lane.paused = lane.sink in sinks
            self._pump(lane)
        return sum(lane.in_flight for lane in self._lanes.values() if lane.paused)

    def _rewind(self, sink: str, time: int) -> dict[str, Rewound]:
        self._save()
        rewound = self._spool.retention.rewind(sink, time)
        for feed, (position, _) in rewound.items():
            self._journal.rewound(feed, sink, *position)
            lane = self._lanes[sink, feed]
            self._cursors.forget(sink, feed)  # on a full disk it may still wait to be saved
            lane.rewind(position, again=True)
            self._pump(lane)
        return rewound

    def _drop(self, size: int) -> int:
        self._save()
        lanes: dict[str, dict[str, Span]] = {}
        for (sink, feed), lane in self._lanes.items():
            if not is_replay(feed):
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
        for order in self._replays.open():
            for sink in self._sinks:
                # One lane for all runs: the writer knows it by the number of its session.
                lane = self._lanes.setdefault(
                    (sink, order), Lane(order, sink, Position(), self._window_bytes)
                )
                lane.paused = sink in self._paused
                lane.rewind(Position())
                opened.append(lane)
        return opened

    # -- cursors ------------------------------------------------------------------------------------------------

    def _cursor_moved(self, lane: Lane) -> None:
        self._cursors.moved(lane)
        if self._save_due is None:
            self._save_later(SAVE_INTERVAL)

    def _save_later(self, seconds: float) -> None:
        self._save_due = time.monotonic() + seconds
        self._loop.at(self._save_due, self._save)

    def _tidy(self) -> None:
        """Delete what has been kept long enough; while nothing moves, nothing else would."""
        with contextlib.suppress(SpoolFull):
            self._spool.retention.tidy()
        self._transport.tidy()
        self._loop.at(time.monotonic() + TIDY_INTERVAL, self._tidy)

    def _save(self) -> None:
        self._save_due = None
        behind = self._cursors.behind(self._lanes)
        if not behind:
            return
        for block in [block for block in self._deaths if block[1:] < behind.get(block.feed, ())]:
            del self._deaths[block]
        try:
            self._cursors.save(behind)
        except SpoolFull as error:
            log.error("cursors are not saved: %s", error)
            self._save_later(FULL_INTERVAL)
            return
        for order, position in behind.items():
            if is_replay(order):
                self._settle(order, position)

    def _settle(self, order: str, behind: Position) -> None:
        """Note how far the run of a replay is; after its end, begin the next."""
        if not self._replays.settle(order, behind):
            return
        for lane in self._open_replays():
            self._loop.put(functools.partial(self._pump, lane))


def _place(lane: Lane) -> dict[str, Any]:
    """What to log of something that is about a lane: where it stands."""
    return place(BlockId(lane.feed, *lane.cursor), lane.sink)
