"""A data source through the real monitor, decoder, writer and event store, in one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from protocols.kronos.client import KronosClient
from protocols.kronos.server import EventStore
from protocols.kronos.wire import MAX_TIME
from tests.actors.monitor.fakes import wait_for
from tests.inprocess import make_monitor


def _run(
    store: EventStore, spool: Path, total: int, ending: bool = True
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read to the end, then end the pipeline or only stop receiving; the status and the conservation report before."""
    params = {"total": total, "token": "correct-horse-battery"}
    source = {"module": "tests.e2e.counting_source", "params": params, "options": {}, "batch": 30}
    monitor, transport = make_monitor("t", "", store.url, spool, kind="datasource", source=source)
    monitor.start()
    wait_for(lambda: monitor.status()["state"] == "done" and not monitor.pending, "read and delivered")
    found = monitor.status(), monitor.conservation()
    monitor.stop_intake(ending)
    monitor.stop()
    transport.close()
    return found


def test_a_data_source_is_read_delivered_and_accounted_for(tmp_path: Path) -> None:
    with EventStore(data_dir=tmp_path / "events", port=0) as store, KronosClient(store.url) as client:
        status, report = _run(store, tmp_path / "spool", 500)
        assert status["received"] == 500
        assert status["progress"] == {"loaded": 500, "total": 500, "msg": "500 numbers with ***"}
        assert status["gaps"] == {"counts": {}, "latest": []}
        assert [account["unexplained"] for account in report["accounts"]] == [0]
        assert report["source"]["audits"] is False
        status, _ = _run(store, tmp_path / "spool", 560, ending=False)
        assert status["received"] == 60  # those that are new
        status, _ = _run(store, tmp_path / "spool", 600)
        assert status["received"] == 0  # its pipeline had not ended, it had only changed
        events = list(client.get("t", 0, MAX_TIME))
        assert [event["n"] for event in events] == list(range(560))
