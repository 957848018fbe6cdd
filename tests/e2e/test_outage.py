"""One of two sinks is gone for some seconds; ``scripts/soak outage`` is the long form, which looks at rates as well."""

from __future__ import annotations

from tests.soak import outage


def test_an_outage_of_one_sink_costs_little_memory_and_is_caught_up_with(
    ray_cluster: None, unique: str
) -> None:
    figures = outage.run(seconds=5.0, rate=10_000, name=unique)
    print(f"\n{figures}")
    assert (figures.lost, figures.doubled) == (0, 0)
    assert max(figures.growth.values()) < outage.MAX_GROWTH
