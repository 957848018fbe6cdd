"""Whole pipelines into every sink: read back by its official client, each holds exactly what the table held."""

from __future__ import annotations

import io
import json
import logging
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import gpudb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
import v3io.dataplane

from actors.names import NAMESPACE, writer_name
from cluster import control
from cluster.config import PipelineConfig
from protocols.kinetica.client import KineticaClient
from protocols.kronos.client import KronosClient
from protocols.kronos.wire import MAX_TIME
from protocols.v3io.server import V3ioServer
from tests.e2e import traffic
from tests.e2e.conftest import DEADLINE, wait_until
from tests.sqs import APIKEY, Queue, secret, serve

V3IO_KEY = "access-key"

COLUMNS = [
    ["id", "long", "primary_key"],
    ["name", "string", "nullable"],
    ["x", "double"],
    ["d", "string", "decimal(10,3)"],
]


class _Quiet:
    """What the official client of V3IO logs to."""

    def __getattr__(self, name: str) -> object:
        return lambda *args, **kwargs: None


@pytest.fixture(scope="module")
def v3io_url() -> Iterator[str]:
    with V3ioServer(port=0, access_key=V3IO_KEY) as server:
        yield server.url


def shard_of(client: v3io.dataplane.Client, path: str, number: int) -> list[Any]:
    """All records of a shard."""
    location = client.stream.seek("users", path, number, "EARLIEST").output.location
    found: list[Any] = []
    while (page := client.stream.get_records("users", path, number, location).output).records:
        found += page.records
        location = page.next_location
    return found


@pytest.fixture
def queue() -> Iterator[Queue]:
    with serve() as queue:
        yield queue


@pytest.fixture
def table(kinetica_url: str, unique: str) -> Iterator[gpudb.GPUdbTable]:
    """A table of the official client, which logs every call."""
    logging.disable(logging.CRITICAL)
    yield gpudb.GPUdbTable(COLUMNS, unique, db=gpudb.GPUdb(host=kinetica_url))
    logging.disable(logging.NOTSET)


def fill(table: gpudb.GPUdbTable, start: int, stop: int) -> None:
    rows = [[n, None if n % 7 == 0 else f'row "{n}" +é☃', n / 8, f"{n}.125"] for n in range(start, stop)]
    table.insert_records(rows)


def held(table: gpudb.GPUdbTable) -> list[tuple[Any, ...]]:
    """What the table itself says it holds."""
    rows = [record.values() for record in table.get_records(limit=-9999)]
    return sorted((row[0], row[1], row[2], row[3]) for row in map(tuple, rows))


def test_every_sink_gets_what_the_table_holds_and_a_row_too_large_for_one_becomes_a_dead_letter(
    start: Callable[[PipelineConfig], Any],
    make_config: Callable[..., PipelineConfig],
    unique: str,
    table: gpudb.GPUdbTable,
    queue: Queue,
    v3io_url: str,
    kronos_url: str,
    kronos: KronosClient,
    tmp_path: Path,
) -> None:
    lake = {"url": v3io_url, "access_key": V3IO_KEY, "container": "users"}
    sinks = {
        "queue": {"panoply": {"apikey": APIKEY, "apisecret": secret(), "url": queue.url}},
        "records": {"v3io": lake | {"stream": {"path": "records", "shards": 3, "key": "id"}}},
        "items": {"v3io": lake | {"kv": {"path": "items", "key": "id"}}},
        "files": {"v3io": lake | {"objects": {"path": "files", "format": "parquet"}}},
        "lake": {"parquet": {"path": str(tmp_path / "lake"), "linger": 0.2}},
        "events": {"kronos": {"url": kronos_url}},
    }
    supervisor = start(make_config(unique, [unique], sinks=sinks))
    fill(table, 0, 3000)
    table.insert_records([[-1, "x" * 300_000, 0.0, "0"]])
    fill(table, 3000, 5000)
    expected = sorted(row for row in held(table) if row[0] >= 0)
    assert len(expected) == 5000
    table.delete_records(["id < 10"])
    stored: list[dict[str, Any]] = []

    def complete() -> bool:
        stored.extend(queue.records())
        return len(stored) >= 5001

    wait_until(complete, "5000 rows and a delete in the queue")
    deletes = [record for record in stored if record["__table"] == f"{unique}.deletes"]
    rows = [record for record in stored if record["__table"] == unique]
    assert [record["count"] for record in deletes] == [11]
    assert sorted((row["id"], row["name"], row["x"], row["d"]) for row in rows) == expected
    origins = Counter(row["@origin"].rsplit("/", 2)[-1] for row in rows)
    assert origins == Counter(str(n) for n in range(5001) if n != 3000)

    def letters() -> int:
        (monitor,) = control.ask(supervisor, "status")["tables"]
        return int(monitor["dead_letters"])

    wait_until(letters, "a dead letter")
    wait_until(lambda: control.ask(supervisor, "status")["tables"][0]["pending"] == 0, "all delivered")
    assert letters() == 1
    path = make_config(unique, [unique]).spool.path / unique / unique / "spool.db"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as spool:
        ((reason, frame),) = spool.execute("SELECT reason, frame FROM dead_letter").fetchall()
    assert "bytes as JSON, and a message to Panoply holds" in reason or "an attribute holds" in reason
    assert b"x" * 300_000 in frame
    large = (-1, "x" * 300_000, 0.0, "0.000")
    complete_rows = sorted([large, *expected])

    def told(events: Iterable[dict[str, Any]]) -> list[tuple[Any, ...]]:
        return sorted((event["id"], event["name"], event["x"], event["d"]) for event in events)

    assert told(kronos.get(unique, 0, MAX_TIME)) == complete_rows
    with closing(v3io.dataplane.Client(logger=_Quiet(), endpoint=v3io_url, access_key=V3IO_KEY)) as client:
        records = [record for shard in range(3) for record in shard_of(client, f"records/{unique}", shard)]
        assert told(json.loads(record.data) for record in records) == complete_rows
        # V3IO has no place for text of that length in an item.
        items = client.kv.new_cursor("users", f"items/{unique}").all()
        assert told({"name": None} | item for item in items) == expected
        files = client.container.list("users", f"files/{unique}").output.contents
        tables = [pq.read_table(io.BytesIO(client.object.get("users", file.key).body)) for file in files]
    rows = pa.concat_tables(tables).select(["id", "name", "x", "d"]).to_pylist()
    assert told(row | {"d": str(row["d"])} for row in rows) == complete_rows
    rows = duckdb.sql(
        f"SELECT id, name, x, d FROM '{tmp_path}/lake/{unique}/*.parquet' ORDER BY id"
    ).fetchall()
    assert [(*row[:3], str(row[3])) for row in rows] == complete_rows


def test_parquet_files_hold_what_the_table_holds_also_after_the_writer_was_killed(
    start: Callable[[PipelineConfig], Any],
    make_config: Callable[..., PipelineConfig],
    unique: str,
    table: gpudb.GPUdbTable,
    tmp_path: Path,
) -> None:
    lake = tmp_path / "lake"
    settings = {"path": str(lake), "linger": 0.2, "partition_by_date": True}
    supervisor = start(make_config(unique, [unique], sinks={"lake": {"parquet": settings}}))
    files = f"{lake}/{unique}/*/*.parquet"

    def stored() -> int:
        if not list(lake.glob(f"{unique}/*/*.parquet")):
            return 0
        (count,) = duckdb.sql(f"SELECT count(*) FROM '{files}'").fetchall()[0]
        return int(count)

    fill(table, 0, 2000)
    wait_until(lambda: stored() == 2000, "2000 rows stored")
    for begin in range(2000, 5000, 500):
        fill(table, begin, begin + 500)
        if begin == 3000:
            ray.kill(ray.get_actor(writer_name(unique, "lake"), NAMESPACE))
    wait_until(lambda: stored() >= 5000, "5000 rows stored")
    table.delete_records(["id < 0", "id < 10"])
    deletes = f"{lake}/{unique}.deletes/*/*.parquet"
    wait_until(lambda: list(lake.glob(f"{unique}.deletes/*/*.parquet")), "a delete stored")
    status = control.ask(supervisor, "status")
    assert control.stop_pipeline(unique, DEADLINE) == control.Left(), status
    assert duckdb.sql(f"SELECT sum(count) FROM '{deletes}'").fetchall() == [(10,)]
    rows = duckdb.sql(f"SELECT id, name, x, d, __offset FROM '{files}' ORDER BY __epoch, __offset").fetchall()
    assert [row[4] for row in rows] == list(range(5000))
    assert [row[0] for row in rows] == list(range(5000))
    left = sorted((row[0], row[1], row[2], str(row[3])) for row in rows if row[0] >= 10)
    assert left == held(table)


def test_a_file_of_lines_holds_what_the_transform_makes_of_the_table(
    start: Callable[[PipelineConfig], Any],
    make_config: Callable[..., PipelineConfig],
    unique: str,
    kinetica: KineticaClient,
    tmp_path: Path,
) -> None:
    traffic.create(kinetica, unique)
    path = tmp_path / "events.ndjson"
    transform = {
        "where": "id % 3 <> 0",
        "with_columns": {"number": "CAST(CASE WHEN id = 4000 THEN 'x' ELSE substr(name, 5, 1) END AS INT)"},
        "select": ["id", "number", "name"],
        "rename": {"name": "text"},
    }
    supervisor = start(
        make_config(
            unique,
            [{"name": unique, "transform": transform}],
            sinks={"lines": {"console": {"path": str(path)}}, "out": {"console": {}}},
        )
    )
    kinetica.insert_records(unique, [traffic.frame(n) for n in range(12_000)])
    wait_until(lambda: path.exists() and path.read_bytes().count(b"\n") >= 7999, "7999 lines")
    events = [json.loads(line) for line in path.read_text().splitlines()]
    left = [n for n in range(12_000) if n % 3 and n != 4000]
    texts = [None if n % 7 == 0 else f"row {n} ☃" for n in left]
    assert [event["id"] for event in events] == left
    assert [int(event["@origin"].rpartition("/")[2]) for event in events] == left
    assert [event["text"] for event in events] == texts
    assert [event["number"] for event in events] == [text and int(text[4]) for text in texts]
    assert "name" not in events[0]
    status = wait_until(
        lambda: (now := control.ask(supervisor, "status"))["tables"][0]["dead_letters"] and now,
        "a dead letter",
    )
    decoded = status["decoders"]["members"]
    assert sum(member["rejects"] for member in decoded) * 4000 == sum(
        member["filtered"] for member in decoded
    )
    assert control.stop_pipeline(unique, DEADLINE) == control.Left(), status
