"""A data source as the source of a table: makes a ``Stream``, reads it, listens to its events.

``read`` is tried again three times, unless the error's ``retryable`` is false. What it fires as ``source-change`` is
kept, and wins over the parameters of the pipeline file, until those are changed there.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import traceback
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from actors.backoff import Backoff
from actors.monitor.datasource.loading import NoSuchDataSource, load
from actors.monitor.datasource.mask import Mask, secret_params
from actors.monitor.datasource.states import States
from actors.monitor.pull import Notebook, Pulled, PullSource, PullStream, SourceFailed
from actors.monitor.rows import BadRow
from actors.monitor.settings import MonitorSettings
from actors.monitor.source import SourceLost
from protocols.panoply.datasource import CHANGE, PROGRESS, STATE, DataSource

log = logging.getLogger(__name__)

#: How often a read that failed is tried again, and the seconds before the first time and before each at most.
RETRIES = 3
RETRY_FIRST, RETRY_MOST = 0.5, 10.0

#: Seconds before the next read after one that gave no rows: at first and at most.
IDLE_FIRST, IDLE_MOST = 0.05, 1.0

#: The key of a row that names the state that holds when it is stored.
STATE_KEY = "__state"

#: Columns of a row that came in a group with metadata.
GROUP_KEYS = {"resource_id": "__resource_id", "timestamp": "__timestamp"}

#: The name under which changed parameters are kept.
CHANGES = "changes"


class DataSourceTable(PullSource):
    """The data source of one table: `settings.source` has its ``module``, ``params``, ``options`` and ``batch``."""

    def __init__(self, settings: MonitorSettings) -> None:
        self.table = settings.table
        self.pipeline = settings.pipeline
        self.module: str = settings.source["module"]
        self.params: Mapping[str, Any] = settings.source["params"]
        self.options: Mapping[str, Any] = settings.source["options"]
        self.batch: int = settings.source["batch"]
        self.mask = Mask()
        self.trouble: str | None = None
        self.told: dict[str, Any] | None = None
        self.backoff = Backoff(RETRY_FIRST, RETRY_MOST)

    @property
    def problem(self) -> str | None:
        """Why the present read has to be tried again."""
        return self.trouble

    @property
    def progress(self) -> dict[str, Any] | None:
        """What the source told last."""
        return self.told

    def open(self, state: str | None, notebook: Notebook, cancelled: threading.Event) -> PullStream:
        """Make the source's ``Stream``. Raises :class:`SourceLost`, :class:`SourceFailed`."""
        self.trouble = None
        try:
            loaded = load(self.module)
        except NoSuchDataSource as error:
            raise SourceFailed(str(error)) from error
        self.mask.add(secret_params(self.params, loaded.config))
        self.mask.add(self.options)
        return _Stream(self, loaded.stream, json.loads(state) if state else {}, notebook, cancelled)


class _Stream:
    """One ``Stream`` of the user's, from its making to its end. All but the state is lost with it."""

    def __init__(
        self,
        owner: DataSourceTable,
        make: type[DataSource],
        state: dict[str, Any],
        notebook: Notebook,
        cancelled: threading.Event,
    ) -> None:
        self._owner = owner
        self._notebook = notebook
        self._cancelled = cancelled
        self._states = States(state)
        self._states_lock = threading.Lock()  # a user's source may have threads
        self._idle = Backoff(IDLE_FIRST, IDLE_MOST)
        self._empty = 0
        self._changes = Changes(owner.params, notebook.get(CHANGES))
        owner.mask.add(self._changes.values)
        source = {
            "type": owner.module,
            "id": f"{owner.pipeline}/{owner.table}",
            "database": owner.pipeline,
            **json.loads(json.dumps(dict(owner.params))),  # the user's to change
            **self._changes.values,
            "destination": owner.table,
        }
        if state:
            source["state"] = json.loads(json.dumps(state))
        options = {**owner.options, "logger": self._log}
        try:
            # It is listened to before its constructor, which may tell of states and changes already.
            self._stream = make.__new__(make, source, options)  # type: ignore[call-arg]
            for name, handler in (
                (PROGRESS, self._progress),
                (STATE, self._state),
                (CHANGE, self._changed),
            ):
                self._stream.on(name, handler)
            type(self._stream).__init__(self._stream, source, options)
        except BaseException as error:
            self._failed(error, "it cannot be made")
        if source.get("destination") != owner.table:
            self._log(("its rows go to", owner.table, "as the pipeline file says, whatever its destination"))

    def read(self) -> Pulled | None:
        """The next rows. Raises :class:`SourceLost`, :class:`SourceFailed`."""
        found = self._read()
        if found is None:
            return None
        state_ids: list[object] = []
        rows = list(_rows(found, state_ids))
        self._empty = 0 if rows else self._empty + 1
        with self._states_lock:
            pulled = Pulled(rows, self._states.read(len(rows), state_ids))
        if self._empty:
            self._cancelled.wait(self._idle.delay(self._empty))
        return pulled

    def _read(self) -> Any:
        failures = 0
        while True:
            try:
                found = self._stream.read(self._owner.batch)
                self._owner.trouble = None
                return found
            except BaseException as error:  # a user's code may raise anything, SystemExit too
                failures += 1
                if failures > RETRIES or not getattr(error, "retryable", True):
                    self._failed(error, f"read failed {failures} times" if failures > 1 else "read failed")
                line = self._owner.mask.line(error)
                self._owner.trouble = f"read failed: {line}; trying again ({failures} of {RETRIES})"
                log.warning("%s: %s", self._owner.table, self._owner.trouble)
                if self._cancelled.wait(self._owner.backoff.delay(failures)):
                    raise SourceLost("stopped") from error

    def _failed(self, error: BaseException, what: str) -> NoReturn:
        mask = self._owner.mask
        # Where, but none of the values.
        places = mask("".join(traceback.format_tb(error.__traceback__)))
        log.error("%s: %s: %s\n%s", self._owner.table, what, mask.line(error), places)
        kind = SourceLost if getattr(error, "retryable", True) else SourceFailed
        raise kind(f"{what}: {mask.line(error)}") from None

    def ended(self) -> str | None:
        """The state after all rows."""
        with self._states_lock:
            return self._states.ended()

    def close(self) -> None:
        """Call the user's ``close``, if there is one."""
        close = getattr(self._stream, "close", None)
        if callable(close):
            try:
                close()
            except BaseException as error:
                log.warning("%s: close failed: %s", self._owner.table, self._owner.mask.line(error))

    # -- events ---------------------------------------------------------------------------------------------------

    def _log(self, messages: Any) -> None:
        text = " ".join(map(str, messages)) if isinstance(messages, (tuple, list)) else str(messages)
        log.info("%s: %s", self._owner.table, self._owner.mask(text))

    def _progress(self, told: Mapping[str, Any]) -> None:
        numbers = {key: _number(told.get(key)) for key in ("loaded", "total")}
        message = self._owner.mask(str(told.get("msg") or ""))[:200]
        self._owner.told = {**numbers, "msg": message}

    def _state(self, told: Mapping[str, Any]) -> None:
        with self._states_lock:
            self._states.told(told["stateId"], told["state"])

    def _changed(self, changed: Mapping[str, Any]) -> None:
        self._owner.mask.add(changed)
        self._notebook.put(CHANGES, self._changes.take(changed))


def _number(value: object) -> float | int | None:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _rows(found: Any, state_ids: list[object]) -> Iterator[object]:
    """The rows in what a read gave, without ``__state``; the states that they name are added to `state_ids`.

    Raises :class:`SourceFailed` if it is no list.
    """
    if _is_group(found):
        found = [found]
    if not isinstance(found, (list, tuple)):
        raise SourceFailed(
            f"read returned a {type(found).__name__}; it must return a list of dicts, or None at the end"
        )
    for item in found:
        if not isinstance(item, dict):
            yield BadRow(f"a row is a dict, not a {type(item).__name__}", item)
        elif _is_group(item):
            if STATE_KEY in item:
                state_ids.append(item[STATE_KEY])
            data, metadata = item["data"], item["metadata"]
            columns = {GROUP_KEYS.get(key, key): value for key, value in metadata.items()}
            for row in data if isinstance(data, list) else [data]:
                yield _row({**columns, **row} if isinstance(row, dict) else row, state_ids)
        else:
            yield _row(item, state_ids)


def _is_group(item: object) -> bool:
    """Whether it is a record, or a group of them, with metadata: see ``to_record``."""
    return (
        isinstance(item, dict)
        and item.keys() - {STATE_KEY} == {"data", "metadata"}
        and isinstance(item["data"], (list, dict))
        and isinstance(item["metadata"], dict)
        and "resource_id" in item["metadata"]
    )


def _row(row: Any, state_ids: list[object]) -> object:
    if not isinstance(row, dict):
        return row  # whoever encodes it says why it is none
    if row.get("type") == "raw" and row.keys() == {"type", "tag", "raw", "metadata"}:
        # Its bytes are base64 already.
        raw, metadata = row["raw"], row["metadata"]
        row = {**row, "raw": raw.decode("ascii", "replace") if isinstance(raw, bytes) else raw}
        if isinstance(metadata, dict) and STATE_KEY in metadata:
            state_ids.append(metadata[STATE_KEY])
            row["metadata"] = {key: value for key, value in metadata.items() if key != STATE_KEY}
    if STATE_KEY in row:
        state_ids.append(row[STATE_KEY])
        return {key: value for key, value in row.items() if key != STATE_KEY}
    return row


class Changes:
    """Parameters that the source changed, each good for as long as the file's parameter is what it was then.

    Args:
        params: those of the pipeline file.
        kept: of an earlier life, as :meth:`take` gave it: name -> [digest of the file's parameter, JSON text].
    """

    def __init__(self, params: Mapping[str, Any], kept: Mapping[str, list[str]] | None) -> None:
        self._params = params
        self._kept = {
            name: entry for name, entry in (kept or {}).items() if entry[0] == _digest(params.get(name))
        }

    @property
    def values(self) -> dict[str, Any]:
        """The parameters that changed."""
        return {name: json.loads(entry[1]) for name, entry in self._kept.items()}

    def take(self, changed: Mapping[str, Any]) -> dict[str, list[str]]:
        """Note further changes; returns what is to be kept."""
        self._kept |= {
            str(name): [_digest(self._params.get(name)), json.dumps(value)] for name, value in changed.items()
        }
        return dict(self._kept)


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
