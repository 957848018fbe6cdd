"""Types of rows, watched by a whole receiver: a fake stream whose table the test alters, a real spool, real decoder."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import fastavro
import pytest

from actors.backoff import Backoff
from actors.block import Block
from actors.codec.decoder import Decoder
from actors.monitor import asker, receiver, typewatch
from actors.monitor.kinetica import block_schema
from actors.monitor.receiver import Receiver
from actors.monitor.source import Described, SourceLost, Switched, TableGone
from actors.monitor.spool import Position, Spool
from protocols.kinetica.types import Column, TableType
from tests.actors.monitor.fakes import DEADLINE, FakeSource, FakeStream, monitor_settings, wait_for


def described(*columns: str) -> Described:
    """A type with a long ``id`` and nullable texts."""
    table_type = TableType((Column("id", "long"), *(Column(name, "string", True) for name in columns)))
    type_id = "/".join(columns)
    return Described(type_id, block_schema(table_type.definition, {}, type_id))


def row(number: int, *texts: str) -> bytes:
    """A row with as many text columns as `texts`."""
    fields: list[Any] = [{"name": "id", "type": "long"}]
    fields += [{"name": f"c{i}", "type": ["string", "null"]} for i in range(len(texts))]
    out = io.BytesIO()
    record = {"id": number, **{f"c{i}": text for i, text in enumerate(texts)}}
    fastavro.schemaless_writer(
        out, fastavro.parse_schema({"type": "record", "name": "r", "fields": fields}), record
    )
    return out.getvalue()


A, B, C = described("a"), described("b"), described("b", "c")
NONE = described()


class TypedStream(FakeStream):
    """A stream of a table with a type. While `away` is set nobody gets an answer."""

    def __init__(self, table: Described, topics: Sequence[str] = ("topic",)) -> None:
        super().__init__(topics=topics)
        self.schemas = {"insert": table.schema}
        self.described = table  # type: ignore[assignment]
        self.table = table
        self.away: Exception | None = None
        self.answers: list[Described] = []  # given before `table`
        self.asked = 0
        self.renewed: list[str] = []
        self.discarded: list[str] = []
        self.followed: list[tuple[str, Described]] = []
        self.rows: dict[object, list[bytes]] = {}

    def insert(self, *frames: bytes) -> None:
        self.put(("insert", list(frames)))

    def switch(self, back: int) -> None:
        with self._changed:
            self._items.append(Switched(back))  # type: ignore[arg-type]
            self._changed.notify()

    def describe(self) -> Described:
        self.asked += 1
        if self.away is not None:
            raise self.away
        return self.answers.pop(0) if self.answers else self.table

    def renew(self) -> str:
        self.renewed.append(f"topic {len(self.renewed) + 1}")
        return self.renewed[-1]

    def discard(self, topic: str) -> None:
        self.discarded.append(topic)

    def follow(self, topic: str, described: Described) -> None:
        self.followed.append((topic, described))

    def reread(
        self, described: Described, column: str, values: Sequence[object]
    ) -> list[tuple[object, bytes]]:
        assert (described, column) == (self.table, "id")
        return [(value, frame) for value in values for frame in self.rows.get(value, ())]

    def wake(self) -> None:
        pass


AWAY = SourceLost("no answer")


class Work:
    """A receiver on its thread, over a spool that outlives it."""

    def __init__(self, spool: Path, source: FakeSource, **changes: Any) -> None:
        self.spool = Spool(spool)
        self.receiver = Receiver(monitor_settings(spool, **changes), source, self.spool, lambda feeds: None)
        self.error: Exception | None = None
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.receiver.run()
        except Exception as error:
            self.error = error

    def rows(self, feed: str = "t") -> list[dict[str, Any]]:
        """What may be delivered, decoded."""
        found: list[dict[str, Any]] = []
        position, block = Position(), self.spool.next_block(feed, Position())
        while block is not None:
            assert Position(block.epoch, block.offset) >= position
            found += Decoder().decode(block).rows.to_pylist()
            position = Position(block.epoch, block.end)
            block = self.spool.next_block(feed, position)
        return found

    @property
    def changes(self) -> list[dict[str, Any]]:
        return [event for event in self.rows("t.changes") if event["event"].startswith("table_")]

    def waits_for(self, *rows: dict[str, Any]) -> None:
        wait_for(lambda: self.rows() == list(rows), f"{self.rows()} instead of {rows}")

    def stop(self) -> None:
        self.receiver.stop()
        self.thread.join(DEADLINE)
        assert not self.thread.is_alive()
        self.spool.close()


Begin = Callable[..., Work]


@pytest.fixture
def begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Begin]:
    monkeypatch.setattr(receiver, "SLICE", 0.01)
    monkeypatch.setattr(receiver, "Backoff", lambda initial, cap: Backoff(0.001, 0.004))
    monkeypatch.setattr(asker, "POLL_INTERVAL", 0.01)
    monkeypatch.setattr(asker, "MIN_INTERVAL", 0.001)
    monkeypatch.setattr(typewatch, "LATE", DEADLINE)
    running: list[Work] = []

    def begin(*streams: FakeStream | Exception, **changes: Any) -> Work:
        running.append(Work(tmp_path / "spool", FakeSource(*streams), **changes))
        return running[-1]

    yield begin
    for each in running:
        each.stop()


def doubt(stream: TypedStream, work: Work, new: Described, *frames: bytes) -> None:
    """Have `frames` received, none of them proven, and the table be altered to `new` meanwhile."""
    received = work.receiver.received
    stream.away = AWAY
    asked = stream.asked
    wait_for(lambda: stream.asked > asked + 1)
    stream.insert(*frames)
    wait_for(lambda: work.receiver.received == received + len(frames))
    stream.table, stream.away = new, None
    wait_for(lambda: stream.followed and stream.followed[-1][1] == new)


def test_rows_wait_until_their_type_is_proven(begin: Begin) -> None:
    stream = TypedStream(A)
    stream.away = AWAY
    work = begin(stream)
    stream.insert(row(1, "x"))
    wait_for(lambda: work.spool.in_doubt("t"))
    wait_for(lambda: work.receiver.problem)
    assert "could not be asked for: no answer" in str(work.receiver.problem)
    assert work.rows() == []
    stream.away = None
    work.waits_for({"id": 1, "a": "x"})
    wait_for(lambda: work.receiver.problem is None)
    assert not work.spool.in_doubt("t")
    assert work.changes == []


POLICIES: list[tuple[dict[str, str], list[dict[str, Any]], int]] = [
    ({}, [], 2),
    ({"ambiguous": "old"}, [{"id": 2, "a": "x2"}, {"id": 3, "a": "x3"}], 0),
    ({"ambiguous": "new"}, [{"id": 2, "b": "x2"}, {"id": 3, "b": "x3"}], 0),
    ({"increasing_column": "id"}, [{"id": 2, "b": "now 2"}, {"id": 3, "b": "now 3"}], 0),
]


@pytest.mark.parametrize(("settings", "middle", "rejected"), POLICIES, ids=["reject", "old", "new", "reread"])
def test_a_rename_among_rows(
    begin: Begin, settings: dict[str, str], middle: list[dict[str, Any]], rejected: int
) -> None:
    stream = TypedStream(A)
    work = begin(stream, **settings)
    stream.insert(row(1, "x1"))
    work.waits_for({"id": 1, "a": "x1"})
    stream.rows = {2: [row(2, "now 2")], 3: [row(3, "now 3")]}
    doubt(stream, work, B, row(2, "x2"), row(3, "x3"))
    stream.insert(row(4, "x4"))
    stream.switch(back=1)
    stream.insert(row(5, "x5"))
    work.waits_for({"id": 1, "a": "x1"}, *middle, {"id": 4, "b": "x4"}, {"id": 5, "b": "x5"})
    (event,) = work.changes
    assert event["event"] == "table_altered"
    assert (event["added"], event["removed"]) == (["b string(nullable)"], ["a string(nullable)"])
    assert event["new_columns"] == ["id long", "b string(nullable)"]
    reread = 2 if "increasing_column" in settings else 0
    assert (event["ambiguous"], event["reread"], event["ambiguous_rejected"]) == (2, reread, rejected)
    assert event["first_ambiguous"] == f"t/{work.receiver.epoch}/1"
    assert work.spool.dead_letters() == rejected
    assert stream.renewed == ["topic 1"]  # fetched once, not once per record


def test_a_row_that_is_there_twice_or_not_at_all_is_not_read_again(begin: Begin) -> None:
    stream = TypedStream(A)
    work = begin(stream, increasing_column="id")
    stream.rows = {1: [row(1, "p"), row(1, "q")], 3: [row(3, "now 3")]}
    doubt(stream, work, B, *(row(number, "x") for number in (1, 2, 3, 4, 4)))
    stream.switch(back=0)
    work.waits_for({"id": 3, "b": "now 3"})
    (event,) = work.changes
    assert (event["ambiguous"], event["reread"], event["ambiguous_rejected"]) == (5, 1, 4)


def test_rows_that_bytes_tell_are_never_in_doubt(begin: Begin) -> None:
    stream = TypedStream(B)
    work = begin(stream)
    doubt(stream, work, C, row(1, "x"), row(2, "x", "y"))
    stream.switch(back=0)
    work.waits_for({"id": 1, "b": "x"}, {"id": 2, "b": "x", "c": "y"})
    assert work.changes[0]["ambiguous"] == 0


def test_rows_in_doubt_for_long_may_be_of_a_type_that_nobody_saw(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Column c was added, then renamed and b dropped: rows in between look like rows of the last type."""
    monkeypatch.setattr(typewatch, "LATE", 0.0)
    stream = TypedStream(B)
    work = begin(stream, increasing_column="id")
    stream.rows = {2: [row(2, "now b", "now c")]}
    doubt(stream, work, C, row(1, "b"), row(2, "x", "y"), b"of no known type")
    stream.insert(row(3, "b", "c"))
    stream.switch(back=1)
    work.waits_for({"id": 2, "b": "now b", "c": "now c"}, {"id": 3, "b": "b", "c": "c"})
    (event,) = work.changes
    assert (event["ambiguous"], event["reread"], event["ambiguous_rejected"]) == (3, 1, 2)
    assert work.spool.dead_letters() == 2


def test_a_change_without_rows_is_settled_after_a_while(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(typewatch, "QUIET", 0.02)
    stream = TypedStream(A)
    work = begin(stream)
    stream.table = B
    wait_for(lambda: len(work.changes) == 1)
    stream.insert(row(1, "x"))
    work.waits_for({"id": 1, "b": "x"})
    stream.switch(back=1)  # when the topic sets in after all
    stream.insert(row(2, "y"))
    work.waits_for({"id": 1, "b": "x"}, {"id": 2, "b": "y"})
    assert len(work.changes) == 1


def test_two_alterations_before_the_first_has_set_in_are_followed_one_after_the_other(begin: Begin) -> None:
    stream = TypedStream(A)
    work = begin(stream)
    doubt(stream, work, B, row(1, "x"))
    stream.table = C
    wait_for(lambda: stream.renewed == ["topic 1", "topic 2"])
    assert len(stream.followed) == 1
    stream.insert(row(2, "b"))
    stream.switch(back=1)
    stream.insert(row(3, "b", "c"))
    wait_for(lambda: len(stream.followed) == 2)
    stream.switch(back=1)
    work.waits_for({"id": 2, "b": "b"}, {"id": 3, "b": "b", "c": "c"})
    assert [(e["added"], e["ambiguous"]) for e in work.changes] == [
        (["b string(nullable)"], 1),
        (["c string(nullable)"], 0),
    ]


def test_an_alteration_while_the_topic_is_made_needs_another_topic(begin: Begin) -> None:
    """Column a is deleted and b added: rows of the last type look like those of the first."""
    stream = TypedStream(A)
    work = begin(stream)
    doubt_rows = (row(1, "a"), row(2, "b"))
    stream.away = AWAY
    wait_for(lambda: stream.asked > 2)
    stream.insert(*doubt_rows)
    wait_for(lambda: work.receiver.received == 2)
    stream.answers, stream.table = [NONE], B
    stream.away = None
    wait_for(lambda: stream.followed == [("topic 2", B)])
    assert stream.discarded == ["topic 1"]
    stream.insert(row(3, "b"))
    stream.switch(back=1)
    work.waits_for({"id": 3, "b": "b"})
    (event,) = work.changes
    assert (event["old_type_id"], event["new_type_id"], event["ambiguous_rejected"]) == ("a", "b", 2)


def test_freeze_parks_the_table_until_a_person_resumes_it(begin: Begin) -> None:
    stream = TypedStream(A)
    work = begin(stream, contract="freeze")
    doubt(stream, work, C, row(1, "x"), row(2, "x", "y"))
    stream.switch(back=0)
    work.waits_for({"id": 1, "a": "x"})
    wait_for(lambda: work.receiver.frozen)
    assert "t was altered; `tablecast resume` goes on" in str(work.receiver.frozen)
    stream.insert(row(3, "x", "y"))
    wait_for(lambda: not work.spool.in_doubt("t"))
    assert work.rows() == [{"id": 1, "a": "x"}]
    # Altered further while frozen, and the monitor started afresh.
    doubt(stream, work, B, row(4, "z"))
    stream.switch(back=0)
    wait_for(lambda: len(work.changes) == 2)
    work.stop()
    again = begin(TypedStream(B), contract="freeze")
    wait_for(lambda: again.receiver.frozen)
    assert again.rows() == [{"id": 1, "a": "x"}]
    assert again.receiver.resume()
    rest = [{"id": 2, "b": "x", "c": "y"}, {"id": 3, "b": "x", "c": "y"}, {"id": 4, "b": "z"}]
    again.waits_for({"id": 1, "a": "x"}, *rest)
    wait_for(lambda: again.receiver.frozen is None)
    assert not again.receiver.resume()


def test_discard_columns_keeps_those_of_the_first_day(begin: Begin) -> None:
    stream = TypedStream(B)
    work = begin(stream, contract="discard_columns")
    stream.insert(row(1, "x"))
    work.waits_for({"id": 1, "b": "x"})
    doubt(stream, work, C, row(2, "x", "y"))
    stream.switch(back=0)
    work.waits_for({"id": 1, "b": "x"}, {"id": 2, "b": "x"})
    work.stop()
    later = TypedStream(C)  # the columns that were kept are remembered
    again = begin(later, contract="discard_columns")
    later.insert(row(3, "x", "y"))
    again.waits_for({"id": 1, "b": "x"}, {"id": 2, "b": "x"}, {"id": 3, "b": "x"})


def test_an_alteration_while_nobody_was_there(begin: Begin) -> None:
    stream = TypedStream(A)
    work = begin(stream)
    stream.insert(row(1, "x"))
    work.waits_for({"id": 1, "a": "x"})
    stream.away = AWAY
    asked = stream.asked
    wait_for(lambda: stream.asked > asked + 1)
    stream.insert(row(2, "x"), row(3, "x", "y"))
    wait_for(lambda: work.receiver.received == 3)
    work.stop()
    later = TypedStream(C)
    again = begin(later)
    later.insert(row(4, "x", "y"))
    rest = [{"id": 2, "a": "x"}, {"id": 3, "b": "x", "c": "y"}, {"id": 4, "b": "x", "c": "y"}]
    again.waits_for({"id": 1, "a": "x"}, *rest)
    assert len(again.changes) == 1
    again.stop()
    third = begin(TypedStream(C))
    wait_for(lambda: third.receiver.state == "receiving")
    assert len(third.changes) == 1  # told once


def test_an_alteration_just_before_the_stop_is_settled_at_the_stop(begin: Begin) -> None:
    stream = TypedStream(B)
    work = begin(stream)
    wait_for(lambda: stream.asked)
    stream.away = AWAY
    asked = stream.asked
    wait_for(lambda: stream.asked > asked + 1)
    stream.insert(row(1, "x"), row(2, "x", "y"))
    wait_for(lambda: work.receiver.received == 2)
    work.receiver.stop()
    stream.table, stream.away = C, None
    work.thread.join(DEADLINE)
    work.waits_for({"id": 1, "b": "x"}, {"id": 2, "b": "x", "c": "y"})
    assert not work.spool.in_doubt("t")


def test_a_dropped_table_is_an_event_and_followed_again_when_it_is_back(begin: Begin) -> None:
    stream, again = TypedStream(A), TypedStream(B)
    gone = TableGone("no table t")
    work = begin(stream, gone, gone, gone, gone, gone, again)
    stream.away = AWAY
    stream.insert(row(1, "x"))
    wait_for(lambda: work.receiver.received == 1)
    stream.away = gone
    wait_for(lambda: work.receiver.state == "dropped" or again in work.receiver._source.opened)
    work.waits_for({"id": 1, "a": "x"})
    assert work.changes[0] == {"event": "table_dropped", "table": "t", "problem": "no table t"}
    again.insert(row(2, "y"))
    work.waits_for({"id": 1, "a": "x"}, {"id": 2, "b": "y"})
    assert work.receiver.state == "receiving"


def test_a_defect_of_the_asker_does_not_leave_rows_waiting_in_silence(begin: Begin) -> None:
    stream = TypedStream(A)
    work = begin(stream)
    wait_for(lambda: stream.asked)
    stream.away = ZeroDivisionError("a defect")
    work.thread.join(DEADLINE)
    assert isinstance(work.error, ZeroDivisionError)
    assert stream.closed


def test_what_a_killed_process_left_held_is_proven_without_receiving(begin: Begin, tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    spool.hold("t", Position(1, 0))
    spool.see("t", A.schema, None)
    payload = b"\x91" + b"\xc4" + bytes([len(row(1, "x"))]) + row(1, "x")
    spool.append([Block("t", 1, 0, 1, 1, "avro", A.schema, payload)])
    stream = TypedStream(A)
    source = FakeSource(SourceLost("not yet"), stream)
    work = Receiver(monitor_settings(tmp_path / "spool"), source, spool, lambda feeds: None)
    work._backoff = Backoff(0.001, 0.002)
    assert spool.next_block("t", Position()) is None
    work.release(threading.Event())
    assert spool.next_block("t", Position()) is not None
    assert stream.closed
    assert not spool.in_doubt("t")
    spool.close()


def test_a_question_that_hangs_does_not_keep_a_stream_from_ending(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asker, "STOP_PATIENCE", 0.01)
    hangs = threading.Event()

    class Hanging(TypedStream):
        def describe(self) -> Described:
            if threading.current_thread().name == "type-asker":
                self.asked += 1
                hangs.wait(DEADLINE)
            return super().describe()

    stream = Hanging(A)
    work = begin(stream)
    wait_for(lambda: stream.asked)
    work.receiver.stop()
    work.thread.join(DEADLINE / 2)
    assert not work.thread.is_alive()
    hangs.set()
