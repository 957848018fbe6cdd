"""Draws a pipeline's status on a terminal, at 80 columns and more."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Column, Table
from rich.text import Text

#: Of the latest changes of the number of decoders.
_STEPS_SHOWN = 3

#: States in which all is well.
GOOD = {"receiving", "done", "up", "running"}

#: Columns of a terminal from which on there is room for the memory of monitors.
_WIDE = 100

#: Characters of a bar that shows how far a table is read.
_BAR = 20


def show_status(status: dict[str, Any], console: Console) -> None:
    """Print what :func:`cluster.watch.status.pipeline_status` made."""
    decoders = status["decoders"]
    console.print(
        f"[bold]{escape(status['pipeline'])}[/bold] {state_text(status['state'])}"
        f"  decoders {decoders['running']}/{decoders['wanted']}  restarts {status['restarts']}"
        + (f"  {escape(status['web']['url'])}" if status["web"]["url"] else "")
    )
    console.print(escape(_pool(decoders)), highlight=False)
    tables = tables_table(console.width)
    for table in status["tables"]:
        tables.add_row(*table_row(table, console.width))
    console.print(tables)
    for table in status["tables"]:
        if table.get("progress"):
            line = f"{table['name']}: {progress(table['progress'])}"
            console.print(line, markup=False, highlight=False)
    sinks = sinks_table()
    for sink in status["sinks"]:
        sinks.add_row(*sink_row(sink))
    console.print(sinks)
    for line in problems(status):
        console.print(line, style="yellow", markup=False, highlight=False)
    for alert in status["alerts"]:
        console.print(alert, style="red", markup=False, highlight=False)


def tables_table(width: int) -> Table:
    """Without rows; the last column only where the terminal has room for it."""
    numbers = ["rec/s", "received", "pending", "dead", "lost", "restarts"]
    numbers += ["MiB"] if width >= _WIDE else []
    return Table("table", Column("state", no_wrap=True), *map(_right, numbers), box=None)


def whole(number: float) -> str:
    """1,234,567."""
    return f"{number:,.0f}"


def short(number: float) -> str:
    """1,234,567 as 1.23M: where room is scarce."""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if number >= size:
            return f"{number / size:.3g}{unit}" if number < 999.5 * size else f"{number / size:.0f}{unit}"
    return whole(number)


def table_row(
    table: dict[str, Any], width: int, number: Callable[[float], str] = whole
) -> list[RenderableType]:
    """The cells of a table's row."""
    cells: list[RenderableType] = [
        name_text(table["name"]),
        _state(table),
        *(number(table[key]) for key in ("records_per_second", "received", "pending", "dead_letters")),
        f"[red]{number(table['lost'])}[/red]" if table["lost"] else "0",
        str(table["restarts"]),
    ]
    return [*cells, f"{(table['resident_bytes'] or 0) >> 20}"] if width >= _WIDE else cells


def sinks_table() -> Table:
    """Without rows."""
    return Table(
        "sink",
        *(Column(header, no_wrap=True) for header in ("kind", "state")),
        *map(_right, ("rec/s", "delivered", "retries", "restarts")),
        box=None,
    )


def sink_row(sink: dict[str, Any]) -> list[RenderableType]:
    """The cells of a sink's row."""
    return [
        name_text(sink["name"]),
        sink["kind"],
        _state(sink),
        f"{sink['records_per_second']:,.0f}",
        f"{sink['records']:,}",
        f"{sink['retries']:,}",
        str(sink["restarts"]),
    ]


def problems(status: dict[str, Any]) -> list[str]:
    """What a person should look at, a line each."""
    name = status["pipeline"]
    lines = []
    for part in (*status["tables"], *status["sinks"], *status["decoders"]["members"]):
        if part["problem"] and (part["state"] not in GOOD or "lanes" in part or "kind" in part):
            lines.append(f"{part['name']}: {part['problem']}")
    for part in (*status["tables"], *status["sinks"]):
        if part.get("paused"):
            what = "delivered to no sink" if "lanes" in part else "nothing is delivered to it"
            lines.append(f"{part['name']}: paused, {what}; `tablecast resume {name} {part['name']}`")
    for table in status["tables"]:
        standby = table["standby"]
        if standby and standby["state"] != "ready":
            why = f": {standby['problem']}" if standby["problem"] else ""
            lines.append(f"{table['name']}: its standby, {standby['state']}, cannot take over yet{why}")
    for spool in status["spools"]:
        what = f"{spool['records']:,} records of {spool['table']}"
        if spool["dead_letters"]:
            what += f" and {spool['dead_letters']:,} dead letters"
        where = f"draining on host {spool['host']}" if spool["state"] == "draining" else ""
        lines.append(f"{what}: {', '.join(filter(None, (where, spool['problem'])))}")
    if status["web"]["problem"]:
        lines.append(status["web"]["problem"])
    return lines


def name_text(name: str) -> Text:
    """A name that gives way, on its line, where there is no room for all columns."""
    return Text(name, no_wrap=True, overflow="ellipsis")


def progress(told: dict[str, Any]) -> str:
    """How far a table is read: a bar where that is known, and what its source says."""
    loaded, total, parts = told["loaded"], told["total"], []
    if loaded is not None and total:
        part = min(max(loaded / total, 0.0), 1.0)
        done = round(part * _BAR)
        parts.append(f"[{'#' * done}{'.' * (_BAR - done)}] {part:.0%}, {loaded:,} of {total:,}")
    elif loaded is not None:
        parts.append(f"{loaded:,}")
    return "  ".join([*parts, *([told["msg"]] if told["msg"] else [])])


def _pool(decoders: dict[str, Any]) -> str:
    """Why there are so many decoders."""
    bounds = {
        "automatic": f"{decoders['min']} to {decoders['max']} by load",
        "manual": "held by hand",
        "fixed": "fixed by the file",
    }[decoders["mode"]]
    lines = [f"decoders {bounds}: {decoders['verdict']}"]
    for step in decoders["steps"][-_STEPS_SHOWN:]:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(step["time"]))
        lines.append(f"  {when}  {step['from']} -> {step['to']}: {step['reason']}")
    return "\n".join(lines)


def _right(header: str) -> Column:
    return Column(header, justify="right", no_wrap=True)


def state_text(state: str) -> str:
    """A state in its colour."""
    return f"[green]{state}[/green]" if state in GOOD else f"[red]{state}[/red]"


def _state(part: dict[str, Any]) -> str:
    # Of what is in trouble the trouble is shown; that it is paused is said below.
    return (
        "[yellow]paused[/yellow]"
        if part.get("paused") and part["state"] in GOOD
        else state_text(part["state"])
    )
