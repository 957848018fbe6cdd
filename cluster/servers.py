"""Embedded servers in processes of their own, for the demonstration, the benchmarks and the tests."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from cluster.errors import CommandError

#: Seconds allowed to a server to listen, and to end.
START_TIMEOUT = 30.0
STOP_TIMEOUT = 10.0


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
        match = re.search(r"https?://\S+?(?=[,;])", first)
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
