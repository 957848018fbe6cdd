"""A server of Kinetica's control plane that answers as it is told to, for what no real server does on request."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from protocols.kinetica import wire

RUNNING = json.dumps({"status": "running"})

Answer = Callable[[dict[str, Any]], dict[str, Any]]


class Refusal(Exception):
    """An ordinary error envelope."""


class Server(ThreadingHTTPServer):
    """Answers endpoints by `answers`, or misbehaves by `faults`; remembers what it was asked."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.headers: list[dict[str, str]] = []
        self.connections = 0
        self.faults: dict[str, str] = {}
        self.release = threading.Event()
        self.answers: dict[str, Answer] = {
            "/show/system/status": lambda _: {"status_map": {"system": RUNNING}},
            "/has/table": lambda request: {"table_exists": request["table_name"] == "t"},
        }
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def asked(self, endpoint: str) -> int:
        return sum(path == endpoint for path, _ in self.requests)

    def stop(self) -> None:
        self.release.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients hang up on purpose here."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    server: Server

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_POST(self) -> None:
        server = self.server
        endpoint = wire.ENDPOINTS[self.path.removeprefix("/gpudb-0")]
        body = self.rfile.read(int(self.headers["Content-Length"]))
        request = wire.decode(endpoint.request, body)
        server.headers.append(dict(self.headers))
        server.requests.append((endpoint.path, request))
        fault = server.faults.get(endpoint.path, "")
        if fault == "hang":
            server.release.wait(20)
            self.close_connection = True
        elif fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
        elif fault == "garbage":
            self.reply(200, b"<html>welcome</html>")
        elif fault.isdigit():
            self.reply(int(fault), b"<html>an error page</html>")
        elif fault:
            self.reply(400, wire.encode_error(fault, wire.BINARY))
        else:
            try:
                answer = server.answers[endpoint.path](request)
            except Refusal as refusal:
                self.reply(400, wire.encode_error(str(refusal), wire.BINARY))
                return
            empty = {
                field["name"]: EMPTY[
                    field["type"] if isinstance(field["type"], str) else field["type"]["type"]
                ]
                for field in endpoint.response["fields"]
            }
            self.reply(200, wire.encode_ok(endpoint, {**empty, **answer}, wire.BINARY))

    def reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header(wire.TIME_HEADER, "0.001")
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()


EMPTY: dict[str, Any] = {
    "string": "", "bytes": b"", "int": 0, "long": 0, "double": 0.0, "boolean": False, "array": [], "map": {}
}  # fmt: skip
