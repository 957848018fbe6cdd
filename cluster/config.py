"""The pipeline file: its keys, types, defaults and meaning, and how it is read.

:func:`load` reads a file into a :class:`PipelineConfig` or raises one :class:`ConfigError` with every fault.
The fields' descriptions are the text of ``docs/configuration.md`` (made by ``config_reference.py``).

Nothing here reaches the network: that an endpoint answers is for ``tablecast check`` to find out.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, model_validator

from actors.names import FEED_SUFFIXES
from cluster.config_datasource import DataSourceTable, StreamTable, is_read, table_contradictions
from cluster.config_decoders import Decoders, decoders_contradictions
from cluster.config_errors import describe, hint
from cluster.config_python import PythonSink, python_contradictions
from cluster.config_types import (
    GIB,
    MIB,
    Column,
    Columns,
    Compression,
    Count,
    Duration,
    Events,
    FilePath,
    Flag,
    Kind,
    LargeSize,
    Name,
    Names,
    NotEmpty,
    OnDecodeFailure,
    Options,
    Place,
    Port,
    Seconds,
    Secret,
    Section,
    Size,
    Sql,
    Text,
    Url,
    Urls,
    parse_number,
    parse_size,
)
from cluster.config_v3io import V3ioSink, v3io_contradictions
from cluster.config_web import Web
from cluster.yaml_source import KeyPath, read, show_path


class ConfigError(ValueError):
    """A pipeline file cannot be used; `faults` lists ``FILE:LINE: key.path: what is wrong; what to do``."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__(list(faults))
        self.faults = list(faults)

    def __str__(self) -> str:
        return "\n".join(self.faults)


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


class Spool(Section):
    """The monitors' durable logs on local disk."""

    path: FilePath = Field(
        default=Path("spool"),
        validate_default=True,
        description="Folder of the logs on the host of each monitor, relative to the pipeline file's folder. "
        "`$${NAME}` is an environment variable of that host's Ray.",
    )
    max_bytes: LargeSize = Field(default=10 * GIB, description="Most bytes that one table's log may take.")
    min_free: Size = Field(default=GIB, description="Bytes of the file system to leave free.")
    when_full: Annotated[Literal["pause", "drop_oldest"], Kind("pause or drop_oldest")] = Field(
        default="pause",
        description="At either bound: stop receiving until there is room again, which leaves a gap; or delete the "
        "oldest changes that are not delivered, which are counted as lost.",
    )
    retain: Duration = Field(
        default=0.0,
        description="How long changes are kept after their receipt although every sink has them, for `tablecast "
        "rewind`, such as `10min`; less when they fill half of `max_bytes`.",
    )
    new_sinks: Annotated[Literal["oldest", "newest"], Kind("oldest or newest")] = Field(
        default="oldest",
        description="Where a sink that a running table gets later begins: with the oldest change that is kept, or "
        "with those to come.",
    )


class BlockTuning(Section):
    """When an open block is closed and sent on: at whichever bound is reached first."""

    records: Count = Field(default=20_000, description="Most records in a block.")
    bytes: Annotated[Size, Field(ge=1, le=GIB)] = Field(
        default=MIB, description="Most bytes of records in it."
    )
    linger_ms: Annotated[Count, Kind("milliseconds"), Field(le=60_000)] = Field(
        default=50, description="How long a block may wait for more records, in milliseconds."
    )


class Tuning(Section):
    """Sizes that rarely need a change."""

    block: BlockTuning = Field(default=BlockTuning(), description="When a block is closed and sent on.")
    window_bytes: Annotated[Size, Field(ge=1)] = Field(
        default=16 * MIB,
        description="Most bytes of a table on the way to one sink, not yet acknowledged.",
    )
    audit_seconds: Annotated[Seconds, Field(le=3600)] = Field(
        default=5.0, description="Time between two audits of a table's size, in seconds."
    )
    monitor_memory: Annotated[Size, Field(ge=256 * MIB)] = Field(
        default=1024 * MIB,
        description="Memory of its own that a monitor may take; above it, it starts afresh and catches up.",
    )
    unresponsive: Seconds = Field(
        default=60.0,
        description="How long an actor may leave a question unanswered before it is ended and started anew, in "
        "seconds. On a busy machine answers take seconds, and ending a busy actor only makes it busier.",
    )


class PipelineConfig(Section):
    """A whole pipeline file."""

    pipeline: Name = Field(description="Name of the pipeline on the cluster; begins every record's origin.")
    source: Source | None = Field(
        default=None,
        description="Where changes come from; required unless all tables have a `datasource` or `stream`.",
    )
    tables: Annotated[tuple[Table, ...], NotEmpty] = Field(description="The tables to follow.")
    sinks: Annotated[dict[Name, Sink], NotEmpty] = Field(
        description="Where events go: a name of your choice for each."
    )
    monitors_per_actor: Annotated[Count, Field(le=100)] = Field(
        default=1,
        description="Small tables that share one process and one spool, at most; each keeps its own monitor. For "
        "tables that have no spool yet: docs/tables.md.",
    )
    decoders: Decoders = Field(default=Decoders(), description="Bounds of the pool of decode actors.")
    spool: Spool = Field(default_factory=Spool, description="The monitors' durable logs on local disk.")
    web: Web = Field(default=Web(), description="The web page and the endpoints of docs/watch.md.")
    tuning: Tuning = Field(default=Tuning(), description="Sizes that rarely need a change.")

    @model_validator(mode="after")
    def _agrees(self) -> PipelineConfig:
        for path, text in contradictions(self.dump()):
            raise ValueError(f"{show_path(path)}: {text}")
        return self

    def sinks_of(self, table: Table) -> tuple[str, ...]:
        """Names of the sinks that receive `table`."""
        return table.sinks or tuple(self.sinks)

    def dump(self) -> dict[str, Any]:
        """JSON-able values **with credentials**, for actors; ``model_validate`` takes them back."""
        plain: dict[str, Any] = json.loads(json.dumps(self.model_dump(by_alias=True), default=_plain))
        return plain

    @property
    def digest(self) -> str:
        """SHA-256, in hex, of all values; equal digests mean that a running pipeline is what the file says.

        It covers the credentials, so it belongs into comparisons, not into logs.
        """
        canonical = json.dumps(self.dump(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


def _plain(value: object) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


def contradictions(data: Any) -> Iterator[tuple[KeyPath, str]]:
    """What no single value shows to be wrong, in values that may be faulty themselves."""
    sinks = _at(data, "sinks")
    if isinstance(data, dict) and data.get("source") is None and not _all_read(data):
        yield ("source",), "required key is missing; add it"
    names: dict[str, int] = {}
    for index, table in enumerate(_items(data, "tables")):
        name = _at(table, "name")
        if isinstance(name, str):
            first = names.setdefault(name, index)
            if first != index:
                yield ("tables", index, "name"), f"the same table as tables[{first}]; name each table once"
        for position, sink in enumerate(_items(table, "sinks")):
            if isinstance(sinks, dict) and isinstance(sink, str) and sink not in sinks:
                yield ("tables", index, "sinks", position), f"there is no such sink; {hint(sink, sinks)}"
    for index, table in enumerate(_items(data, "tables")):
        for suffix in FEED_SUFFIXES:
            name = _at(table, "name")
            if isinstance(name, str) and name.endswith(suffix) and name.removesuffix(suffix) in names:
                yield (
                    ("tables", index, "name"),
                    f"also the {suffix[1:]} feed of another table; move one of them to another pipeline",
                )
    for index, table in enumerate(_items(data, "tables")):
        if _at(table, "start") == "snapshot" and not _at(table, "increasing_column"):
            yield (
                ("tables", index, "start"),
                "a snapshot is read by increasing_column, which is missing; name one, or start now",
            )
        yield from table_contradictions(("tables", index), table, _DEFAULTS)
    yield from _sink_contradictions(sinks)
    for name, sink in sinks.items() if isinstance(sinks, dict) else ():
        yield from python_contradictions(data, name, _at(sink, "python"))
    yield from _log_in_contradictions(_at(data, "source", "kinetica"), ("source", "kinetica"))
    low, high = (_bound(data, Decoders, "decoders", key) for key in ("min", "max"))
    if low > high:
        yield ("decoders", "min"), f"more than max, which is {high}; lower min or raise max"
    yield from decoders_contradictions(_at(data, "decoders"))
    block = _bound(data, BlockTuning, "tuning", "block", "bytes")
    window = _bound(data, Tuning, "tuning", "window_bytes")
    if block > window:
        yield (
            ("tuning", "window_bytes"),
            f"less than tuning.block.bytes ({block}); raise it",
        )


#: The defaults of a table's keys, as :meth:`PipelineConfig.dump` and the file's reader have them.
_DEFAULTS = {name: field.default for name, field in Table.model_fields.items()}


def _all_read(data: Any) -> bool:
    """Whether there are tables, and none is a database's."""
    tables = _items(data, "tables")
    return bool(tables) and all(map(is_read, tables))


def _sink_contradictions(sinks: Any) -> Iterator[tuple[KeyPath, str]]:
    files: dict[str, str] = {}
    for name, sink in sinks.items() if isinstance(sinks, dict) else ():
        if isinstance(sink, dict):
            kinds = [kind for kind in Sink.model_fields if sink.get(kind) is not None]
            if len(kinds) != 1 and set(sink) <= set(Sink.model_fields):
                found = " and ".join(kinds) or "no kind"
                yield (
                    ("sinks", name),
                    f"names {found}; write exactly one of {', '.join(Sink.model_fields)}",
                )
            yield from _log_in_contradictions(_at(sink, "kronos"), ("sinks", name, "kronos"))
        yield from v3io_contradictions(("sinks", name, "v3io"), _at(sink, "v3io"))
        file = _at(sink, "console", "path")
        if isinstance(file, str) and files.setdefault(os.path.normpath(file), name) != name:
            yield (
                ("sinks", name, "console", "path"),
                f"also the file of the sink {files[os.path.normpath(file)]}; give each a file of its own",
            )


def _log_in_contradictions(source: Any, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    if _at(source, "token") and _at(source, "username"):
        yield (*path, "token"), "given beside username; keep one of the two ways to log in"
    elif _at(source, "password") and not _at(source, "username"):
        yield (*path, "password"), "given without username; add the username"


def _at(data: Any, *keys: str) -> Any:
    for key in keys:
        data = data.get(key) if isinstance(data, dict) else None
    return data


def _items(data: Any, key: str) -> list[Any]:
    found = _at(data, key)
    return found if isinstance(found, list) else []


def _bound(data: Any, section: type[Section], *keys: str) -> int:
    """The number at `keys`, or the default where it is absent or no number."""
    try:
        value = parse_number(parse_size(_at(data, *keys)))
    except ValueError:
        value = None
    good = isinstance(value, int) and not isinstance(value, bool)
    return int(value if good else section.model_fields[keys[-1]].default)


def load(path: str | os.PathLike[str], env: Mapping[str, str] = os.environ) -> PipelineConfig:
    """Read the pipeline file at `path`. Raises :class:`ConfigError`, also if the file cannot be read."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError([f"{path}:1: not UTF-8 text; save the file as UTF-8"]) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a file name"
        raise ConfigError([f"{path}:1: cannot be read ({reason}); check the path"]) from None
    return parse(text, str(path), env)


def parse(text: str, name: str, env: Mapping[str, str] = os.environ) -> PipelineConfig:
    """Read the pipeline file `text`; `name` is its path, for messages and as the base of relative paths.

    Raises :class:`ConfigError` with every fault of the file, in the order of lines.
    """
    document = read(text, env)
    if document.data is None and document.faults:
        raise ConfigError([f"{name}:{fault.line}: {fault.text}" for fault in document.faults])
    data = {"spool": {}, **document.data} if isinstance(document.data, dict) else document.data
    config = None
    silent = {fault.path for fault in document.faults}
    try:
        config = PipelineConfig.model_validate(data, context={"folder": Path(name).parent})
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            path = document.known(detail["loc"]) if detail["type"] != "missing" else detail["loc"]
            if detail["type"] == "value_error" and not path:
                continue  # one of the contradictions, all of which follow
            if path not in silent or detail["type"] == "extra_forbidden":
                document.fault(path, describe(detail, PipelineConfig))
    for path, message in contradictions(data):
        if path not in silent:
            document.fault(path, message)
    if config is None or document.faults:
        lines = sorted({(fault.line, show_path(fault.path), fault.text) for fault in document.faults})
        raise ConfigError(
            [f"{name}:{line}: {path + ': ' if path else ''}{fault}" for line, path, fault in lines]
        )
    return config
