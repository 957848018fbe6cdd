"""The tree of containers, directories, objects and streams in a SQLite file.

Everything that has a path is a row of ``entries``; containers are the directories without a parent. An
object's bytes lie in ``chunks``, its attributes (typed, as they came) in its row. A stream is a directory
with a shard count; its shards are objects, named by number and made by the first record, that own rows of
``records``.

Not here: transactions (``worker.py``), the meaning of attributes (``items.py``) and records (``streams.py``).
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from protocols.v3io import wire
from protocols.v3io.server.errors import Refused, is_a_directory, no_such_file, not_a_directory

#: Bytes of an object in one row, so that a range does not read the whole of it.
CHUNK_BYTES = 1024 * 1024

OBJECT, DIRECTORY, STREAM = range(3)

_FORMAT_VERSION = 1
_SCHEMA = """
CREATE TABLE entries (
  id INTEGER PRIMARY KEY AUTOINCREMENT, parent INTEGER NOT NULL, name TEXT NOT NULL, kind INTEGER NOT NULL,
  size INTEGER NOT NULL, attributes TEXT NOT NULL, created INTEGER NOT NULL, modified INTEGER NOT NULL,
  shard_count INTEGER NOT NULL, retention_hours INTEGER NOT NULL, UNIQUE (parent, name));
CREATE TABLE chunks (
  entry INTEGER NOT NULL REFERENCES entries ON DELETE CASCADE, start INTEGER NOT NULL, data BLOB NOT NULL,
  UNIQUE (entry, start));
CREATE TABLE records (
  shard INTEGER NOT NULL REFERENCES entries ON DELETE CASCADE, sequence INTEGER NOT NULL,
  arrival INTEGER NOT NULL, partition_key TEXT, client_info TEXT, data TEXT NOT NULL,
  UNIQUE (shard, sequence));
"""
_COLUMNS = "id, parent, name, kind, size, attributes, created, modified, shard_count, retention_hours"


def connect(path: Path | None) -> sqlite3.Connection:
    """Open the file, or memory for None, and create what is missing.

    Raises ``OSError`` (one line) if the file is not one of ours.
    """
    connection = sqlite3.connect(
        path or ":memory:", timeout=30, isolation_level=None, check_same_thread=False
    )
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, _FORMAT_VERSION):
            raise OSError(f"{path} has format {version}; this version reads {_FORMAT_VERSION}")
        if version == 0:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version={_FORMAT_VERSION}; COMMIT")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
    except sqlite3.DatabaseError as error:
        connection.close()
        raise OSError(f"{path} is not usable as the file of a V3IO server: {error}") from error
    except OSError:
        connection.close()
        raise
    return connection


class Entry(NamedTuple):
    """What is at a path; times in nanoseconds since 1970, `attributes` in JSON."""

    id: int
    parent: int
    name: str
    kind: int
    size: int
    attributes: str
    created: int
    modified: int
    shard_count: int
    retention_hours: int


#: The names of a path, from the container on.
Names = tuple[str, ...]


class Store:
    """All methods belong to the transaction that the caller opened; paths begin with the container's name."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.execute = connection.execute
        self._executemany = connection.executemany

    def find(self, path: Names) -> Entry | None:
        """Raises ``Refused`` for an unknown container."""
        entry = self._child(0, path[0])
        if entry is None:
            raise Refused(404, wire.NO_SUCH_FILE, f"Container not found: {path[0]}")
        for name in path[1:]:
            entry = self._child(entry.id, name)
            if entry is None:
                return None
        return entry

    def get(self, path: Names) -> Entry:
        """Raises ``Refused`` if there is nothing at `path`."""
        entry = self.find(path)
        if entry is None:
            raise no_such_file()
        return entry

    def directory(self, path: Names) -> Entry:
        """The directory or stream at `path`, made with its parents if it is missing."""
        entry = self.find(path[:1])
        for name in path[1:]:
            assert entry is not None
            entry = self._child(entry.id, name) or self._make(entry.id, name, DIRECTORY)
            if entry.kind == OBJECT:
                raise not_a_directory()
        assert entry is not None
        return entry

    def object(self, path: Names) -> Entry:
        """The object at `path`, made empty if it is missing."""
        if len(path) < 2:
            raise is_a_directory()
        parent = self.directory(path[:-1])
        entry = self._child(parent.id, path[-1]) or self._make(parent.id, path[-1], OBJECT)
        if entry.kind != OBJECT:
            raise is_a_directory()
        return entry

    def stream(self, path: Names, shard_count: int, retention_hours: int) -> None:
        """Make a stream where nothing is yet."""
        parent = self.directory(path[:-1])
        entry = self._make(parent.id, path[-1], STREAM)
        self.execute(
            "UPDATE entries SET shard_count = ?, retention_hours = ? WHERE id = ?",
            (shard_count, retention_hours, entry.id),
        )

    def add_containers(self, names: Iterable[str]) -> None:
        for name in names:
            if self._child(0, name) is None:
                self._make(0, name, DIRECTORY)

    def children(
        self,
        parent: int,
        *,
        after: str = "",
        first: str = "",
        before: str | None = None,
        kinds: Sequence[int] = (OBJECT, DIRECTORY, STREAM),
        limit: int,
    ) -> list[Entry]:
        """At most `limit` entries in the order of their names, in [`first`, `before`) and beyond `after`."""
        rows = self.execute(
            f"SELECT {_COLUMNS} FROM entries WHERE parent = ?1 AND name > ?2 AND name >= ?3"
            f" AND (?4 IS NULL OR name < ?4) AND kind IN ({','.join(map(str, kinds))}) ORDER BY name LIMIT ?5",
            (parent, after, first, before, limit),
        )
        return [Entry(*row) for row in rows.fetchall()]

    def delete(self, entry: Entry) -> None:
        """Delete an object or an empty directory."""
        if entry.kind != OBJECT and self.children(entry.id, limit=1):
            raise Refused(409, wire.DIRECTORY_NOT_EMPTY, "Directory not empty")
        self.execute("DELETE FROM entries WHERE id = ?", (entry.id,))

    def write(self, entry: Entry, data: bytes, *, append: bool) -> None:
        """Replace the bytes of an object, or add to them."""
        start = entry.size if append else 0
        if not append:
            self.execute("DELETE FROM chunks WHERE entry = ?", (entry.id,))
        self._executemany(
            "INSERT INTO chunks VALUES (?, ?, ?)",
            (
                (entry.id, start + offset, data[offset : offset + CHUNK_BYTES])
                for offset in range(0, len(data), CHUNK_BYTES)
            ),
        )
        self.execute("UPDATE entries SET size = ? WHERE id = ?", (start + len(data), entry.id))
        self.touch(entry)

    def read(self, entry: Entry, start: int, stop: int) -> bytes:
        """The bytes of an object in [start, stop), which lies within its size."""
        rows = self.execute(
            "SELECT start, data FROM chunks WHERE entry = ?1 AND start < ?3 AND start >="
            " (SELECT max(start) FROM chunks WHERE entry = ?1 AND start <= ?2) ORDER BY start",
            (entry.id, start, stop),
        ).fetchall()
        if not rows:
            return b""
        return b"".join([row[1] for row in rows])[start - rows[0][0] : stop - rows[0][0]]

    def set_attributes(self, entry: Entry, attributes: str) -> Entry:
        self.execute("UPDATE entries SET attributes = ? WHERE id = ?", (attributes, entry.id))
        return entry._replace(attributes=attributes, modified=self.touch(entry))

    def last_record(self, shard: int) -> tuple[int, int]:
        """Sequence number and arrival (ns since 1970) of a shard's newest record, zeros if it has none."""
        row = self.execute(
            "SELECT sequence, arrival FROM records WHERE shard = ? ORDER BY sequence DESC LIMIT 1", (shard,)
        ).fetchone()
        return (0, 0) if row is None else (row[0], row[1])

    def add_records(self, rows: Iterable[tuple[int, int, int, str | None, str | None, str]]) -> None:
        """Rows of shard, sequence number, arrival, partition key, client information, data."""
        self._executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?)", rows)

    def touch(self, entry: Entry) -> int:
        """Change the time of modification, which never repeats, and return it."""
        modified = max(time.time_ns(), entry.modified + 1)
        self.execute("UPDATE entries SET modified = ? WHERE id = ?", (modified, entry.id))
        return modified

    def _child(self, parent: int, name: str) -> Entry | None:
        row = self.execute(
            f"SELECT {_COLUMNS} FROM entries WHERE parent = ? AND name = ?", (parent, name)
        ).fetchone()
        return None if row is None else Entry(*row)

    def _make(self, parent: int, name: str, kind: int) -> Entry:
        now = time.time_ns()
        added = self.execute(
            "INSERT INTO entries (parent, name, kind, size, attributes, created, modified, shard_count,"
            " retention_hours) VALUES (?, ?, ?, 0, '{}', ?, ?, 0, 0)",
            (parent, name, kind, now, now),
        ).lastrowid
        assert added is not None
        return Entry(added, parent, name, kind, 0, "{}", now, now, 0, 0)
