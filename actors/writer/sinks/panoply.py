"""The Panoply sink: records of one table per feed, as SQS messages to Panoply's intake.

An insert becomes a record of the table ``<table>`` with the row's columns; a count of updates or deletes becomes
``{"count": n}`` of ``<table>.updates`` or ``<table>.deletes``; what happened to the table itself (altered, dropped)
becomes a record of ``<table>.changes`` with that event's columns. Values read as in every JSON sink
(``actors/writer/encode.py``). ``@time`` is the receive time in ticks and ``@origin`` the record's identity: SQS keeps
no order and may deliver twice, and these two put that right at the destination. A column named ``__table`` gets
``_`` before it, as the key is Panoply's own.

A record that is too large for a message becomes a dead letter; the others go on.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from actors.batch import Batch, Rejected
from actors.codec.meaning import TYPE_KEY
from actors.names import is_put_feed
from actors.writer.columns import buffer_of, is_made_of, joined, json_values, split_lines, view_of
from actors.writer.encode import encode_batch, event_keys
from actors.writer.sinks.base import PartlySent, Payload
from protocols.panoply import wire
from protocols.panoply.client import PanoplyClient
from protocols.panoply.errors import PanoplyError

#: Messages under way at once for one feed.
BESIDE = 4

#: The one character of ASCII that the SDK escapes and others do not.
_DELETE = b"\x7f"

#: What texts may have, of which only the quotes are to be percent-encoded.
_WORDS = wire.UNESCAPED.replace(b"\n", b'"')

#: What ends a record, and is nowhere within one.
_END = b"\n\n"
_ENCODED_END = wire.percent_encoded(_END)


@dataclass(frozen=True, slots=True)
class _Message:
    text: bytes | memoryview
    encoded: bytes | memoryview
    offsets: npt.NDArray[np.int64]
    #: Whether others of its payload were taken: if it is refused for good, its halves are sent here, as whoever sent
    #: halves of the payload would double the others.
    rest: bool = False

    @property
    def records(self) -> int:
        return len(self.offsets)

    def halves(self) -> list[_Message]:
        middle = self.records // 2
        text, encoded = bytes(self.text).split(_END)[:-1], bytes(self.encoded).split(_ENCODED_END)[:-1]
        return [
            _Message(
                _END.join([*text[part], b""]), _ENCODED_END.join([*encoded[part], b""]), self.offsets[part]
            )
            for part in (slice(middle), slice(middle, None))
        ]


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows one after the other; row ``i`` ends before byte ``ends[i]``."""

    data: bytes | memoryview
    ends: npt.NDArray[np.int64]

    @classmethod
    def of(cls, rows: list[bytes]) -> _Rows:
        return cls(b"".join(rows), np.cumsum([len(row) for row in rows], dtype=np.int64))

    def rows(self, runs: list[tuple[int, int]]) -> bytes | memoryview:
        """The bytes of runs of rows, each from the first to before the last; of one run without a copy."""
        view = memoryview(self.data)
        parts = [view[self.ends[first - 1] if first else 0 : self.ends[last - 1]] for first, last in runs]
        return parts[0] if len(parts) == 1 else b"".join(parts)


class PanoplySink:
    """Sends batches to Panoply.

    Args:
        pipeline: first part of every origin.
        apikey: of the data source at Panoply.
        apisecret: of the same.
        url: base URL of a service that speaks SQS's, in place of Amazon's; None for Amazon's.
        max_message_bytes: what the queue takes at most.
        timeout: seconds allowed to one message.
    """

    takes_puts = True

    def __init__(
        self,
        pipeline: str,
        apikey: str,
        apisecret: str,
        url: str | None = None,
        max_message_bytes: int = wire.MAX_MESSAGE,
        timeout: float = 30.0,
    ) -> None:
        credentials = wire.Credentials(apikey, apisecret)
        self.timeout = timeout
        self._pipeline = pipeline
        self._room = max_message_bytes - credentials.overhead
        self._client = PanoplyClient(credentials, url, timeout=timeout)
        self._threads = ThreadPoolExecutor(BESIDE, thread_name_prefix="panoply")

    def payloads(self, batch: Batch) -> Iterator[Payload]:
        count = batch.rows.num_rows
        if not count:
            return
        reasons: dict[int, str] = {}
        text, encoded = self._records(batch, reasons)
        sizes, costs = np.diff(text.ends, prepend=0), np.diff(encoded.ends, prepend=0)
        for row in np.flatnonzero(sizes > self._room).tolist():
            reasons[row] = f"{sizes[row]} bytes as JSON, and a message to Panoply holds {self._room}"
        sizes[list(reasons)] = costs[list(reasons)] = 0
        limits = ((np.cumsum(costs), wire.MAX_ENCODED), (np.cumsum(sizes), self._room))
        offsets = batch.offsets
        messages: list[_Message] = []
        rejects: list[Rejected] = []
        start = 0
        while start < count:
            base = start - 1
            stops = [
                int(np.searchsorted(sums, (sums[base] if start else 0) + most, side="right"))
                for sums, most in limits
            ]
            stop = max(start + 1, min(stops))
            bad = [row for row in range(start, stop) if row in reasons] if reasons else []
            rejects += [Rejected(int(offsets[row]), reasons[row], b"") for row in bad]
            edges = [start, *(edge for row in bad for edge in (row, row + 1)), stop]
            runs = [(first, last) for first, last in pairwise(edges) if first < last and first not in reasons]
            if runs:
                good = np.concatenate([offsets[first:last] for first, last in runs])
                messages.append(_Message(text.rows(runs), encoded.rows(runs), good))
            start = stop
            if len(messages) == BESIDE or start == count:
                yield _payload(messages, tuple(rejects))
                messages, rejects = [], []

    def _records(self, batch: Batch, reasons: dict[int, str]) -> tuple[_Rows, _Rows]:
        """The rows as they stand in messages, as ``wire.encode_record`` makes them, and the same percent-encoded.

        A row that JSON has no form for is noted in `reasons`.
        """
        if is_put_feed(batch.id.feed):
            return self._put_records(batch, reasons)
        times, offsets = (
            pa.array(numbers).cast(pa.large_string()) for numbers in (batch.times, batch.offsets)
        )
        origin = f', "@origin": "{self._pipeline}/{batch.id.feed}/{batch.id.epoch}/'
        text: list[Any] = ['{"@time": ', times, origin, offsets]
        encoded: list[Any] = [_encoded('{"@time": '), times, _encoded(origin), offsets]
        before = '", '
        names = _out_of_the_way(event_keys(batch.rows.schema.names))
        for name, field, values in zip(names, batch.rows.schema, batch.rows.columns, strict=True):
            head = f"{before}{json.dumps(name)}: "
            texts = json_values(field, values)
            if (field.metadata or {}).get(TYPE_KEY) == b"json":
                texts = _one_line(texts, reasons)
            texts = quoted = texts.fill_null("null")
            if not _is_plain(values):
                texts, quoted = _both(texts)
            text += [head, texts]
            encoded += [_encoded(head), quoted]
            before = ", "
        tail = f"{before}{json.dumps(wire.TABLE_KEY)}: {json.dumps(batch.stream)}}}\n\n"
        return _rows([*text, tail]), _rows([*encoded, _encoded(tail)])

    def _put_records(self, batch: Batch, reasons: dict[int, str]) -> tuple[_Rows, _Rows]:
        """The same of events that somebody put, which are JSON already, with any keys."""
        records: list[bytes] = []
        events = encode_batch(self._pipeline, batch)
        begins = [0, *events.ends.tolist()]
        for row, (begin, end) in enumerate(pairwise(begins)):
            event = json.loads(events.data[begin : end - 1])
            if wire.TABLE_KEY in event:
                event = dict(zip(_out_of_the_way(list(event)), event.values(), strict=True))
            try:
                records.append(wire.encode_record(batch.stream, event))
            except ValueError as error:
                reasons[row] = f"{error}; Panoply takes no such value"
                records.append(b"")
        encoded = [wire.percent_encoded(record) for record in records]
        return _Rows.of(records), _Rows.of(encoded)

    def send(self, payload: Payload) -> None:
        """Send the messages side by side, as a queue of SQS keeps no order anyhow."""
        messages: list[_Message] = payload.body
        errors = list(self._threads.map(self._try, messages))
        failed = [(message, error) for message, error in zip(messages, errors, strict=True) if error]
        if not failed:
            return
        taken = len(failed) < len(messages) or messages[0].rest
        lasting = next((error for _, error in failed if not error.retryable), None)
        if lasting and (getattr(lasting, "refuses_all", False) or not taken):
            raise lasting
        if len(failed) == len(messages) and not lasting:
            raise failed[0][1]
        rest: list[_Message] = []
        rejects: list[Rejected] = []
        for message, error in failed:
            if error.retryable:
                rest.append(replace(message, rest=True))
            elif message.records > 1:
                rest += [replace(half, rest=True) for half in message.halves()]
            else:
                rejects.append(Rejected(int(message.offsets[0]), str(error), b""))
        wish = max(getattr(error, "retry_after", None) or 0.0 for _, error in failed)
        raise PartlySent(str(failed[0][1]), _payload(rest), tuple(rejects), wish or None)

    def _try(self, message: _Message) -> PanoplyError | None:
        try:
            self._client.send(message.text, message.encoded)
        except PanoplyError as error:
            return error
        return None

    def close(self) -> None:
        self._threads.shutdown()
        self._client.close()


def _payload(messages: list[_Message], rejects: tuple[Rejected, ...] = ()) -> Payload:
    return Payload(messages, sum(message.records for message in messages), rejects)


def _out_of_the_way(names: list[str]) -> list[str]:
    """Keys of an event, other than Panoply's own."""
    key = wire.TABLE_KEY
    while key in names:
        key = f"_{key}"
    return [key if name == wire.TABLE_KEY else name for name in names]


def _is_plain(values: Any) -> bool:
    """Whether the JSON of these values has nothing to be percent-encoded: digits, letters, signs and points."""
    kind = values.type
    if pa.types.is_floating(kind):
        return pc.all(pc.is_finite(values)).as_py() is not False
    return bool(pa.types.is_boolean(kind) or (pa.types.is_integer(kind) and not pa.types.is_uint64(kind)))


def _both(texts: Any) -> tuple[Any, Any]:
    """JSON texts as they stand in messages, and the same percent-encoded."""
    if pa.types.is_large_string(texts.type) and is_made_of(texts, _WORDS):
        return texts, pc.replace_substring(texts, '"', "%22")
    lines, _ = buffer_of(joined(texts, "\n"))
    if not lines.isascii() or _DELETE in lines:
        lines = lines.decode().encode("ascii", "tablecast.json").replace(_DELETE, b"\\u007f")
    texts, quoted = (split_lines(each) for each in (lines, wire.percent_encoded(lines)))
    return texts.cast(pa.large_string()), quoted.cast(pa.large_string())


def _encoded(text: str) -> str:
    return wire.percent_encoded(text.encode()).decode()


def _rows(parts: list[Any]) -> _Rows:
    return _Rows(*view_of(joined(*parts)))


def _one_line(texts: Any, reasons: dict[int, str]) -> Any:
    """JSON texts without the newlines that people put between values; the numbers of each must have a JSON form."""
    lines: list[str | None] = []
    for row, text in enumerate(texts.to_pylist()):
        try:
            lines.append(None if text is None else json.dumps(json.loads(text), allow_nan=False))
        except ValueError as error:
            reasons[row] = f"{error}; Panoply takes no such value"
            lines.append(None)
    return pa.array(lines, pa.large_string())


def _escape(error: UnicodeError) -> tuple[str, int]:
    """What stands for characters that are not ASCII."""
    assert isinstance(error, UnicodeEncodeError)
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


codecs.register_error("tablecast.json", _escape)
