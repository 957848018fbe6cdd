"""What the pool remembers of its steps, and what is measured of a fleet."""

from __future__ import annotations

import json
from typing import Any

from cluster.config import PipelineConfig
from cluster.supervisor.fleet import Fleet
from cluster.supervisor.load import WINDOW, Gauge
from cluster.supervisor.plan import decoder_specs, monitor_specs, writer_specs
from cluster.supervisor.pool import JUDGE_INTERVAL, Pool
from tests.cluster.supervisor.test_difference import config


def pool_config(low: int = 1, high: int = 4, **scaling: float) -> PipelineConfig:
    return config(decoders={"min": low, "max": high, "scaling": scaling})


def started(decoders: int = 2) -> Fleet:
    fleet = Fleet()
    fleet.want(monitor_specs(config()) + writer_specs(config()) + decoder_specs(config(), decoders))
    fleet.actions(0.0)
    return fleet


def says(fleet: Fleet, decoder: int, clock: float, busy: float, size: int = 0, pid: int = 1) -> None:
    answer = {"pid": pid, "clock": clock, "busy_seconds": busy, "bytes": size}
    fleet.answered(f"p/decoder/{decoder}", answer, clock)


def lane(feed: str, sink: str, size: int, state: str = "open", lag: float = 0.0) -> dict[str, Any]:
    return {"feed": feed, "sink": sink, "state": state, "pending_bytes": size, "lag_seconds": lag}


def test_busy_shares_and_rates_are_those_of_the_last_seconds() -> None:
    fleet, gauge = started(), Gauge()
    assert gauge.measure(fleet).busy is None
    for second in range(20):  # each has a clock of its own; the second works since 10
        says(fleet, 0, 100.0 + second, second * 0.5, second * 1000)
        says(fleet, 1, 7.0 + second, max(0, second - 10), max(0, second - 10) * 4000)
        load = gauge.measure(fleet)
    assert (load.busy, load.rate, load.running) == (0.75, 5000.0, 2)
    says(fleet, 1, 1.0, 0.0, pid=2)  # started anew
    assert gauge.measure(fleet).busy == 0.5
    says(fleet, 1, 2.0, 0.1, pid=2)
    load = gauge.measure(fleet)
    assert load.busy is not None
    assert round(load.busy, 6) == 0.3
    fleet.unwant("p/decoder/1")
    load = gauge.measure(fleet)
    assert (load.busy, load.running) == (0.5, 1)
    assert WINDOW < 10


def test_what_waits_counts_once_for_all_sinks_and_not_where_decoders_cannot_help() -> None:
    fleet, gauge = started(), Gauge()
    lanes = [
        lane("a", "one", 30, lag=10.0),
        lane("a", "two", 50, lag=30.0),
        lane("a.deletes", "one", 1),
    ]
    fleet.answered("p/monitor/a", {"pid": 1, "lanes": lanes}, 1.0)
    fleet.answered("p/monitor/b", {"pid": 1, "lanes": [lane("b", "one", 500, state="parked", lag=99.0)]}, 1.0)
    load = gauge.measure(fleet)
    assert (load.backlog, load.lag) == (51, 30.0)
    fleet.answered("p/writer/two", {"pid": 1, "circuit": "open"}, 1.0)
    load = gauge.measure(fleet)
    assert (load.backlog, load.lag) == (31, 10.0)
    assert load.running == 0
    fleet.answered("p/monitor/a", {"pid": 1, "lanes": [{**lanes[0], "paused": True}]}, 1.0)
    assert gauge.measure(fleet).backlog == 0


def test_steps_are_remembered_with_their_reasons() -> None:
    pool = Pool(pool_config(), {})
    assert pool.size == 1
    pool.resize(3, "person", "asked for", 0.0)
    pool.hold()
    pool.resize(3, "person", "asked for", 1.0)
    (step,) = pool.status()["steps"]
    assert (step["from"], step["to"], step["by"], step["reason"]) == (1, 3, "person", "asked for")
    again = Pool(pool_config(), json.loads(json.dumps(pool.dump())))
    assert again.size == 3
    assert again.status()["mode"] == "manual"
    assert again.status()["steps"] == [step]
    again.release()
    assert again.status()["mode"] == "automatic"
    for _ in range(30):
        again.resize(5 - again.size, "person", "asked for", 2.0)
    assert len(again.status()["steps"]) == 20
    assert Pool(pool_config(low=4), pool.dump()).size == 4
    assert again.rebound(pool_config(high=1)) == 1
    assert Pool(pool_config(high=1), {}).status()["mode"] == "fixed"


def test_it_follows_the_load_of_the_fleet() -> None:
    pool, fleet = Pool(pool_config(grow_after=2.0), {}), started(1)
    step, second = None, 0
    while step is None and second < 10:
        says(fleet, 0, float(second), second * 0.95, second * 1_000_000)
        fleet.answered("p/monitor/a", {"pid": 1, "lanes": [lane("a", "one", 40_000_000)]}, float(second))
        step = pool.judge(fleet, 100.0 + second)
        assert pool.judge(fleet, 100.0 + second + JUDGE_INTERVAL / 2) is None  # it has just looked
        second += 1
    assert step is not None
    assert (step.size, step.reason) == (2, "backlog 40 MB would take 40 s at 1.0 MB/s, decoders 95% busy")
    shown = pool.status()
    assert (shown["busy"], shown["backlog_bytes"], shown["backlog_seconds"]) == (0.95, 40_000_000, 40.0)
