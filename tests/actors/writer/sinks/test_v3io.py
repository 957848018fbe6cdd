"""The V3IO sinks on the embedded server, read back with the official client."""

from __future__ import annotations

import base64
import io
import json
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import v3io.dataplane

from actors.backoff import Backoff
from actors.batch import Batch
from actors.block import BlockId
from actors.writer.encode import encode_events
from actors.writer.sender import Sender
from actors.writer.sinks.base import PartlySent, Payload, Sink
from actors.writer.sinks.v3io import v3io_sink
from actors.writer.sinks.v3io_items import attribute_names
from protocols.v3io import errors, wire
from protocols.v3io.client import PutResult, V3ioClient
from protocols.v3io.server import V3ioServer

KEY = "access-key"


class Quiet:
    """What the official client logs to."""

    def __getattr__(self, name: str) -> object:
        return lambda *args, **kwargs: None


@pytest.fixture(scope="module")
def server() -> Iterator[V3ioServer]:
    with V3ioServer(port=0, access_key=KEY) as running:
        yield running


@pytest.fixture
def official(server: V3ioServer) -> Iterator[v3io.dataplane.Client]:
    client = v3io.dataplane.Client(logger=Quiet(), endpoint=server.url, access_key=KEY)
    yield client
    client.close()


@pytest.fixture
def base() -> str:
    return f"s-{uuid.uuid4().hex}"


def batch(columns: dict[str, Any] | pa.RecordBatch, feed: str = "t", offset: int = 0) -> Batch:
    rows = columns if isinstance(columns, pa.RecordBatch) else pa.RecordBatch.from_pydict(columns)
    count = rows.num_rows
    return Batch(BlockId(feed, 7, offset), count, 1000, rows, np.arange(count, dtype=np.int64), ())


def make(server: V3ioServer, **form: Any) -> Sink:
    return v3io_sink("p", server.url, "users", KEY, connections=4, timeout=20.0, **form)


def send(sink: Sink, sent: Batch) -> list[Payload]:
    """What a writer does, without back-off."""
    payloads = list(sink.payloads(sent))
    for payload in payloads:
        sink.send(payload)
    sink.close()
    return payloads


def shards(client: v3io.dataplane.Client, path: str, count: int) -> list[list[Any]]:
    """The records of each shard."""
    found = []
    for number in range(count):
        location = client.stream.seek("users", path, number, "EARLIEST").output.location
        records: list[Any] = []
        while page := client.stream.get_records("users", path, number, location).output:
            if not page.records:
                break
            records += page.records
            location = page.next_location
        found.append(records)
    return found


# -- streams ----------------------------------------------------------------------------------------------------------


def test_a_stream_holds_the_events_spread_by_offset_and_in_order(
    server: V3ioServer, official: v3io.dataplane.Client, base: str
) -> None:
    sent = batch({"n": list(range(9000)), "s": ["+é☃\n"] * 9000, "x": [float("nan")] * 9000}, offset=3)
    payloads = send(make(server, stream={"path": base, "shards": 3, "retention_hours": 7}), sent)
    assert [payload.records for payload in payloads] == [4000, 4000, 1000]
    info = official.stream.describe("users", f"{base}/t").output
    assert (info.shard_count, info.retention_period_hours) == (3, 7)
    read = shards(official, f"{base}/t", 3)
    for number, records in enumerate(read):
        events = [json.loads(record.data) for record in records]
        assert [event["n"] + 3 for event in events] == [n for n in range(3, 9003) if n % 3 == number]
        assert {event["x"] for event in events} == {"NaN"}
        assert {event["s"] for event in events} == {"+é☃\n"}
        assert events[0]["@origin"] == f"p/t/7/{events[0]['n'] + 3}"
        assert events[0]["@time"] == 1000 + events[0]["n"]


def test_rows_of_one_key_stay_in_one_shard_and_in_order(
    server: V3ioServer, official: v3io.dataplane.Client, base: str
) -> None:
    keys = [None if n % 10 == 0 else f'k"{n % 7}' for n in range(5000)]
    send(
        make(server, stream={"path": base, "shards": 4, "key": "k"}),
        batch({"n": list(range(5000)), "k": keys}),
    )
    places: dict[str, set[int]] = {}
    total = 0
    for number, records in enumerate(shards(official, f"{base}/t", 4)):
        last: dict[str, int] = {}
        for record in records:
            event = json.loads(record.data)
            total += 1
            assert record.partition_key == event["k"]
            if event["k"] is None:
                assert event["n"] % 4 == number
                continue
            places.setdefault(event["k"], set()).add(number)
            assert last.get(event["k"], -1) < event["n"]
            last[event["k"]] = event["n"]
    assert total == 5000
    assert len(places) == 7
    assert all(len(numbers) == 1 for numbers in places.values())


def test_explicit_shards_and_records_that_no_stream_takes(
    server: V3ioServer, official: v3io.dataplane.Client, base: str
) -> None:
    big = "x" * (wire.MAX_RECORD_BYTES + 1)
    sent = batch({"n": list(range(6)), "where": [1, 0, 5, None, 1, -1], "s": ["", "", "", big, "", ""]})
    (payload,) = send(make(server, stream={"path": base, "shards": 2, "shard": "where"}), sent)
    assert [(r.offset, r.reason[:12]) for r in payload.rejects] == [
        (2, "where is 5, "),
        (3, "1,048,637 by"),
        (5, "where is -1,"),
    ]
    assert payload.records == 3
    read = [[json.loads(record.data)["n"] for record in part] for part in shards(official, f"{base}/t", 2)]
    assert read == [[1], [0, 4]]
    long = batch({"k": ["é" * 129, "a"]})
    (payload,) = send(make(server, stream={"path": base, "shards": 2, "key": "k"}), long)
    assert [r.offset for r in payload.rejects] == [0]


def test_records_that_are_refused_are_sent_again_and_those_refused_for_good_are_rejects(
    server: V3ioServer, official: v3io.dataplane.Client, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = V3ioClient.put_encoded_records
    attempts: list[int] = []

    def flaky(self: V3ioClient, container: str, path: str, body: bytes, count: int) -> list[PutResult]:
        """Like a server that refuses the first of the records for the moment and the second for good."""
        attempts.append(count)
        if len(attempts) > 1:
            return put(self, container, path, body, count)
        records = json.loads(body)["Records"]
        rest = json.dumps({"Records": records[2:]}).encode()
        first = PutResult(None, None, -100, "ProvisionedThroughputExceeded")
        second = PutResult(None, None, wire.INVALID_ARGUMENT, "InvalidArgumentException")
        return [first, second, *put(self, container, path, rest, count - 2)]

    monkeypatch.setattr(V3ioClient, "put_encoded_records", flaky)
    sink = make(server, stream={"path": base, "shards": 1})
    (payload,) = sink.payloads(batch({"n": list(range(1000))}))
    with pytest.raises(PartlySent, match="ProvisionedThroughputExceeded") as caught:
        sink.send(payload)
    assert caught.value.retryable
    assert [(r.offset, "refuses the record" in r.reason) for r in caught.value.rejects] == [(1, True)]
    assert caught.value.rest.records == 1
    sink.send(caught.value.rest)
    assert attempts == [1000, 1]
    (records,) = shards(official, f"{base}/t", 1)
    assert [json.loads(record.data)["n"] for record in records] == [*range(2, 1000), 0]
    sink.close()


def test_a_request_that_is_refused_for_good_has_nothing_doubled(
    server: V3ioServer, official: v3io.dataplane.Client, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, bad = V3ioClient.put_encoded_records, {7}

    def strict(self: V3ioClient, container: str, path: str, body: bytes, count: int) -> list[PutResult]:
        """Like a proxy that refuses a request for one of its records."""
        records = json.loads(body)["Records"]
        if bad.intersection(json.loads(base64.b64decode(record["Data"]))["n"] for record in records):
            raise errors.RequestRefused("too large", status=413)
        return put(self, container, path, body, count)

    monkeypatch.setattr(V3ioClient, "put_encoded_records", strict)
    sink = make(server, stream={"path": base, "shards": 4})
    (payload,) = sink.payloads(batch({"n": list(range(2000))}))
    with pytest.raises(PartlySent, match="too large") as caught:
        sink.send(payload)
    rest = caught.value.rest
    assert (rest.records, caught.value.rejects) == (1000, ())
    with pytest.raises(PartlySent) as caught:
        sink.send(rest)
    assert caught.value.rest.records == 0
    assert [(reject.offset, reject.reason) for reject in caught.value.rejects] == [(7, "too large")]
    read = [[json.loads(record.data)["n"] for record in part] for part in shards(official, f"{base}/t", 4)]
    assert read == [[n for n in range(shard, 2000, 4) if n != 7] for shard in range(4)]
    bad.update(range(2000))
    with pytest.raises(errors.RequestRefused):  # nothing was taken: halves of it will double nothing
        sink.send(payload)
    sink.close()


def test_what_got_no_answer_is_sent_again_and_a_stream_with_too_few_shards_is_an_error(
    server: V3ioServer, official: v3io.dataplane.Client, base: str
) -> None:
    sink = make(server, stream={"path": base, "shards": 2})
    (payload,) = sink.payloads(batch({"n": list(range(1000))}))
    sink.send(payload)
    official.stream.delete("users", f"{base}/t")
    with pytest.raises(PartlySent) as caught:  # the stream is gone
        sink.send(payload)
    assert caught.value.rest.records == 1000
    sink.send(caught.value.rest)
    assert sum(map(len, shards(official, f"{base}/t", 2))) == 1000
    sink.close()
    more = make(server, stream={"path": base, "shards": 3})
    with pytest.raises(
        errors.RequestRefused, match="has 2 shards and not 3; enlarge it, or lower shards"
    ) as error:
        more.send(payload)
    assert error.value.refuses_all
    more.close()
    away = v3io_sink("p", "http://127.0.0.1:9", "users", timeout=1.0, stream={"path": base})
    with pytest.raises(errors.ConnectionFailed):
        away.send(payload)
    away.close()


# -- items ------------------------------------------------------------------------------------------------------------


def test_items_have_the_values_and_types_of_the_row(
    server: V3ioServer, official: v3io.dataplane.Client, base: str
) -> None:
    moment = datetime(1960, 1, 1, 0, 0, 0, 500_000, UTC)
    rows = pa.RecordBatch.from_arrays(
        [
            pa.array([1, 2], pa.int64()),
            pa.array(['a"b☃\n', None]),
            pa.array([0.1, float("inf")]),
            pa.array([True, None]),
            pa.array([moment, None], pa.timestamp("ms", "UTC")),
            pa.array([2**64 - 1, 0], pa.uint64()),
            pa.array([Decimal("12.340"), None], pa.decimal128(9, 3)),
            pa.array([b"\x00\xff", b""], pa.large_binary()),
            pa.array([[1, -2], []], pa.list_(pa.int64())),
            pa.array([[0.5, 1.5], [2.5, 3.5]], pa.list_(pa.float32(), 2)),
            pa.array([[1, None], None], pa.list_(pa.int32())),
            pa.array([["x", "y"], None], pa.list_(pa.string())),
            pa.array(['{"a": [1]}', None], pa.large_string()),
            pa.array([datetime(2026, 1, 2).date(), None], pa.date32()),
        ],
        schema=pa.schema(
            [
                *[pa.field(name, kind) for name, kind in (("id", pa.int64()), ("s", pa.string()))],
                *[pa.field(name, kind) for name, kind in (("x", pa.float64()), ("yes", pa.bool_()))],
                pa.field("at", pa.timestamp("ms", "UTC")),
                pa.field("u", pa.uint64()),
                pa.field("d", pa.decimal128(9, 3)),
                pa.field("b", pa.large_binary()),
                pa.field("ints", pa.list_(pa.int64())),
                pa.field("v", pa.list_(pa.float32(), 2)),
                pa.field("holes", pa.list_(pa.int32())),
                pa.field("texts", pa.list_(pa.string())),
                pa.field("j", pa.large_string(), metadata={b"tablecast.type": b"json"}),
                pa.field("day", pa.date32()),
            ]
        ),
    )
    send(make(server, kv={"path": base, "key": ["id"]}), batch(rows))
    first = official.kv.get("users", f"{base}/t", "1").output.item
    assert first == {
        "_origin": "p/t/7/0",
        "_time": 1000,
        "id": 1,
        "s": 'a"b☃\n',
        "x": 0.1,
        "yes": True,
        "at": moment,
        "u": 2**64 - 1,
        "d": "12.340",
        "b": b"\x00\xff",
        "ints": [1, -2],
        "v": [0.5, 1.5],
        "holes": "[1,null]",
        "texts": '["x","y"]',
        "j": '{"a": [1]}',
        "day": "2026-01-02",
    }
    second = official.kv.get("users", f"{base}/t", "2").output.item
    assert second == {
        "_origin": "p/t/7/1",
        "_time": 1001,
        "id": 2,
        "x": float("inf"),
        "u": 0,
        "b": b"",
        "ints": [],
        "v": [2.5, 3.5],
    }


def test_the_latest_row_of_a_key_wins_and_update_keeps_what_others_wrote(
    server: V3ioServer, official: v3io.dataplane.Client, base: str
) -> None:
    columns = {"a": ["x", "y"] * 1000, "b": [n // 4 for n in range(2000)], "n": list(range(2000))}
    payloads = send(make(server, kv={"path": base, "key": ["a", "b"]}), batch(columns))
    assert sum(payload.records for payload in payloads) == 2000
    items = official.kv.new_cursor("users", f"{base}/t").all()
    assert sorted(item["n"] for item in items) == [n for n in range(2000) if n % 4 >= 2]
    official.kv.update("users", f"{base}/t", "x.0", attributes={"mine": 1})
    again = {"a": ["x"], "b": [0], "n": pa.array([None], pa.int64())}
    send(make(server, kv={"path": base, "key": ["a", "b"], "mode": "update"}), batch(again, offset=5000))
    item = official.kv.get("users", f"{base}/t", "x.0").output.item
    assert item == {"_origin": "p/t/7/5000", "_time": 1000, "a": "x", "b": 0, "mine": 1}
    send(make(server, kv={"path": base, "key": ["id"]}), batch({"count": [4]}, feed="t.deletes", offset=9))
    assert official.kv.get("users", f"{base}/t.deletes", "7.9").output.item["count"] == 4


def test_items_that_no_table_takes_are_rejects(server: V3ioServer, base: str) -> None:
    long = "☃" * (wire.MAX_STRING_BYTES // 3)
    sent = batch({"k": ["a", None, "b/c", "", "..", "d", "e"], "s": [""] * 5 + [long, long[1:]]})
    (payload,) = send(make(server, kv={"path": base, "key": ["k"]}), sent)
    assert payload.records == 2
    assert [reject.offset for reject in payload.rejects] == [1, 2, 3, 4, 5]
    assert payload.rejects[0].reason.startswith("its key is null; a key is")
    assert payload.rejects[4].reason == "column s has 61,200 bytes, and such an attribute holds 61,199"
    (payload,) = make(server, kv={"path": base, "key": ["gone"]}).payloads(sent)
    assert (payload.records, len(payload.rejects)) == (0, 7)
    assert payload.rejects[0].reason == "there is no column gone to make the key of"


def test_only_the_items_that_failed_are_sent_again(base: str) -> None:
    """With a server that dies in the middle, and one that refuses a single item."""
    with V3ioServer(port=0) as running:
        sink = v3io_sink(
            "p", running.url, "users", connections=2, timeout=5.0, kv={"path": base, "key": ["k"]}
        )
        (payload,) = sink.payloads(batch({"k": ["a", "\u0001", "c"]}))
        with pytest.raises(PartlySent) as caught:
            sink.send(payload)
        assert [reject.offset for reject in caught.value.rejects] == [1]
        assert "control characters" in caught.value.rejects[0].reason
        assert caught.value.rest.records == 0
        sink.send(caught.value.rest)
    with pytest.raises(PartlySent) as caught:
        sink.send(payload)
    assert (caught.value.rest.records, caught.value.rejects) == (3, ())
    sink.close()
    with V3ioServer(port=0, access_key="other") as running:
        sink = v3io_sink("p", running.url, "users", timeout=5.0, kv={"path": base, "key": ["k"]})
        with pytest.raises(errors.AuthenticationFailed):
            sink.send(payload)
        sink.close()


def test_if_the_latest_row_of_a_key_is_refused_the_one_before_it_is_put(
    server: V3ioServer, official: v3io.dataplane.Client, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = V3ioClient._put_encoded
    burst = V3ioClient.put_encoded_items

    def one_by_one(
        self: V3ioClient, container: str, items: list[tuple[str, bytes]]
    ) -> list[errors.V3ioError | None]:
        return [
            errors.RequestRefused("no") if b'"N":"3"' in body else put(self, container, path, body)
            for path, body in items
        ]

    monkeypatch.setattr(V3ioClient, "put_encoded_items", one_by_one)
    sink = make(server, kv={"path": base, "key": ["k"]})
    (payload,) = sink.payloads(batch({"k": ["a", "a", "a", "b"], "n": [1, 2, 3, 4]}))
    with pytest.raises(PartlySent) as caught:
        sink.send(payload)
    assert [reject.offset for reject in caught.value.rejects] == [2]
    monkeypatch.setattr(V3ioClient, "put_encoded_items", burst)
    sink.send(caught.value.rest)
    sink.close()
    assert [official.kv.get("users", f"{base}/t", key).output.item["n"] for key in "ab"] == [2, 4]


def test_attribute_names() -> None:
    columns = ["id", "a b", "a.b", "@x", "__name", "9", "_origin", "é", ""]
    assert attribute_names(columns) == ["id", "a_b", "a_b_", "_x", "c__name", "c9", "_origin_", "_", "c"]


# -- objects ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["ndjson", "arrow", "parquet"])
def test_objects_overwrite_themselves(
    server: V3ioServer, official: v3io.dataplane.Client, base: str, format: str
) -> None:
    sent = batch({"n": list(range(100)), "s": ["é\n"] * 100}, offset=40)
    for _ in range(2):
        send(make(server, objects={"path": base, "format": format}), sent)
    listed = official.container.list("users", f"{base}/t").output.contents
    name = f"{base}/t/0000000000007-000000000040-100.{format}"
    assert [entry.key for entry in listed] == [name]
    data = official.object.get("users", name).body
    if format == "ndjson":
        events = [json.loads(line) for line in data.decode().split("\n")[:-1]]
        assert [event["n"] for event in events] == list(range(100))
        assert events[7]["@origin"] == "p/t/7/47"
    else:
        table = pq.read_table(io.BytesIO(data)) if format == "parquet" else pa.ipc.open_file(data).read_all()
        assert table["n"].to_pylist() == list(range(100))
        assert table["__offset"].to_pylist() == list(range(40, 140))
        assert table["s"].type == sent.rows["s"].type


def test_halves_of_a_block_are_objects_of_their_own(
    server: V3ioServer, official: v3io.dataplane.Client, base: str
) -> None:
    whole = batch({"n": list(range(100))}, offset=40)
    for start in (0, 50):
        positions = np.arange(start, start + 50, dtype=np.int64)
        half = replace(whole, count=50, rows=whole.rows.slice(start, 50), positions=positions)
        send(make(server, objects={"path": base}), half)
    listed = official.container.list("users", f"{base}/t").output.contents
    assert sorted(entry.key.rpartition("-0")[2] for entry in listed) == [
        "00000000040-50.ndjson",
        "00000000090-50.ndjson",
    ]


def test_nothing_is_sent_of_a_batch_without_rows(server: V3ioServer, base: str) -> None:
    empty = batch(pa.RecordBatch.from_pydict({"n": pa.array([], pa.int64())}))
    for form in (
        {"stream": {"path": base}},
        {"kv": {"path": base, "key": ["n"]}},
        {"objects": {"path": base}},
    ):
        assert list(make(server, **form).payloads(empty)) == []


@pytest.mark.parametrize("form", ["stream", "kv", "objects"])
def test_a_send_has_a_deadline(server: V3ioServer, base: str, form: str) -> None:
    settings = {"path": base, **({"key": ["n"]} if form == "kv" else {})}
    sink = make(server, **{form: settings})
    sender = Sender(sink, Backoff(0.1, 1.0))
    assert sender._deadline is not None
    assert sender._deadline >= 2 * 20.0
    sink.close()


def test_data_of_a_record_is_the_event_as_every_json_sink_has_it(
    server: V3ioServer, official: v3io.dataplane.Client, base: str
) -> None:
    sent = batch({"n": [1, 2], "s": ["a", None]})
    send(make(server, stream={"path": base, "shards": 1}), sent)
    events = encode_events(sent.rows, time=sent.times, origin_prefix="p/t/7/", offsets=sent.offsets)
    (records,) = shards(official, f"{base}/t", 1)
    assert [record.data for record in records] == events.lines(0, 2).splitlines()
