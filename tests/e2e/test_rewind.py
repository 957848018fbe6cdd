"""`tablecast rewind`: a sink gets again what the spool retains, though its writer remembers having had it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from actors.block import TICKS_PER_SECOND
from cluster import control
from cluster.config import PipelineConfig
from protocols.kinetica.client import KineticaClient
from protocols.kronos.client import KronosClient
from protocols.kronos.wire import MAX_TIME
from tests.e2e import traffic
from tests.e2e.conftest import wait_until


def test_a_sink_that_lost_events_gets_them_again(
    start: Callable[[PipelineConfig], Any],
    make_config: Callable[..., PipelineConfig],
    kinetica: KineticaClient,
    kronos: KronosClient,
    unique: str,
    tmp_path: Path,
) -> None:
    traffic.create(kinetica, unique)
    spool = {"path": str(tmp_path / "spool"), "min_free": 0, "retain": 600}
    supervisor = start(make_config(unique, [unique], spool=spool))
    began = time.time()
    for first in (0, 100):
        kinetica.insert_records(unique, [traffic.frame(n) for n in range(first, first + 100)])
        wait_until(lambda: len(traffic.events(kronos, unique)) == first + 100, "events stored")  # noqa: B023
    before = traffic.events(kronos, unique)
    kronos.delete(unique, 0, MAX_TIME)
    assert traffic.events(kronos, unique) == []

    def rewind(moment: float) -> Any:
        return control.ask(supervisor, "rewind", "events", None, int(moment * TICKS_PER_SECOND))

    wait_until(lambda: not control.ask(supervisor, "status")["tables"][0]["pending"], "cursors moved")
    assert rewind(time.time()) == {"feeds": {}, "refused": {}}
    assert rewind(began) == {"feeds": {unique: 200}, "refused": {}}
    again = wait_until(lambda: len(found := traffic.events(kronos, unique)) == 200 and found, "all again")
    assert again == before
