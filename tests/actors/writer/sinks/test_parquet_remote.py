"""Parquet files at URLs: an S3 server of the moto package and a mounted folder, read while they are written."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import boto3
import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from moto.moto_server.werkzeug_app import MotoRequestHandler, create_backend_app
from pyarrow import fs
from werkzeug.serving import make_server

from actors.batch import Batch
from actors.block import BlockId
from actors.writer.sinks import make_sink
from actors.writer.sinks.base import NotWritable
from actors.writer.sinks.parquet_remote import RemoteParquetSink


class _Silent(MotoRequestHandler):  # type: ignore[misc]
    def log_request(self, *args: object, **kwargs: object) -> None:
        pass


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a bucket."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    server = make_server("127.0.0.1", 0, create_backend_app("s3"), threaded=True, request_handler=_Silent)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    client = boto3.client(
        "s3", endpoint_url=f"http://127.0.0.1:{server.server_port}", region_name="us-east-1"
    )
    name = f"lake-{uuid.uuid4().hex}"  # moto's servers share what they hold
    client.create_bucket(Bucket=name)
    yield f"s3://{name}/deep/er?endpoint_override=127.0.0.1:{server.server_port}&scheme=http&region=us-east-1"
    client.close()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(params=["s3", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "s3":
        found: str = request.getfixturevalue("bucket")
        return found
    return f"file://{tmp_path}/lake"


def batch(first: int, count: int, feed: str = "t", epoch: int = 1) -> Batch:
    rows = pa.RecordBatch.from_pydict({"n": np.arange(first, first + count)})
    return Batch(BlockId(feed, epoch, first), count, 1000 + first, rows, None, ())


def sink(url: str, **settings: object) -> RemoteParquetSink:
    made = make_sink("p", {"parquet": {"path": url, **settings}})
    assert isinstance(made, RemoteParquetSink)
    return made


def send(target: RemoteParquetSink, *batches: Batch) -> None:
    for payload in target.rolled(batches):
        target.send(payload)


def stored(url: str, feed: str = "t") -> list[int]:
    """The rows of a feed in order, as whoever lists its files sees them now."""
    system, root = fs.FileSystem.from_uri(url)
    table = ds.dataset(f"{root}/{feed}", filesystem=system, partitioning="hive").to_table()
    found: list[int] = table.sort_by([("__epoch", "ascending"), ("__offset", "ascending")])["n"].to_pylist()
    return found


def test_rows_are_there_once_whatever_is_sent_again(url: str) -> None:
    target = sink(url)
    send(target, batch(0, 10), batch(10, 10))
    send(target, batch(0, 10))
    send(target, batch(10, 20))
    target.close()
    again = sink(url)  # after a crash
    send(again, batch(0, 10), batch(10, 20), batch(30, 5))
    send(again, batch(100, 5, epoch=2))
    assert stored(url) == [*range(35), *range(100, 105)]
    send(again, batch(0, 3, feed="t.deletes"))
    assert stored(url, "t.deletes") == [0, 1, 2]


def test_partitions_by_date(url: str) -> None:
    target = sink(url, partition_by_date=True)
    send(target, batch(0, 10))
    system, root = fs.FileSystem.from_uri(url)
    infos = system.get_file_info(fs.FileSelector(f"{root}/t", recursive=True))
    names = [info.path.removeprefix(f"{root}/t/") for info in infos if info.type == fs.FileType.File]
    assert names == ["received=1970-01-01/0000000000001-000000000000-10.parquet"]
    assert stored(url) == list(range(10))


def test_a_reader_sees_whole_files_and_never_less_than_before(url: str) -> None:
    target = sink(url)
    send(target, batch(0, 100))
    done = threading.Event()

    def write() -> None:
        for first in range(100, 3000, 100):
            send(target, batch(first, 100))
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = 0
    while True:
        last = done.is_set()
        rows = stored(url)
        assert rows == list(range(len(rows)))
        assert len(rows) >= seen
        seen = len(rows)
        if last:
            break
    writer.join()
    assert seen == 3000


def test_a_folder_is_read_by_duckdb_and_leftovers_are_removed(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/lake"
    send(sink(url), batch(0, 10))
    hidden = tmp_path / "lake" / "t" / ".0000000000001-000000000010-5.parquet.tmp"
    hidden.write_bytes(b"half")
    send(sink(url), batch(10, 10))
    assert not hidden.exists()
    assert duckdb.sql(f"SELECT count(*), max(n) FROM '{tmp_path}/lake/t/*.parquet'").fetchall() == [(20, 19)]


def test_a_place_that_does_not_work_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    target = sink(f"file://{tmp_path}/file")
    (payload,) = target.rolled([batch(0, 10)])
    with pytest.raises(NotWritable) as caught:
        target.send(payload)
    assert str(caught.value).startswith(f"file://{tmp_path}/file/t: ")
    assert "\n" not in str(caught.value)
