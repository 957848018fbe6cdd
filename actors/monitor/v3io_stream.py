"""A V3IO stream as the source of a table: its records are rows, and a cursor per shard is the state."""

from __future__ import annotations

import base64
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from actors.monitor.pull import Notebook, Pulled, PullSource, PullStream
from actors.monitor.rows import BadRow
from actors.monitor.settings import MonitorSettings
from actors.monitor.source import SourceLost
from protocols.v3io.client import V3ioClient
from protocols.v3io.errors import RequestRefused, V3ioError
from protocols.v3io.stream_reader import StreamReader, StreamRecord

log = logging.getLogger(__name__)

#: Seconds between questions how many shards there are.
DESCRIBE_INTERVAL = 10.0


def _from_json(record: StreamRecord) -> dict[str, Any] | BadRow:
    try:
        row = orjson.loads(record.data)
    except ValueError as error:
        return BadRow(f"the record's data is not JSON: {error}", record.data)
    return row if isinstance(row, dict) else BadRow("the record's data is JSON, but no object", record.data)


def _from_text(record: StreamRecord) -> dict[str, Any] | BadRow:
    try:
        return {"data": record.data.decode()}
    except UnicodeDecodeError as error:
        return BadRow(f"the record's data is not UTF-8: {error.reason}", record.data)


def _from_bytes(record: StreamRecord) -> dict[str, Any] | BadRow:
    return {"data": base64.b64encode(record.data).decode()}


#: What a record's data is -> the row that it makes.
FORMATS: dict[str, Callable[[StreamRecord], dict[str, Any] | BadRow]] = {
    "json": _from_json,
    "text": _from_text,
    "bytes": _from_bytes,
}


@dataclass(slots=True)
class Cursor:
    """A place in a shard: the location of the next record, and the sequence number of the last one; -1: none yet."""

    location: str
    sequence: int = -1


def dump(cursors: Mapping[int, Cursor]) -> str:
    """The state that holds the cursors."""
    return json.dumps({str(shard): [c.location, c.sequence] for shard, c in cursors.items()})


def parse(state: str | None) -> dict[int, Cursor]:
    """The cursors in a state."""
    found: dict[str, list[Any]] = json.loads(state) if state else {}
    return {int(shard): Cursor(*values) for shard, values in found.items()}


class V3ioStreamTable(PullSource):
    """The stream of one table: `settings.source` is the section of the pipeline file."""

    def __init__(self, settings: MonitorSettings) -> None:
        self._settings = settings
        self._stream: _Stream | None = None

    @property
    def progress(self) -> dict[str, Any] | None:
        """How many records wait in the stream."""
        if self._stream is None:
            return None
        behind = self._stream.behind
        msg = f"{len(behind)} shards, {sum(behind.values()):,} records behind"
        return {"loaded": None, "total": None, "msg": msg}

    def open(self, state: str | None, notebook: Notebook, cancelled: threading.Event) -> PullStream:
        """Find the shards. Raises :class:`SourceLost`."""
        source = self._settings.source
        client = V3ioClient(
            source["url"],
            source["access_key"] or None,
            timeout=source["timeout"],
            connections=1,
            verify=source["ca_file"] or True,
        )
        reader = StreamReader(client, source["container"], source["path"])
        try:
            self._stream = _Stream(self._settings, client, reader, parse(state), cancelled)
        except V3ioError as error:
            client.close()
            raise SourceLost(str(error)) from error
        return self._stream


class _Stream:
    def __init__(
        self,
        settings: MonitorSettings,
        client: V3ioClient,
        reader: StreamReader,
        cursors: dict[int, Cursor],
        cancelled: threading.Event,
    ) -> None:
        source = settings.source
        self._table = settings.table
        self._client = client
        self._reader = reader
        self._cursors = cursors
        self._cancelled = cancelled
        self._batch: int = source["batch"]
        self._poll: float = source["poll"]
        self._row = FORMATS[source["format"]]
        self._metadata: bool = source["metadata"]
        # Where a stream begins that was never read; shards that it gets later are read from their beginning.
        self._from_latest = source["start"] == "latest" and not cursors
        self._described = 0.0
        #: Shards still to be read before looking whether there is more in the first.
        self._round: list[int] = []
        self._idle = self._new = False
        self.behind: dict[int, int] = {}
        self._find_shards()

    def read(self) -> Pulled:
        """The next records of some shard; none if there are none in any. Raises :class:`SourceLost`."""
        try:
            return self._read()
        except V3ioError as error:
            raise SourceLost(str(error)) from error

    def ended(self) -> None:
        """A stream does not end."""

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _read(self) -> Pulled:
        if not self._round:
            if self._idle:
                self._cancelled.wait(self._poll)
            self._find_shards()
            self._round, self._idle = sorted(self._cursors), True
        if self._new:
            # To be kept at once: of a place after the newest record, what comes from now on must not be missed.
            self._new = False
            return Pulled((), dump(self._cursors))
        shard = self._round.pop(0)
        cursor, known, gap = self._cursors[shard], -1, None
        try:
            page = self._reader.records(shard, cursor.location, self._batch)
        except RequestRefused as error:
            location, known, gap = self._find_again(shard, cursor, error)
            page = self._reader.records(shard, location, self._batch)
        self.behind[shard] = page.behind
        if not page.records:
            cursor.location = page.location
            return Pulled((), None, gap)
        self._idle = False
        self._cursors[shard] = Cursor(page.location, page.records[-1].sequence)
        rows = list(self._rows(shard, [record for record in page.records if record.sequence > known]))
        return Pulled(rows, dump(self._cursors), gap)

    def _find_shards(self) -> None:
        now = time.monotonic()
        if self._cursors and now < self._described + DESCRIBE_INTERVAL:
            return
        self._described = now
        for shard in range(self._reader.shard_count()):
            if shard not in self._cursors:
                seek = self._reader.latest if self._from_latest else self._reader.earliest
                self._cursors[shard] = Cursor(seek(shard))
                self._new = True
        self._from_latest = False

    def _find_again(self, shard: int, cursor: Cursor, error: RequestRefused) -> tuple[str, int, str | None]:
        """A location for a shard whose own is refused, the last record read there, and why some may be missing."""
        log.warning("%s: shard %d: %s; looking for the place", self._table, shard, error)
        if cursor.sequence < 0:
            return self._reader.earliest(shard), -1, None
        try:
            return self._reader.at(shard, cursor.sequence), cursor.sequence, None
        except RequestRefused:
            # Those after it may have another number than we think, if it is another stream now: none is left out.
            gap = f"the place in shard {shard} is gone; records may have expired before they were read"
            return self._reader.earliest(shard), -1, gap

    def _rows(self, shard: int, records: list[StreamRecord]) -> Iterator[object]:
        for record in records:
            row = self._row(record)
            if self._metadata and not isinstance(row, BadRow):
                row["__shard"] = shard
                row["__sequence"] = record.sequence
                row["__arrival"] = record.arrival // 10**6
                row["__partition_key"] = record.partition_key
            yield row
