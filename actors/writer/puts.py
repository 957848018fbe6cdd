"""The caller's half of puts: events checked and encoded at the call, buffered, and carried to a writer as a feed.

A caller is a feed ``put:<caller>`` of its own: the writer's rules for order, sessions and durability are those for a
monitor's feeds. One block is under way at a time; the next ones wait in the buffer, which is bounded. An event's origin
is ``pipeline/put:<caller>/<epoch>/<offset>``, so that a store can tell what was sent twice.

Nothing here needs Ray: a :class:`Transport` reaches the writer.
"""

from __future__ import annotations

import atexit
import logging
import os
import re
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from actors.backoff import Backoff
from actors.batch import EVENT_FIELD, Batch, Receipt
from actors.block import BlockId
from actors.errors import ActorError
from actors.names import put_feed
from actors.writer.reorder import Owner
from protocols.accumulator import Accumulator, BatchingError, Chunk, Limits
from protocols.batching import Batcher, DeliveryEvent, EventKind, Rejection
from protocols.puts import Put, Rules, Stamps, encode

log = logging.getLogger(__name__)

#: Names of streams, the rule of all sinks: they become streams, tables and folders.
RULES = Rules(
    re.compile(r"[A-Za-z0-9_.-]{1,200}"),
    "a name has up to 200 of the characters A-Z a-z 0-9 _ - .",
    reserved=("@id", "@origin", "@stream"),
)

#: Seconds allowed to what is buffered when the interpreter exits.
EXIT_TIMEOUT = 10.0

_SCHEMA = pa.schema([EVENT_FIELD])


class WriterAway(ActorError):
    """The writer is not running or did not answer; it is asked again."""

    retryable = True


class Transport(Protocol):
    """How to reach a writer. Calls block, until `stopping` is set; exceptions that may pass are ``retryable``."""

    stopping: threading.Event

    def attach(self, feed: str, owner: Owner) -> tuple[int, int] | None: ...

    def write(
        self, owner: Owner, block: BlockId, previous: BlockId | None, batches: Sequence[Batch]
    ) -> Receipt: ...

    def leave(self, feed: str) -> None: ...


class Session:
    """Carries chunks to the writer, as blocks of one feed; after a failure it begins anew."""

    def __init__(self, transport: Transport, feed: str, epoch: int) -> None:
        self._transport = transport
        self._feed = feed
        self._owner: Owner = (epoch, 0)
        self._previous: BlockId | None = None
        self._attached = False

    def attach(self) -> tuple[int, int] | None:
        """Begin a new session; returns before which (epoch, offset) everything is known to be durable."""
        self._owner = (self._owner[0], self._owner[1] + 1)
        durable = self._transport.attach(self._feed, self._owner)
        self._previous, self._attached = None, True
        return durable

    def send(self, chunk: Chunk[Put]) -> list[Rejection[Put]]:
        """Make `chunk` durable; returns what the sink refused."""
        epoch = self._owner[0]
        if not self._attached:
            durable = self.attach()
            if durable is not None and durable >= (epoch, chunk.first + len(chunk.records)):
                return []  # it was there already; only the answer was lost
        block = BlockId(self._feed, epoch, chunk.first)
        try:
            receipt = self._transport.write(
                self._owner, block, self._previous, list(put_batches(block, chunk.records))
            )
        except BaseException:
            self._attached = False
            raise
        self._previous = block
        return [Rejection(r.offset, chunk.records[r.offset - chunk.first], r.reason) for r in receipt.rejects]


def put_batches(block: BlockId, puts: Sequence[Put]) -> Iterator[Batch]:
    """The events of each stream, in the order in which the streams occur."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, put in enumerate(puts):
        places[put.stream].append(place)
    for stream, mine in places.items():
        bodies = [puts[place].body.decode() for place in mine]
        rows = pa.RecordBatch.from_arrays([pa.array(bodies, EVENT_FIELD.type)], schema=_SCHEMA)
        size = sum(len(puts[place].body) for place in mine)
        yield Batch(block, len(mine), puts[mine[0]].time, rows, np.array(mine, np.int64), (), size, stream)


class EventWriter:
    """Puts events to the streams of one sink without waiting for it. Thread-safe; not for use after a fork.

    An event is durable at the sink when :meth:`flush` has returned; until then it is in this process's memory only. It
    is sent again until it is, also to a restarted writer: at least once, with its ``@origin`` to tell doubles. Events
    of one thread are stored in the order in which it put them. At the interpreter's exit what is buffered is flushed,
    for up to :data:`EXIT_TIMEOUT` seconds; a Ray task or actor should flush before it ends: Ray may kill its process.

    Args:
        name: ``pipeline/sink``, for messages.
        transport: how to reach the sink's writer.
        limits: of a batch and the buffer.
        backoff: between attempts to reach the writer.
    """

    def __init__(
        self, name: str, transport: Transport, limits: Limits | None = None, backoff: Backoff | None = None
    ) -> None:
        self.name = name
        #: First part of the origins of these events, after the pipeline: ``put:<caller>``.
        self.feed = put_feed(uuid.uuid4().hex[:12])
        self._transport = transport
        self._session = Session(transport, self.feed, time.time_ns() // 1_000_000)
        self._stamp = Stamps()
        queue = Accumulator[Put](limits or Limits(), lambda put: len(put.body))
        delay = (backoff or Backoff(floor=0.0)).delay
        self._batcher = Batcher(self._session.send, queue, delay, f"writer {name}")
        transport.stopping = self._batcher.stopping
        self._pid = os.getpid()
        # What a first batch loads is loaded here: at the interpreter's exit nothing can be.
        list(put_batches(BlockId("", 0, 0), [Put("", b"", 0)]))
        atexit.register(self._exit)

    def __repr__(self) -> str:
        return f"EventWriter({self.name!r}, pending={self.pending})"

    def __enter__(self) -> EventWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def attach(self) -> None:
        """Ask the writer for the first time. Raises :class:`~actors.errors.DeliveryRefused` if it takes no events."""
        self._session.attach()

    def put(self, events: Mapping[str, Iterable[Mapping[str, Any]]], timeout: float = 0.0) -> None:
        """Add events, ``{stream: [event, ...]}``, all or none; returns at once, or after up to `timeout` seconds.

        An event is a dict that JSON has a form for. ``@time``, an integer of 100 ns since 1970, is the present time if
        it is absent; then it increases strictly from event to event.

        Raises:
            InvalidEvent: an event or stream is not fit; the message names it, as ``stream[index]``.
            RecordTooLarge: an event is larger than a batch, or all of them than the buffer.
            BufferFull: there is no room, as the sink is slower than its callers; put them again later.
            Closed: the writer was closed.
        """
        self._batcher.put(self._encode(events), timeout)

    async def put_async(self, events: Mapping[str, Iterable[Mapping[str, Any]]]) -> None:
        """As :meth:`put`, but waits for room instead of raising :class:`BufferFull`."""
        await self._batcher.put_async(self._encode(events))

    def _encode(self, events: Mapping[str, Iterable[Mapping[str, Any]]]) -> list[Put]:
        if os.getpid() != self._pid:
            raise RuntimeError("this writer was made before a fork; make one in each process")
        return encode(events, self._stamp, RULES)

    def on(self, kind: EventKind, handler: Callable[[DeliveryEvent[Put]], object]) -> EventWriter:
        """Call `handler` at ``send``, ``flush`` or ``error``, see :class:`DeliveryEvent`; returns this writer.

        Handlers run on one thread of this process, between two batches, so they should be quick. One that raises is
        logged.
        """
        self._batcher.on(kind, handler)
        return self

    @property
    def pending(self) -> int:
        """Events put and not yet durable at the sink."""
        return self._batcher.pending

    @property
    def problem(self) -> str | None:
        """Why the latest attempt failed, in one line; None if it did not."""
        return self._batcher.problem

    def flush(self, timeout: float = 30.0) -> None:
        """Wait until all that has been put is durable at the sink; blocks.

        Raises:
            NotDelivered: it is not, `timeout` seconds later; it is still being tried.
            RecordsRejected: since the last flush, the sink refused events for good; all others are durable.
        """
        self._batcher.flush(timeout)

    def close(self, timeout: float = 30.0) -> None:
        """Flush, then end; what is not durable `timeout` seconds later is given up. Raises as :meth:`flush`."""
        atexit.unregister(self._exit)
        try:
            self._batcher.close(timeout)
        finally:
            self._transport.leave(self.feed)

    def _exit(self) -> None:
        if os.getpid() != self._pid:
            return
        try:
            self.close(EXIT_TIMEOUT)
        except BatchingError as error:
            log.error("writer %s, at exit: %s", self.name, error)
