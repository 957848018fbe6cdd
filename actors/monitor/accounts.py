"""What became of every record: counts per feed and sink, kept in the spool's database.

Each count changes in the transaction that makes it true: *received* with the block, *delivered* with the cursor. So
whatever dies, and whenever, for each sink

    received = delivered + filtered + dead letters + dropped + pending

and asking for the counts costs nothing however long the backlog is. What a sink is sent again (a rewind) was counted
before, and is not counted again.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from actors.batch import Rejected
from actors.block import BlockId

if TYPE_CHECKING:
    from actors.monitor.layout import Position

TABLES = """
-- What became of the records of a feed at a sink. waiting, bytes: records and payload bytes at or behind the cursor;
-- again: those of them before (epoch, offset), up to where records were counted; in_use: whether the sink is used.
CREATE TABLE account (
    sink TEXT NOT NULL, feed TEXT NOT NULL, received INTEGER NOT NULL DEFAULT 0, delivered INTEGER NOT NULL DEFAULT 0,
    filtered INTEGER NOT NULL DEFAULT 0, dead_letters INTEGER NOT NULL DEFAULT 0, dropped INTEGER NOT NULL DEFAULT 0,
    waiting INTEGER NOT NULL DEFAULT 0, bytes INTEGER NOT NULL DEFAULT 0, again INTEGER NOT NULL DEFAULT 0,
    epoch INTEGER NOT NULL DEFAULT 0, offset INTEGER NOT NULL DEFAULT 0, in_use INTEGER NOT NULL DEFAULT 1,
    PRIMARY KEY (feed, sink)) WITHOUT ROWID;
-- The records that a sink does not have because they are dead letters.
CREATE TABLE refused (
    feed TEXT NOT NULL, epoch INTEGER NOT NULL, offset INTEGER NOT NULL, sink TEXT NOT NULL,
    PRIMARY KEY (feed, epoch, offset, sink)) WITHOUT ROWID;
"""

#: The accounts of the sinks in use; to be continued with a condition.
SELECT = (
    "SELECT sink, feed, received, delivered, filtered, dead_letters, dropped, waiting, bytes, again FROM account"
    " WHERE in_use"
)


class Outcome(NamedTuple):
    """What became of a block at `sink`: the rejects and how many records were filtered; the rest is delivered.

    `time` is when the block was received, in ticks.
    """

    sink: str
    block: BlockId
    time: int
    rejects: tuple[Rejected, ...] = ()
    filtered: int = 0


@dataclass(frozen=True, slots=True)
class Account:
    """What became of the records of `feed` at `sink`, since the spool was made or the sink was first used.

    Attributes:
        received: records that the sink is to get.
        delivered: durable at the sink, those replayed from the dead letters included.
        filtered: left out as the pipeline's file says.
        dead_letters: not decodable or not acceptable, and kept.
        dropped: deleted undelivered, as the spool's policy or the removal of the sink said.
        waiting, bytes: records and payload bytes that are still to be sent.
        again: those of `waiting` that were counted before and are sent again.
    """

    sink: str
    feed: str
    received: int
    delivered: int
    filtered: int
    dead_letters: int
    dropped: int
    waiting: int
    bytes: int
    again: int

    def shown(self) -> dict[str, Any]:
        """The equation as a JSON-able dict."""
        return {**asdict(self), "pending": self.pending, "unexplained": self.unexplained}

    @property
    def pending(self) -> int:
        """Records that the sink has never had."""
        return self.waiting - self.again

    @property
    def unexplained(self) -> int:
        """Records of which nothing tells what became of them; 0 unless something is wrong."""
        known = self.delivered + self.filtered + self.dead_letters + self.dropped + self.pending
        return self.received - known


def audit(db: sqlite3.Connection, mine: str) -> list[Account]:
    """The accounts, with what is pending and what is a dead letter counted afresh; `mine` is a condition on `feed`."""
    counted = []
    for account in [Account(*row) for row in db.execute(f"{SELECT} AND {mine}").fetchall()]:
        key = (account.feed, account.sink)
        (refused,) = db.execute("SELECT count(*) FROM refused WHERE (feed, sink) = (?, ?)", key).fetchone()
        waiting, size = _span(db, account.feed, _cursor(db, account.sink, account.feed))
        counted.append(replace(account, dead_letters=refused, waiting=waiting, bytes=size))
    return counted


def open_sinks(db: sqlite3.Connection, feeds: Iterable[str], sinks: Sequence[str]) -> None:
    """From here on, what is received of `feeds` is to go to `sinks` and to no others.

    A new sink is to get what the spool holds. For one that comes back, what was deleted meanwhile shows as dropped as
    far as nothing new came in its place.
    """
    feeds = list(feeds)
    for feed, sink in ((feed, sink) for feed in feeds for sink in sinks):
        db.execute("INSERT OR IGNORE INTO account (feed, sink, in_use) VALUES (?, ?, 0)", (feed, sink))
        query = "SELECT in_use, waiting - again, epoch, offset FROM account WHERE (feed, sink) = (?, ?)"
        in_use, before, *mark = db.execute(query, (feed, sink)).fetchone()
        if in_use:
            continue
        cursor = _cursor(db, sink, feed)
        waiting, size = _span(db, feed, cursor)
        pending, _ = _span(db, feed, max(cursor, (mark[0], mark[1])))
        db.execute(
            "UPDATE account SET in_use = 1, received = received + ?, dropped = dropped + ?, waiting = ?, bytes = ?,"
            " again = ? WHERE (feed, sink) = (?, ?)",
            (
                max(0, pending - before),
                max(0, before - pending),
                waiting,
                size,
                waiting - pending,
                feed,
                sink,
            ),
        )
    marks = ", ".join("?" * len(sinks))
    others = f"UPDATE account SET in_use = 0 WHERE feed = ? AND sink NOT IN ({marks})"
    db.executemany(others, [(feed, *sinks) for feed in feeds])


def received(db: sqlite3.Connection, sinks: Sequence[str], feed: str, records: int, size: int) -> None:
    """So many records of `feed`, of so many payload bytes, were appended."""
    add = "received = received + ?, waiting = waiting + ?, bytes = bytes + ?"
    grow = f"UPDATE account SET {add} WHERE feed = ? AND in_use"
    if db.execute(grow, (records, records, size, feed)).rowcount < len(sinks):
        begin = "INSERT OR IGNORE INTO account (feed, sink, received, waiting, bytes) VALUES (?, ?, ?, ?, ?)"
        db.executemany(begin, [(feed, sink, records, records, size) for sink in sinks])


def set_aside(db: sqlite3.Connection, feed: str, records: Iterable[tuple[int, int]], size: int) -> None:
    """`records`, each (epoch, offset), became dead letters before any sink was sent them; `size` bytes were freed."""
    sinks = [sink for (sink,) in db.execute("SELECT sink FROM account WHERE feed = ? AND in_use", (feed,))]
    rows = [(feed, epoch, offset, sink) for epoch, offset in records for sink in sinks]
    db.executemany("INSERT OR IGNORE INTO refused VALUES (?, ?, ?, ?)", rows)
    count = len(rows) // max(1, len(sinks))
    db.execute(
        "UPDATE account SET dead_letters = dead_letters + ?, waiting = waiting - ?, bytes = bytes - ?"
        " WHERE feed = ? AND in_use",
        (count, count, size, feed),
    )


def move(
    db: sqlite3.Connection, sink: str, feed: str, to: Position, outcomes: Iterable[Outcome] = ()
) -> None:
    """The cursor of `sink` is about to move to `to`, forward or back.

    Call it before the cursor is written and before blocks are deleted. `outcomes` are of this sink and feed; a block
    without one was delivered whole.
    """
    at, mark = _cursor(db, sink, feed), _mark(db, sink, feed)
    if mark is None:
        return  # of a feed that never had a record
    mark, sign = max(mark, at), 1 if to > at else -1
    start, end = min(at, to), max(at, to)
    records, size = _span(db, feed, start, end)
    again, _ = _span(db, feed, start, min(end, mark))
    refused = filtered = 0
    for outcome in outcomes:
        if mark <= outcome.block[1:] < to:
            epoch = outcome.block.epoch
            rows = [(feed, epoch, reject.offset, sink) for reject in outcome.rejects]
            refused += db.executemany("INSERT OR IGNORE INTO refused VALUES (?, ?, ?, ?)", rows).rowcount
            filtered += outcome.filtered
    db.execute(
        "UPDATE account SET delivered = delivered + ?, filtered = filtered + ?, dead_letters = dead_letters + ?,"
        " waiting = waiting - ?, bytes = bytes - ?, again = again - ?, epoch = ?, offset = ?"
        " WHERE (feed, sink) = (?, ?)",
        (
            *(records - again - refused - filtered, filtered, refused),
            *(sign * records, sign * size, sign * again, *max(mark, to), feed, sink),
        ),
    )


def drop(db: sqlite3.Connection, sink: str, feed: str, block: Position, records: int, size: int) -> None:
    """The block of `feed` at `block`, which is behind the cursor of `sink`, is deleted: the sink will not get it."""
    mark = _mark(db, sink, feed)
    if mark is None:
        return
    again = block < mark
    db.execute(
        "UPDATE account SET dropped = dropped + ?, again = again - ?, waiting = waiting - ?, bytes = bytes - ?"
        " WHERE (feed, sink) = (?, ?)",
        (0 if again else records, records if again else 0, records, size, feed, sink),
    )


def replayed(db: sqlite3.Connection, feed: str, letters: str, values: tuple[object, ...]) -> None:
    """The dead letters of `feed` that the query `letters` of (epoch, offset) finds were delivered to every sink."""
    rows = db.execute(
        f"DELETE FROM refused WHERE feed = ? AND (epoch, offset) IN ({letters}) RETURNING sink",
        (feed, *values),
    ).fetchall()
    for sink, count in Counter(sink for (sink,) in rows).items():
        db.execute(
            "UPDATE account SET dead_letters = dead_letters - ?, delivered = delivered + ?"
            " WHERE (feed, sink) = (?, ?)",
            (count, count, feed, sink),
        )


def _cursor(db: sqlite3.Connection, sink: str, feed: str) -> tuple[int, int]:
    query = "SELECT epoch, offset FROM cursor WHERE (sink, feed) = (?, ?)"
    found: tuple[int, int] | None = db.execute(query, (sink, feed)).fetchone()
    return found or (0, 0)


def _mark(db: sqlite3.Connection, sink: str, feed: str) -> tuple[int, int] | None:
    """Up to where the records of `feed` are counted."""
    query = "SELECT epoch, offset FROM account WHERE (feed, sink) = (?, ?) AND in_use"
    found: tuple[int, int] | None = db.execute(query, (feed, sink)).fetchone()
    return found


def _span(
    db: sqlite3.Connection, feed: str, start: tuple[int, int], end: tuple[int, int] = (1 << 62, 0)
) -> tuple[int, int]:
    """Records and payload bytes of the blocks of `feed` from `start` to before `end`."""
    row = db.execute(
        "SELECT coalesce(sum(count), 0), coalesce(sum(length(payload)), 0) FROM block"
        " WHERE feed = ? AND (epoch, offset) >= (?, ?) AND (epoch, offset) < (?, ?)",
        (feed, *start, *end),
    ).fetchone()
    return int(row[0]), int(row[1])
