"""Whom chaos kills: only actors that run, all kinds alike, none so often that the supervisor parks it."""

from __future__ import annotations

from cluster.chaos import Picker, actors_of
from cluster.supervisor.restarts import RestartHistory, RestartPolicy

ACTORS = {"monitor": ["m1", "m2", "m3"], "decoder": ["d0", "d1"], "writer": ["w"], "supervisor": ["s"]}


def test_a_seed_makes_the_same_choices() -> None:
    first, second, other = Picker(1), Picker(1), Picker(2)
    chosen = [first.pick(ACTORS, float(n)) for n in range(20)]
    assert chosen == [second.pick(ACTORS, float(n)) for n in range(20)]
    assert chosen != [other.pick(ACTORS, float(n)) for n in range(20)]


def test_every_kind_has_its_turn_whatever_its_number() -> None:
    picker = Picker(3)
    for second in range(0, 4000, 40):
        found = [picker.pick(ACTORS, float(second + n)) for n in range(4)]
        assert {kind for kind, _ in filter(None, found)} == set(ACTORS)
    # Nobody waits for a kind that is away.
    assert {picker.pick({"writer": ["w"]}, 5000.0 + 60 * n) for n in range(9)} == {("writer", "w")}


def test_nobody_is_killed_so_often_that_it_parks() -> None:
    policy = RestartPolicy()
    picker, histories = (
        Picker(4, policy),
        {name: RestartHistory(policy) for names in ACTORS.values() for name in names},
    )
    for tick in range(6000):
        now = tick * 0.1
        if found := picker.pick({"decoder": ["d0"], "writer": ["w"]}, now):
            histories[found[1]].failed("killed", now)
            assert histories[found[1]].parked_until is None
    assert picker.pick({"writer": ["w"]}, 600.0) is None
    assert histories["w"].count == histories["d0"].count == 50


def test_only_what_runs_and_was_asked_for() -> None:
    status = {
        "pipeline": "p",
        "tables": [
            {"name": "t", "pid": 1, "actor": "p/monitor/t"},
            {"name": "u", "pid": 5, "actor": "p/monitor/shared~1"},
            {"name": "v", "pid": 5, "actor": "p/monitor/shared~1"},
            {"name": "down", "pid": None, "actor": "p/monitor/down"},
        ],
        "decoders": {"members": [{"name": "0", "pid": 2}, {"name": "1", "pid": None}]},
        "sinks": [{"name": "s", "pid": 3}],
    }
    assert actors_of(status, ["monitor", "decoder", "writer", "supervisor"]) == {
        "monitor": ["p/monitor/shared~1", "p/monitor/t"],
        "decoder": ["p/decoder/0"],
        "writer": ["p/writer/s"],
        "supervisor": ["p/supervisor"],
    }
    assert list(actors_of(status, ["decoder"])) == ["decoder"]
