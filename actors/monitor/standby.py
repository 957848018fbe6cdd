"""A table's standby: a copy of its monitor's spool, and the same messages from the source beside it.

While the monitor lives, what it stores pairs off with what is received here (``align.py``). When it is dead, what is
left over was received and not stored: it follows what the copy holds. Taking over is opening the copy as a spool, with
a stream that hands out the rest first, and then goes on.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Sequence
from typing import Any

import msgpack

from actors.errors import NotAttached, StaleOwner
from actors.monitor.align import Alignment
from actors.monitor.changelog import Change
from actors.monitor.layout import INSERT_BLOCK
from actors.monitor.place import on_this_host
from actors.monitor.receiver import FEED_SUFFIX, SLICE
from actors.monitor.replicator import QUIET, Parcel, SharedTable
from actors.monitor.settings import MonitorSettings
from actors.monitor.source import Following, Received, SharedSource, SharedStream, SourceLost
from actors.monitor.spool import Spool
from actors.monitor.standing import Standing

log = logging.getLogger(__name__)

#: Seconds that taking over waits for records that the monitor has stored and that have not come here yet.
CATCH_UP = 0.5

#: Seconds between attempts to subscribe.
RETRY = 1.0


class Standby:
    """Serves one monitor at a time. Methods may be called from any thread."""

    def __init__(self, settings: MonitorSettings, source: SharedSource) -> None:
        self._settings = settings
        self._directory = on_this_host(settings.spool)
        self._source = source
        self._kinds = {settings.table + FEED_SUFFIX[event]: event for event in settings.events}
        self._quiet = settings.limits.linger + QUIET
        self._term = 0
        self._complete = False
        self._ended = False
        self._spool: Spool | None = None
        self._ear: _Ear | None = None
        self._lock = threading.RLock()

    def begin(self, term: int, following: Following) -> None:
        """A monitor of incarnation `term` begins to copy its spool here.

        Raises :class:`StaleOwner` if a newer one has, or if this standby has taken over, :class:`NotAttached` if it
        was closed, and :class:`SpoolInUse`.
        """
        with self._lock:
            self._check(term)
            self._term, self._complete = term, False
            if self._spool is None:
                self._spool = Spool(self._directory, self._settings.table)
            Standing(owner=False, term=term).write(self._directory)
            self._listen(following)

    def replicate(self, term: int, parcel: Parcel) -> list[Received]:
        """Make the changes; returns what was received here and not sent to the monitor.

        Raises as :meth:`begin`, and :class:`NotAttached` without one.
        """
        with self._lock:
            self._check(term)
            if self._spool is None or self._ear is None or term != self._term:
                raise NotAttached("the copy has to begin first")
            stored = [] if parcel.copying else self._new_blocks(self._spool, parcel.changes)
            if parcel.changes:
                self._spool.apply(parcel.changes)
            for kind, frames in stored:
                self._ear.stored(kind, frames)
            if parcel.following is not None:
                self._listen(parcel.following)
            elif parcel.quiet:
                self._ear.quiet(parcel.quiet, self._quiet)
            self._complete |= parcel.complete
            return self._ear.missed()

    def _check(self, term: int) -> None:
        if term < self._term:
            raise StaleOwner("a newer monitor owns the table")
        if self._ended:
            raise NotAttached("the standby is stopped")

    def _new_blocks(self, spool: Spool, changes: Sequence[Change]) -> list[tuple[str, list[bytes]]]:
        """The records of blocks that the spool does not have in any form yet, by kind."""
        found = []
        ends: dict[str, tuple[int, int]] = {}
        for sql, values in changes:
            if sql != INSERT_BLOCK or values[0] not in self._kinds:
                continue
            feed, epoch, offset, count, payload = *values[:4], values[-1]
            if feed not in ends:
                ends[feed] = spool.end(feed)[:2]
            if (epoch, offset) >= ends[feed]:
                ends[feed] = epoch, offset + count
                found.append((self._kinds[feed], msgpack.unpackb(payload)))
        return found

    def _listen(self, following: Following) -> None:
        if self._ear is not None:
            self._ear.stop()
        self._ear = _Ear(self._source, following, self._settings.events)

    def take_over(self, term: int) -> SharedTable:
        """Become the table's monitor: returns the source for a monitor over the copy.

        Without a complete copy the source is as good as new. The spool is closed and can be opened.
        """
        with self._lock:
            self._ended, self._term = True, term
            ear, self._ear = self._ear, None
            warm, continues = None, False
            if ear is not None and self._complete:
                warm, continues = ear.hand_over()
            elif ear is not None:
                ear.stop()
            if self._spool is not None:
                self._spool.close()
            Standing(owner=True, term=term).write(self._directory)
            return SharedTable(self._source, warm, continues)

    def close(self) -> None:
        """Stop; the copy stays."""
        with self._lock:
            self._ended = True
            if self._ear is not None:
                self._ear.stop()
            if self._spool is not None:
                self._spool.close()

    def status(self) -> dict[str, Any]:
        """Whether it could take over with nothing lost, and what it knows of its directory."""
        ear = self._ear
        standing = Standing.read(self._directory)
        return {
            "state": "ready" if self._complete else "copying" if self._spool else "waiting",
            "problem": ear.problem if ear else None,
            "ready": self._complete,
            **standing._asdict(),
            **(ear.status() if ear else {}),
        }


class _Ear:
    """Receives what the monitor follows, on a thread of its own, and compares."""

    def __init__(self, source: SharedSource, following: Following, events: Sequence[str]) -> None:
        self.problem: str | None = "subscribing"
        self._source = source
        self._following = following
        self._events = events  # others are only counted, and not stored
        self._stream: SharedStream | None = None
        self._alignments = self._afresh()
        self._missed: list[Received] = []
        self._received = 0
        self._lock = threading.Lock()
        self._handing_over = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="standby-ear", daemon=True)
        self._thread.start()

    def _afresh(self) -> dict[str, Alignment]:
        return {kind: Alignment() for kind in self._following.topics.values() if kind in self._events}

    def status(self) -> dict[str, Any]:
        with self._lock:
            alignments = self._alignments.values()
            return {
                "aligned": self._stream is not None and all(each.aligned for each in alignments),
                "received": self._received,
                "lacked": sum(each.lacked for each in alignments),
            }

    def stored(self, kind: str, frames: list[bytes]) -> None:
        """The monitor has stored `frames`."""
        with self._lock:
            self._keep(kind, self._alignments[kind].store(frames))

    def quiet(self, kinds: frozenset[str], seconds: float) -> None:
        """The monitor had nothing of `kinds` for `seconds`; if that is so here too, both have what there is."""
        with self._lock:
            if self._stream is not None:
                for kind in kinds & self._stream.quiet(seconds) & self._alignments.keys():
                    self._keep(kind, self._alignments[kind].quiet())

    def missed(self) -> list[Received]:
        """What the monitor was not sent, not named before."""
        with self._lock:
            missed, self._missed = self._missed, []
            return missed

    def _keep(self, kind: str, missed: list[bytes]) -> None:
        if missed:
            self._missed.append(Received(kind, missed))

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                stream = self._source.join(self._following)
            except SourceLost as error:
                self.problem = str(error)
                self._stop.wait(RETRY)
                continue
            with self._lock:
                # What was received before the connection was lost says nothing of where this one begins.
                self._alignments, self._stream = self._afresh(), stream
            self.problem = None
            try:
                while not self._stop.is_set():
                    self._receive(stream, SLICE)
                if self._handing_over:
                    return
            except SourceLost as error:
                self.problem = str(error)
            with self._lock:
                self._stream = None
            stream.close()

    def _receive(self, stream: SharedStream, timeout: float) -> None:
        items = stream.receive(timeout)
        with self._lock:
            for item in items:
                if isinstance(item, Received) and item.kind in self._alignments:
                    self._received += len(item.frames)
                    self._keep(item.kind, self._alignments[item.kind].receive(item.frames))

    def stop(self) -> None:
        """End soon."""
        self._stop.set()
        if (stream := self._stream) is not None:
            stream.wake()

    def hand_over(self) -> tuple[SharedStream | None, bool]:
        """End, and return the stream, which hands out first what the monitor has not stored; None if there is none.

        Also whether that is certain to be just what is missing.
        """
        self._handing_over = self._stream is not None
        self.stop()
        self._thread.join(CATCH_UP)
        stream = self._stream
        if stream is None or self._thread.is_alive():
            return None, False
        deadline = time.monotonic() + CATCH_UP
        with contextlib.suppress(SourceLost):  # told again to whoever receives next
            while any(each.behind for each in self._alignments.values()) and time.monotonic() < deadline:
                self._receive(stream, deadline - time.monotonic())
        certain = True
        for kind, alignment in self._alignments.items():
            if rest := alignment.rest():
                stream.inject(Received(kind, rest))
            if not (alignment.aligned and alignment.complete):
                certain = False
                log.warning("%ss may be missing or double: the standby was not aligned", kind)
        return stream, certain
