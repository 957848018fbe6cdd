"""The Kinetica source against a real table server and a real subscription."""

from __future__ import annotations

import io
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import fastavro
import msgpack
import pytest

from actors.backoff import Backoff
from actors.block import Block
from actors.codec.decoder import Decoder
from actors.monitor import kinetica, receiver
from actors.monitor.kinetica import KineticaTable, TableStream, block_schema
from actors.monitor.monitor import Monitor
from actors.monitor.receiver import Receiver
from actors.monitor.settings import MonitorSettings
from actors.monitor.source import Received, SourceLost, Switched, TableGone
from actors.monitor.spool import Position, Spool
from protocols.kinetica.client import KineticaClient
from protocols.kinetica.server import TableServer
from protocols.kinetica.types import Column, TableType
from tests.actors.monitor.fakes import DEADLINE, FakeTransport, monitor_settings, wait_for

TYPE = TableType((Column("id", "int", properties=("primary_key",)), Column("name", "string")))
EVENTS = ("insert", "update", "delete")


@pytest.fixture
def server() -> Iterator[TableServer]:
    with TableServer(port=0, monitor_port=0) as running:
        yield running


@pytest.fixture
def client(server: TableServer) -> Iterator[KineticaClient]:
    with KineticaClient(server.url) as client:
        create(client)
        yield client


def create(client: KineticaClient) -> None:
    client.create_table("t", client.create_type(TYPE))


def insert(client: KineticaClient, *ids: int) -> None:
    frames = []
    for number in ids:
        out = io.BytesIO()
        fastavro.schemaless_writer(out, fastavro.parse_schema(TYPE.avro), {"id": number, "name": "x"})
        frames.append(out.getvalue())
    client.insert_records("t", frames)


def settings(server: TableServer, spool: Path = Path("spool"), **changes: object) -> MonitorSettings:
    values = {"events": EVENTS, "source": {"urls": [server.url], "timeout": 5.0}}
    return monitor_settings(spool, **{**values, **changes})


def receive(stream: TableStream, count: int) -> dict[str, list[bytes]]:
    """Frames by kind, once there are `count` of them."""
    frames: dict[str, list[bytes]] = {}

    def enough() -> bool:
        for item in stream.receive(0.05):
            assert isinstance(item, Received)
            frames.setdefault(item.kind, []).extend(item.frames)
        return sum(map(len, frames.values())) >= count

    wait_for(enough, f"only {frames} arrived")
    return frames


def rows(frames: list[bytes], schema: str) -> list[dict[str, object]]:
    parsed = fastavro.parse_schema(json.loads(json.loads(schema)["definition"]))
    return [fastavro.schemaless_reader(io.BytesIO(frame), parsed, None) for frame in frames]


def test_every_kind_of_event_arrives_with_its_schema(server: TableServer, client: KineticaClient) -> None:
    stream = KineticaTable(settings(server)).open(())
    try:
        insert(client, 1, 2, 3)
        inserted = receive(stream, 3)
        assert set(inserted) == {"insert"}
        assert [row["id"] for row in rows(inserted["insert"], stream.schemas["insert"])] == [1, 2, 3]
        client.update_records("t", ["id = 2"], [{"name": "changed"}])
        client.delete_records("t", ["id = 1"])
        changed = receive(stream, 2)
        for kind in ("update", "delete"):
            (row,) = rows(changed[kind], stream.schemas[kind])
            assert list(row.values()) == [1]
        assert json.loads(stream.schemas["insert"])["properties"]["id"] == ["primary_key"]
        assert len(client.show_table_monitors()) == 3
    finally:
        stream.close()
    assert client.show_table_monitors() == []


def test_equal_schemas_are_equal_text() -> None:
    assert block_schema("d", {"a": ["x"], "b": []}) == block_schema("d", {"b": [], "a": ["x"]})


def test_topics_of_a_killed_process_are_cleared(server: TableServer, client: KineticaClient) -> None:
    left = client.create_table_monitor("t", "insert").topic_id
    stream = KineticaTable(settings(server)).open([left, "never-existed"])
    try:
        assert sorted(m.topic_id for m in client.show_table_monitors()) == sorted(stream.topics)
        assert left not in stream.topics
    finally:
        stream.close()


def test_an_unknown_table_says_so(server: TableServer) -> None:
    with pytest.raises(SourceLost, match="nothing_here") as caught:
        KineticaTable(settings(server, table="nothing_here")).open(())
    assert "\n" not in str(caught.value)


def test_wrong_credentials_say_so_without_showing_any() -> None:
    with TableServer(port=0, monitor_port=0, user="u", password="correct-horse") as server:
        source = {"urls": [server.url], "username": "u", "password": "battery-staple"}
        with pytest.raises(SourceLost) as caught:
            KineticaTable(settings(server, source=source)).open(())
        assert "battery" not in repr(caught.value)
        assert "battery" not in repr(settings(server, source=source))


def test_a_closed_monitor_port_names_it_and_leaves_no_monitors(
    server: TableServer, client: KineticaClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kinetica, "CONNECT_TIMEOUT", 0.2)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        with pytest.raises(SourceLost, match=f"127.0.0.1:{port} .*check source.kinetica.monitor_port"):
            KineticaTable(settings(server, monitor_port=port)).open(())
    assert client.show_table_monitors() == []


def test_a_restarted_server_is_followed_under_a_new_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiver, "Backoff", lambda initial, cap: Backoff(0.01, 0.1))
    server = TableServer(port=0, monitor_port=0)
    server.start()
    url, port, monitor_port = server.url, server.port, server.monitor_port
    spool = Spool(tmp_path / "spool")
    given = settings(server, tmp_path / "spool")
    work = Receiver(given, KineticaTable(given), spool, lambda feeds: None)
    thread = threading.Thread(target=work.run)

    def blocks() -> list[Block]:
        found, position = [], Position()
        while (block := spool.next_block("t", position)) is not None:
            found.append(block)
            position = Position(block.epoch, block.end)
        return found

    try:
        with KineticaClient(url) as client:
            create(client)
            thread.start()
            wait_for(lambda: work.state == "receiving")
            insert(client, 1)
            wait_for(lambda: len(blocks()) == 1)
        first = work.epoch
        server.stop()
        wait_for(lambda: work.state == "connecting" and work.problem)
        server = TableServer(port=port, monitor_port=monitor_port)
        server.start()
        with KineticaClient(url) as client:
            create(client)  # tables in memory went with the server
            wait_for(lambda: work.state == "receiving")
            insert(client, 2)
            wait_for(lambda: len(blocks()) == 2)
        assert first is not None
        assert work.epoch is not None
        assert work.epoch > first
        assert [(b.epoch, b.offset, len(msgpack.unpackb(b.payload))) for b in blocks()] == [
            (first, 0, 1),
            (work.epoch, 0, 1),
        ]
        assert work.reconnects == 1
    finally:
        work.stop()
        thread.join(DEADLINE)
        spool.close()
        server.stop()
    assert not thread.is_alive()


# -- alterations -----------------------------------------------------------------------------------------------------


def topics_at(client: KineticaClient) -> list[str]:
    return sorted(monitor.topic_id for monitor in client.show_table_monitors())


def until_switched(stream: TableStream, client: KineticaClient, first: int) -> tuple[list[bytes], int]:
    """Insert rows until the stream has switched; the frames before, and how many of them are of the new topic."""
    frames: list[bytes] = []
    back: list[int] = []
    numbers = iter(range(first, 1000))

    def switched() -> bool:
        insert(client, next(numbers))
        for item in stream.receive(0.02):
            if isinstance(item, Switched):
                back.append(item.back)
            elif not back:
                frames.extend(item.frames)
        return bool(back)

    wait_for(switched)
    return frames, back[0]


def test_a_further_topic_takes_over_and_the_one_before_is_cleared(
    server: TableServer, client: KineticaClient
) -> None:
    stream = KineticaTable(settings(server)).open(())
    try:
        before = stream.topics
        topic, unwanted = stream.renew(), stream.renew()
        assert set(stream.topics) == {*before, topic, unwanted} == set(topics_at(client))
        stream.discard(unwanted)
        stream.follow(topic, stream.describe())
        frames, back = until_switched(stream, client, 1)
        ids = [row["id"] for row in rows(frames, stream.schemas["insert"])]
        assert ids == list(range(1, 1 + len(ids)))
        assert 0 <= back <= len(frames)
        stream.describe()  # which clears what was left
        assert topics_at(client) == sorted(stream.topics)
        assert len(stream.topics) == 3
        assert topic in stream.topics
        last = len(ids) + 100
        insert(client, last)
        assert rows(receive_all(stream, last), stream.schemas["insert"])[-1]["id"] == last
    finally:
        stream.close()
    assert topics_at(client) == []


def receive_all(stream: TableStream, last: int) -> list[bytes]:
    """Inserted frames up to the one of row `last`."""
    frames: list[bytes] = []

    def arrived() -> bool:
        for item in stream.receive(0.02):
            assert isinstance(item, Received)
            frames.extend(item.frames)
        return bool(frames) and rows(frames[-1:], stream.schemas["insert"])[0]["id"] == last

    wait_for(arrived)
    return frames


def test_parts_of_one_operation_are_not_doubled_by_the_change_of_topics(client: KineticaClient) -> None:
    with (
        TableServer(port=0, monitor_port=0, message_records=2) as server,
        KineticaClient(server.url) as other,
    ):
        create(other)
        stream = KineticaTable(settings(server)).open(())
        try:
            stream.follow(stream.renew(), stream.describe())
            numbers: list[object] = []
            first = 1

            def enough() -> bool:
                nonlocal first
                insert(other, *range(first, first + 7))
                first += 7
                for item in stream.receive(0.02):
                    if isinstance(item, Received):
                        numbers.extend(row["id"] for row in rows(list(item.frames), stream.schemas["insert"]))
                return first > 200

            wait_for(enough)
            wait_for(lambda: drain(stream, numbers) and numbers[-1:] == [first - 1])
            assert numbers == list(range(1, first))
        finally:
            stream.close()


def drain(stream: TableStream, numbers: list[object]) -> bool:
    for item in stream.receive(0.02):
        if isinstance(item, Received):
            numbers.extend(row["id"] for row in rows(list(item.frames), stream.schemas["insert"]))
    return True


def test_rows_are_read_again_by_their_increasing_column(
    server: TableServer, client: KineticaClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kinetica, "REREAD_VALUES", 2)
    stream = KineticaTable(settings(server)).open(())
    try:
        insert(client, 1, 2, 3, 4)
        described = stream.describe()
        found = stream.reread(described, "id", [4, 2, 3, 9])
        assert sorted(value for value, _ in found) == [2, 3, 4]
        for value, frame in found:
            assert rows([frame], described.schema) == [{"id": value, "name": "x"}]
        assert [value for value, _ in stream.reread(described, "name", ["x", "it's"])] == ["x"] * 4
        client.alter_table("t", "add_column", "more", options={"column_type": "int,null"})
        with pytest.raises(SourceLost, match="altered again"):
            stream.reread(described, "id", [1])
    finally:
        stream.close()


def test_a_table_that_is_dropped_and_created_again_at_once_is_noticed(
    server: TableServer, client: KineticaClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kinetica, "MONITOR_INTERVAL", 0.0)
    stream = KineticaTable(settings(server)).open(())
    try:
        first = stream.describe()
        client.clear_table("t")
        create(client)
        with pytest.raises(TableGone, match="dropped and created again"):
            stream.describe()
        client.clear_table("t")
        with pytest.raises(TableGone, match="not found"):
            stream.describe()
    finally:
        stream.close()
    assert first.type_id


def test_a_frozen_table_goes_on_when_resumed(
    tmp_path: Path, server: TableServer, client: KineticaClient
) -> None:
    transport, given = FakeTransport(), settings(server, tmp_path / "spool", contract="freeze")
    monitor = Monitor(given, transport)
    monitor.start()

    def delivered(table: str = "t") -> list[dict[str, object]]:
        blocks = transport.in_order("a", table)
        return [row for block in blocks for row in Decoder().decode(block).rows.to_pylist()]

    try:
        wait_for(lambda: monitor.status()["state"] == "receiving")
        insert(client, 1)
        wait_for(lambda: delivered() == [{"id": 1, "name": "x"}])
        client.alter_table("t", "change_column", "name", options={"rename_column": "title"})
        wait_for(lambda: monitor.status()["state"] == "frozen")
        assert "`tablecast resume`" in str(monitor.status()["problem"])
        insert(client, 2)
        wait_for(lambda: monitor.pending == 1)
        assert monitor._spool is not None
        assert monitor._receiver is not None
        wait_for(lambda: not monitor._spool.in_doubt("t"))
        assert len(delivered()) == 1
        wait_for(lambda: [event["event"] for event in delivered("t.changes")] == ["table_altered"])
        assert monitor._receiver.resume()
        wait_for(lambda: delivered()[1:] == [{"id": 2, "title": "x"}])
        wait_for(lambda: monitor.status()["state"] == "receiving")
    finally:
        monitor.stop()
        transport.close()
