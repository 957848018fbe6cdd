"""Table monitors: what is published, and that the official monitor client can use them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import gpudb
import pytest
import zmq
from gpudb import GPUdbTableMonitor

from protocols.kinetica.server import TableServer

Make = Callable[..., Any]

DEADLINE = 60.0


def message(reply: Any) -> str:
    assert reply["status_info"]["status"] == "ERROR"
    return str(reply["status_info"]["message"])


class Subscriber:
    """A SUB socket; every subscription is in effect when the call returns."""

    def __init__(self, db: gpudb.GPUdb, server: TableServer) -> None:
        self._db = db
        self._probes: set[str] = set()
        self._context = zmq.Context()
        self.socket = self._context.socket(zmq.SUB)
        self.socket.set(zmq.RCVTIMEO, int(DEADLINE * 1000))
        self.socket.set(zmq.LINGER, 0)
        self.socket.connect(f"tcp://127.0.0.1:{server.monitor_port}")

    def subscribe(self, *topics: str) -> None:
        for topic in topics:
            self.socket.subscribe(topic)
        # Subscriptions take effect in order: once a probe comes through, so do those before it.
        probe = gpudb.GPUdbTable([["id", "int"]], "ki_home.probe", db=self._db)
        monitor = self._db.create_table_monitor("ki_home.probe")["topic_id"]
        self.socket.subscribe(monitor)
        deadline = time.monotonic() + DEADLINE
        while not self.socket.poll(20):
            assert time.monotonic() < deadline
            probe.insert_records([[1]])
        probe.clear()
        self._probes.add(monitor)

    def receive(self) -> tuple[str, list[bytes]]:
        """The next message that is not a probe's."""
        while True:
            topic, *frames = self.socket.recv_multipart()
            if topic.decode() not in self._probes:
                return topic.decode(), frames

    def close(self) -> None:
        self.socket.close()
        self._context.term()


@pytest.fixture
def subscriber(db: gpudb.GPUdb, server: TableServer) -> Iterator[Subscriber]:
    made = Subscriber(db, server)
    yield made
    made.close()


def test_all_kinds_and_upserts(db: gpudb.GPUdb, make_table: Make, subscriber: Subscriber) -> None:
    table = make_table(["id", "int", "primary_key"], ["s", "string"])
    topics = {
        event: db.create_table_monitor(table.name, {"event": event})["topic_id"]
        for event in ("insert", "update", "delete")
    }
    assert all(len(topic) == 36 for topic in topics.values())
    subscriber.subscribe(*topics.values())
    table.insert_records([[1, "a"], [2, "b"]])
    assert subscriber.receive() == (topics["insert"], [b"\x02\x02a", b"\x04\x02b"])
    table.insert_records([[2, "c"], [3, "d"]], options={"update_on_existing_pk": "true"})
    assert subscriber.receive() == (topics["insert"], [b"\x06\x02d"])
    assert subscriber.receive() == (topics["update"], [b"\x02"])
    table.insert_records([[3, "x"], [4, "e"]], options={"ignore_existing_pk": "true"})
    assert subscriber.receive() == (topics["insert"], [b"\x08\x02e"])
    # Nothing is published for what did not happen.
    table.insert_records([[3, "x"]], options={"ignore_existing_pk": "true"})
    db.insert_records(table.name, [b"\x0a\x02f"], options={"dry_run": "true"})
    assert message(db.insert_records(table.name, [b"\x0a\x02f", b""]))
    table.update_records(["id = 99"], [{"s": "x"}])
    table.delete_records(["id = 99"])
    table.alter_table("add_column", "n", {"column_type": "int", "column_properties": "nullable"})
    table.update_records(["id < 3", "id = 4"], [{"s": "y"}, {"s": "z"}])
    assert subscriber.receive() == (topics["update"], [b"\x06"])
    table.delete_records(["id < 3"])
    assert subscriber.receive() == (topics["delete"], [b"\x04"])
    table.insert_records([[9, "g", None]])
    assert subscriber.receive() == (topics["insert"], [b"\x12\x02g\x02"])
    db.update_records(
        table.name,
        ["id = 10"],
        [{"s": "x"}],
        records_to_insert_str=['{"id": 10, "s": "h"}'],
        record_encoding="json",
    )
    assert subscriber.receive() == (topics["insert"], [b"\x14\x02h\x02"])


def test_filter_expression(db: gpudb.GPUdb, make_table: Make, subscriber: Subscriber) -> None:
    table = make_table(["id", "int"], ["s", "string", "nullable"])
    topic = db.create_table_monitor(table.name, {"expression": "id > 1 and s is not null"})["topic_id"]
    subscriber.subscribe(topic)
    table.insert_records([[1, "a"], [5, None]])
    table.insert_records([[1, "a"], [2, "b"], [3, None], [4, "d"]])
    assert subscriber.receive() == (topic, [b"\x04\x00\x02b", b"\x08\x00\x02d"])
    with pytest.raises(gpudb.GPUdbException, match="no such column"):
        table.alter_table("delete_column", "s")
    assert len(table) == 6


def test_an_expression_that_fails_on_a_row_does_not_fail_the_insert(
    subscriber: Subscriber, db: gpudb.GPUdb, make_table: Make
) -> None:
    table = make_table(["id", "long"])
    topic = db.create_table_monitor(table.name, {"expression": "abs(id) > 0"})["topic_id"]
    subscriber.subscribe(topic)
    table.insert_records([[-(2**63)]])  # whose absolute value is no 64-bit integer
    table.insert_records([[1]])
    assert subscriber.receive() == (topic, [b"\x02"])
    assert len(table) == 2


def test_large_batches_are_split(subscriber: Subscriber, db: gpudb.GPUdb, make_table: Make) -> None:
    table = make_table(["id", "int"])
    topic = db.create_table_monitor(table.name)["topic_id"]
    subscriber.subscribe(topic)
    table.insert_records([[i % 64] for i in range(12_000)])
    parts = [subscriber.receive()[1] for _ in range(3)]
    assert [len(part) for part in parts] == [5000, 5000, 2000]
    assert [frame for part in parts for frame in part] == [bytes([2 * (i % 64)]) for i in range(12_000)]


def test_suspend_and_resume(subscriber: Subscriber, db: gpudb.GPUdb, make_table: Make) -> None:
    table = make_table(["id", "int"])
    topic = db.create_table_monitor(table.name)["topic_id"]
    subscriber.subscribe(topic)
    db.alter_table_monitor(topic, {"notifications": "suspend"})
    assert db.show_table_monitors([topic])["statuses"] == ["suspended"]
    table.insert_records([[1]])
    db.alter_table_monitor(topic, {"notifications": "resume"})
    table.insert_records([[2]])
    assert subscriber.receive() == (topic, [b"\x04"])
    assert "only notifications" in message(db.alter_table_monitor(topic, {"schema_name": "x"}))


def test_show_and_clear(db: gpudb.GPUdb, make_table: Make) -> None:
    table = make_table(["id", "int"])
    options = {"event": "insert", "monitor_id": "mine", "increasing_column": "id", "expression": "id > 1"}
    assert db.create_table_monitor(table.name, options)["topic_id"] == "mine"
    assert "exists already" in message(db.create_table_monitor(table.name, options))
    shown = db.show_table_monitors(["mine"])
    assert (shown["table_names"], shown["events"]) == ([table.name], ["insert"])
    assert (shown["increasing_columns"], shown["filter_expressions"]) == (["id"], ["id > 1"])
    assert "mine" in db.show_table_monitors([""])["monitor_ids"]
    assert "mine" in db.show_table_monitors([])["monitor_ids"]
    db.clear_table_monitor("mine")
    assert "not found" in message(db.clear_table_monitor("mine"))
    assert "not found" in message(db.show_table_monitors(["mine"]))
    for options, why in (
        ({"event": "truncate"}, "event is"),
        ({"expression": "nope > 1"}, "no such column"),
        ({"event": "delete", "expression": "id > 1"}, "inserts only"),
        ({"increasing_column": "nope"}, "no column"),
        ({"datasink_name": "sink"}, "not supported"),
        ({"refresh_method": "periodic"}, "refresh_method"),
    ):
        assert why in message(db.create_table_monitor(table.name, options))
    assert "not found" in message(db.create_table_monitor("nope"))


def test_monitors_end_with_their_table(db: gpudb.GPUdb, make_table: Make) -> None:
    table = make_table(["id", "int"])
    topic = db.create_table_monitor(table.name)["topic_id"]
    db.alter_table(table.name, "rename_table", "ki_home.moved")
    assert db.show_table_monitors([topic])["table_names"] == ["ki_home.moved"]
    db.clear_table("ki_home.moved")
    gpudb.GPUdbTable([["id", "int"]], "ki_home.moved", db=db)
    assert topic not in db.show_table_monitors([])["monitor_ids"]
    assert "not found" in message(db.clear_table_monitor(topic))
    db.clear_table("ki_home.moved")


def make_client(db: gpudb.GPUdb, name: str, callbacks: list[Any], port: int) -> Any:
    """The official monitor client, whose constructor hangs at random: each try gets a second."""
    options = GPUdbTableMonitor.Options({"monitor_port": port, "inactivity_timeout": 0.005})
    made: list[Any] = []

    def construct() -> None:
        with suppress(gpudb.GPUdbException):
            made.append(GPUdbTableMonitor.Client(db, name, callbacks, options))

    for _ in range(20):
        thread = threading.Thread(target=construct, daemon=True)
        thread.start()
        thread.join(1)
        if made:
            return made[0]
    pytest.fail("the official monitor client could not be constructed in 20 tries")


def test_official_monitor_client(db: gpudb.GPUdb, make_table: Make, server: TableServer) -> None:
    table = make_table(["id", "int"], ["s", "string", "nullable"])
    seen: dict[str, list[Any]] = {}
    changed = threading.Condition()

    def record(kind: str) -> Callable[[Any], None]:
        def callback(value: Any) -> None:
            with changed:
                seen.setdefault(kind, []).append(value)
                changed.notify_all()

        return callback

    def wait(condition: Callable[[], bool], poke: Callable[[], object] = lambda: None) -> None:
        deadline = time.monotonic() + DEADLINE
        with changed:
            while not condition():
                assert time.monotonic() < deadline, seen
                poke()
                changed.wait(0.05)

    kinds = GPUdbTableMonitor.Callback.Type
    callbacks = [
        GPUdbTableMonitor.Callback(kind, record(kind.name), lambda error: None)
        for kind in (
            kinds.INSERT_DECODED,
            kinds.INSERT_RAW,
            kinds.UPDATED,
            kinds.DELETED,
            kinds.TABLE_DROPPED,
        )
    ]
    client = make_client(db, table.name, callbacks, server.monitor_port)
    client.start_monitor()
    # Each of its three subscriptions takes effect in its own time.
    wait(lambda: "INSERT_RAW" in seen, lambda: table.insert_records([[0, None]]))
    wait(lambda: "UPDATED" in seen, lambda: table.update_records(["id = 0"], [{"s": "x"}]))
    wait(
        lambda: "DELETED" in seen,
        lambda: (table.insert_records([[-1, None]]), table.delete_records(["id = -1"])),
    )
    table.insert_records([[7, "é☃"], [8, None]])
    wait(lambda: seen["INSERT_DECODED"][-1]["id"] == 8)
    assert [dict(row) for row in seen["INSERT_DECODED"][-2:]] == [{"id": 7, "s": "é☃"}, {"id": 8, "s": None}]
    assert seen["INSERT_RAW"][-2:] == [b"\x0e\x00\x0a\xc3\xa9\xe2\x98\x83", b"\x10\x02"]
    rows = len(table)
    table.update_records(["1 = 1"], [{"s": "all"}])
    wait(lambda: seen["UPDATED"][-1] == rows)
    table.delete_records(["1 = 1"])
    wait(lambda: seen["DELETED"][-1] == rows)
    table.clear()
    wait(lambda: len(seen.get("TABLE_DROPPED", [])) == 3)
    client.stop_monitor()
    assert table.name not in db.show_table_monitors([])["table_names"]
