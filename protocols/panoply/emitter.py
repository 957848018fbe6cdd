"""Events by name, as Panoply's SDK and its data sources tell of what they do. No threads and no network."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, Self

log = logging.getLogger(__name__)

#: Its handlers are called at every event, as ``handler(name, data)``.
ANY = "*"


class Emitter:
    """Calls handlers at named events. Thread-safe; a handler that raises is logged, and harms nobody else.

    Subclasses need not call ``__init__``, as data sources written for Panoply do not always.
    """

    #: Held for moments only, so that all emitters may share it.
    _registering = threading.Lock()
    _handlers: dict[str, tuple[Callable[..., object], ...]]

    def on(self, name: str, fn: Callable[..., object]) -> Self:
        """Call ``fn(data)`` at each event `name`, or ``fn(name, data)`` at all events if it is ``"*"``; returns self.

        A function that is there already is not added again. Raises ``TypeError`` for a name that is no text and for
        what cannot be called.
        """
        if not isinstance(name, str):
            raise TypeError(f"an event's name is a str, not a {type(name).__name__}")
        if not callable(fn):
            raise TypeError(f"a handler of {name!r} is a function, not a {type(fn).__name__}")
        with self._registering:
            known = self.__dict__.setdefault("_handlers", {})
            if fn not in known.get(name, ()):
                known[name] = (*known.get(name, ()), fn)
        return self

    def listens(self, name: str) -> bool:
        """Whether an event `name` has a handler."""
        known: dict[str, tuple[Callable[..., object], ...]] = self.__dict__.get("_handlers", {})
        return name in known or ANY in known

    def fire(self, name: str, data: Any) -> Self:
        """Call the handlers of ``"*"``, then those of `name`, in the order in which they were added; returns self."""
        known: dict[str, tuple[Callable[..., object], ...]] = self.__dict__.get("_handlers", {})
        calls: list[tuple[Callable[..., object], tuple[Any, ...]]]
        calls = [(fn, (name, data)) for fn in known.get(ANY, ())]
        if name != ANY:
            calls += [(fn, (data,)) for fn in known.get(name, ())]
        for fn, arguments in calls:
            try:
                fn(*arguments)
            except Exception:
                log.exception("a handler of %r failed", name)
        return self
