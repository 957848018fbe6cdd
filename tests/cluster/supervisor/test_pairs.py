"""Which of two actors is promoted: never a stale copy, never two at once, and at once when a ready standby is there."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cluster.supervisor.pairs import ALONE, Pair

A, B = "p/monitor/t", "p/monitor/t~standby"


def standby(ready: bool = False, owner: bool = False, term: int = 0) -> dict[str, Any]:
    state = "ready" if ready else "waiting"
    return {"state": state, "ready": ready, "owner": owner, "term": term, "incarnation": 0}


def monitor(incarnation: int = 1) -> dict[str, Any]:
    return {"state": "receiving", "incarnation": incarnation}


def pair(front: str = A) -> Pair:
    return Pair((A, B), front)


def test_the_first_place_leads_at_first() -> None:
    new = pair()
    new.gone(A)
    new.gone(B)
    new.answered(A, standby())
    assert new.choose(0.0) is None  # the other one's spool may be the newer
    new.answered(B, standby())
    assert new.choose(0.0) == A
    assert new.choose(0.0) is None  # once is enough
    new.promoted(A, True)
    assert (new.leader, new.front) == (A, A)


def test_the_newest_spool_leads_after_all_have_ended() -> None:
    for first, second, expected in [
        (standby(owner=True, term=5), standby(owner=False, term=5), A),
        (standby(owner=False, term=6), standby(owner=True, term=6), B),
        (standby(owner=True, term=5), standby(owner=True, term=6), B),
        (standby(), standby(owner=True, term=1), B),
    ]:
        again = pair()
        again.answered(A, first)
        again.answered(B, second)
        assert again.choose(0.0) == expected


def formed() -> Pair:
    """A leads, and B is ready."""
    it = pair()
    it.answered(A, monitor())
    it.answered(B, standby(ready=True, term=1))
    assert it.choose(0.0) is None
    assert it.ready
    return it


def test_a_ready_standby_takes_over_at_once() -> None:
    it = formed()
    it.gone(A)
    assert it.choose(0.0) == B
    it.answered(B, standby(ready=True, term=1))  # asked before it was promoted
    it.promoted(B, True)
    assert (it.leader, it.front) == (B, B)
    it.answered(A, standby(owner=True, term=1))
    assert it.choose(0.0) is None
    assert not it.ready


def test_a_standby_that_is_not_ready_waits_for_the_last_monitor() -> None:
    it = formed()
    it.answered(B, standby(owner=False, term=1))
    it.gone(A)
    assert it.choose(0.0) is None
    it.answered(A, standby(owner=True, term=1))
    assert it.choose(0.0) == A


def test_the_last_monitor_comes_back_alone() -> None:
    it = formed()
    it.gone(B)
    it.gone(A)
    it.answered(A, standby(owner=True, term=1))
    assert it.choose(0.0) == A


def test_the_standby_alone_is_not_enough_when_both_were_gone() -> None:
    it = formed()
    it.gone(B)
    it.gone(A)
    it.answered(B, standby(owner=False, term=1))
    assert it.choose(0.0) is None


def test_a_promotion_that_fails_is_tried_again() -> None:
    it = formed()
    it.gone(A)
    assert it.choose(0.0) == B
    it.promoted(B, False)
    assert it.choose(0.0) == B
    it.gone(B)
    it.promoted(B, True)  # too late
    assert it.leader is None


def test_a_restarted_supervisor_learns_who_leads() -> None:
    it = pair()
    it.answered(B, monitor(7))
    assert (it.leader, it.front) == (B, B)
    it.answered(A, standby(ready=True, term=7))
    assert it.choose(0.0) is None
    assert it.ready


def test_without_room_for_a_second_place_the_first_leads_after_a_while() -> None:
    for said, expected in [(standby(), A), (standby(owner=True, term=3), A), (standby(term=3), None)]:
        it = pair()
        it.answered(A, said)
        assert it.choose(100.0) is None
        assert it.choose(99.0 + ALONE) is None
        assert it.choose(100.0 + ALONE) == expected


def test_one_that_was_only_starting_is_not_taken_for_a_monitor() -> None:
    it = pair()
    it.answered(A, {"state": "starting", "incarnation": 1})
    assert it.leader is None


class Cluster(RuleBasedStateMachine):
    """Two processes with their disks; what is `newest` must never be forgotten."""

    @initialize()
    def begin(self) -> None:
        self.pair = pair()
        self.disks = {A: (False, 0), B: (False, 0)}
        self.alive: dict[str, str] = {}  # name -> standby, ready or monitor
        self.told: str | None = None
        self.term = 0

    @rule(name=st.sampled_from([A, B]))
    def create(self, name: str) -> None:
        if name not in self.alive:
            self.pair.gone(name)
            self.alive[name] = "standby"

    @rule(name=st.sampled_from([A, B]))
    def die(self, name: str) -> None:
        if self.alive.pop(name, None) is not None:
            if self.told == name:
                self.told = None
            self.pair.gone(name)

    @rule(name=st.sampled_from([A, B]))
    def answer(self, name: str) -> None:
        role = self.alive.get(name)
        if role == "monitor":
            self.pair.answered(name, monitor(self.term))
        elif role is not None:
            owner, term = self.disks[name]
            self.pair.answered(name, standby(role == "ready", owner, term))

    @rule()
    def copy(self) -> None:
        """The monitor's spool is copied to the standby."""
        if sorted(self.alive.values()) == ["monitor", "standby"]:
            name = next(name for name, role in self.alive.items() if role == "standby")
            self.disks[name] = (False, self.term)
            self.alive[name] = "ready"

    @rule()
    def lose(self) -> None:
        """The monitor gives its standby up, which is killed."""
        for name, role in list(self.alive.items()):
            if role == "ready" and "monitor" in self.alive.values():
                self.die(name)

    @precondition(lambda self: self.told is None)
    @rule()
    def choose(self) -> None:
        self.told = self.pair.choose(0.0)

    @precondition(lambda self: self.told is not None)
    @rule()
    def promote(self) -> None:
        name, self.told = self.told, None
        assert name is not None
        ready = self.alive[name] == "ready"
        newest = max(self.disks.values(), key=lambda disk: disk[1])[1]
        assert ready or self.disks[name] == (True, newest) or newest == 0
        assert "monitor" not in self.alive.values()
        self.term += 1
        self.alive[name], self.disks[name] = "monitor", (True, self.term)
        self.pair.promoted(name, True)

    @invariant()
    def one_monitor_at_most(self) -> None:
        assert list(self.alive.values()).count("monitor") <= 1


TestCluster = Cluster.TestCase
