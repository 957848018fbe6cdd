"""The Kronos sink: one stream per feed, each record an event with its receive time and origin.

Inserts become events of the stream ``<table>`` with the row's columns; counts of updates and deletes become events
``{"count": n}`` of ``<table>.updates`` and ``<table>.deletes``. ``@time`` is the receive time in ticks, strictly
increasing over a feed; ``@origin`` is ``pipeline/feed/epoch/offset``, on which the embedded store de-duplicates.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from actors.batch import Batch
from actors.writer.encode import encode_events
from actors.writer.sinks.base import Payload
from protocols.kronos.client import KronosClient


class KronosSink:
    """Puts batches to a Kronos server.

    Args:
        pipeline: first part of every origin.
        url: base URL of the server.
        namespace: of the streams; None for the server's default.
        batch: most events per request.
        timeout: seconds allowed to one request.
    """

    def __init__(
        self, pipeline: str, url: str, namespace: str | None = None, batch: int = 5000, timeout: float = 30.0
    ) -> None:
        self._pipeline = pipeline
        self._batch = batch
        self._client = KronosClient(url, namespace=namespace, timeout=timeout)
        # Be quick from the first batch on: what a first encoding loads (a second's worth) is loaded here.
        sample = pa.RecordBatch.from_pydict({"n": [1], "s": ["x"], "x": [1.5]})
        encode_events(sample, time=np.zeros(1, np.int64), origin_prefix="", offsets=np.zeros(1, np.int64))
        self._namespace = "" if namespace is None else f'"namespace":{json.dumps(namespace)},'

    def payloads(self, batch: Batch) -> Iterator[Payload]:
        prefix = f"{self._pipeline}/{batch.id.feed}/{batch.id.epoch}/"
        events = encode_events(batch.rows, time=batch.times, origin_prefix=prefix, offsets=batch.offsets)
        head = f'{{{self._namespace}"events":{{{json.dumps(batch.id.feed)}:'.encode()
        for start in range(0, batch.rows.num_rows, self._batch):
            stop = min(start + self._batch, batch.rows.num_rows)
            yield Payload(head + events.body(start, stop) + b"}}", stop - start)

    def send(self, payload: Payload) -> None:
        self._client.put_encoded(payload.body)

    def close(self) -> None:
        self._client.close()
