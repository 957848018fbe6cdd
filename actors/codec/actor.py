"""The Ray shell of a decoder: blocks in, Arrow batches out. It keeps nothing that matters."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, replace
from typing import Any

import ray

from actors.batch import Batch
from actors.block import Block
from actors.codec.busy import Busy
from actors.codec.codec import warm_up
from actors.codec.decoder import Decoder, all_or_nothing
from actors.codec.isolated import decode_isolated
from actors.ray_state import keep_logs


@ray.remote(concurrency_groups={"control": 1})
class DecodeActor:
    """One decoder of a pipeline's pool; `transforms` as of :class:`Decoder`, `threads` is how many it may use."""

    def __init__(self, transforms: dict[str, Any], digest: str, threads: int = 1) -> None:
        # Read at the first expression. Else each decoder of a host would take all of its cores.
        os.environ["POLARS_MAX_THREADS"] = str(threads)
        self._digest = digest
        self._busy = Busy()
        self._transforms = transforms
        self._decoder = Decoder(transforms)
        keep_logs(())

    def decode(self, block: Block, strict: bool) -> Batch:
        """Decode `block`; with `strict`, records that do not decode raise :class:`DecodeAborted`."""
        with self._busy.work():
            batch = replace(self._decoder.decode(block), decoded=time.time())
            return all_or_nothing(batch) if strict else batch

    def decode_isolated(self, block: Block, strict: bool) -> Batch:
        """The same in a process of its own, for a block that kills decoders; if it fails, all records are rejects."""
        with self._busy.work():
            batch = replace(decode_isolated(block, transforms=self._transforms), decoded=time.time())
            return all_or_nothing(batch) if strict else batch

    @ray.method(concurrency_group="control")
    def start(self) -> None:
        """Be quick from the first block on: what a first decoding loads and compiles is done here."""
        warm_up()

    @ray.method(concurrency_group="control")
    def status(self) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "digest": self._digest,
            "node": ray.get_runtime_context().get_node_id(),
            **asdict(self._decoder.stats),
            **self._busy.report(),
        }

    @ray.method(concurrency_group="control")
    def stop(self) -> None:
        """Nothing to end; every actor of a pipeline can be told to."""
