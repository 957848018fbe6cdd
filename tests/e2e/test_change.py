"""A running pipeline becomes another one: what is untouched goes on, and nothing is thrown away for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cluster import control
from cluster.config import PipelineConfig
from protocols.kinetica.client import KineticaClient
from protocols.kronos.client import KronosClient
from tests.e2e import traffic
from tests.e2e.conftest import DEADLINE, wait_until


def tables(supervisor: Any) -> dict[str, dict[str, Any]]:
    return {table["name"]: table for table in control.ask(supervisor, "status")["tables"]}


def test_a_table_with_undelivered_records_stays_and_a_sink_is_added(
    start: Callable[[PipelineConfig], Any],
    make_config: Callable[..., PipelineConfig],
    unique: str,
    kinetica: KineticaClient,
    kronos: KronosClient,
    kronos_url: str,
    dead_url: str,
) -> None:
    good, stuck = f"{unique}a", f"{unique}b"
    for table in (good, stuck):
        traffic.create(kinetica, table)
    sinks = {"events": {"kronos": {"url": kronos_url}}, "dead": {"kronos": {"url": dead_url}}}
    both = [{"name": good, "sinks": ["events"]}, {"name": stuck, "sinks": ["dead"]}]
    supervisor = start(make_config(unique, both, sinks=sinks))
    kinetica.insert_records(stuck, [traffic.frame(0)])
    wait_until(lambda: tables(supervisor)[stuck]["pending"] == 1, "a record that cannot be delivered")
    before = tables(supervisor)

    without = make_config(unique, both[:1], sinks=sinks)
    refused = control.ask(supervisor, "apply", without.dump(), 0.5)
    assert refused.startswith(f"1 records of {stuck} are not delivered yet")
    assert control.wait_ready(supervisor, DEADLINE)
    after = tables(supervisor)
    assert (after[stuck]["state"], after[stuck]["pending"]) == ("receiving", 1)
    assert after[good]["pid"] == before[good]["pid"]

    sinks["other"] = {"kronos": {"url": kronos_url, "namespace": "other"}}
    both[0]["sinks"] = ["events", "other"]
    assert control.ask(supervisor, "apply", make_config(unique, both, sinks=sinks).dump(), 0.5) is None
    assert control.wait_ready(supervisor, DEADLINE)
    kinetica.insert_records(good, [traffic.frame(number) for number in range(10)])
    for namespace in ("kronos", "other"):
        wait_until(lambda n=namespace: len(traffic.events(kronos, good, n)) == 10, f"rows in {namespace}")
    again = tables(supervisor)
    assert again[stuck]["pid"] == after[stuck]["pid"]
    assert again[good]["pid"] != after[good]["pid"]
    assert control.running_config(unique) == make_config(unique, both, sinks=sinks)
