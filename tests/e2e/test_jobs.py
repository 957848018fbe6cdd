"""Pipelines as Ray jobs: a real job server, submitters that come and go, and one cluster that wants a token."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
import requests
import yaml

from cluster import local
from cluster.config import PipelineConfig
from protocols.kinetica.client import KineticaClient
from protocols.kronos.client import KronosClient
from tests.e2e import traffic
from tests.e2e.conftest import wait_until

BIN = Path(sys.executable).parent
DRAIN = Path(__file__).parents[2] / "deploy" / "drain"
SECRET = "correct-horse-battery"


class Cluster(NamedTuple):
    """A Ray cluster with a job server; `env` is that of a shell beside it."""

    url: str
    address: str
    logs: Path
    env: dict[str, str]

    def run(self, *command: str, code: int = 0, **env: str) -> str:
        """Run a command to its end and return what it printed."""
        done = subprocess.run(
            command,
            env=self.env | env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == code, f"{command}: exit {done.returncode}\n{done.stdout}"
        return done.stdout

    def tablecast(self, *arguments: str, code: int = 0, **env: str) -> str:
        return self.run(sys.executable, "-m", "cluster", *arguments, code=code, **env)

    def jobs(self) -> dict[str, dict[str, Any]]:
        answer = requests.get(f"{self.url}/api/jobs/", timeout=30)
        answer.raise_for_status()
        return {job["submission_id"]: job for job in answer.json() if job["submission_id"]}

    def status(self, pipeline: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            self.tablecast("status", pipeline, "--json", "--address", self.address)
        )
        return found

    def state(self, job: str) -> str:
        return str(self.jobs()[job]["status"])


@contextmanager
def cluster(home: Path, **env: str) -> Iterator[Cluster]:
    """A head with a job server, on loopback and free ports, in a session of its own."""
    gcs, dashboard, client, agent, metrics = local._free_ports(5)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"TABLECAST_HOME": str(home), "PATH": f"{BIN}:{os.environ['PATH']}"}
    environment |= local._ENVIRONMENT | env
    # Not below pytest's folders: the paths of Ray's sockets may have 107 bytes at most.
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    command = [
        str(BIN / "ray"),
        "start",
        "--head",
        "--block",
        "--disable-usage-stats",
        f"--temp-dir={folder}",
    ]
    command += ["--node-ip-address=127.0.0.1", "--include-dashboard=true", "--dashboard-host=127.0.0.1"]
    command += [f"--port={gcs}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"]
    command += [f"--dashboard-agent-listen-port={agent}", f"--metrics-export-port={metrics}"]
    command += [f"--num-cpus={local.cpus()}"]
    home.mkdir()
    output = home / "ray.log"
    with open(output, "w") as log:
        head = subprocess.Popen(
            command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    found = Cluster(
        f"http://127.0.0.1:{dashboard}", f"127.0.0.1:{gcs}", folder / "session_latest/logs", environment
    )
    try:
        wait_until(lambda: "Ray runtime started" in output.read_text(), f"a cluster; see {output}")
        wait_until(lambda: _answers(f"{found.url}/api/version"), "a job server")
        yield found
    finally:
        local._end_session(head.pid)
        shutil.rmtree(folder, ignore_errors=True)


def _kill_supervisor(home: Path) -> None:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            ours = process.environ().get("TABLECAST_HOME") == str(home)
            if ours and process.cmdline()[:1] == ["ray::SupervisorActor"]:
                process.kill()
                return
    raise AssertionError("no supervisor runs")


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).status_code in (200, 401)
    except requests.RequestException:
        return False


@pytest.fixture
def pipeline_file(
    make_config: Callable[..., PipelineConfig], unique: str, kinetica: KineticaClient, tmp_path: Path
) -> Path:
    """A pipeline of the tables `unique` and `unique` with ``gone`` after it."""
    tables: list[str | dict[str, Any]] = [unique, f"{unique}gone"]
    for table in (unique, f"{unique}gone", f"{unique}new"):
        traffic.create(kinetica, table)
    values = make_config(unique, tables).model_dump(mode="json", exclude_defaults=True)
    values["source"]["kinetica"] |= {"username": "someone", "password": "${PIPELINE_PASSWORD}"}
    file = tmp_path / "pipeline.yaml"
    file.write_text(yaml.safe_dump(values))
    return file


def test_submit_follow_change_and_stop(
    pipeline_file: Path, unique: str, kinetica: KineticaClient, kronos: KronosClient, tmp_path: Path
) -> None:
    kept, gone, new = unique, f"{unique}gone", f"{unique}new"
    with cluster(tmp_path / "home") as ray:
        submit = ("submit", str(pipeline_file), "--address", ray.url, "--env", "PIPELINE_PASSWORD")
        ray.env["PIPELINE_PASSWORD"] = SECRET
        submitter = subprocess.Popen(
            [sys.executable, "-m", "cluster", *submit],
            env=ray.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert submitter.stdout is not None
        lines = []
        for line in submitter.stdout:
            lines.append(line)
            if "records/s received" in line:
                break
        submitter.kill()  # the submitter, not the job
        submitter.wait(timeout=10)
        assert any(f"{unique} is up after" in line for line in lines), lines
        (first,) = ray.jobs()
        assert ray.state(first) == "RUNNING"

        before = ray.status(unique)
        rows = [traffic.frame(number) for number in range(500)]
        kinetica.insert_records(gone, rows)
        values = yaml.safe_load(pipeline_file.read_text())
        values |= {"tables": [{"name": kept}, {"name": new}], "decoders": {"min": 3, "max": 7}}
        pipeline_file.write_text(yaml.safe_dump(values))
        shown = ray.tablecast(*submit, "--dry-run")
        assert f"remove table {gone}; first delivers what {gone} holds" in shown
        assert f"add table {new}\n" in shown
        known = ray.jobs().keys()
        assert "submitted" in ray.tablecast(*submit, "--no-follow")
        (second,) = ray.jobs().keys() - known
        wait_until(lambda: ray.state(first) == "SUCCEEDED", "the changed pipeline is up")
        assert ray.state(second) == "RUNNING"
        assert len(traffic.events(kronos, gone)) == len(rows)
        after = {table["name"]: table for table in ray.status(unique)["tables"]}
        assert after.keys() == {kept, new}
        assert after[kept]["pid"] == before["tables"][0]["pid"]
        assert ray.status(unique)["decoders"]["running"] == 3

        stopping = time.monotonic()
        ray.run(str(BIN / "ray"), "job", "stop", "--address", ray.url, second)
        assert ray.state(second) == "STOPPED"
        assert time.monotonic() - stopping < 30
        _kill_supervisor(tmp_path / "home")  # it comes back from what was shipped, though the job is gone
        with traffic.Publisher(kinetica, [kept, new]) as publisher:
            wait_until(lambda: publisher.counts[new] > 500, "rows inserted")
        assert "everything delivered" in ray.run(str(DRAIN), RAY_ADDRESS=ray.address)
        for table in (kept, new):
            assert len(traffic.events(kronos, table)) == publisher.counts[table]

        shown = json.dumps(ray.jobs())
        assert SECRET not in shown
        logs = [log for log in ray.logs.rglob("*") if log.is_file()]
        assert {f"job-driver-{job}.log" for job in ray.jobs()} <= {log.name for log in logs}
        assert not [log for log in logs if SECRET.encode() in log.read_bytes()]


def test_plain_jobs_on_a_cluster_that_wants_a_token(pipeline_file: Path, unique: str, tmp_path: Path) -> None:
    token = secrets.token_hex(32)
    environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token, "PIPELINE_PASSWORD": SECRET}
    with cluster(tmp_path / "home", **environment) as ray:
        submit = ("submit", str(pipeline_file), "--address", ray.url)
        for wrong in ({"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN": "wrong"}):
            assert "wants a token" in ray.tablecast(*submit, code=2, **wrong)

        plain = (str(BIN / "ray"), "job", "submit", "--address", ray.url)
        folder = ("--working-dir", str(pipeline_file.parent), "--", "tablecast")
        assert f"{unique} is up after" in ray.run(*plain, *folder, "up", pipeline_file.name)
        assert "and is what the file says" in ray.tablecast(*submit, "--dry-run")
        assert "everything delivered" in ray.run(*plain, "--", "tablecast", "down", unique)
        assert token not in ray.run(str(BIN / "ray"), "job", "list", "--address", ray.url)
