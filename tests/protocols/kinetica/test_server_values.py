"""Which values each column type takes, and how texts that are numbers compare."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.kinetica.server.rows import FEW, codec_of
from protocols.kinetica.server.sql import compare_numbers
from protocols.kinetica.server.values import find_invalid, from_text, to_text
from protocols.kinetica.types import Column, TableType

CASES: list[tuple[str, str, list[Any], list[Any]]] = [
    ("int", "int8", [-128, 127], [-129, 128]),
    ("int", "int16", [-32768, 32767], [-32769, 32768]),
    ("int", "boolean", [0, 1], [2, -1]),
    ("string", "char1", ["", "x"], ["é", "xx"]),
    ("string", "char4", ["éé", "a\0bc"], ["ééé"]),
    ("string", "char256", ["x" * 256], ["x" * 257]),
    (
        "string",
        "date",
        ["", "2024-02-29", "1000-01-01"],
        ["2023-02-29", "2024-2-9", "20240229", "2024-02-29 "],
    ),
    (
        "string",
        "time",
        ["", "00:00:00", "23:59:59.9", "23:59:59.123456"],
        ["24:00:00", "1:00:00", "12:00", "x"],
    ),
    (
        "string",
        "datetime",
        ["", "2024-02-29 12:34:56", "2024-02-29T12:34:56.789", "2024-02-29 12:34:56.123456"],
        ["2024-02-30 00:00:00", "2024-02-29", "2024-02-29 25:00:00", "2024-02-29  12:34:56"],
    ),
    ("string", "decimal", ["1", "-1.50", "+.5", "1.", "1" * 40], ["", "1e5", "NaN", "1,5", ".", "१"]),
    ("string", "decimal(5,2)", ["999.99", "-000999.999"], ["1000", "-1000.0"]),
    ("string", "ulong", ["0", "18446744073709551615"], ["18446744073709551616", "-1", "", "1.0", "٣"]),
    (
        "string",
        "uuid",
        ["123e4567-e89b-12d3-a456-426614174000", "123E4567-E89B-12D3-A456-426614174000"],
        ["123e4567e89b12d3a456426614174000", "", "123e4567-e89b-12d3-a456-42661417400g"],
    ),
    ("string", "ipv4", ["192.168.1.1", "0.0.0.0"], ["256.1.1.1", "1.2.3", "::1", ""]),
    ("string", "json", ["{}", "null", '{"a":[1,null]}'], ["{", "", "[" * 100_000]),
    ("string", "array(int)", ["[]", "[1,null,-2]"], ["[2147483648]", "[1.5]", "1", '["a"]', "{}"]),
    ("string", "array(long,2)", ["[1,2]"], ["[1,2,3]", "[9223372036854775808]"]),
    ("string", "array(boolean)", ["[true,false,1]"], ["[2]"]),
    ("string", "array(string)", ["[a,b c]", '["a"]'], ["a"]),
    ("string", "array(double)", ["[1,2.5,NaN]"], ['["x"]']),
    ("bytes", "vector(3)", [b"x" * 12], [b"x" * 11, b"", b"x" * 16]),
    ("string", "wkt", ["POINT(1 2)", "anything"], []),
    ("long", "timestamp", [-1, 2**63 - 1], []),
]


@pytest.mark.parametrize(("base", "kind", "good", "bad"), CASES, ids=[case[1] for case in CASES])
def test_values(base: str, kind: str, good: list[Any], bad: list[Any]) -> None:
    column = Column("c", base, True, ("nullable", kind))
    assert find_invalid(column, [*good, None]) == []
    assert find_invalid(column, [*bad, None]) == list(range(len(bad)))


@given(st.lists(st.decimals(allow_nan=False, allow_infinity=False) | st.integers().map(Decimal), max_size=8))
def test_numbers_as_text_sort_as_numbers(numbers: list[Decimal]) -> None:
    for a in numbers:
        for b in numbers:
            assert compare_numbers(str(a), str(b)) == (a > b) - (a < b)


@given(
    st.lists(
        st.sampled_from(["", "x", "NaN", "1", "-2", "10", "é", "sNaN", "inf"]) | st.text(max_size=3),
        min_size=3,
    )
)
def test_any_texts_have_one_order(texts: list[str]) -> None:
    for a in texts:
        for b in texts:
            assert compare_numbers(a, b) == -compare_numbers(b, a)
            for c in texts:
                if compare_numbers(a, b) <= 0 and compare_numbers(b, c) <= 0:
                    assert compare_numbers(a, c) <= 0


ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "i": st.integers(-(2**31), 2**31 - 1),
            "l": st.none() | st.integers(-(2**63), 2**63 - 1),
            "d": st.floats(),
            "f": st.none() | st.floats(width=32),
            "s": st.none() | st.text(),
            "b": st.binary(),
        }
    ),
    max_size=20,
)
TYPE = TableType(
    (
        Column("i", "int"),
        Column("l", "long", True),
        Column("d", "double"),
        Column("f", "float", True),
        Column("s", "string", True),
        Column("b", "bytes"),
    )
)


@given(ROWS, st.data())
def test_few_and_many_records_are_judged_alike(rows: list[dict[str, Any]], data: st.DataObject) -> None:
    codec = codec_of(TYPE)
    frames = [bytearray(codec.encode(row)) for row in rows]
    for frame in frames:
        if data.draw(st.booleans()):
            frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    mutated = [bytes(frame) for frame in frames]
    filler = codec.encode({"i": 0, "l": None, "d": 0.0, "f": None, "s": None, "b": b""})
    columns, problems = codec.inspect([*mutated, *[filler] * FEW])
    for index, frame in enumerate(mutated):
        alone, problem = codec.inspect([frame])
        assert bool(problem) == (index in problems)
        if not problem:
            assert repr([values[0] for values in alone]) == repr([values[index] for values in columns])


@given(ROWS)
def test_rows_round_trip(rows: list[dict[str, Any]]) -> None:
    codec = codec_of(TYPE)
    frames = [codec.encode(row) for row in rows]
    assert repr(codec.rows(frames)) == repr([{name: row[name] for name in TYPE.names} for row in rows])
    for column in TYPE.columns:
        for row in rows:
            if row[column.name] is not None:
                assert repr(from_text(column, to_text(row[column.name]))) == repr(row[column.name])
