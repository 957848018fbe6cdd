"""Batches: bounded, in order, and whole again after a failure."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from protocols.v3io.errors import HttpResponseError
from protocols.v3io.official.client import Client
from protocols.v3io.official.response import Responses
from protocols.v3io.server import V3ioServer, listing

from ..conftest import KEY


@pytest.fixture
def client(server: V3ioServer) -> Iterator[Client]:
    with Client(endpoint=server.url, access_key=KEY, max_connections=3) as running:
        yield running


@contextmanager
def meeting_place(size: int) -> Iterator[tuple[str, list[int]]]:
    """The URL of a server that answers once `size` requests are there at a time, and how many were each time."""
    barrier = threading.Barrier(size)
    lock = threading.Lock()
    inside = 0
    counts: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            nonlocal inside
            with lock:
                inside += 1
                counts.append(inside)
            barrier.wait(20)
            with lock:
                inside -= 1
            self.send_response(200)
            self.send_header("Content-Length", str(len(self.path)))
            self.end_headers()
            self.wfile.write(self.path.encode())

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", counts
        finally:
            server.shutdown()


def test_as_many_at_a_time_as_there_are_connections() -> None:
    with meeting_place(3) as (url, counts), Client(endpoint=url, access_key=KEY, max_connections=3) as client:
        for i in range(12):
            client.batch.object.get("users", f"o{i}")
        responses = client.batch.wait()
    assert [response.body for response in responses] == [f"/users/o{i}".encode() for i in range(12)]
    assert max(counts) == 3


def test_batches_share_the_connections() -> None:
    with meeting_place(3) as (url, counts), Client(endpoint=url, access_key=KEY, max_connections=3) as client:

        def use(_: int) -> Responses:
            batch = client.create_batch()
            for i in range(6):
                batch.object.get("users", f"o{i}")
            return batch.wait()

        with ThreadPoolExecutor(4) as threads:
            assert all(each.success for each in threads.map(use, range(4)))
    assert max(counts) == 3


def test_failures_leave_every_connection_free(client: Client) -> None:
    """The official client loses those under way at each failure, and hangs once there are none."""
    client.object.put("users", "batch/there", body=b"x")
    for _ in range(5):
        for path in ("none", *["there"] * 9):
            client.batch.object.get("users", f"batch/{path}")
        with pytest.raises(HttpResponseError, match="status 404"):
            client.batch.wait()
        assert client.batch.wait() == []
    for _ in range(9):
        client.batch.object.get("users", "batch/there")
    assert client.batch.wait().success


def test_what_is_behind_a_failure_is_dropped(client: Client) -> None:
    client.batch.object.get("users", "batch/none")
    for i in range(20):
        client.batch.object.put("users", f"dropped/{i:02}", body=b"x")
    with pytest.raises(HttpResponseError):
        client.batch.wait()
    put = client.container.list("users", "dropped", raise_for_status="never").output
    assert len(getattr(put, "contents", [])) <= 2


def test_statuses_of_calls_win_over_those_of_wait(client: Client) -> None:
    batch = client.create_batch()
    batch.get_object("users", "batch/none", raise_for_status=[404])
    batch.kv.get("users", "batch", "none")
    assert [each.status_code for each in batch.wait(raise_for_status="never")] == [404, 404]
    batch.get_object("users", "batch/none", raise_for_status="always")
    with pytest.raises(HttpResponseError, match="404"):
        batch.wait(raise_for_status="never")
    batch.get_object("users", "batch/none")
    with pytest.raises(TypeError, match="statuses"):
        batch.wait(raise_for_status=404)  # type: ignore[arg-type]
    assert not batch.wait(raise_for_status=[404]).success


def test_calls_that_the_official_batch_has_not(client: Client) -> None:
    batch = client.create_batch()
    for stream in ("bs1", "bs2"):
        batch.stream.create("users", stream, 1)
    batch.kv.create_schema("users", "bt", key="k", fields=[])
    assert batch.wait().success
    batch.stream.delete("users", "bs1")
    batch.delete_stream("users", "bs2")
    batch.object.head("users", "bt/.#schema")
    responses = batch.wait()
    assert [each.status_code for each in responses] == [204, 204, 200]
    assert responses.responses == responses
    responses.raise_for_status()
    with pytest.raises(HttpResponseError):
        responses.raise_for_status([200])


def test_a_stream_is_deleted_whole(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one whose shards are more than a page of a listing holds."""
    monkeypatch.setattr(listing, "MAX_KEYS", 3)
    client.stream.create("users", "long", 10)
    client.put_records("users", "long", [{"data": "", "shard_id": shard} for shard in range(10)])
    assert client.container.list("users", "long").output.is_truncated
    assert client.stream.delete("users", "long").status_code == 204
    assert client.stream.describe("users", "long", raise_for_status=[404]).status_code == 404
