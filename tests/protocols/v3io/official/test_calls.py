"""What cannot be sent is refused at the call, by every kind of client, and nothing is sent."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import date
from typing import Any

import pytest

from protocols.v3io.errors import InvalidAttribute
from protocols.v3io.official import calls
from protocols.v3io.official.aio import Client as AsyncClient
from protocols.v3io.official.client import Client

Use = Callable[[Any], Any]

#: What is done wrong, the error, and a word of what it says.
MISUSES: list[tuple[Use, type[Exception], str]] = [
    (lambda c: c.object.put("users", "", body=b""), ValueError, "path is empty"),
    (lambda c: c.object.put("users", "/", body=b""), ValueError, "path is empty"),
    (lambda c: c.object.get("users", "a/../b"), ValueError, r"\.\."),
    (lambda c: c.object.get("users", None), TypeError, "path must be str"),
    (lambda c: c.object.get("", "x"), ValueError, "container"),
    (lambda c: c.object.get("a/b", "x"), ValueError, "container"),
    (lambda c: c.object.get(7, "x"), TypeError, "container must be str"),
    (lambda c: c.object.get("users", "x", offset=-1), ValueError, "offset"),
    (lambda c: c.object.get("users", "x", num_bytes=0), ValueError, "num_bytes"),
    (lambda c: c.object.get("users", "x", num_bytes="3"), TypeError, "num_bytes"),
    (lambda c: c.object.get("users", "x", size=3), TypeError, "size"),
    (lambda c: c.object.put("users", "x", body=7), TypeError, "body"),
    (lambda c: c.object.put("users", "x", body=io.StringIO("x")), TypeError, "text file"),
    (lambda c: c.object.put("users", "x", body="\ud800"), ValueError, "surrogates"),
    (lambda c: c.object.delete("users", "x", access_key="a\nb"), ValueError, "access key"),
    (lambda c: c.object.delete("users", "x", access_key=7), TypeError, "access_key"),
    (lambda c: c.object.delete("users", "x", raise_for_status=404), TypeError, r"\[200, 404\]"),
    (lambda c: c.object.delete("users", "x", raise_for_status="sometimes"), ValueError, "always"),
    (lambda c: c.object.delete("users", "x", raise_for_status=["404"]), TypeError, "statuses"),
    (lambda c: c.container.list("users", 7), TypeError, "path must be str"),
    (lambda c: c.container.list("users", "", limit=0), ValueError, "limit"),
    (lambda c: c.kv.put("users", "t", "/k", {}), ValueError, "cannot be a key"),
    (lambda c: c.kv.put("users", "t", "", {}), ValueError, "cannot be a key"),
    (lambda c: c.kv.put("users", "t", 7, {}), TypeError, "key must be str"),
    (lambda c: c.kv.put("users", "t", "k", [1]), TypeError, "attributes must be a dict"),
    (lambda c: c.kv.put("users", "t", "k", {"a": None}), InvalidAttribute, "attribute a: .*NoneType"),
    (lambda c: c.kv.put("users", "t", "k", {"a": date(2026, 1, 1)}), InvalidAttribute, "attribute a: "),
    (lambda c: c.kv.put("users", "t", "k", {"a": [1, 2.5]}), InvalidAttribute, "either integers or doubles"),
    (lambda c: c.kv.put("users", "t", "k", {"a": ["x"]}), InvalidAttribute, "either integers or doubles"),
    (lambda c: c.kv.put("users", "t", "k", {"a": 2**64}), InvalidAttribute, "attribute a: .*64"),
    (lambda c: c.kv.put("users", "t", "k", {"a": [2**63]}), InvalidAttribute, "attribute a: .*64"),
    (lambda c: c.kv.put("users", "t", "k", {"a": "é" * 31_000}), InvalidAttribute, "62000 bytes"),
    (lambda c: c.kv.put("users", "t", "k", {"a": "\ud800"}), InvalidAttribute, "attribute a has half"),
    (lambda c: c.kv.put("users", "t", "k", {"a-b": 1}), InvalidAttribute, "cannot name an attribute"),
    (lambda c: c.kv.put("users", "t", "k", {"a": 1}, condition=7), TypeError, "condition"),
    (lambda c: c.kv.update("users", "t", "k"), RuntimeError, "expression or attributes"),
    (lambda c: c.kv.update("users", "t", "k", attributes={"a": 1}, expression="b=1"), ValueError, "at once"),
    (
        lambda c: c.kv.update("users", "t", "k", attributes={"a": 1}, alternate_expression="b=1"),
        ValueError,
        "at once",
    ),
    (lambda c: c.kv.update("users", "t", "k", expression=b"a=1"), TypeError, "expression must be str"),
    (lambda c: c.kv.get("users", "t", "k", attribute_names=7), TypeError, "list of names"),
    (lambda c: c.kv.get("users", "t", "k", attribute_names=["a", 7]), TypeError, "must be str"),
    (lambda c: c.kv.scan("users", "t", limit=0), ValueError, "limit"),
    (lambda c: c.kv.scan("users", "t", segment="1"), TypeError, "segment"),
    (lambda c: c.kv.scan("users", "t", filter_expression=7), TypeError, "filter_expression"),
    (lambda c: c.kv.create_schema("users", "t"), TypeError, "fields"),
    (lambda c: c.kv.create_schema("users", "t", key="k", fields=[{"name": object()}]), TypeError, "object"),
    (lambda c: c.stream.create("users", "s", 0), ValueError, "shard_count"),
    (lambda c: c.stream.create("users", "s", True), TypeError, "shard_count"),
    (lambda c: c.stream.create("users", "s", 1, retention_period_hours=0), ValueError, "retention"),
    (lambda c: c.stream.describe("users", ""), ValueError, "path is empty"),
    (lambda c: c.stream.delete("users", None), TypeError, "stream_path must be str"),
    (lambda c: c.stream.delete("users", "/"), ValueError, "path is empty"),
    (lambda c: c.stream.delete("users", "s", raise_for_status=404), TypeError, "statuses"),
    (lambda c: c.stream.seek("users", "s", -1, "LATEST"), ValueError, "shard_id"),
    (lambda c: c.stream.seek("users", "s", 1, "SOMEWHERE"), ValueError, "EARLIEST"),
    (lambda c: c.stream.seek("users", "s", 1, "SEQUENCE"), TypeError, "starting_sequence_number"),
    (lambda c: c.stream.seek("users", "s", 1, "TIME"), TypeError, "timestamp_sec"),
    (lambda c: c.stream.get_records("users", "s", 1, None), TypeError, "location"),
    (lambda c: c.stream.get_records("users", "s", 1, "AQ==", limit=0), ValueError, "limit"),
    (lambda c: c.stream.put_records("users", "s", {"data": "x"}), TypeError, "list of dicts"),
    (lambda c: c.stream.put_records("users", "s", ["x"]), TypeError, "record 0 must be a dict"),
    (lambda c: c.stream.put_records("users", "s", [{"data": "x"}, {}]), KeyError, "record 1 has no data"),
    (lambda c: c.stream.put_records("users", "s", [{"data": 7}]), TypeError, "data of record 0"),
    (lambda c: c.stream.put_records("users", "s", [{"data": "x", "shard": 1}]), ValueError, "'shard'"),
    (lambda c: c.stream.put_records("users", "s", [{"data": "x", "shard_id": "1"}]), TypeError, "shard_id"),
    (
        lambda c: c.stream.put_records("users", "s", [{"data": "x", "partition_key": 1}]),
        TypeError,
        "partition",
    ),
    (
        lambda c: c.stream.put_records("users", "s", [{"data": "x", "client_info": 1}]),
        TypeError,
        "client_info",
    ),
]
#: Only of the blocking client.
MORE: list[tuple[Use, type[Exception], str]] = [
    (lambda c: c.object.get("users", "x", transport_actions=1), ValueError, "create_batch"),
    (lambda c: c.put_item("users", "", {"a": 1}), ValueError, "path is empty"),
    (lambda c: c.delete_stream("users", None), TypeError, "stream_path must be str"),
    (lambda c: c.put_items("users", "t", [1]), TypeError, "items must be a dict"),
    (lambda c: c.put_items("users", "t", {"a": {"i": 1}, "b": {"i": None}}), InvalidAttribute, "attribute i"),
    (lambda c: c.new_items_cursor("users", "t", limit="1"), TypeError, "limit"),
    (lambda c: c.new_items_cursor("users", "t", raise_for_status=1), TypeError, "statuses"),
    (lambda c: c.kv.new_cursor("users", "t", marker=1), TypeError, "marker"),
    (lambda c: c.batch.wait(404), TypeError, "statuses"),
]


@pytest.mark.parametrize(("use", "error", "text"), MISUSES + MORE)
def test_misuse_of_the_client(use: Use, error: type[Exception], text: str, dead_url: str) -> None:
    with Client(endpoint=dead_url, access_key="key") as client, pytest.raises(error, match=text):
        use(client)


@pytest.mark.parametrize(("use", "error", "text"), MISUSES)
def test_misuse_of_a_batch_keeps_nothing(use: Use, error: type[Exception], text: str, dead_url: str) -> None:
    with Client(endpoint=dead_url, access_key="key") as client:
        batch = client.create_batch()
        with pytest.raises(error, match=text):
            use(batch)
        assert batch.wait() == []


@pytest.mark.parametrize(("use", "error", "text"), MISUSES)
def test_misuse_of_the_asyncio_client_shows_before_it_is_awaited(
    use: Use, error: type[Exception], text: str, dead_url: str
) -> None:
    client = AsyncClient(endpoint=dead_url, access_key="key")
    with pytest.raises(error, match=text):
        use(client)


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"endpoint": "ftp://host"}, ValueError, "V3IO URL"),
        ({"endpoint": "http://user:pw@host"}, ValueError, "access key is given apart"),
        ({"endpoint": "host:many"}, ValueError, "[Pp]ort"),
        ({"endpoint": 7}, TypeError, "endpoint"),
        ({"access_key": "a\nb"}, ValueError, "access key"),
        ({"access_key": 7}, TypeError, "access_key"),
        ({"logger": "http://host"}, TypeError, "endpoint="),
        ({"max_connections": 0}, ValueError, "max_connections"),
        ({"max_connections": "8"}, TypeError, "max_connections"),
        ({"timeout": 0}, ValueError, "timeout"),
        ({"timeout": "1"}, TypeError, "timeout"),
        ({"logger_verbosity": "loud"}, ValueError, "logger_verbosity"),
        ({"transport_verbosity": None}, ValueError, "transport_verbosity"),
        ({"retry_intervals": (-1,)}, ValueError, "retry_intervals"),
        ({"retry_intervals": 1}, TypeError, "list of seconds"),
        ({"verify": False}, TypeError, "verify"),
        ({"verify": "/no/such/file"}, ValueError, "verify names no file: '/no/such/file'"),
        ({"unknown": 1}, TypeError, "unknown"),
    ],
)
def test_misuse_of_settings(settings: dict[str, Any], error: type[Exception], text: str) -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(error, match=text):
            kind(**{"endpoint": "http://host", "access_key": "key"} | settings)


def test_transports_of_ones_own_are_refused() -> None:
    for transport in ("verifier", object()):
        with pytest.raises(ValueError, match="tablecast serve v3io"):
            Client(endpoint="http://host", access_key="key", transport_kind=transport)  # type: ignore[arg-type]


def test_what_may_be_sent_twice() -> None:
    twice = [
        calls.get_containers(),
        calls.put_object("c", "o", b"x"),
        calls.put_item("c", "t/k", {"a": 1}),
        calls.update_item("c", "t/k", attributes={"a": 1}),
        calls.get_items("c", "t"),
        calls.get_records("c", "s/0", "AQ=="),
    ]
    once = [
        calls.put_object("c", "o", b"x", append=True),
        calls.delete_object("c", "o"),
        calls.put_item("c", "t/k", {"a": 1}, "NOT exists(a)"),
        calls.update_item("c", "t/k", attributes={"a": 1}, condition="a == 0"),
        calls.update_item("c", "t/k", expression="a = a + 1"),
        calls.create_stream("c", "s", 1),
        calls.put_records("c", "s", [{"data": "x"}]),
    ]
    assert all(call.repeatable for call in twice)
    assert not any(call.repeatable for call in once)


def test_paths_are_encoded() -> None:
    assert calls.get_object("c", "/d/ü x%#?.txt").path == "/c/d/%C3%BC%20x%25%23%3F.txt"
    assert calls.list_directory("c", "/a b/ü", limit=3).path == "/c?prefix=%2Fa%20b%2F%C3%BC&max-keys=3"
    assert calls.seek_shard("c", calls.shard_path("/s/", 3), "LATEST").path == "/c/s/3/"
    assert calls.create_schema("c", "t/", "k", []).path == "/c/t/.%23schema"
    assert calls.get_item("c", calls.item_path("t", "a/b"), "age").body == b'{"AttributesToGet":"age"}'
