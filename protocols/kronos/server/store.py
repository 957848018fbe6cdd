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
from bisect import bisect_left, bisect_right
from itertools import accumulate
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

#: One stored event: its key and its line.
Event = tuple[int, bytes]

#: The chunks that may hold keys in [:start, :stop); no chunk before the last one to begin by :start does.
_CHUNKS_IN_RANGE = (
    "stream = :stream AND first < :stop AND last >= :start AND first >="
    " coalesce((SELECT max(first) FROM chunks WHERE stream = :stream AND first <= :start), '')"
)


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
    rest: tuple[int, int] | None


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
        """The streams that were ever written to, in the order of their names."""
        rows = self._connection.execute(
            "SELECT name FROM streams WHERE namespace = ? ORDER BY name", (namespace,)
        )
        return [row[0] for row in rows.fetchall()]

    def page(self, stream: int, bounds: tuple[int, int], limit: int, descending: bool) -> Page:
        """The next lines with keys within `bounds`: at most `limit` (>= 1), and about PAGE_BYTES."""
        start, stop = bounds
        rows = self._connection.execute(
            f"SELECT first, last, count, data FROM chunks WHERE {_CHUNKS_IN_RANGE}"
            f" ORDER BY first {'DESC' if descending else 'ASC'}",
            {"stream": stream, "start": _text(start), "stop": _text(stop)},
        )
        parts: list[bytes] = []
        count = size = 0
        rest = None
        for first_text, last_text, chunk_count, data in rows:
            if count >= limit or size >= PAGE_BYTES:
                rest = start, stop
                break
            first, last = int(first_text, 16), int(last_text, 16)
            if descending or first < start or last >= stop or count + chunk_count > limit:
                lines = [line for line in data.splitlines(True) if start <= key_of_line(line) < stop]
                if descending:
                    lines.reverse()
                lines = lines[: limit - count]
                data, chunk_count = b"".join(lines), len(lines)
            parts.append(data)
            count += chunk_count
            size += len(data)
            # The rest begins at a key, not at a row: chunks may be split or merged before the next page.
            start, stop = (start, first) if descending else (last + 1, stop)
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
        stream = self.stream_id(namespace, target.stream)
        if stream is None:
            return 0
        chunks = self._execute(
            f"SELECT id FROM chunks WHERE {_CHUNKS_IN_RANGE}",
            {"stream": stream, "start": _text(target.start), "stop": _text(target.stop)},
        ).fetchall()
        deleted = 0
        for (chunk,) in chunks:
            kept: list[Event] = []
            lines: list[bytes] = []
            for line in self._lines(chunk):
                key = key_of_line(line)
                if target.start <= key < target.stop:
                    lines.append(line)
                else:
                    kept.append((key, line))
            self._execute("DELETE FROM chunks WHERE id = ?", (chunk,))
            self._write_chunks(stream, kept)
            self._origins.release(stream, origins_in(lines))
            deleted += len(lines)
        return deleted

    def _insert(self, stream: int, events: list[Event]) -> list[Event]:
        """Store sorted `events`; those whose key is taken are given back with another one."""
        collided: list[Event] = []
        start = 0
        while start < len(events):
            key = _text(events[start][0])
            before = self._execute(
                "SELECT id, last, length(data) FROM chunks WHERE stream = ? AND first <= ?"
                " ORDER BY first DESC LIMIT 1",
                (stream, key),
            ).fetchone()
            after = self._execute(
                "SELECT min(first) FROM chunks WHERE stream = ? AND first > ?", (stream, key)
            ).fetchone()[0]
            end = len(events) if after is None else bisect_left(events, (int(after, 16), b""), start)
            merged: dict[int, bytes] = {}
            if before is not None and (key <= before[1] or before[2] < SMALL_CHUNK_BYTES):
                merged = {key_of_line(line): line for line in self._lines(before[0])}
                self._execute("DELETE FROM chunks WHERE id = ?", (before[0],))
            for event in events[start:end]:
                if merged.setdefault(*event) is not event[1]:
                    collided.append(next_free(*event))
            self._write_chunks(stream, sorted(merged.items()))
            start = end
        return collided

    def _lines(self, chunk: int) -> list[bytes]:
        row = self._execute("SELECT data FROM chunks WHERE id = ?", (chunk,)).fetchone()
        return list(row[0].splitlines(True))

    def _write_chunks(self, stream: int, events: list[Event]) -> None:
        """Write sorted events as chunks of at most CHUNK_BYTES."""
        ends = list(accumulate(len(line) for _, line in events))
        start = done = 0
        while start < len(events):
            stop = max(bisect_right(ends, done + CHUNK_BYTES, start), start + 1)
            part = events[start:stop]
            self._execute(
                "INSERT INTO chunks (stream, first, last, count, data) VALUES (?, ?, ?, ?, ?)",
                (stream, _text(part[0][0]), _text(part[-1][0]), len(part), b"".join([e[1] for e in part])),
            )
            start, done = stop, ends[stop - 1]


def _text(key: int) -> str:
    """A key as it is stored: text of a fixed width, in the order of the keys."""
    return f"{key:032x}"
