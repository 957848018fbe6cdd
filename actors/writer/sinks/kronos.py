"""The Kronos sink: one stream per feed, each record an event with its time and origin.

An insert becomes an event of the stream ``<table>`` with the row's columns; a count of updates or deletes becomes an
event ``{"count": n}`` of ``<table>.updates`` or ``<table>.deletes``; what happened to the table itself (altered,
dropped) becomes an event of ``<table>.changes`` with that event's columns. Events that somebody put go to the streams
that they name.

``@time`` is the receive time in ticks of 100 ns, strictly increasing over a feed; or, of inserts, the time in a column
of the user's choice, exactly as it stands there. ``@origin`` is ``pipeline/feed/epoch/offset``, on which the embedded
store de-duplicates.

What a Kronos server would refuse without naming the event is found before it is sent, and becomes a dead letter: a time
outside of what an event's id can hold, an event larger than a request.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from actors.batch import Batch, Rejected
from actors.writer.encode import encode_batch, encode_events
from actors.writer.sinks.base import Payload
from protocols.kronos import wire
from protocols.kronos.client import KronosClient

_TICKS = {"s": 10_000_000, "ms": 10_000, "us": 10}
_TICKS_PER_DAY = 86_400 * _TICKS["s"]


@dataclass(slots=True)
class _Request:
    """A request being filled: `head`, then at most `room` bytes of events with commas between them."""

    head: bytes
    room: int
    parts: list[memoryview] = field(default_factory=list)
    size: int = 0
    records: int = 0
    rejects: list[Rejected] = field(default_factory=list)

    @property
    def left(self) -> int:
        """Bytes that may still be added."""
        return self.room - self.size - bool(self.parts)

    def add(self, part: memoryview, records: int) -> None:
        self.size += len(part) + bool(self.parts)
        self.records += records
        self.parts.append(part)

    def close(self) -> Iterator[Payload]:
        """The payload, if there is anything in it; then begin anew."""
        if self.records or self.rejects:
            body = b"".join((self.head, b",".join(self.parts), b"]}}"))
            yield Payload(body, self.records, tuple(self.rejects))
        self.parts, self.size, self.records, self.rejects = [], 0, 0, []


class KronosSink:
    """Puts batches to a Kronos server.

    Args:
        pipeline: first part of every origin.
        url: base URL of the server.
        namespace: of the streams; None for the server's default.
        batch: most events per request.
        max_bytes: most bytes of a request's body; an event that alone makes a larger one becomes a dead letter.
        time_column: a column of dates or times that is ``@time`` where a row has it and it is not null.
        timeout: seconds allowed to one request.
        username, password, token: as :class:`~protocols.kronos.client.KronosClient`.
    """

    takes_puts = True
    #: Blocks that come while a request is under way share the next one: a rolling sink that waits for none.
    linger = 0.0
    hold_bytes = 0

    def __init__(
        self,
        pipeline: str,
        url: str,
        namespace: str | None = None,
        batch: int = 5000,
        max_bytes: int = 8 << 20,
        time_column: str | None = None,
        timeout: float = 30.0,
        username: str = "",
        password: str = "",
        token: str = "",
    ) -> None:
        self.timeout = timeout
        self._pipeline = pipeline
        self._batch = batch
        self._max_bytes = max_bytes
        self._time_column = time_column
        self._client = KronosClient(
            url, namespace=namespace, timeout=timeout, username=username, password=password, token=token
        )
        # Be quick from the first batch on: what a first encoding loads (a second's worth) is loaded here.
        sample = pa.RecordBatch.from_pydict({"n": [1], "s": ["x"], "x": [1.5]})
        encode_events(sample, time=np.zeros(1, np.int64), origin_prefix="", offsets=np.zeros(1, np.int64))
        self._namespace = "" if namespace is None else f'"namespace":{json.dumps(namespace)},'

    def payloads(self, batch: Batch) -> Iterator[Payload]:
        return self.rolled([batch])

    def rolled(self, batches: Sequence[Batch]) -> Iterator[Payload]:
        for stream, alike in groupby(batches, lambda batch: batch.stream):
            head = f'{{{self._namespace}"events":{{{json.dumps(stream)}:['.encode()
            request = _Request(head, self._max_bytes - len(head) - len(b"]}}"))
            for batch in alike:
                yield from self._payloads(batch, request)
            yield from request.close()

    def _payloads(self, batch: Batch, request: _Request) -> Iterator[Payload]:
        """Add the rows of `batch` to `request`; gives those that became full."""
        times, unfit = self._times(batch)
        events = encode_batch(self._pipeline, batch, times)
        # Event i and its comma are the bytes from bounds[i] to bounds[i + 1].
        bounds = np.concatenate([np.zeros(1, np.int64), events.ends])
        for row in np.flatnonzero(np.diff(bounds) - 1 > request.room).tolist():
            size = int(bounds[row + 1] - bounds[row]) - 1
            unfit[row] = f"{size:,} bytes as JSON, and a request holds {request.room:,}; raise max_bytes"
        offsets, data, total = batch.offsets, memoryview(events.data), batch.rows.num_rows
        start = 0
        # Each run of rows that fit, up to the next that does not.
        for end in [*sorted(unfit), total]:
            while start < end:
                fitting = int(np.searchsorted(bounds, bounds[start] + request.left + 1, side="right")) - 1
                stop = min(fitting, start + self._batch - request.records, end)
                if stop <= start:
                    yield from request.close()
                    continue
                request.add(data[int(bounds[start]) : int(bounds[stop]) - 1], stop - start)
                start = stop
            if end < total:
                request.rejects.append(Rejected(int(offsets[end]), unfit[end], b""))
                start = end + 1

    def _times(self, batch: Batch) -> tuple[npt.NDArray[np.int64], dict[int, str]]:
        """The ticks of each row, and by row why it has none."""
        times, name = batch.times, self._time_column
        if name is None or name not in batch.rows.schema.names:
            return times, {}
        values = batch.rows[name]
        kind = values.type
        if pa.types.is_timestamp(kind) and kind.unit in _TICKS:
            numbers, ticks = values.cast(pa.int64()), _TICKS[kind.unit]
        elif pa.types.is_date32(kind):
            numbers, ticks = values.cast(pa.int32()).cast(pa.int64()), _TICKS_PER_DAY
        else:
            reason = f"time_column {name} has values of type {kind}, which are no times; choose another"
            return times, dict.fromkeys(range(batch.rows.num_rows), reason)
        known = values.is_valid().to_numpy(zero_copy_only=False)
        chosen = numbers.fill_null(0).to_numpy(zero_copy_only=False)
        holds = (chosen >= -(-wire.MIN_TIME // ticks)) & (chosen <= wire.MAX_TIME // ticks)
        reason = f"the time in {name} is outside of 1582 to 5236, which an event's id can hold"
        unfit = dict.fromkeys(np.flatnonzero(known & ~holds).tolist(), reason)
        return np.where(known & holds, np.where(holds, chosen, 0) * ticks, times), unfit

    def send(self, payload: Payload) -> None:
        self._client.put_encoded(payload.body)

    def close(self) -> None:
        self._client.close()
