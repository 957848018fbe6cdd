"""The verb ``story``."""

from __future__ import annotations

import json

import click

from cluster.cli.options import ADDRESS, JSON


@click.command()
@click.argument("name")
@click.argument("origin")
@JSON
@ADDRESS
def story(name: str, origin: str, as_json: bool, address: str | None) -> None:
    """Say what happened to the record ORIGIN of pipeline NAME, step by step.

    ORIGIN is NAME/FEED/EPOCH/OFFSET, as every event has it under @origin.
    """
    from cluster import control
    from cluster.story import lines, story_of

    control.connect(address)
    found = story_of(name, origin)
    if as_json:
        click.echo(json.dumps(found))
        return
    for line in lines(found):
        click.echo(line)
