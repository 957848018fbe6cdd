"""Hosts, each a Ray node on this machine: one dies or stops, its tables go on elsewhere, nothing is doubled.

Two have spools; a third comes and goes with decoders.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from ray.autoscaler.v2.sdk import get_cluster_status

from cluster import control, verify
from cluster.config import PipelineConfig
from cluster.servers import embedded_server
from cluster.supervisor.hosts import LABEL
from protocols.kinetica.client import KineticaClient
from protocols.kronos.client import KronosClient
from tests.e2e import traffic
from tests.e2e.conftest import DEADLINE, wait_until

#: Ray finds a dead node within seconds, not within half a minute.
IMPATIENT = {
    "health_check_initial_delay_ms": 500,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 4,
}

#: Seconds that a table of the living host may be without a newly stored row.
WINDOW = 5.0


class TwoHosts:
    """Hosts ``a``, where the head is, and ``b``, which can be taken away and brought back."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(
            initialize_head=True, head_node_args={**_node("a"), "_system_config": IMPATIENT}
        )
        self.b = self.cluster.add_node(**_node("b"))

    @property
    def raylet(self) -> int:
        return _raylet(self.b)

    def lose(self, node: Any = None) -> None:
        """End a host, b if none is given, at once with all its processes, and wait until Ray knows."""
        node = node or self.b
        raylet = psutil.Process(_raylet(node))
        for process in (raylet, *raylet.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.cluster.remove_node(node, allow_graceful=False)

    def bring_back(self) -> None:
        self.b = self.cluster.add_node(**_node("b"))


def _raylet(node: Any) -> int:
    pid: int = node.all_processes["raylet"][0].process.pid
    return pid


def _node(host: str, spools: bool = True) -> dict[str, Any]:
    return {
        "num_cpus": 4,
        "labels": {LABEL: host} if spools else {},
        "env_vars": {"HOST_DIRECTORY": host},
        "node_ip_address": "127.0.0.1",
        "include_dashboard": False,
    }


@pytest.fixture(scope="module")
def hosts() -> Iterator[TwoHosts]:
    """In place of the session's cluster, which is made anew afterwards."""
    had_cluster = ray.is_initialized()
    control.disconnect()
    two = TwoHosts()
    try:
        control.connect(two.cluster.address)
        yield two
    finally:
        control.disconnect()
        two.cluster.shutdown()
        if had_cluster:
            control.connect(own=True)


@pytest.fixture
def begin(hosts: TwoHosts) -> Iterator[Callable[[PipelineConfig], Any]]:
    started: list[str] = []

    def start(config: PipelineConfig) -> Any:
        supervisor = control.start_pipeline(config)
        started.append(config.pipeline)
        assert control.wait_ready(supervisor, DEADLINE), control.ask(supervisor, "status")
        return supervisor

    yield start
    for name in started:
        if name in control.pipelines():
            control.stop_pipeline(name, 0.0)


@pytest.fixture
def late_port() -> int:
    """A port at which nothing listens yet."""
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _by_host(supervisor: Any) -> dict[str, dict[str, Any]]:
    return {table["host"]: table for table in control.ask(supervisor, "status")["tables"]}


def _moved(supervisor: Any, table: str) -> dict[str, Any] | None:
    status: dict[str, Any] = control.ask(supervisor, "status")
    (found,) = (each for each in status["tables"] if each["name"] == table)
    return status if (found["host"], found["state"]) == ("a", "receiving") else None


def test_a_host_dies_and_comes_back(
    hosts: TwoHosts,
    begin: Callable[[PipelineConfig], Any],
    make_config: Callable[..., PipelineConfig],
    unique: str,
    kinetica: KineticaClient,
    kronos: KronosClient,
    kronos_url: str,
    late_port: int,
    tmp_path: Path,
) -> None:
    tables = [f"{unique}x", f"{unique}y"]
    for table in tables:
        traffic.create(kinetica, table)
    sinks = {
        "events": {"kronos": {"url": kronos_url}},
        "late": {"kronos": {"url": f"http://127.0.0.1:{late_port}"}},
    }
    spool = {"path": str(tmp_path / "${HOST_DIRECTORY}"), "min_free": 0}
    supervisor = begin(make_config(unique, list(tables), sinks=sinks, spool=spool))
    homes = _by_host(supervisor)
    assert set(homes) == {"a", "b"}, "new tables are spread over hosts"
    decoders = control.ask(supervisor, "status")["decoders"]["members"]
    assert {decoder["host"] for decoder in decoders} == {"a", "b"}, "decoders are too"
    stays, moves = homes["a"]["name"], homes["b"]["name"]
    assert (tmp_path / "b" / unique / moves / "spool.db").exists()

    streams = [("kronos", table) for table in tables]
    with traffic.StoreWatch(kronos_url, streams) as watch, traffic.Publisher(kinetica, tables) as publisher:
        wait_until(lambda: watch.has(dict.fromkeys(tables, 500)), "rows stored")
        wait_until(lambda: _by_host(supervisor)["b"]["pending"] >= 500, "rows wait for the sink that is away")
        watch.reset()
        hosts.lose()
        status = wait_until(lambda: _moved(supervisor, moves), f"{moves} received on host a")
        assert f"{moves} moved from host b, which is gone, to a" in status["alerts"]
        (held,) = status["spools"]
        assert (held["table"], held["host"], held["state"]) == (moves, "b", "held")
        assert held["records"] >= 500
        assert "held on host b, which is gone" in held["problem"]
        goal = dict(publisher.counts)
        wait_until(lambda: watch.has(goal), "rows of both tables stored again")
        waits = watch.longest()
    assert waits[f"kronos/{stays}"] <= WINDOW

    hosts.bring_back()
    with embedded_server("kronos", "--data-dir", str(tmp_path / "late"), "--port", str(late_port)) as url:
        late = KronosClient(url)
        wait_until(lambda: control.ask(supervisor, "status")["spools"] == [], "the spool on b is drained")
        assert control.stop_pipeline(unique, DEADLINE) == control.Left()
        for store in (kronos, late):
            for table in tables:
                stored = sorted(traffic.events(store, table), key=lambda event: event["id"])
                assert traffic.doubles(stored) == {}
                assert traffic.holes(stored) == []
                missing = set(range(publisher.counts[table])) - {event["id"] for event in stored}
                if table == stays:
                    assert missing == set()
                else:  # what was published while nobody received: one stretch
                    assert missing
                    assert missing == set(range(min(missing), max(missing) + 1))
        late.close()
    print(f"\nwaits {waits}")


def test_a_host_stops_and_wakes_up(
    hosts: TwoHosts,
    begin: Callable[[PipelineConfig], Any],
    make_config: Callable[..., PipelineConfig],
    unique: str,
    kinetica: KineticaClient,
    kronos: KronosClient,
    kronos_url: str,
    tmp_path: Path,
) -> None:
    """The old monitor wakes with rows in its socket: those that the new one did not receive, and no others."""
    tables = [f"{unique}x", f"{unique}y"]
    for table in tables:
        traffic.create(kinetica, table)
    spool = {"path": str(tmp_path / "${HOST_DIRECTORY}"), "min_free": 0}
    supervisor = begin(make_config(unique, list(tables), spool=spool))
    old = _by_host(supervisor)["b"]
    moves = old["name"]
    streams = [("kronos", table) for table in tables]
    with traffic.StoreWatch(kronos_url, streams) as watch, traffic.Publisher(kinetica, tables) as publisher:
        wait_until(lambda: watch.has(dict.fromkeys(tables, 500)), "rows stored")
        for pid in (old["pid"], hosts.raylet):
            os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: _moved(supervisor, moves), f"{moves} received on host a")
        goal = dict(publisher.counts)
        wait_until(lambda: watch.has(goal), "rows stored again")
        os.kill(old["pid"], signal.SIGCONT)
        directory = tmp_path / "b" / unique / moves
        wait_until(lambda: _is_free(directory), "the old monitor learns that it was replaced")
        os.kill(hosts.raylet, signal.SIGCONT)
        process = hosts.b.all_processes["raylet"][0].process
        wait_until(lambda: process.poll() is not None, "the node learns that it is dead")
        wait_until(lambda: not psutil.pid_exists(old["pid"]), "its monitor ends")
        hosts.cluster.remove_node(hosts.b, allow_graceful=False)
        hosts.bring_back()
        goal = dict(publisher.counts)
        wait_until(lambda: watch.has(goal), "rows stored after the wake-up")
    wait_until(
        lambda: all(host["searched"] for host in control.ask(supervisor, "status")["hosts"]), "host b is back"
    )
    held = wait_until(lambda: _drained(supervisor), "what the old monitor had received is delivered")
    assert all("had moved to another host, which received it too" in spool["problem"] for spool in held[0])
    assert control.stop_pipeline(unique, DEADLINE) == control.Left()
    for table in tables:
        stored = sorted(traffic.events(kronos, table), key=lambda event: event["id"])
        assert traffic.doubles(stored) == {}
        missing = set(range(publisher.counts[table])) - {event["id"] for event in stored}
        print(f"\n{table}: {len(missing)} rows missed, {len(held[0])} spools held")
        # What was in the socket of the old monitor reached its spool, unless its end came first.
        assert not missing or (table == moves and missing == set(range(min(missing), max(missing) + 1)))


def test_decoders_on_three_nodes_and_the_loss_of_each_kind_of_node(
    hosts: TwoHosts,
    begin: Callable[[PipelineConfig], Any],
    make_config: Callable[..., PipelineConfig],
    unique: str,
    kinetica: KineticaClient,
    kronos: KronosClient,
    kronos_url: str,
    tmp_path: Path,
) -> None:
    """A node has room for one decoder beside a monitor; the third, without spools, for two."""
    tables = [f"{unique}x", f"{unique}y"]
    for table in tables:
        traffic.create(kinetica, table)
    spool = {"path": str(tmp_path / "${HOST_DIRECTORY}"), "min_free": 0}
    decoders = {"min": 2, "max": 4, "cpus": 2}
    supervisor = begin(make_config(unique, list(tables), spool=spool, decoders=decoders))
    streams = [("kronos", table) for table in tables]
    with traffic.StoreWatch(kronos_url, streams) as watch, traffic.Publisher(kinetica, tables) as publisher:

        def flows(what: str) -> None:
            goal = dict(publisher.counts)
            wait_until(lambda: watch.has(goal), what)

        assert control.ask(supervisor, "scale", 4) is None
        wait_until(lambda: _waiting(supervisor) == 2, "two decoders find no node")
        wait_until(lambda: _demand(hosts.cluster.address) == 2, "an autoscaler is told so")
        flows("rows do not wait with them")
        third = hosts.cluster.add_node(**_node("c", spools=False))
        placed = wait_until(lambda: _placed(supervisor, 4), "all decoders are up")
        assert len(placed) == 4
        assert len(set(placed)) == 3
        assert placed.count("a") == placed.count("b") == 1
        flows("rows pass through all")

        hosts.lose(third)
        wait_until(lambda: _waiting(supervisor) == 2, "its decoders wait for another node")
        flows("rows stored after the loss of a node of decoders")

        pids = {table["name"]: table["pid"] for table in control.ask(supervisor, "status")["tables"]}
        old = ray.get(supervisor.pid.remote())
        os.kill(old, signal.SIGKILL)
        flows("rows stored while there is no supervisor")
        status = wait_until(lambda: _adopted(supervisor, old), "the new supervisor knows all actors")
        assert {table["name"]: table["pid"] for table in status["tables"]} == pids
        assert (status["decoders"]["wanted"], status["decoders"]["mode"]) == (4, "manual")
        assert [(step["from"], step["to"]) for step in status["decoders"]["steps"]] == [(2, 4)]

        homes = _by_host(supervisor)
        stays, moves = homes["a"]["name"], homes["b"]["name"]
        hosts.lose()
        wait_until(lambda: _moved(supervisor, moves), f"{moves} received on host a")
        flows("rows of both tables stored after the loss of a node with a monitor")
    wait_until(lambda: _nothing_pending(supervisor), "what was received is stored")
    report = verify.verify(unique)
    assert report["unexplained"] == 0, report
    gaps = {table["table"]: table["gaps"] for table in report["tables"]}
    assert gaps[stays] == []
    assert [(gap["cause"], gap["state"]) for gap in gaps[moves]] == [("host b is gone", "unhealed")]
    assert control.stop_pipeline(unique, DEADLINE) == control.Left()
    hosts.bring_back()
    for table in tables:
        stored = traffic.events(kronos, table)
        numbers = [event["id"] for event in stored]
        assert numbers == sorted(set(numbers))
        assert traffic.holes(stored) == []
        missing = sorted(set(range(publisher.counts[table])) - set(numbers))
        assert missing == ([] if table == stays else list(range(missing[0], missing[-1] + 1)))


def _waiting(supervisor: Any) -> int:
    """Decoders that wait for CPUs."""
    members = control.ask(supervisor, "status")["decoders"]["members"]
    return sum("waiting for 2" in (member["problem"] or "") for member in members)


def _demand(address: str) -> int:
    """Actors of two CPUs for which an autoscaler would add nodes."""
    demands = get_cluster_status(address).resource_demands.ray_task_actor_demand
    bundles = [(bundle.bundle, bundle.count) for demand in demands for bundle in demand.bundles_by_count]
    return sum(count for bundle, count in bundles if bundle.get("CPU") == 2.0)


def _placed(supervisor: Any, count: int) -> list[str] | None:
    """The hosts of the decoders, when so many are up."""
    decoders = control.ask(supervisor, "status")["decoders"]
    hosts = [member["host"] for member in decoders["members"] if member["host"]]
    return hosts if decoders["running"] == len(hosts) == count else None


def _adopted(supervisor: Any, old: int) -> dict[str, Any] | None:
    status: dict[str, Any] = control.ask(supervisor, "status", timeout=DEADLINE)
    up = [*status["tables"], *status["sinks"], *status["decoders"]["members"]]
    known = sum(member["pid"] is not None for member in up)
    return status if status["supervisor_pid"] != old and known == 5 else None


def _nothing_pending(supervisor: Any) -> bool:
    return all(table["pending"] == 0 for table in control.ask(supervisor, "status")["tables"])


def _drained(supervisor: Any) -> tuple[list[dict[str, Any]]] | None:
    """The spools that are held, when no drainer runs or is about to."""
    spools = control.ask(supervisor, "status")["spools"]
    busy = any(spool["state"] == "draining" or "about to" in spool["problem"] for spool in spools)
    return None if busy else (spools,)


def _is_free(spool: Path) -> bool:
    """Whether no process holds the spool."""
    with open(spool / "lock", "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True
