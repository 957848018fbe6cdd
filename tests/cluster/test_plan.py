"""From a file to actors: names, settings, digests that are the same in every process, and no credentials shown."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

from cluster.config import PipelineConfig, parse
from cluster.plan import decoder_specs, monitor_specs, source_arguments, writer_specs

TEXT = """\
pipeline: flights
source:
  kinetica: {url: http://127.0.0.1:9191, username: u, password: correct-horse}
tables:
  - {name: flights, events: [insert, delete], sinks: [events]}
  - name: weather
sinks:
  events: {kronos: {url: "http://127.0.0.1:8151"}}
  more: {kronos: {url: "http://127.0.0.1:8152", namespace: other}}
tuning: {block: {linger_ms: 250}}
"""

DIGESTS = """
import sys
from cluster.config import parse
from cluster.plan import monitor_specs, writer_specs
config = parse(sys.stdin.read(), "/f.yaml", {})
print(*[spec.digest for spec in monitor_specs(config) + writer_specs(config)])
"""


def config(text: str = TEXT) -> PipelineConfig:
    return parse(text, "/f.yaml", {})


def digests(config: PipelineConfig) -> list[str]:
    return [spec.digest for spec in monitor_specs(config) + writer_specs(config)]


def test_one_monitor_per_table_one_writer_per_sink() -> None:
    flights, weather = monitor_specs(config())
    assert (flights.kind, flights.which, flights.name) == ("monitor", "flights", "flights/monitor/flights")
    assert flights.settings.sinks == ("events",)
    assert flights.settings.events == ("insert", "delete")
    assert weather.settings.sinks == ("events", "more")
    assert weather.settings.spool == "/spool/flights/weather"
    assert weather.settings.limits.linger == 0.25
    assert [spec.name for spec in writer_specs(config())] == ["flights/writer/events", "flights/writer/more"]
    assert [spec.name for spec in decoder_specs(config(), 2)] == ["flights/decoder/0", "flights/decoder/1"]


def test_what_follows_an_alteration_is_settled_per_table() -> None:
    keys = "contract: freeze, ambiguous: new, increasing_column: id"
    flights, weather = monitor_specs(config(TEXT.replace("- name: weather", f"- {{name: weather, {keys}}}")))
    values = (weather.settings.contract, weather.settings.ambiguous, weather.settings.increasing_column)
    assert values == ("freeze", "new", "id")
    values = (flights.settings.contract, flights.settings.ambiguous, flights.settings.increasing_column)
    assert values == ("evolve", "reject", None)


def test_a_sink_that_no_table_uses_has_no_writer() -> None:
    text = TEXT.replace("- name: weather", "- {name: weather, sinks: [events]}")
    assert [spec.which for spec in writer_specs(config(text))] == ["events"]


def test_digests_are_the_same_in_every_process_and_after_a_journey() -> None:
    expected = digests(config())
    assert len(set(expected)) == 4
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", DIGESTS],
            input=TEXT,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONHASHSEED": seed},
        )
        assert done.stdout.split() == expected
    travelled = PipelineConfig.model_validate(pickle.loads(pickle.dumps(config().dump())))
    assert digests(travelled) == expected
    assert [spec.settings for spec in monitor_specs(travelled)] == [
        s.settings for s in monitor_specs(config())
    ]


def test_digests_tell_what_changed() -> None:
    before = digests(config())
    after = digests(config(TEXT.replace("namespace: other", "namespace: another")))
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, True, True, False]
    after = digests(config(TEXT.replace("correct-horse", "staple")))
    assert [a == b for a, b in zip(before, after, strict=True)] == [False, False, True, True]


def test_credentials_reach_the_client_and_no_repr() -> None:
    assert source_arguments(config())["password"] == "correct-horse"
    specs = monitor_specs(config())
    assert specs[0].settings.source["password"] == "correct-horse"
    shown = repr(specs) + repr([spec.settings for spec in specs]) + str(specs[0])
    assert "correct-horse" not in shown
