"""Asks every endpoint of a pipeline file whether it can be used, before anything is started."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

from actors.monitor.disk import network_file_system
from actors.monitor.keys import NotIncreasing, check_column
from actors.writer.sinks.custom import check_options
from actors.writer.sinks.python import make_calls
from cluster.check_datasource import probe_read_tables
from cluster.config import KronosSink, PanoplySink, PipelineConfig, Transform
from cluster.config.v3io import V3ioSink
from cluster.errors import NotReachable
from cluster.supervisor.plan import source_arguments
from protocols.kinetica.client import KineticaClient
from protocols.kinetica.errors import KineticaError, TableNotFound
from protocols.kinetica.types import TableType
from protocols.kronos.client import KronosClient
from protocols.kronos.errors import KronosError
from protocols.panoply.wire import Credentials
from protocols.v3io.client import V3ioClient
from protocols.v3io.errors import V3ioError

#: Seconds allowed to a connection to the monitor port.
CONNECT_TIMEOUT = 5.0


def probe(config: PipelineConfig) -> list[str]:
    """Ask the source and every sink; returns a line per thing found in order.

    Raises :class:`NotReachable` with a line per thing that is not.
    """
    found: list[str] = []
    problems: list[str] = []
    parts = (_probe_spool, _probe_source, probe_read_tables, _probe_sinks)
    for finding, problem in (each for part in parts for each in part(config)):
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
    if kind := network_file_system(path):
        yield "", f"spool.path {path}: on a network file system ({kind}); name a folder on a local disk"
    elif free < config.spool.min_free:
        yield (
            "",
            f"spool.min_free: {path} has {free:,} bytes free, less than {config.spool.min_free:,}; make room",
        )
    else:
        yield f"spool: {path}", ""


def _probe_source(config: PipelineConfig) -> Iterator[tuple[str, str]]:
    if config.source is None:
        return
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
            if table.datasource is not None or table.stream is not None:
                continue
            try:
                info = client.show_table(table.name)
            except TableNotFound:
                yield "", f"table {table.name} does not exist at {client.url}; check its name and schema"
            except KineticaError as error:
                yield "", f"table {table.name}: {error}"
            else:
                problem = _problem(table.transform, info.type) if table.transform else ""
                try:
                    if table.increasing_column:
                        check_column(table.name, info.type, table.increasing_column)
                except NotIncreasing as error:
                    yield "", str(error)
                yield (
                    f"table {table.name}: {len(info.type.columns)} columns",
                    problem and f"table {table.name}: transform.{problem}",
                )
    try:
        socket.create_connection((host, port), CONNECT_TIMEOUT).close()
    except OSError as error:
        reason = error.strerror or str(error)
        yield "", f"source.kinetica: monitor port {host}:{port}: {reason}; check monitor_port and firewalls"
    else:
        yield f"source: table monitors are published at {host}:{port}", ""


def _problem(transform: Transform, table_type: TableType) -> str:
    """Why the rows of a table cannot be transformed, or ``""``."""
    from actors.codec.codec import Codec
    from actors.codec.transform import Transform as Steps
    from actors.codec.transform import TransformError

    try:
        Steps(transform.model_dump()).check(Codec(table_type).schema)
    except TransformError as error:
        return str(error)
    return ""


def _probe_sinks(config: PipelineConfig) -> Iterator[tuple[str, str]]:
    for name, sink in config.sinks.items():
        try:
            if sink.kronos:
                found = _probe_kronos(sink.kronos)
            elif sink.panoply:
                found = _probe_panoply(sink.panoply)
            elif sink.v3io:
                found = _probe_v3io(sink.v3io)
            elif sink.parquet:
                found = f"Parquet files below {sink.parquet.path}"
                _probe_place(sink.parquet.path)
            elif sink.custom:
                check_options(sink.custom.class_, config.pipeline, sink.custom.options)
                found = f"a sink of {sink.custom.class_}"
            elif sink.python:
                calls = make_calls(sink.python.model_dump()["callbacks"])
                found = f"functions for {', '.join(calls)}"
            else:
                assert sink.console is not None
                path = sink.console.path
                found = f"lines of JSON to {path or 'the output of the writer'}"
                if path and path.is_dir():
                    raise ValueError(f"{path} is a folder; name a file in it")
                if path:
                    _probe_folder(path.parent if not path.exists() else path)
        except (KronosError, V3ioError, ValueError) as error:
            yield "", f"sink {name}: {error}"
        else:
            yield f"sink {name}: {found}", ""


def _probe_kronos(sink: KronosSink) -> str:
    client = KronosClient(
        sink.url,
        namespace=sink.namespace,
        timeout=sink.timeout,
        username=sink.username,
        password=sink.password.get_secret_value(),
        token=sink.token.get_secret_value(),
    )
    try:
        version = client.index().get("version", "unknown")
        next(iter(client.get_streams()), None)  # fails if there is no such namespace
    finally:
        client.close()
    return f"Kronos {version} at {sink.url}"


def _probe_panoply(sink: PanoplySink) -> str:
    # Nothing but a record can be sent there, so no more than the credentials' form can be told.
    credentials = Credentials(sink.apikey.get_secret_value(), sink.apisecret.get_secret_value())
    return (
        f"Panoply at {sink.url or credentials.url}; credentials are well-formed, a first record will try them"
    )


def _probe_v3io(sink: V3ioSink) -> str:
    key = sink.access_key.get_secret_value() or None
    with V3ioClient(
        sink.url, key, timeout=sink.timeout, verify=str(sink.ca_file) if sink.ca_file else True
    ) as client:
        client.check_container(sink.container)
    return f"V3IO at {sink.url}, container {sink.container}"


def _probe_place(path: Path | str) -> None:
    if isinstance(path, Path):
        _probe_folder(path)
        return
    from pyarrow import fs

    try:
        system, root = fs.FileSystem.from_uri(path)
        system.get_file_info(fs.FileSelector(root, allow_not_found=True))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path.partition('?')[0]}: {str(error).partition(chr(10))[0]}") from None


def _probe_folder(path: Path) -> None:
    """Check, changing nothing, that `path` or what is there above it can be written to."""
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    if there != path and not there.is_dir():
        raise ValueError(f"{there} is a file; give another path")
    if not os.access(there, os.W_OK | (os.X_OK if there.is_dir() else 0)):
        raise ValueError(f"{there} is not writable; change its permissions or give another path")
