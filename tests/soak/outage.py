"""One of two sinks is gone for a while, under a steady load: memory, the other sink's rate, and how fast it catches up.

``scripts/soak outage [--seconds 30] [--rate 20000]`` prints the figures and ends with 1 if one of them is not what it
should be.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from cluster import control
from cluster.config import PipelineConfig
from cluster.servers import embedded_server
from protocols.kinetica.client import KineticaClient
from protocols.kronos.client import KronosClient
from protocols.kronos.wire import MAX_TIME
from tests.e2e import traffic

MIB = 1 << 20

#: Bounds of the figures.
MAX_GROWTH = 200 * MIB
MIN_OTHER = 0.8
MIN_CATCH_UP = 2.0

#: Seconds before anything that is waited for is overdue, beside what the outage itself takes.
PATIENCE = 90.0


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured. Rates in records per second, sizes in bytes, times in seconds."""

    seconds: float
    arrival_rate: float
    growth: dict[str, int]
    other_before: float
    other_during: float
    noticed_after: float
    catch_up_rate: float
    published: int
    lost: int
    doubled: int

    @property
    def faults(self) -> list[str]:
        """Which of the figures are not what they should be."""
        found = [f"{who} grew by {n / MIB:.0f} MiB" for who, n in self.growth.items() if n > MAX_GROWTH]
        if self.other_during < MIN_OTHER * min(self.other_before, self.arrival_rate):
            found.append(
                f"the other sink fell from {self.other_before:,.0f} to {self.other_during:,.0f} records/s"
            )
        if self.catch_up_rate < MIN_CATCH_UP * self.arrival_rate:
            found.append(f"caught up at {self.catch_up_rate:,.0f} records/s only")
        if self.lost or self.doubled:
            found.append(f"{self.lost} rows lost, {self.doubled} doubled")
        return found

    def __str__(self) -> str:
        growth = ", ".join(f"{who} {n / MIB:+.0f} MiB" for who, n in self.growth.items())
        return (
            f"outage of {self.seconds:.0f} s at {self.arrival_rate:,.0f} records/s: resident memory {growth};"
            f" the other sink {self.other_before:,.0f} -> {self.other_during:,.0f} records/s;"
            f" noticed {self.noticed_after:.1f} s after the end, caught up at {self.catch_up_rate:,.0f} records/s"
            f" ({self.catch_up_rate / self.arrival_rate:.1f} times the arrivals);"
            f" of {self.published:,} rows {self.lost} lost, {self.doubled} doubled"
        )


class _Load:
    """Inserts `rate` rows a second, numbered from 0, until stopped."""

    def __init__(self, url: str, table: str, rate: int) -> None:
        self.count = 0
        self._client = KineticaClient(url)
        self._table, self._rate = table, rate
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> _Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(PATIENCE)

    def _run(self) -> None:
        started = time.monotonic()
        while not self._stop.wait(0.02):
            due = int((time.monotonic() - started) * self._rate)
            while self.count < due:
                stop = min(due, self.count + 2000)
                frames = [traffic.frame(n) for n in range(self.count, stop)]
                self._client.insert_records(self._table, frames)
                self.count = stop


class _Watch:
    """Asks the supervisor; notes how much memory processes came to hold."""

    def __init__(self, supervisor: Any) -> None:
        self._supervisor = supervisor
        self._first: dict[str, int] = {}
        self._most: Counter[str] = Counter()

    def delivered(self) -> dict[str, int]:
        """Records that each sink has had."""
        status = control.ask(self._supervisor, "status")
        members = {f"writer of {sink['name']}": sink["pid"] for sink in status["sinks"]}
        for who, pid in {**members, "monitor": status["tables"][0]["pid"]}.items():
            size = psutil.Process(pid).memory_info().rss
            self._first.setdefault(who, size)
            self._most[who] = max(self._most[who], size)
        return {sink["name"]: sink["records"] for sink in status["sinks"]}

    def reset(self) -> None:
        """Take the sizes of now as those to compare with."""
        self._first.clear()
        self._most.clear()

    @property
    def growth(self) -> dict[str, int]:
        return {who: size - self._first[who] for who, size in self._most.items()}

    def rate(self, sink: str, seconds: float) -> float:
        """Records per second to `sink` over the next seconds."""
        before, started = self.delivered()[sink], time.monotonic()
        while time.monotonic() < started + seconds:
            time.sleep(0.5)
            after = self.delivered()[sink]
        return (after - before) / (time.monotonic() - started)

    def until(
        self, condition: Callable[[dict[str, int]], bool], what: str, patience: float
    ) -> dict[str, int]:
        deadline = time.monotonic() + patience
        while not condition(delivered := self.delivered()):
            assert time.monotonic() < deadline, f"not within {patience:.0f} s: {what}; {delivered}"
            time.sleep(0.1)
        return delivered


def run(seconds: float, rate: int, name: str = "outage") -> Figures:
    """Start servers and a pipeline on the connected Ray cluster, and let one of its two sinks be gone for `seconds`."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tablecast-outage-")))
        kinetica = stack.enter_context(embedded_server("kinetica", "--monitor-port", "0"))
        stays = stack.enter_context(embedded_server("kronos", "--data-dir", str(folder / "stays")))
        options = ("--data-dir", str(folder / "goes"))
        goes = ExitStack()
        stack.callback(goes.close)
        gone = goes.enter_context(embedded_server("kronos", *options))
        with KineticaClient(kinetica) as client:
            traffic.create(client, name)
        config = PipelineConfig.model_validate(
            {
                "pipeline": name,
                "source": {"kinetica": {"url": kinetica}},
                "tables": [{"name": name, "events": ["insert"]}],
                "sinks": {"stays": {"kronos": {"url": stays}}, "goes": {"kronos": {"url": gone}}},
                "decoders": {"min": 2},
                "spool": {"path": str(folder / "spool"), "min_free": 0},
            }
        )
        supervisor = control.start_pipeline(config)
        stack.callback(_end, name)
        assert control.wait_ready(supervisor, PATIENCE), control.ask(supervisor, "status")
        watch = _Watch(supervisor)
        load = stack.enter_context(_Load(kinetica, name, rate))
        # What a process holds once it has been at work for a while is not growth.
        watch.until(lambda delivered: min(delivered.values()) >= rate, "both sinks at work", PATIENCE)
        before = watch.rate("stays", max(4.0, seconds / 4))
        watch.reset()
        watch.delivered()

        goes.close()
        inserted, began = load.count, time.monotonic()
        during = watch.rate("stays", seconds)
        arrivals = (load.count - inserted) / (time.monotonic() - began)
        port = gone.rpartition(":")[2]
        goes.enter_context(embedded_server("kronos", *options, "--port", port))

        back, low = time.monotonic(), watch.delivered()["goes"]
        first = watch.until(
            lambda delivered: delivered["goes"] > low, "the sink's return is noticed", PATIENCE
        )
        noticed = time.monotonic()
        caught = watch.until(
            lambda delivered: delivered["goes"] >= load.count - rate, "caught up", PATIENCE + 2 * seconds
        )
        ended = time.monotonic()
        load.stop()
        assert control.stop_pipeline(name, PATIENCE) == control.Left()
        lost = doubled = 0
        for url in (stays, gone):
            with KronosClient(url) as store:
                rows = Counter(event["id"] for event in store.get(name, 0, MAX_TIME))
            lost += sum(n not in rows for n in range(load.count))
            doubled += sum(count - 1 for count in rows.values())
        return Figures(
            seconds=seconds,
            arrival_rate=arrivals,
            growth=watch.growth,
            other_before=before,
            other_during=during,
            noticed_after=noticed - back,
            catch_up_rate=(caught["goes"] - first["goes"]) / (ended - noticed),
            published=load.count,
            lost=lost,
            doubled=doubled,
        )


def _end(name: str) -> None:
    if name in control.pipelines():
        control.stop_pipeline(name, 0.0)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="scripts/soak outage", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--rate", type=int, default=20_000)
    arguments = parser.parse_args()
    control.connect(own=True)
    figures = run(arguments.seconds, arguments.rate)
    control.disconnect()
    print(figures)
    if figures.faults:
        sys.exit("; ".join(figures.faults))


if __name__ == "__main__":
    main()
