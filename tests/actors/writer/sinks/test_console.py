"""The console sink: lines on standard output or in a file, whole ones only, also after a crash."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from actors.batch import Batch
from actors.block import BlockId
from actors.writer.sinks.base import NotWritable
from actors.writer.sinks.console import ConsoleSink


def batch(offset: int = 0, count: int = 2) -> Batch:
    rows = pa.RecordBatch.from_pydict({"n": list(range(offset, offset + count)), "s": ["é\n"] * count})
    return Batch(BlockId("t.changes", 7, offset), count, 1000 + offset, rows, None, ())


def write(sink: ConsoleSink, sent: Batch) -> None:
    for payload in sink.payloads(sent):
        sink.send(payload)


def lines(path: Path) -> list[dict[str, Any]]:
    text = path.read_text()
    assert text.endswith("\n")
    return [json.loads(line) for line in text.split("\n")[:-1]]


def test_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    sink = ConsoleSink("p")
    write(sink, batch())
    sink.close()
    first, second = capfd.readouterr().out.splitlines()
    assert json.loads(first) == {"@time": 1000, "@origin": "p/t.changes/7/0", "n": 0, "s": "é\n"}
    assert json.loads(second)["@origin"] == "p/t.changes/7/1"
    os.write(1, b"still open\n")


def test_a_file_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "events.ndjson"
    for life in range(2):
        sink = ConsoleSink("p", str(path))
        write(sink, batch(12_000 * life, 12_000))
        sink.close()
    assert [line["n"] for line in lines(path)] == list(range(24_000))


@pytest.mark.parametrize("torn", ['{"n": ', "x" * 200_000])
def test_half_a_line_of_a_crash_is_cut_off(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "events.ndjson"
    for kept in ("", '{"n":-1}\n'):
        path.write_text(kept + torn)
        sink = ConsoleSink("p", str(path))
        write(sink, batch())
        sink.close()
        assert [line["n"] for line in lines(path)] == [-1, 0, 1][not kept :]


def test_an_attempt_that_failed_half_way_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "events.ndjson"
    sink = ConsoleSink("p", str(path))
    write(sink, batch(0))
    real = os.write

    def half(descriptor: int, data: bytes) -> int:
        if len(data) > 20:
            return real(descriptor, data[:20])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", half)
        (payload,) = sink.payloads(batch(2))
        payload = type(payload)(payload.body[:30], 1)
        with pytest.raises(NotWritable, match=r"events\.ndjson: No space left") as caught:
            sink.send(payload)
        assert caught.value.retryable
    write(sink, batch(2))
    sink.close()
    assert [line["n"] for line in lines(path)] == [0, 1, 2, 3]


def test_what_others_do_to_the_file_is_left_to_them(tmp_path: Path) -> None:
    path = tmp_path / "events.ndjson"
    sink = ConsoleSink("p", str(path))
    write(sink, batch(0))
    with path.open("a") as other:
        other.write('{"n":-1}\n')
    write(sink, batch(2))
    assert [line["n"] for line in lines(path)] == [0, 1, -1, 2, 3]
    os.truncate(path, 0)
    write(sink, batch(4))
    assert [line["n"] for line in lines(path)] == [4, 5]
    sink.close()


def test_a_file_has_one_writer(tmp_path: Path) -> None:
    path = tmp_path / "events.ndjson"
    one, two = ConsoleSink("p", str(path)), ConsoleSink("q", str(path))
    write(one, batch(0))
    with pytest.raises(NotWritable, match="is in use by another writer; give each sink a path of its own"):
        write(two, batch(2))
    one.close()
    write(two, batch(2))
    two.close()
    assert [line["n"] for line in lines(path)] == [0, 1, 2, 3]


def test_a_folder_is_made_and_a_file_in_its_place_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file"
    sink = ConsoleSink("p", str(path))
    write(sink, batch())
    sink.close()
    assert len(lines(path)) == 2
    with pytest.raises(NotWritable, match="/file/below: File exists"):
        write(ConsoleSink("p", str(path / "below")), batch())


def test_a_device(tmp_path: Path) -> None:
    sink = ConsoleSink("p", os.devnull)
    write(sink, batch())
    sink.close()
