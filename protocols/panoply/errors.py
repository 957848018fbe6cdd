"""Errors of the Panoply client. All pickle, and none shows credentials or the queue's name, which is part of them.

::

    PanoplyError
    ├── TransientError       retryable: send the message again after a pause
    ├── MessageRefused       the same message will be refused again
    └── WriteFailed          what an ``error`` handler of the SDK gets, with the records
"""

from __future__ import annotations

from typing import Any


class PanoplyError(Exception):
    """A message was not taken. `retryable` says whether it may be later."""

    retryable: bool = False


class TransientError(PanoplyError):
    """No answer, an answer cut off or damaged, or a service that is busy; the message may have been taken.

    `retry_after` is how many seconds the service asked to wait, or None.
    """

    retryable = True

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message, retry_after)
        self.retry_after = retry_after

    def __str__(self) -> str:
        return str(self.args[0])


class MessageRefused(PanoplyError):
    """The queue does not exist, does not let us in (then `refuses_all`), or does not take such a message."""

    def __init__(self, message: str, refuses_all: bool = False) -> None:
        super().__init__(message, refuses_all)
        self.refuses_all = refuses_all

    def __str__(self) -> str:
        return str(self.args[0])


class WriteFailed(PanoplyError):
    """Records were not taken.

    Attributes:
        records: which, as dicts with their table under ``__table``.
        retryable: whether they are sent again by themselves; else nobody else has them any more.
        attempt: 1 for the first.
    """

    def __init__(
        self, message: str, records: list[dict[str, Any]], retryable: bool = False, attempt: int = 1
    ) -> None:
        super().__init__(message, records, retryable, attempt)
        self.records = records
        self.retryable = retryable
        self.attempt = attempt

    def __str__(self) -> str:
        return str(self.args[0])

    def __repr__(self) -> str:
        return f"WriteFailed({self.args[0]!r}, {len(self.records)} records, retryable={self.retryable})"
