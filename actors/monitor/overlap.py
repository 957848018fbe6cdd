"""Goes over from one topic of a table to another without losing a message.

Two table monitors of one table publish the same messages in the same order over the same connection; what comes
under the new topic is the old topic's stream from some message on, its *twin*. Which one is told by comparing: a
server may publish an operation under either topic first, and in several messages, so the twin may have come a few
messages ago or be still to come. Until it is found the old topic alone is handed out, which lacks nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from actors.monitor.source import Received, Switched

Frames = Sequence[bytes]

#: Messages among which the twin is looked for: the parts of one operation.
RECENT = 16

#: Messages under the new topic after which messages that are all alike are told apart no more.
ALIKE = 64


class Overlap:
    """Decides for each message of either topic what to hand out. When :attr:`over`, the old topic is done with.

    `recent` are the messages handed out last, at most :data:`RECENT`.
    """

    def __init__(self, recent: Iterable[Frames] = ()) -> None:
        self.over = False
        self._old: list[Frames] = list(recent)  # handed out
        self._new: list[Frames] = []  # not handed out
        self._places: list[int] = []  # where in `_old` the twin of the first of `_new` may be
        self._excluded = False  # that the twin is still to come

    @property
    def waiting(self) -> bool:
        """Whether the new topic has set in, and the old one is not left yet."""
        return bool(self._new)

    def old(self, frames: Frames) -> list[Received | Switched]:
        """A message under the old topic."""
        if self.over:
            return []
        out: list[Received | Switched] = [Received("insert", frames)]
        self._old.append(frames)
        if not self._new:
            del self._old[:-RECENT]
            return out
        last, new = len(self._old) - 1, self._new
        self._places = [k for k in self._places if last - k >= len(new) or new[last - k] == frames]
        if frames == new[0]:
            self._places.append(last)
        self._excluded = True
        return out + self._decide()

    def new(self, frames: Frames) -> list[Received | Switched]:
        """A message under the new topic."""
        if self.over:
            return [Received("insert", frames)]
        self._new.append(frames)
        i, old = len(self._new) - 1, self._old
        if not i:
            self._places = list(range(len(old)))
        self._places = [k for k in self._places if k + i >= len(old) or old[k + i] == frames]
        return self._decide()

    def settle(self, quiet: bool) -> list[Received | Switched]:
        """Nothing came that told for a while; if it is `quiet`, both topics stand at the same message."""
        if not self._new:
            return []
        same = len(self._old) - len(self._new)
        if quiet and same in self._places:
            return self._switch(same)
        told = self._excluded and len(self._places) == 1 and not quiet
        return [] if told else self._switch(self._latest)

    @property
    def _latest(self) -> int:
        """The last place possible: rather a row twice than none."""
        return self._places[-1] if self._places else len(self._old)

    def _decide(self) -> list[Received | Switched]:
        told = (
            self._excluded and len(self._places) == 1 and self._places[0] + len(self._new) >= len(self._old)
        )
        alike = self._places and len(self._new) >= ALIKE
        return self._switch(self._latest) if told or alike else []

    def _switch(self, place: int) -> list[Received | Switched]:
        """Go on with the new topic, whose first message's twin is at `place`; both may stand at different messages."""
        twins, new = self._old[place:], self._new
        self.over = True
        self._old, self._new = [], []
        return [Switched(sum(map(len, twins))), *(Received("insert", frames) for frames in new[len(twins) :])]
