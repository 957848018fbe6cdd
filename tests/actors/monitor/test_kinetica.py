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
from actors.monitor import kinetica, receiver
from actors.monitor.kinetica import KineticaTable, TableStream, block_schema
from actors.monitor.receiver import Receiver, SourceLost
from actors.monitor.settings import MonitorSettings
from actors.monitor.spool import Position, Spool
from protocols.kinetica.client import KineticaClient
from protocols.kinetica.server import TableServer
from protocols.kinetica.types import Column, TableType
from tests.actors.monitor.fakes import DEADLINE, monitor_settings, wait_for

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
        for kind, more in stream.receive(0.05):
            frames.setdefault(kind, []).extend(more)
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
