"""Whether a table may go on receiving: the bound of its spool in bytes, a floor of free disk, and what gives way.

Also the bound of the process's memory, above which it must start afresh.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import psutil

from actors.errors import MonitorTooLarge, SpoolError
from actors.monitor.disk import free_bytes
from actors.monitor.settings import MonitorSettings
from actors.monitor.spool import Spool

log = logging.getLogger(__name__)

#: A full spool has room again when it is below this part of its bound, and above the floor by the rest.
RESUME_BELOW = 0.8

#: Seconds between two looks at the disk.
LOOK_AGAIN = 1.0


class Room:
    """The room that one table has. Delivered blocks that are only retained give way first.

    Args:
        drop: deletes the oldest undelivered blocks, so many payload bytes or more, and returns how many; called where
            ``when_full`` is ``drop_oldest``.
    """

    def __init__(self, settings: MonitorSettings, spool: Spool, drop: Callable[[int], int]) -> None:
        self._settings = settings
        self._spool = spool
        self._drop = drop
        self._look_at = 0.0
        self._no_floor: str | None = None

    def full(self) -> str | None:
        """Why nothing more may be received, or None. Makes room first, where the policy is to.

        Raises :class:`MonitorTooLarge`.
        """
        return self._lacking(self._settings.max_bytes, self._settings.min_free)

    def regained(self) -> bool:
        """Whether a table that was paused may receive again: with something to spare."""
        self._look_at = 0.0
        spare = int(self._settings.min_free * (1.0 - RESUME_BELOW))
        lacking = self._lacking(int(self._settings.max_bytes * RESUME_BELOW), self._settings.min_free + spare)
        return lacking is None

    def _lacking(self, bound: int, floor: int) -> str | None:
        held = self._spool.bytes
        if held > bound and self._give_way(held - bound):
            held = self._spool.bytes
        if held > bound:
            return f"the spool holds {held:,} bytes, its bound is {self._settings.max_bytes:,}"
        if (now := time.monotonic()) >= self._look_at:
            self._look_at = now + LOOK_AGAIN
            self._check_memory()
            self._no_floor = self._floor(floor)
        return self._no_floor

    def _check_memory(self) -> None:
        """What ZeroMQ holds is bounded in messages only, of any size, and nothing else ever gives it back."""
        memory, bound = psutil.Process().memory_info(), self._settings.max_memory
        if (grown := memory.rss - memory.shared) > bound:
            raise MonitorTooLarge(
                f"the monitor of {self._settings.table} took {grown:,} bytes of memory, its bound is {bound:,}: it"
                " starts afresh; if that happens again, raise tuning.monitor_memory"
            )

    def _floor(self, floor: int) -> str | None:
        if not self._spool.room():
            return f"the disk of the spool {self._spool.directory} is full"
        free = self._free()
        if free < floor and self._give_way(floor - free):
            free = self._free()
        if free < floor:
            return f"the spool's disk has {free:,} bytes free, the floor is {self._settings.min_free:,}"
        return None

    def _free(self) -> int:
        # What was deleted stays in the file for what comes.
        return free_bytes(self._spool.directory) + self._spool.free_inside

    def _give_way(self, size: int) -> bool:
        """Delete `size` bytes, what every sink has first. Returns whether anything went."""
        try:
            before = self._spool.bytes
            self._spool.retention.prune(max(0, before - size))
            left = size - (before - self._spool.bytes)
            if left > 0 and self._settings.when_full == "drop_oldest":
                dropped = self._drop(left)
                log.error(
                    "%s: no room: dropped %d bytes of the oldest changes", self._settings.table, dropped
                )
            return self._spool.bytes < before
        except (SpoolError, TimeoutError) as error:
            log.warning("%s: no room could be made: %s", self._settings.table, error)
            return False
