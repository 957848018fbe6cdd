"""Inserts rows into the first table of the kept demonstration, a few at a time, until its table server is gone."""

from __future__ import annotations

import itertools
import sys
import time

from cluster.demo.data import ROW, load_tables
from protocols.kinetica.client import KineticaClient
from protocols.kinetica.errors import KineticaError

#: Rows per insert, seconds between two, and rows of the table that come again and again with new row numbers.
ROWS = 10
INTERVAL = 0.5
VARIETY = 1000


def trickle(url: str, limit: int | None) -> None:
    """Insert rows at the server at `url`, whose tables were made with `limit`, until it does not answer."""
    table = load_tables(limit)[0]
    rows = itertools.cycle(table.rows.head(VARIETY).iter_rows(named=True))
    numbers = itertools.count(table.rows.height)
    frames = table.frames({**row, ROW: number} for row, number in zip(rows, numbers, strict=False))
    with KineticaClient(url) as client:
        while True:
            client.insert_records(table.name, list(itertools.islice(frames, ROWS)))
            time.sleep(INTERVAL)


if __name__ == "__main__":
    try:
        trickle(sys.argv[1], int(sys.argv[2]) or None)
    except KineticaError as error:
        sys.exit(f"ended: {error}")
