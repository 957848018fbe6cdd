"""An HTTP proxy that misbehaves on order, in front of a real server."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import requests

#: What may happen to a request. The first row happens before the server has it, the second after.
BEFORE = ("reset", "hang", "500", "503", "503 date", "unwritten", "garbage")
AFTER = ("lost", "half", "slow body", "slow head")


class Proxy:
    """Forwards requests to `target`, but does to each what :attr:`plan` has next for it.

    Attributes:
        plan: faults of the next requests, one of BEFORE and AFTER, or "" for none; when empty, none.
        stored: bodies of requests that the server has answered.
        happened: how often each fault was done.
        down: while set, connections are refused as if nobody listened; see :meth:`stop` and :meth:`start`.
    """

    def __init__(self, target: str) -> None:
        self.target = target
        self.plan: deque[str] = deque()
        self.stored: list[bytes] = []
        self.happened: Counter[str] = Counter()
        self.authorizations: set[str | None] = set()
        self.released = threading.Event()
        self._lock = threading.Lock()
        self._port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Listen, after :meth:`stop` on the same port again."""
        self._server = _Server(("127.0.0.1", self._port), _Handler)
        self._server.proxy = self
        self._port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Listen no more: connections are refused."""
        self._server.shutdown()
        self._server.server_close()

    def next_fault(self) -> str:
        with self._lock:
            fault = self.plan.popleft() if self.plan else ""
            self.happened[fault] += 1
            return fault

    def origins(self) -> list[str]:
        """Origins of all events that were put, doubles included, in order of arrival."""
        requests = [json.loads(body) for body in self.stored]
        return [e["@origin"] for r in requests for events in r["events"].values() for e in events]


@contextmanager
def proxy(target: str, plan: Iterable[str] = ()) -> Iterator[Proxy]:
    made = Proxy(target)
    made.plan.extend(plan)
    try:
        yield made
    finally:
        made.released.set()
        made.stop()


class _Server(ThreadingHTTPServer):
    proxy: Proxy
    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # connections are broken on purpose


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        self.do_POST()

    def do_PUT(self) -> None:
        self.do_POST()

    def do_DELETE(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        proxy = self.server.proxy
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = proxy.next_fault()
        proxy.authorizations.add(self.headers.get("Authorization"))
        match fault:
            case "reset":
                self._break()
            case "hang":
                proxy.released.wait(60)
                self._break()
            case "500":
                self._answer(500, b"Internal Server Error")
            case "401" | "403" | "404":
                self._answer(int(fault), b"")
            case "503":
                self._answer(503, b"later", {"Retry-After": "1"})
            case "503 date":
                self._answer(503, b"later", {"Retry-After": formatdate(time.time() + 1, usegmt=True)})
            case "unwritten":
                stream = next(iter(json.loads(body)["events"]))
                reply = {"@success": False, stream: {"disk": {"num_inserted": -1, "@errors": ["IOError()"]}}}
                self._answer(200, json.dumps(reply).encode())
            case "garbage":
                self._answer(200, b"<html>Welcome to the network</html>")
            case _:
                self._forward(fault, body)

    def _forward(self, fault: str, body: bytes) -> None:
        proxy = self.server.proxy
        headers = {name: text for name, text in self.headers.items() if name not in ("Host", "Connection")}
        url = proxy.target + self.path
        answer = requests.request(self.command, url, data=body, headers=headers, timeout=30)
        if self.command != "GET":
            proxy.stored.append(body)
        text = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
        whole = text % (len(answer.content), answer.content)
        match fault:
            case "lost":
                self._break()
            case "half":
                self.wfile.write(whole[: -len(answer.content) // 2])
                self._break()
            case "slow body" | "slow head":
                head = 0 if fault == "slow head" else len(whole) - len(answer.content)
                self.wfile.write(whole[:head])
                for place in range(head, len(whole)):
                    if proxy.released.wait(0.05):
                        break
                    self.wfile.write(whole[place : place + 1])
                self._break()
            case _:
                self._answer(answer.status_code, answer.content)

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _break(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass
