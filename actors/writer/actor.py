"""The Ray shell of a writer: an async actor, one per sink of a pipeline."""

from __future__ import annotations

import os
import threading
from typing import Any

import ray

from actors.batch import Batch, Receipt
from actors.block import BlockId
from actors.ray_state import keep_logs
from actors.writer.reorder import Owner
from actors.writer.sinks import make_sink
from actors.writer.writer import Delivery, Writer

#: Writes of all feeds that may wait at once. Ray parks surplus calls in no useful order, and a parked predecessor
#: would block its successors for ever, so this must exceed feeds times blocks per window; memory is bounded by
#: the windows, not by this.
MAX_CONCURRENT_WRITES = 100_000


# Each group has an event loop in a thread of its own. Whatever changes the writer runs in that of its writes; the
# others only look at it.
@ray.remote(concurrency_groups={"control": 4, "writes": MAX_CONCURRENT_WRITES})
class WriterActor:
    """See :class:`Writer`. `sink` is the kind and settings as in the pipeline file."""

    def __init__(self, pipeline: str, sink: dict[str, Any], digest: str) -> None:
        self._pipeline = pipeline
        self._settings = sink
        self._digest = digest
        self._writer: Writer | None = None
        self._making = threading.Lock()
        keep_logs(sink)

    @ray.method(concurrency_group="writes")
    async def start(self) -> None:
        """Begin work; calling it again does nothing."""
        self._ready()

    def _ready(self) -> Writer:
        # A write may come before the supervisor's start: the writer needs nothing from outside to begin.
        with self._making:
            if self._writer is None:
                self._writer = Writer(make_sink(self._pipeline, self._settings))
            return self._writer

    @ray.method(concurrency_group="writes")
    async def attach(self, feed: str, owner: Owner) -> tuple[int, int] | None:
        return await self._ready().attach(feed, owner)

    @ray.method(concurrency_group="writes")
    async def write(
        self, owner: Owner, block: BlockId, previous: BlockId | None, batch: Batch | list[Batch]
    ) -> Receipt:
        return await self._ready().write(owner, block, previous, batch)

    @ray.method(concurrency_group="writes")
    async def leave(self, feed: str) -> None:
        self._ready().leave(feed)

    @ray.method(concurrency_group="control")
    async def status(self) -> dict[str, Any]:
        return {"pid": os.getpid(), "digest": self._digest, **self._ready().status()}

    @ray.method(concurrency_group="control")
    async def deliveries(self, after: int) -> list[Delivery]:
        return self._ready().deliveries(after)

    @ray.method(concurrency_group="control")
    async def deliveries_of(self, record: BlockId) -> list[Delivery]:
        """See :meth:`Writer.deliveries_of`."""
        return self._ready().deliveries_of(record)

    @ray.method(concurrency_group="writes")
    async def stop(self) -> None:
        """Stop sending, and release the sink."""
        if self._writer is not None:
            await self._writer.close()
            self._writer = None
