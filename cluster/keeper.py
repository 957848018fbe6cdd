"""Keeps the actors of one pipeline alive: starts, watches and restarts them, and places them on hosts.

It decides nothing itself: :class:`~cluster.fleet.Fleet`, :class:`~cluster.hosts.Hosts` and :class:`~cluster.pairs.Pair`
do. What people ask for is in ``supervisor.py``.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Container
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import ActorDiedError, RayActorError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.codec.actor import DecodeActor
from actors.monitor.actor import MonitorActor
from actors.names import NAMESPACE, decoder_name, drainer_name, monitor_name, standby_name
from actors.ray_state import actor_info, named_actors
from actors.writer.actor import WriterActor
from cluster import memory
from cluster.config import PipelineConfig
from cluster.fleet import Action, Fleet, Kill, Look, Ping, Start
from cluster.hosts import Hosts, Wait
from cluster.leaving import Leaving
from cluster.pairs import PATIENCE, Pair
from cluster.plan import (
    ActorSpec,
    decoder_specs,
    drainer_spec,
    monitor_specs,
    standby_specs,
    writer_specs,
)
from cluster.pool import Pool
from cluster.searches import Searches
from cluster.status import Rates

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

#: Seconds between two rounds of the loop; a dead actor is seen within a round after its ping.
TICK = 0.1

#: Seconds between two looks at the hosts, and at whether what an actor waits for is there.
LOOK_INTERVAL = 0.5


class Keeper:
    """Keeps the actors of `config` alive until told to stop."""

    def __init__(self, config: PipelineConfig) -> None:
        self._memory = memory.Memory(config.pipeline)
        remembered = self._memory.load()
        self._first = config.digest
        # Ray restarts a supervisor with the configuration it had at first.
        changed = remembered.get("changed", {})
        if changed.get("from") == self._first:
            config = PipelineConfig.model_validate(changed["to"])
        self._config = config
        self._pool = Pool(config, remembered.get("decoders", {}))
        self._earlier_restarts = int(remembered.get("restarts", 0))
        self._hosts = Hosts.recall(remembered.get("hosts", {}))
        self._looked_at = 0.0
        self._searches = Searches(self._hosts, str(config.spool.path), config.pipeline)
        self._fleet = Fleet(unresponsive=config.tuning.unresponsive)
        self._fleet.want(self._specs())
        #: By either name.
        self._pairs: dict[str, Pair] = {}
        #: ObjectRef -> who was told to become its table's monitor.
        self._promotions: dict[Any, str] = {}
        self._lock = threading.RLock()
        self._changing = threading.Lock()
        self._leaving = Leaving(self._lock, self._tell_decoders)
        self._handles: dict[str, Any] = {}
        #: ObjectRef -> (actor name, handle asked, whether it was adopted)
        self._calls: dict[Any, tuple[str, Any, bool]] = {}
        self._since = time.time()
        self._state = "running"
        self._rates = Rates()
        #: What the status says of the page, and the port that it has or had.
        self._page: dict[str, str | None] = {"url": None, "problem": None}
        self._web_port: int | None = remembered.get("web_port")
        self._end_drainers()
        self._find_leaving()
        self._pair_up(remembered.get("fronts", ()))
        self._save()

    # -- the loop -----------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Watch over the fleet until stopped."""
        while self._state != "stopped":
            try:
                self._round()
            except Exception:
                log.exception("a round of the supervisor failed; going on")
                time.sleep(1.0)

    def _round(self) -> None:
        with self._lock:
            restarts = self._fleet.restarts
            if self._state != "stopping":
                self._watch_hosts(time.monotonic())
                for action in self._fleet.actions(time.monotonic()):
                    self._do(action)
                self._promote()
            calls = [*self._calls, *self._searches.calls, *self._promotions]
        done = ray.wait(calls, num_returns=len(calls), timeout=TICK)[0] if calls else []
        if not calls:
            time.sleep(TICK)
        with self._lock:
            for call in done:
                if call in self._promotions:
                    self._promoted(call)
                elif not self._searches.take(call):
                    self._answer(call)
            if self._fleet.restarts != restarts:
                self._save()
            self._rates.sample(self._fleet, time.monotonic())
            if self._state == "running" and (step := self._pool.judge(self._fleet, time.monotonic())):
                self._resize(step.size, "load", step.reason)

    def _watch_hosts(self, now: float) -> None:
        if now < self._looked_at + LOOK_INTERVAL:
            return
        self._looked_at = now
        for host in self._hosts.look(ray.nodes(), now):
            self._searches.begin(host)
        self._searches.give_up(now)
        if self._state == "running":
            self._drain_orphans()

    def _drain_orphans(self) -> None:
        orphans = self._hosts.to_drain(self._tables, self._config.sinks)
        for (host, table), spool in orphans.items():
            if any(pair.has(table) for pair in self._pairs.values()):
                continue
            last_epoch = self._hosts.left.get((host, table))
            spec = drainer_spec(self._config, host, table, spool.pending, last_epoch)
            if spec.name not in self._fleet.members:
                log.warning("%s on host %s: delivering %d records", table, host, spool.records)
                self._fleet.want([spec])

    @property
    def _tables(self) -> set[str]:
        return {member.spec.home for member in self._fleet.members.values() if member.spec.kind in TABLES}

    def _end_drainers(self) -> None:
        """End those of an earlier life: what they had left to do is found anew."""
        for handle in named_actors(drainer_name(self._config.pipeline, "", "").removesuffix("/")).values():
            ray.kill(handle)

    # -- decoders -----------------------------------------------------------------------------------------------

    def _resize(self, size: int, by: str, reason: str) -> threading.Thread | None:
        """Have `size` decoders; returns who waits until those that leave have finished what they have begun."""
        before = self._pool.size
        if size != before:
            log.warning("decoders %d -> %d: %s", before, size, reason)
        self._pool.resize(size, by, reason, time.monotonic())
        self._save()
        self._fleet.want(decoder_specs(self._config, size))
        leaving = {}
        for name in (decoder_name(self._config.pipeline, number) for number in range(size, before)):
            self._fleet.unwant(name)
            if (handle := self._handles.pop(name, None)) is not None:
                leaving[name] = handle
        if leaving:
            return self._leaving.see_off(leaving)
        self._tell_decoders()
        return None

    def _find_leaving(self) -> None:
        """See off those that an earlier life had taken out of the pool."""
        inside = {spec.name for spec in decoder_specs(self._config, self._pool.size)}
        found = named_actors(decoder_name(self._config.pipeline, 0).removesuffix("0"))
        leaving = {name: handle for name, handle in found.items() if name not in inside}
        if leaving:
            self._leaving.see_off(leaving)

    def _tell_decoders(self) -> dict[str, Any] | None:
        """Let all who send blocks to decoders know how many there are; returns the calls, None if some are away."""
        with self._lock:
            senders = [name for name, m in self._fleet.members.items() if m.spec.kind in WITH_SPOOL]
            calls = {
                name: self._handles[name].set_decoders.remote(self._pool.size)
                for name in senders
                if name in self._handles
            }
            return calls if len(calls) == len(senders) else None

    def _do(self, action: Action) -> None:
        match action:
            case Start(spec):
                try:
                    self._start(spec)
                except Exception as error:
                    self._fleet.died(spec.name, reason(error), time.monotonic())
            case Ping(name):
                handle = self._handles[name]
                self._calls[handle.status.remote()] = (name, handle, False)
            case Kill(name):
                self._gone(name)
                ray.kill(self._handles.pop(name))
            case Look(name):
                if name in self._handles and _waits_for_resources(self._handles[name]):
                    cpus = self._fleet.members[name].spec.cpus
                    why = f"waiting for {cpus} CPUs; add some, or end something"
                    self._fleet.waits(name, why, time.monotonic())

    def _start(self, spec: ActorSpec) -> None:
        """Find the running actor of that name, else create it."""
        self._leaving.take_back(spec.name)
        try:
            handle = ray.get_actor(spec.name, NAMESPACE)
        except ValueError:
            self._create(spec)
        else:
            self._handles[spec.name] = handle
            self._calls[handle.status.remote()] = (spec.name, handle, True)

    def _begin(self, spec: ActorSpec, handle: Any) -> None:
        self._handles[spec.name] = handle
        if spec.name in self._pairs:
            handle.stand_by.remote(self._pool.size)
        elif spec.kind == "monitor":
            predecessor = self._hosts.predecessor(spec.which)
            handle.start.remote(self._pool.size, self._state == "running", predecessor)
        elif spec.kind == "drainer":
            handle.start.remote(self._pool.size, False)
        else:
            handle.start.remote()

    def _node_for(self, spec: ActorSpec) -> str | None:
        """The node on which a monitor or drainer has its spool; None while there is none."""
        now = time.monotonic()
        if spec.kind == "drainer":
            host = spec.settings.drain.host
            place: str | Wait = host if host in self._hosts.alive else Wait(f"host {host} does not answer")
        else:
            before = self._hosts.homes.get(spec.home)
            place = self._hosts.place(spec.home, now, self._other_host(spec))
            if before not in (None, place) and not isinstance(place, Wait):
                self._fleet.alert(f"{spec.which} moved from host {before}, which is gone, to {place}")
        if isinstance(place, Wait):
            self._fleet.postpone(spec.name, place.reason, now + LOOK_INTERVAL)
            return None
        if spec.kind in TABLES:
            self._end(drainer_name(self._config.pipeline, place, spec.home))
        return self._hosts.alive[place].id

    def _end(self, name: str) -> None:
        """End an actor for good."""
        self._fleet.unwant(name)
        handle = self._handles.pop(name, None)
        if handle is not None:
            ray.kill(handle)

    def _create(self, spec: ActorSpec) -> None:
        common = {
            "name": spec.name,
            "namespace": NAMESPACE,
            "lifetime": "detached",
            "num_cpus": spec.cpus,
            "max_restarts": 0,
        }
        match spec.kind:
            case "monitor" | "standby" | "drainer":
                node = self._node_for(spec)
                if node is None:
                    return
                common["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node, soft=False)
                arguments: tuple[Any, ...] = (spec.settings, self._incarnation(), spec.digest)
            case "writer":
                arguments = (self._config.pipeline, spec.settings, spec.digest)
            case _:
                common["scheduling_strategy"] = "SPREAD"
                arguments = (spec.settings, spec.digest, max(1, int(spec.cpus)))
        handle = ACTORS[spec.kind].options(**common).remote(*arguments)
        self._gone(spec.name)
        self._begin(spec, handle)
        self._calls[handle.status.remote()] = (spec.name, handle, False)

    def _incarnation(self) -> int:
        """A new one, greater than all before."""
        self._memory.incarnation = max(self._memory.incarnation + 1, int(time.time() * 1000))
        self._save()
        return self._memory.incarnation

    # -- tables with a standby ----------------------------------------------------------------------------------

    def _promote(self) -> None:
        """Give a monitor to the tables with a standby that have none."""
        for pair in [pair for name, pair in self._pairs.items() if name == pair.front]:
            if not self._pairs.keys() >= {*pair.places}:
                continue  # one of the two is being exchanged
            ready = pair.ready
            for name in pair.places:
                self._fleet.members[name].patience = PATIENCE if ready and name == pair.leader else None
            chosen = pair.choose(time.monotonic())
            if chosen is None:
                continue
            log.warning("%s becomes the monitor of its table", chosen)
            # What a standby has received is not stored yet, so it has to receive, if only to stop at once.
            intake = ready or self._state == "running"
            other = pair.other(chosen)
            call = self._handles[chosen].promote.remote(self._incarnation(), self._pool.size, intake, other)
            self._promotions[call] = chosen

    def _promoted(self, call: Any) -> None:
        name = self._promotions.pop(call)
        pair = self._pairs.get(name)
        if pair is None:
            return  # the table has no standby any more
        try:
            ray.get(call)
        except RayError as error:
            log.error("%s did not become a monitor: %s", name, reason(error))
            pair.promoted(name, False)
        else:
            pair.promoted(name, True)
            self._arrange()
            self._save()

    def _pair_up(self, fronts: Container[str] = ()) -> None:
        """Have a pair for each table with a standby; `fronts` are places that are known to have been monitors."""
        before, self._pairs = self._pairs, {}
        for table in (table.name for table in self._config.tables if table.standby):
            places = monitor_name(self._config.pipeline, table), standby_name(self._config.pipeline, table)
            front = next((place for place in places if place in fronts), places[0])
            self._pairs |= dict.fromkeys(places, before.get(front) or Pair(places, front))
        self._arrange()

    def _arrange(self) -> None:
        """Let the one of each two places that is the table's monitor be called so."""
        for name, pair in self._pairs.items():
            member = self._fleet.members[name]
            member.spec = replace(member.spec, kind="monitor" if name == pair.front else "standby")

    def _gone(self, name: str) -> None:
        if name in self._pairs:
            self._pairs[name].gone(name)

    def _other_host(self, spec: ActorSpec) -> str | None:
        """The host of the other place of the table."""
        if spec.name not in self._pairs:
            return None
        other = self._pairs[spec.name].other(spec.name)
        return self._hosts.homes.get(self._fleet.members[other].spec.home)

    # -- answers ------------------------------------------------------------------------------------------------

    def _answer(self, call: Any) -> None:
        name, handle, adopted = self._calls.pop(call)
        if self._handles.get(name) is not handle:
            return  # of a life that is over
        now = time.monotonic()
        spec = self._fleet.members[name].spec
        try:
            answer = ray.get(call)
        except RayError as error:
            if adopted and isinstance(error, RayActorError):
                self._replace(spec)  # it was about to end when it was found
            else:
                self._failed(name, reason(error), now, dead=isinstance(error, ActorDiedError))
            return
        if adopted and answer["digest"] != spec.digest:
            self._replace(spec)  # it was made from other settings
        elif answer.get("state") == "failed":
            self._failed(name, answer["problem"], now, dead=False)
        else:
            if adopted:
                self._begin(spec, handle)
            self._fleet.answered(name, answer, now, adopted)
            self._answered(spec, answer)

    def _answered(self, spec: ActorSpec, answer: dict[str, Any]) -> None:
        if pair := self._pairs.get(spec.name):
            front = pair.front
            pair.answered(spec.name, answer)
            if pair.front != front:
                self._arrange()
                self._save()
        if spec.kind == "monitor" and self._hosts.answered(spec.home, answer):
            self._save()
        elif spec.kind == "drainer" and answer.get("drained"):
            host = spec.settings.drain.host
            log.warning("%s on host %s: delivered", spec.which, host)
            self._end(spec.name)
            self._hosts.drained((host, spec.which))
            self._searches.begin(host)

    def _replace(self, spec: ActorSpec) -> None:
        """Create an actor in place of one that was found."""
        ray.kill(self._handles.pop(spec.name))
        try:
            self._create(spec)
        except Exception as error:
            self._fleet.died(spec.name, reason(error), time.monotonic())

    def _failed(self, name: str, reason: str, now: float, dead: bool) -> None:
        log.warning("%s failed: %s", name, reason)
        self._fleet.died(name, reason, now)
        self._gone(name)
        handle = self._handles.pop(name, None)
        if handle is not None and not dead:
            ray.kill(handle)

    def _specs(self) -> list[ActorSpec]:
        """All actors but drainers."""
        pool = decoder_specs(self._config, self._pool.size)
        tables = [*monitor_specs(self._config), *standby_specs(self._config)]
        return [*tables, *writer_specs(self._config), *pool]

    def _save(self) -> None:
        if self._state in ("stopping", "stopped"):
            return  # what comes now is of a pipeline that has ended
        restarts = self._earlier_restarts + self._fleet.restarts
        values: dict[str, Any] = {
            "decoders": self._pool.dump(),
            "restarts": restarts,
            "hosts": self._hosts.dump(),
            "web_port": self._web_port,
            "fronts": [pair.front for name, pair in self._pairs.items() if name == pair.front],
        }
        if self._config.digest != self._first:
            values["changed"] = {"from": self._first, "to": self._config.dump()}
        self._memory.save(values)


def _waits_for_resources(handle: Any) -> bool:
    """Whether an actor has no process yet."""
    return actor_info(handle._actor_id.hex()).get("State") in ("DEPENDENCIES_UNREADY", "PENDING_CREATION")


def reason(error: BaseException) -> str:
    """One line of an exception that Ray may have wrapped in a traceback."""
    cause = getattr(error, "cause", None) or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return f"{type(cause).__name__}: {lines[0] if lines else 'no message'}"
