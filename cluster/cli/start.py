"""What ``up``, ``run`` and ``submit`` share: asking the endpoints, starting a pipeline, and a line about it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import click

from cluster.config import PipelineConfig
from cluster.errors import NotReady

#: Seconds allowed to a pipeline to be up.
READY_TIMEOUT = 180.0


def ask_endpoints(config: PipelineConfig, say: Callable[[str], None] | None = None) -> None:
    from cluster.check import probe

    for line in probe(config):
        if say is not None:
            say(line)


def start(config: PipelineConfig) -> Any:
    """Start the pipeline, wait until it is up, and return its supervisor."""
    from cluster import control

    supervisor = control.start_pipeline(config)
    await_up(config, supervisor)
    return supervisor


def await_up(config: PipelineConfig, supervisor: Any) -> None:
    """Wait until all actors of the pipeline work, telling of problems meanwhile."""
    from cluster import control

    started = time.monotonic()
    said: set[tuple[str, str]] = set()

    def tell(status: dict[str, Any]) -> None:
        for part in (*status["tables"], *status["sinks"], *status["decoders"]["members"]):
            line = (part["name"], part["problem"])
            if part["problem"] and line not in said:
                said.add(line)
                click.echo(f"{part['name']}: {part['problem']}", err=True)

    if not control.wait_ready(supervisor, READY_TIMEOUT, tell):
        raise NotReady(
            f"{config.pipeline} is not up after {READY_TIMEOUT:.0f} s; see `tablecast status {config.pipeline}`"
        )
    click.echo(f"{config.pipeline} is up after {time.monotonic() - started:.1f} s: {count(config)}")
    web = control.ask(supervisor, "status")["web"]
    if web["url"] or web["problem"]:
        click.echo(f"watch it at {web['url']}" if web["url"] else web["problem"])


def count(config: PipelineConfig) -> str:
    numbers = ((len(config.tables), "table"), (len(config.sinks), "sink"), (config.decoders.min, "decoder"))
    return ", ".join(f"{number} {word}{'s' if number != 1 else ''}" for number, word in numbers)


def summary(status: dict[str, Any]) -> str:
    rate = sum(table["records_per_second"] for table in status["tables"])
    pending = sum(table["pending"] for table in status["tables"])
    stored = sum(sink["records"] for sink in status["sinks"])
    return f"{rate:,.0f} records/s received, {stored:,} delivered, {pending:,} pending, {status['restarts']} restarts"


def all_read(status: dict[str, Any]) -> bool:
    """Whether every table is read to its end and delivered: then nothing will ever happen again."""
    return all(table["state"] == "done" and not table["pending"] for table in status["tables"])
