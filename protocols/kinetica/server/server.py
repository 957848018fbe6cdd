"""The embedded table server: HTTP and ZeroMQ ports, and the threads behind them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

from aiohttp import web

from protocols.http_server import HttpServer
from protocols.kinetica import wire
from protocols.kinetica.server.catalogue import Catalogue
from protocols.kinetica.server.http import Frontend, Handler
from protocols.kinetica.server.monitors import Monitors
from protocols.kinetica.server.publisher import Publisher
from protocols.kinetica.server.records import Records
from protocols.kinetica.server.system import System
from protocols.kinetica.server.tables import Tables

#: Messages kept for a subscriber that does not keep up. Ten times ZeroMQ's default, because clients that
#: insert row by row make a message of each; with full messages of small records this is some gigabytes, so
#: lower it where that hurts.
DEFAULT_SEND_HWM = 10_000

#: Records in one monitor message.
DEFAULT_MESSAGE_RECORDS = 5_000

#: Rows in one reply of the get endpoints; clients are told that there are more.
DEFAULT_MAX_GET_RECORDS = 1_000_000

#: Requests served at a time. Requests of one table wait for each other, so there are more than there are
#: cores.
THREADS = 32


class TableServer(HttpServer):
    """A server that speaks Kinetica's HTTP and table-monitor protocols, over SQLite.

    Args:
        host: address to listen on.
        port: HTTP port; 0 lets the system choose.
        monitor_port: ZeroMQ port of table monitors; 0 lets the system choose.
        user, password: if `user` is given, requests without these credentials are refused.
        data_dir: where tables are kept; None keeps them in memory. Monitors never survive a restart.
        send_hwm: messages kept for each subscriber that does not keep up; further ones are lost to it.
        message_records: the most records in one monitor message.
        max_get_records: the most rows in one reply.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = wire.DEFAULT_HTTP_PORT,
        monitor_port: int = wire.DEFAULT_MONITOR_PORT,
        user: str | None = None,
        password: str | None = None,
        data_dir: str | Path | None = None,
        send_hwm: int = DEFAULT_SEND_HWM,
        message_records: int = DEFAULT_MESSAGE_RECORDS,
        max_get_records: int = DEFAULT_MAX_GET_RECORDS,
    ) -> None:
        super().__init__("table server", host, port)
        self._monitor_port = monitor_port
        self._credentials = (user, password)
        self._data_dir = None if data_dir is None else Path(data_dir)
        self._send_hwm, self._message_records = send_hwm, message_records
        self._max_get_records = max_get_records
        self._catalogue: Catalogue
        self._publisher: Publisher
        self._executor: ThreadPoolExecutor

    @property
    def monitor_port(self) -> int:
        """The ZeroMQ port; of a server that chooses its own, valid once it is started."""
        return self._monitor_port

    def _open(self, resources: ExitStack) -> None:
        if self._data_dir is not None:
            self._lock(self._data_dir, resources)
        self._catalogue = Catalogue(self._data_dir)
        resources.callback(self._catalogue.close)
        self._publisher = Publisher(send_hwm=self._send_hwm, max_frames=self._message_records)
        resources.callback(self._publisher.close)
        self._monitor_port = self._publisher.bind(self._host, self._monitor_port)
        self._executor = resources.enter_context(
            ThreadPoolExecutor(THREADS, thread_name_prefix="kinetica-request")
        )

    async def _serve(self, running: AsyncExitStack) -> web.Application:
        return Frontend(self._routes(), self._executor, *self._credentials).app

    def _routes(self) -> dict[str, Handler]:
        system = System(self._monitor_port)
        monitors = Monitors(self._catalogue, self._publisher)
        groups = (
            Tables(self._catalogue),
            Records(self._catalogue, monitors, self._max_get_records),
            monitors,
        )
        routes: dict[str, Handler] = {
            "/show/system/status": lambda request, _: system.show_system_status(request),
            "/show/system/properties": system.show_system_properties,
        }
        for path, endpoint in wire.ENDPOINTS.items():
            name = endpoint.request_name.removesuffix("_request")
            for group in groups:
                if hasattr(group, name):
                    routes[path] = _without_host(getattr(group, name))
        return routes


def _without_host(method: Callable[[dict[str, Any]], dict[str, Any]]) -> Handler:
    return lambda request, _: method(request)
