"""Parquet files in an object store or on HDFS: the files of ``parquet.py``, at a URL that pyarrow knows.

::

    s3://BUCKET/PATH/<feed>/[received=YYYY-MM-DD/]<epoch>-<first offset>-<count of offsets>.parquet

A file appears whole: an object when its upload is complete, a file on HDFS or a mounted ``file://`` when it is renamed.
Nothing is doubled by a crash, as on local disk: of what is sent again, rows that the files have are left out.

Two things are different there. Small files stay, because nothing can take the place of several objects in one step for
whoever lists them. And there is no lock: two pipelines with the same tables must not share a URL.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from actors.writer.sinks.base import Sink
from actors.writer.sinks.parquet import NAME, OFFSET, ParquetSink, end_of, first_of

#: Kinds of file systems whose files can be seen unfinished.
_RENAMED = ("hdfs", "local")


def parquet_sink(pipeline: str, path: str, **settings: Any) -> Sink:
    """Make the sink for a local folder or a URL."""
    return (RemoteParquetSink if "://" in path else ParquetSink)(pipeline, path, **settings)


@dataclass(slots=True)
class _Feed:
    folder: str
    end: tuple[int, int]
    #: The paths of all files.
    paths: list[str] = field(default_factory=list)
    merge_due: float = math.inf

    def close(self) -> None:
        pass


class RemoteParquetSink(ParquetSink):
    """Writes batches to Parquet files below the URL `path`; see :class:`ParquetSink`."""

    def __init__(self, pipeline: str, path: str, **settings: Any) -> None:
        super().__init__(pipeline, path, **settings)
        self._shown = path.partition("?")[0]
        self._url = path
        self._files: tuple[Any, str] | None = None

    @property
    def _place(self) -> tuple[Any, str]:
        """The file system and the path in it, found at the first need: it may ask the network."""
        if self._files is None:
            self._files = fs.FileSystem.from_uri(self._url)
        return self._files

    def _open(self, feed: str) -> _Feed:
        system, root = self._place
        folder = f"{root}/_{feed}" if feed.startswith(".") else f"{root}/{feed}"
        infos = system.get_file_info(fs.FileSelector(folder, recursive=True, allow_not_found=True))
        for info in infos:
            if info.base_name.startswith(".") and info.base_name.endswith(".tmp"):
                system.delete_file(info.path)
        names = [info for info in infos if NAME.fullmatch(info.base_name)]
        end = max((end_of(info.base_name) for info in names), default=(0, 0))
        return _Feed(folder, end, [info.path for info in names])

    def _present(self, feed: Any, epoch: int, offsets: Any) -> Any:
        system, _ = self._place
        found = []
        for path in feed.paths:
            name = path.rpartition("/")[2]
            if end_of(name)[0] == epoch and first_of(name) <= offsets[-1] and end_of(name)[1] > offsets[0]:
                with system.open_input_file(path) as file:
                    found.append(pq.ParquetFile(file).read([OFFSET])[OFFSET].to_numpy())
        return np.concatenate(found) if found else np.empty(0, np.int64)

    def _store(self, feed: Any, partition: str, name: str, table: Any) -> None:
        system, _ = self._place
        buffer = pa.BufferOutputStream()
        pq.write_table(table, buffer, compression=self._compression)
        folder = f"{feed.folder}/{partition}".rstrip("/")
        path = f"{folder}/{name}"
        renamed = system.type_name in _RENAMED
        if renamed:
            system.create_dir(folder)
        hidden = f"{folder}/.{name}.tmp" if renamed else path
        with system.open_output_stream(hidden) as file:
            file.write(buffer.getvalue())
        if renamed:
            system.move(hidden, path)
        feed.paths.append(path)
