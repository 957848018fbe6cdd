"""A data source as a table, killed half-way, goes on where it was: `.venv/bin/python examples/datasource_resume.py`.

This module is the data source too: it reads the pages of a made-up service. Its monitor's process is ended with
SIGKILL; the supervisor brings it back, and the source gets the state of the rows that are stored.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tablecast.panoply import DataSource, PanoplyException

CONFIG = {
    "title": "Issues",
    "params": [
        {"name": "user", "title": "User", "help": "Whose issues to read"},
        {"name": "token", "title": "Token", "help": "From the settings of the service"},
    ],
}

ISSUES = 3000


class Stream(DataSource):
    """Reads issues page by page."""

    def __init__(self, source: dict[str, Any], options: dict[str, Any]) -> None:
        super().__init__(source, options)
        if not source["token"]:
            raise PanoplyException("the service wants a token", retryable=False)
        self._next = source.get("state", {}).get("next", 0)
        self.log("reading from", self._next, "on")

    def read(self, batch_size: int | None = None) -> list[dict[str, Any]] | None:
        if self._next >= ISSUES:
            return None
        time.sleep(0.1)  # the service takes its time
        page = range(self._next, min(self._next + (batch_size or 100), ISSUES))
        self._next = page.stop
        # Once the rows that name this state are stored, a new start goes on behind them.
        self.state(f"page to {page.stop}", {"next": page.stop})
        self.progress(page.stop, ISSUES, f"{page.stop:,} issues read")
        return [
            {
                "number": n,
                "author": self.source["user"],
                "open": n % 3 == 0,
                "__state": f"page to {page.stop}",
            }
            for n in page
        ]


def wait_until(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:.0f} s")
        time.sleep(0.1)


def main() -> None:
    from cluster import control
    from cluster.cli.start import all_read
    from cluster.config import PipelineConfig
    from protocols.kronos.server import EventStore
    from tablecast import KronosClient
    from tablecast.kronos import MAX_TIME

    # So that the monitor's process finds this module; on a cluster: install it, or `tablecast submit --module`.
    here = str(Path(__file__).parent)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
    with (
        tempfile.TemporaryDirectory() as folder,
        EventStore(data_dir=Path(folder) / "events", port=0) as store,
        KronosClient(store.url) as client,
    ):
        source = {"module": "datasource_resume", "params": {"user": "me", "token": "a-secret"}, "batch": 50}
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

            wait_until(lambda: len(stored()) >= 500 and table()["progress"] is not None)
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
