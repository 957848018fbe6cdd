"""Decoding: this codec against the official client's C codec and fastavro, on four table types, one core.

Every way gets the same frames, as they come out of a block, and is timed in turn (A B C D, A B C D, ...).
Medians are quoted; ratios are of CPU time, on which other work on the machine tells least. This codec makes
Arrow columns of final types (dates, decimals, ...); the others make dicts of wire values, which for the C codec
is what the official table monitor does for each record.

    python benchmarks/decode.py [--records 10000] [--rounds 9] [--json]
"""

from __future__ import annotations

import argparse
import io
import random
import statistics
import struct
import time
from collections.abc import Callable
from typing import Any

import fastavro
import gpudb
import msgpack
from report import report

from actors.codec.codec import Codec
from protocols.kinetica.types import Column, TableType

#: One column: base type, nullable, properties, and what draws a wire value.
Spec = tuple[str, bool, tuple[str, ...], Callable[[random.Random], Any]]

_long: Spec = ("long", False, ("timestamp",), lambda r: 1_700_000_000_000 + r.randrange(10**9))
_id: Spec = ("long", False, (), lambda r: r.randrange(10**6))
_int: Spec = ("int", False, (), lambda r: r.randrange(-5000, 5000))
_double: Spec = ("double", False, (), lambda r: r.gauss(0, 1000))
_float: Spec = ("float", True, (), lambda r: None if r.random() < 0.1 else r.random())
_word: Spec = ("string", False, ("char16",), lambda r: r.choice(("JFK", "LaGuardia", "Newark", "N14228")))
_note: Spec = ("string", True, (), lambda r: None if r.random() < 0.2 else "x" * r.randrange(5, 20))
_date: Spec = (
    "string",
    False,
    ("date",),
    lambda r: f"20{r.randrange(10, 30)}-0{r.randrange(1, 10)}-1{r.randrange(10)}",
)
_datetime: Spec = ("string", True, ("datetime",), lambda r: f"{_date[3](r)} 12:34:56.{r.randrange(1000):03}")
_price: Spec = ("string", False, ("decimal(10,3)",), lambda r: f"{r.randrange(10**6)}.{r.randrange(1000):03}")
_uuid: Spec = (
    "string",
    False,
    ("uuid",),
    lambda r: "-".join(f"{r.getrandbits(32):08x}"[:n] for n in (8, 4, 4, 4)),
)
_vector: Spec = (
    "bytes",
    False,
    ("vector(8)",),
    lambda r: struct.pack("<8f", *(r.random() for _ in range(8))),
)

SCHEMAS: dict[str, list[Spec]] = {
    "narrow": [_id, _long, _double, _int],
    "mixed": [_id, _double, _double, _long, _word, _note, _int, _float],
    "wide": [_id, _long, _double, _double, _int, _int, _word, _note, _float, _float] * 5,
    "rich": [_id, _date, _datetime, _price, _price, _uuid, _vector, _word],
}


def table_type(specs: list[Spec]) -> TableType:
    return TableType(
        tuple(Column(f"c{i}", base, null, marks) for i, (base, null, marks, _) in enumerate(specs))
    )


def make_frames(table: TableType, specs: list[Spec], count: int) -> list[bytes]:
    """Frames as the decoder gets them: unpacked from one block."""
    rng = random.Random(1)
    schema = fastavro.parse_schema(table.avro)
    frames = []
    for _ in range(count):
        out = io.BytesIO()
        fastavro.schemaless_writer(out, schema, {f"c{i}": spec[3](rng) for i, spec in enumerate(specs)})
        frames.append(out.getvalue())
    unpacked: list[bytes] = msgpack.unpackb(msgpack.packb(frames))
    return unpacked


def ways(table: TableType, frames: list[bytes]) -> dict[str, Callable[[], Any]]:
    """What is compared: each decodes all frames."""
    codec = Codec(table)
    record_type = gpudb.RecordType.from_type_schema("", table.definition, {})
    row = fastavro.parse_schema(table.avro)
    rows = fastavro.parse_schema({"type": "array", "items": table.avro})
    count = io.BytesIO()
    fastavro.schemaless_writer(count, "long", len(frames))
    array = count.getvalue() + b"".join(frames) + b"\0"

    def ours() -> None:
        if codec.decode(frames).rejects:
            raise AssertionError("sound frames were rejected")

    return {
        "tablecast": ours,
        "gpudb": lambda: [
            dict(gpudb.GPUdbRecord.decode_binary_data(record_type, frame)[0]) for frame in frames
        ],
        "fastavro": lambda: [fastavro.schemaless_reader(io.BytesIO(frame), row, None) for frame in frames],
        "fastavro array": lambda: fastavro.schemaless_reader(io.BytesIO(array), rows, None),
    }


def measure(what: dict[str, Callable[[], Any]], rounds: int) -> dict[str, tuple[float, float]]:
    """Median wall and CPU seconds of one call of each, taken in turn."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in what}
    for turn in range(rounds + 1):
        for name, run in what.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            if turn:  # the first is for warming up
                taken[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {
        name: (statistics.median(wall for wall, _ in times), statistics.median(cpu for _, cpu in times))
        for name, times in taken.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Decoding: records per second and CPU per record.")
    parser.add_argument("--records", type=int, default=10_000, help="frames per block")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows, ratios = [], {}
    for name, specs in SCHEMAS.items():
        table = table_type(specs)
        count = max(100, options.records * 8 // max(8, len(specs)))
        results = measure(ways(table, make_frames(table, specs, count)), options.rounds)
        for way, (wall, cpu) in results.items():
            rows.append(
                {"what": f"{name} {way}", "per_second": count / wall, "cpu_us_per_record": cpu / count * 1e6}
            )
            if way != "tablecast":
                ratios[f"{name} tablecast/{way}"] = cpu / results["tablecast"][1]
    report("decode", rows, ratios, options.json)


if __name__ == "__main__":
    main()
