"""What may not have been received of a table, and the account of what was: durable, in the spool's database.

A *gap* opens whenever something may have been missed, ends when rows are received again, and is then ``healing`` until
a catch-up has fetched what is missing (``healed``) or it is known that some cannot be had (``unhealed``). The account
says how many rows the table should have: those that it had when it was first followed, plus those received, less those
deleted. What is counted and what was counted are committed in one transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any, Literal

import msgpack

State = Literal["open", "healing", "healed", "unhealed"]

TABLES = """
CREATE TABLE gap (
    holder TEXT NOT NULL, number INTEGER NOT NULL, cause TEXT NOT NULL, began REAL NOT NULL, ended REAL,
    state TEXT NOT NULL, recovered INTEGER NOT NULL DEFAULT 0, missing INTEGER, note TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (holder, number)) WITHOUT ROWID;
-- baseline: null until it is known. heard: when the source was last known to lose nothing.
CREATE TABLE source_account (
    holder TEXT PRIMARY KEY, baseline INTEGER, inserted INTEGER NOT NULL DEFAULT 0,
    updated INTEGER NOT NULL DEFAULT 0, deleted INTEGER NOT NULL DEFAULT 0,
    deletes_known INTEGER NOT NULL DEFAULT 0, size INTEGER, shortfall INTEGER, audited REAL,
    heard REAL NOT NULL DEFAULT 0) WITHOUT ROWID;
-- msgpack values: what a catch-up, or a source that is read, has to go on with after a restart.
CREATE TABLE catchup (
    holder TEXT NOT NULL, name TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY (holder, name)) WITHOUT ROWID;
"""

#: Gaps that status shows.
SHOWN = 5

_GAP = "number, cause, began, ended, state, recovered, missing, note"


@dataclass(frozen=True, slots=True)
class Gap:
    """A stretch of the source that may not have been received.

    Attributes:
        number: from 1 on, per table.
        cause: in a few words.
        began: the last moment at which all was surely received, in seconds since 1970.
        ended: receiving again; None while it is not.
        state: ``open`` (not receiving), ``healing``, ``healed`` or ``unhealed``.
        recovered: rows fetched from the table.
        missing: rows that are known to be missing for good; None: not known.
        note: what is to be said of it.
    """

    number: int
    cause: str
    began: float
    ended: float | None
    state: State
    recovered: int
    missing: int | None
    note: str


@dataclass(frozen=True, slots=True)
class SourceAccount:
    """How many rows the table should have, and had at the last audit.

    Attributes:
        baseline: rows when it was first followed, which are not delivered; None: not counted yet.
        inserted: rows received, those of catch-ups among them.
        updated, deleted: sums of the counts received; rows of a table that was dropped count as deleted.
        deletes_known: whether deletes are counted; if not, neither :attr:`expected` nor a shortfall is known.
        size: rows that the table had at the last audit, which was at `audited`, in seconds since 1970.
        shortfall: rows that it had and we did not, at the last audit; never below what is proven, and 0 if we had more.
    """

    baseline: int | None = None
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    deletes_known: bool = False
    size: int | None = None
    shortfall: int | None = None
    audited: float | None = None

    @property
    def expected(self) -> int | None:
        """Rows that the table should have; None if that cannot be told."""
        if self.baseline is None or not self.deletes_known:
            return None
        return self.baseline + self.inserted - self.deleted


class GapLog:
    """The gaps and the account of `table`; `transaction` gives the spool's database. For use from any thread.

    Methods that take a database are for the transaction at hand.
    """

    def __init__(
        self, transaction: Callable[[], AbstractContextManager[sqlite3.Connection]], table: str
    ) -> None:
        self.transaction = transaction
        self._table = table
        with transaction() as db:
            db.execute("INSERT OR IGNORE INTO source_account (holder) VALUES (?)", (table,))

    # -- gaps ---------------------------------------------------------------------------------------------------

    def open(self, cause: str, began: float, ended: float | None = None) -> int:
        """Note a gap; with `ended`, one that is over already. Returns its number."""
        with self.transaction() as db:
            return self._add(db, cause, began, ended, "open" if ended is None else "healing")

    def lose(self, db: sqlite3.Connection, cause: str, ended: float) -> None:
        """Note a gap since the last :meth:`hear` that nobody can heal."""
        self._add(db, cause, self._heard(db) or ended, ended, "unhealed")

    def _add(
        self, db: sqlite3.Connection, cause: str, began: float, ended: float | None, state: State
    ) -> int:
        query = "SELECT coalesce(max(number), 0) + 1 FROM gap WHERE holder = ?"
        ((number,),) = db.execute(query, (self._table,)).fetchall()
        db.execute(
            "INSERT INTO gap (holder, number, cause, began, ended, state) VALUES (?, ?, ?, ?, ?, ?)",
            (self._table, number, cause, began, ended, state),
        )
        return int(number)

    def end(self, number: int, ended: float) -> None:
        """Rows are received again since `ended`; what was missed is not fetched yet."""
        with self.transaction() as db:
            db.execute(
                "UPDATE gap SET ended = ?, state = 'healing' WHERE (holder, number) = (?, ?)",
                (ended, self._table, number),
            )

    def recover(self, db: sqlite3.Connection, number: int, rows: int) -> None:
        """Rows were fetched for a gap."""
        db.execute(
            "UPDATE gap SET recovered = recovered + ? WHERE (holder, number) = (?, ?)",
            (rows, self._table, number),
        )

    def close(
        self, number: int, state: Literal["healed", "unhealed"], missing: int | None, note: str = ""
    ) -> None:
        """Nothing more is to be done for a gap."""
        with self.transaction() as db:
            db.execute(
                "UPDATE gap SET state = ?, missing = ?, note = ? WHERE (holder, number) = (?, ?)",
                (state, missing, note, self._table, number),
            )

    def latest(self, limit: int) -> list[Gap]:
        """The latest `limit` gaps, the newest first."""
        return self._gaps("ORDER BY number DESC LIMIT ?", limit)

    def unsettled(self) -> list[Gap]:
        """The gaps that are open or healing, the oldest first."""
        return self._gaps("AND state IN ('open', 'healing') ORDER BY number LIMIT ?", -1)

    def get(self, number: int) -> Gap:
        """The gap of a number. Raises ``KeyError``."""
        found = self._gaps("AND number = ?", number)
        if not found:
            raise KeyError(f"table {self._table} has no gap {number}")
        return found[0]

    def _gaps(self, condition: str, value: int) -> list[Gap]:
        with self.transaction() as db:
            rows = db.execute(
                f"SELECT {_GAP} FROM gap WHERE holder = ? {condition}", (self._table, value)
            ).fetchall()
        return [Gap(*row) for row in rows]

    def missing(self) -> int:
        """Rows that are known to be missing for good."""
        with self.transaction() as db:
            query = "SELECT coalesce(sum(missing), 0) FROM gap WHERE holder = ?"
            ((found,),) = db.execute(query, (self._table,)).fetchall()
        return int(found)

    def counts(self) -> dict[str, int]:
        """State -> how many gaps are in it; states that none is in are left out."""
        with self.transaction() as db:
            return dict(
                db.execute(
                    "SELECT state, count(*) FROM gap WHERE holder = ? GROUP BY state", (self._table,)
                ).fetchall()
            )

    def report(self) -> dict[str, Any]:
        """What status shows: the latest gaps, and the account."""
        account = self.account()
        return {
            "gaps": {"counts": self.counts(), "latest": [asdict(gap) for gap in self.latest(SHOWN)]},
            "account": {**asdict(account), "expected": account.expected},
        }

    # -- the account --------------------------------------------------------------------------------------------

    def account(self) -> SourceAccount:
        """The account as of now."""
        with self.transaction() as db:
            row = db.execute(
                "SELECT baseline, inserted, updated, deleted, deletes_known, size, shortfall, audited"
                " FROM source_account WHERE holder = ?",
                (self._table,),
            ).fetchone()
        baseline, inserted, updated, deleted, known, size, shortfall, audited = row
        return SourceAccount(baseline, inserted, updated, deleted, bool(known), size, shortfall, audited)

    def received(self, db: sqlite3.Connection, inserted: int = 0, updated: int = 0, deleted: int = 0) -> None:
        """Count rows, and the counts of update and delete events."""
        db.execute(
            "UPDATE source_account SET inserted = inserted + ?, updated = updated + ?, deleted = deleted + ?"
            " WHERE holder = ?",
            (inserted, updated, deleted, self._table),
        )

    def set_baseline(self, rows: int, deletes_known: bool) -> None:
        """The table had so many rows when it was first followed."""
        with self.transaction() as db:
            db.execute(
                "UPDATE source_account SET baseline = ?, deletes_known = ? WHERE holder = ?",
                (rows, deletes_known, self._table),
            )

    def dropped(self) -> None:
        """The table was dropped, and its rows with it."""
        missing = self.missing()  # gone too: they must not make up for what the next table misses
        with self.transaction() as db:
            db.execute(
                "UPDATE source_account SET deleted = coalesce(baseline, 0) + inserted + ? WHERE holder = ?",
                (missing, self._table),
            )

    def audited(self, at: float, size: int, shortfall: int | None) -> None:
        """Note an audit."""
        with self.transaction() as db:
            db.execute(
                "UPDATE source_account SET audited = ?, size = ?, shortfall = ? WHERE holder = ?",
                (at, size, shortfall, self._table),
            )

    def hear(self, db: sqlite3.Connection, at: float) -> None:
        """Everything published before `at` was received."""
        db.execute("UPDATE source_account SET heard = ? WHERE holder = ?", (at, self._table))

    def heard(self) -> float:
        """The last time of :meth:`hear`; 0 if the table was never followed."""
        with self.transaction() as db:
            return self._heard(db)

    def _heard(self, db: sqlite3.Connection) -> float:
        query = "SELECT heard FROM source_account WHERE holder = ?"
        ((at,),) = db.execute(query, (self._table,)).fetchall()
        return float(at)

    # -- catching up --------------------------------------------------------------------------------------------

    def keep(self, db: sqlite3.Connection, name: str, value: Any) -> None:
        """Keep a value of a catch-up or a source: None, a bool, a number, a text, bytes, or a list or dict of those."""
        db.execute(
            "INSERT OR REPLACE INTO catchup VALUES (?, ?, ?)", (self._table, name, msgpack.packb(value))
        )

    def put(self, name: str, value: Any) -> None:
        """As :meth:`keep`, in a transaction of its own."""
        with self.transaction() as db:
            self.keep(db, name, value)

    def kept(self, name: str) -> Any:
        """The value kept under a name; None if there is none."""
        with self.transaction() as db:
            return self.kept_in(db, name)

    def kept_in(self, db: sqlite3.Connection, name: str) -> Any:
        """As :meth:`kept`, in the transaction at hand."""
        query = "SELECT value FROM catchup WHERE (holder, name) = (?, ?)"
        row = db.execute(query, (self._table, name)).fetchone()
        return None if row is None else msgpack.unpackb(row[0])
