"""The pool of decoders as the supervisor has it: how many, why so many, and how that came. No Ray."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from cluster.config import PipelineConfig
from cluster.supervisor.fleet import Fleet
from cluster.supervisor.load import Gauge
from cluster.supervisor.scaling import Load, Resize, Scaler

#: Seconds between two looks at the load.
JUDGE_INTERVAL = 1.0

#: Steps remembered, and shown.
_STEPS = 20


class Pool:
    """The decoders of the pipeline `config`; `remembered` is what :meth:`dump` gave in an earlier life, or empty."""

    def __init__(self, config: PipelineConfig, remembered: Mapping[str, Any]) -> None:
        bounds = config.decoders
        size = min(max(int(remembered.get("size", bounds.min)), bounds.min), bounds.max)
        self._scaler = Scaler(bounds, size, bool(remembered.get("held", False)))
        self._steps: list[dict[str, Any]] = list(remembered.get("steps", ()))
        self._gauge = Gauge()
        self._load = Load()
        self._judged_at = 0.0

    @property
    def size(self) -> int:
        """How many there should be."""
        return self._scaler.size

    def judge(self, fleet: Fleet, now: float) -> Resize | None:
        """What the load asks for at `now` (monotonic seconds)."""
        if now < self._judged_at + JUDGE_INTERVAL:
            return None
        self._judged_at = now
        self._load = self._gauge.measure(fleet)
        return self._scaler.judge(self._load, now)

    def resize(self, size: int, by: str, reason: str, now: float) -> None:
        """Note that there are to be `size`, and why. `by` is ``load``, ``person`` or ``file``."""
        if size != self.size:
            step = {"time": time.time(), "from": self.size, "to": size, "by": by, "reason": reason}
            self._steps = [*self._steps, step][-_STEPS:]
        self._scaler.resized(size, now)

    def hold(self) -> None:
        """The size is a person's and stays until :meth:`release`."""
        self._scaler.hold()

    def release(self) -> None:
        """The size follows the load."""
        self._scaler.release()

    def rebound(self, config: PipelineConfig) -> int:
        """Go by a changed file; returns the size that it allows."""
        self._scaler.settings = config.decoders
        return min(max(self.size, config.decoders.min), config.decoders.max)

    def dump(self) -> dict[str, Any]:
        """What a restarted supervisor has to know, as JSON-able values."""
        return {"size": self.size, "held": self._scaler.held, "steps": self._steps}

    def status(self) -> dict[str, Any]:
        """The size, the bounds, the load and what was made of it, and the last steps, the newest last."""
        bounds, load = self._scaler.settings, self._load
        return {
            "wanted": self.size,
            "min": bounds.min,
            "max": bounds.max,
            "mode": "manual" if self._scaler.held else "automatic" if bounds.min < bounds.max else "fixed",
            "busy": None if load.busy is None else round(load.busy, 3),
            "backlog_bytes": load.backlog,
            "backlog_seconds": round(load.seconds, 1),
            "lag_seconds": round(load.lag, 1),
            "bytes_per_second": round(load.rate, 1),
            "verdict": self._scaler.verdict,
            "steps": list(self._steps),
        }
