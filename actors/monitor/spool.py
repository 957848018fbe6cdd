"""A monitor's durable log of blocks on local disk, with one cursor per feed and sink.

SQLite in WAL mode with ``synchronous=FULL``: a block is on disk when :meth:`Spool.append` returns. One process at
a time may hold a spool (an exclusive lock on its ``lock`` file, which the kernel releases when the process dies).

Layout of the directory: ``lock``, ``spool.db`` (tables below) with SQLite's ``-wal`` and ``-shm`` beside it.
What a crash leaves behind: every transaction whole or not at all; a cursor may lag behind what its sink has, so
that blocks are delivered again, never skipped.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from actors.batch import Rejected
from actors.block import Block, BlockId
from actors.errors import SpoolError, SpoolInUse
from actors.monitor import letters

_TABLES = """
CREATE TABLE IF NOT EXISTS schema (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS block (
    feed TEXT NOT NULL, epoch INTEGER NOT NULL, offset INTEGER NOT NULL, count INTEGER NOT NULL,
    time INTEGER NOT NULL, format TEXT NOT NULL, schema INTEGER NOT NULL REFERENCES schema, payload BLOB NOT NULL,
    UNIQUE (feed, epoch, offset));
-- Where each feed stands, also when all its blocks are gone.
CREATE TABLE IF NOT EXISTS feed (
    feed TEXT PRIMARY KEY, epoch INTEGER NOT NULL, next_offset INTEGER NOT NULL, next_time INTEGER NOT NULL
) WITHOUT ROWID;
-- Everything before (epoch, offset) is durable at the sink.
CREATE TABLE IF NOT EXISTS cursor (
    sink TEXT NOT NULL, feed TEXT NOT NULL, epoch INTEGER NOT NULL, offset INTEGER NOT NULL,
    PRIMARY KEY (sink, feed)) WITHOUT ROWID;
-- Blocks whose records may become dead letters although the table aborts on them.
CREATE TABLE IF NOT EXISTS permit (
    feed TEXT NOT NULL, epoch INTEGER NOT NULL, offset INTEGER NOT NULL,
    PRIMARY KEY (feed, epoch, offset)) WITHOUT ROWID;
-- What is at or behind (epoch, offset) must not be dispatched yet: nothing proves yet of which type it is.
CREATE TABLE IF NOT EXISTS held (
    feed TEXT PRIMARY KEY, epoch INTEGER NOT NULL, offset INTEGER NOT NULL) WITHOUT ROWID;
-- What is at or behind (epoch, offset) must not be dispatched until a person says so, and why.
CREATE TABLE IF NOT EXISTS frozen (
    feed TEXT PRIMARY KEY, epoch INTEGER NOT NULL, offset INTEGER NOT NULL, why TEXT NOT NULL) WITHOUT ROWID;
-- The schema under which a feed's latest records came, and the columns kept if others are to be discarded (JSON).
CREATE TABLE IF NOT EXISTS seen (feed TEXT PRIMARY KEY, schema TEXT NOT NULL, keep TEXT) WITHOUT ROWID;
-- Topics created at the source, so that those of a killed process can be cleared.
CREATE TABLE IF NOT EXISTS topic (id TEXT PRIMARY KEY) WITHOUT ROWID;
"""

_SELECT_BLOCK = (
    "SELECT b.feed, epoch, offset, count, time, format, text, payload FROM block b"
    " JOIN schema s ON s.id = b.schema WHERE b.feed = ? AND (epoch, offset) >= (?, ?)"
)


class Position(NamedTuple):
    """A place in a feed: everything before `offset` of `epoch`, and all earlier epochs, is behind it."""

    epoch: int = 0
    offset: int = 0


class Frozen(NamedTuple):
    """From where on a feed waits for a person, and why."""

    at: Position
    why: str


class FeedEnd(NamedTuple):
    """Where a feed stands: its last epoch, the next offset in it, and the next free receive time in ticks."""

    epoch: int = 0
    next_offset: int = 0
    next_time: int = 0


class Spool:
    """The spool in `directory`, which is created if missing.

    Thread-safe: one thread appends while another reads and moves cursors.

    Attributes:
        letters: the dead letters.

    Raises:
        SpoolInUse: another process holds it.
        SpoolError: it cannot be created, or is not a spool.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = Path(directory)
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._lock_file = open(self.directory / "lock", "a")  # noqa: SIM115 - held until close
        except OSError as error:
            raise SpoolError(
                f"spool {self.directory}: {error.strerror}; check the path and its rights"
            ) from error
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock_file.close()
            raise SpoolInUse(
                f"spool {self.directory} is held by another process; stop that one first"
            ) from error
        self._mutex = threading.Lock()
        self._counting = threading.Lock()
        try:
            self._db = self._open()
            self.letters = letters.DeadLetters(self._transaction)
            # Counting a long backlog takes a while (a second per million blocks), and must not keep appends waiting.
            self._counter = sqlite3.connect(self.directory / "spool.db", check_same_thread=False)
            rows = self._db.execute("SELECT feed, epoch, offset FROM held").fetchall()
            self._held = {feed: Position(epoch, offset) for feed, epoch, offset in rows}
            rows = self._db.execute("SELECT feed, epoch, offset, why FROM frozen").fetchall()
            self._frozen = {feed: Frozen(Position(epoch, offset), why) for feed, epoch, offset, why in rows}
            (self._bytes,) = self._db.execute(
                "SELECT coalesce(sum(length(payload)), 0) FROM block"
            ).fetchone()
        except sqlite3.Error as error:
            self._lock_file.close()
            # An operational error (disk full, no rights) says nothing of what is stored; any other means damage.
            blameless = isinstance(error, sqlite3.OperationalError)
            advice = "check its disk and rights" if blameless else "move the directory away to start afresh"
            raise SpoolError(f"spool {self.directory}: {error}; {advice}") from error

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.directory / "spool.db", isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        db.executescript(_TABLES + letters.TABLES)
        return db

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._mutex:
            before = self._held.copy(), self._frozen.copy()
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                self._held, self._frozen = before
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @property
    def bytes(self) -> int:
        """Payload bytes held."""
        return int(self._bytes)

    def append(self, blocks: Sequence[Block]) -> None:
        """Make `blocks` durable, all of them in one transaction."""
        if not blocks:
            return
        with self._transaction() as db:
            self._insert(db, blocks)
            self._set_ends(db, blocks)
        self._count(sum(len(b.payload) for b in blocks))

    def _set_ends(self, db: sqlite3.Connection, blocks: Sequence[Block]) -> None:
        ends = [(b.feed, b.epoch, b.end, b.time + b.count) for b in blocks]
        db.executemany("INSERT OR REPLACE INTO feed VALUES (?, ?, ?, ?)", ends)

    def _insert(self, db: sqlite3.Connection, blocks: Sequence[Block]) -> None:
        rows = [
            (b.feed, b.epoch, b.offset, b.count, b.time, b.format, self._schema(b.schema), b.payload)
            for b in blocks
        ]
        db.executemany("INSERT INTO block VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def _delete(self, db: sqlite3.Connection, where: str, values: tuple[object, ...]) -> int:
        """Delete blocks; returns their payload bytes."""
        rows = db.execute(f"DELETE FROM block WHERE {where} RETURNING length(payload)", values).fetchall()
        return sum(size for (size,) in rows)

    # -- what must wait until its type is proven ------------------------------------------------------------------

    def held(self, feed: str) -> Position | None:
        """From where on the types of the records of `feed` are not proven; None if nothing is in doubt."""
        with self._mutex:
            return self._held.get(feed)

    def hold(self, feed: str, at: Position) -> None:
        """Keep what is at or behind `at` from being dispatched; everything before it may be, unless it is frozen."""
        with self._transaction() as db:
            self._hold(db, feed, at)

    def _hold(self, db: sqlite3.Connection, feed: str, at: Position) -> None:
        db.execute("INSERT OR REPLACE INTO held VALUES (?, ?, ?)", (feed, *at))
        self._held[feed] = at

    def held_blocks(self, feed: str) -> list[Block]:
        """The blocks of `feed` whose types are not proven, in order."""
        with self._mutex:
            at = self._held.get(feed)
            if at is None:
                return []
            rows = self._db.execute(f"{_SELECT_BLOCK} ORDER BY epoch, offset", (feed, *at)).fetchall()
        return [Block(*row) for row in rows]

    def in_doubt(self, feed: str) -> bool:
        """Whether `feed` has records whose types are not proven."""
        with self._mutex:
            at = self._held.get(feed)
            query = "SELECT 1 FROM block WHERE feed = ? AND (epoch, offset) >= (?, ?) LIMIT 1"
            return at is not None and self._db.execute(query, (feed, *at)).fetchone() is not None

    def frozen(self, feed: str) -> Frozen | None:
        """From where on `feed` waits for a person, if it does."""
        with self._mutex:
            return self._frozen.get(feed)

    def resume(self, feed: str) -> bool:
        """Let a frozen feed go on. Returns whether it was frozen."""
        with self._transaction() as db:
            db.execute("DELETE FROM frozen WHERE feed = ?", (feed,))
            return self._frozen.pop(feed, None) is not None

    def settle(
        self,
        feed: str,
        blocks: Sequence[Block],
        rejects: Iterable[tuple[Block, Rejected]],
        hold: Position,
        frozen: Frozen | None,
        seen: tuple[str, list[str] | None],
        news: Block,
    ) -> None:
        """Replace the held blocks of `feed` by `blocks`, which cover the same records but for `rejects`.

        Args:
            rejects: become dead letters; each with the block (old or new) whose epoch, time and schema are its own.
            hold: from where on the feed is held afterwards.
            frozen: from where on it is frozen, unless it is already.
            seen: see :meth:`see`.
            news: a block of another feed that tells of it.

        All in one transaction.
        """
        freed = 0
        with self._transaction() as db:
            for block, reject in rejects:
                letters.add(db, block.id, block.time, reject)
            if (at := self._held.get(feed)) is not None:
                freed = self._delete(db, "feed = ? AND (epoch, offset) >= (?, ?)", (feed, *at))
            self._insert(db, [*blocks, news])
            self._set_ends(db, [news])
            self._hold(db, feed, hold)
            if frozen is not None and feed not in self._frozen:
                db.execute("INSERT INTO frozen VALUES (?, ?, ?, ?)", (feed, *frozen.at, frozen.why))
                self._frozen[feed] = frozen
            self._see(db, feed, *seen)
        self._count(sum(len(block.payload) for block in (*blocks, news)) - freed)

    def seen(self, feed: str) -> tuple[str | None, list[str] | None]:
        """The schema that `feed` had last, and the columns to keep, if others are to be discarded."""
        with self._mutex:
            row = self._db.execute("SELECT schema, keep FROM seen WHERE feed = ?", (feed,)).fetchone()
        return (row[0], json.loads(row[1]) if row[1] else None) if row else (None, None)

    def see(self, feed: str, schema: str, keep: list[str] | None) -> None:
        """Remember the schema of `feed`, and the columns to keep."""
        with self._transaction() as db:
            self._see(db, feed, schema, keep)

    def _see(self, db: sqlite3.Connection, feed: str, schema: str, keep: list[str] | None) -> None:
        text = json.dumps(keep) if keep else None
        db.execute("INSERT OR REPLACE INTO seen VALUES (?, ?, ?)", (feed, schema, text))

    def _count(self, size: int) -> None:
        with self._mutex:  # two threads append and delete; a bare += would lose one of two changes at once
            self._bytes += size

    def _schema(self, text: str) -> int:
        self._db.execute("INSERT OR IGNORE INTO schema (text) VALUES (?)", (text,))
        (found,) = self._db.execute("SELECT id FROM schema WHERE text = ?", (text,)).fetchone()
        return int(found)

    def end(self, feed: str) -> FeedEnd:
        """Where `feed` stands; all zero for one never seen."""
        with self._mutex:
            row = self._db.execute(
                "SELECT epoch, next_offset, next_time FROM feed WHERE feed = ?", (feed,)
            ).fetchone()
        return FeedEnd(*row) if row else FeedEnd()

    def last_epoch(self) -> int:
        """The greatest epoch of any feed; 0 when there is none."""
        with self._mutex:
            (epoch,) = self._db.execute("SELECT coalesce(max(epoch), 0) FROM feed").fetchone()
        return int(epoch)

    def next_block(self, feed: str, position: Position) -> Block | None:
        """The first block of `feed` at or after `position`, or None when there is none yet that may be dispatched."""
        with self._mutex:
            limits = [self._held.get(feed), frozen.at if (frozen := self._frozen.get(feed)) else None]
            end = min((limit for limit in limits if limit is not None), default=None)
            if end is not None and position >= end:
                return None
            row = self._db.execute(
                f"{_SELECT_BLOCK} ORDER BY epoch, offset LIMIT 1", (feed, *position)
            ).fetchone()
        if row is None:
            return None
        block = Block(*row)
        return None if end is not None and (block.epoch, block.offset) >= end else block

    def pending(self, feed: str, position: Position) -> tuple[int, int]:
        """Records and payload bytes of `feed` at or after `position`."""
        with self._counting:
            row = self._counter.execute(
                "SELECT coalesce(sum(count), 0), coalesce(sum(length(payload)), 0) FROM block"
                " WHERE feed = ? AND (epoch, offset) >= (?, ?)",
                (feed, *position),
            ).fetchone()
        return int(row[0]), int(row[1])

    def feeds(self) -> list[str]:
        """Every feed that this spool has ever held, in order of name."""
        with self._mutex:
            return [feed for (feed,) in self._db.execute("SELECT feed FROM feed ORDER BY feed")]

    def cursor(self, sink: str, feed: str) -> Position:
        """Where `sink` stands in `feed`; the very beginning for a sink never seen."""
        with self._mutex:
            row = self._db.execute(
                "SELECT epoch, offset FROM cursor WHERE sink = ? AND feed = ?", (sink, feed)
            ).fetchone()
        return Position(*row) if row else Position()

    def advance(
        self,
        cursors: Mapping[tuple[str, str], Position],
        behind: Mapping[str, Position],
        rejects: Iterable[tuple[BlockId, int, Rejected]] = (),
    ) -> None:
        """Move cursors, keep rejects, and delete what every sink has, in one transaction.

        Args:
            cursors: (sink, feed) -> new position.
            behind: feed -> position before which every sink has everything; blocks before it are deleted.
            rejects: (block, receive time in ticks, reject); their frames become dead letters.
        """
        freed = 0
        with self._transaction() as db:
            for (sink, feed), position in cursors.items():
                db.execute("INSERT OR REPLACE INTO cursor VALUES (?, ?, ?, ?)", (sink, feed, *position))
            for block, time, reject in rejects:
                letters.add(db, block, time, reject)
            for feed, position in behind.items():
                freed += self._delete(db, "feed = ? AND (epoch, offset) < (?, ?)", (feed, *position))
                db.execute(
                    "DELETE FROM permit WHERE feed = ? AND (epoch, offset) < (?, ?)", (feed, *position)
                )
        self._count(-freed)

    def permit(self, block: BlockId) -> None:
        """Let the records of `block` that do not decode become dead letters, also those of an aborting table."""
        with self._transaction() as db:
            db.execute("INSERT OR IGNORE INTO permit VALUES (?, ?, ?)", block)

    def permits(self) -> set[BlockId]:
        """The blocks that :meth:`permit` named, as long as they are here."""
        with self._mutex:
            return {BlockId(*row) for row in self._db.execute("SELECT feed, epoch, offset FROM permit")}

    def dead_letters(self) -> int:
        """How many dead letters are not delivered yet."""
        with self._counting:
            return letters.count(self._counter)

    def topics(self) -> list[str]:
        """Topics at the source that this spool's monitors opened last; they may not have been cleared."""
        with self._mutex:
            return [id for (id,) in self._db.execute("SELECT id FROM topic")]

    def set_topics(self, topics: Iterable[str]) -> None:
        """Replace the remembered topics."""
        with self._transaction() as db:
            db.execute("DELETE FROM topic")
            db.executemany("INSERT INTO topic VALUES (?)", [(topic,) for topic in topics])

    def close(self) -> None:
        """Close the database and release the lock. Calling it again does nothing."""
        with self._mutex, self._counting:
            self._counter.close()
            self._db.close()
            self._lock_file.close()
