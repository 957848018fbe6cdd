"""Asks every endpoint of a pipeline file whether it can be used, before anything is started."""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import Iterator

from cluster.config import PipelineConfig
from cluster.errors import NotReachable
from cluster.plan import source_arguments
from protocols.kinetica.client import KineticaClient
from protocols.kinetica.errors import KineticaError, TableNotFound
from protocols.kronos.client import KronosClient
from protocols.kronos.errors import KronosError

#: Seconds allowed to a connection to the monitor port.
CONNECT_TIMEOUT = 5.0


def probe(config: PipelineConfig) -> list[str]:
    """Ask the source and every sink; returns a line per thing found in order.

    Raises :class:`NotReachable` with a line per thing that is not.
    """
    found: list[str] = []
    problems: list[str] = []
    for finding, problem in (*_probe_spool(config), *_probe_source(config), *_probe_sinks(config)):
        if problem:
            problems.append(problem)
        else:
            found.append(finding)
    if problems:
        raise NotReachable("\n".join(problems))
    return found


def _probe_spool(config: PipelineConfig) -> Iterator[tuple[str, str]]:
    """The spool's folder as it is on this machine, where the monitors run unless the cluster is elsewhere."""
    path = config.spool.path
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            free = shutil.disk_usage(path).free
    except OSError as error:
        yield "", f"spool.path {path}: {error.strerror}; name a folder that can be written"
        return
    if free < config.spool.min_free:
        yield (
            "",
            f"spool.min_free: {path} has {free:,} bytes free, less than {config.spool.min_free:,}; make room",
        )
    else:
        yield f"spool: {path}", ""


def _probe_source(config: PipelineConfig) -> Iterator[tuple[str, str]]:
    with KineticaClient(**source_arguments(config)) as client:
        try:
            version = client.version
            host = client.monitor_host()
            port = config.source.kinetica.monitor_port or client.monitor_port()
        except KineticaError as error:
            yield "", f"source.kinetica: {error}"
            return
        yield f"source: Kinetica {version} at {client.url}", ""
        for table in config.tables:
            try:
                info = client.show_table(table.name)
            except TableNotFound:
                yield "", f"table {table.name} does not exist at {client.url}; check its name and schema"
            except KineticaError as error:
                yield "", f"table {table.name}: {error}"
            else:
                yield f"table {table.name}: {len(info.type.columns)} columns", ""
    try:
        socket.create_connection((host, port), CONNECT_TIMEOUT).close()
    except OSError as error:
        reason = error.strerror or str(error)
        yield "", f"source.kinetica: monitor port {host}:{port}: {reason}; check monitor_port and firewalls"
    else:
        yield f"source: table monitors are published at {host}:{port}", ""


def _probe_sinks(config: PipelineConfig) -> Iterator[tuple[str, str]]:
    for name, sink in config.sinks.items():
        if sink.kronos is None:
            continue
        client = KronosClient(sink.kronos.url, namespace=sink.kronos.namespace, timeout=sink.kronos.timeout)
        try:
            version = client.index().get("version", "unknown")
            next(iter(client.get_streams()), None)  # fails if there is no such namespace
        except KronosError as error:
            yield "", f"sink {name}: {error}"
        else:
            yield f"sink {name}: Kronos {version} at {sink.kronos.url}", ""
        finally:
            client.close()
