"""A decoded block: Arrow columns plus the origin of each row, and the records that did not decode."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from actors.block import BlockId

#: The column of events that somebody put: each the text of a JSON object with its ``@time``. No other is beside it.
EVENT_FIELD = pa.field("event", pa.large_string(), False, {b"tablecast.type": b"event"})


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that did not decode, or that a sink cannot take: its offset, the reason in one line, and the frame as
    received (``b""`` from a sink, which never saw it)."""

    offset: int
    reason: str
    frame: bytes


@dataclass(frozen=True, slots=True)
class Batch:
    """The rows of one block.

    Attributes:
        id: the block's identity.
        count: records in the block: rows, rejects and those filtered.
        time: receive time of the block's first record, in ticks of 100 ns since 1970.
        rows: the decoded rows in order.
        positions: int64, for each row its position in the block; None when every record is a row.
        rejects: records that did not decode, or that could not be transformed.
        size: bytes of the block as received.
        to: the stream, table or folder that the rows go to; None for that of the feed's name.
        filtered: records that the table's transform leaves out.
        frames: all records of the block as received, a msgpack list by position; None where no sink wants them.
    """

    id: BlockId
    count: int
    time: int
    rows: pa.RecordBatch
    positions: npt.NDArray[np.int64] | None
    rejects: tuple[Rejected, ...]
    size: int = 0
    to: str | None = None
    filtered: int = 0
    frames: bytes | None = None

    def __post_init__(self) -> None:
        if self.rows.num_rows + len(self.rejects) + self.filtered != self.count:
            parts = f"{self.rows.num_rows} rows, {len(self.rejects)} rejects and {self.filtered} filtered"
            raise ValueError(f"{self.id}: {parts} are not {self.count}")

    @property
    def stream(self) -> str:
        """Name of the stream, table or folder that the rows go to."""
        return self.id.feed if self.to is None else self.to

    @property
    def row_positions(self) -> npt.NDArray[np.int64]:
        """Position of each row within the block."""
        return np.arange(self.count, dtype=np.int64) if self.positions is None else self.positions

    @property
    def offsets(self) -> npt.NDArray[np.int64]:
        """Offset of each row within the epoch."""
        return self.row_positions + self.id.offset

    @property
    def times(self) -> npt.NDArray[np.int64]:
        """Receive time of each row in ticks, strictly increasing."""
        return self.row_positions + self.time


@dataclass(frozen=True, slots=True)
class Receipt:
    """A writer's answer: the block is durable at the sink. `rejects` did not decode, or the sink
    cannot take them; `filtered` says how many records the sink's filter left out; `time` is the block's."""

    time: int
    rejects: tuple[Rejected, ...] = ()
    filtered: int = 0
