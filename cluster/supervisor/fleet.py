"""The supervisor's mind: which actors should run, which do, and what to do about the difference.

A state machine without Ray or a clock. The shell (``keeper.py``) asks :meth:`Fleet.actions` what to do, does it,
and tells what came of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from cluster.supervisor.plan import ActorSpec
from cluster.supervisor.restarts import RestartHistory, RestartPolicy

#: Seconds between two looks at a running actor.
PING_INTERVAL = 0.5

#: Looks per second, at all actors together, at the most: with many actors each has longer to wait for its turn. One
#: takes some 2 ms of CPU, and the supervisor is one process.
PINGS_PER_SECOND = 200

#: Members of one actor up to which each is looked at so often; of more, each is looked at less often.
PING_TOGETHER = 10

#: An actor that has not answered for so long is killed and started again, also while it starts: it may be one that
#: was found hanging. Generous: on a saturated machine answers take seconds, and killing a busy actor only makes it
#: busier.
UNRESPONSIVE = 60.0

#: Seconds without an answer after which `status` says so.
SILENT = 3.0


class MemberState(Enum):
    DOWN = "down"
    STARTING = "starting"
    UP = "up"
    PARKED = "parked"


@dataclass(slots=True)
class Member:
    """One actor of the pipeline."""

    spec: ActorSpec
    history: RestartHistory
    state: MemberState = MemberState.DOWN
    start_at: float = 0.0
    asked_at: float | None = None
    answered_at: float = 0.0
    looked_at: float = 0.0
    answer: dict[str, Any] = field(default_factory=dict)
    adopted: bool = False
    down_since: float | None = None
    #: Seconds allowed to an answer; None: the fleet's.
    patience: float | None = None
    #: What it cannot start without, in words; None if nothing is missing.
    waiting: str | None = None
    recovery: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Start:
    """Find the actor by its name or create it, then start it."""

    spec: ActorSpec


@dataclass(frozen=True, slots=True)
class Ping:
    """Ask the actor for its status."""

    name: str


@dataclass(frozen=True, slots=True)
class Kill:
    """End the actor: it has not answered for too long."""

    name: str


@dataclass(frozen=True, slots=True)
class Look:
    """See what keeps the actor, which has not answered since it was created: it may wait for resources."""

    name: str


Action = Start | Ping | Kill | Look

#: Recovery times remembered per actor, and alerts.
_RECOVERIES = 20
_ALERTS = 20


class Fleet:
    """All actors of one pipeline but the supervisor; `failures` is :attr:`failures` of an earlier life."""

    def __init__(
        self,
        policy: RestartPolicy | None = None,
        unresponsive: float = UNRESPONSIVE,
        failures: Mapping[str, int] | None = None,
    ) -> None:
        self._policy = policy or RestartPolicy()
        self._unresponsive = unresponsive
        self.members: dict[str, Member] = {}
        self.alerts: list[str] = []
        #: Actor -> how often it failed since the pipeline was started, also of those that are wanted no more.
        self.failures: Counter[str] = Counter(failures)

    def want(self, specs: Iterable[ActorSpec]) -> None:
        """Add actors that should run."""
        for spec in specs:
            if spec.name not in self.members:
                self.members[spec.name] = Member(spec, RestartHistory(self._policy))

    def unwant(self, name: str) -> None:
        """Forget an actor; ending it is the caller's work."""
        self.members.pop(name, None)

    def actions(self, now: float) -> list[Action]:
        """What to do at `now` (seconds, any origin)."""
        todo: list[Action] = []
        together = Counter(member.spec.actor for member in self.members.values())
        least = max(PING_INTERVAL, len(together) / PINGS_PER_SECOND)
        for member in self.members.values():
            interval = max(least, PING_INTERVAL * together[member.spec.actor] / PING_TOGETHER)
            if member.state in (MemberState.DOWN, MemberState.PARKED) and now >= member.start_at:
                member.state, member.asked_at = MemberState.STARTING, now
                todo.append(Start(member.spec))
            elif member.asked_at is not None:
                patience = member.patience or self._unresponsive
                if now >= member.asked_at + patience:
                    todo.append(Kill(member.spec.name))
                    self.died(member.spec.name, f"no answer for {patience:.0f} s", now)
                elif (
                    member.state is MemberState.STARTING
                    and now >= max(member.asked_at, member.looked_at) + SILENT
                ):
                    member.looked_at = now
                    todo.append(Look(member.spec.name))
            elif member.state is MemberState.UP and now >= member.answered_at + interval:
                member.asked_at = now
                todo.append(Ping(member.spec.name))
        return todo

    def answered(self, name: str, answer: dict[str, Any], now: float, adopted: bool = False) -> None:
        """The actor is up and said this of itself."""
        member = self.members.get(name)
        if member is None or member.state in (MemberState.DOWN, MemberState.PARKED):
            return  # of a life that is over
        if member.state is MemberState.STARTING:
            member.adopted = adopted
        member.state, member.asked_at, member.answered_at = MemberState.UP, None, now
        member.waiting = None
        member.answer = answer
        # A monitor is back only when it receives again, a standby when it is ready; others when they answer.
        if member.down_since is not None and answer.get("state", "receiving") in (
            "receiving",
            "ready",
            "done",
        ):
            member.recovery = [*member.recovery, now - member.down_since][-_RECOVERIES:]
            member.down_since = None

    def waits(self, name: str, reason: str | None, now: float) -> None:
        """The actor was created and waits for `reason`, or for nothing but its process: it has time anew to answer."""
        member = self.members.get(name)
        if member is not None and member.state is MemberState.STARTING:
            member.waiting, member.asked_at = reason, now

    def postpone(self, name: str, reason: str, until: float) -> None:
        """The actor cannot be created before `until` for want of `reason`, which is no failure of its own."""
        member = self.members[name]
        member.state, member.start_at, member.asked_at = MemberState.DOWN, until, None
        member.waiting = reason

    def died(self, name: str, reason: str, now: float) -> None:
        """The actor failed, in starting or later."""
        member = self.members.get(name)
        if member is None or member.state in (MemberState.DOWN, MemberState.PARKED):
            return
        self.failures[name] += 1
        member.start_at = member.history.failed(reason, now)
        parked = member.history.parked_until is not None
        member.state = MemberState.PARKED if parked else MemberState.DOWN
        member.asked_at = member.waiting = None
        if member.down_since is None:
            member.down_since = now
        if parked:
            self.alert(f"{name} failed too often and rests for {self._policy.park:.0f} s: {reason}")

    def alert(self, text: str) -> None:
        """Tell of something that a person should know."""
        self.alerts.append(text)
        del self.alerts[:-_ALERTS]

    def wake(self, name: str) -> bool:
        """Start an actor at the next :meth:`actions` if it is parked. Returns whether it was."""
        member = self.members[name]
        if member.state is not MemberState.PARKED:
            return False
        member.state, member.start_at, member.history.parked_until = MemberState.DOWN, 0.0, None
        return True

    @property
    def restarts(self) -> int:
        """Failures of all actors since the pipeline was started."""
        return self.failures.total()
