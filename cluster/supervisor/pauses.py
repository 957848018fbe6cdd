"""What a person has paused: tables that deliver nothing, and sinks that nothing is delivered to. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Pauses:
    """The paused tables and sinks of one pipeline.

    Both go on receiving: what is not delivered waits in the spools.
    """

    tables: set[str] = field(default_factory=set)
    sinks: set[str] = field(default_factory=set)

    @classmethod
    def recall(cls, values: dict[str, Any]) -> Pauses:
        """What :meth:`dump` made."""
        return cls(set(values.get("tables", ())), set(values.get("sinks", ())))

    def dump(self) -> dict[str, list[str]]:
        """As JSON-able values."""
        return {"tables": sorted(self.tables), "sinks": sorted(self.sinks)}

    def of(self, table: str, sinks: Iterable[str]) -> list[str]:
        """To which of its `sinks` `table` delivers nothing now."""
        return sorted(sink for sink in sinks if table in self.tables or sink in self.sinks)

    def pause(self, target: str | None, tables: Iterable[str], sinks: Iterable[str]) -> None:
        """Pause the table or sink `target`; None: every one of `sinks`. A name of both is both."""
        self.tables |= {table for table in tables if table == target}
        self.sinks |= {sink for sink in sinks if target in (None, sink)}

    def resume(self, target: str | None) -> dict[str, list[str]]:
        """Undo the pause of `target`; None: of everything. Returns what goes on, as :meth:`dump` shows it."""
        ended = Pauses(
            {table for table in self.tables if target in (None, table)},
            {sink for sink in self.sinks if target in (None, sink)},
        )
        self.tables -= ended.tables
        self.sinks -= ended.sinks
        return ended.dump()

    def keep(self, tables: Iterable[str], sinks: Iterable[str]) -> None:
        """Forget what is not among these any more."""
        self.tables &= {*tables}
        self.sinks &= {*sinks}
