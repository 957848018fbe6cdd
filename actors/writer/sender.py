"""Makes batches durable at a sink: encodes ahead, sends, retries, and finds the records that it refuses.

* An error with a true ``retryable`` has the payload sent again, with exponential back-off, for as long as it takes.
  :class:`~actors.writer.sinks.base.PartlySent` has the rest sent again.
* Any other error refuses the payload for good. Its records are then sent in halves, down to single ones, so that those
  that the sink takes are delivered and each of the others is a reject with the sink's reason. With a true
  ``refuses_all`` (credentials, permissions: nothing about a record), or when nothing but refusals came for a while from
  a table, the error is raised instead, and nothing is given up.

An asyncio class without Ray. The sink's calls run on threads.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import CancelledError as Cancelled
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from actors.backoff import Backoff
from actors.batch import Batch, Rejected
from actors.names import is_put_feed
from actors.writer.sinks.base import PartlySent, Payload, RollingSink, Sink, TimedOut, is_transient
from actors.writer.throttle import MAX_LIMIT, Circuit, Gate

log = logging.getLogger(__name__)

Result = TypeVar("Result")

#: Single records of a feed refused one after the other, with none taken in between, that make it the sink's problem.
REFUSED_IN_A_ROW = 16

#: A send that takes so many times its sink's ``timeout`` is taken for lost: some answers come byte by byte.
DEADLINE_FACTOR = 2.0

#: Threads for encoding, and spare ones for sends that were taken for lost and still hold theirs.
ENCODERS = 2
SPARE_THREADS = 8


@dataclass(slots=True)
class SenderStats:
    """Counts since the writer started. `problem` is the sink's present trouble in one line, or None."""

    records: int = 0
    requests: int = 0
    retries: int = 0
    refused: int = 0
    problem: str | None = None
    problem_since: float | None = None
    last_error: str | None = None
    last_error_at: float | None = None


@dataclass(slots=True)
class _Sending:
    """A payload on its way: what of it is not taken yet, and what is refused one by one."""

    payload: Payload
    rejects: list[Rejected]

    def left(self, batches: Sequence[Batch]) -> list[Batch]:
        """Those rows of `batches` that are not known to be taken or refused."""
        known = [reject.offset for reject in self.rejects]
        parts = []
        for batch in batches:
            rows = ~np.isin(batch.offsets, known)
            if self.payload.offsets is not None:
                rows &= np.isin(batch.offsets, self.payload.offsets)
            if count := int(rows.sum()):
                parts.append(
                    replace(
                        batch,
                        count=count,
                        rows=batch.rows.filter(pa.array(rows)),
                        positions=batch.row_positions[rows],
                    )
                )
        return parts


class Encoding:
    """The payloads of `batches`, one after the other; the next is encoded while one is under way."""

    def __init__(self, sink: Sink, batches: Sequence[Batch], threads: ThreadPoolExecutor) -> None:
        self._payloads = _payloads(sink, batches)
        self._threads = threads
        self._ahead: asyncio.Future[Payload | None] | None = None

    def begin(self) -> asyncio.Future[Payload | None]:
        """Begin to encode the next payload, if that has not begun; None comes after the last."""
        if self._ahead is None:
            run = asyncio.get_running_loop().run_in_executor
            self._ahead = run(self._threads, next, self._payloads, None)
        return self._ahead

    async def take(self) -> Payload | None:
        """The next payload, None after the last."""
        payload = await self.begin()
        self._ahead = None
        if payload is not None:
            self.begin()
        return payload


class Sender:
    """Delivers to `sink`. Make and use it on one event loop."""

    def __init__(self, sink: Sink, backoff: Backoff, clock: Callable[[], float] = time.time) -> None:
        self.stats = SenderStats()
        self.gate = Gate(backoff)
        self._sink = sink
        self._backoff = backoff
        self._clock = clock
        timeout = getattr(sink, "timeout", None)
        self._deadline = None if timeout is None else DEADLINE_FACTOR * timeout
        self._encoders = ThreadPoolExecutor(ENCODERS, thread_name_prefix="encode")
        self._threads = ThreadPoolExecutor(MAX_LIMIT + SPARE_THREADS, thread_name_prefix="sink")
        #: Feed -> single records refused since one was taken.
        self._refused: Counter[str] = Counter()

    def encode(self, batches: Sequence[Batch]) -> Encoding:
        return Encoding(self._sink, batches, self._encoders)

    async def deliver(
        self, batches: Sequence[Batch], encoding: Encoding, meanwhile: Callable[[], object]
    ) -> AsyncIterator[tuple[int, list[Rejected]]]:
        """Send the payloads of `batches`, in order; after each, how many rows are settled, and its rejects.

        `meanwhile` is called when each is about to be sent. Raises what the sink raised if it refuses everything.
        """
        row = 0
        while (payload := await encoding.take()) is not None:
            meanwhile()
            stop = row + payload.records + len(payload.rejects)
            yield stop, await self._settle(payload, batches, row, stop)
            row = stop

    async def _settle(
        self, payload: Payload, batches: Sequence[Batch], start: int, stop: int
    ) -> list[Rejected]:
        """Send the payload of rows `start` to `stop`, or what of it the sink takes; returns its rejects."""
        feed = batches[0].id.feed
        sending = _Sending(payload, list(payload.rejects))
        try:
            await self._send(sending)
        except Exception as error:
            if getattr(error, "refuses_all", False):
                raise
            left = sending.left(_rows(batches, start, stop))
            count = sum(batch.count for batch in left)
            if count < payload.records:
                self._refused.pop(feed, None)
                self.stats.records += payload.records - count
            if count > 1:
                log.warning("%s: %d records refused: %s; sending them in halves", feed, count, error)
                halves = _rows(left, 0, count // 2), _rows(left, count // 2, count)
                parts = [self.deliver(half, self.encode(half), _nothing) for half in halves]
                return sending.rejects + [
                    reject for part in parts async for _, found in part for reject in found
                ]
            self._refused[feed] += 1
            # Events that somebody put go back to whoever did, one by one, however many.
            if self._refused[feed] >= REFUSED_IN_A_ROW and not is_put_feed(feed):
                del self._refused[feed]  # whoever resumes the table begins anew
                raise
            self.stats.refused += 1
            bad = int(left[0].offsets[0])
            return [*sending.rejects, Rejected(bad, str(error) or type(error).__name__, b"")]
        self._refused.pop(feed, None)
        self.stats.requests += 1
        self.stats.records += payload.records
        return sending.rejects

    async def _send(self, sending: _Sending) -> None:
        """Send until all of it is durable, noting what the sink refuses one by one."""
        failures = 0
        while sending.payload.records:
            try:
                async with self.gate.request():
                    sending.rejects += await self._attempt(sending.payload)
            except Exception as error:
                if isinstance(error, PartlySent):
                    failures *= error.rest.records == sending.payload.records
                    sending.payload = error.rest
                    sending.rejects += error.rejects
                self._note(error)
                if not is_transient(error):
                    if getattr(error, "refuses_all", False):
                        self._trouble(error)
                    raise
                failures += 1
                self.stats.retries += 1
                if self.stats.problem is None:
                    log.warning("the sink fails: %s; trying again", error)
                self._trouble(error)
                # While the circuit is open, the wait is the gate's: it is meant for all.
                if self.gate.throttle.circuit is Circuit.CLOSED:
                    await asyncio.sleep(self._backoff.delay(failures))
            else:
                self.stats.problem = self.stats.problem_since = None
                return

    async def _attempt(self, payload: Payload) -> Sequence[Rejected]:
        """Send once; returns what was refused if nothing of it is left to send."""
        try:
            async with asyncio.timeout(self._deadline):
                await asyncio.get_running_loop().run_in_executor(self._threads, self._call_sink, payload)
        except PartlySent as error:
            if error.rest.records:
                raise
            return error.rejects
        except TimeoutError as error:
            raise TimedOut("no whole answer in time; sending it again") from error
        return ()

    def _call_sink(self, payload: Payload) -> None:
        try:
            self._sink.send(payload)
        except (StopIteration, Cancelled) as error:  # a future of asyncio takes neither for an error
            raise RuntimeError(f"the sink raised {error!r}") from error

    def _note(self, error: Exception) -> None:
        self.stats.last_error, self.stats.last_error_at = str(error) or type(error).__name__, self._clock()

    def _trouble(self, error: Exception) -> None:
        """Show `error` as the sink's problem until something is delivered."""
        if self.stats.problem is None:
            self.stats.problem_since = self._clock()
        self.stats.problem = str(error)

    async def close(self) -> None:
        """Release the sink."""
        await asyncio.get_running_loop().run_in_executor(self._threads, self._sink.close)
        self._threads.shutdown(wait=False)
        self._encoders.shutdown(wait=False)

    def status(self) -> dict[str, Any]:
        """The state of the circuit and of the requests."""
        throttle = self.gate.throttle
        return {
            "circuit": throttle.circuit.value,
            "in_flight": throttle.in_flight,
            "concurrency": throttle.limit,
        }


def _payloads(sink: Sink, batches: Sequence[Batch]) -> Iterator[Payload]:
    if isinstance(sink, RollingSink):
        yield from sink.rolled(batches)
    else:
        for batch in batches:
            yield from sink.payloads(batch)


def _rows(batches: Sequence[Batch], start: int, stop: int) -> list[Batch]:
    """Rows `start` to `stop` of consecutive batches, as batches without the records that did not decode."""
    parts = []
    for batch in batches:
        count = batch.rows.num_rows
        first, last = max(start, 0), min(stop, count)
        if first < last:
            positions = np.ascontiguousarray(batch.row_positions[first:last])
            rows = batch.rows.slice(first, last - first)
            parts.append(
                replace(batch, count=last - first, rows=rows, positions=positions, rejects=(), filtered=0)
            )
        start, stop = start - count, stop - count
    return parts


def _nothing() -> None:
    pass
