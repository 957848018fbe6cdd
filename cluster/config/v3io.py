"""The settings of a V3IO sink."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr

from cluster.config.types import (
    Column,
    Columns,
    Count,
    FilePath,
    InnerPath,
    Kind,
    Name,
    Seconds,
    Secret,
    Section,
    Url,
)
from cluster.config.yaml_source import KeyPath


class V3ioStream(Section):
    """V3IO streams, one per feed."""

    path: InnerPath = Field(description="Folder of the streams, one per feed, made if missing.")
    shards: Annotated[Count, Field(le=4096)] = Field(
        default=8, description="Shards of each stream; one that exists already has as many or more."
    )
    retention_hours: Annotated[Count, Field(le=876_000)] = Field(
        default=24, description="How long V3IO keeps the records of streams that are made here."
    )
    key: Column | None = Field(
        default=None,
        description="Column whose value is the partition key: rows of one value stay in one shard, in order. "
        "Absent, rows are spread over the shards by their offsets.",
    )
    shard: Column | None = Field(
        default=None, description="Column of shard numbers, from 0 on, in place of `key`."
    )


class V3ioKv(Section):
    """V3IO tables of items, one per feed."""

    path: InnerPath = Field(description="Folder of the tables, one per feed.")
    key: Columns = Field(
        description="The columns whose values, with a period between them, are an item's key."
    )
    mode: Annotated[Literal["put", "update"], Kind("put or update")] = Field(
        default="put",
        description="Whether a row replaces the item, or only the attributes that the table has.",
    )


class V3ioObjects(Section):
    """V3IO objects, one per block."""

    path: InnerPath = Field(description="Folder of the folders, one per feed, with an object per block.")
    format: Annotated[Literal["ndjson", "arrow", "parquet"], Kind("ndjson, arrow or parquet")] = Field(
        default="ndjson", description="What the objects are."
    )


class V3ioSink(Section):
    """V3IO's data plane: exactly one of stream, kv and objects."""

    url: Url = Field(description="The data plane's HTTP address.")
    access_key: Secret = Field(default=SecretStr(""), description="Access key; empty, none is sent.")
    container: Name = Field(description="The container; it must exist.")
    stream: V3ioStream | None = Field(default=None, description="A stream per feed.")
    kv: V3ioKv | None = Field(default=None, description="A table of items per feed.")
    objects: V3ioObjects | None = Field(default=None, description="An object per block.")
    connections: Annotated[Count, Field(le=64)] = Field(
        default=8, description="Most requests at once; order is kept per shard and per key."
    )
    timeout: Seconds = Field(default=30.0, description="How long one request may take, in seconds.")
    ca_file: FilePath | None = Field(
        default=None,
        description="PEM file of the authority that signed the server's certificate, relative to the "
        "pipeline's file; absent, the usual ones. Certificates are always verified.",
    )


def v3io_contradictions(path: KeyPath, sink: Any) -> Iterator[tuple[KeyPath, str]]:
    """What no single value of a V3IO sink at `path` shows to be wrong."""
    if not isinstance(sink, dict):
        return
    forms = ("stream", "kv", "objects")
    found = [form for form in forms if sink.get(form) is not None]
    if len(found) != 1:
        yield path, f"names {' and '.join(found) or 'no form'}; write exactly one of {', '.join(forms)}"
    stream = sink.get("stream")
    if isinstance(stream, dict) and stream.get("key") and stream.get("shard"):
        yield (*path, "stream", "shard"), "given beside key; keep one of the two"
