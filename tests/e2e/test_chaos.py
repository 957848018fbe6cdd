"""``tablecast chaos`` for a quarter of a minute over every kind of actor: nothing is lost, nothing doubled."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import Any

from cluster import chaos, control
from cluster.config import PipelineConfig
from cluster.verify import verify
from protocols.kinetica.client import KineticaClient
from protocols.kronos.client import KronosClient
from tests.e2e import traffic
from tests.e2e.conftest import DEADLINE, wait_until

#: Seconds of kills; ``scripts/soak chaos`` asks for more.
SECONDS = float(os.environ.get("SOAK_SECONDS", "15"))
SEED = int(os.environ.get("SOAK_SEED", "1"))


def test_kills_at_random_lose_and_double_nothing(
    start: Callable[[PipelineConfig], Any],
    make_config: Callable[..., PipelineConfig],
    unique: str,
    kinetica: KineticaClient,
    kronos: KronosClient,
) -> None:
    tables = [f"{unique}{letter}" for letter in "ab"]
    for table in tables:
        traffic.create(kinetica, table)
    start(make_config(unique, [{"name": table, "increasing_column": "id"} for table in tables]))
    with traffic.Publisher(kinetica, tables) as publisher:
        kills = chaos.run(unique, SECONDS, interval=1.5, seed=SEED)
        # Rows flow after the last kill too.
        goal = publisher.counts[tables[-1]] + 500
        wait_until(lambda: publisher.counts[tables[-1]] >= goal, "more rows inserted")
    kinds = Counter(kill.kind for kill in kills)
    print(f"\nseed {SEED}: {dict(kinds)} killed while {publisher.counts} rows were inserted")
    assert SECONDS < 15 or set(kinds) == set(chaos.KINDS)
    verify(unique, repair=True)
    assert chaos.drain(unique), control.ask(control.find(unique), "status")
    report = verify(unique)
    assert (report["lost"], report["unexplained"]) == (0, 0), report
    assert control.stop_pipeline(unique, DEADLINE) == control.Left()
    for table, account in zip(tables, report["tables"], strict=True):
        events = traffic.events(kronos, table)
        stored = Counter((e["id"], e["name"], e["x"]) for e in events)
        inserted = Counter(traffic.row(number) for number in range(publisher.counts[table]))
        lost, doubled = (inserted - stored).total(), (stored - inserted).total()
        print(f"{table}: {inserted.total()} inserted, {lost} lost, {doubled} doubled")
        more = [e for e in events if stored[e["id"], e["name"], e["x"]] > 1][:20]
        assert (lost, doubled) == (0, 0), more
        delivered = {each["feed"]: each["delivered"] for each in account["sinks"]}
        assert delivered[table] == account["source"]["inserted"] == inserted.total()
