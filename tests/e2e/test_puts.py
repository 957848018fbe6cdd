"""Events put from a driver, tasks and an exiting process, while the writer is killed; and a sink of the user's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray

import tablecast
from actors.names import NAMESPACE, writer_name
from cluster.config import PipelineConfig
from cluster.errors import NoSuchPart, NoSuchPipeline
from protocols.kinetica.client import KineticaClient
from protocols.kronos.client import KronosClient
from tests.e2e import traffic
from tests.e2e.conftest import DEADLINE, wait_until

EXITING = """
import sys, ray
ray.init(sys.argv[1], log_to_driver=False)
import tablecast
tablecast.writer(sys.argv[2], "events").put({sys.argv[2] + ".exit": [{"n": n} for n in range(100)]})
"""


def test_puts_of_drivers_tasks_and_exiting_processes_arrive_once_though_the_writer_is_killed(
    start: Callable[[PipelineConfig], Any],
    make_config: Callable[..., PipelineConfig],
    unique: str,
    kinetica: KineticaClient,
    kronos: KronosClient,
    kronos_url: str,
    tmp_path: Path,
) -> None:
    traffic.create(kinetica, unique)
    lines = tmp_path / "lines.ndjson"
    sinks = {
        "events": {"kronos": {"url": kronos_url}},
        "lines": {"console": {"path": str(lines)}},
        "lake": {"parquet": {"path": str(tmp_path / "lake")}},
    }
    start(make_config(unique, [{"name": unique, "sinks": ["events"]}], sinks=sinks))

    @ray.remote  # type: ignore[untyped-decorator]
    def task(number: int) -> None:
        writer = tablecast.writer(unique, "events")
        for n in range(200):
            writer.put({f"{unique}.tasks": [{"task": number, "n": n}]}, timeout=DEADLINE)
        writer.close(DEADLINE)

    told: Counter[str] = Counter()
    writer = tablecast.writer(unique, "events", limits=tablecast.Limits(records=100))
    for kind in ("send", "flush", "error"):
        writer.on(kind, lambda event: told.update([event.kind]))
    tasks = [task.remote(number) for number in range(2)]
    for n in range(3000):
        writer.put({f"{unique}.a": [{"n": 2 * n}], f"{unique}.b": [{"n": 2 * n + 1}]})
        if n == 1500:
            ray.kill(ray.get_actor(writer_name(unique, "events"), NAMESPACE))
    with tablecast.writer(unique, "lines") as to_lines:
        to_lines.put({"s": [{"text": "hello ☃"}]})
    exiting = [sys.executable, "-c", EXITING, ray.get_runtime_context().gcs_address, unique]
    done = subprocess.run(exiting, capture_output=True, text=True, timeout=DEADLINE, env={**os.environ})
    assert done.returncode == 0, done.stderr
    writer.flush(DEADLINE)
    ray.get(tasks, timeout=DEADLINE)
    assert writer.pending == 0
    writer.close()

    for stream, first in (("a", 0), ("b", 1)):
        assert [e["n"] for e in traffic.events(kronos, f"{unique}.{stream}")] == list(range(first, 6000, 2))
    stored = traffic.events(kronos, f"{unique}.tasks")
    for number in range(2):
        mine = [event for event in stored if event["task"] == number]
        assert [event["n"] for event in mine] == list(range(200))
        assert traffic.holes(mine) == []
    assert [event["n"] for event in traffic.events(kronos, f"{unique}.exit")] == list(range(100))
    (line,) = map(json.loads, lines.read_text().splitlines())
    assert (line["@stream"], line["text"]) == ("s", "hello ☃")
    assert told["flush"] >= 60
    assert told["send"] == told["flush"] + told["error"]

    with pytest.raises(NoSuchPart, match="takes tables only"):
        tablecast.writer(unique, "lake")
    with pytest.raises(NoSuchPart, match="has no sink event; it has: events, lines, lake"):
        tablecast.writer(unique, "event")
    with pytest.raises(NoSuchPipeline):
        tablecast.writer(f"{unique}x", "events")


class Numbers:
    """A sink of a user's: the numbers of rows, a line each."""

    def __init__(self, pipeline: str, path: str) -> None:
        self._path = path

    def payloads(self, batch: Any) -> Any:
        from actors.writer.sinks.base import Payload

        yield Payload([batch.stream, *batch.rows["id"].to_pylist()], batch.rows.num_rows)

    def send(self, payload: Any) -> None:
        with open(self._path, "a") as file:
            print(*payload.body, file=file)

    def close(self) -> None:
        pass


def test_a_sink_of_ones_own_gets_the_rows(
    start: Callable[[PipelineConfig], Any],
    make_config: Callable[..., PipelineConfig],
    unique: str,
    kinetica: KineticaClient,
    tmp_path: Path,
) -> None:
    traffic.create(kinetica, unique)
    path = tmp_path / "numbers"
    custom = {"class": "tests.e2e.test_puts:Numbers", "options": {"path": str(path)}}
    start(make_config(unique, [unique], sinks={"mine": {"custom": custom}}))
    kinetica.insert_records(unique, [traffic.frame(n) for n in range(1000)])

    def rows() -> list[str]:
        return (
            [word for line in path.read_text().splitlines() for word in line.split()[1:]]
            if path.exists()
            else []
        )

    wait_until(lambda: len(rows()) >= 1000, "1000 rows at the sink")
    assert rows() == [str(n) for n in range(1000)]
