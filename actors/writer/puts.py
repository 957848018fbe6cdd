"""The caller's half of puts: events checked and encoded at the call, buffered, and carried to a writer as a feed.

A caller is a feed ``put:<caller>`` of its own: the writer's rules for order, sessions and durability are those for a
monitor's feeds. One block is under way at a time; the next ones wait in the buffer, which is bounded. An event's origin
is ``pipeline/put:<caller>/<epoch>/<offset>``, so that a store can tell what was sent twice.

Nothing here needs Ray: a :class:`Transport` reaches the writer.
"""

from __future__ import annotations

import atexit
import json
import logging
import math
import os
import re
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Protocol

import numpy as np
import orjson
import pyarrow as pa

from actors.backoff import Backoff
from actors.batch import EVENT_FIELD, Batch, Receipt
from actors.block import BlockId
from actors.errors import ActorError
from actors.names import put_feed
from actors.writer.reorder import Owner
from protocols.accumulator import Accumulator, BatchingError, Chunk, Limits
from protocols.batching import Batcher, DeliveryEvent, EventKind, Rejection
from protocols.kronos.wire import MAX_TIME, MIN_TIME, now

log = logging.getLogger(__name__)

#: Names of streams, the rule of all sinks: they become streams, tables and folders.
_STREAM = re.compile(r"[A-Za-z0-9_.-]{1,200}")

#: Keys that are not the caller's to set.
_RESERVED = ("@id", "@origin", "@stream")

#: What may be an integer that stores refuse, as text of JSON.
_LONG_INTEGER = re.compile(rb"[0-9]{19}")

#: Seconds allowed to what is buffered when the interpreter exits.
EXIT_TIMEOUT = 10.0

_SCHEMA = pa.schema([EVENT_FIELD])


class InvalidEvent(BatchingError, ValueError):
    """An event cannot be put; the message names it. Nothing of the call was put."""


class WriterAway(ActorError):
    """The writer is not running or did not answer; it is asked again."""

    retryable = True


class Put(NamedTuple):
    """An event on its way: its stream, its text, and its ``@time`` in ticks of 100 ns since 1970."""

    stream: str
    body: bytes
    time: int

    @property
    def event(self) -> dict[str, Any]:
        """The event as it will be stored, but for its ``@origin``."""
        event: dict[str, Any] = orjson.loads(self.body)
        return event


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


class Stamps:
    """Times for events that have none: the clock's, yet each later than the one before."""

    def __init__(self, clock: Callable[[], int] = now) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._last = 0

    def __call__(self) -> int:
        with self._lock:
            self._last = max(self._last + 1, self._clock())
            return self._last


def encode(events: Mapping[str, Iterable[Mapping[str, Any]]], stamp: Callable[[], int]) -> list[Put]:
    """Check and encode events by stream. Raises :class:`InvalidEvent`, which names the first that cannot be put."""
    if not isinstance(events, Mapping):
        raise InvalidEvent(f"put takes {{stream: [event, ...]}}, not a {type(events).__name__}")
    puts = []
    for stream, several in events.items():
        if not isinstance(stream, str) or not _STREAM.fullmatch(stream):
            raise InvalidEvent(
                f"stream {stream!r:.80}: a name has up to 200 of the characters A-Z a-z 0-9 _ - ."
            )
        if isinstance(several, (Mapping, str, bytes)) or not isinstance(several, Iterable):
            raise InvalidEvent(f"stream {stream}: a list of events, not a {type(several).__name__}")
        for place, event in enumerate(several):
            try:
                puts.append(_encode(stream, event, stamp))
            except (TypeError, ValueError) as error:
                raise InvalidEvent(f"{stream}[{place}]: {error}") from None
    return puts


def _encode(stream: str, event: Mapping[str, Any], stamp: Callable[[], int]) -> Put:
    if not isinstance(event, Mapping):
        raise TypeError(f"an event is a dict, not a {type(event).__name__}")
    for key in _RESERVED:
        if key in event:
            raise ValueError(f"{key} is set by the writer; leave it out, or give it another name")
    time = event.get("@time")
    if time is None:
        time = stamp()
    elif type(time) is not int or not MIN_TIME <= time <= MAX_TIME:
        raise ValueError("@time must be an integer of 100 ns since 1970, between the years 1582 and 5236")
    whole = {**event, "@time": time}
    body = orjson.dumps(whole, option=orjson.OPT_PASSTHROUGH_DATACLASS)
    # What orjson writes and a store refuses, or turns into something else, is rare: look closer only at suspects.
    if b"null" in body:
        _refuse_nan(whole)
    if _LONG_INTEGER.search(body):
        json.loads(body, parse_int=_stored_int)
    return Put(stream, body, time)


def _refuse_nan(value: Any) -> None:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value}, which JSON has no form for; put it as text or leave it out")
    elif isinstance(value, Mapping):
        for each in value.values():
            _refuse_nan(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            _refuse_nan(each)


def _stored_int(text: str) -> int:
    if not -(2**63) <= int(text) < 2**63:
        raise ValueError("an integer beyond 64 bits, which stores refuse; put it as text")
    return 0


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
        return encode(events, self._stamp)

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
