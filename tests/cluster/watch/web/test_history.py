"""The last hour: whole, in order, of a fixed size, and with holes where nothing is known."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.watch.web.history import History
from tests.cluster.statuses import decoder, pipeline, sink, table


def status(time: float, rates: dict[str, float], **more: Any) -> dict[str, Any]:
    tables = [table(name, records_per_second=rate, pending=int(rate)) for name, rate in rates.items()]
    return pipeline(time=time, tables=tables, sinks=[sink("events", records_per_second=9.0)], **more)


@settings(deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from("abc"), st.floats(0, 1e6)), max_size=40), st.integers(1, 9))
def test_it_holds_the_last_samples_of_everything_that_has_one(
    samples: list[dict[str, float]], size: int
) -> None:
    history = History(size)
    for second, rates in enumerate(samples):
        history.add(status(float(second), rates))
    kept = samples[-size:]
    totals = history.totals()["total"]
    if samples:
        assert totals["time"] == [float(second) for second in range(len(samples))][-size:]
        assert totals["received"] == [sum(rates.values()) for rates in kept]
    for name in "abc":
        found = history.table(name)
        if any(name in rates for rates in kept):
            assert found is not None
            expected = [rates.get(name, math.nan) for rates in kept]
            assert [math.isnan(rate) for rate in found["rate"]] == [math.isnan(rate) for rate in expected]
            assert [rate for rate in found["rate"] if rate == rate] == [
                rate for rate in expected if rate == rate
            ]
            assert len(found["time"]) == len(found["lag"]) == len(kept)
        else:
            assert found is None


def test_utilisation_is_of_the_time_between_two_samples_and_of_the_same_decoders() -> None:
    history = History()
    for time, busy in (
        (10.0, (1.0, 4.0)),
        (20.0, (6.0, 4.0)),
        (30.0, (0.5, 9.0, 3.0)),
        (40.0, (100.0, 100.0, 100.0)),
    ):
        members = [decoder(str(number), busy_seconds=seconds) for number, seconds in enumerate(busy)]
        history.add(status(time, {}, decoders=members))
    # The first decoder began anew at 30 s, and the third came then.
    assert history.totals()["total"]["busy"] == [0.0, 0.25, 0.5, 1.0]


def test_sinks_have_lines_of_their_own() -> None:
    history = History()
    history.add(status(1.0, {"t": 3.0}))
    assert history.totals()["sinks"] == {"events": [9.0]}
    assert history.table("unknown") is None
