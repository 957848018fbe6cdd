"""A table's durable log of blocks on local disk, with one cursor per feed and sink.

A block is on disk (SQLite in WAL mode with ``synchronous=FULL``) when :meth:`Spool.append` returns. After a crash every
transaction is there whole or not at all; a cursor may lag behind what its sink has, so that blocks are delivered
again, never skipped. ``docs/spool.md`` has the format; ``spool_db.py`` opens it, ``retention.py`` says what is kept.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from actors.batch import Rejected
from actors.block import Block, BlockId
from actors.errors import SpoolError
from actors.monitor import accounts, letters, spool_db
from actors.monitor.accounts import Account, Outcome
from actors.monitor.changelog import Change, ChangeLog
from actors.monitor.damage import Damage
from actors.monitor.layout import INSERT_BLOCK, SELECT_BLOCK, block_crc
from actors.monitor.layout import Position as Position
from actors.monitor.retention import Retention
from actors.monitor.spool_db import PAGE_BYTES, SpoolDatabase
from actors.names import feeds_of

_FIRST_BLOCK = f"{SELECT_BLOCK} (epoch, offset) >= (?, ?) ORDER BY epoch, offset LIMIT 1"


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
    """The spool of `table` in `directory`, which is created if missing.

    Thread-safe. Several tables of a process may have theirs in one directory: they share a database and its commits,
    and each sees only what is its own.

    Args:
        table: None: the directory is held alone, and all that is in it is seen.
        retain: seconds for which blocks are kept after their receipt when every sink has them.
        retain_bytes: payload bytes of all blocks above which those go earlier.
        log: is told of every transaction, for a copy of this directory, which no other table shares then.

    Attributes:
        letters: the dead letters.
        retention: what is kept of what every sink has.

    Raises:
        SpoolInUse: another process, or another part of this one, holds it.
        SpoolError: it cannot be created, is on a network file system, or is of another version.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        table: str | None = None,
        retain: float = 0.0,
        retain_bytes: int = 1 << 62,
        log: ChangeLog | None = None,
    ) -> None:
        self.directory = Path(directory)
        self._holder = table
        self._sinks: tuple[str, ...] = ()
        self._shared: SpoolDatabase | None = spool_db.share(self.directory, table)
        self._database.log = self._log = log
        #: The condition, on a column `feed`, of what is this table's.
        self._mine = "1" if table is None else f"feed IN ({', '.join(map(_quoted, feeds_of(table)))})"
        self.letters = letters.DeadLetters(self.transaction, self._mine)
        self.retention = Retention(self._database, self._mine, retain, retain_bytes)

    @property
    def _database(self) -> SpoolDatabase:
        """Not there after the end: others may still have it, and what comes late must not get into it."""
        if self._shared is None:
            raise SpoolError(f"the spool {self.directory} is closed")
        return self._shared

    def transaction(self) -> AbstractContextManager[sqlite3.Connection]:
        """A transaction, for neighbours that keep what is theirs in this database, by feed or table.

        Raises :class:`SpoolFull`, :class:`SpoolDamaged`.
        """
        return self._database.transaction()

    @property
    def bytes(self) -> int:
        """Payload bytes held."""
        ((found,),) = self._database.read(f"SELECT coalesce(sum(bytes), 0) FROM tally WHERE {self._mine}")
        return int(found)

    @property
    def free_inside(self) -> int:
        """Bytes of the database's file that hold nothing: room that the disk does not show."""
        return self._database.free_inside

    def room(self) -> bool:
        """Whether the disk has room to append; False from a :class:`SpoolFull` on until it has."""
        return self._database.room()

    def damages(self) -> list[Damage]:
        """Databases that were here before this one, were found damaged and set aside, in order of time."""
        return self._database.damages()

    # -- blocks -------------------------------------------------------------------------------------------------

    def append(
        self, blocks: Sequence[Block], also: Callable[[sqlite3.Connection], object] | None = None
    ) -> None:
        """Make `blocks` durable, all of them in one transaction, and what `also` does in it.

        Tables that share the database are committed together, so `also` may run on another thread. Raises
        :class:`SpoolFull`: nothing was stored.
        """
        if not blocks and also is None:
            return

        def work(db: sqlite3.Connection) -> None:
            self._insert(db, blocks)
            self._set_ends(db, blocks)
            self._received(db, blocks)
            if also is not None:
                also(db)

        self._database.append(work, sum(len(block.payload) + PAGE_BYTES for block in blocks))

    def _received(self, db: sqlite3.Connection, blocks: Sequence[Block]) -> None:
        for block in blocks:
            accounts.received(db, self._sinks, block.feed, block.count, len(block.payload))

    def _set_ends(self, db: sqlite3.Connection, blocks: Sequence[Block]) -> None:
        ends = [(b.feed, b.epoch, b.end, b.time + b.count) for b in blocks]
        db.executemany("INSERT OR REPLACE INTO feed VALUES (?, ?, ?, ?)", ends)

    def _insert(self, db: sqlite3.Connection, blocks: Sequence[Block]) -> None:
        rows = [
            (
                b.feed,
                b.epoch,
                b.offset,
                b.count,
                b.time,
                b.format,
                _schema(db, b.schema),
                block_crc(b),
                b.payload,
            )
            for b in blocks
        ]
        db.executemany(INSERT_BLOCK, rows)

    def next_block(self, feed: str, position: Position) -> Block | None:
        """The first block of `feed` at or after `position`, or None when there is none yet that may be dispatched."""
        block = self._first(
            f"SELECT * FROM ({_FIRST_BLOCK}) AS first"
            " WHERE NOT EXISTS (SELECT 1 FROM held h"
            " WHERE h.feed = first.feed AND (first.epoch, first.offset) >= (h.epoch, h.offset))"
            " AND NOT EXISTS (SELECT 1 FROM frozen f"
            " WHERE f.feed = first.feed AND (first.epoch, first.offset) >= (f.epoch, f.offset))",
            feed,
            position,
        )
        if block is None or self._log is None:
            return block
        uncopied = self._log.limit(feed)
        return None if uncopied is not None and (block.epoch, block.offset) >= uncopied else block

    def blocks(self, feed: str, position: Position = Position()) -> Iterator[Block]:  # noqa: B008 - a constant
        """The blocks of `feed` at or after `position`, in order: those retained, waiting, held or frozen.

        Each is read when it is asked for, by a SELECT of its own: a slow reader does not make the log grow.
        """
        while (block := self._first(_FIRST_BLOCK, feed, position)) is not None:
            yield block
            position = Position(block.epoch, block.end)

    def _first(self, query: str, feed: str, position: Position) -> Block | None:
        for block in self._database.blocks(self._database.read(query, (feed, *position))):
            if block.feed != feed or (block.epoch, block.offset) < position:
                raise self._database.damaged(f"block {block.id} is where it does not belong")
            return block
        return None

    def oldest(self, feed: str, position: Position) -> int | None:
        """When the first block of `feed` at or after `position` was received, in ticks; None if there is none."""
        rows = self._database.read(
            "SELECT time FROM block WHERE feed = ? AND (epoch, offset) >= (?, ?) ORDER BY epoch, offset LIMIT 1",
            (feed, *position),
        )
        return int(rows[0][0]) if rows else None

    def end(self, feed: str) -> FeedEnd:
        """Where `feed` stands; all zero for one never seen."""
        rows = self._database.read("SELECT epoch, next_offset, next_time FROM feed WHERE feed = ?", (feed,))
        return FeedEnd(*rows[0]) if rows else FeedEnd()

    def last_epoch(self) -> int:
        """The greatest epoch of any feed; 0 when there is none."""
        ((epoch,),) = self._database.read(f"SELECT coalesce(max(epoch), 0) FROM feed WHERE {self._mine}")
        return int(epoch)

    def succeed(self, feed: str, epoch: int, topics: Iterable[str]) -> None:
        """Go on after another spool of `feed`, out of reach now: with epochs after `epoch`, and its `topics` stale."""
        with self.transaction() as db:
            db.execute(
                "INSERT INTO feed VALUES (?, ?, 0, 0)"
                " ON CONFLICT DO UPDATE SET epoch = excluded.epoch, next_offset = 0",
                (feed, epoch),
            )
            holder = self._holder or ""
            db.executemany("INSERT OR IGNORE INTO topic VALUES (?, ?)", [(holder, topic) for topic in topics])

    def feeds(self) -> list[str]:
        """Every feed that this spool has ever held, in order of name."""
        return [
            feed for (feed,) in self._database.read(f"SELECT feed FROM feed WHERE {self._mine} ORDER BY feed")
        ]

    def pending(self, feed: str, position: Position) -> tuple[int, int]:
        """Records and payload bytes of `feed` at or after `position`."""
        records, size = self._database.count(
            "SELECT coalesce(sum(count), 0), coalesce(sum(length(payload)), 0) FROM block"
            " WHERE feed = ? AND (epoch, offset) >= (?, ?)",
            (feed, *position),
        )
        return records, size

    # -- cursors ------------------------------------------------------------------------------------------------

    def join(self, sinks: Iterable[str], newest: bool = False) -> None:
        """Have these sinks receive. One that never did begins with the oldest block here, or behind the `newest`."""
        holder = self._holder or ""
        with self.transaction() as db:
            known = {sink for (sink,) in db.execute("SELECT sink FROM sink WHERE holder = ?", (holder,))}
            for sink in set(sinks) - known:
                db.execute("INSERT INTO sink VALUES (?, ?)", (holder, sink))
                if newest:
                    db.execute(
                        "INSERT OR IGNORE INTO cursor (sink, feed, epoch, offset)"
                        f" SELECT ?, feed, epoch, next_offset FROM feed WHERE {self._mine}",
                        (sink,),
                    )

    def open_accounts(self, sinks: Sequence[str]) -> None:
        """Count from here on what becomes of records at `sinks`, and at no others."""
        feeds = self.feeds()
        with self.transaction() as db:
            accounts.open_sinks(db, feeds, sinks)
        self._sinks = tuple(sinks)

    def accounts(self) -> list[Account]:
        """What became of the records of each feed at each sink."""
        return [Account(*row) for row in self._database.read(f"{accounts.SELECT} AND {self._mine}")]

    def audit(self) -> list[Account]:
        """As :meth:`accounts`, but counted afresh where that can be; takes a second per million blocks."""
        with self.transaction() as db:
            return accounts.audit(db, self._mine)

    def cursor(self, sink: str, feed: str) -> Position:
        """Where `sink` stands in `feed`; the very beginning for a sink never seen."""
        rows = self._database.read(
            "SELECT epoch, offset FROM cursor WHERE sink = ? AND feed = ?", (sink, feed)
        )
        return Position(*rows[0]) if rows else Position()

    def rewound(self, sink: str, feed: str) -> bool:
        """Whether `sink` was rewound to its cursor, and has had nothing since."""
        return bool(
            self._database.read("SELECT 1 FROM cursor WHERE sink = ? AND feed = ? AND rewound", (sink, feed))
        )

    def advance(
        self,
        cursors: Mapping[tuple[str, str], Position],
        behind: Mapping[str, Position],
        outcomes: Iterable[Outcome] = (),
    ) -> None:
        """Move cursors, keep rejects, and delete what every sink has and need not be kept, in one transaction.

        Args:
            cursors: (sink, feed) -> new position.
            behind: feed -> position before which every sink has everything.
            outcomes: of the blocks that were not delivered whole; the frames of their rejects become dead letters.
        """
        outcomes = list(outcomes)

        def work(db: sqlite3.Connection) -> bool:
            for (sink, feed), position in cursors.items():
                own = [each for each in outcomes if (each.sink, each.block.feed) == (sink, feed)]
                accounts.move(db, sink, feed, position, own)
                db.execute(
                    "INSERT INTO cursor VALUES (?, ?, ?, ?, 0) ON CONFLICT DO UPDATE SET epoch = excluded.epoch,"
                    " offset = excluded.offset,"
                    " rewound = rewound AND (epoch, offset) = (excluded.epoch, excluded.offset)",
                    (sink, feed, *position),
                )
            for each in outcomes:
                for reject in each.rejects:
                    letters.add(db, each.block, each.time, reject)
            return self.retention.delivered(db, behind)

        if self._database.commit(work):
            self.retention.prune()

    # -- what must wait until its type is proven ------------------------------------------------------------------

    def held(self, feed: str) -> Position | None:
        """From where on the types of the records of `feed` are not proven; None if nothing is in doubt."""
        rows = self._database.read("SELECT epoch, offset FROM held WHERE feed = ?", (feed,))
        return Position(*rows[0]) if rows else None

    def hold(self, feed: str, at: Position) -> None:
        """Keep what is at or behind `at` from being dispatched; everything before it may be, unless it is frozen."""
        self._database.commit(lambda db: _hold(db, feed, at))

    def held_blocks(self, feed: str) -> list[Block]:
        """The blocks of `feed` whose types are not proven, in order."""
        at = self.held(feed)
        return [] if at is None else list(self.blocks(feed, at))

    def in_doubt(self, feed: str) -> bool:
        """Whether `feed` has records whose types are not proven."""
        at = self.held(feed)
        query = "SELECT 1 FROM block WHERE feed = ? AND (epoch, offset) >= (?, ?) LIMIT 1"
        return at is not None and bool(self._database.read(query, (feed, *at)))

    def frozen(self, feed: str) -> Frozen | None:
        """From where on `feed` waits for a person, if it does."""
        rows = self._database.read("SELECT epoch, offset, why FROM frozen WHERE feed = ?", (feed,))
        return Frozen(Position(*rows[0][:2]), rows[0][2]) if rows else None

    def freeze(self, feed: str, frozen: Frozen) -> None:
        """Let what is at or behind ``frozen.at`` wait for a person, if it is not frozen from an earlier place on."""
        with self.transaction() as db:
            db.execute(
                "INSERT INTO frozen VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE"
                " SET epoch = excluded.epoch, offset = excluded.offset, why = excluded.why"
                " WHERE (excluded.epoch, excluded.offset) < (epoch, offset)",
                (feed, *frozen.at, frozen.why),
            )

    def resume(self, feed: str) -> bool:
        """Let a frozen feed go on. Returns whether it was frozen."""
        with self.transaction() as db:
            return db.execute("DELETE FROM frozen WHERE feed = ?", (feed,)).rowcount > 0

    def settle(
        self,
        feed: str,
        blocks: Sequence[Block],
        rejects: Sequence[tuple[Block, Rejected]],
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
        with self.transaction() as db:
            for block, reject in rejects:
                letters.add(db, block.id, block.time, reject)
            freed = db.execute(
                "DELETE FROM block WHERE feed = ?"
                " AND (epoch, offset) >= (SELECT epoch, offset FROM held WHERE feed = block.feed)"
                " RETURNING length(payload)",
                (feed,),
            ).fetchall()
            size = sum(size for (size,) in freed) - sum(len(block.payload) for block in blocks)
            accounts.set_aside(db, feed, [(block.epoch, reject.offset) for block, reject in rejects], size)
            self._insert(db, [*blocks, news])
            self._set_ends(db, [news])
            self._received(db, [news])
            _hold(db, feed, hold)
            if frozen is not None:
                db.execute("INSERT OR IGNORE INTO frozen VALUES (?, ?, ?, ?)", (feed, *frozen.at, frozen.why))
            _see(db, feed, *seen)

    def seen(self, feed: str) -> tuple[str | None, list[str] | None]:
        """The schema that `feed` had last, and the columns to keep, if others are to be discarded."""
        rows = self._database.read("SELECT schema, keep FROM seen WHERE feed = ?", (feed,))
        return (rows[0][0], json.loads(rows[0][1]) if rows[0][1] else None) if rows else (None, None)

    def see(self, feed: str, schema: str, keep: list[str] | None) -> None:
        """Remember the schema of `feed`, and the columns to keep."""
        self._database.commit(lambda db: _see(db, feed, schema, keep))

    # -- small things ---------------------------------------------------------------------------------------------

    def permit(self, block: BlockId) -> None:
        """Let the records of `block` that do not decode become dead letters, also those of an aborting table."""
        with self.transaction() as db:
            db.execute("INSERT OR IGNORE INTO permit VALUES (?, ?, ?)", block)

    def permits(self) -> set[BlockId]:
        """The blocks that :meth:`permit` named, as long as they are here."""
        rows = self._database.read(f"SELECT feed, epoch, offset FROM permit WHERE {self._mine}")
        return {BlockId(*row) for row in rows}

    def dead_letters(self) -> int:
        """How many dead letters are not delivered yet."""
        return self._database.count(
            f"SELECT count(*) FROM dead_letter WHERE state <> 'done' AND {self._mine}"
        )[0]

    def topics(self) -> list[str]:
        """Topics at the source that this spool's monitors opened last; they may not have been cleared."""
        rows = self._database.read("SELECT id FROM topic WHERE holder = ?", (self._holder or "",))
        return [id for (id,) in rows]

    def set_topics(self, topics: Iterable[str]) -> None:
        """Replace the remembered topics."""
        holder = self._holder or ""
        with self.transaction() as db:
            db.execute("DELETE FROM topic WHERE holder = ?", (holder,))
            db.executemany("INSERT INTO topic VALUES (?, ?)", [(holder, topic) for topic in topics])

    def snapshot(self, begin: Callable[[], None]) -> Iterator[Change]:
        """The changes that make any spool a copy of this directory, as it is when `begin` is called."""
        return self._database.snapshot(begin)

    def apply(self, changes: Iterable[Change]) -> None:
        """Make changes of the spool that this one is a copy of."""
        with self.transaction() as db:
            for sql, values in changes:
                db.execute(sql, values).fetchall()

    def close(self) -> None:
        """Release the directory; the last spool in it closes the database. Calling it again does nothing."""
        shared, self._shared = self._shared, None
        if shared is not None:
            spool_db.release(shared, self._holder)


def _hold(db: sqlite3.Connection, feed: str, at: Position) -> None:
    db.execute("INSERT OR REPLACE INTO held VALUES (?, ?, ?)", (feed, *at))


def _see(db: sqlite3.Connection, feed: str, schema: str, keep: list[str] | None) -> None:
    text = json.dumps(keep) if keep else None
    db.execute("INSERT OR REPLACE INTO seen VALUES (?, ?, ?)", (feed, schema, text))


def _schema(db: sqlite3.Connection, text: str) -> int:
    db.execute("INSERT OR IGNORE INTO schema (text) VALUES (?)", (text,))
    (found,) = db.execute("SELECT id FROM schema WHERE text = ?", (text,)).fetchone()
    return int(found)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
