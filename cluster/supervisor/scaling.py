"""How many decoders a pipeline should have, and why. A state machine without Ray or a clock.

The pool grows when two things last: what waits would take it too long to decode, and its decoders are busy. Without the
second, something else is the limit, such as a sink, and more decoders would help nobody. It shrinks when its decoders
are idle, whatever waits. Thresholds are apart, so that a pool that has just grown is not idle for it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from cluster.config.decoders import Decoders


@dataclass(frozen=True, slots=True)
class Load:
    """What the pool has to do, and how it copes.

    Attributes:
        backlog: bytes that wait for a sink that takes some.
        rate: bytes that the pool decodes per second, over the last seconds.
        busy: share of the time that its decoders work, 0 to 1, on average; None while that is not known.
        running: decoders that are up.
        lag: seconds since the oldest of what waits was received.
    """

    backlog: int = 0
    rate: float = 0.0
    busy: float | None = None
    running: int = 0
    lag: float = 0.0

    @property
    def seconds(self) -> float:
        """How long the pool takes for what waits; while it has not finished a block, how long that has waited."""
        if not self.backlog:
            return 0.0
        return self.backlog / self.rate if self.rate else self.lag


@dataclass(frozen=True, slots=True)
class Resize:
    """Make the pool so large."""

    size: int
    reason: str


class Scaler:
    """Judges the load of a pool.

    Args:
        settings: bounds and thresholds; may be replaced at any time.
        size: decoders that the pool has.
        held: whether a person has set the size, which holds until :meth:`release`.
    """

    def __init__(self, settings: Decoders, size: int, held: bool = False) -> None:
        self.settings = settings
        self.size = size
        self.held = held
        #: What it makes of the load, in words.
        self.verdict = "not known yet"
        self._not_before: float | None = None
        #: Since when the pool is too small, and too large.
        self._small_since: float | None = None
        self._large_since: float | None = None

    def resized(self, size: int, now: float) -> None:
        """The pool has `size` decoders from now on (`now` in seconds, any origin)."""
        self.size = size
        self._small_since = self._large_since = None
        self._not_before = now + self.settings.scaling.cool_down

    def hold(self) -> None:
        """A person has set the size."""
        self.held = True

    def release(self) -> None:
        """The size follows the load again."""
        self.held = False
        self._small_since = self._large_since = None

    def judge(self, load: Load, now: float) -> Resize | None:
        """What to make of `load` at `now` (seconds); to be called once a second or so."""
        if load.busy is None:
            self._small_since = self._large_since = None
            self.verdict = "not known yet"
            return None
        rules = self.settings.scaling
        larger, smaller = self._larger(load), self._smaller(load)
        if self._not_before is not None and now < self._not_before:
            self.verdict = f"{_text(load)}; has just changed"
            return None
        self._small_since = None if larger is None else _first(self._small_since, now)
        self._large_since = None if smaller is None else _first(self._large_since, now)
        step = after = None
        if self._small_since is not None and larger is not None:
            step, after = larger, rules.grow_after - (now - self._small_since)
        elif self._large_since is not None and smaller is not None:
            step, after = smaller, rules.shrink_after - (now - self._large_since)
        if step is None or after is None:
            self.verdict = self._steady(load)
            return None
        if self.held:
            self.verdict = f"{_text(load)}; held at {self.size} by hand"
            return None
        if after > 0:
            self.verdict = f"{_text(load)}; to {step.size} if that lasts"
            return None
        return step

    def _larger(self, load: Load) -> Resize | None:
        """So many as get it done in time, at most twice as many as now; None: there are enough."""
        rules, bounds = self.settings.scaling, self.settings
        wait = load.seconds
        if load.busy is None or load.busy < rules.busy_above or wait <= rules.backlog_seconds:
            return None
        if load.running < self.size:
            return None  # let those come first
        needed = math.ceil(min(2.0, wait / rules.backlog_seconds) * self.size)
        size = min(needed, 2 * self.size, bounds.max)
        return Resize(size, _text(load)) if size > self.size else None

    def _smaller(self, load: Load) -> Resize | None:
        """So few as would still not be busy, at least half of those now; None: there are not too many."""
        rules, bounds = self.settings.scaling, self.settings
        if load.busy is None:
            return None
        work = load.busy * load.running
        if work >= rules.idle_below * self.size:
            return None
        enough = math.ceil(work / ((rules.busy_above + rules.idle_below) / 2))
        size = max(enough, math.ceil(self.size / 2), bounds.min)
        return Resize(size, _text(load)) if size < self.size else None

    def _steady(self, load: Load) -> str:
        rules, text = self.settings.scaling, _text(load)
        missing = self.size - load.running
        if missing > 0:
            return f"{text}; {missing} of {self.size} decoders are not up"
        if load.seconds <= rules.backlog_seconds:
            return f"{text}; keeps up"
        if load.busy is not None and load.busy < rules.busy_above:
            return f"{text}; not decoders are the limit, but what comes before or after them"
        if self.size >= self.settings.max:
            return f"{text}; more are not allowed"
        return text


def _first(since: float | None, now: float) -> float:
    return now if since is None else since


def _text(load: Load) -> str:
    """The load in words."""
    busy = f"decoders {load.busy or 0:.0%} busy"
    if not load.backlog:
        return f"nothing waits, {busy}"
    if not load.rate:
        return f"backlog {size_text(load.backlog)}, the oldest for {load.lag:,.0f} s, {busy}"
    return f"backlog {size_text(load.backlog)} would take {load.seconds:,.0f} s at {size_text(load.rate)}/s, {busy}"


def size_text(size: float) -> str:
    """Bytes as ``240 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if size >= 10 or unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"
