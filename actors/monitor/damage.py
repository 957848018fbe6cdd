"""Setting a damaged database aside: marked when it is found, moved at the next opening, never deleted.

The marker is a file of its own, written whole, because damage may be found long after the opening, and a crash while
the parts are being moved must not lead to a new database that finds an old log.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import NamedTuple

MARKER = "damaged"


class Damage(NamedTuple):
    """A damaged database that was set aside: when (seconds since 1970), what was wrong, and its name now."""

    time: float
    why: str
    file: str


def mark(directory: Path, name: str, why: str) -> None:
    """Note that the database `name` in `directory` is damaged, if that is not known yet."""
    marker, now = directory / MARKER, time.time()
    if marker.exists():
        return
    file = f"{name}.damaged-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(now))}"
    new = directory / f"{MARKER}.new"
    with open(new, "w") as out:
        out.write(json.dumps(Damage(now, why, file)))
        out.flush()
        os.fsync(out.fileno())
    new.replace(marker)
    _sync(directory)


def marked(directory: Path) -> Damage | None:
    """What is noted, if anything is."""
    marker = directory / MARKER
    return Damage(*json.loads(marker.read_text())) if marker.exists() else None


def set_aside(directory: Path, name: str, damage: Damage) -> None:
    """Move the closed database and what belongs to it. The note stays, until :func:`unmark`."""
    for suffix in ("-wal", "-shm", ""):  # the log first: a new database must never find it
        found = directory / (name + suffix)
        if found.exists():
            found.rename(directory / (damage.file + suffix))
    _sync(directory)


def unmark(directory: Path) -> None:
    """The new database tells of it now."""
    (directory / MARKER).unlink()


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
