"""Records of actors: lines of JSON with what they are about, and never a secret."""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel, SecretStr

from actors import logs
from actors.block import BlockId
from actors.logs import FILES, JsonFormatter, Redactor, about, place, secrets_in, set_up
from cluster.config import PipelineConfig

BLOCK = BlockId("flights.deletes", 7, 10)


def record(message: str, *arguments: object, **extra: Any) -> logging.LogRecord:
    logger = logging.getLogger("actors.test")
    return logger.makeRecord("actors.test", logging.WARNING, "f", 1, message, arguments, None, extra=extra)


def formatted(made: logging.LogRecord, *secrets: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(JsonFormatter("monitor/flights", Redactor(secrets)).format(made))
    return found


def test_a_line_says_who_when_and_what_it_is_about() -> None:
    line = formatted(record("block %s", 3, **place(BLOCK, "events", offset=12)))
    assert line.pop("time") > 1_700_000_000
    assert line.pop("pid") > 0
    assert line == {
        "level": "warning",
        "actor": "monitor/flights",
        "logger": "actors.test",
        "message": "block 3",
        "table": "flights",
        "feed": "flights.deletes",
        "epoch": 7,
        "offset": 12,
        "sink": "events",
    }


def test_what_a_thread_logs_is_about_its_table() -> None:
    found: list[dict[str, Any]] = []

    def work() -> None:
        about("weather")
        found.append(formatted(record("hello")))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found[0]["table"] == "weather"
    assert "table" not in formatted(record("hello"))


def test_a_call_that_cannot_be_formatted_is_logged_all_the_same() -> None:
    assert formatted(record("%d rows", "many"))["message"] == "%d rows (TypeError in formatting it)"


def test_secrets_are_taken_out_of_messages_and_tracebacks() -> None:
    settings = {
        "url": "http://h",
        "password": "correct horse",
        "nested": [{"access_key": "k-123456"}],
        "key": "id",
    }
    secrets = secrets_in(settings)
    assert secrets == {"correct horse", "k-123456"}
    made = record("refused: correct horse, http://user:pw@host/x?p=correct%20horse")
    try:
        raise ValueError("k-123456 is not a key")
    except ValueError:
        made.exc_info = sys.exc_info()
    line = formatted(made, *secrets)
    assert line["message"] == "refused: ***, http://***@host/x?p=***"
    assert "*** is not a key" in line["trace"]
    assert not re.search("correct|horse|k-123456|pw", json.dumps(line))


def secret_fields(model: type[BaseModel], seen: set[type]) -> Iterator[str]:
    if model in seen:
        return
    seen.add(model)
    for name, field in model.model_fields.items():
        for part in _parts(field.annotation):
            if part is SecretStr:
                yield name
            elif isinstance(part, type) and issubclass(part, BaseModel):
                yield from secret_fields(part, seen)


def _parts(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) is None:
        yield annotation
    for part in get_args(annotation):
        yield from _parts(part)


def test_every_secret_of_a_pipeline_file_is_known_by_its_key() -> None:
    names = set(secret_fields(PipelineConfig, set()))
    assert {"password", "token", "access_key"} <= names
    for name in names:
        assert secrets_in({name: "correct horse"}) == {"correct horse"}, name


@pytest.fixture
def _no_handlers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers[:]
    yield
    for handler in [each for each in root.handlers if each not in before]:
        root.removeHandler(handler)
        handler.close()
    for name in logs._OURS:
        logging.getLogger(name).setLevel(logging.NOTSET)


@pytest.mark.usefixtures("_no_handlers")
def test_files_are_per_process_and_few(tmp_path: Path) -> None:
    folder = tmp_path / "tablecast" / "p"
    folder.mkdir(parents=True)
    for pid in range(9):
        (folder / f"decoder%2F0-{pid}.log").write_text("{}\n")
    (folder / "decoder%2F01-5.log").write_text("{}\n")  # of another
    set_up(tmp_path, "p", "decoder/0", ["correct horse"])
    set_up(tmp_path, "p", "decoder/0")  # once is enough
    logging.getLogger("actors.test").info("correct horse", extra={"table": "t"})
    mine = [path for path in folder.iterdir() if path.name.startswith("decoder%2F0-")]
    assert len(mine) == FILES
    (written,) = [path for path in mine if path.read_text() != "{}\n"]
    (line,) = map(json.loads, written.read_text().splitlines())
    assert (line["actor"], line["level"], line["message"], line["table"]) == ("decoder/0", "info", "***", "t")
    assert (folder / "decoder%2F01-5.log").exists()


@pytest.mark.usefixtures("_no_handlers")
def test_a_folder_that_cannot_be_written_to_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "tablecast").write_text("a file")
    set_up(tmp_path, "p", "writer/events")
