"""The captured vectors of the official client: what it sent, byte for byte, and what it must get."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator

import gpudb
import pytest
import requests
import zmq

from protocols.kinetica import wire
from protocols.kinetica.server import TableServer

DEFINITION = (
    '{"type": "record", "name": "type_name", "fields": [{"type": "int", "name": "id"}, '
    '{"type": ["long", "null"], "name": "n"}, {"type": "double", "name": "x"}, '
    '{"type": ["float", "null"], "name": "f"}, {"type": ["string", "null"], "name": "s"}, '
    '{"type": "long", "name": "ts"}, {"type": ["string", "null"], "name": "d"}, '
    '{"type": ["bytes", "null"], "name": "b"}]}'
)
PROPERTIES = {
    "id": ["primary_key"],
    "n": ["nullable"],
    "f": ["nullable"],
    "s": ["char16", "nullable"],
    "ts": ["timestamp"],
    "d": ["date", "nullable"],
    "b": ["nullable"],
}
FRAMES = [
    "0200d704000000000000f83f00cdcccc3d000ac3a9e2988380a0abfef9620014323032342d30322d3239000400ff",
    "feffffff0f02000000000000f87f0202010202",
    "0100feffffffffffffffff01000000000000f0ff000000008000000000000000",
]
TABLE = "166b695f686f6d652e766563"


def post(server: TableServer, path: str, body: str, status: int = 200) -> str:
    headers = {"Content-type": wire.BINARY, "Accept": wire.BINARY}
    reply = requests.post(server.url + path, data=bytes.fromhex(body), headers=headers, timeout=10)
    assert reply.status_code == status, reply.content
    assert float(reply.headers[wire.TIME_HEADER]) >= 0
    return reply.content.hex()


def call(server: TableServer, path: str, **request: object) -> dict[str, object]:
    endpoint = wire.ENDPOINTS[path]
    reply = post(server, path, wire.encode(endpoint.request, request).hex())
    data = wire.decode_reply(endpoint, bytes.fromhex(reply)).data
    assert data is not None
    return data


@pytest.fixture
def empty(server: TableServer) -> Iterator[str]:
    """The table of the vectors, without rows."""
    created = call(
        server, "/create/type", type_definition=DEFINITION, label="", properties=PROPERTIES, options={}
    )
    assert created["type_definition"] == DEFINITION
    assert created["properties"] == PROPERTIES
    call(server, "/create/table", table_name="ki_home.vec", type_id=created["type_id"], options={})
    yield "ki_home.vec"
    call(server, "/clear/table", table_name="ki_home.vec", authorization="", options={})


INSERT = f"{TABLE}065c{FRAMES[0]}26{FRAMES[1]}40{FRAMES[2]}00000c62696e61727900"


@pytest.fixture
def filled(server: TableServer, empty: str) -> str:
    post(server, "/insert/records", INSERT)
    return empty


def test_v1_and_v2_events(server: TableServer, empty: str) -> None:
    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        socket.set(zmq.RCVTIMEO, 10_000)
        socket.set(zmq.LINGER, 0)
        topics = {"insert": "T1", "delete": "T2", "update": "T3"}
        for event, topic in topics.items():
            call(
                server,
                "/create/tablemonitor",
                table_name=empty,
                options={"event": event, "monitor_id": topic},
            )
        socket.connect(f"tcp://127.0.0.1:{server.monitor_port}")
        for topic in topics.values():
            socket.subscribe(topic)
        # Subscriptions take effect in order, a moment after the calls: once the last one does, all do.
        probe = bytes.fromhex("0e0200000000000000000202000202")
        message = [b""]
        while message[0] != b"T3":
            upsert = {"update_on_existing_pk": "true"}
            rows = {"list": [probe], "list_str": [], "list_encoding": "binary"}
            call(server, "/insert/records", table_name=empty, **rows, options=upsert)
            while socket.poll(20):
                message = socket.recv_multipart()
        call(server, "/delete/records", table_name=empty, expressions=["id = 7"], options={})
        while message[0] != b"T2":
            message = socket.recv_multipart()
        assert message == [b"T2", b"\x02"]
        post(server, "/insert/records", INSERT)
        assert [frame.hex() for frame in socket.recv_multipart()] == ["5431", *FRAMES]
        post(server, "/update/records", UPDATE)
        assert [frame.hex() for frame in socket.recv_multipart()] == ["5433", "02"]
        call(server, "/delete/records", table_name=empty, expressions=["id > 0"], options={})
        assert [frame.hex() for frame in socket.recv_multipart()] == ["5432", "04"]


def test_v3_insert(server: TableServer, empty: str) -> None:
    reply = post(server, "/insert/records", INSERT)
    assert reply == "044f4b002e696e736572745f7265636f7264735f726573706f6e7365080006000000"
    stored = call(
        server, "/get/records", table_name=empty, offset=0, limit=-9999, encoding="binary", options={}
    )
    assert [frame.hex() for frame in stored["records_binary"]] == FRAMES


def test_v4_create_monitor(server: TableServer, empty: str) -> None:
    request = f"{TABLE}040a6576656e740c64656c657465146d6f6e69746f725f696404543200"
    assert post(server, "/create/tablemonitor", request) == (
        "044f4b003a6372656174655f7461626c655f6d6f6e69746f725f726573706f6e7365ae0304"
        "5432166b695f686f6d652e7665639c017b2274797065223a227265636f7264222c226e616d65223a22747970655f6e616d65"
        "222c226669656c6473223a5b7b226e616d65223a22636f756e74222c2274797065223a226c6f6e67227d5d7d041e64656c65"
        "74655f746f7069635f69640454322464656c6574655f747970655f736368656d619c017b2274797065223a227265636f7264"
        "222c226e616d65223a22747970655f6e616d65222c226669656c6473223a5b7b226e616d65223a22636f756e74222c227479"
        "7065223a226c6f6e67227d5d7d0000"
    )


def test_v5_has_table_and_error_envelope(server: TableServer, empty: str) -> None:
    assert post(server, "/has/table", f"{TABLE}00") == (
        "044f4b00246861735f7461626c655f726573706f6e73651c166b695f686f6d652e766563010000"
    )
    assert post(server, "/show/table", "086e6f706500", status=400) == (
        "0a4552524f522c5461626c6520226e6f706522206e6f7420666f756e64086e6f6e650000"
    )


def test_v6_get_by_column(server: TableServer, filled: str) -> None:
    reply = call(
        server,
        "/get/records/bycolumn",
        table_name=filled,
        column_names=["id", "s"],
        offset=0,
        limit=2,
        encoding="binary",
        options={},
    )
    assert reply["binary_encoded_response"].hex() == (
        "0402feffffff0f0004000ac3a9e298830200040469640273000406696e740c63686172313600"
    )
    assert reply["total_number_of_records"] == 3
    assert reply["has_more_records"] is True


UPDATE = (
    f"{TABLE}040c6964203d20310c6964203d20320004020273020004027300027102780006322e35000000000c62696e61727900"
)


def test_v7_update(server: TableServer, filled: str) -> None:
    reply = post(server, "/update/records", UPDATE)
    # count_updated 1, counts_updated [1, 0], count_inserted 0, counts_inserted [0, 0], info {}
    assert reply.endswith("16" + "0204020000000400000000" + "00")
    rows = call(
        server,
        "/get/records",
        table_name=filled,
        offset=0,
        limit=1,
        encoding="json",
        options={"expression": "id = 1"},
    )
    assert json.loads(rows["records_json"][0])["s"] is None


def test_v8_startup_bodies(server: TableServer, empty: str) -> None:
    endpoint = wire.ENDPOINTS["/show/system/properties"]
    reply = wire.decode_reply(endpoint, bytes.fromhex(post(server, endpoint.path, "00")))
    assert reply.data is not None
    assert reply.data["property_map"]["conf.set_monitor_port"] == str(server.monitor_port)
    assert len(reply.data["property_map"]["version.gpudb_core_version"].split(".")) >= 4
    endpoint = wire.ENDPOINTS["/show/system/status"]
    status = wire.decode_reply(endpoint, bytes.fromhex(post(server, endpoint.path, "00"))).data
    assert json.loads(status["status_map"]["system"])["status"] == "running"
    headers = {"Content-type": wire.JSON, "Accept": wire.JSON}
    reply = requests.post(
        server.url + "/has/table",
        data='{"table_name": "ki_home.vec", "options": {}}',
        headers=headers,
        timeout=10,
    )
    outer = reply.json()
    assert {**outer, "data_str": ""} == {
        "status": "OK",
        "message": "",
        "data_type": "has_table_response",
        "data": "",
        "data_str": "",
    }
    assert json.loads(outer["data_str"]) == {"table_name": "ki_home.vec", "table_exists": True, "info": {}}


V9_COLUMNS = [
    ["id", "int"],
    *(
        [name, base, *properties, "nullable"]
        for name, base, *properties in [
            ["i8", "int", "int8"],
            ["i16", "int", "int16"],
            ["bool", "int", "boolean"],
            ["l", "long"],
            ["ts", "long", "timestamp"],
            ["f", "float"],
            ["dbl", "double"],
            ["s", "string"],
            ["c1", "string", "char1"],
            ["c4", "string", "char4"],
            ["c8", "string", "char8"],
            ["c16", "string", "char16"],
            ["d", "string", "date"],
            ["t", "string", "time"],
            ["dt", "string", "datetime"],
            ["dec", "string", "decimal"],
            ["dec2", "string", "decimal(10,3)"],
            ["ul", "string", "ulong"],
            ["u", "string", "uuid"],
            ["ip", "string", "ipv4"],
            ["j", "string", "json"],
            ["ai", "string", "array(int)"],
            ["ab", "string", "array(boolean)"],
            ["w", "string", "wkt"],
            ["b", "bytes"],
            ["v", "bytes", "vector(3)"],
        ]
    ),
]
V9_VALUES = [
    1,
    -128,
    32767,
    1,
    -9223372036854775808,
    1700000000123,
    1.1,
    2.2,
    "héllo ☃ 𝄞",
    "x",
    "éé",
    "12345678",
    "0123456789abcdef",
    "2024-02-29",
    "23:59:59.999",
    "2024-02-29 12:34:56.789",
    "123456789012345.6789",
    "1.500",
    "18446744073709551615",
    "123e4567-e89b-12d3-a456-426614174000",
    "192.168.1.1",
    '{"a":[1,null]}',
    "[1,2,3]",
    "[true,false]",
    "POINT(1 2)",
    b"\x00\xff\x80",
    bytes.fromhex("0000803f000020c000005040"),
]
V9_FRAMES = [
    "0200ff0100feff03000200ffffffffffffffffff0100f6a1abfef96200cdcc8c3f009a99999999990140001e68c3a96c6c6f20"
    "e2988320f09d849e0002780008c3a9c3a9001031323334353637380020303132333435363738396162636465660014323032342d"
    "30322d3239001832333a35393a35392e393939002e323032342d30322d32392031323a33343a35362e3738390028313233343536"
    "3738393031323334352e36373839000a312e35303000283138343436373434303733373039353531363135004831323365343536"
    "372d653839622d313264332d613435362d34323636313431373430303000163139322e3136382e312e31001c7b2261223a5b312c"
    "6e756c6c5d7d000e5b312c322c335d00185b747275652c66616c73655d0014504f494e542831203229000600ff8000180000803f"
    "000020c000005040",
    "04" + "02" * 26,
]


def test_v9_every_column_type(server: TableServer, db: gpudb.GPUdb) -> None:
    table = gpudb.GPUdbTable(V9_COLUMNS, "ki_home.v9", db=db)
    table.insert_records([V9_VALUES, [2] + [None] * 26])
    stored = call(
        server, "/get/records", table_name="ki_home.v9", offset=0, limit=-9999, encoding="binary", options={}
    )
    assert [frame.hex() for frame in stored["records_binary"]] == V9_FRAMES
    first, second = (list(row.values()) for row in table.get_records())
    assert math.isclose(first.pop(6), 1.1, rel_tol=1e-6)
    assert first == V9_VALUES[:6] + V9_VALUES[7:]
    assert second == [2] + [None] * 26
    types = table.get_records_by_column([name for name, *_ in V9_COLUMNS], print_data=False)
    assert list(types) == [name for name, *_ in V9_COLUMNS]
    again = gpudb.GPUdbTable(None, "ki_home.v9", db=db)
    assert again.gpudbrecord_type == table.gpudbrecord_type
    table.clear()
