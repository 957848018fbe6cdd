"""Commands to pipelines on a cluster: connect, bring up, find, take down. What the command line and tests use."""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from actors.errors import ActorError, SpoolNotOpen
from actors.names import NAMESPACE, supervisor_name
from cluster import local
from cluster.config import PipelineConfig
from cluster.errors import NoCluster, NoSuchPipeline, NotReady, PipelineExists
from cluster.supervisor.readiness import lacking
from cluster.supervisor.times import to_stop


class Left(NamedTuple):
    """What a stopped pipeline has not delivered: records in its spools, and tables whose monitor did not answer."""

    pending: int = 0
    silent: tuple[str, ...] = ()


#: A resource that Ray gives to a cluster's head, and to no other node.
HEAD = "node:__internal_head__"

#: Seconds allowed to a connection to a cluster's address.
REACH_TIMEOUT = 5.0

#: Seconds allowed to one answer of a supervisor.
ANSWER_TIMEOUT = 30.0

#: Seconds between two questions to an actor that is being restarted.
_ASK_AGAIN = 0.2


def connect(address: str | None = None, *, start: bool = False, own: bool = False) -> str | None:
    """Connect this process to a Ray cluster: at `address`, ``RAY_ADDRESS`` or the local one.

    Args:
        start: start the local cluster if none is meant and none runs.
        own: instead make a cluster that lives as long as this process.

    Returns the address, None for a cluster of our own. Raises :class:`NoCluster`.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    if not address:
        local.prepare_environment()
        if not own:
            _see_environment()
        if start and not own:
            address = local.ensure_started()
        elif not own:
            address = local.running_address()
            if address is None:
                raise NoCluster(
                    "no pipeline is running here; start one with `tablecast up FILE`, or name a cluster"
                    " with --address or RAY_ADDRESS"
                )
    else:
        _reach(address)
    import ray

    # Ray prints every death of an actor to standard output, into the midst of ours (it has no option for that); the
    # supervisor tells of them in its status.
    ray._private.worker.print_to_stdstream = lambda *arguments, **keywords: None
    options: dict[str, Any] = {"namespace": NAMESPACE, "log_to_driver": False, "logging_level": logging.ERROR}
    if address:
        try:
            ray.init(address, **options)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise NoCluster(
                f"no Ray cluster answers at {address}: {_first_line(error)}; check the address"
            ) from error
    else:
        ray.init("local", num_cpus=local.cpus(), include_dashboard=False, **options)
    return address


def _reach(address: str) -> None:
    """See whether anything listens at ``host:port``: Ray itself would wait for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdecimal():
        return  # "auto", "local" and the like
    try:
        socket.create_connection((host, int(port)), REACH_TIMEOUT).close()
        if ipaddress.ip_address(socket.gethostbyname(host)).is_loopback:
            local.prepare_environment()  # a cluster that keeps to this machine; Ray would ask for it elsewhere
            _see_environment()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise NoCluster(
            f"no Ray cluster answers at {address}: {reason}; check --address or RAY_ADDRESS"
        ) from error


def _see_environment() -> None:
    """See that Ray, if it was imported already, has our environment: it would look for the cluster elsewhere."""
    constants = sys.modules.get("ray._private.ray_constants")
    if constants is None or os.environ.get(local.LOOPBACK_ONLY) != "0" or not constants.ENABLE_RAY_CLUSTER:
        return
    raise NoCluster(
        "Ray was imported before this process was set up for a cluster on this machine; connect, as"
        f" tablecast.writer does, before `import ray`, or set {local.LOOPBACK_ONLY}=0 in its environment"
    )


def start_pipeline(config: PipelineConfig) -> Any:
    """Start `config`'s supervisor, detached, and return its handle. Raises :class:`PipelineExists`."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from cluster.supervisor import actor as supervisor

    actor: Any = supervisor.SupervisorActor
    name = supervisor_name(config.pipeline)
    exists = PipelineExists(
        f"a pipeline named {config.pipeline} is already running; `tablecast down {config.pipeline}` ends it,"
        " `tablecast submit` changes it; or choose another name under the key pipeline"
    )
    try:
        found = ray.get_actor(name, NAMESPACE)
    except ValueError:
        pass
    else:
        if not _has_stopped(found):
            raise exists
        ray.kill(found)
    options: dict[str, Any] = {
        "name": name,
        "namespace": NAMESPACE,
        "lifetime": "detached",
        "max_restarts": -1,
    }
    heads = [node["NodeID"] for node in ray.nodes() if node["Alive"] and HEAD in node["Resources"]]
    if heads:  # other nodes come and go; a head may have no CPUs to give
        options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(heads[0], soft=True)
    try:
        return actor.options(**options).remote(config.dump())
    except ValueError as error:  # the name was taken in between
        raise exists from error


def wait_ready(
    supervisor: Any, timeout: float, progress: Callable[[dict[str, Any]], None] | None = None
) -> bool:
    """Wait until every table is receiving, or done, and the rest is up. Returns whether it came to that."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        asked = time.monotonic()
        status: dict[str, Any] = ask(supervisor, "status", timeout=timeout)
        pause = max(0.1, time.monotonic() - asked)  # it has better things to do than to tell of many tables
        if progress is not None:
            progress(status)
        if not lacking(status):
            return True
        time.sleep(pause)
    return False


def find(pipeline: str) -> Any:
    """The supervisor of a running pipeline. Raises :class:`NoSuchPipeline`, naming those that run."""
    import ray

    try:
        return ray.get_actor(supervisor_name(pipeline), NAMESPACE)
    except ValueError:
        others = ", ".join(pipelines()) or "none"
        raise NoSuchPipeline(f"no pipeline named {pipeline} is running; running are: {others}") from None


def pipelines() -> list[str]:
    """Names of the pipelines that run on the cluster."""
    import ray

    suffix = supervisor_name("")
    actors = ray.util.list_named_actors(all_namespaces=True)
    names = [actor["name"] for actor in actors if actor["namespace"] == NAMESPACE]
    return sorted(name.removesuffix(suffix) for name in names if name.endswith(suffix))


def running_config(pipeline: str) -> PipelineConfig | None:
    """What the running pipeline of that name was made from, None if there is none."""
    try:
        supervisor = find(pipeline)
        return None if _has_stopped(supervisor) else PipelineConfig.model_validate(ask(supervisor, "config"))
    except NoSuchPipeline:
        return None


def _has_stopped(supervisor: Any) -> bool:
    """Whether its pipeline has ended, so that it is only about to end itself."""
    try:
        return bool(ask(supervisor, "stopped"))
    except NoSuchPipeline:
        return True


def ask(supervisor: Any, method: str, *arguments: Any, timeout: float = ANSWER_TIMEOUT) -> Any:
    """Call a supervisor's method, waiting through a restart of it by Ray.

    Raises :class:`NoSuchPipeline` if it has ended, :class:`NotReady` if it does not answer within `timeout` seconds.
    """
    import ray
    from ray.exceptions import ActorDiedError, ActorUnavailableError, GetTimeoutError

    deadline = time.monotonic() + timeout
    while True:
        try:
            call = getattr(supervisor, method).remote(*arguments)
            return ray.get(call, timeout=max(0.1, deadline - time.monotonic()))
        except ActorDiedError as error:
            raise NoSuchPipeline("the pipeline has ended; `tablecast status` shows those that run") from error
        except (ActorUnavailableError, GetTimeoutError) as error:
            if time.monotonic() > deadline:
                raise NotReady(
                    f"the supervisor has not answered within {timeout:.0f} s; data flows without it, ask again"
                ) from error
            time.sleep(_ASK_AGAIN)


def ask_monitor(
    pipeline: str, table: str, method: str, *arguments: Any, timeout: float = ANSWER_TIMEOUT
) -> Any:
    """Call a method about `table` of its monitor, whichever actor that is in, waiting through a restart of it.

    Raises :class:`NoSuchPipeline`, and :class:`NotReady` when the monitor is still away after `timeout` seconds, is
    busy or cannot do it.
    """
    deadline = time.monotonic() + timeout
    while True:
        why = None  # the first actor's, which is the monitor's as far as is known
        away = True
        for name in ask(find(pipeline), "actors_of", table):
            try:
                return _ask_actor(name, method, table, *arguments, deadline=deadline)
            except _Away as error:
                why = why or str(error)
            except _Refused as error:
                why, away = why or str(error), False
        if not away or time.monotonic() > deadline:
            why = why or "no actor has it"
            raise NotReady(f"the monitor of {table}: {why}; see `tablecast status {pipeline}`, and try again")
        time.sleep(_ASK_AGAIN)


class _Away(Exception):
    """An actor is not there, or has only begun to start."""


class _Refused(Exception):
    """An actor is busy, or cannot do what it was asked for."""


def _ask_actor(name: str, method: str, *arguments: Any, deadline: float) -> Any:
    import ray
    from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

    try:
        call = getattr(ray.get_actor(name, NAMESPACE), method).remote(*arguments)
        return ray.get(call, timeout=max(0.1, deadline - time.monotonic()))
    except (ValueError, RayActorError):
        raise _Away("it does not answer") from None
    except GetTimeoutError:
        raise _Refused("it does not answer") from None
    except RayTaskError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, SpoolNotOpen):
            raise _Away(str(cause)) from None
        if isinstance(cause, (ActorError, TimeoutError)):
            raise _Refused(str(cause) or "it is busy") from None
        raise


def stop_pipeline(pipeline: str, drain_seconds: float) -> Left:
    """Drain and end a pipeline."""
    import ray

    supervisor = find(pipeline)
    timeout = to_stop(drain_seconds) + ANSWER_TIMEOUT
    result = ask(supervisor, "stop", drain_seconds, timeout=timeout)
    ray.kill(supervisor, no_restart=True)
    return Left(int(result["pending"]), tuple(result["silent"]))


def end_local(pipeline: str) -> None:
    """End a pipeline on the local cluster at once, if it is there; and the cluster, if it has no other."""
    connect()
    if pipeline in pipelines():
        stop_pipeline(pipeline, 0.0)
    last = not pipelines()
    disconnect()
    if last:
        local.stop()


def disconnect() -> None:
    """Leave the cluster; detached actors go on."""
    import ray

    ray.shutdown()


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
