"""What can be read of a broken frame."""

from __future__ import annotations

import pytest

from actors.codec.partial import read_partly
from actors.monitor.kinetica import block_schema
from protocols.kinetica.types import Column, TableType

TYPE = TableType(
    (Column("id", "int"), Column("name", "string", True, ("nullable",)), Column("x y", "double"))
)
SCHEMA = block_schema(TYPE.definition, TYPE.properties)
WHOLE = b"\x02" + b"\x00\x04ab" + b"\0" * 8


@pytest.mark.parametrize(
    ("frame", "values", "ends"),
    [
        (WHOLE, [1, "ab", 0.0], "every column can be read"),
        (WHOLE + b"12", [1, "ab", 0.0], "2 bytes are left over"),
        (WHOLE[:6], [1, "ab"], "column x y (double) cannot be read at byte 5"),
        (b"\x02\x00\x04\xff\xff", [1], "column name (string) cannot be read at byte 1: UnicodeDecodeError"),
        (b"\x02\x06", [1], "column name (string) cannot be read at byte 1: IndexError"),
        (b"", [], "column id (int) cannot be read at byte 0: EOFError"),
    ],
)
def test_leading_columns(frame: bytes, values: list[object], ends: str) -> None:
    partly = read_partly("avro", SCHEMA, frame)
    assert [value for _, _, value in partly.columns] == values
    assert partly.ends.startswith(ends)
    expected = [("id", "int"), ("name", "string"), ("x y", "double")]
    assert [column[:2] for column in partly.columns] == expected[: len(values)]


def test_another_format_is_not_taken_apart() -> None:
    assert read_partly("arrow", "{}", b"[]").ends == "not taken apart: its format is arrow"
