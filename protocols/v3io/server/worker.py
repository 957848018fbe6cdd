"""Group commit: requests that wait share a transaction, and its sync to disk.

One thread runs all requests, one after the other, so that each is atomic. What arrives while a transaction is
being synced goes into the next one together; answers are given after the commit, never before. A request
that fails is undone alone. Transactions without a change cost no sync.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

from protocols.v3io.server.store import Store

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Most requests in a transaction.
GROUP_SIZE = 256


class _Job(NamedTuple):
    work: Callable[[Store], Any]
    done: asyncio.Future[Any]


class Worker:
    """The only user of `connection`; its methods are called in the event loop.

    What waits is bounded by the callers, each of which waits for its answer.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute
        self._store = Store(connection)
        self._waiting: deque[_Job] = deque()
        self._thread = ThreadPoolExecutor(1, "v3io-worker")
        self._running: asyncio.Task[None] | None = None

    async def run(self, work: Callable[[Store], T]) -> T:
        """The result of `work`, whose changes are durable, or what it raised; else ``sqlite3.Error``."""
        job = _Job(work, asyncio.get_running_loop().create_future())
        self._waiting.append(job)
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        result: T = await job.done
        return result

    async def close(self) -> None:
        """Return when everything submitted before is done."""
        if self._running is not None:
            await self._running
        self._thread.shutdown()

    async def _run(self) -> None:
        while self._waiting:
            group = [self._waiting.popleft() for _ in range(min(len(self._waiting), GROUP_SIZE))]
            try:
                results = await asyncio.get_running_loop().run_in_executor(
                    self._thread, self._transaction, [job.work for job in group]
                )
            except Exception as error:
                logger.exception("a transaction of the V3IO server failed")
                results = [error] * len(group)
            for job, result in zip(group, results, strict=True):
                if job.done.done():  # its handler was cancelled
                    continue
                if isinstance(result, Exception):
                    job.done.set_exception(result)
                else:
                    job.done.set_result(result)
        self._running = None

    def _transaction(self, group: list[Callable[[Store], Any]]) -> list[Any]:
        """Their results, or exceptions. Raises ``sqlite3.Error`` if nothing of it is stored."""
        self._execute("BEGIN")
        try:
            results = [self._attempt(work) for work in group]
            self._execute("COMMIT")
        except BaseException:
            try:
                self._execute("ROLLBACK")
            except sqlite3.Error as error:  # SQLite may have done so itself
                logger.debug("rollback: %s", error)
            raise
        return results

    def _attempt(self, work: Callable[[Store], Any]) -> Any:
        self._execute("SAVEPOINT request")
        try:
            result = work(self._store)
        except sqlite3.Error:
            raise
        except Exception as error:
            self._execute("ROLLBACK TO request")
            result = error
        self._execute("RELEASE request")
        return result
