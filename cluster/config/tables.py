"""The keys of the pipeline file about where changes come from, and the tables."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SecretStr, model_validator

from cluster.config.datasource import DataSourceTable, StreamTable
from cluster.config.types import (
    Column,
    Columns,
    Events,
    FilePath,
    Flag,
    Kind,
    Name,
    Names,
    OnDecodeFailure,
    Port,
    Seconds,
    Secret,
    Section,
    Sql,
    Text,
    Urls,
)


class KineticaSource(Section):
    """A Kinetica server, or the clusters of one high-availability ring."""

    url: Urls = Field(description="The server's HTTP address; a list: the clusters of an HA ring, in order.")
    username: Text = Field(default="", description="User for HTTP basic authentication; empty means none.")
    password: Secret = Field(default=SecretStr(""), description="Password of `username`.")
    token: Secret = Field(
        default=SecretStr(""), description="OAuth token instead of `username` and `password`."
    )
    monitor_port: Port | None = Field(
        default=None, description="Port of the table-monitor publisher; absent, the server is asked for it."
    )
    timeout: Seconds = Field(default=10.0, description="How long one HTTP request may take, in seconds.")
    ca_file: FilePath | None = Field(
        default=None,
        description="PEM file of the authority that signed the server's certificate, relative to the "
        "pipeline's file; absent, the system's. Certificates are always verified.",
    )


class Source(Section):
    """Where changes come from."""

    kinetica: KineticaSource = Field(description="A Kinetica server, or the clusters of one HA ring.")


class Transform(Section):
    """What becomes of a table's rows; the steps in the order of the keys."""

    where: Sql | None = Field(
        default=None,
        description="Condition, a polars SQL expression; rows for which it is not true are left out, and counted.",
    )
    with_columns: dict[Column, Sql] = Field(
        default={}, description="New columns, or other values of old ones: a polars SQL expression for each."
    )
    select: Columns | None = Field(
        default=None, description="The columns to deliver, in this order; absent, all."
    )
    rename: dict[Column, Column] = Field(default={}, description="Old name and new name of columns.")

    @model_validator(mode="after")
    def _parses(self) -> Transform:
        from actors.codec import transform  # only where one is used: it loads polars

        transform.Transform(self.model_dump())
        return self


class Table(Section):
    """One table to follow."""

    name: Name = Field(
        description="The table, with its schema if it has one; names its feeds and streams too."
    )
    datasource: DataSourceTable | None = Field(
        default=None, description="Its rows are read by a data source of your own, see docs/datasources.md."
    )
    stream: StreamTable | None = Field(
        default=None, description="Its rows are the records of a stream, see docs/datasources.md."
    )
    events: Events = Field(default=("insert", "update", "delete"), description="Which changes to follow.")
    sinks: Names | None = Field(default=None, description="Sinks that receive this table; absent, all.")
    on_decode_failure: OnDecodeFailure = Field(
        default="skip",
        description="What becomes of a record that does not decode: `skip` keeps it with the dead letters and "
        "goes on; `abort` delivers what is before its block and no more of that feed, until `tablecast resume`.",
    )
    contract: Annotated[
        Literal["evolve", "freeze", "discard_columns"], Kind("evolve, freeze or discard_columns")
    ] = Field(
        "evolve",
        description="When the table is altered: go on with the new columns; stop delivering it until "
        "`tablecast resume`; or go on with only the columns that it had at first.",
    )
    ambiguous: Annotated[Literal["reject", "old", "new"], Kind("reject, old or new")] = Field(
        "reject",
        description="Rows that arrive around an alteration and may be of the type before or after: into the dead "
        "letters, or taken for the old or the new. With `increasing_column` they are read from the table again.",
    )
    increasing_column: Text | None = Field(
        None,
        description="A column whose values increase from row to row, such as an id or the time of insertion: lets "
        "rows that were missed be found and fetched.",
    )
    start: Annotated[Literal["now", "snapshot"], Kind("now or snapshot")] = Field(
        "now",
        description="What comes first when the table is followed for the first time: changes from now on, or the rows "
        "that are there and then the changes. A snapshot needs `increasing_column`.",
    )
    standby: Flag = Field(
        default=False,
        description="A second monitor, on another node if there is one, that receives the same and takes over when "
        "the first dies, with nothing lost.",
    )
    transform: Transform | None = Field(
        default=None, description="What becomes of the inserted rows before any sink gets them."
    )
