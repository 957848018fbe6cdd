"""The dispatcher with a real spool and writers that answer from other threads, in any order, or fail."""

from __future__ import annotations

import random
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgpack
import pytest

from actors.backoff import Backoff
from actors.batch import Rejected
from actors.block import Block, BlockId
from actors.errors import DecodeAborted, DeliveryRefused, NotAttached, NotRetained, SpoolFull, StaleOwner
from actors.monitor import dispatch, lane, loop
from actors.monitor.accounts import Outcome
from actors.monitor.dispatch import Dispatcher
from actors.monitor.journal import Journal
from actors.monitor.spool import Position, Spool
from actors.monitor.transport import DecoderFailed, Task
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

    def start(
        transport: FakeTransport, sinks: tuple[str, ...] = ("a",), window: int = 1 << 20, abort: bool = False
    ) -> Dispatcher:
        dispatcher = Dispatcher(spool, sinks, transport, window, abort)
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
    assert all(r.in_flight == 0 and r.state == "open" for r in reports)
    assert all(a.received == a.delivered == 300 and not a.unexplained for a in spool.audit())
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


def test_a_transport_is_tidied_while_there_is_nothing_to_do(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "TIDY_INTERVAL", 0.001)
    start(transport := FakeTransport())
    wait_for(lambda: transport.tidied > 3)


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


def test_what_became_of_a_block_counts_once_its_cursor_passes(spool: Spool, start: Start) -> None:
    transport = FakeTransport(threads=0)
    held = blocks(0, 2)
    spool.append(held)
    dispatcher = start(transport, ("a",))

    def call(number: int) -> None:
        wait_for(lambda: len(transport.calls) > number)
        transport.calls.pop(number)()

    transport.rejects = {held[1].id: (Rejected(7, "bad", b"frame"),)}
    call(0)  # attached
    wait_for(lambda: len(transport.calls) == 2)
    for number in (0, 0, 1):  # both written in order, the second acknowledged
        call(number)
    wait_for(lambda: dispatcher.report()[0].in_flight == 2)
    assert spool.dead_letters() == 0
    call(0)
    wait_for(lambda: spool.cursor("a", "t") == Position(1, 10))
    assert spool.dead_letters() == 1
    (account,) = spool.audit()
    assert (account.received, account.delivered, account.dead_letters, account.pending) == (10, 9, 1, 0)


def test_rejects_become_dead_letters(spool: Spool, start: Start) -> None:
    transport = FakeTransport()
    two = blocks(0, 2)
    transport.rejects[two[1].id] = (Rejected(6, "bad", b"frame"),)
    spool.append(two)
    dispatcher = start(transport, ("a", "b"))
    wait_for(lambda: delivered(dispatcher) and not spool.bytes)
    assert spool.dead_letters() == 1


def test_a_reject_of_a_sink_gets_its_frame_from_the_block(spool: Spool, start: Start) -> None:
    transport = FakeTransport()
    frames = [bytes([n]) * 3 for n in range(5)]
    block = Block("t", 1, 5, 5, 5, "avro", "{}", msgpack.packb(frames))
    transport.rejects[block.id] = (Rejected(7, "too large", b""), Rejected(9, "too large", b""))
    spool.append([block])
    dispatcher = start(transport)
    wait_for(lambda: delivered(dispatcher) and not spool.bytes)
    with closing(sqlite3.connect(spool.directory / "spool.db")) as db:
        letters = db.execute("SELECT offset, reason, frame FROM dead_letter ORDER BY offset").fetchall()
    assert letters == [(7, "too large", frames[2]), (9, "too large", frames[4])]


def test_stopping_saves_what_was_acknowledged(
    spool: Spool, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "SAVE_INTERVAL", 1000.0)
    transport = FakeTransport()
    spool.append(blocks(0, 3))
    dispatcher = Dispatcher(spool, ("a",), transport)
    thread = threading.Thread(target=dispatcher.run)
    thread.start()
    sent = transport.delivered
    wait_for(lambda: len(sent.get(("a", "t"), ())) == 3 and not dispatcher.report()[0].in_flight)
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


# -- abort, resume, poison ----------------------------------------------------------------------------------------


def bad(*places: tuple[str, int]) -> Callable[[str, Task], BaseException | None]:
    """Blocks, by feed and offset, of which the second record does not decode."""

    def fault(sink: str, task: Task) -> BaseException | None:
        if task.strict and (task.order, task.block.offset) in places:
            return DecodeAborted("bad", task.block.offset + 1, 1)
        return None

    return fault


def test_an_aborted_feed_delivers_what_is_before_the_block_and_stops_alone(
    spool: Spool, start: Start
) -> None:
    transport = FakeTransport(fault=bad(("t", 15), ("t", 30)))
    for feed in ("t", "u"):
        spool.append(blocks(0, 10, feed))
    dispatcher = start(transport, ("a", "b"), abort=True)

    def stopped_at(offset: int) -> bool:
        reports = [report for report in dispatcher.report() if report.feed == "t"]
        return all(
            report.aborted is not None
            and report.aborted.offset == offset + 1
            and spool.cursor(report.sink, "t") == Position(1, offset)
            for report in reports
        )

    wait_for(lambda: stopped_at(15))
    wait_for(lambda: spool.cursor("b", "u") == Position(1, 50))
    spool.append(blocks(10, 2))
    dispatcher.notify(["t"])
    assert sorted(dispatcher.resume(["a", "b"], skip=False)) == [("t", "a"), ("t", "b")]
    wait_for(lambda: stopped_at(15))
    report = dispatcher.report()[0]
    assert report.problem == "record 16 did not decode: bad"
    assert report.pending_records == 45

    transport.rejects[blocks(3, 1)[0].id] = (Rejected(16, "bad", b"frame"),)
    dispatcher.resume(["a", "b"], skip=True)
    wait_for(lambda: stopped_at(30))
    assert spool.dead_letters() == 1
    assert spool.permits() == set()
    dispatcher.resume(["a"], skip=True)
    wait_for(lambda: spool.cursor("a", "t") == Position(1, 60))
    assert spool.cursor("b", "t") == Position(1, 30)
    dispatcher.resume(["b"], skip=False)  # what is permitted is so for every sink
    wait_for(lambda: delivered(dispatcher))
    for sink in ("a", "b"):
        assert transport.delivered[sink, "t"] == blocks(0, 12)
    assert dispatcher.resume(["a", "b"], skip=False) == []


def test_the_very_first_block_of_a_feed_aborts_once(spool: Spool, start: Start) -> None:
    transport = FakeTransport(fault=bad(("t", 0)))
    spool.append(blocks(0, 2))
    dispatcher = start(transport, abort=True)
    wait_for(lambda: dispatcher.report()[0].state == "aborted")
    for _ in range(50):
        dispatcher.notify(["t"])
    assert dispatcher.resume([], skip=False) == []  # all of that has been looked at
    assert dispatcher.stuck
    sent = len(transport.tasks)
    assert sent <= 2
    dispatcher.resume(["a"], skip=True)
    wait_for(lambda: delivered(dispatcher))
    assert [task.strict for task in transport.tasks[sent:]] == [False, True]
    assert dispatcher.resume(["a"], skip=True) == []


def test_a_permit_holds_for_a_sink_whose_decoding_was_under_way(spool: Spool, start: Start) -> None:
    transport = FakeTransport(fault=bad(("t", 0)), threads=0)
    spool.append(blocks(0, 1))
    dispatcher = start(transport, ("a", "b"), abort=True)
    wait_for(lambda: len(transport.calls) == 2)
    for _ in range(2):
        transport.calls.pop(0)()  # both attach
    wait_for(lambda: len(transport.calls) == 2)
    first, second = transport.calls
    transport.calls.clear()
    first()
    wait_for(lambda: any(report.aborted for report in dispatcher.report()))
    (aborted,) = [report.sink for report in dispatcher.report() if report.aborted]
    dispatcher.resume([aborted], skip=True)
    second()
    while not delivered(dispatcher):
        wait_for(lambda: transport.calls or delivered(dispatcher))
        if transport.calls:
            transport.calls.pop(0)()
    assert not any(report.aborted for report in dispatcher.report())


def test_a_permit_outlives_the_dispatcher(spool: Spool, start: Start) -> None:
    transport = FakeTransport(fault=bad(("t", 0)))
    spool.append(blocks(0, 2))
    spool.permit(blocks(0, 1)[0].id)
    dispatcher = start(transport, abort=True)
    wait_for(lambda: delivered(dispatcher))
    assert [task.strict for task in transport.tasks] == [False, True]


def test_a_parked_lane_goes_on_when_it_is_resumed(spool: Spool, start: Start) -> None:
    refused = [True]

    def fault(sink: str, task: Task) -> BaseException | None:
        return DeliveryRefused("no such column") if refused and task.block.offset == 10 else None

    transport = FakeTransport(fault=fault)
    spool.append(blocks(0, 5))
    dispatcher = start(transport)
    wait_for(lambda: dispatcher.report()[0].state == "parked")
    assert dispatcher.resume(["b"], skip=False) == []
    refused.clear()
    assert dispatcher.resume(["a"], skip=False) == [("t", "a")]
    wait_for(lambda: delivered(dispatcher))
    assert transport.in_order("a", "t") == blocks(0, 5)


def test_a_block_that_was_with_two_deaths_is_decoded_alone(spool: Spool, start: Start) -> None:
    """The first decoder dies with the blocks from 5, the second with that at 5 only; each told to both sinks."""
    deaths = ["first", "second"]
    told: dict[tuple[str, int], int] = {}

    def fault(sink: str, task: Task) -> BaseException | None:
        offset = task.block.offset
        seen = told.setdefault((sink, offset), 0)
        if offset < 5 or task.isolated or seen == (2 if offset == 5 else 1):
            return None
        told[sink, offset] += 1
        return DecoderFailed("died", True, deaths[seen])

    transport = FakeTransport(fault=fault)
    spool.append(blocks(0, 8))
    dispatcher = start(transport, ("a", "b"))
    wait_for(lambda: delivered(dispatcher))
    assert {task.block.offset for task in transport.tasks if task.isolated} == {5}
    assert transport.in_order("a", "t") == transport.in_order("b", "t") == blocks(0, 8)


# -- replay -------------------------------------------------------------------------------------------------------


def kill_letters(spool: Spool, *offsets: int) -> None:
    """Blocks of `t` that went to both sinks, but for these records."""
    held = blocks(0, 4)
    spool.append(held)
    end, outcomes = Position(1, 20), []
    for each in held:
        rejects = tuple(Rejected(n, "bad", b"frame") for n in offsets if each.offset <= n < each.end)
        outcomes += [Outcome(sink, each.id, each.time, rejects) for sink in "ab"]
    spool.open_accounts("ab")
    spool.advance({("a", "t"): end, ("b", "t"): end}, {"t": end}, outcomes)


def test_a_replay_goes_to_every_sink_in_order_and_is_done_when_all_have_it(
    spool: Spool, start: Start
) -> None:
    kill_letters(spool, 3, 4, 5, 11, 19)
    transport = FakeTransport()
    transport.down["b"] = NotAttached("down")
    dispatcher = start(transport, ("a", "b"), abort=True)
    assert dispatcher.replay() == {"t": (1, 5)}
    wait_for(lambda: len(transport.delivered.get(("a", "t!replay"), ())) == 3)
    assert [(r.feed, r.sink) for r in dispatcher.report()] == [
        ("t", "a"), ("t!replay", "a"), ("t", "b"), ("t!replay", "b"),
    ]  # fmt: skip
    assert spool.letters.outcome("t", 1) == {"replaying": 5}
    # The next run waits for its turn, though it begins further back.
    spool.append(blocks(4, 1))
    transport.rejects[blocks(4, 1)[0].id] = (Rejected(20, "bad", b"frame"),)
    dispatcher.notify(["t"])
    transport.down.clear()
    wait_for(lambda: spool.letters.outcome("t", 1) == {"done": 5})
    for sink in ("a", "b"):
        replayed = transport.delivered[sink, "t!replay"]
        assert [(b.feed, b.offset, b.count, b.time) for b in replayed] == [
            ("t", 3, 3, 3), ("t", 11, 1, 11), ("t", 19, 1, 19),
        ]  # fmt: skip
    assert not any(task.strict for task in transport.tasks if task.order == "t!replay")
    wait_for(lambda: len(dispatcher.report()) == 2)


def test_a_later_run_may_go_back(spool: Spool, start: Start) -> None:
    kill_letters(spool, 1, 2, 18)
    transport = FakeTransport()
    dispatcher = start(transport, ("a", "b"))
    for run, offset in enumerate((18, 2, 1), 1):
        assert dispatcher.replay([BlockId("t", 1, offset)]) == {"t": (run, 1)}
    wait_for(lambda: spool.letters.list(9)[0] == {"done": 3})
    for sink in ("a", "b"):
        assert [block.offset for block in transport.delivered[sink, "t!replay"]] == [18, 2, 1]


def test_what_fails_again_waits_again(spool: Spool, start: Start) -> None:
    kill_letters(spool, 1, 2, 3)
    transport = FakeTransport()
    transport.rejects[BlockId("t", 1, 1)] = (Rejected(2, "still bad", b"frame"),)
    dispatcher = start(transport, ("a", "b"))
    dispatcher.replay()
    wait_for(lambda: spool.letters.outcome("t", 1) == {"done": 2, "waiting": 1})
    letter = spool.letters.get(BlockId("t", 1, 2))
    assert letter is not None
    assert letter.reason == "still bad"
    assert spool.letters.runs() == {}


def test_an_interrupted_replay_goes_on_with_the_next_dispatcher(spool: Spool, start: Start) -> None:
    kill_letters(spool, 1, 18)
    spool.letters.begin()
    transport = FakeTransport()
    start(transport, ("a", "b"))
    wait_for(lambda: spool.letters.list(9)[0] == {"done": 2})
    assert [block.offset for block in transport.in_order("a", "t!replay")] == [1, 18]


# -- going back, and no room ------------------------------------------------------------------------------------


def test_a_rewound_sink_gets_again_what_is_kept_though_its_writer_remembers(
    spool: Spool, start: Start
) -> None:
    spool.retention.seconds = 1e10
    transport = FakeTransport()
    spool.append(blocks(0, 8))
    dispatcher = start(transport, ("a", "b"))
    wait_for(lambda: delivered(dispatcher))
    assert dispatcher.rewind("a", 17) == {"t": (Position(1, 15), 25)}
    wait_for(lambda: len(transport.delivered["a", "t"]) == 13 and delivered(dispatcher))
    assert transport.delivered["a", "t"] == blocks(0, 8) + blocks(3, 5)
    assert transport.delivered["b", "t"] == blocks(0, 8)
    wait_for(lambda: spool.cursor("a", "t") == Position(1, 40))
    spool.retention.prune(0)
    with pytest.raises(NotRetained):
        dispatcher.rewind("a", 17)


def test_a_rewind_survives_the_monitor_and_failures_before_the_first_block(
    spool: Spool, start: Start
) -> None:
    spool.retention.seconds = 1e10
    transport = FakeTransport()
    spool.append(blocks(0, 8))
    first = Dispatcher(spool, ("a",), transport)
    thread = threading.Thread(target=first.run)
    thread.start()
    wait_for(lambda: delivered(first))
    transport.down["a"] = NotAttached("down")
    first.rewind("a", 17)
    first.stop()
    thread.join(DEADLINE)
    wait_for(lambda: not transport.calls)
    # Whole sessions fail: of one that fails in part, what it delivered would come once more.
    failing = transport.attaches + 2
    transport.fault = lambda sink, task: OSError("unreachable") if transport.attaches <= failing else None
    with transport._changed:  # no call is under way any more
        transport.owner = 2  # the next monitor, at the same writer
        transport.down.clear()
    second = start(transport)
    wait_for(lambda: len(transport.delivered["a", "t"]) == 13 and delivered(second))
    assert transport.delivered["a", "t"] == blocks(0, 8) + blocks(3, 5)


def test_lanes_go_on_behind_what_was_dropped(spool: Spool, start: Start) -> None:
    transport = FakeTransport()
    transport.down["b"] = NotAttached("down")
    spool.append(blocks(0, 4))
    dispatcher = start(transport, ("a", "b"))
    wait_for(lambda: spool.cursor("a", "t") == Position(1, 20))
    assert dispatcher.drop(25) == 30
    assert {account.sink: account.dropped for account in spool.accounts()} == {"a": 0, "b": 15}
    transport.down.clear()
    spool.append(blocks(4, 2))
    dispatcher.notify(["t"])
    wait_for(lambda: delivered(dispatcher) and not spool.bytes)
    assert transport.in_order("a", "t") == blocks(0, 6)
    assert transport.in_order("b", "t") == blocks(3, 3)


def test_what_is_in_flight_is_not_dropped(spool: Spool, start: Start) -> None:
    transport = FakeTransport(threads=0)  # nothing is answered
    spool.append(blocks(0, 6))
    dispatcher = start(transport, window=20)
    wait_for(lambda: transport.calls)
    transport.calls.pop(0)()  # the attachment
    while transport.calls:
        transport.calls.pop(0)()
    wait_for(lambda: dispatcher.report()[0].in_flight == 2)
    assert dispatcher.drop(1000) == 40
    assert [block.offset for block in spool.blocks("t")] == [0, 5]
    transport.calls.clear()


def test_cursors_that_a_full_disk_does_not_take_are_saved_later(
    spool: Spool, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "FULL_INTERVAL", 0.01)
    advance, failures = spool.advance, iter([True] * 5)

    def full(*arguments: Any) -> None:
        if next(failures, False):
            raise SpoolFull("the disk is full")
        advance(*arguments)

    monkeypatch.setattr(spool, "advance", full)
    spool.append(blocks(0, 3))
    start(FakeTransport())
    wait_for(lambda: spool.cursor("a", "t") == Position(1, 15) and not spool.bytes)


def test_a_rewind_on_a_full_disk_is_not_undone_by_cursors_that_wait_to_be_saved(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool.retention.seconds = 1e10
    advance, disk = spool.advance, {"full": False}

    def full(*arguments: Any) -> None:
        if disk["full"]:
            raise SpoolFull("the disk is full")
        advance(*arguments)

    monkeypatch.setattr(spool, "advance", full)
    transport = FakeTransport()
    spool.append(blocks(0, 4))
    dispatcher = Dispatcher(spool, ("a",), transport)
    thread = threading.Thread(target=dispatcher.run)
    thread.start()
    wait_for(lambda: delivered(dispatcher))
    disk["full"] = True
    spool.append(blocks(4, 1))
    dispatcher.notify(["t"])
    wait_for(lambda: len(transport.delivered["a", "t"]) == 5 and dispatcher.report()[0].in_flight == 0)
    transport.down["a"] = NotAttached("down")
    dispatcher.rewind("a", 17)
    disk["full"] = False
    dispatcher.stop()
    thread.join(DEADLINE)
    assert spool.cursor("a", "t") == Position(1, 15)
    transport.close()


def test_what_was_not_begun_in_time_is_never_done(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "ANSWER_TIMEOUT", 0.01)
    transport = FakeTransport(threads=0)  # nothing is answered, so that nothing is in flight
    spool.append(blocks(0, 4))
    dispatcher = Dispatcher(spool, ("a",), transport)
    with pytest.raises(TimeoutError):
        dispatcher.drop(10)  # nobody runs it yet
    dispatcher.stop()
    dispatcher.run()
    assert len(list(spool.blocks("t"))) == 4
    transport.close()


def test_a_paused_sink_gets_nothing_and_the_others_go_on(spool: Spool, start: Start) -> None:
    transport = FakeTransport()
    spool.append(blocks(0, 4))
    dispatcher = start(transport, ("a", "b"))
    wait_for(lambda: delivered(dispatcher))
    assert dispatcher.pause(["b"]) == 0
    spool.append([*blocks(4, 4), *blocks(0, 2, "t.deletes")])  # one of them a feed never seen before
    dispatcher.notify(["t", "t.deletes"])
    wait_for(
        lambda: len(transport.in_order("a", "t")) == 8 and len(transport.in_order("a", "t.deletes")) == 2
    )
    reports = {(report.sink, report.feed): report for report in dispatcher.report()}
    assert reports["b", "t"].paused
    assert reports["b", "t.deletes"].pending_records == 10
    assert not reports["a", "t"].paused
    assert len(transport.in_order("b", "t")) == 4
    assert ("b", "t.deletes") not in transport.delivered
    wait_for(lambda: dispatcher.stuck, "what is left waits for a person")
    assert dispatcher.pending == 30
    assert all(account.unexplained == 0 for account in spool.audit())
    dispatcher.pause([])
    wait_for(lambda: delivered(dispatcher))
    assert transport.in_order("b", "t") == blocks(0, 8)
    assert len(transport.delivered["b", "t"]) == 8  # nothing twice


def test_what_is_on_its_way_when_its_sink_is_paused_still_arrives(spool: Spool) -> None:
    transport = FakeTransport(threads=0)
    spool.append(blocks(0, 3))
    dispatcher = Dispatcher(spool, ("a",), transport, window_bytes=20)
    thread = threading.Thread(target=dispatcher.run)
    thread.start()

    def answer(count: int) -> None:
        wait_for(lambda: len(transport.calls) >= count, "calls")
        calls, transport.calls[:] = transport.calls[:], []
        for call in calls:
            call()

    answer(1)  # the attach
    wait_for(lambda: len(transport.calls) == 2, "two blocks fill the window")
    assert dispatcher.pause(["a"]) == 2
    answer(2)  # the writes, which leave their answers
    answer(2)
    wait_for(lambda: dispatcher.report()[0].in_flight == 0, "answered")
    assert dispatcher.pause(["a"]) == 0
    assert [task.block.offset for task in transport.tasks] == [0, 5]
    dispatcher.stop()
    thread.join(DEADLINE)
    assert spool.cursor("a", "t") == Position(1, 10)
    transport.close()


def test_a_dispatcher_that_starts_paused_sends_nothing_until_it_may(spool: Spool) -> None:
    transport = FakeTransport()
    spool.append(blocks(0, 3))
    dispatcher = Dispatcher(spool, ("a",), transport, paused=("a",))
    thread = threading.Thread(target=dispatcher.run)
    thread.start()
    assert dispatcher.pause(["a"]) == 0
    assert (transport.attaches, transport.tasks, dispatcher.stuck) == (0, [], True)
    dispatcher.pause([])
    wait_for(lambda: delivered(dispatcher))
    dispatcher.stop()
    thread.join(DEADLINE)
    transport.close()


def test_the_journal_and_the_tap_see_what_is_sent(spool: Spool) -> None:
    transport, journal = FakeTransport(), Journal()
    dispatcher = Dispatcher(spool, ("a", "b"), transport, journal=journal)
    seen = dispatcher.tap.read().seen
    thread = threading.Thread(target=dispatcher.run)
    thread.start()
    spool.append(blocks(0, 2))
    dispatcher.notify(["t"])
    wait_for(lambda: dispatcher.report() and delivered(dispatcher))
    assert [block.offset for block in dispatcher.tap.read(seen).blocks] == [0, 5]
    for sink in ("a", "b"):
        steps = [step.what for step in journal.steps(BlockId("t", 1, 7)) if step.sink == sink]
        assert steps == ["dispatched", "acknowledged"]
    dispatcher.stop()
    thread.join(DEADLINE)
    transport.close()
