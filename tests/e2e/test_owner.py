"""A stopped process takes nothing along, and a table that left the file leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from cluster import control
from cluster.config import PipelineConfig
from cluster.servers import embedded_server
from protocols.kinetica.client import KineticaClient
from protocols.kronos.client import KronosClient
from tests.e2e import traffic
from tests.e2e.conftest import DEADLINE, wait_until


def _table(supervisor: Any, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(
        table for table in control.ask(supervisor, "status")["tables"] if table["name"] == name
    )
    return found


def test_a_stopped_monitor_shows_and_is_replaced(
    start: Callable[[PipelineConfig], Any],
    make_config: Callable[..., PipelineConfig],
    unique: str,
    kinetica: KineticaClient,
    kronos: KronosClient,
) -> None:
    traffic.create(kinetica, unique)
    supervisor = start(make_config(unique, [unique], tuning={"unresponsive": 6.0}))
    with traffic.Publisher(kinetica, [unique]) as publisher:
        wait_until(lambda: traffic.events(kronos, unique), "rows stored")
        stopped = psutil.Process(_table(supervisor, unique)["pid"])
        stopped.suspend()
        silent = wait_until(
            lambda: (table := _table(supervisor, unique))["state"] == "silent" and table, "silence shows"
        )
        assert silent["problem"].startswith("not answering for ")
        back = wait_until(
            lambda: (table := _table(supervisor, unique))["state"] == "receiving" and table,
            "another receives",
        )
        assert back["pid"] != stopped.pid
        # It had to be dead before another could have the spool: there is nobody left to wake.
        assert not stopped.is_running()
        goal = publisher.counts[unique]
        wait_until(lambda: _has(kronos, unique, goal), "rows stored again")
    assert control.stop_pipeline(unique, DEADLINE) == control.Left()
    stored = traffic.events(kronos, unique)
    assert traffic.doubles(stored) == {}
    assert traffic.holes(stored) == []


def _has(kronos: KronosClient, table: str, row: int) -> bool:
    return any(event["id"] >= row for event in traffic.events(kronos, table))


def test_a_table_that_left_the_file_is_drained_at_the_next_start(
    start: Callable[[PipelineConfig], Any],
    make_config: Callable[..., PipelineConfig],
    unique: str,
    kinetica: KineticaClient,
    kronos: KronosClient,
    kronos_url: str,
    tmp_path: Path,
) -> None:
    leaves, stays = f"{unique}x", f"{unique}y"
    for table in (leaves, stays):
        traffic.create(kinetica, table)
    sinks = {
        "events": {"kronos": {"url": kronos_url}},
        "late": {"kronos": {"url": "http://127.0.0.1:9"}},
        "gone": {"kronos": {"url": "http://127.0.0.1:9"}},
    }
    supervisor = start(make_config(unique, [leaves, stays], sinks=sinks))
    kinetica.insert_records(leaves, [traffic.frame(n) for n in range(1000)])
    wait_until(lambda: len(traffic.events(kronos, leaves)) == 1000, "rows stored in the sink that answers")
    wait_until(lambda: _table(supervisor, leaves)["pending"] == 1000, "the rows wait for the others")
    assert control.stop_pipeline(unique, 0.0).pending >= 2000

    with embedded_server("kronos", "--data-dir", str(tmp_path / "late")) as url:
        sinks["late"] = {"kronos": {"url": url}}
        del sinks["gone"]
        supervisor = start(make_config(unique, [stays], sinks=sinks))
        late = KronosClient(url)
        wait_until(lambda: len(traffic.events(late, leaves)) == 1000, "its rows are delivered")
        held = wait_until(
            lambda: [s for s in control.ask(supervisor, "status")["spools"] if s["state"] == "held"],
            "what no sink takes is kept",
        )
        assert [(spool["table"], spool["records"]) for spool in held] == [(leaves, 1000)]
        assert "the file has no sink gone any more" in held[0]["problem"]
        assert [event["id"] for event in traffic.events(late, leaves)] == list(range(1000))
        late.close()
    assert len(traffic.events(kronos, leaves)) == 1000
    assert control.stop_pipeline(unique, DEADLINE) == control.Left()
