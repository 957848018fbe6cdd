"""What a job does about a pipeline, without a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cluster import control
from cluster import job as job_module
from cluster.cli import start as start_module
from cluster.cli.submit import DRAIN_TIMEOUT, job
from cluster.config import PipelineConfig, load
from cluster.errors import PipelineExists

FILE = """\
pipeline: p
source: {kinetica: {url: http://127.0.0.1:9191}}
tables: [{name: t}, {name: u}]
sinks: {events: {console: {}}}
spool: {path: /spool}
"""


class Cluster:
    """On which the pipeline `running` is; `rival` is what another job starts when this one wants to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.running: PipelineConfig | None = None
        self.rival: PipelineConfig | None = None
        self.asked: list[tuple[str, float]] = []
        self.followed = False
        monkeypatch.setattr(control, "connect", lambda: None)
        monkeypatch.setattr(control, "running_config", lambda _: self.running)
        monkeypatch.setattr(control, "find", lambda _: "supervisor")
        monkeypatch.setattr(control, "ask", self._ask)
        monkeypatch.setattr(start_module, "ask_endpoints", lambda _: None)
        monkeypatch.setattr(start_module, "await_up", lambda *_: None)
        monkeypatch.setattr(start_module, "start", self._start)
        monkeypatch.setattr(job_module.Follower, "run", self._follow)

    def _start(self, config: PipelineConfig) -> str:
        if self.rival is not None:
            self.running = self.rival
            raise PipelineExists("it is there")
        self.running = config
        return "supervisor"

    def _ask(self, _: str, method: str, *arguments: Any, timeout: float) -> None:
        self.asked.append((method, timeout))

    def _follow(self, *_: Any) -> None:
        self.followed = True


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(monkeypatch)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "pipeline.yaml"
    path.write_text(FILE)
    return path


def run(file: Path, *arguments: str) -> Result:
    return CliRunner().invoke(job, [str(file), *arguments], catch_exceptions=False)


def test_a_job_starts_what_is_not_there(cluster: Cluster, file: Path) -> None:
    assert run(file, "--dry-run").output == "p is not running; it would be started\n"
    assert not cluster.followed
    assert run(file).output == "p is not running\n"
    assert cluster.followed


def test_a_job_that_comes_second_changes_what_the_first_has_started(cluster: Cluster, file: Path) -> None:
    loaded = load(file, {})
    cluster.rival = loaded.model_copy(update={"tables": loaded.tables[:1]})
    assert run(file).output == "p is not running\np is running\n  add table u\n"
    assert [method for method, _ in cluster.asked] == ["apply"]
    assert cluster.followed


def test_a_job_waits_for_as_long_as_a_change_may_take(cluster: Cluster, file: Path) -> None:
    """The tables deliver, then four kinds of actors end one after the other."""
    loaded = load(file, {})
    cluster.running = loaded.model_copy(update={"tables": loaded.tables[:1]})
    run(file)
    ((_, timeout),) = cluster.asked
    assert timeout > DRAIN_TIMEOUT + 4 * 20 + 10
