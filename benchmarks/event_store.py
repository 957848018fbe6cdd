"""Events per second into and out of the embedded event store, over HTTP.

Compared with the original Kronos server (constants below) and, interleaved in the same run, with bare SQLite and
orjson: the same durability, a row per event, no HTTP, no event ids made by the server, no de-duplication.

The server runs in a process of its own; this process makes the load with raw keep-alive connections, so that the
client's cost is small.
"""

from __future__ import annotations

import argparse
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
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


class Connection:
    """A keep-alive HTTP connection that knows just enough to count on every reply."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        self._socket.close()

    def put(self, request: bytes) -> None:
        self._socket.sendall(request)
        reply = b""
        while not reply.endswith(b"}"):
            reply += self._part()
        if not reply.startswith(b"HTTP/1.1 200") or b'"@success": true' not in reply:
            raise RuntimeError(f"put failed: {reply!r:.300}")

    def get(self, request: bytes) -> int:
        """Send a get and read its chunked reply; the number of events in it."""
        self._socket.sendall(request)
        count, tail = 0, b""
        while True:
            part = self._part()
            count += part.count(b'{"@id":')
            # A marker may be cut in two.
            joined = tail + part[:6]
            count += joined.count(b'{"@id":') - part[:6].count(b'{"@id":')
            tail = (tail + part)[-6:]
            if (tail + b"").endswith(b"0\r\n\r\n"):
                return count

    def _part(self) -> bytes:
        part = self._socket.recv(1 << 20)
        if not part:
            raise RuntimeError("the server closed the connection")
        return part


def request(path: str, body: dict[str, Any]) -> bytes:
    data = orjson.dumps(body)
    return b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (path.encode(), len(data), data)


def put_rate(port: int, batch: int, connections: int, stream: str) -> float:
    """Events/s of puts of `batch` events from several connections, each its own part of the offsets."""
    share = ROUND[batch] // connections // batch
    loads = [
        [
            request("/1.0/events/put", {"events": {stream: events((share * c + i) * batch, batch)}})
            for i in range(share)
        ]
        for c in range(connections)
    ]
    clients = [Connection(port) for _ in range(connections)]
    failures: list[BaseException] = []

    def run(client: Connection, load: list[bytes]) -> None:
        try:
            for item in load:
                client.put(item)
        except BaseException as error:
            failures.append(error)

    threads = [
        threading.Thread(target=run, args=pair, daemon=True) for pair in zip(clients, loads, strict=True)
    ]
    seconds = timed(lambda: [*(t.start() for t in threads), *(t.join() for t in threads)])
    for client in clients:
        client.close()
    if failures:
        raise failures[0]
    return share * connections * batch / seconds


def get_rate(port: int, stream: str) -> float:
    client = Connection(port)
    body = request("/1.0/events/get", {"stream": stream, "end_time": 2**60, "limit": GET_EVENTS})
    found: list[int] = []
    seconds = timed(lambda: found.append(client.get(body)))
    client.close()
    if found != [GET_EVENTS]:
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
    ratios = {f"{what} tablecast/original": medians[f"{what}, tablecast"] / ORIGINAL[what] for what in ORIGINAL}
    for what in ORIGINAL:
        ratios[f"{what} tablecast/sqlite"] = medians[f"{what}, tablecast"] / medians[f"{what}, sqlite"]
    report("event_store", rows, ratios, arguments.json)


if __name__ == "__main__":
    main()
