"""When to restart an actor that failed: exponential back-off with jitter, and a restart intensity.

A plain class; the caller passes the time in.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from actors.backoff import Backoff


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """More than `intensity` failures within `window` seconds park an actor for `park` seconds: whatever kills it
    needs a person to look, and restarting it without end costs the cluster's memory."""

    intensity: int = 10
    window: float = 60.0
    park: float = 300.0
    backoff: Backoff = field(default_factory=lambda: Backoff(initial=0.2, cap=10.0))


class RestartHistory:
    """The failures of one actor."""

    def __init__(self, policy: RestartPolicy) -> None:
        self._policy = policy
        self._failures: deque[float] = deque()
        self.count = 0
        self.parked_until: float | None = None
        self.last_reason: str | None = None

    def failed(self, reason: str, now: float) -> float:
        """Note a failure at `now` (seconds); returns the time at which to start the actor again."""
        self.count += 1
        self.last_reason = reason
        self._failures.append(now)
        while self._failures[0] <= now - self._policy.window:
            self._failures.popleft()
        if len(self._failures) > self._policy.intensity:
            self._failures.clear()
            self.parked_until = now + self._policy.park
            return self.parked_until
        self.parked_until = None
        return now + self._policy.backoff.delay(len(self._failures))
