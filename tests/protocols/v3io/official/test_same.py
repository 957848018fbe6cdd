"""One script through the official client and through ours: the same answers, errors and outputs."""

from __future__ import annotations

import array
import dataclasses
import io
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import v3io.dataplane
from v3io.dataplane.response import HttpResponseError

import tablecast.v3io
from protocols.v3io.server import V3ioServer

from ..conftest import KEY, QuietLogger

#: Mended or added: what the official client never sets, a number that it leaves a text, an error's fields.
MENDED = {"last_sequence_id", "max_keys", "error_code", "error_message"}
#: What differs from one run to the next.
TIMES = {
    "msec_behind_latest",
    "creation_date",
    "last_modified",
    "access_time",
    "creating_time",
    "arrival_time_sec",
    "arrival_time_nsec",
}
#: Errors that both raise, whatever else ours are.
ERRORS = (RuntimeError, AttributeError, KeyError, ValueError, TypeError, OSError)


def shown(value: Any) -> Any:
    """All that a result says, without times, and without what is None, which the official client leaves out."""
    if isinstance(value, str | int | float | bytes | datetime | None):
        return value
    if isinstance(value, list):
        return [shown(each) for each in value]
    if hasattr(value, "status_code"):
        output = value.output
        return value.status_code, shown(output), value.body if output is None else None
    fields = dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value
    fields = fields if isinstance(fields, dict) else vars(fields)
    return {
        name: shown(each)
        for name, each in fields.items()
        if not name.startswith("_") and name not in TIMES | MENDED and each is not None
    }


def result(call: Callable[[], Any]) -> Any:
    try:
        return shown(call())
    except (HttpResponseError, tablecast.v3io.HttpResponseError) as error:
        return "HttpResponseError", error.status_code, str(error)
    except ERRORS as error:
        return next(kind.__name__ for kind in ERRORS if isinstance(error, kind))


def script(client: Any, package: Any) -> dict[str, Any]:
    never = package.dataplane.RaiseForStatus.never
    always = package.dataplane.RaiseForStatus.always
    item = {"i": 1, "f": 1.5, "s": "ü", "b": b"\xff", "t": True, "at": datetime(2026, 1, 2, tzinfo=UTC)}
    arrays = {"n": [1, 2], "d": array.array("d", [1.5]), "e": [], "m": [1.5, 2]}
    records = [
        {"data": "a", "shard_id": 1},
        {"data": b"\x00", "shard_id": 1, "client_info": "info", "partition_key": "k"},
        {"data": "no", "shard_id": 9},
    ]
    schema = {"key": "i", "fields": [{"name": "i", "type": "long", "nullable": False}]}
    obj, kv, stream, container = client.object, client.kv, client.stream, client.container
    batch = client.create_batch()
    location = "AQAAAAAAAAAAAAAAAAAAAA=="
    steps: dict[str, Callable[[], Any]] = {
        "containers": client.get_containers,
        "put": lambda: obj.put("users", "/d/o", body="text"),
        "put file": lambda: obj.put("users", "d/file", body=io.BytesIO(b"file")),
        "put directory": lambda: obj.put("users", "empty/"),
        "append": lambda: obj.put("users", "d/o", body=b"\xff", append=True),
        "get": lambda: obj.get("users", "d/o"),
        "get range": lambda: obj.get("users", "d/o", offset=1, num_bytes=2),
        "get rest": lambda: client.get_object("users", "d/o", offset=3),
        "get beyond": lambda: obj.get("users", "d/o", offset=99, num_bytes=1),
        "head": lambda: obj.head("users", "d/o"),
        "head none": lambda: obj.head("users", "none"),
        "get none": lambda: obj.get("users", "none"),
        "get none, never": lambda: obj.get("users", "none", raise_for_status=never),
        "get none, always": lambda: obj.get("users", "none", raise_for_status=always),
        "get none, 404": lambda: obj.get("users", "none", raise_for_status=[404]),
        "get none, set": lambda: obj.get("users", "none", raise_for_status={200, 404}),
        "get none, empty list": lambda: obj.get("users", "none", raise_for_status=[]),
        "get, 500": lambda: obj.get("users", "d/o", raise_for_status=(500,)),
        "status as a number": lambda: obj.get("users", "none", raise_for_status=404),
        "no container": lambda: client.put_object("nowhere", "x", body="x"),
        "wrong key": lambda: client.get_containers(access_key="wrong"),
        "wrong key for an object": lambda: obj.delete("users", "d/o", access_key="wrong"),
        "list": lambda: container.list("users", "d"),
        "list root": lambda: container.list("users", "/"),
        "list a page": lambda: container.list("users", "d/", limit=1),
        "list the next": lambda: client.get_container_contents("users", "d", limit=1, marker="d/file"),
        "list directories": lambda: container.list("users", "/", directories_only=True),
        "list none": lambda: container.list("users", "none"),
        "delete": lambda: obj.delete("users", "d/file"),
        "delete flat": lambda: client.delete_object("users", "d/file"),
        "delete directory": lambda: client.delete_object("users", "empty/"),
        "kv put": lambda: kv.put("users", "t", "k1", item),
        "kv put arrays": lambda: client.put_item("users", "t/k2", arrays),
        "kv put if absent": lambda: kv.put("users", "t", "k1", item, condition="NOT exists(i)"),
        "kv put many": lambda: client.put_items("users", "t", {"k3": {"i": 3}, "k4": {"i": 4}}).success,
        "kv put nothing that is": lambda: kv.put("users", "t", "k", {"a": None}),
        "kv put a dict": lambda: kv.put("users", "t", "k", {"a": {}}),
        "kv put a long text": lambda: kv.put("users", "t", "k", {"a": "x" * 70_000}),
        "kv get": lambda: kv.get("users", "t", "k1"),
        "kv get arrays": lambda: client.get_item("users", "t/k2"),
        "kv get some": lambda: kv.get("users", "t", "k1", attribute_names=["i", "__name", "no"]),
        "kv get none": lambda: kv.get("users", "t", "none"),
        "kv update": lambda: kv.update("users", "t", "k1", attributes={"j": 2}),
        "kv update by expression": lambda: client.update_item("users", "t/k1", expression="i = i + j"),
        "kv update if": lambda: kv.update("users", "t", "k1", expression="i = 0", condition="i == 99"),
        "kv update else": lambda: kv.update(
            "users", "t", "k1", expression="i = 0", condition="i == 99", alternate_expression="i = i * 2"
        ),
        "kv update with nothing": lambda: kv.update("users", "t", "k1"),
        "kv update in a mode": lambda: kv.update("users", "t", "k1", attributes={"a": 1}, update_mode="Odd"),
        "kv got": lambda: kv.get("users", "t", "k1"),
        "kv scan": lambda: kv.scan("users", "t", filter_expression="i >= 3", attribute_names=["i"]),
        "kv scan, flat": lambda: client.get_items("users", "t", limit=2),
        "kv scan by name": lambda: kv.scan("users", "", table_name="t", segment=0, total_segments=2),
        "kv scan none": lambda: kv.scan("users", "none"),
        "kv cursor": lambda: kv.new_cursor("users", "t", attribute_names=["i"], limit=3).all(),
        "kv cursor, item": lambda: kv.new_cursor("users", "t", filter_expression="i == 3").next_item(),
        "kv cursor, empty": lambda: kv.new_cursor("users", "t", filter_expression="i == 33").next_item(),
        "kv cursor, none": lambda: kv.new_cursor("users", "none").next_item(),
        "kv schema": lambda: kv.create_schema("users", "t", **schema),
        "kv schema, flat": lambda: client.create_schema("users", "t2", **schema),
        "kv schema, stored": lambda: obj.get("users", "t/.#schema"),
        "kv delete": lambda: kv.delete("users", "t", "k1"),
        "kv delete, flat": lambda: client.delete_item("users", "t/k1"),
        "stream create": lambda: stream.create("users", "s", 4, retention_period_hours=5),
        "stream create, flat": lambda: client.create_stream("users", "s", 4),
        "stream update": lambda: stream.update("users", "s", 6),
        "stream update, flat": lambda: client.update_stream("users", "s", 2),
        "stream describe": lambda: stream.describe("users", "s"),
        "stream describe, flat": lambda: client.describe_stream("users", "none"),
        "stream put": lambda: stream.put_records("users", "s", records),
        "stream put, flat": lambda: client.put_records("users", "s", records[:1]),
        "stream put nothing": lambda: stream.put_records("users", "s", []),
        "stream put without data": lambda: stream.put_records("users", "s", [{"shard_id": 1}]),
        "stream seek": lambda: stream.seek("users", "s", 1, "EARLIEST"),
        "stream seek a number": lambda: stream.seek("users", "s", 1, "SEQUENCE", starting_sequence_number=2),
        "stream seek, flat": lambda: client.seek_shard("users", "s/1", "LATEST"),
        "stream seek a time": lambda: stream.seek("users", "s", 1, "TIME", timestamp_sec=1, timestamp_nsec=0),
        "stream seek nowhere": lambda: stream.seek("users", "s", 77, "EARLIEST"),
        "stream seek oddly": lambda: stream.seek("users", "s", 1, "SOMEWHERE"),
        "stream get": lambda: stream.get_records("users", "s", 1, location),
        "stream get, flat": lambda: client.get_records("users", "s/1", location, limit=1),
        "stream get from nowhere": lambda: stream.get_records("users", "s", 1, "nowhere"),
        "stream listed": lambda: container.list("users", "s"),
        "stream delete": lambda: stream.delete("users", "s"),
        "stream delete none": lambda: client.delete_stream("users", "s", raise_for_status=[404]),
        "stream delete none at all": lambda: stream.delete("users", "s"),
        "batch call": lambda: [batch.object.put("users", f"b/{i}", body=str(i)) for i in range(20)],
        "batch call, flat": lambda: batch.get_object("users", "none", raise_for_status=[404]),
        "batch wait": lambda: list(batch.wait(raise_for_status=[200])),
        "batch wait for nothing": lambda: list(batch.wait()),
        "batch that fails": lambda: [
            batch.object.get("users", "b/1"),
            batch.kv.get("users", "t", "none"),
            batch.wait(),
        ],
        "batch that may fail": lambda: [
            batch.kv.get("users", "t", "k3"),
            batch.get_object("users", "none"),
            list(batch.wait(raise_for_status=never)),
        ],
        "its own batch": lambda: [client.batch.stream.create("users", "bs", 1), list(client.batch.wait())],
        "close": client.close,
        "close again": client.close,
        "closed": lambda: obj.get("users", "d/o"),
    }
    return {name: result(call) for name, call in steps.items()}


def test_the_same_script() -> None:
    results = []
    for package in (v3io, tablecast.v3io):
        with V3ioServer(port=0, access_key=KEY) as server:
            client = package.dataplane.Client(logger=QuietLogger(), endpoint=server.url, access_key=KEY)
            results.append(script(client, package))
    official, ours = results
    assert ours == official
    assert sum(isinstance(each, tuple) and each[0] == 200 for each in ours.values()) > 30


def test_the_same_without_a_server(dead_url: str) -> None:
    for package in (v3io, tablecast.v3io):
        client = package.dataplane.Client(logger=QuietLogger(), endpoint=dead_url, access_key=KEY)
        with pytest.raises(ConnectionError):
            client.get_containers()
        client.close()


@pytest.mark.parametrize("missing", ["endpoint", "access_key"])
def test_the_same_environment(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with V3ioServer(port=0, access_key=KEY) as server:
        for package in (v3io, tablecast.v3io):
            monkeypatch.setenv("V3IO_API", server.url.removeprefix("http://") + "/")
            monkeypatch.setenv("V3IO_ACCESS_KEY", KEY)
            client = package.dataplane.Client(logger=QuietLogger())
            assert client.get_containers().status_code == 200
            client.close()
            monkeypatch.delenv("V3IO_API" if missing == "endpoint" else "V3IO_ACCESS_KEY")
            with pytest.raises(RuntimeError if missing == "endpoint" else ValueError, match="V3IO_A"):
                package.dataplane.Client(logger=QuietLogger())
