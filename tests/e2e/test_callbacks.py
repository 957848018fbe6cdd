"""Callbacks on the cluster: a function is called with every row at least once, also when its process is killed."""

from __future__ import annotations

import io
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastavro
import ray

from actors.names import NAMESPACE, writer_name
from cluster import control
from cluster.config import PipelineConfig
from protocols.kinetica.client import KineticaClient
from protocols.kinetica.types import Column, TableType
from tests.e2e.conftest import DEADLINE, wait_until

ROWS = 400
BAD = 13

#: Each row tells where its callback writes to: nothing else reaches the writer's process.
ROW = TableType((Column("id", "long"), Column("path", "string")))


def on_insert(row: dict[str, Any], origin: str) -> None:
    if row["id"] == BAD:
        raise ValueError("not this one")
    with open(row["path"], "a") as file:
        file.write(json.dumps([row["id"], origin]) + "\n")


def on_raw(frame: bytes) -> None:
    row: Any = fastavro.schemaless_reader(io.BytesIO(frame), ROW.avro, None)
    with open(f"{row['path']}.raw", "a") as file:
        file.write(f"{row['id']}\n")


def frame(number: int, path: Path) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, ROW.avro, {"id": number, "path": str(path)})
    return out.getvalue()


def test_every_row_is_called_for_though_the_writer_is_killed(
    start: Callable[[PipelineConfig], Any],
    make_config: Callable[..., PipelineConfig],
    unique: str,
    kinetica: KineticaClient,
    tmp_path: Path,
) -> None:
    kinetica.create_table(unique, kinetica.create_type(ROW))
    callbacks = {"insert_decoded": f"{__name__}:on_insert", "insert_raw": f"{__name__}:on_raw"}
    supervisor = start(make_config(unique, [unique], sinks={"mine": {"python": {"callbacks": callbacks}}}))
    notes = tmp_path / "notes"

    def called() -> list[tuple[int, str]]:
        return [tuple(json.loads(line)) for line in notes.read_text().splitlines()] if notes.exists() else []

    kinetica.insert_records(unique, [frame(number, notes) for number in range(ROWS // 2)])
    wait_until(called, "the first calls")
    writer = ray.get_actor(writer_name(unique, "mine"), NAMESPACE)
    os.kill(ray.get(writer.status.remote(), timeout=DEADLINE)["pid"], signal.SIGKILL)
    kinetica.insert_records(unique, [frame(number, notes) for number in range(ROWS // 2, ROWS)])
    good = set(range(ROWS)) - {BAD}
    wait_until(lambda: {number for number, _ in called()} == good, "a call for every row")
    origins = {number: origin for number, origin in called()}
    assert set(called()) == set(origins.items())  # a row that came twice came with the same origin
    assert [origin.rsplit("/", 1)[1] for _, origin in sorted(origins.items())] == [
        str(n) for n in sorted(good)
    ]
    raw = {int(line) for line in (tmp_path / "notes.raw").read_text().splitlines()}
    assert raw == set(range(ROWS))

    def letters() -> int:
        tables = control.ask(supervisor, "status")["tables"]
        return int(next(each for each in tables if each["name"] == unique)["dead_letters"])

    wait_until(lambda: letters() == 1, "one dead letter")
