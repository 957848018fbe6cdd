"""Embedded servers in processes of their own, for the demonstration, the benchmarks and the tests.

Those of a demonstration that is kept outlive the command that started them; ``down`` ends them with their pipeline.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import psutil

from cluster import local
from cluster.errors import CommandError

#: Seconds allowed to a server to listen, and to end.
START_TIMEOUT = 30.0
STOP_TIMEOUT = 10.0

#: In the line with which a server says that it listens.
_URL = re.compile(r"https?://\S+?(?=[,;])")


@contextmanager
def embedded_server(kind: str, *options: str) -> Iterator[str]:
    """Run ``tablecast serve KIND`` on a free port until the block ends; gives its URL.

    Raises :class:`CommandError` if it does not start.
    """
    command = [sys.executable, "-m", "cluster", "serve", kind, "--port", "0", *options]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        timer = threading.Timer(START_TIMEOUT, process.kill)
        timer.start()
        first = process.stdout.readline()
        timer.cancel()
        match = _URL.search(first)
        if match is None:
            raise CommandError(f"the embedded {kind} server did not start: {first.strip() or 'no output'}")
        yield match[0]
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Kept:
    """Processes that outlive this one, noted so that any other can end them: those of the pipeline `name`.

    Attributes:
        folder: for their data; it goes with them.
    """

    def __init__(self, name: str) -> None:
        self.folder = local.state_directory() / "kept" / f"pipeline-{quote(name, safe='')}"
        self._note = self.folder / "processes.json"

    def serve(self, kind: str, *options: str) -> str:
        """Run ``tablecast serve KIND`` on a free port; returns its URL. Raises :class:`CommandError`."""
        process = self.run("cluster", "serve", kind, "--port", "0", *options, name=kind)
        output = self.folder / f"{kind}.log"
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            ended = process.poll() is not None or time.monotonic() > deadline
            if match := _URL.search(output.read_text()):
                return match[0]
            if ended:
                last = output.read_text().strip().splitlines()[-1:] or ["no output"]
                raise CommandError(f"the embedded {kind} server did not start: {last[0]}")
            time.sleep(0.05)

    def run(self, module: str, *arguments: str, name: str) -> subprocess.Popen[bytes]:
        """Run a Python module in a session of its own, with its output in `name`.log."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / f"{name}.log", "w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        noted = [*self._noted(), {"pid": process.pid, "created": psutil.Process(process.pid).create_time()}]
        self._note.write_text(json.dumps(noted))
        return process

    def _noted(self) -> list[dict[str, Any]]:
        try:
            noted: list[dict[str, Any]] = json.loads(self._note.read_text())
        except (OSError, ValueError):
            return []
        return noted

    def end(self) -> int:
        """End the processes, the last to be started first, and delete their data; returns how many there were."""
        if not self._note.exists():
            return 0
        ended = 0
        for each in reversed(self._noted()):
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(each["pid"])
                # A process id can be used again; together with its start it cannot.
                if abs(process.create_time() - each["created"]) >= 1.0:
                    continue
                process.terminate()
                try:
                    process.wait(STOP_TIMEOUT)
                except psutil.TimeoutExpired:
                    process.kill()
                ended += 1
        shutil.rmtree(self.folder, ignore_errors=True)
        return ended
