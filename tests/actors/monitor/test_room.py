"""The bound of a spool and the floor of its disk: what pauses, what gives way, and when there is room again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.block import Block
from actors.monitor import room as module
from actors.monitor.room import Room
from actors.monitor.spool import Position, Spool
from tests.actors.monitor.fakes import monitor_settings

Make = Callable[..., Room]


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = Spool(tmp_path / "spool", "t", retain=1e10)
    spool.append([Block("t", 1, n, 1, n + 1, "avro", "s", b"x" * 100) for n in range(10)])
    yield spool
    spool.close()


def deliver(spool: Spool, number: int) -> None:
    spool.advance({("a", "t"): Position(1, number)}, {"t": Position(1, number)})


def make(spool: Spool, **changes: Any) -> tuple[Room, list[int]]:
    """A room and what it asked to be dropped; it gets it."""
    asked: list[int] = []

    def drop(size: int) -> int:
        asked.append(size)
        return spool.retention.drop(size, {"t": {"a": (Position(1, 5), Position(1, 5))}})

    return Room(monitor_settings(spool.directory, **changes), spool, drop), asked


def test_nothing_is_deleted_while_there_is_room(spool: Spool) -> None:
    deliver(spool, 10)
    room, _ = make(spool, max_bytes=1000)
    assert room.full() is None
    assert spool.bytes == 1000


def test_what_is_only_retained_gives_way_before_anything_pauses(spool: Spool) -> None:
    deliver(spool, 5)
    room, asked = make(spool, max_bytes=850, when_full="drop_oldest")
    assert room.full() is None
    assert (spool.bytes, asked) == (800, [])


def test_pause_until_below_four_fifths(spool: Spool) -> None:
    room, asked = make(spool, max_bytes=950)
    assert room.full() == "the spool holds 1,000 bytes, its bound is 950"
    for delivered, regained in ((1, False), (2, False), (3, True)):
        deliver(spool, delivered)
        assert room.regained() == regained
    assert (spool.bytes, asked) == (700, [])


def test_drop_oldest_goes_on_with_what_fits(spool: Spool) -> None:
    deliver(spool, 2)
    room, asked = make(spool, max_bytes=550, when_full="drop_oldest")
    assert room.full() is None
    assert (spool.bytes, asked) == (500, [250])  # 200 bytes were only retained


def test_what_cannot_be_dropped_pauses(spool: Spool) -> None:
    room = Room(
        monitor_settings(spool.directory, max_bytes=550, when_full="drop_oldest"), spool, lambda size: 0
    )
    assert room.full() == "the spool holds 1,000 bytes, its bound is 550"
    slow = Room(monitor_settings(spool.directory, max_bytes=550, when_full="drop_oldest"), spool, _too_slow)
    assert slow.full() == "the spool holds 1,000 bytes, its bound is 550"


def _too_slow(size: int) -> int:
    raise TimeoutError


def test_the_floor_counts_what_is_free_inside_the_file(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    spool.append([Block("t", 1, 10, 1, 11, "avro", "s", b"x" * (1 << 20))])
    inside = spool.free_inside
    free = 100 << 20
    monkeypatch.setattr(module, "free_bytes", lambda path: free)
    room, _ = make(spool, min_free=free + inside + (1 << 19))
    assert "free, the floor is" in str(room.full())
    deliver(spool, 11)
    assert not room.regained()  # it is above the floor, but not by a fifth
    free += 30 << 20
    assert room.regained()
    assert room.full() is None
