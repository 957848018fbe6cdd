"""Sending: what is sent again and what never, timeouts, TLS, closing, what is logged."""

from __future__ import annotations

import asyncio
import logging
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from protocols.v3io import errors
from protocols.v3io.official.aio import Client as AsyncClient
from protocols.v3io.official.client import Client
from protocols.v3io.server import V3ioServer
from tests.certificates import self_signed
from tests.faults import Proxy, proxy

from ..conftest import KEY

#: For what must not happen in the time of a test.
LONG = 60.0


@pytest.fixture(scope="module")
def prepared(server: V3ioServer) -> V3ioServer:
    """The server, with a stream, an item and an object."""
    with Client(endpoint=server.url, access_key=KEY) as client:
        client.stream.create("users", "plane/s", 1)
        client.kv.put("users", "plane/t", "k", {"n": 1})
        client.object.put("users", "plane/o", body=b"data")
    return server


@pytest.fixture
def faulty(prepared: V3ioServer) -> Iterator[Proxy]:
    with proxy(prepared.url) as running:
        yield running


def client_of(url: str, **settings: Any) -> Client:
    return Client(**{"endpoint": url, "access_key": KEY, "retry_intervals": (0.001, 0.001)} | settings)


REPEATED: list[Callable[[Client], Any]] = [
    lambda c: c.object.get("users", "plane/o"),
    lambda c: c.object.put("users", "plane/p", body=BytesIO(b"twice")),
    lambda c: c.kv.put("users", "plane/t", "k", {"n": 1}),
    lambda c: c.kv.get("users", "plane/t", "k"),
    lambda c: c.kv.new_cursor("users", "plane/t").all(),
    lambda c: c.stream.seek("users", "plane/s", 0, "LATEST"),
]
NOT_REPEATED: list[Callable[[Client], Any]] = [
    lambda c: c.stream.put_records("users", "plane/s", [{"data": "x"}]),
    lambda c: c.object.put("users", "plane/o", body=b"x", append=True),
    lambda c: c.kv.update("users", "plane/t", "k", expression="n = n + 1"),
    lambda c: c.kv.put("users", "plane/t", "k2", {"n": 1}, condition="NOT exists(n)"),
    lambda c: c.object.delete("users", "plane/gone", raise_for_status=[204, 404]),
]


@pytest.mark.parametrize("use", REPEATED)
@pytest.mark.parametrize("fault", ["reset", "lost", "half"])
def test_what_can_be_repeated_is_sent_again(faulty: Proxy, use: Callable[[Client], Any], fault: str) -> None:
    faulty.plan.extend([fault, fault])
    with client_of(faulty.url) as client:
        use(client)
    assert faulty.happened == {fault: 2, "": 1}


def test_a_busy_server_is_asked_again(faulty: Proxy) -> None:
    faulty.plan.append("503")
    with client_of(faulty.url) as client:
        assert client.object.get("users", "plane/o").status_code == 200
    assert faulty.happened == {"503": 1, "": 1}


def test_a_file_is_sent_again_from_where_it_stood(faulty: Proxy, prepared: V3ioServer) -> None:
    faulty.plan.append("lost")
    body = BytesIO(b"head and body")
    body.seek(9)
    with client_of(faulty.url) as client:
        client.object.put("users", "plane/file", body=body)
        assert client.object.get("users", "plane/file").body == b"body"
    assert faulty.happened["lost"] == 1


@pytest.mark.parametrize("use", NOT_REPEATED)
@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("reset", ConnectionError),
        ("lost", ConnectionError),
        ("hang", TimeoutError),
        ("503", errors.HttpResponseError),
    ],
)
def test_what_can_take_effect_twice_is_sent_once(
    faulty: Proxy, use: Callable[[Client], Any], fault: str, error: type[Exception]
) -> None:
    faulty.plan.extend([fault] * 3)
    with (
        client_of(faulty.url, timeout=0.2 if fault == "hang" else LONG) as client,
        pytest.raises(error) as caught,
    ):
        use(client)
    assert faulty.happened == {fault: 1}
    assert isinstance(caught.value, errors.V3ioError)
    assert caught.value.retryable


def test_put_records_without_a_connection_is_tried_again(prepared: V3ioServer) -> None:
    """Nothing was sent, so nothing can be doubled."""
    with proxy(prepared.url) as faulty:
        faulty.stop()
        with client_of(faulty.url, retry_intervals=[LONG]) as client:
            client._plane._connection.pause = lambda seconds: faulty.start()  # type: ignore[method-assign]
            output = client.stream.put_records("users", "plane/s", [{"data": "x"}]).output
        assert faulty.happened == {"": 1}
    assert output.failed_record_count == 0


def test_what_timed_out_is_not_sent_again(faulty: Proxy) -> None:
    faulty.plan.extend(["hang"] * 3)
    with client_of(faulty.url, timeout=0.2) as client, pytest.raises(errors.RequestTimedOut):
        client.object.get("users", "plane/o")
    assert faulty.happened == {"hang": 1}


def test_no_more_tries_than_intervals(faulty: Proxy) -> None:
    faulty.plan.extend(["reset"] * 9)
    with client_of(faulty.url) as client, pytest.raises(errors.ConnectionFailed):
        client.object.get("users", "plane/o")
    with client_of(faulty.url, retry_intervals=()) as client, pytest.raises(errors.ConnectionFailed):
        client.object.get("users", "plane/o")
    assert faulty.happened == {"reset": 4}


def test_tls_is_verified(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    asked = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.handle_error = lambda *_: None  # type: ignore[method-assign]
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        url = f"https://127.0.0.1:{server.server_port}"
        try:
            with client_of(url) as client, pytest.raises(errors.CertificateRejected, match="not trusted"):
                client.object.get("users", "x")
            assert not asked
            with client_of(url, verify=str(certificate)) as client:
                assert client.object.get("users", "x").status_code == 200
        finally:
            server.shutdown()


def test_every_call_of_a_closed_client_says_so(prepared: V3ioServer) -> None:
    client = client_of(prepared.url)
    cursor = client.kv.new_cursor("users", "plane/t")
    client.batch.object.get("users", "plane/o")
    client.close()
    client.close()
    for use in (
        client.get_containers,
        cursor.next_item,
        client.batch.wait,
        lambda: client.put_items("users", "t", {}),
        lambda: client.batch.object.get("users", "x"),
        lambda: client.kv.new_cursor("users", "t"),
        lambda: client.stream.delete("users", "s"),
    ):
        with pytest.raises(RuntimeError, match="closed client"):
            use()


def test_closing_ends_the_wait_for_another_try(faulty: Proxy) -> None:
    faulty.plan.extend(["reset"] * 9)
    client = client_of(faulty.url, retry_intervals=(LONG,))
    waiting = threading.Event()
    pause = client._plane._connection.pause

    def told(seconds: float) -> None:
        waiting.set()
        pause(seconds)

    client._plane._connection.pause = told  # type: ignore[method-assign]
    with ThreadPoolExecutor(1) as threads:
        got = threads.submit(client.object.get, "users", "plane/o")
        assert waiting.wait(20)
        client.close()
        with pytest.raises(RuntimeError, match="closed client"):
            got.result(20)


def test_logs_tell_of_requests_but_not_of_keys(
    prepared: V3ioServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with client_of(prepared.url, transport_verbosity="DEBUG") as client:
        client.object.get("users", "plane/o")
        client.object.get("users", "plane/o", access_key=KEY)
    with client_of(prepared.url) as client:
        client.object.head("users", "plane/o")
    own = [record.getMessage() for record in caplog.records if record.name == "tablecast.v3io"]
    assert own == ["Tx GET /users/plane/o", "Rx 200 for GET /users/plane/o"] * 2
    assert KEY not in f"{caplog.text} {client!r} {vars(client)}"


def test_the_asyncio_client_sends_the_same(faulty: Proxy) -> None:
    async def use() -> None:
        settings: dict[str, Any] = {"endpoint": faulty.url, "access_key": KEY, "retry_intervals": (0.001,)}
        async with AsyncClient(**settings, max_connections=2) as client:
            faulty.plan.append("lost")
            assert (await client.object.get("users", "plane/o")).status_code == 200
            faulty.plan.append("lost")
            with pytest.raises(ConnectionError):
                await client.stream.put_records("users", "plane/s", [{"data": "x"}])
            both = [client.kv.get("users", "plane/t", "k", attribute_names="__name") for _ in range(9)]
            assert [r.output.item for r in await asyncio.gather(*both)] == [{"__name": "k"}] * 9
            assert [item async for item in client.kv.new_cursor("users", "plane/t", limit=1)] != []
        with pytest.raises(RuntimeError, match="closed client"):
            client.object.get("users", "plane/o")

    asyncio.run(asyncio.wait_for(use(), 30))
