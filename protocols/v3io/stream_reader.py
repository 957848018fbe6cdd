"""Reading a V3IO stream: shards, places in them, and the records from there on. Consumer groups are not here."""

from __future__ import annotations

from typing import Any, NamedTuple

from protocols.v3io import wire
from protocols.v3io.client import V3ioClient


class StreamRecord(NamedTuple):
    """A record as it is stored; `arrival` is when it came, in nanoseconds since 1970."""

    sequence: int
    data: bytes
    arrival: int
    partition_key: str | None
    client_info: bytes | None


class Page(NamedTuple):
    """Records in order, the location after them, and how many more there were."""

    records: list[StreamRecord]
    location: str
    behind: int


class StreamReader:
    """The stream at `path` of `container`. Methods raise :class:`~protocols.v3io.errors.V3ioError`."""

    def __init__(self, client: V3ioClient, container: str, path: str) -> None:
        self._client = client
        self._container = container
        self._path = path.strip("/")

    def shard_count(self) -> int:
        """How many shards there are; they only ever become more."""
        return self._client.describe_stream(self._container, self._path).shard_count

    def earliest(self, shard: int) -> str:
        """The location of the oldest record that there is."""
        return self._seek(shard, {"Type": "EARLIEST"})

    def latest(self, shard: int) -> str:
        """The location after the newest record."""
        return self._seek(shard, {"Type": "LATEST"})

    def at(self, shard: int, sequence: int) -> str:
        """The location of a record. Raises :class:`~protocols.v3io.errors.RequestRefused` if there is none such."""
        return self._seek(shard, {"Type": "SEQUENCE", "StartingSequenceNumber": sequence})

    def _seek(self, shard: int, body: dict[str, Any]) -> str:
        return self._client.function(
            "SeekShard",
            self._container,
            f"{self._path}/{shard}",
            body,
            lambda fields: str(fields["Location"]),
        )

    def records(self, shard: int, location: str, limit: int) -> Page:
        """Up to `limit` records from `location` on."""
        body = {"Location": location, "Limit": limit}
        return self._client.function("GetRecords", self._container, f"{self._path}/{shard}", body, _page)


def _page(fields: dict[str, Any]) -> Page:
    records = [_record(record) for record in fields["Records"]]
    return Page(records, str(fields["NextLocation"]), int(fields.get("RecordsBehindLatest") or 0))


def _record(fields: dict[str, Any]) -> StreamRecord:
    info = fields.get("ClientInfo")
    arrival = int(fields["ArrivalTimeSec"]) * 10**9 + int(fields.get("ArrivalTimeNSec") or 0)
    return StreamRecord(
        int(fields["SequenceNumber"]),
        wire.decode_base64(fields["Data"]),
        arrival,
        fields.get("PartitionKey"),
        None if info is None else wire.decode_base64(info),
    )
