"""A first pipeline file from the tables of a server, with a guess per table and the reason for it. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import yaml

from actors.names import FEED_SUFFIXES
from cluster.config import parse
from protocols.kinetica.client import TableInfo
from protocols.kinetica.types import Column, TableType

#: Names that columns have which count up from row to row.
_COUNTERS = re.compile(r"(row|event|record|change)?_?(id|seq|sequence|serial|offset|counter|number|no)", re.I)

_HEAD = """\
# Made from the tables of {url} by `tablecast init`. Every key: docs/configuration.md.
# Look over tables and sinks, then: tablecast check {file} && tablecast up {file}
pipeline: {name} # the name on the cluster
source:
  kinetica:
    url: {url}
    username: {user}
    password: ${{KINETICA_PASSWORD:-}} # from the environment; empty when unset
# increasing_column: a column with another value for each row, greater than those of all rows before. With it, rows that
# were not received can be read from the table. What stands below is guessed: see that it is so.
tables:
"""

_TAIL = """\
# Where events go; a table goes to all of these unless it names its own, as in `sinks: [lines]`.
sinks:
  lines: {console: {path: ./%s.ndjson}} # lines of JSON, for first steps
  # events: {kronos: {url: "http://127.0.0.1:8151"}} # an event store; try one with `tablecast serve kronos`
  # lake: {parquet: {path: ./lake}} # Parquet files
  # panoply: {panoply: {apikey: "${PANOPLY_KEY}", apisecret: "${PANOPLY_SECRET}"}}
decoders: {min: 1, max: 4}
spool: {path: ./spool, max_bytes: 10GiB, min_free: 1GiB} # what is received and not yet delivered; on a local disk
"""


class Guess(NamedTuple):
    """A column that may increase, why it is thought to, and whether nobody needs to look first."""

    column: str
    why: str
    sure: bool


def starter(url: str, file: str, tables: Iterable[TableInfo], user: str | None = None) -> str:
    """The text of a pipeline file for `tables`; credentials are taken from the environment when it is read.

    Raises :class:`~cluster.config.ConfigError` if no file can be made of that, for example without a table that has a
    usable name.
    """
    name = re.sub(r"[^A-Za-z0-9_-]", "-", file.rpartition("/")[2].removesuffix(".yaml")) or "pipeline"
    username = json.dumps(user.replace("$", "$$")) if user else "${KINETICA_USER:-}"
    head = _HEAD.format(url=json.dumps(url), file=file, name=_scalar(name), user=username)
    text = "".join((head, *(f"{line}\n" for line in _tables(list(tables))), _TAIL % name))
    parse(text, file, {})
    return text


def guess(table: TableType) -> Guess | None:
    """The column that most probably has another, greater value for each new row."""
    keys = [column for column in table.columns if "primary_key" in column.properties]
    numbers = [column for column in table.columns if _is_number(column)]
    if len(keys) == 1 and keys[0] in numbers:
        return Guess(keys[0].name, "the primary key, a whole number", True)
    for column in numbers:
        if _COUNTERS.fullmatch(column.name):
            return Guess(column.name, "a whole number, named like a counter", True)
    for column in table.columns:
        if "timestamp" in column.properties and not column.nullable:
            return Guess(column.name, "a timestamp: only if no two rows share a value", False)
    return None


def _is_number(column: Column) -> bool:
    return (
        column.base in ("int", "long")
        and not column.nullable
        and not {"timestamp", "boolean", "int8", "int16"}.intersection(column.properties)
    )


def _tables(tables: list[TableInfo]) -> Iterator[str]:
    names = {table.name for table in tables}
    for table in sorted(tables, key=lambda each: each.name):
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,200}", table.name):
            yield f"  # {json.dumps(table.name)} cannot be followed: its name has more than A-Z a-z 0-9 _ - ."
            continue
        if any(
            table.name.endswith(suffix) and table.name.removesuffix(suffix) in names
            for suffix in FEED_SUFFIXES
        ):
            yield f"  # {table.name} has the name of another table's feed; follow it in a pipeline of its own"
            continue
        yield f"  - name: {_scalar(table.name)}"
        found = guess(table.type)
        if found is None:
            yield "    # increasing_column: none found"
        else:
            off = "" if found.sure else "# "
            yield f"    {off}increasing_column: {_scalar(found.column)} # {found.why}"


def _scalar(text: str) -> str:
    """`text` as YAML that reads as text again, quoted only where that is needed."""
    plain = re.fullmatch(r"[\w.-]+", text, re.ASCII) and yaml.safe_load(text) == text
    return text if plain else json.dumps(text.replace("$", "$$"))
