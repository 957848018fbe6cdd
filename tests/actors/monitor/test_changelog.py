"""A copy made of a spool's changes holds the same; blocks wait for it while it is required."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.batch import Rejected
from actors.block import Block
from actors.monitor.accounts import Outcome
from actors.monitor.changelog import ChangeLog
from actors.monitor.spool import Position, Spool


def block(offset: int, count: int = 2, feed: str = "t") -> Block:
    return Block(feed, 1, offset, count, 10 * offset, "avro", '{"type_id": "1"}', b"payload %d" % offset)


@pytest.fixture
def log() -> ChangeLog:
    return ChangeLog()


@pytest.fixture
def spool(tmp_path: Path, log: ChangeLog) -> Iterator[Spool]:
    spool = Spool(tmp_path / "spool", "t", log=log)
    yield spool
    spool.close()


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[Spool]:
    copy = Spool(tmp_path / "copy", "t")
    yield copy
    copy.close()


def contents(spool: Spool) -> dict[str, list[object]]:
    """Every row of every table."""
    with sqlite3.connect(spool.directory / "spool.db") as db:
        names = db.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name").fetchall()
        return {name: db.execute(f"SELECT * FROM {name}").fetchall() for (name,) in names}


def work(spool: Spool, start: int) -> None:
    """Some of all that a monitor does."""
    spool.join(["a"])
    spool.set_topics([f"topic {start}"])
    spool.append([block(start), block(start + 2), block(start, feed="t.updates")])
    spool.hold("t", Position(1, start + 2))
    spool.see("t", "{}", ["x"])
    spool.permit(block(start).id)
    outcome = Outcome("a", block(start).id, 5, (Rejected(start + 1, "no", b"x"),))
    spool.advance({("a", "t"): Position(1, start + 2)}, {"t": Position(1, start + 2)}, [outcome])
    news = block(start, 1, "t.changes")
    spool.settle("t", [block(start + 2)], [], Position(1, start + 4), None, ("{}", None), news)


def test_a_copy_made_at_any_time_holds_the_same(spool: Spool, copy: Spool, log: ChangeLog) -> None:
    copy.append([block(100, feed="t.deletes")])  # of another time: it goes
    work(spool, 0)
    changes = spool.snapshot(log.begin)
    first = [next(changes)]
    work(spool, 10)  # while it is being copied
    copy.apply([*first, *changes])
    assert contents(copy) != contents(spool)
    copy.apply(log.take(1 << 20, 0.0)[0])
    assert contents(copy) == contents(spool)
    work(spool, 20)
    taken, _ = log.take(1, 0.0)
    copy.apply(taken)  # one transaction
    copy.apply(log.take(1 << 20, 0.0)[0])
    assert contents(copy) == contents(spool)
    directory = copy.directory
    copy.close()
    opened = Spool(directory, "t")  # and it is found to be whole
    assert opened.damages() == []
    assert [each.offset for each in opened.blocks("t")] == [each.offset for each in spool.blocks("t")]
    opened.close()


def test_what_fails_is_not_copied(spool: Spool, copy: Spool, log: ChangeLog) -> None:
    copy.apply(spool.snapshot(log.begin))
    spool.append([block(0)])
    with pytest.raises(sqlite3.IntegrityError):
        spool.append([block(2), block(0)])
    spool.append([block(4)])
    copy.apply(log.take(1 << 20, 0.0)[0])
    assert contents(copy) == contents(spool)


def test_blocks_wait_only_while_a_copy_is_required(spool: Spool, log: ChangeLog) -> None:
    list(spool.snapshot(log.begin))
    spool.append([block(0)])
    assert spool.next_block("t", Position()) == block(0)
    goal = log.require()
    assert spool.next_block("t", Position()) is None
    spool.append([block(2)])
    spool.append([block(4)])
    with pytest.raises(sqlite3.IntegrityError):
        spool.append([block(6), block(0)])
    _, number = log.take(1, 0.0)
    assert (number, log.done(number)) == (goal, {"t"})
    assert spool.next_block("t", Position()) == block(0)
    assert spool.next_block("t", Position(1, 2)) is None
    _, number = log.take(1, 0.0)
    assert log.done(number) == {"t"}
    assert spool.next_block("t", Position(1, 2)) == block(2)
    assert spool.next_block("t", Position(1, 4)) is None
    log.end()
    assert spool.next_block("t", Position(1, 4)) == block(4)
    spool.append([block(6)])
    assert spool.next_block("t", Position(1, 6)) == block(6)


def test_a_copy_that_is_too_slow_is_given_up(tmp_path: Path) -> None:
    log = ChangeLog(max_bytes=5000)
    spool = Spool(tmp_path / "spool", "t", log=log)
    log.begin()
    for offset in range(0, 40, 2):
        spool.append([block(offset)])
    assert log.overflowed
    assert log.take(1 << 20, 0.0)[0] == []
    log.begin()
    assert not log.overflowed
    spool.close()


def test_a_change_ends_the_wait_for_one(spool: Spool, log: ChangeLog) -> None:
    log.begin()
    timer = threading.Timer(0.05, lambda: spool.append([block(0)]))
    timer.start()
    assert log.take(1 << 20, 10.0)[0]
    timer.join()


def test_a_snapshot_leaves_no_connection(spool: Spool, log: ChangeLog) -> None:
    before = len(spool._database._connections)
    list(spool.snapshot(log.begin))
    assert len(spool._database._connections) == before
