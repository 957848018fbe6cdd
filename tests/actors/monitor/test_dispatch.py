"""The dispatcher with a real spool and writers that answer from other threads, in any order, or fail."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from actors.backoff import Backoff
from actors.batch import Rejected
from actors.block import Block
from actors.errors import DeliveryRefused, NotAttached, StaleOwner
from actors.monitor import dispatch, lane
from actors.monitor.dispatch import DecoderFailed, Dispatcher, Task
from actors.monitor.spool import Position, Spool
from tests.actors.monitor.fakes import DEADLINE, FakeTransport, wait_for

Start = Callable[..., Dispatcher]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Milliseconds where there are seconds."""
    monkeypatch.setattr(lane, "Backoff", lambda: Backoff(0.001, 0.004))
    monkeypatch.setattr(dispatch, "SAVE_INTERVAL", 0.01)


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = Spool(tmp_path / "spool")
    yield spool
    spool.close()


@pytest.fixture
def start(spool: Spool) -> Iterator[Start]:
    """Makes running dispatchers, and ends them before the spool is closed."""
    running: list[tuple[Dispatcher, threading.Thread, FakeTransport]] = []

    def start(transport: FakeTransport, sinks: tuple[str, ...] = ("a",), window: int = 1 << 20) -> Dispatcher:
        dispatcher = Dispatcher(spool, sinks, transport, window)
        thread = threading.Thread(target=dispatcher.run)
        thread.start()
        running.append((dispatcher, thread, transport))
        return dispatcher

    yield start
    for dispatcher, thread, transport in running:
        dispatcher.stop()
        thread.join(DEADLINE)
        assert not thread.is_alive()
        transport.close()


def blocks(first: int, count: int, feed: str = "t", epoch: int = 1, size: int = 10) -> list[Block]:
    """Blocks of five records each."""
    return [
        Block(feed, epoch, 5 * n, 5, 5 * n, "avro", "{}", bytes([n % 256]) * size)
        for n in range(first, first + count)
    ]


def delivered(dispatcher: Dispatcher) -> bool:
    return all(not report.pending_records for report in dispatcher.report())


@pytest.mark.parametrize("seed", range(4))
def test_everything_arrives_in_order_whatever_fails(spool: Spool, start: Start, seed: int) -> None:
    rng = random.Random(seed)
    left = {"faults": 60}

    def fault(sink: str, task: Task) -> BaseException | None:
        if rng.random() < 0.8 or not left["faults"]:
            return None
        left["faults"] -= 1
        blame = rng.random() < 0.1
        kind = rng.choice(
            [DecoderFailed("decoder died", blame), NotAttached("restarted"), OSError("unreachable")]
        )
        if isinstance(kind, NotAttached):
            transport.forget(sink)
        return kind

    transport = FakeTransport(seed, fault)
    feeds = ("t", "t.updates")
    written: dict[str, list[Block]] = {feed: [] for feed in feeds}

    def commit(first: int, count: int, epoch: int) -> None:
        for feed in feeds:
            new = blocks(first, count, feed, epoch)
            spool.append(new)
            written[feed] += new

    commit(0, 20, 1)
    dispatcher = start(transport, ("a", "b"), window=60)
    for number in range(20, 40, 2):
        commit(number, 2, 1)
        dispatcher.notify(feeds)
    commit(0, 20, 2)
    dispatcher.notify(feeds)
    wait_for(lambda: delivered(dispatcher) and not spool.bytes)
    for sink in ("a", "b"):
        for feed in feeds:
            assert transport.in_order(sink, feed) == written[feed]
            assert spool.cursor(sink, feed) == Position(2, 100)
    reports = dispatcher.report()
    assert [(r.sink, r.feed) for r in reports] == [(s, f) for s in ("a", "b") for f in feeds]
    assert all(r.in_flight == 0 and r.delivered >= 300 and r.state == "open" for r in reports)
    assert left["faults"] < 60


def test_a_parked_sink_holds_back_nobody_else_and_keeps_its_blocks(spool: Spool, start: Start) -> None:
    def fault(sink: str, task: Task) -> BaseException | None:
        return DeliveryRefused("no such column; add it") if sink == "b" and task.block.offset == 10 else None

    transport = FakeTransport(fault=fault)
    spool.append(blocks(0, 10))
    dispatcher = start(transport, ("a", "b"))
    wait_for(lambda: [r.state for r in dispatcher.report()] == ["open", "parked"])
    spool.append(blocks(10, 10))
    dispatcher.notify(["t"])
    wait_for(lambda: spool.cursor("a", "t") == Position(1, 100))
    assert transport.delivered["a", "t"] == blocks(0, 20)
    parked = dispatcher.report()[1]
    assert parked.problem == "no such column; add it"
    cursor = spool.cursor("b", "t")
    assert cursor <= Position(1, 10)
    assert spool.next_block("t", cursor) is not None
    assert parked.pending_records == 100 - cursor.offset


def test_a_block_that_kills_decoders_parks_only_its_lane(spool: Spool, start: Start) -> None:
    def fault(sink: str, task: Task) -> BaseException | None:
        return DecoderFailed("died", blame=True) if task.id == ("t", 1, 15) else None

    transport = FakeTransport(fault=fault)
    for feed in ("t", "u"):
        spool.append(blocks(0, 8, feed))
    dispatcher = start(transport)
    wait_for(lambda: dispatcher.report()[0].state == "parked")
    wait_for(lambda: spool.cursor("a", "u") == Position(1, 40))
    assert "could not be decoded in 5 attempts: died" in str(dispatcher.report()[0].problem)
    assert transport.in_order("a", "t") == blocks(0, 3)


def test_an_empty_pool_is_waited_for(spool: Spool, start: Start) -> None:
    tries = iter(range(1000))
    transport = FakeTransport(
        fault=lambda *_: DecoderFailed("none", blame=False) if next(tries) < 40 else None
    )
    spool.append(blocks(0, 3))
    dispatcher = start(transport)
    wait_for(lambda: delivered(dispatcher))
    assert transport.delivered["a", "t"] == blocks(0, 3)


def test_a_writer_that_is_down_is_tried_again_until_it_is_back(spool: Spool, start: Start) -> None:
    transport = FakeTransport()
    transport.down["a"] = NotAttached("the writer of a is not running")
    spool.append(blocks(0, 3))
    dispatcher = start(transport)
    wait_for(lambda: transport.attaches > 5)
    assert dispatcher.report()[0].problem == "the writer of a is not running"
    # Commits meanwhile are no reason to hurry.
    before = transport.attaches
    for _ in range(200):
        dispatcher.notify(["t"])
    transport.down.clear()
    wait_for(lambda: delivered(dispatcher))
    assert transport.attaches - before < 20
    assert dispatcher.report()[0].problem is None


def test_a_newer_owner_ends_the_dispatcher(spool: Spool, start: Start) -> None:
    transport = FakeTransport(fault=lambda *_: StaleOwner("t is owned by a newer monitor"))
    spool.append(blocks(0, 3))
    dispatcher = start(transport)
    wait_for(lambda: dispatcher.stale)
    assert transport.delivered == {}
    assert spool.cursor("a", "t") == Position()


def test_rejects_become_dead_letters(spool: Spool, start: Start) -> None:
    transport = FakeTransport()
    two = blocks(0, 2)
    transport.rejects[two[1].id] = (Rejected(6, "bad", b"frame"),)
    spool.append(two)
    dispatcher = start(transport, ("a", "b"))
    wait_for(lambda: delivered(dispatcher) and not spool.bytes)
    assert spool.dead_letters() == 1


def test_stopping_saves_what_was_acknowledged(
    spool: Spool, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "SAVE_INTERVAL", 1000.0)
    transport = FakeTransport()
    spool.append(blocks(0, 3))
    dispatcher = Dispatcher(spool, ("a",), transport)
    thread = threading.Thread(target=dispatcher.run)
    thread.start()
    wait_for(lambda: delivered(dispatcher))
    assert spool.cursor("a", "t") == Position()
    dispatcher.stop()
    thread.join(DEADLINE)
    assert spool.cursor("a", "t") == Position(1, 15)
    assert spool.bytes == 0
    transport.close()


def test_blocks_that_only_a_removed_sink_still_wanted_are_deleted_at_the_start(
    spool: Spool, start: Start
) -> None:
    """Otherwise a full spool would stay full, receiving paused, and nothing to deliver that could change it."""
    spool.append(blocks(0, 3))
    spool.advance({("a", "t"): Position(1, 15)}, {"t": Position()}, ())
    assert spool.bytes == 30
    start(FakeTransport())
    wait_for(lambda: spool.bytes == 0)


def test_the_window_bounds_what_is_on_the_way(spool: Spool, start: Start) -> None:
    transport = FakeTransport(threads=0)
    spool.append(blocks(0, 50, size=10))
    dispatcher = start(transport, window=35)
    wait_for(lambda: transport.calls)
    transport.calls.pop()()
    wait_for(lambda: len(transport.calls) == 4)
    assert dispatcher.report()[0].in_flight == 4
