"""V3IO objects: a file per block, ``PATH/<feed>/<epoch>-<first offset>-<count of offsets>.<ending>``.

The name is that of the rows in it, from the first to the last, so a block that is sent again, after a crash or a lost
answer, puts the same file in its own place: each row is there once. A block whose rows were all rejected or filtered
has no file.

``ndjson`` has the events as lines of JSON that a Kronos sink stores, with ``@time`` and ``@origin``; ``arrow`` (Arrow's
file format) and ``parquet`` have the columns in their own types and ``__epoch``, ``__offset`` and ``__time``, as in
the files of a Parquet sink. Counts of updates and deletes are rows ``count`` below ``PATH/<table>.updates`` and
``PATH/<table>.deletes``; what happened to the table itself (altered, dropped) is below ``PATH/<table>.changes``.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from actors.batch import Batch
from actors.writer.encode import encode_batch
from actors.writer.sinks.base import Payload
from actors.writer.sinks.parquet import with_origin
from actors.writer.sinks.v3io_place import Place


class V3ioObjects:
    """Puts batches as objects.

    Args:
        format: ``ndjson``, ``arrow`` or ``parquet``.
    """

    def __init__(
        self,
        place: Place,
        *,
        format: str = "ndjson",
    ) -> None:
        self.timeout = place.timeout
        self._place = place
        self._format = format

    def payloads(self, batch: Batch) -> Iterator[Payload]:
        if batch.rows.num_rows:
            # Not the block's own numbers: halves of a block that was refused have those in common.
            first, last = int(batch.offsets[0]), int(batch.offsets[-1])
            file = f"{batch.id.epoch:013d}-{first:012d}-{last + 1 - first}.{self._format}"
            name = f"{self._place.path}/{batch.id.feed}/{file}"
            yield Payload((name, self._encoded(batch)), batch.rows.num_rows)

    def _encoded(self, batch: Batch) -> bytes:
        if self._format == "ndjson":
            return encode_batch(self._place.pipeline, batch).lines(0, batch.rows.num_rows)
        table, file = with_origin(batch), io.BytesIO()
        if self._format == "parquet":
            pq.write_table(table, file, compression="zstd")
        else:
            with pa.ipc.new_file(file, table.schema) as writer:
                writer.write_table(table)
        return file.getvalue()

    def send(self, payload: Payload) -> None:
        name, data = payload.body
        self._place.client.put_object(self._place.container, name, data)

    def close(self) -> None:
        self._place.client.close()
