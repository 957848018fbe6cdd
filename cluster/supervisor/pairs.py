"""Which of the two actors of a table with a standby is its monitor. No Ray.

Both are alike and begin as standbys. One is *promoted*: at first the one whose spool is the newest, later the standby
of a monitor that has died. A standby says that it is *ready* only while its copy has all that was ever dispatched, so
that nobody has to know why its monitor is gone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: Seconds after which a monitor without an answer is ended when its standby is ready: promoting costs little, and
#: what was only stopped can do no harm.
PATIENCE = 5.0

#: Seconds after which the first place becomes the monitor although the second has not come: there may be no room.
ALONE = 60.0


@dataclass(slots=True)
class Pair:
    """The two places of one table.

    Attributes:
        places: the actors' names.
        front: the one that is the table's monitor, or was it last.
        leader: the one that is, as far as is known.
        promoting: the one that was told to be.
    """

    places: tuple[str, str]
    front: str
    leader: str | None = None
    promoting: str | None = None
    #: Since when the table has no monitor and somebody could be it.
    _since: float | None = None
    #: Name -> what it said last; None: it is dead, or new and has said nothing.
    _known: dict[str, Mapping[str, Any] | None] = field(default_factory=dict)

    def has(self, home: str) -> bool:
        """Whether it is in `home`, a spool's folder: what is left in one of the two the other has."""
        return any(place.endswith(f"/{home}") for place in self.places)

    def other(self, name: str) -> str:
        """The other place."""
        return self.places[self.places[0] == name]

    def gone(self, name: str) -> None:
        """The actor is dead, or was created just now."""
        self._known[name] = None
        if self.leader == name:
            self.leader = None
        if self.promoting == name:
            self.promoting = None

    def answered(self, name: str, answer: Mapping[str, Any]) -> None:
        """What the actor says of itself; only a standby says whether it is ``ready``."""
        self._known[name] = answer
        if "ready" not in answer and answer.get("state") != "starting" and self.promoting is None:
            # Of two, which can only be while one is dying, the newer.
            rival = self._known.get(self.other(name)) or {}
            if self.leader in (None, name) or answer["incarnation"] > rival.get("incarnation", 0):
                self.leader = self.front = name

    def promoted(self, name: str, done: bool) -> None:
        """The actor has answered to its promotion."""
        if self.promoting == name:
            self.promoting = None
            if done:
                self.leader = self.front = name

    @property
    def ready(self) -> bool:
        """Whether there is a standby that can take over at once."""
        standby = self._known.get(self.other(self.front))
        return standby is not None and bool(standby.get("ready"))

    def choose(self, now: float) -> str | None:
        """Whom to promote at `now` (seconds)."""
        if self.leader is not None or self.promoting is not None:
            self._since = None
            return None
        able = {name: answer for name, answer in self._known.items() if answer and "ready" in answer}
        if not able:
            return None
        self._since = now if self._since is None else self._since
        ready = [name for name, answer in able.items() if answer["ready"]]
        if ready and len(self._known) == 2:  # of the other it is known that it is gone
            self.promoting = ready[0]
        elif len(able) == 2:
            # Spools of dead processes.
            self.promoting = max(self.places, key=lambda name: self._rank(able[name], name))
        elif self.front in able:
            # Before both are here only that of the last monitor is known to be the newest.
            owner, term = able[self.front]["owner"], able[self.front]["term"]
            if (owner and len(self._known) == 2) or ((owner or not term) and now >= self._since + ALONE):
                self.promoting = self.front
        return self.promoting

    def _rank(self, answer: Mapping[str, Any], name: str) -> tuple[bool, int, bool]:
        return answer["owner"], answer["term"], name == self.front
