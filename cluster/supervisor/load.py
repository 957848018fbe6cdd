"""The load of the pool of decoders, from what monitors, decoders and writers last said of themselves. No Ray."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from cluster.supervisor.fleet import Fleet, Member, MemberState
from cluster.supervisor.scaling import Load

#: Seconds over which decoders' rates are averaged.
WINDOW = 5.0

#: States of a lane that no decoder can help, as none can help a paused one.
_STANDING = ("parked", "aborted")


class _Sample(NamedTuple):
    """What a decoder said: its own clock, and its counters, in seconds and bytes."""

    clock: float
    busy: float
    bytes: int


class Gauge:
    """Measures a fleet again and again."""

    def __init__(self) -> None:
        self._samples: dict[tuple[str, int], deque[_Sample]] = {}

    def measure(self, fleet: Fleet) -> Load:
        """The load as of the latest answers."""
        members = fleet.members.values()
        decoders = [m for m in members if m.spec.kind == "decoder" and m.state is MemberState.UP]
        self._take(decoders)
        spans = [(samples[0], samples[-1]) for samples in self._samples.values() if len(samples) > 1]
        shares = [(last.busy - first.busy) / (last.clock - first.clock) for first, last in spans]
        rate = sum((last.bytes - first.bytes) / (last.clock - first.clock) for first, last in spans)
        closed = {m.spec.which: m.answer.get("circuit", "closed") == "closed" for m in members}
        lanes = [lane for m in members if m.state is MemberState.UP for lane in m.answer.get("lanes", ())]
        backlog, lag = _backlog(lanes, closed)
        return Load(
            backlog=backlog,
            rate=rate,
            busy=sum(min(1.0, share) for share in shares) / len(shares) if shares else None,
            running=len(decoders),
            lag=lag,
        )

    def _take(self, decoders: Iterable[Member]) -> None:
        before, self._samples = self._samples, {}
        for member in decoders:
            answer = member.answer
            if "clock" not in answer:
                continue
            key = member.spec.name, answer["pid"]
            samples = self._samples[key] = before.get(key, deque())
            sample = _Sample(answer["clock"], answer["busy_seconds"], answer["bytes"])
            if not samples or sample.clock > samples[-1].clock:
                samples.append(sample)
            while len(samples) > 2 and samples[0].clock < samples[-1].clock - WINDOW:
                samples.popleft()


def _backlog(lanes: Iterable[Mapping[str, Any]], closed: Mapping[str, bool]) -> tuple[int, float]:
    """Bytes that wait, and for how many seconds the oldest of them has; of sinks that take something.

    A block is decoded once for the sinks that are about as far, so a feed counts with the sink that is the furthest
    behind.
    """
    waiting: dict[str, int] = {}
    lag = 0.0
    for lane in lanes:
        standing = lane.get("state") in _STANDING or lane.get("paused", False)
        if standing or not closed.get(lane["sink"], True):
            continue
        waiting[lane["feed"]] = max(waiting.get(lane["feed"], 0), lane["pending_bytes"])
        lag = max(lag, lane.get("lag_seconds", 0.0))
    return sum(waiting.values()), lag
