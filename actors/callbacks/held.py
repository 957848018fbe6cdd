"""Rows that wait until the source confirms their type: the in-memory counterpart of a monitor's spool and type watch.

A row decodes under a type that it is not of more often than one would think (a rename, a column dropped and another
added), so no row is handed out before the server, asked after it was received, has told the table's type. Where that
changed, the rows held are divided between the types (``actors/monitor/switch.py``). Pure: no sockets, clocks, threads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from actors.monitor.kinetica import schema_type
from actors.monitor.source import Described
from actors.monitor.spool import Position
from actors.monitor.switch import describe_change, divide


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive rows of one type; `doubt` is why they can't be decoded, if they can't."""

    schema: str
    frames: Sequence[bytes]
    doubt: str = ""


@dataclass(frozen=True, slots=True)
class Altered:
    """The table's columns changed here; `text` says how, for people."""

    text: str


#: Why rows around a change of type are not decoded.
AMBIGUOUS = "it was received while the table was altered, and is valid under both types"


class Held:
    """Frames received and not handed out, and the type that they are taken to be of.

    Attributes:
        size: bytes held.
    """

    def __init__(self, table: str, described: Described) -> None:
        self.size = 0
        self._table = table
        self._described = described
        self._parts: deque[Sequence[bytes]] = deque()
        self._first = self._next = 0  # number of the first frame held, and of the next to come

    @property
    def described(self) -> Described:
        """The table's type, as far as it is known."""
        return self._described

    @property
    def end(self) -> Position:
        """Behind the last frame received."""
        return Position(0, self._next)

    def add(self, frames: Sequence[bytes]) -> None:
        """Frames were received."""
        self._parts.append(frames)
        self.size += sum(map(len, frames))
        self._next += len(frames)

    def confirmed(self, upto: Position) -> list[Run | Altered]:
        """The frames before `upto`, an earlier :attr:`end`, are of the present type: here they are."""
        frames: list[bytes] = []
        while self._parts and self._first + len(self._parts[0]) <= upto.offset:
            part = self._parts.popleft()
            self._first += len(part)
            frames += part
        self.size -= sum(map(len, frames))
        return [Run(self._described.schema, frames)] if frames else []

    def altered(self, steps: Sequence[Described], back: int = 0) -> list[Run | Altered]:
        """The table took on the types in `steps`, one after the other; the last `back` frames are of the last for sure.

        Returns what can be handed out: all but the frames of the last type, which may have changed again.
        """
        frames = [frame for part in self._parts for frame in part]
        schemas = [self._described.schema, *(step.schema for step in steps)]
        types = [schema_type(schema) for schema in schemas]
        out: list[Run | Altered] = []
        if frames:
            division = divide(frames, types, len(frames) - back)
            sides = list(zip(division.oldest.tolist(), division.newest.tolist(), strict=True))
            cut = division.first_new
            out = _runs(frames[:cut], sides[:cut], schemas)
            self._parts = deque([frames[cut:]] if frames[cut:] else [])
            self._first += cut
            self.size = sum(map(len, frames[cut:]))
        out.append(alteration(self._table, self._described, steps[-1]))
        self._described = steps[-1]
        return out


def alteration(table: str, old: Described, new: Described) -> Altered:
    """That the table went over from one type to another."""
    change = describe_change(schema_type(old.schema), schema_type(new.schema))
    return Altered(altered_text(table, change["added"], change["removed"]))


def altered_text(table: str, added: Sequence[str], removed: Sequence[str]) -> str:
    """What a callback for altered tables is called with."""
    parts = [
        f"{what} {', '.join(columns)}"
        for what, columns in (("added", added), ("removed", removed))
        if columns
    ]
    return f"Table {table} was altered: {'; '.join(parts) or 'its columns are the same, in another order'}"


def _runs(
    frames: Sequence[bytes], sides: Sequence[tuple[int, int]], schemas: Sequence[str]
) -> list[Run | Altered]:
    runs: list[Run | Altered] = []
    start = 0
    for end in range(1, len(frames) + 1):
        if end == len(frames) or sides[end] != sides[start]:
            oldest, newest = sides[start]
            doubt = "" if oldest == newest else AMBIGUOUS
            runs.append(Run(schemas[oldest], frames[start:end], doubt))
            start = end
    return runs
