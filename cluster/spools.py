"""Spools found on a host: what each holds that is not delivered. Reads beside the monitor that has one open.

Tables and columns are those of :mod:`actors.monitor.layout`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from actors.monitor.place import on_this_host
from actors.monitor.standing import Standing

#: Seconds to wait for a spool that somebody writes to.
BUSY_TIMEOUT = 5.0


@dataclass(frozen=True, slots=True)
class FoundSpool:
    """The spool of a table on some host.

    Attributes:
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

    @property
    def records(self) -> int:
        """Records that some sink does not have, and dead letters."""
        return max(self.pending.values(), default=0) + self.dead_letters


def search(path: str, pipeline: str) -> list[FoundSpool]:
    """The spools of `pipeline` below `path` on this host. Raises :class:`~actors.errors.SpoolError`."""
    folder = on_this_host(path) / pipeline
    found = sorted(path.parent for path in folder.glob("*/spool.db"))
    # What a copy holds its monitor delivers.
    return [_read(directory) for directory in found if Standing.read(directory).owner]


def _read(directory: Any) -> FoundSpool:
    table = directory.name
    try:
        database = sqlite3.connect(
            f"{(directory / 'spool.db').as_uri()}?mode=ro", uri=True, timeout=BUSY_TIMEOUT
        )
        with closing(database) as db:
            (epoch,) = db.execute("SELECT coalesce(max(epoch), 0) FROM feed").fetchone()
            (letters,) = db.execute("SELECT count(*) FROM dead_letter WHERE state <> 'done'").fetchone()
            topics = tuple(id for (id,) in db.execute("SELECT id FROM topic"))
            frozen = db.execute("SELECT why FROM frozen").fetchone()
            pending = dict(db.execute("SELECT sink, sum(waiting) FROM account WHERE in_use GROUP BY sink"))
        problem = str(frozen[0]) if frozen and any(pending.values()) else None
        return FoundSpool(table, epoch, pending, letters, topics, problem=problem)
    except sqlite3.Error as error:
        return FoundSpool(table, problem=f"{directory}: {error}")
