"""Which tables share a process and its spool. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from actors.names import is_shared_home, shared_home
from cluster.config import PipelineConfig, Table


def assign_homes(config: PipelineConfig, known: Mapping[str, str]) -> dict[str, str]:
    """Table -> its home, the folder of its spool, for all tables of the file.

    One home is one process. A table stays where it is `known` to be, whatever else changes in the file: its spool is
    there. Others go, in the order of the file, to the first shared home with room, or to one of their own where
    `monitors_per_actor` is 1. A table with a standby has homes of its own, as its whole spool is copied.
    """
    homes = {table.name: _own(table, known) for table in config.tables}
    count = Counter(home for home in homes.values() if home is not None and is_shared_home(home))
    number = 1
    for table, home in homes.items():
        if home is not None:
            continue
        if config.monitors_per_actor == 1:
            homes[table] = table
            continue
        while count[shared_home(number)] >= config.monitors_per_actor:
            number += 1
        homes[table] = shared_home(number)
        count[shared_home(number)] += 1
    return {table: home for table, home in homes.items() if home is not None}


def _own(table: Table, known: Mapping[str, str]) -> str | None:
    return table.name if table.standby else known.get(table.name)
