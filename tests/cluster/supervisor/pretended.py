"""A cluster without Ray for the supervisor's tests: actors are plain objects, and each call is carried out at once."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError

from actors.names import NAMESPACE
from cluster.supervisor import actor as actor_module
from cluster.supervisor import crew, keeper, leaving, memory, searches
from cluster.supervisor.hosts import LABEL


def node_of(host: str) -> str:
    """The id of the only node of a host."""
    return host.encode().hex().ljust(56, "0")


class Call:
    """As an ObjectRef."""

    def __init__(self, work: Callable[[], Any], hangs: bool = False) -> None:
        self.hangs = hangs
        try:
            self.result: Any = None if hangs else work()
        except Exception as error:
            self.result = error


class Handle:
    """As an actor handle: ``handle.method.remote(...)``."""

    def __init__(self, cluster: Pretended, name: str, actor: Any, options: dict[str, Any]) -> None:
        self.cluster, self.name, self.actor, self.options = cluster, name, actor, options
        self.alive = True
        self._actor_id = SimpleNamespace(hex=lambda: name)

    def __getattr__(self, method: str) -> Any:
        def remote(*arguments: Any) -> Call:
            self.cluster.said.append((self.name, method, arguments))

            def work() -> Any:
                if not self.alive:
                    raise ActorDiedError
                if self.cluster.errors.get(self.name):
                    raise self.cluster.errors[self.name].pop(0)
                return getattr(self.actor, method)(*arguments)

            return Call(work, hangs=self.name in self.cluster.hanging)

        return SimpleNamespace(remote=remote)


class Part:
    """A writer or decoder."""

    def __init__(self, *arguments: Any) -> None:
        self.digest = arguments[2] if isinstance(arguments[0], str) else arguments[1]
        self.stopped = False

    def start(self) -> None: ...

    def stop(self) -> None:
        self.stopped = True

    def status(self) -> dict[str, Any]:
        return {"digest": self.digest, "pid": 1}


class Tables:
    """A process of monitors: table -> what it says of itself."""

    def __init__(self) -> None:
        self.seats: dict[str, dict[str, Any]] = {}
        self.predecessors: dict[str, Any] = {}
        self.intakes: dict[str, bool] = {}
        self.stopped = False

    def start(
        self, settings: Any, incarnation: int, digest: str, decoders: int, *more: Any
    ) -> dict[str, Any]:
        intake, predecessor, paused = more
        table = settings.table
        if self.seats.get(table, {}).get("incarnation", 0) < incarnation:
            self.predecessors[table] = predecessor
            self.seats[table] = {
                "digest": digest,
                "incarnation": incarnation,
                "state": "receiving" if intake else "stopped",
                "epoch": incarnation,
                "lanes": [],
                "dead_letters": 0,
                "topics": [f"topic of {table}"],
                "last_received": incarnation / 1000 + 1,
                "paused": list(paused),
                "received": 0,
            }
        return self.status([table])

    def stand_by(self, settings: Any, incarnation: int, digest: str) -> dict[str, Any]:
        self.seats[settings.table] = {
            "digest": digest,
            "incarnation": incarnation,
            "state": "following",
            "ready": False,
            "owner": False,
            "term": 0,
        }
        return self.status([settings.table])

    def promote(self, table: str, incarnation: int, *more: Any) -> None:
        self.predecessors[table] = more[-1]

    def status(self, tables: Sequence[str]) -> dict[str, Any]:
        return {table: {"pid": 1, **self.seats[table]} for table in tables if table in self.seats}

    def drain(self, tables: Sequence[str], ending: bool) -> dict[str, Any]:
        for table in tables:
            self.seats[table]["state"] = "ended" if ending else "stopped"
        return {table: {"receiving": False, "pending": 0, "stuck": False} for table in tables}

    def end(self, table: str, incarnation: int) -> None:
        if self.seats.get(table, {}).get("incarnation", incarnation + 1) <= incarnation:
            del self.seats[table]

    def end_others(self, tables: Sequence[str], incarnation: int) -> None:
        for table in set(self.seats) - set(tables):
            self.end(table, incarnation)

    def stop(self) -> None:
        self.stopped = True
        self.seats.clear()

    def set_decoders(self, count: int) -> int:
        return 0

    def pause(self, table: str, sinks: Sequence[str]) -> int:
        return 0


class Pretended:
    """The cluster: one host `a`, unless `hosts` is changed.

    Attributes:
        actors: name -> handle of what runs.
        spools: path -> the spools that a search finds below it.
        hanging: names of those that do not answer.
        errors: name -> what its next calls raise.
        free: id of a node -> its free CPUs.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.actors: dict[str, Handle] = {}
        self.hosts = ["a"]
        self.spools: dict[str, list[Any]] = {}
        self.searched: list[tuple[str, str]] = []
        self.hanging: set[str] = set()
        self.errors: dict[str, list[Exception]] = {}
        self.pending: set[str] = set()
        self.said: list[tuple[str, str, tuple[Any, ...]]] = []
        self.kept: dict[str, Any] = {}
        self.now = itertools.count()
        ray = SimpleNamespace(
            get=self.get, wait=self.wait, kill=self.kill, get_actor=self.get_actor, nodes=self.nodes
        )
        for module in (crew, keeper, leaving, searches, actor_module):
            monkeypatch.setattr(module, "ray", ray)
            if hasattr(module, "named_actors"):
                monkeypatch.setattr(module, "named_actors", self.named)
        kinds: dict[str, Any] = dict.fromkeys(("monitor", "standby", "drainer"), Tables)
        for kind, made in {**kinds, "writer": Part, "decoder": Part}.items():
            monkeypatch.setitem(crew.ACTORS, kind, self._class(made))
        monkeypatch.setattr(keeper, "TICK", 0.0)
        for module in (crew, keeper):
            monkeypatch.setattr(module, "LOOK_INTERVAL", 0.0)
        monkeypatch.setattr(memory, "internal_kv", self)
        monkeypatch.setattr(searches, "_search", SimpleNamespace(options=self._search))

    def _class(self, made: Any) -> Any:
        def options(**options: Any) -> Any:
            def remote(*arguments: Any) -> Handle:
                handle = Handle(self, options["name"], made(*arguments), options)
                assert options["name"] not in self.actors, f"{options['name']} is taken"
                self.actors[options["name"]] = handle
                return handle

            return SimpleNamespace(remote=remote)

        return SimpleNamespace(options=options)

    def _search(self, scheduling_strategy: Any) -> Any:
        def remote(path: str, pipeline: str) -> Call:
            self.searched.append((scheduling_strategy.node_id, path))
            return Call(lambda: self.spools.get(path, []))

        return SimpleNamespace(remote=remote)

    def get(self, call: Call, timeout: float | None = None) -> Any:
        if isinstance(call.result, Exception):
            raise call.result
        return call.result

    def wait(self, calls: list[Call], num_returns: int = 1, timeout: float | None = None) -> Any:
        return [call for call in calls if not call.hangs], [call for call in calls if call.hangs]

    def kill(self, handle: Handle) -> None:
        handle.alive = False
        if self.actors.get(handle.name) is handle:
            del self.actors[handle.name]

    def get_actor(self, name: str, namespace: str) -> Handle:
        assert namespace == NAMESPACE
        if name not in self.actors:
            raise ValueError(name)
        return self.actors[name]

    def named(self, prefix: str) -> dict[str, Handle]:
        return {name: handle for name, handle in self.actors.items() if name.startswith(prefix)}

    def nodes(self) -> list[dict[str, Any]]:
        common = {"Alive": True, "NodeManagerHostname": "here", "Resources": {"CPU": 4.0}}
        return [{"NodeID": node_of(host), "Labels": {LABEL: host}, **common} for host in self.hosts]

    def _internal_kv_get(self, key: bytes, namespace: bytes) -> Any:
        return self.kept.get(str(key))

    def _internal_kv_put(self, key: bytes, value: Any, overwrite: bool, namespace: bytes) -> None:
        self.kept[str(key)] = value

    def _internal_kv_del(self, key: bytes, namespace: bytes) -> None:
        self.kept.pop(str(key), None)

    def tables(self, actor: str) -> Tables:
        """The monitors in the actor of that name."""
        found: Tables = self.actors[actor].actor
        return found
