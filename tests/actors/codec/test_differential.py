"""Three readings of the same rows must agree: the columns, the reference decoder, and the values written."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import fastavro
import gpudb
import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.codec.codec import Codec
from actors.codec.exact import FrameError, ReferenceDecoder
from protocols.kinetica.columns import WIRE_TYPES, read_columns
from protocols.kinetica.types import BASE_TYPES, Column, TableType

ROOT = Path(__file__).resolve().parents[3]

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "int": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    "float": st.floats(width=32),
    "double": st.floats(),
    "string": st.text(),
    "bytes": st.binary(),
}


@st.composite
def tables(draw: st.DrawFn) -> tuple[TableType, list[dict[str, Any]]]:
    """A table type and rows of it."""
    shapes = draw(st.lists(st.tuples(st.sampled_from(BASE_TYPES), st.booleans()), min_size=1, max_size=8))
    columns = tuple(Column(f"c{i}", base, nullable) for i, (base, nullable) in enumerate(shapes))
    row = {
        column.name: st.none() | VALUES[column.base] if column.nullable else VALUES[column.base]
        for column in columns
    }
    return TableType(columns), draw(st.lists(st.fixed_dictionaries(row), min_size=1, max_size=20))


def encode(table: TableType, rows: list[dict[str, Any]]) -> list[bytes]:
    schema = fastavro.parse_schema(table.avro)
    frames = []
    for row in rows:
        out = io.BytesIO()
        fastavro.schemaless_writer(out, schema, row)
        frames.append(out.getvalue())
    return frames


def text(values: list[Any]) -> str:
    """Values as text, in which NaN equals itself and -0.0 is not 0.0."""
    return repr([[row[name] for name in sorted(row)] if isinstance(row, dict) else row for row in values])


@given(tables())
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
def test_sound_frames_take_the_fast_path_and_keep_every_value(
    case: tuple[TableType, list[dict[str, Any]]],
) -> None:
    table, rows = case
    frames = encode(table, rows)
    arrays, sound = read_columns(table.columns, frames)
    assert sound.all()
    assert [array.type for array in arrays] == [WIRE_TYPES[column.base] for column in table.columns]
    batch = pa.RecordBatch.from_arrays(arrays, names=table.names)
    batch.validate(full=True)
    assert text(batch.to_pylist()) == text(rows)
    reference = ReferenceDecoder(table.columns)
    assert text([reference.read(frame) for frame in frames]) == text(rows)


@given(tables(), st.data())
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
def test_arbitrary_bytes_read_as_the_reference_reads_them(
    case: tuple[TableType, list[dict[str, Any]]], data: st.DataObject
) -> None:
    table, rows = case
    frames = encode(table, rows)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(frames) - 1))
        cut = data.draw(st.integers(0, len(frames[at])))
        frames[at] = (
            frames[at][:cut]
            + data.draw(st.binary(max_size=12))
            + frames[at][cut:][data.draw(st.integers(0, 3)) :]
        )
    reference = ReferenceDecoder(table.columns)
    expected: list[Any] = []
    for frame in frames:
        try:
            expected.append(reference.read(frame))
        except FrameError:
            expected.append(None)
    decoded = Codec(table, raw=True).decode(frames)
    decoded.rows.validate(full=True)
    assert text(decoded.rows.to_pylist()) == text([values for values in expected if values is not None])
    assert [reject.position for reject in decoded.rejects] == [i for i, v in enumerate(expected) if v is None]


def test_mutation_fuzz_in_short() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "benchmarks/fuzz_codec.py", "--blocks", "600", "--seed", "7"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = json.loads(done.stdout.splitlines()[-1])
    assert counts["wrong"] == 0
    assert counts["blocks"] == 600
    assert min(counts["decoded"], counts["rejected"]) > 100
    assert done.stderr == ""


@given(tables())
@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
def test_the_official_client_reads_the_same(case: tuple[TableType, list[dict[str, Any]]]) -> None:
    table, rows = case
    frames = encode(table, rows)
    record_type = gpudb.RecordType.from_type_schema("", table.definition, {})
    official = [dict(gpudb.GPUdbRecord.decode_binary_data(record_type, frame)[0]) for frame in frames]
    assert text(Codec(table, raw=True).decode(frames).rows.to_pylist()) == text(official)
