"""The Parquet sink: what readers see at every instant, after crashes, and after columns have changed."""

from __future__ import annotations

import datetime as dt
import decimal
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.batch import Batch
from actors.block import TICKS_PER_SECOND, BlockId
from actors.writer.sinks import parquet
from actors.writer.sinks.base import NotWritable, RollingSink
from actors.writer.sinks.parquet import SMALL_FILES, ParquetSink

NOON = 1_795_176_000 * TICKS_PER_SECOND  # 2026-11-20T12:00:00Z


def batch(
    offset: int, count: int, epoch: int = 7, time: int = NOON, feed: str = "t", **columns: Any
) -> Batch:
    numbers = list(range(offset, offset + count))
    rows = pa.RecordBatch.from_pydict({"n": numbers} | columns)
    return Batch(BlockId(feed, epoch, offset), count, time + offset, rows, None, ())


def write(sink: ParquetSink, *batches: Batch) -> None:
    for payload in sink.rolled(batches):
        sink.send(payload)


def numbers(path: Path, pattern: str = "t/*.parquet") -> list[int]:
    """What DuckDB, polars and pyarrow agree to find in column n."""
    files = f"{path}/{pattern}"
    rows = duckdb.sql(f"SELECT n FROM read_parquet('{files}') ORDER BY __epoch, __offset").fetchall()
    found = [n for (n,) in rows]
    assert pl.read_parquet(files).sort("__epoch", "__offset")["n"].to_list() == found
    table = ds.dataset(path / "t", partitioning="hive").to_table()
    assert table.sort_by([("__epoch", "ascending"), ("__offset", "ascending")])["n"].to_pylist() == found
    return found


def test_it_is_a_sink_that_rolls(tmp_path: Path) -> None:
    assert isinstance(ParquetSink("p", str(tmp_path)), RollingSink)


def test_types_are_kept(tmp_path: Path) -> None:
    columns = {
        "i8": pa.array([-1], pa.int8()),
        "u64": pa.array([2**64 - 1], pa.uint64()),
        "f": pa.array([0.1], pa.float32()),
        "d": pa.array([decimal.Decimal("123456789012345.6789")], pa.decimal128(19, 4)),
        "day": pa.array([dt.date(1, 1, 1)]),
        "ts": pa.array([1], pa.timestamp("ms", "UTC")),
        "dtm": pa.array([dt.datetime(2026, 1, 2, 3, 4, 5, 6)], pa.timestamp("us")),
        "tm": pa.array([dt.time(1, 2, 3, 4)], pa.time64("us")),
        "v": pa.array([[1.0, 2.0]], pa.list_(pa.float32(), 2)),
        "l": pa.array([["a", None]], pa.list_(pa.large_string())),
        "b": pa.array([b"\0\xff"], pa.large_binary()),
        "s": pa.array(["é☃"], pa.large_string()),
        "no": pa.nulls(1, pa.bool_()),
        "__time": pa.array(["mine"]),
    }
    rows = pa.RecordBatch.from_pydict(columns)
    sink = ParquetSink("p", str(tmp_path))
    write(sink, Batch(BlockId("t", 7, 0), 1, NOON + 5, rows, None, ()))
    sink.close()
    table = pq.read_table(tmp_path / "t" / "0000000000007-000000000000-1.parquet")
    assert table.slice(0, 1).select(range(13)).to_batches()[0] == rows.select(range(13))
    assert table.schema.names[13:] == ["___time", "__epoch", "__offset", "__time"]
    assert table["__time"].cast(pa.int64()).to_pylist() == [(NOON + 5) * 100]
    (row,) = duckdb.sql(
        f"SELECT u64, d, day, b, s, ___time, __epoch, __offset FROM '{tmp_path}/t/*.parquet'"
    ).fetchall()
    values = (2**64 - 1, decimal.Decimal("123456789012345.6789"), dt.date(1, 1, 1), b"\0\xff", "é☃")
    assert row == (*values, "mine", 7, 0)


def test_small_files_are_merged_in_time(tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    sink = ParquetSink("p", str(lake), file_bytes=40_000, merge_seconds=0)
    noise = np.random.default_rng(1)
    most = 0
    for start in range(0, 30_000, 250):
        write(sink, batch(start, 250, x=noise.random(250)))
        most = max(most, sum(file.stat().st_size < 40_000 for file in lake.rglob("*.parquet")))
    sink.close()
    files = sorted((lake / "t").glob("*.parquet"))
    assert most < SMALL_FILES
    assert sum(file.stat().st_size >= 40_000 for file in files) > 5
    assert numbers(lake) == numbers(lake, "**/*.parquet") == list(range(30_000))
    assert len(pq.read_metadata(files[0]).to_dict()["row_groups"]) == 1
    assert {path.name for path in lake.iterdir()} == {"t", ".t.lock"}


def test_merges_go_back_to_the_partition_of_the_day_before(tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    sink = ParquetSink("p", str(lake), partition_by_date=True, merge_seconds=3600)
    midnight = NOON + 12 * 3600 * TICKS_PER_SECOND - SMALL_FILES
    for start in range(SMALL_FILES):
        write(sink, batch(start, 1, time=midnight))
    later = time.monotonic() + 7200
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: later)
        write(sink, batch(SMALL_FILES, 1, time=midnight))
    sink.close()
    files = [str(file.relative_to(lake)) for file in sorted(lake.rglob("*.parquet"))]
    assert files == [
        f"t/received=2026-11-20/0000000000007-000000000000-{SMALL_FILES}.parquet",
        f"t/received=2026-11-21/0000000000007-{SMALL_FILES:012d}-1.parquet",
    ]


def test_merges_keep_partitions_of_former_settings(tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    sink = ParquetSink("p", str(lake), partition_by_date=True)
    write(sink, batch(0, 5))
    sink.close()
    sink = ParquetSink("p", str(lake), merge_seconds=0)
    for offset in range(5, 5 + 2 * SMALL_FILES):
        write(sink, batch(offset, 1))
    sink.close()
    assert len(list(lake.glob("t/*.parquet"))) < SMALL_FILES
    found = [pq.read_table(file, partitioning=None) for file in lake.rglob("t/**/*.parquet")]
    assert sorted(n for table in found for n in table["n"].to_pylist()) == list(range(5 + 2 * SMALL_FILES))
    assert [folder.name for folder in lake.glob("t/*=*")] == ["received=2026-11-20"]


def test_merges_keep_to_their_time_and_to_enough_files(tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    sink = ParquetSink("p", str(lake), merge_seconds=3600)
    for start in range(2 * SMALL_FILES):
        write(sink, batch(start, 1))
    assert len(list(lake.rglob("*.parquet"))) == 2 * SMALL_FILES
    sink.close()
    sink = ParquetSink("p", str(lake), merge_seconds=0)
    write(sink, batch(2 * SMALL_FILES, 1))
    sink.close()
    (file,) = lake.rglob("*.parquet")
    assert file.name == f"0000000000007-000000000000-{2 * SMALL_FILES + 1}.parquet"
    assert numbers(lake) == list(range(2 * SMALL_FILES + 1))


def test_merges_respect_epochs_columns_and_what_others_put_there(tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    sink = ParquetSink("p", str(lake), merge_seconds=3600)
    for epoch, columns in ((7, {}), (8, {}), (8, {"c": ["x"]}), (8, {})):
        for _ in range(5):
            write(sink, batch(sum(1 for f in lake.glob(f"t/*{epoch}-*")), 1, epoch=epoch, **columns))
    (lake / "t" / "NOTES").write_text("mine")
    sink.close()
    sink = ParquetSink("p", str(lake), merge_seconds=0)
    write(sink, batch(15, 1, epoch=8))
    sink.close()
    names = [file.name[9:-8] for file in sorted((lake / "t").glob("*.parquet"))]
    assert names == [
        "0007-000000000000-5",
        "0008-000000000000-5",
        "0008-000000000005-5",
        "0008-000000000010-6",
    ]
    assert (lake / "t" / "NOTES").read_text() == "mine"


def test_a_merge_that_fails_leaves_all_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = tmp_path / "lake"
    sink = ParquetSink("p", str(lake), merge_seconds=0)

    def refuse(one: Path, other: Path) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(parquet, "exchange", refuse)
    for start in range(SMALL_FILES + 3):
        write(sink, batch(start, 1))
    assert len(list((lake / "t").glob("*.parquet"))) == SMALL_FILES + 3
    assert numbers(lake) == list(range(SMALL_FILES + 3))
    monkeypatch.undo()
    write(sink, batch(SMALL_FILES + 3, 1))
    sink.close()
    assert len(list((lake / "t").glob("*.parquet"))) == 1
    assert numbers(lake) == list(range(SMALL_FILES + 4))


def test_files_are_not_shared_by_epochs_or_columns(tmp_path: Path) -> None:
    sink = ParquetSink("p", str(tmp_path))
    write(sink, batch(0, 2), batch(2, 2))
    write(sink, batch(0, 2, epoch=8))
    write(sink, batch(2, 2, epoch=8, c=["new", "column"]))
    write(sink, batch(4, 2, epoch=8, c=["new", "column"]))
    sink.close()
    names = [file.name[9:-8] for file in sorted((tmp_path / "t").glob("*.parquet"))]
    assert names == [
        "0007-000000000000-4",
        "0008-000000000000-2",
        "0008-000000000002-2",
        "0008-000000000004-2",
    ]
    # As docs/parquet.md says to read them.
    files = f"{tmp_path}/t/*.parquet"
    rows = duckdb.sql(
        f"SELECT n, c FROM read_parquet('{files}', union_by_name = true) ORDER BY __epoch, __offset"
    ).fetchall()
    assert rows == [(n, None) for n in (0, 1, 2, 3, 0, 1)] + [
        (n, c) for n in (2, 4) for n, c in ((n, "new"), (n + 1, "column"))
    ]
    frame = pl.concat(
        [pl.scan_parquet(file) for file in sorted((tmp_path / "t").glob("*.parquet"))], how="diagonal"
    )
    assert frame.collect()["c"].to_list() == [c for _, c in rows]
    dataset = ds.dataset(tmp_path / "t")
    schema = pa.unify_schemas([part.physical_schema for part in dataset.get_fragments()])
    assert dataset.replace_schema(schema).to_table()["c"].to_pylist() == [c for _, c in rows]


def test_partitions_by_date(tmp_path: Path) -> None:
    sink = ParquetSink("p", str(tmp_path), partition_by_date=True)
    midnight = NOON + 12 * 3600 * TICKS_PER_SECOND
    write(sink, batch(0, 10, time=midnight - 6, received=["mine"] * 10))
    write(sink, batch(10, 5, time=midnight - 6, received=["mine"] * 5))
    sink.close()
    found: dict[str, list[int]] = {}
    for file in sorted(tmp_path.rglob("*.parquet")):
        found.setdefault(file.parent.name, []).extend(pq.read_table(file, partitioning=None)["n"].to_pylist())
    assert found == {"received=2026-11-20": list(range(6)), "received=2026-11-21": list(range(6, 15))}
    assert numbers(tmp_path, "t/*/*.parquet") == list(range(15))
    counts = duckdb.sql(
        f"SELECT received, _received, count(*) FROM '{tmp_path}/t/*/*.parquet' GROUP BY ALL ORDER BY 1"
    )
    assert [(str(day), mine, count) for day, mine, count in counts.fetchall()] == [
        ("2026-11-20", "mine", 6),
        ("2026-11-21", "mine", 9),
    ]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(1, 6), st.booleans(), st.booleans()), max_size=12),
    st.sampled_from([1, 1500, 1 << 20]),
)
def test_what_is_sent_again_in_whatever_groups_is_there_once(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, int, bool, bool]], file_bytes: int
) -> None:
    """Each step goes back some records, sends blocks of three, perhaps in one roll, perhaps restarts the writer."""
    path = tmp_path_factory.mktemp("base") / "lake"
    sink = ParquetSink("p", str(path), file_bytes=file_bytes, merge_seconds=0)
    end = 0
    for back, blocks, together, restart in steps:
        start = max(0, end - back * 3)
        sent = [batch(start + 3 * n, 3) for n in range(blocks)]
        for group in [sent] if together else [[one] for one in sent]:
            write(sink, *group)
        end = max(end, start + 3 * blocks)
        if restart:
            sink.close()
            sink = ParquetSink("p", str(path), file_bytes=file_bytes, merge_seconds=0)
    sink.close()
    if end:
        assert numbers(path) == list(range(end))


def test_an_older_epoch_that_comes_again_is_there_already(tmp_path: Path) -> None:
    sink = ParquetSink("p", str(tmp_path))
    write(sink, batch(0, 3, epoch=7))
    write(sink, batch(0, 3, epoch=8))
    write(sink, batch(0, 3, epoch=7))
    sink.close()
    assert len(numbers(tmp_path)) == 6


def test_rows_that_did_not_decode_are_holes(tmp_path: Path) -> None:
    sink = ParquetSink("p", str(tmp_path))
    rows = pa.RecordBatch.from_pydict({"n": [0, 2]})
    sent = Batch(BlockId("t", 7, 0), 2, NOON, rows, np.array([0, 2]), ())
    for _ in range(2):
        write(sink, sent)
    nothing = Batch(BlockId("t", 7, 3), 0, NOON, rows.slice(0, 0), np.array([], np.int64), ())
    assert list(sink.payloads(nothing)) == []
    sink.close()
    assert numbers(tmp_path) == [0, 2]


def test_dead_letters_that_are_replayed_fill_the_holes(tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    sink = ParquetSink("p", str(lake), merge_seconds=3600)
    for start in range(0, 30, 10):
        rows = pa.RecordBatch.from_pydict({"n": list(range(start, start + 9))})
        write(sink, Batch(BlockId("t", 7, start), 9, NOON + start, rows, np.arange(9), ()))
    write(sink, batch(0, 3, epoch=8))
    for _ in range(2):
        write(sink, batch(19, 1))
        write(sink, batch(9, 1), batch(29, 1))
        write(sink, batch(0, 30))
    sink.close()
    sink = ParquetSink("p", str(lake), merge_seconds=0)
    more = SMALL_FILES
    for start in range(3, 3 + more):
        write(sink, batch(start, 1, epoch=8))
    sink.close()
    assert numbers(lake) == [*range(30), *range(3 + more)]


def test_a_failure_at_any_step_leaves_old_or_new_and_trying_again_completes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = ParquetSink("p", str(tmp_path))
    write(sink, batch(0, 10))
    real = {name: getattr(os, name) for name in ("fsync", "rename")}
    for index, (name, call) in enumerate([("fsync", 1), ("rename", 1), ("fsync", 2)]):
        calls = 0

        def failing(*arguments: Any, name: str = name, call: int = call) -> Any:
            nonlocal calls
            calls += 1
            if calls == call:
                raise OSError(28, "No space left on device")
            return real[name](*arguments)

        start = 10 + 10 * index
        with monkeypatch.context() as patch:
            patch.setattr(os, name, failing)
            with pytest.raises(NotWritable, match=f"{tmp_path}/t: No space left on device") as caught:
                write(sink, batch(start, 10))
            assert caught.value.retryable
        assert numbers(tmp_path) in (list(range(start)), list(range(start + 10)))
        write(sink, batch(start, 10))
        assert numbers(tmp_path) == list(range(start + 10))
    sink.close()


def test_a_writer_killed_at_any_moment_doubles_and_loses_nothing(tmp_path: Path) -> None:
    """Kill -9 in the midst of rolls, three times; each life begins some rows before where the last was."""
    script = """
import sys
from tests.actors.writer.sinks.test_parquet import ParquetSink, batch, write
sink = ParquetSink("p", sys.argv[1], file_bytes=20_000, merge_seconds=0)
for start in range(int(sys.argv[2]), 10**6, 50):
    write(sink, batch(start, 50))
    print(start + 50, flush=True)
"""
    lake = tmp_path / "lake"
    start = 0
    for life in range(3):
        child = subprocess.Popen(
            [sys.executable, "-c", script, str(lake), str(start)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        acknowledged = start
        for _ in range(40 + life):
            acknowledged = int(child.stdout.readline())
        child.kill()
        acknowledged = max([acknowledged, *map(int, child.stdout.read().split())])
        child.wait()
        found = numbers(lake)
        assert found == list(range(len(found)))
        assert len(found) >= acknowledged
        start = max(0, acknowledged - 500)


@pytest.mark.parametrize("merge_seconds", [3600.0, 0.0])
def test_readers_see_each_row_once_at_every_instant(tmp_path: Path, merge_seconds: float) -> None:
    """Readers of all three kinds in a loop while rows are written: always a prefix without a hole or a double.

    With merges without a pause a file may be gone between listing and opening, and that is an error.
    """
    lake = tmp_path / "lake"
    sink = ParquetSink("p", str(lake), file_bytes=20_000, merge_seconds=merge_seconds)
    durable = 10
    write(sink, batch(0, 10))
    stop = threading.Event()

    def work() -> None:
        nonlocal durable
        while not stop.is_set():
            write(sink, batch(durable, 10))
            durable += 10

    thread = threading.Thread(target=work)
    thread.start()
    connection = duckdb.connect()
    files = f"{lake}/t/*.parquet"
    complete = 0
    deadline = time.monotonic() + 60
    try:
        while durable < 10 * 10 * SMALL_FILES or complete < 10:
            assert time.monotonic() < deadline
            for read in (
                lambda: [n for (n,) in connection.sql(f"SELECT n FROM '{files}'").fetchall()],
                lambda: pl.scan_parquet(files).select("n").collect()["n"].to_list(),
                lambda: ds.dataset(lake / "t").to_table(columns=["n"])["n"].to_pylist(),
            ):
                before = durable
                try:
                    found = sorted(read())
                except (OSError, duckdb.IOException):
                    assert not merge_seconds
                    continue
                complete += 1
                assert found == list(range(len(found)))
                assert len(found) >= before
    finally:
        stop.set()
        thread.join()
        sink.close()
        connection.close()


def test_two_writers_of_one_folder(tmp_path: Path) -> None:
    first, second = ParquetSink("p", str(tmp_path)), ParquetSink("q", str(tmp_path))
    write(first, batch(0, 1))
    with pytest.raises(NotWritable, match="in use by another writer; give each pipeline a path of its own"):
        write(second, batch(0, 1))
    write(second, batch(0, 1, feed="u"))
    first.close()
    write(second, batch(0, 2))
    second.close()
    assert numbers(tmp_path) == [0, 1]


def test_a_feed_cannot_leave_the_folder(tmp_path: Path) -> None:
    sink = ParquetSink("p", str(tmp_path / "lake"))
    write(sink, batch(0, 1, feed=".."))
    sink.close()
    assert [path.relative_to(tmp_path).parts[:2] for path in tmp_path.rglob("*.parquet")] == [("lake", "_..")]
