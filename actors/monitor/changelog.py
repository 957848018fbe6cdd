"""What a spool's copy on another node still lacks: its transactions, as the statements that made them.

A copy that repeats the same statements in the same order holds the same: blocks, cursors, dead letters and whatever
else a spool may come to hold. While a copy is *required*, a block may be dispatched only once the copy has it, so
that whoever goes on from the copy knows everything that a sink may have seen.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

#: A statement and its values.
Change = tuple[str, Sequence[Any]]

#: Bytes of transactions kept for a copy that is slower than the spool. Beyond it the copy has to be made anew.
MAX_BYTES = 64 << 20

#: What does not: it need not be repeated.
_READING = ("SELECT", "COMMIT")


class RecordingConnection(sqlite3.Connection):
    """Keeps the statements that have succeeded in `changes`, savepoints among them, unless it is None."""

    changes: list[Change] | None = None

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        cursor = super().execute(sql, parameters)
        if self.changes is not None and not sql.lstrip().startswith(_READING):
            self.changes.append((sql, parameters))
        return cursor

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> sqlite3.Cursor:
        rows = list(parameters)
        cursor = super().executemany(sql, rows)
        if self.changes is not None:
            self.changes += [(sql, row) for row in rows]
        return cursor


class ChangeLog:
    """The transactions since :meth:`begin` that were not taken. Thread-safe.

    Attributes:
        overflowed: whether some had to be given up; only :meth:`begin` helps.
        size: bytes that wait to be taken.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self.overflowed = False
        self.size = 0
        self._max_bytes = max_bytes
        self._open = False
        self._required = False
        self._number = 0
        self._queue: deque[tuple[int, int, list[Change]]] = deque()
        #: Number of the transaction, feed, and place of each block that the copy does not have yet.
        self._waiting: deque[tuple[int, str, tuple[int, int]]] = deque()
        self._changed = threading.Condition()

    def begin(self) -> None:
        """Keep every transaction from the next one on."""
        with self._changed:
            self._clear()
            self._open = True

    def end(self) -> None:
        """Keep no more; no block waits any longer."""
        with self._changed:
            self._clear()
            self._open = self._required = False

    def _clear(self) -> None:
        self._queue.clear()
        self._waiting.clear()
        self.size, self.overflowed = 0, False

    def require(self) -> int:
        """Let blocks wait for :meth:`done` from now on; returns the number of the last transaction."""
        with self._changed:
            self._required = True
            return self._number

    def expect(self, blocks: Iterable[tuple[str, tuple[int, int]]]) -> None:
        """The next transaction adds `blocks`, the feed and place of each, other than was expected before."""
        with self._changed:
            while self._waiting and self._waiting[-1][0] > self._number:
                self._waiting.pop()
            if self._open:
                self._waiting.extend((self._number + 1, *block) for block in blocks)

    def add(self, changes: list[Change]) -> None:
        """Take a committed transaction."""
        with self._changed:
            if not self._open or not changes:
                return
            self._number += 1
            size = size_of(changes)
            self.size += size
            if self.size > self._max_bytes:
                self.overflowed = True
                self._queue.clear()
            if not self.overflowed:
                self._queue.append((self._number, size, changes))
            self._changed.notify()

    def take(self, max_bytes: int, timeout: float) -> tuple[list[Change], int]:
        """Changes of some transactions, and the number of the last of them; waits for one up to `timeout` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self.overflowed, timeout)
            taken: list[Change] = []
            size, number = 0, self._queue[0][0] - 1 if self._queue else self._number
            while self._queue and (not taken or size + self._queue[0][1] <= max_bytes):
                number, more, changes = self._queue.popleft()
                taken += changes
                size += more
            self.size -= size
            return taken, number

    def done(self, number: int) -> set[str]:
        """The copy has the transactions up to `number`; returns the feeds of their blocks."""
        feeds = set()
        with self._changed:
            while self._waiting and self._waiting[0][0] <= number:
                feeds.add(self._waiting.popleft()[1])
        return feeds

    def limit(self, feed: str) -> tuple[int, int] | None:
        """The place of the first block of `feed` that has to wait; None if none has."""
        with self._changed:
            if not self._required:
                return None
            return min((place for _, name, place in self._waiting if name == feed), default=None)


def size_of(changes: Iterable[Change]) -> int:
    """Bytes that changes take, about."""
    return sum(
        100 + sum(len(value) for value in values if isinstance(value, (bytes, str))) for _, values in changes
    )
