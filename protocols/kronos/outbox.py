"""Puts that nobody waits for: events in a buffer, sent in batches by a thread, again until the server has them.

Each event gets an ``@origin`` on the way, ``client/put:<random>/<epoch>/<number>``, unless it has one: the embedded
event store keeps it once however often it had to be sent, and elsewhere doubles can be told.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import orjson

from protocols.accumulator import Accumulator, BatchingError, Chunk, Limits
from protocols.backoff import Backoff
from protocols.batching import Batcher, DeliveryEvent, EventKind, Rejection
from protocols.exits import AtExit, renew_after_fork
from protocols.kronos import wire
from protocols.kronos.errors import EventsRefused, RequestRefused, TransientError
from protocols.puts import Put

log = logging.getLogger(__name__)

Handler = Callable[[DeliveryEvent["Queued"]], object]

#: Bytes that an event may take in a request beside itself: an origin and a comma.
_BESIDE = 96


class Queued(NamedTuple):
    """An event on its way to a stream of a namespace; None is the server's default one."""

    namespace: str | None
    stream: str
    body: bytes

    @property
    def event(self) -> dict[str, Any]:
        """The event as it will be stored, but for its ``@origin``."""
        event: dict[str, Any] = orjson.loads(self.body)
        return event


class NotTaken(TransientError):
    """The server refuses everything: a wrong URL, missing permission. Tried again, as somebody may mend it."""


class Outbox:
    """Delivers events, at least once and in the order of their puts. Thread-safe.

    A forked process has an empty outbox of its own: what was in the parent's is sent by the parent.

    Args:
        send: sends the body of a put, and raises :class:`~protocols.kronos.errors.KronosError`.
        name: for messages.
        limits: of a batch and of the buffer.
        exit_timeout: seconds allowed to what is buffered when the interpreter exits.
    """

    def __init__(
        self, send: Callable[[bytes], object], name: str, limits: Limits, exit_timeout: float
    ) -> None:
        self._send_body = send
        self._name = name
        self._limits = limits
        self._exit_timeout = exit_timeout
        self._handlers: list[tuple[EventKind, Handler]] = []
        self.after_fork()
        renew_after_fork(self)
        self._at_exit = AtExit(self._exit)

    def after_fork(self) -> None:
        """Begin anew, with nothing buffered, an identity of its own and the same handlers."""
        self._prefix = f"client/put:{uuid.uuid4().hex[:12]}/{time.time_ns() // 1_000_000}/".encode()
        #: By namespace, what was refused of the chunk under way, as far as it was sent.
        self._first, self._sent = -1, dict[str | None, list[Rejection[Queued]]]()
        queue = Accumulator[Queued](self._limits, lambda event: len(event.stream) + len(event.body) + _BESIDE)
        self.batcher = Batcher(self._send, queue, Backoff(floor=0.0).delay, self._name)
        for kind, handler in self._handlers:
            self.batcher.on(kind, handler)

    def on(self, kind: EventKind, handler: Handler) -> None:
        self.batcher.on(kind, handler)
        self._handlers.append((kind, handler))

    def put(self, namespace: str | None, puts: Iterable[Put], timeout: float) -> None:
        self.batcher.put([Queued(namespace, put.stream, put.body) for put in puts], timeout)

    def close(self, timeout: float) -> None:
        self._at_exit.cancel()
        self.batcher.close(timeout)

    def _exit(self) -> None:
        try:
            self.close(self._exit_timeout)
        except BatchingError as error:
            log.error("%s, at exit: %s", self._name, error)

    def _send(self, chunk: Chunk[Queued]) -> list[Rejection[Queued]]:
        """Put a chunk, by one request per namespace; those that succeeded are not repeated if another fails."""
        if self._first != chunk.first:
            self._first, self._sent = chunk.first, {}
        numbered = sorted(enumerate(chunk.records, chunk.first), key=lambda each: each[1].namespace or "")
        for namespace, several in groupby(numbered, key=lambda each: each[1].namespace):
            if namespace not in self._sent:
                self._sent[namespace] = self._put(namespace, list(several))
        return sorted(
            (refused for each in self._sent.values() for refused in each), key=lambda each: each.number
        )

    def _put(self, namespace: str | None, events: Sequence[tuple[int, Queued]]) -> list[Rejection[Queued]]:
        """Put events of one namespace; returns those that the server will never take."""
        body = wire.put_request(namespace, ((event.stream, self._marked(n, event)) for n, event in events))
        try:
            self._send_body(body)
        except EventsRefused as error:
            return _refused(events, error)
        except RequestRefused as error:
            if error.refuses_all and not error.unknown_namespace:
                raise NotTaken(str(error), status=error.status, reply=error.reply) from error
            if (
                len(events) > 1 and not error.unknown_namespace
            ):  # one of them is to blame, or there are too many
                middle = len(events) // 2
                return self._put(namespace, events[:middle]) + self._put(namespace, events[middle:])
            return [Rejection(number, event, str(error)) for number, event in events]
        return []

    def _marked(self, number: int, event: Queued) -> bytes:
        if b'"@origin":' in event.body and "@origin" in event.event:
            return event.body
        return b'%b,"@origin":"%b%d"}' % (event.body[:-1], self._prefix, number)


def _refused(events: Sequence[tuple[int, Queued]], error: EventsRefused) -> list[Rejection[Queued]]:
    """Those of `events` that may be the refused ones: of the streams that a reply counts less of than were sent.

    The checks at the call leave this to servers with rules of their own.
    """
    reply, sent = error.reply or {}, dict[str, int]()
    for _, event in events:
        sent[event.stream] = sent.get(event.stream, 0) + 1
    short = {stream for stream, count in sent.items() if _stored(reply.get(stream)) < count}
    return [
        Rejection(number, event, f"{error}; of {sent[event.stream]:,} to {event.stream} some were refused")
        for number, event in events
        if event.stream in short
    ]


def _stored(backends: Any) -> int:
    """How many events of a stream the reply says to be stored, by the backend that stored least."""
    counts = [each.get("num_inserted") for each in backends.values()] if isinstance(backends, dict) else []
    return min((count for count in counts if isinstance(count, int)), default=0)
