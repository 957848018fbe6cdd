"""The spool: what it keeps, what it deletes, who may hold it, and that it equals a list that is never closed."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from actors.batch import Rejected
from actors.block import Block
from actors.errors import NotRetained, SpoolError, SpoolInUse
from actors.monitor import damage
from actors.monitor.accounts import Outcome
from actors.monitor.spool import FeedEnd, Frozen, Position, Spool

SCHEMA = '{"definition": "{}", "properties": {}}'


def block(
    offset: int, count: int = 10, feed: str = "t", epoch: int = 1, time: int | None = None, size: int = 4
) -> Block:
    return Block(feed, epoch, offset, count, offset if time is None else time, "avro", SCHEMA, b"x" * size)


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = Spool(tmp_path / "spool")
    yield spool
    spool.close()


def test_blocks_come_back_in_order_and_as_they_were(spool: Spool) -> None:
    blocks = [block(0), block(10, 5), block(0, feed="u"), block(0, epoch=2), block(10, 1, epoch=2)]
    spool.append(blocks)
    assert spool.feeds() == ["t", "u"]
    position, found = Position(), []
    while (each := spool.next_block("t", position)) is not None:
        found.append(each)
        position = Position(each.epoch, each.end)
    assert found == [b for b in blocks if b.feed == "t"]
    assert spool.next_block("nothing", Position()) is None
    assert spool.pending("t", Position(1, 10)) == (16, 12)
    assert spool.bytes == 20


def test_a_block_is_deleted_once_every_sink_is_past_it(spool: Spool) -> None:
    spool.append([block(0), block(10)])
    spool.advance({("a", "t"): Position(1, 20), ("b", "t"): Position(1, 10)}, {"t": Position(1, 10)}, ())
    assert spool.next_block("t", Position()) == block(10)
    assert spool.bytes == 4
    assert (spool.cursor("a", "t"), spool.cursor("b", "t"), spool.cursor("c", "t")) == (
        (1, 20),
        (1, 10),
        (0, 0),
    )
    spool.advance({("b", "t"): Position(1, 20)}, {"t": Position(1, 20)}, ())
    assert spool.next_block("t", Position()) is None
    assert spool.bytes == 0
    assert spool.end("t") == FeedEnd(1, 20, 20)


def test_rejects_become_dead_letters_before_their_block_goes(spool: Spool) -> None:
    spool.append([block(0), block(10)])
    reject = Rejected(3, "no such branch", b"frame")
    spool.advance(
        {("a", "t"): Position(1, 10)}, {"t": Position(1, 10)}, [Outcome("a", block(0).id, 0, (reject,))]
    )
    # Of two sinks both report it, the second when the block is gone already.
    late = Outcome("b", block(10).id, 10, (Rejected(11, "r", b""),))
    spool.advance({}, {}, [Outcome("b", block(0).id, 0, (reject,)), late])
    assert spool.dead_letters() == 2


def test_a_failed_append_leaves_nothing(spool: Spool) -> None:
    spool.append([block(0)])
    with pytest.raises(Exception, match="UNIQUE"):
        spool.append([block(10), block(0)])
    assert spool.end("t") == FeedEnd(1, 10, 10)
    assert spool.bytes == 4
    spool.append([block(10)])
    assert spool.next_block("t", Position(1, 10)) == block(10)


def test_everything_is_there_after_reopening(tmp_path: Path) -> None:
    first = Spool(tmp_path)
    first.append([block(0, epoch=7), block(10, epoch=7)])
    first.advance({("a", "t"): Position(7, 10)}, {"t": Position(7, 10)}, [])
    first.set_topics(["one", "two"])
    first.set_topics(["two", "three"])
    first.close()
    first.close()
    second = Spool(tmp_path)
    assert second.cursor("a", "t") == Position(7, 10)
    assert second.next_block("t", Position()) == block(10, epoch=7)
    assert (second.end("t"), second.last_epoch(), second.bytes) == (FeedEnd(7, 20, 20), 7, 4)
    assert sorted(second.topics()) == ["three", "two"]
    second.close()


def test_counting_a_backlog_and_appending_do_not_wait_for_each_other(spool: Spool) -> None:
    counted: list[tuple[int, int]] = []

    class Blocks(list[Block]):
        def __iter__(self) -> Iterator[Block]:  # in the middle of the transaction
            counted.append(spool.pending("t", Position()))
            return super().__iter__()

    spool.append([block(0)])
    append = threading.Thread(target=spool.append, args=(Blocks([block(10)]),), daemon=True)
    append.start()
    append.join(10)
    assert not append.is_alive()
    assert counted
    assert set(counted) <= {(10, 4), (20, 8)}
    assert spool.pending("t", Position()) == (20, 8)


HOLD = "import sys; from actors.monitor.spool import Spool; s = Spool(sys.argv[1]); print('held', flush=True); input()"


def test_one_process_holds_a_spool_and_its_death_releases_it(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(SpoolInUse, match="held by another process; stop that one first"):
            Spool(tmp_path)
    finally:
        holder.kill()
        holder.communicate(timeout=10)
    Spool(tmp_path).close()


def test_a_damaged_database_is_set_aside_and_never_in_the_way(tmp_path: Path) -> None:
    garbage = b"no database at all, but long enough to be looked at" * 40
    (tmp_path / "spool.db").write_bytes(garbage)
    for _ in range(2):
        spool = Spool(tmp_path)
        (found,) = spool.damages()
        assert "not a database" in found.why
        assert (tmp_path / found.file).read_bytes() == garbage
        spool.append([block(int(found.time) + len(given_blocks(spool)) * 10)])
        spool.close()


@pytest.mark.parametrize("moved", range(4))
def test_a_crash_while_it_is_set_aside_leaves_no_part_behind(tmp_path: Path, moved: int) -> None:
    parts = {"-wal": b"log" * 100, "-shm": b"index" * 100, "": b"nothing" * 1000}
    damage.mark(tmp_path, "spool.db", "torn")
    found = damage.marked(tmp_path)
    assert found is not None
    for number, (suffix, content) in enumerate(parts.items()):
        (tmp_path / ((found.file if number < moved else "spool.db") + suffix)).write_bytes(content)
    spool = Spool(tmp_path)
    assert spool.damages() == [found]
    for suffix, content in parts.items():
        assert (tmp_path / (found.file + suffix)).read_bytes() == content
    spool.append([block(0)])
    spool.close()
    again = Spool(tmp_path)
    assert (again.damages(), given_blocks(again)) == ([found], [block(0)])
    again.close()


@pytest.mark.parametrize("gone", [True, False])
def test_a_database_that_is_gone_or_empty_is_told_of(tmp_path: Path, gone: bool) -> None:
    spool = Spool(tmp_path)
    spool.append([block(0)])
    spool.close()
    (tmp_path / "spool.db").unlink()
    if not gone:
        (tmp_path / "spool.db").touch()
    spool = Spool(tmp_path)
    assert [each.why for each in spool.damages()] == ["it is gone" if gone else "it is empty"]
    spool.close()


def test_a_place_that_cannot_be_used_is_no_reason_to_move_data_away(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SpoolError, match="check the path and its rights"):
        Spool(tmp_path / "file" / "spool")
    (tmp_path / "spool" / "spool.db").mkdir(parents=True)
    with pytest.raises(SpoolError, match="unable to open database file; check its disk and rights"):
        Spool(tmp_path / "spool")


FEEDS = st.sampled_from(["t", "t.updates"])
SINKS = ("a", "b")


class SpoolAgainstLists(RuleBasedStateMachine):
    """A spool that may be closed and opened at any point holds what lists in memory hold."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
        self.spool = Spool(self.directory)
        self.blocks: dict[str, list[Block]] = {}
        self.ends: dict[str, FeedEnd] = {}
        self.cursors: dict[tuple[str, str], Position] = {}
        self.dead: set[tuple[str, int, int]] = set()
        self.epoch = 1
        self.retain = 0.0
        self.behind: dict[str, Position] = {}  # as far as told since the opening
        self.pruned = 0

    @initialize(retain=st.sampled_from([0.0, 1e12]))
    def choose(self, retain: float) -> None:
        self.retain = self.spool.retention.seconds = retain

    @rule(feeds=st.lists(FEEDS, min_size=1, max_size=4), count=st.integers(1, 9), size=st.integers(0, 50))
    def append(self, feeds: list[str], count: int, size: int) -> None:
        batch = []
        for feed in feeds:
            epoch, offset, time = self.ends.get(feed, FeedEnd())
            start = offset if epoch == self.epoch else 0
            batch.append(block(start, count, feed, self.epoch, time, size))
            self.ends[feed] = FeedEnd(self.epoch, start + count, time + count)
        self.spool.append(batch)
        for each in batch:
            self.blocks.setdefault(each.feed, []).append(each)

    @rule()
    def begin_epoch(self) -> None:
        self.epoch = max(self.epoch, self.spool.last_epoch()) + 1

    @precondition(lambda self: any(self.blocks.values()))
    @rule(data=st.data(), sink=st.sampled_from(SINKS), reject=st.booleans())
    def acknowledge(self, data: st.DataObject, sink: str, reject: bool) -> None:
        feed = data.draw(st.sampled_from(sorted(feed for feed, held in self.blocks.items() if held)))
        done = data.draw(st.sampled_from(self.blocks[feed]))
        position = max(Position(done.epoch, done.end), self.cursors.get((sink, feed), Position()))
        self.cursors[sink, feed] = position
        behind = min(self.cursors.get((each, feed), Position()) for each in SINKS)
        rejects = (Rejected(done.offset, "why", b"f"),) * reject
        outcome = Outcome(sink, done.id, done.time, rejects)
        self.spool.advance({(sink, feed): position}, {feed: behind}, [outcome])
        self.dead |= {done.id for _ in rejects}
        self.behind[feed] = behind
        if not self.retain:
            self.forget()

    def forget(self) -> None:
        for feed, behind in self.behind.items():
            gone = [b for b in self.blocks[feed] if (b.epoch, b.offset) < behind]
            self.pruned = max([self.pruned, *(b.time + b.count for b in gone)])
            self.blocks[feed] = self.blocks[feed][len(gone) :]

    @rule()
    def prune(self) -> None:
        self.spool.retention.prune()  # nothing is old or too much
        if self.retain:
            self.holds_the_same()
            self.spool.retention.prune(0)
        self.forget()

    @precondition(lambda self: any(self.blocks.values()))
    @rule(data=st.data(), sink=st.sampled_from(SINKS))
    def rewind(self, data: st.DataObject, sink: str) -> None:
        time = data.draw(st.sampled_from([b.time for held in self.blocks.values() for b in held]))
        if time < self.pruned:
            with pytest.raises(NotRetained):
                self.spool.retention.rewind(sink, time)
            return
        expected = {}
        for feed, held in self.blocks.items():
            cursor = self.cursors.get((sink, feed), Position())
            again = [b for b in held if (b.epoch, b.offset) < cursor and b.time + b.count > time]
            if again:
                position = Position(again[0].epoch, again[0].offset)
                expected[feed] = (position, sum(b.count for b in again))
                self.cursors[sink, feed] = position
                self.behind[feed] = min(position, self.behind.get(feed, position))
        assert self.spool.retention.rewind(sink, time) == expected
        assert all(self.spool.rewound(sink, feed) for feed in expected)

    @rule()
    def reopen(self) -> None:
        self.spool.close()
        self.spool = Spool(self.directory, retain=self.retain)
        self.behind = {}

    @invariant()
    def holds_the_same(self) -> None:
        assert self.spool.feeds() == sorted(self.ends)
        assert self.spool.bytes == sum(len(b.payload) for held in self.blocks.values() for b in held)
        assert self.spool.dead_letters() == len(self.dead)
        for feed, end in self.ends.items():
            assert self.spool.end(feed) == end
            for sink in SINKS:
                cursor = self.cursors.get((sink, feed), Position())
                assert self.spool.cursor(sink, feed) == cursor
                rest = [b for b in self.blocks[feed] if (b.epoch, b.offset) >= cursor]
                assert self.spool.next_block(feed, cursor) == (rest[0] if rest else None)
                sizes = sum(b.count for b in rest), sum(len(b.payload) for b in rest)
                assert self.spool.pending(feed, cursor) == sizes

    def teardown(self) -> None:
        self.spool.close()
        shutil.rmtree(self.directory)


SpoolAgainstLists.TestCase.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
test_spool_against_lists = SpoolAgainstLists.TestCase


def given_blocks(spool: Spool, feed: str = "t") -> list[Block]:
    """What may be dispatched."""
    found, position = [], Position()
    while (each := spool.next_block(feed, position)) is not None:
        found.append(each)
        position = Position(each.epoch, each.end)
    return found


def test_what_is_held_is_not_given_until_released_also_after_reopening(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    blocks = [block(0), block(10), block(0, epoch=2)]
    spool.append(blocks)
    for at, given in [((1, 0), 0), ((1, 10), 1), ((2, 0), 2), ((2, 10), 3)]:
        spool.hold("t", Position(*at))
        for _ in range(2):
            assert given_blocks(spool) == blocks[:given]
            assert spool.held_blocks("t") == blocks[given:]
            assert spool.in_doubt("t") == (given < 3)
            assert spool.held("t") == at
            spool.close()
            spool = Spool(tmp_path)
    assert spool.pending("t", Position()) == (30, 12)
    assert (spool.held("u"), spool.held_blocks("u"), spool.in_doubt("u")) == (None, [], False)
    spool.close()


def settle(spool: Spool, blocks: list[Block], frozen: Frozen | None = None) -> None:
    rejects = [(block(10), Rejected(13, "ambiguous", b"f")), (block(10), Rejected(14, "ambiguous", b"g"))]
    news = block(0, 1, feed="t.changes")
    spool.settle("t", blocks, rejects, Position(1, 15), frozen, ("schema", ["id"]), news)


HALVES = [block(10, 3), block(15, 5, time=15)]


def test_held_blocks_are_replaced_in_one_transaction(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append([block(0), block(10)])
    spool.hold("t", Position(1, 10))
    settle(spool, HALVES)
    for _ in range(2):
        assert given_blocks(spool) == [block(0), HALVES[0]]
        assert spool.held_blocks("t") == [HALVES[1]]
        assert given_blocks(spool, "t.changes") == [block(0, 1, feed="t.changes")]
        assert (spool.dead_letters(), spool.bytes) == (2, 16)
        assert spool.seen("t") == ("schema", ["id"])
        assert spool.end("t") == FeedEnd(1, 20, 20)  # offsets of rejects are not given again
        assert spool.frozen("t") is None
        spool.close()
        spool = Spool(tmp_path)
    spool.hold("t", Position(1, 20))
    assert given_blocks(spool) == [block(0), *HALVES]
    spool.close()


def test_a_settlement_that_fails_releases_nothing(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append([block(0), block(10)])
    spool.hold("t", Position(1, 10))
    with pytest.raises(Exception, match="UNIQUE"):
        settle(spool, [*HALVES, HALVES[0]], Frozen(Position(1, 15), "why"))
    for _ in range(2):
        assert given_blocks(spool) == [block(0)]
        assert spool.held_blocks("t") == [block(10)]
        assert (spool.dead_letters(), spool.bytes, spool.frozen("t")) == (0, 8, None)
        assert spool.seen("t") == (None, None)
        spool.close()
        spool = Spool(tmp_path)
    spool.close()


def test_what_is_frozen_waits_for_a_person_also_when_its_type_is_proven(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append([block(0), block(10)])
    spool.hold("t", Position(1, 10))
    settle(spool, HALVES, Frozen(Position(1, 15), "altered"))
    spool.hold("t", Position(1, 20))
    settled = Frozen(Position(1, 15), "altered")
    spool.close()
    spool = Spool(tmp_path)
    assert spool.frozen("t") == settled
    assert given_blocks(spool) == [block(0), HALVES[0]]
    assert spool.held_blocks("t") == []  # frozen blocks are not read again at a further alteration
    again = Frozen(Position(1, 20), "altered again")
    news = block(1, 1, feed="t.changes")
    spool.settle("t", [], [], Position(1, 20), again, ("schema 2", None), news)
    assert spool.frozen("t") == settled
    assert spool.resume("t")
    assert not spool.resume("t")
    assert given_blocks(spool) == [block(0), *HALVES]
    spool.close()


def test_a_spool_of_another_version_is_left_alone(tmp_path: Path) -> None:
    Spool(tmp_path).close()
    with contextlib.closing(sqlite3.connect(tmp_path / "spool.db")) as db:
        db.execute("PRAGMA user_version=2")
    with pytest.raises(SpoolError, match="is of format 2, this version of Tablecast knows 1; drain it"):
        Spool(tmp_path)
