"""All that a monitor knows of one record: from its spool, which forgets nothing of what it keeps, and its journal."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass

from actors.block import Block, BlockId
from actors.monitor.accounts import Account
from actors.monitor.gaplog import Gap, GapLog
from actors.monitor.journal import Journal, Step
from actors.monitor.lane_report import LaneReport
from actors.monitor.layout import SELECT_BLOCK, Position
from actors.monitor.letters import DeadLetter
from actors.monitor.replays import is_replay
from actors.monitor.spool import FeedEnd, Spool

#: Latest gaps among which the one is looked for that a record's epoch ended.
GAPS = 1000

#: Seconds from the end of a gap within which the subscription that ended it was opened.
NEAR = 5.0


@dataclass(frozen=True, slots=True)
class AtSink:
    """How a record stands at one sink.

    Attributes:
        passed: whether the sink's cursor is behind it: it was delivered, filtered, made a dead letter or dropped.
        refused: whether it is a dead letter for this sink.
        again: whether the sink is to get it again, or was to when its cursor moved last.
        lane, account: of the record's feed; None before its first record.
    """

    sink: str
    passed: bool
    refused: bool
    again: bool
    lane: LaneReport | None
    account: Account | None


@dataclass(frozen=True, slots=True)
class Story:
    """What is known of `record`.

    Attributes:
        block: the block that has it, if the spool still does.
        end: where its feed stands.
        letter: the dead letter that it is or was.
        gap: the gap that ended when its epoch began.
        held: whether its type is not proven yet.
        frozen: why it waits for a person, if it does.
        steps: what happened to its block, as far as the journal remembers.
        since: the journal may have forgotten what was before this, in seconds since 1970.
        host, pid: of the monitor.
    """

    record: BlockId
    block: Block | None
    end: FeedEnd
    letter: DeadLetter | None
    gap: Gap | None
    held: bool
    frozen: str | None
    sinks: tuple[AtSink, ...]
    steps: tuple[Step, ...]
    since: float
    host: str
    pid: int


def tell(
    record: BlockId,
    spool: Spool,
    gaps: GapLog,
    journal: Journal,
    lanes: Iterable[LaneReport],
    sinks: Iterable[str],
) -> Story:
    """The story of `record`, on its way to `sinks`."""
    at = Position(record.epoch, record.offset)
    with spool.transaction() as db:
        row = db.execute(
            f"{SELECT_BLOCK} epoch = ? AND offset <= ? ORDER BY offset DESC LIMIT 1", record
        ).fetchone()
        refused = {
            sink
            for (sink,) in db.execute(
                "SELECT sink FROM refused WHERE (feed, epoch, offset) = (?, ?, ?)", record
            )
        }
    block = Block(*row[:-1]) if row else None
    if block is not None and record.offset >= block.end:
        block = None
    held, frozen = spool.held(record.feed), spool.frozen(record.feed)
    accounts = {account.sink: account for account in spool.accounts() if account.feed == record.feed}
    of_feed = {lane.sink: lane for lane in lanes if lane.feed == record.feed and not is_replay(lane.feed)}
    return Story(
        record,
        block,
        spool.end(record.feed),
        spool.letters.get(record),
        _gap(gaps.latest(GAPS), record.epoch / 1000),
        held is not None and at >= held,
        frozen.why if frozen is not None and at >= frozen.at else None,
        tuple(
            AtSink(
                sink,
                at < spool.cursor(sink, record.feed),
                sink in refused,
                spool.rewound(sink, record.feed) and at >= spool.cursor(sink, record.feed),
                of_feed.get(sink),
                accounts.get(sink),
            )
            for sink in sinks
        ),
        tuple(journal.steps(record)),
        journal.since,
        socket.gethostname(),
        os.getpid(),
    )


def _gap(gaps: Iterable[Gap], opened: float) -> Gap | None:
    """The gap that ended with the subscription that was `opened` then, in seconds since 1970."""
    return next((gap for gap in gaps if gap.ended is not None and abs(gap.ended - opened) < NEAR), None)
