"""The disk under a spool: which file systems it refuses, and the reserve."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.errors import SpoolError
from actors.monitor import disk, spool_db
from actors.monitor.disk import Reserve, network_file_system
from actors.monitor.spool import Spool


def mounts(tmp_path: Path, *lines: str) -> Path:
    (tmp_path / "mounts").write_text("".join(f"x {line} rw 0 0\n" for line in ("/ ext4", *lines)))
    return tmp_path / "mounts"


@pytest.mark.parametrize(
    "kind", ["nfs", "nfs4", "cifs", "fuse.sshfs", "9p", "lustre", "ceph", "fuse.glusterfs"]
)
def test_a_network_file_system_is_known_by_its_mount(tmp_path: Path, kind: str) -> None:
    share = tmp_path / "a share"
    table = mounts(tmp_path, f"{str(share).replace(' ', chr(92) + '040')} {kind}", f"{share}2 tmpfs")
    assert network_file_system(share / "deep" / "below", table) == kind
    assert network_file_system(Path(f"{share}2"), table) is None
    assert network_file_system(tmp_path, table) is None


def test_the_mount_that_is_on_top_counts(tmp_path: Path) -> None:
    assert network_file_system(tmp_path, mounts(tmp_path, f"{tmp_path} nfs", f"{tmp_path} ext4")) is None
    (tmp_path / "link").symlink_to(tmp_path / "share")
    table = mounts(tmp_path, f"{tmp_path} ext4", f"{tmp_path}/share nfs4")
    assert network_file_system(tmp_path / "link" / "spool", table) == "nfs4"


def test_where_nobody_can_say_nothing_is_refused(tmp_path: Path) -> None:
    assert network_file_system(tmp_path, tmp_path / "no such file") is None
    assert network_file_system(tmp_path) is None


def test_a_spool_on_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_db, "network_file_system", lambda path: "nfs4")
    with pytest.raises(
        SpoolError, match=r"is on a network file system \(nfs4\).*set spool.path to a folder on a local"
    ):
        Spool(tmp_path)


def test_the_reserve_has_its_bytes_or_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reserve = Reserve(tmp_path)
    assert not reserve.there
    for _ in range(2):
        assert reserve.make()
        assert (tmp_path / "reserve").stat().st_blocks * 512 >= disk.RESERVE
    reserve.give_back()
    reserve.give_back()
    monkeypatch.setattr(disk, "RESERVE", 1 << 60)
    assert not reserve.make()
    assert not (tmp_path / "reserve").exists()
