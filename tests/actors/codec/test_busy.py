"""Seconds of work, with a clock that a test moves."""

from __future__ import annotations

import pytest

from actors.codec.busy import Busy


def test_finished_work_and_work_in_progress_count() -> None:
    now = [10.0]
    busy = Busy(lambda: now[0])
    assert busy.report() == {"clock": 10.0, "busy_seconds": 0.0}
    with busy.work():
        now[0] = 12.0
        assert busy.report() == {"clock": 12.0, "busy_seconds": 2.0}
        now[0] = 13.0
    now[0] = 20.0
    assert busy.report() == {"clock": 20.0, "busy_seconds": 3.0}


def test_failed_work_counts_too() -> None:
    now = [0.0]
    busy = Busy(lambda: now[0])

    def fail() -> None:
        with busy.work():
            now[0] = 1.0
            raise ValueError("bad")

    with pytest.raises(ValueError, match="bad"):
        fail()
    now[0] = 5.0
    assert busy.report()["busy_seconds"] == 1.0
