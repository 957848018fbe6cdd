"""Looks for the spools on hosts: a short task on each node."""

from __future__ import annotations

import time
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.supervisor.hosts import Hosts
from cluster.supervisor.spools import search

#: Seconds after which monitors are placed without knowing the spools of a host that does not tell.
TIMEOUT = 15.0

_search: Any = ray.remote(num_cpus=0, max_retries=0)(search)


class Searches:
    """Searches of the spools of `pipeline` below `path`; what they find, `hosts` is told."""

    def __init__(self, hosts: Hosts, path: str, pipeline: str) -> None:
        self._hosts = hosts
        self._path = path
        self._pipeline = pipeline
        #: ObjectRef -> (host, when to go on without)
        self._due: dict[Any, tuple[str, float]] = {}

    @property
    def calls(self) -> list[Any]:
        """What is waited for; to be given to :meth:`take` when it is done."""
        return list(self._due)

    def begin(self, host: str) -> None:
        """Search a host, if it is alive."""
        if (node := self._hosts.alive.get(host)) is None:
            return
        there = NodeAffinitySchedulingStrategy(node.id, soft=False)
        call = _search.options(scheduling_strategy=there).remote(self._path, self._pipeline)
        self._due[call] = (host, time.monotonic() + TIMEOUT)

    def give_up(self, now: float) -> None:
        """Go on without the hosts that have not answered in time."""
        for call, (host, due) in self._due.items():
            if now >= due:
                self._hosts.failed(host, f"no answer within {TIMEOUT:.0f} s")
                self._due[call] = (host, float("inf"))  # it may still come

    def take(self, call: Any) -> bool:
        """Take the result of a search that is done. Returns False if `call` is none."""
        if call not in self._due:
            return False
        host, _ = self._due.pop(call)
        try:
            self._hosts.found(host, ray.get(call))
        except RayError as error:
            cause = getattr(error, "cause", None) or error
            self._hosts.failed(host, next(iter(str(cause).splitlines()), type(cause).__name__))
        return True
