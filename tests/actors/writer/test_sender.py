"""What becomes of refusals, partial successes and answers that never end: a sink in memory that misbehaves."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError as Cancelled

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.backoff import Backoff
from actors.batch import Batch, Rejected
from actors.writer.sender import REFUSED_IN_A_ROW, Sender
from actors.writer.sinks.base import PartlySent, Payload
from tests.actors.writer.test_writer import DEADLINE, Denied, batch, until


class Picky:
    """Refuses every payload with an offset of `bad` in it, and rejects those of `unfit` before sending."""

    def __init__(self, bad: set[int], unfit: set[int] = frozenset(), size: int = 5) -> None:  # type: ignore[assignment]
        self.bad, self.unfit, self.size = bad, unfit, size
        self.stored: list[int] = []
        self.requests = 0

    def payloads(self, batch: Batch) -> Iterator[Payload]:
        offsets = batch.offsets.tolist()
        for start in range(0, len(offsets), self.size):
            part = offsets[start : start + self.size]
            rejects = tuple(Rejected(offset, "unfit", b"") for offset in part if offset in self.unfit)
            good = [offset for offset in part if offset not in self.unfit]
            yield Payload(good, len(good), rejects)

    def send(self, payload: Payload) -> None:
        self.requests += 1
        if self.bad.intersection(payload.body):
            raise ValueError("bad value")
        self.stored += payload.body

    def close(self) -> None:
        pass


async def everything(sender: Sender, batches: Sequence[Batch]) -> list[Rejected]:
    progress = sender.deliver(batches, sender.encode(batches), lambda: None)
    return [reject async for _, found in progress for reject in found]


def deliver(sink: Picky, batches: Sequence[Batch]) -> list[Rejected]:
    async def main() -> list[Rejected]:
        sender = Sender(sink, Backoff(0.001, 0.002))
        try:
            async with asyncio.timeout(DEADLINE):
                return await everything(sender, batches)
        finally:
            await sender.close()

    return asyncio.run(main())


@given(
    bad=st.sets(st.integers(0, 59), max_size=12),
    unfit=st.sets(st.integers(0, 59), max_size=8),
    undecoded=st.lists(st.integers(0, 3), min_size=3, max_size=3),
    size=st.integers(1, 30),
)
@settings(max_examples=60, deadline=None)
def test_what_is_refused_is_found_and_all_else_delivered_in_order(
    bad: set[int], unfit: set[int], undecoded: list[int], size: int
) -> None:
    sink = Picky(bad, unfit, size)
    batches = [batch(20 * n, 20, rejects=count) for n, count in enumerate(undecoded)]
    rejects = deliver(sink, batches)
    rows = {offset for one in batches for offset in one.offsets.tolist()}
    assert [reject.offset for reject in rejects if reject.reason == "bad value"] == sorted(
        rows & (bad - unfit)
    )
    assert sorted(r.offset for r in rejects if r.reason == "unfit") == sorted(rows & unfit)
    assert sink.stored == sorted(rows - bad - unfit)


def test_one_bad_record_of_many_costs_few_requests() -> None:
    sink = Picky({3333}, size=5000)
    (reject,) = deliver(sink, [batch(0, 5000)])
    assert (reject.offset, reject.reason) == (3333, "bad value")
    assert sink.requests <= 30


def test_when_nothing_is_taken_nothing_is_given_up() -> None:
    sink = Picky(set(range(5000)), size=5000)
    with pytest.raises(ValueError, match="bad value"):
        deliver(sink, [batch(0, 5000)])
    assert sink.stored == []
    assert sink.requests < 13 + 2 * REFUSED_IN_A_ROW


def test_after_everything_was_refused_one_bad_record_is_a_reject_again() -> None:
    async def main() -> None:
        sink = Picky(set(range(40)))
        sender = Sender(sink, Backoff(0.001, 0.002))
        with pytest.raises(ValueError, match="bad value"):
            await everything(sender, [batch(0, 40)])
        sink.bad = {0}
        assert [reject.offset for reject in await everything(sender, [batch(0, 40)])] == [0]
        await sender.close()

    asyncio.run(asyncio.wait_for(main(), DEADLINE))


@pytest.mark.parametrize("kind", [StopIteration, Cancelled])
def test_a_sink_that_raises_what_asyncio_takes_for_no_error_is_heard(kind: type[Exception]) -> None:
    class Odd(Picky):
        def send(self, payload: Payload) -> None:
            raise kind("odd")

    (reject,) = deliver(Odd(set()), [batch(0, 1)])
    assert "odd" in reject.reason


def test_a_refusal_of_everything_is_not_looked_for_in_records() -> None:
    class Closed(Picky):
        def send(self, payload: Payload) -> None:
            self.requests += 1
            raise Denied("wrong password")

    sink = Closed(set())
    with pytest.raises(Denied):
        deliver(sink, [batch(0, 100)])
    assert sink.requests == 1


@given(chances=st.lists(st.integers(0, 10), max_size=20))
@settings(max_examples=40, deadline=None)
def test_the_rest_of_a_partial_success_is_sent_again_and_its_rejects_come_home(chances: list[int]) -> None:
    class Partial(Picky):
        """Takes as many records as the next chance says, and never an offset that 7 divides."""

        def send(self, payload: Payload) -> None:
            never = tuple(Rejected(o, "seven", b"") for o in payload.body if o % 7 == 0)
            good = [offset for offset in payload.body if offset % 7]
            count = chances.pop(0) if chances else 10
            self.stored += good[:count]
            if good[count:] or never:
                rest = Payload(good[count:], len(good[count:]))
                raise PartlySent("throttled", rest, never)

    sink = Partial(set(), size=10)
    rejects = deliver(sink, [batch(0, 40)])
    assert sink.stored == [offset for offset in range(40) if offset % 7]
    assert [reject.offset for reject in rejects] == [0, 7, 14, 21, 28, 35]


@given(bad=st.sets(st.integers(0, 39)), known=st.booleans())
@settings(max_examples=40, deadline=None)
def test_a_rest_that_is_refused_is_halved_without_what_was_taken(bad: set[int], known: bool) -> None:
    class Partial(Picky):
        """Of more than four takes the first two and rejects the third, then refuses a rest with a bad one."""

        def send(self, payload: Payload) -> None:
            if len(payload.body) > 4 and not bad.intersection(payload.body[:2]):
                self.stored += payload.body[:2]
                rest = payload.body[3:]
                never = (Rejected(payload.body[2], "third", b""),)
                raise PartlySent("throttled", Payload(rest, len(rest), (), rest if known else None), never)
            super().send(payload)

    sink = Partial(bad, size=10)
    try:
        rejects = {reject.offset for reject in deliver(sink, [batch(0, 20), batch(20, 20)])}
    except ValueError:
        assert len(bad) >= REFUSED_IN_A_ROW
        return
    assert rejects | set(sink.stored) == set(range(40))
    assert rejects.isdisjoint(sink.stored)
    assert len(sink.stored) == len(set(sink.stored)) or not known


def test_an_answer_that_does_not_end_is_taken_for_lost() -> None:
    class Slow(Picky):
        timeout = 0.5

        def __init__(self) -> None:
            super().__init__(set())
            self.gate = threading.Event()

        def send(self, payload: Payload) -> None:
            self.requests += 1
            if self.requests == 1:
                assert self.gate.wait(DEADLINE)
            else:
                self.stored += payload.body

    sink = Slow()

    async def main() -> None:
        sender = Sender(sink, Backoff(0.001, 0.002))
        one = [batch(0, 4)]
        assert await everything(sender, one) == []
        assert (sender.stats.retries, sender.stats.problem) == (1, None)
        assert sender.stats.last_error == "no whole answer in time; sending it again"
        sink.gate.set()
        await sender.close()

    asyncio.run(asyncio.wait_for(main(), DEADLINE))
    assert sink.stored == [0, 1, 2, 3]


def test_status_shows_the_open_circuit() -> None:
    class Down(Picky):
        def send(self, payload: Payload) -> None:
            self.requests += 1
            raise ConnectionRefusedError("refused")

    sink = Down(set())

    async def main() -> None:
        sender = Sender(sink, Backoff(0.01, 0.02))
        one = [batch(0, 4)]
        task = asyncio.create_task(everything(sender, one))
        await until(lambda: sender.status()["circuit"] != "closed")
        assert sender.status()["concurrency"] == 1
        assert sender.stats.problem == "refused"
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await sender.close()

    asyncio.run(asyncio.wait_for(main(), DEADLINE))
