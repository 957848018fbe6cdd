"""The keys of the pipeline file about sinks. Those of V3IO and of functions of the user's are beside this."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SecretStr

from cluster.config.python_sink import PythonSink
from cluster.config.types import (
    GIB,
    MIB,
    Compression,
    Count,
    FilePath,
    Flag,
    Options,
    Place,
    Seconds,
    Secret,
    Section,
    Size,
    Text,
    Url,
)
from cluster.config.v3io import V3ioSink


class KronosSink(Section):
    """An event store that speaks Kronos's HTTP API."""

    url: Url = Field(description="The event store's HTTP address.")
    namespace: Text | None = Field(
        default=None, description="Namespace of the streams; absent, the default one."
    )
    batch: Count = Field(default=5000, description="Most records in one request.")
    max_bytes: Annotated[Size, Field(ge=1024, le=GIB)] = Field(
        default=8 * MIB,
        description="Most bytes of one request. An event that alone makes a larger one becomes a dead letter.",
    )
    time_column: Text | None = Field(
        default=None,
        description="A column of type `timestamp`, `datetime` or `date` that becomes the `@time` of inserted rows, "
        "where it is not null; absent, the time of receipt, which strictly increases over the rows of a table.",
    )
    timeout: Seconds = Field(default=30.0, description="How long one request may take, in seconds.")
    username: Text = Field(default="", description="User for HTTP basic authentication; empty means none.")
    password: Secret = Field(default=SecretStr(""), description="Password of `username`.")
    token: Secret = Field(
        default=SecretStr(""), description="Bearer token instead of `username` and `password`."
    )


class PanoplySink(Section):
    """Panoply's intake, an SQS queue."""

    apikey: Secret = Field(description="API key of the data source at Panoply, `ACCOUNT/...`.")
    apisecret: Secret = Field(description="API secret of the same.")
    url: Url | None = Field(
        default=None,
        description="A service that speaks SQS's protocol; absent, Amazon's in the secret's region.",
    )
    max_message_bytes: Annotated[Size, Field(ge=64 * 1024, le=MIB)] = Field(
        default=256 * 1024,
        description="What the queue takes at most. A larger record becomes a dead letter.",
    )
    timeout: Seconds = Field(default=30.0, description="How long one message may take, in seconds.")


class ParquetSink(Section):
    """A folder of Parquet files per feed, on the local file system of the writer or at a URL."""

    path: Place = Field(
        description="The folder, relative to the pipeline file's folder, or a URL such as `s3://BUCKET/PATH`; "
        "of no other pipeline with the same tables."
    )
    linger: Annotated[Seconds, Field(le=60)] = Field(
        default=1.0, description="How long blocks may wait for others to be written at once with, in seconds."
    )
    file_bytes: Size = Field(
        default=64 * MIB, description="Smaller files are merged with others until they have this size."
    )
    merge_seconds: Seconds = Field(
        default=600.0,
        description="Time between two merges of a feed, at least; a query that runs meanwhile may have to be repeated.",
    )
    partition_by_date: Flag = Field(
        default=False, description="Folders `received=YYYY-MM-DD` by the date of receipt in UTC."
    )
    compression: Compression = Field(default="zstd", description="How columns are compressed.")


class ConsoleSink(Section):
    """Lines of JSON, for first steps."""

    path: FilePath | None = Field(
        default=None,
        description="A file to append to, relative to the pipeline file's folder; absent, the writer's output.",
    )


class CustomSink(Section):
    """A sink of your own, see docs/sinks.md."""

    class_: Text = Field(
        alias="class",
        description="`module:Class`, importable on every node, or a name of the entry point group `tablecast.sinks`.",
    )
    options: Options = Field(default={}, repr=False, description="Keyword arguments of the class.")


class Sink(Section):
    """A place where events go: exactly one kind."""

    kronos: KronosSink | None = Field(
        default=None, description="An event store that speaks Kronos's HTTP API."
    )
    panoply: PanoplySink | None = Field(default=None, description="Panoply's intake.")
    parquet: ParquetSink | None = Field(
        default=None, description="Parquet files in a folder or an object store."
    )
    v3io: V3ioSink | None = Field(default=None, description="Streams, key-values or objects of V3IO.")
    console: ConsoleSink | None = Field(default=None, description="Lines of JSON: `console: {}`.")
    python: PythonSink | None = Field(
        default=None, description="Functions of your own, called with what happens; see docs/callbacks.md."
    )
    custom: CustomSink | None = Field(default=None, description="A sink of your own, see docs/sinks.md.")
