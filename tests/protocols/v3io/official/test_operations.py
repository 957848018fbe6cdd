"""Every operation of the official client, unchanged, on the embedded server; and the same through ours."""

from __future__ import annotations

import array
import io
import itertools
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from v3io.dataplane.response import HttpResponseError

import tablecast.v3io
from protocols.v3io.server import items
from protocols.v3io.server.server import V3ioServer

from ..conftest import KEY, QuietLogger


@pytest.fixture
def base() -> str:
    """A directory that no other test uses."""
    return f"t-{uuid.uuid4().hex}"


def fails(status: int, call: Any, *args: Any, **kwargs: Any) -> str:
    with pytest.raises((HttpResponseError, tablecast.v3io.HttpResponseError)) as caught:
        call(*args, **kwargs)
    assert caught.value.status_code == status
    return str(caught.value)


def test_objects(client: Any, base: str) -> None:
    path = f"{base}/dir with space/ü#?%.txt"
    client.object.put("users", path, body="hello ☃")
    assert client.object.get("users", path).body == "hello ☃".encode()
    client.object.put("users", path, body=b"0123456789")
    client.object.put("users", path, body="ab", append=True)
    assert client.object.get("users", path).body == b"0123456789ab"
    assert client.object.get("users", path, offset=4).body == b"456789ab"
    assert client.object.get("users", path, offset=4, num_bytes=3).body == b"456"
    assert client.object.get("users", path, num_bytes=100).body == b"0123456789ab"
    head = client.object.head("users", path)
    assert (head.status_code, head.headers["Content-Length"]) == (200, "12")
    assert client.object.head("users", base).headers["Content-Length"] == "0"
    assert client.object.delete("users", path).status_code == 204
    assert "No such file" in fails(404, client.object.get, "users", path)
    fails(404, client.object.head, "users", path)
    fails(404, client.object.delete, "users", path)
    assert "Container not found" in fails(404, client.object.put, "nowhere", "x", body="x")


def test_objects_beyond_a_chunk(client: Any, base: str) -> None:
    data = bytes(range(256)) * 10_000
    client.object.put("users", f"{base}/file", body=io.BytesIO(data))
    client.object.put("users", f"{base}/file", body=b"tail", append=True)
    assert client.object.get("users", f"{base}/file").body == data + b"tail"
    for start, count in ((1024 * 1024 - 3, 6), (2 * 1024 * 1024, 10), (len(data) - 1, 3)):
        got = client.object.get("users", f"{base}/file", offset=start, num_bytes=count).body
        assert got == (data + b"tail")[start : start + count]


def test_listings(client: Any, base: str) -> None:
    names = [f"f{i}&<.txt" for i in range(4)]
    for name in names:
        client.object.put("users", f"{base}/{name}", body="x")
    client.object.put("users", f"{base}/sub/deep.txt", body="x")
    client.object.put("users", f"{base}/empty/")
    for path in (base, f"/{base}", f"{base}/", f"/{base}/"):
        output = client.container.list("users", path).output
        assert [entry.key for entry in output.contents] == [f"{base}/{name}" for name in names]
        assert [entry.prefix for entry in output.common_prefixes] == [f"{base}/empty/", f"{base}/sub/"]
    assert (output.name, output.is_truncated, output.contents[0].size) == ("users", "false", 1)
    output = client.container.list("users", base, directories_only=True, get_all_attributes=True).output
    assert output.contents == []
    assert output.common_prefixes[0].mode == "040775"
    seen, marker = [], None
    for _ in range(10):
        page = client.container.list("users", base, limit=2, marker=marker, get_all_attributes=True).output
        seen += [entry.key for entry in page.contents] + [entry.prefix for entry in page.common_prefixes]
        marker = page.next_marker
        if page.is_truncated == "false":
            break
    assert sorted(seen) == sorted([f"{base}/{name}" for name in [*names, "sub/", "empty/"]])
    fails(404, client.container.list, "users", f"{base}/none")
    assert {c.name for c in client.get_containers().output.containers} == {"bigdata", "projects", "users"}
    assert "not empty" in fails(409, client.object.delete, "users", f"{base}/sub/")
    assert client.object.delete("users", f"{base}/empty/").status_code == 204


def test_attribute_types(client: Any, base: str) -> None:
    values: dict[str, Any] = {
        "text": "ü☃😀",
        "int": -(2**63),
        "float": 1e300,
        "yes": True,
        "blob": b"\x00\xff",
        "ints": [1, -2, 3],
        "doubles": array.array("d", [10.5, 20.5]),
        "none": [],
        "at": datetime(2026, 11, 21, 1, 2, 3, tzinfo=UTC),
    }
    client.kv.put("users", base, "bob", values)
    item = client.kv.get("users", base, "bob").output.item
    assert item == values | {"doubles": [10.5, 20.5]}
    item = client.kv.get("users", base, "bob", attribute_names=["__size", "int", "missing"]).output.item
    assert item == {"__size": 0, "int": -(2**63)}
    item = client.kv.get("users", base, "bob", attribute_names=["**"]).output.item
    assert item["__name"] == "bob"
    assert item.keys() > values.keys()


def test_items(client: Any, base: str) -> None:
    client.kv.put("users", base, "x", {"a": 1, "b": 2})
    client.kv.put("users", base, "x", {"a": 3})
    assert client.kv.get("users", base, "x").output.item == {"a": 3}
    client.kv.update("users", base, "x", attributes={"b": 5})
    assert client.kv.get("users", base, "x").output.item == {"a": 3, "b": 5}
    client.kv.update("users", base, "x", expression="a = a + 1; REMOVE b", condition="b == 5")
    assert client.kv.get("users", base, "x").output.item == {"a": 4}
    assert "16777244" in fails(
        400, client.kv.update, "users", base, "x", expression="a = 9", condition="a == 3"
    )
    client.kv.update(
        "users", base, "x", expression="a=0", condition="a==3", alternate_expression="SET o='alt'"
    )
    assert client.kv.get("users", base, "x").output.item == {"a": 4, "o": "alt"}
    assert "16777244" in fails(400, client.kv.put, "users", base, "x", {"a": 0}, condition="NOT exists(a)")
    client.kv.put("users", base, "new", {"a": 0}, condition="NOT exists(a)")
    client.kv.update("users", base, "made", expression="n = if_not_exists(n, 0) + 1")
    assert client.kv.get("users", base, "made").output.item == {"n": 1}
    fails(400, client.kv.update, "users", base, "x", expression="a = zz + 1; o = 'changed'")
    assert client.kv.get("users", base, "x").output.item == {"a": 4, "o": "alt"}
    assert client.kv.delete("users", base, "x").status_code == 204
    fails(404, client.kv.get, "users", base, "x")


def test_a_failed_write_makes_no_directories(client: Any, base: str) -> None:
    fails(400, client.kv.update, "users", f"{base}/deep", "x", expression="a = missing")
    fails(404, client.container.list, "users", base)


def test_the_verifier_is_a_condition(client: Any, base: str) -> None:
    first = client.kv.put("users", base, "x", {"a": 1}).headers["X-v3io-transaction-verifier"]
    client.kv.update("users", base, "x", attributes={"a": 2}, condition=first)
    fails(400, client.kv.update, "users", base, "x", attributes={"a": 3}, condition=first)
    now = client.kv.get("users", base, "x").headers["X-v3io-transaction-verifier"]
    client.kv.update("users", base, "x", attributes={"a": 3}, condition=now)


def test_cursors(client: Any, base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(items, "PAGE_ITEMS", 3)
    monkeypatch.setattr(items, "SCAN_ENTRIES", 5)
    for i in range(23):
        client.kv.put("users", base, f"k{i:02}", {"i": i, "even": i % 2 == 0})

    def scanned(**kwargs: Any) -> list[int]:
        return [item["i"] for item in client.kv.new_cursor("users", base, **kwargs).all()]

    assert scanned() == list(range(23))
    # Pages without a match lie before and between those with one.
    assert scanned(filter_expression="i IN (7, 21, 22)") == [7, 21, 22]
    assert scanned(filter_expression="i > 99") == []
    assert scanned(limit=7) == list(range(7))
    segments = [scanned(segment=n, total_segments=3) for n in range(3)]
    assert sorted(itertools.chain(*segments)) == list(range(23))
    assert all(segments)
    names = client.kv.new_cursor("users", "", table_name=base, attribute_names=["__name"]).all()
    assert [item["__name"] for item in names] == [f"k{i:02}" for i in range(23)]
    fails(404, client.kv.new_cursor("users", f"{base}/none").all)


def test_compound_keys_and_schema(client: Any, base: str) -> None:
    for key in ("a", "a-b.1", "a.1", "a.2", "a.3.x", "aa.2", "b.2"):
        client.kv.put("users", base, key, {"key": key})

    def scanned(**kwargs: Any) -> list[str]:
        return [item["key"] for item in client.kv.new_cursor("users", base, **kwargs).all()]

    assert scanned(sharding_key="a") == ["a", "a.1", "a.2", "a.3.x"]
    assert scanned(sharding_key="a", sort_key_range_start="2") == ["a.2", "a.3.x"]
    assert scanned(sharding_key="a", sort_key_range_start="1", sort_key_range_end="3") == ["a.1", "a.2"]
    client.kv.create_schema(
        "users", base, key="key", fields=[{"name": "key", "type": "string", "nullable": False}]
    )
    assert {} in client.kv.new_cursor("users", base).all()
    assert b'"hashingBucketNum":0' in client.object.get("users", f"{base}/.#schema").body


def test_updates_are_atomic(client: Any, base: str) -> None:
    def add(_: int) -> None:
        client.kv.update("users", base, "counter", expression="n = if_not_exists(n, 0) + 1")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(80)))
    assert client.kv.get("users", base, "counter").output.item == {"n": 80}


def test_streams(client: Any, base: str) -> None:
    stream = client.stream
    assert stream.create("users", base, 8, retention_period_hours=5).status_code == 204
    assert "ResourceInUse" in fails(409, stream.create, "users", base, 8)
    described = stream.describe("users", base).output
    assert (described.shard_count, described.retention_period_hours) == (8, 5)
    records = [
        {"data": "first", "shard_id": 1},
        {"data": "☃", "client_info": "some info", "shard_id": 1, "partition_key": "ignored"},
        {"data": "bad", "shard_id": 10},
        {"data": b"\x00\xff", "partition_key": "pk1"},
        {"data": "more", "partition_key": "pk1"},
        {"data": "anywhere"},
        {"data": "x", "shard_id": 1, "partition_key": "k" * 257},
    ]
    output = stream.put_records("users", base, records).output
    assert output.failed_record_count == 2
    assert [r.error_code for r in output.records] == [None, None, -201326594, None, None, None, -201326592]
    assert [(r.sequence_number, r.shard_id) for r in output.records[:2]] == [(1, 1), (2, 1)]
    assert output.records[3].shard_id == output.records[4].shard_id
    location = stream.seek("users", base, 1, "EARLIEST").output.location
    assert location == "AQAAAAAAAAAAAAAAAAAAAA=="
    got = stream.get_records("users", base, 1, location).output
    data = [record.data for record in got.records]
    assert data[:2] == [b"first", "☃".encode()]
    assert (got.records[1].client_info, got.records[1].partition_key) == (b"some info", "ignored")
    assert (got.records[0].client_info, got.records[0].partition_key) == (None, None)
    assert (got.records_behind_latest, got.msec_behind_latest) == (0, 0)
    one = stream.get_records("users", base, 1, location, limit=1).output
    assert (len(one.records), one.records_behind_latest) == (1, len(data) - 1)
    rest = stream.get_records("users", base, 1, one.next_location).output
    assert [record.data for record in rest.records] == data[1:]


def test_seeking(client: Any, base: str) -> None:
    stream = client.stream
    stream.create("users", base, 2)

    def read(*args: Any, **kwargs: Any) -> list[bytes]:
        location = stream.seek("users", base, 0, *args, **kwargs).output.location
        return [record.data for record in stream.get_records("users", base, 0, location).output.records]

    assert read("EARLIEST") == read("LATEST") == []
    for i in range(3):
        stream.put_records("users", base, [{"data": str(i), "shard_id": 0}])
    location = stream.seek("users", base, 0, "EARLIEST").output.location
    second = stream.get_records("users", base, 0, location).output.records[1]
    assert read("SEQUENCE", starting_sequence_number=second.sequence_number) == [b"1", b"2"]
    at = {"timestamp_sec": second.arrival_time_sec, "timestamp_nsec": second.arrival_time_nsec}
    assert read("TIME", **at) == [b"1", b"2"]
    assert read("TIME", timestamp_sec=0, timestamp_nsec=0) == [b"0", b"1", b"2"]
    assert read("TIME", timestamp_sec=2**33, timestamp_nsec=0) == []
    fails(400, read, "SEQUENCE", starting_sequence_number=99)
    latest = stream.seek("users", base, 0, "LATEST").output.location
    empty = stream.get_records("users", base, 0, latest).output
    assert empty.records == []
    stream.put_records("users", base, [{"data": "later", "shard_id": 0}])
    got = stream.get_records("users", base, 0, empty.next_location).output.records
    assert [record.data for record in got] == [b"later"]
    assert "ShardIDOutOfRange" in fails(400, stream.seek, "users", base, 2, "EARLIEST")


def test_growing_and_deleting_streams(client: Any, base: str) -> None:
    stream = client.stream
    assert "ResourceNotFound" in fails(404, stream.describe, "users", base)
    assert stream.delete("users", base, raise_for_status=[404]).status_code == 404
    stream.create("users", base, 2)
    assert "InvalidShardCount" in fails(400, stream.update, "users", base, 1)
    assert stream.update("users", base, 4).status_code == 204
    results = stream.put_records("users", base, [{"data": "x"}] * 8).output.records
    assert sorted(r.shard_id for r in results) == [0, 0, 1, 1, 2, 2, 3, 3]
    client.object.put("users", f"{base}/group-state.json", body="{}")
    client.kv.update("users", base, "0", attributes={"committed": 7})
    assert stream.seek("users", base, 0, "LATEST").output.location != "AQAAAAAAAAAAAAAAAAAAAA=="
    assert client.kv.get("users", base, "0", attribute_names=["__last_sequence_num"]).output.item
    assert len(client.container.list("users", base).output.contents) == 5
    assert stream.delete("users", base).status_code == 204
    fails(404, stream.put_records, "users", base, [{"data": "x"}])
    stream.create("users", base, 1)
    location = stream.seek("users", base, 0, "EARLIEST").output.location
    assert stream.get_records("users", base, 0, location).output.records == []
    client.object.put("users", f"{base}-no/x", body="x")
    assert "ResourceNotStream" in fails(400, stream.describe, "users", f"{base}-no")


def test_batches_and_flat_calls(client: Any, base: str) -> None:
    batch = client.create_batch()
    for i in range(20):
        batch.kv.put("users", base, f"k{i}", {"i": i})
    assert [response.status_code for response in batch.wait()] == [200] * 20
    client.put_item("users", f"{base}/flat", {"i": 20})
    assert client.get_item("users", f"{base}/flat", attribute_names=["i"]).output.item == {"i": 20}
    assert client.put_items("users", base, {"p": {"i": 21}, "q": {"i": 22}}).success
    assert len(client.get_items("users", f"{base}/").output.items) == 23


def test_access_keys(server: V3ioServer, package: Any) -> None:
    client = package.dataplane.Client(logger=QuietLogger(), endpoint=server.url, access_key="wrong")
    assert "Permission denied" in fails(403, client.get_containers)
    assert client.get_containers(access_key=KEY).status_code == 200
    client.close()


def test_threads_share_a_client(client: Any, base: str) -> None:
    client.stream.create("users", base, 1)
    barrier = threading.Barrier(4)

    def put(worker: int) -> list[int]:
        barrier.wait(timeout=20)
        answers = []
        for i in range(10):
            record = {"data": f"{worker}:{i}", "shard_id": 0}
            answers.append(
                client.stream.put_records("users", base, [record]).output.records[0].sequence_number
            )
        return answers

    with ThreadPoolExecutor(4) as pool:
        numbers = list(pool.map(put, range(4)))
    assert sorted(itertools.chain(*numbers)) == list(range(1, 41))
    assert all(each == sorted(each) for each in numbers)
