"""Follows one table in the user's own process: one thread that receives, decodes and calls the callbacks.

It is the cluster's receiver without the spool: the same stream (``actors/monitor/kinetica.py``), the same questions
for the table's type on a second thread (``asker.py``), rows held in memory instead of on disk (``held.py``). What comes
while a callback takes its time waits in ZeroMQ's queue, which is bounded; what is published while the server is out of
reach is lost, and the error callbacks are told.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Protocol

from actors.backoff import Backoff
from actors.callbacks.caller import Aborted, Caller
from actors.callbacks.held import Altered, Held, Run, alteration
from actors.monitor.asker import TopicWatch, TypeAsker
from actors.monitor.source import Described, SourceLost, Stream, Switched, TableGone
from protocols.kinetica.errors import KineticaError, TableNotFound

#: Seconds that a turn waits for something to come.
SLICE = 0.25

#: Seconds between two questions for the table's type while rows come: what a row waits at most, on a quick server.
PAUSE = 0.02

#: Seconds without a row after which a change of type is settled without waiting for the new topic's first one.
QUIET = 1.0

#: Bytes of rows that may wait for an answer; with more, receiving pauses.
MAX_HELD = 64 << 20


@dataclass(frozen=True, slots=True)
class Followed:
    """What to follow: a table, its events, and the server; as :class:`~actors.monitor.settings.SourceSettings`."""

    table: str
    events: tuple[str, ...]
    source: dict[str, Any] = field(repr=False)
    monitor_port: int | None


class Opener(Protocol):
    """Opens a stream of the table. Raises :class:`SourceLost`."""

    def __call__(self) -> Stream: ...


class Follower:
    """Calls back what comes from `stream`, and from those that `reopen` gives when it is lost.

    Args:
        table: for messages.
        interval: seconds between questions whether the table is there and as it was.

    Raises :class:`SourceLost` if the table can't be asked for.
    """

    def __init__(
        self, table: str, stream: Stream, reopen: Opener, caller: Caller, interval: float, log: logging.Logger
    ) -> None:
        self._table = table
        self._stream: Stream | None = stream
        self._reopen = reopen
        self._caller = caller
        self._interval = interval
        self._log = log
        self._backoff = Backoff()
        self._stop = threading.Event()
        self._lock = threading.Lock()  # of `_stream`
        self._held: Held | None = None
        # The type of a table whose inserts are not followed; it may be altered as soon as this returns.
        self._known = stream.describe() if stream.described is None else None
        self._waiting = False  # whether rows wait because the server does not answer

    def stop(self) -> None:
        """End soon. May be called from any thread."""
        self._stop.set()
        with self._lock:
            if self._stream is not None:
                self._stream.wake()

    def run(self) -> None:
        """Follow until :meth:`stop`, until the table is gone, or until a callback aborts."""
        try:
            gone = self._follow_streams()
            if self._held is not None:  # no stream came that could tell of what type the last rows are
                self._caller.handle(self._held.confirmed(self._held.end))
            if gone is not None:
                why = "" if isinstance(gone.__cause__, TableNotFound) else f": {gone}"
                self._caller.dropped(f"Table {self._table} does not exist anymore{why}")
        except Aborted as error:
            self._log.error("%s: aborted: %s", self._table, error)
        except Exception as error:  # a defect of ours, of which nobody would hear otherwise
            self._log.exception("%s: the monitor has failed", self._table)
            self._caller.problem(f"{self._table}: the monitor has failed, and ends: {error!r}")

    def _follow_streams(self) -> TableGone | None:
        """Follow one stream after the other until :meth:`stop`, or until the table is gone, which is returned."""
        stream: Stream | None = self._stream
        try:
            while stream is not None:
                try:
                    self._follow(stream)
                    return None
                except TableGone:
                    raise
                except SourceLost as error:
                    stream = self._again(error)
        except TableGone as error:
            return error
        return None

    def _again(self, lost: SourceLost) -> Stream | None:
        """Open the stream again, for as long as it takes; None if stopped meanwhile."""
        if self._stop.is_set():
            return None
        since = time.monotonic()
        self._caller.problem(f"{self._table}: {lost}; trying to reach it again")
        failures = 0
        while not self._stop.wait(self._backoff.delay(failures) if failures else 0):
            try:
                stream = self._reopen()
            except TableGone:
                raise
            except SourceLost as error:
                failures += 1
                self._log.info("%s: %s", self._table, error)
                continue
            with self._lock:
                self._stream = stream
            away = time.monotonic() - since
            self._caller.problem(
                f"{self._table}: followed again after {away:.1f} s; what was published meanwhile is missing"
            )
            return stream
        return None

    def _follow(self, stream: Stream) -> None:
        """Follow one stream until :meth:`stop`. Raises :class:`SourceLost`, :class:`Aborted`."""
        try:
            if stream.described is None:
                self._follow_counts(stream)
            else:
                self._follow_rows(stream, self._begin(stream.described))
        finally:
            with self._lock:
                self._stream = None
            stream.close()

    # -- updates and deletes only -------------------------------------------------------------------------------

    def _follow_counts(self, stream: Stream) -> None:
        self._type_is(stream.describe())
        watch = TopicWatch(stream, interval=self._interval)
        try:
            while not self._stop.is_set():
                self._receive(stream)
                if watch.described is not None:
                    self._type_is(watch.described)
                if watch.error is not None:
                    raise watch.error
        finally:
            watch.stop()

    def _type_is(self, described: Described) -> None:
        if self._known is not None and self._known.type_id != described.type_id:
            self._caller.handle([alteration(self._table, self._known, described)])
        self._known = described

    # -- rows -----------------------------------------------------------------------------------------------------

    def _begin(self, described: Described) -> Held:
        """Hand out what the stream before left; the table may have been altered since."""
        if self._held is None:
            self._held = Held(self._table, described)
        elif self._held.described.type_id != described.type_id:
            self._caller.handle(self._held.altered((described,)))
        self._caller.handle(self._held.confirmed(self._held.end))
        return self._held

    def _follow_rows(self, stream: Stream, held: Held) -> None:
        asker = TypeAsker(stream, held.described, lambda: held.end, interval=self._interval, pause=PAUSE)
        change = _Change(stream, held)
        try:
            while not self._stop.is_set():
                self._turn(stream, held, asker, change)
        except TableGone:
            # The last rows are of the type known last.
            self._caller.handle([*change.settle(), *held.confirmed(held.end)])
            raise
        except SourceLost:
            self._caller.handle(change.settle())
            raise
        finally:
            asker.stop()
        self._last_rows(stream, held, change)

    def _turn(self, stream: Stream, held: Held, asker: TypeAsker, change: _Change) -> None:
        """Receive once, and act on what the server says of the table's type."""
        before = held.end
        idle = not self._receive(stream, held, change)
        if held.end != before:
            change.row_at = time.monotonic()
            asker.poke()
        self._caller.handle(change.due(idle))
        # One alteration after the other: what comes under a topic is not of a type before.
        while asker.answers and not change.steps:
            answer = asker.answers.popleft()
            if answer.error is not None:
                self._unanswered(answer.error)
                continue
            if self._waiting:
                self._waiting = False
                self._caller.problem(f"{self._table}: the server answers again; rows go on")
            if answer.steps:
                change.begin(answer.steps, answer.topic)
            else:
                self._caller.handle(held.confirmed(answer.asked))

    def _unanswered(self, error: Exception) -> None:
        """Rows wait while the server does not answer; any other trouble of the stream is raised."""
        if isinstance(error, TableGone) or not isinstance(error.__cause__, KineticaError):
            raise error
        if not self._waiting:
            self._waiting = True
            self._caller.problem(f"{self._table}: rows wait, as the server does not tell their type: {error}")

    def _receive(self, stream: Stream, held: Held | None = None, change: _Change | None = None) -> bool:
        """Receive once; returns whether anything came."""
        if held is not None and held.size > MAX_HELD:
            self._stop.wait(PAUSE)
            return True
        items = stream.receive(SLICE)
        for item in items:
            if isinstance(item, Switched):
                assert change is not None
                self._caller.handle(change.settle(item.back))
            elif item.kind == "insert":
                assert held is not None
                held.add(item.frames)
            else:
                self._caller.counted(item.kind, item.frames, stream.schemas[item.kind])
        return bool(items)

    def _last_rows(self, stream: Stream, held: Held, change: _Change) -> None:
        """Hand out what has been received, at a stop."""
        try:
            described = stream.describe()
        except SourceLost as error:
            self._log.info("%s: the last rows are taken for what they were before: %s", self._table, error)
        else:
            if described.type_id != (change.steps or (held.described,))[-1].type_id:
                change.steps = (*change.steps, described)
        self._caller.handle([*change.settle(), *held.confirmed(held.end)])


class _Change:
    """A change of the table's type that is not settled yet.

    Attributes:
        steps: the types that the table took on, one after the other; none: no change is under way.
        row_at: when (monotonic) the last row came.
    """

    def __init__(self, stream: Stream, held: Held) -> None:
        self.steps: tuple[Described, ...] = ()
        self.row_at = time.monotonic()
        self._stream = stream
        self._held = held

    def begin(self, steps: tuple[Described, ...], topic: str) -> None:
        """The table was altered; all that comes under `topic` is of the last type."""
        self._stream.follow(topic, steps[-1])
        self.steps, self.row_at = steps, time.monotonic()

    def due(self, idle: bool) -> list[Run | Altered]:
        """Settle without the new topic's first row if none comes for a while."""
        return self.settle() if self.steps and idle and time.monotonic() >= self.row_at + QUIET else []

    def settle(self, back: int = 0) -> list[Run | Altered]:
        """Divide what is held; see :meth:`Held.altered`."""
        steps, self.steps = self.steps, ()
        return self._held.altered(steps, back) if steps else []
