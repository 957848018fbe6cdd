"""From a file to actors: names, settings, digests that are the same in every process, and no credentials shown."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from actors.monitor.settings import Drain
from actors.writer.sinks import SINKS, make_sink
from cluster.config import PipelineConfig, Sink, parse
from cluster.supervisor.plan import (
    decoder_specs,
    drainer_spec,
    monitor_specs,
    source_arguments,
    standby_specs,
    writer_specs,
)
from cluster.supervisor.spools import Place

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
from cluster.supervisor.plan import monitor_specs, writer_specs
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


def test_a_sink_that_no_table_uses_has_a_writer_for_puts() -> None:
    text = TEXT.replace("- name: weather", "- {name: weather, sinks: [events]}")
    assert [spec.which for spec in writer_specs(config(text))] == ["events", "more"]


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
            cwd=Path(__file__).parents[3],
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


def test_a_sink_that_holds_blocks_back_holds_half_a_window() -> None:
    text = TEXT.replace(
        "tuning: {block", "  lake: {parquet: {path: ./lake}}\ntuning: {window_bytes: 3MiB, block"
    )
    lake = writer_specs(config(text.replace("sinks: [events]", "sinks: [lake]")))[-1]
    assert lake.settings["parquet"]["path"] == "/lake"
    assert lake.settings["parquet"]["hold_bytes"] == 3 * 2**20 // 2


def test_every_kind_of_sink_is_made_from_its_settings(tmp_path: Path) -> None:
    secret = "cmFuZDIvdXVpZC9hd3NhY2NvdW50L3JlZ2lvbg=="
    kinds = {
        "kronos": 'url: "http://127.0.0.1:8151"',
        "panoply": f"apikey: a/b, apisecret: {secret}",
        "parquet": f"path: {tmp_path}",
        "console": "",
        "v3io": 'url: "http://127.0.0.1:8081", container: users, kv: {path: t, key: id}',
        "python": 'callbacks: {deleted: "builtins:print"}',
    }
    assert set(kinds) == set(SINKS) == set(Sink.model_fields) - {"custom"}
    lines = "".join(f"  {kind}: {{{kind}: {{{values}}}}}\n" for kind, values in kinds.items())
    specs = writer_specs(config(TEXT.split("  - {name: flights")[0] + f"  - name: t\nsinks:\n{lines}"))
    assert [list(spec.settings) for spec in specs] == [[kind] for kind in kinds]
    for spec in specs:
        assert secret not in repr(spec)
        make_sink("p", spec.settings).close()


def test_a_table_with_a_standby_has_two_places_with_a_spool_each() -> None:
    with_standby = config(TEXT.replace("- name: weather", "- {name: weather, standby: true}"))
    flights, weather = monitor_specs(with_standby)
    (standby,) = standby_specs(with_standby)
    assert standby_specs(config()) == []
    assert (standby.kind, standby.which) == ("standby", "weather")
    assert standby.name == "flights/monitor/weather~standby"
    assert (flights.home, weather.home, standby.home) == ("flights", "weather", "weather~standby")
    assert replace(standby.settings, spool=weather.settings.spool) == weather.settings


def test_a_drainer_has_the_sinks_that_are_left_also_for_a_table_that_is_not_in_the_file() -> None:
    spec = drainer_spec(config(), Place("east", "former", "former"), ["more", "lost"], 7)
    assert (spec.kind, spec.which, spec.name) == ("drainer", "former", "flights/drainer/east/former")
    assert spec.settings.spool == "/spool/flights/former"
    assert spec.settings.sinks == ("more",)
    assert spec.settings.drain == Drain("east", ("lost",), 7)
    flights = drainer_spec(config(), Place("east", "flights", "flights"), ["events"], None)
    assert flights.settings.events == ("insert", "delete")
    assert flights.digest != monitor_specs(config())[0].digest


def test_decoders_reserve_what_the_file_says() -> None:
    small, large = decoder_specs(config(), 2), decoder_specs(config(TEXT + "decoders: {cpus: 2}\n"), 2)
    assert [spec.cpus for spec in small] == [0.25, 0.25]
    assert [spec.cpus for spec in large] == [2, 2]
    assert small[0].digest != large[0].digest, "a changed number makes them anew"
