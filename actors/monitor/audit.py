"""How many rows a table has that were not received: bounds, from counts read while rows come and go. Pure.

What is published just before the table is counted may still be on its way; so the account is read before counting, and
again when everything published until then has been received. Without an increasing column, rows received meanwhile
hide as many that are missing; with one, only rows up to a value are counted that was there before the count.
"""

from __future__ import annotations

from dataclasses import dataclass

from actors.monitor.gaplog import SourceAccount


@dataclass(frozen=True, slots=True)
class Bounds:
    """A shortfall is at least `low`, and just that if `exact`; negative: the table has fewer rows than expected."""

    low: int
    exact: bool


def shortfall(
    size: int,
    before: SourceAccount,
    after: SourceAccount,
    newer: int | None = None,
    known_missing: int = 0,
    quiet: bool = False,
) -> Bounds:
    """The shortfall of a table.

    Args:
        size: rows counted; with an increasing column, those up to a value that was in the table before.
        before: the account before counting.
        after: the account when all that was published before the count had been received.
        newer: of the rows received since `before`, those beyond that value; None: all were counted.
        known_missing: rows that are known to be missing for good.
        quiet: nothing was received between the two accounts.
    """
    assert before.baseline is not None
    expected = before.baseline + after.inserted - (newer or 0) - before.deleted
    return Bounds(size - known_missing - expected, quiet)
