"""The console sink: every event as a line of JSON, on the writer's standard output or in a file; for first steps.

Lines are the events that a Kronos sink stores: an insert has the row's columns, a count of updates or deletes is
``{"count": n}``, what happened to the table itself (altered, dropped) has that event's columns. ``@origin``,
``pipeline/feed/epoch/offset``, tells the feed: ``<table>``, ``<table>.updates``, ``<table>.deletes`` or
``<table>.changes``; of an event that somebody put, ``@stream`` tells the stream. A feed's lines are in order; feeds
alternate, whole payloads at a time.

A file is forced to disk before events count as delivered; after a crash the last of them may be there twice, and half
a line is cut off. Another process may truncate it, as log rotation does, and append whole lines; its lock is held by
this one, as two writers would cut off each other's. What standard output is connected to is not known, so there nothing
is promised. Under ``tablecast run`` it is the output of the writer's process, which Ray keeps in its logs.
"""

from __future__ import annotations

import fcntl
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

from actors.batch import Batch
from actors.writer.encode import encode_batch
from actors.writer.sinks.base import NotWritable, Payload
from actors.writer.sinks.folders import make_folder, sync_folder

#: Events per payload.
BATCH = 5000


class ConsoleSink:
    """Writes batches as lines.

    Args:
        pipeline: first part of every origin.
        path: a file to append to, made with its folder if missing; None for standard output.
    """

    takes_puts = True

    def __init__(self, pipeline: str, path: str | None = None) -> None:
        self._pipeline = pipeline
        self._path = path
        self._descriptor = 1 if path is None else -1
        #: Whether it is a file on disk: not standard output, a pipe or a device.
        self._regular = False
        self._lock = threading.Lock()

    def payloads(self, batch: Batch) -> Iterator[Payload]:
        events = encode_batch(self._pipeline, batch, name_stream=True)
        for start in range(0, batch.rows.num_rows, BATCH):
            stop = min(start + BATCH, batch.rows.num_rows)
            yield Payload(events.lines(start, stop), stop - start)

    def send(self, payload: Payload) -> None:
        with self._lock:
            try:
                if self._descriptor < 0:
                    self._open()
                self._append(payload.body)
            except OSError as error:
                self._release()  # and have half a line cut off by opening it anew
                raise NotWritable(f"{self._path or 'standard output'}: {error.strerror}") from error

    def _open(self) -> None:
        assert self._path is not None
        make_folder(Path(self._path).parent)
        descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            self._regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
            if self._regular:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.ftruncate(descriptor, _last_line_end(descriptor))
                sync_folder(Path(self._path).parent)
        except BlockingIOError as error:
            os.close(descriptor)
            raise NotWritable(
                f"{self._path} is in use by another writer; give each sink a path of its own"
            ) from error
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def _append(self, data: bytes) -> None:
        """Write all of `data`, or nothing as far as that can be had."""
        start = os.fstat(self._descriptor).st_size
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
            if self._regular:
                os.fsync(self._descriptor)
        except OSError:
            # What somebody else appended meanwhile must stay.
            if self._regular and os.fstat(self._descriptor).st_size == start + len(data) - len(rest):
                os.ftruncate(self._descriptor, start)
            raise

    def _release(self) -> None:
        if self._path is not None and self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def close(self) -> None:
        with self._lock:
            self._release()


def _last_line_end(descriptor: int) -> int:
    """Where the last whole line of a file ends."""
    end = os.fstat(descriptor).st_size
    while end > 0:
        start = max(0, end - (1 << 16))
        found = os.pread(descriptor, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
