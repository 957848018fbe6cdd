"""Bursts of requests to a server that stalls or drips."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from protocols.v3io.burst import Burst

DEADLINE = 60.0
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


@contextlib.contextmanager
def serving(answer: Callable[[socket.socket, bytes], None]) -> Iterator[str]:
    """A server that has `answer` treat each connection's first bytes, on a thread of its own."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            answer(connection, connection.recv(100))

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.close()


def test_a_stalled_caller_holds_up_no_other() -> None:
    asked, released = threading.Event(), threading.Event()

    def answer(connection: socket.socket, request: bytes) -> None:
        if request == b"slow":
            asked.set()
            assert released.wait(DEADLINE)
        connection.sendall(OK)

    with serving(answer) as url, ThreadPoolExecutor() as threads:
        burst = Burst(url, DEADLINE, 2, True)
        slow = threads.submit(burst.send, [b"slow"])
        assert asked.wait(DEADLINE)
        assert threads.submit(burst.send, [b"fast"]).result(DEADLINE / 2) == [True]
        released.set()
        assert slow.result(DEADLINE) == [True]
        burst.close()


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n"])
def test_an_answer_that_drips_ends_with_the_timeout(head: bytes) -> None:
    ended = threading.Event()

    def answer(connection: socket.socket, request: bytes) -> None:
        connection.sendall(head)
        while not ended.wait(0.01):
            connection.sendall(b"x")

    with serving(answer) as url, ThreadPoolExecutor() as threads:
        burst = Burst(url, 0.2, 2, True)
        started = time.monotonic()
        try:
            assert threads.submit(burst.send, [b"a", b"b"]).result(DEADLINE / 2) == [False, False]
        finally:
            ended.set()
        assert time.monotonic() - started < DEADLINE / 2
        burst.close()
