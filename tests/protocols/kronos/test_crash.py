"""A server process is killed while puts run: what it acknowledged is there, and resending doubles nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from protocols.kronos import wire
from protocols.kronos.client import KronosClient
from protocols.kronos.errors import TransientError

ROOT = Path(__file__).parents[3]
WRITERS = 4
BATCH = 7
SERVER = """
import sys
from protocols.kronos.server import EventStore
with EventStore(data_dir=sys.argv[1], port=0) as store:
    print(store.url, flush=True)
    sys.stdin.read()
"""


class ServerProcess:
    def __init__(self, directory: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().decode().strip()

    def kill(self) -> None:
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.communicate(timeout=20)

    def stop(self) -> int:
        self._process.communicate(timeout=20)
        return self._process.returncode


def batch(writer: int, first: int) -> list[dict[str, Any]]:
    # All writers use the same times, so that chunks are merged and split while the process dies.
    return [
        {"@time": i // 3, "@origin": f"p/f{writer}/1/{i}", "pad": "x" * 200}
        for i in range(first, first + BATCH)
    ]


class WriterThread(threading.Thread):
    """Puts batches until the server dies, or until `last`; `acknowledged` counts events."""

    def __init__(self, writer: int, url: str, first: int, last: int, enough: threading.Semaphore) -> None:
        super().__init__(daemon=True)
        self.writer, self.acknowledged, self._last = writer, first, last
        self._url, self._enough = url, enough

    def run(self) -> None:
        with KronosClient(self._url, timeout=20) as client:
            while self.acknowledged < self._last:
                try:
                    client.put({"s": batch(self.writer, self.acknowledged)})
                except TransientError:
                    return
                self.acknowledged += BATCH
                self._enough.release()


def test_kill_9_loses_nothing_acknowledged_and_resending_doubles_nothing(tmp_path: Path) -> None:
    acknowledged = [0] * WRITERS
    for kill in (1, 2, 3):
        server = ServerProcess(tmp_path)
        enough = threading.Semaphore(0)
        threads = [WriterThread(w, server.url, acknowledged[w], 10**9, enough) for w in range(WRITERS)]
        for thread in threads:
            thread.start()
        for _ in range(60 * kill):
            assert enough.acquire(timeout=20)
        server.kill()
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()
        acknowledged = [thread.acknowledged for thread in threads]

    server = ServerProcess(tmp_path)
    with KronosClient(server.url, timeout=20) as client:
        found = [event["@origin"] for event in client.get("s", 0, wire.MAX_TIME)]
        assert len(found) == len(set(found))
        wanted = {
            e["@origin"]
            for w in range(WRITERS)
            for f in range(0, acknowledged[w], BATCH)
            for e in batch(w, f)
        }
        assert wanted <= set(found)
        assert len(wanted) >= 60 * BATCH

        for writer in range(WRITERS):
            for first in range(0, acknowledged[writer] + BATCH, BATCH):
                assert client.put({"s": batch(writer, first)})["@success"]
        events = list(client.get("s", 0, wire.MAX_TIME))
    assert server.stop() == 0
    origins = sorted(event["@origin"] for event in events)
    expected = [
        e for w in range(WRITERS) for f in range(0, acknowledged[w] + BATCH, BATCH) for e in batch(w, f)
    ]
    assert origins == sorted(event["@origin"] for event in expected)
    assert len({event["@id"] for event in events}) == len(events)
    assert json.dumps(events).count('"pad"') == len(events)
