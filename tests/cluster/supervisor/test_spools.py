"""What is found of spools on a host."""

from __future__ import annotations

from pathlib import Path

from actors.block import Block
from actors.monitor.spool import Spool
from actors.monitor.standing import Standing
from cluster.supervisor.spools import search


def test_tables_that_share_a_spool_are_found_each_for_itself(tmp_path: Path) -> None:
    spools = {table: Spool(tmp_path / "p" / "shared~1", table) for table in ("a", "b", "idle")}
    for number, (table, spool) in enumerate(spools.items(), 1):
        spool.join(["s"])
        spool.open_accounts(["s"])
        spool.set_topics([f"topic of {table}"])
        if table != "idle":
            spool.append([Block(table, number, 0, 3, 1, "avro", "{}", b"abc")])
            spool.open_accounts(["s"])
    for spool in spools.values():
        spool.close()
    found = {each.table: each for each in search(str(tmp_path), "p")}
    assert {each.home for each in found.values()} == {"shared~1"}
    assert [(each.last_epoch, each.records, each.topics) for each in found.values()] == [
        (1, 3, ("topic of a",)),
        (2, 3, ("topic of b",)),
        (0, 0, ("topic of idle",)),
    ]


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
