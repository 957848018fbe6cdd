"""What a monitor asks of a source of changes, whatever it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol


class SourceLost(Exception):
    """The source ended or cannot be reached now; the message says why. Opening it again may help."""


class TableGone(SourceLost):
    """The table does not exist (any more)."""


class Received(NamedTuple):
    """Frames of one event kind, in the order they were published."""

    kind: str
    frames: Sequence[bytes]


class Switched(NamedTuple):
    """From here on rows are of the type that was followed last; so are the `back` rows handed out just before."""

    back: int


class Described(NamedTuple):
    """The type of the table's rows at some moment: an id that differs between types, and the blocks' schema."""

    type_id: str
    schema: str


class Stream(Protocol):
    """An open source: the changes of one table from now on.

    Used by one thread, but for :meth:`describe`, :meth:`renew`, :meth:`discard` and :meth:`wake`, which another may
    call.
    """

    @property
    def schemas(self) -> Mapping[str, str]:
        """Event kind -> schema of its records, as blocks carry it."""

    @property
    def described(self) -> Described | None:
        """The type of inserted rows when the stream was opened; None if it can never change."""

    @property
    def topics(self) -> Sequence[str]:
        """What was created at the source, to be cleared there by whoever comes after a crash."""

    def receive(self, timeout: float) -> list[Received | Switched]:
        """What arrived, waiting up to `timeout` seconds. Raises :class:`SourceLost`."""

    def describe(self) -> Described:
        """Ask for the type now. Raises :class:`TableGone` or :class:`SourceLost`."""

    def renew(self) -> str:
        """Have inserts published under a further topic as well, none of which came before this call."""

    def discard(self, topic: str) -> None:
        """A topic of :meth:`renew` will not be followed."""

    def follow(self, topic: str, described: Described) -> None:
        """Go over to `topic`, all of whose rows are as `described`; where it sets in, :meth:`receive` says so."""

    def reread(
        self, described: Described, column: str, values: Sequence[object]
    ) -> list[tuple[object, bytes]]:
        """(value, row) of the rows whose `column` has one of `values`, as they are now.

        Raises :class:`SourceLost` also if rows are not as `described` any more.
        """

    def end(self) -> None:
        """Have the source publish no more; what it has published can still be received."""

    def wake(self) -> None:
        """Make a waiting :meth:`receive` return soon."""

    def close(self) -> None:
        """Stop receiving and clear what was created at the source."""


class Source(Protocol):
    """Where a table's changes come from."""

    def open(self, stale_topics: Iterable[str]) -> Stream:
        """Subscribe, after clearing what a killed process left behind. Raises :class:`SourceLost`."""
