"""The unit that travels: a block of consecutive records of one feed, and what identifies it.

Every record has an *origin*, ``pipeline/feed/epoch/offset``, given when it was received and never changed. A block
is a run of consecutive offsets of one feed within one epoch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

#: Kronos ticks per second: record times are integers of 100 ns since 1970.
TICKS_PER_SECOND = 10_000_000


#: The formats whose payload is a list of frames, one per record.
LISTED = ("avro", "json")


class BlockId(NamedTuple):
    """Identity of a block: its feed, and the epoch and offset of its first record. Sorts in feed order."""

    feed: str
    epoch: int
    offset: int


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive records of one feed.

    Attributes:
        feed: for example ``flights`` (inserts) or ``flights.deletes``.
        epoch: milliseconds since 1970 when the subscription opened; greater than any epoch before.
        offset: offset of the first record within the epoch; the others follow without a hole.
        count: number of records, at least 1.
        time: receive time of the first record in ticks of 100 ns since 1970; record ``i`` has ``time + i``. Times
            strictly increase over the records of a feed.
        format: what the payload is: the msgpack list of the frames, of which each is one bare Avro record (``avro``) or
            the text of one JSON object (``json``, see ``codec/rows.py``).
        schema: JSON text; of ``avro`` blocks ``{"definition": ..., "properties": ...}``, as the source described the
            records, of ``json`` blocks ``{"columns": ...}``, see ``row_types.py``, or ``{}``.
        payload: the records.
    """

    feed: str
    epoch: int
    offset: int
    count: int
    time: int
    format: str
    schema: str
    payload: bytes

    @property
    def id(self) -> BlockId:
        return BlockId(self.feed, self.epoch, self.offset)

    @property
    def end(self) -> int:
        """The offset after the last record."""
        return self.offset + self.count
