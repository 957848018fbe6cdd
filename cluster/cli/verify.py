"""The verbs about what became of every record: ``verify`` and ``chaos``."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click
from rich.console import Console

from cluster.cli.options import ADDRESS, JSON

if TYPE_CHECKING:
    from cluster.chaos import Kill

_KINDS = ("monitor", "decoder", "writer", "supervisor")


@click.command()
@click.argument("name")
@click.option("--repair", is_flag=True, help="First look for rows that are missing, and fetch them.")
@JSON
@ADDRESS
def verify(name: str, repair: bool, as_json: bool, address: str | None) -> None:
    """Say what became of every record of pipeline NAME.

    Exit code 1 if something is unexplained, or a repair could not be finished.
    """
    from cluster import control
    from cluster import verify as verification

    control.connect(address)
    report = verification.verify(name, repair)
    if as_json:
        click.echo(json.dumps(report))
    else:
        verification.show(report, Console())
    sys.exit(1 if report["unexplained"] or report["unfinished"] else 0)


def _kinds(ctx: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    kinds = tuple(dict.fromkeys(part.strip() for part in value.split(",")))
    if unknown := [kind for kind in kinds if kind not in _KINDS]:
        raise click.BadParameter(f"{', '.join(unknown)}: choose among {', '.join(_KINDS)}")
    return kinds


@click.command()
@click.argument("name")
@click.option("--seconds", type=click.FloatRange(1.0), required=True, help="How long to go on.")
@click.option("--kinds", default=",".join(_KINDS), show_default=True, callback=_kinds, help="Whom to kill.")
@click.option(
    "--interval", type=click.FloatRange(0.1), default=2.0, show_default=True, help="Seconds between kills."
)
@click.option("--seed", type=int, help="Choose the same victims as another run with this seed.")
@JSON
@ADDRESS
def chaos(
    name: str,
    seconds: float,
    kinds: tuple[str, ...],
    interval: float,
    seed: int | None,
    as_json: bool,
    address: str | None,
) -> None:
    """Kill actors of the running pipeline NAME at random (SIGKILL), then say what became of every record.

    Exit code 1 if something is unexplained or still to be delivered.
    """
    from cluster import chaos as chaotic
    from cluster import control
    from cluster import verify as verification

    def say(kill: Kill) -> None:
        if not as_json:
            click.echo(f"{kill.at:6.1f} s  killed {kill.actor} (process {kill.pid})")

    control.connect(address)
    kills = chaotic.run(name, seconds, kinds, interval, seed, say)
    drained = chaotic.drain(name)
    report = verification.verify(name)
    if as_json:
        result = {
            "pipeline": name,
            "seconds": seconds,
            "kills": [asdict(kill) for kill in kills],
            "drained": drained,
            "verify": report,
        }
        click.echo(json.dumps(result))
    else:
        end = (
            "all that was received is delivered" if drained else "NOT all that was received is delivered yet"
        )
        click.echo(f"{len(kills)} kills; everything is up again, {end}")
        verification.show(report, Console())
    sys.exit(0 if drained and not report["unexplained"] else 1)
