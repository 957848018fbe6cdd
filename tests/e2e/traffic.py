"""Tables with rows that keep coming, and what a store has of them."""

from __future__ import annotations

import io
import threading
import time
from collections import Counter, defaultdict
from typing import Any

import fastavro

from protocols.kinetica.client import KineticaClient
from protocols.kinetica.types import Column, TableType
from protocols.kronos.client import KronosClient
from protocols.kronos.wire import MAX_TIME

ROW = TableType((Column("id", "long"), Column("name", "string", True, ("nullable",)), Column("x", "double")))
_SCHEMA = fastavro.parse_schema(ROW.avro)


def row(number: int) -> tuple[int, str | None, float]:
    """The values of row `number`."""
    return number, None if number % 7 == 0 else f"row {number} ☃", number / 4


def frame(number: int) -> bytes:
    """Row `number` as Avro."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, _SCHEMA, dict(zip(ROW.names, row(number), strict=True)))
    return out.getvalue()


def create(client: KineticaClient, table: str) -> None:
    """Create `table` with the columns of :data:`ROW`."""
    client.create_table(table, client.create_type(ROW))


def events(kronos: KronosClient, stream: str, namespace: str | None = None) -> list[dict[str, Any]]:
    """Every event of a stream in the store's order."""
    return list(kronos.get(stream, 0, MAX_TIME, namespace=namespace))


def holes(stored: list[dict[str, Any]]) -> list[str]:
    """What is wrong with the origins of `stored`: a hole, a double or a wrong order within an epoch."""
    problems = []
    following: dict[str, int] = defaultdict(int)
    for event in stored:
        epoch, offset = event["@origin"].rsplit("/", 1)
        if int(offset) != following[epoch]:
            problems.append(f"{event['@origin']} where {following[epoch]} follows")
        following[epoch] = int(offset) + 1
    return problems


def doubles(stored: list[dict[str, Any]]) -> dict[int, int]:
    """Row numbers stored more than once."""
    return {number: count for number, count in Counter(event["id"] for event in stored).items() if count > 1}


class Publisher:
    """Inserts rows into tables at a steady pace, on a thread of its own, until stopped."""

    def __init__(
        self, client: KineticaClient, tables: list[str], rows: int = 100, interval: float = 0.1
    ) -> None:
        self.counts = dict.fromkeys(tables, 0)
        self._client = client
        self._rows = rows
        self._interval = interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Publisher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End after the current round."""
        self._stop.set()
        self._thread.join(timeout=30.0)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            for table, count in self.counts.items():
                self._client.insert_records(table, [frame(n) for n in range(count, count + self._rows)])
                self.counts[table] = count + self._rows


class StoreWatch:
    """Notes, several times a second, the newest row that each stream has; tells the longest time without a new one.

    A stream is (namespace, table). Rows must keep coming, or the watch shows a stall of the publisher.
    """

    def __init__(self, url: str, streams: list[tuple[str, str]]) -> None:
        self._client = KronosClient(url)
        self._seen: dict[tuple[str, str], tuple[int, float]] = {stream: (-1, 0.0) for stream in streams}
        self._longest = dict.fromkeys(streams, 0.0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> StoreWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=30.0)
        self._client.close()

    def newest(self, namespace: str, table: str) -> int:
        """Number of the newest row stored, -1 for none."""
        return self._seen[namespace, table][0]

    def has(self, counts: dict[str, int]) -> bool:
        """Whether each table has a row that was inserted after its first so many."""
        return all(self._seen[stream][0] >= counts[stream[1]] for stream in self._seen)

    def reset(self) -> None:
        """Forget the longest times so far."""
        now = time.monotonic()
        self._seen = {stream: (number, now) for stream, (number, _) in self._seen.items()}
        self._longest = dict.fromkeys(self._longest, 0.0)

    def longest(self) -> dict[str, float]:
        """Seconds, per ``namespace/table``, of the longest wait for a new row since the reset, this moment included."""
        now = time.monotonic()
        return {
            f"{namespace}/{table}": max(self._longest[namespace, table], now - since)
            for (namespace, table), (_, since) in self._seen.items()
        }

    def _run(self) -> None:
        while not self._stop.wait(0.1):
            for stream in self._seen:
                namespace, table = stream
                newest = next(
                    self._client.get(table, 0, MAX_TIME, order="descending", limit=1, namespace=namespace),
                    None,
                )
                number, since = self._seen[stream]
                if newest is not None and newest["id"] > number:
                    now = time.monotonic()
                    self._longest[stream] = max(self._longest[stream], now - since)
                    self._seen[stream] = (newest["id"], now)
