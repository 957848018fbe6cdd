"""Receiving: records per second that one monitor receives *and makes durable*, against a loop that keeps nothing.

Ours is what a monitor's receiving thread does: the real subscription, blocks of up to 20,000 records, and the real
spool, which is on disk (SQLite, ``synchronous=FULL``) before the next call. The other is the loop that everybody
writes, ``recv_multipart`` on a SUB socket. Both get the same messages, all of which wait in their sockets when the
clock starts, so that what is measured is the receiver; rounds alternate, and medians are quoted.

    python benchmarks/receive.py [--json] [--records 400000] [--rounds 5]
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from contextlib import ExitStack, closing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import zmq
from pipeline import ROW, frames
from report import report

from actors.monitor.grouping import BlockBuilder, BlockLimits
from actors.monitor.layout import Position
from actors.monitor.spool import Spool
from protocols.kinetica.subscription import Message, Subscription, topics_are_distinguishable

#: Records in a message: an operation of one row, and of a thousand.
SIZES = (1_000, 1)

#: What the server names a topic.
TOPICS = {"tablecast": "nK3YcWy6r5kIuoLw3vUmpQ==", "recv_multipart": "bWn1rYw4k0a1Y8xwq7Lx0g=="}

#: Seconds for what was published to arrive: nothing tells when it has.
ARRIVAL = 1.5
PATIENCE = 60.0


def publisher(pipe: Connection, records: int) -> None:
    """A process: binds a PUB socket that keeps everything; publishes all records to each (topic, size) it is told."""
    context = zmq.Context()
    socket = context.socket(zmq.PUB)
    socket.set(zmq.SNDHWM, 0)
    encoded = frames(records)
    pipe.send(socket.bind_to_random_port("tcp://127.0.0.1"))
    while (wanted := pipe.recv()) is not None:
        topic, size = wanted
        for start in range(0, records, size):
            socket.send_multipart([topic.encode(), *encoded[start : start + size]])
        pipe.send("published")
    context.destroy(linger=0)


class Tablecast:
    """A monitor's way: everything received is on disk when :meth:`receive` returns."""

    def __init__(self, port: int, folder: Path) -> None:
        topic = TOPICS["tablecast"]
        exact = topics_are_distinguishable([topic], [ROW])
        self._subscription = Subscription(
            "127.0.0.1", port, [topic], exact_topics=exact, receive_mark=1 << 30
        )
        assert self._subscription.wait_connected(PATIENCE)
        self._spool = Spool(folder / "spool", "bench")
        self._spool.join(["a"])
        self._spool.open_accounts(["a"])
        self._builder = BlockBuilder("bench", 1, "{}", BlockLimits())

    def receive(self, records: int) -> float:
        """Receive so many; returns seconds."""
        seen, started = 0, time.perf_counter()
        while seen < records:
            now, blocks = time.time(), []
            for item in self._subscription.receive(1000):
                if isinstance(item, Message):
                    blocks += self._builder.add(item.frames, now)
                    seen += len(item.frames)
            assert time.perf_counter() < started + PATIENCE, f"{seen:,} of {records:,} arrived"
            if seen == records and (rest := self._builder.flush()):
                blocks.append(rest)
            self._spool.append(blocks)
        seconds = time.perf_counter() - started
        end = Position(1, self._builder.next_offset)
        self._spool.advance({("a", "bench"): end}, {"bench": end})  # as if delivered: the file stays as it is
        return seconds

    def close(self) -> None:
        self._subscription.close()
        self._spool.close()


class Bare:
    """``recv_multipart`` into nothing."""

    def __init__(self, port: int) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.set(zmq.RCVHWM, 0)
        self._socket.set(zmq.RCVTIMEO, int(PATIENCE * 1000))
        self._socket.connect(f"tcp://127.0.0.1:{port}")
        self._socket.set(zmq.SUBSCRIBE, TOPICS["recv_multipart"].encode())

    def receive(self, records: int) -> float:
        """Receive so many; returns seconds."""
        seen, started = 0, time.perf_counter()
        receive = self._socket.recv_multipart
        while seen < records:
            seen += len(receive()) - 1
        return time.perf_counter() - started

    def close(self) -> None:
        self._context.destroy(linger=0)


def measure(records: int, rounds: int) -> dict[tuple[int, str], float]:
    """(Records in a message, way) -> median records per second."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tablecast-bench-", dir=".")))
        spawn = multiprocessing.get_context("spawn")
        pipe, child = spawn.Pipe()
        process = spawn.Process(target=publisher, args=(child, records), daemon=True)
        process.start()
        stack.callback(process.kill)
        port = pipe.recv()
        ways: dict[str, Tablecast | Bare] = {
            "tablecast": Tablecast(port, folder),
            "recv_multipart": Bare(port),
        }
        for way in ways.values():
            stack.enter_context(closing(way))
        time.sleep(ARRIVAL)  # nothing tells when the publisher has acted on the subscriptions
        measured: dict[tuple[int, str], list[float]] = {}
        for number in range(rounds + 1):
            for size in SIZES:
                for name, way in ways.items():
                    pipe.send((TOPICS[name], size))
                    assert pipe.recv() == "published"
                    time.sleep(ARRIVAL)
                    seconds = way.receive(records)
                    if number:  # the first warms up
                        measured.setdefault((size, name), []).append(records / seconds)
    return {key: statistics.median(rates) for key, rates in measured.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--records", type=int, default=400_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    rates = measure(arguments.records, arguments.rounds)
    rows: list[dict[str, Any]] = [
        {"records per message": size, "what": what, "per_second": rate}
        for (size, what), rate in rates.items()
    ]
    ratios = {
        f"{size} tablecast/recv_multipart": rates[size, "tablecast"] / rates[size, "recv_multipart"]
        for size in SIZES
    }
    report("receive", rows, ratios, arguments.json)


if __name__ == "__main__":
    main()
