"""The client against the embedded store, also through a proxy that breaks connections."""

from __future__ import annotations

import pickle
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from protocols.backoff import Backoff
from protocols.kronos import errors, resume, wire
from protocols.kronos.client import KronosClient
from protocols.kronos.server import EventStore


@pytest.fixture
def client(store: EventStore) -> Iterator[KronosClient]:
    with KronosClient(store.url, timeout=20) as running:
        yield running


@contextmanager
def listening(serve: Any) -> Iterator[str]:
    """The URL of a server that hands each connection in turn to `serve(connection, number)`."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def run() -> None:
            number = 0
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.settimeout(20)
                    serve(connection, number)
                number += 1

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
    thread.join(20)
    assert not thread.is_alive()


def read_request(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    length = next((int(h[15:]) for h in head.split(b"\r\n") if h.lower().startswith(b"content-length:")), 0)
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


@contextmanager
def cutting_proxy(store: EventStore, cuts: list[int]) -> Iterator[str]:
    """A proxy that breaks its first connections after so many bytes of the reply."""

    def serve(connection: socket.socket, number: int) -> None:
        request = read_request(connection)
        with socket.create_connection(("127.0.0.1", store.port), timeout=20) as upstream:
            upstream.sendall(request.replace(b"Connection: keep-alive", b"Connection: close"))
            reply = b"".join(iter(lambda: upstream.recv(65536), b""))
        connection.sendall(reply[: cuts[number]] if number < len(cuts) else reply)

    with listening(serve) as url:
        yield url


@contextmanager
def replying(reply: bytes) -> Iterator[str]:
    def serve(connection: socket.socket, number: int) -> None:
        read_request(connection)
        connection.sendall(reply)

    with listening(serve) as url:
        yield url


def test_all_calls(client: KronosClient) -> None:
    assert client.index()["service"] == "kronosd"
    reply = client.put({"a": [{"@time": 1, "x": "é"}, {"@time": 2}], "b": [{"@time": 3}]})
    assert reply is not None
    assert reply["a"]["sqlite"]["num_inserted"] == 2
    assert sorted(client.get_streams()) == ["a", "b"]
    assert [event["@time"] for event in client.get("a", 0, 9)] == [1, 2]
    assert client.infer_schema("a")["schema"]["required"] == ["@id", "@library", "@time"]
    assert client.delete("a", 2, 9)["a"]["sqlite"]["num_deleted"] == 1
    assert client.delete("none", 0, 9)["none"]["sqlite"]["num_deleted"] == 0
    [event] = client.get("a", 0, 9)
    assert event["x"] == "é"
    assert list(client.get("a", 0, 9, start_id=event["@id"])) == []


def test_put_encoded_sends_the_body_as_it_is(client: KronosClient) -> None:
    client.put_encoded(b'{"events": {"s": [{"@time": 1, "n": 9007199254740993}]}}')
    assert next(client.get("s", 0, 9))["n"] == 9007199254740993


def test_namespaces(store: EventStore) -> None:
    with KronosClient(store.url, namespace="other", timeout=20) as client:
        client.put({"s": [{"@time": 1}]})
        client.put({"t": [{"@time": 1}]}, namespace="kronos")
        assert list(client.get_streams()) == ["s"]
        assert list(client.get_streams("kronos")) == ["t"]
        assert list(client.get("s", 0, 9, namespace="kronos")) == []
        with pytest.raises(errors.RequestRefused, match="NamespaceMissing"):
            client.infer_schema("s", "nope")


@pytest.mark.parametrize("order", ["ascending", "descending"])
@pytest.mark.parametrize("limit", [None, 1, 17, 59, 60, 100])
@pytest.mark.parametrize("cuts", [[0], [600], [700, 0, 1500, 400], [3000, 3000, 3000]])
def test_get_resumes_where_it_broke_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: str, limit: int | None, cuts: list[int]
) -> None:
    monkeypatch.setattr(resume, "_BACKOFF", Backoff(0.001, 0.002))
    # A part that is cut is lost as a whole, so let every event be a part.
    store = EventStore(data_dir=tmp_path, port=0, flush_size=1)
    with store, KronosClient(store.url, timeout=20) as client:
        client.put({"s": [{"@time": i // 7, "n": i} for i in range(70)]})
        expected = [event["n"] for event in client.get("s", 1, 9, order=order)][:limit]
        assert sorted(expected, reverse=order == "descending") == expected
        with cutting_proxy(store, cuts) as url, KronosClient(url, timeout=20) as unlucky:
            assert [event["n"] for event in unlucky.get("s", 1, 9, order=order, limit=limit)] == expected


def test_get_gives_up_after_max_retries(store: EventStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "_BACKOFF", Backoff(0.001, 0.002))
    with cutting_proxy(store, [0] * 5) as url, KronosClient(url, timeout=20, max_retries=3) as client:
        with pytest.raises(errors.ConnectionFailed) as caught:
            list(client.get("s", 0, 9))
        assert caught.value.retryable


def test_get_refusals_are_not_repeated(client: KronosClient) -> None:
    with pytest.raises(errors.RequestRefused, match="NamespaceMissing") as caught:
        list(client.get("s", 0, 9, namespace="nope"))
    assert (caught.value.status, caught.value.retryable) == (400, False)


def test_refused_events(client: KronosClient) -> None:
    with pytest.raises(errors.EventsRefused, match="InvalidEventTime") as caught:
        client.put_encoded(b'{"events": {"s": [{"@time": 1}, {"@time": 1.5}]}}')
    assert caught.value.reply is not None
    assert caught.value.reply["s"]["sqlite"]["num_inserted"] == 1
    assert not caught.value.retryable


@pytest.mark.parametrize(
    ("reply", "kind", "retry_after"),
    [
        (b"HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n", errors.ServerUnavailable, 7.0),
        (b"HTTP/1.1 429 Slow\r\nContent-Length: 0\r\n\r\n", errors.ServerUnavailable, None),
        (
            b"HTTP/1.1 500 Oops\r\nConnection: close\r\n\r\nInternal Server Error",
            errors.ServerUnavailable,
            None,
        ),
        (
            b"HTTP/1.1 302 Go\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
            errors.RequestRefused,
            None,
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", errors.BadReply, None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", errors.ConnectionFailed, None),
        (b"", errors.ConnectionFailed, None),
        (
            b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
            b'{"@success":false,"s":{"m":{"@errors":["full"],"num_inserted":-1}}}',
            errors.ServerUnavailable,
            None,
        ),
    ],
)
def test_errors_say_whether_to_try_again(
    reply: bytes, kind: type[errors.KronosError], retry_after: float | None
) -> None:
    with replying(reply) as url, KronosClient(url.replace("//", "//user:s3cret@"), timeout=20) as client:
        with pytest.raises(errors.KronosError) as caught:
            client.put({"s": [{"@time": 1}]})
        assert "s3cret" not in f"{client!r} {caught.value} {caught.value.__cause__!r}"
    error = caught.value
    assert type(error) is kind
    assert error.retryable == issubclass(kind, errors.TransientError)
    assert error.retry_after == retry_after
    assert url in str(error)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (kind, str(error), vars(error))


def test_a_silent_server_is_a_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = KronosClient(f"http://127.0.0.1:{server.getsockname()[1]}", timeout=0.1)
        with client, pytest.raises(errors.RequestTimedOut, match=r"within 0\.1 s"):
            client.index()


def test_credentials_are_sent(store: EventStore) -> None:
    seen = []

    def serve(connection: socket.socket, number: int) -> None:
        seen.append(read_request(connection))
        connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n{"@success":true}')

    with (
        listening(serve) as url,
        KronosClient(url.replace("//", "//u:p%40@") + "/prefix/", timeout=20) as client,
    ):
        client.index()
    assert seen[0].startswith(b"GET /prefix/1.0/index ")
    assert b"Authorization: Basic dTpwQA==" in seen[0]


@pytest.mark.parametrize("url", ["", "127.0.0.1:8151", "ftp://x", "http://"])
def test_bad_urls(url: str) -> None:
    with pytest.raises(ValueError, match="looks like"):
        KronosClient(url)


def test_for_ever_is_max_time(client: KronosClient) -> None:
    client.put({"s": [{"@time": wire.MAX_TIME}]})
    assert len(list(client.get("s", 0, wire.MAX_TIME))) == 1
