"""Which of the states that a data source told holds, given the rows that are stored. Neither thread nor clock."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

#: States that may wait for their rows; of more, the oldest waits for the rows of the next one instead.
MOST_WAITING = 10_000


class States:
    """Merges the states told into one.

    A state holds once rows are stored that name it, and so do those told before it. As long as no row names any, those
    hold that were told by the end of the read that gave the rows.

    Args:
        merged: what held at the end of an earlier life.
    """

    def __init__(self, merged: Mapping[str, Any] | None = None) -> None:
        self._merged: dict[str, Any] = dict(merged or {})
        self._waiting: deque[tuple[str, dict[str, Any]]] = deque()
        self._named = False

    def told(self, state_id: object, state: Mapping[str, Any]) -> None:
        """The source told a state."""
        # As of now: the source may go on to change it.
        copy = json.loads(json.dumps(dict(state)))
        self._waiting.append((_key(state_id), copy))
        if len(self._waiting) > MOST_WAITING:
            (_, first), (key, second) = self._waiting.popleft(), self._waiting.popleft()
            self._waiting.appendleft((key, first | second))

    def read(self, rows: int, state_ids: Iterable[object]) -> str | None:
        """A read gave so many rows, which name these states; the state once they are stored, None if it is as before.

        A read without rows proves nothing: those of the states told may be yet to come.
        """
        named = {_key(state_id) for state_id in state_ids}
        self._named = self._named or bool(named)
        if not self._named:
            return self.ended() if rows else None
        places = [place for place, (key, _) in enumerate(self._waiting, 1) if key in named]
        return self._take(places[-1] if places else 0)

    def ended(self) -> str | None:
        """All rows were given; the state once they are stored, None if it is as before."""
        return self._take(len(self._waiting))

    def _take(self, count: int) -> str | None:
        if not count:
            return None
        for _ in range(count):
            self._merged |= self._waiting.popleft()[1]
        return json.dumps(self._merged)


def _key(state_id: object) -> str:
    """Equal for ids that are equal in Python or in JSON."""
    try:
        return json.dumps(state_id)
    except (TypeError, ValueError):
        return repr(state_id)
