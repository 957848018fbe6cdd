"""Hosts, the spools on them, and which monitor lives where. No Ray, no clock.

A host is known by a name that outlives a reboot, as Ray's node ids do not: the node's label ``tablecast-host``, else
its host name. A monitor lives where its spool is; one without a spool goes to the host with the fewest. If any
node has the label, only those that have it get monitors, so that others may come and go.

A spool whose table lives elsewhere, or is in the pipeline's file no more, is an *orphan*.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from actors.monitor.settings import Predecessor
from actors.names import STANDBY_SUFFIX
from cluster.supervisor.plan import MONITOR_CPUS
from cluster.supervisor.spools import FoundSpool, Place

#: The label of a node that says which host it is.
LABEL = "tablecast-host"

#: Seconds without a living node after which a host is taken for gone, and its monitors start elsewhere. Ray itself
#: takes some 15 s to find that a node is dead.
GONE = 5.0


@dataclass(frozen=True, slots=True)
class Node:
    """A living Ray node."""

    id: str
    labelled: bool
    cpus: float


@dataclass(frozen=True, slots=True)
class Wait:
    """A monitor cannot be placed yet, for this reason."""

    reason: str


@dataclass(slots=True)
class Hosts:
    """The hosts of one pipeline.

    Attributes:
        homes: home, a spool's folder -> the host it is on.
        spools: the spools as they were when they were looked at last.
        left: places that monitors moved away from -> the last epoch that is known from there. What was received
            there later, the monitor at the new home received too.
        given_up: table -> its monitor at the spool that it had before it was given another one.
        alive: host -> its node.
        problems: host -> why its spools could not be looked at.
        names: id of a living Ray node -> the host it is on.
    """

    homes: dict[str, str] = field(default_factory=dict)
    spools: dict[Place, FoundSpool] = field(default_factory=dict)
    left: dict[Place, int] = field(default_factory=dict)
    given_up: dict[str, Predecessor] = field(default_factory=dict)
    alive: dict[str, Node] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    _seen: dict[str, float] = field(default_factory=dict)
    _searched: set[str] = field(default_factory=set)
    _drained: set[Place] = field(default_factory=set)

    @classmethod
    def recall(cls, saved: Mapping[str, Any]) -> Hosts:
        """What :meth:`dump` gave; empty at first."""
        spools = [
            (host, FoundSpool(**{**spool, "topics": tuple(spool["topics"])}))
            for host, spool in saved.get("spools", ())
        ]
        return cls(
            homes=dict(saved.get("homes", {})),
            spools={_place(host, spool): spool for host, spool in spools},
            left={Place(host, home, table): epoch for host, home, table, epoch in saved.get("left", ())},
            given_up={
                table: Predecessor(**{**before, "topics": tuple(before["topics"])})
                for table, before in saved.get("given_up", {}).items()
            },
        )

    def dump(self) -> dict[str, Any]:
        """What a restarted supervisor has to know, as JSON-able values."""
        return {
            "homes": self.homes,
            "spools": [[place.host, asdict(spool)] for place, spool in self.spools.items()],
            "left": [[*place, epoch] for place, epoch in self.left.items()],
            "given_up": {table: asdict(before) for table, before in self.given_up.items()},
        }

    # -- what is there ------------------------------------------------------------------------------------------

    def look(self, nodes: Iterable[Mapping[str, Any]], now: float) -> list[str]:
        """Take what ``ray.nodes()`` says at `now` (seconds); returns the hosts that are new, to be searched."""
        nodes = list(nodes)
        before, self.alive = self.alive, _alive(nodes)
        self.names = {node["NodeID"]: _name(node) for node in nodes if node["Alive"]}
        self._seen |= dict.fromkeys(self.alive, now)
        new = [host for host, node in self.alive.items() if host not in before or before[host].id != node.id]
        self._searched -= set(new)
        self._drained = {place for place in self._drained if place.host not in new}
        return new

    def found(self, host: str, spools: Collection[FoundSpool]) -> None:
        """These are the spools on `host`."""
        self._searched.add(host)
        self.problems.pop(host, None)
        self.spools = {place: spool for place, spool in self.spools.items() if place.host != host}
        self.spools |= {_place(host, spool): spool for spool in spools}

    def searched(self, host: str) -> bool:
        """Whether the spools on `host` were looked at since it is there."""
        return host in self._searched and host in self.alive

    def failed(self, host: str, problem: str) -> None:
        """The spools on `host` could not be looked at."""
        self._searched.add(host)
        self.problems[host] = problem

    def answered(self, home: str, table: str, answer: Mapping[str, Any]) -> bool:
        """Take what the monitor of `table` says of its spool in `home`; returns whether it is worth remembering."""
        host = self.homes.get(home)
        if host is None or answer.get("topics") is None:
            return False
        place = Place(host, home, table)
        before = self.spools.get(place, FoundSpool(table))
        pending: Counter[str] = Counter()
        for lane in answer["lanes"]:
            pending[lane["sink"]] += lane["pending_records"]
        epoch = max(answer["epoch"] or 0, before.last_epoch)
        heard = max(answer.get("last_received") or 0.0, epoch / 1000)
        topics = tuple(answer["topics"])
        spool = FoundSpool(table, epoch, dict(pending), answer["dead_letters"], topics, heard, home=home)
        self.spools[place] = spool
        return (spool.last_epoch, spool.topics) != (before.last_epoch, before.topics)

    # -- who lives where ----------------------------------------------------------------------------------------

    def place(self, home: str, table: str, now: float, apart_from: str | None = None) -> str | Wait:
        """The host for the monitors in `home`, of `table` among them, from now on; not `apart_from` if it can."""
        host = self.homes.get(home)
        if host in self.alive:
            return host
        if host is not None and now < self._seen.setdefault(host, now) + GONE:
            return Wait(f"its host {host} does not answer")
        if not self.all_searched:
            return Wait("spools are being looked for")
        spools = [
            (spool.last_epoch, place.host)
            for place, spool in self.spools.items()
            if place.home == home and place.host in self.alive
        ]
        found = max(spools)[1] if spools else self._emptiest(apart_from)
        if found is None:
            return Wait("no host has CPUs for a monitor")
        if host is not None:
            there = {place for place in self.spools if (place.host, place.home) == (host, home)}
            for place in there | {Place(host, home, table)}:
                self.left[place] = self._last_epoch(place)
        self.left = {place: each for place, each in self.left.items() if place[:2] != (found, home)}
        self.homes[home] = found
        return found

    @property
    def all_searched(self) -> bool:
        """Whether it is known what spools there are on the hosts that live."""
        return self._searched.issuperset(self.alive)

    def _emptiest(self, apart_from: str | None) -> str | None:
        """The host with the fewest monitors among those that may have one."""
        fit = {host: node for host, node in self.alive.items() if node.cpus >= MONITOR_CPUS}
        fit = {host: node for host, node in fit.items() if node.labelled} or fit
        count = Counter(self.homes.values())
        return min(fit, key=lambda host: (host == apart_from, count[host], host), default=None)

    def _last_epoch(self, place: Place) -> int:
        return self.spools.get(place, FoundSpool(place.table)).last_epoch

    def predecessor(self, home: str, table: str) -> Predecessor | None:
        """The monitor of `table` that ran latest with another spool: at a host not its home now, or given up."""
        others = [self.given_up[table]] if table in self.given_up else []
        for place, epoch in self.left.items():
            if place.table == table and place.host != self.homes[home]:
                spool = self.spools.get(place, FoundSpool(table))
                others.append(Predecessor(place.host, epoch, spool.heard, spool.topics))
        return max(others, key=lambda each: (each.epoch, each.host), default=None)

    def give_up(self, home: str, table: str, spool: str) -> None:
        """`table` is given another spool; the one in `home`, whose path is `spool`, has delivered all that it holds."""
        host = self.homes.get(home)
        found = self.spools.get(Place(host, home, table)) if host is not None else None
        if host is not None and found is not None and found.last_epoch:
            self.given_up[table] = Predecessor(host, found.last_epoch, found.heard, found.topics, spool)

    def forget_spools(self) -> list[str]:
        """Spools are at another path from now on; returns the hosts that live, to be searched."""
        self.spools = {place: spool for place, spool in self.spools.items() if place.host not in self.alive}
        self._searched.clear()
        self._drained.clear()
        return list(self.alive)

    def known_homes(self) -> dict[str, str]:
        """Table -> the home in which its newest spool is, as far as they have been found."""
        newest = sorted(self.spools.values(), key=lambda spool: (spool.last_epoch, spool.home))
        return {spool.table: spool.home for spool in newest if not spool.home.endswith(STANDBY_SUFFIX)}

    # -- orphans ------------------------------------------------------------------------------------------------

    def orphans(self, wanted: Collection[tuple[str, str]]) -> dict[Place, FoundSpool]:
        """The spools that no monitor of `wanted`, (home, table) of all in the file, has or is about to have."""
        return {
            place: spool
            for place, spool in self.spools.items()
            if place[1:] not in wanted or self.homes.get(place.home, place.host) != place.host
        }

    def to_drain(
        self, wanted: Collection[tuple[str, str]], sinks: Collection[str]
    ) -> dict[Place, FoundSpool]:
        """The orphans within reach that hold what can be delivered to `sinks`, those of the file."""
        return {
            place: spool
            for place, spool in self.orphans(wanted).items()
            if place.host in self.alive
            and place not in self._drained
            and any(
                (records or spool.dead_letters) and sink in sinks for sink, records in spool.pending.items()
            )
        }

    def drained(self, place: Place) -> None:
        """A drainer has delivered what can be delivered from there."""
        self._drained.add(place)


def _place(host: str, spool: FoundSpool) -> Place:
    return Place(host, spool.home, spool.table)


def _alive(nodes: Iterable[Mapping[str, Any]]) -> dict[str, Node]:
    """Host -> node, of those that live; of several nodes on one host the one with the smallest id."""
    found: dict[str, Node] = {}
    for node in sorted(
        (node for node in nodes if node["Alive"]), key=lambda node: str(node["NodeID"]), reverse=True
    ):
        labelled = LABEL in node["Labels"]
        found[_name(node)] = Node(node["NodeID"], labelled, node["Resources"].get("CPU", 0.0))
    return found


def _name(node: Mapping[str, Any]) -> str:
    return str(node["Labels"].get(LABEL) or node["NodeManagerHostname"])
