"""The client against the embedded store, also through a proxy that breaks connections."""

from __future__ import annotations

import multiprocessing
import pickle
import socket
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from protocols.backoff import Backoff
from protocols.kronos import errors, resume, wire
from protocols.kronos.client import KronosClient
from protocols.kronos.server import EventStore
from protocols.kronos.wire import MAX_TIME
from protocols.puts import InvalidEvent


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
        (b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n", errors.RequestRefused, None),
        (b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", errors.RequestRefused, None),
        (b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", errors.RequestRefused, None),
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
    if isinstance(error, errors.RequestRefused):
        assert error.refuses_all
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


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:8151", "ftp://x", "http://", "http://x:99999", "http://x:0", "http://u:pa/ss@x"]
)
def test_bad_urls(url: str) -> None:
    with pytest.raises(ValueError, match="looks like") as caught:
        KronosClient(url)
    assert "pa" not in str(caught.value)


@pytest.mark.parametrize("token", ["s3cr3t\nX-Evil: 1", "s3cr3t s3cr3t", "s3cr3tü", " "])
def test_a_token_that_no_header_can_hold_is_not_quoted(token: str) -> None:
    with pytest.raises(ValueError, match="the token") as caught:
        KronosClient("http://x", token=token)
    assert "s3cr3t" not in str(caught.value)


def test_the_line_end_of_a_token_from_a_file_is_left_out() -> None:
    seen: list[bytes] = []

    def serve(connection: socket.socket, number: int) -> None:
        seen.append(read_request(connection))
        connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n{"@success":true}')

    with listening(serve) as url, KronosClient(url, token="s3cr3t\n", timeout=20) as client:
        client.index()
    assert b"Authorization: Bearer s3cr3t\r\n" in seen[0]


@pytest.mark.parametrize("settings", [{"username": 5}, {"password": 5}, {"token": 5}, {"limits": 5}])
def test_settings_of_a_wrong_type(settings: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=f"{next(iter(settings))} must be"):
        KronosClient("http://x", **settings)


@pytest.mark.parametrize("blocking", [True, False])
def test_a_timeout_is_checked_although_nothing_is_pending(blocking: bool) -> None:
    with KronosClient("http://x", blocking=blocking) as client:
        for end in (client.flush, client.close):
            with pytest.raises(TypeError, match="timeout must be a number"):
                end("x")  # type: ignore[arg-type]


def test_for_ever_is_max_time(client: KronosClient) -> None:
    client.put({"s": [{"@time": wire.MAX_TIME}]})
    assert len(list(client.get("s", 0, wire.MAX_TIME))) == 1


def test_times_of_any_form(client: KronosClient) -> None:
    hour = timedelta(hours=1)
    time = datetime(2014, 1, 1, 12, tzinfo=timezone(hour))
    client.put(
        {"s": [{"@time": time}, {"@time": "2014-01-01T11:00:00.0000001Z"}, {"@time": date(2014, 1, 1)}]}
    )
    noon = 13885740000000000
    assert [event["@time"] for event in client.get("s", 0, MAX_TIME)] == [
        noon - 11 * 36 * 10**9,
        noon,
        noon + 1,
    ]
    assert len(list(client.get("s", time, "2014-01-01T11:00"))) == 1
    assert len(list(client.get("s", date(2014, 1, 1), sys.maxsize))) == 3
    assert len(list(client.get("s", -sys.maxsize, time))) == 2
    client.delete("s", time, "2014-01-02")
    assert len(list(client.get("s", None, MAX_TIME, start_id="00000000-0000-1000-8000-000000000000"))) == 1


def test_events_without_time_keep_their_order(client: KronosClient) -> None:
    client.put({"s": [{"n": n} for n in range(100)]})
    assert [event["n"] for event in client.get("s", 0, MAX_TIME)] == list(range(100))


@pytest.mark.parametrize(
    ("settings", "kind", "text"),
    [
        ({"http_url": 5}, TypeError, "http_url must be str, not int"),
        ({"blocking": "other"}, TypeError, "blocking must be bool, not str"),
        ({"blocking": 0}, TypeError, "blocking must be bool"),
        ({"sleep_block": -1}, ValueError, "sleep_block must be at least 0"),
        ({"sleep_block": "0.1"}, TypeError, "sleep_block must be a number"),
        ({"namespace": 5}, TypeError, "namespace must be str"),
        ({"namespace": ""}, ValueError, "namespace is empty"),
        ({"chunk_size": 0}, ValueError, "chunk_size must be at least 1"),
        ({"chunk_size": 1.5}, TypeError, "chunk_size must be int"),
        ({"timeout": 0}, ValueError, "timeout must be more than 0"),
        ({"timeout": None}, TypeError, "timeout must be a number"),
        ({"max_retries": True}, TypeError, "max_retries must be int"),
        ({"keep_alive": True}, TypeError, "keep_alive"),
    ],
)
def test_misuse_of_the_constructor(settings: dict[str, Any], kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        KronosClient(**{"http_url": "http://127.0.0.1:1", **settings})


@pytest.mark.parametrize("blocking", [True, False])
@pytest.mark.parametrize(
    ("call", "kind", "text"),
    [
        (lambda c: c.put([{"n": 1}]), InvalidEvent, "put takes {stream: "),
        (lambda c: c.put({"s": {"n": 1}}), InvalidEvent, "stream s: a list of events"),
        (lambda c: c.put({"bad stream": []}), InvalidEvent, "stream 'bad stream': use 1 to 2048"),
        (lambda c: c.put({"s": [{}, 5]}), InvalidEvent, r"s\[1\]: an event is a dict"),
        (lambda c: c.put({"s": [{"@time": 1.5}]}), InvalidEvent, r"s\[0\]: a time must be int, not float"),
        (lambda c: c.put({"s": [{"@time": MAX_TIME + 1}]}), InvalidEvent, "between the years 1582 and 5236"),
        (lambda c: c.put({"s": [{"x": {1}}]}), InvalidEvent, "not JSON serializable"),
        (lambda c: c.put({"s": [{"x": float("nan")}]}), InvalidEvent, "nan, which JSON has no form for"),
        (lambda c: c.put({"s": [{"x": 2**63}]}), InvalidEvent, "beyond 64 bits"),
        (lambda c: c.put({"s": [{1: 1}]}), InvalidEvent, "must be str"),
        (lambda c: c.put({}, namespace=5), TypeError, "namespace must be str"),
        (lambda c: c.get("s", 0, 9, order="up"), ValueError, "ascending or descending"),
        (lambda c: c.get("s", 0, 9, limit="5"), TypeError, "limit must be int"),
        (lambda c: c.get("s", 0, 9, timeout=-1), ValueError, "timeout must be at least 0"),
        (lambda c: c.get("s", 0, 9, start_id="x"), ValueError, "canonical text of a UUID"),
        (lambda c: c.get("s", None, 9), TypeError, "start_time is None"),
        (lambda c: c.get("s", 0, None), TypeError, "a time must be int, not NoneType"),
        (lambda c: c.get("s", 0, "soon"), ValueError, "'soon' is no time"),
        (lambda c: c.get("bad stream", 0, 9), ValueError, "invalid stream name"),
        (lambda c: c.get(5, 0, 9), TypeError, "stream must be str"),
        (lambda c: c.delete("s", 0, 9, start_id="x"), ValueError, "canonical text of a UUID"),
        (lambda c: c.delete("", 0, 9), ValueError, "invalid stream name"),
        (lambda c: c.get_streams(namespace=""), ValueError, "namespace is empty"),
        (lambda c: c.infer_schema(None), TypeError, "stream must be str"),
        (lambda c: c.log_function("s", {"x": 5}), TypeError, "property x must be a function"),
        (lambda c: c.log_function("bad stream"), ValueError, "invalid stream name"),
        (lambda c: c.log_scope("s", 5), TypeError, "properties must be Mapping"),
    ],
)
def test_misuse_is_told_at_the_call(call: Any, kind: type[Exception], text: str, blocking: bool) -> None:
    with KronosClient("http://127.0.0.1:1", blocking) as client:  # where nobody is: nothing is sent
        with pytest.raises(kind, match=text):
            call(client)
        assert client.pending == 0


def test_misuse_of_events() -> None:
    with KronosClient("http://127.0.0.1:1") as client, pytest.raises(ValueError, match="blocking=False"):
        client.on("send", print)
    with KronosClient("http://127.0.0.1:1", blocking=False) as client:
        with pytest.raises(ValueError, match="no event 'sent'"):
            client.on("sent", print)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="a handler must be a function"):
            client.on("send", 5)  # type: ignore[arg-type]


def test_a_forked_process_has_connections_of_its_own(client: KronosClient) -> None:
    client.put({"s": [{"n": 1}]})
    child = multiprocessing.get_context("fork").Process(target=lambda: client.put({"s": [{"n": 2}]}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks in processes with threads
        child.start()
    client.put({"s": [{"n": 3}]})
    child.join(20)
    assert child.exitcode == 0
    assert sorted(event["n"] for event in client.get("s", 0, MAX_TIME)) == [1, 2, 3]
