"""Our client and subscription against our table server: what each says of the wire, the other understands."""

from __future__ import annotations

import io
import itertools
import time
from collections.abc import Iterator, Sequence
from typing import Any

import fastavro
import pytest

from protocols.kinetica.client import KineticaClient, TableMonitor
from protocols.kinetica.errors import AuthenticationFailed, RequestRefused, TableNotFound
from protocols.kinetica.server import TableServer
from protocols.kinetica.subscription import Link, Message, Subscription, topics_are_distinguishable
from protocols.kinetica.types import TableType
from protocols.kinetica.wire import COUNT_SCHEMA

DEADLINE = 60.0
TYPE = TableType.parse(
    '{"type":"record","name":"type_name","fields":[{"name":"id","type":"int"},{"name":"s","type":["string","null"]}]}',
    {"id": ["primary_key"], "s": ["char16", "nullable"]},
)
_numbers = itertools.count()


@pytest.fixture
def client(server: TableServer) -> Iterator[KineticaClient]:
    with KineticaClient(server.url) as made:
        yield made


@pytest.fixture
def table(client: KineticaClient) -> str:
    name = f"ki_home.client{next(_numbers)}"
    client.create_table(name, client.create_type(TYPE))
    return name


def rows(ids: Sequence[int], s: str | None = "x") -> list[bytes]:
    encoded = []
    for number in ids:
        out = io.BytesIO()
        fastavro.schemaless_writer(out, TYPE.avro, {"id": number, "s": s})
        encoded.append(out.getvalue())
    return encoded


def receive(subscription: Subscription, last: Sequence[bytes]) -> list[Message]:
    """Receive until each of the frames `last` has come."""
    got: list[Message] = []
    deadline = time.monotonic() + DEADLINE
    while not set(last) <= {frame for message in got for frame in message.frames}:
        assert time.monotonic() < deadline, f"deadline; got {got}"
        got += [item for item in subscription.receive(100) if isinstance(item, Message)]
    return got


def test_a_table_from_creation_to_drop(client: KineticaClient, table: str) -> None:
    assert client.status().usable
    assert client.version.startswith("7.2.")
    assert client.has_table(table)
    info = client.show_table(table, sizes=True)
    assert (info.type, info.size) == (TYPE, 0)
    assert client.insert_records(table, rows(range(5))) == (5, 0)
    assert client.show_table(table, sizes=True).size == 5
    page = client.get_records(table, expression="id >= 2", sort_by="id")
    assert page.records == rows([2, 3, 4])
    assert (page.type_id, page.has_more) == (info.type_id, False)
    assert client.get_records(table, sort_by="id", offset=1, limit=2).records == rows([1, 2])
    assert client.update_records(table, ["id = 4"], [{"s": None}]) == 1
    assert client.get_records(table, expression="id = 4").records == rows([4], None)
    assert client.delete_records(table, ["id = 0", "id = 1"]) == 2
    assert client.delete_records(table, delete_all=True) == 3
    altered = client.alter_table(table, "add_column", "n", options={"column_type": "int"})
    assert altered == client.show_table(table).type_id != info.type_id
    client.clear_table(table)
    assert not client.has_table(table)
    client.clear_table(table, missing_ok=True)


def test_what_the_server_refuses(client: KineticaClient, table: str) -> None:
    missing: list[tuple[Any, ...]] = [
        (client.show_table,),
        (client.insert_records, rows([1])),
        (client.get_records,),
        (client.create_table_monitor, "insert"),
        (client.clear_table,),
    ]
    for method, *arguments in missing:
        with pytest.raises(TableNotFound):
            method("ki_home.no_such", *arguments)
    with pytest.raises(RequestRefused) as caught:
        client.insert_records(table, [b"\xff"])
    assert type(caught.value) is RequestRefused
    with pytest.raises(RequestRefused):
        client.create_table(table, client.create_type(TYPE))
    with pytest.raises(RequestRefused):
        client.clear_table_monitor("no such topic")


@pytest.mark.parametrize("exact", [False, True], ids=["rcvmore", "exact-topics"])
def test_changes_arrive_on_one_socket(client: KineticaClient, table: str, exact: bool) -> None:
    monitors = {event: client.create_table_monitor(table, event) for event in ("insert", "update", "delete")}
    topics = {monitor.topic_id: event for event, monitor in monitors.items()}
    shown = client.show_table_monitors()
    assert {TableMonitor(topic, table, event) for topic, event in topics.items()} <= set(shown)
    types = [TableType.parse(monitors["insert"].type_schema), TableType.parse(COUNT_SCHEMA)]
    assert topics_are_distinguishable(topics, types, [monitor.topic_id for monitor in shown])
    subscription = Subscription(client.monitor_host(), client.monitor_port(), topics, exact_topics=exact)
    try:
        assert subscription.wait_connected(DEADLINE)
        # When the server acts on the subscription can't be seen: write until something comes.
        number = 0
        while not any(isinstance(item, Message) for item in subscription.receive(50)):
            client.insert_records(table, rows([number]))
            number += 1
            assert number < 200
        client.insert_records(table, rows(range(1000, 3000)))
        got = receive(subscription, rows([2999]))
        inserted = [frame for message in got for frame in message.frames]
        assert inserted[-2000:] == rows(range(1000, 3000))
        assert {topics[message.topic] for message in got} == {"insert"}
        client.update_records(table, ["id >= 2000"], [{"s": "y"}])
        client.delete_records(table, ["id = 1000"])
        counts = [b"\xd0\x0f", b"\x02"]  # 1,000 and 1 as zig-zag varints
        got = receive(subscription, counts)
        assert {topics[message.topic]: message.frames for message in got} == {
            "update": counts[:1],
            "delete": counts[1:],
        }
    finally:
        subscription.close()
        for topic in topics:
            client.clear_table_monitor(topic)
    assert not set(topics) & {monitor.topic_id for monitor in client.show_table_monitors()}


def test_a_server_that_stops_is_a_disconnection() -> None:
    with TableServer(port=0, monitor_port=0) as server, KineticaClient(server.url) as client:
        subscription = Subscription(client.monitor_host(), client.monitor_port(), ["topic"])
        try:
            assert subscription.wait_connected(DEADLINE)
            server.stop()
            seen: list[object] = []
            deadline = time.monotonic() + DEADLINE
            while Link.DISCONNECTED not in seen:
                assert time.monotonic() < deadline
                seen += subscription.receive(100)
            assert seen[0] is Link.CONNECTED
        finally:
            subscription.close()


def test_credentials() -> None:
    with TableServer(port=0, monitor_port=0, user="ann", password="p@ss") as server:
        with KineticaClient(server.url, username="ann", password="p@ss") as client:
            assert not client.has_table("ki_home.none")
        with KineticaClient(server.url.replace("//", "//ann:p%40ss@")) as client:
            assert not client.has_table("ki_home.none")
        with KineticaClient(server.url) as client, pytest.raises(AuthenticationFailed):
            client.has_table("ki_home.none")
