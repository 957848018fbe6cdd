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

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator

from cluster.config_errors import describe, hint
from cluster.config_types import (
    GIB,
    MIB,
    Count,
    Events,
    FilePath,
    Kind,
    LargeSize,
    Name,
    Names,
    NotEmpty,
    OnDecodeFailure,
    Port,
    Seconds,
    Secret,
    Size,
    Text,
    Url,
    Urls,
    parse_number,
    parse_size,
)
from cluster.yaml_source import KeyPath, read, show_path


class ConfigError(ValueError):
    """A pipeline file cannot be used; `faults` lists ``FILE:LINE: key.path: what is wrong; what to do``."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__(list(faults))
        self.faults = list(faults)

    def __str__(self) -> str:
        return "\n".join(self.faults)


#: What follows a table's name in the names of its other feeds; inserts are the feed of the bare name.
FEED_SUFFIXES = (".updates", ".deletes", ".changes")


class Section(BaseModel):
    """A mapping of the file: unknown keys are errors, and nothing changes after loading."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


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


class Table(Section):
    """One table to follow."""

    name: Name = Field(
        description="The table, with its schema if it has one; names its feeds and streams too."
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
        None, description="A column with another value for each row, increasing from row to row."
    )


class KronosSink(Section):
    """An event store that speaks Kronos's HTTP API."""

    url: Url = Field(description="The event store's HTTP address.")
    namespace: Text | None = Field(
        default=None, description="Namespace of the streams; absent, the default one."
    )
    batch: Count = Field(default=5000, description="Most records in one request.")
    timeout: Seconds = Field(default=30.0, description="How long one request may take, in seconds.")


class Sink(Section):
    """A place where events go: exactly one kind."""

    kronos: KronosSink | None = Field(
        default=None, description="An event store that speaks Kronos's HTTP API."
    )


class Decoders(Section):
    """Bounds of the pool of decode actors."""

    min: Count = Field(default=1, description="Decoders to start with, and never fewer.")
    max: Count = Field(default=4, description="Never more decoders than this.")


class Spool(Section):
    """The monitors' durable logs on local disk."""

    path: FilePath = Field(
        default=Path("spool"),
        validate_default=True,
        description="Folder of the logs on the host of each monitor, relative to the pipeline file's folder.",
    )
    max_bytes: LargeSize = Field(default=10 * GIB, description="Most bytes that one table's log may take.")
    min_free: Size = Field(default=GIB, description="Bytes of the file system to leave free.")


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


class PipelineConfig(Section):
    """A whole pipeline file."""

    pipeline: Name = Field(description="Name of the pipeline on the cluster; begins every record's origin.")
    source: Source = Field(description="Where changes come from.")
    tables: Annotated[tuple[Table, ...], NotEmpty] = Field(description="The tables to follow.")
    sinks: Annotated[dict[Name, Sink], NotEmpty] = Field(
        description="Where events go: a name of your choice for each."
    )
    decoders: Decoders = Field(default=Decoders(), description="Bounds of the pool of decode actors.")
    spool: Spool = Field(default_factory=Spool, description="The monitors' durable logs on local disk.")
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
        plain: dict[str, Any] = json.loads(json.dumps(self.model_dump(), default=_plain))
        return plain

    @property
    def digest(self) -> str:
        """SHA-256, in hex, of all values; equal digests mean that a running pipeline is what the file says.

        It covers the credentials, so it belongs into comparisons, not into logs.
        """
        canonical = json.dumps(self.model_dump(), default=_plain, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


def _plain(value: object) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


def contradictions(data: Any) -> Iterator[tuple[KeyPath, str]]:
    """What no single value shows to be wrong, in values that may be faulty themselves."""
    sinks = _at(data, "sinks")
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
    yield from _sink_contradictions(sinks)
    yield from _source_contradictions(_at(data, "source", "kinetica"))
    low, high = (_bound(data, Decoders, "decoders", key) for key in ("min", "max"))
    if low > high:
        yield ("decoders", "min"), f"more than max, which is {high}; lower min or raise max"
    block = _bound(data, BlockTuning, "tuning", "block", "bytes")
    window = _bound(data, Tuning, "tuning", "window_bytes")
    if block > window:
        yield (
            ("tuning", "window_bytes"),
            f"less than tuning.block.bytes ({block}); raise it",
        )


def _sink_contradictions(sinks: Any) -> Iterator[tuple[KeyPath, str]]:
    for name, sink in sinks.items() if isinstance(sinks, dict) else ():
        if isinstance(sink, dict):
            kinds = [kind for kind in Sink.model_fields if sink.get(kind) is not None]
            if len(kinds) != 1 and set(sink) <= set(Sink.model_fields):
                found = " and ".join(kinds) or "no kind"
                yield (
                    ("sinks", name),
                    f"names {found}; write exactly one of {', '.join(Sink.model_fields)}",
                )


def _source_contradictions(source: Any) -> Iterator[tuple[KeyPath, str]]:
    path = ("source", "kinetica")
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
