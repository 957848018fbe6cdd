"""The size of the pool: thresholds one by one, then whole days of load, in no time."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.config.decoders import Decoders, Scaling
from cluster.supervisor.scaling import Load, Resize, Scaler, size_text

MB = 1_000_000


def rules(low: int = 1, high: int = 8, **scaling: float) -> Decoders:
    return Decoders(min=low, max=high, scaling=Scaling(**scaling))


def load(backlog: float, rate: float, busy: float | None, running: int = 1, lag: float = 1.0) -> Load:
    return Load(int(backlog), rate, busy, running, lag if backlog else 0.0)


TOO_MUCH = load(240 * MB, 7 * MB, 0.98)


def judged(scaler: Scaler, load: Load, seconds: int, start: int = 0) -> tuple[int, Resize] | None:
    """The first step within so many seconds of the same load, and when."""
    for second in range(start, start + seconds + 1):
        step = scaler.judge(load, float(second))
        if step is not None:
            return second, step
    return None


def test_it_grows_when_what_waits_takes_too_long_and_decoders_are_busy() -> None:
    scaler = Scaler(rules(), 1)
    reason = "backlog 240 MB would take 34 s at 7.0 MB/s, decoders 98% busy"
    assert judged(scaler, TOO_MUCH, 60) == (10, Resize(2, reason))
    assert scaler.judge(TOO_MUCH, 9.5) is None
    assert scaler.verdict == f"{reason}; to 2 if that lasts"


def test_it_does_not_grow_when_something_else_is_the_limit() -> None:
    scaler = Scaler(rules(), 1)
    assert judged(scaler, load(240 * MB, 2 * MB, 0.4), 600) is None
    assert "not decoders are the limit" in scaler.verdict
    assert judged(scaler, load(50 * MB, 7 * MB, 1.0), 600) is None
    assert scaler.verdict.endswith("keeps up")
    assert judged(scaler, load(240 * MB, 7 * MB, None), 600) is None


def test_it_has_to_last() -> None:
    scaler = Scaler(rules(), 1)
    calm = load(MB, 7 * MB, 0.9)
    assert judged(scaler, TOO_MUCH, 9) is None
    assert scaler.judge(calm, 9.5) is None
    assert judged(scaler, TOO_MUCH, 9, start=10) is None
    assert judged(scaler, TOO_MUCH, 9, start=19) is not None


def test_after_a_step_it_rests_and_judges_afresh() -> None:
    scaler = Scaler(rules(), 1)
    found = judged(scaler, TOO_MUCH, 60)
    assert found is not None
    scaler.resized(2, 10.0)
    more = load(240 * MB, 14 * MB, 0.98, running=2)
    assert judged(scaler, more, 100, start=11) == (
        35,
        Resize(4, "backlog 240 MB would take 17 s at 14 MB/s, decoders 98% busy"),
    )


def test_it_waits_for_decoders_that_are_not_up_before_it_wants_more() -> None:
    scaler = Scaler(rules(), 3)
    assert judged(scaler, load(900 * MB, 7 * MB, 1.0, running=2), 600) is None
    assert scaler.verdict.endswith("1 of 3 decoders are not up")
    assert judged(scaler, load(900 * MB, 7 * MB, 1.0, running=3), 600) is not None
    # but those that cannot come are given up when there is nothing to do
    idle = Scaler(rules(), 8)
    found = judged(idle, load(0, 0, 0.0, running=2), 600)
    assert found is not None
    assert found[1].size == 4


def test_it_takes_as_many_as_it_needs_and_at_most_twice_as_many() -> None:
    needs_few = load(130 * MB, 10 * MB, 0.9, running=4)  # 13 s, and 10 s are allowed
    assert judged(Scaler(rules(high=64), 4), needs_few, 60) == (
        10,
        Resize(6, "backlog 130 MB would take 13 s at 10 MB/s, decoders 90% busy"),
    )
    found = judged(Scaler(rules(high=64), 4), load(9_000 * MB, 10 * MB, 0.9, running=4), 60)
    assert found is not None
    assert found[1].size == 8
    capped = Scaler(rules(high=5), 4)
    found = judged(capped, load(9_000 * MB, 10 * MB, 0.9, running=4), 60)
    assert found is not None
    assert found[1].size == 5
    full = Scaler(rules(high=4), 4)
    assert judged(full, load(9_000 * MB, 10 * MB, 0.9, running=4), 60) is None
    assert full.verdict.endswith("more are not allowed")


def test_while_no_block_is_done_the_age_of_what_waits_counts() -> None:
    scaler = Scaler(rules(), 1)
    assert judged(scaler, load(3 * MB, 0.0, 1.0, lag=4.0), 60) is None
    found = judged(scaler, load(3 * MB, 0.0, 1.0, lag=40.0), 60)
    assert found is not None
    assert found[1].reason == "backlog 3.0 MB, the oldest for 40 s, decoders 100% busy"


def test_it_shrinks_when_idle_by_halves_and_not_below_what_is_needed() -> None:
    idle = load(0, 0.0, 0.0, running=8)
    assert judged(Scaler(rules(), 8), idle, 300) == (60, Resize(4, "nothing waits, decoders 0% busy"))
    some = load(0, 4 * MB, 0.29, running=8)
    found = judged(Scaler(rules(), 8), some, 300)
    assert found is not None
    assert found[1].size == 5  # 2.3 decoders' work, and half of each to spare
    assert judged(Scaler(rules(), 1), load(0, 0.0, 0.0), 300) is None
    assert judged(Scaler(rules(low=3), 3), load(0, 0.0, 0.0, running=3), 300) is None
    # also while much waits for a slow sink
    assert judged(Scaler(rules(), 8), load(900 * MB, MB, 0.05, running=8), 300) is not None


def test_a_size_set_by_hand_holds_until_it_is_released() -> None:
    scaler = Scaler(rules(), 1)
    scaler.hold()
    assert judged(scaler, TOO_MUCH, 600) is None
    assert scaler.verdict.endswith("held at 1 by hand")
    scaler.release()
    assert judged(scaler, TOO_MUCH, 60, start=600) is not None


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (240e6, "240 MB"), (7.04e6, "7.0 MB"), (2.5e12, "2.5 TB")],
)
def test_sizes_in_words(size: float, text: str) -> None:
    assert size_text(size) == text


@settings(deadline=None, max_examples=40)
@given(
    arrival=st.floats(0.0, 12.0),  # in decoders' work
    sink=st.floats(0.1, 20.0),
    waiting=st.floats(0.0, 500.0),
    size=st.integers(1, 8),
    bounds=st.tuples(st.integers(1, 8), st.integers(1, 8)).map(sorted),
)
def test_under_any_steady_load_it_comes_to_rest(
    arrival: float, sink: float, waiting: float, size: int, bounds: list[int]
) -> None:
    """Within its bounds, with a step of at most twofold, and never up again after it went down.

    So the steps come to an end, however long the next may take: a backlog that hardly grows is long in hours.
    """
    low, high = bounds
    scaler = Scaler(rules(low, high), min(max(size, low), high))
    steps: list[tuple[int, int]] = []
    for second in range(0, 4000, 4):
        done = min(scaler.size, sink, arrival + waiting)
        waiting = max(0.0, waiting + 4 * (arrival - done))
        now = load(waiting * MB, done * MB, done / scaler.size, running=scaler.size)
        if (step := scaler.judge(now, float(second))) is not None:
            steps.append((scaler.size, step.size))
            scaler.resized(step.size, float(second))
    assert all(low <= after <= high and before / 2 <= after <= before * 2 for before, after in steps)
    ups = [after > before for before, after in steps]
    assert ups == sorted(ups, reverse=True)
    if sink >= high and arrival < 0.7 * high:  # decoders are the limit, and may be enough of them
        assert waiting <= 10.5 * scaler.size
