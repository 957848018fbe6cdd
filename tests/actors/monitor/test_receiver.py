"""The receiver and the whole monitor, with streams that give what the test says and a real spool."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from actors.backoff import Backoff
from actors.block import Block
from actors.errors import MonitorTooLarge, NotAttached, SpoolFull, StaleOwner
from actors.monitor import lane, receiver
from actors.monitor import monitor as module
from actors.monitor.continuity import Continuity
from actors.monitor.grouping import BlockLimits
from actors.monitor.monitor import Monitor
from actors.monitor.receiver import Receiver, SourceLost
from actors.monitor.settings import MonitorSettings
from actors.monitor.spool import Position, Spool
from tests.actors.monitor.fakes import (
    DEADLINE,
    FakeSource,
    FakeStream,
    FakeTransport,
    monitor_settings,
    wait_for,
)

NEVER = BlockLimits(records=1 << 30, bytes=1 << 30, linger=1e6)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Milliseconds where there are seconds."""
    monkeypatch.setattr(lane, "Backoff", lambda: Backoff(0.001, 0.004))
    monkeypatch.setattr(receiver, "Backoff", lambda initial, cap: Backoff(0.001, 0.004))
    monkeypatch.setattr(receiver, "SLICE", 0.01)


class Receiving:
    """A receiver on its thread. `committed` has, per notification, the spool's blocks at that moment."""

    def __init__(self, settings: MonitorSettings, source: FakeSource) -> None:
        self.spool = Spool(settings.spool)
        self.committed: list[int] = []
        self.receiver = Receiver(settings, source, self.spool, self._on_commit)
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.receiver.run()
        except Exception as error:
            self.error = error

    def _on_commit(self, feeds: Iterable[str]) -> None:
        self.committed.append(sum(len(self.blocks(feed)) for feed in feeds))

    def blocks(self, feed: str = "t") -> list[Block]:
        found, position = [], Position()
        while (block := self.spool.next_block(feed, position)) is not None:
            found.append(block)
            position = Position(block.epoch, block.end)
        return found

    def frames(self, feed: str = "t") -> list[bytes]:
        return [frame for block in self.blocks(feed) for frame in msgpack.unpackb(block.payload)]

    def stop(self) -> None:
        self.receiver.stop()
        self.thread.join(DEADLINE)
        assert not self.thread.is_alive()


Receive = Callable[..., Receiving]


@pytest.fixture
def receive(tmp_path: Path) -> Iterator[Receive]:
    running: list[Receiving] = []

    def begin(source: FakeSource, **changes: Any) -> Receiving:
        running.append(Receiving(monitor_settings(tmp_path / "spool", **changes), source))
        return running[-1]

    yield begin
    for each in running:
        each.stop()
        each.spool.close()


def test_frames_become_blocks_of_their_feeds_and_are_durable_when_told(receive: Receive) -> None:
    stream = FakeStream(("insert", "delete"))
    work = receive(FakeSource(stream))
    stream.put(("insert", [b"1", b"2"]), ("delete", [b"gone"]), ("insert", [b"3"]))
    wait_for(lambda: work.frames() == [b"1", b"2", b"3"] and work.frames("t.deletes") == [b"gone"])
    assert all(work.committed)
    wait_for(lambda: work.receiver.received == 4)
    assert (work.receiver.state, work.receiver.problem) == ("receiving", None)
    assert work.receiver.last_received is not None
    assert work.blocks()[0].epoch == work.receiver.epoch == work.spool.last_epoch()
    assert work.spool.topics() == ["topic"]


def test_a_monitor_that_took_too_much_memory_ends(receive: Receive) -> None:
    work = receive(FakeSource(FakeStream()), max_memory=1)
    work.thread.join(DEADLINE)
    assert isinstance(work.error, MonitorTooLarge)
    assert "its bound is 1: it starts afresh" in str(work.error)


def test_what_is_open_is_committed_at_the_stop(receive: Receive) -> None:
    stream = FakeStream()
    work = receive(FakeSource(stream), limits=NEVER)
    stream.put(("insert", [b"1"]))
    wait_for(lambda: work.receiver.last_received is not None)
    assert work.blocks() == []
    work.stop()
    assert work.frames() == [b"1"]
    assert work.committed == [1]
    assert stream.closed
    assert work.receiver.state == "stopped"


def test_a_lost_source_is_opened_again_under_a_new_epoch(receive: Receive) -> None:
    first, second = FakeStream(topics=["one"]), FakeStream(topics=["two"])
    source = FakeSource(first, SourceLost("no answer"), SourceLost("no answer"), second)
    work = receive(source, limits=NEVER)
    first.put(("insert", [b"1", b"2"]), SourceLost("connection lost"))
    wait_for(lambda: work.receiver.reconnects == 1)
    second.put(("insert", [b"3"]))
    wait_for(lambda: second.taken)
    work.stop()
    before, after = work.blocks()
    assert (before.offset, before.count, after.offset, after.count) == (0, 2, 0, 1)
    assert after.epoch > before.epoch
    assert after.time > before.time
    assert first.closed
    # The server may have been out of reach when the first was closed.
    assert source.cleared == [(), ("one",), ("one",), ("one",)]
    assert work.receiver.problem is None


def test_epochs_and_times_increase_although_the_clock_was_set_back(
    receive: Receive, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock:
        now = 2_000_000_000.0

        def time(self) -> float:
            return self.now

        def __getattr__(self, name: str) -> Any:
            return getattr(receiver_time, name)

    receiver_time, clock = receiver.time, Clock()
    monkeypatch.setattr(receiver, "time", clock)
    first, second = FakeStream(), FakeStream()
    work = receive(FakeSource(first, second))
    first.put(("insert", [b"1", b"2"]))
    wait_for(lambda: first.taken)
    clock.now -= 3600
    first.put(SourceLost("lost"))
    second.put(("insert", [b"3"]))
    wait_for(lambda: second.taken)
    work.stop()
    before, after = work.blocks()
    assert after.epoch == before.epoch + 1
    assert after.time == before.time + 2


def test_the_trouble_is_shown_while_it_lasts(receive: Receive) -> None:
    source = FakeSource(SourceLost("nothing answers at 1.2.3.4"))
    work = receive(source)
    wait_for(lambda: len(source.cleared) > 3)
    assert (work.receiver.state, work.receiver.problem) == ("connecting", "nothing answers at 1.2.3.4")
    assert work.receiver.reconnects == 0


def test_a_source_that_dies_at_once_is_not_opened_without_a_pause(
    receive: Receive, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[int] = []

    class Counting(Backoff):
        def delay(self, attempt: int) -> float:
            waits.append(attempt)
            return 0.001

    monkeypatch.setattr(receiver, "Backoff", lambda initial, cap: Counting(initial, cap))

    class Dying(FakeStream):
        def receive(self, timeout: float) -> list[Any]:
            raise SourceLost("died")

    source = FakeSource(Dying())
    work = receive(source)
    wait_for(lambda: len(source.opened) > 5)
    work.stop()
    assert len(waits) >= len(source.opened) - 1  # the last may have been stopped before it died


def test_a_full_spool_pauses_receiving_until_it_is_below_four_fifths(receive: Receive) -> None:
    first, second = FakeStream(), FakeStream()
    limits = BlockLimits(records=1, bytes=1 << 20, linger=0.01)
    work = receive(FakeSource(first, second), limits=limits, max_bytes=10_000)
    first.put(*[("insert", [b"x" * 1000])] * 11)
    wait_for(lambda: work.receiver.state == "paused")
    assert first.closed
    assert "its bound is 10,000" in str(work.receiver.problem)
    blocks = work.blocks()
    assert len(blocks) == 11

    def deliver(count: int) -> None:
        end = Position(blocks[0].epoch, count)
        work.spool.advance({("a", "t"): end}, {"t": end}, ())

    deliver(2)
    assert 8000 < work.spool.bytes < 10_000
    second.put(("insert", [b"more"]))
    with pytest.raises(AssertionError):
        _soon(lambda: work.receiver.state != "paused")
    deliver(4)
    wait_for(lambda: work.receiver.received == 12)
    assert (work.receiver.state, work.receiver.problem) == ("receiving", None)


def _soon(condition: Callable[[], bool]) -> None:
    """Ten rounds of a paused receiver."""
    ended = threading.Event()
    for _ in range(10):
        assert not ended.wait(receiver.SLICE)
        if condition():
            return
    raise AssertionError


def test_a_full_disk_pauses_receiving(receive: Receive) -> None:
    source = FakeSource(FakeStream())
    work = receive(source, min_free=1 << 62)
    wait_for(lambda: work.receiver.state == "paused")
    assert "the floor is" in str(work.receiver.problem)
    assert source.opened == []


def test_a_disk_that_is_full_when_it_starts_is_waited_for(
    receive: Receive, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = iter([SpoolFull("the disk is full")])
    starts = Continuity.start

    def start(continuity: Continuity) -> None:
        if (error := next(failures, None)) is not None:
            raise error
        starts(continuity)

    monkeypatch.setattr(Continuity, "start", start)
    work = receive(FakeSource(FakeStream()))
    wait_for(lambda: work.receiver.state == "receiving")
    assert work.error is None


def test_an_unusable_spool_ends_the_receiver_and_closes_the_stream(receive: Receive) -> None:
    stream = FakeStream()
    work = receive(FakeSource(stream))
    wait_for(lambda: work.receiver.state == "receiving")
    work.spool.close()
    stream.put(("insert", [b"1"]))
    work.thread.join(DEADLINE)
    assert "is closed" in str(work.error)
    assert stream.closed


# -- the monitor ------------------------------------------------------------------------------------------------

Make = Callable[..., Monitor]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[tuple[Monitor, FakeTransport]] = []

    def make(source: FakeSource, transport: FakeTransport | None = None, **changes: Any) -> Monitor:
        transport = transport or FakeTransport()
        made.append((Monitor(monitor_settings(tmp_path / "spool", **changes), transport, source), transport))
        return made[-1][0]

    yield make
    for monitor, transport in made:
        monitor.stop()
        transport.close()


def state(monitor: Monitor) -> str:
    return str(monitor.status()["state"])


def test_a_monitor_receives_delivers_drains_and_leaves_its_spool(make: Make, tmp_path: Path) -> None:
    stream, transport = FakeStream(), FakeTransport()
    monitor = make(FakeSource(stream), transport)
    assert monitor.status() == {"state": "starting", "problem": None}
    assert monitor.receiving  # nobody knows yet
    monitor.start()
    stream.put(("insert", [b"1", b"2"]))
    wait_for(lambda: ("a", "t") in transport.delivered and not monitor.pending)
    status = monitor.status()
    assert json.loads(json.dumps(status)) == status
    assert (status["state"], status["problem"], status["reconnects"]) == ("receiving", None, 0)
    (lane,) = status["lanes"]
    assert (lane["feed"], lane["sink"], lane["state"], lane["account"]["delivered"]) == ("t", "a", "open", 2)
    monitor.stop_intake()
    wait_for(lambda: not monitor.receiving)
    assert state(monitor) == "stopped"
    monitor.stop()
    assert monitor.status() == {"state": "stopped", "problem": None}
    Spool(tmp_path / "spool").close()  # not held any more


def test_a_monitor_without_intake_only_delivers(make: Make, tmp_path: Path) -> None:
    source = FakeSource(FakeStream())
    with_block = Spool(tmp_path / "spool")
    with_block.append([Block("t", 1, 0, 1, 0, "avro", "{}", b"x")])
    with_block.close()
    monitor = make(source)
    monitor.start(intake=False)
    wait_for(lambda: not monitor.receiving and not monitor.pending)
    assert source.opened == []


def test_draining_before_the_spool_is_open_does_not_claim_to_be_done(make: Make, tmp_path: Path) -> None:
    holder = Spool(tmp_path / "spool")
    monitor = make(FakeSource(FakeStream()))
    monitor.start()
    monitor.stop_intake()
    assert monitor.receiving
    holder.close()
    wait_for(lambda: not monitor.receiving)


def test_a_held_spool_fails_the_monitor_after_some_patience(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOCK_PATIENCE", 0.0)
    holder = Spool(tmp_path / "spool")
    monitor = make(FakeSource(FakeStream()))
    monitor.start()
    wait_for(lambda: state(monitor) == "failed")
    assert "is held by another monitor" in monitor.status()["problem"]
    assert not monitor.receiving
    holder.close()


def test_a_failing_thread_shows_as_failed(make: Make) -> None:
    monitor = make(FakeSource(ZeroDivisionError("a defect")))
    monitor.start()
    wait_for(lambda: state(monitor) == "failed")
    assert monitor.status()["problem"] == "ZeroDivisionError: a defect"


def test_a_monitor_that_was_replaced_says_so(make: Make) -> None:
    stream = FakeStream()
    monitor = make(FakeSource(stream), FakeTransport(fault=lambda *_: StaleOwner("newer")))
    monitor.start()
    stream.put(("insert", [b"1"]))
    wait_for(lambda: state(monitor) == "failed")
    assert monitor.status()["problem"] == "a newer monitor owns the table"


def test_stopping_while_it_starts_leaves_no_thread_behind(make: Make, tmp_path: Path) -> None:
    for _ in range(5):
        monitor = make(FakeSource(FakeStream()))
        monitor.start()
        monitor.stop()
        assert not [t.name for t in threading.enumerate() if t.name.startswith("t-")]
        Spool(tmp_path / "spool").close()


def test_what_could_not_be_delivered_is_delivered_by_the_next_monitor(make: Make) -> None:
    stream, transport = FakeStream(), FakeTransport()
    transport.down["a"] = NotAttached("down")
    first = make(FakeSource(stream), transport)
    first.start()
    stream.put(("insert", [b"1"]))
    wait_for(lambda: first.pending == 1)
    first.stop()
    again = FakeTransport()
    second = make(FakeSource(FakeStream()), again)
    second.start()
    wait_for(lambda: again.delivered)
    assert [msgpack.unpackb(b.payload) for b in again.delivered["a", "t"]] == [[b"1"]]
