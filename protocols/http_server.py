"""What the embedded HTTP servers have in common: a directory of their own, a thread with an event loop, a listening
socket, an orderly end."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import threading
from abc import ABC, abstractmethod
from concurrent.futures import Future
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from aiohttp import web

#: Seconds that requests in progress may take to end when a server stops.
SHUTDOWN_TIMEOUT = 10.0


class HttpServer(ABC):
    """A server on `host` and `port` (0 for one chosen by the system); subclasses say what it serves.

    Args:
        name: what messages call it.
    """

    def __init__(self, name: str, host: str, port: int) -> None:
        self._name = name
        self._host = host
        self._port = port
        self._resources = ExitStack()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None

    @abstractmethod
    def _open(self, resources: ExitStack) -> None:
        """Open what the server keeps between requests; `resources` close after it has stopped."""

    @abstractmethod
    async def _serve(self, running: AsyncExitStack) -> web.Server | web.Application:
        """What answers requests; `running` closes after the last one, on the server's event loop."""

    @property
    def port(self) -> int:
        """The port listened on, once started; a server that is started again keeps it."""
        return self._port

    @property
    def url(self) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self.port}"

    def start(self) -> None:
        """Return when the server listens.

        Raises ``OSError`` (one line) if the port is in use, the directory is used by another process, or its
        file is of another kind; ``RuntimeError`` if it is running already.
        """
        if self._thread is not None:
            raise RuntimeError(f"the {self._name} is running already")
        with ExitStack() as resources:
            self._open(resources)
            listening: Future[int] = Future()
            thread = threading.Thread(
                target=lambda: asyncio.run(self._run(listening)), name=self._name, daemon=True
            )
            thread.start()
            try:
                self._port = listening.result()
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

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def _run(self, listening: Future[int]) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        async with AsyncExitStack() as running:
            try:
                runner = _runner(await self._serve(running))
                running.push_async_callback(runner.cleanup)
                await runner.setup()
                await web.TCPSite(runner, self._host, self._port).start()
                port: int = runner.addresses[0][1]
            except Exception as error:
                listening.set_exception(error)
                return
            listening.set_result(port)
            await self._stopping.wait()

    def _lock(self, directory: Path, resources: ExitStack) -> None:
        """Make the directory, and hold its lock until `resources` close; a process that dies gives it up."""
        directory.mkdir(parents=True, exist_ok=True)
        file = resources.enter_context(open(directory / "lock", "wb"))  # noqa: SIM115
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError(
                errno.EAGAIN, f"{directory} is in use by another {self._name}: choose another directory"
            ) from None


def _runner(served: web.Server | web.Application) -> web.BaseRunner:
    if isinstance(served, web.Application):
        return web.AppRunner(served, access_log=None, shutdown_timeout=SHUTDOWN_TIMEOUT)
    return web.ServerRunner(served, shutdown_timeout=SHUTDOWN_TIMEOUT)
