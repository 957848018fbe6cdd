"""A data source and a V3IO stream as the tables of a pipeline, their monitors killed again and again: each row once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest

from cluster import control
from cluster.check import probe
from cluster.cli.start import all_read
from cluster.config import PipelineConfig
from cluster.errors import NotReachable
from cluster.servers import embedded_server
from protocols.kronos.client import KronosClient
from protocols.v3io.client import Record, V3ioClient
from tests.e2e import traffic
from tests.e2e.conftest import DEADLINE, wait_until

#: Rows of the data source, and records per round of the stream.
NUMBERS = 4000
RECORDS = 200
KILLS = 3
SHARDS = 3

SECRET = "correct-horse-battery"


@pytest.fixture(scope="module")
def v3io_url() -> Iterator[str]:
    with embedded_server("v3io") as url:
        yield url


def test_each_row_once_though_the_monitors_are_killed(
    start: Callable[[PipelineConfig], Any],
    make_config: Callable[..., PipelineConfig],
    kronos: KronosClient,
    v3io_url: str,
    unique: str,
) -> None:
    v3io = V3ioClient(v3io_url)
    numbers, clicks = f"{unique}n", f"{unique}c"
    v3io.create_stream("users", clicks, SHARDS)
    params = {"total": NUMBERS, "token": SECRET, "pause": 0.02}
    stream = {"url": v3io_url, "container": "users", "path": clicks, "batch": 50}
    source = {"module": "tests.e2e.counting_source", "params": params, "batch": 10}
    config = make_config(
        unique,
        [{"name": numbers, "datasource": source}, {"name": clicks, "stream": {"v3io": stream}}],
        source=None,
    )
    assert f"table {clicks}: V3IO stream users/{clicks}, {SHARDS} shards" in probe(config)
    supervisor = start(config)

    def tables() -> dict[str, dict[str, Any]]:
        return {table["name"]: table for table in control.ask(supervisor, "status")["tables"]}

    def stored(table: str) -> int:
        return len(traffic.events(kronos, table))

    put = 0
    for kill in range(1, KILLS + 1):
        records = [Record(orjson.dumps({"id": put + n}), f"k{n % 7}") for n in range(RECORDS)]
        v3io.put_records("users", clicks, records[: RECORDS // 2])
        wait_until(lambda kill=kill: stored(numbers) >= kill * NUMBERS // (KILLS + 2), "numbers stored")
        pids = [table["pid"] for table in tables().values()]
        for pid in {pid for pid in pids if pid}:
            os.kill(pid, signal.SIGKILL)
        v3io.put_records("users", clicks, records[RECORDS // 2 :])
        put += RECORDS
        wait_until(
            lambda pids=pids: all(
                table["state"] in ("receiving", "done") and table["pid"] not in pids
                for table in tables().values()
            ),
            "both monitors are back",
        )

    wait_until(lambda: tables()[numbers]["state"] == "done", "the source is read to its end")
    wait_until(lambda: stored(clicks) >= put and stored(numbers) >= NUMBERS, "everything stored")
    status = control.ask(supervisor, "status")
    assert SECRET not in str(status)
    assert tables()[numbers]["restarts"] == KILLS
    assert not all_read(status)  # a stream has no end
    assert control.stop_pipeline(unique, DEADLINE) == control.Left()

    events = traffic.events(kronos, numbers)
    assert [event["n"] for event in events] == list(range(NUMBERS))
    assert {event["even"] for event in events} == {True, False}
    records_stored = traffic.events(kronos, clicks)
    assert sorted(event["id"] for event in records_stored) == list(range(put))
    for shard in range(SHARDS):
        sequences = [event["__sequence"] for event in records_stored if event["__shard"] == shard]
        assert sequences == list(range(1, len(sequences) + 1))


def test_check_lists_the_parameters_that_are_missing(make_config: Callable[..., PipelineConfig]) -> None:
    def check(params: dict[str, Any], module: str = "tests.e2e.counting_source") -> list[str]:
        table = {"name": "t", "datasource": {"module": module, "params": params}}
        return probe(make_config("p", [table], source=None))

    assert "table t: data source tests.e2e.counting_source (Numbers)" in check({"total": 1, "token": ""})
    with pytest.raises(NotReachable) as caught:
        check({})
    assert str(caught.value).splitlines() == [
        "table t: datasource.params has no total (How many; A number); add it",
        "table t: datasource.params has no token (Token; Any text); add it",
    ]
    with pytest.raises(NotReachable, match="module no_such_module cannot be imported: ModuleNotFoundError"):
        check({}, "no_such_module")
    with pytest.raises(NotReachable, match="has no class Stream; let it be Stream, derived from"):
        check({}, "tests.e2e.traffic")
