"""When a writer may ask its sink: how many requests at once, and whether it is worth to ask at all.

The limit of requests under way follows what the sink can take: one more after each round of successes, half after a
failure. After failures in a row, from whatever feeds, the *circuit* opens: nobody asks until a pause is over, then one
request at a time, the probe, until one succeeds. So a dead sink costs one request per pause, however many feeds wait.

A state machine without a clock; :class:`Gate` is what tasks wait at.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from enum import Enum

from actors.backoff import Backoff
from actors.writer.sinks.base import is_transient

#: Requests under way at once: at first, and at most.
FIRST_LIMIT = 4
MAX_LIMIT = 8

#: Failures in a row, without a success of anyone, that open the circuit.
THRESHOLD = 5

#: Most seconds that a sink's own wish can keep the circuit open.
LONGEST_WISH = 300.0


class Circuit(Enum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"  # a probe is under way


class Throttle:
    """The state of a sink's gate. Times are seconds of any clock that does not go back."""

    def __init__(self, backoff: Backoff) -> None:
        self.circuit = Circuit.CLOSED
        self.in_flight = 0
        self.retry_at = 0.0
        self._backoff = backoff
        self._limit = float(FIRST_LIMIT)
        self._failures = 0

    @property
    def limit(self) -> int:
        """How many requests may be under way while the circuit is closed."""
        return int(self._limit)

    def admits(self, now: float) -> bool:
        """Whether a request may begin at `now`."""
        if self.circuit is Circuit.CLOSED:
            return self.in_flight < self.limit
        return self.circuit is Circuit.OPEN and now >= self.retry_at and not self.in_flight

    def began(self) -> None:
        """A request that was admitted begins."""
        self.in_flight += 1
        if self.circuit is Circuit.OPEN:
            self.circuit = Circuit.HALF_OPEN

    def succeeded(self) -> None:
        """A request ended with an answer that shows the sink to work, be it a refusal."""
        self.in_flight -= 1
        self._failures = 0
        self._limit = min(MAX_LIMIT, self._limit + 1 / self._limit)
        if self.circuit is Circuit.HALF_OPEN:  # else the request began before the sink asked for a pause
            self.circuit = Circuit.CLOSED

    def failed(self, now: float, wish: float | None) -> None:
        """A request failed in passing; the sink asked to wait `wish` seconds, if it said so."""
        self.in_flight -= 1
        self._failures += 1
        self._limit = max(1.0, self._limit / 2)
        if self.circuit is not Circuit.CLOSED or self._failures >= THRESHOLD or wish is not None:
            pause = self._backoff.delay(max(1, self._failures - THRESHOLD + 1))
            self.retry_at = max(self.retry_at, now + max(pause, min(wish or 0.0, LONGEST_WISH)))
            self.circuit = Circuit.OPEN

    def gave_up(self) -> None:
        """A request was cancelled before its end, which tells nothing of the sink."""
        self.in_flight -= 1
        if self.circuit is Circuit.HALF_OPEN:
            self.circuit = Circuit.OPEN


class Gate:
    """Where the tasks of one event loop wait until they may send."""

    def __init__(self, backoff: Backoff, clock: Callable[[], float] = time.monotonic) -> None:
        self.throttle = Throttle(backoff)
        self._clock = clock
        self._changed = asyncio.Event()

    @contextlib.asynccontextmanager
    async def request(self) -> AsyncIterator[None]:
        """Hold a place for one request; how it ends tells the throttle."""
        while not self.throttle.admits(self._clock()):
            # The event is shared: whoever changes something wakes all, and puts a new one in its place.
            pause = self.throttle.retry_at - self._clock() if self.throttle.circuit is Circuit.OPEN else None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause if pause is None or pause > 0 else None):
                    await self._changed.wait()
        self.throttle.began()
        try:
            yield
        except Exception as error:
            if is_transient(error):
                self.throttle.failed(self._clock(), getattr(error, "retry_after", None))
            else:
                self.throttle.succeeded()
            raise
        except BaseException:
            self.throttle.gave_up()
            raise
        else:
            self.throttle.succeeded()
        finally:
            self._changed.set()
            self._changed = asyncio.Event()
