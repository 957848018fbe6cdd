"""What the table server refuses, and why.

RequestError        the request cannot be served; its text is the reply's message
└── RecordError     one record of a batch is at fault
"""

from __future__ import annotations


class RequestError(ValueError):
    """A request that cannot be served; the text is one line for the person who sent it."""


class RecordError(RequestError):
    """A record that does not fit its table: `index` is its place in the batch, `reason` what is wrong."""

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(f"record {index}: {reason}")
        self.index = index
        self.reason = reason
