"""The writing client on the embedded server, and on servers that misbehave."""

from __future__ import annotations

import pickle
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.v3io import client as client_module
from protocols.v3io import errors, wire
from protocols.v3io.client import Record, StreamInfo, V3ioClient, batches, item_path
from protocols.v3io.server import V3ioServer

from .conftest import KEY


@pytest.fixture(scope="module")
def client(server: V3ioServer) -> Iterator[V3ioClient]:
    with V3ioClient(server.url + "/", KEY, timeout=20) as running:
        yield running


def test_objects(client: V3ioClient) -> None:
    client.put_object("users", "/c/ü x%.bin", b"\x00abc")
    client.put_object("users", "c/ü x%.bin", b"def", append=True)
    assert client.get_object("users", "c/ü x%.bin") == b"\x00abcdef"
    client.delete_object("users", "c/ü x%.bin")
    with pytest.raises(errors.NotFound, match="No such file"):
        client.get_object("users", "c/ü x%.bin")
    with pytest.raises(errors.NotFound, match="Container not found"):
        client.put_object("nowhere", "x", b"")
    client.put_object("users", "c/full/x", b"")
    with pytest.raises(errors.RequestRefused, match="not empty"):
        client.delete_object("users", "c/full")


def test_items(client: V3ioClient) -> None:
    moment = datetime(2026, 11, 21, 1, 2, 3, 456789, tzinfo=UTC)
    client.put_item("users", "ci/x", {"n": 1, "at": moment, "list": [1.5], "blob": b"\xff"})
    item = client.get_item("users", "ci/x")
    assert item == {"n": 1, "at": wire.Timestamp.of(moment), "list": [1.5], "blob": b"\xff"}
    client.put_item("users", "ci/x", {"n": 2}, merge=True, condition="n == 1")
    with pytest.raises(errors.ConditionFalse) as caught:
        client.put_item("users", "ci/x", {"n": 2}, condition="n == 1")
    assert (caught.value.retryable, caught.value.status, caught.value.code) == (
        False,
        400,
        wire.CONDITION_FALSE,
    )
    client.update_item("users", "ci/x", "n = n + 1; REMOVE list", condition="n == 2", alternate="n = 99")
    assert client.get_item("users", "ci/x", ["n", "list", "__name"]) == {"n": 3, "__name": "x"}
    client.put_item("users", "ci/x", {"only": True})
    assert client.get_item("users", "ci/x") == {"only": True}


def test_many_items(client: V3ioClient) -> None:
    failed = client.put_items(
        "users", "many", {f"k{i}": {"i": i, "s": "x" * (61_000 + i)} for i in range(199, 203)}
    )
    assert {key: type(error) for key, error in failed.items()} == {
        "k201": errors.RequestRefused,
        "k202": errors.RequestRefused,
    }
    assert client.get_item("users", "many/k200", ["i"]) == {"i": 200}
    for bad, kind in (({"a/b": {"i": 1}}, ValueError), ({"ok": {"i": 1}, "k": {"i": None}}, TypeError)):
        with pytest.raises(kind):
            client.put_items("users", "none", bad)
    with pytest.raises(errors.NotFound):
        client.get_item("users", "none/ok")


def test_streams(client: V3ioClient) -> None:
    client.create_stream("users", "cs", 4, 7)
    with pytest.raises(errors.AlreadyExists):
        client.create_stream("users", "cs", 4)
    assert client.describe_stream("users", "/cs/") == StreamInfo(4, 7)
    results = client.put_records(
        "users", "cs", [Record(b"a", shard=3), Record(b"b", shard=9), Record(b"c", "key", None, b"info")]
    )
    assert results[0] == (3, 1, None, None)
    assert results[1] == (None, None, wire.SHARD_OUT_OF_RANGE, "ShardIDOutOfRangeException")
    assert results[2].error_code is None
    with pytest.raises(errors.NotFound, match="ResourceNotFound"):
        client.put_records("users", "none", [Record(b"a")])
    with pytest.raises(ValueError, match="batches"):
        client.put_records("users", "cs", [Record(b"a")] * 1001)
    assert len(client.put_records("users", "cs", [Record(b"\xff" * 10_000, '"' * 256)] * 700)) == 700


RECORDS = st.builds(
    Record,
    st.integers(0, 900).map(bytes),
    st.none() | st.just("\x01é" * 80),
    st.none() | st.integers(0, 4095),
    st.none() | st.binary(max_size=300),
)


@given(st.lists(RECORDS, max_size=40))
def test_batches_keep_all_and_fit(records: list[Record]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wire, "MAX_RECORDS_BYTES", 5000)
        patch.setattr(wire, "MAX_RECORDS", 7)
        made = list(batches(records))
    assert [record for batch in made for record in batch] == records
    for batch in made:
        body = orjson.dumps({"Records": [client_module._encode_record(record) for record in batch]})
        assert 0 < len(batch) <= 7
        assert len(body) <= 5000


def test_batches_by_number_and_records_beyond_the_limits() -> None:
    assert [len(batch) for batch in batches([Record(b"")] * 2001)] == [1000, 1000, 1]
    for record in (
        Record(bytes(2**20 + 1)),
        Record(b"", "k" * 257),
        Record(b"", client_info=bytes(8 * 2**20)),
    ):
        with pytest.raises(ValueError, match="bytes"):
            list(batches([record]))


@pytest.mark.parametrize("url", ["", "host:1", "ftp://host", "http://", "http://user:pw@host"])
def test_bad_urls(url: str) -> None:
    with pytest.raises(ValueError, match="V3IO URL"):
        V3ioClient(url)


def test_bad_arguments(client: V3ioClient, server: V3ioServer) -> None:
    for key in ("", "a\nb", "ü"):
        with pytest.raises(ValueError, match="access key"):
            V3ioClient(server.url, key)
    for path in ("", "/", "a/../b"):
        with pytest.raises(ValueError, match=r"path is empty|named"):
            client.put_object("users", path, b"")
    assert item_path("t/", "k") == "t/k"


def test_a_wrong_key_is_told_without_showing_it(server: V3ioServer) -> None:
    with (
        V3ioClient(server.url, "wrong-secret") as wrong,
        pytest.raises(errors.AuthenticationFailed) as caught,
    ):
        wrong.put_object("users", "x", b"")
    assert "wrong-secret" not in f"{caught.value} {caught.value!r} {wrong!r}"
    assert not caught.value.retryable
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.status, again.code) == (str(caught.value), 403, wire.PERMISSION_DENIED)


@contextmanager
def answering(answer: bytes | None) -> Iterator[str]:
    """The URL of a server that sends `answer` to one request and closes; None: it never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                while not connection.recv(65536).endswith(b"}"):
                    pass
                if answer is None:
                    connection.recv(1)  # returns when the client gives up
                else:
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        thread.join(20)


def reply(status: str, body: bytes, headers: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


@pytest.mark.parametrize(
    ("answer", "kind", "retryable"),
    [
        (None, errors.RequestTimedOut, True),
        (b"", errors.ConnectionFailed, True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", errors.ConnectionFailed, True),
        (reply("503 Busy", b"", "Retry-After: 7\r\n"), errors.ServerUnavailable, True),
        (reply("500 Oops", b"<html>"), errors.ServerUnavailable, True),
        (reply("429 Slow down", b'{"ErrorCode":-1,"ErrorMessage":"x"}'), errors.ServerUnavailable, True),
        (reply("400 Bad", b'{"ErrorCode":16777244,"ErrorMessage":"x"}'), errors.ConditionFalse, False),
        (reply("400 Bad", b'{"ErrorCode":-9,"ErrorMessage":"ResourceInUse"}'), errors.AlreadyExists, False),
        (reply("401 No", b""), errors.AuthenticationFailed, False),
        (reply("403 No", b'{"ErrorCode":-1,"ErrorMessage":"no"}'), errors.RequestRefused, False),
        (reply("404 No", b"[]"), errors.NotFound, False),
        (reply("308 Moved", b"", "Location: http://elsewhere\r\n"), errors.RequestRefused, False),
        (reply("200 OK", b"<html>"), errors.BadReply, False),
        (reply("200 OK", b'{"Records":[]}'), errors.BadReply, False),
        (reply("200 OK", b'{"Records":[{}]}'), errors.BadReply, False),
    ],
)
def test_errors_are_classified(answer: bytes | None, kind: type[Any], retryable: bool) -> None:
    timeout = 0.5 if answer is None else 20
    with (
        answering(answer) as url,
        V3ioClient(url, timeout=timeout) as client,
        pytest.raises(errors.V3ioError) as caught,
    ):
        client.put_records("users", "s", [Record(b"a")])
    assert type(caught.value) is kind
    assert caught.value.retryable is retryable
    assert "\n" not in str(caught.value)
    if answer and b"Retry-After" in answer:
        assert caught.value.retry_after == 7


def test_nobody_listens() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        with (
            V3ioClient(url, timeout=5) as client,
            pytest.raises(errors.ConnectionFailed, match="is the server running"),
        ):
            client.put_object("users", "x", b"")
