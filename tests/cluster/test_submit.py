"""Submission without a cluster: what is refused before anything travels, what travels, and a log that breaks off."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web
from click.testing import CliRunner, Result
from ray.job_submission import JobStatus

from cluster.cli.main import main
from cluster.config import PipelineConfig
from cluster.errors import CommandError, NoCluster
from cluster.job import VARIABLES, refuse_passing_folders, variables
from cluster.submit import JobServer, submit

TEXT = """\
pipeline: p
source: {kinetica: {url: "http://127.0.0.1:9191", username: u, password: "${THE_PASSWORD}"}}
tables: [{name: t}]
sinks: {lake: {parquet: {path: /lake}}}
spool: {path: /spool}
"""


class Server:
    """Answers as Ray's job server does about one job, whose log is given in two connections, the first cut off."""

    log = [f"line {number}\n" for number in range(10)]

    def __init__(self) -> None:
        self.connections = 0
        self.submitted: list[dict[str, object]] = []
        self._loop = asyncio.new_event_loop()
        app = web.Application()
        app.router.add_get("/api/version", self._version)
        app.router.add_get("/api/packages/{protocol}/{name}", self._package)
        app.router.add_put("/api/packages/{protocol}/{name}", self._package)
        app.router.add_post("/api/jobs/", self._submit)
        app.router.add_get("/api/jobs/{job}", self._details)
        app.router.add_get("/api/jobs/{job}/logs/tail", self._tail)
        self.packages: dict[str, bytes] = {}
        self._runner = web.AppRunner(app)
        self._loop.run_until_complete(self._runner.setup())
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        self._loop.run_until_complete(site.start())
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _version(self, _: web.Request) -> web.Response:
        return web.json_response({"version": "4", "ray_version": "2.60.0", "ray_commit": "x"})

    async def _package(self, request: web.Request) -> web.Response:
        if request.method == "GET":
            return web.Response(status=404)
        self.packages[request.match_info["name"]] = await request.read()
        return web.Response()

    async def _submit(self, request: web.Request) -> web.Response:
        self.submitted.append(await request.json())
        return web.json_response({"job_id": "job", "submission_id": "job"})

    async def _details(self, request: web.Request) -> web.Response:
        state = "SUCCEEDED" if self.connections > 1 else "RUNNING"
        details = {
            "type": "SUBMISSION",
            "submission_id": "job",
            "status": state,
            "entrypoint": "tablecast job",
        }
        return web.json_response(details)

    async def _tail(self, request: web.Request) -> web.WebSocketResponse:
        self.connections += 1
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        if self.connections == 1:
            await socket.send_str("".join(self.log[:4]) + self.log[4][:3])
            assert request.transport is not None
            request.transport.abort()
        else:
            for line in self.log:
                await socket.send_str(line)
        return socket


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.stop()


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:1")  # and put back afterwards
    monkeypatch.delenv("THE_PASSWORD", raising=False)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my pipeline.yaml"
    path.write_text(TEXT)
    return path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["submit", *arguments])


def refusal(result: Result) -> str:
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    return line.removeprefix("tablecast: ")


def test_a_log_is_followed_through_an_interruption(server: Server) -> None:
    told: list[str] = []
    details = JobServer(server.url).follow("job", told.append)
    assert "".join(told) == "".join(server.log)
    assert details.status == JobStatus.SUCCEEDED
    assert server.connections == 2


def test_a_job_shows_no_value(server: Server, file: Path) -> None:
    submit(JobServer(server.url), file, {"THE_PASSWORD": "correct-horse"}, [], dry_run=False)
    (request,) = server.submitted
    assert request["entrypoint"] == "tablecast job 'my pipeline.yaml'"
    assert "correct-horse" not in json.dumps(request)
    assert set(request["runtime_env"]) <= {"working_dir", "_ray_commit"}  # type: ignore[call-overload]


def test_the_same_password_does_not_give_the_same_package(server: Server, file: Path) -> None:
    for _ in range(2):
        submit(JobServer(server.url), file, {"THE_PASSWORD": "1234"}, [], dry_run=False)
    assert len(server.packages) == 2


def test_modules_travel_and_hide_none_of_ours(server: Server, file: Path, tmp_path: Path) -> None:
    package = tmp_path / "mine"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (tmp_path / "cluster.py").write_text("")
    (tmp_path / "one.py").write_text("")
    submit(JobServer(server.url), file, {}, [package, tmp_path / "one.py"], dry_run=True)
    (content,) = server.packages.values()
    assert b"mine/__init__.py" in content
    assert b"one.py" in content
    with pytest.raises(CommandError, match="is taken"):
        submit(JobServer(server.url), file, {}, [tmp_path / "cluster.py"], dry_run=True)
    with pytest.raises(CommandError, match="is taken"):
        submit(JobServer(server.url), file, {}, [package, package], dry_run=True)


def test_submit_and_return(server: Server, file: Path) -> None:
    result = run(str(file), "--address", server.url, "--no-follow")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0] == "submitted job"
    assert server.connections == 0


def test_a_file_with_faults_is_refused_here(server: Server, file: Path) -> None:
    file.write_text(TEXT.replace("tables:", "tabels:"))
    result = run(str(file), "--address", server.url)
    assert result.exit_code == 2
    assert "tabels" in result.stderr
    assert "THE_PASSWORD" not in result.stderr  # that one is the cluster's
    assert not server.submitted
    assert "cannot be read" in refusal(run("none.yaml", "--address", server.url))


def test_a_folder_beside_the_file_is_refused_here(
    server: Server, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THE_PASSWORD", "x")
    file.write_text(TEXT.replace("/lake", "lake").replace("/spool", "./spool"))
    result = run(str(file), "--address", server.url)
    lines = result.stderr.splitlines()
    assert [line.split(": ")[1] for line in lines] == ["sinks.lake.parquet.path", "spool.path"]
    assert all("write an absolute path" in line for line in lines)
    assert not server.submitted


def test_a_variable_that_is_not_here(server: Server, file: Path) -> None:
    assert refusal(run(str(file), "--address", server.url, "--env", "THE_PASSWORD")).startswith(
        "--env THE_PASSWORD"
    )


def test_where_no_job_server_is(file: Path) -> None:
    assert "no job server answers at http://127.0.0.1:1;" in refusal(
        run(str(file), "--address", "http://127.0.0.1:1")
    )
    assert "write http://HOST:8265" in refusal(run(str(file), "--address", "127.0.0.1:6379"))
    with pytest.raises(NoCluster):
        JobServer("http://127.0.0.1:1")


def test_variables_that_came_along_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERE", "1")
    monkeypatch.setenv("THE_PASSWORD", "of the cluster")
    assert variables(tmp_path / "p.yaml") == dict(os.environ)
    (tmp_path / VARIABLES).write_text(json.dumps({"THE_PASSWORD": "of the submitter"}))
    found = variables(tmp_path / "p.yaml")
    assert (found["HERE"], found["THE_PASSWORD"]) == ("1", "of the submitter")


def test_nothing_lasting_in_the_folder_of_a_job() -> None:
    job = "/session/runtime_resources/working_dir_files/_ray_pkg_0"
    values = {
        "pipeline": "p",
        "source": {"kinetica": {"url": "http://127.0.0.1:1", "ca_file": f"{job}/ca.pem"}},
        "tables": [{"name": "t"}],
        "sinks": {"lines": {"console": {}}, "more": {"console": {"path": f"{job}/lines"}}},
        "spool": {"path": f"{job}/spool"},
    }
    with pytest.raises(CommandError) as caught:
        refuse_passing_folders(PipelineConfig.model_validate(values))
    keys = [line.split(":")[0] for line in str(caught.value).splitlines()]
    assert keys == ["source.kinetica.ca_file", "sinks.more.console.path", "spool.path"]
