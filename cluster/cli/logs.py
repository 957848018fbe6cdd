"""The verb ``logs``."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from cluster.cli.options import ADDRESS
from cluster.errors import NoSuchPart, NoSuchPipeline
from cluster.logs import LEVELS

_KINDS = ("monitor", "standby", "drainer", "decoder", "writer", "supervisor")


@click.command()
@click.argument("name")
@click.argument("of", required=False, metavar="[ACTOR|TABLE|SINK]")
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@click.option("-n", "--lines", default=100, show_default=True, type=click.IntRange(0, 100_000))
@click.option("--level", type=click.Choice(LEVELS), default="info", show_default=True, help="The lowest.")
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON per record.")
@ADDRESS
def logs(
    name: str, of: str | None, follow: bool, lines: int, level: str, as_json: bool, address: str | None
) -> None:
    """Show what the actors of pipeline NAME logged, on all nodes of the cluster.

    All of them, one (monitor/TABLE, decoder/0, writer/SINK, supervisor), a kind of them (decoder), or what is about a
    TABLE or SINK, whoever logged it.
    """
    from cluster import control
    from cluster.logs import Choice, Logs

    control.connect(address)
    reader = Logs(name, Choice(of, level))
    records = reader.last(lines)
    if not records:
        _see_that_it_exists(name, of)
    _print(records, as_json)
    if reader.unreachable:
        click.echo(
            f"tablecast: no logs from nodes that do not answer: {', '.join(reader.unreachable)}", err=True
        )
    try:
        for more in reader.follow() if follow else ():
            _print(more, as_json)
    except KeyboardInterrupt:
        pass


def _print(records: list[dict[str, Any]], as_json: bool) -> None:
    from cluster.logs import text

    for record in records:
        click.echo(json.dumps(record) if as_json else text(record))
    sys.stdout.flush()


def _see_that_it_exists(name: str, of: str | None) -> None:
    """Nothing was found: say so if that is because there is no such pipeline, or no such part of it."""
    from cluster import control
    from cluster.logs import Choice, Logs

    try:
        status = control.ask(control.find(name), "status")
    except NoSuchPipeline:
        if Logs(name, Choice(level="debug")).last(1):
            return  # it has ended; its logs are here as long as the cluster
        raise
    known = {part["name"] for kind in ("tables", "sinks") for part in status[kind]}
    actors = {f"monitor/{each['name']}" for each in status["tables"]}
    actors |= {f"writer/{each['name']}" for each in status["sinks"]}
    actors |= {f"decoder/{each['name']}" for each in status["decoders"]["members"]}
    if of is not None and of.partition("/")[0] not in _KINDS and of not in known | actors:
        raise NoSuchPart(
            f"pipeline {name} has no actor, table or sink {of}; it has {', '.join(sorted(known | actors))}"
            " and supervisor"
        )
