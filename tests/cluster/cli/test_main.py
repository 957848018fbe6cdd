"""The command line without a cluster: what goes wrong is told in lines that say what to do, with exit code 2."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cluster.cli.main import main
from protocols.kinetica.client import KineticaClient
from protocols.kinetica.server import TableServer
from protocols.kinetica.types import Column, TableType
from protocols.kronos.server import EventStore
from protocols.v3io.server import V3ioServer

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def kinetica() -> Iterator[TableServer]:
    with TableServer(port=0, monitor_port=0, user="u", password="correct-horse") as server:
        with KineticaClient(server.url, username="u", password="correct-horse") as client:
            client.create_table("t", client.create_type(TableType((Column("id", "long"),))))
        yield server


@pytest.fixture(scope="module")
def kronos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EventStore]:
    with EventStore(data_dir=tmp_path_factory.mktemp("store"), port=0, namespaces=("kronos",)) as store:
        yield store


@pytest.fixture
def closed_port() -> Iterator[int]:
    with socket.socket() as bound:  # bound and not listening: nobody else gets it, nobody answers
        bound.bind(("127.0.0.1", 0))
        yield int(bound.getsockname()[1])


def tablecast(*arguments: str, env: dict[str, str | None] | None = None) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], env=env)


def complaints(result: Result, code: int = 2) -> list[str]:
    """The lines on standard error of a command that failed as it should."""
    assert result.exit_code == code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    lines = result.stderr.splitlines()
    assert all(line.startswith("tablecast: ") for line in lines), lines
    return [line.removeprefix("tablecast: ") for line in lines]


def pipeline(path: Path, kinetica: object, kronos: object, **changes: object) -> Path:
    """A pipeline file; JSON is YAML as well."""
    values = {"table": "t", "namespace": None, "user": "u", "password": "correct-horse", "monitor_port": None}
    values |= changes
    source = {"url": str(kinetica), "username": values["user"], "password": values["password"], "timeout": 5}
    if values["monitor_port"]:
        source["monitor_port"] = values["monitor_port"]
    sink = {"url": str(kronos), "timeout": 5}
    if values["namespace"]:
        sink["namespace"] = values["namespace"]
    content = {
        "pipeline": "p",
        "source": {"kinetica": source},
        "tables": [{"name": values["table"]}],
        "sinks": {"events": {"kronos": sink}},
    }
    path /= "pipeline.yaml"
    path.write_text(json.dumps(content, indent=1))
    return path


def test_check_finds_all_in_order(tmp_path: Path, kinetica: TableServer, kronos: EventStore) -> None:
    file = pipeline(tmp_path, kinetica.url, kronos.url)
    result = tablecast("check", str(file))
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines.pop(0).startswith("spool: ")
    assert lines[0].startswith("source: Kinetica ")
    assert lines[1] == "table t: 1 columns"
    assert f"127.0.0.1:{kinetica.monitor_port}" in lines[2]
    assert lines[3].startswith("sink events: Kronos ")
    assert lines[4] == f"{file}: pipeline p, 1 table, 1 sink, 1 decoder: all good"


def other_sinks(file: Path, **sinks: object) -> Path:
    """The pipeline file with these sinks in place of its own."""
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"sinks": sinks}))
    return file


def test_check_of_sinks_that_are_no_servers(
    tmp_path: Path, kinetica: TableServer, kronos: EventStore
) -> None:
    secret = "cmFuZDIvdXVpZC9hd3NhY2NvdW50L3JlZ2lvbg=="
    file = other_sinks(
        pipeline(tmp_path, kinetica.url, kronos.url),
        panoply={"panoply": {"apikey": "acct/rand1", "apisecret": secret}},
        lake={"parquet": {"path": "deep/lake"}},
        lines={"console": {"path": "events.ndjson"}},
        out={"console": {}},
    )
    result = tablecast("check", str(file))
    assert result.exit_code == 0, result.output
    assert [line for line in result.stdout.splitlines() if line.startswith("sink ")] == [
        "sink panoply: Panoply at https://sqs.region.amazonaws.com; credentials are well-formed, "
        "a first record will try them",
        f"sink lake: Parquet files below {tmp_path}/deep/lake",
        f"sink lines: lines of JSON to {tmp_path}/events.ndjson",
        "sink out: lines of JSON to the output of the writer",
    ]
    assert not (tmp_path / "deep").exists()
    assert not (tmp_path / "events.ndjson").exists()
    assert "rand" not in result.output


def test_check_of_transforms_and_v3io(tmp_path: Path, kinetica: TableServer, kronos: EventStore) -> None:
    file = pipeline(tmp_path, kinetica.url, kronos.url)
    content = json.loads(file.read_text())
    content["tables"][0]["transform"] = {"where": "gone > 1"}
    file.write_text(json.dumps(content))
    with V3ioServer(port=0, access_key="open sesame") as v3io:
        settings = {"url": v3io.url, "access_key": "open sesame", "container": "users"}
        objects = {"objects": {"path": "lake"}}
        other_sinks(
            file,
            good={"v3io": settings | objects},
            nowhere={"v3io": settings | objects | {"container": "none"}},
            locked={"v3io": settings | objects | {"access_key": "hush"}},
        )
        table, nowhere, locked = complaints(tablecast("check", str(file)))
    assert table.startswith("table t: transform.where: there is no column gone; the columns are ")
    assert nowhere.startswith("sink nowhere: ")
    assert "Container not found: none" in nowhere
    assert "the access key is wrong" in locked
    assert "hush" not in locked


def test_check_of_sinks_that_cannot_be(tmp_path: Path, kinetica: TableServer, kronos: EventStore) -> None:
    (tmp_path / "file").write_text("")
    file = other_sinks(
        pipeline(tmp_path, kinetica.url, kronos.url),
        panoply={"panoply": {"apikey": "acct/rand1", "apisecret": "hush"}},
        lake={"parquet": {"path": "file/lake"}},
        lines={"console": {"path": "."}},
    )
    result = tablecast("check", str(file))
    panoply, lake, console = complaints(result)
    assert (
        panoply == "sink panoply: the apisecret is not one of Panoply's; copy it whole, with the = at its end"
    )
    assert lake == f"sink lake: {tmp_path}/file is a file; give another path"
    assert console == f"sink lines: {tmp_path} is a folder; name a file in it"
    assert "hush" not in result.output


def test_check_of_a_bad_file_names_every_fault(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("pipeline: p\nsource: {kinetica: {}}\ntables: [{name: t, evnts: [insert]}]\nsinks: {}\n")
    lines = complaints(tablecast("check", str(file)))
    assert len(lines) == 3
    assert all(line.startswith(f"{file}:") for line in lines)
    assert "evnts" in lines[1]
    (line,) = complaints(tablecast("check", str(tmp_path / "none.yaml")))
    assert "No such file" in line


def test_check_offline_asks_nobody(tmp_path: Path, closed_port: int) -> None:
    url = f"http://127.0.0.1:{closed_port}"
    assert tablecast("check", "--offline", str(pipeline(tmp_path, url, url))).exit_code == 0


def test_check_names_every_server_that_does_not_answer(tmp_path: Path, closed_port: int) -> None:
    url = f"http://127.0.0.1:{closed_port}"
    source, sink = complaints(tablecast("check", str(pipeline(tmp_path, url, url))))
    assert source.startswith("source.kinetica: ")
    assert sink.startswith("sink events: ")
    assert str(closed_port) in source
    assert str(closed_port) in sink


def test_check_with_wrong_credentials_shows_none(
    tmp_path: Path, kinetica: TableServer, kronos: EventStore
) -> None:
    file = pipeline(tmp_path, kinetica.url, kronos.url, password="battery-staple")
    result = tablecast("check", str(file))
    (line,) = complaints(result)
    assert line.startswith("source.kinetica: ")
    assert "password" in line
    assert "battery" not in result.output


def test_check_of_a_table_that_does_not_exist(
    tmp_path: Path, kinetica: TableServer, kronos: EventStore
) -> None:
    file = pipeline(tmp_path, kinetica.url, kronos.url, table="nothing_here")
    (line,) = complaints(tablecast("check", str(file)))
    assert line == f"table nothing_here does not exist at {kinetica.url}; check its name and schema"


def test_check_of_a_namespace_that_the_store_does_not_have(
    tmp_path: Path, kinetica: TableServer, kronos: EventStore
) -> None:
    file = pipeline(tmp_path, kinetica.url, kronos.url, namespace="elsewhere")
    (line,) = complaints(tablecast("check", str(file)))
    assert line.startswith("sink events: ")
    assert "elsewhere" in line


def test_check_of_a_monitor_port_that_is_closed(
    tmp_path: Path, kinetica: TableServer, kronos: EventStore, closed_port: int
) -> None:
    file = pipeline(tmp_path, kinetica.url, kronos.url, monitor_port=closed_port)
    (line,) = complaints(tablecast("check", str(file)))
    assert (
        line == f"source.kinetica: monitor port 127.0.0.1:{closed_port}: Connection refused;"
        " check monitor_port and firewalls"
    )


@pytest.mark.parametrize(
    "verb",
    [
        ("status",),
        ("status", "p"),
        ("scale", "p", "--decoders", "2"),
        ("scale", "p", "--auto"),
        ("down", "p"),
        ("resume", "p"),
        ("rewind", "p", "--sink", "s", "--to", "-10min"),
        ("deadletters", "p", "ls"),
        ("deadletters", "p", "replay"),
    ],
)
def test_without_a_cluster_it_says_how_to_get_one(tmp_path: Path, verb: tuple[str, ...]) -> None:
    result = tablecast(*verb, env={"TABLECAST_HOME": str(tmp_path), "RAY_ADDRESS": None})
    (line,) = complaints(result)
    assert line.startswith("no pipeline is running here; start one with `tablecast up FILE`")


def test_a_note_of_a_cluster_that_is_gone_counts_for_nothing(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait(timeout=30)
    for note in (
        {"address": "127.0.0.1:1", "pid": gone.pid, "created": 1.0},
        {"address": "127.0.0.1:1", "pid": os.getpid(), "created": 1.0},  # the process id was used again
        {},
    ):
        (tmp_path / "cluster.json").write_text(json.dumps(note))
        complaints(tablecast("status", env={"TABLECAST_HOME": str(tmp_path), "RAY_ADDRESS": None}))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["explode"], "No such command 'explode'"),
        (["scale", "p"], "give either --decoders N or --auto"),
        (["scale", "p", "--decoders", "2", "--auto"], "give either --decoders N or --auto"),
        (["scale", "p", "--decoders", "0"], "0 is not in the range"),
        (["serve", "kinetica", "--user", "x"], "--user and --password go together"),
        (["serve", "kronos"], "--data-dir"),
        (["deadletters", "p"], "Usage: main deadletters [OPTIONS] NAME COMMAND"),
        (["deadletters", "p", "ls", "--limit", "0"], "0 is not in the range"),
        (["deadletters", "p", "show"], "Missing argument 'ORIGIN'"),
        (["deadletters", "p", "replay", "p/t/1/2", "--table", "t"], "name origins or a table, not both"),
    ],
)
def test_wrong_usage(arguments: list[str], text: str) -> None:
    result = tablecast(*arguments, env={"KINETICA_PASSWORD": None})
    assert result.exit_code == 2
    assert text in result.stderr


def serve(*arguments: str) -> list[str]:
    """Lines on standard error of a server that cannot start; in a process of its own, as it sets signal handlers."""
    done = subprocess.run(
        [sys.executable, "-m", "cluster", "serve", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=ROOT,
    )
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    return done.stderr.splitlines()


def test_serve_on_a_port_in_use(tmp_path: Path, kronos: EventStore, kinetica: TableServer) -> None:
    (line,) = serve("kronos", "--port", str(kronos.port), "--data-dir", str(tmp_path))
    assert line.startswith("tablecast: ")
    assert str(kronos.port) in line
    (line,) = serve("kinetica", "--port", str(kinetica.port), "--monitor-port", "0")
    assert str(kinetica.port) in line
    (line,) = serve("kinetica", "--port", "0", "--monitor-port", str(kinetica.monitor_port))
    assert str(kinetica.monitor_port) in line


def test_serve_in_a_place_that_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for kind in ("kronos", "kinetica", "v3io"):
        (line,) = serve(kind, "--port", "0", "--data-dir", str(tmp_path / "file"))
        assert line.startswith("tablecast: ")
        assert str(tmp_path / "file") in line


def test_check_of_a_spool_that_cannot_be_written(
    tmp_path: Path, kinetica: TableServer, kronos: EventStore
) -> None:
    file = pipeline(tmp_path, kinetica.url, kronos.url)
    (tmp_path / "spool").write_text("in the way")
    result = tablecast("check", str(file))
    assert result.exit_code == 2
    assert "name a folder that can be written" in result.stderr


def test_a_cluster_address_where_nothing_answers_is_told_at_once(tmp_path: Path, closed_port: int) -> None:
    env = {"TABLECAST_HOME": str(tmp_path)}
    result = tablecast("status", "--address", f"127.0.0.1:{closed_port}", env=env)
    assert result.exit_code == 2
    assert "no Ray cluster answers" in result.stderr
