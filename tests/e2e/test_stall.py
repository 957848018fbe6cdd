"""Decoders that stand still while a source publishes at full speed: the lag grows, memory does not, nothing is lost.

The official client's loop, a SUB socket with default marks whose consumer stands still for the same time, loses
records in the same run, of the same messages.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import zmq

from cluster import control
from cluster.config import PipelineConfig
from protocols.kinetica.client import KineticaClient
from protocols.kinetica.server import TableServer
from protocols.kronos.client import KronosClient
from tests.e2e import traffic
from tests.e2e.conftest import DEADLINE, wait_until

ROWS = 100_000

#: Rows of an insert, each of which is published as a message of its own.
INSERT = 2_000

#: What a monitor may grow by while it lags: blocks in flight, and what Python's and ZeroMQ's allocators keep.
GROWTH = 96 << 20


@contextmanager
def stopped(pids: list[int]) -> Iterator[None]:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def test_a_stalled_pool_loses_nothing_where_the_official_loop_does(
    start: Callable[[PipelineConfig], Any],
    make_config: Callable[..., PipelineConfig],
    unique: str,
    kronos: KronosClient,
    capsys: pytest.CaptureFixture[str],
) -> None:
    frames = [traffic.frame(number) for number in range(ROWS)]
    with TableServer(port=0, monitor_port=0, message_records=1) as server, zmq.Context() as context:
        client = KineticaClient(server.url)
        traffic.create(client, unique)
        config = make_config(unique, [unique], source={"kinetica": {"url": server.url}})
        supervisor = start(config)

        def table() -> dict[str, Any]:
            found: dict[str, Any] = control.ask(supervisor, "status")["tables"][0]
            return found

        official = context.socket(zmq.SUB)
        official.linger = 0
        official.connect(f"tcp://127.0.0.1:{server.monitor_port}")
        official.subscribe(client.create_table_monitor(unique, "insert").topic_id)
        time.sleep(0.5)  # nothing tells when the publisher has acted on it
        before = table()["resident_bytes"]
        decoders = [member["pid"] for member in control.ask(supervisor, "status")["decoders"]["members"]]
        with stopped(decoders):
            started = time.monotonic()
            for first in range(0, ROWS, INSERT):
                client.insert_records(unique, frames[first : first + INSERT])
            rate = ROWS / (time.monotonic() - started)
            wait_until(lambda: table()["pending"] >= ROWS, "all of it waits in the spool")
            lag, growth = table()["pending"], table()["resident_bytes"] - before
        received = 0
        while official.poll(1000):
            official.recv_multipart()
            received += 1
        official.close()
        wait_until(lambda: table()["pending"] == 0, "the lag is gone")
        assert control.stop_pipeline(unique, DEADLINE) == control.Left()
        client.close()
    stored = Counter((event["id"], event["name"], event["x"]) for event in traffic.events(kronos, unique))
    published = Counter(traffic.row(number) for number in range(ROWS))
    lost, doubled = (published - stored).total(), (stored - published).total()
    with capsys.disabled():
        print(
            f"\n{ROWS:,} messages at {rate:,.0f}/s while decoders stood still: tablecast lagged {lag:,}, grew by"
            f" {growth >> 20} MiB, lost {lost:,}, doubled {doubled:,}; the official loop lost {ROWS - received:,}"
        )
    assert (lost, doubled) == (0, 0)
    assert received < ROWS
    assert growth < GROWTH
