"""The Ray shell of a decoder: blocks in, Arrow batches out. It keeps nothing that matters."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Any

import ray

from actors.batch import Batch
from actors.block import Block
from actors.codec.codec import Codec
from actors.codec.decoder import Decoder
from protocols.kinetica.types import Column, TableType


@ray.remote(concurrency_groups={"control": 1})
class DecodeActor:
    """One decoder of a pipeline's pool."""

    def __init__(self, digest: str) -> None:
        self._digest = digest
        self._decoder = Decoder()

    def decode(self, block: Block) -> Batch:
        return self._decoder.decode(block)

    def idle(self) -> None:
        """Returns when everything asked for before has been decoded."""

    @ray.method(concurrency_group="control")
    def start(self) -> None:
        """Be quick from the first block on: what a first decoding loads and compiles is done here."""
        Codec(TableType((Column("n", "long"), Column("s", "string", True)))).decode([b"\x02\x00\x02x"])

    @ray.method(concurrency_group="control")
    def status(self) -> dict[str, Any]:
        return {"pid": os.getpid(), "digest": self._digest, **asdict(self._decoder.stats)}

    @ray.method(concurrency_group="control")
    def stop(self) -> None:
        """Nothing to end; every actor of a pipeline can be told to."""
