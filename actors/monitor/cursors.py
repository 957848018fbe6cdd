"""How far each sink is, on its way to the disk: cursors that moved, and what became of blocks they have not passed."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace

import msgpack

from actors.batch import Receipt, Rejected
from actors.block import Block, BlockId
from actors.logs import place
from actors.monitor.accounts import Outcome
from actors.monitor.lane import Lane
from actors.monitor.replays import is_replay
from actors.monitor.spool import Position, Spool

log = logging.getLogger(__name__)

#: (Sink, order) -> its lane.
Lanes = Mapping[tuple[str, str], Lane]


class Cursors:
    """The cursors of the lanes to `sinks`, as far as `spool` does not know of them.

    `absent` are sinks that nothing is delivered to now, and for which blocks are kept. For the dispatcher's thread
    alone.
    """

    def __init__(self, spool: Spool, sinks: Iterable[str], absent: Iterable[str]) -> None:
        self._spool = spool
        self._sinks = tuple(sinks)
        self._absent = tuple(absent)
        self._moved: dict[tuple[str, str], Position] = {}
        #: (Sink, feed) -> what became of blocks, not delivered whole, that its cursor has not passed yet.
        self._outcomes: dict[tuple[str, str], dict[BlockId, Outcome]] = {}

    def moved(self, lane: Lane) -> None:
        """The cursor of `lane` stands elsewhere now."""
        self._moved[lane.sink, lane.feed] = lane.cursor

    def forget(self, sink: str, feed: str) -> None:
        """The spool knows better: it moved the cursor itself."""
        self._moved.pop((sink, feed), None)

    def receipt(self, lane: Lane, block: Block, receipt: Receipt) -> None:
        """Remember what became of `block`, if it was not delivered whole, until the cursor passes it."""
        if receipt.rejects:
            first, count = receipt.rejects[0], len(receipt.rejects)
            fields = place(block, lane.sink, offset=first.offset)
            log.warning("%d records become dead letters, the first: %s", count, first.reason, extra=fields)
        if receipt.rejects or receipt.filtered:
            rejects = tuple(_with_frame(reject, block) for reject in receipt.rejects)
            outcome = Outcome(lane.sink, block.id, receipt.time, rejects, receipt.filtered)
            self._outcomes.setdefault((lane.sink, lane.feed), {})[block.id] = outcome

    def behind(self, lanes: Lanes) -> dict[str, Position]:
        """Order -> where all sinks have everything before, of the orders of which a cursor moved."""
        return {order: self._behind(order, lanes) for order in {order for _, order in self._moved}}

    def _behind(self, order: str, lanes: Lanes) -> Position:
        cursors = [lanes[sink, order].cursor for sink in self._sinks]
        if not is_replay(order):
            cursors += [self._spool.cursor(sink, order) for sink in self._absent]
        return min(cursors)

    def save(self, behind: Mapping[str, Position]) -> None:
        """Save what moved. Raises :class:`SpoolFull`: nothing was saved and all of it is still to be."""
        feeds = {feed: position for feed, position in behind.items() if not is_replay(feed)}
        cursors = {key: position for key, position in self._moved.items() if key[1] in feeds}
        passed = [
            outcome
            for key, at in cursors.items()
            for outcome in self._outcomes.get(key, {}).values()
            if outcome.block[1:] < at
        ]
        self._spool.advance(cursors, feeds, passed)
        self._moved = {}
        for outcome in passed:
            del self._outcomes[outcome.sink, outcome.block.feed][outcome.block]


def _with_frame(reject: Rejected, block: Block) -> Rejected:
    """`reject` with its frame, which a sink that rejected it never saw."""
    frame = reject.frame or msgpack.unpackb(block.payload)[reject.offset - block.offset]
    return replace(reject, frame=frame)
