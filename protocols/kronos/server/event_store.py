"""The event store as a whole: its directory, threads and listening socket."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

from aiohttp import web

from protocols.http_server import HttpServer
from protocols.kronos.server.api import MODES, Api, Mode, Settings
from protocols.kronos.server.store import connect
from protocols.kronos.server.writer import Writer

#: Threads, each with its own connection, that read for all clients.
READERS = 4


class EventStore(HttpServer):
    """A Kronos server over SQLite, durable before it answers, that stores no ``@origin`` twice in a stream.

    A put's reply counts under ``num_inserted`` the valid events of a stream, and under ``num_duplicates``
    those of them that the stream already held. Events of equal time are read back in the order of the offsets
    of their origins (below 2^44), or of their arrival.

    Args:
        data_dir: directory of the files; created if missing, used by one process at a time.
        host: address to listen on.
        port: TCP port, 0 for one chosen by the system.
        namespaces: the namespaces served; the first is the default.
        mode: ``all``, ``readonly`` (no put and delete) or ``collector`` (put only).
        node_id: the ``id`` that the index shows.
        flush_size: bytes after which a part of a streamed reply is sent.
        max_body_bytes: largest request body.
        cors_whitelist_domains: regular expressions; web origins that one matches at the start pass the
        preflight.

    Raises ``ValueError`` for an unknown mode, no namespaces, or a pattern that is not a regular expression.
    """

    def __init__(
        self,
        *,
        data_dir: str | os.PathLike[str],
        host: str = "127.0.0.1",
        port: int = 8151,
        namespaces: Sequence[str] = ("kronos",),
        mode: Mode = "all",
        node_id: str = "tablecast",
        flush_size: int = 131072,
        max_body_bytes: int = 256 * 1024 * 1024,
        cors_whitelist_domains: Sequence[str] = (),
    ) -> None:
        if mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}, not {mode!r}")
        if isinstance(namespaces, str) or not namespaces or not all(namespaces):
            raise ValueError("namespaces must be a list of one or more names")
        for pattern in cors_whitelist_domains:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"cors_whitelist_domains: {pattern!r}: {error}") from None
        super().__init__("event store", host, port)
        self._settings = Settings(
            tuple(namespaces),
            mode,
            node_id,
            max(flush_size, 1),
            max_body_bytes,
            tuple(cors_whitelist_domains),
        )
        self._data_dir = Path(data_dir)
        self._connections: list[sqlite3.Connection] = []

    def _open(self, resources: ExitStack) -> None:
        self._lock(self._data_dir, resources)
        self._connections = []
        for _ in range(1 + READERS):
            self._connections.append(connect(self._data_dir / "events.sqlite"))
            resources.callback(self._connections[-1].close)

    async def _serve(self, running: AsyncExitStack) -> web.Server:
        writer = Writer(self._connections[0])
        api = Api(self._settings, writer, self._connections[1:])
        running.push_async_callback(writer.close)
        running.callback(api.close)
        return web.Server(api, access_log=None, auto_decompress=False)
