"""Decoders that were taken out of the pool: they finish what they have begun, then they end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError

log = logging.getLogger(__name__)

#: Seconds allowed to them for what they have begun, and between two questions whether they have finished it.
TIMEOUT = 30.0
ASK_INTERVAL = 0.1
LONGEST_INTERVAL = 1.0


class Leaving:
    """Those of one pipeline, name -> handle.

    Args:
        lock: held by who changes :attr:`handles`.
        ask: makes a call to each who sends blocks, name -> ObjectRef, whose answer is how many of its blocks are
            being decoded outside the pool; None while not all can be asked.
    """

    def __init__(self, lock: threading.RLock, ask: Callable[[], Mapping[str, Any] | None]) -> None:
        self.handles: dict[str, Any] = {}
        self._lock = lock
        self._ask = ask

    def see_off(self, handles: Mapping[str, Any]) -> threading.Thread:
        """Let these leave; returns the thread that ends when they have."""
        with self._lock:
            self.handles |= handles
        thread = threading.Thread(target=self._run, args=(dict(handles),), name="leaving", daemon=True)
        thread.start()
        return thread

    def take_back(self, name: str) -> None:
        """It is wanted again, and does not leave."""
        with self._lock:
            self.handles.pop(name, None)

    def _run(self, leaving: dict[str, Any]) -> None:
        if not self._idle():
            log.warning("%s: ended at work; what they had goes to others", ", ".join(leaving))
        with self._lock:
            for name, handle in leaving.items():
                if self.handles.get(name) is handle:
                    del self.handles[name]
                    ray.kill(handle)

    def _idle(self) -> bool:
        """Wait until nobody has a block there. Returns whether it came to that in time."""
        deadline, interval = time.monotonic() + TIMEOUT, ASK_INTERVAL
        while time.monotonic() < deadline:
            calls = self._ask()
            if calls is not None and not any(_count(call, deadline) for call in calls.values()):
                return True
            time.sleep(interval)
            interval = min(LONGEST_INTERVAL, interval * 1.5)
        return False


def _count(call: Any, deadline: float) -> int:
    """The answer; 0 of one that died, for which nobody decodes any more."""
    try:
        return int(ray.get(call, timeout=max(0.1, deadline - time.monotonic())))
    except GetTimeoutError:
        return 1
    except RayError:
        return 0
