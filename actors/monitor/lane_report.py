"""What ``status`` shows of a monitor's lanes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from actors.block import TICKS_PER_SECOND
from actors.monitor.lane import Abort, Lane
from actors.monitor.replays import Replays, is_replay
from actors.monitor.spool import Spool


@dataclass(slots=True)
class LaneReport:
    """What ``status`` shows of a lane; `account` is :meth:`~actors.monitor.accounts.Account.shown`.

    `lag_seconds` is the age of the oldest record that the sink is not known to have, 0 for none. A `paused` lane sends
    nothing more; its state tells how it stands otherwise.
    """

    feed: str
    sink: str
    state: str
    problem: str | None
    pending_records: int
    pending_bytes: int
    in_flight: int
    lag_seconds: float = 0.0
    aborted: Abort | None = None
    account: dict[str, Any] | None = None
    paused: bool = False


def report(lanes: Mapping[tuple[str, str], Lane], spool: Spool, replays: Replays) -> list[LaneReport]:
    """The state of every lane, (sink, order) -> lane, as of now; counts are as of the cursors on disk."""
    by_lane = {(account.sink, account.feed): account for account in spool.accounts()}
    reports = []
    for (sink, feed), lane in sorted(lanes.items()):
        state, problem, aborted = lane.state.value, lane.problem, lane.aborted
        if aborted is not None and problem is None:
            state, problem = "aborted", f"record {aborted.offset} did not decode: {aborted.reason}"
        report = LaneReport(feed, sink, state, problem, 0, 0, lane.in_flight)
        report.aborted, report.paused = aborted, lane.paused
        if is_replay(feed):
            letters = replays.pending(feed, lane.cursor)
            if letters is None:
                continue
            report.pending_records, report.pending_bytes = letters
        elif (account := by_lane.get((sink, feed))) is not None:
            report.pending_records, report.pending_bytes = account.waiting, account.bytes
            report.account = account.shown()
            if account.waiting and (oldest := spool.oldest(feed, lane.cursor)) is not None:
                report.lag_seconds = round(max(0.0, time.time() - oldest / TICKS_PER_SECOND), 3)
        reports.append(report)
    return reports
