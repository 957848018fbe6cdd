"""The verb ``rewind``: delivers again what the spools retain."""

from __future__ import annotations

import time
from datetime import datetime

import click

from actors.block import TICKS_PER_SECOND
from cluster.cli.options import ADDRESS
from cluster.config.types import parse_duration
from cluster.errors import NoSuchPart, NotRewound


class _Moment(click.ParamType[float]):
    """A moment in the past, in seconds since 1970."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        text = str(value)
        now = time.time()
        try:
            if text.startswith("-"):
                moment = now - float(parse_duration(text[1:]))
            else:
                moment = datetime.fromisoformat(text).timestamp()
        except (ValueError, OverflowError, OSError):
            self.fail(
                "not a time; write 2026-11-21T13:00:00 (local), the same with Z, or -30s, -10min, -1.5h, -5d",
                param,
                ctx,
            )
        if moment > now:
            self.fail("in the future", param, ctx)
        return moment


@click.command()
@click.argument("name")
@click.option("--sink", required=True, help="The sink that gets it again.")
@click.option(
    "--to", "moment", type=_Moment(), required=True, metavar="TIME", help="ISO 8601, or ago: -10min."
)
@click.option("--table", metavar="TABLE", help="Only this table.")
@ADDRESS
def rewind(name: str, sink: str, moment: float, table: str | None, address: str | None) -> None:
    """Deliver again to a sink of pipeline NAME what was received since TIME, as far as the spools retain it.

    Whole blocks are delivered, so a few records before TIME may be among them. A sink that knows records by their
    origin stores none of them twice.
    """
    from cluster import control

    control.connect(address)
    supervisor = control.find(name)
    status = control.ask(supervisor, "status")
    for kind, wanted in (("sink", sink), ("table", table)):
        there = [part["name"] for part in status[f"{kind}s"]]
        if wanted is not None and wanted not in there:
            raise NoSuchPart(f"pipeline {name} has no {kind} {wanted}; it has: {', '.join(there)}")
    done = control.ask(supervisor, "rewind", sink, table, int(moment * TICKS_PER_SECOND))
    for feed, records in sorted(done["feeds"].items()):
        click.echo(f"{feed} to {sink}: {records:,} records again")
    if done["refused"]:
        raise NotRewound("\n".join(f"{which}: {why}" for which, why in sorted(done["refused"].items())))
    if not done["feeds"]:
        click.echo(f"nothing was delivered to {sink} since then")
