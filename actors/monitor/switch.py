"""Of which type each frame of a run is during which the table's type changed, once or more.

Frames arrive in the order they were published, so the types follow one another and none comes back: every frame that
only an earlier type can have encoded lies before every frame that only a later one can have. What the bytes and the
order leave open is *ambiguous*, because bytes alone never tell a rename, or a column dropped and another of the same
wire type added.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from actors.codec.codec import Codec
from protocols.kinetica.types import TableType

Mask = npt.NDArray[np.bool_]
Places = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Division:
    """The types of frames, as places in the list of types.

    Attributes:
        oldest, newest: per frame the first and the last type that it may be of; equal where it is decided. A frame
            that no type can have encoded keeps its place; decoding it makes it a reject.
        possible: which types (rows) each frame (columns) may be of.
        unseen: frames before this place may also be of a type that is not among the types.
    """

    oldest: Places
    newest: Places
    possible: Mask
    unseen: int = 0

    @property
    def ambiguous(self) -> list[int]:
        """The frames that may be of more than one type."""
        unseen = np.arange(len(self.oldest)) < self.unseen
        found: list[int] = np.flatnonzero(unseen | (self.oldest != self.newest)).tolist()
        return found

    @property
    def first_new(self) -> int:
        """From here on all frames are of the last type."""
        other = np.flatnonzero(self.oldest != len(self.possible) - 1)
        return int(other[-1]) + 1 if other.size else 0


def divide(
    frames: Sequence[bytes],
    types: Sequence[TableType],
    proven_new: int | None = None,
    unseen: bool = False,
) -> Division:
    """Tell the types of `frames` apart.

    Args:
        frames: as received.
        types: one after the other, the table's types while they were published; at least two.
        proven_new: frames from this place on are known to be of the last type.
        unseen: whether the others may be of a type that is not among `types`, whatever their bytes say.
    """
    last = len(types) - 1
    proven_new = len(frames) if proven_new is None else max(0, proven_new)
    readable = np.zeros((len(types), len(frames)), np.bool_)
    for i, table_type in enumerate(types):
        readable[i, :proven_new] = _reads(frames[:proven_new], Codec(table_type, raw=True))
    readable[last, proven_new:] = True
    earliest, latest = _earliest(readable), last - _earliest(readable[::-1, ::-1])[::-1]
    place = np.arange(len(types))[:, None]
    possible = readable & (earliest <= place) & (place <= latest)
    # Against the order, as no server should send it: each frame for itself.
    against = ~possible.any(axis=0)
    possible[:, against] = readable[:, against]
    unreadable = ~possible.any(axis=0)
    possible[earliest[unreadable], unreadable] = True
    _prefer_fitting(frames, types, possible)
    newest = last - possible[::-1].argmax(axis=0)
    return Division(possible.argmax(axis=0), newest, possible, min(proven_new, len(frames)) if unseen else 0)


def _earliest(readable: Mask) -> Places:
    """The earliest type that each frame may be of when types only ever move on."""
    count = readable.shape[1]
    types = np.zeros(count, np.int64)
    at = current = 0
    while at < count:
        later = readable[current + 1 :, at:]
        moves = np.flatnonzero(~readable[current, at:] & later.any(axis=0))
        end = at + int(moves[0]) if moves.size else count
        types[at:end] = current
        if end < count:
            current += 1 + int(later[:, end - at].argmax())
        at = end
    return types


def _reads(frames: Sequence[bytes], codec: Codec) -> Mask:
    readable = np.ones(len(frames), np.bool_)
    readable[[reject.position for reject in codec.decode(frames).rejects]] = False
    return readable


def _prefer_fitting(frames: Sequence[bytes], types: Sequence[TableType], possible: Mask) -> None:
    """Decide between types that differ in properties only: for the first under which the values are allowed."""
    for later in range(1, len(types)):
        for earlier in range(later):
            if _wire(types[earlier]) == _wire(types[later]):
                both = np.flatnonzero(possible[earlier] & possible[later])
                fits = _reads([frames[i] for i in both.tolist()], Codec(types[earlier]))
                possible[later, both[fits]] = False
                possible[earlier, both[~fits]] = False


def _wire(table_type: TableType) -> list[tuple[str, object]]:
    return [(column.name, column.avro) for column in table_type.columns]


def describe_change(old: TableType, new: TableType) -> dict[str, list[str]]:
    """What changed, for people: columns as ``name type(properties)``."""
    before, after = (_columns(table_type) for table_type in (old, new))
    return {
        "old_columns": list(before),
        "new_columns": list(after),
        "added": [column for column in after if column not in before],
        "removed": [column for column in before if column not in after],
    }


def _columns(table_type: TableType) -> list[str]:
    texts = []
    for column in table_type.columns:
        properties = sorted({*column.properties} | ({"nullable"} if column.nullable else set()))
        texts.append(f"{column.name} {column.base}" + (f"({', '.join(properties)})" if properties else ""))
    return texts
