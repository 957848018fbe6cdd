"""Heals gaps and audits the table, on a thread of its own: reads the table, and hands rows over to the receiver."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import msgpack

from actors.backoff import Backoff
from actors.block import TICKS_PER_SECOND, Block
from actors.errors import SpoolFull
from actors.monitor.audit import Bounds, shortfall
from actors.monitor.catchup import Range, Rows, Table, after_gap, least, locate, missing_rows
from actors.monitor.continuity import Continuity
from actors.monitor.gaplog import Gap, GapLog, SourceAccount
from actors.monitor.handover import Handover, Recovered
from actors.monitor.keys import Held, NotIncreasing, Value, plain, read_values
from actors.monitor.kinetica import schema_type
from actors.monitor.settings import MonitorSettings
from actors.monitor.source import Source, SourceLost, TableReader
from actors.monitor.spool import Position, Spool

log = logging.getLogger(__name__)

#: Seconds after the reading of a row by which the stream has brought it, if it ever will.
SETTLE = 1.0

#: Seconds before a gap within which rows may have come in another order than that of their values.
OVERLAP = 10.0

#: Pages that wait until they are settled.
PAGES = 16

#: Passes over what comes under a new subscription, until one finds nothing missing.
PASSES = 5

#: Audits that must see a shortfall without an increasing column, before it is believed.
REPEATED = 2

#: Attempts to count while nothing comes, before bounds have to do.
QUIET_ATTEMPTS = 5

#: Seconds between looks for something to do (there is some when a stream opens, and then none is waited for), and
#: for which retries are put off at most.
TICK = 1.0
RETRY_MAX = 30.0

#: Seconds for which blocks are kept, so that a catch-up can compare with them.
RETAIN = 120.0


#: Recovers what is missing of a page, given what remains to be looked at after it; returns how many rows.
Recover = Callable[[Rows, list[Range]], int]


class Healer:
    """The catch-ups and audits of one table."""

    def __init__(
        self,
        settings: MonitorSettings,
        source: Source,
        spool: Spool,
        gaps: GapLog,
        continuity: Continuity,
        handover: Handover,
    ) -> None:
        self.problem: str | None = None
        #: Of the catch-up that runs: rows to look at, rows looked at, rows recovered.
        self.progress: dict[str, int] | None = None
        self._settings = settings
        self._source = source
        self._spool = spool
        self._gaps = gaps
        self._continuity = continuity
        self._handover = handover
        self._stop = threading.Event()
        self._wake = threading.Event()
        handover.opened = self._wake.set
        self._audited = threading.Condition()
        self._audits = 0
        self._audit_at = 0.0
        self._shortfalls = 0
        self._whole_at = time.time()
        self._backoff = Backoff(initial=0.5, cap=RETRY_MAX)
        if settings.increasing_column is not None:
            spool.retention.seconds = max(spool.retention.seconds, RETAIN)
            spool.retention.before = self._pruned

    def stop(self) -> None:
        """End :meth:`run` soon; a catch-up goes on at the next start."""
        self._stop.set()
        self._wake.set()

    def reconcile(self, timeout: float, over: Callable[[], bool] = lambda: False) -> SourceAccount:
        """Audit now, and fetch what is missing; returns the account when both are done, or at the timeout.

        Or as soon as `over` says that there is nothing to audit any more.
        """
        with self._audited:
            # One that is under way may have counted already.
            goal = self._audits + 2
            self._audit_at = 0.0
            self._wake.set()
            deadline = time.monotonic() + timeout
            while self._audits < goal and (left := deadline - time.monotonic()) > 0 and not over():
                self._audited.wait(min(left, TICK))
                self._audit_at = 0.0
                self._wake.set()
        return self._gaps.account()

    @property
    def busy(self) -> bool:
        """Whether something is still to be healed."""
        return bool(self._gaps.kept("ranges") or self._gaps.kept("pending"))

    def report(self) -> dict[str, Any]:
        """What status shows: gaps, the catch-up that runs, the last audit."""
        return {
            **self._gaps.report(),
            "catch_up": {
                "state": "running" if self.progress else "waiting" if self.busy else "done",
                "problem": self._continuity.unhealable or self.problem,
                **(self.progress or {}),
            },
        }

    def run(self) -> None:
        """Work until stopped."""
        failures = 0
        while not self._stop.is_set():
            self._wake.wait(TICK)
            self._wake.clear()
            if self._stop.is_set() or not self._handover.is_open or not self._due():
                continue
            reader = self._source.reader()
            try:
                self._work(reader)
                failures, self.problem = 0, None
            except (SourceLost, SpoolFull, TimeoutError) as error:
                failures += 1
                self.problem = f"catching up waits: {error}"
                log.info("%s: %s", self._settings.table, self.problem)
                self._stop.wait(self._backoff.delay(failures))
            except NotIncreasing as error:
                self._give_up(str(error))
            finally:
                self.progress = None
                reader.close()

    def _due(self) -> bool:
        audit = time.monotonic() >= self._audit_at
        return audit or self.busy or any(gap.state == "healing" for gap in self._gaps.unsettled())

    @property
    def _column(self) -> str | None:
        if self._continuity.unhealable or "insert" not in self._settings.events:
            return None
        return self._settings.increasing_column

    def _work(self, reader: TableReader) -> None:
        table = Table(reader, self._column) if self._column else None
        # In this order: what is to be looked at for a gap is noted before the gap is over.
        healing = [gap for gap in self._gaps.unsettled() if gap.state == "healing"]
        busy = self.busy
        if table is not None and busy:
            self._catch_up(table, healing[-1] if healing else None)
        if healing:
            self._conclude(healing, self._measure(reader, table))
        elif time.monotonic() >= self._audit_at:
            bounds = self._measure(reader, table)
            if bounds is not None:
                self._judge(bounds, reader, table)
            self._audit_at = time.monotonic() + self._settings.audit
            with self._audited:
                self._audits += 1
                self._audited.notify_all()

    def _give_up(self, why: str) -> None:
        """The increasing column turned out not to be one."""
        log.error("%s: %s; its gaps stay unhealed", self._settings.table, why)
        self._continuity.unhealable = why
        self._continuity.forget()

    # -- catching up --------------------------------------------------------------------------------------------

    def _catch_up(self, table: Table, gap: Gap | None) -> None:
        held = self._held()
        ranges = self._resolve(held)
        recover = partial(self._recover, held, gap)
        # What comes under the new subscription first: what it is compared with is the youngest.
        for tail in [each for each in ranges if each.upto is None]:
            ranges = [each for each in ranges if each is not tail]
            self._confirm(table, tail, ranges, recover)
            self._keep(ranges)
        rows = sum(table.count(each.above, each.upto) for each in ranges)
        self.progress = {"rows": rows, "done": 0, "recovered": 0}
        self._look(_pages(table, ranges), recover)
        self._keep([])

    def _held(self) -> Held:
        assert self._column is not None
        start = Position(self._gaps.kept("since") or 0, 0)
        held = Held(partial(self._spool.blocks, self._settings.table), start, self._column)
        return held

    def _resolve(self, held: Held) -> list[Range]:
        """What is to be looked at, now that streams were opened."""
        ranges = [Range(*each) for each in self._gaps.kept("ranges") or []]
        pending = self._gaps.kept("pending") or []
        floor: Value | None = self._gaps.kept("floor")
        for began, before, epoch, what in pending:
            if what == "new":
                ranges = [Range(before, None)]
            elif what == "all":
                ranges = after_gap([], None, None, before)
                floor, held_since = before, epoch
                self._gaps.put("since", held_since)
                held.restart(Position(held_since, 0))
            else:
                held.update(Position(epoch, 0))
                greatest = held.greatest
                last = max((v for v in (greatest, floor) if v is not None), default=None)
                overlap = held.least_since(int((began - OVERLAP) * TICKS_PER_SECOND))
                overlap = last if overlap is None or last is None else overlap
                if floor is not None and (overlap is None or overlap < floor):  # type: ignore[operator]
                    overlap = floor
                ranges = after_gap(ranges, overlap, last, before)
        held.update()

        def resolved(db: sqlite3.Connection) -> None:
            self._gaps.keep(db, "floor", floor)
            self._gaps.keep(db, "ranges", _plain(ranges))
            self._gaps.keep(db, "pending", [])

        if pending:
            self._spool.append((), resolved)
        return ranges

    def _keep(self, ranges: list[Range]) -> None:
        self._gaps.put("ranges", _plain(ranges))

    def _confirm(self, table: Table, tail: Range, rest: list[Range], recover: Recover) -> None:
        """Look at what comes under a new subscription until none is missing: nobody says when it is in force."""
        above = tail.above
        for _ in range(PASSES):
            self._handover.settled(time.monotonic() + SETTLE)
            upto = table.greatest()
            if upto is None or (above is not None and upto <= above):  # type: ignore[operator]
                return
            # More rows of a page's last value may come, so that value is looked at again.
            pages = (
                (page, [*rest, Range(page.below_last, None)])
                for page in table.pages(Range(above, upto), upto)
            )
            found, above = self._look(pages, recover)
            if not found:
                return

    def _look(self, pages: Iterator[tuple[Rows, list[Range]]], recover: Recover) -> tuple[int, Value | None]:
        """Recover what is missing of pages, each with what remains to be looked at after it.

        Returns how many rows were missing, and the last page's last value but one.
        """
        settling: deque[tuple[Rows, list[Range], float]] = deque()
        found, last, more = 0, None, True
        while more or settling:
            if self._stop.is_set():
                raise SourceLost("the monitor stops")
            if more and len(settling) < PAGES:
                fetched = next(pages, None)
                more = fetched is not None
                if fetched is not None:
                    settling.append((*fetched, time.monotonic()))
                continue
            page, left, at = settling.popleft()
            self._handover.settled(at + SETTLE)
            found += recover(page, left)
            last = page.below_last
        return found, last

    def _recover(self, held: Held, gap: Gap | None, page: Rows, left: list[Range]) -> int:
        """Hand over what is missing of a page, and note that `left` is what remains to be looked at."""
        held.update()
        rows = missing_rows(page, held)

        def also(db: sqlite3.Connection) -> None:
            self._gaps.keep(db, "ranges", _plain(left))
            if gap is not None:
                self._gaps.recover(db, gap.number, len(rows))

        if self._handover.give(Recovered(rows, page.described, also)) is None:
            raise SourceLost("the table is being altered")
        if self.progress is not None:
            self.progress["done"] += len(page.rows)
            self.progress["recovered"] += len(rows)
        lowest = least([each.above for each in left]) if left else None
        if lowest is not None:
            held.forget(lowest)
        return len(rows)

    def _pruned(self, db: sqlite3.Connection, blocks: Any) -> None:
        """Blocks go: what is not above their greatest value can be compared no more."""
        column, since = self._column, self._gaps.kept_in(db, "since") or 0
        if column is None or column != self._gaps.kept_in(db, "column"):
            return
        for block in blocks:
            if block.feed != self._settings.table or block.epoch < since:
                continue
            greatest = _greatest(block, column)
            floor = self._gaps.kept_in(db, "floor")
            if greatest is not None and (floor is None or greatest > floor):
                self._gaps.keep(db, "floor", greatest)

    # -- audits -------------------------------------------------------------------------------------------------

    def _account(self) -> tuple[SourceAccount, Position]:
        """The account, and the end of what it counts."""
        while True:
            before = self._spool.end(self._settings.table)
            account = self._gaps.account()
            if self._spool.end(self._settings.table) == before:
                return account, Position(before.epoch, before.next_offset)

    def _measure(self, reader: TableReader, table: Table | None) -> Bounds | None:
        """The shortfall now; None if inserts are not followed."""
        if "insert" not in self._settings.events:
            return None
        for attempt in range(QUIET_ATTEMPTS):
            before, end = self._account()
            upto = table.greatest() if table is not None else None
            size = table.count_upto(upto) if table is not None else reader.size()
            at = time.time()
            self._handover.settled(time.monotonic() + SETTLE)
            after, until = self._account()
            quiet = (before.inserted, before.deleted) == (after.inserted, after.deleted)
            if quiet or before.baseline is not None or attempt == QUIET_ATTEMPTS - 1:
                break
        if before.baseline is None:
            baseline = size - before.inserted + after.deleted
            self._gaps.set_baseline(baseline, deletes_known=True)
            before, after = replace(before, baseline=baseline), replace(after, baseline=baseline)
        newer = None
        if table is not None:
            assert self._column is not None
            held = Held(partial(self._spool.blocks, self._settings.table), end, self._column)
            held.update(until)
            newer = held.count(upto, None)
        bounds = shortfall(size, before, after, newer, self._gaps.missing(), quiet)
        self._gaps.audited(at, size, max(0, bounds.low))
        return bounds

    def _judge(self, bounds: Bounds, reader: TableReader, table: Table | None) -> None:
        """Act on an audit of what looked whole."""
        if bounds.low <= 0:
            self._shortfalls = 0
            if bounds.exact:
                self._whole_at = time.time() - SETTLE
                self._deleted_unseen(-bounds.low)
            return
        self._shortfalls += 1
        if table is None and self._shortfalls < REPEATED:
            return
        self._shortfalls = 0
        cause = f"audit: {bounds.low} rows short"
        if table is not None:
            held = self._held()
            held.update()
            floor, upto = self._gaps.kept("floor"), table.greatest()
            found = locate(table.count, held, floor, upto) if upto is not None else []
            # Rows deleted meanwhile may hide those missing: then all is looked at.
            self._keep(found or ([Range(floor, upto)] if upto is not None and upto != floor else []))
        self._continuity.found(cause, self._whole_at, time.time())

    def _conclude(self, gaps: list[Gap], bounds: Bounds | None) -> None:
        """Close the gaps that nothing more can be done for."""
        missing = None if bounds is None else max(0, bounds.low)
        unseen = self._deleted_unseen(-bounds.low) if bounds is not None and bounds.exact else 0
        for gap in gaps:
            notes = []
            if self._column is None:
                why = self._continuity.unhealable or "the table has no increasing_column"
                notes.append(f"{why}, so missing rows cannot be fetched")
                if bounds is not None and not bounds.exact:
                    notes.append("nor counted, because rows kept coming")
                    missing = None
            elif missing:
                notes.append("what is missing cannot be told from rows that the spool holds no more")
            if unseen:
                notes.append(f"{unseen} rows were deleted meanwhile")
            notes.append("updates and deletes in it are not known")
            healed = self._column is not None and not missing
            self._continuity.close(gap, 0 if healed else missing, "; ".join(notes), healed)
            missing, unseen = (0 if missing is not None else None), 0

    def _deleted_unseen(self, rows: int) -> int:
        """Rows are gone from the table whose deletion was not received: count them as deleted."""
        if rows > 0:
            with self._gaps.transaction() as db:
                self._gaps.received(db, deleted=rows)
        return max(0, rows)


def _pages(table: Table, ranges: list[Range]) -> Iterator[tuple[Rows, list[Range]]]:
    """The pages of all ranges, and what remains to be looked at after each."""
    for number, wanted in enumerate(ranges, 1):
        assert wanted.upto is not None
        for page in table.pages(wanted, wanted.upto):
            rest = ranges[number:]
            yield page, rest if page.upto == wanted.upto else [replace(wanted, above=page.upto), *rest]


def _plain(ranges: list[Range]) -> list[list[Any]]:
    return [[each.above, each.upto, each.fresh] for each in ranges]


def _greatest(block: Block, column: str) -> Value | None:
    values, _ = read_values(schema_type(block.schema), column, msgpack.unpackb(block.payload))
    return plain(values.max()) if len(values) else None
