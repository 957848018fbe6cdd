"""How long a decoder has worked, what it works on now included: a block may take longer than who asks can wait."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Busy:
    """Seconds of work. One thread works, others may ask.

    Args:
        clock: gives seconds, of any origin.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        #: (seconds of finished work, when the work in progress began); one value, so that nobody sees half a change.
        self._state: tuple[float, float | None] = (0.0, None)

    @contextmanager
    def work(self) -> Iterator[None]:
        """What is done within counts, also if it fails."""
        self._state = (self._state[0], self._clock())
        try:
            yield
        finally:
            self._state = (self._seconds(self._clock()), None)

    def report(self) -> dict[str, float]:
        """``clock`` and the ``busy_seconds`` as of then, so that the difference of two reports is a share."""
        now = self._clock()
        return {"clock": now, "busy_seconds": self._seconds(now)}

    def _seconds(self, now: float) -> float:
        done, began = self._state
        return done if began is None else done + max(0.0, now - began)
