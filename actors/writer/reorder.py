"""Puts the blocks of one feed back into order, for calls that arrive in any.

Each block names its predecessor. A block whose predecessor has been taken is next; any other waits. A plain class:
the writer's shell awaits what comes out.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from actors.block import BlockId
from actors.errors import NotAttached, StaleOwner

Item = TypeVar("Item")

#: (incarnation of the monitor, session of the lane). A greater owner replaces a smaller one.
Owner = tuple[int, int]


class ReorderBuffer(Generic[Item]):
    """The blocks of one feed, from one owner at a time."""

    def __init__(self, feed: str) -> None:
        self.feed = feed
        self.owner: Owner | None = None
        self._attached = False
        self._last: BlockId | None = None
        self._waiting: dict[BlockId | None, tuple[BlockId, Item]] = {}

    def __len__(self) -> int:
        """Blocks that wait for their predecessor."""
        return len(self._waiting)

    def check(self, owner: Owner) -> None:
        """Refuse an owner that has been replaced.

        Raises:
            StaleOwner: a monitor of a later incarnation owns the feed.
            NotAttached: this session is not, or no longer, attached.
        """
        if self.owner is not None and owner[0] < self.owner[0]:
            raise StaleOwner(f"{self.feed} is owned by a newer monitor ({self.owner[0]}, this is {owner[0]})")
        if owner != self.owner or not self._attached:
            raise NotAttached(f"{self.feed}: session {owner} is not attached")

    def attach(self, owner: Owner) -> list[Item]:
        """Begin `owner`'s session; its first block names no predecessor. Returns what waited for the old session.

        Raises :class:`StaleOwner` if a newer owner is attached.
        """
        if self.owner is not None and owner < self.owner:
            raise StaleOwner(
                f"{self.feed} is owned by a newer monitor or session ({self.owner}, this is {owner})"
            )
        self.owner, self._last = owner, None
        self._attached = True
        return self._abandon()

    def detach(self, owner: Owner) -> list[Item]:
        """End `owner`'s session, if it is the attached one: nothing may follow a block that failed.

        Returns what waited.
        """
        if owner != self.owner:
            return []
        self._attached = False
        return self._abandon()

    def _abandon(self) -> list[Item]:
        abandoned = [item for _, item in self._waiting.values()]
        self._waiting = {}
        return abandoned

    def offer(self, owner: Owner, block: BlockId, previous: BlockId | None, item: Item) -> list[Item]:
        """Take a block; returns the items that are now in order, possibly none.

        Raises as :meth:`check`, and :class:`NotAttached` for a block that the session has already had: it could
        only wait for ever.
        """
        self.check(owner)
        if self._last is not None and block <= self._last:
            raise NotAttached(f"{self.feed}: {block} came twice; attach anew")
        self._waiting[previous] = (block, item)
        ready = []
        while self._last in self._waiting:
            self._last, next_item = self._waiting.pop(self._last)
            ready.append(next_item)
        return ready
