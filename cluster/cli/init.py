"""The verb ``init``: a pipeline file to start from."""

from __future__ import annotations

import os
from pathlib import Path

import click
from pydantic import TypeAdapter, ValidationError

from cluster.config.types import Url
from cluster.errors import CommandError, NotReachable
from cluster.starter import starter
from protocols.kinetica.client import KineticaClient
from protocols.kinetica.errors import KineticaError


@click.command()
@click.option("--url", required=True, metavar="URL", help="The table server, http://HOST:PORT.")
@click.option(
    "--out",
    default=Path("pipeline.yaml"),
    show_default=True,
    type=click.Path(path_type=Path),
    help="The file.",
)
@click.option("--user", help="User for HTTP basic authentication; else KINETICA_USER.")
def init(url: str, out: Path, user: str | None) -> None:
    """Write a pipeline file from the tables of a server; the password is taken from KINETICA_PASSWORD."""
    try:
        url = TypeAdapter(Url).validate_python(url)
    except ValidationError as error:
        raise CommandError(f"--url: {error.errors()[0]['ctx']['error']}") from None
    username = user or os.environ.get("KINETICA_USER")
    password = os.environ.get("KINETICA_PASSWORD") if username else None
    with KineticaClient(url, username=username or None, password=password) as client:
        try:
            tables = client.show_tables()
        except KineticaError as error:
            raise NotReachable(f"--url: {error}") from error
    if not tables:
        raise CommandError(
            f"there are no tables at {url} that this user may see; create one, or give another user"
        )
    text = starter(url, str(out), tables, user)
    try:
        with open(out, "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise CommandError(f"{out} exists and is left as it is; give another name with --out") from None
    except OSError as error:
        raise CommandError(
            f"{out} cannot be written: {error.strerror}; give another name with --out"
        ) from None
    click.echo(
        f"{out}: {len(tables)} table{'s' * (len(tables) != 1)}; look it over, then: tablecast check {out}"
    )
