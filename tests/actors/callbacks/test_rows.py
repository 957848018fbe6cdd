"""Rows as dicts, in both forms, of every type."""

from __future__ import annotations

import datetime
import math
from decimal import Decimal
from typing import Any

import gpudb
import numpy as np
import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.callbacks.rows import official_rows, python_rows, rows_of
from actors.codec.codec import Codec
from protocols.kinetica.types import Column, TableType

#: All kinds of columns, the frame of one row, and of one with nothing but nulls (the specification's vector V9).
KINDS = [
    ("id", "int", ()),
    ("i8", "int", ("int8",)),
    ("i16", "int", ("int16",)),
    ("flag", "int", ("boolean",)),
    ("n", "long", ()),
    ("ts", "long", ("timestamp",)),
    ("f", "float", ()),
    ("d", "double", ()),
    ("s", "string", ()),
    ("c1", "string", ("char1",)),
    ("c4", "string", ("char4",)),
    ("c8", "string", ("char8",)),
    ("c16", "string", ("char16",)),
    ("day", "string", ("date",)),
    ("time", "string", ("time",)),
    ("at", "string", ("datetime",)),
    ("money", "string", ("decimal",)),
    ("price", "string", ("decimal(10,3)",)),
    ("big", "string", ("ulong",)),
    ("uuid", "string", ("uuid",)),
    ("ip", "string", ("ipv4",)),
    ("json", "string", ("json",)),
    ("ints", "string", ("array(int)",)),
    ("flags", "string", ("array(boolean)",)),
    ("wkt", "string", ("wkt",)),
    ("b", "bytes", ()),
    ("v", "bytes", ("vector(3)",)),
]
ROW = bytes.fromhex(
    "0200ff0100feff03000200ffffffffffffffffff0100f6a1abfef96200cdcc8c3f009a99999999990140001e68c3a96c6c6f20e2988320f09d"
    "849e0002780008c3a9c3a9001031323334353637380020303132333435363738396162636465660014323032342d30322d3239001832333a35"
    "393a35392e393939002e323032342d30322d32392031323a33343a35362e37383900283132333435363738393031323334352e363738390"
    "00a312e35303000283138343436373434303733373039353531363135004831323365343536372d653839622d313264332d613435362d3432"
    "3636313431373430303000163139322e3136382e312e31001c7b2261223a5b312c6e756c6c5d7d000e5b312c322c335d00185b747275652c66"
    "616c73655d0014504f494e542831203229000600ff8000180000803f000020c000005040"
)
NULLS = bytes.fromhex("04" + "02" * 26)
TYPE = TableType(tuple(Column(name, base, name != "id", marks) for name, base, marks in KINDS))


def official(frames: list[bytes]) -> list[dict[str, Any]]:
    """What the official client makes of frames."""
    kind = gpudb.RecordType.from_type_schema("", TYPE.definition, {})
    return [dict(gpudb.GPUdbRecord.decode_binary_data(kind, frame)[0]) for frame in frames]


def test_the_wire_values_are_those_of_the_official_client() -> None:
    rows = list(rows_of(Codec(TYPE, raw=True).decode([ROW, NULLS]).rows))
    assert rows == official([ROW, NULLS])
    assert [list(map(type, row.values())) for row in rows] == [
        list(map(type, row.values())) for row in official([ROW, NULLS])
    ]


def test_official_values_made_of_typed_ones_are_the_same() -> None:
    rows = list(official_rows(Codec(TYPE).decode([ROW, NULLS]).rows))
    assert rows == official([ROW, NULLS])


def test_python_values_are_what_the_properties_mean() -> None:
    row, nulls = python_rows(Codec(TYPE).decode([ROW, NULLS]).rows)
    assert set(nulls.values()) == {2, None}
    assert row["flag"] is True
    assert row["ts"] == datetime.datetime(2023, 11, 14, 22, 13, 20, 123000, datetime.UTC)
    assert row["day"] == datetime.date(2024, 2, 29)
    assert row["time"] == datetime.time(23, 59, 59, 999000)
    assert row["at"] == datetime.datetime(2024, 2, 29, 12, 34, 56, 789000)
    assert row["money"] == Decimal("123456789012345.6789")
    assert row["big"] == 2**64 - 1
    assert row["json"] == {"a": [1, None]}
    assert (row["ints"], row["flags"]) == ([1, 2, 3], [True, False])
    assert row["v"] == [1.0, -2.5, 3.25]


def test_an_instant_that_python_has_no_datetime_for_stays_a_number() -> None:
    column = pa.array([2**62], pa.timestamp("ms", "UTC"))
    assert list(python_rows(pa.RecordBatch.from_arrays([column], names=["ts"]))) == [{"ts": 2**62}]


def test_times_lose_a_fraction_of_zero_only() -> None:
    midnight = pa.array([datetime.time(12), datetime.time(12, 0, 0, 5000)], pa.time64("us"))
    rows = official_rows(pa.RecordBatch.from_arrays([midnight], names=["t"]))
    assert [row["t"] for row in rows] == ["12:00:00", "12:00:00.005"]


def test_a_vector_is_bytes_and_an_array_is_text() -> None:
    vector = pa.array([[1.0, 2.0], None], pa.list_(pa.float32(), 2))
    array = pa.array([[1.5, None], None], pa.list_(pa.float64()))
    first, second = official_rows(pa.RecordBatch.from_arrays([vector, array], names=["v", "a"]))
    assert first == {"v": np.array([1, 2], "<f4").tobytes(), "a": "[1.5,null]"}
    assert second == {"v": None, "a": None}


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.text(), st.none() | st.integers(-(2**63), 2**63 - 1), st.floats()), max_size=5))
def test_any_values_and_names(values: list[tuple[str, int | None, float]]) -> None:
    names = ['it\'s "quoted" \\', "lambda x:\n", "}"]
    columns = [
        pa.array(column, kind)
        for column, kind in zip(
            zip(*values, strict=True) if values else ((), (), ()),
            (pa.large_string(), pa.int64(), pa.float64()),
            strict=True,
        )
    ]
    rows = list(rows_of(pa.RecordBatch.from_arrays(columns, names=names)))
    assert [list(row) for row in rows] == [names] * len(values)
    for row, (text, number, x) in zip(rows, values, strict=True):
        assert (row[names[0]], row[names[1]]) == (text, number)
        assert row[names[2]] == x or math.isnan(x)
