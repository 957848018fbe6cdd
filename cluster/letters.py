"""Commands about dead letters: asks the monitors of a running pipeline, each of which keeps those of its table."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from actors.block import TICKS_PER_SECOND, BlockId
from actors.monitor.letters import DeadLetter
from actors.names import feeds_of
from cluster import control
from cluster.errors import NoSuchPart, NotReady

#: Seconds between two looks at a replay.
LOOK_AGAIN = 0.2


class Letters:
    """The dead letters of the running pipeline `name`; of one table if `table` is given.

    Raises :class:`NoSuchPipeline` and :class:`NoSuchPart`; methods raise :class:`NotReady` when a monitor is away.
    """

    def __init__(self, name: str, table: str | None = None) -> None:
        status = control.ask(control.find(name), "status")
        self.name = name
        self._all = [each["name"] for each in status["tables"]]
        if table is not None and table not in self._all:
            raise NoSuchPart(f"pipeline {name} has no table {table}; it has: {', '.join(self._all)}")
        self.tables = self._all if table is None else [table]

    def list(self, limit: int) -> tuple[dict[str, int], list[DeadLetter]]:
        """State -> how many there are, and the first `limit` of them in order of table."""
        totals: Counter[str] = Counter()
        found: list[DeadLetter] = []
        for table in self.tables:
            counts, letters = self._ask(table, "dead_letters", limit)
            totals.update(counts)
            found += letters
        found.sort(key=lambda letter: letter.state == "done")  # stable: by table otherwise
        return dict(totals), found[:limit]

    def get(self, origin: str) -> DeadLetter:
        """The one of that origin. Raises :class:`NoSuchPart`."""
        table, record = self.place(origin)
        letter: DeadLetter | None = self._ask(table, "dead_letter", record)
        if letter is None:
            raise NoSuchPart(f"no dead letter {origin}; see `tablecast deadletters {self.name} ls`")
        return letter

    def replay(self, origins: Sequence[str], timeout: float) -> dict[str, int]:
        """Deliver dead letters, all that wait or those of `origins`; wait up to `timeout` seconds for the end.

        Returns state -> how many of them are in it; a ``replaying`` one is still on its way.
        """
        wanted: dict[str, list[BlockId] | None] = {}
        if origins:
            for origin in origins:
                self.get(origin)
                table, record = self.place(origin)
                wanted[table] = [*(wanted.get(table) or []), record]
        else:
            wanted = dict.fromkeys(self.tables)
        begun = {table: self._ask(table, "replay", records) for table, records in wanted.items()}
        runs = {
            table: {feed: run for feed, (run, _) in feeds.items()} for table, feeds in begun.items() if feeds
        }
        return self._wait(runs, time.monotonic() + timeout)

    def _wait(self, runs: dict[str, dict[str, int]], deadline: float) -> dict[str, int]:
        while True:
            try:
                outcome: Counter[str] = Counter()
                for table, feeds in runs.items():
                    outcome.update(self._ask(table, "replayed", feeds))
                if not outcome["replaying"] or time.monotonic() >= deadline:
                    return {state: number for state, number in outcome.items() if number}
            except NotReady:  # its monitor is being restarted; the replay goes on with it
                if time.monotonic() >= deadline:
                    raise
            time.sleep(LOOK_AGAIN)

    def place(self, origin: str) -> tuple[str, BlockId]:
        """The table that keeps the record `origin`, and the record. Raises :class:`NoSuchPart`."""
        parts = origin.rsplit("/", 3)
        if len(parts) != 4 or not all(part.isdecimal() for part in parts[2:]):
            raise NoSuchPart(
                f"{origin} is no origin; write {self.name}/FEED/EPOCH/OFFSET, as events have it under @origin"
            )
        pipeline, feed = parts[:2]
        if pipeline != self.name:
            raise NoSuchPart(f"{origin} is of pipeline {pipeline}, not of {self.name}")
        for table in self._all:
            if feed in feeds_of(table):
                return table, BlockId(feed, int(parts[2]), int(parts[3]))
        raise NoSuchPart(f"pipeline {self.name} has no feed {feed}; its tables are: {', '.join(self._all)}")

    def _ask(self, table: str, method: str, *arguments: Any) -> Any:
        return control.ask_monitor(self.name, table, method, *arguments)


def describe(pipeline: str, letter: DeadLetter) -> dict[str, Any]:
    """A letter as JSON-able values, without frame and schema. Times are in seconds since 1970."""
    return {
        "origin": f"{pipeline}/{letter.feed}/{letter.epoch}/{letter.offset}",
        "state": letter.state,
        "reason": letter.reason,
        "received": letter.time / TICKS_PER_SECOND,
        "failed": letter.failed / TICKS_PER_SECOND,
    }


def total(counts: dict[str, int], states: Iterable[str] = ("waiting", "replaying")) -> int:
    """How many are in one of `states`."""
    return sum(counts.get(state, 0) for state in states)
