"""A spool on a disk that is really full: drained, it takes up again without anybody's help."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgpack
import pytest

from actors.block import Block
from actors.errors import NotAttached, SpoolFull
from actors.monitor import disk, receiver, room
from actors.monitor.grouping import BlockLimits
from actors.monitor.monitor import Monitor
from actors.monitor.spool import Position, Spool
from tests.actors.monitor.fakes import FakeSource, FakeStream, FakeTransport, monitor_settings, wait_for

MIB = 1 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 40 MB."""
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(path)]
    if subprocess.run(mount, capture_output=True, timeout=10, check=False).returncode:
        pytest.skip("mounting a file system is not permitted here")
    yield path
    subprocess.run(["umount", "-l", str(path)], timeout=10, check=True)


def fill(spool: Spool, number: int, size: int) -> int:
    """Append blocks from `number` on until the disk is full; returns the number of the first that was not stored."""
    while True:
        payload = number.to_bytes(8, "big") * (size // 8)
        try:
            spool.append([Block("t", 1, number, 1, number, "avro", "s", payload)])
        except SpoolFull:
            return number
        number += 1


@pytest.mark.parametrize("size", [30_000, 200_000, 3 * MIB])
def test_filled_drained_and_filled_again(small_disk: Path, size: int) -> None:
    spool = Spool(small_disk / "spool", "t")
    number = 0
    for _ in range(3):
        first, number = number, fill(spool, number, size)
        assert (number - first) * size > 14 * MIB
        stored = [block.offset for block in spool.blocks("t")]
        assert stored == list(range(first, number))
        for end in (first + (number - first) // 3, number):
            at = Position(1, end)
            spool.advance({("a", "t"): at}, {"t": at})
        wait_for(spool.room)
    spool.close()


def test_a_full_disk_can_be_opened_and_drained(small_disk: Path) -> None:
    spool = Spool(small_disk / "spool", "t")
    number = fill(spool, 0, MIB)
    spool.close()
    (small_disk / "other").write_bytes(b"x" * disk.free_bytes(small_disk))
    spool = Spool(small_disk / "spool", "t")
    assert [block.offset for block in spool.blocks("t")] == list(range(number))
    spool.advance({("a", "t"): Position(1, number)}, {"t": Position(1, number)})
    wait_for(spool.room)
    assert fill(spool, number, MIB) > number + 10
    spool.close()


def test_a_monitor_pauses_and_resumes_by_itself(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for where, name, value in ((receiver, "SLICE", 0.01), (room, "LOOK_AGAIN", 0.01)):
        monkeypatch.setattr(where, name, value)
    stream, transport = FakeStream(), FakeTransport()
    transport.down["a"] = NotAttached("down")
    settings = monitor_settings(small_disk / "spool", limits=BlockLimits(records=1, bytes=MIB, linger=0.01))
    monitor = Monitor(settings, transport, FakeSource(stream))
    monitor.start()
    frames = [bytes([n]) * MIB for n in range(60)]
    stream.put(*[("insert", [frame]) for frame in frames[:45]])
    wait_for(lambda: monitor.status()["state"] == "paused")
    assert "is full" in monitor.status()["problem"]
    transport.down.clear()
    wait_for(lambda: monitor.status()["state"] == "receiving")
    stream.put(*[("insert", [frame]) for frame in frames[45:]])

    def delivered() -> list[bytes]:
        return [msgpack.unpackb(b.payload)[0] for b in transport.in_order("a", "t")]

    wait_for(lambda: len(delivered()) == len(frames))
    assert delivered() == frames
    monitor.stop()
    transport.close()
