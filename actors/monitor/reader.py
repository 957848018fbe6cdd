"""Reads a source that is asked for rows, and makes them durable together with where the source goes on.

The counterpart of ``receiver.py`` for sources that can be asked again. As the rows of a read and the state after them
are committed in one transaction, a source that goes on from its state gives each row to the spool exactly once,
whatever dies. A full spool stops the reading, and loses nothing.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from actors.backoff import Backoff
from actors.block import Block
from actors.errors import SpoolError, SpoolFull
from actors.monitor.gaplog import GapLog
from actors.monitor.grouping import BlockBuilder
from actors.monitor.journal import Journal
from actors.monitor.pull import Ended, Pulled, PullSource, Reading, SourceFailed
from actors.monitor.room import Room
from actors.monitor.rows import RowEncoder
from actors.monitor.settings import MonitorSettings
from actors.monitor.source import SourceLost
from actors.monitor.spool import Spool

log = logging.getLogger(__name__)

#: Longest wait for rows in seconds, so that a stop and the state of the disk are noticed.
SLICE = 0.25

#: Seconds that a source may take to close; one that hangs for longer is left behind.
CLOSE_TIMEOUT = 3.0

#: Seconds between attempts to open a source that failed: at first, and at most.
REOPEN_FIRST, REOPEN_MOST = 1.0, 60.0

#: Names under which the spool keeps the state, the kinds of columns, and whether all was read.
STATE, KINDS, DONE = "state", "kinds", "done"


class SpoolNotebook:
    """Values by name in the spool; while its disk is full, in memory, until the next commit takes them along."""

    def __init__(self, gaps: GapLog, table: str) -> None:
        self._gaps = gaps
        self._table = table
        self._waiting: dict[str, Any] = {}

    def get(self, name: str) -> Any:
        """What was put last; None at first."""
        return self._waiting[name] if name in self._waiting else self._gaps.kept(name)

    def put(self, name: str, value: Any) -> None:
        """Keep a value that msgpack knows."""
        self._waiting[name] = value
        try:
            self._gaps.put(name, value)
            self._waiting.pop(name, None)
        except (SpoolError, sqlite3.Error) as error:
            log.warning("%s: %s is to be kept later: %s", self._table, name, error)

    def write(self, db: sqlite3.Connection) -> None:
        """Write what waits, in the transaction at hand."""
        for name, value in list(self._waiting.items()):
            self._gaps.keep(db, name, value)

    def written(self) -> None:
        """The transaction of :meth:`write` is durable."""
        self._waiting.clear()


class Reader:
    """The reading half of a monitor; :meth:`run` is its thread. `committed` is told which feeds have new blocks."""

    frozen: str | None = None

    def __init__(
        self,
        settings: MonitorSettings,
        source: PullSource,
        spool: Spool,
        committed: Callable[[Iterable[str]], None],
        drop: Callable[[int], int],
        gaps: GapLog,
        journal: Journal | None = None,
    ) -> None:
        self._journal = journal or Journal()
        self.state = "connecting"
        self.epoch: int | None = None
        self.received = 0
        self.last_received: float | None = None
        self.reconnects = 0
        with contextlib.suppress(OSError):
            spool.directory.chmod(0o700)  # what the source keeps there may hold credentials
        self._settings = settings
        self._source = source
        self._spool = spool
        self._committed = committed
        self._gaps = gaps
        self._room = Room(settings, spool, drop)
        self._notebook = SpoolNotebook(gaps, settings.table)
        self._backoff = Backoff(REOPEN_FIRST, REOPEN_MOST)
        self._encoder = RowEncoder(gaps.kept(KINDS))
        self._stop = threading.Event()
        self._again = threading.Event()
        self._ending = False
        self._problem: str | None = None
        #: Read, and not on disk yet: blocks, the state after them, and why rows before them may be missing.
        self._unsaved: list[Block] = []
        self._next_state: str | None = None
        self._gap: str | None = None

    # -- for the monitor ------------------------------------------------------------------------------------------

    @property
    def problem(self) -> str | None:
        """What is wrong now, in one line."""
        return self._problem or (self._source.problem if self.state == "receiving" else None)

    @property
    def progress(self) -> dict[str, Any] | None:
        """How far reading is, as the source says."""
        return self._source.progress

    def stop(self, ending: bool = False) -> None:
        """End :meth:`run` soon; what was read is committed. `ending`: the next start reads again what was done."""
        self._ending = self._ending or ending
        self._stop.set()
        self._again.set()

    def resume(self) -> bool:
        """Open the source now, if it failed. Returns whether it had."""
        if self.state not in ("parked", "failing"):
            return False
        self._again.set()
        return True

    def release(self, ended: threading.Event) -> None:
        """Nothing is ever held here."""

    # -- the thread -----------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Read until stopped. Raises what makes the spool unusable, :class:`MonitorTooLarge`, and nothing else."""
        failures = 0
        if self._gaps.kept(DONE):
            self._rest("done", None)  # until stopped
        while not self._stop.is_set():
            received = self.received
            try:
                self._read()
                failures = 0
                self._rest("done", None)
            except SourceFailed as error:
                self._rest("parked", f"{error}; mend that and `tablecast resume`")
                failures = 0
            except SourceLost as error:
                failures = 1 if self.received > received else failures + 1
                self.reconnects += 1
                self._rest("failing", f"{error}; trying again", self._backoff.delay(failures))
            except SpoolFull:
                log.error("%s: stopped while the disk has no room for what was read", self._settings.table)
        if self._ending and self._gaps.kept(DONE):
            with contextlib.suppress(SpoolFull):
                self._gaps.put(DONE, False)
        self.state = "stopped"

    def _rest(self, state: str, problem: str | None, seconds: float | None = None) -> None:
        """Wait until stopped or resumed, for so many seconds at most."""
        if self._stop.is_set():
            return
        if problem != self._problem and problem:
            log.warning("%s: %s", self._settings.table, problem)
        self._again.clear()
        self.state, self._problem = state, problem
        if not self._stop.is_set():
            self._again.wait(seconds)

    def _read(self) -> None:
        """Read to the end, or until stopped."""
        self.state = "connecting"
        epoch = max(int(time.time() * 1000), self._spool.last_epoch() + 1)
        next_time = self._spool.end(self._settings.table).next_time
        builder = BlockBuilder(
            self._settings.table, epoch, self._encoder.schema, self._settings.limits, next_time, "json"
        )
        self.epoch = epoch
        reading = Reading(self._settings.table, self._source, self._notebook.get(STATE), self._notebook)
        try:
            while not self._stop.is_set():
                if reading.opened.is_set() and self.state == "connecting":
                    self.state, self._problem = "receiving", None
                self._make_room(builder)
                if isinstance(read := reading.next(self._wait(builder)), Ended):
                    self._next_state = read.state or self._next_state
                    self._save(builder, done=True)
                    return
                if read is not None:
                    self._take(builder, read)
                if self._unsaved or builder.deadline is None or time.time() >= builder.deadline:
                    self._save(builder)
        finally:
            reading.cancel()
            # What is on the way is taken along: a source without a state would read it again.
            with contextlib.suppress(SourceLost, SourceFailed):
                while isinstance(read := reading.next(0.0), Pulled):
                    self._take(builder, read)
            with contextlib.suppress(SpoolFull):
                self._save(builder)
            self._forget_unsaved()
            if not reading.join(CLOSE_TIMEOUT):
                log.warning("%s: the source hangs; it is left behind", self._settings.table)

    def _wait(self, builder: BlockBuilder) -> float:
        if builder.deadline is None:
            return SLICE
        return min(SLICE, max(0.001, builder.deadline - time.time()))

    def _take(self, builder: BlockBuilder, read: Pulled) -> None:
        frames = self._encoder.encode(read.rows)
        builder.schema = self._encoder.schema
        now = time.time()
        if frames:
            self.last_received = now
        self._unsaved += builder.add(frames, now)
        self._next_state = read.state or self._next_state
        self._gap = read.gap or self._gap

    def _save(self, builder: BlockBuilder, done: bool = False) -> None:
        """Commit all that was read and the state after it, whole: a part of a read would be read again."""
        if (block := builder.flush()) is not None:
            self._unsaved.append(block)
        while self._unsaved or self._next_state or self._gap or done:
            try:
                self._commit(done)
                return
            except SpoolFull as error:
                if self._stop.is_set():
                    raise
                self._pause(str(error))

    def _commit(self, done: bool) -> None:
        blocks, state, rows = self._unsaved, self._next_state, sum(block.count for block in self._unsaved)
        kinds, gap, now = self._encoder.kinds, self._gap, time.time()

        def work(db: sqlite3.Connection) -> None:
            self._gaps.received(db, rows)
            if gap is not None:  # which nobody can fetch
                self._gaps.lose(db, gap, now)
            self._gaps.hear(db, now)
            self._notebook.write(db)
            self._gaps.keep(db, KINDS, kinds)
            if state is not None:
                self._gaps.keep(db, STATE, state)
            if done:
                self._gaps.keep(db, DONE, True)

        self._spool.append(blocks, work)
        self._notebook.written()
        self.received += rows
        if gap is not None:
            log.error("%s: %s", self._settings.table, gap)
        self._forget_unsaved()
        if blocks:
            self._journal.committed(blocks)
            self._committed({self._settings.table})

    def _forget_unsaved(self) -> None:
        self._unsaved, self._next_state, self._gap = [], None, None

    def _make_room(self, builder: BlockBuilder) -> None:
        """Take nothing more while the spool is full: the source waits."""
        if (full := self._room.full()) is not None:
            self._save(builder)
            self._pause(full)

    def _pause(self, why: str) -> None:
        if self._problem != why:
            log.error("%s: paused: %s", self._settings.table, why)
        before = self.state
        self.state, self._problem = "paused", why
        while not self._stop.wait(SLICE) and not self._room.regained():
            pass
        self.state, self._problem = before, None
