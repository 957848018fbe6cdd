"""Events in an SQLite file.

A stream is a sequence of *chunks*, rows that hold up to CHUNK_BYTES of consecutive events as the lines that a
reader is sent. The invariant: the key ranges first..last of a stream's chunks do not overlap. Events in
increasing order become new chunks; others are merged into the chunk they fall into; small chunks are merged
with what follows.

Durability: WAL with synchronous=FULL, so a committed transaction survives a crash of the process or machine,
and an open one leaves nothing behind. Readers never hold a statement open, else the WAL could not be reset.

One connection writes (:class:`Store`); each reading thread has one of its own (:class:`Reader`).
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from protocols.kronos.server import origins
from protocols.kronos.server.events import Batch, key_of_line, next_free, origins_in
from protocols.kronos.wire import Range

#: Most bytes of a chunk, unless a single event is larger.
CHUNK_BYTES = 128 * 1024
#: A chunk below it is rewritten together with the events that follow it. Higher: fewer rows, more rewriting.
SMALL_CHUNK_BYTES = 8 * 1024
#: A page of a reader ends with the chunk that passes it.
PAGE_BYTES = 1024 * 1024

_SCHEMA_VERSION = 1
_SCHEMA = (
    """
CREATE TABLE IF NOT EXISTS streams (
  id INTEGER PRIMARY KEY, namespace TEXT NOT NULL, name TEXT NOT NULL, UNIQUE (namespace, name));
CREATE TABLE IF NOT EXISTS chunks (
  id INTEGER PRIMARY KEY, stream INTEGER NOT NULL, first TEXT NOT NULL, last TEXT NOT NULL,
  count INTEGER NOT NULL, data BLOB NOT NULL, UNIQUE (stream, first));
"""
    + origins.SCHEMA
)

#: Where the chunk begins that `low` may fall into: no earlier one holds a greater key.
_CHUNK_AT_LOW = "coalesce((SELECT max(first) FROM chunks WHERE stream = :stream AND first <= :low), '')"


def connect(path: Path) -> sqlite3.Connection:
    """Open the file, create what is missing. Raises ``OSError`` (one line) if it is not one of ours."""
    connection = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, _SCHEMA_VERSION):
            raise OSError(f"{path} has format {version}; this version reads {_SCHEMA_VERSION}")
        if version == 0:
            connection.execute("PRAGMA page_size=8192")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.executescript(_SCHEMA)
            connection.execute(f"PRAGMA user_version={_SCHEMA_VERSION}")
        connection.execute("PRAGMA synchronous=FULL")
        # Fewer, larger checkpoints: 32 MiB of WAL.
        connection.execute("PRAGMA wal_autocheckpoint=4000")
    except sqlite3.DatabaseError as error:
        connection.close()
        raise OSError(f"{path} is not a usable event store: {error}") from error
    except OSError:
        connection.close()
        raise
    return connection


class Page(NamedTuple):
    """Some lines of a result in the order asked for, and the bounds of the rest (None: there is none)."""

    data: bytes
    lines: int
    rest: tuple[str, str] | None


class Reader:
    """Reads from a connection that no other thread uses at the same time."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def stream_id(self, namespace: str, name: str) -> int | None:
        row = self._connection.execute(
            "SELECT id FROM streams WHERE namespace = ? AND name = ?", (namespace, name)
        ).fetchone()
        return None if row is None else int(row[0])

    def streams(self, namespace: str) -> list[str]:
        rows = self._connection.execute(
            "SELECT name FROM streams WHERE namespace = ? ORDER BY name", (namespace,)
        )
        return [row[0] for row in rows.fetchall()]

    def page(self, stream: int, bounds: tuple[str, str], limit: int, descending: bool) -> Page:
        """The next lines with keys between `bounds`: at most `limit` (>= 1), and about PAGE_BYTES."""
        low, high = bounds
        rows = self._connection.execute(
            "SELECT first, last, count, data FROM chunks WHERE stream = :stream AND first < :high"
            f" AND first >= {_CHUNK_AT_LOW} ORDER BY first {'DESC' if descending else 'ASC'}",
            {"stream": stream, "low": low, "high": high},
        )
        parts: list[bytes] = []
        count = size = 0
        rest = None
        for first, last, chunk_count, data in rows:
            if count >= limit or size >= PAGE_BYTES:
                rest = low, high
                break
            if descending or first <= low or last >= high or count + chunk_count > limit:
                lines = [line for line in data.splitlines(True) if low < key_of_line(line) < high]
                if descending:
                    lines.reverse()
                lines = lines[: limit - count]
                data, chunk_count = b"".join(lines), len(lines)
            parts.append(data)
            count += chunk_count
            size += len(data)
            # The rest begins at a key, not at a row: chunks may be split or merged before the next page.
            low, high = (low, min(high, first)) if descending else (max(low, last), high)
        rows.close()
        return Page(b"".join(parts), count, rest if count < limit else None)


class Store(Reader):
    """The writing side; its changes belong to the transaction that the caller opened."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        super().__init__(connection)
        self._execute = connection.execute
        self._origins = origins.OriginIndex(connection)

    def put(self, namespace: str, name: str, batch: Batch) -> list[bool]:
        """Store the events whose origins are new, and say which those are."""
        stream = self.stream_id(namespace, name)
        if stream is None:
            added = self._execute("INSERT INTO streams (namespace, name) VALUES (?, ?)", (namespace, name))
            stream = added.lastrowid
            assert stream is not None
        fresh = self._origins.claim(stream, batch.origins)
        events = sorted(
            pair for pair, new in zip(zip(batch.keys, batch.lines, strict=True), fresh, strict=True) if new
        )
        while events:
            events = sorted(self._insert(stream, events))
        return fresh

    def delete(self, namespace: str, target: Range) -> int:
        """Delete the events in range and forget their origins; the number of events deleted."""
        low, high = target.low, target.high
        stream = self.stream_id(namespace, target.stream)
        if stream is None:
            return 0
        chunks = self._execute(
            "SELECT id, first, last FROM chunks WHERE stream = :stream AND first < :high"
            f" AND last > :low AND first >= {_CHUNK_AT_LOW} ORDER BY first",
            {"stream": stream, "low": low, "high": high},
        ).fetchall()
        deleted = 0
        for chunk, first, last in chunks:
            lines = self._lines(chunk)
            self._execute("DELETE FROM chunks WHERE id = ?", (chunk,))
            if not (low < first and last < high):
                kept = [(key, line) for line in lines if not low < (key := key_of_line(line)) < high]
                self._write_chunks(stream, kept)
                lines = [line for line in lines if low < key_of_line(line) < high]
            deleted += len(lines)
            self._origins.release(stream, origins_in(lines))
        return deleted

    def _insert(self, stream: int, events: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
        """Store sorted `events`; those whose key is taken are given back with another one."""
        collided = []
        start = 0
        while start < len(events):
            key = events[start][0]
            before = self._execute(
                "SELECT id, last, length(data) FROM chunks WHERE stream = ? AND first <= ?"
                " ORDER BY first DESC LIMIT 1",
                (stream, key),
            ).fetchone()
            after = self._execute(
                "SELECT min(first) FROM chunks WHERE stream = ? AND first > ?", (stream, key)
            ).fetchone()[0]
            end = len(events) if after is None else bisect_left(events, (after, b""), start)
            merged: list[tuple[str, bytes]] = []
            if before is not None and (key <= before[1] or before[2] < SMALL_CHUNK_BYTES):
                merged = [(key_of_line(line), line) for line in self._lines(before[0])]
                self._execute("DELETE FROM chunks WHERE id = ?", (before[0],))
            taken = {held for held, _ in merged}
            for event in events[start:end]:
                if event[0] in taken:
                    collided.append(next_free(*event))
                else:
                    taken.add(event[0])
                    merged.append(event)
            merged.sort()
            self._write_chunks(stream, merged)
            start = end
        return collided

    def _lines(self, chunk: int) -> list[bytes]:
        row = self._execute("SELECT data FROM chunks WHERE id = ?", (chunk,)).fetchone()
        return list(row[0].splitlines(True))

    def _write_chunks(self, stream: int, events: list[tuple[str, bytes]]) -> None:
        for part in _cut(events):
            data = b"".join([line for _, line in part])
            self._execute(
                "INSERT INTO chunks (stream, first, last, count, data) VALUES (?, ?, ?, ?, ?)",
                (stream, part[0][0], part[-1][0], len(part), data),
            )


def _cut(events: list[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
    """Cut events into parts of at most CHUNK_BYTES."""
    start = size = 0
    for place, (_, line) in enumerate(events):
        if size + len(line) > CHUNK_BYTES and place > start:
            yield events[start:place]
            start, size = place, 0
        size += len(line)
    if start < len(events):
        yield events[start:]
