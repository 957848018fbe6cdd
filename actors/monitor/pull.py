"""What a monitor asks of a source that is read, whatever it is: rows, and from where to go on after them."""

from __future__ import annotations

import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from actors.monitor.source import SourceLost


class SourceFailed(Exception):
    """The source cannot be read, and opening it again will not help until a person mends something."""


class Pulled(NamedTuple):
    """Rows in order, as dicts.

    `state` is where the source goes on once these rows are stored, as JSON text; None: as before. `gap` says why rows
    before these may be missing, if they may.
    """

    rows: Sequence[object]
    state: str | None = None
    gap: str | None = None


class PullStream(Protocol):
    """An open source. Used by one thread, which may hang in it for as long as it likes."""

    def read(self) -> Pulled | None:
        """The next rows, perhaps none; None when there are no more.

        Raises :class:`SourceLost` or :class:`SourceFailed`; anything else is taken for the former.
        """

    def ended(self) -> str | None:
        """The state after all rows, as of :class:`Pulled`."""

    def close(self) -> None:
        """Give back what it holds."""


class Notebook(Protocol):
    """Small values that a source keeps beside its state, durable in the spool. For use from any thread."""

    def get(self, name: str) -> Any:
        """What was put last; None at first."""

    def put(self, name: str, value: Any) -> None:
        """Keep a value that msgpack knows."""


class PullSource(ABC):
    """Where a table's rows are read from."""

    @abstractmethod
    def open(self, state: str | None, notebook: Notebook, cancelled: threading.Event) -> PullStream:
        """Begin at `state`, or at the beginning. Whoever waits gives up when `cancelled` is set.

        Raises :class:`SourceLost` or :class:`SourceFailed`; anything else is taken for the former.
        """

    @property
    def problem(self) -> str | None:
        """What is wrong now and may pass, in one line."""
        return None

    @property
    def progress(self) -> dict[str, Any] | None:
        """``loaded`` of ``total`` (None where not known), and ``msg``; None if nothing is known."""
        return None


class Ended(NamedTuple):
    """There are no more rows; `state` as of :class:`Pulled`."""

    state: str | None


class Reading:
    """A thread that opens a source and reads it, at most one read ahead of whoever takes what was read."""

    def __init__(self, name: str, source: PullSource, state: str | None, notebook: Notebook) -> None:
        self._source = source
        self._state = state
        self._notebook = notebook
        self._cancelled = threading.Event()
        self._read: queue.Queue[Pulled | Ended | Exception] = queue.Queue(1)
        self.opened = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"{name}-read", daemon=True)
        self._thread.start()

    def next(self, timeout: float) -> Pulled | Ended | None:
        """What was read next; None if nothing was within `timeout` seconds.

        Raises :class:`SourceLost`, :class:`SourceFailed`.
        """
        try:
            read = self._read.get(timeout=timeout) if timeout > 0 else self._read.get_nowait()
        except queue.Empty:
            return None
        if isinstance(read, Exception):
            raise read
        return read

    def cancel(self) -> None:
        """Read no more; what was read already can still be taken."""
        self._cancelled.set()

    def join(self, timeout: float) -> bool:
        """Wait until the source is closed; False if it still hangs in it, where it is left."""
        self._cancelled.set()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        stream: PullStream | None = None
        try:
            stream = self._source.open(self._state, self._notebook, self._cancelled)
            self.opened.set()
            while not self._cancelled.is_set():
                pulled = stream.read()
                self._put(Ended(stream.ended()) if pulled is None else pulled)
                if pulled is None:
                    return
        except (SourceLost, SourceFailed) as error:
            self._put(error)
        except BaseException as error:  # a user's code may raise anything, SystemExit too
            self._put(SourceLost(f"{type(error).__name__}: {error}"))
        finally:
            if stream is not None:
                stream.close()

    def _put(self, read: Pulled | Ended | Exception) -> None:
        while not self._cancelled.is_set():
            try:
                self._read.put(read, timeout=0.25)
                return
            except queue.Full:
                continue
