"""Operating a pipeline: pause and resume over deaths of the monitor and the supervisor; logs, tail and story."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

from click.testing import Result

from cluster import control
from cluster.config import PipelineConfig
from protocols.kinetica.client import KineticaClient
from protocols.kronos.client import KronosClient
from tests.e2e import traffic
from tests.e2e.conftest import wait_until
from tests.e2e.test_deadletters import tablecast as tablecast  # a fixture

Tablecast = Callable[..., Result]


def test_a_sink_and_a_table_are_paused_over_deaths_and_go_on(
    start: Callable[[PipelineConfig], Any],
    make_config: Callable[..., PipelineConfig],
    tablecast: Tablecast,
    kinetica: KineticaClient,
    kronos: KronosClient,
    kronos_url: str,
    unique: str,
) -> None:
    one, two = f"{unique}a", f"{unique}b"
    for table in (one, two):
        traffic.create(kinetica, table)
    sinks = {
        "events": {"kronos": {"url": kronos_url}},
        "copy": {"kronos": {"url": kronos_url, "namespace": "other"}},
    }
    tables = [{"name": table, "increasing_column": "id"} for table in (one, two)]
    supervisor = start(make_config(unique, tables, sinks=sinks))
    rows = dict.fromkeys((one, two), 0)

    def insert(count: int = 50) -> None:
        for table in rows:
            kinetica.insert_records(table, [traffic.frame(rows[table] + n) for n in range(count)])
            rows[table] += count

    def stored(table: str, namespace: str | None = None) -> int:
        return len(traffic.events(kronos, table, namespace=namespace))

    def status() -> dict[str, Any]:
        found: dict[str, Any] = control.ask(supervisor, "status")
        return found

    def table_status(table: str) -> dict[str, Any]:
        return next(each for each in status()["tables"] if each["name"] == table)

    insert()
    wait_until(lambda: stored(one) == stored(two) == stored(two, "other") == 50, "the first rows")

    # A sink gets nothing more, a table delivers nothing more, and whoever dies meanwhile does not forget it.
    assert "sink copy is paused" in tablecast("pause", unique, "copy").output
    assert f"table {two} is paused" in tablecast("pause", unique, two).output
    assert "no table or sink nosuch" in tablecast("pause", unique, "nosuch", code=2).output
    killed = table_status(two)["pid"]
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: table_status(two)["pid"] not in (None, killed), "the monitor is back")
    wait_until(lambda: table_status(two)["state"] == "receiving", "and receives")
    before = status()["supervisor_pid"]
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: status()["supervisor_pid"] != before, "the supervisor is back")
    wait_until(lambda: table_status(two)["state"] == "receiving", "and knows its actors")
    insert()
    wait_until(lambda: stored(one) == 100, "what is not paused goes on")
    wait_until(lambda: table_status(two)["pending"] == 50, "what is paused is received")
    assert (stored(one, "other"), stored(two), stored(two, "other")) == (50, 50, 50)
    assert [each["paused"] for each in status()["tables"]] == [False, True]
    assert {each["name"]: each["paused"] for each in status()["sinks"]} == {"events": False, "copy": True}
    assert table_status(two)["restarts"] == 1  # counted before the supervisor's death
    assert "nothing unexplained" in tablecast("verify", unique).output

    story = json.loads(tablecast("story", unique, _origin(unique, two, table_status(two)), "--json").output)
    assert {each["sink"]: each["note"] for each in story["sinks"]} == {"events": "paused", "copy": "paused"}

    resumed = tablecast("resume", unique).output
    assert f"table {two} goes on" in resumed
    assert "sink copy goes on" in resumed
    wait_until(lambda: stored(two) == stored(one, "other") == stored(two, "other") == 100, "all is delivered")
    for table in rows:
        ids = [event["id"] for event in traffic.events(kronos, table)]
        assert ids == list(range(100))
    assert "nothing was paused" in tablecast("resume", unique).output

    # The same record at the end of its way, once its monitor has been told that it is stored.
    def delivered() -> dict[str, Any] | None:
        told: dict[str, Any] = json.loads(tablecast("story", unique, story["origin"], "--json").output)
        return told if all(each["state"] == "delivered" for each in told["sinks"]) else None

    told = wait_until(delivered, "both sinks have it")
    whats = [step["what"] for step in told["steps"] if step["sink"] in (None, "events")]
    way = ["received", "committed", "dispatched", "decoded", "handed over", "durable", "acknowledged"]
    # It is decoded once for both sinks, which may be before it is dispatched to this one.
    assert whats in (way, [*way[:2], "decoded", "dispatched", *way[4:]])
    assert "it may come" in tablecast("story", unique, f"{unique}/{two}/{2**60}/0").output

    # What its actors logged is about it, and what others logged of it.
    logs = [json.loads(line) for line in tablecast("logs", unique, two, "--json").output.splitlines()]
    assert {"supervisor", f"monitor/{two}"} <= {record["actor"] for record in logs}
    assert all(record.get("table") == two for record in logs)
    assert any(f"{unique}/monitor/{two} failed" in record["message"] for record in logs)
    assert "no actor, table or sink nosuch" in tablecast("logs", unique, "nosuch", code=2).output

    # Events as they pass.
    seen: list[str] = []
    looking = threading.Thread(
        target=lambda: seen.append(tablecast("tail", unique, one, "-n", "20", "--json").stdout), daemon=True
    )
    looking.start()

    def shown() -> bool:
        insert(20)
        looking.join(0.5)
        return not looking.is_alive()

    wait_until(shown, "tail has seen 20 events")
    events = [json.loads(line) for line in seen[0].splitlines()]
    assert len(events) == 20
    wait_until(lambda: stored(one) == rows[one], "all stored")
    by_origin = {event["@origin"]: event for event in traffic.events(kronos, one)}
    assert all(by_origin[event["@origin"]]["id"] == event["id"] for event in events)


def _origin(pipeline: str, table: str, status: dict[str, Any]) -> str:
    return f"{pipeline}/{table}/{status['epoch']}/7"
