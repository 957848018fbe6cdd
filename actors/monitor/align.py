"""Which records of a feed a standby has received that its primary has not stored yet, and what either was not sent.

Both subscribe to the same topics, so both receive the same records in the same order, but the source may drop some on
the way to either. One comes as *received* (from the source), the other as *stored* (copied from the primary).

Where the two are known to stand at the same record they are *aligned*; from there on equal records pair off from the
front, and what is left over on one side is still to come on the other. They come to be aligned at a run of
:data:`RUN` records, each of which occurs once on either side, or when both have been quiet: then each has all that
it will ever have. Between two such points, what was received and not stored is what the primary was not sent.

A plain class: no clock, no sockets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

#: Records of a run at which two feeds are aligned. Each must be there once: a run of equal ones could lie anywhere.
RUN = 8

#: Bytes of received records kept, at most; while the primary stores nothing, there is nothing to pair them with.
MAX_BYTES = 256 << 20

#: What a record takes in memory besides its bytes.
_OVERHEAD = 48

#: Records that are looked through each time that some more come.
_LONG = 2000

#: Records of two feeds that never were aligned, after which those in front are taken for pairs.
_UNPAIRED = 100_000


class Alignment:
    """The records of one feed.

    Attributes:
        aligned: whether the two sides are known to stand at the same record.
        complete: whether nothing received had to be given up for want of memory since they were aligned.
        lacked: records stored by the primary that were not received here since the two were first aligned.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self.aligned = False
        self.complete = True
        self.lacked = 0
        self._max_bytes = max_bytes
        self._bytes = 0
        self._received: list[bytes] = []
        self._stored: list[bytes] = []
        #: Named as not sent to the primary, and not stored by it since.
        self._named: Counter[bytes] = Counter()
        self._tried = 0

    @property
    def behind(self) -> bool:
        """Whether the primary has stored what was not received here (yet)."""
        return bool(self._stored)

    def receive(self, frames: Sequence[bytes]) -> list[bytes]:
        """Take what the source sent; returns what the primary was not sent, as far as that is known now."""
        self._received += frames
        self._bytes += _size(frames)
        missed = self._pair()
        excess = 0
        while self._bytes > self._max_bytes:
            self._bytes -= _size(self._received[excess : excess + 1])
            excess += 1
            self.complete = False
        del self._received[:excess]
        return missed

    def store(self, frames: Sequence[bytes]) -> list[bytes]:
        """Take what the primary stored; returns what it was not sent, as far as that is known now."""
        if self._named:
            frames = [frame for frame in frames if not self._is_named(frame)]
        self._stored += frames
        return self._pair()

    def quiet(self) -> list[bytes]:
        """Neither side has anything on its way; returns what the primary was not sent."""
        return self._align(len(self._received), len(self._stored))

    def rest(self) -> list[bytes]:
        """What was received and the primary has not stored, in order. Exact where the two are aligned."""
        return [*self._named.elements(), *_without(self._received, self._stored)]

    def _is_named(self, frame: bytes) -> bool:
        named = self._named[frame] > 0
        self._named -= Counter((frame,))  # which also forgets what is at zero
        return named

    def _pair(self) -> list[bytes]:
        missed: list[bytes] = []
        while True:
            if self.aligned:
                self._drop_pairs()
            if not self._received or not self._stored:
                self._tried = 0
                return missed
            size = len(self._received) + len(self._stored)
            # Looking through a long list for each new record would take ever longer.
            if _LONG < size < self._tried * 5 // 4:
                return missed
            self._tried = size
            if (place := _common_run(self._received, self._stored)) is None:
                if not self.aligned and min(len(self._received), len(self._stored)) > _UNPAIRED:
                    self._forget(_UNPAIRED, _UNPAIRED)
                return missed
            missed += self._align(*place)

    def _drop_pairs(self) -> None:
        count = min(len(self._received), len(self._stored))
        if self._received[:count] != self._stored[:count]:
            pairs = enumerate(zip(self._received, self._stored, strict=False))
            count = next(i for i, (one, other) in pairs if one != other)
        self._forget(count, count)

    def _align(self, received: int, stored: int) -> list[bytes]:
        """Both sides are known to stand at the same record after so many."""
        missed: list[bytes] = []
        if self.aligned:
            missed = _without(self._received[:received], self._stored[:stored])
            self._named.update(missed)
            self.lacked += stored - (received - len(missed))
        self._forget(received, stored)
        self.aligned = self.complete = True
        self._tried = 0
        return missed

    def _forget(self, received: int, stored: int) -> None:
        self._bytes -= _size(self._received[:received])
        del self._received[:received]
        del self._stored[:stored]


def _size(frames: Sequence[bytes]) -> int:
    return sum(map(len, frames)) + _OVERHEAD * len(frames)


def _without(frames: Iterable[bytes], others: Iterable[bytes]) -> list[bytes]:
    """`frames` but for those that are among `others`, as often as they are."""
    left = Counter(others)
    if not left:
        return list(frames)
    rest = []
    for frame in frames:
        if left[frame] > 0:
            left[frame] -= 1
        else:
            rest.append(frame)
    return rest


def _common_run(one: Sequence[bytes], other: Sequence[bytes]) -> tuple[int, int] | None:
    """Where the first run of :data:`RUN` records begins in both, each of which is once in either."""
    if min(len(one), len(other)) < RUN:
        return None
    places: dict[bytes, int] = {}
    for i, frame in enumerate(one):
        places[frame] = -1 if frame in places else i
    again = Counter(other)
    run, last = 0, -1
    for j, frame in enumerate(other):
        i = places.get(frame, -1)
        once = i >= 0 and again[frame] == 1
        run = (run if i == last + 1 else 0) + 1 if once else 0
        last = i
        if run == RUN:
            return i - RUN + 1, j - RUN + 1
    return None
