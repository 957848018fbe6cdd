"""What the tables of one process share of a Kinetica server: its client, and questions that are not about one table."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from protocols.kinetica.client import KineticaClient

#: Seconds for which the answer is right that names the port of the publisher.
PORT_AGE = 2.0

Value = TypeVar("Value")


class Shared(Generic[Value]):
    """The answer to a question that many threads have at about the same time. Thread-safe.

    Failures are shared too, or they would all wait for a server that hangs, one after the other.
    """

    def __init__(self, ask: Callable[[], Value]) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._at = 0.0
        self._answer: Future[Value] | None = None

    def get(self, age: float) -> tuple[float, Value]:
        """When it was asked (monotonic), at most `age` seconds ago, and the answer. Raises what asking raises."""
        with self._lock:
            now = time.monotonic()
            answer, at = self._answer, self._at
            if mine := answer is None or now > at + age or age == 0:
                answer, at = self._answer, self._at = Future(), now
        assert answer is not None
        if mine:
            try:
                answer.set_result(self._ask())
            except BaseException as error:
                answer.set_exception(error)
        return at, answer.result()


class Server:
    """A server, to be got with :func:`lease` and given back with :meth:`release`.

    Attributes:
        client: of all tables that have this lease. After a failover it is at another cluster for all of them.
    """

    def __init__(self, source: Mapping[str, Any]) -> None:
        self.client = KineticaClient(**source)
        self.holders = 0
        self._topics = Shared(lambda: {monitor.topic_id for monitor in self.client.show_table_monitors()})
        self._port = Shared(self.client.monitor_port)

    def topics(self, age: float) -> tuple[float, set[str]]:
        """All topics that the server knows, and when it was asked, at most `age` seconds ago."""
        return self._topics.get(age)

    def monitor_port(self) -> int:
        """The publisher's port."""
        return self._port.get(PORT_AGE)[1]

    def release(self) -> None:
        """Give it back; the last who does closes its connections."""
        with _leasing:
            self.holders -= 1
            if self.holders > 0:
                return
            for key in [key for key, server in _leased.items() if server is self]:
                del _leased[key]
        self.client.close()


_leased: dict[str, Server] = {}
_leasing = threading.Lock()


def lease(source: Mapping[str, Any]) -> Server:
    """The server that these arguments of :class:`KineticaClient` describe: the same for all who have it at a time."""
    key = json.dumps(dict(source), sort_keys=True, default=str)
    with _leasing:
        if (server := _leased.get(key)) is None:
            server = _leased[key] = Server(source)
        server.holders += 1
        return server
