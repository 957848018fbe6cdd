"""Receives the changes of one table and makes them durable; never waits for decoders or sinks.

Opens the source, groups frames into blocks, commits them to the spool, tells the dispatcher. When the source is
lost it opens it again, under a new epoch, for as long as it takes.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Sequence

from actors.backoff import Backoff
from actors.block import Block
from actors.monitor.grouping import BlockBuilder
from actors.monitor.settings import MonitorSettings
from actors.monitor.source import Source, SourceLost, Stream, Switched, TableGone
from actors.monitor.spool import Spool
from actors.monitor.typewatch import TypeWatch

log = logging.getLogger(__name__)

#: What follows the table's name in the name of a feed.
FEED_SUFFIX = {"insert": "", "update": ".updates", "delete": ".deletes"}
CHANGES_SUFFIX = ".changes"

#: Longest wait for frames in seconds, so that a stop and the state of the disk are noticed.
SLICE = 0.25

#: Seconds between attempts of a paused receiver to have the types of what it holds proven.
RELEASE_INTERVAL = 5.0

#: When a receiver is stopped: seconds without a message after which all that was published has come, and the most
#: that it waits for that.
QUIET = 0.5
LAST_ROWS = 20.0

#: A paused receiver goes on when the spool is below this part of its bound.
RESUME_BELOW = 0.8


class Receiver:
    """The receiving half of a monitor; :meth:`run` is its thread."""

    def __init__(
        self,
        settings: MonitorSettings,
        source: Source,
        spool: Spool,
        committed: Callable[[Iterable[str]], None],
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
        self._stop = threading.Event()
        self._backoff = Backoff(initial=0.2, cap=5.0)
        self._disk_checked = 0.0

    def stop(self) -> None:
        """End :meth:`run` soon; what is open is committed first."""
        self._stop.set()

    def run(self) -> None:
        """Receive until stopped. Raises what makes the spool unusable, and nothing else."""
        failures = 0
        while not self._stop.is_set():
            if (full := self._full()) is not None:
                self._wait_for_room(full)
                continue
            try:
                # Those of the stream before among them: closing it could not clear them if the server was away.
                stream = self._source.open(self._spool.topics())
                failures = 0
                try:
                    self._receive(stream)
                finally:
                    stream.close()
            except SourceLost as error:
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
        watch = self._watch(stream, builders)
        self.state, self.problem, self.epoch = "receiving", None, epoch
        try:
            while not self._stop.is_set() and self._full() is None:
                self._turn(stream, builders, watch)
            if self._stop.is_set():
                self._last_rows(stream, builders, watch)
        finally:
            try:
                self._commit([block for builder in builders.values() if (block := builder.flush())])
            finally:
                if watch is not None:
                    watch.close()

    def _last_rows(self, stream: Stream, builders: dict[str, BlockBuilder], watch: TypeWatch | None) -> None:
        """Have the source publish no more, then receive what it has published until nothing comes."""
        stream.end()
        now = time.monotonic()
        deadline, quiet_since = now + LAST_ROWS, now
        while now < min(deadline, quiet_since + QUIET):
            if self._turn(stream, builders, watch):
                quiet_since = time.monotonic()
            now = time.monotonic()

    def _next_epoch(self) -> int:
        return max(int(time.time() * 1000), self._spool.last_epoch() + 1)

    def _watch(self, stream: Stream, builders: dict[str, BlockBuilder]) -> TypeWatch | None:
        if stream.described is None:
            return None
        inserts = builders["insert"]
        announce = self._builder(CHANGES_SUFFIX, inserts.epoch, "{}", format="json")
        return TypeWatch(self._settings, self._spool, stream, inserts, announce, self._committed)

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
            if (watch := self._watch(stream, {"insert": inserts})) is not None:
                watch.close()
        finally:
            stream.close()

    def _builder(self, suffix: str, epoch: int, schema: str, format: str = "avro") -> BlockBuilder:
        feed = self._settings.table + suffix
        next_time = self._spool.end(feed).next_time
        return BlockBuilder(feed, epoch, schema, self._settings.limits, next_time, format)

    def _turn(self, stream: Stream, builders: dict[str, BlockBuilder], watch: TypeWatch | None) -> bool:
        """Receive once, commit what is due, act on what is known of types. Returns whether anything came."""
        now = time.time()
        deadlines = [builder.deadline for builder in builders.values() if builder.deadline is not None]
        wait = min(SLICE, max(0.0, min(deadlines) - now)) if deadlines else SLICE
        items = stream.receive(wait)
        now = time.time()
        blocks: list[Block] = []
        for item in items:
            if isinstance(item, Switched):
                self._commit(blocks)
                blocks = []
                if watch is not None:
                    watch.switched(item.back)
                continue
            blocks += builders[item.kind].add(item.frames, now)
            self.last_received = now
            if item.kind == "insert" and watch is not None:
                watch.received()
        blocks += [block for builder in builders.values() if (block := builder.due(now))]
        self._commit(blocks)
        if watch is not None:
            if blocks:
                watch.poke()
            watch.turn(idle=not items)
            self.frozen, self.problem = watch.frozen, watch.problem
        return bool(items)

    def resume(self) -> bool:
        """Let a frozen table go on. Returns whether it was frozen."""
        resumed = self._spool.resume(self._settings.table)
        self._committed((self._settings.table,))
        return resumed

    def _commit(self, blocks: Sequence[Block]) -> None:
        if blocks:
            self._spool.append(blocks)
            self.received += sum(block.count for block in blocks)
            self._committed({block.feed for block in blocks})

    # -- the bound ----------------------------------------------------------------------------------------------

    def _full(self, part: float = 1.0) -> str | None:
        """Why there is no room in the spool, or None. The disk is asked once a second."""
        if self._spool.bytes > part * self._settings.max_bytes:
            return f"the spool holds {self._spool.bytes:,} bytes, its bound is {self._settings.max_bytes:,}"
        if time.monotonic() >= self._disk_checked + 1.0 or part < 1.0:
            self._disk_checked = time.monotonic()
            free = shutil.disk_usage(self._spool.directory).free
            if free < self._settings.min_free:
                self._disk_checked = 0.0
                return f"the spool's disk has {free:,} bytes free, the floor is {self._settings.min_free:,}"
        return None

    def _wait_for_room(self, why: str) -> None:
        """Receive nothing until there is room again; what the source sends meanwhile is not received."""
        log.error("%s: paused: %s", self._settings.table, why)
        self.state, self.problem = "paused", why
        due = time.monotonic() + RELEASE_INTERVAL
        while self._full(RESUME_BELOW) is not None and not self._stop.wait(SLICE):
            if time.monotonic() >= due and self._spool.in_doubt(self._settings.table):
                with contextlib.suppress(SourceLost):  # still away
                    self._release()
                due = time.monotonic() + RELEASE_INTERVAL
