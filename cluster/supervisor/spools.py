"""Spools found on a host: what each holds that is not delivered. Reads beside the monitor that has one open.

Tables and columns are those of :mod:`actors.monitor.layout`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from actors.monitor.place import on_this_host
from actors.monitor.standing import Standing
from actors.names import STANDBY_SUFFIX, feeds_of, is_shared_home

#: Seconds to wait for a spool that somebody writes to.
BUSY_TIMEOUT = 5.0


class Place(NamedTuple):
    """Where a table has, or had, its spool: in the folder `home` of `host`, which small tables may share."""

    host: str
    home: str
    table: str


@dataclass(frozen=True, slots=True)
class FoundSpool:
    """The spool of a table on some host.

    Attributes:
        home: the folder it is in; by default that of the table's name.
        last_epoch: the greatest epoch of its feeds; 0 for none.
        pending: records per sink that it does not have yet.
        dead_letters: how many are not delivered.
        topics: of the source, which its monitor may have left there.
        heard: when its monitor surely still received, in seconds since 1970; 0 if nobody noted it.
        problem: why some of it must not be delivered, or why it cannot be read.
    """

    table: str
    last_epoch: int = 0
    pending: Mapping[str, int] = field(default_factory=dict)
    dead_letters: int = 0
    topics: tuple[str, ...] = ()
    heard: float = 0.0
    problem: str | None = None
    home: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "home", self.home or self.table)

    @property
    def records(self) -> int:
        """Records that some sink does not have, and dead letters."""
        return max(self.pending.values(), default=0) + self.dead_letters


def search(path: str, pipeline: str) -> list[FoundSpool]:
    """The spools of `pipeline` below `path` on this host. Raises :class:`~actors.errors.SpoolError`."""
    folder = on_this_host(path) / pipeline
    found = sorted(path.parent for path in folder.glob("*/spool.db"))
    # What a copy holds its monitor delivers.
    owned = [directory for directory in found if Standing.read(directory).owner]
    return [spool for directory in owned for spool in _read(directory)]


def _read(directory: Path) -> list[FoundSpool]:
    home = directory.name
    own = home.removesuffix(STANDBY_SUFFIX)
    try:
        uri = f"{(directory / 'spool.db').as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT)) as db:
            if not is_shared_home(home):
                return [_spool(db, home, own, "1", "1")]
            tables = [table for (table,) in db.execute("SELECT DISTINCT holder FROM sink ORDER BY holder")]
            return [
                _spool(
                    db, home, table, f"feed IN ({_quoted(*feeds_of(table))})", f"holder = {_quoted(table)}"
                )
                for table in tables
            ]
    except sqlite3.Error as error:
        return [FoundSpool(own, problem=f"{directory}: {error}", home=home)]


def _spool(db: sqlite3.Connection, home: str, table: str, feeds: str, holder: str) -> FoundSpool:
    """What a database holds of `table`; `feeds` and `holder` are the conditions of what is the table's."""
    (epoch,) = db.execute(f"SELECT coalesce(max(epoch), 0) FROM feed WHERE {feeds}").fetchone()
    (letters,) = db.execute(f"SELECT count(*) FROM dead_letter WHERE state <> 'done' AND {feeds}").fetchone()
    topics = tuple(id for (id,) in db.execute(f"SELECT id FROM topic WHERE {holder}"))
    frozen = db.execute(f"SELECT why FROM frozen WHERE {feeds}").fetchone()
    pending = dict(
        db.execute(f"SELECT sink, sum(waiting) FROM account WHERE in_use AND {feeds} GROUP BY sink")
    )
    problem = str(frozen[0]) if frozen and any(pending.values()) else None
    return FoundSpool(table, epoch, pending, letters, topics, problem=problem, home=home)


def _quoted(*texts: str) -> str:
    return ", ".join("'" + text.replace("'", "''") + "'" for text in texts)
