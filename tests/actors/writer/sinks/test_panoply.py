"""The Panoply sink: messages within the limits, records that no message holds, and a real queue at the end."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.batch import Batch, Rejected
from actors.block import BlockId
from actors.writer.sinks.base import PartlySent, Payload
from actors.writer.sinks.panoply import PanoplySink
from protocols.panoply import wire
from protocols.panoply.client import PanoplyClient
from protocols.panoply.errors import MessageRefused, TransientError
from tests.sqs import APIKEY, Queue, secret, serve

OVERHEAD = wire.Credentials(APIKEY, secret()).overhead


@pytest.fixture
def queue() -> Iterator[Queue]:
    with serve() as queue:
        yield queue


def batch(columns: dict[str, Any], feed: str = "t", offset: int = 0) -> Batch:
    rows = columns if isinstance(columns, pa.RecordBatch) else pa.RecordBatch.from_pydict(columns)
    count = rows.num_rows
    return Batch(BlockId(feed, 7, offset), count, 1000, rows, np.arange(count, dtype=np.int64), ())


def sink(**settings: Any) -> PanoplySink:
    return PanoplySink("p", apikey=APIKEY, apisecret=secret(), **settings)


def text(payload: Payload) -> bytes:
    """All that a payload's messages hold."""
    return b"".join(message.text for message in payload.body)


def records(body: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in body.split(b"\n") if line]


def test_records() -> None:
    (payload,) = sink().payloads(batch({"a": [1, None], "__table": ["mine", None], "x": [float("nan"), 1.5]}))
    assert records(text(payload)) == [
        {"@time": 1000, "@origin": "p/t/7/0", "a": 1, "___table": "mine", "x": "NaN", "__table": "t"},
        {"@time": 1001, "@origin": "p/t/7/1", "a": None, "___table": None, "x": 1.5, "__table": "t"},
    ]


@given(
    st.lists(
        st.tuples(
            st.text(), st.integers(-(2**63), 2**63 - 1) | st.none(), st.booleans(), st.binary(max_size=9)
        ),
        min_size=1,
        max_size=20,
    )
)
def test_records_are_those_of_the_sdk_byte_for_byte(
    values: list[tuple[str, int | None, bool, bytes]],
) -> None:
    texts, numbers, flags, blobs = zip(*values, strict=True)
    rows = pa.RecordBatch.from_pydict(
        {"s": texts, "ü n": pa.array(numbers, pa.int64()), "yes": flags, "b": blobs}
    )
    (payload,) = sink().payloads(batch(rows))
    expected = [
        wire.encode_record(
            "t",
            {
                "@time": 1000 + row,
                "@origin": f"p/t/7/{row}",
                "s": text,
                "ü n": number,
                "yes": flag,
                "b": base64.b64encode(blob).decode(),
            },
        )
        for row, (text, number, flag, blob) in enumerate(values)
    ]
    assert text(payload) == b"".join(expected)


def test_rejects_come_with_the_rows_among_which_they_were() -> None:
    texts = ["x" * (300_000 if n % 3 == 0 else 50_000) for n in range(12)]
    payloads = list(sink().payloads(batch({"n": list(range(12)), "s": texts})))
    covered: list[int] = []
    for payload in payloads:
        found = [record["n"] for record in records(text(payload))]
        assert len(found) == payload.records
        covered += sorted([*found, *(reject.offset for reject in payload.rejects)])
    assert covered == list(range(12))


def test_messages_are_as_full_as_the_limit_allows() -> None:
    texts = ['x"☃' * (n % 50) for n in range(12_000)]
    payloads = list(sink().payloads(batch({"s": texts})))
    assert len(payloads) > 2
    assert [len(records(text(payload))) for payload in payloads] == [payload.records for payload in payloads]
    sent = [bytes(message.text) for payload in payloads for message in payload.body]
    assert [record["s"] for message in sent for record in records(message)] == texts
    for message, following in pairwise(sent):
        first = following[: following.index(b"\n\n") + 2]
        encoded = wire.encoded_length(message)
        assert encoded <= wire.MAX_ENCODED < encoded + wire.encoded_length(first)
        assert len(message) + OVERHEAD <= wire.MAX_MESSAGE


def test_a_record_of_exactly_the_limit_goes_alone_and_one_byte_more_is_rejected() -> None:
    (small,) = sink().payloads(batch({"s": [""]}))
    room = wire.MAX_MESSAGE - OVERHEAD - len(text(small))
    (payload,) = sink().payloads(batch({"s": ["a", "b" * room, "c" * (room + 1), "d"]}))
    first, second, last = payload.body
    assert [message.records for message in (first, second, last)] == [1, 1, 1]
    assert len(second.text) + OVERHEAD == wire.MAX_MESSAGE
    assert [record["s"] for record in records(bytes(first.text) + last.text)] == ["a", "d"]
    (reject,) = payload.rejects
    assert (reject.offset, reject.frame) == (2, b"")
    room = wire.MAX_MESSAGE - OVERHEAD
    assert reject.reason == f"{room + 1} bytes as JSON, and a message to Panoply holds {room}"


def test_only_rejects_send_nothing() -> None:
    (payload,) = sink(url="http://127.0.0.1:9").payloads(batch({"s": ["x" * 300_000]}))
    assert (payload.records, len(payload.rejects)) == (0, 1)
    sink(url="http://127.0.0.1:9").send(payload)


def test_a_json_column_keeps_its_numbers_and_one_without_a_json_form_is_rejected() -> None:
    field = pa.field("j", pa.large_string(), metadata={b"tablecast.type": b"json"})
    texts = ['{"n": 9223372036854775807}', "1e400", '[1.5, "é"]']
    rows = pa.RecordBatch.from_arrays([pa.array(texts, field.type)], schema=pa.schema([field]))
    (payload,) = sink().payloads(batch(rows))
    assert [record["j"] for record in records(text(payload))] == [{"n": 9223372036854775807}, [1.5, "é"]]
    assert b"9223372036854775807" in text(payload)
    assert [reject.offset for reject in payload.rejects] == [1]
    assert "JSON compliant" in payload.rejects[0].reason


def test_only_the_messages_that_failed_are_sent_again(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    send, failures = PanoplyClient.send, [TransientError("busy"), TransientError("busy")]

    def flaky(self: PanoplyClient, message: memoryview, encoded: memoryview) -> None:
        if failures:
            raise failures.pop()
        send(self, message, encoded)

    monkeypatch.setattr(PanoplyClient, "send", flaky)
    target = sink(url=queue.url)
    payload = next(iter(target.payloads(batch({"n": list(range(6000)), "s": ["+& =%☃"] * 6000}))))
    assert len(payload.body) == 4
    with pytest.raises(PartlySent) as caught:
        target.send(payload)
    assert len(caught.value.rest.body) == 2
    target.send(caught.value.rest)
    assert sorted(record["n"] for record in queue.records()) == list(range(payload.records))
    failures[:] = [TransientError("busy")] * 4
    with pytest.raises(TransientError):
        target.send(payload)
    failures[:] = [MessageRefused("no")] * 4  # type: ignore[list-item]
    with pytest.raises(MessageRefused):
        target.send(payload)
    target.close()


def test_a_message_that_is_refused_for_good_has_nothing_doubled(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = PanoplyClient.send

    def strict(self: PanoplyClient, message: memoryview, encoded: memoryview) -> None:
        if b'"n": 7,' in bytes(message):
            raise MessageRefused("no")
        send(self, message, encoded)

    monkeypatch.setattr(PanoplyClient, "send", strict)
    target = sink(url=queue.url)
    payload = next(iter(target.payloads(batch({"n": list(range(6000)), "s": ["+& =%☃"] * 6000}))))
    rejects: list[Rejected] = []
    rest = payload
    while rest.records:
        with pytest.raises(PartlySent) as caught:
            target.send(rest)
        rest = caught.value.rest
        rejects += caught.value.rejects
    target.close()
    assert [(reject.offset, reject.reason) for reject in rejects] == [(7, "no")]
    assert sorted(record["n"] for record in queue.records()) == [n for n in range(payload.records) if n != 7]


def test_a_queue_gets_all_of_several_messages(queue: Queue) -> None:
    target = sink(url=queue.url)
    sent = batch({"n": list(range(9000)), "s": ["+& =%☃"] * 9000}, feed="t.changes")
    payloads = list(target.payloads(sent))
    assert sum(len(payload.body) for payload in payloads) > 1
    for payload in payloads:
        target.send(payload)
    stored = queue.records()
    assert sorted(record["n"] for record in stored) == list(range(9000))
    assert {(record["s"], record["__table"]) for record in stored} == {("+& =%☃", "t.changes")}
    target.close()
