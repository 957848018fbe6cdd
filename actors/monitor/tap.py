"""Lets people see blocks as they pass: keeps a few of the latest while somebody looks, and never makes anything wait.

Lossy by design. Whoever reads is told how many records it has missed.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from actors.block import Block
from actors.monitor.layout import Position

#: Payload bytes and blocks kept at the most; a block that is larger is kept alone.
BYTES = 2 << 20
BLOCKS = 256

#: Seconds after a read for which blocks are kept for the next one.
LEASE = 5.0


@dataclass(frozen=True, slots=True)
class Passed:
    """Blocks in the order in which they were sent, and how many records before them were missed.

    `seen` is what to ask with the next time.
    """

    blocks: tuple[Block, ...]
    missed: int
    seen: int


class Tap:
    """Where blocks pass. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._until = 0.0
        #: Each with the number of records that had passed before it while somebody looked.
        self._kept: deque[tuple[int, Block]] = deque()
        self._bytes = 0
        self._count = 0
        self._last: dict[str, Position] = {}

    def passes(self, block: Block) -> None:
        """`block` is being sent. What is sent again, or to one more sink, is not shown again."""
        if not self._until:
            return
        at = Position(block.epoch, block.offset)
        with self._lock:
            if self._clock() >= self._until:
                self._forget()
            elif at >= self._last.get(block.feed, Position()):
                self._last[block.feed] = Position(block.epoch, block.end)
                self._kept.append((self._count, block))
                self._count += block.count
                self._bytes += len(block.payload)
                while len(self._kept) > 1 and (self._bytes > BYTES or len(self._kept) > BLOCKS):
                    self._bytes -= len(self._kept.popleft()[1].payload)

    def _forget(self) -> None:
        self._until, self._bytes = 0.0, 0
        self._kept.clear()
        self._last.clear()

    def read(self, seen: int | None = None) -> Passed:
        """What has passed since the read that gave `seen`; None begins to look, from now on."""
        with self._lock:
            now = self._clock()
            if now >= self._until:
                self._forget()
            self._until = now + LEASE
            if seen is None or seen > self._count:  # of another process's life
                return Passed((), 0, self._count)
            found = [(number, block) for number, block in self._kept if number >= seen]
            first = found[0][0] if found else self._count
            return Passed(tuple(block for _, block in found), first - seen, self._count)
