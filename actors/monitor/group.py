"""The monitors of one process: one table's, or those of many small tables. No Ray.

What tables of one process share is the process: its memory, its death, and the database of their spools. Everything
else is a table's own, so that one of them can fail, be exchanged or go while the others go on.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from actors.errors import NotAttached, SpoolNotOpen
from actors.monitor.kinetica import KineticaTable
from actors.monitor.monitor import Monitor
from actors.monitor.replicator import Partner
from actors.monitor.settings import MonitorSettings, Predecessor
from actors.monitor.standby import Standby
from actors.monitor.transport import Transport

log = logging.getLogger(__name__)

#: Monitors that are stopped at the same time when the process ends: each waits for its last rows.
STOPPING = 16


class PooledTransport(Transport, Protocol):
    """A transport that is told how many decoders there are."""

    def set_decoders(self, count: int) -> int:
        """Use decoders 0 to `count` - 1. Returns how many blocks are still being decoded by others."""


#: Makes the transport of a table's monitor from its settings, incarnation and number of decoders.
MakeTransport = Callable[[MonitorSettings, int, int], PooledTransport]


@dataclass(slots=True)
class _Seat:
    """One table's place: a monitor, or a standby, which becomes one when it is promoted."""

    settings: MonitorSettings
    incarnation: int
    digest: str
    transport: PooledTransport | None = None
    monitor: Monitor | None = None
    standby: Standby | None = None
    #: Why it could not be started.
    problem: str | None = None

    def status(self) -> dict[str, Any]:
        """What it says of itself; that it has failed also if it cannot even say that: the others go on."""
        identity = {"digest": self.digest, "incarnation": self.incarnation}
        running = self.monitor or self.standby
        if self.problem is not None or running is None:
            return {**identity, "state": "failed", "problem": self.problem}
        try:
            return {**identity, **running.status()}
        except Exception as error:
            log.exception("%s: it cannot tell how it is", self.settings.table)
            return {**identity, "state": "failed", "problem": _line(error)}

    def stop(self) -> None:
        if self.monitor is not None:
            self.monitor.stop()
        elif self.standby is not None:
            self.standby.close()


class MonitorGroup:
    """The monitors and standbys of the tables that this process has. Thread-safe; nothing here waits for a table."""

    def __init__(self, make_transport: MakeTransport) -> None:
        self._make_transport = make_transport
        self._seats: dict[str, _Seat] = {}
        self._lock = threading.Lock()
        self._promoting = threading.Lock()

    # -- coming and going ---------------------------------------------------------------------------------------

    def start(
        self,
        settings: MonitorSettings,
        incarnation: int,
        digest: str,
        decoders: int,
        intake: bool = True,
        predecessor: Predecessor | None = None,
        paused: Sequence[str] = (),
    ) -> None:
        """Start the monitor of a table, see :meth:`Monitor.start`; `digest` is that of its settings.

        To the sinks `paused` nothing is delivered.

        One of an earlier incarnation gives way. With one of this or a later one nothing happens. One that cannot be
        made has the state ``failed``.
        """
        with self._lock:
            if self._give_way(settings.table, incarnation):
                seat = self._seats[settings.table] = _Seat(settings, incarnation, digest)
                try:
                    seat.transport = self._make_transport(settings, incarnation, decoders)
                    seat.monitor = Monitor(settings, seat.transport, paused=paused)
                    seat.monitor.start(intake, predecessor)  # which waits for the spool
                except Exception as error:  # such as those of a source that cannot be made
                    log.exception("%s: it cannot be started", settings.table)
                    seat.problem = _line(error)

    def stand_by(self, settings: MonitorSettings, incarnation: int, digest: str) -> None:
        """Begin as the standby of a table; as :meth:`start` otherwise."""
        with self._lock:
            if self._give_way(settings.table, incarnation):
                standby = Standby(settings, KineticaTable(settings))
                self._seats[settings.table] = _Seat(settings, incarnation, digest, standby=standby)

    def _give_way(self, table: str, incarnation: int) -> bool:
        """End what `table` has of an incarnation before; returns whether there is room now."""
        seat = self._seats.get(table)
        if seat is None or seat.incarnation >= incarnation:
            return seat is None
        threading.Thread(target=seat.stop, name=f"{table}-end", daemon=True).start()
        return True

    def promote(
        self,
        table: str,
        incarnation: int,
        decoders: int,
        intake: bool,
        partner: Partner,
        paused: Sequence[str] = (),
        predecessor: Predecessor | None = None,
    ) -> None:
        """Make the standby of `table` its monitor, whose standby is `partner`. On a monitor it does nothing.

        `predecessor` as in :meth:`Monitor.start`: the last one that was neither of the two.
        """
        with self._promoting:
            seat = self._seat(table)
            if seat.monitor is not None:
                return
            assert seat.standby is not None
            seat.incarnation = incarnation
            source = seat.standby.take_over(incarnation)
            seat.transport = self._make_transport(seat.settings, incarnation, decoders)
            monitor = Monitor(seat.settings, seat.transport, paused=paused)
            monitor.pair(source, partner, incarnation)
            monitor.start(intake, predecessor)
            seat.monitor = monitor

    def end(self, table: str, incarnation: int) -> None:
        """Have no more what `table` has of this or an earlier incarnation; what is left stays in the spool.

        Returns when that is released.
        """
        with self._lock:
            seat = self._seats.get(table)
            if seat is None or seat.incarnation > incarnation:
                return
            del self._seats[table]
        seat.stop()

    def end_others(self, tables: Iterable[str], incarnation: int) -> None:
        """End the tables that are not among `tables` as :meth:`end` does."""
        for table in set(self.tables) - set(tables):
            self.end(table, incarnation)

    def stop(self) -> None:
        """End all tables."""
        with ThreadPoolExecutor(STOPPING) as threads:
            list(threads.map(lambda seat: seat.stop(), self._all()))

    def finish_intake(self) -> None:
        """Stop receiving, and wait until what came is on disk."""
        monitors = [seat.monitor for seat in self._all() if seat.monitor is not None]
        with ThreadPoolExecutor(STOPPING) as threads:
            list(threads.map(Monitor.finish_intake, monitors))

    # -- all of them, or some -----------------------------------------------------------------------------------

    def _all(self) -> list[_Seat]:
        with self._lock:
            return list(self._seats.values())

    def _some(self, tables: Iterable[str]) -> Iterator[tuple[str, _Seat]]:
        with self._lock:
            found = [(table, self._seats.get(table)) for table in tables]
        return ((table, seat) for table, seat in found if seat is not None)

    @property
    def tables(self) -> list[str]:
        """The tables that are here."""
        with self._lock:
            return list(self._seats)

    @property
    def monitoring(self) -> bool:
        """Whether some table has its monitor here, not only a standby."""
        return any(seat.monitor is not None for seat in self._all())

    def set_decoders(self, count: int) -> int:
        """Use decoders 0 to `count` - 1. Returns how many blocks are still being decoded by others."""
        transports = [seat.transport for seat in self._all() if seat.transport is not None]
        return sum(transport.set_decoders(count) for transport in transports)

    def status(self, tables: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Table -> what its monitor or standby says of itself; tables that are not here are left out."""
        return {table: seat.status() for table, seat in self._some(tables)}

    def drain(self, tables: Sequence[str], ending: bool = False) -> dict[str, dict[str, Any]]:
        """Stop receiving these tables; `ending`, as the pipeline ends.

        For each that is here: whether it still receives, how many records are not delivered, and whether waiting
        cannot make them less.
        """
        return {table: _drain(seat.monitor, ending) for table, seat in self._some(tables)}

    # -- one of them --------------------------------------------------------------------------------------------

    def _seat(self, table: str) -> _Seat:
        if table not in self._seats:
            raise SpoolNotOpen("the monitor has only begun to start")
        return self._seats[table]

    def monitor(self, table: str) -> Monitor:
        """The monitor of `table`. Raises :class:`SpoolNotOpen` while there is none here."""
        seat = self._seat(table)
        if seat.monitor is None:
            raise SpoolNotOpen("the monitor is the standby")
        return seat.monitor

    def standby(self, table: str) -> Standby:
        """The standby of `table`. Raises :class:`NotAttached` while there is none here."""
        seat = self._seats.get(table)
        if seat is None or seat.standby is None:
            raise NotAttached("the standby has only begun to start")
        return seat.standby


def _line(error: Exception) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"


def _drain(monitor: Monitor | None, ending: bool) -> dict[str, Any]:
    if monitor is None:
        return {"receiving": True, "pending": 0, "stuck": False}  # not known yet
    monitor.stop_intake(ending)
    return {"receiving": monitor.receiving, "pending": monitor.pending, "stuck": monitor.stuck}
