"""A table with a standby loses no row when its monitor dies or is stopped, although it has no increasing column."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from cluster import control
from cluster.config import PipelineConfig
from protocols.kinetica.client import KineticaClient
from protocols.kronos.client import KronosClient
from tests.e2e import traffic
from tests.e2e.conftest import DEADLINE, wait_until
from tests.e2e.test_nodes import TwoHosts, begin, hosts

__all__ = ["begin", "hosts"]  # fixtures


class Running(NamedTuple):
    table: str
    supervisor: Any
    publisher: traffic.Publisher
    watch: traffic.StoreWatch


@pytest.fixture
def running(
    start: Callable[[PipelineConfig], Any],
    make_config: Callable[..., PipelineConfig],
    unique: str,
    kinetica: KineticaClient,
    kronos_url: str,
) -> Iterator[Running]:
    """A pipeline of one table with a standby, through which rows flow."""
    traffic.create(kinetica, unique)
    with _flowing(
        unique, start(make_config(unique, [{"name": unique, "standby": True}])), kinetica, kronos_url
    ) as it:
        yield it


@contextmanager
def _flowing(table: str, supervisor: Any, kinetica: KineticaClient, kronos_url: str) -> Iterator[Running]:
    with (
        traffic.StoreWatch(kronos_url, [("kronos", table)]) as watch,
        traffic.Publisher(kinetica, [table], rows=10, interval=0.02) as publisher,
    ):
        yield Running(table, supervisor, publisher, watch)


def _table(running: Running) -> dict[str, Any]:
    table: dict[str, Any] = control.ask(running.supervisor, "status")["tables"][0]
    return table


def _formed(running: Running) -> dict[str, Any]:
    """The table, once it has a monitor, and a standby that could take over at once."""
    deadline = time.monotonic() + DEADLINE
    while True:
        table = _table(running)
        standby = table["standby"]
        if table["state"] == "receiving" and standby["state"] == "ready" and standby["aligned"]:
            return table
        assert time.monotonic() < deadline, repr(table)
        time.sleep(0.05)


def _wait_for_new_rows(running: Running) -> None:
    goal = dict(running.publisher.counts)
    wait_until(lambda: running.watch.has(goal), f"rows inserted since are stored: {_table(running)}")


def _finish(running: Running, kronos: KronosClient) -> None:
    """Stop, drain, and compare with what was inserted."""
    running.publisher.stop()
    assert control.stop_pipeline(running.table, DEADLINE) == control.Left()
    stored = [event["id"] for event in traffic.events(kronos, running.table)]
    assert stored == list(range(running.publisher.counts[running.table]))


def test_the_monitor_killed_and_the_next_one_too(running: Running, kronos: KronosClient) -> None:
    waits = []
    for _ in range(2):
        before = _formed(running)
        _wait_for_new_rows(running)
        running.watch.reset()
        os.kill(before["pid"], signal.SIGKILL)
        _wait_for_new_rows(running)
        waits.append(running.watch.longest()[f"kronos/{running.table}"])
        assert _table(running)["pid"] == before["standby"]["pid"]
    print(f"\nlongest waits for a new row: {', '.join(f'{seconds:.2f} s' for seconds in waits)}")
    _finish(running, kronos)


def test_a_stopped_monitor_that_goes_on_later_does_no_harm(running: Running, kronos: KronosClient) -> None:
    before = _formed(running)
    os.kill(before["pid"], signal.SIGSTOP)
    try:
        _wait_for_new_rows(running)
        assert _table(running)["pid"] == before["standby"]["pid"]
    finally:
        os.kill(before["pid"], signal.SIGCONT)
    _formed(running)
    _wait_for_new_rows(running)
    time.sleep(1.0)  # for what must not come
    _finish(running, kronos)


def test_the_host_of_the_monitor_lost(
    hosts: TwoHosts,
    begin: Callable[[PipelineConfig], Any],
    make_config: Callable[..., PipelineConfig],
    unique: str,
    kinetica: KineticaClient,
    kronos: KronosClient,
    kronos_url: str,
    tmp_path: Path,
) -> None:
    """With its spool and all that it had received. When it is back, nothing of that is delivered again."""
    traffic.create(kinetica, unique)
    spool = {"path": str(tmp_path / "${HOST_DIRECTORY}"), "min_free": 0}
    supervisor = begin(make_config(unique, [{"name": unique, "standby": True}], spool=spool))
    with _flowing(unique, supervisor, kinetica, kronos_url) as running:
        before = _formed(running)
        assert {before["host"], before["standby"]["host"]} == {"a", "b"}
        if before["host"] == "a":
            os.kill(before["pid"], signal.SIGKILL)
            wait_until(lambda: _table(running)["host"] == "b", "the monitor is on host b")
            _formed(running)
        _wait_for_new_rows(running)
        running.watch.reset()
        hosts.lose()
        _wait_for_new_rows(running)
        print(f"\nlongest wait for a new row: {running.watch.longest()[f'kronos/{unique}']:.2f} s")
        assert _table(running)["host"] == "a"
        hosts.bring_back()
        _formed(running)
        _wait_for_new_rows(running)
        _finish(running, kronos)
