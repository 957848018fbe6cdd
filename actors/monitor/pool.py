"""Which decoder gets the next block: the one with the fewest of ours, among those that can be found.

A plain class; how a name becomes a handle is given to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

#: Seconds before a decoder that could not be found is looked for again.
LOOK_AGAIN = 0.5


@dataclass(slots=True)
class _Slot:
    handle: Any = None
    in_flight: int = 0
    used: int = 0
    look_at: float = 0.0
    #: The actor that died under this name: it may still be found for a moment, but never comes back.
    dead: Any = None


class DecoderPool:
    """The decoders known to one monitor.

    Args:
        name: number of a decoder -> its name.
        find: name -> handle, or None when there is no such actor now. Handles of the same actor are equal.
    """

    def __init__(self, name: Callable[[int], str], find: Callable[[str], Any]) -> None:
        self._name = name
        self._find = find
        self._slots: dict[int, _Slot] = {}

    def resize(self, count: int) -> None:
        """Use decoders 0 to `count` - 1 from now on."""
        self._slots = {number: self._slots.get(number) or _Slot() for number in range(count)}

    def take(self, now: float) -> tuple[int, Any] | None:
        """The number and handle of a decoder for one more block, or None when none can be found at `now` (seconds).

        Among the least busy ones it takes turns.
        """
        for number, slot in self._slots.items():
            if slot.handle is None and now >= slot.look_at:
                found = self._find(self._name(number))
                slot.handle = None if found == slot.dead else found
                slot.look_at = now + LOOK_AGAIN
        candidates = [number for number, slot in self._slots.items() if slot.handle is not None]
        if not candidates:
            return None
        best = min(candidates, key=lambda number: (self._slots[number].in_flight, self._slots[number].used))
        slot = self._slots[best]
        slot.in_flight += 1
        slot.used += 1
        return best, slot.handle

    def done(self, number: int) -> None:
        """A block taken to decoder `number` has ended, well or not."""
        if (slot := self._slots.get(number)) is not None:
            slot.in_flight = max(0, slot.in_flight - 1)

    def lost(self, number: int, handle: Any, *, dead: bool, now: float) -> None:
        """`handle` did not answer at `now`: it is looked for again, unless it is `dead` and so has to be replaced."""
        slot = self._slots.get(number)
        if slot is None:
            return
        if dead:
            slot.dead = handle
        if slot.handle == handle:
            slot.handle, slot.look_at = None, now if dead else now + LOOK_AGAIN
