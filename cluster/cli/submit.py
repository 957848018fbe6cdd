"""The verb ``submit``, and ``job``: what it has Ray's job server run on the cluster."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import click

from cluster.config import PipelineConfig, load
from cluster.errors import CommandError, NotReady, PipelineExists

#: Seconds allowed to tables that are to deliver what they hold before a change.
DRAIN_TIMEOUT = 60.0

_FILE = click.argument("file", type=click.Path(path_type=Path))


@click.command()
@_FILE
@click.option(
    "--address",
    metavar="URL",
    envvar="RAY_API_SERVER_ADDRESS",
    required=True,
    help="The cluster's dashboard, http://HOST:8265; default RAY_API_SERVER_ADDRESS.",
)
@click.option(
    "--module",
    "modules",
    multiple=True,
    type=click.Path(path_type=Path, exists=True),
    help="A Python file or package of yours to take along; may be repeated.",
)
@click.option(
    "--env",
    "names",
    metavar="NAME",
    multiple=True,
    help="Take this environment variable for the file from here; others are the cluster's. May be repeated.",
)
@click.option("--no-follow", is_flag=True, help="Return as soon as the job is submitted.")
@click.option("--dry-run", is_flag=True, help="Only show what would change.")
def submit(
    file: Path,
    address: str,
    modules: tuple[Path, ...],
    names: tuple[str, ...],
    no_follow: bool,
    dry_run: bool,
) -> None:
    """Start or change a pipeline through a Ray job, and follow its log; Ctrl-C leaves both running."""
    from cluster import submit as submission

    missing = [name for name in names if name not in os.environ]
    if missing:
        raise CommandError(f"--env {missing[0]}: not set here; set it, or have it set on the cluster's head")
    given = {name: os.environ[name] for name in names}
    submission.check(file, given)
    server = submission.JobServer(address)
    job = submission.submit(server, file, given, modules, dry_run)
    click.echo(f"submitted {job}")
    if no_follow and not dry_run:
        click.echo(f"next: ray job logs -f --address {address} {job}")
        return
    try:
        details = server.follow(job, lambda text: click.echo(text, nl=False))
    except KeyboardInterrupt:
        click.echo(f"\n{job} goes on; again: ray job logs -f --address {address} {job}", err=True)
        return
    click.echo(f"{job}: {details.status.lower()}")
    sys.exit(1 if details.status == "FAILED" else 0)


@click.command(hidden=True)
@_FILE
@click.option("--dry-run", is_flag=True)
def job(file: Path, dry_run: bool) -> None:
    """Find or create the pipeline of FILE on the cluster of this Ray job, and tell how it goes."""
    from cluster import control
    from cluster.job import Follower, refuse_passing_folders, variables

    config = load(file, variables(file))
    refuse_passing_folders(config)
    control.connect()
    signal.signal(signal.SIGTERM, _leave)
    try:
        supervisor = _bring_about(config, dry_run)
    except PipelineExists:  # another job has just started it, perhaps from another file
        supervisor = _bring_about(config, dry_run)
    if supervisor is not None:
        Follower(config.pipeline, supervisor, click.echo).run()


def _bring_about(config: PipelineConfig, dry_run: bool) -> Any:
    """Let the pipeline be as `config` says; returns its supervisor, None of a dry run.

    Raises :class:`PipelineExists` if somebody else starts it meanwhile, :class:`NotReady` if it cannot be changed.
    """
    from cluster import control
    from cluster.cli.start import ask_endpoints, await_up, start
    from cluster.supervisor.difference import difference
    from cluster.supervisor.times import to_apply

    running = control.running_config(config.pipeline)
    steps = difference(running, config) if running else []
    if running is None:
        click.echo(f"{config.pipeline} is not running" + ("; it would be started" if dry_run else ""))
    else:
        click.echo(f"{config.pipeline} is running" + ("" if steps else ", and is what the file says"))
    for step in steps:
        click.echo(f"  {step}")
    if dry_run:
        return None
    if running is None or steps:
        ask_endpoints(config)
    supervisor = start(config) if running is None else control.find(config.pipeline)
    if steps:
        wait = to_apply(DRAIN_TIMEOUT) + control.ANSWER_TIMEOUT
        refused = control.ask(supervisor, "apply", config.dump(), DRAIN_TIMEOUT, timeout=wait)
        if refused:
            raise NotReady(f"nothing is changed: {refused}")
        await_up(config, supervisor)
    return supervisor


def _leave(*_: Any) -> None:
    """End at once, within what a job server allows; the pipeline goes on."""
    click.echo("this job is stopped; the pipeline goes on")
    sys.stdout.flush()
    os._exit(0)
