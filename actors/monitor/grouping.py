"""Groups received frames into blocks: by count, by bytes, and by a linger, each feed on its own.

A plain class without a clock: the caller passes the time in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgpack

from actors.block import TICKS_PER_SECOND, Block


@dataclass(frozen=True, slots=True)
class BlockLimits:
    """When an open block is closed: at so many records or payload bytes, or this long after its first record."""

    records: int = 20_000
    bytes: int = 1 << 20
    linger: float = 0.05  # seconds


class BlockBuilder:
    """Builds the blocks of one feed within one epoch.

    Args:
        feed: the feed's name.
        epoch: of this subscription.
        schema: the records' schema, as :class:`Block` carries it.
        limits: when to close a block.
        next_time: first receive time, in ticks, that this feed may still give; keeps times strictly increasing
            over restarts and when the clock steps back.
    """

    def __init__(
        self,
        feed: str,
        epoch: int,
        schema: str,
        limits: BlockLimits,
        next_time: int = 0,
        format: str = "avro",
    ) -> None:
        self.feed = feed
        self.epoch = epoch
        self.schema = schema  # may be changed while no block is open
        self._format = format
        self.next_offset = 0
        self.next_time = next_time
        self._limits = limits
        self._frames: list[bytes] = []
        self._bytes = 0
        self._opened = 0.0

    def add(self, frames: Sequence[bytes], now: float) -> list[Block]:
        """Take `frames` received at `now` (seconds since 1970); return the blocks that are now full.

        A block may exceed the byte limit by the frames of one call's slice, never the record limit.
        """
        full: list[Block] = []
        if not self._frames:
            self._opened = now
        start = 0
        while (room := self._limits.records - len(self._frames)) <= len(frames) - start:
            self._frames.extend(frames[start : start + room])
            start += room
            full.append(self._close())
            self._opened = now
        rest = frames[start:] if start else frames  # a copy would cost single frames half as much again
        self._frames.extend(rest)
        self._bytes += len(rest[0]) if len(rest) == 1 else sum(map(len, rest))
        if self._bytes >= self._limits.bytes:
            full.append(self._close())
        return full

    def due(self, now: float) -> Block | None:
        """The open block, closed, if its linger has passed, or the clock has stepped back behind its opening."""
        waits = self._opened <= now < self._opened + self._limits.linger
        return self._close() if self._frames and not waits else None

    def flush(self) -> Block | None:
        """The open block, closed, if there is one."""
        return self._close() if self._frames else None

    @property
    def deadline(self) -> float | None:
        """When the open block becomes due, in seconds since 1970; None when nothing is open."""
        return self._opened + self._limits.linger if self._frames else None

    def _close(self) -> Block:
        time = max(self.next_time, int(self._opened * TICKS_PER_SECOND))
        count = len(self._frames)
        payload = msgpack.packb(self._frames)
        block = Block(
            self.feed, self.epoch, self.next_offset, count, time, self._format, self.schema, payload
        )
        self.next_offset += count
        self.next_time = time + count
        self._frames = []
        self._bytes = 0
        return block
