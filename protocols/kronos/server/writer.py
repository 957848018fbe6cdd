"""The one thread that writes: group commit.

Requests that wait while a transaction is being synced to disk go into the next one together, so that one sync
serves all of them. An answer is given after the commit, never before.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from protocols.kronos.server.events import Batch
from protocols.kronos.server.store import Store
from protocols.kronos.wire import Range

logger = logging.getLogger(__name__)

#: Most requests in a transaction.
GROUP_SIZE = 256
#: A group takes no more requests once they hold as many bytes.
GROUP_BYTES = 8 * 1024 * 1024


@dataclass(eq=False)
class Put:
    """Batches of `size` bytes, by stream; the result holds for each how many events were duplicates."""

    namespace: str
    batches: dict[str, Batch]
    size: int
    done: asyncio.Future[list[int]]


@dataclass(eq=False)
class Delete:
    """A range to delete; the result is the number of events deleted."""

    namespace: str
    range: Range
    done: asyncio.Future[int]


class Writer:
    """Applies changes in the order of their submission; it is the only user of `connection`.

    `announce` is called in the writer's thread with a function that must run in the thread of the futures.
    """

    def __init__(
        self, connection: sqlite3.Connection, announce: Callable[[Callable[[], None]], object]
    ) -> None:
        self._execute = connection.execute
        self._store = Store(connection)
        self._announce = announce
        # Bounded by the callers, each of which waits for its answer.
        self._queue: queue.SimpleQueue[Put | Delete | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="kronos-writer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, change: Put | Delete) -> None:
        self._queue.put(change)

    def stop(self) -> None:
        """Return when everything submitted before is written."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        last = False
        while not last:
            change = self._queue.get()
            group: list[Put | Delete] = []
            size = 0
            while change is not None:
                group.append(change)
                size += change.size if isinstance(change, Put) else 0
                if len(group) >= GROUP_SIZE or size >= GROUP_BYTES:
                    break
                try:
                    change = self._queue.get_nowait()
                except queue.Empty:
                    break
            last = change is None
            if group:
                self._commit(group)

    def _commit(self, group: list[Put | Delete]) -> None:
        try:
            self._execute("BEGIN IMMEDIATE")
            results = self._apply(group)
            self._execute("COMMIT")
        except Exception as error:
            self._roll_back()
            if len(group) > 1:
                # One bad request must not fail the others.
                for change in group:
                    self._commit([change])
                return
            logger.exception("event store: a write failed")
            self._announce(partial(_fail, group[0], error))
        else:
            self._announce(partial(_complete, group, results))

    def _roll_back(self) -> None:
        try:
            self._execute("ROLLBACK")
        except Exception as error:  # SQLite may have done so itself
            logger.debug("rollback: %s", error)

    def _apply(self, group: list[Put | Delete]) -> list[Any]:
        results: list[Any] = []
        puts: list[Put] = []
        for change in group:
            if isinstance(change, Put):
                puts.append(change)
                continue
            results += self._put(puts)
            puts = []
            results.append(self._store.delete(change.namespace, change.range))
        return results + self._put(puts)

    def _put(self, puts: list[Put]) -> list[list[int]]:
        """Store the batches of several puts, those of one stream together."""
        by_stream: dict[tuple[str, str], list[tuple[list[int], int, Batch]]] = {}
        results = []
        for put in puts:
            duplicates = [0] * len(put.batches)
            results.append(duplicates)
            for place, (stream, batch) in enumerate(put.batches.items()):
                by_stream.setdefault((put.namespace, stream), []).append((duplicates, place, batch))
        for (namespace, stream), parts in by_stream.items():
            whole = Batch()
            for _, _, batch in parts:
                whole.keys += batch.keys
                whole.lines += batch.lines
                whole.origins += batch.origins
            fresh = self._store.put(namespace, stream, whole) if whole.keys else []
            start = 0
            for duplicates, place, batch in parts:
                end = start + len(batch.keys)
                duplicates[place] = fresh[start:end].count(False)
                start = end
        return results


def _complete(group: list[Put | Delete], results: list[Any]) -> None:
    for change, result in zip(group, results, strict=True):
        if not change.done.done():  # else its handler was cancelled
            change.done.set_result(result)


def _fail(change: Put | Delete, error: Exception) -> None:
    if not change.done.done():
        change.done.set_exception(error)
