"""How long to wait before trying again: exponential, capped, with jitter."""

from __future__ import annotations

import random
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delays in seconds: after ``n`` failures between `floor` times and once ``min(cap, initial * 2 ** (n - 1))``.

    By default a retry is never immediate. With a `floor` of 0 (full jitter) those who failed together, as by an outage,
    come back spread over the whole time.
    """

    initial: float = 0.1
    cap: float = 10.0
    rng: random.Random = field(default_factory=random.Random, repr=False, compare=False)
    floor: float = 0.5

    def delay(self, attempt: int) -> float:
        """Seconds to wait before attempt number `attempt` + 1; `attempt` counts the failures so far."""
        # The exponent is bounded so that a sink that is down for days does not overflow a float.
        ceiling = min(self.cap, self.initial * 2.0 ** min(attempt - 1, 30))
        return self.rng.uniform(self.floor * ceiling, ceiling)
