"""Streams: CreateStream, UpdateStream, DescribeStream, PutRecords, SeekShard and GetRecords.

A location is the sequence number of the last record before it, in 16 bytes.
"""

from __future__ import annotations

import itertools
import struct
import time
import zlib
from typing import Any

from protocols.v3io import wire
from protocols.v3io.server.errors import Refused, invalid
from protocols.v3io.server.messages import Body, Reply, integer, json_reply, text
from protocols.v3io.server.store import STREAM, Entry, Names, Store

DEFAULT_RETENTION_HOURS = 24
MAX_RETENTION_HOURS = 24 * 366 * 100
MAX_SHARDS = 4096
#: Most records in a reply of GetRecords, and bytes of data after which it ends.
PAGE_RECORDS = 1000
PAGE_BYTES = 10 * 1024 * 1024

_LOCATION = struct.Struct("<QQ")
_LOCATION_VERSION = 1
#: Spreads the records without a shard and a key.
_round_robin = itertools.count()


def create_stream(store: Store, path: Names, body: Body) -> Reply:
    path = _stream_path(path, body)
    shard_count = _shard_count(body, least=1)
    retention = integer(
        body, "RetentionPeriodHours", DEFAULT_RETENTION_HOURS, least=1, most=MAX_RETENTION_HOURS
    )
    if store.find(path) is not None:
        raise Refused(409, wire.INVALID_ARGUMENT, f"ResourceInUseException: there is a /{'/'.join(path)}")
    store.stream(path, shard_count, retention)
    return Reply(204)


def update_stream(store: Store, path: Names, body: Body) -> Reply:
    stream = _stream(store, _stream_path(path, body))
    shard_count = _shard_count(body, least=stream.shard_count)
    store.execute("UPDATE entries SET shard_count = ? WHERE id = ?", (shard_count, stream.id))
    store.touch(stream)
    return Reply(204)


def describe_stream(store: Store, path: Names, body: Body) -> Reply:
    stream = _stream(store, _stream_path(path, body))
    return json_reply({"ShardCount": stream.shard_count, "RetentionPeriodHours": stream.retention_hours})


def put_records(store: Store, path: Names, body: Body) -> Reply:
    """Add records to the ends of their shards; what is wrong with one refuses it alone."""
    path = _stream_path(path, body)
    stream = _stream(store, path)
    records = body.get("Records")
    if not isinstance(records, list) or not 0 < len(records) <= wire.MAX_RECORDS:
        raise invalid(f"Records must be a list of 1 to {wire.MAX_RECORDS} records")
    shards: dict[int, _Shard] = {}
    results: list[dict[str, Any]] = []
    failed = 0
    for record in records:
        try:
            row = _row(record)
            number = _shard_number(record, stream.shard_count)
        except Refused as error:
            failed += 1
            results.append({"ErrorCode": error.code, "ErrorMessage": str(error)})
            continue
        if number not in shards:
            shards[number] = _Shard(store, (*path, str(number)))
        results.append({"SequenceNumber": shards[number].add(row), "ShardId": number})
    for shard in shards.values():
        shard.write(stream.retention_hours)
    return json_reply({"FailedRecordCount": failed, "Records": results})


def seek_shard(store: Store, path: Names, body: Body) -> Reply:
    shard = _shard(store, path, body)
    kind = text(body, "Type")
    last, _ = store.last_record(shard)
    if kind == "EARLIEST":
        position = 0
    elif kind == "LATEST":
        position = last
    elif kind == "SEQUENCE":
        number = integer(body, "StartingSequenceNumber", None, least=0)
        found = store.execute(
            "SELECT 1 FROM records WHERE shard = ? AND sequence = ?", (shard, number)
        ).fetchone()
        if found is None:
            raise invalid(f"the shard has no record of sequence number {number}")
        position = number - 1
    elif kind == "TIME":
        seconds = integer(body, "TimestampSec", None, least=0, most=2**33)
        moment = seconds * 10**9 + integer(body, "TimestampNSec", 0, least=0, most=10**9 - 1)
        [first] = store.execute(
            "SELECT min(sequence) FROM records WHERE shard = ? AND arrival >= ?", (shard, moment)
        ).fetchone()
        position = last if first is None else first - 1
    else:
        raise invalid(f"Type must be EARLIEST, LATEST, SEQUENCE or TIME, not {kind!r:.80}")
    return json_reply({"Location": encode_location(position)})


def get_records(store: Store, path: Names, body: Body) -> Reply:
    shard = _shard(store, path, body)
    position = decode_location(text(body, "Location"))
    limit = min(integer(body, "Limit", PAGE_RECORDS, least=0) or PAGE_RECORDS, PAGE_RECORDS)
    rows = store.execute(
        "SELECT sequence, arrival, partition_key, client_info, data FROM records"
        " WHERE shard = ? AND sequence > ? ORDER BY sequence LIMIT ?",
        (shard, min(position, 2**63 - 1), limit),
    )
    records: list[dict[str, Any]] = []
    size = 0
    last, newest = store.last_record(shard)
    reached = newest
    for sequence, arrival, partition_key, client_info, data in rows:
        seconds, nanoseconds = divmod(arrival, 10**9)
        record = {"ArrivalTimeSec": seconds, "ArrivalTimeNSec": nanoseconds, "SequenceNumber": sequence}
        if partition_key is not None:
            record["PartitionKey"] = partition_key
        if client_info is not None:
            record["ClientInfo"] = client_info
        records.append(record | {"Data": data})
        position, reached = sequence, arrival
        size += len(data)
        if size > PAGE_BYTES:
            break
    rows.close()
    return json_reply(
        {
            "NextLocation": encode_location(position),
            "MSecBehindLatest": (newest - reached) // 10**6,
            "RecordsBehindLatest": max(last - position, 0),
            "Records": records,
        }
    )


def encode_location(position: int) -> str:
    return wire.encode_base64(_LOCATION.pack(_LOCATION_VERSION, position))


def decode_location(location: str) -> int:
    """Raises ``Refused`` for a text that :func:`encode_location` cannot give."""
    try:
        version, position = _LOCATION.unpack(wire.decode_base64(location))
    except (ValueError, struct.error):
        version = position = 0
    if version != _LOCATION_VERSION:
        raise Refused(400, wire.INVALID_ARGUMENT, "IllegalLocation: seek the shard to get a location")
    return int(position)


class _Shard:
    """Collects the records of a request that go to one shard."""

    def __init__(self, store: Store, path: Names) -> None:
        self._store = store
        self._entry = store.object(path)
        self._sequence, newest = store.last_record(self._entry.id)
        # The order of arrival is that of the numbers, whatever the clock does.
        self._arrival = max(time.time_ns(), newest)
        self._rows: list[tuple[int, int, int, str | None, str | None, str]] = []

    def add(self, row: tuple[str | None, str | None, str]) -> int:
        """The sequence number that the record gets."""
        self._sequence += 1
        self._rows.append((self._entry.id, self._sequence, self._arrival, *row))
        return self._sequence

    def write(self, retention_hours: int) -> None:
        """Store the records, and drop those that are past their time."""
        self._store.add_records(self._rows)
        expired = self._arrival - retention_hours * 3600 * 10**9
        self._store.execute("DELETE FROM records WHERE shard = ? AND arrival < ?", (self._entry.id, expired))
        self._store.touch(self._entry)


def _stream_path(path: Names, body: Body) -> Names:
    name = text(body, "StreamName")
    path = (*path, *[part for part in name.split("/") if part])
    if len(path) < 2:
        raise invalid("the path of a stream is missing")
    return path


def _stream(store: Store, path: Names) -> Entry:
    entry = store.find(path)
    if entry is None:
        raise Refused(404, wire.NO_SUCH_FILE, f"ResourceNotFoundException: there is no /{'/'.join(path)}")
    if entry.kind != STREAM:
        raise Refused(
            400, wire.INVALID_ARGUMENT, f"ResourceNotStreamException: /{'/'.join(path)} is no stream"
        )
    return entry


def _shard(store: Store, path: Names, body: Body) -> int:
    """The id of the shard that the path, or the field ShardId, names; 0 if it is not written yet."""
    if body.get("ShardId") is not None:
        path, number = _stream_path(path, body), integer(body, "ShardId", None, least=-(2**63))
    else:
        path, name = path[:-1], path[-1]
        if not name.isascii() or not name.isdecimal() or len(name) > 18:
            raise invalid(f"{name!r:.80} is not the number of a shard")
        number = int(name)
        path = _stream_path(path, {})
    stream = _stream(store, path)
    if not 0 <= number < stream.shard_count:
        raise _out_of_range()
    entry = store.find((*path, str(number)))
    return 0 if entry is None else entry.id


def _shard_count(body: Body, *, least: int) -> int:
    value = body.get("ShardCount")
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= MAX_SHARDS:
        raise Refused(
            400,
            wire.INVALID_ARGUMENT,
            f"InvalidShardCountException: ShardCount must be from {least} to {MAX_SHARDS}, not {value!r:.80}",
        )
    return value


def _row(record: Any) -> tuple[str | None, str | None, str]:
    """Partition key, client information and data of a record, as they came. Raises ``Refused``."""
    if not isinstance(record, dict):
        raise invalid("a record must be an object")
    key, info, data = record.get("PartitionKey"), record.get("ClientInfo"), record.get("Data")
    if not isinstance(data, str):
        raise invalid("Data is missing, or not base64")
    try:
        size = len(wire.decode_base64(data))
        if info is not None:
            wire.decode_base64(info)
    except ValueError as error:
        raise invalid(f"Data or ClientInfo is {error}") from None
    if size > wire.MAX_RECORD_BYTES:
        raise invalid(f"Data has {size} bytes; at most {wire.MAX_RECORD_BYTES} are allowed")
    if key is not None and not (isinstance(key, str) and len(key.encode()) <= wire.MAX_PARTITION_KEY_BYTES):
        raise invalid(f"PartitionKey must be a string of at most {wire.MAX_PARTITION_KEY_BYTES} bytes")
    return key, info, data


def _shard_number(record: dict[str, Any], shard_count: int) -> int:
    number = record.get("ShardId")
    if number is None:
        key = record.get("PartitionKey")
        return (next(_round_robin) if key is None else zlib.crc32(key.encode())) % shard_count
    if isinstance(number, bool) or not isinstance(number, int):
        raise invalid(f"ShardId must be an integer, not {number!r:.80}")
    if not 0 <= number < shard_count:
        raise _out_of_range()
    return number


def _out_of_range() -> Refused:
    return Refused(400, wire.SHARD_OUT_OF_RANGE, "ShardIDOutOfRangeException")
