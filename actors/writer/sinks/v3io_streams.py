"""V3IO streams: a stream ``PATH/<feed>`` per feed, made if it is missing, a record per row.

A record's data is the event as JSON that a Kronos sink stores: the row's columns, ``@time`` (receipt, in ticks) and
``@origin``. Counts of updates and deletes are records ``{"count": n}`` of ``PATH/<table>.updates`` and
``PATH/<table>.deletes``; what happened to the table itself (altered, dropped) are records of ``PATH/<table>.changes``.

Which shard: with `key`, the one that V3IO has for the value of that column; with `shard`, the one whose number
stands in that column; else, and for a row that has null there, one by the row's offset. The last two are the same
when a block is sent again, as after a crash or a lost answer: streams are at least once, and ``@origin`` tells doubles.

Order is kept within a key, or within a shard by number or offset; keys that share a shard may overtake each other. A
record that V3IO refuses for the moment is sent again behind those that it took; one that it refuses for good becomes a
dead letter.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from actors.batch import Batch, Rejected
from actors.writer.columns import buffer_of, joined, packed, quoted
from actors.writer.encode import encode_batch, plain
from actors.writer.sinks.base import PartlySent, Payload
from actors.writer.sinks.v3io_place import Place
from protocols.v3io import wire
from protocols.v3io.client import PutResult
from protocols.v3io.errors import AlreadyExists, NotFound, RequestRefused, TransientError, V3ioError

#: Refusals of one record that will be the same the next time.
_FOR_GOOD = (wire.SHARD_OUT_OF_RANGE, wire.INVALID_ARGUMENT)

_HEAD, _TAIL = b'{"Records":[', b"]}"


@dataclass(frozen=True, slots=True)
class _Records:
    """Rows of one feed: their records in JSON, each with a comma behind it, in `lanes` that may go side by side."""

    stream: str
    data: bytes
    ends: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]
    lanes: tuple[npt.NDArray[np.int64], ...]
    #: Whether others of the payload were taken: those that are refused for good are then found here, as whoever sent
    #: halves of the payload would double the others.
    rest: bool = False

    def body(self, rows: npt.NDArray[np.int64]) -> bytes:
        first = int(rows[0])
        if int(rows[-1]) - first + 1 == len(rows):
            begin = int(self.ends[first - 1]) if first else 0
            return b"".join((_HEAD, memoryview(self.data)[begin : int(self.ends[rows[-1]]) - 1], _TAIL))
        begins = np.where(rows > 0, self.ends[rows - 1], 0).tolist()
        parts = [self.data[begin:end] for begin, end in zip(begins, self.ends[rows].tolist(), strict=True)]
        return b"".join((_HEAD, b"".join(parts)[:-1], _TAIL))


class V3ioStreams:
    """Adds batches to streams.

    Args:
        shards: of streams that are made; those that exist must have as many.
        retention_hours: of streams that are made.
        key: column whose value is the partition key.
        shard: column of shard numbers; not together with `key`.
    """

    takes_puts = True

    def __init__(
        self,
        place: Place,
        *,
        shards: int = 8,
        retention_hours: int = 24,
        key: str | None = None,
        shard: str | None = None,
    ) -> None:
        # The stream is made or looked at, and a lane may be several requests.
        self.timeout = 4 * place.timeout
        self._place = place
        self._shards = shards
        self._retention_hours = retention_hours
        self._key = key
        self._shard = shard
        self._known: set[str] = set()
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(place.connections, thread_name_prefix="v3io")

    def payloads(self, batch: Batch) -> Iterator[Payload]:
        if not batch.rows.num_rows:
            return
        events = encode_batch(self._place.pipeline, batch)
        bounds = pa.py_buffer(np.concatenate([np.zeros(1, np.int64), events.ends]))
        whole = pa.Array.from_buffers(
            pa.large_binary(), len(events.ends), [None, bounds, pa.py_buffer(events.data)]
        )
        data = pl.Series(pc.binary_slice(whole, 0, -1)).bin.encode("base64").to_arrow()
        place, lane, reasons = self._places(batch)
        sizes = np.diff(events.ends, prepend=0) - 1
        for row in np.flatnonzero(sizes > wire.MAX_RECORD_BYTES).tolist():
            reasons[row] = f"{sizes[row]:,} bytes as JSON, and a record holds {wire.MAX_RECORD_BYTES:,}"
        lines, ends = buffer_of(joined('{"Data":"', data.cast(pa.large_string()), '",', place, "},"))
        stream = f"{self._place.path}/{batch.stream}"
        good = np.ones(len(ends), np.bool_)
        good[list(reasons)] = False
        offsets = batch.offsets
        for start in range(0, len(ends), self._place.connections * wire.MAX_RECORDS):
            rows = np.arange(start, min(start + self._place.connections * wire.MAX_RECORDS, len(ends)))
            rejects = [Rejected(int(offsets[row]), reasons[row], b"") for row in rows[~good[rows]].tolist()]
            rows = rows[good[rows]]
            beside = min(self._place.connections, -(-len(rows) // wire.MAX_RECORDS)) or 1
            lanes = tuple(rows[lane[rows] % beside == number] for number in range(beside))
            yield Payload(_Records(stream, lines, ends, offsets, lanes), len(rows), tuple(rejects))

    def _places(self, batch: Batch) -> tuple[Any, npt.NDArray[np.uint64], dict[int, str]]:
        """For each row the JSON that places it, a number that is the same for rows of one shard, and by row why not."""
        shards = batch.offsets % self._shards
        reasons: dict[int, str] = {}
        names = batch.rows.schema.names
        if self._shard in names:
            values = batch.rows[self._shard]
            if pa.types.is_integer(values.type):
                known = values.is_valid().to_numpy(zero_copy_only=False)
                given = values.cast(pa.float64(), safe=False).fill_null(0).to_numpy()
                fits = (given >= 0) & (given < self._shards)
                shards = np.where(known & fits, given, shards).astype(np.int64)
                for row in np.flatnonzero(known & ~fits).tolist():
                    reasons[row] = (
                        f"{self._shard} is {values[row]}, and the shards are 0 to {self._shards - 1}"
                    )
            else:
                reason = f"{self._shard} is no whole number, and so no number of a shard"
                reasons = dict.fromkeys(range(len(shards)), reason)
        place = joined('"ShardId":', pa.array(shards).cast(pa.large_string()))
        lane = shards.astype(np.uint64)
        if self._key in names:
            keys = plain(batch.rows[self._key])
            keys = keys if keys.dtype == pl.String else keys.cast(pl.String)
            long = keys.str.len_bytes() > wire.MAX_PARTITION_KEY_BYTES
            for row in np.flatnonzero(long.fill_null(False).to_numpy()).tolist():
                reasons[row] = (
                    f"{self._key} is longer than {wire.MAX_PARTITION_KEY_BYTES} bytes, as no key can be"
                )
            place = pc.coalesce(joined('"PartitionKey":', quoted(keys)), place)
            lane = np.where(keys.is_null().to_numpy(), lane, keys.hash().to_numpy())
        return place, lane, reasons

    def send(self, payload: Payload) -> None:
        if not payload.records:
            return
        records: _Records = payload.body
        self._prepare(records.stream)
        if len(records.lanes) == 1:
            outcomes = [self._put(records, records.lanes[0])]
        else:
            outcomes = list(self._threads.map(lambda rows: self._put(records, rows), records.lanes))
        rejects = tuple(reject for _, refused, _ in outcomes for reject in refused)
        again = tuple(rows for rows, _, _ in outcomes if len(rows))
        errors = [error for _, _, error in outcomes if error is not None]
        count = sum(map(len, again))
        taken = records.rest or count + len(rejects) < payload.records
        lasting = next((error for error in errors if not error.retryable), None)
        if lasting is not None and (lasting.refuses_all or not taken):
            raise lasting
        if again or rejects:
            rest = replace(records, lanes=again, rest=taken)
            wish = max((error.retry_after or 0.0 for error in errors), default=0.0)
            text = (
                str(errors[0]) if errors else f"{records.stream}: {len(rejects)} records are refused for good"
            )
            left = [int(records.offsets[row]) for rows in again for row in rows]
            raise PartlySent(text, Payload(rest, count, (), left), rejects, wish or None)

    def _put(
        self, records: _Records, rows: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], list[Rejected], V3ioError | None]:
        """Put records in order: the rows to send again, those refused for good, and why some are to be sent again."""
        rejects: list[Rejected] = []
        again: list[int] = []
        busy: V3ioError | None = None
        sizes = np.diff(records.ends, prepend=0)[rows]
        room = wire.MAX_RECORDS_BYTES - len(_HEAD) - len(_TAIL)
        parts = deque(rows[start:stop] for start, stop in packed(np.cumsum(sizes), room, wire.MAX_RECORDS))
        while parts:
            part = parts.popleft()
            try:
                results = self._place.client.put_encoded_records(
                    self._place.container, records.stream, records.body(part), len(part)
                )
            except V3ioError as error:
                if isinstance(error, NotFound):  # somebody deleted it; the next attempt makes it anew
                    self._known.discard(records.stream)
                    error = TransientError(str(error))
                if error.retryable or error.refuses_all or not records.rest:
                    return np.concatenate([part, *parts]), rejects, error
                if len(part) == 1:
                    rejects.append(Rejected(int(records.offsets[part[0]]), str(error), b""))
                else:
                    parts.extendleft((part[len(part) // 2 :], part[: len(part) // 2]))
                continue
            for row, result in self._refused(part, results):
                if result.error_code in _FOR_GOOD:
                    reason = f"V3IO refuses the record: {result.error_message} ({result.error_code})"
                    rejects.append(Rejected(int(records.offsets[row]), reason, b""))
                else:
                    again.append(row)
                    text = f"{records.stream}: {result.error_message} ({result.error_code})"
                    busy = TransientError(text, code=result.error_code)
            if again:  # what follows must not overtake more than it has to
                return np.concatenate([np.array(again, np.int64), *parts]), rejects, busy
        return rows[:0], rejects, None

    @staticmethod
    def _refused(rows: npt.NDArray[np.int64], results: list[PutResult]) -> list[tuple[int, PutResult]]:
        return [
            (row, result)
            for row, result in zip(rows.tolist(), results, strict=True)
            if result.error_code is not None
        ]

    def _prepare(self, stream: str) -> None:
        """Make a stream unless it is known to be there, with enough shards."""
        if stream in self._known:
            return
        with self._lock:
            try:
                self._place.client.create_stream(
                    self._place.container, stream, self._shards, self._retention_hours
                )
            except AlreadyExists:
                info = self._place.client.describe_stream(self._place.container, stream)
                if info.shard_count < self._shards:
                    text = f"the stream {stream} has {info.shard_count} shards and not {self._shards}"
                    raise _TooFewShards(f"{text}; enlarge it, or lower shards") from None
            self._known.add(stream)

    def close(self) -> None:
        self._threads.shutdown()
        self._place.client.close()


class _TooFewShards(RequestRefused):
    """The stream that is there is not the one of the settings."""

    refuses_all = True
