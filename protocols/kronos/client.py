"""A client of Kronos servers: the original ones and the embedded event store.

With the names, arguments and defaults of PyKronos 0.6.2 and its faults mended (``docs/compatibility.md``). Calls block,
each with a timeout. Only :meth:`KronosClient.get` repeats requests by itself, because it knows where to go on; who puts
decides from an error's ``retryable`` whether to send again. A client with ``blocking=False`` puts without waiting: its
events go to a bounded buffer and are sent, again if need be, by a thread (``outbox.py``).

Misuse is told at the call: ``TypeError`` for what is of a wrong type, ``ValueError`` for what no server takes,
:class:`~protocols.puts.InvalidEvent` (a ``ValueError``) for events, :class:`~protocols.batching.Closed` after
:meth:`KronosClient.close`. What servers and networks do is a :class:`~protocols.kronos.errors.KronosError`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import date
from typing import Any, ParamSpec, TypeVar

import orjson

from protocols.accumulator import Limits
from protocols.batching import Closed, DeliveryEvent, EventKind
from protocols.checks import check_callable, check_number, check_timeout, check_type
from protocols.closing import Closing
from protocols.exits import EXIT_TIMEOUT
from protocols.kronos import resume, tracing, wire
from protocols.kronos.errors import EventsRefused, ServerUnavailable
from protocols.kronos.http import READ_BYTES, Connection, errors_of
from protocols.kronos.outbox import Outbox, Queued
from protocols.kronos.times import to_kronos_time
from protocols.puts import Rules, Stamps, encode, ticks
from protocols.version import LIBRARY

_RULES = Rules(
    wire.STREAM_NAME,
    wire.STREAM_RULE,
    extra={wire.LIBRARY_FIELD: LIBRARY},
    time=lambda time: ticks(to_kronos_time(time)),
)

Params = ParamSpec("Params")
Result = TypeVar("Result")


class KronosClient(Closing):
    """A client of one server; several threads may use it at once, and a process forked from its own too.

    Args:
        http_url: base URL, for example ``http://127.0.0.1:8151``; it may hold a path prefix and ``user:password@``.
        blocking: whether :meth:`put` waits for the server.
        sleep_block: of a client that does not block: seconds that an event may wait for others to share its request.
        namespace: sent with each request; None leaves the choice to the server.
        chunk_size: bytes read at a time from a streamed reply.
        timeout: seconds to connect, to wait for each part of a streamed reply, and for the whole of any other.
        max_retries: how often in a row a get is repeated without a new event.
        username, password: for HTTP basic authentication, as of a proxy before the server; or `token`, a bearer token.
        limits: of a client that does not block: of a batch and its buffer, in place of `sleep_block`.
        exit_timeout: of such a client: seconds allowed to what is buffered when the interpreter exits.

    Times are integers of 100 ns since 1970, datetimes (UTC unless they have a zone), dates, or their text.
    """

    def __init__(
        self,
        http_url: str,
        blocking: bool = True,
        sleep_block: float = 0.1,
        namespace: str | None = None,
        chunk_size: int = READ_BYTES,
        *,
        timeout: float = 30.0,
        max_retries: int = 8,
        username: str = "",
        password: str = "",
        token: str = "",
        limits: Limits | None = None,
        exit_timeout: float = EXIT_TIMEOUT,
    ) -> None:
        check_type("http_url", http_url, str)
        check_type("blocking", blocking, bool)
        check_number("sleep_block", sleep_block)
        check_number("chunk_size", check_type("chunk_size", chunk_size, int), 1)
        check_number("max_retries", check_type("max_retries", max_retries, int))
        check_number("exit_timeout", exit_timeout)
        if limits is not None:
            check_type("limits", limits, Limits)
        self._namespace = _namespace(namespace)
        self._connection = Connection(
            http_url, timeout=check_timeout(timeout), username=username, password=password, token=token
        )
        self._chunk_size = chunk_size
        self._max_retries = max_retries
        self._stamp = Stamps()
        self._closed = False
        self._outbox: Outbox | None = None
        if not blocking:
            name = f"Kronos client of {self._connection.url}"
            self._outbox = Outbox(
                self.put_encoded, name, limits or Limits(linger=float(sleep_block)), float(exit_timeout)
            )

    def __repr__(self) -> str:
        return f"KronosClient({self._connection.url!r}, namespace={self._namespace!r})"

    def close(self, timeout: float = 30.0) -> None:
        """Flush, then end; what is not delivered `timeout` seconds later is given up. Raises as :meth:`flush`."""
        check_number("timeout", timeout)
        if self._closed:
            return
        self._closed = True
        try:
            if self._outbox is not None:
                self._outbox.close(timeout)
        finally:
            self._connection.close()

    def index(self) -> dict[str, Any]:
        """What the server says about itself."""
        self._open()
        return self._connection.call("GET", wire.INDEX, None)

    def put(
        self,
        event_dict: Mapping[str, Iterable[Mapping[str, Any]]],
        namespace: str | None = None,
        *,
        timeout: float = 0.0,
    ) -> dict[str, Any] | None:
        """Put events by stream, ``{stream: [event, ...]}``; they are checked and encoded at the call.

        An event is a dict that JSON has a form for. One without ``@time`` gets the present time, strictly increasing
        from event to event; each gets ``@library``. Returns the reply, with counts per stream and backend; or None at
        once from a client that does not block, which waits up to `timeout` seconds for room in its buffer.

        Raises:
            InvalidEvent: an event or stream is not fit; the message names it. Nothing of the call was put.
            EventsRefused: the server refused some; the others are stored.
            BufferFull, RecordTooLarge: from a client that does not block: nothing of the call was put.
        """
        self._open()
        chosen = self._chosen(namespace)
        puts = encode(event_dict, self._stamp, _RULES)
        if self._outbox is not None:
            self._outbox.put(chosen, puts, timeout)
            return None
        return self.put_encoded(wire.put_request(chosen, ((put.stream, put.body) for put in puts)))

    def put_encoded(self, body: bytes) -> dict[str, Any]:
        """Put the JSON text of a whole request as it is, and wait for the reply; the namespace is not added."""
        reply = self._connection.call("POST", wire.PUT, body)
        if reply["@success"]:
            return reply
        results = [
            item for backends in reply.values() if isinstance(backends, dict) for item in backends.values()
        ]
        unwritten = any(isinstance(item, dict) and item.get("num_inserted") == -1 for item in results)
        what = f"{self._connection.url}{wire.PUT}: {errors_of(reply)}"
        if unwritten:
            raise ServerUnavailable(
                f"{what}; the server could not write, send again", status=200, reply=reply
            )
        raise EventsRefused(f"{what}; the other events are stored", status=200, reply=reply)

    def flush(self, timeout: float = 30.0) -> None:
        """Wait until the server has all that was put; a client that blocks has nothing to wait for.

        Raises:
            NotDelivered: it has not, `timeout` seconds later; it is still being tried.
            RecordsRejected: since the last flush, the server refused events for good; all others are stored.
        """
        self._open()
        check_number("timeout", timeout)
        if self._outbox is not None:
            self._outbox.batcher.flush(timeout)

    def on(self, kind: EventKind, handler: Callable[[DeliveryEvent[Queued]], object]) -> KronosClient:
        """Call `handler` at ``send``, ``flush`` or ``error`` of a client that does not block; returns this client.

        Handlers run on the sending thread, so they should be quick; one that raises is logged. An error without
        ``rejections`` is tried again.
        """
        self._open()
        if self._outbox is None:
            raise ValueError("a client that blocks has no events; make it with blocking=False")
        check_callable("a handler", handler)
        self._outbox.on(kind, handler)
        return self

    @property
    def pending(self) -> int:
        """Events put and not yet stored or refused."""
        return 0 if self._outbox is None else self._outbox.batcher.pending

    @property
    def problem(self) -> str | None:
        """Why the latest request of a client that does not block failed, in one line; None if it did not."""
        return None if self._outbox is None else self._outbox.batcher.problem

    def get(
        self,
        stream: str,
        start_time: int | date | str | None,
        end_time: int | date | str,
        start_id: str | None = None,
        limit: int | None = None,
        order: str = wire.ResultOrder.ASCENDING,
        namespace: str | None = None,
        timeout: float | None = None,
    ) -> Iterator[dict[str, Any]]:
        """The events of a stream, as they arrive; nothing is sent before the first is asked for.

        A reply that breaks off is resumed after the last event, so that none is missing or given twice.

        Args:
            start_time: first time, inclusive.
            end_time: last time, inclusive; what is later than ``MAX_TIME`` means for ever.
            start_id: only events after this ``@id``, in place of `start_time`.
            limit: most events to give.
            order: one of :class:`~protocols.kronos.wire.ResultOrder`.
            namespace: in place of the client's.
            timeout: in place of the client's.
        """
        self._open()
        if order not in list(wire.ResultOrder):
            raise ValueError(f"order must be ascending or descending, not {order!r}")
        most = wire.NO_LIMIT if limit is None else check_type("limit", limit, int)
        seconds = self._connection.timeout if timeout is None else check_timeout(timeout)
        request = {**self._range(stream, start_time, end_time, start_id, namespace), "order": str(order)}

        def lines(body: bytes) -> Iterator[bytes]:
            return self._connection.lines(wire.GET, body, self._chunk_size, seconds)

        return resume.events(lines, request, most, self._max_retries)

    def delete(
        self,
        stream: str,
        start_time: int | date | str | None,
        end_time: int | date | str,
        start_id: str | None = None,
        namespace: str | None = None,
    ) -> dict[str, Any]:
        """Delete the events of a range, its bounds as those of :meth:`get`.

        Returns the reply, with ``num_deleted`` per backend of the stream.
        """
        self._open()
        request = self._range(stream, start_time, end_time, start_id, namespace)
        reply = self._connection.call("POST", wire.DELETE, orjson.dumps(request))
        if not reply["@success"]:
            raise ServerUnavailable(
                f"{self._connection.url}{wire.DELETE}: {errors_of(reply)}; try again", status=200, reply=reply
            )
        return reply

    def get_streams(self, namespace: str | None = None) -> Iterator[str]:
        """The names of the streams, as they arrive; nothing is sent before the first is asked for."""
        self._open()
        body = orjson.dumps(self._with_namespace({}, namespace))
        return (line.decode("ascii") for line in self._connection.lines(wire.STREAMS, body, self._chunk_size))

    def infer_schema(self, stream: str, namespace: str | None = None) -> dict[str, Any]:
        """The reply with the JSON schema of the newest events of a stream, under ``schema``."""
        self._open()
        request = self._with_namespace({"stream": _stream(stream)}, namespace)
        return self._connection.call("POST", wire.INFER_SCHEMA, orjson.dumps(request))

    def log_function(
        self,
        stream: str,
        properties: Mapping[str, Callable[Params, Any]] = tracing.NOTHING,
        log_function_stack_trace: bool = False,
        log_exception_stack_trace: bool = False,
        namespace: str | None = None,
    ) -> Callable[[Callable[Params, Result]], Callable[Params, Result]]:
        """A decorator that puts an event per call; see :func:`protocols.kronos.tracing.log_function`."""
        self._open()
        trace = tracing.Trace(log_function_stack_trace, log_exception_stack_trace)
        return tracing.log_function(self._putter(stream, namespace), properties, trace)

    def log_scope(
        self,
        stream: str,
        properties: Mapping[str, Any] = tracing.NOTHING,
        log_function_stack_trace: bool = False,
        log_exception_stack_trace: bool = False,
        namespace: str | None = None,
    ) -> AbstractContextManager[dict[str, Any]]:
        """A context that puts an event at its end; see :func:`protocols.kronos.tracing.log_scope`."""
        self._open()
        trace = tracing.Trace(log_function_stack_trace, log_exception_stack_trace)
        return tracing.log_scope(self._putter(stream, namespace), properties, trace)

    def _putter(self, stream: str, namespace: str | None) -> Callable[[dict[str, Any]], object]:
        stream, chosen = _stream(stream), self._chosen(namespace)
        return lambda event: self.put({stream: [event]}, chosen)

    def _open(self) -> None:
        if self._closed:
            raise Closed(f"{self!r} is closed; make another")

    def _chosen(self, namespace: str | None) -> str | None:
        return self._namespace if namespace is None else _namespace(namespace)

    def _with_namespace(self, request: dict[str, Any], namespace: str | None) -> dict[str, Any]:
        chosen = self._chosen(namespace)
        return request if chosen is None else {**request, "namespace": chosen}

    def _range(
        self,
        stream: str,
        start_time: int | date | str | None,
        end_time: int | date | str,
        start_id: str | None,
        namespace: str | None,
    ) -> dict[str, Any]:
        """What :meth:`get` and :meth:`delete` ask for. Times that no id can hold are brought within: servers wrap."""
        request: dict[str, Any] = {"stream": _stream(stream), "end_time": _bound(end_time)}
        if start_id:
            wire.first_key_after(start_id)  # a server may take what is no id for the lowest one
            request["start_id"] = start_id
        elif start_time is None:
            raise TypeError("start_time is None; give a time, or a start_id")
        else:
            request["start_time"] = _bound(start_time)
        return self._with_namespace(request, namespace)


def _bound(time: int | date | str) -> int:
    return min(max(to_kronos_time(time), wire.MIN_TIME), wire.MAX_TIME)


def _stream(stream: str) -> str:
    check_type("stream", stream, str)
    if not wire.is_stream_name(stream):
        raise wire.InvalidStreamName(stream)
    return stream


def _namespace(namespace: str | None) -> str | None:
    if namespace is not None:
        check_type("namespace", namespace, str)
        if not namespace:
            raise ValueError("the namespace is empty; leave it out for the server's default one")
    return namespace
