"""Several tables of one process in one directory: one database, common commits, and each sees only its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.batch import Rejected
from actors.block import Block
from actors.errors import SpoolError, SpoolInUse
from actors.monitor.accounts import Outcome
from actors.monitor.spool import Position, Spool

TABLES = [f"t{n}" for n in range(8)]


@pytest.fixture
def spools(tmp_path: Path) -> Iterator[dict[str, Spool]]:
    spools = {table: Spool(tmp_path, table) for table in TABLES}
    yield spools
    for spool in spools.values():
        spool.close()


def block(feed: str, n: int, size: int = 10) -> Block:
    return Block(feed, 1, n, 1, n + 1, "avro", f"schema of {feed}", feed.encode() * size)


def test_each_sees_only_what_is_its_own(spools: dict[str, Spool], tmp_path: Path) -> None:
    for number, (table, spool) in enumerate(spools.items()):
        spool.append([block(table, n) for n in range(number + 1)])
        spool.append([block(f"{table}.changes", 0)])
        spool.set_topics([f"topic of {table}"])
        spool.permit(block(table, 0).id)
        spool.join(["a"])
        dead = [Outcome("a", block(table, 0).id, 1, (Rejected(0, "why", b"f"),))]
        spool.advance({("a", table): Position(1, 1)}, {}, dead)
    for _ in range(2):
        for number, (table, spool) in enumerate(spools.items()):
            assert spool.feeds() == [table, f"{table}.changes"]
            assert list(spool.blocks(table)) == [block(table, n) for n in range(number + 1)]
            assert spool.bytes == sum(len(b.payload) for f in spool.feeds() for b in spool.blocks(f))
            assert spool.topics() == [f"topic of {table}"]
            assert spool.permits() == {block(table, 0).id}
            assert spool.dead_letters() == 1
            assert [letter.feed for letter in spool.letters.list(100)[1]] == [table]
            spool.close()
        for table in TABLES:
            spools[table] = Spool(tmp_path, table)
    assert spools["t1"].letters.begin() == {"t1": (1, 1)}
    assert [list(spool.letters.runs()) for spool in spools.values()] == [[], ["t1"], *[[]] * 6]
    spools["t1"].set_topics([])
    assert spools["t2"].topics() == ["topic of t2"]
    spools["t3"].retention.delivered = None  # type: ignore[assignment,method-assign]  # not asked
    spools["t2"].advance({("a", "t2"): Position(1, 9)}, {"t2": Position(1, 9)})
    assert [spool.bytes > 0 for spool in spools.values()] == [True] * 8
    assert list(spools["t2"].blocks("t2")) == []


def test_a_table_is_held_once_and_the_directory_as_long_as_any_is(tmp_path: Path) -> None:
    one, two = Spool(tmp_path, "t1"), Spool(tmp_path, "t2")
    for table in ("t1", None):
        with pytest.raises(SpoolInUse, match="is held by another monitor of this process"):
            Spool(tmp_path, table)
    one.close()
    one.close()
    with pytest.raises(SpoolError, match="is closed"):
        one.append([block("t1", 0)])  # by a thread that is late
    again = Spool(tmp_path, "t1")
    two.append([block("t2", 0)])
    two.close()
    again.append([block("t1", 0)])
    again.close()
    whole = Spool(tmp_path)
    assert whole.feeds() == ["t1", "t2"]
    with pytest.raises(SpoolInUse):
        Spool(tmp_path, "t1")
    whole.close()


def test_threads_commit_together_and_one_failure_is_nobody_elses(spools: dict[str, Spool]) -> None:
    """Whoever commits takes along what the others have queued: fewer commits than appends."""
    commits = 0
    database = spools["t0"]._database
    begun = database._commit_queued

    def counted() -> None:
        nonlocal commits
        commits += 1
        begun()

    database._commit_queued = counted  # type: ignore[method-assign]
    failures: list[str] = []

    def work(table: str) -> None:
        spool = spools[table]
        for n in range(40):
            spool.append([block(table, n)])
            assert spool.next_block(table, Position(1, n)) == block(table, n)  # durable, and to be read
            try:
                spool.append([block(table, n)])
            except Exception as error:
                failures.append(str(error))
            if n % 10 == 9:
                spool.advance({("a", table): Position(1, n - 5)}, {table: Position(1, n - 5)})

    with database._mutex:  # so that they meet
        threads = [threading.Thread(target=work, args=(table,)) for table in TABLES]
        for thread in threads:
            thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert len(failures) == 40 * len(TABLES)
    assert all("UNIQUE" in failure for failure in failures)
    assert commits < 84 * len(TABLES)
    for table, spool in spools.items():
        assert list(spool.blocks(table)) == [block(table, n) for n in range(34, 40)]
        assert spool.cursor("a", table) == Position(1, 34)


def test_what_else_belongs_to_rows_is_in_their_transaction(spools: dict[str, Spool]) -> None:
    spool = spools["t0"]
    spool.append([block("t0", 0)], also=lambda db: db.execute("CREATE TABLE state (n)"))

    def fail(n: int) -> None:
        def also(db: object) -> None:
            db.execute("INSERT INTO state VALUES (?)", (n,))  # type: ignore[attr-defined]
            if n == 2:
                raise ZeroDivisionError

        spool.append([block("t0", n)], also)

    fail(1)
    with pytest.raises(ZeroDivisionError):
        fail(2)
    assert [each.offset for each in spool.blocks("t0")] == [0, 1]
    with spool.transaction() as db:
        assert db.execute("SELECT n FROM state").fetchall() == [(1,)]
