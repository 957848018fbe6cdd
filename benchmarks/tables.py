"""Many small tables in one pipeline on one machine: how soon all of them receive, and what they cost.

Starts Ray, the embedded servers and a pipeline; then inserts rows into every table and reads all of them back from
the store. Memory is the proportional set size of every process, Ray's own and both servers' included; the processor
time of the idle pipeline is given in cores. There is no peer, so no ratio: the official client has three threads,
contexts and sockets per table, and no process that would hold them together.

    python benchmarks/tables.py [--json] [--tables 200] [--together 50] [--rows 20] [--idle 15]

Exits 1 if a row is missing or double.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fastavro
import psutil
from pipeline import ROW
from report import report

from cluster import control
from cluster.config import PipelineConfig
from cluster.servers import embedded_server
from protocols.kinetica.client import KineticaClient
from protocols.kronos.client import KronosClient
from protocols.kronos.wire import MAX_TIME

PATIENCE = 180.0
CLIENTS = 4


def _config(names: list[str], together: int, kinetica: str, kronos: str, folder: Path) -> PipelineConfig:
    return PipelineConfig.model_validate(
        {
            "pipeline": "many",
            "source": {"kinetica": {"url": kinetica}},
            "tables": [{"name": name} for name in names],
            "sinks": {"events": {"kronos": {"url": kronos}}},
            "monitors_per_actor": together,
            "spool": {"path": str(folder / "spool"), "min_free": 0},
        }
    )


def _processes() -> list[psutil.Process]:
    """This process and all that it has started: Ray's, the actors, the servers."""
    return [psutil.Process(), *psutil.Process().children(recursive=True)]


def _sum(what: Any) -> float:
    total = 0.0
    for process in _processes():
        try:
            total += what(process)
        except psutil.Error:  # it has ended
            continue
    return total


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _row(number: int) -> bytes:
    values = {column.name: f"text {number}" if column.base == "string" else number for column in ROW.columns}
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(ROW.avro), values)
    return out.getvalue()


def _stored(kronos: KronosClient, name: str) -> Counter[str]:
    """Every row of a stream by all its columns, and how often it is there."""
    events = kronos.get(name, 0, MAX_TIME)
    return Counter(repr([event[column] for column in ROW.names]) for event in events)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--tables", type=int, default=200)
    parser.add_argument("--together", type=int, default=50, help="monitors_per_actor")
    parser.add_argument("--rows", type=int, default=20, help="rows per table")
    parser.add_argument("--idle", type=float, default=15.0, help="seconds to measure without rows")
    options = parser.parse_args()
    names = [f"small{n:03}" for n in range(options.tables)]
    with (
        tempfile.TemporaryDirectory() as folder,
        embedded_server("kinetica", "--monitor-port", "0") as kinetica,
        embedded_server("kronos", "--data-dir", folder, "--namespace", "kronos") as kronos_url,
        KineticaClient(kinetica) as client,
        ThreadPoolExecutor(CLIENTS) as threads,
    ):
        type_id = client.create_type(ROW)
        list(threads.map(lambda name: client.create_table(name, type_id), names))
        control.connect(own=True)
        begun = time.monotonic()
        supervisor = control.start_pipeline(
            _config(names, options.together, kinetica, kronos_url, Path(folder))
        )
        assert control.wait_ready(supervisor, PATIENCE), control.ask(supervisor, "status")["tables"][0]
        ready = time.monotonic() - begun
        begun, cpu = time.monotonic(), _sum(_cpu)
        time.sleep(options.idle)
        cores = (_sum(_cpu) - cpu) / (time.monotonic() - begun)
        rows = [_row(number) for number in range(options.rows)]
        begun = time.monotonic()
        list(threads.map(lambda name: client.insert_records(name, rows), names))
        goal, deadline = options.rows, time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            tables = control.ask(supervisor, "status")["tables"]
            if all(table["received"] >= goal and not table["pending"] for table in tables):
                break
            time.sleep(0.2)
        delivered = time.monotonic() - begun
        kronos = KronosClient(kronos_url)
        stored = {name: _stored(kronos, name) for name in names}
        kronos.close()
        lost = sum(max(0, goal - len(found)) for found in stored.values())
        doubled = sum(sum(found.values()) - len(found) for found in stored.values())
        row = {
            "what": f"{options.tables} tables, {options.together} per process",
            "seconds_until_all_receive": ready,
            "memory_mib": _sum(lambda process: process.memory_full_info().pss) / 2**20,
            "processes": len(_processes()),
            "monitor_processes": len({table["pid"] for table in tables}),
            "threads": _sum(lambda process: process.num_threads()),
            "idle_cores": cores,
            "seconds_until_delivered": delivered,
            "tables_with_all_rows": sum(len(found) == goal for found in stored.values()),
            "lost": lost,
            "doubled": doubled,
        }
        control.stop_pipeline("many", 30.0)
        control.disconnect()
    report("tables", [row], {}, options.json)
    sys.exit(1 if lost or doubled else 0)


if __name__ == "__main__":
    main()
