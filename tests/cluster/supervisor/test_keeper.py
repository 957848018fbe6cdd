"""The supervisor with a cluster that is pretended: whom it starts, ends and finds, without Ray."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from actors.names import shared_home
from cluster.config import PipelineConfig
from cluster.supervisor.actor import Supervisor
from cluster.supervisor.fleet import MemberState
from cluster.supervisor.plan import drainer_spec
from cluster.supervisor.spools import FoundSpool, Place
from tests.cluster.supervisor.pretended import Pretended, Tables

SHARED = f"p/monitor/{shared_home(1)}"


def config(*tables: str | dict[str, Any], **changes: Any) -> PipelineConfig:
    values: dict[str, Any] = {
        "pipeline": "p",
        "source": {"kinetica": {"url": "http://127.0.0.1:9191"}},
        "tables": [{"name": table} if isinstance(table, str) else table for table in tables],
        "sinks": {"s": {"console": {}}},
        "decoders": {"min": 1, "max": 1},
        "spool": {"path": "/spool"},
    }
    return PipelineConfig.model_validate(values | changes)


def shared(*tables: str | dict[str, Any], **changes: Any) -> PipelineConfig:
    return config(*tables, monitors_per_actor=10, **changes)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Pretended:
    return Pretended(monkeypatch)


Run = Callable[[PipelineConfig], Supervisor]


@pytest.fixture
def run(cluster: Pretended) -> Run:
    """Makes a supervisor and lets it get everything up."""

    def run(config: PipelineConfig) -> Supervisor:
        supervisor = Supervisor(config)
        rounds(supervisor)
        assert {member.state for member in supervisor._fleet.members.values()} == {MemberState.UP}
        return supervisor

    return run


def rounds(supervisor: Supervisor, count: int = 8) -> None:
    for _ in range(count):
        supervisor._round()


def kinds(supervisor: Supervisor) -> list[str]:
    return sorted(member.spec.kind for member in supervisor._fleet.members.values())


def test_everything_comes_up_and_ends(cluster: Pretended, run: Run) -> None:
    supervisor = run(shared("a", "b"))
    assert set(cluster.actors) == {SHARED, "p/writer/s", "p/decoder/0"}
    assert set(cluster.tables(SHARED).seats) == {"a", "b"}
    assert supervisor.stop(0.0) == {"pending": 0, "silent": []}
    assert cluster.actors == {}
    assert cluster.kept == {}


# -- changes ----------------------------------------------------------------------------------------------------------


def test_a_table_that_is_exchanged_gets_no_drainer(
    cluster: Pretended, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it ends it is wanted by nobody, and its spool may hold something."""
    supervisor = run(shared("a", "b"))
    seen: list[str] = []
    end = Tables.end

    def slow(tables: Tables, table: str, incarnation: int) -> None:
        supervisor._hosts.spools[Place("a", shared_home(1), table)] = FoundSpool(
            table, 5, {"s": 3}, home=shared_home(1)
        )
        rounds(supervisor, 2)
        seen.extend(kinds(supervisor))
        end(tables, table, incarnation)

    monkeypatch.setattr(Tables, "end", slow)
    changed = shared("a", {"name": "b", "events": ["insert"]})
    assert supervisor.apply(changed.dump(), 1.0) is None
    assert seen
    assert "drainer" not in seen
    rounds(supervisor)
    assert kinds(supervisor).count("monitor") == 2
    assert "drainer" not in kinds(supervisor)


def test_a_drainer_gives_way_to_the_monitor_of_its_table(cluster: Pretended, run: Run) -> None:
    supervisor = run(shared("a"))
    place = Place("a", shared_home(1), "b")
    supervisor._hosts.spools[place] = FoundSpool("b", 5, {"s": 3}, home=shared_home(1))
    rounds(supervisor)
    spec = drainer_spec(supervisor._config, place, ["s"], None, SHARED)
    assert spec.name in supervisor._fleet.members
    assert "b" in cluster.tables(SHARED).seats
    assert supervisor.apply(shared("a", "b").dump(), 1.0) is None
    rounds(supervisor)
    assert spec.name not in supervisor._fleet.members
    assert cluster.tables(SHARED).seats["b"]["state"] == "receiving"
    assert cluster.tables(SHARED).seats["b"]["incarnation"] == supervisor._incarnations["p/monitor/b"]


def test_only_the_end_of_the_pipeline_ends_sources_that_were_read(cluster: Pretended, run: Run) -> None:
    """A change lets tables deliver first, and is no reason to read anything again."""
    supervisor = run(config("a", "b"))
    assert supervisor.apply(config("a").dump(), 1.0) is None
    supervisor.stop(0.0)
    drains = [(name, *said) for name, method, said in cluster.said if method == "drain"]
    assert drains == [("p/monitor/b", ["b"], False), ("p/monitor/a", ["a"], True)]
