"""A table's monitor: spool, receiver and dispatcher, and the threads they run on. No Ray."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from actors.errors import SpoolError, SpoolInUse
from actors.monitor.dispatch import Dispatcher
from actors.monitor.kinetica import KineticaTable
from actors.monitor.receiver import Receiver
from actors.monitor.settings import MonitorSettings
from actors.monitor.source import Source
from actors.monitor.spool import Spool
from actors.monitor.transport import Transport

log = logging.getLogger(__name__)

#: Seconds that a thread may take to end: the last rows are received first.
JOIN_TIMEOUT = 25.0

#: Seconds to wait for a spool whose former owner is still dying.
LOCK_PATIENCE = 10.0


class Monitor:
    """Receives one table and delivers it. :meth:`start` returns at once; :meth:`status` tells how it goes."""

    def __init__(self, settings: MonitorSettings, transport: Transport, source: Source | None = None) -> None:
        self._settings = settings
        self._transport = transport
        self._source = source or KineticaTable(settings)
        self._spool: Spool | None = None
        self._receiver: Receiver | None = None
        self._dispatcher: Dispatcher | None = None
        self._threads: dict[str, threading.Thread] = {}
        self._failure: str | None = None
        self._intake = True
        self._stopped = threading.Event()

    def start(self, intake: bool = True) -> None:
        """Open the spool, deliver what it holds, and receive unless `intake` is false."""
        self._intake = intake
        self._thread("open", self._open)

    def _open(self) -> None:
        deadline = time.monotonic() + LOCK_PATIENCE
        while True:
            try:
                spool = Spool(self._settings.spool)
                break
            except SpoolInUse:
                if time.monotonic() >= deadline or self._stopped.wait(0.1):
                    raise
        settings = self._settings
        abort = settings.on_decode_failure == "abort"
        self._dispatcher = Dispatcher(spool, settings.sinks, self._transport, settings.window_bytes, abort)
        self._receiver = Receiver(settings, self._source, spool, self._dispatcher.notify)
        self._spool = spool
        self._thread("dispatch", self._dispatcher.run)
        if self._intake:
            self._thread("receive", self._receiver.run)
        else:
            self._receiver.state = "stopped"
            receiver = self._receiver
            self._thread("release", lambda: receiver.release(self._stopped))

    def _thread(self, name: str, work: Callable[[], None]) -> None:
        def run() -> None:
            try:
                work()
            except Exception as error:  # shown by status, upon which the supervisor starts the monitor afresh
                log.exception("%s: the %s thread failed", self._settings.table, name)
                self._failure = f"{type(error).__name__}: {error}"

        thread = threading.Thread(target=run, name=f"{self._settings.table}-{name}", daemon=True)
        self._threads[name] = thread
        thread.start()

    @property
    def spool(self) -> Spool:
        """Raises :class:`SpoolError` while it is not open."""
        if self._spool is None:
            raise SpoolError("the spool is not open yet; try again")
        return self._spool

    @property
    def dispatcher(self) -> Dispatcher:
        """Raises :class:`SpoolError` while the spool is not open."""
        if self._dispatcher is None:
            raise SpoolError("the spool is not open yet; try again")
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

    def thaw(self) -> bool:
        """Let the table go on if an alteration froze it. Returns whether it was frozen."""
        return self._receiver is not None and self._receiver.resume()

    def stop_intake(self) -> None:
        """Stop receiving; go on delivering."""
        self._intake = False
        if self._receiver is not None:
            self._receiver.stop()

    def stop(self) -> None:
        """Stop receiving and delivering, save cursors, release the spool."""
        self._stopped.set()
        self.stop_intake()
        self._join("open")  # which may start the others
        self._join("receive")
        self._join("release")
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
            return {"state": "failed", "problem": self._failure or "a newer monitor owns the table"}
        if self._stopped.is_set():
            return {"state": "stopped", "problem": None}
        if receiver is None or dispatcher is None or spool is None:
            return {"state": "starting", "problem": None}
        return {
            "state": "frozen" if receiver.frozen and receiver.state == "receiving" else receiver.state,
            "problem": receiver.problem or receiver.frozen,
            "epoch": receiver.epoch,
            "received": receiver.received,
            "last_received": receiver.last_received,
            "reconnects": receiver.reconnects,
            "spool_bytes": spool.bytes,
            "dead_letters": spool.dead_letters(),
            "lanes": [asdict(lane) for lane in dispatcher.report()],
        }
