"""Events that somebody put, through every sink that takes them: the same event, in the stream that was named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from v3io import dataplane

from actors.block import BlockId
from actors.writer.puts import RULES, put_batches
from actors.writer.sinks import SINKS
from actors.writer.sinks.base import Sink
from actors.writer.sinks.console import ConsoleSink
from actors.writer.sinks.panoply import PanoplySink
from protocols.puts import encode
from protocols.v3io.server import V3ioServer
from tests.actors.writer.sinks.test_v3io import Quiet
from tests.sqs import APIKEY, secret, serve

EVENTS = {
    "a": [{"n": 0, "s": "é☃\n"}, {"n": 1, "__table": "mine"}],
    "b": [{"@time": 5, "x": {"y": [1.0, None]}}],
}
STAMP = 77


def send(sink: Sink) -> None:
    for batch in put_batches(BlockId("put:c", 9, 40), encode(EVENTS, lambda: STAMP, RULES)):
        for payload in sink.payloads(batch):
            assert payload.rejects == ()
            sink.send(payload)
    sink.close()


def expected() -> list[dict[str, Any]]:
    origin = "p/put:c/9/"
    return [
        {"@origin": f"{origin}40", "@time": STAMP, "n": 0, "s": "é☃\n"},
        {"@origin": f"{origin}41", "@time": STAMP, "n": 1, "__table": "mine"},
        {"@origin": f"{origin}42", "@time": 5, "x": {"y": [1.0, None]}},
    ]


def test_console(tmp_path: Path) -> None:
    send(ConsoleSink("p", str(tmp_path / "lines")))
    lines = [json.loads(line) for line in (tmp_path / "lines").read_text().splitlines()]
    assert [line.pop("@stream") for line in lines] == ["a", "a", "b"]
    assert lines == expected()


def test_panoply() -> None:
    with serve() as queue:
        send(PanoplySink("p", APIKEY, secret(), queue.url))
        records: list[dict[str, Any]] = []
        while len(records) < 3:
            records += queue.records()
    records.sort(key=lambda record: str(record["@origin"]))
    assert [record.pop("__table") for record in records] == ["a", "a", "b"]
    records[1]["__table"] = records[1].pop("___table")
    assert records == expected()


@pytest.fixture
def server() -> Iterator[V3ioServer]:
    with V3ioServer(port=0, access_key="key") as running:
        yield running


def test_v3io_streams(server: V3ioServer) -> None:
    settings = {
        "url": server.url,
        "container": "users",
        "access_key": "key",
        "stream": {"path": "s", "shards": 1},
    }
    send(SINKS["v3io"]("p", **settings))
    client = dataplane.Client(logger=Quiet(), endpoint=server.url, access_key="key")
    found = []
    for stream in ("a", "b"):
        location = client.stream.seek("users", f"s/{stream}", 0, "EARLIEST").output.location
        records = client.stream.get_records("users", f"s/{stream}", 0, location).output.records
        found += [json.loads(record.data) for record in records]
    assert found == expected()
    client.close()


def test_who_takes_events() -> None:
    assert {kind for kind, made in SINKS.items() if getattr(made, "takes_puts", False)} >= {
        "console",
        "kronos",
        "panoply",
    }
    assert not getattr(SINKS["parquet"], "takes_puts", False)
