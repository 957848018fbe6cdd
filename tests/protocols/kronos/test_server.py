"""The event store over HTTP: what the specification says about replies."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from protocols.kronos import wire
from protocols.kronos.server import EventStore
from protocols.kronos.server import api as api_module


def post(store: EventStore, path: str, body: Any, **headers: str) -> requests.Response:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return requests.post(store.url + path, data=data, headers=headers, timeout=20)


def put(store: EventStore, *events: Any, stream: str = "s", **fields: Any) -> dict[str, Any]:
    response = post(store, wire.PUT, {"events": {stream: list(events)}, **fields})
    assert response.status_code == 200, response.text
    return dict(response.json())


def get(store: EventStore, stream: str = "s", **fields: Any) -> list[dict[str, Any]]:
    request = {"stream": stream, "start_time": wire.MIN_TIME, "end_time": wire.MAX_TIME, **fields}
    response = post(store, wire.GET, request)
    assert response.status_code == 200, response.text
    assert response.content == b"" or response.content.endswith(b"\r\n")
    return [json.loads(line) for line in response.content.split(b"\r\n") if line]


def test_index(store: EventStore) -> None:
    reply = requests.get(store.url + wire.INDEX + "/?x=1", timeout=20).json()
    assert reply["@success"] is True
    assert reply["service"] == "kronosd"
    assert reply["storage"]["sqlite"]["alive"] is True
    assert reply["@took"].endswith("ms")


def test_put_and_get_keep_values(store: EventStore) -> None:
    event = {
        "@time": 5,
        "text": 'é☃😀\u2028"\\\r\n',
        "big": 2**63 - 1,
        "small": -(2**63),
        "float": 1.0,
        "digits": 0.30000000000000004,
        "nested": {"a": [None, True, {}], "@id": "kept"},
        "@id": "overwritten",
    }
    assert put(store, event)["s"] == {"sqlite": {"num_inserted": 1, "num_duplicates": 0}}
    [found] = get(store)
    assert uuid.UUID(found.pop("@id")).time == 5 + wire.UUID_EPOCH_OFFSET
    event.pop("@id")
    assert found == event
    assert isinstance(found["float"], float)
    assert post(store, wire.GET, {"stream": "s", "end_time": 9}).content.isascii()


def test_deep_nesting_is_stored_or_refused_but_not_altered(store: EventStore) -> None:
    deep: Any = 1
    for _ in range(300):
        deep = [deep]
    assert put(store, {"@time": 1, "deep": deep})["@success"] is True
    assert get(store)[0]["deep"] == deep
    assert post(store, wire.PUT, b'{"events":' + b"[" * 5000 + b"]" * 5000 + b"}").status_code == 400


@pytest.mark.parametrize("time", [1.5, 1.0, "x", True, [], wire.MIN_TIME - 1, wire.MAX_TIME + 1])
def test_a_bad_time_refuses_the_event_alone(store: EventStore, time: Any) -> None:
    reply = put(store, {"@time": time}, {"@time": 1, "good": 1}, 7)
    assert reply["@success"] is False
    assert len(reply["@errors"]) == 2
    assert reply["s"]["sqlite"]["num_inserted"] == 1
    assert [event["@time"] for event in get(store)] == [1]


def test_no_time_means_now(store: EventStore) -> None:
    before = wire.now()
    put(store, {}, {"@time": None})
    assert all(before <= event["@time"] <= wire.now() for event in get(store))


def test_a_bad_stream_is_skipped(store: EventStore) -> None:
    reply = post(
        store, wire.PUT, {"events": {"bad stream": [{}], "a\n": [{}], "good": [{}], "none": []}}
    ).json()
    assert reply["@success"] is False
    assert len(reply["@errors"]) == 2
    assert set(reply) == {"@success", "@errors", "@took", "good"}
    assert post(store, wire.STREAMS, {}).content == b"good\r\n"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"{} x",
        b"\xef\xbb\xbf{}",
        b'{"a":"\xff"}',
        b'{"a":NaN}',
        b'{"a":1e400}',
        b'{"a":9223372036854775808}',
        b'{"a":-9223372036854775809}',
        b'{"a":[18446744073709551616]}',
        b'{"a":' + b"1" * 5000 + b"}",
        b'{"a":"\\ud800"}',
    ],
)
@pytest.mark.parametrize("path", [wire.PUT, wire.GET, wire.STREAMS])
def test_bad_json_is_refused(store: EventStore, body: bytes, path: str) -> None:
    response = post(store, path, body)
    assert response.status_code == 400
    assert response.json()["@errors"] == ["Request body must be valid JSON."]


def test_gzip_bodies_are_refused(store: EventStore) -> None:
    response = post(store, wire.PUT, gzip.compress(b"{}"), **{"Content-Encoding": "gzip"})
    assert response.status_code == 400


def test_long_digits_outside_of_integers_are_kept(store: EventStore) -> None:
    body = b'{"events":{"s":[{"@time":1,"a":"99999999999999999999","b":0.99999999999999999999}]}}'
    assert post(store, wire.PUT, body).json()["@success"] is True
    assert get(store)[0]["a"] == "9" * 20


@pytest.mark.parametrize("path", [wire.PUT, wire.GET, wire.DELETE, wire.STREAMS, wire.INFER_SCHEMA])
def test_a_body_that_is_not_an_object_is_refused(store: EventStore, path: str) -> None:
    response = post(store, path, [])
    assert (response.status_code, response.json()["@success"]) == (400, False)


@pytest.mark.parametrize("events", [[], None, 5, {"s": None}, {"s": 5}, {"s": {"@time": 1}}])
def test_events_of_the_wrong_shape_store_nothing(store: EventStore, events: Any) -> None:
    if isinstance(events, dict):
        events = {"good": [{"@time": 1}], **events}
    assert post(store, wire.PUT, {"events": events}).status_code == 400
    assert get(store, "good") == []


@pytest.mark.parametrize("namespace", ["nope", None, "", 5, [], {}])
def test_unknown_namespaces_are_refused(store: EventStore, namespace: Any) -> None:
    for path, fields in (
        (wire.PUT, {"events": {"s": [{}]}}),
        (wire.GET, {"stream": "s", "end_time": 1}),
        (wire.DELETE, {"stream": "s", "end_time": 1}),
        (wire.STREAMS, {}),
    ):
        assert post(store, path, {**fields, "namespace": namespace}).status_code == 400
    expected = 200 if namespace in (None, "") else 400
    assert post(store, wire.INFER_SCHEMA, {"stream": "s", "namespace": namespace}).status_code == expected


def test_namespaces_are_apart(store: EventStore) -> None:
    put(store, {"@time": 1, "@origin": "a/1"})
    assert put(store, {"@time": 2, "@origin": "a/1"}, namespace="other")["s"]["sqlite"]["num_duplicates"] == 0
    assert [e["@time"] for e in get(store)] == [1]
    assert [e["@time"] for e in get(store, namespace="other")] == [2]


def test_ranges_orders_and_limits(store: EventStore) -> None:
    put(store, *({"@time": t, "a": a} for a, t in enumerate([1, 2, 3, 3, 4])))
    first = get(store)[1]["@id"]

    def found(**fields: Any) -> list[int]:
        return [event["a"] for event in get(store, **fields)]

    assert found(start_time=2, end_time=3) == [1, 2, 3]
    assert found(start_time=2, end_time=3, order="descending") == [3, 2, 1]
    assert found(limit=2, order="descending") == [4, 3]
    assert found(limit="2", order="upwards") == [0, 1]
    assert found(limit=0) == found(limit=-1) == found(start_time=5) == found(stream="none") == []
    assert found(start_id=first) == [2, 3, 4]
    assert found(start_id=first.upper(), order="descending") == [4, 3, 2]
    assert found(start_id=first, end_time=1) == []
    assert found(end_time=2**63 - 1) == [0, 1, 2, 3, 4]
    assert found(start_id="13814002-1dd2-11b2-8fff-ffffffffffff") == [2, 3, 4]
    assert found(start_id="13814002-1dd2-11b2-8000-000000000000") == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "bad",
    [
        {"limit": None},
        {"limit": "x"},
        {"start_id": 5},
        {"start_id": "abc"},
        {"start_time": None},
        {"end_time": None},
    ],
)
def test_bad_gets_are_refused(store: EventStore, bad: dict[str, Any]) -> None:
    response = post(store, wire.GET, {"stream": "s", "end_time": 1, **bad})
    assert (response.status_code, response.json()["@success"]) == (400, False)


def test_bad_streams_are_refused(store: EventStore) -> None:
    for name in ("bad stream", None, 5):
        reply = post(store, wire.GET, {"stream": name, "end_time": 1}, Origin="http://x")
        assert (reply.status_code, set(reply.json())) == (400, {"@success", "@errors"})
        assert reply.headers["Access-Control-Allow-Origin"] == "http://x"
        reply = post(store, wire.DELETE, {"stream": name, "end_time": 1})
        assert (reply.status_code, set(reply.json())) == (400, {"@errors", "@took"})
        assert post(store, wire.INFER_SCHEMA, {"stream": name}).status_code == 400


def test_delete_frees_origins(store: EventStore) -> None:
    events = [{"@time": t, "@origin": f"p/f/1/{t}"} for t in range(10)]
    put(store, *events)
    assert put(store, *events)["s"]["sqlite"] == {"num_inserted": 10, "num_duplicates": 10}
    reply = post(store, wire.DELETE, {"stream": "s", "start_time": 3, "end_time": 5}).json()
    assert (reply["@success"], reply["s"]) == (True, {"sqlite": {"num_deleted": 3}})
    assert put(store, *events)["s"]["sqlite"] == {"num_inserted": 10, "num_duplicates": 7}
    assert [event["@time"] for event in get(store)] == list(range(10))
    for fields in ({"stream": "none", "end_time": 5}, {"stream": "s", "start_time": 8, "end_time": 3}):
        reply = post(store, wire.DELETE, fields).json()
        assert (reply["@success"], reply[fields["stream"]]) == (True, {"sqlite": {"num_deleted": 0}})


def test_equal_origins_of_concurrent_requests_are_stored_once(store: EventStore) -> None:
    def send(_: int) -> int:
        batch = [{"@time": i, "@origin": f"p/f/1/{i // 2}"} for i in range(40)]
        return int(put(store, *batch, {"@origin": "opaque"})["s"]["sqlite"]["num_duplicates"])

    with ThreadPoolExecutor(8) as pool:
        duplicates = list(pool.map(send, range(16)))
    assert sum(duplicates) == 16 * 41 - 21
    assert len(get(store)) == 21


def test_replies_are_cut_at_flush_size(tmp_path: Path) -> None:
    with EventStore(data_dir=tmp_path, port=0, flush_size=512) as store:
        put(store, *({"@time": t, "x": "y" * 20} for t in range(300)))
        with socket.create_connection(("127.0.0.1", store.port), timeout=20) as connection:
            body = b'{"stream":"s","end_time":1000}'
            head = f"POST {wire.GET} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body)
            reply = b"".join(iter(lambda: connection.recv(65536), b""))
    rest = reply.split(b"\r\n\r\n", 1)[1]
    assert b"Transfer-Encoding: chunked" in reply
    chunks = []
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        chunks.append(rest[: int(size, 16)])
        rest = rest[int(size, 16) + 2 :]
    assert chunks.pop() == b""
    assert all(chunk.endswith(b"\r\n") for chunk in chunks)
    longest = max(map(len, b"".join(chunks).splitlines(True)))
    assert all(512 <= len(chunk) < 512 + longest for chunk in chunks[:-1])
    assert b"".join(chunks).count(b"\n") == 300


def test_a_failing_get_breaks_the_framing(store: EventStore, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store, {"@time": 1})

    def fail(*_: Any, **__: Any) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr(api_module.Reader, "page", fail)
    with pytest.raises(requests.RequestException):
        post(store, wire.GET, {"stream": "s", "end_time": 1})


def test_a_failing_write_is_reported_and_leaves_nothing(store: EventStore, tmp_path: Path) -> None:
    import sqlite3

    put(store, {"@time": 1, "@origin": "a/1"})
    other = sqlite3.connect(tmp_path / "store" / "events.sqlite", isolation_level=None)
    other.execute(
        "CREATE TRIGGER full BEFORE INSERT ON chunks BEGIN SELECT raise(ABORT, 'disk is full'); END"
    )
    response = post(store, wire.PUT, {"events": {"s": [{"@time": 2, "@origin": "a/2"}]}})
    assert response.status_code == 200
    assert response.json()["@success"] is False
    assert response.json()["s"]["sqlite"]["num_inserted"] == -1
    other.execute("DROP TRIGGER full")
    other.close()
    assert put(store, {"@time": 2, "@origin": "a/2"})["s"]["sqlite"]["num_duplicates"] == 0
    assert [event["@time"] for event in get(store)] == [1, 2]


def test_paths_and_methods(store: EventStore) -> None:
    response = requests.get(store.url + "/1.0/nothing", timeout=20)
    assert (response.status_code, response.text) == (404, "Four, oh, four :'(")
    assert response.headers["Content-Type"].startswith("text/plain")
    for method in ("PUT", "GET", "HEAD", "DELETE"):
        response = requests.request(method, store.url + wire.PUT, timeout=20)
        assert (response.status_code, response.headers["Allow"]) == (405, "POST, OPTIONS")
    assert requests.put(store.url + wire.PUT, timeout=20).json()["@errors"] == ["PUT method not allowed"]
    assert requests.post(store.url + wire.INDEX, timeout=20).status_code == 405


def test_chunked_and_expecting_requests_on_one_connection(store: EventStore) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", store.port, timeout=20)
    body = b'{"events":{"s":[{"@time":1}]}}'
    for _ in range(2):
        connection.request("POST", wire.PUT, body=iter([body[:9], body[9:]]), encode_chunked=True)
        assert json.loads(connection.getresponse().read())["@success"] is True
    connection.close()
    with socket.create_connection(("127.0.0.1", store.port), timeout=20) as raw:
        raw.sendall(
            b"POST /1.0/events/put HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
            % len(body)
        )
        assert raw.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        raw.sendall(body)
        assert raw.recv(1000).startswith(b"HTTP/1.1 200")
    assert len(get(store)) == 3


def test_a_client_that_leaves_within_its_body_is_no_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with EventStore(data_dir=tmp_path, port=0) as store:
        with socket.create_connection(("127.0.0.1", store.port), timeout=20) as raw:
            raw.sendall(b"POST /1.0/events/put HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{")
        assert get(store) == []
    assert [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == []


def test_cors(tmp_path: Path) -> None:
    with EventStore(data_dir=tmp_path, port=0, cors_whitelist_domains=["https://good"]) as store:
        allowed = requests.options(
            store.url + wire.PUT, headers={"Origin": "https://good.example"}, timeout=20
        )
        assert allowed.headers["Access-Control-Allow-Origin"] == "https://good.example"
        assert allowed.headers["Access-Control-Allow-Methods"] == "POST, OPTIONS"
        for headers in ({}, {"Origin": "https://bad"}, {"Origin": "x https://good"}):
            refused = requests.options(store.url + wire.PUT, headers=headers, timeout=20)
            assert refused.status_code == 200
            assert not [name for name in refused.headers if name.lower().startswith("access-control")]
        assert post(store, wire.PUT, {}, Origin="https://bad").headers["Access-Control-Allow-Origin"]
        assert "Access-Control-Allow-Origin" not in post(store, wire.PUT, b"x", Origin="https://bad").headers


@pytest.mark.parametrize(
    ("mode", "open_"), [("readonly", {"get", "streams", "schema"}), ("collector", {"put"})]
)
def test_serving_modes(tmp_path: Path, mode: Any, open_: set[str]) -> None:
    paths = {
        "put": wire.PUT,
        "get": wire.GET,
        "delete": wire.DELETE,
        "streams": wire.STREAMS,
        "schema": wire.INFER_SCHEMA,
    }
    with EventStore(data_dir=tmp_path, port=0, mode=mode) as store:
        assert requests.get(store.url + wire.INDEX, timeout=20).status_code == 200
        for name, path in paths.items():
            response = post(store, path, {"stream": "s", "end_time": 1})
            assert response.status_code == (200 if name in open_ else 403)
            assert requests.options(store.url + path, timeout=20).status_code == response.status_code


def test_bodies_have_a_limit(tmp_path: Path) -> None:
    with EventStore(data_dir=tmp_path, port=0, max_body_bytes=1000) as store:
        response = post(store, wire.PUT, b" " * 1001)
        assert response.status_code == 413
        assert put(store, {"@time": 1})["@success"] is True


def test_too_much_at_a_time_is_told_to_come_again(store: EventStore, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(api_module, "PENDING_BODIES", 0)
        response = post(store, wire.PUT, {})
        assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
    monkeypatch.setattr(api_module, "PENDING_BODIES", 10 / 2**28)
    for _ in range(3):
        assert post(store, wire.PUT, {}).status_code == 200


def test_large_bodies_go_through_the_other_thread(store: EventStore) -> None:
    reply = put(store, *({"@time": t, "x": "y" * 500} for t in range(4000)))
    assert reply["s"]["sqlite"]["num_inserted"] == 4000
    assert [event["@time"] for event in get(store)] == list(range(4000))


def test_the_directory_and_the_port_have_one_owner(store: EventStore, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=f"port {store.port} on 127.0.0.1 is in use"):
        EventStore(data_dir=tmp_path / "b", port=store.port).start()
    with pytest.raises(OSError, match="in use by another event store"):
        EventStore(data_dir=tmp_path / "store", port=0).start()


def test_it_can_stop_and_start_again(tmp_path: Path) -> None:
    threads = threading.active_count()
    store = EventStore(data_dir=tmp_path, port=0)
    for round_ in range(2):
        store.start()
        put(store, {"@time": round_, "@origin": f"a/{round_}"}, {"@time": 0, "@origin": "a/0"})
        store.stop()
        store.stop()
    with store:
        assert [event["@time"] for event in get(store)] == [0, 1]
    assert threading.active_count() == threads


def test_infer_schema(store: EventStore) -> None:
    none = post(store, wire.INFER_SCHEMA, {"stream": "s"}).json()
    assert none["schema"] == {"$schema": "http://json-schema.org/draft-04/schema", "type": "null"}
    put(
        store,
        {"@time": -1, "old": 1},
        {"@time": 1, "a": None},
        {"@time": 2, "a": 1},
        {"@time": wire.MAX_TIME, "f": 1},
    )
    reply = post(store, wire.INFER_SCHEMA, {"stream": "s", "namespace": None}).json()
    assert (reply["namespace"], reply["stream"]) == ("kronos", "s")
    assert reply["schema"]["required"] == ["@id", "@time", "a"]
    assert reply["schema"]["properties"]["a"] == {"type": "any"}
    put(store, *({"@time": 100 + i, "late": i} for i in range(100)))
    assert "a" not in post(store, wire.INFER_SCHEMA, {"stream": "s"}).json()["schema"]["properties"]
