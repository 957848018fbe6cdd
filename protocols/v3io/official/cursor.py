"""Cursors over the items of a table: pages of a scan, one item at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

from protocols.v3io.errors import HttpResponseError
from protocols.v3io.official.outputs import ErrorOutput, Item
from protocols.v3io.official.response import Response

#: Reads the page at a marker, of at most so many items.
Scan = Callable[[str | None, int | None], Response]
AsyncScan = Callable[[str | None, int | None], Awaitable[Response]]


class _Pages:
    """What is known between two pages.

    Attributes:
        marker: of the next page to read; None for the first.
        limit: most items still to read.
    """

    def __init__(self, marker: str | None, limit: int | None) -> None:
        self.marker = marker
        self.limit = limit
        self.items: deque[Item] = deque()
        self.ended = limit == 0

    @property
    def wanted(self) -> bool:
        """Whether an item can only come from another page."""
        return not self.items and not self.ended

    def add(self, page: Response) -> None:
        """Take a page. One without items is not the end: the filter may have left none of it."""
        output = page.output
        if isinstance(output, ErrorOutput) or output is None:
            self.ended = True  # the caller allows this status, so there is nothing to raise
            return
        found = output.items if self.limit is None else output.items[: self.limit]
        self.items.extend(found)
        if self.limit is not None:
            self.limit -= len(found)
        if not output.items and not output.last and output.next_marker in (None, "", self.marker):
            raise HttpResponseError(
                "the scan does not go on: an empty page leads to itself", page.status_code
            )
        self.marker = output.next_marker
        self.ended = output.last or not self.marker or self.limit == 0

    def take(self) -> Item | None:
        return self.items.popleft() if self.items else None


class Cursor:
    """Reads the items of a table; iterate over it, or call :meth:`next_item` or :meth:`all`."""

    def __init__(self, scan: Scan, marker: str | None = None, limit: int | None = None) -> None:
        self._scan = scan
        self._pages = _Pages(marker, limit)

    @property
    def marker(self) -> str | None:
        """Where the page after those read so far begins, for a cursor that is to go on from there."""
        return self._pages.marker

    def next_item(self) -> Item | None:
        """The next item, or None at the end."""
        while self._pages.wanted:
            self._pages.add(self._scan(self._pages.marker, self._pages.limit))
        return self._pages.take()

    def all(self) -> list[Item]:
        """All items that are left."""
        return list(self)

    def __iter__(self) -> Iterator[Item]:
        while (item := self.next_item()) is not None:
            yield item


class AsyncCursor:
    """:class:`Cursor` of the asyncio client: ``async for``, ``await`` :meth:`next_item` or :meth:`all`."""

    def __init__(self, scan: AsyncScan, marker: str | None = None, limit: int | None = None) -> None:
        self._scan = scan
        self._pages = _Pages(marker, limit)

    @property
    def marker(self) -> str | None:
        """Where the page after those read so far begins, for a cursor that is to go on from there."""
        return self._pages.marker

    async def next_item(self) -> Item | None:
        """The next item, or None at the end."""
        while self._pages.wanted:
            self._pages.add(await self._scan(self._pages.marker, self._pages.limit))
        return self._pages.take()

    async def all(self) -> list[Item]:
        """All items that are left."""
        return [item async for item in self]

    async def __aiter__(self) -> AsyncIterator[Item]:
        while (item := await self.next_item()) is not None:
            yield item
