"""Tables that are read: their keys, that no parameter is shown, and what status draws of them."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from cluster.cli.show import show_status
from cluster.cli.start import all_read
from cluster.config import ConfigError, PipelineConfig, parse
from cluster.supervisor.difference import difference
from cluster.supervisor.plan import monitor_specs
from cluster.verify import summary
from tests.cluster import statuses

SECRET = "correct-horse-battery"

FILE = """\
pipeline: p
tables:
  - name: issues
    datasource: {module: my_source, params: {user: me, token: "${TOKEN}"}, options: {key: "${TOKEN}"}}
  - name: clicks
    stream: {v3io: {url: "http://127.0.0.1:8081", access_key: "${TOKEN}", container: users, path: /clicks/}}
sinks: {lines: {console: {}}}
"""


def _config(text: str = FILE) -> PipelineConfig:
    return parse(text, "pipeline.yaml", {"TOKEN": SECRET, "OTHER": "another-secret"})


def _faults(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        _config(text)
    return [fault.partition(": ")[2] for fault in caught.value.faults]


def test_a_pipeline_of_tables_that_are_read_needs_no_source() -> None:
    config = _config()
    assert PipelineConfig.model_validate(config.dump()) == config
    issues, clicks = (spec.settings for spec in monitor_specs(config))
    assert (issues.kind, clicks.kind) == ("datasource", "v3io_stream")
    assert issues.source == {
        **{"module": "my_source", "params": {"user": "me", "token": SECRET}},
        **{"options": {"key": SECRET}, "batch": 1000},
    }
    assert (clicks.source["access_key"], clicks.source["path"]) == (SECRET, "clicks")


def test_no_parameter_is_shown() -> None:
    config = _config()
    other = _config(FILE.replace("${TOKEN}", "${OTHER}"))
    steps = difference(config, other)
    assert [str(step).split(";")[0] for step in steps] == [
        "change table issues: datasource.params, datasource.options",
        "change table clicks: stream.v3io.access_key",
    ]
    shown = f"{config!r} {config} {monitor_specs(config)} {[spec.settings for spec in monitor_specs(config)]} {steps}"
    assert SECRET not in shown
    assert "another-secret" not in shown


def test_a_source_is_missing_if_a_table_is_a_databases() -> None:
    assert _faults("pipeline: p\ntables: [{name: a}]\nsinks: {lines: {console: {}}}\n") == [
        "source: required key is missing; add it"
    ]


def test_what_contradicts() -> None:
    text = FILE.replace("  - name: clicks\n", "    standby: true\n    events: [insert]\n  - name: clicks\n")
    text = text.replace(
        "name: clicks\n", "name: clicks\n    datasource: {module: a-b, params: {x: 2026-01-01}}\n"
    )
    assert _faults(text) == [
        "tables[0].standby: only for a table of source.kinetica; remove it",
        "tables[0].events: only for a table of source.kinetica; remove it",
        "tables[1].datasource.module: not a module; write PACKAGE.MODULE, without .py",
        "tables[1].datasource.params: a date or a key that is no text in it; put those in quotes",
        "tables[1].stream: given beside datasource; write one of the two",
    ]


def _shown(**told: Any) -> str:
    status = statuses.pipeline(tables=[statuses.table("issues", progress=told)])
    status["decoders"] |= {"mode": "fixed", "min": 1, "max": 1, "verdict": "", "steps": []}
    out = io.StringIO()
    show_status(status, Console(file=out, width=100))
    return out.getvalue()


def test_status_draws_how_far_a_table_is_read() -> None:
    assert "issues: [#####...............] 25%, 50 of 200  half" in _shown(loaded=50, total=200, msg="half")
    assert "issues: 7" in _shown(loaded=7, total=None, msg="")
    assert "issues: waiting" in _shown(loaded=None, total=None, msg="waiting")


def test_a_pipeline_is_over_when_all_tables_are_read_and_delivered() -> None:
    done, waiting = statuses.table("a", "done"), statuses.table("b", "done", pending=1)
    assert all_read({"tables": [done]})
    assert not all_read({"tables": [done, waiting]})
    assert not all_read({"tables": [done, statuses.table("c")]})


def test_verify_does_not_wait_for_audits_of_what_is_read() -> None:
    source = {"audited": None, "audits": False, "expected": None, "inserted": 5}
    report = {
        "lost": 0,
        "unexplained": 0,
        "unfinished": [],
        "tables": [{"table": "t", "gaps": [], "source": source}],
    }
    assert summary(report) == "nothing lost, nothing unexplained"
