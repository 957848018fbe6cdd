"""What a client with connections and a buffer has to do when its process forks, and when it ends."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import weakref
from collections.abc import Callable
from multiprocessing import util
from typing import Protocol

#: Seconds allowed to what is buffered when the interpreter exits.
EXIT_TIMEOUT = 10.0


class Forkable(Protocol):
    def after_fork(self) -> None: ...


_forkable: weakref.WeakSet[Forkable] = weakref.WeakSet()


def renew_after_fork(what: Forkable) -> None:
    """Have ``what.after_fork()`` called in every process that is forked from this one, before anything else there."""
    _forkable.add(what)


def _renew() -> None:
    for what in list(_forkable):
        what.after_fork()


os.register_at_fork(after_in_child=_renew)


class AtExit:
    """Calls `callback` when the interpreter exits, until :meth:`cancel`; it may be called more than once.

    Also in processes of ``multiprocessing`` that were forked after this was made: these end without ``atexit``. A
    signal that Python does not handle, SIGTERM among them, ends a process without either.
    """

    def __init__(self, callback: Callable[[], object]) -> None:
        self._callback = callback
        self._finalizer: util.Finalize | None = None
        atexit.register(callback)
        if multiprocessing.parent_process() is not None:
            self._finalize()
        util.register_after_fork(self, AtExit._finalize)

    def _finalize(self) -> None:
        self._finalizer = util.Finalize(None, self._callback, exitpriority=0)

    def cancel(self) -> None:
        atexit.unregister(self._callback)
        if self._finalizer is not None:
            self._finalizer.cancel()
