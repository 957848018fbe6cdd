"""The pool changes its size under load: nothing is lost or doubled, and order is kept, by the rows."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import ray

from actors.ray_state import named_actors
from cluster import control
from cluster.config import PipelineConfig
from protocols.kinetica.client import KineticaClient
from protocols.kronos.client import KronosClient
from tests.e2e import traffic
from tests.e2e.conftest import DEADLINE, wait_until


def pool(supervisor: Any) -> dict[str, Any]:
    decoders: dict[str, Any] = control.ask(supervisor, "status", timeout=DEADLINE)["decoders"]
    return decoders


def test_one_to_four_to_two_decoders_while_rows_flow(
    start: Callable[[PipelineConfig], Any],
    make_config: Callable[..., PipelineConfig],
    unique: str,
    kinetica: KineticaClient,
    kronos: KronosClient,
) -> None:
    tables = [f"{unique}x", f"{unique}y"]
    for table in tables:
        traffic.create(kinetica, table)
    supervisor = start(make_config(unique, list(tables), decoders={"min": 1, "max": 4}))
    with traffic.Publisher(kinetica, tables, rows=200, interval=0.02) as publisher:
        assert control.ask(supervisor, "scale", 4) is None
        wait_until(lambda: _working(supervisor) == 4, "rows pass through all four")

        old = ray.get(supervisor.pid.remote())
        os.kill(old, signal.SIGKILL)
        wait_until(lambda: control.ask(supervisor, "pid", timeout=DEADLINE) != old, "a new supervisor")
        wait_until(lambda: _working(supervisor) == 4, "which knows all four")
        assert pool(supervisor)["mode"] == "manual"

        assert control.ask(supervisor, "scale", 2, timeout=DEADLINE) is None
        assert not [name for name in _decoders(unique) if name.endswith(("/2", "/3"))], (
            "those left have ended"
        )
        before = pool(supervisor)["members"]
        wait_until(lambda: _moved_on(pool(supervisor)["members"], before), "rows pass through both that stay")
    status = control.ask(supervisor, "status")
    assert [(step["from"], step["to"], step["by"]) for step in status["decoders"]["steps"]] == [
        (1, 4, "person"),
        (4, 2, "person"),
    ]
    assert status["restarts"] == 0
    assert control.stop_pipeline(unique, DEADLINE) == control.Left()
    for table in tables:
        stored = traffic.events(kronos, table)
        assert [event["id"] for event in stored] == list(range(publisher.counts[table]))
        assert traffic.holes(stored) == []


def _working(supervisor: Any) -> int:
    return sum(member["blocks"] > 0 for member in pool(supervisor)["members"])


def _moved_on(members: list[dict[str, Any]], before: list[dict[str, Any]]) -> bool:
    return all(now["blocks"] > then["blocks"] for now, then in zip(members, before, strict=True))


def _decoders(pipeline: str) -> list[str]:
    return list(named_actors(f"{pipeline}/decoder/"))


#: Numbers written and read again: with twenty such columns a decoder gets ten thousand rows or so done per second.
SLOW = " + ".join(f"CAST(CAST(x + {n} AS VARCHAR) AS DOUBLE)" for n in range(20))

ROWS = 5_000


def test_the_pool_follows_the_load_and_says_why(
    start: Callable[[PipelineConfig], Any],
    make_config: Callable[..., PipelineConfig],
    unique: str,
    kinetica: KineticaClient,
    tmp_path: Path,
) -> None:
    """Decoding is the limit while rows keep coming: the file of the sink takes a number for each."""
    traffic.create(kinetica, unique)
    heavy = {"with_columns": {f"c{n}": SLOW for n in range(20)}, "select": ["id"]}
    lines = tmp_path / "events.ndjson"
    quick = {"backlog_seconds": 0.2, "grow_after": 1.0, "shrink_after": 1.0, "cool_down": 0.5}
    supervisor = start(
        make_config(
            unique,
            [{"name": unique, "events": ["insert"], "transform": heavy}],
            sinks={"lines": {"console": {"path": str(lines)}}},
            decoders={"min": 1, "max": 2, "scaling": quick},
            tuning={"block": {"records": 1000}},
        )
    )
    assert pool(supervisor)["mode"] == "automatic"
    inserted = 0

    def loaded() -> list[dict[str, Any]]:
        """Have rows wait; the steps so far."""
        nonlocal inserted
        status = control.ask(supervisor, "status")
        if status["tables"][0]["pending"] < 2 * ROWS:
            kinetica.insert_records(unique, [traffic.frame(n) for n in range(inserted, inserted + ROWS)])
            inserted += ROWS
        steps: list[dict[str, Any]] = status["decoders"]["steps"]
        return steps

    (step,) = wait_until(loaded, "the pool has grown")
    assert (step["from"], step["to"], step["by"]) == (1, 2, "load")
    assert "backlog" in step["reason"]
    assert "busy" in step["reason"]
    wait_until(lambda: loaded() and _working(supervisor) == 2, "rows pass through both")
    steps = wait_until(lambda: _steps(supervisor, 2), "the pool has shrunk again")
    assert (steps[1]["from"], steps[1]["to"], steps[1]["by"]) == (2, 1, "load")
    assert "nothing waits" in steps[1]["reason"]
    assert control.stop_pipeline(unique, DEADLINE) == control.Left()
    stored = [orjson.loads(line)["id"] for line in lines.read_bytes().splitlines()]
    assert stored == list(range(inserted))


def _steps(supervisor: Any, count: int) -> list[dict[str, Any]] | None:
    steps: list[dict[str, Any]] = pool(supervisor)["steps"]
    return steps if len(steps) >= count else None
