"""What is found of spools on a host."""

from __future__ import annotations

from pathlib import Path

from actors.monitor.spool import Spool
from actors.monitor.standing import Standing
from cluster.spools import search


def test_a_copy_is_not_taken_for_a_spool_that_nobody_has(tmp_path: Path) -> None:
    for name in ("t", "t~standby", "u"):
        spool = Spool(tmp_path / "p" / name, "t")
        spool.join(["a"])
        spool.close()
    Standing(owner=True, term=2).write(tmp_path / "p" / "t~standby")
    Standing(owner=False, term=2).write(tmp_path / "p" / "t")
    assert [(found.home, found.table) for found in search(str(tmp_path), "p")] == [
        ("t~standby", "t"),
        ("u", "u"),
    ]
