"""How long to wait before trying again: exponential, capped, with jitter."""

from __future__ import annotations

import random
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delays in seconds: after ``n`` failures between a half and the whole of ``min(cap, initial * 2 ** (n - 1))``.

    Never less than half, so that a retry is never immediate.
    """

    initial: float = 0.1
    cap: float = 10.0
    rng: random.Random = field(default_factory=random.Random, repr=False, compare=False)

    def delay(self, attempt: int) -> float:
        """Seconds to wait before attempt number `attempt` + 1; `attempt` counts the failures so far."""
        # The exponent is bounded so that a sink that is down for days does not overflow a float.
        ceiling = min(self.cap, self.initial * 2.0 ** min(attempt - 1, 30))
        return self.rng.uniform(ceiling / 2, ceiling)
