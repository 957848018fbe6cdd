"""The rules of batching: records in, chunks within exact limits out, when they are due. Neither thread nor clock.

What is done with the chunks is for ``batching.py``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Record = TypeVar("Record")


class BatchingError(Exception):
    """Base of what :class:`Batcher` raises."""


class BufferFull(BatchingError):
    """There is no room for these records now; none of them was added."""


class RecordTooLarge(BatchingError, ValueError):
    """No batch, or not the whole buffer, can hold this; none of the records was added."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a batch and of the buffer.

    Attributes:
        records: most records in a batch.
        bytes: most bytes of a batch, its envelope included.
        linger: seconds that a record may wait for others to share its batch.
        buffer_bytes: most bytes of records that are not delivered yet.
    """

    records: int = 5000
    bytes: int = 1 << 20
    linger: float = 0.05
    buffer_bytes: int = 16 << 20


@dataclass(slots=True)
class Chunk(Generic[Record]):
    """Consecutive records that are sent at once; `first` is the number of the first, `size` in bytes as sent."""

    first: int
    due: float
    size: int
    records: list[Record] = field(default_factory=list)
    #: Bytes of the records alone, which they occupy in the buffer.
    held: int = 0


class Accumulator(Generic[Record]):
    """Records on their way into chunks, in the order in which they were added.

    Args:
        limits: bounds.
        size: bytes of a record in a batch.
        envelope: bytes of a batch beside its records.
        separator: bytes between two records.
    """

    def __init__(
        self, limits: Limits, size: Callable[[Record], int], envelope: int = 0, separator: int = 0
    ) -> None:
        self.limits = limits
        self._size = size
        self._envelope = envelope
        self._separator = separator
        self._chunks: deque[Chunk[Record]] = deque()
        self.held = 0
        #: Records ever added, and those delivered or rejected.
        self.added = 0
        self.settled = 0

    def add(self, records: Sequence[Record], now: float) -> int:
        """Add all of `records` or none; returns the number of the first.

        Raises :class:`RecordTooLarge` for what will never fit, :class:`BufferFull` for what does not fit now.
        """
        sizes = [self._size(record) for record in records]
        for place, size in enumerate(sizes):
            if self._envelope + size > self.limits.bytes:
                raise RecordTooLarge(
                    f"record {place} has {size:,} bytes, and a batch holds {self.limits.bytes - self._envelope:,}"
                )
        total = sum(sizes)
        if total > self.limits.buffer_bytes:
            raise RecordTooLarge(
                f"{total:,} bytes at once, and the buffer holds {self.limits.buffer_bytes:,}; add fewer at a time"
            )
        if self.held + total > self.limits.buffer_bytes:
            raise BufferFull(
                f"{self.held:,} of {self.limits.buffer_bytes:,} bytes wait to be delivered; add it again later"
            )
        first = self.added
        for record, size in zip(records, sizes, strict=True):
            chunk = self._chunks[-1] if self._chunks else None
            if chunk is None or not self._fits(chunk, size):
                chunk = Chunk(self.added, now + self.limits.linger, self._envelope)
                self._chunks.append(chunk)
            chunk.size += size + (self._separator if chunk.records else 0)
            chunk.held += size
            chunk.records.append(record)
            self.added += 1
        self.held += total
        return first

    def _fits(self, chunk: Chunk[Record], size: int) -> bool:
        return (
            len(chunk.records) < self.limits.records
            and chunk.size + self._separator + size <= self.limits.bytes
        )

    def due(self) -> float | None:
        """When :meth:`take` will give a chunk, in the time of :meth:`add`; None: when something was added."""
        if not self._chunks:
            return None
        first = self._chunks[0]
        full = len(self._chunks) > 1 or not self._fits(first, 0)
        return float("-inf") if full else first.due

    def take(self, now: float, *, hurry: bool = False) -> Chunk[Record] | None:
        """The next chunk that is full or has lingered long enough; with `hurry`, the next one as it is."""
        due = self.due()
        return self._chunks.popleft() if due is not None and (hurry or due <= now) else None

    def settle(self, chunk: Chunk[Record]) -> None:
        """A chunk that was taken has been delivered, or handed back."""
        self.held -= chunk.held
        self.settled += len(chunk.records)
