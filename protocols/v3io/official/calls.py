"""The calls of V3IO's web API as requests: arguments of the official ``v3io`` package in, methods and bodies out.

What cannot be sent is refused here, before anything is: ``TypeError`` for a wrong type, ``ValueError`` for a value
that cannot be, :class:`~protocols.v3io.errors.InvalidAttribute` for attributes of items. No sockets.

Source: requests captured from the official package 0.7.2.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO
from urllib.parse import quote, urlencode

import orjson

from protocols.checks import check_number, check_type
from protocols.v3io import wire
from protocols.v3io.errors import InvalidAttribute
from protocols.v3io.official import outputs

Body = str | bytes | bytearray | memoryview | BinaryIO | None

_SEEK_TYPES = ("EARLIEST", "LATEST", "SEQUENCE", "TIME")
_RECORD_FIELDS = ("data", "client_info", "shard_id", "partition_key")


@dataclass(frozen=True, slots=True)
class Call:
    """A request.

    Attributes:
        path: percent-encoded, with its query.
        output: makes the output of the parsed body of a reply.
        repeatable: whether doing it twice is the same as doing it once, so that it may be sent again when its
            reply was lost.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes | BinaryIO | None = None
    output: Callable[[Any], Any] | None = None
    repeatable: bool = False


def get_containers() -> Call:
    return Call("GET", "/", {}, None, outputs.GetContainersOutput, True)


def list_directory(
    container: str,
    path: str,
    *,
    get_all_attributes: bool | None = None,
    directories_only: bool | None = None,
    limit: int | None = None,
    marker: str | None = None,
) -> Call:
    query: dict[str, Any] = {"prefix": _text("path", path)}
    if get_all_attributes:
        query["prefix-info"] = 1
    if directories_only:
        query["prefix-only"] = 1
    if limit is not None:
        query["max-keys"] = _integer("limit", limit, least=1)
    if marker:
        query["marker"] = _text("marker", marker)
    target = f"{_quoted(container, '').rstrip('/')}?{urlencode(query, quote_via=quote, safe='')}"
    return Call("GET", target, {}, None, outputs.GetContainerContentsOutput, True)


def head_object(container: str, path: str) -> Call:
    return Call("HEAD", _named(container, path), {}, repeatable=True)


def get_object(container: str, path: str, offset: int | None = None, num_bytes: int | None = None) -> Call:
    start = 0 if offset is None else _integer("offset", offset, least=0)
    headers = {}
    if num_bytes is not None:
        headers["Range"] = f"bytes={start}-{start + _integer('num_bytes', num_bytes, least=1) - 1}"
    elif start:
        headers["Range"] = f"bytes={start}"
    return Call("GET", _named(container, path), headers, repeatable=True)


def put_object(container: str, path: str, body: Body = None, append: bool | None = None) -> Call:
    if isinstance(body, str):
        body = body.encode()
    elif isinstance(body, bytearray | memoryview):
        body = bytes(body)
    elif isinstance(body, io.TextIOBase):
        raise TypeError('body is a text file: open it as "rb"')
    elif not (body is None or isinstance(body, bytes) or callable(getattr(body, "read", None))):
        raise TypeError(f"body must be text, bytes or a binary file, not {type(body).__name__}")
    headers = {"Range": "-1"} if append else {"Content-Type": "application/octet-stream"}
    return Call("PUT", _named(container, path), headers, body, repeatable=not append)


def delete_object(container: str, path: str) -> Call:
    return Call("DELETE", _named(container, path), {})


def put_item(container: str, path: str, attributes: Mapping[str, Any], condition: str | None = None) -> Call:
    fields: dict[str, Any] = {"Item": _attributes(attributes)}
    if condition is not None:
        fields["ConditionExpression"] = _text("condition", condition)
    return _function("PUT", "PutItem", _named(container, path), fields, repeatable=condition is None)


def update_item(
    container: str,
    path: str,
    *,
    attributes: Mapping[str, Any] | None = None,
    expression: str | None = None,
    condition: str | None = None,
    update_mode: str | None = None,
    alternate_expression: str | None = None,
) -> Call:
    target = _named(container, path)
    fields: dict[str, Any] = {"UpdateMode": _text("update_mode", update_mode or wire.MERGE)}
    if condition is not None:
        fields["ConditionExpression"] = _text("condition", condition)
    if not expression and not attributes:
        raise RuntimeError("One of expression or attributes must be populated for update item")
    if attributes:
        if expression or alternate_expression:
            raise ValueError("give attributes or expressions: V3IO does not do both at once")
        fields["Item"] = _attributes(attributes)
        return _function("PUT", "PutItem", target, fields, repeatable=condition is None)
    fields["UpdateExpression"] = _text("expression", expression)
    if alternate_expression:
        fields["AlternateUpdateExpression"] = _text("alternate_expression", alternate_expression)
    return _function("POST", "UpdateItem", target, fields)


def get_item(container: str, path: str, attribute_names: str | Iterable[str] = "*") -> Call:
    fields = {"AttributesToGet": joined_names(attribute_names)}
    return _function("PUT", "GetItem", _named(container, path), fields, outputs.GetItemOutput, True)


def get_items(
    container: str,
    table_path: str,
    *,
    table_name: str | None = None,
    attribute_names: str | Iterable[str] = "*",
    filter_expression: str | None = None,
    marker: str | None = None,
    sharding_key: str | None = None,
    limit: int | None = None,
    segment: int | None = None,
    total_segments: int | None = None,
    sort_key_range_start: str | None = None,
    sort_key_range_end: str | None = None,
) -> Call:
    fields: dict[str, Any] = {"AttributesToGet": joined_names(attribute_names)}
    texts = {
        "TableName": ("table_name", table_name),
        "FilterExpression": ("filter_expression", filter_expression),
        "Marker": ("marker", marker),
        "ShardingKey": ("sharding_key", sharding_key),
        "SortKeyRangeStart": ("sort_key_range_start", sort_key_range_start),
        "SortKeyRangeEnd": ("sort_key_range_end", sort_key_range_end),
    }
    fields |= {field: _text(*given) for field, given in texts.items() if given[1]}
    if limit is not None:
        fields["Limit"] = _integer("limit", limit, least=1)
    if segment is not None:
        fields["Segment"] = _integer("segment", segment, least=0)
    if total_segments is not None:
        fields["TotalSegment"] = _integer("total_segments", total_segments, least=1)
    target = _quoted(container, _directory("table_path", table_path))
    return _function("PUT", "GetItems", target, fields, outputs.GetItemsOutput, True)


def create_schema(
    container: str, table_path: str, key: str | None, fields: Sequence[Mapping[str, Any]] | None
) -> Call:
    if not isinstance(fields, Sequence) or not all(isinstance(field, Mapping) for field in fields):
        raise TypeError(
            f'fields must be a list of {{"name": …, "type": …, "nullable": …}}, not {fields!r:.80}'
        )
    schema = {"hashingBucketNum": 0, "key": _text("key", key), "fields": [dict(field) for field in fields]}
    return put_object(
        container, f"{_text('table_path', table_path).rstrip('/')}/.#schema", orjson.dumps(schema)
    )


def create_stream(
    container: str, stream_path: str, shard_count: int, retention_period_hours: int | None = None
) -> Call:
    hours = 24 if retention_period_hours is None else retention_period_hours
    fields = {
        "ShardCount": _integer("shard_count", shard_count, least=1),
        "RetentionPeriodHours": _integer("retention_period_hours", hours, least=1),
    }
    return _function("POST", "CreateStream", _stream(container, stream_path), fields)


def update_stream(container: str, stream_path: str, shard_count: int) -> Call:
    fields = {"ShardCount": _integer("shard_count", shard_count, least=1)}
    return _function("POST", "UpdateStream", _stream(container, stream_path), fields)


def delete_stream(container: str, stream_path: str) -> Call:
    return Call("DELETE", _stream(container, stream_path), {})


def describe_stream(container: str, stream_path: str) -> Call:
    headers = {wire.FUNCTION_HEADER: "DescribeStream"}
    target = _stream(container, stream_path)
    return Call("PUT", target, headers, None, outputs.DescribeStreamOutput, True)


def seek_shard(
    container: str,
    shard_path: str,
    seek_type: str,
    *,
    starting_sequence_number: int | None = None,
    timestamp_sec: int | None = None,
    timestamp_nsec: int | None = None,
) -> Call:
    if seek_type not in _SEEK_TYPES:
        raise ValueError(f"Unsupported seek_type ({seek_type!r:.80}): use one of {', '.join(_SEEK_TYPES)}")
    fields: dict[str, Any] = {"Type": seek_type}
    if seek_type == "SEQUENCE":
        number = _integer("starting_sequence_number", starting_sequence_number, least=0)
        fields["StartingSequenceNumber"] = number
    elif seek_type == "TIME":
        fields["TimestampSec"] = _integer("timestamp_sec", timestamp_sec, least=0)
        fields["TimestampNSec"] = _integer("timestamp_nsec", timestamp_nsec or 0, least=0)
    target = _stream(container, shard_path)
    return _function("PUT", "SeekShard", target, fields, outputs.SeekShardOutput, True)


def put_records(container: str, stream_path: str, records: Sequence[Mapping[str, Any]]) -> Call:
    if not isinstance(records, list | tuple):
        raise TypeError(f"records must be a list of dicts, not {type(records).__name__}")
    fields = {"Records": [_record(number, record) for number, record in enumerate(records)]}
    target = _stream(container, stream_path)
    return _function("POST", "PutRecords", target, fields, outputs.PutRecordsOutput)


def get_records(container: str, shard_path: str, location: str, limit: int | None = None) -> Call:
    fields: dict[str, Any] = {"Location": _text("location", location)}
    if limit is not None:
        fields["Limit"] = _integer("limit", limit, least=1)
    target = _stream(container, shard_path)
    return _function("PUT", "GetRecords", target, fields, outputs.GetRecordsOutput, True)


def item_path(table_path: str, key: str) -> str:
    """The path of a table's item. Raises ``ValueError`` for a key that would lie outside the table."""
    if not _text("key", key).strip("/") or key.startswith("/") or key.endswith("/"):
        raise ValueError(f"{key!r:.80} cannot be a key: it must not be empty, or begin or end with a slash")
    return f"{_text('table_path', table_path).rstrip('/')}/{key}"


def shard_path(stream_path: str, shard_id: int | str) -> str:
    """The path of a stream's shard, by its number."""
    if isinstance(shard_id, str) and shard_id.isascii() and shard_id.isdecimal():
        shard_id = int(shard_id)
    number = _integer("shard_id", shard_id, least=0)
    return f"{_text('stream_path', stream_path).rstrip('/')}/{number}"


def joined_names(names: str | Iterable[str]) -> str:
    """What a call asks for: names as they are in a list, or joined with commas already."""
    if isinstance(names, str):
        return names
    if not isinstance(names, Iterable):
        raise TypeError(f"attribute_names must be a list of names, not {type(names).__name__}")
    return ",".join(_text("a name of attribute_names", name) for name in names)


def _function(
    method: str,
    name: str,
    target: str,
    fields: Mapping[str, Any],
    output: Callable[[Any], Any] | None = None,
    repeatable: bool = False,
) -> Call:
    headers = {wire.FUNCTION_HEADER: name, "Content-Type": "application/json"}
    return Call(method, target, headers, orjson.dumps(fields), output, repeatable)


def _quoted(container: str, path: str) -> str:
    name = _text("container", container).strip("/")
    if not name or "/" in name:
        raise ValueError(f"container must be the name of one, without slashes, not {container!r:.80}")
    return wire.quote_path(name, path.lstrip("/"))


def _named(container: str, path: str) -> str:
    if not _text("path", path).strip("/"):
        raise ValueError("the path is empty: name something within the container")
    return _quoted(container, path)


def _stream(container: str, path: str) -> str:
    return _named(container, _directory("stream_path", path))


def _directory(name: str, path: str) -> str:
    return _text(name, path).rstrip("/") + "/"


def _text(name: str, value: object) -> str:
    text: str = check_type(name, value, str)
    return text


def _integer(name: str, value: object, *, least: int) -> int:
    return int(check_number(name, check_type(name, value, int), least))


def _attributes(attributes: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    if not isinstance(attributes, Mapping):
        raise TypeError(f"attributes must be a dict, not {type(attributes).__name__}")
    for name, value in attributes.items():
        if isinstance(value, str):
            try:
                size = len(value) if value.isascii() else len(value.encode())
            except UnicodeEncodeError:
                raise InvalidAttribute(
                    f"attribute {name} has half of a surrogate pair, which is no text"
                ) from None
            if size > wire.MAX_STRING_BYTES:
                raise InvalidAttribute(
                    f"attribute {name} is too long: {size} bytes, and text has at most {wire.MAX_STRING_BYTES}"
                )
    try:
        return wire.encode_attributes(attributes)
    except (TypeError, ValueError) as error:
        raise InvalidAttribute(str(error)) from None


def _record(number: int, record: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(record, Mapping):
        raise TypeError(f"record {number} must be a dict, not {type(record).__name__}")
    for name in record:
        if name not in _RECORD_FIELDS:
            raise ValueError(f"record {number} has {name!r:.80}; a record has {', '.join(_RECORD_FIELDS)}")
    if "data" not in record:
        raise KeyError(f"record {number} has no data")
    fields: dict[str, Any] = {"Data": _base64(f"data of record {number}", record["data"])}
    if (info := record.get("client_info")) is not None:
        fields["ClientInfo"] = _base64(f"client_info of record {number}", info)
    if (shard := record.get("shard_id")) is not None:
        fields["ShardId"] = check_type(f"shard_id of record {number}", shard, int)
    if (key := record.get("partition_key")) is not None:
        fields["PartitionKey"] = _text(f"partition_key of record {number}", key)
    return fields


def _base64(name: str, value: object) -> str:
    if isinstance(value, str):
        value = value.encode()
    if not isinstance(value, bytes | bytearray):
        raise TypeError(f"{name} must be text or bytes, not {type(value).__name__}")
    return wire.encode_base64(value)
