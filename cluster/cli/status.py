"""The verb ``status``."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import click
from rich.console import Console

from cluster.cli.options import ADDRESS, JSON
from cluster.errors import NoSuchPipeline

#: Seconds allowed to a supervisor while one watches.
PATIENCE = 5.0


@click.command()
@click.argument("name", required=False)
@click.option("--watch", is_flag=True, help="Show it on the whole terminal, drawn anew every second.")
@ADDRESS
@JSON
def status(name: str | None, watch: bool, address: str | None, as_json: bool) -> None:
    """Show tables, decoders and sinks of pipeline NAME, or of all.

    With --watch and --json, print a line of JSON every second.
    """
    from cluster import control
    from cluster.cli.show import show_status

    if watch and not as_json and not sys.stdout.isatty():
        raise click.UsageError(
            "--watch needs a terminal; for a file or a pipe use --watch --json, a line of JSON every second"
        )
    control.connect(address)
    if watch:
        _watch(name, as_json)
        return
    names = [name] if name else control.pipelines()
    found = [control.ask(control.find(each), "status") for each in names]
    if as_json:
        click.echo(json.dumps(found[0] if name else found))
    elif not found:
        click.echo("no pipeline is running")
    else:
        for each in found:
            show_status(each, Console())


def _watch(name: str | None, as_json: bool) -> None:
    from cluster import control
    from cluster.cli.watch import INTERVAL, watch

    running = control.pipelines()
    if name is None and len(running) != 1:
        raise NoSuchPipeline(f"name the pipeline to watch; running are: {', '.join(running) or 'none'}")
    supervisor = control.find(name or running[0])

    def ask() -> dict[str, Any]:
        found: dict[str, Any] = control.ask(supervisor, "status", timeout=PATIENCE)
        return found

    try:
        if as_json:
            _lines(ask, INTERVAL)
        else:
            watch(ask, Console())
    except KeyboardInterrupt:
        pass


def _lines(ask: Callable[[], dict[str, Any]], interval: float) -> None:
    while True:
        click.echo(json.dumps(ask()))
        sys.stdout.flush()
        time.sleep(interval)
