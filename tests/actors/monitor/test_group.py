"""The monitors of one process: each table has a place of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from actors.errors import NotAttached, SpoolError
from actors.monitor.group import MonitorGroup
from actors.monitor.grouping import BlockLimits
from actors.monitor.monitor import Monitor
from actors.monitor.settings import MonitorSettings
from tests.actors.monitor.fakes import wait_for


class Nowhere:
    """A transport that reaches nobody."""

    def __init__(self, settings: MonitorSettings, incarnation: int, decoders: int) -> None:
        self.incarnation, self.decoders = incarnation, decoders

    def set_decoders(self, count: int) -> int:
        self.decoders = count
        return 0

    def tidy(self) -> None: ...

    def attach(self, sink: str, order: str, session: int, done: Callable[[Any], None]) -> None:
        done(NotAttached("nobody"))

    def write(self, *arguments: Any) -> None:
        raise AssertionError


def settings(spool: Path, table: str) -> MonitorSettings:
    return MonitorSettings(
        pipeline="p",
        table=table,
        events=("insert",),
        sinks=("s",),
        source={"urls": ["http://127.0.0.1:9"]},
        monitor_port=None,
        spool=str(spool),
        max_bytes=1 << 30,
        min_free=0,
        limits=BlockLimits(10, 1 << 20, 0.01),
        window_bytes=1 << 20,
    )


@pytest.fixture
def group() -> Iterator[MonitorGroup]:
    group = MonitorGroup(Nowhere)
    yield group
    group.stop()


def incarnations(group: MonitorGroup) -> dict[str, int]:
    return {table: answer["incarnation"] for table, answer in group.status(["a", "b", "c"]).items()}


def test_tables_come_and_go_each_for_itself(group: MonitorGroup, tmp_path: Path) -> None:
    for number, table in enumerate("ab"):
        group.start(settings(tmp_path, table), 10 + number, f"digest of {table}", 2, intake=False)
    assert incarnations(group) == {"a": 10, "b": 11}
    assert group.status(["b"])["b"]["digest"] == "digest of b"
    b = group.monitor("b")
    group.start(settings(tmp_path, "a"), 10, "again", 2, intake=False)  # the same: nothing happens
    assert group.status(["a"])["a"]["digest"] == "digest of a"
    group.end("a", 9)  # of a life before
    group.end("a", 10)
    group.end("a", 10)
    assert incarnations(group) == {"b": 11}
    assert group.monitor("b") is b
    with pytest.raises(SpoolError, match="only begun to start"):
        group.monitor("a")
    with pytest.raises(NotAttached):
        group.standby("b")


def test_a_later_incarnation_takes_the_place_of_an_earlier_one(group: MonitorGroup, tmp_path: Path) -> None:
    group.start(settings(tmp_path, "a"), 10, "one", 2, intake=False)
    group.start(settings(tmp_path, "a"), 12, "two", 2, intake=False)
    group.end("a", 11)  # late
    group.start(settings(tmp_path, "a"), 11, "late too", 2, intake=False)
    assert incarnations(group) == {"a": 12}
    assert group.status(["a"])["a"]["digest"] == "two"
    drained = group.drain(["a", "unknown"])
    assert set(drained) == {"a"}
    assert set(drained["a"]) == {"receiving", "pending", "stuck"}


def test_a_table_that_cannot_be_made_or_asked_fails_alone(
    group: MonitorGroup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group.start(replace(settings(tmp_path, "a"), kind="unknown"), 10, "one", 2)
    group.start(settings(tmp_path, "b"), 11, "two", 2, intake=False)
    group.start(settings(tmp_path, "c"), 12, "three", 2, intake=False)

    def broken() -> dict[str, Any]:
        raise RuntimeError("no more file handles\nof many")

    monkeypatch.setattr(group.monitor("b"), "status", broken)
    status = group.status(["a", "b", "c"])
    assert (status["a"]["state"], status["a"]["digest"], status["a"]["incarnation"]) == ("failed", "one", 10)
    assert "unknown" in status["a"]["problem"]
    assert (status["b"]["state"], status["b"]["problem"]) == ("failed", "RuntimeError: no more file handles")
    assert status["c"]["state"] != "failed"
    group.end("a", 10)
    assert set(group.status(["a", "b", "c"])) == {"b", "c"}


def test_tables_that_nobody_wants_end(group: MonitorGroup, tmp_path: Path) -> None:
    for number, table in enumerate("abc"):
        group.start(settings(tmp_path, table), 10 + number, "", 2, intake=False)
    group.end_others(["a"], 11)  # `c` came later
    assert incarnations(group) == {"a": 10, "c": 12}


def test_a_start_that_fails_half_way_leaves_the_spool_to_the_next(
    group: MonitorGroup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any) -> None:
        raise SpoolError("a disk error")

    def state(table: str) -> str:
        return str(group.status([table])[table]["state"])

    group.start(settings(tmp_path, "b"), 9, "", 2, intake=False)
    wait_for(lambda: state("b") == "stopped")
    with monkeypatch.context() as patch:
        patch.setattr(Monitor, "_make_receiver", failing)  # when the dispatcher is there
        group.start(settings(tmp_path, "a"), 10, "", 2, intake=False)
        wait_for(lambda: state("a") == "failed")
    group.end("a", 10)
    group.start(settings(tmp_path, "a"), 11, "", 2, intake=False)
    wait_for(lambda: state("a") in ("stopped", "failed"))
    assert state("a") == "stopped"
