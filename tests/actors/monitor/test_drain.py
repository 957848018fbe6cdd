"""Drainers and successors: what a spool without a monitor, or beside another one, gives away and keeps."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import msgpack
import pytest

from actors.block import Block
from actors.errors import SpoolError, StaleOwner
from actors.monitor.gaplog import GapLog
from actors.monitor.monitor import RECEIVED_ELSEWHERE, Monitor
from actors.monitor.place import on_this_host
from actors.monitor.settings import Drain, Predecessor
from actors.monitor.source import SourceLost
from actors.monitor.spool import Frozen, Position, Spool
from cluster.supervisor.spools import FoundSpool, search
from tests.actors.monitor.fakes import (
    FakeSource,
    FakeStream,
    FakeTransport,
    monitor_settings,
    wait_for,
)

SCHEMA = '{"definition": "{}", "properties": {}}'


def block(epoch: int, offset: int, count: int = 10) -> Block:
    return Block("t", epoch, offset, count, offset, "avro", SCHEMA, msgpack.packb([b"x"] * count))


def left_behind(path: Path, *blocks: Block) -> None:
    """A spool of table t, and of a monitor that had delivered nothing to its sinks a and b."""
    spool = Spool(path / "p" / "t", "t")
    spool.join(["a", "b"])
    spool.open_accounts(["a", "b"])
    spool.append(blocks)
    spool.set_topics(["topic"])
    spool.close()


def drain(path: Path, transport: FakeTransport, **how: Any) -> Monitor:
    settings = monitor_settings(path / "p" / "t", sinks=("a",), drain=Drain("here", **how))
    monitor = Monitor(settings, transport, FakeSource(SourceLost("away")))
    monitor.start(intake=False)
    return monitor


def test_a_drainer_delivers_and_keeps_what_is_for_sinks_that_are_gone(tmp_path: Path) -> None:
    left_behind(tmp_path, block(5, 0), block(5, 10))
    assert search(str(tmp_path), "p") == [FoundSpool("t", 5, {"a": 20, "b": 20}, 0, ("topic",))]
    transport = FakeTransport()
    monitor = drain(tmp_path, transport, absent_sinks=("b",))
    wait_for(lambda: monitor.status().get("drained"))
    assert monitor.pending == 0
    monitor.stop()
    assert [each.id for each in transport.in_order("a", "t")] == [block(5, 0).id, block(5, 10).id]
    assert ("b", "t") not in transport.delivered
    assert search(str(tmp_path), "p") == [FoundSpool("t", 5, {"a": 0, "b": 20}, 0, ("topic",))]
    transport.close()


def test_a_drainer_leaves_what_another_monitor_has_received_too(tmp_path: Path) -> None:
    left_behind(tmp_path, block(5, 0), block(6, 0))
    transport = FakeTransport()
    monitor = drain(tmp_path, transport, absent_sinks=("b",), last_epoch=5)
    wait_for(lambda: monitor.status().get("drained"))
    monitor.stop()
    assert [each.id for each in transport.in_order("a", "t")] == [block(5, 0).id]
    (found,) = search(str(tmp_path), "p")
    assert (found.pending, found.problem) == ({"a": 10, "b": 20}, RECEIVED_ELSEWHERE)
    # The table comes back to this host after all: nothing is kept from it.
    monitor = Monitor(monitor_settings(tmp_path / "p" / "t"), transport, FakeSource(FakeStream()))
    monitor.start()
    wait_for(lambda: len(transport.in_order("a", "t")) == 2)
    monitor.stop()
    transport.close()


def test_a_successor_goes_on_behind_the_spool_out_of_reach_and_notes_the_gap_once(tmp_path: Path) -> None:
    source, transport = FakeSource(FakeStream()), FakeTransport()
    later = 1 << 45  # of a host whose clock is ahead
    for _ in range(2):
        monitor = Monitor(monitor_settings(tmp_path / "s"), transport, source)
        monitor.start(predecessor=Predecessor("b", later, 7.0, ("old",)))
        wait_for(lambda m=monitor: m.status().get("epoch"))
        assert monitor.status()["epoch"] > later
        monitor.stop()
    assert "old" in source.cleared[0]
    assert "old" not in source.cleared[1]
    spool = Spool(tmp_path / "s", "t")
    (gap,) = GapLog(spool.transaction, "t").latest(9)
    assert (gap.cause, gap.began, gap.state) == ("host b is gone", 7.0, "unhealed")
    spool.close()
    transport.close()


def test_a_table_that_was_given_another_spool_has_a_gap(tmp_path: Path) -> None:
    source, transport = FakeSource(FakeStream()), FakeTransport()
    monitor = Monitor(monitor_settings(tmp_path / "s"), transport, source)
    monitor.start(predecessor=Predecessor("a", 1 << 45, 7.0, ("old",), "/spool/p/t"))
    wait_for(lambda: monitor.status().get("epoch"))
    (gap,) = monitor.gaps.latest(9)
    assert (gap.cause, gap.began, gap.state) == ("the table was given another spool", 7.0, "unhealed")
    assert gap.note == "what was received before was delivered from /spool/p/t on host a"
    monitor.stop()
    transport.close()


def test_freezing_never_moves_a_limit_forward(tmp_path: Path) -> None:

    spool = Spool(tmp_path / "s")
    spool.freeze("t", Frozen(Position(5, 3), "first"))
    spool.freeze("t", Frozen(Position(6, 0), "later"))
    assert spool.frozen("t") == Frozen(Position(5, 3), "first")
    spool.freeze("t", Frozen(Position(5, 0), "earlier"))
    assert spool.frozen("t") == Frozen(Position(5, 0), "earlier")
    spool.close()


def test_a_monitor_that_is_refused_releases_its_spool(tmp_path: Path) -> None:

    left_behind(tmp_path, block(5, 0))
    transport = FakeTransport()
    transport.down["a"] = StaleOwner("a newer one")
    monitor = Monitor(monitor_settings(tmp_path / "p" / "t"), transport, FakeSource(FakeStream()))
    monitor.start()
    wait_for(lambda: monitor.status()["state"] == "failed")
    wait_for(lambda: not any(thread.name.startswith("t-") for thread in threading.enumerate()))
    transport.close()
    Spool(tmp_path / "p" / "t", "t").close()


def test_a_path_on_this_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISK", str(tmp_path))
    assert on_this_host("${DISK}/spool") == tmp_path / "spool"
    assert search("${DISK}/spool", "p") == []
    with pytest.raises(SpoolError, match=r"NO_SUCH_DISK is not set where Ray runs on .+; set it there"):
        on_this_host("/${NO_SUCH_DISK}/spool")


def test_what_is_no_spool_is_a_problem_and_not_an_error(tmp_path: Path) -> None:
    (tmp_path / "p" / "t").mkdir(parents=True)
    (tmp_path / "p" / "t" / "spool.db").write_bytes(b"no database at all, " * 100)
    (found,) = search(str(tmp_path), "p")
    assert found.problem is not None
    assert "not a database" in found.problem
