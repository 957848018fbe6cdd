"""Callbacks in the user's own process: this package against the official client's loop, over the same messages.

All three monitors (the official ``INSERT_DECODED``, ours, and our ``INSERT_BATCH``) follow one table of an embedded
server in a process of its own. A first row makes each wait inside its callback; then all rows are inserted, so that
they wait in the three sockets; then one monitor after the other is let go, and what is timed is from there to the
callback of the last row: receiving, decoding, and calling a function that counts. Rounds alternate; medians are quoted.

    python benchmarks/callbacks.py [--records 200000] [--rows 1000] [--rounds 5] [--json]
"""

from __future__ import annotations

import argparse
import logging
import statistics
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import gpudb
from pipeline import ROW, frames
from report import report

from cluster.servers import embedded_server
from protocols.kinetica.client import KineticaClient
from tablecast.compat import GPUdbTableMonitor

#: Seconds for what was published to arrive, as nothing tells when it has, and for a monitor to hand out all rows.
ARRIVAL = 1.5
PATIENCE = 120.0

TABLE = "ki_home.callbacks"


class Way:
    """One monitor with a callback that counts rows; on the first of a round it waits to be let go."""

    def __init__(self, package: Any, kind: str, db: Any, port: int, rows: Callable[[Any], int]) -> None:
        self._rows = rows
        self._left = 0
        self.waiting, self._gate, self._done = threading.Event(), threading.Event(), threading.Event()
        self._gate.set()
        callback = package.Callback(package.Callback.Type[kind], self._count)
        options = package.Options({"monitor_port": port})
        self._client = package.Client(db, TABLE, [callback], options)
        self._client.logging_level = logging.ERROR  # the official client logs every message otherwise
        self._client.start_monitor()

    def _count(self, value: Any) -> None:
        if not self.waiting.is_set():
            self.waiting.set()
            self._gate.wait()
            return
        self._left -= self._rows(value)
        if not self._left:
            self._done.set()

    def prepare(self, records: int) -> None:
        """Wait at the next row, for so many after it."""
        self._left = records
        self._gate.clear()
        self._done.clear()
        self.waiting.clear()

    def run(self) -> float:
        """Let it go; returns seconds until it has all rows."""
        started = time.perf_counter()
        self._gate.set()
        assert self._done.wait(PATIENCE), f"{self._left:,} rows did not come"
        return time.perf_counter() - started

    def close(self) -> None:
        self._gate.set()
        self._client.stop_monitor()


def measure(records: int, size: int, rounds: int) -> dict[str, float]:
    """Way -> median rows per second."""
    # The constructor of the official client waits for ever in most runs on one machine: it tests the port in a way that
    # misses the connection. Nothing of what is measured here.
    gpudb.GPUdbTableMonitor.Client._Client__zmq_check_connection = lambda self, options: True
    encoded = frames(records)
    with ExitStack() as stack:
        url = stack.enter_context(embedded_server("kinetica", "--monitor-port", "0"))
        client = stack.enter_context(KineticaClient(url))
        client.create_table(TABLE, client.create_type(ROW))
        db, port = gpudb.GPUdb(host=url), client.monitor_port()
        ways = {
            "gpudb dicts": Way(gpudb.GPUdbTableMonitor, "INSERT_DECODED", db, port, lambda row: 1),
            "tablecast dicts": Way(GPUdbTableMonitor, "INSERT_DECODED", db, port, lambda row: 1),
            "tablecast batches": Way(
                GPUdbTableMonitor, "INSERT_BATCH", db, port, lambda batch: batch.num_rows
            ),
        }
        for way in ways.values():
            stack.callback(way.close)
        time.sleep(ARRIVAL)  # nothing tells when the publisher has acted on the subscriptions
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(rounds + 1):
            for way in ways.values():
                way.prepare(records)
            client.insert_records(TABLE, encoded[:1])
            assert all(way.waiting.wait(PATIENCE) for way in ways.values())
            for start in range(0, records, size):
                client.insert_records(TABLE, encoded[start : start + size])
            time.sleep(ARRIVAL)
            for name, way in ways.items():
                seconds = way.run()
                if number:  # the first warms up
                    rates[name].append(records / seconds)
            client.delete_records(TABLE, delete_all=True)
    return {name: statistics.median(found) for name, found in rates.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--rows", type=int, default=1_000, help="rows of one insert, which make one message")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    rates = measure(arguments.records, arguments.rows, arguments.rounds)
    rows = [{"what": what, "per_second": rate} for what, rate in rates.items()]
    official = rates["gpudb dicts"]
    ratios = {
        "dicts tablecast/official": rates["tablecast dicts"] / official,
        "batches tablecast/official": rates["tablecast batches"] / official,
    }
    report("callbacks", rows, ratios, arguments.json)


if __name__ == "__main__":
    main()
