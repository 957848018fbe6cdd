"""The embedded V3IO server as a whole: its directory, thread and listening socket."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

from aiohttp import web

from protocols.http_server import HttpServer
from protocols.v3io import wire
from protocols.v3io.server.api import MAX_PATH_BYTES, Api
from protocols.v3io.server.store import Store, connect
from protocols.v3io.server.worker import Worker

#: The containers that a V3IO system comes with.
DEFAULT_CONTAINERS = ("bigdata", "projects", "users")


class V3ioServer(HttpServer):
    """A server of V3IO's data plane over SQLite: objects, table items and streams.

    Args:
        data_dir: directory of the files, durable before a request is answered; created if missing, used by
            one process at a time. None keeps everything in memory.
        host: address to listen on.
        port: TCP port, 0 for one chosen by the system.
        access_key: if given, requests without it are refused.
        containers: made at the start if they are missing; clients cannot make any.
        max_body_bytes: largest body of a request, and largest object.

    Raises ``ValueError`` for an empty access key or a container that cannot have that name.
    """

    def __init__(
        self,
        *,
        data_dir: str | os.PathLike[str] | None = None,
        host: str = "127.0.0.1",
        port: int = wire.DEFAULT_PORT,
        access_key: str | None = None,
        containers: Sequence[str] = DEFAULT_CONTAINERS,
        max_body_bytes: int = 256 * 1024 * 1024,
    ) -> None:
        for name in [containers] if isinstance(containers, str) else containers:
            if isinstance(containers, str) or not name or "/" in name:
                raise ValueError(f"containers must be a list of names without slashes, not {containers!r}")
        if access_key == "":
            raise ValueError("the access key is empty: leave it out to let everybody in")
        super().__init__("V3IO server", host, port)
        self._data_dir = None if data_dir is None else Path(data_dir)
        self._access_key = access_key
        self._containers = tuple(containers)
        self._max_body_bytes = max_body_bytes
        self._connection: sqlite3.Connection

    def _open(self, resources: ExitStack) -> None:
        file = None
        if self._data_dir is not None:
            self._lock(self._data_dir, resources)
            file = self._data_dir / "v3io.sqlite"
        self._connection = connect(file)
        resources.callback(self._connection.close)
        self._connection.execute("BEGIN")
        Store(self._connection).add_containers(self._containers)
        self._connection.execute("COMMIT")

    async def _serve(self, running: AsyncExitStack) -> web.Server:
        worker = Worker(self._connection)
        running.push_async_callback(worker.close)
        return web.Server(
            Api(worker, self._access_key, self._max_body_bytes),
            access_log=None,
            auto_decompress=False,
            max_line_size=MAX_PATH_BYTES,
            max_field_size=MAX_PATH_BYTES,
        )
