"""The Parquet sink: a folder of Parquet files per feed on a local file system, readable at any instant.

::

    PATH/<feed>/[received=YYYY-MM-DD/]<epoch>-<first offset>-<count of offsets>.parquet

Inserts are rows of ``PATH/<table>`` with the row's columns in their own types; counts of updates and deletes are rows
``count`` of ``PATH/<table>.updates`` and ``PATH/<table>.deletes``; what happened to the table itself (altered, dropped)
are rows of ``PATH/<table>.changes``. Each row has its origin: ``__epoch``, ``__offset`` (together its identity) and
``__time``, when it was received, strictly increasing over a feed. Columns of these names, and ``received`` where that
is the partition, get ``_`` before them, as often as it takes.

A *roll* writes some blocks as one file: under a hidden name, forced to disk, then renamed. A file never changes. From
time to time small files are merged: a new folder, with larger files in place of the small ones and the others linked,
takes the place of the feed's in one atomic exchange; it is made in ``.<name>.merge`` beside PATH. So whoever lists the
files, whenever, sees each acknowledged row once. What was listed before an exchange and is opened after it may be gone:
an error, never a wrong answer, and why merges are rare.

Nothing is doubled by a crash: of what is sent again, rows that the files have are left out; names tell which files to
ask. For that, nobody else may write to a feed's folder: its lock is held by this process.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, groupby, pairwise
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from actors.batch import Batch
from actors.writer.sinks.base import NotWritable, Payload
from actors.writer.sinks.folders import exchange, make_folder, sync_folder

#: Names of the origin columns, and of the partition.
EPOCH, OFFSET, TIME, RECEIVED = "__epoch", "__offset", "__time", "received"

#: Files below ``file_bytes`` in a folder that are worth a merge.
SMALL_FILES = 16

#: Rows of a merged file's row groups, about.
GROUP_ROWS = 1 << 17

_TIME_TYPE = pa.timestamp("ns", "UTC")
#: The names of finished files.
NAME = re.compile(r"(\d{13,})-(\d{12,})-(\d+)\.parquet")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows for one file: consecutive, of one epoch and one schema."""

    feed: str
    partition: str
    epoch: int
    table: Any


@dataclass(slots=True)
class _Feed:
    folder: Path
    lock: IO[bytes]
    #: (epoch, offset) before which everything is there.
    end: tuple[int, int]
    merge_due: float
    #: Folders that may have small files.
    touched: set[Path] = field(default_factory=set)

    def close(self) -> None:
        self.lock.close()


class ParquetSink:
    """Writes batches to Parquet files below `path`.

    Args:
        pipeline: not used: the files' place tells.
        path: the folder; made if missing. No other pipeline may use it for the same tables.
        linger: seconds that a block may be held back for others to share its file.
        file_bytes: files below this size are small: merged with others until they have it.
        merge_seconds: time between two merges of a feed, at least.
        partition_by_date: whether there is a folder for each date of receipt, in UTC.
        compression: one of Parquet's codecs.
        hold_bytes: most bytes of blocks, as received, to hold back; half of a window.
    """

    def __init__(
        self,
        pipeline: str,
        path: str,
        linger: float = 1.0,
        file_bytes: int = 64 << 20,
        merge_seconds: float = 600.0,
        partition_by_date: bool = False,
        compression: str = "zstd",
        hold_bytes: int = 8 << 20,
    ) -> None:
        self.linger = linger
        self.hold_bytes = hold_bytes
        self._path = Path(path)
        self._shown = path
        self._file_bytes = file_bytes
        self._merge_seconds = merge_seconds
        self._partitioned = partition_by_date
        self._compression = compression
        self._feeds: dict[str, Any] = {}
        self._locks: dict[str, threading.Lock] = {}

    def payloads(self, batch: Batch) -> Iterator[Payload]:
        return self.rolled([batch])

    def rolled(self, batches: Sequence[Batch]) -> Iterator[Payload]:
        first = batches[0].id
        more = (RECEIVED,) if self._partitioned else ()
        tables = [with_origin(batch, more) for batch in batches if batch.rows.num_rows]
        for _, alike in groupby(tables, lambda table: table.schema):
            table = pa.concat_tables(alike).combine_chunks()
            for partition, rows in self._partitions(table):
                yield Payload(_Rows(first.feed, partition, first.epoch, rows), rows.num_rows)

    def _partitions(self, table: Any) -> Iterator[tuple[str, Any]]:
        """Runs of rows that were received on the same date."""
        if not self._partitioned:
            yield "", table
            return
        days = table[TIME].to_numpy().astype("datetime64[D]")
        bounds = [0, *(np.flatnonzero(days[1:] != days[:-1]) + 1).tolist(), len(days)]
        for start, stop in pairwise(bounds):
            yield f"{RECEIVED}={days[start]}", table.slice(start, stop - start)

    def send(self, payload: Payload) -> None:
        rows: _Rows = payload.body
        # A replay of dead letters goes beside the feed's own rows.
        with self._locks.setdefault(rows.feed, threading.Lock()):
            try:
                if rows.feed not in self._feeds:
                    self._feeds[rows.feed] = self._open(rows.feed)
                feed = self._feeds[rows.feed]
                self._append(feed, rows)
            except BaseException as error:
                # How far it came is on disk, and nowhere else.
                self._close(rows.feed)
                if isinstance(error, OSError):
                    reason = error.strerror or str(error).partition("\n")[0]
                    raise NotWritable(f"{self._shown}/{rows.feed}: {reason}") from error
                raise
            if time.monotonic() >= feed.merge_due:
                self._merge(feed, rows.partition)

    def _open(self, feed: str) -> Any:
        """Take hold of a feed's folder and find out where it ends."""
        folder = self._path / (f"_{feed}" if feed.startswith(".") else feed)
        make_folder(folder)
        lock = open(self._path / f".{folder.name}.lock", "ab")  # noqa: SIM115 - held until close
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(self._staging(folder), ignore_errors=True)
            for leftover in folder.rglob(".*.tmp"):
                leftover.unlink()
            files = [path for path in folder.rglob("*.parquet") if NAME.fullmatch(path.name)]
            newest = max(files, key=lambda path: end_of(path.name), default=None)
            if newest:
                sync_folder(newest.parent)
            end = end_of(newest.name) if newest else (0, 0)
            return _Feed(folder, lock, end, time.monotonic() + self._merge_seconds)
        except BlockingIOError as error:
            lock.close()
            raise NotWritable(
                f"{folder} is in use by another writer; give each pipeline a path of its own"
            ) from error
        except BaseException:
            lock.close()
            raise

    def _append(self, feed: Any, rows: _Rows) -> None:
        """Write those of `rows` that are not there yet."""
        table = rows.table
        offsets = table[OFFSET].to_numpy()
        if (rows.epoch, offsets[0]) < feed.end:
            # Sent again, or dead letters that are replayed: these go where there were holes.
            table = table.filter(pa.array(~np.isin(offsets, self._present(feed, rows.epoch, offsets))))
        if not len(table):
            return
        first, end = table[OFFSET][0].as_py(), table[OFFSET][-1].as_py() + 1
        self._store(feed, rows.partition, _name(rows.epoch, first, end), table)
        feed.end = max(feed.end, (rows.epoch, end))

    def _store(self, feed: Any, partition: str, name: str, table: Any) -> None:
        """Make a new file of a feed durable."""
        folder = feed.folder / partition
        make_folder(folder)
        self._write(folder / name, [table])
        sync_folder(folder)
        feed.touched.add(folder)

    def _present(self, feed: Any, epoch: int, offsets: Any) -> Any:
        """Offsets of the rows that are there, as far as files may have some of `offsets`."""
        found = []
        for path in feed.folder.rglob(f"{epoch:013d}-*.parquet"):
            if (
                NAME.fullmatch(path.name)
                and first_of(path.name) <= offsets[-1]
                and end_of(path.name)[1] > offsets[0]
            ):
                found.append(pq.ParquetFile(path).read([OFFSET])[OFFSET].to_numpy())
        return np.concatenate(found) if found else np.empty(0, np.int64)

    def _write(self, target: Path, tables: Iterable[Any]) -> None:
        """Write a file so that under its name it is never seen unfinished."""
        hidden = target.with_name(f".{target.name}.tmp")
        tables = iter(tables)
        first = next(tables)
        with open(hidden, "wb") as file:
            with pq.ParquetWriter(file, first.schema, compression=self._compression) as writer:
                for table in chain([first], tables):
                    writer.write_table(table)
            file.flush()
            os.fsync(file.fileno())
        hidden.rename(target)

    def _merge(self, feed: Any, partition: str) -> None:
        """Merge small files where there are enough. The rows are safe, so a failure is only logged."""
        staging = self._staging(feed.folder)
        try:
            # What the merge before took out was kept until now, for those who were just listing it.
            shutil.rmtree(staging, ignore_errors=True)
            for folder in feed.touched:
                self._merge_folder(folder, staging / folder.name)
        except Exception as error:
            log.warning("%s: small files are not merged: %s", feed.folder, error)
        feed.touched = {feed.folder / partition}
        feed.merge_due = time.monotonic() + self._merge_seconds

    def _merge_folder(self, folder: Path, staging: Path) -> None:
        """Make `folder` anew as `staging` and let the two take each other's place."""
        files = sorted((p for p in folder.iterdir() if NAME.fullmatch(p.name)), key=lambda p: end_of(p.name))
        if sum(file.stat().st_size < self._file_bytes for file in files) < SMALL_FILES:
            return
        make_folder(staging)
        others = {path.name for path in folder.iterdir()}
        for run in self._runs(files):
            epoch, end = end_of(run[-1].name)
            first = min(first_of(file.name) for file in run)
            self._write(staging / _name(epoch, first, end), _row_groups(run))
            others -= {file.name for file in run}
        for name in others:
            if (folder / name).is_dir():  # from when there were partitions
                shutil.copytree(folder / name, staging / name, symlinks=True, copy_function=os.link)
            else:
                os.link(folder / name, staging / name)
        for made, _, _ in os.walk(staging):
            sync_folder(Path(made))
        exchange(staging, folder)
        sync_folder(staging.parent)
        sync_folder(folder.parent)

    def _staging(self, folder: Path) -> Path:
        """Where folders of a feed are made anew: beside PATH, as patterns such as ``PATH/**`` find hidden folders."""
        return self._path.with_name(f".{self._path.name}.merge") / folder.name

    def _runs(self, files: Iterable[Path]) -> Iterator[list[Path]]:
        """Consecutive small files of one epoch and the same columns, as many as make a full one."""

        def alike(file: Path) -> Any:
            small = file.stat().st_size < self._file_bytes
            return small and (end_of(file.name)[0], pq.read_schema(file))

        for small, group in groupby(files, alike):
            run: list[Path] = []
            size = 0
            for file in group if small else ():
                run.append(file)
                size += file.stat().st_size
                if size >= self._file_bytes:
                    yield run
                    run, size = [], 0
            if len(run) > 1:
                yield run

    def _close(self, feed: str) -> None:
        state = self._feeds.pop(feed, None)
        if state is not None:
            state.close()

    def close(self) -> None:
        for feed in list(self._feeds):
            self._close(feed)


def with_origin(batch: Batch, reserved: Sequence[str] = ()) -> Any:
    """The rows of `batch` with their origin; columns of the origin's names, or `reserved`, get ``_`` before them."""
    taken = {EPOCH, OFFSET, TIME, *reserved}
    names = list(batch.rows.schema.names)
    for index, name in enumerate(names):
        if name in taken:
            while name in names or name in taken:
                name = f"_{name}"
            names[index] = name
    table = pa.Table.from_batches([batch.rows]).rename_columns(names)
    epochs = np.full(len(table), batch.id.epoch)
    table = table.append_column(EPOCH, pa.array(epochs)).append_column(OFFSET, pa.array(batch.offsets))
    return table.append_column(TIME, pa.array(batch.times * 100).cast(_TIME_TYPE))


def _name(epoch: int, first: int, end: int) -> str:
    return f"{epoch:013d}-{first:012d}-{end - first}.parquet"


def first_of(name: str) -> int:
    """Offset of the first of the file of that name."""
    return int(name.split("-")[1])


def end_of(name: str) -> tuple[int, int]:
    """Epoch of the file of that name, and the offset after its last."""
    epoch, first, count = name.removesuffix(".parquet").split("-")
    return int(epoch), int(first) + int(count)


def _row_groups(files: Iterable[Path]) -> Iterator[Any]:
    """The rows of `files`, in tables that make good row groups."""
    tables: list[Any] = []
    for file in files:
        tables.append(pq.ParquetFile(file).read())
        if sum(map(len, tables)) >= GROUP_ROWS:
            yield pa.concat_tables(tables).combine_chunks()
            tables = []
    if tables:
        yield pa.concat_tables(tables).combine_chunks()
