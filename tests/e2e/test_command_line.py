"""The command line as a user has it: processes of their own, one shell after the other, on a local cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from cluster.config import PipelineConfig
from protocols.kinetica.client import KineticaClient
from protocols.kronos.client import KronosClient
from tests.e2e import traffic
from tests.e2e.conftest import wait_until


class Shell:
    """Runs ``tablecast`` with an environment of its own."""

    def __init__(self, home: Path) -> None:
        self._env = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        self._env["TABLECAST_HOME"] = str(home)

    def __call__(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "cluster", *arguments]
        done = subprocess.run(
            command, env=self._env, capture_output=True, text=True, timeout=240, check=False
        )
        assert done.returncode == code, f"{arguments}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def status(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self("status", name, "--json").stdout)
        return found


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    run = Shell(tmp_path / "home")
    yield run
    note = tmp_path / "home" / "cluster.json"
    if note.exists():  # a failed test must not leave a cluster behind
        code = "from cluster import local; local.stop()"
        subprocess.run([sys.executable, "-c", code], env=run._env, check=True, timeout=60)


@pytest.fixture
def pipeline_file(make_config: Callable[..., PipelineConfig], unique: str, tmp_path: Path) -> Path:
    file = tmp_path / "pipeline.yaml"
    file.write_text(yaml.safe_dump(_plain(make_config(unique, [unique]).dump())))
    return file


def _plain(value: Any) -> Any:
    """Without what is absent or empty, as a person would write it."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items() if each not in (None, "")}
    return value


def _processes(home: Path) -> list[psutil.Process]:
    """Everything that was started with this TABLECAST_HOME."""
    found = []
    for process in psutil.process_iter():
        try:
            if (
                process.environ().get("TABLECAST_HOME") == str(home)
                and process.status() != psutil.STATUS_ZOMBIE
            ):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def test_up_status_scale_and_down_from_different_shells_while_data_flows(
    shell: Shell,
    pipeline_file: Path,
    unique: str,
    kinetica: KineticaClient,
    kronos: KronosClient,
    tmp_path: Path,
) -> None:
    traffic.create(kinetica, unique)
    shell("up", str(pipeline_file))
    assert "already running" in shell("up", str(pipeline_file), code=2).stderr
    with traffic.Publisher(kinetica, [unique]) as publisher:
        wait_until(lambda: shell.status(unique)["sinks"][0]["records"] > 0, "rows stored")
        shell("scale", unique, "--decoders", "3")
        status = shell.status(unique)
        assert (status["decoders"]["wanted"], status["decoders"]["running"]) == (3, 3)
        members = lambda: shell.status(unique)["decoders"]["members"]  # noqa: E731
        wait_until(lambda: all(each["blocks"] > 0 for each in members()), "rows pass through all three")
        shell("scale", unique, "--decoders", "2")
        assert shell.status(unique)["decoders"]["running"] == 2
        assert "bound to 2 to 4" in shell("scale", unique, "--decoders", "1", code=2).stderr
        assert unique in shell("status").stdout
    shell("down", unique)
    stored = traffic.events(kronos, unique)
    assert [event["id"] for event in stored] == list(range(publisher.counts[unique]))
    wait_until(lambda: not _processes(tmp_path / "home"), "no process is left behind", timeout=20)
    assert "no pipeline is running here" in shell("status", unique, code=2).stderr


def test_a_pipeline_that_cannot_work_is_refused_before_anything_starts(
    shell: Shell, pipeline_file: Path, unique: str, tmp_path: Path
) -> None:
    refused = shell("up", str(pipeline_file), code=2)
    assert all(line.startswith("tablecast: ") for line in refused.stderr.splitlines())
    assert f"table {unique} does not exist" in refused.stderr
    assert not _processes(tmp_path / "home")
