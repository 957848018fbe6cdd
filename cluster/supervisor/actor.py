"""The supervisor: a detached Ray actor that keeps the actors of one pipeline, and does what people ask of it.

Data flows without it; Ray restarts it, and it finds its actors again by their names.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Container
from concurrent.futures import Future
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

from actors.errors import ActorError
from actors.names import NAMESPACE, monitor_name, supervisor_name
from actors.ray_state import keep_logs
from cluster.config import PipelineConfig
from cluster.config.web import Web
from cluster.supervisor.crew import ACTORS, TABLES, WITH_SPOOL
from cluster.supervisor.difference import difference
from cluster.supervisor.keeper import Keeper, reason
from cluster.supervisor.plan import SUPERVISOR_CPUS, ActorSpec
from cluster.supervisor.sharing import assign_homes
from cluster.supervisor.times import ASK_TIMEOUT, END_TIMEOUT
from cluster.watch.status import pipeline_status
from cluster.watch.watch import Watch

log = logging.getLogger(__name__)

#: Seconds for which a supervisor can be asked after its pipeline has ended.
LINGER = 10.0

#: Seconds allowed to a monitor to carry out a command.
COMMAND_TIMEOUT = 15.0


class Supervisor(Keeper):
    """A keeper that is told what to do. Methods are thread-safe."""

    #: What :meth:`stop` returned.
    _left: dict[str, Any]

    def status(self) -> dict[str, Any]:
        """Everything ``tablecast status`` shows; see :mod:`cluster.watch.status`."""
        with self._lock:
            return pipeline_status(
                self._config,
                self._fleet,
                self._rates,
                self._hosts,
                now=time.monotonic(),
                state=self._state,
                since=self._since,
                pool=self._pool.status(),
                pauses=self._pauses,
                web=self._page,
            )

    @property
    def stopped(self) -> bool:
        return self._state == "stopped"

    @property
    def web(self) -> Web:
        """The settings of the page."""
        return self._config.web

    @property
    def web_port(self) -> int | None:
        """The port that the page had last, in an earlier life too."""
        return self._web_port

    def served(self, url: str | None, port: int | None, problem: str | None) -> None:
        """The page is at `url` from now on; or it is not, for `problem`."""
        with self._lock:
            self._page = {"url": url, "problem": problem}
            if port is not None and port != self._web_port:
                self._web_port = port
                self._save()

    def config(self) -> dict[str, Any]:
        """The configuration **with credentials**, as ``PipelineConfig.dump`` gives it."""
        return self._config.dump()

    def actors_of(self, table: str) -> list[str]:
        """Ray's names of the actors that have `table`: of its monitor, then of its standby."""
        with self._lock:
            specs = [member.spec for member in self._fleet.members.values()]
            return [
                spec.actor for kind in TABLES for spec in specs if (spec.kind, spec.which) == (kind, table)
            ]

    def scale(self, decoders: int | None) -> str | None:
        """Hold the pool at `decoders`; with None, let its size follow the load again.

        Returns why not if the pipeline file does not allow that many. Decoders that leave finish what they have begun.
        """
        bounds = self._config.decoders
        with self._lock:
            if decoders is None:
                self._pool.release()
                self._save()
                return None
            if not bounds.min <= decoders <= bounds.max:
                return f"decoders of {self._config.pipeline} are bound to {bounds.min} to {bounds.max} by its file"
            self._pool.hold()
            waiting = self._resize(decoders, "person", "asked for")
        if waiting is not None:
            waiting.join()
        return None

    def apply(self, values: dict[str, Any], drain_seconds: float) -> str | None:
        """Become what the configuration `values` says, in the steps of :func:`difference` taken at once.

        Actors whose settings stay the same go on. Returns why nothing was changed if what should be delivered before
        was not within `drain_seconds`.
        """
        with self._changing:
            steps = difference(self._config, PipelineConfig.model_validate(values), self._homes)
            if not steps:
                return None
            tables = {table for step in steps for table in step.drain}
            left = self._drain(drain_seconds, tables)
            delivered = not (left["pending"] or left["silent"])
            path = self._config.spool.path
            with self._lock:
                if self._state != "running":
                    return f"{self._config.pipeline} is being stopped"
                if delivered:
                    self._config = steps[-1].config
                    self._homes = assign_homes(self._config, {**self._hosts.known_homes(), **self._homes})
                    self._pauses.keep((table.name for table in self._config.tables), self._config.sinks)
                    self._give_up_spools()
                    size = self._pool.rebound(self._config)
                    self._resize(size, "file", "its bounds have changed")
                wanted = self._specs()
                digests = {spec.name: spec.digest for spec in wanted}
                specs = [m.spec for m in self._fleet.members.values() if m.spec.kind != "drainer"]
                ends = [spec for spec in specs if digests.get(spec.name) != spec.digest]
                if not delivered:  # those that were stopped for it are to receive again
                    ends = [spec for spec in specs if spec.kind == "monitor" and spec.which in tables]
            self._exchange(ends, wanted, [spec.name for spec in specs if spec.kind == "monitor"])
            if self._config.spool.path != path:
                self._search_anew()
            if delivered:
                return None
            return (
                f"{left['pending']:,} records of {', '.join(sorted(tables))} are not delivered yet; see"
                f" `tablecast status {self._config.pipeline}` and try again"
            )

    def _exchange(self, ends: list[ActorSpec], wanted: list[ActorSpec], fronts: Container[str]) -> None:
        """End some members, monitors before what they send to, and want others, perhaps of the same names.

        `fronts` are those that are monitors.
        """
        for kind in ("monitor", "standby", "writer", "decoder"):
            some = [spec for spec in ends if spec.kind == kind]
            with self._lock:
                for spec in some:
                    self._fleet.unwant(spec.name)
                    self._gone(spec.name)
                    self._pairs.pop(spec.name, None)  # nobody is promoted meanwhile
                handles = {s.name: self._handles.pop(s.name) for s in some if s.name in self._handles}
                # An actor ends as a whole, also if all that are in it are down, unless others are to be in it.
                shared = {member.spec.actor for member in self._fleet.members.values()}
                whole = {
                    spec.actor: handle
                    for spec in some
                    if spec.actor not in shared
                    and (handle := handles.get(spec.name) or self._created.get(spec.actor)) is not None
                }
                calls = {actor: handle.stop.remote() for actor, handle in whole.items()}
                for spec in some:
                    if spec.actor in shared and spec.name in handles:
                        calls[spec.name] = self._end_table(spec, handles[spec.name])
            _quietly(calls, END_TIMEOUT)
            with self._lock:
                for handle in whole.values():
                    self._kill(handle)
        with self._lock:
            self._fleet.want(wanted)
            self._pair_up(fronts)
            self._tell_decoders()

    def _give_up_spools(self) -> None:
        """Remember the monitors of tables that get another spool, as that does not have what they received."""
        spools = {spec.name: spec.settings.spool for spec in self._specs() if spec.kind in TABLES}
        for spec in [member.spec for member in self._fleet.members.values() if member.spec.kind == "monitor"]:
            # The second place of a table may be its monitor, and go.
            first = monitor_name(self._config.pipeline, spec.which)
            after = spools.get(spec.name, spools.get(first))
            if after not in (None, spec.settings.spool):
                self._hosts.give_up(spec.home, spec.which, spec.settings.spool)

    def pause(self, target: str | None) -> dict[str, Any]:
        """Deliver nothing more of the table, or to the sink, `target`; None: to any sink. It receives on.

        Remembered until :meth:`resume`. Returns ``{"tables": [...], "sinks": [...], "silent": [table]}``: all that is
        paused now, and the tables whose monitors do not answer and hear of it when they are back.
        """
        with self._lock:
            tables = [table.name for table in self._config.tables]
            self._pauses.pause(target, tables, self._config.sinks)
            self._save()
        return {**self._pauses.dump(), "silent": self._tell_pauses()}

    def _tell_pauses(self) -> list[str]:
        """Let all who deliver know what is paused; returns the tables of those that do not answer."""
        with self._lock:
            members = [m.spec for m in self._fleet.members.values() if m.spec.kind in WITH_SPOOL]
            calls = {
                spec.name: self._handles[spec.name].pause.remote(spec.which, self._paused(spec))
                for spec in members
                if spec.name in self._handles
            }
        heard = _quietly(calls, COMMAND_TIMEOUT)
        return sorted(spec.which for spec in members if spec.name not in heard)

    def resume(self, target: str | None, skip: bool) -> dict[str, Any]:
        """Let what is paused, parked or aborted go on: of the table or sink `target`, or all of it.

        With `skip`, the records that aborted a table go to the dead letters. Returns the names of the actors woken,
        the (feed, sink) of each lane, what was paused (:meth:`Pauses.dump`), and the tables whose monitors cannot be
        asked now.
        """
        with self._lock:
            ended = self._pauses.resume(target)
            self._save()
        if any(ended.values()):
            self._tell_pauses()
        calls: dict[str, tuple[str, Any]] = {}
        with self._lock:
            members = [m for m in self._fleet.members.values() if m.spec.kind != "decoder" or target is None]
            named = [m.spec for m in members if target in (None, m.spec.which)]
            actors = [spec.name for spec in named if self._fleet.wake(spec.name)]
            tables = {spec.which for spec in named if spec.kind in WITH_SPOOL}
            sinks = {spec.which for spec in named if spec.kind == "writer"}
            silent = []
            for spec in (member.spec for member in members if member.spec.kind in WITH_SPOOL):
                wanted = (
                    spec.settings.sinks if spec.which in tables else sinks.intersection(spec.settings.sinks)
                )
                if not wanted:
                    continue
                if spec.name in self._handles:
                    thaw = spec.which in tables
                    call = self._handles[spec.name].resume.remote(spec.which, list(wanted), skip, thaw)
                    calls[spec.name] = (spec.which, call)
                elif spec.name not in actors:
                    silent.append(spec.which)
        lanes = []
        for table, call in calls.values():
            try:
                lanes += ray.get(call, timeout=COMMAND_TIMEOUT)
            except (RayActorError, RayTaskError, GetTimeoutError) as error:
                log.warning("%s not resumed: %s", table, reason(error))
                silent.append(table)
        return {"actors": actors, "lanes": lanes, "paused": ended, "silent": silent}

    def rewind(self, sink: str, table: str | None, time: int) -> dict[str, Any]:
        """Deliver again to `sink` what the spools of `table`, or of all, received at `time` (ticks) or later.

        Returns ``{"feeds": {feed: records}, "refused": {table: why}}``.
        """
        refused = {}
        calls: dict[str, Any] = {}
        with self._lock:
            monitors = [m.spec for m in self._fleet.members.values() if m.spec.kind == "monitor"]
            for spec in monitors:
                if sink not in spec.settings.sinks or table not in (None, spec.which):
                    continue
                if spec.name in self._handles:
                    calls[spec.which] = self._handles[spec.name].rewind.remote(spec.which, sink, time)
                else:
                    refused[spec.which] = "its monitor is being restarted; try again"
        feeds: dict[str, int] = {}
        for which, call in calls.items():
            try:
                feeds |= ray.get(call, timeout=COMMAND_TIMEOUT)
            except (RayActorError, RayTaskError, GetTimeoutError) as error:
                cause = getattr(error, "cause", None)
                refused[which] = str(cause) if isinstance(cause, ActorError) else reason(error)
        return {"feeds": feeds, "refused": refused}

    def stop(self, drain_seconds: float) -> dict[str, Any]:
        """Stop receiving, deliver what is left for up to `drain_seconds`, end all actors.

        Returns ``{"pending": n, "silent": [table]}``: records that stay in the spools, and the tables whose
        monitor did not say.
        """
        with self._lock:
            if self.stopped:
                return self._left
            self._state = "draining"
        left = self._drain(drain_seconds, ending=True)
        with self._lock:
            if self.stopped:  # somebody else did not want to wait so long
                return self._left
            self._state = "stopping"
            handles = [handle for kind in ACTORS for handle in self._actors_of((kind,))]
            handles += self._leaving.handles.values()
        # Also those that nobody knows any more, of an earlier life or without a table that is up.
        handles = list(dict.fromkeys([*handles, *self._others().values()]))
        _quietly({handle: handle.stop.remote() for handle in handles}, END_TIMEOUT)
        for handle in handles:
            ray.kill(handle)
        with self._lock:
            self._state, self._left = "stopped", left
            self._memory.forget()
        return left

    def _drain(self, seconds: float, tables: set[str] | None = None, ending: bool = False) -> dict[str, Any]:
        """Stop the intake of `tables`, or of all, and wait until they have nothing pending.

        A monitor that is being restarted is waited for. `ending`: the pipeline ends.
        """
        deadline = time.monotonic() + seconds
        while True:
            with self._lock:
                specs = {
                    name: member.spec
                    for name, member in self._fleet.members.items()
                    if member.spec.kind in WITH_SPOOL and (tables is None or member.spec.which in tables)
                }
                asked = {
                    handle: [self._fleet.members[name].spec.which for name in names if name in specs]
                    for handle, names in self._actors_of(WITH_SPOOL).items()
                }
            calls = {h: h.drain.remote(which, ending) for h, which in asked.items() if which}
            answers = {
                (handle, table): answer
                for handle, tables_of in _quietly(calls, ASK_TIMEOUT).items()
                for table, answer in tables_of.items()
            }
            # A spool of another host is waited for no longer than that host answers.
            silent = [
                spec.which
                for name, spec in specs.items()
                if (self._handles.get(name), spec.which) not in answers and spec.kind == "monitor"
            ]
            pending = sum(answer["pending"] for answer in answers.values())
            # What waits for a person is not waited for here.
            busy = {
                table: answer
                for (_, table), answer in answers.items()
                if answer["receiving"] or (answer["pending"] and not answer["stuck"])
            }
            if not (silent or busy):
                return {"pending": pending, "silent": silent}
            if time.monotonic() >= deadline:
                log.warning("not drained within %g s: %s", seconds, {**busy, **dict.fromkeys(silent)})
                return {"pending": pending, "silent": silent}
            time.sleep(0.1)


def _quietly(calls: dict[Any, Any], timeout: float) -> dict[Any, Any]:
    """The results of those calls that succeed in time."""
    refs = {call: key for key, call in calls.items()}
    done = ray.wait(list(refs), num_returns=len(refs), timeout=timeout)[0] if refs else []
    results = {}
    for call in done:
        try:
            results[refs[call]] = ray.get(call)
        except (RayActorError, RayTaskError) as error:
            log.warning("%s did not answer: %s", refs[call], reason(error))
    return results


@ray.remote(num_cpus=SUPERVISOR_CPUS, concurrency_groups={"control": 8})
class SupervisorActor:
    """The Ray shell. After a restart by Ray only ``__init__`` runs, so that is where the loop starts."""

    def __init__(self, config: dict[str, Any]) -> None:
        keep_logs(config)
        self._made: Future[Supervisor] = Future()
        arguments = (PipelineConfig.model_validate(config),)
        threading.Thread(target=self._run, args=arguments, name="supervisor", daemon=True).start()

    def _run(self, config: PipelineConfig) -> None:
        while not self._made.done():
            try:
                # Which asks Ray for what it remembers, and who is there.
                self._made.set_result(Supervisor(config))
            except Exception:
                log.exception("the supervisor could not begin; trying again")
                time.sleep(1.0)
        threading.Thread(target=Watch(self._supervisor).run, name="watch", daemon=True).start()
        self._supervisor.run()
        self._end(supervisor_name(config.pipeline))

    def _end(self, name: str) -> None:
        """End this actor, unless who asked for the end of its pipeline does."""
        time.sleep(LINGER)
        ray.kill(ray.get_actor(name, NAMESPACE))  # as Ray would restart a process that just ended

    @property
    def _supervisor(self) -> Supervisor:
        return self._made.result()

    @ray.method(concurrency_group="control")
    def pid(self) -> int:
        return os.getpid()

    @ray.method(concurrency_group="control")
    def status(self) -> dict[str, Any]:
        return self._supervisor.status()

    @ray.method(concurrency_group="control")
    def stopped(self) -> bool:
        return self._supervisor.stopped

    @ray.method(concurrency_group="control")
    def config(self) -> dict[str, Any]:
        return self._supervisor.config()

    @ray.method(concurrency_group="control")
    def actors_of(self, table: str) -> list[str]:
        return self._supervisor.actors_of(table)

    @ray.method(concurrency_group="control")
    def scale(self, decoders: int | None) -> str | None:
        return self._supervisor.scale(decoders)

    @ray.method(concurrency_group="control")
    def apply(self, config: dict[str, Any], drain_seconds: float) -> str | None:
        return self._supervisor.apply(config, drain_seconds)

    @ray.method(concurrency_group="control")
    def pause(self, target: str | None) -> dict[str, Any]:
        return self._supervisor.pause(target)

    @ray.method(concurrency_group="control")
    def resume(self, target: str | None, skip: bool) -> dict[str, Any]:
        return self._supervisor.resume(target, skip)

    @ray.method(concurrency_group="control")
    def rewind(self, sink: str, table: str | None, time: int) -> dict[str, Any]:
        return self._supervisor.rewind(sink, table, time)

    @ray.method(concurrency_group="control")
    def stop(self, drain_seconds: float) -> dict[str, Any]:
        return self._supervisor.stop(drain_seconds)
