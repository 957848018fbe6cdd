"""Gaps of every kind while rows flow: found within seconds, and healed so that every row is there exactly once."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cluster import control
from cluster.config import PipelineConfig
from protocols.kinetica.client import KineticaClient
from protocols.kinetica.server import TableServer
from protocols.kronos.client import KronosClient
from tests.e2e import traffic
from tests.e2e.conftest import DEADLINE, wait_until

Make = Callable[..., PipelineConfig]
Start = Callable[[PipelineConfig], Any]


def _source(url: str) -> dict[str, Any]:
    return {"kinetica": {"url": url, "timeout": 3}}


def _table(name: str, **keys: Any) -> dict[str, Any]:
    return {"name": name, "increasing_column": "id", **keys}


def _status(supervisor: Any) -> dict[str, Any]:
    found: dict[str, Any] = control.ask(supervisor, "status")["tables"][0]
    return found


def _caught_up(supervisor: Any) -> bool:
    catch_up: dict[str, Any] = _status(supervisor)["catch_up"] or {}
    return str(catch_up.get("state")) == "done"


def _wait_for_another(supervisor: Any, former: int) -> None:
    def back() -> bool:
        now = _status(supervisor)
        return now["state"] == "receiving" and now["pid"] != former

    wait_until(back, "the monitor is back")


def _stored(kronos: KronosClient, table: str, number: int) -> None:
    wait_until(lambda: any(event["id"] >= number for event in traffic.events(kronos, table)), "rows stored")


def _exactly_once(kronos: KronosClient, table: str, count: int) -> None:
    wait_until(lambda: len(traffic.events(kronos, table)) >= count, f"{count} rows of {table} stored")
    stored = traffic.events(kronos, table)
    assert Counter(event["id"] for event in stored) == Counter(range(count))
    assert traffic.holes(stored) == []


@pytest.fixture
def ports() -> tuple[int, int]:
    """Two free ports."""
    with socket.socket() as first, socket.socket() as second:
        for each in (first, second):
            each.bind(("127.0.0.1", 0))
        return first.getsockname()[1], second.getsockname()[1]


@contextmanager
def _server(ports: tuple[int, int], folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A table server on these ports, with what it left in the folder; killed at the end."""
    command = [sys.executable, "-m", "cluster", "serve", "kinetica", "--data-dir", str(folder)]
    command += ["--port", str(ports[0]), "--monitor-port", str(ports[1])]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert "serving" in process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.wait()


def test_the_table_server_killed_and_started_again(
    start: Start,
    make_config: Make,
    unique: str,
    kronos: KronosClient,
    ports: tuple[int, int],
    tmp_path: Path,
) -> None:
    with KineticaClient(f"http://127.0.0.1:{ports[0]}", timeout=5.0) as client:
        with _server(ports, tmp_path / "data"):
            traffic.create(client, unique)
            config = make_config(unique, [_table(unique)], source=_source(client.url))
            supervisor = start(config)
            client.insert_records(unique, [traffic.frame(n) for n in range(100)])
            wait_until(lambda: len(traffic.events(kronos, unique)) == 100, "the first rows stored")
        with _server(ports, tmp_path / "data"):
            restarted = time.monotonic()
            client.insert_records(unique, [traffic.frame(n) for n in range(100, 5000)])
            status = wait_until(
                lambda: (now := _status(supervisor)).get("gaps", {}).get("counts") == {"healed": 1} and now,
                "the gap healed",
            )
            print(f"\nserver restarted: healed within {time.monotonic() - restarted:.1f} s")
            assert status["gaps"]["latest"][0]["missing"] == 0
            client.insert_records(unique, [traffic.frame(n) for n in range(5000, 6000)])
            _exactly_once(kronos, unique, 6000)
            assert control.stop_pipeline(unique, DEADLINE) == control.Left()


def test_messages_that_the_publisher_drops_while_rows_flow(
    start: Start, make_config: Make, unique: str, kronos: KronosClient
) -> None:
    """A send mark of 1: a burst of large operations overruns the publisher."""
    with (
        TableServer(port=0, monitor_port=0, send_hwm=1, message_records=200) as server,
        KineticaClient(server.url) as client,
    ):
        traffic.create(client, unique)
        config = make_config(unique, [_table(unique)], source=_source(server.url))
        supervisor = start(config)
        wait_until(lambda: _caught_up(supervisor), "caught up")
        dropped = time.monotonic()
        client.insert_records(unique, [traffic.frame(n) for n in range(150_000)])
        # Rows keep flowing, in operations too small to be dropped.
        count = 150_000
        while not _status(supervisor)["gaps"]["latest"]:
            client.insert_records(unique, [traffic.frame(n) for n in range(count, count + 100)])
            count += 100
            assert time.monotonic() < dropped + 30.0
        found = time.monotonic() - dropped
        wait_until(lambda: set(_status(supervisor)["gaps"]["counts"]) == {"healed"}, "healed")
        healed = time.monotonic() - dropped
        status = _status(supervisor)
        recovered = sum(gap["recovered"] for gap in status["gaps"]["latest"])
        print(f"\ndropped: found within {found:.1f} s, {recovered} rows healed within {healed:.1f} s")
        assert recovered > 0
        _exactly_once(kronos, unique, count)
        assert control.stop_pipeline(unique, DEADLINE) == control.Left()


def test_a_monitor_killed_while_rows_flow_loses_nothing(
    start: Start, make_config: Make, unique: str, kinetica: KineticaClient, kronos: KronosClient
) -> None:
    traffic.create(kinetica, unique)
    supervisor = start(make_config(unique, [_table(unique)]))
    with traffic.Publisher(kinetica, [unique]) as publisher:
        for _ in range(2):
            _stored(kronos, unique, publisher.counts[unique] + 100)
            pid = _status(supervisor)["pid"]
            os.kill(pid, signal.SIGKILL)
            _wait_for_another(supervisor, pid)
    count = publisher.counts[unique]
    _exactly_once(kronos, unique, count)
    assert control.stop_pipeline(unique, DEADLINE) == control.Left()
    _exactly_once(kronos, unique, count)


def test_a_snapshot_while_rows_flow(
    start: Start, make_config: Make, unique: str, kinetica: KineticaClient, kronos: KronosClient
) -> None:
    traffic.create(kinetica, unique)
    with traffic.Publisher(kinetica, [unique], rows=2000) as publisher:
        wait_until(lambda: publisher.counts[unique] > 20_000, "rows inserted")
        supervisor = start(make_config(unique, [_table(unique, start="snapshot")]))
        wait_until(lambda: _caught_up(supervisor), "snapshot taken")
    _exactly_once(kronos, unique, publisher.counts[unique])
    assert control.stop_pipeline(unique, DEADLINE) == control.Left()
