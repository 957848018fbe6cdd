"""Collects records into batches and delivers them in order, while whoever adds them goes on.

:class:`~protocols.accumulator.Accumulator` has the rules of batching; :class:`Batcher` is the thread that sends, with
retries, and tells handlers. What a record is, how large it is and how a batch travels is the caller's: a function each.

A record that was added is delivered, or handed back with a reason; never dropped. It is bounded: what does not fit is
refused when it is added. Delivery is at least once: a batch whose answer was lost is sent again.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, Literal

from protocols.accumulator import Accumulator, BatchingError, BufferFull, Chunk, Record
from protocols.checks import check_number

log = logging.getLogger(__name__)

EventKind = Literal["send", "flush", "error"]

#: Rejected records that are kept for the next :meth:`Batcher.flush`; beyond, they are only counted.
REJECTED_KEPT = 1000

#: Most seconds that a destination's wish to wait can make a batch wait.
LONGEST_WISH = 300.0


class Closed(BatchingError):
    """Nothing can be added after :meth:`Batcher.close`."""


class NotDelivered(BatchingError):
    """Time ran out before everything was delivered. `pending` is how many records are not."""

    def __init__(self, message: str, pending: int = 0) -> None:
        super().__init__(message, pending)
        self.pending = pending

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True, slots=True)
class Rejection(Generic[Record]):
    """A record that will never be delivered, and why, in one line. `number` counts all records added before it."""

    number: int
    record: Record
    reason: str


class RecordsRejected(BatchingError):
    """Records were refused for good; the others are delivered.

    Attributes:
        rejections: the first of them, at most :data:`REJECTED_KEPT`.
        count: how many there are.
    """

    def __init__(self, message: str, rejections: tuple[Rejection[Any], ...] = (), count: int = 0) -> None:
        super().__init__(message, rejections, count)
        self.rejections = rejections
        self.count = count

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True, slots=True)
class DeliveryEvent(Generic[Record]):
    """What a handler of :meth:`Batcher.on` is told.

    Attributes:
        kind: ``send``: a batch is about to be sent; ``flush``: it was delivered, at least in part; ``error``: it was
            not, or records of it were refused.
        first: number of its first record.
        records: the records of the batch.
        attempt: 1 for the first.
        error: what went wrong.
        rejections: records that are handed back for good; if there are none, an error is tried again.
    """

    kind: EventKind
    first: int
    records: Sequence[Record]
    attempt: int
    error: Exception | None = None
    rejections: tuple[Rejection[Record], ...] = ()


@dataclass(slots=True, eq=False)
class _Refused(Generic[Record]):
    """Rejections that somebody is still to be told of; `first` has at most :data:`REJECTED_KEPT` of them."""

    first: list[Rejection[Record]] = field(default_factory=list)
    count: int = 0

    def add(self, first: Sequence[Rejection[Record]], count: int) -> None:
        self.first += first[: REJECTED_KEPT - len(self.first)]
        self.count += count


class Batcher(Generic[Record]):
    """Delivers what is added, in order, one batch at a time, from a thread of its own. All methods are thread-safe.

    Args:
        send: delivers a chunk and returns those of its records that were refused for good. An exception with a true
            attribute ``retryable`` has the chunk sent again, after ``retry_after`` seconds if it says so; any other
            hands the whole chunk back. Must have a deadline of its own.
        accumulator: the bounds.
        delay: seconds to wait after so many failures in a row.
        name: for messages and the thread.
    """

    def __init__(
        self,
        send: Callable[[Chunk[Record]], Sequence[Rejection[Record]]],
        accumulator: Accumulator[Record],
        delay: Callable[[int], float],
        name: str = "batcher",
    ) -> None:
        self._send = send
        self._queue = accumulator
        self._delay = delay
        self._name = name
        self._changed = threading.Condition()
        self._handlers: dict[EventKind, list[Callable[[DeliveryEvent[Record]], object]]] = {
            "send": [],
            "flush": [],
            "error": [],
        }
        self._waiters: list[Future[None]] = []
        #: For the next flush; and what others were told while a flush was under way, for that one too.
        self._refused = _Refused[Record]()
        self._flushers: list[_Refused[Record]] = []
        self._thread: threading.Thread | None = None
        self._closed = False
        self.problem: str | None = None
        #: Set when the thread is to end whatever is left.
        self.stopping = threading.Event()

    def on(self, kind: EventKind, handler: Callable[[DeliveryEvent[Record]], object]) -> None:
        """Call `handler` at each event of that kind, on the sending thread: quick, without flush or close."""
        if kind not in self._handlers:
            raise ValueError(f"no event {kind!r}; there are: {', '.join(self._handlers)}")
        self._handlers[kind].append(handler)

    @property
    def pending(self) -> int:
        """Records added and neither delivered nor rejected."""
        with self._changed:
            return self._queue.added - self._queue.settled

    def put(self, records: Sequence[Record], timeout: float = 0.0) -> int:
        """Add all of `records` or none, waiting up to `timeout` seconds for room; returns the number of the first.

        Raises :class:`RecordTooLarge`, :class:`BufferFull` and :class:`Closed`.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                try:
                    return self._add(records)
                except BufferFull:
                    left = deadline - time.monotonic()
                    if left <= 0:
                        raise
                    self._changed.wait(left)

    async def put_async(self, records: Sequence[Record]) -> int:
        """As :meth:`put`, waiting for room as long as it takes."""
        while True:
            with self._changed:
                try:
                    return self._add(records)
                except BufferFull:
                    room: Future[None] = Future()
                    room.set_running_or_notify_cancel()  # a task that gives up cancels only its own wait
                    self._waiters.append(room)
            await asyncio.wrap_future(room)

    def _add(self, records: Sequence[Record]) -> int:
        if self._closed:
            raise Closed(f"{self._name} is closed")
        first = self._queue.add(records, time.monotonic())
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        self._changed.notify_all()
        return first

    def flush(self, timeout: float = 30.0) -> None:
        """Wait until all that has been added so far is delivered.

        Raises:
            TypeError, ValueError: for what is no number of seconds.
            NotDelivered: it is not, `timeout` seconds later; it is still being tried.
            RecordsRejected: since the last flush, records were refused for good. Flushes at the same time are all told.
        """
        self._not_in_handler("flush")
        check_number("timeout", timeout)
        with self._changed:
            goal = self._queue.added
            mine = _Refused[Record]()
            self._flushers.append(mine)
            self._changed.notify_all()
            try:
                if not self._changed.wait_for(lambda: self._queue.settled >= goal, timeout):
                    pending = goal - self._queue.settled
                    self._refused.add(mine.first, mine.count)
                    why = f": {self.problem}" if self.problem else ""
                    raise NotDelivered(
                        f"{pending:,} records not delivered within {timeout:g} s{why}", pending
                    )
            finally:
                self._flushers.remove(mine)
            told, self._refused = self._refused, _Refused()
            for each in (mine, *self._flushers):
                each.add(told.first, told.count)
        if mine.count:
            raise RecordsRejected(
                f"{mine.count:,} records refused, the first: {mine.first[0].reason}",
                tuple(mine.first),
                mine.count,
            )

    def _not_in_handler(self, method: str) -> None:
        if threading.current_thread() is self._thread:
            raise RuntimeError(f"{method}() from a handler would wait for itself; call it elsewhere")

    def close(self, timeout: float = 30.0) -> None:
        """Flush, then end the thread; what is left after `timeout` seconds is given up. Raises as :meth:`flush`."""
        self._not_in_handler("close")
        check_number("timeout", timeout)
        with self._changed:
            self._closed = True
        try:
            self.flush(timeout)
        finally:
            self.stopping.set()
            with self._changed:
                self._changed.notify_all()
                waiters, self._waiters = self._waiters, []
            _wake(waiters)
            if self._thread is not None:
                self._thread.join(1.0)

    def _run(self) -> None:
        while (chunk := self._next()) is not None:
            rejections = self._deliver(chunk)
            if rejections is None:
                return
            with self._changed:
                self._queue.settle(chunk)
                self._refused.add(rejections, len(rejections))
                self._changed.notify_all()
                waiters, self._waiters = self._waiters, []
            _wake(waiters)

    def _next(self) -> Chunk[Record] | None:
        """Wait for the next chunk; None at the end."""
        with self._changed:
            while not self.stopping.is_set():
                now = time.monotonic()
                chunk = self._queue.take(now, hurry=bool(self._flushers))
                if chunk is not None:
                    return chunk
                due = self._queue.due()
                self._changed.wait(None if due is None else due - now)
        return None

    def _deliver(self, chunk: Chunk[Record]) -> list[Rejection[Record]] | None:
        """Send `chunk` until it is delivered or handed back; returns what is handed back, None when stopped."""
        attempt = 0
        while not self.stopping.is_set():
            attempt += 1
            self._fire(DeliveryEvent("send", chunk.first, chunk.records, attempt))
            try:
                rejections = list(self._send(chunk))
            except Exception as error:
                self.problem = str(error) or type(error).__name__
                if getattr(error, "retryable", False):
                    if attempt == 1:
                        log.warning("%s: %s; trying again", self._name, self.problem)
                    self._fire(DeliveryEvent("error", chunk.first, chunk.records, attempt, error))
                    wish = min(getattr(error, "retry_after", None) or 0.0, LONGEST_WISH)
                    self.stopping.wait(max(self._delay(attempt), wish))
                    continue
                rejections = [
                    Rejection(number, record, self.problem)
                    for number, record in enumerate(chunk.records, chunk.first)
                ]
                refused: Exception | None = error
            else:
                self.problem = refused = None
                if len(rejections) < len(chunk.records):
                    self._fire(DeliveryEvent("flush", chunk.first, chunk.records, attempt))
            if rejections:
                log.error("%s: %d records refused: %s", self._name, len(rejections), rejections[0].reason)
                back = tuple(rejections)
                self._fire(DeliveryEvent("error", chunk.first, chunk.records, attempt, refused, back))
            return rejections
        return None

    def _fire(self, event: DeliveryEvent[Record]) -> None:
        for handler in tuple(self._handlers[event.kind]):
            try:
                handler(event)
            except BaseException:  # a SystemExit would end the thread
                log.exception("%s: a handler of %r failed", self._name, event.kind)


def _wake(waiters: Iterable[Future[None]]) -> None:
    for waiter in waiters:
        waiter.set_result(None)
