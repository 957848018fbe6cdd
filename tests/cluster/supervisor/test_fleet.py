"""The supervisor's mind: scenarios one by one, then every order of answers, deaths and silence."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from actors.backoff import Backoff
from cluster.supervisor.fleet import (
    PING_INTERVAL,
    PINGS_PER_SECOND,
    SILENT,
    UNRESPONSIVE,
    Action,
    Fleet,
    Kill,
    Look,
    MemberState,
    Ping,
    Start,
)
from cluster.supervisor.plan import ActorSpec
from cluster.supervisor.restarts import RestartPolicy


def policy() -> RestartPolicy:
    """Parks after the third failure; the same delays each time, between half a second and one."""
    return RestartPolicy(intensity=2, window=1000.0, park=500.0, backoff=Backoff(1.0, 1.0, random.Random(0)))


def spec(name: str, kind: str = "decoder") -> ActorSpec:
    return ActorSpec(kind, name, name, None, "digest", 0.1, name)


def fleet(*names: str) -> Fleet:
    fleet = Fleet(policy())
    fleet.want(spec(name) for name in names)
    return fleet


def up(*names: str) -> Fleet:
    """A fleet whose members answered at 0."""
    running = fleet(*names)
    running.actions(0.0)
    for name in names:
        running.answered(name, {"pid": 1}, 0.0)
    return running


def test_a_thousand_actors_are_asked_no_more_often_than_the_supervisor_can() -> None:
    names = [f"d{number}" for number in range(1000)]
    many = up(*names)
    interval = len(names) / PINGS_PER_SECOND
    assert interval > PING_INTERVAL
    assert many.actions(interval - 0.1) == []
    assert len(many.actions(interval)) == 1000


def test_what_is_wanted_is_started_once() -> None:
    one = fleet("a", "b")
    assert one.actions(0.0) == [Start(spec("a")), Start(spec("b"))]
    assert one.actions(1.0) == []
    one.want([spec("b"), spec("c")])
    assert one.actions(1.0) == [Start(spec("c"))]
    one.unwant("c")
    one.unwant("never there")
    one.answered("c", {}, 2.0)
    one.died("c", "killed", 2.0)
    assert set(one.members) == {"a", "b"}


def test_who_is_up_is_asked_from_time_to_time_one_question_at_once() -> None:
    one = up("a")
    assert one.actions(PING_INTERVAL / 2) == []
    assert one.actions(PING_INTERVAL) == [Ping("a")]
    assert one.actions(PING_INTERVAL + 1) == []
    one.answered("a", {"pid": 1, "records": 5}, 2.0)
    assert one.members["a"].answer["records"] == 5
    assert one.actions(2.0) == []
    assert one.actions(2.0 + PING_INTERVAL) == [Ping("a")]


def test_who_died_is_started_after_a_pause_and_its_recovery_is_recorded() -> None:
    one = up("a")
    one.died("a", "killed", 10.0)
    one.died("a", "the same death, seen twice", 10.1)
    member = one.members["a"]
    assert (member.state, member.history.last_reason, one.restarts) == (MemberState.DOWN, "killed", 1)
    assert one.actions(10.4) == []
    assert one.actions(11.0) == [Start(spec("a"))]
    one.answered("a", {}, 13.0, adopted=True)
    assert (member.state, member.recovery, member.adopted) == (MemberState.UP, [3.0], True)


def test_a_monitor_is_back_only_when_it_receives() -> None:
    one = up("a")
    one.died("a", "killed", 10.0)
    one.actions(11.0)
    one.answered("a", {"state": "connecting"}, 12.0)
    assert one.members["a"].recovery == []
    one.answered("a", {"state": "receiving"}, 15.0)
    one.answered("a", {"state": "receiving"}, 16.0)
    assert one.members["a"].recovery == [5.0]


def test_recoveries_remembered_are_bounded() -> None:
    one = Fleet(RestartPolicy(intensity=10**6))
    one.want([spec("a")])
    for number in range(50):
        one.actions(1e4 * number)
        one.answered("a", {}, 1e4 * number)
        one.died("a", "killed", 1e4 * number + 1)
    assert len(one.members["a"].recovery) == 20


def test_silence_ends_an_actor_also_one_that_was_found_hanging() -> None:
    for asked, one in ((0.0, fleet("a")), (PING_INTERVAL, up("a"))):
        one.actions(asked)
        assert Kill("a") not in one.actions(asked + UNRESPONSIVE - 0.1)
        assert one.actions(asked + UNRESPONSIVE) == [Kill("a")]
        assert one.members["a"].history.last_reason == "no answer for 60 s"
        # Its answer may still come in; it is of a life that is over.
        one.answered("a", {"pid": 1}, asked + UNRESPONSIVE)
        assert one.members["a"].state is MemberState.DOWN
        assert one.actions(asked + UNRESPONSIVE + 1) == [Start(spec("a"))]


def test_too_many_deaths_park_with_an_alert_and_the_rest_goes_on() -> None:
    one = up("a", "b")
    now = 0.0
    for _ in range(3):
        one.died("a", "out of memory", now)
        now += 1.0
        one.actions(now)
    assert one.members["a"].state is MemberState.PARKED
    assert one.alerts == ["a failed too often and rests for 500 s: out of memory"]
    assert one.members["b"].state is MemberState.UP
    assert Start(spec("a")) not in one.actions(now + 400)
    assert Start(spec("a")) in one.actions(now + 500)


class FleetUnderFire(RuleBasedStateMachine):
    """Actors that answer, die, or say nothing, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.names = ("a", "b")
        self.fleet = fleet(*self.names)
        self.now = 0.0
        self.starting: set[str] = set()
        self.asked: set[str] = set()
        self.deaths = dict.fromkeys(self.names, 0)

    @rule(seconds=st.sampled_from([0.1, PING_INTERVAL, 5.0, UNRESPONSIVE, policy().park]))
    def look(self, seconds: float) -> None:
        self.now += seconds
        todo: list[Action] = self.fleet.actions(self.now)
        for action in todo:
            if isinstance(action, Start):
                name = action.spec.name
                assert name not in self.starting | self.asked, "started twice"
                self.starting.add(name)
            elif isinstance(action, Ping):
                assert action.name not in self.starting | self.asked, "asked twice"
                self.asked.add(action.name)
            elif isinstance(action, Look):
                assert action.name in self.starting
            else:
                assert action.name in self.starting | self.asked
                self.over(action.name)

    def over(self, name: str) -> None:
        self.starting.discard(name)
        self.asked.discard(name)
        self.deaths[name] += 1

    @precondition(lambda self: self.starting or self.asked)
    @rule(data=st.data(), answer=st.sampled_from([{}, {"state": "receiving"}, {"state": "connecting"}]))
    def answer(self, data: st.DataObject, answer: dict[str, Any]) -> None:
        name = data.draw(st.sampled_from(sorted(self.starting | self.asked)))
        self.fleet.answered(name, answer, self.now)
        self.starting.discard(name)
        self.asked.discard(name)
        assert self.fleet.members[name].state is MemberState.UP

    @rule(name=st.sampled_from(["a", "b"]))
    def die(self, name: str) -> None:
        alive = self.fleet.members[name].state in (MemberState.STARTING, MemberState.UP)
        self.fleet.died(name, "killed", self.now)
        if alive:
            self.over(name)

    @rule(name=st.sampled_from(["a", "b"]))
    def late_answer(self, name: str) -> None:
        """Of an actor that is known to be dead."""
        member = self.fleet.members[name]
        if member.state in (MemberState.DOWN, MemberState.PARKED):
            before = member.state
            self.fleet.answered(name, {}, self.now)
            assert member.state is before

    @invariant()
    def agrees(self) -> None:
        assert self.fleet.restarts == sum(self.deaths.values())
        assert len(self.fleet.alerts) <= 20
        for name in self.names:
            member = self.fleet.members[name]
            assert self.fleet.failures[name] == self.deaths[name]
            assert (member.state is MemberState.STARTING) == (name in self.starting)
            assert len(member.recovery) <= 20
            assert all(seconds >= 0 for seconds in member.recovery)
            if member.state is MemberState.PARKED:
                assert member.history.parked_until is not None


FleetUnderFire.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
test_fleet_under_fire = FleetUnderFire.TestCase


def test_a_parked_actor_that_is_woken_starts_at_once_and_with_a_clean_slate() -> None:
    running = up("a")
    assert not running.wake("a")
    for now in (10.0, 20.0, 30.0):
        running.died("a", "refused", now)
        running.actions(now + 5.0)
    assert running.members["a"].state is MemberState.PARKED
    assert running.actions(40.0) == []
    assert running.wake("a")
    assert running.actions(40.0) == [Start(spec("a"))]
    running.died("a", "refused", 41.0)
    assert running.members["a"].state is MemberState.DOWN


def test_an_actor_that_waits_for_resources_is_looked_at_and_not_ended() -> None:
    one = fleet("a")
    one.actions(0.0)
    assert one.actions(SILENT - 0.1) == []
    assert one.actions(SILENT) == [Look("a")]
    one.waits("a", "no CPU", SILENT)
    assert one.actions(UNRESPONSIVE) == [Look("a")]
    assert one.members["a"].waiting == "no CPU"
    assert one.actions(SILENT + UNRESPONSIVE) == [Kill("a")]
    assert one.members["a"].waiting is None


def test_an_actor_that_cannot_be_created_yet_is_tried_again_and_no_failure_is_counted() -> None:
    one = fleet("a")
    one.actions(0.0)
    one.postpone("a", "its host is away", 2.0)
    assert one.actions(1.9) == []
    assert one.members["a"].waiting == "its host is away"
    assert one.actions(2.0) == [Start(spec("a"))]
    one.answered("a", {}, 2.5)
    assert (one.members["a"].waiting, one.restarts) == (None, 0)
