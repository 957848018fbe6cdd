"""Known frames: the captured vectors, what each type becomes, and what is refused with which words."""

import datetime as dt
import io
import math
import struct
from decimal import Decimal
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
import pytest

from actors.codec.codec import Codec, Decoded
from actors.codec.meaning import TYPE_KEY
from protocols.kinetica.types import Column, TableType

V1_TYPE = TableType.parse(
    '{"type": "record", "name": "type_name", "fields": [{"type": "int", "name": "id"}, '
    '{"type": ["long", "null"], "name": "n"}, {"type": "double", "name": "x"}, '
    '{"type": ["float", "null"], "name": "f"}, {"type": ["string", "null"], "name": "s"}, '
    '{"type": "long", "name": "ts"}, {"type": ["string", "null"], "name": "d"}, '
    '{"type": ["bytes", "null"], "name": "b"}]}',
    {
        "id": ["primary_key"],
        "n": ["nullable"],
        "f": ["nullable"],
        "s": ["char16", "nullable"],
        "ts": ["timestamp"],
        "d": ["date", "nullable"],
        "b": ["nullable"],
    },
)
V1 = [
    bytes.fromhex(
        "0200d704000000000000f83f00cdcccc3d000ac3a9e2988380a0abfef9620014323032342d30322d3239000400ff"
    ),
    bytes.fromhex("feffffff0f02000000000000f87f0202010202"),
    bytes.fromhex("0100feffffffffffffffff01000000000000f0ff000000008000000000000000"),
]

V9_COLUMNS: list[tuple[str, tuple[str, ...], Any]] = [
    ("int", (), 1),
    ("int", ("int8",), -128),
    ("int", ("int16",), 32767),
    ("int", ("boolean",), True),
    ("long", (), -(2**63)),
    ("long", ("timestamp",), dt.datetime(2023, 11, 14, 22, 13, 20, 123000, tzinfo=dt.UTC)),
    ("float", (), struct.unpack("<f", struct.pack("<f", 1.1))[0]),
    ("double", (), 2.2),
    ("string", (), "héllo ☃ 𝄞"),
    ("string", ("char1",), "x"),
    ("string", ("char4",), "éé"),
    ("string", ("char8",), "12345678"),
    ("string", ("char16",), "0123456789abcdef"),
    ("string", ("date",), dt.date(2024, 2, 29)),
    ("string", ("time",), dt.time(23, 59, 59, 999000)),
    ("string", ("datetime",), dt.datetime(2024, 2, 29, 12, 34, 56, 789000)),
    ("string", ("decimal",), Decimal("123456789012345.6789")),
    ("string", ("decimal(10,3)",), Decimal("1.500")),
    ("string", ("ulong",), 2**64 - 1),
    ("string", ("uuid",), "123e4567-e89b-12d3-a456-426614174000"),
    ("string", ("ipv4",), "192.168.1.1"),
    ("string", ("json",), '{"a":[1,null]}'),
    ("string", ("array(int)",), [1, 2, 3]),
    ("string", ("array(boolean)",), [True, False]),
    ("string", ("wkt",), "POINT(1 2)"),
    ("bytes", (), b"\x00\xff\x80"),
    ("bytes", ("vector(3)",), [1.0, -2.5, 3.25]),
]
V9_TYPE = TableType(
    tuple(Column(f"c{i}", base, i > 0, marks) for i, (base, marks, _) in enumerate(V9_COLUMNS))
)
V9 = [
    bytes.fromhex(
        "0200ff0100feff03000200ffffffffffffffffff0100f6a1abfef96200cdcc8c3f009a99999999990140001e68c3a96c6c6f20e2"
        "988320f09d849e0002780008c3a9c3a900103132333435363738002030313233343536373839616263646566001432303234"
        "2d30322d3239001832333a35393a35392e393939002e323032342d30322d32392031323a33343a35362e373839002831323334"
        "35363738393031323334352e36373839000a312e35303000283138343436373434303733373039353531363135004831323365"
        "343536372d653839622d313264332d613435362d34323636313431373430303000163139322e3136382e312e31001c7b2261"
        "223a5b312c6e756c6c5d7d000e5b312c322c335d00185b747275652c66616c73655d0014504f494e542831203229000600ff80"
        "00180000803f000020c000005040"
    ),
    bytes.fromhex("04" + "02" * 26),
]


def one(base: str, *properties: str, nullable: bool = False) -> TableType:
    return TableType((Column("c", base, nullable, properties),))


def frames_of(table: TableType, *values: Any) -> list[bytes]:
    """Frames of a table with one column."""
    schema = fastavro.parse_schema(table.avro)
    frames = []
    for value in values:
        out = io.BytesIO()
        fastavro.schemaless_writer(out, schema, {"c": value})
        frames.append(out.getvalue())
    return frames


def decode(table: TableType, *values: Any) -> Decoded:
    return Codec(table).decode(frames_of(table, *values))


def test_v1_raw_is_what_the_official_client_reads() -> None:
    decoded = Codec(V1_TYPE, raw=True).decode(V1)
    assert decoded.positions is None
    assert decoded.rejects == ()
    first, second, third = decoded.rows.to_pylist()
    tenth = struct.unpack("<f", struct.pack("<f", 0.1))[0]
    assert list(first.values()) == [1, -300, 1.5, tenth, "é☃", 1700000000000, "2024-02-29", b"\x00\xff"]
    assert math.isnan(second.pop("x"))
    assert list(second.values()) == [2**31 - 1, None, None, None, -1, None, None]
    assert list(third.values()) == [-1, 2**63 - 1, -math.inf, -0.0, "", 0, "", b""]
    assert math.copysign(1, third["f"]) == -1


def test_v1_typed_refuses_only_the_empty_date() -> None:
    decoded = Codec(V1_TYPE).decode(V1)
    assert decoded.positions is not None
    assert decoded.positions.tolist() == [0, 1]
    assert decoded.rows["d"].to_pylist() == [dt.date(2024, 2, 29), None]
    assert decoded.rows["ts"][0].as_py() == dt.datetime(2023, 11, 14, 22, 13, 20, tzinfo=dt.UTC)
    (reject,) = decoded.rejects
    assert (reject.position, reject.frame) == (2, V1[2])
    assert reject.reason == "column d: '' is not a valid date"


def test_v9_all_kinds_and_all_null() -> None:
    decoded = Codec(V9_TYPE).decode(V9)
    assert decoded.rejects == ()
    full, nulls = decoded.rows.to_pylist()
    assert list(full.values()) == [expected for _, _, expected in V9_COLUMNS]
    assert list(nulls.values()) == [2] + [None] * 26


def test_v9_fields_are_marked_and_nullable() -> None:
    schema = Codec(V9_TYPE).schema
    for field, (_, marks, _) in zip(schema, V9_COLUMNS, strict=True):
        assert field.nullable
        assert (field.metadata or {}).get(TYPE_KEY, b"").decode() == "".join(marks)
    assert all(field.metadata is None for field in Codec(V9_TYPE, raw=True).schema)


def test_no_frames() -> None:
    decoded = Codec(V9_TYPE).decode([])
    assert (decoded.rows.num_rows, decoded.positions, decoded.rejects) == (0, None, ())
    assert decoded.rows.schema.equals(Codec(V9_TYPE).decode(V9).rows.schema)


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"", "it ends too early"),
        (V1[0][:-1], "it ends too early"),
        (V1[0] + b"\0", "bytes left over: 1"),
        (b"\x04" * 30, "it ends too early, or has an unknown union branch"),
        (V1[0].replace("é".encode(), b"\xc3("), "a text is not UTF-8"),
    ],
)
def test_a_bad_frame_is_a_reject_and_the_others_go_on_in_order(frame: bytes, reason: str) -> None:
    decoded = Codec(V1_TYPE, raw=True).decode([V1[0], frame, V1[2]])
    assert decoded.rows["id"].to_pylist() == [1, -1]
    assert decoded.positions is not None
    assert decoded.positions.tolist() == [0, 2]
    (reject,) = decoded.rejects
    assert (reject.position, reject.reason) == (1, f"not a row of this table type: {reason}")


def test_only_bad_frames() -> None:
    decoded = Codec(V1_TYPE).decode([b"", b"\xff"])
    assert decoded.rows.num_rows == 0
    assert decoded.rows.schema.equals(Codec(V1_TYPE).schema)
    assert [reject.position for reject in decoded.rejects] == [0, 1]


def test_bytes_that_move_to_the_next_frame_are_noticed() -> None:
    joined = V1[0] + V1[2]
    for cut in range(1, len(joined)):
        decoded = Codec(V1_TYPE, raw=True).decode([joined[:cut], joined[cut:]])
        # What is left of the second frame may be a row by itself; the first frame never is.
        assert (0 in [reject.position for reject in decoded.rejects]) == (cut != len(V1[0]))


def test_frames_of_an_altered_type_are_rejects() -> None:
    wider = TableType((*V1_TYPE.columns, Column("new", "int")))
    decoded = Codec(wider, raw=True).decode([V1[0], V1[0] + b"\x02", V1[2]])
    assert [reject.position for reject in decoded.rejects] == [0, 2]
    assert decoded.rows["new"].to_pylist() == [1]


def test_varints_of_every_length_and_sloppy_ones() -> None:
    values = [sign * (1 << bits) - down for bits in range(63) for sign in (1, -1) for down in (0, 1)]
    values += [2**63 - 1, -(2**63), 0]
    table = one("long")
    frames = frames_of(table, *values)
    assert Codec(table).decode(frames).rows["c"].to_pylist() == values
    # Padded with empty groups, a varint reads the same; fastavro says so, and the fast path must agree.
    padded = [bytes([*(b | 0x80 for b in frame), 0x80, 0]) for frame in frames if len(frame) < 9]
    assert Codec(table).decode(padded).rows["c"].to_pylist() == [
        v for v, f in zip(values, frames, strict=True) if len(f) < 9
    ]


def test_an_int_out_of_range_is_a_reject() -> None:
    table = one("int", nullable=True)
    frames = [b"\0" + frame for frame in frames_of(one("long"), 2**31 - 1, 2**31, -(2**31), -(2**31) - 1)]
    decoded = Codec(table).decode([*frames, b"\x02"])
    assert decoded.rows["c"].to_pylist() == [2**31 - 1, -(2**31), None]
    assert [reject.reason for reject in decoded.rejects] == [
        "column c: 2147483648 is out of the range of int",
        "column c: -2147483649 is out of the range of int",
    ]


@pytest.mark.parametrize(
    ("base", "mark", "good", "bad"),
    [
        ("int", "boolean", [0, 1], [2, 7, -1]),
        ("int", "int8", [-128, 127], [128, -129]),
        ("int", "int16", [-32768, 32767], [32768]),
        ("string", "char4", ["", "éé", "abcd"], ["ééx", "abcde"]),
        ("string", "char256", ["x" * 256], ["x" * 257]),
        (
            "string",
            "date",
            ["0001-01-01", "9999-12-31"],
            ["", "2023-02-29", "2024-2-9", "0000-01-01", "20240101"],
        ),
        (
            "string",
            "time",
            ["00:00:00", "23:59:59.5"],
            ["24:00:00", "12:00", "12:00:00.", "1:00:00", "12:00:60"],
        ),
        (
            "string",
            "datetime",
            ["2024-02-29 00:00:00", "1000-01-01T23:59:59.123456"],
            ["2024-02-29", "2024-02-29 12:34", "2024-02-30 00:00:00", "2024-02-29 00:00:00Z", "nonsense"],
        ),
        ("string", "decimal", ["922337203685477.5807", "-1", "0"], ["1.00001", "x", "", "1" * 16]),
        ("string", "decimal(10,3)", ["1.5", "-9999999.999"], ["10000000", "1.2345", "NaN"]),
        ("string", "ulong", ["0", "18446744073709551615"], ["18446744073709551616", "-1", "0x1F", "", "1.0"]),
        (
            "string",
            "json",
            ["{}", " [1]\n", '"x"', "null"],
            ["", "{", "nan", "1 2", "1,2", '"\\ud800"', "[" * 2000],
        ),
        (
            "string",
            "array(int)",
            ["[]", "[1,null]"],
            ["1", "[1.5]", "[true]", '["1"]', "[2147483648]", "[1,2", "["],
        ),
        ("string", "array(string,5)", ['["a","b,c"]', "[]"], ["[a,b c]", "[1]"]),
        ("string", "array(double)", ["[1,2.5]"], ['["x"]', "[" * 100_000]),
        ("string", "array(ulong)", ["[18446744073709551615]"], ["[-1]", "[18446744073709551616]"]),
        ("bytes", "vector(2)", [bytes(8)], [b"", bytes(7), bytes(12)]),
    ],
)
def test_values_that_do_not_fit_make_rejects(base: str, mark: str, good: list[Any], bad: list[Any]) -> None:
    table = one(base, mark, nullable=True)
    mixed = [value for pair in zip(bad, [None] * len(bad), strict=True) for value in pair]
    decoded = decode(table, *good, *mixed, *good)
    assert [reject.position for reject in decoded.rejects] == [len(good) + 2 * i for i in range(len(bad))]
    assert all(reject.reason.startswith("column c: ") for reject in decoded.rejects)
    assert all(reject.reason.endswith(f" is not a valid {mark}") for reject in decoded.rejects)
    assert all(len(reject.reason) < 120 for reject in decoded.rejects)
    alone = decode(table, *good).rows["c"].to_pylist()
    assert len(alone) == len(good)
    assert decoded.rows["c"].to_pylist() == alone + [None] * len(bad) + alone
    # The same values, asked for raw, all pass.
    assert Codec(table, raw=True).decode(frames_of(table, *good, *bad)).rows["c"].to_pylist() == good + bad


def test_values_by_meaning() -> None:
    assert decode(one("string", "datetime"), "2024-02-29T01:02:03.04").rows["c"].to_pylist() == [
        dt.datetime(2024, 2, 29, 1, 2, 3, 40000)
    ]
    assert decode(one("string", "time"), "01:02:03.000004").rows["c"].to_pylist() == [dt.time(1, 2, 3, 4)]
    assert decode(one("string", "decimal(20,0)"), "-" + "9" * 20).rows["c"].to_pylist() == [
        Decimal("-" + "9" * 20)
    ]
    assert decode(one("string", "array(double)"), "[1,2.5]").rows["c"].to_pylist() == [[1.0, 2.5]]
    assert decode(one("string", "array(float)"), "[0.5]", "[Infinity]").rows["c"].to_pylist() == [
        [0.5],
        [math.inf],
    ]
    assert decode(one("string", "array(string)"), '["a,b"]').rows["c"].to_pylist() == [["a,b"]]
    assert decode(one("bytes", "wkt"), b"\x01").rows["c"].to_pylist() == [b"\x01"]
    timestamps = decode(one("long", "timestamp"), 2**63 - 1, -1).rows["c"]
    assert timestamps.type == pa.timestamp("ms", "UTC")
    assert timestamps.cast(pa.int64()).to_pylist() == [2**63 - 1, -1]


def test_texts_that_only_together_are_json_are_rejects() -> None:
    # Joined by commas these would be three values; each must be one by itself.
    decoded = decode(one("string", "json"), "[1", "2]", "3,4", "5")
    assert [reject.position for reject in decoded.rejects] == [0, 1, 2]
    decoded = decode(one("string", "array(int)"), "[1]", "[2],[3]", "[4", "5]")
    assert [reject.position for reject in decoded.rejects] == [1, 2, 3]


def test_a_property_that_is_not_understood_leaves_the_wire_value() -> None:
    for table in (
        one("string", "decimal(90,3)"),
        one("string", "array(thing)"),
        one("string", "date32"),
        one("string", "vector(3)"),
        one("string", "default(x) (y)"),
    ):
        decoded = decode(table, "x")
        assert decoded.rows["c"].to_pylist() == ["x"]
        assert decoded.rows.schema.field("c").metadata is None


def test_the_first_bad_column_gives_the_reason() -> None:
    table = TableType((Column("a", "int", False, ("boolean",)), Column("b", "string", False, ("char1",))))
    decoded = Codec(table).decode([b"\x0e\x06abc", b"\x02\x06abc", b"\x02\x02a"])
    assert [reject.reason for reject in decoded.rejects] == [
        "column a: 7 is not a valid boolean",
        "column b: 'abc' is not a valid char1",
    ]
    assert decoded.rows.to_pylist() == [{"a": True, "b": "a"}]


def test_column_names_need_not_be_avro_names() -> None:
    table = TableType((Column("größe in m²", "int"), Column("@time", "int", True)))
    decoded = Codec(table).decode([b"\x02\x02", b"\x02"])
    assert decoded.rows.to_pylist() == [{"größe in m²": 1, "@time": None}]
    assert len(decoded.rejects) == 1


def test_a_frame_that_asks_for_a_huge_text_is_a_reject() -> None:
    for size in (2**31, 2**40, 2**62, -1, -(2**63)):
        (frame,) = frames_of(one("long"), size)
        for table in (one("string"), one("bytes", nullable=True)):
            decoded = Codec(table).decode([(b"\0" if table.columns[0].nullable else b"") + frame + b"abc"])
            assert len(decoded.rejects) == 1


def test_a_large_block_keeps_its_order_around_rejects() -> None:
    table = one("long")
    frames = frames_of(table, *range(20_000))
    bad = set(range(0, 20_000, 7))
    decoded = Codec(table).decode([frame + b"x" if i in bad else frame for i, frame in enumerate(frames)])
    kept = [i for i in range(20_000) if i not in bad]
    assert decoded.rows["c"].to_pylist() == kept
    assert np.array_equal(decoded.positions, kept)
    assert [reject.position for reject in decoded.rejects] == sorted(bad)
