"""The settings of tables whose rows are read: data sources of users' own, and V3IO streams."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PlainSerializer, SecretStr

from cluster.config.types import (
    Count,
    FilePath,
    Flag,
    InnerPath,
    Kind,
    Name,
    Params,
    Seconds,
    Secret,
    Section,
    Text,
    Url,
)
from cluster.config.yaml_source import KeyPath


def _json_only(values: dict[str, Any]) -> Params:
    try:
        json.dumps(values)
    except (TypeError, ValueError):
        raise ValueError("a date or a key that is no text in it; put those in quotes") from None
    return Params(values)


SecretParams = Annotated[
    dict[str, Any], Kind("mapping, never shown"), AfterValidator(_json_only), PlainSerializer(dict)
]


def _module(text: str) -> str:
    if not all(part.isidentifier() for part in text.split(".")):
        raise ValueError("not a module; write PACKAGE.MODULE, without .py")
    return text


class DataSourceTable(Section):
    """A data source of your own, see docs/datasources.md."""

    module: Annotated[Text, Kind("module"), AfterValidator(_module)] = Field(
        description="The Python module with `Stream` and `CONFIG`, importable on every node."
    )
    params: SecretParams = Field(
        default={}, repr=False, description="What the data source gets as `source`; its `CONFIG` lists them."
    )
    options: SecretParams = Field(
        default={}, repr=False, description="What it gets as `options`: hints such as incremental keys."
    )
    batch: Count = Field(default=1000, description="Rows that one `read` is asked for.")


class V3ioStreamSource(Section):
    """A stream of V3IO's data plane."""

    url: Url = Field(description="The data plane's HTTP address.")
    access_key: Secret = Field(default=SecretStr(""), description="Access key; empty, none is sent.")
    container: Name = Field(description="The container of the stream.")
    path: InnerPath = Field(description="The stream; it must exist.")
    start: Annotated[Literal["earliest", "latest"], Kind("earliest or latest")] = Field(
        default="earliest",
        description="Where a stream begins that was never read: with the oldest record, or with those to come.",
    )
    format: Annotated[Literal["json", "text", "bytes"], Kind("json, text or bytes")] = Field(
        default="json",
        description="What a record's data is: a JSON object, whose keys become columns, or the column `data`, as text "
        "or as base64.",
    )
    metadata: Flag = Field(
        default=True,
        description="Whether rows get the columns `__shard`, `__sequence`, `__arrival` (milliseconds since 1970) and "
        "`__partition_key`.",
    )
    batch: Count = Field(default=1000, description="Most records of one request.")
    poll: Seconds = Field(
        default=0.25, description="How long to wait when no shard has anything new, in seconds."
    )
    timeout: Seconds = Field(default=30.0, description="How long one request may take, in seconds.")
    ca_file: FilePath | None = Field(
        default=None,
        description="PEM file of the authority that signed the server's certificate, relative to the "
        "pipeline's file; absent, the usual ones. Certificates are always verified.",
    )


class StreamTable(Section):
    """A stream whose records are rows."""

    v3io: V3ioStreamSource = Field(description="A stream of V3IO's data plane.")


#: Keys of a table that say what a table of a database is to do.
_DATABASE_ONLY = ("events", "contract", "ambiguous", "increasing_column", "start", "standby")


def is_read(table: Any) -> bool:
    """Whether the rows of a table, as the file has it, are read and not a database's changes."""
    return isinstance(table, Mapping) and any(
        table.get(kind) is not None for kind in ("datasource", "stream")
    )


def table_contradictions(
    path: KeyPath, table: Any, defaults: Mapping[str, Any]
) -> Iterator[tuple[KeyPath, str]]:
    """What no single value of a table at `path` shows to be wrong; `defaults` are those of its keys."""
    if not is_read(table):
        return
    if table.get("datasource") is not None and table.get("stream") is not None:
        yield (*path, "stream"), "given beside datasource; write one of the two"
    for key in _DATABASE_ONLY:
        value = table.get(key)
        value = tuple(value) if isinstance(value, list) else value
        if value is not None and value != defaults[key]:
            yield (*path, key), "only for a table of source.kinetica; remove it"
