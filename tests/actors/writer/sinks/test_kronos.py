"""The Kronos sink: requests within exact limits, times from a column, and what a server would refuse."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.batch import EVENT_FIELD, Batch
from actors.block import BlockId
from actors.writer.sinks.kronos import KronosSink
from protocols.kronos import wire


def batch(columns: dict[str, Any], feed: str = "t", offset: int = 0) -> Batch:
    rows = columns if isinstance(columns, pa.RecordBatch) else pa.RecordBatch.from_pydict(columns)
    count = rows.num_rows
    return Batch(BlockId(feed, 7, offset), count, 1000, rows, np.arange(count, dtype=np.int64), ())


def sink(**settings: Any) -> KronosSink:
    return KronosSink("p", "http://127.0.0.1:1", **settings)


def events(body: bytes, stream: str = "t") -> list[dict[str, Any]]:
    request = json.loads(body)
    assert list(request["events"]) == [stream]
    found: list[dict[str, Any]] = request["events"][stream]
    return found


@given(
    sizes=st.lists(st.integers(0, 120), min_size=1, max_size=60),
    limit=st.integers(90, 400),
    most=st.integers(1, 9),
)
@settings(max_examples=100, deadline=None)
def test_requests_are_as_full_as_both_limits_allow_and_no_fuller(
    sizes: list[int], limit: int, most: int
) -> None:
    given = batch({"s": ["x" * size for size in sizes]}, offset=100)
    cut = [given.rows.slice(start, 7) for start in range(0, len(sizes), 7)]
    blocks = [batch(rows, offset=100 + 7 * n) for n, rows in enumerate(cut)]
    payloads = list(sink(batch=most, max_bytes=limit).rolled(blocks))
    whole = [json.dumps(e, separators=(",", ":")) for e in events(next(sink().payloads(given)).body)]
    empty = len(b'{"events":{"t":[]}}')
    fits = [empty + len(text) <= limit for text in whole]
    row = 0
    for payload in payloads:
        stop = row + payload.records + len(payload.rejects)
        bad = [n for n in range(row, stop) if not fits[n]]
        assert [reject.offset for reject in payload.rejects] == [100 + n for n in bad]
        assert all(f"a request holds {limit - empty:,}" in reject.reason for reject in payload.rejects)
        good = [n for n in range(row, stop) if fits[n]]
        assert [event["s"] for event in events(payload.body)] == ["x" * sizes[n] for n in good]
        assert payload.records <= most
        assert len(payload.body) <= limit
        if stop < len(sizes):
            assert fits[stop]
            assert payload.records == most or len(payload.body) + 1 + len(whole[stop]) > limit
        row = stop
    assert row == len(sizes)


DAY = 864_000_000_000


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        (
            pa.array([0, -1, None, 1_700_000_000_123], pa.timestamp("ms", "UTC")),
            [0, -10_000, None, 17_000_000_001_230_000],
        ),
        (pa.array([1, -1], pa.timestamp("us")), [10, -10]),
        (pa.array([3, -2], pa.timestamp("s")), [30_000_000, -20_000_000]),
        (pa.array([1, -1, None], pa.date32()), [DAY, -DAY, None]),
    ],
    ids=["timestamp", "datetime", "seconds", "date"],
)
def test_time_of_a_column_is_exact_and_null_means_receipt(values: Any, ticks: list[int | None]) -> None:
    rows = pa.RecordBatch.from_arrays([values], ["when"])
    (payload,) = sink(time_column="when").payloads(batch(rows))
    expected = [1000 + row if tick is None else tick for row, tick in enumerate(ticks)]
    assert [event["@time"] for event in events(payload.body)] == expected


def test_times_that_no_id_can_hold_are_rejects() -> None:
    last = wire.MAX_TIME // 10_000
    first = -(-wire.MIN_TIME // 10_000)
    values = [first - 1, first, last, last + 1, -(2**63), 2**63 - 1, 5]
    rows = pa.RecordBatch.from_arrays([pa.array(values, pa.timestamp("ms", "UTC"))], ["when"])
    payloads = list(sink(time_column="when").payloads(batch(rows)))
    assert [r.offset for p in payloads for r in p.rejects] == [0, 3, 4, 5]
    assert all("1582 to 5236" in r.reason for p in payloads for r in p.rejects)
    stored = [event["@time"] for p in payloads if p.records for event in events(p.body)]
    assert stored == [first * 10_000, last * 10_000, 50_000]


def test_a_column_of_no_times_rejects_its_rows_and_a_missing_one_leaves_the_receipt() -> None:
    (payload,) = sink(time_column="when").payloads(batch({"when": ["noon", "now"]}))
    assert (payload.records, [r.offset for r in payload.rejects]) == (0, [0, 1])
    assert "time_column when has values of type string" in payload.rejects[0].reason
    (payload,) = sink(time_column="when").payloads(batch({"count": [3]}, feed="t.updates"))
    assert events(payload.body, "t.updates") == [{"@time": 1000, "@origin": "p/t.updates/7/0", "count": 3}]


def test_events_that_were_put_keep_their_text_and_get_their_origin() -> None:
    texts = ['{"@time":5,"a":{"b":[1.0,"é☃"]}}', '{"@time":6}']
    rows = pa.RecordBatch.from_arrays([pa.array(texts, pa.large_string())], schema=pa.schema([EVENT_FIELD]))
    positions = np.array([0, 2])
    put = Batch(BlockId("put:c", 7, 40), 2, 5, rows, positions, (), to="mine")
    (payload,) = sink(time_column="a").payloads(put)
    assert payload.body.decode() == (
        '{"events":{"mine":[{"@origin":"p/put:c/7/40","@time":5,"a":{"b":[1.0,"é☃"]}},'
        '{"@origin":"p/put:c/7/42","@time":6}]}}'
    )
