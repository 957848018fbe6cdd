"""What more decoders give, and what the parts cost that do not become more with them.

1. *Real*: a whole pipeline whose decoders are the limit, because the rows are wide and forty columns are computed. The
   spool is filled once; each round sets the pool to 1 or 2 decoders and delivers all of it again. CPU-bound, so two
   cores show two decoders and no more.
2. *Simulated*: decoders that sleep for a fixed time over each block, with the real dispatcher, spool and writer around
   them. It shows what these let through, and says nothing of CPUs.
3. *Fixed costs*: CPU of the monitor per record and per block, of the supervisor per actor, of choosing one of many
   decoders.

    python benchmarks/scaling.py [--json] [--records 40000] [--rounds 3]
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster import control, local

local.prepare_environment()

import fastavro  # noqa: E402
import msgpack  # noqa: E402
import psutil  # noqa: E402
import ray  # noqa: E402
from report import report  # noqa: E402

from actors.batch import Batch  # noqa: E402
from actors.block import Block  # noqa: E402
from actors.codec.decoder import Decoder  # noqa: E402
from actors.monitor.dispatch import Dispatcher  # noqa: E402
from actors.monitor.kinetica import block_schema  # noqa: E402
from actors.monitor.pool import DecoderPool  # noqa: E402
from actors.monitor.ray_transport import RayTransport  # noqa: E402
from actors.monitor.spool import Spool  # noqa: E402
from actors.names import NAMESPACE, decoder_name, writer_name  # noqa: E402
from actors.writer.actor import WriterActor  # noqa: E402
from cluster.config import PipelineConfig  # noqa: E402
from cluster.servers import embedded_server  # noqa: E402
from protocols.kinetica.client import KineticaClient  # noqa: E402
from protocols.kinetica.types import Column, TableType  # noqa: E402

PATIENCE = 300.0
NAME = "wide"
MESSAGE_RECORDS = 1_000
BLOCK_RECORDS = 1_000

#: Fifty columns, 430 bytes of Avro.
ROW = TableType(
    (
        Column("id", "long"),
        *(Column(f"d{n}", "double") for n in range(40)),
        *(Column(f"s{n}", "string") for n in range(9)),
    )
)

#: A computed column takes some microseconds per row.
COMPUTED = " + ".join(f"CAST(CAST(d{n} AS VARCHAR) AS DOUBLE)" for n in range(10))
COLUMNS = {f"c{number}": f"{COMPUTED} + {number}" for number in range(40)}

#: Of the simulated part: seconds that a decoder takes for a block, blocks per decoder, records of a block, feeds.
SLEEP = 0.1
SLEPT_BLOCKS = 40
SLEPT_RECORDS = 100
FEEDS = 4

#: Seconds over which an idle supervisor is watched, and actors that are added for it.
WATCHED = 10.0
ADDED = 6


def frames(count: int, first: int = 0) -> list[bytes]:
    schema = fastavro.parse_schema(ROW.avro)
    encoded = []
    for number in range(first, first + count):
        values = {name: number + position / 7 for position, name in enumerate(ROW.names)}
        values |= {f"s{n}": f"text {number % 97} {n}" for n in range(9)}
        out = io.BytesIO()
        fastavro.schemaless_writer(out, schema, {**values, "id": number})
        encoded.append(out.getvalue())
    return encoded


# -- real ---------------------------------------------------------------------------------------------------------


class Pipeline:
    """A pipeline whose spool holds `records`, which it can deliver again and again."""

    def __init__(self, client: KineticaClient, kinetica: str, folder: Path, records: int) -> None:
        self._records = records
        client.create_table(NAME, client.create_type(ROW))
        config = PipelineConfig.model_validate(
            {
                "pipeline": NAME,
                "source": {"kinetica": {"url": kinetica}},
                "tables": [
                    {
                        "name": NAME,
                        "events": ["insert"],
                        "transform": {"with_columns": COLUMNS, "select": ["id", "c0"]},
                    }
                ],
                "sinks": {"lines": {"console": {"path": str(folder / "events.ndjson")}}},
                "decoders": {"min": 1, "max": 2 + ADDED, "cpus": 0.5},
                "spool": {"path": str(folder / "spool"), "min_free": 0, "retain": "1h"},
                "tuning": {"block": {"records": BLOCK_RECORDS}},
            }
        )
        self.supervisor = control.start_pipeline(config)
        assert control.wait_ready(self.supervisor, PATIENCE), control.ask(self.supervisor, "status")
        self._writer = ray.get_actor(writer_name(NAME, "lines"), NAMESPACE)
        self._seen = 0
        self.blocks = 0
        rows = frames(MESSAGE_RECORDS)
        before = self._cpu()
        for _ in range(0, records, MESSAGE_RECORDS):
            client.insert_records(NAME, rows)
        self._delivered()
        #: CPU seconds of the monitor from the receipt of all records to their delivery.
        self.received_cpu = self._cpu() - before

    def scale(self, decoders: int) -> None:
        assert control.ask(self.supervisor, "scale", decoders, timeout=PATIENCE) is None
        assert control.wait_ready(self.supervisor, PATIENCE)

    def deliver(self) -> tuple[float, float]:
        """Deliver all again: seconds, and CPU seconds of the monitor."""
        before, began = self._cpu(), time.time()
        rewound = control.ask(self.supervisor, "rewind", "lines", None, 0)
        assert rewound["feeds"] == {NAME: self._records}, rewound
        ended = self._delivered()
        return ended - began, self._cpu() - before

    def busy(self) -> float:
        return float(control.ask(self.supervisor, "status")["decoders"]["busy"])

    def idle(self) -> float:
        """CPU share of the supervisor while nothing happens."""
        process = psutil.Process(ray.get(self.supervisor.pid.remote()))
        before = _cpu(process)
        time.sleep(WATCHED)
        return (_cpu(process) - before) / WATCHED

    def _delivered(self) -> float:
        """Wait until as many records as the spool holds were delivered since the last time; returns when."""
        done, deadline, last = 0, time.monotonic() + PATIENCE, 0.0
        self.blocks = 0
        while done < self._records:
            assert time.monotonic() < deadline, f"{done} of {self._records} records"
            for delivery in ray.get(self._writer.deliveries.remote(self._seen), timeout=PATIENCE):
                self._seen, last = delivery.number, delivery.time
                done += delivery.count
                self.blocks += 1
            time.sleep(0.05)
        return last

    def _cpu(self) -> float:
        (table,) = control.ask(self.supervisor, "status")["tables"]
        return _cpu(psutil.Process(table["pid"]))


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def real(records: int, rounds: int, rows: list[dict[str, Any]]) -> float:
    """Rows of the real part and of the fixed costs; returns the ratio of two decoders to one."""
    seconds: dict[int, list[float]] = {1: [], 2: []}
    cpu: list[float] = []
    shares: list[float] = []
    with (
        tempfile.TemporaryDirectory(prefix="tablecast-bench-") as folder,
        embedded_server("kinetica", "--monitor-port", "0") as url,
        KineticaClient(url) as client,
    ):
        pipeline = Pipeline(client, url, Path(folder), records)
        pipeline.scale(2)
        pipeline.deliver()  # to warm the second
        for _ in range(rounds):
            for decoders, found in seconds.items():
                pipeline.scale(decoders)
                took, spent = pipeline.deliver()
                found.append(took)
                cpu.append(spent)
                shares.append(pipeline.busy())
        pipeline.scale(2)
        few = pipeline.idle()
        pipeline.scale(2 + ADDED)
        many = pipeline.idle()
        blocks, received = pipeline.blocks, pipeline.received_cpu
        control.stop_pipeline(NAME, 0.0)
    for decoders, found in seconds.items():
        rate = records / statistics.median(found)
        rows.append(_row(f"real: {decoders} decoder{'s' * (decoders > 1)}", rate, "records/s"))
    dispatch = statistics.median(cpu)
    rows.append(_row("real: share of the time that decoders were busy", statistics.median(shares), ""))
    rows.append(_row("monitor: receive, store, dispatch", 1e6 * received / records, "CPU us/record"))
    rows.append(
        _row(f"monitor: dispatch of {records // blocks} records", 1e6 * dispatch / blocks, "CPU us/block")
    )
    rows.append(_row("supervisor: one more actor", 1e3 * (many - few) / ADDED, "CPU ms/s"))
    rows.append(_row("supervisor: itself, with 4 actors", 1e3 * few, "CPU ms/s"))
    return statistics.median(seconds[1]) / statistics.median(seconds[2])


# -- simulated ----------------------------------------------------------------------------------------------------


@ray.remote(num_cpus=0.1, concurrency_groups={"control": 1})
class SleepingDecoder:
    """A decoder that takes a fixed time, most of which it sleeps."""

    def __init__(self) -> None:
        self._decoder = Decoder()

    def decode(self, block: Block, strict: bool) -> Batch:
        until = time.monotonic() + SLEEP
        batch = self._decoder.decode(block)
        time.sleep(max(0.0, until - time.monotonic()))
        return batch

    @ray.method(concurrency_group="control")
    def ready(self) -> None:
        """Answers when it is up."""


class Arrivals:
    """Blocks on disk of some feeds, dispatched by a monitor's dispatcher in this process."""

    def __init__(self, folder: Path, pipeline: str, decoders: int) -> None:
        self._spool = Spool(folder)
        schema = block_schema(ROW.definition, ROW.properties)
        payload = msgpack.packb(frames(SLEPT_RECORDS))
        self.count = SLEPT_BLOCKS * decoders
        for number in range(self.count):
            offset = number // FEEDS * SLEPT_RECORDS
            feed = f"t{number % FEEDS}"
            stamp = 10**16 + number * SLEPT_RECORDS
            self._spool.append([Block(feed, 1, offset, SLEPT_RECORDS, stamp, "avro", schema, payload)])
        self._dispatcher = Dispatcher(self._spool, ["lines"], RayTransport(pipeline, 1, decoders))

    def deliver(self) -> float:
        """Seconds until all is delivered."""
        began, deadline = time.monotonic(), time.monotonic() + PATIENCE
        worker = threading.Thread(target=self._dispatcher.run)
        worker.start()
        while self._dispatcher.pending:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        took = time.monotonic() - began
        self._dispatcher.stop()
        worker.join()
        self._spool.close()
        return took


@contextmanager
def _sleepers(pipeline: str, count: int, folder: Path) -> Iterator[None]:
    options = {"namespace": NAMESPACE, "num_cpus": 0.1}
    actors: list[Any] = [
        SleepingDecoder.options(name=decoder_name(pipeline, n), **options).remote() for n in range(count)
    ]
    sink = {"console": {"path": str(folder / "events.ndjson")}}
    writer: Any = WriterActor.options(name=writer_name(pipeline, "lines"), **options).remote(
        pipeline, sink, ""
    )  # type: ignore[attr-defined]
    ray.get([writer.start.remote(), *(actor.ready.remote() for actor in actors)], timeout=PATIENCE)
    yield
    for actor in (*actors, writer):
        ray.kill(actor)


def simulated(counts: list[int], rows: list[dict[str, Any]]) -> dict[int, float]:
    """Rows of the simulated part; returns blocks per second by number of decoders."""
    rates = {}
    for decoders in counts:
        with tempfile.TemporaryDirectory(prefix="tablecast-bench-") as folder:
            pipeline = f"sleep{decoders}"
            with _sleepers(pipeline, decoders, Path(folder)):
                Arrivals(Path(folder) / "warm", pipeline, decoders).deliver()
                arrivals = Arrivals(Path(folder) / "spool", pipeline, decoders)
                rates[decoders] = arrivals.count / arrivals.deliver()
        ideal = decoders / SLEEP
        what = f"simulated: {decoders} decoders of {SLEEP:g} s per block (ideal {ideal:.0f})"
        rows.append(_row(what, rates[decoders], "blocks/s"))
    return rates


def choosing(counts: list[int], rows: list[dict[str, Any]]) -> None:
    """What a monitor takes to choose the decoder of a block."""
    for count in counts:
        pool = DecoderPool(str, lambda name: name)
        pool.resize(count)
        pool.take(0.0)
        began, times = time.process_time(), 2_000
        for _ in range(times):
            taken = pool.take(0.0)
            assert taken is not None
            pool.done(taken[0])
        took = time.process_time() - began
        rows.append(_row(f"monitor: choose one of {count} decoders", 1e6 * took / times, "CPU us/block"))


def _row(what: str, value: float, unit: str) -> dict[str, Any]:
    return {"what": what, "value": value, "unit": unit}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--records", type=int, default=40_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    control.connect(own=True)
    rows: list[dict[str, Any]] = []
    ratio = real(options.records, options.rounds, rows)
    rates = simulated([1, 2, 4, 8, 16], rows)
    choosing([10, 100, 1000], rows)
    control.disconnect()
    ratios = {"2/1 decoders": ratio}
    ratios |= {f"simulated {n}/1 decoders": rate / rates[1] for n, rate in rates.items() if n > 1}
    report("scaling", rows, ratios, options.json)


if __name__ == "__main__":
    main()
