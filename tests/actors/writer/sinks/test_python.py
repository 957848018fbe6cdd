"""The python sink: what functions are called with, and what becomes of what they raise."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pyarrow as pa
import pytest

from actors.backoff import Backoff
from actors.batch import Batch, Rejected
from actors.block import Block, BlockId
from actors.codec.decoder import Decoder
from actors.monitor.kinetica import block_schema
from actors.writer.sender import Sender
from actors.writer.sinks import make_sink
from actors.writer.sinks.base import PartlySent
from actors.writer.sinks.custom import NoSuchSink
from actors.writer.sinks.python import REFUSED_IN_A_ROW, CallbackRefused, PythonSink, make_calls
from cluster.config import ConfigError, parse
from cluster.supervisor.plan import decoder_specs, writer_specs
from protocols.kinetica.client import KineticaClient
from protocols.kinetica.server import TableServer
from protocols.kinetica.types import Column, TableType
from tests.inprocess import make_monitor

MODULE = """
seen, errors, failing = [], [], {}

def row(value):
    seen.append(value)
    if error := failing.get(value["id"]):
        raise error

def row_and_origin(value, origin): seen.append((value["id"], origin))
def batch(value):
    seen.append(value.num_rows)
    if failing.get("batch"): raise failing["batch"]
def batch_and_origins(value, origins): seen.append(origins.to_pylist())
def no_seven(value):
    ids = value.column("id").to_pylist()
    if 7 in ids: raise ValueError("seven")
    seen.append(ids)
def any_value(value): seen.append(value)
def error(text): errors.append(text)
def nothing(): pass
async def later(value): pass
number = 3
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    (tmp_path / "mycalls.py").write_text(MODULE)
    (tmp_path / "broken.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(str(tmp_path))
    import mycalls  # type: ignore[import-not-found]

    yield mycalls
    sys.modules.pop("mycalls", None)


def batch(ids: list[int], feed: str = "t", offset: int = 10) -> Batch:
    rows = pa.RecordBatch.from_pydict({"id": pa.array(ids, pa.int64())})
    return Batch(BlockId(feed, 7, offset), len(ids), 1000, rows, None, ())


def deliver(sink: PythonSink, given: Batch) -> None:
    for payload in sink.payloads(given):
        sink.send(payload)


def sink(values: str = "official", error: str | None = "mycalls:error", **callbacks: str) -> PythonSink:
    return PythonSink("p", {name: {"call": call, "error": error} for name, call in callbacks.items()}, values)


def test_rows_batches_counts_and_changes(module: Any) -> None:
    made = sink(
        insert_decoded="mycalls:row",
        insert_batch="mycalls:batch",
        updated="mycalls:any_value",
        deleted="mycalls:any_value",
        table_altered="mycalls:any_value",
        table_dropped="mycalls:any_value",
    )
    deliver(made, batch([1, 2]))
    counts = pa.RecordBatch.from_pydict({"count": [3, 4]})
    for feed in ("t.updates", "t.deletes"):
        deliver(made, Batch(BlockId(feed, 7, 0), 2, 1, counts, None, ()))
    events = [
        {"event": "gap_opened", "table": "t"},
        {"event": "table_altered", "table": "t", "added": ["n int"], "removed": []},
        {"event": "table_dropped", "table": "t", "problem": "gone"},
    ]
    names = ("event", "table", "added", "removed", "problem")
    changes = pa.RecordBatch.from_pydict({name: [event.get(name) for event in events] for name in names})
    deliver(made, Batch(BlockId("t.changes", 7, 0), 3, 1, changes, None, ()))
    assert module.seen == [
        2,
        {"id": 1},
        {"id": 2},
        3,
        4,
        3,
        4,
        "Table t was altered: added n int",
        "Table t does not exist anymore: gone",
    ]


def test_a_second_parameter_is_the_origin(module: Any) -> None:
    given = Batch(BlockId("t", 7, 10), 3, 1, batch([1, 2]).rows, np.array([0, 2]), (), filtered=1)
    deliver(sink(insert_decoded="mycalls:row_and_origin", insert_batch="mycalls:batch_and_origins"), given)
    assert module.seen == [["p/t/7/10", "p/t/7/12"], (1, "p/t/7/10"), (2, "p/t/7/12")]


def test_rows_as_received_come_through_the_decoder(module: Any) -> None:
    text = """\
pipeline: p
source: {kinetica: {url: "http://127.0.0.1:9191"}}
tables: [{name: t, transform: {where: "id > 1"}}, {name: other, sinks: [rest]}]
sinks:
  mine: {python: {callbacks: {insert_raw: "mycalls:any_value", insert_decoded: "mycalls:row"}}}
  rest: {console: {}}
"""
    config = parse(text, "f.yaml", {})
    settings = decoder_specs(config, 1)[0].settings
    assert settings["t"]["keep_frames"] is True
    assert "other" not in settings
    table_type = TableType((Column("id", "int"), Column("d", "string", False, ("date",))))
    schema = block_schema(table_type.definition, table_type.properties)
    frames = [b"\x02\x142024-02-29", b"\x04\x142024-02-29", b"\xff", b"\x06\x142024-03-01"]
    block = Block("t", 7, 10, 4, 1, "avro", schema, msgpack.packb(frames))
    decoded = Decoder(settings).decode(block)
    assert (len(decoded.rejects), decoded.filtered) == (1, 1)
    made = make_sink("p", next(spec.settings for spec in writer_specs(config) if spec.which == "mine"))
    for payload in made.payloads(decoded):
        made.send(payload)
    assert module.seen == [
        frames[1],
        {"id": 2, "d": "2024-02-29"},
        frames[3],
        {"id": 3, "d": "2024-03-01"},
    ]
    assert Decoder({}).decode(block).frames is None


def test_a_refused_record_is_a_dead_letter_and_the_next_follows(module: Any) -> None:
    module.failing[2] = ValueError("not this one")
    with pytest.raises(PartlySent) as caught:
        deliver(sink(insert_decoded="mycalls:row"), batch([1, 2, 3]))
    assert caught.value.rest.records == 0
    (reject,) = caught.value.rejects
    assert (reject.offset, reject.reason) == (
        11,
        "the insert_decoded callback raised ValueError: not this one",
    )
    assert [row["id"] for row in module.seen] == [1, 2, 3]
    assert module.errors == ["t: the insert_decoded callback raised ValueError: not this one"]


def test_a_passing_failure_has_the_rest_sent_again_and_no_more(module: Any) -> None:
    module.failing.update({1: ValueError("bad"), 3: ConnectionError("away")})
    made = sink(insert_decoded="mycalls:row", insert_batch="mycalls:batch")
    with pytest.raises(PartlySent) as caught:
        deliver(made, batch([1, 2, 3, 4]))
    assert [reject.offset for reject in caught.value.rejects] == [10]
    assert (caught.value.rest.records, list(caught.value.rest.offsets or ())) == (2, [12, 13])
    module.seen.clear()
    with pytest.raises(PartlySent) as again:
        made.send(caught.value.rest)
    assert again.value.rest.records == 2
    del module.failing[3]
    made.send(again.value.rest)
    assert [row["id"] for row in module.seen] == [3, 3, 4]  # and the batch not again


def test_a_batch_is_refused_as_a_whole(module: Any) -> None:
    module.failing["batch"] = ValueError("no")
    with pytest.raises(ValueError, match="no"):
        deliver(sink(insert_batch="mycalls:batch", insert_decoded="mycalls:row"), batch([1, 2]))
    assert module.seen == [2]
    assert module.errors == ["t: the insert_batch callback raised ValueError: no"]


def test_a_function_that_refuses_everything_is_to_be_mended(module: Any) -> None:
    ids = list(range(REFUSED_IN_A_ROW + 3))
    module.failing.update({number: ValueError("all") for number in ids[1:]})
    made = sink(insert_decoded="mycalls:row")
    with pytest.raises(PartlySent) as caught:
        deliver(made, batch(ids))
    assert len(caught.value.rejects) == REFUSED_IN_A_ROW
    with pytest.raises(CallbackRefused, match="raised ValueError: all") as refused:
        made.send(caught.value.rest)
    assert refused.value.refuses_all
    module.failing.clear()
    made.send(caught.value.rest)  # mended and resumed
    assert [row["id"] for row in module.seen[-2:]] == ids[-2:]


@pytest.mark.parametrize(
    ("callbacks", "message"),
    [
        ({"insert_decoded": "nowhere:f"}, "nowhere:f cannot be loaded: No module named 'nowhere'"),
        ({"insert_decoded": "broken:f"}, "broken:f cannot be loaded: division by zero"),
        ({"insert_decoded": "mycalls:missing"}, "has no attribute 'missing'"),
        (
            {"insert_decoded": "mycalls:nothing"},
            "callbacks.insert_decoded: mycalls:nothing does not take one",
        ),
        ({"insert_decoded": "mycalls:later"}, "mycalls:later is a coroutine function"),
        ({"deleted": "mycalls:number"}, "callbacks.deleted: mycalls:number is a int; give a function"),
    ],
)
def test_what_is_no_callback_is_named(module: Any, callbacks: dict[str, str], message: str) -> None:
    with pytest.raises(NoSuchSink, match=message):
        make_calls({name: {"call": call} for name, call in callbacks.items()})
    with pytest.raises(NoSuchSink, match="does not take one argument"):
        make_calls({"deleted": {"call": "mycalls:row", "error": "mycalls:nothing"}})


@pytest.mark.parametrize(
    ("callbacks", "table", "message"),
    [
        ("{}", "t", "sinks.mine.python.callbacks: names no function; write one of insert_decoded"),
        ("{inserted: 'm:f'}", "t", "unknown key; did you mean insert_decoded"),
        ("{updated: f}", "t", "sinks.mine.python.callbacks.updated: not a function; write MODULE:FUNCTION"),
        ("{updated: {error: 'm:f'}}", "t", "callbacks.updated.call: required key is missing"),
        ("{updated: 'm:f'}", "t.updates", "let its sinks be others than mine"),
    ],
)
def test_faults_of_the_file(callbacks: str, table: str, message: str) -> None:
    text = (
        'pipeline: p\nsource: {kinetica: {url: "http://127.0.0.1:9191"}}\n'
        f"tables: [{{name: {table}}}]\nsinks: {{mine: {{python: {{callbacks: {callbacks}}}}}}}\n"
    )
    with pytest.raises(ConfigError, match=message):
        parse(text, "f.yaml", {})


def through_sender(made: PythonSink, given: Batch) -> list[Rejected]:
    """Deliver with the real sender; returns what becomes dead letters."""

    async def main() -> list[Rejected]:
        sender = Sender(made, Backoff(0.001, 0.002))
        try:
            async with asyncio.timeout(60):
                progress = sender.deliver([given], sender.encode([given]), lambda: None)
                return [reject async for _, found in progress for reject in found]
        finally:
            await sender.close()

    return asyncio.run(main())


class Once(ConnectionError):
    """Fails once: whoever looks at it as text, as a report does, mends it."""

    def __init__(self, failing: dict[Any, Exception], key: int) -> None:
        super().__init__("away")
        self._mend = lambda: failing.pop(key, None)

    def __str__(self) -> str:
        self._mend()
        return "away"


def test_a_sender_gives_each_row_once_and_keeps_the_refused_ones(module: Any) -> None:
    module.failing[3] = ValueError("bad")
    module.failing[5] = Once(module.failing, 5)
    rejects = through_sender(sink(insert_decoded="mycalls:row"), batch(list(range(8))))
    assert [reject.offset for reject in rejects] == [13]
    assert [row["id"] for row in module.seen] == [0, 1, 2, 3, 4, 5, 5, 6, 7]


def test_a_sender_halves_a_batch_that_is_refused(module: Any) -> None:
    rejects = through_sender(sink(insert_batch="mycalls:no_seven"), batch([6, 7, 8, 9]))
    assert [(reject.offset, reject.reason) for reject in rejects] == [(11, "seven")]
    assert module.seen == [[6], [8, 9]]


def test_the_whole_way_from_a_table_without_ray(module: Any, tmp_path: Path) -> None:
    """The real monitor with its spool, decoder and writer, the embedded server, and functions at the end."""
    table_type = TableType((Column("id", "long"),))
    kinds = ("insert_decoded", "deleted", "table_altered")
    sink = {"python": {"callbacks": {kind: {"call": "mycalls:any_value"} for kind in kinds}}}
    with TableServer(port=0, monitor_port=0) as server, KineticaClient(server.url) as client:
        client.create_table("ki_home.t", client.create_type(table_type))
        monitor, transport = make_monitor(
            "ki_home.t", server.url, "", tmp_path / "spool", sink, events=("insert", "delete")
        )
        monitor.start()
        try:
            wait(lambda: monitor.status()["state"] == "receiving")
            client.insert_records("ki_home.t", [b"\x02", b"\x04"])
            wait(lambda: len(module.seen) == 2)
            client.delete_records("ki_home.t", ["id > 0"])
            wait(lambda: len(module.seen) == 3)
            client.alter_table("ki_home.t", "add_column", "n", options={"column_type": "int"})
            wait(lambda: len(module.seen) == 4)
        finally:
            monitor.stop()
            transport.close()
    assert module.seen == [
        {"id": 1},
        {"id": 2},
        2,
        "Table ki_home.t was altered: added n int",
    ]


def wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
