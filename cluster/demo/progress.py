"""What the demonstration prints: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rich import progress
from rich.console import Console
from rich.table import Table

from cluster.demo.proof import Verdict

#: Seconds between plain lines of progress.
LINE_INTERVAL = 2.0


class Progress:
    """Prints to standard output."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        self._bars: progress.Progress | None = None
        self._tasks: dict[str, progress.TaskID] = {}
        self._counts: dict[str, tuple[int, int]] = {}
        self._next_line = 0.0

    def line(self, text: str) -> None:
        """One line."""
        self._console.print(text, markup=False)

    @contextmanager
    def bars(self, names: Iterable[str], totals: Iterable[int]) -> Iterator[None]:
        """Show a bar per name up to its total until the block ends."""
        self._counts = {name: (0, total) for name, total in zip(names, totals, strict=True)}
        self._next_line = time.monotonic() + LINE_INTERVAL
        if self._console.is_terminal:
            columns = ("{task.description:10}", progress.BarColumn(), progress.MofNCompleteColumn())
            with progress.Progress(*columns, console=self._console) as self._bars:
                self._tasks = {
                    name: self._bars.add_task(name, total=self._counts[name][1]) for name in self._counts
                }
                yield
            self._bars = None
        else:
            yield
            self._print_counts()

    def update(self, name: str, done: int) -> None:
        """`done` rows of `name` are stored."""
        self._counts[name] = (done, self._counts[name][1])
        if self._bars is not None:
            self._bars.update(self._tasks[name], completed=done)
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + LINE_INTERVAL
            self._print_counts()

    def _print_counts(self) -> None:
        self.line(
            "stored: "
            + ", ".join(f"{name} {done:,}/{total:,}" for name, (done, total) in self._counts.items())
        )

    def verdicts(
        self, verdicts: dict[str, Verdict], totals: Verdict, reports: dict[str, dict[str, Any]]
    ) -> None:
        """The table of the end; `reports` are those of :mod:`cluster.verify`."""
        table = Table("table", box=None)
        for column in ("inserted", "stored", "doubled", "lost", "unexplained"):
            table.add_column(column, justify="right")
        unexplained = {name: report["unexplained"] for name, report in reports.items()}
        unexplained["total"] = sum(unexplained.values())
        for name, each in (*verdicts.items(), ("total", totals)):
            counts = (each.inserted, each.stored, each.doubled, each.lost, unexplained[name])
            table.add_row(name, *(f"{count:,}" for count in counts))
        self._console.print(table)
