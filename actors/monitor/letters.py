"""Dead letters: records that could not be decoded, kept with the reason until they are delivered after all.

They live in the spool's database, so that a record moves here in the transaction that moves the cursor past it.
A *replay* is a numbered run of dead letters of one feed through decoders and writers. Each goes ``waiting`` ->
``replaying`` -> ``done``, or back to ``waiting`` with the new reason. The state is on disk before anything is
sent: a run that a crash interrupts is sent again, as far as it was not done.
"""

from __future__ import annotations

import sqlite3
import time as clock
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgpack

from actors.batch import Rejected
from actors.block import LISTED, Block, BlockId
from actors.monitor import accounts

if TYPE_CHECKING:
    from actors.monitor.spool import Position

TABLES = """
-- time: receipt of the record; failed: its latest failure; both in ticks. run: its latest replay, 0 for none.
CREATE TABLE IF NOT EXISTS dead_letter (
    feed TEXT NOT NULL, epoch INTEGER NOT NULL, offset INTEGER NOT NULL, time INTEGER NOT NULL,
    format TEXT NOT NULL, schema INTEGER NOT NULL REFERENCES schema, reason TEXT NOT NULL, frame BLOB NOT NULL,
    failed INTEGER NOT NULL, state TEXT NOT NULL DEFAULT 'waiting', run INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (feed, epoch, offset)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS dead_letter_open ON dead_letter (feed, state, run) WHERE state <> 'done';
"""

#: Most records and bytes of a block that is replayed.
BLOCK_RECORDS = 5000
BLOCK_BYTES = 1 << 20

_COLUMNS = "feed, epoch, offset, time, format, text, reason, frame, failed, state"
_OF_RUN = "feed = ? AND run = ? AND state = 'replaying' AND state <> 'done'"  # in words that the index knows


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that did not decode.

    Attributes:
        feed, epoch, offset: its origin.
        time: when it was received, in ticks of 100 ns since 1970.
        format, schema: as of its :class:`~actors.block.Block`.
        reason: why it did not decode, in one line.
        frame: the record as received; in a list, empty.
        failed: when it failed last, in ticks.
        state: ``waiting``, ``replaying`` or ``done``.
    """

    feed: str
    epoch: int
    offset: int
    time: int
    format: str
    schema: str
    reason: str
    frame: bytes
    failed: int
    state: str


def add(db: sqlite3.Connection, block: BlockId, time: int, reject: Rejected) -> None:
    """Keep a reject of `block`, which was received at `time`, unless it is kept already or the block is gone."""
    db.execute(
        "INSERT OR IGNORE INTO dead_letter (feed, epoch, offset, time, format, schema, reason, frame, failed)"
        " SELECT feed, epoch, ?, ?, format, schema, ?, ?, ? FROM block WHERE (feed, epoch, offset) = (?, ?, ?)",
        (reject.offset, time + reject.offset - block.offset, reject.reason, reject.frame, _now(), *block),
    )


def _now() -> int:
    return clock.time_ns() // 100


class DeadLetters:
    """The dead letters of a spool; `transaction` gives its database, `mine` is the condition of what is its own."""

    def __init__(
        self, transaction: Callable[[], AbstractContextManager[sqlite3.Connection]], mine: str = "1"
    ) -> None:
        self._transaction = transaction
        self._mine = mine

    def list(self, limit: int) -> tuple[dict[str, int], list[DeadLetter]]:
        """How many there are in each state, and the first `limit`, those to be delivered before those done."""
        with self._transaction() as db:
            totals = dict(
                db.execute(
                    f"SELECT state, count(*) FROM dead_letter WHERE {self._mine} GROUP BY state"
                ).fetchall()
            )
            rows = db.execute(
                f"SELECT {_COLUMNS.replace('frame', 'zeroblob(0)')} FROM dead_letter d"
                f" JOIN schema s ON s.id = d.schema WHERE {self._mine}"
                " ORDER BY state = 'done', feed, epoch, offset LIMIT ?",
                (limit,),
            ).fetchall()
        return totals, [DeadLetter(*row) for row in rows]

    def get(self, record: BlockId) -> DeadLetter | None:
        """The one of that feed, epoch and offset."""
        with self._transaction() as db:
            row = db.execute(
                f"SELECT {_COLUMNS} FROM dead_letter d JOIN schema s ON s.id = d.schema"
                " WHERE (feed, epoch, offset) = (?, ?, ?)",
                record,
            ).fetchone()
        return DeadLetter(*row) if row else None

    # -- replay -------------------------------------------------------------------------------------------------

    def begin(self, records: Iterable[BlockId] | None = None) -> dict[str, tuple[int, int]]:
        """Begin a replay of those of `records` that wait; None: of all that wait.

        Returns feed -> (run, how many), without feeds of which none waits.
        """
        with self._transaction() as db:
            (last,) = db.execute("SELECT coalesce(max(run), 0) FROM dead_letter").fetchone()
            begin = f"UPDATE dead_letter SET state = 'replaying', run = ? WHERE state = 'waiting' AND {self._mine}"
            if records is None:
                db.execute(begin, (last + 1,))
            else:
                which = " AND (feed, epoch, offset) = (?, ?, ?)"
                db.executemany(begin + which, [(last + 1, *record) for record in records])
            rows = db.execute(
                "SELECT feed, count(*) FROM dead_letter WHERE run = ? GROUP BY feed", (last + 1,)
            ).fetchall()
        return {feed: (last + 1, number) for feed, number in rows}

    def runs(self) -> dict[str, int]:
        """Feed -> the earliest run that is not over."""
        with self._transaction() as db:
            return dict(
                db.execute(
                    "SELECT feed, min(run) FROM dead_letter"
                    f" WHERE state = 'replaying' AND state <> 'done' AND {self._mine} GROUP BY feed"
                ).fetchall()
            )

    def next_block(self, feed: str, run: int, position: Position) -> Block | None:
        """The next letters of a run at or after `position`: a block that looks as if just received."""
        with self._transaction() as db:
            rows = db.execute(
                f"SELECT {_COLUMNS} FROM dead_letter d JOIN schema s ON s.id = d.schema"
                f" WHERE {_OF_RUN} AND (epoch, offset) >= (?, ?) ORDER BY epoch, offset LIMIT ?",
                (feed, run, *position, BLOCK_RECORDS),
            )
            together = list(_together(DeadLetter(*row) for row in rows))
        if not together:
            return None
        first = together[0]
        frames = [letter.frame for letter in together]
        # A block of another format stays whole: its first letter has the payload.
        payload = msgpack.packb(frames) if first.format in LISTED else first.frame
        return Block(
            feed, first.epoch, first.offset, len(frames), first.time, first.format, first.schema, payload
        )

    def pending(self, feed: str, run: int, position: Position) -> tuple[int, int]:
        """Records and bytes of a run at or after `position`."""
        with self._transaction() as db:
            row = db.execute(
                "SELECT count(*), coalesce(sum(length(frame)), 0) FROM dead_letter"
                f" WHERE {_OF_RUN} AND (epoch, offset) >= (?, ?)",
                (feed, run, *position),
            ).fetchone()
        return int(row[0]), int(row[1])

    def settle(self, feed: str, run: int, behind: Position, rejects: Iterable[tuple[int, Rejected]]) -> bool:
        """Note what became of a run: `rejects`, (epoch, reject), wait again; others before `behind` are done.

        One that some sink rejects again counts for every sink as it did before. Returns whether the run is over.
        """
        again = [(reject.reason, _now(), feed, run, epoch, reject.offset) for epoch, reject in rejects]
        with self._transaction() as db:
            db.executemany(
                "UPDATE dead_letter SET state = 'waiting', reason = ?, failed = ?"
                f" WHERE {_OF_RUN} AND (epoch, offset) = (?, ?)",
                again,
            )
            done = f"{_OF_RUN} AND (epoch, offset) < (?, ?)"
            which = f"SELECT epoch, offset FROM dead_letter WHERE {done}"
            accounts.replayed(db, feed, which, (feed, run, *behind))
            db.execute(f"UPDATE dead_letter SET state = 'done' WHERE {done}", (feed, run, *behind))
            left = db.execute(f"SELECT 1 FROM dead_letter WHERE {_OF_RUN} LIMIT 1", (feed, run)).fetchone()
        return left is None

    def outcome(self, feed: str, run: int) -> dict[str, int]:
        """State -> how many letters of a run are in it."""
        with self._transaction() as db:
            return dict(
                db.execute(
                    "SELECT state, count(*) FROM dead_letter WHERE feed = ? AND run = ? GROUP BY state",
                    (feed, run),
                ).fetchall()
            )


def _together(letters: Iterator[DeadLetter]) -> Iterator[DeadLetter]:
    """The leading letters that can be one block: consecutive in offset and time, of one schema."""
    first, size = next(letters, None), 0
    if first is None:
        return
    yield first
    for number, letter in enumerate(letters, 1):
        size += len(letter.frame)
        shift = (letter.epoch - first.epoch, letter.offset - first.offset, letter.time - first.time)
        alike = (letter.format, letter.schema) == (first.format, first.schema)
        part_of_whole = letter.format in LISTED or not letter.frame
        if shift != (0, number, number) or not alike or not part_of_whole or size > BLOCK_BYTES:
            return
        yield letter
