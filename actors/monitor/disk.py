"""The disk under a spool: whether it is a local one, how much room it has, and a reserve for when it has none."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

#: File systems on other machines: their locks and flushes are not what SQLite's log needs.
NETWORK = {
    *("nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "coda", "9p", "virtiofs"),
    *("lustre", "ceph", "glusterfs", "beegfs", "gpfs", "ocfs2", "gfs2", "orangefs", "pvfs2", "wekafs"),
    *(
        "fuse.sshfs",
        "fuse.glusterfs",
        "fuse.ceph",
        "fuse.ceph-fuse",
        "fuse.s3fs",
        "fuse.rclone",
        "fuse.goofys",
    ),
    *("fuse.gcsfuse", "fuse.blobfuse", "fuse.blobfuse2", "fuse.mount-s3", "fuse.juicefs", "fuse.davfs"),
}

#: Bytes of the reserve: what deleting a backlog and taking the log into the database need at most on a full disk.
RESERVE = 8 << 20


def network_file_system(path: Path, mounts: Path = Path("/proc/self/mounts")) -> str | None:
    """The type of the network file system that `path` is on; None if it is on a local one, or nobody can say."""
    try:
        lines = mounts.read_text(errors="surrogateescape").splitlines()
    except OSError:  # not Linux
        return None
    real = Path(os.path.realpath(path))
    found = ""
    longest = -1
    for _, point, kind, *_ in (line.split(" ") for line in lines):
        point = point.encode("utf-8", "surrogateescape").decode("unicode_escape")  # \040 is a space
        # Of two on one point the later one covers the earlier.
        if real.is_relative_to(point) and len(point) >= longest:
            longest, found = len(point), kind
    return found if found in NETWORK else None


def free_bytes(path: Path) -> int:
    """Bytes of the file system of `path` that may still be written."""
    return shutil.disk_usage(path).free


class Reserve:
    """A file of :data:`RESERVE` bytes that is given back when the disk is full, so that something can be deleted."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "reserve"

    @property
    def there(self) -> bool:
        """Whether it has its bytes."""
        try:
            return self._path.stat().st_size == RESERVE
        except FileNotFoundError:
            return False

    def make(self) -> bool:
        """Take the bytes, if they are to be had. Returns whether the reserve is there."""
        if self.there:
            return True
        try:
            with open(self._path, "wb") as file:
                os.posix_fallocate(file.fileno(), 0, RESERVE)
        except OSError:
            self.give_back()
            return False
        return True

    def give_back(self) -> None:
        """Let the disk have the bytes."""
        self._path.unlink(missing_ok=True)
