"""The tables of a spool's database, and how it is known to be whole. ``docs/spool.md`` explains them."""

from __future__ import annotations

import sqlite3
import zlib
from contextlib import closing
from typing import NamedTuple

from actors.block import Block
from actors.monitor import accounts, gaplog, letters

#: Of what follows, in the database's ``user_version``: to be raised with each change of it.
FORMAT = 1

TABLES = (
    """
CREATE TABLE schema (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE);
-- crc: of all of the block, see block_crc.
CREATE TABLE block (
    feed TEXT NOT NULL, epoch INTEGER NOT NULL, offset INTEGER NOT NULL, count INTEGER NOT NULL,
    time INTEGER NOT NULL, format TEXT NOT NULL, schema INTEGER NOT NULL REFERENCES schema, crc INTEGER NOT NULL,
    payload BLOB NOT NULL, UNIQUE (feed, epoch, offset));
-- What there is of each feed: a database of which a part is older than the rest shows itself by this.
CREATE TABLE tally (
    feed TEXT PRIMARY KEY, blocks INTEGER NOT NULL, bytes INTEGER NOT NULL, crc INTEGER NOT NULL) WITHOUT ROWID;
CREATE TRIGGER block_added AFTER INSERT ON block BEGIN
    INSERT INTO tally VALUES (NEW.feed, 1, length(NEW.payload), NEW.crc) ON CONFLICT DO UPDATE SET
        blocks = blocks + 1, bytes = bytes + excluded.bytes, crc = crc + excluded.crc;
END;
CREATE TRIGGER block_gone AFTER DELETE ON block BEGIN
    UPDATE tally SET blocks = blocks - 1, bytes = bytes - length(OLD.payload), crc = crc - OLD.crc
        WHERE feed = OLD.feed;
END;
-- Where each feed stands, also when all its blocks are gone.
CREATE TABLE feed (
    feed TEXT PRIMARY KEY, epoch INTEGER NOT NULL, next_offset INTEGER NOT NULL, next_time INTEGER NOT NULL
) WITHOUT ROWID;
-- The sinks that have been here before; others are new.
CREATE TABLE sink (holder TEXT NOT NULL, sink TEXT NOT NULL, PRIMARY KEY (holder, sink)) WITHOUT ROWID;
-- Everything before (epoch, offset) is durable at the sink. rewound: but shall be delivered again from here on.
CREATE TABLE cursor (
    sink TEXT NOT NULL, feed TEXT NOT NULL, epoch INTEGER NOT NULL, offset INTEGER NOT NULL,
    rewound INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (sink, feed)) WITHOUT ROWID;
-- What is before (epoch, offset), received before time, is not kept any more.
CREATE TABLE pruned (
    feed TEXT PRIMARY KEY, epoch INTEGER NOT NULL, offset INTEGER NOT NULL, time INTEGER NOT NULL) WITHOUT ROWID;
-- Blocks whose records may become dead letters although the table aborts on them.
CREATE TABLE permit (
    feed TEXT NOT NULL, epoch INTEGER NOT NULL, offset INTEGER NOT NULL,
    PRIMARY KEY (feed, epoch, offset)) WITHOUT ROWID;
-- What is at or behind (epoch, offset) must not be dispatched yet: nothing proves yet of which type it is.
CREATE TABLE held (
    feed TEXT PRIMARY KEY, epoch INTEGER NOT NULL, offset INTEGER NOT NULL) WITHOUT ROWID;
-- What is at or behind (epoch, offset) must not be dispatched until a person says so, and why.
CREATE TABLE frozen (
    feed TEXT PRIMARY KEY, epoch INTEGER NOT NULL, offset INTEGER NOT NULL, why TEXT NOT NULL) WITHOUT ROWID;
-- The schema under which a feed's latest records came, and the columns kept if others are to be discarded (JSON).
CREATE TABLE seen (feed TEXT PRIMARY KEY, schema TEXT NOT NULL, keep TEXT) WITHOUT ROWID;
-- Topics created at the source, so that those of a killed process can be cleared.
CREATE TABLE topic (holder TEXT NOT NULL, id TEXT NOT NULL, PRIMARY KEY (holder, id)) WITHOUT ROWID;
-- Databases that were here before this one: when each was found damaged, why, and its name now.
CREATE TABLE damage (time REAL NOT NULL, why TEXT NOT NULL, file TEXT NOT NULL);
"""
    + letters.TABLES
    + accounts.TABLES
    + gaplog.TABLES
)

#: Tables that are small whatever the traffic, so that looking through them at each start costs nothing.
_SMALL = (
    *("schema", "tally", "feed", "sink", "cursor", "pruned", "account", "permit", "held", "frozen", "seen"),
    *("topic", "damage", "gap", "source_account", "catchup"),
)


INSERT_BLOCK = "INSERT INTO block VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"

_MADE = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name"

#: Its rows make a block, and the crc; to be continued with a condition.
SELECT_BLOCK = (
    "SELECT b.feed, epoch, offset, count, time, format, text, payload, crc FROM block b"
    " JOIN schema s ON s.id = b.schema WHERE b.feed = ? AND"
)


class Position(NamedTuple):
    """A place in a feed: everything before `offset` of `epoch`, and all earlier epochs, is behind it."""

    epoch: int = 0
    offset: int = 0


def block_crc(block: Block) -> int:
    """CRC-32 of a block: of the payload, begun with that of the rest."""
    values = (block.feed, block.epoch, block.offset, block.count, block.time, block.format, block.schema)
    return zlib.crc32(block.payload, zlib.crc32("\0".join(map(str, values)).encode()))


def find_damage(db: sqlite3.Connection) -> str | None:
    """What is wrong with the database, as far as can be told without reading the payloads; None: nothing.

    Takes about a second per million blocks. Raises what SQLite says of a database that it cannot read.
    """
    made = set(db.execute(_MADE))
    with closing(sqlite3.connect(":memory:")) as fresh:
        fresh.executescript(TABLES)
        if not set(fresh.execute(_MADE)) <= made:  # neighbours such as the gap log have tables of their own
            return "its tables are not those that were made"
    for table in _SMALL:
        (found,) = db.execute(f"PRAGMA quick_check({table})").fetchone()
        if found != "ok":
            return f"table {table}: {found}"
    # The same of each row, once as the table has it and once as its index has it.
    halves = "sum(({0} >> 32) + ({0} & 0xFFFFFFFF))"
    places = f"count(*), sum(rowid), {halves.format('epoch')}, {halves.format('offset')}"
    stored = db.execute(
        f"SELECT feed, {places}, sum(length(payload)), sum(crc) FROM block NOT INDEXED GROUP BY feed"
    ).fetchall()
    indexed = db.execute(
        f"SELECT feed, {places} FROM block INDEXED BY sqlite_autoindex_block_1 GROUP BY feed"
    ).fetchall()
    tallied = db.execute("SELECT * FROM tally WHERE blocks > 0 ORDER BY feed").fetchall()
    if [row[:5] for row in stored] != indexed or [(*row[:2], *row[5:]) for row in stored] != tallied:
        return "its blocks are not those that were stored"
    return None
