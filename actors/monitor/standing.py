"""What the directory of a spool is, for a table that has two: the monitor's own, or a copy at its standby."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import NamedTuple


class Standing(NamedTuple):
    """What a spool's directory is: that of a monitor (`owner`) or a copy, and of which incarnation. Kept on disk."""

    owner: bool = False
    term: int = 0

    @staticmethod
    def read(directory: Path) -> Standing:
        """Of one that was never used, the default; one without the file is that of a monitor that had no standby."""
        with contextlib.suppress(FileNotFoundError):
            return Standing(**json.loads((directory / "standing.json").read_text()))
        return Standing(owner=(directory / "spool.db").exists())

    def write(self, directory: Path) -> None:
        """Durable and whole or not at all."""
        path = directory / "standing.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        with open(new, "w") as file:
            json.dump(self._asdict(), file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)

    @staticmethod
    def forget(directory: Path) -> None:
        """The table has no standby."""
        (directory / "standing.json").unlink(missing_ok=True)
