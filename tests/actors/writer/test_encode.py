"""Events as JSON: each kind of value, exact floats, odd texts and names, and bodies of slices."""

import base64
import json
import math
import struct
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.codec.codec import Codec
from actors.codec.meaning import TYPE_KEY
from actors.writer.encode import EncodedEvents, encode_events, event_keys
from protocols.kinetica.types import Column, TableType


def encode(rows: pa.RecordBatch) -> EncodedEvents:
    n = rows.num_rows
    return encode_events(
        rows, time=np.arange(n) + 10, origin_prefix="p/f/1700000000000/", offsets=np.arange(n) + 5
    )


def events(rows: pa.RecordBatch) -> list[dict[str, Any]]:
    decoded: list[dict[str, Any]] = json.loads(encode(rows).body(0, rows.num_rows))
    return decoded


def values(array: pa.Array, mark: str | None = None) -> list[Any]:
    """What a column's values become."""
    field = pa.field("x", array.type, metadata={TYPE_KEY: mark} if mark else None)
    return [event["x"] for event in events(pa.RecordBatch.from_arrays([array], schema=pa.schema([field])))]


def decoded(base: str, mark: str, *wire: str | None) -> list[Any]:
    """What wire values (texts) of a column become, through the codec."""
    frames = [b"\x02" if v is None else b"\0" + bytes([2 * len(v.encode())]) + v.encode() for v in wire]
    batch = Codec(TableType((Column("x", base, True, (mark,)),))).decode(frames)
    assert batch.rejects == ()
    return [event["x"] for event in events(batch.rows)]


def test_reserved_keys_and_null() -> None:
    rows = pa.record_batch({"a": pa.array([1, None])})
    assert encode(rows).body(0, 2) == (
        b'[{"@time":10,"@origin":"p/f/1700000000000/5","a":1},'
        b'{"@time":11,"@origin":"p/f/1700000000000/6","a":null}]'
    )


def test_bodies_of_slices_put_together_are_the_whole() -> None:
    rows = pa.record_batch({"a": pa.array(range(10)), "s": pa.array([f"\n,]{i}" for i in range(10)])})
    encoded = encode(rows)
    whole = json.loads(encoded.body(0, 10))
    assert [event["a"] for event in whole] == list(range(10))
    for start in range(11):
        for stop in range(start, 11):
            assert json.loads(encoded.body(start, stop)) == whole[start:stop]


def test_no_rows() -> None:
    encoded = encode(pa.record_batch({"a": pa.array([], pa.int64())}))
    assert (encoded.data, len(encoded.ends), encoded.body(0, 0)) == (b"", 0, b"[]")


def test_many_rows_stay_in_order() -> None:
    n = 150_000
    assert values(pa.array(range(n))) == list(range(n))


def test_integers() -> None:
    assert values(pa.array([2**63 - 1, -(2**63)])) == [2**63 - 1, -(2**63)]
    assert values(pa.array([-128, None], pa.int8())) == [-128, None]
    assert values(pa.array([2**64 - 1, 0, None], pa.uint64())) == ["18446744073709551615", "0", None]
    assert values(pa.array([True, False, None])) == [True, False, None]
    assert values(pa.array([-1, None], pa.timestamp("ms", "UTC"))) == [-1, None]


def test_floats_that_are_no_numbers() -> None:
    array = pa.array([1.5, math.nan, math.inf, -math.inf, None, -0.0, 1e300])
    assert values(array) == [1.5, "NaN", "Infinity", "-Infinity", None, -0.0, 1e300]
    assert math.copysign(1, values(array)[5]) == -1
    assert values(pa.array([0.1, math.nan], pa.float32())) == [0.10000000149011612, "NaN"]


def test_float32_shows_as_the_official_client_shows_it() -> None:
    assert values(pa.array([0.1, None], pa.float32())) == [0.10000000149011612, None]


@given(st.lists(st.floats() | st.none(), min_size=1, max_size=20))
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_doubles_round_trip(floats: list[float | None]) -> None:
    found = [float(v) if isinstance(v, str) else v for v in values(pa.array(floats, pa.float64()))]
    assert repr(found) == repr(floats)


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_singles_round_trip(floats: list[float]) -> None:
    assert repr(values(pa.array(floats, pa.float32()))) == repr(floats)


@given(st.lists(st.text() | st.none(), min_size=1, max_size=20))
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_texts_round_trip(texts: list[str | None]) -> None:
    assert values(pa.array(texts, pa.large_string())) == texts


def test_decimals_keep_their_scale() -> None:
    assert decoded("string", "decimal(10,3)", "1.5", "-0.001", None, "12") == [
        "1.500",
        "-0.001",
        None,
        "12.000",
    ]
    assert decoded("string", "decimal(20,10)", "0.0000000001", "0") == ["0.0000000001", "0.0000000000"]
    assert decoded("string", "decimal", "123456789012345.6789") == ["123456789012345.6789"]


def test_dates_and_times_as_text() -> None:
    assert decoded("string", "date", "2024-02-29", None, "0001-01-01") == ["2024-02-29", None, "0001-01-01"]
    clock = ["23:59:59.999", "00:00:00", None, "01:02:03.000004", "12:00:00.500"]
    assert decoded("string", "time", *clock) == clock
    both = ["2024-02-29 12:34:56.789", "1000-01-01 00:00:00", None, "1969-12-31 23:59:59.999999"]
    assert decoded("string", "datetime", *both) == both
    assert decoded("string", "datetime", "1000-01-01 00:00:00") == ["1000-01-01 00:00:00"]


def test_the_spelling_of_fractions_is_by_value() -> None:
    assert decoded("string", "time", "12:00:00.000", "12:00:00.5", "12:00:00.500000") == [
        "12:00:00",
        "12:00:00.500",
        "12:00:00.500",
    ]


def test_bytes_are_base64() -> None:
    data = [b"", b"\x00\xff\x80", bytes(range(256))]
    assert values(pa.array([*data, None], pa.large_binary())) == [
        *(base64.b64encode(value).decode() for value in data),
        None,
    ]


def test_vectors_and_arrays_are_lists() -> None:
    vectors = pa.array([[0.1, -2.5], None], pa.list_(pa.float32(), 2))
    assert values(vectors) == [[0.10000000149011612, -2.5], None]
    vectors = pa.array([[math.nan, -math.inf], None, [1, None]], pa.list_(pa.float32(), 2))
    assert values(vectors) == [["NaN", "-Infinity"], None, [1.0, None]]
    doubles = pa.array([[math.inf], [], None, [1.5]], pa.list_(pa.float64()))
    assert values(doubles) == [["Infinity"], [], None, [1.5]]
    assert decoded("string", "array(int)", "[1,null]", "[]", None) == [[1, None], [], None]
    assert decoded("string", "array(boolean)", "[true]") == [[True]]
    assert decoded("string", "array(string)", '["a\\n"]') == [["a\n"]]
    assert decoded("string", "array(ulong)", "[18446744073709551615]") == [["18446744073709551615"]]


def test_json_is_nested_as_stored() -> None:
    texts = ['{"a":[1,null],"b":"é\\n"}', " [1 ,\n2] ", None, '"x"', "12345678901234567890"]
    assert decoded("string", "json", *texts) == [
        {"a": [1, None], "b": "é\n"},
        [1, 2],
        None,
        "x",
        "12345678901234567890",
    ]
    assert values(pa.array(['{"a":1}'])) == ['{"a":1}']  # without the mark it is a text


def test_json_beside_other_columns() -> None:
    kind = pa.schema(
        [
            pa.field("a", pa.int64()),
            pa.field('j"', pa.large_string(), metadata={TYPE_KEY: "json"}),
            pa.field("f", pa.float64()),
            pa.field("s", pa.large_string()),
        ]
    )
    rows = pa.RecordBatch.from_arrays(
        [
            pa.array([1, 2]),
            pa.array(["[\n]", None], pa.large_string()),
            pa.array([math.nan, 1.0]),
            pa.array(["☃}\n", "x"], pa.large_string()),
        ],
        schema=kind,
    )
    encoded = encode(rows)
    for i, expected in enumerate([(1, [], "NaN", "☃}\n"), (2, None, 1.0, "x")]):
        (event,) = json.loads(encoded.body(i, i + 1))
        assert (event["a"], event['j"'], event["f"], event["s"]) == expected
        assert (event["@time"], event["@origin"]) == (10 + i, f"p/f/1700000000000/{5 + i}")


@pytest.mark.parametrize(
    ("names", "keys"),
    [
        (["a", "b"], ["a", "b"]),
        (["@time", "a"], ["_@time", "a"]),
        (["@time", "_@time"], ["__@time", "_@time"]),
        (["@x", "@@y"], ["_@x", "_@@y"]),
    ],
)
def test_columns_that_look_like_reserved_keys_step_aside(names: list[str], keys: list[str]) -> None:
    assert event_keys(names) == keys
    rows = pa.RecordBatch.from_arrays([pa.array([1])] * len(names), names=names)
    (event,) = events(rows)
    assert list(event) == ["@time", "@origin", *keys]
    assert event["@time"] == 10


def test_a_slice_of_a_batch_encodes_as_itself() -> None:
    rows = pa.record_batch(
        {
            "s": pa.array(["a", None, "c", "d"], pa.large_string()),
            "f": pa.array([1.0, 2.0, math.nan, None]),
            "v": pa.array([[1.0], None, [math.nan], [2.0]], pa.list_(pa.float32(), 1)),
            "u": pa.array([1, 2, None, 4], pa.uint64()),
        }
    )
    picked = [{key: value for key, value in event.items() if key[0] != "@"} for event in events(rows)[1:3]]
    sliced = [
        {key: value for key, value in event.items() if key[0] != "@"} for event in events(rows.slice(1, 2))
    ]
    assert picked == sliced


def test_a_float_on_the_wire_is_what_the_event_shows() -> None:
    frames = [struct.pack("<f", value) for value in (0.1, 1e-45, 3.4e38)]
    batch = Codec(TableType((Column("x", "float"),))).decode(frames)
    expected = [struct.unpack("<f", frame)[0] for frame in frames]
    assert [event["x"] for event in events(batch.rows)] == expected


def test_json_with_integers_that_stores_refuse_becomes_a_string_of_itself() -> None:
    texts = ['{"n":1}', '{"n":123456789012345678901234567890}', '{"n":9223372036854775807}', None]
    field = pa.field("j", pa.large_string(), metadata={TYPE_KEY: b"json"})
    found = events(
        pa.RecordBatch.from_arrays([pa.array(texts, pa.large_string())], schema=pa.schema([field]))
    )
    assert [event["j"] for event in found] == [{"n": 1}, texts[1], {"n": 2**63 - 1}, None]
