"""Table monitors against the embedded server: what is noticed, and that no call waits for ever."""

from __future__ import annotations

import io
import logging
import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import fastavro
import gpudb
import pytest

from actors.callbacks import monitor as module
from actors.callbacks.callback import Callback
from actors.callbacks.errors import MonitorError
from actors.callbacks.monitor import TableMonitor
from actors.callbacks.options import Options
from protocols.kinetica.client import KineticaClient
from protocols.kinetica.server import TableServer
from protocols.kinetica.types import Column, TableType

DEADLINE = 60.0
Kinds = Callback.Type
TYPE = TableType((Column("id", "long"), Column("s", "string", True)))


class Log:
    """What callbacks were called with, in order."""

    def __init__(self) -> None:
        self._queue: queue.Queue[tuple[str, Any]] = queue.Queue()

    def __call__(self, kind: str) -> Callable[[Any], None]:
        return lambda value: self._queue.put((kind, value))

    def callbacks(self, *kinds: Kinds) -> list[Callback]:
        return [Callback(kind, self(kind.name), self("error")) for kind in kinds]

    def next(self) -> tuple[str, Any]:
        return self._queue.get(timeout=DEADLINE)

    def until(self, kind: str) -> Any:
        """The next value of `kind`; others before it are passed over."""
        while True:
            found, value = self.next()
            if found == kind:
                return value

    @property
    def empty(self) -> bool:
        return self._queue.empty()


@pytest.fixture(scope="module")
def server() -> Iterator[TableServer]:
    with TableServer(port=0, monitor_port=0) as running:
        yield running


@pytest.fixture
def client(server: TableServer) -> Iterator[KineticaClient]:
    with KineticaClient(server.url) as client:
        yield client


@pytest.fixture
def table(client: KineticaClient, request: pytest.FixtureRequest) -> Iterator[str]:
    name = f"ki_home.{request.node.name.split('[')[0]}"
    client.create_table(name, client.create_type(TYPE))
    yield name
    client.clear_table(name, missing_ok=True)


def frame(number: int, text: str | None = None, table_type: TableType = TYPE, **more: Any) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, table_type.avro, {"id": number, "s": text, **more})
    return out.getvalue()


def test_rows_counts_alter_and_drop(server: TableServer, client: KineticaClient, table: str) -> None:
    log = Log()
    kinds = [kind for kind in Kinds if kind not in (Kinds.INSERT_RAW, Kinds.INSERT_BATCH)]
    monitor = TableMonitor(server.url, table, log.callbacks(*kinds))
    assert (monitor.table_name, monitor.type_schema) == (table, TYPE.definition)
    with monitor:
        client.insert_records(table, [frame(1, "é"), frame(2)])
        assert log.next() == ("INSERT_DECODED", {"id": 1, "s": "é"})
        assert log.next() == ("INSERT_DECODED", {"id": 2, "s": None})
        client.update_records(table, ["id > 0"], [{"s": "x"}])
        assert log.next() == ("UPDATED", 2)
        client.delete_records(table, ["id = 2"])
        assert log.next() == ("DELETED", 1)
        options = {"column_type": "int", "column_properties": "nullable"}
        client.alter_table(table, "add_column", "n", options=options)
        wider = client.show_table(table).type
        client.insert_records(table, [frame(3, "y", wider, n=7)])
        assert log.next() == ("TABLE_ALTERED", f"Table {table} was altered: added n int(nullable)")
        assert log.next() == ("INSERT_DECODED", {"id": 3, "s": "y", "n": 7})
        client.clear_table(table)
        assert log.next() == ("TABLE_DROPPED", f"Table {table} does not exist anymore")
        assert monitor.wait(DEADLINE)
    assert log.empty  # reported once
    with pytest.raises(MonitorError, match=f"table {table} can't be monitored"):
        monitor.start_monitor()


def test_an_alteration_without_rows_is_noticed_too(
    server: TableServer, client: KineticaClient, table: str
) -> None:
    log = Log()
    with (
        TableMonitor(server.url, table, log.callbacks(Kinds.INSERT_DECODED, Kinds.TABLE_ALTERED)),
        TableMonitor(server.url, table, log.callbacks(Kinds.DELETED, Kinds.TABLE_ALTERED)),
    ):
        client.alter_table(table, "change_column", "s", options={"rename_column": "label"})
        for _ in range(2):
            assert (
                log.until("TABLE_ALTERED") == f"Table {table} was altered: added label string(nullable); "
                "removed s string(nullable)"
            )


def test_a_table_that_is_dropped_and_created_again_is_a_dropped_one(
    server: TableServer, client: KineticaClient, table: str
) -> None:
    log = Log()
    with TableMonitor(server.url, table, log.callbacks(Kinds.UPDATED, Kinds.TABLE_DROPPED)) as monitor:
        client.clear_table(table)
        client.create_table(table, client.create_type(TYPE))
        told = log.until("TABLE_DROPPED")
        # The monitor may have looked while there was none.
        assert "was dropped and created again" in told or "does not exist anymore" in told
        assert monitor.wait(DEADLINE)
    with TableMonitor(server.url, table, log.callbacks(Kinds.INSERT_DECODED)):
        client.insert_records(table, [frame(1)])
        assert log.until("INSERT_DECODED") == {"id": 1, "s": None}


def test_stop_removes_the_monitors_and_start_makes_them_anew(
    server: TableServer, client: KineticaClient, table: str
) -> None:
    log = Log()
    monitor = TableMonitor(server.url, table, log.callbacks(Kinds.INSERT_DECODED))
    monitor.stop_monitor()  # never started
    for number in range(2):
        monitor.start_monitor()
        with pytest.raises(MonitorError, match=f"the monitor of {table} runs already; stop it first"):
            monitor.start_monitor()
        assert [each.event for each in client.show_table_monitors() if each.table == table] == ["insert"]
        client.insert_records(table, [frame(number)])
        assert log.next() == ("INSERT_DECODED", {"id": number, "s": None})
        monitor.stop_monitor()
        monitor.stop_monitor()
        assert not monitor.running
        assert table not in [each.table for each in client.show_table_monitors()]


def test_a_callback_may_stop_its_monitor(server: TableServer, client: KineticaClient, table: str) -> None:
    made: list[TableMonitor] = []
    made.append(
        TableMonitor(server.url, table, [Callback(Kinds.INSERT_DECODED, lambda row: made[0].stop_monitor())])
    )
    made[0].start_monitor()
    client.insert_records(table, [frame(1)])
    assert made[0].wait(DEADLINE)


def test_rows_that_were_received_are_handed_out_at_a_stop(
    server: TableServer, client: KineticaClient, table: str
) -> None:
    rows: list[Any] = []
    first, go_on = threading.Event(), threading.Event()

    def slow(row: Any) -> None:
        rows.append(row["id"])
        first.set()
        go_on.wait(DEADLINE)

    monitor = TableMonitor(server.url, table, [Callback(Kinds.INSERT_DECODED, slow)])
    monitor.start_monitor()
    client.insert_records(table, [frame(number) for number in range(500)])
    assert first.wait(DEADLINE)
    stopping = threading.Thread(target=monitor.stop_monitor)
    stopping.start()
    go_on.set()
    stopping.join(DEADLINE)
    assert rows == list(range(500))


def test_abort_ends_the_monitor(server: TableServer, client: KineticaClient, table: str) -> None:
    log = Log()
    options = Callback.InsertDecodedOptions(Callback.InsertDecodedOptions.DecodeFailureMode.ABORT)
    monitor = TableMonitor(
        server.url, table, [Callback(Kinds.INSERT_DECODED, log("row"), log("error"), options)]
    )
    monitor.start_monitor()
    client.insert_records(table, [frame(1)])
    assert log.next() == ("row", {"id": 1, "s": None})
    (topic,) = [each.topic_id for each in client.show_table_monitors() if each.table == table]
    server._publisher.publish([(topic, [frame(2), b"\xff", frame(3)])])  # what no server sends
    assert log.next() == ("row", {"id": 2, "s": None})
    assert "a record did not decode: not a row of this table type" in log.next()[1]
    assert monitor.wait(DEADLINE)
    assert log.empty
    assert table not in [each.table for each in client.show_table_monitors()]


def test_a_restarted_server_is_noticed(tmp_path: Path) -> None:
    log = Log()
    with TableServer(port=0, monitor_port=0, data_dir=tmp_path) as first:
        with KineticaClient(first.url) as client:
            client.create_table("ki_home.t", client.create_type(TYPE))
            client.insert_records("ki_home.t", [frame(1)])
        port, url = first.port, first.url
        monitor = TableMonitor(url, "ki_home.t", log.callbacks(Kinds.INSERT_DECODED))
        monitor.start_monitor()
    try:
        assert "trying to reach it again" in log.until("error")
        with TableServer(port=port, monitor_port=0, data_dir=tmp_path), KineticaClient(url) as client:
            assert "what was published meanwhile is missing" in log.until("error")
            client.insert_records("ki_home.t", [frame(2)])
            assert log.next() == ("INSERT_DECODED", {"id": 2, "s": None})
            monitor.stop_monitor()
    finally:
        monitor.stop_monitor()


def test_another_version_gets_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, server: TableServer, table: str
) -> None:
    TableMonitor(server.url, table, [Callback(Kinds.DELETED, print)])
    assert not caplog.records
    whole = KineticaClient.call

    def other_version(self: KineticaClient, endpoint: str, **fields: Any) -> dict[str, Any]:
        reply = whole(self, endpoint, **fields)
        if endpoint == "/show/system/properties":
            reply["property_map"]["version.gpudb_core_version"] = "9.9.1.2.20300101"
        return reply

    monkeypatch.setattr(KineticaClient, "call", other_version)
    with caplog.at_level(logging.WARNING):
        TableMonitor(server.url, table, [Callback(Kinds.DELETED, print)])
    assert "has version 9.9.1.2.20300101; this client knows 7.2" in caplog.text


def test_db_may_be_an_official_object(server: TableServer, client: KineticaClient, table: str) -> None:
    log = Log()
    db = gpudb.GPUdb(host=server.url)
    with TableMonitor(db, table, log.callbacks(Kinds.INSERT_DECODED)) as monitor:
        assert monitor.db is db
        client.insert_records(table, [frame(1)])
        assert log.next() == ("INSERT_DECODED", {"id": 1, "s": None})


def test_its_user_and_password_are_used() -> None:
    with TableServer(port=0, monitor_port=0, user="joe", password="secret") as server:
        db = gpudb.GPUdb(host=server.url, username="joe", password="secret")
        with KineticaClient(server.url, username="joe", password="secret") as client:
            client.create_table("ki_home.t", client.create_type(TYPE))
        monitor = TableMonitor(db, "ki_home.t", [Callback(Kinds.DELETED, print)])
        assert "secret" not in repr(monitor)
        with pytest.raises(MonitorError, match="refused the credentials") as caught:
            TableMonitor(
                server.url, "ki_home.t", [Callback(Kinds.DELETED, print)], username="joe", password="no"
            )
        assert "secret" not in str(caught.value)


CALLBACKS = [Callback(Kinds.DELETED, print)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((None, "t", CALLBACKS), "db is a NoneType; give a URL"),
        (([], "t", CALLBACKS), "db is a list; give a URL"),
        (("ftp://x", "t", CALLBACKS), "db: "),
        (("{url}", "", CALLBACKS), "table_name is no name"),
        (("{url}", 7, CALLBACKS), "table_name is no name"),
        (("{url}", "ki_home.missing", CALLBACKS), "there is no table ki_home.missing"),
        (("{url}", "t", None), "callback_list is a NoneType; give a list"),
        (("{url}", "t", CALLBACKS[0]), "callback_list is a Callback; give a list"),
        (("{url}", "t", []), "callback_list has nothing to monitor"),
        (("{url}", "t", [None]), "callback_list has nothing to monitor"),
        (("{url}", "t", [Callback(Kinds.DELETED, None)]), "callback_list has nothing to monitor"),
        (("{url}", "t", [Callback(Kinds.TABLE_DROPPED, print)]), "callback_list has nothing to monitor"),
        (("{url}", "t", [print]), "callback_list has a builtin_function_or_method; give Callback"),
        (("{url}", "t", CALLBACKS * 2), "callback_list has two callbacks of DELETED"),
        (("{url}", "t", CALLBACKS, {"max_retries": 1}), "options is a dict; give"),
        (("http://127.0.0.1:1", "t", CALLBACKS), "127.0.0.1:1"),
    ],
)
def test_misuse_is_told_by_the_constructor(
    server: TableServer, arguments: tuple[Any, ...], message: str
) -> None:
    db, *others = arguments
    with pytest.raises(MonitorError, match=message):
        TableMonitor(server.url if db == "{url}" else db, *others)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"values": "typed"}, "values is 'typed'; give one of official, python"),
        ({"verify": False}, "certificates are always verified"),
        ({"password": "p"}, "db: a password needs a username"),
        ({"timeout": "long"}, "db: "),
        ({"token": 5}, "token must be str, not int"),
        ({"username": 5}, "username must be str, not int"),
        ({"username": "u", "password": 5}, "password must be str, not int"),
    ],
)
def test_misuse_of_keywords(server: TableServer, keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(MonitorError, match=message):
        TableMonitor(server.url, "t", CALLBACKS, **keywords)


def test_a_bad_log_level(server: TableServer, table: str) -> None:
    monitor = TableMonitor(server.url, table, CALLBACKS)
    assert monitor.logging_level == logging.INFO
    monitor.logging_level = logging.ERROR
    for level in ("LOUD", 1.5):
        with pytest.raises(MonitorError, match="no log level"):
            monitor.logging_level = level  # type: ignore[assignment]
    assert monitor.logging_level == logging.ERROR


def test_the_constructor_does_not_hang_where_nothing_answers(
    monkeypatch: pytest.MonkeyPatch, server: TableServer, table: str
) -> None:
    monkeypatch.setattr(module, "CONNECT_TIMEOUT", 0.2)
    with closing(socket.socket()) as deaf:
        deaf.bind(("127.0.0.1", 0))  # and does not listen
        options = Options({"monitor_port": deaf.getsockname()[1], "max_retries": 2, "wait_interval": 0})
        with pytest.raises(MonitorError, match=r"nothing answers at the monitor port .* after 3 tries"):
            TableMonitor(server.url, table, CALLBACKS, options)


def test_ray_is_not_imported(server: TableServer, table: str) -> None:
    script = (
        "import sys, tablecast, tablecast.compat as compat\n"
        "callback = tablecast.Callback(tablecast.Callback.Type.INSERT_BATCH, print)\n"
        f"with tablecast.TableMonitor({server.url!r}, {table!r}, [callback]): pass\n"
        "assert compat.GPUdbTableMonitor.Client is tablecast.TableMonitor\n"
        "assert 'ray' not in sys.modules and 'gpudb' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=DEADLINE)


def test_many_rows_come_once_and_in_order(server: TableServer, client: KineticaClient, table: str) -> None:
    rows: list[int] = []
    done = threading.Event()

    def on_row(row: Any) -> None:
        rows.append(row["id"])
        if len(rows) == 20_000:
            done.set()

    with TableMonitor(server.url, table, [Callback(Kinds.INSERT_DECODED, on_row)]):
        for start in range(0, 20_000, 500):
            client.insert_records(table, [frame(number) for number in range(start, start + 500)])
        assert done.wait(DEADLINE)
    assert rows == list(range(20_000))
