"""Reads the logs that a pipeline's actors keep, on every node of the cluster; ``actors/logs.py`` writes them.

A short task on each node reads its files, so that nothing but Ray itself is needed, its dashboard least of all.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actors.logs import FIELDS

#: Seconds allowed to a node, and between two looks while following.
NODE_TIMEOUT = 30.0
INTERVAL = 0.5

#: Bytes read at the end of each file to begin with, and at once while following.
TAIL_BYTES = 1 << 20

LEVELS = ("debug", "info", "warning", "error", "critical")

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Choice:
    """Which records are wanted.

    Attributes:
        of: an actor (``decoder/0``), a kind of actor (``decoder``), a table or a sink; None for all.
        level: the lowest.
    """

    of: str | None = None
    level: str = "info"

    def takes(self, record: Record) -> bool:
        level = record.get("level")
        if level in LEVELS and LEVELS.index(level) < LEVELS.index(self.level):
            return False
        kind, _, which = str(record.get("actor", "")).partition("/")
        known = (f"{kind}/{which}", kind, which, record.get("table"), record.get("sink"))
        return self.of is None or self.of in known


@dataclass(slots=True)
class Found:
    """The records of one folder, in order of time, and how far each of its files was read."""

    records: list[Record] = field(default_factory=list)
    ends: dict[str, int] = field(default_factory=dict)
    #: What the folder is, whichever node reads it: nodes of one host share one.
    folder: tuple[int, int] = (0, 0)


def read_folder(
    logs: Path, pipeline: str, choice: Choice, last: int | None, ends: dict[str, int] | None = None
) -> Found:
    """The chosen records in Ray's folder `logs`: the `last` of them, or with `ends` of an earlier call those since."""
    folder = logs / "tablecast" / pipeline
    found = Found()
    if not folder.is_dir():
        return found
    there = folder.stat()
    found.folder = (there.st_dev, there.st_ino)
    for path in sorted(folder.glob("*.log")):
        text, end = _read(path, None if ends is None else ends.get(path.name, 0))
        found.ends[path.name] = end
        found.records += [record for record in _records(text) if choice.takes(record)]
    found.records.sort(key=_time)
    if last is not None:
        del found.records[: max(0, len(found.records) - last)]
    return found


def _read(path: Path, start: int | None) -> tuple[bytes, int]:
    """Whole lines of a file from `start` on, by default of its end and of its older part; and where they end."""
    older = path.with_name(path.name + ".1")
    try:
        size = path.stat().st_size
        before = b""
        if start is None and size < TAIL_BYTES:
            before = _part(older, max(0, _size(older) - TAIL_BYTES))
        elif start is not None and size < start:  # turned over meanwhile
            before, start = _part(older, start), 0
        begin = max(0, size - TAIL_BYTES) if start is None else start
        text = _part(path, begin)
        whole = text.rfind(b"\n") + 1
        return before + text[:whole], begin + whole
    except OSError:  # deleted meanwhile
        return b"", start or 0


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _part(path: Path, start: int) -> bytes:
    if not path.exists():
        return b""
    with open(path, "rb") as file:
        file.seek(start)
        return file.read(TAIL_BYTES)


def _records(text: bytes) -> Iterator[Record]:
    for line in text.splitlines():
        try:
            record = json.loads(line)
        except ValueError:  # half a line, where reading began
            continue
        if isinstance(record, dict):
            yield record


def _time(record: Record) -> float:
    return float(record.get("time", 0.0))


def _read_here(pipeline: str, choice: Choice, last: int | None, ends: dict[str, int] | None) -> Found:
    from actors.ray_state import logs_folder

    return read_folder(logs_folder(), pipeline, choice, last, ends)


class Logs:
    """The logs of `pipeline` on the cluster that this process is connected to.

    Attributes:
        unreachable: nodes that did not answer the last time, by address.
    """

    def __init__(self, pipeline: str, choice: Choice) -> None:
        self._pipeline = pipeline
        self._choice = choice
        self.unreachable: list[str] = []
        #: Node -> how far its files were read.
        self._ends: dict[str, dict[str, int]] = {}

    def last(self, count: int) -> list[Record]:
        """The last `count` records, of all nodes."""
        records = self._read(count)
        return records[max(0, len(records) - count) :]

    def follow(self, pause: Callable[[float], None] = time.sleep) -> Iterator[list[Record]]:
        """What comes after :meth:`last`, without end."""
        while True:
            yield self._read(None)
            pause(INTERVAL)

    def _read(self, last: int | None) -> list[Record]:
        import ray
        from ray.exceptions import GetTimeoutError, RayError
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        task: Any = ray.remote(num_cpus=0, max_retries=0)(_read_here)
        self.unreachable = []
        calls = {}
        for node in ray.nodes():
            if node["Alive"]:
                there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                ends = self._ends.get(node["NodeID"], None if last is not None else {})
                options = task.options(scheduling_strategy=there)
                calls[node["NodeID"]] = (
                    node["NodeManagerAddress"],
                    options.remote(self._pipeline, self._choice, last, ends),
                )
        found: dict[str, Found] = {}
        deadline = time.monotonic() + NODE_TIMEOUT
        for node, (address, call) in calls.items():
            try:
                found[node] = ray.get(call, timeout=max(0.1, deadline - time.monotonic()))
            except (RayError, GetTimeoutError):
                self.unreachable.append(address)
        self._ends |= {node: each.ends for node, each in found.items()}
        return merged(found.values())


def merged(found: Iterable[Found]) -> list[Record]:
    """The records of several nodes in order of time; those of a folder that nodes share once."""
    folders = {each.folder: each for each in found}
    return sorted((record for each in folders.values() for record in each.records), key=_time)


def text(record: Record) -> str:
    """A record as a line for people, with a traceback below if it has one."""
    moment = _time(record)
    clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment)) + f".{int(moment * 1000) % 1000:03}"
    about = " ".join(f"{name}={record[name]}" for name in FIELDS if name in record)
    line = f"{clock} {record['level'].upper():7} {record['actor']}: {record['message']}"
    line += f"  [{about}]" if about else ""
    trace = record.get("trace", "")
    return "\n".join([line, *(f"    {each}" for each in trace.splitlines())])
