"""Where monitors live: with their spools, spread, moved when a host is gone; and which spools are orphans."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from actors.monitor.settings import Predecessor
from cluster.supervisor.hosts import GONE, LABEL, Hosts, Wait
from cluster.supervisor.spools import FoundSpool, Place


def node(
    host: str, id: str = "", cpus: float = 4.0, label: bool = True, alive: bool = True
) -> dict[str, Any]:
    """As in ``ray.nodes()``."""
    return {
        "NodeID": id or host,
        "Alive": alive,
        "NodeManagerHostname": "here" if label else host,
        "Labels": {LABEL: host} if label else {},
        "Resources": {"CPU": cpus} if cpus else {},
    }


def searched(*names: str) -> Hosts:
    """Hosts on which nothing was found."""
    hosts = Hosts()
    for host in hosts.look([node(name) for name in names], 0.0):
        hosts.found(host, [])
    return hosts


def wanted(tables: str) -> set[tuple[str, str]]:
    """Tables with homes of their own."""
    return {(table, table) for table in tables}


def answer(epoch: int, pending: int = 0) -> dict[str, Any]:
    lanes = [{"sink": "s", "pending_records": pending}]
    return {"epoch": epoch, "lanes": lanes, "dead_letters": 0, "topics": [f"topic {epoch}"]}


def test_new_tables_are_spread_over_hosts_and_stay() -> None:
    hosts = searched("a", "b", "c")
    places = [hosts.place(f"t{n}", f"t{n}", 0.0) for n in range(6)]
    assert places == ["a", "b", "c", "a", "b", "c"]
    assert [hosts.place(f"t{n}", f"t{n}", 9.0) for n in range(6)] == places


def test_a_standby_is_apart_from_its_monitor_if_that_can_be() -> None:
    hosts = searched("a", "b")
    assert [hosts.place(f"t{n}", f"t{n}", 0.0) for n in range(3)] == ["a", "b", "a"]
    assert hosts.place("t1~standby", "t1", 0.0, apart_from="b") == "a"
    assert searched("a").place("t~standby", "t", 0.0, apart_from="a") == "a"


def test_nothing_is_placed_before_the_spools_are_known_and_then_where_the_newest_is() -> None:
    hosts = Hosts()
    assert set(hosts.look([node("a"), node("b")], 0.0)) == {"a", "b"}
    hosts.found("a", [FoundSpool("t", 5), FoundSpool("u", 7)])
    assert isinstance(hosts.place("t", "t", 0.0), Wait)
    hosts.found("b", [FoundSpool("t", 6)])
    assert (hosts.place("t", "t", 0.0), hosts.place("u", "u", 0.0)) == ("b", "a")
    assert set(hosts.orphans(wanted("tu"))) == {("a", "t", "t")}
    assert set(hosts.orphans(wanted("u"))) == {("a", "t", "t"), ("b", "t", "t")}


def test_a_host_that_does_not_tell_holds_nobody_up() -> None:
    hosts = Hosts()
    hosts.look([node("a"), node("b")], 0.0)
    hosts.found("a", [])
    hosts.failed("b", "no answer")
    assert hosts.place("t", "t", 0.0) == "a"
    assert hosts.problems == {"b": "no answer"}
    hosts.found("b", [])
    assert hosts.problems == {}


def test_where_hosts_are_labelled_the_others_get_no_monitors() -> None:
    hosts = Hosts()
    for host in hosts.look([node("spot", label=False), node("z"), node("idle", cpus=0.0)], 0.0):
        hosts.found(host, [])
    assert [hosts.place(table, table, 0.0) for table in "tu"] == ["z", "z"]
    assert isinstance(searched().place("t", "t", 0.0), Wait)


def test_a_host_that_is_gone_loses_its_tables_after_a_while_and_not_one_that_restarts() -> None:
    hosts = searched("a", "b")
    assert [hosts.place(table, table, 0.0) for table in "tu"] == ["a", "b"]
    assert hosts.answered("u", "u", answer(100, 3))
    assert not hosts.answered("u", "u", answer(100, 7))
    hosts.look([node("a"), node("b", alive=False)], 1.0)
    assert hosts.place("u", "u", GONE - 0.1) == Wait("its host b does not answer")
    assert hosts.place("u", "u", GONE) == "a"
    assert hosts.predecessor("u", "u") == Predecessor("b", 100, 0.1, ("topic 100",))
    assert hosts.predecessor("t", "t") is None
    assert hosts.orphans(wanted("tu"))[Place("b", "u", "u")].records == 7
    assert hosts.to_drain(wanted("tu"), {"s"}) == {}, "out of reach"
    # It is back after a reboot, under another id.
    assert hosts.look([node("a"), node("b", "new")], 20.0) == ["b"]
    hosts.found("b", [FoundSpool("u", 101, {"s": 9})])
    assert set(hosts.to_drain(wanted("tu"), {"s"})) == {("b", "u", "u")}
    assert hosts.to_drain(wanted("tu"), {"other"}) == {}
    assert hosts.left[Place("b", "u", "u")] == 100
    hosts.drained(Place("b", "u", "u"))
    assert hosts.to_drain(wanted("tu"), {"s"}) == {}
    # When it must, the table goes back to the spool that it had there.
    hosts.look([node("b", "new")], 30.0)
    assert hosts.place("u", "u", 31.0 + GONE) == "b"
    assert ("b", "u", "u") not in hosts.left


def test_a_restarted_supervisor_knows_what_the_one_before_knew() -> None:
    hosts = searched("a", "b")
    hosts.place("t", "t", 0.0)
    hosts.answered("t", "t", answer(100, 3))
    hosts.look([node("b")], 1.0)
    hosts.place("t", "t", GONE)
    saved = json.loads(json.dumps(hosts.dump()))
    recalled = Hosts.recall(saved)
    assert (recalled.homes, recalled.spools) == (hosts.homes, hosts.spools)
    assert recalled.predecessor("t", "t") == hosts.predecessor("t", "t")
    assert recalled.left == hosts.left
    assert Hosts.recall({}).homes == {}


def test_a_table_that_is_given_another_spool_has_a_predecessor_on_the_same_host() -> None:
    hosts = searched("a")
    for home in ("shared~1", "t"):
        hosts.place(home, "t", 0.0)
    hosts.give_up("shared~1", "t", "/spool/p/shared~1")
    assert hosts.predecessor("t", "t") is None, "nothing was received there"
    hosts.answered("shared~1", "t", answer(100))
    hosts.give_up("shared~1", "t", "/spool/p/shared~1")
    before = Predecessor("a", 100, 0.1, ("topic 100",), "/spool/p/shared~1")
    assert hosts.predecessor("t", "t") == before
    assert Hosts.recall(json.loads(json.dumps(hosts.dump()))).predecessor("t", "t") == before
    assert hosts.forget_spools() == ["a"]
    assert (hosts.spools, hosts.searched("a")) == ({}, False)
    assert hosts.predecessor("t", "t") == before


def test_tables_that_share_a_home_move_together_and_are_orphans_each_for_itself() -> None:
    hosts = searched("a", "b")
    wanted = {("shared~1", "t"), ("shared~1", "u"), ("shared~2", "v")}
    assert [hosts.place(home, "t", 0.0) for home in ("shared~1", "shared~2", "shared~1")] == ["a", "b", "a"]
    for number, table in enumerate("tu", 1):
        assert hosts.answered("shared~1", table, answer(100 * number, number))
    assert hosts.known_homes() == {"t": "shared~1", "u": "shared~1"}
    assert hosts.orphans(wanted) == {}
    assert set(hosts.orphans(wanted - {("shared~1", "u")})) == {("a", "shared~1", "u")}
    hosts.look([node("b")], 1.0)
    assert hosts.place("shared~1", "t", GONE) == "b"
    for number, table in enumerate("tu", 1):
        assert hosts.predecessor("shared~1", table) == Predecessor(
            "a", 100 * number, number / 10, (f"topic {100 * number}",)
        )
    assert hosts.predecessor("shared~2", "v") is None
    assert set(hosts.orphans(wanted)) == {("a", "shared~1", "t"), ("a", "shared~1", "u")}
    assert Hosts.recall(json.loads(json.dumps(hosts.dump()))).left == hosts.left


class HostsUnderFire(RuleBasedStateMachine):
    """Hosts that come and go: every table has one home, and every other spool of it is an orphan or its own."""

    def __init__(self) -> None:
        super().__init__()
        self.hosts = Hosts()
        self.now = 0.0
        self.epoch = 1
        self.there: dict[Place, FoundSpool] = {}
        self.nodes: dict[str, int] = {}

    @rule(names=st.sets(st.sampled_from("abc")), reboot=st.booleans(), seconds=st.sampled_from([0.5, GONE]))
    def look(self, names: set[str], reboot: bool, seconds: float) -> None:
        self.now += seconds
        for name in names:
            self.nodes[name] = self.nodes.get(name, 0) + reboot
        alive = [node(name, f"{name}{self.nodes[name]}") for name in sorted(names)]
        for host in self.hosts.look(alive, self.now):
            self.hosts.found(host, [spool for place, spool in self.there.items() if place.host == host])

    @rule(table=st.sampled_from("tu"))
    def start(self, table: str) -> None:
        before = self.hosts.homes.get(table)
        place = self.hosts.place(table, table, self.now)
        if isinstance(place, Wait):
            assert self.hosts.homes.get(table) == before
            return
        assert place in self.hosts.alive
        assert place == before or before not in self.hosts.alive
        self.epoch += 1
        self.there[Place(place, table, table)] = FoundSpool(table, self.epoch, {"s": 1})
        self.hosts.answered(table, table, answer(self.epoch, 1))
        predecessor = self.hosts.predecessor(table, table)
        assert predecessor is None or predecessor.epoch < self.epoch

    @invariant()
    def no_spool_is_forgotten(self) -> None:
        orphans = self.hosts.orphans(wanted("tu"))
        for place in self.there:
            assert self.hosts.homes[place.home] == place.host or place in orphans


HostsUnderFire.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
test_hosts_under_fire = HostsUnderFire.TestCase
