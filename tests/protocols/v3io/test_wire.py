"""Typed attribute values: the vectors of the specification, and agreement with the official client."""

from __future__ import annotations

import array
import base64
import contextlib
from datetime import UTC, datetime, timezone
from typing import Any

import pytest
import v3io.dataplane.kv_array
from hypothesis import given
from hypothesis import strategies as st
from v3io.dataplane.output import Output
from v3io.dataplane.request import _dict_to_typed_attributes

from protocols.v3io import wire
from protocols.v3io.wire import Timestamp

INTEGERS = st.integers(-(2**63), 2**63 - 1)
VALUES = (
    st.booleans()
    | st.text(max_size=30)
    | st.integers(wire.MIN_INTEGER, wire.MAX_INTEGER)
    | st.floats(allow_nan=False)
    | st.binary(max_size=40)
    | st.lists(INTEGERS, max_size=5)
    | st.lists(st.floats(allow_nan=False), min_size=1, max_size=5)
)


@pytest.mark.parametrize(
    ("value", "typed"),
    [
        ("text", {"S": "text"}),
        (42, {"N": "42"}),
        (3.14, {"N": "3.14"}),
        (1e300, {"N": "1e+300"}),
        (True, {"BOOL": True}),
        ([1, 2, 3], {"B": "MEGrAAEAAAAYAAAAAwEAAAEAAAAAAAAAAgAAAAAAAAADAAAAAAAAAA=="}),
        ([10.5, 20.5], {"B": "MEGrAAEAAAAQAAAABQEAAAAAAAAAACVAAAAAAACANEA="}),
        (Timestamp(-315619200, 500000000), {"TS": "-315619200:500000000"}),
    ],
)
def test_vectors(value: Any, typed: dict[str, Any]) -> None:
    assert wire.encode_value(value) == typed
    assert wire.decode_value(typed) == value


@given(VALUES)
def test_values_return(value: Any) -> None:
    decoded = wire.decode_value(wire.encode_value(value))
    assert decoded == value
    assert type(decoded) is type(value)


@given(VALUES)
def test_the_official_client_writes_the_same(value: Any) -> None:
    assert _dict_to_typed_attributes({"a": value}) == {"a": wire.encode_value(value)}
    assert Output()._decode_typed_attributes({"a": wire.encode_value(value)}) == {"a": value}


def test_special_numbers() -> None:
    assert wire.encode_value(float("inf")) == {"N": "inf"}
    assert wire.decode_value({"N": "-inf"}) == float("-inf")
    assert str(wire.decode_value({"N": "nan"})) == "nan"


@given(st.datetimes(min_value=datetime(1, 1, 2), timezones=st.just(UTC)))
def test_datetimes_are_exact(moment: datetime) -> None:
    timestamp = Timestamp.of(moment)
    assert 0 <= timestamp.nanoseconds < 10**9
    assert timestamp.datetime() == moment


def test_integers_of_any_size_are_refused() -> None:
    with pytest.raises(ValueError, match="does not fit 64"):
        wire.encode_value(10**5000)


def test_datetimes_before_1970_round_down() -> None:
    moment = datetime(1960, 1, 1, 0, 0, 0, 500000, timezone.utc)  # noqa: UP017
    assert wire.encode_value(moment) == {"TS": "-315619200:500000000"}


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (None, TypeError),
        ({}, TypeError),
        ([1, 2.5], TypeError),
        (["a"], TypeError),
        ([True], TypeError),
        (2**64, ValueError),
        (-(2**63) - 1, ValueError),
        ([2**63], ValueError),
    ],
)
def test_values_that_v3io_does_not_have(value: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        wire.encode_value(value)
    with pytest.raises(error, match="attribute a: "):
        wire.encode_attributes({"a": value})


@pytest.mark.parametrize(
    "typed",
    [
        None,
        1,
        {},
        {"N": "1", "S": "x"},
        {"N": 1},
        {"N": "1_0"},
        {"N": " 1"},
        {"N": "x"},
        {"N": "１"},
        {"N": "9" * 5000},
        {"N": str(2**64)},
        {"S": None},
        {"S": True},
        {"BOOL": 1},
        {"B": "?"},
        {"B": 1},
        {"TS": "1"},
        {"TS": "1:2:3"},
        {"TS": "x:1"},
        {"X": "1"},
        {"N": ["1"]},
    ],
)
def test_malformed_values(typed: Any) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        wire.decode_value(typed)


@given(
    st.recursive(
        st.none() | st.booleans() | st.text(max_size=9), lambda v: st.lists(v, max_size=3), max_leaves=3
    )
)
def test_any_json_is_decoded_or_refused(content: Any) -> None:
    for kind in ("N", "S", "B", "BOOL", "TS", "other"):
        with contextlib.suppress(ValueError):
            wire.decode_value({kind: content})


def test_a_blob_that_only_begins_like_an_array_is_a_blob() -> None:
    whole = base64.b64decode(v3io.dataplane.kv_array.encode_array(array.array("q", [1]), "l"))
    for blob in (whole[:-1], whole + b"x", whole[:8], whole[:15]):
        assert wire.decode_value({"B": wire.encode_base64(blob)}) == blob


def test_paths() -> None:
    assert wire.quote_path("users", "a b/ü?#%.x") == "/users/a%20b/%C3%BC%3F%23%25.x"
    for path in ("a/../b", ".", "a/."):
        with pytest.raises(ValueError, match="named"):
            wire.quote_path("users", path)
