"""End to end: records per second and CPU per record from a table's change feed into the event store.

Compares this pipeline (monitor, two decoders, writer, supervisor and Ray itself) with what users do today: one
process that decodes record by record with the official package and puts batches of 1,000 events. Both subscribe to
the same publisher, which sends the same records faster than either can take them and keeps what waits; both write
to the same store. Rounds alternate. CPU is of all processes but the publisher and the store, which both ways share.

    python benchmarks/pipeline.py [--json] [--records 400000] [--rounds 3]
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import fastavro
import gpudb
import psutil
import requests
import zmq
from report import report

from actors.names import NAMESPACE, writer_name
from cluster import control
from cluster.config import PipelineConfig
from cluster.servers import embedded_server
from protocols.kinetica.client import KineticaClient
from protocols.kinetica.types import Column, TableType
from protocols.kronos.wire import now

TABLE = "bench"
MESSAGE_RECORDS = 1_000
PUT_EVENTS = 1_000
PATIENCE = 300.0

#: Eight columns, 55 bytes of Avro: long, 2 double, long, string, nullable string, int, nullable float.
ROW = TableType(
    (
        Column("id", "long"),
        Column("x", "double"),
        Column("y", "double"),
        Column("ts", "long", False, ("timestamp",)),
        Column("name", "string"),
        Column("note", "string", True, ("nullable",)),
        Column("kind", "int"),
        Column("score", "float", True, ("nullable",)),
    )
)


def frames(count: int) -> list[bytes]:
    """`count` records as Avro; the same each time."""
    rng = random.Random(1)
    schema = fastavro.parse_schema(ROW.avro)
    encoded = []
    for number in range(count):
        row = {
            "id": number,
            "x": rng.random(),
            "y": rng.gauss(0, 1000),
            "ts": 1_700_000_000_000 + number,
            "name": f"name{rng.randrange(10**6)}",
            "note": None if number % 4 == 0 else "note " + "x" * rng.randrange(12),
            "kind": rng.randrange(1000),
            "score": None if number % 5 == 0 else rng.random(),
        }
        out = io.BytesIO()
        fastavro.schemaless_writer(out, schema, row)
        encoded.append(out.getvalue())
    return encoded


def publisher(pipe: Connection, records: int) -> None:
    """A process: binds a PUB socket that keeps everything, and publishes all records to each topic it is told."""
    context = zmq.Context()
    socket = context.socket(zmq.PUB)
    socket.set(zmq.SNDHWM, 0)
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    encoded = frames(records)
    pipe.send(port)
    while (topic := pipe.recv()) is not None:
        for start in range(0, records, MESSAGE_RECORDS):
            socket.send_multipart([topic.encode(), *encoded[start : start + MESSAGE_RECORDS]])
        pipe.send("published")
    context.destroy(linger=0)


def official(
    pipe: Connection, port: int, topic: str, schema: str, url: str, records: int, stream: str
) -> None:
    """A process: the official package's loop, record by record, with puts of 1,000 events."""
    context = zmq.Context()
    socket = context.socket(zmq.SUB)
    socket.connect(f"tcp://127.0.0.1:{port}")
    socket.setsockopt_string(zmq.SUBSCRIBE, topic)
    record_type = gpudb.RecordType.from_type_schema(label="", type_schema=schema, properties={})
    session = requests.Session()
    events: list[dict[str, Any]] = []

    def put() -> None:
        body = json.dumps({"events": {stream: events}})
        reply = session.post(f"{url}/1.0/events/put", data=body, timeout=60).json()
        assert reply["@success"], reply
        events.clear()

    pipe.send("subscribed")
    pipe.recv()
    cpu = time.process_time()
    seen = 0
    while seen < records:
        for message in socket.recv_multipart()[1:]:
            event = dict(gpudb.GPUdbRecord.decode_binary_data(record_type, message)[0])
            event["@time"] = now()
            events.append(event)
            seen += 1
            if len(events) == PUT_EVENTS:
                put()
    if events:
        put()
    pipe.send((time.time(), time.process_time() - cpu))
    context.destroy(linger=0)


class Bench:
    """The servers, the publisher and the pipeline, for any number of rounds."""

    def __init__(self, kinetica: str, kronos: str, folder: Path, records: int, stack: ExitStack) -> None:
        self.records = records
        self._kronos = kronos
        self._spawn = multiprocessing.get_context("spawn")
        self._client = stack.enter_context(KineticaClient(kinetica))
        self._client.create_table(TABLE, self._client.create_type(ROW))
        self._pipe, child = self._spawn.Pipe()
        process = self._spawn.Process(target=publisher, args=(child, records), daemon=True)
        process.start()
        stack.callback(process.kill)
        self._port = self._pipe.recv()
        config = PipelineConfig.model_validate(
            {
                "pipeline": TABLE,
                "source": {"kinetica": {"url": kinetica, "monitor_port": self._port}},
                "tables": [{"name": TABLE, "events": ["insert"]}],
                "sinks": {"events": {"kronos": {"url": kronos}}},
                "decoders": {"min": 2},
                "spool": {"path": str(folder / "spool"), "min_free": 0},
            }
        )
        control.connect(own=True)
        stack.callback(control.disconnect)
        supervisor = control.start_pipeline(config)
        assert control.wait_ready(supervisor, PATIENCE), control.ask(supervisor, "status")
        stack.callback(control.stop_pipeline, TABLE, 0.0)
        import ray

        self._ray = ray
        self._writer = ray.get_actor(writer_name(TABLE, "events"), NAMESPACE)
        (self._topic,) = [monitor.topic_id for monitor in self._client.show_table_monitors()]
        self._seen = 0

    def tablecast(self) -> tuple[float, float]:
        """One round of ours: (seconds, CPU seconds)."""
        processes = _ray_processes()
        before = _cpu(processes)
        stored = 0
        started = time.time()
        self._pipe.send(self._topic)
        last = started
        while stored < self.records:
            assert time.time() - started < PATIENCE
            for delivery in self._ray.get(self._writer.deliveries.remote(self._seen), timeout=PATIENCE):
                self._seen = delivery.number
                stored += delivery.count
                last = delivery.time
            time.sleep(0.1)
        cpu = _cpu(processes) - before
        assert self._pipe.recv() == "published"
        return last - started, cpu

    def official(self, number: int) -> tuple[float, float]:
        """One round of the official package's: (seconds, CPU seconds)."""
        monitor = self._client.create_table_monitor(TABLE, "insert")
        pipe, child = self._spawn.Pipe()
        arguments = (
            child,
            self._port,
            monitor.topic_id,
            monitor.type_schema,
            self._kronos,
            self.records,
            f"o{number}",
        )
        process = self._spawn.Process(target=official, args=arguments, daemon=True)
        process.start()
        pipe.recv()
        time.sleep(0.5)  # nothing tells when the publisher has acted on the subscription
        pipe.send("go")
        started = time.time()
        self._pipe.send(monitor.topic_id)
        assert pipe.poll(PATIENCE), "the official loop lost records or is too slow"
        ended, cpu = pipe.recv()
        assert self._pipe.recv() == "published"
        process.join(10)
        self._client.clear_table_monitor(monitor.topic_id)
        return ended - started, cpu


def _ray_processes() -> list[psutil.Process]:
    """Everything that Ray started below this process: its daemons and our actors."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if any("ray" in part for part in _command(child))]


def _command(process: psutil.Process) -> list[str]:
    try:
        return [process.name(), *process.cmdline()]
    except psutil.NoSuchProcess:
        return []


def _cpu(processes: list[psutil.Process]) -> float:
    total = 0.0
    for process in processes:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


@contextmanager
def _bench(records: int) -> Iterator[Bench]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tablecast-bench-")))
        kinetica = stack.enter_context(embedded_server("kinetica", "--monitor-port", "0"))
        kronos = stack.enter_context(embedded_server("kronos", "--data-dir", str(folder / "events")))
        yield Bench(kinetica, kronos, folder, records, stack)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--records", type=int, default=400_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    measured: dict[str, list[tuple[float, float]]] = {"tablecast": [], "official": []}
    with _bench(arguments.records) as bench:
        bench.tablecast()  # a round to warm both the store and the actors
        for number in range(arguments.rounds):
            measured["tablecast"].append(bench.tablecast())
            measured["official"].append(bench.official(number))
    rows: list[dict[str, Any]] = []
    for what, rounds in measured.items():
        seconds = statistics.median(seconds for seconds, _ in rounds)
        cpu = statistics.median(cpu for _, cpu in rounds)
        million = arguments.records / 1e6
        rows.append(
            {
                "what": what,
                "per_second": arguments.records / seconds,
                "cpu_seconds_per_million": cpu / million,
                "cpu_us_per_record": cpu / million,
            }
        )
    ours, theirs = rows
    ratios = {
        "tablecast/official": ours["per_second"] / theirs["per_second"],
        "cpu official/tablecast": theirs["cpu_us_per_record"] / ours["cpu_us_per_record"],
    }
    report("pipeline", rows, ratios, arguments.json)


if __name__ == "__main__":
    main()
