"""The last hour of a pipeline, in memory of a fixed size: what the page's charts show. No clock.

A supervisor that is restarted begins with an empty one; who wants more than an hour has Prometheus keep it.
"""

from __future__ import annotations

from array import array
from math import nan
from typing import Any

#: Seconds between two samples, and how many are kept: an hour.
INTERVAL = 5.0
SAMPLES = 720

#: (kind, name, what): ``("table", "flights", "rate")``.
Key = tuple[str, str, str]


class History:
    """The last :data:`SAMPLES` samples of a pipeline's statuses."""

    def __init__(self, samples: int = SAMPLES) -> None:
        self._samples = samples
        self._count = 0
        self._series: dict[Key, array[float]] = {}
        #: Series -> the number of its last sample.
        self._seen: dict[Key, int] = {}
        self._busy: dict[str, float] = {}
        self._time = 0.0

    def add(self, status: dict[str, Any]) -> None:
        """Take a status. A series that nobody added to for as long as samples are kept is forgotten."""
        for key, value in self._read(status).items():
            if key not in self._series:
                self._series[key] = array("d", [nan]) * self._samples
            self._series[key][self._count % self._samples] = value
            self._seen[key] = self._count
        for key, seen in [*self._seen.items()]:
            if seen <= self._count - self._samples:
                del self._seen[key], self._series[key]
            elif seen < self._count:
                self._series[key][self._count % self._samples] = nan
        self._count += 1

    def _read(self, status: dict[str, Any]) -> dict[Key, float]:
        tables, sinks, decoders = status["tables"], status["sinks"], status["decoders"]
        values: dict[Key, float] = {}
        for table in tables:
            for what, key in (("rate", "records_per_second"), ("pending", "pending"), ("lag", "lag_seconds")):
                values["table", table["name"], what] = table[key]
        for sink in sinks:
            values["sink", sink["name"], "rate"] = sink["records_per_second"]
        totals = {
            "time": status["time"],
            "received": sum(table["records_per_second"] for table in tables),
            "delivered": sum(sink["records_per_second"] for sink in sinks),
            "pending": sum(table["pending"] for table in tables),
            "lag": max((table["lag_seconds"] for table in tables), default=0.0),
            "decoders": decoders["running"],
            "wanted": decoders["wanted"],
            "busy": self._utilisation(status["time"], decoders["members"]),
            "restarts": status["restarts"],
        }
        return values | {("total", "", what): value for what, value in totals.items()}

    def _utilisation(self, time: float, members: list[dict[str, Any]]) -> float:
        """Mean part of the time since the last sample that the decoders worked, of those that were there then."""
        before, self._busy = self._busy, {member["name"]: member["busy_seconds"] for member in members}
        passed, self._time = time - self._time, time
        grown = [
            seconds - before[name]
            for name, seconds in self._busy.items()
            if seconds >= before.get(name, seconds + 1)
        ]
        if not grown or passed <= 0:
            return 0.0
        return min(1.0, sum(grown) / passed / len(grown))

    def totals(self) -> dict[str, Any]:
        """``{"interval", "total": {what: values}, "sinks": {name: values}}``, oldest first; NaN where unknown."""
        sinks = {name: self._values(key) for key in self._series for kind, name, _ in [key] if kind == "sink"}
        total = {
            what: self._values(key) for key in self._series for kind, _, what in [key] if kind == "total"
        }
        return {"interval": INTERVAL, "total": total, "sinks": sinks}

    def table(self, name: str) -> dict[str, Any] | None:
        """``{"interval", "time", "rate", "pending", "lag"}`` of a table; None if it is not known."""
        keys = [("table", name, what) for what in ("rate", "pending", "lag")]
        if keys[0] not in self._series:
            return None
        found = {key[2]: self._values(key) for key in keys}
        return {"interval": INTERVAL, "time": self._values(("total", "", "time")), **found}

    def _values(self, key: Key) -> list[float]:
        series = self._series[key]
        if self._count <= self._samples:
            return series[: self._count].tolist()
        at = self._count % self._samples
        return (series[at:] + series[:at]).tolist()
