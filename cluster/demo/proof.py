"""Compares what a store holds with what was inserted, from the rows themselves."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from cluster.demo.data import DemoTable
from protocols.kronos.client import KronosClient
from protocols.kronos.wire import MAX_TIME


@dataclass(frozen=True, slots=True)
class Verdict:
    """Rows of one table: `lost` were inserted more often than they are stored, `doubled` the reverse."""

    inserted: int
    stored: int
    doubled: int
    lost: int


def compare(inserted: pl.DataFrame, stored: pl.DataFrame) -> Verdict:
    """Compare two tables as multisets of whole rows."""
    columns = inserted.columns
    left = inserted.group_by(columns).len("inserted")
    right = stored.select(columns).group_by(columns).len("stored")
    both = left.join(right, on=columns, how="full", nulls_equal=True, coalesce=True)
    counts = both.select(pl.col("inserted", "stored").fill_null(0).cast(pl.Int64))
    surplus = counts["stored"] - counts["inserted"]
    doubled, lost = surplus.clip(0).sum(), (-surplus).clip(0).sum()
    return Verdict(inserted.height, stored.height, int(doubled), int(lost))


def read_back(url: str, namespace: str, table: DemoTable) -> pl.DataFrame:
    """All events of the table's stream, with the table's columns, through the store's HTTP API."""
    client = KronosClient(url, namespace=namespace)
    try:
        events = client.get(table.name, 0, MAX_TIME)
        return pl.DataFrame(events, schema=table.rows.schema, orient="row")
    finally:
        client.close()
