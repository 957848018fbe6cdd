"""Gaps, audits, catch-ups and snapshots of a monitor against a real table server."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import orjson
import pytest

from actors.monitor.monitor import Monitor
from protocols.kinetica.client import KineticaClient
from protocols.kinetica.server import TableServer
from tests.actors.monitor.fakes import FakeTransport, monitor_settings, wait_for
from tests.e2e import traffic


class Work:
    """A monitor, the blocks that it delivered in all its lives, and its table's client."""

    def __init__(self, server: TableServer, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.delivered: list[Any] = []
        self.lives: list[tuple[Monitor, FakeTransport]] = []

    def start(self, **changes: Any) -> Monitor:
        values = {
            "table": "t",
            "source": {"urls": [self.server.url], "timeout": 5.0},
            "increasing_column": "id",
            "audit": 0.5,
            **changes,
        }
        transport = FakeTransport()
        monitor = Monitor(monitor_settings(self.folder / "spool", **values), transport)
        monitor.start()
        self.lives.append((monitor, transport))
        wait_for(lambda: monitor.status()["state"] == "receiving", str(monitor.status()))
        return monitor

    def stop(self) -> None:
        for monitor, _ in self.lives:
            monitor.stop()

    def blocks(self, feed: str) -> list[Any]:
        return [block for _, transport in self.lives for block in transport.in_order("a", feed)]

    def frames(self) -> Counter[bytes]:
        return Counter(frame for block in self.blocks("t") for frame in msgpack.unpackb(block.payload))

    def events(self) -> list[dict[str, Any]]:
        return [
            orjson.loads(frame)
            for block in self.blocks("t.changes")
            for frame in msgpack.unpackb(block.payload)
        ]

    def wait_for_rows(self, *numbers: int) -> None:
        expected = Counter(traffic.frame(number) for number in numbers)
        wait_for(
            lambda: sum(self.frames().values()) >= len(numbers),
            f"{sum(self.frames().values())} of {len(numbers)}",
        )
        assert self.frames() == expected


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Work]:
    with TableServer(port=0, monitor_port=0) as server:
        running = Work(server, tmp_path)
        try:
            yield running
        finally:
            running.stop()


@pytest.fixture
def client(work: Work) -> Iterator[KineticaClient]:
    with KineticaClient(work.server.url) as client:
        traffic.create(client, "t")
        yield client


def insert(client: KineticaClient, *numbers: int) -> None:
    client.insert_records("t", [traffic.frame(number) for number in numbers])


def healed(monitor: Monitor, count: int = 1) -> Callable[[], bool]:
    return lambda: monitor.gaps.counts() == {"healed": count}


def test_rows_of_the_time_without_a_monitor_are_fetched(work: Work, client: KineticaClient) -> None:
    insert(client, 1, 2)
    first = work.start()
    insert(client, 3, 4)
    work.wait_for_rows(3, 4)
    first.stop()
    insert(client, 5, 6, 7)
    second = work.start()
    insert(client, 8)
    work.wait_for_rows(*range(3, 9))
    wait_for(healed(second))
    gap = second.gaps.latest(1)[0]
    assert (gap.cause, gap.recovered, gap.missing) == ("the monitor was not running", 3, 0)
    account = second.reconcile(10.0)
    assert (account.baseline, account.inserted, account.shortfall) == (2, 6, 0)
    wait_for(lambda: [event["event"] for event in work.events()] == ["gap_opened", "gap_closed"])


def test_without_an_increasing_column_the_gap_says_how_many_are_missing(
    work: Work, client: KineticaClient
) -> None:
    insert(client, 1, 2)
    first = work.start(increasing_column=None)
    wait_for(lambda: first.gaps.account().baseline == 2)
    insert(client, 3)
    work.wait_for_rows(3)
    first.stop()
    insert(client, 4, 5, 6)
    second = work.start(increasing_column=None)
    wait_for(lambda: second.gaps.counts() == {"unhealed": 1})
    assert second.gaps.latest(1)[0].missing == 3
    assert second.reconcile(10.0).shortfall == 0  # of what is not accounted for


def test_of_a_dropped_table_there_is_nothing_to_audit(work: Work, client: KineticaClient) -> None:
    insert(client, 1)
    monitor = work.start()
    insert(client, 2)
    work.wait_for_rows(2)
    client.clear_table("t")
    wait_for(lambda: monitor.status()["state"] == "dropped")
    began = time.monotonic()
    assert monitor.reconcile(60.0).expected == 0
    assert time.monotonic() < began + 30.0
    source = monitor.conservation()["source"]
    assert (source["audits"], source["dropped"]) == (False, True)


@pytest.mark.parametrize("before", [None, "name", "nothing"])
def test_a_column_that_is_new_delivers_nothing_again(
    work: Work, client: KineticaClient, before: str | None
) -> None:
    insert(client, 8)
    first = work.start(increasing_column=before)
    wait_for(lambda: first.gaps.account().baseline == 1)
    insert(client, 1, 2, 3)
    work.wait_for_rows(1, 2, 3)
    first.stop()
    insert(client, 14, 15)
    second = work.start()
    wait_for(lambda: second.gaps.counts() == {"unhealed": 1}, str(second.status()))
    assert second.gaps.latest(1)[0].missing == 2
    wait_for(lambda: second.status()["catch_up"]["state"] == "done")
    second.stop()
    insert(client, 16)
    third = work.start()
    insert(client, 17)
    work.wait_for_rows(1, 2, 3, 16, 17)
    wait_for(lambda: third.gaps.counts() == {"unhealed": 1, "healed": 1}, str(third.status()))


def test_a_snapshot_and_then_the_changes(work: Work, client: KineticaClient) -> None:
    insert(client, *range(1000))
    stop = threading.Event()
    numbers = list(range(1000))

    def publish() -> None:
        while not stop.wait(0.01):
            insert(client, len(numbers))
            numbers.append(len(numbers))

    thread = threading.Thread(target=publish)
    thread.start()
    monitor = work.start(start="snapshot")
    try:
        wait_for(lambda: sum(work.frames().values()) >= 1100)
    finally:
        stop.set()
        thread.join()
    work.wait_for_rows(*numbers)
    wait_for(lambda: monitor.status()["catch_up"]["state"] == "done")
    account = monitor.reconcile(10.0)
    assert (account.baseline, account.inserted, account.shortfall) == (0, len(numbers), 0)
    assert monitor.gaps.latest(9) == []


def test_messages_dropped_in_mid_stream_are_found_by_the_audit(work: Work, client: KineticaClient) -> None:
    monitor = work.start(events=("insert",))
    insert(client, 1, 2, 3)
    work.wait_for_rows(1, 2, 3)
    wait_for(lambda: monitor.status()["catch_up"]["state"] == "done")
    (topic,) = [each.topic_id for each in client.show_table_monitors() if each.event == "insert"]

    def notifications(what: str) -> None:
        client.call("/alter/tablemonitor", topic_id=topic, monitor_updates_map={"notifications": what})

    notifications("suspend")
    insert(client, 4, 5)
    notifications("resume")
    insert(client, 6, 7)
    work.wait_for_rows(*range(1, 8))
    wait_for(healed(monitor))
    assert monitor.gaps.latest(1)[0].cause == "audit: 2 rows short"
    client.delete_records("t", ["id < 3"])
    wait_for(lambda: monitor.gaps.account().deleted == 2)
    account = monitor.reconcile(10.0)
    assert (account.expected, account.size, account.shortfall) == (5, 5, 0)
    assert "t.deletes" not in monitor.spool.feeds()


def test_a_table_dropped_and_created_again_is_delivered_from_its_first_row(
    work: Work, client: KineticaClient
) -> None:
    monitor = work.start()
    insert(client, 5, 6)
    work.wait_for_rows(5, 6)
    client.clear_table("t")
    traffic.create(client, "t")
    insert(client, 1, 2)
    wait_for(lambda: sum(work.frames().values()) >= 4)
    assert work.frames() == Counter(traffic.frame(n) for n in (5, 6, 1, 2))
    wait_for(healed(monitor), str((monitor.gaps.latest(5), monitor.gaps.account(), monitor.status())))
    account = monitor.reconcile(10.0)
    assert (account.expected, account.size, account.shortfall) == (2, 2, 0)


def test_a_column_that_does_not_exist_is_told_and_the_table_is_received(
    work: Work, client: KineticaClient
) -> None:
    monitor = work.start(increasing_column="nothing")
    insert(client, 1)
    work.wait_for_rows(1)
    assert "increasing_column nothing does not exist" in monitor.status()["catch_up"]["problem"]


def test_equal_values_across_pages(
    work: Work, client: KineticaClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.monitor.catchup.PAGE_ROWS", 3)
    rows = [*range(5), 5, 5, 5, 5, 5, 6, 7, 7, 7]
    insert(client, *rows)
    monitor = work.start(start="snapshot")
    work.wait_for_rows(*rows)
    wait_for(lambda: monitor.status()["catch_up"]["state"] == "done")
    assert monitor.reconcile(10.0).shortfall == 0


def _wait_for_more(monitor: Monitor, inserted: int) -> None:
    wait_for(lambda: monitor.gaps.account().inserted > inserted)


def test_a_monitor_that_ends_again_and_again_while_it_catches_up_doubles_nothing(
    work: Work, client: KineticaClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ranges of several gaps overlap, and are looked at again."""
    monkeypatch.setattr("actors.monitor.catchup.PAGE_ROWS", 50)
    monkeypatch.setattr("actors.monitor.healer.PAGES", 1)
    stop = threading.Event()
    numbers: list[int] = []

    def publish() -> None:
        while not stop.wait(0.02):
            insert(client, *range(len(numbers), len(numbers) + 20))
            numbers.extend(range(len(numbers), len(numbers) + 20))

    thread = threading.Thread(target=publish)
    thread.start()
    for _ in range(4):
        monitor = work.start()
        goal = monitor.gaps.account().inserted + 150
        _wait_for_more(monitor, goal)
        monitor.stop()
    stop.set()
    thread.join()
    monkeypatch.undo()
    monitor = work.start()
    wait_for(lambda: set(monitor.gaps.counts()) == {"healed"})
    before = monitor.gaps.account().baseline
    assert before is not None
    wait_for(lambda: sum(work.frames().values()) >= len(numbers) - before)
    assert work.frames() == Counter(traffic.frame(n) for n in numbers[before:])


def test_a_failover_is_a_gap_and_the_other_cluster_is_followed(
    work: Work, client: KineticaClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TableServer(port=0, monitor_port=0) as second, KineticaClient(second.url) as other:
        traffic.create(other, "t")
        urls = [work.server.url, second.url.replace("127.0.0.1", "localhost")]
        monitor = work.start(source={"urls": urls, "timeout": 5.0})
        for each in (client, other):
            insert(each, 1, 2)
        work.wait_for_rows(1, 2)
        insert(other, 3)
        work.server.stop()
        wait_for(healed(monitor))
        insert(other, 4)
        work.wait_for_rows(1, 2, 3, 4)
