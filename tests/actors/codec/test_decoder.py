"""Blocks in, batches out; whatever is wrong with a block is a failed decoding."""

from __future__ import annotations

import io
import json

import fastavro
import msgpack
import pytest

from actors.block import Block
from actors.codec.decoder import Decoder
from actors.errors import DecodeFailed
from protocols.kinetica.types import Column, TableType

TYPE = TableType((Column("id", "long"), Column("name", "string")))
SCHEMA = json.dumps({"definition": json.dumps(TYPE.avro), "properties": {}})


def frame(number: int) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(TYPE.avro), {"id": number, "name": f"n{number}"})
    return out.getvalue()


def block(
    frames: list[bytes], *, count: int | None = None, format: str = "avro", schema: str = SCHEMA
) -> Block:
    size = len(frames) if count is None else count
    return Block("t", 1, 100, size, 5000, format, schema, msgpack.packb(frames))


def test_rows_rejects_and_counts() -> None:
    decoder = Decoder()
    batch = decoder.decode(block([frame(1), b"\xff", frame(3)]))
    assert batch.rows.to_pydict() == {"id": [1, 3], "name": ["n1", "n3"]}
    assert batch.offsets.tolist() == [100, 102]
    assert batch.times.tolist() == [5000, 5002]
    (reject,) = batch.rejects
    assert (reject.offset, reject.frame) == (101, b"\xff")
    assert reject.reason
    stats = decoder.stats
    assert (stats.blocks, stats.records, stats.rejects) == (1, 3, 1)


@pytest.mark.parametrize(
    "bad",
    [
        block([frame(1)], format="csv"),
        block([frame(1)], schema="no JSON"),
        block([frame(1)], schema='{"definition": "{}"}'),
        block([frame(1)], count=2),
        Block("t", 1, 0, 1, 0, "avro", SCHEMA, b"\xc1 no msgpack"),
        Block("t", 1, 0, 1, 0, "avro", SCHEMA, msgpack.packb(7)),
        Block("t", 1, 0, 1, 0, "avro", SCHEMA, msgpack.packb([7])),
    ],
    ids=["format", "schema", "definition", "count", "payload", "list", "frame"],
)
def test_a_bad_block_is_a_failed_decoding_and_nothing_else(bad: Block) -> None:
    decoder = Decoder()
    with pytest.raises(DecodeFailed, match="feed='t'"):
        decoder.decode(bad)
    assert decoder.stats.blocks == 0
    assert decoder.decode(block([frame(1)])).count == 1


def test_only_the_columns_to_keep_are_kept() -> None:
    parts = json.loads(SCHEMA)
    for keep, columns in [(["name", "gone"], {"name": ["n1", "n2"]}), (["id", "name"], None), ([], {})]:
        schema = json.dumps({**parts, "keep": keep})
        batch = Decoder().decode(block([frame(1), b"\xff", frame(2)], schema=schema))
        assert batch.rows.to_pydict() == (
            {"id": [1, 2], "name": ["n1", "n2"]} if columns is None else columns
        )
        assert (batch.rows.num_rows, len(batch.rejects)) == (2, 1)


def test_json_objects_are_rows_with_a_column_for_every_key() -> None:
    texts = [b'{"event": "a", "columns": ["x"], "n": 1}', b'{"event": "b", "why": null, "columns": []}']
    batch = Decoder().decode(block(texts, format="json", schema="{}"))
    assert batch.rows.to_pydict() == {
        "event": ["a", "b"],
        "columns": [["x"], []],
        "n": [1, None],
        "why": [None, None],
    }
    assert batch.offsets.tolist() == [100, 101]
    for bad in ([b"no json"], [b"[1]"], [b'{"a": 1}', b'{"a": "text"}']):
        with pytest.raises(DecodeFailed, match="feed='t'"):
            Decoder().decode(block(bad, format="json", schema="{}"))
