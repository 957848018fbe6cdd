"""Where a table's type changed within a run of frames.

Frames arrive in the order they were published, so a change of type has one switch point: every frame that only the
old type can have encoded lies before it, every frame that only the new one can have encoded lies after it. Between
the last of those and the first of these may stand frames that are valid under both: *ambiguous*, because bytes alone
never tell a rename, or a column dropped and another of the same wire type added.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from actors.codec.codec import Codec
from protocols.kinetica.types import TableType

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Switch:
    """Which frames are which: [0, `first_ambiguous`) old, [`first_new`, end) new, ambiguous in between.

    A frame that neither type can have encoded keeps its place; decoding it as either makes it a reject.
    """

    first_ambiguous: int
    first_new: int


def find_switch(
    frames: Sequence[bytes], old: TableType, new: TableType, proven_new: int | None = None
) -> Switch:
    """Find the switch point in `frames`.

    Args:
        frames: as received; none of them is known to be of the old type.
        old, new: the types before and after. If they differ in properties only, the wire and the names are the
            same and nothing is ambiguous: what is not proven new is old.
        proven_new: frames from this place on are known to be of the new type.
    """
    count = len(frames)
    proven_new = count if proven_new is None else proven_new
    undecided = frames[:proven_new]
    as_old, as_new = _decodes(undecided, old), _decodes(undecided, new)
    only_old, only_new = np.flatnonzero(as_old & ~as_new), np.flatnonzero(as_new & ~as_old)
    first_new = int(only_new[0]) if only_new.size else proven_new
    last_old = only_old[only_old < first_new]
    first_ambiguous = int(last_old[-1]) + 1 if last_old.size else 0
    if _same_on_the_wire(old, new):
        first_ambiguous = first_new
    # What neither or only the old type reads at the edges is not ambiguous.
    while first_ambiguous < first_new and not (as_old[first_ambiguous] and as_new[first_ambiguous]):
        first_ambiguous += 1
    return Switch(first_ambiguous, first_new)


def _decodes(frames: Sequence[bytes], table_type: TableType) -> Mask:
    """Which frames are whole records of the type, by their bytes alone."""
    readable = np.ones(len(frames), np.bool_)
    readable[[reject.position for reject in Codec(table_type, raw=True).decode(frames).rejects]] = False
    return readable


def _same_on_the_wire(old: TableType, new: TableType) -> bool:
    return [(c.name, c.avro) for c in old.columns] == [(c.name, c.avro) for c in new.columns]


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
