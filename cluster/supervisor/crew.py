"""The actors of one pipeline: how they are found or created, placed on hosts, begun and ended, and what is remembered.

Whom to start or end is decided elsewhere.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Container
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.codec.actor import DecodeActor
from actors.monitor.actor import MonitorActor
from actors.names import NAMESPACE, drainer_name, monitor_name, supervisor_name
from actors.ray_state import named_actors
from actors.writer.actor import WriterActor
from cluster.config import PipelineConfig
from cluster.supervisor import memory
from cluster.supervisor.fleet import PING_INTERVAL, Fleet
from cluster.supervisor.hosts import Hosts, Wait
from cluster.supervisor.leaving import Leaving
from cluster.supervisor.pairs import Pair
from cluster.supervisor.pauses import Pauses
from cluster.supervisor.plan import ActorSpec, decoder_specs, monitor_specs, standby_specs, writer_specs
from cluster.supervisor.pool import Pool
from cluster.supervisor.sharing import assign_homes

log = logging.getLogger(__name__)

#: Kinds of actors, in the order in which they are ended.
ACTORS: dict[str, Any] = {
    "monitor": MonitorActor,
    "standby": MonitorActor,
    "drainer": MonitorActor,
    "writer": WriterActor,
    "decoder": DecodeActor,
}
#: Kinds whose actors deliver what is in a spool, and those of which a table has one or two.
WITH_SPOOL = ("monitor", "drainer")
TABLES = ("monitor", "standby")
#: Kinds of which several may be in one actor, that is told which one is meant.
MONITORS = ("monitor", "standby", "drainer")

#: Seconds between two looks at the hosts, and at whether what an actor waits for is there.
LOOK_INTERVAL = 0.5


class Crew:
    """The actors of `config`; its lock is held by whoever calls."""

    def __init__(self, config: PipelineConfig) -> None:
        self._memory = memory.Memory(config.pipeline)
        remembered = self._memory.load()
        self._first = config.digest
        # Ray restarts a supervisor with the configuration it had at first.
        changed = remembered.get("changed", {})
        if changed.get("from") == self._first:
            config = PipelineConfig.model_validate(changed["to"])
        self._config = config
        self._state = "running"
        self._lock = threading.RLock()
        self._pool = Pool(config, remembered.get("decoders", {}))
        self._pauses = Pauses.recall(remembered.get("paused", {}))
        self._hosts = Hosts.recall(remembered.get("hosts", {}))
        #: Table -> home; of tables that were never started, as far as is known before their spools are looked for.
        self._homes: dict[str, str] = assign_homes(config, remembered.get("homes", {}))
        self._homes_known = bool(remembered.get("homes"))
        failures = remembered.get("failures", {})
        self._fleet = Fleet(unresponsive=config.tuning.unresponsive, failures=failures)
        self._fleet.want(self._specs())
        self._leaving = Leaving(self._lock, self._tell_decoders)
        #: By either name; and those that were monitors in an earlier life.
        self._pairs: dict[str, Pair] = {}
        self._fronts: list[str] = remembered.get("fronts", [])
        #: Member -> its actor, which others may share; and actor's name -> those of monitors that were created here,
        #: or were found and have answered.
        self._handles: dict[str, Any] = {}
        self._created: dict[str, Any] = {}
        #: Member -> its incarnation, of monitors, standbys and drainers.
        self._incarnations: dict[str, int] = {}
        #: ObjectRef -> (names of members, handle asked, whether they were found)
        self._calls: dict[Any, tuple[list[str], Any, bool]] = {}
        #: (actor, whether they were found) -> members to be asked at the end of the round
        self._to_ask: dict[tuple[Any, bool], list[str]] = {}
        #: Actor -> until when it is let alone, as it could not be asked.
        self._not_before: dict[Any, float] = {}
        #: The port that the page has or had.
        self._web_port: int | None = remembered.get("web_port")
        self._unsaved = False

    def _start(self, spec: ActorSpec) -> None:
        """Start `spec` in the running actor of its name, if it is not running there, else create that actor."""
        self._leaving.take_back(spec.name)
        handle = self._created.get(spec.actor)
        if handle is not None:
            self._begin(spec, handle)
            return
        try:
            handle = ray.get_actor(spec.actor, NAMESPACE)
        except ValueError:
            self._create(spec)
        else:
            self._handles[spec.name] = handle
            self._ask_next([spec.name], handle, True)

    def _begin(self, spec: ActorSpec, handle: Any) -> None:
        """Start `spec` in its actor, which does not have it."""
        self._handles[spec.name] = handle
        self._gone(spec.name)
        if spec.kind in TABLES:
            self._end_drainers_of(spec)
        if spec.kind not in MONITORS:
            handle.start.remote()
            self._ask_next([spec.name], handle, False)
            return
        incarnation = self._incarnations[spec.name] = self._incarnation()
        made_from = (spec.settings, incarnation, spec.digest)
        if spec.name in self._pairs:
            call = handle.stand_by.remote(*made_from)
        elif spec.kind == "monitor":
            predecessor = self._hosts.predecessor(spec.home, spec.which)
            intake = self._state == "running"
            call = handle.start.remote(*made_from, self._pool.size, intake, predecessor, self._paused(spec))
        else:
            call = handle.start.remote(*made_from, self._pool.size, False, None, self._paused(spec))
        self._calls[call] = ([spec.name], handle, False)

    def _paused(self, spec: ActorSpec) -> list[str]:
        """The sinks to which a monitor or drainer is to deliver nothing now."""
        return self._pauses.of(spec.which, spec.settings.sinks)

    def _host_of(self, spec: ActorSpec) -> str | None:
        """The host to which an actor is bound; None: any, or not decided yet."""
        if spec.kind not in MONITORS:
            return None
        drain = spec.settings.drain
        return self._hosts.homes.get(spec.home) if drain is None else str(drain.host)

    def _node_for(self, spec: ActorSpec) -> str | None:
        """The node on which a monitor or drainer has its spool; None while there is none."""
        now = time.monotonic()
        if spec.kind == "drainer" and spec.actor != monitor_name(self._config.pipeline, spec.home):
            host = spec.settings.drain.host
            place: str | Wait = host if host in self._hosts.alive else Wait(f"host {host} does not answer")
        else:
            before = self._hosts.homes.get(spec.home)
            place = self._hosts.place(spec.home, spec.which, now, self._other_host(spec))
            if before not in (None, place) and not isinstance(place, Wait):
                self._fleet.alert(f"{spec.which} moved from host {before}, which is gone, to {place}")
        if isinstance(place, Wait):
            self._fleet.postpone(spec.name, place.reason, now + LOOK_INTERVAL)
            return None
        if spec.kind in TABLES:
            self._end(drainer_name(self._config.pipeline, place, spec.home))
        return self._hosts.alive[place].id

    def _end(self, actor: str) -> None:
        """End the drainers that are in that actor, and it with them."""
        for name in [name for name, member in self._fleet.members.items() if member.spec.actor == actor]:
            self._forget(name)

    def _end_drainers_of(self, spec: ActorSpec) -> None:
        """End those of a table in the actor that is to be its monitor's: they would take its answers for their own."""
        for other in [member.spec for member in self._fleet.members.values()]:
            if (other.kind, other.actor, other.which) == ("drainer", spec.actor, spec.which):
                self._forget(other.name)

    def _forget(self, name: str) -> None:
        """Want a member no more, and end it; its actor too unless others are to be in it."""
        spec = self._fleet.members[name].spec
        self._fleet.unwant(name)
        self._gone(name)
        handle = self._handles.pop(name, None)
        if not any(member.spec.actor == spec.actor for member in self._fleet.members.values()):
            if (handle := handle or self._created.get(spec.actor)) is not None:
                self._kill(handle)
        elif handle is not None:
            self._end_table(spec, handle)

    def _end_table(self, spec: ActorSpec, handle: Any) -> Any:
        """The call that ends a member in its actor; of one that was found and has not answered, whatever it is."""
        return handle.end.remote(spec.which, self._incarnations.get(spec.name, self._memory.incarnation))

    def _kill(self, handle: Any) -> None:
        self._created = {actor: each for actor, each in self._created.items() if each != handle}
        ray.kill(handle)

    def _create(self, spec: ActorSpec) -> None:
        common = {
            "name": spec.actor,
            "namespace": NAMESPACE,
            "lifetime": "detached",
            "num_cpus": spec.cpus,
            "max_restarts": 0,
        }
        arguments: tuple[Any, ...] = ()
        match spec.kind:
            case "monitor" | "standby" | "drainer":
                node = self._node_for(spec)
                if node is None:
                    return
                common["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node, soft=False)
            case "writer":
                arguments = (self._config.pipeline, spec.settings, spec.digest)
            case _:
                common["scheduling_strategy"] = "SPREAD"
                arguments = (spec.settings, spec.digest, max(1, int(spec.cpus)))
        handle = ACTORS[spec.kind].options(**common).remote(*arguments)
        if spec.kind in MONITORS:
            self._created[spec.actor] = handle
        self._begin(spec, handle)

    def _incarnation(self) -> int:
        """A new one, greater than all before."""
        self._memory.incarnation = max(self._memory.incarnation + 1, int(time.time() * 1000))
        self._save()
        return self._memory.incarnation

    def _gone(self, name: str) -> None:
        if name in self._pairs:
            self._pairs[name].gone(name)

    def _other_host(self, spec: ActorSpec) -> str | None:
        """The host of the other place of the table."""
        if spec.name not in self._pairs:
            return None
        other = self._pairs[spec.name].other(spec.name)
        return self._hosts.homes.get(self._fleet.members[other].spec.home)

    def _ask_next(self, names: list[str], handle: Any, found: bool) -> None:
        """Let members be asked at the end of the round how they are."""
        self._to_ask.setdefault((handle, found), []).extend(names)

    def _ask_later(self, names: list[str], handle: Any, found: bool) -> None:
        """Let members be asked again who could not be; if that goes on, the fleet takes them for unresponsive."""
        self._not_before[handle] = time.monotonic() + PING_INTERVAL
        self._ask_next(names, handle, found)

    def _actors_of(self, kinds: Container[str]) -> dict[Any, list[str]]:
        """The actors of members of these kinds, with the names of the members in each."""
        found: dict[Any, list[str]] = {}
        for name, member in self._fleet.members.items():
            if member.spec.kind in kinds and name in self._handles:
                found.setdefault(self._handles[name], []).append(name)
        return found

    def _tell_decoders(self) -> dict[str, Any] | None:
        """Let all who send blocks to decoders know how many there are; returns the calls, None if some are away."""
        with self._lock:
            senders = {n: m.spec.actor for n, m in self._fleet.members.items() if m.spec.kind in WITH_SPOOL}
            calls = {
                senders[names[0]]: handle.set_decoders.remote(self._pool.size)
                for handle, names in self._actors_of(WITH_SPOOL).items()
            }
            return calls if len(calls) == len(set(senders.values())) else None

    def _others(self) -> dict[str, Any]:
        """Name -> handle of all actors of the pipeline but the supervisor, known or not."""
        found = named_actors(f"{self._config.pipeline}/")
        return {n: handle for n, handle in found.items() if n != supervisor_name(self._config.pipeline)}

    def _specs(self) -> list[ActorSpec]:
        """All actors but drainers."""
        pool = decoder_specs(self._config, self._pool.size)
        tables = [*monitor_specs(self._config, self._homes), *standby_specs(self._config)]
        return [*tables, *writer_specs(self._config), *pool]

    def _save(self) -> None:
        self._unsaved = False
        if self._state in ("stopping", "stopped"):
            return  # what comes now is of a pipeline that has ended
        values: dict[str, Any] = {
            "decoders": self._pool.dump(),
            "failures": dict(self._fleet.failures),
            "paused": self._pauses.dump(),
            "hosts": self._hosts.dump(),
            "homes": self._homes if self._homes_known else {},
            "web_port": self._web_port,
            "fronts": [pair.front for name, pair in self._pairs.items() if name == pair.front],
        }
        if self._config.digest != self._first:
            values["changed"] = {"from": self._first, "to": self._config.dump()}
        self._memory.save(values)
