"""A decoded block: Arrow columns plus the origin of each row, and the records that did not decode."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from actors.block import BlockId


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that did not decode: its offset, the reason in one line, and the frame as received."""

    offset: int
    reason: str
    frame: bytes


@dataclass(frozen=True, slots=True)
class Batch:
    """The rows of one block.

    Attributes:
        id: the block's identity.
        count: records in the block: rows plus rejects.
        time: receive time of the block's first record, in ticks of 100 ns since 1970.
        rows: the decoded rows in order.
        positions: int64, for each row its position in the block; None when every record decoded.
        rejects: records that did not decode.
    """

    id: BlockId
    count: int
    time: int
    rows: pa.RecordBatch
    positions: npt.NDArray[np.int64] | None
    rejects: tuple[Rejected, ...]

    def __post_init__(self) -> None:
        if self.rows.num_rows + len(self.rejects) != self.count:
            parts = f"{self.rows.num_rows} rows and {len(self.rejects)} rejects"
            raise ValueError(f"{self.id}: {parts} are not {self.count}")

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
    """A writer's answer: the block is durable at the sink. `rejects` did not decode; `time` is the block's."""

    time: int
    rejects: tuple[Rejected, ...] = ()
