"""A monitor's process is killed at random moments while rows come and go.

What was acknowledged is stored, nothing is stored twice, and the order is kept. A failure is an AssertionError; most
of it is in the seed.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import random
import shutil
import sqlite3
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from protocols.kinetica.client import KineticaClient
from protocols.kinetica.server import TableServer
from protocols.kronos.client import KronosClient
from protocols.kronos.server import EventStore
from protocols.kronos.wire import MAX_TIME
from tests.e2e import traffic
from tests.e2e.conftest import wait_until
from tests.inprocess import make_monitor, run_monitor

#: Longest life of a process in seconds, on top of what it may be given to begin to deliver.
LIFE = 0.5


class Stored:
    """The events of a stream as they come."""

    def __init__(self, kronos: KronosClient, stream: str) -> None:
        self.events: list[dict[str, Any]] = []
        self.offsets: dict[int, list[int]] = defaultdict(list)
        self._kronos, self._stream = kronos, stream

    def look(self) -> int:
        """Read what is new; returns how many there are now."""
        since = self.events[-1]["@time"] + 1 if self.events else 0
        new = list(self._kronos.get(self._stream, since, MAX_TIME))
        self.events += new
        for event in new:
            epoch, offset = event["@origin"].rsplit("/", 2)[1:]
            self.offsets[int(epoch)].append(int(offset))
        return len(self.events)

    def wait_for_more(self) -> None:
        count = len(self.events)
        wait_until(lambda: self.look() > count, "more is delivered")


def cursor(spool: Path, table: str, copy: Path) -> tuple[int, int]:
    """(epoch, offset) before which the killed process had been told that all is stored."""
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir()  # so that nothing but the next process repairs what the last one left
    for file in spool.glob("spool.db*"):
        shutil.copy(file, copy)
    with contextlib.closing(sqlite3.connect(copy / "spool.db")) as db:
        try:
            found = db.execute("SELECT epoch, offset FROM cursor WHERE feed = ?", (table,)).fetchone()
        except sqlite3.OperationalError:  # killed before there were tables
            found = None
    return found or (0, 0)


def run(folder: Path, rounds: int, seed: int) -> str:
    """Kill `rounds` times, then check everything; returns the figures in one line."""
    rng = random.Random(seed)
    spool, table = folder / "spool", "flights"
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["tests.inprocess"])  # once: a process is there within milliseconds
    (first := processes.Process(target=time.time)).start()
    first.join(60)
    moved: Counter[bool] = Counter()
    with contextlib.ExitStack() as stack:
        tables = stack.enter_context(TableServer(port=0, monitor_port=0))
        store = stack.enter_context(EventStore(data_dir=folder / "store", port=0))
        kinetica = stack.enter_context(KineticaClient(tables.url))
        kronos = KronosClient(store.url)
        stack.callback(kronos.close)
        traffic.create(kinetica, table)
        publisher = traffic.Publisher(kinetica, [table], rows=30, interval=0.02)
        stored, acknowledged = Stored(kronos, table), (0, 0)
        with publisher:
            for number in range(rounds):
                process = processes.Process(target=run_monitor, args=(table, tables.url, store.url, spool))
                process.start()
                if number % 2:  # while it delivers, however slow the machine is; else at any moment
                    stored.wait_for_more()
                process.join(rng.uniform(0.0, LIFE))
                assert process.exitcode is None
                process.kill()
                process.join(10)
                stored.look()
                before, acknowledged = acknowledged, cursor(spool, table, folder / "copy")
                assert acknowledged >= before
                moved[acknowledged > before] += 1
                epoch, offset = acknowledged
                assert stored.offsets[epoch][:offset] == list(range(offset)), (number, acknowledged)
            monitor, transport = make_monitor(table, tables.url, store.url, spool)
            monitor.start()
            wait_until(lambda: monitor.status()["state"] == "receiving", "receiving")
            last = publisher.counts[table]
            wait_until(lambda: publisher.counts[table] > last + 90, "rows inserted")
        monitor.stop_intake()
        wait_until(lambda: not monitor.receiving and not monitor.pending, "drained")
        assert monitor.status()["problem"] is None
        monitor.stop()
        transport.close()
        stored.look()
    ids = [event["id"] for event in stored.events]
    assert ids == sorted(set(ids))
    assert traffic.holes(stored.events) == []
    assert ids[-1] == publisher.counts[table] - 1
    assert moved[True]
    assert len(stored.offsets) > 1  # some lives of the monitor came to deliver
    return (
        f"{rounds} kills, {moved[True]} after which more was acknowledged, {len(stored.offsets)} epochs,"
        f" {len(ids)} rows stored of {publisher.counts[table]} inserted"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/soak kills", description=__doc__)
    parser.add_argument("--rounds", type=int, default=200, help="how often to kill; a second or two each")
    parser.add_argument("--seed", type=int, default=time.time_ns())
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        print(run(Path(folder), arguments.rounds, arguments.seed))


if __name__ == "__main__":
    main()
