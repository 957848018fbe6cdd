"""One of two sinks is gone for eight seconds; ``scripts/soak outage`` is the long form, at twice the rate."""

from __future__ import annotations

import pytest

from tests.soak import outage

pytestmark = pytest.mark.alone


def test_an_outage_of_one_sink_costs_little_memory_holds_up_no_other_and_is_caught_up_with(
    ray_cluster: None, unique: str
) -> None:
    figures = outage.run(seconds=8.0, rate=10_000, name=unique)
    print(f"\n{figures}")
    assert figures.faults == []
