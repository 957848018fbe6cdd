"""What ``status`` says: always JSON-able, rates that mean something, problems where they are."""

from __future__ import annotations

import io
import json
from typing import Any

from rich.console import Console

from cluster.cli.show import show_status
from cluster.config import parse
from cluster.supervisor.fleet import PING_INTERVAL, SILENT, Fleet
from cluster.supervisor.hosts import Hosts
from cluster.supervisor.pauses import Pauses
from cluster.supervisor.plan import decoder_specs, drainer_spec, monitor_specs, standby_specs, writer_specs
from cluster.supervisor.pool import Pool
from cluster.supervisor.spools import FoundSpool, Place
from cluster.watch.status import RATE_WINDOW, Rates, pipeline_status
from tests.cluster.supervisor.test_hosts import node

CONFIG = parse(
    """\
pipeline: p
source: {kinetica: {url: http://127.0.0.1:9191}}
tables: [{name: t}]
sinks: {events: {kronos: {url: "http://127.0.0.1:8151"}}}
""",
    "/f.yaml",
    {},
)
MONITOR, WRITER, DECODER = "p/monitor/t", "p/writer/events", "p/decoder/0"


def started() -> Fleet:
    fleet = Fleet(failures={"p/decoder/9": 3})
    fleet.want(monitor_specs(CONFIG) + writer_specs(CONFIG) + decoder_specs(CONFIG, 1))
    fleet.actions(0.0)
    return fleet


def status(
    fleet: Fleet,
    rates: Rates | None = None,
    hosts: Hosts | None = None,
    now: float = 0.0,
    pauses: Pauses | None = None,
) -> dict[str, Any]:
    made = pipeline_status(
        CONFIG,
        fleet,
        rates or Rates(),
        hosts or Hosts(),
        now=now,
        state="running",
        since=1.0,
        pool=Pool(CONFIG, {}).status(),
        pauses=pauses or Pauses(),
        web={"url": "http://127.0.0.1:9280", "problem": None},
    )
    assert json.loads(json.dumps(made)) == made
    show_status(made, Console(file=io.StringIO(), width=100))
    return made


def answers(received: int = 0, **more: Any) -> dict[str, Any]:
    lane = {"sink": "events", "problem": None, "pending_records": 4}
    return {"pid": 7, "state": "receiving", "problem": None, "received": received, "lanes": [lane], **more}


def test_before_anybody_answered() -> None:
    made = status(started())
    assert made["decoders"] == {**made["decoders"], "wanted": 1, "running": 0}
    assert (made["restarts"], made["adopted"]) == (3, 0)
    assert [part["state"] for part in (*made["tables"], *made["sinks"])] == ["starting", "starting"]
    assert made["tables"][0]["pid"] is None


def test_when_all_is_well() -> None:
    fleet = started()
    fleet.answered(MONITOR, answers(10), 1.0)
    fleet.answered(WRITER, {"pid": 8, "records": 9, "problem": None}, 1.0, adopted=True)
    fleet.answered(DECODER, {"pid": 9, "blocks": 2, "node": "1"}, 1.0)
    hosts = Hosts()
    hosts.look([node("here", "1")], 0.0)
    made = status(fleet, hosts=hosts)
    (table,), (sink,) = made["tables"], made["sinks"]
    assert (table["state"], table["pid"], table["received"], table["pending"]) == ("receiving", 7, 10, 4)
    assert (sink["state"], sink["kind"], sink["records"]) == ("up", "kronos", 9)
    assert (made["decoders"]["running"], made["adopted"]) == (1, 1)
    assert [decoder["host"] for decoder in made["decoders"]["members"]] == ["here"]


def test_a_table_that_is_about_to_go_is_shown_last() -> None:
    """While a change is under way, its monitor is still there and the file has it no more."""
    fleet = Fleet()
    both = CONFIG.model_copy(
        update={"tables": (CONFIG.tables[0].model_copy(update={"name": "gone"}), *CONFIG.tables)}
    )
    fleet.want(monitor_specs(both))
    assert [table["name"] for table in status(fleet)["tables"]] == ["t", "gone"]


def test_a_lane_that_is_parked_is_the_tables_problem() -> None:
    fleet = started()
    lanes = [{"sink": "events", "problem": "no such column", "pending_records": 1}]
    fleet.answered(MONITOR, answers(lanes=lanes), 1.0)
    assert status(fleet)["tables"][0]["problem"] == "events: no such column"


def test_who_is_down_says_why_and_shows_neither_process_nor_rate() -> None:
    fleet, rates = started(), Rates()
    for second, count in enumerate((0, 100, 200)):
        fleet.answered(MONITOR, answers(count), float(second))
        rates.sample(fleet, float(second))
    assert status(fleet, rates)["tables"][0]["records_per_second"] == 100.0
    fleet.died(MONITOR, "ActorDiedError: killed", 3.0)
    table = status(fleet, rates)["tables"][0]
    assert (table["state"], table["problem"]) == ("down", "ActorDiedError: killed")
    assert (table["pid"], table["records_per_second"], table["restarts"]) == (None, 0.0, 1)


def test_rates_are_of_the_last_seconds_and_survive_restarts() -> None:
    fleet, rates = started(), Rates()

    def sample(now: float, count: int) -> float:
        fleet.answered(MONITOR, answers(count), now)
        rates.sample(fleet, now)
        return rates.of(MONITOR)

    assert sample(0.0, 0) == 0.0
    assert sample(1.0, 1000) == 1000.0
    for second in range(2, 30):
        latest = sample(float(second), 1000)
    assert latest == 0.0
    assert sample(30.0, 1000 + 500) == 500 / RATE_WINDOW
    assert sample(31.0, 10) == 0.0  # a new life
    assert sample(32.0, 30) == 20.0
    rates.sample(fleet, 33.0)  # no new answer
    assert rates.of(MONITOR) == 20.0
    assert rates.of("unknown") == 0.0


def test_an_aborted_table_names_the_first_record_and_the_way_back() -> None:
    def lane(sink: str, offset: int) -> dict[str, Any]:
        abort = {"block": ["t", 7, offset - 1], "offset": offset, "reason": f"bad {offset}", "count": 2}
        return {"sink": sink, "problem": "bad", "pending_records": 1, "aborted": abort}

    fleet = started()
    fleet.answered(MONITOR, json.loads(json.dumps(answers(lanes=[lane("a", 30), lane("b", 13)]))), 1.0)
    table = status(fleet)["tables"][0]
    origin = table["aborted"]["origin"]
    assert origin.endswith("/t/7/13")
    assert table["aborted"] == {"origin": origin, "reason": "bad 13", "records": 2}
    assert table["state"] == "aborted"
    assert table["problem"].startswith(f"{origin} did not decode: bad 13; ")
    assert "--skip" in table["problem"]
    fleet.answered(MONITOR, answers(state="paused", lanes=[lane("a", 30)]), 2.0)
    assert status(fleet)["tables"][0]["state"] == "paused"


def test_who_does_not_answer_and_who_waits_for_resources_says_so() -> None:
    fleet = started()
    fleet.answered(MONITOR, answers(10), 1.0)
    fleet.actions(1.0 + PING_INTERVAL)
    asked = 1.0 + PING_INTERVAL
    assert status(fleet, now=asked + SILENT - 0.1)["tables"][0]["state"] == "receiving"
    table = status(fleet, now=asked + 7)["tables"][0]
    assert (table["state"], table["problem"]) == ("silent", "not answering for 7 s")
    fleet.waits(WRITER, "waiting for 0.1 CPUs", 5.0)
    (sink,) = status(fleet)["sinks"]
    assert (sink["state"], sink["problem"]) == ("waiting", "waiting for 0.1 CPUs")
    fleet.answered(WRITER, {"pid": 8}, 9.0)
    assert status(fleet)["sinks"][0]["state"] == "up"


def test_spools_without_a_monitor_are_shown_with_what_they_hold() -> None:
    hosts = Hosts(homes={"t": "a"})
    hosts.look([node("a", "1"), node("b", "2")], 0.0)
    letters = FoundSpool("gone", 5, {"events": 0}, dead_letters=2)
    hosts.found(
        "a", [FoundSpool("t", 9, {"events": 4}), FoundSpool("old", 5, {"lost": 8, "events": 0}), letters]
    )
    hosts.found("b", [FoundSpool("t", 7, {"events": 3}), FoundSpool("empty", 7, {"events": 0})])
    fleet = started()
    fleet.want([drainer_spec(CONFIG, Place("b", "t", "t"), ["events"], 7)])
    fleet.actions(0.0)
    fleet.answered("p/drainer/b/t", answers(), 1.0)
    hosts.drained(Place("a", "gone", "gone"))
    shown = {(spool["host"], spool["table"]): spool for spool in status(fleet, hosts=hosts)["spools"]}
    assert set(shown) == {("a", "old"), ("a", "gone"), ("b", "t")}
    assert (shown["b", "t"]["state"], shown["b", "t"]["records"]) == ("draining", 4)
    assert shown["a", "old"]["records"] == 8
    assert shown["a", "old"]["problem"] == "held on host a: the file has no sink lost any more"
    assert "dead letters failed again" in shown["a", "gone"]["problem"]
    hosts.look([node("a", "1")], 1.0)
    (lost,) = (
        spool for spool in status(fleet, hosts=hosts)["spools"] if spool["host"] == "b" and spool["records"]
    )
    assert (lost["table"], lost["state"], lost["records"]) == ("t", "held", 3)
    assert lost["problem"] == "held on host b, which is gone; they are delivered when it is back"
    assert [(host["name"], host["alive"]) for host in status(fleet, hosts=hosts)["hosts"]] == [
        ("a", True),
        ("b", False),
    ]


def test_a_standby_is_shown_with_its_table() -> None:
    config = CONFIG.model_copy(update={"tables": (CONFIG.tables[0].model_copy(update={"standby": True}),)})
    fleet = Fleet()
    fleet.want(monitor_specs(config) + standby_specs(config))
    fleet.actions(0.0)
    assert status(fleet)["tables"][0]["standby"]["state"] == "starting"
    fleet.answered(MONITOR, answers(standby={"complete": True, "problem": None, "healed": 2}), 1.0)
    said = {"pid": 8, "state": "ready", "ready": True, "aligned": True, "lacked": 1, "problem": None}
    fleet.answered(f"{MONITOR}~standby", said, 1.0)
    shown = status(fleet, hosts=Hosts(homes={"t": "a", "t~standby": "b"}))["tables"][0]
    assert (shown["host"], shown["state"]) == ("a", "receiving")
    standby = shown["standby"]
    assert (standby["state"], standby["host"], standby["pid"], standby["aligned"]) == ("ready", "b", 8, True)
    assert (standby["lacked"], standby["healed"], standby["problem"]) == (1, 2, None)


def test_the_latest_changes_of_the_pool_are_shown_with_their_reasons() -> None:
    pool = Pool(CONFIG, {})
    for size in (2, 3, 4, 1):
        pool.resize(size, "load", f"reason for {size}", 0.0)
    out = io.StringIO()
    made = {**status(started()), "decoders": {**pool.status(), "running": 1, "members": []}}
    show_status(made, Console(file=out, width=100))
    shown = out.getvalue()
    assert "decoders 1 to 4 by load: not known yet" in shown
    assert "4 -> 1: reason for 1" in shown
    assert "2 -> 3: reason for 3" in shown
    assert "1 -> 2" not in shown


def test_what_is_paused_is_said_beside_its_state() -> None:
    fleet = started()
    fleet.answered(MONITOR, answers(10), 1.0)
    fleet.answered(WRITER, {"pid": 8, "records": 9, "problem": None}, 1.0)
    made = status(fleet, pauses=Pauses(sinks={"events"}))
    assert [(part["state"], part["paused"]) for part in (*made["tables"], *made["sinks"])] == [
        ("receiving", False),
        ("up", True),
    ]
    assert status(fleet, pauses=Pauses(tables={"t"}))["tables"][0]["paused"]


def test_restarts_are_counted_over_lives_of_the_supervisor() -> None:
    first = started()
    first.died(MONITOR, "killed", 1.0)
    second = Fleet(failures=first.failures)
    second.want(monitor_specs(CONFIG))
    made = status(second)
    assert (made["tables"][0]["restarts"], made["restarts"]) == (1, 4)
    second.unwant(MONITOR)
    assert second.restarts == 4
