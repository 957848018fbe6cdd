"""Asks a source for the type of a table's rows, on a thread of its own: the receiving thread must not wait for it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from actors.monitor.source import Described, SourceLost, Stream
from actors.monitor.spool import Position

#: Seconds between two questions at most, and at least while rows arrive.
POLL_INTERVAL = 1.0
MIN_INTERVAL = 0.1

#: Seconds that the end of a stream waits for a question that is under way.
STOP_PATIENCE = 2.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What the source said, at the time `at`, when asked after everything before `asked` had been received.

    `steps` are types other than before, one after the other; all that comes under `topic` is of the last of them.
    `error` is why there is no answer: :class:`TableGone`, :class:`SourceLost`, or a defect.
    """

    asked: Position
    at: float
    steps: tuple[Described, ...] = ()
    topic: str = ""
    error: Exception | None = None


class TypeAsker:
    """Asks a stream for its type, every second and soon after rows have come; never two questions at once."""

    def __init__(self, stream: Stream, known: Described, received: Callable[[], Position]) -> None:
        self.answers: deque[Answer] = deque()
        self._stream = stream
        self._known = known
        self._received = received
        self._ask = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="type-asker", daemon=True)
        self._thread.start()

    def poke(self) -> None:
        """Rows have come: ask soon."""
        self._ask.set()

    def stop(self) -> None:
        """End, without waiting long for a question that is under way."""
        self._stop.set()
        self._ask.set()
        self._thread.join(STOP_PATIENCE)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._ask.wait(POLL_INTERVAL)
            self._ask.clear()
            if self._stop.is_set():
                return
            try:
                answer = self._question(self._received())
            except Exception as error:  # for the receiving thread, which it must not fail to reach
                answer = Answer(Position(), time.time(), error=error)
            self.answers.append(answer)
            self._stream.wake()
            self._stop.wait(MIN_INTERVAL)

    def _question(self, asked: Position) -> Answer:
        steps: list[Described] = []
        topic = ""
        try:
            # Altered once more while the topic was made, rows of either type may come under it: make another.
            while (described := self._stream.describe()).type_id != (steps or [self._known])[-1].type_id:
                if topic:
                    self._stream.discard(topic)
                steps.append(described)
                topic = self._stream.renew()
        except SourceLost:
            if topic:
                self._stream.discard(topic)
            raise
        self._known = (steps or [self._known])[-1]
        return Answer(asked, time.time(), tuple(steps), topic)


class TopicWatch:
    """Asks a stream without inserts, every second, whether the source still knows its topics.

    Attributes:
        error: why the stream is to be left.
    """

    def __init__(self, stream: Stream) -> None:
        self.error: Exception | None = None
        self._stream = stream
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="topic-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End, without waiting long for a question that is under way."""
        self._stop.set()
        self._thread.join(STOP_PATIENCE)

    def _run(self) -> None:
        while not self._stop.wait(POLL_INTERVAL):
            try:
                self._stream.describe()
            except Exception as error:  # for the receiving thread, which it must not fail to reach
                self.error = error
                self._stream.wake()
                return
