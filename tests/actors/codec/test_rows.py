"""Rows of Python values to JSON frames and kinds, and from there to Arrow columns."""

from __future__ import annotations

import json
import math
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgpack
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.block import Block
from actors.codec.decoder import Decoder
from actors.codec.rows import decode_rows
from actors.monitor.rows import MAX_COLUMNS, BadRow, RowEncoder
from actors.row_types import join
from actors.writer.encode import encode_batch


def decoded(rows: list[Any]) -> Any:
    encoder = RowEncoder()
    frames = encoder.encode(rows)
    block = Block("t", 1, 0, len(frames), 0, "json", encoder.schema, msgpack.packb(frames))
    return Decoder().decode(block)


def test_columns_have_types_and_other_rows_are_rejects() -> None:
    batch = decoded(
        [
            {"n": 1, "x": 1, "text": "a", "flag": True, "mixed": 1, "nothing": None},
            {"n": 2**60, "x": 1.5, "mixed": "a", "nested": {"a": [1]}, "at": datetime(2026, 1, 2)},
            {1, 2},
            {
                "x": math.nan,
                "money": Decimal("1.50"),
                "raw": b"\x00\xff",
                "nested": [math.inf],
                "late": 2**63,
            },
            {"bad": {1, 2}},
            {},
            BadRow("why", b"\xff"),
        ]
    )
    types = {field.name: str(field.type) for field in batch.rows.schema}
    assert types == {
        **{"n": "int64", "x": "double", "text": "large_string", "flag": "bool", "mixed": "large_string"},
        **{"nothing": "large_string", "nested": "large_string", "at": "large_string"},
        **{"money": "large_string", "raw": "large_string", "late": "large_string"},
    }
    assert [reject.offset for reject in batch.rejects] == [2, 4, 6]
    assert [reject.reason for reject in batch.rejects] == [
        "a row is a dict, not a set",
        "no JSON: Type is not JSON serializable: set",
        "why",
    ]
    events = encode_batch("p", batch).lines(0, batch.rows.num_rows).decode().splitlines()
    assert '"mixed":1' in events[0]
    assert '"mixed":"a"' in events[1]
    assert '"nested":{"a":[1]}' in events[1]
    assert '"at":"2026-01-02T00:00:00"' in events[1]
    assert '"x":"NaN"' in events[2]
    assert '"money":"1.50"' in events[2]
    assert '"raw":"AP8="' in events[2]
    assert '"nested":["Infinity"]' in events[2]
    assert '"nothing":null' in events[3]


def test_columns_stay_bounded() -> None:
    encoder = RowEncoder()
    frames = encoder.encode([{f"c{n}-{m}": 1 for m in range(100)} for n in range(30)])
    assert len(encoder.kinds) == MAX_COLUMNS
    assert sum(frame.startswith(b"!more than 2,000 columns") for frame in frames) == 10


def test_a_value_that_is_not_of_its_column_is_a_reject_and_no_error() -> None:
    found = decode_rows([b'{"a":1}', b'{"a":"x"}', b'{"b":1}', b"[]", b"nothing"], {"a": "int"})
    assert found.rows.to_pylist() == [{"a": 1}]
    assert [(reject.position, reject.reason.split(":")[0]) for reject in found.rejects] == [
        (1, "column a"),
        (2, "column b is not in the schema"),
        (3, "JSON, but no object"),
        (4, "not JSON"),
    ]


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.text(st.characters(codec="utf-8"), max_size=5),
    st.lists(st.integers(-5, 5), max_size=2),
)


@settings(deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from("abc"), VALUES), min_size=1, max_size=8))
def test_every_value_comes_back(rows: list[dict[str, Any]]) -> None:
    batch = decoded(rows)
    assert batch.rejects == ()
    events = encode_batch("p", batch).body(0, len(rows))
    for row, event in zip(rows, json.loads(events), strict=True):
        for name, value in row.items():
            assert _same(event[name], value), (name, value, event)


def _same(found: Any, value: Any) -> bool:
    if isinstance(value, float) and not math.isfinite(value):
        return bool(found == ("NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"))
    if isinstance(value, bool) or value is None:
        return found is value
    return bool(found == value)


@settings(deadline=None)
@given(st.lists(st.sampled_from(["null", "boolean", "string", "int", "long", "double", "json"]), min_size=1))
def test_kinds_only_widen(kinds: list[str]) -> None:
    wide = kinds[0]
    for kind in kinds:
        wider = join(wide, kind)
        assert join(wider, wide) == join(wide, wider) == wider
        assert join(wider, kind) == wider
        wide = wider
