"""Goes over from one topic of a table to another without losing or doubling a message.

Two table monitors of the same table publish the same inserts, each under its own topic, in the same order over the
same connection. The first message under the new topic has a twin under the old one, just before or just after it,
depending on the server. What came before the twin came only under the old topic.
"""

from __future__ import annotations

from collections.abc import Sequence

from actors.monitor.source import Received, Switched

Frames = Sequence[bytes]


class Overlap:
    """Decides for each message of either topic what to hand out. When :attr:`over`, the old topic is done with."""

    def __init__(self, last_old: Frames | None) -> None:
        self.over = False
        self._last_old = last_old
        self._first_new: Frames | None = None

    def old(self, frames: Frames) -> list[Received | Switched]:
        """A message under the old topic."""
        if self.over:
            return []
        if self._first_new is None:
            self._last_old = frames
            return [Received("insert", frames)]
        # The message before and this one equal the new topic's first: rows alike. Rather a row twice than none.
        if frames == self._first_new:
            return self._end(back=0)
        return self._end(back=len(self._first_new), handed_out=True)

    def new(self, frames: Frames) -> list[Received | Switched]:
        """A message under the new topic."""
        if self.over:
            return [Received("insert", frames)]
        if self._first_new is not None:
            out = self._end(back=len(self._first_new), handed_out=True)
        elif frames == self._last_old:
            self._first_new = frames  # its twin was handed out already, unless the next message is the twin
            return []
        else:
            self._first_new = frames
            return self._end(back=0)
        return [*out, Received("insert", frames)]

    def settle(self) -> list[Received | Switched]:
        """Nothing more came for a while: what was undecided is decided."""
        if self.over or self._first_new is None:
            return []
        return self._end(back=len(self._first_new), handed_out=True)

    def _end(self, back: int, handed_out: bool = False) -> list[Received | Switched]:
        assert self._first_new is not None
        self.over = True
        return [Switched(back)] if handed_out else [Switched(back), Received("insert", self._first_new)]
