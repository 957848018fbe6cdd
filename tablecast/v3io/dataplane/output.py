"""``v3io.dataplane.output`` of the official package."""

from __future__ import annotations

from protocols.v3io.official.outputs import (
    Container,
    ContainerCommonPrefix,
    ContainerContent,
    DescribeStreamOutput,
    GetContainerContentsOutput,
    GetContainersOutput,
    GetItemOutput,
    GetItemsOutput,
    GetRecordsOutput,
    GetRecordsResult,
    PutRecordsOutput,
    PutRecordsResult,
    SeekShardOutput,
)

__all__ = [
    "Container",
    "ContainerCommonPrefix",
    "ContainerContent",
    "DescribeStreamOutput",
    "GetContainerContentsOutput",
    "GetContainersOutput",
    "GetItemOutput",
    "GetItemsOutput",
    "GetRecordsOutput",
    "GetRecordsResult",
    "PutRecordsOutput",
    "PutRecordsResult",
    "SeekShardOutput",
]
