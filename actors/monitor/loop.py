"""One thread that does what it is given, in order, and at its time. No Ray."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import queue
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeVar

#: Seconds allowed to the thread to answer a question.
ANSWER_TIMEOUT = 10.0

Answer = TypeVar("Answer")


@dataclass(slots=True)
class _Timer:
    due: float
    order: int
    action: Callable[[], None] = field(compare=False)

    def __lt__(self, other: _Timer) -> bool:
        return (self.due, self.order) < (other.due, other.order)


class Loop:
    """Actions from one queue, and timers; :meth:`run` does them on the thread that calls it."""

    def __init__(self) -> None:
        self._events: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._timers: list[_Timer] = []
        self._order = itertools.count()
        self._stopping = False

    def put(self, action: Callable[[], None]) -> None:
        """Do `action` soon. From any thread."""
        self._events.put(action)

    def ask(self, action: Callable[[], Answer]) -> Answer:
        """Do `action` on the loop's thread and wait for its result. From any other. Raises TimeoutError."""
        answer: Future[Answer] = Future()

        def act() -> None:
            if not answer.set_running_or_notify_cancel():
                return
            try:
                answer.set_result(action())
            except Exception as error:
                answer.set_exception(error)

        self._events.put(act)
        try:
            return answer.result(ANSWER_TIMEOUT)
        except TimeoutError:
            if answer.cancel():
                raise
        # It is being done, and cannot be called off any more.
        return answer.result(ANSWER_TIMEOUT)

    def at(self, due: float, action: Callable[[], None]) -> None:
        """Do `action` at `due`, in seconds of ``time.monotonic``. From the loop's thread."""
        heapq.heappush(self._timers, _Timer(due, next(self._order), action))

    def stop(self) -> None:
        """End :meth:`run` after the action under way. From the loop's thread."""
        self._stopping = True

    def run(self) -> None:
        """Work until :meth:`stop`."""
        while not self._stopping:
            timeout = max(0.0, self._timers[0].due - time.monotonic()) if self._timers else None
            with contextlib.suppress(queue.Empty):
                self._events.get(timeout=timeout)()
            while self._timers and self._timers[0].due <= time.monotonic():
                heapq.heappop(self._timers).action()
