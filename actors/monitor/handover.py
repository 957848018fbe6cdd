"""Where a catch-up and the receiving thread meet: rows are handed over, and it is told when all has been received.

The receiving thread never waits here; the catch-up does, and is told when the stream ends meanwhile.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from actors.block import BlockId
from actors.monitor.source import Described, SourceLost

#: Seconds that a catch-up waits for the receiving thread before it looks whether it should go on.
PATIENCE = 60.0


@dataclass(slots=True)
class Recovered:
    """Rows read from the table, to be appended as if just received, `also` in the same transaction.

    `done` gets the blocks that they became, or None if rows of their type cannot be appended now.
    """

    rows: Sequence[bytes]
    described: Described
    also: Callable[[sqlite3.Connection], object]
    done: Future[list[BlockId] | None] = field(default_factory=Future)


class Handover:
    """One side is the receiving thread (:meth:`open` to :meth:`take`), the other a catch-up."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        #: Called when a stream has opened.
        self.opened: Callable[[], None] = lambda: None
        self._wake: Callable[[], None] | None = None
        self._wanted: float | None = None
        self._settled = 0.0
        self._waiting: Recovered | None = None

    # -- the receiving thread -----------------------------------------------------------------------------------

    def open(self, wake: Callable[[], None]) -> None:
        """A stream is open; `wake` makes its thread look here soon."""
        with self._changed:
            self._wake, self._settled = wake, 0.0
            self._changed.notify_all()
        self.opened()

    def close(self) -> None:
        """The stream ended."""
        with self._changed:
            self._wake = None
            waiting, self._waiting = self._waiting, None
            self._changed.notify_all()
        if waiting is not None:
            waiting.done.set_exception(SourceLost("the stream ended"))

    def wants(self, at: float) -> bool:
        """Whether somebody waits for all that came before `at` (monotonic) to be durable."""
        with self._changed:
            return self._wanted is not None and at >= self._wanted

    def settle(self, at: float) -> None:
        """All that came before `at` is durable."""
        with self._changed:
            self._settled, self._wanted = at, None
            self._changed.notify_all()

    def take(self) -> Recovered | None:
        """What was handed over."""
        with self._changed:
            taken, self._waiting = self._waiting, None
            return taken

    # -- the catch-up -------------------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether a stream is open."""
        return self._wake is not None

    def settled(self, at: float) -> None:
        """Wait until all is durable that had come by `at` (monotonic). Raises :class:`SourceLost`."""
        deadline = time.monotonic() + PATIENCE
        with self._changed:
            while self._settled < at:
                if self._wake is None or time.monotonic() > deadline:
                    raise SourceLost("the stream ended" if self._wake is None else "rows come too fast")
                self._wanted = at
                left = at - time.monotonic()
                if left <= 0:
                    self._wake()
                self._changed.wait(left if left > 0 else 1.0)

    def give(self, recovered: Recovered) -> list[BlockId] | None:
        """Have rows appended; the blocks that they became. Raises :class:`SourceLost`, TimeoutError."""
        with self._changed:
            if self._wake is None:
                raise SourceLost("the stream ended")
            self._waiting = recovered
            self._wake()
        try:
            return recovered.done.result(PATIENCE)
        except TimeoutError:
            with self._changed:
                if self._waiting is recovered:
                    self._waiting = None
                    raise
        # It was taken: what is under way is not to be given again.
        return recovered.done.result(PATIENCE)
