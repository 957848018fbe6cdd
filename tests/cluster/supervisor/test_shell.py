"""The supervisor's actor, as a plain object with a cluster that is pretended: how it begins and ends."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cluster import control
from cluster.config import PipelineConfig
from cluster.errors import PipelineExists
from cluster.supervisor import actor as actor_module
from cluster.supervisor import memory
from tests.actors.monitor.fakes import wait_for
from tests.cluster.supervisor.pretended import Handle, Pretended

CONFIG = PipelineConfig.model_validate(
    {
        "pipeline": "p",
        "source": {"kinetica": {"url": "http://127.0.0.1:9191"}},
        "tables": [{"name": "t"}],
        "sinks": {"s": {"console": {}}},
        "spool": {"path": "/spool"},
    }
)
NAME = "p/supervisor"


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Pretended:
    monkeypatch.setattr(actor_module, "keep_logs", lambda _: None)
    monkeypatch.setattr(actor_module, "Watch", lambda _: SimpleNamespace(run=lambda: None))
    monkeypatch.setattr(actor_module, "LINGER", 0.2)
    return Pretended(monkeypatch)


Actor = actor_module.SupervisorActor.__ray_metadata__.modified_class


def start(cluster: Pretended) -> Any:
    """The actor, under its name."""
    made = Actor(CONFIG.dump())
    cluster.actors[NAME] = Handle(cluster, NAME, made, {})
    return made


def test_it_begins_when_ray_answers_and_ends_itself_after_its_pipeline(
    cluster: Pretended, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its construction may not fail, as Ray would not try again; who asked for the end may die before he ends it."""
    load, failures = memory.Memory.load, [ConnectionError("no head")]

    def loading(memory: memory.Memory) -> dict[str, Any]:
        if failures:
            raise failures.pop()
        return load(memory)

    monkeypatch.setattr(memory.Memory, "load", loading)
    supervisor = start(cluster)
    assert supervisor.stopped() is False
    wait_for(lambda: all(table["state"] == "receiving" for table in supervisor.status()["tables"]))
    supervisor.stop(0.0)
    assert supervisor.stopped() is True
    wait_for(lambda: not cluster.actors)


def test_a_pipeline_that_has_ended_is_not_running(
    cluster: Pretended, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Actor, "_end", lambda self, name: None)
    monkeypatch.setattr(control, "find", lambda _: cluster.actors[NAME])
    monkeypatch.setattr(control, "ask", lambda handle, method: getattr(handle.actor, method)())
    monkeypatch.setattr("ray.get_actor", cluster.get_actor)
    monkeypatch.setattr("ray.kill", cluster.kill)
    monkeypatch.setattr("ray.nodes", cluster.nodes)
    supervisor = start(cluster)
    monkeypatch.setattr(
        actor_module, "SupervisorActor", SimpleNamespace(options=lambda **_: SimpleNamespace(remote=str))
    )
    assert control.running_config("p") == CONFIG
    with pytest.raises(PipelineExists):
        control.start_pipeline(CONFIG)
    supervisor.stop(0.0)
    assert control.running_config("p") is None
    control.start_pipeline(CONFIG)
    assert cluster.actors == {}
