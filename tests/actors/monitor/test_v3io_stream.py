"""A V3IO stream read from the embedded server: cursors, going on, shards that come later, records that are no rows."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.monitor import v3io_stream as module
from actors.monitor.pull import Pulled, PullStream
from actors.monitor.rows import BadRow
from actors.monitor.source import SourceLost
from actors.monitor.v3io_stream import Cursor, V3ioStreamTable, dump, parse
from protocols.v3io.client import Record, V3ioClient
from protocols.v3io.server import V3ioServer
from tests.actors.monitor.fakes import monitor_settings

_numbers = itertools.count()


@pytest.fixture(scope="module")
def server() -> Iterator[V3ioServer]:
    with V3ioServer(port=0) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: V3ioServer) -> Iterator[V3ioClient]:
    with V3ioClient(server.url) as running:
        yield running


def open_stream(server: V3ioServer, path: str, state: str | None = None, **changes: Any) -> PullStream:
    source = {
        **{"url": server.url, "access_key": "", "container": "users", "path": path, "start": "earliest"},
        **{"format": "json", "metadata": True, "batch": 3, "poll": 0.001, "timeout": 20.0, "ca_file": None},
    }
    table = V3ioStreamTable(monitor_settings(Path("unused"), kind="v3io_stream", source=source | changes))
    return table.open(state, None, threading.Event())  # type: ignore[arg-type] # it keeps nothing else


def put(client: V3ioClient, path: str, *rows: object, shard: int = 0) -> None:
    client.put_records("users", path, [Record(orjson.dumps(row), "key", shard) for row in rows])


def read_all(stream: PullStream, state: str | None = None) -> tuple[list[Any], str | None, list[str]]:
    """The rows until there are no more, the state after them, and the gaps."""
    rows: list[Any] = []
    gaps, empty = [], 0
    while empty < 4:
        pulled = stream.read()
        assert pulled is not None
        rows += pulled.rows
        state = pulled.state or state
        gaps += [pulled.gap] if pulled.gap else []
        empty = 0 if pulled.rows else empty + 1
    return rows, state, gaps


def test_rows_with_where_they_came_from(server: V3ioServer, client: V3ioClient) -> None:
    client.create_stream("users", "rows", 1)
    put(client, "rows", {"n": 1}, {"n": 2})
    client.put_records("users", "rows", [Record(b"not json"), Record(b"[1]"), Record(b"\xff")])
    stream = open_stream(server, "rows")
    rows, state, gaps = read_all(stream)
    stream.close()
    assert (rows[0]["n"], rows[0]["__shard"], rows[0]["__sequence"], rows[0]["__partition_key"]) == (
        1,
        0,
        1,
        "key",
    )
    assert rows[0]["__arrival"] > 1.6e12
    assert [type(row) for row in rows] == [dict, dict, BadRow, BadRow, BadRow]
    assert rows[2].reason.startswith("the record's data is not JSON")
    assert gaps == []
    assert parse(state)[0].sequence == 5
    text = open_stream(server, "rows", format="text", metadata=False)
    assert read_all(text)[0][2:4] == [{"data": "not json"}, {"data": "[1]"}]
    text.close()
    raw = open_stream(server, "rows", format="bytes", metadata=False)
    assert read_all(raw)[0][4] == {"data": "/w=="}
    raw.close()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_each_record_once_wherever_it_is_opened_again(
    server: V3ioServer, client: V3ioClient, data: st.DataObject
) -> None:
    path = f"resumed/{next(_numbers)}"
    client.create_stream("users", path, 2)
    state: str | None = None
    seen: list[tuple[int, int]] = []
    number = 0
    for _ in range(data.draw(st.integers(1, 4), "lives")):
        for shard in data.draw(st.lists(st.integers(0, 1), max_size=6), "records"):
            put(client, path, {"n": number}, shard=shard)
            number += 1
        stream = open_stream(server, path, state)
        for _ in range(data.draw(st.integers(0, 5), "reads")):
            pulled = stream.read()
            assert pulled is not None
            if data.draw(st.booleans(), "stored"):
                seen += [(row["n"], row["__shard"]) for row in pulled.rows]  # type: ignore[index]
                state = pulled.state or state
            elif pulled.rows:
                break  # it died before they were stored
        stream.close()
    stream = open_stream(server, path, state)
    seen += [(row["n"], row["__shard"]) for row in read_all(stream)[0]]
    stream.close()
    assert sorted(n for n, _ in seen) == list(range(number))
    for shard in (0, 1):
        assert [n for n, s in seen if s == shard] == sorted(n for n, s in seen if s == shard)


def test_from_the_latest_on_and_nothing_missed_after(server: V3ioServer, client: V3ioClient) -> None:
    client.create_stream("users", "latest", 1)
    put(client, "latest", {"n": 1})
    stream = open_stream(server, "latest", start="latest")
    first = stream.read()
    stream.close()
    assert first == Pulled((), first.state if first else None)
    assert first.state is not None  # kept at once
    put(client, "latest", {"n": 2})
    stream = open_stream(server, "latest", first.state, start="latest")
    assert [row["n"] for row in read_all(stream)[0]] == [2]
    stream.close()


def test_shards_that_come_later(
    server: V3ioServer, client: V3ioClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DESCRIBE_INTERVAL", 0.0)
    client.create_stream("users", "grows", 1)
    stream = open_stream(server, "grows", start="latest")
    read_all(stream)
    client._call("UpdateStream", "users", "grows/", {"ShardCount": 2})
    put(client, "grows", {"n": 1}, shard=1)
    assert [row["n"] for row in read_all(stream)[0]] == [1]
    stream.close()


def test_a_place_that_is_refused_is_found_again_or_told(server: V3ioServer, client: V3ioClient) -> None:
    client.create_stream("users", "expired", 1)
    put(client, "expired", *({"n": n} for n in range(4)))
    stream = open_stream(server, "expired", dump({0: Cursor("AAAA", 2)}))
    rows, _, gaps = read_all(stream)
    stream.close()
    assert [row["n"] for row in rows] == [2, 3]
    assert gaps == []
    stream = open_stream(server, "expired", dump({0: Cursor("AAAA", 99)}))
    rows, _, gaps = read_all(stream)
    stream.close()
    assert [row["n"] for row in rows] == [
        0,
        1,
        2,
        3,
    ]  # it is another stream now, or older records have expired
    assert gaps == ["the place in shard 0 is gone; records may have expired before they were read"]


def test_no_such_stream(server: V3ioServer) -> None:
    with pytest.raises(SourceLost, match="status 404"):
        open_stream(server, "nowhere")
