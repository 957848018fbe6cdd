"""Every name, argument and default of v3io 0.7.2: those that the specification lists, and the package's own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import v3io.aio.dataplane
import v3io.dataplane
import v3io.dataplane.batch
import v3io.dataplane.kv_cursor
import v3io.dataplane.output
import v3io.dataplane.response

from protocols.v3io.official import outputs
from protocols.v3io.server import V3ioServer
from tablecast import v3io as ours
from tests.compat.names import REQUIRED, Name, check, check_modules

_R = REQUIRED
_CALL = {"access_key": None, "raise_for_status": None, "transport_actions": None}
_TERMS = {"access_key": None, "raise_for_status": None}
_OBJECT = {"container": _R, "path": _R}
_ITEM = {"container": _R, "table_path": _R, "key": _R}
_STREAM = {"container": _R, "stream_path": _R}
_QUERY = {
    "attribute_names": "*",
    "filter_expression": None,
    "marker": None,
    "sharding_key": None,
    "limit": None,
}
_QUERY |= {"segment": None, "total_segments": None, "sort_key_range_start": None, "sort_key_range_end": None}
_PUT = {"body": None, "append": None}
_GET = {"offset": None, "num_bytes": None}
_LIST = {"get_all_attributes": None, "directories_only": None, "limit": None, "marker": None}
_UPDATE = {"attributes": None, "expression": None, "condition": None}
_UPDATE |= {"update_mode": None, "alternate_expression": None}
_SEEK = {"starting_sequence_number": None, "timestamp_sec": None, "timestamp_nsec": None}
_SCHEMA = {"key": None, "fields": None}
_SETTINGS = {"logger": None, "endpoint": None, "access_key": None, "max_connections": None, "timeout": None}
_VERBOSITY = {"logger_verbosity": None, "transport_verbosity": "info"}

CALLS = {
    "object.put": _OBJECT | _CALL | _PUT,
    "object.get": _OBJECT | _CALL | _GET,
    "object.head": _OBJECT | _CALL,
    "object.delete": _OBJECT | _CALL,
    "kv.put": _ITEM | {"attributes": _R} | _CALL | {"condition": None},
    "kv.update": _ITEM | _CALL | _UPDATE,
    "kv.get": _ITEM | _CALL | {"attribute_names": "*"},
    "kv.scan": {"container": _R, "table_path": _R, "table_name": None} | _CALL | _QUERY,
    "kv.new_cursor": {"container": _R, "table_path": _R, "table_name": None} | _TERMS | _QUERY,
    "kv.delete": _ITEM | _CALL,
    "kv.create_schema": {"container": _R, "table_path": _R} | _CALL | _SCHEMA,
    "stream.create": _STREAM | {"shard_count": _R} | _CALL | {"retention_period_hours": None},
    "stream.update": _STREAM | {"shard_count": _R} | _CALL,
    "stream.delete": _STREAM | _TERMS,
    "stream.describe": _STREAM | _CALL,
    "stream.seek": _STREAM | {"shard_id": _R, "seek_type": _R} | _CALL | _SEEK,
    "stream.put_records": _STREAM | {"records": _R} | _CALL,
    "stream.get_records": _STREAM | {"shard_id": _R, "location": _R} | _CALL | {"limit": None},
    "container.list": _OBJECT | _CALL | _LIST,
}
FLAT = {
    "get_containers": _CALL,
    "get_container_contents": _OBJECT | _CALL | _LIST,
    "get_object": _OBJECT | _CALL | _GET,
    "put_object": _OBJECT | _CALL | _PUT,
    "delete_object": _OBJECT | _CALL,
    "put_item": _OBJECT | {"attributes": _R} | _CALL | {"condition": None},
    "put_items": _OBJECT | {"items": _R} | _TERMS | {"condition": None},
    "update_item": _OBJECT | _CALL | _UPDATE,
    "get_item": _OBJECT | _CALL | {"attribute_names": "*"},
    "get_items": _OBJECT | _CALL | {"table_name": None} | _QUERY,
    "delete_item": _OBJECT | _CALL,
    "create_stream": _OBJECT | {"shard_count": _R} | _CALL | {"retention_period_hours": None},
    "update_stream": _OBJECT | {"shard_count": _R} | _CALL,
    "delete_stream": _OBJECT | _TERMS,
    "describe_stream": _OBJECT | _CALL,
    "seek_shard": _OBJECT | {"seek_type": _R} | _CALL | _SEEK,
    "put_records": _OBJECT | {"records": _R} | _CALL,
    "get_records": _OBJECT | {"location": _R} | _CALL | {"limit": None},
    "create_schema": _OBJECT | _CALL | _SCHEMA,
    "new_items_cursor": _OBJECT | _TERMS | _QUERY,
}
#: What a batch has; the official one lacks a few, and has a ``container.get`` that no client has.
BATCH = (CALLS | FLAT).keys() - {"kv.new_cursor", "new_items_cursor", "put_items"}

NAMES = [
    Name("Client", _SETTINGS | {"transport_kind": "httpclient"} | _VERBOSITY),
    Name("client.create_batch", {}),
    Name("client.close", {}),
    *(Name(f"client.{path}", arguments) for path, arguments in (CALLS | FLAT).items()),
    *(Name(f"client.batch.{path}", (CALLS | FLAT)[path]) for path in sorted(BATCH)),
    Name("client.batch.wait", {"raise_for_status": None}),
    Name("cursor.next_item", {}),
    Name("cursor.all", {}),
    Name("aio.Client", _SETTINGS | _VERBOSITY | {"retry_intervals": None}),
    Name("aio.client.close", {}),
    *(
        Name(
            f"aio.client.{path}", {name: arguments[name] for name in arguments if name != "transport_actions"}
        )
        for path, arguments in CALLS.items()
    ),
    Name("RaiseForStatus.never"),
    Name("RaiseForStatus.always"),
    Name("HttpResponseError", {"message": "", "status_code": None}),
    Name("Response", {"output": _R, "status_code": _R, "headers": _R, "body": _R}),
    Name("Response.output"),
    Name("Response.raise_for_status", {"expected_statuses": None}),
    Name("Responses.responses"),
    Name("Responses.success"),
    Name("Responses.add_response", {"response": _R}),
    Name("Responses.raise_for_status", {}),
    Name("dataplane.Client"),
    Name("dataplane.RaiseForStatus"),
    Name("dataplane.response.HttpResponseError"),
    Name("aio.dataplane.Client"),
    Name("aio.dataplane.RaiseForStatus"),
    Name("transport.Actions"),
    Name("transport.httpclient.Transport.set_connection_timeout"),
    Name("transport.httpclient.Transport.set_request_max_retries"),
    Name("transport.verifier"),
]

MODULES = {
    "dataplane": "Client RaiseForStatus",
    "dataplane.client": "Client",
    "dataplane.batch": "Batch",
    "dataplane.kv_cursor": "Cursor",
    "dataplane.output": "GetContainersOutput GetContainerContentsOutput GetItemOutput GetItemsOutput "
    "DescribeStreamOutput SeekShardOutput PutRecordsOutput GetRecordsOutput",
    "dataplane.response": "HttpResponseError Response Responses",
    "dataplane.transport": "RaiseForStatus",
    "aio.dataplane": "Client RaiseForStatus",
    "aio.dataplane.client": "Client",
    "aio.dataplane.kv_cursor": "Cursor",
}

#: What a reply says, by the call that asks for it.
OUTPUTS: list[tuple[Callable[[Any], Any], str]] = [
    (lambda c: c.get_containers().output.containers[0], "name creation_date identifier"),
    (
        lambda c: c.container.list("users", "").output,
        "name next_marker max_keys is_truncated contents common_prefixes",
    ),
    (
        lambda c: c.container.list("users", "", get_all_attributes=True).output.contents[0],
        "key size last_modified mode access_time creating_time gid uid inode_number last_sequence_id",
    ),
    (
        lambda c: c.container.list("users", "", get_all_attributes=True).output.common_prefixes[0],
        "prefix last_modified mode access_time creating_time gid uid inode_number",
    ),
    (lambda c: c.kv.get("users", "t", "k").output, "item"),
    (lambda c: c.kv.scan("users", "t").output, "items last next_marker"),
    (lambda c: c.stream.describe("users", "s").output, "shard_count retention_period_hours"),
    (lambda c: c.stream.seek("users", "s", 0, "LATEST").output, "location"),
    (lambda c: c.stream.put_records("users", "s", [{"data": "x"}]).output, "failed_record_count records"),
    (
        lambda c: c.stream.put_records("users", "s", [{"data": "x"}]).output.records[0],
        "sequence_number shard_id error_code error_message",
    ),
    (
        lambda c: c.stream.get_records("users", "s", 0, "AQAAAAAAAAAAAAAAAAAAAA==").output,
        "next_location msec_behind_latest records_behind_latest records",
    ),
    (
        lambda c: c.stream.get_records("users", "s", 0, "AQAAAAAAAAAAAAAAAAAAAA==").output.records[0],
        "arrival_time_sec arrival_time_nsec sequence_number client_info partition_key data",
    ),
    (lambda c: c.object.get("users", "none", raise_for_status="never"), "status_code headers body output"),
]


@pytest.fixture(scope="module")
def client() -> Iterator[ours.Client]:
    with (
        V3ioServer(port=0) as server,
        ours.Client(endpoint=server.url, access_key="key") as running,
    ):
        running.object.put("users", "o", body="x")
        running.kv.put("users", "t", "k", {"a": 1})
        running.stream.create("users", "s", 1)
        yield running


@pytest.mark.parametrize("name", NAMES, ids=str)
def test_names(name: Name, client: ours.Client) -> None:
    aio = SimpleNamespace(
        Client=ours.aio.Client,
        client=ours.aio.Client(endpoint="http://host", access_key="key"),
        dataplane=ours.aio.dataplane,
    )
    known = {each: getattr(ours, each) for each in ours.__all__}
    module = known | {"client": client, "cursor": client.kv.new_cursor("users", "t"), "aio": aio}
    check(name, SimpleNamespace(**module), "V3IO")


def test_modules() -> None:
    check_modules(MODULES, "tablecast.v3io")


@pytest.mark.parametrize(("ask", "names"), OUTPUTS)
def test_outputs(ask: Callable[[Any], Any], names: str, client: ours.Client) -> None:
    found = ask(client)
    assert [name for name in names.split() if not hasattr(found, name)] == []


def parameters(function: Any) -> dict[str, Any]:
    """Names and defaults of what can be given by place."""
    return {
        each.name: each.default
        for each in inspect.signature(function).parameters.values()
        if each.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD and each.name != "self"
    }


def test_signatures_are_those_of_the_installed_package(client: ours.Client) -> None:
    settings = {"endpoint": "http://host", "access_key": "key"}
    official = v3io.dataplane.Client(**settings)
    pairs = [(official, client)]
    pairs += [
        (getattr(official, each), getattr(client, each)) for each in ("kv", "object", "stream", "container")
    ]

    class Session:
        """The official asyncio client cannot be made without a loop; its models can."""

        _access_key = _transport = None

    asynchronous = ours.aio.Client(**settings)
    for model in v3io.aio.dataplane.Client._create_models(Session()):
        pairs.append((model, getattr(asynchronous, type(model).__module__.rpartition(".")[2])))
    compared = 0
    for theirs, own in pairs:
        for name, method in inspect.getmembers(theirs, inspect.isroutine):
            if not name.startswith("_") and (method.__module__, name) != ("v3io.aio.dataplane.kv", "delete"):
                assert parameters(getattr(own, name)) == parameters(method), name
                compared += 1
    assert compared == 22 + 19 + 18
    for kind in (v3io.dataplane.Client, v3io.aio.dataplane.Client):
        own_kind = ours.Client if kind is v3io.dataplane.Client else ours.aio.Client
        assert parameters(own_kind) == parameters(kind)
    official.close()


def test_classes_of_the_installed_package_are_here() -> None:
    for name, kind in inspect.getmembers(v3io.dataplane.output, inspect.isclass):
        assert name == "Output" or hasattr(outputs, name), kind
    for name, _ in inspect.getmembers(v3io.dataplane.response, inspect.isclass):
        assert hasattr(ours.dataplane.response, name)


def test_all_is_sorted_and_there() -> None:
    for module in (ours, ours.aio, ours.dataplane, ours.aio.dataplane):
        assert len(set(module.__all__)) == len(module.__all__)
        assert all(hasattr(module, name) for name in module.__all__)
