"""What a spool keeps of what every sink has, for how long; going back to it; and what goes when there is no room.

Delivered blocks go when they are older than :attr:`Retention.seconds`, or earlier when the spool holds more than
:attr:`Retention.bytes`. Undelivered ones stay, whatever their age; only :meth:`Retention.drop` deletes them.
"""

from __future__ import annotations

import heapq
import sqlite3
import time as clock
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import NamedTuple

from actors.block import TICKS_PER_SECOND, Block
from actors.errors import NotRetained
from actors.monitor import accounts
from actors.monitor.layout import SELECT_BLOCK, Position
from actors.monitor.spool_db import SpoolDatabase

#: Blocks and payload bytes deleted in one transaction: milliseconds, and a log that fits a nearly full disk.
BATCH = 256
BATCH_BYTES = 4 << 20

#: Bytes that may be free inside the file, for what comes; and steps by which the rest is given back at a time.
SPARE = 64 << 20
SHRINKS = 8

Pruning = Callable[[sqlite3.Connection, Sequence[Block]], None]

#: Of one lane: its cursor, and where the next block to send begins. What is between is in flight.
Span = tuple[Position, Position]


class _Head(NamedTuple):
    time: int
    feed: str
    epoch: int
    offset: int
    records: int
    size: int

    @property
    def at(self) -> Position:
        return Position(self.epoch, self.offset)


class Rewound(NamedTuple):
    """Where a feed goes on for a sink: at `position`, `records` of them again."""

    position: Position
    records: int


class Retention:
    """The retention of one spool. Its settings may be changed at any time.

    Attributes:
        seconds: how long delivered blocks are kept after their receipt.
        bytes: payload bytes in the spool, undelivered ones among them, above which delivered blocks go earlier.
        before: called with blocks before they are deleted, in the same transaction; None: nobody asks.
    """

    def __init__(self, database: SpoolDatabase, mine: str, seconds: float, bytes: int) -> None:
        self.seconds = seconds
        self.bytes = bytes
        self.before: Pruning | None = None
        self._database = database
        self._mine = mine
        #: Feed -> where the last sink stands.
        self._behind: dict[str, Position] = {}
        self._pruned_at = 0.0

    # -- what every sink has ------------------------------------------------------------------------------------

    def delivered(self, db: sqlite3.Connection, behind: Mapping[str, Position]) -> bool:
        """Every sink has what is before `behind`; delete what need not be kept, once a second if anything is.

        Returns whether more waits to be deleted.
        """
        self._behind.update(behind)
        if self.seconds and clock.monotonic() < self._pruned_at + 1.0:
            return False
        return self._prune(db, self.bytes)

    def prune(self, bytes: int | None = None) -> None:
        """Delete what need not be kept: by age, and down to `bytes` (as set) of the whole spool."""
        while self._database.commit(lambda db: self._prune(db, self.bytes if bytes is None else bytes)):
            pass

    def tidy(self) -> None:
        """Delete what need not be kept any more, and give the disk a part of what a backlog left free in the file."""
        self.prune()
        for _ in range(SHRINKS):
            if self._database.free_inside <= SPARE or not self._database.shrink():
                break

    def _prune(self, db: sqlite3.Connection, bytes: int) -> bool:
        self._pruned_at = clock.monotonic()
        oldest = int((clock.time() - self.seconds) * TICKS_PER_SECOND) if self.seconds else None
        total = self._bytes(db)
        victims: list[_Head] = []
        more = False
        for head in heapq.merge(*(self._heads(db, feed, end) for feed, end in self._behind.items())):
            young = oldest is not None and head.time + head.records >= oldest
            if young and total <= bytes:
                break
            if _enough(victims):
                more = True
                break
            victims.append(head)
            total -= head.size
        self._delete(db, victims)
        return more

    def _bytes(self, db: sqlite3.Connection) -> int:
        (found,) = db.execute(f"SELECT coalesce(sum(bytes), 0) FROM tally WHERE {self._mine}").fetchone()
        return int(found)

    def _heads(self, db: sqlite3.Connection, feed: str, end: Position) -> Iterator[_Head]:
        """The first blocks of `feed` before `end`; in order of position, which is that of time."""
        rows = db.execute(
            "SELECT time, feed, epoch, offset, count, length(payload) FROM block"
            " WHERE feed = ? AND (epoch, offset) < (?, ?) ORDER BY epoch, offset LIMIT ?",
            (feed, *end, BATCH + 1),
        ).fetchall()
        return (_Head(*row) for row in rows)

    def _delete(self, db: sqlite3.Connection, heads: Sequence[_Head]) -> None:
        keys = [(head.feed, *head.at) for head in heads]
        if self.before is not None:
            for key in keys:
                self.before(
                    db, self._database.blocks(db.execute(f"{SELECT_BLOCK} (epoch, offset) = (?, ?)", key))
                )
        db.executemany("DELETE FROM block WHERE (feed, epoch, offset) = (?, ?, ?)", keys)
        db.executemany("DELETE FROM permit WHERE (feed, epoch, offset) = (?, ?, ?)", keys)
        db.executemany(
            "INSERT OR REPLACE INTO pruned VALUES (?, ?, ?, ?)",
            [(h.feed, h.epoch, h.offset + h.records, h.time + h.records) for h in heads],
        )

    # -- going back ---------------------------------------------------------------------------------------------

    def rewind(self, sink: str, time: int) -> dict[str, Rewound]:
        """Move the cursors of `sink` back to the blocks that hold what was received at `time` (ticks) and later.

        Returns the feeds that go back. Raises :class:`NotRetained` if some of that is not kept any more.
        """
        return self._database.commit(lambda db: self._rewind(db, sink, time))

    def _rewind(self, db: sqlite3.Connection, sink: str, time: int) -> dict[str, Rewound]:
        (since,) = db.execute(f"SELECT coalesce(max(time), 0) FROM pruned WHERE {self._mine}").fetchone()
        if time < since:
            kept = datetime.fromtimestamp(since / TICKS_PER_SECOND).astimezone()
            raise NotRetained(
                f"the spool has all that was received since {kept.isoformat(timespec='milliseconds')}, of the time"
                " before not all; name a later time, and have it keep more with spool.retain"
            )
        cursors = db.execute(
            f"SELECT feed, epoch, offset FROM cursor WHERE sink = ? AND {self._mine}", (sink,)
        ).fetchall()
        rewound = {}
        for feed, *at in cursors:
            cursor = Position(*at)
            first = db.execute(
                "SELECT epoch, offset FROM block WHERE feed = ? AND (epoch, offset) < (?, ?) AND time + count > ?"
                " ORDER BY epoch, offset LIMIT 1",
                (feed, *cursor, time),
            ).fetchone()
            if first is None:
                continue
            position = Position(*first)
            (records,) = db.execute(
                "SELECT sum(count) FROM block WHERE feed = ? AND (epoch, offset) >= (?, ?)"
                " AND (epoch, offset) < (?, ?)",
                (feed, *position, *cursor),
            ).fetchone()
            accounts.move(db, sink, feed, position)
            db.execute(
                "UPDATE cursor SET epoch = ?, offset = ?, rewound = 1 WHERE sink = ? AND feed = ?",
                (*position, sink, feed),
            )
            self._behind[feed] = min(position, self._behind.get(feed, position))
            rewound[feed] = Rewound(position, records)
        return rewound

    # -- no room ------------------------------------------------------------------------------------------------

    def drop(self, size: int, lanes: Mapping[str, Mapping[str, Span]]) -> int:
        """Delete the oldest blocks that are not in flight, also undelivered ones: `size` payload bytes or more.

        `lanes` has, for each feed, those to every sink. What a sink has not got is counted as dropped, for good.
        Returns the bytes.
        """
        freed = 0
        while freed < size:
            part = self._database.commit(partial(self._drop, size=size - freed, lanes=lanes))
            if not part:
                break
            freed += part
        return freed

    def _drop(self, db: sqlite3.Connection, size: int, lanes: Mapping[str, Mapping[str, Span]]) -> int:
        freed = 0
        victims: list[_Head] = []
        for head in heapq.merge(*(self._heads(db, feed, Position(1 << 62)) for feed in lanes)):
            if freed >= size or _enough(victims):
                break
            spans = lanes[head.feed]
            if any(cursor <= head.at < read for cursor, read in spans.values()):
                continue
            victims.append(head)
            freed += head.size
            for sink, (_, read) in spans.items():
                if head.at >= read:
                    accounts.drop(db, sink, head.feed, head.at, head.records, head.size)
        self._delete(db, victims)
        return freed


def _enough(heads: Sequence[_Head]) -> bool:
    return len(heads) == BATCH or sum(head.size for head in heads) >= BATCH_BYTES
