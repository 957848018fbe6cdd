"""The account of a table's rows."""

from __future__ import annotations

from pathlib import Path

from actors.monitor.audit import shortfall
from actors.monitor.gaplog import GapLog
from actors.monitor.spool import Spool


def test_what_was_missing_of_a_table_hides_nothing_of_the_next(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    gaps = GapLog(spool.transaction, "t")
    gaps.set_baseline(10, deletes_known=True)
    gaps.close(gaps.open("lost", 1.0, 2.0), "unhealed", 3)
    gaps.dropped()
    account = gaps.account()
    assert shortfall(0, account, account, known_missing=gaps.missing()).low == 0
    assert shortfall(2, account, account, known_missing=gaps.missing()).low == 2
    spool.close()
