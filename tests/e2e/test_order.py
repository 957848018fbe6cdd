"""The sink sees a table's order whatever order decoders finish in, and though one dies over a block."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import msgpack
import ray

from actors.batch import Batch
from actors.block import Block
from actors.codec.decoder import Decoder
from actors.monitor.dispatch import Dispatcher
from actors.monitor.kinetica import block_schema
from actors.monitor.ray_transport import RayTransport
from actors.monitor.spool import Spool
from actors.names import NAMESPACE, decoder_name, writer_name
from actors.writer.actor import WriterActor
from protocols.kronos.client import KronosClient
from tests.e2e import traffic
from tests.e2e.conftest import wait_until

BLOCKS = 8
ROWS = 100


@ray.remote(num_cpus=0.1, concurrency_groups={"control": 1})
class SlowDecoder:
    """A real decoder that takes its time, another for each block."""

    def __init__(self, seed: int) -> None:
        self._decoder = Decoder()
        self._random = random.Random(seed)

    def decode(self, block: Block, strict: bool) -> Batch:
        time.sleep(self._random.uniform(0.05, 0.6))
        return self._decoder.decode(block)

    @ray.method(concurrency_group="control")
    def pid(self) -> int:
        return os.getpid()


def _blocks(feed: str) -> list[Block]:
    schema = block_schema(traffic.ROW.definition, traffic.ROW.properties)
    return [
        Block(feed, 1, n * ROWS, ROWS, 10**16 + n * ROWS, "avro", schema, msgpack.packb(_frames(n)))
        for n in range(BLOCKS)
    ]


def _frames(block: int) -> list[bytes]:
    return [traffic.frame(number) for number in range(block * ROWS, (block + 1) * ROWS)]


def test_eight_blocks_arrive_in_order_though_decoders_race_and_one_dies(
    ray_cluster: None, unique: str, kronos: KronosClient, kronos_url: str, tmp_path: Path
) -> None:
    options = {"namespace": NAMESPACE, "num_cpus": 0.1}
    decoders = [SlowDecoder.options(name=decoder_name(unique, n), **options).remote(n) for n in range(3)]
    sink = {"kronos": {"url": kronos_url, "batch": 30}}
    writer: Any = WriterActor.options(name=writer_name(unique, "events"), **options).remote(unique, sink, "")  # type: ignore[attr-defined]
    ray.get(writer.start.remote(), timeout=60)
    victim = ray.get([decoder.pid.remote() for decoder in decoders], timeout=60)[0]
    spool = Spool(tmp_path)
    spool.append(_blocks(unique))
    dispatcher = Dispatcher(spool, ["events"], RayTransport(unique, 1, len(decoders)))
    worker = threading.Thread(target=dispatcher.run)
    worker.start()
    try:
        wait_until(lambda: dispatcher.report()[0].in_flight == BLOCKS, "all blocks on their way")
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: dispatcher.report()[0].pending_records == 0, "all blocks acknowledged")
    finally:
        dispatcher.stop()
        worker.join(timeout=30)
        spool.close()
        for actor in (*decoders, writer):
            ray.kill(actor)
    stored = traffic.events(kronos, unique)
    assert [event["id"] for event in stored] == list(range(BLOCKS * ROWS)), json.dumps(stored[:3])
    assert traffic.holes(stored) == []
