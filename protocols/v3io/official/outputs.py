"""What the replies of V3IO's calls hold, under the names of the official ``v3io`` package.

Each class is made from a parsed body: a dict of JSON, or the root of an XML document. Any ``KeyError``,
``TypeError``, ``ValueError`` or ``AttributeError`` of theirs says that the body is none of V3IO's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NoReturn, TypeVar
from xml.etree.ElementTree import Element

from protocols.v3io import wire

T = TypeVar("T")

#: An attribute of an item: as :data:`protocols.v3io.wire.Value`, with moments as datetimes in UTC. A moment that
#: no datetime can hold stays a ``Timestamp``.
ItemValue = wire.Value | datetime
Item = dict[str, ItemValue]


class Truncation(str):
    """``"true"`` or ``"false"``, as the official package has it, but only ``"true"`` is true."""

    __slots__ = ()

    def __bool__(self) -> bool:
        return self == "true"


class ErrorOutput:
    """What a reply says that reports a failure which the call allows.

    Attributes:
        error: the reply's fields, empty if it has none.
        error_code: V3IO's ``ErrorCode``, or None.
        error_message: V3IO's ``ErrorMessage``, or "".

    It has nothing else: an output of a failed call is not an empty one.
    """

    def __init__(self, status_code: int, error: dict[str, Any]) -> None:
        self._status = status_code
        self.error = error
        self.error_code: int | None = error.get("ErrorCode")
        self.error_message: str = error.get("ErrorMessage", "")

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_"):
            raise AttributeError(name)
        raise AttributeError(
            f"there is no {name}: the call failed with status {self._status}: {self.error_message}"
        )


@dataclass(frozen=True, slots=True)
class Container:
    name: str
    creation_date: str
    identifier: int


class GetContainersOutput:
    def __init__(self, root: Element) -> None:
        buckets = root.find("Buckets")
        self.containers = [
            Container(_text(bucket, "Name"), _text(bucket, "CreationDate"), int(_text(bucket, "Id")))
            for bucket in ([] if buckets is None else buckets)
        ]


class _Entry:
    """What objects and directories of a listing share; None without ``get_all_attributes``."""

    def __init__(self, element: Element) -> None:
        self.last_modified = _optional(element, "LastModified", str)
        self.access_time = _optional(element, "AccessTime", str)
        self.creating_time = _optional(element, "CreatingTime", str)
        self.mode = _optional(element, "Mode", str)
        self.gid = _optional(element, "GID", str)
        self.uid = _optional(element, "UID", str)
        self.inode_number = _optional(element, "InodeNumber", int)


class ContainerContent(_Entry):
    """An object: its path within the container and its size in bytes."""

    def __init__(self, element: Element) -> None:
        super().__init__(element)
        self.key = _text(element, "Key")
        self.size = _optional(element, "Size", int)
        # The server's spelling, and the one that the official package looks for.
        self.last_sequence_id = _optional(element, "LastSequenceId", int)
        if self.last_sequence_id is None:
            self.last_sequence_id = _optional(element, "LastSequenceID", int)


class ContainerCommonPrefix(_Entry):
    """A directory: its path within the container, with a slash at its end; of a stream also its settings."""

    def __init__(self, element: Element) -> None:
        super().__init__(element)
        self.prefix = _text(element, "Prefix")
        self.shard_count = _optional(element, "ShardCount", int)
        self.retention_period_hours = _optional(element, "RetentionPeriodHours", int)


class GetContainerContentsOutput:
    """A page of a listing; `next_marker` asks for the next one if `is_truncated`."""

    def __init__(self, root: Element) -> None:
        self.name = _text(root, "Name")
        self.next_marker = _optional(root, "NextMarker", str)
        self.max_keys = int(_text(root, "MaxKeys"))
        self.is_truncated = Truncation(_text(root, "IsTruncated"))
        self.contents = [ContainerContent(each) for each in root.findall("Contents")]
        self.common_prefixes = [ContainerCommonPrefix(each) for each in root.findall("CommonPrefixes")]


class GetItemOutput:
    def __init__(self, fields: dict[str, Any]) -> None:
        self.item = _item(fields["Item"])


class GetItemsOutput:
    """A page of a scan; `next_marker` asks for the next one unless it is the `last`."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self.last = fields.get("LastItemIncluded") == "TRUE"
        self.next_marker: str | None = fields.get("NextMarker")
        self.items = [_item(item) for item in fields["Items"]]


class DescribeStreamOutput:
    def __init__(self, fields: dict[str, Any]) -> None:
        self.shard_count = int(fields["ShardCount"])
        self.retention_period_hours = int(fields["RetentionPeriodHours"])


class SeekShardOutput:
    def __init__(self, fields: dict[str, Any]) -> None:
        self.location = str(fields["Location"])


class PutRecordsResult:
    """Where a record was stored; or if `error_code` is not None, why it was not."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self.sequence_number: int | None = fields.get("SequenceNumber")
        self.shard_id: int | None = fields.get("ShardId")
        self.error_code: int | None = fields.get("ErrorCode")
        self.error_message: str | None = fields.get("ErrorMessage")


class PutRecordsOutput:
    """A result for each record, in their order. A reply that refuses some is no failure of the call."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self.failed_record_count = int(fields["FailedRecordCount"])
        self.records = [PutRecordsResult(record) for record in fields["Records"]]


class GetRecordsResult:
    def __init__(self, fields: dict[str, Any]) -> None:
        self.arrival_time_sec: int = fields["ArrivalTimeSec"]
        self.arrival_time_nsec: int = fields["ArrivalTimeNSec"]
        self.sequence_number: int = fields["SequenceNumber"]
        info = fields.get("ClientInfo")
        self.client_info = None if info is None else wire.decode_base64(info)
        self.partition_key: str | None = fields.get("PartitionKey")
        self.data = wire.decode_base64(fields["Data"])


class GetRecordsOutput:
    """Records of a shard, in order, and the location behind them."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self.next_location = str(fields["NextLocation"])
        self.msec_behind_latest: int | None = fields.get("MSecBehindLatest")
        self.records_behind_latest: int | None = fields.get("RecordsBehindLatest")
        self.records = [GetRecordsResult(record) for record in fields["Records"]]


def _item(typed: dict[str, Any]) -> Item:
    values: Item = {}
    for name, value in wire.decode_attributes(typed).items():
        values[name] = value
        if isinstance(value, wire.Timestamp):
            with contextlib.suppress(OverflowError):
                values[name] = value.datetime()
    return values


def _text(element: Element, name: str) -> str:
    child = element.find(name)
    if child is None:
        raise ValueError(f"there is no {name}")
    return child.text or ""


def _optional(element: Element, name: str, kind: Callable[[str], T]) -> T | None:
    child = element.find(name)
    return None if child is None or child.text is None else kind(child.text)
