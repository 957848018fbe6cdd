"""What values of a pipeline file say against each other, each of which is right by itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from actors.names import FEED_SUFFIXES
from cluster.config.datasource import is_read, table_contradictions
from cluster.config.decoders import Decoders, decoders_contradictions
from cluster.config.errors import hint
from cluster.config.python_sink import python_contradictions
from cluster.config.sinks import Sink
from cluster.config.tables import Table
from cluster.config.tuning import BlockTuning, Tuning
from cluster.config.types import (
    Section,
    parse_number,
    parse_size,
)
from cluster.config.v3io import v3io_contradictions
from cluster.config.yaml_source import KeyPath


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
