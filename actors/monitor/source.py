"""What a monitor asks of a source of changes, whatever it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol


class SourceLost(Exception):
    """The source ended or cannot be reached now; the message says why. Opening it again may help."""


class TableGone(SourceLost):
    """The table does not exist (any more)."""


class Received(NamedTuple):
    """Frames of one event kind, in the order they were published; `rows` is how many rows were updated or deleted."""

    kind: str
    frames: Sequence[bytes]
    rows: int = 0


class Switched(NamedTuple):
    """From here on rows are of the type that was followed last; so are the `back` rows handed out just before."""

    back: int


class Described(NamedTuple):
    """The type of the table's rows at some moment: an id that differs between types, and the blocks' schema."""

    type_id: str
    schema: str


class Stream(Protocol):
    """An open source: the changes of one table from now on.

    Where inserts are followed, updates and deletes are handed out too, to be counted, whoever wants their records.

    Used by one thread, but for :meth:`describe`, :meth:`renew`, :meth:`discard` and :meth:`wake`, which another may
    call.
    """

    @property
    def schemas(self) -> Mapping[str, str]:
        """Event kind -> schema of its records, as blocks carry it; those of other kinds are only counted."""

    @property
    def described(self) -> Described | None:
        """The type of inserted rows when the stream was opened; None if it can never change."""

    @property
    def topics(self) -> Sequence[str]:
        """What was created at the source, to be cleared there by whoever comes after a crash."""

    @property
    def emptied(self) -> bool:
        """Whether the last :meth:`receive` left nothing waiting that had come."""

    @property
    def checked(self) -> float:
        """When (monotonic) the source was asked last, by :meth:`describe`, and still knew all the topics."""

    def receive(self, timeout: float) -> list[Received | Switched]:
        """What arrived, waiting up to `timeout` seconds. Raises :class:`SourceLost`."""

    def describe(self) -> Described:
        """Ask for the type now. Raises :class:`TableGone` or :class:`SourceLost`."""

    def check(self) -> None:
        """See whether the source still knows the topics, which costs less than :meth:`describe`; raises as it does."""

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


class Following(NamedTuple):
    """What a stream is subscribed to: topic -> event kind (of inserts the newest topic only), the schema of each kind,
    and the type of inserted rows."""

    topics: Mapping[str, str]
    schemas: Mapping[str, str]
    described: Described | None


class SharedStream(Stream, Protocol):
    """A stream that a second process can join."""

    @property
    def following(self) -> Following | None:
        """What another has to subscribe to in order to receive the same; None when it is closed."""

    def inject(self, received: Received) -> None:
        """Hand out `received` next. May be called from any thread."""

    def quiet(self, seconds: float) -> frozenset[str]:
        """The kinds of which nothing came for so long, nor waits to be received. May be called from any thread."""

    def own(self, owned: Callable[[], bool]) -> None:
        """End the topics when this ends, if `owned` then says that no other process follows them."""


class Page(NamedTuple):
    """Rows of a table as they are now, and their type; `total` rows there are that were asked for."""

    rows: Sequence[bytes]
    described: Described
    total: int


class TableReader(Protocol):
    """Reads a table as it is now. Every method raises :class:`SourceLost`, :class:`TableGone`."""

    def described(self) -> Described:
        """The type of the table's rows."""

    def size(self) -> int:
        """How many rows there are."""

    def page(self, expression: str, column: str, limit: int, descending: bool = False) -> Page:
        """The first rows, up to `limit`, that satisfy `expression`, in the order of `column`."""

    def close(self) -> None:
        """Close the connections."""


class Source(Protocol):
    """Where a table's changes come from."""

    def reader(self) -> TableReader:
        """What reads the table's rows. Sends nothing yet."""

    def open(self, stale_topics: Iterable[str]) -> Stream:
        """Subscribe, after clearing what a killed process left behind. Raises :class:`SourceLost`."""


class SharedSource(Source, Protocol):
    """A source whose streams a second process can join."""

    def open(self, stale_topics: Iterable[str]) -> SharedStream: ...

    def join(self, following: Following) -> SharedStream:
        """Subscribe to what another process follows. Raises :class:`SourceLost`."""
