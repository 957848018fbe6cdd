"""What a standby costs: CPU and memory of a table's monitors, with and without one, for the same rows.

Rounds alternate between two pipelines that are both up. CPU is of the monitors' processes alone, in microseconds per
row; memory is what each process has to itself. Rows go in over HTTP in messages of 1,000.

    python benchmarks/standby.py [--json] [--records 200000] [--rounds 3]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from pipeline import MESSAGE_RECORDS, ROW, frames
from report import report

from cluster import control
from cluster.config import PipelineConfig
from cluster.servers import embedded_server
from protocols.kinetica.client import KineticaClient

PATIENCE = 60.0


def _config(name: str, kinetica: str, kronos: str, folder: Path) -> PipelineConfig:
    return PipelineConfig.model_validate(
        {
            "pipeline": name,
            "source": {"kinetica": {"url": kinetica}},
            "tables": [{"name": name, "events": ["insert"], "standby": name == "pair"}],
            "sinks": {"events": {"kronos": {"url": kronos}}},
            "spool": {"path": str(folder / "spool"), "min_free": 0},
        }
    )


def _table(supervisor: Any) -> dict[str, Any]:
    table: dict[str, Any] = control.ask(supervisor, "status")["tables"][0]
    return table


def _wait(supervisor: Any, received: int) -> dict[str, Any]:
    """The table once it has received and delivered so many rows, and its standby, if any, is ready."""
    deadline = time.monotonic() + PATIENCE
    while True:
        table = _table(supervisor)
        standby = table["standby"]
        if table["received"] >= received and not table["pending"] and (not standby or standby["aligned"]):
            return table
        assert time.monotonic() < deadline, repr(table)
        time.sleep(0.05)


def _round(
    client: KineticaClient, supervisor: Any, name: str, start: int, rows: list[bytes]
) -> tuple[float, float, float]:
    """CPU seconds of the monitors, seconds, and MiB of memory, for `rows`."""
    table = _wait(supervisor, start)
    pids = [table["pid"], *([table["standby"]["pid"]] if table["standby"] else [])]
    processes = [psutil.Process(pid) for pid in pids]
    before, begun = sum(_cpu(process) for process in processes), time.monotonic()
    for first in range(0, len(rows), MESSAGE_RECORDS):
        client.insert_records(name, rows[first : first + MESSAGE_RECORDS])
    _wait(supervisor, start + len(rows))
    seconds = time.monotonic() - begun
    cpu = sum(_cpu(process) for process in processes) - before
    return cpu, seconds, sum(process.memory_full_info().uss for process in processes) / 2**20


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    control.connect(own=True)
    encoded = frames(options.records)
    rounds: dict[str, list[tuple[float, float, float]]] = {"alone": [], "pair": []}
    with (
        tempfile.TemporaryDirectory() as folder,
        embedded_server("kinetica", "--monitor-port", "0") as kinetica,
        embedded_server("kronos", "--data-dir", folder, "--namespace", "kronos") as kronos,
        KineticaClient(kinetica) as client,
    ):
        supervisors = {}
        for name in rounds:
            client.create_table(name, client.create_type(ROW))
            supervisors[name] = control.start_pipeline(_config(name, kinetica, kronos, Path(folder)))
            assert control.wait_ready(supervisors[name], PATIENCE)
        for number in range(options.rounds):
            for name, found in rounds.items():
                start = number * options.records
                found.append(_round(client, supervisors[name], name, start, encoded))
        for name in rounds:
            control.stop_pipeline(name, 0.0)
    control.disconnect()
    rows = []
    for name, found in rounds.items():
        cpu, seconds, memory = (statistics.median(column) for column in zip(*found, strict=True))
        rows.append(
            {
                "what": name,
                "per_second": options.records / seconds,
                "cpu_us_per_record": 1e6 * cpu / options.records,
                "memory_mib": memory,
            }
        )
    alone, pair = rows
    ratios = {f"pair/alone {key}": pair[key] / alone[key] for key in ("cpu_us_per_record", "memory_mib")}
    report("standby", rows, ratios, options.json)


if __name__ == "__main__":
    main()
