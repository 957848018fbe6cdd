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
    look_at: float = 0.0


class DecoderPool:
    """The decoders known to one monitor.

    Args:
        name: number of a decoder -> its name.
        find: name -> handle, or None when there is no such actor now.
    """

    def __init__(self, name: Callable[[int], str], find: Callable[[str], Any]) -> None:
        self._name = name
        self._find = find
        self._slots: dict[int, _Slot] = {}

    def resize(self, count: int) -> None:
        """Use decoders 0 to `count` - 1 from now on."""
        self._slots = {number: self._slots.get(number) or _Slot() for number in range(count)}

    def take(self, now: float) -> tuple[int, Any] | None:
        """The number and handle of a decoder for one more block, or None when none can be found at `now` (seconds)."""
        best: int | None = None
        for number, slot in self._slots.items():
            if slot.handle is None and now >= slot.look_at:
                slot.handle = self._find(self._name(number))
                slot.look_at = now + LOOK_AGAIN
            if slot.handle is not None and (best is None or slot.in_flight < self._slots[best].in_flight):
                best = number
        if best is None:
            return None
        self._slots[best].in_flight += 1
        return best, self._slots[best].handle

    def done(self, number: int, handle: Any, lost: bool = False) -> None:
        """A block taken to `handle` has ended; with `lost` the actor is gone and its name is to be looked up anew."""
        slot = self._slots.get(number)
        if slot is None:
            return
        slot.in_flight = max(0, slot.in_flight - 1)
        if lost and slot.handle is handle:
            slot.handle, slot.look_at = None, 0.0
