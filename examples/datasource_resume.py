"""A data source as a table, killed half-way, goes on where it was: `.venv/bin/python examples/datasource_resume.py`.

The data source is `issues_source.py` beside this file. Its monitor's process is ended with SIGKILL; the supervisor
brings it back, and the source gets the state of the rows that are stored.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster import control
from cluster.cli_start import all_read
from cluster.config import PipelineConfig
from protocols.kronos.server import EventStore
from tablecast import KronosClient
from tablecast.kronos import MAX_TIME


def wait_until(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:.0f} s")
        time.sleep(0.1)


def main() -> None:
    # So that the monitor's process finds the module; on a cluster: install it, or `tablecast submit --module`.
    here = str(Path(__file__).parent)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
    with (
        tempfile.TemporaryDirectory() as folder,
        EventStore(data_dir=Path(folder) / "events", port=0) as store,
        KronosClient(store.url) as client,
    ):
        source = {"module": "issues_source", "params": {"user": "me", "token": "a-secret"}, "batch": 50}
        config = PipelineConfig.model_validate(
            {
                "pipeline": "example",
                "tables": [{"name": "issues", "datasource": source}],
                "sinks": {"events": {"kronos": {"url": store.url}}},
                "spool": {"path": f"{folder}/spool", "min_free": 0},
            }
        )

        def stored() -> list[dict[str, Any]]:
            return list(client.get("issues", 0, MAX_TIME))

        control.connect(own=True)  # a Ray of this process
        try:
            print("starting the pipeline")
            supervisor = control.start_pipeline(config)

            def table() -> dict[str, Any]:
                found: dict[str, Any] = control.ask(supervisor, "status")["tables"][0]
                return found

            wait_until(lambda: len(stored()) >= 500)
            before = table()
            os.kill(before["pid"], signal.SIGKILL)
            print("killed the monitor half-way:", before["progress"]["msg"])
            wait_until(lambda: all_read(control.ask(supervisor, "status")))
            after = table()
            print("it is", after["state"], "after", after["restarts"], "restart:", after["progress"]["msg"])
            control.stop_pipeline("example", 30)  # drains
        finally:
            control.disconnect()
        numbers = [event["number"] for event in stored()]
        once = numbers == list(range(len(numbers)))
        print(f"{len(numbers):,} issues are stored,", "each once and in order" if once else "NOT each once")
        print("the first:", stored()[0])


if __name__ == "__main__":
    main()
