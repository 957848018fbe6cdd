"""Calls the callbacks of one table with what was received, and tells their error callbacks what went wrong.

A callback's own exception is reported to its error callback, and the next record follows; it is never taken for a
record that does not decode. Knows nothing of servers and threads; the caller of these methods is the only one that ever
calls a callback.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from actors.callbacks.callback import Callback, CallbackType
from actors.callbacks.held import Altered, Run
from actors.callbacks.rows import python_rows, rows_of
from actors.codec.codec import Codec, Decoded, Reject
from actors.codec.exact import FrameError, ReferenceDecoder
from actors.codec.meaning import shorten
from actors.monitor.kinetica import schema_type

#: Rows decoded at once. More cost memory, and time until the first of them is handed out.
CHUNK = 10_000

#: Rows between two looks at whether to go on.
SLICE = 100


class Aborted(Exception):
    """A record did not decode, and its callback wants the monitor to end then; `position` is its place in its run."""

    def __init__(self, message: str, position: int) -> None:
        super().__init__(message)
        self.position = position


def failures(call: Callable[[Any], object], arguments: Iterable[Any]) -> Iterator[BaseException]:
    """Call with each argument in turn; gives the error, of whatever kind, of each that fails, and goes on."""
    rest = iter(arguments)
    while True:
        try:
            for argument in rest:
                call(argument)
            return
        except BaseException as error:  # sys.exit() in a callback would end the thread, and nobody would know
            yield error


class Caller:
    """The callbacks of `table`.

    Args:
        callbacks: at most one of each type.
        values: form of the values of rows: ``official`` or ``python``.
        log: where everything goes that an error callback is told, and what callbacks raised with its traceback.
        ended: whether rows that wait are not to be handed out any more.
    """

    def __init__(
        self,
        table: str,
        callbacks: Sequence[Callback],
        values: str,
        log: logging.Logger,
        ended: Callable[[], bool] = lambda: False,
    ) -> None:
        self._table = table
        self._callbacks = {each.callback_type: each for each in callbacks if each.event_callback is not None}
        self._all = list(callbacks)
        self._raw_values = values == "official"
        self._log = log
        self._ended = ended

    def handle(self, items: Sequence[Run | Altered]) -> None:
        """Hand out rows and changes of the table. Raises :class:`Aborted`."""
        for item in items:
            if isinstance(item, Altered):
                self._log.warning("%s", item.text)
                self._call(CallbackType.TABLE_ALTERED, [item.text])
                continue
            for start in range(0, len(item.frames), CHUNK):
                if self._ended():
                    self._log.warning("%s: %d rows are not handed out", self._table, len(item.frames) - start)
                    break
                self._rows(Run(item.schema, item.frames[start : start + CHUNK], item.doubt))

    def _rows(self, run: Run) -> None:
        try:
            self._batch(run)
        except Aborted as error:
            # What came before is the other callbacks' as well.
            self._one_by_one(replace(run, frames=run.frames[: error.position]))
            raise
        self._one_by_one(run)

    def _batch(self, run: Run) -> None:
        """Rows as a batch, then what did not decode."""
        batch = self._callbacks.get(CallbackType.INSERT_BATCH)
        if batch is None:
            return
        decoded = _decode(run, raw=False)
        rows = decoded.rows
        if decoded.rejects and batch.aborts:
            rows = rows.slice(0, _before(decoded, decoded.rejects[0].position))
        if rows.num_rows:
            self._call(CallbackType.INSERT_BATCH, [rows])
        for reject in decoded.rejects:
            self._undecoded(batch, reject.reason, reject.frame, reject.position)

    def _one_by_one(self, run: Run) -> None:
        """Single rows, decoded or as they were received, or both."""
        raw = self._callbacks.get(CallbackType.INSERT_RAW)
        single = self._callbacks.get(CallbackType.INSERT_DECODED)
        if single is None:
            if raw is not None:
                self._call(CallbackType.INSERT_RAW, run.frames)
            return
        decoded = _decode(run, raw=self._raw_values)
        make = rows_of if self._raw_values else python_rows
        self._singles(decoded, make(decoded.rows), None if raw is None else run.frames)

    def _singles(self, decoded: Decoded, rows: Iterator[Any], frames: Sequence[bytes] | None) -> None:
        """Single rows in order, each as received first (if there are `frames`), then decoded, if it could be."""
        single = self._callbacks[CallbackType.INSERT_DECODED]
        row = 0
        for reject in (*decoded.rejects, None):
            stop = decoded.rows.num_rows if reject is None else _before(decoded, reject.position)
            if frames is None:
                self._call(CallbackType.INSERT_DECODED, itertools.islice(rows, stop - row))
            else:
                for at in range(row, stop):
                    position = at if decoded.positions is None else int(decoded.positions[at])
                    self._call(CallbackType.INSERT_RAW, [frames[position]])
                    self._call(CallbackType.INSERT_DECODED, [next(rows)])
            row = stop
            if reject is not None:
                if frames is not None:
                    self._call(CallbackType.INSERT_RAW, [reject.frame])
                self._undecoded(single, reject.reason, reject.frame, reject.position)

    def counted(self, kind: str, frames: Sequence[bytes], schema: str) -> None:
        """An ``update`` or ``delete`` of as many rows as each frame says."""
        which = CallbackType.UPDATED if kind == "update" else CallbackType.DELETED
        if which not in self._callbacks:
            return
        for position, frame in enumerate(frames):
            try:
                count = read_count(schema, frame)
            except FrameError as error:
                self._undecoded(self._callbacks[which], str(error), frame, position)
            else:
                self._call(which, [count])

    def dropped(self, text: str) -> None:
        """The table is gone."""
        self._log.warning("%s", text)
        self._call(CallbackType.TABLE_DROPPED, [text])

    def problem(self, text: str) -> None:
        """Tell every error callback, each once although it may serve several callbacks."""
        self._log.warning("%s", text)
        told: list[Any] = []
        for each in self._all:
            if each.error_callback is not None and each.error_callback not in told:
                told.append(each.error_callback)
                self._tell(each, text)

    def _call(self, which: CallbackType, arguments: Iterable[Any]) -> None:
        callback = self._callbacks.get(which)
        if callback is None or callback.event_callback is None:
            return
        rest = iter(arguments)
        begun = False
        for first in rest:
            if begun and self._ended():
                self._log.warning(
                    "%s: stopped before all rows were handed out to %s", self._table, which.name
                )
                return
            begun = True
            part = itertools.chain((first,), itertools.islice(rest, SLICE - 1))
            for error in failures(callback.event_callback, part):
                text = f"{self._table}: the {which.name} callback raised {type(error).__name__}: {error}"
                self._log.error("%s", text, exc_info=error)
                self._tell(callback, text)

    def _undecoded(self, callback: Callback, reason: str, frame: bytes, position: int) -> None:
        text = f"{self._table}: a record did not decode: {reason}; its bytes: {shorten(frame, 200)}"
        self._log.warning("%s", text)
        self._tell(callback, text)
        if callback.aborts:
            raise Aborted(text, position)

    def _tell(self, callback: Callback, text: str) -> None:
        if callback.error_callback is not None:
            for error in failures(callback.error_callback, [text]):
                self._log.error(
                    "%s: the error callback of %s raised %r",
                    self._table,
                    callback.callback_type.name,
                    error,
                    exc_info=error,
                )


def _decode(run: Run, raw: bool) -> Decoded:
    codec = _codec(run.schema, raw)
    if not run.doubt:
        return codec.decode(run.frames)
    rejects = tuple(Reject(place, run.doubt, frame) for place, frame in enumerate(run.frames))
    return replace(codec.decode([]), rejects=rejects)


def _before(decoded: Decoded, position: int) -> int:
    """How many rows lie before the frame at `position`."""
    if decoded.positions is None:
        return min(position, int(decoded.rows.num_rows))
    return int(np.searchsorted(decoded.positions, position))


@lru_cache(maxsize=64)
def _codec(schema: str, raw: bool) -> Codec:
    return Codec(schema_type(schema), raw=raw)


@lru_cache(maxsize=64)
def _count_reader(schema: str) -> tuple[ReferenceDecoder, int]:
    table_type = schema_type(schema)
    place = table_type.names.index("count") if "count" in table_type.names else 0
    return ReferenceDecoder(table_type.columns), place


def read_count(schema: str, frame: bytes) -> int:
    """The number in a frame of an update or delete monitor. Raises :class:`FrameError`."""
    reader, place = _count_reader(schema)
    value = reader.read(frame)[place]
    if not isinstance(value, (int, float)):
        raise FrameError("it holds no count")
    return int(value)
