"""``tablecast init``: a file from a real table server that can be used as it is, and what it says of each table."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cluster.cli.main import main
from cluster.config import load
from cluster.starter import guess
from protocols.kinetica.client import KineticaClient
from protocols.kinetica.server import TableServer
from protocols.kinetica.types import Column, TableType

ID = Column("id", "long", False, ("primary_key",))
TABLES = {
    "flights": TableType((ID, Column("carrier", "string"))),
    "schema.weather": TableType((Column("station", "string"), Column("event_id", "int"))),
    "readings": TableType((Column("at", "long", False, ("timestamp",)), Column("value", "double"))),
    "words": TableType((Column("word", "string", False, ("primary_key",)),)),
    "flights.updates": TableType((ID,)),
    "null": TableType((Column("yes", "long", False, ("primary_key",)),)),
}


@pytest.fixture(scope="module")
def server() -> Iterator[TableServer]:
    with TableServer(port=0, monitor_port=0, user="u", password="correct-horse") as running:
        with KineticaClient(running.url, username="u", password="correct-horse") as client:
            client.call("/create/schema", schema_name="schema")
            client.call("/create/schema", schema_name="flights")
            for name, columns in TABLES.items():
                client.create_table(name, client.create_type(columns))
        yield running


def init(server: TableServer, *arguments: str, password: str | None = "correct-horse") -> Result:
    env = {"KINETICA_USER": None, "KINETICA_PASSWORD": password}
    return CliRunner().invoke(main, ["init", "--url", server.url, "--user", "u", *arguments], env=env)


def test_the_file_passes_check_as_it_is(server: TableServer, tmp_path: Path) -> None:
    file = tmp_path / "all tables.yaml"
    result = init(server, "--out", str(file))
    assert result.exit_code == 0, result.output
    checked = CliRunner().invoke(main, ["check", "--offline", str(file)], env={"KINETICA_PASSWORD": None})
    assert checked.exit_code == 0, checked.output
    config = load(file, {"KINETICA_PASSWORD": "correct-horse"})
    assert config.pipeline == "all-tables"
    lines = config.sinks["lines"].console
    assert lines
    assert str(lines.path).endswith("all-tables.ndjson")  # another pipeline has another file
    assert {table.name: table.increasing_column for table in config.tables} == {
        "ki_home.flights": "id",
        "ki_home.null": "yes",
        "ki_home.readings": None,
        "ki_home.words": None,
        "schema.weather": "event_id",
        "flights.updates": "id",
    }
    assert (config.source.kinetica.username, config.source.kinetica.url) == ("u", (server.url,))


def test_the_file_says_why_and_holds_no_password(server: TableServer, tmp_path: Path) -> None:
    file = tmp_path / "pipeline.yaml"
    assert init(server, "--out", str(file)).exit_code == 0
    text = file.read_text()
    assert "increasing_column: id # the primary key, a whole number\n" in text
    assert "    # increasing_column: at # a timestamp: only if no two rows share a value\n" in text
    assert "password: ${KINETICA_PASSWORD:-}" in text
    assert "correct-horse" not in text
    assert "# events: {kronos:" in text


def test_what_is_there_is_not_overwritten(server: TableServer, tmp_path: Path) -> None:
    file = tmp_path / "pipeline.yaml"
    file.write_text("mine")
    result = init(server, "--out", str(file))
    assert (result.exit_code, file.read_text()) == (2, "mine")
    assert "exists and is left as it is" in result.stderr


def test_what_goes_wrong_is_one_line_and_writes_nothing(server: TableServer, tmp_path: Path) -> None:
    out = ("--out", str(tmp_path / "pipeline.yaml"))
    wrong = init(server, *out, password="battery-staple")
    url = CliRunner().invoke(main, ["init", "--url", "http://u:secret@127.0.0.1", *out])
    folder = init(server, "--out", str(tmp_path / "none" / "pipeline.yaml"))
    for result, part in ((wrong, "password"), (url, "credentials in a URL"), (folder, "cannot be written")):
        assert result.exit_code == 2
        (line,) = result.stderr.splitlines()
        assert part in line
        assert "battery" not in line
        assert "secret" not in line
    assert os.listdir(tmp_path) == []


def test_a_server_without_tables(tmp_path: Path) -> None:
    with TableServer(port=0, monitor_port=0) as empty:
        result = init(empty, "--out", str(tmp_path / "pipeline.yaml"))
    assert (result.exit_code, os.listdir(tmp_path)) == (2, [])
    assert "there are no tables" in result.stderr


@pytest.mark.parametrize(
    ("columns", "column", "sure"),
    [
        ((Column("n", "int", False, ("primary_key",)),), "n", True),
        (
            (Column("n", "int", False, ("primary_key",)), Column("m", "int", False, ("primary_key",))),
            None,
            None,
        ),
        ((Column("k", "string", False, ("primary_key",)), Column("seq", "long")), "seq", True),
        ((Column("at", "long", False, ("primary_key", "timestamp")),), "at", False),
        ((Column("id", "long", True),), None, None),
        ((Column("id", "string"),), None, None),
        ((Column("id", "int", False, ("boolean",)),), None, None),
        ((Column("paid", "long"),), None, None),
    ],
)
def test_guesses(columns: tuple[Column, ...], column: str | None, sure: bool | None) -> None:
    found = guess(TableType(columns))
    assert (found and found.column, found and found.sure) == (column, sure)
