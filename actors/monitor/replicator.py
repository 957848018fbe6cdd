"""Keeps a copy of a monitor's spool at its standby, and tells the standby what to subscribe to.

A *session* copies the whole spool, then every transaction, a parcel at a time. From the parcel that is *complete* on
the standby may take over, so from there on no block is dispatched that it does not have. A session that fails ends
that: the standby is killed, lest it take over without knowing what was dispatched since, and the monitor goes on
alone until there is a new one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from actors.backoff import Backoff
from actors.errors import StaleOwner
from actors.monitor.changelog import Change, ChangeLog, size_of
from actors.monitor.gaplog import GapLog
from actors.monitor.source import Following, Received, SharedSource, SharedStream, SourceLost, TableReader
from actors.monitor.spool import Spool

log = logging.getLogger(__name__)

#: Bytes of one parcel, about. There is one on the way at a time.
PARCEL_BYTES = 4 << 20

#: Seconds between parcels when there is nothing to copy.
INTERVAL = 0.2

#: Seconds without a record after which nothing is on its way any more, beside the linger of a block.
QUIET = 1.0


class PartnerLost(Exception):
    """The standby is not there or does not answer; the message says why."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """What a monitor sends to its standby.

    Attributes:
        changes: to be made to the copy.
        copying: whether they are of the whole spool, other than of what the monitor did since.
        complete: whether the copy has all that was dispatched, now and from now on.
        following: what to subscribe to, if that changed.
        quiet: event kinds of which the monitor has received nothing for a while, and has sent all that it had.
    """

    changes: Sequence[Change] = ()
    copying: bool = False
    complete: bool = False
    following: Following | None = None
    quiet: frozenset[str] = frozenset()


class Partner(Protocol):
    """How a monitor reaches its standby. Calls wait for the answer.

    They raise :class:`PartnerLost`, and :class:`StaleOwner` when the standby has taken over or serves a newer monitor.
    """

    def begin(self, term: int, following: Following) -> None:
        """Begin to copy the spool of the monitor of incarnation `term`."""

    def replicate(self, term: int, parcel: Parcel) -> list[Received]:
        """Copy; the answer is what the standby received and the monitor was not sent."""

    def kill(self) -> None:
        """Make sure that this standby never takes over, unless it may have."""

    def replaced(self) -> bool:
        """Whether the standby may have taken over: the monitor was ended, and does not know it."""


class SharedTable:
    """A source that remembers its open stream, and whose first stream may be one that is open already.

    Attributes:
        continues: whether nothing was missed between what the spool holds and the first stream.
        replaced: whether another monitor may have taken over. That one follows the same topics, so from then on they
            are left alone.
    """

    def __init__(
        self, source: SharedSource, warm: SharedStream | None = None, continues: bool = False
    ) -> None:
        self.stream: SharedStream | None = None
        self.continues = continues
        self.replaced: Callable[[], bool] = lambda: False
        self._source = source
        self._warm = warm

    def reader(self) -> TableReader:
        return self._source.reader()

    def open(self, stale_topics: Iterable[str]) -> SharedStream:
        stream, self._warm = self._warm, None
        if stream is None:
            if self.replaced():
                raise SourceLost("another monitor may have taken over")
            stream = self._source.open(stale_topics)
        stream.own(lambda: not self.replaced())
        self.stream = stream
        return stream


class Replicator:
    """Sends what `log` keeps of `spool` to `partner`. :meth:`run` is its thread.

    Args:
        term: the monitor's incarnation.
        linger: seconds that a received record may wait before it is in the spool.
        gaps: where it is noted that the source did not send something.
        committed: tell the dispatcher that blocks of these feeds may be read.
        superseded: told why, when the standby has taken over: this monitor has to stop.
    """

    def __init__(
        self,
        spool: Spool,
        log: ChangeLog,
        source: SharedTable,
        partner: Partner,
        term: int,
        linger: float,
        gaps: GapLog,
        committed: Callable[[Iterable[str]], None],
        superseded: Callable[[str], None],
    ) -> None:
        self.complete = False
        self.problem: str | None = "not there yet"
        #: Records that this monitor was not sent and got from its standby.
        self.healed = 0
        self._spool = spool
        self._log = log
        self._source = source
        self._partner = partner
        self._term = term
        self._quiet = linger + QUIET
        self._gaps = gaps
        self._committed = committed
        self._superseded = superseded
        self._followed: Following | None = None
        self._given: list[Received] = []
        self._stop = threading.Event()
        self._backoff = Backoff(initial=0.2, cap=5.0)

    def stop(self) -> None:
        """End :meth:`run` soon."""
        self._stop.set()

    def run(self) -> None:
        """One session after the other, until stopped or superseded."""
        failures = 0
        while not self._stop.is_set():
            begun = time.monotonic()
            try:
                self._session()
            except StaleOwner as error:
                self._superseded(str(error))
                return  # nothing more is dispatched: what waits for the copy goes on waiting
            except PartnerLost as error:
                self.problem = str(error)
            if self.complete and not self._stop.is_set():
                log.warning("the standby is lost: %s", self.problem)
                self._partner.kill()
            self.complete = False
            self._log.end()
            self._committed(self._spool.feeds())
            failures = 1 if time.monotonic() > begun + 60.0 else failures + 1
            self._stop.wait(self._backoff.delay(failures))

    def status(self) -> dict[str, Any]:
        return {"complete": self.complete, "problem": self.problem, "healed": self.healed}

    def _session(self) -> None:
        self._followed = self._follow()
        if self._followed is None:
            raise PartnerLost("it waits until the source is open")
        self._partner.begin(self._term, self._followed)
        for changes in _parcels(self._spool.snapshot(self._log.begin)):
            if self._stop.is_set():
                return
            self._send(Parcel(changes, copying=True))
        goal: int | None = None
        while not self._stop.is_set():
            if goal is None and self._log.size < PARCEL_BYTES:
                goal = self._log.require()
            stream = self._source.stream
            quiet = stream.quiet(self._quiet) if stream is not None else frozenset()
            changes, number = self._log.take(PARCEL_BYTES, INTERVAL)
            if self._log.overflowed:
                raise PartnerLost("it is too slow; beginning anew")
            following = self._follow()
            new = following if following != self._followed else None
            complete = goal is not None and number >= goal
            # Before it is sent: it may arrive and the answer be lost.
            self.complete = self.complete or complete
            if self._log.size:
                quiet = frozenset()
            self._send(Parcel(changes, complete=complete, following=new, quiet=quiet))
            self._followed, self.problem = following or self._followed, None
            if feeds := self._log.done(number):
                self._committed(feeds)

    def _follow(self) -> Following | None:
        return self._source.stream.following if self._source.stream is not None else None

    def _send(self, parcel: Parcel) -> None:
        self._given += self._partner.replicate(self._term, parcel)
        stream = self._source.stream
        if self._given and stream is not None and stream.following is not None:
            for received in self._given:
                self._note(len(received.frames))
                stream.inject(received)
            self._given = []

    def _note(self, records: int) -> None:
        """The standby gave so many records."""
        self.healed += records
        now = time.time()
        gap = self._gaps.open("the source did not send all to the monitor", now, now)
        with self._spool.transaction() as db:
            self._gaps.recover(db, gap, records)
        self._gaps.close(gap, "healed", 0, "the standby had it")
        log.warning("gap %d: the source did not send %d records, which the standby has", gap, records)


def _parcels(changes: Iterable[Change]) -> Iterable[list[Change]]:
    parcel: list[Change] = []
    size = 0
    for change in changes:
        parcel.append(change)
        size += size_of([change])
        if size >= PARCEL_BYTES:
            yield parcel
            parcel, size = [], 0
    yield parcel
