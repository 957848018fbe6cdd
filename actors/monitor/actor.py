"""The Ray shell of a process of monitors: one table's, or those of many small tables."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import psutil
import ray

from actors.block import BlockId
from actors.monitor.group import MonitorGroup
from actors.monitor.letters import DeadLetter
from actors.monitor.ray_transport import RayPartner, RayTransport
from actors.monitor.replicator import Parcel
from actors.monitor.settings import MonitorSettings, Predecessor
from actors.monitor.source import Following, Received
from actors.monitor.story import Story
from actors.monitor.tap import Passed
from actors.ray_state import actor_info, keep_logs

log = logging.getLogger(__name__)

#: Seconds between questions whether Ray takes this process for dead.
ALIVE_INTERVAL = 1.0


def _transport(settings: MonitorSettings, incarnation: int, decoders: int) -> RayTransport:
    drains = settings.drain.host if settings.drain else None
    return RayTransport(settings.pipeline, incarnation, decoders, drains)


@ray.remote(concurrency_groups={"control": 4, "copying": 1, "reconcile": 1, "ending": 4})
class MonitorActor:
    """See :class:`MonitorGroup`. What is about one table names it first.

    All work is on threads of the monitors; every method here returns soon, but for those with a group of their own.
    """

    def __init__(self) -> None:
        keep_logs({})
        self._group = MonitorGroup(_transport)
        threading.Thread(target=self._end_when_dead, name="alive", daemon=True).start()
        # Finding an actor loads the module of its class, a second or two on a busy machine: not while rows wait.
        import actors.codec.actor
        import actors.writer.actor  # noqa: F401

    def _end_when_dead(self) -> None:
        """End this process when Ray takes it for dead.

        It was stopped, or its host out of reach, for so long that its tables have other monitors. Writers would refuse
        what it sends, but what it sends does not even reach them: Ray gives nothing on that a dead node owns.
        """
        me = ray.get_runtime_context().get_actor_id()
        while True:
            time.sleep(ALIVE_INTERVAL)
            with contextlib.suppress(Exception):  # out of reach: nobody knows better
                if self._group.monitoring and actor_info(me).get("State") == "DEAD":
                    log.error("%s: taken for dead; ending", ", ".join(self._group.tables))
                    self._group.finish_intake()  # and no more: what goes through Ray may hang
                    os._exit(1)

    # -- the process --------------------------------------------------------------------------------------------

    @ray.method(concurrency_group="control")
    def status(self, tables: list[str]) -> dict[str, dict[str, Any]]:
        """Table -> what is known of it, with the process it is in; tables that are not here are left out."""
        return self._status(tables)

    def _status(self, tables: list[str]) -> dict[str, dict[str, Any]]:
        process = {"pid": os.getpid(), "resident_bytes": psutil.Process().memory_info().rss}
        return {table: {**process, **answer} for table, answer in self._group.status(tables).items()}

    @ray.method(concurrency_group="control")
    def set_decoders(self, count: int) -> int:
        """See :meth:`MonitorGroup.set_decoders`."""
        return self._group.set_decoders(count)

    @ray.method(concurrency_group="control")
    def drain(self, tables: list[str], ending: bool) -> dict[str, dict[str, Any]]:
        """See :meth:`MonitorGroup.drain`."""
        return self._group.drain(tables, ending)

    @ray.method(concurrency_group="ending")
    def stop(self) -> None:
        """Stop receiving and delivering; what is left stays in the spools."""
        self._group.stop()

    # -- one table: coming and going ----------------------------------------------------------------------------

    @ray.method(concurrency_group="control")
    def start(
        self,
        settings: MonitorSettings,
        incarnation: int,
        digest: str,
        decoders: int,
        intake: bool = True,
        predecessor: Predecessor | None = None,
        paused: Sequence[str] = (),
    ) -> dict[str, dict[str, Any]]:
        """See :meth:`MonitorGroup.start`; returns what :meth:`status` does."""
        keep_logs(settings.source)
        self._group.start(settings, incarnation, digest, decoders, intake, predecessor, paused)
        return self._status([settings.table])

    @ray.method(concurrency_group="control")
    def stand_by(self, settings: MonitorSettings, incarnation: int, digest: str) -> dict[str, dict[str, Any]]:
        """See :meth:`MonitorGroup.stand_by`; returns what :meth:`status` does."""
        keep_logs(settings.source)
        self._group.stand_by(settings, incarnation, digest)
        return self._status([settings.table])

    @ray.method(concurrency_group="control")
    def promote(
        self,
        table: str,
        incarnation: int,
        decoders: int,
        intake: bool,
        partner: str,
        paused: Sequence[str] = (),
        predecessor: Predecessor | None = None,
    ) -> None:
        """See :meth:`MonitorGroup.promote`; `partner` is the name of the standby's actor."""
        other = RayPartner(partner, table)
        self._group.promote(table, incarnation, decoders, intake, other, paused, predecessor)

    @ray.method(concurrency_group="ending")
    def end(self, table: str, incarnation: int) -> None:
        """See :meth:`MonitorGroup.end`."""
        self._group.end(table, incarnation)

    @ray.method(concurrency_group="ending")
    def end_others(self, tables: list[str], incarnation: int) -> None:
        """See :meth:`MonitorGroup.end_others`."""
        self._group.end_others(tables, incarnation)

    # -- one table: its standby ---------------------------------------------------------------------------------

    @ray.method(concurrency_group="copying")
    def begin(self, table: str, term: int, following: Following) -> None:
        """See :meth:`Standby.begin`."""
        self._group.standby(table).begin(term, following)

    @ray.method(concurrency_group="copying")
    def replicate(self, table: str, term: int, parcel: Parcel) -> list[Received]:
        """See :meth:`Standby.replicate`."""
        return self._group.standby(table).replicate(term, parcel)

    # -- one table: what people ask for -------------------------------------------------------------------------

    @ray.method(concurrency_group="control")
    def resume(self, table: str, sinks: list[str], skip: bool, thaw: bool) -> list[tuple[str, str]]:
        """See :meth:`Dispatcher.resume`; with `thaw`, a table that an alteration froze goes on too."""
        monitor = self._group.monitor(table)
        thawed = [(table, "all its sinks")] if thaw and monitor.thaw() else []
        return monitor.dispatcher.resume(sinks, skip) + thawed

    @ray.method(concurrency_group="control")
    def pause(self, table: str, sinks: list[str]) -> int:
        """See :meth:`Monitor.pause`."""
        return self._group.monitor(table).pause(sinks)

    @ray.method(concurrency_group="control")
    def tail(self, table: str, seen: int | None) -> Passed:
        """See :meth:`Tap.read`."""
        return self._group.monitor(table).dispatcher.tap.read(seen)

    @ray.method(concurrency_group="control")
    def story(self, table: str, record: BlockId) -> Story:
        """See :meth:`Monitor.story`."""
        return self._group.monitor(table).story(record)

    @ray.method(concurrency_group="control")
    def rewind(self, table: str, sink: str, time: int) -> dict[str, int]:
        """Feed -> records that `sink` gets again; see :meth:`Dispatcher.rewind`."""
        rewound = self._group.monitor(table).dispatcher.rewind(sink, time)
        return {feed: each.records for feed, each in rewound.items()}

    @ray.method(concurrency_group="control")
    def dead_letters(self, table: str, limit: int) -> tuple[dict[str, int], list[DeadLetter]]:
        """See :meth:`DeadLetters.list`."""
        return self._group.monitor(table).spool.letters.list(limit)

    @ray.method(concurrency_group="control")
    def dead_letter(self, table: str, record: BlockId) -> DeadLetter | None:
        """See :meth:`DeadLetters.get`."""
        return self._group.monitor(table).spool.letters.get(record)

    @ray.method(concurrency_group="reconcile")  # which takes minutes
    def reconcile(self, table: str, timeout: float) -> None:
        """See :meth:`Monitor.reconcile`."""
        self._group.monitor(table).reconcile(timeout)

    @ray.method(concurrency_group="control")
    def conservation(self, table: str) -> dict[str, Any]:
        """See :meth:`Monitor.conservation`."""
        return self._group.monitor(table).conservation()

    @ray.method(concurrency_group="control")
    def replay(self, table: str, records: list[BlockId] | None) -> dict[str, tuple[int, int]]:
        """See :meth:`Dispatcher.replay`."""
        return self._group.monitor(table).dispatcher.replay(records)

    @ray.method(concurrency_group="control")
    def replayed(self, table: str, runs: dict[str, int]) -> dict[str, int]:
        """State -> how many dead letters of these runs, feed -> run, are in it."""
        letters = self._group.monitor(table).spool.letters
        outcome: Counter[str] = Counter()
        for feed, run in runs.items():
            outcome.update(letters.outcome(feed, run))
        return dict(outcome)
