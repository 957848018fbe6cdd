"""Starting, stopping, durability: what was acknowledged survives a restart and the death of the process."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import requests

from protocols.v3io.client import Record, V3ioClient
from protocols.v3io.errors import ConnectionFailed, NotFound
from protocols.v3io.server import V3ioServer
from protocols.v3io.server.store import connect

ROOT = Path(__file__).parents[3]
SERVER = """
import sys
from protocols.v3io.server import V3ioServer
with V3ioServer(data_dir=sys.argv[1], port=0) as server:
    print(server.url, flush=True)
    sys.stdin.read()
"""


def test_a_restart_keeps_everything(tmp_path: Path) -> None:
    server = V3ioServer(data_dir=tmp_path / "new" / "dir", port=0)
    for _ in range(2):
        with server, V3ioClient(server.url) as client:
            client.put_object("users", "file", b"a", append=True)
            client.update_item("users", "t/x", "n = if_not_exists(n, 0) + 1")
    with server, V3ioClient(server.url) as client:
        assert client.get_object("users", "file") == b"aa"
        assert client.get_item("users", "t/x") == {"n": 2}
    server.stop()


def test_memory_forgets() -> None:
    server = V3ioServer(port=0)
    with server, V3ioClient(server.url) as client:
        client.put_object("users", "file", b"a")
    with server, V3ioClient(server.url) as client, pytest.raises(NotFound):
        client.get_object("users", "file")


def test_a_killed_server_has_what_it_acknowledged(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    )
    assert process.stdout is not None
    url = process.stdout.readline().decode().strip()
    acknowledged = [0, 0]
    enough = threading.Event()
    with V3ioClient(url, timeout=20) as client:
        client.create_stream("users", "s", 2)

        def write(writer: int) -> None:
            try:
                while True:
                    client.put_records("users", "s", [Record(b"%d" % acknowledged[writer], shard=writer)])
                    acknowledged[writer] += 1
                    if min(acknowledged) >= 5:
                        enough.set()
            except ConnectionFailed:
                pass

        threads = [threading.Thread(target=write, args=(writer,)) for writer in range(2)]
        for thread in threads:
            thread.start()
        enough.wait(20)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=20)
        for thread in threads:
            thread.join(20)
    assert min(acknowledged) >= 5
    connection = connect(tmp_path / "v3io.sqlite")
    for writer in range(2):
        rows = connection.execute(
            "SELECT records.sequence FROM records JOIN entries ON entries.id = shard WHERE name = ? ORDER BY 1",
            (str(writer),),
        ).fetchall()
        assert [row[0] for row in rows] == list(range(1, len(rows) + 1))
        # One more may have been stored whose answer was lost.
        assert acknowledged[writer] <= len(rows) <= acknowledged[writer] + 1
    connection.close()


def test_what_cannot_be_had_is_told_in_a_line(tmp_path: Path) -> None:
    with V3ioServer(data_dir=tmp_path / "used", port=0) as server:
        with pytest.raises(RuntimeError, match="running already"):
            server.start()
        for refused, reason in (
            (V3ioServer(port=server.port), f"port {server.port} on 127.0.0.1 is in use"),
            (V3ioServer(data_dir=tmp_path / "used", port=0), "in use by another"),
        ):
            with pytest.raises(OSError, match=rf"^[^\n]*{reason}[^\n]*$"):
                refused.start()
            refused.stop()
        assert requests.get(server.url, timeout=20).status_code == 200
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "v3io.sqlite").write_bytes(b"no database at all" * 99)
    with pytest.raises(OSError, match="not usable"):
        V3ioServer(data_dir=tmp_path / "other", port=0).start()
    later = sqlite3.connect(tmp_path / "used" / "v3io.sqlite")
    later.execute("PRAGMA user_version=99")
    later.close()
    with pytest.raises(OSError, match="format 99"):
        V3ioServer(data_dir=tmp_path / "used", port=0).start()


@pytest.mark.parametrize("containers", ["users", [""], ["a/b"]])
def test_bad_containers(containers: list[str]) -> None:
    with pytest.raises(ValueError, match="containers"):
        V3ioServer(containers=containers)


def test_an_empty_access_key_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        V3ioServer(access_key="")
