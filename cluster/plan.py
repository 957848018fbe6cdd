"""From a pipeline file to the actors that it needs: names, settings, resources. Pure."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from actors.monitor.grouping import BlockLimits
from actors.monitor.settings import MonitorSettings
from actors.names import decoder_name, monitor_name, writer_name
from cluster.config import PipelineConfig, Table

#: CPUs that Ray reserves per actor, so that five monitors, four decoders and a writer fit two cores.
MONITOR_CPUS = 0.1
DECODER_CPUS = 0.25
WRITER_CPUS = 0.1
SUPERVISOR_CPUS = 0.05


@dataclass(frozen=True, slots=True)
class ActorSpec:
    """One actor: `kind` is ``monitor``, ``decoder`` or ``writer``, `which` the table, number or sink.

    `settings` go to the actor's constructor; `digest` tells whether a running actor was made from the same ones.
    """

    kind: str
    which: str
    name: str
    settings: Any
    digest: str
    cpus: float

    def __repr__(self) -> str:
        return f"ActorSpec({self.name})"  # settings may hold credentials


def monitor_specs(config: PipelineConfig) -> list[ActorSpec]:
    """One monitor per table."""
    return [
        _spec("monitor", t.name, monitor_name(config.pipeline, t.name), _monitor(config, t))
        for t in config.tables
    ]


def writer_specs(config: PipelineConfig) -> list[ActorSpec]:
    """One writer per sink that a table uses."""
    used = {sink for table in config.tables for sink in config.sinks_of(table)}
    sinks = config.dump()["sinks"]
    specs = []
    for sink in config.sinks:
        if sink in used:
            settings = {kind: values for kind, values in sinks[sink].items() if values is not None}
            specs.append(_spec("writer", sink, writer_name(config.pipeline, sink), settings))
    return specs


def decoder_specs(config: PipelineConfig, count: int) -> list[ActorSpec]:
    """A pool of `count` decoders."""
    return [_spec("decoder", str(n), decoder_name(config.pipeline, n), None) for n in range(count)]


def source_arguments(config: PipelineConfig) -> dict[str, Any]:
    """Keyword arguments for :class:`protocols.kinetica.client.KineticaClient`."""
    source = config.source.kinetica
    return {
        "urls": list(source.url),
        "username": source.username or None,
        "password": source.password.get_secret_value() or None,
        "token": source.token.get_secret_value() or None,
        "timeout": source.timeout,
        "verify": str(source.ca_file) if source.ca_file else True,
    }


def _monitor(config: PipelineConfig, table: Table) -> MonitorSettings:
    block = config.tuning.block
    return MonitorSettings(
        pipeline=config.pipeline,
        table=table.name,
        events=table.events,
        sinks=config.sinks_of(table),
        source=source_arguments(config),
        monitor_port=config.source.kinetica.monitor_port,
        spool=str(config.spool.path / config.pipeline / table.name),
        max_bytes=config.spool.max_bytes,
        min_free=config.spool.min_free,
        limits=BlockLimits(block.records, block.bytes, block.linger_ms / 1000),
        window_bytes=config.tuning.window_bytes,
        on_decode_failure=table.on_decode_failure,
        contract=table.contract,
        ambiguous=table.ambiguous,
        increasing_column=table.increasing_column,
    )


def _spec(kind: str, which: str, name: str, settings: Any) -> ActorSpec:
    # Not of a pickle, whose bytes depend on which equal strings happen to be one object.
    text = json.dumps((kind, name, settings), default=asdict, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    cpus = {"monitor": MONITOR_CPUS, "decoder": DECODER_CPUS, "writer": WRITER_CPUS}[kind]
    return ActorSpec(kind, which, name, settings, digest, cpus)
