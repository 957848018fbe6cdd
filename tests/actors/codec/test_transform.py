"""Transforms: what they make of rows, how they fail, and that a row's value is its own."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.batch import Rejected
from actors.codec.decoder import Decoder, all_or_nothing
from actors.codec.isolated import decode_isolated
from actors.codec.transform import Transform, TransformError
from actors.errors import DecodeAborted
from tests.actors.codec.test_decoder import block, frame

ROWS = pa.RecordBatch.from_arrays(
    [
        pa.array([1, 2, None, 4], pa.int64()),
        pa.array(["7", "x", "9", None]),
        pa.array([Decimal("1.50"), None, Decimal("3.25"), Decimal("4.00")], pa.decimal128(9, 2)),
        pa.array(["{}", "[1]", None, "2"], pa.large_string()),
    ],
    schema=pa.schema(
        [
            pa.field("id", pa.int64()),
            pa.field("text", pa.string()),
            pa.field("price", pa.decimal128(9, 2)),
            pa.field("doc", pa.large_string(), metadata={b"tablecast.type": b"json"}),
        ]
    ),
)
COLUMNS = "; the columns are id, text, price, doc"


def test_the_steps_follow_one_another() -> None:
    spec = {
        "where": "id IS NOT NULL AND price > 1",
        "with_columns": {
            "twice": "id * 2",
            "text": "upper(text)",
            "always": "'x'",
            "at": "TIMESTAMP '2026-01-02 03:04:05'",
        },
        "select": ["doc", "twice", "text", "always"],
        "rename": {"doc": "twice", "twice": "document"},
    }
    done = Transform(spec).apply(ROWS)
    assert done.kept.tolist() == [0, 3]
    assert done.failures == {}
    assert done.rows.to_pydict() == {
        "twice": ["{}", "2"],
        "document": [2, 8],
        "text": ["7", None],
        "always": ["x", "x"],
    }
    assert done.rows.schema.field("twice").metadata == {b"tablecast.type": b"json"}
    assert done.rows.schema == Transform(spec).output(ROWS.schema)


def test_nothing_to_do_changes_nothing() -> None:
    done = Transform({"where": None, "with_columns": {}, "select": None, "rename": {}}).apply(ROWS)
    assert done.rows.equals(ROWS)
    assert done.rows.schema.equals(ROWS.schema, check_metadata=True)


def test_a_row_for_which_an_expression_fails_is_a_failure_and_the_others_are_rows() -> None:
    done = Transform({"with_columns": {"n": "CAST(text AS BIGINT)"}}).apply(ROWS)
    assert done.rows["n"].to_pylist() == [7, 9, None]
    assert done.kept.tolist() == [0, 2, 3]
    (reason,) = done.failures.values()
    assert list(done.failures) == [1]
    assert reason.startswith("transform.with_columns.n: conversion from `str` to `i64` failed")
    assert "\n" not in reason
    done = Transform({"where": "CAST(text AS BIGINT) > 7"}).apply(ROWS)
    assert (done.kept.tolist(), list(done.failures)) == ([2], [1])
    assert done.rows["id"].to_pylist() == [None]


def test_new_columns_have_types_that_sinks_know_also_of_no_rows() -> None:
    rows = pa.RecordBatch.from_pydict(
        {"t": [datetime(2026, 1, 2, tzinfo=UTC)], "u": pa.array([1], pa.uint64())}
    )
    spec = {
        "with_columns": {"day": "CAST(t AS DATE)", "at": "CAST(t AS TIMESTAMP)", "none": "NULL", "f": "u / 2"}
    }
    transform = Transform(spec)
    for given_rows in (rows, rows.slice(0, 0)):
        schema = transform.apply(given_rows).rows.schema
        assert [schema.field(name).type for name in ("day", "none", "f")] == [
            pa.date32(),
            pa.large_string(),
            pa.float64(),
        ]
        assert schema.field("at").type in (pa.timestamp("us"), pa.timestamp("ms", "UTC"))


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ({"where": "nope > 1"}, "where: there is no column nope" + COLUMNS),
        ({"where": "id + 1"}, "where: gives Int64, not true or false; write a condition"),
        ({"where": "text > 5"}, "where: cannot compare string with numeric type"),
        (
            {"with_columns": {"a": "foo(id)"}},
            "with_columns.a: not a polars SQL expression: unsupported function",
        ),
        ({"with_columns": {"a": "id +"}}, "with_columns.a: not a polars SQL expression: unable to parse"),
        (
            {"with_columns": {"a": "sum(id)"}},
            "with_columns.a: must give each row its value from that row alone",
        ),
        ({"with_columns": {"a": "id - avg(id)"}}, "with_columns.a: must give each row its value"),
        ({"with_columns": {"a": "count(*)"}}, "with_columns.a: must give each row its value"),
        ({"with_columns": {"a": "row_number()"}}, "with_columns.a: must give each row its value"),
        (
            {"with_columns": {"a": "rank() OVER (ORDER BY id)"}},
            "with_columns.a: must give each row its value",
        ),
        ({"where": "id > lag(id) OVER (ORDER BY id)"}, "where: must give each row its value"),
        ({"where": "CAST(1 AS DECIMAL(99, 2)) > 0"}, "where: assertion failed"),  # polars panics
        ({"select": ["id", "gone"]}, "select: there is no column gone" + COLUMNS),
        ({"rename": {"gone": "x"}}, "rename: there is no column gone" + COLUMNS),
        ({"select": ["id"], "rename": {"text": "x"}}, "rename: there is no column text; the columns are id"),
        ({"rename": {"id": "text"}}, "rename: text would be there twice" + COLUMNS),
    ],
)
def test_what_a_table_does_not_allow(spec: dict[str, Any], problem: str) -> None:
    with pytest.raises(TransformError) as caught:
        Transform(spec).check(ROWS.schema)
    assert str(caught.value).startswith(problem)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "expression",
    [
        "id > 1",
        "id IN (1, 2)",
        "text LIKE 'a%'",
        "price / 0 > 1",
        "CAST(text AS INT) = 1",
        "CASE WHEN id = 1 THEN true END",
    ],
)
def test_conditions_that_are_good(expression: str) -> None:
    Transform({"where": expression}).check(ROWS.schema)


def test_rows_of_a_table_that_lost_a_column_are_failures() -> None:
    transform = Transform({"where": "price > 1"})
    assert len(transform.apply(ROWS).kept) == 3
    done = transform.apply(ROWS.drop_columns(["price"]))
    assert done.rows.num_rows == 0
    reason = "transform.where: there is no column price; the columns are id, text, doc"
    assert done.failures == dict.fromkeys(range(4), reason)
    other = ROWS.set_column(2, "price", pa.array(["a", "b", "c", "d"]))
    assert set(transform.apply(other).failures) == {0, 1, 2, 3}


@given(st.lists(st.tuples(st.integers(-5, 5) | st.none(), st.sampled_from(["1", "22", "x", ""]) | st.none())))
def test_as_row_by_row(values: list[tuple[int | None, str | None]]) -> None:
    """Against the same steps in Python, a row at a time."""
    transform = Transform({"where": "n > 0 OR t = 'x'", "with_columns": {"m": "CAST(t AS INT) + n"}})
    rows = pa.RecordBatch.from_arrays(
        [pa.array([n for n, _ in values], pa.int64()), pa.array([t for _, t in values], pa.string())],
        ["n", "t"],
    )
    done = transform.apply(rows)
    expected, failed = [], []
    for row, (n, t) in enumerate(values):
        if not ((n is not None and n > 0) or t == "x"):
            continue
        if t is not None and not t.isdigit():
            failed.append(row)
        else:
            expected.append((row, None if t is None or n is None else int(t) + n))
    assert list(zip(done.kept.tolist(), done.rows["m"].to_pylist(), strict=True)) == expected
    assert sorted(done.failures) == failed


def test_a_block_keeps_origins_and_counts() -> None:
    decoder = Decoder({"t": {"where": "id <> 3", "with_columns": {"n": "CAST(substr(name, 2, 1) AS INT)"}}})
    sent = block([frame(1), b"\xff", frame(3), frame(4), b"\x0a\x04zz", frame(6)])
    batch = decoder.decode(sent)
    assert (batch.count, batch.filtered, batch.rows.num_rows) == (6, 1, 3)
    assert batch.rows.to_pydict() == {"id": [1, 4, 6], "name": ["n1", "n4", "n6"], "n": [1, 4, 6]}
    assert batch.offsets.tolist() == [100, 103, 105]
    assert batch.times.tolist() == [5000, 5003, 5005]
    bad, failed = batch.rejects
    assert (bad.offset, bad.frame) == (101, b"\xff")
    assert (failed.offset, failed.frame) == (104, b"")  # the dispatcher has the block
    assert failed.reason.startswith("transform.with_columns.n: conversion from `str` to `i32` failed")
    assert (decoder.stats.rejects, decoder.stats.filtered) == (2, 1)
    with pytest.raises(DecodeAborted):
        all_or_nothing(batch)
    assert decode_isolated(sent, transforms={"t": {"where": "id = 4"}}).rows["id"].to_pylist() == [4]


def test_other_feeds_are_left_alone() -> None:
    counts = block([json.dumps({"count": 3}).encode()], format="json")
    decoder = Decoder({"u": {"where": "id > 1"}})
    assert decoder.decode(counts).rows.to_pydict() == {"count": [3]}


def test_all_filtered() -> None:
    batch = Decoder({"t": {"where": "id > 99"}}).decode(block([frame(n) for n in range(5)]))
    assert (batch.rows.num_rows, batch.filtered, batch.rejects) == (0, 5, ())
    assert isinstance(batch.positions, np.ndarray)
    assert Rejected not in map(type, batch.rejects)
