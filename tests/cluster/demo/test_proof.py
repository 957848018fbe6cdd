"""Lost and doubled rows are counted from the rows themselves, as multisets."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.demo.proof import compare

SCHEMA = {"id": pl.Int64, "name": pl.String}


def table(*rows: tuple[int | None, str | None]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=SCHEMA, orient="row")


A, B, NULL, HALF = (1, "a"), (2, "b"), (None, None), (1, None)


@pytest.mark.parametrize(
    ("inserted", "stored", "doubled", "lost"),
    [
        ([A, B], [B, A], 0, 0),
        ([A, B], [A], 0, 1),
        ([A], [A, A, A], 2, 0),
        ([A, A], [A], 0, 1),
        ([A, A], [A, A], 0, 0),
        ([NULL, HALF], [HALF, NULL], 0, 0),
        ([NULL], [HALF], 1, 1),
        ([A], [B], 1, 1),
        ([], [], 0, 0),
        ([], [A], 1, 0),
        ([A, B, B], [], 0, 3),
    ],
)
def test_rows_are_compared_as_multisets(
    inserted: list[tuple[int, str]], stored: list[tuple[int, str]], doubled: int, lost: int
) -> None:
    verdict = compare(table(*inserted), table(*stored))
    assert (verdict.inserted, verdict.stored) == (len(inserted), len(stored))
    assert (verdict.doubled, verdict.lost) == (doubled, lost)


@given(st.lists(st.sampled_from([A, B, NULL, HALF])), st.lists(st.sampled_from([A, B, NULL, HALF])))
def test_the_verdict_is_that_of_counting(left: list[tuple[int, str]], right: list[tuple[int, str]]) -> None:
    verdict = compare(table(*left), table(*right).select("name", "id"))
    assert verdict.lost == sum(max(0, left.count(row) - right.count(row)) for row in set(left))
    assert verdict.doubled == sum(max(0, right.count(row) - left.count(row)) for row in set(right))
