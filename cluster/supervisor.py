"""The supervisor: a detached Ray actor that starts, watches, restarts and scales the actors of one pipeline.

It decides nothing itself: :class:`~cluster.fleet.Fleet` does. Data flows without it; Ray restarts it, and it finds
its actors again by their names.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from typing import Any

import ray
from ray.exceptions import ActorDiedError, GetTimeoutError, RayActorError, RayTaskError

from actors.codec.actor import DecodeActor
from actors.monitor.actor import MonitorActor
from actors.names import NAMESPACE, decoder_name
from actors.writer.actor import WriterActor
from cluster import memory
from cluster.config import PipelineConfig
from cluster.fleet import Fleet, Kill, Ping, Start
from cluster.plan import SUPERVISOR_CPUS, ActorSpec, decoder_specs, monitor_specs, writer_specs
from cluster.status import Rates, pipeline_status

log = logging.getLogger(__name__)

_ACTORS: dict[str, Any] = {"monitor": MonitorActor, "writer": WriterActor, "decoder": DecodeActor}

#: Seconds between two rounds of the loop; a dead actor is seen within a round after its ping.
TICK = 0.1

#: Seconds allowed to a decoder that is taken out of the pool for what it has begun.
DECODER_DRAIN = 30.0

#: Seconds allowed to a monitor to carry out a command.
COMMAND_TIMEOUT = 15.0


class Supervisor:
    """Keeps the actors of `config` alive until told to stop. Methods are thread-safe."""

    def __init__(self, config: PipelineConfig) -> None:
        self._config = config
        self._memory = memory.Memory(config.pipeline)
        remembered = self._memory.load()
        self._decoders = int(remembered.get("decoders", config.decoders.min))
        self._earlier_restarts = int(remembered.get("restarts", 0))
        self._host = str(remembered.get("host") or ray.util.get_node_ip_address())
        self._fleet = Fleet()
        self._fleet.want(monitor_specs(config) + writer_specs(config) + decoder_specs(config, self._decoders))
        self._lock = threading.RLock()
        self._handles: dict[str, Any] = {}
        #: ObjectRef -> (actor name, handle asked, whether it was adopted)
        self._calls: dict[Any, tuple[str, Any, bool]] = {}
        self._since = time.time()
        self._state = "running"
        self._rates = Rates()
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
                for action in self._fleet.actions(time.monotonic()):
                    self._do(action)
            calls = list(self._calls)
        done = ray.wait(calls, num_returns=len(calls), timeout=TICK)[0] if calls else []
        if not calls:
            time.sleep(TICK)
        with self._lock:
            for call in done:
                self._answer(call)
            if self._fleet.restarts != restarts:
                self._save()
            self._rates.sample(self._fleet, time.monotonic())

    def _do(self, action: Start | Ping | Kill) -> None:
        match action:
            case Start(spec):
                try:
                    self._start(spec)
                except Exception as error:
                    self._fleet.died(spec.name, _reason(error), time.monotonic())
            case Ping(name):
                handle = self._handles[name]
                self._calls[handle.status.remote()] = (name, handle, False)
            case Kill(name):
                ray.kill(self._handles.pop(name))

    def _start(self, spec: ActorSpec) -> None:
        handle, adopted = self._find(spec), True
        if handle is None:
            handle, adopted = self._create(spec), False
        self._handles[spec.name] = handle
        if spec.kind == "monitor":
            handle.start.remote(self._decoders, self._state == "running")
        else:
            handle.start.remote()
        self._calls[handle.status.remote()] = (spec.name, handle, adopted)

    def _find(self, spec: ActorSpec) -> Any:
        """The running actor of that name, unless it was made from other settings: such a one is ended."""
        try:
            handle = ray.get_actor(spec.name, NAMESPACE)
            answer = ray.get(handle.status.remote(), timeout=5.0)
        except GetTimeoutError:
            return handle  # busy: it is watched like any other from here on
        except (ValueError, RayActorError):
            return None
        if answer["digest"] == spec.digest:
            return handle
        ray.kill(handle)
        return None

    def _create(self, spec: ActorSpec) -> Any:
        common = {
            "name": spec.name,
            "namespace": NAMESPACE,
            "lifetime": "detached",
            "num_cpus": spec.cpus,
            "max_restarts": 0,
        }
        match spec.kind:
            case "monitor":
                incarnation = max(self._memory.incarnation + 1, int(time.time() * 1000))
                self._memory.incarnation = incarnation
                self._save()
                # A monitor lives where its spool is.
                pinned = {f"node:{self._host}": 0.001}
                return (
                    _ACTORS[spec.kind]
                    .options(resources=pinned, **common)
                    .remote(spec.settings, incarnation, spec.digest)
                )
            case "writer":
                return (
                    _ACTORS[spec.kind]
                    .options(**common)
                    .remote(self._config.pipeline, spec.settings, spec.digest)
                )
            case _:
                return _ACTORS[spec.kind].options(**common).remote(spec.digest)

    def _answer(self, call: Any) -> None:
        name, handle, adopted = self._calls.pop(call)
        if self._handles.get(name) is not handle:
            return  # of a life that is over
        now = time.monotonic()
        try:
            answer = ray.get(call)
        except (RayActorError, RayTaskError) as error:
            self._failed(name, _reason(error), now, dead=isinstance(error, ActorDiedError))
        else:
            if answer.get("state") == "failed":
                self._failed(name, answer["problem"], now, dead=False)
            else:
                self._fleet.answered(name, answer, now, adopted)

    def _failed(self, name: str, reason: str, now: float, dead: bool) -> None:
        log.warning("%s failed: %s", name, reason)
        self._fleet.died(name, reason, now)
        handle = self._handles.pop(name, None)
        if handle is not None and not dead:
            ray.kill(handle)

    def _save(self) -> None:
        if self._state in ("stopping", "stopped"):
            return  # what comes now is of a pipeline that has ended
        restarts = self._earlier_restarts + self._fleet.restarts
        self._memory.save({"decoders": self._decoders, "restarts": restarts, "host": self._host})

    # -- commands -----------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """Everything ``tablecast status`` shows; see :mod:`cluster.status`."""
        with self._lock:
            return pipeline_status(
                self._config,
                self._fleet,
                self._rates,
                state=self._state,
                since=self._since,
                decoders=self._decoders,
                earlier_restarts=self._earlier_restarts,
            )

    def scale(self, decoders: int) -> str | None:
        """Change the pool to `decoders`; returns why not if the pipeline file does not allow that many."""
        bounds = self._config.decoders
        if not bounds.min <= decoders <= bounds.max:
            return (
                f"decoders of {self._config.pipeline} are bound to {bounds.min} to {bounds.max} by its file"
            )
        with self._lock:
            before, self._decoders = self._decoders, decoders
            self._fleet.want(decoder_specs(self._config, decoders))
            self._save()
            for name, member in self._fleet.members.items():
                if member.spec.kind == "monitor" and name in self._handles:
                    self._handles[name].set_decoders.remote(decoders)
            leaving = [decoder_name(self._config.pipeline, n) for n in range(decoders, before)]
            handles = [self._handles.pop(name) for name in leaving if name in self._handles]
            for name in leaving:
                self._fleet.unwant(name)
        for handle in handles:
            # Queued behind what it has begun, so that it ends idle; a monitor sends a lost block elsewhere anyway.
            with contextlib.suppress(RayActorError, GetTimeoutError):
                ray.get(handle.idle.remote(), timeout=DECODER_DRAIN)
            ray.kill(handle)
        return None

    def resume(self, target: str | None, skip: bool) -> dict[str, Any]:
        """Let what is parked or aborted try again: of the table or sink `target`, or all of it.

        With `skip`, the records that aborted a table go to the dead letters. Returns the names of the actors woken,
        the (feed, sink) of each lane, and the tables whose monitors cannot be asked now.
        """
        calls: dict[str, Any] = {}
        with self._lock:
            members = [m for m in self._fleet.members.values() if m.spec.kind != "decoder" or target is None]
            named = [m.spec for m in members if target in (None, m.spec.which)]
            actors = [spec.name for spec in named if self._fleet.wake(spec.name)]
            tables = {spec.which for spec in named if spec.kind == "monitor"}
            sinks = {spec.which for spec in named if spec.kind == "writer"}
            silent = []
            for spec in (member.spec for member in members if member.spec.kind == "monitor"):
                wanted = (
                    spec.settings.sinks if spec.which in tables else sinks.intersection(spec.settings.sinks)
                )
                if not wanted:
                    continue
                if spec.name in self._handles:
                    calls[spec.which] = self._handles[spec.name].resume.remote(
                        list(wanted), skip, spec.which in tables
                    )
                elif spec.name not in actors:
                    silent.append(spec.which)
        lanes = []
        for table, call in calls.items():
            try:
                lanes += ray.get(call, timeout=COMMAND_TIMEOUT)
            except (RayActorError, RayTaskError, GetTimeoutError) as error:
                log.warning("%s not resumed: %s", table, _reason(error))
                silent.append(table)
        return {"actors": actors, "lanes": lanes, "silent": silent}

    def stop(self, drain_seconds: float) -> dict[str, Any]:
        """Stop receiving, deliver what is left for up to `drain_seconds`, end all actors.

        Returns ``{"pending": n, "silent": [table]}``: records that stay in the spools, and the tables whose
        monitor did not say.
        """
        with self._lock:
            self._state = "draining"
        left = self._drain(drain_seconds)
        with self._lock:
            self._state = "stopping"
            kinds = ("monitor", "writer", "decoder")
            members = [
                m.spec.name for kind in kinds for m in self._fleet.members.values() if m.spec.kind == kind
            ]
            handles = {name: self._handles[name] for name in members if name in self._handles}
        _quietly({name: handle.stop.remote() for name, handle in handles.items()}, 10.0)
        for handle in handles.values():
            ray.kill(handle)
        with self._lock:
            self._state = "stopped"
            self._memory.forget()
        return left

    def _drain(self, seconds: float) -> dict[str, Any]:
        """Stop intake and wait until nothing is pending. A monitor that is being restarted is waited for."""
        deadline = time.monotonic() + seconds
        while True:
            with self._lock:
                specs = [m.spec for m in self._fleet.members.values() if m.spec.kind == "monitor"]
                monitors = {s.which: self._handles[s.name] for s in specs if s.name in self._handles}
            answers = _quietly({table: monitor.drain.remote() for table, monitor in monitors.items()}, 10.0)
            silent = [spec.which for spec in specs if spec.which not in answers]
            pending = sum(answer["pending"] for answer in answers.values())
            # What waits for a person is not waited for here.
            busy = any(a["receiving"] or (a["pending"] and not a["stuck"]) for a in answers.values())
            if not (silent or busy) or time.monotonic() >= deadline:
                return {"pending": pending, "silent": silent}
            time.sleep(0.1)


def _quietly(calls: dict[str, Any], timeout: float) -> dict[str, Any]:
    """The results of those calls that succeed in time."""
    refs = {call: key for key, call in calls.items()}
    done = ray.wait(list(refs), num_returns=len(refs), timeout=timeout)[0] if refs else []
    results = {}
    for call in done:
        try:
            results[refs[call]] = ray.get(call)
        except (RayActorError, RayTaskError) as error:
            log.warning("while stopping %s: %s", refs[call], _reason(error))
    return results


def _reason(error: BaseException) -> str:
    """One line of an exception that Ray may have wrapped in a traceback."""
    cause = getattr(error, "cause", None) or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return f"{type(cause).__name__}: {lines[0] if lines else 'no message'}"


@ray.remote(num_cpus=SUPERVISOR_CPUS, concurrency_groups={"control": 8})
class SupervisorActor:
    """The Ray shell. After a restart by Ray only ``__init__`` runs, so that is where the loop starts."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._supervisor = Supervisor(PipelineConfig.model_validate(config))
        threading.Thread(target=self._supervisor.run, name="supervisor", daemon=True).start()

    @ray.method(concurrency_group="control")
    def pid(self) -> int:
        return os.getpid()

    @ray.method(concurrency_group="control")
    def status(self) -> dict[str, Any]:
        return self._supervisor.status()

    @ray.method(concurrency_group="control")
    def scale(self, decoders: int) -> str | None:
        return self._supervisor.scale(decoders)

    @ray.method(concurrency_group="control")
    def resume(self, target: str | None, skip: bool) -> dict[str, Any]:
        return self._supervisor.resume(target, skip)

    @ray.method(concurrency_group="control")
    def stop(self, drain_seconds: float) -> dict[str, Any]:
        return self._supervisor.stop(drain_seconds)
