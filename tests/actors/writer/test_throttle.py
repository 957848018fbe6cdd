"""The gate before a sink: when the circuit opens and closes, who probes, and how many may send at once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from actors.backoff import Backoff
from actors.writer.sinks.base import TimedOut
from actors.writer.throttle import FIRST_LIMIT, LONGEST_WISH, MAX_LIMIT, THRESHOLD, Circuit, Gate, Throttle

DEADLINE = 60.0


class Rules(RuleBasedStateMachine):
    """Requests that begin when admitted, and end in any way at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.throttle = Throttle(Backoff(1.0, 8.0, random.Random(0)))
        self.now = 0.0
        self.in_a_row = 0

    @rule(seconds=st.floats(0, 10))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.throttle.admits(self.now))
    @rule()
    def begin(self) -> None:
        was = self.throttle.circuit
        assert was is not Circuit.HALF_OPEN
        self.throttle.began()
        if was is Circuit.OPEN:
            assert self.now >= self.throttle.retry_at
            assert self.throttle.circuit is Circuit.HALF_OPEN
            assert self.throttle.in_flight == 1

    @precondition(lambda self: self.throttle.in_flight)
    @rule()
    def succeed(self) -> None:
        before, circuit = self.throttle.limit, self.throttle.circuit
        self.throttle.succeeded()
        self.in_a_row = 0
        assert before <= self.throttle.limit <= MAX_LIMIT
        # Only the probe closes it: an answer to what was asked before says nothing of the pause.
        assert self.throttle.circuit is (circuit if circuit is Circuit.OPEN else Circuit.CLOSED)

    @precondition(lambda self: self.throttle.in_flight)
    @rule(wish=st.one_of(st.none(), st.floats(0, 1000)))
    def fail(self, wish: float | None) -> None:
        probed = self.throttle.circuit is not Circuit.CLOSED
        self.throttle.failed(self.now, wish)
        self.in_a_row += 1
        if probed or self.in_a_row >= THRESHOLD or wish is not None:
            assert self.throttle.circuit is Circuit.OPEN
            assert self.throttle.retry_at >= self.now + min(wish or 0.0, LONGEST_WISH)
            assert self.throttle.retry_at <= self.now + 8.0 + LONGEST_WISH
        else:
            assert self.throttle.circuit is Circuit.CLOSED

    @precondition(lambda self: self.throttle.in_flight)
    @rule()
    def give_up(self) -> None:
        self.throttle.gave_up()

    @invariant()
    def never_stuck(self) -> None:
        assert 0 <= self.throttle.in_flight <= MAX_LIMIT
        assert self.throttle.limit >= 1
        if not self.throttle.in_flight:
            assert self.throttle.admits(max(self.now, self.throttle.retry_at))


TestRules = Rules.TestCase
TestRules.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)


class Busy(Exception):
    retryable = True

    def __init__(self, retry_after: float | None = None) -> None:
        super().__init__("busy")
        self.retry_after = retry_after


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def state(gate: Gate) -> Circuit:
    return gate.throttle.circuit


async def fail(gate: Gate, error: Exception) -> None:
    with pytest.raises(type(error)):
        async with gate.request():
            raise error


def test_a_sink_that_asks_for_patience_gets_it_up_to_a_bound() -> None:
    async def main() -> None:
        clock = Clock()
        gate = Gate(Backoff(0.001, 0.001), clock)
        await fail(gate, Busy(2.5))
        assert state(gate) is Circuit.OPEN
        assert gate.throttle.retry_at == pytest.approx(102.5)
        clock.now = 103.0
        await fail(gate, Busy(86400.0))
        assert gate.throttle.retry_at == pytest.approx(103.0 + LONGEST_WISH)

    asyncio.run(main())


def test_a_refusal_and_builtin_errors_are_sorted() -> None:
    async def main() -> None:
        gate = Gate(Backoff(0.001, 0.001))
        for _ in range(THRESHOLD):
            await fail(gate, ValueError("no such column"))
        assert state(gate) is Circuit.CLOSED
        for error in (ConnectionResetError(), TimeoutError(), TimedOut(), Busy(), Busy()):
            await fail(gate, error)
        assert state(gate) is Circuit.OPEN
        assert gate.throttle.limit == 1

    asyncio.run(main())


def test_only_one_probes_a_dead_sink_and_its_success_lets_all_in() -> None:
    async def main() -> None:
        gate = Gate(Backoff(0.01, 0.01))
        for _ in range(THRESHOLD):
            await fail(gate, Busy())
        inside: list[int] = []
        at_once: list[int] = []
        go = asyncio.Event()

        async def work(number: int) -> None:
            async with gate.request():
                inside.append(number)
                at_once.append(gate.throttle.in_flight)
                await go.wait()

        tasks = [asyncio.create_task(work(number)) for number in range(20)]
        await until(lambda: inside)
        assert state(gate) is Circuit.HALF_OPEN
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(inside) == 1
        go.set()
        await asyncio.wait_for(asyncio.gather(*tasks), DEADLINE)
        assert sorted(inside) == list(range(20))
        assert max(at_once) <= FIRST_LIMIT
        assert state(gate) is Circuit.CLOSED

    asyncio.run(main())


def test_a_probe_that_is_cancelled_lets_another_probe() -> None:
    async def main() -> None:
        gate = Gate(Backoff(0.001, 0.001))
        for _ in range(THRESHOLD):
            await fail(gate, Busy())

        async def hang() -> None:
            async with gate.request():
                await asyncio.Event().wait()

        probe = asyncio.create_task(hang())
        await until(lambda: state(gate) is Circuit.HALF_OPEN)
        probe.cancel()
        async with asyncio.timeout(DEADLINE), gate.request():
            assert state(gate) is Circuit.HALF_OPEN

    asyncio.run(main())


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():
            await asyncio.sleep(0.001)
