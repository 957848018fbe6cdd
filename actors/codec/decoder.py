"""Turns blocks into batches: unpacks the payload, picks the codec of the block's schema, transforms, keeps count."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import msgpack
import numpy as np
import orjson
import pyarrow as pa

from actors.batch import Batch, Rejected
from actors.block import Block
from actors.codec.codec import Codec, Decoded
from actors.codec.rows import decode_rows
from actors.codec.transform import Transform
from actors.errors import DecodeAborted, DecodeFailed
from actors.row_types import kinds_in
from protocols.kinetica.types import TableType

#: Compiled codecs kept per decoder; each is a few kilobytes.
SCHEMAS_KEPT = 1024


@dataclass(slots=True)
class DecoderStats:
    """Counts since the decoder started; `bytes` of payload, as received."""

    blocks: int = 0
    records: int = 0
    bytes: int = 0
    rejects: int = 0
    filtered: int = 0


@lru_cache(maxsize=SCHEMAS_KEPT)
def _codec(schema: str) -> tuple[Codec, list[str] | None]:
    """The codec of a block's schema, and the columns to keep where others are to be discarded."""
    parts = json.loads(schema)
    table_type = TableType.parse(parts["definition"], parts["properties"])
    keep = parts.get("keep")
    return Codec(table_type), None if keep is None else [name for name in table_type.names if name in keep]


def _decode_avro(block: Block) -> Decoded:
    codec, keep = _codec(block.schema)
    decoded = codec.decode(msgpack.unpackb(block.payload))
    return decoded if keep is None else replace(decoded, rows=decoded.rows.select(keep))


def _decode_json(block: Block) -> Decoded:
    """A payload that is a msgpack list of JSON objects: rows of the schema's columns, or if it names none, a column
    for every key that any of them has."""
    texts = msgpack.unpackb(block.payload)
    if (kinds := kinds_in(block.schema)) is not None:
        return decode_rows(texts, kinds)
    rows = [orjson.loads(text) for text in texts]
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: [row.get(name) for row in rows] for name in names}
    return Decoded(pa.RecordBatch.from_pydict(columns), None, ())


_FORMATS = {"avro": _decode_avro, "json": _decode_json}


def all_or_nothing(batch: Batch) -> Batch:
    """`batch`, unless records of it did not decode: then raises :class:`DecodeAborted`, which names the first."""
    if batch.rejects:
        first = batch.rejects[0]
        raise DecodeAborted(first.reason, first.offset, len(batch.rejects))
    return batch


class Decoder:
    """Decodes one block after the other.

    Args:
        transforms: by table, what becomes of its rows; see :class:`~actors.codec.transform.Transform`. With a true
            ``keep_frames`` its batches have their frames beside them.
    """

    def __init__(self, transforms: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self.stats = DecoderStats()
        specs = {table: dict(spec) for table, spec in (transforms or {}).items()}
        self._framed = {table for table, spec in specs.items() if spec.pop("keep_frames", False)}
        self._transforms = {table: Transform(spec) for table, spec in specs.items() if spec}

    def decode(self, block: Block) -> Batch:
        """Decode `block`. Records that do not decode, or cannot be transformed, come back as rejects.

        Raises :class:`DecodeFailed` for a block whose format, schema or payload is not what it should be.
        """
        decode = _FORMATS.get(block.format)
        if decode is None:
            raise DecodeFailed(f"{block.id}: unknown block format {block.format!r}")
        try:
            decoded = decode(block)
            rejects = tuple(Rejected(block.offset + r.position, r.reason, r.frame) for r in decoded.rejects)
            size = len(block.payload)
            batch = Batch(block.id, block.count, block.time, decoded.rows, decoded.positions, rejects, size)
            if block.feed in self._framed:
                batch = replace(batch, frames=block.payload)
            if block.feed in self._transforms:
                batch = _transformed(batch, self._transforms[block.feed])
        except Exception as error:  # a defect in the block or in the codec; either way this block is to blame
            raise DecodeFailed(f"{block.id}: {type(error).__name__}: {error}") from error
        self.stats.blocks += 1
        self.stats.records += block.count
        self.stats.bytes += len(block.payload)
        self.stats.rejects += len(batch.rejects)
        self.stats.filtered += batch.filtered
        return batch


def _transformed(batch: Batch, transform: Transform) -> Batch:
    """`batch` with its rows transformed; a row for which that fails is a reject, whose frame the block has."""
    done = transform.apply(batch.rows)
    positions = batch.row_positions
    failed = [
        Rejected(batch.id.offset + int(positions[row]), reason, b"") for row, reason in done.failures.items()
    ]
    rejects = tuple(sorted([*batch.rejects, *failed], key=lambda reject: reject.offset))
    filtered = batch.rows.num_rows - len(done.kept) - len(failed)
    kept = np.ascontiguousarray(positions[done.kept])
    return replace(batch, rows=done.rows, positions=kept, rejects=rejects, filtered=filtered)
