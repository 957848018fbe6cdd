"""The verb ``tail``: events as they pass."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING

import click

from cluster.cli.options import ADDRESS
from cluster.errors import NoSuchPart, NotReady

if TYPE_CHECKING:
    from cluster.tail import Event, Tail

#: Seconds between two looks.
INTERVAL = 0.25

#: Events printed of one look on a terminal, and so a thousand or two per second; JSON is printed whole.
SHOWN = 400


@click.command()
@click.argument("name")
@click.argument("table")
@click.option("-n", "count", type=click.IntRange(1), help="End after so many events.")
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON per event.")
@ADDRESS
def tail(name: str, table: str, count: int | None, as_json: bool, address: str | None) -> None:
    """Show events of TABLE of pipeline NAME as they pass on their way to the sinks, decoded and transformed.

    A glance at the stream, until Ctrl-C: when there are more than can be shown, some are left out and counted. It never
    slows delivery.
    """
    from cluster import control
    from cluster.tail import Tail

    control.connect(address)
    status = control.ask(control.find(name), "status")
    tables = [each["name"] for each in status["tables"]]
    if table not in tables:
        raise NoSuchPart(f"pipeline {name} has no table {table}; it has: {', '.join(tables)}")
    sinks = {each["name"]: each["paused"] for each in status["sinks"]}
    if all(sinks.values()) or next(each["paused"] for each in status["tables"] if each["name"] == table):
        click.echo(f"tablecast: paused, so nothing passes; `tablecast resume {name}` lets it go on", err=True)
    with contextlib.suppress(KeyboardInterrupt):
        _follow(Tail(name, table), count, as_json)


def _follow(tail: Tail, count: int | None, as_json: bool) -> None:
    left, away = count, False
    while left is None or left > 0:
        try:
            glance, away = tail.look(), False
        except NotReady as error:  # the monitor is being restarted
            if not away:
                click.echo(f"tablecast: {error}", err=True)
            glance, away = None, True
        if glance is not None:
            events = glance.events if left is None else glance.events[:left]
            _print(events if as_json else events[:SHOWN], as_json)
            unseen = glance.missed + (0 if as_json else max(0, len(events) - SHOWN))
            if unseen:
                click.echo(f"tablecast: {unseen:,} events more passed", err=True)
            left = None if left is None else left - len(events)
        if left is None or left > 0:
            time.sleep(INTERVAL)


def _print(events: list[Event], as_json: bool) -> None:
    for event in events:
        click.echo(event.line if as_json else event.text())
    sys.stdout.flush()
