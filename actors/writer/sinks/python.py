"""A sink that calls functions of the user's: the callbacks of a table monitor, on the cluster.

They are called with the same arguments as those of :class:`tablecast.TableMonitor`, with the guarantees of every
sink: at least once, in the order of each feed. A function with two parameters gets the origin of the record as the
second (``pipeline/feed/epoch/offset``; for a batch an Arrow array of them), by which it can tell what it has seen.

What a function raises goes to its error function, and decides what follows, as it does for sinks: an error with a true
``retryable``, a ``ConnectionError`` or a ``TimeoutError`` has that record and those after it tried again after a pause;
with any other the record becomes a dead letter, and the next follows. A batch is refused as a whole and tried again in
halves, down to single rows. When one record after the other is refused, the table is parked instead.
"""

from __future__ import annotations

import inspect
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgpack
import pyarrow as pa
import pyarrow.compute as pc

from actors.batch import Batch, Rejected
from actors.callbacks.callback import check_callable
from actors.callbacks.caller import failures
from actors.callbacks.errors import MonitorError
from actors.callbacks.held import altered_text
from actors.callbacks.rows import official_rows, python_rows
from actors.writer.sinks.base import PartlySent, Payload, is_transient
from actors.writer.sinks.custom import NoSuchSink, load_named

log = logging.getLogger(__name__)

#: Records refused one after the other that make it the function's fault, not theirs.
REFUSED_IN_A_ROW = 16

#: The functions for single rows, in the order in which they are called for each.
_SINGLES = ("insert_raw", "insert_decoded")


class CallbackRefused(Exception):
    """A function refuses everything; it is to be mended."""

    refuses_all = True


@dataclass(frozen=True, slots=True)
class Call:
    """A function, and what is called when it raises."""

    name: str
    call: Callable[..., object]
    error: Callable[[str], object] | None
    with_origin: bool

    def __call__(self, argument: object, origin: object) -> None:
        if self.with_origin:
            self.call(argument, origin)
        else:
            self.call(argument)

    def tell(self, feed: str, error: Exception) -> str:
        """Report what the function raised; returns the report."""
        text = f"the {self.name} callback raised {type(error).__name__}: {error}"
        log.error("%s: %s", feed, text, exc_info=error)
        if self.error is not None:
            for failure in failures(self.error, [f"{feed}: {text}"]):
                log.error("%s: the error callback of %s raised %r", feed, self.name, failure)
        return text


def make_calls(settings: Mapping[str, Any]) -> dict[str, Call]:
    """Load the functions of the settings. Raises :class:`NoSuchSink`."""
    calls = {}
    for name, each in settings.items():
        if each is not None:
            error = None if each.get("error") is None else _load(each["error"])
            function, with_origin = _load(each["call"]), False
            try:
                with_origin = _required(function) == 2
                check_callable(each["call"], function, 2 if with_origin else 1)
                check_callable(str(each.get("error")), error)
            except MonitorError as fault:
                raise NoSuchSink(f"callbacks.{name}: {fault}") from None
            calls[name] = Call(name, function, error, with_origin)
    return calls


def _load(name: str) -> Callable[..., object]:
    try:
        found: Callable[..., object] = load_named(name)
    except Exception as error:  # whatever the user's module does when it is imported
        why = str(error) or type(error).__name__
        raise NoSuchSink(
            f"{name} cannot be loaded: {why}; is its module installed, or on PYTHONPATH?"
        ) from error
    return found


def _required(function: Callable[..., object]) -> int:
    """How many arguments must be given."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return 1
    places = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(each.kind in places and each.default is each.empty for each in parameters)


@dataclass(frozen=True, slots=True)
class _Work:
    """Rows to call with; those before `start` are done, and with `batched` the batch is."""

    batch: Batch
    start: int = 0
    batched: bool = False


class PythonSink:
    """Calls functions, one call at a time.

    Args:
        pipeline: first part of every origin.
        callbacks: by what they are called for, ``{"call": "module:name", "error": "module:name" or None}``.
        values: form of the values of rows, ``official`` or ``python``; see ``actors/callbacks/rows.py``.
    """

    def __init__(self, pipeline: str, callbacks: Mapping[str, Any], values: str = "official") -> None:
        self._pipeline = pipeline
        self._calls = make_calls(callbacks)
        self._rows = official_rows if values == "official" else python_rows
        self._lock = threading.Lock()
        self._refused: Counter[str] = Counter()  # feed -> records refused since one was taken

    def payloads(self, batch: Batch) -> Iterator[Payload]:
        if batch.rows.num_rows:
            yield Payload(_Work(batch), batch.rows.num_rows)

    def send(self, payload: Payload) -> None:
        work: _Work = payload.body
        with self._lock:
            self._insert_batch(work)
            self._singles(replace(work, batched=True))

    def close(self) -> None:
        pass

    def _insert_batch(self, work: _Work) -> None:
        feed, call = work.batch.id.feed, self._calls.get("insert_batch")
        if call is None or work.batched or _kind(feed) != "insert":
            return
        try:
            call(work.batch.rows, self._origins(work.batch) if call.with_origin else None)
        except Exception as error:
            call.tell(feed, error)
            raise

    def _singles(self, work: _Work) -> None:
        """Call with one record after the other, from `start` on."""
        feed, offsets = work.batch.id.feed, work.batch.offsets
        rejects: list[Rejected] = []
        for row, (origin, calls) in enumerate(self._each(work.batch)):
            if row < work.start:
                continue
            try:
                for call, argument in calls:
                    call(argument, origin)
            except Exception as error:
                text = call.tell(feed, error)
                if is_transient(error):
                    retry_after = getattr(error, "retry_after", None)
                    raise _partly(work, row, rejects, text, retry_after) from error
                if self._refused[feed] >= REFUSED_IN_A_ROW:
                    if row > work.start:
                        raise _partly(work, row, rejects, text) from error
                    del self._refused[feed]  # whoever resumes the table begins anew
                    raise CallbackRefused(f"{text}; so for the {REFUSED_IN_A_ROW} records before") from error
                self._refused[feed] += 1
                rejects.append(Rejected(int(offsets[row]), text, b""))
            else:
                self._refused.pop(feed, None)
        if rejects:
            raise PartlySent("some records were refused", Payload(work, 0, offsets=[]), tuple(rejects))

    def _each(self, batch: Batch) -> Iterator[tuple[str, Sequence[tuple[Call, Any]]]]:
        """For each record its origin, and the functions to call with what."""
        kind = _kind(batch.id.feed)
        if kind == "insert":
            calls, columns = self._of_rows(batch)
        elif kind == "changes":
            yield from zip(
                self._origins(batch).to_pylist(), self._of_changes(batch.rows.to_pylist()), strict=True
            )
            return
        else:
            names = batch.rows.schema.names
            counts = batch.rows.column(names.index("count") if "count" in names else 0).to_pylist()
            found = self._calls.get({"update": "updated", "delete": "deleted"}[kind])
            calls, columns = ([], []) if found is None else ([found], [[int(count or 0) for count in counts]])
        origins = self._origins(batch).to_pylist() if calls else []
        for origin, *arguments in zip(origins, *columns, strict=True):
            yield origin, list(zip(calls, arguments, strict=True))

    def _of_rows(self, batch: Batch) -> tuple[list[Call], list[Iterable[Any]]]:
        """The functions for inserted rows, as received first, and what each is called with."""
        calls: list[Call] = []
        columns: list[Iterable[Any]] = []
        if (call := self._calls.get("insert_raw")) is not None:
            frames = [] if batch.frames is None else msgpack.unpackb(batch.frames)
            calls.append(call)
            columns.append([frames[at] for at in batch.row_positions.tolist()])
        if (call := self._calls.get("insert_decoded")) is not None:
            calls.append(call)
            columns.append(self._rows(batch.rows))
        return calls, columns

    def _of_changes(self, events: Sequence[Mapping[str, Any]]) -> Iterator[list[tuple[Call, str]]]:
        """What to call for each event of the table itself; for gaps there is no callback."""
        for event in events:
            name, text = str(event.get("event")), ""
            if name == "table_altered":
                text = altered_text(event["table"], event["added"] or (), event["removed"] or ())
            elif name == "table_dropped":
                text = f"Table {event['table']} does not exist anymore: {event['problem']}"
            call = self._calls.get(name)
            yield [] if call is None else [(call, text)]

    def _origins(self, batch: Batch) -> Any:
        """The origin of each row."""
        prefix = f"{self._pipeline}/{batch.id.feed}/{batch.id.epoch}/"
        numbers = pa.array(batch.offsets).cast(pa.large_string())
        texts = [pa.scalar(text, pa.large_string()) for text in (prefix, "")]
        return pc.binary_join_element_wise(texts[0], numbers, texts[1])


def _partly(
    work: _Work, row: int, rejects: Sequence[Rejected], why: str, retry_after: float | None = None
) -> PartlySent:
    """The records from `row` on are left."""
    offsets = work.batch.offsets[row:].tolist()
    return PartlySent(
        why, Payload(replace(work, start=row), len(offsets), offsets=offsets), tuple(rejects), retry_after
    )


def _kind(feed: str) -> str:
    for suffix, kind in ((".updates", "update"), (".deletes", "delete"), (".changes", "changes")):
        if feed.endswith(suffix):
            return kind
    return "insert"
