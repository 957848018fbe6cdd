"""What ``status`` says of a pipeline: one JSON-able dict from the fleet's latest answers."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from cluster.config import PipelineConfig
from cluster.fleet import Fleet, Member, MemberState

#: Seconds over which rates are averaged.
RATE_WINDOW = 5.0


class Rates:
    """Records per second of counters that only grow, over the last seconds. A counter that fell was restarted."""

    def __init__(self) -> None:
        self._samples: dict[str, deque[tuple[float, int]]] = {}

    def sample(self, fleet: Fleet, now: float) -> None:
        """Take the counters as of `now` (monotonic seconds)."""
        for name, member in fleet.members.items():
            answer = member.answer
            count = answer.get("received", answer.get("records"))
            if count is None:
                continue
            samples = self._samples.setdefault(name, deque())
            if samples and (count < samples[-1][1]):
                samples.clear()
            if not samples or member.answered_at > samples[-1][0]:
                samples.append((member.answered_at, count))
            while len(samples) > 2 and samples[0][0] < now - RATE_WINDOW:
                samples.popleft()

    def of(self, name: str) -> float:
        """Records per second of the actor `name`; 0.0 if unknown."""
        samples = self._samples.get(name)
        if not samples or samples[-1][0] <= samples[0][0]:
            return 0.0
        return (samples[-1][1] - samples[0][1]) / (samples[-1][0] - samples[0][0])


def pipeline_status(
    config: PipelineConfig,
    fleet: Fleet,
    rates: Rates,
    *,
    state: str,
    since: float,
    decoders: int,
    earlier_restarts: int,
) -> dict[str, Any]:
    """The whole pipeline. `since` is when this supervisor started, in seconds since 1970."""
    by_kind: dict[str, list[Member]] = {"monitor": [], "decoder": [], "writer": []}
    for member in fleet.members.values():
        by_kind[member.spec.kind].append(member)
    return {
        "pipeline": config.pipeline,
        "state": state,
        "time": time.time(),
        "supervisor_since": since,
        "restarts": earlier_restarts + fleet.restarts,
        "adopted": sum(member.adopted for member in fleet.members.values()),
        "alerts": list(fleet.alerts),
        "tables": [_table(member, rates) for member in by_kind["monitor"]],
        "decoders": {
            "wanted": decoders,
            "running": sum(member.state is MemberState.UP for member in by_kind["decoder"]),
            "members": [_decoder(member, rates) for member in by_kind["decoder"]],
        },
        "sinks": [_sink(member, rates) for member in by_kind["writer"]],
    }


def _common(member: Member, rates: Rates) -> dict[str, Any]:
    answer = member.answer
    up = member.state is MemberState.UP
    problem = answer.get("problem") if up else member.history.last_reason
    return {
        "name": member.spec.which,
        "state": member.state.value,
        "pid": answer.get("pid") if up else None,
        "problem": problem,
        "restarts": member.history.count,
        "recovery_seconds": [round(seconds, 3) for seconds in member.recovery],
        "records_per_second": round(rates.of(member.spec.name), 1) if up else 0.0,
    }


def _table(member: Member, rates: Rates) -> dict[str, Any]:
    answer = member.answer
    status = _common(member, rates)
    if member.state is MemberState.UP:
        status["state"] = answer.get("state", "starting")
    lanes = answer.get("lanes", [])
    problems = [f"{lane['sink']}: {lane['problem']}" for lane in lanes if lane["problem"]]
    if problems and not status["problem"]:
        status["problem"] = "; ".join(problems)
    if status["state"] == "receiving" and any(lane.get("state") == "parked" for lane in lanes):
        status["state"] = "parked"
        status["problem"] = f"{status['problem']}; mend that and `tablecast resume`"
    aborted = _aborted(member)
    if aborted is not None and status["state"] in ("receiving", "parked"):
        status["state"] = "aborted"
        status["problem"] = (
            f"{aborted['origin']} did not decode: {aborted['reason']}; mend that and `tablecast resume`,"
            " or let it go to the dead letters with --skip"
        )
    return {
        **status,
        "aborted": aborted,
        "epoch": answer.get("epoch"),
        "received": answer.get("received", 0),
        "last_received": answer.get("last_received"),
        "reconnects": answer.get("reconnects", 0),
        "pending": max((lane["pending_records"] for lane in lanes), default=0),
        "spool_bytes": answer.get("spool_bytes", 0),
        "dead_letters": answer.get("dead_letters", 0),
        "lanes": lanes,
    }


def _aborted(member: Member) -> dict[str, Any] | None:
    """The first record that stops a lane of the table: its origin, the reason, and how many of its block do."""
    found = [lane["aborted"] for lane in member.answer.get("lanes", []) if lane.get("aborted")]
    if not found:
        return None
    first = min(found, key=lambda abort: (*abort["block"], abort["offset"]))
    feed, epoch, _ = first["block"]
    origin = f"{member.spec.settings.pipeline}/{feed}/{epoch}/{first['offset']}"
    return {"origin": origin, "reason": first["reason"], "records": first["count"]}


def _decoder(member: Member, rates: Rates) -> dict[str, Any]:
    answer = member.answer
    counts = {key: answer.get(key, 0) for key in ("blocks", "records", "rejects", "busy_seconds")}
    return {**_common(member, rates), **counts}


def _sink(member: Member, rates: Rates) -> dict[str, Any]:
    answer = member.answer
    counts = {key: answer.get(key, 0) for key in ("records", "requests", "retries", "waiting")}
    (kind,) = member.spec.settings
    return {**_common(member, rates), "kind": kind, **counts, "problem_since": answer.get("problem_since")}
