"""Metrics: readable by Prometheus' own parser, documented, and the dashboard asks for none that does not exist."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from cluster.watch.metrics import METRICS, exposition, measure, reference
from tests.cluster.statuses import decoder, lane, pipeline, sink, table

ROOT = Path(__file__).parents[3]

#: What Prometheus itself knows in an expression, and labels.
WORDS = {
    "sum",
    "max",
    "min",
    "avg",
    "by",
    "rate",
    "clamp_min",
    "increase",
    "count",
    "topk",
    "bool",
    "or",
    "on",
}


def parsed(status: dict[str, Any]) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(exposition(status).decode())
        for sample in family.samples
    }


def test_a_status_as_text() -> None:
    lanes = [
        lane("t", "events", 3, 1.5, 40),
        lane("t.updates", "events", 1, 0.5, 2),
        lane("t", "lake", 9, 7.0, 34),
    ]
    gaps = {"counts": {"healed": 2}, "latest": []}
    status = pipeline(
        tables=[table("t", received=43, lanes=lanes, gaps=gaps, lost=5), table('odd "name"\n', "down")],
        decoders=[decoder("0", busy_seconds=2.5), decoder("1", state="down")],
        sinks=[sink("events", records=42), sink("lake", circuit="open")],
        restarts=4,
    )
    values = parsed(status)

    def value(name: str, **labels: str) -> float:
        return values[name, frozenset({"pipeline": "p", **labels}.items())]

    assert value("tablecast_records_received_total", table="t") == 43
    assert value("tablecast_receiving", table="t") == 1
    assert value("tablecast_receiving", table='odd "name"\n') == 0
    assert value("tablecast_lag_seconds", table="t", sink="events") == 1.5
    assert value("tablecast_lag_seconds", table="t", sink="lake") == 7.0
    assert value("tablecast_pending_records", table="t", sink="events") == 4
    assert value("tablecast_records_delivered_total", table="t", sink="events") == 42
    assert value("tablecast_gaps", table="t", state="healed") == 2
    assert value("tablecast_gaps", table="t", state="open") == 0
    assert value("tablecast_lost_records", table="t") == 5
    assert value("tablecast_decoder_busy_seconds_total", decoder="0") == 2.5
    assert value("tablecast_decoders_running") == 1
    assert value("tablecast_sink_circuit_open", sink="lake") == 1
    assert value("tablecast_restarts_total") == 4
    assert value("tablecast_ready") == 0
    # Every metric is there, unless what it tells is not known.
    assert {name for name, _ in values} == {metric.name for metric in METRICS}


def test_what_is_not_known_is_left_out() -> None:
    values = parsed(pipeline(tables=[table("t", resident_bytes=None)]))
    assert "tablecast_monitor_resident_bytes" not in {name for name, _ in values}


def test_names_say_what_they_are() -> None:
    for metric in METRICS:
        assert re.fullmatch(r"tablecast_[a-z_]+", metric.name)
        assert metric.labels[0] == "pipeline"
        assert metric.help.endswith(".")
    assert len({metric.name for metric in METRICS}) == len(METRICS)


def test_the_reference_is_current() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    assert page == reference(), "run: python -m cluster.watch.metrics > docs/metrics.md"


def test_the_dashboard_asks_only_for_metrics_and_labels_that_there_are() -> None:
    dashboard = json.loads((ROOT / "deploy" / "grafana" / "tablecast.json").read_text())
    known = {metric.name: set(metric.labels) for metric in METRICS}
    asked = list(_expressions(dashboard))
    assert len(asked) > 10
    for expression in asked:
        names = set(re.findall(r"\btablecast_\w+", expression))
        assert names, expression
        assert names <= known.keys(), expression
        labels = set.union({"le"}, *(known[name] for name in names))
        used = re.findall(r"(\w+)\s*=~?\s*\"", expression)
        used += [
            word
            for group in re.findall(r"\bby\s*\(([^)]*)\)", expression)
            for word in re.split(r"[,\s]+", group)
        ]
        assert set(used) <= labels, expression
        bare = re.sub(r"\{[^}]*\}|\"[^\"]*\"|\[[^\]]*\]|\bby\s*\([^)]*\)", "", expression)
        assert set(re.findall(r"[a-z_]{2,}", bare)) <= WORDS | names, expression
    measured = {sample.metric.name for sample in measure(pipeline())}
    assert known.keys() == measured


def _expressions(part: Any) -> Iterator[str]:
    """Of panels, and of the questions that fill the variables."""
    if isinstance(part, dict):
        if isinstance(part.get("expr"), str):
            yield part["expr"]
        if part.get("type") == "query" and isinstance(part.get("definition"), str):
            yield re.sub(r"^label_values\((.*), \w+\)$", r"\1", part["definition"])
        for each in part.values():
            yield from _expressions(each)
    elif isinstance(part, list):
        for each in part:
            yield from _expressions(each)
