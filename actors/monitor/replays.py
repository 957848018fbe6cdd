"""Which dead letters a dispatcher is replaying: one run per feed at a time, and what became of it.

The letters themselves, and the states of each, are in :mod:`actors.monitor.letters`; how a replay travels is a lane's
work like any other's.
"""

from __future__ import annotations

from collections.abc import Iterable

from actors.batch import Rejected
from actors.block import Block
from actors.monitor.layout import Position
from actors.monitor.letters import DeadLetters

#: What follows a feed's name in the name of the order in which its dead letters are replayed.
REPLAY = "!replay"


def is_replay(order: str) -> bool:
    return order.endswith(REPLAY)


class Replays:
    """The runs of `letters` that are under way. For the dispatcher's thread alone."""

    def __init__(self, letters: DeadLetters) -> None:
        self._letters = letters
        #: Order -> the run that is being replayed.
        self._runs: dict[str, int] = {}
        self._rejects: dict[str, list[tuple[int, Rejected]]] = {}

    def __bool__(self) -> bool:
        return bool(self._runs)

    def open(self) -> list[str]:
        """Begin the next run of each feed that has one and is not at one; returns their orders."""
        found = {feed + REPLAY: run for feed, run in self._letters.runs().items()}
        opened = {order: run for order, run in found.items() if order not in self._runs}
        self._runs |= opened
        return list(opened)

    def next_block(self, order: str, position: Position) -> Block | None:
        """The next letters of the run of `order` at or after `position`."""
        run = self._runs.get(order)
        return None if run is None else self._letters.next_block(order.removesuffix(REPLAY), run, position)

    def pending(self, order: str, position: Position) -> tuple[int, int] | None:
        """Records and bytes of the run of `order` at or after `position`; None if it is at none."""
        run = self._runs.get(order)
        return None if run is None else self._letters.pending(order.removesuffix(REPLAY), run, position)

    def rejected(self, order: str, epoch: int, rejects: Iterable[Rejected]) -> None:
        """These letters failed again."""
        self._rejects.setdefault(order, []).extend((epoch, reject) for reject in rejects)

    def settle(self, order: str, behind: Position) -> bool:
        """Every sink has what is before `behind`. Returns whether the run of `order` is over by it."""
        run = self._runs.get(order)
        rejects = self._rejects.pop(order, [])
        if run is None or not self._letters.settle(order.removesuffix(REPLAY), run, behind, rejects):
            return False
        del self._runs[order]
        return True
