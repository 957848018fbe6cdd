"""What misuse of a table monitor raises, at the call.

MonitorError   a table monitor was made or used wrongly, or cannot be started; one line that says what to do

Where the official ``gpudb`` package is loaded, its ``GPUdbException`` catches a :class:`MonitorError` too: so code that
moves here from there goes on catching what it caught.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import Any


class MonitorError(Exception):
    """A table monitor was made or used wrongly, or cannot be started. `message` is one line."""

    def __new__(cls, message: str) -> MonitorError:
        package = sys.modules.get("gpudb")
        base = getattr(package, "GPUdbException", None)
        return super().__new__(cls if base is None or cls is not MonitorError else _official(base), message)

    def __init__(self, message: str) -> None:
        self.message = " ".join(message.split())
        super().__init__(self.message)

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return MonitorError, (self.message,)


@lru_cache(maxsize=1)
def _official(base: type[Exception]) -> type[MonitorError]:
    """A :class:`MonitorError` that is one of the official exceptions too."""
    return type("MonitorError", (MonitorError, base), {"__module__": __name__})
