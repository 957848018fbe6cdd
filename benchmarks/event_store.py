"""Events per second into and out of the embedded event store, over HTTP.

Compared with the original Kronos server (constants below) and, interleaved in the same run, with bare SQLite and
orjson: the same durability, a row per event, no HTTP, no event ids made by the server, no de-duplication.

The server runs in a process of its own; this process makes the load with raw keep-alive connections, so that
the client's cost is small.
"""

from __future__ import annotations

import argparse
import selectors
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
from report import report

#: Events/s of the unmodified Kronos 0.6.2 server (Python 2.7, memory backend) on a 2-core virtual machine: the
#: upper ends of the ranges measured for puts of 1, 100 and 1,000 events and a get of 100,000.
ORIGINAL = {"put 1": 1_000.0, "put 100": 23_000.0, "put 1000": 29_000.0, "get": 93_000.0}

#: Events per round, by batch size.
ROUND = {1: 4_000, 100: 60_000, 1000: 120_000}
#: Connections that put at a time.
CONNECTIONS = {1: 32, 100: 4, 1000: 4}
GET_EVENTS = 100_000

_SERVER = """
import sys
from protocols.kronos.server import EventStore
with EventStore(data_dir=sys.argv[1], port=0) as store:
    print(store.port, flush=True)
    sys.stdin.read()
"""


@contextmanager
def server(directory: str) -> Iterator[int]:
    """The port of an event store in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVER, directory],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parent.parent,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.stdin.close()
        process.wait(30)


def events(first: int, count: int) -> list[dict[str, Any]]:
    """Events of about 155 bytes of JSON, as a pipeline writes them."""
    start = 17_952_220_000_000_000
    return [
        {
            "@time": start + i,
            "@origin": f"bench/flights/1795222000000/{i}",
            "id": i,
            "carrier": "UA",
            "tailnum": "N14228",
            "dep_delay": i % 97 - 10.5,
            "distance": 1400.25,
            "dest": "IAH",
        }
        for i in range(first, first + count)
    ]


def request(path: str, body: dict[str, Any]) -> bytes:
    data = orjson.dumps(body)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n"
    return head.encode() + data


def connect(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def receive(connection: socket.socket) -> bytes:
    part = connection.recv(1 << 20)
    if not part:
        raise RuntimeError("the server closed the connection")
    return part


def put_rate(port: int, batch: int, connections: int, stream: str) -> float:
    """Events/s of puts of `batch` events from several keep-alive connections, whose events interleave."""
    share = ROUND[batch] // connections // batch
    selector = selectors.DefaultSelector()
    clients = []
    for c in range(connections):
        batches = [events((connections * i + c) * batch, batch) for i in range(share)]
        load = [request("/1.0/events/put", {"events": {stream: batch}}) for batch in batches]
        clients.append(connect(port))
        selector.register(clients[-1], selectors.EVENT_READ, iter(load))

    def run() -> None:
        waiting = 0
        for key in selector.get_map().values():
            key.fileobj.sendall(next(key.data))  # type: ignore[union-attr]
            waiting += 1
        while waiting:
            for key, _ in selector.select(60):
                reply = receive(key.fileobj)  # type: ignore[arg-type]
                if not reply.startswith(b"HTTP/1.1 200") or b'"@success": true' not in reply:
                    raise RuntimeError(f"put failed: {reply!r:.300}")
                following = next(key.data, None)
                if following is None:
                    waiting -= 1
                else:
                    key.fileobj.sendall(following)  # type: ignore[union-attr]

    seconds = timed(run)
    selector.close()
    for client in clients:
        client.close()
    return share * connections * batch / seconds


def get_rate(port: int, stream: str) -> float:
    """Events/s of one get of GET_EVENTS events."""
    reply: list[bytes] = []

    def run() -> None:
        connection.sendall(request("/1.0/events/get", body))
        while not reply or not (reply[-1] if len(reply[-1]) > 4 else b"".join(reply[-6:])).endswith(
            b"0\r\n\r\n"
        ):
            reply.append(receive(connection))

    body = {"stream": stream, "end_time": 2**60, "limit": GET_EVENTS}
    with connect(port) as connection:
        seconds = timed(run)
    found = b"".join(reply).count(b'"@id":')
    if found != GET_EVENTS:
        raise RuntimeError(f"got {found} events instead of {GET_EVENTS}")
    return GET_EVENTS / seconds


class BareSqlite:
    """A row per event in a WITHOUT ROWID table; each batch one transaction, synced to disk."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        self._connection.execute(
            "CREATE TABLE events (stream TEXT, time INTEGER, id INTEGER, event BLOB,"
            " PRIMARY KEY (stream, time, id)) WITHOUT ROWID"
        )
        self._next = 0

    def close(self) -> None:
        self._connection.close()

    def put_rate(self, batch: int, stream: str) -> float:
        share = ROUND[batch] // batch
        bodies = [orjson.dumps({"events": {stream: events(i * batch, batch)}}) for i in range(share)]
        return share * batch / timed(lambda: [self._put(body) for body in bodies])

    def _put(self, body: bytes) -> None:
        self._connection.execute("BEGIN")
        for stream, batch in orjson.loads(body)["events"].items():
            first, self._next = self._next, self._next + len(batch)
            rows = [(stream, e["@time"], i, orjson.dumps(e)) for i, e in enumerate(batch, first)]
            self._connection.executemany("INSERT INTO events VALUES (?, ?, ?, ?)", rows)
        self._connection.execute("COMMIT")

    def get_rate(self, stream: str) -> float:
        query = "SELECT event FROM events WHERE stream = ? ORDER BY time, id LIMIT ?"
        rows = self._connection.execute(query, (stream, GET_EVENTS))
        return GET_EVENTS / timed(lambda: b"\r\n".join([row[0] for row in rows]))


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(rounds: int) -> dict[str, list[float]]:
    rates: dict[str, list[float]] = {}

    def note(what: str, rate: float) -> None:
        rates.setdefault(what, []).append(rate)

    # Not where the system keeps temporary files: that may be memory.
    with tempfile.TemporaryDirectory(dir=".") as directory, server(directory) as port:
        bare = BareSqlite(Path(directory) / "bare.sqlite")
        for i in range(rounds):
            for batch in ROUND:
                note(f"put {batch}, tablecast", put_rate(port, batch, CONNECTIONS[batch], f"s{batch}.{i}"))
                note(f"put {batch}, sqlite", bare.put_rate(batch, f"s{batch}.{i}"))
                note(f"put {batch}, tablecast, one connection", put_rate(port, batch, 1, f"one{batch}.{i}"))
            note("get, tablecast", get_rate(port, f"s1000.{i}"))
            note("get, sqlite", bare.get_rate(f"s1000.{i}"))
        bare.close()
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    rates = measure(arguments.rounds)
    medians = {what: statistics.median(values) for what, values in rates.items()}
    rows = [
        {"what": what, "per_second": medians[what], "lowest": min(values), "highest": max(values)}
        for what, values in sorted(rates.items())
    ]
    rows += [
        {"what": f"{what}, original 0.6.2 (quoted)", "per_second": rate, "lowest": rate, "highest": rate}
        for what, rate in ORIGINAL.items()
    ]
    ratios = {
        f"{what} tablecast/original": medians[f"{what}, tablecast"] / ORIGINAL[what] for what in ORIGINAL
    }
    for what in ORIGINAL:
        ratios[f"{what} tablecast/sqlite"] = medians[f"{what}, tablecast"] / medians[f"{what}, sqlite"]
    report("event_store", rows, ratios, arguments.json)


if __name__ == "__main__":
    main()
