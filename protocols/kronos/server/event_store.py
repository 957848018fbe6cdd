"""The event store as a whole: its directory, threads and listening socket."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import re
import sqlite3
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from types import TracebackType

from aiohttp import web

from protocols.kronos.server.api import MODES, Api, Mode, Settings
from protocols.kronos.server.store import connect
from protocols.kronos.server.writer import Writer

#: Threads, each with its own connection, that read for all clients.
READERS = 4
#: Seconds that requests in progress may take to end when the server stops.
SHUTDOWN_TIMEOUT = 10.0


class EventStore:
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
        self._settings = Settings(
            tuple(namespaces),
            mode,
            node_id,
            max(flush_size, 1),
            max_body_bytes,
            tuple(cors_whitelist_domains),
        )
        self._data_dir = Path(data_dir)
        self._host = host
        self._port = port
        self._bound_port = port
        self._resources = ExitStack()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None

    @property
    def port(self) -> int:
        """The port listened on, once started."""
        return self._bound_port

    @property
    def url(self) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self.port}"

    def start(self) -> None:
        """Return when the server listens.

        Raises ``OSError`` (one line) if the port is in use, the directory is used by another process, or its
        file is not an event store; ``RuntimeError`` if it is running already.
        """
        if self._thread is not None:
            raise RuntimeError("the event store is running already")
        with ExitStack() as resources:
            self._data_dir.mkdir(parents=True, exist_ok=True)
            _lock(self._data_dir, resources)
            connections: list[sqlite3.Connection] = []
            for _ in range(1 + READERS):
                connections.append(connect(self._data_dir / "events.sqlite"))
                resources.callback(connections[-1].close)
            listening: Future[int] = Future()
            thread = threading.Thread(
                target=lambda: asyncio.run(self._serve(connections, listening)),
                name="kronos-http",
                daemon=True,
            )
            thread.start()
            try:
                self._bound_port = listening.result()
            except OSError as error:
                thread.join()
                if error.errno == errno.EADDRINUSE:
                    raise OSError(
                        errno.EADDRINUSE, f"port {self._port} on {self._host} is in use: choose another"
                    ) from None
                raise
            self._thread = thread
            self._resources = resources.pop_all()

    def stop(self) -> None:
        """Finish the requests in progress, close the files. Does nothing if the server is not running."""
        if self._thread is None or self._loop is None or self._stopping is None:
            return
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()
        self._thread = None
        self._resources.close()

    def __enter__(self) -> EventStore:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def _serve(self, connections: list[sqlite3.Connection], listening: Future[int]) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        writer = Writer(connections[0])
        api = Api(self._settings, writer, connections[1:])
        async with AsyncExitStack() as running:
            running.push_async_callback(writer.close)
            running.callback(api.close)
            runner = web.ServerRunner(
                web.Server(api, access_log=None, auto_decompress=False), shutdown_timeout=SHUTDOWN_TIMEOUT
            )
            running.push_async_callback(runner.cleanup)
            try:
                await runner.setup()
                await web.TCPSite(runner, self._host, self._port).start()
                port: int = runner.addresses[0][1]
            except Exception as error:
                listening.set_exception(error)
                return
            listening.set_result(port)
            await self._stopping.wait()


def _lock(directory: Path, resources: ExitStack) -> None:
    """Hold the directory's lock until `resources` close; the system gives it up when the process dies."""
    file = resources.enter_context(open(directory / "lock", "wb"))  # noqa: SIM115
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OSError(
            errno.EAGAIN, f"{directory} is in use by another event store: choose another directory"
        ) from None
