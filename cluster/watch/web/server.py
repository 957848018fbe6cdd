"""The web page of a pipeline and the endpoints beside it, over HTTP. What they answer was made before they are asked.

Whoever reaches the port may read; nothing can be changed, and no status holds a credential. A browser that follows a
name of a stranger's to this address (DNS rebinding) is refused by the name: see :func:`_known`.
"""

from __future__ import annotations

import gzip
import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, ExitStack
from importlib import resources
from typing import Any
from urllib.parse import urlsplit

import orjson
from aiohttp import web

from cluster.supervisor.readiness import lacking
from cluster.watch.metrics import exposition
from cluster.watch.web.history import History
from protocols.http_server import HttpServer

#: Seconds without a new status after which the supervisor is not alive.
PATIENCE = 30.0

#: Answers above this size go compressed, in bytes.
_LARGE = 4096

_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}

#: Nothing from elsewhere, nothing inline, and no text that becomes markup.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Server": "tablecast",
}


class Board:
    """What the endpoints answer. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._history = History()
        self._status: dict[str, Any] | None = None
        self._shown_at = time.monotonic()

    def show(self, status: dict[str, Any], sample: bool) -> None:
        """Answer with `status` from now on; with `sample`, it is one of the history."""
        with self._lock:
            self._status, self._shown_at = status, time.monotonic()
            if sample:
                self._history.add(status)

    def live(self) -> web.Response:
        silent = time.monotonic() - self._shown_at
        return _text(
            [] if silent < PATIENCE else [f"the supervisor has said nothing for {silent:.0f} s"], "live"
        )

    def ready(self) -> web.Response:
        status = self._status
        return _text(["the supervisor starts"] if status is None else lacking(status), "ready")

    def status(self) -> web.Response:
        status = self._status
        return _text(["the supervisor starts"], "") if status is None else _json(status)

    def metrics(self) -> web.Response:
        status = self._status
        if status is None:
            return _text(["the supervisor starts"], "")
        return web.Response(
            body=exposition(status), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        )

    def history(self, table: str | None) -> web.Response:
        with self._lock:
            found = self._history.totals() if table is None else self._history.table(table)
        return web.Response(status=404, text="no such table\n") if found is None else _json(found)


class WebServer(HttpServer):
    """Serves `board` on `host` and `port`, to requests for addresses, ``localhost`` and `names`."""

    def __init__(self, board: Board, host: str, port: int, names: Sequence[str] = ()) -> None:
        super().__init__("web page", host, port)
        own = () if _loopback(host) else (socket.gethostname(), socket.getfqdn(), host)
        self._names = frozenset(name.lower() for name in ("localhost", *names, *own))
        self._endpoints: dict[str, Callable[[web.BaseRequest], web.Response]] = {
            "/live": lambda request: board.live(),
            "/ready": lambda request: board.ready(),
            "/status": lambda request: board.status(),
            "/metrics": lambda request: board.metrics(),
            "/history": lambda request: board.history(request.query.get("table")),
        }

    def _open(self, resources_: ExitStack) -> None:
        for file in resources.files("cluster.watch.web").iterdir():
            suffix = file.name.rpartition(".")[2]
            if suffix in _TYPES:
                name = "" if file.name == "page.html" else file.name
                self._endpoints[f"/{name}"] = _file(file.read_bytes(), _TYPES[suffix])

    async def _serve(self, running: AsyncExitStack) -> web.Server:
        return web.Server(self._answer, access_log=None)

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        response = self._respond(request)
        if (
            isinstance(response.body, bytes)
            and len(response.body) > _LARGE
            and "gzip" in request.headers.get("Accept-Encoding", "")
        ):
            response.body = gzip.compress(response.body, 1)
            response.headers["Content-Encoding"] = "gzip"
        response.headers.update(_HEADERS)
        return response

    def _respond(self, request: web.BaseRequest) -> web.Response:
        if request.method not in ("GET", "HEAD"):
            return web.Response(status=405, headers={"Allow": "GET, HEAD"}, text="only GET\n")
        if not _known(request.headers.get("Host", ""), self._names):
            text = "not a name of this page; add it to web.names in the pipeline's file\n"
            return web.Response(status=421, text=text)
        endpoint = self._endpoints.get(request.path)
        return web.Response(status=404, text="not found\n") if endpoint is None else endpoint(request)


def _known(host: str, names: frozenset[str]) -> bool:
    """Whether the header ``Host`` is a known name, or an address: no stranger has a browser take one for another."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    return name in names or _address(name) is not None


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _loopback(host: str) -> bool:
    address = _address(host)
    return host == "localhost" if address is None else address.is_loopback


def _file(body: bytes, kind: str) -> Callable[[web.BaseRequest], web.Response]:
    # A response is sent once.
    return lambda request: web.Response(body=body, content_type=kind, charset="utf-8")


def _json(values: dict[str, Any]) -> web.Response:
    return web.Response(body=orjson.dumps(values), content_type="application/json")


def _text(problems: Sequence[str], good: str) -> web.Response:
    """`good`, or 503 with a line for each problem."""
    return web.Response(status=503 if problems else 200, text="\n".join(problems or [good]) + "\n")
