"""What a crash, a torn file or a flipped byte leaves of a spool: what was committed, or a file set aside.

A crash is simulated by the bytes it may leave: SQLite writes the log first, frame by frame, then (at a checkpoint) the
database, page by page. Of the writes that no flush has followed yet, any may be missing.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from actors.batch import Rejected
from actors.block import Block
from actors.errors import SpoolDamaged
from actors.monitor import disk, spool_db
from actors.monitor.accounts import Outcome
from actors.monitor.spool import Position, Spool

PAGE = spool_db.PAGE_BYTES
FRAME = 24 + PAGE
LOG_HEAD = 32
SECTOR = 4096

Files = dict[str, bytes]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that is taken in every few commits, and no large reserve to be made at each opening."""
    monkeypatch.setattr(spool_db, "LOG_BYTES", 8 * PAGE)
    monkeypatch.setattr(disk, "RESERVE", 4096)


def memory() -> Path:
    return Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))


def snapshot(directory: Path) -> Files:
    names = ("lock", "spool.db", "spool.db-wal")
    return {name: (directory / name).read_bytes() for name in names if (directory / name).exists()}


def restore(files: Files, directory: Path) -> Path:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    for name, content in files.items():
        (directory / name).write_bytes(content)
    return directory


def state(spool: Spool) -> dict[str, list[Any]]:
    """Everything in every table."""
    with spool.transaction() as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        return {table: db.execute(f"SELECT * FROM {table}").fetchall() for table in sorted(tables)}


def overlay(old: bytes, new: bytes, pick: Callable[[int], bool], first: int, size: int) -> bytes:
    """`old` with those pieces of `new` that `pick` says: number 0 has `first` bytes, the others `size`."""
    pieces: list[bytes] = []
    start = 0
    while start < len(new):
        end = min(len(new), start + size if pieces else first)
        pieces.append(new[start:end] if pick(len(pieces)) else old[start:end].ljust(end - start, b"\0"))
        start = end
    return b"".join(pieces) + old[start:]


def crashes(before: Files, after: Files, rng: random.Random) -> Iterator[Files]:
    """Some of what a crash may leave on disk between `before` and `after`."""
    old, new = before.get("spool.db-wal", b""), after.get("spool.db-wal", b"")
    frames = max(0, len(new) - LOG_HEAD) // FRAME
    for _ in range(2):
        last = rng.randint(0, frames)
        yield {**before, "spool.db-wal": overlay(old, new, last.__ge__, LOG_HEAD, FRAME)}
        # When the log begins anew, its head is flushed before anything else is written.
        torn = overlay(old, new, lambda n: n == 0 or rng.random() < 0.7, LOG_HEAD, SECTOR)
        yield {**before, "spool.db-wal": torn}
    if before["spool.db"] != after["spool.db"]:
        pages = overlay(before["spool.db"], after["spool.db"], lambda n: rng.random() < 0.5, PAGE, PAGE)
        yield {**after, "spool.db": pages}
    yield after


FEEDS = st.sampled_from(["t", "t.updates"])
SINKS = ("a", "b")


class CrashingSpool(RuleBasedStateMachine):
    """Wherever a crash falls within an operation, either all of it is there afterwards, or nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.directory, self.crashed = memory(), memory()
        self.spool = Spool(self.directory, "t", retain_bytes=300)
        self.spool.open_accounts(SINKS)
        self.ends: dict[str, tuple[int, int]] = {}
        self.epoch, self.time = 1, 1
        self.lanes: dict[tuple[str, str], Position] = {}
        self.rng = random.Random(0)
        self.before = snapshot(self.directory), state(self.spool)

    def make(self, feed: str, count: int, size: int) -> Block:
        epoch, offset = self.ends.get(feed, (0, 0))
        start = offset if epoch == self.epoch else 0
        self.ends[feed] = self.epoch, start + count
        self.time += count
        payload = self.rng.randbytes(size)
        return Block(feed, self.epoch, start, count, self.time - count, "avro", f"schema {count}", payload)

    def check(self) -> None:
        after = snapshot(self.directory), state(self.spool)
        for files in crashes(self.before[0], after[0], self.rng):
            spool = Spool(restore(files, self.crashed), "t")
            try:
                assert spool.damages() == []
                assert state(spool) in (self.before[1], after[1])
                for feed in self.ends:
                    list(spool.blocks(feed))  # each passes its checksum
            finally:
                spool.close()
        assert state(self.spool) == after[1]
        self.before = after

    @rule(feeds=st.lists(FEEDS, min_size=1, max_size=3), count=st.integers(1, 9), size=st.integers(0, 40_000))
    def append(self, feeds: list[str], count: int, size: int) -> None:
        self.spool.append([self.make(feed, count, size) for feed in feeds])
        self.check()

    @rule()
    def begin_epoch(self) -> None:
        self.epoch += 1

    @precondition(lambda self: self.ends)
    @rule(data=st.data(), sink=st.sampled_from(SINKS), reject=st.booleans())
    def acknowledge(self, data: st.DataObject, sink: str, reject: bool) -> None:
        feed = data.draw(st.sampled_from(sorted(self.ends)))
        start = self.lanes.get((sink, feed), Position())
        if (block := self.spool.next_block(feed, start)) is None:
            return
        self.lanes[sink, feed] = end = Position(block.epoch, block.end)
        behind = min(self.lanes.get((each, feed), Position()) for each in SINKS)
        outcome = Outcome(sink, block.id, block.time, (Rejected(block.offset, "why", b"f"),))
        self.spool.advance({(sink, feed): end}, {feed: behind}, [outcome] if reject else [])
        self.check()

    @precondition(lambda self: self.ends)
    @rule(size=st.integers(1, 50_000))
    def drop(self, size: int) -> None:
        spans = {
            feed: {sink: (at := self.lanes.get((sink, feed), Position()), at) for sink in SINKS}
            for feed in self.ends
        }
        self.spool.retention.drop(size, spans)
        self.check()

    @precondition(lambda self: self.ends)
    @rule(keep=st.booleans())
    def prune_or_retain(self, keep: bool) -> None:
        self.spool.retention.seconds = 1e12 if keep else 0.0
        self.spool.retention.prune()
        self.check()

    @precondition(lambda self: "t" in self.ends)
    @rule(frozen=st.booleans())
    def alter(self, frozen: bool) -> None:
        self.spool.hold("t", Position(*self.ends["t"]))
        self.check()
        held = self.make("t", 3, 30)
        self.spool.append([held])
        self.check()
        self.spool.resume("t")
        self.check()

    @rule()
    def reopen(self) -> None:
        self.spool.close()
        self.spool = Spool(self.directory, "t", retain_bytes=300)
        self.before = snapshot(self.directory), state(self.spool)

    def teardown(self) -> None:
        self.spool.close()
        shutil.rmtree(self.directory)
        shutil.rmtree(self.crashed, ignore_errors=True)


CrashingSpool.TestCase.settings = settings(max_examples=15, stateful_step_count=15, deadline=None)
test_a_crash_at_any_write = CrashingSpool.TestCase


def written(
    directory: Path, commits: int, seed: int, every: int = 4
) -> tuple[Files, list[dict[str, list[Any]]]]:
    """The files of a spool that was not closed, and its states after each commit, the first when it was empty.

    One commit of `every` so many is an acknowledgement; the others store a block.
    """
    rng = random.Random(seed)
    spool = Spool(directory, "t")
    states, time = [state(spool)], 1
    for n in range(commits):
        if n % every == every - 1:
            end = Position(1, n - n % 3)
            spool.advance({("a", "t"): end}, {"t": end})
        else:
            payload = rng.randbytes(rng.choice((10, 3000, 30_000)))
            spool.append([Block("t", 1, n, 1, time, "avro", "s", payload)])
            time += 1
        states.append(state(spool))
    files = snapshot(directory)
    spool.close()
    return files, states


def opened(files: Files, directory: Path) -> dict[str, list[Any]] | None:
    """What a spool holds that is opened on `files`; None if it set them aside, now or once they were read."""
    spool = Spool(restore(files, directory), "t")
    try:
        found = state(spool)
        list(spool.blocks("t"))
    except SpoolDamaged:
        spool.close()
        spool = Spool(directory, "t")
        found = state(spool)
        assert spool.damages()
    try:
        for damage in spool.damages():
            assert not found["block"]
            assert (directory / damage.file).exists()
        spool.append([Block("t", 10**15, 0, 1, 10**15, "avro", "s", b"goes on")])
        return None if spool.damages() else found
    finally:
        spool.close()


@pytest.mark.parametrize("seed", range(2))
def test_a_truncated_file_opens_with_a_prefix_or_is_set_aside(tmp_path: Path, seed: int) -> None:
    files, states = written(tmp_path / "written", 26, seed)
    assert opened(files, tmp_path / "again") == states[-1]
    rng = random.Random(seed)
    outcomes = set()
    for name, first, step in (("spool.db", 0, PAGE), ("spool.db-wal", LOG_HEAD, FRAME)):
        whole = files[name]
        assert len(whole) > 6 * step
        cuts = {*range(first, len(whole), step), *rng.sample(range(len(whole)), 40), 0}
        for cut in sorted(cuts):
            found = opened({**files, name: whole[:cut]}, tmp_path / "cut")
            assert found is None or found in states, (name, cut)
            outcomes.add((name, found is None))
    assert ("spool.db", True) in outcomes
    assert ("spool.db-wal", False) in outcomes


def test_a_flipped_byte_never_gives_a_wrong_row(tmp_path: Path) -> None:
    """It is noticed at the opening, or when the block is read, or it was in no block."""
    files, _ = written(tmp_path / "written", 26, 0, every=100)
    spool = Spool(restore(files, tmp_path / "good"))
    good = list(spool.blocks("t"))
    spool.close()
    whole = (tmp_path / "good" / "spool.db").read_bytes()
    files = {"lock": files["lock"], "spool.db": whole}
    rng = random.Random(0)
    noticed = 0
    for _ in range(120):
        at = rng.randrange(len(whole))
        flipped = bytearray(whole)
        flipped[at] ^= 1 << rng.randrange(8)
        spool = Spool(restore({**files, "spool.db": bytes(flipped)}, tmp_path / "flipped"))
        try:
            found = list(spool.blocks("t"))
            if spool.damages():
                noticed += 1
            else:
                assert found == good
        except SpoolDamaged:
            spool.close()
            spool = Spool(tmp_path / "flipped")
            assert len(spool.damages()) == 1
            noticed += 1
        finally:
            spool.close()
    assert noticed > 30


def test_text_that_is_none_is_damage_too(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append([Block("t", 1, 0, 1, 1, "avro", "s", b"x")])
    with spool.transaction() as db:
        db.execute("UPDATE block SET format = CAST(x'ff61' AS TEXT)")
    with pytest.raises(SpoolDamaged, match="Could not decode to UTF-8"):
        spool.next_block("t", Position())
    spool.close()
    spool = Spool(tmp_path)
    assert [damage.why.split(" column")[0] for damage in spool.damages()] == ["Could not decode to UTF-8"]
    spool.close()
