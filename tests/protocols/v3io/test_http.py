"""Bad requests over plain HTTP: each gets the error that the specification names, on a connection that lives on."""

from __future__ import annotations

import base64
import http.client
import json
import socket
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocols.v3io import wire
from protocols.v3io.server import V3ioServer, api

from .conftest import KEY

CREDENTIALS = {wire.SESSION_HEADER: KEY}
B64 = base64.b64encode(b"x").decode()


@pytest.fixture(scope="module")
def connection(server: V3ioServer) -> http.client.HTTPConnection:
    """One for all tests: none may break it."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.connect()
    connection.auto_open = 0
    return connection


def call(
    connection: http.client.HTTPConnection, method: str, path: str, body: Any = b"", **headers: str
) -> tuple[int, Any, http.client.HTTPResponse]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, data, CREDENTIALS | named)
    response = connection.getresponse()
    content = response.read()
    try:
        return response.status, json.loads(content), response
    except ValueError:
        return response.status, content, response


def function(connection: http.client.HTTPConnection, name: str, path: str, body: Any) -> tuple[int, int, str]:
    status, reply, _ = call(connection, "PUT", path, body, X_V3io_Function=name)
    assert set(reply) == {"ErrorCode", "ErrorMessage"}, reply
    return status, reply["ErrorCode"], reply["ErrorMessage"]


ITEM = {"Item": {"a": {"N": "1"}}}


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("PutItem", b"{"),
        ("PutItem", b"[]"),
        ("PutItem", b"\xff"),
        ("PutItem", b"[" * 5000),
        ("PutItem", {}),
        ("PutItem", {"Item": []}),
        ("PutItem", {"Item": {"a": 1}}),
        ("PutItem", {"Item": {"a": {"N": "x"}}}),
        ("PutItem", {"Item": {"1a": {"N": "1"}}}),
        ("PutItem", {"Item": {"__name": {"S": "1"}}}),
        ("PutItem", {"Item": {"a": {"S": "x" * 61_201}}}),
        ("PutItem", {"Item": {f"a{i}": {"S": "x" * 60_000} for i in range(40)}}),
        ("PutItem", {**ITEM, "UpdateMode": "Whatever"}),
        ("PutItem", {**ITEM, "ConditionExpression": "a =="}),
        ("PutItem", {**ITEM, "ConditionExpression": 1}),
        ("PutItem", {**ITEM, "Key": "x"}),
        ("PutItem", {**ITEM, "Key": {"k": {"S": "a/b"}}}),
        ("UpdateItem", {}),
        ("UpdateItem", {"UpdateExpression": "a"}),
        ("UpdateItem", {"UpdateExpression": "a = missing"}),
        ("UpdateItem", {"UpdateExpression": "x=init_array(9,'int'); x[0]=18446744073709551615"}),
        ("GetItems", {"Limit": 0}),
        ("GetItems", {"Limit": "5"}),
        ("GetItems", {"Limit": True}),
        ("GetItems", {"Marker": "?"}),
        ("GetItems", {"Marker": "/w=="}),
        ("GetItems", {"FilterExpression": "(" * 99}),
        ("GetItems", {"Segment": 2, "TotalSegment": 2}),
        ("GetItems", {"TotalSegment": 1025}),
        ("GetItems", {"SortKeyRangeStart": "1"}),
        ("GetItems", {"ShardingKey": "a", "Segment": 0, "TotalSegment": 2}),
        ("CreateStream", {}),
        ("CreateStream", {"ShardCount": 0}),
        ("CreateStream", {"ShardCount": 1.5}),
        ("CreateStream", {"ShardCount": 1, "RetentionPeriodHours": 0}),
        ("NoSuchFunction", {}),
        ("", {}),
    ],
)
def test_malformed_functions(connection: http.client.HTTPConnection, name: str, body: Any) -> None:
    status, code, message = function(connection, name, "/users/bad/thing", body)
    assert (status, code) == (400, wire.INVALID_ARGUMENT)
    assert message.startswith(("InvalidArgumentException: ", "InvalidShardCountException: "))
    assert len(message) < 300
    assert call(connection, "GET", "/users/bad/thing")[0] == 404


@pytest.mark.parametrize(
    ("name", "path", "body", "status", "text"),
    [
        ("PutRecords", "s/", {}, 400, "InvalidArgument"),
        ("PutRecords", "s/", {"Records": []}, 400, "InvalidArgument"),
        ("PutRecords", "s/", {"Records": [{"Data": B64}] * 1001}, 400, "InvalidArgument"),
        ("PutRecords", "s/", {"Records": [{"Data": "A" * 11_000_000}]}, 400, "InvalidArgument"),
        ("PutRecords", "none/", {"Records": [{"Data": B64}]}, 404, "ResourceNotFound"),
        ("UpdateStream", "s/", {"ShardCount": 1}, 400, "InvalidShardCount"),
        ("SeekShard", "s/0/", {}, 400, "InvalidArgument"),
        ("SeekShard", "s/0/", {"Type": "SEQUENCE"}, 400, "InvalidArgument"),
        ("SeekShard", "s/0/", {"Type": "TIME", "TimestampSec": -1}, 400, "InvalidArgument"),
        ("SeekShard", "s/x/", {"Type": "LATEST"}, 400, "InvalidArgument"),
        ("SeekShard", "s/99999999999999999999/", {"Type": "LATEST"}, 400, "InvalidArgument"),
        ("Seek", "s/7/", {"Type": "LATEST"}, 400, "ShardIDOutOfRange"),
        ("Seek", "s/", {"Type": "LATEST", "ShardId": -1}, 400, "ShardIDOutOfRange"),
        ("GetRecords", "none/0/", {"Location": "x"}, 400, "IllegalLocation"),
        ("GetRecords", "s/0/", {}, 400, "IllegalLocation"),
        ("GetRecords", "s/0/", {"Location": B64}, 400, "IllegalLocation"),
        ("DescribeStream", "", b"", 400, "InvalidArgument"),
    ],
)
def test_malformed_stream_functions(
    connection: http.client.HTTPConnection, name: str, path: str, body: Any, status: int, text: str
) -> None:
    call(connection, "POST", "/users/s/", {"ShardCount": 2}, X_V3io_Function="CreateStream")
    if path.startswith("none") and status == 400:
        path = "s/" + path.split("/")[1] + "/"
    answer = function(connection, name, f"/users/{path}", body)
    assert answer[0] == status
    assert text in answer[2]


@pytest.mark.parametrize(
    ("record", "code"),
    [
        (1, -201326592),
        ({}, -201326592),
        ({"Data": 1}, -201326592),
        ({"Data": "?"}, -201326592),
        ({"Data": B64, "ShardId": "1"}, -201326592),
        ({"Data": B64, "ShardId": -1}, -201326594),
        ({"Data": B64, "ClientInfo": 5}, -201326592),
        ({"Data": B64, "PartitionKey": 5}, -201326592),
        ({"Data": base64.b64encode(bytes(1024 * 1024 + 1)).decode()}, -201326592),
    ],
)
def test_a_bad_record_fails_alone(connection: http.client.HTTPConnection, record: Any, code: int) -> None:
    call(connection, "POST", "/users/s1/", {"ShardCount": 2}, X_V3io_Function="CreateStream")
    body = {"Records": [{"Data": B64}, record, {"Data": B64}]}
    status, reply, _ = call(connection, "POST", "/users/s1/", body, X_V3io_Function="PutRecords")
    assert (status, reply["FailedRecordCount"]) == (200, 1)
    assert [result.get("ErrorCode") for result in reply["Records"]] == [None, code, None]


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "code"),
    [
        ("PUT", "/users", {}, 403, wire.NOT_PERMITTED),
        ("DELETE", "/users", {}, 400, wire.IS_A_DIRECTORY),
        ("PUT", "/", {}, 405, wire.NOT_PERMITTED),
        ("PATCH", "/users/x", {}, 405, wire.NOT_PERMITTED),
        ("OPTIONS", "/users/x", {}, 405, wire.NOT_PERMITTED),
        ("GET", "/users/%ff", {}, 400, wire.INVALID_ARGUMENT),
        ("GET", "/users/%00", {}, 400, wire.INVALID_ARGUMENT),
        ("GET", "/users?prefix=none", {}, 404, wire.NO_SUCH_FILE),
        ("GET", "/users?prefix=o/file", {}, 404, wire.NO_SUCH_FILE),
        ("GET", "/users?prefix=%ff", {}, 400, wire.INVALID_ARGUMENT),
        ("GET", "/users?max-keys=x", {}, 400, wire.INVALID_ARGUMENT),
        ("GET", "/users?max-keys=0", {}, 400, wire.INVALID_ARGUMENT),
        ("GET", "/none", {}, 404, wire.NO_SUCH_FILE),
        ("GET", "/users/o/file", {"Range": "bytes=3"}, 416, wire.INVALID_ARGUMENT),
        ("GET", "/users/o/file", {"Range": "bytes=2-1"}, 416, wire.INVALID_ARGUMENT),
        ("GET", "/users/o/file", {"Range": "lines=1-2"}, 400, wire.INVALID_ARGUMENT),
        ("PUT", "/users/o/file", {"Range": "bytes=1-2"}, 400, wire.INVALID_ARGUMENT),
        ("PUT", "/users/o", {}, 400, wire.IS_A_DIRECTORY),
        ("PUT", "/users/o/file/below", {}, 400, wire.NOT_A_DIRECTORY),
        ("DELETE", "/users/o", {}, 409, wire.DIRECTORY_NOT_EMPTY),
        ("GET", "/users/" + "x" * 20_000, {}, 404, wire.NO_SUCH_FILE),
    ],
)
def test_bad_paths(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    headers: dict[str, str],
    status: int,
    code: int,
) -> None:
    assert call(connection, "PUT", "/users/o/file", b"abc")[0] == 200
    answer = call(connection, method, path, **headers)
    assert (answer[0], answer[1]["ErrorCode"]) == (status, code)
    assert call(connection, "GET", "/users/o/file")[1] == b"abc"


def test_ranges(connection: http.client.HTTPConnection) -> None:
    call(connection, "PUT", "//users//o///range", b"0123456789")
    for header, content in (
        ("bytes=4-6", b"456"),
        ("bytes=4", b"456789"),
        ("bytes=8-99", b"89"),
        ("bytes=-3", b"789"),
    ):
        status, got, response = call(connection, "GET", "/users/o/range", Range=header)
        # Digits alone are read as a JSON number by the helper.
        assert (status, str(got).encode()) == (206, content)
        assert (response.headers["Content-Range"] or "").endswith("/10")


def test_the_key_and_the_table_may_stand_in_the_body(connection: http.client.HTTPConnection) -> None:
    body = {"TableName": "in-body", "Key": {"k": {"N": "7"}}, **ITEM}
    assert call(connection, "POST", "/users/", body, X_v3io_function="PutItem")[0] == 200
    where = {"AttributesToGet": "*"}
    _, reply, response = call(connection, "PUT", "/users/in-body/7", where, X_v3io_function="GetItem")
    assert reply == {"Item": {"k": {"N": "7"}, "a": {"N": "1"}}}
    assert response.headers["Last-Modified"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"X-v3io-session-key": "wrong"}, 403),
        ({"X-V3IO-SESSION-KEY": KEY}, 200),
        ({"Authorization": f"AWS {KEY}:signature"}, 200),
        ({"Authorization": f"AWS4-HMAC-SHA256 Credential={KEY}/x/y, Signature=z"}, 200),
        ({"Authorization": "AWS wrong:signature"}, 403),
        ({"Authorization": "Basic eDp5"}, 401),
    ],
)
def test_access_keys(server: V3ioServer, headers: dict[str, str], status: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request("GET", "/users", headers=headers)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    assert response.status == status
    if status != 200:
        assert json.loads(content)["ErrorCode"] == wire.PERMISSION_DENIED


def test_large_bodies_and_appends_are_refused() -> None:
    with V3ioServer(port=0, max_body_bytes=1000) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        for body in (bytes(1001), iter([bytes(600)] * 2)):
            connection.request("PUT", "/users/big", body)
            response = connection.getresponse()
            assert (response.status, json.loads(response.read())["ErrorCode"]) == (413, wire.FILE_TOO_LARGE)
            connection.close()
        for status in (200, 400):
            connection.request("PUT", "/users/big", bytes(600), {"Range": "-1"})
            response = connection.getresponse()
            assert response.status == status
            response.read()
        connection.close()


def test_a_body_that_does_not_come(server: V3ioServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "IO_TIMEOUT", 0.05)
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.sendall(
            f"PUT /users/slow HTTP/1.1\r\nHost: x\r\n{wire.SESSION_HEADER}: {KEY}\r\nContent-Length: 5\r\n\r\n".encode()
        )
        assert client.recv(100).startswith(b"HTTP/1.1 408 ")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "x", "a = 1", "*", "LATEST", B64]),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "N", "S", "B", "Data"]), inner)
    ),
    max_leaves=4,
)
FIELDS = st.sampled_from(
    [
        "Item",
        "Key",
        "TableName",
        "UpdateMode",
        "UpdateExpression",
        "ConditionExpression",
        "AttributesToGet",
        "FilterExpression",
        "Marker",
        "Limit",
        "Segment",
        "TotalSegment",
        "ShardingKey",
        "ShardCount",
        "RetentionPeriodHours",
        "Records",
        "Type",
        "Location",
        "ShardId",
        "StreamName",
    ]
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(sorted(api._FUNCTIONS)),
    path=st.sampled_from(["", "fuzz", "fuzz/", "fuzz/0/", "fuzz/x/y"]),
    body=st.dictionaries(FIELDS, JSON, max_size=5),
)
def test_any_body_is_answered(
    connection: http.client.HTTPConnection, name: str, path: str, body: dict[str, Any]
) -> None:
    status, reply, _ = call(connection, "PUT", f"/users/{path}", body, X_v3io_function=name)
    assert status in (200, 204, 400, 404, 409), reply
    if status >= 300:
        assert set(reply) == {"ErrorCode", "ErrorMessage"}
