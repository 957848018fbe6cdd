"""Receives the changes of one table and makes them durable; never waits for decoders or sinks.

Opens the source, groups frames into blocks, commits them to the spool, tells the dispatcher. When the source is
lost it opens it again, under a new epoch, for as long as it takes, and notes the gap. What a catch-up finds is handed
over to the receiving thread (:class:`~actors.monitor.handover.Handover`), which alone gives offsets.
"""

from __future__ import annotations

import bisect
import contextlib
import itertools
import logging
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from actors.backoff import Backoff
from actors.block import Block
from actors.errors import SpoolFull
from actors.monitor.asker import TopicWatch
from actors.monitor.continuity import Before, Continuity
from actors.monitor.gaplog import GapLog
from actors.monitor.grouping import BlockBuilder
from actors.monitor.handover import Handover, Recovered
from actors.monitor.journal import Journal
from actors.monitor.room import Room
from actors.monitor.settings import MonitorSettings
from actors.monitor.source import Source, SourceLost, Stream, Switched, TableGone
from actors.monitor.spool import Spool
from actors.monitor.typewatch import TypeWatch

log = logging.getLogger(__name__)

#: What follows the table's name in the name of a feed.
FEED_SUFFIX = {"insert": "", "update": ".updates", "delete": ".deletes"}
CHANGES_SUFFIX = ".changes"

#: Longest wait for frames in seconds, so that a stop and the state of the disk are noticed.
SLICE = 0.5

#: Payload bytes of one commit, other than of a single block: a disk that is nearly full has room for them.
COMMIT_BYTES = 8 << 20

#: Seconds between attempts of a paused receiver to have the types of what it holds proven.
RELEASE_INTERVAL = 5.0

#: When a receiver is stopped: seconds without a message after which all that was published has come, and the most
#: that it waits for that.
QUIET = 0.5
LAST_ROWS = 20.0


class Receiver:
    """The receiving half of a monitor; :meth:`run` is its thread."""

    def __init__(
        self,
        settings: MonitorSettings,
        source: Source,
        spool: Spool,
        committed: Callable[[Iterable[str]], None],
        drop: Callable[[int], int] = lambda size: 0,
        gaps: GapLog | None = None,
        before: Sequence[Before] = (),
        journal: Journal | None = None,
    ) -> None:
        self.state = "connecting"
        self.problem: str | None = None
        self.frozen: str | None = None
        self.epoch: int | None = None
        self.received = 0
        self.last_received: float | None = None
        self.reconnects = 0
        self._settings = settings
        self._source = source
        self._spool = spool
        self._committed = committed
        self._journal = journal or Journal()
        self._stop = threading.Event()
        self._backoff = Backoff(initial=0.2, cap=5.0)
        self._room = Room(settings, spool, drop)
        self._gaps = gaps or GapLog(spool.transaction, settings.table)
        self.continuity = Continuity(settings, self._gaps, source, before)
        self.handover = Handover()
        #: Counts of updates and deletes that are not in the account yet.
        self._counts: Counter[str] = Counter()
        #: Received, and not on disk because that was full.
        self._unsaved: list[Block] = []

    @property
    def progress(self) -> None:
        """How far reading is: there is no end to it."""

    def stop(self, ending: bool = False) -> None:
        """End :meth:`run` soon; what is open is committed first. Whether the pipeline is `ending` does not matter."""
        self._stop.set()

    def run(self) -> None:
        """Receive until stopped. Raises what makes the spool unusable, :class:`MonitorTooLarge`, and nothing else."""
        failures, started = 0, False
        while not self._stop.is_set():
            try:
                if not started:
                    self.continuity.start()
                    started = True
                if (full := self._room.full()) is not None:
                    self._wait_for_room(full)
                    continue
                self.continuity.prepare(self._next_epoch())
                # Those of the stream before among them: closing it could not clear them if the server was away.
                stream = self._source.open(self._spool.topics())
                failures = 0
                try:
                    self._receive(stream)
                finally:
                    self.handover.close()
                    stream.close()
                if not self._stop.is_set():
                    self.continuity.lost("paused: there was no room in the spool")
            except SpoolFull as error:
                self._wait_for_room(str(error))
                with contextlib.suppress(SpoolFull):
                    self.continuity.lost("paused: the spool's disk was full")
            except SourceLost as error:
                with contextlib.suppress(SpoolFull):
                    self.continuity.lost(str(error), dropped=isinstance(error, TableGone))
                failures += 1
                self._trouble(str(error), "dropped" if isinstance(error, TableGone) else "connecting")
                self._stop.wait(self._backoff.delay(failures))
        self.state = "stopped"

    def _trouble(self, problem: str, state: str) -> None:
        if problem != self.problem:
            log.warning("%s: %s; trying again", self._settings.table, problem)
        self.state, self.problem = state, problem

    def _receive(self, stream: Stream) -> None:
        self._spool.set_topics(stream.topics)
        self.reconnects += self.epoch is not None
        epoch = self._next_epoch()
        builders = {
            kind: self._builder(FEED_SUFFIX[kind], epoch, schema) for kind, schema in stream.schemas.items()
        }
        announce = self._builder(CHANGES_SUFFIX, epoch, "{}", format="json")
        watch = self._watch(stream, builders, announce)
        topics = TopicWatch(stream) if watch is None else None
        self.continuity.opened(epoch)
        self.handover.open(stream.wake)
        self.state, self.problem, self.epoch = "receiving", None, epoch
        log.info("receiving %s", self._settings.table, extra={"epoch": epoch, "offset": 0})
        try:
            while not self._stop.is_set() and self._room.full() is None:
                self._turn(stream, builders, announce, watch)
                if topics is not None and topics.error is not None:
                    raise topics.error
            if self._stop.is_set():
                self._last_rows(stream, builders, announce, watch)
        finally:
            if topics is not None:
                topics.stop()
            try:
                self._commit(_flush(builders))
                self._announce(announce)
            finally:
                if watch is not None:
                    watch.close()

    def _last_rows(
        self,
        stream: Stream,
        builders: dict[str, BlockBuilder],
        announce: BlockBuilder,
        watch: TypeWatch | None,
    ) -> None:
        """Have the source publish no more, then receive what it has published until nothing comes."""
        stream.end()
        now = time.monotonic()
        deadline, quiet_since = now + LAST_ROWS, now
        while now < min(deadline, quiet_since + QUIET):
            if self._turn(stream, builders, announce, watch):
                quiet_since = time.monotonic()
            now = time.monotonic()

    def _next_epoch(self) -> int:
        return max(int(time.time() * 1000), self._spool.last_epoch() + 1)

    def _watch(
        self, stream: Stream, builders: dict[str, BlockBuilder], announce: BlockBuilder
    ) -> TypeWatch | None:
        if stream.described is None:
            return None
        return TypeWatch(self._settings, self._spool, stream, builders["insert"], announce, self._committed)

    def release(self, ended: threading.Event) -> None:
        """Without receiving, have the types of the rows proven that an earlier process left held."""
        failures = 0
        while self._spool.in_doubt(self._settings.table) and not ended.is_set():
            try:
                self._release()
            except SourceLost as error:
                log.info("%s: rows stay held: %s", self._settings.table, error)
            failures += 1
            ended.wait(self._backoff.delay(failures))

    def _release(self) -> None:
        stream = self._source.open(self._spool.topics())
        try:
            self._spool.set_topics(stream.topics)
            epoch = self._next_epoch()
            inserts = self._builder(FEED_SUFFIX["insert"], epoch, stream.schemas.get("insert", "{}"))
            announce = self._builder(CHANGES_SUFFIX, epoch, "{}", format="json")
            if (watch := self._watch(stream, {"insert": inserts}, announce)) is not None:
                watch.close()
        finally:
            stream.close()

    def _builder(self, suffix: str, epoch: int, schema: str, format: str = "avro") -> BlockBuilder:
        feed = self._settings.table + suffix
        next_time = self._spool.end(feed).next_time
        return BlockBuilder(feed, epoch, schema, self._settings.limits, next_time, format)

    def _turn(
        self,
        stream: Stream,
        builders: dict[str, BlockBuilder],
        announce: BlockBuilder,
        watch: TypeWatch | None,
    ) -> bool:
        """Receive once, commit what is due, act on what is known of types. Returns whether anything came."""
        now = time.time()
        deadlines = [builder.deadline for builder in builders.values() if builder.deadline is not None]
        wait = min(SLICE, max(0.0, min(deadlines) - now)) if deadlines else SLICE
        asked = time.monotonic()
        items = stream.receive(wait)
        now = time.time()
        blocks: list[Block] = []
        for item in items:
            if isinstance(item, Switched):
                self._commit([*blocks, *_flush(builders)])
                blocks = []
                if watch is not None:
                    watch.switched(item.back)
                continue
            if item.rows:
                self._counts[item.kind] += item.rows
            self.last_received = now
            if item.kind in builders:
                blocks += builders[item.kind].add(item.frames, now)
            if item.kind == "insert" and watch is not None:
                watch.received()
        # What is read from a table that was created again meanwhile is not to be taken for the old one's.
        settled = min(asked, stream.checked)
        if settles := stream.emptied and self.handover.wants(settled):
            blocks += _flush(builders)
        blocks += [block for builder in builders.values() if (block := builder.due(now))]
        if stream.emptied:
            self.continuity.heard = now - (time.monotonic() - asked)
        self._commit(blocks)
        if settles:
            self.handover.settle(settled)
        self._announce(announce)
        if watch is not None:
            if blocks:
                watch.poke()
            watch.turn(idle=not items)
            self.frozen, self.problem = watch.frozen, watch.problem
        self._recover(builders, watch)
        return bool(items)

    def _recover(self, builders: dict[str, BlockBuilder], watch: TypeWatch | None) -> None:
        """Append the rows that a catch-up found, if their type is the present one."""
        recovered = self.handover.take()
        if recovered is None:
            return
        builder = builders["insert"]
        accepted = watch is None or watch.accepts(recovered.described)
        blocks: list[Block] = []
        if accepted and recovered.rows:
            before = builder.flush()
            blocks = builder.add(recovered.rows, time.time())
            blocks += [block] if (block := builder.flush()) else []
            if watch is not None:
                watch.recovered(blocks)
            self._commit([before] if before else [])
        try:
            if accepted:
                self._commit(blocks, recovered)
        except SpoolFull as error:
            recovered.done.set_exception(SourceLost(str(error)))
            raise
        recovered.done.set_result([block.id for block in blocks] if accepted else None)

    def _announce(self, announce: BlockBuilder) -> None:
        """Append the events of gaps to the feed of changes."""
        events = self.continuity.events()
        if events:
            blocks = announce.add(events, time.time())
            self._commit([*blocks, *([block] if (block := announce.flush()) else [])])

    def resume(self) -> bool:
        """Let a frozen table go on. Returns whether it was frozen."""
        resumed = self._spool.resume(self._settings.table)
        self._committed((self._settings.table,))
        return resumed

    def _commit(self, blocks: Sequence[Block], recovered: Recovered | None = None) -> None:
        """Make blocks durable; those that a catch-up found all at once, with what it notes of them."""
        if recovered is None:
            self._unsaved += blocks
        while self._unsaved:
            size = list(itertools.accumulate(len(block.payload) for block in self._unsaved))
            part = self._unsaved[: max(1, bisect.bisect(size, COMMIT_BYTES))]
            self._store(part, whole=len(part) == len(self._unsaved))
            del self._unsaved[: len(part)]
        if recovered is not None:
            self._store(blocks, also=recovered.also)
        elif self._counts or self.continuity.stale:
            self._store(())

    def _store(
        self,
        blocks: Sequence[Block],
        whole: bool = True,
        also: Callable[[sqlite3.Connection], object] | None = None,
    ) -> None:
        """Make blocks durable in one transaction, together with the account; `whole`: nothing received is left."""
        counts, heard = self._counts, self.continuity.heard
        inserted = sum(block.count for block in blocks if block.feed == self._settings.table)

        def work(db: sqlite3.Connection) -> None:
            self._gaps.received(db, inserted, counts["update"], counts["delete"])
            if whole:
                self._gaps.hear(db, heard)
            if also is not None:
                also(db)

        self._spool.append(blocks, work)
        self._counts = Counter()
        self.continuity.kept()
        changes = self._settings.table + CHANGES_SUFFIX
        self.received += sum(block.count for block in blocks if block.feed != changes)
        if blocks:
            self._journal.committed(blocks)
            self._committed({block.feed for block in blocks})

    def _saved(self) -> bool:
        """Commit what did not fit before. Returns whether it does now."""
        with contextlib.suppress(SpoolFull):
            self._commit(())
        return not self._unsaved

    def _wait_for_room(self, why: str) -> None:
        """Receive nothing until there is room again; what the source sends meanwhile is not received."""
        log.error("%s: paused: %s", self._settings.table, why)
        self.state, self.problem = "paused", why
        due = time.monotonic() + RELEASE_INTERVAL
        while not (self._room.regained() and self._saved()) and not self._stop.wait(SLICE):
            if time.monotonic() >= due and self._spool.in_doubt(self._settings.table):
                with contextlib.suppress(SourceLost, SpoolFull):  # still away, or still no room
                    self._release()
                due = time.monotonic() + RELEASE_INTERVAL
        if self._unsaved:
            log.error(
                "%s: stopped with %d blocks that the disk has no room for",
                self._settings.table,
                len(self._unsaved),
            )


def _flush(builders: dict[str, BlockBuilder]) -> list[Block]:
    return [block for builder in builders.values() if (block := builder.flush())]
