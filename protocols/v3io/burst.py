"""Many small requests at once over a few kept connections, from one thread: for items, of which each is a request.

Only for requests that may be sent twice. Whatever is not a plain success is left to the ordinary way of
``client.py``, which knows what to make of it: so there is no reading of errors here, no redirect and no retry.
"""

from __future__ import annotations

import re
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Literal
from urllib.parse import urlsplit

from requests.utils import DEFAULT_CA_BUNDLE_PATH

_SUCCESS = re.compile(rb"HTTP/1\.1 2\d\d ")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,9})[ \t]*\r\n", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection:[ \t]*close[ \t]*\r\n", re.IGNORECASE)

#: Most bytes of a reply's head; more is not a plain success.
_HEAD_BYTES = 16 * 1024


class _NotPlain(Exception):
    """The reply is not a plain success, or there is none."""


class Burst:
    """Connections to one server; `timeout` and `verify` as in :class:`~protocols.v3io.client.V3ioClient`."""

    def __init__(self, url: str, timeout: float, connections: int, verify: Literal[True] | str) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
        self._tls = None
        if parts.scheme == "https":
            self._tls = ssl.create_default_context(
                cafile=DEFAULT_CA_BUNDLE_PATH if verify is True else verify
            )
        self._timeout = timeout
        self._connections = connections
        self._idle: list[socket.socket] = []
        self._lock = threading.Lock()

    def send(self, requests: Sequence[bytes]) -> list[bool]:
        """Send whole requests in any order; whether each was answered with a plain success within the timeout."""
        answered = [False] * len(requests)
        deadline = time.monotonic() + self._timeout
        waiting: deque[tuple[socket.socket, int]] = deque()
        try:
            for number, request in enumerate(requests):
                if len(waiting) == self._connections:
                    self._answer(waiting, answered, deadline)
                connection = self._take() or self._connect(deadline)
                waiting.append((connection, number))
                connection.settimeout(_left(deadline))
                connection.sendall(request)
            while waiting:
                self._answer(waiting, answered, deadline)
        except OSError:  # no connection, or no answer in time: whoever goes on would wait as long again
            for connection, _ in waiting:
                connection.close()
        return answered

    def _answer(
        self, waiting: deque[tuple[socket.socket, int]], answered: list[bool], deadline: float
    ) -> None:
        connection, number = waiting[0]
        try:
            keep = _read_success(connection, deadline)
        except _NotPlain:
            waiting.popleft()
            connection.close()
            return
        waiting.popleft()
        answered[number] = True
        with self._lock:
            if keep and len(self._idle) < self._connections:
                self._idle.append(connection)
                return
        connection.close()

    def _take(self) -> socket.socket | None:
        with self._lock:
            return self._idle.pop() if self._idle else None

    def _connect(self, deadline: float) -> socket.socket:
        connection = socket.create_connection(self._address, _left(deadline))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return (
            self._tls.wrap_socket(connection, server_hostname=self._address[0]) if self._tls else connection
        )

    def close(self) -> None:
        with self._lock:
            while self._idle:
                self._idle.pop().close()


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _receive(connection: socket.socket, deadline: float) -> bytes:
    connection.settimeout(_left(deadline))
    return connection.recv(65536)


def _read_success(connection: socket.socket, deadline: float) -> bool:
    """Read a reply; whether the connection can be used again."""
    reply = b""
    while (end := reply.find(b"\r\n\r\n")) < 0:
        part = _receive(connection, deadline)
        reply += part
        if not part or len(reply) > _HEAD_BYTES:
            raise _NotPlain
    head = reply[: end + 2]
    length = _LENGTH.search(head)
    if not _SUCCESS.match(head) or not (length or head.startswith(b"HTTP/1.1 204")):
        raise _NotPlain
    missing = (int(length[1]) if length else 0) - (len(reply) - end - 4)
    while missing > 0:
        part = _receive(connection, deadline)
        missing -= len(part)
        if not part:
            raise _NotPlain
    if missing:
        raise _NotPlain
    return not _CLOSE.search(head)
