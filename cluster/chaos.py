"""Kills processes of a running pipeline at random (SIGKILL), to see that nothing is lost by it.

Only actors that Ray knows under this pipeline's names are killed, each at most half as often as would park it: see
:mod:`cluster.supervisor.restarts`.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from actors.names import NAMESPACE, decoder_name, supervisor_name, writer_name
from cluster import control
from cluster.errors import NotReady
from cluster.supervisor.restarts import RestartPolicy

KINDS = ("monitor", "decoder", "writer", "supervisor")

#: Seconds allowed to one kill, to all to be up again at the end, and to what is pending then to be delivered.
KILL_TIMEOUT = 30.0
READY_TIMEOUT = 120.0
DRAIN_TIMEOUT = 120.0


@dataclass(frozen=True, slots=True)
class Kill:
    """A process killed `at` so many seconds after the start; `actor` is its name on the cluster."""

    at: float
    kind: str
    actor: str
    pid: int


class Picker:
    """Chooses whom to kill: every kind in turn, in a new order each time round, and one of that kind, none too often.

    A plain class without a clock.
    """

    def __init__(self, seed: int, policy: RestartPolicy | None = None) -> None:
        self._random = random.Random(seed)
        policy = policy or RestartPolicy()
        self._most, self._window = max(1, policy.intensity // 2), policy.window
        self._killed: dict[str, deque[float]] = {}
        self._turn: list[str] = []

    def pick(self, actors: dict[str, list[str]], now: float) -> tuple[str, str] | None:
        """(kind, actor) out of kind -> names; None if each had its share for now (seconds)."""
        free = {
            kind: sorted(name for name in names if self._may(name, now)) for kind, names in actors.items()
        }
        kinds = sorted(kind for kind, names in free.items() if names)
        if not kinds:
            return None
        if not set(self._turn).intersection(kinds):
            self._turn = self._random.sample(kinds, len(kinds))
        kind = next(each for each in self._turn if each in kinds)
        self._turn.remove(kind)
        actor = self._random.choice(free[kind])
        self._killed.setdefault(actor, deque()).append(now)
        return kind, actor

    def _may(self, actor: str, now: float) -> bool:
        killed = self._killed.get(actor, deque())
        while killed and killed[0] <= now - self._window:
            killed.popleft()
        return len(killed) < self._most


def actors_of(status: dict[str, Any], kinds: Iterable[str]) -> dict[str, list[str]]:
    """Kind -> names on the cluster of the actors that a pipeline's status tells of and that run."""
    name = status["pipeline"]
    names: dict[str, list[str]] = {
        "monitor": sorted({each["actor"] for each in status["tables"] if each["pid"]}),
        "decoder": [
            decoder_name(name, int(each["name"])) for each in status["decoders"]["members"] if each["pid"]
        ],
        "writer": [writer_name(name, each["name"]) for each in status["sinks"] if each["pid"]],
        "supervisor": [supervisor_name(name)],
    }
    return {kind: names[kind] for kind in kinds}


def run(
    name: str,
    seconds: float,
    kinds: Iterable[str] = KINDS,
    interval: float = 2.0,
    seed: int | None = None,
    say: Callable[[Kill], None] = lambda kill: None,
) -> list[Kill]:
    """Kill an actor of the pipeline `name` about every `interval` seconds, for `seconds`; then wait until it is well.

    Raises :class:`NoSuchPipeline`, and :class:`NotReady` if the pipeline does not come back.
    """
    supervisor, kinds = control.find(name), tuple(kinds)
    picker, pauses = Picker(random.randrange(1 << 32) if seed is None else seed), random.Random(seed)
    kills: list[Kill] = []
    started = time.monotonic()
    while (now := time.monotonic()) < started + seconds:
        actors = actors_of(control.ask(supervisor, "status", timeout=KILL_TIMEOUT), kinds)
        chosen = picker.pick(actors, now)
        pid = _kill(chosen[1]) if chosen else None
        if chosen and pid:
            kills.append(Kill(round(time.monotonic() - started, 3), *chosen, pid))
            say(kills[-1])
        time.sleep(min(interval * pauses.uniform(0.5, 1.5), max(0.0, started + seconds - time.monotonic())))
    if not control.wait_ready(supervisor, READY_TIMEOUT):
        raise NotReady(
            f"{name} is not back {READY_TIMEOUT:.0f} s after the last kill; see `tablecast status {name}`"
        )
    return kills


def drain(name: str, timeout: float = DRAIN_TIMEOUT) -> bool:
    """Wait until all that was received by now is delivered and no gap is being healed, also while more is received.

    Returns whether it came to that.
    """
    supervisor, deadline = control.find(name), time.monotonic() + timeout
    goals: dict[tuple[str, str], int] | None = None
    while time.monotonic() < deadline:
        tables = control.ask(supervisor, "status")["tables"]
        accounts = [account for table in tables for account in table["accounts"]]
        # What a monitor says is up to half a second old, but its gap is there before it receives again.
        well = all(table["state"] in ("receiving", "done") for table in tables) and not any(
            table["gaps"]["counts"].get(state) for table in tables for state in ("open", "healing")
        )
        if well and goals is None:
            goals = {(each["feed"], each["sink"]): each["received"] for each in accounts}
        if (
            well
            and goals is not None
            and all(
                each["received"] - each["pending"] >= goals.get((each["feed"], each["sink"]), 0)
                for each in accounts
            )
        ):
            return True
        time.sleep(0.2)
    return False


def _kill(actor: str) -> int | None:
    """Kill the process of an actor, on whatever node it is; returns its id, None if it is not running now."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from actors.ray_state import actor_info

    try:
        handle = ray.get_actor(actor, NAMESPACE)
    except ValueError:
        return None
    found = actor_info(handle._actor_id.hex())
    pid, node = int(found.get("Pid") or 0), found.get("Address", {}).get("NodeID")
    if found.get("State") != "ALIVE" or not pid:
        return None
    if node == ray.get_runtime_context().get_node_id():
        return pid if _sigkill(pid) else None
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    kill = ray.remote(num_cpus=0, max_retries=0)(_sigkill).options(scheduling_strategy=there)
    return pid if ray.get(kill.remote(pid), timeout=KILL_TIMEOUT) else None


def _sigkill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True
