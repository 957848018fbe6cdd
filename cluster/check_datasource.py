"""Asks what tables are read from: whether a data source loads and has its parameters, and whether a stream is there."""

from __future__ import annotations

from collections.abc import Iterator

from actors.monitor.datasource.loading import NoSuchDataSource, load, missing_params
from cluster.config import PipelineConfig
from cluster.config.datasource import DataSourceTable, V3ioStreamSource
from protocols.v3io.client import V3ioClient
from protocols.v3io.errors import V3ioError
from protocols.v3io.stream_reader import StreamReader


def probe_read_tables(config: PipelineConfig) -> Iterator[tuple[str, str]]:
    """A (finding, problem) for each table that is read, and one for each parameter that its data source lacks."""
    for table in config.tables:
        if table.datasource is not None:
            yield from _probe_data_source(table.name, table.datasource)
        elif table.stream is not None:
            yield _probe_stream(table.name, table.stream.v3io)


def _probe_data_source(table: str, source: DataSourceTable) -> Iterator[tuple[str, str]]:
    try:
        config = load(source.module).config
        missing = missing_params(config, source.params)
    except NoSuchDataSource as error:
        yield "", f"table {table}: {error}"
        return
    title = config.get("title")
    yield f"table {table}: data source {source.module}{f' ({title})' if title else ''}", ""
    for line in missing:
        yield "", f"table {table}: datasource.params has no {line}; add it"


def _probe_stream(table: str, source: V3ioStreamSource) -> tuple[str, str]:
    key = source.access_key.get_secret_value() or None
    try:
        with V3ioClient(
            source.url, key, timeout=source.timeout, verify=str(source.ca_file) if source.ca_file else True
        ) as client:
            shards = StreamReader(client, source.container, source.path).shard_count()
    except (V3ioError, ValueError, OSError) as error:
        return "", f"table {table}: {error}"
    return f"table {table}: V3IO stream {source.container}/{source.path}, {shards} shards", ""
