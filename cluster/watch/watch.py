"""Shows a pipeline to those who watch it: the web page, the endpoints and Ray's metrics, from the supervisor's process.

A thread beside the supervisor's own, which it only asks for its status; whatever fails here is logged and shown.
"""

from __future__ import annotations

import errno
import ipaddress
import logging
import time
from typing import Any, Protocol

import ray

from cluster.config.web import Web
from cluster.watch.ray_metrics import RayMetrics
from cluster.watch.web.history import INTERVAL
from cluster.watch.web.server import Board, WebServer

log = logging.getLogger(__name__)

#: Seconds between two statuses.
TICK = 1.0

#: The ports that are tried where the file names none, after which the system chooses.
PORTS = range(9280, 9300)

#: Attempts to get the port of before back: a process that was stopped, and not killed, may hold it for a while.
ATTEMPTS = 10


class Watched(Protocol):
    """What is asked of a supervisor."""

    @property
    def web(self) -> Web: ...

    @property
    def web_port(self) -> int | None:
        """The port of an earlier life."""

    @property
    def stopped(self) -> bool: ...

    def status(self) -> dict[str, Any]: ...

    def served(self, url: str | None, port: int | None, problem: str | None) -> None:
        """Take note of where the page is."""


class Watch:
    """Shows `supervisor`."""

    def __init__(self, supervisor: Watched) -> None:
        self._supervisor = supervisor
        self._board = Board()
        self._server: WebServer | None = None
        self._settings: Web | None = None
        self._attempts = 0
        self._metrics: RayMetrics | None = None
        self._sampled_at = -INTERVAL

    def run(self) -> None:
        """Work until the supervisor has stopped."""
        while not self._supervisor.stopped:
            began = time.monotonic()
            try:
                self.round(began)
            except Exception:
                log.exception("a round of the watch failed; going on")
            time.sleep(max(0.1, began + TICK - time.monotonic()))
        self.end()

    def round(self, now: float) -> None:
        """Take the status as of `now` (monotonic seconds), and see that there is a server to show it."""
        self._keep_serving()
        status = self._supervisor.status()
        sample = now >= self._sampled_at + INTERVAL
        self._board.show(status, sample)
        if sample:
            self._sampled_at = now
            self._metrics = self._metrics or RayMetrics()
            self._metrics.set(status)

    # -- the server ---------------------------------------------------------------------------------------------

    def _keep_serving(self) -> None:
        """Have the server that the file describes, which may have changed."""
        settings = self._supervisor.web
        if settings != self._settings:
            self.end()
            self._settings, self._attempts = settings, 0
        if self._server is not None or not settings.enabled:
            return
        problem = None
        for port in self._ports(settings):
            server = WebServer(self._board, settings.host, port, settings.names)
            try:
                server.start()
            except OSError as error:
                problem = problem or f"the web page: {error.strerror or error}"
                if error.errno != errno.EADDRINUSE:
                    break
            else:
                self._server = server
                self._supervisor.served(_url(settings.host, server.port), server.port, None)
                return
        self._attempts += 1
        self._supervisor.served(None, None, problem)

    def _ports(self, settings: Web) -> list[int]:
        """The ports to try, in order."""
        if settings.port is not None:
            return [settings.port]
        before = self._supervisor.web_port
        if before is not None and self._attempts < ATTEMPTS:
            return [before]
        return [*PORTS, 0]

    def end(self) -> None:
        """Serve nothing any more."""
        if self._server is not None:
            self._server.stop()
            self._server = None
        self._supervisor.served(None, None, None)


def _url(host: str, port: int) -> str:
    """Where others find what listens on `host`."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return f"http://{host}:{port}"
    shown = ray.util.get_node_ip_address() if address.is_unspecified else host
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"
