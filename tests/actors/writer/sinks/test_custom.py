"""Sinks of users' own: the example of the documentation, and what is said of classes that are no sinks."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from actors.batch import Batch
from actors.block import BlockId
from actors.writer.sinks import make_sink
from actors.writer.sinks.custom import NoSuchSink, check_options, load_sink
from cluster.config import parse
from cluster.supervisor.plan import writer_specs

DOCS = Path(__file__).parents[4] / "docs" / "sinks.md"
PIPELINE = """\
pipeline: p
source: {{kinetica: {{url: "http://127.0.0.1:9191"}}}}
tables: [{{name: t}}]
{sinks}
"""


def example(language: str, mark: str) -> str:
    (found,) = [
        text for text in re.findall(rf"```{language}\n(.*?)```", DOCS.read_text(), re.S) if mark in text
    ]
    return str(found)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that modules are imported from, with the documentation's example in it."""
    (tmp_path / "mysinks.py").write_text(example("python", "# mysinks.py"))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("mysinks", None)


def test_the_example_of_the_documentation_works(module: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(module)
    config = parse(PIPELINE.format(sinks=example("yaml", "mysinks:Lines")), "f.yaml", {})
    custom = config.sinks["mine"].custom
    assert custom is not None
    check_options(custom.class_, "p", custom.options)
    (spec,) = writer_specs(config)
    sink = make_sink("p", spec.settings)
    rows = pa.RecordBatch.from_pydict({"a": list(range(2500))})
    for payload in sink.payloads(Batch(BlockId("t", 7, 0), 2500, 1000, rows, None, ())):
        sink.send(payload)
    sink.close()
    events = [
        e for line in (module / "lines" / "t.ndjson").read_text().splitlines() for e in json.loads(line)
    ]
    assert [event["a"] for event in events] == list(range(2500))
    assert events[7] == {"@time": 1007, "@origin": "p/t/7/7", "a": 7}


def test_an_entry_point_names_a_sink(module: Path) -> None:
    info = module / "mysinks-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mysinks\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[tablecast.sinks]\nlines = mysinks:Lines\n")
    assert load_sink("lines").__name__ == "Lines"
    with pytest.raises(
        NoSuchSink, match=r"line is neither module:Class nor an entry point of tablecast.sinks \(lines\)"
    ):
        load_sink("line")


def test_a_rolling_sink_holds_no_more_than_half_a_window(module: Path) -> None:
    (module / "rolling.py").write_text(
        "class Roll:\n"
        "    linger, hold_bytes = 1.0, 1 << 30\n"
        "    def __init__(self, pipeline): pass\n"
        "    def payloads(self, batch): pass\n"
        "    def rolled(self, batches): pass\n"
        "    def send(self, payload): pass\n"
        "    def close(self): pass\n"
    )
    sinks = 'sinks: {mine: {custom: {class: "rolling:Roll"}}}\ntuning: {window_bytes: 4MiB}'
    (spec,) = writer_specs(parse(PIPELINE.format(sinks=sinks), "f.yaml", {}))
    sink: Any = make_sink("p", spec.settings)
    assert sink.hold_bytes == 2 << 20


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("nowhere:Sink", {}, "nowhere:Sink cannot be loaded: No module named 'nowhere'"),
        ("mysinks:Nothing", {}, "cannot be loaded: module 'mysinks' has no attribute 'Nothing'"),
        ("mysinks:Path", {}, "mysinks:Path has no payloads, send, close"),
        ("json:dumps", {}, "has no payloads|is no class"),
        ("nothing", {}, r"neither module:Class nor an entry point of tablecast.sinks"),
        ("mysinks:Lines", {}, "does not take these options: missing a required argument: 'folder'"),
        ("mysinks:Lines", {"folder": "x", "size": 1}, "unexpected keyword argument 'size'"),
    ],
)
def test_what_is_no_sink_is_named(module: Path, name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(NoSuchSink, match=message):
        check_options(name, "p", options)
