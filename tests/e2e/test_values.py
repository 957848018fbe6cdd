"""Every column type: what the event store has equals what the official client reads from the table."""

from __future__ import annotations

import base64
import json
import logging
import math
import struct
from collections.abc import Callable, Iterator
from typing import Any

import gpudb
import pytest

from cluster.config import PipelineConfig
from protocols.kronos.client import KronosClient
from tests.e2e import traffic
from tests.e2e.conftest import wait_until

CHARS = [1, 2, 4, 8, 16, 32, 64, 128, 256]
LONG_TEXT = "long ☃ " * 500

#: Wire type, properties, and the values of the rows; the row after them is all null.
COLUMNS: dict[str, tuple[str, list[str], list[Any]]] = {
    "int": ("int", [], [2**31 - 1, -(2**31), 0]),
    "int8": ("int", ["int8"], [127, -128, 0]),
    "int16": ("int", ["int16"], [32767, -32768, 0]),
    "boolean": ("int", ["boolean"], [1, 0, 1]),
    "long": ("long", [], [2**63 - 1, -(2**63), 0]),
    "timestamp": ("long", ["timestamp"], [1700000000123, -30610224000000, 29379542399999]),
    "float": ("float", [], [1.1, float("-inf"), -0.0]),
    "double": ("double", [], [float("nan"), float("inf"), 5e-324]),
    "string": ("string", [], ['héllo ☃ 𝄞 "quoted" \\ \n', "", LONG_TEXT]),
    **{f"char{n}": ("string", [f"char{n}"], ["x" * n, "", "y"]) for n in CHARS},
    "date": ("string", ["date"], ["2024-02-29", "1000-01-01", "2900-12-31"]),
    "time": ("string", ["time"], ["23:59:59.999", "00:00:00", "12:34:56"]),
    "datetime": (
        "string",
        ["datetime"],
        ["2024-02-29 12:34:56.789", "1000-01-01 00:00:00", "2900-12-31 23:59:59.999"],
    ),
    "decimal": (
        "string",
        ["decimal"],
        ["123456789012345.6789", "-123456789012345.6789", "0.0001"],
    ),
    "decimal_10_3": ("string", ["decimal(10,3)"], ["1.500", "-9999999.999", "9999999.999"]),
    "ulong": ("string", ["ulong"], [str(2**64 - 1), "0", str(2**63)]),
    "uuid": (
        "string",
        ["uuid"],
        [
            "123e4567-e89b-12d3-a456-426614174000",
            "00000000-0000-0000-0000-000000000000",
            "ffffffff-ffff-ffff-ffff-ffffffffffff",
        ],
    ),
    "ipv4": ("string", ["ipv4"], ["192.168.1.1", "0.0.0.0", "255.255.255.255"]),
    "json": ("string", ["json"], ['{"a":[1,null,{"b":"é"}]}', "[]", '"text"']),
    "ints": ("string", ["array(int)"], ["[1,2,3]", "[]", "[-2147483648,2147483647]"]),
    "longs": ("string", ["array(long)"], ["[9223372036854775807]", "[]", "[-9223372036854775808,0]"]),
    "doubles": ("string", ["array(double)"], ["[1.5,-2.25]", "[]", "[0.1]"]),
    "floats": ("string", ["array(float)"], ["[1.5,-2.25]", "[]", "[0.5]"]),
    "booleans": ("string", ["array(boolean)"], ["[true,false]", "[]", "[true]"]),
    "texts": ("string", ["array(string)"], ['["a","b c"]', "[]", '["é"]']),
    "ulongs": ("string", ["array(ulong)"], [f"[{2**64 - 1},0]", "[]", "[1]"]),
    "wkt": ("string", ["wkt"], ["POINT(1 2)", "POLYGON((0 0,1 0,1 1,0 0))", "LINESTRING(0 0,1 1)"]),
    "wkb": ("bytes", ["wkt"], [b"\x01\x01\x00\x00\x00" + bytes(16), b"\x00", b"\x01"]),
    "bytes": ("bytes", [], [b"\x00\xff\x80", b"", bytes(range(256))]),
    "vector": (
        "bytes",
        ["vector(3)"],
        [struct.pack("<3f", 1, -2.5, 3.25), struct.pack("<3f", math.inf, -math.inf, 0), bytes(12)],
    ),
}  # fmt: skip


def expected(properties: list[str], value: Any) -> Any:
    """A value of the official client as events show it."""
    kind = properties[0].partition("(")[0] if properties else ""
    if value is None:
        return None
    if kind == "boolean":
        return bool(value)
    if kind == "json":
        return json.loads(value)
    if kind == "array":
        items = json.loads(value)
        return [str(item) for item in items] if "ulong" in properties[0] else items
    if kind == "vector":
        return [expected([], number) for (number,) in struct.iter_unpack("<f", value)]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


@pytest.fixture
def quiet() -> Iterator[None]:
    """The official client logs every call."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_values_of_every_type_arrive_as_the_official_client_reads_them(
    quiet: None,
    start: Callable[[PipelineConfig], Any],
    make_config: Callable[..., PipelineConfig],
    unique: str,
    kinetica_url: str,
    kronos: KronosClient,
) -> None:
    db = gpudb.GPUdb(host=kinetica_url)
    columns = [["id", "int", "primary_key"]]
    columns += [[name, base, *properties, "nullable"] for name, (base, properties, _) in COLUMNS.items()]
    table = gpudb.GPUdbTable(columns, unique, db=db)
    start(make_config(unique, [unique]))
    rows = [[n, *(values[n] for _, _, values in COLUMNS.values())] for n in range(3)]
    rows.append([3, *([None] * len(COLUMNS))])
    table.insert_records(rows)
    wait_until(lambda: len(traffic.events(kronos, unique)) == len(rows), "every row stored")
    stored = traffic.events(kronos, unique)
    read = sorted(table.get_records(), key=lambda record: record["id"])
    assert len(read) == len(rows)
    for record, event in zip(read, stored, strict=True):
        assert set(event) - {"@id", "@time", "@origin"} == {"id", *COLUMNS}
        assert event["id"] == record["id"]
        for name, (_, properties, _) in COLUMNS.items():
            value = expected(properties, record[name])
            assert event[name] == value, name
            assert type(event[name]) is type(value), name
    # -0.0 and 0.0 are equal.
    assert math.copysign(1, stored[2]["float"]) == -1
