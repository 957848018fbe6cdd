"""The verbs ``pause`` and ``resume``."""

from __future__ import annotations

import time
from typing import Any

import click

from cluster.cli.options import ADDRESS
from cluster.errors import NoSuchPart, NotReady

#: Seconds to wait for what was on its way when its delivery was paused.
SETTLE_TIMEOUT = 10.0

_TARGET = click.argument("target", required=False, metavar="[TABLE|SINK]")


@click.command()
@click.argument("name")
@_TARGET
@ADDRESS
def pause(name: str, target: str | None, address: str | None) -> None:
    """Hold back delivery in pipeline NAME: of one table, to one sink, or to every sink.

    Everything is received and kept in the spools meanwhile, also while actors are restarted, until `resume`. What was
    sent before still arrives.
    """
    from cluster import control

    control.connect(address)
    supervisor = control.find(name)
    tables, sinks = _parts(control.ask(supervisor, "status"), name, target)
    done = control.ask(supervisor, "pause", target)
    left = _settled(supervisor, target)
    for table in [target] if target in tables else []:
        click.echo(f"table {table} is paused: it is received, and delivered to no sink")
    for sink in [target] if target in sinks else sinks if target is None else []:
        click.echo(f"sink {sink} is paused: what is for it waits in the spools")
    if left:
        click.echo(f"{left} blocks that were sent before are still on their way")
    if done["silent"]:
        click.echo(f"heard of it when they are back: the monitors of {', '.join(done['silent'])}", err=True)
    click.echo(f"next: tablecast resume {name}{f' {target}' if target else ''}")


def _settled(supervisor: Any, target: str | None) -> int:
    """Wait a while until what `target` was sent has arrived; returns the blocks that have not."""
    from cluster import control

    deadline = time.monotonic() + SETTLE_TIMEOUT
    while True:
        tables = control.ask(supervisor, "status")["tables"]
        left: int = sum(
            lane["in_flight"]
            for table in tables
            for lane in table["lanes"]
            if lane["paused"] and target in (None, table["name"], lane["sink"])
        )
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.2)


@click.command()
@click.argument("name")
@_TARGET
@click.option("--skip", is_flag=True, help="Send the records that stop the table to its dead letters.")
@ADDRESS
def resume(name: str, target: str | None, skip: bool, address: str | None) -> None:
    """Let what is paused, parked, aborted or frozen in pipeline NAME go on: one table, one sink, or everything."""
    from cluster import control

    control.connect(address)
    supervisor = control.find(name)
    tables, _ = _parts(control.ask(supervisor, "status"), name, target)
    if skip and target not in tables:
        raise click.UsageError("--skip needs a TABLE: name the one whose records are to be skipped")
    done = control.ask(supervisor, "resume", target, skip)
    for kind in ("tables", "sinks"):
        for which in done["paused"][kind]:
            click.echo(f"{kind.removesuffix('s')} {which} goes on")
    for actor in done["actors"]:
        click.echo(f"{actor} starts again")
    for feed, sink in done["lanes"]:
        click.echo(f"{feed} to {sink} goes on")
    if done["silent"]:
        raise NotReady(f"not asked, as their monitors do not answer: {', '.join(done['silent'])}; try again")
    if not (done["actors"] or done["lanes"] or any(done["paused"].values())):
        click.echo("nothing was paused, parked, aborted or frozen")


def _parts(status: dict[str, Any], name: str, target: str | None) -> tuple[list[str], list[str]]:
    """The tables and sinks of a pipeline. Raises :class:`NoSuchPart` if `target` is neither."""
    tables, sinks = ([part["name"] for part in status[kind]] for kind in ("tables", "sinks"))
    if target is not None and target not in (*tables, *sinks):
        raise NoSuchPart(
            f"pipeline {name} has no table or sink {target}; it has tables {', '.join(tables)}"
            f" and sinks {', '.join(sinks)}"
        )
    return tables, sinks
