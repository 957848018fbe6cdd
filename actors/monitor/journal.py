"""What happened to a monitor's recent blocks, step by step: times and actors, for whoever asks for a record's story.

In memory and bounded: it slows nothing down, and it forgets. What must not be forgotten is in the spool.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from actors.batch import Receipt
from actors.block import TICKS_PER_SECOND, Block, BlockId
from actors.errors import DecodeAborted, DeliveryRefused
from actors.monitor.replays import REPLAY
from actors.monitor.transport import DecoderFailed

#: Blocks remembered, some 2 kB each; steps remembered per block, and rewinds of all feeds.
BLOCKS = 2_000
STEPS = 60
REWINDS = 100


class Step(NamedTuple):
    """Something that happened at `time`, in seconds since 1970 by the clock of the host where it did.

    `what` is ``received``, ``committed``, ``dispatched``, ``decoded``, ``handed over``, ``acknowledged``, ``not
    decoded``, ``aborted``, ``refused``, ``not acknowledged`` or ``rewound``. `sink`: on the way to which; empty: all.
    `actor`: who does it, if that is known.
    """

    time: float
    what: str
    sink: str = ""
    actor: str = ""
    note: str = ""


@dataclass(slots=True)
class _Entry:
    count: int
    steps: list[Step] = field(default_factory=list)


class Journal:
    """The steps of up to `blocks` blocks, the latest to be mentioned. Thread-safe."""

    def __init__(self, blocks: int = BLOCKS, clock: Callable[[], float] = time.time) -> None:
        self._blocks = blocks
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: OrderedDict[BlockId, _Entry] = OrderedDict()
        self._rewinds: deque[tuple[BlockId, Step]] = deque(maxlen=REWINDS)
        #: Of what came before this, in seconds since 1970, it may have forgotten some.
        self.since = clock()

    def committed(self, blocks: Iterable[Block]) -> None:
        """`blocks` are on disk."""
        now = self._clock()
        for block in blocks:
            span = f"with the block of offsets {block.offset} to {block.end - 1}"
            self._note(block.id, block.count, Step(block.time / TICKS_PER_SECOND, "received"))
            self._note(block.id, block.count, Step(now, "committed", note=span))

    def note(
        self,
        order: str,
        block: Block,
        what: str,
        sink: str,
        *,
        actor: str | None = None,
        note: str = "",
        at: float = 0.0,
    ) -> None:
        """Something happened to `block` on its way in `order`; `at` in seconds since 1970, 0 for now."""
        step = Step(at or self._clock(), what, sink, actor or "", note)
        self._note(block.id._replace(feed=order), block.count, step)

    def answered(self, order: str, block: Block, sink: str, result: Any) -> None:
        """A transport's `result` of writing `block` to `sink`."""

        def note(what: str, at: float = 0.0, text: str = "") -> None:
            self.note(order, block, what, sink, note=text, at=at)

        match result:
            case Receipt():
                if result.decoded:
                    note("decoded", result.decoded)
                if result.handed:
                    note("handed over", result.handed)
                parts = [(len(result.rejects), "dead letters"), (result.filtered, "filtered")]
                note("acknowledged", text=", ".join(f"{count} {word}" for count, word in parts if count))
            case DecoderFailed():
                note("not decoded", text=str(result))
            case DecodeAborted():
                note("aborted", text=f"offset {result.offset}: {result}")
            case DeliveryRefused():
                note("refused", text=str(result))
            case _:
                note("not acknowledged", text=str(result))

    def rewound(self, feed: str, sink: str, epoch: int, offset: int) -> None:
        """`sink` is to get again what is at or behind (epoch, offset) of `feed`."""
        with self._lock:
            self._rewinds.append((BlockId(feed, epoch, offset), Step(self._clock(), "rewound", sink)))

    def _note(self, block: BlockId, count: int, step: Step) -> None:
        with self._lock:
            entry = self._entries.setdefault(block, _Entry(count))
            self._entries.move_to_end(block)
            if len(entry.steps) < STEPS:
                entry.steps.append(step)
            while len(self._entries) > self._blocks:
                _, forgotten = self._entries.popitem(last=False)
                self.since = max(self.since, forgotten.steps[-1].time)

    def steps(self, record: BlockId) -> list[Step]:
        """What happened to the blocks that have `record`, replays of it included, in order of time."""
        found: list[Step] = []
        with self._lock:
            for block, entry in self._entries.items():
                if block.feed.removesuffix(REPLAY) != record.feed or block.epoch != record.epoch:
                    continue
                if block.offset <= record.offset < block.offset + entry.count:
                    again = block.feed.endswith(REPLAY)
                    found += [
                        step._replace(note=", ".join(filter(None, ("replay", step.note)))) if again else step
                        for step in entry.steps
                    ]
            found += [step for at, step in self._rewinds if at.feed == record.feed and at[1:] <= record[1:]]
        return sorted(found)
