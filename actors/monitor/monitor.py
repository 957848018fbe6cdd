"""A table's monitor: spool, receiver and dispatcher, and the threads they run on. No Ray."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

from actors.block import BlockId
from actors.errors import MonitorTooLarge, SpoolDamaged, SpoolInUse, SpoolNotOpen
from actors.logs import about
from actors.monitor.changelog import ChangeLog
from actors.monitor.continuity import Before
from actors.monitor.dispatch import Dispatcher
from actors.monitor.gaplog import GapLog, SourceAccount
from actors.monitor.healer import Healer
from actors.monitor.journal import Journal
from actors.monitor.place import on_this_host
from actors.monitor.pull import PullSource
from actors.monitor.reader import Reader
from actors.monitor.receiver import Receiver
from actors.monitor.replicator import Partner, Replicator, SharedTable
from actors.monitor.settings import MonitorSettings, Predecessor
from actors.monitor.source import Source
from actors.monitor.sources import make_source
from actors.monitor.spool import Frozen, Position, Spool
from actors.monitor.standing import Standing
from actors.monitor.story import Story, tell
from actors.monitor.transport import Transport

log = logging.getLogger(__name__)

#: Seconds that a thread may take to end: the last rows are received first.
JOIN_TIMEOUT = 25.0

#: Part of a spool's bound up to which it keeps blocks that every sink has: they must never cause a pause.
RETAINED_PART = 0.5

#: Latest gaps among which those are shown that are not healed.
GAPS = 1000

#: Seconds to wait for a spool whose former owner is still dying.
LOCK_PATIENCE = 10.0

#: Why a drainer keeps what its spool received after the table's monitor had started elsewhere.
RECEIVED_ELSEWHERE = "received after the table's monitor had moved to another host, which received it too"


class Monitor:
    """Receives one table and delivers it. :meth:`start` returns at once; :meth:`status` tells how it goes."""

    def __init__(
        self,
        settings: MonitorSettings,
        transport: Transport,
        source: Source | PullSource | None = None,
        paused: Iterable[str] = (),
    ) -> None:
        self._settings = settings
        self._paused = tuple(paused)
        self._journal = Journal()
        self._transport = transport
        self._source = source or make_source(settings)
        self._log: ChangeLog | None = None
        self._partner: tuple[SharedTable, Partner, int] | None = None
        self._replicator: Replicator | None = None
        self._spool: Spool | None = None
        self._receiver: Receiver | Reader | None = None
        self._dispatcher: Dispatcher | None = None
        self._gaps: GapLog | None = None
        self._healer: Healer | None = None
        self._threads: dict[str, threading.Thread] = {}
        self._failure: str | None = None
        #: Whether what failed is not the table's alone, but of all that are in this process.
        self._fatal = False
        self._intake = True
        self._predecessor: Predecessor | None = None
        self._stopped = threading.Event()

    def pair(self, source: SharedTable, partner: Partner, term: int) -> None:
        """Receive from `source`, and keep `partner` able to take over; `term` is the incarnation. Before the start."""
        source.replaced = partner.replaced
        self._source, self._log, self._partner = source, ChangeLog(), (source, partner, term)

    def start(self, intake: bool = True, predecessor: Predecessor | None = None) -> None:
        """Open the spool, deliver what it holds, and receive unless `intake` is false.

        `predecessor` is the monitor that had the table last, if its spool is another one.
        """
        self._intake = intake
        self._predecessor = predecessor
        self._thread("open", self._open)

    def _open(self) -> None:
        if self._partner is None:
            Standing.forget(on_this_host(self._settings.spool))
        spool = self._open_spool()
        try:
            self._set_up(spool)
        except BaseException:  # nobody else knows of it, and this process may go on with other tables
            if self._dispatcher is not None:
                self._dispatcher.stop()
                self._join("dispatch")
            spool.close()
            raise

    def _open_spool(self) -> Spool:
        deadline = time.monotonic() + LOCK_PATIENCE
        while True:
            try:
                return Spool(
                    on_this_host(self._settings.spool),
                    self._settings.table,
                    self._settings.retain,
                    int(self._settings.max_bytes * RETAINED_PART),
                    self._log,
                )
            except SpoolInUse:
                if time.monotonic() >= deadline or self._stopped.wait(0.1):
                    raise

    def _set_up(self, spool: Spool) -> None:
        """Make what works on the spool, and its threads."""
        settings = self._settings
        abort = settings.on_decode_failure == "abort"
        drain = settings.drain
        self._prepare(spool)
        self._dispatcher = Dispatcher(
            spool,
            settings.sinks,
            self._transport,
            settings.window_bytes,
            abort,
            drain.absent_sinks if drain else (),
            self._paused,
            self._journal,
        )
        self._gaps = GapLog(spool.transaction, settings.table)
        self._receiver = self._make_receiver(self._source, spool, self._dispatcher, self._gaps)
        self._thread("dispatch", self._dispatch)
        if drain:
            self._dispatcher.replay()
        self._spool = spool
        if self._log is not None and self._partner is not None:
            self._replicator = Replicator(
                spool,
                self._log,
                *self._partner,
                linger=settings.limits.linger,
                gaps=GapLog(spool.transaction, settings.table),
                committed=self._dispatcher.notify,
                superseded=self._dispatcher.supersede,
            )
            self._thread("replicate", self._replicator.run)
        receiver = self._receiver
        if self._intake:
            self._thread("receive", receiver.run)
            if self._healer is not None:
                self._thread("heal", self._healer.run)
        else:
            receiver.state = "stopped"
            self._thread("release", lambda: receiver.release(self._stopped))

    def _make_receiver(
        self, source: Source | PullSource, spool: Spool, dispatcher: Dispatcher, gaps: GapLog
    ) -> Receiver | Reader:
        """What receives; and for a source that only tells of what is new, what heals its gaps."""
        settings = self._settings
        if isinstance(source, PullSource):
            return Reader(settings, source, spool, dispatcher.notify, dispatcher.drop, gaps, self._journal)
        receiver = Receiver(
            settings,
            source,
            spool,
            dispatcher.notify,
            dispatcher.drop,
            gaps,
            self._before(spool),
            self._journal,
        )
        self._healer = Healer(settings, source, spool, gaps, receiver.continuity, receiver.handover)
        return receiver

    def _before(self, spool: Spool) -> list[Before]:
        """What was before this spool was made, and is not in it."""
        found = [
            Before(f"the spool was damaged: {damage.why}", damage.time, f"it is kept as {damage.file}")
            for damage in spool.damages()[-1:]
        ]
        if (before := self._predecessor) is not None:
            found.append(Before(before.cause, before.epoch / 1000, before.note))
        return found

    def _prepare(self, spool: Spool) -> None:
        """Note in the spool what its place among other spools of the table means."""
        settings, before = self._settings, self._predecessor
        if settings.drain:
            if settings.drain.last_epoch is not None:
                for feed in spool.feeds():
                    later = Position(settings.drain.last_epoch + 1)
                    spool.freeze(feed, Frozen(later, RECEIVED_ELSEWHERE))
            return
        spool.join(settings.sinks, newest=settings.new_sinks == "newest")
        for feed in spool.feeds():
            frozen = spool.frozen(feed)
            if frozen and frozen.why == RECEIVED_ELSEWHERE:  # the table is back
                spool.resume(feed)
        if before is not None and before.epoch > spool.last_epoch():
            gaps = GapLog(spool.transaction, settings.table)
            log.warning("%s: %s; receiving here", settings.table, before.cause)
            gap = gaps.open(before.cause, before.heard, time.time())
            gaps.close(gap, "unhealed", None, before.note)
            spool.succeed(settings.table, before.epoch, before.topics)

    def _dispatch(self) -> None:
        assert self._dispatcher is not None
        self._dispatcher.run()
        if self._dispatcher.stale and not self._stopped.is_set():
            # Nobody may be left who could end this process, and its spool is waited for.
            threading.Thread(target=self.stop, daemon=True).start()

    def _thread(self, name: str, work: Callable[[], None]) -> None:
        def run() -> None:
            about(self._settings.table)
            try:
                work()
            except Exception as error:  # shown by status, upon which the supervisor starts the monitor afresh
                log.exception("%s: the %s thread failed", self._settings.table, name)
                self._failure = f"{type(error).__name__}: {error}"
                self._fatal = isinstance(error, (SpoolDamaged, MonitorTooLarge))

        thread = threading.Thread(target=run, name=f"{self._settings.table}-{name}", daemon=True)
        self._threads[name] = thread
        thread.start()

    @property
    def spool(self) -> Spool:
        """Raises :class:`SpoolNotOpen` while it is not open."""
        if self._spool is None:
            raise SpoolNotOpen("the spool is not open yet")
        return self._spool

    @property
    def dispatcher(self) -> Dispatcher:
        """Raises :class:`SpoolNotOpen` while the spool is not open."""
        if self._dispatcher is None:
            raise SpoolNotOpen("the spool is not open yet")
        return self._dispatcher

    @property
    def receiving(self) -> bool:
        """Whether frames may still be committed to the spool. True until it is open: nobody knows what it holds."""
        if self._failure is not None:
            return False
        return self._receiver is None or self._receiver.state != "stopped"

    @property
    def pending(self) -> int:
        """Records in the spool that some sink does not have yet."""
        return 0 if self._dispatcher is None else self._dispatcher.pending

    @property
    def stuck(self) -> bool:
        """Whether waiting cannot make :attr:`pending` less."""
        return self._dispatcher is not None and self._dispatcher.stuck

    def pause(self, sinks: Iterable[str]) -> int:
        """Deliver nothing more to `sinks`; see :meth:`Dispatcher.pause`."""
        self._paused = tuple(sinks)
        return self.dispatcher.pause(sinks)

    def thaw(self) -> bool:
        """Let the table go on if an alteration froze it. Returns whether it was frozen."""
        return self._receiver is not None and self._receiver.resume()

    def stop_intake(self, ending: bool = False) -> None:
        """Stop receiving; go on delivering. `ending`: the next start of the pipeline reads again what was done."""
        self._intake = False
        if self._healer is not None:
            self._healer.stop()
        if self._receiver is not None:
            self._receiver.stop(ending)

    def reconcile(self, timeout: float = 60.0) -> SourceAccount:
        """Audit the table now, and fetch what is missing; returns the account then, or at the timeout in seconds.

        Raises :class:`SpoolNotOpen` while the spool is not open.
        """
        if self._healer is None:
            return self.gaps.account()  # a source that is asked gives all that it has anyway
        return self._healer.reconcile(timeout, lambda: self._dropped)

    @property
    def _dropped(self) -> bool:
        return self._receiver is not None and self._receiver.state == "dropped"

    @property
    def gaps(self) -> GapLog:
        """Raises :class:`SpoolNotOpen` while the spool is not open."""
        if self._gaps is None:
            raise SpoolNotOpen("the spool is not open yet")
        return self._gaps

    def finish_intake(self) -> None:
        """Stop receiving, and wait until what came is on disk."""
        self._stopped.set()
        self.stop_intake()
        self._join("open")  # which may start the others
        self._join("receive")
        self._join("heal")
        self._join("release")
        if self._replicator is not None:
            self._replicator.stop()
        self._join("replicate")

    def stop(self) -> None:
        """Stop receiving and delivering, save cursors, release the spool."""
        self.finish_intake()
        if self._dispatcher is not None:
            self._dispatcher.stop()
        self._join("dispatch")
        if self._spool is not None:
            self._spool.close()

    def _join(self, name: str) -> None:
        if name in self._threads:
            self._threads[name].join(timeout=JOIN_TIMEOUT)

    def status(self) -> dict[str, Any]:
        """State, counts since the start, and the lanes."""
        receiver, dispatcher, spool = self._receiver, self._dispatcher, self._spool
        stale = dispatcher is not None and dispatcher.stale
        if self._failure is not None or stale:
            problem = self._failure or "a newer monitor owns the table"
            return {"state": "failed", "problem": problem, "fatal": self._fatal}
        if self._stopped.is_set():
            return {"state": "stopped", "problem": None}
        if receiver is None or dispatcher is None or spool is None:
            return {"state": "starting", "problem": None}
        return {
            "state": "frozen" if receiver.frozen and receiver.state == "receiving" else receiver.state,
            "problem": receiver.problem or receiver.frozen or _set_aside(spool),
            "epoch": receiver.epoch,
            "received": receiver.received,
            "last_received": receiver.last_received,
            "reconnects": receiver.reconnects,
            "spool_bytes": spool.bytes,
            "dead_letters": spool.dead_letters(),
            "standby": self._replicator.status() if self._replicator is not None else None,
            "topics": spool.topics(),
            # Of a drainer: whether it has delivered all that may be delivered.
            "drained": bool(self._settings.drain)
            and dispatcher.done
            and not spool.in_doubt(self._settings.table),
            "paused": sorted(dispatcher.paused),
            "dropped": sum(account.dropped for account in spool.accounts()),
            "lanes": [asdict(lane) for lane in dispatcher.report()],
            "progress": receiver.progress,
            **(self._healer.report() if self._healer else {**self.gaps.report(), "catch_up": None}),
        }

    def story(self, record: BlockId) -> Story:
        """What is known of `record`. Raises :class:`SpoolNotOpen` while the spool is not open."""
        lanes = self.dispatcher.report()
        return tell(record, self.spool, self.gaps, self._journal, lanes, self._settings.sinks)

    def conservation(self) -> dict[str, Any]:
        """What became of every record at every sink, counted afresh, and what is known of the source."""
        return {
            "accounts": [account.shown() for account in self.spool.audit()],
            "source": {
                **_shown(self.gaps.account()),
                "audits": self._healer is not None and not self._dropped,
                "dropped": self._dropped,
            },
            "gaps": [asdict(gap) for gap in self.gaps.latest(GAPS) if gap.state != "healed"],
        }


def _shown(source: SourceAccount) -> dict[str, Any]:
    return {**asdict(source), "expected": source.expected}


def _set_aside(spool: Spool) -> str | None:
    """Tell of a damaged database as long as it is there."""
    for damage in reversed(spool.damages()):
        if (spool.directory / damage.file).exists():
            return (
                f"a damaged spool was set aside ({damage.why}): {spool.directory / damage.file}; what it held and was"
                " not delivered is missing; move it away when you have looked at it"
            )
    return None
