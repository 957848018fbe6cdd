"""Keeps the actors of one pipeline alive: watches and restarts them, and has what is left on hosts delivered.

It decides nothing itself: ``fleet.py``, ``hosts.py``, ``pairs.py`` and ``pool.py`` do. How actors are started and ended
is in ``crew.py``, what people ask for in ``actor.py``.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Container, Iterator
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayActorError, RayError

from actors.names import (
    decoder_name,
    monitor_name,
    standby_name,
)
from actors.ray_state import named_actors
from cluster.config import PipelineConfig
from cluster.supervisor.crew import LOOK_INTERVAL, MONITORS, TABLES, Crew
from cluster.supervisor.fleet import Action, Kill, Look, MemberState, Ping, Start
from cluster.supervisor.pairs import PATIENCE, Pair
from cluster.supervisor.plan import (
    ActorSpec,
    decoder_specs,
    drainer_spec,
    monitor_specs,
)
from cluster.supervisor.resources import has_no_process, lacking_cpus
from cluster.supervisor.searches import Searches
from cluster.supervisor.sharing import assign_homes
from cluster.supervisor.spools import Place
from cluster.watch.status import Rates

log = logging.getLogger(__name__)

#: Seconds between two rounds of the loop; a dead actor is seen within a round after its ping.
TICK = 0.1


class Keeper(Crew):
    """Keeps the actors of `config` alive until told to stop."""

    def __init__(self, config: PipelineConfig) -> None:
        super().__init__(config)
        self._looked_at = 0.0
        self._searches = Searches(self._hosts, str(self._config.spool.path), config.pipeline)
        #: ObjectRef -> who was told to become its table's monitor.
        self._promotions: dict[Any, str] = {}
        self._changing = threading.Lock()
        self._since = time.time()
        self._rates = Rates()
        #: What the status says of the page.
        self._page: dict[str, str | None] = {"url": None, "problem": None}
        self._find_leaving()
        self._sweep()
        self._pair_up(self._fronts)
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
                if not self._homes_known and self._hosts.alive and self._hosts.all_searched:
                    self._know_homes()
                for action in self._fleet.actions(time.monotonic()):
                    with _going_on(action):
                        self._do(action)
                self._ask()
                self._promote()
            calls = [*self._calls, *self._searches.calls, *self._promotions]
        done = ray.wait(calls, num_returns=len(calls), timeout=TICK)[0] if calls else []
        if not calls:
            time.sleep(TICK)
        with self._lock:
            for call in done:
                if call in self._promotions:
                    self._promoted(call)
                elif call in self._calls:
                    self._answer(call)
                else:  # of a path where no spools are any more, it is nobody's
                    self._searches.take(call)
            if self._fleet.restarts != restarts or self._unsaved:
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
        # While a change is under way, tables are missing that are only being exchanged.
        if self._state == "running" and self._homes_known and not self._changing.locked():
            self._drain_orphans()

    def _search_anew(self) -> None:
        """Spools are at another path from now on."""
        with self._lock:
            self._searches = Searches(self._hosts, str(self._config.spool.path), self._config.pipeline)
            for host in self._hosts.forget_spools():
                self._searches.begin(host)

    def _know_homes(self) -> None:
        """Spools are found, so tables that have one go where it is. No monitor was started before."""
        self._homes = assign_homes(self._config, self._hosts.known_homes())
        self._homes_known = True
        for spec in monitor_specs(self._config, self._homes):
            if (member := self._fleet.members.get(spec.name)) is not None:
                member.spec = spec
        self._arrange()
        self._save()

    def _drain_orphans(self) -> None:
        orphans = self._hosts.to_drain(self._wanted_homes, self._config.sinks)
        for place, spool in orphans.items():
            if any(pair.has(place.home) for pair in self._pairs.values()):
                continue
            # The folder may be that of a process for other tables.
            here = (m.spec for m in self._fleet.members.values() if m.spec.kind in TABLES)
            shared = self._hosts.homes.get(place.home) == place.host and any(
                spec.home == place.home for spec in here
            )
            actor = monitor_name(self._config.pipeline, place.home) if shared else None
            last_epoch = self._hosts.left.get(place)
            spec = drainer_spec(self._config, place, spool.pending, last_epoch, actor)
            if spec.name not in self._fleet.members:
                log.warning("%s on host %s: delivering %d records", place.table, place.host, spool.records)
                self._fleet.want([spec])

    @property
    def _wanted_homes(self) -> set[tuple[str, str]]:
        """(home, table) of every monitor and standby."""
        specs = (member.spec for member in self._fleet.members.values())
        return {(spec.home, spec.which) for spec in specs if spec.kind in TABLES}

    def _sweep(self) -> None:
        """End what an earlier life had, and nobody wants now: it may have died in the midst of a change.

        So do drainers: what they had left to do is found anew.
        """
        wanted = {member.spec.actor for member in self._fleet.members.values()} | self._leaving.handles.keys()
        for name, handle in self._others().items():
            if name not in wanted:
                log.warning("%s is not wanted any more; ending it", name)
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

    def _do(self, action: Action) -> None:
        match action:
            case Start(spec):
                try:
                    self._start(spec)
                except Exception as error:
                    self._fleet.died(spec.name, reason(error), time.monotonic())
            case Ping(name):
                if (handle := self._handles.get(name)) is not None:  # else it went in this round
                    self._ask_next([name], handle, False)
            case Kill(name):
                if (handle := self._handles.get(name)) is not None:
                    self._process_failed(handle, "its process did not answer", time.monotonic())
            case Look(name):
                if name in self._handles and has_no_process(self._handles[name]):
                    spec = self._fleet.members[name].spec
                    host = self._host_of(spec)
                    node = self._hosts.alive[host].id if host in self._hosts.alive else None
                    self._fleet.waits(name, lacking_cpus(spec.cpus, host, node), time.monotonic())

    def _ask(self) -> None:
        """Ask members how they are: one question to each actor."""
        asked, self._to_ask = self._to_ask, {}
        for (handle, found), names in asked.items():
            specs = [self._fleet.members[name].spec for name in names if name in self._fleet.members]
            if not specs:
                continue  # they went in this round
            if time.monotonic() < self._not_before.get(handle, 0.0):
                self._ask_next(names, handle, found)
                continue
            self._not_before.pop(handle, None)
            whom = ([spec.which for spec in specs],) if specs[0].kind in MONITORS else ()
            try:
                if found and whom:
                    self._end_others(specs[0].actor, handle)
                self._calls[handle.status.remote(*whom)] = (names, handle, found)
            except Exception:
                log.exception("%s could not be asked; trying again", names[0])
                self._ask_later(names, handle, found)

    def _end_others(self, actor: str, handle: Any) -> None:
        """End the tables in an actor that was found that nobody wants there, if an earlier life did not come to it."""
        wanted = [m.spec.which for m in self._fleet.members.values() if m.spec.actor == actor]
        handle.end_others.remote(wanted, self._memory.incarnation)  # those that come later have later ones

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
            spec = self._fleet.members[chosen].spec
            incarnation = self._incarnations[chosen] = self._incarnation()
            before = self._hosts.given_up.get(spec.which)  # what was at either place before, both have
            call = self._handles[chosen].promote.remote(
                spec.which, incarnation, self._pool.size, intake, other, self._paused(spec), before
            )
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

    # -- answers ------------------------------------------------------------------------------------------------

    def _answer(self, call: Any) -> None:
        names, handle, found = self._calls.pop(call)
        names = [
            name for name in names if self._handles.get(name) == handle
        ]  # others are of a life that is over
        if not names:
            return
        now = time.monotonic()
        try:
            answer = ray.get(call)
        except ActorUnavailableError:  # for how long, `unresponsive` decides
            self._ask_later(names, handle, found)
            return
        except RayError as error:
            if found and isinstance(error, RayActorError):
                self._kill(handle)  # it was about to end when it was found
                for name in names:
                    self._replace(self._fleet.members[name].spec)
            else:
                self._process_failed(handle, reason(error), now, dead=isinstance(error, ActorDiedError))
            return
        if found and self._fleet.members[names[0]].spec.kind in MONITORS:
            self._created[self._fleet.members[names[0]].spec.actor] = handle
        for name in names:
            spec = self._fleet.members[name].spec
            own = answer.get(spec.which) if spec.kind in MONITORS else answer
            try:
                self._take(spec, own, handle, found, now)
            except Exception:
                log.exception("the answer of %s was not taken; asking again", name)
                self._ask_later([name], handle, found)

    def _take(
        self, spec: ActorSpec, answer: dict[str, Any] | None, handle: Any, found: bool, now: float
    ) -> None:
        """What one member said of itself; None: its actor does not have it."""
        if self._handles.get(spec.name) != handle:
            return  # its process was ended for another's sake
        if found and answer is not None and "incarnation" in answer:
            self._incarnations[spec.name] = answer["incarnation"]
        if answer is None:
            self._begin(spec, handle)
        elif found and (answer["digest"] != spec.digest or self._was_stopped(spec, answer)):
            if spec.shares:
                self._begin(spec, handle)
            else:
                self._kill(handle)
                self._replace(spec)
        elif answer.get("state") == "failed":
            self._failed(spec, handle, answer, now)
        else:
            if found and spec.kind in MONITORS:
                handle.set_decoders.remote(self._pool.size)
            elif found:
                handle.start.remote()
            if self._fleet.members[spec.name].state is MemberState.STARTING:
                how = "is found" if found else "is up"
                log.info("%s %s, process %s", spec.name, how, answer.get("pid"), extra=_about(spec))
            self._fleet.answered(spec.name, answer, now, found)
            self._answered(spec, answer)

    def _was_stopped(self, spec: ActorSpec, answer: dict[str, Any]) -> bool:
        """Whether an earlier life had stopped a monitor for a change, or an end, to which it did not come any more."""
        return spec.kind == "monitor" and self._state == "running" and answer.get("state") == "stopped"

    def _answered(self, spec: ActorSpec, answer: dict[str, Any]) -> None:
        if pair := self._pairs.get(spec.name):
            front = pair.front
            pair.answered(spec.name, answer)
            if pair.front != front:
                self._arrange()
                self._save()
        # Also of those that were away when it was said, or heard of two pauses in the other order.
        if "paused" in answer and answer["paused"] != self._paused(spec):
            self._handles[spec.name].pause.remote(spec.which, self._paused(spec))
        if spec.kind == "monitor" and self._hosts.answered(spec.home, spec.which, answer):
            self._unsaved = True
        elif spec.kind == "drainer" and answer.get("drained"):
            host = spec.settings.drain.host
            log.warning("%s on host %s: delivered", spec.which, host)
            self._forget(spec.name)
            self._hosts.drained(Place(host, spec.home, spec.which))
            self._searches.begin(host)

    def _replace(self, spec: ActorSpec) -> None:
        """Create an actor in place of one that was found and ended, or join others in it."""
        self._handles.pop(spec.name, None)
        try:
            if spec.actor in self._created:
                self._begin(spec, self._created[spec.actor])
            else:
                self._create(spec)
        except Exception as error:
            self._lost(spec.name, reason(error), time.monotonic())

    def _failed(self, spec: ActorSpec, handle: Any, answer: dict[str, Any], now: float) -> None:
        """A member says that it has failed: it ends, and its process only if that is to blame, or nobody else's."""
        if not spec.shares or answer.get("fatal"):
            self._process_failed(handle, answer["problem"], now)
            return
        self._end_table(spec, handle)
        self._lost(spec.name, answer["problem"], now)

    def _process_failed(self, handle: Any, why: str, now: float, dead: bool = False) -> None:
        """An actor is of no use any more: all that are in it have failed."""
        for name in [name for name, each in self._handles.items() if each == handle]:
            self._lost(name, why, now)
        if dead:
            self._created = {actor: each for actor, each in self._created.items() if each != handle}
        else:
            self._kill(handle)

    def _lost(self, name: str, why: str, now: float) -> None:
        log.warning("%s failed: %s", name, why, extra=_about(self._fleet.members[name].spec))
        self._fleet.died(name, why, now)
        self._gone(name)
        self._handles.pop(name, None)


def _about(spec: ActorSpec) -> dict[str, Any]:
    """What a log record about an actor says that it is about."""
    if spec.kind == "decoder":
        return {}
    return {"sink" if spec.kind == "writer" else "table": spec.which}


@contextlib.contextmanager
def _going_on(action: Action) -> Iterator[None]:
    """Let what fails keep nobody from the rest of the round."""
    try:
        yield
    except Exception:
        log.exception("%s failed; going on", action)


def reason(error: BaseException) -> str:
    """One line of an exception that Ray may have wrapped in a traceback."""
    cause = getattr(error, "cause", None) or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return f"{type(cause).__name__}: {lines[0] if lines else 'no message'}"
