"""Cursors: every item once, over pages of any size, empty ones among them, and from a marker on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.v3io.errors import HttpResponseError
from protocols.v3io.official.cursor import AsyncCursor, Cursor
from protocols.v3io.official.outputs import GetItemsOutput
from protocols.v3io.official.response import Response

#: Pages of a table: how many of its items, in their order, each gives.
PAGES = st.lists(st.integers(0, 3), max_size=6)


class Table:
    """Answers scans with `pages`; a marker is the number of the page."""

    def __init__(self, pages: Sequence[int]) -> None:
        self.ends = [sum(pages[: n + 1]) for n in range(len(pages))] or [0]
        self.asked: list[tuple[str | None, int | None]] = []

    def scan(self, marker: str | None, limit: int | None) -> Response:
        self.asked.append((marker, limit))
        page = int(marker or 0)
        start = self.ends[page - 1] if page else 0
        items = [{"i": {"N": str(i)}} for i in range(start, self.ends[page])]
        fields: dict[str, Any] = {"LastItemIncluded": "TRUE", "Items": items}
        if page + 1 < len(self.ends):
            fields |= {"LastItemIncluded": "FALSE", "NextMarker": str(page + 1)}
        return Response(GetItemsOutput, 200, {}, orjson.dumps(fields))

    async def scan_async(self, marker: str | None, limit: int | None) -> Response:
        return self.scan(marker, limit)


@given(PAGES, st.none() | st.integers(0, 9))
def test_every_item_once_and_no_more_than_the_limit(pages: list[int], limit: int | None) -> None:
    table = Table(pages)
    wanted = [{"i": i} for i in range(sum(pages) if limit is None else min(limit, sum(pages)))]
    assert Cursor(table.scan, None, limit).all() == wanted
    assert all(left is None if limit is None else 0 < left <= limit for _, left in table.asked)
    assert asyncio.run(AsyncCursor(table.scan_async, None, limit).all()) == wanted


@given(PAGES)
def test_another_cursor_goes_on_from_a_marker(pages: list[int]) -> None:
    table = Table(pages)
    cursor = Cursor(table.scan)
    items = []
    while (item := cursor.next_item()) is not None:
        items.append(item)
        items += list(cursor._pages.items)
        cursor._pages.items.clear()
        if cursor.marker:
            cursor = Cursor(table.scan, cursor.marker)
    assert items == [{"i": i} for i in range(sum(pages))]


def test_the_end_stays_the_end() -> None:
    table = Table([1])
    cursor = Cursor(table.scan)
    assert list(cursor) == [{"i": 0}]
    assert cursor.next_item() is None
    assert len(table.asked) == 1


def test_an_empty_page_that_leads_to_itself_is_an_error() -> None:
    body = b'{"LastItemIncluded":"FALSE","NextMarker":"x","Items":[]}'
    cursor = Cursor(lambda marker, limit: Response(GetItemsOutput, 200, {}, body))
    with pytest.raises(HttpResponseError, match="leads to itself"):
        cursor.all()


def test_a_failure_that_is_allowed_ends_it() -> None:
    body = b'{"ErrorCode":-2,"ErrorMessage":"No such file or directory"}'
    assert Cursor(lambda marker, limit: Response(GetItemsOutput, 404, {}, body)).all() == []
