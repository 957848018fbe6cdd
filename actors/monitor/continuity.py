"""Opens a gap whenever a stream ends and when a monitor starts again, and ends it when the next stream is open.

Used by the receiving thread; events of gaps may be added by others.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson

from actors.monitor.catchup import Table
from actors.monitor.gaplog import Gap, GapLog
from actors.monitor.keys import NotIncreasing, check_column
from actors.monitor.kinetica import schema_type
from actors.monitor.settings import MonitorSettings
from actors.monitor.source import Source

log = logging.getLogger(__name__)

#: Seconds between notes on disk of a table without changes that nothing was lost so far.
HEARD_INTERVAL = 5.0


class Before(NamedTuple):
    """Why a spool does not have what was received before it was made: since when, and where that may be."""

    cause: str
    at: float
    note: str


class Continuity:
    """What of one table was received without interruption.

    Attributes:
        heard: everything published before was received; in seconds since 1970.
        unhealable: why the configured increasing column cannot serve.
    """

    def __init__(
        self, settings: MonitorSettings, gaps: GapLog, source: Source, before: Sequence[Before] = ()
    ) -> None:
        self.heard = gaps.heard()
        self.unhealable: str | None = None
        self._settings = settings
        self._gaps = gaps
        self._source = source
        # A standby goes on with a stream that has missed nothing.
        self._continues = bool(getattr(source, "continues", False))
        self._kept_at = time.monotonic()
        self._events: deque[dict[str, Any]] = deque()
        self._open: int | None = next((gap.number for gap in gaps.unsettled() if gap.state == "open"), None)
        self._before = before
        self._cause: str | None = None
        self._column = settings.increasing_column if "insert" in settings.events else None
        if gaps.kept("column") != self._column:
            self.forget()

    def forget(self) -> None:
        """What is kept of the increasing column holds no more: it is another, or none for a while."""
        for name, value in (("column", None), ("floor", None), ("ranges", []), ("pending", [])):
            self._gaps.put(name, value)

    def start(self) -> None:
        """The monitor begins to receive."""
        if self._open is None and self.heard and not self._continues:
            self._begin("the monitor was not running")
        if not self.heard and not self._gaps.latest(1):
            for cause, at, note in self._before:
                self.close(self.found(cause, at, time.time()), None, note)

    # -- as streams come and go ---------------------------------------------------------------------------------

    def lost(self, cause: str, dropped: bool = False) -> None:
        """The stream ended, or none can be opened.

        Raises :class:`SpoolFull`: then the gap is noted when the next stream is open.
        """
        self._cause = self._cause or cause
        if dropped and self.heard and not self._gaps.kept("dropped"):
            self._gaps.dropped()
            for name, value in (("dropped", True), ("ranges", []), ("pending", [])):
                self._gaps.put(name, value)
            for gap in self._gaps.unsettled():
                if gap.state == "healing":
                    self.close(gap, None, "the table was dropped before its rows could be fetched")
        if self._open is None and self.heard:
            self._begin(cause)

    def _begin(self, cause: str) -> None:
        self._open = self._gaps.open(cause, self.heard)
        log.warning("%s: gap %d: %s", self._settings.table, self._open, cause)
        self._say("gap_opened", self._gaps.get(self._open))

    def prepare(self, epoch: int) -> None:
        """Note, before a stream is opened that gets `epoch` or a later one, how far the table is.

        Raises :class:`SourceLost`.
        """
        if self._continues:
            self._continues = False
            return
        column = self._column
        if column is None:
            return
        reader = self._source.reader()
        try:
            check_column(self._settings.table, schema_type(reader.described().schema), column)
            table = Table(reader, column)
            before = table.greatest()
            first, dropped = not self.heard, bool(self._gaps.kept("dropped"))
            if self._gaps.kept("column") != column:
                snapshot = first and self._settings.start == "snapshot"
                if first and self._gaps.account().baseline is None:
                    self._gaps.set_baseline(0 if snapshot else table.count_upto(before), deletes_known=True)
                # By this column nobody knows which of the rows up to `before` were delivered: they are let be.
                self._gaps.put("floor", before)
                self._gaps.put("pending", [[0.0, before, epoch, "all" if snapshot or dropped else "new"]])
                self._gaps.put("column", column)
            elif not first:
                # Of a stream that never opened after all, nothing is pending.
                opened = self._gaps.kept("epoch") or 0
                pending = [each for each in self._gaps.kept("pending") or [] if each[2] <= opened]
                began = self._gaps.get(self._open).began if self._open else self.heard
                self._gaps.put("pending", [*pending, [began, before, epoch, "all" if dropped else "gap"]])
            self.unhealable = None
        except NotIncreasing as error:
            if self.unhealable is None:
                log.error("%s; its gaps stay unhealed", error)
                self.forget()
            self.unhealable = str(error)
        finally:
            reader.close()

    def opened(self, epoch: int) -> None:
        """A stream is open."""
        if self._open is None and self._cause and self.heard:
            self._begin(self._cause)
        self._cause = None
        now = time.time()
        self._gaps.put("dropped", False)
        self._gaps.put("epoch", epoch)
        if self._open is not None:
            self._gaps.end(self._open, now)
            self._open = None
        self.heard = self.heard or now

    # -- durability ---------------------------------------------------------------------------------------------

    @property
    def stale(self) -> bool:
        """Whether it is time to note :attr:`heard` on disk."""
        return time.monotonic() >= self._kept_at + HEARD_INTERVAL

    def kept(self) -> None:
        """:attr:`heard` is on disk."""
        self._kept_at = time.monotonic()

    # -- telling of it ------------------------------------------------------------------------------------------

    def found(self, cause: str, began: float, ended: float) -> Gap:
        """An audit found a gap within what looked whole."""
        gap = self._gaps.get(self._gaps.open(cause, began, ended))
        log.warning("%s: gap %d: %s", self._settings.table, gap.number, cause)
        self._say("gap_opened", gap)
        return gap

    def close(self, gap: Gap, missing: int | None, note: str = "", healed: bool = False) -> None:
        """Nothing more is to be done for `gap`, of which so many rows are missing for good; None: nobody knows."""
        self._gaps.close(gap.number, "healed" if healed else "unhealed", missing, note)
        self._say("gap_closed", self._gaps.get(gap.number))

    def _say(self, event: str, gap: Gap) -> None:
        self._events.append(
            {
                "event": event,
                "table": self._settings.table,
                "gap": gap.number,
                "cause": gap.cause,
                "began": gap.began,
                "ended": gap.ended,
                "recovered": gap.recovered,
                "missing": gap.missing,
                "note": gap.note,
            }
        )

    def events(self) -> list[bytes]:
        """What is to be told in the feed of changes."""
        taken = []
        while self._events:
            taken.append(orjson.dumps(self._events.popleft()))
        return taken
