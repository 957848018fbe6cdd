"""From a pipeline file to the actors that it needs: names, settings, resources. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import PurePath
from types import MappingProxyType
from typing import Any

from actors.monitor.grouping import BlockLimits
from actors.monitor.settings import Drain, MonitorSettings
from actors.names import (
    STANDBY_SUFFIX,
    decoder_name,
    drainer_name,
    is_shared_home,
    monitor_name,
    standby_name,
    writer_name,
)
from cluster.config import PipelineConfig, Sink, Table
from cluster.supervisor.spools import Place

#: CPUs that Ray reserves per actor, so that five monitors, four decoders and a writer fit two cores. Decoders have
#: theirs from the file.
MONITOR_CPUS = 0.1
WRITER_CPUS = 0.1
SUPERVISOR_CPUS = 0.05


@dataclass(frozen=True, slots=True)
class ActorSpec:
    """One actor, or one table's part of an actor that several small tables share.

    Its `kind`, and `which` it is: the table, number or sink. `settings` are what it is made from; `digest` tells
    whether a running one was made from the same. `actor` is Ray's name for the process; tables that share one have
    `name`\\ s of their own.
    """

    kind: str
    which: str
    name: str
    settings: Any
    digest: str
    cpus: float
    actor: str

    @property
    def home(self) -> str:
        """By which the host of a monitor is remembered: its spool's folder, of which a table with a standby has two."""
        return PurePath(self.settings.spool).name

    @property
    def shares(self) -> bool:
        """Whether other tables may be in the same process."""
        return self.actor != self.name

    def __repr__(self) -> str:
        return f"ActorSpec({self.name})"  # settings may hold credentials


def monitor_specs(config: PipelineConfig, homes: Mapping[str, str] = MappingProxyType({})) -> list[ActorSpec]:
    """One monitor per table. `homes` says in which folder a table has its spool; else in one of its own name."""
    specs = []
    for table in config.tables:
        home = homes.get(table.name, table.name)
        actor, name = (monitor_name(config.pipeline, each) for each in (home, table.name))
        specs.append(_spec("monitor", table.name, name, _monitor(config, table, home), actor))
    return specs


def standby_specs(config: PipelineConfig) -> list[ActorSpec]:
    """The second place of each table that has a standby: like the first, with a spool of its own."""
    specs = []
    for table in config.tables:
        if table.standby:
            settings = _monitor(config, table, table.name + STANDBY_SUFFIX)
            specs.append(_spec("standby", table.name, standby_name(config.pipeline, table.name), settings))
    return specs


def drainer_spec(
    config: PipelineConfig,
    place: Place,
    sinks: Iterable[str],
    last_epoch: int | None,
    actor: str | None = None,
) -> ActorSpec:
    """A drainer of the spool at `place`, whose records go to `sinks`; see :class:`Drain`.

    `actor` is the one that has the spool's folder for other tables; None: none has.
    """
    host, home, table = place
    known = next(
        (each for each in config.tables if each.name == table), Table.model_validate({"name": table})
    )
    there = tuple(sink for sink in sinks if sink in config.sinks)
    drain = Drain(host, tuple(sink for sink in sinks if sink not in config.sinks), last_epoch)
    settings = replace(_monitor(config, known, home), sinks=there, drain=drain)
    own = drainer_name(config.pipeline, host, home)
    name = f"{own}/{table}" if is_shared_home(home) else own
    return _spec("drainer", table, name, settings, actor or own)


def writer_specs(config: PipelineConfig) -> list[ActorSpec]:
    """One writer per sink; one that no table uses is for puts."""
    specs = []
    for sink, kinds in config.dump()["sinks"].items():
        settings = {kind: values for kind, values in kinds.items() if values is not None}
        for kind in ("parquet", "custom"):
            if kind in settings:
                settings[kind]["hold_bytes"] = config.tuning.window_bytes // 2
        specs.append(_spec("writer", sink, writer_name(config.pipeline, sink), settings, cpus=WRITER_CPUS))
    return specs


def decoder_specs(config: PipelineConfig, count: int) -> list[ActorSpec]:
    """A pool of `count` decoders."""
    transforms = {
        table["name"]: table["transform"] for table in config.dump()["tables"] if table["transform"]
    }
    for table in config.tables:
        if any(_wants_frames(config.sinks[sink]) for sink in config.sinks_of(table)):
            transforms[table.name] = {**transforms.get(table.name, {}), "keep_frames": True}
    cpus = config.decoders.cpus
    return [
        _spec("decoder", str(n), decoder_name(config.pipeline, n), transforms, cpus=cpus)
        for n in range(count)
    ]


def _wants_frames(sink: Sink) -> bool:
    """Whether rows go to a sink as they were received, too."""
    return sink.python is not None and sink.python.callbacks.insert_raw is not None


def source_arguments(config: PipelineConfig) -> dict[str, Any]:
    """Keyword arguments for :class:`protocols.kinetica.client.KineticaClient`; none if the file names no server."""
    if config.source is None:
        return {}
    source = config.source.kinetica
    return {
        "urls": list(source.url),
        "username": source.username or None,
        "password": source.password.get_secret_value() or None,
        "token": source.token.get_secret_value() or None,
        "timeout": source.timeout,
        "verify": str(source.ca_file) if source.ca_file else True,
    }


def table_source(config: PipelineConfig, table: Table) -> tuple[str, dict[str, Any]]:
    """The kind of a table's source, and what it is made from; see ``actors/monitor/sources.py``."""
    if table.datasource is not None:
        return "datasource", table.datasource.model_dump()
    if table.stream is not None:
        stream = table.stream.v3io
        return "v3io_stream", {
            **stream.model_dump(),
            "access_key": stream.access_key.get_secret_value(),
            "ca_file": str(stream.ca_file) if stream.ca_file else None,
        }
    return "kinetica", source_arguments(config)


def _monitor(config: PipelineConfig, table: Table, home: str) -> MonitorSettings:
    block = config.tuning.block
    kind, source = table_source(config, table)
    return MonitorSettings(
        pipeline=config.pipeline,
        table=table.name,
        events=table.events,
        sinks=config.sinks_of(table),
        source=source,
        monitor_port=config.source.kinetica.monitor_port if config.source else None,
        spool=str(config.spool.path / config.pipeline / home),
        max_bytes=config.spool.max_bytes,
        min_free=config.spool.min_free,
        when_full=config.spool.when_full,
        retain=config.spool.retain,
        new_sinks=config.spool.new_sinks,
        limits=BlockLimits(block.records, block.bytes, block.linger_ms / 1000),
        window_bytes=config.tuning.window_bytes,
        max_memory=config.tuning.monitor_memory,
        on_decode_failure=table.on_decode_failure,
        contract=table.contract,
        ambiguous=table.ambiguous,
        increasing_column=table.increasing_column,
        standby=table.standby,
        start=table.start,
        audit=config.tuning.audit_seconds,
        kind=kind,
    )


def _spec(
    kind: str, which: str, name: str, settings: Any, actor: str | None = None, cpus: float = MONITOR_CPUS
) -> ActorSpec:
    # Not of a pickle, whose bytes depend on which equal strings happen to be one object.
    text = json.dumps((kind, name, settings, cpus), default=asdict, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return ActorSpec(kind, which, name, settings, digest, cpus, actor or name)
