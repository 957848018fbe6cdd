"""``status --watch``: a pipeline on one screen of a terminal, drawn anew every second.

Whatever the number of tables, it fits: those in trouble come first, the rest in the order of the file as far as there
is room, and one line sums up the others.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.text import Text

from cluster.cli.show import (
    GOOD,
    name_text,
    problems,
    short,
    sink_row,
    sinks_table,
    state_text,
    table_row,
    tables_table,
)
from cluster.errors import NotReady

#: Seconds between two looks.
INTERVAL = 1.0

#: Lines that the alerts may have.
_ALERTS = 2

_COUNTS = ("records_per_second", "received", "pending", "dead_letters", "lost", "restarts", "resident_bytes")


def watch(ask: Callable[[], dict[str, Any]], console: Console) -> None:
    """Show what `ask` returns until Ctrl-C; if it raises :class:`NotReady`, what it returned last, and that."""
    status, silent = ask(), ""
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(view(status, *console.size, note=silent), refresh=True)
            time.sleep(INTERVAL)
            try:
                status, silent = ask(), ""
            except NotReady as error:
                silent = str(error)


def view(status: dict[str, Any], width: int, height: int, note: str = "") -> RenderableType:
    """What is shown of `status` on `width` columns and `height` lines; `note` is of the watching itself."""
    tables = sorted(status["tables"], key=_trouble, reverse=True)  # stable: else in the order of the file
    sinks = sorted(status["sinks"], key=_trouble, reverse=True)
    told = [Text(line, "yellow") for line in problems(status)]
    told += [Text(line, "red") for line in [*status["alerts"][-_ALERTS:], *filter(None, (note,))]]

    # Two lines at the top and the headings of two lists; what is left is shared out.
    room = max(3, height - 4)
    sink_lines = min(len(sinks), max(1, room // 4))
    told_lines = min(len(told), max(1, room // 4))
    table_lines = max(1, min(len(tables), room - sink_lines - told_lines))
    told_lines = max(told_lines, min(len(told), room - sink_lines - table_lines))

    listed = tables_table(width)
    for table in _listed(tables, table_lines):
        listed.add_row(*table_row(table, width, short))
    if len(tables) > table_lines:
        listed.add_row(*table_row(_sum(tables[table_lines - 1 :]), width, short), style="dim")
    stores = sinks_table()
    for sink in _listed(sinks, sink_lines):
        stores.add_row(*sink_row(sink))
    if len(sinks) > sink_lines:
        stores.add_row(name_text(f"and {len(sinks) - sink_lines + 1} more"), style="dim")
    if len(told) > told_lines:
        more = Text(
            f"and {len(told) - told_lines + 1} more, see tablecast status {status['pipeline']}", "dim"
        )
        told = [*told[: told_lines - 1], more]
    for line in told:
        line.truncate(width, overflow="ellipsis")
    return Group(*_head(status, width), listed, stores, *told)


def _head(status: dict[str, Any], width: int) -> tuple[Text, Text]:
    decoders, tables = status["decoders"], status["tables"]
    clock = time.strftime("%H:%M:%S", time.localtime(status["time"]))
    first = Text.from_markup(
        f"[bold]{escape(status['pipeline'])}[/bold] {state_text(status['state'])}"
        f"  decoders {decoders['running']}/{decoders['wanted']}  restarts {status['restarts']}  {clock}  Ctrl-C ends"
    )
    total = _sum(tables)
    ill = sum(_trouble(table) > _NOTED for table in tables)
    second = Text(
        f"{len(tables)} tables{f', {ill} in trouble' if ill else ''}: {short(total['records_per_second'])} rec/s,"
        f" {short(total['received'])} received, {short(total['pending'])} pending"
    )
    for line in (first, second):
        line.truncate(width, overflow="ellipsis")
    return first, second


def _listed(parts: list[dict[str, Any]], lines: int) -> list[dict[str, Any]]:
    """Those that have a line of their own: all, or all but the last line, which sums up."""
    return parts if len(parts) <= lines else parts[: lines - 1]


#: Trouble up to this is worth a look, and no more.
_NOTED = 1


def _trouble(part: dict[str, Any]) -> int:
    """How much a table or sink needs a person: 0 for not at all."""
    if part["state"] not in GOOD:
        return 3
    if part["problem"] or part.get("lost"):
        return 2
    return _NOTED if part.get("paused") or part.get("dead_letters") else 0


def _sum(tables: list[dict[str, Any]]) -> dict[str, Any]:
    """A row for all of `tables`: their counts added up, and the state that most of them have."""
    ill = [table for table in tables if _trouble(table) > _NOTED]
    state = f"{len(ill)} ill" if ill else "receiving"
    counts = {key: sum(table[key] or 0 for table in tables) for key in _COUNTS}
    return {"name": f"and {len(tables)} more", "state": state, "paused": False, **counts}
