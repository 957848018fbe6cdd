"""The logs of actors: a line of JSON per record, with the table, epoch and offset that it is about, and no credentials.

Each process writes files of its own, in Ray's folder of logs on its host: ``tablecast/<pipeline>/<actor>-<pid>.log``.
They are turned over when they grow, and those of processes long gone are deleted. Warnings also go to standard error,
which Ray keeps beside them. ``cluster/logs.py`` reads them.

A line has ``time`` (seconds since 1970), ``level``, ``actor`` (``monitor/flights``), ``pid``, ``logger``, ``message``;
as far as they apply ``table``, ``feed``, ``epoch``, ``offset``, ``sink``; and ``trace``, a traceback.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson

from actors.block import Block, BlockId
from actors.names import FEED_SUFFIXES

#: Fields of a record that say what it is about, in the order in which they are shown.
FIELDS = ("table", "feed", "epoch", "offset", "sink")

#: Bytes at which a file is turned over (one older part is kept), and files kept per actor.
FILE_BYTES = 2 << 20
FILES = 4

#: Our own packages, of which more is logged than of others.
_OURS = ("actors", "cluster", "protocols", "tablecast")

#: Keys of settings whose values are never shown, and what comes before the host in a URL.
_SECRET = re.compile(r"password|secret|token|api_?key|access_?key|credential|private", re.IGNORECASE)
_USERINFO = re.compile(r"(?<=://)[^/@\s]+@")

#: Shorter values are too likely to be part of any word.
_SHORTEST_SECRET = 4

_table: ContextVar[str | None] = ContextVar("table", default=None)


def about(table: str) -> None:
    """What this thread or task logs from here on is about `table`."""
    _table.set(table)


def place(block: Block | BlockId, sink: str | None = None, *, offset: int | None = None) -> dict[str, Any]:
    """What to log as ``extra`` of something that is about `block`, or about its record at `offset`."""
    fields = {"feed": block.feed, "epoch": block.epoch, "offset": block.offset if offset is None else offset}
    return fields if sink is None else {**fields, "sink": sink}


def secrets_in(settings: Any) -> frozenset[str]:
    """The values in `settings`, plain or nested, whose keys say that they are secret."""
    return frozenset(_secrets(settings, False))


def _secrets(value: Any, secret: bool) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _secrets(each, secret or bool(_SECRET.search(str(key))))
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _secrets(each, secret)
    elif secret and isinstance(value, str) and len(value) >= _SHORTEST_SECRET:
        yield value


class Redactor:
    """Takes `secrets`, and whatever stands before the host in a URL, out of text."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._words: set[str] = set()
        self._known: re.Pattern[str] | None = None
        self.add(secrets)

    def add(self, secrets: Iterable[str]) -> None:
        """Take these out as well, from now on."""
        for secret in secrets:
            self._words |= {secret, quote(secret)}
        if self._words:  # longest first: one may be part of another
            words = sorted(self._words, key=len, reverse=True)
            self._known = re.compile("|".join(map(re.escape, words)))

    def __call__(self, text: str) -> str:
        if self._known is not None:
            text = self._known.sub("***", text)
        return _USERINFO.sub("***@", text)


#: Of this process: an actor may have several tables, each with secrets of its own.
_redact = Redactor()


class JsonFormatter(logging.Formatter):
    """Records of the process of `actor` as lines of JSON."""

    def __init__(self, actor: str, redact: Redactor) -> None:
        super().__init__()
        self._actor = actor
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": round(record.created, 6),
            "level": record.levelname.lower(),
            "actor": self._actor,
            "pid": record.process,
            "logger": record.name,
            "message": self._redact(_message(record)),
            **fields_of(record),
        }
        if record.exc_info:
            line["trace"] = self._redact(self.formatException(record.exc_info))
        return orjson.dumps(line, default=str).decode()


class TextFormatter(logging.Formatter):
    """Records as lines for people."""

    def __init__(self, redact: Redactor) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        return self._redact(super().format(record))


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """What `record` is about, as far as it says or its thread does; see :data:`FIELDS`."""
    found = {name: getattr(record, name) for name in FIELDS if hasattr(record, name)}
    table = found.get("table") or _table.get() or _table_of(found.get("feed"))
    return found if table is None else {"table": table, **found}


def _table_of(feed: str | None) -> str | None:
    if feed is None:
        return None
    suffix = next((suffix for suffix in FEED_SUFFIXES if feed.endswith(suffix)), "")
    return feed.removesuffix(suffix)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception as error:  # a log call must never be what fails
        return f"{record.msg} ({type(error).__name__} in formatting it)"


def set_up(folder: Path, pipeline: str, actor: str, secrets: Iterable[str] = ()) -> None:
    """Begin to log in this process, which is that of `actor` of `pipeline`, below `folder`; does so once.

    The next time, these `secrets` are kept out as well. A folder that cannot be written to leaves standard error alone.
    """
    _redact.add(secrets)
    root = logging.getLogger()
    if any(isinstance(handler, RotatingFileHandler) for handler in root.handlers):
        return
    for name in _OURS:
        logging.getLogger(name).setLevel(logging.INFO)
    if not root.handlers:
        stderr = logging.StreamHandler()
        stderr.setLevel(logging.WARNING)
        stderr.setFormatter(TextFormatter(_redact))
        root.addHandler(stderr)
    try:
        file = _file(folder / "tablecast" / pipeline, actor)
    except OSError as error:
        logging.getLogger(__name__).warning("no log files in %s: %s", folder, error)
        return
    file.setFormatter(JsonFormatter(actor, _redact))
    root.addHandler(file)


def _file(folder: Path, actor: str) -> RotatingFileHandler:
    folder.mkdir(parents=True, exist_ok=True)
    name = quote(actor, safe="")
    earlier = sorted(folder.glob(f"{name}-[0-9]*.log*"), key=_changed)
    for path in earlier[: -(FILES - 1)]:
        with contextlib.suppress(OSError):
            path.unlink()
    path = folder / f"{name}-{os.getpid()}.log"
    return RotatingFileHandler(path, maxBytes=FILE_BYTES, backupCount=1, encoding="utf-8")


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
