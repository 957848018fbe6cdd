"""Back-off and restart intensity, without a clock."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from actors.backoff import Backoff
from cluster.supervisor.restarts import RestartHistory, RestartPolicy

POLICY = RestartPolicy(intensity=3, window=10.0, park=100.0, backoff=Backoff(0.5, 4.0))


@given(attempt=st.integers(1, 100_000), seed=st.integers(0, 99))
def test_delays_grow_up_to_a_cap_and_are_never_nothing(attempt: int, seed: int) -> None:
    delay = Backoff(0.5, 4.0, random.Random(seed)).delay(attempt)
    ceiling = min(4.0, 0.5 * 2 ** min(attempt - 1, 20))
    assert ceiling / 2 <= delay <= ceiling


def test_too_many_failures_within_the_window_park() -> None:
    history = RestartHistory(POLICY)
    for number, ceiling in enumerate((0.5, 1.0, 2.0)):
        assert ceiling / 2 <= history.failed("died", float(number)) - number <= ceiling
        assert history.parked_until is None
    assert history.failed("died again", 3.0) == 103.0
    assert (history.parked_until, history.count, history.last_reason) == (103.0, 4, "died again")
    # After the rest it has all its attempts again.
    assert history.failed("died", 104.0) <= 104.5
    assert history.parked_until is None
    assert history.count == 5


def test_failures_that_are_long_past_do_not_count() -> None:
    history = RestartHistory(POLICY)
    for number in range(50):
        now = number * 5.0
        assert history.failed("died", now) - now <= 1.0
    assert history.parked_until is None
    assert history.count == 50
