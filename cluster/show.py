"""Draws a pipeline's status on a terminal, at 80 columns and more."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

#: Of the latest changes of the number of decoders.
_STEPS_SHOWN = 3

_GOOD = {"receiving", "done", "up", "running"}

#: Characters of a bar that shows how far a table is read.
_BAR = 20


def show_status(status: dict[str, Any], console: Console) -> None:
    """Print what :func:`cluster.status.pipeline_status` made."""
    decoders = status["decoders"]
    console.print(
        f"[bold]{escape(status['pipeline'])}[/bold] {_state(status['state'])}"
        f"  decoders {decoders['running']}/{decoders['wanted']}  restarts {status['restarts']}"
        + (f"  {escape(status['web']['url'])}" if status["web"]["url"] else "")
    )
    console.print(escape(_pool(decoders)), highlight=False)
    tables = Table(
        "table",
        "state",
        *map(_right, ("rec/s", "received", "pending", "dead", "lost", "restarts", "MiB")),
        box=None,
    )
    for table in status["tables"]:
        tables.add_row(
            escape(table["name"]),
            _state(table["state"]),
            f"{table['records_per_second']:,.0f}",
            f"{table['received']:,}",
            f"{table['pending']:,}",
            f"{table['dead_letters']:,}",
            f"[red]{table['lost']:,}[/red]" if table["lost"] else "0",
            str(table["restarts"]),
            f"{(table['resident_bytes'] or 0) >> 20}",
        )
    console.print(tables)
    for table in status["tables"]:
        if table.get("progress"):
            console.print(f"{escape(table['name'])}: {escape(_progress(table['progress']))}", highlight=False)
    sinks = Table(
        "sink", "kind", "state", *map(_right, ("rec/s", "delivered", "retries", "restarts")), box=None
    )
    for sink in status["sinks"]:
        sinks.add_row(
            escape(sink["name"]),
            sink["kind"],
            _state(sink["state"]),
            f"{sink['records_per_second']:,.0f}",
            f"{sink['records']:,}",
            f"{sink['retries']:,}",
            str(sink["restarts"]),
        )
    console.print(sinks)
    for part in (*status["tables"], *status["sinks"], *decoders["members"]):
        if part["problem"] and (part["state"] not in _GOOD or "lanes" in part or "kind" in part):
            console.print(f"[yellow]{escape(part['name'])}: {escape(part['problem'])}[/yellow]")
    for table in status["tables"]:
        standby = table["standby"]
        if standby and standby["state"] != "ready":
            why = f": {standby['problem']}" if standby["problem"] else ""
            text = f"{table['name']}: its standby, {standby['state']}, cannot take over yet{why}"
            console.print(f"[yellow]{escape(text)}[/yellow]")
    for spool in status["spools"]:
        what = f"{spool['records']:,} records of {spool['table']}"
        if spool["dead_letters"]:
            what += f" and {spool['dead_letters']:,} dead letters"
        where = f"draining on host {spool['host']}" if spool["state"] == "draining" else ""
        console.print(
            f"[yellow]{escape(what)}: {escape(', '.join(filter(None, (where, spool['problem']))))}[/yellow]"
        )
    if status["web"]["problem"]:
        console.print(f"[yellow]{escape(status['web']['problem'])}[/yellow]")
    for alert in status["alerts"]:
        console.print(f"[red]{escape(alert)}[/red]")


def _progress(told: dict[str, Any]) -> str:
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
    return Column(header, justify="right")


def _state(state: str) -> str:
    return f"[green]{state}[/green]" if state in _GOOD else f"[red]{state}[/red]"
