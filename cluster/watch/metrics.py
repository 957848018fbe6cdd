"""The metrics of a pipeline: what ``/metrics`` answers and what goes to Ray, both read off a status.

Names follow Prometheus: a unit at the end, ``_total`` on what only grows. A counter begins anew with the actor that
counts, which Prometheus' ``rate`` expects. ``python -m cluster.watch.metrics > docs/metrics.md`` makes their reference.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from cluster.supervisor.readiness import lacking

#: A part of a status, or several parts as one.
Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric; `value` reads it off the part of the status that it is about, None for not known."""

    name: str
    help: str
    value: Callable[[Values], float | bool | None]
    labels: tuple[str, ...] = ()

    @property
    def counter(self) -> bool:
        """Whether it only grows."""
        return self.name.endswith("_total")


class Sample(NamedTuple):
    """The value of a metric for these values of its labels, the pipeline's name first."""

    metric: Metric
    labels: tuple[str, ...]
    value: float


class _Group(NamedTuple):
    """Metrics of the same labels; `parts` gives the labels' values and what the metrics are read off."""

    labels: tuple[str, ...]
    parts: Callable[[Values], Iterable[tuple[tuple[str, ...], Values]]]
    metrics: tuple[tuple[str, str, Callable[[Values], float | bool | None]], ...]


def _key(key: str) -> Callable[[Values], float | None]:
    return lambda part: part[key]


def _named(key: str) -> Callable[[Values], Iterable[tuple[tuple[str, ...], Values]]]:
    return lambda status: (((part["name"],), part) for part in status[key])


def _decoders(status: Values) -> Iterator[tuple[tuple[str, ...], Values]]:
    for part in status["decoders"]["members"]:
        yield (part["name"],), part


def _gaps(status: Values) -> Iterator[tuple[tuple[str, ...], Values]]:
    for table in status["tables"]:
        for state in ("open", "healing", "healed", "unhealed"):
            yield (table["name"], state), {"gaps": table["gaps"]["counts"].get(state, 0)}


def _lanes(status: Values) -> Iterator[tuple[tuple[str, ...], Values]]:
    """The feeds of a table to a sink, as one."""
    for table in status["tables"]:
        sinks: dict[str, dict[str, float]] = defaultdict(
            lambda: dict.fromkeys(("pending", "lag", "delivered"), 0)
        )
        for lane in table["lanes"]:
            sums = sinks[lane["sink"]]
            sums["pending"] += lane["pending_records"]
            sums["lag"] = max(sums["lag"], lane["lag_seconds"])
            sums["delivered"] += (lane["account"] or {}).get("delivered", 0)
        for sink, sums in sinks.items():
            yield (table["name"], sink), sums


_GROUPS = (
    _Group(
        (),
        lambda status: [((), status)],
        (
            ("tablecast_ready", "1 when all actors run, else 0.", lambda status: not lacking(dict(status))),
            (
                "tablecast_restarts_total",
                "Failures of all actors since the pipeline's start.",
                _key("restarts"),
            ),
            (
                "tablecast_supervisor_start_time_seconds",
                "When the supervisor started, since 1970.",
                _key("supervisor_since"),
            ),
            (
                "tablecast_decoders_wanted",
                "Size that the pool should have.",
                lambda s: s["decoders"]["wanted"],
            ),
            ("tablecast_decoders_running", "Decoders that run.", lambda s: s["decoders"]["running"]),
            (
                "tablecast_decoders_busy_ratio",
                "Mean part of the time that the decoders work, 0 to 1.",
                lambda s: s["decoders"]["busy"],
            ),
            (
                "tablecast_backlog_bytes",
                "Payload that waits for sinks that take something.",
                lambda s: s["decoders"]["backlog_bytes"],
            ),
            (
                "tablecast_backlog_seconds",
                "How long the pool needs to decode it.",
                lambda s: s["decoders"]["backlog_seconds"],
            ),
            (
                "tablecast_held_records",
                "Records in spools that no monitor has.",
                lambda s: sum(spool["records"] for spool in s["spools"]),
            ),
        ),
    ),
    _Group(
        ("table",),
        _named("tables"),
        (
            (
                "tablecast_receiving",
                "1 while the table's monitor receives, or has read all that there is, else 0.",
                lambda t: t["state"] in ("receiving", "done"),
            ),
            (
                "tablecast_records_received_total",
                "Records received since the monitor started.",
                _key("received"),
            ),
            ("tablecast_dead_letters", "Records that wait as dead letters.", _key("dead_letters")),
            (
                "tablecast_lost_records",
                "Rows that the source had at the last audit and we did not.",
                _key("lost"),
            ),
            ("tablecast_spool_bytes", "Size of the spool.", _key("spool_bytes")),
            ("tablecast_reconnects_total", "Times that the monitor lost the source.", _key("reconnects")),
            ("tablecast_monitor_restarts_total", "Failures of the monitor.", _key("restarts")),
            ("tablecast_monitor_resident_bytes", "Memory of the monitor's process.", _key("resident_bytes")),
        ),
    ),
    _Group(
        ("table", "state"),
        _gaps,
        (("tablecast_gaps", "Gaps that are open, healing, healed or unhealed.", _key("gaps")),),
    ),
    _Group(
        ("table", "sink"),
        _lanes,
        (
            (
                "tablecast_lag_seconds",
                "Age of the oldest record of the table that the sink does not have; 0 for none.",
                _key("lag"),
            ),
            (
                "tablecast_pending_records",
                "Records of the table that the sink does not have.",
                _key("pending"),
            ),
            (
                "tablecast_records_delivered_total",
                "Records of the table that are durable at the sink, since the spool was made.",
                _key("delivered"),
            ),
        ),
    ),
    _Group(
        ("decoder",),
        _decoders,
        (
            ("tablecast_decoder_up", "1 while the decoder runs, else 0.", lambda d: d["state"] == "up"),
            (
                "tablecast_decoder_records_total",
                "Records decoded since the decoder started.",
                _key("records"),
            ),
            ("tablecast_decoder_bytes_total", "Payload decoded, as received.", _key("bytes")),
            ("tablecast_decoder_rejects_total", "Records that did not decode.", _key("rejects")),
            ("tablecast_decoder_filtered_total", "Records left out by a transform.", _key("filtered")),
            ("tablecast_decoder_busy_seconds_total", "Time spent decoding.", _key("busy_seconds")),
            ("tablecast_decoder_restarts_total", "Failures of the decoder.", _key("restarts")),
        ),
    ),
    _Group(
        ("sink",),
        _named("sinks"),
        (
            ("tablecast_sink_up", "1 while the sink's writer runs, else 0.", lambda s: s["state"] == "up"),
            (
                "tablecast_sink_circuit_open",
                "1 while the sink fails and is only probed.",
                lambda s: s["circuit"] in ("open", "half-open"),
            ),
            (
                "tablecast_sink_records_total",
                "Records made durable since the writer started.",
                _key("records"),
            ),
            ("tablecast_sink_requests_total", "Requests that succeeded.", _key("requests")),
            ("tablecast_sink_retries_total", "Requests that failed and were sent again.", _key("retries")),
            (
                "tablecast_sink_refused_records_total",
                "Records that the sink refused for good.",
                _key("refused"),
            ),
            ("tablecast_sink_requests_in_flight", "Requests under way.", _key("in_flight")),
            ("tablecast_sink_waiting_blocks", "Blocks that wait in the writer.", _key("waiting")),
            ("tablecast_sink_buffered_bytes", "Size of these, as received.", _key("buffered_bytes")),
            ("tablecast_sink_restarts_total", "Failures of the writer.", _key("restarts")),
        ),
    ),
)

_MADE = [
    (group, [Metric(name, text, value, ("pipeline", *group.labels)) for name, text, value in group.metrics])
    for group in _GROUPS
]

#: All of them.
METRICS = [metric for _, metrics in _MADE for metric in metrics]


def measure(status: Values) -> Iterator[Sample]:
    """Every metric of a pipeline with this status."""
    for group, metrics in _MADE:
        for labels, part in group.parts(status):
            for metric in metrics:
                value = metric.value(part)
                if value is not None:
                    yield Sample(metric, (status["pipeline"], *labels), float(value))


def exposition(status: Values) -> bytes:
    """The metrics in Prometheus' text format, version 0.0.4."""
    registry = CollectorRegistry()
    registry.register(_Collector(status))
    return generate_latest(registry)


class _Collector(Collector):
    def __init__(self, status: Values) -> None:
        self._status = status

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for metric in METRICS:
            kind = CounterMetricFamily if metric.counter else GaugeMetricFamily
            families[metric.name] = kind(metric.name, metric.help, labels=metric.labels)
        for metric, labels, value in measure(self._status):
            families[metric.name].add_metric(labels, value)
        yield from families.values()


_HEAD = """\
# Metrics

What `/metrics` of a pipeline answers ([watch.md](watch.md)), in Prometheus' text format. Each has the label `pipeline`,
and those named. What ends in `_total` only grows, but begins anew with the process that counts it, which `rate()`
knows how to take. Ray exports the same with `ray_` before the name, every 5 seconds, with the metrics of its nodes.
This page is made of `cluster/watch/metrics.py`; `python -m cluster.watch.metrics > docs/metrics.md` makes it anew.

| metric | labels | type | meaning |
|---|---|---|---|
"""


def reference() -> str:
    """The page of all metrics, in Markdown."""
    lines = [
        f"| `{metric.name}` | {', '.join(metric.labels[1:]) or '–'} | {'counter' if metric.counter else 'gauge'} |"
        f" {metric.help} |\n"
        for metric in METRICS
    ]
    return _HEAD + "".join(lines)


if __name__ == "__main__":
    sys.stdout.write(reference())
