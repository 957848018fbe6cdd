"""Events by name, as Panoply's SDK and its data sources tell of what they do. No threads and no network."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Self

log = logging.getLogger(__name__)

#: Its handlers are called at every event, as ``handler(name, data)``.
ANY = "*"

Handler = Callable[..., object]


class Emitter:
    """Calls handlers at named events; a handler that raises is logged, and harms nobody else.

    Thread-safe without a lock, which a fork might leave locked: each change is one operation of a dict. Subclasses need
    not call ``__init__``, as data sources written for Panoply do not always.
    """

    def on(self, name: str, fn: Handler) -> Self:
        """Call ``fn(data)`` at each event `name`, or ``fn(name, data)`` at all events if it is ``"*"``; returns self.

        A function that is there already is not added again. Raises ``TypeError`` for a name that is no text and for
        what cannot be called.
        """
        if not isinstance(name, str):
            raise TypeError(f"an event's name is a str, not a {type(name).__name__}")
        if not callable(fn):
            raise TypeError(f"a handler of {name!r} is a function, not a {type(fn).__name__}")
        self.__dict__.setdefault("_handlers", {}).setdefault(name, {})[fn] = None
        return self

    def listens(self, name: str) -> bool:
        """Whether an event `name` has a handler."""
        return bool(self._of(name) or self._of(ANY))

    def fire(self, name: str, data: Any) -> Self:
        """Call the handlers of ``"*"``, then those of `name`, in the order in which they were added; returns self."""
        for fn in self._of(ANY):
            _call(name, fn, name, data)
        if name != ANY:
            for fn in self._of(name):
                _call(name, fn, data)
        return self

    def _of(self, name: str) -> tuple[Handler, ...]:
        return tuple(self.__dict__.get("_handlers", {}).get(name, ()))


def _call(name: str, fn: Handler, *arguments: Any) -> None:
    try:
        fn(*arguments)
    except Exception:
        log.exception("a handler of %r failed", name)
