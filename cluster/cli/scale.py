"""``tablecast scale``: how many decoders a running pipeline has."""

from __future__ import annotations

import click

from cluster.cli.options import ADDRESS
from cluster.cli.start import READY_TIMEOUT
from cluster.errors import CommandError, NotReady


@click.command()
@click.argument("name")
@click.option("--decoders", type=click.IntRange(1, 10_000), help="Decode actors in the pool, until --auto.")
@click.option("--auto", is_flag=True, help="Let the number follow the load again.")
@ADDRESS
def scale(name: str, decoders: int | None, auto: bool, address: str | None) -> None:
    """Change the number of decoders of pipeline NAME while data flows.

    With --decoders it stays at that number, whatever the load. With --auto it follows the load, between decoders.min
    and decoders.max of the file, which is what a pipeline begins with.
    """
    from cluster import control

    if (decoders is None) != auto:
        raise click.UsageError("give either --decoders N or --auto")
    control.connect(address)
    supervisor = control.find(name)
    refused = control.ask(supervisor, "scale", decoders, timeout=READY_TIMEOUT)
    if refused:
        raise CommandError(
            f"{refused}; choose a number between, or change decoders.min and max and start it again"
        )
    if decoders is not None and not control.wait_ready(supervisor, READY_TIMEOUT):
        raise NotReady(f"{name} has not all its decoders and tables up yet; see `tablecast status {name}`")
    pool = control.ask(supervisor, "status")["decoders"]
    how = "following the load" if auto else f"held until `tablecast scale {name} --auto`"
    click.echo(f"{name}: {pool['wanted']} decoders, {how}")
