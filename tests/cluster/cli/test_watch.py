"""A pipeline on one screen: readable on 80 columns, whatever the number of tables."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from cluster.cli.watch import view

SIZES = [(80, 24), (80, 8), (200, 60), (60, 24)]


def table(name: str, **changes: Any) -> dict[str, Any]:
    values = {
        "name": name,
        "state": "receiving",
        "problem": None,
        "paused": False,
        "records_per_second": 1234.5,
        "received": 12_345_678,
        "pending": 1_234_567,
        "dead_letters": 0,
        "lost": 0,
        "restarts": 0,
        "resident_bytes": 150 << 20,
        "standby": None,
        "lanes": [],
    }
    return {**values, **changes}


def sink(name: str, **changes: Any) -> dict[str, Any]:
    values = {"name": name, "kind": "kronos", "state": "up", "problem": None, "paused": False, "retries": 0}
    return {**values, "records_per_second": 10.0, "records": 123_456_789, "restarts": 0, **changes}


def status(tables: list[dict[str, Any]], sinks: list[dict[str, Any]], alerts: int = 0) -> dict[str, Any]:
    return {
        "pipeline": "flights",
        "state": "running",
        "time": 1.0,
        "restarts": 3,
        "tables": tables,
        "sinks": sinks,
        "decoders": {"wanted": 2, "running": 2, "members": []},
        "spools": [],
        "web": {"url": None, "problem": None},
        "alerts": [f"alert {n}" for n in range(alerts)],
    }


def drawn(made: dict[str, Any], width: int = 80, height: int = 24) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=False)
    console.print(view(made, width, height))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert all(len(line) <= width for line in lines)
    return [line.rstrip() for line in lines]


MANY = [table(f"a_table_with_quite_a_long_name_{n}") for n in range(200)]


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_200_tables_fit_every_screen(width: int, height: int) -> None:
    ill = [table(f"ill_{n}", state="down", problem="killed " * 30) for n in range(5)]
    made = status([*MANY, *ill], [sink(f"s{n}") for n in range(9)], alerts=20)
    lines = drawn(made, width, height)
    assert len(lines) <= max(height, 10)
    assert "205 tables, 5 in trouble" in lines[1]


def test_those_in_trouble_come_first_and_the_rest_is_summed_up() -> None:
    ill = table("ill", state="aborted", problem="column doc: no valid json")
    lines = drawn(status([*MANY, ill, table("lossy", lost=7)], [sink("events")]))
    rows = [line.split() for line in lines]
    assert rows[3][:2] == ["ill", "aborted"]
    assert rows[4][:2] == ["lossy", "receiving"]
    assert rows[5][0].startswith("a_table_with")
    assert "ill: column doc: no valid json" in lines
    (rest,) = [line for line in lines if line.strip().startswith("and ")]
    shown = sum("a_table_with" in line for line in lines)
    assert rest.split()[:4] == ["and", str(200 - shown), "more", "receiving"]


def test_what_is_paused_is_said() -> None:
    made = status([table("flights", paused=True), table("weather")], [sink("events", paused=True)])
    lines = drawn(made)
    assert lines[3].split()[:2] == ["flights", "paused"]
    assert "flights: paused, delivered to no sink; `tablecast resume flights flights`" in lines
    assert any(line.split()[:3] == ["events", "kronos", "paused"] for line in lines)


def test_numbers_and_headings_are_whole_on_80_columns() -> None:
    lines = drawn(status([table("flights", dead_letters=12_345, lost=1_234, restarts=12)], [sink("events")]))
    assert lines[2].split() == ["table", "state", "rec/s", "received", "pending", "dead", "lost", "restarts"]
    cells = ["flights", "receiving", "1,234", "12.3M", "1.23M", "12,345", "1,234", "12"]
    assert lines[3].split() == cells


def test_a_supervisor_that_does_not_answer_is_told_of() -> None:
    console = Console(file=io.StringIO(), width=80, height=24)
    console.print(view(status(MANY[:3], [sink("events")]), 80, 24, note="the supervisor has not answered"))
    assert "the supervisor has not answered" in console.file.getvalue()  # type: ignore[attr-defined]
