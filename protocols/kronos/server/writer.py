"""Group commit: one transaction, and one sync to disk, for all requests that wait.

What arrives while a transaction is being synced goes into the next one together. An answer is given after the
commit, never before. One transaction is open at a time. Small puts are applied in the event loop's own thread
and only the commit, which waits for the disk, in another: passing the interpreter's lock back and forth at
every statement would cost several times what the statements do. Large puts and deletes are done in the other
thread, so that they do not hold up requests.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from protocols.kronos.server.events import Batch
from protocols.kronos.server.store import Store
from protocols.kronos.wire import Range

logger = logging.getLogger(__name__)

#: Most requests in a transaction.
GROUP_SIZE = 256
#: A group takes no more requests once they hold as many bytes; larger ones are not applied in the event loop.
GROUP_BYTES = 1024 * 1024


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
    #: It may touch any number of events.
    size: int = GROUP_BYTES


class Writer:
    """Applies changes in the order of their submission; it is the only user of `connection`.

    All methods are called in the event loop. What waits is bounded by the callers, each of which waits for
    its answer.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute
        self._store = Store(connection)
        self._waiting: deque[Put | Delete] = deque()
        self._thread = ThreadPoolExecutor(1, "kronos-writer")
        self._running: asyncio.Task[None] | None = None

    async def write(self, change: Put | Delete) -> Any:
        """Return the result of `change` once it is durable. Raises ``sqlite3.Error`` if it was not written."""
        self._waiting.append(change)
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return await change.done

    async def close(self) -> None:
        """Return when everything submitted before is written."""
        if self._running is not None:
            await self._running
        self._thread.shutdown()

    async def _run(self) -> None:
        while self._waiting:
            group: list[Put | Delete] = []
            size = 0
            while self._waiting and len(group) < GROUP_SIZE and size < GROUP_BYTES:
                group.append(self._waiting.popleft())
                size += group[-1].size
            await self._commit(group, size)
        self._running = None

    async def _commit(self, group: list[Put | Delete], size: int) -> None:
        loop = asyncio.get_running_loop()
        try:
            if size < GROUP_BYTES:
                results = self._apply(group)
            else:
                results = await loop.run_in_executor(self._thread, self._apply, group)
            await loop.run_in_executor(self._thread, self._execute, "COMMIT")
        except Exception as error:
            self._roll_back()
            if len(group) > 1:
                # One bad request must not fail the others.
                for change in group:
                    await self._commit([change], change.size)
                return
            logger.exception("event store: a write failed")
            if not group[0].done.done():
                group[0].done.set_exception(error)
            return
        for change, result in zip(group, results, strict=True):
            if not change.done.done():  # else its handler was cancelled
                change.done.set_result(result)

    def _roll_back(self) -> None:
        try:
            self._execute("ROLLBACK")
        except sqlite3.Error as error:  # SQLite may have done so itself
            logger.debug("rollback: %s", error)

    def _apply(self, group: list[Put | Delete]) -> list[Any]:
        """Open a transaction and make the changes in it; their results."""
        self._execute("BEGIN IMMEDIATE")
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
