"""What the spool keeps when every sink has it, going back to it, and what goes when there is no room."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from actors.block import TICKS_PER_SECOND, Block
from actors.errors import NotRetained
from actors.monitor import retention
from actors.monitor.spool import Position, Spool

NOW = 0
MINUTE = 60 * TICKS_PER_SECOND


def block(n: int, feed: str = "t", age: float = 0, size: int = 10) -> Block:
    """Block number `n` of ten records, received so many minutes ago."""
    return Block(feed, 1, n * 10, 10, NOW - int(age * MINUTE), "avro", "s", b"x" * size)


def after(n: int) -> Position:
    """Behind block `n`."""
    return Position(1, n * 10 + 10)


@pytest.fixture(autouse=True)
def now() -> None:
    """Ages are compared with the clock, so they count from the test, not from its import."""
    global NOW
    NOW = int(time.time() * TICKS_PER_SECOND)


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = Spool(tmp_path / "spool", "t", retain=600.0)
    yield spool
    spool.close()


def numbers(spool: Spool, feed: str = "t") -> list[int]:
    return [each.offset // 10 for each in spool.blocks(feed)]


def deliver(spool: Spool, n: int, sink: str = "a", feed: str = "t") -> None:
    spool.advance({(sink, feed): after(n)}, {feed: after(n)})


def test_delivered_blocks_stay_until_they_are_old(spool: Spool) -> None:
    spool.append([block(0, age=20), block(1, age=11), block(2, age=9), block(3)])
    deliver(spool, 1)
    spool.retention.prune()
    assert numbers(spool) == [2, 3]
    deliver(spool, 3)
    spool.retention.prune()
    assert numbers(spool) == [2, 3]
    spool.retention.seconds = 60.0
    spool.retention.prune()
    assert numbers(spool) == [3]


def test_undelivered_blocks_stay_however_old_and_large(spool: Spool) -> None:
    spool.retention.bytes = 0
    spool.append([block(n, age=100) for n in range(4)])
    deliver(spool, 1)
    spool.retention.prune()
    assert numbers(spool) == [2, 3]


def test_retained_blocks_go_earlier_when_the_spool_is_large(spool: Spool) -> None:
    spool.append([block(n, age=5, size=100) for n in range(4)])
    spool.append([block(n, "t.deletes", age=6, size=100) for n in range(4)])
    deliver(spool, 2)
    deliver(spool, 2, feed="t.deletes")
    spool.retention.bytes = 450
    spool.retention.prune()
    assert (numbers(spool), numbers(spool, "t.deletes")) == ([1, 2, 3], [3])  # the oldest of both feeds
    spool.retention.prune(0)
    assert (numbers(spool), numbers(spool, "t.deletes")) == ([3], [3])


def test_at_most_once_a_second_while_data_flows(spool: Spool) -> None:
    spool.append([block(n, age=20) for n in range(4)])
    deliver(spool, 0)
    assert numbers(spool) == [1, 2, 3]
    deliver(spool, 1)
    assert numbers(spool) == [1, 2, 3]
    spool.retention._pruned_at -= 1.0
    deliver(spool, 1)
    assert numbers(spool) == [2, 3]


def test_a_long_backlog_is_deleted_in_small_transactions(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH", 7)
    spool.append([block(n) for n in range(100)])
    deleted: list[int] = []

    def note(db: sqlite3.Connection, blocks: Sequence[Block]) -> None:
        left = db.execute("SELECT count(*) FROM block").fetchone()[0]  # the others' transactions
        deleted.append(left)

    spool.retention.before = note
    spool.retention.seconds = 0.0
    deliver(spool, 99)
    assert numbers(spool) == []
    assert sorted(set(deleted), reverse=True) == list(range(100, 0, -7))


def test_what_goes_is_shown_first_in_the_same_transaction(spool: Spool) -> None:
    spool.append([block(n, age=20 - n) for n in range(3)])
    with spool.transaction() as db:
        db.execute("CREATE TABLE greatest (offset INTEGER)")
    shown: list[Block] = []

    def note(db: sqlite3.Connection, blocks: Sequence[Block]) -> None:
        shown.extend(blocks)
        db.executemany("INSERT INTO greatest VALUES (?)", [(each.offset,) for each in blocks])
        if len(shown) == 2:
            raise ZeroDivisionError

    spool.retention.before = note
    with pytest.raises(ZeroDivisionError):
        deliver(spool, 1)
    assert numbers(spool) == [0, 1, 2]
    assert spool.cursor("a", "t") == Position()
    spool.retention.prune()
    deliver(spool, 1)
    assert shown[2:] == [block(0, age=20), block(1, age=19)]
    with spool.transaction() as db:
        assert db.execute("SELECT offset FROM greatest").fetchall() == [(0,), (10,)]


# -- rewind -----------------------------------------------------------------------------------------------------


def test_a_sink_goes_back_to_the_block_that_holds_the_time(spool: Spool, tmp_path: Path) -> None:
    spool.append([block(n, age=9 - n) for n in range(5)])
    spool.append([block(n, "t.deletes", age=9 - n) for n in range(5)])
    for sink in ("a", "b"):
        deliver(spool, 4, sink)
    deliver(spool, 1, feed="t.deletes")
    within = block(2, age=7).time + 3
    rewound = spool.retention.rewind("a", within)
    assert rewound == {"t": (after(1), 30)}  # what is ahead of the other feed's cursor is due anyway
    assert (spool.cursor("a", "t"), spool.cursor("b", "t")) == (after(1), after(4))
    assert (spool.rewound("a", "t"), spool.rewound("b", "t")) == (True, False)
    spool.retention.prune(0)
    assert numbers(spool) == [2, 3, 4]  # due again
    spool.close()
    spool = Spool(tmp_path / "spool", "t")
    assert spool.rewound("a", "t")
    spool.advance({("a", "t"): after(1)}, {})  # a dispatcher starts
    assert spool.rewound("a", "t")
    spool.advance({("a", "t"): after(2)}, {})
    assert not spool.rewound("a", "t")
    spool.close()


def test_going_back_further_than_what_is_kept_says_what_is(spool: Spool) -> None:
    spool.append([block(0, age=20), block(1, age=11), block(2, age=9)])
    assert spool.retention.rewind("a", 0) == {}  # it has had nothing yet
    deliver(spool, 2)
    assert spool.retention.rewind("a", block(1, age=11).time + 10) == {"t": (after(1), 10)}
    with pytest.raises(NotRetained, match=r"has all that was received since 20.*name a later time"):
        spool.retention.rewind("a", block(1, age=11).time)


# -- new sinks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("newest", [False, True])
def test_a_new_sink_begins_at_the_oldest_or_behind_the_newest(spool: Spool, newest: bool) -> None:
    spool.join(["a"], newest)
    spool.append([block(0, age=5), block(1, age=5)])
    deliver(spool, 1)
    spool.join(["a", "b"], newest)
    assert spool.cursor("b", "t") == (after(1) if newest else Position())
    spool.append([block(0, "t.deletes")])
    spool.join(["a", "b"], newest)  # not new any more: it misses nothing of a feed that began meanwhile
    assert spool.cursor("b", "t.deletes") == Position()


# -- no room ----------------------------------------------------------------------------------------------------


def dropped(spool: Spool) -> dict[tuple[str, str], int]:
    return {(each.feed, each.sink): each.dropped for each in spool.accounts() if each.dropped}


def test_the_oldest_blocks_that_are_not_in_flight_are_dropped_and_counted(
    spool: Spool, tmp_path: Path
) -> None:
    spool.open_accounts(["a", "b"])
    spool.append([block(n, age=9 - n) for n in range(6)])
    spool.append([block(0, "t.deletes", age=8.5)])
    at = {n: Position(1, n * 10) for n in range(7)}
    lanes = {
        "t": {"a": (at[3], at[4]), "b": (at[1], at[2])},  # to a, block 3 is in flight; to b, block 1
        "t.deletes": {"a": (Position(), Position())},
    }
    assert spool.retention.drop(35, lanes) == 40
    assert (numbers(spool), numbers(spool, "t.deletes")) == ([1, 3, 5], [])
    assert dropped(spool) == {("t", "a"): 10, ("t", "b"): 20, ("t.deletes", "a"): 10}
    assert spool.retention.drop(1000, lanes) == 10
    assert spool.retention.drop(1000, lanes) == 0
    assert numbers(spool) == [1, 3]
    spool.close()
    spool = Spool(tmp_path / "spool", "t")
    assert dropped(spool) == {("t", "a"): 20, ("t", "b"): 30, ("t.deletes", "a"): 10}
    spool.close()


def test_the_disk_gets_back_what_a_backlog_took(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tables are on that disk too, and paused while it is below the floor."""
    monkeypatch.setattr(retention, "SPARE", 4 << 20)
    spool.append([block(n, age=20, size=1 << 20) for n in range(30)])
    spool.advance({("a", "t"): after(28)}, {"t": after(28)})
    spool.retention.tidy()
    assert (spool.directory / "spool.db").stat().st_size < 8 << 20
    assert list(spool.blocks("t")) == [block(29, age=20, size=1 << 20)]


# -- the log ----------------------------------------------------------------------------------------------------


def test_a_slow_reader_does_not_make_the_log_grow(spool: Spool) -> None:
    payload = b"x" * (1 << 20)
    spool.append([Block("t", 1, n, 1, NOW + n, "avro", "s", payload) for n in range(10)])
    reader = spool.blocks("t")
    for n in range(10, 60):
        if n % 10 == 0:
            next(reader)
        spool.append([Block("t", 1, n, 1, NOW + n, "avro", "s", payload)])
        assert (spool.directory / "spool.db-wal").stat().st_size < 20 << 20
