"""Turns blocks into batches: unpacks the payload, picks the codec of the block's schema, keeps count."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from functools import lru_cache

import msgpack

from actors.batch import Batch, Rejected
from actors.block import Block
from actors.codec.codec import Codec
from actors.errors import DecodeAborted, DecodeFailed
from protocols.kinetica.types import TableType

#: Compiled codecs kept per decoder; each is a few kilobytes.
SCHEMAS_KEPT = 1024


@dataclass(slots=True)
class DecoderStats:
    """Counts since the decoder started."""

    blocks: int = 0
    records: int = 0
    rejects: int = 0
    busy_seconds: float = 0.0


@lru_cache(maxsize=SCHEMAS_KEPT)
def _codec(schema: str) -> Codec:
    parts = json.loads(schema)
    return Codec(TableType.parse(parts["definition"], parts["properties"]))


def all_or_nothing(batch: Batch) -> Batch:
    """`batch`, unless records of it did not decode: then raises :class:`DecodeAborted`, which names the first."""
    if batch.rejects:
        first = batch.rejects[0]
        raise DecodeAborted(first.reason, first.offset, len(batch.rejects))
    return batch


class Decoder:
    """Decodes one block after the other."""

    def __init__(self) -> None:
        self.stats = DecoderStats()

    def decode(self, block: Block) -> Batch:
        """Decode `block`. Records that do not decode come back as rejects.

        Raises :class:`DecodeFailed` for a block whose format, schema or payload is not what it should be.
        """
        started = time.perf_counter()
        if block.format != "avro":
            raise DecodeFailed(f"{block.id}: unknown block format {block.format!r}")
        try:
            decoded = _codec(block.schema).decode(msgpack.unpackb(block.payload))
            rejects = tuple(Rejected(block.offset + r.position, r.reason, r.frame) for r in decoded.rejects)
            batch = Batch(block.id, block.count, block.time, decoded.rows, decoded.positions, rejects)
        except Exception as error:  # a defect in the block or in the codec; either way this block is to blame
            raise DecodeFailed(f"{block.id}: {type(error).__name__}: {error}") from error
        self.stats.blocks += 1
        self.stats.records += block.count
        self.stats.rejects += len(rejects)
        self.stats.busy_seconds += time.perf_counter() - started
        return batch
