"""Dead letters: what is kept of a record, and how a replay hands it on, also over a crash."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import msgpack
import pytest

from actors.batch import Rejected
from actors.block import Block, BlockId
from actors.monitor import letters
from actors.monitor.accounts import Outcome
from actors.monitor.spool import Position, Spool

EARLIEST = Position()


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = Spool(tmp_path / "spool")
    yield spool
    spool.close()


def block(offset: int, time: int, count: int = 10, feed: str = "t", format: str = "avro") -> Block:
    payload = msgpack.packb([frame(n) for n in range(offset, offset + count)])
    return Block(feed, 1, offset, count, time, format, '{"a": 1}', payload)


def frame(offset: int) -> bytes:
    return b"frame %d" % offset


def reject(spool: Spool, held: Block, *offsets: int) -> None:
    spool.append([held])
    rejects = tuple(Rejected(n, f"bad {n}", frame(n)) for n in offsets)
    end = Position(held.epoch, held.end)
    spool.advance({("a", held.feed): end}, {held.feed: end}, [Outcome("a", held.id, held.time, rejects)])


def test_a_letter_has_all_that_its_record_had(spool: Spool) -> None:
    before = time.time_ns() // 100
    reject(spool, block(10, 1000), 13)
    letter = spool.letters.get(BlockId("t", 1, 13))
    assert letter is not None
    assert before <= letter.failed <= time.time_ns() // 100
    expected = ("t", 1, 13, 1003, "avro", '{"a": 1}', "bad 13", b"frame 13", letter.failed, "waiting")
    assert letter == letters.DeadLetter(*expected)
    assert spool.letters.get(BlockId("t", 1, 12)) is None
    assert spool.letters.list(10) == ({"waiting": 1}, [letters.DeadLetter(*expected[:7], b"", *expected[8:])])


def test_a_replay_makes_blocks_of_what_was_consecutive(spool: Spool) -> None:
    reject(spool, block(0, 1000), 0, 1, 2, 5, 9)
    reject(spool, block(10, 1010), 10, 11)
    reject(spool, block(20, 5000), 20)
    assert spool.letters.begin() == {"t": (1, 8)}
    found, position = [], EARLIEST
    while (each := spool.letters.next_block("t", 1, position)) is not None:
        found.append((each.offset, each.time, msgpack.unpackb(each.payload)))
        assert (each.feed, each.epoch, each.count) == ("t", 1, len(found[-1][2]))
        position = Position(1, each.end)
    assert found == [
        (0, 1000, [frame(0), frame(1), frame(2)]),
        (5, 1005, [frame(5)]),
        (9, 1009, [frame(9), frame(10), frame(11)]),
        (20, 5000, [frame(20)]),
    ]
    assert spool.letters.pending("t", 1, Position(1, 9)) == (4, sum(len(frame(n)) for n in (9, 10, 11, 20)))


def test_blocks_of_a_replay_are_bounded(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    reject(spool, block(0, 0), *range(10))
    spool.letters.begin()
    monkeypatch.setattr(letters, "BLOCK_RECORDS", 4)
    assert spool.letters.next_block("t", 1, EARLIEST).count == 4  # type: ignore[union-attr]
    monkeypatch.setattr(letters, "BLOCK_BYTES", 14)
    assert spool.letters.next_block("t", 1, EARLIEST).count == 3  # type: ignore[union-attr]


def test_another_format_stays_whole(spool: Spool) -> None:
    held = block(0, 0, count=2, format="arrow")
    spool.append([held])
    rejects = (Rejected(0, "bad", held.payload), Rejected(1, "bad", b""))
    spool.advance({}, {"t": Position(1, 2)}, [Outcome("a", held.id, 0, rejects)])
    reject(spool, block(2, 2, count=1, format="arrow"), 2)
    spool.letters.begin()
    assert spool.letters.next_block("t", 1, EARLIEST) == held


def test_what_fails_again_waits_with_the_new_reason_and_the_rest_is_done(spool: Spool) -> None:
    reject(spool, block(0, 0), 1, 2, 3, 8)
    named = [BlockId("t", 1, 2), BlockId("t", 1, 3), BlockId("t", 1, 8), BlockId("t", 1, 99)]
    assert spool.letters.begin(named) == {"t": (1, 3)}
    assert spool.letters.begin(named) == {}
    assert not spool.letters.settle("t", 1, Position(1, 4), [(1, Rejected(3, "worse", frame(3)))])
    again = spool.letters.get(BlockId("t", 1, 3))
    assert again is not None
    assert (again.state, again.reason) == ("waiting", "worse")
    assert spool.letters.outcome("t", 1) == {"done": 1, "waiting": 1, "replaying": 1}
    assert spool.dead_letters() == 3
    assert spool.letters.runs() == {"t": 1}
    # What waits again belongs to the next run, which begins after the first.
    assert spool.letters.begin() == {"t": (2, 2)}
    assert spool.letters.runs() == {"t": 1}
    assert spool.letters.settle("t", 1, Position(1, 9), [])
    assert spool.letters.runs() == {"t": 2}
    assert spool.letters.list(1)[0] == {"done": 2, "replaying": 2}
    assert [letter.offset for letter in spool.letters.list(9)[1]] == [1, 3, 2, 8]


def test_a_replay_survives_a_crash(tmp_path: Path) -> None:
    first = Spool(tmp_path)
    reject(first, block(0, 0), 1, 2, 8)
    first.letters.begin()
    first.letters.settle("t", 1, Position(1, 2), [])
    first.close()
    second = Spool(tmp_path)
    assert second.letters.runs() == {"t": 1}
    assert second.letters.next_block("t", 1, EARLIEST).offset == 2  # type: ignore[union-attr]
    second.close()


def test_a_letter_that_was_delivered_does_not_come_back(spool: Spool) -> None:
    """A slow sink reports the same reject after the replay."""
    held, rejects = block(0, 0), (Rejected(1, "bad", frame(1)),)
    spool.append([held])
    spool.advance({("a", "t"): Position(1, 10)}, {}, [Outcome("a", held.id, 0, rejects)])
    spool.letters.begin()
    spool.letters.settle("t", 1, Position(1, 10), [])
    spool.advance({}, {"t": Position(1, 10)}, [Outcome("b", held.id, 0, rejects)])
    assert spool.dead_letters() == 0


def test_permits_live_as_long_as_their_block(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append([block(0, 0), block(10, 10)])
    for offset in (0, 10, 10):
        spool.permit(BlockId("t", 1, offset))
    spool.advance({}, {"t": Position(1, 10)}, ())
    spool.close()
    spool = Spool(tmp_path)
    assert spool.permits() == {BlockId("t", 1, 10)}
    spool.close()


def test_the_index_serves_what_is_asked_while_data_flows(spool: Spool) -> None:
    with spool.transaction() as db:
        for query in (
            "SELECT count(*) FROM dead_letter WHERE state <> 'done'",
            f"SELECT offset FROM dead_letter WHERE {letters._OF_RUN} ORDER BY epoch, offset".replace(
                "?", "1"
            ),
        ):
            plan = str(db.execute(f"EXPLAIN QUERY PLAN {query}").fetchall())
            assert "dead_letter_open" in plan
            assert "TEMP B-TREE" not in plan
