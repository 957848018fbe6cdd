"""Folders on a local file system: made durable, and exchanged in one step."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

# From <fcntl.h> and <linux/fs.h>.
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def make_folder(folder: Path) -> None:
    """Make a folder, and its place in the one above it, durable."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def exchange(one: Path, other: Path) -> None:
    """Let two folders take each other's place, in one step for whoever looks."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE):
        code = ctypes.get_errno()
        hint = "; this file system cannot exchange folders" if code in (errno.EINVAL, errno.ENOSYS) else ""
        raise OSError(code, os.strerror(code) + hint)
