from __future__ import annotations

import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.kronos import wire

times = st.integers(wire.MIN_TIME, wire.MAX_TIME)
tails = st.integers(0, 2**60 - 1)


@pytest.mark.parametrize(
    ("time", "prefix"),
    [
        (0, "13814000-1dd2-11b2"),
        (1, "13814001-1dd2-11b2"),
        (-1, "13813fff-1dd2-11b2"),
        (4294967295, "13813fff-1dd3-11b2"),
        (4294967296, "13814000-1dd3-11b2"),
        (13885344000000000, "a8358000-7277-11e3"),
        (17952220627550390, "28f080b6-e545-11f1"),
        (-122192928000000000, "00000000-0000-1000"),
        (1030728576606846975, "ffffffff-ffff-1fff"),
    ],
)
def test_ids_hold_the_exact_time(time: int, prefix: str) -> None:
    assert wire.id_of_key(wire.first_key(time)) == prefix + "-8000-000000000000"


@given(times, tails)
def test_ids_are_version_1_uuids_and_lead_back_to_their_key(time: int, tail: int) -> None:
    key = wire.first_key(time) + tail
    parsed = uuid.UUID(wire.id_of_key(key))
    assert (parsed.version, parsed.time - wire.UUID_EPOCH_OFFSET) == (1, time)
    assert 0x80 <= parsed.bytes[8] <= 0x8F
    assert wire.key_of_id(str(parsed)) == key
    assert wire.first_key_after(str(parsed).upper()) == key + 1


@given(st.uuids())
def test_any_uuid_has_a_place_in_the_order_of_ids(start: uuid.UUID) -> None:
    def place(value: uuid.UUID) -> tuple[int, bytes]:
        return value.time, value.bytes

    key = wire.first_key_after(str(start))
    for neighbour in (key - 1, key):
        if 0 <= neighbour < 2**120:
            event = uuid.UUID(wire.id_of_key(neighbour))
            assert (place(event) > place(start)) == (neighbour >= key)


@pytest.mark.parametrize(
    "start_id", ["x", 5, {}, "13814001-1dd2-11b2-8000-00000000000", "é" * 36, "0" * 36, "\n"]
)
def test_other_start_ids_are_refused(start_id: object) -> None:
    with pytest.raises(ValueError, match="start_id"):
        wire.parse_range({"stream": "s", "end_time": 1, "start_id": start_id})


@pytest.mark.parametrize("name", [".", "a.b", "-", "A_9", "x" * 2048])
def test_good_stream_names(name: str) -> None:
    assert wire.is_stream_name(name)


@pytest.mark.parametrize("name", ["", "a b", "a\n", "é", "x" * 2049, None, 5, "@a", "a/b"])
def test_bad_stream_names(name: object) -> None:
    assert not wire.is_stream_name(name)


@pytest.mark.parametrize(
    ("request_", "start", "stop"),
    [
        ({"end_time": 5}, 0, 6),
        ({"start_time": -3, "end_time": "5"}, -3, 6),
        ({"start_time": 2.9, "end_time": 2.9}, 2, 3),
        ({"start_time": -(2**70), "end_time": 2**70}, wire.MIN_TIME, wire.MAX_TIME + 1),
        ({"start_time": 2**70, "end_time": -(2**70)}, wire.MAX_TIME + 1, wire.MIN_TIME),
        ({"start_id": "", "start_time": 4, "end_time": 9}, 4, 10),
    ],
)
def test_ranges(request_: dict[str, Any], start: int, stop: int) -> None:
    found = wire.parse_range({"stream": "s", **request_})
    assert (found.start, found.stop) == (wire.first_key(start), wire.first_key(stop))


@pytest.mark.parametrize(
    "bad", [{}, {"end_time": None}, {"end_time": "x"}, {"end_time": []}, {"start_time": None, "end_time": 1}]
)
def test_bad_times_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="_time must be an integer"):
        wire.parse_range({"stream": "s", **bad})
