"""Starting, stopping and restarting the table server."""

from __future__ import annotations

import errno
import math
import subprocess
import sys
from pathlib import Path

import gpudb
import pytest

from protocols.kinetica.server import TableServer


def test_ports_in_use() -> None:
    with TableServer(port=0, monitor_port=0) as first:
        with pytest.raises(OSError, match=f"^.Errno {errno.EADDRINUSE}. port {first.port} on") as caught:
            TableServer(port=first.port, monitor_port=0).start()
        assert caught.value.errno == errno.EADDRINUSE
        second = TableServer(port=0, monitor_port=first.monitor_port)
        with pytest.raises(OSError, match=f"monitor port {first.monitor_port} on 127.0.0.1 is in use"):
            second.start()
        with pytest.raises(RuntimeError, match="running already"):
            first.start()


def test_stop_frees_the_ports_and_memory_tables_end() -> None:
    server = TableServer(port=0, monitor_port=0)
    server.stop()
    with server:
        gpudb.GPUdbTable([["id", "int"]], "t", db=gpudb.GPUdb(host=server.url))
    ports = server.port, server.monitor_port
    with server:
        assert (server.port, server.monitor_port) == ports
        assert gpudb.GPUdb(host=server.url).has_table("t")["table_exists"] is False
    server.stop()


def test_tables_survive_a_restart_and_monitors_do_not(tmp_path: Path) -> None:
    columns = [
        ["id", "int", "primary_key"],
        ["x", "double"],
        ["d", "string", "decimal", "nullable"],
        ["b", "bytes"],
    ]
    sent = [[1, -0.0, "10.5", b"\0\xff"], [2, math.inf, None, b""], [3, 1.0, "9", b"x"]]
    with TableServer(port=0, monitor_port=0, data_dir=tmp_path / "data") as server:
        db = gpudb.GPUdb(host=server.url)
        db.create_schema("sales")
        db.create_schema("empty")
        table = gpudb.GPUdbTable(columns, "sales.t", db=db)
        table.insert_records(sent)
        gpudb.GPUdbTable(columns, "sales.gone", db=db).clear()
        table.alter_table("add_column", "n", {"column_type": "int", "column_properties": "nullable"})
        db.alter_table("sales.t", "rename_table", "sales.moved")
        db.create_table_monitor("sales.moved")
        type_id = db.show_table("sales.moved")["type_ids"][0]
        with pytest.raises(OSError, match="in use by another table server"):
            TableServer(port=0, monitor_port=0, data_dir=tmp_path / "data").start()
    with TableServer(port=0, monitor_port=0, data_dir=tmp_path / "data") as server:
        db = gpudb.GPUdb(host=server.url)
        assert db.show_table_monitors([])["monitor_ids"] == []
        assert db.show_table("*")["table_names"] == ["empty", "ki_home", "sales", "sales.moved"]
        assert db.show_table("sales.moved")["type_ids"] == [type_id]
        table = gpudb.GPUdbTable(None, "sales.moved", db=db)
        assert repr([list(row.values()) for row in table.get_records()]) == repr(
            [[*row, None] for row in sent]
        )
        in_order = table.get_records(options={"sort_by": "d"})
        assert [row["id"] for row in in_order] == [2, 3, 1]
        with pytest.raises(gpudb.GPUdbException, match="exists already"):
            table.insert_records([[2, 0.0, None, b"", None]])
        table.insert_records([[4, 0.0, None, b"", 7]])
        assert len(table) == 4
        table.clear()
        assert not list((tmp_path / "data").glob("*.sqlite*"))


def test_what_is_not_a_table_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.sqlite").write_text("no database at all, only some text")
    with pytest.raises(OSError, match=r"x\.sqlite is not a table"):
        TableServer(port=0, monitor_port=0, data_dir=tmp_path).start()
    (tmp_path / "x.sqlite").write_bytes(b"")  # what a creation leaves that was cut short
    with TableServer(port=0, monitor_port=0, data_dir=tmp_path) as server:
        assert gpudb.GPUdb(host=server.url).show_table("*")["table_names"] == ["ki_home"]
    assert not (tmp_path / "x.sqlite").exists()


SERVE = """
import sys
from protocols.kinetica.server import TableServer
server = TableServer(port=0, monitor_port=0, data_dir=sys.argv[1])
server.start()
print(server.url, flush=True)
sys.stdin.read()
"""


def test_acknowledged_rows_survive_a_killed_server(tmp_path: Path) -> None:
    for generation in range(2):
        command = [sys.executable, "-c", SERVE, str(tmp_path)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            db = gpudb.GPUdb(host=process.stdout.readline().strip())
            table = gpudb.GPUdbTable([["id", "int", "primary_key"]], "t", db=db)
            assert len(table) == generation * 1000
            table.insert_records([[generation * 1000 + i] for i in range(1000)])
            process.kill()


def test_get_is_capped() -> None:
    with TableServer(port=0, monitor_port=0, max_get_records=10) as server:
        db = gpudb.GPUdb(host=server.url)
        gpudb.GPUdbTable([["id", "int"]], "t", db=db).insert_records([[i] for i in range(25)])
        reply = db.get_records("t")
        assert len(reply["records_binary"]) == 10
        assert (reply["total_number_of_records"], reply["has_more_records"]) == (25, True)
