"""Options that several verbs of the command line have."""

from __future__ import annotations

import click

ADDRESS = click.option(
    "--address", metavar="ADDRESS", help="Ray cluster; default RAY_ADDRESS, else the local one."
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
