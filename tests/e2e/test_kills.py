"""SIGKILL to any process of a pipeline while rows flow: it comes back, the rest goes on, nothing is lost or doubled.

Three tables, two sinks: the death of the writer of one sink concerns only the tables that go there.
"""

from __future__ import annotations

import os
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import ray

from cluster import control
from cluster.config import PipelineConfig
from protocols.kinetica.client import KineticaClient
from protocols.kronos.client import KronosClient
from tests.e2e import traffic
from tests.e2e.conftest import DEADLINE, wait_until

#: No table that a kill does not concern may be without a newly stored row for longer, in seconds. On an idle machine it
#: is a fraction of a second; the figures are printed.
WINDOW = 10.0

KILLS = 3


class Running(NamedTuple):
    name: str
    tables: list[str]
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
    """A pipeline through which rows flow: tables a and b into the sink `first`, c into `second`."""
    tables = [f"{unique}{letter}" for letter in "abc"]
    for table in tables:
        traffic.create(kinetica, table)
    sinks = {
        "first": {"kronos": {"url": kronos_url}},
        "second": {"kronos": {"url": kronos_url, "namespace": "other"}},
    }
    goes_to = dict(zip(tables, ("first", "first", "second"), strict=True))
    entries = [{"name": table, "sinks": [sink]} for table, sink in goes_to.items()]
    supervisor = start(make_config(unique, entries, sinks=sinks))
    streams = [("kronos", tables[0]), ("kronos", tables[1]), ("other", tables[2])]
    with (
        traffic.StoreWatch(kronos_url, streams) as watch,
        traffic.Publisher(kinetica, tables) as publisher,
    ):
        for namespace, table in streams:
            wait_until(lambda n=namespace, t=table: watch.newest(n, t) >= 0, f"rows of {table} stored")
        yield Running(unique, tables, supervisor, publisher, watch)


def _members(supervisor: Any) -> dict[str, dict[str, Any]]:
    status = control.ask(supervisor, "status")
    groups = {
        "monitor": status["tables"],
        "decoder": status["decoders"]["members"],
        "writer": status["sinks"],
    }
    return {f"{kind}/{member['name']}": member for kind, members in groups.items() for member in members}


def _kill(running: Running, member: str, others: list[str]) -> None:
    """Kill `member` again and again; `others` are the streams that must go on meanwhile."""
    recoveries, longest = [], 0.0
    for _ in range(KILLS):
        before = _members(running.supervisor)[member]
        running.watch.reset()
        killed = time.monotonic()
        os.kill(before["pid"], signal.SIGKILL)
        pid = before["pid"]
        wait_until(lambda pid=pid: _is_back(_members(running.supervisor)[member], pid), f"{member} is back")
        recoveries.append(time.monotonic() - killed)
        longest = max(longest, *(running.watch.longest()[stream] for stream in others))
        # The next kill comes after everything flows again: each is a case of its own.
        goal = dict(running.publisher.counts)
        wait_until(lambda goal=goal: running.watch.has(goal), "rows inserted since are stored")
    print(
        f"\n{member}: back after a median of {statistics.median(recoveries):.2f} s"
        f" ({', '.join(f'{seconds:.2f}' for seconds in recoveries)});"
        f" the others never waited longer than {longest:.2f} s for a new row"
    )
    assert longest <= WINDOW


def _is_back(member: dict[str, Any], former: int) -> bool:
    return member["state"] in ("up", "receiving") and member["pid"] not in (None, former)


def test_any_process_killed(running: Running, kronos: KronosClient) -> None:
    a, b, c = running.tables
    _kill(running, "decoder/0", [f"kronos/{a}", f"kronos/{b}", f"other/{c}"])
    _kill(running, "writer/first", [f"other/{c}"])
    _kill_supervisor(running)
    before = running.publisher.counts[a]
    wait_until(lambda: running.watch.newest("kronos", a) >= before, "rows inserted since are stored")
    _kill(running, f"monitor/{a}", [f"kronos/{b}", f"other/{c}"])

    running.publisher.stop()
    assert control.stop_pipeline(running.name, DEADLINE) == control.Left()
    for table in running.tables:
        stored = traffic.events(kronos, table, "other" if table == c else "kronos")
        assert traffic.holes(stored) == []
        assert traffic.doubles(stored) == {}
        numbers = [event["id"] for event in stored]
        assert numbers == sorted(numbers)
        # What was published while a had no monitor was never received.
        whole = before if table == a else running.publisher.counts[table]
        assert numbers[:whole] == list(range(whole))


def _kill_supervisor(running: Running) -> None:
    pids = {name: member["pid"] for name, member in _members(running.supervisor).items()}
    supervisor_pid = ray.get(running.supervisor.pid.remote())
    running.watch.reset()
    killed = time.monotonic()
    os.kill(supervisor_pid, signal.SIGKILL)
    status = wait_until(
        lambda: _adopted(running, len(pids)), "the restarted supervisor has adopted all actors"
    )
    seconds = time.monotonic() - killed
    longest = max(running.watch.longest().values())
    print(
        f"\nsupervisor: back with {status['adopted']} actors in {seconds:.2f} s; no wait over {longest:.2f} s"
    )
    assert longest <= WINDOW
    assert ray.get(running.supervisor.pid.remote()) != supervisor_pid
    assert {name: member["pid"] for name, member in _members(running.supervisor).items()} == pids


def _adopted(running: Running, count: int) -> dict[str, Any] | None:
    status: dict[str, Any] = control.ask(running.supervisor, "status", timeout=DEADLINE)
    return status if status["adopted"] == count else None
