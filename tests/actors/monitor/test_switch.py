"""Dividing frames between types: nothing that can be told lands on the wrong side."""

from __future__ import annotations

import io
from typing import Any

import fastavro
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from actors.codec.exact import FrameError, ReferenceDecoder
from actors.monitor.switch import describe_change, divide
from protocols.kinetica.types import Column, TableType


def of(*columns: tuple[str, str] | tuple[str, str, tuple[str, ...]]) -> TableType:
    return TableType(tuple(Column(name, base, False, *rest) for name, base, *rest in columns))


def row(table_type: TableType, *values: Any) -> bytes:
    out = io.BytesIO()
    record = dict(zip(table_type.names, values, strict=True))
    fastavro.schemaless_writer(out, fastavro.parse_schema(table_type.avro), record)
    return out.getvalue()


AB = of(("a", "string"), ("b", "string"))
AC = of(("a", "string"), ("c", "string"))
A = of(("a", "string"))
ABN = of(("a", "string"), ("b", "string"), ("n", "long"))
OLD, NEW = 0, 1


def sides(frames: list[bytes], *types: TableType, proven_new: int | None = None) -> list[object]:
    division = divide(frames, types, proven_new)
    pairs = zip(division.oldest.tolist(), division.newest.tolist(), strict=True)
    return [old if old == new else "?" for old, new in pairs]


def test_frames_that_differ_decide_for_those_around_them() -> None:
    frames = [row(AB, "1", "1"), row(A, "2")]
    assert sides(frames, AB, A) == [OLD, NEW]
    assert divide(frames, (AB, A)).first_new == 1
    assert sides([], AB, A) == []


def test_a_rename_is_ambiguous_up_to_what_is_proven() -> None:
    frames = [row(AB, "x", "y")] * 4
    assert sides(frames, AB, AC) == ["?"] * 4
    assert sides(frames, AB, AC, proven_new=2) == ["?", "?", NEW, NEW]
    assert divide(frames, (AB, AC), 2).first_new == 2
    assert divide(frames, (AB, AC)).first_new == 4
    assert sides(frames, AB, AC, proven_new=0) == [NEW] * 4


def test_what_may_be_of_a_type_that_nobody_saw_is_ambiguous_whatever_its_bytes_say() -> None:
    frames = [row(AB, "1", "1"), row(A, "2"), row(A, "3")]
    division = divide(frames, (AB, A), 2, unseen=True)
    assert division.ambiguous == [0, 1]
    assert division.first_new == 1


def test_the_zone_of_doubt_ends_at_the_last_old_and_the_first_new() -> None:
    # A long where a double was: eight bytes of varint are a double as well.
    old, new = of(("x", "double")), of(("x", "long"))
    both, only_old, only_new = row(new, (1 << 55) - 1), bytes([0x80] * 8), row(new, 1)
    assert len(both) == 8
    frames = [both, only_old, both, both, only_new, both]
    assert sides(frames, old, new) == [OLD, OLD, "?", "?", NEW, NEW]
    assert divide(frames, (old, new)).ambiguous == [2, 3]


def test_a_frame_of_no_type_keeps_its_place_and_is_not_ambiguous() -> None:
    good = row(AB, "x", "y")
    assert sides([good, b"\xff", good], AB, AC) == ["?", OLD, "?"]
    assert sides([b"\xff"], AB, AC) == [OLD]


def test_rows_of_a_third_type_that_look_like_the_first_are_not_taken_for_it() -> None:
    """Column b was deleted and c added: between the two nobody inserted."""
    frames = [row(AB, "1", "b"), row(AC, "2", "c")]
    assert sides(frames, AB, A, AC) == ["?", "?"]
    assert sides([frames[0], row(A, "x"), frames[1]], AB, A, AC) == [0, 1, 2]


def test_against_the_order_each_frame_goes_by_itself() -> None:
    assert sides([row(A, "1"), row(AB, "2", "2")], AB, A) == [NEW, OLD]


def test_types_that_differ_in_properties_only_are_told_apart_by_what_they_allow() -> None:
    narrow, wide = of(("s", "string", ("char4",))), of(("s", "string", ("char16",)))
    frames = [row(wide, "abc"), row(wide, "abcdefgh"), row(wide, "abc")]
    assert sides(frames, narrow, wide) == [OLD, NEW, OLD]  # the same value under either


def test_what_changed_is_described_for_people() -> None:
    old = TableType((Column("id", "long", False, ("primary_key",)), Column("s", "string", True)))
    change = describe_change(old, TableType((old.columns[0], Column("t", "string", True, ("char8",)))))
    assert change == {
        "old_columns": ["id long(primary_key)", "s string(nullable)"],
        "new_columns": ["id long(primary_key)", "t string(char8, nullable)"],
        "added": ["t string(char8, nullable)"],
        "removed": ["s string(nullable)"],
    }


BASES = st.sampled_from(["int", "long", "double", "float", "string", "bytes"])
COLUMNS = st.lists(st.tuples(BASES, st.booleans()), min_size=1, max_size=3)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "int": st.integers(-3, 3),
    "long": st.integers(-3, 3) | st.integers(-(1 << 62), 1 << 62),
    "double": st.floats(width=64),
    "float": st.floats(width=32),
    "string": st.text(max_size=3),
    "bytes": st.binary(max_size=3),
}


def table_type(columns: list[tuple[str, bool]], prefix: str) -> TableType:
    return TableType(tuple(Column(f"{prefix}{i}", base, null) for i, (base, null) in enumerate(columns)))


def rows_of(table_type: TableType) -> st.SearchStrategy[bytes]:
    each = [
        VALUES[column.base] | st.none() if column.nullable else VALUES[column.base]
        for column in table_type.columns
    ]
    return st.tuples(*each).map(lambda values: row(table_type, *values))


def readable(frame: bytes, table_type: TableType) -> bool:
    try:
        ReferenceDecoder(table_type.columns).read(frame)
    except FrameError:
        return False
    return True


@settings(max_examples=200, deadline=None)
@given(st.data(), st.lists(COLUMNS, min_size=2, max_size=3), st.booleans())
def test_no_frame_is_put_on_the_wrong_side(
    data: st.DataObject, columns: list[list[tuple[str, bool]]], proven: bool
) -> None:
    types = [table_type(each, f"t{i}_") for i, each in enumerate(columns)]
    parts = [data.draw(st.lists(rows_of(each), max_size=4)) for each in types]
    frames = [frame for part in parts for frame in part]
    truth = [i for i, part in enumerate(parts) for _ in part]
    assume(frames)
    last = len(types) - 1
    known = len(frames) - len(parts[-1]) if proven else None
    division = divide(frames, types, known)
    for place, (frame, true) in enumerate(zip(frames, truth, strict=True)):
        assert division.oldest[place] <= true <= division.newest[place]
        assert division.possible[true, place]
        able = [readable(frame, each) for each in types]
        # Decidable by the bytes, or by those that came before or after.
        if sum(able) == 1 or (known is not None and place >= known):
            assert division.oldest[place] == division.newest[place] == true
        after = [i for i in range(len(types)) if any(only(f, types) == i for f in frames[:place])]
        before = [i for i in range(len(types)) if any(only(f, types) == i for f in frames[place + 1 :])]
        assert division.oldest[place] >= max(after, default=0)
        assert division.newest[place] <= min(before, default=last)
    assert all(each == last for each in division.oldest[division.first_new :])


def only(frame: bytes, types: list[TableType]) -> int | None:
    """The one type that reads `frame`."""
    able = [i for i, each in enumerate(types) if readable(frame, each)]
    return able[0] if len(able) == 1 else None
