"""The verb ``deadletters``: what could not be decoded or delivered, and its way back."""

from __future__ import annotations

import json
import time
from typing import Any

import click

from cluster.cli.options import ADDRESS, JSON
from cluster.errors import NotReady, ReplayFailed

#: Seconds to wait for the end of a replay.
REPLAY_TIMEOUT = 60.0

_TABLE = click.option("--table", metavar="TABLE", help="Only those of this table.")


@click.group()
@click.argument("name")
@click.pass_context
def deadletters(ctx: click.Context, name: str) -> None:
    """What could not be decoded in pipeline NAME: list it, look at it, deliver it after all."""
    ctx.obj = name


@deadletters.command("ls")
@_TABLE
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="Show so many.")
@JSON
@ADDRESS
@click.pass_obj
def ls(name: str, table: str | None, limit: int, as_json: bool, address: str | None) -> None:
    """List dead letters, those that are delivered by now at the end."""
    from cluster import control
    from cluster.letters import Letters, describe

    control.connect(address)
    counts, letters = Letters(name, table).list(limit)
    shown = [describe(name, letter) for letter in letters]
    if as_json:
        click.echo(json.dumps({"pipeline": name, "counts": counts, "dead_letters": shown}))
        return
    for letter in shown:
        click.echo(f"{letter['origin']}  {letter['state']}  {_time(letter['failed'])}  {letter['reason']}")
    numbers = ", ".join(f"{count:,} {state}" for state, count in sorted(counts.items())) or "none"
    click.echo(f"dead letters: {numbers}; {len(shown):,} shown")


@deadletters.command("show")
@click.argument("origin")
@JSON
@ADDRESS
@click.pass_obj
def show(name: str, origin: str, as_json: bool, address: str | None) -> None:
    """Show the dead letter ORIGIN: why, its schema, its bytes, and what of it can be read."""
    from actors.codec.partial import read_partly
    from cluster import control
    from cluster.letters import Letters, describe

    control.connect(address)
    letter = Letters(name).get(origin)
    partly = read_partly(letter.format, letter.schema, letter.frame)
    shown: dict[str, Any] = {
        **describe(name, letter),
        "format": letter.format,
        "schema": json.loads(letter.schema),
        "frame": letter.frame.hex(),
        "columns": [{"name": column, "type": kind, "value": value} for column, kind, value in partly.columns],
        "ends": partly.ends,
    }
    if as_json:
        click.echo(json.dumps(shown, default=repr))
        return
    for key in ("origin", "state", "reason"):
        click.echo(f"{key:9} {shown[key]}")
    for key in ("received", "failed"):
        click.echo(f"{key:9} {_time(shown[key])}")
    click.echo(f"schema    {letter.schema}")
    click.echo(f"frame     {len(letter.frame):,} bytes, {letter.format}: {letter.frame.hex()}")
    for column, kind, value in partly.columns:
        click.echo(f"  {column} ({kind}) = {value!r}")
    click.echo(f"  {partly.ends}")


@deadletters.command("replay")
@click.argument("origins", nargs=-1, metavar="[ORIGIN]...")
@_TABLE
@click.option("--timeout", default=REPLAY_TIMEOUT, show_default=True, help="Seconds to wait for the end.")
@ADDRESS
@click.pass_obj
def replay(
    name: str, origins: tuple[str, ...], table: str | None, timeout: float, address: str | None
) -> None:
    """Decode dead letters again and deliver them: those named, or all that wait."""
    from cluster import control
    from cluster.letters import Letters, total

    if origins and table:
        raise click.UsageError("name origins or a table, not both")
    control.connect(address)
    outcome = Letters(name, table).replay(origins, timeout)
    done, again, left = (outcome.get(state, 0) for state in ("done", "waiting", "replaying"))
    click.echo(f"{total(outcome, outcome):,} replayed: {done:,} delivered, {again:,} failed again")
    if left:
        raise NotReady(f"{left:,} are still on their way; see `tablecast deadletters {name} ls`")
    if again:
        raise ReplayFailed(f"{again:,} failed again; `tablecast deadletters {name} ls` shows why")


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
