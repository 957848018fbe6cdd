"""What ``status`` says of a pipeline: one JSON-able dict from the fleet's latest answers."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from cluster.config import PipelineConfig
from cluster.supervisor.fleet import SILENT, Fleet, Member, MemberState
from cluster.supervisor.hosts import Hosts
from cluster.supervisor.pauses import Pauses
from cluster.supervisor.plan import ActorSpec
from cluster.supervisor.spools import FoundSpool, Place

#: Kinds of members of which a table has one or two.
TABLES = ("monitor", "standby")

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
    hosts: Hosts,
    *,
    now: float,
    state: str,
    since: float,
    pool: dict[str, Any],
    pauses: Pauses,
    web: Mapping[str, Any],
) -> dict[str, Any]:
    """The whole pipeline, from the supervisor's process at `now` (monotonic seconds).

    `since` is when it started, in seconds since 1970; `pool` what :meth:`Pool.status` gives; `web` tells
    of the page. Restarts are counted since the pipeline was started.
    """
    by_kind: dict[str, list[Member]] = {
        "monitor": [],
        "standby": [],
        "drainer": [],
        "decoder": [],
        "writer": [],
    }
    for member in fleet.members.values():
        by_kind[member.spec.kind].append(member)
    order = {table.name: number for number, table in enumerate(config.tables)}
    standbys = {member.spec.which: member for member in by_kind["standby"]}
    return {
        "pipeline": config.pipeline,
        "state": state,
        "time": time.time(),
        "supervisor_pid": os.getpid(),
        "supervisor_since": since,
        "restarts": fleet.restarts,
        "adopted": sum(member.adopted for member in fleet.members.values()),
        "alerts": list(fleet.alerts),
        "web": dict(web),
        "hosts": _hosts(hosts, [member.spec for kind in TABLES for member in by_kind[kind]]),
        "tables": [
            {
                **_table(member, fleet, rates, now),
                "actor": member.spec.actor,
                "paused": member.spec.which in pauses.tables,
                "host": hosts.homes.get(member.spec.home),
                "standby": _standby(standbys.get(member.spec.which), member, fleet, hosts),
            }
            # While a change is under way, some are of tables that the file has no more.
            for member in sorted(
                by_kind["monitor"], key=lambda member: order.get(member.spec.which, len(order))
            )
        ],
        "spools": _spools(
            hosts,
            config,
            {(member.spec.home, member.spec.which) for kind in TABLES for member in by_kind[kind]},
            {_place(member): member for member in by_kind["drainer"]},
            fleet,
            rates,
            now,
        ),
        "decoders": {
            **pool,
            "running": sum(member.state is MemberState.UP for member in by_kind["decoder"]),
            "members": [_decoder(member, fleet, rates, hosts, now) for member in by_kind["decoder"]],
        },
        "sinks": [
            {**_sink(member, fleet, rates, now), "paused": member.spec.which in pauses.sinks}
            for member in by_kind["writer"]
        ],
    }


def _hosts(hosts: Hosts, specs: list[ActorSpec]) -> list[dict[str, Any]]:
    names = sorted({*hosts.alive, *hosts.homes.values(), *(place.host for place in hosts.spools)})
    return [
        {
            "name": name,
            "alive": name in hosts.alive,
            "searched": hosts.searched(name),
            "tables": sorted({spec.which for spec in specs if hosts.homes.get(spec.home) == name}),
            "problem": hosts.problems.get(name),
        }
        for name in names
    ]


def _place(member: Member) -> Place:
    return Place(member.spec.settings.drain.host, member.spec.home, member.spec.which)


def _spools(
    hosts: Hosts,
    config: PipelineConfig,
    wanted: set[tuple[str, str]],
    drainers: dict[Place, Member],
    fleet: Fleet,
    rates: Rates,
    now: float,
) -> list[dict[str, Any]]:
    """The spools that no monitor of `wanted`, (home, table), has and that are not empty."""
    found = []
    for place, spool in sorted(hosts.orphans(wanted).items()):
        host, _, table = place
        drainer = drainers.get(place)
        if not (spool.records or spool.problem or drainer):
            continue
        entry = {
            "table": table,
            "host": host,
            "state": "held",
            "records": max(spool.pending.values(), default=0),
            "dead_letters": spool.dead_letters,
            "problem": _held(host, spool, hosts, config),
        }
        if drainer is not None and host in hosts.alive:
            told = _table(drainer, fleet, rates, now)
            up = drainer.state is MemberState.UP
            entry |= {"state": "draining", "problem": told["problem"]}
            entry |= {"records": told["pending"], "dead_letters": told["dead_letters"]} if up else {}
        found.append(entry)
    return found


def _held(host: str, spool: FoundSpool, hosts: Hosts, config: PipelineConfig) -> str:
    """Why the records of an orphan stay where they are."""
    if host not in hosts.alive:
        return f"held on host {host}, which is gone; they are delivered when it is back"
    absent = [sink for sink, records in spool.pending.items() if records and sink not in config.sinks]
    reasons = [spool.problem] if spool.problem else []
    reasons += [f"the file has no sink {sink} any more" for sink in absent]
    reasons += ["the dead letters failed again; they stay"] if spool.dead_letters else []
    return f"held on host {host}: {'; '.join(reasons) or 'about to be delivered'}"


def _common(member: Member, fleet: Fleet, rates: Rates, now: float) -> dict[str, Any]:
    answer = member.answer
    up = member.state is MemberState.UP
    problem = member.waiting or (answer.get("problem") if up else member.history.last_reason)
    state = "waiting" if member.waiting else member.state.value
    if up and member.asked_at is not None and now >= member.asked_at + SILENT:
        state, problem = "silent", f"not answering for {now - member.asked_at:.0f} s"
    return {
        "name": member.spec.which,
        "state": state,
        "pid": answer.get("pid") if up else None,
        "problem": problem,
        "restarts": fleet.failures[member.spec.name],
        "recovery_seconds": [round(seconds, 3) for seconds in member.recovery],
        "records_per_second": round(rates.of(member.spec.name), 1) if up else 0.0,
    }


def _table(member: Member, fleet: Fleet, rates: Rates, now: float) -> dict[str, Any]:
    answer = member.answer
    status = _common(member, fleet, rates, now)
    if status["state"] == "up":
        status["state"] = answer.get("state", "starting")
    lanes = answer.get("lanes", [])
    problems = [f"{lane['sink']}: {lane['problem']}" for lane in lanes if lane["problem"]]
    if problems and not status["problem"]:
        status["problem"] = "; ".join(problems)
    if status["state"] in ("receiving", "done") and any(lane.get("state") == "parked" for lane in lanes):
        status["state"] = "parked"
        status["problem"] = f"{status['problem']}; mend that and `tablecast resume`"
    aborted = _aborted(member)
    if aborted is not None and status["state"] in ("receiving", "done", "parked"):
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
        "progress": answer.get("progress"),
        "reconnects": answer.get("reconnects", 0),
        "pending": max((lane["pending_records"] for lane in lanes), default=0),
        "lag_seconds": _lag(member, now),
        "spool_bytes": answer.get("spool_bytes", 0),
        "dead_letters": answer.get("dead_letters", 0),
        "resident_bytes": answer.get("resident_bytes"),
        "source": answer.get("account"),
        "lost": (answer.get("account") or {}).get("shortfall") or 0,
        "accounts": [lane["account"] for lane in lanes if lane.get("account")],
        "gaps": answer.get("gaps", {"counts": {}, "latest": []}),
        "catch_up": answer.get("catch_up"),
        "lanes": lanes,
    }


def _lag(member: Member, now: float) -> float:
    """Of the lane furthest behind, as its monitor said; it goes on growing while that does not answer."""
    lag: float = max((lane.get("lag_seconds", 0.0) for lane in member.answer.get("lanes", [])), default=0.0)
    silent = now - member.answered_at if member.state is not MemberState.UP or member.asked_at else 0.0
    return round(lag + max(0.0, silent), 3) if lag else 0.0


def _standby(standby: Member | None, monitor: Member, fleet: Fleet, hosts: Hosts) -> dict[str, Any] | None:
    """The table's standby: ``ready`` to take over at once, ``copying``, ``waiting`` for the monitor, or down."""
    if standby is None:
        return None
    up = standby.state is MemberState.UP
    answer = standby.answer if up else {}
    seen = monitor.answer.get("standby") or {}
    return {
        "state": answer.get("state", "starting") if up else standby.state.value,
        "pid": answer.get("pid"),
        "host": hosts.homes.get(standby.spec.home),
        "problem": standby.waiting or (answer.get("problem") or seen.get("problem"))
        if up
        else standby.history.last_reason,
        "aligned": answer.get("aligned", False),
        "lacked": answer.get("lacked", 0),
        "healed": seen.get("healed", 0),
        "restarts": fleet.failures[standby.spec.name],
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


def _decoder(member: Member, fleet: Fleet, rates: Rates, hosts: Hosts, now: float) -> dict[str, Any]:
    answer = member.answer
    numbers = ("blocks", "records", "bytes", "rejects", "filtered", "busy_seconds")
    return {
        **_common(member, fleet, rates, now),
        "host": hosts.names.get(answer.get("node", "")),
        **{key: answer.get(key, 0) for key in numbers},
    }


def _sink(member: Member, fleet: Fleet, rates: Rates, now: float) -> dict[str, Any]:
    answer = member.answer
    numbers = (
        "records",
        "requests",
        "retries",
        "refused",
        "waiting",
        "buffered_bytes",
        "callers",
        "in_flight",
    )
    facts = ("circuit", "concurrency", "problem_since", "last_error", "last_error_at")
    (kind,) = member.spec.settings
    return {
        **_common(member, fleet, rates, now),
        "kind": kind,
        **{key: answer.get(key, 0) for key in numbers},
        **{key: answer.get(key) for key in facts},
    }
