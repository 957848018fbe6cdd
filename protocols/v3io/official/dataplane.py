"""What the clients under the official ``v3io`` package's names share: settings, sending, threads, closing.

A request is sent again only if nothing was sent before (there was no connection), or if doing it twice is the same as
doing it once and its reply was lost, or said that the server is busy. So PutRecords, appends, updates by expression,
conditional writes and deletions are never doubled by a retry. What timed out is not sent again.
"""

from __future__ import annotations

import logging
import os
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, BinaryIO, Literal

import requests

from protocols.checks import check_number, check_timeout, check_type
from protocols.retry_after import parse_retry_after
from protocols.v3io.connection import Connection, check_access_key
from protocols.v3io.errors import TRANSIENT_STATUSES, ConnectionFailed, NotConnected
from protocols.v3io.official.calls import Call
from protocols.v3io.official.response import Allowed, Response
from protocols.v3io.wire import SESSION_HEADER

DEFAULT_CONNECTIONS = 8
#: Seconds to connect, and then to wait for each part of a reply; that of the official package.
DEFAULT_TIMEOUT = 20.0
#: Seconds before each repetition of a request; each is shortened at random, by at most half.
DEFAULT_RETRY_INTERVALS = (0.1, 0.5)
#: Most seconds to wait because a busy server says so.
LONGEST_WISH = 5.0
#: Statuses of a server that has not done what it was asked, and may do it soon.
_BUSY = (*TRANSIENT_STATUSES, 503)

#: Does a call, and others that it needs, with what ``raise_for_status`` is where the call does not say.
Job = Callable[[Allowed], Response]


class Dataplane:
    """One server as its clients see it; arguments as those of :class:`protocols.v3io.official.client.Client`."""

    def __init__(
        self,
        logger: Any = None,
        endpoint: str | None = None,
        access_key: str | None = None,
        max_connections: int | None = None,
        timeout: float | None = None,
        logger_verbosity: str | None = None,
        transport_verbosity: str = "info",
        retry_intervals: Sequence[float] | None = None,
        verify: Literal[True] | str = True,
    ) -> None:
        key = _optional("access_key", access_key) or os.environ.get("V3IO_ACCESS_KEY")
        if not key:
            raise ValueError(
                "Access key must be provided in Client() arguments or in the V3IO_ACCESS_KEY environment variable"
            )
        self.connections: int = DEFAULT_CONNECTIONS
        if max_connections is not None:
            self.connections = check_type("max_connections", max_connections, int)
            check_number("max_connections", max_connections, 1)
        pauses = DEFAULT_RETRY_INTERVALS if retry_intervals is None else retry_intervals
        if not isinstance(pauses, Sequence) or isinstance(pauses, str):
            raise TypeError(f"retry_intervals must be a list of seconds, not {pauses!r:.80}")
        self._pauses = tuple(check_number("each of retry_intervals", pause) for pause in pauses)
        self._logger = _logger(logger, logger_verbosity)
        self._logs_requests = _verbosity("transport_verbosity", transport_verbosity) == "DEBUG"
        self._connection = Connection(
            _endpoint(endpoint),
            key,
            timeout=check_timeout(DEFAULT_TIMEOUT if timeout is None else timeout),
            connections=self.connections,
            verify=verify,
        )
        self._lock = threading.Lock()
        self._threads: ThreadPoolExecutor | None = None

    @property
    def url(self) -> str:
        return self._connection.url

    def check(self, access_key: str | None, transport_actions: object) -> None:
        """Check what every call can be given. Raises ``RuntimeError`` on a closed client."""
        self._connection.check_open()
        check_access_key(_optional("access_key", access_key) or None)
        if transport_actions is not None:
            raise ValueError("transport_actions is not supported: collect calls with client.create_batch()")

    def exchange(self, call: Call, access_key: str | None, allowed: Allowed) -> Response:
        """The reply to a call. Raises ``HttpResponseError``, and what :meth:`Connection.send` raises."""
        headers = call.headers if not access_key else {**call.headers, SESSION_HEADER: access_key}
        reply = self._reply(call, headers)
        response = Response(call.output, reply.status_code, reply.headers, reply.content)
        response.raise_for_status(allowed)
        return response

    def submit(self, job: Job, allowed: Allowed) -> Future[Response]:
        """Do a job on a thread, at most as many at a time as there are connections."""
        with self._lock:
            self._connection.check_open()
            if self._threads is None:
                self._threads = ThreadPoolExecutor(self.connections, thread_name_prefix="v3io-client")
            return self._threads.submit(job, allowed)

    def close(self) -> None:
        """Refuse further calls, and wait for those under way."""
        with self._lock:
            threads, self._threads = self._threads, None
        self._connection.close()
        if threads is not None:
            threads.shutdown()

    def _reply(self, call: Call, headers: Mapping[str, str]) -> requests.Response:
        rewind = _rewinder(call.body)
        repeatable = call.repeatable and rewind is not None
        for pause in self._pauses:
            try:
                reply = self._send(call, headers)
            except ConnectionFailed as error:
                if not (repeatable or isinstance(error, NotConnected)):
                    raise
            else:
                if not repeatable or reply.status_code not in _BUSY:
                    return reply
                wish = parse_retry_after(reply.headers.get("Retry-After")) or 0.0
                pause = max(pause, min(wish, LONGEST_WISH))
            self._connection.pause(pause * random.uniform(0.5, 1.0))
            if rewind is not None:
                rewind()
        return self._send(call, headers)

    def _send(self, call: Call, headers: Mapping[str, str]) -> requests.Response:
        if self._logs_requests:
            self._logger.debug(f"Tx {call.method} {call.path}")
        reply = self._connection.send(call.method, call.path, call.body, headers)
        if self._logs_requests:
            self._logger.debug(f"Rx {reply.status_code} for {call.method} {call.path}")
        return reply


def _rewinder(body: bytes | BinaryIO | None) -> Callable[[], object] | None:
    """What brings a body back to where it stands now; None if nothing can."""
    if body is None or isinstance(body, bytes):
        return lambda: None
    try:
        start = body.tell()
        body.seek(start)
    except (AttributeError, OSError):
        return None
    return lambda: body.seek(start)


def _endpoint(endpoint: str | None) -> str:
    url = _optional("endpoint", endpoint) or os.environ.get("V3IO_API")
    if not url:
        raise RuntimeError("Endpoints must be passed to context or specified in V3IO_API")
    return url if "://" in url else f"http://{url}"


def _logger(logger: Any, verbosity: str | None) -> Any:
    if logger is not None:
        if not callable(getattr(logger, "debug", None)):
            raise TypeError(
                f"logger must be a logger, not {type(logger).__name__}; a URL is given as endpoint=…"
            )
        return logger
    own = logging.getLogger("tablecast.v3io")
    if verbosity is not None:
        own.setLevel(_verbosity("logger_verbosity", verbosity))
    return own


def _verbosity(name: str, value: str) -> str:
    if not isinstance(value, str) or value.upper() not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise ValueError(f"{name} must be INFO or DEBUG, not {value!r:.80}")
    return value.upper()


def _optional(name: str, value: str | None) -> str | None:
    if value is not None:
        check_type(name, value, str)
    return value
