"""The metrics of a pipeline as Ray's: they come out with those of the node, with ``ray_`` before each name.

To be made in the process of an actor. What is not there any more, such as a table that left the file, keeps its last
value: Ray has no way to take one back.
"""

from __future__ import annotations

from typing import Any

from ray.util.metrics import Counter, Gauge

from cluster.watch.metrics import METRICS, Values, measure


class RayMetrics:
    """All of :data:`~cluster.watch.metrics.METRICS`."""

    def __init__(self) -> None:
        # Ray adds the _total itself.
        self._metrics: dict[str, Any] = {
            metric.name: (Counter if metric.counter else Gauge)(
                metric.name.removesuffix("_total"), metric.help, tag_keys=metric.labels
            )
            for metric in METRICS
        }
        #: (metric, labels) of counters -> what they were.
        self._counts: dict[tuple[str, tuple[str, ...]], float] = {}

    def set(self, status: Values) -> None:
        """Take the values of a status."""
        for metric, labels, value in measure(status):
            tags = dict(zip(metric.labels, labels, strict=True))
            if not metric.counter:
                self._metrics[metric.name].set(value, tags=tags)
                continue
            before = self._counts.get((metric.name, labels), 0.0)
            self._counts[metric.name, labels] = value
            grown = value - before if value >= before else value  # else who counts began anew
            if grown:
                self._metrics[metric.name].inc(grown, tags=tags)
