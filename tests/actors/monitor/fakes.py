"""What a monitor's tests stand in for the cluster: writers and decoders on threads of their own."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from actors.batch import Receipt, Rejected
from actors.block import Block, BlockId
from actors.errors import ActorError, NotAttached
from actors.monitor.grouping import BlockLimits
from actors.monitor.keys import NotIncreasing
from actors.monitor.settings import MonitorSettings
from actors.monitor.source import Described, Received, SourceLost
from actors.monitor.transport import Task
from actors.writer.reorder import ReorderBuffer

DEADLINE = 30.0
THREADS = 3

Done = Callable[[Any], None]


def wait_for(condition: Callable[[], object], what: str = "") -> None:
    """Return once `condition` holds; fail after :data:`DEADLINE`."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, what or "it did not come to that in time"
        time.sleep(0.002)


def monitor_settings(spool: Path, **changes: Any) -> MonitorSettings:
    """Settings of a monitor of table ``t`` with one sink ``a``."""
    values: dict[str, Any] = {
        "pipeline": "p",
        "table": "t",
        "events": ("insert",),
        "sinks": ("a",),
        "source": {},
        "monitor_port": None,
        "spool": str(spool),
        "max_bytes": 1 << 30,
        "min_free": 0,
        "limits": BlockLimits(records=1000, bytes=1 << 20, linger=0.01),
        "window_bytes": 1 << 20,
    }
    return MonitorSettings(**{**values, **changes})


class FakeTransport:
    """Writers that put blocks in order, answering from several threads in random order.

    Args:
        seed: of the order of answers.
        fault: called with (sink, task) on arrival; an exception that it returns is the answer.
        threads: how many handle calls; 0 leaves them in :attr:`calls`.
    """

    def __init__(
        self,
        seed: int = 0,
        fault: Callable[[str, Task], BaseException | None] = lambda sink, task: None,
        threads: int = THREADS,
    ) -> None:
        self.fault = fault
        #: (sink, feed) -> blocks as they became durable, doubles included.
        self.delivered: dict[tuple[str, str], list[Block]] = {}
        self.rejects: dict[BlockId, tuple[Rejected, ...]] = {}
        self.attaches = self.tidied = 0
        self.owner = 1
        #: What an attach to a sink raises, for as long as it stands here.
        self.down: dict[str, ActorError] = {}
        self.calls: list[Callable[[], None]] = []
        #: All that was to be written, in order.
        self.tasks: list[Task] = []
        self._rng = random.Random(seed)
        self._buffers: dict[tuple[str, str], ReorderBuffer[tuple[Block, Done]]] = {}
        self._durable: dict[tuple[str, str], tuple[int, int]] = {}
        self._changed = threading.Condition()
        self._closed = False
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    # -- the transport ------------------------------------------------------------------------------------------

    def tidy(self) -> None:
        self.tidied += 1

    def attach(self, sink: str, feed: str, session: int, done: Done) -> None:
        self._put(lambda: self._attach(sink, feed, session, done))

    def write(self, sink: str, task: Task, session: int, previous: BlockId | None, done: Done) -> None:
        self.tasks.append(task)
        self._put(lambda: self._write(sink, task, session, previous, done))

    # -- the writers --------------------------------------------------------------------------------------------

    def _attach(self, sink: str, feed: str, session: int, done: Done) -> None:
        self.attaches += 1
        if sink in self.down:
            done(self.down[sink])
            return
        buffer = self._buffers.setdefault((sink, feed), ReorderBuffer(feed))
        buffer.attach((self.owner, session))
        done(self._durable.get((sink, feed)))

    def _write(self, sink: str, task: Task, session: int, previous: BlockId | None, done: Done) -> None:
        error = self.fault(sink, task)
        if error is not None:
            done(error)
            return
        # An empty buffer refuses what nobody attached.
        buffer = self._buffers.get((sink, task.order), ReorderBuffer(task.order))
        try:
            ready = buffer.offer((self.owner, session), task.id, previous, (task.block, done))
        except ActorError as refusal:
            done(refusal)
            return
        for each, answer in ready:
            self.delivered.setdefault((sink, task.order), []).append(each)
            self._durable[sink, task.order] = (each.epoch, each.end)
            # The answer comes in its own time.
            self._put(
                lambda each=each, answer=answer: answer(Receipt(each.time, self.rejects.get(each.id, ())))
            )

    def forget(self, sink: str) -> None:
        """The writer of `sink` dies and what waits in it fails; it is back at once and remembers nothing."""
        with self._changed:
            for key in [key for key in self._buffers if key[0] == sink]:
                self._durable.pop(key, None)
                buffer = self._buffers.pop(key)
                for _, done in buffer.detach(buffer.owner or (0, 0)):
                    done(NotAttached("the writer died"))

    def in_order(self, sink: str, feed: str) -> list[Block]:
        """What a sink that knows doubles by their origin holds: every block at its first delivery."""
        seen: dict[BlockId, Block] = {}
        for block in self.delivered.get((sink, feed), []):
            seen.setdefault(block.id, block)
        return list(seen.values())

    # -- threads ------------------------------------------------------------------------------------------------

    def _put(self, call: Callable[[], None]) -> None:
        with self._changed:
            self.calls.append(call)
            self._changed.notify()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self.calls and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                call = self.calls.pop(self._rng.randrange(len(self.calls)))
                # One at a time, as in a writer's event loop; answers are calls of their own.
                call()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(DEADLINE)


class FakeStream:
    """A stream that gives what the test puts in, and ends when the test says so."""

    def __init__(self, kinds: Sequence[str] = ("insert",), topics: Sequence[str] = ("topic",)) -> None:
        self.schemas: Mapping[str, str] = dict.fromkeys(kinds, "{}")
        self.topics = topics
        self.described = None  # a type that can never change
        self.emptied = True
        self.checked = math.inf
        self.closed = False
        self._items: list[Received | SourceLost] = []
        self._changed = threading.Condition()

    def put(self, *items: tuple[str, Sequence[bytes]] | SourceLost) -> None:
        with self._changed:
            self._items += [item if isinstance(item, SourceLost) else Received(*item) for item in items]
            self._changed.notify()

    def receive(self, timeout: float) -> list[Received]:
        with self._changed:
            self._changed.wait_for(lambda: self._items, timeout)
            received = []
            while self._items:
                item = self._items[0]
                if isinstance(item, SourceLost):
                    if received:
                        break
                    self._items.pop(0)
                    raise item
                received.append(item)
                self._items.pop(0)
            return received

    @property
    def taken(self) -> bool:
        """Whether everything put in was received; then it reaches the spool at the stop at the latest."""
        with self._changed:
            return not self._items

    def end(self) -> None:
        self.ended = True

    def describe(self) -> None:
        """It can never change."""

    def check(self) -> None:
        pass

    def wake(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


class FakeReader:
    """A table that cannot be read by any column."""

    def described(self) -> Described:
        raise NotIncreasing("this table is none")

    def size(self) -> int:
        return 0

    def close(self) -> None:
        pass


class FakeSource:
    """Opens the streams given to it, one after the other; an error among them is raised instead. The last stays."""

    def __init__(self, *results: FakeStream | Exception) -> None:
        self.results = list(results)
        self.opened: list[FakeStream] = []
        self.cleared: list[tuple[str, ...]] = []

    def open(self, stale_topics: Iterable[str]) -> FakeStream:
        self.cleared.append(tuple(stale_topics))
        result = self.results.pop(0) if len(self.results) > 1 else self.results[0]
        if isinstance(result, Exception):
            raise result
        self.opened.append(result)
        return result

    def reader(self) -> FakeReader:
        return FakeReader()
