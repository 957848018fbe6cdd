"""Puts, from the call to a sink: validation, origins and times, and a writer that dies at any moment."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Coroutine, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.backoff import Backoff
from actors.batch import Batch, Receipt
from actors.block import BlockId
from actors.errors import DeliveryRefused, NotAttached
from actors.writer.encode import encode_batch
from actors.writer.puts import EventWriter, InvalidEvent, WriterAway, encode
from actors.writer.reorder import Owner
from actors.writer.sinks.base import Payload
from actors.writer.writer import Writer
from protocols.accumulator import BufferFull, Limits, RecordTooLarge
from protocols.batching import RecordsRejected

Result = TypeVar("Result")
DEADLINE = 60.0


class Store:
    """A sink in memory, of events by stream; refuses those with a true ``bad``."""

    takes_puts = True

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.open = threading.Event()
        self.open.set()

    def payloads(self, batch: Batch) -> Iterator[Payload]:
        body = encode_batch("p", batch)
        yield Payload((batch.stream, body.body(0, batch.rows.num_rows)), batch.rows.num_rows)

    def send(self, payload: Payload) -> None:
        assert self.open.wait(DEADLINE)
        stream, body = payload.body
        events = json.loads(body)
        if any(event.get("bad") for event in events):
            raise ValueError("bad event")
        self.events += [(stream, event) for event in events]

    def close(self) -> None:
        pass


class Local:
    """A transport to a writer on a loop of its own, which can be killed; its answers can be lost."""

    def __init__(self, sink: Any) -> None:
        self.stopping = threading.Event()
        self.left: list[str] = []
        #: Of the next writes, whether the writer dies before it does them, after, or only the answer is lost.
        self.faults: list[str] = []
        self._sink = sink
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._writers: list[Writer] = []
        self._start()

    def _start(self) -> None:
        async def make() -> Writer:
            return Writer(self._sink, Backoff(0.001, 0.002))

        self.writer = self._run(make())
        self._writers.append(self.writer)

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(DEADLINE)

    def attach(self, feed: str, owner: Owner) -> tuple[int, int] | None:
        return self._run(self.writer.attach(feed, owner))

    def write(
        self, owner: Owner, block: BlockId, previous: BlockId | None, batches: Sequence[Batch]
    ) -> Receipt:
        fault = self.faults.pop(0) if self.faults else None
        if fault == "before":
            self._start()
        try:
            receipt = self._run(self.writer.write(owner, block, previous, batches))
        except (NotAttached, DeliveryRefused) as error:
            raise WriterAway(str(error)) from error
        if fault == "after":
            self._start()
        if fault in ("after", "lost"):
            raise WriterAway("died")
        return receipt

    def leave(self, feed: str) -> None:
        self.left.append(feed)
        self._loop.call_soon_threadsafe(self.writer.leave, feed)

    def end(self) -> None:
        for writer in self._writers:
            self._run(writer.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(DEADLINE)
        self._loop.close()


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def local(store: Store) -> Iterator[Local]:
    transport = Local(store)
    yield transport
    transport.end()


def writer(local: Local, **limits: Any) -> EventWriter:
    return EventWriter("p/s", local, Limits(**{"linger": 0.0, **limits}), Backoff(0.001, 0.002))


def test_events_arrive_in_order_with_origin_and_increasing_times(local: Local, store: Store) -> None:
    with writer(local) as to:
        to.put({"a": [{"n": 0}, {"n": 1}], "b": [{"n": 2, "@time": 5}]})
        to.put({"a": [{"n": 3, "at": datetime(2026, 1, 1, tzinfo=UTC)}]})
        to.flush(DEADLINE)
        stored = list(store.events)
    assert [(stream, event["n"]) for stream, event in stored if stream == "a"] == [
        ("a", 0),
        ("a", 1),
        ("a", 3),
    ]
    by_number = {event["n"]: event for _, event in stored}
    assert by_number[2]["@time"] == 5
    assert by_number[3]["at"] == "2026-01-01T00:00:00+00:00"
    times = [by_number[n]["@time"] for n in (0, 1, 3)]
    assert times == sorted(set(times))
    head = {event["@origin"].rpartition("/")[0] for event in by_number.values()}
    assert len(head) == 1
    assert head.pop().startswith(f"p/{to.feed}/1")
    assert [int(by_number[n]["@origin"].rpartition("/")[2]) for n in range(4)] == [0, 1, 2, 3]
    assert local.left == [to.feed]


@given(
    puts=st.lists(st.lists(st.sampled_from("abc"), max_size=6), max_size=10),
    faults=st.lists(st.sampled_from(["before", "after", "lost", ""]), max_size=6),
)
@settings(deadline=None, max_examples=25)
def test_a_writer_that_dies_at_any_moment_loses_nothing_and_doubles_only_by_origin(
    puts: list[list[str]], faults: list[str]
) -> None:
    store = Store()
    local = Local(store)
    try:
        with writer(local, records=4) as to:
            local.faults = list(faults)
            number = 0
            for streams in puts:
                events: dict[str, list[dict[str, Any]]] = {}
                for stream in streams:
                    events.setdefault(stream, []).append({"n": number})
                    number += 1
                to.put(events)
            to.flush(DEADLINE)
        by_origin = {event["@origin"]: event["n"] for _, event in store.events}
        assert sorted(by_origin.values()) == list(range(number))
        assert all(by_origin[event["@origin"]] == event["n"] for _, event in store.events)
        if "after" not in faults:  # the writer knew what it had made durable
            assert len(store.events) == number
        for stream in "abc":
            first = list(dict.fromkeys(e["@origin"] for s, e in store.events if s == stream))
            offsets = [int(origin.rpartition("/")[2]) for origin in first]
            assert offsets == sorted(offsets)
    finally:
        local.end()


def test_a_refused_event_comes_back_and_the_others_are_stored(local: Local, store: Store) -> None:
    to = writer(local)
    told: list[tuple[str, int]] = []
    for kind in ("send", "flush", "error"):
        to.on(kind, lambda event: told.append((event.kind, len(event.rejections))))
    to.put({"a": [{"n": 0}, {"n": 1, "bad": True}, {"n": 2}]})
    with pytest.raises(RecordsRejected, match="1 records refused, the first: bad event") as caught:
        to.flush(DEADLINE)
    (rejection,) = caught.value.rejections
    assert (rejection.number, rejection.record.stream, rejection.record.event["n"]) == (1, "a", 1)
    assert [event["n"] for _, event in store.events] == [0, 2]
    assert told == [("send", 0), ("flush", 0), ("error", 1)]
    to.flush(DEADLINE)
    to.close(DEADLINE)


def test_however_many_events_are_refused_all_come_back(local: Local, store: Store) -> None:
    to = writer(local)
    to.put({"a": [{"n": n, "bad": True} for n in range(20)] + [{"n": 20}]})
    with pytest.raises(RecordsRejected) as caught:
        to.flush(DEADLINE)
    assert [rejection.number for rejection in caught.value.rejections] == list(range(20))
    assert [event["n"] for _, event in store.events] == [20]
    to.close(DEADLINE)


def test_when_the_sink_is_slow_put_says_so(local: Local, store: Store) -> None:
    store.open.clear()
    to = writer(local, buffer_bytes=200)
    accepted = 0
    with contextlib.suppress(BufferFull):
        while accepted < 100:
            to.put({"a": [{"n": accepted}]})
            accepted += 1
    assert 2 < accepted == to.pending < 100
    with pytest.raises(RecordTooLarge, match="the buffer holds 200"):
        to.put({"a": [{"s": "x" * 100}, {"s": "x" * 100}]})
    store.open.set()
    to.close(DEADLINE)
    assert [event["n"] for _, event in store.events] == list(range(accepted))


class Weird:
    pass


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ([{"a": 1}], "not a list"),
        ({"a b": [{}]}, "stream 'a b'"),
        ({"": [{}]}, "stream ''"),
        ({1: [{}]}, "stream 1"),
        ({"a": {"n": 1}}, "a list of events, not a dict"),
        ({"a": "text"}, "a list of events, not a str"),
        ({"a": 5}, "a list of events, not a int"),
        ({"a": [{}, 7]}, r"a\[1\]: an event is a dict, not a int"),
        ({"a": [{"x": Weird()}]}, r"a\[0\]: .*not JSON serializable"),
        ({"a": [{"x": {"y": [float("nan")]}}]}, r"a\[0\]: .*JSON has no form for"),
        ({"a": [{"x": float("-inf")}]}, r"a\[0\]: .*JSON has no form for"),
        ({"a": [{"x": 2**63}]}, r"a\[0\]: an integer beyond 64 bits"),
        ({"a": [{"x": -(2**63) - 1}]}, r"a\[0\]: .*64-bit"),
        ({"a": [{1: 2}]}, r"a\[0\]: .*key must be str"),
        ({"a": [{"x": "\ud800"}]}, r"a\[0\]: .*surrogates"),
        ({"a": [{"@id": "x"}]}, r"a\[0\]: @id is set by the writer"),
        ({"a": [{"@origin": "x"}]}, r"a\[0\]: @origin is set by the writer"),
        ({"a": [{"@time": 1.5}]}, r"a\[0\]: @time must be an integer"),
        ({"a": [{"@time": True}]}, r"a\[0\]: @time must be an integer"),
        ({"a": [{"@time": 2**62}]}, r"a\[0\]: @time must be an integer"),
    ],
)
def test_what_cannot_be_put_is_named_at_the_call(events: Any, message: str, local: Local) -> None:
    with writer(local) as to:
        with pytest.raises(InvalidEvent, match=message):
            to.put(events)
        assert to.pending == 0


def test_what_looks_like_trouble_but_is_not() -> None:
    event = {"a": None, "b": "2" * 30, "c": 2**63 - 1, "d": -(2**63), "e": [1.5, "null"], "@time": None}
    (put,) = encode({"s": [event]}, lambda: 7)
    assert put.event == {**event, "@time": 7}


def test_a_sink_of_tables_takes_no_events() -> None:
    class Tables(Store):
        takes_puts = False

    local = Local(Tables())
    to = writer(local)
    with pytest.raises(DeliveryRefused, match="takes tables only"):
        to.attach()
    to.close(0.0)
    local.end()


def test_a_task_may_await_room(local: Local, store: Store) -> None:
    store.open.clear()
    to = writer(local, buffer_bytes=100)

    async def main() -> None:
        waited = asyncio.create_task(fill())
        await asyncio.sleep(0.05)
        assert not waited.done()
        store.open.set()
        await asyncio.wait_for(waited, DEADLINE)

    async def fill() -> None:
        for n in range(20):
            await to.put_async({"a": [{"n": n}]})

    asyncio.run(main())
    to.close(DEADLINE)
    assert [event["n"] for _, event in store.events] == list(range(20))


AT_EXIT = """
from actors.batch import Receipt
from actors.writer.puts import EventWriter
from protocols.accumulator import Limits

class Printing:
    def attach(self, feed, owner):
        pass

    def write(self, owner, block, previous, batches):
        for batch in batches:
            print(batch.stream, batch.rows["event"].to_pylist(), flush=True)
        return Receipt(0)

    def leave(self, feed):
        print("left")

EventWriter("p/s", Printing(), Limits(linger=1000.0)).put({"a": [{"@time": 1, "n": 1}], "b": [{"@time": 2}]})
"""


def test_what_is_buffered_is_flushed_at_exit() -> None:
    done = subprocess.run([sys.executable, "-c", AT_EXIT], capture_output=True, text=True, timeout=60)
    lines = ['a [\'{"@time":1,"n":1}\']', "b ['{\"@time\":2}']", "left"]
    assert (done.stdout.splitlines(), done.returncode) == (lines, 0), done.stderr


def test_callers_that_left_are_forgotten(local: Local) -> None:
    def feeds() -> Any:
        return local.writer.status()["callers"]

    one = writer(local)
    one.put({"a": [{}]})
    one.flush(DEADLINE)
    assert feeds() == 1
    one.close(DEADLINE)
    two = writer(local)
    two.put({"a": [{}]})
    two.close(DEADLINE)
    three = writer(local)
    three.attach()
    assert feeds() == 1
    three.close(DEADLINE)
