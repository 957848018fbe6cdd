"""The store against a list of events, in a stateful Hypothesis test with tiny chunks and pages."""

from __future__ import annotations

import itertools
import zlib
from collections import defaultdict
from pathlib import Path
from typing import Any
from unittest.mock import patch

import orjson
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule

from protocols.kronos import wire
from protocols.kronos.server import store as store_module
from protocols.kronos.server.events import Encoder, key_of_line
from protocols.kronos.server.store import Store, connect
from protocols.kronos.wire import Range


def prefixes_of_equal_salt(count: int) -> list[str]:
    """Feeds whose events of equal time and offset get the same tail."""
    seen: dict[int, list[str]] = defaultdict(list)
    for epoch in range(1_000_000):
        prefix = f"p/f/{epoch}"
        group = seen[zlib.crc32(prefix.encode()) % 65536]
        group.append(prefix)
        if len(group) == count:
            return group
    raise AssertionError("no prefixes of equal salt")


COLLIDING = prefixes_of_equal_salt(4)
PREFIXES = [*COLLIDING[:3], "p/g/1", ""]

times = st.one_of(
    st.integers(-3, 12), st.sampled_from([wire.MIN_TIME, wire.MIN_TIME + 1, wire.MAX_TIME - 1, wire.MAX_TIME])
)
offsets = st.one_of(
    st.integers(0, 2), st.integers(0, 30), st.sampled_from([2**44 - 1, 2**44, 10**18 - 1, 10**18])
)
origins = st.one_of(
    st.builds("{}/{}".format, st.sampled_from(PREFIXES), offsets),
    st.sampled_from(["opaque", "a/07", "a/", "a/7", "7", "é/1", "a/٣", "a/-1", "\u0000"]),
)
new_events = st.lists(st.tuples(times, st.one_of(st.none(), origins)), max_size=25)


class StoreAgainstList(RuleBasedStateMachine):
    ids = Bundle("ids")

    def __init__(self) -> None:
        super().__init__()
        self.patches = [
            patch.object(store_module, "CHUNK_BYTES", 400),
            patch.object(store_module, "SMALL_CHUNK_BYTES", 200),
            patch.object(store_module, "PAGE_BYTES", 500),
        ]
        for each in self.patches:
            each.start()
        self.connection = connect(Path(":memory:"))
        self.store = Store(self.connection)
        self.encoder = Encoder()
        self.model: list[dict[str, Any]] = []  # in order of insertion
        self.ids_given: dict[int, str] = {}
        self.serial = 0

    def teardown(self) -> None:
        self.connection.close()
        for each in self.patches:
            each.stop()

    def read(self, low: int, high: int, limit: int = 10**9, descending: bool = False) -> list[dict[str, Any]]:
        stream = self.store.stream_id("k", "s")
        rest: tuple[int, int] | None = (low, high)
        lines: list[bytes] = []
        while stream is not None and rest is not None:
            page = self.store.page(stream, rest, limit - len(lines), descending)
            new = page.data.splitlines()
            assert len(new) == page.lines
            lines += new
            rest = page.rest
        return [orjson.loads(line) for line in lines]

    def everything(self) -> list[dict[str, Any]]:
        return self.read(wire.first_key(wire.MIN_TIME), wire.first_key(wire.MAX_TIME + 1))

    @rule(events=new_events, big=st.integers(0, 3))
    def put(self, events: list[tuple[int, str | None]], big: int) -> None:
        documents, expected = [], []
        held = {event["@origin"] for event in self.model if "@origin" in event}
        for time, origin in events:
            document = {"@time": time, "n": self.serial, "text": "é" * (big * 20)}
            self.serial += 1
            if origin is not None:
                document["@origin"] = origin
            documents.append(document)
            expected.append(origin is None or origin not in held)
            if expected[-1]:
                held.add(origin or "")
                self.model.append(dict(document))
        errors: list[str] = []
        batch = self.encoder.encode(documents, errors)
        assert errors == []
        assert self.store.put("k", "s", batch) == expected

    @rule(data=st.data(), start=times, end=times, by_id=st.booleans())
    def delete(self, data: st.DataObject, start: int, end: int, by_id: bool) -> None:
        stored = self.everything()
        low = wire.first_key(start)
        if by_id and stored:
            low = wire.first_key_after(data.draw(st.sampled_from(stored))["@id"])
        high = wire.first_key(end + 1)
        gone = {event["n"] for event in stored if low <= wire.key_of_id(event["@id"]) < high}
        assert self.store.delete("k", Range("s", low, high)) == len(gone)
        self.model = [event for event in self.model if event["n"] not in gone]

    @rule(
        data=st.data(),
        start=times,
        end=times,
        by_id=st.booleans(),
        limit=st.integers(1, 40),
        down=st.booleans(),
    )
    def get(self, data: st.DataObject, start: int, end: int, by_id: bool, limit: int, down: bool) -> None:
        stored = self.everything()
        expected = [event for event in stored if event["@time"] <= end]
        low = wire.first_key(start)
        if by_id and stored:
            place = data.draw(st.integers(0, len(stored) - 1))
            low = wire.first_key_after(stored[place]["@id"])
            expected = expected[place + 1 :]
        else:
            expected = [event for event in expected if event["@time"] >= start]
        if down:
            expected.reverse()
        assert self.read(low, wire.first_key(end + 1), limit, down) == expected[:limit]

    @precondition(lambda self: self.model)
    @rule(limit=st.integers(1, 5))
    def page_through_by_start_id(self, limit: int) -> None:
        stored = self.everything()
        low, found = wire.first_key(wire.MIN_TIME), []
        while page := self.read(low, wire.first_key(wire.MAX_TIME + 1), limit):
            found += page
            low = wire.first_key_after(page[-1]["@id"])
        assert found == stored

    @invariant()
    def holds_the_model_in_order(self) -> None:
        stored = self.everything()
        assert sorted(event["n"] for event in stored) == [event["n"] for event in self.model]
        by_serial = {event["n"]: event for event in self.model}
        for event in stored:
            event_id = event.pop("@id")
            assert event == by_serial[event["n"]]
            assert self.ids_given.setdefault(event["n"], event_id) == event_id
        assert [e["@time"] for e in stored] == sorted(e["@time"] for e in stored)
        plain = [(e["@time"], e["n"]) for e in stored if "@origin" not in e]
        assert plain == sorted(plain)
        with_offset = [
            (e["@time"], int(e["@origin"][6:])) for e in stored if e.get("@origin", "").startswith("p/g/1/")
        ]
        with_offset = [pair for pair in with_offset if pair[1] < 2**44]
        assert with_offset == sorted(with_offset)

    @invariant()
    def chunks_do_not_overlap(self) -> None:
        rows = self.connection.execute(
            "SELECT first, last, count, data FROM chunks ORDER BY first"
        ).fetchall()
        before = ""
        for first, last, count, data in rows:
            keys = [key_of_line(line) for line in data.splitlines()]
            assert before < first
            assert (keys[0], keys[-1], len(keys)) == (int(first, 16), int(last, 16), count)
            assert keys == sorted(set(keys))
            before = last
        ranges = self.connection.execute("SELECT * FROM origin_ranges ORDER BY prefix, start").fetchall()
        for (_, prefix, _, stop), (_, next_prefix, start, _) in itertools.pairwise(ranges):
            assert prefix != next_prefix or stop < start


StoreAgainstList.TestCase.settings = settings(max_examples=150, stateful_step_count=20, deadline=None)
TestStoreAgainstList = StoreAgainstList.TestCase


@pytest.mark.parametrize("together", [True, False])
def test_equal_tails_get_ids_of_their_own(monkeypatch: pytest.MonkeyPatch, together: bool) -> None:
    monkeypatch.setattr(store_module, "CHUNK_BYTES", 1)
    monkeypatch.setattr(store_module, "SMALL_CHUNK_BYTES", 0)
    connection = connect(Path(":memory:"))
    store, encoder = Store(connection), Encoder()
    events = [{"@time": 1, "@origin": f"{prefix}/0"} for prefix in COLLIDING]
    for part in [events] if together else [[event] for event in events]:
        assert all(store.put("k", "s", encoder.encode(part, [])))
    stream = store.stream_id("k", "s")
    assert stream is not None
    page = store.page(stream, (wire.first_key(0), wire.first_key(2)), 10, False)
    stored = [orjson.loads(line) for line in page.data.splitlines()]
    assert {event["@origin"] for event in stored} == {event["@origin"] for event in events}
    tails = [wire.key_of_id(event["@id"]) for event in stored]
    assert tails == list(range(tails[0], tails[0] + 4))
    connection.close()


def test_a_long_feed_costs_one_range_and_full_chunks(tmp_path: Path) -> None:
    connection = connect(tmp_path / "events.sqlite")
    store, encoder = Store(connection), Encoder()
    for first in range(0, 5000, 100):
        events = [{"@time": i, "@origin": f"p/f/1/{i}", "x": "y" * 100} for i in range(first, first + 100)]
        connection.execute("BEGIN")
        store.put("k", "s", encoder.encode(events, []))
        connection.execute("COMMIT")
    assert connection.execute("SELECT prefix, start, stop FROM origin_ranges").fetchall() == [
        ("p/f/1", 0, 5000)
    ]
    assert connection.execute("SELECT sum(count) FROM chunks").fetchone() == (5000,)
    for i in range(5000, 5400):
        connection.execute("BEGIN")
        store.put("k", "s", encoder.encode([{"@time": i, "@origin": f"p/f/1/{i}", "x": "y" * 100}], []))
        connection.execute("COMMIT")
    assert connection.execute("SELECT count(*) FROM chunks").fetchone()[0] < 65
    connection.close()


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "events.sqlite"
    path.write_bytes(b"not a database, but long enough to be looked at" * 50)
    with pytest.raises(OSError, match="not a usable event store"):
        connect(path)
