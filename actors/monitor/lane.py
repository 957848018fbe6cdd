"""One feed on its way to one sink: what is in flight, what is acknowledged, what comes next.

The delivery logic of a monitor as a state machine: no Ray, no clock, no disk. A lane *attaches* to its writer,
then sends blocks in order, each naming its predecessor, while their bytes fit the window. Acknowledgements may
come in any order; the cursor moves only over a contiguous prefix. After a failure of the writer the lane backs off,
attaches again and sends again from the first block that is not acknowledged. After a failure of a decoder only
that block is sent again. A block with a record that may not be skipped *aborts* the lane: what is before it is
delivered, nothing after it until :meth:`Lane.resume`. A *paused* lane lets what is in flight arrive and sends nothing
more.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from actors.backoff import Backoff
from actors.block import Block, BlockId
from actors.monitor.spool import Position

#: Unacknowledged bytes at one sink, and blocks, per feed.
DEFAULT_WINDOW_BYTES = 16 << 20
WINDOW_BLOCKS = 16

#: Decoding attempts of one block after which the lane parks: the block kills decoders.
MAX_DECODE_ATTEMPTS = 5


class LaneState(Enum):
    DETACHED = "detached"  # waiting for its time to attach
    ATTACHING = "attaching"
    OPEN = "open"
    PARKED = (
        "parked"  # stays so until it is resumed or the pipeline started again; its blocks stay in the spool
    )


@dataclass(frozen=True, slots=True)
class Abort:
    """Why a lane stops before `block`: its record at `offset`, and `count` - 1 more, did not decode."""

    block: BlockId
    offset: int
    reason: str
    count: int


class Resend(NamedTuple):
    """Send the same block again, naming this predecessor, after `delay` seconds."""

    previous: BlockId | None
    delay: float


@dataclass(slots=True)
class _Flight:
    size: int
    end: Position
    previous: BlockId | None
    failures: int = 0
    blame: int = 0
    acked: bool = False


class Lane:
    """The lane of `feed` to `sink`, starting at `cursor`."""

    def __init__(
        self,
        feed: str,
        sink: str,
        cursor: Position,
        window_bytes: int = DEFAULT_WINDOW_BYTES,
        backoff: Backoff | None = None,
        rewound: bool = False,
    ) -> None:
        self.feed = feed
        self.sink = sink
        self.cursor = cursor
        self.state = LaneState.DETACHED
        self.problem: str | None = None
        self.aborted: Abort | None = None
        self.session = 0
        #: While set nothing more is sent; what is on its way still arrives.
        self.paused = False
        self._window_bytes = window_bytes
        self._backoff = backoff or Backoff()
        self._failures = 0
        self._not_before = 0.0
        self._last: BlockId | None = None
        self._flights: OrderedDict[BlockId, _Flight] = OrderedDict()
        self._read_at = cursor
        self._bytes = 0
        #: Whether what the writer remembers is of the time before a rewind, and so to be sent again.
        self._rewound = rewound

    @property
    def in_flight(self) -> int:
        """Blocks sent and not yet acknowledged in order."""
        return len(self._flights)

    @property
    def waits_for_person(self) -> bool:
        """Whether it sends nothing more until somebody resumes it."""
        return self.state is LaneState.PARKED or (self.paused and not self._flights)

    @property
    def read_position(self) -> Position:
        """Where the next block to send begins."""
        return self._read_at

    @property
    def not_before(self) -> float:
        """No attempt to attach before this time, in the caller's clock."""
        return self._not_before

    def wants_attach(self, now: float) -> bool:
        return self.state is LaneState.DETACHED and now >= self._not_before and not self.paused

    def attaching(self) -> int:
        """Begin a session. Returns its number, which every call of the session carries."""
        self.state = LaneState.ATTACHING
        self.session += 1
        return self.session

    def attached(self, session: int, durable: Position | None) -> bool:
        """The writer knows this lane now; `durable` is how far it has made the feed durable, if it remembers.

        Returns whether the cursor moved: the writer may have finished a block whose acknowledgement was lost.
        """
        if session != self.session or self.state is not LaneState.ATTACHING:
            return False
        self.state, self.problem = LaneState.OPEN, None
        if durable is None or durable <= self.cursor or self._rewound:
            return False
        self.cursor = self._read_at = durable
        return True

    def wants_block(self) -> bool:
        """Whether the window has room. One block always fits, however large."""
        if self.state is not LaneState.OPEN or self.paused:
            return False
        return not self._flights or (self._bytes < self._window_bytes and len(self._flights) < WINDOW_BLOCKS)

    def may_send(self, block: Block) -> bool:
        """Whether `block`, the next one, is before the one that aborted the lane, if any."""
        return self.aborted is None or block.id < self.aborted.block

    def sent(self, block: Block) -> BlockId | None:
        """Note that `block` is being sent; returns the predecessor to name, None for the first of a session."""
        previous = self._last
        end = Position(block.epoch, block.end)
        self._flights[block.id] = _Flight(len(block.payload), end, previous)
        self._bytes += len(block.payload)
        self._last, self._read_at = block.id, end
        return previous

    def acked(self, session: int, block: BlockId) -> bool:
        """`block` is durable at the sink. Returns whether the cursor moved."""
        flight = self._flights.get(block)
        if session != self.session or flight is None or flight.acked:
            return False
        flight.acked = True
        self._rewound = False  # the writer remembers this block now
        self._failures = 0
        self.problem = None
        moved = False
        while self._flights and next(iter(self._flights.values())).acked:
            _, done = self._flights.popitem(last=False)
            self._bytes -= done.size
            self.cursor = done.end
            moved = True
        return moved

    def decode_failed(self, session: int, block: BlockId, reason: str, blame: bool) -> Resend | None:
        """`block` was not decoded and so never reached the writer. Returns how to send it again, if at all.

        With `blame` the failure counts against the block, which parks the lane after too many.
        """
        flight = self._flights.get(block)
        if session != self.session or flight is None:
            return None
        flight.failures += 1
        flight.blame += blame
        self.problem = reason
        if flight.blame >= MAX_DECODE_ATTEMPTS:
            self.park(f"block {block} could not be decoded in {MAX_DECODE_ATTEMPTS} attempts: {reason}")
            return None
        return Resend(flight.previous, self._backoff.delay(flight.failures))

    def writer_failed(self, session: int, reason: str, now: float) -> bool:
        """The writer died, is out of reach or forgot us: back off, then attach and send again.

        Returns whether this session ended by it; then :attr:`not_before` says when to attach.
        """
        if session != self.session or self.state is LaneState.PARKED:
            return False
        self._failures += 1
        self._reset(LaneState.DETACHED, reason)
        self._not_before = now + self._backoff.delay(self._failures)
        return True

    def abort(self, session: int, abort: Abort) -> bool:
        """A record may not be skipped: go no further than its block. Returns whether to attach anew.

        A new session makes the writer forget the blocks that follow; those before are sent again.
        """
        if session != self.session or abort.block not in self._flights:
            return False
        self.aborted = abort
        self._reset(LaneState.DETACHED, None)
        return True

    def park(self, reason: str) -> None:
        """Stop this lane until it is resumed; its blocks stay in the spool."""
        self._reset(LaneState.PARKED, reason)

    def resume(self) -> bool:
        """Try again what was aborted or parked. Returns whether it was."""
        stopped = self.aborted is not None or self.state is LaneState.PARKED
        self.aborted = None
        if self.state is LaneState.PARKED:
            self.rewind(self.cursor, self._rewound)
        return stopped

    def rewind(self, cursor: Position, again: bool = False) -> None:
        """Begin anew, at once, from `cursor`; `again`: whatever the writer remembers to have made durable."""
        self.cursor, self._rewound = cursor, again
        self._failures, self._not_before = 0, 0.0
        self._reset(LaneState.DETACHED, None)

    def _reset(self, state: LaneState, reason: str | None) -> None:
        self.state, self.problem = state, reason
        # Answers of the old session are not ours any more. Its blocks are read again from the cursor.
        self.session += 1
        self._flights.clear()
        self._bytes = 0
        self._last = None
        self._read_at = self.cursor
