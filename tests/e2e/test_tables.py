"""Many small tables in few processes: each has a fate of its own, and the death of a process loses nothing."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fastavro
import pytest

from cluster import control
from cluster.config import PipelineConfig
from cluster.servers import embedded_server
from cluster.verify import verify
from protocols.kinetica.client import KineticaClient
from protocols.kinetica.types import Column, TableType
from protocols.kronos.client import KronosClient
from tests.e2e import traffic
from tests.e2e.conftest import DEADLINE, wait_until

DOCUMENT = TableType((Column("id", "long"), Column("doc", "string", False, ("json",))))


def _tables(supervisor: Any) -> dict[str, dict[str, Any]]:
    return {table["name"]: table for table in control.ask(supervisor, "status")["tables"]}


@pytest.fixture
def kinetica_url() -> Iterator[str]:
    """A server of its own: others' topics would be asked about too."""
    with embedded_server("kinetica", "--monitor-port", "0") as url:
        yield url


def test_tables_of_one_process_share_nothing_but_its_death(
    start: Callable[[PipelineConfig], Any],
    make_config: Callable[..., PipelineConfig],
    unique: str,
    kinetica: KineticaClient,
    kronos: KronosClient,
    tmp_path: Path,
) -> None:
    names = [f"{unique}x{n}" for n in range(20)]
    broken, dropped, removed, added = names[2], names[3], names[4], f"{unique}new"
    for name in (*names, added):
        if name != broken:
            traffic.create(kinetica, name)
    kinetica.create_table(broken, kinetica.create_type(DOCUMENT))
    settings: list[Any] = [
        {"name": name, "increasing_column": "id", "on_decode_failure": "abort"} for name in names
    ]
    config = make_config(unique, settings, monitors_per_actor=10)
    supervisor = start(config)
    before = _tables(supervisor)
    first = {name for name in names if before[name]["actor"] == f"{unique}/monitor/shared~1"}
    assert first == set(names[:10])
    assert len({table["pid"] for table in before.values()}) == 2
    assert sorted(path.name for path in (tmp_path / "spool" / unique).iterdir()) == ["shared~1", "shared~2"]

    others = [name for name in names if name not in (broken, dropped, removed)]
    counts: dict[str, int] = dict.fromkeys(others, 0)

    def insert(rows: int) -> None:
        for name in others:
            kinetica.insert_records(
                name, [traffic.frame(n) for n in range(counts[name], counts[name] + rows)]
            )
            counts[name] += rows

    def shown() -> list[tuple[str, dict[str, Any]]]:
        tables = _tables(supervisor)
        return [(name, tables[name]) for name in others]

    def stored() -> bool:
        return all(table["received"] >= counts[name] and not table["pending"] for name, table in shown())

    # One aborts at a record that does not decode, one is dropped, one leaves the file, one is new.
    insert(50)
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(DOCUMENT.avro), {"id": 1, "doc": "NaN"})
    kinetica.insert_records(broken, [out.getvalue()])
    kinetica.clear_table(dropped)
    changed = config.model_copy(
        update={
            "tables": (
                *(table for table in config.tables if table.name != removed),
                config.tables[0].model_copy(update={"name": added}),
            )
        }
    )
    assert control.ask(supervisor, "apply", changed.dump(), DEADLINE) is None
    others.append(added)
    counts[added] = 0
    wait_until(lambda: _tables(supervisor)[dropped]["state"] == "dropped", "the dropped table shows")
    wait_until(lambda: _tables(supervisor)[broken]["state"] == "aborted", "the broken table shows")
    wait_until(lambda: _tables(supervisor)[added]["state"] == "receiving", "the new table receives")
    insert(50)
    wait_until(stored, "the others go on")
    after = _tables(supervisor)
    assert removed not in after
    assert after[added]["actor"] == f"{unique}/monitor/shared~1"  # in the place that became free
    stayed = [name for name in others if name != added]
    assert {(after[name]["pid"], after[name]["restarts"]) for name in stayed} == {
        (before[name]["pid"], 0) for name in stayed
    }

    # All of a process die with it, those of the other one go on, and all are back.
    os.kill(after[names[0]]["pid"], signal.SIGKILL)
    insert(50)
    wait_until(
        lambda: (
            all(table["state"] == "receiving" for _, table in shown())
            and all(_tables(supervisor)[name]["restarts"] == 1 for name in first & set(others))
        ),
        "all receive again",
    )
    insert(50)
    assert all(_tables(supervisor)[name]["restarts"] == 0 for name in names[10:])

    def complete() -> bool:
        return all(
            {event["id"] for event in traffic.events(kronos, name)} == set(range(counts[name]))
            for name in others
        )

    wait_until(complete, "every row is stored")
    for name in others:
        events = traffic.events(kronos, name)
        assert (traffic.doubles(events), traffic.holes(events)) == ({}, [])
    report = verify(unique, repair=True)
    lost = {table["table"]: (table["lost"], table["unexplained"]) for table in report["tables"]}
    assert {name: lost[name] for name in others} == dict.fromkeys(others, (0, 0))
    assert control.stop_pipeline(unique, DEADLINE) == control.Left(1)  # the record that did not decode
